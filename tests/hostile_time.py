"""A clock that only sleeping moves, and clients that use it."""

import asyncio
from collections.abc import Callable
from typing import Any

import attrs

from aireiter_async import AsyncClient
from aireiter_async._client import _shared


@attrs.define(slots=False)
class Clock:
    """A clock that only sleeping moves.

    Attributes:
        slept: The seconds of each sleep.
        held: Whether time has stopped: no sleep ends, unless its client is closed.
    """

    now: float = 1000.0
    slept: list[float] = attrs.field(factory=list[float])
    held: bool = False

    def __call__(self) -> float:
        return self.now

    def pass_by(self, seconds: float) -> float:
        """Advance, and return for how many real seconds to sleep."""
        if seconds <= 0:
            return 0.0
        self.slept.append(seconds)
        self.now += seconds
        return 0.0


def leaping() -> Callable[[float], None]:
    """Return a function that moves the clock of the running loop ahead by some seconds."""
    loop, ahead = asyncio.get_running_loop(), 0.0
    tell = loop.time
    setattr(loop, "time", lambda: tell() + ahead)  # noqa: B010 - a method, for mypy

    def leap(seconds: float) -> None:
        nonlocal ahead
        ahead += seconds

    return leap


IDLE = 0.02  # seconds without an event after which all are waiting for a timer


def skip_idle_time() -> None:
    """Move the clock of the running loop on to its next timer whenever nothing else happens.

    What takes half a minute then takes `IDLE` seconds, and what is quick cannot take too long,
    however busy the machine is. Not for tests that wait for threads or other processes.
    """
    selector: Any = asyncio.get_running_loop()._selector  # type: ignore[attr-defined]
    select, leap = selector.select, leaping()

    def select_or_leap(timeout: float | None) -> Any:
        if timeout is None or timeout < IDLE:
            return select(timeout)
        events = select(IDLE)
        if not events:
            leap(timeout)
        return events

    selector.select = select_or_leap


class ClientClock(_shared.Clock):
    """One client's view of a `Clock`."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self._clock = clock

    async def sleep(self, seconds: float, waker: asyncio.Future[bool] | None = None) -> None:
        def woken() -> bool:
            return waker is not None and waker.done()

        while self._clock.held and seconds > 0 and not woken():
            await super().sleep(0)
        if not woken():
            await super().sleep(self._clock.pass_by(seconds))


def clocked(clock: Clock, api_key: str | None, **options: Any) -> AsyncClient:

    class Client(AsyncClient):
        @staticmethod
        def _new_clock() -> ClientClock:
            return ClientClock(clock)

    return Client(api_key, **options)
