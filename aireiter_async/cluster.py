"""Generate on a cluster: distributed engines call `generate` for each partition."""

import asyncio
import copy
import threading
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, suppress
from os import PathLike
from queue import SimpleQueue
from typing import Any, Final, TypeAlias

from attrs import define, field, frozen

from aireiter_async import _batch
from aireiter_async._arguments import check_count, check_number
from aireiter_async._batch._items import Request
from aireiter_async._client import AsyncClient, limit_to_share
from aireiter_async._media import Sink
from aireiter_async._tasks import Task
from aireiter_async.stores import IdempotencyStore, stable_id

__all__ = ["generate"]

MakeStore: TypeAlias = Callable[[], IdempotencyStore | AbstractAsyncContextManager[Any]]

_END: Final = object()


def generate(  # noqa: PLR0913 - the options of a batch, and of a cluster
    rows: Iterable[Any],
    *,
    request: Callable[[Any], Request],
    connect: Callable[[], AsyncClient],
    namespace: str,
    store: MakeStore | None = None,
    share: float = 1.0,
    window: int | None = None,
    timeout: float | None = None,
    download_to: str | PathLike[str] | Sink | None = None,
) -> Iterator[dict[str, Any]]:
    """Generate for each row of a partition; a plain generator, for any engine.

    A row's ID is ``stable_id(namespace, row)``, on every machine and in every run: a partition
    that an engine reruns finds the tasks of its first run. Equal rows share one task; add a
    column that differs if you want one each.

    The client runs in an event loop in its own thread; *rows* is read in the caller's thread.
    *request*, *connect* and *store* are called in the process that reads the records: define them
    at the top of a module, so that an engine can pickle them.

    Args:
        rows: JSON values, such as mappings of columns.
        request: Returns a row's request: a models instance, a `SubmitRequest` or a model's name
            and a mapping. It is submitted under the row's ID.
        connect: Returns the client.
        namespace: Such as the name of the job: the same row in another namespace is another task.
        store: Returns the idempotency store that all workers share, or an async context manager
            that yields it. None: it is up to the service whether a row that is submitted again
            is charged again.
        share: This partition's share of the client's ``max_rate`` and ``max_concurrency``, more
            than 0 and at most 1: with four concurrent workers, 0.25 each.
        window: Maximum rows in progress. None: four times the client's concurrency, and at
            least 256.
        timeout: Seconds to wait for each task from its acceptance; None for no limit.
        download_to: A directory or a `Sink` for the results.

    Yields:
        One record per row, as they complete: ``row``, ``out_task_id`` (None for a row that is not
        a JSON value), ``status``, ``urls``, ``paths``, ``credits_used``, and ``error``, which is
        None or a text. A problem with one row is its error; after a problem with the account, such
        as an invalid key, the remaining rows are not submitted.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: An argument is out of range.
    """
    if isinstance(rows, str | bytes | Mapping):
        raise TypeError(f"rows must be an iterable of rows, got {type(rows).__name__}: use a list")
    if check_number("share", share, above=0) > 1:
        raise ValueError(f"share must be more than 0 and at most 1, got {share}")
    options: dict[str, Any] = {
        "timeout": None if timeout is None else check_number("timeout", timeout),
        "download_to": download_to,
    }
    job = _Job(
        request=request,
        connect=connect,
        namespace=namespace,
        store=store,
        share=share,
        window=None if window is None else check_count("window", window),
        options=options,
    )
    return _records(rows, job)


@frozen(kw_only=True)
class _Job:
    """The arguments of `generate`, except the rows.

    Attributes:
        remembered: Maximum records kept for later equal rows.
    """

    request: Callable[[Any], Request]
    connect: Callable[[], AsyncClient]
    namespace: str
    store: MakeStore | None
    share: float
    window: int | None
    options: dict[str, Any]
    remembered: int = 10_000


@frozen
class _Item:
    out_task_id: str
    row: Any


def _records(rows: Iterable[Any], job: _Job) -> Iterator[dict[str, Any]]:
    """Pass rows to a worker while there is room, and yield the records."""
    worker, outstanding = _Worker(job), 0
    size = worker.start()
    try:
        for row in rows:
            worker.put(copy.copy(row))  # the source may use it for the next one, too
            outstanding += 1
            while outstanding >= size or worker.has_records:
                yield worker.get()
                outstanding -= 1
        worker.put(_END)
        for _ in range(outstanding):
            yield worker.get()
    finally:
        worker.stop()


@define(eq=False)
class _Worker:
    """A thread with an event loop and a client, which turns rows into records.

    Args:
        job: The arguments.
    """

    job: _Job
    _loop: asyncio.AbstractEventLoop = field(factory=asyncio.new_event_loop, init=False)
    _rows: asyncio.Queue[Any] = field(factory=asyncio.Queue, init=False)
    _records: SimpleQueue[Any] = field(factory=SimpleQueue, init=False)
    _thread: threading.Thread = field(init=False)
    _task: "asyncio.Task[Any]" = field(init=False)
    _ended: bool = field(default=False, init=False)
    _waiting: dict[str, list[Any]] = field(factory=dict, init=False)  # rows, by their task's ID
    _done: dict[str, dict[str, Any]] = field(factory=dict, init=False)  # the latest records, by ID

    def __attrs_post_init__(self) -> None:
        self._thread = threading.Thread(target=self._run, name="aireiter-cluster", daemon=True)

    def start(self) -> int:
        """Connect, and return the maximum number of outstanding rows.

        Raises:
            Exception: From *connect* or *store*.
        """
        self._thread.start()
        try:
            size: int = self.get()
        except BaseException:
            self.stop()
            raise
        return size

    def put(self, row: Any) -> None:
        """Pass a row, or the end marker."""
        with suppress(RuntimeError):  # the loop has ended: `get` raises why
            self._loop.call_soon_threadsafe(self._rows.put_nowait, row)

    @property
    def has_records(self) -> bool:
        """Whether `get` returns at once."""
        return not self._records.empty()

    def get(self) -> Any:
        """Wait for a record.

        Raises:
            Exception: The worker has failed.
        """
        record = self._records.get()
        if isinstance(record, BaseException):
            raise record
        return record

    def stop(self) -> None:
        """Cancel what is in progress, and close the client."""
        with suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            try:
                runner.run(self._work())
            except BaseException as error:  # noqa: BLE001 - raised by `get`
                self._records.put(error)

    async def _work(self) -> None:
        self._task = asyncio.current_task()  # type: ignore[assignment]  # there is one
        job = self.job
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(job.connect())
            limit_to_share(client, job.share)
            store: Any = None if job.store is None else job.store()
            if hasattr(store, "__aenter__"):
                store = await stack.enter_async_context(store)
            size = job.window or _batch.default_window(client)
            source = await stack.enter_async_context(aclosing(self._unique_items()))
            batch = _batch.run_many(
                client,
                source,
                request=self._request,
                identify=_identify,
                window=size,
                idempotency=store,
                **job.options,
            )
            self._records.put(size)
            async with batch:
                async for outcome in batch:
                    error = None if outcome.ok else outcome.error
                    self._put_records(
                        outcome.item, outcome.task, outcome.paths if outcome.ok else (), error
                    )
            # Rows left over after a problem with the account.
            async for row in self._incoming_rows():
                self._records.put(_record(row, error=batch.stopped))

    def _request(self, item: _Item) -> Request:
        return self.job.request(item.row)

    async def _unique_items(self) -> AsyncGenerator[_Item, None]:
        """Yield the first of each group of equal rows."""
        async for row in self._incoming_rows():
            try:
                out_task_id = stable_id(self.job.namespace, row)
            except (TypeError, ValueError) as error:
                self._records.put(_record(row, error=error))
                continue
            if out_task_id in self._waiting:
                self._waiting[out_task_id].append(row)
            elif out_task_id in self._done:
                self._records.put({**self._done[out_task_id], "row": row})
            else:
                self._waiting[out_task_id] = [row]
                yield _Item(out_task_id, row)

    async def _incoming_rows(self) -> AsyncGenerator[Any, None]:
        while not self._ended:
            row = await self._rows.get()
            if row is _END:
                self._ended = True
            else:
                yield row

    def _put_records(
        self, item: _Item, task: Task | None, paths: tuple[Any, ...], error: Exception | None
    ) -> None:
        """Put the record of a task for each of the rows that wait for it."""
        record = _record(item.row, item.out_task_id, task, paths, error)
        for row in self._waiting.pop(item.out_task_id):
            self._records.put({**record, "row": row})
        self._done[item.out_task_id] = record
        if len(self._done) > self.job.remembered:
            del self._done[next(iter(self._done))]


def _identify(item: _Item) -> str:
    return item.out_task_id


def _record(
    row: Any,
    out_task_id: str | None = None,
    task: Task | None = None,
    paths: tuple[Any, ...] = (),
    error: Exception | None = None,
) -> dict[str, Any]:
    return {
        "row": row,
        "out_task_id": out_task_id,
        "status": None if task is None else str(task.status),
        "urls": [] if task is None else list(task.urls),
        "paths": [str(path) for path in paths],
        "credits_used": None if task is None else task.credits_used,
        "error": None if error is None else f"{type(error).__name__}: {error}",
    }
