"""Read a result from a URL: check its content, and resume after broken connections."""

import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    aclosing,
    asynccontextmanager,
    suppress,
)
from datetime import timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final, Protocol

from aireiter_async._envelope import Reply, protocol_error
from aireiter_async._media._encodings import Decoder, make_decoder
from aireiter_async._media._formats import HEAD, describe_page, file_type, is_web_url
from aireiter_async._retry import Retry, Target
from aireiter_async.errors import AireiterError, ProtocolError, TransportError

# The statuses of an expired URL: S3 and its clones return 403, Google 400.
EXPIRED: Final = frozenset({400, 401, 403, 404, 410})

_RETRIED: Final = frozenset({408, 425, 429})
_DECODED_AT_ONCE: Final = 1024  # encoded bytes that are decoded at once
_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,18})-\d+/(\d{1,18}|\*)", re.IGNORECASE)
_STRONG_ETAG: Final = re.compile(r'"[\x21\x23-\x7e]*"')
_SECOND: Final = timedelta(seconds=1)


class Response(Protocol):
    """A host's response to a GET."""

    status: int
    headers: Mapping[str, str]

    def chunks(self) -> AsyncGenerator[bytes]:
        """Yield the body as it arrives, without decoding it."""
        ...


Open = Callable[[str, Mapping[str, str]], AbstractAsyncContextManager[Response]]


@asynccontextmanager
async def open_result(
    open_url: Open, retry: Retry, target: Target, url: str, kind: str
) -> AsyncIterator["Result"]:
    """Open the result at *url*, of the expected *kind*, and read enough to identify its type.

    Raises:
        ProtocolError: The host sent something else.
        TransportError: No complete response arrived.
        ValueError: *url* is invalid, or the content encoding is not supported.
    """
    if not is_web_url(url):
        raise ValueError("the result is not at an http or https URL of reasonable length")
    async with AsyncExitStack() as stack:
        result = Result(open_url, retry, target, url, stack)
        await result.start(kind)
        yield result


class Result:
    """A result that is being read.

    Attributes:
        suffix: The suffix for its file, with the dot.
        content_type: Its media type.
        length: The number of bytes read.
        complete: Whether it was read to its end.
        failure: Why it could not be read.
    """

    suffix: str
    content_type: str

    def __init__(
        self, open_url: Open, retry: Retry, target: Target, url: str, stack: AsyncExitStack
    ) -> None:
        self._open = open_url
        self._retry = retry
        self._target = target
        self._url = url
        self._stack = stack
        self._chunks: AsyncGenerator[bytes]
        self._unread = b""
        self._decoder: Decoder | None = None
        self._validator: str | None = None
        self._received = 0
        self._total: int | None = None
        self._head = b""
        self.length = 0
        self.complete = False
        self.failure: Exception | None = None

    async def start(self, kind: str) -> None:
        """Read the beginning, and reject anything but a result."""
        response = await self._get({})
        headers = response.headers
        if response.status != HTTPStatus.OK:
            raise await self._rejection(response)
        self._unread = await anext(self._chunks, b"")
        self._decoder = make_decoder(headers.get("Content-Encoding", ""), self._unread)
        if self._decoder is None:
            self._validator = _strong_validator(headers)
            length = headers.get("Content-Length", "")
            self._total = int(length) if length.isdecimal() else None
        while len(self._head) < HEAD and (chunk := await self._read()):
            self._head += chunk
        if not self._head:
            raise protocol_error("the result's host sent nothing", _reply(response, b""))
        label = headers.get("Content-Type", "")
        if page := describe_page(label, self._head, self._url, kind):
            wanted = "result" if kind == "file" else kind
            message = f"the result's host sent {page} instead of the {wanted}"
            raise protocol_error(message, _reply(response, self._head))
        self.suffix, self.content_type = file_type(label, self._head, self._url)

    async def chunks(self) -> AsyncGenerator[bytes]:
        """Yield the content.

        Raises:
            AireiterError: The connection broke and could not be resumed.
        """
        try:
            chunk = self._head
            while chunk:
                self.length += len(chunk)
                yield chunk
                chunk = await self._read()
        except Exception as error:
            self.failure = error
            raise
        self.complete = True

    async def _read(self) -> bytes:
        """Return the next piece of the content, empty at its end."""
        while True:
            if self._decoder is not None and self._decoder.pending:
                if content := self._decode(self._decoder, b""):
                    return content
                continue  # pragma: no cover - a decoder may hold back its input
            encoded, self._unread = self._unread, b""
            try:
                encoded = encoded or await anext(self._chunks, b"")
                if not encoded and self._total is not None and self._received < self._total:
                    raise TransportError("the host sent only part of the result")  # noqa: TRY301 - resumed below
            except TransportError as error:
                await self._resume(error)
                continue
            if self._decoder is not None:  # in small pieces, which may expand a thousandfold
                encoded, self._unread = encoded[:_DECODED_AT_ONCE], encoded[_DECODED_AT_ONCE:]
            self._count(len(encoded))
            if self._decoder is None:
                return encoded
            if not encoded and not self._decoder.complete:
                raise TransportError("the compressed result ends early")
            content = self._decode(self._decoder, encoded)
            if content or not encoded:
                return content

    def _count(self, received: int) -> None:
        self._received += received
        if self._total is not None and self._received > self._total:
            raise TransportError("the host sent more than the rest of the result")

    async def _resume(self, error: TransportError) -> None:
        """Resume after a broken connection, if the host can send the rest of the same file."""
        policy = self._retry.policy
        if self._validator is None or not self._received or policy.attempts == 1:
            raise error
        await self._close(error)
        # Only attempts without progress count towards the limit.
        seconds = policy.wait(error, 0)
        self._retry.on_retry(self._target, error, seconds)
        await self._retry.sleep(seconds)
        if not await self._retry.call(self._target, self._get_rest, self._validator):
            raise error

    async def _get_rest(self, validator: str) -> bool:
        """Request the rest, and return whether the host sends it."""
        try:
            headers = {"Range": f"bytes={self._received}-", "If-Range": validator}
            response = await self._get(headers)
            if response.status in _RETRIED or response.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                raise await self._rejection(response)
            partial = response.status == HTTPStatus.PARTIAL_CONTENT
            if not partial or not self._continues(response.headers, validator):
                return False
            self._unread = await anext(self._chunks, b"")
            if not self._unread:
                raise TransportError("the host sent nothing more")
        except AireiterError as error:
            await self._close(error)
            raise
        return True

    def _continues(self, headers: Mapping[str, str], validator: str) -> bool:
        """Return whether a partial response continues what was received."""
        found = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", "").strip())
        if found is None or int(found[1]) != self._received:
            return False
        if headers.get("Content-Encoding", "").lower() not in {"", "identity"}:
            return False
        name = "ETag" if '"' in validator else "Last-Modified"
        if headers.get(name, validator).strip() != validator:
            return False
        total = None if found[2] == "*" else int(found[2])
        if self._total is None:
            self._total = total
        return total in {None, self._total}

    async def _get(self, headers: Mapping[str, str]) -> Response:
        response = await self._stack.enter_async_context(self._open(self._url, headers))
        self._chunks = await self._stack.enter_async_context(aclosing(response.chunks()))
        return response

    async def _close(self, error: AireiterError) -> None:
        """Release connection and slot; a more specific error than *error* is raised."""
        await self._stack.__aexit__(type(error), error, error.__traceback__)

    async def _rejection(self, response: Response) -> ProtocolError:
        excerpt = b""
        if not response.headers.get("Content-Encoding"):
            with suppress(TransportError):
                excerpt = await anext(self._chunks, b"")
        return protocol_error(
            "the result's host did not send the result", _reply(response, excerpt)
        )

    @staticmethod
    def _decode(decoder: Decoder, data: bytes) -> bytes:
        try:
            return decoder.decode(data)
        except ValueError as error:
            raise TransportError(str(error)) from error


def _reply(response: Response, body: bytes) -> Reply:
    return Reply(response.status, response.headers, body, time.time())


def _strong_validator(headers: Mapping[str, str]) -> str | None:
    """Return a strong validator (RFC 9110, section 8.8), if the host sent one."""
    etag = headers.get("ETag", "").strip()
    if _STRONG_ETAG.fullmatch(etag):
        return etag
    modified = headers.get("Last-Modified", "").strip()
    try:
        # A file modified in the second in which it was sent may have been modified again.
        age = parsedate_to_datetime(headers.get("Date", "")) - parsedate_to_datetime(modified)
    except (TypeError, ValueError):
        return None
    return modified if not etag and age >= _SECOND else None
