"""When to look: soon after a task has ended, and seldom before."""

import itertools
import random
import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aireiter_async._poll import Durations, Expectation, PollPolicy

DEFAULT = PollPolicy()
STEADY = PollPolicy(jitter=0)
LEARNED = Expectation(100.0, learned=True)
GUESSED = Expectation(4.0)


def looks(
    policy: PollPolicy,
    expected: Expectation,
    count: int,
    *,
    elapsed: float = 0.0,
    uniform: float = 0.5,
) -> list[float]:
    """Return the waits before the first *count* polls."""
    waits = policy.waits(expected, elapsed, lambda: uniform)
    return [next(waits) for _ in range(count)]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"first": -1}, ValueError, "first must be a finite number, at least 0, got -1"),
        ({"first": "1"}, TypeError, "first must be a number, got str"),
        ({"step": float("inf")}, ValueError, "step must be a finite number"),
        ({"growth": 0.99}, ValueError, "growth must be at least 1, got 0.99"),
        ({"growth": None}, TypeError, "growth must be a number, got NoneType"),
        ({"cap": -1}, ValueError, "cap must be a finite number"),
        ({"jitter": 1.01}, ValueError, "jitter must be from 0 to 1, got 1.01"),
        ({"jitter": -0.1}, ValueError, "jitter must be a finite number, at least 0"),
        ({"grace": float("nan")}, ValueError, "grace must be a finite number"),
    ],
)
def test_a_policy_is_checked(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    """Each argument is named with what it may be."""
    with pytest.raises(error, match=f"^{message}"):
        PollPolicy(**arguments)


@pytest.mark.parametrize(
    ("policy", "expected", "elapsed", "seconds"),
    [
        (STEADY, LEARNED, 0.0, [150.0, 32.0, 41.6, 54.08]),
        (STEADY, LEARNED, 500.0, [0.0, 32.0]),
        (STEADY, GUESSED, 0.0, [16.0, 16.0, 32.0, 64.0, 128.0, 240.0, 240.0]),
        (PollPolicy(jitter=0, first=7, step=3, growth=1), LEARNED, 0.0, [28.0, 12.0, 12.0]),
        (PollPolicy(jitter=0, first=0, step=0), GUESSED, 0.0, [0.0, 0.0]),
    ],
)
def test_with_a_callback_to_come_polls_are_rare(
    policy: PollPolicy, expected: Expectation, elapsed: float, seconds: list[float]
) -> None:
    waits = policy.waits(expected, elapsed, lambda: 0.5, sparse=True)
    assert [next(waits) for _ in seconds] == pytest.approx(seconds)


def test_a_policy_is_a_value() -> None:
    """Policies compare and hash by what they hold, and take names only."""
    policy = PollPolicy(first=None, step=None, growth=1.3, cap=60.0, jitter=0.1, grace=10.0)
    assert {policy, DEFAULT} == {DEFAULT}
    with pytest.raises(TypeError):
        PollPolicy(1.0)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("policy", "expected", "elapsed", "seconds"),
    [
        (STEADY, LEARNED, 0.0, [85.0, 8.0, 10.4, 13.52, 17.576]),
        (STEADY, LEARNED, 80.0, [5.0, 8.0, 10.4, 13.52, 17.576]),
        (STEADY, LEARNED, 500.0, [0.0, 8.0, 10.4, 13.52, 17.576]),
        (STEADY, LEARNED, float("inf"), [0.0, 8.0, 10.4]),
        (STEADY, Expectation(0.5, learned=True), 0.0, [0.425, 0.25, 0.325]),
        (STEADY, Expectation(0.0, learned=True), 0.0, [0.0, 0.25, 0.325]),
        (STEADY, GUESSED, 0.0, [4.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]),
        (STEADY, GUESSED, 3.0, [1.0, 4.0, 8.0, 16.0]),
        (PollPolicy(jitter=0, first=7), LEARNED, 0.0, [7.0, 8.0, 10.4]),
        (PollPolicy(jitter=0, first=7), GUESSED, 5.0, [2.0, 4.0, 8.0]),
        (PollPolicy(jitter=0, step=3), LEARNED, 0.0, [85.0, 3.0, 3.9, 5.07]),
        (PollPolicy(jitter=0, step=3, growth=1), GUESSED, 0.0, [4.0, 3.0, 3.0, 3.0]),
        (PollPolicy(jitter=0, growth=3), GUESSED, 0.0, [4.0, 4.0, 12.0, 36.0, 60.0]),
        (PollPolicy(jitter=0, cap=5), GUESSED, 0.0, [4.0, 4.0, 5.0, 5.0]),
        (PollPolicy(jitter=0, cap=5), LEARNED, 0.0, [85.0, 5.0, 5.0]),
        (PollPolicy(first=0, step=0, cap=0), LEARNED, 0.0, [0.0] * 5),
        (PollPolicy(jitter=0, growth=1e308), GUESSED, 0.0, [4.0, 4.0, 60.0, 60.0]),
    ],
)
def test_looks_come_when_the_end_is_likely(
    policy: PollPolicy, expected: Expectation, elapsed: float, seconds: list[float]
) -> None:
    """The first poll is a little before the expected end, and the steps grow up to the cap."""
    assert looks(policy, expected, len(seconds), elapsed=elapsed) == pytest.approx(seconds)


@pytest.mark.parametrize(("uniform", "factor"), [(0.0, 0.9), (0.5, 1.0), (0.999, 1.0998)])
def test_jitter_spreads_each_wait(uniform: float, factor: float) -> None:
    """A wait is up to *jitter* shorter or longer, so that no two tasks keep step."""
    steady = looks(STEADY, LEARNED, 6)
    assert looks(DEFAULT, LEARNED, 6, uniform=uniform) == pytest.approx(
        [wait * factor for wait in steady]
    )


def test_a_policy_draws_its_own_jitter() -> None:
    """Two waits of one policy are not the same, and a task counts as new unless told otherwise."""
    first, second = next(DEFAULT.waits(LEARNED)), next(DEFAULT.waits(LEARNED))
    assert first != second
    assert (first, second) == pytest.approx((85, 85), rel=0.1)
    assert next(STEADY.waits(LEARNED)) == 85


@given(
    st.builds(
        PollPolicy,
        first=st.none() | st.floats(0, 1e6),
        step=st.none() | st.floats(0, 1e6),
        growth=st.floats(1, 1e308),
        cap=st.floats(0, 1e6),
        jitter=st.floats(0, 1),
    ),
    st.builds(Expectation, st.floats(0, 1e7), learned=st.booleans()),
    st.floats(0) | st.just(float("inf")),
    st.randoms(use_true_random=False),
)
def test_waits_are_within_their_bounds(
    policy: PollPolicy,
    expected: Expectation,
    elapsed: float,
    dice: random.Random,
) -> None:
    """No wait is longer than the cap and its jitter allow."""
    waits = policy.waits(expected, elapsed, dice.random)
    first = expected.seconds if policy.first is None else policy.first
    assert 0 <= next(waits) <= first * (1 + policy.jitter)
    for wait in itertools.islice(waits, 60):
        assert 0 <= wait <= policy.cap * (1 + policy.jitter)


def simulate(seconds: float, expected: Expectation, seed: int) -> tuple[float, float]:
    """Wait for a thousand tasks that take *seconds*, a fifth more or less.

    Returns:
        How often a task was looked for on average, and after which share of its
        duration its end was noticed: the median.
    """
    dice = random.Random(seed)  # noqa: S311 - a simulation
    counts, delays = [], []
    for _ in range(1000):
        duration = seconds * dice.uniform(0.8, 1.2)
        now, count = 0.0, 0
        waits = DEFAULT.waits(expected, 0.0, dice.random)
        while now < duration:
            now += next(waits)
            count += 1
        counts.append(count)
        delays.append((now - duration) / duration)
    return statistics.mean(counts), statistics.median(delays)


@pytest.mark.parametrize("seconds", [8.0, 120.0, 1200.0])
def test_few_looks_notice_an_end_soon(seconds: float) -> None:
    """With durations learned, about six polls notice an end within a tenth of the duration."""
    count, delay = simulate(seconds, Expectation(seconds, learned=True), 1)
    assert count <= 6
    assert delay <= 0.1


@pytest.mark.parametrize(
    ("seconds", "medium", "most"), [(8.0, "image", 5), (120.0, "video", 8), (1200.0, "video", 26)]
)
def test_without_experience_looks_stay_few(seconds: float, medium: str, most: float) -> None:
    """While nothing has been learned, the steps double up to the cap."""
    count, delay = simulate(seconds, Durations().expect("veo3_1", medium), 1)
    assert count <= most
    assert delay <= 0.5


@pytest.mark.parametrize(
    ("medium", "seconds"),
    [("image", 2.0), ("video", 8.0), ("audio", 3.0), ("text", 1.0), (None, 2.0), ("smell", 2.0)],
)
def test_an_unknown_model_is_guessed_by_its_medium(medium: str | None, seconds: float) -> None:
    """Images and videos start from different guesses."""
    for model in ("veo3_1", None):
        assert Durations().expect(model, medium) == Expectation(seconds, learned=False)


def test_durations_are_learned_per_model() -> None:
    """The first duration is taken as it is, later ones move the average by a fifth."""
    durations = Durations()
    durations.learn("veo3_1", 100.0)
    durations.learn("gpt_4o", 10.0)
    assert durations.expect("veo3_1", "video") == Expectation(100.0, learned=True)
    durations.learn("veo3_1", 200.0)
    assert durations.expect("veo3_1", "video") == Expectation(120.0, learned=True)
    assert durations.expect("gpt_4o", None) == Expectation(10.0, learned=True)
    assert not durations.expect(None, "video").learned


def test_a_duration_of_zero_was_learned() -> None:
    """Nothing is not the same as not known."""
    durations = Durations()
    durations.learn("m", 0.0)
    assert durations.expect("m", "video") == Expectation(0.0, learned=True)


def test_the_average_follows_a_change() -> None:
    """After twenty tasks the average is where the durations are."""
    durations = Durations()
    for seconds in [100.0] * 20 + [10.0] * 20:
        durations.learn("m", seconds)
    assert durations.expect("m", None).seconds == pytest.approx(10, rel=0.15)


def test_what_does_not_fit_is_forgotten() -> None:
    durations = Durations()
    durations.learn("m", 100.0)
    durations.learn("m", 1000.0)  # an outlier counts as no more than twice the average
    assert durations.expect("m", None).seconds == pytest.approx(120)
    durations.learn("m", 30.0)
    assert durations.expect("m", None).seconds == 30


@pytest.mark.parametrize(
    ("waited", "by_service", "from_start", "learned"),
    [
        (10.0, 8.0, True, 8.0),
        (10.0, None, True, 10.0),
        (10.0, 3600.0, True, 10.0),  # in two time zones
        (10.0, -3600.0, True, 10.0),
        (10.0, float("inf"), True, 10.0),
        (10.0, 12.0, False, 10.0),  # another call's task: it ran before this wait
        (10.0, 8.0, False, 8.0),
        (10.0, 3600.0, False, None),
        (10.0, None, False, None),
    ],
)
def test_durations_are_bounded_by_what_was_observed(
    waited: float, by_service: float | None, learned: float | None, *, from_start: bool
) -> None:
    durations = Durations()
    durations.observe("m", waited, by_service, from_start=from_start)
    expected = durations.expect("m", None)
    assert (expected.seconds if expected.learned else None) == learned


def test_memory_is_bounded() -> None:
    """Of many models only the thousand that were seen last are remembered."""
    durations = Durations()
    for n in range(3000):
        durations.learn(f"model_{n}", float(n))
        durations.learn("often", 5.0)
    assert len(durations._seconds) == 1000
    assert durations.expect("often", None).learned
    assert durations.expect("model_2999", None).learned
    assert not durations.expect("model_2000", None).learned
