"""One item of a batch, from the source to its outcome.

With a ledger, the state that an earlier run recorded decides what remains to be
done: nothing, waiting, or reconciling with the service first.
"""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

from attrs import define, evolve, frozen

from aireiter_async._batch._budget import UNLIMITED, Budget, Unlimited
from aireiter_async._batch._outcomes import Failure, Outcome, Success
from aireiter_async._batch._progress import Progress, Stage
from aireiter_async._client import AsyncClient
from aireiter_async._ledger import Entry, Ledger, LedgerState
from aireiter_async._requests import SubmitRequest, as_request
from aireiter_async._tasks import Task, TaskStatus
from aireiter_async._wire import restore_task
from aireiter_async.errors import (
    AireiterError,
    AmbiguousSubmitError,
    BudgetExceededError,
    InvalidRequestError,
    LedgerError,
    TaskError,
    TaskFailedError,
    TaskNotFoundError,
)
from aireiter_async.models._base import Model

# It is not known whether the service has the task.
_UNCERTAIN: Final = frozenset({LedgerState.INTENDED, LedgerState.UNCERTAIN})
_RETRIABLE: Final = frozenset({LedgerState.REFUSED, LedgerState.FAILED})

Paths: TypeAlias = tuple[Path, ...]
Request: TypeAlias = SubmitRequest | Model | tuple[str, Mapping[str, Any]]


class _CallbackError(Exception):
    """A callback has raised for one item, whatever that was."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(cause)
        self.cause = cause


def _call(callback: Callable[[Any], Any], value: Any) -> Any:
    try:
        return callback(value)
    except Exception as error:
        raise _CallbackError(error) from error


def _make(make: Callable[[Any], Request], value: Any) -> SubmitRequest:
    made = _call(make, value)
    return as_request(*made) if isinstance(made, tuple) else as_request(made)


@frozen(kw_only=True)
class Options:
    """What a batch does with each item.

    Attributes:
        client: Submits, waits and downloads.
        request: Makes the request of an item; None: the item is one.
        wait: Whether tasks are waited for, or only submitted.
        ledger: Where the batch is recorded.
        timeout: Seconds to wait for each task from its acceptance, None for no limit.
        download_to: Where results are saved, None for nowhere.
        name: Makes the name of an item's files; None: the task's ID.
        retry_failed: Whether tasks that an earlier run left failed or rejected are
            submitted again, under a new ID.
    """

    client: AsyncClient
    request: Callable[[Any], Request] | None
    wait: bool
    ledger: Ledger | None = None
    timeout: float | None = None
    download_to: Path | None = None
    name: Callable[[Any], str] | None = None
    retry_failed: bool = False


@define
class _Item:
    """The state of one item.

    Attributes:
        index: Its position in the source.
        value: What the source yielded.
        request: The request as it is submitted.
        stage: How far it is.
        task: The task as it was last seen.
        resumed: Whether the ledger had the task already.
        reservation: Its share of the budget.
    """

    index: int
    value: Any
    request: Any = None
    stage: Stage = "preparing"
    task: Any = None  # where there is an outcome without an error, it is a Task
    resumed: bool = False
    reservation: Unlimited = UNLIMITED


class Items:
    """Turns items into outcomes.

    Args:
        options: What is done with each.
        budget: Credits that may be spent.
        progress: Counts them.

    Attributes:
        stopped: The error that ended the submitting, if any.
    """

    def __init__(self, options: Options, budget: Budget, progress: Progress) -> None:
        self._options = options
        self._client = options.client
        self._ledger = options.ledger
        self._budget = budget
        self._progress = progress
        self.stopped: Exception | None = None

    async def prepare(self) -> None:
        """Check what would otherwise fail after something was spent."""
        directory, ledger = self._options.download_to, self._ledger
        if directory is not None:
            await asyncio.to_thread(directory.mkdir, parents=True, exist_ok=True)
        if self._budget.limited and ledger is not None:
            for costs in await ledger.costs():
                self._budget.take_over(*costs)

    async def work(self, index: int, value: Any) -> Outcome[Any]:
        """Process one item. Failures of this item become its outcome's error.

        Raises:
            LedgerError: The ledger cannot be written: the batch has to end.
        """
        item = _Item(index, value)
        self._progress.add(item)
        try:
            make = self._options.request
            item.request = as_request(value) if make is None else _make(make, value)
            if self._ledger is None:
                paths = await self._submit(item)
            else:
                paths = await self._start_or_resume(item, self._ledger)
        except _CallbackError as error:
            return self._failure(item, error.cause)
        except (AireiterError, TypeError, ValueError) as error:
            broken = self._ledger and self._ledger.broken
            if broken:
                raise broken from broken.__cause__
            return self._failure(item, error)
        item.reservation.close()
        self._progress.move(item, "succeeded")
        return Success(index, value, item.request, item.task, paths, item.resumed)

    def _failure(self, item: _Item, error: Exception) -> Failure[Any]:
        item.reservation.close()
        unsent = isinstance(error, BudgetExceededError)
        self._progress.move(item, "not_submitted" if unsent else "failed")
        task = error.task if isinstance(error, TaskError) else item.task
        return Failure(item.index, item.value, item.request, error, task, item.resumed)

    async def _start_or_resume(self, item: _Item, ledger: Ledger) -> Paths:
        """Start the request, or resume from the state that an earlier run recorded."""
        item.request, row = ledger.intend(item.request, item.index)
        # An ID may come again: whoever is second finds what the first has left.
        async with ledger.reserved(row.out_task_id):
            # A limit is no reason to refuse what is there already: with one, that is found out
            # before the intent is recorded.
            limited = self._budget.limited
            entry = await (ledger.find(row) if limited else ledger.claim(row))
            if entry is None:
                return await self._submit(item, partial(ledger.claim, row) if limited else None)
            item.resumed = True
            item.request = evolve(item.request, out_task_id=entry.out_task_id)
            if entry.state in _UNCERTAIN:
                return await self._settle(item)
            if entry.state in _RETRIABLE and self._options.retry_failed:
                return await self._retry(item, entry, ledger)
            return await self._resume(item, entry, ledger)

    async def _resume(self, item: _Item, entry: Entry, ledger: Ledger) -> Paths:
        """Finish what an earlier run has left, without a submit."""
        if entry.state is LedgerState.REFUSED:
            raise _restore_error(entry)
        item.task = task = _restore(entry, ledger)
        if entry.state is LedgerState.FAILED:
            raise TaskFailedError(task)
        if entry.state is LedgerState.SUBMITTED:
            if not self._options.wait:
                return ()
            item.reservation = self._budget.resume(entry.model, entry.estimated_credits)
            self._progress.move(item, "outstanding", estimated=task.estimated_credits)
            return await self._finish(item, self._client.wait(task, timeout=self._options.timeout))
        paths = tuple(Path(path) for path in json.loads(entry.paths or "[]"))
        if entry.state is LedgerState.DOWNLOADED and all(map(os.path.exists, paths)):
            return paths
        return await self._download(item, task)

    async def _retry(self, item: _Item, entry: Entry, ledger: Ledger) -> Paths:
        """Submit a failed or rejected request again, under a new ID."""
        if entry.state is LedgerState.REFUSED:
            try:
                task = await self._client.query(entry.out_task_id)
            except TaskNotFoundError:
                pass
            else:
                # The service rejected the ID: a submit outside this ledger had already used it.
                self._budget.take_over(entry.model, 0.0, 1, None)
                return await self._adopt(item, task)
        item.resumed = False

        async def replace() -> None:
            item.request = await ledger.replace(entry, item.request)

        return await self._submit(item, replace)

    async def _settle(self, item: _Item) -> Paths:
        """Reconcile with the service, then submit if the task is missing and the budget allows."""
        try:
            return await self._submit(item, maybe_sent=True)
        except BudgetExceededError:
            # It may be there and paid for, whatever the limit is: asking costs nothing.
            request = item.request
            wanted = Task(request.out_task_id, TaskStatus.UNKNOWN, request.model)
            try:
                task = await self._client.find(wanted)
            except AireiterError as error:
                text = f"it may have been sent, and the service cannot be asked ({error.summary})"
                raise AmbiguousSubmitError(request.out_task_id, text) from error
            if task is None:
                raise
        return await self._adopt(item, task)

    async def _adopt(self, item: _Item, task: Task) -> Paths:
        """Continue with a task that was found, and that the budget counts without a price."""
        item.reservation = self._budget.resume(item.request.model, None)
        self._accepted(item, task)
        if not self._options.wait:
            return ()
        return await self._finish(item, self._client.wait(task, timeout=self._options.timeout))

    async def _submit(
        self,
        item: _Item,
        intend: Callable[[], Awaitable[object]] | None = None,
        *,
        maybe_sent: bool = False,
    ) -> Paths:
        """Submit the request within the budget and, in `run_many`, wait for its task."""
        if self._budget.limited:
            request = item.request
            item.reservation = await self._budget.reserve(
                request.model, request.out_task_id, maybe_sent=maybe_sent
            )
        if intend is not None:
            await intend()
        self._progress.move(item, "submitting")
        if self._options.wait:
            running = self._client.run(
                item.request,
                timeout=self._options.timeout,
                on_update=partial(self._accepted, item),
                maybe_sent=maybe_sent,
            )
            return await self._finish(item, running)
        try:
            task = await self._client.submit(item.request, maybe_sent=maybe_sent)
        except AireiterError as error:
            self._not_accepted(item, error)
            raise
        except (TypeError, ValueError):
            item.reservation.refunded()  # it could not be sent
            raise
        self._accepted(item, task)
        return ()

    async def _finish(self, item: _Item, running: Awaitable[Task]) -> Paths:
        """Await the completed task, record it, and save its results."""
        try:
            task = await running
        except AireiterError as error:
            if item.stage != "outstanding":
                self._not_accepted(item, error)
            elif isinstance(error, TaskFailedError):
                item.reservation.refunded()
                self._ended(item, error.task)
            raise
        except (TypeError, ValueError):
            item.reservation.refunded()  # it could not be sent
            raise
        item.reservation.ended(task.credits_used)
        self._ended(item, task)
        return await self._download(item, task)

    def _accepted(self, item: _Item, task: Task) -> None:
        """Record that the service has accepted the task, the first time that it is seen."""
        item.task = task
        if item.stage == "outstanding":
            return
        item.reservation.accepted(task.estimated_credits)
        if self._ledger is not None:
            self._ledger.accepted(task)
        self._progress.move(item, "outstanding", estimated=task.estimated_credits)

    def _not_accepted(self, item: _Item, error: AireiterError) -> None:
        """Record what is known of a submit that has ended without a task."""
        certain = not isinstance(error, AmbiguousSubmitError)
        if certain:
            item.reservation.refunded()
        if self._ledger is None:
            return
        out_task_id = item.request.out_task_id
        if isinstance(error, InvalidRequestError):
            self._ledger.refused(out_task_id, error, LedgerState.REFUSED)
        elif certain:
            # The account, the rate or the network is at fault, not the request: the next run
            # finds it as it was before, and submits it.
            self._ledger.withdraw(out_task_id)
        else:
            self._ledger.refused(out_task_id, error, LedgerState.UNCERTAIN)

    def _ended(self, item: _Item, task: Task) -> None:
        item.task = task
        self._progress.move(item, "outstanding", used=task.credits_used)
        if self._ledger is not None:
            self._ledger.ended(task)

    async def _download(self, item: _Item, task: Task) -> Paths:
        directory, name = self._options.download_to, self._options.name
        if directory is None:
            return ()
        if item.stage != "outstanding":  # in this run
            self._progress.move(item, "outstanding")
        chosen = None if name is None else _call(name, item.value)
        paths = tuple(await self._client.download(task, directory, name=chosen))
        if self._ledger is not None:
            self._ledger.downloaded(task, paths)
        return paths


def _restore(entry: Entry, ledger: Ledger) -> Task:
    """Return the task as the service last described it.

    Raises:
        LedgerError: The recorded reply cannot be read.
    """
    if entry.reply is None:
        task = Task(entry.out_task_id, TaskStatus.UNKNOWN, entry.model)
    else:
        try:
            task = restore_task(entry.reply, entry.out_task_id, entry.model)
        except AireiterError as error:
            message = f"the reply recorded for {entry.out_task_id} is damaged"
            raise LedgerError(message, str(ledger.path)) from error
    return evolve(task, estimated_credits=entry.estimated_credits)


def _restore_error(entry: Entry) -> InvalidRequestError:
    """Return why the service has rejected the request."""
    detail = json.loads(entry.error or "{}")
    code, message = detail.get("code", 400), detail.get("message", "")
    return InvalidRequestError(int(code), str(message), None, entry.out_task_id)
