"""The envelope of an answer: the data inside it, or the error that it stands for.

The envelopes differ by page of the documentation, a refusal may travel in an
HTTP 200 with ``"ok": true``, and HTML means a wrong route or the CDN: one
function understands them all, and a table turns codes into errors.
"""

import json
import math
import reprlib
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Final, NamedTuple, NoReturn

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

_EXCERPT: Final = 200
_OK: Final = 200
_FORBIDDEN: Final = 403
_PACED: Final = frozenset({425, 429})
_REDIRECTS: Final = range(300, 400)
_SERVER_TROUBLE: Final = range(500, 600)

ERRORS: Final[Mapping[int, type[APIError]]] = {
    400: InvalidRequestError,
    401: AuthenticationError,
    402: InsufficientCreditsError,
    403: AuthenticationError,
    404: TaskNotFoundError,
    422: InvalidRequestError,
    425: RateLimitError,
    429: RateLimitError,
    433: InsufficientCreditsError,
}
# On a submit there is no task yet that could be missing: a route or a model is.
SUBMIT_ERRORS: Final = {**ERRORS, 404: InvalidRequestError}
_NOT_FOUND: Final = "task not found"
_LONGEST_CODE: Final = 9
_LONGEST_TEXT: Final = 10_000  # characters of a message: an error is shown, logged and pickled
# Deeper values could be neither pickled nor copied, more of them would take gigabytes.
_DEEPEST: Final = 200
_MOST_VALUES: Final = 1_000_000
_SHALLOW: Final = 2 * _DEEPEST  # characters in which nothing can be nested more deeply
_AROUND: Final = " \t\r\n\ufeff"  # white space in JSON, and the byte order mark


class Reply(NamedTuple):
    """One HTTP response; `received_at` is in seconds since the epoch."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    received_at: float

    def __repr__(self) -> str:
        """Show no content: a relay may have echoed the request, and tracebacks show variables."""
        return f"<Reply {self.status}, {len(self.body)} bytes>"


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _read_float(text: str) -> float | str:
    """Keep a number beyond those of floats as its text: JSON has no form for an infinity."""
    number = float(text)
    return number if math.isfinite(number) else text


_short = reprlib.Repr()
_short.maxstring = _short.maxother = _EXCERPT

_decode = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_read_float).raw_decode


def open_envelope(
    reply: Reply, *, errors: Mapping[int, type[APIError]]
) -> tuple[dict[str, Any], Any]:
    """Take the data out of the envelope, or raise what the envelope says."""
    try:
        text = reply.body.decode().strip(_AROUND)
        length = len(text)
        many = length > _SHALLOW and _many_values(text)
        payload, end = _decode(text)
        if end != length:
            raise ValueError("more follows the JSON")  # noqa: TRY301 - as the decoder would
    except (ValueError, RecursionError) as error:
        raise _no_object(reply) from error
    if not isinstance(payload, dict) or (many and _too_deep(payload)):
        raise _no_object(reply)
    if payload.get("error") or payload.get("statusCode") != _OK:  # hardly ever
        _check_code(payload, reply, errors)
    data = payload.get("data")
    if isinstance(data, list) and data:
        data = data[0]
    return payload, data


def _many_values(text: str) -> bool:
    """Tell whether a text may be nested too deeply; what has far too many values is refused."""
    opened = text.count("[") + text.count("{")
    if opened + text.count(",") > _MOST_VALUES:
        raise ValueError("too many values")
    return opened > _DEEPEST


def _too_deep(payload: dict[str, Any]) -> bool:
    level: list[Any] = [payload]
    for _ in range(_DEEPEST):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
    return bool(level)


def _check_code(
    payload: dict[str, Any],
    reply: Reply,
    errors: Mapping[int, type[APIError]],
) -> None:
    """Raise the error that the answer names, if it does name one."""
    code, message = _verdict(payload, reply.status)
    if code is None:
        raise protocol_error("the answer names an error without a code", reply)
    if code != _OK:
        kind = errors.get(code) or (ServerError if code in _SERVER_TROUBLE else APIError)
        if kind is not TaskNotFoundError and errors is ERRORS and _NOT_FOUND in message.lower():
            kind = TaskNotFoundError
        raise kind(code, message, _retry_after(reply), None, reply.status)


def _verdict(payload: dict[str, Any], status: int) -> tuple[int | None, str]:
    """Say which code an answer carries, and its message.

    ``error.code``, else ``statusCode``, else ``code``, else the HTTP status, as
    a number; an error without any number but 200 has no code.
    """
    error = payload.get("error")
    inner = error if isinstance(error, dict) else {}
    message = read_text(inner.get("message") or payload.get("message") or error or None)
    for value in (inner.get("code"), payload.get("statusCode"), payload.get("code"), status):
        code = _code(value)
        if code is not None and not (code == _OK and error):
            return code, message
    return None, ""


def _code(value: Any) -> int | None:
    if isinstance(value, str) and value.isdecimal() and len(value) <= _LONGEST_CODE:
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _retry_after(reply: Reply) -> float | None:
    """Read ``Retry-After`` (RFC 9110, section 10.2.3) as seconds from when *reply* was received.

    A date is held against the answer's own ``Date`` where there is one: the two
    clocks need not agree.
    """
    value = reply.headers.get("Retry-After")
    if value is None:
        return None
    seconds = read_number(value)
    if seconds is None:
        then, here = _read_date(value), _read_date(reply.headers.get("Date", ""))
        if then is None:
            return None
        seconds = then - (reply.received_at if here is None else here)
    return max(0.0, seconds)


def _read_date(value: str) -> float | None:
    try:
        moment = parsedate_to_datetime(value)
        # Dates of HTTP are in GMT; asctime's form (RFC 9110, section 5.6.7) does not say so.
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _no_object(reply: Reply) -> AireiterError:
    """Say why an answer is no JSON: the likely cause is in its status and its first bytes."""
    status = reply.status
    if status in _PACED:
        return RateLimitError(status, "too many requests", _retry_after(reply), None, status)
    if status in _REDIRECTS:
        what = f"the answer redirects to {reply.headers.get('Location', 'nowhere')!r}: set base_url"
    elif reply.body.lstrip()[:1] != b"<":
        what = "the answer is no JSON object"
    elif status == _FORBIDDEN:
        what = "the answer is HTML: the CDN may refuse the User-Agent, set user_agent"
    elif status in _SERVER_TROUBLE:
        what = "the answer is HTML: the service or the CDN in front of it is in trouble"
    else:
        what = "the answer is HTML: base_url or the method is likely wrong"
    return protocol_error(what, reply)


def protocol_error(what: str, reply: Reply) -> ProtocolError:
    excerpt = reply.body[: 4 * _EXCERPT].decode("utf-8", "replace")[:_EXCERPT]
    return ProtocolError(what, reply.status, excerpt, _retry_after(reply))


def read_text(value: Any) -> str:
    """Read what should be a text: nothing if it is null, shortened if it is long or no text."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else _short.repr(value)
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}..."


def read_number(value: Any) -> float | None:
    if value is None or isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
