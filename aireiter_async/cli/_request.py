"""What a command line asks to be submitted."""

import json
import reprlib
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn, cast

from attrs import frozen

from aireiter_async import SubmitRequest, models
from aireiter_async.cli._failure import UsageError, usage
from aireiter_async.models import Model, UnknownModelError

STDIN: Final = "-"
_BOOLEANS: Final = {"true": True, "false": False}
_ANY: Final[tuple[type, ...]] = (bool, int, float, list, dict)
# What the text of a value is read as, by the type that the catalogue says; all else stays text.
_READ: Final[Mapping[str | None, tuple[type, ...]]] = {
    "integer": (int, float),
    "number": (int, float),
    "string[]": (list,),
    "string | string[]": (list,),
}


@frozen(kw_only=True)
class Order:
    """The options that say what to submit.

    Attributes:
        param: One parameter, NAME=VALUE; may be repeated, also with the same
            NAME where the model takes an array. For a model that this release
            does not know, a VALUE that is a number, true, false, an array or an
            object of JSON is sent as that, any other as text.
        params: The parameters as a JSON object, or @FILE that holds one, or @- for
            standard input. What --param says goes before.
        id: The task's id, used once and never again: 1 to 64 characters of A-Z,
            a-z, 0-9, _ and -. Else one is drawn.
        maybe_sent: The same command may have submitted this --id before: look for
            that task first.
        channel: base, plus, advanced or max, where the model has it.
        callback_url: Where the service is to report the end of the task.
        metadata: A JSON object, or @FILE, that the service echoes back.
        unchecked: Send the parameters unchecked, for what this release does not
            know of the model.
    """

    param: tuple[str, ...] = ()
    params: str | None = None
    id: str | None = None
    maybe_sent: bool = False
    channel: str | None = None
    callback_url: str | None = None
    metadata: str | None = None
    unchecked: bool = False

    def request(self, model: str, note: Callable[[str], None]) -> SubmitRequest:
        """Make the request, checked as far as *model* is known.

        Args:
            model: The model's name.
            note: Told what the user should know.

        Raises:
            InvalidParamsError: The parameters are not as documented.
            UsageError: Something else is not as it must be.
        """
        if self.maybe_sent and self.id is None:
            raise UsageError("--maybe-sent takes --id, the id that was submitted before")
        with usage():
            return self._make(model, note)

    def _make(self, model: str, note: Callable[[str], None]) -> SubmitRequest:
        name = model if self.channel is None else models.with_channel(model, self.channel)
        given = {} if self.params is None else read_object("--params", self.params)
        given |= _read_params(self.param, parameter_types(name))
        changes: dict[str, Any] = {"callback_url": self.callback_url}
        if self.id is not None:
            changes["out_task_id"] = self.id
        if self.metadata is not None:
            changes["metadata"] = read_object("--metadata", self.metadata)
        params = given if self.unchecked else check_params(name, given, note)
        return SubmitRequest(name, params, **changes)


def check_params(
    model: str, given: Mapping[str, Any], note: Callable[[str], None]
) -> Mapping[str, Any] | Model:
    """Check *given* as far as *model* is known.

    Args:
        model: The model's name.
        given: The parameters.
        note: Told if it is not known at all: *given* is then passed on.

    Raises:
        InvalidParamsError: Something is not as documented.
    """
    try:
        return models.build(model, given)
    except UnknownModelError as error:
        hint = f" (did you mean {' or '.join(error.nearest)}?)" if error.nearest else ""
        note(f"{model} is not in this release's catalogue{hint}: not checked")
        return given


def read_object(option: str, text: str) -> dict[str, Any]:
    """Read a JSON object that was given as such, or as ``@FILE``.

    Args:
        option: Names it in errors.
        text: What was given.

    Raises:
        UsageError: There is no such file, or it is not a JSON object.
    """
    if text.startswith("@"):
        option, text = f"{option} {text}", _read_file(option, text[1:])
    try:
        value = json.loads(text, parse_constant=refuse_constant)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{option} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise UsageError(f'{option} must be a JSON object such as \'{{"prompt": "a kitten"}}\'')
    return cast("dict[str, Any]", value)


def _read_file(option: str, name: str) -> str:
    try:
        raw = sys.stdin.buffer.read() if name == STDIN else Path(name).read_bytes()
        return raw.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise UsageError(f"{option} cannot be read from {name!r}: {error}") from error


def refuse_constant(text: str) -> NoReturn:
    """Refuse NaN and the infinities, which Python reads and JSON does not have."""
    raise ValueError(f"{text} is not a number of JSON")


def parameter_types(model: str) -> dict[str, str]:
    """Return the types of the parameters of *model* by their names; none where it is not known."""
    try:
        return {parameter.name: parameter.type for parameter in models.describe(model)}
    except UnknownModelError:
        return {}


def _read_params(pairs: Sequence[str], types: Mapping[str, str]) -> dict[str, Any]:
    given: dict[str, list[str]] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not name or not equals:
            raise UsageError(f"--param must be NAME=VALUE, got {reprlib.repr(pair)}")
        given.setdefault(name, []).append(text)
    return {name: _read_values(name, texts, types.get(name)) for name, texts in given.items()}


def _read_values(name: str, texts: Sequence[str], kind: str | None) -> Any:
    if len(texts) == 1:
        return read_value(texts[0], kind)
    if kind is not None and kind.endswith("[]"):
        return list(texts)
    raise UsageError(
        f"--param {name} is given {len(texts)} times and takes one value; "
        "an array can be given as JSON"
    )


def read_value(text: str, kind: str | None) -> Any:
    """Read *text* as what the model takes; what it cannot be stays text, for the check to name."""
    if kind == "string":
        return text
    if kind == "boolean":
        return _BOOLEANS.get(text.lower(), text)
    try:
        value = json.loads(text, parse_constant=refuse_constant)
    except (ValueError, RecursionError):
        return text
    return value if type(value) in _READ.get(kind, _ANY) else text
