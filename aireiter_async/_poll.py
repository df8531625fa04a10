"""When to poll: a schedule, which is a generator of seconds, and callbacks that precede it."""

import random
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Protocol

from attrs import field, frozen

from aireiter_async._arguments import at_least_one, not_negative, not_negative_or_none, share

# Seconds to the first poll of a model without a learned duration: images take seconds to tens of
# seconds, videos one to five minutes (https://docs.aireiter.com, and observed). An early poll costs
# the service one cheap exchange, a late one costs the caller time: guess early, then double.
_GUESSES: Final[Mapping[str, float]] = {"image": 2.0, "video": 8.0, "audio": 3.0, "text": 1.0}
_GUESS: Final = 2.0
_GUESS_GROWTH: Final = 2.0
# Of the learned duration: the time to the first poll, and the first step.
_LEARNED_SHARE: Final = 0.85
_STEP_SHARE: Final = 0.08
_SHORTEST_STEP: Final = 0.25  # seconds
# With webhooks, the first poll comes when the callback is late, and further ones are rare.
_OVERDUE_SHARE: Final = 1.5  # of the learned duration
_SPARSER: Final = 4.0  # factor of all other times
_WEIGHT: Final = 0.2  # of a new duration in the moving average
_MAX_MODELS: Final = 1000
_PUBLISHING: Final = 6.0  # times `PollPolicy.grace`


@frozen
class Expectation:
    """How long a task is expected to take.

    Attributes:
        seconds: The learned time from acceptance to end; before a task of the
            model has been seen to end, the time to the first poll.
        learned: Whether a task of the model has been seen to end.
    """

    seconds: float
    learned: bool = False


@frozen(kw_only=True)
class PollPolicy:
    """When `wait` polls a task.

    Where a callback is expected (``webhooks=``), polling is only the fallback: *first*, *step* and
    *cap* are four times as long, and the first poll of a model with a learned duration comes
    after one and a half times that.

    Attributes:
        first: Seconds from the submit to the first poll; None: 0.85 of the
            model's learned duration or, until one is known, 1 to 8 seconds,
            depending on the medium.
        step: Seconds between the first two polls; None: 0.08 of the model's
            learned duration, at least 0.25; until one is known, each step equals
            the time elapsed before it.
        growth: Factor from each step to the next, at least 1.
        cap: Maximum seconds of a step, before jitter.
        jitter: Share, 0 to 1, by which each wait is randomly lengthened or
            shortened, so that tasks submitted together are not polled together.
        grace: Seconds for which "not found" is attributed to a lag of the service.
            A completed task without outputs is polled for six times as long:
            a service may report the end before it publishes the result.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: An argument is out of range.
    """

    first: float | None = field(default=None, validator=not_negative_or_none)
    step: float | None = field(default=None, validator=not_negative_or_none)
    growth: float = field(default=1.3, validator=at_least_one)
    cap: float = field(default=60.0, validator=not_negative)
    jitter: float = field(default=0.1, validator=share)
    grace: float = field(default=10.0, validator=not_negative)

    def waits(
        self,
        expected: Expectation,
        elapsed: float = 0.0,
        uniform: Callable[[], float] = random.random,
        *,
        sparse: bool = False,
    ) -> Iterator[float]:
        """Yield the seconds to wait before each poll.

        Args:
            expected: How long the task is expected to take.
            elapsed: Seconds since the task was submitted.
            uniform: Returns a random number in [0, 1).
            sparse: Whether a callback is expected to come first.
        """
        seconds, growth = expected.seconds, self.growth
        factor = _SPARSER if sparse else 1.0
        if expected.learned:
            first = seconds * (_OVERDUE_SHARE if sparse else _LEARNED_SHARE)
            step = max(_SHORTEST_STEP, seconds * _STEP_SHARE)
        else:
            first, step, growth = seconds * factor, seconds, max(growth, _GUESS_GROWTH)
        if self.first is not None:
            first = self.first * factor
        if self.step is not None:
            step, growth = self.step, self.growth
        step, cap = step * factor, self.cap * factor
        wait = max(0.0, first - elapsed)
        while True:
            yield wait * (1.0 + self.jitter * (2.0 * uniform() - 1.0))
            wait = min(step, cap)
            step = min(step * growth, cap)

    @property
    def publishing(self) -> float:
        """Seconds for which a completed task without outputs is polled again."""
        return _PUBLISHING * self.grace


class Webhooks(Protocol):
    """Announces callbacks; `webhooks.Receiver` implements it."""

    def expect(self, out_task_id: str, wake: Callable[[], None]) -> Callable[[], None]:
        """Call *wake*, in the running event loop, when a callback about a task arrives.

        If one has arrived while none was expected, call it at once. Each call of *wake* leads to at
        most one query, so a needless one does no harm.

        Returns:
            A function that ends it, called exactly once.
        """
        ...


def check_webhooks(webhooks: object) -> None:
    """Raise TypeError unless *webhooks* is None or has the method of `Webhooks`."""
    if webhooks is not None and not callable(getattr(webhooks, "expect", None)):
        raise TypeError(f"webhooks must be a webhooks.Receiver, got {type(webhooks).__name__}")


class Durations:
    """Task durations by model, as this client has observed them.

    A moving average: a task that took less than half of it restarts it, and one
    outlier raises it by a fifth at most. Beyond 1,000 models, the least recently
    seen one is dropped.
    """

    def __init__(self) -> None:
        self._seconds: OrderedDict[str, float] = OrderedDict()
        self._longest = 0.0

    def observe(
        self, model: str, waited: float, by_service: float | None, *, from_start: bool
    ) -> None:
        """Learn from a task that has completed; the service's clock is not trusted.

        Args:
            model: The task's model.
            waited: Seconds that this client has waited for it.
            by_service: Seconds between the service's timestamps, None without them.
            from_start: Whether the wait began when the task was accepted.
        """
        self._longest = max(self._longest, waited)
        if by_service is not None and not 0 <= by_service <= 2 * self._longest:
            by_service = None
        if from_start:
            self.learn(model, waited if by_service is None else min(by_service, waited))
        elif by_service is not None:
            self.learn(model, min(by_service, self._longest))

    def learn(self, model: str, seconds: float) -> None:
        """Record that a task of *model* took *seconds* from acceptance to end."""
        known = self._seconds.get(model)
        if known is not None and seconds >= known / 2:
            seconds = known + _WEIGHT * (min(seconds, 2 * known) - known)
        self._seconds[model] = seconds
        self._seconds.move_to_end(model)
        if len(self._seconds) > _MAX_MODELS:
            self._seconds.popitem(last=False)

    def expect(self, model: str | None, medium: str | None) -> Expectation:
        """Return how long a task of *model* is expected to take."""
        known = self._seconds.get(model) if model is not None else None
        if known is not None:
            return Expectation(known, learned=True)
        return Expectation(_GUESSES.get(medium or "", _GUESS))
