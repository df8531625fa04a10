"""Retry policy and loop; the only module that imports backoff."""

import logging
import random
from collections.abc import Awaitable, Callable, Iterator
from enum import Enum, auto
from typing import Any, Final, TypeVar

import backoff
from attrs import define, field, frozen

from aireiter_async._arguments import count, flag, not_negative
from aireiter_async._text import without_queries
from aireiter_async.errors import (
    AireiterError,
    APIError,
    ConnectError,
    ProtocolError,
    RateLimitError,
    TransportError,
)

R = TypeVar("R")

_log = logging.getLogger(__name__)

# Shares of RetryPolicy.settle between the polls for a lost submit: soon at first, since
# most responses are lost after the service has stored the task.
_SETTLE_SHARES: Final = (0.0, 0.1, 0.3, 0.6)
_DOUBLINGS: Final = 62


@frozen(kw_only=True)
class RetryPolicy:
    """Retry policy for transient failures.

    Attributes:
        attempts: Attempts per exchange in total, at least 1.
        base: Maximum seconds of the first wait; the maximum doubles with each
            retry, and the wait is drawn at random below it ("full jitter").
        cap: Maximum seconds of a wait, unless the service asks for more.
        settle: Seconds over which the ID of an ambiguous submit is polled before
            the request may be sent again; 0 polls without waiting.
        max_retry_after: The longest ``Retry-After`` to obey, in seconds; after a
            longer one, the error is raised immediately, with ``retry_after`` set.
        resubmit: Whether an ambiguous submit that was polled for and not found may
            be sent again, with the same ID and body.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: A time is negative, or ``attempts`` is below 1.
    """

    attempts: int = field(default=5, validator=count)
    base: float = field(default=0.5, validator=not_negative)
    cap: float = field(default=30.0, validator=not_negative)
    settle: float = field(default=5.0, validator=not_negative)
    max_retry_after: float = field(default=120.0, validator=not_negative)
    resubmit: bool = field(default=True, validator=flag)

    def wait(
        self,
        error: AireiterError,
        retries: int = 0,
        uniform: Callable[[], float] = random.random,
    ) -> float:
        """Return the seconds to wait after *error*, before one more attempt.

        A ``Retry-After`` is obeyed in full, with up to ``base`` seconds of jitter
        on top; otherwise the wait is drawn from zero to ``base`` times two to
        the power of *retries*.

        Args:
            error: The failure of the last attempt.
            retries: The number of retries so far.
            uniform: Returns a random number in [0, 1).
        """
        seconds = retry_after(error)
        if seconds is not None:
            return seconds + uniform() * self.base
        return uniform() * min(self.cap, self.base * 2.0 ** min(retries, _DOUBLINGS))

    def settle_waits(self) -> Iterator[float]:
        """Yield the seconds before each poll for a lost submit: `settle` in all."""
        return (share * self.settle for share in _SETTLE_SHARES)

    def allows(self, error: Exception) -> bool:
        """Return whether the ``Retry-After`` of *error*, if any, is within `max_retry_after`."""
        seconds = retry_after(error)
        return seconds is None or seconds <= self.max_retry_after


class FailureClass(Enum):
    """Whether the service may have accepted a failed submit, and so what to do next."""

    NOT_SENT = auto()
    """The connection was never made: retry."""
    RATE_LIMITED = auto()
    """The service limits the rate: retry after ``Retry-After``."""
    REJECTED = auto()
    """The service rejected it and would do so again: raise."""
    AMBIGUOUS = auto()
    """The service may have accepted it: settle."""


# A definite rejection, as the HTTP status of any body or as the code of an envelope; 408 and 5xx
# may come from a proxy that has passed the request on. 425 and 429 are rate limits, unless the
# body says that the account is out of credits.
_REJECTIONS: Final = frozenset({501, *range(400, 500)} - {408})
# The code of an envelope that reports a failure without a code: ``"success": false``.
_NO_CODE: Final = 200


def failure_class(error: AireiterError) -> FailureClass:
    """Classify a failed exchange by HTTP status, envelope code and kind of body.

    Args:
        error: The exchange's error. An `APIError` is an envelope and has both a
            code and a status; a `ProtocolError` is any other body (HTML, broken
            JSON) and has a status only; a `TransportError` has neither.
    """
    match error:
        case ConnectError():
            return FailureClass.NOT_SENT
        case RateLimitError():
            return FailureClass.RATE_LIMITED
        case APIError(code=code, status=status) if code == _NO_CODE or not _REJECTIONS.isdisjoint(
            (code, status)
        ):
            return FailureClass.REJECTED
        case ProtocolError(status=status) if status in _REJECTIONS:
            return FailureClass.REJECTED
        case _:
            return FailureClass.AMBIGUOUS


def retry_after(error: Exception) -> float | None:
    """Return the service's ``Retry-After`` in seconds, or None."""
    if isinstance(error, APIError | ProtocolError):
        return error.retry_after
    return None


def is_transient(error: Exception) -> bool:
    """Return whether the same exchange may succeed later."""
    return isinstance(error, TransportError | ProtocolError) or (
        isinstance(error, APIError) and failure_class(error) is not FailureClass.REJECTED
    )


def may_submit_again(error: Exception) -> bool:
    """Return whether to retry a submit: as `is_transient`, but not if rejected in HTML."""
    return is_transient(error) and failure_class(error) is not FailureClass.REJECTED  # type: ignore[arg-type]


@frozen
class Target:
    """A request's kind, host (without credentials) and task: the start of a log line."""

    kind: Any
    host: str
    out_task_id: str | None = None

    def __str__(self) -> str:
        task = f" {self.out_task_id}" if self.out_task_id else ""
        return f"{self.kind}{task} at {self.host}"


@define
class RetryState:
    """State of a failing call: its retries so far, and the wait before the next attempt."""

    retry: "Retry"
    target: Target
    retries: int = 0
    seconds: float = 0.0

    def note_failure(self, error: AireiterError) -> None:
        policy = self.retry.policy
        self.seconds = policy.wait(error, self.retries)
        self.retries += 1
        _log.info(
            "%s: attempt %d of %d failed, retrying in %.2f s: %s",
            self.target,
            self.retries,
            policy.attempts,
            self.seconds,
            without_queries(error.summary),
        )
        self.retry.on_retry(self.target, error, self.seconds)

    async def run(self, attempt: Callable[..., Awaitable[R]], *args: Any) -> R:
        """Wait, then await ``attempt(*args)``, until it succeeds or fails for good."""
        result: R = await self.retry.repeat(self, attempt, *args)
        return result


class Retry:
    """Retries an attempt while its failures are transient.

    Most calls succeed at once: backoff, which costs as much as parsing a response,
    takes over after the first failure.

    Args:
        sleep: Sleeps for a number of seconds; its exceptions propagate.
        on_retry: Called with each error that will be retried, what its request was for, and
            the seconds until then.
        transient: Returns whether an error may be retried.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        *,
        sleep: Callable[[float], Awaitable[None]],
        on_retry: Callable[[Target, AireiterError, float], None],
        transient: Callable[[Exception], bool] = is_transient,
    ) -> None:
        self.policy = policy
        self.sleep = sleep
        self.on_retry = on_retry

        # Not a method: backoff holds a reference to it, a cycle with this object.
        def is_final(error: Exception) -> bool:
            return not transient(error) or not policy.allows(error)

        self._is_final = is_final
        # backoff's own waits cannot be woken when the client closes, and its ``runtime`` shortens
        # a Retry-After: its interval is 0, and the wait takes place in `_wait_and_try`.
        self.repeat = backoff.on_exception(
            backoff.constant,
            AireiterError,
            interval=0,
            jitter=None,
            max_tries=max(1, policy.attempts - 1),
            giveup=self._is_final,
            on_backoff=_note_failure,
            logger=None,
        )(_wait_and_try)

    async def call(self, target: Target, attempt: Callable[..., Awaitable[R]], *args: Any) -> R:
        """Await ``attempt(*args)`` until it succeeds.

        Raises:
            AireiterError: The first final error, or that of the last attempt. Other
                exceptions, such as cancellation, propagate immediately.
        """
        try:
            return await attempt(*args)
        except AireiterError as error:
            retries = self.start(target, error)
        return await retries.run(attempt, *args)

    def start(self, target: Target, error: AireiterError) -> RetryState:
        """Return the state for retrying an attempt that failed with *error*.

        Raises:
            AireiterError: *error*, if it must not be retried.
        """
        if self.policy.attempts == 1 or self._is_final(error):
            try:
                raise error
            finally:
                del error  # its traceback holds this frame: a cycle
        state = RetryState(self, target)
        state.note_failure(error)
        return state


async def _wait_and_try(state: RetryState, attempt: Callable[..., Awaitable[R]], *args: Any) -> R:
    await state.retry.sleep(state.seconds)
    return await attempt(*args)


def _note_failure(details: Any) -> None:
    details["args"][0].note_failure(details["exception"])  # of `_wait_and_try`
