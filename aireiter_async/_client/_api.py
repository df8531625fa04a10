"""Each endpoint, once: a slot, an exchange, and the answer read.

Here, and only here, the throttle, the transport and the wire meet.
"""

from collections import defaultdict
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any, TypeVar

from attrs import define, field

from aireiter_async import _wire
from aireiter_async._client._settings import Settings
from aireiter_async._client._sleeping import Sleeping
from aireiter_async._poll import Durations
from aireiter_async._redact import Redactor, Secret
from aireiter_async._requests import SubmitRequest
from aireiter_async._retry import refused
from aireiter_async._tasks import Balance, Task
from aireiter_async._throttle import Throttle
from aireiter_async._transport import Route, Stream, Transport
from aireiter_async.errors import (
    AireiterError,
    APIError,
    ProtocolError,
    RateLimitError,
    TransportError,
)

T = TypeVar("T")


@define
class Counters:
    """What has happened so far; `ClientStats` is its snapshot and says what each means."""

    requests: int = 0
    retries: int = 0
    submitted: int = 0
    settled: int = 0
    completed: int = 0
    failed: int = 0
    rate_limited: int = 0
    credits_estimated: float = 0.0
    credits_unknown: int = 0
    credits_used: float = 0.0
    bytes_downloaded: int = 0
    estimated_by_model: defaultdict[str, float] = field(factory=partial(defaultdict, float))
    used_by_model: defaultdict[str, float] = field(factory=partial(defaultdict, float))

    def count_retry(self, _error: AireiterError) -> None:
        """Count an error that is going to be retried."""
        self.retries += 1


@define
class Shared:
    """What a client shares with its views: the pool, the throttle, and what was learned."""

    transport: Transport
    throttle: Throttle
    sleeping: Sleeping
    counters: Counters = field(factory=Counters)
    durations: Durations = field(factory=Durations)


class Api:
    """The endpoints of the service, one attempt each.

    Args:
        shared: The pool and the pace.
        settings: The key, the base URL and the timeouts.
    """

    def __init__(self, shared: Shared, settings: Settings) -> None:
        self._shared = shared
        self._settings = settings
        self._redactor = Redactor(settings.api_key)
        headers = {
            "Authorization": Secret(f"Bearer {settings.api_key}"),
            "Accept": "application/json",
            "User-Agent": settings.user_agent,
        }
        json_headers = {**headers, "Content-Type": "application/json"}
        # No key here: results live on other hosts than the API's.
        result_headers = {"User-Agent": settings.user_agent, "Accept-Encoding": "identity"}

        def route(method: str, path: str, headers: Mapping[str, str]) -> Route:
            return shared.transport.route(
                method,
                settings.base_url + path if path else "",
                headers=headers,
                timeout=settings.timeout,
                connect_timeout=settings.connect_timeout,
            )

        self._submit_route = route("POST", _wire.SUBMIT_PATH, json_headers)
        self._query_route = route("POST", _wire.QUERY_PATH, json_headers)
        self._balance_route = route("GET", _wire.BALANCE_PATH, headers)
        self._result_route = route("GET", "", result_headers)

    def submit(self, request: SubmitRequest, body: bytes) -> Coroutine[Any, Any, Task]:
        """Send *body*, the encoded *request*, and return the task that was accepted."""
        about = request.out_task_id
        return self._exchange(self._submit_route, body, about, _wire.read_submit, request)

    def query(self, out_task_id: str, model: str | None) -> Coroutine[Any, Any, Task]:
        """Ask for the task once."""
        body = _wire.encode_query(out_task_id)
        about = out_task_id
        return self._exchange(self._query_route, body, about, _wire.read_query, about, model)

    def balance(self) -> Coroutine[Any, Any, Balance]:
        """Ask for the balance once."""
        return self._exchange(self._balance_route, None, None, _wire.read_balance)

    def result(self, url: str) -> Stream:
        """Get a result from its host, without the key; the caller holds a slot."""
        return self._shared.transport.stream(self._result_route, url)

    async def _exchange(
        self,
        route: Route,
        body: bytes | None,
        about: str | None,
        read: Callable[..., T],
        *args: object,
    ) -> T:
        try:
            return await self._exchange_once(route, body, read, *args)
        except (TransportError, ProtocolError, APIError) as error:
            if about is not None:
                error.out_task_id = about
            raise

    async def _exchange_once(
        self, route: Route, body: bytes | None, read: Callable[..., T], *args: object
    ) -> T:
        throttle = self._shared.throttle
        left_at = await throttle.acquire()
        try:
            self._shared.counters.requests += 1
            reply = await self._shared.transport.exchange(route, body)
        except TransportError:
            if route is not self._submit_route:  # which may have been accepted
                self._shared.transport.open()  # it says so if the client was closed meanwhile
            raise
        finally:
            throttle.release()
        if self._redactor.finds_key(reply):
            reply = self._redactor.redact(reply)
        try:
            answer = read(reply, *args)
        except RateLimitError as error:
            self._shared.counters.rate_limited += 1
            asked = error.retry_after
            # A wait that is refused, not waited, must not hold up the callers that come next.
            longest = self._settings.retry.max_retry_after
            throttle.refused(left_at, 0.0 if asked is not None and asked > longest else asked)
            raise
        except APIError as error:
            if refused(error):  # and not for its pace: a task that is not found is an answer, too
                throttle.accepted()
            raise
        throttle.accepted()
        return answer
