"""When to look for a task: patient and light.

The first look comes at about the time that the model has been taking, then the
steps grow up to a cap. All of it is a pure generator over seconds; nothing here
waits or asks.
"""

import random
from collections import OrderedDict
from collections.abc import Callable, Generator, Mapping
from typing import Final

from attrs import field, frozen

from aireiter_async._arguments import at_least_one, not_negative, not_negative_or_none, share

# Seconds to the first look while nothing has been learned: images take seconds to tens of
# seconds, videos one to five minutes (https://docs.aireiter.com, and seen). A look that comes early
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


@frozen
class Expectation:
    """What is known of how long a task will take.

    Attributes:
        seconds: From its acceptance to its end, as its model's tasks have been
            taking; where none has been seen to end, to a first look.
        learned: Whether tasks of its model have been seen to end.
    """

    seconds: float
    learned: bool = False


@frozen(kw_only=True)
class PollPolicy:
    """When `wait` looks for a task.

    Attributes:
        first: Seconds from the submit to the first look; None: from how long
            this model's tasks have been taking.
        step: Seconds between the first two looks; None: a small share of how
            long this model's tasks have been taking; while that is not known,
            each step is as long as all the time before it.
        growth: How much longer each step is than the one before, at least 1.
        cap: Seconds that a step is at most before its jitter, unless the service
            asks for more: an hour at most.
        jitter: Share, 0 to 1, by which each wait is lengthened or shortened at
            random, so that tasks that were submitted together are not asked for together.
        grace: Seconds for which "not found" may be the service's lag rather
            than the truth.

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
    ) -> Generator[float, float | None, None]:
        """Yield the seconds to wait before each look.

        What is sent in is the wait that the service asked for, in seconds: the
        next wait is not shorter.

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
        wait, asked = max(0.0, first - elapsed), 0.0
        while True:
            spread = 1.0 + self.jitter * (2.0 * uniform() - 1.0)
            asked = (yield max(wait * spread, asked)) or 0.0
            wait = min(step, self.cap)
            step = min(step * growth, self.cap)


class Durations:
    """How long the tasks of each model have been taking: a moving average.

    The least recently seen model is forgotten beyond a thousand: memory stays
    bounded whatever names arrive.
    """

    def __init__(self) -> None:
        self._seconds: OrderedDict[str, float] = OrderedDict()

    def learn(self, model: str, seconds: float) -> None:
        """Take in that a task of *model* took *seconds* from acceptance to end."""
        known = self._seconds.get(model)
        self._seconds[model] = seconds if known is None else known + _WEIGHT * (seconds - known)
        self._seconds.move_to_end(model)
        if len(self._seconds) > _REMEMBERED:
            self._seconds.popitem(last=False)

    def expect(self, model: str | None, medium: str | None) -> Expectation:
        """Return how long a task of *model* is expected to take."""
        known = self._seconds.get(model) if model is not None else None
        if known is not None:
            return Expectation(known, learned=True)
        return Expectation(_GUESSES.get(medium or "", _GUESS))
