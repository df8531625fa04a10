"""Pages that are written from the code at each build: the models and the command line."""

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from cyclopts import App
from cyclopts.argument import Argument

from aireiter_async import cli, models
from aireiter_async.cli._app import _app as app
from aireiter_async.cli._models import describe as describe_model
from aireiter_async.models import Model

if TYPE_CHECKING:
    from sphinx.application import Sphinx

HERE = Path(__file__).parent
CHANNELS = (
    "Where a model has channels, `_base`, `_plus`, `_advanced` or `_max` after its name selects "
    "one: same model and result, different stability and price."
)
FILES = (
    "A parameter that takes a data URI also takes a local file: a `Path` in Python, `@photo.jpg` "
    "on the command line; see [](local-files.md)."
)
MEDIA = {"image": "Images", "video": "Videos", "audio": "Audio", "text": "Text"}
COMMAND_LINE = """
The extra `cli` adds the `aireiter` command; `python -m aireiter_async` is the same. This page shows
what `aireiter COMMAND --help` shows. The API key is read from `AIREITER_API_KEY`; `aireiter demo`
needs none.

Results go to standard output, everything else to standard error. On a terminal, tables are wrapped
and coloured and progress is live; elsewhere lines stay whole. `NO_COLOR` is respected.

![aireiter batch in a terminal](images/batch.svg)
""".strip()
COMPLETION = """
## Shell completion

```console
$ aireiter --install-completion
```

installs it for bash, zsh, fish or PowerShell. It completes commands and options.
""".strip()
SHARED = ("Connection", "Output")
KINDS = {bool: "", int: "N", float: "NUMBER", Path: "PATH", str: "TEXT"}
CODE = re.compile(  # options, placeholders and names, which Markdown would otherwise change
    r"(?<![\w`/-])(?:--[a-z][a-z-]*|NAME=VALUE|@FILE|@@|@-|@(?=\.)|\.csv|\.db"
    r"|AIREITER_[A-Z_]+|HTTPS?_PROXY|NO_PROXY|out_task_id|callback_url"
    r"|\{[\w:.]+\}(?:-\{[\w:.]+\})?|aireiter [a-z]+(?: ID)?(?= |$|\.))"
)


def write_models() -> str:
    """Return the page of all models: parameters, limits, defaults and examples."""
    classes = sorted({*models.MODELS.values()}, key=lambda cls: cls.MODEL)
    parts = [
        "# Models",
        f"The {len(classes)} documented models, from the code of this release.",
        CHANNELS,
        FILES,
    ]
    for medium, heading in MEDIA.items():
        parts.append(f"## {heading}")
        parts += [describe(cls) for cls in classes if medium == cls.MEDIUM]
    return "\n\n".join(parts) + "\n"


def describe(cls: type[Model]) -> str:
    example = describe_model(cls.MODEL)["example"]
    variants = [name for name in cls.VARIANTS if name != cls.MODEL]
    lines = [
        f"### {cls.MODEL}",
        "",
        f"```{{py:class}} aireiter_async.models.{cls.__name__}",
        ":no-typesetting:",
        "```",
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
    lines += [
        "```python",
        example["python"],
        "```",
        "",
        "```console",
        f"$ {example['command']}",
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


def write_commands() -> str:
    """Return the page of the command line: each command with its examples and options."""
    commands = {name: app[name] for name in app if not name.startswith("-")}
    shared: dict[str, list[Argument]] = {}
    sections = [section(name, command, shared) for name, command in commands.items()]
    parts = [
        "# Command line",
        COMMAND_LINE,
        *(
            f"[`aireiter {name}`](#aireiter-{name})\n: {mark(paragraphs(command)[0])}"
            for name, command in commands.items()
        ),
        *sections,
    ]
    for group in SHARED:
        parts += [f"## {group} options", *map(option, shared[group])]
    parts += ["## Exit status", *statuses(), COMPLETION]
    return "\n\n".join(parts) + "\n"


def section(name: str, command: App, shared: dict[str, list[Argument]]) -> str:
    parts = [f"## aireiter {name}"]
    for paragraph in paragraphs(command):
        label, colon, line = paragraph.partition(": aireiter ")
        shown = f"{label}:\n\n```console\n$ aireiter {line}\n```" if colon else mark(paragraph)
        parts.append(shown)
    found: dict[str, list[Argument]] = {}
    for argument in command.assemble_argument_collection(parse_docstring=True):
        if argument.names != ("*",):
            found.setdefault(argument.parameter.group[0].name, []).append(argument)
    for group in ("Arguments", "Options"):
        if group in found:
            parts += [f"**{group}**", *map(option, found[group])]
    also = [group for group in SHARED if group in found]
    for group in also:
        shared.setdefault(group, found[group])
    links = [f"[{group.lower()} options](#{group.lower()}-options)" for group in also]
    return "\n\n".join([*parts, f"Also: {' and '.join(links)}."])


def paragraphs(command: App) -> list[str]:
    text = inspect.cleandoc(command.help).partition("\nArgs:")[0].strip()
    return [" ".join(each.split()) for each in text.split("\n\n")]


def option(argument: Argument) -> str:
    kind = next((each for each in get_args(argument.hint) or (argument.hint,) if each in KINDS), 0)
    positional = [f"`{argument.name.lstrip('-').upper()}`"] if argument.index is not None else []
    names = [
        f"`{name} {KINDS[kind]}`" if KINDS.get(kind) and name.startswith("--") else f"`{name}`"
        for name in argument.names
        if not name.startswith(("--no-", "--empty-"))
    ]
    names = positional + [name for name in names if name not in positional]
    return f"{', '.join(names)}\n: {mark(' '.join((argument.parameter.help or '').split()))}"


def mark(words: str) -> str:
    """Escape *words* for Markdown, and set options, placeholders and commands as code."""
    return CODE.sub(lambda found: f"`{found[0]}`", words)


def statuses() -> Iterator[str]:
    returns = (inspect.getdoc(cli.main) or "").partition("Returns:\n")[2]
    for line in returns.splitlines():
        status, _, meaning = line.strip().partition(": ")
        yield f"{status}\n: {mark(meaning.replace('``', ''))}"


def write(_app: "Sphinx") -> None:
    """Write the pages that changed, so that an incremental build stays one."""
    pages = {"models.md": write_models(), "cli.md": write_commands()}
    for name, content in pages.items():
        path = HERE / name
        if not path.exists() or path.read_text(encoding="utf-8") != content:
            path.write_text(content, encoding="utf-8")


def setup(app: "Sphinx") -> dict[str, bool]:
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True}
