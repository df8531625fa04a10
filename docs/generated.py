"""Pages that are written from the code at each build: the models and the command line."""

import inspect
import json
import shlex
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from aireiter_async import models
from aireiter_async.models import Model

HERE = Path(__file__).parent
CHANNELS = (
    "Where a model has channels, `_base`, `_plus`, `_advanced` or `_max` after its name selects "
    "one: same model and result, different stability and price."
)
MEDIA = {"image": "Images", "video": "Videos", "audio": "Audio", "text": "Text"}


def write_models() -> str:
    """Return the page of all models: parameters, limits, defaults and examples."""
    classes = sorted({*models.MODELS.values()}, key=lambda cls: cls.MODEL)
    parts = [
        "# Models",
        f"The {len(classes)} documented models, from the code of this release.",
        CHANNELS,
    ]
    for medium, heading in MEDIA.items():
        parts.append(f"## {heading}")
        parts += [describe(cls) for cls in classes if medium == cls.MEDIUM]
    return "\n\n".join(parts) + "\n"


def describe(cls: type[Model]) -> str:
    params = models.example(cls.MODEL)
    arguments = ", ".join(f"{name}={value!r}" for name, value in params.items())
    variants = [name for name in cls.VARIANTS if name != cls.MODEL]
    lines = [
        f"### {cls.MODEL}",
        "",
        (inspect.getdoc(cls) or "").partition("\n")[0],
        f"[Documentation of the service]({cls.DOC}).",
        "",
        "| parameter | type | required | default | limits | meaning |",
        "|---|---|---|---|---|---|",
        *map(row, cls.PARAMETERS),
        "",
    ]
    if variants:
        lines += [f"Also: {', '.join(f'`{name}`' for name in variants)}.", ""]
    if cls.CONSTRAINTS:
        lines += [*(f"- {escape(text)}" for text in cls.CONSTRAINTS), ""]
    command = " ".join(shlex.quote(f"{name}={text(value)}") for name, value in params.items())
    lines += [
        "```python",
        f"models.{cls.__name__}({arguments})",
        "```",
        "",
        "```console",
        f"$ aireiter run {cls.MODEL} {command}",
        "```",
    ]
    return "\n".join(lines)


def row(parameter: Any) -> str:
    default = "" if parameter.default is None else f"`{json.dumps(parameter.default)}`"
    cells = (
        f"`{parameter.name}`",
        parameter.type,
        "yes" if parameter.required else "",
        default,
        parameter.limits,
        parameter.doc,
    )
    return f"| {' | '.join(cell if cell.startswith('`') else escape(cell) for cell in cells)} |"


def escape(words: str) -> str:
    return words.replace("\\", "\\\\").replace("<", "\\<").replace("|", "\\|").replace("*", "\\*")


def text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def write(_app: Sphinx) -> None:
    """Write the pages that changed, so that an incremental build stays one."""
    pages = {"models.md": write_models()}
    for name, content in pages.items():
        path = HERE / name
        if not path.exists() or path.read_text(encoding="utf-8") != content:
            path.write_text(content, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True}
