"""Find the media in a finished task's ``output``.

The field differs by model (``url``, ``video``, ``audio``, ``file``, or text
only); if a song has both ``audio`` and ``url``, the latter is its cover image. The
catalogue names the field of each known model; for others, the known fields are
tried, the most specific first.
"""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, Final
from urllib.parse import urlsplit

from aireiter_async import models
from aireiter_async._tasks import Output, OutputKind
from aireiter_async._text import MAX_URL

_KINDS: Final[Mapping[str, OutputKind]] = {"video": "video", "audio": "audio", "file": "file"}
_FIELDS: Final = (*_KINDS, "url")
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

# Where adapters and relays put results beside or instead of ``output``, and the field of an item
# that such a URL belongs in.
_ELSEWHERE: Final[Mapping[str, str]] = {
    "outputs": "url",
    "results": "url",
    "result": "url",
    "images": "url",
    "image": "url",
    "videos": "video",
    "video": "video",
    "audios": "audio",
    "audio": "audio",
    "files": "file",
    "file": "file",
    "urls": "url",
    "url": "url",
}
_COVERS: Final = ("cover", "cover_url", "cover_image")


def find_outputs(
    data: Mapping[str, Any], model: str | None, out_task_id: str | None
) -> tuple[Output, ...]:
    """Read the outputs of an ended task, wherever in *data* they are."""
    outputs = read_outputs(data.get("output"), model, out_task_id)
    if outputs:
        return outputs
    cover = next((data[name] for name in _COVERS if _text(data.get(name))), None)
    for name, field in _ELSEWHERE.items():
        values = data.get(name)
        if not values:
            continue
        if not isinstance(values, Mapping):
            items = values if isinstance(values, list) else [values]
            rest = {} if field == "url" else {"url": cover}
            values = [{field: each, **rest} if isinstance(each, str) else each for each in items]
        outputs = read_outputs(values, model, out_task_id)
        if outputs:
            return outputs
    return ()


def read_outputs(
    output: Any, model: str | None, out_task_id: str | None = None
) -> tuple[Output, ...]:
    """Read the ``output`` of a finished task, whatever its shape.

    An item with neither a URL nor a text is skipped: a task may be completed
    before its results are published. *output* is an array of objects, an object with a
    ``list``, one object, or URLs.
    """
    if not output:
        return ()
    if isinstance(output, Mapping) and isinstance(output.get("list"), list):
        output = output["list"]
    items = output if isinstance(output, list) else [output]
    items = [each for item in items for each in _split(item)]
    known = models.MODELS.get(model) if model else None
    field = known.OUTPUT if known else None
    medium = known.MEDIUM if known else None
    outputs = (
        Output(**_read_output(item, field, medium), out_task_id=out_task_id, number=number)
        for number, item in enumerate(items, 1)
    )
    return tuple(output for output in outputs if output.url or output.text)


def _split(item: Any) -> list[Any]:
    """Split an item with a list of URLs into one item per URL."""
    if isinstance(item, Mapping):
        field = next((field for field in _FIELDS if item.get(field)), None)
        if field is not None and isinstance(item[field], list):
            return [{**item, field: value} for value in item[field]]
    return [item]


def _read_output(item: Any, field: str | None, medium: OutputKind | None) -> dict[str, Any]:
    if isinstance(item, str):
        return {"url": item.strip() and item, "kind": _kind_of_url(item, medium), "raw": item}
    if not isinstance(item, Mapping):
        return {}
    found = next((key for key in (field, *_KINDS) if key and _text(item.get(key))), None)
    media, cover = _text(item.get("url")), None
    title, text = _text(item.get("title")), _text(item.get("text"))
    kind: OutputKind
    if found is not None and found in _KINDS:
        media, cover = item[found], media
        kind = _KINDS[found]
    elif media is not None and field != "text":
        kind = _kind_of_url(media, medium)
        if kind == "image" and field in _KINDS:  # only the cover of a song or a video
            media, cover = None, media
    else:
        media, cover = None, media
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
    return value if isinstance(value, str) and value.strip() else None


def _kind_of_url(url: str, medium: OutputKind | None) -> OutputKind:
    scheme = url[:11].lower().partition("/")[0]
    if scheme.startswith("data:") or len(url) > MAX_URL:
        return _MEDIA.get(scheme) or medium or "file"
    try:
        suffix = PurePosixPath(urlsplit(url).path).suffix.lower()
    except ValueError:
        suffix = ""
    return _SUFFIXES.get(suffix, medium or "file")
