"""State shared by a client and its views: pool, throttle, clock, counters and learned values."""

import asyncio
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from functools import cached_property, partial
from typing import TYPE_CHECKING, Final

from attrs import define, field

from aireiter_async import events
from aireiter_async._poll import Durations
from aireiter_async._requests import SubmitRequest
from aireiter_async._retry import Target
from aireiter_async._tasks import Task, TaskStatus
from aireiter_async._threads import Threads
from aireiter_async._throttle import Slots, Throttle
from aireiter_async._transport import CLOSED, Transport
from aireiter_async.errors import AireiterError

if TYPE_CHECKING:
    from aireiter_async._media import Files

_MAX_DONE: Final = 10_000


class Clock:
    """Monotonic time, and sleeps that end when the client closes.

    Args:
        now: Returns monotonic seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.now = now
        self._wakers: set[asyncio.Future[bool]] = set()
        self._closed = False

    async def sleep(self, seconds: float, waker: asyncio.Future[bool] | None = None) -> None:
        """Sleep for *seconds*, or until *waker* is done, whose result is False after a full sleep.

        Raises:
            RuntimeError: The client is closed, before or during the sleep.
        """
        if self._closed:
            raise RuntimeError(CLOSED)
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        loop = asyncio.get_running_loop()
        if waker is None:
            waker = loop.create_future()
        timer = loop.call_later(seconds, _wake, waker)
        self._wakers.add(waker)
        try:
            await waker
        finally:
            self._wakers.discard(waker)
            timer.cancel()

    def close(self) -> None:
        """End all current and future sleeps."""
        self._closed = True
        for waker in self._wakers:
            if not waker.done():
                waker.set_exception(RuntimeError(CLOSED))


def _wake(waker: asyncio.Future[bool]) -> None:
    if not waker.done():
        waker.set_result(False)


@define
class Counters:
    """Running totals; `ClientStats`, a snapshot of them, documents each."""

    requests: int = 0
    retries: int = 0
    submitted: int = 0
    settled: int = 0
    completed: int = 0
    failed: int = 0
    rate_limited: int = 0
    credits_estimated: float = 0.0
    credits_unknown: int = 0
    credits_used: float = 0.0
    bytes_downloaded: int = 0
    estimated_by_model: defaultdict[str, float] = field(factory=partial(defaultdict, float))
    used_by_model: defaultdict[str, float] = field(factory=partial(defaultdict, float))


class Shared:
    """The state that a client shares with its views.

    Its clock is the only source of time, and the only way to sleep.
    """

    def __init__(
        self, transport: Transport, clock: Clock, max_concurrency: int, max_rate: float | None
    ) -> None:
        self.transport = transport
        self.clock = clock
        self.set_limits(max_concurrency, max_rate)
        self.threads = Threads()
        self.counters = Counters()
        self.durations = Durations()
        self.events = events.Dispatcher()
        self.responsive: set[str] = set()  # the base URLs that have responded as the API
        self._done: OrderedDict[str, None] = OrderedDict()  # the IDs counted most recently

    @cached_property
    def files(self) -> "Files":
        """Saves results in directories."""
        from aireiter_async._media import Files  # noqa: PLC0415 - for downloads only

        return Files(self.threads)

    def set_limits(self, max_concurrency: int, max_rate: float | None) -> None:
        """Set how much is in flight at once, and per second; before the first exchange."""
        clock = self.clock
        self.max_concurrency = max_concurrency
        self.throttle = Throttle(max_concurrency, max_rate, clock=clock.now, sleep=clock.sleep)
        # Separate slots: slow downloads never delay a submit or a poll.
        self.downloads = Slots(max_concurrency)

    def note_retry(self, target: Target, error: AireiterError, seconds: float) -> None:
        """Count an attempt that will be retried."""
        self.counters.retries += 1
        if self.events.listeners:
            out_task_id, kind = target.out_task_id, target.kind
            self.events.emit(events.RequestRetried(error, seconds, out_task_id, kind))

    def note_accepted(self, request: SubmitRequest, task: Task) -> None:
        """Count a task that the service has accepted."""
        counters, estimate = self.counters, task.estimated_credits
        counters.submitted += 1
        if estimate is None:
            counters.credits_unknown += 1
        else:
            counters.credits_estimated += estimate
            counters.estimated_by_model[request.model] += estimate
        if self.events.listeners:
            self.events.emit(events.TaskAccepted(task))

    def note_done(self, task: Task) -> None:
        """Count an ended task, once, however often it is waited for."""
        if task.out_task_id in self._done:
            return
        self._done[task.out_task_id] = None
        if len(self._done) > _MAX_DONE:
            self._done.popitem(last=False)
        counters = self.counters
        if task.credits_used is not None:
            counters.credits_used += task.credits_used
            counters.used_by_model[task.model or "?"] += task.credits_used
        if task.status is TaskStatus.FAILED:
            counters.failed += 1
        else:
            counters.completed += 1
        if self.events.listeners:
            self.events.emit(events.TaskDone(task))
