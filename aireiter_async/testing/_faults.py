"""Faults between client and service, and the plan of when they occur."""

import random
from collections import deque
from collections.abc import Mapping
from typing import Any, Literal, Self, get_args

import attrs
from attrs.validators import and_, ge, in_, instance_of, optional

from aireiter_async.testing import _replies
from aireiter_async.testing._replies import Reply, RetryAfterForm, StatusForm

Endpoint = Literal["submit", "query", "balance", "result"]
ENDPOINTS: tuple[Endpoint, ...] = get_args(Endpoint)

_Kind = Literal[
    "pass", "reply", "close", "reset", "hang", "delay", "drip", "truncate",
    "task_status", "failed", "too_many", "redirect",
]  # fmt: skip

_SECONDS: Any = and_(instance_of((int, float)), ge(0))

# The service handles the request; only its reply changes.
_PASSING = frozenset({"pass", "delay", "drip", "task_status", "failed"})
_RANDOM: tuple[Endpoint, ...] = ("submit", "query", "balance")
# Kinds that only occur on some endpoints: (at random, in a script).
_RESTRICTED: dict[str, tuple[tuple[Endpoint, ...], tuple[Endpoint, ...]]] = {
    "failed": (("submit",), ("submit", "query")),
    "task_status": (("query",), ("submit", "query")),
}


def _check_endpoint(name: str) -> None:
    if name not in ENDPOINTS:
        raise ValueError(f"endpoint must be one of {', '.join(ENDPOINTS)}, got {name!r}")


@attrs.frozen
class Fault:
    """A fault of one request, created by one of the named constructors.

    It can be a key of ``FakeService(faults={...})``. Unless limited by `on`, a random fault may
    occur on submit, query and balance, but not on result files.

    Args:
        kind: The kind of fault.
        accepted: For a submit, whether the service accepts the task, and charges for it, before
            the fault occurs.
        seconds: How long a delay or a drip takes, in real time.
        http_status: The status of a custom reply.
        headers: The headers of a custom reply.
        body: The body of a custom reply.
        text: A task's status, an error's code or a location.
        message: An error's message.
        retry_after: The ``Retry-After`` of a 429, in seconds.
        retry_form: Whether to send it in seconds or as a date.
        form: Whether the HTTP status of a 429 is 429 as well.
        only: The only endpoint on which it occurs.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: An argument is out of range.
    """

    kind: _Kind = attrs.field(validator=in_(get_args(_Kind)))
    accepted: bool = False
    seconds: float = attrs.field(default=0.0, validator=_SECONDS)
    http_status: int = attrs.field(default=200, validator=and_(instance_of(int), ge(200)))
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = attrs.field(default=b"", validator=instance_of(bytes))
    text: str = ""
    message: str = ""
    retry_after: float | None = attrs.field(default=None, validator=optional(_SECONDS))
    retry_form: RetryAfterForm = "seconds"
    form: StatusForm = "http"
    only: Endpoint | None = None

    def __repr__(self) -> str:
        shown = attrs.asdict(self, filter=lambda field, value: value != field.default)
        return f"Fault({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    @classmethod
    def ok(cls) -> Self:
        """Let one request pass: a placeholder in a script."""
        return cls("pass")

    @classmethod
    def lost_response(cls, *, accepted: bool = False) -> Self:
        """Close the connection cleanly, without a reply."""
        return cls("close", accepted)

    @classmethod
    def reset(cls, *, accepted: bool = False) -> Self:
        """Reset the connection (TCP RST) instead of replying."""
        return cls("reset", accepted)

    @classmethod
    def hang(cls, *, accepted: bool = False) -> Self:
        """Never reply, until the client disconnects or the service closes."""
        return cls("hang", accepted)

    @classmethod
    def delay(cls, seconds: float, *, accepted: bool = False) -> Self:
        """Reply in full, but *seconds* of real time late.

        Without *accepted*, the request is handled only after the delay, so that a client that has
        disconnected by then has submitted nothing.
        """
        return cls("delay", accepted, seconds)

    @classmethod
    def drip(cls, seconds: float) -> Self:
        """Send the body in small pieces, over *seconds* of real time."""
        return cls("drip", seconds=seconds)

    @classmethod
    def truncated(cls, *, accepted: bool = False) -> Self:
        """Announce the whole body in Content-Length, send half of it and close."""
        return cls("truncate", accepted)

    @classmethod
    def broken_json(cls, *, accepted: bool = False) -> Self:
        """Reply with HTTP 200 and a complete body that is invalid JSON."""
        return cls._reply(Reply(200, b'{"statusCode":200,"message":"","data":{'), accepted)

    @classmethod
    def html(cls, status: int = 200, *, accepted: bool = False) -> Self:
        """Reply with an HTML page: the marketing site for 200, the CDN's page for 403 or 502."""
        return cls._reply(_replies.page(status), accepted)

    @classmethod
    def too_many_requests(
        cls,
        retry_after: float | None = None,
        *,
        as_date: bool = False,
        in_envelope: bool = False,
    ) -> Self:
        """Reject with 429.

        Args:
            retry_after: Seconds; None sends no ``Retry-After``.
            as_date: Whether to send it as an HTTP date, counted from the reply.
            in_envelope: Whether to reply with HTTP 200 and the code in the body only.
        """
        return cls(
            "too_many",
            retry_after=retry_after,
            retry_form="date" if as_date else "seconds",
            form="envelope" if in_envelope else "http",
        )

    @classmethod
    def no_credits(cls, *, in_envelope: bool = True) -> Self:
        """Reject for lack of credits as seen live: 433 in an HTTP 200 with ``ok: true``.

        Without *in_envelope*, as documented: HTTP 433.
        """
        form: StatusForm = "envelope" if in_envelope else "http"
        return cls._reply(_replies.rejection(_replies.NO_CREDITS, form))

    @classmethod
    def payment_required(cls) -> Self:
        """Reject for lack of credits as documented for gpt_image_2_official: HTTP 402."""
        return cls._reply(_replies.rejection(_replies.PAYMENT_REQUIRED, "http"))

    @classmethod
    def bad_request(cls, message: str, *, in_envelope: bool = True, ok: bool = False) -> Self:
        """Reject with 400 and *message*, in an HTTP 200 as seen live.

        With *ok*, the body still has ``ok: true``, which has been seen as well.
        """
        document = {"statusCode": 400, "message": message, "ok": ok}
        return cls._reply(_replies.json_reply(document, 200 if in_envelope else 400))

    @classmethod
    def not_found(cls) -> Self:
        """Reply "api task not found" as seen on query: 400 in an HTTP 200 with ``ok: true``."""
        return cls._reply(_replies.rejection(_replies.UNKNOWN_TASK, "envelope"))

    @classmethod
    def server_error(cls, status: int = 500, *, accepted: bool = False) -> Self:
        """Reply with the JSON envelope of a 5xx."""
        document = {"error": {"code": status, "message": "Internal server error"}}
        return cls._reply(_replies.json_reply(document, status), accepted)

    @classmethod
    def no_data(cls, *, accepted: bool = False) -> Self:
        """Reply with success and ``data: null``, which leaves acceptance open."""
        return cls._reply(_replies.json_reply({"statusCode": 200, "data": None}), accepted)

    @classmethod
    def redirect(cls, location: str | None = None) -> Self:
        """Redirect with 307 to *location*; None: the same path on the results' host."""
        return cls("redirect", text=location or "")

    @classmethod
    def task_status(cls, status: str) -> Self:
        """Reply with *status*, known or not, instead of the task's own."""
        return cls("task_status", text=status)

    @classmethod
    def failed(cls, code: str = "TIMEOUT", message: str = "upstream timed out") -> Self:
        """Make the task fail with this error, and refund it: on submit at its end, on query now."""
        return cls("failed", text=code, message=message)

    @classmethod
    def reply(
        cls,
        status: int = 200,
        body: bytes | str = b"",
        *,
        headers: Mapping[str, str] | None = None,
        accepted: bool = False,
    ) -> Self:
        """Reply with exactly this; headers default to those of JSON."""
        raw = body.encode() if isinstance(body, str) else body
        chosen = _replies.JSON_HEADERS if headers is None else headers
        return cls._reply(Reply(status, raw, chosen), accepted)

    @classmethod
    def _reply(cls, reply: Reply, accepted: bool = False) -> Self:  # noqa: FBT001, FBT002 - private
        return cls(
            "reply",
            accepted,
            http_status=reply.status,
            headers=tuple(reply.headers.items()),
            body=reply.body,
        )

    def on(self, endpoint: Endpoint) -> Self:
        """Limit the fault to *endpoint*: submit, query, balance or result.

        Raises:
            ValueError: The fault cannot occur there, or there is no such endpoint.
        """
        self.check(endpoint)
        return attrs.evolve(self, only=endpoint)

    def check(self, endpoint: Endpoint) -> None:
        """Raise ValueError unless the fault can occur on *endpoint*."""
        _check_endpoint(endpoint)
        possible = _RESTRICTED[self.kind][1] if self.kind in _RESTRICTED else ENDPOINTS
        if endpoint not in possible or self.only not in {None, endpoint}:
            raise ValueError(f"{self.kind!r} cannot occur on {endpoint!r}")

    def may_occur_at_random(self, endpoint: Endpoint) -> bool:
        """Return whether the fault may occur at random on *endpoint*."""
        if self.only is not None:
            return self.only == endpoint
        return endpoint in (_RESTRICTED[self.kind][0] if self.kind in _RESTRICTED else _RANDOM)

    def needs_reply(self, endpoint: Endpoint) -> bool:
        """Return whether the service handles the request despite the fault."""
        if self.accepted or self.kind in _PASSING:
            return True
        # Only a submit can be accepted; elsewhere, the real reply is truncated.
        return self.kind == "truncate" and endpoint != "submit"


class FaultPlan:
    """Chooses the next fault: from the scripts first, in order, then at random."""

    def __init__(self, chances: Mapping[Fault, float], seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - repeatable, not for security
        self._scripts: dict[Endpoint, deque[Fault]] = {name: deque() for name in ENDPOINTS}
        self._chances: dict[Endpoint, list[tuple[Fault, float]]] = {}
        for endpoint in ENDPOINTS:
            rows = [
                (fault, p) for fault, p in chances.items() if fault.may_occur_at_random(endpoint)
            ]
            if any(p < 0 for _, p in rows) or sum(p for _, p in rows) > 1:
                raise ValueError(f"the probabilities of faults on {endpoint} must be in 0 to 1")
            self._chances[endpoint] = rows

    def script(self, endpoint: Endpoint, faults: tuple[object, ...]) -> None:
        """Append *faults* to the script of *endpoint*, all or none."""
        _check_endpoint(endpoint)
        checked: list[Fault] = []
        for fault in faults:
            if not isinstance(fault, Fault):
                raise TypeError(
                    f"a fault must be made by a call such as Fault.reset(), got {fault!r}"
                )
            fault.check(endpoint)
            checked.append(fault)
        self._scripts[endpoint].extend(checked)

    def next(self, endpoint: Endpoint) -> Fault | None:
        """Return the fault for the request that has just arrived, if any."""
        if script := self._scripts[endpoint]:
            return script.popleft()
        if rows := self._chances[endpoint]:
            point = self._random.random()
            for fault, probability in rows:
                if point < probability:
                    return fault
                point -= probability
        return None

    def remaining(self, endpoint: Endpoint) -> int:
        """Return the number of scripted faults that remain on *endpoint*."""
        _check_endpoint(endpoint)
        return len(self._scripts[endpoint])
