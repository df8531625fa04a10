"""Translate aiohttp's exceptions into ours."""

import os
import socket
import ssl
from typing import Final

import aiohttp

from aireiter_async.errors import (
    AireiterError,
    ConnectError,
    RequestTimeoutError,
    TransportError,
)

_NOT_SENT: Final = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.ClientHttpProxyError,
    aiohttp.ServerFingerprintMismatch,
    aiohttp.InvalidURL,
    UnicodeError,  # a host name that cannot be encoded for DNS
)
FAILURES: Final = (aiohttp.ClientError, OSError, UnicodeError)
_MAX_MESSAGE: Final = 500  # characters of aiohttp's message: it may repeat a URL of megabytes


def translate(
    error: BaseException, timeout: float, *, closed: bool
) -> tuple[AireiterError, BaseException | None]:
    """Return our error for one of `FAILURES`, and the cause to chain to it.

    An exception that quotes the response is neither quoted nor chained: a relay may have echoed
    the request with the key. *closed* is whether the client has been closed meanwhile.
    """
    message = f"{type(error).__name__}: {error}"[:_MAX_MESSAGE]
    cause: BaseException | None = error
    if isinstance(error, aiohttp.ClientHttpProxyError):
        # It quotes the proxy's URL, which may hold a password.
        message, cause = f"the proxy rejected the request: HTTP {error.status}", None
    elif isinstance(error, aiohttp.ServerDisconnectedError):
        # It quotes the head of a truncated response.
        message, cause = "the connection was closed before the response was complete", None
    elif isinstance(error, aiohttp.ClientResponseError | aiohttp.ClientPayloadError):
        root: BaseException = error
        while root.__cause__ is not None:
            root = root.__cause__
        message, cause = f"the response cannot be read: {type(root).__name__}", None
    elif isinstance(error, aiohttp.ClientConnectorError):
        message = f"cannot connect to {error.host}:{error.port}: {_reason(error.os_error)}"
    if isinstance(error, _NOT_SENT) or _was_not_written(error):
        return ConnectError(message), cause
    if closed:
        return TransportError("the client was closed before the response arrived"), cause
    if isinstance(error, TimeoutError):
        return RequestTimeoutError(f"no complete response within {timeout:g} s"), cause
    return TransportError(message), cause


def _reason(error: OSError) -> str:
    """Return why a connection failed: asyncio's own text repeats the address instead."""
    if error.errno is None or isinstance(error, ssl.SSLError | socket.gaierror):
        return str(error.strerror or error)
    return os.strerror(error.errno)


def drop_frames(error: BaseException | None, stop: BaseException | None) -> None:
    """Drop the tracebacks of *error* and its chain up to *stop*: their frames hold the request."""
    while error is not None and error is not stop:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def _was_not_written(error: BaseException | None) -> bool:
    """Return whether the connection was already closed on this side before the write."""
    while error is not None:
        if "Cannot write to closing transport" in str(error):
            return True
        error = error.__cause__
    return False
