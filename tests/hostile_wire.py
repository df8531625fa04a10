"""A scripted server: any bytes in any pieces, then a close, a reset, or nothing."""

import asyncio
import contextlib
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from tests.hostile_time import leaping

Script = Callable[["Peer", asyncio.StreamWriter], Awaitable[None]]

# SO_LINGER on, for 0 seconds: closing then sends RST instead of FIN.
_LINGER_ZERO = struct.pack("ii", 1, 0)


def head(*lines: bytes, status: bytes = b"200 OK") -> bytes:
    return b"\r\n".join([b"HTTP/1.1 " + status, *lines]) + b"\r\n\r\n"


def whole(body: bytes, *lines: bytes) -> bytes:
    return head(b"Content-Length: %d" % len(body), *lines) + body


def piece(data: bytes) -> Script:
    """Send *data*, and let the other side read it separately from what follows."""

    async def script(_peer: "Peer", writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        for _ in range(3):
            await asyncio.sleep(0)

    return script


def drip(drop: bytes) -> Script:
    """Send *drop* over and over, once a second by the loop's clock, which nothing else moves."""

    async def script(peer: "Peer", writer: asyncio.StreamWriter) -> None:
        leap = leaping()
        while True:
            writer.write(drop)
            await writer.drain()
            peer.sent += len(drop)
            leap(1.0)
            for _ in range(3):
                await asyncio.sleep(0)

    return script


class Peer:
    """A server of raw bytes; an async context manager.

    Attributes:
        heard: The requests.
        connections: How many there have been.
        sent: The number of bytes that endless scripts have sent.
    """

    def __init__(self) -> None:
        self.url = ""
        self.heard: list[bytes] = []
        self.connections = 0
        self.sent = 0
        self._plays: deque[tuple[tuple[Script, ...], bool, bool]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    def play(self, *scripts: Script, keep: bool = False, reset: bool = False) -> None:
        """Answer the next request with *scripts*, then close, *reset* or *keep* the connection."""
        self._plays.append((scripts, keep, reset))

    def answer(self, data: bytes) -> None:
        """Answer the next request with *data*, and keep the connection."""
        self.play(piece(data), keep=True)

    def forget(self) -> None:
        self._plays.clear()

    async def idle(self) -> None:
        async with asyncio.timeout(60):
            while self._tasks:  # noqa: ASYNC110 - of the other side of a socket
                await asyncio.sleep(0)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.close()
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)
            await asyncio.sleep(0)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reset = False
        try:
            keep = True
            while keep:
                self.heard.append(await _request(reader))
                # Without a script, the connection is closed.
                scripts, keep, reset = self._plays.popleft() if self._plays else ((), False, False)
                for script in scripts:
                    await script(self, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            if reset:
                connection: socket.socket = writer.get_extra_info("socket")
                with contextlib.suppress(OSError):
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
            writer.transport.abort() if reset else writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


async def _request(reader: asyncio.StreamReader) -> bytes:
    text = await reader.readuntil(b"\r\n\r\n")
    for line in text.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            text += await reader.readexactly(int(line[15:]))
    return text
