"""Frozen values that the service returns; no I/O.

Unknown or malformed fields of a reply never break a value, and the whole reply is
kept in ``raw``.
"""

import functools
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from attrs import field, frozen
from cattrs import Converter
from cattrs.gen import make_dict_unstructure_fn, override

OutputKind = Literal["image", "video", "audio", "text", "file"]

_LONGEST_REPR = 2_000  # characters: results within their URLs have millions
_LONGEST_OUTPUTS = 50_000


class TaskStatus(StrEnum):
    """The status of a task.

    ``PENDING`` means queued. ``UNKNOWN`` is a word that this release does not know,
    or a task that has not been queried yet; it counts as running.
    """

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    UNKNOWN = "unknown"


class LedgerState(StrEnum):
    """The state of a task in a ledger, as in its column ``state``."""

    INTENDED = "intended"
    SUBMITTED = "submitted"
    COMPLETED = "completed"
    FAILED = "failed"
    REJECTED = "rejected"
    UNCERTAIN = "uncertain"
    DOWNLOADED = "downloaded"
    LOST = "lost"


def _short_repr(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_REPR else f"<{text[:100]}... {len(text):,} characters>"


def _outputs_repr(outputs: Sequence[object]) -> str:
    text = repr(outputs)
    return text if len(text) <= _LONGEST_OUTPUTS else f"<{len(outputs)} outputs>"


@frozen
class Output:
    """One result of a task.

    Attributes:
        url: URL of the medium, on a different host than the API; None for
            lyrics. Its lifetime is undocumented: download it.
        kind: ``image``, ``video``, ``audio``, ``text`` or ``file`` (an archive,
            or a medium of unknown kind).
        cover_url: The cover image of a song.
        title: The title of a song or lyrics.
        text: The lyrics.
        metadata: Further facts about the output, such as a layer's
            ``bounding_box`` in pixels.
        out_task_id: The task's ID, None if constructed by hand.
        number: Position among the task's outputs, from 1.
        raw: The output as the service sent it.
    """

    url: str | None = field(default=None, repr=_short_repr)
    kind: OutputKind = "file"
    cover_url: str | None = field(default=None, repr=_short_repr)
    title: str | None = field(default=None, repr=_short_repr)
    text: str | None = field(default=None, repr=_short_repr)
    metadata: Mapping[str, Any] = field(factory=dict[str, Any], hash=False, repr=_short_repr)
    out_task_id: str | None = None
    number: int = 1
    raw: Any = field(default=None, eq=False, repr=False)


@frozen
class ErrorDetail:
    """The service's reason for a failed task.

    Attributes:
        code: The service's code, such as ``TIMEOUT`` (an upstream timeout; the
            same parameters may succeed in a new task).
        message: The service's text, possibly in two languages.
    """

    code: str = field(repr=_short_repr)
    message: str = field(repr=_short_repr)


@frozen
class Task:
    """A task as the service last described it.

    Attributes:
        out_task_id: The ID under which it was submitted.
        status: Its status.
        model: The model's name, None if only the ID was known.
        estimated_credits: The expected charge in credits; None if the reply had
            no estimate, which does not mean zero.
        credits_used: The charge in credits, once the task has ended.
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
    outputs: tuple[Output, ...] = field(default=(), repr=_outputs_repr)
    error: ErrorDetail | None = None
    raw: Any = field(default=None, eq=False, repr=False)

    @property
    def done(self) -> bool:
        """Whether the task has ended, successfully or not."""
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
        """The URL of the first result, or None."""
        return next(iter(self.urls), None)

    @property
    def urls(self) -> tuple[str, ...]:
        """The URLs of all results, in the service's order."""
        return tuple(output.url for output in self.outputs if output.url is not None)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but ``raw`` as JSON values: times in ISO 8601, tuples as lists."""
        document: dict[str, Any] = _converter().unstructure(self)
        return document

    def _repr_html_(self) -> str:
        """Show pictures and players in a notebook."""
        from aireiter_async._html import task_html  # noqa: PLC0415 - for notebooks only

        return task_html(self)


@functools.cache
def _converter() -> Converter:
    """Build the converter on first use: it costs more than a thousand conversions."""
    converter = Converter(unstruct_collection_overrides={tuple: list})
    converter.register_unstructure_hook(datetime, datetime.isoformat)
    for cls in (Output, Task):  # a task's hook is built with that of its outputs
        without_raw = make_dict_unstructure_fn(cls, converter, raw=override(omit=True))
        converter.register_unstructure_hook(cls, without_raw)
    return converter


@frozen
class FreeQuota:
    """A model's allowance of free tasks.

    Attributes:
        model_key: The service's name for the model.
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
    """The account's remaining credits and free tasks.

    Attributes:
        credits: Credits, possibly fractional.
        free_quotas: Free tasks by model.
        raw: The whole reply, parsed.
    """

    credits: float
    free_quotas: tuple[FreeQuota, ...] = ()
    raw: Any = field(default=None, eq=False, repr=False)


@frozen
class ClientStats:
    """A snapshot of the counters of a client and its views.

    Attributes:
        requests: HTTP exchanges started, including downloads. A GET that aiohttp
            repeats because its connection was lost counts once.
        retries: Exchanges started because an earlier one of the same call failed.
        submitted: Tasks that the service accepted.
        settled: Ambiguous submits whose task was found by querying.
        completed: Tasks that `wait` saw complete.
        failed: Tasks that `wait` saw fail.
        rate_limited: Rejections with 429 or 425.
        in_flight: Exchanges in progress.
        waiting: Callers queued for a slot or for the rate.
        rate: Requests per second that the throttle allows now; None: no limit.
        credits_estimated: Sum of the estimates of accepted tasks, in credits.
        credits_unknown: Accepted tasks without an estimate.
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
