"""The command's own texts: help and examples."""

import inspect
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from cyclopts import CycloptsError

from aireiter_async.cli._app import _app, describe_usage
from aireiter_async.testing import FakeService
from tests.command import KEY, PNG, Ran

Run = Callable[..., Ran]
COMMANDS = [name for name in _app if not name.startswith("-")]


def examples(name: str) -> list[str]:
    """Return the commands in the help of a command, each in a paragraph of its own."""
    text = inspect.cleandoc(_app[name].help).partition("\nArgs:")[0]
    return re.findall(r"^[A-Z][\w ]+: (aireiter .+)$", text, re.MULTILINE)


def write_files() -> None:
    Path("photo.jpg").write_bytes(PNG)
    Path("prompts.csv").write_text("prompt\na heron\nan owl\n", encoding="utf-8")


@pytest.fixture
def workplace(served: FakeService, aireiter: Run) -> FakeService:
    """Prepare what the examples name: a photo, a file of prompts, a ledger, a task."""
    write_files()
    assert aireiter("batch", "prompts.csv", "-m", "nano_banana_v2").status == 0
    assert aireiter("submit", "nano_banana_v2", "prompt=a cat", "--id", "order-17").status == 0
    return served


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_of_a_command_work(workplace: FakeService, aireiter: Run, name: str) -> None:
    del workplace
    commands = examples(name)
    assert commands
    for command in commands:
        program, verb, *argv = shlex.split(command)
        assert (program, verb) == ("aireiter", name)
        ran = aireiter(verb, *argv)
        assert ran.status == 0, ran.err
        assert ran.out


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_fits_the_terminal(
    aireiter: Run, monkeypatch: pytest.MonkeyPatch, name: str, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    ran = aireiter(*filter(None, [name]), "--help")
    assert (ran.status, ran.err) == (0, "")
    assert max(map(len, ran.out.splitlines())) <= width
    assert "…" not in ran.out  # nothing is cut off
    words = " ".join(ran.out.replace("│", " ").split())
    for example in examples(name) if name else []:
        assert example in words


MODEL = ("nano_banana_v2", "prompt=a cat")
BATCH = ("batch", "prompts.csv", "-m", "nano_banana_v2")
MISTAKES: list[tuple[tuple[str, ...], str]] = [
    (("generate", "a cat"), "unknown command 'generate'; see: aireiter --help"),
    (("sumbit", *MODEL), "unknown command 'sumbit'; did you mean submit?; see: aireiter --help"),
    (("--timeout", "9"), "options go after a command, as in: aireiter query ID --timeout"),
    (("run",), "MODEL is missing; see: aireiter run --help"),
    (("run", "nano_banana_v2"), "nano_banana_v2: prompt is required"),
    (
        ("run", "a cat"),
        "MODEL must be a model's name, got 'a cat'; list them with: aireiter models",
    ),
    (
        ("run", "prompt=a"),
        "MODEL must be a model's name, got 'prompt=a'; list them with: aireiter models",
    ),
    (
        ("run", "nano_banana_v2", "a cat"),
        "a parameter must be NAME=VALUE, got 'a cat'; write a prompt as prompt=... or --prompt",
    ),
    (
        ("run", "nano_banana_v2", "promt=a cat"),
        (
            "nano_banana_v2: promt is not a parameter of this model; did you mean prompt?; "
            "prompt is required"
        ),
    ),
    (
        ("run", *MODEL, "resolution=8K"),
        "nano_banana_v2: resolution must be one of '1K', '2K', '4K', got '8K'",
    ),
    (("run", *MODEL, "prompt=b"), "prompt takes one value, got 2; write an array as JSON"),
    (("run", "nano_banana_v2", "-p"), "-p needs a value; see: aireiter run --help"),
    (("run", *MODEL, "--id=a", "--id=b"), "--id can be given once; see: aireiter run --help"),
    (
        ("run", *MODEL, "--downlaod=x"),
        "unknown option --downlaod; did you mean --download?; see: aireiter run --help",
    ),
    (("run", *MODEL, "-z"), "unknown option -z; see: aireiter run --help"),
    (
        ("run", *MODEL, "-o", "prompts.csv"),
        "--download must be a directory, and prompts.csv is a file",
    ),
    (
        ("run", "flux_2_pro", "-p", "a cat", "image_url=@nope.png"),
        "image_url[0]: nope.png cannot be read: No such file or directory",
    ),
    (
        ("run", "flux_2_pro", "-p", "a cat", "image_url=photo.jpg"),
        (
            "flux_2_pro: image_url[0] must be a public http(s) URL or a whole data URI "
            "(data:image/<jpeg|png|webp>;base64,...) of at most 10 MB, got 'photo.jpg'; "
            "to send a local file, write @ before its name"
        ),
    ),
    (
        ("run", "kling_3_0", "-p", "a cat", "image_url=@photo.jpg"),
        (
            "kling_3_0: image_url must be a public http(s) URL, got 'photo.jpg'; this parameter "
            "takes URLs only: upload the file and pass its URL"
        ),
    ),
    (
        ("run", *MODEL, "--timeout", "soon"),
        "--timeout must be a number, got 'soon'; see: aireiter run --help",
    ),
    (("run", *MODEL, "--timeout", "-5"), "--timeout must be at least 0, got -5"),
    (
        ("run", *MODEL, "--name", "{title}"),
        "--name has no field title; the fields are model, n, out_task_id, prompt",
    ),
    (
        ("submit", *MODEL, "--channel", "premium"),
        "--channel must be one of base, plus, advanced, max, got 'premium'",
    ),
    (
        ("submit", *MODEL, "--metadata", "order 7"),
        "--metadata is not JSON: Expecting value at character 1",
    ),
    (("query",), "OUT_TASK_ID is missing; see: aireiter query --help"),
    (("balance", "now"), "unexpected argument 'now'; see: aireiter balance --help"),
    (
        ("models", "nano_banan"),
        (
            "no model is called 'nano_banan'; did you mean nano_banana or nano_banana_v2 or "
            "nano_banana_pro?; list them with: aireiter models"
        ),
    ),
    (("batch", "nope.csv"), "nope.csv cannot be read: No such file or directory"),
    (
        ("batch", "prompts.csv", "nano_banana_v2"),
        (
            "a parameter must be NAME=VALUE, got 'nano_banana_v2'; write the model as --model "
            "nano_banana_v2"
        ),
    ),
    ((*BATCH, "--max-credits", "-1"), "--max-credits must be at least 0, got -1"),
    (
        (*BATCH, "--format", "xlsx"),
        (
            "--format must be one of jsonl, json, csv, tsv, txt, got 'xlsx'; "
            "see: aireiter batch --help"
        ),
    ),
    ((*BATCH, "--concurrency", "0"), "--concurrency must be at least 1, got 0"),
    (
        (*BATCH, "--name", "{prompt}"),
        "--name needs --download, the directory of the files",
    ),
    (("report", "nope.db"), "there is no ledger nope.db"),
    (
        ("report", "prompts.csv"),
        "prompts.csv is not a ledger, which is an SQLite file; did you mean prompts.csv.db?",
    ),
    (("report", "photo.jpg"), "photo.jpg is not a ledger, which is an SQLite file"),
    (
        ("balance", "--base-url", "aireiter.com"),
        "--base-url must be an absolute URL such as https://aireiter.com, got 'aireiter.com'",
    ),
]


@pytest.mark.parametrize(
    ("argv", "message"), MISTAKES, ids=[" ".join(argv) for argv, _ in MISTAKES]
)
def test_a_mistake_is_explained_in_one_line(
    aireiter: Run,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    argv: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AIREITER_API_KEY", KEY)
    write_files()
    Path("prompts.csv.db").touch()
    assert aireiter(*argv) == Ran(2, "", f"aireiter: {message}\n")


@pytest.mark.parametrize("key", ["", None])
def test_a_missing_key_is_explained(
    aireiter: Run, monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    monkeypatch.delenv("AIREITER_API_KEY", raising=False)
    if key is not None:
        monkeypatch.setenv("AIREITER_API_KEY", key)
    assert aireiter("balance").err == (
        "aireiter: no API key: pass --api-key or set AIREITER_API_KEY; "
        "get a key at https://aireiter.com/keys\n"
    )


def test_any_other_usage_error_is_passed_on() -> None:
    message = describe_usage(CycloptsError(msg="It is wrong"), ["run"], COMMANDS)
    assert message == "It is wrong; see: aireiter run --help"


def test_a_refused_connection_names_the_host(
    aireiter: Run, monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    monkeypatch.setenv("AIREITER_API_KEY", KEY)
    ran = aireiter("balance", "--base-url", f"http://127.0.0.1:{unused_tcp_port}")
    assert ran.status == 1
    assert ran.err.startswith(
        f"aireiter: cannot connect to 127.0.0.1:{unused_tcp_port}: Connection refused; check"
    )
