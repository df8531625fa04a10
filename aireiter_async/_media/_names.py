"""File names that are safe on Linux, macOS and Windows alike."""

import re
import unicodedata
from typing import Final

from aireiter_async._media._formats import last_part

LONGEST_STEM: Final = 200  # bytes: file systems take 255, and temporary names are longer

_RESERVED: Final = re.compile(
    r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9\u00b9\u00b2\u00b3])\s*(?:\.|$)",
    re.IGNORECASE,
)
_FORBIDDEN: Final = frozenset('<>:"/\\|?*')
# Controls, direction marks, surrogates, private and unassigned characters. ZERO WIDTH JOINER
# (U+200D) is one of them, but emoji are made with it.
_INVISIBLE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_JOINER: Final = "\u200d"


def safe_stem(text: str) -> str:
    """Make a file name without its suffix of *text*: "output" where nothing of it can be kept."""
    text = unicodedata.normalize("NFC", text)
    kept = "".join("_" if _is_unsafe(char) else char for char in text)
    stem = _cut(kept.strip(" ."))
    return f"_{stem}" if _RESERVED.match(stem) else stem or "output"


def stem_of_url(url: str) -> str:
    """Return the stem of a URL's last part, made safe."""
    return safe_stem(last_part(url).stem)


def check_name(name: str) -> None:
    """Refuse a name that is not one on every file system.

    Raises:
        ValueError: It holds a directory, or is empty.
    """
    if not name.strip(" .") or "/" in name or "\\" in name:
        raise ValueError(f"name must be a file name without a directory, got {name!r}")


def _is_unsafe(char: str) -> bool:
    return char in _FORBIDDEN or (char != _JOINER and unicodedata.category(char) in _INVISIBLE)


def _cut(stem: str) -> str:
    """Shorten a stem, between two characters as a reader sees them."""
    if len(stem.encode()) <= LONGEST_STEM:
        return stem
    end = len(stem.encode()[:LONGEST_STEM].decode(errors="ignore"))
    while end and (_extends(stem[end]) or stem[end - 1] == _JOINER):
        end -= 1
    return stem[:end].rstrip(" .")


def _extends(char: str) -> bool:
    """Tell whether *char* belongs to the one before it."""
    is_modifier = "\U0001f3fb" <= char <= "\U0001f3ff"  # skin tones
    return char == _JOINER or is_modifier or unicodedata.category(char) in {"Mn", "Me", "Mc"}
