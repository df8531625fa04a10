"""``aireiter batch``: what it runs, what it reports, and how it resumes."""

import asyncio
import contextlib
import csv
import errno
import hashlib
import io
import json
import os
import re
import shutil
import signal
import sqlite3
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from aireiter_async import (
    AmbiguousSubmitError,
    AuthenticationError,
    BudgetExceededError,
    DownloadError,
    InvalidRequestError,
    Ledger,
    NotSubmittedError,
    ServerError,
    SubmitRequest,
    Task,
    TaskNotFoundError,
    TaskStatus,
    TaskTimeoutError,
)
from aireiter_async._batch import Failure
from aireiter_async._ledger._lock import Lock
from aireiter_async.cli import _page, _signals
from aireiter_async.cli._batch import Source, _conclude
from aireiter_async.cli._errors import CommandError
from aireiter_async.cli._output import Output
from aireiter_async.cli._page import keep_page, write_page
from aireiter_async.cli._results import result_document
from aireiter_async.cli._rows import Row, Rows
from aireiter_async.cli._signals import Stop, catching
from aireiter_async.cli._summary import Summary
from aireiter_async.report import PageBuilder
from aireiter_async.testing import FakeService, Fault
from tests.command import KEY, PNG, Ran, start

Run = Callable[..., Ran]
Until = Callable[[Callable[[], object]], Awaitable[None]]


@pytest.fixture
def run(aireiter: Run) -> Run:
    """Return what runs ``aireiter batch`` in this process."""
    return lambda *argv: aireiter("batch", *argv)


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
    name = write(5)
    ran = run(name, "--results", "results.jsonl", "--download", "new/out", "--json")
    assert ran.status == 0
    assert len(served.charges) == 5
    expected = {
        "file": name,
        "requests": 5,
        "succeeded": 5,
        "known": 0,
        "failed": 0,
        "not_submitted": 0,
        "reasons": [],
        "unfinished": 0,
        "running": 0,
        "credits_used": 5.0,
        "credits_of_ledger": 5.0,
        "files": 5,
        "directory": "new/out",
        "ledger": "f.jsonl.db",
        "results": "results.jsonl",
    }
    assert ran.document.items() >= expected.items()
    rows = results()
    assert [each["index"] for each in rows] == [0, 1, 2, 3, 4]
    assert [each["line"] for each in rows] == [1, 3, 5, 7, 9]
    assert {each["out_task_id"] for each in rows} == {each.out_task_id for each in served.charges}
    for each in rows:
        assert (each["model"], each["status"], each["credits"]) == ("suno_lyrics", "completed", 1)
        assert (each["error"], each["columns"]) == (None, {})
        assert each["params"] == {"prompt": each["prompt"]}
        assert each["created_at"] <= each["completed_at"]
        assert each["outputs"][0]["title"] == "Últimos días, 末班列车 0"
        [file] = each["files"]
        content = Path("new/out", Path(file["path"]).name).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        assert (file["size"], file["sha256"]) == (len(content), digest)
        assert each["task_id"].startswith("order_")
    assert "5/5  failed 0  running 0" in ran.err.splitlines()[-1]
    assert states() == {"downloaded": 5}


def test_a_batch_is_summed_up_for_people(served: FakeService, run: Run) -> None:
    name = write(3)
    assert run(name).status == 0
    ran = run(name, "--results", "results.jsonl", "-o", "out")
    assert (ran.status, len(served.charges)) == (0, 3)
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in ran.out.splitlines()}
    assert float(rows.pop("seconds")) < 60
    assert rows == {
        "requests": "3 f.jsonl",
        "succeeded": "3 3 submitted earlier",
        "failed": "0",
        "retries": "0 failed HTTP requests sent again",
        "settled": "0 lost responses, recovered without paying again",
        "credits": "0 of tasks that ended in this run; 3 in the ledger",
        "files": "3 out",
        "ledger": "f.jsonl.db",
        "results": "results.jsonl",
    }


def test_results_may_be_a_table_that_no_spreadsheet_runs(served: FakeService, run: Run) -> None:
    prompts = ['=HYPERLINK("http://x.invalid?"&A1)', "@SUM(1)", "-1girl, forest", "a\nb", "plain"]
    notes = ["", "=1", "-1", "x", "y"]
    with Path("f.csv").open("w", newline="") as file:
        rows = zip(prompts, notes, range(5), strict=True)
        csv.writer(file).writerows([["prompt", "=notes", "line"], *rows])
    options = ("-m", "suno_lyrics", "--keep-columns", "--results", "r.CSV", "--window", "1")
    assert run("f.csv", *options).status == 0
    with Path("r.CSV").open(newline="") as file:
        header, *table = csv.reader(file)
    assert header[:6] == ["index", "line", "out_task_id", "model", "prompt", "status"]
    assert header[-2:] == ["'=notes", "input_line"]
    cells = [dict(zip(header, row, strict=True)) for row in table]
    assert [row["prompt"] for row in cells] == [
        *(f"'{each}" for each in prompts[:3]),
        "a\nb",
        "plain",
    ]
    assert [row["'=notes"] for row in cells] == ["", "'=1", "'-1", "x", "y"]
    assert [row["input_line"] for row in cells] == ["0", "1", "2", "3", "4"]
    assert {row["out_task_id"] for row in cells} == {each.out_task_id for each in served.charges}
    assert [row["credits"] for row in cells] == ["1.0"] * 5
    assert json.loads(cells[0]["params"]) == {"prompt": prompts[0]}
    with Path("r.CSV").open("rb") as file:
        read = Rows(name="r", file=file, format="csv", model="suno_lyrics", keep_columns=True)
        again = [row.request for row in read.read()]
    assert [each and each.params.to_params()["prompt"] for each in again] == prompts  # type: ignore[union-attr]


def test_rows_of_a_table_are_requests(served: FakeService, run: Run) -> None:
    Path("f.csv").write_text('out_task_id,prompt\na,rain\nb,"snow,\nfog"\n')
    ran = run("f.csv", "-m", "suno_lyrics", "--ledger", "l.db", "--window", "1")
    assert ran.status == 0
    bodies = [each.fields for each in served.requests if "params" in each.fields]
    assert [(body["out_task_id"], body["params"]) for body in bodies] == [
        ("a", {"prompt": "rain"}),
        ("b", {"prompt": "snow,\nfog"}),
    ]
    assert Path("l.db").exists()


def test_files_are_named_as_asked_for(served: FakeService, run: Run) -> None:
    del served
    prompts = ["red fox", "Red Fox", "{n} ../../x", "CON", ". ."]
    lines = [f'"{prompt}";{n}' for n, prompt in enumerate(prompts)]
    Path("f.csv").write_text("prompt;key\n" + "\n".join(lines))
    options = ("-m", "suno_lyrics", "--keep-columns", "--window", "1")
    ran = run("f.csv", *options, "-o", "out", "--name", "{key}-{prompt:.12}")
    assert ran.status == 0, ran.out
    names = sorted(path.name for path in Path("out").iterdir())
    assert names == ["0-red fox.txt", "1-Red Fox.txt", "2-{n} .._.._x.txt", "3-CON.txt", "4-.txt"]
    assert run("f.csv", *options, "-o", "2", "--ledger", "2.db", "--name", "{prompt}").status == 0
    assert len([*Path("2").iterdir()]) == 5
    ran = run("f.csv", *options, "-o", "3", "--ledger", "3.db", "--name", "{line}-{index:03}-{n:2}")
    assert ran.status == 0
    assert min(path.name for path in Path("3").iterdir()) == "2-000- 1.txt"


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("{task.__init__.__globals__}", "--name may have fields such as {prompt}"),
        ("{prompt[0]}", "--name may have fields"),
        ("{notes}", "--name has no field notes; the fields are index, line, model, n, out_task_id"),
        ("a/{prompt}", "--name must be a file name without a directory"),
        ("{", "--name is not a template"),
    ],
)
def test_a_name_with_other_fields_sends_nothing(
    served: FakeService, aireiter: Run, name: str, error: str
) -> None:
    for argv in (("batch", write(2), "-o", "out"), ("run", "suno_lyrics", "-p", "x")):
        ran = aireiter(*argv, "--name", name)
        assert (ran.status, ran.out, served.requests) == (2, "", [])
        assert error.partition(";")[0] in ran.err
    assert "--name needs --download" in aireiter("batch", write(2), "--name", "{index}").err


def test_kept_columns_and_keys_reappear_in_the_results(served: FakeService, run: Run) -> None:
    del served
    lines = [{"model": "suno_lyrics", "params": {"prompt": f"rain {n}"}, "id": n} for n in range(3)]
    Path("f.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert run("f.jsonl", "--keep-columns", "--results", "results.jsonl").status == 0
    assert [each["columns"] for each in results()] == [{"id": 0}, {"id": 1}, {"id": 2}]


def test_what_failed_is_retried_when_asked_for(served: FakeService, run: Run) -> None:
    name = write(6)
    served.script("submit", Fault.failed("TIMEOUT", "late"), Fault.failed("NSFW"), Fault.ok())
    served.script("submit", *[Fault.failed("TIMEOUT", "late")] * 3)
    options = (name, "--results", "results.jsonl", "--window", "1")
    ran = run(*options)
    assert ran.status == 1
    assert "failed       5\n" in ran.out
    reason = " 4  task failed, TIMEOUT, lines 1, 7, 9 and others: the task failed: TIMEOUT: late"
    assert reason in ran.out
    assert " 1  task failed, NSFW, line 3: " in ran.out
    assert ran.err.splitlines()[-1].startswith("aireiter: 5 of 6 requests failed; ")
    bad = results()[0]
    assert (bad["status"], bad["error"]["failure_code"], bad["files"]) == ("failed", "TIMEOUT", [])
    before = len(served.charges)
    again = run(*options, "--json")
    assert (again.status, len(served.charges)) == (1, before)
    assert (again.document["succeeded"], again.document["reasons"][0]["count"]) == (1, 4)
    assert again.document["reasons"][0]["lines"] == [1, 7, 9]
    retried = run(*options, "--retry-failed", "--json")
    assert (retried.status, len(served.charges)) == (0, before + 5)
    assert len(results()) == retried.document["succeeded"] == 6
    assert retried.document["known"] == 1
    assert run(*options).status == 0


def test_a_batch_stops_at_its_budget(served: FakeService, run: Run) -> None:
    name = write(5)
    served.script("submit", Fault.failed("TIMEOUT"))
    ran = run(name, "--max-credits", "2", "--window", "1", "--results", "results.jsonl")
    assert ran.status == 4
    assert (served.credits, len(served.charges)) == (1e6 - 2, 3)
    assert "--max-credits is reached, 2 requests not submitted" in ran.err
    assert re.search(r"^failed +1$", ran.out, re.MULTILINE)
    assert re.search(r"^not submitted +2$", ran.out, re.MULTILINE)
    assert "over budget, lines 7, 9: --max-credits is 2" in ran.out
    statuses = ["failed", "completed", "completed", "not submitted", "not submitted"]
    assert [each["status"] for each in results()] == statuses
    assert run(name, "--max-credits", "5", "--retry-failed").status == 0
    assert served.credits == 1e6 - 5


def test_unknown_prices_are_counted(served: FakeService, run: Run) -> None:
    served.estimates = False
    served.durations = 1000
    ran = run(write(2), "--timeout", "0")
    ended = "0  of tasks that ended in this run; 0 in the ledger; the price of 2 tasks is unknown"
    assert ended in ran.out
    assert "task still running, lines " in ran.out
    assert "; the same command finishes it\n" in ran.out
    assert "aireiter wait" not in ran.out


def test_a_task_that_still_runs_has_not_failed(served: FakeService, run: Run) -> None:
    """Nor has one that may have been submitted."""
    served.durations = 1000
    served.script("submit", Fault.bad_request("no"), Fault.ok())
    name = write(3)
    ran = run(name, "--timeout", "0", "--json")
    counts = ("succeeded", "failed", "not_submitted", "unfinished", "running")
    assert (ran.status, [ran.document[key] for key in counts]) == (3, [0, 1, 0, 2, 2])
    told = "2 of 3 requests unfinished; to resume, run the same command again: nothing is lost"
    assert ran.err.splitlines()[-1] == f"aireiter: {told}"
    assert re.search(" 1/3  failed 1  ", ran.err.splitlines()[-2])  # those that run are not done
    assert [each["unfinished"] for each in ran.document["reasons"]] in (
        [False, True],
        [True, False],
    )
    shown = [line.split()[:3] for line in run(name, "--timeout", "0").out.splitlines()]
    assert [line[0] for line in shown[2:6]] == ["failed", "1", "unfinished", "2"]
    assert len(served.charges) == 2
    summary, pending = Summary(), Task("mine", TaskStatus.PENDING)
    summary.add(Failure(0, Row(1, REQUEST), None, AmbiguousSubmitError("mine")))
    summary.add(Failure(1, Row(2, REQUEST), None, ServerError(400, "no polls"), pending))
    assert (summary.failed, summary.open, summary.ended) == (0, 2, 0)
    summary.add(Failure(2, Row(3, REQUEST), None, TaskNotFoundError(404, "gone"), pending))
    assert (summary.failed, summary.open, summary.ended) == (1, 2, 1)


def test_another_request_under_a_known_id_is_a_failure(served: FakeService, run: Run) -> None:
    name = write(2, named=True)
    assert run(name).status == 0
    Path(name).write_text(Path(name).read_text().replace("rain 1", "snow"))
    ran = run(name)
    assert (ran.status, len(served.charges)) == (1, 2)
    assert "LedgerError, line 3: f.jsonl.db: out_task_id id-1 belongs to another" in ran.out


def test_a_dry_run_tells_known_requests_from_new_ones(served: FakeService, run: Run) -> None:
    """By content and occurrence, by ID, and with what was retried counted once."""
    lines = [{"model": "suno_lyrics", "params": {"prompt": text}} for text in "abbc"]
    lines[3]["out_task_id"] = "mine"
    served.script("submit", Fault.failed())
    path = Path("f.jsonl")
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert run("f.jsonl", "--window", "1").status == 1
    assert run("f.jsonl", "--retry-failed").status == 0
    new = [{**lines[0], "out_task_id": "new"}, lines[1], {**lines[0], "model": "suno"}]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in [*new, *reversed(lines)]))
    ran = run("f.jsonl", "--dry-run", "--json")
    assert (ran.document["requests"], ran.document["known"], ran.document["new"]) == (7, 4, 3)
    assert "4 known, 3 new; nothing was sent" in run("f.jsonl", "--dry-run").out
    before = len(served.charges)
    assert run("f.jsonl").status == 0
    assert len(served.charges) == before + 3
    assert "7 known, 0 new" in run("f.jsonl", "--dry-run").out
    ran = run("f.jsonl", "--dry-run", "--ledger", "f.jsonl")
    assert (ran.status, "--ledger: f.jsonl: " in ran.err) == (2, True)


def test_an_estimate_multiplies_prices_by_rows(served: FakeService, run: Run) -> None:
    served.price = lambda _, params: 2.0 * params["video_length"]
    served.estimates = False
    lines = [("8", "a"), ("8", "b"), ("5", "c"), ("8", "d")]
    table = "".join(f"{seconds},{prompt}\n" for seconds, prompt in lines)
    Path("f.csv").write_text(f"video_length,prompt\n{table}")
    options = ("f.csv", "aspect_ratio=16:9", "-m", "seedance_1_5_pro")
    ran = run(*options, "--estimate", "--json")
    assert (ran.status, ran.document["credits"], ran.document["unpriced"]) == (0, 0, 4)
    shown = run(*options, "--estimate").out
    assert "unknown; --buy-one runs one\n" in shown
    assert re.search(r"^credits +0  without 4 tasks of unknown price$", shown, re.MULTILINE)
    assert served.requests == []
    ran = run(*options, "--estimate", "--buy-one", "--json")
    assert (ran.status, ran.document["known"], len(served.charges)) == (0, 2, 2)
    assert ran.document["bought"] == 2
    assert (ran.document["credits"], ran.document["unpriced"]) == (32, 0)
    assert [(kind["new"], kind["price"]) for kind in ran.document["kinds"]] == [(2, 16)]
    shown = run(*options, "--estimate", "--buy-one").out
    assert ": 16 each\n" in shown
    assert "2 known, 2 new; nothing was sent" in shown
    assert (run(*options).status, len(served.charges)) == (0, 4)
    served.script("submit", Fault.failed())
    Path("f.csv").write_text(f"video_length,prompt\n{table}12,e\n")
    ran = run(*options, "--estimate", "--buy-one")
    assert (ran.status, "the task failed: TIMEOUT" in ran.err) == (1, True)
    assert run(*options, "--estimate", "--json").document["unpriced"] == 0  # it is known
    assert "--buy-one needs --estimate" in run(*options, "--buy-one").err


def test_a_ledger_of_another_service_is_rebound_when_asked_for(
    served: FakeService, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = write(2)
    assert run(name).status == 0
    monkeypatch.setenv("AIREITER_BASE_URL", served.url.replace("127.0.0.1", "localhost"))
    ran = run(name)
    assert (ran.status, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert "aireiter: --ledger: f.jsonl.db: its tasks belong to 127.0.0.1:" in ran.err
    assert ", or --rebind this one" in ran.err
    ran = run(name, "--rebind", "--json")
    assert (ran.status, ran.document["known"], len(served.charges)) == (0, 2, 2)


def test_a_ledger_that_cannot_be_used_is_bad_input(served: FakeService, run: Run) -> None:
    name = write(2)
    Path("results.jsonl").write_text("kept")
    options = (name, "--results", "results.jsonl")
    ran = run(*options, "--ledger", name)
    assert (ran.status, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert "--ledger: f.jsonl: file is not a database" in ran.err
    with contextlib.closing(Lock(Path("f.jsonl.db"))):
        ran = run(*options)
    assert (ran.status, ran.err.count("\n")) == (2, 1)
    assert "another batch is running with this ledger" in ran.err
    assert Path("results.jsonl").read_text() == "kept"
    assert served.requests == []


def test_a_ledger_that_breaks_ends_the_batch(served: FakeService, run: Run) -> None:
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
    (("--max-credits", "-1"), "--max-credits must be at least 0, got -1"),
    (("--timeout", "nan"), "--timeout must be at least 0, got nan"),
    (("--max-rate", "0"), "--max-rate must be more than 0, got 0"),
    (("--max-rate", "inf"), "--max-rate must be more than 0, got inf"),
    (("--format", "xml"), "xml"),
    (("--keep-columns", "--unchecked"), "--keep-columns and --unchecked exclude each other"),
    (("promt",), "a parameter must be NAME=VALUE, got 'promt'"),
    (("--download", "/dev/null/x"), "--download: /dev/null/x cannot be created: Not a directory"),
    (("--results", "/dev/null/x"), "--results: /dev/null/x cannot be written: Not a directory"),
    (("--results", "./f.jsonl"), "--results is the input file"),
    (("--results", "f.jsonl.db"), "--results is the ledger"),
    (("--ledger", "/dev/null/x"), "--ledger: "),
    (("--proxy", "ftp://u:secret-of-the-proxy@p"), "--proxy must be an http or https URL"),
]


@pytest.mark.parametrize(("argv", "text"), USAGE, ids=[" ".join(argv) for argv, _ in USAGE])
def test_bad_usage_sends_nothing(
    served: FakeService, run: Run, argv: tuple[str, ...], text: str
) -> None:
    ran = run(write(1), *argv)
    assert (ran.status, ran.out, served.requests) == (2, "", [])
    assert text in ran.err.splitlines()[-1]
    assert "secret-of-the-proxy" not in ran.err
    assert Path("f.jsonl").read_text()


def test_standard_input_needs_a_ledger(served: FakeService, run: Run) -> None:
    """There is no place beside it, and no second chance to read it."""
    text = Path(write(3)).read_text().encode()
    process = start("batch", "-", "--ledger", "l.db", "--json", stdin=True)
    out, err = process.communicate(text)
    assert (process.returncode, json.loads(out)["succeeded"]) == (0, 3), err
    assert len(served.charges) == 3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
        ran = run("-")
    assert (ran.status, "--ledger must name the ledger" in ran.err) == (2, True)


@pytest.mark.parametrize(
    ("credits_", "faults", "texts"),
    [
        (3, [], ["not enough credits (code 433)", "top up the account"]),
        (
            99,
            [Fault.reply(401, body='{"error": {"code": 401, "message": "bad key"}}')],
            ["(code 401)", "check the API key"],
        ),
    ],
)
def test_a_problem_with_the_account_stops_the_batch(
    served: FakeService, run: Run, credits_: float, faults: list[Fault], texts: list[str]
) -> None:
    served.credits = credits_
    served.script("submit", *faults)
    name = write(50)
    ran = run(name, "--window", "1", "--results", "results.jsonl", "--json")
    assert ran.status == 5
    last = ran.err.splitlines()[-1]
    assert [text for text in (*texts, "then run the same command again") if text not in last] == []
    paid = len(served.charges)
    assert (ran.document["succeeded"], ran.document["unfinished"]) == (paid, 0)
    assert ran.document["failed"] + ran.document["not_submitted"] == 50 - paid
    assert served.counts["/api/openapi/submit"] <= paid + 2
    assert f", {ran.document['not_submitted']} requests not submitted: " in last
    served.credits = 99
    assert (run(name).status, len(served.charges)) == (0, 50)


STOPPED = "aireiter: the batch was stopped, 7 requests not submitted: "


@pytest.mark.parametrize(
    ("stopped", "status", "texts"),
    [
        (
            AuthenticationError(401, "bad key"),
            5,
            [STOPPED, "bad key (code 401); check the API key", ", then run the same command again"],
        ),
        (OSError(28, "disk full"), 5, [STOPPED, "disk full; fix the cause, then run the same"]),
        (
            BudgetExceededError("max_credits is 2"),
            4,
            ["--max-credits is reached, 7 requests not submitted", "again with a higher limit"],
        ),
    ],
)
def test_a_stopped_batch_says_what_to_do(
    capsys: pytest.CaptureFixture[str], stopped: Exception, status: int, texts: list[str]
) -> None:
    summary = Summary(succeeded=3, not_submitted=7)
    assert _conclude(summary, 10, stopped, Output()) == status
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert [text for text in texts if text not in err] == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_program_is_resumed(
    served: FakeService, run: Run, number: signal.Signals
) -> None:
    served.durations = 1000
    name = write(8)
    options = (name, "--window", "4", "--results", "results.jsonl")
    process = start("batch", *options)
    while len(served.charges) < 4:
        assert process.poll() is None
    process.send_signal(number)
    out, err = process.communicate()
    assert process.returncode == 3
    assert b"4 of them are running at the service\n" in out
    assert err.splitlines()[-1] == (
        b"aireiter: interrupted; to resume, run the same command again: nothing is lost"
    )
    assert states() == {"submitted": 4}
    end_tasks(served)
    ran = run(*options)
    assert (ran.status, len(served.charges)) == (0, 8), ran.err
    assert len(results()) == 8


def end_tasks(service: FakeService) -> None:
    """Let all tasks end, those that run already, too."""
    clock: Any = service.clock  # the one of the fixture
    clock.now += 2000
    service.durations = 0


def test_the_first_interrupt_finishes_running_submits(served: FakeService, run: Run) -> None:
    def price(_model: str, _params: Mapping[str, Any]) -> float:
        if len(served.charges) == 0:
            os.kill(os.getpid(), signal.SIGINT)
        return 1.0

    served.durations = 1000
    served.price = price
    name = write(6)
    ran = run(name, "--window", "2")
    assert ran.status == 3
    assert "; Ctrl-C again to leave them" in ran.err
    assert len(served.charges) == states()["submitted"] == 2
    end_tasks(served)
    assert run(name).status == 0
    assert len(served.charges) == 6


def test_the_second_interrupt_ends_at_once(served: FakeService, run: Run) -> None:
    """A submit that hangs is left, too, and looked up when the batch resumes."""
    served.script("submit", Fault.hang(accepted=True))
    name = write(3)
    process = start("batch", name, "--window", "1")
    assert process.stderr is not None
    while not served.charges:
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    note = process.stderr.readline()
    assert note.startswith(b"interrupted: finishing 1 submit, submitting nothing new;")
    process.send_signal(signal.SIGINT)
    assert process.communicate()[1].startswith(b"aireiter: interrupted; to resume")
    assert (process.returncode, states()) == (3, {"intended": 1})
    assert run(name).status == 0
    assert len(served.charges) == 3


def test_an_interrupt_while_the_input_is_read_ends_at_once(
    served: FakeService, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_an_interrupt_before_the_first_request_sends_nothing(served: FakeService, run: Run) -> None:
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


async def test_a_signal_wakes_a_loop_that_waits_for_nothing() -> None:
    """Without the loop's own handler it would be noticed at the next timer only."""
    loop = asyncio.get_running_loop()
    received = asyncio.Event()
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
    with catching(lambda *_: loop.call_soon(received.set), signal.SIGINT):
        timer.start()
        await received.wait()
    timer.join()


async def test_a_submit_that_is_reported_late_is_finished(
    until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_signals, "_LAG", 0.0)
    notes: list[str] = []
    stop = Stop(notes.append)
    loop = asyncio.get_running_loop()
    batch = asyncio.create_task(stop.guard(loop.create_future()))
    await asyncio.sleep(0)
    stop.on_signal(signal.SIGINT, None)
    loop.call_soon(stop.on_progress, 2)
    await until(lambda: notes)
    assert "finishing 2 submits" in notes[0]
    assert not batch.done()
    stop.on_progress(0)
    await asyncio.wait([batch])
    assert stop.requested


async def test_a_batch_without_a_submit_is_left_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_signals, "_LAG", 0.0)
    notes: list[str] = []
    stop = Stop(notes.append)
    stop.on_signal(signal.SIGINT, None)
    guarded = asyncio.create_task(stop.guard(asyncio.get_running_loop().create_future()))
    await asyncio.wait([guarded])
    assert (stop.requested, notes, guarded.exception()) == (True, [], None)


async def test_a_third_interrupt_ends_whatever_runs() -> None:
    notes: list[str] = []
    stop = Stop(notes.append)
    with catching(stop.on_signal):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    await asyncio.sleep(0)
    assert (stop.requested, notes) == (True, [])


async def test_an_interrupt_counts_though_its_note_cannot_be_written() -> None:
    def gone(_text: str) -> None:
        raise BrokenPipeError

    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    stop = Stop(gone)
    stop.on_progress(1)

    async def running() -> None:
        stop.on_signal(2, None)
        stop.on_signal(2, None)
        await asyncio.Event().wait()

    guarded = asyncio.create_task(stop.guard(running()))
    await asyncio.wait([guarded])
    assert (stop.requested, guarded.exception()) == (True, None)
    assert [type(each["exception"]) for each in complaints] == [BrokenPipeError]


async def test_a_timeout_within_the_batch_is_no_interrupt() -> None:
    async def running() -> None:
        raise TimeoutError("from within")

    with pytest.raises(TimeoutError, match="from within"):
        await Stop(print).guard(running())


# Longer than what is read of a file at once: what follows the first line is read later.
LENGTH = 200_000


def write_long(count: int) -> None:
    """Write a file of *count* requests, each in a line that is mostly blank."""
    lines = Path(write(count)).read_text().split("\n\n")
    Path("f.jsonl").write_text("".join(f"{line:{LENGTH - 1}}\n" for line in lines[:count]))


def spoil(file: io.BufferedRandom) -> None:
    """Make the third line one that cannot be submitted."""
    file.seek(2 * LENGTH)
    file.write(b"[]    ")


def shorten(file: io.BufferedRandom) -> None:
    """Take the third line away."""
    file.truncate(2 * LENGTH)


@pytest.mark.parametrize(
    ("change", "text"),
    [(spoil, "f.jsonl, line 3: not "), (shorten, "f.jsonl has fewer rows than when the batch")],
)
def test_a_file_that_changes_ends_the_batch_with_its_totals(
    served: FakeService, run: Run, change: Callable[[io.BufferedRandom], None], text: str
) -> None:
    def price(_model: str, _params: Mapping[str, Any]) -> float:
        with Path("f.jsonl").open("r+b") as file:
            change(file)
        return 1.0

    served.price = price
    write_long(3)
    ran = run("f.jsonl", "--window", "1", "--json")
    assert ran.status == 1
    assert (ran.document["succeeded"], ran.document["unfinished"]) == (2, 1)
    assert ran.document["credits_used"] == len(served.charges) == 2
    assert ran.document["error"]["message"].startswith(text)
    assert ran.err.splitlines()[-1].startswith(f"aireiter: {text}")
    assert ran.err.splitlines()[-1].endswith("restore it and run the same command again")
    served.price = 1.0
    write_long(3)
    assert (run("f.jsonl", "--window", "1").status, len(served.charges)) == (0, 3)


def test_rows_that_are_appended_meanwhile_are_left(served: FakeService, run: Run) -> None:
    name = write(2)

    def price(_model: str, _params: Mapping[str, Any]) -> float:
        with Path(name).open("a") as file:
            file.write("[]\n")
        return 1.0

    served.price = price
    assert run(name, "--window", "1").status == 0
    assert len(served.charges) == 2


async def test_a_stopped_source_reads_no_further() -> None:
    rows = Rows(name="f", file=io.BytesIO(b""), format="jsonl")
    stop = Stop(print)
    with pytest.raises(CommandError, match="f has fewer rows"):
        _ = [row async for row in Source(rows, 1, stop)]
    stop.requested = True
    assert [row async for row in Source(rows, 1, stop)] == []


def test_results_that_cannot_be_written_end_the_batch(served: FakeService, run: Run) -> None:
    """The totals are printed, and what was submitted is in the ledger."""
    ran = run(write(3), "--results", "/dev/full", "--window", "1", "--json")
    assert ran.status == 1
    assert ran.document["error"]["type"] == "OSError"
    assert "No space left on device" in ran.err.splitlines()[-1]
    assert sum(states().values()) == len(served.charges) == ran.document["credits_used"] == 1


def test_a_table_that_cannot_be_written_sends_nothing(served: FakeService, run: Run) -> None:
    Path("full.csv").symlink_to("/dev/full")
    ran = run(write(3), "--results", "full.csv")
    assert (ran.status, served.requests) == (2, [])
    assert f"--results: full.csv cannot be written: {os.strerror(errno.ENOSPC)}" in ran.err


def test_only_tasks_at_the_service_are_shown_as_running(served: FakeService, run: Run) -> None:
    name = write(5)
    assert run(name, "--window", "1").status == 0
    ran = run(name, "--window", "5")
    shown = [int(number) for number in re.findall(r"running +(\d+)", ran.err)]
    assert set(shown) == {0}
    assert len(served.charges) == 5


REQUEST = SubmitRequest("m", {}, "mine")


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (AmbiguousSubmitError("mine"), "uncertain", "AmbiguousSubmitError"),
        (BudgetExceededError("over"), "not submitted", "over budget"),
        (NotSubmittedError("stopped"), "not submitted", "batch stopped"),
        (DownloadError("http://x", "cut"), "completed", "DownloadError"),
        (InvalidRequestError(422, "no"), "rejected", "rejected, code 422"),
        (ServerError(503, "no"), None, "rejected, code 503"),
        (TaskTimeoutError(Task("mine", TaskStatus.PROCESSING)), "processing", "task still running"),
    ],
)
def test_an_error_says_what_is_known_of_its_task(
    error: Exception, status: str | None, reason: str
) -> None:
    task = Task("mine", TaskStatus.COMPLETED) if isinstance(error, DownloadError) else None
    outcome = Failure(7, Row(9, REQUEST), None, error, task)
    row = result_document(outcome)
    assert (row["index"], row["line"], row["out_task_id"], row["status"]) == (7, 9, "mine", status)
    assert row["error"]["type"] == type(error).__name__
    summary = Summary()
    summary.add(outcome)
    assert list(summary.reasons) == [reason]


def test_a_ledger_has_a_page(served: FakeService, run: Run, aireiter: Run) -> None:
    del served
    assert run(write(2), "-o", "out").status == 0
    ran = aireiter("report", "f.jsonl.db")
    assert (ran.status, ran.out) == (0, "report  out/f.jsonl.html\ntasks   2 tasks\n")
    text = Path("out/f.jsonl.html").read_text()
    assert [
        each
        for each in ("rain 1", "aireiter batch f.jsonl [the same options] --retry-failed")
        if each not in text
    ] == []
    ran = aireiter("report", "f.jsonl.db", "-o", "page.html", "--json")
    assert ran.document == {"report": "page.html", "tasks": 2}
    assert (
        aireiter("report", "f.jsonl.db", "-o", ".", "--json").document["report"] == "f.jsonl.html"
    )
    assert run(write(1, "g.jsonl"), "--ledger", "g.db").status == 0
    assert aireiter("report", "g.db", "--json").document["report"] == "g.html"


def test_rows_with_local_files_are_read_in_a_thread(served: FakeService, run: Run) -> None:
    Path("a.png").write_bytes(PNG)
    Path("f.csv").write_text("prompt,image_url\nx,@a.png\ny,\n")
    ran = run("f.csv", "-m", "nano_banana", "--json")
    assert (ran.status, ran.document["succeeded"], len(served.charges)) == (0, 2, 2)


def test_a_row_with_an_unusable_file_fails_alone(served: FakeService, run: Run) -> None:
    Path("a.png").write_bytes(PNG)
    Path("b.png").write_bytes(b"a cat")
    lines = ["prompt,image_url,out_task_id", "x,@a.png,", "y,@b.png,", "z,@none.png,mine", "w,,"]
    Path("f.csv").write_text("\n".join(lines))
    notes = [
        "f.csv, line 3: image_url[0]: b.png: it is text, not an image, a video or a sound",
        "f.csv, line 4: image_url[0]: none.png cannot be read: No such file or directory",
    ]
    options = ("f.csv", "-m", "nano_banana", "--results", "r.jsonl", "--json")
    ran = run(*options, "--dry-run")
    assert ran.status == 1
    assert ran.err.splitlines() == [*notes, "2 rows of 4 will fail; the others are run"]
    counts = ("requests", "known", "new", "unusable")
    assert [ran.document[name] for name in counts] == [4, 0, 2, 2]
    ran = run(*options, "--estimate", "--buy-one")
    assert (ran.status, ran.document["bought"], len(served.charges)) == (1, 1, 1)
    ran = run(*options[:-1], "--dry-run")
    assert "1 known, 1 new, 2 with unusable files; nothing was sent" in ran.out
    ran = run(*options)
    assert ran.status == 1
    assert ran.err.splitlines()[:3] == [*notes, "2 rows of 4 will fail; the others are run"]
    assert (ran.document["succeeded"], ran.document["failed"], len(served.charges)) == (2, 2, 2)
    advice = "2 of 4 requests failed; fix the local files, then run the same command again"
    assert ran.err.splitlines()[-1] == f"aireiter: {advice}"
    [reason] = ran.document["reasons"]
    assert reason["text"].startswith("unusable file, lines 3, 4: image_url[0]: b.png: it is text")
    rows = [json.loads(line) for line in Path("r.jsonl").read_text().splitlines()]
    failed = [
        (row["line"], row["prompt"], row["out_task_id"], row["status"], row["params"]["image_url"])
        for row in rows
        if row["error"]
    ]
    assert failed == [
        (3, "y", None, "not submitted", "@b.png"),
        (4, "z", "mine", "not submitted", "@none.png"),
    ]
    Path("b.png").write_bytes(PNG)
    Path("none.png").write_bytes(PNG)
    ran = run(*options)
    assert (ran.status, ran.document["known"], len(served.charges)) == (0, 2, 4)


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        ("y,@b.png,\n", "f.csv has 1 invalid row; nothing was sent"),
        ("y,,i\nz,@b.png,i\n", "f.csv has 1 invalid row; nothing was sent"),
        ("y,@b.png,\nz,x.png,\n", "f.csv has 2 invalid rows; nothing was sent"),
        ("y,@b.png,\nz,@,\nx,,\n", "f.csv has 2 invalid rows; nothing was sent"),
    ],
    ids=["all unusable", "an ID used twice", "another invalid row", "a file without a name"],
)
def test_an_unusable_file_excuses_nothing_else(
    served: FakeService, run: Run, rows: str, error: str
) -> None:
    Path("f.csv").write_text(f"prompt,image_url,out_task_id\n{rows}")
    ran = run("f.csv", "-m", "nano_banana")
    assert (ran.status, ran.err.splitlines()[-1]) == (2, f"aireiter: {error}")
    assert not served.charges


def test_a_batch_keeps_a_page(served: FakeService, run: Run) -> None:
    served.script("submit", Fault.ok(), Fault.failed("TIMEOUT", "late"))
    options = ("--model", "suno", "--download", "out", "--report", "--max-credits", "90.0")
    ran = run(write(3), *options, "--api-key", KEY, "--base-url", served.url, "--json")
    assert (ran.status, ran.document["report"]) == (1, "out/f.jsonl.html")
    text = Path("out/f.jsonl.html").read_text()
    retry = f"aireiter batch f.jsonl --base-url {served.url} {' '.join(options)} --retry-failed"
    assert retry in text
    assert KEY not in text
    assert text.count('"status":"succeeded"') == 2
    ran = run("f.jsonl", "-o", "out", "--report")
    assert "report" in ran.out


async def test_a_page_is_written_again_while_a_batch_runs(tmp_path: Path) -> None:
    path, page = tmp_path / "run.db", tmp_path / "out" / "run.html"
    turns: asyncio.Queue[None] = asyncio.Queue()
    waits: list[float] = []
    notes: list[str] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await turns.put(None)

    async with (
        Ledger(path) as ledger,
        keep_page(ledger, page, "retry", note=notes.append, sleep=sleep),
    ):
        await turns.get()
        assert not page.exists()  # nor is its directory
        page.parent.mkdir()
        await turns.get()
        await turns.get()
        assert page.exists()
        page.unlink()
    assert page.exists()
    assert min(waits) >= 10
    assert notes == []


def test_a_page_does_not_keep_the_ledgers_rows(
    served: FakeService, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes them in portions, however many there are."""
    del served
    run(write(7))
    sizes: list[int] = []

    class Counting(PageBuilder):
        def add(self, rows: Any) -> None:
            sizes.append(len(rows))
            super().add(rows)

    monkeypatch.setattr(_page, "_PORTION", 3)
    monkeypatch.setattr(_page, "PageBuilder", Counting)
    document = asyncio.run(write_page(Ledger(Path("f.jsonl.db")), tmp_path / "new.html"))
    assert (document["tasks"], sizes) == (7, [3, 3, 1])
    assert (tmp_path / "new.html").read_text(encoding="utf-8").count('"platform":') == 7


async def test_a_page_that_cannot_be_written_is_no_end_of_a_batch(tmp_path: Path) -> None:
    notes: list[str] = []
    ledger = Ledger(tmp_path / "no.db")
    async with keep_page(ledger, tmp_path / "a.html", "retry", note=notes.append):
        pass
    assert len(notes) == 1
    assert notes[0].startswith("aireiter: the report cannot be written: ")


def test_a_page_may_stand_alone(
    served: FakeService, run: Run, aireiter: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    del served
    Path("f.csv").write_text("prompt\na fox\n")
    assert run("f.csv", "-m", "krea_2_turbo", "-o", "out").status == 0
    assert aireiter("report", "f.csv.db", "--standalone").status == 0
    assert '"thumb":"data:image/' in Path("out/f.csv.html").read_text()
    for broken in Path("out").glob("*.png"):
        broken.write_bytes(b"gone")
    assert aireiter("report", "f.csv.db", "--standalone").status == 0
    assert '"thumb":' not in Path("out/f.csv.html").read_text()
    monkeypatch.setitem(sys.modules, "PIL", None)
    ran = aireiter("report", "f.csv.db", "--standalone")
    assert (ran.status, ran.err.count("\n")) == (2, 1)
    assert "--standalone needs Pillow: pip install" in ran.err


def content_of_directory() -> dict[str, bytes]:
    """Return the files of the current directory, but for those of an open database."""
    files = [path for path in Path().iterdir() if path.is_file()]
    return {each.name: each.read_bytes() for each in files if "db-" not in each.suffix}


async def rows_of(path: str) -> list[dict[str, Any]]:
    return [row async for row in Ledger(path).rows()]


@pytest.mark.parametrize("results", ["out", "."])
def test_the_page_of_files_that_were_moved_with_their_ledger(
    served: FakeService, run: Run, aireiter: Run, monkeypatch: pytest.MonkeyPatch, results: str
) -> None:
    del served
    Path("old").mkdir()
    monkeypatch.chdir("old")
    assert run(write(1), "-o", results).status == 0
    [row] = asyncio.run(rows_of("f.jsonl.db"))
    file = Path(row["paths"][0]).name
    monkeypatch.chdir("..")
    Path("old").rename("new")
    page = Path("new") / results / "f.jsonl.html"
    assert aireiter("report", "new/f.jsonl.db", "--json").document["report"] == str(page)
    assert f'"src":"{file}"' in page.read_text(encoding="utf-8")


def test_the_page_is_beside_the_first_results_that_exist(
    served: FakeService, run: Run, aireiter: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many tasks without results come before."""
    monkeypatch.setattr(_page, "_PORTION", 2)
    served.script("submit", *[Fault.bad_request("no")] * 5)
    assert run(write(6), "-o", "out", "--window", "1").status == 1
    assert aireiter("report", "f.jsonl.db", "--json").document["report"] == "out/f.jsonl.html"
    shutil.rmtree("out")
    assert aireiter("report", "f.jsonl.db", "--json").document["report"] == "f.jsonl.html"


def test_a_used_id_in_a_batch_has_advice_that_a_batch_can_follow(
    served: FakeService, run: Run, aireiter: Run
) -> None:
    served.used_id = "reject"
    assert aireiter("submit", "suno_lyrics", "prompt=a", "--id", "id-0").status == 0
    ran = run(write(1, named=True), "--results", "r.jsonl")
    assert ran.status == 1
    assert "give the row an ID of its own" in ran.out
    assert "--maybe-sent" not in ran.out + Path("r.jsonl").read_text()


def test_a_page_in_a_new_directory(served: FakeService, run: Run, aireiter: Run) -> None:
    """A name without the suffix is one; an earlier page is replaced."""
    del served
    assert run(write(1)).status == 0
    pages = {
        "new/sub": "new/sub/f.jsonl.html",
        "a/b/x.html": "a/b/x.html",
        "a/b": "a/b/f.jsonl.html",
    }
    for page, path in [*pages.items()] * 2:
        ran = aireiter("report", "f.jsonl.db", "-o", page, "--json")
        assert ran.document["report"] == path
        assert Path(path).read_text(encoding="utf-8").endswith("</html>\n")


@pytest.mark.parametrize(
    ("argv", "error"),
    [
        (("missing.db",), "there is no ledger missing.db"),
        (("f.jsonl",), "f.jsonl is not a ledger"),
        (("other.db",), "other.db: the file is a database, but not a ledger\n"),
        (("f.jsonl.db", "-o", "/proc/1/x.html"), "/proc/1/x.html: "),
        (("f.jsonl.db", "-o", "/proc/new/x.html"), "--page: /proc/new cannot be created: "),
        (("f.jsonl.db", "-o", "f.jsonl.db"), "--page must be a directory, and f.jsonl.db is a f"),
        (("f.jsonl.db", "-o", "mine.html"), "to mine.html: mine.html exists and is not a report"),
    ],
)
def test_a_page_that_cannot_be_made_is_bad_usage(
    served: FakeService, run: Run, aireiter: Run, argv: tuple[str, ...], error: str
) -> None:
    del served
    assert run(write(1)).status == 0
    with contextlib.closing(sqlite3.connect("other.db")) as other:
        other.execute("create table notes (text)")
    Path("mine.html").write_text("<!doctype html>", encoding="utf-8")
    before = content_of_directory()
    ran = aireiter("report", *argv)
    assert (ran.status, ran.out, ran.err.count("\n")) == (2, "", 1), ran
    assert error in ran.err
    assert content_of_directory() == before
    assert not [path for path in Path().iterdir() if path.name.endswith(".part")]
