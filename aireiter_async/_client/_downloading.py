"""Results to files: retried, renamed when whole, and without the key."""

import time
from functools import partial
from pathlib import Path
from typing import Final

from aireiter_async._client._api import Api
from aireiter_async._envelope import Reply, protocol_error
from aireiter_async._media import (
    file_suffix,
    is_data_url,
    is_web_url,
    save,
    save_data_url,
    save_text,
    stem_of_url,
)
from aireiter_async._tasks import Output, Task, TaskStatus
from aireiter_async.errors import AireiterError, DownloadError, TransportError

_OK: Final = 200
_LONGEST_SHOWN: Final = 2_000  # characters of a URL that an error repeats: it may be megabytes


class Downloading:
    """Downloads results over an `Api`.

    Args:
        api: Opens a result's URL.
    """

    def __init__(self, api: Api) -> None:
        self._api = api
        self._shared = api.shared

    async def download(
        self, task_or_output: Task | Output, directory: Path, name: str | None
    ) -> list[Path]:
        """Save all outputs of a task, or one output.

        Raises:
            DownloadError: A result could not be saved.
            TypeError: *task_or_output* is neither.
            ValueError: The task has not completed, or *name* is no file name.
        """
        if name is not None and (name != Path(name).name or name in {"", ".", ".."}):
            raise ValueError(f"name must be a file name without a directory, got {name!r}")
        if isinstance(task_or_output, Output):
            output = task_or_output
            stem = name or stem_of_url(output.url or output.title or "")
            return [await self._save(output, directory, stem, None)]
        if not isinstance(task_or_output, Task):
            kind = type(task_or_output).__name__
            raise TypeError(f"task_or_output must be a Task or an Output, got {kind}")
        task = task_or_output
        if task.status is not TaskStatus.COMPLETED:
            raise ValueError(
                f"task {task.out_task_id} is {task.status}: only a completed task has results, "
                "wait for it first"
            )
        stem = name or task.out_task_id
        many = len(task.outputs) > 1
        return [
            await self._save(output, directory, f"{stem}-{n}" if many else stem, task.out_task_id)
            for n, output in enumerate(task.outputs, 1)
        ]

    async def _save(
        self, output: Output, directory: Path, stem: str, out_task_id: str | None
    ) -> Path:
        url = output.url
        try:
            if url is None:
                text = "\n\n".join(part for part in (output.title, output.text) if part)
                path, length = await save_text(text, directory, stem)
            elif is_data_url(url):
                path, length = await save_data_url(url, directory, stem)
            else:
                path, length = await self._api.retry.call(self._fetch, url, directory, stem)
        except (AireiterError, OSError, ValueError) as error:
            what = f"the result could not be saved ({error})"
            raise DownloadError(_shown(url or ""), what, out_task_id) from error
        self._shared.counters.bytes_downloaded += length
        return path

    async def _fetch(self, url: str, directory: Path, stem: str) -> tuple[Path, int]:
        if not is_web_url(url):
            raise ValueError("the result is not at an http or https URL of reasonable length")
        throttle = self._shared.throttle
        await throttle.acquire(shaped=False)
        try:
            self._shared.counters.requests += 1
            async with self._api.result(url) as stream:
                kind = stream.headers.get("Content-Type", "")
                if stream.status != _OK or kind.lower().startswith("text/html"):
                    what = "the result's host did not send the result"
                    answer = Reply(stream.status, stream.headers, b"", time.time())
                    raise protocol_error(what, answer)
                suffix = partial(file_suffix, kind, url=url)
                return await save(stream.chunks(), directory, stem, suffix)
        except TransportError:
            self._shared.transport.open()  # which says so if the client was closed meanwhile
            raise
        finally:
            throttle.release()


def _shown(url: str) -> str:
    return url if len(url) <= _LONGEST_SHOWN else f"{url[:100]}... ({len(url)} characters)"
