"""Deliver a reply, or a fault in its place."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Iterable
from typing import cast

from aiohttp import web

from aireiter_async.testing._faults import Fault
from aireiter_async.testing._replies import Reply, too_many

# SO_LINGER on, for 0 seconds: closing then sends RST instead of FIN.
_LINGER_ZERO = struct.pack("ii", 1, 0)
_PIECES = 8

# The reply to truncate if the service does not handle the request.
UNHANDLED = Reply(200, b'{"statusCode":200,"message":"","data":{"out_task_id":"","status":""}}')


def send(reply: Reply) -> web.Response:
    """Return *reply* as an aiohttp response."""
    return web.Response(status=reply.status, body=reply.body, headers=reply.headers)


async def deliver(
    request: web.BaseRequest, fault: Fault, reply: Reply, other_host: str
) -> web.StreamResponse:
    """Send *reply*, the service's own or `UNHANDLED`, with *fault*.

    *other_host* is the URL for redirects without a location.
    """
    match fault.kind:
        case "close" | "reset":
            _hang_up(request, reset=fault.kind == "reset")
            # Never written: aiohttp finds the connection closed.
            return web.Response()
        case "hang":
            never: asyncio.Future[web.Response] = asyncio.get_running_loop().create_future()
            return await never
        case "truncate":
            response = await _stream(request, reply, [reply.body[: len(reply.body) // 2]])
            _hang_up(request)
            return response
        case "drip":
            size = -(-len(reply.body) // _PIECES)
            pieces = (reply.body[at : at + size] for at in range(0, len(reply.body), size))
            return await _stream(request, reply, pieces, fault.seconds / _PIECES)
        case "reply":
            reply = Reply(fault.http_status, fault.body, dict(fault.headers))
        case "too_many":
            reply = too_many(fault.form, fault.retry_after, fault.retry_form)
        case "redirect":
            reply = Reply(307, b"", {"Location": fault.text or other_host + request.path})
        case _:
            pass
    return send(reply)


async def _stream(
    request: web.BaseRequest, reply: Reply, pieces: Iterable[bytes], pause: float = 0.0
) -> web.StreamResponse:
    headers = {**reply.headers, "Content-Length": str(len(reply.body))}
    response = web.StreamResponse(status=reply.status, headers=headers)
    # A disconnected client is not an error of the service; aiohttp handles it.
    with contextlib.suppress(ConnectionError):
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
            await asyncio.sleep(pause)
    return response


def _hang_up(request: web.BaseRequest, *, reset: bool = False) -> None:
    # Never None here: the handler is cancelled together with its connection.
    transport = cast("asyncio.Transport", request.transport)
    if reset:
        sock: socket.socket = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
        transport.abort()
    else:
        transport.close()
