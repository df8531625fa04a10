"""A client that lives by another clock, and whose waits move it."""

from typing import Any, ClassVar

import attrs

from aireiter_async import AsyncClient
from aireiter_async._client._api import Shared
from aireiter_async._client._settings import Settings
from aireiter_async._client._sleeping import Sleeping
from aireiter_async._throttle import Throttle


@attrs.define(slots=False)
class Clock:
    """Time that passes by sleeping, and by nothing else."""

    now: float = 1000.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now

    def pass_by(self, seconds: float) -> float:
        """Let time pass, and return for how many real seconds to sleep: none."""
        self.now += max(0.0, seconds)
        return 0.0


class ClockedSleeping(Sleeping):
    """Sleeps of a clock's seconds."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    async def sleep(self, seconds: float) -> None:
        """Let time pass."""
        await super().sleep(self._clock.pass_by(seconds))


class ClockedClient(AsyncClient):
    """A client that lives by a clock; subclasses say by which."""

    clock: ClassVar[Clock]

    def _assemble(self, shared: Shared, settings: Settings, *, owner: bool) -> None:
        assert owner  # views are not made of it
        shared.sleeping = ClockedSleeping(self.clock)
        shared.throttle = Throttle(
            shared.transport._limit,
            shared.throttle.rate,
            clock=self.clock,
            sleep=shared.sleeping.sleep,
        )
        super()._assemble(shared, settings, owner=owner)
        self._waiting._clock = self.clock


def clocked(clock: Clock, api_key: str | None, **options: Any) -> AsyncClient:
    """Make a client that lives by *clock*."""

    class Client(ClockedClient):
        pass

    Client.clock = clock
    return Client(api_key, **options)
