"""
A bounded number of slots, first in, first out.

What asyncio.BoundedSemaphore does, for many thousand waiters: its release walks
over all waiters that are awake and have not run yet, which is quadratic where
many are let go at once.
"""

import asyncio
from collections import OrderedDict


class Slots:
    """
    Slots that are taken and given back; one given back goes to whoever has waited longest.

    Args:
        number: How many there are.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._free = number
        self._queue: OrderedDict[asyncio.Future[None], None] = OrderedDict()

    def take(self) -> bool:
        """
        Take a slot if one is free; none is while anybody waits.
        """
        if self._free:
            self._free -= 1
            return True
        return False

    async def acquire(self) -> None:
        """
        Wait for a slot, and take it.
        """
        if self.take():
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue[turn] = None
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._queue.pop(turn, None)
            else:  # it came just before the cancellation
                self.release()
            raise

    def release(self) -> None:
        """
        Give a slot back.

        Raises:
            RuntimeError: None was taken.
        """
        while self._queue:
            turn, _ = self._queue.popitem(last=False)
            if not turn.done():
                turn.set_result(None)
                return
        if self._free >= self._number:
            raise RuntimeError("a slot was given back that nobody had taken")
        self._free += 1
