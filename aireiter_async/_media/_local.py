"""Convert local files to data URLs; everything here blocks."""

import base64
import hashlib
import io
import os
import re
import stat
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, Final

from attrs import frozen

from aireiter_async._arguments import check_size
from aireiter_async._media._formats import HEAD, describe_page, file_type
from aireiter_async._media._images import convert, format_name

_SEGMENT: Final = re.compile(rb"\xff+([\x01-\xd7\xda-\xfe])(..)", re.DOTALL)  # of a JPEG
_SENT: Final = frozenset({".jpg", ".png", ".webp"})  # unchanged: image models accept these
_MAX_BYTES: Final = 256 * 1024 * 1024  # bytes that are read at most
_NONBLOCK: Final = getattr(os, "O_NONBLOCK", 0)
_MAX_HEAD: Final = 40  # characters of a data URL before its content


@frozen
class DataURL:
    """A local medium, ready to send.

    Attributes:
        identity: Identifies the original: its digest and the conversion options.
        size: Bytes of the original.
        sha256: The original's digest.
    """

    url: str
    identity: str
    size: int
    sha256: str


def data_url(
    path: str | os.PathLike[str] | bytes | BinaryIO,
    *,
    max_side: int | None = None,
    quality: int = 84,
) -> str:
    """Convert a local image, video or sound to a data URL for a media parameter.

    This blocks. The type is detected from the content. JPEG, PNG and WebP are sent unchanged; other
    images, and all images with *max_side*, are converted to an upright sRGB JPEG (PNG if partly
    transparent) without metadata, which needs the extra ``images``.

    Args:
        path: A path, the content itself, or an open binary file, which is read to its end.
        max_side: Maximum pixels of an image's longer side. Large bodies have been seen to time
            out in transit; 1280 fixed all of them. None keeps the size.
        quality: Quality of a converted JPEG, 1 to 95.

    Raises:
        TypeError: *path* is none of these.
        ValueError: The file cannot be read, is not a medium, is damaged, or has too many pixels.
    """
    check_size(max_side, quality)
    source = path if isinstance(path, bytes) or hasattr(path, "read") else Path(path)  # pyright: ignore[reportArgumentType]
    return read_local(source, max_side=max_side, quality=quality).url


def thumbnail(path: Path, max_side: int = 400) -> str | None:
    """Return a small copy of an image as a data URL, or None if not possible; blocks."""
    try:
        return read_local(path, max_side=max_side, quality=70, images_only=True).url
    except ValueError:
        return None


def can_convert() -> bool:
    """Return whether the extra ``images`` is installed."""
    return find_spec("PIL") is not None


def read_local(
    source: Any,
    *,
    max_side: int | None,
    quality: int = 84,
    max_bytes: int | None = None,
    images_only: bool = False,
) -> DataURL:
    """Read a `Path`, bytes or an open binary file; *max_bytes* limits the data URL.

    Raises:
        ValueError: As in `data_url`, or the data URL would be too large.
    """
    name = (source.name or str(source)) if isinstance(source, Path) else "the file"
    try:
        content = _read(source)
        content_type, sent = _prepare(content, max_side, quality, images_only=images_only)
        _check_length(len(sent), max_side, max_bytes)
    except OSError as error:
        raise ValueError(f"{name} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    digest = hashlib.sha256(content).hexdigest()
    return DataURL(
        f"data:{content_type};base64,{base64.b64encode(sent).decode()}",
        f"sha256:{digest}" + (f" max_side={max_side} quality={quality}" if max_side else ""),
        len(content),
        digest,
    )


def _prepare(
    content: bytes, max_side: int | None, quality: int, *, images_only: bool
) -> tuple[str, bytes]:
    """Return the content type and the content to send."""
    suffix, content_type = file_type("", content[:HEAD], "")
    kind = content_type.partition("/")[0]
    name = format_name(suffix)
    if kind not in {"image", "video", "audio"}:
        found = describe_page("", content[:HEAD], "", "file")
        if found is None:
            found = "of an unknown type" if suffix == ".bin" else f"a {name}"
        raise ValueError(f"it is {found}, not an image, a video or a sound")
    if kind == "image" and (max_side is not None or suffix not in _SENT):
        return convert(content, suffix, max_side, quality)
    if images_only and kind != "image":
        raise ValueError(f"it is a {name}, and the model takes an image")
    if _is_truncated(content, suffix):
        raise ValueError(f"the {name} is truncated")
    return content_type, content


def _check_length(length: int, max_side: int | None, max_bytes: int | None) -> None:
    size = _MAX_HEAD + (length + 2) // 3 * 4
    if max_bytes is not None and size > max_bytes:
        advice = "a smaller max_side" if max_side else "max_side=1280 (needs the extra images)"
        raise ValueError(
            f"it has {length / 1e6:.1f} MB, and {size / 1e6:.1f} MB as a data URL, but "
            f"the model takes at most {max_bytes / 2**20:.0f}: shrink it with {advice}"
        )


def _read(source: Any) -> bytes:
    if isinstance(source, bytes):
        content = source
    elif isinstance(source, Path):
        content = _read_file(source)
    else:
        content = b"".join(_read_pieces(source))
    if not content:
        raise ValueError("it is empty")
    if len(content) > _MAX_BYTES:
        raise ValueError(f"it has more than {_MAX_BYTES // 2**20} MB: pass a URL instead")
    return content


def _read_pieces(source: Any) -> Iterator[bytes]:
    """Read an open file, which may return less than it is asked for."""
    left = _MAX_BYTES + 1
    while left > 0 and (piece := source.read(left)) != b"":
        if not isinstance(piece, bytes):
            raise ValueError("open the file in binary mode")  # noqa: TRY004 - like the other errors
        left -= len(piece)
        yield piece


def _read_file(path: Path) -> bytes:
    # A pipe without a writer would block the thread forever.
    with io.FileIO(path, opener=lambda name, flags: os.open(name, flags | _NONBLOCK)) as file:
        before = os.fstat(file.fileno())
        if not stat.S_ISREG(before.st_mode):
            raise ValueError("it is not a regular file")
        if before.st_size > _MAX_BYTES:
            raise ValueError(f"it has {before.st_size / 2**20:.0f} MB: pass a URL instead")
        content = file.readall()
        after = os.fstat(file.fileno())
    if (len(content), before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise ValueError("it changed while being read")
    return content


def _is_truncated(content: bytes, suffix: str) -> bool:
    """Return whether an image is visibly truncated, without decoding it."""
    match suffix:
        case ".jpg":
            return _find_end_of_jpeg(content) < 0
        case ".png":
            return content.rfind(b"IEND") < 0
        case ".webp":
            return len(content) < int.from_bytes(content[4:8], "little") + 8
        case _:
            return False


def _find_end_of_jpeg(content: bytes) -> int:
    """Return the position of the end marker, skipping the segments: thumbnails have one, too."""
    position = 2
    while header := _SEGMENT.match(content, position):
        position = header.end(1) + int.from_bytes(header[2])
        if header[1] == b"\xda":  # the scan starts; markers in it are escaped
            break
    return content.find(b"\xff\xd9", position)
