"""The endpoints: acquire a slot, exchange, read the response."""

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from attrs import frozen

from aireiter_async import _wire, events, models
from aireiter_async._client._settings import Settings
from aireiter_async._client._shared import Shared
from aireiter_async._redact import Redactor, Secret
from aireiter_async._retry import FailureClass, Retry, Target, failure_class, may_submit_again
from aireiter_async._tasks import Balance, Output, Task
from aireiter_async._text import host_of
from aireiter_async._transport import Route, Stream
from aireiter_async.errors import (
    AireiterError,
    APIError,
    ProtocolError,
    RateLimitError,
    TaskNotFoundError,
    TransportError,
)

if TYPE_CHECKING:
    from aireiter_async._client._downloading import Downloader

T = TypeVar("T")


class SubmitsHaltedError(RuntimeError):
    """A batch has stopped: this submit was not sent. Internal."""


@frozen(eq=False)
class Endpoint(Generic[T]):
    """The route of one kind of request, and the reader of its responses."""

    kind: events.RequestKind
    route: Route
    read: Callable[..., T]


class SubmitState(Protocol):
    """The part of a submit that its exchange reads and sets.

    Attributes:
        claim: Awaited right before the POST; if it raises, nothing is sent.
        may_exist: Set to True right before the POST.
    """

    claim: Callable[[], Awaitable[None]] | None
    may_exist: bool


class Api:
    """The endpoints, with the settings of one view.

    Attributes:
        host: The base URL's host, for the log.
        retry: Retries everything but submits.
        submit_retry: Retries submits.
        halted: Whether submits are blocked, because a batch has stopped.
    """

    def __init__(self, shared: Shared, settings: Settings) -> None:
        self.shared = shared
        self.settings = settings
        self.host = host_of(settings.base_url)
        sleep, on_retry = shared.clock.sleep, shared.note_retry
        self.retry = Retry(settings.retry, sleep=sleep, on_retry=on_retry)
        self.submit_retry = Retry(
            settings.retry, sleep=sleep, on_retry=on_retry, transient=may_submit_again
        )
        self.halted = False
        self._downloader_type: type[Downloader] | None = None
        self._redactor = Redactor(settings.api_key)
        self._is_responsive = False  # of this view; `has_responded` covers all views
        headers = {
            "Authorization": Secret(f"Bearer {settings.api_key}"),
            "Accept": "application/json",
            "User-Agent": settings.user_agent,
        }
        json_headers = {**headers, "Content-Type": "application/json"}
        self.submit_endpoint = Endpoint[Task](
            "submit", self._route("POST", _wire.SUBMIT_PATH, json_headers), _wire.read_submit
        )
        self.query_endpoint = Endpoint[Task](
            "query", self._route("POST", _wire.QUERY_PATH, json_headers), _wire.read_query
        )
        self.balance_endpoint = Endpoint[Balance](
            "balance", self._route("GET", _wire.BALANCE_PATH, headers), _wire.read_balance
        )
        # Without the key: results are on other hosts than the API.
        result_headers = {"User-Agent": settings.user_agent, "Accept-Encoding": "identity"}
        self._result_route = self._route("GET", "", result_headers)

    def _route(self, method: str, path: str, headers: Mapping[str, str]) -> Route:
        settings = self.settings
        return self.shared.transport.route(
            method,
            settings.base_url + path if path else "",
            headers=headers,
            timeout=settings.timeout,
            connect_timeout=settings.connect_timeout,
        )

    async def exchange(  # noqa: C901, PLR0912 - one path, top to bottom
        self,
        endpoint: Endpoint[T],
        body: bytes | None = None,
        out_task_id: str | None = None,
        *args: Any,
        submit: SubmitState | None = None,
    ) -> T:
        """Send one request once, and read the response with ``endpoint.read(reply, *args)``.

        Raises:
            AireiterError: No response arrived, or it reports an error; with *out_task_id*.
        """
        shared = self.shared
        throttle, dispatcher = shared.throttle, shared.events
        queued_at: float | None = None
        if dispatcher.listeners:
            queued_at = shared.clock.now()
            dispatcher.emit(events.RequestQueued(endpoint.kind, out_task_id))
        sent_at = throttle.try_acquire()
        if sent_at is None:
            sent_at = await throttle.acquire()
        reply = None
        try:
            try:
                if submit is not None:
                    if self.halted:
                        raise SubmitsHaltedError
                    if submit.claim is not None:
                        await submit.claim()
                    submit.may_exist = True
                shared.counters.requests += 1
                if dispatcher.listeners:
                    # None: the first listener was added while the request was queued.
                    queued = 0.0 if queued_at is None else sent_at - queued_at
                    dispatcher.emit(events.RequestSent(endpoint.kind, out_task_id, queued))
                reply = await shared.transport.exchange(endpoint.route, body)
            finally:
                throttle.release()
            value = endpoint.read(reply, *args)
            for form in self._redactor.forms:  # `Redactor.finds_key` inlined
                if form in reply.body:
                    value = self._redactor.redact(value)
        except (TransportError, ProtocolError, APIError) as error:
            if reply is not None and self._redactor.finds_key(reply):
                self._redactor.redact_error(error)
            if out_task_id is not None:
                error.out_task_id = out_task_id
            self._note_failure(error, endpoint, sent_at)
            raise
        throttle.accepted(sent_at)
        if not self._is_responsive:
            self._note_response()
        return value

    def _note_failure(self, error: AireiterError, endpoint: Endpoint[Any], sent_at: float) -> None:
        """Count a failed exchange, and report it to the throttle."""
        shared = self.shared
        if isinstance(error, RateLimitError):
            shared.counters.rate_limited += 1
            seconds = error.retry_after
            # This call raises instead of waiting that long, so others need not pause, either.
            longest = self.settings.retry.max_retry_after
            pause = None if seconds is not None and seconds > longest else seconds
            shared.throttle.rejected(sent_at, pause)
            if shared.events.listeners:
                shared.events.emit(events.RateLimited(seconds, error.out_task_id))
        elif isinstance(error, TaskNotFoundError):
            shared.throttle.accepted(sent_at)
            self._note_response()
        elif isinstance(error, APIError) and failure_class(error) is FailureClass.REJECTED:
            shared.throttle.accepted(sent_at)  # its rate was fine
        elif isinstance(error, ProtocolError) and error.message == _wire.OTHER_TASK:
            # A response was duplicated or lost: later ones may be off by one as well.
            shared.transport.close_idle()
        elif isinstance(error, TransportError) and endpoint is not self.submit_endpoint:
            shared.transport.open()  # raises if the client was closed meanwhile

    def _note_response(self) -> None:
        self._is_responsive = True
        self.shared.responsive.add(self.settings.base_url)

    @property
    def has_responded(self) -> bool:
        """Whether the base URL has ever responded as the API."""
        return self.settings.base_url in self.shared.responsive

    async def load_models(self) -> None:
        """Import the catalogue in a thread, before a model is looked up in it."""
        if not models.loaded():  # pragma: no cover - in another process
            self.shared.transport.open()  # raises if the client is closed, and its threads with it
            await self.shared.threads.run(models.load)

    async def downloader(self) -> "Downloader":
        """Return a downloader; it is imported in a thread the first time, as it takes a while."""
        self.shared.transport.open()  # raises if the client is closed, and its threads with it
        if self._downloader_type is None:
            self._downloader_type = await self.shared.threads.run(_import_downloader)
        return self._downloader_type(self)

    async def find(self, out_task_id: str, model: str | None) -> Task | None:
        """Query a task over the policy's ``settle`` seconds; None if it was never found.

        Raises:
            AireiterError: The service could not be queried.
        """
        for seconds in self.settings.retry.settle_waits():
            if seconds:
                await self.shared.clock.sleep(seconds)
            try:
                return await self.query(out_task_id, model)
            except TaskNotFoundError:
                continue
        return None

    async def query(self, out_task_id: str, model: str | None) -> Task:
        """Query a task, with retries.

        Raises:
            TaskNotFoundError: The service knows no such task.
            AireiterError: The service could not be queried, or rejected the query.
        """
        if model is not None:
            await self.load_models()
        target = Target("query", self.host, out_task_id)
        return await self.retry.call(target, self.query_once, out_task_id, model)

    async def fresh_url(self, output: Output, model: str | None) -> str | None:
        """Query an output's task, which must be known, for the URL that the output has now.

        Raises:
            AireiterError: As in `query`.
        """
        task = await self.query(str(output.out_task_id), model)
        return next((each.url for each in task.outputs[output.number - 1 : output.number]), None)

    def query_once(self, out_task_id: str, model: str | None) -> Coroutine[Any, Any, Task]:
        body = _wire.encode_query(out_task_id)
        # The second ID is the reader's.
        return self.exchange(self.query_endpoint, body, out_task_id, out_task_id, model)

    @asynccontextmanager
    async def result(
        self, out_task_id: str | None, url: str, headers: Mapping[str, str]
    ) -> AsyncIterator[Stream]:
        """Stream a result from its host, without sending the key."""
        shared = self.shared
        queued_at = shared.clock.now()
        if shared.events.listeners:
            shared.events.emit(events.RequestQueued("result", out_task_id))
        await shared.downloads.acquire()
        try:
            shared.counters.requests += 1
            if shared.events.listeners:
                queued = shared.clock.now() - queued_at
                shared.events.emit(events.RequestSent("result", out_task_id, queued))
            async with shared.transport.stream(self._result_route, url, headers) as stream:
                yield stream
        except TransportError:
            shared.transport.open()  # raises if the client was closed meanwhile
            raise
        finally:
            shared.downloads.release()


def _import_downloader() -> "type[Downloader]":
    from aireiter_async._client._downloading import Downloader  # noqa: PLC0415 - not for all

    return Downloader
