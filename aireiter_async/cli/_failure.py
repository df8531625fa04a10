"""What an exception is to the command's user: an exit status, a line, a document."""

import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from aireiter_async import (
    AireiterError,
    AmbiguousSubmitError,
    APIError,
    DownloadError,
    ProtocolError,
    RequestTimeoutError,
    TaskFailedError,
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
_CARRIED: Final = ("code", "failure_code", "retry_after", "out_task_id", "status", "url", "lines")

# What the library calls by a keyword, the command line has an option for.
_OPTIONS: Final[Mapping[str, str]] = {
    "allow_http=True": "--allow-http",
    "api_key": "--api-key",
    "base_url": "--base-url",
    "max_concurrency": "--concurrency",
    "max_credits": "--max-credits",
    "max_rate": "--max-rate",
    "user_agent": "--user-agent",
}
_KEYWORD: Final = re.compile(rf"\b(?:{'|'.join(_OPTIONS)})\b")


class UsageError(ValueError):
    """The command line says what cannot be done, or not what to do; nothing was sent."""


class CommandError(Exception):
    """The command has done its work, and the outcome is not what was asked for."""


class Interrupted(CommandError):  # noqa: N818 - the name that programs read
    """The command was asked to end, by Ctrl-C or SIGTERM, before it was done.

    Attributes:
        out_task_id: The task that it leaves, where there may be one.
    """

    def __init__(self, message: str, out_task_id: str | None = None) -> None:
        super().__init__(message)
        self.out_task_id = out_task_id


@contextmanager
def usage() -> Generator[None, None, None]:
    """Take what the library refuses in here, before anything is sent, for bad usage.

    Raises:
        UsageError: In place of a plain ValueError, in the words of the command line.
    """
    try:
        yield
    except (UsageError, InvalidParamsError):
        raise
    except ValueError as error:
        raise UsageError(_with_options(str(error))) from error


def status(error: Exception) -> int:
    """Return the exit status: was it the user, or the service and the task?"""
    match error:
        case UsageError() | InvalidParamsError() | UnknownModelError():
            return BAD_USAGE
        case Interrupted():
            return INTERRUPTED
        case _:
            return FAILED


def sentence(error: Exception) -> str:
    """Say what happened and what to do about it."""
    match error:
        case TaskTimeoutError(out_task_id=task):
            text = f"{error.message}, and the time is over; go on with: aireiter wait {task}"
        case AmbiguousSubmitError(out_task_id=task):
            text = f"{_with_options(error.message)}; {ways_on(task)}"
        case RequestTimeoutError():  # the command line has no option for the time of one attempt
            text = f"{error}; try again"
        case APIError() | TaskFailedError() | DownloadError():  # what others say stays as it is
            text = _advised(str(error), error)
        case ProtocolError(message=message):
            text = _advised(f"{_with_options(message)}{str(error).removeprefix(message)}", error)
        case InvalidParamsError():
            text = f"{error.model}: {'; '.join(map(str, error.problems))}"
        case UnknownModelError():
            text = f"{error}; see: aireiter models"
        case AireiterError():
            text = _advised(_with_options(str(error)), error)
        case UsageError() | OSError() | CommandError():
            text = str(error)
        case _:
            what = f"{type(error).__name__}: {error}"
            text = f"a defect of this program: {what}; please report it with what --debug shows"
    return text


def ways_on(out_task_id: str) -> str:
    """Say what can be done about a submit that may have been accepted."""
    return (
        f"see: aireiter query {out_task_id}, "
        f"or submit the same again with --id {out_task_id} --maybe-sent"
    )


def _advised(text: str, error: AireiterError) -> str:
    return f"{text}; {_with_options(error.advice)}" if error.advice else text


def _with_options(text: str) -> str:
    return _KEYWORD.sub(lambda found: _OPTIONS[found[0]], text)


def document(error: Exception) -> dict[str, Any]:
    """Describe *error* to a program."""
    carried = {name: getattr(error, name, None) for name in _CARRIED}
    return {
        "type": type(error).__name__,
        "message": sentence(error),
        **{name: value for name, value in carried.items() if value is not None},
    }
