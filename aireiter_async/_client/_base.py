"""What a client is before it does anything: its options, its pool, its views."""

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn, Self, TypedDict, Unpack

import attrs

from aireiter_async._arguments import check_count, check_number
from aireiter_async._client._api import Api, Shared
from aireiter_async._client._downloading import Downloading
from aireiter_async._client._settings import Settings, read_settings
from aireiter_async._client._sleeping import Sleeping
from aireiter_async._client._submission import Submission
from aireiter_async._client._waiting import Waiting
from aireiter_async._poll import PollPolicy
from aireiter_async._redact import hide
from aireiter_async._retry import RetryPolicy, retrying
from aireiter_async._tasks import ClientStats
from aireiter_async._throttle import Throttle
from aireiter_async._transport import Transport

if TYPE_CHECKING:
    from ssl import SSLContext

    from aiohttp import ClientSession

_SHARED_OPTIONS = {"max_concurrency", "max_rate", "proxy", "trust_env", "ssl", "session"}
_VIEW_OPTIONS = {field.name for field in attrs.fields(Settings)}


class Options(TypedDict, total=False):
    """The options that a view of a client may have for itself."""

    api_key: str | None
    base_url: str | None
    timeout: float
    connect_timeout: float
    retry: RetryPolicy
    polling: PollPolicy
    user_agent: str | None
    allow_http: bool


class ClientBase:
    """The life of a client, without its verbs; `AsyncClient` documents both."""

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
        )
        check_count("max_concurrency", max_concurrency)
        if max_rate is not None:
            check_number("max_rate", max_rate, above=0)
        self._max_concurrency = max_concurrency
        sleeping = Sleeping()
        throttle = Throttle(max_concurrency, max_rate, sleep=sleeping.sleep)
        transport = Transport(
            session, limit=max_concurrency, proxy=proxy, trust_env=trust_env, ssl=ssl
        )
        shared = Shared(transport, throttle, sleeping)
        self._assemble(shared, settings, owner=True)

    def _assemble(self, shared: Shared, settings: Settings, *, owner: bool) -> None:
        self._shared = shared
        self._settings = settings
        self._owner = owner
        counters, policy, sleep = shared.counters, settings.retry, shared.sleeping.sleep
        api = Api(shared, settings)
        self._query = retrying(api.query, policy, counters.count_retry, sleep)
        self._balance = retrying(api.balance, policy, counters.count_retry, sleep)
        self._submission = Submission(api, self._query, policy, counters, sleep)
        self._waiting = Waiting(api, settings.polling, shared.durations, counters, sleep=sleep)
        self._downloading = Downloading(api, shared, policy)

    async def __aenter__(self) -> Self:
        """Make the pool, in the running event loop."""
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
        """Close the pool, if this client owns it; closing again does nothing.

        Calls under way end at once: submits that may have arrived in an
        `AmbiguousSubmitError`, everything else in a RuntimeError. A borrowed
        session stays open. Closing a view does nothing.
        """
        if self._owner:
            self._shared.sleeping.close()
            await asyncio.shield(self._shared.transport.close())

    def __repr__(self) -> str:
        """Show where the client points; never the key."""
        settings = getattr(self, "_settings", None)  # none where its options were refused
        return f"<{type(self).__name__} of {settings.base_url if settings else 'nothing'}>"

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled: a pool and a key do not travel."""
        raise TypeError("an AsyncClient cannot be pickled: make one in each process")

    def with_options(self, **options: Unpack[Options]) -> Self:
        """Make a view of this client with some options changed.

        The view shares pool, throttle, statistics and session; closing it leaves
        them open.

        Args:
            **options: ``api_key``, ``base_url``, ``timeout``,
                ``connect_timeout``, ``retry``, ``polling``, ``user_agent``,
                ``allow_http``, as in the constructor.

        Raises:
            TypeError: There is no such option, or it is of the wrong type.
            ValueError: An option is out of its range, or is one of
                ``max_concurrency``, ``max_rate``, ``proxy``, ``trust_env``, ``ssl`` and
                ``session``, which belong to what the views share.
        """
        if "api_key" in options:
            options["api_key"] = hide(options["api_key"])
        fixed = sorted(_SHARED_OPTIONS & options.keys())
        if fixed:
            raise ValueError(
                f"{', '.join(fixed)} belong to what all views share: make another AsyncClient"
            )
        unknown = sorted(options.keys() - _VIEW_OPTIONS)
        if unknown:
            known = ", ".join(sorted(_VIEW_OPTIONS))
            raise TypeError(f"no such option: {', '.join(unknown)}; there are {known}")
        current = self._settings
        view = object.__new__(type(self))
        view._max_concurrency = self._max_concurrency
        view._assemble(
            self._shared,
            read_settings(**{**attrs.asdict(current, recurse=False), **options}),
            owner=False,
        )
        return view

    @property
    def max_concurrency(self) -> int:
        """How many HTTP exchanges may be in flight at once."""
        return self._max_concurrency

    @property
    def stats(self) -> ClientStats:
        """What the client and its views have done so far: a frozen snapshot."""
        throttle, counters = self._shared.throttle, self._shared.counters
        done = attrs.asdict(counters, recurse=False)
        done["estimated_by_model"] = dict(counters.estimated_by_model)
        done["used_by_model"] = dict(counters.used_by_model)
        return ClientStats(
            **done,
            in_flight=throttle.in_flight,
            waiting=throttle.waiting,
            rate=throttle.rate,
        )
