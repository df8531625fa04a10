"""File names that are safe on Linux, macOS and Windows."""

import re
import string
import unicodedata
from collections.abc import Collection, Mapping
from typing import Final

from aireiter_async._media._formats import last_part

_FORMATTER: Final = string.Formatter()
_FIELD: Final = re.compile(r"[^\W\d]\w*")
_FORM: Final = re.compile(r"(0?)([1-9]\d?)?(?:\.([1-9]\d{0,2}))?")
_MAX_TEXT: Final = 4096  # characters: a prompt may be far longer than any file name
_MAX_STEM: Final = 200  # bytes: file systems allow 255, and temporary names add to it

_RESERVED: Final = re.compile(
    r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9\u00b9\u00b2\u00b3])\s*(?:\.|$)",
    re.IGNORECASE,
)
_FORBIDDEN: Final = frozenset('<>:"/\\|?*')
# Controls, direction marks, surrogates, private and unassigned characters. ZERO WIDTH JOINER
# (U+200D) is one of them, but joins emoji.
_INVISIBLE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_JOINER: Final = "\u200d"


class NameTemplate:
    """A template for file names, such as ``{index:04}-{prompt:.30}``.

    A field has a name and optionally a width (zero-padded if it starts with 0) and a maximum
    length, nothing else: the template may be untrusted.

    Args:
        text: The template.

    Attributes:
        fields: The names of the fields.

    Raises:
        TypeError: *text* is not a str.
        ValueError: A field is malformed, or *text* contains a path separator or no name.
    """

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise TypeError(f"name must be a str or a function, got {type(text).__name__}")
        try:
            parts = [*_FORMATTER.parse(text)]
        except ValueError as error:
            raise ValueError(f"name is not a template: {error}: {text!r}") from error
        self._parts: list[tuple[str, str | None, re.Match[str] | None]] = []
        for literal, field, spec, conversion in parts:
            form = _FORM.fullmatch(spec or "")
            if field is not None and (conversion or form is None or not _FIELD.fullmatch(field)):
                raise ValueError(
                    f"name may have fields such as {{prompt}}, {{prompt:.30}} and {{index:04}}, "
                    f"got {text!r}"
                )
            self._parts.append((literal, field, form))
        self.fields = frozenset(field for _, field, _ in self._parts if field is not None)
        fixed = "".join(literal for literal, _, _ in self._parts)
        if "/" in fixed or "\\" in fixed or not (self.fields or fixed.strip(" .")):
            raise ValueError(f"name must be a file name without a directory, got {text!r}")

    def check(self, known: Collection[str]) -> None:
        """Reject fields that are not *known*.

        Raises:
            ValueError: A field is unknown.
        """
        unknown = sorted(self.fields.difference(known))
        if unknown:
            raise ValueError(
                f"name has no field {', '.join(unknown)}; the fields are {', '.join(sorted(known))}"
            )

    def fill(self, values: Mapping[str, object]) -> str:
        """Return the template with these values filled in; fields without a value remain."""
        parts: list[str] = []
        for literal, field, form in self._parts:
            parts.append(_quote(literal))
            if field is not None and form is not None:
                known = field in values
                parts.append(
                    _quote(_show(values[field], form)) if known else f"{{{field}:{form.string}}}"
                )
        return "".join(parts).strip(" .") or "output"

    def stem(self, values: Mapping[str, object]) -> str:
        """Return a file name without its suffix, safe on every system.

        Raises:
            ValueError: A field has no value.
        """
        self.check(values)
        return safe_stem(
            "".join(
                literal + (_show(values[field], form) if field is not None and form else "")
                for literal, field, form in self._parts
            )
        )


def quote_name(text: str) -> str:
    """Escape *text* as a template without fields."""
    return _quote(text).strip(" .") or "output"


def _quote(text: str) -> str:
    return re.sub(r"[/\\]", "_", text).replace("{", "{{").replace("}", "}}")


def _show(value: object, form: re.Match[str]) -> str:
    zero, width, most = form.groups()
    text = "" if value is None else str(value)
    if most:
        text = _cut(text, int(most))
    if isinstance(value, int | float):
        return text.rjust(int(width or 0), "0" if zero else " ")
    return text.ljust(int(width or 0))


def safe_stem(text: str) -> str:
    """Convert *text* to a safe file name without a suffix; "output" if nothing remains."""
    text = unicodedata.normalize("NFC", text[:_MAX_TEXT])
    kept = "".join("_" if _is_unsafe(char) else char for char in text)
    kept = kept.strip(" .")
    fitting = kept.encode()[:_MAX_STEM].decode(errors="ignore")
    stem = _cut(kept, len(fitting)).rstrip(" .")
    return f"_{stem}" if _RESERVED.match(stem) else stem or "output"


def stem_of_url(url: str) -> str:
    """Return a safe stem from the last part of a URL's path."""
    return safe_stem(last_part(url).stem)


def _is_unsafe(char: str) -> bool:
    return char in _FORBIDDEN or (char != _JOINER and unicodedata.category(char) in _INVISIBLE)


def _cut(text: str, end: int) -> str:
    """Truncate a text to *end* code points at most, without splitting a visible character."""
    if end < len(text):
        while end and (_extends(text[end]) or text[end - 1] == _JOINER):
            end -= 1
    return text[:end]


def _extends(char: str) -> bool:
    """Return whether *char* combines with the one before it."""
    is_modifier = "\U0001f3fb" <= char <= "\U0001f3ff"  # skin tones
    return char == _JOINER or is_modifier or unicodedata.category(char) in {"Mn", "Me", "Mc"}
