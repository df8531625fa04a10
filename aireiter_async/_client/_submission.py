"""Exactly one task for one ID, whatever happens to the responses.

A submit whose response was lost may have been accepted and charged. It is
*settled*: the service is asked for the ID before anything is sent again, and
a rejection that comes after is not believed before that either, since the service
may be rejecting the ID that it accepted the first time.
"""

import asyncio
import logging

from aireiter_async import _wire
from aireiter_async._client._api import Api
from aireiter_async._requests import SubmitRequest
from aireiter_async._retry import refused
from aireiter_async._tasks import Task
from aireiter_async.errors import (
    AireiterError,
    AmbiguousSubmitError,
    APIError,
    TransportError,
)

_log = logging.getLogger(__name__)


class Submission:
    """One submit, until the service has answered for certain.

    Args:
        api: The endpoints.
        request: What to submit.
    """

    def __init__(self, api: Api, request: SubmitRequest) -> None:
        self._api = api
        self._request = request
        self._body = b""
        # Why the task may exist although no response says so; None while it certainly does not.
        self._ambiguity: AireiterError | None = None

    async def submit(self, *, maybe_sent: bool = False) -> Task:
        """Submit the request until the service has answered for certain.

        Args:
            maybe_sent: Whether an earlier call may have sent it without seeing
                the response: then the service is asked for it first.

        Raises:
            AmbiguousSubmitError: It may or may not have been accepted.
            AireiterError: It was certainly not accepted.
        """
        request, encode = self._request, _wire.encode_submit
        self._body = await asyncio.to_thread(encode, request) if request.large else encode(request)
        try:
            task = None
            if maybe_sent:
                out_task_id = self._request.out_task_id
                self._ambiguity = TransportError("an earlier response was lost", out_task_id)
                task = await self._settle(self._ambiguity)
            if task is None:
                # `Retry.call` would do this, too, for two more calls of every submit.
                try:
                    task = await self._attempt()
                except AireiterError as error:
                    repetition = self._api.retry.repetition(error)
            if task is None:
                task = await repetition.run(self._attempt)
        except (AireiterError, RuntimeError) as error:  # RuntimeError: the client was closed
            if self._ambiguity is None or _is_conclusive(error):
                raise
            raise AmbiguousSubmitError(
                self._request.out_task_id,
                f"no attempt was answered, though the task was not found either ({_cause(error)})",
            ) from error
        finally:
            self._ambiguity = None  # or the error's own traceback would hold it
        counters = self._api.shared.counters
        counters.submitted += 1
        if task.estimated_credits is None:
            counters.credits_unknown += 1
        else:
            counters.credits_estimated += task.estimated_credits
            counters.estimated_by_model[self._request.model] += task.estimated_credits
        return task

    async def _attempt(self) -> Task:
        api, request = self._api, self._request
        try:
            return await api.exchange(api.submit, self._body, request.out_task_id, request)
        except AireiterError as error:
            if not refused(error):
                self._ambiguity = error
            elif self._ambiguity is None or not isinstance(error, APIError):
                raise
            task = await self._settle(error)
            if task is None:
                raise
            return task

    async def _settle(self, cause: AireiterError) -> Task | None:
        """Poll for the task over a few seconds; None: it was not found throughout."""
        api, out_task_id = self._api, self._request.out_task_id
        _log.info("submit of %s has an ambiguous outcome, querying it: %s", out_task_id, cause)
        try:
            task = await api.find(out_task_id, self._request.model)
        except (AireiterError, RuntimeError) as error:
            raise AmbiguousSubmitError(
                out_task_id,
                f"the outcome of the submit is unknown ({cause.summary}), "
                f"and the service could not be asked ({_cause(error)})",
            ) from cause
        if task is not None:
            api.shared.counters.settled += 1
            return task
        if not api.settings.retry.resubmit:
            raise AmbiguousSubmitError(
                out_task_id,
                f"the outcome of the submit is unknown ({cause.summary}), "
                f"and the task was not found for {api.settings.retry.settle:g} s",
            ) from cause
        return None


def _is_conclusive(error: Exception) -> bool:
    """Return whether the service itself has rejected it, or the error says all already."""
    return isinstance(error, AmbiguousSubmitError) or (
        isinstance(error, APIError) and refused(error)
    )


def _cause(error: AireiterError | RuntimeError) -> str:
    return error.summary if isinstance(error, AireiterError) else str(error)
