"""Retries: what may be tried again, after how long, and how often."""

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aireiter_async._retry import (
    FailureClass,
    Retry,
    RetryPolicy,
    Target,
    failure_class,
    is_transient,
    may_submit_again,
    retry_after,
)
from aireiter_async._tasks import Task, TaskStatus
from aireiter_async.errors import (
    AireiterError,
    AmbiguousSubmitError,
    APIError,
    AuthenticationError,
    BudgetExceededError,
    ConnectError,
    DownloadError,
    InsufficientCreditsError,
    InvalidRequestError,
    ProtocolError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    TaskFailedError,
    TaskNotFoundError,
    TransportError,
)

AT_ONCE = RetryPolicy(base=0, settle=0)
BROKEN = TransportError("connection reset")
TARGET = Target("query", "a.example", "cat")
REFUSED: list[AireiterError] = [
    InvalidRequestError(400, "no"),
    AuthenticationError(401, "no"),
    InsufficientCreditsError(402, "no"),
    AuthenticationError(403, "no"),
    TaskNotFoundError(404, "no"),
    InvalidRequestError(422, "no"),
    InsufficientCreditsError(433, "no"),
    APIError(409, "conflict"),
    APIError(418, "teapot"),
]
PACED: list[AireiterError] = [RateLimitError(425, "early"), RateLimitError(429, "slow")]
PASSING: list[AireiterError] = [
    BROKEN,
    RequestTimeoutError("too long"),
    ProtocolError("HTML", 502),
    ServerError(500, "oops"),
    ServerError(599, "oops"),
    APIError(1001, "what"),
    APIError(-1, "what"),
]
NEVER_SENT: list[AireiterError] = [ConnectError("refused")]
OTHERS: list[AireiterError] = [
    AmbiguousSubmitError("a"),
    TaskFailedError(Task("a", TaskStatus.FAILED)),
    DownloadError("https://h/a", "cut short"),
    BudgetExceededError("spent"),
]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectError("refused"), FailureClass.NOT_SENT),
        (RateLimitError(429, "slow"), FailureClass.RATE_LIMITED),
        (RateLimitError(425, "early", status=425), FailureClass.RATE_LIMITED),
        *[(APIError(code, "no"), FailureClass.REJECTED) for code in (400, 405, 409, 451, 499, 501)],
        *[(ProtocolError("HTML", code), FailureClass.REJECTED) for code in (400, 404, 413, 501)],
        (InsufficientCreditsError(429, "insufficient_quota", status=429), FailureClass.REJECTED),
        (InvalidRequestError(200, "no code, but success is false"), FailureClass.REJECTED),
        (APIError(1001, "no", status=400), FailureClass.REJECTED),
        (InvalidRequestError(400, "no", status=500), FailureClass.REJECTED),
        *[(APIError(code, "what"), FailureClass.AMBIGUOUS) for code in (0, 408, 500, 599, 1001)],
        (APIError(408, "no", status=408), FailureClass.AMBIGUOUS),
        *[(ProtocolError("?", code), FailureClass.AMBIGUOUS) for code in (200, 302, 408, 502)],
        (BROKEN, FailureClass.AMBIGUOUS),
        (RequestTimeoutError("too long"), FailureClass.AMBIGUOUS),
    ],
    ids=repr,
)
def test_a_failure_has_a_class(error: AireiterError, expected: FailureClass) -> None:
    assert failure_class(error) is expected


def waits(policy: RetryPolicy, errors: list[AireiterError], uniform: float) -> list[float]:
    """Return what the policy waits after each of *errors*."""
    return [policy.wait(error, n, lambda: uniform) for n, error in enumerate(errors)]


@attrs.define
class Attempts:
    """A coroutine function that raises *errors* in turn, then succeeds."""

    errors: list[BaseException]
    calls: list[tuple[Any, ...]] = attrs.field(factory=list[tuple[Any, ...]])
    told: list[AireiterError] = attrs.field(factory=list[AireiterError])

    async def __call__(self, *args: Any) -> str:
        """Try once."""
        self.calls.append(args)
        if len(self.calls) <= len(self.errors):
            raise self.errors[len(self.calls) - 1]
        return "done"

    def retrying(self, policy: RetryPolicy = AT_ONCE) -> Callable[..., Awaitable[str]]:
        """Return what tries again under *policy*."""
        retry = Retry(policy, sleep=asyncio.sleep, on_retry=lambda _, e, __: self.told.append(e))
        return partial(retry.call, TARGET, self.__call__)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"attempts": 0}, ValueError, "attempts must be at least 1, got 0"),
        ({"attempts": 2.0}, TypeError, "attempts must be an int, got float"),
        ({"attempts": True}, TypeError, "attempts must be an int, got bool"),
        ({"base": -0.1}, ValueError, "base must be a finite number, at least 0, got -0.1"),
        ({"base": "1"}, TypeError, "base must be a number, got str"),
        ({"cap": float("inf")}, ValueError, "cap must be a finite number"),
        ({"settle": float("nan")}, ValueError, "settle must be a finite number"),
        ({"settle": None}, TypeError, "settle must be a number, got NoneType"),
        ({"max_retry_after": -1}, ValueError, "max_retry_after must be a finite number"),
        ({"resubmit": 0}, TypeError, "resubmit must be a bool, got int"),
    ],
)
def test_a_policy_is_checked(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    """Each argument is named with what it may be."""
    with pytest.raises(error, match=f"^{message}"):
        RetryPolicy(**arguments)


def test_a_policy_is_a_value() -> None:
    """Policies compare and hash by what they hold, and have the documented defaults."""
    policy = RetryPolicy(
        attempts=5, base=0.5, cap=30.0, settle=5.0, max_retry_after=120.0, resubmit=True
    )
    assert {policy, RetryPolicy()} == {policy}
    with pytest.raises(TypeError):
        RetryPolicy(5)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("uniform", "expected"),
    [
        (0.0, [0.0] * 9),
        (0.5, [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0]),
        (0.999, [0.999 * most for most in (0.5, 1, 2, 4, 8, 16, 30, 30, 30)]),
    ],
)
def test_waits_double_up_to_the_cap(uniform: float, expected: list[float]) -> None:
    """Each wait is drawn from zero to twice what the one before was drawn from."""
    assert waits(RetryPolicy(), [BROKEN] * 9, uniform) == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["api", "protocol"])
@pytest.mark.parametrize("asked", [0.0, 0.25, 7.0, 1000.0])
@pytest.mark.parametrize("uniform", [0.0, 0.5, 0.999])
def test_a_retry_after_is_kept_in_full(kind: str, asked: float, uniform: float) -> None:
    """What the service asks for is never shortened, capped or doubled; jitter comes on top."""
    errors: dict[str, AireiterError] = {
        "api": RateLimitError(429, "slow", asked),
        "protocol": ProtocolError("HTML", 503, "", asked),
    }
    expected = [asked + uniform * 0.5] * 3
    assert waits(RetryPolicy(cap=1.0), [errors[kind]] * 3, uniform) == pytest.approx(expected)


def test_a_retry_after_counts_as_a_retry() -> None:
    """After a wait that was asked for, the drawn ones are as long as their number says."""
    errors = [BROKEN, RateLimitError(429, "slow", 7.0), BROKEN, BROKEN]
    assert waits(RetryPolicy(), errors, 0.5) == [0.25, 7.25, 1.0, 2.0]


@pytest.mark.parametrize("base", [0.5, 1e308, 5e-324, 0.0])
def test_waits_never_overflow(base: float) -> None:
    """The two thousandth retry waits as long as the cap allows, and no longer."""
    last = waits(RetryPolicy(base=base), [BROKEN] * 2000, 0.999)[-1]
    assert last == pytest.approx(29.97 if base >= 0.5 else 0.0)


@given(
    st.builds(
        RetryPolicy,
        base=st.floats(0, 1e6),
        cap=st.floats(0, 1e6),
    ),
    st.lists(st.none() | st.floats(0, 1e9), max_size=80),
    st.floats(0, 1, exclude_max=True),
)
def test_waits_are_within_their_bounds(
    policy: RetryPolicy, asked: list[float | None], uniform: float
) -> None:
    """A drawn wait is from zero to the cap, one that was asked for is never shorter."""
    errors: list[AireiterError] = [RateLimitError(429, "slow", seconds) for seconds in asked]
    for seconds, wait in zip(asked, waits(policy, errors, uniform), strict=True):
        low, high = (0, policy.cap) if seconds is None else (seconds, seconds + policy.base)
        assert low <= wait <= high


@pytest.mark.parametrize("settle", [0.0, 5.0, 0.3, 1e6])
def test_settle_waits_are_settle_in_all(settle: float) -> None:
    """A lost submit is looked for at once, and then over `settle` seconds."""
    seconds = list(RetryPolicy(settle=settle).settle_waits())
    assert sum(seconds) == pytest.approx(settle)
    assert seconds[0] == 0
    assert seconds == sorted(seconds)


@pytest.mark.parametrize("error", PASSING + PACED + NEVER_SENT)
def test_what_may_pass_is_transient(error: AireiterError) -> None:
    assert is_transient(error)


def test_a_submit_that_was_rejected_in_html_is_not_repeated() -> None:
    assert is_transient(ProtocolError("HTML", 403))
    assert not may_submit_again(ProtocolError("HTML", 403))
    assert may_submit_again(ProtocolError("HTML", 502))


@pytest.mark.parametrize("error", [*REFUSED, *OTHERS, ValueError()])
def test_what_is_final_is_not_transient(error: Exception) -> None:
    """A rejection for good, the end of a task and what is not ours are final."""
    assert not is_transient(error)


def test_only_responses_ask_to_wait() -> None:
    """What is no response carries no rate."""
    assert retry_after(RateLimitError(429, "slow", 3.0)) == 3.0
    assert retry_after(ProtocolError("HTML", 503, "", 4.0)) == 4.0
    assert retry_after(ServerError(503, "oops")) is None
    assert retry_after(BROKEN) is None


async def test_success_is_returned_at_once() -> None:
    """What succeeds is called once, with its arguments."""
    attempts = Attempts([])
    assert await attempts.retrying()("a", "b") == "done"
    assert (attempts.calls, attempts.told) == ([("a", "b")], [])


@pytest.mark.parametrize("error", PASSING + PACED + NEVER_SENT)
async def test_transient_errors_are_ridden_out(error: AireiterError) -> None:
    """Up to *attempts* calls are made, with the same arguments, and each retry is told."""
    attempts = Attempts([error] * 4)
    assert await attempts.retrying()("a", "b") == "done"
    assert attempts.calls == [("a", "b")] * 5
    assert attempts.told == [error] * 4


@pytest.mark.parametrize("allowed", [1, 2, 5])
async def test_the_last_error_is_raised_in_the_end(allowed: int) -> None:
    """After *attempts* calls the last error comes out as it was raised, and is not told."""
    errors = [TransportError(f"reset {n}") for n in range(9)]
    attempts = Attempts([*errors])
    with pytest.raises(TransportError) as caught:
        await attempts.retrying(attrs.evolve(AT_ONCE, attempts=allowed))()
    assert caught.value is errors[allowed - 1]
    assert len(attempts.calls) == allowed
    assert attempts.told == errors[: allowed - 1]
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("error", REFUSED + OTHERS)
@pytest.mark.parametrize("before", [0, 1, 3])
async def test_final_errors_are_raised_at_once(error: AireiterError, before: int) -> None:
    """A rejection for good ends it, on the first attempt or on a later one."""
    attempts = Attempts([BROKEN] * before + [error])
    with pytest.raises(type(error)) as caught:
        await attempts.retrying()()
    assert caught.value is error
    assert len(attempts.calls) == before + 1


@pytest.mark.parametrize("asked", [120.1, 1e9])
async def test_a_wait_beyond_the_limit_is_not_waited(asked: float) -> None:
    """When the service asks for longer than allowed, its error is raised at once."""
    attempts = Attempts([BROKEN, RateLimitError(429, "tomorrow", asked)])
    with pytest.raises(RateLimitError) as caught:
        await attempts.retrying()()
    assert caught.value.retry_after == asked
    assert len(attempts.calls) == 2


async def test_a_wait_of_the_limit_is_waited() -> None:
    """The limit itself is allowed."""
    attempts = Attempts([RateLimitError(429, "slow", 0.0)])
    assert await attempts.retrying(attrs.evolve(AT_ONCE, max_retry_after=0))() == "done"


@pytest.mark.parametrize(
    "error",
    [asyncio.CancelledError("enough"), KeyboardInterrupt(), ValueError("bug"), TimeoutError()],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("before", [0, 2])
async def test_what_is_not_ours_passes_at_once(error: BaseException, before: int) -> None:
    """Cancellation and errors of others are neither retried nor wrapped."""
    attempts = Attempts([BROKEN] * before + [error])
    with pytest.raises(type(error)) as caught:
        await attempts.retrying()()
    assert caught.value is error
    assert len(attempts.calls) == before + 1


async def test_a_wait_can_be_cancelled() -> None:
    """Whoever is cancelled between two attempts makes no other."""
    attempts = Attempts([RateLimitError(429, "slow", 100.0)])
    told = asyncio.Event()
    retry = Retry(AT_ONCE, sleep=asyncio.sleep, on_retry=lambda *_: told.set())
    task = asyncio.create_task(retry.call(TARGET, attempts.__call__))
    await told.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(attempts.calls) == 1


async def test_calls_do_not_share_their_attempts() -> None:
    """One function made once serves many calls, each with all its attempts."""
    numbers = itertools.count()

    async def attempt(name: str) -> str:
        await asyncio.sleep(0)
        if next(numbers) < 40:
            raise BROKEN
        return name

    policy = attrs.evolve(AT_ONCE, attempts=6)
    retry = Retry(policy, sleep=asyncio.sleep, on_retry=lambda *_: None)
    names = [f"{n}" for n in range(10)]
    assert await asyncio.gather(*(retry.call(TARGET, attempt, name) for name in names)) == names


async def test_retries_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Each retry is one line at INFO on our own logger, and backoff says nothing."""
    caplog.set_level(logging.DEBUG)
    error = ServerError(500, "100% broken %s %d")
    attempts = Attempts([error, RateLimitError(429, "slow", 0.0)])
    await attempts.retrying(attrs.evolve(AT_ONCE, attempts=3))()
    ours = [record for record in caplog.records if record.name != "asyncio"]
    assert {(record.name, record.levelname) for record in ours} == {
        ("aireiter_async._retry", "INFO")
    }
    assert [record.getMessage() for record in ours] == [
        f"query cat at a.example: attempt 1 of 3 failed, retrying in 0.00 s: {error}",
        f"query cat at a.example: attempt 2 of 3 failed, retrying in 0.00 s: {attempts.told[1]}",
    ]


async def test_a_final_error_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """What is raised is the caller's to log."""
    caplog.set_level(logging.DEBUG, "aireiter_async")
    with pytest.raises(AuthenticationError):
        await Attempts([REFUSED[1]]).retrying()()
    assert caplog.messages == []
