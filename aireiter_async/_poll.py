"""Polling schedule: pure generators over seconds; nothing here waits or asks."""

import random
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from attrs import field, frozen

from aireiter_async._arguments import at_least_one, not_negative, not_negative_or_none, share

# Seconds to the first poll while nothing has been learned: images take seconds to tens of
# seconds, videos one to five minutes (https://docs.aireiter.com, and seen). A poll that comes early
# costs the service one cheap exchange, one that comes late costs the caller time: the guesses are
# early, and doubled.
_GUESSES: Final[Mapping[str, float]] = {"image": 2.0, "video": 8.0, "audio": 3.0, "text": 1.0}
_GUESS: Final = 2.0
_GUESS_GROWTH: Final = 2.0
_LEARNED_SHARE: Final = 0.85
_STEP_SHARE: Final = 0.08
_SHORTEST_STEP: Final = 0.25
_WEIGHT: Final = 0.2
_REMEMBERED: Final = 1000
_PUBLISHING: Final = 6.0


@frozen
class Expectation:
    """How long a task is expected to take.

    Attributes:
        seconds: From its acceptance to its end, as its model's tasks have been
            taking; where none has been seen to end, to a first poll.
        learned: Whether tasks of its model have been seen to end.
    """

    seconds: float
    learned: bool = False


@frozen(kw_only=True)
class PollPolicy:
    """When `wait` polls a task.

    Attributes:
        first: Seconds from the submit to the first poll; None: from how long
            this model's tasks have been taking.
        step: Seconds between the first two polls; None: a small share of how
            long this model's tasks have been taking; while that is not known,
            each step is as long as all the time before it.
        growth: How much longer each step is than the one before, at least 1.
        cap: Seconds that a step is at most before its jitter.
        jitter: Share, 0 to 1, by which each wait is lengthened or shortened at
            random, so that tasks that were submitted together are not polled together.
        grace: Seconds for which "not found" may be the service's lag rather
            than the truth. A completed task without outputs is polled for six
            times as long: services report the end before they publish the result.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: An argument is out of its range.
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
    ) -> Iterator[float]:
        """Yield the seconds to wait before each poll.

        Args:
            expected: How long the task is expected to take.
            elapsed: Seconds since the task was submitted.
            uniform: Draws a number from [0, 1).
        """
        seconds, growth = expected.seconds, self.growth
        if expected.learned:
            first, step = seconds * _LEARNED_SHARE, max(_SHORTEST_STEP, seconds * _STEP_SHARE)
        else:
            first, step, growth = seconds, seconds, max(growth, _GUESS_GROWTH)
        if self.first is not None:
            first = self.first
        if self.step is not None:
            step, growth = self.step, self.growth
        wait = max(0.0, first - elapsed)
        while True:
            yield wait * (1.0 + self.jitter * (2.0 * uniform() - 1.0))
            wait = min(step, self.cap)
            step = min(step * growth, self.cap)

    @property
    def publishing(self) -> float:
        """Seconds for which a completed task without outputs is polled again."""
        return _PUBLISHING * self.grace


class Durations:
    """How long the tasks of each model have been taking, as this client has observed it.

    A moving average that forgets what does not fit any more: a task that took
    less than half of it restarts it, and one outlier cannot double it. The least
    recently seen model is dropped beyond a thousand.
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
            waited: Seconds for which this client has waited for it.
            by_service: Seconds that it took by the service's own times, if it tells them.
            from_start: Whether the wait began with the task.
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
        if len(self._seconds) > _REMEMBERED:
            self._seconds.popitem(last=False)

    def expect(self, model: str | None, medium: str | None) -> Expectation:
        """Return how long a task of *model* is expected to take."""
        known = self._seconds.get(model) if model is not None else None
        if known is not None:
            return Expectation(known, learned=True)
        return Expectation(_GUESSES.get(medium or "", _GUESS))
