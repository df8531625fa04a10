"""File names that are safe on Linux, macOS and Windows alike."""

import re
import string
import unicodedata
from collections.abc import Collection, Mapping
from typing import Final

from aireiter_async._media._formats import last_part

_FORMATTER: Final = string.Formatter()
_FIELD: Final = re.compile(r"[^\W\d]\w*")
_FORM: Final = re.compile(r"(0?)([1-9]\d?)?(?:\.([1-9]\d{0,2}))?")
_LONGEST_TEXT: Final = 4096  # characters: a prompt may be much longer than any name
_LONGEST_STEM: Final = 200  # bytes: file systems take 255, and temporary names are longer

_RESERVED: Final = re.compile(
    r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9\u00b9\u00b2\u00b3])\s*(?:\.|$)",
    re.IGNORECASE,
)
_FORBIDDEN: Final = frozenset('<>:"/\\|?*')
# Controls, direction marks, surrogates, private and unassigned characters. ZERO WIDTH JOINER
# (U+200D) is one of them, but emoji are made with it.
_INVISIBLE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_JOINER: Final = "\u200d"


class NameTemplate:
    """A name for files, such as ``{index:04}-{prompt:.30}``.

    Fields have a name and, at most, a width (with zeros if it begins with 0) and a maximum
    length: a template may come from another user.

    Args:
        text: The template.

    Attributes:
        fields: The fields' names.

    Raises:
        TypeError: *text* is no str.
        ValueError: A field has more than that, or *text* is or holds a path.
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
        """Refuse fields that are not *known*.

        Raises:
            ValueError: A field has no value.
        """
        unknown = sorted(self.fields.difference(known))
        if unknown:
            raise ValueError(
                f"name has no field {', '.join(unknown)}; there are {', '.join(sorted(known))}"
            )

    def fill(self, values: Mapping[str, object]) -> str:
        """Return the template with these values in it; fields that have none stay."""
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
    """Return a template without fields that makes the name *text*."""
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
    """Make a file name without its suffix of *text*: "output" where nothing of it can be kept."""
    text = unicodedata.normalize("NFC", text[:_LONGEST_TEXT])
    kept = "".join("_" if _is_unsafe(char) else char for char in text)
    kept = kept.strip(" .")
    fitting = kept.encode()[:_LONGEST_STEM].decode(errors="ignore")
    stem = _cut(kept, len(fitting)).rstrip(" .")
    return f"_{stem}" if _RESERVED.match(stem) else stem or "output"


def stem_of_url(url: str) -> str:
    """Return the stem of a URL's last part, made safe."""
    return safe_stem(last_part(url).stem)


def _is_unsafe(char: str) -> bool:
    return char in _FORBIDDEN or (char != _JOINER and unicodedata.category(char) in _INVISIBLE)


def _cut(text: str, end: int) -> str:
    """Shorten a text to *end* code points at most, between two characters as a reader sees them."""
    if end < len(text):
        while end and (_extends(text[end]) or text[end - 1] == _JOINER):
            end -= 1
    return text[:end]


def _extends(char: str) -> bool:
    """Tell whether *char* belongs to the one before it."""
    is_modifier = "\U0001f3fb" <= char <= "\U0001f3ff"  # skin tones
    return char == _JOINER or is_modifier or unicodedata.category(char) in {"Mn", "Me", "Mc"}
