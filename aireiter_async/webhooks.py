"""Receive the callbacks that the service sends to a task's ``callback_url``.

::

    receiver = Receiver(client, secret=os.environ["WEBHOOK_SECRET"])
    app.mount("/hooks", receiver.asgi)
    ...
    url = receiver.url("https://app.example/hooks")
    task = await client.run(request, callback_url=url, webhooks=receiver)

What a callback contains, and whether it is signed, is not documented. It is therefore only a hint:
the waiting call queries the tasks whose IDs appear in it, and believes the query.
"""

import hmac
import json
import logging
import math
import re
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import suppress
from itertools import islice
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qsl

from aiohttp import ClientError, web

from aireiter_async._client import AsyncClient, api_of
from aireiter_async._poll import Webhooks
from aireiter_async._redact import Secret
from aireiter_async._requests import is_id

__all__ = ["Receiver", "Webhooks"]

_log = logging.getLogger(__name__)

_Message: TypeAlias = MutableMapping[str, Any]
_Receive: TypeAlias = Callable[[], Awaitable[_Message]]
_Send: TypeAlias = Callable[[_Message], Awaitable[None]]

_MAX_BODY: Final = 64 * 1024  # bytes: far more than a reply to a query, and quick to search
_MAX_VALUES: Final = 2_000  # of a body that are searched
_MAX_NESTED: Final = 100  # strings of a body that may be JSON themselves
_MAX_KEPT: Final = 10_000
_MAX_KEPT_EACH: Final = 16  # of one delivery
_KEPT_FOR: Final = 600.0  # seconds

_SECRET: Final = re.compile(r"[A-Za-z0-9_.~-]*[A-Za-z0-9_~-][A-Za-z0-9_.~-]*")  # not "." or ".."
_WORD: Final = re.compile(r"(?<![A-Za-z0-9_-])[A-Za-z0-9_-]{1,64}(?![A-Za-z0-9_-])")

_OK, _BAD_REQUEST, _NOT_FOUND, _NOT_ALLOWED, _TOO_LARGE = 200, 400, 404, 405, 413
_ALLOWED: Final = "POST"


class Receiver:
    """Receives callbacks, as an ASGI application or an aiohttp handler; `wait` takes it.

    It responds at once, and requests nothing that a callback names. A callback about a task that
    nobody waits for at the moment is kept for ten minutes (up to 10,000 IDs), since it may precede
    the response to the submit. The receiver must run in the client's event loop.

    Its responses: 200 to a POST with the secret, 404 without it, 405 to another method, 413 to a
    body of more than 64 KiB.

    Args:
        client: The client whose calls wait.
        secret: The last segment of its URL, without which a callback is ignored: letters, digits
            and ``-_.~``, such as from ``secrets.token_urlsafe()``. Processes that share the URL
            need the same one.

    Attributes:
        asgi: The ASGI application, to be mounted in another or served by itself.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: The secret is empty, or has other characters.
    """

    def __init__(self, client: AsyncClient, *, secret: str) -> None:
        if not isinstance(client, AsyncClient):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"client must be an AsyncClient, got {type(client).__name__}")
        if not isinstance(secret, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"secret must be a str, got {type(secret).__name__}")
        secret = Secret(secret)  # which no traceback shows
        if not _SECRET.fullmatch(secret):
            raise ValueError(
                "secret must be one or more of A-Z, a-z, 0-9 and -_.~: "
                "make one with secrets.token_urlsafe()"
            )
        self.asgi: Callable[[_Message, _Receive, _Send], Awaitable[None]] = _Application(self)
        self._client = client
        self._host = api_of(client).host  # the service's, for the log
        self._secret = secret
        self._expected: dict[str, list[Callable[[], None]]] = {}
        self._kept: OrderedDict[str, float] = OrderedDict()  # until when, earliest first

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of callbacks about {len(self._expected)} tasks>"

    def url(self, base: str) -> str:
        """Return the ``callback_url``, which contains the secret.

        Args:
            base: The public URL at which the receiver is mounted.

        Raises:
            ValueError: It is not an http or https URL, or has a query or fragment.
        """
        if not re.fullmatch(r"https?://[^?#\s]+", base):
            raise ValueError("base must be an http or https URL without a query or fragment")
        return f"{base.rstrip('/')}/{self._secret}"

    async def aiohttp(self, request: web.BaseRequest) -> web.StreamResponse:
        """Handle a callback in an aiohttp application, on a route such as ``/hooks/{secret}``."""
        status, body = self._check(request.path, request.method), bytearray()
        if status == _OK:
            try:
                async for chunk in request.content.iter_any():
                    body += chunk
                    if len(body) > _MAX_BODY:
                        status = _TOO_LARGE
                        break
                else:
                    self._deliver(bytes(body), request.rel_url.raw_query_string)
            except (ClientError, OSError, web.RequestPayloadError):
                status = _BAD_REQUEST  # incomplete, or not compressed as it says
        return web.Response(status=status, headers=_headers(status))

    def expect(self, out_task_id: str, wake: Callable[[], None]) -> Callable[[], None]:
        """See `Webhooks.expect`; the calls that wait use it."""
        if self._kept.pop(out_task_id, -math.inf) > self._now():
            wake()
        wakes = self._expected.setdefault(out_task_id, [])
        wakes.append(wake)

        def end() -> None:
            wakes.remove(wake)
            if not wakes:
                del self._expected[out_task_id]

        return end

    def _now(self) -> float:
        return api_of(self._client).shared.clock.now()

    def _check(self, path: str, method: str) -> int:
        """Return the status for a request whose body is not read yet."""
        # Frameworks strip the prefix of a mount in different ways, and some add a slash.
        given = path.rstrip("/").rpartition("/")[2].encode(errors="replace")
        if not hmac.compare_digest(given, self._secret.encode()):
            _log.debug("callback at %s: rejected, without the secret", self._host)
            return _NOT_FOUND
        return _OK if method == _ALLOWED else _NOT_ALLOWED

    def _deliver(self, body: bytes, query: str) -> None:
        """Wake the calls that wait for a task that a callback names, and keep the other IDs."""
        now, kept, spare = self._now(), self._kept, _MAX_KEPT_EACH
        for out_task_id in find_ids(body, query):
            if out_task_id in self._expected:
                _log.debug("callback %s at %s: received", out_task_id, self._host)
                for wake in self._expected[out_task_id]:
                    wake()
            elif spare:
                spare -= 1
                kept[out_task_id] = now + _KEPT_FOR
                kept.move_to_end(out_task_id)
        while kept and (len(kept) > _MAX_KEPT or next(iter(kept.values())) <= now):
            kept.popitem(last=False)


class _Application:
    """A class, since uvicorn does not recognise a bound method as an ASGI 3 application."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        match scope["type"]:
            case "http":
                await self._respond(scope, receive, send)
            case "websocket":
                await receive()
                await send({"type": "websocket.close"})
            case "lifespan":
                while (await receive())["type"] == "lifespan.startup":
                    await send({"type": "lifespan.startup.complete"})
                await send({"type": "lifespan.shutdown.complete"})
            case kind:
                raise ValueError(f"ASGI scope must be http, websocket or lifespan, got {kind!r}")

    async def _respond(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        receiver, body, more = self._receiver, bytearray(), True
        status = receiver._check(scope["path"], scope["method"])  # noqa: SLF001 - one of two parts
        while more and status == _OK:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > _MAX_BODY:
                status = _TOO_LARGE
        if status == _OK:
            query = scope.get("query_string", b"").decode(errors="replace")
            receiver._deliver(bytes(body), query)  # noqa: SLF001
        headers = {"content-length": "0", **_headers(status)}
        pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": pairs})
        await send({"type": "http.response.body", "body": b""})


def _headers(status: int) -> dict[str, str]:
    return {"Allow": _ALLOWED} if status == _NOT_ALLOWED else {}


def find_ids(body: bytes, query: str = "") -> list[str]:
    """Return the possible IDs in a callback, values of names like ``out_task_id`` first.

    The body may be JSON, with JSON in its strings, a form, or any text; nothing makes it raise.
    """
    named: dict[str, None] = {}
    others: dict[str, None] = {}
    for name, value in _values(query, body.decode(errors="replace")):
        (named if _names_id(name) else others)[value] = None
    return [*named, *(value for value in others if value not in named)]


def _values(*texts: str) -> Iterator[tuple[str, str]]:
    """Yield each value that has the form of an ID, with its name, nearest to the root first."""
    queue: deque[tuple[str, Any]] = deque(("", _parse(text)) for text in texts)
    nested = 0
    for _ in range(_MAX_VALUES):
        if not queue:
            return
        name, value = queue.popleft()
        match value:
            case dict():
                for key, inner in islice(value.items(), _MAX_VALUES):
                    queue += (key, inner), ("", key)
            case list():
                queue.extend((name, inner) for inner in value[:_MAX_VALUES])
            case str() if is_id(value):
                yield name, value
            case str() if nested < _MAX_NESTED and value.lstrip()[:1] in {"{", "["}:
                queue.append((name, _parse(value)))
                nested += 1
            case int() if _names_id(name) and is_id(f"{value:d}"):
                yield name, f"{value:d}"


def _names_id(name: str) -> bool:
    return name.lower().rstrip("s").endswith("id")


def _parse(text: str) -> Any:
    """Return JSON; of any other text, the fields if it is a form, and its words."""
    text = text.strip().lstrip("\ufeff")
    if text[:1] in {"{", "[", '"'}:
        with suppress(ValueError, RecursionError):
            return json.loads(text)
    parts: list[Any] = []
    if "=" in text:
        with suppress(ValueError):  # too many fields
            fields = parse_qsl(text, max_num_fields=_MAX_VALUES // 4)
            parts += [{name: value} for name, value in fields]
    return parts + [found[0] for found in islice(_WORD.finditer(text), _MAX_VALUES)]
