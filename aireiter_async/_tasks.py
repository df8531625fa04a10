"""What comes back from the service: frozen values, no I/O.

Facts about the service's values come from its public documentation; what is
unknown or malformed in a reply never breaks a value, and the reply itself is
kept in ``raw``.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from attrs import field, frozen

OutputKind = Literal["image", "video", "audio", "text", "file"]


class TaskStatus(StrEnum):
    """Where a task is in its life.

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
        raw: The output as the service sent it.
    """

    url: str | None = None
    kind: OutputKind = "file"
    cover_url: str | None = None
    title: str | None = None
    text: str | None = None
    metadata: Mapping[str, Any] = field(factory=dict[str, Any], hash=False)
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
        out_task_id: The caller's id of the task.
        status: Where it is in its life.
        model: The model's name, None where only the id was known.
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
    def ended(self) -> bool:
        """Whether the task has completed or failed."""
        return self.status is TaskStatus.COMPLETED or self.status is TaskStatus.FAILED


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
            lost before the answer to a GET, aiohttp repeats it once: that is one exchange.
        retries: Exchanges that were begun because an earlier one of the same
            call had failed.
        submitted: Tasks that the service accepted.
        settled: Submits whose answer was lost and that were found by asking.
        completed: Tasks that `wait` saw complete.
        failed: Tasks that `wait` saw fail.
        rate_limited: Refusals with 429 or 425.
        in_flight: Exchanges on the wire now.
        waiting: Callers in the queue for a slot or a turn now.
        rate: Requests per second that the pace allows now; None: no limit.
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
