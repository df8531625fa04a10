"""A listening port that counts its open connections."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from ssl import SSLContext
from typing import Any

from aiohttp import web

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_HOST = "127.0.0.1"
# Thousands may connect at once; the default of 128 would reject some of them.
_BACKLOG = 4096
# Seconds for a connection accepted while closing; 0 would mean forever.
_GRACE = 0.1


class Site:
    """Serves *handler* on a port of 127.0.0.1, from `start` to `stop`."""

    def __init__(self, handler: Handler) -> None:
        self.url: str = ""
        self.connections: dict[web.RequestHandler, asyncio.Transport] = {}
        self.peak_connections = 0
        self._handler = handler
        self._running: tuple[web.ServerRunner, _Listener] | None = None

    @property
    def running(self) -> bool:
        """Whether it is listening."""
        return self._running is not None

    async def start(self, port: int, ssl: SSLContext | None = None) -> int:
        """Listen on *port*, 0 for a free one, with TLS if *ssl* is given, and return the port.

        Raises:
            OSError: The port is taken.
        """
        plain = socket.create_server((_HOST, port))
        listener = _Listener(plain.family, plain.type, plain.proto, plain.detach())
        self.idle = asyncio.Event()
        server = _CountingServer(self._handler, self)
        runner = web.ServerRunner(server, shutdown_timeout=_GRACE)
        await runner.setup()
        await web.SockSite(runner, listener, backlog=_BACKLOG, ssl_context=ssl).start()
        self._running = runner, listener
        bound: int = listener.getsockname()[1]
        self.url = f"{'http' if ssl is None else 'https'}://{_HOST}:{bound}"
        return bound

    async def stop(self) -> None:
        """Stop listening and abort every connection, whatever it is waiting for."""
        if self._running is None:
            return
        (runner, listener), self._running = self._running, None
        # asyncio fails an assertion for each connection that is accepted, but not yet reported to
        # its protocol, when the server closes.
        listener.accepting = False
        await _let_accepted_connect()
        for site in runner.sites:
            await site.stop()
        await _let_accepted_connect()
        # A handler ends with its connection, so there is nothing to wait for.
        for transport in self.connections.values():
            transport.abort()
        if self.connections:
            await self.idle.wait()
        await runner.cleanup()


async def _let_accepted_connect() -> None:
    # The iterations of the loop between accepting a socket and notifying its protocol.
    for _ in range(2):
        await asyncio.sleep(0)


class _Listener(socket.socket):
    """A listening socket that can stop accepting before it is closed."""

    accepting = True

    def __repr__(self) -> str:
        # Shown in Python's warning about an unclosed socket.
        return "FakeService: use 'async with', or await its close()"

    def accept(self) -> tuple[socket.socket, Any]:
        if not self.accepting:
            raise BlockingIOError
        return super().accept()


class _CountingServer(web.Server):
    """Reports every connection to its site."""

    def __init__(self, handler: Handler, site: Site) -> None:
        super().__init__(handler, handler_cancellation=True, access_log=None)
        self._site = site

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        site = self._site
        site.connections[handler] = transport
        site.idle.clear()
        site.peak_connections = max(site.peak_connections, len(site.connections))

    def connection_lost(
        self, handler: web.RequestHandler, exc: BaseException | None = None
    ) -> None:
        super().connection_lost(handler, exc)
        site = self._site
        del site.connections[handler]
        if not site.connections:
            site.idle.set()
