"""Results, read piece by piece from whatever host they are on."""

from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import aiohttp

if TYPE_CHECKING:
    from aireiter_async._transport._pool import Route

_MAX_REDIRECTS: Final = 5


class Stream:
    """A response that is read piece by piece; an async context manager.

    Attributes:
        status: The HTTP status.
        headers: The response's headers.
    """

    def __init__(self, session: aiohttp.ClientSession, route: "Route", url: str) -> None:
        self._session = session
        self._route = route
        self._url = url
        self._response: aiohttp.ClientResponse

    async def __aenter__(self) -> Self:
        with self._route.deadlines:
            self._response = await self._session.get(
                self._url,
                headers=self._route.headers,
                timeout=self._route.read_limits,
                max_redirects=_MAX_REDIRECTS,
                raise_for_status=False,
                auto_decompress=True,
            )
        self.status = self._response.status
        self.headers: Mapping[str, str] = self._response.headers
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # A response that was not read to its end closes its connection.
        self._response.release()

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives.

        Raises:
            TransportError: The body ended before its announced length.
        """
        while True:
            # aiohttp's own timer stops without a word at a chunk that cannot be parsed.
            with self._route.deadlines:
                chunk = await self._response.content.readany()
            if not chunk:
                return
            yield chunk
