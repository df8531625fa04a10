"""One timer for all exchanges that share a timeout, and the translation of their errors.

Exchanges with the same timeout expire in the order in which they started, so an ordered dict and
a single timer replace a timer for each, at a tenth of the cost.
"""

import asyncio
import sys
from types import TracebackType
from typing import Self

from aireiter_async._transport._errors import FAILURES, drop_frames, translate


class Deadlines:
    """Limits each block that calls aiohttp to *seconds*, and translates aiohttp's errors.

    Use it as a context manager, or call `begin` and `end`, which is cheaper; a task runs at most
    one such block at a time.

    Args:
        seconds: The time limit of a block, counted from its start.

    Raises:
        AireiterError: Replaces any of `FAILURES` and the cancellation by the timer.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._running: dict[asyncio.Task[object], tuple[float, int, BaseException | None]] = {}
        self._expired: set[asyncio.Task[object]] = set()
        self._loop: asyncio.AbstractEventLoop
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def begin(self) -> "asyncio.Task[object]":
        """Start a block of the current task; pass the returned task to `end`, which must follow."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("an AsyncClient must be used in an asyncio task: call asyncio.run")
        if self._timer is None:
            self._loop = asyncio.get_running_loop()
            self._timer = self._loop.call_later(self.seconds, self._expire)
        self._running[task] = (self._loop.time(), task.cancelling(), sys.exception())
        return task

    def __enter__(self) -> Self:
        self.begin()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - it has entered
        # The frame of `end` will be in the traceback of what it raises, and so will this one.
        del traceback
        try:
            self.end(task, error)
        finally:
            del error, task

    def end(self, task: "asyncio.Task[object]", error: BaseException | None = None) -> None:
        """End the block of *task*, which failed with *error*, if any.

        Raises:
            AireiterError: As described above; any other *error* is the caller's to raise.
        """
        _, cancelling, handled = self._running.pop(task)
        if task in self._expired:
            self._expired.discard(task)
            # A cancellation by the caller, even at the same moment, propagates.
            if task.uncancel() <= cancelling and isinstance(error, asyncio.CancelledError):
                timeout = TimeoutError()
                timeout.__cause__ = error
                error = timeout
        if error is None or not isinstance(error, FAILURES):
            return
        failure, cause = translate(error, self.seconds, closed=self._closed)
        drop_frames(cause, handled)
        # This frame will be in the traceback of `failure`: avoid a cycle, and drop the key.
        del error, task
        try:
            raise failure from cause
        finally:
            failure.__context__ = handled
            del failure, cause, handled

    def close(self) -> None:
        """Cancel all blocks and the timer."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for task in self._running:
            if task not in self._expired:
                self._expired.add(task)
                task.cancel()

    def _expire(self) -> None:
        """Cancel overdue blocks, and set the timer for the next one."""
        self._timer = None
        now = self._loop.time()
        for task, (started, _, _) in self._running.items():
            if started + self.seconds > now:
                self._timer = self._loop.call_at(started + self.seconds, self._expire)
                return
            if task not in self._expired:
                self._expired.add(task)
                task.cancel()
