"""Progress: values that add up at every moment, told often enough and not too often."""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import pytest

from aireiter_async import (
    AsyncClient,
    BatchProgress,
    Ledger,
    Outcome,
    PollPolicy,
    SubmitRequest,
)
from aireiter_async._batch import _progress
from aireiter_async._batch._progress import OnProgress, Progress, Stage
from aireiter_async.testing import FakeService, Fault

Connect = Callable[..., AsyncClient]
Until = Callable[[Callable[[], object]], Awaitable[None]]


def asked(count: int) -> list[SubmitRequest]:
    """Make requests."""
    return [SubmitRequest("nano_banana", {"n": n}) for n in range(count)]


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> list[BatchProgress]:
    """Let a batch report every change, and return where the reports are kept."""
    monkeypatch.setattr(_progress, "_INTERVAL", 0.0)
    return []


def unhappy(seen: BatchProgress) -> tuple[int, int]:
    """Return how many items have failed, or were not submitted."""
    return seen.failed, seen.not_submitted


def check(reports: list[BatchProgress]) -> None:
    """Fail unless all that was pulled is in exactly one place, and nothing ever goes back."""
    for seen in reports:
        parts = seen.preparing, seen.submitting, seen.outstanding, seen.succeeded, *unhappy(seen)
        assert min(parts) >= 0
        assert sum(parts) == seen.pulled
    for name in (
        "pulled",
        "succeeded",
        "failed",
        "not_submitted",
        "credits_estimated",
        "credits_used",
        "seconds",
    ):
        values = [getattr(seen, name) for seen in reports]
        assert values == sorted(values)


@attrs.define
class Timers:
    """A clock that stands still until it is put forward, and the timers that go by it."""

    now: float = 0.0
    set: list[tuple[float, Callable[[], None]]] = attrs.field(factory=list)

    def __call__(self) -> float:
        """Tell the time."""
        return self.now

    def call_later(self, seconds: float, call: Callable[[], None]) -> Any:
        """Set a timer."""
        timer = self.now + seconds, call
        self.set.append(timer)
        return SimpleNamespace(cancel=lambda: self.set.remove(timer))

    def go_on(self, now: float) -> None:
        """Put the clock forward, and call what is due on the way."""
        while self.set and self.set[0][0] <= now:
            self.now, call = self.set.pop(0)
            call()
        self.now = now


@attrs.define
class Step:
    """An item."""

    stage: Stage = "preparing"


def following(timers: Timers, report: OnProgress) -> Progress:
    """Make the progress of a batch that never fails."""
    return Progress(None, report, lambda error: pytest.fail(str(error)), timers, timers.call_later)


async def test_reports_come_ten_times_a_second_and_at_the_end() -> None:
    """Of a thousand changes in a second eleven are reported, each a tenth after the one before."""
    timers, told = Timers(), list[BatchProgress]()
    progress = following(timers, told.append)
    for step in range(1, 1002):
        timers.go_on((step - 1) / 1024)
        progress.move(Step(), "succeeded")
        assert len(timers.set) <= 1
    await progress.close()
    seconds = [round(seen.seconds, 9) for seen in told]
    assert seconds == [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1000 / 1024]
    assert told[-1].succeeded == 1001
    assert timers.set == []


async def test_a_change_soon_after_a_report_is_reported_when_nothing_follows() -> None:
    """The last change is reported a moment after it, once; without one no timer is set."""
    timers, told = Timers(), list[BatchProgress]()
    progress = following(timers, told.append)
    progress.move(Step(), "failed")
    timers.go_on(50)
    assert [seen.done for seen in told] == [1]
    for _ in range(3):
        progress.move(Step(), "failed")
    timers.go_on(50.05)
    assert [seen.done for seen in told] == [1, 2]
    timers.go_on(1000)
    assert [(seen.done, seen.seconds) for seen in told[2:]] == [(4, 50.1)]


async def test_an_async_callback_is_awaited_before_the_next_report(until: Until) -> None:
    """Reports do not overlap, and a change meanwhile is reported after it."""
    timers, told, go_on = Timers(), list[int](), asyncio.Event()

    async def report(seen: BatchProgress) -> None:
        await go_on.wait()
        told.append(seen.done)

    progress = following(timers, report)
    for _ in range(3):
        progress.move(Step(), "succeeded")
        timers.go_on(timers.now + 1)
    assert timers.set == []
    go_on.set()
    await until(lambda: told == [1, 3])
    await progress.close()
    assert told == [1, 3, 3]


@pytest.mark.parametrize("first", [False, True])
async def test_an_async_callback_is_cancelled_with_the_batch(
    client: AsyncClient, until: Until, *, first: bool
) -> None:
    """A callback that hangs, at the end or before, does not outlive a batch that is cancelled."""
    called: list[BatchProgress] = []

    async def report(seen: BatchProgress) -> None:
        called.append(seen)
        if first or seen.done == 3:
            await asyncio.Event().wait()

    async def consume() -> None:
        async for _ in client.run_many(asked(3), on_progress=report):
            pass

    running = asyncio.create_task(consume())
    await until(lambda: called and (first or called[-1].done == 3))
    while not running.done():  # the last report hangs, too
        running.cancel()
        await asyncio.sleep(0)
    assert running.cancelled()


@pytest.mark.parametrize("at", [1, 3])
async def test_an_async_callback_that_raises_ends_the_batch(client: AsyncClient, at: int) -> None:
    """Its error reaches whoever reads the outcomes, also that of the last report."""

    async def report(seen: BatchProgress) -> None:
        await asyncio.sleep(0)
        if seen.done >= at - 1:
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        _ = [o async for o in client.run_many(asked(3), on_progress=report, window=1)]


def test_a_rate_and_an_end_are_known_once_something_ended() -> None:
    """The rate counts outcomes of both kinds; the end is known with the total and a rate."""
    seen = BatchProgress(total=100, pulled=20, succeeded=14, failed=5, not_submitted=1, seconds=10)
    assert seen.rate == 2
    assert seen.expected_end == 40
    assert BatchProgress(total=100).rate == 0
    assert BatchProgress(total=100, seconds=10).expected_end is None
    assert BatchProgress(succeeded=1, seconds=1).expected_end is None


@pytest.mark.parametrize("many", [AsyncClient.submit_many, AsyncClient.run_many])
@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("limit", [None, 25])
async def test_the_values_add_up(
    service: FakeService,
    client: AsyncClient,
    reports: list[BatchProgress],
    tmp_path: Path,
    many: Any,
    limit: float | None,
    *,
    kept: bool,
) -> None:
    service.price = 2.0
    service.script("submit", Fault.failed(), Fault.bad_request("no"), Fault.lost_response())
    requests: list[Any] = [*asked(30), 7, None]
    for turn in range(3 if kept else 1):
        reports.clear()
        options: dict[str, Any] = {"on_progress": reports.append, "max_credits": limit}
        outcomes: list[Outcome[Any]] = []
        if many is AsyncClient.run_many and turn:
            options |= {"download_to": tmp_path / "results", "window": 5}
        async with Ledger(tmp_path / "run.db") as ledger:
            if kept:
                options["ledger"] = ledger
            outcomes.extend([outcome async for outcome in many(client, requests, **options)])
        check(reports)
        last, done = reports[-1], sum(outcome.ok for outcome in outcomes)
        assert (last.total, last.pulled, last.succeeded, last.done) == (32, 32, done, 32)
        assert bool(last.not_submitted) is (limit is not None)
        if not turn:
            accepted = done + (many is AsyncClient.run_many)
            assert last.credits_estimated == 2 * accepted
            assert last.credits_used == (2 * done if many is AsyncClient.run_many else 0)


async def test_what_is_resumed_is_outstanding(
    service: FakeService, client: AsyncClient, reports: list[BatchProgress], tmp_path: Path
) -> None:
    service.price = 2.0
    async with Ledger(tmp_path / "run.db") as ledger:
        _ = [o async for o in client.submit_many(asked(5), ledger=ledger)]
        batch = client.run_many(asked(5), ledger=ledger, on_progress=reports.append)
        assert [outcome.ok async for outcome in batch] == [True] * 5
    check(reports)
    assert max(seen.outstanding for seen in reports) > 0
    assert (reports[-1].credits_estimated, reports[-1].credits_used) == (10, 10)


async def test_what_is_downloaded_again_is_outstanding(
    client: AsyncClient, reports: list[BatchProgress], tmp_path: Path
) -> None:
    async with Ledger(tmp_path / "run.db") as ledger:
        _ = [o async for o in client.run_many(asked(5), ledger=ledger)]
        saving = partial(
            AsyncClient.run_many, client, asked(5), ledger=ledger, download_to=tmp_path
        )
        _ = [o async for o in saving(on_progress=reports.append)]
        finished: list[BatchProgress] = []
        _ = [o async for o in saving(on_progress=finished.append)]
    check(reports)
    assert max(seen.outstanding for seen in reports) > 0
    assert {seen.submitting for seen in reports} == {0}
    assert (reports[-1].credits_estimated, reports[-1].credits_used) == (0, 0)
    assert {seen.outstanding for seen in finished} == {0}


async def test_a_source_that_does_not_say_has_no_total(
    client: AsyncClient, reports: list[BatchProgress]
) -> None:
    """The total is known of a list, not of a generator."""
    for requests, total in [(asked(3), 3), ((request for request in asked(3)), None)]:
        batch = client.run_many(requests, on_progress=reports.append)
        _ = [outcome async for outcome in batch]
        assert reports[-1].total == total


async def test_the_last_report_comes_however_it_ends(
    client: AsyncClient, reports: list[BatchProgress]
) -> None:
    """Leaving the loop reports once more, with what is outstanding then."""
    batch = client.run_many(asked(50), window=8, on_progress=reports.append)
    async with aclosing(batch):
        async for _ in batch:  # pragma: no branch
            count = len(reports)
            break
    assert len(reports) > count
    check(reports)
    assert reports[-1].submitting + reports[-1].outstanding > 0


@pytest.mark.parametrize("error", [ValueError("mine"), OSError("mine")])
@pytest.mark.parametrize("at", [1, 2, 5, 10])
async def test_a_callback_that_raises_ends_the_batch(
    client: AsyncClient,
    reports: list[BatchProgress],
    tmp_path: Path,
    at: int,
    error: Exception,
) -> None:
    """An error of the caller's callback reaches the caller, is no outcome, and is raised once."""
    outcomes: list[Outcome[Any]] = []

    def report(seen: BatchProgress) -> None:
        reports.append(seen)
        if len(reports) == at:
            raise error

    async def consume(ledger: Ledger | None) -> None:
        batch = client.run_many(asked(20), window=4, on_progress=report, ledger=ledger)
        async for outcome in batch:
            outcomes.append(outcome)  # noqa: PERF401 - it raises in the end

    with pytest.raises(type(error), match="mine"):
        await consume(None)
    assert len(reports) == at
    reports.clear()
    async with Ledger(tmp_path / "run.db") as ledger:
        with pytest.raises(type(error), match="mine"):
            await consume(ledger)
    assert all(outcome.ok for outcome in outcomes)


async def test_an_error_of_the_callback_at_the_end_is_raised(
    client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last report may raise as well as any other."""
    monkeypatch.setattr(_progress, "_INTERVAL", 1e9)

    def report(seen: BatchProgress) -> None:
        if seen.succeeded == 3:
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        _ = [o async for o in client.run_many(asked(3), on_progress=report)]


@pytest.fixture
async def patient(service: FakeService) -> AsyncIterator[AsyncClient]:
    """Make a client that looks for no task for days, of a service whose tasks do not end."""
    service.durations = 1e9
    polling = PollPolicy(first=1e6, step=1e6, cap=1e6)
    async with AsyncClient(service.api_key, base_url=service.url, polling=polling) as client:
        yield client
        assert client.stats.in_flight == 0


async def test_a_batch_that_waits_has_told_of_all_it_waits_for(
    patient: AsyncClient, until: Until
) -> None:
    reports: list[BatchProgress] = []
    async with aclosing(patient.run_many(asked(8), on_progress=reports.append)) as batch:
        outcome = asyncio.ensure_future(anext(batch))
        await until(lambda: reports and reports[-1].outstanding == 8)
        count = len(reports)
        outcome.cancel()
        await asyncio.wait([outcome])
    check(reports)
    assert len(reports) == count + 1  # the end


@pytest.mark.parametrize("fault", [Fault.ok(), Fault.bad_request("no")])
async def test_an_outcome_is_told_though_nothing_follows_it(
    service: FakeService, client: AsyncClient, until: Until, fault: Fault
) -> None:
    """While the source has nothing to give, the last report is of the last outcome."""
    service.script("submit", fault)
    reports: list[BatchProgress] = []

    async def source() -> AsyncIterator[SubmitRequest]:
        yield asked(1)[0]
        await asyncio.Event().wait()

    async with aclosing(client.submit_many(source(), on_progress=reports.append)) as batch:
        outcome = await anext(batch)
        await until(lambda: reports[-1].done == 1)
        assert (reports[-1].succeeded, reports[-1].failed) == (outcome.ok, not outcome.ok)


class Unruly:
    """A callback that raises once eight tasks are outstanding, and is not to be called after that.

    Args:
        error: What it raises.
    """

    def __init__(self, error: BaseException) -> None:
        self.raised = False
        self._error = error

    def __call__(self, seen: BatchProgress) -> None:
        """Raise if it is time."""
        assert not self.raised
        if seen.outstanding == 8:
            self.raised = True
            raise self._error


@pytest.mark.parametrize("error", [ValueError("mine"), asyncio.CancelledError("mine")])
@pytest.mark.parametrize("how", ["waiting", "asking", "closing"])
async def test_a_late_report_that_raises_reaches_the_consumer(
    service: FakeService, patient: AsyncClient, until: Until, how: str, error: BaseException
) -> None:
    """What a report raises while nobody has asked for it ends the batch, and is not lost."""
    service.script("submit", Fault.bad_request("no"))
    report = Unruly(error)
    batch = patient.run_many(asked(9), on_progress=report)
    assert not (await anext(batch)).ok
    if how != "waiting":
        await until(lambda: report.raised)
    with pytest.raises(type(error), match="mine"):
        await (batch.aclose() if how == "closing" else anext(batch))
    assert report.raised
    assert [outcome async for outcome in batch] == []


async def test_a_batch_that_is_dropped_tells_of_its_end(
    service: FakeService, patient: AsyncClient, until: Until
) -> None:
    """A batch that nobody closes tells of its end once, with what is outstanding then."""
    service.script("submit", Fault.bad_request("no"))
    reports: list[BatchProgress] = []
    batch = patient.run_many(asked(9), on_progress=reports.append)
    await anext(batch)
    await until(lambda: reports[-1].outstanding == 8)
    count = len(reports)
    del batch
    await until(lambda: len(reports) > count)
    assert (len(reports), reports[-1].outstanding) == (count + 1, 8)


def test_an_interrupt_in_a_report_leaves_no_task(caplog: pytest.LogCaptureFixture) -> None:
    """Ctrl-C that strikes in a report ends the program with nothing left pending."""
    reports: list[BatchProgress] = []

    def report(seen: BatchProgress) -> None:
        reports.append(seen)
        if seen.outstanding == 8:
            raise KeyboardInterrupt

    async def main() -> None:
        polling = PollPolicy(first=1e6)
        async with (
            FakeService(durations=1e9) as service,
            AsyncClient(service.api_key, base_url=service.url, polling=polling) as client,
        ):
            _ = [outcome async for outcome in client.run_many(asked(8), on_progress=report)]

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    gc.collect()
    assert reports[-1].outstanding == 8
    assert [record for record in caplog.records if record.name == "asyncio"] == []
