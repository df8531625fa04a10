"""How far a batch is: values that a progress bar can read."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from attrs import define, field, frozen

_INTERVAL: Final = 0.1  # seconds between two reports: more is not seen


@frozen
class BatchProgress:
    """How far a batch is.

    Attributes:
        total: Requests in all; None while the source has not said.
        pulled: Requests taken from the source.
        submitting: Of these, those in the middle of their submit.
        outstanding: Of these, those accepted and neither done nor failed.
        done: Of these, those with an outcome without an error.
        failed: Of these, those with an outcome with an error.
        credits_estimated: Sum of the estimates of the tasks accepted or waited
            for in this run, in credits.
        credits_used: Sum of the charges of the tasks ended in this run, in credits.
        seconds: Since the batch began.
    """

    total: int | None = None
    pulled: int = 0
    submitting: int = 0
    outstanding: int = 0
    done: int = 0
    failed: int = 0
    credits_estimated: float = 0.0
    credits_used: float = 0.0
    seconds: float = 0.0

    @property
    def preparing(self) -> int:
        """Of those pulled, the requests whose submit has not begun.

        They wait for the ledger, for the price of their model to be found out,
        or for another request with the same id.
        """
        return self.pulled - self.submitting - self.outstanding - self.done - self.failed

    @property
    def rate(self) -> float:
        """Outcomes per second since the batch began."""
        return (self.done + self.failed) / self.seconds if self.seconds > 0 else 0.0

    @property
    def expected_end(self) -> float | None:
        """Seconds until the last outcome at this rate; None while that is not known."""
        if self.total is None or not self.rate:
            return None
        return (self.total - self.done - self.failed) / self.rate


def _call_later(seconds: float, call: Callable[[], None]) -> asyncio.TimerHandle:
    return asyncio.get_running_loop().call_later(seconds, call)


@define
class Progress:
    """Counts a batch and reports it, at most ten times a second and at the end.

    What comes too soon after a report is reported a little later, by a timer:
    when nothing happens any more, the last report is not an old one.

    Args:
        total: Requests in all, None if the source does not say.
        report: Told; it must not block. None: nobody is told.
        fail: Told what *report* has raised, which is then not called any more.
        clock: Seconds that only go up.
        call_later: Calls a function after some seconds.

    Attributes:
        wanted: Whether a change is to be told of: somebody listens, and no
            report is due already.
    """

    total: int | None
    report: Callable[[BatchProgress], None] | None
    fail: Callable[[BaseException], None]
    clock: Callable[[], float] = time.monotonic
    call_later: Callable[[float, Callable[[], None]], asyncio.TimerHandle] = _call_later
    pulled: int = 0
    submitting: int = 0
    outstanding: int = 0
    done: int = 0
    failed: int = 0
    credits_estimated: float = 0.0
    credits_used: float = 0.0
    wanted: bool = field(init=False)
    _began: float = field(init=False)
    _reported: float = float("-inf")
    _due: asyncio.TimerHandle | None = None
    _broken: BaseException | None = None

    def __attrs_post_init__(self) -> None:
        """Start the clock."""
        self.wanted = self.report is not None
        self._began = self.clock()

    def tell(self) -> None:
        """Report what is counted: now, or when the last report is long enough ago."""
        seconds = self._reported + _INTERVAL - self.clock()
        if seconds <= 0:
            self._report()
        else:
            self.wanted = False
            self._due = self.call_later(seconds, self._report)

    def end(self) -> None:
        """Report the end.

        Raises:
            BaseException: What a report has raised, this one or one before.
        """
        if self._due is not None:
            self._due.cancel()
        self._report()
        if self._broken is not None:
            raise self._broken

    def snapshot(self) -> BatchProgress:
        """Return the counts as they are."""
        return BatchProgress(
            self.total,
            self.pulled,
            self.submitting,
            self.outstanding,
            self.done,
            self.failed,
            self.credits_estimated,
            self.credits_used,
            self.clock() - self._began,
        )

    def _report(self) -> None:
        report, self.report = self.report, None  # not called again if it raises, whatever it is
        self._due, self._reported, self.wanted = None, self.clock(), False
        if report is None:
            return
        try:
            report(self.snapshot())
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - raised by `end`
            self._broken = error
            self.fail(error)
        else:
            self.report, self.wanted = report, True
