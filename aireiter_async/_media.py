"""A result to a file on disk: whole, or not there at all.

The name's suffix comes from what the file is, not from what it was called:
results have been saved as ``.png`` whatever they were.
"""

import asyncio
import base64
import functools
import os
import re
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from io import FileIO
from pathlib import Path, PurePosixPath
from typing import Final, ParamSpec, TypeVar
from urllib.parse import unquote, unquote_to_bytes, urlsplit

P = ParamSpec("P")
R = TypeVar("R")

_BLOCK: Final = 1024 * 1024  # bytes that are written at once, off the loop's thread
_HEAD: Final = 64  # bytes that tell what a file is
_LONGEST_STEM: Final = 200  # bytes: file systems take 255, and ours adds to them
_LONGEST_URL: Final = 65_536  # characters: urllib keeps the last URLs that it has taken apart
_PLAIN_SUFFIX: Final = re.compile(r"\.[a-z0-9]{1,8}")
_DATA: Final = "data:"
_URL_SAFE: Final = bytes.maketrans(b"-_", b"+/")

_SUFFIXES: Final = {
    "image/png": ".png",
    "image/jpeg": ".jpg",
    "image/webp": ".webp",
    "image/gif": ".gif",
    "image/avif": ".avif",
    "image/svg+xml": ".svg",
    "video/mp4": ".mp4",
    "video/quicktime": ".mov",
    "video/webm": ".webm",
    "audio/mpeg": ".mp3",
    "audio/mp3": ".mp3",
    "audio/mp4": ".m4a",
    "audio/x-m4a": ".m4a",
    "audio/wav": ".wav",
    "audio/x-wav": ".wav",
    "audio/ogg": ".ogg",
    "audio/flac": ".flac",
    "application/zip": ".zip",
    "application/x-zip-compressed": ".zip",
    "text/plain": ".txt",
}
# The first bytes at an offset, and what they are.
_MAGIC: Final = (
    (0, b"\x89PNG\r\n\x1a\n", ".png"),
    (0, b"\xff\xd8\xff", ".jpg"),
    (8, b"WEBP", ".webp"),
    (0, b"GIF8", ".gif"),
    (4, b"ftypM4A", ".m4a"),
    (4, b"ftypqt", ".mov"),
    (4, b"ftypavif", ".avif"),
    (4, b"ftyp", ".mp4"),
    (0, b"\x1aE\xdf\xa3", ".webm"),
    (0, b"ID3", ".mp3"),
    (8, b"WAVE", ".wav"),
    (0, b"OggS", ".ogg"),
    (0, b"fLaC", ".flac"),
    (0, b"PK\x03\x04", ".zip"),
)
# Other brands of ISO media files may be any of these: there the type knows better.
_ISO_MEDIA: Final = frozenset({".m4a", ".mov", ".avif"})


def file_suffix(content_type: str, head: bytes, url: str) -> str:
    """Choose a file name's suffix, with its dot.

    Args:
        content_type: The answer's ``Content-Type``, possibly empty: believed
            where the bytes do not tell.
        head: The first bytes of the file.
        url: Where the file comes from, the last resort.
    """
    told = _SUFFIXES.get(content_type.partition(";")[0].strip().lower())
    for offset, magic, suffix in _MAGIC:
        if head.startswith(magic, offset):
            return told if told in _ISO_MEDIA and suffix == ".mp4" else suffix
    if told:
        return told
    suffix = _last_part(url).suffix.lower()
    return suffix if _PLAIN_SUFFIX.fullmatch(suffix) else ".bin"


def stem_of_url(url: str) -> str:
    """Return the stem of a URL's last part, made safe as a file name."""
    stem = _last_part(url).stem
    safe = "".join(char if char.isalnum() or char in "-_." else "_" for char in stem)
    return _shorten(safe.lstrip("."), _LONGEST_STEM) or "output"


def _last_part(url: str) -> PurePosixPath:
    if is_data_url(url) or len(url) > _LONGEST_URL:
        return PurePosixPath()
    try:
        return PurePosixPath(unquote(urlsplit(url).path))
    except ValueError:  # a host that is none: nothing can be got from there, either
        return PurePosixPath()


def is_data_url(url: str) -> bool:
    """Tell whether *url* is the result itself, rather than where it is."""
    return url[: len(_DATA)].lower() == _DATA


def is_web_url(url: str) -> bool:
    """Tell whether *url* is a place on the web, and not one of megabytes.

    Raises:
        ValueError: It is no URL.
    """
    return len(url) <= _LONGEST_URL and urlsplit(url).scheme in {"http", "https"}


def read_data_url(url: str) -> tuple[str, bytes]:
    """Read a ``data:`` URL (RFC 2397), in base64 of either alphabet or percent-encoded.

    Returns:
        The content type, possibly empty, and the content.

    Raises:
        ValueError: It is none.
    """
    head, comma, text = url[len(_DATA) :].partition(",")
    if not comma:
        raise ValueError("the data URL has no comma")
    content = unquote_to_bytes(text)
    content_type, _, encoding = head.rpartition(";")
    if encoding.strip().lower() != "base64":
        return head, content
    content = content.translate(_URL_SAFE, b" \t\r\n").rstrip(b"=")
    padding = b"=" * (-len(content) % 4)
    return content_type, base64.b64decode(content + padding, validate=True)


def _shorten(stem: str, length: int) -> str:
    return stem.encode(errors="ignore")[:length].decode(errors="ignore")


class _Partial:
    """A file that has its name only once it is whole; its methods block."""

    def __init__(self, directory: Path, stem: str) -> None:
        self._directory = directory
        short = _shorten(stem, _LONGEST_STEM)
        self._path = directory / f".{short}-{os.urandom(4).hex()}.part"
        self._file: FileIO | None = None

    def write(self, data: bytes) -> None:
        if self._file is None:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._file = FileIO(self._path, "x")
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]

    def finish(self, data: bytes, name: str) -> Path:
        self.write(data)
        self._close()
        target = self._directory / name
        return self._path.replace(target)

    def discard(self) -> None:
        # What went wrong before is what the caller should hear of.
        with suppress(OSError):
            self._close()
        with suppress(OSError):
            self._path.unlink()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()


async def save(
    chunks: AsyncIterator[bytes], directory: Path, stem: str, suffix: Callable[[bytes], str]
) -> tuple[Path, int]:
    """Write what *chunks* yields to a file, under a temporary name until it is whole.

    Args:
        chunks: The content.
        directory: Made if it is missing.
        stem: The file's name without its suffix; a file of that name is replaced.
        suffix: Told the first bytes, says the suffix.

    Returns:
        The path, and the bytes written.

    Raises:
        ValueError: There was no content.
        OSError: The file could not be written.
    """
    partial = _Partial(directory, stem)
    buffer = bytearray()
    head = b""
    length = 0
    try:
        async for chunk in chunks:
            buffer += chunk
            length += len(chunk)
            head += chunk[: _HEAD - len(head)]
            if len(buffer) >= _BLOCK:
                await _in_thread(partial.write, bytes(buffer))
                buffer.clear()
        if not length:
            raise ValueError("the result is empty")  # noqa: TRY301 - the partial file goes either way
        return await _in_thread(partial.finish, bytes(buffer), stem + suffix(head)), length
    except BaseException:
        partial.discard()
        raise


async def save_text(text: str, directory: Path, stem: str) -> tuple[Path, int]:
    """Write *text* in UTF-8, whatever the console's own code page is.

    Returns:
        The path, and the bytes written.

    Raises:
        ValueError: There is no text.
        OSError: The file could not be written.
    """

    async def chunks() -> AsyncIterator[bytes]:
        yield text.encode("utf-8", "surrogatepass")

    return await save(chunks(), directory, stem, lambda _head: ".txt")


async def save_data_url(url: str, directory: Path, stem: str) -> tuple[Path, int]:
    """Write what a ``data:`` URL holds: megabytes, so it is taken apart off the loop's thread.

    Returns:
        The path, and the bytes written.

    Raises:
        ValueError: It is no data URL, or there is nothing in it.
        OSError: The file could not be written.
    """
    content_type, content = await _in_thread(read_data_url, url)

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(content), _BLOCK):
            yield content[start : start + _BLOCK]

    return await save(chunks(), directory, stem, lambda head: file_suffix(content_type, head, ""))


async def _in_thread(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run *function* off the loop, and to its end even when cancelled: it holds a file."""
    call = functools.partial(function, *args, **kwargs)
    # No task, or the end of asyncio.run would cancel it and leave the thread behind.
    running = asyncio.get_running_loop().run_in_executor(None, call)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        while not running.done():
            with suppress(asyncio.CancelledError):  # the first one is raised below
                await asyncio.wait([running])
        running.exception()  # the cancellation is what the caller hears of
        raise
