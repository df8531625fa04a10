"""Batches that stop submitting, or pause: the account, the disk, an outage, the budget."""

import asyncio
import errno
import os
import shutil
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aireiter_async import (
    AmbiguousSubmitError,
    AsyncClient,
    AuthenticationError,
    BudgetExceededError,
    ConnectError,
    DownloadError,
    InsufficientCreditsError,
    Ledger,
    LedgerError,
    NotSubmittedError,
    PollPolicy,
    RetryPolicy,
    SubmitRequest,
)
from aireiter_async._client import Clock
from aireiter_async._ledger import journal_of
from aireiter_async.testing import FakeService, Fault
from tests.full_disk import full_disk

Connect = Callable[..., AsyncClient]
Until = Callable[[Callable[[], object]], Awaitable[None]]

SUBMIT = "/api/openapi/submit"


def asked(count: int) -> list[SubmitRequest]:
    return [SubmitRequest("m", {"n": n}, f"t-{n:04d}") for n in range(count)]


class Source:
    """Requests, and how many of them were pulled."""

    def __init__(self, count: int) -> None:
        self.pulled = 0
        self._count = count

    def __iter__(self) -> Iterator[SubmitRequest]:
        for request in asked(self._count):
            self.pulled += 1
            yield request


@pytest.mark.parametrize("many", [AsyncClient.submit_many, AsyncClient.run_many])
@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("limit", [None, 1e6])
async def test_a_batch_stops_when_the_credits_are_used_up(
    connect: Connect, tmp_path: Path, many: Any, limit: float | None, *, kept: bool
) -> None:
    """Nothing more is pulled or sent, and once the account is topped up the same batch goes on."""
    async with FakeService(credits=5.0) as service, Ledger(tmp_path / "run.db") as ledger:
        client = connect(api_key=service.api_key, base_url=service.url, max_concurrency=4)
        source = Source(1000)
        options: dict[str, Any] = {"ledger": ledger if kept else None, "max_credits": limit}
        async with many(client, source, **options) as batch:
            outcomes = [outcome async for outcome in batch]
            progress = batch.progress
        assert isinstance(batch.stopped, InsufficientCreditsError)
        assert service.counts[SUBMIT] <= 5 + 4
        assert len(outcomes) == source.pulled < 400
        done = [outcome for outcome in outcomes if outcome.ok]
        assert len(done) == progress.succeeded == len(service.charges) == 5
        assert (progress.failed, progress.not_submitted) == (0, len(outcomes) - 5)
        kinds = {type(outcome.error) for outcome in outcomes if not outcome.ok}
        assert kinds <= {InsufficientCreditsError, NotSubmittedError}
        if not kept:
            return
        unsent = [outcome for outcome in outcomes if type(outcome.error) is NotSubmittedError]
        assert str(unsent[0].error).startswith("the batch has stopped: ")
        assert unsent[0].error.__cause__ is batch.stopped
        assert sum((await ledger.counts()).values()) == 5
        service.credits = 1000
        outcomes = [outcome async for outcome in many(client, asked(50), **options)]
        assert [outcome.ok for outcome in outcomes] == [True] * 50
        assert sum(outcome.resumed for outcome in outcomes) == 5
        assert len(service.charges) == 50


async def test_a_wrong_key_stops_a_batch_at_once(service: FakeService, connect: Connect) -> None:
    batch = connect(api_key="sk-other", max_concurrency=2).run_many(asked(500))
    outcomes = [outcome async for outcome in batch]
    assert isinstance(batch.stopped, AuthenticationError)
    assert len(outcomes) < 300
    assert len(service.requests) <= 2
    assert batch.progress.not_submitted == len(outcomes)


async def test_a_forbidden_request_is_its_own_failure(
    service: FakeService, client: AsyncClient
) -> None:
    """A 403 may be a CDN's word about one request: the others are submitted."""
    body = '{"error": {"code": 403, "message": "no"}}'
    service.script("submit", Fault.ok(), Fault.reply(403, body))
    batch = client.run_many(asked(5), window=1)
    assert [outcome.ok async for outcome in batch] == [True, False, True, True, True]
    assert batch.stopped is None


class Guarded:
    """A sink that may not write."""

    async def put(self, *_: Any, **__: Any) -> str:
        raise PermissionError(errno.EACCES, "Permission denied")


async def test_a_place_that_may_not_be_written_stops_the_submitting(
    service: FakeService, client: AsyncClient
) -> None:
    batch = client.run_many(asked(100), download_to=Guarded(), window=4)
    assert not any([outcome.ok async for outcome in batch])
    assert "Permission denied" in str(batch.stopped)
    assert len(service.charges) <= 2 * 4


async def test_a_host_that_may_not_be_reached_is_one_failure(
    service: FakeService, client: AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As behind a firewall of this machine, which allows the API."""
    connecting = asyncio.SelectorEventLoop.sock_connect
    port = int(service.results_url.rpartition(":")[2])

    async def connect(loop: Any, sock: Any, address: Any) -> None:
        if address[1] == port:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        await connecting(loop, sock, address)

    monkeypatch.setattr(asyncio.SelectorEventLoop, "sock_connect", connect)
    batch = client.run_many(asked(10), download_to=tmp_path, window=1)
    outcomes = [outcome async for outcome in batch]
    assert (batch.stopped, len(outcomes), len(service.charges)) == (None, 10, 10)
    assert {type(outcome.error) for outcome in outcomes} == {DownloadError}
    assert "Operation not permitted" in str(outcomes[0].error)


async def test_a_directory_that_may_not_be_written_costs_nothing(
    service: FakeService, client: AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, _: path != tmp_path)  # root may write anywhere
    with pytest.raises(PermissionError, match="files cannot be created there") as caught:
        await anext(client.run_many(asked(100), download_to=tmp_path))
    assert caught.value.filename == str(tmp_path)
    assert service.charges == []
    monkeypatch.undo()
    for _ in range(2):  # once everything is saved, it may be read-only
        async with Ledger(tmp_path / "run.db") as ledger:
            batch = client.run_many(asked(3), ledger=ledger, download_to=tmp_path)
            assert [outcome.ok async for outcome in batch] == [True] * 3
        monkeypatch.setattr(os, "access", lambda path, _: path != tmp_path)
    assert len(service.charges) == 3


async def test_what_was_accepted_is_finished_after_a_stop(
    service: FakeService, client: AsyncClient, tmp_path: Path
) -> None:
    """Tasks that were accepted before are waited for and saved, and those of earlier runs, too."""
    async with Ledger(tmp_path / "run.db") as ledger:
        _ = [o async for o in client.submit_many(asked(3), ledger=ledger)]
        service.script("submit", Fault.ok(), Fault.no_credits())
        batch = client.run_many(asked(9), ledger=ledger, ordered=True, download_to=tmp_path)
        outcomes = [outcome async for outcome in batch]
    assert [outcome.ok for outcome in outcomes[:4]] == [True] * 4
    assert all(outcome.paths for outcome in outcomes[:4])
    assert len(service.charges) == sum(outcome.ok for outcome in outcomes)


async def test_a_retry_after_a_stop_is_not_submitted(
    service: FakeService, client: AsyncClient, tmp_path: Path
) -> None:
    """Neither is what failed before, and its record stays as it was."""
    service.script("submit", *[Fault.failed()] * 2)
    async with Ledger(tmp_path / "run.db") as ledger:
        _ = [o async for o in client.run_many(asked(2), ledger=ledger)]
        before = [row async for row in ledger.rows()]
        service.script("submit", Fault.no_credits())
        batch = client.run_many(asked(2), ledger=ledger, retry_failed=True, ordered=True, window=1)
        first = await anext(batch)
        assert isinstance(first.error, InsufficientCreditsError)
        assert [outcome async for outcome in batch] == []
        assert [row async for row in ledger.rows()] == before


async def test_a_full_disk_stops_the_submitting(
    service: FakeService, client: AsyncClient, tmp_path: Path
) -> None:
    """Once there is space, the same batch saves the rest, and pays for nothing twice."""
    size = 500_000  # more than the ledger takes
    large = Fault.reply(
        200, b"\x89PNG\r\n\x1a\n" + bytes(size), headers={"Content-Type": "image/png"}
    )
    service.script("result", Fault.ok(), Fault.ok(), *[large] * 4)
    path, results = tmp_path / "run.db", tmp_path / "results"
    async with Ledger(path) as ledger:
        batch = client.run_many(asked(300), ledger=ledger, window=4, download_to=results)
        with full_disk(size):
            outcomes = [outcome async for outcome in batch]
        assert isinstance(batch.stopped, DownloadError)
        assert "File too large" in str(batch.stopped)
        assert sum(outcome.ok for outcome in outcomes) == 2
        assert len(service.charges) <= 2 + 4
        failed = [outcome for outcome in outcomes if isinstance(outcome.error, DownloadError)]
        assert all(outcome.task is not None and outcome.task.succeeded for outcome in failed)
        batch = client.run_many(asked(30), ledger=ledger, download_to=results)
        assert [outcome.ok async for outcome in batch] == [True] * 30
    assert len(service.charges) == len(list(results.iterdir())) == 30


async def test_a_budget_that_is_used_up_leaves_the_rest_not_submitted(
    service: FakeService, client: AsyncClient
) -> None:
    service.price = 3.0
    batch = client.run_many(asked(500), max_credits=150)
    outcomes = [outcome async for outcome in batch]
    assert isinstance(batch.stopped, BudgetExceededError)
    assert len(outcomes) == 500  # cheaper ones might still fit
    progress = batch.progress
    assert (progress.succeeded, progress.failed, progress.not_submitted) == (50, 0, 450)


class AlarmClock(Clock):
    """Time that passes by sleeping only, with something to do at some time."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.alarms: list[tuple[float, Callable[[], Awaitable[object]]]] = []
        super().__init__(lambda: self.time)

    async def sleep(self, seconds: float, waker: asyncio.Future[bool] | None = None) -> None:
        del waker
        self.time += max(0.0, seconds)
        await asyncio.sleep(0)
        while self.alarms and self.alarms[0][0] <= self.time:
            await self.alarms.pop(0)[1]()


def outage_client(service: FakeService, clock: AlarmClock) -> AsyncClient:
    class Client(AsyncClient):
        @staticmethod
        def _new_clock() -> Clock:
            return clock

    return Client(
        service.api_key,
        base_url=service.url,
        max_concurrency=8,
        retry=RetryPolicy(attempts=2, base=1, settle=1),
        polling=PollPolicy(first=0, step=1),
    )


@pytest.mark.parametrize("kept", [False, True])
async def test_an_outage_pauses_a_batch(tmp_path: Path, *, kept: bool) -> None:
    """While the service is down for half a minute, nothing fails and nothing is paid twice."""
    clock = AlarmClock()
    async with (
        FakeService(used_id="charge") as service,
        outage_client(service, clock) as client,
        Ledger(tmp_path / "run.db") as ledger,
    ):
        options: dict[str, Any] = {"ledger": ledger} if kept else {}
        batch = client.run_many(asked(400), window=32, **options)
        outcomes = [await anext(batch) for _ in range(20)]
        await service.close()
        clock.alarms = [(clock.time + 30, service.start)]
        outcomes += [outcome async for outcome in batch]
        assert clock.alarms == []
        assert [outcome.error for outcome in outcomes] == [None] * 400
        assert len(service.charges) == 400
        assert batch.stopped is None


async def test_an_outage_without_an_end_stops_a_batch() -> None:
    """After ten minutes the rest is not submitted, and of each request it is said what is known."""
    clock = AlarmClock()
    async with FakeService() as service, outage_client(service, clock) as client:
        batch = client.submit_many(asked(4000))
        outcomes = [await anext(batch)]
        await service.close()
        outcomes += [outcome async for outcome in batch]
        assert isinstance(batch.stopped, ConnectError | AmbiguousSubmitError)
        assert 600 <= clock.time - 1000 < 1000
        kinds = {type(outcome.error) for outcome in outcomes if not outcome.ok}
        assert kinds <= {ConnectError, AmbiguousSubmitError, NotSubmittedError}
        assert len(outcomes) < 4000
        assert batch.progress.failed <= 8


async def test_a_client_that_never_connected_fails_at_once(connect: Connect) -> None:
    batch = connect(base_url="http://127.0.0.1:1").run_many(asked(1000))
    outcomes = [outcome async for outcome in batch]
    assert isinstance(batch.stopped, ConnectError)
    assert len(outcomes) < 600
    assert batch.progress.not_submitted == len(outcomes)


async def test_a_request_that_breaks_the_service_is_its_own_failure(
    service: FakeService, client: AsyncClient
) -> None:
    """Where the service responds, a submit without a response does not hold up the others."""
    service.script("submit", Fault.ok(), *[Fault.server_error()] * 5)
    batch = client.run_many(asked(5), window=1)
    kinds = [type(outcome.error) async for outcome in batch]
    assert kinds == [type(None), AmbiguousSubmitError, *[type(None)] * 3]
    assert batch.stopped is None


async def test_a_submit_that_is_found_after_an_outage_is_not_sent_again(
    service: FakeService, client: AsyncClient
) -> None:
    """A response that was lost while the service broke down belongs to a task that is there."""
    service.used_id = "charge"
    service.script("submit", Fault.ok(), Fault.lost_response(accepted=True))
    service.script("query", Fault.ok(), *[Fault.server_error()] * 20)
    batch = client.run_many(asked(5), window=1)
    assert [outcome.ok async for outcome in batch] == [True] * 5
    assert len(service.charges) == 5


# What could let a second process use the ledger of a running batch.
def delete_lock(path: Path) -> None:
    Path(f"{path}.lock").unlink()


def replace_lock(path: Path) -> None:
    shutil.copy(f"{path}.lock", f"{path}.copy")
    Path(f"{path}.copy").rename(f"{path}.lock")


def hard_link(path: Path) -> None:
    path.with_name("other.db").hardlink_to(path)


@pytest.mark.parametrize(
    ("act", "why"),
    [
        (delete_lock, r"run\.db\.lock was deleted or replaced"),
        (replace_lock, r"run\.db\.lock was deleted or replaced"),
        (hard_link, "another name .a hard link."),
    ],
)
async def test_a_lock_that_is_lost_is_noticed_before_the_next_submit(
    service: FakeService, client: AsyncClient, tmp_path: Path, act: Any, why: str
) -> None:
    path = tmp_path / "run.db"
    async with Ledger(path) as ledger:
        _ = [outcome async for outcome in client.run_many(asked(1), ledger=ledger)]
    ledger = await Ledger(path).__aenter__()
    batch = client.run_many(asked(50), ledger=ledger, window=1)
    await anext(batch)
    act(path)
    charged = len(service.charges)
    with pytest.raises(LedgerError, match=why):
        _ = [outcome async for outcome in batch]
    assert len(service.charges) <= charged + 1  # the one that was under way
    with pytest.raises(LedgerError, match=why):
        await ledger.__aexit__(None, None, None)


OPEN = """
import asyncio, sys
from aireiter_async import Ledger

async def main():
    async with Ledger(sys.argv[1]):
        print("opened")

asyncio.run(main())
"""


async def test_a_copy_of_the_directory_does_not_drop_the_lock(
    client: AsyncClient, tmp_path: Path
) -> None:
    """A process that opens and closes a file loses its POSIX locks on it: ours is another."""
    path = tmp_path / "ledger" / "run.db"
    path.parent.mkdir()
    async with Ledger(path) as ledger:
        _ = [outcome async for outcome in client.run_many(asked(1), ledger=ledger)]
        shutil.copytree(path.parent, tmp_path / "copy")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", OPEN, str(path)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        told, _ = await process.communicate()
        assert "another batch is running with this ledger" in told.decode()


async def test_a_batch_finds_what_another_with_its_ledger_has_withdrawn(
    service: FakeService, client: AsyncClient, tmp_path: Path, until: Until
) -> None:
    """Who waited for a submit of another batch that came to nothing has not submitted it."""
    [wanted] = asked(1)
    async with Ledger(tmp_path / "run.db") as ledger:
        journal = journal_of(ledger)
        intent = journal.make_intent(9, wanted, wanted.encode_content(), unique=True, record=True)
        await journal.record(intent)
        await journal.lock(wanted.out_task_id)
        batch = client.run_many([wanted], ledger=ledger)
        outcome = asyncio.ensure_future(anext(batch))
        await until(lambda: batch.progress.preparing)
        await journal.find(wanted.out_task_id)
        journal.withdraw(wanted.out_task_id)
        journal.unlock(wanted.out_task_id)
        assert isinstance((await outcome).error, NotSubmittedError)
        assert batch.progress.not_submitted == 1
        await batch.aclose()
    assert len(service.charges) == 0
