"""Hosts of results: requested byte for byte, never at a private address, looked up anew."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from aireiter_async import (
    AsyncClient,
    ConnectError,
    DownloadError,
    Output,
    RetryPolicy,
)
from aireiter_async._transport._addresses import is_private
from aireiter_async._transport._stream import exact_url
from tests.hostile_wire import Peer, head, whole

Connect = Callable[..., AsyncClient]
Listen = Callable[..., Awaitable[str]]

KEY = "sk-test-0a1b2c3d4e5f"
ONCE = RetryPolicy(base=0, settle=0, attempts=1)
PNG = whole(b"\x89PNG\r\n\x1a\n", b"Content-Type: image/png")
GOOD = whole(b'{"statusCode":200,"data":{"credits":2.5}}')
PUBLIC = "https://1.1.1.1"  # never connected to

EXACT = (
    "/a%2Fb/%28c%29%27.png",
    "/a?sig=%7e%2f%2B&b=~(x)",
    "/%e4%bd%a0?X-Amz-Signature=ab%3d%3D",
    "/a//b/../c;d=1,2",
    "/?a=b?c&&d==",
    "/a%zz%",
    "/a'!*$@:|^`{}\"<>\\[]",
)


@pytest.mark.parametrize("target", EXACT)
async def test_urls_are_requested_byte_for_byte(
    connect: Connect, tmp_path: Path, target: str
) -> None:
    async with Peer() as peer:
        client = connect(retry=ONCE)
        peer.answer(PNG)
        await client.download(Output(f"{peer.url}{target}#fragment", "image"), tmp_path)
        location = f"Location: {peer.url}{target}".encode()
        relative = f"Location: {target}".encode()
        peer.answer(head(b"Content-Length: 0", location, status=b"302 Found"))
        peer.answer(head(b"Content-Length: 0", relative, status=b"307 Moved"))
        peer.answer(PNG)
        await client.download(Output(f"{peer.url}/start", "image"), tmp_path)
        lines = [each.partition(b"\r\n")[0] for each in peer.heard]
        assert lines[0] == lines[2] == lines[3] == f"GET {target} HTTP/1.1".encode()
        assert not any(b"Authorization" in each for each in peer.heard)


@pytest.mark.parametrize(
    ("given", "requested"),
    [
        ("http://h", "http://h/"),
        ("http://h?a", "http://h/?a"),
        ("HTTP://H:80/A", "http://h/A"),
        ("http://h/a b\r\nX: y\x7f", "http://h/a%20b%0D%0AX:%20y%7F"),
        ("http://h/\u4f60", "http://h/%E4%BD%A0"),
        ("http://h/\udcff", "http://h/%FF"),
        ("http://m\u00fcnchen.de/", "http://xn--mnchen-3ya.de/"),
        ("http://[::1]:8/a", "http://[::1]:8/a"),
    ],
)
def test_what_no_request_may_hold_is_escaped(given: str, requested: str) -> None:
    assert str(exact_url(given)) == requested


@pytest.mark.parametrize(
    "url", ["", "http://", "http:///a", "ftp://h/a", "h/a", "http:/a", "http://[", "http://h:x/"]
)
def test_what_is_no_url_is_rejected(url: str) -> None:
    with pytest.raises(aiohttp.InvalidURL):
        exact_url(url)


@pytest.mark.parametrize(
    ("location", "requested"),
    [
        ("b%2F.png", b"/x/b%2F.png"),
        ("?b=%7e", b"/x/a?b=%7e"),
        ("../%28", b"/%28"),
        ("//{host}/c%2f", b"/c%2f"),
        ("/\xe4", b"/%E4"),
    ],
)
async def test_relative_redirects(
    connect: Connect, tmp_path: Path, location: str, requested: bytes
) -> None:
    async with Peer() as peer:
        line = b"Location: " + location.format(host=peer.url[7:]).encode("latin-1")
        peer.answer(head(b"Content-Length: 0", line, status=b"303 See Other"))
        peer.answer(PNG)
        await connect(retry=ONCE).download(Output(f"{peer.url}/x/a", "image"), tmp_path)
        assert peer.heard[-1].startswith(b"GET " + requested + b" ")


async def test_redirects_are_bounded(connect: Connect, tmp_path: Path) -> None:
    async with Peer() as peer:
        again = head(b"Content-Length: 0", b"Location: /again", status=b"302 Found")
        for count, answer in ((5, PNG), (6, again)):
            peer.forget()
            for _ in range(count):
                peer.answer(again)
            peer.answer(answer)
            download = connect(retry=ONCE).download(Output(f"{peer.url}/a", "image"), tmp_path)
            if answer is PNG:
                await download
            else:
                with pytest.raises(DownloadError, match="more than 5 times"):
                    await download
        assert len(peer.heard) == 12


ADDRESSES = {
    "private": """
        127.0.0.1 127.1 2130706433 0x7f000001 10.0.0.1 172.16.0.1 192.168.1.1 169.254.169.254
        100.64.0.1 0.0.0.0 224.0.0.1 255.255.255.255 ::1 :: fe80::1 fe80::1%eth0 fc00::1 ff02::1
        ::ffff:10.0.0.1 2002:7f00:1:: 64:ff9b::10.0.0.1
    """,
    "public": "1.1.1.1 2606:4700:4700::1111 ::ffff:1.1.1.1 64:ff9b::1.1.1.1 example.com a b.c",
}


@pytest.mark.parametrize("kind", ADDRESSES)
def test_which_addresses_are_private(kind: str) -> None:
    assert {is_private(each) for each in ADDRESSES[kind].split()} == {kind == "private"}


async def refused(client: AsyncClient, url: str, to: Path) -> None:
    """Fail unless a result is rejected for its address."""
    with pytest.raises(DownloadError, match="private address"):
        await client.download(Output(url, "image"), to)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "[::ffff:127.0.0.1]"])
@pytest.mark.parametrize("way", ["at once", "redirected"])
async def test_a_private_host_is_rejected(tmp_path: Path, host: str, way: str) -> None:
    """No connection is made to a private address, given or found by DNS, first or on a redirect."""
    async with Peer() as peer, Peer() as proxy, aiohttp.ClientSession(proxy=proxy.url) as session:
        url = f"{peer.url.replace('127.0.0.1', host)}/a.png"
        if way == "at once":
            async with AsyncClient(KEY, base_url=PUBLIC, retry=ONCE) as client:
                await refused(client, url, tmp_path)
        elif host != "localhost":  # which the proxy would look up
            client = AsyncClient(KEY, base_url=PUBLIC, session=session, retry=ONCE)
            location = f"Location: {url}".encode()
            proxy.answer(head(b"Content-Length: 0", location, status=b"302 Found"))
            await refused(client, "http://media.example/a.png", tmp_path)
            assert len(proxy.heard) == 1
        assert peer.connections == 0


def fake_dns(monkeypatch: pytest.MonkeyPatch, names: dict[str, list[str]]) -> list[str]:
    """Answer the running loop's lookups of *names*; return the list of what is looked up."""
    loop = asyncio.get_running_loop()
    real = loop.getaddrinfo
    asked: list[str] = []

    async def getaddrinfo(host: str, port: int, **options: Any) -> list[Any]:
        asked.append(host)
        if host not in names:
            return await real(host, port, **options)
        if not names[host]:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in names[host]]

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
    return asked


@pytest.mark.parametrize(
    ("names", "allowed"),
    [
        ({"media.example": ["127.0.0.1"], "api.example": ["1.1.1.1"]}, False),
        ({"media.example": ["127.0.0.1"], "api.example": []}, False),
        ({"media.example": ["127.0.0.1"], "api.example": ["10.0.0.1"]}, True),
    ],
)
async def test_names_of_private_addresses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, names: dict[str, list[str]], *, allowed: bool
) -> None:
    """They are rejected, unless base_url's host has a private address itself."""
    fake_dns(monkeypatch, names)
    async with (
        Peer() as peer,
        AsyncClient(KEY, base_url="https://api.example", retry=ONCE) as client,
    ):
        url = peer.url.replace("127.0.0.1", "media.example")
        if allowed:
            peer.answer(PNG)
            await client.download(Output(url, "image"), tmp_path)
        else:
            await refused(client, url, tmp_path)
        assert peer.connections == int(allowed)


async def test_private_addresses_among_public_ones_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake_dns(monkeypatch, {"media.example": ["127.0.0.1", "192.0.2.1", "1.1.1.1"]})
    client = AsyncClient(KEY, base_url=PUBLIC, retry=ONCE)
    found = await client._shared.transport._resolver.resolve("media.example")
    assert [each["host"] for each in found] == ["1.1.1.1"]
    await client.close()


async def test_a_proxy_may_have_any_address(tmp_path: Path) -> None:
    async with Peer() as proxy:
        url = proxy.url.replace("127.0.0.1", "localhost")
        async with AsyncClient(KEY, base_url=PUBLIC, proxy=url, retry=ONCE) as client:
            proxy.answer(PNG)
            await client.download(Output("http://media.invalid/a.png", "image"), tmp_path)
            await refused(client, f"{proxy.url}/a.png", tmp_path)
        assert len(proxy.heard) == 1


async def test_a_dead_address_is_forgotten(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The first ConnectError has the host resolved again, so that the next attempt can succeed."""
    async with Peer() as peer:
        names = {"api.example": ["127.0.0.1"], "media.example": ["127.0.0.9"]}
        asked = fake_dns(monkeypatch, names)
        base_url = peer.url.replace("127.0.0.1", "api.example")
        async with AsyncClient(KEY, base_url=base_url, allow_http=True, retry=ONCE) as client:
            for _ in range(2):
                peer.answer(GOOD.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
                await client.balance()
            assert asked == ["api.example"]
        async with AsyncClient(KEY, base_url=base_url, allow_http=True, retry=ONCE) as client:
            names["api.example"] = ["127.0.0.9"]
            url = peer.url.replace("127.0.0.1", "media.example")
            for call in (
                client.balance,
                lambda: client.download(Output(url, "image"), tmp_path),
            ):
                with pytest.raises((ConnectError, DownloadError)):
                    await call()
            names.update({"api.example": ["127.0.0.1"], "media.example": ["127.0.0.1"]})
            peer.answer(GOOD)
            peer.answer(PNG)
            assert (await client.balance()).credits == 2.5
            await client.download(Output(url, "image"), tmp_path)


@pytest.mark.parametrize("lent", [False, True], ids=["owned", "lent"])
async def test_headers_of_64_kb_are_read(connect: Connect, tmp_path: Path, *, lent: bool) -> None:
    long = b"X-Trace: " + b"a" * 65_000
    async with Peer() as peer, aiohttp.ClientSession() as session:
        client = connect(base_url=peer.url, retry=ONCE, session=session if lent else None)
        peer.answer(GOOD.replace(b"\r\n", b"\r\n" + long + b"\r\n", 1))
        assert (await client.balance()).credits == 2.5
        peer.answer(
            whole(b'{"statusCode":200,"data":{"status":"pending","out_task_id":"a"}}', long)
        )
        assert (await client.query("a")).out_task_id == "a"
        peer.answer(PNG.replace(b"200 OK", b"200 " + b"o" * 65_000))
        await client.download(Output(f"{peer.url}/a", "image"), tmp_path)
