"""The HTML page of a ledger: the report command, and the page of a batch that runs."""

import asyncio
import os
import shlex
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Iterable,
)
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any, Final

from aireiter_async import Ledger, LedgerError
from aireiter_async._media import can_convert, thumbnail
from aireiter_async._threads import Threads
from aireiter_async.cli import _display, _errors
from aireiter_async.cli._errors import UsageError
from aireiter_async.cli._options import make_directory
from aireiter_async.cli._output import Output
from aireiter_async.report import PageBuilder, is_page

_SQLITE: Final = b"SQLite format 3\0"
_PORTION: Final = 500  # rows
_SUFFIXES: Final = frozenset({".html", ".htm"})
_PERIOD: Final = 10.0  # seconds
_SHARE: Final = 10  # at most a tenth of the time goes into large pages


async def report(ledger: Path, page: Path | None, output: Output, *, standalone: bool) -> int:
    """Write the page of *ledger*, and print its path.

    Raises:
        UsageError: The ledger cannot be read, or the page cannot be written.
    """
    if not ledger.is_file():  # noqa: ASYNC240 - nothing else runs
        raise UsageError(f"there is no ledger {ledger}")
    with ledger.open("rb") as opened:
        if not opened.read(len(_SQLITE)).startswith(_SQLITE):
            beside = ledger.with_name(f"{ledger.name}.db")
            hint = f"; did you mean {beside}?" if beside.is_file() else ""
            raise UsageError(f"{ledger} is not a ledger, which is an SQLite file{hint}")
    if standalone and not can_convert():
        raise UsageError("--standalone needs Pillow: pip install 'aireiter-async[images]'")
    file = ledger.with_suffix("")  # by default, batch adds .db to the name of its file
    retry = None
    if file.is_file():
        retry = f"aireiter batch {shlex.quote(str(file))} [the same options] --retry-failed"
    if page is not None:
        is_file = page.suffix.lower() in _SUFFIXES
        make_directory("--page", page.parent if is_file else page)
    try:
        document = await write_page(Ledger(ledger), page, retry, standalone=standalone)
    except LedgerError as error:
        raise UsageError(_errors.summarize(error)) from error
    except OSError as error:
        where = "" if page is None else f" to {page}"
        raise UsageError(f"the report cannot be written{where}: {_errors.reason(error)}") from error
    output.answer(document, _view)
    return 0


@asynccontextmanager
async def keep_page(
    ledger: Ledger,
    page: Path,
    retry: str,
    *,
    note: Callable[[str], None],
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> AsyncGenerator[None, None]:
    """Write the page of a ledger that a batch is writing, every 10 seconds and at the end.

    Args:
        ledger: The ledger, open.
        page: The page, or its directory.
        retry: The command that retries failed tasks.
        note: Called if the page cannot be written, which does not end the batch.
        sleep: Sleeps for a number of seconds.
    """

    async def write(source: Ledger, *, last: bool) -> None:
        try:
            await write_page(source, page, retry)
        except (LedgerError, OSError) as error:
            if last:
                note(f"aireiter: the report cannot be written: {_errors.describe(error)}")

    async def rewrite() -> None:
        while True:
            began = monotonic()
            # Not the open one: it is read concurrently, without blocking the batch.
            await write(Ledger(ledger.path), last=False)
            await sleep(max(_PERIOD, _SHARE * (monotonic() - began)))

    rewriting = asyncio.create_task(rewrite())
    try:
        yield
    finally:
        rewriting.cancel()
        await asyncio.wait([rewriting])
        await write(ledger, last=True)  # including pending changes


async def write_page(
    ledger: Ledger,
    page: Path | None = None,
    retry: str | None = None,
    *,
    standalone: bool = False,
) -> dict[str, Any]:
    """Write the page of a ledger atomically.

    Args:
        ledger: The ledger, open or not.
        page: The page, or its directory; None: the directory of the results.
        retry: The command that retries failed tasks.
        standalone: Whether to embed small copies of the pictures.

    Raises:
        LedgerError: The ledger cannot be read.
        OSError: The page cannot be written.
    """
    threads, tasks, name = Threads(), 0, f"{ledger.path.stem}.html"
    try:
        if page is None:
            page = await _directory(_portions(ledger, threads), threads, ledger.path.parent) / name
        page = await threads.run(_check_place, page, name)
        builder = PageBuilder(page.parent, thumbnail if standalone else None)
        async for rows in _portions(ledger, threads):
            tasks += len(rows)
            await threads.run(builder.add, rows)
        await threads.run(_write, page, builder, ledger.path, retry)
        return {"report": str(page), "tasks": tasks}
    finally:
        threads.close()


async def _portions(ledger: Ledger, threads: Threads) -> AsyncGenerator[list[dict[str, Any]], None]:
    """Yield the rows in portions, with the paths of files that were moved with the ledger."""
    rows: list[dict[str, Any]] = []
    async for row in ledger.rows():
        rows.append(row)
        if len(rows) == _PORTION:
            yield await threads.run(_locate, rows, ledger.path.parent)
            rows = []
    if rows:
        yield await threads.run(_locate, rows, ledger.path.parent)


def _locate(rows: list[dict[str, Any]], directory: Path) -> list[dict[str, Any]]:
    return [{**row, "paths": [_located(path, directory) for path in row["paths"]]} for row in rows]


def _located(path: str, directory: Path) -> str:
    if Path(path).exists():
        return path
    *_, parent, name = ("", *Path(path).parts)
    moved = (directory / parent / name, directory / name)
    return next((str(each.resolve()) for each in moved if each.exists()), path)


async def _directory(
    portions: AsyncGenerator[list[dict[str, Any]], None], threads: Threads, default: Path
) -> Path:
    """Return the directory of the first results that exist, relative to this one if possible."""
    found: Path | None = None
    async with aclosing(portions):
        async for rows in portions:
            parents = (Path(path).parent for row in rows for path in row["paths"])
            found = await threads.run(next, filter(Path.is_dir, parents), None)
            if found is not None:
                break
    if found is None:
        return default
    here = Path.cwd()
    return found.relative_to(here) if found.is_relative_to(here) else found


def _check_place(page: Path, name: str) -> Path:
    """Return the page's path, given that of the page or its directory.

    Raises:
        OSError: There is another file.
    """
    if page.is_dir():
        page /= name
    if page.exists() and not is_page(page):
        raise OSError(f"{page} exists and is not a report: choose another name")
    return page


def _write(page: Path, builder: PageBuilder, ledger: Path, retry: str | None) -> None:
    title, identity = ledger.stem, os.path.realpath(ledger)
    _replace(page, builder.render(title=title, ledger=identity, retry=retry))


def _replace(page: Path, pieces: Iterable[str]) -> None:
    """Write a file atomically."""
    part = page.with_name(f".{page.name}.part")
    try:
        with part.open("w", encoding="utf-8", errors="backslashreplace") as file:
            file.writelines(pieces)
        part.replace(page)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def _view(document: dict[str, Any]) -> _display.View:
    tasks = _display.plural(document["tasks"], "task")
    return _display.facts([("report", document["report"]), ("tasks", tasks)])
