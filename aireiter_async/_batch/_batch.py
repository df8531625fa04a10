"""Batches: many requests through a bounded window, with outcomes as they complete."""

from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Mapping,
)
from contextlib import aclosing, contextmanager
from contextvars import Context, copy_context
from operator import length_hint
from os import PathLike
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeAlias, TypeVar

from aireiter_async._arguments import check_count, check_number
from aireiter_async._batch._budget import Budget
from aireiter_async._batch._items import BatchOptions, ItemProcessor, Request
from aireiter_async._batch._outcomes import Outcome
from aireiter_async._batch._progress import BatchProgress, OnProgress, Progress
from aireiter_async._batch._window import Window
from aireiter_async._client import AsyncClient
from aireiter_async._poll import Webhooks, check_webhooks

if TYPE_CHECKING:
    from aireiter_async._ledger import Ledger
    from aireiter_async._media import NameTemplate, Sink
    from aireiter_async.stores import IdempotencyStore

T = TypeVar("T")
Source: TypeAlias = Iterable[T] | AsyncIterable[T]

# A submit that backs off or settles holds no slot: two per slot keep all slots busy.
_SUBMITS_PER_SLOT = 2
_OUTCOMES_PER_SUBMIT = 2  # submits continue while outcomes wait to be yielded
_SMALLEST_WINDOW = 256
_TASKS_PER_SLOT = 4


class Batch(Generic[T]):
    """A running batch: an async iterator over its outcomes, and an async context manager.

    Nothing happens until the first outcome is requested. To leave the loop early, iterate
    inside ``async with batch:``, which ends the workers when the block ends; accepted tasks
    keep running at the service.
    """

    def __init__(
        self, processor: ItemProcessor, window: Window[Any, Outcome[T]], progress: Progress
    ) -> None:
        self._processor = processor
        self._window = window
        self._progress = progress
        self._outcomes = _outcomes(processor, window, progress)

    # The generator, not this object: leaving the loop drops it, which ends the workers.
    def __aiter__(self) -> AsyncIterator[Outcome[T]]:
        return self._outcomes

    async def __anext__(self) -> Outcome[T]:
        return await anext(self._outcomes)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the batch immediately: cancel the workers and yield nothing more.

        Accepted tasks keep running at the service; a ledger has recorded them.
        """
        await self._outcomes.aclose()

    @property
    def progress(self) -> BatchProgress:
        """A snapshot of the batch's progress."""
        return self._progress.snapshot()

    @property
    def stopped(self) -> Exception | None:
        """The error that ended submission (account, machine or budget), or None."""
        return self._processor.stopped

    def stop(self) -> None:
        """Pull nothing more from the source; finish and yield the items already pulled."""
        self._window.stop()


async def _outcomes(
    processor: ItemProcessor, window: Window[Any, Outcome[T]], progress: Progress
) -> AsyncGenerator[Outcome[T], None]:
    with _emitting(processor, progress) as context:
        try:
            await processor.prepare()
            async with aclosing(window.results(context)) as outcomes:
                async for outcome in outcomes:
                    yield outcome
        finally:
            processor.close()
            await progress.close()


@contextmanager
def _emitting(
    processor: ItemProcessor, progress: Progress
) -> Generator[Context | None, None, None]:
    """Emit start and end of the batch, in a context for its workers.

    The consumer's context is not changed: a listener that makes a span current must not do so in
    the body of the consumer's loop.
    """
    if not processor.events.listeners:
        yield None
        return
    context = copy_context()
    emit_end = context.run(processor.events.begin, "batch")
    try:
        yield context
    except BaseException as error:
        failure = None if isinstance(error, GeneratorExit) else error
        context.run(emit_end, progress.snapshot(), failure or processor.stopped)
        raise
    context.run(emit_end, progress.snapshot(), processor.stopped)


def submit_many(  # noqa: PLR0913 - the options of a batch
    client: AsyncClient,
    source: Source[T],
    *,
    request: Callable[[T], Request] | None = None,
    ordered: bool = False,
    ledger: "Ledger | None" = None,
    max_credits: float | Budget | None = None,
    retry_failed: bool = False,
    idempotency: "IdempotencyStore | None" = None,
    on_progress: OnProgress | None = None,
) -> Batch[T]:
    """See `AsyncClient.submit_many`."""
    options = BatchOptions(
        client=client,
        request=request,
        wait=False,
        ledger=ledger,
        retry_failed=retry_failed,
        idempotency=idempotency,
    )
    workers = _SUBMITS_PER_SLOT * client.max_concurrency
    size = _OUTCOMES_PER_SUBMIT * workers
    return _make_batch(
        options, source, max_credits, on_progress, size=size, workers=workers, ordered=ordered
    )


def run_many(  # noqa: PLR0913 - the options of a batch
    client: AsyncClient,
    source: Source[T],
    *,
    request: Callable[[T], Request] | None = None,
    window: int | None = None,
    ordered: bool = False,
    ledger: "Ledger | None" = None,
    max_credits: float | Budget | None = None,
    timeout: float | None = None,
    download_to: "str | PathLike[str] | Sink | None" = None,
    name: str | Callable[[T], str] | None = None,
    retry_failed: bool = False,
    idempotency: "IdempotencyStore | None" = None,
    webhooks: Webhooks | None = None,
    identify: Callable[[T], str] | None = None,
    on_progress: OnProgress | None = None,
) -> Batch[T]:
    """See `AsyncClient.run_many`; *identify*, which is internal, returns the ID for an item."""
    check_webhooks(webhooks)
    if download_to is not None:
        from aireiter_async._client._downloading import (  # noqa: PLC0415 - for downloads only
            as_destination,
        )

        download_to = as_destination(download_to)
    size = default_window(client) if window is None else check_count("window", window)
    options = BatchOptions(
        client=client,
        request=request,
        wait=True,
        ledger=ledger,
        timeout=None if timeout is None else check_number("timeout", timeout),
        download_to=download_to,
        name=_template(name) if isinstance(name, str) else name,
        retry_failed=retry_failed,
        idempotency=idempotency,
        webhooks=webhooks,
        identify=identify,
        window=size,
    )
    return _make_batch(
        options, source, max_credits, on_progress, size=size, workers=size, ordered=ordered
    )


def default_window(client: AsyncClient) -> int:
    """Return the maximum number of outstanding tasks, unless the caller chooses it."""
    return max(_SMALLEST_WINDOW, _TASKS_PER_SLOT * client.max_concurrency)


def _template(name: str) -> "NameTemplate":
    from aireiter_async._media import NameTemplate  # noqa: PLC0415 - for downloads only

    return NameTemplate(name)


def _make_batch(
    options: BatchOptions,
    source: Source[T],
    max_credits: float | Budget | None,
    on_progress: OnProgress | None,
    *,
    size: int,
    workers: int,
    ordered: bool,
) -> Batch[T]:
    kind = type(source).__name__
    if isinstance(source, str | bytes | Mapping):
        raise TypeError(f"source must be an iterable of requests or items, got {kind}: use a list")
    if options.ledger is not None and options.idempotency is not None:
        raise ValueError("pass either ledger or idempotency: each alone prevents double submits")
    if max_credits is not None and not isinstance(max_credits, Budget):
        max_credits = options.client.budget(max_credits)
    total = length_hint(source, -1)

    # The window needs the processor, which needs to stop the window.
    def fail(error: BaseException) -> None:
        window.fail(error)

    def stop() -> None:
        window.stop()

    progress = Progress(None if total < 0 else total, on_progress, fail)
    processor = ItemProcessor(options, max_credits or Budget(None), progress, stop)
    window = Window[Any, Outcome[T]](
        source, processor.process, size=size, workers=workers, ordered=ordered
    )
    return Batch(processor, window, progress)
