"""What may be tried again, when, and how often.

backoff does the retrying; its oddities have their address here. Its own
``runtime`` wait shortens a ``Retry-After`` by its jitter and its ``max_time``
cuts the last wait, so the waits come from a generator of ours. Decorating
inspects the function: it is done once per client, not per call.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Generator, Iterator
from enum import Enum, auto
from typing import Any, Final, ParamSpec, TypeVar

import backoff
from attrs import define, field, frozen

from aireiter_async._arguments import count, flag, not_negative
from aireiter_async.errors import (
    AireiterError,
    APIError,
    ConnectError,
    ProtocolError,
    RateLimitError,
    TransportError,
)

P = ParamSpec("P")
R = TypeVar("R")

logger = logging.getLogger("aireiter_async")

# With one of these codes the service has certainly accepted nothing.
REFUSED: Final = frozenset({400, 401, 402, 403, 404, 422, 425, 429, 433})
# Shares of RetryPolicy.settle between the looks for a lost submit: soon at first, since
# most answers are lost after the service has stored the task.
_SETTLE_SHARES: Final = (0.0, 0.1, 0.3, 0.6)
_DOUBLINGS: Final = 62


@frozen(kw_only=True)
class RetryPolicy:
    """How failures are met.

    Attributes:
        attempts: Times that one exchange is tried in all, at least 1.
        base: Seconds that the first wait is at most; each next one is drawn
            from twice the range ("full jitter").
        cap: Seconds that a wait is at most, unless the service asks for more.
        settle: Seconds over which a submit whose answer was lost is looked for
            before it may be sent again; 0 looks without waiting.
        max_retry_after: Seconds that the service may ask to wait for; when it
            asks for longer, the error is raised at once with ``retry_after``.
        resubmit: Whether a submit that was looked for and not found may be sent
            again, with the same id and body.

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

    def waits(
        self, uniform: Callable[[], float] = random.random
    ) -> Generator[float, AireiterError, None]:
        """Yield the seconds to wait after each error that is sent in.

        The first value is a prime and no wait. A ``Retry-After`` is kept in
        full, with up to ``base`` seconds of jitter on top; otherwise the wait
        is drawn from zero to ``base`` times two to the number of the retry.

        Args:
            uniform: Draws a number from [0, 1).
        """
        error = yield 0.0
        retry = 0
        while True:
            asked = retry_after(error)
            if asked is None:
                seconds = uniform() * min(self.cap, self.base * 2.0 ** min(retry, _DOUBLINGS))
            else:
                seconds = asked + uniform() * self.base
            retry += 1
            error = yield seconds

    def settle_waits(self) -> Iterator[float]:
        """Yield the seconds before each look for a lost submit: `settle` in all."""
        return (share * self.settle for share in _SETTLE_SHARES)


class FailureClass(Enum):
    """Whether the service may have accepted a submit that failed, and so what to do next."""

    NOT_SENT = auto()
    """The connection was never made: retry."""
    RATE_LIMITED = auto()
    """The service asks for a slower pace: retry after ``Retry-After``."""
    REJECTED = auto()
    """The service has certainly accepted nothing, and would not the next time: raise."""
    AMBIGUOUS = auto()
    """It may have accepted the task: settle."""


# A definite rejection, as the HTTP status of any body or as the code of an envelope; 408 and 5xx
# may come from a proxy that has passed the request on. 0 is an envelope that reports a failure
# (``"success": false``) without a code. 425 and 429 are rate limits where the body agrees.
_REJECTIONS: Final = frozenset({0, 501, *range(400, 500)} - {408})


def failure_class(error: AireiterError) -> FailureClass:
    """Classify a failed exchange by HTTP status, envelope code and kind of body.

    Args:
        error: What the exchange raised. An `APIError` is an envelope and has both a
            code and a status; a `ProtocolError` is any other body (HTML, broken
            JSON) and has a status only; a `TransportError` has neither.
    """
    match error:
        case ConnectError():
            return FailureClass.NOT_SENT
        case RateLimitError():
            return FailureClass.RATE_LIMITED
        case APIError(code=code, status=status) if not _REJECTIONS.isdisjoint((code, status)):
            return FailureClass.REJECTED
        case ProtocolError(status=status) if status in _REJECTIONS:
            return FailureClass.REJECTED
        case _:
            return FailureClass.AMBIGUOUS


def retry_after(error: AireiterError) -> float | None:
    """Return the seconds that the service asks to wait for, None if it does not say."""
    if isinstance(error, APIError | ProtocolError):
        return error.retry_after
    return None


def refused(error: AireiterError) -> bool:
    """Tell whether the service has certainly not accepted what it was sent."""
    return isinstance(error, ConnectError) or (
        isinstance(error, APIError) and error.code in REFUSED
    )


def transient(error: BaseException) -> bool:
    """Tell whether the same exchange may well succeed later."""
    if isinstance(error, APIError):
        return isinstance(error, RateLimitError) or error.code not in REFUSED
    return isinstance(error, TransportError | ProtocolError)


@define
class _Failures:
    """What one call that has failed goes on with: its first error, and its waits."""

    first: AireiterError | None
    waits: Generator[float, AireiterError, None]


def retrying(
    attempt: Callable[P, Awaitable[R]],
    policy: RetryPolicy,
    on_retry: Callable[[AireiterError], None],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Callable[P, Awaitable[R]]:
    """Make *attempt* try again while its errors are transient.

    Args:
        attempt: A coroutine function; what it raises besides our own errors,
            cancellation first of all, passes at once.
        policy: How often, and how long to wait in between.
        on_retry: Told of each error that is going to be retried.
        sleep: Waits for a number of seconds; what it raises passes at once.

    Returns:
        A coroutine function that raises the last error when it gives up.
    """

    def final(error: Exception) -> bool:
        asked = retry_after(error) if isinstance(error, AireiterError) else None
        return not transient(error) or (asked is not None and asked > policy.max_retry_after)

    # backoff's own sleep cannot be woken: it is asked for none, and the wait takes place here.
    async def pause(details: Any) -> None:
        error: AireiterError = details["exception"]
        failures: _Failures = details["args"][0]
        seconds = failures.waits.send(error)
        on_retry(error)
        logger.info(
            "attempt %d of %d failed, the next is in %.2f s: %s",
            details["tries"],
            policy.attempts,
            seconds,
            error,
        )
        await sleep(seconds)

    async def resume(failures: _Failures, *args: P.args, **kwargs: P.kwargs) -> R:
        if failures.first is not None:
            try:
                raise failures.first
            finally:
                failures.first = None  # or the error's own traceback would hold it
        return await attempt(*args, **kwargs)

    resumed = backoff.on_exception(
        backoff.constant,
        AireiterError,
        interval=0,
        max_tries=policy.attempts,
        jitter=None,
        giveup=final,
        on_backoff=pause,
        logger=None,
    )(resume)

    # Nearly every call succeeds at once: backoff is brought in with the first failure, which
    # `resume` raises once more, and not before, since it costs as much as reading an answer.
    async def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await attempt(*args, **kwargs)
        except AireiterError as error:
            failures = _Failures(error, policy.waits())
        next(failures.waits)
        try:
            return await resumed(failures, *args, **kwargs)
        finally:
            failures.waits.close()  # it holds the last error, whose traceback holds it

    return call
