"""The pace: slots first in, first out, and a rate that finds what the service grants."""

import asyncio
import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aireiter_async._retry import RetryPolicy
from aireiter_async._throttle import AdaptiveRate, Throttle
from aireiter_async.errors import RateLimitError

UNLIMITED = float("inf")


# The rate, in virtual time ---------------------------------------------------------------


@attrs.define
class Bucket:
    """A service that grants *limit* requests per second, *burst* of them at once."""

    limit: float
    burst: float
    tokens: float = attrs.field(default=attrs.Factory(lambda self: self.burst, takes_self=True))
    filled_at: float = 0.0

    def grants(self, now: float) -> bool:
        """Take a request that arrives."""
        self.tokens = min(self.burst, self.tokens + (now - self.filled_at) * self.limit)
        self.filled_at = now
        if self.tokens < 1 - 1e-9:
            return False
        self.tokens -= 1
        return True


@attrs.define
class Window:
    """A service that grants *limit* requests in each *span* of seconds, by its clock."""

    limit: int
    span: float
    taken: int = 0
    number: int = 0

    def grants(self, now: float) -> bool:
        """Take a request that arrives."""
        if now // self.span != self.number:
            self.number, self.taken = int(now // self.span), 0
        self.taken += 1
        return self.taken <= self.limit


@attrs.define
class Batch:
    """What became of a batch."""

    seconds: float = 0.0
    refused_at: list[float] = attrs.field(factory=list[float], repr=False)
    tries: dict[int, int] = attrs.field(factory=dict[int, int], repr=False)

    @property
    def late_refusals(self) -> int:
        """Count the refusals after the first five seconds."""
        return sum(moment > 5 for moment in self.refused_at)


def simulate(
    rate: AdaptiveRate,
    grants: Callable[[float], bool],
    *,
    tasks: int = 1000,
    slots: int = 64,
    latency: float = 0.05,
    retry_after: Callable[[float], float | None] = lambda _now: 1.0,
    seed: int = 1,
) -> Batch:
    """Let a batch pass through *slots* to a service, with retries as `RetryPolicy` has them."""
    dice = random.Random(seed)  # noqa: S311 - a simulation
    batch = Batch()
    order = itertools.count()
    queue = deque(range(tasks))
    events: list[tuple[float, int, Any]] = []
    now, done, in_flight = 0.0, 0, 0
    while done < tasks:
        leaves = now + max(0.0, rate.delay(now)) if queue and in_flight < slots else UNLIMITED
        if events and events[0][0] <= leaves:
            now, _, event = heapq.heappop(events)
            if event[0] == "ready":
                queue.append(event[1])
                continue
            in_flight -= 1
            _, caller, left_at, asked = event
            if asked is False:
                rate.accepted(now)
                done += 1
                continue
            rate.refused(now, left_at, asked)
            batch.refused_at.append(now)
            batch.tries[caller] = batch.tries.get(caller, 0) + 1
            error = RateLimitError(429, "slow", asked)
            wait = RetryPolicy().wait(error, batch.tries[caller] - 1, dice.random)
            heapq.heappush(events, (now + wait, next(order), ("ready", caller)))
            continue
        now = leaves
        caller = queue.popleft()
        rate.leave(now)
        arrival = now + latency / 2
        answer = False if grants(arrival) else retry_after(arrival)
        heapq.heappush(events, (now + latency, next(order), ("answer", caller, now, answer)))
        in_flight += 1
    batch.seconds = now
    return batch


@pytest.mark.parametrize("latency", [0.01, 0.05, 0.2])
@pytest.mark.parametrize(
    ("burst", "asked", "most"),
    [
        (20, 1.0, 1.1),
        (20, 0.05, 1.1),
        (20, None, 1.1),
        (5, 1.0, 1.2),
        (5, 0.05, 1.2),
        (5, None, 1.2),
        (1, 1.0, 1.4),
        (1, 0.05, 1.3),
    ],
)
def test_a_batch_finishes_at_the_pace_that_is_granted(
    burst: float, asked: float | None, most: float, latency: float
) -> None:
    service = Bucket(20.0, burst)
    batch = simulate(
        AdaptiveRate(), service.grants, latency=latency, retry_after=lambda _now: asked
    )
    assert batch.seconds <= most * (1000 - burst) / 20
    assert batch.late_refusals < 0.05 * 1000
    assert max(batch.tries.values()) <= 3


@pytest.mark.parametrize(
    ("limit", "burst", "tasks", "most"), [(200, 20, 5000, 1.3), (2, 2, 100, 1.3), (0.5, 1, 30, 2.2)]
)
def test_any_limit_is_found(limit: float, burst: float, tasks: int, most: float) -> None:
    """Half a request per second or two hundred: the rate goes there, and no task is worn out."""
    batch = simulate(AdaptiveRate(), Bucket(limit, burst).grants, tasks=tasks)
    assert batch.seconds <= most * (tasks - burst) / limit
    assert max(batch.tries.values()) < RetryPolicy().attempts


def test_a_limit_that_is_used_up_already_is_found() -> None:
    """A start without a single accepted request does not end in a crawl."""
    batch = simulate(AdaptiveRate(), Bucket(20.0, 20.0, tokens=0.0).grants)
    assert batch.seconds <= 1.2 * 1000 / 20


def test_refusals_after_a_pause_do_not_end_in_a_crawl() -> None:
    rate = AdaptiveRate()
    for n in range(100):
        rate.accepted(n / 50)
    rate.refused(2.0, 1.99, 1.0)
    before = rate.rate
    for now in (3.1, 4.2):
        rate.refused(now, now - 0.01, 1.0)
    assert before * 0.15 < rate.rate < before


@pytest.mark.parametrize("told", [True, False])
def test_a_limit_per_minute_is_lived_with(*, told: bool) -> None:
    batch = simulate(
        AdaptiveRate(),
        Window(60, 60.0).grants,
        tasks=300,
        retry_after=lambda now: 60.0 - now % 60.0 if told else None,
    )
    assert batch.seconds <= 1.3 * 240
    assert len(batch.refused_at) <= 60
    assert max(batch.tries.values()) <= 3


def test_a_service_in_its_stride_is_not_slowed() -> None:
    """Without a refusal nothing limits the rate."""
    rate = AdaptiveRate()
    batch = simulate(rate, lambda _now: True)
    assert batch.seconds == pytest.approx(1000 / 64 * 0.05, rel=0.1)
    assert rate.rate == UNLIMITED


def test_one_refusal_is_forgotten() -> None:
    """After a single 429 in mid-run the batch is soon as fast as before."""
    once = iter([True] * 2000 + [False])
    rate = AdaptiveRate()
    batch = simulate(rate, lambda _now: next(once, True), tasks=50_000)
    assert len(batch.refused_at) == 1
    assert batch.seconds < 50_000 / 64 * 0.05 + 10
    assert rate.rate == UNLIMITED


def steady(rate: AdaptiveRate, now: float, seconds: float, every: float) -> float:
    """Let a request be accepted *every* so many seconds, and return the time after *seconds*."""
    end = now + seconds
    while now < end:
        rate.leave(now)
        now += every
        rate.accepted(now)
    return now


def test_a_refusal_cuts_to_what_was_accepted() -> None:
    """The rate goes to four fifths of what the service accepted over the last second."""
    rate = AdaptiveRate()
    now = steady(rate, 100.0, 3.0, 0.1)
    rate.refused(now, now - 0.05, 0.0)
    assert rate.rate == pytest.approx(0.8 * 10, rel=0.1)


@pytest.mark.parametrize(("silence", "expected"), [(0.5, 0.5), (1.5, 0.0), (2.5, 0.0), (99.0, 0.0)])
def test_only_the_last_second_is_measured(silence: float, expected: float) -> None:
    """After a silence the rate is not cut to what was accepted before it."""
    rate = AdaptiveRate()
    now = steady(rate, 100.0, 3.0, 0.02) + silence
    rate.refused(now, now, 0.0)
    assert rate.rate == pytest.approx(max(0.8, 0.8 * 50 * expected), rel=0.1)


def test_a_first_refusal_leaves_room_to_search() -> None:
    """Where nothing was accepted yet, the search begins at about one request per second."""
    rate = AdaptiveRate()
    rate.refused(100.0, 99.9, None)
    assert rate.rate == 0.8


def test_a_search_doubles_every_second_of_traffic() -> None:
    """After one refusal the limit is not known, and the rate grows until there is another."""
    rate = AdaptiveRate()
    rate.refused(100.0, 99.9, 0.0)
    now = steady(rate, 100.0, 4.0, 0.25)
    assert rate.rate == pytest.approx(0.8 * 16)
    rate.refused(now, now - 0.01, 0.0)
    assert rate.rate == pytest.approx(0.8 * 4, rel=0.3)


def test_the_next_refusal_makes_it_careful() -> None:
    """From the second refusal on the rate returns to where it was good, stays, then goes on."""
    rate = AdaptiveRate()
    rate.refused(100.0, 99.9, 0.0)
    now = steady(rate, 100.0, 5.0, 0.05)
    rate.refused(now, now - 0.01, 0.0)
    rates = []
    for _ in range(40):
        now = steady(rate, now, 1.0, 0.05)
        rates.append(rate.rate)
    assert rates == sorted(rates)
    assert rates[8] == pytest.approx(20, rel=0.1)
    assert rates[10] == pytest.approx(20, rel=0.1)
    assert rates[-1] > 60


def test_time_without_traffic_does_not_raise_the_rate() -> None:
    """An hour of silence proves nothing about the limit."""
    rate = AdaptiveRate()
    rate.refused(100.0, 99.9, 0.0)
    rate.accepted(3700.0)
    assert rate.rate == pytest.approx(1.6)
    rate.refused(3800.0, 3799.0, 0.0)
    rate.accepted(9999.0)
    assert rate.rate < 0.5


def test_a_slow_rate_grows_with_its_own_turns() -> None:
    """Where a turn takes seconds, those seconds are traffic."""
    rate = AdaptiveRate()
    rate.refused(100.0, 99.0, 0.0)
    rate.refused(200.0, 199.0, 0.0)
    now = 200.0
    for _ in range(8):
        now += 1 / rate.rate
        rate.accepted(now)
    assert now < 240
    assert rate.rate > 1


@pytest.mark.parametrize(("asked", "pause"), [(None, 1.0), (0.0, 0.0), (0.3, 0.3), (60.0, 60.0)])
def test_a_refusal_cools_down(asked: float | None, pause: float) -> None:
    """Nobody leaves before the service's time is up, a second where it says none."""
    rate = AdaptiveRate()
    rate.refused(100.0, 99.9, asked)
    assert rate.delay(100.0) == pytest.approx(pause)
    assert rate.delay(200.0) < 0


def test_a_longer_cool_down_wins() -> None:
    """Of two pauses the one that ends later holds, even if its request left before the cut."""
    rate = AdaptiveRate()
    rate.refused(100.0, 99.9, 5.0)
    rate.refused(100.1, 99.9, 30.0)
    rate.refused(100.2, 99.9, None)
    assert rate.delay(100.2) == pytest.approx(29.9)


def test_what_left_before_the_cut_does_not_cut_again() -> None:
    """Sixty refusals of one burst are one refusal to the rate."""
    rate = AdaptiveRate()
    now = steady(rate, 100.0, 2.0, 0.05)
    rate.refused(now, now - 0.01, 0.0)
    cut = rate.rate
    for n in range(60):
        rate.refused(now + 0.001 * n, now - 0.01, 0.0)
    assert rate.rate == cut
    rate.refused(now + 1, now + 0.5, 0.0)
    assert rate.rate < cut


def test_the_rate_never_ends() -> None:
    """However often it is cut, a request every few seconds still goes."""
    rate = AdaptiveRate()
    for n in range(100):
        rate.refused(100.0 + n, 99.9 + n, 0.0)
    assert rate.rate == pytest.approx(0.16)


@pytest.mark.parametrize("ceiling", [0.01, 5.0, 100.0])
def test_a_ceiling_limits_what_is_learned(ceiling: float) -> None:
    """Neither success nor a refusal lifts the rate above the ceiling."""
    rate = AdaptiveRate(ceiling)
    assert rate.rate == ceiling
    now = steady(rate, 100.0, 3.0, 0.01)
    rate.refused(now, now - 0.005, 0.0)
    assert rate.rate <= max(0.8 * ceiling, min(0.2, ceiling))
    steady(rate, now, 60.0, 0.01)
    assert rate.rate == ceiling


def test_turns_are_spaced_evenly() -> None:
    """One request, then the next as long after as the rate says."""
    rate = AdaptiveRate(10.0)
    assert rate.delay(100.0) <= 0
    rate.leave(100.0)
    assert rate.delay(100.0) == pytest.approx(0.1)
    rate.leave(100.1)
    assert rate.delay(100.1) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("late", "delay"), [(0.0, 0.1), (0.009, 0.091), (0.02, 0.1), (3600.0, 0.1)]
)
def test_a_timers_lateness_is_made_up_for(late: float, delay: float) -> None:
    """A turn taken a little late does not push the next ones back; idle time is not saved up."""
    rate = AdaptiveRate(10.0)
    rate.leave(100.0)
    rate.leave(100.1 + late)
    assert rate.delay(100.1 + late) == pytest.approx(delay)


@given(
    st.floats(0.1, 5000),
    st.lists(st.floats(0, 0.05) | st.floats(0, 30), min_size=1, max_size=80),
)
@settings(deadline=None)
def test_the_ceiling_holds_over_any_time(ceiling: float, pauses: list[float]) -> None:
    rate = AdaptiveRate(ceiling)
    now, left = 1000.0, []
    for pause in pauses:
        now += pause
        now += max(0.0, rate.delay(now))
        rate.leave(now)
        left.append(now)
    for first, last in itertools.combinations(range(len(left)), 2):
        span = left[last] - left[first]
        assert last - first <= ceiling * (span + 0.01) * (1 + 1e-9) + 1e-6 + 1


# The gate, with a clock that only sleeping moves --------------------------------------------


@attrs.define
class Gate:
    """A pace with a clock of its own: sleepers wake when the test lets time pass."""

    slots: int
    max_rate: float | None = None
    now: float = 1000.0
    sleepers: list[tuple[float, asyncio.Future[None]]] = attrs.field(factory=list)
    went: list[int] = attrs.field(factory=list[int])
    peak: int = 0
    throttle: Throttle = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Make the pace."""
        self.throttle = Throttle(
            self.slots, self.max_rate, clock=lambda: self.now, sleep=self.sleep
        )

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock has moved on."""
        assert seconds > 0
        wakes = asyncio.get_running_loop().create_future()
        self.sleepers.append((self.now + seconds, wakes))
        await wakes

    async def turn(self, times: int = 50) -> None:
        """Let the loop turn."""
        for _ in range(times):
            await asyncio.sleep(0)

    async def advance(self, seconds: float) -> None:
        """Let time pass, and whoever it wakes run."""
        end = self.now + seconds
        while due := [moment for moment, _ in self.sleepers if moment <= end]:
            self.now = min(due)
            for sleeper in [each for each in self.sleepers if each[0] <= self.now]:
                self.sleepers.remove(sleeper)
                if not sleeper[1].done():
                    sleeper[1].set_result(None)
            await self.turn()
        self.now = end
        await self.turn()

    async def finish(self, *callers: asyncio.Future[Any]) -> None:
        """Let time pass until all *callers* are done."""
        limit = self.now + 1000
        while not all(caller.done() for caller in callers):
            assert self.now < limit
            await self.advance(1.0)
        await asyncio.gather(*callers, return_exceptions=True)

    async def exchange(self, number: int, *, shaped: bool = True) -> None:
        """Hold a slot for a few turns of the loop."""
        await self.throttle.acquire(shaped=shaped)
        try:
            self.went.append(number)
            self.peak = max(self.peak, self.throttle.in_flight)
            await asyncio.sleep(0)
        finally:
            self.throttle.release()

    def idle(self) -> bool:
        """Tell whether nothing is held and nobody waits."""
        counters = (self.throttle.waiting, self.throttle.in_flight)
        return counters == (0, 0) and self.throttle._slots._free == self.slots


@pytest.mark.parametrize("slots", [1, 7, 64])
async def test_slots_are_first_in_first_out(slots: int) -> None:
    """A thousand callers go in order, and never more at once than there are slots."""
    gate = Gate(slots)
    await asyncio.gather(*map(gate.exchange, range(1000)))
    assert gate.went == list(range(1000))
    assert gate.peak == slots
    assert gate.idle()


@pytest.mark.parametrize("slots", [1, 7, 64])
async def test_turns_are_first_in_first_out(slots: int) -> None:
    """A thousand callers keep their order under a rate, and leave as it says."""
    gate = Gate(slots, max_rate=10.0)
    everyone = asyncio.gather(*map(gate.exchange, range(1000)))
    await gate.turn(5000)
    assert gate.went == [0]
    await gate.advance(10.0)
    assert len(gate.went) == pytest.approx(101, abs=1)
    await gate.finish(everyone)
    assert gate.went == list(range(1000))
    assert gate.peak == 1
    assert gate.idle()


async def test_the_order_holds_when_a_rate_is_learned() -> None:
    """Who queued before the first refusal still goes before who came after it."""
    gate = Gate(2)
    held = [await gate.throttle.acquire() for _ in range(2)]
    early = [asyncio.ensure_future(gate.exchange(n)) for n in range(5)]
    await gate.turn()
    gate.throttle.refused(held[0], 0.0)
    late = [asyncio.ensure_future(gate.exchange(n)) for n in range(5, 10)]
    await gate.turn()
    for _ in held:
        gate.throttle.release()
    await gate.turn()
    await gate.finish(*early, *late)
    assert gate.went == list(range(10))
    assert gate.idle()


async def test_the_time_of_leaving_is_returned() -> None:
    """A caller learns when its exchange began, so that a refusal can be dated."""
    gate = Gate(2, max_rate=1.0)
    assert await gate.throttle.acquire() == 1000.0
    second = asyncio.ensure_future(gate.throttle.acquire())
    await gate.turn()
    await gate.advance(5.0)
    assert await second == 1001.0


async def test_the_counters_tell_who_waits_and_who_is_off() -> None:
    """Whoever waits for a slot or a turn is waiting, and whoever has both is in flight."""
    gate = Gate(2, max_rate=1.0)
    callers = [asyncio.ensure_future(gate.throttle.acquire()) for _ in range(5)]
    seen = []
    for _ in range(4):
        await gate.turn()
        seen.append((gate.throttle.waiting, gate.throttle.in_flight))
        await gate.advance(1.0)
    assert seen == [(4, 1), (3, 2), (3, 2), (3, 2)]
    for _ in range(3):
        gate.throttle.release()
        await gate.advance(1.0)
    await asyncio.gather(*callers)
    assert (gate.throttle.waiting, gate.throttle.in_flight) == (0, 2)


async def test_no_slot_is_held_while_the_service_wants_a_pause() -> None:
    """During a cool-down downloads go on, however many requests wait for its end."""
    gate = Gate(2)
    gate.throttle.refused(await gate.throttle.acquire(), 60.0)
    gate.throttle.release()
    waiting = [asyncio.ensure_future(gate.exchange(n)) for n in range(10)]
    await gate.turn()
    assert gate.throttle.waiting == 10
    await asyncio.gather(*(gate.exchange(n, shaped=False) for n in range(100, 110)))
    assert gate.went == list(range(100, 110))
    await gate.advance(59.9)
    assert len(gate.went) == 10
    await gate.finish(*waiting)
    assert gate.went[10:] == list(range(10))
    assert gate.idle()


async def test_what_is_not_shaped_needs_only_a_slot() -> None:
    """A rate does not apply to what goes to other hosts."""
    gate = Gate(3, max_rate=0.001)
    await asyncio.gather(*(gate.exchange(n, shaped=False) for n in range(50)))
    assert gate.went == list(range(50))
    assert gate.peak == 3
    assert gate.idle()


async def test_a_pause_that_grows_is_slept_to_its_end() -> None:
    """Whoever wakes into a longer cool-down sleeps on."""
    gate = Gate(2)
    left_at = await gate.throttle.acquire()
    gate.throttle.refused(left_at, 5.0)
    waiting = asyncio.ensure_future(gate.exchange(1))
    await gate.turn()
    await gate.advance(4.0)
    gate.throttle.refused(left_at, 10.0)
    await gate.advance(9.9)
    assert not waiting.done()
    await gate.advance(0.2)
    await waiting


async def test_what_was_not_taken_cannot_be_given_back() -> None:
    """A release too many is a mistake of ours, and never makes one slot more."""
    gate = Gate(1)
    await gate.exchange(1)
    with pytest.raises(RuntimeError, match="nobody had taken"):
        gate.throttle.release()
    assert gate.throttle._slots._free == 1


async def test_the_rate_is_told() -> None:
    """None is no limit; a refusal sets one, and the clock dates what is accepted."""
    gate = Gate(2)
    assert gate.throttle.rate is None
    assert Gate(2, max_rate=2.5).throttle.rate == 2.5
    gate.throttle.refused(gate.now - 1, None)
    assert gate.throttle.rate == 0.8
    gate.now += 1.0
    gate.throttle.accepted()
    assert gate.throttle.rate == 1.6


@pytest.mark.parametrize("asleep", [False, True], ids=["slot", "turn"])
@pytest.mark.parametrize("victims", [[3], [0], [9], [0, 1, 2, 3], [1, 3, 5, 7, 9], list(range(10))])
async def test_a_cancelled_caller_leaks_nothing(victims: list[int], *, asleep: bool) -> None:
    gate = Gate(2 if asleep else 1, 1.0)
    await gate.throttle.acquire()
    callers = [asyncio.ensure_future(gate.exchange(n)) for n in range(10)]
    await gate.turn()
    assert len(gate.sleepers) == asleep
    for n in victims:
        callers[n].cancel()
    await gate.turn()
    assert gate.throttle.waiting == 10 - len(victims)
    gate.throttle.release()
    await gate.finish(*callers)
    assert gate.went == [n for n in range(10) if n not in victims]
    assert [caller.cancelled() for caller in callers] == [n in victims for n in range(10)]
    assert gate.idle()


@pytest.mark.parametrize("asleep", [False, True], ids=["slot", "turn"])
@pytest.mark.parametrize("steps", range(8))
async def test_a_caller_cancelled_at_any_step_leaks_nothing(steps: int, *, asleep: bool) -> None:
    """Cancelled while its slot or turn is just being given to it, a caller gives it back."""
    gate = Gate(1, 1.0 if asleep else None)
    await gate.throttle.acquire()
    callers = [asyncio.ensure_future(gate.exchange(n)) for n in range(3)]
    await gate.turn()
    gate.throttle.release()
    if asleep:
        await gate.turn()
        moment, wakes = gate.sleepers.pop()
        gate.now = moment
        wakes.set_result(None)
    await gate.turn(steps)
    callers[0].cancel()
    await gate.turn()
    await gate.finish(*callers)
    assert gate.went[-2:] == [1, 2]
    assert gate.idle()


async def test_a_real_pace_needs_no_clock() -> None:
    """With the loop's own time a rate is kept, too."""
    throttle = Throttle(2, 1000.0)
    moments = []
    for _ in range(3):
        moments.append(await throttle.acquire())
        throttle.release()
    assert moments == sorted(moments)
