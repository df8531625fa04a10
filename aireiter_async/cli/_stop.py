"""How a batch is stopped: by Ctrl-C or SIGTERM, in two steps, with nothing lost."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

from aireiter_async import AsyncClient, Task

_PATIENCE: Final = 2  # signals; one more ends the program whatever it is doing


@contextmanager
def catching(
    handler: Callable[[int, FrameType | None], object],
    *numbers: signal.Signals,
) -> Generator[None, None, None]:
    """Let *handler* have *numbers*, without any both signals that ask a program to end."""
    # Not loop.add_signal_handler, which Windows does not have.
    caught = numbers or (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, handler) for number in caught}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


class BatchClient(AsyncClient):
    """
    A client that knows what it is in the middle of.

    Attributes:
        submitting: How many submits.
        waiting: How many waits for tasks that the service has.
        on_settled: Called whenever the last submit has come to its end.
    """

    submitting = 0
    waiting = 0
    on_settled: Callable[[], object] | None = None

    async def submit(self, *args: Any, **options: Any) -> Task:
        """Submit, counted."""
        self.submitting += 1
        try:
            return await super().submit(*args, **options)
        finally:
            self.submitting -= 1
            if not self.submitting and self.on_settled is not None:
                self.on_settled()

    async def run(self, *args: Any, **options: Any) -> Task:
        """Run, counted as a wait from when the service is known to have the task."""
        on_update, counted = options.pop("on_update"), 0

        def on_seen(task: Task) -> None:
            nonlocal counted
            self.waiting += 1 - counted
            counted = 1
            on_update(task)

        try:
            return await super().run(*args, on_update=on_seen, **options)
        finally:
            self.waiting -= counted

    async def wait(self, *args: Any, **options: Any) -> Task:
        """Wait, counted."""
        self.waiting += 1
        try:
            return await super().wait(*args, **options)
        finally:
            self.waiting -= 1


class Stop:
    """
    Ends a batch when it is asked to.

    Asked once, the source ends, and the batch is left when no submit is under
    way; asked twice, it is left at once.

    Args:
        client: What the batch goes through.
        note: Told what is going on.
    """

    def __init__(self, client: BatchClient, note: Callable[[str], None]) -> None:
        self.asked = False
        self._client = client
        self._note = note
        self._times = 0
        self._loop = asyncio.get_running_loop()
        self._scope: asyncio.Timeout | None = None

    def on_signal(self, _number: int, _frame: FrameType | None) -> None:
        """Take a signal, wherever the program is."""
        self._times += 1
        if self._times > _PATIENCE:
            raise KeyboardInterrupt
        self._loop.call_soon_threadsafe(self._ask)

    async def guard(self, running: Awaitable[None]) -> None:
        """Await *running*, the batch, until it ends or is to be left."""
        # A deadline that is set when it has come: it cancels in a way that can be told apart.
        scope = self._scope = asyncio.timeout(None)
        try:
            async with scope:
                await running
        except TimeoutError:
            if not scope.expired():
                raise
        finally:
            self._scope = None

    def _ask(self) -> None:
        again, self.asked = self.asked, True
        if again or not self._client.submitting:
            self._leave()
        else:
            self._client.on_settled = self._leave
            self._note(
                "interrupted: no more lines are taken; submits that come to their end: "
                f"{self._client.submitting}; Ctrl-C again leaves them"
            )

    def _leave(self) -> None:
        scope, self._scope = self._scope, None
        if scope is not None:
            scope.reschedule(self._loop.time())
