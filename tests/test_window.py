"""The window: never more pulled than there is room for, and nothing left behind."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, suppress
from typing import Any

import pytest

from aireiter_async._batch._window import Window

Work = Callable[[int, int], Awaitable[int]]


class Source:
    """Numbers from 0 that count how many of them were pulled, and may end in an error."""

    def __init__(self, count: int, error: Exception | None = None) -> None:
        self.pulled = 0
        self.pulling = 0
        self._count = count
        self._error = error

    def sync(self) -> Iterator[int]:
        """Give them at once."""
        while self.pulled < self._count:
            self.pulled += 1
            yield self.pulled - 1
        if self._error is not None:
            raise self._error

    async def slow(self) -> AsyncGenerator[int, None]:
        """Give each after a turn of the loop, and notice who pulls while another one does."""
        for number in self.sync():
            self.pulling += 1
            await asyncio.sleep(0)
            assert self.pulling == 1
            self.pulling -= 1
            yield number

    def open(self, kind: str) -> Any:
        """Give them as an iterable or as an async iterable."""
        return self.sync() if kind == "sync" else self.slow()


class Pool:
    """Work that takes turns of the loop, longer for earlier items, and counts who does it."""

    def __init__(self, turns: Callable[[int], int] = lambda n: 7 - n % 7) -> None:
        self.running = 0
        self.most = 0
        self.workers: set[Any] = set()
        self._turns = turns

    async def work(self, index: int, item: int) -> int:
        """Return the item."""
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


def window(
    source: Any, work: Work, size: int = 4, *, workers: int | None = None, ordered: bool = False
) -> Window[int, int]:
    """Make a window, with as many workers as there is room for unless told otherwise."""
    return Window(source, work, size=size, workers=workers or size, ordered=ordered)


KINDS = pytest.mark.parametrize("kind", ["sync", "async"])
ORDERS = pytest.mark.parametrize("ordered", [False, True])


@KINDS
@ORDERS
@pytest.mark.parametrize("size", [1, 2, 5, 1000])
async def test_no_more_is_pulled_than_there_is_room_for(
    kind: str, size: int, *, ordered: bool
) -> None:
    """At every yield at most *size* items more were pulled than yielded; all of them come, once."""
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
    """A wide window over few items hires a worker for each, and one that finds the end."""
    source, pool = Source(3), Pool(lambda _: 20)
    made = window(source.open(kind), pool.work, 1000)
    hired = 0
    async for _ in made.results():
        hired = max(hired, len(made._workers))
    assert pool.most == 3
    assert hired <= 4


@KINDS
@ORDERS
async def test_fewer_workers_than_room(kind: str, *, ordered: bool) -> None:
    """Workers continue while their results wait for the consumer, as long as there is room."""
    source, pool = Source(60), Pool()
    made = window(source.open(kind), pool.work, 9, workers=3, ordered=ordered)
    async with aclosing(made.results()) as results:
        await anext(results)
        for _ in range(100):
            await asyncio.sleep(0)
        assert (source.pulled, pool.running) == (10, 0)
        assert len([n async for n in results]) == 59
    assert pool.most == len(pool.workers) == 3


async def test_all_workers_go_at_the_end_of_the_source() -> None:
    """Once one worker has found the end, none waits for the consumer to make room."""
    source = Source(5)
    made = window(source.sync(), Pool(lambda _: 1).work, 4)
    async with aclosing(made.results()) as results:
        for workers in (3, 0):  # the room of the first goes to the fifth, of the second to nobody
            await anext(results)
            for _ in range(20):
                await asyncio.sleep(0)
            assert (source.pulled, len(made._workers)) == (5, workers)
        assert len([n async for n in results]) == 3


async def test_results_come_as_they_end() -> None:
    """Without an order the quickest item is yielded first."""
    pool = Pool(lambda n: 20 - 5 * n)
    results = [result async for result in window(range(4), pool.work).results()]
    assert results == [3, 2, 1, 0]


async def test_what_is_held_back_is_bounded() -> None:
    """In order, a slow first item holds back no more than the window, and pulling stops there."""
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
    """What was pulled before the source raised is yielded first, then the error is raised."""
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
    """An error of the work reaches the consumer, after what is ready, and ends the workers."""
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
    """A source or worker cancelled from within raises CancelledError; no result is dropped."""

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
    """When the block around it is left, no worker runs and nothing more is pulled."""
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
    """A batch that is simply dropped lets the workers go within a few turns of the event loop."""
    pool = Pool()
    results = window(range(1000), pool.work).results()
    await anext(results)
    del results
    for _ in range(5):
        await asyncio.sleep(0)
    assert pool.running == 0
    assert len(asyncio.all_tasks()) == 1


async def test_a_consumer_that_raises_ends_the_workers() -> None:
    """An error of the consumer reaches its caller, and no worker is left."""
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
    """Cancelled at whatever turn of the loop, the consumer ends at once and so do the workers."""
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


class Stubborn(Pool):
    """Work that takes some turns of the loop to end when it is cancelled, however often it is."""

    async def work(self, index: int, item: int) -> int:
        """Work, and end slowly."""
        self.running += 1
        try:
            return await super().work(index, item)
        finally:
            for _ in range(3):
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(0)
            self.running -= 1


@KINDS
@pytest.mark.parametrize("how", ["cancel", "close"])
@pytest.mark.parametrize("first", range(0, 12, 2))
async def test_a_cancellation_while_the_workers_end(kind: str, how: str, first: int) -> None:
    """However often it is cancelled, the consumer never ends before its workers."""
    for second in range(1, 9):
        source, pool = Source(1000), Stubborn(lambda _: 2)
        results = window(source.open(kind), pool.work, 3).results()
        await anext(results)
        for _ in range(first):
            await asyncio.sleep(0)
        leaving = asyncio.create_task(results.aclose() if how == "close" else drain(results))
        for _ in range(second):
            await asyncio.sleep(0)
            leaving.cancel()
        await asyncio.wait([leaving])
        assert pool.running == 0
        assert len(asyncio.all_tasks()) == 1
        assert leaving.cancelled()


async def drain(results: AsyncGenerator[int, None]) -> None:
    """Read what comes, and close it."""
    async with aclosing(results):
        async for _ in results:
            pass


async def test_a_source_that_swallows_the_cancellation_ends_all_the_same() -> None:
    """Items that a source yields after the batch was left are not processed."""
    seen: list[int] = []

    async def numbers() -> AsyncIterator[int]:
        yield 0
        while True:
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            yield 1

    async def work(_index: int, item: int) -> int:
        seen.append(item)
        return item

    async with aclosing(window(numbers(), work).results()) as results:
        assert await anext(results) == 0
    assert seen == [0]
    assert len(asyncio.all_tasks()) == 1


async def test_work_that_swallows_the_cancellation_is_the_last() -> None:
    """A worker that finishes its item although it was cancelled takes no other one."""
    source, begun = Source(1000), asyncio.Event()

    async def work(_index: int, item: int) -> int:
        begun.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return item

    running = asyncio.create_task(drain(window(source.sync(), work, 1).results()))
    await begun.wait()
    running.cancel()
    await asyncio.wait([running])
    assert source.pulled == 1
    assert len(asyncio.all_tasks()) == 1


async def test_a_source_that_blocks_when_cancelled_is_cancelled_again() -> None:
    """Whoever will not wait for a source that cleans up may cancel the batch a second time."""
    cleaning = asyncio.Event()

    async def numbers() -> AsyncIterator[int]:
        try:
            await asyncio.Event().wait()
        finally:
            cleaning.set()
            await asyncio.Event().wait()
        yield 0  # pragma: no cover - it makes a generator of it

    running = asyncio.create_task(drain(window(numbers(), Pool().work).results()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    running.cancel()
    await cleaning.wait()
    assert not running.done()
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()


@pytest.mark.parametrize("error", [None, ZeroDivisionError("mine")])
async def test_a_source_is_not_asked_again_after_its_end(error: Exception | None) -> None:
    """A source that blocks when read past its end, like a queue, still ends the batch."""
    queue: asyncio.Queue[int | None] = asyncio.Queue()

    class Numbers:
        def __aiter__(self) -> AsyncIterator[int]:
            return self

        async def __anext__(self) -> int:
            number = await queue.get()
            if number is None:
                raise error or StopAsyncIteration
            return number

    for number in range(3):
        queue.put_nowait(number)
    results: list[int] = []

    async def consume() -> None:
        async for number in window(Numbers(), Pool().work).results():
            results.append(number)
            if (
                len(results) == 3
            ):  # soon one worker waits for the next, and the others for their turn
                asyncio.get_running_loop().call_later(0, queue.put_nowait, None)

    async with asyncio.timeout(60):
        if error is None:
            await consume()
        else:
            with pytest.raises(ZeroDivisionError):
                await consume()
    assert sorted(results) == [0, 1, 2]


async def test_a_source_stays_open() -> None:
    """What was not pulled is the caller's: a generator continues after the batch was left."""
    source, pool = Source(100), Pool()
    numbers = source.sync()
    async with aclosing(window(numbers, pool.work).results()) as results:
        await anext(results)
    pulled = source.pulled
    assert list(numbers) == list(range(pulled, 100))


async def test_a_failure_from_outside_comes_after_what_is_ready() -> None:
    """Of the errors that the window is notified of the first is raised, and the workers end."""
    pool = Pool(lambda _: 0)
    made = window(range(1000), pool.work)
    results: list[int] = []

    async def consume() -> None:
        async for number in made.results():
            results.append(number)
            made.fail(ZeroDivisionError("mine"))
            made.fail(ValueError("another"))

    with pytest.raises(ZeroDivisionError, match="mine"):
        await consume()
    assert 0 < len(results) <= 4
    assert len(asyncio.all_tasks()) == 1


@KINDS
async def test_a_slow_consumer_slows_the_pulling(kind: str) -> None:
    """While the consumer does not ask, no more than the window is pulled, whatever time passes."""
    source, pool = Source(1000), Pool(lambda _: 0)
    async with aclosing(window(source.open(kind), pool.work, 6).results()) as results:
        for taken in range(1, 20):
            await anext(results)
            for _ in range(50):
                await asyncio.sleep(0)
            assert source.pulled == taken + 6


@pytest.mark.parametrize("ends", [False, True])
async def test_a_source_may_stop_its_own_batch(*, ends: bool) -> None:
    """What it has given by then is finished; it need not await anything afterwards."""

    async def source() -> AsyncGenerator[int, None]:
        for number in range(100):
            if number == 5:
                made.stop()
                if ends:
                    return
            yield number

    made = window(source(), Pool().work)
    assert sorted([n async for n in made.results()]) == [0, 1, 2, 3, 4]


async def test_a_source_that_was_cancelled_elsewhere_ends_after_its_results() -> None:
    async def source() -> AsyncGenerator[int, None]:
        for number in range(5):
            yield number
        task = asyncio.create_task(asyncio.Event().wait())
        task.cancel()
        await task

    results: list[int] = []

    async def take() -> None:
        async for number in window(source(), Pool().work).results():
            results.append(number)  # noqa: PERF401 - the error comes after them

    with pytest.raises(asyncio.CancelledError):
        await take()
    assert sorted(results) == [0, 1, 2, 3, 4]


async def test_a_worker_that_is_cancelled_from_outside_ends_the_window() -> None:
    """As all tasks are when the loop shuts down."""

    async def source() -> AsyncGenerator[int, None]:
        yield 0
        await asyncio.Event().wait()

    async with aclosing(window(source(), Pool().work).results()) as results:
        assert await anext(results) == 0
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await anext(results)


@KINDS
@ORDERS
async def test_an_empty_source_yields_nothing(kind: str, *, ordered: bool) -> None:
    """No items make no results."""
    source, pool = Source(0), Pool()
    made = window(source.open(kind), pool.work, ordered=ordered)
    assert [n async for n in made.results()] == []


@pytest.mark.parametrize("source", [None, 7, object()])
def test_what_cannot_be_iterated_is_rejected(source: Any) -> None:
    """A source that is no iterable is a TypeError at once, without an event loop."""
    with pytest.raises(TypeError, match="must be an iterable or an async iterable, got"):
        window(source, Pool().work)


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="new in Python 3.12")
@KINDS
async def test_eager_tasks(kind: str) -> None:  # pragma: no cover - from Python 3.12 on
    """With eager tasks, a wide window neither recurses deeply nor exceeds its worker limit."""
    asyncio.get_running_loop().set_task_factory(getattr(asyncio, "eager_task_factory"))  # noqa: B009
    source, pool = Source(3000), Pool(lambda _: 2)
    made = window(source.open(kind), pool.work, 1000)
    assert sorted([n async for n in made.results()]) == list(range(3000))
    assert pool.most <= 1000
    asyncio.get_running_loop().set_task_factory(None)
