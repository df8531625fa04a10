"""The wire: answers to values."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aireiter_async import _wire
from aireiter_async._envelope import Reply
from aireiter_async._requests import SubmitRequest
from aireiter_async._tasks import Balance, ErrorDetail, FreeQuota, Output, Task, TaskStatus
from aireiter_async.errors import (
    AireiterError,
    APIError,
    ProtocolError,
)

ID = "kitten-1"
REQUEST = SubmitRequest("seedance_1_5_pro", {"prompt": "a kitten"}, ID)


def reply(payload: Any, status: int = 200) -> Reply:
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return Reply(status, {}, body, 0.0)


def submitted(data: Any, **envelope: Any) -> Task:
    payload = {"statusCode": 200, "data": data} | envelope
    return _wire.read_submit(reply(payload), REQUEST)


def seen(data: Any, model: str | None = None) -> Task:
    payload = {"statusCode": 200, "message": "", "data": data}
    return _wire.read_query(reply(payload), ID, model)


def test_a_query_is_its_id() -> None:
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
        ({"data": {"status": "success"}}, "pending", None),
        ({"data": {"status": ["a"], "completed_at": "2026-08-12T06:05:41Z"}}, "pending", None),
        ({"data": {"status": "OK", "task_id": "a"}}, "unknown", None),
    ],
)
def test_an_accepted_submit_is_a_task(payload: Any, status: str, estimate: float | None) -> None:
    task = _wire.read_submit(reply(payload), REQUEST)
    assert (task.out_task_id, task.model) == (ID, "seedance_1_5_pro")
    assert (task.status, task.estimated_credits) == (status, estimate)
    assert task.raw == payload
    assert not task.outputs


@pytest.mark.parametrize(
    "data", [None, [], [None], "pending", 1, {}, {"created_at": "x"}, {"status": "", "task_id": 0}]
)
def test_a_response_without_a_task_is_not_certain(data: Any) -> None:
    with pytest.raises(ProtocolError, match="the response to the submit has no task"):
        submitted(data)


@pytest.mark.parametrize("other", ["other", "kitten-2", 5])
def test_a_response_about_another_task_is_not_believed(other: Any) -> None:
    data = {"out_task_id": other, "status": "completed"}
    with pytest.raises(ProtocolError, match="the response is about another task"):
        submitted(data)
    with pytest.raises(ProtocolError, match="the response is about another task"):
        seen(data)


@pytest.mark.parametrize("odd", [["kitten-1"], {"a": 1}, True, 0.5, "小猫", "kitten 1", "x" * 65])
def test_what_is_no_id_hides_no_task(odd: Any) -> None:
    """A query is answered; a submit is settled by one."""
    data = {"out_task_id": odd, "status": "completed", "output": [{"url": RESULT}]}
    assert seen(data).url == RESULT
    with pytest.raises(ProtocolError, match="the response is about another task"):
        submitted(data)


def test_an_id_may_come_as_a_number() -> None:
    body = reply({"statusCode": 200, "data": {"out_task_id": 17, "status": "pending"}})
    assert _wire.read_query(body, "17", None).out_task_id == "17"
    assert _wire.read_submit(body, SubmitRequest("m", {}, "17")).status == "pending"


def test_a_finished_task_is_read_whole() -> None:
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
    task = seen({"status": "completed", "output": [{"url": "https://h/\u732b.png"}]}, "gpt_4o")
    for text in (json.dumps(task.raw), json.dumps(task.raw, ensure_ascii=False)):
        again = _wire.restore_task(text, ID, "gpt_4o")
        assert again == task
        assert again.raw == task.raw
    with pytest.raises(ProtocolError):
        _wire.restore_task("", ID, "gpt_4o")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["pending", "submitted", "Pending", " PENDING\n"], "pending"),
        (["processing", "PROCESSING"], "processing"),
        (["completed", "Completed", "succeeded", "SUCCESS", "done", "Finished"], "completed"),
        (["failed", "FAILED", "failure", "error", "canceled", "Cancelled", "expired"], "failed"),
        (["unknown", "archived", "", "queued", 2, "2", 2.5, 0], "unknown"),
    ],
)
def test_a_status_is_read_in_any_case(words: list[Any], expected: str) -> None:
    assert {seen({"status": word}).status for word in words} == {expected}


EVIDENCE: list[tuple[dict[str, Any], str]] = [
    ({"completed_at": "2026-08-12T06:05:41Z"}, "completed"),
    ({"output": [{"url": "https://h/a.png"}]}, "completed"),
    ({"video": "https://h/a.mp4"}, "completed"),
    ({"error": {"code": "TIMEOUT", "message": ""}}, "failed"),
    ({"error": "nsfw", "completed_at": "2026-08-12T06:05:41Z"}, "failed"),
]


@pytest.mark.parametrize("word", [2, "2", "archived", None, [], True])
@pytest.mark.parametrize(("evidence", "expected"), EVIDENCE)
def test_a_task_that_has_evidently_ended_has_ended(
    word: Any, evidence: dict[str, Any], expected: str
) -> None:
    assert seen({"status": word} | evidence).status == expected
    assert seen({"status": "processing"} | evidence).status == "processing"


@pytest.mark.parametrize(
    "data",
    [
        {"completed_at": "0001-01-01T00:00:00Z"},
        {"completed_at": None, "output": [], "error": {"code": "0", "message": ""}},
        {"output": [{}], "error": {}},
    ],
)
def test_empty_fields_are_no_evidence(data: dict[str, Any]) -> None:
    assert seen({"status": 2} | data).status == "unknown"


@pytest.mark.parametrize(
    "data", [None, [], {}, "completed", {"status": None}, {"status": [1]}, {"status": True}]
)
def test_a_query_needs_a_status(data: Any) -> None:
    with pytest.raises(ProtocolError, match="the response to the query has no status"):
        seen(data)


@pytest.mark.parametrize(
    "output", [None, [], {}, {"list": []}, [{}], [{"url": ""}], [{"url": None}, " ", None]]
)
def test_completed_without_results_is_recognisable(output: Any) -> None:
    task = seen({"status": "completed", "output": output})
    assert (task.status, task.outputs) == ("completed", ())


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
        ("0001-01-01T00:00:00Z", None),
        ("0001-01-01T00:00:00+14:00", None),
        ("9999-12-31T23:59:59-12:00", None),
        ("\ud800", None),
        (1766383408242, None),
        (None, None),
        ([], None),
    ],
)
def test_times_are_read_where_they_are_times(text: Any, moment: datetime | None) -> None:
    task = seen({"status": "completed", "created_at": text, "completed_at": text})
    assert task.created_at == task.completed_at == moment
    assert moment is None or task.created_at is None or task.created_at.tzinfo is not None


@pytest.mark.parametrize(
    ("credits_used", "expected"),
    [(2.5, 2.5), (0, 0.0), ("0.871", 0.871), (None, None), (True, None), ([], None)],
)
def test_credits_are_read_where_they_are_numbers(credits_used: Any, expected: float | None) -> None:
    assert seen({"status": "completed", "credits_used": credits_used}).credits_used == expected
    assert seen({"status": "completed"}).credits_used is None


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        ({"code": "TIMEOUT", "message": "upstream"}, ErrorDetail("TIMEOUT", "upstream")),
        ({"code": 500, "message": "oops"}, ErrorDetail("500", "oops")),
        ({"code": None, "message": None}, ErrorDetail("", "")),
        ({"message": ["a"]}, ErrorDetail("", "['a']")),
        ({"code": 1, "msg": "a"}, ErrorDetail("1", "a")),
        ("content policy", ErrorDetail("", "content policy")),
        (["a", "b"], ErrorDetail("", "['a', 'b']")),
        (7, ErrorDetail("", "7")),
        (None, None),
        ("", None),
        ({}, None),
    ],
)
def test_a_failure_keeps_its_reason(error: Any, detail: ErrorDetail | None) -> None:
    assert seen({"status": "failed", "error": error}).error == detail


def test_a_failure_without_an_error_has_the_reason_beside_it() -> None:
    task = seen({"status": "failed", "fail_reason": "nsfw"})
    assert task.error == ErrorDetail("", "nsfw")
    assert seen({"status": "failed"}).error is None


def test_a_balance_is_read() -> None:
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
    answer = reply({"code": "200", "data": {"credits": "7", "free_quotas": quotas}})
    assert _wire.read_balance(answer) == Balance(7.0)


@pytest.mark.parametrize("data", [None, {}, [], 5, {"credits": None}, {"credits": "many"}])
def test_a_balance_needs_credits(data: Any) -> None:
    with pytest.raises(ProtocolError, match="the response has no credits"):
        _wire.read_balance(reply({"statusCode": 200, "data": data}))


# Broken replies ------------------------------------------------------------------------

RESULT = "https://static.aireiter.com/upload/a.png"
COMPLETED = {
    "ok": True,
    "statusCode": 200,
    "message": "",
    "data": {
        "out_task_id": ID,
        "task_id": "order_1",
        "status": "completed",
        "created_at": "2026-08-12T06:03:28.000Z",
        "completed_at": "2026-08-12T06:05:41.000Z",
        "credits_used": 82.5,
        "output": [{"url": RESULT}],
        "input": {"model": "gpt_4o", "params": {"prompt": "a \u732b \U0001f600"}},
    },
}
TEXT = json.dumps(COMPLETED, ensure_ascii=False)
OUTPUT = f'[{{"url": "{RESULT}"}}]'


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("82.5", "NaN"),
        ("82.5", "Infinity"),
        ("82.5", "1" * 5000),
        ("82.5", "1e999"),
        ("a 猫", "a\n\0\x1b\t"),
        ('"output": [', f'"output": {OUTPUT}, "output": null, "old": ['),
        ('"data": {', '"data": null, "data": {'),
        ('"data": {', '"eata": {'),
        ('"message": "",', '"error": "none",'),
        ('"message": "",', '"error": {"code": null},'),
        ('"a 猫', '"a "nice" 猫'),  # quotes that are not escaped
        ('"a 猫', '"\\q'),
        ("}}}", "}}"),
        (f'"{ID}"', "[" * 300),
        (f'"{ID}"', f'{ID}"'),
        (f'"{ID}"', "nothing"),
        ('200, "message": "", "data": {', '"200", "message": "", "data": {,'),
        ('"statusCode": 200,', '"statusCode": "200,'),
        ("}}}", "}}}} <!-- relay -->"),
        ('"params": {"prompt"', '"params": %s{"prompt"' % ("[" * 300)),
        ('"params": {', '"params": {"deep": %s, ' % ("[" * 300 + "]" * 300)),
        ('{"ok": true, "statusCode": 200, "message": "", "data": ', ""),
        ('"output"', '"outputs"'),
        (f'"output": {OUTPUT}', f'"images": ["{RESULT}"]'),
    ],
)
def test_nothing_hides_a_completed_task(old: str, new: str) -> None:
    text = TEXT.replace(old, new)
    if not new:
        text = text[:-1]
    assert text != TEXT
    task = _wire.read_query(reply(text.encode()), ID, "gpt_4o")
    assert (task.status, task.url) == ("completed", RESULT)
    json.dumps(task.to_dict(), allow_nan=False)
    json.dumps(task.raw, allow_nan=False, ensure_ascii=False).encode()
    assert _wire.restore_task(json.dumps(task.raw), ID, "gpt_4o") == task


@pytest.mark.parametrize(
    "body",
    [
        TEXT.encode().replace("猫".encode(), b"\xe7\x8c"),
        TEXT.encode("latin-1", "replace").replace(b"a ?", b"caf\xe9"),
        TEXT.replace("\U0001f600", "\ud83d\ude00").encode("utf-8", "surrogatepass"),
        TEXT.replace("\U0001f600", "\ud83d").encode("utf-8", "surrogatepass"),
        TEXT.replace("\U0001f600", "\\ud83d").encode(),
    ],
    ids=["cut", "latin-1", "cesu-8", "lone", "escaped"],
)
def test_no_encoding_hides_a_completed_task(body: bytes) -> None:
    task = _wire.read_query(reply(body), ID, "gpt_4o")
    assert (task.status, task.url) == ("completed", RESULT)
    json.dumps(task.raw, ensure_ascii=False).encode()


def test_data_that_was_encoded_twice_hides_no_task() -> None:
    body = reply(COMPLETED | {"data": json.dumps(COMPLETED["data"])})
    task = _wire.read_query(body, ID, "gpt_4o")
    assert (task.status, task.url, task.credits_used) == ("completed", RESULT, 82.5)
    assert _wire.restore_task(json.dumps(task.raw), ID, "gpt_4o") == task
    with pytest.raises(ProtocolError):
        _wire.read_query(reply(COMPLETED | {"data": "status"}), ID, "gpt_4o")


@pytest.mark.parametrize(
    "text",
    [
        TEXT.replace(ID, "other"),
        TEXT.replace(ID, "other").replace("}}}", "}}"),
        TEXT.replace("}}}", "}").replace('"task_id"', '"out_task_id": "other", "task_id"'),
        TEXT.replace("}}}", "}").replace("200", "500"),
        TEXT.replace("}}}", "}").replace("completed", "processing", 1),
        TEXT.replace("}}}", '}, "status": "failed"'),
        '{"error": {"code": "x", "message": "no"}}',
        '{"error": {"code": "x", "message": "no"}, "data": ',
        '{"status": "error", "message": "no"}',
        '{"status": "error", "message": "no"',
        '{"data": null, "status": "failed"}',
        '{"status": "completed", "message": "no"}',
    ],
)
def test_a_broken_reply_is_not_believed_against_its_own_words(text: str) -> None:
    with pytest.raises(AireiterError):
        _wire.read_query(reply(text.encode()), ID, None)
    with pytest.raises(AireiterError):
        _wire.read_query(reply(TEXT.replace("}}}", "}").encode(), 502), ID, None)


# Bytes that leave the status readable: any but those of JSON's syntax.
VALUE_BYTES = sorted({*range(256)} - {*b'"\\{}[],:'})
JUNK = st.lists(st.sampled_from(VALUE_BYTES), min_size=1, max_size=4).map(bytes)
SPOTS = [TEXT.encode().index(part) + 2 for part in (b"a \xe7", b"order_1", b"2026", b"6:05:41")]
FIELDS = ["task_id", "created_at", "completed_at", "credits_used", "input", "extra", "error"]


@given(st.sampled_from(SPOTS), JUNK, st.booleans())
def test_bytes_within_a_value_do_not_matter(spot: int, junk: bytes, replace: bool) -> None:  # noqa: FBT001
    body = TEXT.encode()
    mutated = body[:spot] + junk + body[spot + len(junk) * replace :]
    task = _wire.read_query(reply(mutated), ID, "gpt_4o")
    assert (task.status, task.url) == ("completed", RESULT)


@given(
    st.lists(st.tuples(st.integers(0, len(TEXT.encode()) - 1), st.binary(max_size=3)), max_size=3),
    st.integers(0, 3),
)
def test_any_bytes_give_a_task_or_an_error(cuts: list[tuple[int, bytes]], drop: int) -> None:
    body = TEXT.encode()
    for place, junk in cuts:
        body = body[:place] + junk + body[place + drop :]
    try:
        task = _wire.read_query(reply(body), ID, "gpt_4o")
    except (ProtocolError, APIError):
        return
    assert task.done or b'"completed"' not in body


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
HEADERS = st.dictionaries(
    st.sampled_from(["Retry-After", "Date", "Location", "Content-Type"]),
    st.text(max_size=40)
    | st.integers().map(str)
    | st.datetimes().map(lambda moment: f"{moment:%a, %d %b %Y %H:%M:%S} GMT"),
)


@given(
    st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=4),
    st.dictionaries(st.sampled_from(["ok", "success", "message", "error", "x"]), VALUES),
    HEADERS,
)
def test_any_fields_beside_the_results_do_not_matter(
    fields: dict[str, Any], envelope: dict[str, Any], headers: dict[str, str]
) -> None:
    data: Any = COMPLETED["data"]
    payload = COMPLETED | envelope | {"data": data | fields}
    body = json.dumps(payload).encode()
    try:
        task = _wire.read_query(Reply(200, headers, body, 0.0), ID, "gpt_4o")
    except APIError as error:  # the error beside the task has a code
        assert isinstance(envelope["error"], dict), error  # noqa: PT017
        return
    assert (task.status, task.url) == ("completed", RESULT)
