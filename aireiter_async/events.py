"""Events of a client, for listeners passed to `AsyncClient.subscribe`.

::

    def log(event: events.Event) -> None:
        match event:
            case events.TaskDone(task):
                print(task.out_task_id, task.status)

    unsubscribe = client.subscribe(log)

A listener is called in the event loop, in the middle of the call that emits the
event, so it must be fast and must not block. Its exceptions are logged as errors
and suppressed: a listener never loses a paid task.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

from attrs import frozen

from aireiter_async._tasks import Task, TaskStatus
from aireiter_async.errors import AireiterError

__all__ = [
    "CallEnded",
    "CallKind",
    "CallStarted",
    "Event",
    "Listener",
    "RateLimited",
    "RequestKind",
    "RequestQueued",
    "RequestRetried",
    "RequestSent",
    "ResultDownloaded",
    "StatusChanged",
    "SubmitSettled",
    "TaskAccepted",
    "TaskDone",
    "TaskStored",
]

T = TypeVar("T")

_log = logging.getLogger(__name__)

CallKind: TypeAlias = Literal["run", "submit", "wait", "download", "batch"]
RequestKind: TypeAlias = Literal["submit", "query", "balance", "result"]


@frozen(eq=False)
class CallStarted:
    """A call of the client has started; each is equal to itself only.

    A `run` contains a submit and a wait, each item of a `run_many` is a run, and each item
    awaited from `watch` is a wait. `read` counts as a download. A call ends in the
    `contextvars` context in which it started; that of a batch is its workers'.

    Attributes:
        kind: The kind of call.
        out_task_id: The ID of the task concerned, None if there is none or it is not known yet.
        model: The name of its model, None if unknown.
    """

    kind: CallKind
    out_task_id: str | None = None
    model: str | None = None


@frozen
class CallEnded:
    """A call has ended; emitted to the listeners that have seen it start.

    Attributes:
        call: The event of its start.
        result: The `Task` that it returned, or for a batch its `BatchProgress`; else None.
        error: The exception that it raised, such as a CancelledError; for an item of a batch,
            the failure; for a batch, `Batch.stopped` as well.
    """

    call: CallStarted
    result: Any = None
    error: BaseException | None = None


@frozen
class RequestQueued:
    """A call queues for a slot and, if a rate applies, for its turn.

    Attributes:
        kind: The kind of request.
        out_task_id: The ID of the task concerned, None if there is none.
    """

    kind: RequestKind
    out_task_id: str | None


@frozen
class RequestSent:
    """A request is sent; emitted for each attempt.

    Attributes:
        kind: The kind of request.
        out_task_id: The ID of the task concerned, None if there is none.
        queued: Seconds from `RequestQueued` to its slot.
    """

    kind: RequestKind
    out_task_id: str | None
    queued: float = 0.0


@frozen
class RequestRetried:
    """An attempt failed and will be retried, or a poll of `wait` failed.

    Attributes:
        error: The failure.
        seconds: The wait before the next attempt.
        out_task_id: The ID of the task concerned, None if there is none.
        kind: The kind of request.
    """

    error: AireiterError
    seconds: float
    out_task_id: str | None
    kind: RequestKind


@frozen
class RateLimited:
    """The service rejected a request for its rate (429, 425).

    Attributes:
        retry_after: The service's ``Retry-After`` in seconds, or None.
        out_task_id: The ID of the task concerned, None if there is none.
    """

    retry_after: float | None
    out_task_id: str | None


@frozen
class SubmitSettled:
    """An ambiguous submit was looked up.

    Attributes:
        out_task_id: The task's ID.
        task: The task, or None if it was not found.
        seconds: The duration of the lookup.
    """

    out_task_id: str
    task: Task | None
    seconds: float = 0.0


@frozen
class TaskAccepted:
    """The service has accepted a task.

    Attributes:
        task: The task as the service first describes it.
    """

    task: Task


@frozen
class StatusChanged:
    """A task that a call waits for has a new status.

    Attributes:
        task: The task as it is now.
        before: The previous status.
    """

    task: Task
    before: TaskStatus


@frozen
class TaskDone:
    """A task has ended, successfully or not; emitted once per task.

    Attributes:
        task: The task, with its outputs and its charge, or its error.
    """

    task: Task


@frozen
class ResultDownloaded:
    """A result was saved to a file or a sink.

    Attributes:
        out_task_id: The ID of the result's task, None if only the URL was known.
        path: The file's path, or what the sink returned.
        size: Size in bytes.
    """

    out_task_id: str | None
    path: Path | str
    size: int


@frozen
class TaskStored:
    """A ledger has durably recorded a task's new state.

    If clients share a ledger, each emits the events of all its batches.

    Attributes:
        out_task_id: The task's ID.
        state: The `LedgerState`.
    """

    out_task_id: str
    state: str


Event: TypeAlias = (
    CallStarted
    | CallEnded
    | RequestQueued
    | RequestSent
    | RequestRetried
    | RateLimited
    | SubmitSettled
    | TaskAccepted
    | StatusChanged
    | TaskDone
    | ResultDownloaded
    | TaskStored
)
Listener: TypeAlias = Callable[[Event], object]


class Dispatcher:
    """Passes events to listeners.

    Callers check `listeners` first, so that no event is created without a listener.

    Attributes:
        listeners: The listeners, in the order in which they are called.
    """

    def __init__(self) -> None:
        self.listeners: tuple[partial[object], ...] = ()

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Add a listener, and return a function that removes it; calling that again does nothing.

        Raises:
            TypeError: *listener* is not a plain function.
        """
        if iscoroutinefunction(listener):
            raise TypeError(
                "listener must be a plain function, got a coroutine function: start a task in it"
            )
        entry = partial(listener)  # tells two subscriptions of one listener apart
        self.listeners = (*self.listeners, entry)

        def unsubscribe() -> None:
            self.listeners = tuple(each for each in self.listeners if each is not entry)

        return unsubscribe

    def emit(self, event: Event) -> None:
        """Call every listener."""
        _emit(self.listeners, event)

    def begin(
        self, kind: CallKind, out_task_id: str | None = None, model: str | None = None
    ) -> Callable[[Any, BaseException | None], None]:
        """Emit the start of a call; return a function that emits its end, with result and error."""
        listeners, call = self.listeners, CallStarted(kind, out_task_id, model)
        _emit(listeners, call)

        def end(result: Any, error: BaseException | None) -> None:
            _emit(listeners, CallEnded(call, result, error))

        return end

    async def observe(
        self,
        call: Awaitable[T],
        kind: CallKind,
        out_task_id: str | None = None,
        model: str | None = None,
    ) -> T:
        """Await *call*, and emit its start and end."""
        end = self.begin(kind, out_task_id, model)
        try:
            result = await call
        except BaseException as error:
            end(None, error)
            raise
        end(result if isinstance(result, Task) else None, None)
        return result


def _emit(listeners: Iterable[Listener], event: Event) -> None:
    for listener in listeners:
        try:
            listener(event)
        except Exception:  # noqa: BLE001 - must not break the call
            task = getattr(event, "task", None) or getattr(event, "call", event)
            out_task_id = getattr(task, "out_task_id", None)
            _log.exception("%s of task %s: a listener failed", type(event).__name__, out_task_id)
