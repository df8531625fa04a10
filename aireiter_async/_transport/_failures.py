"""What aiohttp raises, said in our words."""

import sys
from typing import Final

import aiohttp

from aireiter_async.errors import (
    AireiterError,
    ConnectError,
    RequestTimeoutError,
    TransportError,
)

_NEVER_SENT: Final = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.ClientHttpProxyError,
    aiohttp.ServerFingerprintMismatch,
    aiohttp.InvalidURL,
    UnicodeError,  # a host name that has no form in DNS
)
FAILURES: Final = (aiohttp.ClientError, OSError, UnicodeError)
_LONGEST: Final = 500  # characters of what aiohttp says: it may repeat a URL of megabytes


def translate(error: Exception, timeout: float) -> tuple[AireiterError, BaseException | None]:
    """Say in our words what aiohttp met, and what to chain it from.

    What quotes the answer is neither told nor chained: a relay may have echoed
    the request, and the key is in it.
    """
    message = f"{type(error).__name__}: {error}"[:_LONGEST]
    cause: BaseException | None = error
    if isinstance(error, aiohttp.ClientHttpProxyError):
        # It quotes the proxy's URL, with the password that may be in it.
        message, cause = f"the proxy refused: HTTP {error.status}", None
    elif isinstance(error, aiohttp.ServerDisconnectedError):
        # It quotes the head of an answer that broke off after that.
        message, cause = "the connection was closed before the answer was complete", None
    elif isinstance(error, aiohttp.ClientResponseError | aiohttp.ClientPayloadError):
        root: BaseException = error
        while root.__cause__ is not None:
            root = root.__cause__
        message, cause = f"the answer cannot be read: {type(root).__name__}", None
    if isinstance(error, _NEVER_SENT) or _never_left(error):
        return ConnectError(message), cause
    if isinstance(error, TimeoutError):
        return RequestTimeoutError(f"no complete answer within {timeout:g} s"), cause
    return TransportError(message), cause


def without_frames(cause: BaseException | None) -> BaseException | None:
    """Drop the frames of what aiohttp raised: what it was about to send is among their variables.

    What the caller itself is handling, at the end of the chain, is left alone.
    """
    handled, error = sys.exception(), cause
    while error is not None and error is not handled:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
    return cause


def _never_left(error: BaseException | None) -> bool:
    """Tell whether a body met a connection that was already closed on our side."""
    while error is not None:
        if "Cannot write to closing transport" in str(error):
            return True
        error = error.__cause__
    return False
