"""One item of a batch, from the source to its outcome.

With a ledger, the state that an earlier run recorded decides what remains to be
done: nothing, waiting, or reconciling with the service first.
"""

import errno
import json
import os
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import urlsplit

from attrs import define, evolve, frozen

from aireiter_async._arguments import check_name
from aireiter_async._batch._budget import (
    NO_RESERVATION,
    Budget,
    NullReservation,
    Reservation,
    Unpriced,
)
from aireiter_async._batch._outage import Outage
from aireiter_async._batch._outcomes import Failure, Outcome, Success
from aireiter_async._batch._progress import Progress, Stage
from aireiter_async._client import AsyncClient, SubmitsHaltedError, Watch, api_of, check_owner
from aireiter_async._conflicts import is_echo
from aireiter_async._poll import Webhooks
from aireiter_async._requests import SubmitRequest, as_request
from aireiter_async._tasks import LedgerState, Task, TaskStatus
from aireiter_async._wire import restore_task
from aireiter_async.errors import (
    AireiterError,
    AmbiguousSubmitError,
    AuthenticationError,
    BudgetExceededError,
    ConnectError,
    DownloadError,
    IDInUseError,
    InsufficientCreditsError,
    InvalidRequestError,
    LedgerError,
    NotSubmittedError,
    TaskError,
    TaskFailedError,
    TaskNotFoundError,
)
from aireiter_async.models._base import Model
from aireiter_async.models._errors import LocalMediaError

if TYPE_CHECKING:
    from aireiter_async._client._local_media import Embedding
    from aireiter_async._ledger import Entry, Journal, Ledger
    from aireiter_async._media import Found, NameTemplate, Saved, Sink
    from aireiter_async.stores import IdempotencyStore

# Whether the service has the task is unknown.
_UNCERTAIN: Final = frozenset({LedgerState.INTENDED, LedgerState.UNCERTAIN})
_RETRIABLE: Final = frozenset({LedgerState.REJECTED, LedgerState.FAILED})
_RUNNING: Final = frozenset({LedgerState.SUBMITTED, LedgerState.LOST})

_FORBIDDEN: Final = 403
# Nothing can be saved any more.
_UNWRITABLE: Final = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}
)
_RECENT_IDS: Final = 10_000  # remembered at least by a batch without a ledger

Paths: TypeAlias = tuple[Any, ...]
Request: TypeAlias = SubmitRequest | Model | tuple[str, Mapping[str, Any]]


@frozen(kw_only=True)
class BatchOptions:
    """The options of a batch for its items, validated; see `AsyncClient.run_many`.

    Attributes:
        wait: Whether to wait for tasks, or only submit them.
        identify: Returns the ID for an item's request, if not None.
        window: Items in progress at once.
    """

    client: AsyncClient
    request: Callable[[Any], Request] | None
    wait: bool
    ledger: "Ledger | None" = None
    timeout: float | None = None
    download_to: "Path | Sink | None" = None
    name: "NameTemplate | Callable[[Any], str] | None" = None
    retry_failed: bool = False
    idempotency: "IdempotencyStore | None" = None
    webhooks: Webhooks | None = None
    identify: Callable[[Any], str] | None = None
    window: int = 0


@define(eq=False)
class _Item:
    """The state of one item.

    Attributes:
        resumed: Whether the ledger already had the task.
        files: The saved files, as the ledger records them.
        name: The name of its files, if a function returns it.
        embedding: The outputs of earlier tasks in its request, if any.
    """

    index: int
    value: Any
    request: Any = None
    stage: Stage = "preparing"
    task: Any = None  # a Task in every outcome without an error
    resumed: bool = False
    files: tuple[Mapping[str, Any], ...] = ()
    name: str = ""
    reservation: Reservation | NullReservation = NO_RESERVATION
    error: Exception | None = None
    embedding: "Embedding | None" = None


class ItemProcessor:
    """Processes each item of a batch into its outcome.

    Args:
        options: The options of the batch.
        budget: The credits to spend.
        progress: Counts the items.
        stop: Called when nothing more may be pulled.

    Attributes:
        events: The client's events.
        stopped: The error that ended submission, if any.
    """

    def __init__(
        self, options: BatchOptions, budget: Budget, progress: Progress, stop: Callable[[], None]
    ) -> None:
        self._options = options
        self._client = options.client.with_options()  # its submits are halted separately
        self._api = api_of(self._client)
        self._journal: Journal | None = None
        if options.ledger is not None:
            from aireiter_async._ledger import journal_of  # noqa: PLC0415 - imports SQLite

            self._journal = journal_of(options.ledger)
        self._budget = budget
        self._progress = progress
        self._stop = stop
        self._outage = Outage(self._api.shared.clock, self._api.host)
        self._recent_ids = _RecentIDs(max(_RECENT_IDS, options.window))
        self._denied: PermissionError | None = None
        self._batch = 0
        self.events = self._api.shared.events
        self.stopped: Exception | None = None

    async def prepare(self) -> None:
        """Prepare directory, ledger and budget: problems must show before credits are spent.

        Raises:
            LedgerError: The ledger belongs to another service.
            OSError: The directory cannot be created.
        """
        directory, ledger = self._options.download_to, self._options.ledger
        if isinstance(directory, Path):
            self._denied = await self._api.shared.threads.run(_make_directory, directory)
        if ledger is not None and self._journal is not None:
            service = _service_key(self._api.settings.base_url)
            self._batch = await self._journal.begin_batch(service, self.events)
        if self._budget.limited:
            await self._api.load_models()
            await self._budget.prepare(ledger, self._learn_price)

    async def _learn_price(self, unpriced: Unpriced) -> None:
        """Learn a price from an earlier run's task: a query is free."""
        task = Task(unpriced.out_task_id, TaskStatus.UNKNOWN, unpriced.model)
        try:
            found = await self._client.find(task)
        except AireiterError:  # its price remains unknown
            return
        self._budget.learn_from(unpriced, found)

    def close(self) -> None:
        """Drop the batch's temporary records in the ledger."""
        if self._journal is not None and self._batch:
            self._journal.end_batch(self._batch)

    async def process(self, index: int, value: Any) -> Outcome[Any]:
        """Process one item. Failures of this item become its outcome's error.

        Raises:
            LedgerError: The ledger cannot be written, so the batch must end.
        """
        item = _Item(index, value)
        self._progress.add(item)
        is_observed = self._options.wait and self.events.listeners
        emit_end = self.events.begin("run") if is_observed else None
        try:
            make = self._options.request
            made = value if make is None else _call(make, value)
            try:
                if type(made) is tuple:
                    await self._api.load_models()
                    request = as_request(*made)
                else:
                    request = as_request(made)
            except LocalMediaError as error:
                request = await self._embed(item, error.model)
            if self._options.identify is not None:
                request = request.with_id(self._options.identify(value))
            item.request = request
            self._check_name(item)
            # A request built from a models instance or a tuple has a fresh ID.
            unique = request is made or not request.generated
            if self._journal is not None:
                paths = await self._start_or_resume(item, self._journal, unique=unique)
            else:
                paths = await self._submit(item, unique=unique)
        except _CallbackError as error:
            return self._failure(item, error.cause)
        except (AireiterError, TypeError, ValueError) as error:
            broken = self._journal and self._journal.broken
            if broken:
                raise broken from broken.__cause__
            return self._failure(item, error)
        finally:
            item.reservation.close()
            if emit_end is not None:
                emit_end(item.task, item.error or sys.exception())
        self._progress.move(item, "succeeded")
        return Success(index, value, item.request, item.task, paths, item.resumed, item.files)

    def _check_name(self, item: _Item) -> None:
        """Check the name of an item's files before anything is paid for."""
        name = self._options.name
        if name is None:
            return
        if callable(name):
            item.name = check_name(_call(name, item.value))
        else:
            name.check({*_name_fields(item), "out_task_id", "n"})

    async def _embed(self, item: _Item, model: Any) -> SubmitRequest:
        """Return the request of a models instance with local media."""
        from aireiter_async._client._local_media import (  # noqa: PLC0415 - not for all
            read_all_media,
        )

        embedding = await read_all_media(self._api, model)
        if embedding.refreshable:
            item.embedding = embedding
        return embedding.request()

    def _failure(self, item: _Item, error: Exception) -> Failure[Any]:
        item.error = error
        if isinstance(error, BudgetExceededError) and self.stopped is None:
            self.stopped = error  # cheaper requests are still submitted
        elif _stops_batch(error) and not self._api.halted:
            self._halt(error)
        unsent = isinstance(error, NotSubmittedError | BudgetExceededError) or (
            item.task is None and (_is_account_error(error) or isinstance(error, ConnectError))
        )
        self._progress.move(item, "not_submitted" if unsent else "failed")
        task = error.task if isinstance(error, TaskError) else item.task
        return Failure(item.index, item.value, item.request, error, task, item.resumed)

    def _halt(self, error: Exception) -> None:
        """Submit nothing more; finish the accepted tasks."""
        self.stopped = error
        self._api.halted = True
        self._stop()

    async def _start_or_resume(self, item: _Item, journal: "Journal", *, unique: bool) -> Paths:
        """Start the request, or resume from the state that an earlier run recorded."""
        request: SubmitRequest = item.request
        encode = request.encode_content
        threads = self._api.shared.threads
        content = await threads.run(encode) if request.large else encode()
        # The budget must not reject requests that are already recorded: with a limit, look the
        # request up before recording the intent.
        limited = self._budget.limited
        intent = journal.make_intent(
            self._batch, request, content, unique=unique, record=not limited
        )
        await journal.record(intent)
        if intent.repeated:
            raise _repeated_id(request.out_task_id)
        if intent.entry is None and limited:
            await self._reserve(item)
            intent.record = True
            await journal.record(intent)
            if intent.entry is not None:  # another batch has recorded it meanwhile
                _release(item)  # before waiting for the other batch
        entry = intent.entry
        # All attempts of a request have one lock: another batch may be about to retry it.
        first = intent.out_task_id if entry is None else entry.first
        waited = await journal.lock(first)
        try:
            if waited:
                entry = await journal.find(first)
                if entry is None:
                    _release(item)
                    message = "another batch with this ledger did not submit it"
                    raise NotSubmittedError(message, first)
            out_task_id = first if entry is None else entry.out_task_id
            if request.out_task_id != out_task_id:
                item.request = request.with_id(out_task_id, generated=request.generated)
            if entry is None:
                return await self._send(item)
            _release(item)  # a reservation, if another batch has recorded it meanwhile
            item.resumed = True
            if entry.state in _UNCERTAIN:
                return await self._reconcile(item)
            if entry.state in _RETRIABLE and self._options.retry_failed:
                return await self._retry(item, entry, journal)
            return await self._resume(item, entry, journal)
        finally:
            journal.unlock(first)

    async def _resume(self, item: _Item, entry: "Entry", journal: "Journal") -> Paths:
        """Finish a task that an earlier run submitted."""
        if entry.state is LedgerState.REJECTED:
            raise _restore_error(entry)
        item.task = task = _restore_task(entry, journal.path)
        if entry.state is LedgerState.FAILED:
            raise TaskFailedError(task)
        if entry.state in _RUNNING:
            if not self._options.wait:
                return ()
            item.reservation = self._budget.reopen(item.request, entry.estimated_credits)
            self._progress.move(item, "outstanding", estimated=task.estimated_credits)
            try:
                return await self._finish(item, self._watch(item, task))
            except TaskNotFoundError:
                if not self._options.retry_failed:
                    raise
            return await self._submit_again(item, entry, LedgerState.LOST, journal)
        if entry.state is not LedgerState.DOWNLOADED:
            return await self._download(item, task)
        return await self._restore_files(item, json.loads(entry.paths or "[]"))

    async def _restore_files(self, item: _Item, files: Sequence[Mapping[str, Any]]) -> Paths:
        """Return the files of an earlier run, after downloading missing or damaged ones again.

        If they are not in this run's directory, all are downloaded.
        """
        directory = self._options.download_to
        if not isinstance(directory, Path):
            item.files = tuple(files)
            place = Path if directory is None else str  # what a sink returned
            return tuple(place(file["path"]) for file in files)
        from aireiter_async._media import find_saved  # noqa: PLC0415 - for downloads only

        found = await self._api.shared.threads.run(find_saved, files, directory)
        if found is None:
            return await self._download(item, item.task)
        if found.damaged:
            return await self._download(item, item.task, found)
        item.files = tuple(found.files)
        if found.files != files and self._journal is not None:
            self._journal.downloaded(item.task, found.files)
        return tuple(found.paths)

    async def _retry(self, item: _Item, entry: "Entry", journal: "Journal") -> Paths:
        """Submit a failed or rejected request again, under a new ID."""
        if entry.state is LedgerState.REJECTED:
            try:
                task = await self._client.query(entry.out_task_id)
            except TaskNotFoundError:
                pass
            else:
                if is_echo(item.request, task):
                    # A submit outside this ledger had already used the ID, for this request.
                    self._budget.include_unknown(item.request)
                    return await self._adopt(item, task)
        return await self._submit_again(item, entry, entry.state, journal)

    async def _submit_again(
        self, item: _Item, entry: "Entry", state: LedgerState, journal: "Journal"
    ) -> Paths:
        """Submit under a new ID, replacing a task that ended in *state*."""
        await self._reserve(item)
        out_task_id = await journal.replace(entry.out_task_id, state)
        generated = item.request.generated
        item.request = item.request.with_id(out_task_id, generated=generated)
        item.resumed, item.task = False, None
        return await self._send(item)

    async def _reconcile(self, item: _Item) -> Paths:
        """Reconcile with the service, then submit if the task is missing and the budget allows."""
        request = item.request
        if self._budget.limited:
            absent = self._budget.discard_absent(request.out_task_id)
            try:
                await self._reserve(item, maybe_sent=not absent)
            except BudgetExceededError:
                if absent:
                    raise
                # The task may exist and be paid for already, and a query is free.
                wanted = Task(request.out_task_id, TaskStatus.UNKNOWN, request.model)
                try:
                    task = await self._client.find(wanted)
                except AireiterError as error:
                    message = (
                        f"an earlier run may have sent it, and the query failed: {error.summary}"
                    )
                    raise AmbiguousSubmitError(request.out_task_id, message) from error
                if task is None:
                    self._budget.remove(request)
                    raise
                return await self._adopt(item, task)
        return await self._send(item, maybe_sent=True)

    async def _adopt(self, item: _Item, task: Task) -> Paths:
        """Continue with a found task, which the budget counts without a price."""
        item.reservation = self._budget.reopen(item.request, None)
        self._note_accepted(item, task)
        if not self._options.wait:
            return ()
        return await self._finish(item, self._watch(item, task))

    async def _reserve(self, item: _Item, *, maybe_sent: bool = False) -> None:
        """Reserve the price of a task before it is submitted, if there is a limit."""
        if self._budget.limited:
            item.reservation.close()
            item.reservation = await self._budget.reserve(item.request, maybe_sent=maybe_sent)

    async def _submit(self, item: _Item, *, unique: bool) -> Paths:
        """Submit a request of a batch without a ledger."""
        out_task_id = item.request.out_task_id
        if unique and self._options.identify is None and self._recent_ids.repeats(out_task_id):
            raise _repeated_id(out_task_id)
        await self._reserve(item)
        return await self._send(item)

    async def _prepare_submit(self) -> None:
        """Wait for an outage to end.

        Raises:
            PermissionError: The directory cannot be written. A finished batch only reads it.
        """
        if self._denied is not None:
            raise self._denied
        await self._outage.wait()

    async def _send(self, item: _Item, *, maybe_sent: bool = False) -> Paths:
        """Submit the request and, in `run_many`, wait for its task."""
        if self._denied is not None or self._outage.active:
            await self._prepare_submit()
        self._progress.move(item, "submitting")
        try:
            if self._api.halted and not maybe_sent:  # else it is at least queried
                raise self._not_submitted(item) from self.stopped
            while True:
                if item.embedding is not None:  # only now: the URL of an output may expire
                    fresh = await item.embedding.refresh(self._api)
                    generated = item.request.generated
                    item.request = fresh.with_id(item.request.out_task_id, generated=generated)
                try:
                    task = await self._client.submit(
                        item.request,
                        maybe_sent=maybe_sent,
                        idempotency=self._options.idempotency,
                    )
                    break
                except SubmitsHaltedError:
                    raise self._not_submitted(item) from self.stopped
                except AireiterError as error:
                    maybe_sent = maybe_sent or isinstance(error, AmbiguousSubmitError)
                    await self._wait_for_service(item, error)
        except AireiterError as error:
            self._note_submit_failure(item, error)
            raise
        self._note_accepted(item, task)
        if item.reservation.unpriced:
            await item.reservation.measure()
        if not self._options.wait:
            return ()
        # A generated ID cannot belong to another request.
        verify = None if item.request.generated else partial(check_owner, item.request)
        return await self._finish(item, self._watch(item, task, from_start=True, verify=verify))

    def _watch(self, item: _Item, task: Task, **options: Any) -> Coroutine[Any, Any, Task]:
        """Wait for the item's task, which an earlier run may have submitted."""
        watch = Watch(
            self._api,
            task,
            timeout=self._options.timeout,
            webhooks=self._options.webhooks,
            expects_callback=item.request.callback_url is not None,
            **options,
        )
        return watch.finish()

    async def _wait_for_service(self, item: _Item, error: AireiterError) -> None:
        """Wait for the end of the outage that made a submit fail.

        Raises:
            AireiterError: *error*, if there is no outage or it does not end.
        """
        probe = partial(self._client.query, item.request.out_task_id)
        if await self._outage.should_resubmit(error, probe):
            return
        if self._outage.gave_up and not self._api.halted:
            self._halt(error)
        raise error

    def _not_submitted(self, item: _Item) -> NotSubmittedError:
        message = f"the batch has stopped: {_summary(self.stopped)}"
        return NotSubmittedError(message, item.request.out_task_id)

    async def _finish(self, item: _Item, wait: Awaitable[Task]) -> Paths:
        """Await the completed task, record it, and save its results."""
        try:
            task = await wait
        except TaskFailedError as error:
            item.reservation.released()
            self._note_ended(item, error.task)
            raise
        except IDInUseError as error:
            self._note_id_in_use(item, error)
            raise
        item.reservation.finished(task.credits_used)
        self._note_ended(item, task)
        return await self._download(item, task)

    def _note_accepted(self, item: _Item, task: Task) -> None:
        """Record that the service has accepted the task."""
        item.task = task
        item.reservation.accepted(task.estimated_credits)
        self._outage.connected = True
        if self._journal is not None:
            self._journal.accepted(task)
        self._progress.move(item, "outstanding", estimated=task.estimated_credits)

    def _note_submit_failure(self, item: _Item, error: AireiterError) -> None:
        """Record a submit that ended without a task."""
        certain = not isinstance(error, AmbiguousSubmitError)
        if certain:
            item.reservation.released()
        if self._journal is None:
            return
        out_task_id = item.request.out_task_id
        if isinstance(error, InvalidRequestError):
            self._journal.rejected(out_task_id, error, LedgerState.REJECTED)
        elif certain:
            # The account, the rate or the network is at fault, not the request: the next run
            # submits it as if it were new.
            self._journal.withdraw(out_task_id)
        else:
            self._journal.rejected(out_task_id, error, LedgerState.UNCERTAIN)

    def _note_id_in_use(self, item: _Item, error: IDInUseError) -> None:
        """Record that the accepted task is an earlier request's: this one was not charged."""
        estimate = item.task.estimated_credits or 0.0
        self._progress.move(item, "outstanding", estimated=-estimate)
        item.task = None
        self._note_submit_failure(item, error)

    def _note_ended(self, item: _Item, task: Task) -> None:
        item.task = task
        self._progress.move(item, "outstanding", used=task.credits_used)
        if self._journal is not None:
            self._journal.ended(task)

    async def _download(
        self,
        item: _Item,
        task: Task,
        found: "Found | None" = None,
    ) -> Paths:
        """Save a task's results, or only those that are damaged."""
        directory = self._options.download_to
        if directory is None:
            return ()
        if item.stage != "outstanding":  # the task ended in an earlier run
            self._progress.move(item, "outstanding")
        name = self._file_name(item)
        downloader = await self._api.downloader()
        damaged = None if found is None else {n + 1: found.paths[n] for n in found.damaged}
        saved = iter(await downloader.download(task, directory, name, damaged))
        paths: list[Any] = [] if found is None else [*found.paths]
        files = [] if found is None else [*found.files]
        for number in range(1, len(task.outputs) + 1) if damaged is None else sorted(damaged):
            each: Saved = next(saved)
            # Replaces a damaged file, else appends.
            paths[number - 1 : number] = [each.place]
            files[number - 1 : number] = [each.to_dict()]
        item.files = tuple(files)
        if self._journal is not None:
            self._journal.downloaded(task, files)
        return tuple(paths)

    def _file_name(self, item: _Item) -> str | None:
        """Return the name template for an item's files."""
        name = self._options.name
        if name is None:
            return None
        if not callable(name):
            return name.fill(_name_fields(item))
        from aireiter_async._media import quote_name  # noqa: PLC0415 - for downloads only

        return quote_name(item.name)


class _CallbackError(Exception):
    """A callback has raised an exception for one item."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(cause)
        self.cause = cause


def _call(callback: Callable[[Any], Any], value: Any) -> Any:
    try:
        return callback(value)
    except Exception as error:
        raise _CallbackError(error) from error


def _make_directory(directory: Path) -> PermissionError | None:
    """Create a directory; return an error if files cannot be created in it."""
    directory.mkdir(parents=True, exist_ok=True)
    if os.access(directory, os.W_OK | os.X_OK):
        return None
    return PermissionError(errno.EACCES, "files cannot be created there", str(directory))


def _name_fields(item: _Item) -> dict[str, Any]:
    """Return the values for an item's name template."""
    params = item.request.params
    prompt = params.get("prompt") if isinstance(params, Mapping) else getattr(params, "prompt", "")
    given = item.value if isinstance(item.value, Mapping) else {}
    return {"prompt": prompt, **given, "index": item.index, "model": item.request.model}


def _release(item: _Item) -> None:
    """Release the reservation of a request that is not submitted after all."""
    item.reservation.released()
    item.reservation.close()
    item.reservation = NO_RESERVATION


class _RecentIDs:
    """The latest IDs of a batch without a ledger, to detect repeated ones."""

    def __init__(self, remembered: int) -> None:
        self._ids: dict[str, None] = {}
        self._remembered = remembered

    def repeats(self, out_task_id: str) -> bool:
        """Return whether an ID was used recently, and remember it."""
        ids = self._ids
        if out_task_id in ids:
            return True
        ids[out_task_id] = None
        if len(ids) > self._remembered:
            del ids[next(iter(ids))]
        return False


def _repeated_id(out_task_id: str) -> ValueError:
    return ValueError(
        f"out_task_id {out_task_id} is used twice in this batch: give each request its own ID"
    )


def _service_key(base_url: str) -> str:
    """Return the normalised host, port and path of a URL."""
    url = urlsplit(base_url)
    port = url.port or (443 if url.scheme == "https" else 80)
    return f"{url.hostname}:{port}{url.path.rstrip('/')}"


def _is_account_error(error: BaseException) -> bool:
    return isinstance(error, InsufficientCreditsError) or (
        # A 403 may come from a CDN and concern one request only.
        isinstance(error, AuthenticationError) and error.code != _FORBIDDEN
    )


def _stops_batch(error: Exception) -> bool:
    """Return whether *error* concerns the account or the machine, and so all further items."""
    if _is_account_error(error):
        return True
    cause = error.__cause__ if isinstance(error, DownloadError) else None
    # A sink's own error is the cause of the one that names the sink. A host's is its own problem.
    while cause is not None and not isinstance(cause, AireiterError):
        if isinstance(cause, OSError) and cause.errno in _UNWRITABLE:
            return True
        cause = cause.__cause__
    return False


def _summary(error: Exception | None) -> str:
    return error.summary if isinstance(error, AireiterError) else str(error)


def _restore_task(entry: "Entry", path: Path) -> Task:
    """Return the recorded task.

    Raises:
        LedgerError: The recorded reply cannot be read.
    """
    if entry.reply is None:
        task = Task(entry.out_task_id, TaskStatus.UNKNOWN, entry.model)
    else:
        try:
            task = restore_task(entry.reply, entry.out_task_id, entry.model)
        except AireiterError as error:
            message = f"the reply recorded for {entry.out_task_id} is damaged"
            raise LedgerError(message, str(path)) from error
    return evolve(task, estimated_credits=entry.estimated_credits)


def _restore_error(entry: "Entry") -> InvalidRequestError:
    """Return the recorded rejection."""
    detail = json.loads(entry.error or "{}")
    code, message = detail.get("code", 400), detail.get("message", "")
    kind = IDInUseError if detail.get("type") == "IDInUseError" else InvalidRequestError
    return kind(int(code), str(message), None, entry.out_task_id)
