"""Replace local media and outputs in a request by URLs, right before it is sent."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
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
    embedding = await read_all_media(api, model)
    return await embedding.refresh(api)


async def read_all_media(api: Api, model: Any) -> "Embedding":
    """Read the local files of a models instance, in a thread; outputs are not queried.

    Raises:
        ValueError: As in `embed_media`.
    """
    side, threads = api.settings.max_image_side, api.shared.threads
    references = [
        _output_reference(media.source, media.source.url or "")
        if isinstance(media.source, Output)
        else await threads.run(read_media, media, side)
        for media in model.local_media()
    ]
    return Embedding(model, references)


@frozen
class Embedding:
    """A models instance whose local media have become URLs.

    Attributes:
        model: The instance.
        references: A reference for each of its local media.
    """

    model: Any
    references: Sequence[Reference]

    @property
    def refreshable(self) -> bool:
        """Whether an output of an earlier task may have a fresh URL."""
        return any(_can_query(media.source) for media in self.model.local_media())

    def request(self) -> SubmitRequest:
        """Return its request, with the URLs of outputs as they are known."""
        return build_request(self.model, self.references)

    async def refresh(self, api: Api) -> SubmitRequest:
        """Return its request, with the URLs that outputs have now."""
        references = [
            _output_reference(media.source, await _fresh_url(api, media.source))
            if _can_query(media.source)
            else reference
            for media, reference in zip(self.model.local_media(), self.references, strict=True)
        ]
        return build_request(self.model, references)


def embed_files(model: Any, max_side: int | None) -> SubmitRequest:
    """Like `embed_media`, for local files only; blocks.

    Raises:
        ValueError: As in `embed_media`.
    """
    return build_request(model, [read_media(media, max_side) for media in model.local_media()])


def build_request(model: Any, references: Sequence[Reference]) -> SubmitRequest:
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


def _can_query(source: object) -> bool:
    """Return whether *source* is an output whose task is known."""
    return isinstance(source, Output) and source.out_task_id is not None


def _output_reference(output: Output, url: str) -> Reference:
    """Return the reference to an output, of which *url* is no part of the identity."""
    known = output.out_task_id
    return Reference(url, f"output:{known}:{output.number}" if known else url)


async def _fresh_url(api: Api, output: Output) -> str:
    """Return an output's current URL: the service fetches it after accepting the task."""
    fresh = None
    with suppress(AireiterError):  # the known URL may still work
        fresh = await api.fresh_url(output, None)
    return fresh or output.url or ""
