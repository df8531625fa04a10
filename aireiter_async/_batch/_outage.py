"""Pause a batch while the service is unreachable."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from aireiter_async._client import Clock
from aireiter_async._text import without_queries
from aireiter_async.errors import (
    AireiterError,
    AmbiguousSubmitError,
    ConnectError,
    ProtocolError,
    ServerError,
    TransportError,
)

_log = logging.getLogger(__name__)

_MAX_OUTAGE: Final = 600.0  # seconds
_FIRST_PAUSE: Final = 1.0  # seconds between probes, doubling
_MAX_PAUSE: Final = 30.0


class Outage:
    """Holds back submits from the first failure of the service until it responds again.

    Attributes:
        connected: Whether the service has ever accepted a task of this batch.
        active: Whether the service is down and being probed.
        gave_up: Whether it was down for so long that the batch has given up.
    """

    def __init__(self, clock: Clock, host: str) -> None:
        self._clock = clock
        self._host = host
        self._over = asyncio.Event()
        self.connected = False
        self.active = False
        self.gave_up = False

    async def wait(self) -> None:
        """Wait until the service responds again, or the batch has given up."""
        await self._over.wait()

    async def should_resubmit(
        self, error: AireiterError, probe: Callable[[], Awaitable[object]]
    ) -> bool:
        """Wait for the end of the outage that may have caused *error*.

        Args:
            error: The failure of a submit, after all its attempts.
            probe: Queries the task of that submit.

        Returns:
            Whether to submit again: not if the service does respond, so that the failure
            concerns this request only, nor if the outage does not end.
        """
        unsent = isinstance(error, ConnectError)
        if not unsent and not isinstance(error, AmbiguousSubmitError):
            return False
        if not self.connected:
            self.gave_up = self.gave_up or unsent
            return False
        if self.active:
            await self.wait()
            return not self.gave_up
        self.active = True
        self._over.clear()
        try:
            return await self._probe(error, probe)
        finally:
            self.active = False
            self._over.set()

    async def _probe(self, error: AireiterError, probe: Callable[[], Awaitable[object]]) -> bool:
        started, pause = self._clock.now(), 0.0
        while True:
            try:
                await probe()
            except (TransportError, ProtocolError, ServerError) as down:
                if self._clock.now() - started >= _MAX_OUTAGE:
                    self.gave_up = True
                    return False
                if not pause:
                    text = "batch at %s: paused, the service does not respond: %s"
                    _log.warning(text, self._host, without_queries(str(down)))
            except AireiterError:  # it responds, for example that it does not know the task
                return bool(pause) or isinstance(error, ConnectError)
            else:
                return True
            pause = min(2 * pause or _FIRST_PAUSE, _MAX_PAUSE)
            await self._clock.sleep(pause)
