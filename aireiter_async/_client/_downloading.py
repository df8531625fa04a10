"""Downloads: complete or absent, from a fresh URL if the known one has expired."""

import asyncio
import hashlib
import logging
import os
import re
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Hashable,
    Mapping,
    Sequence,
)
from contextlib import aclosing
from functools import partial
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any, Final, TypeVar

from attrs import define, evolve

from aireiter_async import events
from aireiter_async._arguments import check_name
from aireiter_async._client._api import Api
from aireiter_async._media import (
    EXPIRED,
    HEAD,
    Digest,
    NameTemplate,
    Result,
    Saved,
    Sink,
    file_type,
    is_data_url,
    open_result,
    read_data_url,
    safe_stem,
    stem_of_url,
)
from aireiter_async._retry import Target
from aireiter_async._tasks import Output, Task, TaskStatus
from aireiter_async._text import host_of, without_queries
from aireiter_async.errors import AireiterError, DownloadError, ProtocolError

T = TypeVar("T")

_log = logging.getLogger(__name__)

# Writes chunks, given the suffix and the content type of the file.
Writer = Callable[[AsyncIterator[bytes], str, str], Awaitable[T]]
Name = str | Callable[[Output], str]

_MAX_SHOWN: Final = 2_000  # characters of a URL in an error: data URLs may have megabytes
_BLOCK: Final = 1024 * 1024
_NUMBERED: Final = re.compile(r"-\d+\Z")
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_SINKS: Final = (
    "for object storage, pass sinks.ObstoreSink(store, prefix) or sinks.FsspecSink(fs, prefix)"
)


@define
class _Source:
    """One result and its current URL.

    Attributes:
        url: Its URL; replaced by a fresh one when it has expired.
        refreshed: The outcome of the query for a fresh URL; None before it.
    """

    output: Output
    url: str
    model: str | None = None
    refreshed: str | None = None

    @property
    def owner(self) -> Hashable:
        """Identifies the result: a file or an object of another owner is never replaced."""
        output = self.output
        return (output.out_task_id, output.number) if output.out_task_id else output.url


class Downloader:
    def __init__(self, api: Api) -> None:
        self._api = api

    async def download(
        self,
        task_or_output: Task | Output,
        to: object,
        name: Name | None,
        damaged: Mapping[int, Path] | None = None,
    ) -> list[Saved]:
        """Save all outputs of a task, or one output.

        Args:
            task_or_output: The task or output.
            to: A directory or a sink.
            name: The names of the files.
            damaged: The files to replace, by the number of their output: only these outputs are
                saved. None saves all.

        Raises:
            DownloadError: A result could not be saved.
            TypeError: An argument is of the wrong type.
            ValueError: The task has not completed, *to* is a URL, or *name* is invalid.
        """
        task: Task | None = None
        if isinstance(task_or_output, Output):
            outputs = [task_or_output]
        elif isinstance(task_or_output, Task):
            task, outputs = task_or_output, _outputs(task_or_output)
        else:
            kind = type(task_or_output).__name__
            raise TypeError(f"task_or_output must be a Task or an Output, got {kind}")
        destination = as_destination(to)
        model = None if task is None else task.model
        saves: list[Coroutine[Any, Any, Saved]] = []
        for output, stem in zip(outputs, _stems(outputs, task, name), strict=True):
            source = _Source(output, output.url or "", model)
            if damaged is not None:
                if output.number not in damaged:
                    continue
                self._api.shared.files.adopt(damaged[output.number], source.owner)
            if isinstance(destination, Path):
                # "a-1" is the first output of the task "a", and the only one of the task "a-1".
                own = stem == output.out_task_id and name is None and not _NUMBERED.search(stem)
                saves.append(
                    self._save(source, self._folder_writer(destination, stem, source, own=own))
                )
            else:
                unique = _unique_stem(stem, source, named=name is not None)
                saves.append(self._save(source, _sink_writer(destination, unique)))
        out_task_id = outputs[0].out_task_id
        return await self._observe(_gather(saves), out_task_id, model)

    def _observe(
        self, call: Coroutine[Any, Any, T], out_task_id: str | None, model: str | None
    ) -> Coroutine[Any, Any, T]:
        dispatcher = self._api.shared.events
        if not dispatcher.listeners:
            return call
        return dispatcher.observe(call, "download", out_task_id, model)

    async def read(self, output: Output) -> bytes:
        """Return an output's content, or its text in UTF-8 if it has no URL.

        Raises:
            DownloadError: It could not be read.
            TypeError: *output* is not an Output.
        """
        if not isinstance(output, Output):
            raise TypeError(f"output must be an Output, got {type(output).__name__}")

        async def join(chunks: AsyncIterator[bytes], _suffix: str, _content_type: str) -> bytes:
            return b"".join([chunk async for chunk in chunks])

        call = self._save(_Source(output, output.url or ""), join)
        return await self._observe(call, output.out_task_id, None)

    def _folder_writer(
        self, folder: Path, stem: str, source: _Source, *, own: bool
    ) -> Writer[Saved]:
        files = self._api.shared.files

        async def save(chunks: AsyncIterator[bytes], suffix: str, _content_type: str) -> Saved:
            options: dict[str, Any] = {"owner": source.owner, "replace": own}
            digest = Digest()  # updated where the file is written: in a thread
            path = await files.save(chunks, folder, stem, suffix, digest=digest, **options)
            return digest.saved(path)

        return save

    async def _save(self, source: _Source, write: Writer[T]) -> T:
        try:
            if not source.url:
                return await self._save_content(source, _text(source.output), "text/plain", write)
            if is_data_url(source.url):
                threads = self._api.shared.threads
                content_type, content = await threads.run(read_data_url, source.url)
                return await self._save_content(source, content, content_type, write)
            target = Target("result", host_of(source.url), source.output.out_task_id)
            return await self._api.retry.call(target, self._fetch, target, source, write)
        except (AireiterError, OSError, ValueError) as error:
            raise _download_error(source, error) from error
        except RuntimeError:
            self._api.shared.transport.open()  # raises if the client was closed meanwhile
            raise

    async def _save_content(
        self, source: _Source, content: bytes, content_type: str, write: Writer[T]
    ) -> T:
        if not content:
            raise ValueError("the result is empty")
        suffix, content_type = file_type(content_type, content[:HEAD], "")
        written = await write(_pieces(content), suffix, content_type)
        self._note_saved(source, written, len(content))
        return written

    def _note_saved(self, source: _Source, written: object, size: int) -> None:
        shared, out_task_id = self._api.shared, source.output.out_task_id
        shared.counters.bytes_downloaded += size
        if not isinstance(written, Saved):  # it was read into memory
            return
        target = Target("result", host_of(source.url), out_task_id)
        _log.debug("%s: saved as %s", target, without_queries(str(written.place)))
        if shared.events.listeners:
            shared.events.emit(events.ResultDownloaded(out_task_id, written.place, size))

    async def _fetch(self, target: Target, source: _Source, write: Writer[T]) -> T:
        try:
            return await self._fetch_once(target, source, write)
        except ProtocolError as error:
            if error.status not in EXPIRED or not await self._refresh(source):
                raise
        return await self._fetch_once(target, source, write)

    async def _fetch_once(self, target: Target, source: _Source, write: Writer[T]) -> T:
        api, url, kind = self._api, source.url, source.output.kind
        get = partial(api.result, target.out_task_id)
        async with open_result(get, api.retry, target, url, kind) as result:
            written = await _write_result(result, write)
        self._note_saved(source, written, result.length)
        return written

    async def _refresh(self, source: _Source) -> bool:
        """Query a result's task for a fresh URL, once; return whether there is one."""
        output = source.output
        if output.out_task_id is None or source.refreshed is not None:
            return False
        try:
            fresh = await self._api.fresh_url(output, source.model)
        except AireiterError as error:
            source.refreshed = f"the task could not be queried for a fresh URL ({error.summary})"
            return False
        if not fresh or fresh == source.url:
            source.refreshed = "the service has no fresh URL"
            return False
        source.refreshed = "the fresh URL from the service has, too"
        source.url = fresh
        return True


def _sink_writer(sink: Sink, stem: str) -> Writer[Saved]:
    async def put(chunks: AsyncIterator[bytes], suffix: str, content_type: str) -> Saved:
        digest = Digest()
        try:
            async with aclosing(_measured(chunks, digest)) as measured:
                stored = await sink.put(f"{stem}{suffix}", measured, content_type=content_type)
        except Exception as error:
            raise OSError(f"the sink failed: {type(error).__name__}: {error}") from error
        return digest.saved(stored)

    return put


async def _write_result(result: Result, write: Writer[T]) -> T:
    """Write a result; its own errors are raised even if a sink has wrapped or swallowed them."""
    try:
        async with aclosing(result.chunks()) as chunks:
            written = await write(chunks, result.suffix, result.content_type)
    except Exception:
        if result.failure is None:
            raise
    else:
        if result.complete:
            return written
    raise result.failure or OSError("the sink returned before it had read the whole result")


def as_destination(to: object) -> Path | Sink:
    """Return *to* as a directory or a sink.

    Raises:
        TypeError: *to* is neither.
        ValueError: It is a URL.
    """
    # obstore's and other stores have a different, plain `put`.
    if isinstance(to, Sink) and iscoroutinefunction(to.put):
        return to
    try:
        path = os.fspath(to)  # type: ignore[call-overload] # raises unless it is a path
    except TypeError:
        kind = type(to).__name__
        raise TypeError(f"to must be a directory or a Sink, got {kind}; {_SINKS}") from None
    if not isinstance(path, str):
        raise TypeError(f"to must be a directory or a Sink, got {type(to).__name__}")
    if isinstance(to, str) and _URL.match(path):
        raise ValueError(f"to must be a directory or a Sink, got the URL {path!r}; {_SINKS}")
    return Path(path)


def _outputs(task: Task) -> list[Output]:
    if task.status is not TaskStatus.COMPLETED:
        raise ValueError(
            f"task {task.out_task_id} is {task.status}: only a completed task has results, "
            "wait for it first"
        )
    if not task.outputs:
        raise DownloadError("", "the task has completed without a result", task.out_task_id)
    return [
        evolve(output, out_task_id=task.out_task_id, number=number)
        for number, output in enumerate(task.outputs, 1)
    ]


def _stems(outputs: Sequence[Output], task: Task | None, name: Name | None) -> list[str]:
    """Return a unique name without suffix for each output."""
    if callable(name):
        stems = [safe_stem(check_name(name(output))) for output in outputs]
    elif name is not None:
        template = NameTemplate(name)
        stems = [template.stem(_values(output, task)) for output in outputs]
    elif task is not None:
        stems = [safe_stem(task.out_task_id)] * len(outputs)
    else:
        stems = [_stem(output) for output in outputs]
    if len({stem.casefold() for stem in stems}) == len(stems):
        return stems
    return [f"{stem}-{output.number}" for output, stem in zip(outputs, stems, strict=True)]


def _unique_stem(stem: str, source: _Source, *, named: bool) -> str:
    """Return the name of an object, which differs from that of every other result.

    A sink cannot tell whether a name is taken, and by which result.
    """
    output = source.output
    if output.out_task_id and not named:
        only = stem == output.out_task_id and not _NUMBERED.search(stem)
        if only or stem == f"{output.out_task_id}-{output.number}":
            return stem
    return f"{stem}-{hashlib.sha256(repr(source.owner).encode()).hexdigest()[:8]}"


def _stem(output: Output) -> str:
    if output.out_task_id:
        return safe_stem(f"{output.out_task_id}-{output.number}")
    return stem_of_url(output.url or output.title or "")


def _values(output: Output, task: Task | None) -> dict[str, object]:
    """Return the values for the fields of a name template."""
    values: dict[str, object] = {"n": output.number}
    if output.out_task_id is not None:
        values["out_task_id"] = output.out_task_id
    if task is not None:
        values["model"] = task.model
        inner = task.raw
        for key in ("data", "input", "params", "prompt"):
            inner = inner.get(key) if isinstance(inner, Mapping) else None
        if isinstance(inner, str):
            values["prompt"] = inner
    return values


def _text(output: Output) -> bytes:
    text = "\n\n".join(part for part in (output.title, output.text) if part)
    return text.encode("utf-8", "surrogatepass")


async def _measured(chunks: AsyncIterator[bytes], digest: Digest) -> AsyncGenerator[bytes]:
    async for chunk in chunks:
        digest.update(chunk)
        yield chunk


async def _pieces(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), _BLOCK):
        yield content[start : start + _BLOCK]


async def _gather(saves: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Await all concurrently; once all have ended, raise the error of the first that failed."""
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


def _download_error(source: _Source, error: Exception) -> DownloadError:
    shown = source.url
    if len(shown) > _MAX_SHOWN:
        shown = f"{shown[:100]}... ({len(shown)} characters)"
    expired = isinstance(error, ProtocolError) and error.status in EXPIRED
    message = f"the result could not be saved ({error})"
    if isinstance(error, ProtocolError) and expired:
        tail = f", and {source.refreshed}" if source.refreshed else ""
        message = f"the result's URL has expired (HTTP {error.status}){tail}"
    return DownloadError(shown, message, source.output.out_task_id, expired=expired)
