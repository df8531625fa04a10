"""A result's answer, read piece by piece."""

from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Final, Self

import aiohttp

from aireiter_async._transport._failures import FAILURES, translate, without_frames
from aireiter_async._transport._route import Route

_MOST_REDIRECTS: Final = 5


class Stream:
    """An answer that is read piece by piece; an async context manager.

    Attributes:
        status: The HTTP status.
        headers: The answer's headers.
    """

    def __init__(self, session: aiohttp.ClientSession, route: Route, url: str) -> None:
        self._session = session
        self._route = route
        self._url = url
        self._response: aiohttp.ClientResponse

    async def __aenter__(self) -> Self:
        """Send the request and read the answer's head."""
        try:
            with self._route.deadlines:
                self._response = await self._session.get(
                    self._url,
                    headers=self._route.headers,
                    timeout=self._route.read_limits,
                    max_redirects=_MOST_REDIRECTS,
                    raise_for_status=False,
                    auto_decompress=True,
                )
        except FAILURES as error:
            failure, cause = translate(error, self._route.deadlines.seconds)
        else:
            self.status = self._response.status
            self.headers: Mapping[str, str] = self._response.headers
            return self
        try:
            raise failure from without_frames(cause)
        finally:
            del failure

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the connection back, or close it if the answer was not read to its end."""
        self._response.release()

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives.

        Raises:
            TransportError: The body ended before its announced length.
        """
        while True:
            try:
                # aiohttp's own timer stops when it cannot parse what came, and nobody is told.
                with self._route.deadlines:
                    chunk = await self._response.content.readany()
            except FAILURES as error:
                failure, cause = translate(error, self._route.deadlines.seconds)
            else:
                if not chunk:
                    return
                yield chunk
                continue
            try:
                raise failure from without_frames(cause)
            finally:
                del failure
