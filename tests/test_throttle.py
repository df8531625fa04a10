"""The throttle: slots first in, first out, and a rate that finds what the service accepts."""

import asyncio
import itertools
import math
from collections.abc import Callable
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aireiter_async._throttle import AdaptiveRate, Slots, Throttle
from benchmarks.rate import (
    SCENARIOS,
    Botocore,
    Bucket,
    Busy,
    FixedWindow,
    Ours,
    Scenario,
    Service,
    batch,
    dice,
    fixed,
    openai,
)

# Against services, in virtual time -------------------------------------------------------


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_a_batch_takes_little_longer_than_it_must(scenario: Scenario) -> None:
    result = batch(Ours(), scenario.make(), scenario.tasks)
    assert result.seconds <= scenario.most * scenario.ideal
    assert result.failed == scenario.failed


@pytest.mark.parametrize("latency", [0.01, 0.2, 1.0])
@pytest.mark.parametrize("tells", [True, False])
@pytest.mark.parametrize("burst", [1, 5, 20])
def test_a_strict_limit_is_found_at_any_latency(burst: int, latency: float, *, tells: bool) -> None:
    service = Bucket(burst=burst, latency=latency, tells=tells)
    result = batch(Ours(), service, 600)
    # What comes late teaches late: the rate takes some responses to settle.
    assert result.seconds <= 1.35 * (600 - burst) / 20 + 6 * latency
    assert result.failed == 0
    late = [ok for moment, ok in service.responses if moment > 15]
    assert late.count(False) < 0.25 * len(late)


@pytest.mark.parametrize("burst", [1, 3])
@pytest.mark.parametrize(("limit", "tasks"), [(0.5, 30), (5, 200), (60, 1000)])
def test_any_limit_is_found(limit: float, tasks: int, burst: int) -> None:
    """The first rejections of a slow service take a large part of a small batch."""
    result = batch(Ours(), Bucket(limit=limit, burst=burst), tasks)
    assert result.seconds <= 1.35 * tasks / limit + 20
    assert result.failed == 0


@pytest.mark.parametrize("latency", [0.05, 1.0])
@pytest.mark.parametrize(("share", "most"), [(0.005, 2.0), (0.03, 3.0), (0.1, 10.0), (0.2, 20.0)])
@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.soak)])
def test_random_rejections_are_no_limit(
    share: float, most: float, latency: float, seed: int
) -> None:
    """Cases 60 and 61: a service that is busy now and then slows a batch down, not to a crawl."""
    tasks = int(64 / latency * 5)
    service = Busy(share=share, latency=latency, draw=dice(seed))
    result = batch(Ours(seed), service, tasks)
    assert result.seconds <= most * 5


def test_random_rejections_hide_no_limit() -> None:
    """A busy service that has a limit as well: the limit is found."""

    @attrs.define(kw_only=True)
    class Both(Bucket):
        busy: Busy

        def rejects(self, now: float) -> float | None:
            return self.busy.rejects(now) or super().rejects(now)

    service = Both(busy=Busy(share=0.05))
    assert batch(Ours(), service, 800).seconds < 1.35 * 40
    late = [ok for moment, ok in service.responses if moment > 10]
    assert late.count(False) < 0.2 * len(late)


@pytest.mark.parametrize(("limit", "then"), [(80, 20), (20, 80), (100, 10), (10, 100)])
def test_a_limit_that_changes_is_found_within_ten_seconds(limit: float, then: float) -> None:
    service = Bucket(limit=limit, then=then, changes_at=15.0)
    batch(Ours(), service, int(15 * limit + 20 * then))
    found = [ok for moment, ok in service.responses if 25 <= moment < 30]
    assert found.count(True) >= 0.9 * 5 * then
    assert found.count(False) <= 0.15 * len(found)


def test_nothing_but_rejections_pauses_the_client() -> None:
    """Without a word from the service it tries a few times a minute, and resumes at once."""
    service = Busy(share=1.0, since=1.0, until=60.0, tells=False)
    result = batch(Ours(), service, 2000)
    assert 60 < result.seconds < 70
    assert sum(moment > 2 for moment, ok in service.responses if not ok) < 30
    assert result.failed == 0


def test_a_pause_is_as_long_as_the_service_says() -> None:
    service = FixedWindow(limit=10, span=60.0)
    batch(Ours(), service, 30)
    assert all(moment % 60 < 5 for moment, _ in service.responses)


@pytest.mark.parametrize("client", [openai, Botocore, fixed])
def test_the_models_of_other_clients_wait_and_give_up(client: Callable[[], Any]) -> None:
    assert batch(client(), Service(), 10) == batch(Ours(), Service(), 10)
    result = batch(client(), Busy(share=1.0), 10)
    assert result.failed == 10
    assert result.seconds > 1
    assert batch(client(), Bucket(tells=False), 100).rejected > 10


# The rate, call by call ------------------------------------------------------------------


def steady(rate: AdaptiveRate, now: float, seconds: float, every: float) -> float:
    """Let a request be accepted *every* so many seconds, and return the time after *seconds*."""
    end = now + seconds
    while now < end:
        rate.note_sent(now)
        sent_at, now = now, now + every
        rate.accepted(sent_at, now)
    return now


def reject(rate: AdaptiveRate, now: float, times: int, retry_after: float | None = None) -> None:
    """Let requests that have just been sent be rejected."""
    for _ in range(times):
        rate.rejected(now - 0.001, now, retry_after)


def test_two_rejections_change_nothing() -> None:
    rate = AdaptiveRate()
    reject(rate, 100.0, 2, 60.0)
    assert (rate.limited, rate.rate, rate.delay(100.0)) == (False, math.inf, -math.inf)


def test_a_share_of_rejections_cuts_to_what_was_accepted() -> None:
    rate = AdaptiveRate()
    now = steady(rate, 100.0, 3.0, 0.1)
    reject(rate, now, 4)
    assert rate.rate == pytest.approx(0.85 * 10, rel=0.2)
    assert rate.limited


def test_what_was_accepted_before_a_silence_does_not_count() -> None:
    rate = AdaptiveRate()
    now = steady(rate, 100.0, 3.0, 0.02) + 5.0
    reject(rate, now, 3)
    assert rate.rate == 0.85


def test_a_first_cut_is_undone_within_seconds() -> None:
    """After one cut the limit is unknown: the rate doubles every second, up to no limit."""
    rate = AdaptiveRate()
    reject(rate, 100.0, 3)
    now = steady(rate, 100.0, 4.0, 0.25)
    assert rate.rate == pytest.approx(0.85 * 2**4)
    steady(rate, now, 10.0, 0.25)
    assert (rate.rate, rate.limited) == (math.inf, False)


def test_after_a_second_cut_the_rate_grows_along_the_curve() -> None:
    rate = AdaptiveRate()
    reject(rate, 100.0, 3)
    now = steady(rate, 100.0, 5.0, 0.05)
    reject(rate, now, 5)
    rates = []
    for _ in range(10):
        now = steady(rate, now, 1.0, 0.05)
        rates.append(rate.rate)
    good = rates[1]
    assert rates == sorted(rates)
    assert rates[0] < good == pytest.approx(rates[2], rel=0.03)
    assert rates[-1] > 4 * good


def test_time_without_traffic_does_not_raise_the_rate() -> None:
    """An hour of silence proves nothing about the limit."""
    rate = AdaptiveRate()
    reject(rate, 100.0, 3)
    rate.accepted(3699.9, 3700.0)
    assert rate.rate < 0.85 * 2.5


def test_a_rejection_sent_before_the_cut_does_not_cut_again() -> None:
    rate = AdaptiveRate()
    now = steady(rate, 100.0, 2.0, 0.05)
    reject(rate, now, 5)
    cut = rate.rate
    for n in range(60):
        rate.rejected(now - 0.01, now + 0.001 * n, None)
        rate.accepted(now - 0.01, now + 0.001 * n)
    assert rate.rate == cut
    reject(rate, now + 1, 10)
    assert rate.rate < cut


def test_the_rate_never_ends() -> None:
    """However often it is cut, a request every few seconds still leaves."""
    rate = AdaptiveRate()
    for n in range(100):
        rate.accepted(100.0 + n, 100.0 + n)
        reject(rate, 100.5 + n, 20)
    assert rate.rate == pytest.approx(0.17)


@pytest.mark.parametrize(("retry_after", "pause"), [(None, 1.0), (0.0, 1.0), (0.3, 0.3), (60, 60)])
def test_five_rejections_in_a_row_pause_everybody(retry_after: float | None, pause: float) -> None:
    rate = AdaptiveRate()
    reject(rate, 100.0, 4, retry_after)
    assert rate.delay(100.0) <= 0
    reject(rate, 100.0, 1, retry_after)
    assert rate.delay(100.0) == pytest.approx(pause)


def test_the_longest_of_several_pauses_counts() -> None:
    rate = AdaptiveRate()
    for retry_after in (None, None, None, None, 5.0, 30.0, None):
        rate.rejected(99.9, 100.0, retry_after)
    assert rate.delay(100.0) == pytest.approx(30.0)


def test_requests_leave_one_by_one_after_a_pause_until_one_is_accepted() -> None:
    rate = AdaptiveRate()
    reject(rate, 100.0, 5)
    now, pauses = 100.0, []
    for _ in range(6):
        now += rate.delay(now)
        rate.note_sent(now)
        assert rate.delay(now) > 0
        rate.rejected(now, now + 0.1, None)
        now += 0.1
        pauses.append(rate.delay(now))
    assert pauses == pytest.approx([1.5, 2.25, 3.375, 5.0, 5.0, 5.0])
    now += rate.delay(now)
    rate.note_sent(now)
    rate.accepted(now, now + 0.1)
    assert rate.delay(now + 1.2) <= 0


@pytest.mark.parametrize("ceiling", [0.01, 5.0, 100.0])
def test_a_ceiling_limits_what_is_learned(ceiling: float) -> None:
    rate = AdaptiveRate(ceiling)
    assert (rate.rate, rate.limited) == (ceiling, True)
    now = steady(rate, 100.0, 3.0, 0.01)
    reject(rate, now, 100)
    assert rate.rate <= ceiling
    steady(rate, now, 60.0, 0.01)
    assert (rate.rate, rate.limited) == (ceiling, True)


def test_requests_are_spaced_evenly() -> None:
    rate = AdaptiveRate(10.0)
    assert rate.delay(100.0) <= 0
    rate.note_sent(100.0)
    assert rate.delay(100.0) == pytest.approx(0.1)
    rate.note_sent(100.1)
    assert rate.delay(100.1) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("late", "delay"), [(0.0, 0.1), (0.009, 0.091), (0.02, 0.1), (3600.0, 0.1)]
)
def test_a_late_timer_is_made_up_for(late: float, delay: float) -> None:
    """A request sent a little late does not delay the next ones; idle time is not saved up."""
    rate = AdaptiveRate(10.0)
    rate.note_sent(100.0)
    rate.note_sent(100.1 + late)
    assert rate.delay(100.1 + late) == pytest.approx(delay)


@given(
    st.floats(0.1, 5000),
    st.lists(st.floats(0, 0.05) | st.floats(0, 30), min_size=1, max_size=80),
)
def test_the_ceiling_holds_over_any_time(ceiling: float, pauses: list[float]) -> None:
    """Over any span the rate holds, but for one request and a timer's lateness."""
    rate = AdaptiveRate(ceiling)
    now, left = 1000.0, []
    for pause in pauses:
        now += pause
        now += max(0.0, rate.delay(now))
        rate.note_sent(now)
        left.append(now)
    for first, last in itertools.combinations(range(len(left)), 2):
        span = left[last] - left[first]
        assert last - first <= ceiling * (span + 0.01) * (1 + 1e-9) + 1e-6 + 1


# The throttle, with a clock that only sleeping moves --------------------------------------------


@attrs.define
class Gate:
    """A throttle with a clock of its own: sleepers wake when the test lets time pass."""

    slots: int
    max_rate: float | None = None
    now: float = 1000.0
    sleepers: list[tuple[float, asyncio.Future[None]]] = attrs.field(factory=list)
    went: list[int] = attrs.field(factory=list[int])
    peak: int = 0
    throttle: Throttle = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
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

    async def exchange(self, number: int) -> None:
        """Hold a slot for a few turns of the loop."""
        await self.throttle.acquire()
        try:
            self.went.append(number)
            self.peak = max(self.peak, self.throttle.in_flight)
            await asyncio.sleep(0)
        finally:
            self.throttle.release()

    def reject(self, sent_at: float, retry_after: float, times: int = 5) -> None:
        """Let the service reject as many as it takes to pause all requests."""
        for _ in range(times):
            self.throttle.rejected(sent_at, retry_after)

    def idle(self) -> bool:
        """Tell whether nothing is held and nobody waits."""
        counters = (self.throttle.waiting, self.throttle.in_flight)
        return counters == (0, 0) and self.throttle._slots.free == self.slots


@pytest.mark.parametrize("slots", [1, 7, 64])
async def test_slots_are_first_in_first_out(slots: int) -> None:
    """A thousand callers go in order, and never more at once than there are slots."""
    gate = Gate(slots)
    await asyncio.gather(*map(gate.exchange, range(1000)))
    assert gate.went == list(range(1000))
    assert gate.peak == slots
    assert gate.idle()


@pytest.mark.parametrize("slots", [1, 64])
async def test_a_rate_is_first_in_first_out(slots: int) -> None:
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
    """Who queued before the first rejection still goes before who came after it."""
    gate = Gate(2)
    held = [await gate.throttle.acquire() for _ in range(2)]
    early = [asyncio.ensure_future(gate.exchange(n)) for n in range(5)]
    await gate.turn()
    gate.reject(held[0], 0.3)
    late = [asyncio.ensure_future(gate.exchange(n)) for n in range(5, 10)]
    await gate.turn()
    for _ in held:
        gate.throttle.release()
    await gate.turn()
    await gate.finish(*early, *late)
    assert gate.went == list(range(10))
    assert gate.idle()


async def test_the_time_of_admission_is_returned() -> None:
    """A caller learns when its exchange began, so that a rejection can be dated."""
    gate = Gate(2, max_rate=1.0)
    assert await gate.throttle.acquire() == 1000.0
    second = asyncio.ensure_future(gate.throttle.acquire())
    await gate.turn()
    await gate.advance(5.0)
    assert await second == 1001.0


async def test_the_counters_show_who_waits_and_who_is_in_flight() -> None:
    """Whoever waits for a slot or the rate is waiting, then in flight."""
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
    gate = Gate(2)
    gate.reject(await gate.throttle.acquire(), 60.0)
    gate.throttle.release()
    waiting = [asyncio.ensure_future(gate.exchange(n)) for n in range(10)]
    await gate.turn()
    assert (gate.throttle.waiting, gate.throttle._slots.taken) == (10, 0)
    await gate.advance(59.9)
    assert gate.went == []
    await gate.finish(*waiting)
    assert gate.went == list(range(10))
    assert gate.idle()


async def test_a_pause_that_grows_is_slept_to_its_end() -> None:
    """Whoever wakes into a longer pause sleeps on."""
    gate = Gate(2)
    sent_at = await gate.throttle.acquire()
    gate.reject(sent_at, 5.0)
    waiting = asyncio.ensure_future(gate.exchange(1))
    await gate.turn()
    await gate.advance(4.0)
    gate.reject(sent_at, 10.0)
    await gate.advance(9.9)
    assert not waiting.done()
    await gate.advance(0.2)
    await waiting


async def test_a_slot_passes_over_a_caller_that_was_just_cancelled() -> None:
    slots = Slots(1)
    await slots.acquire()
    first, second = (asyncio.ensure_future(slots.acquire()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    slots.release()
    await second
    assert first.cancelled()
    assert (slots.taken, slots.waiting) == (1, 0)


async def test_a_slot_that_was_not_taken_cannot_be_released() -> None:
    """A release too many is a mistake of ours, and never makes one slot more."""
    gate = Gate(1)
    await gate.exchange(1)
    with pytest.raises(RuntimeError, match="no slot is taken"):
        gate.throttle.release()
    assert gate.throttle._slots.free == 1


async def test_the_rate_is_shown() -> None:
    """None is no limit; rejections set one, and the clock dates what is accepted."""
    gate = Gate(2)
    assert gate.throttle.rate is None
    assert Gate(2, max_rate=2.5).throttle.rate == 2.5
    gate.reject(gate.now - 1, 0.0, times=3)
    assert gate.throttle.rate == 0.85
    gate.now += 1.0
    gate.throttle.accepted(gate.now)
    assert gate.throttle.rate == 1.7


async def test_a_slot_is_entered_without_waiting_or_not_at_all() -> None:
    gate = Gate(1)
    assert gate.throttle.try_acquire() == gate.now
    assert gate.throttle.in_flight == 1
    assert gate.throttle.try_acquire() is None
    gate.throttle.release()
    gate.reject(gate.now, 5.0)
    assert gate.throttle.try_acquire() is None
    assert Gate(1, max_rate=1.0).throttle.try_acquire() is None


@pytest.mark.parametrize("asleep", [False, True], ids=["slot", "rate"])
@pytest.mark.parametrize("victims", [[3], [0], [9], [0, 1, 2, 3], [1, 3, 5, 7, 9], list(range(10))])
async def test_a_cancelled_caller_leaks_nothing(victims: list[int], *, asleep: bool) -> None:
    """Whoever gives up while waiting leaves the others' order alone."""
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


@pytest.mark.parametrize("asleep", [False, True], ids=["slot", "rate"])
@pytest.mark.parametrize("steps", range(8))
async def test_a_caller_cancelled_at_any_step_leaks_nothing(steps: int, *, asleep: bool) -> None:
    """Cancelled while it is just being admitted, a caller releases its slot."""
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


async def test_the_default_clock_and_sleep_are_the_real_ones() -> None:
    throttle = Throttle(2, 1000.0)
    moments = []
    for _ in range(3):
        moments.append(await throttle.acquire())
        throttle.release()
    assert moments == sorted(moments)
