"""The models command: the catalogue, or one of its models."""

import inspect
import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from aireiter_async import models
from aireiter_async.cli import _display
from aireiter_async.cli._output import Output
from aireiter_async.models import Model
from aireiter_async.models._catalogue import CHANNELS

_MEDIA: Final = ("image", "video", "audio", "text")
_NONE: Final = "-"
_CASES: Final = {
    "required_when": "required with",
    "only_when": "only with",
    "needs": "only with",
}


async def list_models(output: Output) -> int:
    """Show all models."""
    classes = sorted(
        {*models.MODELS.values()}, key=lambda cls: (_MEDIA.index(cls.MEDIUM), cls.MODEL)
    )
    output.answer([_summary(cls) for cls in classes], _list_view)
    return 0


async def show_model(name: str, output: Output) -> int:
    """Show one model.

    Raises:
        UnknownModelError: The catalogue of this release has no such model.
    """
    output.answer(describe(name), _model_view)
    return 0


def _summary(cls: type[Model]) -> dict[str, Any]:
    channels = [each for each in CHANNELS if f"{cls.MODEL}_{each}" in cls.VARIANTS]
    on_channels = {cls.MODEL, *(f"{cls.MODEL}_{each}" for each in channels)}
    return {
        "model": cls.MODEL,
        "medium": cls.MEDIUM,
        "channels": channels,
        "variants": [name for name in cls.VARIANTS if name not in on_channels],
        "required": [parameter.name for parameter in cls.PARAMETERS if parameter.required],
        "class": cls.__name__,
        "summary": (inspect.getdoc(cls) or "").partition("\n")[0],
        "doc": cls.DOC,
    }


def describe(name: str) -> dict[str, Any]:
    """Return one model as a JSON object.

    Raises:
        UnknownModelError: The catalogue of this release has no such model.
    """
    parameters = models.describe(name)
    cls = models.MODELS[name]
    params = models.example(name)
    return {
        **_summary(cls),
        "parameters": [
            attrs.asdict(each, filter=lambda _, value: value is not None) for each in parameters
        ],
        "constraints": cls.CONSTRAINTS,
        "example": {
            "params": params,
            "python": _python(cls, name, params),
            "command": _command(name, params),
        },
    }


def _python(cls: type[Model], name: str, params: Mapping[str, Any]) -> str:
    given = [f"{key}={value!r}" for key, value in params.items()]
    if name != cls.MODEL:
        given.append(f"variant={name!r}")
    return f"models.{cls.__name__}({', '.join(given)})"


def _command(name: str, params: Mapping[str, str | float | list[str]]) -> str:
    pairs = [
        f"{key}={shlex.quote(str(each))}"
        for key, value in params.items()
        for each in (value if isinstance(value, list) else [value])
    ]
    return " ".join(["aireiter run", name, *pairs, "-o results"])


def _list_view(document: Sequence[Mapping[str, Any]]) -> _display.View:
    return _display.table(
        ("model", "medium", "channels", "required parameters"),
        [
            (
                each["model"],
                each["medium"],
                " ".join(each["channels"]) or _NONE,
                " ".join(each["required"]) or _NONE,
            )
            for each in document
        ],
    )


def _model_view(document: Mapping[str, Any]) -> _display.View:
    example = document["example"]
    head = [("model", document["model"]), ("", document["summary"]), ("medium", document["medium"])]
    head += [("channels", " ".join(document["channels"]))] if document["channels"] else []
    head += [("also", " ".join(document["variants"]))] if document["variants"] else []
    head += [("page", document["doc"])]
    return _display.page(
        _display.facts(head),
        _display.table(
            ("parameter", "type", "default", "description and limits"),
            [_row(each) for each in document["parameters"]],
        ),
        _display.facts(
            [
                *(("constraint", text) for text in document["constraints"]),
                ("python", example["python"]),
                ("command", example["command"]),
            ]
        ),
    )


def _row(parameter: Mapping[str, Any]) -> tuple[str, str, str, str]:
    words = [parameter["doc"], parameter["limits"]]
    for name, text in _CASES.items():
        words += [f"{text} {parameter[name]}"] if name in parameter else []
    words += ["no longer documented"] if parameter["deprecated"] else []
    default = "required" if parameter["required"] else _shown(parameter.get("default"))
    return parameter["name"], parameter["type"], default, "; ".join(filter(None, words))


def _shown(default: object) -> str:
    return default if isinstance(default, str) else "" if default is None else json.dumps(default)
