"""The results file of a batch: a row for each request, as a table or as JSON Lines."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TextIO, cast

from aireiter_async.cli._errors import UsageError, reason
from aireiter_async.cli._output import Output, encode
from aireiter_async.cli._rows import mark_text, table_line
from aireiter_async.cli._summary import RESULT_COLUMNS


@contextmanager
def open_results(
    path: Path | None, columns: Sequence[str], output: Output
) -> Generator[Callable[[Mapping[str, Any]], None], None, None]:
    """Open the results; yields a function that writes one row."""
    if path is None:
        yield lambda _row: None
        return
    table = path.suffix.lower() == ".csv"
    try:
        file = _open_text(path, "w")
        if table:
            with file:  # closed, to detect write errors now
                file.write(table_line(map(mark_text, _header(columns))))
            file = _open_text(path, "a")
    except OSError as error:
        raise UsageError(f"--results: {path} cannot be written: {reason(error)}") from error
    with file:
        yield partial(_write_cells if table else _write_object, file, columns, output)


def _open_text(path: Path, mode: str) -> TextIO:
    return cast("TextIO", path.open(mode, encoding="utf-8", errors="backslashreplace", newline=""))


def _header(columns: Sequence[str]) -> list[str]:
    kept = [f"input_{name}" if name in RESULT_COLUMNS else name for name in columns]
    return [*RESULT_COLUMNS, *kept]


def _write_object(
    file: TextIO, _columns: Sequence[str], output: Output, row: Mapping[str, Any]
) -> None:
    output.write(f"{encode(row, None)}\n", file)


def _write_cells(
    file: TextIO, columns: Sequence[str], output: Output, row: Mapping[str, Any]
) -> None:
    kept = row["columns"]
    cells = [row[name] for name in RESULT_COLUMNS] + [kept.get(name) for name in columns]
    output.write(table_line(map(_cell, cells)), file)


def _cell(value: Any) -> Any:
    match value:
        case str():
            return mark_text(value)
        case None | int() | float():
            return value
        case _:
            return encode(value, None)
