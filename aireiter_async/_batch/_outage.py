"""Outages: a batch pauses while the service cannot be reached."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from aireiter_async._client import Clock
from aireiter_async.errors import (
    AireiterError,
    AmbiguousSubmitError,
    ConnectError,
    ProtocolError,
    ServerError,
    TransportError,
)

_log = logging.getLogger(__name__)

_LONGEST: Final = 600.0  # seconds
_FIRST_PAUSE: Final = 1.0  # seconds between two probes, then twice as many
_LONGEST_PAUSE: Final = 30.0


class Outage:
    """Holds submits back from the first that finds the service down until it answers again.

    Args:
        clock: Tells the time, and sleeps.

    Attributes:
        connected: Whether the service has ever accepted a task of this batch.
        waiting: Whether it is down, and somebody probes it.
        endless: Whether it was down for so long that the batch gives up.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._over = asyncio.Event()
        self.connected = False
        self.waiting = False
        self.endless = False

    async def wait(self) -> None:
        """Wait until the service answers again, or the batch has given up."""
        await self._over.wait()

    async def passes(self, error: AireiterError, probe: Callable[[], Awaitable[object]]) -> bool:
        """Wait for the end of the outage that *error* may be a sign of.

        Args:
            error: What a submit has failed with, after all its attempts.
            probe: Asks the service about the task of that submit.

        Returns:
            Whether to submit again. Not where the service does answer, so the failure is this
            request's own, nor where the outage has no end.
        """
        unsent = isinstance(error, ConnectError)
        if not unsent and not isinstance(error, AmbiguousSubmitError):
            return False
        if not self.connected:
            self.endless = self.endless or unsent
            return False
        if self.waiting:
            await self.wait()
            return not self.endless
        self.waiting = True
        self._over.clear()
        try:
            return await self._probe(error, probe)
        finally:
            self.waiting = False
            self._over.set()

    async def _probe(self, error: AireiterError, probe: Callable[[], Awaitable[object]]) -> bool:
        began, pause = self._clock.now(), 0.0
        while True:
            try:
                await probe()
            except (TransportError, ProtocolError, ServerError) as down:
                if self._clock.now() - began >= _LONGEST:
                    self.endless = True
                    return False
                if not pause:
                    _log.warning("the service is down, the batch pauses: %s", down)
            except AireiterError:  # it answers: it does not know the task, for instance
                return bool(pause) or isinstance(error, ConnectError)
            else:
                return True
            pause = min(2 * pause or _FIRST_PAUSE, _LONGEST_PAUSE)
            await self._clock.sleep(pause)
