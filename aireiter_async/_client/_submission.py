"""Exactly one task for one id, whatever happens to the answers.

A submit whose answer was lost may have been accepted and paid for. It is
*settled*: the service is asked for the id before anything is sent again, and
a refusal that comes after is not believed before that either, since the service
may be refusing the id that it took the first time.
"""

from collections.abc import Awaitable, Callable

from attrs import define

from aireiter_async import _wire
from aireiter_async._client._api import Api, Counters
from aireiter_async._requests import SubmitRequest
from aireiter_async._retry import RetryPolicy, logger, refused, retrying
from aireiter_async._tasks import Task
from aireiter_async.errors import (
    AireiterError,
    AmbiguousSubmitError,
    APIError,
    TaskNotFoundError,
    TransportError,
)


@define
class _Call:
    """One submit that was not answered at once: what is sent is fixed, what is doubtful remembered.

    Attributes:
        request: What is submitted.
        body: The same, as it is sent each time.
        first: What the first attempt met, until it is dealt with; None: it was an
            earlier call's, which did not live to see its answer.
        doubt: Why it is not certain that the service has accepted nothing.
    """

    request: SubmitRequest
    body: bytes
    first: AireiterError | None = None
    doubt: AireiterError | None = None


class Submission:
    """Submits requests over an `Api`.

    Args:
        api: One attempt of each endpoint.
        query: Asks for a task by its id and model, with retries.
        policy: How failures are met.
        counters: Told what happens.
        sleep: Waits for a number of seconds.
    """

    def __init__(
        self,
        api: Api,
        query: Callable[[str, str | None], Awaitable[Task]],
        policy: RetryPolicy,
        counters: Counters,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._api = api
        self._query = query
        self._policy = policy
        self._counters = counters
        self._sleep = sleep
        # Not the bound method: a client that is forgotten is freed, and warns of it, at once.
        self._retrying = retrying(Submission._attempt, policy, counters.count_retry, sleep)

    async def submit(self, request: SubmitRequest, *, maybe_sent: bool) -> Task:
        """Submit *request* until the service has answered for certain.

        Args:
            request: What to submit.
            maybe_sent: Whether an earlier call may have sent it, and not lived
                to see the answer: it is then looked for first.

        Raises:
            AmbiguousSubmitError: It may or may not have been accepted.
            AireiterError: It was certainly not accepted.
            TypeError: The parameters are not JSON values.
            ValueError: The parameters cannot be sent as JSON.
        """
        body = _wire.encode_submit(request)
        task = call = None
        if not maybe_sent:
            # Nearly every submit ends here: what a failure takes is made when there is one.
            try:
                task = await self._api.submit(request, body)
            except AireiterError as error:
                call = _Call(request, body, error)
        if task is None:
            task = await self._insist(call or _Call(request, body))
        counters = self._counters
        counters.submitted += 1
        if task.estimated_credits is None:
            counters.credits_unknown += 1
        else:
            counters.credits_estimated += task.estimated_credits
            counters.estimated_by_model[request.model] += task.estimated_credits
        return task

    async def look_for(self, request: SubmitRequest) -> Task | None:
        """Look for a task that an earlier call may have submitted, and submit nothing.

        Returns:
            The task; None: it was not found all through the policy's ``settle`` seconds.

        Raises:
            AmbiguousSubmitError: The service could not be asked, or the policy
                does not let it be believed (``resubmit=False``).
        """
        return await self._settle_earlier(_Call(request, b""))

    async def _insist(self, call: _Call) -> Task:
        """Go on from what the first attempt met, until the service has answered for certain."""
        try:
            task = await self._settle_earlier(call) if call.first is None else None
            return task or await self._retrying(self, call)
        except (AireiterError, RuntimeError) as error:  # RuntimeError: the client was closed
            if call.doubt is None or _believed(error):
                raise
            raise AmbiguousSubmitError(
                call.request.out_task_id,
                f"no attempt was answered, though the task was not found either ({_said(error)})",
            ) from error
        finally:
            call.first = call.doubt = None  # or the errors' own tracebacks would hold them

    async def _settle_earlier(self, call: _Call) -> Task | None:
        out_task_id = call.request.out_task_id
        call.doubt = TransportError("an earlier submit did not see its answer", out_task_id)
        return await self._settle(call, call.doubt)

    async def _attempt(self, call: _Call) -> Task:
        try:
            if call.first is not None:
                raise call.first
            return await self._api.submit(call.request, call.body)
        except AireiterError as error:
            call.first = None
            if not refused(error):
                call.doubt = error
            elif call.doubt is None or not isinstance(error, APIError):
                raise
            task = await self._settle(call, error)
            if task is None:
                raise
            return task

    async def _settle(self, call: _Call, cause: AireiterError) -> Task | None:
        """Look for the task over a few seconds; None: it was not found all through."""
        out_task_id = call.request.out_task_id
        logger.info("submit of %s was not answered for certain, asking: %s", out_task_id, cause)
        for seconds in self._policy.settle_waits():
            if seconds:
                await self._sleep(seconds)
            try:
                task = await self._query(out_task_id, call.request.model)
            except TaskNotFoundError:
                continue
            except (AireiterError, RuntimeError) as error:
                raise AmbiguousSubmitError(
                    out_task_id,
                    f"the submit was not answered for certain ({cause.summary}), "
                    f"and the service could not be asked ({_said(error)})",
                ) from cause
            self._counters.settled += 1
            return task
        if not self._policy.resubmit:
            raise AmbiguousSubmitError(
                out_task_id,
                f"the submit was not answered for certain ({cause.summary}), "
                f"and the task was not found for {self._policy.settle:g} s",
            ) from cause
        return None


def _believed(error: Exception) -> bool:
    """Tell whether the service itself has refused, or the answer is final already."""
    return isinstance(error, AmbiguousSubmitError) or (
        isinstance(error, APIError) and refused(error)
    )


def _said(error: AireiterError | RuntimeError) -> str:
    return error.summary if isinstance(error, AireiterError) else str(error)
