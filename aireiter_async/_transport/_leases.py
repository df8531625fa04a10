"""The short path: aiohttp's connections and its parser, without its session.

For each request, aiohttp's session builds headers, a body, a task that writes it and a response.
Here aiohttp builds the head of a route's requests once; a connection is leased from aiohttp's
pool, written to, read from, and kept for the next request. Only public names of aiohttp are used,
and `Leases.make_template` checks that they behave as expected.
"""

import asyncio
import contextlib
import select
from collections import deque
from collections.abc import Callable, Mapping
from time import time
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from aiohttp import hdrs
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpProcessingError
from attrs import define
from yarl import URL

from aireiter_async._envelope import Reply, protocol_error
from aireiter_async._transport._body import read_body
from aireiter_async.errors import ConnectError

if TYPE_CHECKING:
    from aireiter_async._transport._pool import Route

_SWITCHING: Final = 101
_OK: Final = 200
_HEADER_LIMITS: Final = ("max_line_size", "max_field_size", "max_headers")


@define(eq=False, repr=False)
class Lease:
    """A connection taken from aiohttp's pool.

    Attributes:
        since: When its last response was complete, by the wall clock, which keeps running while
            a machine sleeps; if it is set back, `poll` still detects closed connections.
        poll: Returns whether the socket has unread bytes or is at its end.
    """

    connection: aiohttp.connector.Connection
    protocol: ResponseHandler
    transport: asyncio.Transport
    poll: Callable[[int], object]
    since: float = 0.0

    def close(self) -> None:
        self.connection.close()


@define(eq=False, repr=False)
class RequestTemplate:
    """The common parts of all requests of a route.

    Attributes:
        head: The request's head up to the value of Content-Length; the key is in it.
        request: aiohttp's request, which holds the address to connect to.
        response_params: For aiohttp's parser: limits on a response's headers.
        idle: Idle connections to its host, the most recently used last.
    """

    head: bytes
    request: aiohttp.ClientRequest
    limits: aiohttp.ClientTimeout
    response_params: Mapping[str, Any]
    idle: deque[Lease]


class Leases:
    """The connections leased from a session's pool.

    Args:
        session: The session; its pool must not limit the number of connections.
        keepalive: Seconds after which an idle connection is closed.
    """

    def __init__(self, session: aiohttp.ClientSession, *, keepalive: float) -> None:
        self._session = session
        self._keepalive = keepalive
        self._loop = asyncio.get_running_loop()
        self._idle: dict[object, deque[Lease]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    async def make_template(self, route: "Route") -> RequestTemplate | None:
        """Build the head of *route*'s requests; None if this aiohttp is not supported.

        Raises:
            aiohttp.ClientError: The URL is invalid.
        """
        try:
            request = await self._make_request(route)
            lines = [f"{request.method} {request.url.raw_path_qs} HTTP/1.1"]
            lines += [
                f"{name}: {value}"
                for name, value in request.headers.items()
                if name != hdrs.CONTENT_LENGTH
            ]
            params = {name: route.options[name] for name in _HEADER_LIMITS}
            params["read_until_eof"] = True
            idle = self._idle.setdefault(request.connection_key, deque())
            if not all(line.isprintable() for line in lines) or not await _is_supported(params):
                return None
        except (AttributeError, NotImplementedError, TypeError):
            return None
        return RequestTemplate(
            head="\r\n".join([*lines, f"{hdrs.CONTENT_LENGTH}: "]).encode(),
            request=request,
            limits=route.options["timeout"],
            response_params=params,
            idle=idle,
        )

    async def _make_request(self, route: "Route") -> aiohttp.ClientRequest:
        made: list[aiohttp.ClientRequest] = []

        async def stop(request: aiohttp.ClientRequest, _handler: object) -> aiohttp.ClientResponse:
            made.append(request)
            raise _StopRequest

        with contextlib.suppress(_StopRequest):
            response = await self._session.request(
                route.method, route.url, data=b"{}", middlewares=(stop,), **route.options
            )
            response.close()
            raise TypeError("this aiohttp ignores middlewares")
        return made[0]

    async def exchange(  # noqa: C901 - one path, top to bottom
        self, route: "Route", template: RequestTemplate, body: bytes
    ) -> Reply:
        """See `Transport.exchange`."""
        now, idle = time(), template.idle
        message = content = None
        deadlines = route.deadlines
        task = deadlines.begin()
        try:
            while idle:
                lease = idle.pop()
                protocol, transport = lease.protocol, lease.transport
                # Bytes received before the request is sent are not its response.
                if (
                    now - lease.since <= self._keepalive
                    and not protocol.should_close
                    and not transport.is_closing()
                    and not lease.poll(0)
                ):
                    break
                lease.close()
            else:
                lease = await self._connect(template)
                protocol, transport = lease.protocol, lease.transport
            try:
                # A new parser each time: leftovers in an old one would become part of the response.
                protocol.set_response_params(**template.response_params)
                transport.write(b"%b%d\r\n\r\n%b" % (template.head, len(body), body))
                message, content = await protocol.read()
                while message.code < _OK and message.code != _SWITCHING:
                    message, content = await protocol.read()
                data = content.read_nowait() if content.is_eof() else await read_body(content)
            except BaseException as error:
                # Their reprs may show the key, echoed by a relay.
                message = content = None
                lease.close()
                if isinstance(error, HttpProcessingError):
                    raise aiohttp.ClientPayloadError from error
                raise
        except BaseException as error:
            try:
                deadlines.end(task, error)
            except ConnectError:
                forget_address(self._session, template.request.url)
                raise
            raise
        deadlines.end(task)
        # `Reply(...)` would be one more call in Python.
        values = message.code, message.headers, data or b"", time()
        reply = tuple.__new__(Reply, values)
        if data is None or protocol.should_close or self._closed:
            lease.close()
        else:
            lease.since = reply.received_at
            idle.append(lease)
            if self._timer is None:
                self._timer = self._loop.call_later(self._keepalive, self._sweep)
        if data is None:
            message = content = None
            raise protocol_error("the response is too long", reply)
        return reply

    async def _connect(self, template: RequestTemplate) -> Lease:
        connector = self._session.connector
        assert connector is not None  # noqa: S101 - the session is open
        try:
            connection = await connector.connect(template.request, [], template.limits)
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError("no connection in time") from error
        protocol, transport = connection.protocol, connection.transport
        if protocol is None or transport is None or transport.is_closing():
            connection.close()
            raise aiohttp.ClientConnectionResetError("Cannot write to closing transport")
        return Lease(connection, protocol, transport, _make_poll(transport))

    def _sweep(self) -> None:
        """Close expired idle connections, and reschedule while any are left."""
        self._timer = None
        oldest = time() - self._keepalive
        for idle in self._idle.values():
            while idle and idle[0].since <= oldest:
                idle.popleft().close()
        if any(self._idle.values()):
            self._timer = self._loop.call_later(self._keepalive, self._sweep)

    def close_idle(self) -> None:
        """Close the idle connections."""
        for idle in self._idle.values():
            while idle:
                idle.pop().close()

    def close(self) -> None:
        """Close the idle connections now, and the leased ones as they return."""
        self._closed = True
        if self._timer is not None and not self._loop.is_closed():
            self._timer.cancel()
        self.close_idle()


def forget_address(session: aiohttp.ClientSession, url: URL) -> None:
    """Drop the cached address of *url*'s host: it may have changed."""
    connector = session.connector
    if isinstance(connector, aiohttp.TCPConnector) and url.raw_host and url.port:
        connector.clear_dns_cache(url.raw_host, url.port)


class _StopRequest(Exception):  # noqa: N818 - expected
    """Ends a request just before aiohttp sends it."""


def _make_poll(transport: asyncio.Transport) -> Callable[[int], object]:
    """Return a function that polls for unread bytes, if the platform supports it."""
    socket = transport.get_extra_info("socket")
    if socket is None or not hasattr(select, "poll"):
        return lambda _timeout: None
    poll = select.poll()
    poll.register(socket.fileno(), select.POLLIN)
    return poll.poll


class _NoTransport(asyncio.Transport):
    """A transport without a connection."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ARG002
        return default


async def _is_supported(response_params: Mapping[str, Any]) -> bool:
    """Return whether aiohttp's protocol behaves as the short path expects."""
    protocol = ResponseHandler(asyncio.get_running_loop())
    protocol.connection_made(_NoTransport())
    for _ in range(2):
        protocol.set_response_params(**response_params)
        protocol.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        message, content = await protocol.read()
        if (message.code, content.is_eof(), content.read_nowait()) != (_OK, True, b"{}"):
            return False
        if protocol.should_close:
            return False
    protocol.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
    return bool(protocol.should_close)
