"""TLS: a certificate that is not the service's ends a call before anything of it is sent."""

import asyncio
import os
import ssl
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme

from aireiter_async import (
    AsyncClient,
    ConnectError,
    DownloadError,
    Output,
    RetryPolicy,
    SubmitRequest,
)
from tests.hostile_steps import Sweep, cancel_at
from tests.hostile_wire import whole

Listen = Callable[..., Awaitable[str]]
Until = Callable[[Callable[[], object]], Awaitable[None]]

pytestmark = pytest.mark.usefixtures("path")

ONCE = RetryPolicy(base=0, settle=0, attempts=2)
GOOD = whole(b'{"statusCode":200,"data":{"status":"pending","credits":2.5}}')
LONG_AGO = datetime.now(UTC) - timedelta(days=2)
SOON = datetime.now(UTC) + timedelta(days=2)


def server(certificate: trustme.LeafCert) -> ssl.SSLContext:
    """Make the service's side."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(tls)
    return tls


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    """Make a client's side that trusts *authority* only."""
    tls = ssl.create_default_context()
    authority.configure_trust(tls)
    return tls


# Whom the client trusts is the first; what the service shows is made by the second.
WRONG: dict[str, Callable[[trustme.CA, trustme.CA], trustme.LeafCert]] = {
    "another authority": lambda _, other: other.issue_cert("127.0.0.1"),
    "expired": lambda ours, _: ours.issue_cert("127.0.0.1", not_after=LONG_AGO),
    "not yet valid": lambda ours, _: ours.issue_cert("127.0.0.1", not_before=SOON),
    "another name": lambda ours, _: ours.issue_cert("aireiter.invalid"),
    "another address": lambda ours, _: ours.issue_cert("127.0.0.2"),
    "no name": lambda ours, _: ours.issue_cert(common_name="127.0.0.1"),
}


@pytest.mark.parametrize("lent", [False, True], ids=["owned", "lent"])
@pytest.mark.parametrize("name", WRONG)
async def test_a_wrong_certificate(listen: Listen, name: str, *, lent: bool) -> None:
    """A wrong certificate is a ConnectError: nothing is sent."""
    ours, others = trustme.CA(), trustme.CA()
    heard: list[bytes] = []
    url = await listen(heard.append, server(WRONG[name](ours, others)), eager=True)
    connector = aiohttp.TCPConnector(ssl=trusting(ours))
    async with aiohttp.ClientSession(connector=connector) as session:
        client = AsyncClient(
            "sk-test-0a1b2c3d", base_url=url, retry=ONCE, session=session if lent else None
        )
        calls: tuple[Any, ...] = (client.balance(), client.submit(SubmitRequest("veo3_1", {})))
        for call in calls:
            with pytest.raises(ConnectError, match=r"[Cc]ertificate"):
                await call
        await client.close()
    assert heard == []


@pytest.mark.parametrize("name", WRONG)
async def test_a_result_behind_a_wrong_certificate(
    listen: Listen, tmp_path: Path, name: str
) -> None:
    """A result's host is verified as well: nothing is got from one that is not what it says."""
    ours, others = trustme.CA(), trustme.CA()
    heard: list[bytes] = []
    url = await listen(heard.append, server(WRONG[name](ours, others)), eager=True)
    connector = aiohttp.TCPConnector(ssl=trusting(ours))
    async with aiohttp.ClientSession(connector=connector) as session:
        client = AsyncClient("sk-test-0a1b2c3d", base_url=url, retry=ONCE, session=session)
        with pytest.raises(DownloadError, match=r"[Cc]ertificate") as caught:
            await client.download(Output(f"{url}/a.png", "image"), tmp_path)
        assert isinstance(caught.value.__cause__, ConnectError)
    assert heard == []
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - a coroutine function


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 400 No\r\n\r\n", b"\x15\x03\x01\x00\x02\x02\x28"])
async def test_what_does_not_speak_tls(listen: Listen, said: bytes) -> None:
    """A handshake that is hung up on, answered in plain text or with an alert: nothing was sent."""
    heard: list[bytes] = []

    def reply(request: bytes) -> bytes:
        heard.append(request)
        return said

    url = (await listen(reply, eager=True)).replace("http://", "https://")
    async with AsyncClient("sk-test-0a1b2c3d", base_url=url, retry=ONCE) as client:
        for call in (client.balance(), client.submit(SubmitRequest("veo3_1", {}))):
            with pytest.raises(ConnectError):
                await call
    assert len(heard) == 4
    assert not any(b"HTTP" in each for each in heard)


async def test_an_authority_of_ones_own(listen: Listen) -> None:
    """Through a borrowed session whose context trusts it, an authority of one's own is good."""
    ours = trustme.CA()
    url = await listen(lambda _: GOOD, server(ours.issue_cert("127.0.0.1")))
    connector = aiohttp.TCPConnector(ssl=trusting(ours))
    async with aiohttp.ClientSession(connector=connector) as session:
        client = AsyncClient("sk-test-0a1b2c3d", base_url=url, retry=ONCE, session=session)
        assert (await client.balance()).credits == 2.5


@pytest.mark.parametrize("verified", [True, False])
async def test_the_clients_own_context(listen: Listen, tmp_path: Path, *, verified: bool) -> None:
    """`ssl` is a context that trusts an authority of one's own, or False for no verification."""
    ours = trustme.CA()
    name = "127.0.0.1" if verified else "another.invalid"
    replies = [GOOD, whole(b"\x89PNG\r\n\x1a\n", b"Content-Type: image/png")]
    url = await listen(lambda _: replies.pop(0), server(ours.issue_cert(name)))
    context = trusting(ours) if verified else False
    async with AsyncClient("sk-test-0a1b2c3d", base_url=url, retry=ONCE, ssl=context) as client:
        assert (await client.balance()).credits == 2.5
        assert await client.download(Output(f"{url}/a.png", "image"), tmp_path)


@pytest.mark.parametrize("verb", ["balance", "query"])
@pytest.mark.parametrize("late", [False, True])
async def test_a_handshake_is_cancelled_anywhere(
    listen: Listen, until: Until, verb: str, *, late: bool
) -> None:
    """A call that is cancelled during its handshake leaves its slot free and no task."""
    ours = trustme.CA()
    url = await listen(lambda _: GOOD, server(ours.issue_cert("127.0.0.1")))
    trust = trusting(ours)
    for step in (sweep := Sweep()):
        client = AsyncClient(
            "sk-test-0a1b2c3d", base_url=url, retry=ONCE, ssl=trust, max_concurrency=1
        )
        call = client.balance if verb == "balance" else partial(client.query, "a")
        sweep.struck = await cancel_at(call, step, late=late)
        async with asyncio.timeout(60):
            assert (await client.balance()).credits == 2.5
        await client.close()
        await until(lambda: len(asyncio.all_tasks()) == 1)
    assert step > 3
