"""What an earlier run of a batch has left: its tasks, its errors, its doubts."""

import json
from typing import Final

from attrs import evolve

from aireiter_async._client import AsyncClient
from aireiter_async._client._submission import _Call
from aireiter_async._ledger import Entry, State
from aireiter_async._requests import SubmitRequest
from aireiter_async._tasks import Task, TaskStatus
from aireiter_async._wire import restore_task
from aireiter_async.errors import InvalidRequestError

# States in which it is not known whether the service has the task.
DOUBTFUL: Final = frozenset({State.INTENDED, State.UNCERTAIN})
RETRIED: Final = frozenset({State.REFUSED, State.FAILED})


async def look_for(client: AsyncClient, request: SubmitRequest) -> Task | None:
    """
    Look for a task that may have been submitted, and submit nothing.

    Returns:
        The task; None: it was not found all through `RetryPolicy.settle` seconds.

    Raises:
        AmbiguousSubmitError: The service could not be asked, or the policy does
            not let it be believed (``resubmit=False``).
    """
    submission = client._submission  # noqa: SLF001 - a submit without its second half
    return await submission._settle_earlier(_Call(request, b""))  # noqa: SLF001


def restore(entry: Entry) -> Task:
    """Return the task as the service last described it."""
    if entry.reply is None:
        task = Task(entry.out_task_id, TaskStatus.UNKNOWN, entry.model)
    else:
        task = restore_task(entry.reply, entry.out_task_id, entry.model)
    return evolve(task, estimated_credits=entry.estimated_credits)


def restore_error(entry: Entry) -> InvalidRequestError:
    """Return why the service has refused the request."""
    detail = json.loads(entry.error or "{}")
    code, message = detail.get("code", 400), detail.get("message", "")
    return InvalidRequestError(int(code), str(message), None, entry.out_task_id)
