"""How far a batch is: values that a progress bar can read."""

import time
from collections.abc import Callable
from typing import Final

from attrs import define, frozen

_INTERVAL: Final = 0.1  # seconds between two reports: more is not seen


@frozen
class BatchProgress:
    """
    How far a batch is.

    Attributes:
        total: Requests in all; None while the source has not said.
        pulled: Requests taken from the source.
        submitting: Of these, those neither known to be accepted nor done or failed.
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
    def rate(self) -> float:
        """Outcomes per second since the batch began."""
        return (self.done + self.failed) / self.seconds if self.seconds > 0 else 0.0

    @property
    def expected_end(self) -> float | None:
        """Seconds until the last outcome at this rate; None while that is not known."""
        if self.total is None or not self.rate:
            return None
        return (self.total - self.done - self.failed) / self.rate


@define
class Progress:
    """
    Counts a batch and reports it, at most ten times a second and at the end.

    Args:
        total: Requests in all, None if the source does not say.
        report: Told; it must not block.
        clock: Seconds that only go up.

    Attributes:
        broken: What *report* has raised; it is then not told any more.
    """

    total: int | None
    report: Callable[[BatchProgress], None] | None
    clock: Callable[[], float] = time.monotonic
    pulled: int = 0
    submitting: int = 0
    outstanding: int = 0
    done: int = 0
    failed: int = 0
    credits_estimated: float = 0.0
    credits_used: float = 0.0
    broken: Exception | None = None
    _began: float = 0.0
    _reported: float = float("-inf")

    def __attrs_post_init__(self) -> None:
        """Start the clock."""
        self._began = self.clock()

    def tell(self, *, now: bool = False) -> None:
        """Report what is counted, if the last report is long enough ago, or *now*."""
        if self.report is None or self.broken is not None:
            return
        at = self.clock()
        if now or at - self._reported >= _INTERVAL:
            self._reported = at
            try:
                self.report(self.snapshot())
            except Exception as error:
                self.broken = error
                raise

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
