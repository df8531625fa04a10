"""The API's endpoints as values: requests to bytes, responses to tasks and balances.

No I/O and no clock: a reply is ``(status, headers, body, received_at)``. The facts
come from the service's public documentation and from the authors of public clients.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from attrs import evolve

from aireiter_async._decoding import decode_leniently, salvage
from aireiter_async._envelope import (
    ERRORS,
    SUBMIT_ERRORS,
    Reply,
    open_envelope,
    protocol_error,
    read_code,
    read_number,
    read_text,
)
from aireiter_async._outputs import find_outputs, read_outputs
from aireiter_async._requests import SubmitRequest, is_id
from aireiter_async._tasks import Balance, ErrorDetail, FreeQuota, Task, TaskStatus
from aireiter_async.errors import ProtocolError

SUBMIT_PATH: Final = "/api/openapi/submit"
QUERY_PATH: Final = "/api/openapi/query"
BALANCE_PATH: Final = "/api/openapi/balance"

_OK: Final = 200
_IDS: Final = re.compile(rb'"out_task_id"\s*:\s*"([\w-]{1,64})"')
OTHER_TASK: Final = "the response is about another task"

_STATUSES: Final[Mapping[str, TaskStatus]] = {
    **{status.value: status for status in TaskStatus if status is not TaskStatus.UNKNOWN},
    "submitted": TaskStatus.PENDING,
}
# Words of other services and of relays, matched case-insensitively.
_SYNONYMS: Final[Mapping[str, TaskStatus]] = {
    **_STATUSES,
    **dict.fromkeys(
        ("complete", "success", "succeed", "succeeded", "successful", "done", "finished"),
        TaskStatus.COMPLETED,
    ),
    **dict.fromkeys(
        (
            *("fail", "failure", "error", "errored", "rejected", "aborted", "terminated"),
            *("cancel", "canceled", "cancelled", "expired", "timeout", "timed_out", "timedout"),
        ),
        TaskStatus.FAILED,
    ),
}
_ENDS: Final = (TaskStatus.COMPLETED, TaskStatus.FAILED)
_STATUS_TYPES: Final = frozenset({str, int, float})
_REASONS: Final = ("error_message", "fail_reason", "failure_reason", "reason", "message")
_SALVAGED: Final = (
    *("statusCode", "out_task_id", "status", "created_at", "completed_at", "credits_used"),
    *("output", "error", "video", "cover", "images"),
)
_MESSAGES: Final = ("message", "detail", "msg", "error_message", "reason")
# Times at the limits of the calendar are placeholders, and break conversion between time zones.
_FIRST_YEAR: Final = 1971
_LAST_YEAR: Final = 9998


def encode_query(out_task_id: str) -> bytes:
    """Encode the body of a query; *out_task_id* is a checked ID, so nothing needs escaping."""
    return b'{"out_task_id":"%s"}' % out_task_id.encode()


def read_submit(reply: Reply, request: SubmitRequest) -> Task:
    """Read the response to a submit.

    Raises:
        APIError: The service rejected the request.
        ProtocolError: The response is not the API's, or names no accepted task:
            whether the request was accepted is uncertain.
    """
    out_task_id = request.out_task_id
    payload, data = open_envelope(reply, errors=SUBMIT_ERRORS)
    if not isinstance(data, dict) or not (
        data.get("status") or data.get("out_task_id") or data.get("task_id")
    ):
        raise protocol_error("the response to the submit has no task", reply)
    if str(data.get("out_task_id") or out_task_id) != out_task_id:
        raise protocol_error(OTHER_TASK, reply)
    task = _read_task(payload, data, out_task_id, request.model)
    if (
        task.status is not TaskStatus.PENDING  # rare
        and task.done
        and data.get("status") not in _ENDS
        and not (task.outputs or task.error)
    ):
        return evolve(task, status=TaskStatus.PENDING)  # "success" of the submit, not of the task
    return task


def read_query(reply: Reply, out_task_id: str, model: str | None) -> Task:
    """Read the response to a query, which does not name the *model*.

    Raises:
        TaskNotFoundError: The service knows no such task.
        APIError: The service rejected the query.
        ProtocolError: The response is not one of the API's.
    """
    try:
        payload, data = open_envelope(reply, errors=ERRORS)
        task = _read_state(reply, payload, data, out_task_id, model)
    except ProtocolError:
        salvaged = _salvage(reply, out_task_id, model)
        if salvaged is None:
            raise
        return salvaged
    if task.status is TaskStatus.COMPLETED and not task.outputs:
        return _salvage(reply, out_task_id, model) or task
    return task


def _read_state(
    reply: Reply, payload: dict[str, Any], data: Any, out_task_id: str, model: str | None
) -> Task:
    """Read the data of a query.

    Raises:
        ProtocolError: It has no status, or is about another task.
    """
    if isinstance(data, dict):
        if data.get("out_task_id") != out_task_id and _names_another(data, out_task_id):
            raise protocol_error(OTHER_TASK, reply)
        task, status = _read_task(payload, data, out_task_id, model), data.get("status")
        if type(status) in _STATUS_TYPES or task.done:
            return task
    raise protocol_error("the response to the query has no status", reply)


def _names_another(data: dict[str, Any], out_task_id: str) -> bool:
    """Return whether *data* has the ID of another task; a malformed ID does not count."""
    given = data.get("out_task_id")
    return type(given) in (str, int) and str(given) != out_task_id and is_id(str(given))


def _salvage(reply: Reply, out_task_id: str, model: str | None) -> Task | None:
    """Read an ended task from a response that is broken or has duplicate keys."""
    if reply.status != _OK or b"status" not in reply.body:
        return None
    payload = decode_leniently(reply.body, reply.headers)
    found = salvage(reply.body, reply.headers, _SALVAGED)
    code = found.pop("statusCode", _OK)
    candidates: list[tuple[Any, Any]] = []
    if isinstance(payload, dict):
        code, data = payload.get("statusCode", _OK), payload.get("data")
        # A relay may have encoded the data once more, or removed the envelope.
        if isinstance(data, str):
            data = decode_leniently(data.encode(), {})
        candidates += [(payload, data), (payload, payload)]
    if "status" in found and set(_IDS.findall(reply.body)) <= {out_task_id.encode()}:
        candidates.append(({"statusCode": _OK, "data": found}, found))
    if read_code(code) not in (_OK, None):
        return None
    for whole, data in candidates:
        try:
            task = _read_state(reply, whole, data, out_task_id, model)
        except ProtocolError:
            continue
        in_place = whole is payload and data is not payload
        # Elsewhere in the response, a status may belong to something else.
        if task.done and (in_place or task.outputs or data.get("out_task_id")):
            return task
    return None


def read_balance(reply: Reply) -> Balance:
    """Read the response to a balance request.

    Raises:
        APIError: The service rejected it.
        ProtocolError: The response is not one of the API's.
    """
    payload, data = open_envelope(reply, errors=ERRORS)
    credits_left = read_number(data.get("credits")) if isinstance(data, dict) else None
    if credits_left is None:
        raise protocol_error("the response has no credits", reply)
    quotas = data.get("free_quotas")
    return Balance(
        credits=credits_left,
        free_quotas=tuple(
            FreeQuota(
                model_key=read_text(quota.get("model_key")),
                total=read_number(quota.get("total")),
                used=read_number(quota.get("used")),
                remaining=read_number(quota.get("remaining")),
            )
            for quota in (quotas if isinstance(quotas, list) else ())
            if isinstance(quota, dict)
        ),
        raw=payload,
    )


def restore_task(text: str, out_task_id: str, model: str) -> Task:
    """Read a task from the stored JSON *text* of its ``Task.raw``.

    Raises:
        ProtocolError: *text* is not the response to a query.
    """
    reply = Reply(_OK, {}, text.encode(), 0.0)
    return read_query(reply, out_task_id, model)


def platform_id(task: Task) -> str | None:
    """Return the service's own ID of a task, where its reply has one."""
    inner = task.raw.get("data", task.raw) if isinstance(task.raw, Mapping) else None
    found = inner.get("task_id") if isinstance(inner, Mapping) else None
    return found if isinstance(found, str) and found else None


def _read_task(
    payload: dict[str, Any], data: dict[str, Any], out_task_id: str, model: str | None
) -> Task:
    """Read each field leniently: a missing or malformed one never loses a paid task."""
    # Absent fields are skipped: most responses are to submits or about running tasks.
    get = data.get
    word, given, ended_at = get("status"), get("error"), get("completed_at")
    estimate, charge, created_at = get("estimated_credits"), get("credits_used"), get("created_at")
    status = _STATUSES.get(word) if type(word) is str else None
    error = _read_error(given) if given else None
    completed_at = None if ended_at is None else _read_time(ended_at)
    if status is TaskStatus.PENDING or status is TaskStatus.PROCESSING:
        output = get("output")
        outputs = read_outputs(output, model, out_task_id) if output else ()
    else:
        outputs = find_outputs(data, model, out_task_id)
        ended = bool(outputs or completed_at)
        status = status or _infer_status(word, error, ended=ended)
        if status is TaskStatus.FAILED and error is None:
            reason = next((get(name) for name in _REASONS if get(name)), None)
            error = _read_error(reason) if reason else None
    return Task(
        out_task_id,
        status,
        model,
        None if estimate is None else read_number(estimate),
        None if charge is None else read_number(charge),
        None if created_at is None else _read_time(created_at),
        completed_at,
        outputs,
        error,
        payload,
    )


def _infer_status(word: Any, error: ErrorDetail | None, *, ended: bool) -> TaskStatus:
    """Return the status for an undocumented *word*, inferred from other fields if unknown."""
    status = _SYNONYMS.get(word.strip().casefold()) if isinstance(word, str) else None
    if status is not None:
        return status
    if error is not None and (error.message or error.code not in ("", "0")):
        return TaskStatus.FAILED
    if ended:
        return TaskStatus.COMPLETED
    return TaskStatus.PENDING if word is None else TaskStatus.UNKNOWN


def _read_time(value: Any) -> datetime | None:
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    if not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _read_error(value: Any) -> ErrorDetail:
    if isinstance(value, dict):
        message = next((value[name] for name in _MESSAGES if value.get(name)), None)
        return ErrorDetail(read_text(value.get("code")), read_text(message))
    return ErrorDetail("", read_text(value))
