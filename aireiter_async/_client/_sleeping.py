"""Sleeps that end with the client: whoever backs off or waits is told at once when it closes."""

import asyncio

from aireiter_async._transport import CLOSED


class Sleeping:
    """The sleeps of one client and its views."""

    def __init__(self) -> None:
        self._wakers: set[asyncio.Future[None]] = set()
        self._closed = False

    async def sleep(self, seconds: float) -> None:
        """Wait for *seconds*.

        Raises:
            RuntimeError: The client is closed, or is being closed meanwhile.
        """
        if self._closed:
            raise RuntimeError(CLOSED)
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        loop = asyncio.get_running_loop()
        waker: asyncio.Future[None] = loop.create_future()
        timer = loop.call_later(seconds, _wake, waker)
        self._wakers.add(waker)
        try:
            await waker
        finally:
            self._wakers.discard(waker)
            timer.cancel()

    def close(self) -> None:
        """End all sleeps, and those to come."""
        self._closed = True
        for waker in self._wakers:
            if not waker.done():
                waker.set_exception(RuntimeError(CLOSED))


def _wake(waker: asyncio.Future[None]) -> None:
    if not waker.done():
        waker.set_result(None)
