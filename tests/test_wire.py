"""The wire: requests to bytes, answers to values."""

import json
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, timezone
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aireiter_async import _wire, models
from aireiter_async._envelope import Reply
from aireiter_async._requests import SubmitRequest
from aireiter_async._tasks import Balance, ErrorDetail, FreeQuota, Output, Task, TaskStatus
from aireiter_async.errors import (
    AireiterError,
    APIError,
    InvalidRequestError,
    ProtocolError,
    RateLimitError,
    TaskNotFoundError,
)

ID = "kitten-1"
REQUEST = SubmitRequest("seedance_1_5_pro", {"prompt": "a kitten"}, ID)


def reply(payload: Any, status: int = 200) -> Reply:
    """Make a reply with *payload* as its body: bytes as they are, anything else as JSON."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return Reply(status, {}, body, 0.0)


def submitted(data: Any, **envelope: Any) -> Task:
    """Read the answer to a submit."""
    payload = {"statusCode": 200, "data": data} | envelope
    return _wire.read_submit(reply(payload), REQUEST)


def seen(data: Any, model: str | None = None) -> Task:
    """Read the answer to a query."""
    payload = {"statusCode": 200, "message": "", "data": data}
    return _wire.read_query(reply(payload), ID, model)


def test_the_documented_request_leaves_as_documented() -> None:
    """The example of seedance_1_5_pro makes exactly the documented JSON, and no space more."""
    request = SubmitRequest(
        "seedance_1_5_pro",
        models.Seedance15Pro(
            prompt="A cute kitten playing under the sunlight, fluffy fur, bright eyes",
            video_length=5,
            aspect_ratio="16:9",
            resolution="720p",
        ),
        "my_task_123456",
    )
    body = _wire.encode_submit(request)
    assert json.loads(body) == {
        "model": "seedance_1_5_pro",
        "params": {
            "prompt": "A cute kitten playing under the sunlight, fluffy fur, bright eyes",
            "video_length": 5,
            "aspect_ratio": "16:9",
            "resolution": "720p",
        },
        "out_task_id": "my_task_123456",
    }
    assert list(json.loads(body)) == ["model", "params", "out_task_id"]
    assert b": " not in body
    assert b'"video_length":5,' in body


def test_the_bytes_of_a_request_are_always_the_same() -> None:
    """Each attempt of one request sends the same bytes."""
    request = SubmitRequest("m", {"b": 1, "a": [1.5, None, True], "c": {"z": 1, "y": 2}}, ID)
    expected = (
        b'{"model":"m","params":{"b":1,"a":[1.5,null,true],"c":{"z":1,"y":2}},'
        b'"out_task_id":"kitten-1"}'
    )
    assert [_wire.encode_submit(request) for _ in range(3)] == [expected] * 3


def test_nothing_is_sent_that_was_not_given() -> None:
    """What is left at None in a models class, callback_url and metadata are not on the wire."""
    model = models.Seedance15Pro(prompt="x", aspect_ratio="9:16")
    assert json.loads(_wire.encode_submit(SubmitRequest("seedance_1_5_pro", model, ID))) == {
        "model": "seedance_1_5_pro",
        "params": {"prompt": "x", "aspect_ratio": "9:16"},
        "out_task_id": ID,
    }


def test_what_was_given_is_sent() -> None:
    request = SubmitRequest("m", {"seed": None}, ID, "https://example.com/done", {})
    assert json.loads(_wire.encode_submit(request)) == {
        "model": "m",
        "params": {"seed": None},
        "out_task_id": ID,
        "callback_url": "https://example.com/done",
        "metadata": {},
    }


def test_any_mapping_will_do() -> None:
    """A read-only view is as good as a dict."""
    view = MappingProxyType({"prompt": "\u4e00\u53ea\u5c0f\u732b"})
    body = _wire.encode_submit(SubmitRequest("m", view, ID, metadata=view))
    assert body.decode() == (
        '{"model":"m","params":{"prompt":"\u4e00\u53ea\u5c0f\u732b"},"out_task_id":"kitten-1",'
        '"metadata":{"prompt":"\u4e00\u53ea\u5c0f\u732b"}}'
    )


@pytest.mark.parametrize("value", [b"bytes", {1, 2}, object(), MappingProxyType({}), 1j])
@pytest.mark.parametrize("where", ["params", "metadata"])
def test_what_json_has_no_form_for_is_a_type_error(value: object, where: str) -> None:
    """A value that is no JSON is named before anything is sent."""
    fields: dict[str, Any] = {"params": {}} | {where: {"image_url": [value]}}
    request = SubmitRequest("gpt_4o", out_task_id=ID, **fields)
    for encode in (_wire.encode_submit, _wire.encode_content):
        with pytest.raises(TypeError, match=f"of gpt_4o must be JSON.*{type(value).__name__}"):
            encode(request)


@pytest.mark.parametrize("name", [1, None, True, ("a",), b"a"])
@pytest.mark.parametrize("where", ["params", "metadata"])
def test_a_name_that_is_no_str_is_a_type_error(name: Any, where: str) -> None:
    """The name 1 does not silently become "1"."""
    fields: dict[str, Any] = {"params": {}} | {where: {"a": 1, name: 2}}
    request = SubmitRequest("gpt_4o", out_task_id=ID, **fields)
    for encode in (_wire.encode_submit, _wire.encode_content):
        with pytest.raises(TypeError, match="the names in params and metadata must be str: "):
            encode(request)


def endless() -> dict[str, Any]:
    """Make a dict that contains itself."""
    values: dict[str, Any] = {}
    values["self"] = [values]
    return values


def deep() -> list[Any]:
    """Make a list that is nested more deeply than Python can follow."""
    value: list[Any] = []
    for _ in range(200_000):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, "\ud800", endless(), {"\udfff": 1}, [-math.inf]],
    ids=ascii,
)
def test_what_json_cannot_say_is_a_value_error(value: object) -> None:
    """NaN, infinities, half a surrogate pair and a dict within itself cannot be sent."""
    request = SubmitRequest("gpt_4o", {"seed": value}, ID)
    for encode in (_wire.encode_submit, _wire.encode_content):
        with pytest.raises(ValueError, match="of gpt_4o cannot be sent as JSON"):
            encode(request)


def test_what_is_nested_too_deeply_is_a_value_error() -> None:
    """The end of Python's stack is no reason to crash."""
    with pytest.raises(ValueError, match="cannot be sent as JSON"):
        _wire.encode_submit(SubmitRequest("m", {"x": deep()}, ID))


def test_a_name_of_a_model_that_cannot_be_sent_is_a_value_error() -> None:
    """Even a model's name may be no text that JSON can carry."""
    with pytest.raises(ValueError, match="cannot be sent as JSON"):
        _wire.encode_submit(SubmitRequest("m\ud800", {}, ID))


def test_the_content_is_all_but_the_id() -> None:
    """Requests that ask for the same have the same content, whatever their ids and orders."""
    first = SubmitRequest("m", {"a": 1, "b": {"d": 1, "c": 2}}, metadata={"x": "\xe9"})
    second = SubmitRequest("m", {"b": {"c": 2, "d": 1}, "a": 1}, metadata={"x": "\xe9"})
    expected = '{"metadata":{"x":"\xe9"},"model":"m","params":{"a":1,"b":{"c":2,"d":1}}}'
    assert _wire.encode_content(first) == _wire.encode_content(second) == expected


def test_a_query_is_its_id() -> None:
    """The body of a query holds the id and nothing else."""
    assert _wire.encode_query("Kitten_1-") == b'{"out_task_id":"Kitten_1-"}'


@pytest.mark.parametrize(
    ("payload", "status", "estimate"),
    [
        (
            {
                "statusCode": 200,
                "message": "",
                "data": {
                    "out_task_id": ID,
                    "status": "pending",
                    "estimated_credits": 100,
                    "created_at": "2025-12-22T06:03:28.242Z",
                },
            },
            TaskStatus.PENDING,
            100,
        ),
        (
            {"code": "200", "success": True, "data": {"out_task_id": ID, "status": "pending"}},
            TaskStatus.PENDING,
            None,
        ),
        (
            {"code": 200, "data": [{"status": "submitted", "task_id": "task_01"}]},
            TaskStatus.PENDING,
            None,
        ),
        ({"data": {"task_id": "task_01"}}, TaskStatus.PENDING, None),
        ({"data": {"out_task_id": ID, "task_id": None}}, TaskStatus.PENDING, None),
        ({"data": {"out_task_id": ID, "status": None}}, TaskStatus.PENDING, None),
        ({"data": {"out_task_id": "", "task_id": "", "status": "pending"}}, "pending", None),
        ({"data": {"out_task_id": None, "status": "processing"}}, "processing", None),
        ({"data": {"status": "completed", "estimated_credits": "2.5"}}, "completed", 2.5),
        ({"data": {"status": "queued_up", "estimated_credits": 0}}, "unknown", 0),
        ({"data": {"status": ["pending"]}}, "unknown", None),
    ],
)
def test_an_accepted_submit_is_a_task(payload: Any, status: str, estimate: float | None) -> None:
    """Each documented answer makes a task under our id and model, with the reply kept."""
    task = _wire.read_submit(reply(payload), REQUEST)
    assert (task.out_task_id, task.model) == (ID, "seedance_1_5_pro")
    assert (task.status, task.estimated_credits) == (status, estimate)
    assert task.raw == payload
    assert not task.outputs


@pytest.mark.parametrize(
    "data", [None, [], [None], "pending", 1, {}, {"created_at": "x"}, {"status": "", "task_id": 0}]
)
def test_an_answer_without_a_task_is_not_certain(data: Any) -> None:
    """A 200 that names no task is no acceptance, and no refusal either."""
    with pytest.raises(ProtocolError, match="the submit was answered without a task"):
        submitted(data)


@pytest.mark.parametrize("other", ["other", "kitten-2", 5, {}, ["kitten-1"], True])
def test_an_answer_about_another_task_is_not_believed(other: Any) -> None:
    """An id that is not ours means that the answer is not, either."""
    data = {"out_task_id": other, "status": "completed"}
    with pytest.raises(ProtocolError, match="the answer is about another task"):
        submitted(data)
    with pytest.raises(ProtocolError, match="the answer is about another task"):
        seen(data)


def test_refusals_are_told_apart_by_endpoint() -> None:
    answer = reply({"ok": True, "statusCode": 400, "message": "api task not found", "data": None})
    with pytest.raises(TaskNotFoundError):
        _wire.read_query(answer, ID, None)
    with pytest.raises(InvalidRequestError):
        _wire.read_submit(answer, REQUEST)


@pytest.mark.parametrize(
    "read",
    [
        lambda answer: _wire.read_submit(answer, REQUEST),
        lambda answer: _wire.read_query(answer, ID, None),
        _wire.read_balance,
    ],
    ids=["submit", "query", "balance"],
)
def test_every_reader_knows_the_time(read: Callable[[Reply], Any]) -> None:
    """A Retry-After that is a date is held against the time that the reader is told."""
    headers = {"Retry-After": "Thu, 01 Jan 1970 00:01:30 GMT"}
    with pytest.raises(RateLimitError) as caught:
        read(Reply(429, headers, b"{}", 60.0))
    assert caught.value.retry_after == 30.0


def test_a_finished_task_is_read_whole() -> None:
    """Times, credits and outputs of a documented reply arrive, and what is unknown stays in raw."""
    data = {
        "out_task_id": ID,
        "status": "completed",
        "created_at": "2026-08-12T06:03:28.000Z",
        "completed_at": "2026-08-12T06:05:41.000Z",
        "credits_used": 82.5,
        "output": [{"url": "https://static.aireiter.com/upload/a.mp4"}],
        "input": {"prompt": "x"},
        "raw": "theirs",
        "model": "theirs",
        "outputs": "theirs",
    }
    task = seen(data, "veo3_1")
    assert task == Task(
        ID,
        TaskStatus.COMPLETED,
        "veo3_1",
        credits_used=82.5,
        created_at=datetime(2026, 8, 12, 6, 3, 28, tzinfo=UTC),
        completed_at=datetime(2026, 8, 12, 6, 5, 41, tzinfo=UTC),
        outputs=(
            Output(
                url="https://static.aireiter.com/upload/a.mp4",
                kind="video",
                out_task_id="kitten-1",
            ),
        ),
    )
    assert task.raw["data"] == data


def test_a_kept_reply_makes_the_task_again() -> None:
    """From the JSON of its raw reply a task is restored as it was."""
    task = seen({"status": "completed", "output": [{"url": "https://h/\u732b.png"}]}, "gpt_4o")
    for text in (json.dumps(task.raw), json.dumps(task.raw, ensure_ascii=False)):
        again = _wire.restore_task(text, ID, "gpt_4o")
        assert again == task
        assert again.raw == task.raw
    with pytest.raises(ProtocolError):
        _wire.restore_task("", ID, "gpt_4o")


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("pending", TaskStatus.PENDING),
        ("processing", TaskStatus.PROCESSING),
        ("completed", TaskStatus.COMPLETED),
        ("failed", TaskStatus.FAILED),
        ("submitted", TaskStatus.PENDING),
        ("unknown", TaskStatus.UNKNOWN),
        ("Completed", TaskStatus.UNKNOWN),
        ("archived", TaskStatus.UNKNOWN),
        ("", TaskStatus.UNKNOWN),
    ],
)
def test_a_status_that_is_not_known_is_unknown(status: str, expected: TaskStatus) -> None:
    """A word that is not documented means neither success nor failure."""
    assert seen({"status": status}).status is expected


@pytest.mark.parametrize("data", [None, [], {}, "completed", {"status": None}, {"status": 1}])
def test_a_query_needs_a_status(data: Any) -> None:
    """An answer to a query that says no status says nothing."""
    with pytest.raises(ProtocolError, match="the query was answered without a status"):
        seen(data)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2025-12-22T06:03:28.242Z", datetime(2025, 12, 22, 6, 3, 28, 242000, UTC)),
        ("2025-12-22T06:03:28", datetime(2025, 12, 22, 6, 3, 28, tzinfo=UTC)),
        ("2025-12-22 06:03:28", datetime(2025, 12, 22, 6, 3, 28, tzinfo=UTC)),
        (
            "2025-12-22T14:03:28+08:00",
            datetime(2025, 12, 22, 14, 3, 28, tzinfo=timezone(timedelta(hours=8))),
        ),
        ("", None),
        ("yesterday", None),
        ("2025-13-01T00:00:00Z", None),
        ("\ud800", None),
        (1766383408242, None),
        (None, None),
        ([], None),
    ],
)
def test_times_are_read_where_they_are_times(text: Any, moment: datetime | None) -> None:
    """A time without a zone is in UTC, and what is no time is None."""
    task = seen({"status": "completed", "created_at": text, "completed_at": text})
    assert task.created_at == task.completed_at == moment
    assert moment is None or task.created_at is None or task.created_at.tzinfo is not None


@pytest.mark.parametrize(
    ("credits_used", "expected"),
    [(2.5, 2.5), (0, 0.0), ("0.871", 0.871), (None, None), (True, None), ([], None)],
)
def test_credits_are_read_where_they_are_numbers(credits_used: Any, expected: float | None) -> None:
    """Fractions and texts of numbers count, and none is not zero."""
    assert seen({"status": "completed", "credits_used": credits_used}).credits_used == expected
    assert seen({"status": "completed"}).credits_used is None


def test_endless_credits_are_none() -> None:
    """1e999 is JSON, but no number of credits."""
    answer = reply(b'{"data":{"status":"completed","credits_used":1e999}}')
    assert _wire.read_query(answer, ID, None).credits_used is None


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        ({"code": "TIMEOUT", "message": "upstream"}, ErrorDetail("TIMEOUT", "upstream")),
        ({"code": 500, "message": "oops"}, ErrorDetail("500", "oops")),
        ({"code": None, "message": None}, ErrorDetail("", "")),
        ({"message": ["a"]}, ErrorDetail("", "['a']")),
        ("content policy", ErrorDetail("", "content policy")),
        (["a", "b"], ErrorDetail("", "['a', 'b']")),
        (7, ErrorDetail("", "7")),
        (None, None),
        ("", None),
        ({}, None),
    ],
)
def test_a_failure_keeps_its_reason(error: Any, detail: ErrorDetail | None) -> None:
    """The service's code and message arrive as texts, and null is not the text "None"."""
    assert seen({"status": "failed", "error": error}).error == detail


def test_a_balance_is_read() -> None:
    """Credits may be fractional, and what a quota does not say is None."""
    payload = {
        "statusCode": 200,
        "data": {
            "credits": 12.25,
            "free_quotas": [
                {"model_key": "gpt_4o", "total": 3, "used": 1, "remaining": "2"},
                {"model_key": None, "total": None},
                {},
                "theirs",
            ],
        },
    }
    balance = _wire.read_balance(reply(payload))
    assert balance == Balance(
        12.25, (FreeQuota("gpt_4o", 3, 1, 2), FreeQuota(""), FreeQuota("")), raw=payload
    )
    assert balance.raw == payload


@pytest.mark.parametrize("quotas", [None, {}, "none", 3])
def test_quotas_of_another_shape_are_left_out(quotas: Any) -> None:
    """The credits are worth having without them."""
    answer = reply({"code": "200", "data": {"credits": "7", "free_quotas": quotas}})
    assert _wire.read_balance(answer) == Balance(7.0)


@pytest.mark.parametrize("data", [None, {}, [], 5, {"credits": None}, {"credits": "many"}])
def test_a_balance_needs_credits(data: Any) -> None:
    """An answer without credits is not a balance of zero."""
    with pytest.raises(ProtocolError, match="the balance was answered without credits"):
        _wire.read_balance(reply({"statusCode": 200, "data": data}))


# Anything at all -----------------------------------------------------------------------

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(0, 600)
    | st.floats()
    | st.text(st.characters(), max_size=8)
    | st.sampled_from(["200", "pending", "completed", "2025-12-22T06:03:28Z", ID, "1e999"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
OUTPUT_ITEMS = VALUES | st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        ["url", "video", "audio", "file", "title", "text", "metadata", "list"], VALUES
    ),
)
DATA = VALUES | st.fixed_dictionaries(
    {},
    optional={
        "out_task_id": st.just(ID) | VALUES,
        "task_id": VALUES,
        "status": st.sampled_from([*TaskStatus, "submitted"]) | VALUES,
        "estimated_credits": VALUES,
        "credits_used": VALUES,
        "created_at": VALUES,
        "completed_at": VALUES,
        "output": OUTPUT_ITEMS | st.lists(OUTPUT_ITEMS, max_size=3),
        "error": VALUES | st.fixed_dictionaries({"code": VALUES, "message": VALUES}),
        "credits": VALUES,
        "free_quotas": VALUES
        | st.lists(st.fixed_dictionaries({"model_key": VALUES, "total": VALUES}), max_size=3),
        "raw": VALUES,
        "model": VALUES,
    },
)
PAYLOADS = VALUES | st.fixed_dictionaries(
    {},
    optional={
        "statusCode": st.just(200) | VALUES,
        "code": st.just("200") | VALUES,
        "ok": VALUES,
        "success": VALUES,
        "message": VALUES,
        "error": VALUES | st.fixed_dictionaries({"code": VALUES, "message": VALUES}),
        "data": DATA | st.lists(DATA, max_size=2),
    },
)
HEADERS = st.dictionaries(
    st.sampled_from(["Retry-After", "Date", "Location", "Content-Type"]),
    st.text(max_size=40)
    | st.integers().map(str)
    | st.datetimes().map(lambda moment: f"{moment:%a, %d %b %Y %H:%M:%S} GMT"),
)
MODELS = st.sampled_from([None, "no_such_model", *models.MODELS])


def check(answer: Reply, model: str | None) -> None:
    """Read one answer as each endpoint's: it makes a value or one of our errors."""
    request = SubmitRequest(model or "m", {}, ID)
    for read in (
        lambda: _wire.read_submit(answer, request),
        lambda: _wire.read_query(answer, ID, model),
        lambda: _wire.read_balance(answer),
    ):
        outcome: Any
        try:
            outcome = read()
        except AireiterError as error:
            outcome = error
        assert isinstance(outcome, Task | Balance | APIError | ProtocolError)
        assert repr(outcome)
        assert str(outcome)
        wait = getattr(outcome, "retry_after", None)
        assert wait is None or wait >= 0


@given(st.binary(max_size=200), st.integers(100, 599), HEADERS, MODELS)
@example(b"\xef\xbb\xbf", 200, {}, None)
@example(b"{" * 3000, 200, {}, None)
@settings(deadline=None)
def test_any_bytes_make_a_value_or_one_of_our_errors(
    body: bytes, status: int, headers: Mapping[str, str], model: str | None
) -> None:
    """Whatever bytes, status and headers arrive, nothing else comes out."""
    check(Reply(status, headers, body, 0.0), model)


@given(
    payload=PAYLOADS,
    status=st.just(200) | st.integers(100, 599),
    headers=HEADERS,
    model=MODELS,
    escaped=st.booleans(),
)
@settings(deadline=None, max_examples=400)
def test_any_envelope_makes_a_value_or_one_of_our_errors(
    payload: Any, status: int, headers: Mapping[str, str], model: str | None, *, escaped: bool
) -> None:
    """What looks like an envelope, with anything at any place, is read or is one of our errors."""
    body = json.dumps(payload, ensure_ascii=escaped).encode("utf-8", "surrogatepass")
    check(Reply(status, headers, body, 0.0), model)


NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SENDABLE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(NAMES, SENDABLE), st.none() | st.dictionaries(NAMES, SENDABLE))
@settings(deadline=None)
def test_what_is_sent_is_what_was_given(
    params: dict[str, Any], metadata: dict[str, Any] | None
) -> None:
    """JSON values arrive as they were, in UTF-8."""
    body = json.loads(_wire.encode_submit(SubmitRequest("m", params, ID, metadata=metadata)))
    assert body.pop("metadata", None) == metadata
    assert body == {"model": "m", "params": params, "out_task_id": ID}
