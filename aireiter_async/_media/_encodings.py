"""Decode content encodings, because aiohttp accepts truncated bodies as complete."""

import importlib
import re
import zlib
from collections.abc import Callable
from typing import Any, Final, Protocol

_PIECE: Final = 65_536  # maximum bytes that one call decodes to


class Decoder(Protocol):
    """Decodes a body incrementally."""

    pending: bool
    """Whether the same data may yield more content: decode ``b""`` to get it."""

    def decode(self, data: bytes) -> bytes:
        """Return *data* decoded.

        Raises:
            ValueError: It is corrupt.
        """
        ...

    @property
    def complete(self) -> bool:
        """Whether the end of the encoded data has been reached."""
        ...


class _Zlib:
    """Gzip of any number of members (RFC 1952), or deflate with or without its zlib header."""

    pending = False  # not bounded: zlib expands a thousandfold at most

    def __init__(self, *, gzip: bool) -> None:
        self._gzip = gzip
        self._members = 0
        self._inflate: Any = None

    def decode(self, data: bytes) -> bytes:
        parts = []
        try:
            while data:
                if self._inflate is None or self._inflate.eof:
                    data = data.lstrip(b"\0") if self._members else data  # padding
                    if not data:
                        break
                    self._inflate = zlib.decompressobj(self._window(data))
                    self._members += 1
                parts.append(self._inflate.decompress(data))
                data = self._inflate.unused_data
        except zlib.error as error:
            raise ValueError(f"the result is damaged: {error}") from error
        return b"".join(parts)

    @property
    def complete(self) -> bool:
        return self._inflate is not None and self._inflate.eof

    def _window(self, data: bytes) -> int:
        if self._gzip:
            return zlib.MAX_WBITS | 16
        return zlib.MAX_WBITS if data[0] & 15 == zlib.DEFLATED else -zlib.MAX_WBITS


class _Brotli:
    def __init__(self) -> None:
        self._module = _import_brotli()
        self._decompressor = self._module.Decompressor()
        self.pending = False

    def decode(self, data: bytes) -> bytes:
        try:
            # A hundred bytes may expand to gigabytes.
            content: bytes = self._decompressor.process(data, output_buffer_limit=_PIECE)
        except self._module.error as error:
            raise ValueError(f"the result is damaged: {error}") from error
        self.pending = bool(content) and not self.complete
        return content

    @property
    def complete(self) -> bool:
        return bool(self._decompressor.is_finished())


def _import_brotli() -> Any:
    for name in ("brotli", "brotlicffi"):
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        if hasattr(module.Decompressor, "can_accept_more_data"):  # from 1.2 on
            return module
    raise ValueError("the result is compressed with brotli: install Brotli 1.2 or later")


_DECODERS: Final[dict[str, Callable[[], Decoder]]] = {
    "gzip": lambda: _Zlib(gzip=True),
    "x-gzip": lambda: _Zlib(gzip=True),
    "deflate": lambda: _Zlib(gzip=False),
    "br": _Brotli,
}


# "aws-chunked" describes how an object was uploaded, and stays with it in some stores.
_PLAIN: Final = frozenset({"", "identity", "aws-chunked"})
# The beginnings of media, which no encoding makes by chance.
_MEDIA: Final = re.compile(
    rb"\x89PNG\r\n|\xff\xd8\xff|GIF8|RIFF.{4}[A-Z]{4}|.{4}ftyp|\x1aE\xdf\xa3|OggS|fLaC|ID3[\2-\4]",
    re.DOTALL,
)


def make_decoder(content_encoding: str, start: bytes = b"") -> Decoder | None:
    """Return a decoder for a body, or None if it is not encoded, whatever its header says.

    Args:
        content_encoding: The header.
        start: The first bytes of the body.

    Raises:
        ValueError: The encoding is not supported.
    """
    encodings = [each.strip().lower() for each in content_encoding.split(",")]
    encoding = ", ".join(each for each in encodings if each not in _PLAIN)
    if not encoding or _MEDIA.match(start):
        return None
    try:
        return _DECODERS[encoding]()
    except KeyError:
        raise ValueError(
            f"the result is encoded with {encoding[:40]!r}, which was not requested"
        ) from None
