"""
Progress: values that add up at every moment, told often enough and not too often.
"""

from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from aireiter_async import (
    AsyncClient,
    BatchProgress,
    Ledger,
    Outcome,
    SubmitRequest,
    run_many,
    submit_many,
)
from aireiter_async._batch import _progress
from aireiter_async._batch._progress import Progress
from aireiter_async.testing import FakeService, Fault

Connect = Callable[..., AsyncClient]


def asked(count: int) -> list[SubmitRequest]:
    """
    Make requests.
    """
    return [SubmitRequest("nano_banana", {"n": n}) for n in range(count)]


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> list[BatchProgress]:
    """
    Let a batch report every change, and return where the reports are kept.
    """
    monkeypatch.setattr(_progress, "_INTERVAL", 0.0)
    return []


def check(reports: list[BatchProgress]) -> None:
    """
    Fail unless all that was pulled is in exactly one place, and nothing ever goes back.
    """
    for seen in reports:
        parts = seen.submitting, seen.outstanding, seen.done, seen.failed
        assert min(parts) >= 0
        assert sum(parts) == seen.pulled
    for name in ("pulled", "done", "failed", "credits_estimated", "credits_used", "seconds"):
        values = [getattr(seen, name) for seen in reports]
        assert values == sorted(values)


def test_reports_come_ten_times_a_second_and_at_the_end() -> None:
    """
    Of a thousand changes in a second eleven are told, the last one in any case.
    """
    now = 0.0
    told: list[BatchProgress] = []
    progress = Progress(None, told.append, lambda: now)
    for step in range(1001):
        now = step / 1024
        progress.done = step
        progress.tell()
    progress.tell(now=True)
    assert [seen.done for seen in told] == [0, *range(103, 1001, 103), 1000]
    assert told[-1].seconds == 1000 / 1024


def test_a_rate_and_an_end_are_known_once_something_ended() -> None:
    """
    The rate counts outcomes of both kinds; the end is known with the total and a rate.
    """
    seen = BatchProgress(total=100, done=15, failed=5, seconds=10)
    assert seen.rate == 2
    assert seen.expected_end == 40
    assert BatchProgress(total=100).rate == 0
    assert BatchProgress(total=100, seconds=10).expected_end is None
    assert BatchProgress(done=1, seconds=1).expected_end is None


@pytest.mark.parametrize("many", [submit_many, run_many])
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
    """
    At every report each request is submitting, outstanding, done or failed, and all in the end.
    """
    service.price = 2.0
    service.script("submit", Fault.failed(), Fault.bad_request("no"), Fault.lost_answer())
    requests = [*asked(30), 7, SubmitRequest("nano_banana", {"n": {1}})]
    for turn in range(3 if kept else 1):
        reports.clear()
        options: dict[str, Any] = {"on_progress": reports.append, "max_credits": limit}
        outcomes: list[Outcome] = []
        if many is run_many and turn:
            options |= {"download_to": tmp_path / "results", "window": 5}
        async with Ledger(tmp_path / "run.db") as ledger:
            if kept:
                options["ledger"] = ledger
            outcomes.extend([outcome async for outcome in many(client, requests, **options)])
        check(reports)
        last, done = reports[-1], sum(outcome.ok for outcome in outcomes)
        assert (last.total, last.pulled, last.done, last.failed) == (32, 32, done, 32 - done)
        if not turn:
            accepted = done + (many is run_many)
            assert last.credits_estimated == 2 * accepted
            assert last.credits_used == (2 * done if many is run_many else 0)


async def test_what_is_resumed_is_outstanding(
    service: FakeService, client: AsyncClient, reports: list[BatchProgress], tmp_path: Path
) -> None:
    """
    Tasks of an earlier run count as outstanding while they are waited for, with their credits.
    """
    service.price = 2.0
    async with Ledger(tmp_path / "run.db") as ledger:
        _ = [o async for o in submit_many(client, asked(5), ledger=ledger)]
        batch = run_many(client, asked(5), ledger=ledger, on_progress=reports.append)
        assert [outcome.ok async for outcome in batch] == [True] * 5
    check(reports)
    assert max(seen.outstanding for seen in reports) == 5
    assert (reports[-1].credits_estimated, reports[-1].credits_used) == (10, 10)


async def test_a_source_that_does_not_say_has_no_total(
    client: AsyncClient, reports: list[BatchProgress]
) -> None:
    """
    The total is known of a list, not of a generator.
    """
    for requests, total in [(asked(3), 3), ((request for request in asked(3)), None)]:
        batch = run_many(client, requests, on_progress=reports.append)
        _ = [outcome async for outcome in batch]
        assert reports[-1].total == total


async def test_the_last_report_comes_however_it_ends(
    client: AsyncClient, reports: list[BatchProgress]
) -> None:
    """
    Leaving the loop reports once more, with what is outstanding then.
    """
    batch = run_many(client, asked(50), window=8, on_progress=reports.append)
    async with aclosing(batch):
        async for _ in batch:
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
    """
    An error of the caller's callback reaches the caller, is no outcome, and is raised once.
    """
    outcomes: list[Outcome] = []

    def report(seen: BatchProgress) -> None:
        reports.append(seen)
        if len(reports) == at:
            raise error

    async def consume(ledger: Ledger | None) -> None:
        batch = run_many(client, asked(20), window=4, on_progress=report, ledger=ledger)
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
    """
    The last report may raise as well as any other.
    """
    monkeypatch.setattr(_progress, "_INTERVAL", 1e9)

    def report(seen: BatchProgress) -> None:
        if seen.done == 3:
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        _ = [o async for o in run_many(client, asked(3), on_progress=report)]
