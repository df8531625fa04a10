"""
One request of a batch, from its line in the input to its outcome.

With a ledger, what an earlier run has left decides what remains to be done:
nothing, waiting, or finding out first whether the task exists.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, Final

from attrs import define, evolve, field

from aireiter_async._batch._budget import Budget, Reservation
from aireiter_async._batch._plan import Outcome, Plan
from aireiter_async._batch._progress import Progress
from aireiter_async._ledger import Entry, Ledger, State
from aireiter_async._requests import as_request
from aireiter_async._tasks import Task, TaskStatus
from aireiter_async._wire import restore_task
from aireiter_async.errors import (
    AireiterError,
    AmbiguousSubmitError,
    InvalidRequestError,
    TaskFailedError,
)

# States in which it is not known whether the service has the task.
_DOUBTFUL: Final = frozenset({State.INTENDED, State.UNCERTAIN})
_RETRIED: Final = frozenset({State.REFUSED, State.FAILED})


@define
class _Item:
    """
    One request on its way.

    Attributes:
        index: Where it stands in the input.
        request: What the source has yielded, then the request as it is submitted.
        accepted: Whether the service is known to have its task.
        reservation: What it may cost, once that is reserved.
    """

    index: int
    request: Any
    accepted: bool = False
    reservation: Reservation = field(init=False)

    def outcome(self, task: Task, paths: tuple[Path, ...] = ()) -> Outcome:
        """Return that it has gone well."""
        return Outcome(self.index, self.request, task, paths=paths)


class Items:
    """
    Carries out a `Plan`, one request at a time.

    Args:
        plan: What is done.
        budget: What may be spent.
        progress: Told how far it is.
    """

    def __init__(self, plan: Plan, budget: Budget, progress: Progress) -> None:
        self._plan = plan
        self._client = plan.client
        self._ledger = plan.ledger
        self._budget = budget
        self._progress = progress
        self._busy: dict[str, asyncio.Event] = {}

    async def work(self, index: int, source_item: Any) -> Outcome:
        """
        Bring one request to its outcome: whatever befalls it alone is its outcome's error.

        Raises:
            LedgerError: The ledger cannot be written: the batch has to end.
            Exception: What the caller's ``on_progress`` has raised.
        """
        progress = self._progress
        progress.pulled += 1
        progress.submitting += 1
        item = _Item(index, source_item)
        try:
            outcome = await self._carry_out(item)
        except (AireiterError, TypeError, ValueError) as error:
            broken = progress.broken or (self._ledger and self._ledger.broken)
            if broken:
                raise broken from broken.__cause__
            outcome = Outcome(index, item.request, error=error)
        if item.accepted:
            progress.outstanding -= 1
        else:
            progress.submitting -= 1
        if outcome.ok:
            progress.done += 1
        else:
            progress.failed += 1
        progress.tell()
        return outcome

    async def _carry_out(self, item: _Item) -> Outcome:
        item.request = as_request(item.request)
        ledger = self._ledger
        if ledger is None:
            return await self._start(item)
        item.request, row = ledger.intend(item.request, item.index)
        # An input may repeat an id: whoever comes second finds what the first has left.
        while busy := self._busy.get(row.out_task_id):
            await busy.wait()
        self._busy[row.out_task_id] = done = asyncio.Event()
        try:
            return await self._carry_on(item, row, ledger)
        finally:
            del self._busy[row.out_task_id]
            done.set()

    async def _carry_on(self, item: _Item, row: Entry, ledger: Ledger) -> Outcome:
        """Go on from where an earlier run has left off, if one has."""
        # A limit is no reason to refuse what is there already: with one, that is found out first.
        limited = self._budget.limited
        entry = await (ledger.find(row) if limited else ledger.claim(row))
        if entry is None:
            return await self._start(item, partial(ledger.claim, row) if limited else None)
        item.request = evolve(item.request, out_task_id=entry.out_task_id)
        if entry.state in _DOUBTFUL:
            return await self._start(item, maybe_sent=True)
        if entry.state not in _RETRIED or not self._plan.retry_failed:
            return await self._resume(item, entry)

        async def replace() -> None:
            item.request = await ledger.replace(entry, item.request)

        return await self._start(item, replace)

    async def _resume(self, item: _Item, entry: Entry) -> Outcome:
        """Bring what an earlier run has left to its outcome without a submit."""
        task = _restore(entry)
        if entry.state is State.REFUSED:
            raise _restore_error(entry)
        if entry.state is State.FAILED:
            raise TaskFailedError(task)
        if entry.state is State.SUBMITTED:
            if not self._plan.wait:
                return item.outcome(task)
            item.reservation = self._budget.resume(entry.model, entry.estimated_credits)
            self._count(item, task)
            return await self._follow(item, self._client.wait(task, timeout=self._plan.timeout))
        paths = tuple(Path(path) for path in json.loads(entry.paths or "[]"))
        if entry.state is State.DOWNLOADED and all(path.exists() for path in paths):
            return item.outcome(task, paths)
        return await self._download(item, task)

    async def _start(
        self,
        item: _Item,
        intend: Callable[[], Awaitable[object]] | None = None,
        *,
        maybe_sent: bool = False,
    ) -> Outcome:
        """Submit the request within the budget and, if that is the plan, wait for its task."""
        request = item.request
        item.reservation = await self._budget.reserve(request.model, request.out_task_id)
        try:
            if intend is not None:
                await intend()
            if self._plan.wait:
                running = self._client.run(
                    item.request,
                    timeout=self._plan.timeout,
                    on_update=partial(self._seen, item),
                    maybe_sent=maybe_sent,
                )
            else:
                running = self._submit(item, maybe_sent=maybe_sent)
            return await self._follow(item, running)
        finally:
            item.reservation.close()

    async def _submit(self, item: _Item, *, maybe_sent: bool) -> Task:
        task = await self._client.submit(item.request, maybe_sent=maybe_sent)
        self._seen(item, task)
        return task

    def _seen(self, item: _Item, task: Task) -> None:
        """Take in that the service knows the task: the first time, that it was accepted."""
        if item.accepted:
            return
        item.reservation.accepted(task.estimated_credits)
        if self._ledger is not None:
            self._ledger.accepted(task)
        self._count(item, task)

    def _count(self, item: _Item, task: Task) -> None:
        progress = self._progress
        item.accepted = True
        progress.submitting -= 1
        progress.outstanding += 1
        progress.credits_estimated += task.estimated_credits or 0.0
        progress.tell()

    async def _follow(self, item: _Item, running: Coroutine[Any, Any, Task]) -> Outcome:
        """Await the task, and take in what has become of it."""
        try:
            task = await running
        except AireiterError as error:
            if not item.accepted:
                self._not_accepted(item, error)
            elif isinstance(error, TaskFailedError):
                item.reservation.refunded()
                self._ended(error.task)
            raise
        except (TypeError, ValueError):
            item.reservation.refunded()  # it could not be sent
            raise
        if not self._plan.wait:
            return item.outcome(task)
        item.reservation.ended(task.credits_used)
        self._ended(task)
        return await self._download(item, task)

    def _not_accepted(self, item: _Item, error: AireiterError) -> None:
        """Record what is known of a submit that has ended without a task."""
        certain = not isinstance(error, AmbiguousSubmitError)
        if certain:
            item.reservation.refunded()
        if self._ledger is None:
            return
        out_task_id = item.request.out_task_id
        if isinstance(error, InvalidRequestError):
            self._ledger.refused(out_task_id, error, State.REFUSED)
        elif certain:
            # The account, the pace or the network is at fault, not the request: the next run
            # finds it as it was before, and submits it.
            self._ledger.withdraw(out_task_id)
        else:
            self._ledger.refused(out_task_id, error, State.UNCERTAIN)

    def _ended(self, task: Task) -> None:
        self._progress.credits_used += task.credits_used or 0.0
        if self._ledger is not None:
            self._ledger.ended(task)

    async def _download(self, item: _Item, task: Task) -> Outcome:
        if self._plan.download_to is None or not self._plan.wait:
            return item.outcome(task)
        paths = tuple(await self._client.download(task, self._plan.download_to))
        if self._ledger is not None:
            self._ledger.downloaded(task, paths)
        return item.outcome(task, paths)


def _restore(entry: Entry) -> Task:
    if entry.reply is None:
        task = Task(entry.out_task_id, TaskStatus.UNKNOWN, entry.model)
    else:
        task = restore_task(entry.reply, entry.out_task_id, entry.model)
    return evolve(task, estimated_credits=entry.estimated_credits)


def _restore_error(entry: Entry) -> InvalidRequestError:
    detail = json.loads(entry.error or "{}")
    code, message = detail.get("code", 400), detail.get("message", "")
    return InvalidRequestError(int(code), str(message), None, entry.out_task_id)
