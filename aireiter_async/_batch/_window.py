"""A bounded window: workers over one shared source.

There is no task per item, no item is pulled before there is room for it, and all workers end when
the consumer leaves: a million items take no more memory than one window of them.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable
from contextvars import Context, copy_context
from typing import Any, Generic, TypeVar

from aireiter_async._throttle import Slots

T = TypeVar("T")
R = TypeVar("R")


class Window(Generic[T, R]):
    """Processes the items of *source*, at most *size* of them at a time.

    Args:
        source: Any iterable or async iterable; read by one worker at a time,
            never past its end, and never closed, since the caller owns it.
        work: Processes an item, given its index from 0.
        size: Maximum items pulled and not yet yielded.
        workers: Maximum items processed at once. With fewer than *size*, a worker can start its
            next item before its last result has been yielded.
        ordered: Whether to yield results in the order of the items rather than as
            they complete; at most *size* of them are held back.

    Raises:
        TypeError: *source* is neither iterable nor async iterable.
    """

    def __init__(
        self,
        source: Iterable[T] | AsyncIterable[T],
        work: Callable[[int, T], Awaitable[R]],
        *,
        size: int,
        workers: int,
        ordered: bool,
    ) -> None:
        # An async generator must not be pulled concurrently; a plain iterable cannot be.
        self._pull_lock: asyncio.Lock | None = None
        self._items: Any
        if isinstance(source, AsyncIterable):
            self._items, self._pull_lock = aiter(source), asyncio.Lock()
        elif isinstance(source, Iterable):
            self._items = iter(source)
        else:
            raise TypeError(
                f"source must be an iterable or an async iterable, got {type(source).__name__}"
            )
        self._work = work
        self._limit = workers
        self._ordered = ordered
        self._room = Slots(size)
        self._workers: set[asyncio.Task[None]] = set()
        self._ready: deque[R] = deque()
        self._held: dict[int, R] = {}
        self._pulled = 0
        self._next = 0
        self._exhausted = False
        self._puller: asyncio.Task[Any] | None = None
        self._source_error: BaseException | None = None
        self._failure: BaseException | None = None
        self._wake = asyncio.Event()

    async def results(self, context: Context | None = None) -> AsyncGenerator[R, None]:
        """Yield the results.

        When the source raises, items in progress are finished and yielded first.

        Args:
            context: The workers run in copies of it; None: of the consumer's.

        Raises:
            BaseException: From the source or the work, or passed to `fail`.
        """
        (copy_context() if context is None else context).run(self._spawn_worker)
        try:
            while True:
                while self._ready:
                    result = self._ready.popleft()
                    self._room.release()
                    yield result
                if self._failure is not None:
                    raise self._failure
                if not self._workers:
                    break
                self._wake.clear()
                await self._wake.wait()
            if self._source_error is not None:
                raise self._source_error
        finally:
            await self._end()

    def fail(self, error: BaseException) -> None:
        """End with the first *error*, after yielding the results that are ready."""
        if self._failure is None:
            self._failure = error
        self._wake.set()

    def stop(self) -> None:
        """Pull nothing more; finish the items already pulled."""
        self._exhausted = True
        puller = self._puller
        # Otherwise a source that blocks would block the batch; it may also call this itself.
        if puller is not None and puller is not asyncio.current_task():
            puller.cancel()

    def _spawn_worker(self) -> None:
        """Start another worker, unless the source is exhausted."""
        if self._exhausted or len(self._workers) >= self._limit:
            return
        worker = asyncio.create_task(self._run())
        self._workers.add(worker)
        worker.add_done_callback(self._on_worker_done)

    def _on_worker_done(self, worker: asyncio.Task[None]) -> None:
        self._workers.discard(worker)
        if worker.cancelled():  # from outside, or the consumer has already left
            self.fail(asyncio.CancelledError())
        elif (error := worker.exception()) is not None:
            self.fail(error)
        self._wake.set()

    async def _run(self) -> None:
        """Process one item after another; start the next worker with the first."""
        first = True
        while not self._exhausted:
            if not self._room.try_acquire():
                await self._room.acquire()
            item = (
                self._pull() if self._pull_lock is None else await self._pull_async(self._pull_lock)
            )
            if self._exhausted:
                self._room.release()
                return
            index = self._pulled
            self._pulled += 1
            if first:
                # Not directly: eager tasks would nest each worker in the one that starts it.
                asyncio.get_running_loop().call_soon(self._spawn_worker)
            first = False
            self._deliver(index, await self._work(index, item))

    def _pull(self) -> Any:
        """Return the next item, or note that the source is exhausted."""
        if not self._exhausted:
            try:
                return next(self._items)
            except StopIteration:
                self._exhausted = True
            except Exception as error:  # noqa: BLE001 - raised to the consumer
                self._exhausted, self._source_error = True, error
        return None

    async def _pull_async(self, lock: asyncio.Lock) -> Any:
        """Return the next item of an async source, one worker at a time."""
        async with lock:
            if self._exhausted:  # an exhausted source may block when pulled again
                return None
            self._puller = puller = asyncio.current_task()
            try:
                return await anext(self._items)
            except asyncio.CancelledError as error:
                if puller is None or not puller.cancelling():  # raised by the source itself
                    self._exhausted, self._source_error = True, error
                elif not self._exhausted:
                    raise
                else:
                    puller.uncancel()  # cancelled by `stop`
            except StopAsyncIteration:
                self._exhausted = True
            except Exception as error:  # noqa: BLE001 - as above
                self._exhausted, self._source_error = True, error
            finally:
                self._puller = None
            return None

    def _deliver(self, index: int, result: R) -> None:
        if self._ordered:
            self._held[index] = result
            while self._next in self._held:
                self._ready.append(self._held.pop(self._next))
                self._next += 1
        else:
            self._ready.append(result)
        self._wake.set()

    async def _end(self) -> None:
        """Cancel the workers and wait until all have ended, however often this is cancelled."""
        self._exhausted = True  # even if a source swallows the cancellation
        for worker in self._workers:
            worker.cancel()
        if self._workers:
            try:
                await asyncio.wait(self._workers)
            except asyncio.CancelledError:
                await self._end()
                raise
