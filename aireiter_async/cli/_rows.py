"""The input file of a batch: its format, its rows, and the request that each row makes.

A file is read twice: once to check all of it before anything is sent, once to run it. Neither
reading keeps more than a row, but for a JSON array, which is loaded whole.
"""

import csv
import gzip
import io
import json
import re
import reprlib
import shutil
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from itertools import chain
from pathlib import Path
from typing import IO, Any, Final, TypeAlias, cast, get_args

from attrs import field, frozen

from aireiter_async import SubmitRequest, models
from aireiter_async.cli._errors import UsageError, describe
from aireiter_async.cli._options import Format
from aireiter_async.cli._params import (
    STDIN,
    UnusableFileError,
    make_request,
    name_files,
    parameter_types,
    parse_json,
    read_pairs,
    read_value,
    stdin,
)
from aireiter_async.models import InvalidParamsError

_SUFFIXES: Final[Mapping[str, Format]] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".txt": "txt",
}
_KEYS: Final = ("model", "params", "out_task_id", "callback_url", "metadata")
_COLUMNS: Final = ("model", "out_task_id", "callback_url")  # all others are parameters
_LARGEST_CELL: Final = 2**31 - 1  # characters: a cell may hold an image as a data URL
_SEPARATORS: Final = frozenset("\t,;|:/^~#$%&!?*+=@`")  # never a letter or a bracket
_NEVER: Final = "\x1f"  # separates the columns where there is one
_GZIP: Final = b"\x1f\x8b"
_FOREIGN: Final[Mapping[bytes, str]] = {
    b"PK\x03\x04": "a spreadsheet or ZIP file: save it as CSV",
    b"PAR1": "a Parquet file: save it as JSON Lines or CSV",
    b"SQLite format 3": "an SQLite database, perhaps a ledger: name the file of requests",
    b"%PDF": "a PDF file",
    b"\xfd7zXZ": "compressed with xz: use gzip, or decompress it",
    b"BZh": "compressed with bzip2: use gzip, or decompress it",
    b"\x28\xb5\x2f\xfd": "compressed with zstd: use gzip, or decompress it",
}
_BYTE_ORDER_MARKS: Final[Mapping[bytes, str]] = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
_PEEK: Final = 4096  # bytes
# Spreadsheets run such cells as formulas; an apostrophe in front marks them as text.
_FORMULA: Final = re.compile(r"'*[=+\-@\t\r]")

Note: TypeAlias = Callable[[str], None]


@frozen
class Row(Mapping[str, Any]):
    """One row of the file; as a mapping, the fields for the names of its files.

    Attributes:
        number: Its first line, from 1.
        request: The request, None if invalid; if *unusable*, with the names of its files.
        error: Why it is invalid.
        unusable: Why it cannot be sent, if its local files are the problem.
        columns: Other columns, with ``--keep-columns``.
    """

    number: int
    request: SubmitRequest | None = None
    error: str | None = None
    unusable: UnusableFileError | None = None
    columns: Mapping[str, Any] = field(factory=dict[str, Any])

    def __getitem__(self, name: str) -> Any:
        return self.number if name == "line" else self.columns[name]

    def __iter__(self) -> Iterator[str]:
        yield from {"line": None, **self.columns}

    def __len__(self) -> int:
        return len({"line", *self.columns})


@frozen
class _Record:
    """A row as read, before validation.

    Attributes:
        number: Its first line.
        body: The values of `_KEYS`.
        kept: All others.
        error: Why it is invalid.
    """

    number: int
    body: Mapping[str, Any] = field(factory=dict[str, Any])
    kept: Mapping[str, Any] = field(factory=dict[str, Any])
    error: str | None = None


@frozen(kw_only=True)
class Rows:
    """A file of requests.

    Attributes:
        name: The file's name, for messages.
        file: The file, decompressed and open; it can be read again.
        format: How the requests are written.
        encoding: The encoding of its text.
        model: The model of rows that do not name one.
        defaults: Parameters of rows that do not set them, by name, as text.
        unchecked: Whether parameters are not checked.
        keep_columns: Whether columns and keys that are not of the request are kept.
        max_image_side: Pixels that the longer side of a local image has at most.
        skipped: How many lines of each kind the last reading skipped.
    """

    name: str
    file: IO[bytes]
    format: Format
    encoding: str = "utf-8"
    model: str | None = None
    defaults: Mapping[str, Sequence[str]] = field(factory=dict[str, Sequence[str]])
    unchecked: bool = False
    keep_columns: bool = False
    max_image_side: int | None = None
    skipped: Counter[str] = field(factory=Counter[str])

    def __attrs_post_init__(self) -> None:
        """Check the options."""
        if self.format == "txt" and self.model is None:
            raise UsageError(f"--model must name the model of the prompts in {self.name}")
        if self.unchecked and self.keep_columns:
            raise UsageError("--keep-columns and --unchecked exclude each other")

    def read(self, note: Note | None = None) -> Iterator[Row]:
        """Read all rows.

        Args:
            note: Called once with each thing that the user should know.

        Raises:
            UsageError: The file cannot be read on.
        """
        noted: set[str] = set()

        def once(text: str) -> None:
            if note is not None and text not in noted:
                noted.add(text)
                note(text)

        for record in self._records():
            try:
                yield self._row(record, once)
            except (TypeError, ValueError) as error:
                invalid = isinstance(error, InvalidParamsError)
                yield Row(record.number, error=describe(error) if invalid else str(error))

    def _row(self, record: _Record, note: Note) -> Row:
        if record.error is not None:
            raise UsageError(record.error)
        if record.kept and not self.keep_columns:
            raise UsageError(_unknown_key(next(iter(record.kept))))
        given = {key: value for key, value in record.body.items() if value is not None}
        model = given.pop("model", self.model)
        if model is None:
            raise UsageError("model is missing; set it in the row, or for all rows with --model")
        for key in ("params", "metadata"):
            if not isinstance(given.get(key, {}), dict):
                raise UsageError(f"{key} must be an object, got {reprlib.repr(given[key])}")
        params: dict[str, Any] | None = given.pop("params", None)
        if params is None and not self.defaults:
            raise UsageError("params is missing")
        types: Mapping[str, str] = parameter_types(model) if isinstance(model, str) else {}
        defaults = read_pairs(self.defaults, types)
        named = {**defaults, **(params or {})}
        if isinstance(model, str):
            defaults = name_files(model, defaults, Path())
            params = name_files(model, params or {}, Path(self.name).parent)
        params = {**defaults, **(params or {})}
        SubmitRequest(model, {}, **given)  # raises for an invalid model name
        checked = None if self.unchecked else note
        side = self.max_image_side
        try:
            request = make_request(model, params, given, max_side=side, note=checked)
        except UnusableFileError as error:
            request = SubmitRequest(model, named, **given)
            return Row(record.number, request, str(error), error, record.kept)
        return Row(record.number, request, columns=record.kept)

    def _records(self) -> Iterator[_Record]:
        """Read the records of the file."""
        self.file.seek(0)
        self.skipped.clear()
        # Invalid UTF-8 becomes surrogates, which are reported with their row.
        errors = "strict" if self.encoding == "utf-16" else "surrogateescape"
        text = io.TextIOWrapper(self.file, self.encoding, errors=errors, newline="")
        readers = {"jsonl": _json_lines, "json": _json_array, "txt": _prompts}
        read = readers.get(self.format, self._table)
        try:
            yield from read(text, self.skipped)
        except (OSError, EOFError, UnicodeError, zlib.error) as error:
            raise UsageError(f"{self.name} cannot be read to its end: {error}") from error
        finally:
            with suppress(ValueError):  # already closed
                text.detach()  # otherwise the file would be closed as well

    def _table(self, lines: Iterable[str], skipped: Counter[str]) -> Iterator[_Record]:
        """Read a table, whose first row is the header."""
        csv.field_size_limit(_LARGEST_CELL)
        lines = iter(lines)
        start, header = 0, ""
        for start, header in enumerate(lines, 1):  # noqa: B007 - used below
            if header.strip():
                break
        known = {*_COLUMNS, *_parameter_names(self.model)}
        separator = "\t" if self.format == "tsv" else find_separator(header, known)
        reader = csv.reader(chain([header], lines), strict=True, delimiter=separator)
        columns: list[str] | None = None
        while True:
            number = start + reader.line_num
            try:
                cells = next(reader, None)
            except csv.Error as error:
                # The following rows cannot be separated.
                yield _Record(number, error=_csv_error(error, separator))
                return
            if cells is None:
                return
            if not any(cell.strip() for cell in cells):
                skipped["blank line"] += 1
            elif columns is None:
                columns = [cell.strip() for cell in cells]
                if wrong := self._check_columns(columns):
                    yield _Record(number, error=wrong)
                    return
            else:
                yield self._from_cells(number, columns, cells)

    def _check_columns(self, columns: list[str]) -> str | None:
        """Return the problem with the header, if any."""
        known: Mapping[str, str] = parameter_types(self.model) if self.model else {}
        if "model" not in columns and self.model is None:
            return "there is no column model: set the model of all rows with --model"
        for column in columns:
            if not column:
                return "a column has no name"
            if columns.count(column) > 1:
                return f"the column {reprlib.repr(column)} appears twice"
            if wrong := _wrong_text(column):
                return wrong
            free = self.unchecked or self.keep_columns or "model" in columns or not known
            if not free and column not in known and column not in _COLUMNS:
                near = _nearest(column, (*_COLUMNS, *known))
                return (
                    f"the column {reprlib.repr(column)} is not a parameter of {self.model}; {near};"
                    " --keep-columns carries it to --results"
                )
        return None

    def _from_cells(self, number: int, columns: list[str], cells: list[str]) -> _Record:
        if len(cells) != len(columns):
            return _Record(
                number,
                error=f"{len(cells)} cells, but the header has {len(columns)}; "
                "quote cells that contain the separator",
            )
        found = {name: _unmark(cell) for name, cell in zip(columns, cells, strict=True)}
        for name, cell in found.items():
            if wrong := _wrong_text(cell):
                return _Record(number, error=f"column {reprlib.repr(name)}: {wrong}")
        body: dict[str, Any] = {key: found.pop(key, None) or None for key in _COLUMNS}
        types = parameter_types(body["model"] or self.model or "")
        kept: dict[str, str] = {}
        if types and self.keep_columns:
            kept = {name: found.pop(name) for name in [*found] if name not in types}
        given = {name: cell for name, cell in found.items() if cell}
        body["params"] = {name: read_value(cell, types.get(name)) for name, cell in given.items()}
        return _Record(number, body, kept)


def _json_lines(lines: Iterable[str], skipped: Counter[str]) -> Iterator[_Record]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            skipped["blank line"] += 1
            continue
        yield _parse_object(number, line)


def _json_array(file: io.TextIOWrapper, _skipped: Counter[str]) -> Iterator[_Record]:
    """Read the items of a JSON array, with their line numbers."""
    text = file.read()
    position, counted, number = text.index("[") + 1, 0, 1
    while True:
        position = _skip_space(text, position)
        number += text.count("\n", counted, position)
        counted = position
        if text[position : position + 1] == "]":
            if text[position + 1 :].strip():
                yield _Record(number, error="not JSON: there is text after the array")
            return
        try:
            _, end = json.JSONDecoder().raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            yield _Record(number, error=f"not JSON: {getattr(error, 'msg', error)}")
            return
        yield _parse_object(number, text[position:end])
        position = _skip_space(text, end)
        if text[position : position + 1] not in {",", "]"}:
            yield _Record(number, error="not JSON: a comma or ] is missing after this item")
            return
        position += text[position] == ","


def _skip_space(text: str, position: int) -> int:
    while text[position : position + 1].isspace():
        position += 1
    return position


def _parse_object(number: int, text: str) -> _Record:
    try:
        if wrong := _wrong_text(text):
            return _Record(number, error=wrong)
        value = parse_json(text)
    except ValueError as error:
        return _Record(number, error=str(error))
    if not isinstance(value, dict):
        wrong = 'not an object such as {"model": "suno", "params": {"prompt": "x"}}'
        return _Record(number, error=wrong)
    items = cast("dict[str, Any]", value).items()
    body = {key: each for key, each in items if key in _KEYS}
    return _Record(number, body, {key: each for key, each in items if key not in _KEYS})


def _prompts(lines: Iterable[str], skipped: Counter[str]) -> Iterator[_Record]:
    r"""Read one prompt per line; lines that begin with # are comments, \# is a prompt's #."""
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text:
            skipped["blank line"] += 1
        elif text.startswith("#"):
            skipped["comment"] += 1
        elif wrong := _wrong_text(text):
            yield _Record(number, error=wrong)
        else:
            prompt = text.removeprefix("\\") if text[1:2] == "#" else text
            yield _Record(number, {"params": {"prompt": prompt}})


def find_separator(header: str, known: Collection[str]) -> str:
    """Return the column separator of *header*: never a letter or part of a name.

    Args:
        header: The first line of a table.
        known: Common column names.
    """
    bare = re.sub(r'"[^"]*"', "", header.strip("\r\n"))
    marks = dict.fromkeys(char for char in bare if char in _SEPARATORS)

    def score(mark: str) -> tuple[int, int]:
        cells = next(csv.reader([header], delimiter=mark))
        return sum(cell.strip() in known for cell in cells), bare.count(mark)

    return max(marks, key=score, default=_NEVER)


def mark_text(text: str) -> str:
    """Mark a cell as text if a spreadsheet would run it as a formula; `Rows` removes the mark."""
    return f"'{text}" if _FORMULA.match(text) else text


def table_line(cells: Iterable[Any]) -> str:
    """Return one line of CSV."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()


def _unmark(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def _csv_error(error: csv.Error, separator: str) -> str:
    hint = "; or use one prompt per line (--format txt)" if separator == _NEVER else ""
    return (
        f"not CSV: {str(error).replace(_NEVER, 'end of line')}; double the quotes in a cell{hint}"
    )


def _wrong_text(text: str) -> str | None:
    """Return the problem with text from the file, if any."""
    if text.isascii():
        return None
    found = re.search("[\udc80-\udcff]", text)
    if found is None:
        return None
    byte = ord(found[0]) - 0xDC00
    return f"not UTF-8: byte 0x{byte:02x} at character {found.start() + 1}; save the file as UTF-8"


def _parameter_names(model: str | None) -> Collection[str]:
    if model is not None and (types := parameter_types(model)):
        return types
    return {name for each in models.MODELS for name in parameter_types(each)}


def _unknown_key(key: str) -> str:
    name = reprlib.repr(key)
    if key in _parameter_names(None):
        return f'{name} is a parameter: write {{"params": {{{json.dumps(key)}: ...}}}}'
    return f"{name} is not a key of a request; {_nearest(key, _KEYS)}"


def _nearest(word: str, names: Collection[str]) -> str:
    nearest = get_close_matches(word[:64], names, n=1)
    return f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(names)}"


@contextmanager
def open_input(name: str) -> Generator[tuple[IO[bytes], bool], None, None]:
    """Open the file *name*, or standard input for ``-``, and decompress it.

    Yields:
        The file, and whether it is a regular one; any other is copied to a temporary file.

    Raises:
        UsageError: It cannot be read.
    """
    try:
        file = stdin() if name == STDIN else Path(name).open("rb")  # noqa: SIM115
        regular = name != STDIN and Path(name).is_file()
    except OSError as error:
        raise UsageError(f"{name} cannot be read: {error}") from error
    with tempfile.TemporaryFile() if not regular else file as seekable:
        if not regular:
            shutil.copyfileobj(file, seekable)
            if name != STDIN:
                file.close()
            seekable.seek(0)
        compressed = seekable.read(2) == _GZIP
        seekable.seek(0)
        opened = gzip.GzipFile(fileobj=seekable) if compressed else seekable
        yield cast("IO[bytes]", opened), regular


def detect(name: str, file: IO[bytes], format_: Format | None) -> tuple[Format, str]:
    """Return the format and the encoding of *file*.

    Args:
        name: The file's name, for its suffix.
        file: The file.
        format_: The format, if the user gave it.

    Raises:
        UsageError: The format is not supported or unclear.
    """
    try:
        start = file.read(_PEEK)
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"{name} cannot be read: {error}") from error
    for magic, what in _FOREIGN.items():
        if start.startswith(magic):
            raise UsageError(f"{name} is {what}")
    encoding = next(
        (each for mark, each in _BYTE_ORDER_MARKS.items() if start.startswith(mark)), "utf-8"
    )
    if b"\0" in start and encoding != "utf-16":
        raise UsageError(f"{name} is not text: it contains NUL bytes; save it as UTF-8")
    text = start.decode(encoding, errors="ignore").lstrip()
    found = format_ or _SUFFIXES.get(Path(name.lower().removesuffix(".gz")).suffix)
    if found is None and text[:1] in {"{", "["}:
        found = "json" if text[0] == "[" else "jsonl"
    if found is None:
        raise UsageError(
            f"the format of {name} is unclear; add --format {', '.join(get_args(Format))}"
        )
    if format_ is None and found in {"csv", "tsv", "txt"} and text[:1] == "{":
        raise UsageError(
            f"{name} looks like JSON Lines; rename it, or add --format jsonl or {found}"
        )
    if found == "jsonl" and text[:1] not in {"{", "["} and text:
        line = reprlib.repr(text.splitlines()[0])
        raise UsageError(
            f"{name} is not JSON Lines: it starts with {line}; for a table add --format csv, "
            "for one prompt per line --format txt"
        )
    if found == "json" and text[:1] != "[":
        raise UsageError(f"{name} is not a JSON array; for one object per line add --format jsonl")
    return ("json" if found == "jsonl" and text[:1] == "[" else found), encoding
