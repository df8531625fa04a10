"""The options of FakeService."""

import time
from collections.abc import Callable, Mapping, Sequence
from ssl import SSLContext
from typing import Any, Literal, cast, get_args

import attrs
from attrs.validators import (
    and_,
    deep_iterable,
    deep_mapping,
    ge,
    gt,
    in_,
    instance_of,
    is_callable,
    min_len,
    optional,
)

from aireiter_async.testing._faults import Fault
from aireiter_async.testing._replies import Envelope, RetryAfterForm, StatusForm

API_KEY = "sk-fake-0123456789abcdef"

UsedId = Literal["reject", "return", "charge"]
Estimates = Literal[True, False, "zero"]
Callbacks = Literal["once", "early", "late", "twice", "never"]
Price = float | Mapping[str, float] | Callable[[str, Mapping[str, Any]], float]

# Any: attrs types these more narrowly than they check.
_TEXT: Any = optional(instance_of(str))
_NUMBER: Any = instance_of((int, float))
_NOT_NEGATIVE: Any = and_(_NUMBER, ge(0))
_COUNT: Any = and_(instance_of(int), ge(1))
_PER_MODEL: Any = instance_of(cast("Any", (int, float, Mapping)))
_PRICE: Any = instance_of(cast("Any", (int, float, Mapping, Callable)))
_CHANCES: Any = deep_mapping(instance_of(Fault), _NUMBER, cast("Any", instance_of(Mapping)))
_KNOWN: Any = in_(get_args(Callbacks))
_CALLBACKS: Any = deep_iterable(_KNOWN, cast("Any", min_len(1)))


def _list(value: Any) -> Any:
    return (value,) if isinstance(value, str) else tuple(value)


@attrs.define(kw_only=True, eq=False, repr=False)
class Options:
    """The arguments of `FakeService`, whose docstring describes them."""

    api_key: str | None = attrs.field(default=API_KEY, validator=_TEXT)
    port: int = attrs.field(default=0, validator=and_(instance_of(int), ge(0)))
    separate_results: bool = True
    results_ssl: SSLContext | None = attrs.field(
        default=None, validator=optional(instance_of(SSLContext))
    )
    envelope: Envelope = attrs.field(default="ok", validator=in_(get_args(Envelope)))
    rejection_form: StatusForm = attrs.field(default="live", validator=in_(get_args(StatusForm)))
    used_id: UsedId = attrs.field(default="reject", validator=in_(get_args(UsedId)))
    check_models: bool = False
    _credits: float = attrs.field(default=1_000_000.0, alias="credits", validator=_NUMBER)
    price: Price = attrs.field(default=1.0, validator=_PRICE)
    estimates: Estimates = attrs.field(default=True, validator=in_(get_args(Estimates)))
    query_ids: bool = True
    free_quotas: Sequence[Mapping[str, Any]] = ()
    durations: float | Mapping[str, float] = attrs.field(default=0.0, validator=_PER_MODEL)
    spread: float = attrs.field(default=0.0, validator=_NOT_NEGATIVE)
    outputs: int = attrs.field(default=1, validator=_COUNT)
    visible_after: float = attrs.field(default=0.0, validator=_NOT_NEGATIVE)
    visible_after_polls: int = attrs.field(default=0, validator=and_(instance_of(int), ge(0)))
    max_rate: float | None = attrs.field(default=None, validator=optional(and_(_NUMBER, gt(0))))
    burst: int | None = attrs.field(default=None, validator=optional(_COUNT))
    retry_after: RetryAfterForm | None = attrs.field(
        default=None, validator=optional(in_(get_args(RetryAfterForm)))
    )
    callbacks: Sequence[Callbacks] = attrs.field(
        default=("once",),
        converter=_list,
        validator=_CALLBACKS,
    )
    callback_delay: float = attrs.field(default=1.0, validator=_NOT_NEGATIVE)
    faults: Mapping[Fault, float] = attrs.field(factory=dict[Fault, float], validator=_CHANCES)
    seed: int = attrs.field(default=0, validator=instance_of(int))
    clock: Callable[[], float] = attrs.field(default=time.monotonic, validator=is_callable())
    record: bool = True
