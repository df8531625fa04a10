"""Many rows in few statements.

A statement is stepped with Python's lock released and taken again, which costs
more than the step itself while the event loop is busy: rows go in bulk.
"""

import sqlite3
from collections.abc import Callable, Sequence
from functools import cache
from itertools import chain
from typing import Any, Final

_LARGEST_BULK: Final = 64  # rows: SQLite's oldest limit is 999 values per statement

Row = tuple[Any, ...]


def insert_rows(db: sqlite3.Connection, rows: Sequence[Row]) -> None:
    """Insert those rows whose ids are not there: id, position, state, model, request, time."""
    _in_bulk(db, _insert, rows)


def update_rows(db: sqlite3.Connection, rows: Sequence[Row]) -> None:
    """Change rows, each at most once; None leaves a column as it is.

    Args:
        db: Where.
        rows: Of each the id, state, both credits, reply, error, paths and time.
    """
    _in_bulk(db, _update, rows)


def _in_bulk(db: sqlite3.Connection, statement: Callable[[int], str], rows: Sequence[Row]) -> None:
    """Run *statement* for all *rows*, in sizes of powers of two: few statements to prepare."""
    start = 0
    while start < len(rows):
        size = min(_LARGEST_BULK, 1 << ((len(rows) - start).bit_length() - 1))
        db.execute(statement(size), list(chain.from_iterable(rows[start : start + size])))
        start += size


@cache
def _insert(size: int) -> str:
    return (
        "INSERT INTO tasks (out_task_id, position, state, model, request, updated_at) "  # noqa: S608
        f"VALUES {_places(6, size)} ON CONFLICT DO NOTHING"
    )


@cache
def _update(size: int) -> str:
    return (
        "UPDATE tasks SET state = new.column2, "  # noqa: S608 - nothing but places for values
        "estimated_credits = coalesce(new.column3, estimated_credits), "
        "credits_used = coalesce(new.column4, credits_used), "
        "reply = coalesce(new.column5, reply), error = coalesce(new.column6, error), "
        "paths = coalesce(new.column7, paths), updated_at = new.column8 "
        f"FROM (VALUES {_places(8, size)}) AS new WHERE out_task_id = new.column1"
    )


def _places(columns: int, rows: int) -> str:
    row = f"({', '.join('?' * columns)})"
    return ", ".join([row] * rows)
