"""The client: its construction and lifecycle, and the verbs for one task."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping
from functools import partial
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypedDict, TypeVar, Unpack, overload

import attrs

from aireiter_async._arguments import check_count, check_number
from aireiter_async._client._api import Api
from aireiter_async._client._settings import Settings, read_settings
from aireiter_async._client._shared import Clock, Shared
from aireiter_async._client._submission import Submission, check_owner
from aireiter_async._client._waiting import OnUpdate, Watch
from aireiter_async._log import start_logging
from aireiter_async._poll import PollPolicy, Webhooks, check_webhooks
from aireiter_async._redact import hide
from aireiter_async._requests import SubmitRequest, as_request, check_id
from aireiter_async._retry import RetryPolicy, Target
from aireiter_async._tasks import Balance, ClientStats, Output, Task, TaskStatus
from aireiter_async._transport import Transport
from aireiter_async.errors import TaskNotFoundError
from aireiter_async.events import Listener
from aireiter_async.models._base import Model
from aireiter_async.models._errors import LocalMediaError

if TYPE_CHECKING:
    from ssl import SSLContext

    from aiohttp import ClientSession

    from aireiter_async._batch import Batch
    from aireiter_async._batch._budget import Budget
    from aireiter_async._batch._items import Request
    from aireiter_async._batch._progress import OnProgress
    from aireiter_async._ledger import Ledger
    from aireiter_async._media import Sink
    from aireiter_async.stores import IdempotencyStore

T = TypeVar("T")
_SHARED_OPTIONS = {"max_concurrency", "max_rate", "proxy", "trust_env", "ssl", "session"}
_NO_OPTIONS = None, None, None, None
_OPTIONS = {field.name for field in attrs.fields(Settings)}


class ViewOptions(TypedDict, total=False):
    """The options that a view of a client may change."""

    api_key: str | None
    base_url: str | None
    timeout: float
    connect_timeout: float
    retry: RetryPolicy
    polling: PollPolicy
    user_agent: str | None
    allow_http: bool
    max_image_side: int | None


class AsyncClient:
    """A client of the AIReiter generation API; an async context manager.

    All calls share one connection pool and one throttle. Make any number of calls
    concurrently: those beyond *max_concurrency* queue in FIFO order, and the timeout
    of an attempt starts when it acquires a slot, not while it is queued.

    The pool is created on entry or at the first call; from then on, the client
    belongs to the running event loop. ``AIREITER_LOG=debug`` or ``info`` shows what it does on
    standard error.

    Args:
        api_key: The API key, sent only to *base_url*'s host. None reads
            ``AIREITER_API_KEY``.
        base_url: The service's URL. None reads ``AIREITER_BASE_URL``, and defaults
            to ``https://aireiter.com``.
        max_concurrency: Maximum HTTP exchanges in flight, and the size of the
            pool; at least 1.
        max_rate: Maximum requests per second, more than 0; None for no limit. Below
            it, the rate adapts to what the service accepts.
        timeout: Seconds per attempt, more than 0; for downloads, seconds
            between two reads.
        connect_timeout: Seconds per attempt for DNS, connect and TLS handshake,
            more than 0.
        retry: The policy for transient failures.
        polling: The policy for polling tasks.
        proxy: URL of an http or https proxy for all requests, with or without credentials. None
            reads ``HTTPS_PROXY``, ``HTTP_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``.
        trust_env: Whether to read these variables, once per host. Loopback addresses never use
            a proxy from them.
        ssl: An SSLContext to verify certificates with; False disables verification; None uses
            the system's authorities.
        session: A session to borrow, with its proxy, TLS and tracing settings; it
            is never closed or reconfigured. None: the client owns one.
        user_agent: The User-Agent; None for this package's own. The CDN in front of
            the service rejects some.
        allow_http: Whether *base_url* may be ``http://`` to another machine.
        max_image_side: Maximum pixels of the longer side of local images: larger ones
            are shrunk before they are sent, which needs the extra ``images``; see
            `data_url`. None sends them unchanged.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: An argument is out of range, or no key was given.
    """

    def __init__(  # noqa: PLR0913 - each is an option on its own
        self,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        max_concurrency: int = 64,
        max_rate: float | None = None,
        timeout: float = 120.0,
        connect_timeout: float = 10.0,
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008 - frozen
        polling: PollPolicy = PollPolicy(),  # noqa: B008 - frozen
        proxy: str | None = None,
        trust_env: bool = True,
        ssl: "SSLContext | bool | None" = None,
        session: "ClientSession | None" = None,
        user_agent: str | None = None,
        allow_http: bool = False,
        max_image_side: int | None = None,
    ) -> None:
        api_key, proxy = hide(api_key), hide(proxy)
        settings = read_settings(
            api_key=api_key,
            base_url=base_url,
            timeout=timeout,
            connect_timeout=connect_timeout,
            retry=retry,
            polling=polling,
            user_agent=user_agent,
            allow_http=allow_http,
            max_image_side=max_image_side,
        )
        check_count("max_concurrency", max_concurrency)
        if max_rate is not None:
            check_number("max_rate", max_rate, above=0)
        transport = Transport(session, proxy=proxy, trust_env=trust_env, ssl=ssl)
        start_logging()
        self._shared = Shared(transport, self._new_clock(), max_concurrency, max_rate)
        self._owner = True
        self._set_up(settings)

    @staticmethod
    def _new_clock() -> Clock:
        """Return the clock; tests override this."""
        return Clock()

    def _set_up(self, settings: Settings) -> None:
        self._settings = settings
        self._api = Api(self._shared, settings)

    async def __aenter__(self) -> Self:
        """Create the pool in the running event loop."""
        self._shared.transport.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the pool."""
        await self.close()

    async def close(self) -> None:
        """Close the pool if this client owns it; idempotent.

        Calls in progress end immediately: submits that may have arrived with an
        `AmbiguousSubmitError`, all others with a RuntimeError. A borrowed session
        stays open. Closing a view does nothing.
        """
        if self._owner:
            self._shared.clock.close()
            self._shared.threads.close()
            await asyncio.shield(self._shared.transport.close())

    async def aclose(self) -> None:
        """Alias of `close`, for ``contextlib.aclosing``."""
        await self.close()

    def __repr__(self) -> str:
        """Show the base URL, never the key."""
        settings = getattr(self, "_settings", None)  # missing if __init__ has raised
        return f"<{type(self).__name__} of {settings.base_url if settings else 'nothing'}>"

    def __reduce__(self) -> NoReturn:
        """Raise TypeError: neither the pool nor the key may be pickled."""
        raise TypeError("an AsyncClient cannot be pickled: create one in each process")

    def with_options(self, **options: Unpack[ViewOptions]) -> Self:
        """Return a view of this client with some options changed.

        The view shares the client's pool, throttle and statistics; closing it does
        nothing.

        Args:
            **options: ``api_key``, ``base_url``, ``timeout``,
                ``connect_timeout``, ``retry``, ``polling``, ``user_agent``,
                ``allow_http``, ``max_image_side``, as in the constructor.

        Raises:
            TypeError: There is no such option, or it is of the wrong type.
            ValueError: An option is out of range, or is one of
                ``max_concurrency``, ``max_rate``, ``proxy``, ``trust_env``, ``ssl`` and
                ``session``, which all views share.
        """
        if "api_key" in options:
            options["api_key"] = hide(options["api_key"])
        fixed = sorted(_SHARED_OPTIONS & options.keys())
        if fixed:
            raise ValueError(
                f"{', '.join(fixed)} are shared by all views: create another AsyncClient"
            )
        unknown = sorted(options.keys() - _OPTIONS)
        if unknown:
            known = ", ".join(sorted(_OPTIONS))
            raise TypeError(f"unknown option: {', '.join(unknown)}; the options are {known}")
        view = object.__new__(type(self))
        view._shared = self._shared
        view._owner = False
        settings: dict[str, Any] = {**attrs.asdict(self._settings, recurse=False), **options}
        view._set_up(read_settings(**settings))
        return view

    @property
    def max_concurrency(self) -> int:
        """Maximum HTTP exchanges in flight."""
        return self._shared.max_concurrency

    @property
    def stats(self) -> ClientStats:
        """A snapshot of the counters of the client and its views."""
        throttle, downloads = self._shared.throttle, self._shared.downloads
        counters = self._shared.counters
        totals = attrs.asdict(counters, recurse=False)
        totals["estimated_by_model"] = dict(counters.estimated_by_model)
        totals["used_by_model"] = dict(counters.used_by_model)
        return ClientStats(
            **totals,
            in_flight=throttle.in_flight + downloads.taken,
            waiting=throttle.waiting + downloads.waiting,
            rate=throttle.rate,
        )

    async def submit(
        self,
        request: SubmitRequest | Model | str,
        params: Mapping[str, Any] | None = None,
        *,
        out_task_id: str | None = None,
        channel: str | None = None,
        callback_url: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        maybe_sent: bool = False,
        idempotency: "IdempotencyStore | None" = None,
    ) -> Task:
        """Submit a request and return as soon as the service has accepted it.

        Every attempt sends the same ID and body. If a response is lost, the ID is queried
        before anything is sent again.

        Cancelling the call does not cancel an accepted task, which keeps running and is
        charged. The ID is logged at DEBUG before anything is sent; if the call is
        cancelled, a note on the exception holds it.

        Args:
            request: An instance of a class in `aireiter_async.models`, a
                `SubmitRequest`, or a model's name with *params*. The params of a model that
                this release knows are validated; those of others are passed through.
            params: The parameters for a model's name.
            out_task_id: Overrides the ID of the request; 1 to 64 characters of
                ``[A-Za-z0-9_-]``. One ID is one task: reuse it only for
                the same task, with *maybe_sent*.
            channel: ``base``, ``plus``, ``advanced`` or ``max``, if the model
                has it: channels differ in stability and price.
            callback_url: URL that the service calls when the task ends.
            metadata: Echoed back by the service.
            maybe_sent: Whether an earlier call may have sent the same request and lost the
                response. The ID, which must be given, is then queried before anything is
                sent; for an ID that was never sent, that takes the retry policy's
                ``settle`` seconds.
            idempotency: A store in which the ID, which must be given, is claimed right before
                each POST: of all calls with the ID, in any process, one submits, and the
                others return its task. The claim of a cancelled call expires *timeout* plus
                the retry policy's ``max_retry_after`` seconds after it was made, or twice its
                ``settle`` if that is longer.

        Returns:
            The task as the service first describes it, normally pending.

        Raises:
            AmbiguousSubmitError: The task may have been accepted, and the service could
                not be queried.
            APIError: The service rejected the request: nothing was charged.
            ConnectError: Nothing was sent.
            IDInUseError: The ID belongs to another request, by the service or the store.
            StoreError: The store cannot be used: nothing was sent.
            TypeError: An argument is of the wrong type.
            ValueError: An argument is out of range.
        """
        options = out_task_id, channel, callback_url, metadata
        # A plain SubmitRequest, as batches submit, needs no conversion.
        if type(request) is not SubmitRequest or params is not None or options != _NO_OPTIONS:
            request = await self._make_request(request, params, options, maybe_sent=maybe_sent)
        make = Submission if idempotency is None else _claimed_submission(idempotency)
        submission = make(self._api, request, maybe_sent=maybe_sent)
        call, dispatcher = submission.submit(), self._shared.events
        if dispatcher.listeners:
            call = dispatcher.observe(call, "submit", request.out_task_id, request.model)
        return await call

    async def _make_request(
        self,
        request: SubmitRequest | Model | str,
        params: Mapping[str, Any] | None,
        options: tuple[str | None, str | None, str | None, Mapping[str, Any] | None],
        *,
        maybe_sent: bool,
    ) -> SubmitRequest:
        """Make the request of a call from its arguments, with local media embedded."""
        out_task_id, channel, callback_url, metadata = options
        if maybe_sent and not (out_task_id or isinstance(request, SubmitRequest)):
            raise ValueError("maybe_sent needs the earlier call's ID: give it as out_task_id")
        if type(request) is str:
            await self._api.load_models()
        while True:
            try:
                return as_request(
                    request,
                    params,
                    out_task_id=out_task_id,
                    channel=channel,
                    callback_url=callback_url,
                    metadata=metadata,
                )
            except LocalMediaError as error:
                from aireiter_async._client._local_media import (  # noqa: PLC0415 - not for all
                    embed_media,
                )

                # Once more, with the request that has the media embedded.
                request, params = await embed_media(self._api, error.model), None

    async def run(  # noqa: PLR0913 - those of submit and of wait
        self,
        request: SubmitRequest | Model | str,
        params: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - followed by one final poll
        on_update: OnUpdate | None = None,
        out_task_id: str | None = None,
        channel: str | None = None,
        callback_url: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        maybe_sent: bool = False,
        idempotency: "IdempotencyStore | None" = None,
        webhooks: Webhooks | None = None,
    ) -> Task:
        """Submit a request, then wait until its task has completed.

        Args:
            request: As in `submit`.
            params: As in `submit`.
            timeout: Seconds for the whole call, including the submit; None for no limit. A
                final poll or query after it has the client's own *timeout*.
            on_update: As in `wait`; called with the submitted task first.
            out_task_id: As in `submit`.
            channel: As in `submit`.
            callback_url: As in `submit`.
            metadata: As in `submit`.
            maybe_sent: As in `submit`.
            idempotency: As in `submit`.
            webhooks: As in `wait`. Without a *callback_url*, polls are as frequent as ever.

        Returns:
            The completed task, with its outputs.

        Raises:
            RequestTimeoutError: Nothing was submitted within the timeout.
            TaskTimeoutError: The task is still running after the timeout:
                ``wait(error.task)`` resumes the wait.
            AireiterError: As in `submit` and `wait`.
            TypeError: An argument is of the wrong type.
            ValueError: An argument is out of range.
        """
        check_webhooks(webhooks)
        if timeout is not None:
            check_number("timeout", timeout)
        started = self._shared.clock.now()
        options = out_task_id, channel, callback_url, metadata
        # A plain SubmitRequest, as batches submit, needs no conversion.
        if type(request) is not SubmitRequest or params is not None or options != _NO_OPTIONS:
            request = await self._make_request(request, params, options, maybe_sent=maybe_sent)
        make = Submission if idempotency is None else _claimed_submission(idempotency)
        submission = make(self._api, request, maybe_sent=maybe_sent)
        call = self._run(submission, request, timeout, started, on_update, webhooks)
        dispatcher = self._shared.events
        if dispatcher.listeners:
            call = dispatcher.observe(call, "run", request.out_task_id, request.model)
        return await call

    async def _run(
        self,
        submission: Submission,
        request: SubmitRequest,
        timeout: float | None,  # noqa: ASYNC109 - counted from *started*
        started: float,
        on_update: OnUpdate | None,
        webhooks: Webhooks | None,
    ) -> Task:
        call = submission.submit() if timeout is None else submission.submit_within(timeout)
        dispatcher = self._shared.events
        if dispatcher.listeners:
            call = dispatcher.observe(call, "submit", request.out_task_id, request.model)
        task = await call
        left = None if timeout is None else max(0.0, started + timeout - self._shared.clock.now())
        watch = Watch(
            self._api,
            task,
            timeout=left,
            from_start=True,
            verify=partial(check_owner, request),
            webhooks=webhooks,
            expects_callback=request.callback_url is not None,
        )
        return await watch.finish(on_update)

    async def query(self, task_or_id: Task | str) -> Task:
        """Query a task once, whatever its status.

        Args:
            task_or_id: A task, or an ``out_task_id``. A task names the model, whose
                documentation its outputs are read by.

        Raises:
            TaskNotFoundError: The service knows no such task, or the ID is malformed.
            AireiterError: The service could not be queried, or rejected the request.
        """
        task = _as_task(task_or_id)
        return await self._api.query(task.out_task_id, task.model)

    async def find(self, task_or_id: Task | str) -> Task | None:
        """Look up a task that may not exist, such as after an ambiguous submit.

        A task may become visible only some time after its submit, so the ID is polled over
        the retry policy's ``settle`` seconds.

        Args:
            task_or_id: A task, or an ``out_task_id``.

        Returns:
            The task, or None if it was never found.

        Raises:
            AireiterError: The service could not be queried, or rejected the request.
        """
        try:
            task = _as_task(task_or_id)
        except TaskNotFoundError:
            return None
        return await self._api.find(task.out_task_id, task.model)

    async def wait(
        self,
        task_or_id: Task | str,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - followed by one final poll
        on_update: OnUpdate | None = None,
        webhooks: Webhooks | None = None,
    ) -> Task:
        """Wait until a task has completed.

        Args:
            task_or_id: A task, or an ``out_task_id``.
            timeout: Seconds from now; None for no limit. It is followed by one final poll,
                limited by the client's own *timeout*, including its time in the queue.
            on_update: A plain or async function, called with the task whenever its status
                changes. An exception from it ends the wait.
            webhooks: A `webhooks.Receiver` that the task's ``callback_url`` leads to. A callback
                causes a poll at once; other polls are rare.

        Returns:
            The completed task, with its outputs.

        Raises:
            TaskFailedError: The task failed.
            TaskTimeoutError: The task is still running after the timeout:
                ``wait(error.task)`` resumes the wait.
            TaskNotFoundError: The service does not know the task after the polling policy's
                ``grace``, or by the timeout.
            ResultMissingError: The task has completed without a result.
            AireiterError: The service rejects the query, asks for a longer pause than the
                retry policy's ``max_retry_after``, or has never responded at this base
                URL. Other failed polls do not end the wait.
        """
        task = _as_task(task_or_id)
        check_webhooks(webhooks)
        if timeout is not None:
            check_number("timeout", timeout)
        watch = Watch(self._api, task, timeout=timeout, reported=True, webhooks=webhooks)
        return await watch.finish(on_update)

    def watch(
        self,
        task_or_id: Task | str,
        *,
        timeout: float | None = None,
        webhooks: Webhooks | None = None,
    ) -> AsyncIterator[Task]:
        """Iterate over a task's status changes: the first status, then one item per change.

        The last item is the ended task; a failed task is an item, too. The task is
        polled only while an item is awaited; leaving the loop early needs no clean-up.

        Args:
            task_or_id: As in `wait`.
            timeout: As in `wait`.
            webhooks: As in `wait`.

        Raises:
            AireiterError: As in `wait`, except `TaskFailedError`.
            TypeError: An argument is of the wrong type.
            ValueError: An argument is out of range.
        """
        task = _as_task(task_or_id)
        check_webhooks(webhooks)
        if timeout is not None:
            check_number("timeout", timeout)
        return Watch(self._api, task, timeout=timeout, webhooks=webhooks)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call *listener* with every event of this client and its views.

        Args:
            listener: A plain function, called in the event loop with each event, an instance of
                a class in `aireiter_async.events`. Its exceptions are logged and suppressed.

        Returns:
            A function that ends the subscription.
        """
        return self._shared.events.subscribe(listener)

    async def balance(self) -> Balance:
        """Return the account's remaining credits and free tasks.

        Raises:
            AireiterError: The service could not be queried, or rejected the request.
        """
        api = self._api
        return await api.retry.call(Target("balance", api.host), api.exchange, api.balance_endpoint)

    @overload
    async def download(
        self,
        task_or_output: Task | Output,
        to: str | PathLike[str],
        *,
        name: str | Callable[[Output], str] | None = None,
    ) -> list[Path]: ...

    @overload
    async def download(
        self,
        task_or_output: Task | Output,
        to: "Sink",
        *,
        name: str | Callable[[Output], str] | None = None,
    ) -> list[str]: ...

    async def download(
        self,
        task_or_output: Task | Output,
        to: "str | PathLike[str] | Sink",
        *,
        name: str | Callable[[Output], str] | None = None,
    ) -> list[Path] | list[str]:
        """Save the results of a completed task, each completely or not at all.

        Covers of songs are not saved; lyrics are saved as text, and ``data:`` URLs
        are decoded. After a broken connection, the download resumes if the host
        supports it; if a URL has expired, the task is queried for a fresh one.

        Args:
            task_or_output: A completed task, or one of its outputs.
            to: A directory, created if missing, or a `Sink`.
            name: The files' name without suffix; None: the task's ID. A template
                may have the fields ``{out_task_id}``, ``{model}``, ``{n}`` (the
                output's number) and, if the service echoes it, ``{prompt}``,
                with a width or a maximum length, ``{prompt:.30}``; a function is
                called with each output. The suffix is derived from the content, the
                name is made safe for every system, and the number is appended
                if there are several outputs. A repeated download replaces its own
                file; in a directory, a name taken by another file gets ``-2``, and in a sink,
                a name of your own is followed by a digest of the task's ID.

        Returns:
            The paths, or what the sink returned, in the order of the outputs. Files
            have been flushed to disk.

        Raises:
            DownloadError: A result could not be saved; the others were.
            TypeError: An argument is of the wrong type.
            ValueError: The task has not completed, or *name* is not a file name.
        """
        downloader = await self._api.downloader()
        saved = await downloader.download(task_or_output, to, name)
        return [each.place for each in saved]

    async def read(self, output: Output) -> bytes:
        """Return the content of an output, or its text in UTF-8 if it has no URL.

        Raises:
            DownloadError: It could not be read.
            TypeError: *output* is not an Output.
        """
        downloader = await self._api.downloader()
        return await downloader.read(output)

    def budget(self, max_credits: float) -> "Budget":
        """Return a budget for several batches to share: pass it to each as *max_credits*.

        Args:
            max_credits: Credits that the batches may spend in total, at least 0.

        Raises:
            TypeError: *max_credits* is not a number.
            ValueError: It is negative.
        """
        from aireiter_async import _batch  # noqa: PLC0415 - not for all

        async def get_balance() -> float:
            return (await self.balance()).credits

        return _batch.Budget(check_number("max_credits", max_credits), get_balance)

    def submit_many(
        self,
        source: "Iterable[T] | AsyncIterable[T]",
        *,
        request: "Callable[[T], Request] | None" = None,
        ordered: bool = False,
        ledger: "Ledger | None" = None,
        max_credits: "float | Budget | None" = None,
        retry_failed: bool = False,
        idempotency: "IdempotencyStore | None" = None,
        on_progress: "OnProgress | None" = None,
    ) -> "Batch[T]":
        """Submit many requests; iterate over the batch for their outcomes.

        The source is pulled only when the window has room, so memory does not grow with its
        length, and a slow consumer slows it down. A failure is an outcome, too.

        Args:
            source: An iterable or async iterable of requests, or of anything with
                *request*. Requests without an ID get one; with a ledger, it is the same in
                every run.
            request: Returns the request for an item, or a model name and a mapping. An
                exception from it becomes the outcome of that item.
            ordered: Whether to yield outcomes in the order of the source.
            ledger: An open `Ledger`, to resume after a crash without paying twice.
            max_credits: Maximum credits to spend, including what the ledger has already
                spent: a number, or a `budget` that several batches share. A request that
                could exceed them is not submitted; cheaper ones still are. The price of a
                kind of task (its model, and the parameters that can set its price) is learned
                from one task: from its estimate, its charge or the balance. If none of them
                shows it, no further task of unknown price is submitted.
            retry_failed: Whether to submit tasks that failed or were rejected in an earlier
                run with this ledger again, under new IDs.
            idempotency: As in `submit`, instead of a *ledger*: each request needs an ID.
            on_progress: A plain or async function, called with a `BatchProgress` when it has
                changed, at most ten times a second, and at the end. An exception from it
                ends the batch and is raised to the consumer of the outcomes.

        Raises:
            TypeError: An argument is of the wrong type.
            ValueError: An argument is out of range.

        Iterating over the batch raises `LedgerError` if the ledger cannot be written, and any
        exception from *source* once the outcomes of all pulled items have been yielded.
        """
        from aireiter_async import _batch  # noqa: PLC0415 - not for all

        return _batch.submit_many(
            self,
            source,
            request=request,
            ordered=ordered,
            ledger=ledger,
            max_credits=max_credits,
            retry_failed=retry_failed,
            idempotency=idempotency,
            on_progress=on_progress,
        )

    def run_many(  # noqa: PLR0913 - the options of a batch
        self,
        source: "Iterable[T] | AsyncIterable[T]",
        *,
        request: "Callable[[T], Request] | None" = None,
        window: int | None = None,
        ordered: bool = False,
        ledger: "Ledger | None" = None,
        max_credits: "float | Budget | None" = None,
        timeout: float | None = None,
        download_to: "str | PathLike[str] | Sink | None" = None,
        name: "str | Callable[[T], str] | None" = None,
        retry_failed: bool = False,
        idempotency: "IdempotencyStore | None" = None,
        webhooks: Webhooks | None = None,
        on_progress: "OnProgress | None" = None,
    ) -> "Batch[T]":
        """Run many requests to completion; iterate over the batch for their outcomes.

        Like `submit_many`, but also wait for each task and, with *download_to*, save its
        results.

        Args:
            source: As in `submit_many`.
            request: As in `submit_many`.
            window: Maximum tasks outstanding: submitted, or about to be, and not yet
                yielded. It may far exceed the client's concurrency, which limits HTTP
                exchanges. None: four times that, and at least 256.
            ordered: As in `submit_many`.
            ledger: As in `submit_many`: ended tasks are yielded from it without an HTTP
                exchange, accepted ones are waited for, and those that may have been sent
                are looked up first.
            max_credits: As in `submit_many`; actual charges replace estimates, and refunds of
                failed tasks become available again.
            timeout: Seconds to wait for each task from its acceptance; None for no limit. A
                task that takes longer becomes an outcome with a `TaskTimeoutError`, and
                is waited for again in the next run.
            download_to: A directory for the results, created if missing, or a `Sink`.
            name: The name of an item's files without suffix; None: the task's ID. A
                template as in `download`, with the fields ``{index}``, ``{prompt}`` and,
                for mappings, their keys; or a function of the item, called before its submit.
            retry_failed: As in `submit_many`.
            idempotency: As in `submit_many`.
            webhooks: As in `run`, for the requests with a ``callback_url``, which a ledger does
                not store.
            on_progress: As in `submit_many`.

        Raises:
            TypeError: An argument is of the wrong type.
            ValueError: An argument is out of range.

        Iterating over the batch raises the same as `submit_many`, and `OSError` before anything
        is sent if the directory cannot be created or written.
        """
        from aireiter_async import _batch  # noqa: PLC0415 - not for all

        return _batch.run_many(
            self,
            source,
            request=request,
            window=window,
            ordered=ordered,
            ledger=ledger,
            max_credits=max_credits,
            timeout=timeout,
            download_to=download_to,
            name=name,
            retry_failed=retry_failed,
            idempotency=idempotency,
            webhooks=webhooks,
            on_progress=on_progress,
        )


def api_of(client: AsyncClient) -> Api:
    """Return a client's endpoints, for batches; internal, hence not a method."""
    return client._api  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]


def limit_to_share(client: AsyncClient, share: float) -> None:
    """Limit a new client to *share* of its rate and concurrency; internal, hence not a method."""
    shared = api_of(client).shared
    rate = shared.throttle.rate
    shared.set_limits(
        max(1, round(share * shared.max_concurrency)), None if rate is None else share * rate
    )


def _claimed_submission(store: "IdempotencyStore") -> Callable[..., Submission]:
    from aireiter_async._client._claims import claimed_submission  # noqa: PLC0415 - not for all

    return claimed_submission(store)


def _as_task(task_or_id: Task | str) -> Task:
    if isinstance(task_or_id, Task):
        return task_or_id
    try:
        return Task(check_id(task_or_id), TaskStatus.UNKNOWN)
    except ValueError as error:
        raise TaskNotFoundError(404, f"invalid ID: {error}") from None
