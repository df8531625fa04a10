"""Open a response's envelope: return its data, or raise the error it reports.

Envelopes differ between pages of the documentation, a rejection may arrive in an
HTTP 200 with ``"ok": true``, and HTML means a wrong route or the CDN. One
function handles all of them; a table maps codes to errors.
"""

import math
import re
import reprlib
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, NamedTuple

from aireiter_async._decoding import decode
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

_EXCERPT: Final = 200
_OK: Final = 200
_FORBIDDEN: Final = 403
_NOT_FOUND: Final = 404
_CONFLICT: Final = 409
_RATE_LIMITS: Final = frozenset({425, 429})
_SUCCESSES: Final = range(200, 300)
_REDIRECTS: Final = range(300, 400)
_REJECTIONS: Final = range(400, 500)
_SERVER_ERRORS: Final = range(500, 600)

ERRORS: Final[Mapping[int, type[APIError]]] = {
    400: InvalidRequestError,
    401: AuthenticationError,
    402: InsufficientCreditsError,
    403: AuthenticationError,
    409: InvalidRequestError,
    413: InvalidRequestError,
    414: InvalidRequestError,
    415: InvalidRequestError,
    422: InvalidRequestError,
    425: RateLimitError,
    429: RateLimitError,
    431: InvalidRequestError,
    433: InsufficientCreditsError,
    451: InvalidRequestError,
}
# A 404 on submit cannot mean a missing task: the route or the model is wrong.
SUBMIT_ERRORS: Final = {**ERRORS, _NOT_FOUND: InvalidRequestError}
# A server in front of the API may reject a request with these and a page of its own.
_PAGES: Final = frozenset({413, 414, 415, 422, 431, 451})

# The service's own words for an unknown ID; a 404 without them comes from something else.
_NO_TASK: Final = "task not found"
# These are compiled, and cached by `re`, when a reply is first rejected.
_NO_CREDITS: Final = (
    r"(?i)insufficient[ _-](?:\w+[ _-])?(?:quota|credits?|balance|funds)"
    r"|(?:not enough|out of) credits?|exceeded your current quota|billing_hard_limit"
    r"|(?:余额|积分|额度|点数)不足"
)
# A used ID in any wording: the message mentions an ID, and that it already exists.
_ABOUT_ID: Final = r"(?i)(?:\b|_)ids?\b|任务编号"
_TAKEN: Final = (
    r"(?i)duplicat|\balready\b|(?<!not )\bexists\b|\bconflict"
    r"|\b(?:is|been|was|in) (?:used?|taken|occupied)\b|\bused before\b|\breused?\b"
    r"|重复|已存在|已经存在|已使用|已被|占用"
)
_MAX_DIGITS: Final = 9
_NUMBERS: Final = frozenset({int, float, str})
_MAX_TEXT: Final = 10_000  # characters of a message: an error is shown, logged and pickled
_MESSAGES: Final = ("message", "detail", "msg", "error_message", "error_msg", "title", "reason")
_TITLE: Final = r"(?is)<(title|h1)\b[^>]*>(.*?)</\1"
_SECONDS: Final = r"(?a)\s*([+-]?[\d.]+(?:e\+?\d+)?)\s*s?(?:ec\w*)?\s*(?:,|$)"
_CHECK_BASE_URL: Final = "check base_url"


class Reply(NamedTuple):
    """One HTTP response; `received_at` is in seconds since the epoch."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    received_at: float

    def __repr__(self) -> str:
        """Omit the body: a relay may have echoed the key, and tracebacks may show variables."""
        return f"<Reply {self.status}, {len(self.body)} bytes>"


_short = reprlib.Repr()
_short.maxstring = _short.maxother = _EXCERPT


def open_envelope(
    reply: Reply, *, errors: Mapping[int, type[APIError]]
) -> tuple[dict[str, Any], Any]:
    """Return the whole envelope and the data in it, or raise the error it reports."""
    payload = decode(reply.body, reply.headers)
    if not isinstance(payload, dict):
        raise _not_an_envelope(reply)
    if payload.get("error") or payload.get("statusCode") != _OK:  # rare
        _check_code(payload, reply, errors)
    data = payload.get("data")
    if isinstance(data, list) and data:
        data = data[0]
    return payload, data


def _check_code(
    payload: dict[str, Any], reply: Reply, errors: Mapping[int, type[APIError]]
) -> None:
    """Raise the error that the envelope reports, if any."""
    code, message = _code_and_message(payload, reply.status)
    if reply.status in _SUCCESSES and _reports_failure(payload):
        code = _OK if code in (None, reply.status) else code
    elif code is None:
        data = payload.get("data")
        if errors is not SUBMIT_ERRORS and isinstance(data, dict) and data.get("status"):
            return  # an error beside it must not hide a task
        raise protocol_error("the response reports an error without a code", reply)
    elif code == _OK:
        return
    kind = errors.get(code) or errors.get(reply.status)
    if kind is None:
        kind = ServerError if code in _SERVER_ERRORS else APIError
    if code in _REJECTIONS or code == _OK:
        kind = _rejection(payload, code, message, kind, submit=errors is SUBMIT_ERRORS)
        if kind is TaskNotFoundError and _NO_TASK not in message.lower():
            raise protocol_error("the 404 did not come from the API", reply, _CHECK_BASE_URL)
    raise kind(code, message, _retry_after(reply), None, reply.status)


def _rejection(
    payload: dict[str, Any], code: int, message: str, kind: type[APIError], *, submit: bool
) -> type[APIError]:
    """Return the error class of a definite rejection, refined by its wording."""
    if not submit and (code == _NOT_FOUND or _NO_TASK in message.lower()):
        return TaskNotFoundError
    error = payload.get("error")
    words = f"{error.get('code')} {error.get('type')}" if isinstance(error, dict) else ""
    if re.search(_NO_CREDITS, f"{words} {payload.get('code')} {message}"):
        return InsufficientCreditsError
    if kind is APIError and code == _OK:
        kind = InvalidRequestError
    if submit and kind is InvalidRequestError and _is_id_taken(code, message):
        return IDInUseError
    return kind


def _reports_failure(payload: dict[str, Any]) -> bool:
    """Return whether an envelope without a code reports a failure."""
    if any(read_code(payload.get(name)) is not None for name in ("statusCode", "code")):
        return False
    return any(payload.get(name) in (False, "false") for name in ("success", "ok"))


def _is_id_taken(code: int, message: str) -> bool:
    if not re.search(_TAKEN, message):
        return code == _CONFLICT and not message
    return code == _CONFLICT or bool(re.search(_ABOUT_ID, message))


def _code_and_message(payload: dict[str, Any], status: int) -> tuple[int | None, str]:
    """Extract the code and the message.

    The code is ``error.code``, else ``statusCode``, else ``code``, else the HTTP status, as
    a number; an error whose only number is 200 has no code.
    """
    error = payload.get("error")
    inner = error if isinstance(error, dict) else {}
    texts = (*map(inner.get, _MESSAGES), *map(payload.get, _MESSAGES), error)
    message = read_text(next((text for text in texts if text), None))
    for value in (inner.get("code"), payload.get("statusCode"), payload.get("code"), status):
        code = read_code(value)
        if code is not None and not (code == _OK and error):
            return code, message
    return None, message


def read_code(value: Any) -> int | None:
    """Read a code; None if the value cannot be one."""
    if isinstance(value, str) and value.isdecimal() and len(value) <= _MAX_DIGITS:
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _retry_after(reply: Reply) -> float | None:
    """Read ``Retry-After`` (RFC 9110, section 10.2.3) as seconds from when *reply* was received.

    A date is compared with the response's own ``Date`` if there is one: the two
    clocks may differ.
    """
    value = reply.headers.get("Retry-After")
    if value is None:
        return None
    found = re.match(_SECONDS, value)
    seconds = read_number(found[1]) if found else None
    if seconds is None:
        then, here = _read_date(value), _read_date(reply.headers.get("Date", ""))
        if then is None:
            return None
        seconds = then - (reply.received_at if here is None else here)
    return max(0.0, seconds)


def _read_date(value: str) -> float | None:
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            moment = read(value.strip())
            # HTTP dates are GMT; the asctime format (RFC 9110, section 5.6.7) does not say so.
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError, TypeError, IndexError):
            continue
    return None


def _not_an_envelope(reply: Reply) -> AireiterError:
    """Return the error for a body that is not an envelope, judged by status and first bytes."""
    status, body = reply.status, reply.body.lstrip()
    page = body[:1] == b"<"
    if status in _RATE_LIMITS:
        return RateLimitError(status, "too many requests", _retry_after(reply), None, status)
    if status in _PAGES:
        from html import unescape  # noqa: PLC0415 - rarely needed, and large

        title = re.search(_TITLE, body[:_MAX_TEXT].decode("utf-8", "replace")) if page else None
        text = unescape(title[2]).strip() if title else _excerpt(reply)
        return InvalidRequestError(status, text, _retry_after(reply), None, status)
    if status in _REDIRECTS:
        where = reply.headers.get("Location", "nowhere")
        return protocol_error(f"the response redirects to {where!r}", reply, "set base_url to it")
    message = "the response is HTML" if page else "the response is not a JSON object"
    if status in _SERVER_ERRORS:
        cause, advice = "the service or the CDN in front of it is failing", "try again later"
    elif status == _FORBIDDEN:
        cause = "the CDN may have rejected the User-Agent"
        advice = "set user_agent, and check base_url"
    elif page or status in _REJECTIONS:
        cause, advice = "base_url is probably wrong", _CHECK_BASE_URL
    else:
        return protocol_error(message, reply)
    return protocol_error(f"{message}: {cause}", reply, advice)


def protocol_error(message: str, reply: Reply, advice: str = "") -> ProtocolError:
    retry_after = _retry_after(reply)
    return ProtocolError(message, reply.status, _excerpt(reply), retry_after, advice=advice)


def _excerpt(reply: Reply) -> str:
    return reply.body[: 4 * _EXCERPT].decode("utf-8", "replace")[:_EXCERPT]


def read_text(value: Any) -> str:
    """Return *value* as text: empty for null, a short repr if not a str, truncated if long."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else _short.repr(value)
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}..."


def read_number(value: Any) -> float | None:
    if type(value) not in _NUMBERS:  # unlike isinstance, this excludes bool
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
