"""One run of the command: parse, execute, and turn the outcome into an exit status."""

import asyncio
import io
import logging
import os
import signal
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from aireiter_async._log import read_level
from aireiter_async.cli import _errors
from aireiter_async.cli._app import Command, parse
from aireiter_async.cli._output import Output
from aireiter_async.cli._signals import catching


def run(argv: Sequence[str]) -> int:
    """Run the command line *argv* and return its exit status."""
    _fill_closed_descriptors()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A paid reply must not be lost to a console's code page.
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        status = _attempt(argv, Output.of(argv))
    except BrokenPipeError:  # the reader has gone: no message
        status = _errors.OUTPUT_CLOSED
    except OSError:  # a message could not be written either
        status = _errors.FAILED
    finally:
        for number, handler in before.items():  # a loop that closes resets them
            signal.signal(number, handler)
    for stream in (sys.stdout, sys.stderr):
        _discard_unwritable(stream)
    return status


def _attempt(argv: Sequence[str], output: Output) -> int:
    try:
        command = parse(argv)
        if command is None:  # help or the version, which are printed
            return 0
        output.options = command.options
        with _errors.usage():
            level = logging.DEBUG if output.options.debug else read_level() or logging.WARNING
        with _logging(output, level):
            return asyncio.run(_execute(command, output))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return output.interrupted()
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 - every failure is reported in one line
        return output.fail(error)


async def _execute(command: Command, output: Output) -> int:
    """Run the command until it has ended or a signal cancels it."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    signals = 0

    def cancel(*_: Any) -> None:
        nonlocal signals
        signals += 1
        if signals > 1 or task is None:
            raise KeyboardInterrupt
        loop.call_soon_threadsafe(task.cancel)

    with catching(cancel):
        return await command.action(output)


class _Handler(logging.Handler):
    def __init__(self, output: Output, level: int) -> None:
        super().__init__(level)
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._output.note(f"{record.levelname.lower()}: {record.getMessage()}")
        except OSError:  # a failing log must not end a paid task
            self.handleError(record)


@contextmanager
def _logging(output: Output, level: int) -> Generator[None, None, None]:
    """Route the library's log through *output*, which redacts the key."""
    logger = logging.getLogger("aireiter_async")
    handler, before = _Handler(output, level), logger.level
    logger.addHandler(handler)
    if level < logging.WARNING:
        logger.setLevel(level)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def _fill_closed_descriptors() -> None:
    """Make closed standard streams (``>&-``) behave like /dev/null.

    Otherwise the next file that is opened, such as the ledger, would get their descriptors.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free descriptor
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, io.StringIO())


def _discard_unwritable(stream: TextIO) -> None:
    """Avoid the interpreter's complaint at exit about output that cannot be written."""
    try:
        stream.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
