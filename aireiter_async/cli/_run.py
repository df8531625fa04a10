"""One run of the command: parse, do, and turn what happened into an exit status."""

import asyncio
import io
import logging
import os
import signal
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO, cast

from aireiter_async.cli import _failure
from aireiter_async.cli._app import Command, parse
from aireiter_async.cli._report import Report
from aireiter_async.cli._stop import catching


def run(argv: Sequence[str]) -> int:
    """Run the command line *argv* and return its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A reply that was paid for must not be lost to a console's code page.
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        status = _attempt(argv, Report.of(argv))
    except BrokenPipeError:  # nobody reads on: no reason to complain
        status = _failure.UNREAD
    except OSError:  # there is no way left to complain
        status = _failure.FAILED
    for stream in (sys.stdout, sys.stderr):
        _give_up_unwritable(stream)
    return status


def _attempt(argv: Sequence[str], report: Report) -> int:
    try:
        command = parse(argv)
        report.manner = command.manner
        with _log(report):
            return asyncio.run(_act(command, report))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return report.interrupted()
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 - every failure is told in one line
        return report.fail(error)


async def _act(command: Command, report: Report) -> int:
    """Do what was asked for, until that is done or SIGTERM comes; asyncio knows Ctrl-C only."""
    loop, acting = asyncio.get_running_loop(), cast("asyncio.Task[int]", asyncio.current_task())

    def end(*_: Any) -> None:
        loop.call_soon_threadsafe(acting.cancel)

    with catching(end, signal.SIGTERM):
        return await command.action(report)


class _Handler(logging.Handler):
    def __init__(self, report: Report) -> None:
        super().__init__(logging.DEBUG if report.manner.debug else logging.WARNING)
        self._report = report

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._report.note(f"{record.levelname.lower()}: {record.getMessage()}")
        except OSError:  # a log that nobody can read must not break off what is paid for
            self.handleError(record)


@contextmanager
def _log(report: Report) -> Generator[None, None, None]:
    """Let the log of the library pass the report, which knows what is not to be shown."""
    logger = logging.getLogger("aireiter_async")
    handler, before = _Handler(report), logger.level
    logger.addHandler(handler)
    if report.manner.debug:
        logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def _give_up_unwritable(stream: TextIO) -> None:
    """Keep the interpreter from complaining, on its way out, about what cannot be written."""
    try:
        stream.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
