"""Mappings of JSON values, checked and encoded once."""

import hashlib
import json
import json.encoder
import math
import re
import reprlib
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import date, time
from os import PathLike
from typing import Any, Final

from attrs import define

LARGE: Final = 65_536  # characters; encoding more would block the event loop
_MAX_DEPTH: Final = 200
_MAX_PATH: Final = 80
_SCALARS: Final = frozenset({int, float, bool, type(None)})
_LEAVE_OUT: Final = "leave it out where there is no value"
_PANDAS_EMPTY: Final = frozenset({"NAType", "NaTType"})
_MANY_BITS: Final = 2_000  # below this, any sys.get_int_max_str_digits() will do
_DATA_URI: Final = re.compile(
    r"data:(?P<type>[\w.+-]+/[\w.+-]+)?(?:;[^,;\s]*)*,", re.ASCII | re.IGNORECASE
)

quote: Final = json.encoder.encode_basestring


def _make_encoder() -> Callable[[Any, int], Iterable[str]]:
    """Return a function that encodes a value, with sorted keys, as pieces of text.

    JSONEncoder creates a C encoder for each call, a third of the cost of encoding, so one is
    reused here. It is undocumented: where it is missing or differs, the documented one is used.
    """
    encode = json.JSONEncoder(
        ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True
    ).encode
    try:
        make: Any = json.encoder.c_make_encoder  # type: ignore[attr-defined]
        held = make(None, _no_json, quote, None, ":", ",", True, False, False)  # noqa: FBT003
        if "".join(held({"b": [1.5, "\xe9"], "a": None}, 0)) == '{"a":null,"b":[1.5,"\xe9"]}':
            return held  # type: ignore[no-any-return]
    except (AttributeError, TypeError):  # pragma: no cover - on an interpreter without it
        pass
    return lambda value, _level: (encode(value),)  # pragma: no cover


def _no_json(value: object) -> Any:
    raise TypeError(type(value).__name__)


_encode: Final = _make_encoder()


@define
class Encoded:
    """A mapping as JSON: its text or, if that is large, a copy to encode on demand.

    Attributes:
        text: The JSON text, None if it is large.
        values: A copy of the values if the text is large.
        content: The mapping that `digest_media` encodes instead; None for this one.
        inputs: The local files that were read for it.
    """

    text: bytes | None
    values: dict[str, Any] | None = None
    content: "Encoded | None" = None
    inputs: tuple[Mapping[str, Any], ...] = ()

    def encode(self) -> bytes:
        """Return the JSON text, with keys sorted."""
        return self.text or "".join(_encode(self.values, 0)).encode()

    def digest_media(self) -> bytes:
        """Return the JSON text with each data URI replaced by its digest."""
        if self.content is not None:
            return self.content.digest_media()
        if self.text is not None and b'"data:' not in self.text:
            return self.text
        return "".join(_encode(_digest(self.load()), 0)).encode()

    def load(self) -> dict[str, Any]:
        """Return a copy of the values that the caller may change."""
        values: dict[str, Any]
        values = _copy(self.values, "") if self.text is None else json.loads(self.text)
        return values


def encode_mapping(name: str, mapping: Mapping[str, Any]) -> Encoded:
    """Check and encode the argument *name*.

    Raises:
        TypeError: It holds a value that JSON cannot represent.
        ValueError: It holds NaN, an infinity, a lone surrogate or itself.
    """
    values = mapping if type(mapping) is dict else dict(mapping)
    size = 0
    try:
        "".join(values)  # the cheapest check that all keys are str
        for value in values.values():
            kind = type(value)
            if kind is str:
                size += len(value)
            elif kind not in _SCALARS:
                size += _measure(value)
        if size <= LARGE:
            return Encoded("".join(_encode(values, 0)).encode())
    except (TypeError, ValueError, RecursionError) as error:
        _copy(values, name)  # raises an error that names the value
        raise ValueError(f"{name} cannot be JSON: {error}") from error  # pragma: no cover
    return Encoded(None, _copy(values, name))


def check_values(name: str, values: Any) -> None:
    """Raise an error that names the first value that JSON cannot represent.

    Raises:
        TypeError: There is such a value.
        ValueError: It is NaN, an infinity, a lone surrogate or itself.
    """
    _copy(values, name)


def _measure(value: object) -> int:
    """Return a value's approximate length in characters, and check that its keys are str."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return len("".join(value)) + sum(map(_measure, value.values()))
    if isinstance(value, list | tuple):
        return len(value) + sum(map(_measure, value))
    return 1


def _copy(value: Any, path: str, depth: int = 0) -> Any:
    """Copy a value and check everything in it."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value, path)
    if isinstance(value, int | float):
        return _number(value, path)
    if depth > _MAX_DEPTH:
        raise ValueError(f"{_short(path)} must not contain itself or over {_MAX_DEPTH} levels")
    if isinstance(value, dict):
        return {
            _key(key, path): _copy(each, f"{path}{_step(key)}", depth + 1)
            for key, each in value.items()
        }
    if isinstance(value, list | tuple):
        return [_copy(each, f"{path}[{i}]", depth + 1) for i, each in enumerate(value)]
    kind = type(value)
    shown = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    remedy = _LEAVE_OUT if kind.__name__ in _PANDAS_EMPTY else _remedy(value)
    raise TypeError(
        f"{_short(path)} must be a JSON value (str, int, float, bool, None, list or dict), "
        f"got {shown}: {remedy}"
    )


def _text(value: str, path: str) -> str:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"{_short(path)} must be Unicode text, got a lone surrogate "
                f"({value[error.start]!a}) at index {error.start}: remove or replace it"
            ) from None
    return value


def _number(value: float, path: str) -> float:
    if isinstance(value, float):
        if not math.isfinite(value):
            remedy = f": {_LEAVE_OUT}" if math.isnan(value) else ""
            raise ValueError(f"{_short(path)} must be a finite number, got {value}{remedy}")
    elif value.bit_length() > _MANY_BITS:
        digits = sys.get_int_max_str_digits()
        if digits and value.bit_length() > 3 * digits:
            raise ValueError(f"{_short(path)} must be an int of at most {digits:,} digits")
    return value


def _key(key: object, path: str) -> str:
    if not isinstance(key, str):
        raise TypeError(
            f"the keys of {_short(path)} must be str, got {reprlib.repr(key)} "
            f"({type(key).__name__}): use {reprlib.repr(str(key))}"
        )
    return _text(key, f"the key {key!a} of {path}")


def _step(key: str) -> str:
    return f".{key}" if key.isidentifier() else f"[{reprlib.repr(key)}]"


def _short(path: str) -> str:
    return path if len(path) <= _MAX_PATH else f"{path[:_MAX_PATH]}..."


def _remedy(value: object) -> str:
    from decimal import Decimal  # noqa: PLC0415 - rarely needed, and large

    match value:
        case bytes() | bytearray() | memoryview() | PathLike():
            return "pass text, a URL or a data URL (see data_url), or use a models class"
        case date() | time():
            return "use .isoformat()"
        case Decimal():
            return "use float() or str()"
        case Mapping():
            return "use dict()"
        case _:
            if callable(getattr(value, "tolist", None)):
                return "use .tolist()"  # numpy, pandas, torch
            return "use list()" if isinstance(value, Iterable) else "convert it"


def _digest(value: Any) -> Any:
    if isinstance(value, str):
        found = _DATA_URI.match(value)
        if found is None:
            return value
        digest = hashlib.sha256(value.encode()).hexdigest()
        return f"data:{found['type'] or ''};sha256={digest},"
    if isinstance(value, dict):
        return {key: _digest(each) for key, each in value.items()}
    return [_digest(each) for each in value] if isinstance(value, list) else value
