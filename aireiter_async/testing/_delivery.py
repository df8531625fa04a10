"""How an answer leaves the socket, or does not."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Iterable
from typing import cast

from aiohttp import web

from aireiter_async.testing._answers import Answer, too_many
from aireiter_async.testing._faults import Fault

# SO_LINGER on, for 0 seconds: closing then sends RST instead of FIN.
_LINGER_ZERO = struct.pack("ii", 1, 0)
_PIECES = 8

# What a truncated answer is cut from when the service never saw the request.
UNFOUNDED = Answer(200, b'{"statusCode":200,"message":"","data":{"out_task_id":"","status":""}}')


def send(answer: Answer) -> web.Response:
    """Return *answer* as aiohttp wants it."""
    return web.Response(status=answer.status, body=answer.body, headers=answer.headers)


async def deliver(
    request: web.BaseRequest, fault: Fault, answer: Answer, elsewhere: str
) -> web.StreamResponse:
    """Let *fault* strike.

    Args:
        request: The request that is answered or not.
        fault: What goes wrong.
        answer: The service's real answer, or `UNFOUNDED`.
        elsewhere: The URL of another host, for redirects that name none.
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
            response = await _stream(request, answer, [answer.body[: len(answer.body) // 2]])
            _hang_up(request)
            return response
        case "drip":
            size = -(-len(answer.body) // _PIECES)
            pieces = (answer.body[at : at + size] for at in range(0, len(answer.body), size))
            return await _stream(request, answer, pieces, fault.seconds / _PIECES)
        case "reply":
            answer = Answer(fault.http_status, fault.body, dict(fault.headers))
        case "too_many":
            answer = too_many(fault.form, fault.retry_after, fault.retry_form)
        case "redirect":
            answer = Answer(307, b"", {"Location": fault.text or elsewhere + request.path})
        case _:
            pass
    return send(answer)


async def _stream(
    request: web.BaseRequest, answer: Answer, pieces: Iterable[bytes], pause: float = 0.0
) -> web.StreamResponse:
    headers = {**answer.headers, "Content-Length": str(len(answer.body))}
    response = web.StreamResponse(status=answer.status, headers=headers)
    # A client that has gone is no error of the service's: aiohttp notices by itself.
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
