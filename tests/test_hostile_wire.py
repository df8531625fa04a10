"""
The wire: any bytes, in any pieces, give a value or one of our errors, in bounded time and memory.

After each the next call works, and nobody else has seen the key.
"""

import asyncio
import gzip
import json
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
    TransportError,
)
from aireiter_async._envelope import ERRORS, Reply
from aireiter_async._transport import _pool
from aireiter_async._wire import read_balance, read_query, read_submit
from tests.hostile_wire import Peer, Script, head, piece, whole

Listen = Callable[..., Awaitable[str]]

KEY = "sk-test-0a1b2c3d4e5f"
ONCE = RetryPolicy(base=0, settle=0, attempts=1, resubmit=False)
GOOD = whole(b'{"statusCode":200,"data":{"credits":2.5}}')
# The limit on an answer's length is lowered to this: what goes beyond it must stop soon after.
LIMIT = 2_000_000


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    """
    Run a server that does as it is told, connection by connection.
    """
    async with Peer() as peer:
        yield peer


@pytest.fixture
async def client(peer: Peer) -> AsyncIterator[AsyncClient]:
    """
    Make a client of it that tries once, and in which nothing is left in flight.
    """
    async with AsyncClient(KEY, base_url=peer.url, retry=ONCE, timeout=20) as client:
        yield client
        assert (client.stats.in_flight, client.stats.waiting) == (0, 0)


async def works(peer: Peer, client: AsyncClient) -> None:
    """
    Fail unless the next call works.
    """
    peer.answer(GOOD)
    assert (await client.balance()).credits == 2.5


def forever(block: bytes) -> Script:
    """
    Send a head, then *block* over and over until the other side goes.
    """

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
    """
    A body that does not end is given up soon after the limit, and its connection is closed.
    """
    monkeypatch.setattr(_pool, "_LONGEST_BODY", LIMIT)
    first, block = ENDLESS[name]
    peer.play(piece(first), forever(block))
    with pytest.raises(ProtocolError, match="too long"):
        await client.balance()
    await peer.idle()
    # What lies in the sockets' buffers on the way may come on top.
    assert peer.sent < LIMIT + 30_000_000
    await works(peer, client)


def test_the_limit_is_a_limit() -> None:
    """
    The limit itself, which the tests lower, is within what a machine has.
    """
    assert _pool._LONGEST_BODY == 256 * 1024 * 1024


def bomb(pack: Callable[[bytes], bytes]) -> bytes:
    """
    Pack a body that unpacks to far more than the limit.
    """
    packed = pack(b" " * 100_000_000)
    assert len(packed) < 200_000
    return packed


def raw_deflate(data: bytes) -> bytes:
    """
    Deflate without zlib's header, as some servers do.
    """
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
    """
    What unpacks to fifty times the limit is given up at the limit, in memory of its order.
    """
    monkeypatch.setattr(_pool, "_LONGEST_BODY", LIMIT)
    peer.answer(whole(bomb(pack), b"Content-Encoding: " + encoding))
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError, match="too long"):
            await client.balance()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * LIMIT
    await works(peer, client)


async def test_a_bomb_among_the_results(peer: Peer, client: AsyncClient, tmp_path: Path) -> None:
    """
    A result that comes packed, though that was not asked for, takes bounded memory.
    """
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
    """
    JSON that is nested deeply is an error of ours, on every endpoint.
    """
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
async def test_odd_answers(peer: Peer, client: AsyncClient, name: str) -> None:
    """
    What is no answer is an error of ours, whether the connection is closed after it or kept.
    """
    for kept in (False, True):
        peer.play(*map(piece, ODD[name]), keep=kept)
        with pytest.raises(AireiterError):
            await client.with_options(timeout=0.2 if kept else 20).balance()
        peer.forget()
        await works(peer, client)


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
    "UTF-16": json.dumps({"statusCode": 200, "data": {"credits": 1}}).encode("utf-16"),
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
    """
    What is no balance, in a good HTTP answer, is an error of ours, and the connection is used on.
    """
    peer.answer(whole(VALUES[name]))
    with pytest.raises(AireiterError):
        await client.balance()
    await works(peer, client)
    assert peer.connections == 1


async def test_the_last_of_two_equal_names_counts(peer: Peer, client: AsyncClient) -> None:
    """
    Duplicate keys are read as JSON parsers read them: the last one counts.
    """
    peer.answer(whole(b'{"statusCode":400,"statusCode":200,"data":{"credits":9,"credits":2.5}}'))
    assert (await client.balance()).credits == 2.5


@pytest.mark.parametrize("end", ["closes", "resets"])
async def test_an_answer_cut_anywhere(peer: Peer, client: AsyncClient, end: str) -> None:
    """
    An answer of which any number of bytes arrives before the connection goes is no answer.
    """
    for length in range(len(GOOD)):
        peer.play(piece(GOOD[:length]), reset=end == "resets")
        with pytest.raises(TransportError):
            await client.balance()
    await works(peer, client)


@pytest.mark.parametrize("chunked", [False, True])
async def test_an_answer_in_any_pieces(peer: Peer, client: AsyncClient, *, chunked: bool) -> None:
    """
    An answer that arrives in two pieces, cut anywhere, or byte by byte, is that answer.
    """
    answer = GOOD
    if chunked:
        body = GOOD.partition(b"\r\n\r\n")[2]
        answer = head(b"Transfer-Encoding: chunked") + b"".join(
            b"%x\r\n%s\r\n" % (1, body[at : at + 1]) for at in range(len(body))
        )
        answer += b"0\r\n\r\n"
    for at in range(1, len(answer), 3):
        peer.play(piece(answer[:at]), piece(answer[at:]), keep=True)
        assert (await client.balance()).credits == 2.5
    peer.play(*(piece(answer[at : at + 1]) for at in range(len(answer))), keep=True)
    assert (await client.balance()).credits == 2.5
    assert peer.connections == 1


@pytest.mark.parametrize("where", ["head", "body", "chunks"])
async def test_a_drip_without_end(peer: Peer, client: AsyncClient, where: str) -> None:
    """
    An answer that keeps on dripping is ended by the attempt's timeout: bytes do not prolong it.
    """
    first = {
        "head": b"HTTP/1.1 200 OK\r\nX: ",
        "body": head(b"Content-Length: 100000"),
        "chunks": head(b"Transfer-Encoding: chunked"),
    }[where]
    drop = b"1\r\n \r\n" if where == "chunks" else b" "
    peer.play(piece(first), forever_slowly(drop))
    with pytest.raises(RequestTimeoutError):
        await client.with_options(timeout=0.2).balance()
    await peer.idle()
    await works(peer, client)


def forever_slowly(drop: bytes) -> Script:
    """
    Send *drop* over and over, a little apart.
    """

    async def script(_peer: Peer, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(drop)
            await writer.drain()
            await asyncio.sleep(0.005)

    return script


async def test_a_result_whose_head_drips(peer: Peer, client: AsyncClient, tmp_path: Path) -> None:
    """
    A result's host that never comes to the end of its head is given up, too.
    """
    peer.play(piece(b"HTTP/1.1 200 OK\r\nX: "), forever_slowly(b"a"))
    with pytest.raises(DownloadError):
        await client.with_options(timeout=0.2).download(Output(f"{peer.url}/a", "image"), tmp_path)
    await peer.idle()
    await works(peer, client)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(peer: Peer, client: AsyncClient, status: int) -> None:
    """
    No redirect takes a call of the API, or its key, to another host.
    """
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
    """
    Redirects of results lead to other hosts and back, and on none of them is the key seen.
    """
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


async def test_an_answer_that_nobody_asked_for(peer: Peer, client: AsyncClient) -> None:
    """
    A second answer behind the first one is not taken for that to the next question.
    """
    other = whole(b'{"statusCode":200,"data":{"credits":666}}')
    for _ in range(20):
        peer.play(piece(GOOD + other), keep=True)
        assert (await client.balance()).credits == 2.5
        peer.forget()
        peer.answer(GOOD)
        assert (await client.balance()).credits == 2.5
        peer.forget()


async def test_an_answer_that_comes_late_to_the_pool(peer: Peer, client: AsyncClient) -> None:
    """
    Bytes that arrive on an idle connection spoil it: it is not used again.
    """
    other = whole(b'{"statusCode":200,"data":{"credits":666}}')
    for _ in range(20):
        peer.play(piece(GOOD), piece(other), keep=True)
        assert (await client.balance()).credits == 2.5
        for _ in range(8):
            await asyncio.sleep(0)
        peer.forget()
        peer.answer(GOOD)
        assert (await client.balance()).credits == 2.5
        peer.forget()


async def test_idle_connections_that_are_closed_as_they_are_used(
    peer: Peer, client: AsyncClient
) -> None:
    """
    A pool of connections that the service closes at any moment gives an answer or our error.
    """
    for turns in range(30):
        peer.play(piece(GOOD))  # says keep-alive, and closes
        await client.balance()
        for _ in range(turns % 10):
            await asyncio.sleep(0)
        peer.answer(GOOD)
        [found] = await asyncio.gather(client.balance(), return_exceptions=True)
        assert isinstance(found, Balance | TransportError)
        peer.forget()
    await works(peer, client)


@pytest.mark.parametrize("reset", [False, True])
async def test_a_proxy_that_dies(peer: Peer, *, reset: bool) -> None:
    """
    A proxy of a borrowed session that dies at any point is an error of ours; another one works.
    """
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


BLOCKS = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.0 200 OK\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n",
        b"Content-Length: 41\r\n",
        b"Content-Length: 2\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Content-Encoding: gzip\r\n",
        b"Content-Encoding: deflate\r\n",
        b"Connection: close\r\n",
        b"Set-Cookie: a=b\r\n",
        b"Location: /\r\n",
        b"Retry-After: 1\r\n",
        b"\r\n",
        b'{"statusCode":200,"data":{"credits":2.5}}',
        gzip.compress(b'{"statusCode":200,"data":{"credits":2.5}}'),
        b"29\r\n",
        b"0\r\n\r\n",
    ]
)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(st.one_of(BLOCKS, st.binary(max_size=40)), max_size=8), st.booleans())
def test_any_bytes(blocks: list[bytes], reset: bool) -> None:  # noqa: FBT001 - of hypothesis
    """
    Whatever bytes come, in whatever pieces, are a balance or an error of ours; the next call works.
    """

    async def main() -> None:
        async with (
            Peer() as peer,
            AsyncClient(KEY, base_url=peer.url, retry=ONCE, timeout=20) as client,
        ):
            peer.play(*map(piece, blocks), reset=reset)
            try:
                found: Any = await client.balance()
            except AireiterError as error:
                found = error
            assert isinstance(found, Balance | AireiterError)
            assert KEY not in repr(found)
            peer.forget()
            await works(peer, client)

    asyncio.run(main())


NAMES = (
    "statusCode code error message data ok out_task_id status output url video audio list credits "
    "credits_used estimated_credits created_at completed_at free_quotas model_key total"
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["200", 200, "completed", "failed", "a", 400, "http://a/b.png", "1e999"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(NAMES.split()),
            inner,
            max_size=6,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(JSON, st.sampled_from([200, 200, 200, 204, 302, 400, 404, 429, 500, 599]))
def test_any_json(document: Any, status: int) -> None:
    """
    Whatever JSON comes with whatever status is a value or an error of ours, on every endpoint.
    """
    reply = Reply(status, {}, json.dumps(document).encode())
    request = SubmitRequest("veo3_1", {}, "a")
    assert ERRORS
    for read in (
        lambda: read_submit(reply, request, now=0.0),
        lambda: read_query(reply, "a", "veo3_1", now=0.0),
        lambda: read_balance(reply, now=0.0),
    ):
        try:
            found: Any = read()
        except AireiterError as error:
            found = error
        assert type(found).__module__.startswith("aireiter_async")
        repr(found)
