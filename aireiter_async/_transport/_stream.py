"""Stream results from any host."""

import re
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import quote, urljoin

import aiohttp
from yarl import URL

from aireiter_async.errors import ConnectError, TransportError

if TYPE_CHECKING:
    from aireiter_async._transport._pool import Route, Transport

_MAX_REDIRECTS: Final = 5
_REDIRECTS: Final = {301, 302, 303, 307, 308}
_ABSOLUTE: Final = re.compile("[A-Za-z][A-Za-z0-9+.-]*:")
_PRINTABLE: Final = "".join(map(chr, range(0x21, 0x7F)))
# Headers that aiohttp itself adds to a GET.
_STANDARD: Final = frozenset(
    {"accept", "accept-encoding", "authorization", "connection", "cookie", "host", "user-agent"}
)


class Stream:
    """A streamed response to a GET; an async context manager.

    The URL is requested byte for byte, since it may be signed, and so are those that it
    redirects to.

    Attributes:
        status: The HTTP status.
        headers: The response's headers.
        url: The URL of the response, after all redirects.
    """

    def __init__(
        self, transport: "Transport", route: "Route", url: str, headers: Mapping[str, str]
    ) -> None:
        self._transport = transport
        self._route = route
        self._request_headers = headers
        self._response: aiohttp.ClientResponse
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self.url = url

    async def __aenter__(self) -> Self:
        """Send the request and read the head of the response.

        Raises:
            ValueError: A host along the redirects is or has a private address.
            TransportError: No response arrived, or there were too many redirects.
        """
        try:
            with self._route.deadlines:
                self._response = await self._follow()
        except ConnectError:
            self._transport.forget_address(self.url)
            raise
        self.status = self._response.status
        self.headers = self._response.headers
        return self

    async def _follow(self) -> aiohttp.ClientResponse:
        headers = {**self._route.headers, **self._request_headers}
        for _ in range(_MAX_REDIRECTS + 1):
            url = exact_url(self.url)
            response = await self._transport.get(url, headers, self._route.limits)
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or location is None:
                return response
            response.release()
            self.url = _join(url, location)
        raise TransportError(f"the result redirects more than {_MAX_REDIRECTS} times")

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # This closes the connection unless the response was read to its end.
        self._response.release()

    async def chunks(self) -> AsyncGenerator[bytes]:
        """Yield the body as it arrives; a ``Content-Encoding`` is not decoded.

        Raises:
            TransportError: The body ended before its announced length.
        """
        while True:
            # aiohttp's own timer silently stops at a chunk that cannot be parsed.
            with self._route.deadlines:
                chunk = await self._response.content.readany()
            if not chunk:
                return
            yield chunk


def exact_url(text: str) -> URL:
    """Return a URL to request byte for byte; only characters invalid in a request are escaped.

    Raises:
        aiohttp.InvalidURL: It is not an absolute http or https URL.
    """
    scheme, _, rest = text.partition("://")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    target = rest[len(authority) :].partition("#")[0]
    if not target.startswith("/"):
        target = f"/{target}"
    exact: URL | None = None
    with suppress(ValueError):
        origin = URL(f"{scheme}://{authority}")
        if origin.scheme in {"http", "https"} and origin.raw_host:
            target = quote(target, _PRINTABLE, errors="surrogateescape")
            exact = URL(str(origin).rstrip("/") + target, encoded=True)
    if exact is None:
        raise aiohttp.InvalidURL(text)
    return exact


def only_headers(names: Iterable[str]) -> aiohttp.ClientMiddlewareType:
    """Return a middleware that removes all headers but *names* and aiohttp's own.

    Instrumentations add trace and baggage headers to all requests of a session: a result's
    host, which belongs to somebody else, must not get them.
    """
    kept = _STANDARD.union(map(str.lower, names))

    async def send(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        for name in [*request.headers]:
            if name.lower() not in kept:
                request.headers.popall(name, None)
        return await handler(request)

    return send


def _join(base: URL, location: str) -> str:
    if _ABSOLUTE.match(location):
        return location
    if location.startswith("//"):
        return f"{base.scheme}:{location}"
    if location.startswith("/"):
        return f"{base.scheme}://{base.raw_authority}{location}"
    return urljoin(str(base), location)
