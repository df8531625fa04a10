"""Batches: many requests through a bounded window, and their outcomes as they come."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Mapping
from contextlib import aclosing
from inspect import iscoroutinefunction
from operator import length_hint
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

from aireiter_async._arguments import check_count, check_number
from aireiter_async._batch._budget import Budget
from aireiter_async._batch._items import Items
from aireiter_async._batch._plan import Outcome, Plan
from aireiter_async._batch._progress import BatchProgress, Progress
from aireiter_async._batch._window import Window
from aireiter_async._client import AsyncClient
from aireiter_async._ledger import Ledger
from aireiter_async._requests import SubmitRequest
from aireiter_async.models._base import Model

Requests: TypeAlias = Iterable[SubmitRequest | Model] | AsyncIterable[SubmitRequest | Model]
OnProgress: TypeAlias = Callable[[BatchProgress], None]

# A submit that backs off or settles holds no slot: twice the slots keep them all in use.
_SUBMITS_PER_SLOT = 2
_OUTCOMES_PER_SUBMIT = 2  # some are submitted while others wait to be yielded
_SMALLEST_WINDOW = 256
_TASKS_PER_SLOT = 4


def submit_many(
    client: AsyncClient,
    requests: Requests,
    *,
    ordered: bool = False,
    ledger: Ledger | None = None,
    max_credits: float | None = None,
    retry_failed: bool = False,
    on_progress: OnProgress | None = None,
) -> AsyncGenerator[Outcome, None]:
    """Submit many requests, and yield an `Outcome` for each as it is accepted or not.

    The source is pulled only as there is room, so memory does not grow with the
    number of requests, and a consumer that is slow slows the pulling down. One
    failure is one outcome. Leaving the loop early ends the workers at once; use
    ``contextlib.aclosing`` around the call to have that done when the block ends.

    Args:
        client: Its pace and its slots are shared with all its other calls.
        requests: Any iterable or async iterable. Requests without an id of
            their own get one; with a ledger, one that is stable over re-runs.
        ordered: Whether outcomes come in the order of the requests.
        ledger: An open `Ledger`, to go on after a crash without paying twice.
        max_credits: Credits that are not passed: a request that could pass them
            is not submitted, nor is any after it. The price reserved is the
            highest estimate seen for the model, whose first task goes alone to
            find it out. Earlier runs with the same ledger count, and what one of
            them may have sent is looked for, whatever the limit is.
        retry_failed: Whether what an earlier run with this ledger has left
            failed or refused is submitted again, under a new id.
        on_progress: Told how far the batch is: when that has changed, at most
            ten times a second, and at the end. It must not block. What it
            raises ends the batch and is raised to whoever reads the outcomes.

    Raises:
        LedgerError: The ledger cannot be written.
        TypeError: An argument is of the wrong type.
        ValueError: An argument is out of its range.
        Exception: What *requests* itself raises, once all that was pulled
            before has been yielded.
    """
    _check_types(client, requests, ledger, on_progress)
    plan = Plan(client=client, wait=False, ledger=ledger, retry_failed=retry_failed)
    _check_credits(max_credits)
    submits = _SUBMITS_PER_SLOT * client.max_concurrency
    return _outcomes(
        plan,
        requests,
        max_credits,
        on_progress,
        size=_OUTCOMES_PER_SUBMIT * submits,
        workers=submits,
        ordered=ordered,
    )


def run_many(  # noqa: PLR0913 - the options of a batch
    client: AsyncClient,
    requests: Requests,
    *,
    window: int | None = None,
    ordered: bool = False,
    ledger: Ledger | None = None,
    max_credits: float | None = None,
    timeout: float | None = None,
    download_to: str | PathLike[str] | None = None,
    retry_failed: bool = False,
    on_progress: OnProgress | None = None,
) -> AsyncGenerator[Outcome, None]:
    """Run many requests to their end, and yield an `Outcome` for each as it ends.

    As `submit_many`, and then each task is waited for and, if asked for, its
    results are saved.

    Args:
        client: As in `submit_many`.
        requests: As in `submit_many`.
        window: Tasks outstanding at most: submitted, or about to be, and not
            yielded. It may be far larger than the client's concurrency, which
            counts what is on the wire. None: four times that, and at least 256.
        ordered: As in `submit_many`.
        ledger: As in `submit_many`: what has ended is yielded from it without a
            request, what was accepted is waited for, what may have been sent is
            looked for first.
        max_credits: As in `submit_many`; real charges take the place of
            estimates, and what failed tasks refund is free again.
        timeout: Seconds to wait for each task after its submit; None for as long
            as it takes. A task that takes longer is an outcome with a
            `TaskTimeoutError`, and waited for again on the next run.
        download_to: A directory for the results, made if it is missing.
        retry_failed: As in `submit_many`.
        on_progress: As in `submit_many`.

    Raises:
        LedgerError: The ledger cannot be written.
        OSError: The directory cannot be made; nothing was sent.
        TypeError: An argument is of the wrong type.
        ValueError: An argument is out of its range.
        Exception: What *requests* itself raises, once all that was pulled
            before has been yielded.
    """
    _check_types(client, requests, ledger, on_progress)
    if window is None:
        window = max(_SMALLEST_WINDOW, _TASKS_PER_SLOT * client.max_concurrency)
    plan = Plan(
        client=client,
        wait=True,
        ledger=ledger,
        timeout=None if timeout is None else check_number("timeout", timeout),
        download_to=None if download_to is None else Path(download_to),
        retry_failed=retry_failed,
    )
    _check_credits(max_credits)
    size = check_count("window", window)
    return _outcomes(
        plan, requests, max_credits, on_progress, size=size, workers=size, ordered=ordered
    )


def _check_credits(max_credits: float | None) -> None:
    if max_credits is not None:
        check_number("max_credits", max_credits)


def _check_types(client: object, requests: object, ledger: object, on_progress: object) -> None:
    """Refuse at once what would only be noticed in the middle of the batch."""
    if not isinstance(client, AsyncClient):
        raise TypeError(f"the first argument must be an AsyncClient, got {type(client).__name__}")
    kind = type(requests).__name__
    if isinstance(requests, str | bytes | Mapping):
        raise TypeError(f"requests must be an iterable of requests, got {kind}")
    if ledger is not None and not isinstance(ledger, Ledger):
        raise TypeError(f"ledger must be an open Ledger, got {type(ledger).__name__}")
    if iscoroutinefunction(on_progress):
        raise TypeError("on_progress must be a plain function: nobody awaits it")


def _outcomes(
    plan: Plan,
    requests: Requests,
    max_credits: float | None,
    on_progress: OnProgress | None,
    *,
    size: int,
    workers: int,
    ordered: bool,
) -> AsyncGenerator[Outcome, None]:
    total = length_hint(requests, -1)

    def fail(error: BaseException) -> None:
        window.fail(error)

    progress = Progress(None if total < 0 else total, on_progress, fail)
    budget = Budget(max_credits)
    items = Items(plan, budget, progress)
    window = Window(requests, items.work, size=size, workers=workers, ordered=ordered)
    return _results(window, progress, budget, plan)


async def _results(
    window: Window[Any, Outcome], progress: Progress, budget: Budget, plan: Plan
) -> AsyncGenerator[Outcome, None]:
    if plan.download_to is not None:  # before anything is spent on what could not be saved
        await asyncio.to_thread(plan.download_to.mkdir, parents=True, exist_ok=True)
    ledger = plan.ledger
    if budget.limited and ledger is not None:
        for costs in await ledger.costs():
            budget.take_over(*costs)
    try:
        async with aclosing(window.results()) as outcomes:
            async for outcome in outcomes:
                yield outcome
    finally:
        progress.end()
