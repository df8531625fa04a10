"""Callbacks to the ``callback_url`` of a submit; undocumented, so the payload is invented."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

import aiohttp
import attrs

from aireiter_async.testing._account import FakeTask
from aireiter_async.testing._options import Options

# Seconds: an injected clock cannot be awaited, and a receiver may hang.
_CLOCK_INTERVAL = 0.02
_TIMEOUT = aiohttp.ClientTimeout(total=5)


@attrs.frozen
class Callback:
    """One callback that was attempted.

    Attributes:
        out_task_id: The task.
        url: Its URL.
        status: The HTTP status of the response, None without one.
    """

    out_task_id: str
    url: str
    status: int | None


class Callbacks:
    """Delivers a callback for each task that asks for one."""

    def __init__(self, options: Options, describe: Callable[[FakeTask], Mapping[str, Any]]) -> None:
        self.attempted: list[Callback] = []
        self._options = options
        self._describe = describe
        self._numbers = count()
        self._running: set[asyncio.Task[None]] = set()

    async def accepted(self, task: FakeTask, url: str) -> None:
        """Deliver an early callback now, before the response to the submit; schedule the others."""
        kinds = self._options.callbacks
        kind = kinds[next(self._numbers) % len(kinds)]
        if kind == "early":
            await self._deliver(task, url)
        elif kind != "never":
            late = self._options.callback_delay if kind == "late" else 0.0
            running = asyncio.create_task(self._when_ended(task, url, late, 1 + (kind == "twice")))
            self._running.add(running)
            running.add_done_callback(self._running.discard)

    async def close(self) -> None:
        """Drop the pending callbacks."""
        for running in self._running:
            running.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _when_ended(self, task: FakeTask, url: str, late: float, times: int) -> None:
        while self._options.clock() < task.ends_at + late:  # noqa: ASYNC110 - a clock has no event
            await asyncio.sleep(_CLOCK_INTERVAL)
        for _ in range(times):
            await self._deliver(task, url)

    async def _deliver(self, task: FakeTask, url: str) -> None:
        status = None
        payload = {"out_task_id": task.out_task_id, **self._describe(task)}
        with contextlib.suppress(aiohttp.ClientError, OSError, ValueError):
            async with (
                aiohttp.ClientSession(timeout=_TIMEOUT) as session,
                session.post(url, json=payload) as response,
            ):
                status = response.status
        self.attempted.append(Callback(task.out_task_id, url, status))
