"""The lines of a batch's file: read one by one, and each checked by itself.

A file is read twice: once to check all of it before anything is sent, once to
run it. Neither reading keeps more than a line; whoever checks keeps the ids
that lines give, for none may be there twice.
"""

import csv
import json
import reprlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import IO, Any, Final, cast

from attrs import evolve, frozen

from aireiter_async import SubmitRequest
from aireiter_async.cli._failure import UsageError, sentence
from aireiter_async.cli._request import (
    STDIN,
    check_params,
    parameter_types,
    read_value,
    refuse_constant,
)
from aireiter_async.models import InvalidParamsError

_KEYS: Final = ("model", "params", "out_task_id", "callback_url", "metadata")
_ID: Final = "out_task_id"
_LARGEST_CELL: Final = 2**31 - 1  # characters: an image may stand in a cell as data


@frozen
class Line:
    """One line of the file.

    Attributes:
        number: Where it stands, from 1; of a record over several lines, the first.
        request: What it asks for, None where it is bad.
        error: What is wrong with it.
    """

    number: int
    request: SubmitRequest | None = None
    error: str | None = None


@frozen(kw_only=True)
class Lines:
    """A file of requests, JSON Lines or CSV.

    Attributes:
        name: Names it in messages.
        file: It, open; it can be read again.
        is_csv: Whether it is CSV, whose columns are parameters.
        model: The model of CSV's rows, and of lines that name none.
        unchecked: Whether parameters are passed on as they are.
    """

    name: str
    file: IO[bytes]
    is_csv: bool
    model: str | None
    unchecked: bool = False

    def __attrs_post_init__(self) -> None:
        """See that the rows of a CSV file have a model."""
        if self.is_csv and self.model is None:
            raise UsageError("--model must say which model the rows of a CSV file are for")

    def read(self, note: Callable[[str], None] | None = None) -> Iterator[Line]:
        """Read all lines that are not blank.

        Args:
            note: Told of each model that is not known, once.
        """
        self.file.seek(0)
        told: set[str] = set()

        def once(text: str) -> None:
            if note is not None and text not in told:
                told.add(text)
                note(text)

        read = self._read_csv if self.is_csv else self._read_json_lines
        for number, make in read():
            try:
                request = make(once)
            except (TypeError, ValueError) as error:
                told_so = sentence(error) if isinstance(error, InvalidParamsError) else str(error)
                yield Line(number, error=told_so)
            else:
                yield Line(number, request)

    def _request(self, given: Mapping[str, Any], note: Callable[[str], None]) -> SubmitRequest:
        for key in given:
            if key not in _KEYS:
                raise UsageError(f"{reprlib.repr(key)} is no key of a request; {_nearest(key)}")
        options = {key: value for key, value in given.items() if value is not None}
        model, params = options.pop("model", self.model), options.pop("params", None)
        if model is None:
            raise UsageError("model is missing")
        if params is None:
            raise UsageError("params is missing")
        for key in ("params", "metadata"):
            if not isinstance(given.get(key) or {}, dict):
                raise UsageError(f"{key} must be an object, got {reprlib.repr(given[key])}")
        # Its own checks first: they say what is wrong with the model's name.
        request = SubmitRequest(model, params, **options)
        if self.unchecked:
            return request
        return evolve(request, params=check_params(model, params, note))

    def _read_json_lines(self) -> Iterator[tuple[int, "_Make"]]:
        for number, raw in enumerate(self.file, 1):
            if number == 1:
                raw = raw.removeprefix(b"\xef\xbb\xbf")  # noqa: PLW2901 - a byte order mark
            if raw.strip():
                yield number, partial(self._from_json, raw)

    def _from_json(self, raw: bytes, note: Callable[[str], None]) -> SubmitRequest:
        try:
            value = json.loads(raw.decode(), parse_constant=refuse_constant)
        except UnicodeDecodeError as error:
            raise UsageError(f"not UTF-8: {error.reason} at byte {error.start + 1}") from error
        except json.JSONDecodeError as error:
            raise UsageError(f"not JSON: {error.msg} at character {error.pos + 1}") from error
        except (ValueError, RecursionError) as error:
            raise UsageError(f"not JSON: {error}") from error
        if not isinstance(value, dict):
            raise UsageError('not an object such as {"model": "suno", "params": {"prompt": "x"}}')
        return self._request(cast("dict[str, Any]", value), note)

    def _read_csv(self) -> Iterator[tuple[int, "_Make"]]:
        csv.field_size_limit(_LARGEST_CELL)
        # Bytes that are no UTF-8 become what cannot be encoded, and are found in their cell.
        texts = (raw.decode(errors="surrogateescape") for raw in self.file)
        rows = csv.reader(_without_mark(texts), strict=True)
        types = parameter_types(cast("str", self.model))
        columns: list[str] | None = None
        while True:
            number = rows.line_num + 1
            try:
                row = next(rows, None)
            except csv.Error as error:
                # What follows cannot be told apart any more.
                yield number, partial(_refuse, f"not CSV: {error}")
                return
            if row is None:
                return
            if not any(cell.strip() for cell in row):
                continue
            if columns is None:
                columns = [cell.strip() for cell in row]
                wrong = self._check_columns(columns, types)
                if wrong is not None:
                    yield number, partial(_refuse, wrong)
                    return
            else:
                yield number, partial(self._from_row, columns, row, types)

    def _check_columns(self, columns: list[str], types: Mapping[str, str]) -> str | None:
        """Say what is wrong with the header, whose mistakes would be those of every row."""
        for column in columns:
            if not column:
                return "a column has no name"
            if columns.count(column) > 1:
                return f"column {reprlib.repr(column)} is there twice"
            if types and not self.unchecked and column != _ID and column not in types:
                known = (_ID, *types)
                return f"{reprlib.repr(column)} is no parameter; {_nearest(column, known)}"
        return None

    def _from_row(
        self,
        columns: list[str],
        row: list[str],
        types: Mapping[str, str],
        note: Callable[[str], None],
    ) -> SubmitRequest:
        if len(row) != len(columns):
            raise UsageError(f"{len(row)} cells, where the header has {len(columns)}")
        cells = {name: cell for name, cell in zip(columns, row, strict=True) if cell}
        for name, cell in cells.items():
            if any("\udc80" <= char <= "\udcff" for char in cell):
                raise UsageError(f"not UTF-8: column {reprlib.repr(name)}")
        out_task_id = cells.pop(_ID, None)
        params = {name: read_value(cell, types.get(name)) for name, cell in cells.items()}
        return self._request({"params": params, _ID: out_task_id}, note)


_Make = Callable[[Callable[[str], None]], SubmitRequest]


def _refuse(text: str, _note: Callable[[str], None]) -> SubmitRequest:
    raise UsageError(text)


def _nearest(word: str, known: Iterable[str] = _KEYS) -> str:
    names = tuple(known)
    nearest = get_close_matches(word[:64], names, n=1)
    return f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(names)}"


def _without_mark(texts: Iterable[str]) -> Iterator[str]:
    for number, text in enumerate(texts):
        yield text if number else text.removeprefix("\ufeff")


@contextmanager
def open_lines(name: str) -> Generator[tuple[IO[bytes], bool], None, None]:
    """Open the file *name*, or standard input where that is ``-``.

    Yields:
        The file, and whether it is one that a ledger can stand beside: what can
        be read only once is copied to a temporary file first.

    Raises:
        UsageError: It cannot be read.
    """
    try:
        file = sys.stdin.buffer if name == STDIN else Path(name).open("rb")  # noqa: SIM115
        regular = name != STDIN and Path(name).is_file()
    except OSError as error:
        raise UsageError(f"{name} cannot be read: {error}") from error
    if regular:
        with file:
            yield file, True
        return
    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(file, copy)
        if name != STDIN:
            file.close()
        yield copy, False
