"""Replies that were damaged on their way: whatever they are, a wait for a paid task ends.

A relay stands in front of a `FakeService`, in its process. It passes submits on as they are, and
damages the replies to queries: the ID of a task is the seed of what happens to its replies.
"""

import asyncio
import json
import random
import re
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any, Final, get_args
from urllib.parse import urlsplit

from aireiter_async import (
    AireiterError,
    AsyncClient,
    PollPolicy,
    RetryPolicy,
    SubmitRequest,
    TaskFailedError,
    TaskTimeoutError,
)
from aireiter_async.testing import FakeService
from aireiter_async.testing._options import API_KEY
from aireiter_async.testing._replies import Envelope
from benchmarks.fleet import FakeServer, ask
from benchmarks.report import Section, Table, Target

_MODULE: Final = "benchmarks.mutants"
_ENVELOPES: Final[tuple[Envelope, ...]] = get_args(Envelope)
_MODELS: Final = ("nano_banana", "kling_v3_omni", "minimax_h3_turbo", "suno", "suno_lyrics")
_PATH: Final = b"/api/openapi/query"
_AT_ONCE: Final = 128
_TIMEOUT: Final = 1.0  # seconds of a wait
_TOO_LONG: Final = 60.0  # seconds after which a wait counts as endless

# Damage -----------------------------------------------------------------------------------------

_JUNK: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, -1, 1, 200, 400, 404, 500, 1e300, 10**30, 0.5),
    *("", "0", "200", "null", "completed", "failed", "processing", "x" * 5000),
    *("2026-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "0001-01-01", "小猫", "\ud83d", "a\0b"),
    *([], {}, [[]], [None], {"": None}, {"url": None}, {"code": "x", "message": "no"}, ["x"] * 100),
)
_LITERALS: Final = (b"NaN", b"-Infinity", b"1e999", b"9" * 5000, b"'x'", b"undefined", b"[" * 300)
_MARK: Final = "literal"
_NAMES: Final = ("extra", "error", "code", "success", "message", "result")
_DELETION, _CASE, _ADDITION = 6, 7, 8
_HEADERS: Final = (
    *b"""Content-Type: text/html
Content-Type: application/json; charset=gbk
Content-Type: application/json; charset=utf-16
Content-Type: ;;;
Content-Type:
Content-Encoding: identity
Content-Encoding: x-unknown
Retry-After: soon
Retry-After: -1
Retry-After: 1e400
Date: yesterday
Set-Cookie: a=b; expires=never
X-Odd: \xff\xfe
Link: <>; rel=
Location: http://[
Connection: x-y
Warning: 299 - "\xe5\xb0\x8f"
Age: -5
Via: 1.1 a, 1.1 b
x-empty:
ETag: "
Expires: 0
Keep-Alive: timeout=0""".split(b"\n"),
    b"Server: " + b"y" * 9000,
    b"X-Long: " + b"x" * 60_000,
)
_REASONS: Final = (
    b"1.0 200 OK",
    b"1.1 200 ",
    b"1.1 200",
    b"1.1 200 \xe5",
    b"1.1 200 " + b"K" * 3000,
)
_SYNTAX: Final = (b'"', b"\\", b"{", b"}", b",", b"\xff", b"\0", b"\n")
_PREFIXES: Final = (b"\xef\xbb\xbf", b"  \r\n", b")]}'\n", b"\0")


def _damage_bytes(head: list[bytes], body: bytes, draw: random.Random) -> tuple[list[bytes], bytes]:
    place, length = draw.randrange(len(body)), draw.choice([1, 1, 2, 4, 16])
    junk = draw.choice([draw.randbytes(length), *_SYNTAX])
    return head, draw.choice(
        [
            body[:place] + junk + body[place:],
            body[:place] + junk + body[place + len(junk) :],
            body[:place] + body[place + length :],
            body[:place] + body[max(0, place - length) :],
            body[: max(1, len(body) - length)],
            draw.choice(_PREFIXES) + body,
        ]
    )


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each container and key in a JSON value."""
    for key in value if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])


def _damage_json(head: list[bytes], body: bytes, draw: random.Random) -> tuple[list[bytes], bytes]:
    try:
        payload = json.loads(body)
        places = list(_places(payload))
        container, key = draw.choice(places)
    except (ValueError, TypeError, IndexError):  # an earlier damage has left no JSON, or no value
        return head, body
    value, junk = container[key], draw.choice(_JUNK)
    outer, inner = draw.choice(places)
    values = [junk, junk, [value], json.dumps(value), outer[inner], _MARK]
    before: bytes | None = None
    change = draw.randrange(10)
    if change < len(values):
        container[key] = values[change]
    elif isinstance(container, list) or change == _DELETION:
        del container[key]
    elif change == _CASE:
        container[str(key).upper()] = container.pop(key)
    elif change == _ADDITION:
        container[draw.choice(_NAMES)] = junk
    else:
        before = f'"{key}": {json.dumps(junk)}, '.encode("utf-8", "surrogatepass")
    try:
        text = json.dumps(payload, ensure_ascii=draw.choice([True, False]))
    except ValueError:  # it contains itself now
        return head, body
    body = text.encode("utf-8", "surrogatepass").replace(
        b'"%b"' % _MARK.encode(), draw.choice(_LITERALS)
    )
    if before is not None:  # the same key twice
        name = f'"{key}": '.encode()
        body = body.replace(name, before + name, 1)
    return head, body


def _damage_head(head: list[bytes], body: bytes, draw: random.Random) -> tuple[list[bytes], bytes]:
    line = draw.choice(_HEADERS)
    name = line.split(b":")[0].lower()
    gone = draw.randrange(1, len(head))
    heads = [
        [b"HTTP/" + draw.choice(_REASONS), *head[1:]],
        head[:gone] + head[gone + 1 :],
        [*head, *(b"X-%d: %d" % (n, n) for n in range(draw.choice([20, 150])))],
        [head[0], *(each.upper() for each in head[1:])],
        [*head, line],
        [*(each for each in head if each.split(b":")[0].lower() != name), line],
    ]
    return draw.choice(heads), body


Damage = Callable[[list[bytes], bytes, random.Random], tuple[list[bytes], bytes]]
KINDS: Final[dict[str, Damage]] = {
    "bytes": _damage_bytes,
    "JSON structure": _damage_json,
    "headers": _damage_head,
}


def kind_of(seed: int) -> str:
    """Return what is damaged for a seed."""
    return list(KINDS)[seed % len(KINDS)]


def damage(reply: bytes, seed: int) -> bytes:
    """Return a reply, damaged in one to three places."""
    draw = random.Random(seed)  # noqa: S311 - repeatable, guards nothing
    top, _, body = reply.partition(b"\r\n\r\n")
    head = top.split(b"\r\n")
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        head, body = KINDS[kind_of(seed)](head, body or b"x", draw)
    head = [head[0], *(each for each in head[1:] if not each.lower().startswith(b"content-length"))]
    head += [b"Content-Length: %d" % len(body), b"Connection: close"]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


async def _read_message(reader: asyncio.StreamReader) -> bytes:
    """Read a request or a reply; nothing where there is none."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        return head + await reader.readexactly(int(length[1]) if length else 0)
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""


async def _relay(url: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on the requests of one connection, and damage the replies to queries."""
    theirs, ours = await asyncio.open_connection(urlsplit(url).hostname, urlsplit(url).port)
    try:
        while request := await _read_message(reader):
            ours.write(request)
            reply = await _read_message(theirs)
            seed = re.search(rb'"out_task_id":"m-(\d+)"', request) if _PATH in request else None
            if seed:
                writer.write(damage(reply, int(seed[1])))
                break
            writer.write(reply)
    finally:
        ours.close()
        writer.close()


async def _serve() -> None:
    """Relay to a service per envelope, until the standard input ends; print the URLs."""
    async with AsyncExitStack() as stack:
        urls = []
        tasks: set[object] = set()  # asyncio itself may lose those that wait
        for envelope in _ENVELOPES:
            service = await stack.enter_async_context(FakeService(envelope=envelope, record=False))
            url = service.url

            async def relay(*streams: Any, url: str = url) -> None:
                tasks.add(task := asyncio.current_task())
                try:
                    await _relay(url, *streams)
                finally:
                    tasks.discard(task)

            server = await asyncio.start_server(relay, "127.0.0.1", 0, backlog=1024, limit=2**20)
            urls.append(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        print(*urls, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


# Judgement --------------------------------------------------------------------------------------


def _fetch(url: str, out_task_id: str) -> bytes:
    """Fetch a reply as it is, without any HTTP library."""
    body = b'{"out_task_id":"%s"}' % out_task_id.encode()
    head = b"POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n"
    with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), 30) as sock:
        sock.sendall(head % (_PATH, API_KEY.encode(), len(body)) + body)
        return b"".join(iter(lambda: sock.recv(65536), b""))


def readable(reply: bytes, out_task_id: str) -> str | None:
    """Return the end that a person reads in a reply: a status in its place, or beside the ID."""
    head, _, body = reply.partition(b"\r\n\r\n")
    text = body.decode("utf-8", "replace").strip("\ufeff\0 \r\n")
    words = re.findall(r'(?<!\\)"status"\s*:\s*"([^"]*)"', text)
    codes = re.findall(r'"(?:statusCode|code)"\s*:\s*"?([^",}\s]*)', text)
    ids = re.findall(r'"out_task_id"\s*:\s*("[\w-]+"|-?\d+)', text, re.ASCII)
    try:
        data = json.loads(text, strict=False)["data"]
        in_place = "status" in (data if isinstance(data, dict) else data[0])
    except (ValueError, LookupError, TypeError, RecursionError):
        in_place = False
    beyond_doubt = (
        re.match(rb"HTTP/1.[01] 200\b", head) is not None
        and b"content-encoding: x-unknown" not in head.lower()
        and len(words) == text.count('"status"') == 1
        and set(codes) <= {"200"}
        and set(ids) <= {f'"{out_task_id}"'}
        and (in_place or ids)
        and '"error"' not in text
    )
    return words[0] if beyond_doubt and words[0] in {"completed", "failed"} else None


async def _wait(client: AsyncClient, url: str, seed: int) -> tuple[str, str]:
    """Wait for one task; return how that ended, and what is wrong with it, if anything."""
    out_task_id = f"m-{seed}"
    model = _MODELS[seed // 12 % len(_MODELS)]
    request = SubmitRequest(model, {"prompt": "a"}).with_id(out_task_id, generated=True)
    task = await client.submit(request)
    try:
        async with asyncio.timeout(_TOO_LONG):
            task = await client.wait(task, timeout=_TIMEOUT)
    except AireiterError as error:
        end = type(error).__name__
        if getattr(error, "out_task_id", None) != out_task_id:
            return end, f"the error does not name the task: {error!r}"
        if not isinstance(error, TaskTimeoutError | TaskFailedError):
            return end, ""
        word = readable(await asyncio.to_thread(_fetch, url, out_task_id), out_task_id)
        hidden = word == "completed" if isinstance(error, TaskFailedError) else word is not None
        return end, f"the status can be read: {word}" if hidden else ""
    except TimeoutError:
        return "endless", "the wait did not end"
    except Exception as error:  # noqa: BLE001 - any other is wrong
        return type(error).__name__, f"not an error of ours: {error!r}"
    return str(task.status.value), "" if task.out_task_id == out_task_id else "another task"


async def _wait_for_all(urls: list[str], count: int) -> list[tuple[int, str, str]]:
    seeds = iter(range(count))
    ends: list[tuple[int, str, str]] = []
    policies: dict[str, Any] = {
        "retry": RetryPolicy(base=0, settle=0),
        "polling": PollPolicy(first=0, step=0, cap=0, grace=0),
    }
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(AsyncClient(API_KEY, base_url=url, **policies))
            for url in urls
        ]
        for client in clients:
            await client.balance()  # the URL is right

        async def work() -> None:
            for seed in seeds:
                at = seed // len(KINDS) % len(urls)
                ends.append((seed, *await _wait(clients[at], urls[at], seed)))

        await asyncio.gather(*(work() for _ in range(_AT_ONCE)))
    return ends


def run(count: int) -> list[tuple[int, str, str]]:
    """Let *count* tasks end in damaged replies; return seeds, ends, and what is wrong with them."""
    with FakeServer(_MODULE) as server:
        ends: list[tuple[int, str, str]] = ask(_MODULE, "wait", *server.urls, count)
    return ends


def measure(count: int) -> Section:
    """Let *count* tasks end in damaged replies."""
    ends = run(count)
    wrong = {seed: fault for seed, _, fault in ends if fault}
    counts = Counter((kind_of(seed), end) for seed, end, _ in ends)
    columns = sorted({end for _, end in counts})
    rows = [
        [
            kind,
            *(f"{n:,}" for n in (sum(counts[kind, end] for end in columns),
                                 sum(kind_of(seed) == kind for seed in wrong),
                                 *(counts[kind, end] for end in columns))),
        ]
        for kind in KINDS
    ]  # fmt: skip
    text = (
        "`wait` for tasks that are completed, while each reply to a query is damaged in one to "
        "three places. Wrong: the wait does not end, ends in an error that is not ours or does not "
        "name the task, or goes on to its deadline although the end can be read. "
    )
    text += "; ".join(f"seed {seed}: {fault}" for seed, fault in wrong.items())
    table = Table(["damaged", "replies", "wrong", *columns], rows)
    target = Target("waits that end wrongly after a damaged reply", 0, len(wrong))
    return Section("Damaged replies", text, [table], [target])


def main() -> None:
    """Do what one of the processes does."""
    what, *arguments = sys.argv[1:]
    if what == "serve":
        asyncio.run(_serve())
    else:
        *urls, count = arguments
        print(json.dumps(asyncio.run(_wait_for_all(urls, int(count)))))


if __name__ == "__main__":
    main()
