"""How a batch is stopped: by Ctrl-C or SIGTERM, in two steps, with nothing lost."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from aireiter_async import BatchProgress

_PATIENCE: Final = 2  # signals; one more ends the program whatever it is doing
_LAG: Final = 0.25  # seconds within which all that has happened was told


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


class Stop:
    """Ends a batch when it is asked to.

    Asked once, the source ends, and the batch is left when no submit is under
    way; asked twice, it is left at once.

    Args:
        note: Told what is going on.
    """

    def __init__(self, note: Callable[[str], None]) -> None:
        self.asked = False
        self._note = note
        self._times = 0
        self._submitting = 0
        self._patient = False
        self._loop = asyncio.get_running_loop()
        self._scope: asyncio.Timeout | None = None

    def on_signal(self, _number: int, _frame: FrameType | None) -> None:
        """Take a signal, wherever the program is."""
        self._times += 1
        if self._times > _PATIENCE:
            raise KeyboardInterrupt
        self._loop.call_soon_threadsafe(self._ask)

    def follow(self, progress: BatchProgress) -> None:
        """Take in how far the batch is."""
        self._submitting = progress.submitting
        if self._patient and not self._submitting:
            self._leave()

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
        if again:
            self._leave()
        elif self._submitting:
            self._await_submits()
        else:  # or one has begun since then
            self._loop.call_later(_LAG, self._await_submits)

    def _await_submits(self) -> None:
        self._patient = True
        if not self._submitting:
            self._leave()
            return
        self._note(
            "interrupted: no more lines are taken; submits that come to their end: "
            f"{self._submitting}; Ctrl-C again leaves them"
        )

    def _leave(self) -> None:
        scope, self._scope = self._scope, None
        if scope is not None:
            scope.reschedule(self._loop.time())
