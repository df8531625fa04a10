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
from collections.abc import Callable
from functools import partial
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Literal, TypeAlias

from attrs import frozen

from aireiter_async._tasks import Task, TaskStatus
from aireiter_async.errors import AireiterError

__all__ = [
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

_log = logging.getLogger(__name__)

RequestKind: TypeAlias = Literal["submit", "query", "balance", "result"]


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
    """

    kind: RequestKind
    out_task_id: str | None


@frozen
class RequestRetried:
    """An attempt failed and will be retried.

    Attributes:
        error: The failure.
        seconds: The wait before the next attempt.
        out_task_id: The ID of the task concerned, None if there is none.
    """

    error: AireiterError
    seconds: float
    out_task_id: str | None


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
    """

    out_task_id: str
    task: Task | None


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

    Attributes:
        out_task_id: The task's ID.
        state: The `LedgerState`.
    """

    out_task_id: str
    state: str


Event: TypeAlias = (
    RequestQueued
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
        self.listeners: tuple[Listener, ...] = ()

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Add a listener, and return a function that removes it; calling that again does nothing.

        Raises:
            TypeError: *listener* is not a plain function.
        """
        if iscoroutinefunction(listener):
            raise TypeError("listener must be a plain function, not a coroutine function")
        entry: Listener = partial(listener)  # unequal to any other
        self.listeners = (*self.listeners, entry)

        def unsubscribe() -> None:
            self.listeners = tuple(each for each in self.listeners if each is not entry)

        return unsubscribe

    def emit(self, event: Event) -> None:
        """Call every listener."""
        for listener in self.listeners:
            try:
                listener(event)
            except Exception:  # noqa: BLE001 - must not break the call
                _log.exception("a listener failed on %s", type(event).__name__)
