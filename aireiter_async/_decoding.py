"""JSON of responses: decoded strictly, else as far as it can be read.

A paid task must not be lost to a malformed field: NaN, broken UTF-8, raw line
breaks, numbers of thousands of digits, duplicate keys, half a surrogate pair.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

_AROUND: Final = " \t\r\n\ufeff\x00"  # white space in JSON, the byte order mark, padding
# Deeper values could be neither pickled nor copied, more of them would take gigabytes.
_DEEPEST: Final = 200
_MOST_VALUES: Final = 1_000_000
_SHALLOW: Final = 2 * _DEEPEST  # characters in which nothing can be nested more deeply
_CHARSET: Final = re.compile(
    r"charset=\"?(iso-8859-1|latin-?1|windows-1252|gb\w+|big5)\b", re.IGNORECASE
)
_EMPTY: Final[tuple[Any, ...]] = (None, "", [], {})


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _float(text: str) -> float | str:
    """Keep a number beyond those of floats as its text: JSON has no form for an infinity."""
    number = float(text)
    return number if math.isfinite(number) else text


def _int(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:  # thousands of digits
        return text


def _merge(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of values under one key keep the last, unless it is empty."""
    merged: dict[str, Any] = {}
    for key, value in pairs:
        if key not in merged or value not in _EMPTY:
            merged[key] = value
    return merged


_strict: Final[Any] = json.JSONDecoder(parse_constant=_no_constant, parse_float=_float)
_scan: Final = _strict.scan_once  # raw_decode would be one call more
_scan_leniently: Final = json.JSONDecoder(
    strict=False,
    parse_constant=lambda _text: None,
    parse_float=_float,
    parse_int=_int,
    object_pairs_hook=_merge,
).raw_decode


def decode(body: bytes, headers: Mapping[str, str]) -> Any:
    """Decode *body*; None if it is not JSON."""
    try:
        text = body.decode().strip(_AROUND)
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
    """Decode what can be read; None if that is nothing, or millions of values."""
    text = _read_text(body, headers)
    if _has_too_many_values(text):
        return None
    try:
        value, _ = _scan_leniently(text)
    except (ValueError, RecursionError):
        return None
    return _clean(value)


def salvage(body: bytes, headers: Mapping[str, str], names: Sequence[str]) -> dict[str, Any]:
    """Return the values of *names* that can be read in JSON that is broken elsewhere.

    A name whose values differ is left out.
    """
    text = _read_text(body, headers)
    found: dict[str, Any] = {}
    for name in () if _has_too_many_values(text) else names:
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
    """Return whether nothing can be nested too deeply, and there are not too many values."""
    return text.count("[") + text.count("{") <= _DEEPEST and not _has_too_many_values(text)


def _has_too_many_values(text: str) -> bool:
    return text.count("[") + text.count("{") + text.count(",") > _MOST_VALUES


def _read_text(body: bytes, headers: Mapping[str, str]) -> str:
    try:
        # Not UTF-16: the search for the key in what is reported works on bytes.
        text = body.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        declared = _CHARSET.search(headers.get("Content-Type", ""))
        text = body.decode(declared[1] if declared else "utf-8", "replace")
    return text.strip(_AROUND)


def _clean(value: Any, depth: int = 0) -> Any:
    """Join surrogates to characters, replace lone ones, and leave out what is nested too deeply."""
    if isinstance(value, str):
        if value.isascii():
            return value
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if not isinstance(value, dict | list):
        return value
    if depth == _DEEPEST:
        return None
    if isinstance(value, list):
        return [_clean(each, depth + 1) for each in value]
    return {_clean(key): _clean(each, depth + 1) for key, each in value.items()}
