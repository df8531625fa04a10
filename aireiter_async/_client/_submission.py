"""Submit exactly one task per ID, even if responses are lost.

A submit whose response was lost may have been accepted and charged. It is
*settled*: the ID is queried before anything is sent again. A later rejection is
settled as well before it is believed, since the service may be rejecting the very
ID that it accepted the first time.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from aireiter_async import events
from aireiter_async._client._api import Api
from aireiter_async._conflicts import find_conflict
from aireiter_async._requests import SubmitRequest
from aireiter_async._retry import FailureClass, Target, failure_class
from aireiter_async._tasks import Task, TaskStatus
from aireiter_async._text import without_queries
from aireiter_async.errors import (
    AireiterError,
    AmbiguousSubmitError,
    IDInUseError,
    RequestTimeoutError,
    TaskTimeoutError,
    TransportError,
)

_log = logging.getLogger(__name__)

_CONFLICT: Final = 409


class Submission:
    """One submit, through to a definite outcome.

    Args:
        maybe_sent: Whether to query the ID first: an earlier call may have sent it and
            lost the response.

    Attributes:
        may_exist: Whether the task may exist, as far as is known.
        claim: Claims the ID in an idempotency store, if there is one.
    """

    claim: Callable[[], Awaitable[None]] | None = None

    def __init__(self, api: Api, request: SubmitRequest, *, maybe_sent: bool = False) -> None:
        self.may_exist = self._settle_first = maybe_sent
        self._api = api
        self._request = request
        self._body = b""
        # Why the task may exist although no response confirms it.
        self._ambiguity: AireiterError | None = None

    async def submit(self) -> Task:
        """Submit the request and settle any ambiguity.

        Raises:
            AmbiguousSubmitError: It may or may not have been accepted.
            AireiterError: It was definitely not accepted.
        """
        request = self._request
        # Logged before anything is sent, so that a crash does not lose the ID.
        _log.debug("submit %s at %s: %s", request.out_task_id, self._api.host, request.model)
        try:
            if request.large:
                self._body = await self._api.shared.threads.run(request.encode)
            else:
                self._body = request.encode()
            task = None
            if self._settle_first:
                self._ambiguity = TransportError("an earlier response was lost")
                task = await self._settle(self._ambiguity)
            if task is None:
                # `Retry.call` inlined, which saves two calls per submit.
                try:
                    task = await self._attempt()
                except AireiterError as error:
                    target = Target("submit", self._api.host, request.out_task_id)
                    retries = self._api.submit_retry.start(target, error)
            if task is None:  # not in the handler: later errors must not be chained to the first
                task = await retries.run(self._attempt)  # pyright: ignore[reportPossiblyUnboundVariable]
        except (AireiterError, RuntimeError) as error:  # RuntimeError: the client was closed
            if self._ambiguity is None or _is_conclusive(error):
                raise
            raise AmbiguousSubmitError(
                request.out_task_id,
                f"no attempt was confirmed, and the task was not found ({summary_of(error)})",
            ) from error
        except BaseException as error:
            error.add_note(self._note())
            raise
        finally:
            self._ambiguity = None  # otherwise a cycle through the error's traceback
        self._api.shared.note_accepted(request, task)
        return task

    async def submit_within(self, seconds: float) -> Task:
        """Submit as `submit` does, within *seconds*.

        Raises:
            RequestTimeoutError: Nothing was sent that may have been accepted.
            TaskTimeoutError: The task was found, and has not ended.
            AmbiguousSubmitError: It may have been accepted, and was not found.
        """
        # An attempt's own timeout has become an ambiguous error by now, not a TimeoutError.
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                return await self.submit()
        out_task_id = self._request.out_task_id
        if not self.may_exist:
            text = f"the task was not submitted within {seconds:g} s"
            raise RequestTimeoutError(text, out_task_id)
        task = await self._find_once(f"the submit got no response within {seconds:g} s")
        self._api.shared.note_accepted(self._request, task)
        if not task.done:
            raise TaskTimeoutError(task)
        return task

    async def _find_once(self, problem: str) -> Task:
        out_task_id, api = self._request.out_task_id, self._api
        try:
            async with asyncio.timeout(api.settings.timeout):
                task = await api.query_once(out_task_id, self._request.model)
        except (AireiterError, RuntimeError, TimeoutError) as error:
            text = f"{problem}, and the task was not found ({summary_of(error)})"
            raise AmbiguousSubmitError(out_task_id, text) from error
        check_owner(self._request, task)
        api.shared.counters.settled += 1
        return task

    async def _attempt(self) -> Task:
        api, request = self._api, self._request
        try:
            task = await api.exchange(
                api.submit_endpoint, self._body, request.out_task_id, request, submit=self
            )
        except AireiterError as error:
            failure = failure_class(error)
            if failure is FailureClass.AMBIGUOUS:
                self._ambiguity = error
            elif self._ambiguity is None and not (
                # With the ID claimed, the earlier request may be this very one.
                self.claim and isinstance(error, IDInUseError)
            ):
                self.may_exist = False
                raise
            elif failure is FailureClass.NOT_SENT:
                raise
            found = await self._settle(error)
            if found is None:
                raise
            return found
        if task.status is not TaskStatus.PENDING:  # rare
            check_owner(request, task, just_submitted=self._ambiguity is None)
        return task

    async def _settle(self, cause: AireiterError) -> Task | None:
        """Query the task over the ``settle`` seconds; None if it was never found."""
        api, out_task_id = self._api, self._request.out_task_id
        reason = without_queries(cause.summary)
        text = "submit %s at %s: the outcome is ambiguous, querying the task: %s"
        _log.info(text, out_task_id, api.host, reason)
        started = api.shared.clock.now()
        try:
            task = await api.find(out_task_id, self._request.model)
        except (AireiterError, RuntimeError) as error:
            raise AmbiguousSubmitError(
                out_task_id,
                f"the outcome of the submit is unknown ({cause.summary}), "
                f"and the service could not be queried ({summary_of(error)})",
            ) from cause
        if api.shared.events.listeners:
            seconds = api.shared.clock.now() - started
            api.shared.events.emit(events.SubmitSettled(out_task_id, task, seconds))
        if task is not None:
            check_owner(self._request, task)
            api.shared.counters.settled += 1
            return task
        if not api.settings.retry.resubmit:
            raise AmbiguousSubmitError(
                out_task_id,
                f"the outcome of the submit is unknown ({cause.summary}), "
                f"and the task was not found for {api.settings.retry.settle:g} s",
            ) from cause
        return None

    def _note(self) -> str:
        out_task_id = self._request.out_task_id
        if self.may_exist:
            return f"task {out_task_id} may have been submitted: query it, or pass maybe_sent=True"
        return f"task {out_task_id} was not submitted"


def check_owner(request: SubmitRequest, task: Task, *, just_submitted: bool = False) -> None:
    """Check that *task* belongs to *request*, if the caller chose its ID.

    Raises:
        IDInUseError: The ID belongs to an earlier request.
    """
    if request.generated:
        return
    conflict = find_conflict(request, task, just_submitted=just_submitted)
    if conflict is not None:
        raise id_in_use(request, conflict)


def id_in_use(request: SubmitRequest, reason: str) -> IDInUseError:
    text = f"the ID belongs to an earlier request: {reason}"
    return IDInUseError(_CONFLICT, text, None, request.out_task_id, _CONFLICT)


def _is_conclusive(error: Exception) -> bool:
    """Return whether *error* needs no wrapping: a rejection, or already ambiguous."""
    return isinstance(error, AmbiguousSubmitError) or (
        isinstance(error, AireiterError)
        and failure_class(error) in {FailureClass.REJECTED, FailureClass.RATE_LIMITED}
    )


def summary_of(error: Exception) -> str:
    return error.summary if isinstance(error, AireiterError) else str(error)
