"""The batch command: validate a file of requests, then run it."""

import os
import shlex
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Generator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from pathlib import Path
from signal import default_int_handler
from typing import Any, Final, cast

from attrs import define, evolve, fields

from aireiter_async import (
    AsyncClient,
    Batch,
    BatchProgress,
    BudgetExceededError,
    Ledger,
    LedgerError,
    SubmitRequest,
)
from aireiter_async._batch._prices import price_kind
from aireiter_async._media import NameTemplate
from aireiter_async._threads import Threads
from aireiter_async.cli import _display, _errors
from aireiter_async.cli._errors import CommandError, UsageError, usage
from aireiter_async.cli._favourites import Favourites
from aireiter_async.cli._input import detect, open_input
from aireiter_async.cli._known import Known
from aireiter_async.cli._options import BatchOptions, Connection, make_directory
from aireiter_async.cli._output import Output
from aireiter_async.cli._page import keep_page
from aireiter_async.cli._params import STDIN, split_pairs
from aireiter_async.cli._results import open_results, result_document
from aireiter_async.cli._rows import Row, Rows
from aireiter_async.cli._signals import Stop, catching
from aireiter_async.cli._summary import Summary, batch_view, check_view
from aireiter_async.cli._sweep import Sweep
from aireiter_async.cli._validation import check_rows, check_size

_NAME_FIELDS: Final = ("index", "line", "prompt", "model", "out_task_id", "n")
_RERUN: Final = "run the same command again"


async def batch(
    name: str,
    pairs: tuple[str, ...],
    options: BatchOptions,
    connection: Connection,
    output: Output,
) -> int:
    """Run the requests in the file *name*.

    Raises:
        UsageError: An option or a row is invalid; nothing was sent.
        LedgerError: The ledger could not be written during the batch.
    """
    options.check()
    defaults = split_pairs(pairs)
    sweep = Sweep.read(
        options.each,
        where_known=options.each_where_known,
        checked=not options.unchecked,
        repeat=options.repeat,
    )
    path = Path(f"{name}.db") if options.ledger is None else options.ledger
    favourites = None
    if options.only is not None:
        with _ledger_errors():
            favourites = await Favourites.read(options.only, Ledger(path))
    client = None
    if options.buy_one or not (options.dry_run or options.estimate):
        client = connection.client(max_concurrency=options.concurrency, max_rate=options.max_rate)
    async with AsyncExitStack() as stack:
        try:
            with catching(default_int_handler):  # nothing to clean up yet
                file, regular = stack.enter_context(open_input(name))
                kind, encoding = detect(name, file, options.format)
                rows = Rows(
                    name=name,
                    file=file,
                    format=kind,
                    encoding=encoding,
                    model=options.model,
                    defaults=defaults,
                    unchecked=options.unchecked,
                    keep_columns=options.keep_columns,
                    max_image_side=options.max_image_side,
                    sweep=sweep,
                    favourites=favourites,
                )
                number = check_size(rows, options)
                checked = check_rows(rows, output)
        except KeyboardInterrupt:
            output.fail(_errors.Interrupted("interrupted; nothing was sent"))
            return _errors.BATCH_UNFINISHED
        _check_paths(name, path, options, regular=regular)
        if client is None:
            recorded = await _read_ledger(Ledger(path))
            return _answer(_survey(rows, number, recorded, options), output)
        _check_name(options, [*checked.columns])
        make_directory("--download", options.download)
        stop = Stop(output.note)
        stack.enter_context(catching(stop.on_signal))  # until everything is closed
        await stack.enter_async_context(client)
        with _ledger_errors():
            ledger = await stack.enter_async_context(Ledger(path, rebind=options.rebind))
        if options.estimate:
            recorded, bought = await _buy_one(rows, client, ledger)
            survey = _survey(rows, number, recorded, options)
            return _answer({**survey, "bought": bought}, output)
        write = stack.enter_context(open_results(options.results, [*checked.columns], output))
        source = Source(rows, checked.total, stop, Threads() if checked.files else None)
        if source.threads is not None:
            stack.callback(source.threads.close)
        retry = _retry_command(name, pairs, options, connection)
        return await _run(source, options, client, ledger, write, retry, output)


@contextmanager
def _ledger_errors() -> Generator[None, None, None]:
    try:
        yield
    except LedgerError as error:
        raise UsageError(f"--ledger: {_errors.describe(error)}") from error


async def _read_ledger(ledger: Ledger) -> Known:
    with _ledger_errors():
        return await Known.read(ledger)


def _survey(
    rows: Rows, number: int | None, recorded: Known, options: BatchOptions
) -> dict[str, Any]:
    """Return the document of a dry run or an estimate."""
    models: Counter[str] = Counter()
    new: Counter[str] = Counter()
    known = unusable = 0
    for row in rows.read():
        request = _checked(row)
        models[request.model] += 1
        if row.unusable is not None:
            unusable += 1
        elif recorded.take(request):
            known += 1
        else:
            new[price_kind(request.model, request.params) if options.estimate else ""] += 1
    document: dict[str, Any] = {
        "file": rows.name,
        "format": rows.format,
        "rows": models.total() if number is None else number,
        "requests": models.total(),
        "known": known,
        "new": new.total(),
        "unusable": unusable,
        "models": dict(models),
        "skipped": dict(rows.skipped),
    }
    if options.estimate:
        prices = {kind: recorded.prices.get(kind) for kind in new}
        document["kinds"] = [
            {"kind": kind, "new": count, "price": prices[kind]} for kind, count in new.items()
        ]
        document["credits"] = sum(count * (prices[kind] or 0.0) for kind, count in new.items())
        document["unpriced"] = sum(n for kind, n in new.items() if prices[kind] is None)
    return document


def _answer(survey: Mapping[str, Any], output: Output) -> int:
    """Print the document of a dry run or an estimate, and return the exit status."""
    output.answer(survey, check_view)
    return _errors.FAILED if survey["unusable"] else 0


async def _buy_one(rows: Rows, client: AsyncClient, ledger: Ledger) -> tuple[Known, int]:
    """Run one row of each kind of unknown price; return the updated ledger and their number."""
    recorded = await _read_ledger(ledger)
    chosen: dict[str, Row] = {}
    for row in rows.read():
        if row.unusable is not None:
            continue
        request = _checked(row)
        kind = price_kind(request.model, request.params)
        if not recorded.take(request) and kind not in recorded.prices:
            chosen.setdefault(kind, row)
    async with client.run_many(chosen.values(), request=_request, ledger=ledger) as batch:
        async for outcome in batch:
            if outcome.ok is False:
                raise outcome.error
    return await _read_ledger(ledger), len(chosen)


def _check_paths(name: str, ledger: Path, options: BatchOptions, *, regular: bool) -> None:
    """Check that the ledger has a name, and that the results overwrite no other file."""
    if options.ledger is None and not regular and not options.dry_run:
        shown = "standard input" if name == STDIN else name
        raise UsageError(f"--ledger must name the ledger, because {shown} can be read only once")
    if options.results is not None:
        for what, other in (("input file", Path(name)), ("ledger", ledger)):
            if os.path.realpath(other) == os.path.realpath(options.results):
                raise UsageError(f"--results is the {what}")


def _check_name(options: BatchOptions, columns: Sequence[str]) -> None:
    """Check the name template before anything is paid for."""
    if options.name is None:
        return
    if options.download is None:
        raise UsageError("--name needs --download, the directory of the files")
    with usage():
        NameTemplate(options.name).check({*_NAME_FIELDS, *columns})


@define
class Source:
    """The requests of a file, until a stop is requested.

    Attributes:
        rows: The file.
        total: The number of requests.
        stop: The stop requests.
        threads: Threads to read rows in, if any of them name local files.

    Raises:
        CommandError: The file has changed since it was checked.
    """

    rows: Rows
    total: int
    stop: Stop
    threads: Threads | None = None

    def __length_hint__(self) -> int:
        return self.total

    async def __aiter__(self) -> AsyncIterator[Row]:
        rows = self.rows.read()
        for _ in range(self.total):  # rows appended since were not checked
            if self.stop.requested:
                return
            if self.threads is None:
                row = next(rows, None)
            else:
                row = await self.threads.run(next, rows, None)
            yield self._valid(row)

    def _valid(self, row: Row | None) -> Row:
        name = self.rows.name
        if row is None:
            raise CommandError(
                f"{name} has fewer rows than when the batch started; restore it and {_RERUN}"
            )
        if row.request is None:
            raise CommandError(
                f"{name}, line {row.number}: {row.error}; it was valid when the batch started; "
                f"restore it and {_RERUN}"
            )
        return row


async def _run(
    source: Source,
    options: BatchOptions,
    client: AsyncClient,
    ledger: Ledger,
    write: Callable[[Mapping[str, Any]], None],
    retry: str,
    output: Output,
) -> int:
    """Run a batch whose rows have been checked, report it, and return the exit status.

    Raises:
        Exception: The error that ended it early, after the report.
    """
    summary, total = Summary(), source.total

    def on_progress(now: BatchProgress) -> None:
        source.stop.on_progress(now.submitting)
        step()

    batch = client.run_many(
        source,
        request=_request,
        window=options.window,
        ledger=ledger,
        max_credits=options.max_credits,
        timeout=options.timeout,
        download_to=options.download,
        name=options.name,
        retry_failed=options.retry_failed,
        on_progress=on_progress,
    )

    async def consume() -> None:
        async with batch:
            async for outcome in batch:
                summary.add(outcome)
                write(result_document(outcome))
                step()

    failure: Exception | None = None
    directory = options.download or ledger.path.parent
    page = directory / f"{ledger.path.stem}.html" if options.report else None
    async with AsyncExitStack() as stack:
        if page is not None:
            await stack.enter_async_context(keep_page(ledger, page, retry, note=output.note))
        view = partial(_progress_view, batch, total, summary)
        with _display.following(total, view, sys.stderr) as step:
            try:
                await source.stop.guard(consume())
            except Exception as error:  # noqa: BLE001 - raised below
                failure = error
    if isinstance(failure, LedgerError) and not batch.progress.pulled:
        raise UsageError(f"--ledger: {_errors.describe(failure)}") from failure
    if batch.stopped is not None:  # the remaining rows were not even read
        summary.not_submitted = total - summary.succeeded - summary.failed - summary.open
    progress = batch.progress
    spent, unpriced = await ledger.spent()
    document: dict[str, Any] = {
        "file": source.rows.name,
        "requests": total,
        "succeeded": summary.succeeded,
        "known": summary.known,
        "failed": summary.failed,
        "not_submitted": summary.not_submitted,
        "unfinished": total - summary.ended,
        "running": progress.outstanding + summary.running,
        "reasons": [reason.document() for reason in summary.reasons.values()],
        "requests_sent": client.stats.requests,
        "retries": client.stats.retries,
        "settled": client.stats.settled,
        "seconds": round(progress.seconds, 3),
        "credits_estimated": progress.credits_estimated,
        "credits_used": progress.credits_used,
        "credits_of_ledger": spent,
        "unpriced": unpriced,
        "files": summary.files,
        "directory": None if options.download is None else str(options.download),
        "ledger": str(ledger.path),
        "results": None if options.results is None else str(options.results),
        "report": None if page is None else str(page),
    }
    cause = failure or batch.stopped
    if cause is not None:
        document["error"] = _errors.error_document(cause)
    output.answer(document, batch_view)
    if failure is not None:
        raise failure
    return _conclude(summary, total, batch.stopped, output)


def _retry_command(
    name: str, pairs: Sequence[str], options: BatchOptions, connection: Connection
) -> str:
    """Return the command that submits failed requests again, with all options but secrets."""
    words = ["aireiter", "batch", name, *pairs]
    for given in (connection, evolve(options, retry_failed=True)):
        for attribute in fields(type(given)):
            value: Any = getattr(given, attribute.name)
            if not attribute.repr or value == attribute.default:
                continue
            values: tuple[Any, ...] = (value,)
            if isinstance(value, tuple):
                values = value  # pyright: ignore[reportUnknownVariableType]
            option = f"--{attribute.name.replace('_', '-')}"
            for each in values:
                words += [option] if each is True else [option, str(each)]
    return shlex.join(words)


def _request(row: Row) -> SubmitRequest:
    if row.unusable is not None:
        raise row.unusable
    return _checked(row)


def _checked(row: Row) -> SubmitRequest:
    return cast("SubmitRequest", row.request)  # an invalid row has ended the command


def _progress_view(batch: Batch[Row], total: int, summary: Summary) -> _display.ProgressView:
    now = batch.progress
    used, estimated = map(_display.number, (now.credits_used, now.credits_estimated))
    return _display.ProgressView(
        total=total,
        done=summary.ended,
        seconds=now.seconds,
        left=now.expected_end,
        counts={
            "failed": str(summary.failed),
            "running": str(now.outstanding + summary.running),
            "credits": f"{used} of {estimated}",
            "rate": f"{now.rate:.1f}/s",
            "succeeded": str(now.succeeded),
        },
    )


def _conclude(summary: Summary, total: int, stopped: Exception | None, output: Output) -> int:
    """Report what to do next, and return the exit status."""
    rest = _display.plural(summary.not_submitted, "request")
    if stopped is not None and not isinstance(stopped, BudgetExceededError):
        output.note(
            f"aireiter: the batch was stopped, {rest} not submitted: {_errors.summarize(stopped)}; "
            f"{_errors.advice(stopped) or 'fix the cause'}, then {_RERUN}"
        )
        return _errors.BATCH_STOPPED
    if summary.ended < total:
        interrupted = summary.ended + summary.open < total
        what = "interrupted" if interrupted else f"{summary.open} of {total} requests unfinished"
        output.note(f"aireiter: {what}; to resume, {_RERUN}: nothing is lost")
        return _errors.BATCH_UNFINISHED
    if summary.not_submitted:
        output.note(
            f"aireiter: --max-credits is reached, {rest} not submitted; to continue, "
            f"{_RERUN} with a higher limit"
        )
        return _errors.BUDGET_REACHED
    if summary.failed:
        advice = (
            f"fix the local files, then {_RERUN}"
            if summary.unusable == summary.failed
            else "the same command resumes what is unfinished, and with --retry-failed also "
            "retries what failed"
        )
        output.note(f"aireiter: {summary.failed} of {total} requests failed; {advice}")
        return _errors.FAILED
    return 0
