"""The connection pool, and one exchange over it."""

import asyncio
import io
import os
import time
import warnings
import weakref
from contextlib import suppress
from typing import Any, Final

import aiohttp

from aireiter_async._envelope import Reply, protocol_error
from aireiter_async._transport._failures import FAILURES, translate, without_frames
from aireiter_async._transport._route import Route
from aireiter_async._transport._stream import Stream
from aireiter_async.errors import ConnectError, TransportError

CLOSED: Final = "this AsyncClient is closed: make a new one"

_KEEPALIVE: Final = 12.0
_DNS_TTL: Final = 300
# Bytes. A query may repeat the task's input: nine images of 10 MB in base64 at most.
_LONGEST_BODY: Final = 256 * 1024 * 1024
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
        # asyncio's selector transport allocates its ``max_size``, 256 KiB, anew for each read,
        # and an answer has one: a sixth of an exchange's CPU time. uvloop knows no such attribute.
        connection = await super().connect(req, traces, timeout)
        # What came in while it was idle would be taken for the answer to the next question.
        while connection.protocol is not None and connection.protocol.should_close:
            connection.close()
            connection = await super().connect(req, traces, timeout)
        transport: Any = connection.transport
        if getattr(transport, "max_size", 0) > _READ_SIZE:
            transport.max_size = _READ_SIZE
        return connection


class Transport:
    """One connection pool: owned, or borrowed with the caller's session.

    Args:
        session: A session to borrow: it is neither reconfigured nor closed.
            None: a session is made in the running loop by `open`.
        limit: Connections at most, per host.

    Attributes:
        lent: Whether the session is the caller's.
        routes: What it is used for: exchanges there are cut short when it closes.
    """

    def __init__(self, session: aiohttp.ClientSession | None, *, limit: int) -> None:
        self._session = session
        self.lent = session is not None
        self.routes: weakref.WeakSet[Route] = weakref.WeakSet()
        self._limit = limit
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._process = 0
        if session is not None and not isinstance(session, aiohttp.ClientSession):
            kind = type(session).__name__
            raise TypeError(f"session must be an aiohttp.ClientSession, got {kind}")

    def open(self) -> aiohttp.ClientSession:
        """Return the session, bound to the running loop from the first call on.

        Raises:
            RuntimeError: The pool is closed, or belongs to another event loop
                or process.
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
        """Cut short what is under way, and close the pool if it is owned; twice does nothing."""
        self._closed = True
        if self._forked():
            return
        for route in list(self.routes):
            route.deadlines.cut()
        if not self.lent and self._session is not None:
            await self._session.close()

    def _forked(self) -> bool:
        """Tell whether the sockets, and the loop's selector, are another process's as well."""
        return self._process not in {0, os.getpid()}

    def __del__(self) -> None:
        """Warn about a pool that was left open."""
        if self.lent or self._session is None:
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
        """Send one request and read the whole answer.

        Args:
            route: Where to, and how; redirects away from it are not followed.
            body: JSON, None for none.

        Raises:
            ConnectError: Nothing was sent.
            RequestTimeoutError: The answer was not complete in time.
            TransportError: The connection broke.
            ProtocolError: The answer is too long.
            RuntimeError: The pool is closed, or belongs to another event loop.
            ValueError: A borrowed session has credentials of its own.
        """
        session = self.open()
        response: aiohttp.ClientResponse | None = None
        data: bytes | io.BytesIO | None = body
        if body is not None and len(body) > _LARGE_BODY:
            data = io.BytesIO(body)
        try:
            with route.deadlines:
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
                try:
                    answer = await _read(response)
                except BaseException:
                    response.close()
                    raise
                reply = Reply(response.status, response.headers, answer or b"", time.time())
                if answer is None:
                    raise protocol_error("the answer is too long", reply)
                return reply
        except FAILURES as error:
            failure, cause = translate(error, route.deadlines.seconds)
            if self._closed and not isinstance(failure, ConnectError):
                failure = TransportError("the client was closed before the answer came")
        except ValueError as error:
            if "AUTHORIZATION" not in str(error):
                raise
            raise ValueError(
                "the borrowed session has credentials of its own for base_url's host (auth, or "
                "trust_env and an entry in netrc): aiohttp does not send the API key beside them"
            ) from error
        finally:
            response = None  # its repr shows headers, in which a relay may have echoed the key
        try:
            raise failure from without_frames(cause)
        finally:
            del failure  # its traceback holds this frame, and the body with it

    def stream(self, route: Route, url: str) -> Stream:
        """Get a result from its host.

        Args:
            route: How; its headers must not hold the key.
            url: An absolute URL of any host.
        """
        return Stream(self.open(), route, url)


async def _read(response: aiohttp.ClientResponse) -> bytes | None:
    """Read a body of bounded length, None: what an answer unpacks to is its sender's choice."""
    content = response.content
    first = await content.readany()
    if content.at_eof() and len(first) <= _LONGEST_BODY:  # nearly every answer
        return first
    chunks = [first]
    length = len(first)
    while chunk := await content.readany():
        chunks.append(chunk)
        length += len(chunk)
        if length > _LONGEST_BODY:
            response.close()
            return None
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
