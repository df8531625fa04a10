"""What the service returns, as frozen values, no I/O.

What is unknown or malformed in a reply never breaks a value, and the reply
itself is kept in ``raw``.
"""

import functools
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from attrs import field, frozen
from cattrs import Converter
from cattrs.gen import make_dict_unstructure_fn, override

OutputKind = Literal["image", "video", "audio", "text", "file"]


class TaskStatus(StrEnum):
    """The status of a task.

    ``PENDING`` is queued; ``UNKNOWN`` is a word this release does not know,
    or a task that has not been seen yet: the task counts as running.
    """

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    UNKNOWN = "unknown"


@frozen
class Output:
    """One result of a task.

    Attributes:
        url: Where the medium is, on another host than the API's; None for
            lyrics. How long it stays there is not documented: download it.
        kind: ``image``, ``video``, ``audio``, ``text`` or ``file`` (an archive,
            or a medium of unknown kind).
        cover_url: The cover image of a song.
        title: The title, of songs and lyrics.
        text: The lyrics.
        metadata: What the service says about the output, such as a layer's
            ``bounding_box`` in pixels.
        out_task_id: The ID of its task, None where the output was made by hand.
        number: Its place among the task's outputs, from 1.
        raw: The output as the service sent it.
    """

    url: str | None = None
    kind: OutputKind = "file"
    cover_url: str | None = None
    title: str | None = None
    text: str | None = None
    metadata: Mapping[str, Any] = field(factory=dict[str, Any], hash=False)
    out_task_id: str | None = None
    number: int = 1
    raw: Any = field(default=None, eq=False, repr=False)


@frozen
class ErrorDetail:
    """Why the service says that a task failed.

    Attributes:
        code: The service's word, such as ``TIMEOUT`` (its upstream's; a new
            task with the same parameters has succeeded later).
        message: The service's text, possibly in two languages.
    """

    code: str
    message: str


@frozen
class Task:
    """A task as the service last described it.

    Attributes:
        out_task_id: The ID under which it was submitted.
        status: Its status.
        model: The model's name, None where only the ID was known.
        estimated_credits: What the service expects to charge; None where the
            reply did not say, which is not zero.
        credits_used: What it charged, once the task has ended.
        created_at: When the service accepted it, by the service's clock.
        completed_at: When it ended, by the service's clock.
        outputs: The results, in the service's order.
        error: Why it failed.
        raw: The whole reply, parsed.
    """

    out_task_id: str
    status: TaskStatus
    model: str | None = None
    estimated_credits: float | None = None
    credits_used: float | None = None
    created_at: datetime | None = None
    completed_at: datetime | None = None
    outputs: tuple[Output, ...] = ()
    error: ErrorDetail | None = None
    raw: Any = field(default=None, eq=False, repr=False)

    @property
    def done(self) -> bool:
        """Whether the task has ended, either way."""
        return self.status is TaskStatus.COMPLETED or self.status is TaskStatus.FAILED

    @property
    def succeeded(self) -> bool:
        """Whether the task has completed."""
        return self.status is TaskStatus.COMPLETED

    @property
    def failed(self) -> bool:
        """Whether the task has failed."""
        return self.status is TaskStatus.FAILED

    @property
    def url(self) -> str | None:
        """The URL of the first result; None where there is none."""
        return next(iter(self.urls), None)

    @property
    def urls(self) -> tuple[str, ...]:
        """The URLs of all results, in the service's order."""
        return tuple(output.url for output in self.outputs if output.url is not None)

    def to_dict(self) -> dict[str, Any]:
        """Return all but ``raw`` as JSON values: times in ISO 8601, tuples as lists."""
        document: dict[str, Any] = _converter().unstructure(self)
        return document


@functools.cache
def _converter() -> Converter:
    """Build the converter on first use: that costs more than a thousand conversions."""
    converter = Converter(unstruct_collection_overrides={tuple: list})
    converter.register_unstructure_hook(datetime, datetime.isoformat)
    for cls in (Output, Task):  # a task's hook is built with that of its outputs
        without_raw = make_dict_unstructure_fn(cls, converter, raw=override(omit=True))
        converter.register_unstructure_hook(cls, without_raw)
    return converter


@frozen
class FreeQuota:
    """A number of tasks that one model runs without charge.

    Attributes:
        model_key: The service's name of the quota's model.
        total: Tasks granted.
        used: Tasks used up.
        remaining: Tasks left.
    """

    model_key: str
    total: float | None = None
    used: float | None = None
    remaining: float | None = None


@frozen
class Balance:
    """What the account has left.

    Attributes:
        credits: Credits, possibly fractional.
        free_quotas: Tasks that cost nothing, by model.
        raw: The whole reply, parsed.
    """

    credits: float
    free_quotas: tuple[FreeQuota, ...] = ()
    raw: Any = field(default=None, eq=False, repr=False)


@frozen
class ClientStats:
    """What a client and its views have done so far: a snapshot.

    Attributes:
        requests: HTTP exchanges begun, downloads included. Where a connection is
            lost before the response to a GET, aiohttp repeats it once: that is one exchange.
        retries: Exchanges that were begun because an earlier one of the same
            call had failed.
        submitted: Tasks that the service accepted.
        settled: Submits whose response was lost and whose task was found by querying.
        completed: Tasks that `wait` saw complete.
        failed: Tasks that `wait` saw fail.
        rate_limited: Rejections with 429 or 425.
        in_flight: Exchanges in progress.
        waiting: Callers in the queue for a slot or for the rate.
        rate: Requests per second that the throttle allows now; None: no limit.
        credits_estimated: Sum of the estimates of accepted tasks, in credits.
        credits_unknown: Accepted tasks whose reply gave no estimate.
        credits_used: Sum of the charges of the tasks that `wait` saw end.
        estimated_by_model: ``credits_estimated`` by the model's name.
        used_by_model: ``credits_used`` by the model's name.
        bytes_downloaded: Bytes of results written to disk.
    """

    requests: int = 0
    retries: int = 0
    submitted: int = 0
    settled: int = 0
    completed: int = 0
    failed: int = 0
    rate_limited: int = 0
    in_flight: int = 0
    waiting: int = 0
    rate: float | None = None
    credits_estimated: float = 0.0
    credits_unknown: int = 0
    credits_used: float = 0.0
    bytes_downloaded: int = 0
    estimated_by_model: Mapping[str, float] = field(factory=dict[str, float], hash=False)
    used_by_model: Mapping[str, float] = field(factory=dict[str, float], hash=False)
