"""The connection pool and its exchanges.

aiohttp is tuned here for many small exchanges with one host: a pool without a limit (the client's
slots are the limit, in FIFO order), idle connections closed well before a CDN closes them (a POST
on a connection that the peer has just closed is ambiguous), one DNS lookup for all connects, no
cookies, and no redirects of requests that carry the key.
"""

import asyncio
import io
import logging
import os
import socket
import ssl as tls
import time
import warnings
import weakref
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from typing import Any, Final

import aiohttp
from attrs import define
from yarl import URL

from aireiter_async._envelope import Reply, protocol_error
from aireiter_async._text import host_of
from aireiter_async._transport._addresses import GuardedResolver
from aireiter_async._transport._body import read_body
from aireiter_async._transport._deadlines import Deadlines
from aireiter_async._transport._leases import Leases, RequestTemplate, forget_address
from aireiter_async._transport._proxies import Proxies, Proxy
from aireiter_async._transport._stream import Stream, only_headers
from aireiter_async.errors import ConnectError

CLOSED: Final = "this AsyncClient is closed: create a new one"

_KEEPALIVE: Final = 12.0  # seconds
_DNS_TTL: Final = 300  # seconds
# Bytes beyond which aiohttp wants a file object instead of bytes.
_LARGE_BODY: Final = 1024 * 1024
# Maximum bytes per read of a socket.
_READ_SIZE: Final = 64 * 1024
# Bytes per header and status line: a CDN's may exceed aiohttp's limit of 8,190.
_MAX_HEADER: Final = 64 * 1024
# Headers of one response: the servers on the way may add more than aiohttp's 128.
_MOST_HEADERS: Final = 512

_log = logging.getLogger(__name__)

_AddressInfo = tuple[int, int, int, str, Any]


class _Connector(aiohttp.TCPConnector):
    """A connector that checks idle connections and shrinks their read buffers."""

    def __init__(self, **options: Any) -> None:
        super().__init__(socket_factory=self._make_socket, **options)
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    def _make_socket(self, address: _AddressInfo) -> socket.socket:
        made = socket.socket(*address[:3])
        self._sockets.add(made)
        return made

    def abandon(self) -> None:
        """Close this process's copies of the sockets, which it shares with its parent.

        Closing the connections would also shut TLS down for the parent, and unregister the sockets
        from the selector, which is shared as well.
        """
        for each in self._sockets:
            if (descriptor := each.detach()) >= 0:
                os.close(descriptor)

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Any],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's signature
    ) -> Any:
        connection = await super().connect(req, traces, timeout)
        # Bytes that arrived on an idle connection would be read as the response to this request.
        while connection.protocol is not None and connection.protocol.should_close:
            connection.close()
            connection = await super().connect(req, traces, timeout)
        # asyncio's selector transport allocates its ``max_size``, 256 KiB, for every read: a sixth
        # of an exchange's CPU time. uvloop has no such attribute.
        transport: Any = connection.transport
        if getattr(transport, "max_size", 0) > _READ_SIZE:
            transport.max_size = _READ_SIZE
        return connection


@define(eq=False, repr=False, kw_only=True)
class Route:
    """The target and settings of one kind of request; created by `Transport.route`.

    Attributes:
        url: An absolute URL; empty for results, each of which has its own.
        deadlines: Limit an exchange from its start to the last byte of its response, or each
            read of a stream.
        limits: aiohttp's timeouts for a stream.
        options: aiohttp's options for an exchange.
        template: For the short path; None before the first exchange, or if not available.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    deadlines: Deadlines
    limits: aiohttp.ClientTimeout
    options: Mapping[str, Any]
    template: RequestTemplate | None = None


class Transport:
    """One connection pool: owned, or borrowed with the caller's session.

    Args:
        session: A session to borrow, neither reconfigured nor closed. None: `open` creates one
            in the running loop.
        proxy: URL of a proxy for all requests, with or without credentials.
        trust_env: Whether to read the environment's proxy variables.
        ssl: A context to verify certificates with, False to skip that, None for the default.

    Attributes:
        path: The path that POSTs take: ``short``, ``session``, or None before the first.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: *proxy* is not an http or https URL, or *proxy* or *ssl* was passed with
            *session*.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession | None,
        *,
        proxy: str | None = None,
        trust_env: bool = True,
        ssl: tls.SSLContext | bool | None = None,
    ) -> None:
        self._session = session
        self._borrowed = session is not None
        self._proxies = Proxies(proxy, trust_env=trust_env and not self._borrowed)
        self._ssl = True if ssl is None else ssl
        self._resolver = GuardedResolver()
        self._leases: Leases | None = None
        self.path: str | None = None
        self._deadlines: weakref.WeakValueDictionary[float, Deadlines] = (
            weakref.WeakValueDictionary()
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._process = 0
        if session is not None and not isinstance(session, aiohttp.ClientSession):
            self._session, kind = None, type(session).__name__  # `__del__` would use it
            raise TypeError(f"session must be an aiohttp.ClientSession, got {kind}")
        if not isinstance(ssl, tls.SSLContext | bool | None):
            raise TypeError(f"ssl must be an SSLContext, False or None, got {type(ssl).__name__}")
        if self._borrowed and not (proxy is None and ssl is None):
            raise ValueError("proxy and ssl belong to the borrowed session: configure them there")

    def route(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        timeout: float,
        connect_timeout: float,
    ) -> Route:
        """Make a route for requests of one kind; *url* is empty for results."""
        proxy = None
        with suppress(ValueError):  # an invalid URL fails when it is used
            if url:
                parsed = URL(url)
                self._resolver.add_service(parsed.raw_host or "")
                proxy = self._find_proxy(parsed)
        # A borrowed session may queue requests for a connection, and aiohttp's connect timeout
        # includes that: use the one that limits the handshakes only.
        connect = {"sock_connect" if self._borrowed else "connect": min(connect_timeout, timeout)}
        return Route(
            method=method,
            url=url,
            headers=headers,
            deadlines=self._deadlines.setdefault(timeout, Deadlines(timeout)),
            limits=aiohttp.ClientTimeout(total=None, sock_read=timeout, **connect),
            options={
                "timeout": aiohttp.ClientTimeout(total=None, **connect),
                **_options(url, headers, proxy),
            },
        )

    def open(self) -> aiohttp.ClientSession:
        """Return the session, bound to the running loop from the first call on.

        Raises:
            RuntimeError: The pool is closed, or belongs to another event loop or process.
        """
        loop, process = asyncio.get_running_loop(), os.getpid()
        if self._loop is not loop or self._process != process or self._closed:
            self._check(loop)
            if self._session is None:
                self._session = aiohttp.ClientSession(
                    connector=_Connector(
                        limit=0,  # the client's slots are the limit, and idle leases would count
                        keepalive_timeout=_KEEPALIVE,
                        resolver=self._resolver,
                        ssl=self._ssl,
                        ttl_dns_cache=_DNS_TTL,
                    ),
                    cookie_jar=aiohttp.DummyCookieJar(),
                )
                self._leases = Leases(self._session, keepalive=_KEEPALIVE)
            self._loop, self._process = loop, process
        assert self._session is not None  # noqa: S101 - it was made for this loop
        return self._session

    def _check(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._closed:
            raise RuntimeError(CLOSED)
        if self._is_forked():
            raise RuntimeError("this AsyncClient was used before a fork: create one per process")
        if self._loop is not None and self._loop is not loop:
            raise RuntimeError(
                "this AsyncClient belongs to another event loop: create one per loop"
            )

    async def close(self) -> None:
        """Abort what is in flight, and close the pool if it is owned; idempotent."""
        self._closed = True
        if self._is_forked():
            self._close_now()
            return
        for deadlines in list(self._deadlines.values()):
            deadlines.close()
        if self._leases is not None:
            self._leases.close()
        if not self._borrowed and self._session is not None:
            await self._session.close()
        await self._resolver.close()

    def _is_forked(self) -> bool:
        """Return whether the sockets and the selector are shared with the parent process."""
        return self._process not in {0, os.getpid()}

    def _close_now(self) -> bool:
        """Close the pool without waiting for its connections, and return whether it was open."""
        connector = None if self._session is None else self._session.connector
        if self._borrowed or self._session is None or connector is None or connector.closed:
            return False
        if self._is_forked() and isinstance(connector, _Connector):
            connector.abandon()
        if self._leases is not None:  # pragma: no branch - none on the session path
            self._leases.close()
        self._session.detach()  # otherwise it emits its own warning
        next(connector.close().__await__(), None)  # the first step closes; the rest only waits
        return True

    def __del__(self) -> None:
        """Warn about a pool that was left open."""
        if self._close_now():
            warnings.warn(
                "unclosed AsyncClient: use 'async with AsyncClient(...)' or 'await client.close()'",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )

    def exchange(self, route: Route, body: bytes | None) -> Coroutine[Any, Any, Reply]:
        """Send one request and read the whole response; redirects are not followed.

        Raises:
            ConnectError: Nothing was sent.
            RequestTimeoutError: The response was not complete in time.
            TransportError: The connection broke.
            ProtocolError: The response is too long.
            RuntimeError: The pool is closed, or belongs to another event loop.
            ValueError: A borrowed session has its own credentials for the host.
        """
        # The check in `open`, inlined to save nearly every exchange a call.
        if (
            self._loop is not asyncio.get_running_loop()
            or self._process != os.getpid()
            or self._closed
        ):
            self.open()
        leases = self._leases
        if leases is None or body is None or len(body) > _LARGE_BODY:
            return self._exchange_by_session(route, body)
        if route.template is None:
            return self._exchange_first(leases, route, body)
        return leases.exchange(route, route.template, body)

    async def _exchange_first(self, leases: Leases, route: Route, body: bytes) -> Reply:
        """Choose the path of a route and use it."""
        template, reason = None, ""
        if "proxy" in route.options:
            reason = "there is a proxy"
        elif self.open().trace_configs:  # by an instrumentation, which sees the session only
            reason = "the session is traced"
        else:
            with route.deadlines:
                template = await leases.make_template(route)
            if template is None:
                reason = "this aiohttp is not supported"
                self._leases = None
                leases.close()
        if template is None:
            self._note_path(route, "session", reason)
            return await self._exchange_by_session(route, body)
        self._note_path(route, "short")
        route.template = template
        return await leases.exchange(route, template, body)

    def _note_path(self, route: Route, path: str, reason: str = "") -> None:
        if self.path != path:
            self.path = path
            because = f": {reason}" if reason else ""
            _log.debug(
                "connect to %s: requests take the %s path%s", host_of(route.url), path, because
            )

    def close_idle(self) -> None:
        """Close the idle connections, after one of them has responded to an earlier request."""
        if self._leases is not None:
            self._leases.close_idle()

    def forget_address(self, url: str) -> None:
        """Drop the cached address of *url*'s host, or of its proxy: it may have changed."""
        with suppress(ValueError):
            parsed = URL(url)
            proxy = self._find_proxy(parsed)
            if self._session is not None and not self._borrowed:
                forget_address(self._session, parsed if proxy is None else URL(proxy.url))

    def _find_proxy(self, url: URL) -> Proxy | None:
        proxy = self._proxies.find(url)
        if proxy is not None:
            self._resolver.add_proxy(URL(proxy.url).raw_host or "")
        return proxy

    async def _exchange_by_session(self, route: Route, body: bytes | None) -> Reply:
        try:
            with route.deadlines:
                return await self._send(route, body)
        except ConnectError:
            self.forget_address(route.url)
            raise

    async def _send(self, route: Route, body: bytes | None) -> Reply:
        session = self.open()
        response: aiohttp.ClientResponse | None = None
        data: bytes | io.BytesIO | None = body
        if body is not None and len(body) > _LARGE_BODY:
            data = io.BytesIO(body)
        try:
            response = await session.request(route.method, route.url, data=data, **route.options)
            content = await read_body(response.content)
            reply = Reply(response.status, response.headers, content or b"", time.time())
            if content is None:
                response.close()
        except BaseException as error:
            if response is not None:
                response.close()
            if isinstance(error, ValueError) and "AUTHORIZATION" in str(error):
                raise ValueError(
                    "the borrowed session has its own credentials for base_url's host (auth, "
                    "or trust_env and an entry in netrc), with which aiohttp does not send the API "
                    "key: remove them from the session"
                ) from error
            raise
        finally:
            response = None  # its repr shows headers, which may echo the key
        if content is None:
            raise protocol_error("the response is too long", reply)
        return reply

    def stream(self, route: Route, url: str, headers: Mapping[str, str] | None = None) -> Stream:
        """Return a stream of the result at *url*; *route* and *headers* must not hold the key."""
        self.open()
        return Stream(self, route, url, headers or {})

    async def get(
        self, url: URL, headers: Mapping[str, str], limits: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:
        """Request one URL of a result; redirects are not followed.

        Raises:
            ValueError: The host is or has a private address.
        """
        session = self.open()
        await self._resolver.check(url.raw_host or "")
        options = _options(url, headers, self._find_proxy(url))
        options["auto_decompress"] = False  # aiohttp accepts a truncated gzip as complete
        # A request's own middlewares replace those of the session.
        others = getattr(session, "_middlewares", ())
        options["middlewares"] = (only_headers({*session.headers, *options["headers"]}), *others)
        return await session.get(url, timeout=limits, **options)


def _options(url: str | URL, headers: Mapping[str, str], proxy: Proxy | None) -> dict[str, Any]:
    """Return the options common to all requests."""
    options: dict[str, Any] = {
        "headers": headers,
        "allow_redirects": False,
        "raise_for_status": False,
        "auto_decompress": True,
        "max_line_size": _MAX_HEADER,
        "max_field_size": _MAX_HEADER,
        "max_headers": _MOST_HEADERS,
    }
    if proxy is not None:
        options["proxy"] = proxy.url
        if URL(url).scheme == "https":
            options["proxy_headers"] = proxy.headers
        else:  # without CONNECT, the proxy reads the request itself
            options["headers"] = {**headers, **proxy.headers}
    return options
