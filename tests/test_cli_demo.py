"""``aireiter demo``: what it does, what it counts, and when it has failed."""

import contextlib
import json
import sqlite3
from pathlib import Path

import pytest

from aireiter_async import DownloadError, SubmitRequest, Task, TaskStatus
from aireiter_async._batch import Failure, Success
from aireiter_async.cli import main
from aireiter_async.cli._demo import (
    DemoOptions,
    FaultScript,
    find_problems,
    requests,
    run_demo,
)
from aireiter_async.cli._errors import CommandError
from aireiter_async.cli._output import Output, OutputOptions
from aireiter_async.testing import Charge, FakeService, Fault
from tests.command import start


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty directory, with an environment that points nowhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AIREITER_API_KEY", "not a key")
    monkeypatch.setenv("AIREITER_BASE_URL", "nowhere")


def test_each_task_is_charged_once() -> None:
    process = start("demo", "--tasks", "40", "--json")
    out, err = (stream.decode() for stream in process.communicate())
    assert process.returncode == 0
    document = json.loads(out)
    counts = ("tasks", "succeeded", "charges", "files")
    assert [document[name] for name in counts] == [40] * 4
    lost = document["faults"]["tasks accepted, the response lost"]
    assert document["settled"] == lost > 0
    assert document["charges_if_resent"] == 40 + lost
    assert document["faults"]["rate limits (429)"] == 2
    assert document["retries"] > 0
    assert document["problems"] == []
    assert document["directory"] == "aireiter-demo"
    assert len([path for path in Path("aireiter-demo").glob("demo-*") if path.stat().st_size]) == 40
    assert document["ledger"] == str(Path("aireiter-demo", "run.db"))
    assert document["report"] == str(Path("aireiter-demo", "run.html"))
    assert "demo-01" in Path(document["report"]).read_text()
    with contextlib.closing(sqlite3.connect(document["ledger"])) as db:
        states = db.execute("SELECT state, count(*) FROM tasks GROUP BY state").fetchall()
    assert states == [("downloaded", 40)]
    title, *lines, last = err.splitlines()
    assert title == (
        "40 tasks on a service that loses responses: each must be charged exactly once."
    )
    assert 1 <= len(lines) <= 10
    assert "40/40" in lines[-1]
    assert last == ""


def test_it_ends_with_the_comparison_and_the_next_command(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("aireiter-demo").mkdir()
    assert main(["demo", "--tasks", "5", "--seed", "3"]) == 0
    out = capsys.readouterr().out
    names = [line.split()[0] for line in out.splitlines() if line[:1].strip()]
    assert names[:4] == ["tasks", "charges", "faults", "requests"]
    assert (
        "\n1 response was lost after the task was accepted. A client that resends would have paid "
        "6 times; this one paid 5 times.\n"
    ) in out
    assert "aireiter-demo-2" in out
    assert out.endswith('aireiter run nano_banana_v2 prompt="a lighthouse in a storm"\n')
    assert {path.stem for path in Path("aireiter-demo-2").iterdir()} >= {"demo-1", "run"}


def test_a_demo_has_a_ledger_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("run.db", "run-2.db"):
        assert main(["demo", "--tasks", "1", "--directory", str(tmp_path), "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert (document["charges"], document["ledger"]) == (1, str(tmp_path / name))


@pytest.mark.parametrize("json_", [True, False])
async def test_a_failed_task_fails_the_demo(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *, json_: bool
) -> None:
    service = FakeService(faults={Fault.failed().on("submit"): 1.0})
    directory = tmp_path / "made" / "for it"
    options = DemoOptions(tasks=4, directory=directory, seed=0, concurrency=8, window=8)
    output = Output(OutputOptions(json=json_))
    with pytest.raises(
        CommandError, match=r"4 not completed \(demo-1, demo-2, demo-3 and 1 more\)"
    ):
        await run_demo(options, FaultScript(4, 0), service, output)
    out = capsys.readouterr().out
    if not json_:
        assert "A client that resends" not in out
        return
    document = json.loads(out)
    assert (document["succeeded"], document["charges"]) == (0, 4)
    assert document["problems"][-1].startswith("the first error: the task failed: TIMEOUT")
    assert document["directory"] == str(directory)


def outcomes(path: Path) -> list[Success[SubmitRequest]]:
    """Return two tasks that succeeded, with a file."""
    path.write_bytes(b"x")
    made = [SubmitRequest("m", {}, name) for name in "ab"]
    return [
        Success(index, each, each, Task(each.out_task_id, TaskStatus.COMPLETED), (path,))
        for index, each in enumerate(made)
    ]


@pytest.mark.parametrize(
    ("charged", "problems"),
    [
        ("ab", []),
        ("aab", ["1 not charged exactly once (a)"]),
        ("a", ["1 not charged exactly once (b)"]),
        ("abc", ["1 not charged exactly once (c)"]),
    ],
)
def test_a_wrong_charge_is_a_problem(charged: str, problems: list[str]) -> None:
    charges = [Charge(name, "m", 1.0, 0.0) for name in charged]
    assert find_problems(outcomes(Path("here")), charges) == problems


@pytest.mark.parametrize("content", [None, b""])
def test_a_missing_file_is_a_problem(content: bytes | None) -> None:
    charges = [Charge(name, "m", 1.0, 0.0) for name in "ab"]
    good, bad = outcomes(Path("here"))
    path = Path("there")
    if content is not None:
        path.write_bytes(content)
    moved = Success(1, bad.item, bad.request, bad.task, (path,))
    assert find_problems([good, moved], charges) == ["1 not on disk (b)"]
    failed = Failure(1, bad.item, bad.request, DownloadError("http://x", "cut"))
    assert find_problems([good, failed], charges) == [
        "1 not completed (b)",
        "1 not on disk (b)",
        "the first error: cut: http://x",
    ]


def test_a_seed_decides_what_is_requested_and_what_goes_wrong() -> None:
    first, again, other = (
        [(each.out_task_id, each.params) for each in requests(40, seed)] for seed in (1, 1, 2)
    )
    assert first == again != other
    assert FaultScript(20, 1)._scripts == FaultScript(20, 1)._scripts
    assert FaultScript(20, 1)._scripts != FaultScript(20, 2)._scripts
