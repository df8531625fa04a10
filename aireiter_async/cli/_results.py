"""The results file of a batch: a row for each request, as a table or as JSON Lines."""

import csv
import io
import json
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, TextIO, cast

from aireiter_async import (
    AmbiguousSubmitError,
    BudgetExceededError,
    InvalidRequestError,
    NotSubmittedError,
    Outcome,
    SubmitRequest,
    TaskError,
)
from aireiter_async._wire import platform_id
from aireiter_async.cli._errors import UsageError, error_document, reason
from aireiter_async.cli._output import Output, encode, task_document
from aireiter_async.cli._params import UnusableFileError
from aireiter_async.cli._rows import Row, mark_text

# The columns of results that are a table; the kept ones follow.
_COLUMNS: Final = (
    "index",
    "line",
    "out_task_id",
    "model",
    "prompt",
    "status",
    "files",
    "credits",
    "created_at",
    "completed_at",
    "task_id",
    "error",
    "params",
    "metadata",
    "outputs",
)

# The status of a request whose error does not carry its task.
_STATUS: Final[Mapping[type, str]] = {
    AmbiguousSubmitError: "uncertain",
    BudgetExceededError: "not submitted",
    InvalidRequestError: "rejected",
    NotSubmittedError: "not submitted",
    UnusableFileError: "not submitted",
}


def result_document(outcome: Outcome[Row]) -> dict[str, Any]:
    """Return the row of the results for an outcome."""
    row, error = outcome.item, outcome.error
    request = cast("SubmitRequest", outcome.request or row.request)
    task = error.task if isinstance(error, TaskError) else outcome.task
    known = {} if task is None else task_document(task)
    content = json.loads(request.encode_content())  # as in the ledger: data URIs as digests
    unnamed = outcome.request is None and request.generated
    return {
        "index": outcome.index,
        "line": row.number,
        "out_task_id": None if unnamed else request.out_task_id,
        "model": request.model,
        "prompt": content["params"].get("prompt"),
        "status": known.get("status", _STATUS.get(type(error))),
        "files": [dict(file) for file in outcome.files],
        "credits": known.get("credits_used"),
        "created_at": known.get("created_at"),
        "completed_at": known.get("completed_at"),
        "task_id": None if task is None else platform_id(task),
        "error": None if error is None else error_document(error, in_batch=True),
        "params": content["params"],
        "metadata": content.get("metadata"),
        "outputs": known.get("outputs", []),
        "columns": dict(row.columns),
    }


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
                file.write(_table_line(map(mark_text, _header(columns))))
            file = _open_text(path, "a")
    except OSError as error:
        raise UsageError(f"--results: {path} cannot be written: {reason(error)}") from error
    with file:
        yield partial(_write_cells if table else _write_object, file, columns, output)


def _open_text(path: Path, mode: str) -> TextIO:
    return cast("TextIO", path.open(mode, encoding="utf-8", errors="backslashreplace", newline=""))


def _header(columns: Sequence[str]) -> list[str]:
    kept = [f"input_{name}" if name in _COLUMNS else name for name in columns]
    return [*_COLUMNS, *kept]


def _write_object(
    file: TextIO, _columns: Sequence[str], output: Output, row: Mapping[str, Any]
) -> None:
    output.write(f"{encode(row, None)}\n", file)


def _write_cells(
    file: TextIO, columns: Sequence[str], output: Output, row: Mapping[str, Any]
) -> None:
    kept = row["columns"]
    cells = [row[name] for name in _COLUMNS] + [kept.get(name) for name in columns]
    output.write(_table_line(map(_cell, cells)), file)


def _table_line(cells: Iterable[Any]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()


def _cell(value: Any) -> Any:
    match value:
        case str():
            return mark_text(value)
        case None | int() | float():
            return value
        case _:
            return encode(value, None)
