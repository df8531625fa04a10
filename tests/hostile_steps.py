"""Cancel a call at its k-th suspension, for all k."""

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
    """Awaits a coroutine; calls *on_suspend* with what each of its suspensions waits for."""

    def __init__(
        self, coroutine: Coroutine[Any, Any, T], on_suspend: OnSuspend, on_resume: OnResume
    ) -> None:
        self._coroutine = coroutine
        self._on_suspend = on_suspend
        self._on_resume = on_resume

    def __await__(self) -> Generator[Any, Any, T]:
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
    """Await *coroutine*; call *on_suspend* with what each of its suspensions waits for."""
    return await _Steps(coroutine, on_suspend, on_resume)


class Blow:
    """Cancels a task at its *step*-th call.

    Args:
        step: From 1.
        late: Cancel after what is awaited has completed but before the task resumes,
            which is where results are lost. Otherwise, cancel before it completes.

    Attributes:
        struck: Whether that step was reached.
        made: The tasks that the package has created since, with the file of their code.
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
            # Called before the callback that wakes the task.
            awaited.add_done_callback(self._strike)
        else:
            asyncio.get_running_loop().call_soon(self._strike, None)

    def _strike(self, _done: object) -> None:
        assert self.task is not None
        self.task.cancel()


class Death(Blow):
    """Ends a batch as SIGKILL would: all workers at once, the files as they are."""

    def __init__(self, step: int, *, late: bool, ledger: Path) -> None:
        super().__init__(step, late=late)
        self._ledger = ledger
        self._kept: dict[Path, bytes] = {}

    def _strike(self, done: object) -> None:
        self._kept = self._read()
        for file, task in self.made:
            if "_ledger" not in file:  # an orderly close changes only files that are restored
                task.cancel()
        super()._strike(done)

    def _read(self) -> dict[Path, bytes]:
        while True:
            files = self._files()
            with contextlib.suppress(FileNotFoundError):  # it is being closed: start over
                kept = {path: path.read_bytes() for path in files}
                if files == self._files():  # pragma: no branch - hardly ever not
                    return kept

    def _files(self) -> list[Path]:
        # The lock records the last task in the ledger: it must not be newer than the ledger.
        files = [Path(f"{self._ledger}{end}") for end in (".lock", "", "-wal")]
        return [path for path in files if path.exists()]

    def bury(self) -> None:
        """Restore the files as they were at the blow, once all tasks have ended."""
        if self.struck:
            for path in self._files():
                path.unlink()
            for path, content in self._kept.items():
                path.write_bytes(content)


async def cancel_at(call: Callable[[], Coroutine[Any, Any, Any]], step: int, *, late: bool) -> bool:
    """Cancel a call at its *step*-th suspension; return whether it got that far.

    The call must then raise `CancelledError`, unless it has succeeded by then.
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
    """Count the suspensions of all tasks that the package creates."""
    loop = asyncio.get_running_loop()

    def factory(
        loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any
    ) -> asyncio.Task[Any]:
        code = getattr(coroutine, "cr_code", None)
        if code is not None and code.co_filename.startswith(_OURS):
            task = asyncio.Task(stepped(coroutine, blow), loop=loop, **options)
            blow.made.append((code.co_filename, task))
            # Nothing else closes the coroutine of a task that is cancelled before it starts.
            task.add_done_callback(lambda _: coroutine.close())
            return task
        return asyncio.Task(coroutine, loop=loop, **options)

    loop.set_task_factory(factory)
    try:
        yield
    finally:
        loop.set_task_factory(None)


class Sweep:
    """Counts up from 1, by *stride*, until a call completes without being cancelled.

    Attributes:
        struck: Whether the call reached the step that was yielded last.
    """

    def __init__(self, stride: int = 1) -> None:
        self.struck = True
        self._stride = stride

    def __iter__(self) -> Iterator[int]:
        step = 1 - self._stride
        while self.struck:
            step += self._stride
            assert step < _MOST_STEPS, "there is no end to the suspensions"
            yield step
