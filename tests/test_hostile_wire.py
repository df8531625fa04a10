"""The wire: any bytes give a value or one of our errors, in bounded time and memory.

After each the next call works, and nobody else has seen the key.
"""

import asyncio
import copy
import gzip
import json
import pickle
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aireiter_async import (
    AireiterError,
    AsyncClient,
    Balance,
    DownloadError,
    Output,
    ProtocolError,
    RequestTimeoutError,
    RetryPolicy,
    SubmitRequest,
    Task,
    TransportError,
)
from aireiter_async._envelope import Reply
from aireiter_async._transport import _body
from aireiter_async._wire import read_balance, read_query, read_submit, restore_task
from tests.conftest import search
from tests.hostile_time import skip_idle_time
from tests.hostile_wire import Peer, Script, drip, head, piece, whole

Listen = Callable[..., Awaitable[str]]

KEY = "sk-test-0a1b2c3d4e5f"
ONCE = RetryPolicy(base=0, settle=0, attempts=1, resubmit=False)
GOOD = whole(b'{"statusCode":200,"data":{"status":"pending","credits":2.5,"credits_used":2.5}}')
CHUNKED = b"Transfer-Encoding: chunked"
# The limit on an answer's length is lowered to this: what goes beyond it must stop soon after.
LIMIT = 2_000_000


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    """Run a server that does as it is told, connection by connection."""
    async with Peer() as peer:
        yield peer


@pytest.fixture
async def client(peer: Peer, path: str) -> AsyncIterator[AsyncClient]:
    """Make a client of it that tries once, and in which nothing is left in flight."""
    async with AsyncClient(KEY, base_url=peer.url, retry=ONCE, timeout=20) as client:
        yield client
        assert client._shared.transport.path in {path, None}
        assert (client.stats.in_flight, client.stats.waiting) == (0, 0)


async def works(peer: Peer, client: AsyncClient) -> None:
    """Fail unless the next call works."""
    peer.answer(GOOD)
    assert (await client.query("a")).credits_used == 2.5


def forever(block: bytes) -> Script:
    """Send a head, then *block* over and over until the other side goes."""

    async def script(peer: Peer, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(block)
            peer.sent += len(block)
            await writer.drain()

    return script


ENDLESS: dict[str, tuple[bytes, bytes]] = {
    "until it closes": (head(), b" " * 65536),
    "chunks": (head(b"Transfer-Encoding: chunked"), b"10000\r\n" + b" " * 65536 + b"\r\n"),
    "a great length": (head(b"Content-Length: 1000000000"), b" " * 65536),
    "digits": (head(b"Content-Length: 1000000000"), b"9" * 65536),
}


@pytest.mark.parametrize("name", ENDLESS)
async def test_a_body_without_end(
    monkeypatch: pytest.MonkeyPatch, peer: Peer, client: AsyncClient, name: str
) -> None:
    """A body that does not end is given up soon after the limit, and its connection is closed."""
    monkeypatch.setattr(_body, "MAX_BODY", LIMIT)
    first, block = ENDLESS[name]
    peer.play(piece(first), forever(block))
    with pytest.raises(ProtocolError, match="too long"):
        await client.query("a")
    await peer.idle()
    # What lies in the sockets' buffers on the way may come on top.
    assert peer.sent < LIMIT + 30_000_000
    await works(peer, client)


def test_the_limit_is_a_limit() -> None:
    """The limit itself, which the tests lower, is within what a machine has."""
    assert _body.MAX_BODY == 256 * 1024 * 1024


def bomb(pack: Callable[[bytes], bytes]) -> bytes:
    """Pack a body that unpacks to twenty times the limit."""
    packed = pack(b"\x89PNG\r\n\x1a\n" + b" " * 20 * LIMIT)
    assert len(packed) < LIMIT // 20
    return packed


def raw_deflate(data: bytes) -> bytes:
    """Deflate without zlib's header, as some servers do."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [(b"gzip", gzip.compress), (b"deflate", zlib.compress), (b"deflate", raw_deflate)],
)
async def test_a_bomb(
    monkeypatch: pytest.MonkeyPatch,
    peer: Peer,
    client: AsyncClient,
    encoding: bytes,
    pack: Callable[[bytes], bytes],
) -> None:
    """A body that unpacks to far more than the limit is abandoned there, in memory of its order."""
    monkeypatch.setattr(_body, "MAX_BODY", LIMIT)
    peer.answer(whole(bomb(pack), b"Content-Encoding: " + encoding))
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError, match="too long"):
            await client.query("a")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * LIMIT
    await works(peer, client)


@pytest.mark.parametrize("value", [b"[],", b"{},", b'"",', b"1.5,"])
async def test_a_bomb_of_values(peer: Peer, client: AsyncClient, value: bytes) -> None:
    """A small answer that would be millions of values is refused before it takes their memory."""
    body = b'{"statusCode":200,"data":{"credits":2.5,"a":[' + value * 3_000_000 + b"0]}}"
    packed = gzip.compress(body)
    assert len(packed) < 50_000
    peer.answer(whole(packed, b"Content-Encoding: gzip"))
    del body
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError, match="not a JSON object"):
            await client.query("a")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 50_000_000
    await works(peer, client)


async def test_a_bomb_among_the_results(peer: Peer, client: AsyncClient, tmp_path: Path) -> None:
    """A result that comes packed, though that was not asked for, takes bounded memory."""
    peer.answer(whole(bomb(gzip.compress), b"Content-Encoding: gzip", b"Content-Type: image/png"))
    tracemalloc.start()
    try:
        await client.download(Output(f"{peer.url}/a.png", "image"), tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20_000_000
    await works(peer, client)


DEEP: dict[str, bytes] = {
    "arrays": b"[" * 100_000 + b"]" * 100_000,
    "objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "arrays in data": b'{"statusCode":200,"data":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "objects in data": b'{"statusCode":200,"data":' + b'{"data":' * 50_000 + b"1" + b"}" * 50_001,
    "less deep": b'{"statusCode":200,"data":{"output":' + b"[" * 900 + b"]" * 900 + b"}}",
    "an error": b'{"error":' + b'{"message":' * 900 + b"1" + b"}" * 901,
}


@pytest.mark.parametrize("name", DEEP)
async def test_deep_json(peer: Peer, client: AsyncClient, name: str) -> None:
    """JSON that is nested deeply is an error of ours, on every endpoint."""
    for call in (
        client.balance(),
        client.query("a"),
        client.submit(SubmitRequest("veo3_1", {})),
    ):
        peer.answer(whole(DEEP[name]))
        peer.answer(whole(DEEP[name]))  # for the look that settles
        with pytest.raises(AireiterError):
            await call
        peer.forget()
    await works(peer, client)


ODD: dict[str, list[bytes]] = {
    "a header storm": [head(*[b"X-%d: a" % n for n in range(50_000)]) + b"{}"],
    "one header over and over": [head(*[b"Set-Cookie: a=b"] * 50_000) + b"{}"],
    "a huge header": [head(b"X: " + b"a" * 10_000_000)],
    "a header without end": [b"HTTP/1.1 200 OK\r\nX: " + b"a" * 10_000_000],
    "a huge reason": [b"HTTP/1.1 200 " + b"a" * 10_000_000 + b"\r\n\r\n"],
    "continue over and over": [b"HTTP/1.1 100 Continue\r\n\r\n" * 1000],
    "continue with a body": [b"HTTP/1.1 100 Continue\r\nContent-Length: 2\r\n\r\n{}"],
    "HTTP/0.9": [b"<html>hello</html>"],
    "HTTP/2": [b"HTTP/2 200 OK\r\nContent-Length: 2\r\n\r\n{}"],
    "HTTP/9.9": [b"HTTP/9.9 200 OK\r\nContent-Length: 2\r\n\r\n{}"],
    "an HTTP/2 preface": [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
    "HTTP/2 frames": [bytes.fromhex("000000040000000000") * 100],
    "TLS": [b"\x15\x03\x01\x00\x02\x02\x28"],
    "garbage first": [b"\x00\xff" * 500 + GOOD],
    "no reason": [b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n"],
    "a status of letters": [b"HTTP/1.1 abc OK\r\n\r\n"],
    "a status of nothing": [b"HTTP/1.1 000 OK\r\nContent-Length: 0\r\n\r\n"],
    "a status of four": [b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n"],
    "a status of 999": [b"HTTP/1.1 999 OK\r\nContent-Length: 2\r\n\r\n{}"],
    "bare line feeds": [b"HTTP/1.1 200 OK\nContent-Length: 0\n\n"],
    "a folded header": [b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n"],
    "a length and chunks": [head(b"Content-Length: 5", b"Transfer-Encoding: chunked") + b"x"],
    "a length of letters": [head(b"Content-Length: five") + b"hello"],
    "a length of 20 digits": [head(b"Content-Length: " + b"9" * 20) + b"{}"],
    "a chunk of letters": [head(b"Transfer-Encoding: chunked") + b"five\r\nhello\r\n"],
    "a chunk of minus": [head(b"Transfer-Encoding: chunked") + b"-1\r\n"],
    "a chunk too large": [head(b"Transfer-Encoding: chunked") + b"F" * 20 + b"\r\n"],
    "an endless extension": [head(b"Transfer-Encoding: chunked") + b"1;" + b"a" * 10_000_000],
    "an endless trailer": [head(b"Transfer-Encoding: chunked") + b"0\r\nX: " + b"a" * 10_000_000],
    "an upgrade": [head(b"Connection: upgrade", b"Upgrade: h2c", status=b"101 Switching")],
    "a null": [b"\x00"],
    "half a head": [b"HTTP/1.1 200 OK\r\nContent-"],
}


@pytest.mark.parametrize("name", ODD)
async def test_odd_responses(peer: Peer, client: AsyncClient, name: str) -> None:
    """An invalid response is one of our errors, whether the connection is then closed or kept."""
    skip_idle_time()
    for kept in (False, True):
        peer.play(*map(piece, ODD[name]), keep=kept)
        with pytest.raises(AireiterError):
            await client.query("a")
        peer.forget()
        if not kept:
            await peer.idle()
            for _ in range(3):
                await asyncio.sleep(0)  # the end of the connection is to be read
        await works(peer, client)


@pytest.mark.parametrize("lines", [[b"X: " + b"a" * 60_000], [b"X-%d: a" % n for n in range(500)]])
async def test_long_and_many_headers(peer: Peer, client: AsyncClient, lines: list[bytes]) -> None:
    """What a CDN adds hides no response."""
    _, body = GOOD.split(b"\r\n\r\n")
    peer.play(piece(head(*lines, b"Content-Length: %d" % len(body)) + body), keep=True)
    assert (await client.query("a")).credits_used == 2.5


VALUES: dict[str, bytes] = {
    "1e999": b'{"statusCode":200,"data":{"credits":1e999}}',
    "minus 1e999": b'{"statusCode":200,"data":{"credits":-1e999}}',
    "NaN": b'{"statusCode":200,"data":{"credits":NaN}}',
    "Infinity": b'{"statusCode":200,"data":{"credits":Infinity}}',
    "a million digits": b'{"statusCode":200,"data":{"credits":' + b"9" * 1_000_000 + b"}}",
    "a long code": b'{"statusCode":' + b"9" * 4_000 + b"}",
    "a code of 1e400": b'{"statusCode":1e400}',
    "a surrogate": b'{"statusCode":200,"data":{"credits":"\\ud800"}}',
    "a surrogate as a name": b'{"\\ud800":1}',
    "a list": b"[]",
    "a text": b'"ok"',
    "nothing": b"",
    "blanks": b" \r\n\t",
    "two values": b"{}{}",
    "a comment": b"/* */ {}",
    "code in a list": b'{"code":[200],"statusCode":{"a":1},"data":[[]]}',
    "a page": b"<!doctype html><html></html>",
}


@pytest.mark.parametrize("name", VALUES)
async def test_odd_values(peer: Peer, client: AsyncClient, name: str) -> None:
    peer.answer(whole(VALUES[name]))
    with pytest.raises(AireiterError):
        await client.balance()
    await works(peer, client)
    assert peer.connections == 1


async def test_the_last_of_two_equal_names_counts(peer: Peer, client: AsyncClient) -> None:
    """Duplicate keys are read as JSON parsers read them: the last one counts."""
    peer.answer(whole(b'{"statusCode":400,"statusCode":200,"data":{"credits":9,"credits":2.5}}'))
    assert (await client.balance()).credits == 2.5


@pytest.mark.parametrize("end", ["closes", "resets"])
async def test_a_response_cut_anywhere(peer: Peer, client: AsyncClient, end: str) -> None:
    """A response of which any number of bytes arrives before the connection goes is no response."""
    for length in range(len(GOOD)):
        peer.play(piece(GOOD[:length]), reset=end == "resets")
        with pytest.raises(TransportError):
            await client.query("a")
    await works(peer, client)


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_response_in_any_pieces(peer: Peer, client: AsyncClient, *, chunked: bool) -> None:
    """A response that arrives in two pieces, cut anywhere, or byte by byte, is that response."""
    answer = GOOD
    if chunked:
        body = GOOD.partition(b"\r\n\r\n")[2]
        answer = head(b"Transfer-Encoding: chunked") + b"".join(
            b"%x\r\n%s\r\n" % (1, body[at : at + 1]) for at in range(len(body))
        )
        answer += b"0\r\n\r\n"
    for at in range(1, len(answer), 3):
        peer.play(piece(answer[:at]), piece(answer[at:]), keep=True)
        assert (await client.query("a")).credits_used == 2.5
    peer.play(*(piece(answer[at : at + 1]) for at in range(len(answer))), keep=True)
    assert (await client.query("a")).credits_used == 2.5
    assert peer.connections == 1


@pytest.mark.parametrize("where", ["head", "body", "chunks"])
async def test_a_drip_without_end(peer: Peer, client: AsyncClient, where: str) -> None:
    first = {
        "head": b"HTTP/1.1 200 OK\r\nX: ",
        "body": head(b"Content-Length: 100000"),
        "chunks": head(b"Transfer-Encoding: chunked"),
    }[where]
    drop = b"1\r\n \r\n" if where == "chunks" else b" "
    peer.play(piece(first), drip(drop))
    with pytest.raises(RequestTimeoutError, match="within 20 s"):
        await client.query("a")
    assert 20 <= peer.sent // len(drop) < 30
    await peer.idle()
    await works(peer, client)


async def test_a_result_whose_head_drips(peer: Peer, client: AsyncClient, tmp_path: Path) -> None:
    """A result's host that never comes to the end of its head is given up, too."""
    peer.play(piece(b"HTTP/1.1 200 OK\r\nX: "), drip(b"a"))
    with pytest.raises(DownloadError, match="within 20 s"):
        await client.download(Output(f"{peer.url}/a", "image"), tmp_path)
    assert 20 <= peer.sent < 30
    await peer.idle()
    await works(peer, client)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(peer: Peer, client: AsyncClient, status: int) -> None:
    """No redirect takes a call of the API, or its key, to another host."""
    async with Peer() as other:
        location = f"Location: {other.url}/api/openapi/submit".encode()
        for call in (
            client.balance(),
            client.query("a"),
            client.submit(SubmitRequest("veo3_1", {})),
        ):
            for _ in range(2):
                peer.answer(head(b"Content-Length: 0", location, status=b"%d Moved" % status))
            with pytest.raises(AireiterError):
                await call
            peer.forget()
        assert other.connections == 0
    await works(peer, client)


async def test_a_redirected_result_is_followed_without_the_key(
    peer: Peer, client: AsyncClient, tmp_path: Path
) -> None:
    """Redirects of results lead to other hosts and back, and on none of them is the key seen."""
    async with Peer() as other:
        target = f"Location: {peer.url}/b.png".encode()
        peer.answer(
            head(b"Content-Length: 0", f"Location: {other.url}/".encode(), status=b"302 Found")
        )
        other.answer(head(b"Content-Length: 0", target, status=b"307 Temporary Redirect"))
        peer.answer(whole(b"\x89PNG\r\n\x1a\n", b"Content-Type: image/png"))
        [path] = await client.download(Output(f"{peer.url}/a.png", "image"), tmp_path)
        assert path.suffix == ".png"
        assert len(peer.heard) + len(other.heard) == 3
        assert not any(KEY.encode() in each for each in peer.heard + other.heard)


async def test_a_response_that_nobody_asked_for(peer: Peer, client: AsyncClient) -> None:
    """A second response behind the first one is not taken for that to the next question."""
    other = whole(b'{"statusCode":200,"data":{"status":"pending","credits_used":666}}')
    for _ in range(20):
        peer.play(piece(GOOD + other), keep=True)
        assert (await client.query("a")).credits_used == 2.5
        peer.forget()
        peer.answer(GOOD)
        assert (await client.query("a")).credits_used == 2.5
        peer.forget()


async def test_a_response_that_comes_late_to_the_pool(peer: Peer, client: AsyncClient) -> None:
    """Bytes that arrive on an idle connection spoil it: it is not used again."""
    other = whole(b'{"statusCode":200,"data":{"status":"pending","credits_used":666}}')
    for _ in range(20):
        peer.play(piece(GOOD), piece(other), keep=True)
        assert (await client.query("a")).credits_used == 2.5
        for _ in range(8):
            await asyncio.sleep(0)
        peer.forget()
        peer.answer(GOOD)
        assert (await client.query("a")).credits_used == 2.5
        peer.forget()


async def test_idle_connections_that_are_closed_as_they_are_used(
    peer: Peer, client: AsyncClient
) -> None:
    """A pool of connections that the service closes at any moment gives a response or our error."""
    for turns in range(30):
        peer.play(piece(GOOD))  # says keep-alive, and closes
        await client.query("a")
        for _ in range(turns % 10):
            await asyncio.sleep(0)
        peer.answer(GOOD)
        [found] = await asyncio.gather(client.query("a"), return_exceptions=True)
        assert isinstance(found, Task | TransportError)
        peer.forget()
    await works(peer, client)


@pytest.mark.filterwarnings("ignore:BasicAuth is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The 'auth' parameter:DeprecationWarning")
@pytest.mark.parametrize("where", ["session", "netrc"])
async def test_a_borrowed_session_with_credentials_of_its_own(
    monkeypatch: pytest.MonkeyPatch, peer: Peer, tmp_path: Path, where: str
) -> None:
    """Where aiohttp would not send the key, nothing is sent, and the error says what to change."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login a password b", encoding="utf-8")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    options: dict[str, Any] = (
        {"trust_env": True} if where == "netrc" else {"auth": aiohttp.BasicAuth("a", "b")}
    )
    async with aiohttp.ClientSession(**options) as session:
        client = AsyncClient(KEY, base_url=peer.url, session=session)
        for call in (
            client.balance(),
            client.query("a"),
            client.wait("a"),
            client.submit(SubmitRequest("veo3_1", {})),
        ):
            with pytest.raises(ValueError, match="session has its own credentials") as caught:
                await call
            assert search(caught.value, KEY) == []
    assert peer.heard == []


async def test_any_other_value_error_of_a_borrowed_session_is_its_owners(peer: Peer) -> None:
    """What a session's own hooks raise passes as it is."""

    async def refuse(*_args: object) -> None:
        await asyncio.sleep(0)
        raise ValueError("not today")

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(refuse)
    async with aiohttp.ClientSession(trace_configs=[trace]) as session:
        with pytest.raises(ValueError, match="not today"):
            await AsyncClient(KEY, base_url=peer.url, session=session).balance()


@pytest.mark.parametrize("reset", [False, True])
async def test_a_proxy_that_dies(peer: Peer, *, reset: bool) -> None:
    told = b"HTTP/1.1 200 Connection established\r\n\r\n"
    async with aiohttp.ClientSession(proxy=peer.url) as session:
        client = AsyncClient(
            KEY, base_url="https://aireiter.invalid", session=session, retry=ONCE, timeout=5
        )
        for length in range(0, len(told) + 1, 4):
            peer.play(piece(told[:length]), reset=reset)
            peer.play(piece(told[:length]), reset=reset)
            with pytest.raises(AireiterError):
                await client.submit(SubmitRequest("veo3_1", {}))
            peer.forget()
        plain = AsyncClient(
            KEY, base_url="http://aireiter.invalid", allow_http=True, session=session, retry=ONCE
        )
        peer.play(piece(GOOD[:30]), reset=reset)
        with pytest.raises(TransportError):
            await plain.balance()
        peer.forget()
        peer.answer(GOOD)
        assert (await plain.balance()).credits == 2.5
        assert not any(KEY.encode() in each for each in peer.heard if b"CONNECT" in each)


BODIES = (
    b'{"statusCode":200,"data":{"credits":2.5,"status":"completed","output":["data:,a"]}}',
    b'{"statusCode":200,"data":{"status":"processing"}}',
    b'{"statusCode":200,"data":null}',
    b'{"statusCode":404,"message":"api task not found"}',
    b'{"error":{"code":401,"message":"%s"}}' % KEY.encode(),
    b"<html>%s</html>" % KEY.encode(),
    b"\x89PNG\r\n\x1a\n\x00",
    b"",
)
PACKS: tuple[Callable[[bytes], bytes], ...] = (
    bytes,
    bytes,
    bytes,
    gzip.compress,
    zlib.compress,
    raw_deflate,
    lambda body: gzip.compress(gzip.compress(body)),
    lambda body: gzip.compress(body) * 2,
    lambda body: gzip.compress(body) + b"junk",
    lambda body: gzip.compress(body)[:-3],
    lambda body: body.decode("latin-1").encode("utf-16"),
)
FRAMES: tuple[Callable[[bytes], tuple[bytes, bytes]], ...] = (
    lambda body: (b"Content-Length: %d" % len(body), body),
    lambda body: (b"Content-Length: %d" % len(body), body),
    lambda body: (b"Content-Length: %d" % max(0, len(body) - 3), body),
    lambda body: (b"Content-Length: %d" % (len(body) + 3), body),
    lambda body: (b"Content-Length: %d\r\nContent-Length: 2" % len(body), body),
    lambda body: (b"Content-Length: +%d" % len(body), body),
    lambda body: (CHUNKED, b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)),
    lambda body: (CHUNKED, b'%X;a="b"\r\n%s\r\n0\r\nX: y\r\n\r\n' % (len(body), body)),
    lambda body: (CHUNKED, b"%x\r\n%s\r\n0\r\n%s\r\n" % (len(body), body, b"X: y\r\n" * 500)),
    lambda body: (CHUNKED, b"%x\r\n%s\r\n0\r\n" % (len(body), body)),
    lambda body: (CHUNKED, b"%x\n%s\n0\n\n" % (len(body), body)),
    lambda body: (CHUNKED, b"-1\r\n" + body),
    lambda body: (CHUNKED + b", chunked", b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)),
    lambda body: (CHUNKED + b"\r\nContent-Length: 5", b"0\r\n\r\n" + body),
    lambda body: (b"X: y", body),
)
STATUSES = (
    *[b"HTTP/1.1 200 OK"] * 6,
    b"HTTP/1.0 200 OK",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK",
    b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\nHTTP/1.1 200 OK",
    b"HTTP/1.1 100 Continue\r\n\r\n" * 500 + b"HTTP/1.1 200 OK",
    b"HTTP/1.1 101 Switching Protocols",
    b"HTTP/1.1 204 No Content",
    b"HTTP/1.1 206 Partial",
    b"HTTP/1.1 302 Found",
    b"HTTP/1.1 304 Not Modified",
    b"HTTP/1.1 429 Too Many",
    b"HTTP/1.1 503 " + KEY.encode(),
    b"HTTP/1.1 999 \xff",
    b"http/1.1 200 ok",
    b"ICY 200 OK",
)
LINES = (
    b"Authorization: Bearer " + KEY.encode(),
    b"Connection: close",
    b"Connection: upgrade\r\nUpgrade: h2c",
    b"Content-Encoding: gzip",
    b"Content-Encoding: deflate",
    b"Content-Encoding: gzip, gzip",
    b"Content-Encoding: br",
    b"Content-Encoding: zstd",
    b"Content-Encoding: \xff",
    b"Content-Type: text/html",
    b"Content-Type: application/json; charset=utf-16",
    b"Content-Type: image/png; charset=\xff",
    b"Content-Type: ;;=",
    b"Date: yesterday",
    b"Location: /",
    b"Location: http://[",
    b"Location: http://user:word@127.0.0.1:1/",
    b"Location: data:,a",
    b"Location: \xff",
    b"Retry-After: -1",
    b"Retry-After: 1e308",
    b"Retry-After: nan",
    b"Retry-After: Fri, 31 Dec 9999 23:59:59 -2359",
    b"Set-Cookie: a=b; Max-Age=1e999; expires=never; domain=.; path=\xff",
    b"Set-Cookie: \xff=;;;",
    b"Trailer: X",
    b"X: \x01",
    b" folded",
    b"nothing",
    b": no name",
)


@st.composite
def answers(draw: st.DrawFn) -> tuple[bytes, ...]:
    """Draw a response with something wrong here and there, in pieces."""
    framing, body = draw(st.sampled_from(FRAMES))(
        draw(st.sampled_from(PACKS))(draw(st.sampled_from(BODIES)))
    )
    lines = [*draw(st.lists(st.sampled_from(LINES), max_size=4)), framing]
    raw = b"\r\n".join([draw(st.sampled_from(STATUSES)), *lines]) + b"\r\n\r\n" + body
    spoil = draw(st.sampled_from(["not"] * 5 + ["cut", "garble", "repeat", "shout"]))
    at = draw(st.integers(0, len(raw)))
    if spoil == "cut":
        raw = raw[:at]
    elif spoil == "garble":
        raw = raw[:at] + draw(st.binary(max_size=3)) + raw[at + 1 :]
    elif spoil == "repeat":
        raw *= 2
    elif spoil == "shout":
        raw = draw(st.binary(min_size=1, max_size=8)) + raw
    at = draw(st.integers(0, len(raw)))
    return (raw[:at], raw[at:]) if draw(st.booleans()) else (raw,)


Verb = Callable[[AsyncClient, str, Path], Awaitable[object]]
VERBS: dict[str, tuple[Verb, type]] = {
    "balance": (lambda client, _url, _to: client.balance(), Balance),
    "query": (lambda client, _url, _to: client.query("a"), Task),
    "submit": (lambda client, _url, _to: client.submit(SubmitRequest("veo3_1", {}, "a")), Task),
    "wait": (lambda client, _url, _to: client.wait("a", timeout=0), Task),
    "download": (lambda client, url, to: client.download(Output(f"{url}/a"), to), list),
}


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("verb", VERBS)
@settings(
    max_examples=settings().max_examples // 5,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(answers(), min_size=1, max_size=3), st.booleans(), st.booleans())
def test_any_response(
    tmp_path: Path,
    verb: str,
    plays: list[tuple[bytes, ...]],
    reset: bool,  # noqa: FBT001 - of hypothesis
    lent: bool,  # noqa: FBT001 - of hypothesis
) -> None:
    call, kind = VERBS[verb]

    async def main() -> None:
        complaints: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, told: complaints.append(told))
        async with (
            Peer() as peer,
            aiohttp.ClientSession() as session,
            AsyncClient(
                KEY, base_url=peer.url, retry=ONCE, timeout=20, session=session if lent else None
            ) as client,
        ):
            for pieces in plays:
                peer.play(*map(piece, pieces), reset=reset)
            # aiohttp tells nobody of a chunk that is none behind good ones: the timeout does.
            hasty = client.with_options(timeout=0.1)
            [found] = await asyncio.gather(call(hasty, peer.url, tmp_path), return_exceptions=True)
            assert isinstance(found, kind | AireiterError)
            if isinstance(found, BaseException):
                assert verb == "download" or search(found, KEY) == []
            else:
                assert KEY not in repr([found, getattr(found, "raw", None)])
            assert (client.stats.in_flight, client.stats.waiting) == (0, 0)
            peer.forget()
            await peer.idle()
            for _ in range(3):
                await asyncio.sleep(0)  # the end of the connection is to be read
            await works(peer, client)
        assert complaints == []

    asyncio.run(main())
    assert list(tmp_path.glob("*.part")) == []


NAMES = (
    "statusCode code error message data ok success out_task_id task_id status output url video "
    "audio file list title text metadata credits credits_used estimated_credits created_at "
    "completed_at free_quotas model_key total input \ud800"
)
VALUES_OF_NOTE = """
    null true false 0 -0 -0.0 1e999 -1E999 1e-999 200 "200" 200.0 2e2 400 401 404 429 433 500 -1
    "" "a" "\\ud800" "\\udc00\\ud800" "\\u0000" "completed" "failed" "pending" "?" NaN Infinity
    "nan" "inf" "1e308" "0001-01-01T00:00:00+23:59" "9999-12-31T23:59:59-23:59" "2026-W01"
    "http://[a" "http://h/a.png" "data:image/png;base64,AAAA"
"""
SCALARS = st.sampled_from(VALUES_OF_NOTE.split()) | st.sampled_from(
    [
        "9" * 4299,
        "-" + "9" * 4301,
        '"' + "9" * 5000 + '"',
        "[" * 300 + "]" * 300,
        '"api task not found"',
    ]
)


def an_object(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Draw a JSON object in which a name may come twice."""
    pairs = st.tuples(st.sampled_from(NAMES.split()).map(json.dumps), inner).map(":".join)
    return st.lists(pairs, max_size=6).map(lambda each: f"{{{','.join(each)}}}")


def a_list(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Draw a JSON array."""
    return st.lists(inner, max_size=4).map(lambda each: f"[{','.join(each)}]")


DOCUMENTS = st.recursive(
    SCALARS | st.floats().map(repr) | st.text(max_size=4).map(json.dumps),
    lambda inner: an_object(inner) | a_list(inner),
    max_leaves=12,
)
ENVELOPES = DOCUMENTS | st.builds(
    '{{"statusCode":200,"data":{{"status":{},"credits":1,"out_task_id":"a","output":{}}}}}'.format,
    SCALARS,
    DOCUMENTS,
)
PACES = st.sampled_from(
    [
        *("nan", "inf", "-inf", "1e308", "-1", "9" * 400, "1_0", "\u0663", "", "0x1", "1e999"),
        "Fri, 31 Dec 9999 23:59:59 -2359",
        "Mon, 01 Jan 0001 00:00:00 +2359",
        "Mon, 01 Jan 0000 00:00:00 GMT",
        "1 Jan 99999999999999999999 00:00:00 GMT",
        "Sun, 06 Nov 1994 08:49:37 +99999999",
        "31 Feb 2020 0:0:0",
    ]
) | st.lists(
    st.sampled_from(["Mon,", "1", "Jan", "99", "0:0", "1.2.3", "GMT", "-", "+1", ":"])
).map(" ".join)
ENDS = (b"", b"\x00", b"{}", b" \r\n", b"\xef\xbb\xbf", b"\xff")


BODIES_OF_NOTE = st.builds(
    lambda document, encoding, end: document.encode(encoding, "surrogatepass") + end,
    ENVELOPES,
    st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-32"]),
    st.sampled_from([b""] * 5 + list(ENDS)),
)


@given(
    BODIES_OF_NOTE | st.binary(max_size=200),
    st.sampled_from([None, "suno_lyrics", "veo3_1", "no_such_model"]),
    st.sampled_from([200, 200, 200, 204, 302, 400, 404, 429, 500, 599, 999, 0]),
    st.fixed_dictionaries({}, optional={"Retry-After": PACES, "Date": PACES, "Location": PACES}),
)
def test_any_body_is_a_value_or_an_error(
    body: bytes, model: str | None, status: int, headers: dict[str, str]
) -> None:
    """Either can be shown, copied, pickled and stored, and an error's `retry_after` is a time."""
    reply = Reply(status, headers, body, 0.0)
    request = SubmitRequest(model or "m", {}, "a")
    for read in (
        lambda: read_submit(reply, request),
        lambda: read_query(reply, "a", model),
        lambda: read_balance(reply),
    ):
        try:
            found: Any = read()
        except AireiterError as error:
            found = error
        assert (getattr(found, "retry_after", None) or 0.0) >= 0.0
        assert isinstance(found, Task | Balance) or len(str(found)) < 25_000
        assert type(found).__module__.startswith("aireiter_async")
        assert repr(pickle.loads(pickle.dumps(found))) == repr(found)  # noqa: S301
        assert repr(copy.deepcopy(found)) == repr(found)
        if isinstance(found, Task) and found.done:
            kept = json.dumps(found.raw, allow_nan=False)
            assert restore_task(kept, "a", "veo3_1").status is found.status
