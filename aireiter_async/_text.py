"""Make text from outside safe to display and to log."""

import re
from typing import Final
from urllib.parse import urlsplit

# Controls (C0, C1), line separators, bidirectional marks, halves of surrogate pairs: these move
# the cursor, forge lines in a log or reverse the text that follows. Patterns are compiled, and
# cached by `re`, on first use.
_CONTROLS: Final = (
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)

# Query strings sign URLs. In JSON, a slash may be escaped, and a URL may be relative.
_END: Final = r"[^\s\"'<>]"
_QUERY: Final = rf"(:(?:\\?/){{2}}[^\s\"'<>?]*)\?{_END}*|\?[\w.~%+-]+={_END}*"


MAX_URL: Final = 65_536  # characters that are parsed: urllib caches the URLs


def printable(text: str) -> str:
    r"""Return *text* on one line, with control characters as escapes such as ``\x1b``."""
    return re.sub(_CONTROLS, lambda found: ascii(found[0])[1:-1], text)


def without_queries(text: str) -> str:
    """Return *text* with the query strings of URLs replaced by ``?...``."""
    return re.sub(_QUERY, lambda found: f"{found[1] or ''}?...", text)


def host_of(url: str) -> str:
    """Return the host of *url*, with its port if there is one; empty if *url* is not a URL."""
    try:
        authority = urlsplit(url).netloc
    except ValueError:
        return ""
    return printable(authority.rpartition("@")[2])
