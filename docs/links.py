"""Link names of the API in inline code, such as `client.run()`, to their description."""

import pkgutil
import re
from importlib import import_module

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx

import aireiter_async

NAME = re.compile(r"(?:await )?([A-Za-z_][\w.]*)(?:\(.*\))?", re.DOTALL)
# What an example calls an object, and its class.
OBJECTS = {
    "client": "AsyncClient",
    "batch": "Batch",
    "task": "Task",
    "outcome": "Success",
    "ledger": "Ledger",
    "service": "testing.FakeService",
}
PRIVATE = {"__main__", "cli", "models", "report"}
MODULES = [
    module.name
    for module in pkgutil.iter_modules(aireiter_async.__path__)
    if not module.name.startswith("_") and module.name not in PRIVATE
]


def target(text: str) -> str | None:
    """Return the full name of what *text* names; None if it is not in the API."""
    match = NAME.fullmatch(text)
    if match is None:
        return None
    first, dot, rest = match[1].partition(".")
    if dot and first in OBJECTS:
        return f"aireiter_async.{OBJECTS[first]}.{rest}"
    if first in {"models", *MODULES}:
        return f"aireiter_async.{match[1]}"
    if hasattr(aireiter_async.AsyncClient, match[1]):
        return f"aireiter_async.AsyncClient.{match[1]}"
    for module in MODULES:
        if first in getattr(import_module(f"aireiter_async.{module}"), "__all__", ()):
            return f"aireiter_async.{module}.{match[1]}"
    return f"aireiter_async.{match[1]}" if first in aireiter_async.__all__ else None


def link(app: Sphinx, document: nodes.document) -> None:
    for literal in list(document.findall(nodes.literal)):
        if isinstance(literal.parent, nodes.reference | pending_xref):
            continue
        name = target(literal.astext())
        if name is None:
            continue
        reference = pending_xref(
            "",
            refdomain="py",
            reftype="obj",
            reftarget=name,
            refdoc=app.env.docname,
            refwarn=False,
        )
        literal.replace_self(reference)
        reference += literal


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("doctree-read", link)
    return {"parallel_read_safe": True}
