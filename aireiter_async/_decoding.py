"""Decode the JSON of responses: strictly, else leniently.

A paid task must not be lost to a malformed field: NaN, broken UTF-8, raw line
breaks, numbers of thousands of digits, duplicate keys, half a surrogate pair.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

_PADDING: Final = " \t\r\n\ufeff\x00"  # JSON white space, byte order mark, NUL
# Deeper nesting cannot be pickled or copied; more values would take gigabytes.
_MAX_DEPTH: Final = 200
_MAX_VALUES: Final = 1_000_000
_SHALLOW: Final = 2 * _MAX_DEPTH  # characters; shorter texts cannot be nested more deeply
_CHARSET: Final = re.compile(
    r"charset=\"?(iso-8859-1|latin-?1|windows-1252|gb\w+|big5)\b", re.IGNORECASE
)
_EMPTY: Final[tuple[Any, ...]] = (None, "", [], {})


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _float(text: str) -> float | str:
    """Keep a number that overflows a float as text: JSON cannot represent infinity."""
    number = float(text)
    return number if math.isfinite(number) else text


def _int(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:  # thousands of digits
        return text


def _merge(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Keep the last non-empty value of a duplicate key."""
    merged: dict[str, Any] = {}
    for key, value in pairs:
        if key not in merged or value not in _EMPTY:
            merged[key] = value
    return merged


_strict: Final[Any] = json.JSONDecoder(parse_constant=_no_constant, parse_float=_float)
_scan: Final = _strict.scan_once  # raw_decode would add a call
_scan_leniently: Final = json.JSONDecoder(
    strict=False,
    parse_constant=lambda _text: None,
    parse_float=_float,
    parse_int=_int,
    object_pairs_hook=_merge,
).raw_decode


def decode(body: bytes, headers: Mapping[str, str]) -> Any:
    """Return *body* decoded, or None if it is not JSON."""
    try:
        text = body.decode().strip(_PADDING)
        length = len(text)
        escaped = "\\u" in text and ("\\ud" in text or "\\uD" in text)  # perhaps a surrogate
        if not escaped and (length <= _SHALLOW or _is_flat(text)):
            value, end = _scan(text, 0)
            if end == length:
                return value
    except (ValueError, StopIteration, RecursionError):
        pass
    return decode_leniently(body, headers)


def decode_leniently(body: bytes, headers: Mapping[str, str]) -> Any:
    """Decode as much as possible; None if nothing is, or it has over a million values."""
    text = _read_text(body, headers)
    if _has_too_many_values(text):
        return None
    try:
        value, _ = _scan_leniently(text)
    except (ValueError, RecursionError):
        return None
    return _clean(value)


def salvage(body: bytes, headers: Mapping[str, str], names: Sequence[str]) -> dict[str, Any]:
    """Return the values of *names* that are readable in otherwise broken JSON.

    A name with conflicting values is omitted.
    """
    text = _read_text(body, headers)
    found: dict[str, Any] = {}
    if _has_too_many_values(text):
        return found
    for name in names:
        values: list[Any] = []
        for place in re.finditer(rf'(?<!\\)"{name}"\s*:\s*', text):
            try:
                value, _ = _scan_leniently(text, place.end())
            except (ValueError, RecursionError):
                continue
            if value not in (None, *values):
                values.append(value)
        if len(values) == 1:
            found[name] = _clean(values[0])
    return found


def _is_flat(text: str) -> bool:
    """Return whether the text is certain to be within the limits of depth and size."""
    return text.count("[") + text.count("{") <= _MAX_DEPTH and not _has_too_many_values(text)


def _has_too_many_values(text: str) -> bool:
    return text.count("[") + text.count("{") + text.count(",") > _MAX_VALUES


def _read_text(body: bytes, headers: Mapping[str, str]) -> str:
    try:
        # Never UTF-16: the redactor searches the raw bytes for the key.
        text = body.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        declared = _CHARSET.search(headers.get("Content-Type", ""))
        text = body.decode(declared[1] if declared else "utf-8", "replace")
    return text.strip(_PADDING)


def _clean(value: Any, depth: int = 0) -> Any:
    """Join surrogate pairs, replace lone surrogates, and drop values nested too deeply."""
    if isinstance(value, str):
        if value.isascii():
            return value
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if not isinstance(value, dict | list):
        return value
    if depth == _MAX_DEPTH:
        return None
    if isinstance(value, list):
        return [_clean(each, depth + 1) for each in value]
    return {_clean(key): _clean(each, depth + 1) for key, each in value.items()}
