"""
What a FakeService can be told.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import attrs
from attrs.validators import ge, gt, in_, optional

from aireiter_async.testing._answers import Envelope, RefusalForm, RetryAfterForm
from aireiter_async.testing._faults import Fault

API_KEY = "sk-fake-0123456789abcdef"

UsedId = Literal["refuse", "return", "charge"]
Price = float | Mapping[str, float] | Callable[[str, Mapping[str, Any]], float]


@attrs.define(kw_only=True, eq=False, repr=False)
class Options:
    """
    The arguments of `FakeService`, whose docstring describes them.
    """

    api_key: str | None = API_KEY
    port: int = 0
    separate_results: bool = True
    envelope: Envelope = attrs.field(default="plain", validator=in_(get_args(Envelope)))
    refusal_form: RefusalForm = attrs.field(default="seen", validator=in_(get_args(RefusalForm)))
    used_id: UsedId = attrs.field(default="refuse", validator=in_(get_args(UsedId)))
    _credits: float = attrs.field(default=1_000_000.0, alias="credits")
    price: Price = 1.0
    estimates: bool = True
    free_quotas: Sequence[Mapping[str, Any]] = ()
    durations: float | Mapping[str, float] = 0.0
    spread: float = attrs.field(default=0.0, validator=ge(0))
    outputs: int = attrs.field(default=1, validator=ge(1))
    visible_after: float = attrs.field(default=0.0, validator=ge(0))
    visible_after_looks: int = attrs.field(default=0, validator=ge(0))
    max_rate: float | None = attrs.field(default=None, validator=optional(gt(0)))
    burst: int | None = attrs.field(default=None, validator=optional(ge(1)))
    retry_after: RetryAfterForm | None = attrs.field(
        default=None, validator=optional(in_(get_args(RetryAfterForm)))
    )
    faults: Mapping[Fault, float] = attrs.field(factory=dict[Fault, float])
    seed: int = 0
    clock: Callable[[], float] = time.monotonic
    record: bool = True
