"""The errors: one tree, and all of each survives a pickle."""

import copy
import pickle
import re
import traceback
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest

from aireiter_async import errors
from aireiter_async._tasks import ErrorDetail, Output, Task, TaskStatus
from aireiter_async.errors import (
    AireiterError,
    AmbiguousSubmitError,
    APIError,
    AuthenticationError,
    BudgetExceededError,
    ConnectError,
    DownloadError,
    IDInUseError,
    InsufficientCreditsError,
    InvalidRequestError,
    LedgerError,
    NotSubmittedError,
    ProtocolError,
    RateLimitError,
    RequestTimeoutError,
    ResultMissingError,
    ServerError,
    StoreError,
    TaskError,
    TaskFailedError,
    TaskNotFoundError,
    TaskTimeoutError,
    TransportError,
    http_status,
)
from aireiter_async.models import InvalidParamsError, UnknownModelError

RUNNING = Task("kitten-1", TaskStatus.PROCESSING, "veo3_1")
FAILED = Task(
    "kitten-1",
    TaskStatus.FAILED,
    "veo3_1",
    estimated_credits=2.5,
    credits_used=0.0,
    created_at=datetime(2025, 12, 22, tzinfo=UTC),
    outputs=(Output(url="https://s1.pxz.ai/a.mp4", kind="video", raw={"url": "x"}),),
    error=ErrorDetail("TIMEOUT", "upstream took too long"),
    raw={"data": {"status": "failed"}},
)

EVERY = [
    (AireiterError("it broke"), "it broke"),
    (TransportError("gone", "kitten-1"), "gone [task kitten-1]"),
    (ConnectError("Connection refused", "kitten-1"), "Connection refused [task kitten-1]"),
    (RequestTimeoutError("no reply in 120 s", "kitten-1"), "no reply in 120 s [task kitten-1]"),
    (
        ProtocolError("the reply is HTML", 502, "<html>", 3.0, "kitten-1"),
        "the reply is HTML (HTTP 502): '<html>' [task kitten-1]",
    ),
    (APIError(418, "a teapot", None, "kitten-1", 200), "a teapot (code 418) [task kitten-1]"),
    (
        InvalidRequestError(400, "Invalid aspect_ratio: 1:7", None, "kitten-1", 200),
        "Invalid aspect_ratio: 1:7 (code 400) [task kitten-1]",
    ),
    (IDInUseError(409, "ID is used", None, "kitten-1"), "ID is used (code 409) [task kitten-1]"),
    (AuthenticationError(401, "", None, None, 401), "rejected without a message (code 401)"),
    (
        InsufficientCreditsError(433, "not enough credits", None, "kitten-1", 200),
        "not enough credits (code 433) [task kitten-1]",
    ),
    (
        TaskNotFoundError(400, "api task not found", None, "kitten-1", 200),
        "api task not found (code 400) [task kitten-1]",
    ),
    (
        RateLimitError(429, "slow down", 2.5, "kitten-1", 429),
        "slow down (code 429, retry after 2.5 s) [task kitten-1]",
    ),
    (ServerError(500, "oops", None, "kitten-1", 500), "oops (code 500) [task kitten-1]"),
    (
        AmbiguousSubmitError("kitten-1"),
        "the submit may or may not have been accepted [task kitten-1]",
    ),
    (TaskError(RUNNING), "the task is processing [task kitten-1]"),
    (
        TaskFailedError(FAILED),
        "the task failed: TIMEOUT: upstream took too long [task kitten-1]",
    ),
    (
        ResultMissingError(RUNNING),
        "the task has completed, but the service shows no result [task kitten-1]",
    ),
    (TaskTimeoutError(RUNNING), "the task is processing [task kitten-1]"),
    (
        DownloadError("https://s1.pxz.ai/a.mp4", "cut short", "kitten-1"),
        "cut short: https://s1.pxz.ai/a.mp4 [task kitten-1]",
    ),
    (
        BudgetExceededError("10 of 10 credits are spent", "kitten-1"),
        "10 of 10 credits are spent [task kitten-1]",
    ),
    (
        NotSubmittedError("the API key was rejected", "kitten-1"),
        "the API key was rejected [task kitten-1]",
    ),
    (LedgerError("the disk is full", "run.db"), "run.db: the disk is full"),
    (StoreError("the disk is full", "kitten-1"), "the disk is full [task kitten-1]"),
]
ERRORS = [error for error, _ in EVERY]


def fields(cls: type) -> tuple["attrs.Attribute[Any]", ...]:
    return attrs.fields(cls) if attrs.has(cls) else ()


def tree(lines: list[str]) -> dict[str, str | None]:
    parents: dict[str, str | None] = {}
    path: list[str] = []
    for line in lines:
        drawn = re.match(r"([│├└─ ]*)(\w+)", line)
        assert drawn is not None
        branch, name = drawn.groups()
        depth = len(branch) // 4
        parents[name] = path[depth - 1] if depth else None
        path[depth:] = [name]
    return parents


def drawing() -> list[str]:
    text = (errors.__doc__ or "").partition("::\n\n")[2].partition("\n\n")[0]
    return [line.removeprefix("    ") for line in text.splitlines()]


def classes() -> list[type[AireiterError]]:
    values = vars(errors).values()
    return [each for each in values if isinstance(each, type) and issubclass(each, AireiterError)]


def same(first: Any, second: Any) -> bool:
    return type(first) is type(second) and vars(first) == vars(second)


def test_the_tree_is_as_drawn() -> None:
    assert tree(drawing()) == {
        cls.__name__: cls.__bases__[0].__name__ if cls is not AireiterError else None
        for cls in classes()
    }


@pytest.mark.parametrize("cls", classes())
def test_a_second_base_is_drawn(cls: type[AireiterError]) -> None:
    line = next(line for line in drawing() if re.search(rf"\b{cls.__name__}\b", line))
    assert ("also a TimeoutError" in line) is issubclass(cls, TimeoutError)


def test_each_class_has_an_example_here() -> None:
    assert {type(error) for error in ERRORS} == set(classes())


@pytest.mark.parametrize(("error", "text"), EVERY, ids=lambda value: type(value).__name__)
def test_str_says_what_happened_to_which_task(error: AireiterError, text: str) -> None:
    assert str(error) == text


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_traceback_shows_the_advice_once(error: AireiterError) -> None:
    back = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(error))))  # noqa: S301 - our own
    shown = "".join(traceback.format_exception(back))
    assert shown.count(error.advice or str(error)) == 1
    assert not error.advice or shown.endswith(f"{error.advice}\n")


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_repr_names_every_field(error: AireiterError) -> None:
    shown = repr(error)
    assert shown.startswith(f"{type(error).__name__}(")
    assert all(f"{field.name}=" in shown for field in fields(type(error)))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_every_error_pickles_with_all_it_holds(error: AireiterError, protocol: int) -> None:
    error = copy.deepcopy(error)
    error.add_note("during the demo")
    error.message = "changed"
    back = pickle.loads(pickle.dumps(error, protocol))  # noqa: S301 - our own pickle
    assert same(back, error)
    assert back.__notes__ == [*filter(None, [error.advice]), "during the demo"]
    assert (str(back), repr(back)) == (str(error), repr(error))


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy])
def test_every_error_can_be_copied(error: AireiterError, make: Any) -> None:
    twin = make(error)
    assert same(twin, error)
    assert twin != error


def test_a_pickled_task_error_keeps_the_whole_reply() -> None:
    back = pickle.loads(pickle.dumps(TaskFailedError(FAILED)))  # noqa: S301 - our own pickle
    assert back.task == FAILED
    assert back.task.raw == FAILED.raw
    assert back.task.outputs[0].raw == {"url": "x"}


@pytest.mark.parametrize("cls", [RequestTimeoutError, TaskTimeoutError])
def test_what_took_too_long_is_a_timeout_error(cls: type[AireiterError]) -> None:
    error: Any = cls(RUNNING) if cls is TaskTimeoutError else cls("too long")
    assert isinstance(error, TimeoutError)
    assert error.errno is None
    assert error.strerror is None


@pytest.mark.parametrize(
    ("detail", "code", "text"),
    [
        (None, None, "the task failed: no code: the service gave no reason"),
        (ErrorDetail("", ""), None, "the task failed: no code: the service gave no reason"),
        (ErrorDetail("", "nsfw"), None, "the task failed: no code: nsfw"),
        (ErrorDetail("E1", ""), "E1", "the task failed: E1: the service gave no reason"),
    ],
)
def test_a_failure_without_a_reason_says_so(
    detail: ErrorDetail | None, code: str | None, text: str
) -> None:
    error = TaskFailedError(attrs.evolve(FAILED, error=detail))
    assert error.failure_code == code
    assert str(error) == f"{text} [task kitten-1]"


def test_a_ledger_without_a_path_is_not_named() -> None:
    assert str(LedgerError("it is closed")) == "it is closed"


@pytest.mark.parametrize("cls", classes())
def test_no_field_could_hold_a_key(cls: type[AireiterError]) -> None:
    allowed = {
        "advice",
        "code",
        "excerpt",
        "expired",
        "message",
        "out_task_id",
        "path",
        "price_unknown",
        "retry_after",
        "status",
        "task",
        "url",
    }
    assert {field.name for field in fields(cls)} <= allowed


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidRequestError(400, ""), 400),
        (InvalidRequestError(413, ""), 413),
        (InvalidRequestError(7, "success is false"), 400),
        (IDInUseError(400, "ID is used"), 409),
        (TaskNotFoundError(400, ""), 404),
        (AuthenticationError(401, ""), 503),
        (InsufficientCreditsError(433, ""), 503),
        (RateLimitError(429, ""), 503),
        (BudgetExceededError(""), 503),
        (NotSubmittedError(""), 503),
        (RequestTimeoutError(""), 504),
        (TaskTimeoutError(RUNNING), 504),
        (TimeoutError(), 504),
        (ServerError(500, ""), 502),
        (APIError(405, ""), 502),
        (ProtocolError("", 403), 502),
        (TaskFailedError(FAILED), 502),
        (AmbiguousSubmitError("kitten-1"), 502),
        (InvalidParamsError("m", ()), 422),
        (UnknownModelError("m", ()), 422),
        (TypeError(), 422),
        (LookupError(), 502),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_has_the_status_of_a_web_reply(error: Exception, status: int) -> None:
    assert http_status(error) == status


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("a\x1b[2Jb\r\n2026 ERROR", r"a\x1b[2Jb\r\n2026 ERROR"),
        ("\x00\x9b1m\x7f\u2028", r"\x00\x9b1m\x7f\u2028"),
        ("\u202eevil\u2066\u200f\ufeff", r"\u202eevil\u2066\u200f\ufeff"),
        ("half \ud83d", r"half \ud83d"),
        ("积分\u3000\U0001f468\u200d\U0001f469", "积分\u3000\U0001f468\u200d\U0001f469"),
    ],
)
def test_control_characters_of_the_service_are_not_shown(message: str, shown: str) -> None:
    error = InvalidRequestError(400, message, None, "kitten-1")
    assert str(error) == f"{shown} (code 400) [task kitten-1]"
    assert error.message == message
    assert str(TransportError(message)) == error.summary.removesuffix(" (code 400)")
