"""The errors of this package.

::

    AireiterError
    ├── TransportError                    no complete response arrived
    │   ├── ConnectError                  nothing was ever sent
    │   └── RequestTimeoutError           also a TimeoutError
    ├── ProtocolError                     a response, but not the API's
    ├── APIError                          the service rejected the request
    │   ├── InvalidRequestError           400, 413, 422
    │   │   └── IDInUseError              409, the ID belongs to an earlier request
    │   ├── AuthenticationError           401, 403
    │   ├── InsufficientCreditsError      402, 433
    │   ├── TaskNotFoundError             "api task not found"
    │   ├── RateLimitError                425, 429
    │   └── ServerError                   5xx
    ├── AmbiguousSubmitError              may or may not have been accepted
    ├── TaskError
    │   ├── TaskFailedError
    │   ├── ResultMissingError            completed, but without a result
    │   └── TaskTimeoutError              also a TimeoutError
    ├── DownloadError
    ├── BudgetExceededError
    ├── NotSubmittedError                 the batch stopped before its turn
    ├── LedgerError                       the ledger cannot be read or written
    └── StoreError                        an idempotency store cannot be used

Bad arguments are `ValueError` or `TypeError`, raised before any I/O. A client
that is used after `close`, or from a second event loop, raises `RuntimeError`.

Every error pickles, names its task if there is one, and has its cause in
``__cause__``. ``str(error)`` says what happened; ``error.advice`` says what to do,
and is attached as a note (PEP 678), which tracebacks show.
"""

from collections.abc import Mapping
from typing import Final

from attrs import Factory, define, field

from aireiter_async._tasks import Task
from aireiter_async._text import printable

__all__ = [
    "APIError",
    "AireiterError",
    "AmbiguousSubmitError",
    "AuthenticationError",
    "BudgetExceededError",
    "ConnectError",
    "DownloadError",
    "IDInUseError",
    "InsufficientCreditsError",
    "InvalidRequestError",
    "LedgerError",
    "NotSubmittedError",
    "ProtocolError",
    "RateLimitError",
    "RequestTimeoutError",
    "ResultMissingError",
    "ServerError",
    "StoreError",
    "TaskError",
    "TaskFailedError",
    "TaskNotFoundError",
    "TaskTimeoutError",
    "TransportError",
    "http_status",
]


class AireiterError(Exception):
    """Base class of all errors of this package.

    Attributes:
        message: What happened.
        advice: What to do; empty if there is nothing to add.
    """

    advice: str = ""
    message: str

    # Not a field: each subclass declares it as one, in the position that suits it.
    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.__attrs_post_init__()

    def __attrs_post_init__(self) -> None:
        if self.advice:
            self.__notes__: list[str] = [self.advice]

    def __str__(self) -> str:
        out_task_id: str | None = getattr(self, "out_task_id", None)
        task = f" [task {out_task_id}]" if out_task_id else ""
        return f"{self.summary}{task}"

    @property
    def summary(self) -> str:
        """What happened, without the task's ID: for use in another message."""
        return printable(self._text())

    def _text(self) -> str:
        return self.message


@define(slots=False)
class TransportError(AireiterError):
    """No complete response arrived: the request may have been received.

    Attributes:
        out_task_id: The ID of the task concerned.
    """

    advice = "try again with the same ID"
    message: str
    out_task_id: str | None = None


class ConnectError(TransportError):
    """The connection was never made (DNS, refused, TLS, connect timeout): nothing was sent."""

    advice = "check base_url, the network and the proxy; nothing was sent"


class RequestTimeoutError(TransportError, TimeoutError):
    """The response took longer than the client's ``timeout`` in seconds."""

    advice = "raise timeout, or try again with the same ID"


@define(slots=False)
class ProtocolError(AireiterError):
    """A response arrived that is not the API's: HTML, broken JSON or an unexpected shape.

    Attributes:
        message: What was wrong, and the likely cause.
        status: The HTTP status.
        excerpt: The first 200 characters of the body.
        retry_after: The service's ``Retry-After`` in seconds.
        out_task_id: The ID of the task concerned.
        advice: What to do, if the response shows it.
    """

    message: str
    status: int
    excerpt: str = ""
    retry_after: float | None = None
    out_task_id: str | None = None
    advice: str = ""

    def _text(self) -> str:
        return f"{self.message} (HTTP {self.status}): {self.excerpt!r}"


@define(slots=False)
class APIError(AireiterError):
    """The service rejected the request.

    Attributes:
        code: The service's code: from the envelope, else the HTTP status.
        message: The service's text, possibly in two languages.
        retry_after: The service's ``Retry-After`` in seconds.
        out_task_id: The ID of the task concerned.
        status: The HTTP status, which may well be 200.
    """

    code: int
    message: str
    retry_after: float | None = None
    out_task_id: str | None = None
    status: int = 200

    def _text(self) -> str:
        wait = "" if self.retry_after is None else f", retry after {self.retry_after:g} s"
        return f"{self.message or 'rejected without a message'} (code {self.code}{wait})"


class InvalidRequestError(APIError):
    """The service does not accept the request as it is (400, 413, 422)."""

    advice = "correct the request"


class IDInUseError(InvalidRequestError):
    """The ID belongs to an earlier request (409): nothing was charged for this one."""

    advice = (
        "if an earlier attempt of this request sent it, pass maybe_sent=True; "
        "otherwise give the request an ID of its own"
    )


class AuthenticationError(APIError):
    """The service does not accept the API key (401, 403)."""

    advice = "check the API key: https://aireiter.com/keys"


class InsufficientCreditsError(APIError):
    """The account's credits do not cover the task (402, 433)."""

    advice = "top up the account at https://aireiter.com; nothing was charged"


class TaskNotFoundError(APIError):
    """The service knows no task with this ID under this key ("api task not found")."""

    advice = "check the ID, and that the key is the one it was submitted with"


class RateLimitError(APIError):
    """The service asks for fewer requests (425, 429)."""

    advice = "wait, or lower max_rate or max_concurrency"


class ServerError(APIError):
    """The service failed (5xx)."""

    advice = "try again later with the same ID"


@define(slots=False)
class AmbiguousSubmitError(AireiterError):
    """A submit may or may not have been accepted, and the service could not be queried.

    Submitting again under another ID could pay twice. ``find(out_task_id)`` looks the
    task up; ``submit(request, out_task_id=error.out_task_id, maybe_sent=True)`` does
    so before it sends anything, and is safe.

    Attributes:
        out_task_id: The ID that the task has if it was accepted.
    """

    advice = (
        "query this ID later, or submit the same request with this out_task_id and maybe_sent=True"
    )
    out_task_id: str
    message: str = "the submit may or may not have been accepted"


def _describe(error: "TaskError") -> str:
    return f"the task is {error.task.status}"


@define(slots=False)
class TaskError(AireiterError):
    """A task did not complete.

    Attributes:
        task: The task as it was last seen.
    """

    task: Task
    message: str = field(default=Factory(_describe, takes_self=True))

    @property
    def out_task_id(self) -> str:
        """The ID of the task."""
        return self.task.out_task_id


def _reason(error: "TaskFailedError") -> str:
    detail = error.task.error
    return (detail and detail.message) or "the service gave no reason"


@define(slots=False)
class TaskFailedError(TaskError):
    """The service reports that the task failed; failed tasks are refunded.

    Attributes:
        task: The failed task, with the whole reply in ``task.raw``.
        message: The service's reason.
    """

    message: str = field(default=Factory(_reason, takes_self=True))

    @property
    def failure_code(self) -> str | None:
        """The service's failure code, such as ``TIMEOUT``, or None."""
        return (self.task.error and self.task.error.code) or None

    def _text(self) -> str:
        return f"the task failed: {self.failure_code or 'no code'}: {self.message}"


def _describe_missing(_error: "ResultMissingError") -> str:
    return "the task has completed, but the service shows no result"


@define(slots=False)
class ResultMissingError(TaskError):
    """The service reports the task as completed, but has not published a result in time.

    Attributes:
        task: The completed task, with the whole reply in ``task.raw``.
    """

    advice = "the task is paid for: wait for it again later with wait(error.task)"
    message: str = field(default=Factory(_describe_missing, takes_self=True))


class TaskTimeoutError(TaskError, TimeoutError):
    """The task had not ended at the caller's deadline: it keeps running and is charged.

    Attributes:
        task: The task as it was last seen; pass it to `wait` again.
    """

    advice = "the task keeps running: wait for it again with wait(error.task)"


@define(slots=False)
class DownloadError(AireiterError):
    """A result could not be saved; no partial file is left.

    Attributes:
        url: The result's URL, truncated if extremely long.
        out_task_id: The ID of the task that the result belongs to.
        expired: Whether the host no longer serves the URL.
    """

    advice = "the result is still at its URL: download it again"
    url: str
    message: str
    out_task_id: str | None = None
    expired: bool = False

    def __attrs_post_init__(self) -> None:
        if self.expired:
            self.advice = "query the task for a fresh URL: client.query(out_task_id)"
        elif not self.url:
            self.advice = "query the task, then download it: client.query(out_task_id)"
        super().__attrs_post_init__()

    def _text(self) -> str:
        return f"{self.message}: {self.url}" if self.url else self.message


@define(slots=False)
class BudgetExceededError(AireiterError):
    """The task was not submitted: it could have exceeded ``max_credits``.

    Attributes:
        message: The limit, and what is spent and reserved, in credits.
        out_task_id: The ID of the request.
        price_unknown: Whether the reason is a price that cannot be learned.
    """

    advice = "raise max_credits; nothing was charged for this task"
    message: str
    out_task_id: str | None = None
    price_unknown: bool = False

    def __attrs_post_init__(self) -> None:
        if self.price_unknown:
            self.advice = "run these tasks without max_credits; nothing was charged for this one"
        super().__attrs_post_init__()


@define(slots=False)
class NotSubmittedError(AireiterError):
    """The request was not sent: its batch stopped submitting before its turn.

    Attributes:
        message: Why the batch stopped.
        out_task_id: The ID of the request.
    """

    advice = "fix the cause and run the batch again; nothing was charged for this task"
    message: str
    out_task_id: str | None = None


@define(slots=False)
class LedgerError(AireiterError):
    """The ledger cannot be read or written; nothing that needed it was sent.

    Attributes:
        message: What is wrong with it.
        path: The ledger's path.
    """

    advice = "fix the cause and run the batch again"
    message: str
    path: str = ""

    def _text(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


@define(slots=False)
class StoreError(AireiterError):
    """The idempotency store cannot be used; nothing that needed its claim was sent."""

    advice = "check the store, then make the same call again"
    message: str
    out_task_id: str | None = None


# The first match wins, so subclasses come before their bases.
_HTTP_STATUSES: Final[Mapping[type[Exception], int]] = {
    IDInUseError: 409,
    TaskNotFoundError: 404,
    AuthenticationError: 503,
    InsufficientCreditsError: 503,
    RateLimitError: 503,
    BudgetExceededError: 503,
    NotSubmittedError: 503,
    StoreError: 503,
    TimeoutError: 504,  # RequestTimeoutError and TaskTimeoutError as well
    AireiterError: 502,
    ValueError: 422,  # bad arguments, models.InvalidParamsError among them
    TypeError: 422,
}
_CLIENT_ERRORS: Final = range(400, 500)


def http_status(error: Exception) -> int:
    """Return the HTTP status that a web application should send to its own caller.

    Args:
        error: An exception raised by this package.

    Returns:
        4xx if the caller's request is at fault (the service's own code, 404
        for an unknown task, 409 for a used ID, 422 for bad arguments), 503 for the
        account, budget, rate limit or store, 504 for a timeout, 502 otherwise.
    """
    if isinstance(error, InvalidRequestError) and not isinstance(error, IDInUseError):
        return error.code if error.code in _CLIENT_ERRORS else 400
    return next((code for kind, code in _HTTP_STATUSES.items() if isinstance(error, kind)), 502)
