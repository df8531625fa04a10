"""Where requests of one kind go, and how."""

from collections.abc import Mapping

import aiohttp

from aireiter_async._transport._deadlines import Deadlines


class Route:
    """Where requests of one kind go, and how: made once per view of a client.

    Args:
        method: ``GET`` or ``POST``.
        url: An absolute URL.
        headers: Sent with each.
        timeout: Seconds from the beginning to the last byte of an answer, or
            for a stream between two reads.
        connect_timeout: Seconds for DNS, connect and TLS handshake.
        queued: Whether the pool may make a request wait for a connection: aiohttp's
            connect timeout would count that, so it is for the handshakes only then.
    """

    def __init__(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        timeout: float,
        connect_timeout: float,
        queued: bool = False,
    ) -> None:
        connect = {"sock_connect" if queued else "connect": min(connect_timeout, timeout)}
        self.method = method
        self.url = url
        self.headers = headers
        self.deadlines = Deadlines(timeout)
        self.limits = aiohttp.ClientTimeout(total=None, **connect)
        self.read_limits = aiohttp.ClientTimeout(total=None, sock_read=timeout, **connect)
