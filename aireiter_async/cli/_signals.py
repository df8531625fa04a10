"""SIGINT and SIGTERM: end a batch in two steps, without losing anything."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final

from aireiter_async.cli._display import plural

_STEPS: Final = 2  # a further signal ends the program immediately
_LAG: Final = 0.25  # seconds: maximum delay of progress reports


@contextmanager
def catching(
    handler: Callable[[int, FrameType | None], object],
    *numbers: signal.Signals,
) -> Generator[None, None, None]:
    """Install *handler* for the given signals (default: SIGINT and SIGTERM).

    A signal that is ignored, such as SIGINT in a shell's background jobs, stays ignored.
    """
    before = {
        number: signal.getsignal(number)
        for number in numbers or (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) not in {signal.SIG_IGN, None}
    }
    for number in before:
        # A signal that arrives just before the selector sleeps would only be noticed at the
        # next timer: the loop's own handler sets the file descriptor that wakes it.
        with suppress(NotImplementedError, RuntimeError):  # Windows; no running loop
            asyncio.get_running_loop().add_signal_handler(number, int)
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


class Stop:
    """Ends a batch on request.

    After one signal, the source ends, and the batch is left once no submit is in flight. After
    two, it is left immediately.

    Args:
        note: Writes a message.
    """

    def __init__(self, note: Callable[[str], None]) -> None:
        self.requested = False
        self._note = note
        self._signals = 0
        self._submitting = 0
        self._finishing = False
        self._loop = asyncio.get_running_loop()
        self._scope: asyncio.Timeout | None = None

    def on_signal(self, _number: int, _frame: FrameType | None) -> None:
        """Handle a signal, at any point of the program."""
        self._signals += 1
        if self._signals > _STEPS:
            raise KeyboardInterrupt
        self._loop.call_soon_threadsafe(self._request)

    def on_progress(self, submitting: int) -> None:
        """Leave the batch once its last submit has ended, if requested."""
        self._submitting = submitting
        if self._finishing and not self._submitting:
            self._leave()

    async def guard(self, running: Awaitable[None]) -> None:
        """Await the batch until it ends or is left."""
        # A timeout without a deadline: distinguishes its own cancellation from others.
        scope = self._scope = asyncio.timeout(None)
        try:
            async with scope:
                await running
        except TimeoutError:
            if not scope.expired():
                raise
        finally:
            self._scope = None

    def _request(self) -> None:
        again, self.requested = self.requested, True
        if again:
            self._leave()
        elif self._submitting:
            self._finish_submits()
        else:  # a submit may have started without being reported yet
            self._loop.call_later(_LAG, self._finish_submits)

    def _finish_submits(self) -> None:
        self._finishing = True
        if not self._submitting:
            self._leave()
            return
        submits = plural(self._submitting, "submit")
        self._note(
            f"interrupted: finishing {submits}, submitting nothing new; Ctrl-C again to leave them"
        )

    def _leave(self) -> None:
        scope, self._scope = self._scope, None
        if scope is not None:
            scope.reschedule(self._loop.time())
