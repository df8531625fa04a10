"""Report exceptions: as exit status, one line and JSON document."""

import errno
import re
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from aireiter_async import (
    AireiterError,
    AmbiguousSubmitError,
    APIError,
    ConnectError,
    DownloadError,
    IDInUseError,
    ProtocolError,
    RequestTimeoutError,
    TaskFailedError,
    TaskTimeoutError,
)
from aireiter_async.models import InvalidParamsError, UnknownModelError

FAILED: Final = 1
BAD_USAGE: Final = 2
BATCH_UNFINISHED: Final = 3
BUDGET_REACHED: Final = 4
BATCH_STOPPED: Final = 5
INTERRUPTED: Final = 130
OUTPUT_CLOSED: Final = 141  # 128 + SIGPIPE, as shells report it

# Attributes of errors that a program can act on.
_CARRIED: Final = ("code", "failure_code", "retry_after", "out_task_id", "status", "url", "lines")

_OUT_OF_FILES: Final = frozenset({errno.EMFILE, errno.ENFILE})
NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
FREE_SPACE: Final = "free some space, or save elsewhere with --download DIR"

# The library's keywords and the matching command-line options.
_OPTIONS: Final[Mapping[str, str]] = {
    "allow_http=True": "--allow-http",
    "channel must": "--channel must",
    "out_task_id must": "the ID must",
    "api_key": "--api-key",
    "base_url": "--base-url",
    "max_concurrency": "--concurrency",
    "max_credits": "--max-credits",
    "max_rate": "--max-rate",
    "pass maybe_sent=True": "add --maybe-sent",
    "name has": "--name has",
    "name is": "--name is",
    "name may": "--name may",
    "name must": "--name must",
    "proxy must": "--proxy must",
    "rebind": "--rebind",
    "retry_failed": "--retry-failed",
    "retry_failed=True": "--retry-failed",
    "user_agent": "--user-agent",
}
# How to send a local file: in Python, and here.
_PYTHON_FILE: Final = "a str is never opened as a file: pass a pathlib.Path to send a local file"
_FILE: Final = "to send a local file, write @ before its name"
_PATH: Final = re.compile(r"\b(?:Posix|Windows)Path\((.+?)\)")
_KEYWORD: Final = re.compile(
    rf"\b(?:{'|'.join(sorted(map(re.escape, _OPTIONS), reverse=True))})(?![\w=])"
)


class UsageError(ValueError):
    """Invalid command-line usage or input; nothing was sent."""


class CommandError(Exception):
    """The command ran, but did not achieve its goal."""


class Interrupted(CommandError):  # noqa: N818 - a name in JSON output
    """SIGINT or SIGTERM ended the command.

    Attributes:
        out_task_id: The task that keeps running, if any.
    """

    def __init__(self, message: str, out_task_id: str | None = None) -> None:
        super().__init__(message)
        self.out_task_id = out_task_id


@contextmanager
def usage() -> Generator[None, None, None]:
    """Turn ValueErrors that the library raises for its arguments into UsageErrors."""
    try:
        yield
    except (UsageError, InvalidParamsError, UnknownModelError):
        raise
    except (TypeError, ValueError) as error:
        raise UsageError(with_options(str(error))) from error


def exit_status(error: Exception) -> int:
    """Return the exit status for *error*."""
    match error:
        case UsageError() | InvalidParamsError() | UnknownModelError() | ModuleNotFoundError():
            return BAD_USAGE
        case Interrupted():
            return INTERRUPTED
        case _:
            return FAILED


def describe(error: Exception, *, in_batch: bool = False) -> str:
    """Return one line: what happened, and what to do, *in_batch* with a row of a batch."""
    hint = _advice_in_batch(error) if in_batch else advice(error)
    return f"{summarize(error)}; {hint}" if hint else summarize(error)


def summarize(error: Exception) -> str:
    """Return what happened, in the terms of the command line."""
    match error:
        case InvalidParamsError():
            text = f"{error.model}: {'; '.join(map(str, error.problems))}"
            text = _PATH.sub(r"\1", text.replace(_PYTHON_FILE, _FILE))
        case OSError(filename=str() as name):
            text = f"{name}: {reason(error)}"
        case OSError():
            text = reason(error)
        # The service's own words are unchanged.
        case APIError() | TaskFailedError() | UsageError() | CommandError() | UnknownModelError():
            text = str(error)
        case AireiterError():
            text = with_options(str(error))
        case ModuleNotFoundError(name="sqlite3" | "_sqlite3"):
            text = "this Python has no SQLite, which batch and demo need"
        case _:
            text = f"internal error: {type(error).__name__}: {error}"
    return text


def reason(error: Exception) -> str:
    """Return why something failed, without an errno and the name of the file."""
    return getattr(error, "strerror", None) or str(error)


def advice(error: Exception) -> str:
    """Return what to do about *error*, in the terms of the command line; may be empty."""
    codes = {getattr(each, "errno", None) for each in _causes(error)}
    if codes & _OUT_OF_FILES:
        return "raise the limit on open files (ulimit -n 4096), or lower --concurrency"
    match error:
        case TaskTimeoutError(out_task_id=out_task_id):
            text = f"the task is still running; resume with: aireiter wait {out_task_id}"
        case AmbiguousSubmitError(out_task_id=out_task_id):
            text = recovery_hint(out_task_id)
        case RequestTimeoutError():  # --timeout is for the whole command
            text = "try again"
        case ConnectError() | ProtocolError():
            text = (
                f"{with_options(error.advice) or 'try again'}; to find the cause: aireiter doctor"
            )
        case AireiterError():
            full = isinstance(error, DownloadError) and codes & NO_SPACE
            text = FREE_SPACE if full else with_options(error.advice)
        case UnknownModelError():
            text = "list them with: aireiter models"
        case ModuleNotFoundError(name="sqlite3" | "_sqlite3"):
            text = "use a Python that was built with SQLite, or install libsqlite3-dev and rebuild"
        case UsageError() | OSError() | CommandError() | InvalidParamsError():
            text = ""
        case _:
            text = "please report it with the output of --debug"
    return text


def _advice_in_batch(error: Exception) -> str:
    match error:
        case TaskTimeoutError() | AmbiguousSubmitError():
            return "the same command finishes it"
        case IDInUseError():
            return "give the row an ID of its own"
        case _:
            return advice(error)


def recovery_hint(out_task_id: str) -> str:
    """Return what to do about a submit that may have been accepted."""
    return (
        f"check with: aireiter query {out_task_id}, "
        f"or submit the same request again with --id {out_task_id} --maybe-sent"
    )


def with_options(text: str) -> str:
    """Replace the library's keywords in *text* by the command's options."""
    return _KEYWORD.sub(lambda found: _OPTIONS[found[0]], text)


def error_document(error: Exception, *, in_batch: bool = False) -> dict[str, Any]:
    """Return *error* as a JSON object."""
    carried = {name: getattr(error, name, None) for name in _CARRIED}
    return {
        "type": type(error).__name__,
        "message": describe(error, in_batch=in_batch),
        **{name: value for name, value in carried.items() if value is not None},
    }


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
