"""The envelope: its data, or the error that it stands for, whatever page it is documented on."""

import copy
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
    InsufficientCreditsError,
    InvalidRequestError,
    ProtocolError,
    RateLimitError,
    ServerError,
    TaskNotFoundError,
)

NOW = 784_111_777.0  # Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110
DEEP = 100_000


def reply(payload: Any, status: int = 200, **headers: str) -> Reply:
    """Make a reply with *payload* as its body: bytes as they are, anything else as JSON."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return Reply(
        status, {name.replace("_", "-"): value for name, value in headers.items()}, body, NOW
    )


def opened(answer: Reply) -> Any:
    """Open a query's envelope and return its data."""
    return open_envelope(answer, errors=ERRORS)[1]


def trouble(answer: Reply) -> Any:
    """Open a query's envelope and return the error in it."""
    with pytest.raises(AireiterError) as caught:
        opened(answer)
    return caught.value


@pytest.fixture
def in_tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let local time be nine hours ahead of GMT."""
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
    """Whatever carries the code, and whatever ``ok`` and ``success`` say, 200 is success."""
    assert open_envelope(reply(payload), errors=ERRORS) == (payload, {"a": 1})


def test_a_reply_shows_no_content() -> None:
    """A traceback with variables shows neither headers nor a body: a relay may echo the request."""
    assert repr(reply(b"Bearer secret", 502, Date="x")) == "<Reply 502, 13 bytes>"


@pytest.mark.parametrize("data", [None, [], "x", 1, [None], [[]]])
def test_data_of_another_shape_is_passed_on(data: Any) -> None:
    """What the data should look like is for its reader to say."""
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
        (404, {"message": "gone"}, TaskNotFoundError, 404, "gone"),
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
    """The code decides on the class, and the message, the id and the HTTP status are kept."""
    error = trouble(reply(payload, status))
    assert type(error) is kind
    assert vars(error) == {
        "code": code,
        "message": message,
        "retry_after": None,
        "out_task_id": None,
        "status": status,
    }


@pytest.mark.parametrize(
    ("status", "message"),
    [(404, "model not found"), (400, "api task not found")],
)
def test_on_a_submit_no_task_can_be_missing(status: int, message: str) -> None:
    """A submit that meets "not found" has named a wrong route or model."""
    answer = reply({"statusCode": status, "message": message})
    with pytest.raises(InvalidRequestError, match=message):
        open_envelope(answer, errors=SUBMIT_ERRORS)


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
    """``error.code``, else ``statusCode``, else ``code``, else the HTTP status: the first number."""
    error = trouble(reply(payload, 409))
    assert error.code == code
    assert str(code) in str(error)


def test_an_endless_code_is_none() -> None:
    """A number beyond those of floats is no code."""
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
    """An error in a 200 that says no other number is not believed either way."""
    error = trouble(reply(payload))
    assert type(error) is ProtocolError
    assert error.message == "the answer names an error without a code"


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({"error": {"message": "inner"}, "message": "outer"}, "inner"),
        ({"error": {"message": ""}, "message": "outer"}, "outer"),
        ({"error": "alone"}, "alone"),
        ({"error": {"type": "x"}}, "{'type': 'x'}"),
        ({"message": ["a", 1]}, "['a', 1]"),
        ({"message": None, "error": False}, ""),
        ({"message": "\u79ef\u5206\u4e0d\u8db3"}, "\u79ef\u5206\u4e0d\u8db3"),
        ({"message": "\ud800"}, "\ud800"),
    ],
)
def test_the_message_is_where_there_is_one(payload: Any, message: str) -> None:
    """The error's own message, else the envelope's, else the error itself."""
    assert trouble(reply(payload, 400)).message == message


@pytest.mark.parametrize("depth", range(50, 1000, 50))
def test_a_message_can_be_nested_deeply(depth: int) -> None:
    """A message that is no text is shown as far as it can be."""
    nested = b"[" * depth + b"]" * depth
    assert len(str(trouble(reply(b'{"statusCode":400,"message":%s}' % nested)))) < 300


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"null",
        b"[]",
        b'"ok"',
        b"200",
        b"true",
        b'{"statusCode":200',
        b'{"statusCode":200} trailing',
        b"{'statusCode':200}",
        b'{"data":NaN}',
        b'{"data":-Infinity}',
        b'{"data":' + b"[" * DEEP + b"]" * DEEP + b"}",
        b"[" * DEEP,
        b'{"data":"\xff"}',
        b'{"data":"\xed\xa0\x80"}',
        '{"data":1}'.encode("utf-16"),
        b'{"data":' + b"1" * 5000 + b"}",
        b'{"data":"a\nb"}',
        b"\x00",
    ],
    ids=lambda body: repr(body[:24]),
)
def test_what_is_no_json_object_is_a_protocol_error(body: bytes) -> None:
    """Broken JSON, JSON of another shape and what only Python reads are no answers."""
    error = trouble(reply(body))
    assert type(error) is ProtocolError
    assert error.message == "the answer is no JSON object"
    assert error.status == 200


@pytest.mark.parametrize(
    ("body", "data"),
    [
        (b'\xef\xbb\xbf{"data":1}', 1),
        (b' \n{"data":1}\n', 1),
        (b'{"data":1,"data":2}', 2),
        (b'{"data":"\\ud83d\\ude00"}', "\U0001f600"),
        (b'{"data":"\\ud83d"}', "\ud83d"),
        (b'{"data":%d}' % 10**4000, 10**4000),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_unusual_json_is_read(body: bytes, data: Any) -> None:
    """A byte order mark, keys that come twice, half a surrogate pair and huge numbers are JSON."""
    assert opened(reply(body)) == data


def test_what_was_read_can_be_written() -> None:
    """A number beyond those of floats is kept as its text, so that a reply stays JSON."""
    payload, _ = open_envelope(reply(b'{"data":[1e999,-1e999,1e308,-0.0,1e-999]}'), errors=ERRORS)
    assert payload == {"data": ["1e999", "-1e999", 1e308, 0.0, 0.0]}
    assert json.loads(json.dumps(payload, allow_nan=False)) == payload


@pytest.mark.parametrize("core", ["[]", "[1]", '["[{"]', "{}"])
@pytest.mark.parametrize(("left", "right"), [("[", "]"), ('{"a":', "}"), ('["x",0,', ",[]]")])
def test_nesting_has_a_limit(left: str, right: str, core: str) -> None:
    """Replies of 200 levels can be copied and pickled; a level more is a protocol error."""
    for levels in (198, 199):
        body = f'{{"statusCode":200,"data":{left * levels}{core}{right * levels}}}'.encode()
        if levels == 199:
            assert trouble(reply(body)).message == "the answer is no JSON object"
        else:
            payload, _ = open_envelope(reply(body), errors=ERRORS)
            assert copy.deepcopy(payload) == pickle.loads(pickle.dumps(payload))  # noqa: S301


def test_brackets_in_texts_are_no_nesting() -> None:
    """A text, or a list, may hold as many brackets as it likes."""
    data = {"prompt": "[{" * 10_000, "flat": [[]] * 10_000}
    assert opened(reply({"statusCode": 200, "data": data})) == data


@pytest.mark.parametrize("value", [b"[],", b"1,", b'"",', b"{},"])
def test_values_have_a_limit(value: bytes) -> None:
    """A million values are an answer; many more would take gigabytes, and are none."""
    many = b'{"statusCode":200,"data":{"a":[' + value * 400_000 + b"0]}}"
    assert len(opened(reply(many))["a"]) == 400_001
    assert type(trouble(reply(many.replace(value, value * 3)))) is ProtocolError


def test_a_message_is_cut() -> None:
    """A message of megabytes does not make an error of megabytes."""
    for message in ("x" * 10_000_000, [["x" * 1000] * 10] * 10_000, {"a" * 1_000_000: 1}):
        error = trouble(reply({"statusCode": 400, "message": message}))
        assert len(pickle.dumps(error)) < 20_000
    assert error.code == 400


@pytest.mark.parametrize(
    ("status", "what"),
    [
        (200, "the answer is HTML: base_url or the method is likely wrong"),
        (404, "the answer is HTML: base_url or the method is likely wrong"),
        (400, "the answer is HTML: base_url or the method is likely wrong"),
        (403, "the answer is HTML: the CDN may refuse the User-Agent, set user_agent"),
        (502, "the answer is HTML: the service or the CDN in front of it is in trouble"),
        (520, "the answer is HTML: the service or the CDN in front of it is in trouble"),
    ],
)
@pytest.mark.parametrize("body", [b"<!DOCTYPE html><html></html>", b"\r\n <html>"])
def test_html_names_its_likely_cause(status: int, what: str, body: bytes) -> None:
    """The status tells a wrong route from a refused User-Agent and from trouble."""
    error = trouble(reply(body, status))
    assert (type(error), error.message, error.status) == (ProtocolError, what, status)
    assert error.excerpt == body.decode()


@pytest.mark.parametrize("body", [b"<html>", b"Too Many Requests", b"", b"null", b'"slow down"'])
@pytest.mark.parametrize("status", [425, 429])
def test_too_many_needs_no_json(body: bytes, status: int) -> None:
    """A 429 of the CDN is one, with its pace."""
    error = trouble(reply(body, status, Retry_After="7"))
    assert type(error) is RateLimitError
    assert (error.code, error.status, error.retry_after) == (status, status, 7.0)


@pytest.mark.parametrize("status", [300, 301, 302, 307, 308, 399])
@pytest.mark.parametrize("body", [b"", b"<html>moved</html>"])
def test_a_redirect_says_where_to(status: int, body: bytes) -> None:
    """Redirects are not followed: the key stays where it belongs."""
    error = trouble(reply(body, status, Location="https://www.aireiter.com/"))
    assert type(error) is ProtocolError
    assert "redirects to 'https://www.aireiter.com/': set base_url" in error.message
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
    """Seconds or a date in any of HTTP's forms, held against the answer's own clock; else nothing."""
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
    """However many bytes a character takes, and whether it is one or not."""
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
    """A number or a text of one, and finite: anything else is none."""
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
    """A text stays whole unless it is very long, and null never becomes the text "None"."""
    assert read_text(value) == text
