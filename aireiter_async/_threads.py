"""Threads for blocking work on files."""

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_THREADS: Final = 4


class Threads:
    """A dedicated executor: files never wait for the event loop's default one."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="aireiter-files")

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run *function* in a thread; if cancelled, wait until it ends, since it holds a file."""
        call = functools.partial(function, *args, **kwargs)
        # Not a task: the end of asyncio.run would cancel it and leave the thread behind.
        running = asyncio.get_running_loop().run_in_executor(self._executor, call)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            await outlast(running)
            raise

    def close(self) -> None:
        """Accept no more work and let the threads end."""
        self._executor.shutdown(wait=False)


async def outlast(running: asyncio.Future[Any]) -> None:
    """Wait until *running* has ended, for a caller that was cancelled and will raise that."""
    while not running.done():
        with suppress(asyncio.CancelledError):  # the caller raises its first one
            await asyncio.wait([running])
    running.exception()  # retrieved: the caller sees the cancellation
