"""Make text from outside safe to display."""

import re
from typing import Final

# Controls (C0, C1), line separators, bidirectional marks, halves of surrogate pairs: these move
# the cursor, forge lines in a log or reverse the text that follows.
_CONTROLS: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


def printable(text: str) -> str:
    r"""Return *text* on one line, with control characters as escapes such as ``\x1b``."""
    return _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)
