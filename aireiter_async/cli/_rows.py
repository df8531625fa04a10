"""The rows of a batch's input file, and the requests that each makes.

A file is read twice: once to check all of it before anything is sent, once to run it. Neither
reading keeps more than a row, but for a JSON array, which is loaded whole.
"""

import csv
import io
import json
import re
import reprlib
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from itertools import chain
from pathlib import Path
from typing import IO, Any, Final, TypeAlias, cast

from attrs import evolve, field, frozen

from aireiter_async import SubmitRequest, models
from aireiter_async.cli._errors import UsageError, describe, reason
from aireiter_async.cli._favourites import Favourites
from aireiter_async.cli._options import Format
from aireiter_async.cli._params import (
    UnusableFileError,
    make_request,
    name_files,
    parameter_types,
    parse_json,
    read_pairs,
    read_value,
)
from aireiter_async.cli._sweep import MODEL, Sweep
from aireiter_async.models import InvalidParamsError

_KEYS: Final = ("model", "params", "out_task_id", "callback_url", "metadata")
_COLUMNS: Final = ("model", "out_task_id", "callback_url")  # all others are parameters
_LARGEST_CELL: Final = 2**31 - 1  # characters: a cell may hold an image as a data URL
_SEPARATORS: Final = frozenset("\t,;|:/^~#$%&!?*+=@`")  # never a letter or a bracket
_NEVER: Final = "\x1f"  # separates the columns where there is one
# Spreadsheets run such cells as formulas; an apostrophe in front marks them as text.
_FORMULA: Final = re.compile(r"'*[=+\-@\t\r]")
_ONCE: Final = Sweep()

Note: TypeAlias = Callable[[str], None]


@frozen
class Row(Mapping[str, Any]):
    """One row of the file; as a mapping, the fields for the names of its files.

    Attributes:
        number: Its first line, from 1.
        request: The request, None if invalid; if *unusable*, with the names of its files.
        error: Why it is invalid.
        unusable: Why it cannot be sent, if its local files are the problem.
        columns: Other columns, with ``--keep-columns``, and the values of a sweep.
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
        cells: In a table instead, the cells of parameters and of columns to keep.
        error: Why it is invalid.
    """

    number: int
    body: Mapping[str, Any] = field(factory=dict[str, Any])
    kept: Mapping[str, Any] = field(factory=dict[str, Any])
    cells: Mapping[str, str] | None = None
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
        sweep: The combinations that each row is run with.
        favourites: The only requests to read.
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
    sweep: Sweep = _ONCE
    favourites: Favourites | None = None
    skipped: Counter[str] = field(factory=Counter[str])

    def __attrs_post_init__(self) -> None:
        """Check the options."""
        if self.format == "txt" and self.model is None and MODEL not in self.sweep.axes:
            raise UsageError(f"--model must name the model of the prompts in {self.name}")
        given = {name: f"{name}=..." for name in self.defaults}
        if self.model is not None:
            given[MODEL] = "--model"
        if self.format == "txt":
            given["prompt"] = self.name
        self.sweep.check(given, self.sweep.models(self.model))
        if self.unchecked and self.keep_columns:
            raise UsageError("--keep-columns and --unchecked exclude each other")

    def read(self, note: Note | None = None) -> Iterator[Row]:
        """Read all rows.

        Args:
            note: Called once with each thing that the user should know.

        Raises:
            UsageError: The file cannot be read to its end.
        """
        noted: set[str] = set()

        def once(text: str) -> None:
            if note is not None and text not in noted:
                noted.add(text)
                note(text)

        select = None if self.favourites is None else self.favourites.selector()
        for record in self._records():
            for row in self._multiply(record, once):
                if row.request is None or select is None:
                    yield row
                elif (request := select(row.request)) is not None:
                    yield evolve(row, request=request)

    def count(self) -> tuple[int, int]:
        """Return the number of rows, and of tasks that they make, without checking them."""
        rows = tasks = 0
        for record in self._records():
            rows += 1
            with suppress(UsageError):  # reported when it is read
                tasks += self.sweep.size(record.body.get("model") or self.model)
        return rows, tasks

    def _multiply(self, record: _Record, note: Note) -> Iterator[Row]:
        """Read a record with each combination of the sweep."""
        try:
            given = self._check(record)
            model = given.pop("model", self.model)
            self.sweep.size(model)  # raises for an axis that the model does not have
        except (TypeError, ValueError) as error:
            yield Row(record.number, error=str(error))
            return
        for combination in self.sweep.combinations(model):
            try:
                yield self._row(record, {"model": model, **given}, combination, note)
            except (TypeError, ValueError) as error:
                chosen = ", ".join(f"{name}={value}" for name, value in combination.items())
                text = describe(error) if isinstance(error, InvalidParamsError) else str(error)
                yield Row(record.number, error=f"with {chosen}: {text}" if chosen else text)

    def _check(self, record: _Record) -> dict[str, Any]:
        """Check what does not depend on the model; return the values of `_KEYS`."""
        if record.error is not None:
            raise UsageError(record.error)
        if record.kept and not self.keep_columns:
            raise UsageError(_unknown_key(next(iter(record.kept))))
        given = {key: value for key, value in record.body.items() if value is not None}
        for key in ("params", "metadata"):
            if not isinstance(given.get(key, {}), dict):
                raise UsageError(f"{key} must be an object, got {reprlib.repr(given[key])}")
        if "model" not in given and self.model is None and MODEL not in self.sweep.axes:
            raise UsageError("model is missing; set it in the row, or for all rows with --model")
        if "params" not in given and record.cells is None and not self.defaults:
            raise UsageError("params is missing")
        name = self.sweep.find_conflict([*given, *given.get("params", {}), *record.kept])
        if name is not None:
            raise UsageError(f"the row and --each {name} both set {name}: remove one of them")
        if self.sweep and "out_task_id" in given:
            raise UsageError("out_task_id is for one task: remove it to use --each or --repeat")
        return given

    def _row(
        self, record: _Record, given: dict[str, Any], combination: dict[str, str], note: Note
    ) -> Row:
        model: Any = combination.get(MODEL, given.pop("model"))
        types: Mapping[str, str] = parameter_types(model) if isinstance(model, str) else {}
        params: dict[str, Any] = given.pop("params", {})
        kept = {**record.kept}
        if record.cells is not None:
            params, kept = self._from_cells(record.cells, types)
        varied = {name: text for name, text in combination.items() if name != MODEL}
        defaults = read_pairs(self.defaults, types)
        defaults |= {name: read_value(text, types.get(name)) for name, text in varied.items()}
        named = {**defaults, **params}
        if isinstance(model, str):
            defaults = name_files(model, defaults, Path())
            params = name_files(model, params, Path(self.name).parent)
        params = {**defaults, **params}
        SubmitRequest(model, {}, **given)  # raises for an invalid model name
        checked = None if self.unchecked else note
        # Of the model and the prompt, the results have columns anyway.
        names = [name for name in self.sweep.axes if name not in {MODEL, "prompt"}]
        columns = {**kept, **{name: varied.get(name) for name in names}}
        side = self.max_image_side
        try:
            request = make_request(model, params, given, max_side=side, note=checked)
        except UnusableFileError as error:
            request = SubmitRequest(model, named, **given)
            return Row(record.number, request, str(error), error, columns)
        return Row(record.number, request, columns=columns)

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
            raise UsageError(f"{self.name} cannot be read to its end: {reason(error)}") from error
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
                if name := self.sweep.find_conflict(columns):
                    raise UsageError(
                        f"the column {name} of {self.name} and --each {name} both set {name}: "
                        "remove one of them"
                    )
                if wrong := self._check_columns(columns):
                    yield _Record(number, error=wrong)
                    return
            else:
                yield self._read_cells(number, columns, cells)

    def _check_columns(self, columns: list[str]) -> str | None:
        """Return the problem with the header, if any."""
        known: Mapping[str, str] = parameter_types(self.model) if self.model else {}
        if MODEL not in {*columns, *self.sweep.axes} and self.model is None:
            return "there is no column model: set the model of all rows with --model"
        for column in columns:
            if wrong := _wrong_name(column, columns):
                return wrong
            free = self.unchecked or self.keep_columns or "model" in columns or not known
            if not free and column not in known and column not in _COLUMNS:
                near = _nearest(column, (*_COLUMNS, *known))
                if not {*known, *_COLUMNS}.intersection(columns):
                    return (
                        "the first line must name the columns, for example prompt; none of these "
                        f"is a parameter of {self.model}"
                    )
                return (
                    f"the column {reprlib.repr(column)} is not a parameter of {self.model}; {near};"
                    " --keep-columns carries it to --results"
                )
        return None

    def _read_cells(self, number: int, columns: list[str], cells: list[str]) -> _Record:
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
        return _Record(number, body, cells=found)

    def _from_cells(
        self, cells: Mapping[str, str], types: Mapping[str, str]
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """Return the parameters in the cells, and the columns to keep."""
        kept: dict[str, str] = {}
        if types and self.keep_columns:
            kept = {name: cell for name, cell in cells.items() if name not in types}
        params = {
            name: read_value(cell, types.get(name))
            for name, cell in cells.items()
            if cell and name not in kept
        }
        return params, kept


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


def _wrong_name(column: str, columns: Sequence[str]) -> str | None:
    if not column:
        return "a column has no name"
    if columns.count(column) > 1:
        return f"the column {reprlib.repr(column)} appears twice"
    return _wrong_text(column)


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
    return f"did you mean {nearest[0]}?" if nearest else f"expected one of {', '.join(names)}"
