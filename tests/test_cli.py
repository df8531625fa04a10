"""The command line against a service: what it says, where it says it, and how it exits."""

import asyncio
import errno
import io
import json
import os
import re
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any, Literal

import attrs
import pytest

from aireiter_async import RequestTimeoutError
from aireiter_async.cli import main
from aireiter_async.cli._tasks import Deadline
from aireiter_async.testing import FakeService, Fault

VIDEO = ("seedance_1_5_pro", "--param", "prompt=a kitten", "--param", "aspect_ratio=16:9")
KEY = "sk-fake-0123456789abcdef"


@attrs.frozen
class Ran:
    """One run of the command."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one document on standard output."""
        return json.loads(self.out)


Run = Callable[..., Ran]


@contextmanager
def serving(service: FakeService) -> Iterator[FakeService]:
    """Run *service* on a loop in a thread: the command makes its own loop in this one."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def stop() -> None:
        await service.close()
        await asyncio.sleep(0)  # let the connections that were cut go
        loop.stop()

    try:
        asyncio.run_coroutine_threadsafe(service.start(), loop).result()
        yield service
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop)
        thread.join()
        loop.close()


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeService]:
    """Run a service that the environment points to; its options may be assigned to."""
    with serving(FakeService()) as service:
        monkeypatch.setenv("AIREITER_API_KEY", KEY)
        monkeypatch.setenv("AIREITER_BASE_URL", service.url)
        yield service


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command in this process."""

    def run(*argv: str) -> Ran:
        status = main(argv)
        return Ran(status, *capsys.readouterr())

    return run


def start(
    *argv: str, env: Mapping[str, str] | None = None, stdin: bool = False
) -> "subprocess.Popen[bytes]":
    """Run the command as a program."""
    return subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-m", "aireiter_async.cli", *argv],
        stdin=subprocess.PIPE if stdin else None,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **(env or {})},
    )


def test_the_balance_is_shown_to_people(served: FakeService, run: Run) -> None:
    """Credits are shown with the digits that they have, free tasks by model."""
    served.credits = 1234.5
    served.free_quotas = [
        {"model_key": "suno", "total": 10, "used": 3, "remaining": 7},
        {"model_key": "krea"},
    ]
    assert run("balance") == Ran(
        0,
        "credits     1,234.5\nfree tasks  suno: 7 left of 10\n            krea: unknown left\n",
        "",
    )


def test_the_balance_is_one_document(served: FakeService, run: Run) -> None:
    """With --json there is one document, the whole reply in it, and nothing else."""
    served.credits = 2.5
    ran = run("balance", "--json")
    assert (ran.status, ran.err, ran.document["credits"]) == (0, "", 2.5)
    assert ran.document["raw"]["data"]["credits"] == 2.5


def test_the_id_is_known_before_the_task_is_paid_for(served: FakeService, run: Run) -> None:
    """The id stands on standard error even if the service never takes the task."""
    served.script("submit", Fault.no_credits())
    ran = run("submit", *VIDEO, "--id", "mine")
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.splitlines()[0] == "submitting task mine"
    assert ran.err.splitlines()[1].startswith("aireiter: not enough credits (code 433) [task mine]")


def test_submit_sends_what_was_said(served: FakeService, run: Run) -> None:
    options = ("--param", "video_length=8", "--param", "generate_audio=true", "--json")
    extra = ("--callback-url", "https://example.com/x", "--metadata", '{"order": 7}')
    ran = run("submit", *VIDEO, *options, *extra)
    assert ran.status == 0
    assert ran.document["status"] == "pending"
    assert ran.document["model"] == "seedance_1_5_pro"
    assert ran.err == f"submitting task {ran.document['out_task_id']}\n"
    assert served.requests[0].body == {
        "model": "seedance_1_5_pro",
        "params": {
            "prompt": "a kitten",
            "aspect_ratio": "16:9",
            "video_length": 8,
            "generate_audio": True,
        },
        "out_task_id": ran.document["out_task_id"],
        "callback_url": "https://example.com/x",
        "metadata": {"order": 7},
    }


def test_a_lost_answer_costs_one_post(served: FakeService, run: Run) -> None:
    """A submit whose answer was lost is found by asking."""
    served.script("submit", Fault.lost_answer(accepted=True))
    assert run("submit", *VIDEO, "--id", "mine").status == 0
    assert (served.posts("mine"), len(served.charges)) == (1, 1)


def test_an_unknown_model_is_sent_with_a_word_of_warning(served: FakeService, run: Run) -> None:
    """A model that this release does not know is submitted, and the nearest names are told."""
    ran = run("submit", "seedance_1_5_po", "--param", "n=2", "--json")
    assert ran.status == 0
    assert "did you mean seedance_1_5_pro" in ran.err.splitlines()[0]
    assert served.requests[0].fields["params"] == {"n": 2}


def test_submit_sees_a_task_through(served: FakeService, run: Run, tmp_path: Path) -> None:
    """With --download the task is waited for, and its results are on disk."""
    del served
    ran = run("submit", *VIDEO, "--id", "mine", "--download", str(tmp_path / "new"), "--timeout=2")
    assert ran.status == 0
    assert (tmp_path / "new" / "mine.mp4").stat().st_size
    assert ran.err == "submitting task mine\ntask mine is completed\n"
    rows = dict(line.split(maxsplit=1) for line in ran.out.splitlines())
    assert rows["task"] == "mine"
    assert rows["status"] == "completed"
    assert rows["credits"] == "1"
    assert rows["saved"] == str(tmp_path / "new" / "mine.mp4")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", rows["completed"])


def test_wait_without_a_folder_saves_nothing(served: FakeService, run: Run) -> None:
    """What is waited for without --download is told, and left where it is."""
    run("submit", "suno_lyrics", "--param", "prompt=rain", "--id", "mine")
    ran = run("wait", "mine")
    assert ran.status == 0
    assert "title      Últimos días, 末班列车 0\ntext       [Verse]\n" in ran.out
    assert served.counts["/upload"] == 0


def test_a_song_is_shown_with_its_cover(served: FakeService, run: Run) -> None:
    """The cover of a song is told apart from the song."""
    run("submit", "suno", "--param", "prompt=rain", "--id", "mine")
    shown = run("query", "mine").out
    assert re.search(r"^audio +http\S+\.mp3$", shown, re.MULTILINE)
    assert re.search(r"^cover +http\S+\.jpeg$", shown, re.MULTILINE)
    assert served.charges[0].model == "suno"


def test_a_url_that_holds_the_result_is_whole_for_programs_only(
    served: FakeService, run: Run
) -> None:
    """People see how a megabyte of data begins, a program gets all of it."""
    url = f"data:image/png;base64,{'A' * 1_000_000}"
    reply = {"statusCode": 200, "data": {"status": "completed", "output": [{"url": url}]}}
    served.script("query", *[Fault.reply(body=json.dumps(reply))] * 2)
    told = run("query", "mine").out
    assert "data:image/png;base64,AAA" in told
    assert "AAA... (1,000,022 characters)\n" in told
    assert len(told) < 1000
    assert run("query", "mine", "--json").document["outputs"][0]["url"] == url


@pytest.mark.parametrize("verb", ["query", "wait"])
def test_a_failed_task_is_a_failure_with_its_reason(
    served: FakeService, run: Run, verb: str
) -> None:
    """A task that failed exits with 1: the document is the task, the line says why."""
    served.script("submit", Fault.failed("TIMEOUT", "upstream timed out"))
    run("submit", *VIDEO, "--id", "mine")
    ran = run(verb, "mine", "--json")
    assert ran.status == 1
    assert (ran.document["out_task_id"], ran.document["status"]) == ("mine", "failed")
    assert ran.document["error"]["failure_code" if verb == "wait" else "code"] == "TIMEOUT"
    assert ran.err.splitlines()[-1] == (
        "aireiter: the task failed: TIMEOUT: upstream timed out [task mine]"
    )
    assert "error    TIMEOUT: upstream timed out" in run(verb, "mine").out


def test_a_task_that_takes_too_long_is_alive(served: FakeService, run: Run) -> None:
    """At the deadline the task is shown as it is, with the command that goes on."""
    served.durations = 1000
    ran = run("submit", *VIDEO, "--id", "mine", "--wait", "--timeout", "1", "--json")
    assert ran.status == 1
    assert (ran.document["status"], ran.document["error"]["type"]) == (
        "pending",
        "TaskTimeoutError",
    )
    assert ran.err.endswith("go on with: aireiter wait mine\n")


def test_an_unknown_id_is_a_failure(served: FakeService, run: Run) -> None:
    """The service's refusal is a document for programs, and one line for people."""
    del served
    ran = run("query", "nobody", "--json")
    assert ran.status == 1
    assert ran.document["error"].items() >= {
        ("type", "TaskNotFoundError"),
        ("code", 400),
        ("out_task_id", "nobody"),
    }
    people = run("query", "nobody")
    assert (people.status, people.out, people.err.count("\n")) == (1, "", 1)


@pytest.mark.parametrize(
    ("argv", "endpoint", "error"),
    [
        (("query", "mine"), "query", "RequestTimeoutError"),
        (("balance",), "balance", "RequestTimeoutError"),
        (("submit", *VIDEO, "--id", "mine"), "submit", "AmbiguousSubmitError"),
    ],
)
def test_a_deadline_holds_whatever_the_service_does(
    served: FakeService, run: Run, argv: tuple[str, ...], endpoint: Any, error: str
) -> None:
    """A service that never answers is given up on after --timeout seconds."""
    served.script(endpoint, Fault.hang())
    ran = run(*argv, "--timeout", "0.2", "--json")
    assert (ran.status, ran.document["error"]["type"]) == (1, error)
    assert "no answer for certain within 0.2 s of --timeout" in ran.err


def test_the_clients_own_timeout_says_more() -> None:
    """A timeout that is not the command's is passed on as it is."""

    async def late() -> None:
        raise RequestTimeoutError("the client's own")

    with pytest.raises(RequestTimeoutError, match="the client's own"):
        asyncio.run(Deadline(5).hold(late(), RequestTimeoutError))


USAGE: list[tuple[tuple[str, ...], str]] = [
    (("submit",), "MODEL"),
    (("frobnicate",), "frobnicate"),
    (("--timeout", "query", "x"), "options come after a command: aireiter query ID --timeout"),
    (("query", "x", "--tiemout", "1"), "--tiemout"),
    (("query", "x", "y"), "'y'"),
    (("query", "x", "--timeout", "soon"), "--timeout"),
    (("query", "x", "--timeout", "-1"), "at least 0, got -1.0"),
    (("wait", "x", "--timeout", "nan"), "at least 0, got nan"),
    (("query", "no id"), "out_task_id must be 1 to 64 characters"),
    (("wait", "x" * 65), "out_task_id must be 1 to 64 characters"),
    (("balance", "--api-key", ""), "--api-key is empty"),
    (("balance", "--base-url", "http://example.com"), "or --allow-http if the network"),
    (("balance", "--base-url", "nowhere"), "--base-url must be an absolute URL"),
    (("balance", "--user-agent", ""), "--user-agent must be"),
    (("submit", "seedance_1_5_pro", "--param", "prompt"), "--param must be NAME=VALUE"),
    (
        ("submit", "seedance_1_5_pro", "--param", "promt=x"),
        "promt is not a parameter of this model; did you mean prompt?; prompt is required",
    ),
    (("submit", *VIDEO, "--channel", "plus"), "has no channel plus"),
    (("submit", *VIDEO, "--id", "a b"), "out_task_id must be 1 to 64"),
    (("submit", *VIDEO, "--maybe-sent"), "--maybe-sent takes --id"),
    (("submit", "x", "--unchecked", "--param", "n=1e999"), "params.n must be a finite number"),
    (("submit", *VIDEO, "--download", "/dev/null/x"), "--download"),
    (("submit", *VIDEO, "--metadata", "[1]"), "--metadata must be a JSON object"),
    (("submit", *VIDEO, "--callback-url", "ftp://x"), "callback_url must be"),
    (("models", "seedance2_6"), "did you mean seedance2_5"),
    (("demo", "--tasks", "0"), "--tasks must be at least 1, got 0"),
    (("demo", "--directory", "/dev/null/x"), "--directory"),
]


@pytest.mark.parametrize(("argv", "told"), USAGE, ids=[told for _, told in USAGE])
def test_bad_usage_is_one_line_and_sends_nothing(
    served: FakeService, run: Run, argv: tuple[str, ...], told: str
) -> None:
    """What cannot be done as asked exits with 2, and the line says what is wrong."""
    ran = run(*argv)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith("aireiter: ")
    assert ran.err.count("\n") == 1
    assert told in ran.err
    assert served.requests == []
    told_to_programs = run(*argv, "--json").document["error"]["message"]
    assert told in told_to_programs


def test_a_missing_key_is_bad_usage(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key the line says where to put one."""
    monkeypatch.delenv("AIREITER_API_KEY", raising=False)
    ran = run("balance")
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith("aireiter: no API key: give --api-key or set AIREITER_API_KEY; ")


@pytest.mark.parametrize("debug", [(), ("--debug",)])
@pytest.mark.parametrize(
    "argv",
    [
        ("balance", "--api-key", "sk-wrong-but-secret"),
        ("balance", "--api-key=sk-wrong-but-secret", "--json"),
        ("balance", "--apikey=sk-wrong-but-secret"),
        ("--API_KEY=sk-wrong-but-secret", "balance"),
        ("balance", "sk-wrong-but-secret", "--api-key", "sk-wrong-but-secret"),
        ("query", "sk-wrong-but-secret", "--api-key", "sk-wrong-but-secret"),
        ("balance", "--api-key", "sk-wrong-but-secret\n"),
    ],
)
def test_the_key_is_in_no_output(
    served: FakeService, run: Run, argv: tuple[str, ...], debug: tuple[str, ...]
) -> None:
    """Not in an error, not in a traceback, not even where it was put by mistake."""
    served.script("balance", Fault.server_error())
    ran = run(*argv, *debug)
    assert ran.status in {1, 2}
    assert "sk-wrong-but-secret" not in ran.out + ran.err
    assert ("Traceback" in ran.err) == bool(debug)


def test_debug_tells_what_goes_on(served: FakeService, run: Run) -> None:
    """With --debug the library's log is on standard error, and stops with the run."""
    served.script("submit", Fault.lost_answer(accepted=True))
    ran = run("submit", *VIDEO, "--id", "mine", "--debug")
    assert ran.status == 0
    assert "info: submit of mine has an ambiguous outcome" in ran.err
    served.script("submit", Fault.lost_answer(accepted=True))
    assert run("submit", *VIDEO, "--id", "other").err == "submitting task other\n"


def test_control_characters_of_the_service_stay_harmless(served: FakeService, run: Run) -> None:
    """What the service says cannot steer the terminal, nor break the line."""
    reply = r'{"statusCode":400,"message":"no\u001b[2J\r\n\u009b\u202ego\ud800"}'
    served.script("balance", Fault.reply(body=reply))
    ran = run("balance")
    assert ran.err == (
        "aireiter: no\\x1b[2J \\x9b\\u202ego\\ud800 (code 400); correct the request; "
        "an id that was used before can be queried\n"
    )


def test_lone_surrogates_leave_a_document_valid(served: FakeService, run: Run) -> None:
    """Half a character from the service is escaped, in the document and for people."""
    reply = '{"statusCode":200,"data":{"status":"processing","note":"\\ud83d 末班"}}'
    served.script("query", Fault.reply(body=reply), Fault.reply(body=reply))
    ran = run("query", "mine", "--json")
    assert ran.document["raw"]["data"]["note"] == "\ud83d 末班"
    assert "末班" in ran.out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("used_id", ["refuse", "return", "charge"])
def test_an_interrupted_submit_is_made_again_as_it_says(
    served: FakeService,
    run: Run,
    used_id: Literal["refuse", "return", "charge"],
    number: signal.Signals,
) -> None:
    """Ctrl-C before the answer exits with 130 and says how to go on; whoever does pays once."""

    def price(_model: str, _params: Mapping[str, Any]) -> float:
        os.kill(os.getpid(), number)
        return 1.0

    served.used_id, served.price = used_id, price
    served.script("submit", Fault.hang(accepted=True))
    ran = run("submit", *VIDEO, "--id", "mine")
    assert (ran.status, ran.out) == (130, "")
    *_, told = ran.err.splitlines()
    text, _, again = told.rpartition(" with ")
    assert text == (
        "aireiter: interrupted; the task may have been accepted; see: aireiter query mine, "
        "or submit the same again"
    )
    assert run("submit", *VIDEO, *again.split()).status == 0
    assert (served.posts("mine"), len(served.charges)) == (1, 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_program_that_is_asked_to_end_names_the_task(
    served: FakeService, run: Run, number: signal.Signals
) -> None:
    """A program that waits exits with 130 in one line, and with --json in one document."""
    served.durations = 1000
    run("submit", *VIDEO, "--id", "mine")
    for options in ((), ("--json",)):
        process = start("wait", "mine", *options)
        assert process.stderr is not None
        assert process.stderr.readline() == b"task mine is pending\n"
        process.send_signal(number)
        out, err = process.communicate()
        assert process.returncode == 130
        assert err == b"aireiter: interrupted; go on with: aireiter wait mine\n"
        assert bool(out) == bool(options)
    told = json.loads(out)
    assert (told["out_task_id"], told["status"]) == ("mine", "pending")
    assert (told["error"]["type"], told["error"]["out_task_id"]) == ("Interrupted", "mine")


def test_an_interrupted_download_names_a_task_that_was_accepted(
    served: FakeService, tmp_path: Path
) -> None:
    """Once the service has answered, its task is gone on with, not submitted again."""
    served.script("result", Fault.hang())
    options = ("--download", str(tmp_path), "--timeout", "1", "--json")
    process = start("submit", *VIDEO, "--id", "mine", *options)
    assert process.stderr is not None
    told = process.stderr.readline(), process.stderr.readline()
    assert told == (b"submitting task mine\n", b"task mine is completed\n")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert (process.returncode, json.loads(out)["status"]) == (130, "completed")
    assert err == b"aireiter: interrupted; go on with: aireiter wait mine\n"


def test_a_program_in_the_background_can_be_ended(served: FakeService) -> None:
    """Where a shell has Ctrl-C ignored, SIGTERM still ends a submit, and its id is not lost."""
    served.script("submit", Fault.hang(accepted=True))
    command = [sys.executable, "-m", "aireiter_async.cli", "submit", *VIDEO, "--id", "mine"]
    process = subprocess.Popen(  # noqa: S603 - our own program
        ["/bin/sh", "-c", 'trap "" INT; exec "$@"', "sh", *command, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    while not served.charges:
        assert process.poll() is None
    process.terminate()
    out, err = process.communicate()
    assert (process.returncode, json.loads(out)["error"]["out_task_id"]) == (130, "mine")
    assert err.splitlines()[-1].startswith(b"aireiter: interrupted; the task may have been ")


def test_a_log_that_cannot_be_written_breaks_nothing_off(
    served: FakeService, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that is paid for is seen through though nobody can read what goes on."""

    class Full(io.StringIO):
        """A disk with room for one line."""

        def write(self, text: str) -> int:
            """Take the line with the id."""
            if text.startswith("submitting"):
                return super().write(text)
            raise OSError(errno.ENOSPC, "full")

    served.script("submit", Fault.lost_answer(accepted=True))
    monkeypatch.setattr(sys, "stderr", Full())
    ran = run("submit", *VIDEO, "--id", "mine", "--debug", "--json")
    assert (ran.status, ran.document["out_task_id"]) == (0, "mine")


@pytest.mark.parametrize(
    "env", [{"PYTHONIOENCODING": "latin-1"}, {"PYTHONIOENCODING": "ascii:strict", "LC_ALL": "C"}]
)
def test_output_is_utf8_whatever_the_console(
    served: FakeService, run: Run, env: Mapping[str, str]
) -> None:
    """A console's own code page loses nothing, in documents and for people."""
    del served
    run("submit", "suno_lyrics", "--param", "prompt=rain", "--id", "mine")
    for option in ((), ("--json",)):
        out, err = start("query", "mine", *option, env=env).communicate()
        assert "末班列车" in out.decode()
        assert err == b""


def test_nobody_has_to_read_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that goes away is no error to talk about."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", encoding="utf-8") as gone:  # noqa: PTH123 - a descriptor
        monkeypatch.setattr(sys, "stdout", gone)
        ran = run("models")
        monkeypatch.undo()
    assert (ran.status, ran.err) == (141, "")


def test_a_program_whose_reader_is_gone_is_silent() -> None:
    """Nor does the interpreter complain on its way out."""
    process = start("models")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    with process.stderr as err:
        assert err.read() == b""
    assert process.wait() == 141


@pytest.mark.parametrize("argv", [("models",), ("models", "--json"), ("--help",)])
def test_a_full_disk_is_told_in_one_line(argv: tuple[str, ...]) -> None:
    """Output that cannot be written is a failure of one line."""
    with Path("/dev/full").open("wb") as full:
        process = subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-m", "aireiter_async.cli", *argv],
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert process.returncode == 1
    assert process.stderr.decode() == f"aireiter: [Errno 28] {os.strerror(errno.ENOSPC)}\n"


def test_an_id_that_nobody_can_read_is_not_submitted(
    served: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where standard error cannot be written, nothing is paid for."""
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stderr", full)
        assert main(["submit", *VIDEO]) == 1
        monkeypatch.undo()
    assert served.requests == []


def test_parameters_may_come_from_a_pipe(served: FakeService) -> None:
    """``--params @-`` reads standard input, a byte order mark included."""
    process = subprocess.run(
        [sys.executable, "-m", "aireiter_async.cli", "submit", "suno", "--params", "@-", "--json"],
        input='\ufeff{"prompt": "末班"}'.encode(),
        capture_output=True,
        check=True,
    )
    assert json.loads(process.stdout)["model"] == "suno"
    assert served.requests[0].fields["params"] == {"prompt": "末班"}


@pytest.mark.parametrize("argv", [(), ("--help",), ("-h",), ("submit", "--help")])
def test_help_is_an_answer(run: Run, argv: tuple[str, ...]) -> None:
    """Help goes to standard output and is a success."""
    ran = run(*argv)
    assert (ran.status, ran.err) == (0, "")
    assert "Usage: aireiter" in ran.out


def test_the_version_is_told(run: Run) -> None:
    """The version is that of the installed package."""
    ran = run("--version")
    assert ran.status == 0
    assert re.fullmatch(r"aireiter_async \d+\.\d+\.\d+\n", ran.out)


def test_the_arguments_of_the_process_are_the_default(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The installed script calls main without arguments."""
    monkeypatch.setattr(sys, "argv", ["aireiter", "--version"])
    assert main() == 0
    assert capsys.readouterr().out.startswith("aireiter_async")


def test_the_package_can_be_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``python -m aireiter_async.cli`` is the command, and exits with its status."""
    monkeypatch.setattr(sys, "argv", ["aireiter", "query"])
    with pytest.raises(SystemExit) as exit_:
        runpy.run_module("aireiter_async.cli", run_name="__main__")
    assert exit_.value.code == 2
    assert capsys.readouterr().err.startswith("aireiter: ")


def test_streams_of_any_kind_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard output may have been replaced by what has no encoding."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    assert main(["--version"]) == 0
    assert stream.getvalue().startswith("aireiter_async")


class Finder(MetaPathFinder):
    """An import that ends badly."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def find_spec(self, fullname: str, *_: object) -> None:
        """Raise the error for whatever is imported first: the room that needs the extra."""
        assert fullname == "aireiter_async.cli._run"
        raise self._error


@pytest.fixture
def importing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Let the import behind the command raise an error."""

    def prepare(error: BaseException) -> None:
        monkeypatch.delitem(sys.modules, "aireiter_async.cli._run", raising=False)
        monkeypatch.setattr(sys, "meta_path", [Finder(error), *sys.meta_path])

    return prepare


def test_a_missing_extra_is_named(run: Run, importing: Callable[[BaseException], None]) -> None:
    """Without cyclopts or rich one line says what to install."""
    importing(ModuleNotFoundError("No module named 'cyclopts'", name="cyclopts"))
    assert run("balance") == Ran(
        2,
        "",
        'aireiter: cyclopts is missing: pip install "aireiter-async[cli]"\n',
    )


def test_a_defect_of_ours_is_no_missing_extra(
    run: Run, importing: Callable[[BaseException], None]
) -> None:
    """A module of this package that is missing is not the user's to install."""
    importing(ModuleNotFoundError("gone", name="aireiter_async.cli._run"))
    with pytest.raises(ModuleNotFoundError):
        run("balance")


def test_an_interrupt_may_come_early(run: Run, importing: Callable[[BaseException], None]) -> None:
    """Ctrl-C while the command is being imported is an interrupt like any other."""
    importing(KeyboardInterrupt())
    assert run("balance") == Ran(130, "", "")


def test_a_program_without_the_extra_says_so() -> None:
    """``python -m aireiter_async.cli`` needs the extra, and importing the package does not."""
    code = (
        "import sys; sys.modules['cyclopts'] = sys.modules['rich'] = None\n"
        "import aireiter_async, runpy\n"
        "sys.argv = ['aireiter', 'balance']\n"
        "runpy.run_module('aireiter_async.cli', run_name='__main__')"
    )
    process = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", code], capture_output=True, check=False
    )
    assert process.returncode == 2
    assert process.stderr.count(b"\n") == 1
    assert b'pip install "aireiter-async[cli]"' in process.stderr
