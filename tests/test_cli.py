"""The command for single tasks: what it prints, where, and how it exits."""

import asyncio
import contextlib
import errno
import inspect
import io
import json
import os
import re
import runpy
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any, Literal

import pytest

from aireiter_async import AsyncClient, RequestTimeoutError, Task, TaskStatus, errors, models
from aireiter_async.cli import main
from aireiter_async.cli._errors import describe
from aireiter_async.cli._output import Output, OutputOptions, task_view
from aireiter_async.cli._tasks import _within
from aireiter_async.testing import FakeService, Fault
from tests.command import PNG, VIDEO, Ran, shell, start

Run = Callable[..., Ran]


def sent(service: FakeService) -> list[Any]:
    """Return the bodies of the submits."""
    return [each.fields for each in service.requests if "params" in each.fields]


def test_balance_prints_credits_and_free_tasks(served: FakeService, aireiter: Run) -> None:
    served.credits = 1234.5
    served.free_quotas = [
        {"model_key": "suno", "total": 10, "used": 3, "remaining": 7},
        {"model_key": "krea"},
    ]
    assert aireiter("balance") == Ran(
        0,
        "credits     1,234.5\nfree tasks  suno: 7 left of 10\n            krea: unknown left\n",
        "",
    )
    ran = aireiter("balance", "--json")
    assert (ran.status, ran.err, ran.document["credits"]) == (0, "", 1234.5)
    assert ran.document["raw"]["data"]["credits"] == 1234.5


def test_the_id_is_printed_before_the_task_is_paid_for(served: FakeService, aireiter: Run) -> None:
    served.script("submit", Fault.no_credits())
    ran = aireiter("submit", *VIDEO, "--id", "mine")
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.splitlines()[0] == "submitting task mine"
    assert ran.err.splitlines()[1].startswith("aireiter: not enough credits (code 433) [task mine]")


def test_submit_sends_what_was_given(served: FakeService, aireiter: Run) -> None:
    options = ("video_length=8", "--param", "generate_audio=true", "--json")
    extra = ("--callback-url", "https://example.com/x", "--metadata", '{"order": 7}')
    ran = aireiter("submit", *VIDEO, *options, *extra)
    assert (ran.status, ran.document["status"]) == (0, "pending")
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


@pytest.mark.parametrize(
    "argv",
    [
        ("suno_lyrics", "prompt=a cat"),
        ("suno_lyrics", "--prompt", "a cat"),
        ("-m", "suno_lyrics", "-p", "a cat"),
        ("--model", "suno_lyrics", "prompt=a cat"),
        ("suno_lyrics", "--param", "prompt=a cat"),
        ("suno_lyrics", "--params", '{"prompt": "a dog"}', "prompt=a cat"),
    ],
)
@pytest.mark.parametrize("verb", ["submit", "run"])
def test_parameters_may_be_given_in_many_ways(
    served: FakeService, aireiter: Run, verb: str, argv: tuple[str, ...]
) -> None:
    assert aireiter(verb, *argv).status == 0
    assert sent(served)[0]["params"] == {"prompt": "a cat"}


@pytest.mark.parametrize("value", ["@home party poster", "-1girl", "a=b", '"x"', "[1]", "123", ""])
def test_a_prompt_is_text(served: FakeService, aireiter: Run, value: str) -> None:
    assert aireiter("submit", "new_model", "--prompt", value).status == 0
    assert sent(served)[0]["params"] == {"prompt": value}


def test_a_lost_response_costs_one_post(served: FakeService, aireiter: Run) -> None:
    served.script("submit", Fault.lost_response(accepted=True))
    assert aireiter("submit", *VIDEO, "--id", "mine").status == 0
    assert (served.posts("mine"), len(served.charges)) == (1, 1)


def test_an_unknown_model_is_sent_with_a_warning(served: FakeService, aireiter: Run) -> None:
    ran = aireiter("submit", "seedance_1_5_po", "n=2", "--json")
    assert ran.status == 0
    assert "did you mean seedance_1_5_pro" in ran.err.splitlines()[0]
    assert "zzz is not in this release's catalogue: its" in aireiter("submit", "zzz").err
    assert sent(served)[0]["params"] == {"n": 2}


@pytest.mark.parametrize("verb", ["run", "wait"])
def test_run_and_wait_save_the_results(served: FakeService, aireiter: Run, verb: str) -> None:
    del served
    if verb == "wait":
        aireiter("submit", *VIDEO, "--id", "mine")
        ran = aireiter("wait", "mine", "-o", "new/out", "--timeout", "9")
    else:
        ran = aireiter("run", *VIDEO, "--id", "mine", "--download", "new/out", "--timeout=9")
    assert ran.status == 0
    assert Path("new/out/mine.mp4").stat().st_size
    assert ran.err.splitlines()[-1] == "task mine is completed"
    rows = dict(line.split(maxsplit=1) for line in ran.out.splitlines())
    expected = {"task": "mine", "status": "completed", "credits": "1", "saved": "new/out/mine.mp4"}
    assert rows.items() >= expected.items()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", rows["completed"])


def test_run_saves_to_the_current_directory(served: FakeService, aireiter: Run) -> None:
    del served
    assert aireiter("run", *VIDEO, "--id", "mine", "--json").document["files"] == ["mine.mp4"]


def test_run_names_its_files(served: FakeService, aireiter: Run) -> None:
    served.outputs = 2
    ran = aireiter("run", *VIDEO, "--id", "mine", "--name", "{prompt:.5} {out_task_id}", "--json")
    assert ran.document["files"] == ["a kit mine-1.mp4", "a kit mine-2.mp4"]


def test_wait_without_a_directory_saves_nothing(served: FakeService, aireiter: Run) -> None:
    aireiter("submit", "suno_lyrics", "prompt=rain", "--id", "mine")
    ran = aireiter("wait", "mine")
    assert ran.status == 0
    assert "title      Últimos días, 末班列车 0\ntext       [Verse]\n" in ran.out
    assert served.counts["/upload"] == 0


def test_a_song_is_shown_with_its_cover(served: FakeService, aireiter: Run) -> None:
    aireiter("submit", "suno", "prompt=rain", "--id", "mine")
    shown = aireiter("query", "mine").out
    assert re.search(r"^audio +http\S+\.mp3$", shown, re.MULTILINE)
    assert re.search(r"^cover +http\S+\.jpeg$", shown, re.MULTILINE)
    assert served.charges[0].model == "suno"


def test_a_data_url_is_shortened_for_people_only(served: FakeService, aireiter: Run) -> None:
    url = f"data:image/png;base64,{'A' * 1_000_000}"
    reply = {"statusCode": 200, "data": {"status": "completed", "output": [{"url": url}]}}
    served.script("query", *[Fault.reply(body=json.dumps(reply))] * 2)
    shown = aireiter("query", "mine").out
    assert "AAA... (1,000,022 characters)\n" in shown
    assert len(shown) < 1000
    assert aireiter("query", "mine", "--json").document["outputs"][0]["url"] == url


@pytest.mark.parametrize("verb", ["query", "wait"])
def test_a_failed_task_is_a_failure_with_its_reason(
    served: FakeService, aireiter: Run, verb: str
) -> None:
    served.script("submit", Fault.failed("TIMEOUT", "upstream timed out"))
    aireiter("submit", *VIDEO, "--id", "mine")
    ran = aireiter(verb, "mine", "--json")
    assert ran.status == 1
    assert (ran.document["out_task_id"], ran.document["status"]) == ("mine", "failed")
    assert ran.document["error"]["failure_code"] == "TIMEOUT"
    reason = "aireiter: the task failed: TIMEOUT: upstream timed out [task mine]"
    assert ran.err.splitlines()[-1].startswith(reason)
    assert "error    TIMEOUT: upstream timed out" in aireiter(verb, "mine").out


def test_a_task_that_takes_too_long_is_still_running(served: FakeService, aireiter: Run) -> None:
    served.durations = 1000
    ran = aireiter("run", *VIDEO, "--id", "mine", "--timeout", "1", "--json")
    assert ran.status == 1
    assert (ran.document["status"], ran.document["error"]["type"]) == (
        "pending",
        "TaskTimeoutError",
    )
    assert ran.err.endswith("resume with: aireiter wait mine -o .\n")
    assert ran.document["error"]["message"].endswith("resume with: aireiter wait mine -o .")
    named = ("-o", "my films", "--name", "{prompt} {n}")
    ran = aireiter("run", *VIDEO, "--id", "other", "--timeout", "1", *named)
    command = shlex.split(ran.err.rpartition("resume with: ")[2])
    assert command[:5] == ["aireiter", "wait", "other", "-o", "my films"]
    assert command[5].startswith("--name=")
    again = aireiter(*command[1:], "--timeout", "0")
    assert shlex.split(again.err.rpartition("resume with: ")[2]) == command


def test_an_unknown_id_is_a_failure(served: FakeService, aireiter: Run) -> None:
    del served
    ran = aireiter("query", "nobody", "--json")
    assert ran.status == 1
    assert ran.document["error"].items() >= {
        ("type", "TaskNotFoundError"),
        ("code", 400),
        ("out_task_id", "nobody"),
    }
    people = aireiter("query", "nobody")
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
    served: FakeService, aireiter: Run, argv: tuple[str, ...], endpoint: Any, error: str
) -> None:
    served.script(endpoint, Fault.hang())
    ran = aireiter(*argv, "--timeout", "0.2", "--json")
    assert (ran.status, ran.document["error"]["type"]) == (1, error)
    assert "no definite outcome within the 0.2 s of --timeout" in ran.err


def test_the_clients_own_timeout_is_passed_on() -> None:
    async def late() -> None:
        raise RequestTimeoutError("the client's own")

    with pytest.raises(RequestTimeoutError, match="the client's own"):
        asyncio.run(_within(5, late(), RequestTimeoutError))


USAGE: list[tuple[tuple[str, ...], str]] = [
    (("submit",), "MODEL is missing; see: aireiter submit --help"),
    (("frobnicate",), "frobnicate"),
    (("--timeout", "query", "x"), "options go after a command, as in: aireiter query ID --timeout"),
    (("query", "x", "--tiemout", "1"), "--tiemout"),
    (("query", "x", "y"), "unexpected argument 'y'; see: aireiter query --help"),
    (("query", "x", "--timeout", "soon"), "--timeout"),
    (("wait", "x", "--name", "a"), "--name needs --download"),
    (("wait", "x", "-o", "out", "--name", "{prompt}"), "the fields are n, out_task_id"),
    (("query", "x", "--timeout", "-1"), "--timeout must be at least 0, got -1"),
    (("wait", "x", "--timeout", "nan"), "--timeout must be at least 0, got nan"),
    (("query", "no id"), "the ID must be 1 to 64 characters"),
    (("wait", "x" * 65), "the ID must be 1 to 64 characters"),
    (("balance", "--api-key", ""), "--api-key is empty"),
    (("balance", "--base-url", "http://example.com"), "--allow-http"),
    (("balance", "--base-url", "nowhere"), "--base-url must be an absolute URL"),
    (("balance", "--user-agent", ""), "--user-agent must be"),
    (("submit", "seedance_1_5_pro", "prompt"), "a parameter must be NAME=VALUE, got 'prompt'"),
    (("submit", "seedance_1_5_pro", "=x"), "a parameter must be NAME=VALUE, got '=x'"),
    (
        ("submit", "seedance_1_5_pro", "promt=x"),
        "promt is not a parameter of this model; did you mean prompt?; prompt is required",
    ),
    (("submit", *VIDEO, "video_length=soon"), "video_length must be a finite number, from 4 to 12"),
    (("submit", *VIDEO, "generate_audio=maybe"), "generate_audio must be"),
    (("submit", "nano_banana", "prompt=a", "prompt=b"), "prompt takes one value, got 2"),
    (("submit", "nano_banana", "prompt=a", "-p", "b"), "both set the prompt: remove one of them"),
    (("run", "nano_banana", "--prompt", "a", "--param", "prompt=b"), "remove one of them"),
    (("submit", "new_model", "x=a", "x=b"), "x takes one value, got 2"),
    (("submit", *VIDEO, "--channel", "plus"), "has no channel plus"),
    (("submit", "veo3_1", "--channel", "plus"), "veo3_1_plus: prompt is required"),
    (("submit", *VIDEO, "--id", "a b"), "the ID must be 1 to 64"),
    (("submit", *VIDEO, "--maybe-sent"), "--maybe-sent needs --id"),
    (("submit", "x", "--unchecked", "n=1e999"), "params.n must be a finite number"),
    (
        ("run", *VIDEO, "--download", "/dev/null/x"),
        "--download: /dev/null/x cannot be created: Not a directory",
    ),
    (("submit", *VIDEO, "--metadata", "[1]"), "--metadata must be a JSON object"),
    (("submit", *VIDEO, "--callback-url", "ftp://x"), "callback_url must be"),
    (("submit", "m", "--params", "{"), "--params is not JSON: Expecting property name"),
    (("submit", "m", "--params", '{"a": NaN}'), "--params is not JSON: NaN is not a JSON number"),
    (("submit", "m", "--params", '{"a": 1, "a": 2}'), "the key 'a' appears twice"),
    (("submit", "m", "--params", "[" * 100_000), "--params is not JSON"),
    (("submit", "m", "--params", "@no/such"), "--params cannot be read from 'no/such'"),
    (("submit", "m", "--params", "@/dev/null"), "--params @/dev/null is not JSON"),
    (("submit", "m", "--params", f"@{sys.executable}"), "--params cannot be read from"),
    (
        ("submit", "nano_banana", "prompt=a", 'image_url=["@"]'),
        "image_url: write the name of a file after @",
    ),
    (("models", "seedance2_6"), "did you mean seedance2_5"),
    (("demo", "--tasks", "0"), "--tasks must be at least 1, got 0"),
    (("demo", "--directory", "/dev/null/x"), "--directory"),
]


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("nowhere", "AIREITER_BASE_URL must be an absolute URL"),
        ("http://api.example", "AIREITER_BASE_URL is http:// to api.example"),
    ],
)
def test_a_wrong_variable_is_named(
    aireiter: Run, monkeypatch: pytest.MonkeyPatch, url: str, text: str
) -> None:
    monkeypatch.setenv("AIREITER_API_KEY", "sk-of-a-test")
    monkeypatch.setenv("AIREITER_BASE_URL", url)
    ran = aireiter("balance")
    assert (ran.status, text in ran.err, "--base-url" in ran.err) == (2, True, False)


@pytest.mark.parametrize(("argv", "text"), USAGE, ids=[text for _, text in USAGE])
def test_bad_usage_is_one_line_and_sends_nothing(
    served: FakeService, aireiter: Run, argv: tuple[str, ...], text: str
) -> None:
    ran = aireiter(*argv)
    assert (ran.status, ran.out, served.requests) == (2, "", [])
    assert ran.err.startswith("aireiter: ")
    assert (ran.err.count("\n"), text in ran.err) == (1, True), ran.err
    assert text in aireiter(*argv, "--json").document["error"]["message"]


VALUES: list[tuple[str, str, Any]] = [
    ("seedance_1_5_pro", "prompt=123", "123"),
    ("seedance_1_5_pro", 'prompt="a=b"', '"a=b"'),
    ("seedance_1_5_pro", "video_length=4.5", 4.5),
    ("seedance_1_5_pro", "generate_audio=True", True),
    ("seedance2", "video_length=5", "5"),
    ("kling_v3_omni", "video_length=5", 5),
    ("kling_v3_omni", "image_url=https://example.com/a,b.png", "https://example.com/a,b.png"),
    ("kling_v3_omni", 'image_url=["https://example.com/a.png"]', ["https://example.com/a.png"]),
    ("nano_banana", "image_url=https://example.com/a.png", ["https://example.com/a.png"]),
    *(
        ("new_model", f"x={text}", value)
        for text, value in [
            ("5", 5),
            ("0.5", 0.5),
            ("true", True),
            ("[1, 2]", [1, 2]),
            ('{"a": null}', {"a": None}),
            ("null", "null"),
            ('"5"', '"5"'),
            ("a kitten", "a kitten"),
            ("", ""),
            ("NaN", "NaN"),
            ("[" * 100_000, "[" * 100_000),
            ("9" * 5000, "9" * 5000),
        ]
    ),
]


@pytest.mark.parametrize(
    ("model", "pair", "value"), VALUES, ids=[f"{m} {p[:30]}" for m, p, _ in VALUES]
)
def test_a_value_is_read_as_the_model_takes_it(
    served: FakeService, aireiter: Run, model: str, pair: str, value: Any
) -> None:
    given = models.example(model) if model in models.MODELS else {}
    assert aireiter("submit", model, pair, "--params", json.dumps(given)).status == 0
    assert sent(served)[0]["params"][pair.partition("=")[0]] == value


@pytest.mark.parametrize("model", ["nano_banana", "kling_v3_omni"])
def test_a_repeated_name_makes_an_array(served: FakeService, aireiter: Run, model: str) -> None:
    urls = ["https://example.com/a.png", "https://example.com/b.png"]
    assert aireiter("submit", model, "prompt=x", *(f"image_url={url}" for url in urls)).status == 0
    assert sent(served)[0]["params"]["image_url"] == urls


def test_a_local_file_is_sent_where_media_is_taken(served: FakeService, aireiter: Run) -> None:
    Path("photo.jpg").write_bytes(PNG)  # the type comes from the content
    given = ("prompt=@home", "image_url=@photo.jpg", "image_url=https://example.com/b.png")
    assert aireiter("submit", "nano_banana", *given).status == 0
    params = sent(served)[0]["params"]
    assert params["prompt"] == "@home"
    assert params["image_url"][0].startswith("data:image/png;base64,iVBOR")
    assert params["image_url"][1] == given[2].partition("=")[2]
    assert aireiter("submit", "nano_banana", *given, "--unchecked").status == 0
    assert sent(served)[1]["params"] == params


@pytest.mark.parametrize(
    ("argv", "error"),
    [
        (("nano_banana", "image_url=@missing.png"), "image_url[0]: missing.png cannot be read: "),
        (("nano_banana", "image_url=@."), "image_url[0]: . cannot be read: Is a directory"),
        (("nano_banana", "image_url=@.", "--unchecked"), "image_url: . cannot be read: Is a"),
        (("nano_banana", "image_url=@@odd.png"), "'@odd.png'"),
        (("nano_banana", "image_url=@x", "--max-image-side", "0"), "--max-image-side must be at"),
    ],
)
def test_a_local_file_that_cannot_be_sent_is_bad_usage(
    served: FakeService, aireiter: Run, argv: tuple[str, ...], error: str
) -> None:
    ran = aireiter("submit", *argv, "-p", "x")
    assert (ran.status, served.requests, ran.err.count("\n")) == (2, [], 1)
    assert error in ran.err


def test_unchecked_parameters_and_channels(served: FakeService, aireiter: Run) -> None:
    aireiter("submit", "seedance_1_5_pro", "promt=x", "--unchecked")
    aireiter("submit", "veo3_1", "-p", "x", "--channel", "plus")
    assert [(each["model"], each["params"]) for each in sent(served)] == [
        ("seedance_1_5_pro", {"promt": "x"}),
        ("veo3_1_plus", {"prompt": "x"}),
    ]


def test_params_may_come_from_a_file_or_standard_input(
    served: FakeService, aireiter: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = '\ufeff{"prompt": "末班"}'.encode()
    Path("params.json").write_bytes(raw)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw), "ascii"))
    for name in ("@params.json", "@-"):
        assert aireiter("submit", "suno", "--params", name).status == 0
    assert [each["params"] for each in sent(served)] == [{"prompt": "末班"}] * 2


def test_a_missing_key_is_bad_usage(aireiter: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIREITER_API_KEY", raising=False)
    ran = aireiter("balance")
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith("aireiter: no API key: pass --api-key or set AIREITER_API_KEY; ")


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
    served: FakeService, aireiter: Run, argv: tuple[str, ...], debug: tuple[str, ...]
) -> None:
    served.script("balance", Fault.server_error())
    ran = aireiter(*argv, *debug)
    assert ran.status in {1, 2}
    assert "sk-wrong-but-secret" not in ran.out + ran.err
    assert ("Traceback" in ran.err) == bool(debug)


def test_debug_logs_what_happens(served: FakeService, aireiter: Run) -> None:
    served.script("submit", Fault.lost_response(accepted=True))
    ran = aireiter("submit", *VIDEO, "--id", "mine", "--debug")
    assert ran.status == 0
    assert "info: " in ran.err
    served.script("submit", Fault.lost_response(accepted=True))
    assert aireiter("submit", *VIDEO, "--id", "other").err == "submitting task other\n"


STEERING = "\x1b[2J\x9b\u202e\u2066\u200f\ufeff\x7f\ud800\U000e0001"


@pytest.mark.parametrize("options", [(), ("--debug",), ("--json",), ("--json", "--debug")])
def test_no_text_of_the_service_can_steer_a_terminal(
    served: FakeService, aireiter: Run, options: tuple[str, ...]
) -> None:
    body = json.dumps({"statusCode": 400, "message": f"no{STEERING}\r\ngo"})
    served.script("balance", Fault.reply(body=body))
    data = {"status": "completed", "output": [{"url": "https://a/b", "title": STEERING}]}
    served.script("query", Fault.reply(body=json.dumps({"statusCode": 200, "data": data})))
    for argv in (("balance",), ("query", "mine")):
        ran = aireiter(*argv, *options)
        assert {*ran.out, *ran.err} & {*STEERING} <= {*"[2J"}
        assert "\\x1b[2J" in ran.err or "1b[2J" in ran.out


def test_half_a_character_leaves_a_document_valid(served: FakeService, aireiter: Run) -> None:
    reply = '{"statusCode":200,"data":{"status":"processing","note":"\\ud83d 末班 👨‍👩‍👧"}}'
    served.script("query", Fault.reply(body=reply))
    ran = aireiter("query", "mine", "--json")
    assert ran.document["raw"]["data"]["note"] == "\ufffd 末班 👨‍👩‍👧"
    assert "末班" in ran.out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("used_id", ["reject", "return", "charge"])
@pytest.mark.parametrize("verb", ["submit", "run"])
def test_an_interrupted_submit_is_repeated_as_it_says(
    served: FakeService,
    aireiter: Run,
    used_id: Literal["reject", "return", "charge"],
    number: signal.Signals,
    verb: str,
) -> None:
    def price(_model: str, _params: Mapping[str, Any]) -> float:
        os.kill(os.getpid(), number)
        return 1.0

    served.used_id, served.price = used_id, price
    served.script("submit", Fault.hang(accepted=True))
    ran = aireiter(verb, *VIDEO, "--id", "mine")
    assert (ran.status, ran.out) == (130, "")
    text, _, again = ran.err.splitlines()[-1].rpartition(" with ")
    assert text == (
        "aireiter: interrupted; the task may have been accepted; check with: aireiter query mine, "
        "or submit the same request again"
    )
    assert aireiter(verb, *VIDEO, *shlex.split(again)).status == 0
    assert (served.posts("mine"), len(served.charges)) == (1, 1)


def test_an_interrupted_program_names_the_task(served: FakeService, aireiter: Run) -> None:
    served.durations = 1000
    aireiter("submit", *VIDEO, "--id", "mine")
    for number, options in ((signal.SIGINT, ()), (signal.SIGTERM, ("--json",))):
        process = start("wait", "mine", *options)
        assert process.stderr is not None
        assert process.stderr.readline() == b"task mine is pending\n"
        process.send_signal(number)
        out, err = process.communicate()
        assert process.returncode == 130
        assert err == (
            b"aireiter: interrupted; the task is still running; resume with: aireiter wait mine\n"
        )
        assert bool(out) == bool(options)
    document = json.loads(out)
    assert (document["out_task_id"], document["status"]) == ("mine", "pending")
    assert (document["error"]["type"], document["error"]["out_task_id"]) == ("Interrupted", "mine")


def test_an_interrupted_download_names_the_accepted_task(
    served: FakeService, aireiter: Run
) -> None:
    served.script("result", Fault.hang())
    aireiter("submit", *VIDEO, "--id", "mine")
    process = start("wait", "mine", "-o", "out", "--json")
    assert process.stderr is not None
    assert process.stderr.readline() == b"task mine is completed\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert (process.returncode, json.loads(out)["status"]) == (130, "completed")
    assert err.endswith(b": interrupted; resume with: aireiter wait mine -o out\n")


def test_a_second_interrupt_ends_a_command_that_does_not(
    aireiter: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stubborn(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGINT)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        signal.raise_signal(signal.SIGTERM)
        pytest.fail("the second signal was lost")

    monkeypatch.setenv("AIREITER_API_KEY", "sk-of-no-consequence")
    monkeypatch.setattr(AsyncClient, "balance", stubborn)
    before = signal.getsignal(signal.SIGINT)
    assert aireiter("balance") == Ran(130, "", "aireiter: interrupted\n")
    assert signal.getsignal(signal.SIGINT) is before


def test_a_background_job_ends_by_sigterm_only(served: FakeService) -> None:
    """Where a shell has SIGINT ignored, it stays ignored."""
    served.script("submit", Fault.hang(accepted=True))
    command = [sys.executable, "-m", "aireiter_async", "submit", *VIDEO, "--id", "mine", "--json"]
    process = subprocess.Popen(  # noqa: S603 - our own program
        ["/bin/sh", "-c", 'trap "" INT; exec "$@"', "sh", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    while not served.charges:
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.terminate()
    out, err = process.communicate()
    assert (process.returncode, json.loads(out)["error"]["out_task_id"]) == (130, "mine")
    assert err.splitlines()[-1].startswith(b"aireiter: interrupted; the task may have been ")


def test_a_log_that_cannot_be_written_ends_nothing(
    served: FakeService, aireiter: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.StringIO):
        """A disk with room for one line."""

        def write(self, text: str) -> int:
            if text.startswith("submitting"):
                return super().write(text)
            raise OSError(errno.ENOSPC, "full")

    served.script("submit", Fault.lost_response(accepted=True))
    monkeypatch.setattr(sys, "stderr", Full())
    ran = aireiter("submit", *VIDEO, "--id", "mine", "--debug", "--json")
    assert (ran.status, ran.document["out_task_id"]) == (0, "mine")


def test_output_is_utf8_whatever_the_console(served: FakeService, aireiter: Run) -> None:
    del served
    aireiter("submit", "suno_lyrics", "prompt=rain", "--id", "mine")
    ascii_ = {"PYTHONIOENCODING": "ascii:strict", "LC_ALL": "C"}
    for option, env in (((), {"PYTHONIOENCODING": "latin-1"}), (("--json",), ascii_)):
        out, err = start("query", "mine", *option, env=env).communicate()
        assert "末班列车" in out.decode()
        assert err == b""


def test_a_closed_pipe_is_silent() -> None:
    process = start("models")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    with process.stderr as err:
        assert err.read() == b""
    assert process.wait() == 141


def test_a_closed_pipe_is_silent_in_this_process(
    aireiter: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for argv in (("models",), ("--help",)):
        reader, writer = os.pipe()
        os.close(reader)
        with open(writer, "w", encoding="utf-8") as gone:  # noqa: PTH123 - a descriptor
            monkeypatch.setattr(sys, "stdout", gone)
            ran = aireiter(*argv)
            monkeypatch.undo()
        assert (ran.status, ran.err) == (141, "")


def test_a_full_disk_is_reported_in_one_line() -> None:
    process = shell('"$@" >/dev/full', "models", "--json")
    assert process.returncode == 1
    assert process.stderr.decode() == f"aireiter: {os.strerror(errno.ENOSPC)}\n"


def test_an_id_that_cannot_be_printed_is_not_submitted(
    served: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stderr", full)
        assert main(["submit", *VIDEO]) == 1
        monkeypatch.undo()
    assert served.requests == []


@pytest.mark.parametrize("line", ['"$@" >&-', '"$@" 2>&-', '"$@" >&- 2>&-'])
def test_closed_streams_are_like_dev_null(served: FakeService, line: str) -> None:
    process = shell(line, "submit", *VIDEO, "--id", "mine")
    assert process.returncode == 0
    assert (b"submitting task mine" in process.stderr) == ("2>" not in line)
    assert (b"mine" in process.stdout) == (line == '"$@" 2>&-')
    assert len(served.charges) == 1


def test_a_closed_standard_input_is_bad_usage() -> None:
    process = shell('"$@" <&-', "submit", "suno", "--params", "@-")
    assert process.returncode == 2
    assert (
        process.stderr == b"aireiter: --params cannot be read from '-': standard input is closed\n"
    )


def test_closed_streams_in_this_process(aireiter: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[int] = []

    def fstat(descriptor: int) -> None:
        raise OSError(errno.EBADF, str(descriptor))

    monkeypatch.setattr(os, "fstat", fstat)
    monkeypatch.setattr(os, "open", lambda *_: closed.append(1))
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    status = main(["submit", "m", "--params", "@-"])
    monkeypatch.undo()
    assert (status, len(closed)) == (2, 3)
    assert aireiter("--version").status == 0


@pytest.mark.parametrize("argv", [(), ("--help",), ("-h",), ("submit", "--help")])
def test_help_is_a_result(aireiter: Run, argv: tuple[str, ...]) -> None:
    ran = aireiter(*argv)
    assert (ran.status, ran.err) == (0, "")
    assert "Usage: aireiter" in ran.out


def test_the_version_is_printed(aireiter: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert re.fullmatch(r"aireiter_async \d+\.\d+\.\d+\n", aireiter("--version").out)
    stream = io.StringIO()  # without an encoding
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "argv", ["aireiter", "--version"])
    assert main() == 0
    assert stream.getvalue().startswith("aireiter_async")


def test_shell_completion_is_installed(tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path), "SHELL": "/bin/bash", "XDG_DATA_HOME": str(tmp_path / "data")}
    out, err = start("--install-completion", env=env).communicate()
    assert (b"Completion script installed" in out, err) == (True, b"")
    assert any("aireiter" in path.name for path in tmp_path.rglob("*") if path.is_file())


def test_the_package_can_be_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["aireiter", "query"])
    with pytest.raises(SystemExit) as exit_:
        runpy.run_module("aireiter_async", run_name="__main__")
    assert exit_.value.code == 2
    assert capsys.readouterr().err.startswith("aireiter: ")


class Finder(MetaPathFinder):
    """An import that ends badly."""

    def __init__(self, name: str, error: BaseException) -> None:
        self._name = name
        self._error = error

    def find_spec(self, fullname: str, *_: object) -> None:
        if fullname == self._name:
            raise self._error


@pytest.fixture
def importing(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, BaseException], None]:
    """Return what makes the import of a module of the command raise an error."""

    def prepare(module: str, error: BaseException) -> None:
        name = f"aireiter_async.cli.{module}"
        monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.delattr(f"aireiter_async.cli.{module}", raising=False)
        monkeypatch.setattr(sys, "meta_path", [Finder(name, error), *sys.meta_path])

    return prepare


def test_a_missing_extra_is_named(
    aireiter: Run, importing: Callable[[str, BaseException], None]
) -> None:
    importing("_run", ModuleNotFoundError("No module named 'cyclopts'", name="cyclopts"))
    expected = 'aireiter: cyclopts is missing: pip install "aireiter-async[cli]"\n'
    assert aireiter("balance") == Ran(2, "", expected)


@pytest.mark.parametrize("name", ["aireiter_async.cli._run", None])
def test_another_missing_module_is_no_missing_extra(
    aireiter: Run, importing: Callable[[str, BaseException], None], name: str | None
) -> None:
    importing("_run", ModuleNotFoundError("gone", name=name))
    with pytest.raises(ModuleNotFoundError):
        aireiter("balance")


def test_an_interrupt_may_come_during_the_import(
    aireiter: Run, importing: Callable[[str, BaseException], None]
) -> None:
    importing("_run", KeyboardInterrupt())
    assert aireiter("balance") == Ran(130, "", "")


@pytest.mark.parametrize("name", ["_sqlite3", "sqlite3"])
def test_a_python_without_sqlite_can_do_the_rest(
    served: FakeService, aireiter: Run, importing: Callable[[str, BaseException], None], name: str
) -> None:
    del served
    importing("_batch", ModuleNotFoundError(f"No module named {name!r}", name=name))
    ran = aireiter("batch", "f.jsonl")
    assert (ran.status, ran.out) == (2, "")
    assert ran.err == (
        "aireiter: this Python has no SQLite, which batch and demo need; use a Python that was "
        "built with SQLite, or install libsqlite3-dev and rebuild\n"
    )
    assert aireiter("balance").status == 0


def test_a_program_without_sqlite_or_the_extra(served: FakeService) -> None:
    """In a process of their own, where nothing has been imported before."""
    del served
    code = (
        "import sys; sys.modules[{!r}] = None; import aireiter_async, runpy\n"
        "sys.argv = ['aireiter', {!r}]; runpy.run_module('aireiter_async', run_name='__main__')"
    )
    for module, verb, status, told in [
        ("_sqlite3", "balance", 0, b""),
        ("rich", "balance", 2, b'pip install "aireiter-async[cli]"'),
    ]:
        process = subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-c", code.format(module, verb)], capture_output=True, check=False
        )
        assert (process.returncode, told in process.stderr) == (status, True), process.stderr


ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "ProtocolError": ("what happened", 502),
    "AmbiguousSubmitError": ("mine",),
    "TaskError": (Task("mine", TaskStatus.PROCESSING),),
    "TaskFailedError": (Task("mine", TaskStatus.FAILED),),
    "TaskTimeoutError": (Task("mine", TaskStatus.PROCESSING),),
    "DownloadError": ("https://example.com/a.png", "what happened"),
} | {
    name: (400, "what happened")
    for name in errors.__all__
    if name.endswith("Error") and issubclass(getattr(errors, name), errors.APIError)
}
CALLS = (AsyncClient, AsyncClient.submit, AsyncClient.run_many)
KEYWORDS = {
    name
    for call in CALLS
    for name, each in inspect.signature(call).parameters.items()
    if each.kind is each.KEYWORD_ONLY
}


@pytest.mark.parametrize("name", [name for name in errors.__all__ if name.endswith("Error")])
def test_an_error_is_described_in_the_words_of_the_command_line(name: str) -> None:
    made = getattr(errors, name)(*ARGUMENTS.get(name, ("what happened",)))
    words = set(re.findall(r"(?<![\w-])[a-z]+(?:_[a-z]+)+(?![\w-])", describe(made)))
    assert words & KEYWORDS == set()
    assert "=" not in describe(made)


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (
            errors.RateLimitError(429, "max_rate"),
            1,
            "max_rate (code 429); wait, or lower --max-rate or --concurrency",
        ),
        (errors.BudgetExceededError("max_credits is 2", "mine"), 1, "--max-credits is 2 [task"),
        (errors.RequestTimeoutError("late", "mine"), 1, "late [task mine]; try again"),
        (
            caused(errors.ConnectError("no"), OSError(errno.EMFILE, "too many")),
            1,
            "no; raise the limit on open files (ulimit -n 4096), or lower --concurrency",
        ),
        (
            caused(errors.DownloadError("http://x", "no"), OSError(errno.ENOSPC, "full")),
            1,
            "no: http://x; free some space, or save elsewhere with --download DIR",
        ),
        (OSError(errno.ENOSPC, "full"), 1, "full"),
        (OSError(errno.ENOSPC, "full", "run.db"), 1, "run.db: full"),
        (
            LookupError("gone"),
            1,
            "internal error: LookupError: gone; please report it with the output of --debug",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_the_service_says_stays_as_it_is(
    capsys: pytest.CaptureFixture[str], error: Exception, status: int, text: str
) -> None:
    assert Output().fail(error) == status
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"aireiter: {text}")


def test_a_result_that_cannot_be_encoded_leaves_room_for_one_that_can(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = Output(OutputOptions(json=True))
    with pytest.raises(ValueError, match="JSON") as caught:
        output.answer({"credits": float("nan")}, task_view)
    assert output.fail(caught.value) == 1
    assert json.loads(capsys.readouterr().out)["error"]["type"] == "ValueError"


@pytest.mark.parametrize(
    ("output", "text"),
    [
        (Output(), "interrupted"),
        (Output(running="a"), "interrupted; resume with: aireiter wait a"),
        (
            Output(running="a", task=Task("a", TaskStatus.PENDING), saving=("-o", "my films")),
            "interrupted; the task is still running; resume with: aireiter wait a -o 'my films'",
        ),
        (Output(running="a", submitting=True), "again with --id a --maybe-sent"),
    ],
)
def test_an_interrupt_says_how_to_resume(
    capsys: pytest.CaptureFixture[str], output: Output, text: str
) -> None:
    assert output.interrupted() == 130
    out, err = capsys.readouterr()
    assert (out, err.startswith("aireiter: interrupted"), err.endswith(f"{text}\n")) == (
        "",
        True,
        True,
    )


def test_a_proxy_is_used_but_not_the_environments_for_this_machine(
    served: FakeService, aireiter: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    del served
    nowhere = "http://user:secret-of-the-proxy@127.0.0.1:9"
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, nowhere)
    monkeypatch.delenv("no_proxy", raising=False)
    assert aireiter("balance").status == 0
    ran = aireiter("balance", "--proxy", nowhere, "--debug")
    assert (ran.status, "check --base-url, the network and the proxy" in ran.err) == (1, True)
    assert "secret-of-the-proxy" not in ran.out + ran.err
