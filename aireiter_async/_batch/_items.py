"""One request of a batch, from its line in the input to its outcome.

With a ledger, what an earlier run has left decides what remains to be done:
nothing, waiting, or finding out first whether the task exists.
"""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, Final
from weakref import WeakKeyDictionary

from attrs import define, evolve

from aireiter_async._batch._budget import UNLIMITED, Budget, Unlimited
from aireiter_async._batch._earlier import DOUBTFUL, RETRIED, restore, restore_error
from aireiter_async._batch._plan import Outcome, Plan
from aireiter_async._batch._progress import Progress
from aireiter_async._ledger import Entry, Ledger, State
from aireiter_async._requests import SubmitRequest, as_request
from aireiter_async._tasks import Task
from aireiter_async.errors import (
    AireiterError,
    AmbiguousSubmitError,
    BudgetExceededError,
    InvalidRequestError,
    TaskFailedError,
    TaskNotFoundError,
)

# The ids on their way, by ledger: two batches may share one.
_BUSY: Final[WeakKeyDictionary[Ledger, dict[str, asyncio.Event]]] = WeakKeyDictionary()


@define
class _Item:
    """One request on its way.

    Attributes:
        index: Where it stands in the input.
        request: What the source has yielded, then the request as it is submitted.
        submitting: Whether its submit has begun.
        accepted: Whether the service is known to have its task.
        reservation: What it may cost, once that is reserved.
    """

    index: int
    request: Any
    submitting: bool = False
    accepted: bool = False
    reservation: Unlimited = UNLIMITED

    def outcome(self, task: Task, paths: tuple[Path, ...] = ()) -> Outcome:
        """Return that it has gone well."""
        return Outcome(self.index, self.request, task, paths=paths)


class Items:
    """Carries out a `Plan`, one request at a time.

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
        self._busy = _BUSY.setdefault(plan.ledger, {}) if plan.ledger is not None else {}

    async def work(self, index: int, source_item: Any) -> Outcome:
        """Bring one request to its outcome: whatever befalls it alone is its outcome's error.

        Raises:
            LedgerError: The ledger cannot be written: the batch has to end.
        """
        progress = self._progress
        progress.pulled += 1
        item = _Item(index, source_item)
        try:
            item.request = as_request(source_item)
            if self._ledger is None:
                outcome = await self._start(item)
            else:
                outcome = await self._take_up(item, self._ledger)
        except (AireiterError, TypeError, ValueError) as error:
            broken = self._ledger and self._ledger.broken
            if broken:
                raise broken from broken.__cause__
            outcome = Outcome(index, item.request, error=error)
        item.reservation.close()
        if item.accepted:
            progress.outstanding -= 1
        elif item.submitting:
            progress.submitting -= 1
        if outcome.error is None:
            progress.done += 1
        else:
            progress.failed += 1
        if progress.wanted:
            progress.tell()
        return outcome

    async def _take_up(self, item: _Item, ledger: Ledger) -> Outcome:
        """Begin, or go on from where an earlier run has left off."""
        item.request, row = ledger.intend(item.request, item.index)
        # An id may come again: whoever is second finds what the first has left.
        while busy := self._busy.get(row.out_task_id):
            await busy.wait()
        self._busy[row.out_task_id] = done = asyncio.Event()
        try:
            # A limit is no reason to refuse what is there already: with one, that is found out
            # before the intent is recorded.
            limited = self._budget.limited
            entry = await (ledger.find(row) if limited else ledger.claim(row))
            if entry is None:
                return await self._start(item, partial(ledger.claim, row) if limited else None)
            return await self._go_on(item, entry, ledger)
        finally:
            del self._busy[row.out_task_id]
            done.set()

    async def _go_on(self, item: _Item, entry: Entry, ledger: Ledger) -> Outcome:
        """Do what an earlier run has left to be done."""
        item.request = evolve(item.request, out_task_id=entry.out_task_id)
        if entry.state in DOUBTFUL:
            return await self._settle(item)
        if entry.state not in RETRIED or not self._plan.retry_failed:
            return await self._resume(item, entry, ledger)

        if entry.state is State.REFUSED and (task := await self._query(item.request)):
            # It was refused for its id: an earlier submit, not of this ledger, had used it.
            self._budget.take_over(entry.model, 0.0, 1, None)
            return await self._adopt(item, task)

        async def replace() -> None:
            item.request = await ledger.replace(entry, item.request)

        return await self._start(item, replace)

    async def _query(self, request: SubmitRequest) -> Task | None:
        try:
            return await self._client.query(request.out_task_id)
        except TaskNotFoundError:
            return None

    async def _resume(self, item: _Item, entry: Entry, ledger: Ledger) -> Outcome:
        """Bring what an earlier run has left to its outcome without a submit."""
        task = restore(entry, ledger)
        if entry.state is State.REFUSED:
            raise restore_error(entry)
        if entry.state is State.FAILED:
            raise TaskFailedError(task)
        if entry.state is State.SUBMITTED:
            if not self._plan.wait:
                return item.outcome(task)
            item.reservation = self._budget.resume(entry.model, entry.estimated_credits)
            self._count(item, task.estimated_credits)
            return await self._wait(item, task)
        paths = tuple(Path(path) for path in json.loads(entry.paths or "[]"))
        if entry.state is State.DOWNLOADED and all(map(os.path.exists, paths)):
            return item.outcome(task, paths)
        return await self._download(item, task)

    async def _settle(self, item: _Item) -> Outcome:
        """Find out whether the task exists, and submit it if not and if that may be paid."""
        try:
            return await self._start(item, maybe_sent=True)
        except BudgetExceededError:
            # It may be there and paid for, whatever the limit is: to look costs nothing.
            task = await self._client._submission.look_for(item.request)  # noqa: SLF001
            if task is None:
                raise
        return await self._adopt(item, task)

    async def _adopt(self, item: _Item, task: Task) -> Outcome:
        """Go on with a task that was found, and that the budget counts without a price."""
        item.reservation = self._budget.resume(item.request.model, None)
        self._seen(item, task)
        return await self._wait(item, task) if self._plan.wait else item.outcome(task)

    async def _start(
        self,
        item: _Item,
        intend: Callable[[], Awaitable[object]] | None = None,
        *,
        maybe_sent: bool = False,
    ) -> Outcome:
        """Submit the request within the budget and, if that is the plan, wait for its task."""
        progress, request = self._progress, item.request
        if self._budget.limited:
            item.reservation = await self._budget.reserve(
                request.model, request.out_task_id, maybe_sent=maybe_sent
            )
        if intend is not None:
            await intend()
        item.submitting = True
        progress.submitting += 1
        if progress.wanted:
            progress.tell()
        if self._plan.wait:
            running = self._client.run(
                item.request,
                timeout=self._plan.timeout,
                on_update=partial(self._seen, item),
                maybe_sent=maybe_sent,
            )
        else:
            running = self._client.submit(item.request, maybe_sent=maybe_sent)
        return await self._follow(item, running)

    def _wait(self, item: _Item, task: Task) -> Coroutine[Any, Any, Outcome]:
        return self._follow(item, self._client.wait(task, timeout=self._plan.timeout))

    async def _follow(self, item: _Item, running: Coroutine[Any, Any, Task]) -> Outcome:
        """Await the task, and take in what has become of it."""
        try:
            task = await running
            self._seen(item, task)
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

    def _seen(self, item: _Item, task: Task) -> None:
        """Take in that the service knows the task: the first time, that it was accepted."""
        if item.accepted:
            return
        item.reservation.accepted(task.estimated_credits)
        if self._ledger is not None:
            self._ledger.accepted(task)
        self._count(item, task.estimated_credits)

    def _count(self, item: _Item, estimate: float | None = None) -> None:
        """Count the task as outstanding."""
        progress = self._progress
        if item.submitting:
            progress.submitting -= 1
        item.accepted = True
        progress.outstanding += 1
        progress.credits_estimated += estimate or 0.0
        if progress.wanted:
            progress.tell()

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
        if not item.accepted:  # in this run
            self._count(item)
        paths = tuple(await self._client.download(task, self._plan.download_to))
        if self._ledger is not None:
            self._ledger.downloaded(task, paths)
        return item.outcome(task, paths)
