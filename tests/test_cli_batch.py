"""``aireiter batch``: what it runs, what it says, and how it goes on."""

import asyncio
import contextlib
import functools
import io
import json
import os
import signal
import sqlite3
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest

from aireiter_async import (
    AmbiguousSubmitError,
    AsyncClient,
    BatchProgress,
    BudgetExceededError,
    DownloadError,
    Failure,
    InvalidRequestError,
    PollPolicy,
    RetryPolicy,
    ServerError,
    SubmitRequest,
    Task,
    TaskStatus,
    TaskTimeoutError,
)
from aireiter_async._ledger._file import lock_ledger
from aireiter_async.cli import _connection, _stop, main
from aireiter_async.cli._stop import Stop, catching
from aireiter_async.cli._tally import Tally, row
from aireiter_async.testing import FakeService, Fault
from tests.test_cli import KEY, Ran, serving, start

Run = Callable[..., Ran]
Until = Callable[[Callable[[], object]], Awaitable[None]]


@attrs.define
class Hours:
    """A clock that stands still until it is put forward."""

    now: float = 0.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now


@pytest.fixture
def hours() -> Hours:
    """Return the clock of the service."""
    return Hours()


@pytest.fixture
def served(hours: Hours, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeService]:
    """Run a service that the environment points to, and work in an empty folder."""
    with serving(FakeService(clock=hours)) as service:
        monkeypatch.setenv("AIREITER_API_KEY", KEY)
        monkeypatch.setenv("AIREITER_BASE_URL", service.url)
        monkeypatch.chdir(tmp_path)
        yield service


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command in this process, with a client that does not wait between looks."""
    quick = functools.partial(
        AsyncClient,
        polling=PollPolicy(first=0, step=0.001, cap=0.001),
        retry=RetryPolicy(base=0, settle=0),
    )
    monkeypatch.setattr(_connection, "AsyncClient", quick)

    def run(*argv: str) -> Ran:
        return Ran(main(["batch", *argv]), *capsys.readouterr())

    return run


def write(count: int, name: str = "f.jsonl", *, named: bool = False) -> str:
    """Write a file of *count* requests, an empty line after each."""
    bodies = [
        {"model": "suno_lyrics", "params": {"prompt": f"rain {number}"}}
        | ({"out_task_id": f"id-{number}"} if named else {})
        for number in range(count)
    ]
    Path(name).write_text("".join(f"{json.dumps(body)}\n\n" for body in bodies))
    return name


def results(name: str = "results.jsonl") -> list[dict[str, Any]]:
    """Return the rows of the results, in the order of the requests."""
    rows = [json.loads(line) for line in Path(name).read_text().splitlines()]
    return sorted(rows, key=lambda each: each["index"])


def states() -> dict[str, int]:
    """Return how many tasks of the ledger are in each state."""
    with contextlib.closing(sqlite3.connect("f.jsonl.db")) as db:
        return dict(db.execute("SELECT state, count(*) FROM tasks GROUP BY state").fetchall())


def test_a_batch_runs_to_its_end(served: FakeService, run: Run) -> None:
    """Each line is charged once, saved and told, and there is one document on standard output."""
    name = write(5)
    ran = run(name, "--results", "results.jsonl", "--download", "new/out", "--json")
    assert ran.status == 0
    assert len(served.charges) == 5
    told = ran.document
    assert (
        told.items()
        >= {
            "file": name,
            "requests": 5,
            "completed": 5,
            "completed_before": 0,
            "failed": 0,
            "reasons": [],
            "unfinished": 0,
            "outstanding": 0,
            "credits_used": 5.0,
            "credits_of_ledger": 5.0,
            "files": 5,
            "directory": "new/out",
            "ledger": "f.jsonl.db",
            "results": "results.jsonl",
        }.items()
    )
    rows = results()
    assert [each["index"] for each in rows] == [0, 1, 2, 3, 4]
    assert [each["line"] for each in rows] == [1, 3, 5, 7, 9]
    assert {each["id"] for each in rows} == {charge.out_task_id for charge in served.charges}
    for each in rows:
        assert (each["model"], each["status"], each["credits"]) == ("suno_lyrics", "completed", 1)
        assert each["error"] is None
        assert each["outputs"][0]["title"] == "Últimos días, 末班列车 0"
        assert [Path(path).parent for path in each["files"]] == [Path("new/out")]
        assert Path(each["files"][0]).stat().st_size
    assert "5/5  done" in ran.err.splitlines()[-1]
    assert states() == {"downloaded": 5}


def test_a_batch_is_summed_up_for_people(served: FakeService, run: Run) -> None:
    """To people the sums are a table; a second run costs nothing, and says so."""
    name = write(3)
    assert run(name).status == 0
    ran = run(name, "--results", "results.jsonl", "--download", "out")
    assert (ran.status, len(served.charges)) == (0, 3)
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in ran.out.splitlines()}
    seconds = float(rows.pop("seconds"))
    assert seconds < 60
    assert rows == {
        "requests": "3 f.jsonl",
        "completed": "3 of them 3 before, as the ledger says",
        "failed": "0",
        "retries": "0 of HTTP requests that had failed",
        "settled": "0 lost answers, made good by asking, not by paying",
        "credits": "0 in this run; 3 in the ledger",
        "files": "3 out",
        "ledger": "f.jsonl.db",
        "results": "results.jsonl",
    }


def test_rows_of_a_csv_file_are_requests(served: FakeService, run: Run) -> None:
    """Columns are parameters, and out_task_id is the id."""
    Path("f.csv").write_text('out_task_id,prompt\na,rain\nb,"snow,\nfog"\n')
    ran = run("f.csv", "--model", "suno_lyrics", "--ledger", "l.db", "--window", "1")
    assert ran.status == 0
    bodies = [each.fields for each in served.requests if "params" in each.fields]
    assert [(body["out_task_id"], body["params"]) for body in bodies] == [
        ("a", {"prompt": "rain"}),
        ("b", {"prompt": "snow,\nfog"}),
    ]
    assert Path("l.db").exists()


def test_what_has_failed_is_tried_again_when_asked_for(served: FakeService, run: Run) -> None:
    """Failures exit with 1 and are named by reason and line; a re-run leaves them until told."""
    name = write(6)
    served.script("submit", Fault.failed("TIMEOUT", "late"), Fault.failed("NSFW"), Fault.ok())
    served.script("submit", *[Fault.failed("TIMEOUT", "late")] * 3)
    options = (name, "--results", "results.jsonl", "--window", "1")
    ran = run(*options)
    assert ran.status == 1
    assert "failed       5\n" in ran.out
    told = " 4  task failed, TIMEOUT, lines 1, 7, 9 and others: the task failed: TIMEOUT: late"
    assert told in ran.out
    assert " 1  task failed, NSFW, line 3: " in ran.out
    assert ran.err.splitlines()[-1].startswith("aireiter: 5 of 6 requests have failed; ")
    bad = results()[0]
    assert (bad["status"], bad["error"]["failure_code"], bad["files"]) == ("failed", "TIMEOUT", [])
    before = len(served.charges)
    again = run(*options, "--json")
    assert (again.status, len(served.charges)) == (1, before)
    assert (again.document["completed"], again.document["reasons"][0]["count"]) == (1, 4)
    assert again.document["reasons"][0]["lines"] == [1, 7, 9]
    retried = run(*options, "--retry-failed", "--json")
    assert (retried.status, len(served.charges)) == (0, before + 5)
    assert len(results()) == retried.document["completed"] == 6
    assert run(*options).status == 0


def test_a_batch_stops_at_its_budget(served: FakeService, run: Run) -> None:
    name = write(5)
    served.script("submit", Fault.failed("TIMEOUT"))
    ran = run(name, "--max-credits", "2", "--window", "1", "--results", "results.jsonl")
    assert ran.status == 4
    assert (served.credits, len(served.charges)) == (1e6 - 2, 3)
    assert "--max-credits is reached, 2 requests were not submitted" in ran.err
    assert "over budget, lines 7, 9: --max-credits is 2" in ran.out
    assert [each["status"] for each in results()] == [
        "failed",
        "completed",
        "completed",
        "unsubmitted",
        "unsubmitted",
    ]
    assert run(name, "--max-credits", "5", "--retry-failed").status == 0
    assert served.credits == 1e6 - 5


def test_credits_that_nobody_told_are_counted(served: FakeService, run: Run) -> None:
    """Of tasks that go on without an estimate it is said that their price is not known."""
    served.estimates = False
    served.durations = 1000
    ran = run(write(2), "--timeout", "0")
    assert ran.status == 1
    assert "0  in this run; 0 in the ledger; 2 tasks did not say" in ran.out
    assert "task goes on, lines " in ran.out
    assert "aireiter wait" in ran.out


def test_another_request_under_a_known_id_is_a_failure(served: FakeService, run: Run) -> None:
    """A line that was changed under its own id is told, and not sent."""
    name = write(2, named=True)
    assert run(name).status == 0
    Path(name).write_text(Path(name).read_text().replace("rain 1", "snow"))
    ran = run(name)
    assert (ran.status, len(served.charges)) == (1, 2)
    assert "LedgerError, line 3: f.jsonl.db: out_task_id id-1 stands for another" in ran.out


def test_a_ledger_that_cannot_be_used_is_bad_input(served: FakeService, run: Run) -> None:
    """A file that is no ledger, and one that is in use, leave everything as it is."""
    name = write(2)
    Path("results.jsonl").write_text("kept")
    options = (name, "--results", "results.jsonl")
    ran = run(*options, "--ledger", name)
    assert (ran.status, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert "--ledger: f.jsonl: file is not a database" in ran.err
    with contextlib.closing(lock_ledger(Path("f.jsonl.db"))):
        ran = run(*options)
    assert (ran.status, ran.err.count("\n")) == (2, 1)
    assert "another batch is running with this ledger" in ran.err
    assert Path("results.jsonl").read_text() == "kept"
    assert served.requests == []


def test_a_ledger_that_breaks_is_a_failure(served: FakeService, run: Run) -> None:
    """When the ledger cannot be written any more, the batch ends in one line."""
    name = write(1)
    assert run(name).status == 0
    with contextlib.closing(sqlite3.connect("f.jsonl.db")) as db:
        db.execute(
            "CREATE TRIGGER broken BEFORE UPDATE ON tasks BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
    write(3)
    ran = run(name, "--json")
    assert ran.status == 1
    assert ran.document["error"]["type"] == "LedgerError"
    assert ran.err.splitlines()[-1].startswith("aireiter: f.jsonl.db: no (SQLite)")
    assert len(served.charges) <= 3


USAGE: list[tuple[tuple[str, ...], str]] = [
    (("--concurrency", "0"), "--concurrency must be at least 1, got 0"),
    (("--window", "0"), "--window must be at least 1, got 0"),
    (("--max-credits", "-1"), "--max-credits must be at least 0, got -1.0"),
    (("--timeout", "nan"), "--timeout must be at least 0, got nan"),
    (("--max-rate", "0"), "--max-rate must be more than 0, got 0.0"),
    (("--max-rate", "inf"), "--max-rate must be more than 0, got inf"),
    (("--download", "/dev/null/x"), "--download: there can be no such folder"),
    (("--results", "/dev/null/x"), "--results cannot be written"),
    (("--results", "./f.jsonl"), "--results is the file of requests"),
    (("--results", "f.jsonl.db"), "--results is the ledger"),
    (("--ledger", "/dev/null/x"), "--ledger: "),
]


@pytest.mark.parametrize(("argv", "told"), USAGE, ids=[" ".join(argv) for argv, _ in USAGE])
def test_bad_usage_sends_nothing(
    served: FakeService, run: Run, argv: tuple[str, ...], told: str
) -> None:
    """What cannot be done as asked exits with 2 in one line."""
    ran = run(write(1), *argv)
    assert (ran.status, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert told in ran.err
    assert served.requests == []
    assert Path("f.jsonl").read_text()


def test_standard_input_needs_a_ledger(served: FakeService, run: Run) -> None:
    """There is no place beside standard input, and no second chance to read it."""
    text = Path(write(3)).read_text().encode()
    process = start("batch", "-", "--ledger", "l.db", "--json", stdin=True)
    out, err = process.communicate(text)
    assert (process.returncode, json.loads(out)["completed"]) == (0, 3), err
    assert len(served.charges) == 3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
        ran = run("-")
    assert (ran.status, "--ledger must say" in ran.err) == (2, True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_program_is_gone_on_with(
    served: FakeService, run: Run, hours: Hours, number: signal.Signals
) -> None:
    """A program that is asked to end leaves the waits, and the same command finishes the rest."""
    served.durations = 1000
    name = write(8)
    options = (name, "--window", "4", "--results", "results.jsonl")
    process = start("batch", *options)
    while len(served.charges) < 4:
        assert process.poll() is None
    process.send_signal(number)
    out, err = process.communicate()
    assert process.returncode == 3
    assert b"of them 4 go on at the service\n" in out
    assert err.splitlines()[-1] == (
        b"aireiter: interrupted; to go on, run the same command again: nothing is lost"
    )
    assert states() == {"submitted": 4}
    hours.now = 2000
    served.durations = 0
    ran = run(*options)
    assert (ran.status, len(served.charges)) == (0, 8), ran.err
    assert len(results()) == 8


def test_running_submits_are_brought_to_their_end(
    served: FakeService, run: Run, hours: Hours
) -> None:
    """Ctrl-C waits for the submits that are under way, and takes no new line."""

    def price(_model: str, _params: Mapping[str, Any]) -> float:
        if len(served.charges) == 0:
            os.kill(os.getpid(), signal.SIGINT)
        return 1.0

    served.durations = 1000
    served.price = price
    name = write(6)
    ran = run(name, "--window", "2")
    assert ran.status == 3
    assert "; Ctrl-C again leaves them" in ran.err
    assert len(served.charges) == states()["submitted"] == 2
    hours.now = 2000
    served.durations = 0
    assert run(name).status == 0
    assert len(served.charges) == 6


def test_a_second_interrupt_ends_at_once(served: FakeService, run: Run) -> None:
    """A submit that hangs is left too, and looked for when the batch goes on."""
    served.script("submit", Fault.hang(accepted=True))
    name = write(3)
    process = start("batch", name, "--window", "1")
    assert process.stderr is not None
    while not served.charges:
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    told = process.stderr.readline()
    assert told.startswith(
        b"interrupted: no more lines are taken; submits that come to their end: 1;"
    )
    process.send_signal(signal.SIGINT)
    assert process.communicate()[1].startswith(b"aireiter: interrupted; to go on")
    assert (process.returncode, states()) == (3, {"intended": 1})
    assert run(name).status == 0
    assert len(served.charges) == 3


def test_an_interrupt_may_come_before_anything_is_sent(
    served: FakeService, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the input is read, Ctrl-C ends at once."""

    class Slow(io.BytesIO):
        def read(self, *_: Any) -> Any:
            return signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Slow()))
    ran = run("-", "--ledger", "l.db")
    assert ran == Ran(3, "", "aireiter: interrupted; nothing was sent\n")
    ran = run("-", "--ledger", "l.db", "--json")
    assert (ran.status, ran.document["error"]["type"]) == (3, "Interrupted")
    assert signal.getsignal(signal.SIGINT) is before
    assert served.requests == []


async def test_a_submit_that_was_not_told_of_yet_is_awaited(
    until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_stop, "_LAG", 0.0)
    told: list[str] = []
    stop = Stop(told.append)
    loop = asyncio.get_running_loop()
    batch = asyncio.create_task(stop.guard(loop.create_future()))
    await asyncio.sleep(0)
    stop.on_signal(signal.SIGINT, None)
    loop.call_soon(stop.follow, BatchProgress(submitting=2))
    await until(lambda: told)
    assert ": 2; Ctrl-C again" in told[0]
    assert not batch.done()
    stop.follow(BatchProgress())
    await asyncio.wait([batch])
    assert stop.asked


async def test_a_batch_without_a_submit_is_left_a_moment_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_stop, "_LAG", 0.0)
    told: list[str] = []
    stop = Stop(told.append)
    stop.on_signal(signal.SIGINT, None)
    guarded = asyncio.create_task(stop.guard(asyncio.get_running_loop().create_future()))
    await asyncio.wait([guarded])
    assert (stop.asked, told, guarded.exception()) == (True, [], None)


async def test_a_third_interrupt_breaks_off_whatever_it_is() -> None:
    told: list[str] = []
    stop = Stop(told.append)
    with catching(stop.on_signal):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    await asyncio.sleep(0)
    assert (stop.asked, told) == (True, [])


def test_an_interrupt_before_the_first_line_sends_nothing(served: FakeService, run: Run) -> None:
    """Whenever it comes, the batch ends as it should, and is gone on with."""
    name = write(3)
    os.mkfifo("results.jsonl")

    def interrupt() -> None:
        while not Path("f.jsonl.db").exists():
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        Path("results.jsonl").read_bytes()  # the command waits for a reader before it begins

    thread = threading.Thread(target=interrupt)
    thread.start()
    ran = run(name, "--results", "results.jsonl", "--json")
    thread.join()
    assert (ran.status, ran.document["unfinished"], served.requests) == (3, 3, [])
    assert run(name).status == 0


async def test_a_timeout_of_the_batch_is_no_interrupt() -> None:
    """A TimeoutError from within is passed on."""

    async def running() -> None:
        raise TimeoutError("from within")

    with pytest.raises(TimeoutError, match="from within"):
        await Stop(print).guard(running())


def test_lines_that_are_added_to_a_running_batch_are_left(served: FakeService, run: Run) -> None:
    """What was not checked is not sent."""
    name = write(2)

    def price(_model: str, _params: Mapping[str, Any]) -> float:
        with Path(name).open("a") as file:
            file.write("[]\n")
        return 1.0

    served.price = price
    assert run(name, "--window", "1").status == 0
    assert len(served.charges) == 2


def test_results_that_cannot_be_written_end_the_batch(served: FakeService, run: Run) -> None:
    """A full disk is told in one line, and what was submitted is in the ledger."""
    ran = run(write(3), "--results", "/dev/full")
    assert ran.status == 1
    assert "No space left on device" in ran.err.splitlines()[-1]
    assert sum(states().values()) == len(served.charges)


REQUEST = SubmitRequest("m", {}, "mine")


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (AmbiguousSubmitError("mine"), "uncertain", "AmbiguousSubmitError"),
        (BudgetExceededError("over"), "unsubmitted", "over budget"),
        (DownloadError("http://x", "cut"), "completed", "DownloadError"),
        (InvalidRequestError(422, "no"), "refused", "refused, code 422"),
        (ServerError(503, "no"), None, "refused, code 503"),
        (TaskTimeoutError(Task("mine", TaskStatus.PROCESSING)), "processing", "task goes on"),
    ],
)
def test_an_error_says_what_is_known_of_its_task(
    error: Exception, status: str | None, reason: str
) -> None:
    """A row without a task has the status that its error implies, and an error for a program."""
    outcome = Failure(7, REQUEST, REQUEST, error)
    told = row(outcome, 9)
    assert (told["index"], told["line"], told["id"], told["status"]) == (7, 9, "mine", status)
    assert told["error"]["type"] == type(error).__name__
    tally = Tally()
    tally.add(outcome, 9)
    assert list(tally.reasons) == [reason]
