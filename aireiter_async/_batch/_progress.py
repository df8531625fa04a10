"""Progress of a batch: counters, and reports to a callback."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal, Protocol, TypeAlias, get_args

from attrs import define, field, frozen

_INTERVAL: Final = 0.1  # minimum seconds between reports

Stage: TypeAlias = Literal[
    "preparing", "submitting", "outstanding", "succeeded", "failed", "not_submitted"
]


@frozen
class BatchProgress:
    """A snapshot of a batch's progress.

    Attributes:
        total: Items in the source; None if it has no length.
        pulled: Items taken from the source.
        submitting: Of these, those whose submit has started and has no outcome yet.
        outstanding: Of these, those accepted and neither completed nor failed.
        succeeded: Of these, those with a `Success`.
        failed: Of these, those with a `Failure`, except those not submitted.
        not_submitted: Of these, those with a `Failure` and no task because the batch has stopped,
            its budget is exhausted, the account was rejected or nothing could be sent.
        credits_estimated: Sum of the estimates of the tasks accepted or waited
            for in this run, in credits.
        credits_used: Sum of the charges of the tasks that ended in this run, in credits.
        seconds: Since the batch began.
    """

    total: int | None = None
    pulled: int = 0
    submitting: int = 0
    outstanding: int = 0
    succeeded: int = 0
    failed: int = 0
    not_submitted: int = 0
    credits_estimated: float = 0.0
    credits_used: float = 0.0
    seconds: float = 0.0

    @property
    def done(self) -> int:
        """Items with an outcome of either kind."""
        return self.succeeded + self.failed + self.not_submitted

    @property
    def preparing(self) -> int:
        """Items pulled whose submit has not started.

        They wait for the ledger, the budget, or another request with the same ID.
        """
        return self.pulled - self.submitting - self.outstanding - self.done

    @property
    def rate(self) -> float:
        """Outcomes per second since the batch began."""
        return self.done / self.seconds if self.seconds > 0 else 0.0

    @property
    def expected_end(self) -> float | None:
        """Seconds until the last outcome at the current rate; None if unknown."""
        if self.total is None or not self.rate:
            return None
        return (self.total - self.done) / self.rate


OnProgress: TypeAlias = Callable[[BatchProgress], Awaitable[None] | None]


class _Item(Protocol):
    stage: Stage


def _call_later(seconds: float, call: Callable[[], None]) -> asyncio.TimerHandle:
    return asyncio.get_running_loop().call_later(seconds, call)


@define(eq=False)
class Progress:
    """Counts the items of a batch, and reports at most ten times a second and at the end.

    A change too soon after a report is reported later by a timer, so that the last report is
    never stale. Reports do not overlap: an async callback is awaited before the next one.

    Args:
        total: Items in the source, None if it has no length.
        report: Called with a snapshot, if not None.
        fail: Called with an exception of *report*, which is then not called again.
        clock: Monotonic seconds.
        call_later: Calls a function after some seconds.
    """

    total: int | None
    report: OnProgress | None
    fail: Callable[[BaseException], None]
    clock: Callable[[], float] = time.monotonic
    call_later: Callable[[float, Callable[[], None]], asyncio.TimerHandle] = _call_later
    _counts: dict[Stage, int] = field(factory=lambda: dict.fromkeys(get_args(Stage), 0), init=False)
    _credits_estimated: float = field(default=0.0, init=False)
    _credits_used: float = field(default=0.0, init=False)
    _idle: bool = field(init=False)  # there is a callback, and no report is due or running
    _stale: bool = field(default=False, init=False)  # changed while a report was running
    _started_at: float = field(init=False)
    _reported: float = field(default=float("-inf"), init=False)
    _due: asyncio.TimerHandle | None = field(default=None, init=False)
    _running: asyncio.Task[None] | None = field(default=None, init=False)
    _broken: BaseException | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._idle = self.report is not None
        self._started_at = self.clock()

    def add(self, item: _Item) -> None:
        """Count a new item, without a report."""
        self._counts[item.stage] += 1

    def move(
        self,
        item: _Item,
        stage: Stage,
        *,
        estimated: float | None = None,
        used: float | None = None,
    ) -> None:
        """Move *item* to a new stage, and add its credits."""
        counts = self._counts
        counts[item.stage] -= 1
        counts[stage] += 1
        item.stage = stage
        if estimated is not None:
            self._credits_estimated += estimated
        if used is not None:
            self._credits_used += used
        if self._idle:
            self._changed()
        elif self._running is not None:
            self._stale = True

    def snapshot(self) -> BatchProgress:
        """Return a snapshot of the counts."""
        counts = self._counts
        return BatchProgress(
            self.total,
            sum(counts.values()),
            counts["submitting"],
            counts["outstanding"],
            counts["succeeded"],
            counts["failed"],
            counts["not_submitted"],
            self._credits_estimated,
            self._credits_used,
            self.clock() - self._started_at,
        )

    async def close(self) -> None:
        """Report the end.

        Raises:
            BaseException: The exception of this or an earlier report.
        """
        await self._finish_report()
        if self._due is not None:
            self._due.cancel()
        self._report()
        await self._finish_report()
        self.report, self._idle = None, False
        if self._broken is not None:
            raise self._broken

    def _changed(self) -> None:
        seconds = self._reported + _INTERVAL - self.clock()
        if seconds <= 0:
            self._report()
        else:
            self._idle = False
            self._due = self.call_later(seconds, self._report)

    def _report(self) -> None:
        report, self.report = self.report, None  # dropped if it raises
        self._due, self._reported, self._idle, self._stale = None, self.clock(), False, False
        if report is None:
            return
        try:
            waiting = report(self.snapshot())
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - raised by `close`
            self._break(error)
            return
        self.report = report
        if inspect.isawaitable(waiting):
            self._running = running = asyncio.ensure_future(_await(waiting))
            running.add_done_callback(self._on_reported)
        else:
            self._idle = True

    def _on_reported(self, running: asyncio.Task[None]) -> None:
        """Resume reporting after an async callback."""
        self._running = None
        error = asyncio.CancelledError() if running.cancelled() else running.exception()
        if error is not None:
            self.report = None
            self._break(error)
            return
        self._idle = True
        if self._stale:
            self._changed()

    async def _finish_report(self) -> None:
        """Wait for an async callback; cancelling the wait cancels the callback."""
        running, cancelled = self._running, False
        while running is not None and not running.done():
            try:
                await asyncio.wait([running])
            except asyncio.CancelledError:
                cancelled = True
                running.cancel()
        if cancelled:
            raise asyncio.CancelledError

    def _break(self, error: BaseException) -> None:
        self._broken = error
        self.fail(error)


async def _await(waiting: Awaitable[Any]) -> None:
    await waiting
