"""Outcomes of a batch: one per item of its source."""

from collections.abc import Mapping
from typing import Any, ClassVar, Generic, Literal, NoReturn, TypeAlias, TypeVar

from attrs import field, frozen

from aireiter_async._requests import SubmitRequest
from aireiter_async._tasks import Task

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@frozen
class Success(Generic[T_co]):
    """An item of a batch whose task was accepted (`submit_many`) or has completed (`run_many`).

    Attributes:
        ok: Always True. ``if outcome.ok:`` narrows in mypy, ``if outcome.ok is True:``
            and ``isinstance`` in pyright, too.
        index: The item's position in the source, from 0.
        item: What the source yielded.
        request: The request as it was submitted, with its ID.
        task: The task.
        paths: The saved files, each a `Path`, with *download_to*; what a `Sink` returned, each
            a str.
        resumed: Whether the ledger already had the task, so that this run submitted nothing.
        files: The files as in `Ledger.rows`: path, size in bytes and SHA-256 of each.
    """

    ok: ClassVar[Literal[True]] = True
    index: int
    item: T_co
    request: SubmitRequest
    task: Task
    paths: tuple[Any, ...] = ()
    resumed: bool = False
    files: tuple[Mapping[str, Any], ...] = field(default=(), hash=False, repr=False)

    @property
    def error(self) -> None:
        """None: there is no error."""

    def result(self) -> Task:
        """Return the task."""
        return self.task


@frozen
class Failure(Generic[T_co]):
    """An item of a batch that failed or was not submitted.

    Attributes:
        ok: Always False.
        paths: Always empty.
        files: Always empty.
        index: The item's position in the source, from 0.
        item: What the source yielded.
        request: The request with its ID; None if the item could not be converted to one.
        error: Why there is no result. A `NotSubmittedError` or `BudgetExceededError`
            means that nothing was sent; running the batch again submits it.
        task: The task as last seen, if any; for example completed, if only its
            download failed.
        resumed: Whether the ledger already had the task, so that this run submitted nothing.
    """

    ok: ClassVar[Literal[False]] = False
    paths: ClassVar[tuple[Any, ...]] = ()
    files: ClassVar[tuple[Mapping[str, Any], ...]] = ()
    index: int
    item: T_co
    request: SubmitRequest | None
    error: Exception
    task: Task | None = None
    resumed: bool = False

    def result(self) -> NoReturn:
        """Raise the error."""
        raise self.error


Outcome: TypeAlias = Success[T] | Failure[T]
