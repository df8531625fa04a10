"""The HTML page of a ledger: the report command, and the page of a batch that runs."""

import asyncio
import os
import shlex
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
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
_CHUNK: Final = 500  # rows
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
    threads, tasks, rows = Threads(), 0, ledger.rows()
    try:
        chunk = await _take(rows)
        await threads.run(_locate, chunk, ledger.path.parent)
        page = await threads.run(_place, ledger.path, chunk, page)
        builder = PageBuilder(page.parent, thumbnail if standalone else None)
        while chunk:
            tasks += len(chunk)
            await threads.run(builder.add, chunk)
            chunk = await _take(rows)
            await threads.run(_locate, chunk, ledger.path.parent)
        await threads.run(_write, page, builder, ledger.path, retry)
        return {"report": str(page), "tasks": tasks}
    finally:
        threads.close()


async def _take(rows: AsyncIterator[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the next rows, none at the end."""
    chunk: list[dict[str, Any]] = []
    async for row in rows:
        chunk.append(row)
        if len(chunk) == _CHUNK:
            break
    return chunk


def _locate(rows: Iterable[dict[str, Any]], directory: Path) -> None:
    """Change the paths of files that were moved together with the ledger, to *directory*."""
    for row in rows:
        row["paths"] = [_located(path, directory) for path in row["paths"]]


def _located(path: str, directory: Path) -> str:
    if Path(path).exists():
        return path
    *_, parent, name = ("", *Path(path).parts)
    moved = (directory / parent / name, directory / name)
    return next((str(each.resolve()) for each in moved if each.exists()), path)


def _place(ledger: Path, rows: Sequence[Mapping[str, Any]], page: Path | None) -> Path:
    """Return where the page is written, given the ledger's first rows."""
    name = f"{ledger.stem}.html"
    if page is None:
        directories = (Path(path).parent for row in rows for path in row["paths"])
        directory = next(filter(Path.is_dir, directories), ledger.parent)
        if directory.is_relative_to(Path.cwd()):
            directory = directory.relative_to(Path.cwd())
        page = directory / name
    elif page.is_dir():
        page /= name
    if page.exists() and not is_page(page):
        raise OSError(f"{page} is another file, and is kept")
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
