"""Between values and bytes: paths, JSON, envelopes, codes and errors.

No I/O and no clock of its own: a reply is ``(status, headers, body)``. The
facts come from the service's public documentation and from what the authors of
public programs saw: the envelopes differ by page, a refusal may travel in an
HTTP 200, and HTML means a wrong route or the CDN.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from aireiter_async._envelope import (
    ERRORS,
    SUBMIT_ERRORS,
    Reply,
    open_envelope,
    protocol_error,
    read_number,
    read_text,
)
from aireiter_async._outputs import read_outputs
from aireiter_async._requests import SubmitRequest
from aireiter_async._tasks import Balance, ErrorDetail, FreeQuota, Task, TaskStatus

SUBMIT_PATH: Final = "/api/openapi/submit"
QUERY_PATH: Final = "/api/openapi/query"
BALANCE_PATH: Final = "/api/openapi/balance"

_OK: Final = 200
OTHER_TASK: Final = "the answer is about another task"

encode_submit: Final = SubmitRequest.encode
encode_content: Final = SubmitRequest.encode_content


def encode_query(out_task_id: str) -> bytes:
    """Encode the body of a query; *out_task_id* is a checked id, so nothing needs escaping."""
    return b'{"out_task_id":"%s"}' % out_task_id.encode()


def read_submit(reply: Reply, request: SubmitRequest) -> Task:
    """Read the answer to a submit.

    Args:
        reply: The answer.
        request: What was submitted.

    Returns:
        The accepted task.

    Raises:
        APIError: The service refused, by its own code.
        ProtocolError: The answer is not one of the API's, or says of no task
            that it was accepted: whether it was is not certain.
    """
    out_task_id = request.out_task_id
    payload, data = open_envelope(reply, errors=SUBMIT_ERRORS)
    if not isinstance(data, dict) or not (
        data.get("status") or data.get("out_task_id") or data.get("task_id")
    ):
        raise protocol_error("the submit was answered without a task", reply)
    if data.get("out_task_id") not in (out_task_id, None, ""):
        raise protocol_error(OTHER_TASK, reply)
    return _read_task(payload, data, out_task_id, request.model)


def read_query(reply: Reply, out_task_id: str, model: str | None) -> Task:
    """Read the answer to a query.

    Args:
        reply: The answer.
        out_task_id: The id that was asked for.
        model: The task's model where it is known; the answer does not say.

    Raises:
        TaskNotFoundError: The service knows no such task.
        APIError: The service refused.
        ProtocolError: The answer is not one of the API's.
    """
    payload, data = open_envelope(reply, errors=ERRORS)
    if not isinstance(data, dict) or not isinstance(data.get("status"), str):
        raise protocol_error("the query was answered without a status", reply)
    if data.get("out_task_id") not in (out_task_id, None, ""):
        raise protocol_error(OTHER_TASK, reply)
    return _read_task(payload, data, out_task_id, model)


def read_balance(reply: Reply) -> Balance:
    """Read the answer to a balance request.

    Raises:
        APIError: The service refused.
        ProtocolError: The answer is not one of the API's.
    """
    payload, data = open_envelope(reply, errors=ERRORS)
    credits_left = read_number(data.get("credits")) if isinstance(data, dict) else None
    if credits_left is None:
        raise protocol_error("the balance was answered without credits", reply)
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
    """Read an answer to a query again that was kept as the JSON *text* of ``Task.raw``.

    Raises:
        ProtocolError: It is not what was kept.
    """
    reply = Reply(_OK, {}, text.encode(), 0.0)
    return read_query(reply, out_task_id, model)


def _read_task(
    payload: dict[str, Any], data: dict[str, Any], out_task_id: str, model: str | None
) -> Task:
    """Read what can be read; nothing that is missing or malformed loses a paid task."""
    get = data.get
    output, status = get("output"), get("status")
    return Task(
        out_task_id,
        TaskStatus.PENDING if status is None else _read_status(status),
        model,
        read_number(get("estimated_credits")),
        read_number(get("credits_used")),
        _read_time(get("created_at")),
        _read_time(get("completed_at")),
        () if output is None else read_outputs(output, model, out_task_id),
        _read_error(get("error")),
        payload,
    )


_STATUSES: Final[Mapping[str, TaskStatus]] = {
    **{status.value: status for status in TaskStatus},
    "submitted": TaskStatus.PENDING,
}


def _read_status(value: Any) -> TaskStatus:
    return (
        _STATUSES.get(value, TaskStatus.UNKNOWN) if isinstance(value, str) else TaskStatus.UNKNOWN
    )


def _read_time(value: Any) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _read_error(value: Any) -> ErrorDetail | None:
    if not value:
        return None
    if isinstance(value, dict):
        return ErrorDetail(read_text(value.get("code")), read_text(value.get("message")))
    return ErrorDetail("", read_text(value))
