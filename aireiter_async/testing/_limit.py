"""How many requests per second the service grants."""

import math
from collections.abc import Callable


class TokenBucket:
    """Grant *rate* requests per second of *clock*, and *burst* at once.

    Args:
        rate: Tokens that come back per second, above 0.
        burst: How many there are at most, and at the start. None: what comes
            back in a second, at least one.
        clock: Tells the time in seconds.
    """

    def __init__(self, rate: float, burst: int | None, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._size = float(burst or math.ceil(rate))
        self._clock = clock
        self._tokens = self._size
        self._at = clock()

    def take(self) -> float:
        """Take a token and return 0, or return the seconds until there is one."""
        now = self._clock()
        self._tokens = min(self._size, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1:
            return (1 - self._tokens) / self._rate
        self._tokens -= 1
        return 0.0
