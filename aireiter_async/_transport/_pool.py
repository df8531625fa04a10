"""The connection pool, and one exchange over it.

aiohttp is tuned here for many small exchanges with one host: a pool as large as the client's own
semaphore (so that its unfair queue is never used), idle connections dropped well before a CDN
drops them (a POST on a connection that the other side has just closed is ambiguous), one DNS
lookup for all connects, no cookies, no redirects where the key travels.
"""

import asyncio
import io
import os
import time
import warnings
import weakref
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import aiohttp
from attrs import define

from aireiter_async._envelope import Reply, protocol_error
from aireiter_async._transport._body import read_body
from aireiter_async._transport._deadlines import Deadlines
from aireiter_async._transport._results import Stream

CLOSED: Final = "this AsyncClient is closed: make a new one"

_KEEPALIVE: Final = 12.0
_DNS_TTL: Final = 300
# Bytes beyond which aiohttp asks for a file object instead of bytes.
_LARGE_BODY: Final = 1024 * 1024
# Bytes that one read of a socket takes at most.
_READ_SIZE: Final = 64 * 1024


class _Connector(aiohttp.TCPConnector):
    """A connector of clean connections, that read into small buffers if they are plain ones."""

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Any],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's signature
    ) -> Any:
        connection = await super().connect(req, traces, timeout)
        # Bytes that arrived while it was idle would be taken for the response to this request.
        while connection.protocol is not None and connection.protocol.should_close:
            connection.close()
            connection = await super().connect(req, traces, timeout)
        # asyncio's selector transport allocates its ``max_size``, 256 KiB, anew for each read,
        # and a response has one: a sixth of an exchange's CPU time. uvloop has no such attribute.
        transport: Any = connection.transport
        if getattr(transport, "max_size", 0) > _READ_SIZE:
            transport.max_size = _READ_SIZE
        return connection


@define(eq=False, repr=False, kw_only=True)
class Route:
    """Where requests of one kind go, and how; `Transport.route` makes it.

    Attributes:
        method: ``GET`` or ``POST``.
        url: An absolute URL; empty for results, which have their own.
        headers: Sent with each request.
        deadlines: Limit an exchange from its beginning to the last byte of its response, or a
            stream between two reads.
        limits: Of an exchange, for aiohttp.
        read_limits: Of a stream, for aiohttp.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    deadlines: Deadlines
    limits: aiohttp.ClientTimeout
    read_limits: aiohttp.ClientTimeout


class Transport:
    """One connection pool: owned, or borrowed with the caller's session.

    Args:
        session: A session to borrow: it is neither reconfigured nor closed. None: `open` makes
            one in the running loop.
        limit: The maximum number of connections per host.
    """

    def __init__(self, session: aiohttp.ClientSession | None, *, limit: int) -> None:
        self._session = session
        self._lent = session is not None
        self._limit = limit
        self._deadlines: weakref.WeakValueDictionary[float, Deadlines] = (
            weakref.WeakValueDictionary()
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._process = 0
        if session is not None and not isinstance(session, aiohttp.ClientSession):
            kind = type(session).__name__
            raise TypeError(f"session must be an aiohttp.ClientSession, got {kind}")

    def route(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        timeout: float,
        connect_timeout: float,
    ) -> Route:
        """Make a route for requests of one kind.

        Args:
            method: ``GET`` or ``POST``.
            url: An absolute URL; empty for results.
            headers: Sent with each request.
            timeout: Seconds for each exchange, and for each read of a stream.
            connect_timeout: Seconds for DNS, connect and TLS handshake.
        """
        # A borrowed session may queue a request for a connection, and aiohttp's connect timeout
        # counts that: there it limits the handshakes only.
        connect = {"sock_connect" if self._lent else "connect": min(connect_timeout, timeout)}
        return Route(
            method=method,
            url=url,
            headers=headers,
            deadlines=self._deadlines.setdefault(timeout, Deadlines(timeout)),
            limits=aiohttp.ClientTimeout(total=None, **connect),
            read_limits=aiohttp.ClientTimeout(total=None, sock_read=timeout, **connect),
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
                        limit=self._limit,
                        keepalive_timeout=_KEEPALIVE,
                        ttl_dns_cache=_DNS_TTL,
                    ),
                    cookie_jar=aiohttp.DummyCookieJar(),
                )
            self._loop, self._process = loop, process
        assert self._session is not None  # noqa: S101 - it was made for this loop
        return self._session

    def _check(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._closed:
            raise RuntimeError(CLOSED)
        if self._forked():
            raise RuntimeError("this AsyncClient was used before a fork: make one in each process")
        if self._loop is not None and self._loop is not loop:
            raise RuntimeError(
                "this AsyncClient belongs to another event loop: make one in each loop"
            )

    async def close(self) -> None:
        """End what is in flight, and close the pool if it is owned; closing twice does nothing."""
        self._closed = True
        if self._forked():
            return
        for deadlines in list(self._deadlines.values()):
            deadlines.close()
        if not self._lent and self._session is not None:
            await self._session.close()

    def _forked(self) -> bool:
        """Return whether the sockets, and the loop's selector, are another process's as well."""
        return self._process not in {0, os.getpid()}

    def __del__(self) -> None:
        """Warn about a pool that was left open."""
        if self._lent or self._session is None:
            return
        connector = self._session.connector
        if connector is not None and not connector.closed:
            self._session.detach()  # or it warns as well, in words that say nothing of us
            if not self._forked():
                with suppress(StopIteration):  # its first step closes; nobody can await the rest
                    next(connector.close().__await__())
            warnings.warn(
                "unclosed AsyncClient: use 'async with AsyncClient(...)' or 'await client.close()'",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )

    async def exchange(self, route: Route, body: bytes | None) -> Reply:
        """Send one request and read the whole response; redirects are not followed.

        Args:
            route: Where to, and how.
            body: JSON, or None.

        Raises:
            ConnectError: Nothing was sent.
            RequestTimeoutError: The response was not complete in time.
            TransportError: The connection broke.
            ProtocolError: The response is too long.
            RuntimeError: The pool is closed, or belongs to another event loop.
            ValueError: A borrowed session has credentials of its own.
        """
        session = self.open()
        with route.deadlines:
            return await self._request(session, route, body)

    async def _request(
        self, session: aiohttp.ClientSession, route: Route, body: bytes | None
    ) -> Reply:
        """Have aiohttp's session make the exchange."""
        response: aiohttp.ClientResponse | None = None
        data: bytes | io.BytesIO | None = body
        if body is not None and len(body) > _LARGE_BODY:
            data = io.BytesIO(body)
        try:
            response = await session.request(
                route.method,
                route.url,
                headers=route.headers,
                data=data,
                timeout=route.limits,
                allow_redirects=False,
                raise_for_status=False,
                auto_decompress=True,
            )
            content = await read_body(response.content)
            reply = Reply(response.status, response.headers, content or b"", time.time())
            if content is None:
                response.close()
        except BaseException as error:
            if response is not None:
                response.close()
            if isinstance(error, ValueError) and "AUTHORIZATION" in str(error):
                raise ValueError(
                    "the borrowed session has credentials of its own for base_url's host (auth, "
                    "or trust_env and an entry in netrc): aiohttp does not send the API key "
                    "beside them"
                ) from error
            raise
        finally:
            response = None  # its repr shows headers, in which a relay may have echoed the key
        if content is None:
            raise protocol_error("the response is too long", reply)
        return reply

    def stream(self, route: Route, url: str) -> Stream:
        """Get a result from its host.

        Args:
            route: How; its headers must not hold the key.
            url: An absolute URL of any host.
        """
        return Stream(self.open(), route, url)
