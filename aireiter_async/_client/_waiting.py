"""Wait for tasks to end: tolerant of network failures, with few polls."""

import asyncio
import inspect
import logging
import math
import reprlib
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, NoReturn, Self, TypeAlias

from attrs import evolve

from aireiter_async import events, models
from aireiter_async._client._api import Api
from aireiter_async._poll import Expectation, Webhooks
from aireiter_async._retry import retry_after
from aireiter_async._tasks import Task, TaskStatus
from aireiter_async._text import without_queries
from aireiter_async.errors import (
    AireiterError,
    AuthenticationError,
    InsufficientCreditsError,
    InvalidRequestError,
    ProtocolError,
    RequestTimeoutError,
    ResultMissingError,
    TaskFailedError,
    TaskNotFoundError,
    TaskTimeoutError,
)

_log = logging.getLogger(__name__)

OnUpdate: TypeAlias = Callable[[Task], Awaitable[None] | None]

# The service rejects the query itself: polling again is pointless.
_PERMANENT: Final = AuthenticationError | InsufficientCreditsError | InvalidRequestError
# Failed polls after which a base URL that has never responded as the API is considered wrong.
_MAX_FAILURES: Final = 5
_SHORTEST_PAUSE: Final = 0.25  # seconds after a failed poll, and between those due to callbacks
_PUBLISHING: Final = Expectation(1.0)  # for a result that is not published yet

_short = reprlib.Repr()
_short.maxdict = 20


class Watch:
    """Polls one task; an iterator over its status changes.

    It holds no resources between items: leaving the loop early needs no clean-up.

    Args:
        task: The task as it was last seen.
        timeout: Seconds from now to the final poll, None for no limit.
        from_start: Whether this client has just submitted the task, so that its duration can be
            measured from now.
        reported: Whether the caller already knows the task's status.
        verify: Raises if the task found is not the one that was submitted.
        webhooks: Announces callbacks, each of which causes one poll.
        expects_callback: Whether a callback is expected, so that other polls may be sparse.
    """

    def __init__(
        self,
        api: Api,
        task: Task,
        *,
        timeout: float | None = None,
        from_start: bool = False,
        reported: bool = False,
        verify: Callable[[Task], None] | None = None,
        webhooks: Webhooks | None = None,
        expects_callback: bool = True,
    ) -> None:
        self.task = task
        self._api = api
        self._webhooks = webhooks
        self._sparse = expects_callback and webhooks is not None
        self._woken = False  # a callback caused the last poll
        self._reported = reported or _is_unseen(task) or self._is_empty()
        self._from_start = from_start
        self._verify = verify
        self._started_at = api.shared.clock.now()
        self._deadline = math.inf if timeout is None else self._started_at + timeout
        self._age = 0.0 if from_start else _age(task)  # at `_started_at`
        self._last_error: AireiterError | None = None
        self._failures = 0  # in a row
        self._blocked_until = -math.inf  # by the last Retry-After
        self._missing_since: float | None = None
        self._empty_since: float | None = None
        self._polls = 0
        self._polled_at = -math.inf
        self._scheduled = False
        self._in_finish = False  # `finish` is one call; else each item is one

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Task:
        if not self._reported:
            self._reported = True
            if self._from_start and self.task.done:  # the settled submit found it ended
                self._api.shared.note_done(self.task)
                self._log_status()
            return self.task
        if self.task.done and not self._is_empty():
            raise StopAsyncIteration
        call = self._next_change()
        if not self._in_finish and self._api.shared.events.listeners:
            call = self._observe(call)
        return await call

    async def _next_change(self) -> Task:
        if not self._scheduled:
            self._scheduled = True
            if self.task.model is not None:
                await self._api.load_models()
            self._schedule(self._expect())
        while True:
            before = self.task
            if await self._poll() and (
                self.task.status is not before.status or self.task.done or _is_unseen(before)
            ):
                self._note_change(before.status)
                return self.task

    def finish(self, on_update: OnUpdate | None = None) -> Coroutine[Any, Any, Task]:
        """Poll until the task has ended, and return it.

        Raises:
            TaskFailedError: The task failed.
            AireiterError: As `__anext__`.
        """
        self._in_finish = True
        call = self._finish(on_update)
        return self._observe(call) if self._api.shared.events.listeners else call

    def _observe(self, call: Coroutine[Any, Any, Task]) -> Coroutine[Any, Any, Task]:
        dispatcher, task = self._api.shared.events, self.task
        return dispatcher.observe(call, "wait", task.out_task_id, task.model)

    async def _finish(self, on_update: OnUpdate | None) -> Task:
        out_task_id = self.task.out_task_id
        try:
            async for task in self:
                if on_update is not None:
                    awaitable = on_update(task)
                    if inspect.isawaitable(awaitable):
                        await awaitable
        except AireiterError:
            raise
        except BaseException as error:
            # Cancelled, closed, or raised by on_update: keep the ID.
            error.add_note(f"task {out_task_id} was accepted and keeps running")
            raise
        if self.task.status is TaskStatus.FAILED:
            raise TaskFailedError(self.task)
        return self.task

    def _schedule(self, expected: Expectation) -> None:
        """Restart the schedule from the expected duration."""
        now = self._api.shared.clock.now()
        self._learned = expected.learned
        age = self._age + now - self._started_at
        self._waits = self._api.settings.polling.waits(expected, age, sparse=self._sparse)
        self._next_at = now + next(self._waits)
        self._interval = next(self._waits)

    async def _poll(self) -> bool:
        """Sleep until the next poll is due, poll once, and return whether the task was seen."""
        api, clock = self._api, self._api.shared.clock
        due = self._next_at
        if self._webhooks is not None:
            due = await self._sleep_until_callback(self._webhooks)
        is_last = due >= self._deadline
        # The rest, if a callback has moved the poll forward.
        await clock.sleep((self._deadline if is_last else due) - clock.now())
        if is_last and self._blocked_until > self._deadline:
            self._time_out()
        # A poll in progress at the deadline is abandoned for the final one.
        limit = api.settings.timeout if is_last else self._deadline - clock.now()
        out_task_id, model = self.task.out_task_id, self.task.model
        self._polls += 1
        self._polled_at = clock.now()
        try:
            async with asyncio.timeout(None if limit == math.inf else limit):
                seen = await api.query_once(out_task_id, model)
        except AireiterError as error:
            self._handle_failure(error, is_last=is_last)
        except TimeoutError:
            text = "a poll got no response before the deadline"
            self._handle_failure(RequestTimeoutError(text, out_task_id), is_last=is_last)
        else:
            self._handle_task(_merge(seen, self.task), is_last=is_last)
            return self._empty_since is None
        return False

    async def _sleep_until_callback(self, webhooks: Webhooks) -> float:
        """Sleep until the next poll is due, or a callback calls for one; return when that is due.

        The receiver keeps callbacks that arrive between two sleeps.
        """
        clock = self._api.shared.clock
        called: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        end = webhooks.expect(self.task.out_task_id, partial(_wake, called))
        try:
            await clock.sleep(min(self._next_at, self._deadline) - clock.now(), called)
        finally:
            end()
        self._woken = called.done() and called.result()
        if not self._woken:
            return self._next_at
        # Any number of callbacks causes one poll per pause, and none before a Retry-After.
        return min(self._next_at, max(self._blocked_until, self._polled_at + _SHORTEST_PAUSE))

    def _handle_task(self, task: Task, *, is_last: bool) -> None:
        """Record a successful poll and schedule the next."""
        if self._verify is not None:
            self._verify(task)
        now = self._api.shared.clock.now()
        self._failures, self._missing_since, self._last_error = 0, None, None
        unpublished = task.status is TaskStatus.COMPLETED and not _has_results(task)
        if unpublished:
            # A service may report the end before it publishes the results.
            if self._empty_since is None:
                self._empty_since = now
                self._waits = self._api.settings.polling.waits(_PUBLISHING)
            if is_last or now - self._empty_since >= self._api.settings.polling.publishing:
                self._note_done(task)
                raise ResultMissingError(task)
            self._next_at = now + max(_SHORTEST_PAUSE, next(self._waits))
            return
        self._empty_since = None
        self.task = task
        if task.done:
            self._note_done(task)
        elif is_last:
            self._time_out()
        elif not self._learned and task.model is not None and (expected := self._expect()).learned:
            # Another task of this model has ended meanwhile; this one has just been polled.
            self._schedule(expected)
            self._next_at = max(self._next_at, now + self._interval)
        elif not self._woken or self._next_at <= now:  # a callback's poll is beside the schedule
            self._next_at, self._interval = now + self._interval, next(self._waits)

    def _handle_failure(self, error: AireiterError, *, is_last: bool) -> None:
        """Record a failed poll: raise a permanent error, else schedule the next poll."""
        clock, policy = self._api.shared.clock, self._api.settings.retry
        now, self._last_error = clock.now(), error
        if isinstance(error, TaskNotFoundError):
            # For a while, this may be lag of the service.
            if self._missing_since is None:
                self._missing_since = now
            if now - self._missing_since >= self._api.settings.polling.grace:
                raise error
            if is_last:
                self._time_out()
            self._next_at, self._interval = now + self._interval, next(self._waits)
            return
        if isinstance(error, _PERMANENT):
            raise error
        reason = without_queries(error.summary)
        _log.info("wait %s at %s: a poll failed: %s", self.task.out_task_id, self._api.host, reason)
        if is_last:
            self._time_out()
        self._failures += 1
        if self._failures >= _MAX_FAILURES and not self._api.has_responded:
            raise self._wrong_base_url(error)
        required = retry_after(error)
        pause = policy.wait(error, self._failures - 1)
        if required is None:
            pause = min(self._interval, max(_SHORTEST_PAUSE, pause))
        else:
            self._blocked_until = now + required
            if required > policy.max_retry_after and self._blocked_until <= self._deadline:
                raise error
        self._next_at = now + pause
        self._emit_retry(error, pause)

    def _time_out(self) -> NoReturn:
        error = self._last_error
        if isinstance(error, TaskNotFoundError) and _is_unseen(self.task):
            raise error  # never found, so it is not running
        raise TaskTimeoutError(self.task) from error

    def _wrong_base_url(self, error: AireiterError) -> AireiterError:
        text = f"{self._api.settings.base_url} has never responded as the API"
        if isinstance(error, ProtocolError):
            return evolve(error, message=f"{text}: {error.message}")
        error.add_note(text)
        return error

    def _expect(self) -> Expectation:
        model = self.task.model
        known = models.MODELS.get(model) if model is not None else None
        return self._api.shared.durations.expect(model, known.MEDIUM if known else None)

    def _note_change(self, before: TaskStatus) -> None:
        task, dispatcher = self.task, self._api.shared.events
        self._log_status()
        if task.status is TaskStatus.UNKNOWN:
            shown = without_queries(_short.repr(task.raw))  # it may repeat the task's input
            text = "wait %s at %s: the status is unknown: %s"
            _log.warning(text, task.out_task_id, self._api.host, shown)
        if dispatcher.listeners:
            dispatcher.emit(events.StatusChanged(task, before))

    def _log_status(self) -> None:
        _log.debug("wait %s at %s: %s", self.task.out_task_id, self._api.host, self.task.status)

    def _emit_retry(self, error: AireiterError, pause: float) -> None:
        dispatcher = self._api.shared.events
        if dispatcher.listeners:
            out_task_id = self.task.out_task_id
            dispatcher.emit(events.RequestRetried(error, pause, out_task_id, "query"))

    def _note_done(self, task: Task) -> None:
        """Count a task that has ended, and learn how long it took."""
        self._api.shared.note_done(task)
        if task.status is not TaskStatus.COMPLETED or task.model is None:
            return
        waited = self._api.shared.clock.now() - self._started_at
        by_service = None
        if task.created_at is not None and task.completed_at is not None:
            by_service = (task.completed_at - task.created_at).total_seconds()
        elif self._learned and self._polls == 1 and not self._woken:
            by_service = waited / 2  # it ended some time before its first poll: poll earlier
        self._api.shared.durations.observe(
            task.model, waited, by_service, from_start=self._from_start
        )

    def _is_empty(self) -> bool:
        """Return whether the task has completed without a result."""
        return self.task.status is TaskStatus.COMPLETED and not _has_results(self.task)


def _wake(called: asyncio.Future[bool]) -> None:
    if not called.done():
        called.set_result(True)


def _is_unseen(task: Task) -> bool:
    """Return whether only the ID is known."""
    return task.status is TaskStatus.UNKNOWN and task.raw is None


def _age(task: Task) -> float:
    """Return the seconds since *task* was created, infinite if unknown."""
    if task.created_at is None:
        return math.inf
    return max(0.0, (datetime.now(UTC) - task.created_at).total_seconds())


def _has_results(task: Task) -> bool:
    return any(output.url or output.text or output.title for output in task.outputs)


def _merge(seen: Task, before: Task) -> Task:
    """Keep fields that the response to a submit has and that to a query may lack."""
    if before.estimated_credits is None and (before.created_at is None or seen.created_at):
        return seen
    return evolve(
        seen,
        estimated_credits=before.estimated_credits,
        created_at=seen.created_at or before.created_at,
    )
