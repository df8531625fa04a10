"""The results of a completed task: the shape of its output and its files.

A small table replaces the catalogue: the longest matching prefix of the model's
name decides; models without a match return a video under ``url``.
"""

import io
import itertools
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any, Literal

import attrs

FOLDER = "/upload/"

# Deliberately not ASCII: replies of paid tasks have been lost to a console's code page.
_TITLE = "Últimos días, 末班列车"
_TEXT = "[Verse]\nLa lluvia cae en la estación\n[Chorus]\n回家的路"

_Field = Literal["url", "video", "audio", "file", "text"]


@attrs.frozen
class _Shape:
    field: _Field
    suffix: str
    cover: bool = False
    clip: bool = False
    listed: bool = False
    layered: bool = False


_VIDEO = _Shape("url", "mp4")
_IMAGE = _Shape("url", "png")
_OMNI = _Shape("video", "mp4")
_SONG = _Shape("audio", "m4a", cover=True, clip=True)
_LYRICS = _Shape("text", "")

_SHAPES: dict[str, _Shape] = {
    "gpt_4o": _IMAGE,
    "gpt_image": _IMAGE,
    "nano_banana": _IMAGE,
    "seedream": _IMAGE,
    "seedream_v5_pro_layerize": _Shape("url", "png", layered=True),
    "wan2_7_image": _IMAGE,
    "flux_2": _IMAGE,
    "grok_imagine_image": _IMAGE,
    "grok_imagine_2_0_ext": _IMAGE,
    "krea": _IMAGE,
    "qwen_image": _IMAGE,
    "mj_": _IMAGE,
    "z_image": _IMAGE,
    "kling_v3_omni": _OMNI,
    "wan3_0": _OMNI,
    "gemini_omni": _OMNI,
    "minimax_h3_turbo": _Shape("video", "mp4", listed=True),
    "seed_audio": _Shape("audio", "wav"),
    "suno": _Shape("audio", "mp3", cover=True),
    "suno_lyrics": _LYRICS,
    "flow_music": _SONG,
    "flow_music_stems": _Shape("file", "zip", clip=True),
    "flow_music_lyrics": _LYRICS,
    "flow_music_video": _Shape("video", "mp4", clip=True),
    "flow_music_download": _Shape("audio", "mp3", clip=True),
    "flow_music_upload": _Shape("audio", "m4a", clip=True),
}


@cache
def _shape(model: str) -> _Shape:
    known = max((prefix for prefix in _SHAPES if model.startswith(prefix)), key=len, default="")
    return _SHAPES.get(known, _VIDEO)


def output(model: str, out_task_id: str, count: int, root: str) -> Any:
    """Return the ``output`` of a completed task, in the shape of its model.

    *root* is the URL of the results' host, without a trailing slash.
    """
    shape = _shape(model)
    folder = f"{root}{FOLDER}{out_task_id}"
    items = [_item(shape, folder, index) for index in range(count)]
    return {"list": items} if shape.listed else items


def _item(shape: _Shape, folder: str, index: int) -> dict[str, Any]:
    if shape.field == "text":
        return {"title": f"{_TITLE} {index}", "text": _TEXT}
    item: dict[str, Any] = {shape.field: f"{folder}/item-{index}.{shape.suffix}"}
    if shape.cover:
        # Where there is audio, url is the cover and not the result.
        item |= {"url": f"{folder}/cover-{index}.jpeg", "title": _TITLE, "text": _TEXT}
    if shape.clip:
        item["clip_id"] = f"{zlib.crc32(folder.encode()):08x}-{index}"
    if shape.layered:
        item["metadata"] = _layer(index)
    return item


def _layer(index: int) -> dict[str, Any]:
    # The rebuilt background is the first layer, and has no box and no name.
    box = {"absolute": [0, 142, 928, 535], "normalized": [0, 115, 999, 433]} if index else None
    return {
        "kind": "layer",
        "z_index": index,
        "bounding_box": box,
        "name": f"Layer {index}" if index else None,
        "description": "Foreground" if index else None,
    }


def is_file(model: str, count: int, name: str) -> bool:
    """Return whether a task of *model* with *count* results has a file *name*."""
    shape = _shape(model)
    names = {f"item-{index}.{shape.suffix}" for index in range(count) if shape.suffix}
    if shape.cover:
        names |= {f"cover-{index}.jpeg" for index in range(count)}
    return name in names


_PNG = b"\x89PNG\r\n\x1a\n"
# Digits as 3 x 5 dots, a row per octal digit.
_GLYPHS = {
    "0": "75557",
    "1": "26227",
    "2": "71747",
    "3": "71717",
    "4": "55711",
    "5": "74717",
    "6": "74757",
    "7": "71244",
    "8": "75757",
    "9": "75717",
    "-": "00700",
}
_WIDTH, _HEIGHT = 192, 128  # pixels
_ANIMATED_EVERY = 25  # tasks: the number moves up and down
_SHIFTS = (0, -6, -10, -6, 0, 6, 10, 6)  # pixels, a frame each
_FRAME = 120  # milliseconds


def _png(path: bytes, label: str) -> bytes:
    """Return a picture of a number on a gradient, in a few hundred bytes for each frame."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    seed = zlib.crc32(path).to_bytes(4)
    top, bottom = seed[:3], bytes(value // 3 for value in seed[1:])
    palette = bytearray(b"\xff\xff\xff")  # the number; then a colour for each line
    for y in range(_HEIGHT):
        palette += bytes(a + (b - a) * y // _HEIGHT for a, b in zip(top, bottom, strict=True))
    animated = label.isdigit() and int(label) % _ANIMATED_EVERY == 0
    frames = [_pixels(label, shift) for shift in (_SHIFTS if animated else _SHIFTS[:1])]
    parts = [
        chunk(b"IHDR", struct.pack(">IIBBBBB", _WIDTH, _HEIGHT, 8, 3, 0, 0, 0)),
        chunk(b"PLTE", bytes(palette)),
    ]
    if not animated:
        return _PNG + b"".join((*parts, chunk(b"IDAT", frames[0]), chunk(b"IEND", b"")))
    # APNG: all frames but the first are in chunks that other programs skip.
    parts.append(chunk(b"acTL", struct.pack(">II", len(frames), 0)))
    order = itertools.count()
    for number, pixels in enumerate(frames):
        size = (_WIDTH, _HEIGHT, 0, 0, _FRAME, 1000, 0, 0)
        parts.append(chunk(b"fcTL", struct.pack(">IIIIIHHBB", next(order), *size)))
        if number:
            parts.append(chunk(b"fdAT", struct.pack(">I", next(order)) + pixels))
        else:
            parts.append(chunk(b"IDAT", pixels))
    return _PNG + b"".join((*parts, chunk(b"IEND", b"")))


def _pixels(label: str, shift: int) -> bytes:
    """Return the compressed pixels of *label*, *shift* pixels below the middle."""
    scale = max(1, min(16, _WIDTH // (4 * len(label) + 1)))
    above = (_HEIGHT - 5 * scale) // 2 + shift
    left = (_WIDTH - (4 * len(label) - 1) * scale) // 2
    rows: list[bytes] = []
    for y in range(_HEIGHT):
        row = bytearray([y + 1]) * _WIDTH
        if 0 <= (line := (y - above) // scale) < 5:  # noqa: PLR2004 - dots of a digit
            for at, digit in enumerate(label):
                for x in range(3):
                    if int(_GLYPHS[digit][line]) >> (2 - x) & 1:
                        start = left + (4 * at + x) * scale
                        row[start : start + scale] = bytes(scale)
        rows.append(b"\0" + row)
    return zlib.compress(b"".join(rows))


def _wav(path: bytes, _: str) -> bytes:
    """Return a short tone whose pitch depends on the path."""
    period = 10 + zlib.crc32(path) % 30
    samples = (b"\x60" * period + b"\xa0" * period) * (2000 // (2 * period)) + path
    samples += bytes(len(samples) % 2)
    head = b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 8000, 1, 8)
    data = head + b"data" + struct.pack("<I", len(samples)) + samples
    return b"RIFF" + struct.pack("<I", len(data)) + data


def _zip(path: bytes, _: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("stem.txt"), path)
    return buffer.getvalue()


def _magic(head: bytes) -> Callable[[bytes, str], bytes]:
    """Return a function that creates files with nothing but the right first bytes."""
    return lambda path, _: head + path


_FILES: dict[str, tuple[str, Callable[[bytes, str], bytes]]] = {
    "png": ("image/png", _png),
    "jpeg": ("image/jpeg", _magic(b"\xff\xd8\xff\xe0\0\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0")),
    "mp4": ("video/mp4", _magic(b"\0\0\0\x18ftypisom\0\0\0\0isommp42")),
    "m4a": ("audio/mp4", _magic(b"\0\0\0\x18ftypM4A \0\0\0\0M4A isom")),
    "mp3": ("audio/mpeg", _magic(b"ID3\x03\0\0\0\0\0\0\xff\xfb\x90\x64" + bytes(413))),
    "wav": ("audio/wav", _wav),
    "zip": ("application/zip", _zip),
}


def file(path: str, number: int) -> tuple[str, bytes]:
    """Return the media type and the content of the file at *path*, for task *number*.

    Files are small and depend only on the arguments: different files differ, repeated downloads do
    not. Pictures show the number, and every 25th is animated.
    """
    stem, _, suffix = path.rpartition(".")
    index = int(stem.rpartition("-")[2])
    media_type, make = _FILES[suffix]
    return media_type, make(path.encode(), f"{number}-{index + 1}" if index else str(number))
