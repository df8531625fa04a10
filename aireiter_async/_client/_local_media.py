"""Replace local media and outputs in a request by URLs, right before it is sent."""

from typing import Any

from attrs import evolve

from aireiter_async._client._api import Api
from aireiter_async._encoding import encode_mapping
from aireiter_async._media import read_local
from aireiter_async._requests import SubmitRequest
from aireiter_async._tasks import Output
from aireiter_async.errors import AireiterError
from aireiter_async.models._media import LocalMedia


async def embed_media(api: Api, model: Any) -> SubmitRequest:
    """Return the request for a models instance, with its local media as URLs.

    Files are read and encoded in a thread. The request is identified by the original files and
    outputs, not by the converted content or an output's URL.

    Raises:
        ValueError: A medium cannot be read or sent.
    """
    references = [await _refer(api, each) for each in model.local_media()]
    sent, identity = zip(*references, strict=True)
    params: Any = evolve(
        encode_mapping("params", model.to_params(sent)),
        content=encode_mapping("params", model.to_params(identity)),
    )
    return SubmitRequest(model.model_name, params)


async def _refer(api: Api, media: LocalMedia) -> tuple[str, str]:
    """Return a URL for a medium, and its identity."""
    source = media.source
    if isinstance(source, Output):
        url = await _fresh_url(api, source)
        return url, f"output:{source.out_task_id}:{source.number}" if source.out_task_id else url
    try:
        found = await api.shared.files.threads.run(
            read_local,
            source,
            max_side=api.settings.max_image_side,
            max_bytes=media.max_bytes,
            images_only=media.accepts != "url or data",
        )
    except ValueError as error:
        raise ValueError(f"{media}: {error}") from error
    return found.url, found.identity


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
