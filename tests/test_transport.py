"""The transport: whatever bytes come, it is a response or one of our errors, in time."""

import asyncio
import gzip
import ssl
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme

from aireiter_async import (
    AireiterError,
    AmbiguousSubmitError,
    AsyncClient,
    ConnectError,
    DownloadError,
    InvalidRequestError,
    Output,
    ProtocolError,
    RequestTimeoutError,
    RetryPolicy,
    SubmitRequest,
    TransportError,
)
from aireiter_async._redact import Secret
from aireiter_async._transport import _body, _errors
from aireiter_async._transport._deadlines import Deadlines
from aireiter_async.testing import FakeService, Fault
from tests.hostile_time import skip_idle_time

Connect = Callable[..., AsyncClient]
Until = Callable[[Callable[[], object]], Awaitable[None]]
Listen = Callable[..., Awaitable[str]]

pytestmark = pytest.mark.usefixtures("path")

ONCE = RetryPolicy(base=0, settle=0, attempts=1, resubmit=False)
GOOD = b'{"statusCode":200,"data":{"status":"pending","credits":1}}'


def key_of(request: bytes) -> bytes:
    """Return the line of a request that has the key in it."""
    return next(line for line in request.split(b"\r\n") if line.startswith(b"Authorization: "))


def head(*lines: bytes, status: bytes = b"200 OK") -> bytes:
    """Make the head of a response."""
    return b"\r\n".join([b"HTTP/1.1 " + status, *lines]) + b"\r\n\r\n"


def whole(body: bytes, *lines: bytes) -> bytes:
    """Make a response with a length."""
    return head(b"Content-Length: %d" % len(body), *lines) + body


HOSTILE: dict[str, Callable[[bytes], Any]] = {
    "nothing": lambda _: b"",
    "the request": lambda request: request,
    "no HTTP": lambda _: b"SSH-2.0-OpenSSH_9.6\r\n",
    "random": lambda _: bytes(range(256)) * 4,
    "key as status": lambda request: b"HTTP/1.1 " + key_of(request) + b"\r\n\r\n",
    "key as bad header": lambda request: head(key_of(request).replace(b":", b" \x00")),
    "key in bad header": lambda request: head(b"X: \x00" + key_of(request)),
    "key in long header": lambda request: head(b"X: " + key_of(request) * 2000),
    "key as header": lambda request: head(key_of(request), b"Content-Length: 0"),
    "key as chunk": lambda request: head(b"Transfer-Encoding: chunked") + key_of(request) + b"\r\n",
    "key and broken off": lambda request: head(b"Content-Length: 9999") + request,
    "key in a page": lambda request: whole(b"<html>" + request),
    "key in no JSON": lambda request: whole(b'{"message": ' + key_of(request)),
    "key in a refusal": lambda request: whole(
        b'{"statusCode":400,"message":"cannot read %s"}' % key_of(request)
    ),
    "key in a refused field": lambda request: whole(
        b'{"statusCode":500,"message":{"headers":["%s"]}}' % key_of(request)
    ),
    "key in a place": lambda request: head(
        b"Location: https://elsewhere.invalid/?" + key_of(request)[15:],
        b"Content-Length: 0",
        status=b"307 Temporary Redirect",
    ),
    "key in a packed page": lambda request: whole(
        gzip.compress(b"<html>" + request), b"Content-Encoding: gzip"
    ),
    "key in a badly packed page": lambda request: whole(
        gzip.compress(b"<html>")[:-4] + key_of(request), b"Content-Encoding: gzip"
    ),
    "not packed": lambda request: whole(key_of(request), b"Content-Encoding: gzip"),
    "packed in another way": lambda request: whole(key_of(request), b"Content-Encoding: br"),
    "packed half": lambda _: whole(zlib.compress(GOOD)[:20], b"Content-Encoding: deflate"),
    "negative length": lambda _: head(b"Content-Length: -5") + GOOD,
    "two lengths": lambda _: head(b"Content-Length: 5", b"Content-Length: 6") + GOOD,
    "great length": lambda _: head(b"Content-Length: 1000000000000") + GOOD,
    "many headers": lambda _: head(*[b"X: a"] * 10_000) + GOOD,
    "no content": lambda _: head(status=b"204 No Content"),
    "not modified": lambda _: head(status=b"304 Not Modified"),
    "another protocol": lambda _: head(
        b"Connection: upgrade", b"Upgrade: websocket", status=b"101 Switching Protocols"
    ),
    "nothing but continue": lambda _: head(status=b"100 Continue"),
    "a bad cookie": lambda _: whole(b"{}", b"Set-Cookie: \xff=;;;"),
    "a bad pace": lambda _: whole(b"{}", b"Retry-After: \xff\xfe"),
    "no text": lambda _: whole(b"\xff\xfe\x00"),
    "a lone surrogate": lambda _: whole(b'{"statusCode":200,"data":{"credits":"\\ud800"}}'),
    "deep": lambda _: whole(b"[" * 100_000),
    "large number": lambda _: whole(b'{"statusCode":200,"data":{"credits":1e999}}'),
    "long number": lambda _: whole(b'{"statusCode":200,"data":{"credits":%s}}' % (b"9" * 10_000)),
    "no number": lambda _: whole(b'{"statusCode":200,"data":{"credits":NaN}}'),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_whatever_comes_is_an_error_of_ours(
    connect: Connect, listen: Listen, name: str
) -> None:
    """Any bytes in place of a response are one of our errors, and nobody sees the key."""
    client = connect(base_url=await listen(HOSTILE[name]), retry=ONCE, timeout=1)
    with pytest.raises(AireiterError):
        await client.balance()
    with pytest.raises(AireiterError):
        await client.query("a")
    with pytest.raises(AireiterError):
        await client.submit(SubmitRequest("veo3_1", {"prompt": "?"}))


async def test_what_is_wrong_with_a_response_is_said(connect: Connect, listen: Listen) -> None:
    """A response that is not HTTP says what about it is wrong, though not what it holds."""
    client = connect(base_url=await listen(lambda request: request), retry=ONCE)
    with pytest.raises(TransportError, match="cannot be read: BadStatusLine"):
        await client.query("a")


async def test_what_the_caller_is_handling_keeps_its_frames(
    connect: Connect, tmp_path: Path
) -> None:
    """An error while another is handled has that one as its context, with the caller's frames."""
    handled = ValueError("the caller's own")
    try:
        raise handled
    except ValueError:
        with pytest.raises(DownloadError) as caught:
            await connect(retry=ONCE).download(Output(url="http://"), tmp_path)
    assert isinstance(caught.value.__cause__, ConnectError)
    cause = caught.value.__cause__.__cause__
    assert isinstance(cause, aiohttp.InvalidURL)
    assert cause.__traceback__ is None
    assert cause.__context__ is handled
    assert handled.__traceback__ is not None


async def test_a_late_response_that_cannot_be_read_is_cut_short(
    connect: Connect, listen: Listen
) -> None:
    """A bad chunk after good ones, which aiohttp does not report, is a timeout."""
    chunked = head(b"Transfer-Encoding: chunked") + b"2\r\n{}\r\n"
    url = await listen(lambda request: (chunked, key_of(request) + b"\r\n", b"0\r\n\r\n"))
    client = connect(base_url=url, retry=ONCE, timeout=0.1)
    with pytest.raises(TransportError):
        await client.query("a")


async def test_a_response_before_the_request_is_complete(connect: Connect, listen: Listen) -> None:
    """A relay that rejects a large body before it has read it all is heard, or the line is cut."""
    page = b"<html>too large</html>"
    url = await listen(
        lambda _: head(b"Content-Length: %d" % len(page), status=b"413 Too Large") + page,
        eager=True,
    )
    client = connect(base_url=url, retry=RetryPolicy(base=0, settle=0, attempts=2))
    image = "data:image/png;base64," + "A" * (4 * 1024 * 1024)
    with pytest.raises((AmbiguousSubmitError, InvalidRequestError)) as caught:
        await client.submit(SubmitRequest("veo3_1", {"image_url": image}))
    error = caught.value if caught.type is InvalidRequestError else caught.value.__cause__
    assert isinstance(error, TransportError | InvalidRequestError)


async def test_an_endless_response_is_cut_off(
    monkeypatch: pytest.MonkeyPatch, connect: Connect, listen: Listen
) -> None:
    """What a small response unpacks to is read up to a limit, and is then a ProtocolError."""
    monkeypatch.setattr(_body, "MAX_BODY", 1_000_000)

    def bomb(request: bytes) -> bytes:
        packed = gzip.compress(key_of(request) + b" " * 20_000_000)
        assert len(packed) < 30_000
        return whole(
            packed, b"Content-Encoding: gzip", b"Retry-After: Thu, 01 Jan 1970 00:00:00 GMT"
        )

    client = connect(base_url=await listen(bomb), retry=ONCE)
    with pytest.raises(ProtocolError, match="too long") as caught:
        await client.query("a")
    assert caught.value.retry_after == 0


@pytest.mark.parametrize(
    "fault", [Fault.hang(), Fault.delay(30), Fault.drip(80)], ids=["hang", "late", "drip"]
)
async def test_a_response_must_be_complete_in_time(
    service: FakeService, connect: Connect, until: Until, fault: Fault
) -> None:
    """The timeout covers a response to its last byte; then slot and connection are free."""
    skip_idle_time()
    client = connect(timeout=20, retry=ONCE, max_concurrency=1)
    service.script("query", fault)
    with pytest.raises(RequestTimeoutError, match=r"within 20 s") as caught:
        await client.query("a")
    assert isinstance(caught.value, TimeoutError)
    await until(lambda: service.connections == 0)
    assert (await client.balance()).credits == 1_000_000


async def test_a_slow_response_in_time_is_read(service: FakeService, connect: Connect) -> None:
    """A response that drips in time is read whole."""
    client = connect(timeout=20)
    service.script("submit", Fault.drip(0.05))
    assert (await client.submit(SubmitRequest("veo3_1", {}))).estimated_credits == 1


async def test_a_view_has_its_own_timeout(service: FakeService, client: AsyncClient) -> None:
    """A view's timeout cuts its own calls only."""
    task = await client.submit(SubmitRequest("veo3_1", {}))
    service.script("query", Fault.delay(15), Fault.hang())
    skip_idle_time()
    patient = asyncio.create_task(client.query(task))
    await asyncio.sleep(0)
    with pytest.raises(RequestTimeoutError):
        await client.with_options(timeout=10, retry=ONCE).query(task)
    assert (await patient).out_task_id == task.out_task_id


@pytest.mark.parametrize(
    "url",
    [
        "https://a..b.invalid",
        f"https://{'a' * 64}.invalid",
        "https://xn--a.invalid",
        "https://.invalid",
        "https://%.invalid",
        "https://[::1%25nowhere]",
        "http://127.0.0.1:1",
        "http://127.0.0.1:0",
    ],
)
async def test_an_unusable_base_url_is_a_connect_error(connect: Connect, url: str) -> None:
    """A base URL that leads nowhere is a ConnectError: nothing was sent."""
    client = connect(base_url=url, retry=ONCE)
    with pytest.raises(ConnectError):
        await client.balance()
    with pytest.raises(ConnectError):
        await client.submit(SubmitRequest("veo3_1", {}))


async def test_a_proxy_that_rejects_is_a_connect_error(connect: Connect, listen: Listen) -> None:
    """A proxy that does not let a borrowed session through is a ConnectError, without the key."""
    heard: list[bytes] = []

    def refuse(request: bytes) -> bytes:
        heard.append(request)
        return head(b"Content-Length: 0", status=b"407 Proxy Authentication Required")

    async with aiohttp.ClientSession(proxy=await listen(refuse)) as session:
        client = connect(base_url="https://aireiter.invalid", session=session, retry=ONCE)
        with pytest.raises(ConnectError, match="407"):
            await client.submit(SubmitRequest("veo3_1", {}))
        assert heard[0].startswith(b"CONNECT aireiter.invalid:443 ")
        assert client._settings.api_key.encode() not in heard[0]


async def test_an_unreachable_proxy_is_a_connect_error(connect: Connect) -> None:
    """A proxy that cannot be reached is a ConnectError."""
    async with aiohttp.ClientSession(proxy="http://127.0.0.1:1") as session:
        client = connect(session=session, retry=ONCE)
        with pytest.raises(ConnectError):
            await client.submit(SubmitRequest("veo3_1", {}))


async def test_another_certificate_than_the_pinned_one_is_a_connect_error(
    connect: Connect, listen: Listen
) -> None:
    """A fingerprint that does not match is a ConnectError."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(tls)
    connector = aiohttp.TCPConnector(ssl=aiohttp.Fingerprint(b"0" * 32))
    async with aiohttp.ClientSession(connector=connector) as session:
        client = connect(base_url=await listen(lambda _: b"", tls), session=session, retry=ONCE)
        with pytest.raises(ConnectError):
            await client.submit(SubmitRequest("veo3_1", {}))


def test_a_body_for_a_closed_connection_was_not_sent() -> None:
    """The "Cannot write to closing transport" of aiohttp means that nothing was sent."""
    told = "Cannot write to closing transport"
    first: Exception = aiohttp.ClientConnectionResetError(told)
    second: Exception = aiohttp.ClientOSError(None, "Can not write request body")
    second.__cause__ = first
    other = aiohttp.ClientOSError(104, "Connection reset by peer")
    kinds = [type(_errors.translate(error, 1, closed=False)[0]) for error in (first, second, other)]
    assert kinds == [ConnectError, ConnectError, TransportError]


async def test_a_connection_that_went_stale_costs_nothing(
    service: FakeService, client: AsyncClient
) -> None:
    """A connection of the pool that the service closed meanwhile does not cost a charge."""
    await client.balance()
    await service.close()
    await service.start()
    task = await client.submit(SubmitRequest("veo3_1", {}))
    assert [charge.out_task_id for charge in service.charges] == [task.out_task_id]


async def test_no_cookies_are_kept(connect: Connect, listen: Listen) -> None:
    """Cookies of the service are not sent back."""
    heard: list[bytes] = []

    def reply(request: bytes) -> bytes:
        heard.append(request)
        return whole(GOOD, b"Set-Cookie: session=1; Path=/")

    client = connect(base_url=(await listen(reply)).replace("127.0.0.1", "localhost"))
    await client.query("a")
    await client.query("a")
    assert b"Cookie" not in heard[1]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_the_api_does_not_redirect(
    service: FakeService, connect: Connect, listen: Listen, status: int
) -> None:
    """No redirect is followed where the key travels: it is an error that names the place."""
    heard: list[bytes] = []
    place = f"{await listen(heard.append)}/api/openapi/balance"
    fault = Fault.reply(status, b"", headers={"Location": place})
    service.script("balance", fault)
    service.script("query", fault)
    client = connect(retry=ONCE)
    with pytest.raises(ProtocolError, match=f"redirects to '{place}'"):
        await client.balance()
    with pytest.raises(ProtocolError, match="redirects"):
        await client.query("a")
    assert heard == []


def test_a_secret_is_a_string_that_hides() -> None:
    """A Secret is the string that it is, and does not show in a repr, alone or in another."""
    secret = Secret("sk-0a1b2c3d")
    assert secret == "sk-0a1b2c3d"
    assert "0a1b2c3d" not in repr(secret)
    assert "0a1b2c3d" not in repr({"a": (secret,)})


async def cut_short(deadlines: Deadlines, work: Awaitable[object]) -> object:
    """Do some work under deadlines."""
    with deadlines:
        return await work


async def test_deadlines_cut_in_the_order_of_beginning() -> None:
    """Each block has its whole time, however many share the timer, and then a TimeoutError."""
    deadlines = Deadlines(0.02)
    loop = asyncio.get_running_loop()
    ends: list[float] = []

    async def one() -> None:
        began = loop.time()
        with pytest.raises(TimeoutError):
            await cut_short(deadlines, asyncio.Event().wait())
        ends.append(loop.time() - began)

    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(one())
            await asyncio.sleep(0)
    assert len(ends) == 3
    assert min(ends) >= 0.0199
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_deadlines_leave_what_is_done_alone(until: Until) -> None:
    """Work that ends in time is not interrupted, and what it raises passes."""
    deadlines = Deadlines(0.02)
    assert await cut_short(deadlines, asyncio.sleep(0, "done")) == "done"
    with pytest.raises(ZeroDivisionError), deadlines:
        1 / 0  # noqa: B018 - it raises
    await until(lambda: deadlines._timer is None)
    assert await cut_short(deadlines, asyncio.sleep(0, "again")) == "again"


async def test_deadlines_let_a_cancellation_pass() -> None:
    """A caller's cancellation is a cancellation, even at the moment of the deadline."""
    skip_idle_time()
    deadlines = Deadlines(20)
    early = asyncio.create_task(cut_short(deadlines, asyncio.Event().wait()))
    late = asyncio.create_task(cut_short(deadlines, asyncio.Event().wait()))
    await asyncio.sleep(0)
    early.cancel()
    with pytest.raises(asyncio.CancelledError):
        await early
    deadlines._expire()
    assert not late.done()
    asyncio.get_running_loop().call_later(30, late.cancel)

    # Both at once: the deadline has struck, and before the task could run the caller cancels too.
    both = asyncio.create_task(cut_short(Deadlines(5), _until_cancelled_by(lambda: both)))
    with pytest.raises(asyncio.CancelledError):
        await both
    with pytest.raises(TimeoutError):
        await late


async def _until_cancelled_by(task: Callable[[], "asyncio.Task[object]"]) -> None:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        task().cancel()
        raise


async def test_deadlines_are_for_tasks() -> None:
    """Outside of a task there is nothing that could be interrupted: a RuntimeError."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[BaseException | None] = loop.create_future()

    def enter() -> None:
        try:
            Deadlines(1).__enter__()
        except RuntimeError as error:
            ended.set_result(error)

    loop.call_soon(enter)
    assert "asyncio task" in str(await ended)
