"""The report command: the HTML page of a ledger."""

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aireiter_async import Ledger, LedgerError
from aireiter_async.cli import _display, _errors
from aireiter_async.cli._errors import UsageError
from aireiter_async.cli._output import Output
from aireiter_async.report import build_page


async def report(ledger: Path, page: Path | None, output: Output) -> int:
    """Write the page of *ledger*, and print where it is.

    Raises:
        UsageError: The ledger cannot be read, or the page cannot be written.
    """
    if not ledger.is_file():  # noqa: ASYNC240 - nothing else runs
        raise UsageError(f"there is no ledger {ledger}")
    file = ledger.with_suffix("")  # where batch puts a ledger beside its file
    retry = f"aireiter batch {shlex.quote(str(file))} --retry-failed"
    try:
        document = await write_page(Ledger(ledger), page, retry if file.is_file() else None)
    except LedgerError as error:
        raise UsageError(_errors.describe(error)) from error
    except OSError as error:
        raise UsageError(f"the report cannot be written: {error}") from error
    output.answer(document, _view)
    return 0


async def write_page(
    ledger: Ledger, page: Path | None = None, retry: str | None = None
) -> dict[str, Any]:
    """Write the page of a ledger, whole or not at all.

    Args:
        ledger: The ledger, open or not.
        page: The page, or its directory; None: the directory of the results.
        retry: The command that retries failed tasks.

    Raises:
        LedgerError: The ledger cannot be read.
        OSError: The page cannot be written.
    """
    rows = [row async for row in ledger.rows()]
    return {"report": str(_write(ledger.path, rows, page, retry)), "tasks": len(rows)}


def _write(
    ledger: Path, rows: Sequence[Mapping[str, Any]], page: Path | None, retry: str | None
) -> Path:
    name = f"{ledger.stem}.html"
    if page is None:
        paths = (path for row in rows for path in row["paths"])
        page = Path(next(paths, ledger)).parent / name
    elif page.is_dir():
        page /= name
    text = build_page(
        rows,
        title=ledger.stem,
        ledger=os.path.realpath(ledger),
        directory=page.parent,
        retry=retry,
    )
    _replace(page, text)
    return page


def _replace(page: Path, text: str) -> None:
    """Write a file, whole or not at all."""
    part = page.with_name(f".{page.name}.part")
    try:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")
        part.replace(page)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def _view(document: dict[str, Any]) -> _display.View:
    tasks = _display.plural(document["tasks"], "task")
    return _display.facts([("report", document["report"]), ("tasks", tasks)])
