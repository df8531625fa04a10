"""What a FakeService can be told."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, cast

import attrs
from attrs.validators import optional

from aireiter_async.testing._answers import Envelope, RefusalForm, RetryAfterForm
from aireiter_async.testing._checks import at_least, is_number, must_be, one_of, whole
from aireiter_async.testing._faults import Fault

API_KEY = "sk-fake-0123456789abcdef"

UsedId = Literal["refuse", "return", "charge"]
Estimates = Literal[True, False, "zero"]
Price = float | Mapping[str, float] | Callable[[str, Mapping[str, Any]], float]


def _are_chances(value: object) -> bool:
    if not isinstance(value, Mapping):
        return False
    chances = cast("Mapping[object, object]", value)
    return all(isinstance(fault, Fault) and is_number(p) for fault, p in chances.items())


_PRICE = must_be(
    "a number, a mapping from the model, or a function of model and params",
    lambda value: is_number(value) or isinstance(value, Mapping) or callable(value),
)
_DURATIONS = must_be(
    "a number of seconds or a mapping from the model",
    lambda value: is_number(value) or isinstance(value, Mapping),
)
_FAULTS = must_be("a mapping from faults, such as Fault.reset(), to probabilities", _are_chances)


@attrs.define(kw_only=True, eq=False, repr=False)
class Options:
    """The arguments of `FakeService`, whose docstring describes them."""

    api_key: str | None = API_KEY
    port: int = attrs.field(default=0, validator=whole(0))
    separate_results: bool = True
    envelope: Envelope = attrs.field(default="plain", validator=one_of(Envelope))
    refusal_form: RefusalForm = attrs.field(default="seen", validator=one_of(RefusalForm))
    used_id: UsedId = attrs.field(default="refuse", validator=one_of(UsedId))
    _credits: float = attrs.field(
        default=1_000_000.0, alias="credits", validator=must_be("a number", is_number)
    )
    price: Price = attrs.field(default=1.0, validator=_PRICE)
    estimates: Estimates = attrs.field(default=True, validator=one_of(Estimates))
    query_ids: bool = True
    free_quotas: Sequence[Mapping[str, Any]] = ()
    durations: float | Mapping[str, float] = attrs.field(default=0.0, validator=_DURATIONS)
    spread: float = attrs.field(default=0.0, validator=at_least(0))
    outputs: int = attrs.field(default=1, validator=whole(1))
    visible_after: float = attrs.field(default=0.0, validator=at_least(0))
    visible_after_looks: int = attrs.field(default=0, validator=whole(0))
    max_rate: float | None = attrs.field(
        default=None,
        validator=optional(must_be("a number above 0", lambda rate: is_number(rate) and rate > 0)),
    )
    burst: int | None = attrs.field(default=None, validator=optional(whole(1)))
    retry_after: RetryAfterForm | None = attrs.field(
        default=None, validator=optional(one_of(RetryAfterForm))
    )
    faults: Mapping[Fault, float] = attrs.field(factory=dict[Fault, float], validator=_FAULTS)
    seed: int = attrs.field(default=0, validator=whole())
    clock: Callable[[], float] = attrs.field(
        default=time.monotonic, validator=must_be("a function without arguments", callable)
    )
    record: bool = True
