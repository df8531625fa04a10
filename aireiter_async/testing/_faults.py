"""What can go wrong on the way, as values."""

from collections.abc import Mapping
from typing import Literal, Self, get_args

import attrs
from attrs.validators import optional

from aireiter_async.testing import _answers
from aireiter_async.testing._answers import Answer, RefusalForm, RetryAfterForm
from aireiter_async.testing._checks import at_least, must_be, one_of, whole

Endpoint = Literal["submit", "query", "balance", "result"]
ENDPOINTS: tuple[Endpoint, ...] = get_args(Endpoint)

_Kind = Literal[
    "pass", "reply", "close", "reset", "hang", "delay", "drip", "truncate",
    "task_status", "failed", "too_many", "redirect",
]  # fmt: skip

# These leave the request to the service and change only how or what it answers.
_PASSING = frozenset({"pass", "delay", "drip", "task_status", "failed"})
_BY_CHANCE: tuple[Endpoint, ...] = ("submit", "query", "balance")
# Where a kind has no meaning anywhere else: (by chance on, in a script on).
_NATURAL: dict[str, tuple[tuple[Endpoint, ...], tuple[Endpoint, ...]]] = {
    "failed": (("submit",), ("submit", "query")),
    "task_status": (("query",), ("submit", "query")),
}


def check_endpoint(name: str) -> None:
    """Raise ValueError unless an endpoint has this *name*."""
    if name not in ENDPOINTS:
        raise ValueError(f"an endpoint is one of {', '.join(ENDPOINTS)}, not {name!r}")


@attrs.frozen
class Fault:
    """One thing that goes wrong with one request; made by its named constructors.

    A value is hashable and can be a key of ``FakeService(faults={...})``. Unless
    limited by `on`, a fault drawn by chance may strike submit, query and
    balance, not result files.

    Args:
        kind: What happens, in one word.
        accepted: For a submit, whether the service takes the task, and charges
            for it, before the fault strikes.
        seconds: How long a wait or a drip takes, in real time.
        http_status: The status of a made up answer.
        headers: Its headers.
        body: Its bytes.
        text: A status word, an error's code or a location.
        message: An error's message.
        retry_after: Seconds that a 429 asks for.
        retry_form: Whether it does so in seconds or as a date.
        form: Whether HTTP carries a 429 too.
        only: The one endpoint it is limited to.

    Raises:
        ValueError: Something cannot be so.
    """

    kind: _Kind = attrs.field(validator=one_of(_Kind))
    accepted: bool = False
    seconds: float = attrs.field(default=0.0, validator=at_least(0))
    http_status: int = attrs.field(default=200, validator=whole(200))
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = attrs.field(
        default=b"", validator=must_be("bytes or a string", lambda value: isinstance(value, bytes))
    )
    text: str = ""
    message: str = ""
    retry_after: float | None = attrs.field(default=None, validator=optional(at_least(0)))
    retry_form: RetryAfterForm = "seconds"
    form: RefusalForm = "http"
    only: Endpoint | None = None

    def __repr__(self) -> str:
        """Show what is not as usual."""
        shown = attrs.asdict(self, filter=lambda field, value: value != field.default)
        return f"Fault({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    @classmethod
    def ok(cls) -> Self:
        """Let one request pass: a placeholder in a script."""
        return cls("pass")

    @classmethod
    def lost_answer(cls, *, accepted: bool = False) -> Self:
        """Close the connection in good order without an answer."""
        return cls("close", accepted)

    @classmethod
    def reset(cls, *, accepted: bool = False) -> Self:
        """Reset the connection (TCP RST) instead of answering."""
        return cls("reset", accepted)

    @classmethod
    def hang(cls, *, accepted: bool = False) -> Self:
        """Never answer; ends when the client goes or the service closes."""
        return cls("hang", accepted)

    @classmethod
    def delay(cls, seconds: float, *, accepted: bool = False) -> Self:
        """Answer in full, but *seconds* of real time late.

        Without *accepted* the request is looked at only after the wait, so that
        a client that has gone by then has submitted nothing.
        """
        return cls("delay", accepted, seconds)

    @classmethod
    def drip(cls, seconds: float) -> Self:
        """Send the body in small pieces over *seconds* of real time."""
        return cls("drip", seconds=seconds)

    @classmethod
    def truncated(cls, *, accepted: bool = False) -> Self:
        """Promise the whole body in Content-Length, send half of it and close."""
        return cls("truncate", accepted)

    @classmethod
    def broken_json(cls, *, accepted: bool = False) -> Self:
        """Answer HTTP 200 with a complete body that is not JSON, though it says so."""
        return cls._reply(Answer(200, b'{"statusCode":200,"message":"","data":{'), accepted)

    @classmethod
    def html(cls, status: int = 200, *, accepted: bool = False) -> Self:
        """Answer with a page: 200 the marketing site, 403 or 502 the CDN."""
        return cls._reply(_answers.page(status), accepted)

    @classmethod
    def too_many_requests(
        cls,
        retry_after: float | None = None,
        *,
        as_date: bool = False,
        in_envelope: bool = False,
    ) -> Self:
        """Refuse with 429.

        Args:
            retry_after: Seconds to ask for; None sends no ``Retry-After``.
            as_date: Send it as an HTTP date, counted from the moment of the answer.
            in_envelope: Answer HTTP 200 with the code in the body only.
        """
        return cls(
            "too_many",
            retry_after=retry_after,
            retry_form="date" if as_date else "seconds",
            form="envelope" if in_envelope else "http",
        )

    @classmethod
    def no_credits(cls, *, in_envelope: bool = True) -> Self:
        """Refuse for want of credits: as seen, 433 in a 200 that says ``ok: true``.

        Without *in_envelope* it is the documented HTTP 433.
        """
        form: RefusalForm = "envelope" if in_envelope else "http"
        return cls._reply(_answers.refusal(_answers.NO_CREDITS, form))

    @classmethod
    def payment_required(cls) -> Self:
        """Refuse for want of credits as the gpt_image_2_official page has it: HTTP 402."""
        return cls._reply(_answers.refusal(_answers.PAYMENT_REQUIRED, "http"))

    @classmethod
    def bad_request(cls, message: str, *, in_envelope: bool = True, ok: bool = False) -> Self:
        """Refuse with 400 and *message*: as seen, in an HTTP 200.

        With *ok* the body says ``ok: true`` all the same, which was seen as well.
        """
        document = {"statusCode": 400, "message": message, "ok": ok}
        return cls._reply(_answers.json_answer(document, 200 if in_envelope else 400))

    @classmethod
    def not_found(cls) -> Self:
        """Answer "api task not found" as seen on query: 400 in a 200, ``ok: true``."""
        return cls._reply(_answers.refusal(_answers.UNKNOWN_TASK, "envelope"))

    @classmethod
    def server_error(cls, status: int = 500, *, accepted: bool = False) -> Self:
        """Answer the JSON envelope of a 5xx."""
        document = {"error": {"code": status, "message": "Internal server error"}}
        return cls._reply(_answers.json_answer(document, status), accepted)

    @classmethod
    def no_data(cls, *, accepted: bool = False) -> Self:
        """Answer success with ``data: null``, which says nothing about acceptance."""
        return cls._reply(_answers.json_answer({"statusCode": 200, "data": None}), accepted)

    @classmethod
    def redirect(cls, location: str | None = None) -> Self:
        """Answer 307 to *location*; None is the same path on the results' host."""
        return cls("redirect", text=location or "")

    @classmethod
    def task_status(cls, status: str) -> Self:
        """Answer with *status* in place of the task's own, known word or not."""
        return cls("task_status", text=status)

    @classmethod
    def failed(cls, code: str = "TIMEOUT", message: str = "upstream timed out") -> Self:
        """Let the task fail with this error and refund it.

        On submit it fails when its time is up; on query at once.
        """
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
        """Answer exactly this; headers default to those of JSON."""
        raw = body.encode() if isinstance(body, str) else body
        chosen = _answers.JSON_HEADERS if headers is None else headers
        return cls._reply(Answer(status, raw, chosen), accepted)

    @classmethod
    def _reply(cls, answer: Answer, accepted: bool = False) -> Self:  # noqa: FBT001, FBT002 - private
        return cls(
            "reply",
            accepted,
            http_status=answer.status,
            headers=tuple(answer.headers.items()),
            body=answer.body,
        )

    def on(self, endpoint: Endpoint) -> Self:
        """Limit the fault to *endpoint*: submit, query, balance or result.

        Raises:
            ValueError: The fault means nothing there, or there is no such endpoint.
        """
        self.check(endpoint)
        return attrs.evolve(self, only=endpoint)

    def check(self, endpoint: Endpoint) -> None:
        """Raise ValueError unless there is such an *endpoint*, and the fault has a meaning on it."""
        check_endpoint(endpoint)
        possible = _NATURAL[self.kind][1] if self.kind in _NATURAL else ENDPOINTS
        if endpoint not in possible or self.only not in {None, endpoint}:
            raise ValueError(f"{self.kind!r} cannot strike {endpoint!r}")

    def by_chance_on(self, endpoint: Endpoint) -> bool:
        """Return whether the fault may be drawn for *endpoint*."""
        if self.only is not None:
            return self.only == endpoint
        return endpoint in (_NATURAL[self.kind][0] if self.kind in _NATURAL else _BY_CHANCE)

    def needs_answer(self, endpoint: Endpoint) -> bool:
        """Return whether the service handles the request in spite of the fault."""
        if self.accepted or self.kind in _PASSING:
            return True
        # Only a submit has an "accepted"; elsewhere it is the real answer that is cut.
        return self.kind == "truncate" and endpoint != "submit"
