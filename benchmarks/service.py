"""The service that all clients talk to: a process of its own, lean enough not to be measured.

A bare asyncio protocol, on uvloop where it installs. It answers each client's
own submit call with the reply that the client expects (`REPLIES`), keeps count
of what it was sent, and does what ``/control`` was told: answer late, drop the
connection after having accepted, ask to wait.

    python -m benchmarks.service      # prints its port
"""

import asyncio
import importlib
import json
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any, Final, cast
from urllib.parse import parse_qsl, urlsplit

from attrs import asdict, define, field

from benchmarks.replies import REPLIES

CONTROL: Final = b"/control"
SUBMIT: Final = b"/api/openapi/submit"
QUERY: Final = b"/api/openapi/query"
_ANSWER: Final = b"HTTP/1.1 %d OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
_WAIT: Final = (
    b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\n"
    b"Retry-After: %b\r\nContent-Length: %d\r\n\r\n%b"
)
_REFUSAL: Final = b'{"error":{"code":429,"message":"slow down","type":"rate_limit_error"}}'
_ASKED: Final = 2  # seconds


def _whole(body: bytes, status: int = 200) -> bytes:
    return _ANSWER % (status, len(body), body)


_ANSWERS: Final = {path: _whole(body, status) for path, (status, body) in REPLIES.items()}
_UNKNOWN_TASK: Final = _whole(
    b'{"ok":true,"statusCode":400,"message":"api task not found","data":null}'
)
_PENDING: Final = _whole(
    b'{"statusCode":200,"message":"","data":{"status":"pending","estimated_credits":100}}'
)


@define
class Account:
    """What the service was sent since it was last told something, and what it was told.

    Attributes:
        delay: Seconds before each answer.
        fault: For the first submit: ``drop`` the connection once it is accepted,
            or ask to ``wait-seconds`` or ``wait-date``; empty for none.
        requests: All requests but those to ``/control``.
        posts: Of the submits, while there is a fault to see, the time and the
            key by which a second one could be told from a first.
        accepted: How many submits were accepted, each a charge.
    """

    delay: float = 0.0
    fault: str = ""
    requests: int = 0
    posts: list[tuple[float, str]] = field(factory=list)
    accepted: int = 0


class Connection(asyncio.Protocol):
    """One connection: requests in, answers out."""

    account: Account = Account()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport: Any = transport
        self._seen = b""

    def data_received(self, data: bytes) -> None:
        """Answer each request that is complete."""
        seen = self._seen + data if self._seen else data
        while (end := seen.find(b"\r\n\r\n") + 4) > 3:  # noqa: PLR2004 - it was found
            head = seen[:end]
            lower = head.lower()
            at = lower.find(b"content-length:")
            length = int(lower[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(seen) < end + length:
                break
            self._answer(head, lower, seen[end : end + length])
            seen = seen[end + length :]
        self._seen = seen

    def _answer(self, head: bytes, lower: bytes, body: bytes) -> None:
        path = head.split(b" ", 2)[1]
        if path.startswith(CONTROL):
            self._transport.write(_whole(json.dumps(self._control(path.decode())).encode()))
            return
        account = self.account
        account.requests += 1
        answer = _ANSWERS.get(path.partition(b"?")[0], _UNKNOWN_TASK)
        if account.fault:
            trouble = self._trouble(path, lower, body)
            if trouble is not None:
                trouble()
                return
            if path == QUERY:
                task = json.loads(body)["out_task_id"]
                answer = _PENDING if task in {key for _, key in account.posts} else _UNKNOWN_TASK
        else:
            account.accepted += 1
        if account.delay:
            loop = asyncio.get_running_loop()
            loop.call_later(account.delay, self._transport.write, answer)
        else:
            self._transport.write(answer)

    def _trouble(self, path: bytes, lower: bytes, body: bytes) -> Callable[[], None] | None:
        """Take down a submit, and return what to do with the first one instead of answering."""
        account = self.account
        if path == QUERY or not lower.startswith(b"post "):
            return None
        account.posts.append((time.monotonic(), _key(lower, body)))
        first = len(account.posts) == 1
        if account.fault == "drop" or not first:
            account.accepted += 1
        if not first:
            return None
        if account.fault == "drop":
            return lambda: self._transport.abort()  # noqa: PLW0108 - it is Any
        asked = (
            formatdate(time.time() + _ASKED + 0.999, usegmt=True).encode()
            if account.fault == "wait-date"
            else b"%d" % _ASKED
        )
        answer = _WAIT % (asked, len(_REFUSAL), _REFUSAL)
        return lambda: self._transport.write(answer)

    def _control(self, path: str) -> dict[str, Any]:
        """Return the account as it was, and begin a new one as told."""
        told = dict(parse_qsl(urlsplit(path).query))
        before = asdict(self.account)
        if told:
            Connection.account = Account(float(told.get("delay", 0)), told.get("fault", ""))
        return before


def _key(lower: bytes, body: bytes) -> str:
    """Return what marks a submit as the same as another: a header, or an id in the body."""
    for line in lower.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if b"idempotency-key" in name:
            return value.strip().decode()
    try:
        return str(json.loads(body).get("out_task_id", ""))
    except ValueError:
        return ""


def _fastest_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        return cast(
            "Callable[[], asyncio.AbstractEventLoop]",
            importlib.import_module("uvloop").new_event_loop,
        )
    except ImportError:
        return None


async def serve() -> None:
    """Serve until the process is ended."""
    server = await asyncio.get_running_loop().create_server(
        Connection, "127.0.0.1", 0, backlog=4096
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=_fastest_loop()) as runner:
        runner.run(serve())
