"""Cancel at the k-th suspension, for all k: what the tests of cancellation are driven by."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Generator, Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

import aireiter_async

T = TypeVar("T")
OnSuspend = Callable[[Any], None]
OnResume = Callable[[], None]

_OURS = str(Path(aireiter_async.__file__).parent)
_MOST_STEPS = 500


class _Steps(Generic[T]):
    """Awaits a coroutine, and tells of each of its suspensions what it waits for."""

    def __init__(
        self, coroutine: Coroutine[Any, Any, T], on_suspend: OnSuspend, on_resume: OnResume
    ) -> None:
        self._coroutine = coroutine
        self._on_suspend = on_suspend
        self._on_resume = on_resume

    def __await__(self) -> Generator[Any, Any, T]:
        """Step the coroutine."""
        error: BaseException | None = None
        while True:
            self._on_resume()
            try:
                awaited = (
                    self._coroutine.send(None) if error is None else self._coroutine.throw(error)
                )
            except StopIteration as end:
                result: T = end.value
                return result
            error = None
            self._on_suspend(awaited)
            try:
                yield awaited
            except BaseException as thrown:  # noqa: BLE001 - the coroutine is to see it
                error = thrown


async def stepped(
    coroutine: Coroutine[Any, Any, T], on_suspend: OnSuspend, on_resume: OnResume = lambda: None
) -> T:
    """Await *coroutine*, and tell *on_suspend* of what it waits for each time that it does."""
    return await _Steps(coroutine, on_suspend, on_resume)


class Blow:
    """Cancels a task at the *step*-th suspension that it is told of.

    Args:
        step: From 1.
        late: Cancel only once that which is waited for has come, but before the
            task goes on: that is where things are lost. Else before it has.

    Attributes:
        struck: Whether that step was reached.
        made: The tasks that the package has made meanwhile, by what they run.
    """

    def __init__(self, step: int, *, late: bool) -> None:
        self.struck = False
        self.task: asyncio.Task[Any] | None = None
        self.made: list[tuple[str, asyncio.Task[Any]]] = []
        self._left = step
        self._late = late

    def __call__(self, awaited: Any) -> None:
        """Count a suspension."""
        self._left -= 1
        if self._left or self.task is None:
            return
        self.struck = True
        if self._late and asyncio.isfuture(awaited):
            # It comes before the callback by which the task is woken.
            awaited.add_done_callback(self._strike)
        else:
            asyncio.get_running_loop().call_soon(self._strike, None)

    def _strike(self, _done: object) -> None:
        assert self.task is not None
        self.task.cancel()


class Death(Blow):
    """Ends a batch as the death of its process would: all workers at once, the disk as it was then.

    Args:
        step: As for any blow.
        late: As for any blow.
        ledger: The batch's ledger.
    """

    def __init__(self, step: int, *, late: bool, ledger: Path) -> None:
        super().__init__(step, late=late)
        self._ledger = ledger
        self._kept: dict[Path, bytes] = {}

    def _strike(self, done: object) -> None:
        self._kept = self._read()
        for file, task in self.made:
            if "_ledger" not in file:  # closing it orderly changes only what is thrown away
                task.cancel()
        super()._strike(done)

    def _read(self) -> dict[Path, bytes]:
        while True:
            files = self._files()
            with contextlib.suppress(FileNotFoundError):  # it is being closed: all over again
                kept = {path: path.read_bytes() for path in files}
                if files == self._files():  # pragma: no branch - hardly ever not
                    return kept

    def _files(self) -> list[Path]:
        # The lock remembers how far the ledger was: it must not be newer than that.
        files = [Path(f"{self._ledger}{end}") for end in (".lock", "", "-wal")]
        return [path for path in files if path.exists()]

    def bury(self) -> None:
        """Put the disk back to what it was, if the blow has struck, once all tasks have ended."""
        if self.struck:
            for path in self._files():
                path.unlink()
            for path, content in self._kept.items():
                path.write_bytes(content)


async def cancel_at(call: Callable[[], Coroutine[Any, Any, Any]], step: int, *, late: bool) -> bool:
    """Cancel a call at its *step*-th suspension; return whether it got that far.

    A cancellation must be seen as one, unless the call was done by then.
    """
    blow = Blow(step, late=late)
    task = blow.task = asyncio.create_task(stepped(call(), blow))
    async with asyncio.timeout(30):
        await asyncio.wait([task])
    if blow.struck:
        assert task.cancelled() or task.exception() is None
    return blow.struck


@contextlib.contextmanager
def counting(blow: Blow) -> Iterator[None]:
    """Count the suspensions of all tasks that this package makes."""
    loop = asyncio.get_running_loop()

    def factory(
        loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any
    ) -> asyncio.Task[Any]:
        code = getattr(coroutine, "cr_code", None)
        if code is not None and code.co_filename.startswith(_OURS):
            task = asyncio.Task(stepped(coroutine, blow), loop=loop, **options)
            blow.made.append((code.co_filename, task))
            # Of a task that is cancelled before it begins, nothing else closes the coroutine.
            task.add_done_callback(lambda _: coroutine.close())
            return task
        return asyncio.Task(coroutine, loop=loop, **options)

    loop.set_task_factory(factory)
    try:
        yield
    finally:
        loop.set_task_factory(None)


class Sweep:
    """Counts up from 1, by *stride*, until a call has got through without being struck.

    Attributes:
        struck: Whether the step last yielded was one of the call's.
    """

    def __init__(self, stride: int = 1) -> None:
        self.struck = True
        self._stride = stride

    def __iter__(self) -> Iterator[int]:
        """Yield steps."""
        step = 1 - self._stride
        while self.struck:
            step += self._stride
            assert step < _MOST_STEPS, "there is no end to the suspensions"
            yield step
