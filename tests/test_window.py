"""
The window: never more pulled than there is room for, and nothing left behind.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from typing import Any

import pytest

from aireiter_async._batch._window import Window

Work = Callable[[int, int], Awaitable[int]]


class Source:
    """
    Numbers from 0 that count how many of them were pulled, and may end in an error.
    """

    def __init__(self, count: int, error: Exception | None = None) -> None:
        self.pulled = 0
        self.pulling = 0
        self._count = count
        self._error = error

    def sync(self) -> Iterator[int]:
        """
        Give them at once.
        """
        while self.pulled < self._count:
            self.pulled += 1
            yield self.pulled - 1
        if self._error is not None:
            raise self._error

    async def slow(self) -> AsyncGenerator[int, None]:
        """
        Give each after a turn of the loop, and notice who pulls while another one does.
        """
        for number in self.sync():
            self.pulling += 1
            await asyncio.sleep(0)
            assert self.pulling == 1
            self.pulling -= 1
            yield number

    def open(self, kind: str) -> Any:
        """
        Give them as an iterable or as an async iterable.
        """
        return self.sync() if kind == "sync" else self.slow()


class Pool:
    """
    Work that takes turns of the loop, longer for earlier items, and counts who does it.
    """

    def __init__(self, turns: Callable[[int], int] = lambda n: 7 - n % 7) -> None:
        self.running = 0
        self.most = 0
        self.workers: set[Any] = set()
        self._turns = turns

    async def work(self, index: int, item: int) -> int:
        """
        Return the item.
        """
        assert index == item
        self.workers.add(asyncio.current_task())
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            for _ in range(self._turns(item)):
                await asyncio.sleep(0)
        finally:
            self.running -= 1
        return item


def window(source: Any, work: Work, size: int = 4, *, ordered: bool = False) -> Window[int, int]:
    """
    Make a window.
    """
    return Window(source, work, size=size, ordered=ordered)


KINDS = pytest.mark.parametrize("kind", ["sync", "async"])
ORDERS = pytest.mark.parametrize("ordered", [False, True])


@KINDS
@ORDERS
@pytest.mark.parametrize("size", [1, 2, 5, 1000])
async def test_no_more_is_pulled_than_there_is_room_for(
    kind: str, size: int, *, ordered: bool
) -> None:
    """
    At every yield at most *size* items more were pulled than yielded; all of them come, once.
    """
    source, pool = Source(60), Pool()
    results: list[int] = []
    async for result in window(source.open(kind), pool.work, size, ordered=ordered).results():
        results.append(result)
        assert source.pulled <= len(results) + size
    assert (results if ordered else sorted(results)) == list(range(60))
    assert pool.most <= size
    assert len(pool.workers) <= min(size, 60)


@KINDS
async def test_few_items_have_few_workers(kind: str) -> None:
    """
    A wide window over few items hires a worker for each, and one that finds the end.
    """
    source, pool = Source(3), Pool(lambda _: 20)
    made = window(source.open(kind), pool.work, 1000)
    hired = 0
    async for _ in made.results():
        hired = max(hired, len(made._workers))
    assert pool.most == 3
    assert hired <= 4


async def test_results_come_as_they_end() -> None:
    """
    Without an order the quickest item is yielded first.
    """
    pool = Pool(lambda n: 20 - 5 * n)
    results = [result async for result in window(range(4), pool.work).results()]
    assert results == [3, 2, 1, 0]


async def test_what_is_held_back_is_bounded() -> None:
    """
    In order, a slow first item holds back no more than the window, and pulling stops there.
    """
    go_on = asyncio.Event()
    source = Source(100)

    async def work(index: int, item: int) -> int:
        if not index:
            await go_on.wait()
        return item

    made = window(source.sync(), work, 5, ordered=True)
    async with aclosing(made.results()) as results:
        first = asyncio.ensure_future(anext(results))
        for _ in range(20):
            await asyncio.sleep(0)
        assert source.pulled == 5
        assert len(made._held) == 4
        go_on.set()
        assert await first == 0
        assert [number async for number in results] == list(range(1, 100))


@KINDS
@ORDERS
async def test_a_source_that_raises_is_heard_after_its_items(kind: str, *, ordered: bool) -> None:
    """
    What was pulled before the source raised is yielded first, then the error is raised.
    """
    source, pool = Source(9, ZeroDivisionError("mine")), Pool()
    results: list[int] = []

    async def consume() -> None:
        async for result in window(source.open(kind), pool.work, ordered=ordered).results():
            results.append(result)  # noqa: PERF401 - it raises in the end

    with pytest.raises(ZeroDivisionError, match="mine"):
        await consume()
    assert sorted(results) == list(range(9))


@KINDS
@ORDERS
async def test_work_that_raises_ends_it(kind: str, *, ordered: bool) -> None:
    """
    An error of the work reaches the consumer, after what is ready, and ends the workers.
    """
    source, pool = Source(1000), Pool()

    async def work(index: int, item: int) -> int:
        if index in {10, 11}:
            raise ZeroDivisionError(str(index))
        return await pool.work(index, item)

    with pytest.raises(ZeroDivisionError, match=r"1[01]"):
        _ = [n async for n in window(source.open(kind), work, ordered=ordered).results()]
    assert pool.running == 0
    assert source.pulled < 20


@pytest.mark.parametrize("where", ["source", "work"])
async def test_a_cancelled_worker_is_no_end(where: str) -> None:
    """
    A source or a work that is cancelled from within ends in CancelledError, not in fewer results.
    """

    async def numbers() -> AsyncIterator[int]:
        for number in range(4):
            yield number
        if where == "source":
            raise asyncio.CancelledError

    async def work(_index: int, item: int) -> int:
        if where == "work" and item == 3:
            raise asyncio.CancelledError
        return item

    with pytest.raises(asyncio.CancelledError):
        _ = [n async for n in window(numbers(), work).results()]


@KINDS
@ORDERS
async def test_leaving_ends_the_workers(kind: str, *, ordered: bool) -> None:
    """
    When the block around it is left, no worker runs and nothing more is pulled.
    """
    source, pool = Source(1000), Pool()
    numbers = source.open(kind)
    results = window(numbers, pool.work, ordered=ordered).results()
    async with aclosing(results):
        while await anext(results) < 20:
            pass
    assert pool.running == 0
    assert len(asyncio.all_tasks()) == 1
    assert source.pulled < 40


async def test_leaving_without_closing_ends_the_workers_too() -> None:
    """
    A batch that is simply dropped lets the workers go within a few turns of the event loop.
    """
    pool = Pool()
    results = window(range(1000), pool.work).results()
    await anext(results)
    del results
    for _ in range(5):
        await asyncio.sleep(0)
    assert pool.running == 0
    assert len(asyncio.all_tasks()) == 1


async def test_a_consumer_that_raises_ends_the_workers() -> None:
    """
    An error of the consumer reaches its caller, and no worker is left.
    """
    pool = Pool()

    async def consume() -> None:
        async with aclosing(window(range(1000), pool.work).results()) as results:
            await anext(results)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await consume()
    assert pool.running == 0


@KINDS
@ORDERS
async def test_a_cancelled_consumer_leaves_nothing(kind: str, *, ordered: bool) -> None:
    """
    Cancelled at whatever turn of the loop, the consumer ends at once and so do the workers.
    """
    turns = 0
    while True:
        source, pool = Source(12), Pool()
        results: list[int] = []

        async def consume(source: Source, pool: Pool, results: list[int]) -> None:
            made = window(source.open(kind), pool.work, 3, ordered=ordered)
            async with aclosing(made.results()) as numbers:
                async for number in numbers:
                    results.append(number)
                    await asyncio.sleep(0)

        consumer = asyncio.create_task(consume(source, pool, results))
        for _ in range(turns):
            await asyncio.sleep(0)
        consumer.cancel()
        await asyncio.wait([consumer])
        assert pool.running == 0
        assert len(asyncio.all_tasks()) == 1
        if not consumer.cancelled():
            break
        assert source.pulled <= len(results) + 4
        turns += 1
    assert turns > 12
    assert sorted(results) == list(range(12))


@KINDS
async def test_a_slow_consumer_slows_the_pulling(kind: str) -> None:
    """
    While the consumer does not ask, no more than the window is pulled, whatever time passes.
    """
    source, pool = Source(1000), Pool(lambda _: 0)
    async with aclosing(window(source.open(kind), pool.work, 6).results()) as results:
        for taken in range(1, 20):
            await anext(results)
            for _ in range(50):
                await asyncio.sleep(0)
            assert source.pulled == taken + 6


@KINDS
@ORDERS
async def test_an_empty_source_yields_nothing(kind: str, *, ordered: bool) -> None:
    """
    No items make no results.
    """
    source, pool = Source(0), Pool()
    made = window(source.open(kind), pool.work, ordered=ordered)
    assert [n async for n in made.results()] == []


@pytest.mark.parametrize("source", [None, 7, object()])
def test_what_cannot_be_iterated_is_refused(source: Any) -> None:
    """
    A source that is no iterable is a TypeError at once, without an event loop.
    """
    with pytest.raises(TypeError, match="must be an iterable or an async iterable, got"):
        window(source, Pool().work)
