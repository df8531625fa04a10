"""The ledger: what a run leaves for the next one, and what it does when it cannot be written."""

import asyncio
import hashlib
import json
import os
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing, closing
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import cycle
from pathlib import Path
from typing import Any, Self

import pytest
from attrs import evolve

from aireiter_async import (
    AmbiguousSubmitError,
    APIError,
    AsyncClient,
    DownloadError,
    InvalidRequestError,
    Ledger,
    LedgerError,
    LedgerState,
    RetryPolicy,
    SubmitRequest,
    Task,
    TaskFailedError,
    TaskStatus,
    TaskTimeoutError,
)
from aireiter_async._client import _waiting
from aireiter_async._ledger import Entry, Intent, _file, _journal, _lock, journal_of
from aireiter_async._ledger._store import Group, Store, withdraw
from aireiter_async.testing import FakeService, Fault

Connect = Callable[..., AsyncClient]
Until = Callable[[Callable[[], object]], Awaitable[None]]

SUBMIT = "/api/openapi/submit"
QUERY = "/api/openapi/query"
ONCE = RetryPolicy(attempts=1, base=0, settle=0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the ledger is."""
    return tmp_path / "run.db"


def lines(count: int, **options: Any) -> list[SubmitRequest]:
    """Make requests that differ, each with the same content every time."""
    return [
        SubmitRequest("nano_banana", {"prompt": f"kitten {n}"}, **options) for n in range(count)
    ]


def one(out_task_id: str, prompt: str = "a kitten") -> SubmitRequest:
    """Make a request with an ID that the caller chose."""
    return SubmitRequest("nano_banana", {"prompt": prompt}, out_task_id)


def row(out_task_id: str) -> Intent:
    """Make the intent of a request with an ID that the caller chose."""
    return Intent(
        1, out_task_id, generated=False, unique=False, content=b"x", model="m", request="{}"
    )


async def record_ids(ledger: Ledger, *ids: str) -> list[Entry | None]:
    """Record intents at once, and return the rows that were there already."""
    intents = [row(out_task_id) for out_task_id in ids]
    await asyncio.gather(*map(journal_of(ledger).record, intents))
    return [each.entry for each in intents]


async def record(ledger: Ledger, request: SubmitRequest) -> SubmitRequest:
    """Record the intent to submit a request, and return it with the ledger's ID."""
    journal = journal_of(ledger)
    content = request.encode_content()
    intent = journal.make_intent(1, request, content, unique=True, record=True)
    await journal.record(intent)
    assert intent.entry is None
    return request.with_id(intent.out_task_id)


def select(path: Path, columns: str = "state") -> list[Any]:
    """Read the rows of a ledger as its users do, in the order of the input."""
    with closing(sqlite3.connect(path)) as db:
        found = db.execute(f"SELECT {columns} FROM tasks ORDER BY number").fetchall()  # noqa: S608
    return [values[0] if len(values) == 1 else values for values in found]


async def run(
    client: AsyncClient, path: Path, requests: Iterable[Any], **options: Any
) -> list[Any]:
    """Run a batch with the ledger at *path* to its end."""
    async with Ledger(path) as ledger:
        batch = client.run_many(requests, ledger=ledger, ordered=True, **options)
        return [outcome async for outcome in batch]


async def submit(
    client: AsyncClient, path: Path, requests: Iterable[Any], **options: Any
) -> list[Any]:
    """Submit a batch with the ledger at *path*."""
    async with Ledger(path) as ledger:
        batch = client.submit_many(requests, ledger=ledger, ordered=True, **options)
        return [outcome async for outcome in batch]


def posts(service: FakeService) -> list[int]:
    """Return how many submits there were for each ID that was charged."""
    return [service.posts(charge.out_task_id) for charge in service.charges]


def _store(ledger: Ledger) -> Store:
    store = journal_of(ledger)._store
    assert store is not None
    return store


async def test_an_intent_is_on_disk_before_its_post(
    service: FakeService, client: AsyncClient, path: Path
) -> None:
    """When a submit reaches the service, another connection reads its row in the ledger."""
    found = []

    def price(_model: str, params: Mapping[str, Any]) -> float:
        with closing(sqlite3.connect(path)) as db:
            asked = db.execute(
                "SELECT state FROM tasks WHERE json_extract(request, '$.params.prompt') = ?",
                (params["prompt"],),
            )
            found.extend(asked.fetchall())
        return 1.0

    service.price = price
    outcomes = await run(client, path, lines(30))
    assert all(outcome.ok for outcome in outcomes)
    assert found == [("intended",)] * 30


async def test_a_row_says_what_is_known_of_its_task(
    service: FakeService, client: AsyncClient, path: Path, tmp_path: Path
) -> None:
    """A finished row has the request, the credits, the whole reply and the files."""
    service.price = 2.5
    (outcome,) = await run(client, path, [one("a")], download_to=tmp_path / "results")
    (kept,) = select(
        path,
        "out_task_id, occurrence, state, model, request, estimated_credits, credits_used, reply, "
        "error, paths, retried_as",
    )
    assert outcome.task is not None
    assert kept[:4] == ("a", None, "downloaded", "nano_banana")
    assert json.loads(kept[4]) == {"model": "nano_banana", "params": {"prompt": "a kitten"}}
    assert kept[5:7] == (2.5, 2.5)
    assert json.loads(kept[7]) == outcome.task.raw
    assert (kept[8], kept[10]) == (None, None)
    [path_saved] = outcome.paths
    digest = hashlib.sha256(path_saved.read_bytes()).hexdigest()
    file = {"path": str(path_saved), "size": path_saved.stat().st_size, "sha256": digest}
    assert json.loads(kept[9]) == [file] == [*outcome.files]
    [row] = [row async for row in Ledger(path).rows()]
    assert (row["files"], row["paths"]) == ([file], [file["path"]])
    assert row["task_id"].startswith("order_")
    assert row["completed_at"] == select(path, "updated_at")[0]


async def test_a_real_charge_counts_in_place_of_the_estimate(path: Path) -> None:
    """What a task has cost is what is spent, be it more or less than was estimated."""
    async with Ledger(path) as ledger:
        for out_task_id, estimate, charge in [("a", 5.0, 2.0), ("b", 1.0, 2.5)]:
            await record(ledger, one(out_task_id))
            pending = Task(out_task_id, TaskStatus.PENDING, estimated_credits=estimate)
            journal_of(ledger).accepted(pending)
            journal_of(ledger).ended(
                evolve(pending, status=TaskStatus.COMPLETED, credits_used=charge)
            )
        assert await ledger.spent() == (4.5, 0)


async def test_what_is_durable_has_reached_the_disk(path: Path) -> None:
    """A commit waits for the disk, not for the operating system's memory alone."""
    async with Ledger(path) as ledger:
        assert _store(ledger)._db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


async def test_states_follow_a_run(service: FakeService, client: AsyncClient, path: Path) -> None:
    """Each end of a task is a state of its own, and `counts` and `spent` add them up."""
    service.durations = {"slow": 1e9}
    service.script("submit", Fault.ok(), Fault.failed(), Fault.bad_request("no"))
    requests = [*lines(3), SubmitRequest("slow", {})]
    async with Ledger(path) as ledger:
        batch = client.run_many(requests, ledger=ledger, window=1, timeout=0)
        outcomes = [outcome async for outcome in batch]
        errors = [type(outcome.error) for outcome in outcomes]
        assert errors == [type(None), TaskFailedError, InvalidRequestError, TaskTimeoutError]
        assert await ledger.counts() == dict.fromkeys(
            (
                LedgerState.COMPLETED,
                LedgerState.FAILED,
                LedgerState.REJECTED,
                LedgerState.SUBMITTED,
            ),
            1,
        )
        assert await ledger.spent() == (2.0, 0)
        assert await ledger.costs() == [("nano_banana", 1.0, 0, 1.0), ("slow", 1.0, 0, 1.0)]
        assert select(path) == ["completed", "failed", "rejected", "submitted"]
        assert ledger.path == path


async def test_what_has_completed_costs_no_request(
    service: FakeService, client: AsyncClient, path: Path, tmp_path: Path
) -> None:
    """Run again, a finished batch is yielded from the ledger, the same to the last value."""
    service.price = 0.25
    wanted = lines(5)
    first = await run(client, path, wanted, download_to=tmp_path / "results")
    requests = service.counts.total()
    again = await run(client, path, wanted, download_to=tmp_path / "results")
    assert again == [evolve(outcome, resumed=True) for outcome in first]
    assert {outcome.resumed for outcome in first} == {False}
    assert service.counts.total() == requests
    assert len(service.charges) == 5


async def test_what_was_submitted_is_waited_for(
    service: FakeService, client: AsyncClient, path: Path
) -> None:
    """A task that an earlier run has submitted is looked for, not submitted."""
    submitted = await submit(client, path, lines(3))
    assert [outcome.task and outcome.task.status for outcome in submitted] == ["pending"] * 3
    assert select(path) == ["submitted"] * 3
    again = await submit(client, path, lines(3))
    assert service.counts == {SUBMIT: 3}
    assert [outcome.request.out_task_id for outcome in again] == [
        charge.out_task_id for charge in sorted(service.charges, key=lambda c: c.out_task_id)
    ]
    outcomes = await run(client, path, lines(3))
    assert [outcome.task and outcome.task.status for outcome in outcomes] == ["completed"] * 3
    assert service.counts == {SUBMIT: 3, QUERY: 3}
    assert select(path) == ["completed"] * 3
    assert all(outcome.ok for outcome in await submit(client, path, lines(3)))
    assert service.counts == {SUBMIT: 3, QUERY: 3}


async def test_what_failed_while_nobody_looked_is_an_outcome(
    service: FakeService, client: AsyncClient, path: Path
) -> None:
    """A submitted task that has failed by the next run is reported and recorded as failed."""
    service.script("submit", Fault.failed("NSFW", "no"))
    await submit(client, path, [one("a")])
    for _ in range(2):
        (outcome,) = await run(client, path, [one("a")])
        assert isinstance(outcome.error, TaskFailedError)
        assert outcome.error.failure_code == "NSFW"
    assert select(path) == ["failed"]


@pytest.mark.parametrize("used_id", ["reject", "return", "charge"])
@pytest.mark.parametrize("state", [LedgerState.INTENDED, LedgerState.UNCERTAIN])
async def test_what_may_have_been_sent_is_looked_for_first(
    service: FakeService, client: AsyncClient, path: Path, used_id: Any, state: LedgerState
) -> None:
    service.used_id = used_id
    requests = lines(6)
    async with Ledger(path) as ledger:
        for position, request in enumerate(requests):
            named = await record(ledger, request)
            if state is LedgerState.UNCERTAIN:
                lost = AmbiguousSubmitError(named.out_task_id)
                journal_of(ledger).rejected(named.out_task_id, lost, state)
            if position % 2:
                await client.submit(named)
    assert select(path) == [state] * 6
    outcomes = await run(client, path, requests)
    assert all(outcome.ok for outcome in outcomes)
    assert posts(service) == [1] * 6
    assert select(path) == ["completed"] * 6


async def test_a_response_that_was_lost_for_good_is_uncertain(
    service: FakeService, connect: Connect, path: Path
) -> None:
    """A submit that could not be settled is recorded as uncertain, and settled by the next run."""
    client = connect(retry=ONCE)
    service.script("submit", Fault.lost_response(accepted=True))
    service.script("query", Fault.lost_response())
    (outcome,) = await run(client, path, [one("a")])
    assert isinstance(outcome.error, AmbiguousSubmitError)
    ((state, detail),) = select(path, "state, error")
    assert (state, json.loads(detail)["type"]) == ("uncertain", "AmbiguousSubmitError")
    (again,) = await run(client, path, [one("a")])
    assert again.ok
    assert posts(service) == [1]


async def test_rejected_and_failed_are_reported_and_retried_if_asked(
    service: FakeService, client: AsyncClient, path: Path
) -> None:
    service.script("submit", Fault.failed("TIMEOUT", "slow"), Fault.bad_request("no such thing"))
    requests = [one("a", "first"), one("b", "second")]
    first = await run(client, path, requests, window=1)
    for outcomes in (first, await run(client, path, requests)):
        failed, refused = outcomes
        assert isinstance(failed.error, TaskFailedError)
        assert (failed.error.failure_code, failed.error.message) == ("TIMEOUT", "slow")
        assert isinstance(refused.error, InvalidRequestError)
        assert (refused.error.code, refused.error.message) == (400, "no such thing")
        assert refused.error.out_task_id == "b"
    assert service.counts[SUBMIT] == 2
    retried = await run(client, path, requests, retry_failed=True)
    assert all(outcome.ok for outcome in retried)
    ids = [outcome.request.out_task_id for outcome in retried]
    assert ids == [outcome.task and outcome.task.out_task_id for outcome in retried]
    assert ids == ["a-2", "b-2"]
    assert sorted(select(path, "out_task_id, state, retried_as")) == [
        ("a", "failed", "a-2"),
        ("a-2", "completed", None),
        ("b", "rejected", "b-2"),
        ("b-2", "completed", None),
    ]
    again = await run(client, path, requests, retry_failed=True)
    assert again == [evolve(outcome, resumed=True) for outcome in retried]
    assert service.counts[SUBMIT] == 4


async def test_a_retry_cut_off_is_settled(
    service: FakeService, client: AsyncClient, path: Path
) -> None:
    """A retry that died after its POST is found by the next run under the ID that was recorded."""
    service.script("submit", Fault.failed())
    await run(client, path, [one("a")])
    async with Ledger(path) as ledger:
        again = await journal_of(ledger).replace("a", LedgerState.FAILED)
        await client.submit(one(again))
    (outcome,) = await run(client, path, [one("a")])
    assert outcome.ok
    assert posts(service) == [1, 1]


@pytest.mark.parametrize("fault", [Fault.no_credits(), Fault.too_many_requests(0)])
async def test_what_was_rejected_for_the_account_is_tried_again(
    service: FakeService, connect: Connect, path: Path, fault: Fault
) -> None:
    """A submit rejected for credits or rate leaves no row, and goes out as new on the next run."""
    client = connect(retry=ONCE)
    service.script("submit", fault)
    (outcome,) = await run(client, path, [one("a")])
    assert isinstance(outcome.error, APIError)
    assert select(path) == []
    (again,) = await run(client, path, [one("a")])
    assert again.ok
    assert service.counts == {SUBMIT: 2, QUERY: 1}


async def test_a_withdrawn_retry_leaves_the_failed_task(
    service: FakeService, connect: Connect, path: Path
) -> None:
    """A retry that the account could not pay is forgotten, link and all, and can be asked again."""
    client = connect(retry=ONCE)
    service.script("submit", Fault.failed(), Fault.no_credits())
    await run(client, path, [one("a")])
    (outcome,) = await run(client, path, [one("a")], retry_failed=True)
    assert isinstance(outcome.error, APIError)
    assert select(path, "out_task_id, state, retried_as") == [("a", "failed", None)]
    (outcome,) = await run(client, path, [one("a")], retry_failed=True)
    assert outcome.ok


async def test_a_chosen_id_is_kept(service: FakeService, client: AsyncClient, path: Path) -> None:
    """The ledger leaves the IDs alone that the caller chose."""
    await submit(client, path, [one("b"), one("a")])
    assert select(path, "out_task_id") == ["b", "a"]
    assert sorted(service.tasks) == ["a", "b"]


@pytest.mark.parametrize("limit", [None, 10])
async def test_other_content_under_a_known_id_is_an_error(
    service: FakeService, client: AsyncClient, path: Path, limit: float | None
) -> None:
    """A request that has changed under its ID is an outcome with an error, and sends nothing."""
    await run(client, path, [one("a", "before")])
    requests = service.counts.total()
    changed, good = await run(
        client, path, [one("a", "after"), one("b")], max_credits=limit, window=1
    )
    assert isinstance(changed.error, LedgerError)
    assert "a belongs to another request" in str(changed.error)
    assert good.ok
    assert service.counts.total() == requests + 2


@pytest.mark.parametrize("name", [None, "fox"])
async def test_only_files_that_are_gone_or_damaged_are_downloaded_again(
    service: FakeService, client: AsyncClient, path: Path, tmp_path: Path, name: str | None
) -> None:
    """Under the names that they had, without a query of the task."""
    results = tmp_path / "results"
    request = SubmitRequest("nano_banana", {"prompt": "a", "n": 4}, "a")
    service.outputs = 4

    async def again(downloads: int, **options: Any) -> Any:
        [outcome] = await run(client, path, [request], **options)
        counts = service.counts
        assert (counts[SUBMIT], counts[QUERY], counts["/upload"]) == (1, 1, downloads)
        return outcome

    await again(0)
    ended = select(path, "state, updated_at")
    first = await again(4, download_to=results, name=name)
    assert select(path, "state, updated_at") == [("downloaded", ended[0][1])]
    content = [file.read_bytes() for file in first.paths]
    first.paths[0].unlink()
    first.paths[2].write_bytes(content[2][:-1])
    first.paths[3].write_bytes(content[3][:-1] + b"!")
    for downloads in (7, 7):
        outcome = await again(downloads, download_to=results, name=name)
        assert (outcome.paths, outcome.files) == (first.paths, first.files)
        assert [file.read_bytes() for file in outcome.paths] == content
    assert (await again(7)).files == first.files
    assert len([*results.iterdir()]) == 4


async def test_files_are_saved_again_where_they_are_asked_for_now(
    service: FakeService, client: AsyncClient, path: Path, tmp_path: Path
) -> None:
    """A ledger remembers the last place of a file; the earlier ones are left alone, and found."""
    request = SubmitRequest("nano_banana", {"prompt": "a"}, "a")
    for name, downloads in (("all", 1), ("best", 2), ("best", 2), ("../x/all", 2)):
        directory = tmp_path / "x" / name
        [outcome] = await run(client, path, [request], download_to=directory)
        assert outcome.paths == (directory / outcome.paths[0].name,)
        assert service.counts["/upload"] == downloads
    assert service.counts[SUBMIT] == 1


async def test_a_failed_download_is_an_outcome_and_tried_again(
    service: FakeService, connect: Connect, path: Path, tmp_path: Path
) -> None:
    """A completed task whose results could not be saved is only downloaded on the next run."""
    client = connect(retry=ONCE)
    service.script("result", Fault.html(502))
    (outcome,) = await run(client, path, [one("a")], download_to=tmp_path)
    assert isinstance(outcome.error, DownloadError)
    (outcome,) = await run(client, path, [one("a")], download_to=tmp_path)
    assert outcome.ok
    assert service.counts == {SUBMIT: 1, QUERY: 1, "/upload": 2}


async def test_a_broken_loop_leaves_what_was_submitted(
    service: FakeService, client: AsyncClient, path: Path
) -> None:
    """Leaving a batch without closing it loses nothing: the rest is finished by the next run."""
    requests = lines(40)
    async with Ledger(path) as ledger:
        async for _ in client.run_many(requests, ledger=ledger, window=8):  # pragma: no branch
            break
    async with (
        Ledger(path) as ledger,
        aclosing(client.run_many(requests, ledger=ledger, window=8)) as batch,
    ):
        async for _ in batch:  # pragma: no branch
            break
    assert {charge.out_task_id for charge in service.charges} <= set(select(path, "out_task_id"))
    outcomes = await run(client, path, requests)
    assert [outcome.ok for outcome in outcomes] == [True] * 40
    assert posts(service) == [1] * 40


def link(path: Path) -> None:
    """Make a file with two names."""
    path.touch()
    path.with_name("b").hardlink_to(path)


TROUBLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a text file": (lambda path: path.write_text("a,b\n" * 200), "not a database"),
    "a database": (
        lambda path: execute(path, "CREATE TABLE mine (a)"),
        "a database, but not a ledger",
    ),
    "a newer schema": (
        lambda path: execute(
            path, "CREATE TABLE t (a); PRAGMA application_id = 0x41524C47;PRAGMA user_version = 3"
        ),
        "newer than this release's 2: upgrade",
    ),
    "an older schema": (
        lambda path: execute(
            path, "CREATE TABLE t (a); PRAGMA application_id = 0x41524C47;PRAGMA user_version = 1"
        ),
        "older than this release: it identifies requests by their position .* start a new ledger",
    ),
    "an older schema's lock": (
        lambda path: execute(Path(f"{path}.lock"), "PRAGMA user_version = 24"),
        "older than this release: it identifies requests by their position",
    ),
    "another name": (link, "another name .a hard link."),
    "a directory": (lambda path: path.mkdir(), "unable to open .* must be a file"),
    "a pipe": (os.mkfifo, "disk I/O error"),
    "a link to itself": (lambda path: path.symlink_to(path), "symbolic links"),
    "a lock that is none": (
        lambda path: Path(f"{path}.lock").write_text("no lock\n" * 200),
        "run.db.lock is not a lock: delete it",
    ),
    "a directory as lock": (
        lambda path: Path(f"{path}.lock").mkdir(),
        "run.db.lock: Is a directory",
    ),
    "a locked ledger": (lambda path: held.append(_lock.Lock(path)), "another batch"),
}
held: list[_lock.Lock] = []


def content(path: Path) -> bytes | None:
    """Return what a file holds, None where there is none."""
    return path.read_bytes() if path.is_file() else None


def execute(path: Path, script: str) -> None:
    """Run statements on a database."""
    with closing(sqlite3.connect(path)) as db:
        db.executescript(script)


@pytest.mark.parametrize("name", TROUBLE)
async def test_a_file_that_is_no_ledger_of_ours_is_an_error(path: Path, name: str) -> None:
    """A file that cannot be used raises a LedgerError that says why, and is left as it was."""
    prepare, why = TROUBLE[name]
    prepare(path)
    before = content(path)
    with pytest.raises(LedgerError, match=why) as caught:
        await Ledger(path).__aenter__()
    assert caught.value.path == str(path)
    assert content(path) == before
    while held:
        held.pop().close()


async def test_a_ledger_that_lost_its_tables_is_an_error(path: Path) -> None:
    """A file that says that it is a ledger, and is none, raises a LedgerError."""
    execute(
        path,
        f"CREATE TABLE mine (a); PRAGMA application_id = {_file._APPLICATION_ID};"
        f"PRAGMA user_version = {_file._USER_VERSION}",
    )
    with pytest.raises(LedgerError, match="no such table: batch"):
        await Ledger(path).__aenter__()


@pytest.mark.parametrize("where", ["missing/run.db", "/proc/run.db"])
async def test_a_directory_that_cannot_be_written_is_an_error(tmp_path: Path, where: str) -> None:
    """A ledger in a directory that is missing or read-only raises a LedgerError."""
    with pytest.raises(LedgerError, match=r"run.db.lock: .*: it must be writable"):
        await Ledger(tmp_path / where).__aenter__()


async def test_an_old_sqlite_is_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An SQLite that lacks what the ledger uses is named at once."""
    monkeypatch.setattr(_file, "_OLDEST_SQLITE", (99, 0))
    with pytest.raises(LedgerError, match="or later is needed"):
        await Ledger(path).__aenter__()


async def test_a_second_run_is_rejected(client: AsyncClient, path: Path) -> None:
    """While a ledger is open, neither this process nor another one opens it again."""
    program = (
        "import asyncio, sys; from aireiter_async import Ledger\n"
        "async def main():\n    async with Ledger(sys.argv[1]): print('opened')\n"
        "asyncio.run(main())"
    )

    async def other() -> str:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", program, str(path)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        told, _ = await process.communicate()
        return told.decode()

    async with Ledger(path) as ledger:
        with pytest.raises(LedgerError, match="another batch is running with this ledger"):
            await Ledger(path).__aenter__()
        with pytest.raises(RuntimeError, match="already open"):
            await ledger.__aenter__()
        assert "another batch is running with this ledger" in await other()
        batch = client.run_many([one("a")], ledger=ledger)
        assert [outcome.ok async for outcome in batch] == [True]
    assert await other() == "opened\n"


async def test_of_many_that_come_at_once_one_gets_the_lock(path: Path) -> None:
    """However many open a ledger in the same moment, one of them can, and the others are told."""
    for _ in range(3):
        opening = [Ledger(path).__aenter__() for _ in range(4)]
        opened = await asyncio.gather(*opening, return_exceptions=True)
        (ledger,) = (each for each in opened if isinstance(each, Ledger))
        assert {str(each) for each in opened if isinstance(each, LedgerError)}
        await ledger.__aexit__(None, None, None)


async def test_a_ledger_has_one_lock_whatever_it_is_called(
    client: AsyncClient, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a link and from another directory it is the same ledger: it is not opened twice."""
    other = path.with_name("elsewhere")
    other.mkdir()
    (other / "link.db").symlink_to(path)
    monkeypatch.chdir(path.parent)
    async with Ledger(path.name) as ledger:
        monkeypatch.chdir(other)
        with pytest.raises(LedgerError, match=r"link\.db: another batch"):
            await Ledger("link.db").__aenter__()
        batch = client.run_many([one("a")], ledger=ledger)
        assert [outcome.ok async for outcome in batch] == [True]
    async with Ledger("link.db") as ledger:
        assert await ledger.counts() == {LedgerState.COMPLETED: 1}
    assert [file.name for file in other.iterdir()] == ["link.db"]


async def test_a_ledger_of_another_loop_is_rejected(path: Path) -> None:
    """A ledger is of no use in another event loop, as each process has its own, and says so."""

    async def use(ledger: Ledger) -> None:
        with pytest.raises(RuntimeError, match="in another event loop, or before a fork"):
            await record_ids(ledger, "b")
        with pytest.raises(RuntimeError, match="in another event loop, or before a fork"):
            await ledger.__aexit__(None, None, None)

    async with Ledger(path) as ledger:
        await record_ids(ledger, "a")
        await asyncio.to_thread(asyncio.run, use(ledger))
        journal_of(ledger).accepted(Task("a", TaskStatus.PENDING))
    assert select(path) == ["submitted"]


READ_ONLY = """
import asyncio, os, sys
from aireiter_async import Ledger, LedgerError

async def main(path):
    async with Ledger(path):
        pass

if os.getuid() == 0:  # to whom everything is writable
    os.setresuid(65534, 65534, 65534)
try:
    asyncio.run(main(sys.argv[1]))
except LedgerError as error:
    print(error)
"""


def protect(path: Path, name: str) -> None:
    """Let everybody write a ledger, its lock and its directory, but for one of them."""
    for file in (path, Path(f"{path}.lock"), path.parent):
        file.chmod(0o777)
    (path.parent / name).chmod(0o555)


@pytest.mark.parametrize("name", ["run.db", "run.db.lock", "."])
async def test_what_cannot_be_written_is_an_error(name: str) -> None:
    """A ledger, a lock or a directory that is read-only is a LedgerError that says so."""
    with tempfile.TemporaryDirectory() as directory:  # where any user can get to
        path = Path(directory, "run.db")
        Store(path, "salt").close()
        protect(path, name)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", READ_ONLY, str(path)), stdout=asyncio.subprocess.PIPE
        )
        told, _ = await process.communicate()
    assert told.decode().startswith(f"{path}: ")
    assert "writable" in told.decode()


async def test_a_ledger_opens_again(client: AsyncClient, path: Path) -> None:
    """The same object can be entered again once it was left, and leaving twice does nothing."""
    ledger = Ledger(path)
    for _ in range(2):
        async with ledger:
            batch = client.run_many([one("a")], ledger=ledger)
            assert [outcome.ok async for outcome in batch] == [True]
    await ledger.__aexit__(None, None, None)


async def test_a_ledger_that_is_not_open_ends_the_batch(
    service: FakeService, client: AsyncClient, path: Path
) -> None:
    """A batch with a ledger that was not entered raises RuntimeError and sends nothing."""
    for request in (one("a"), lines(1)[0]):
        with pytest.raises(RuntimeError, match="the Ledger is not open"):
            await anext(client.run_many([request], ledger=Ledger(path)))
    assert service.counts.total() == 0


@pytest.mark.parametrize("limit", [None, 1000])
async def test_a_full_disk_ends_the_batch_and_loses_nothing(
    service: FakeService, client: AsyncClient, path: Path, limit: float | None
) -> None:
    """A disk that fills up raises a LedgerError, and the next run finishes exactly the rest."""
    requests = lines(300)
    ledger = await Ledger(path).__aenter__()
    _store(ledger)._db.execute("PRAGMA max_page_count = 20")
    batch = client.run_many(requests, ledger=ledger, window=16, max_credits=limit)
    with pytest.raises(LedgerError, match="disk is full") as caught:
        _ = [outcome async for outcome in batch]
    assert isinstance(caught.value.__cause__, sqlite3.Error)
    assert journal_of(ledger).broken is caught.value
    with pytest.raises(LedgerError, match="disk is full"):
        await anext(client.run_many([one("late")], ledger=ledger))
    with pytest.raises(LedgerError, match="disk is full"):
        await ledger.__aexit__(None, None, None)
    assert 0 < len(service.charges) < 300
    outcomes = await run(client, path, requests)
    assert [outcome.ok for outcome in outcomes] == [True] * 300
    assert posts(service) == [1] * 300


async def test_a_file_size_limit_is_a_ledger_error(path: Path) -> None:
    """A process that may not let its files grow gets a LedgerError, and no broken ledger."""
    program = """
import asyncio, resource, sys
from aireiter_async import Ledger, LedgerError
from aireiter_async._ledger import Intent, journal_of

async def main():
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    async with Ledger(sys.argv[1]) as ledger:
        for n in range(10_000):
            intent = Intent(1, str(n), False, True, b"", "m", "x" * 2000)
            await journal_of(ledger).record(intent)

try:
    asyncio.run(main())
except LedgerError as error:
    print(error)
"""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, str(path)), stdout=asyncio.subprocess.PIPE
    )
    told, _ = await process.communicate()
    assert f"{path}: " in told.decode()
    assert "(SQLite)" in told.decode()
    async with Ledger(path) as ledger:
        assert sum((await ledger.counts()).values()) > 3


async def test_an_unexpected_error_breaks_the_ledger(path: Path) -> None:
    """An error that SQLite does not know is a LedgerError too, for all who wait and who come."""

    def fail(_db: object) -> None:
        raise ZeroDivisionError("oh")

    ledger = await Ledger(path).__aenter__()
    recording = asyncio.create_task(journal_of(ledger).record(row("a")))
    answer, gone = journal_of(ledger).schedule(fail), journal_of(ledger).schedule(fail)
    gone.cancel()
    with pytest.raises(LedgerError, match="ZeroDivisionError: oh"):
        await answer
    with pytest.raises(LedgerError, match="ZeroDivisionError: oh"):
        await recording
    with pytest.raises(LedgerError, match="ZeroDivisionError: oh"):
        journal_of(ledger).accepted(Task("a", TaskStatus.PENDING))
    with pytest.raises(LedgerError, match="ZeroDivisionError: oh"):
        await ledger.__aexit__(None, None, None)
    assert select(path) == []


async def test_many_intents_are_few_transactions(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """200 intents recorded at once are made durable together."""
    groups = []
    apply = Store.apply

    def count(self: Store, group: Group) -> Any:
        groups.append(len(group.intents))
        return apply(self, group)

    monkeypatch.setattr(Store, "apply", count)
    async with Ledger(path) as ledger:
        assert await record_ids(ledger, *map(str, range(200))) == [None] * 200
        again = await record_ids(ledger, *map(str, range(100, 300)))
    assert [entry is None for entry in again] == [False] * 100 + [True] * 100
    assert sum(groups) == 400
    assert len(groups) <= 4


async def test_one_id_recorded_twice_at_once_is_new_for_one(path: Path) -> None:
    """Of intents for one ID in one transaction, only the first is new."""
    async with Ledger(path) as ledger:
        found = await record_ids(ledger, "a", "a", "a")
        assert [entry and entry.state for entry in found] == [None, "intended", "intended"]


async def test_changes_of_a_group_are_made_in_order(path: Path) -> None:
    """An intent sees earlier changes, and two changes of one row both count."""
    async with Ledger(path) as ledger:
        await record_ids(ledger, "a", "b", "c")
        journal = journal_of(ledger)
        journal.accepted(Task("a", TaskStatus.PENDING, estimated_credits=3.0))
        journal.ended(Task("a", TaskStatus.COMPLETED, credits_used=2.0, raw={"x": 1}))
        journal.withdraw("b")
        journal.rejected("c", AmbiguousSubmitError("c"), LedgerState.UNCERTAIN)
        journal.accepted(Task("c", TaskStatus.PENDING))
        old, new, found = await record_ids(ledger, "a", "b", "c")
        assert old == Entry("a", "a", b"x", LedgerState.COMPLETED, "m", 3.0, '{"x": 1}')
        assert new is None
        assert found is not None
        assert found.state is LedgerState.SUBMITTED
        assert await journal.find("d") is None


async def test_leaving_writes_what_is_waiting(path: Path) -> None:
    """Notes that nobody waits for are in the file when the ledger is closed."""
    async with Ledger(path) as ledger:
        await record_ids(ledger, *map(str, range(100)))
        for n in range(100):
            journal_of(ledger).accepted(Task(str(n), TaskStatus.PENDING))
    assert select(path) == ["submitted"] * 100


async def test_notes_made_while_closing_are_written(path: Path) -> None:
    """A note that comes while the ledger writes its last ones is written too, one later refused."""
    async with Ledger(path) as ledger:
        await record_ids(ledger, "a", "b")
        late = asyncio.create_task(ledger.counts())
        late.add_done_callback(lambda _: journal_of(ledger).accepted(Task("b", TaskStatus.PENDING)))
        await asyncio.sleep(0)
    assert (await late) == {LedgerState.INTENDED: 2}
    assert select(path) == ["intended", "submitted"]
    with pytest.raises(RuntimeError, match="not open"):
        journal_of(ledger).accepted(Task("a", TaskStatus.PENDING))


async def test_a_cancelled_intent_is_still_recorded(path: Path) -> None:
    """Cancelling the wait for an intent neither breaks the ledger nor withdraws the intent."""
    async with Ledger(path) as ledger:
        recordings = [
            asyncio.create_task(journal_of(ledger).record(row(str(n)))) for n in range(10)
        ]
        await asyncio.sleep(0)
        asking = asyncio.create_task(journal_of(ledger).find("0"))
        await asyncio.sleep(0)
        asking.cancel()
        for each in recordings[::2]:
            each.cancel()
        found = await asyncio.gather(*recordings, return_exceptions=True)
        assert [type(result) for result in found[::2]] == [asyncio.CancelledError] * 5
        assert found[1::2] == [None] * 5
    assert select(path) == ["intended"] * 10


async def test_a_cancelled_entry_leaves_the_file_free(
    path: Path, monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    """Cancelled while the file is being opened, the ledger lets go of it again."""
    started, go_on = threading.Event(), threading.Event()

    def slow(path: Path, salt: str) -> Store:
        started.set()
        go_on.wait(20)
        return Store(path, salt)

    monkeypatch.setattr(_journal, "Store", slow)
    opening = asyncio.create_task(Ledger(path).__aenter__())
    await until(started.is_set)
    opening.cancel()
    go_on.set()
    await asyncio.wait([opening])
    assert opening.cancelled()
    async with Ledger(path) as ledger:
        assert await ledger.counts() == {}


@pytest.mark.parametrize("times", [1, 3])
async def test_a_cancelled_exit_closes_the_file_first(path: Path, until: Until, times: int) -> None:
    """Cancelled while it closes, the ledger still writes and closes before the error is raised."""
    started, go_on = threading.Event(), threading.Event()

    def stall(_db: object) -> None:
        started.set()
        go_on.wait(20)

    ledger = await Ledger(path).__aenter__()
    await record_ids(ledger, "a")
    journal_of(ledger).accepted(Task("a", TaskStatus.PENDING))
    stalled = journal_of(ledger).schedule(stall)
    leaving = asyncio.create_task(ledger.__aexit__(None, None, None))
    await until(started.is_set)
    for _ in range(times):
        leaving.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not leaving.done()
    go_on.set()
    await asyncio.wait([leaving])
    assert leaving.cancelled()
    assert await stalled is None
    assert select(path) == ["submitted"]
    async with Ledger(path):
        pass


async def test_a_loop_that_ends_closes_the_file(path: Path, until: Until) -> None:
    started, go_on = threading.Event(), threading.Event()

    def stall(_db: object) -> None:
        started.set()
        go_on.wait(20)

    async def main() -> None:
        ledger = await Ledger(path).__aenter__()
        await record_ids(ledger, "a")
        journal_of(ledger).schedule(stall)
        leaving = asyncio.create_task(ledger.__aexit__(None, None, None))
        await until(started.is_set)
        assert not leaving.done()
        go_on.set()

    await asyncio.to_thread(asyncio.run, main())
    async with Ledger(path) as ledger:
        assert await ledger.counts() == {LedgerState.INTENDED: 1}


async def test_a_lock_that_breaks_ends_the_batch(
    service: FakeService, client: AsyncClient, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the lock can no longer record how far the ledger is, nothing more is sent."""

    def fail(_self: object, _last: int) -> None:
        raise OSError("no space")

    ledger = await Ledger(path).__aenter__()
    monkeypatch.setattr(_lock.Lock, "remember", fail)
    with pytest.raises(LedgerError, match="OSError: no space"):
        _ = [outcome async for outcome in client.run_many(lines(3), ledger=ledger)]
    with pytest.raises(LedgerError, match="OSError: no space"):
        await ledger.__aexit__(None, None, None)
    assert service.charges == []


async def test_a_lock_never_remembers_more_than_there_is(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That the last task is withdrawn is told to the lock first: a kill in between is no alarm."""
    store = Store(path, "salt")
    store.apply(Group(intents=[row("a"), row("b")]))

    def break_off(_self: object, last: int) -> None:
        assert last == 1
        raise sqlite3.OperationalError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(_lock.Lock, "remember", break_off)
        with pytest.raises(LedgerError, match="killed"):
            store.apply(Group(changes=[withdraw("b")]))
    store.close()
    assert select(path, "out_task_id") == ["a", "b"]


async def test_a_cancelled_writer_hangs_nobody(path: Path) -> None:
    """When all tasks of a loop are cancelled, what was noted is still written on the way out."""
    ledger = await Ledger(path).__aenter__()
    await record_ids(ledger, "a")
    journal_of(ledger).accepted(Task("a", TaskStatus.PENDING))
    committing = journal_of(ledger)._committing
    assert committing is not None
    committing.cancel()
    await ledger.__aexit__(None, None, None)
    assert select(path) == ["submitted"]


async def test_a_writer_cancelled_while_it_writes_breaks_the_ledger(path: Path) -> None:
    """A group whose end nobody can know any more is an error for all who wait for it."""
    ledger = await Ledger(path).__aenter__()
    started, go_on = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def stall(_db: object) -> None:
        loop.call_soon_threadsafe(started.set)
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result()

    answer = journal_of(ledger).schedule(stall)
    await started.wait()
    committing = journal_of(ledger)._committing
    assert committing is not None
    committing.cancel()
    with pytest.raises(LedgerError, match="CancelledError"):
        await answer
    go_on.set()
    with pytest.raises(LedgerError, match="CancelledError"):
        await ledger.__aexit__(None, None, None)


@pytest.mark.parametrize("used_id", ["charge", "reject", "return"])
@pytest.mark.parametrize("retry_failed", [False, True])
async def test_a_retry_is_submitted_by_one_of_two_batches(
    service: FakeService,
    client: AsyncClient,
    path: Path,
    until: Until,
    used_id: Any,
    *,
    retry_failed: bool,
) -> None:
    """The second starts while the first waits for the response to the retry's submit."""
    service.used_id = used_id
    service.script("submit", Fault.failed("TIMEOUT", "late"), Fault.delay(0.3))
    async with Ledger(path) as ledger:

        async def take(*, retry: bool) -> Any:
            batch = client.run_many([one("a")], ledger=ledger, retry_failed=retry)
            [outcome] = [outcome async for outcome in batch]
            return outcome

        assert not (await take(retry=False)).ok
        first = asyncio.create_task(take(retry=True))
        await until(lambda: service.posts("a-2"))
        outcomes = await asyncio.gather(first, take(retry=retry_failed))
        assert await ledger.spent() == (1.0, 0)
    assert [(each.ok, each.request.out_task_id) for each in outcomes] == [(True, "a-2")] * 2
    assert [charge.out_task_id for charge in service.charges] == ["a", "a-2"]


async def test_a_network_file_system_is_a_warning(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """SQLite's locks are not reliable between its machines."""
    monkeypatch.setattr(_file, "find_network", lambda _path: "nfs4")
    async with Ledger(path):
        pass
    assert f"the ledger {path} is on nfs4: use it on one machine only" in caplog.text


async def test_a_file_system_without_a_log_is_a_warning(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        _file._prepare_journal(db, path)
        assert caplog.text == ""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        _file._prepare_journal(db, path)
    assert "without SQLite's write-ahead log (memory): use it on one machine only" in caplog.text


async def test_files_are_found_from_another_working_directory(
    service: FakeService,
    connect: Connect,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And after everything was moved, although no URL can be fetched any more."""
    requests = [one("a")]
    (tmp_path / "old" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "old")
    [outcome] = await run(connect(), Path("run.db"), requests, download_to="out")
    assert outcome.paths == (Path("out/a.png"),)
    service.script("result", *[Fault.reply(404)] * 9)
    monkeypatch.chdir("b")
    [outcome] = await run(connect(), Path("../run.db"), requests, download_to="../out")
    assert outcome.paths == (Path("../out/a.png"),)
    monkeypatch.chdir(tmp_path)
    os.rename("old", "new")  # noqa: PTH104 - a Path blocks no less
    path, out = Path("new/run.db"), Path("new/out")
    for _ in range(2):
        [outcome] = await run(connect(), path, requests, download_to=out)
        assert outcome.paths == (out / "a.png",)
        [row] = [row async for row in Ledger(path).rows()]
        assert row["paths"] == [str(tmp_path / "new" / "out" / "a.png")]
    assert len(service.charges) == 1


async def test_the_file_is_for_people(client: AsyncClient, path: Path) -> None:
    """While a batch runs another connection reads the rows, and the schema explains itself."""
    async with Ledger(path) as ledger:
        async for _ in client.run_many(lines(3), ledger=ledger):
            assert set(select(path)) <= set(LedgerState)
        with closing(sqlite3.connect(path)) as db:
            assert db.execute("PRAGMA user_version").fetchone() == (2,)
            assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            schema = db.execute("SELECT sql FROM sqlite_master WHERE name = 'tasks'").fetchone()[0]
    assert all(f"{word}: " in schema or f"{word}, " in schema for word in LedgerState)
    assert content(Path(f"{path}-wal")) is None


async def test_a_withdrawal_does_not_read_the_whole_table(path: Path) -> None:
    Store(path, "s").close()
    with closing(sqlite3.connect(path)) as db:
        plan = db.execute("EXPLAIN QUERY PLAN SELECT * FROM tasks WHERE retried_as = ?", ("a",))
        assert "USING INDEX" in plan.fetchone()[3]


YEAR = timedelta(days=365)


@pytest.mark.parametrize(
    "jumps",
    [
        (timedelta(), -timedelta(hours=5)),
        (timedelta(), -100 * YEAR, 100 * YEAR, timedelta(seconds=-1)),
        (7900 * YEAR, -1900 * YEAR),
    ],
)
async def test_the_clock_decides_nothing(
    service: FakeService,
    client: AsyncClient,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    jumps: Iterable[timedelta],
) -> None:
    """A clock that jumps back, by hours or to before 1970, changes neither order nor outcome."""
    wrong, now = cycle(jumps), datetime.now(UTC)

    class Jumping(datetime):
        """A clock that is wrong, and otherwise each time it is read."""

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            """Tell some time."""
            moment = (now + next(wrong)).astimezone(tz)
            return cls.fromisoformat(moment.isoformat())

    for module in (_file, _waiting):
        monkeypatch.setattr(module, "datetime", Jumping)
    monkeypatch.setattr(time, "time", lambda: Jumping.now().timestamp())
    requests = lines(30)
    await submit(client, path, requests[:10])
    async with Ledger(path) as ledger, aclosing(client.run_many(requests, ledger=ledger)) as batch:
        async for _ in batch:  # pragma: no branch
            break
    outcomes = await run(client, path, requests)
    assert [outcome.error for outcome in outcomes] == [None] * 30
    assert posts(service) == [1] * 30
    assert await run(client, path, requests) == outcomes
    assert len(select(path, "number")) == 30
    years = {int(moment[:4]) for moment in select(path, "updated_at")}
    assert years <= {(now + jump).year for jump in jumps}


async def test_an_id_is_held_by_one_batch_at_a_time(tmp_path: Path) -> None:
    async with Ledger(tmp_path / "run.db") as ledger:
        journal = journal_of(ledger)
        assert await journal.lock("a") is False
        waiters = [asyncio.create_task(journal.lock("a")) for _ in range(2)]
        for _ in waiters:
            await asyncio.sleep(0)
            assert not any(waiter.done() for waiter in waiters)
            journal.unlock("a")
            (done,), rest = await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
            assert done.result() is True
            waiters = list(rest)
        journal.unlock("a")
