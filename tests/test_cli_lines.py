"""The lines of a batch's file: what they are read as, and what is wrong with them."""

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from aireiter_async.cli import main
from aireiter_async.cli._failure import UsageError
from aireiter_async.cli._lines import Lines, open_lines
from aireiter_async.models import Model

GOOD = '{"model": "suno", "params": {"prompt": "rain"}}'
IMAGE = "https://example.com/a.png"


def lines(text: str | bytes, **options: Any) -> Lines:
    """Return the lines of a file."""
    raw = text if isinstance(text, bytes) else text.encode()
    given: dict[str, Any] = {
        "name": "f",
        "file": io.BytesIO(raw),
        "is_csv": False,
        "model": None,
    } | options
    return Lines(**given)


def params(text: str, **options: Any) -> list[Any]:
    """Return what the lines would send as params."""
    found: list[Any] = []
    for line in lines(text, **options).read():
        assert line.request is not None, line.error
        made = line.request.params
        found.append(made.to_params() if isinstance(made, Model) else made)
    return found


def test_a_line_is_the_body_of_a_submit() -> None:
    """All keys of a body are taken, null is as if it were not there, blank lines are skipped."""
    full = {
        "model": "suno",
        "params": {"prompt": "rain"},
        "out_task_id": "mine",
        "callback_url": "https://example.com/x",
        "metadata": {"order": 7},
    }
    text = f'\ufeff\n{json.dumps(full)}\r\n \n{GOOD[:-1]}, "metadata": null}}'
    first, second = lines(text).read()
    assert (first.number, second.number) == (2, 4)
    assert first.request is not None
    assert (first.request.out_task_id, first.request.metadata) == ("mine", {"order": 7})
    assert first.request.callback_url == "https://example.com/x"
    assert second.request is not None
    assert second.request.metadata is None


def test_a_file_is_read_as_often_as_needed() -> None:
    """The second reading finds what the first has found."""
    file = lines(f"{GOOD}\n{GOOD}\n")
    assert [line.number for line in file.read()] == [line.number for line in file.read()] == [1, 2]


def test_lines_that_name_no_model_have_the_given_one() -> None:
    """--model is for all lines that do not say otherwise."""
    (line,) = lines('{"params": {"prompt": "rain"}}', model="suno").read()
    assert line.request is not None
    assert line.request.model == "suno"


def test_unknown_models_are_told_once_each() -> None:
    """What this release does not know is passed on, with one word of warning per model."""
    told: list[str] = []
    text = '{"model": "suna", "params": {"n": 2}}\n' * 3 + '{"model": "zzz", "params": {}}\n'
    assert [line.error for line in lines(text).read(told.append)] == [None] * 4
    assert len(told) == 2
    assert "did you mean suno" in told[0]
    told.clear()
    assert [line.error for line in lines(text, unchecked=True).read(told.append)] == [None] * 4
    assert told == []


BAD: list[tuple[str | bytes, str]] = [
    (b'{"a": "\xff"}', "not UTF-8: invalid start byte at byte 8"),
    ("{'model': 'suno'}", "not JSON: Expecting property name"),
    (f"{GOOD} {GOOD}", "not JSON: Extra data at character 49"),
    ('{"model": NaN}', "not JSON: NaN is not a number of JSON"),
    ("[" * 100_000, "not JSON: "),
    ("9" * 5000, "not JSON: "),
    ("[1]", "not an object such as"),
    ('{"modle": "suno"}', "'modle' is no key of a request; did you mean model?"),
    ('{"xyz": 1}', "'xyz' is no key of a request; there are model, params, out_task_id"),
    ('{"params": {}}', "model is missing"),
    ('{"model": 5, "params": {}}', "model must be a str, got int"),
    ('{"model": " ", "params": {}}', "model must be a model's name"),
    ('{"model": "suno"}', "params is missing"),
    ('{"model": "suno", "params": "rain"}', "params must be an object, got 'rain'"),
    (f'{GOOD[:-1]}, "metadata": [1]}}', "metadata must be an object, got [1]"),
    (f'{GOOD[:-1]}, "callback_url": "ftp://x"}}', "callback_url must be an http"),
    (f'{GOOD[:-1]}, "out_task_id": "a b"}}', "out_task_id must be 1 to 64"),
    (f'{GOOD[:-1]}, "out_task_id": 7}}', "out_task_id must be a str"),
    ('{"model": "suno", "params": {"promt": "x"}}', "promt is not a parameter of this model; did"),
    ('{"model": "new", "params": {"x": "\\ud800"}}', "params.x must be Unicode text"),
]


@pytest.mark.parametrize(("text", "told"), BAD, ids=[told for _, told in BAD])
def test_a_bad_line_says_what_is_wrong(text: str | bytes, told: str) -> None:
    """Whatever is wrong with a line, it is named, and the lines around it are read."""
    raw = text if isinstance(text, bytes) else text.encode()
    first, bad, last = lines(b"%b\n%b\n%b" % (GOOD.encode(), raw, GOOD.encode())).read()
    assert (first.error, last.error) == (None, None)
    assert (bad.number, bad.request) == (2, None)
    assert bad.error is not None
    assert told in bad.error


def test_columns_are_parameters() -> None:
    """Cells are read as the catalogue says, empty ones are not sent, and a cell may have lines."""
    text = (
        "\ufeffprompt,video_length,generate_audio,aspect_ratio, out_task_id \n"
        '"a ""kitten"",\nin the sun",8,true,16:9,mine\n'
        "\n,,,,\n"
        "123,,False,9:16,\n"
    )
    options = {"is_csv": True, "model": "seedance_1_5_pro"}
    assert params(text, **options) == [
        {
            "prompt": 'a "kitten",\nin the sun',
            "video_length": 8,
            "generate_audio": True,
            "aspect_ratio": "16:9",
        },
        {"prompt": "123", "generate_audio": False, "aspect_ratio": "9:16"},
    ]
    first, second = lines(text, **options).read()
    assert (first.number, second.number) == (2, 6)
    assert first.request is not None
    assert first.request.out_task_id == "mine"


@pytest.mark.parametrize("cell", [IMAGE, f'"[""{IMAGE}""]"'])
def test_an_array_is_json_or_one_value(cell: str) -> None:
    """Nothing is split at commas."""
    text = f"prompt,image_url\nx,{cell}\n"
    assert params(text, is_csv=True, model="nano_banana")[0]["image_url"] == [IMAGE]


def test_columns_of_an_unknown_model_are_read_as_json_or_text() -> None:
    """The columns of a model that is not known, or is not to be checked, are passed on."""
    assert params("n,s\n2,x\n", is_csv=True, model="new") == [{"n": 2, "s": "x"}]
    given = params("prompt,n\nx,2\n", is_csv=True, model="suno", unchecked=True)
    assert given == [{"prompt": "x", "n": 2}]


BAD_ROWS: list[tuple[bytes, int, str]] = [
    (b"\nprompt,promt\nx,y\n", 2, "'promt' is no parameter; did you mean prompt?"),
    (b"prompt,\nx,y\n", 1, "a column has no name"),
    (b"prompt,prompt\nx,y\n", 1, "column 'prompt' is there twice"),
    (b"prompt\nx,y\n", 2, "2 cells, where the header has 1"),
    (b"prompt\n\xff\n", 2, "not UTF-8: column 'prompt'"),
    (b'prompt\n"a"b\n', 2, "not CSV: ',' expected after '\"'"),
    (b'prompt\nx\n"a\n\n', 3, "not CSV: unexpected end of data"),
    (b"prompt,instrumental\nx,maybe\n", 2, "instrumental"),
    (b"prompt,out_task_id\nx,a b\n", 2, "out_task_id must be 1 to 64"),
]


@pytest.mark.parametrize(("text", "number", "told"), BAD_ROWS, ids=[told for *_, told in BAD_ROWS])
def test_a_bad_row_says_what_is_wrong(text: bytes, number: int, told: str) -> None:
    """A row, or the header, is named by the line where it begins."""
    *_, bad = lines(text, is_csv=True, model="suno").read()
    assert bad.error is not None
    assert (bad.number, told in bad.error) == (number, True), bad.error


def test_rows_need_a_model() -> None:
    """A CSV file does not say what its rows are for."""
    with pytest.raises(UsageError, match="--model must say"):
        lines("prompt\nx\n", is_csv=True)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a dry run in this process."""

    def run(*argv: str) -> tuple[int, str, str]:
        return (main(["batch", *argv, "--dry-run"]), *capsys.readouterr())

    return run


def test_a_dry_run_counts_and_needs_no_key(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every line is checked, nothing is sent, and nothing is left beside the file."""
    monkeypatch.delenv("AIREITER_API_KEY", raising=False)
    path = tmp_path / "f.jsonl"
    path.write_text(f'{GOOD}\n{GOOD}\n{{"model": "new", "params": {{}}}}\n')
    status, out, err = run(str(path))
    assert status == 0
    assert [line.split()[:2] for line in out.splitlines()] == [
        ["requests", "3"],
        ["2", "suno"],
        ["1", "new"],
    ]
    assert err == "new is not in this release's catalogue: not checked\n"
    assert json.loads(run(str(path), "--json")[1]) == {
        "file": str(path),
        "requests": 3,
        "models": {"suno": 2, "new": 1},
    }
    assert [each.name for each in tmp_path.iterdir()] == ["f.jsonl"]


def test_all_bad_lines_are_named(run: Any, tmp_path: Path) -> None:
    """The first twenty, by file and line, and how many more there are."""
    path = tmp_path / "f.jsonl"
    path.write_text(GOOD + "\n[]" * 23)
    status, out, err = run(str(path), "--json")
    told = err.splitlines()
    assert (status, len(told)) == (2, 22)
    assert told[0].startswith(f"{path}, line 2: not an object")
    assert told[19].startswith(f"{path}, line 21: ")
    assert told[20:] == ["and 3 more", f"aireiter: {path} has 23 bad lines; nothing was sent"]
    error = json.loads(out)["error"]
    assert [each["line"] for each in error["lines"]] == list(range(2, 22))


def test_an_id_is_used_once_in_a_file(run: Any, tmp_path: Path) -> None:
    """The second line with an id is bad, and names the first."""
    path = tmp_path / "f.jsonl"
    named = f'{GOOD[:-1]}, "out_task_id": "mine"}}'
    path.write_text(f"{named}\n{GOOD}\n{named}\n")
    status, _, err = run(str(path))
    assert (status, err.splitlines()) == (
        2,
        [
            f"{path}, line 3: out_task_id mine is that of line 1",
            f"aireiter: {path} has 1 bad line; nothing was sent",
        ],
    )


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("missing", None, "missing cannot be read"),
        (".", None, "cannot be read"),
        ("f.jsonl", "\n\n", "has no requests"),
        ("f.CSV", "prompt\n", "--model must say"),
    ],
)
def test_a_file_that_is_none_is_bad_input(
    run: Any, tmp_path: Path, name: str, content: str | None, told: str
) -> None:
    """A file that is not there, or has nothing in it, is told in one line."""
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    status, out, err = run(str(path))
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert told in err


def test_standard_input_is_kept_to_be_read_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """What can be read only once is copied, standard input left open."""
    stream = io.TextIOWrapper(io.BytesIO(GOOD.encode()))
    monkeypatch.setattr(sys, "stdin", stream)
    with open_lines("-") as (file, regular):
        assert not regular
        assert list(lines("").read()) == []
        found = Lines(name="-", file=file, is_csv=False, model=None)
        assert len(list(found.read())) == len(list(found.read())) == 1
    assert not stream.closed


def test_a_pipe_is_kept_to_be_read_twice() -> None:
    """So is the file that a shell makes of another program's output."""
    reader, writer = os.pipe()
    os.write(writer, GOOD.encode())
    os.close(writer)
    with open_lines(f"/dev/fd/{reader}") as (file, regular):
        assert (regular, file.read()) == (False, b"")
        assert next(lines(GOOD).read()).request is not None
        assert file.seek(0) == 0
        assert file.read() == GOOD.encode()
    os.close(reader)
