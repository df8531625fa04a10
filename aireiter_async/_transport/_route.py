"""Where requests of one kind go, and how."""

from collections.abc import Mapping

import aiohttp

from aireiter_async._deadlines import Deadlines


class Route:
    """
    Where requests of one kind go, and how: made once per view of a client.

    Args:
        method: ``GET`` or ``POST``.
        url: An absolute URL.
        headers: Sent with each.
        timeout: Seconds from the beginning to the last byte of an answer, or
            for a stream between two reads.
        connect_timeout: Seconds for DNS, connect and TLS handshake.
    """

    def __init__(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        timeout: float,
        connect_timeout: float,
    ) -> None:
        connect = min(connect_timeout, timeout)
        self.method = method
        self.url = url
        self.headers = headers
        self.deadlines = Deadlines(timeout)
        self.limits = aiohttp.ClientTimeout(total=None, connect=connect)
        self.read_limits = aiohttp.ClientTimeout(total=None, connect=connect, sock_read=timeout)
