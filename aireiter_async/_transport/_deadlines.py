"""One timer for all exchanges that share one timeout.

They all get the same number of seconds, so they run out in the order in which
they began: an ordered dict and one timer at a time do what a timer each would
do, at a tenth of its cost.
"""

import asyncio
from types import TracebackType
from typing import Self


class Deadlines:
    """Cuts short what takes longer than *seconds*.

    Use it as a context manager around what is to be cut short; in each task at
    most one such block runs at a time.

    Args:
        seconds: What each block has, counted from its beginning.

    Raises:
        TimeoutError: From the block, in place of the cancellation that ended it.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._running: dict[asyncio.Task[object], tuple[float, int]] = {}
        self._expired: set[asyncio.Task[object]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        """Begin a block in the current task."""
        loop = self._loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("an AsyncClient is used within asyncio tasks")
        if self._timer is None:
            self._timer = loop.call_later(self.seconds, self._expire, loop)
        self._running[task] = (loop.time(), task.cancelling())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the block; tell a deadline from a caller's cancellation."""
        task = asyncio.current_task(self._loop)
        assert task is not None  # noqa: S101 - it has entered
        _, cancelling = self._running.pop(task)
        if task in self._expired:
            self._expired.discard(task)
            if task.uncancel() <= cancelling and kind is asyncio.CancelledError:
                raise TimeoutError from error

    def cut(self) -> None:
        """Cut all blocks short, whatever time they have left, and keep no timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for task in self._running:
            if task not in self._expired:
                self._expired.add(task)
                task.cancel()

    def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        """Cut short what is overdue, and set the timer for the next oldest."""
        self._timer = None
        now = loop.time()
        for task, (began, _) in self._running.items():
            if began + self.seconds > now:
                self._timer = loop.call_at(began + self.seconds, self._expire, loop)
                return
            if task not in self._expired:
                self._expired.add(task)
                task.cancel()
