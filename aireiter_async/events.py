"""What a client does, as it happens: pass a listener to `AsyncClient.subscribe`.

::

    def log(event: events.Event) -> None:
        match event:
            case events.TaskDone(task):
                print(task.out_task_id, task.status)

    unsubscribe = client.subscribe(log)

A listener is called within the event loop, in the middle of the call that the
event is about, so it must be quick and must not block. What it raises is logged
as an error and goes no further: a listener never loses a paid task.
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
    """A call asks for a slot, and for its turn where a rate applies.

    Attributes:
        kind: What is requested.
        out_task_id: The task that it is about.
    """

    kind: RequestKind
    out_task_id: str | None


@frozen
class RequestSent:
    """A request leaves: one for each attempt.

    Attributes:
        kind: What is requested.
        out_task_id: The task that it is about.
    """

    kind: RequestKind
    out_task_id: str | None


@frozen
class RequestRetried:
    """An attempt has failed, and another one follows.

    Attributes:
        error: How it failed.
        seconds: The wait before the next attempt.
        out_task_id: The task that it is about.
    """

    error: AireiterError
    seconds: float
    out_task_id: str | None


@frozen
class RateLimited:
    """The service asks for a slower pace (429, 425).

    Attributes:
        retry_after: Seconds that it asks to wait for, None if it does not say.
        out_task_id: The task that the request was about.
    """

    retry_after: float | None
    out_task_id: str | None


@frozen
class SubmitSettled:
    """The service was asked about a submit that may have been accepted.

    Attributes:
        out_task_id: The task's ID.
        task: The task; None: it was not found, and is submitted again.
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
    """A task that is being waited for has a new status.

    Attributes:
        task: The task as it is now.
        before: The status that it had.
    """

    task: Task
    before: TaskStatus


@frozen
class TaskDone:
    """A task has ended, either way; once per task, however often it is waited for.

    Attributes:
        task: The task, with its outputs and its charge, or its error.
    """

    task: Task


@frozen
class ResultDownloaded:
    """A result is in its file, or in its sink.

    Attributes:
        out_task_id: The task whose result it is, None where only the URL was known.
        path: Where it is, or what the sink returned.
        size: Its length in bytes.
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
    """Passes events on to listeners.

    Whoever emits asks for `listeners` first, so that no event is made for nobody.

    Attributes:
        listeners: Called in this order.
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
        entry: Listener = partial(listener)  # unequal to all others, even of the same listener
        self.listeners = (*self.listeners, entry)

        def unsubscribe() -> None:
            self.listeners = tuple(each for each in self.listeners if each is not entry)

        return unsubscribe

    def emit(self, event: Event) -> None:
        """Call every listener."""
        for listener in self.listeners:
            try:
                listener(event)
            except Exception:  # noqa: BLE001 - whatever it is, the call it is about goes on
                _log.exception("a listener failed on %s", type(event).__name__)
