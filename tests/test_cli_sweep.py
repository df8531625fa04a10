"""``aireiter batch --each, --repeat, --only``: combinations, and a choice of them."""

import csv
import io
import itertools
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aireiter_async.cli._errors import UsageError
from aireiter_async.cli._rows import Rows
from aireiter_async.cli._sweep import Sweep
from aireiter_async.testing import FakeService, Fault
from tests.command import PNG, Ran

Run = Callable[..., Ran]
PROMPTS = "prompt\na fox\nan owl\n"
MODELS = "model=nano_banana_v2,seedream_v5_lite"
SIZES = "aspect_ratio=16:9, 9:16"


@pytest.fixture
def run(aireiter: Run) -> Run:
    """Return what runs ``aireiter batch`` on a table of two prompts in this process."""
    Path("p.csv").write_text(PROMPTS)
    return lambda *argv: aireiter("batch", "p.csv", *argv)


def each(*options: str) -> tuple[str, ...]:
    return tuple(word for option in options for word in ("--each", option))


def results(name: str = "r.jsonl") -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in Path(name).read_text().splitlines()]
    return sorted(rows, key=lambda row: row["index"])


@pytest.mark.parametrize(
    ("options", "axes"),
    [
        ([SIZES], {"aspect_ratio": ("16:9", "9:16")}),
        (['style="oil, warm",ink'], {"style": ("oil, warm", "ink")}),
        (['style= "say ""hi""" , 5" print'], {"style": ('say "hi"', '5" print')}),
        (["model=a", "seed=1", "model=b"], {"model": ("a", "b"), "seed": ("1",)}),
        (["prompt=a=b,true"], {"prompt": ("a=b", "true")}),
        (["n=1,true,[1]", 'n="[1, 2]"'], {"n": ("1", "true", "[1]", "[1, 2]")}),
    ],
)
def test_values_are_one_line_of_csv(options: list[str], axes: dict[str, Any]) -> None:
    """Case 151."""
    assert Sweep.read(options).axes == axes


@pytest.mark.parametrize(
    ("options", "texts"),
    [
        (["seed=1,1"], ["--each seed=1,1:", "--repeat"]),
        (["guidance=1,1.0"], ["--each guidance=1,1.0: the guidance 1 and the guidance 1.0 are"]),
        (["model=a", "model=b,a"], ["--each model=a and --each model=b,a: the model a and"]),
        (["sound=true,True"], ["the sound true and the sound True are the same"]),
        (['tags="[1,2]","[1, 2]"'], ["are the same"]),
        (["seed=1,,2"], ["--each seed has an empty value in '1,,2'"]),
        (["seed="], ["--each seed has an empty value"]),
        (['seed=1," "'], ["--each seed has an empty value"]),
        (["seed"], ["--each must be NAME=VALUE,VALUE, got 'seed'"]),
        (["=1"], ["--each must be NAME=VALUE,VALUE, got '=1'"]),
        (['style="oil, warm'], ["--each style must be one line of CSV, got '\"oil, warm'"]),
        (['style="oil" warm,ink'], ["--each style must be one line of CSV"]),
        (["style=oil\nink"], ["--each style must be one line"]),
        (["out_task_id=a,b"], ["only the model and parameters can be varied"]),
    ],
)
def test_malformed_axes_are_rejected(options: list[str], texts: list[str]) -> None:
    """Case 152."""
    with pytest.raises(UsageError) as caught:
        Sweep.read(options)
    assert [text for text in texts if text not in str(caught.value)] == []


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ((*each(MODELS), "-m", "suno"), "--model and --each model both set model"),
        (
            ("seed=1", "-m", "seedream_v5_lite", *each("seed=2")),
            "seed=... and --each seed both set seed: remove one",
        ),
        ((*each("prompt=x"), "-m", "suno"), "the column prompt of p.csv and --each prompt both"),
        (
            each("model=nano_banana_v2,suno", SIZES),
            "--each aspect_ratio: suno has no such parameter; --each-where-known omits it",
        ),
        (
            (*each("aspectratio=1:1"), "-m", "nano_banana_v2"),
            "--each aspectratio: nano_banana_v2 has no such parameter; did you mean aspect_ratio?",
        ),
        (
            (*each(MODELS, "aspectratio=1:1"), "--each-where-known"),
            "--each aspectratio: there is no such parameter of nano_banana_v2, seedream_v5_lite",
        ),
        (("-m", "suno", "--each-where-known"), "--each-where-known needs --each"),
        (
            (*each("image_url=@p.csv,@no.png"), "-m", "nano_banana_v2"),
            "--each image_url: there is no file no.png",
        ),
        (("-m", "suno", "--repeat", "0"), "--repeat must be at least 1, got 0"),
        (
            (*each(MODELS), "--repeat", "2501"),
            "--each and --repeat make 10,004 tasks of 2 rows; nothing was sent; if you mean it,",
        ),
        (
            ("-m", "suno", "--repeat", "5001", "--estimate", "--buy-one"),
            "make 10,002 tasks of 2 rows",
        ),
    ],
)
def test_bad_sweeps_send_nothing(
    served: FakeService, run: Run, argv: tuple[str, ...], text: str
) -> None:
    ran = run(*argv)
    assert (ran.status, ran.out, served.requests) == (2, "", [])
    assert text in ran.err.splitlines()[-1]


def test_a_wrong_value_is_named_once_for_all_rows(served: FakeService, run: Run) -> None:
    ran = run(*each(MODELS, "aspect_ratio=16:9,99:1"))
    assert (ran.status, served.requests) == (2, [])
    first, second, last = ran.err.splitlines()
    assert first.startswith(
        "p.csv, line 2 and 1 more: with model=nano_banana_v2, aspect_ratio=99:1: nano_banana_v2: "
        "aspect_ratio must be one of"
    )
    assert "with model=seedream_v5_lite, aspect_ratio=99:1: " in second
    assert last.endswith("p.csv makes 4 invalid requests with --each; nothing was sent")


def test_every_row_runs_with_every_combination_and_a_rerun_pays_nothing(
    served: FakeService, run: Run
) -> None:
    options = (*each(MODELS, SIZES), "--repeat", "2", "--json", "--report")
    named = ("--results", "r.jsonl", "-o", "out", "--name", "{line}-{model:.4}-{aspect_ratio}-{n}")
    ran = run(*options, *named)
    assert (ran.status, ran.document["succeeded"], len(served.charges)) == (0, 16, 16)
    rows = results()
    models, sizes = ("nano_banana_v2", "seedream_v5_lite"), ("16:9", "9:16")
    wanted = [
        each for each in itertools.product(("a fox", "an owl"), models, sizes) for _ in range(2)
    ]
    assert [(row["prompt"], row["model"], row["params"]["aspect_ratio"]) for row in rows] == wanted
    assert [row["columns"] for row in rows[:3]] == [
        {"aspect_ratio": "16:9"},
        {"aspect_ratio": "16:9"},
        {"aspect_ratio": "9:16"},
    ]
    assert [row["line"] for row in rows] == [2] * 8 + [3] * 8
    names = sorted(path.name for path in Path("out").glob("*.png"))
    assert names[:2] == ["2-nano-16_9-1-2.png", "2-nano-16_9-1.png"]
    assert len(names) == 16
    page = Path("out/p.csv.html").read_text()
    retry = re.search(r'"retry":("[^"]*")', page)
    assert retry is not None
    words = shlex.split(json.loads(retry[1]))
    assert words[:3] == ["aireiter", "batch", "p.csv"]
    for again in (words[3:], [*options, *named]):
        assert run(*again).status == 0
        assert len(served.charges) == 16
    assert "16 known, 0 new" in run(*options[:-2], "--dry-run").out
    assert run(*each(MODELS, SIZES), "--repeat", "3").status == 0
    assert len(served.charges) == 24


def test_a_table_of_results_has_a_column_for_each_axis(served: FakeService, run: Run) -> None:
    Path("p.csv").write_text("prompt,note\na fox,x\n")
    options = (*each("model=nano_banana_v2,suno", SIZES), "--each-where-known", "--keep-columns")
    ran = run(*options, "--results", "r.csv", "-o", "out", "--name", "{note}{aspect_ratio}")
    assert (ran.status, len(served.charges)) == (0, 3)
    with Path("r.csv").open(newline="") as file:
        found = sorted((row["note"], row["aspect_ratio"]) for row in csv.DictReader(file))
    assert found == [("x", ""), ("x", "16:9"), ("x", "9:16")]
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "x.mp3",
        "x16_9.png",
        "x9_16.png",
    ]


def test_a_dry_run_and_an_estimate_say_how_many(served: FakeService, run: Run) -> None:
    served.price = {"nano_banana_v2": 3.0, "seedream_v5_lite": 5.0}
    options = each(MODELS, SIZES)
    ran = run(*options, "--repeat", "1251", "--dry-run", "--json")
    assert (ran.status, ran.document["rows"], ran.document["requests"]) == (0, 2, 10_008)
    ran = run(*options, "--dry-run")
    assert ran.out.splitlines()[0] == (
        "requests  8  made of 2 rows; 0 known, 8 new; nothing was sent"
    )
    assert served.requests == []
    ran = run(*options, "--estimate", "--buy-one", "--json")
    assert (ran.document["known"], ran.document["credits"]) == (4, 16)
    assert run(*options, "--yes").status == 0
    assert len(served.charges) == 8


def test_a_large_sweep_is_never_held_in_memory() -> None:
    """Its rows are made one by one, and counted without being made."""
    text = PROMPTS.encode()
    sweep = Sweep.read([f"x{n}={','.join(map(str, range(100)))}" for n in range(9)])
    rows = Rows(name="p", file=io.BytesIO(text), format="csv", model="new", sweep=sweep)
    assert rows.count() == (2, 2 * 100**9)
    for row in itertools.islice(rows.read(), 3):
        assert row.request is not None, row.error


def test_values_have_the_type_of_their_parameter(served: FakeService, run: Run) -> None:
    Path("a.png").write_bytes(PNG)
    options = each("output_n=1,2", "model=gpt_4o,qwen_image_3", "image_url=@a.png")
    Path("p.csv").write_text("prompt\nx\n")
    ran = run(*options, "--each-where-known", "--results", "r.jsonl")
    assert ran.status == 0, ran
    found = [(row["model"], row["params"].get("output_n")) for row in results()]
    assert found == [("gpt_4o", None), ("qwen_image_3", 1), ("qwen_image_3", 2)]
    assert all(str(row["params"]["image_url"]).count("sha256:") == 1 for row in results())
    assert len(served.charges) == 3


def test_rows_of_json_and_of_text_are_multiplied(served: FakeService, aireiter: Run) -> None:
    Path("f.jsonl").write_text('{"model": "new", "params": {"x": 1}}\n{"params": {"y": 2}}\n')
    options = ("--results", "r.jsonl", "-m", "suno_lyrics")
    ran = aireiter("batch", "f.jsonl", *each("z=1,2"), *options, "--unchecked")
    assert (ran.status, len(served.charges)) == (0, 4), ran
    assert [row["params"] for row in results()] == [
        {"x": 1, "z": 1},
        {"x": 1, "z": 2},
        {"y": 2, "z": 1},
        {"y": 2, "z": 2},
    ]
    Path("f.txt").write_text("a fox\n# a comment\n")
    ran = aireiter("batch", "f.txt", *each(MODELS))
    assert (ran.status, len(served.charges)) == (0, 6), ran
    ran = aireiter("batch", "f.txt", *each(MODELS, "prompt=x"))
    assert "f.txt and --each prompt both set prompt" in ran.err


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ('{"params": {"x": 1}}', "the row and --each x both set x: remove one of them"),
        ('{"model": "b", "params": {}}', "the row and --each model both set model"),
        ('{"params": {}, "out_task_id": "a"}', "out_task_id is for one task: remove it to use"),
        ('{"params": {"x": NaN}}', "NaN is not a JSON number"),
        ('{"params": [1]}', "params must be an object, got [1]"),
    ],
)
def test_rows_that_cannot_be_multiplied(
    served: FakeService, aireiter: Run, line: str, text: str
) -> None:
    Path("f.jsonl").write_text(line)
    ran = aireiter("batch", "f.jsonl", *each("model=a", "x=2,3"))
    assert (ran.status, served.requests) == (2, [])
    assert text in ran.err
    assert ran.err.count("line 1") == 1


def test_models_of_rows_are_checked_for_the_axes(served: FakeService, aireiter: Run) -> None:
    Path("f.csv").write_text("model,prompt\nnano_banana_v2,x\nsuno,y\n")
    ran = aireiter("batch", "f.csv", *each(MODELS))
    assert "the column model of f.csv and --each model both set model: remove one" in ran.err
    ran = aireiter("batch", "f.csv", *each(SIZES))
    assert (ran.status, served.requests) == (2, [])
    assert "f.csv, line 3: --each aspect_ratio: suno has no such parameter" in ran.err
    assert aireiter("batch", "f.csv", *each(SIZES), "--each-where-known").status == 0
    assert len(served.charges) == 3


def test_standard_input_is_multiplied(
    served: FakeService, aireiter: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(PROMPTS.encode())))
    ran = aireiter("batch", "-", "--format", "csv", "--ledger", "l.db", *each(MODELS), "--json")
    assert (ran.status, ran.document["succeeded"], len(served.charges)) == (0, 4, 4)


def test_failures_of_a_sweep_name_each_line_once(served: FakeService, run: Run) -> None:
    served.script("submit", *[Fault.failed("TIMEOUT", "late")] * 8)
    ran = run(*each(MODELS, SIZES), "--json")
    assert ran.status == 1
    assert [reason["lines"] for reason in ran.document["reasons"]] == [[2, 3]]
    assert ", lines 2, 3: " in ran.document["reasons"][0]["text"]


def test_favourites_are_the_only_requests(served: FakeService, run: Run) -> None:
    """Also a second one of equal content, and one that was retried."""
    options = (*each(MODELS), "--repeat", "3", "--results", "r.jsonl")
    served.script("submit", Fault.failed())
    assert run(*options, "--window", "1").status == 1
    assert run(*options, "--retry-failed").status == 0
    ids = [row["out_task_id"] for row in results()]
    assert ids[0].endswith("-2")
    charges = len(served.charges)
    chosen = [ids[0], ids[4], ids[11]]
    Path("f.txt").write_text("\ufeff# mine\r\n" + "\r\n\r\n".join([*chosen, chosen[0]]) + "\r\n")
    only = (*options, "--only", "f.txt")
    ran = run(*only, "--dry-run", "--json")
    assert (ran.document["rows"], ran.document["requests"], ran.document["known"]) == (2, 3, 3)
    ran = run(*only, "-o", "best", "--json")
    assert (ran.status, ran.document["requests"], ran.document["known"]) == (0, 3, 3)
    assert [row["out_task_id"] for row in results()] == chosen
    assert len([*Path("best").iterdir()]) == 3
    assert len(served.charges) == charges


def test_favourites_may_have_ids_of_the_caller(served: FakeService, aireiter: Run) -> None:
    lines = [{"params": {"prompt": "x"}, "out_task_id": f"id-{n}"} for n in range(3)]
    Path("f.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert aireiter("batch", "f.jsonl", "-m", "suno_lyrics").status == 0
    Path("f.txt").write_text("id-1\n")
    ran = aireiter("batch", "f.jsonl", "-m", "suno_lyrics", "--only", "f.txt", "--json")
    assert (ran.status, ran.document["requests"], len(served.charges)) == (0, 1, 3)


@pytest.mark.parametrize(
    ("text", "argv", "error"),
    [
        ("a\nforeign\n", (), "--only: f.txt, line 1: p.csv.db has no task a; name the ledger of"),
        ("# none\n\n", (), "--only: f.txt has no IDs: mark favourites in the report first"),
        ("no id\n", (), "--only: f.txt, line 1: an ID has 1 to 64 characters of A-Z"),
        (None, (), "--only: f.txt cannot be read: No such file"),
        ("a\n", ("--ledger", "other.db"), "--only: there is no ledger other.db"),
        ("a\n", ("--ledger", "f.txt"), "--ledger: f.txt: "),
        ("{id}\n", ("resolution=2K",), "line 1: no request of p.csv is that of {id}; repeat"),
    ],
)
def test_favourites_of_something_else_send_nothing(
    served: FakeService, run: Run, text: str | None, argv: tuple[str, ...], error: str
) -> None:
    assert run("-m", "wan2_7_image_pro", "--results", "r.jsonl").status == 0
    known = results()[0]["out_task_id"]
    if text is not None:
        Path("f.txt").write_text(text.replace("{id}", known))
    before = len(served.requests)
    ran = run("-m", "wan2_7_image_pro", "--only", "f.txt", *argv)
    assert (ran.status, len(served.requests)) == (2, before)
    assert error.replace("{id}", known) in ran.err.splitlines()[-1]
