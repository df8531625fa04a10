"""What an exception is to the command's user: an exit status, a line, a document."""

from typing import Any, Final

from aireiter_async import (
    AireiterError,
    AmbiguousSubmitError,
    TaskTimeoutError,
)
from aireiter_async.models import InvalidParamsError, UnknownModelError

FAILED: Final = 1
BAD_USAGE: Final = 2
BATCH_INTERRUPTED: Final = 3
OVER_BUDGET: Final = 4
INTERRUPTED: Final = 130
UNREAD: Final = 141  # 128 and SIGPIPE, as the shell says of a program that it killed

# What an error carries for a program to act on, whichever of them it has.
_CARRIED: Final = ("code", "retry_after", "out_task_id", "status", "url", "lines")


class UsageError(ValueError):
    """The command line does not say what to do, or says what cannot be done."""


class CommandError(Exception):
    """The command has done its work, and the outcome is not what was asked for."""


def status(error: Exception) -> int:
    """Return the exit status: was it the user, or the service and the task?"""
    return BAD_USAGE if isinstance(error, ValueError | UnknownModelError) else FAILED


def sentence(error: Exception) -> str:
    """Say what happened and what to do about it."""
    match error:
        case TaskTimeoutError(out_task_id=task):
            text = f"{error.message}, alive and paid for; go on with: aireiter wait {task}"
        case AmbiguousSubmitError(out_task_id=task):
            text = f"{error.message}; see: aireiter query {task}, or submit again with --id {task}"
        case InvalidParamsError():
            text = f"{error.model}: {'; '.join(map(str, error.problems))}"
        case UnknownModelError():
            text = f"{error}; see: aireiter models"
        case AireiterError() | ValueError() | OSError() | CommandError():
            text = str(error)
        case _:
            what = f"{type(error).__name__}: {error}"
            text = f"a defect of this program: {what}; please report it with what --debug shows"
    return text


def document(error: Exception) -> dict[str, Any]:
    """Describe *error* to a program."""
    carried = {name: getattr(error, name, None) for name in _CARRIED}
    return {
        "type": type(error).__name__,
        "message": sentence(error),
        **{name: value for name, value in carried.items() if value is not None},
    }
