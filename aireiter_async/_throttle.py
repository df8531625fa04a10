"""Admission control: concurrency slots, the request rate, the pause during an outage.

A caller takes a slot in FIFO order; if a rate is set or was learned, it first waits for its turn.
A slot is held for one HTTP exchange, never for the wait between two of them.
"""

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final

# `benchmarks/rate.py` measures these against many kinds of services.
_CUT_TO: Final = 0.85  # share of the last good rate that a cut leaves
_DEEPEST_CUT: Final = 0.4  # least share of the rate that stays good: few exchanges measure badly
_CLEAN: Final = 0.95  # share of the rate at which rejections began that stays good
_RECOVERY: Final = 2.4  # seconds from a cut back to the last good rate
_SCALE: Final = (1.0 - _CUT_TO) / _RECOVERY**3
_MIN_FIRST_RATE: Final = 1.0  # requests per second, while nothing has been accepted
_MIN_RATE: Final = 0.2  # requests per second
_UNLIMITED: Final = 10_000.0  # requests per second at which a learned rate is dropped
_SLOW_RATE: Final = 20.0  # requests per second: a rate below this grows more slowly
_MAX_LATENESS: Final = 0.01  # maximum seconds of lateness to catch up on: timers are that coarse
_MAX_IDLE: Final = 1.0  # maximum seconds without traffic that count as traffic

_SPAN: Final = 0.5  # seconds of exchanges that are judged together
_MIN_SAMPLE: Final = 10  # minimum requests that are judged together
_MIN_MEASURED: Final = 0.01  # minimum seconds that a rate is measured over

_TOLERATED: Final = 2  # rejections, plus one of these shares of the latest exchanges:
_TOLERATED_SHARE: Final = 0.15
_TOLERATED_SHARE_ABOVE: Final = 0.05  # at or above the last good rate
_BUSY_ABOVE: Final = 1.5  # times the learned busy share, at or above that rate
_MAX_BUSY_SHARE: Final = 0.15  # of the share that is learned

_PAUSING_RUN: Final = 5  # consecutive rejections that pause all requests
_PAUSE: Final = 1.0  # seconds, without a Retry-After
_PAUSE_GROWTH: Final = 1.5  # factor for each rejection after a pause
_LONGEST_PAUSE: Final = 5.0
_PROBE_INTERVAL: Final = 0.25  # seconds between requests after a pause


class Throttle:
    """Admits a client's exchanges: one slot each, at the configured or learned rate.

    Args:
        max_concurrency: Maximum exchanges in flight, at least 1.
        max_rate: Maximum requests per second, None for no limit.
        clock: Returns monotonic seconds.
        sleep: Sleeps for a number of seconds.

    Attributes:
        waiting: Callers that wait for a slot or for the rate.
    """

    def __init__(
        self,
        max_concurrency: int,
        max_rate: float | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._slots = Slots(max_concurrency)
        self._rate_lock = asyncio.Lock()
        self._rate = AdaptiveRate(math.inf if max_rate is None else max_rate)
        self._clock = clock
        self._sleep = sleep
        self.waiting = 0

    @property
    def in_flight(self) -> int:
        """Slots in use."""
        return self._slots.taken

    @property
    def rate(self) -> float | None:
        """Requests per second that are allowed now, None for no limit."""
        rate = self._rate.rate
        return None if rate == math.inf else rate

    def try_acquire(self) -> float | None:
        """Take a slot without waiting and return the time; None: call `acquire` instead."""
        slots = self._slots
        if self._rate.limited or not slots.free:
            return None
        slots.free -= 1  # `Slots.try_acquire` inlined
        return self._clock()

    async def acquire(self) -> float:
        """Wait for a slot, in FIFO order, and for the rate; return the time."""
        self.waiting += 1
        try:
            await self._slots.acquire()
            if self._rate.limited:
                self._slots.release()
                await self._wait_for_rate()
        finally:
            self.waiting -= 1
        return self._clock()

    def release(self) -> None:
        self._slots.release()

    def accepted(self, sent_at: float) -> None:
        """Record that a request sent at *sent_at* was not rejected for its rate."""
        self._rate.accepted(sent_at, self._clock())

    def rejected(self, sent_at: float, retry_after: float | None) -> None:
        """Record that a request sent at *sent_at* was rejected for its rate."""
        self._rate.rejected(sent_at, self._clock(), retry_after)

    async def _wait_for_rate(self) -> None:
        """Wait until the rate allows a request, then for a slot: no slot is held meanwhile."""
        # One sleeper at a time, in order, so that each sees the current rate when it wakes.
        async with self._rate_lock:
            await self._slots.acquire()
            while (delay := self._rate.delay(self._clock())) > 0:
                self._slots.release()
                await self._sleep(delay)
                await self._slots.acquire()
            self._rate.note_sent(self._clock())


class Slots:
    """A FIFO semaphore whose release takes constant time however many callers wait.

    Args:
        number: The number of slots.

    Attributes:
        free: The number of free slots; 0 while callers wait.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self.free = number
        self._queue: OrderedDict[asyncio.Future[None], None] = OrderedDict()

    @property
    def taken(self) -> int:
        """Slots in use."""
        return self._number - self.free

    @property
    def waiting(self) -> int:
        """Callers waiting for a slot."""
        return len(self._queue)

    def try_acquire(self) -> bool:
        """Take a slot if one is free."""
        if self.free:
            self.free -= 1
            return True
        return False

    async def acquire(self) -> None:
        """Wait for a slot and take it."""
        if self.try_acquire():
            return
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue[granted] = None
        try:
            await granted
        except asyncio.CancelledError:
            if granted.cancelled():
                self._queue.pop(granted, None)
            else:  # it was granted just before the cancellation
                self.release()
            raise

    def release(self) -> None:
        """Release a slot, handing it to the caller that has waited longest, if any.

        Raises:
            RuntimeError: No slot was taken.
        """
        while self._queue:
            granted, _ = self._queue.popitem(last=False)
            if not granted.done():
                granted.set_result(None)
                return
        if self.free >= self._number:
            raise RuntimeError("release() without acquire(): no slot is taken")
        self.free += 1


class AdaptiveRate:
    """The request rate: a ceiling, and a limit that rejections reveal.

    Requests are spaced evenly (the generic cell rate algorithm). A single rejection says little,
    since a service also rejects requests because it is busy. Only when rejections exceed a share
    of the latest exchanges is the rate cut, to what the service has been accepting. It then grows
    along a cubic curve, like botocore's adaptive mode but relative to the rate: it is back at the
    last good rate in 2.4 seconds, and at four times that in ten.

    Rejections below the last good rate have other causes. Their share is learned once two cuts
    have not changed it, and tolerated from then on. When the service accepts nothing at all,
    requests pause, then go out one at a time until one is accepted.

    Callers pass the current time.

    Args:
        ceiling: Maximum requests per second; infinite for no limit.

    Attributes:
        limited: Whether requests may have to wait.
    """

    def __init__(self, ceiling: float = math.inf) -> None:
        self.limited = ceiling != math.inf
        self._ceiling = ceiling
        self._learned = math.inf
        self._searching = True  # no second cut has confirmed the first
        self._good = 0.0
        self._growth = 0.0  # seconds of traffic since the cut, or requests where they are few
        self._cut_at = self._grown_at = self._next_at = -math.inf
        self._latest = _Exchanges()
        self._clean = 0.0  # the rate at which rejections began
        self._busy = self._busy_before = 0.0
        self._run = 0
        self._pause = 0.0  # seconds, while nothing is accepted
        self._paused_at = self._resume_at = -math.inf

    @property
    def rate(self) -> float:
        """Requests per second, infinite if unlimited."""
        return min(self._ceiling, self._learned)

    def delay(self, now: float) -> float:
        """Return the seconds until the next request may be sent; 0 or less means now."""
        return max(self._next_at, self._resume_at) - now

    def note_sent(self, now: float) -> None:
        """Record that a request was sent."""
        due = self._next_at if now - self._next_at <= _MAX_LATENESS else now
        self._next_at = due + 1.0 / self.rate
        if self._pause:
            self._resume_at = now + _PROBE_INTERVAL

    def accepted(self, sent_at: float, now: float) -> None:
        """Record that a request was not rejected for its rate, and let a learned rate grow."""
        self._run = 0
        if self._pause:
            self._pause = 0.0
            self._resume_at = now
        if sent_at <= self._cut_at:
            return
        latest = self._latest
        if now >= latest.ends_at:
            latest.roll(now)
        latest.accepted += 1
        if self._learned != math.inf:
            self._grow(now)

    def rejected(self, sent_at: float, now: float, retry_after: float | None) -> None:
        """Record a rejection, and pause requests or cut the rate if there are too many.

        Args:
            sent_at: When the request was sent; before the last cut, it says nothing about the rate
                since.
            now: The time of the rejection.
            retry_after: Seconds; None or 0 if the service gave none.
        """
        self._run += 1
        pausing = self._run >= _PAUSING_RUN and not self._pause
        if pausing or (self._pause and sent_at > self._paused_at):
            self._pause = min(self._pause * _PAUSE_GROWTH, _LONGEST_PAUSE) or _PAUSE
            self._paused_at = now
        if self._pause:
            self._resume_at = max(self._resume_at, now + (retry_after or self._pause))
        if sent_at <= self._cut_at or (self._pause and not pausing):
            return
        latest = self._latest
        if now >= latest.ends_at:
            latest.roll(now)
        latest.rejected += 1
        if latest.rejected == 1:
            # Only after a few acceptances: otherwise the rate was too high from the start.
            self._clean = self._rate_at(now - sent_at) if latest.accepted >= _MIN_SAMPLE else 0.0
        if self._good <= self._learned < math.inf:
            share = _TOLERATED_SHARE_ABOVE + _BUSY_ABOVE * self._busy
        else:
            share = _TOLERATED_SHARE + self._busy
        if pausing or latest.rejected > _TOLERATED + share * latest.total:
            self._cut(sent_at, now)

    def _cut(self, sent_at: float, now: float) -> None:
        measured = self._latest.accepted_per_second(sent_at, now)
        if self._learned < self._good:
            self._learn_busy()
        self._searching = self._learned == math.inf
        if self._searching:
            self._good = max(_MIN_FIRST_RATE, measured)
        else:
            # A service without a burst allowance accepts only half of a slightly too fast stream:
            # what it accepted before is the better measure, unless it accepts nothing now.
            clean = 0.0 if self._pause else _CLEAN * self._clean
            rate = self.rate
            self._good = max(_MIN_RATE, min(rate, max(_DEEPEST_CUT * rate, measured, clean)))
        self._learned = _CUT_TO * self._good
        self.limited = True
        self._growth = 0.0
        self._cut_at = self._grown_at = now
        self._latest.restart(max(_SPAN, _MIN_SAMPLE / self._learned))
        if self._pause:
            self._latest.include_pause(now, self._resume_at)

    def _grow(self, now: float) -> None:
        # Time without traffic proves nothing: it does not count.
        passed = min(now - self._grown_at, max(_MAX_IDLE, 1.0 / self.rate))
        self._grown_at = now
        below = self._learned < self._good
        if self._searching:
            self._learned *= math.exp2(passed)
        else:
            self._growth += passed * math.sqrt(min(1.0, self._learned / _SLOW_RATE))
            self._learned = self._rate_at(0.0)
        if below and self._learned >= self._good:
            self._learn_busy()
            self._latest.restart(max(_SPAN, _MIN_SAMPLE / self._learned))
        if self._learned >= _UNLIMITED:
            self._learned = math.inf
            self._searching = True
            self.limited = self._ceiling != math.inf

    def _rate_at(self, ago: float) -> float:
        """Return the learned rate *ago* seconds before now."""
        if self._searching:
            return self._learned / math.exp2(ago)
        growth = max(0.0, self._growth - ago)
        return self._good * (1.0 + _SCALE * (growth - _RECOVERY) ** 3)

    def _learn_busy(self) -> None:
        latest = self._latest
        if latest.total >= _MIN_SAMPLE:
            share = latest.rejected / latest.total
            self._busy = min(_MAX_BUSY_SHARE, share, self._busy_before)
            self._busy_before = share


class _Exchanges:
    """Counts of the latest exchanges, over one to two spans of time.

    Attributes:
        accepted: Acceptances.
        rejected: Rejections.
        ends_at: When the current span ends, and `roll` begins the next one.
    """

    __slots__ = (
        "_accepted_before",
        "_from",
        "_from_before",
        "_rejected_before",
        "_span",
        "accepted",
        "ends_at",
        "rejected",
    )

    def __init__(self) -> None:
        self.restart(_SPAN)

    @property
    def total(self) -> int:
        return self.accepted + self.rejected

    def restart(self, span: float) -> None:
        """Reset all counts; the next exchange starts a span."""
        self._span = span
        self.accepted = self._accepted_before = 0
        self.rejected = self._rejected_before = 0
        self._from = self._from_before = self.ends_at = -math.inf

    def include_pause(self, since: float, until: float) -> None:
        """Start with a span that includes a pause, which lowers the measured rate."""
        self._from = self._from_before = since
        self.ends_at = until + self._span

    def roll(self, now: float) -> None:
        """End a span: drop the previous one and start the next."""
        if now - self.ends_at >= self._span:
            self.restart(self._span)
            self._from = now
        self.accepted -= self._accepted_before
        self.rejected -= self._rejected_before
        self._accepted_before, self._rejected_before = self.accepted, self.rejected
        self._from_before, self._from = self._from, now
        self.ends_at = now + self._span

    def accepted_per_second(self, sent_at: float, now: float) -> float:
        """Return the rate of acceptances; the latest exchange was sent at *sent_at*."""
        seconds = now - self._from_before
        if seconds < self._span / 2:  # the first responses arrive together: count their latency
            seconds = max(seconds, now - sent_at)
        return self.accepted / max(seconds, _MIN_MEASURED)
