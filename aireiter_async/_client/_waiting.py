"""Waiting for tasks to end: patient with the network, light on the service."""

import asyncio
import inspect
import logging
import math
import reprlib
from collections.abc import Awaitable, Callable
from typing import Final

from attrs import define, evolve

from aireiter_async import _wire, models
from aireiter_async._client._api import Api
from aireiter_async._poll import Expectation
from aireiter_async._retry import retry_after, transient
from aireiter_async._tasks import Task, TaskStatus
from aireiter_async.errors import (
    AireiterError,
    RequestTimeoutError,
    TaskFailedError,
    TaskNotFoundError,
    TaskTimeoutError,
)

_log = logging.getLogger(__name__)

OnUpdate = Callable[[Task], Awaitable[None] | None]

# Seconds: a date in the far future, sent by mistake, must not end the looks for a paid task.
_LONGEST_PAUSE: Final = 3600.0

_short = reprlib.Repr()
_short.maxdict = 20


class Waiting:
    """Waits for tasks over an `Api`.

    Args:
        api: The endpoints: the polls themselves are the retries.
    """

    def __init__(self, api: Api) -> None:
        self._api = api
        self._policy = api.settings.polling
        self._durations = api.shared.durations
        self._counters = api.shared.counters
        self._clock = api.shared.clock.now
        self._sleep = api.shared.clock.sleep

    async def follow(
        self,
        task: Task,
        *,
        timeout: float | None,  # noqa: ASYNC109 - after it comes one final poll
        on_update: OnUpdate | None,
    ) -> Task:
        """Report *task*, which this client has just submitted, then wait for it as `wait` does."""
        try:
            await self._report(task, on_update)
            if task.done:  # found so when its submit was settled
                self._count(task, math.inf)
            return await self.wait(task, elapsed=0.0, timeout=timeout, on_update=on_update)
        except (asyncio.CancelledError, RuntimeError) as error:
            error.add_note(f"the task {task.out_task_id} was accepted, and goes on")
            raise

    async def wait(
        self,
        task: Task,
        *,
        elapsed: float,
        timeout: float | None,  # noqa: ASYNC109 - after it comes one last look
        on_update: OnUpdate | None,
    ) -> Task:
        """Look for *task* until it has ended.

        Args:
            task: The task as it was last seen.
            elapsed: Seconds since it was submitted, as far as is known.
            timeout: Seconds from now, None for no limit. A look that is not answered by then
                is given up for the last one, which has the client's own ``timeout``.
            on_update: Told of the task when its status has changed.

        Raises:
            TaskFailedError: The service says that it failed.
            TaskTimeoutError: It had not ended at the deadline, nor at one last look.
            TaskNotFoundError: The service does not know it, not even after a while.
            AireiterError: The service refuses to be asked.
        """
        if task.done:
            return _completed(task)
        started = self._clock()
        deadline = math.inf if timeout is None else started + timeout
        expected = self._expect(task.model)
        waits = self._policy.waits(expected, elapsed)
        missing = _Missing(self._policy.grace)
        seconds = next(waits)
        while True:
            now = self._clock()
            last = now + seconds >= deadline
            await self._sleep(max(0.0, deadline - now) if last else seconds)
            left = None if last or timeout is None else deadline - self._clock()
            seen, trouble = await self._look(task, missing, left)
            if seen.status is not task.status or (_unseen(task) and not trouble):
                await self._report(seen, on_update)
            task = seen
            if task.done:
                self._count(task, elapsed + self._clock() - started)
                return _completed(task)
            if last:
                if isinstance(trouble, TaskNotFoundError) and _unseen(task):
                    raise trouble  # it was never there: it does not go on
                raise TaskTimeoutError(task) from trouble
            asked = 0.0 if trouble is None else min(retry_after(trouble) or 0.0, _LONGEST_PAUSE)
            if not expected.learned and (expected := self._expect(task.model)).learned:
                # Another task of this model has ended meanwhile: now it is known when to look.
                waits = self._policy.waits(expected, elapsed + self._clock() - started)
                seconds = max(next(waits), waits.send(asked))
            else:
                seconds = waits.send(asked)

    async def _look(
        self, task: Task, missing: "_Missing", seconds: float | None
    ) -> tuple[Task, AireiterError | None]:
        """Look once: the task as it is now, or as it was and why it could not be seen in time."""
        id_ = task.out_task_id
        try:
            async with asyncio.timeout(seconds):
                seen = await self._api.exchange(
                    self._api.query, _wire.encode_query(id_), id_, id_, task.model
                )
        except TaskNotFoundError as error:
            if missing.too_long(self._clock()):
                raise
            return task, error
        except AireiterError as error:
            if not transient(error):
                raise
            trouble = error
        except TimeoutError:
            what = "a look was not answered before the deadline"
            trouble = RequestTimeoutError(what, task.out_task_id)
        else:
            missing.since = None
            return _with_what_was_known(seen, task), None
        _log.info("a look for %s failed, the wait goes on: %s", task.out_task_id, trouble)
        return task, trouble

    def _expect(self, model: str | None) -> Expectation:
        known = models.MODELS.get(model) if model else None
        return self._durations.expect(model, known.MEDIUM if known else None)

    async def _report(self, task: Task, on_update: OnUpdate | None) -> None:
        """Tell of a status that is new."""
        if task.status is TaskStatus.UNKNOWN:
            shown = _short.repr(task.raw)  # it may repeat the task's input
            _log.warning("task %s has a status that is not known: %s", task.out_task_id, shown)
        if on_update is not None:
            told = on_update(task)
            if inspect.isawaitable(told):
                await told

    def _count(self, task: Task, seconds: float) -> None:
        """Count a task that has ended, *seconds* after its submit if it has no times itself."""
        counters = self._counters
        if task.credits_used is not None:
            counters.credits_used += task.credits_used
            counters.used_by_model[task.model or "?"] += task.credits_used
        if task.status is TaskStatus.FAILED:
            counters.failed += 1
            return
        counters.completed += 1
        if task.created_at is not None and task.completed_at is not None:
            seconds = (task.completed_at - task.created_at).total_seconds()
        if task.model is not None and 0 <= seconds < math.inf:
            self._durations.learn(task.model, seconds)


@define
class _Missing:
    """How long a task has not been found without a break: for a while that may be a lag."""

    grace: float
    since: float | None = None

    def too_long(self, now: float) -> bool:
        if self.since is None:
            self.since = now
        return now - self.since >= self.grace


def _unseen(task: Task) -> bool:
    """Tell whether only the id is known."""
    return task.status is TaskStatus.UNKNOWN and task.raw is None


def _with_what_was_known(seen: Task, before: Task) -> Task:
    """Keep what the answer to a submit says and that to a query may not."""
    if before.estimated_credits is None and (before.created_at is None or seen.created_at):
        return seen
    return evolve(
        seen,
        estimated_credits=before.estimated_credits,
        created_at=seen.created_at or before.created_at,
    )


def _completed(task: Task) -> Task:
    if task.status is TaskStatus.FAILED:
        raise TaskFailedError(task)
    return task
