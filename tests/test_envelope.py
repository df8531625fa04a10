"""The envelope: its data, or the error that it stands for, whatever page it is documented on."""

import json
import pickle
import time
from collections.abc import Iterator
from typing import Any

import pytest

from aireiter_async._envelope import (
    ERRORS,
    SUBMIT_ERRORS,
    Reply,
    open_envelope,
    protocol_error,
    read_number,
    read_text,
)
from aireiter_async.errors import (
    AireiterError,
    APIError,
    AuthenticationError,
    IDInUseError,
    InsufficientCreditsError,
    InvalidRequestError,
    ProtocolError,
    RateLimitError,
    ServerError,
    TaskNotFoundError,
)

NOW = 784_111_777.0  # Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110


def reply(payload: Any, status: int = 200, **headers: str) -> Reply:
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return Reply(
        status, {name.replace("_", "-"): value for name, value in headers.items()}, body, NOW
    )


def opened(answer: Reply) -> Any:
    return open_envelope(answer, errors=ERRORS)[1]


def trouble(answer: Reply) -> Any:
    with pytest.raises(AireiterError) as caught:
        opened(answer)
    return caught.value


@pytest.fixture
def in_tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize(
    "payload",
    [
        {"statusCode": 200, "message": "", "data": {"a": 1}},
        {"ok": True, "statusCode": 200, "message": "", "data": {"a": 1}},
        {"ok": False, "statusCode": 200, "success": False, "data": {"a": 1}},
        {"code": "200", "success": True, "data": {"a": 1}},
        {"code": 200, "data": [{"a": 1}]},
        {"code": 200.0, "data": [{"a": 1}, {"b": 2}]},
        {"data": {"a": 1}},
        {"data": {"a": 1}, "error": None, "code": None, "statusCode": None},
        {"data": {"a": 1}, "error": {}, "message": "fine"},
    ],
)
def test_success_is_code_200_in_any_envelope(payload: dict[str, Any]) -> None:
    assert open_envelope(reply(payload), errors=ERRORS) == (payload, {"a": 1})


def test_a_reply_shows_no_content() -> None:
    assert repr(reply(b"Bearer secret", 502, Date="x")) == "<Reply 502, 13 bytes>"


@pytest.mark.parametrize("data", [None, [], "x", 1, [None], [[]]])
def test_data_of_another_shape_is_passed_on(data: Any) -> None:
    expected = data[0] if isinstance(data, list) and data else data
    assert opened(reply({"statusCode": 200, "data": data})) == expected


@pytest.mark.parametrize(
    ("status", "payload", "kind", "code", "message"),
    [
        (
            200,
            {"ok": True, "statusCode": 433, "message": "not enough credits", "data": None},
            InsufficientCreditsError,
            433,
            "not enough credits",
        ),
        (
            433,
            {"error": {"code": 433, "message": "Insufficient account balance"}},
            InsufficientCreditsError,
            433,
            "Insufficient account balance",
        ),
        (402, {"error": {"code": 402, "message": "pay"}}, InsufficientCreditsError, 402, "pay"),
        (
            200,
            {"statusCode": 400, "message": "Invalid aspect_ratio: 1:7", "ok": False},
            InvalidRequestError,
            400,
            "Invalid aspect_ratio: 1:7",
        ),
        (200, {"statusCode": 400, "message": "bad", "ok": True}, InvalidRequestError, 400, "bad"),
        (400, {"statusCode": 400, "message": "bad", "ok": False}, InvalidRequestError, 400, "bad"),
        (
            200,
            {"ok": True, "statusCode": 400, "message": "api task not found", "data": None},
            TaskNotFoundError,
            400,
            "api task not found",
        ),
        (404, {"message": "API Task Not Found"}, TaskNotFoundError, 404, "API Task Not Found"),
        (
            401,
            {"error": {"code": 401, "message": "Authentication failed"}},
            AuthenticationError,
            401,
            "Authentication failed",
        ),
        (
            200,
            {"statusCode": 401, "message": "Unauthorized", "ok": False},
            AuthenticationError,
            401,
            "Unauthorized",
        ),
        (403, {}, AuthenticationError, 403, ""),
        (405, {"detail": "Method Not Allowed"}, APIError, 405, "Method Not Allowed"),
        (409, {"message": "busy"}, InvalidRequestError, 409, "busy"),
        (413, {"msg": "too large"}, InvalidRequestError, 413, "too large"),
        (415, {"error_message": "no"}, InvalidRequestError, 415, "no"),
        (431, {}, InvalidRequestError, 431, ""),
        (451, {"reason": "law"}, InvalidRequestError, 451, "law"),
        (501, {}, ServerError, 501, ""),
        (400, {"code": 1001, "message": "bad"}, InvalidRequestError, 1001, "bad"),
        (401, {"code": 1001, "message": "bad"}, AuthenticationError, 1001, "bad"),
        (429, {"error": {"code": 500, "message": "slow"}}, RateLimitError, 500, "slow"),
        (200, {"success": False, "message": "no"}, InvalidRequestError, 200, "no"),
        (200, {"ok": False, "error": "no"}, InvalidRequestError, 200, "no"),
        (200, {"success": "false", "error": {"detail": "no"}}, InvalidRequestError, 200, "no"),
        (201, {"success": False, "msg": "no"}, InvalidRequestError, 200, "no"),
        (502, {"success": False, "msg": "no"}, ServerError, 502, "no"),
        (
            429,
            {"error": {"code": "insufficient_quota", "message": "x", "type": "y"}},
            InsufficientCreditsError,
            429,
            "x",
        ),
        (
            403,
            {"code": "billing_hard_limit_reached", "message": "x"},
            InsufficientCreditsError,
            403,
            "x",
        ),
        (200, {"success": False, "msg": "积分不足"}, InsufficientCreditsError, 200, "积分不足"),
        (500, {"message": "not enough credits"}, ServerError, 500, "not enough credits"),
        (
            429,
            {"error": {"code": 429, "message": "slow", "type": "rate_limit_error"}},
            RateLimitError,
            429,
            "slow",
        ),
        (200, {"statusCode": 429, "message": "slow"}, RateLimitError, 429, "slow"),
        (425, {"message": "early"}, RateLimitError, 425, "early"),
        (422, {"message": "no"}, InvalidRequestError, 422, "no"),
        (500, {"error": {"code": 500, "message": "oops"}}, ServerError, 500, "oops"),
        (503, {}, ServerError, 503, ""),
        (200, {"code": 599, "message": "oops"}, ServerError, 599, "oops"),
        (200, {"code": 600, "message": "what"}, APIError, 600, "what"),
        (418, {"message": "teapot"}, APIError, 418, "teapot"),
        (302, {}, APIError, 302, ""),
        (201, {"data": {"a": 1}}, APIError, 201, ""),
        (200, {"code": -1, "message": "no"}, APIError, -1, "no"),
    ],
)
def test_each_code_has_its_error(
    status: int, payload: Any, kind: type[APIError], code: int, message: str
) -> None:
    error = trouble(reply(payload, status))
    assert type(error) is kind
    assert (error.code, error.message, error.status) == (code, message, status)
    assert (error.retry_after, error.out_task_id) == (None, None)


@pytest.mark.parametrize(
    ("status", "message"),
    [(404, "model not found"), (400, "api task not found")],
)
def test_on_a_submit_no_task_can_be_missing(status: int, message: str) -> None:
    answer = reply({"statusCode": status, "message": message})
    with pytest.raises(InvalidRequestError, match=message):
        open_envelope(answer, errors=SUBMIT_ERRORS)


@pytest.mark.parametrize("payload", [{"detail": "Not Found"}, {"error": {"code": 404}}, {}])
def test_a_404_of_something_else_is_no_unknown_task(payload: Any) -> None:
    error = trouble(reply(payload, 404))
    assert type(error) is ProtocolError
    assert (error.message, error.status) == ("the 404 did not come from the API", 404)
    with pytest.raises(InvalidRequestError):
        open_envelope(reply(payload, 404), errors=SUBMIT_ERRORS)


@pytest.mark.parametrize(
    ("code", "message", "taken"),
    [
        (409, "", True),
        (409, "duplicate", True),
        (409, "Conflict", True),
        (409, "a request with this key is already being processed", True),
        (409, "the model is disabled", False),
        (400, "out_task_id already exists", True),
        (400, "Duplicate out_task_id", True),
        (422, "task_id is taken", True),
        (400, "The task ID has been used before", True),
        (400, "out_task_id 已存在", True),
        (400, "任务编号重复", True),
        (200, "the id exists", True),
        (400, "out_task_id must be used with care", False),
        (400, "the task_id does not exists", False),
        (400, "image_url already expired", False),
        (500, "out_task_id already exists", False),
        (429, "id already exists", False),
    ],
)
def test_a_used_id_is_known_in_any_words(code: int, message: str, *, taken: bool) -> None:
    payload: dict[str, Any] = {"message": message, "success": False}
    with pytest.raises(APIError) as caught:
        open_envelope(
            reply(payload if code == 200 else {**payload, "statusCode": code}),
            errors=SUBMIT_ERRORS,
        )
    assert (type(caught.value) is IDInUseError) is taken
    with pytest.raises(APIError) as caught:  # there is no ID of ours in other requests
        opened(reply({**payload, "statusCode": code if code != 200 else None}))
    assert not isinstance(caught.value, IDInUseError)


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        ({"error": {"code": 401}, "statusCode": 402, "code": 403}, 401),
        ({"error": {"code": None}, "statusCode": 402, "code": 403}, 402),
        ({"statusCode": 402, "code": 403}, 402),
        ({"statusCode": None, "code": 403}, 403),
        ({"code": None}, 409),
        ({"error": {"code": "401"}}, 401),
        ({"error": {"code": 401.0}}, 401),
        ({"error": {"code": "\u0664\u0660\u0661"}}, 401),
        ({"error": {"code": "invalid_api_key"}}, 409),
        ({"error": {"code": 401.5}}, 409),
        ({"error": {"code": True}}, 409),
        ({"error": {"code": [401]}}, 409),
        ({"error": {"code": "9" * 9}}, 999_999_999),
        ({"error": {"code": "9" * 10}}, 409),
        ({"error": {"code": "-400"}}, 409),
        ({"error": {"code": " 401"}}, 409),
        ({"error": {"code": ""}}, 409),
        ({"error": {"code": 200}}, 409),
        ({"error": "forbidden", "statusCode": 200}, 409),
        ({"error": ["forbidden"], "statusCode": 403}, 403),
        ({"statusCode": 10**4000}, 10**4000),
        ({"statusCode": 1e300}, int(1e300)),
    ],
)
def test_the_first_number_is_the_code(payload: Any, code: int) -> None:
    error = trouble(reply(payload, 409))
    assert error.code == code
    assert str(code) in str(error)


def test_an_endless_code_is_none() -> None:
    assert trouble(reply(b'{"statusCode": 1e999}', 500)).code == 500


@pytest.mark.parametrize(
    "payload",
    [
        {"error": "quota"},
        {"error": {"message": "quota"}, "statusCode": 200},
        {"error": {"code": 200, "message": "quota"}},
        {"error": ["quota"], "code": "200", "data": {"a": 1}},
        {"error": True},
    ],
)
def test_an_error_without_a_code_is_no_success(payload: Any) -> None:
    error = trouble(reply(payload))
    assert type(error) is ProtocolError
    assert error.message == "the response reports an error without a code"


def test_an_error_beside_a_task_does_not_hide_it() -> None:
    payload = {"statusCode": 200, "error": "none", "data": {"status": "completed"}}
    assert opened(reply(payload)) == payload["data"]
    with pytest.raises(ProtocolError):
        open_envelope(reply(payload), errors=SUBMIT_ERRORS)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({"error": {"message": "inner"}, "message": "outer"}, "inner"),
        ({"error": {"message": ""}, "message": "outer"}, "outer"),
        ({"error": "alone"}, "alone"),
        ({"error": {"type": "x"}}, "{'type': 'x'}"),
        (
            {"detail": [{"loc": ["body", "n"], "msg": "no"}]},
            "[{'loc': ['body', 'n'], 'msg': 'no'}]",
        ),
        ({"error": {"detail": "a"}, "message": "b"}, "a"),
        ({"msg": "a"}, "a"),
        ({"error_message": "a"}, "a"),
        ({"message": ["a", 1]}, "['a', 1]"),
        ({"message": None, "error": False}, ""),
        ({"message": "\u79ef\u5206\u4e0d\u8db3"}, "\u79ef\u5206\u4e0d\u8db3"),
    ],
)
def test_the_message_is_where_there_is_one(payload: Any, message: str) -> None:
    assert trouble(reply(payload, 400)).message == message


@pytest.mark.parametrize("depth", range(50, 1000, 50))
def test_a_message_can_be_nested_deeply(depth: int) -> None:
    nested = b"[" * depth + b"]" * depth
    assert len(str(trouble(reply(b'{"statusCode":400,"message":%s}' % nested)))) < 300


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b'"ok"', b"200", b'{"statusCode":200'])
def test_what_is_no_json_object_is_a_protocol_error(body: bytes) -> None:
    error = trouble(reply(body))
    assert type(error) is ProtocolError
    assert (error.message, error.status) == ("the response is not a JSON object", 200)


def test_a_message_is_cut() -> None:
    for message in ("x" * 10_000_000, [["x" * 1000] * 10] * 10_000, {"a" * 1_000_000: 1}):
        error = trouble(reply({"statusCode": 400, "message": message}))
        assert len(pickle.dumps(error)) < 20_000
    assert error.code == 400


@pytest.mark.parametrize(
    ("status", "cause", "advice"),
    [
        (200, "base_url is probably wrong", "check base_url"),
        (400, "base_url is probably wrong", "check base_url"),
        (404, "base_url is probably wrong", "check base_url"),
        (405, "base_url is probably wrong", "check base_url"),
        (403, "the CDN may have rejected the User-Agent", "set user_agent, and check base_url"),
        (502, "the service or the CDN in front of it is failing", "try again later"),
        (520, "the service or the CDN in front of it is failing", "try again later"),
    ],
)
@pytest.mark.parametrize("body", [b"<!DOCTYPE html><html></html>", b"\r\n <html>", b"error: 1010"])
def test_a_page_names_its_likely_cause(status: int, cause: str, advice: str, body: bytes) -> None:
    error = trouble(reply(body, status))
    what = "the response is HTML" if b"<" in body else "the response is not a JSON object"
    if (status, body[:1]) == (200, b"e"):
        cause = advice = ""
    assert (type(error), error.status, error.advice) == (ProtocolError, status, advice)
    assert error.message == (f"{what}: {cause}" if cause else what)
    assert error.excerpt == body.decode()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<html><head><title>413 Request &amp; Entity\n</title>", "413 Request & Entity"),
        (b"<h1 class=x>Too\x1b Large</h1>", "Too\x1b Large"),
        (b"<html></html>", "<html></html>"),
        (b"Payload Too Large", "Payload Too Large"),
        (b"", ""),
    ],
)
@pytest.mark.parametrize("status", [413, 414, 415, 431, 451])
def test_a_page_about_the_request_is_a_rejection(body: bytes, message: str, status: int) -> None:
    error = trouble(reply(body, status))
    assert type(error) is InvalidRequestError
    assert (error.code, error.message, error.status) == (status, message, status)
    assert "\x1b" not in str(error)


@pytest.mark.parametrize("body", [b"<html>", b"Too Many Requests", b"", b"null", b'"slow down"'])
@pytest.mark.parametrize("status", [425, 429])
def test_too_many_needs_no_json(body: bytes, status: int) -> None:
    error = trouble(reply(body, status, Retry_After="7"))
    assert type(error) is RateLimitError
    assert (error.code, error.status, error.retry_after) == (status, status, 7.0)


@pytest.mark.parametrize("status", [300, 301, 302, 307, 308, 399])
@pytest.mark.parametrize("body", [b"", b"<html>moved</html>"])
def test_a_redirect_says_where_to(status: int, body: bytes) -> None:
    error = trouble(reply(body, status, Location="https://www.aireiter.com/"))
    assert type(error) is ProtocolError
    assert error.message == "the response redirects to 'https://www.aireiter.com/'"
    assert error.advice == "set base_url to it"
    assert "redirects to 'nowhere'" in trouble(reply(body, status)).message


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "5"}, 5.0),
        ({"Retry-After": "0"}, 0.0),
        ({"Retry-After": "0.5"}, 0.5),
        ({"Retry-After": " 12 "}, 12.0),
        ({"Retry-After": "-5"}, 0.0),
        ({"Retry-After": "2, 2"}, 2.0),
        ({"Retry-After": "2.5s"}, 2.5),
        ({"Retry-After": "3 seconds"}, 3.0),
        ({"Retry-After": "1.2.3"}, None),
        ({"Retry-After": "5 minutes"}, None),
        ({"Retry-After": "1994-11-06T08:50:37Z"}, 60.0),
        ({"Retry-After": "1994-11-06 08:50:37"}, 60.0),
        ({"Retry-After": "1994-11-06T17:50:37.000+09:00"}, 60.0),
        ({"Retry-After": "0001-01-01T00:00:00+09:00"}, 0.0),
        ({"Retry-After": "100000000000000000000"}, 1e20),
        ({"Retry-After": "1e999"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": "NaN"}, None),
        ({"Retry-After": ""}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "Sun, 06 Nov"}, None),
        ({"Retry-After": "Sun, 06 Nov 1994 08:50:37 GMT"}, 60.0),
        ({"Retry-After": "Sunday, 06-Nov-94 08:50:37 GMT"}, 60.0),
        ({"Retry-After": "Sun Nov  6 08:50:37 1994"}, 60.0),
        ({"Retry-After": "Sun, 06 Nov 1994 08:50:37 -0000"}, 60.0),
        ({"Retry-After": "Sun, 06 Nov 1994 08:50:37"}, 60.0),
        ({"Retry-After": "Sun, 06 Nov 1994 08:48:37 GMT"}, 0.0),
        ({"Retry-After": "Sun, 06 Nov 9999 08:50:37 +9999"}, None),
        (
            {
                "Retry-After": "Mon, 07 Nov 1994 10:00:30 GMT",
                "Date": "Mon, 07 Nov 1994 10:00:00 GMT",
            },
            30.0,
        ),
        (
            {
                "Retry-After": "Mon, 07 Nov 1994 10:00:00 GMT",
                "Date": "Mon, 07 Nov 1994 10:00:30 GMT",
            },
            0.0,
        ),
        ({"Retry-After": "Sun, 06 Nov 1994 08:50:37 GMT", "Date": "today"}, 60.0),
        ({"Retry-After": "5", "Date": "Mon, 07 Nov 1994 10:00:30 GMT"}, 5.0),
    ],
)
@pytest.mark.usefixtures("in_tokyo")
def test_retry_after_is_seconds_from_now(headers: dict[str, str], seconds: float | None) -> None:
    answer = Reply(429, headers, b'{"statusCode":429}', NOW)
    assert trouble(answer).retry_after == seconds
    assert protocol_error("x", answer).retry_after == seconds


@pytest.mark.parametrize(
    ("body", "excerpt"),
    [
        (b"<p>" + b"x" * 300, "<p>" + "x" * 197),
        ("\U0001f600".encode() * 300, "\U0001f600" * 200),
        ("\u79ef".encode() * 100, "\u79ef" * 100),
        (b"\xff" * 1000, "\ufffd" * 200),
        (b"", ""),
    ],
    ids=["ascii", "emoji", "short", "broken", "empty"],
)
def test_an_excerpt_is_the_first_200_characters(body: bytes, excerpt: str) -> None:
    assert trouble(reply(body)).excerpt == excerpt


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (2.5, 2.5),
        (0, 0.0),
        ("82.5", 82.5),
        ("0.871", 0.871),
        ("", None),
        ("free", None),
        ("1e999", None),
        (float("inf"), None),
        (float("nan"), None),
        (10**400, None),
        (True, None),
        (None, None),
        ([1], None),
    ],
)
def test_numbers_are_read_strictly(value: Any, number: float | None) -> None:
    assert read_number(value) == number


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        ("", ""),
        ("x" * 10_000, "x" * 10_000),
        ("x" * 10_001, "x" * 10_000 + "..."),
        (5, "5"),
        (False, "False"),
        ({}, "{}"),
    ],
)
def test_texts_are_read_as_they_are(value: Any, text: str) -> None:
    assert read_text(value) == text
