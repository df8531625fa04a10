"""``aireiter demo``: what it does, what it counts, and when it has failed."""

import contextlib
import json
import sqlite3
from pathlib import Path
from typing import Any

import attrs
import pytest

from aireiter_async import (
    ClientStats,
    DownloadError,
    Failure,
    SubmitRequest,
    Success,
    Task,
    TaskStatus,
)
from aireiter_async.cli import main
from aireiter_async.cli._account import Account, account_view
from aireiter_async.cli._demo import Plan, run_demo
from aireiter_async.cli._failure import CommandError
from aireiter_async.cli._report import Manner, Report
from aireiter_async.cli._trouble import Trouble, requests
from aireiter_async.testing import Charge, FakeService, Fault
from tests.test_cli import start


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, in an environment that points to nowhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AIREITER_API_KEY", "not a key")
    monkeypatch.setenv("AIREITER_BASE_URL", "nowhere")


def plan(tasks: int, directory: Path | None = None) -> Plan:
    """Return a small demo."""
    return Plan(tasks=tasks, directory=directory, seed=0, concurrency=8, window=8)


def test_each_task_is_charged_once() -> None:
    """With faults on every task is charged once, completes and is saved, without a key."""
    process = start("demo", "--tasks", "40", "--json")
    out, err = (stream.decode() for stream in process.communicate())
    assert process.returncode == 0
    told = json.loads(out)
    assert (told["tasks"], told["completed"], told["charges"], told["files"]) == (40,) * 4
    assert told["settled"] == told["faults"]["tasks accepted, the answer lost"] > 0
    assert told["faults"]["refusals for pace (429)"] == 2
    assert told["retries"] > 0
    assert told["problems"] == []
    assert told["directory"] == "aireiter-demo"
    assert len([path for path in Path("aireiter-demo").glob("*.mp4") if path.stat().st_size]) == 40
    assert told["ledger"] == str(Path("aireiter-demo", "run.db"))
    with contextlib.closing(sqlite3.connect(told["ledger"])) as db:
        states = db.execute("SELECT state, count(*) FROM tasks GROUP BY state").fetchall()
    assert states == [("downloaded", 40)]
    title, *lines, last = err.splitlines()
    assert title.startswith("40 videos")
    assert 1 <= len(lines) <= 10
    assert "40/40" in lines[-1]
    assert last == ""


def test_the_account_is_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    """To people the account is a table that ends in a verdict; the folder is a new one."""
    Path("aireiter-demo").mkdir()
    assert main(["demo", "--tasks", "1", "--seed", "3"]) == 0
    out = capsys.readouterr().out
    names = [line[:16].strip() for line in out.splitlines() if line[:16].strip()]
    assert names[:3] == ["tasks", "charges", "faults"]
    assert names[-4:-1] == ["credits", "files", "ledger"]
    assert "aireiter-demo-2" in out
    assert out.endswith("\nEach task was charged once, and what it made is on disk.\n")
    assert {path.name for path in Path("aireiter-demo-2").iterdir()} >= {"demo-1.mp4", "run.db"}


def test_a_demo_has_a_ledger_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the folder of an earlier demo nothing is taken from that one's ledger."""
    for name in ("run.db", "run-2.db"):
        assert main(["demo", "--tasks", "1", "--directory", str(tmp_path), "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["charges"], told["ledger"]) == (1, str(tmp_path / name))


async def test_a_failed_task_fails_the_demo(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The demo is honest: what did not complete is named, after the account."""
    service = FakeService(faults={Fault.failed().on("submit"): 1.0})
    wanted = plan(4, tmp_path / "made" / "for it")
    report = Report(Manner(json=True))
    with pytest.raises(
        CommandError, match=r"4 not completed \(demo-1, demo-2, demo-3 and 1 more\)"
    ):
        await run_demo(wanted, Trouble(4, 0), service, report)
    told = json.loads(capsys.readouterr().out)
    assert (told["completed"], told["charges"]) == (0, 4)
    assert told["problems"][-1].startswith("the first error: the task failed: TIMEOUT")
    assert told["directory"] == str(tmp_path / "made" / "for it")


def account(**changes: Any) -> Account:
    """Return the account of two tasks that went well, with *changes*."""
    here = Path("here")
    here.write_bytes(b"x")
    ended = [
        Success(index, request, request, Task(name, TaskStatus.COMPLETED), (here,))
        for index, name in enumerate("ab")
        for request in [SubmitRequest("m", {}, name)]
    ]
    charges = [Charge(name, "m", 1.0, 0.0) for name in ("a", "b")]
    fine = Account(
        ended=ended,
        charges=charges,
        faults={},
        stats=ClientStats(),
        seconds=2.0,
        directory=Path(),
        ledger=Path("run.db"),
    )
    return attrs.evolve(fine, **changes)


def test_a_good_account_has_no_problems() -> None:
    """One charge, one completed task and one file each is all that is asked."""
    assert account().problems() == []


@pytest.mark.parametrize(
    ("charged", "told"),
    [
        ("aab", "1 not charged exactly once (a)"),
        ("a", "1 not charged exactly once (b)"),
        ("abc", "1 not charged exactly once (c)"),
    ],
)
def test_a_wrong_charge_is_a_problem(charged: str, told: str) -> None:
    """Twice, never, or for a task that nobody asked for."""
    charges = [Charge(name, "m", 1.0, 0.0) for name in charged]
    assert account(charges=charges).problems() == [told]


@pytest.mark.parametrize("content", [None, b""])
def test_a_missing_file_is_a_problem(content: bytes | None) -> None:
    """A file that is not there, or empty, was not downloaded."""
    path = Path("there")
    if content is not None:
        path.write_bytes(content)
    good, bad = account().ended
    assert isinstance(bad, Success)
    saved = [good, attrs.evolve(bad, paths=(path,))]
    assert account(ended=saved).problems() == ["1 not on disk (b)"]
    failed = Failure(1, bad.item, bad.request, DownloadError("http://x", "cut"), bad.task)
    assert account(ended=[good, failed]).problems() == [
        "1 not on disk (b)",
        "the first error: cut: http://x",
    ]


def test_a_bad_account_has_no_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    """Where there are problems the table claims nothing."""
    Report().answer(account(charges=[]).document(), account_view)
    assert "Each task" not in capsys.readouterr().out


def test_a_seed_decides_what_is_asked_and_what_goes_wrong() -> None:
    """The same seed makes the same demo, another one another."""
    assert requests(20, 1) == requests(20, 1)
    assert requests(20, 1) != requests(20, 2)
    assert len({request.params for request in requests(200, 0)}) > 100
    assert Trouble(20, 1)._scripts == Trouble(20, 1)._scripts
    assert Trouble(20, 1)._scripts != Trouble(20, 2)._scripts
