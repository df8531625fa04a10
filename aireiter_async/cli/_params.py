"""Parameters as text: NAME=VALUE, cells, JSON objects and files."""

import json
import reprlib
import sys
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final, NoReturn, cast

from aireiter_async import SubmitRequest, data_url, models
from aireiter_async._client._local_media import embed_files
from aireiter_async._requests import as_request
from aireiter_async.cli._errors import UsageError, reason
from aireiter_async.models import Model, UnknownModelError

STDIN: Final = "-"
_BOOLEANS: Final = {"true": True, "false": False}
_ANY: Final[tuple[type, ...]] = (bool, int, float, list, dict)
# The JSON types that a value may be parsed as, by the parameter's type; others remain text.
_READ: Final[Mapping[str | None, tuple[type, ...]]] = {
    "integer": (int, float),
    "number": (int, float),
    "string[]": (list,),
    "string | string[]": (list,),
}


class UnusableFileError(UsageError):
    """A local file of a media parameter cannot be read or sent."""


@cache
def parameter_types(model: str) -> Mapping[str, str]:
    """Return the parameter types of *model* by name; empty if it is unknown."""
    try:
        return {parameter.name: parameter.type for parameter in models.describe(model)}
    except UnknownModelError:
        return {}


@cache
def _media_parameters(model: str) -> tuple[str, ...]:
    try:
        parameters = models.describe(model)
    except UnknownModelError:
        return ()
    return tuple(each.name for each in parameters if each.accepts is not None)


def name_files(model: str, params: Mapping[str, Any], directory: Path) -> dict[str, Any]:
    """Replace ``@FILE`` in media parameters by its path; ``@@`` is a literal @.

    Args:
        model: The model's name.
        params: The parameters.
        directory: The directory that file names are relative to.

    Raises:
        UsageError: A file has no name.
    """

    def read(name: str, value: Any) -> Any:
        if isinstance(value, list):
            values: list[Any] = value  # pyright: ignore[reportUnknownVariableType]
            return [read(name, each) for each in values]
        if not isinstance(value, str) or not value.startswith("@"):
            return value
        if value == "@":
            raise UsageError(f"{name}: write the name of a file after @")
        return value[1:] if value.startswith("@@") else directory / value[1:]

    media = {name: read(name, params[name]) for name in _media_parameters(model) if name in params}
    return {**params, **media}


def make_request(
    model: str,
    params: Mapping[str, Any],
    options: Mapping[str, Any],
    *,
    max_side: int | None = None,
    note: Callable[[str], None] | None = None,
) -> SubmitRequest:
    """Make a request from parameters returned by `name_files`, reading the files.

    Args:
        model: The model's name.
        params: The parameters.
        options: Other arguments of `SubmitRequest`.
        max_side: Maximum pixels of the longer side of an image.
        note: Called with notes for the user; None skips validation.

    Raises:
        InvalidParamsError: A parameter is not as documented.
        UnusableFileError: A file cannot be read or sent.
        ValueError: Another option is invalid.
    """
    if note is None:
        read = {name: _read_media(name, value, max_side=max_side) for name, value in params.items()}
        return SubmitRequest(model, read, **options)
    checked = check_params(model, params, note)
    if isinstance(checked, Model) and checked.local_media():
        with _usable():
            request = embed_files(checked, max_side)
        return as_request(request, **options)
    return SubmitRequest(model, checked, **options)


def _read_media(name: str, value: Any, *, max_side: int | None) -> Any:
    if isinstance(value, list):
        values: list[Any] = value  # pyright: ignore[reportUnknownVariableType]
        return [_read_media(name, each, max_side=max_side) for each in values]
    if not isinstance(value, Path):
        return value
    with _usable(f"{name}: "):
        return data_url(value, max_side=max_side)


@contextmanager
def _usable(prefix: str = "") -> Generator[None]:
    try:
        yield
    except ValueError as error:
        raise UnusableFileError(f"{prefix}{error}") from error


def split_pairs(pairs: Iterable[str]) -> dict[str, list[str]]:
    """Split NAME=VALUE into the names and their values.

    Raises:
        UsageError: A pair has no name or no "=".
    """
    given: dict[str, list[str]] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not name or not equals:
            hint = (
                f"write the model as --model {pair}"
                if pair in models.MODELS
                else "write a prompt as prompt=... or --prompt"
            )
            raise UsageError(f"a parameter must be NAME=VALUE, got {reprlib.repr(pair)}; {hint}")
        given.setdefault(name, []).append(text)
    return given


def read_pairs(given: Mapping[str, Sequence[str]], types: Mapping[str, str]) -> dict[str, Any]:
    """Read the values of `split_pairs`; several values of a name make an array.

    Raises:
        UsageError: There are several values, but the parameter takes one.
    """
    return {name: _read_values(name, texts, types.get(name)) for name, texts in given.items()}


def _read_values(name: str, texts: Sequence[str], kind: str | None) -> Any:
    if len(texts) == 1:
        return read_value(texts[0], kind)
    if kind is not None and kind.endswith("[]"):
        return list(texts)
    raise UsageError(f"{name} takes one value, got {len(texts)}; write an array as JSON")


def read_value(text: str, kind: str | None) -> Any:
    """Parse *text* as the parameter's type; text that does not fit is left for validation."""
    if kind == "string":
        return text
    if kind == "boolean":
        return _BOOLEANS.get(text.lower(), text)
    try:
        value = json.loads(text, parse_constant=_reject_constant)
    except (ValueError, RecursionError):
        return text
    return value if type(value) in _READ.get(kind, _ANY) else text


def check_params(
    model: str, given: Mapping[str, Any], note: Callable[[str], None]
) -> Mapping[str, Any] | Model:
    """Validate *given* if this release knows *model*.

    Args:
        model: The model's name.
        given: The parameters.
        note: Called if the model is unknown; *given* is then returned unchanged.

    Raises:
        InvalidParamsError: A parameter is not as documented.
    """
    try:
        return models.build(model, given)
    except UnknownModelError as error:
        hint = f" (did you mean {' or '.join(error.nearest)}?)" if error.nearest else ""
        note(f"{model} is not in this release's catalogue{hint}: its parameters are not checked")
        return given


def read_object(option: str, text: str) -> dict[str, Any]:
    """Read a JSON object from an option: the text itself, or ``@FILE``.

    Raises:
        UsageError: The file does not exist, or the text is not a JSON object.
    """
    if text.startswith("@"):
        option, text = f"{option} {text}", _read_file(option, text[1:])
    try:
        value = parse_json(text)
    except ValueError as error:
        raise UsageError(f"{option} is {error}") from error
    if not isinstance(value, dict):
        raise UsageError(f'{option} must be a JSON object such as \'{{"prompt": "a kitten"}}\'')
    return cast("dict[str, Any]", value)


def _read_file(option: str, name: str) -> str:
    try:
        raw = stdin().read() if name == STDIN else Path(name).read_bytes()
        return raw.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise UsageError(f"{option} cannot be read from {name!r}: {reason(error)}") from error


def stdin() -> Any:
    """Return standard input as a binary file.

    Raises:
        UsageError: It is closed.
    """
    if sys.stdin is None:
        raise UsageError("standard input is closed")
    return sys.stdin.buffer


def parse_json(text: str) -> Any:
    """Parse JSON strictly.

    Raises:
        ValueError: It is not JSON, has a repeated key, NaN, Infinity or a huge number.
    """
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at character {error.pos + 1}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from error


def _reject_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")


def _reject_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {reprlib.repr(repeated)} appears twice")
    return found


_DECODER: Final = json.JSONDecoder(
    parse_constant=_reject_constant, object_pairs_hook=_reject_duplicates
)
