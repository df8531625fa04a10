"""Check all rows of a batch before anything is sent."""

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any, Final

from attrs import define, field, frozen

from aireiter_async import SubmitRequest
from aireiter_async.cli import _display
from aireiter_async.cli._errors import UsageError
from aireiter_async.cli._options import BatchOptions
from aireiter_async.cli._output import Output
from aireiter_async.cli._rows import Rows

_SHOWN: Final = 20  # invalid rows that are listed
_LARGE: Final = 10_000  # tasks of a sweep that must be confirmed


class InvalidRowsError(UsageError):
    """A file has rows that cannot be submitted.

    Attributes:
        lines: The first of them, for programs.
    """

    def __init__(self, text: str, lines: list[dict[str, Any]]) -> None:
        super().__init__(text)
        self.lines = lines


def check_size(rows: Rows, options: BatchOptions) -> int | None:
    """Check the size of a sweep before its rows; return their number, None if it is no sweep.

    Raises:
        UsageError: It is large, would be run, and was not confirmed.
    """
    if not rows.sweep:
        return None
    count, tasks = rows.count()
    free = rows.favourites is not None or (
        (options.dry_run or options.estimate) and not options.buy_one
    )
    if tasks > _LARGE and not (options.yes or free):
        of = _display.plural(count, "row")
        raise UsageError(
            f"--each and --repeat make {tasks:,} tasks of {of}; nothing was sent; "
            "if you mean it, add --yes"
        )
    return count


@frozen
class Checked:
    """What the check of a file found.

    Attributes:
        total: The number of rows to run.
        columns: The kept columns, in order.
        files: Whether any row names a local file.
    """

    total: int
    columns: Mapping[str, None]
    files: bool


def check_rows(rows: Rows, output: Output) -> Checked:
    """Check all rows; those whose local files cannot be used fail alone.

    Args:
        rows: The file.
        output: Where invalid rows are listed.

    Raises:
        InvalidRowsError: A row is invalid in another way, or no row is valid.
    """
    columns: dict[str, None] = {}
    first: dict[str, int] = {}
    models: set[str] = set()
    invalid = _Invalid(rows)
    total = unusable = 0
    files = False
    for row in rows.read(output.note):
        columns |= dict.fromkeys(row.columns)
        repeated = None
        if row.request is not None:
            models.add(row.request.model)
            files = files or bool(row.request.inputs)
            repeated = _repeated_id(row.request, row.number, first)
        total += 1
        error = repeated or row.error
        if error is not None:
            invalid.add(row.number, error)
            unusable += row.unusable is not None and repeated is None
    invalid.show(output)
    if invalid.count > unusable or (unusable and unusable == total):
        raise invalid.error()
    _check_choice(rows, models, first)
    if unusable:
        what = _display.plural(unusable, "row")
        output.note(f"{what} of {total} will fail; the others are run")
    elif not total:
        raise UsageError(f"{rows.name} has no requests")
    return Checked(total, columns, files or unusable > 0)


def _check_choice(rows: Rows, models: Collection[str], ids: Collection[str]) -> None:
    """Check that the models have the axes, and that all favourites were found."""
    if models and (unused := rows.sweep.unknown(models)):
        names = ", ".join(sorted(models))
        raise UsageError(f"--each {unused}: there is no such parameter of {names}")
    if rows.favourites is not None:
        rows.favourites.check(ids, rows.name)


@define
class _Invalid:
    """The invalid rows of a file.

    Attributes:
        rows: The file.
        count: Their number.
    """

    rows: Rows
    count: int = 0
    _first: dict[tuple[int, str], dict[str, Any]] = field(
        factory=dict[tuple[int, str], dict[str, Any]], init=False
    )
    _counts: Counter[tuple[int, str]] = field(factory=Counter[tuple[int, str]], init=False)

    def add(self, line: int, message: str) -> None:
        """Add a row."""
        self.count += 1
        # In a sweep, one wrong value is wrong in every row.
        key = 0 if self.rows.sweep else line, message
        if key in self._first or len(self._first) < _SHOWN:
            self._first.setdefault(key, {"line": line, "message": message})
            self._counts[key] += 1

    def show(self, output: Output) -> None:
        """Print the first of them."""
        for key, row in self._first.items():
            more = self._counts[key] - 1
            where = f"line {row['line']}{f' and {more} more' if more else ''}"
            output.note(f"{self.rows.name}, {where}: {row['message']}")
        rest = self.count - self._counts.total()
        if rest:
            output.note(f"and {rest} more")

    def error(self) -> InvalidRowsError:
        """Return the error."""
        name = self.rows.name
        if self.rows.sweep:
            text = f"{name} makes {_display.plural(self.count, 'invalid request')} with --each"
        else:
            text = f"{name} has {_display.plural(self.count, 'invalid row')}"
        return InvalidRowsError(f"{text}; nothing was sent", [*self._first.values()])


def _repeated_id(request: SubmitRequest, number: int, first: dict[str, int]) -> str | None:
    if request.generated:
        return None
    line = first.setdefault(request.out_task_id, number)
    return None if line == number else f"out_task_id {request.out_task_id} is used in line {line}"
