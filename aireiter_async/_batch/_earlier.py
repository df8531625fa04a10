"""What an earlier run of a batch has left: its tasks, its errors, its doubts."""

import json
from typing import Final

from attrs import evolve

from aireiter_async._ledger import Entry, Ledger, State
from aireiter_async._tasks import Task, TaskStatus
from aireiter_async._wire import restore_task
from aireiter_async.errors import AireiterError, InvalidRequestError, LedgerError

# States in which it is not known whether the service has the task.
DOUBTFUL: Final = frozenset({State.INTENDED, State.UNCERTAIN})
RETRIED: Final = frozenset({State.REFUSED, State.FAILED})


def restore(entry: Entry, ledger: Ledger) -> Task:
    """Return the task as the service last described it.

    Raises:
        LedgerError: What was recorded cannot be read.
    """
    if entry.reply is None:
        task = Task(entry.out_task_id, TaskStatus.UNKNOWN, entry.model)
    else:
        try:
            task = restore_task(entry.reply, entry.out_task_id, entry.model)
        except AireiterError as error:
            told = f"the reply recorded for {entry.out_task_id} is damaged"
            raise LedgerError(told, str(ledger.path)) from error
    return evolve(task, estimated_credits=entry.estimated_credits)


def restore_error(entry: Entry) -> InvalidRequestError:
    """Return why the service has refused the request."""
    detail = json.loads(entry.error or "{}")
    code, message = detail.get("code", 400), detail.get("message", "")
    return InvalidRequestError(int(code), str(message), None, entry.out_task_id)
