"""
Many items through a bounded window: workers over one shared source.

No task per item, no item pulled before there is room for it, and nothing left
behind when the consumer goes: a million items cost what a window of them costs.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable
from typing import Any, Final, Generic, TypeVar

from aireiter_async._slots import Slots

T = TypeVar("T")
R = TypeVar("R")

_END: Final = object()


class Window(Generic[T, R]):
    """
    Works on the items of *source*, at most *size* of them at a time.

    Args:
        source: Any iterable or async iterable; read by one worker at a time.
        work: What is done with an item and its index, from 0.
        size: How many items may have been pulled and not yet been yielded.
        ordered: Whether results are yielded in the order of the items instead
            of as they come; at most *size* of them are held back.
    """

    def __init__(
        self,
        source: Iterable[T] | AsyncIterable[T],
        work: Callable[[int, T], Awaitable[R]],
        *,
        size: int,
        ordered: bool,
    ) -> None:
        self._pull = _puller(source)
        self._work = work
        self._size = size
        self._ordered = ordered
        self._room = Slots(size)
        self._workers: set[asyncio.Task[None]] = set()
        self._ready: deque[R] = deque()
        self._held: dict[int, R] = {}
        self._pulled = 0
        self._next = 0
        self._exhausted = False
        self._source_error: Exception | None = None
        self._failure: BaseException | None = None
        self._wake = asyncio.Event()

    async def results(self) -> AsyncGenerator[R, None]:
        """
        Yield what the work returns.

        When the source raises, what is under way is finished and yielded first.

        Raises:
            BaseException: What the source or the work has raised.
        """
        self._hire()
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

    def _hire(self) -> None:
        worker = asyncio.ensure_future(self._run())
        self._workers.add(worker)
        worker.add_done_callback(self._gone)

    def _gone(self, worker: asyncio.Task[None]) -> None:
        self._workers.discard(worker)
        if worker.cancelled():  # not by us, or nobody reads this any more
            failure: BaseException | None = asyncio.CancelledError()
        else:
            failure = worker.exception()
        self._failure = self._failure or failure
        self._wake.set()

    async def _run(self) -> None:
        """Work on one item after another; with its first, let the next worker begin."""
        first = True
        while True:
            await self._room.acquire()
            item = await self._take()
            if item is _END:
                self._room.release()
                return
            index = self._pulled
            self._pulled += 1
            if first and len(self._workers) < self._size:
                self._hire()
            first = False
            self._finish(index, await self._work(index, item))

    async def _take(self) -> Any:
        if self._exhausted:
            return _END
        try:
            item = await self._pull()
        except Exception as error:  # noqa: BLE001 - it is the caller's, and raised to the caller
            self._source_error = error
            item = _END
        if item is _END:
            self._exhausted = True
        return item

    def _finish(self, index: int, result: R) -> None:
        if self._ordered:
            self._held[index] = result
            while self._next in self._held:
                self._ready.append(self._held.pop(self._next))
                self._next += 1
        else:
            self._ready.append(result)
        self._wake.set()

    async def _end(self) -> None:
        for worker in self._workers:
            worker.cancel()
        if self._workers:
            await asyncio.wait(self._workers)


def _puller(source: Iterable[Any] | AsyncIterable[Any]) -> Callable[[], Awaitable[Any]]:
    """
    Make the function that pulls one item, or `_END`.

    Raises:
        TypeError: *source* is neither iterable nor async iterable.
    """
    if isinstance(source, AsyncIterable):
        waiting = aiter(source)
        turn = asyncio.Lock()  # an async generator does not bear two pulls at once

        async def pull_async() -> Any:
            async with turn:
                return await anext(waiting, _END)

        return pull_async
    if not isinstance(source, Iterable):
        raise TypeError(
            f"requests must be an iterable or an async iterable, got {type(source).__name__}"
        )
    items = iter(source)

    async def pull() -> Any:
        return next(items, _END)

    return pull
