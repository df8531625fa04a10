"""Proxies: the caller's or the environment's, not for loopback, and no password is shown."""

import asyncio
import base64
import logging
import ssl
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
from yarl import URL

from aireiter_async import AsyncClient, ConnectError, Output, RetryPolicy, SubmitRequest
from aireiter_async._transport._proxies import Proxies
from tests.conftest import search
from tests.hostile_wire import Peer, head, piece, whole

Listen = Callable[..., Awaitable[str]]

KEY = "sk-test-0a1b2c3d4e5f"
ONCE = RetryPolicy(base=0, settle=0, attempts=1)
GOOD = whole(b'{"statusCode":200,"data":{"credits":2.5,"status":"pending"}}')
VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUEST_METHOD")
PLACES = {
    "https": "https://aireiter.com/a",
    "http": "http://aireiter.com/a",
    "port": "https://aireiter.com:8443/a",
    "other": "https://static.example/a",
}
CASES: list[tuple[dict[str, str], dict[str, str | None]]] = [
    ({}, {"https": None, "http": None}),
    ({"HTTPS_PROXY": "http://p:1"}, {"https": "http://p:1", "http": None}),
    ({"https_proxy": "http://p:1"}, {"https": "http://p:1"}),
    ({"HTTP_PROXY": "http://p:1"}, {"https": None, "http": "http://p:1"}),
    ({"ALL_PROXY": "https://p:1"}, {"https": "https://p:1", "http": "https://p:1"}),
    ({"HTTPS_PROXY": "p:3128"}, {"https": "http://p:3128"}),
    ({"HTTPS_PROXY": "socks5://p:1", "ALL_PROXY": "http://q:2"}, {"https": "http://q:2"}),
    ({"ALL_PROXY": "socks5://p:1"}, {"https": None}),
    ({"HTTPS_PROXY": "http://[", "HTTP_PROXY": ""}, {"https": None, "http": None}),
    (
        {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "aireiter.com"},
        {"https": None, "port": None, "other": "http://p:1"},
    ),
    (
        {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "aireiter.com:8443,.example"},
        {"https": "http://p:1", "port": None, "other": None},
    ),
    ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"}, {"https": None}),
]
LOOPBACK = (
    "http://localhost",
    "http://LOCALHOST.:8000",
    "http://api.localhost",
    "http://127.0.0.1:1",
    "http://127.9.9.9",
    "http://[::1]",
    "http://[::ffff:127.0.0.1]",
)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Forget the proxies of whoever runs the tests."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return monkeypatch


@pytest.mark.parametrize(("variables", "expected"), CASES)
def test_the_environment_chooses_a_proxy(
    environment: pytest.MonkeyPatch, variables: dict[str, str], expected: dict[str, str | None]
) -> None:
    for name, value in variables.items():
        environment.setenv(name, value)
    proxies = Proxies(None, trust_env=True)
    found = {name: proxies.find(URL(PLACES[name])) for name in expected}
    assert {name: proxy and proxy.url for name, proxy in found.items()} == expected
    assert all(Proxies(None, trust_env=False).find(URL(each)) is None for each in PLACES.values())


@pytest.mark.parametrize("url", LOOPBACK)
def test_loopback_never_uses_a_proxy_of_the_environment(
    environment: pytest.MonkeyPatch, url: str
) -> None:
    environment.setenv("ALL_PROXY", "http://proxy.example:3128")
    assert Proxies(None, trust_env=True).find(URL(url)) is None
    explicit = Proxies("http://proxy.example:3128", trust_env=True).find(URL(url))
    assert explicit is not None


def test_the_environment_is_read_once_per_host(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("HTTPS_PROXY", "http://p:1")
    proxies = Proxies(None, trust_env=True)
    before = proxies.find(URL("https://a.example/1"))
    environment.setenv("HTTPS_PROXY", "http://q:2")
    assert proxies.find(URL("https://a.example/2?x=y")) is before
    for number in range(1000):
        proxies.find(URL(f"https://{number}.example/"))
    assert len(proxies._by_origin) <= 1000


def test_an_ignored_variable_is_logged_without_its_value(
    environment: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    environment.setenv("HTTPS_PROXY", "socks5://joe:sesame@p:1")
    assert Proxies(None, trust_env=True).find(URL("https://a.example")) is None
    assert "connect to a.example: HTTPS_PROXY is ignored" in caplog.text
    assert "sesame" not in caplog.text


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"proxy": 3}, TypeError, "proxy must be a str, got int"),
        ({"proxy": "socks5://joe:sesame@p:1"}, ValueError, "http or https URL"),
        ({"proxy": "joe:sesame@p:1"}, ValueError, "http or https URL"),
        ({"proxy": "http://joe:sesame@"}, ValueError, "http or https URL"),
        ({"proxy": "http://joe:sesame@[p"}, ValueError, "http or https URL"),
        ({"ssl": "no"}, TypeError, "ssl must be an SSLContext, False or None, got str"),
    ],
)
def test_arguments_are_checked(options: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        AsyncClient(KEY, **options)
    assert not shows_password(caught.value)


def shows_password(error: BaseException) -> bool:
    """Return whether the password is in an error or its frames, but for the test's own."""
    assert error.__traceback__ is not None
    return search(error.with_traceback(error.__traceback__.tb_next), "sesame") != []


@pytest.mark.parametrize("options", [{"proxy": "http://joe:sesame@p:1"}, {"ssl": False}])
async def test_a_borrowed_session_has_its_own_proxy_and_tls(options: dict[str, Any]) -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(ValueError, match="belong to the borrowed session") as caught:
            AsyncClient(KEY, session=session, **options)
    assert not shows_password(caught.value)


def basic(user: str, password: str) -> bytes:
    """Return the header that authenticates at a proxy."""
    return b"Proxy-Authorization: Basic " + base64.b64encode(f"{user}:{password}".encode())


@pytest.mark.parametrize("user", ["", "joe:ses%61me@"])
async def test_plain_requests_go_through_the_proxy(tmp_path: Path, user: str) -> None:
    async with (
        Peer() as proxy,
        AsyncClient(
            KEY,
            base_url="http://aireiter.invalid",
            allow_http=True,
            proxy=proxy.url.replace("://", f"://{user}"),
            retry=ONCE,
        ) as client,
    ):
        for _ in range(3):
            proxy.answer(GOOD)
        proxy.answer(whole(b"\x89PNG\r\n\x1a\n", b"Content-Type: image/png"))
        assert (await client.balance()).credits == 2.5
        await client.submit(SubmitRequest("veo3_1", {}))
        assert (await client.balance()).credits == 2.5
        await client.download(Output("http://media.invalid/%28a%29.png", "image"), tmp_path)
        lines = [each.partition(b"\r\n")[0] for each in proxy.heard]
        assert lines == [
            b"GET http://aireiter.invalid/api/openapi/balance HTTP/1.1",
            b"POST http://aireiter.invalid/api/openapi/submit HTTP/1.1",
            b"GET http://aireiter.invalid/api/openapi/balance HTTP/1.1",
            b"GET http://media.invalid/%28a%29.png HTTP/1.1",
        ]
        assert all((basic("joe", "sesame") in each) == bool(user) for each in proxy.heard)
        assert KEY.encode() not in proxy.heard[-1]
        assert "sesame" not in repr([client, client._settings, client._shared])


async def test_https_goes_through_a_tunnel(environment: pytest.MonkeyPatch, listen: Listen) -> None:
    """The tunnel leads to a service under TLS; the proxy sees its own password, and not the key."""
    authority = trustme.CA()
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("aireiter.invalid").configure_cert(theirs)
    ours = ssl.create_default_context()
    authority.configure_trust(ours)
    port = int((await listen(lambda _: GOOD, theirs)).rpartition(":")[2])
    heard: list[bytes] = []

    async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            heard.append(data)
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(tunnel, "127.0.0.1", 0)
    place = f"joe:sesame@127.0.0.1:{server.sockets[0].getsockname()[1]}"
    environment.setenv("HTTPS_PROXY", f"http://{place}")
    async with AsyncClient(
        KEY, base_url="https://aireiter.invalid", ssl=ours, retry=ONCE
    ) as client:
        assert (await client.balance()).credits == 2.5
    server.close()
    assert heard[0].startswith(b"CONNECT aireiter.invalid:443 ")
    assert basic("joe", "sesame") in heard[0]
    assert not any(KEY.encode() in each for each in heard)
    while len(asyncio.all_tasks()) > 1:  # noqa: ASYNC110 - the tunnel's
        await asyncio.sleep(0)


@pytest.mark.parametrize("end", ["refuses", "drops", "is gone", "never answers"])
async def test_a_proxys_password_is_not_shown(caplog: pytest.LogCaptureFixture, end: str) -> None:
    """Whatever goes wrong at the proxy, its credentials are in no error, also when cancelled."""
    caplog.set_level(logging.DEBUG)
    async with Peer() as proxy:
        url = "http://127.0.0.1:1" if end == "is gone" else proxy.url
        client = AsyncClient(
            KEY,
            base_url="https://aireiter.invalid",
            proxy=url.replace("://", "://joe:sesame@"),
            retry=ONCE,
        )
        if end == "refuses":
            proxy.answer(head(b"Content-Length: 0", status=b"407 joe:sesame is unknown"))
        elif end == "never answers":
            proxy.play(piece(b""), keep=True)
        call = asyncio.ensure_future(client.submit(SubmitRequest("veo3_1", {}, "a")))
        if end == "never answers":
            while not proxy.heard:  # noqa: ASYNC110 - of the other side of a socket
                await asyncio.sleep(0)
            call.cancel()
        [error] = await asyncio.gather(call, return_exceptions=True)
        assert isinstance(error, BaseException)
        encoded = base64.b64encode(b"joe:sesame").decode()
        for secret in ("sesame", encoded, KEY):
            shown = traceback.TracebackException.from_exception(error, capture_locals=True)
            assert secret not in "".join(shown.format())
            assert secret not in caplog.text
        if end in {"refuses", "is gone"}:
            assert isinstance(error, ConnectError)
        await client.close()
