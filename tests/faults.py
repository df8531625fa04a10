"""The one table of what can go wrong with an exchange, for every test that needs it."""

import json
from collections.abc import Callable
from typing import Any, Final

import attrs

from aireiter_async import AireiterError, APIError, ProtocolError, RequestTimeoutError, ServerError
from aireiter_async import TransportError as Transport
from aireiter_async.testing import Fault

_MOVED: Final = {"Location": "https://elsewhere.invalid/"}
_OTHER_TASK: Final = json.dumps(
    {"statusCode": 200, "data": {"out_task_id": "other", "status": "pending"}}
)


@attrs.frozen
class Ambiguity:
    """A response, or the lack of one, that leaves open whether a submit was accepted.

    Attributes:
        make: Makes the fault; ``accepted=True``: after the service has accepted the task.
        error: What an exchange raises.
        slow: Whether only the attempt's timeout ends it.
    """

    make: Callable[..., Fault]
    error: type[AireiterError]
    slow: bool = False

    @property
    def before(self) -> Fault:
        """The fault before acceptance."""
        return self.make()

    @property
    def after(self) -> Fault:
        """The fault after acceptance."""
        return self.make(accepted=True)


def _html(status: int) -> Callable[..., Fault]:
    return lambda **options: Fault.html(status, **options)


def _reply(status: int, body: str, **headers: str) -> Callable[..., Fault]:
    return lambda **options: Fault.reply(status, body, headers=headers, **options)


def _late(**options: Any) -> Fault:
    return Fault.delay(30, **options)


AMBIGUOUS: Final[dict[str, Ambiguity]] = {
    "lost": Ambiguity(Fault.lost_response, Transport),
    "reset": Ambiguity(Fault.reset, Transport),
    "truncated": Ambiguity(Fault.truncated, Transport),
    "hang": Ambiguity(Fault.hang, RequestTimeoutError, slow=True),
    "late": Ambiguity(_late, RequestTimeoutError, slow=True),
    "broken JSON": Ambiguity(Fault.broken_json, ProtocolError),
    "HTML 200": Ambiguity(_html(200), ProtocolError),
    "HTML 408": Ambiguity(_html(408), ProtocolError),
    "HTML 502": Ambiguity(_html(502), ProtocolError),
    "500": Ambiguity(Fault.server_error, ServerError),
    "504": Ambiguity(lambda **options: Fault.server_error(504, **options), ServerError),
    "no data": Ambiguity(Fault.no_data, ProtocolError),
    "redirect": Ambiguity(_reply(307, "", **_MOVED), ProtocolError),
    "empty": Ambiguity(_reply(200, ""), ProtocolError),
    "other task": Ambiguity(_reply(200, _OTHER_TASK), ProtocolError),
    "odd code": Ambiguity(_reply(200, '{"statusCode":1001,"message":"?"}'), APIError),
}
RATE_LIMITED: Final[dict[str, Fault]] = {
    "429": Fault.too_many_requests(0),
    "429 and a date": Fault.too_many_requests(0, as_date=True),
    "429 in a 200": Fault.too_many_requests(in_envelope=True),
    "HTML 429": Fault.html(429),
}
# What a poll may meet that passes.
PASSING: Final[dict[str, Fault]] = {
    **{name: each.before for name, each in AMBIGUOUS.items() if not each.slow},
    **RATE_LIMITED,
}
