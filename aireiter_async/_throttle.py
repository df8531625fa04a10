"""Admission control: concurrency slots, the request rate, the cool-down after a 429.

A caller takes a slot, first in, first out; where a rate is set or was learned, it first waits
for its turn. The slot covers one HTTP exchange, never the wait between two of them.
"""

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final

_SPAN: Final = 1.0  # seconds over which the accepted rate is measured
_CUT: Final = 0.8  # of the accepted rate is left after a refusal
_DEEPEST: Final = 0.5  # of the last good rate: a single refusal does not cut below
_SCALE: Final = 0.0003  # of the curve: about ten seconds from a cut back to the last good rate
_HEADWAY: Final = 10.0  # requests
_SLOWEST: Final = 0.2  # requests per second
_START: Final = 1.0  # requests per second that a search begins with at least
_COOL_DOWN: Final = 1.0  # seconds, where a refusal says no time
_UNBOUND: Final = 10_000.0  # requests per second beyond which a learned rate limits nothing
_LATE: Final = 0.01  # seconds that a turn taken late is made up for: timers are that coarse


class Slots:
    """Slots that are taken and given back; one given back goes to whoever has waited longest.

    Args:
        number: How many there are.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._free = number
        self._queue: OrderedDict[asyncio.Future[None], None] = OrderedDict()

    @property
    def taken(self) -> int:
        """How many are taken."""
        return self._number - self._free

    @property
    def waiting(self) -> int:
        """How many callers wait for one."""
        return len(self._queue)

    def take(self) -> bool:
        """Take a slot if one is free; none is while anybody waits."""
        if self._free:
            self._free -= 1
            return True
        return False

    async def acquire(self) -> None:
        """Wait for a slot, and take it."""
        if self.take():
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue[turn] = None
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._queue.pop(turn, None)
            else:  # it came just before the cancellation
                self.release()
            raise

    def release(self) -> None:
        """Give a slot back.

        Raises:
            RuntimeError: None was taken.
        """
        while self._queue:
            turn, _ = self._queue.popitem(last=False)
            if not turn.done():
                turn.set_result(None)
                return
        if self._free >= self._number:
            raise RuntimeError("a slot was given back that nobody had taken")
        self._free += 1


class AdaptiveRate:
    """The rate at which requests may leave: a ceiling, and what refusals teach.

    Turns are spaced evenly (the generic cell rate algorithm). A refusal sets
    the rate to what the service has been accepting, less a margin. While only one
    has come, nothing is known of the limit, and success doubles the rate every
    second; from the next on success grows it along a cubic curve, slowly around
    the last good rate and faster beyond, as in botocore's adaptive mode. Time is
    what the caller says.

    Args:
        ceiling: Requests per second that are never exceeded; infinite: no limit.
    """

    def __init__(self, ceiling: float = float("inf")) -> None:
        self._ceiling = ceiling
        self._learned = float("inf")
        self._turn_at = float("-inf")
        self._cool_until = float("-inf")
        self._cut_at = float("-inf")
        self._searching = False
        self._good = 0.0
        self._grown = 0.0
        self._accepted_at = float("-inf")
        self._span_from = float("-inf")
        self._span_count = 0
        self._span_before = 0

    @property
    def limited(self) -> bool:
        """Whether there is a rate at all."""
        return self._learned != math.inf or self._ceiling != math.inf

    @property
    def rate(self) -> float:
        """Requests per second, infinite where nothing limits them."""
        return min(self._ceiling, self._learned)

    def delay(self, now: float) -> float:
        """Return the seconds until the next request may leave; 0 or less: now."""
        return max(self._turn_at, self._cool_until) - now

    def leave(self, now: float) -> None:
        """Take the turn that `delay` granted."""
        turn_at = self._turn_at if now - self._turn_at <= _LATE else now
        self._turn_at = turn_at + 1.0 / self.rate

    def accepted(self, now: float) -> None:
        """Count a request that was not refused, and let a learned rate grow."""
        if now - self._span_from >= _SPAN:
            self._roll(now)
        self._span_count += 1
        if self._learned != float("inf"):
            grown = self._grow(now - self._accepted_at)
            self._learned = grown if grown < _UNBOUND else float("inf")
        self._accepted_at = now

    def refused(self, now: float, left_at: float, retry_after: float | None) -> None:
        """Cool down, and cut the rate.

        Args:
            now: The time of the refusal.
            left_at: When the refused request left: what left before the last
                cut says nothing about the rate since.
            retry_after: Seconds; None where the refusal says no time.
        """
        pause = _COOL_DOWN if retry_after is None else retry_after
        self._cool_until = max(self._cool_until, now + pause)
        if left_at <= self._cut_at:
            return
        self._searching = self._learned == float("inf")
        # Little is accepted in a cool-down: what was good before it bounds each cut.
        slowest = _START if self._searching else max(_SLOWEST, self._good * _DEEPEST)
        self._good = max(slowest, min(self._measure(now), self.rate))
        self._learned = self._good * _CUT
        self._cut_at = self._accepted_at = now
        self._grown = 0.0

    def _grow(self, passed: float) -> float:
        """Return the rate after *passed* seconds without a refusal."""
        # Time without traffic proves nothing: it does not count.
        if self._searching:
            return self._learned * math.exp2(min(passed, _SPAN) / _SPAN)
        self._grown += min(passed, max(_SPAN, 1.0 / self.rate))
        scale = _SCALE * (self._good + _HEADWAY)
        return self._good + scale * (self._grown - math.cbrt(self._good * (1 - _CUT) / scale)) ** 3

    def _roll(self, now: float) -> None:
        """Begin a new span of time once the current one is over."""
        passed = now - self._span_from
        if passed >= _SPAN:
            self._span_before = self._span_count if passed < 2 * _SPAN else 0
            self._span_count = 0
            self._span_from = now if passed >= 2 * _SPAN else self._span_from + _SPAN

    def _measure(self, now: float) -> float:
        """Return the requests per second that were accepted over the last span."""
        self._roll(now)
        share = 1.0 - (now - self._span_from) / _SPAN
        return (self._span_count + self._span_before * share) / _SPAN


class Throttle:
    """The one gate of a client: slots for what is in flight, turns where a rate is.

    Args:
        max_concurrency: Exchanges in flight, at least 1.
        max_rate: Requests per second, None for no limit.
        clock: Seconds that only go up.
        sleep: Waits for a number of seconds.
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
        self._turns = asyncio.Lock()
        self._rate = AdaptiveRate(float("inf") if max_rate is None else max_rate)
        self._clock = clock
        self._sleep = sleep
        self.waiting = 0
        self.in_flight = 0

    @property
    def rate(self) -> float | None:
        """Requests per second that are allowed now, None for no limit."""
        rate = self._rate.rate
        return None if rate == float("inf") else rate

    async def acquire(self, *, shaped: bool = True) -> float:
        """Wait for a slot, first in, first out, and for a turn.

        Args:
            shaped: Whether the rate applies; it does not to result downloads,
                which go to other hosts.

        Returns:
            The time at which the exchange may begin, by the clock.
        """
        limited = shaped and self._rate.limited
        if not limited and self._slots.take():
            self.in_flight += 1
            return self._clock()
        self.waiting += 1
        try:
            await self._slots.acquire()
            if shaped and self._rate.limited:
                self._slots.release()
                await self._take_turn()
        finally:
            self.waiting -= 1
        self.in_flight += 1
        return self._clock()

    def release(self) -> None:
        """Give the slot back."""
        self.in_flight -= 1
        self._slots.release()

    def accepted(self) -> None:
        """Tell that the service took a request without asking for a slower pace."""
        self._rate.accepted(self._clock())

    def refused(self, left_at: float, retry_after: float | None) -> None:
        """Tell that a request that left at *left_at* was refused for its pace."""
        self._rate.refused(self._clock(), left_at, retry_after)

    async def _take_turn(self) -> None:
        """Wait for a turn, then for a slot: nobody holds one while the service wants a pause."""
        # One sleeper at a time, in order: whoever wakes sees the rate as it is by then.
        async with self._turns:
            await self._slots.acquire()
            while (delay := self._rate.delay(self._clock())) > 0:
                self._slots.release()
                await self._sleep(delay)
                await self._slots.acquire()
            self._rate.leave(self._clock())
