"""What ``aireiter batch`` does: a file of requests, checked, then run to its end."""

import os
from collections import Counter
from collections.abc import Generator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from signal import default_int_handler
from typing import Any, Final, TextIO

from aireiter_async import Ledger, LedgerError, SubmitRequest
from aireiter_async.cli import _failure
from aireiter_async.cli._connection import Connection
from aireiter_async.cli._failure import UsageError
from aireiter_async.cli._lines import Lines, open_lines
from aireiter_async.cli._report import Report
from aireiter_async.cli._running import BatchOptions, Run, Source
from aireiter_async.cli._stop import Stop, catching
from aireiter_async.cli._tally import check_view
from aireiter_async.cli._tasks import make_folder

_TOLD: Final = 20  # bad lines


class BadLinesError(UsageError):
    """A file has lines that cannot be submitted.

    Attributes:
        lines: The first of them, for a program.
    """

    def __init__(self, text: str, lines: list[dict[str, Any]]) -> None:
        super().__init__(text)
        self.lines = lines


async def batch(name: str, options: BatchOptions, connection: Connection, report: Report) -> int:
    """Run the requests in the file *name*.

    Raises:
        UsageError: An option or a line is not as it must be; nothing was sent.
        LedgerError: The ledger could not be written on the way.
    """
    options.check()
    client = None
    if not options.dry_run:
        client = connection.client(max_concurrency=options.concurrency, max_rate=options.max_rate)
    async with AsyncExitStack() as stack:
        try:
            # Nothing runs yet that would have to end well.
            with catching(default_int_handler):
                file, regular = stack.enter_context(open_lines(name))
                lines = Lines(
                    name=name,
                    file=file,
                    is_csv=name.lower().endswith(".csv"),
                    model=options.model,
                    unchecked=options.unchecked,
                )
                models = _check(lines, report)
        except KeyboardInterrupt:
            report.fail(_failure.Interrupted("interrupted; nothing was sent"))
            return _failure.BATCH_INTERRUPTED
        if client is None:
            found = {"file": name, "requests": models.total(), "models": dict(models)}
            report.answer(found, check_view)
            return 0
        path = _ledger_path(name, options, regular=regular)
        make_folder(options.download)
        # From here to the very end: what is closed last must be closed well, too.
        stop = Stop(report.note)
        stack.enter_context(catching(stop.on_signal))
        await stack.enter_async_context(client)
        try:
            ledger = await stack.enter_async_context(Ledger(path))
        except LedgerError as error:
            raise UsageError(f"--ledger: {error}") from error
        results = stack.enter_context(_open_results(options.results))
        run = Run(name, options, client, ledger, results, report)
        return await run.run(Source(lines, models.total(), stop))


def _check(lines: Lines, report: Report) -> Counter[str]:
    """Check all lines, and count the requests by model."""
    models: Counter[str] = Counter()
    ids: dict[str, int] = {}
    bad: list[dict[str, Any]] = []
    wrong = 0
    for line in lines.read(report.note):
        error = line.error
        if line.request is not None:
            models[line.request.model] += 1
            error = _repeated(line.request, line.number, ids)
        if error is not None:
            wrong += 1
            if wrong <= _TOLD:
                bad.append({"line": line.number, "message": error})
    for each in bad:
        report.note(f"{lines.name}, line {each['line']}: {each['message']}")
    if wrong > _TOLD:
        report.note(f"and {wrong - _TOLD} more")
    if wrong:
        what = "1 bad line" if wrong == 1 else f"{wrong} bad lines"
        raise BadLinesError(f"{lines.name} has {what}; nothing was sent", bad)
    if not models:
        raise UsageError(f"{lines.name} has no requests")
    return models


def _repeated(request: SubmitRequest, number: int, ids: dict[str, int]) -> str | None:
    """Say so if the id was given before."""
    if request.generated:
        return None
    first = ids.setdefault(request.out_task_id, number)
    return None if first == number else f"out_task_id {request.out_task_id} is that of line {first}"


def _ledger_path(name: str, options: BatchOptions, *, regular: bool) -> Path:
    """Find out where the ledger is to be, and that nothing is in anything's place."""
    if options.ledger is None and not regular:
        raise UsageError(f"--ledger must say where the ledger is to be, as {name} is read once")
    path = Path(f"{name}.db") if options.ledger is None else options.ledger
    places = {"the file of requests": Path(name), "the ledger": path}
    if options.results is not None:
        for what, place in places.items():
            if os.path.realpath(place) == os.path.realpath(options.results):
                raise UsageError(f"--results is {what}")
    return path


@contextmanager
def _open_results(path: Path | None) -> Generator[TextIO | None, None, None]:
    if path is None:
        yield None
        return
    try:
        file = path.open("w", encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise UsageError(f"--results cannot be written: {error}") from error
    with file:
        yield file
