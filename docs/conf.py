"""Sphinx configuration; ``nox -s docs`` builds the site without a network."""

import os
import sys
from pathlib import Path

from aireiter_async import __version__

sys.path.insert(0, str(Path(__file__).parent))

project = "aireiter_async"
author = "The aireiter_async developers"
copyright = author  # noqa: A001 - Sphinx's name
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.intersphinx",
    "sphinx_codeautolink",
    "sphinx_copybutton",
    "links",
    "generated",
]
exclude_patterns = ["_build"]
source_suffix = {".md": "markdown"}
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "undoc-members": False}
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # attributes are documented in the class, once
smartquotes_action = "D"  # dashes, which napoleon writes as --
default_role = "any"
# Docstrings name parameters, attributes and Python's own things in single backquotes as well.
suppress_warnings = ["ref.any"]

# Links into other projects' documentation need their inventories, and so a network.
intersphinx_mapping: dict[str, tuple[str, None]] = {}
if os.environ.get("DOCS_ONLINE"):
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "aiohttp": ("https://docs.aiohttp.org/en/stable", None),
        "attrs": ("https://www.attrs.org/en/stable", None),
    }

# The pages' Python blocks run in one session, with these names.
codeautolink_global_preface = """
import asyncio
from aireiter_async import AsyncClient, models
client = AsyncClient()
"""
codeautolink_concat_default = True

html_theme = "furo"
html_title = "aireiter_async"
html_static_path: list[str] = []
