"""One run of a batch, all of whose lines were found good."""

import math
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TextIO

from attrs import define, field, frozen

from aireiter_async import (
    AsyncClient,
    BatchProgress,
    Ledger,
    Outcome,
    SubmitRequest,
)
from aireiter_async._ledger import LedgerState
from aireiter_async.cli import _display, _failure
from aireiter_async.cli._documents import encode
from aireiter_async.cli._failure import CommandError, UsageError
from aireiter_async.cli._lines import Lines
from aireiter_async.cli._report import Report
from aireiter_async.cli._stop import Stop
from aireiter_async.cli._tally import Tally, batch_view, row
from aireiter_async.cli._views import number

_AGAIN: Final = "put it right and run the same command again"


@frozen(kw_only=True)
class BatchOptions:
    """The options of a batch.

    Attributes:
        model: The model of CSV's rows, and of JSON lines that name none.
        unchecked: Send the parameters unchecked, for what this release does not
            know of a model.
        ledger: The record of the batch, an SQLite file; else the file's name and
            .db, beside it. The same command with the same ledger finishes the rest.
        results: Write one JSON line per request here, as they end: index, line,
            id, model, status, outputs, files, credits, error. It is begun anew on
            each run, what the ledger knows to be completed included.
        download: Save the results of the tasks in this folder.
        concurrency: HTTP exchanges at once; 64 unless told otherwise.
        window: Tasks that are submitted and have not ended; four for each of
            --concurrency unless told otherwise, and at least 256.
        max_rate: Requests per second at most.
        max_credits: Credits that are not passed, earlier runs with the same
            ledger included.
        timeout: Seconds to wait for each task.
        retry_failed: Submit again, under a new id, what an earlier run has left
            failed or refused.
        dry_run: Check every line, and send nothing; needs no key.
    """

    model: str | None = None
    unchecked: bool = False
    ledger: Path | None = None
    results: Path | None = None
    download: Path | None = None
    concurrency: int = 64
    window: int | None = None
    max_rate: float | None = None
    max_credits: float | None = None
    timeout: float | None = None
    retry_failed: bool = False
    dry_run: bool = False

    def check(self) -> None:
        """See that the numbers are in their ranges.

        Raises:
            UsageError: One is not.
        """
        for name, least in (("concurrency", 1), ("window", 1), ("max_credits", 0), ("timeout", 0)):
            value: float | None = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= least):
                option = name.replace("_", "-")
                raise UsageError(f"--{option} must be at least {least}, got {value}")
        if self.max_rate is not None and not (math.isfinite(self.max_rate) and self.max_rate > 0):
            raise UsageError(f"--max-rate must be more than 0, got {self.max_rate}")


@define
class Source:
    """The requests of a file, until the batch is to stop.

    Attributes:
        lines: The file.
        total: How many requests there are.
        stop: Tells whether to stop.
        numbers: The lines of the requests that have not ended, by their index.

    Raises:
        CommandError: On the way: the file is not what it was when it was checked.
    """

    lines: Lines
    total: int
    stop: Stop
    numbers: dict[int, int] = field(factory=dict[int, int])

    def __length_hint__(self) -> int:
        return self.total

    def __iter__(self) -> Iterator[SubmitRequest]:
        name, lines = self.lines.name, self.lines.read()
        for index in range(self.total):  # more may have been written meanwhile
            if self.stop.asked:
                return
            line = next(lines, None)
            if line is None:
                raise CommandError(f"{name} has lost lines during the batch; {_AGAIN}")
            if line.request is None:
                what = f"{name}, line {line.number}: {line.error}"
                raise CommandError(f"{what}; it was right before the batch; {_AGAIN}")
            self.numbers[index] = line.number
            yield line.request


class Run:
    """One run of a batch, all lines having been found good.

    Args:
        name: The file.
        options: What was asked for.
        client: What the requests go through.
        ledger: The open ledger.
        results: Where rows are written.
        report: Where things are said.
    """

    def __init__(
        self,
        name: str,
        options: BatchOptions,
        client: AsyncClient,
        ledger: Ledger,
        results: TextIO | None,
        report: Report,
    ) -> None:
        self._name = name
        self._options = options
        self._client = client
        self._ledger = ledger
        self._results = results
        self._report = report
        self._tally = Tally()
        self._progress = BatchProgress()
        self._began = time.monotonic()

    async def run(self, source: Source) -> int:
        """Run the batch, say what it came to, and return the exit status.

        Raises:
            Exception: What has ended it early, after that is said, too.
        """
        failure: Exception | None = None
        counts = await self._ledger.counts()
        before = counts.get(LedgerState.COMPLETED, 0) + counts.get(LedgerState.DOWNLOADED, 0)
        total = source.total
        with _display.following(total, lambda: self._standing(total), sys.stderr) as step:
            try:
                await source.stop.guard(self._consume(source, step))
            except Exception as error:  # noqa: BLE001 - raised below
                failure = error
        document = {
            "file": self._name,
            "requests": total,
            "completed_before": before,
            **await self._sums(total),
        }
        if failure is not None:
            document["error"] = _failure.document(failure)
        self._report.answer(document, batch_view)
        if failure is not None:
            raise failure
        return self._conclude(total)

    async def _consume(self, source: Source, step: Callable[[], None]) -> None:
        options = self._options

        def on_progress(progress: BatchProgress) -> None:
            self._progress = progress
            source.stop.follow(progress)
            step()

        batch = self._client.run_many(
            source,
            window=options.window,
            ledger=self._ledger,
            max_credits=options.max_credits,
            timeout=options.timeout,
            download_to=options.download,
            retry_failed=options.retry_failed,
            on_progress=on_progress,
        )
        async with batch:
            async for outcome in batch:
                self._take(outcome, source.numbers.pop(outcome.index))
                step()

    def _take(self, outcome: Outcome[SubmitRequest], line: int) -> None:
        self._tally.add(outcome, line)
        if self._results is not None:
            self._report.write(f"{encode(row(outcome, line), None)}\n", self._results)

    def _standing(self, total: int) -> _display.Standing:
        seen, tally = self._progress, self._tally
        left = seen.expected_end
        counts = {
            "done": str(tally.completed),
            "failed": str(tally.failed),
            "outstanding": str(seen.outstanding),
            "credits": f"{number(seen.credits_used)} of {number(seen.credits_estimated)}",
            "rate": f"{seen.rate:.1f}/s",
            "left": "?" if left is None else str(timedelta(seconds=round(left))),
        }
        seconds = time.monotonic() - self._began
        return _display.Standing(total=total, ended=tally.ended, counts=counts, seconds=seconds)

    async def _sums(self, total: int) -> dict[str, Any]:
        tally, stats, progress = self._tally, self._client.stats, self._progress
        spent, unpriced = await self._ledger.spent()
        return {
            "completed": tally.completed,
            "failed": tally.failed,
            "reasons": [
                {"count": each.count, "lines": each.lines, "text": str(each)}
                for each in tally.reasons.values()
            ],
            "unfinished": total - tally.ended,
            "outstanding": progress.outstanding,
            "requests_sent": stats.requests,
            "retries": stats.retries,
            "settled": stats.settled,
            "seconds": round(time.monotonic() - self._began, 3),
            "credits_estimated": progress.credits_estimated,
            "credits_used": progress.credits_used,
            "credits_of_ledger": spent,
            "unpriced": unpriced,
            "files": tally.files,
            "directory": _named(self._options.download),
            "ledger": str(self._ledger.path),
            "results": _named(self._options.results),
        }

    def _conclude(self, total: int) -> int:
        """Say how to go on, and return the exit status."""
        tally, note = self._tally, self._report.note
        if tally.ended < total:
            note("aireiter: interrupted; to go on, run the same command again: nothing is lost")
            return _failure.BATCH_INTERRUPTED
        if tally.unsubmitted:
            note(
                f"aireiter: --max-credits is reached, {tally.unsubmitted} requests were not "
                "submitted; to go on, run the same command again with more"
            )
            return _failure.OVER_BUDGET
        if tally.failed:
            note(
                f"aireiter: {tally.failed} of {total} requests have failed; the same command goes "
                "on with what is open, with --retry-failed it also tries again what has failed"
            )
            return _failure.FAILED
        return 0


def _named(path: Path | None) -> str | None:
    return None if path is None else str(path)
