"""Read data URLs (RFC 2397)."""

import base64
from typing import Final
from urllib.parse import unquote_to_bytes

_SCHEME: Final = "data:"
_URL_SAFE: Final = bytes.maketrans(b"-_", b"+/")


def is_data_url(url: str) -> bool:
    """Return whether *url* is a data URL."""
    return url[: len(_SCHEME)].lower() == _SCHEME


def read_data_url(url: str) -> tuple[str, bytes]:
    """Read a ``data:`` URL, in base64 of either alphabet or percent-encoded.

    Returns:
        The content type, possibly empty, and the content.

    Raises:
        ValueError: It is malformed.
    """
    head, comma, text = url[len(_SCHEME) :].partition(",")
    if not comma:
        raise ValueError("the data URL has no comma")
    content = unquote_to_bytes(text)
    content_type, _, encoding = head.rpartition(";")
    if encoding.strip().lower() != "base64":
        return head, content
    content = content.translate(_URL_SAFE, b" \t\r\n").rstrip(b"=")
    padding = b"=" * (-len(content) % 4)
    return content_type, base64.b64decode(content + padding, validate=True)
