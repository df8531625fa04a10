"""Where the media are in a finished task's ``output``.

The place differs by model (``url``, ``video``, ``audio``, ``file``, or text
alone), and where a song has a ``url`` beside its ``audio``, that is the cover
image. A model of the catalogue says its place; for any other the known places
are probed, the most telling first.
"""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, Final
from urllib.parse import urlsplit

from aireiter_async import models
from aireiter_async._tasks import Output, OutputKind

_KINDS: Final[Mapping[str, OutputKind]] = {"video": "video", "audio": "audio", "file": "file"}
_SUFFIXES: Final[Mapping[str, OutputKind]] = {
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".webp", ".gif", ".avif", ".svg"), "image"),
    **dict.fromkeys((".mp4", ".mov", ".webm", ".m4v"), "video"),
    **dict.fromkeys((".mp3", ".m4a", ".wav", ".ogg", ".opus", ".flac", ".pcm", ".aac"), "audio"),
    ".txt": "text",
}
_MEDIA: Final[Mapping[str, OutputKind]] = {
    "data:image": "image",
    "data:video": "video",
    "data:audio": "audio",
    "data:text": "text",
}
_LONGEST_URL: Final = 65_536  # characters: urllib keeps the last URLs that it has taken apart


def read_outputs(
    output: Any, model: str | None, out_task_id: str | None = None
) -> tuple[Output, ...]:
    """Read the ``output`` of a finished task, whatever its shape.

    Args:
        output: An array of objects, an object with a ``list``, one object, or
            URLs; anything else is kept in ``raw``.
        model: The name of the task's model, None where it is not known.
        out_task_id: The ID of the task.
    """
    if output is None:
        return ()
    if isinstance(output, Mapping) and isinstance(output.get("list"), list):
        output = output["list"]
    items = output if isinstance(output, list) else [output]
    known = models.MODELS.get(model) if model else None
    place = known.OUTPUT if known else None
    medium = known.MEDIUM if known else None
    return tuple(
        Output(**_read_output(item, place, medium), out_task_id=out_task_id, number=number)
        for number, item in enumerate(items, 1)
    )


def _read_output(item: Any, place: str | None, medium: OutputKind | None) -> dict[str, Any]:
    if isinstance(item, str):
        return {"url": item or None, "kind": _kind_of_url(item, medium), "raw": item}
    if not isinstance(item, Mapping):
        return {"raw": item}
    found = next((key for key in (place, *_KINDS) if key and _text(item.get(key))), None)
    url = _text(item.get("url"))
    title, text = _text(item.get("title")), _text(item.get("text"))
    kind: OutputKind
    if found is not None and found in _KINDS:
        media, cover = _text(item[found]), url
        kind = _KINDS[found]
    elif url is not None and place != "text":
        media, cover = url, None
        kind = _kind_of_url(url, medium)
    else:
        media, cover = None, url
        kind = "text" if title or text else "file"
    metadata = item.get("metadata")
    return {
        "url": media,
        "kind": kind,
        "cover_url": cover,
        "title": title,
        "text": text,
        "metadata": metadata if isinstance(metadata, Mapping) else {},
        "raw": item,
    }


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _kind_of_url(url: str, medium: OutputKind | None) -> OutputKind:
    told = url[:11].lower().partition("/")[0]
    if told.startswith("data:") or len(url) > _LONGEST_URL:
        return _MEDIA.get(told) or medium or "file"
    try:
        suffix = PurePosixPath(urlsplit(url).path).suffix.lower()
    except ValueError:
        suffix = ""
    return _SUFFIXES.get(suffix, medium or "file")
