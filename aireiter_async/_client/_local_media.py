"""Replace local media and outputs in a request by URLs, right before it is sent."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import evolve, frozen

from aireiter_async._client._api import Api
from aireiter_async._encoding import encode_mapping
from aireiter_async._media import read_local
from aireiter_async._requests import SubmitRequest
from aireiter_async._tasks import Output
from aireiter_async.errors import AireiterError

if TYPE_CHECKING:
    from aireiter_async.models._media import LocalMedia


@frozen
class Reference:
    """The URL that replaces a medium in a request.

    Attributes:
        url: The URL.
        identity: Identifies the medium, whatever its URL.
        input: The file that was read, as a ledger records it.
    """

    url: str
    identity: str
    input: Mapping[str, Any] | None = None


async def embed_media(api: Api, model: Any) -> SubmitRequest:
    """Return the request for a models instance, with its local media as URLs.

    Files are read and encoded in a thread. The request is identified by the original files and
    outputs, not by the converted content or an output's URL.

    Raises:
        ValueError: A medium cannot be read or sent.
    """
    references: list[Reference] = []
    for media in model.local_media():
        if isinstance(media.source, Output):
            references.append(await _refer(api, media.source))
        else:
            side = api.settings.max_image_side
            references.append(await api.shared.threads.run(read_media, media, side))
    return with_references(model, references)


def embed_files(model: Any, max_side: int | None) -> SubmitRequest:
    """Like `embed_media`, for local files only; blocks.

    Raises:
        ValueError: As in `embed_media`.
    """
    return with_references(model, [read_media(media, max_side) for media in model.local_media()])


def with_references(model: Any, references: Sequence[Reference]) -> SubmitRequest:
    """Return the request of *model* with a reference for each of its local media."""
    sent = [each.url for each in references]
    params: Any = evolve(
        encode_mapping("params", model.to_params(sent)),
        content=encode_mapping("params", model.to_params([each.identity for each in references])),
        inputs=tuple(each.input for each in references if each.input is not None),
    )
    return SubmitRequest(model.model_name, params)


def read_media(media: "LocalMedia", max_side: int | None) -> Reference:
    """Read a file or bytes; it blocks.

    Raises:
        ValueError: They cannot be read, or not be sent.
    """
    source: Any = media.source
    try:
        found = read_local(
            source,
            max_side=max_side,
            max_bytes=media.max_bytes,
            images_only=media.accepts != "url or data",
        )
    except ValueError as error:
        raise ValueError(f"{media}: {error}") from error
    path = str(source) if isinstance(source, Path) else None
    details = {"param": str(media), "path": path, "size": found.size, "sha256": found.sha256}
    return Reference(found.url, found.identity, details)


async def _refer(api: Api, output: Output) -> Reference:
    """Return the URL of an output, and what identifies it."""
    url = await _fresh_url(api, output)
    known = output.out_task_id
    return Reference(url, f"output:{known}:{output.number}" if known else url)


async def _fresh_url(api: Api, output: Output) -> str:
    """Return an output's current URL: the service fetches it after accepting the task."""
    known = output.url or ""
    if output.out_task_id is None:
        return known
    try:
        task = await api.ask(output.out_task_id, None)
    except AireiterError:  # the known URL may still work
        return known
    fresh = [each.url for each in task.outputs[output.number - 1 : output.number]]
    return (fresh[0] if fresh else None) or known
