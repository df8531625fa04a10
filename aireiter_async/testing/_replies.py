"""The replies of the service: envelopes, rejections and HTML pages, as bytes.

Every shape is either documented (https://docs.aireiter.com) or has been seen live
by the authors of public clients.
"""

import json
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http import HTTPStatus
from typing import Any, Literal

import attrs

Envelope = Literal["plain", "ok", "code", "list"]
StatusForm = Literal["live", "http", "envelope"]
RetryAfterForm = Literal["seconds", "date"]

# Built once: json.dumps with options creates an encoder for every call.
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

JSON_HEADERS: Mapping[str, str] = {"Content-Type": "application/json; charset=utf-8"}
HTML_HEADERS: Mapping[str, str] = {"Content-Type": "text/html; charset=utf-8"}


@attrs.frozen
class Reply:
    """One HTTP reply, not yet sent."""

    status: int
    body: bytes
    headers: Mapping[str, str] = JSON_HEADERS


def json_reply(document: Mapping[str, Any], status: int = 200) -> Reply:
    """Return *document* as a JSON reply in raw UTF-8."""
    return Reply(status, _encode(document).encode())


def success(data: Mapping[str, Any], envelope: Envelope, *, on_submit: bool) -> Reply:
    """Return *data* in the *envelope* of one family of documentation pages.

    Args:
        data: The value of ``data``.
        envelope: The form to use.
        on_submit: Whether this is the reply to a submit. The list form is documented only
            for submits; other endpoints use the plain one instead.
    """
    if envelope == "list" and on_submit:
        task_id = f"task_{data['out_task_id']}"
        return json_reply({"code": 200, "data": [{"status": "submitted", "task_id": task_id}]})
    # task_id has been seen absent, null and empty; it never has a meaning.
    if envelope == "ok":
        shown = {**data, "task_id": None} if on_submit else data
        return json_reply({"ok": True, "statusCode": 200, "message": "", "data": shown})
    if envelope == "code":
        shown = {**data, "task_id": ""} if on_submit else data
        return json_reply({"code": "200", "success": True, "data": shown})
    return json_reply({"statusCode": 200, "message": "", "data": data})


def page(status: int) -> Reply:
    """Return an HTML page of the site or the CDN in front of the API.

    A 200 is the marketing site, which is returned for every wrong route; any other
    status is a page of the CDN.
    """
    title = "AIReiter: all models in one place" if status == HTTPStatus.OK else None
    title = title or f"{status} {HTTPStatus(status).phrase}"
    html = f"<!DOCTYPE html><html><head><title>{title}</title></head><body>{title}</body></html>"
    return Reply(status, html.encode(), HTML_HEADERS)


_Shape = Callable[[int, str], dict[str, Any]]


def _flat(code: int, message: str) -> dict[str, Any]:
    return {"statusCode": code, "message": message, "ok": False}


def _without_data(code: int, message: str) -> dict[str, Any]:
    return {"ok": True, "statusCode": code, "message": message, "data": None}


def _under_error(code: int, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message}}


def _typed(kind: str) -> _Shape:
    return lambda code, message: {"error": {"code": code, "message": message, "type": kind}}


@attrs.frozen
class Reason:
    """A reason for a rejection.

    Args:
        code: The code in the body.
        message: The message in the documentation or of the live service.
        enveloped: The form of the body in an HTTP 200.
        bare: The form of the body if the HTTP status has the code.
        enveloped_live: Whether the live service has been seen to use an HTTP 200.
    """

    code: int
    message: str
    enveloped: _Shape
    bare: _Shape
    enveloped_live: bool


BAD_REQUEST = Reason(400, "Invalid request parameters", _flat, _flat, enveloped_live=True)
UNKNOWN_TASK = Reason(400, "api task not found", _without_data, _without_data, enveloped_live=True)
BAD_KEY = Reason(
    401,
    "Authentication failed, please check your API key",
    _under_error,
    _under_error,
    enveloped_live=False,
)
BAD_BALANCE_KEY = Reason(401, "Unauthorized", _flat, _flat, enveloped_live=False)
TOO_MANY = Reason(
    429,
    "Too many requests, please try again later",
    _flat,
    _typed("rate_limit_error"),
    enveloped_live=False,
)
NO_CREDITS = Reason(433, "not enough credits", _without_data, _under_error, enveloped_live=True)
PAYMENT_REQUIRED = Reason(
    402,
    "Insufficient account balance, please recharge and try again",
    _without_data,
    _typed("payment_required"),
    enveloped_live=False,
)


class RejectionError(Exception):
    """Rejects a request; rendered by `rejection`."""

    def __init__(self, reason: Reason, message: str | None = None) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message


def rejection(reason: Reason, form: StatusForm, message: str | None = None) -> Reply:
    """Return a rejection; *form* decides whether the HTTP status has the code as well."""
    enveloped = reason.enveloped_live if form == "live" else form == "envelope"
    shape = reason.enveloped if enveloped else reason.bare
    document = shape(reason.code, reason.message if message is None else message)
    return json_reply(document, 200 if enveloped else reason.code)


def too_many(
    form: StatusForm, retry_after: float | None = None, retry_form: RetryAfterForm = "seconds"
) -> Reply:
    """Return a 429, with a ``Retry-After`` if given.

    Args:
        form: Whether the HTTP status is 429 as well.
        retry_after: Seconds from now; None sends no ``Retry-After``.
        retry_form: ``"date"`` sends an HTTP date, rounded up to whole seconds, so that
            obeying it is never too early.
    """
    reply = rejection(TOO_MANY, form)
    if retry_after is None:
        return reply
    value = str(int(retry_after)) if retry_after == int(retry_after) else str(retry_after)
    if retry_form == "date":
        moment = datetime.now(UTC) + timedelta(seconds=retry_after)
        whole = datetime.fromtimestamp(math.ceil(moment.timestamp()), UTC)
        value = format_datetime(whole, usegmt=True)
    return attrs.evolve(reply, headers={**reply.headers, "Retry-After": value})
