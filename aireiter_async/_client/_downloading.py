"""Downloads: each result whole or absent, from a fresh URL where the known one has expired."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final, TypeVar

from attrs import define

from aireiter_async._client._api import Api
from aireiter_async._media import (
    EXPIRED,
    check_name,
    file_type,
    is_data_url,
    open_result,
    read_data_url,
    safe_stem,
    stem_of_url,
)
from aireiter_async._tasks import Output, Task, TaskStatus
from aireiter_async.errors import AireiterError, DownloadError, ProtocolError

T = TypeVar("T")
# Stores content with a suffix and a content type.
Store = Callable[[AsyncIterator[bytes], str, str], Awaitable[T]]

_LONGEST_SHOWN: Final = 2_000  # characters of a URL that an error repeats: it may be megabytes
_BLOCK: Final = 1024 * 1024
_NUMBERED: Final = re.compile(r"-\d+\Z")


@define
class _Source:
    """One result, and where it is.

    Attributes:
        output: The result.
        url: Its URL: a fresh one once the first has expired.
        out_task_id: Its task, None where that is not known.
        number: Its place among the task's outputs, from 1.
        model: The task's model.
        refreshed: What came of the query for a fresh URL; None before it.
    """

    output: Output
    url: str
    out_task_id: str | None
    number: int
    model: str | None = None
    refreshed: str | None = None

    @property
    def owner(self) -> object:
        return (self.out_task_id, self.number) if self.out_task_id else self.output.url


class Downloading:
    """Downloads results.

    Args:
        api: Opens the results' URLs, and queries tasks for fresh ones.
    """

    def __init__(self, api: Api) -> None:
        self._api = api

    async def download(
        self, task_or_output: Task | Output, folder: Path, name: str | None
    ) -> list[Path]:
        """Save all outputs of a task, or one output.

        Raises:
            DownloadError: A result could not be saved.
            TypeError: *task_or_output* is neither.
            ValueError: The task has not completed, or *name* is no file name.
        """
        if name is not None:
            check_name(name)
        if isinstance(task_or_output, Output):
            source = _source(task_or_output)
            return [await self._save(source, folder, name or _stem(source))]
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
        return await _gather(
            [
                self._save(
                    _Source(output, output.url or "", task.out_task_id, number, task.model),
                    folder,
                    f"{stem}-{number}" if many else stem,
                )
                for number, output in enumerate(task.outputs, 1)
            ]
        )

    async def read(self, output: Output) -> bytes:
        """Return an output's content; of one without a URL, its text in UTF-8.

        Raises:
            DownloadError: It could not be read.
            TypeError: *output* is none.
        """
        if not isinstance(output, Output):
            raise TypeError(f"output must be an Output, got {type(output).__name__}")

        async def join(chunks: AsyncIterator[bytes], _suffix: str, _content_type: str) -> bytes:
            return b"".join([chunk async for chunk in chunks])

        return await self._store(_source(output), join)

    async def _save(self, source: _Source, folder: Path, stem: str) -> Path:
        async def save(chunks: AsyncIterator[bytes], suffix: str, _content_type: str) -> Path:
            return await self._api.shared.files.save(
                chunks, folder, safe_stem(stem), suffix, owner=source.owner, replace=own
            )

        # "a-1" is the first output of the task "a", and the only one of the task "a-1".
        own = stem == source.out_task_id and not _NUMBERED.search(stem)
        return await self._store(source, save)

    async def _store(self, source: _Source, store: Store[T]) -> T:
        try:
            if not source.url:
                return await self._store_content(_text(source.output), "text/plain", store)
            if is_data_url(source.url):
                threads = self._api.shared.files.threads
                content_type, content = await threads.run(read_data_url, source.url)
                return await self._store_content(content, content_type, store)
            return await self._api.retry.call(self._fetch, source, store)
        except (AireiterError, OSError, ValueError) as error:
            raise _failed(source, error) from error
        except RuntimeError:
            self._api.shared.transport.open()  # raises if the client was closed meanwhile
            raise

    async def _store_content(self, content: bytes, content_type: str, store: Store[T]) -> T:
        if not content:
            raise ValueError("the result is empty")
        suffix, content_type = file_type(content_type, content, "")
        stored = await store(_pieces(content), suffix, content_type)
        self._api.shared.counters.bytes_downloaded += len(content)
        return stored

    async def _fetch(self, source: _Source, store: Store[T]) -> T:
        try:
            return await self._fetch_once(source, store)
        except ProtocolError as error:
            if error.status not in EXPIRED or not await self._refresh(source):
                raise
        return await self._fetch_once(source, store)

    async def _fetch_once(self, source: _Source, store: Store[T]) -> T:
        api, kind = self._api, source.output.kind
        async with open_result(api.result, api.retry, source.url, kind) as result:
            try:
                async with aclosing(result.chunks()) as chunks:
                    stored = await store(chunks, result.suffix, result.content_type)
            finally:
                if result.failure is not None:
                    raise result.failure
        api.shared.counters.bytes_downloaded += result.length
        return stored

    async def _refresh(self, source: _Source) -> bool:
        """Query the task of a result for its URL, once, and tell whether there is a fresh one."""
        if source.out_task_id is None or source.refreshed is not None:
            return False
        try:
            task = await self._api.ask(source.out_task_id, source.model)
        except AireiterError as error:
            source.refreshed = f"the task could not be queried for a fresh one ({error.summary})"
            return False
        fresh = [output.url for output in task.outputs[source.number - 1 : source.number]]
        if fresh in ([], [None], [source.url]):
            source.refreshed = "the service has no fresh one"
            return False
        source.refreshed = "so has the fresh one that the service gave"
        source.url = str(fresh[0])
        return True


def _source(output: Output) -> _Source:
    return _Source(output, output.url or "", output.out_task_id, output.number)


def _stem(source: _Source) -> str:
    if source.out_task_id:
        return f"{source.out_task_id}-{source.number}"
    return stem_of_url(source.url or source.output.title or "")


def _text(output: Output) -> bytes:
    text = "\n\n".join(part for part in (output.title, output.text) if part)
    return text.encode("utf-8", "surrogatepass")


async def _pieces(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), _BLOCK):
        yield content[start : start + _BLOCK]


async def _gather(saves: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Await all, at the same time; the first that failed raises once all have ended."""
    if len(saves) == 1:
        return [await saves[0]]

    async def settle(save: Coroutine[Any, Any, T]) -> T | Exception:
        try:
            return await save
        except Exception as error:  # noqa: BLE001 - raised below
            return error

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(settle(save)) for save in saves]
    ends = [task.result() for task in tasks]
    for end in ends:
        if isinstance(end, Exception):
            raise end
    return [end for end in ends if not isinstance(end, Exception)]


def _failed(source: _Source, error: Exception) -> DownloadError:
    shown = source.url
    if len(shown) > _LONGEST_SHOWN:
        shown = f"{shown[:100]}... ({len(shown)} characters)"
    expired = isinstance(error, ProtocolError) and error.status in EXPIRED
    what = f"the result could not be saved ({error})"
    if isinstance(error, ProtocolError) and expired:
        tail = f", and {source.refreshed}" if source.refreshed else ""
        what = f"the result's URL has expired (HTTP {error.status}){tail}"
    return DownloadError(shown, what, source.out_task_id, expired=expired)
