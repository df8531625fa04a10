"""``aireiter doctor``: each broken setup is named, and nothing private is in the output."""

import asyncio
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any, NamedTuple

import attrs
import pytest
import trustme

from aireiter_async import Ledger, LedgerError, SubmitRequest
from aireiter_async._ledger import verify
from aireiter_async.cli import main
from aireiter_async.cli._app import parse
from aireiter_async.cli._doctor import Surroundings
from aireiter_async.cli._doctor._checks import Disk, check_ledger, check_versions, in_thread
from aireiter_async.cli._output import Output
from aireiter_async.testing import FakeService, Fault
from tests.command import KEY, Ran
from tests.hostile_wire import Peer, head, piece, whole

Listen = Callable[..., Awaitable[str]]
Examine = Callable[..., Awaitable[Ran]]

SECRET = "sesame-of-the-proxy"
BALANCE = b'{"statusCode":200,"data":{"credits":2.5}}'
LONG_AGO = datetime.now(UTC) - timedelta(days=2)
SOON = datetime.now(UTC) + timedelta(days=2)
NETWORK = ("DNS", "TCP", "TLS", "HTTP", "CDN", "API", "account", "clock")
VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")


@attrs.frozen
class Report:
    """What the doctor has found."""

    ran: Ran

    def __getitem__(self, name: str) -> dict[str, str]:
        return next(each for each in self.ran.document["checks"] if each["name"] == name)

    @property
    def bad(self) -> dict[str, str]:
        """The states of the checks that are not right."""
        checks = self.ran.document["checks"]
        return {each["name"]: each["state"] for each in checks if each["state"] != "ok"}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty home directory, without proxies."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", os.devnull)  # the system's authorities take long to load
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AIREITER_API_KEY", KEY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def examine(capsys: pytest.CaptureFixture[str]) -> Examine:
    """Return what runs the doctor in the loop of the test."""

    async def examine(*argv: str, **around: Any) -> Ran:
        command = parse(["doctor", *argv])
        assert command is not None
        output = Output.of(argv)
        output.options = command.options
        action: Any = command.action
        status = await action(output, around=Surroundings(**{"seconds": 5.0, **around}))
        ran = Ran(status, *capsys.readouterr())
        assert KEY not in ran.out + ran.err
        assert SECRET not in ran.out + ran.err
        assert str(Path.home()) not in ran.out + ran.err
        return ran

    return examine


@pytest.fixture
def report(examine: Examine) -> Callable[..., Awaitable[Report]]:
    """Return what runs the doctor and reads its document."""

    async def report(*argv: str, **around: Any) -> Report:
        return Report(await examine(*argv, "--json", **around))

    return report


Reporting = Callable[..., Awaitable[Report]]


def skipped(*after: str) -> dict[str, str]:
    """Return what the checks that depend on a failed one are."""
    return dict.fromkeys(after, "skipped")


async def test_nothing_is_wrong(service: FakeService, examine: Examine, report: Reporting) -> None:
    ran = await examine("--base-url", service.url)
    assert (ran.status, ran.err, ran.out.splitlines()[-1]) == (0, "", "nothing is wrong")
    marks = {line.split()[1]: line[0] for line in ran.out.splitlines()[:-2]}
    assert set(marks.values()) == {"✓"}
    found = await report("--base-url", service.url)
    assert (found.bad, found.ran.document["ok"], found.ran.document["probe"]) == ({}, True, [])
    assert found["account"]["text"] == "the key is accepted; 1,000,000 credits"
    assert "aiohttp 3." in found["packages"]["text"]
    assert set(NETWORK) <= {each["name"] for each in found.ran.document["checks"]}
    assert service.charges == []


def test_a_wrong_host_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--base-url", "http://127.0.0.1:9"]) == 1
    lines = capsys.readouterr().out.splitlines()
    row = next(n for n, line in enumerate(lines) if line.startswith("✗"))
    assert lines[row].split(maxsplit=2)[1:] == [
        "TCP",
        "cannot connect to 127.0.0.1:9: Connection refused",
    ]
    assert "-> check the network, the firewall and the port" in lines[row + 1]
    assert lines[-1] == "1 problem: TCP"


async def test_a_wrong_path_is_named(service: FakeService, report: Reporting) -> None:
    found = await report("--base-url", f"{service.url}/api/openapi")
    assert found.bad == {"API": "error", **skipped("account")}
    assert "the response is HTML" in found["API"]["text"]
    assert "drop /api/openapi from the base URL" in found["API"]["advice"]


async def test_a_name_that_does_not_resolve_is_named(report: Reporting) -> None:
    found = await report("--base-url", "https://aireiter.invalid")
    assert found.bad == {"DNS": "error", **skipped(*NETWORK[1:])}
    assert found["DNS"]["text"].startswith("aireiter.invalid cannot be resolved: ")
    assert found["TCP"]["text"] == "skipped: depends on DNS"


def trust(authority: trustme.CA, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust an authority, as a user would."""
    authority.cert_pem.write_to_path(directory / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(directory / "ca.pem"))


def server(certificate: trustme.LeafCert) -> ssl.SSLContext:
    """Make the service's side of TLS."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(tls)
    return tls


CERTIFICATES: dict[str, tuple[dict[str, Any], str, str]] = {
    "expired": ({"not_after": LONG_AGO}, "certificate has expired", "renew it"),
    "early": ({"not_before": SOON}, "certificate is not yet valid", "check this machine's date"),
}


@pytest.mark.parametrize("name", CERTIFICATES)
async def test_an_expired_certificate_is_named(
    listen: Listen, report: Reporting, home: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    authority = trustme.CA()
    trust(authority, home, monkeypatch)
    options, what, hint = CERTIFICATES[name]
    heard: list[bytes] = []
    certificate = authority.issue_cert("127.0.0.1", **options)
    url = await listen(heard.append, server(certificate), eager=True)
    found = await report("--base-url", url)
    assert found.bad == {"TLS": "error", **skipped(*NETWORK[3:])}
    assert found["TLS"]["text"] == f"the certificate of the service is not valid: {what}"
    assert hint in found["TLS"]["advice"]
    assert heard == []


async def test_certificates_of_others_are_named(
    listen: Listen, report: Reporting, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = trustme.CA(), trustme.CA()
    url = await listen(lambda _: b"", server(theirs.issue_cert("127.0.0.1")), eager=True)
    monkeypatch.delenv("SSL_CERT_FILE")
    found = await report("--base-url", url)
    assert "set SSL_CERT_FILE to a file with its certificate" in found["TLS"]["advice"]
    trust(ours, home, monkeypatch)
    found = await report("--base-url", url)
    assert "check SSL_CERT_FILE, which is set" in found["TLS"]["advice"]
    url = await listen(lambda _: b"", server(ours.issue_cert("127.0.0.2")), eager=True)
    found = await report("--base-url", url)
    assert "the certificate is for another one" in found["TLS"]["advice"]


async def test_what_does_not_speak_tls_is_named(listen: Listen, report: Reporting) -> None:
    url = await listen(lambda _: b"HTTP/1.1 400 No\r\n\r\n", eager=True)
    found = await report("--base-url", url.replace("http:", "https:"))
    assert found["TLS"]["text"].startswith("the TLS handshake with the service failed: ")
    assert "check that the port speaks TLS" in found["TLS"]["advice"]


async def test_a_good_certificate_may_end_soon(
    listen: Listen, report: Reporting, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA(organization_name="Kittens")
    trust(authority, home, monkeypatch)
    for end, bad in ((SOON, {"TLS": "warning"}), (SOON + timedelta(days=30), {})):
        tls = server(authority.issue_cert("127.0.0.1", not_after=end))
        found = await report("--base-url", await listen(dated(0), tls))
        assert (found.ran.status, found.bad) == (0, bad)
        assert "certificate by Kittens, valid for" in found["TLS"]["text"]


def dated(seconds: float, *lines: bytes) -> Callable[[bytes], bytes]:
    """Answer with the balance, by a clock that is ahead by *seconds*."""

    def answer(_request: bytes) -> bytes:
        date = format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)
        return whole(BALANCE, b"Date: " + date.encode(), *lines)

    return answer


@pytest.mark.parametrize(
    ("seconds", "lines", "state", "text"),
    [
        (86_400, (), "error", "this machine's is 1.0 days behind the service's"),
        (-86_400, (), "error", "this machine's is 1.0 days ahead of the service's"),
        (600, (), "warning", "this machine's is 10.0 minutes behind the service's"),
        (2, (), "ok", "agrees with the service's within a minute"),
        (-3600, (b"Age: 3600",), "ok", "agrees with the service's within a minute"),
        (0, (b"Age: old",), "skipped", "skipped: the response has no Date"),
    ],
)
async def test_a_wrong_clock_is_named(
    listen: Listen,
    report: Reporting,
    seconds: float,
    lines: tuple[bytes, ...],
    state: str,
    text: str,
) -> None:
    found = await report("--base-url", await listen(dated(seconds, *lines)))
    assert (found["clock"]["state"], found["clock"]["text"]) == (state, text)
    assert found.ran.status == (state == "error")


async def test_without_a_date_the_clock_is_not_judged(listen: Listen, report: Reporting) -> None:
    found = await report("--base-url", await listen(lambda _: whole(BALANCE)))
    assert found.bad == skipped("clock")


async def test_a_page_of_the_cdn_is_named(service: FakeService, report: Reporting) -> None:
    service.script("balance", Fault.html(403))
    found = await report("--base-url", service.url)
    assert found.bad == {"CDN": "error", **skipped("API", "account")}
    assert found["CDN"]["text"] == "the CDN rejects this program: HTTP 403 with a page"
    assert "--user-agent" in found["CDN"]["advice"]
    page = Fault.reply(503, "<html>", headers={"cf-mitigated": "challenge"})
    service.script("balance", page)
    assert (await report("--base-url", service.url)).bad["CDN"] == "error"


@pytest.mark.parametrize(
    ("fault", "bad", "text"),
    [
        (Fault.reply(200, "{}"), {"API": "error", **skipped("account")}, "has no credits"),
        (Fault.server_error(), {"API": "error", **skipped("account")}, "Internal server error"),
        (
            Fault.redirect("https://example.com"),
            {"API": "error", **skipped("account")},
            "redirects to 'https://example.com'",
        ),
        (Fault.too_many_requests(7), {"API": "warning", **skipped("account")}, "retry after 7 s"),
        (Fault.bad_request("no kittens"), {"account": "error"}, "no kittens"),
        (
            Fault.reset(),
            {"HTTP": "error", **skipped("CDN", "API", "account", "clock")},
            "ClientOSError",
        ),
    ],
)
async def test_other_responses_are_named(
    service: FakeService, report: Reporting, fault: Fault, bad: dict[str, str], text: str
) -> None:
    service.script("balance", fault, fault)  # aiohttp repeats a GET that was reset
    found = await report("--base-url", service.url)
    assert found.bad == bad
    assert text in found[next(iter(bad))]["text"]


async def test_a_key_that_is_not_accepted_is_named(service: FakeService, report: Reporting) -> None:
    found = await report("--base-url", service.url, "--api-key", "sk-of-another-account")
    assert found.bad == {"account": "error"}
    assert found["account"]["text"] == "the key is not accepted: Unauthorized (code 401)"
    assert "https://aireiter.com/keys" in found["account"]["advice"]


async def test_an_account_without_credits_is_named(service: FakeService, report: Reporting) -> None:
    service.credits = 0
    found = await report("--base-url", service.url)
    assert (found.ran.status, found.bad) == (0, {"account": "warning"})
    service.free_quotas = [{"model_key": "suno", "total": 10, "used": 3, "remaining": 7}]
    found = await report("--base-url", service.url)
    assert (found.bad, found["account"]["text"]) == (
        {},
        "the key is accepted; 0 credits, 7 free tasks",
    )


async def test_a_key_with_a_space_is_named(
    service: FakeService, examine: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIREITER_API_KEY", f"{KEY} ")
    found = Report(await examine("--base-url", service.url, "--json"))
    assert found.bad == {"API key": "error", **skipped("account")}
    assert found["API key"]["text"].startswith("AIREITER_API_KEY must be printable ASCII without")
    assert "copied" in found["API key"]["advice"]
    assert service.requests[0].headers["Authorization"] == "Bearer no-key-was-set"
    monkeypatch.delenv("AIREITER_API_KEY")
    found = Report(await examine("--base-url", service.url, "--json"))
    assert found["API key"]["text"] == "no API key"
    assert "set AIREITER_API_KEY; get a key" in found["API key"]["advice"]


@pytest.mark.parametrize("value", [KEY, "aireiter.com", f"{KEY}://", "http://[", "https://"])
async def test_a_base_url_that_is_none_is_named_and_not_shown(
    examine: Examine, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    """It may be the key, in the wrong variable."""
    monkeypatch.setenv("AIREITER_BASE_URL", value)
    monkeypatch.setenv("AIREITER_API_KEY", "https://aireiter.com")
    found = Report(await examine("--json"))
    assert found.bad == {"base URL": "error", **skipped(*NETWORK)}
    assert found["base URL"]["text"].startswith("AIREITER_BASE_URL must be an absolute URL")
    assert found["DNS"]["text"] == "skipped: depends on a setting that is invalid"


async def test_invalid_options_are_named(report: Reporting) -> None:
    found = await report("--base-url", "http://example.com", "--user-agent", "a\nb")
    assert found.bad == {"base URL": "error", "User-Agent": "error", **skipped(*NETWORK)}
    assert "--allow-http" in found["base URL"]["advice"]
    found = await report("--proxy", f"socks5://joe:{SECRET}@127.0.0.1:9")
    assert found.bad == {"proxy": "error", **skipped(*NETWORK)}
    assert found["proxy"]["text"].startswith("--proxy must be an http or https URL")


@pytest.mark.parametrize(
    ("status", "text", "hint"),
    [
        (b"403 No", "the proxy refuses to connect to aireiter.invalid:443: HTTP 403", "ask"),
        (b"407 Who?", "HTTP 407", "put the user name and password into its URL"),
        (b"", "a response that is not HTTP", "ask whoever runs the proxy"),
    ],
)
async def test_a_proxy_that_refuses_is_named(
    report: Reporting, status: bytes, text: str, hint: str
) -> None:
    async with Peer() as proxy:
        proxy.answer(head(status=status) if status else b"kittens\r\n\r\n")
        url = proxy.url.replace("://", f"://joe:{SECRET}@")
        found = await report("--base-url", "https://aireiter.invalid", "--proxy", url)
        assert found.bad == {"tunnel": "error", **skipped(*NETWORK[2:])}
        assert text in found["tunnel"]["text"]
        assert hint in found["tunnel"]["advice"]
        assert found["proxy"]["text"] == f"{proxy.url} with a user name"
        assert KEY.encode() not in b"".join(proxy.heard)


async def test_a_proxy_that_hangs_up_or_is_gone_is_named(report: Reporting) -> None:
    async with Peer() as proxy:
        proxy.play(piece(b"HTTP/1.1 200"))
        found = await report("--base-url", "https://aireiter.invalid", "--proxy", proxy.url)
        assert found["tunnel"]["text"] == "the proxy closed the connection"
    argv = ("--base-url", "https://aireiter.invalid", "--proxy")
    found = await report(*argv, proxy.url)
    assert found["TCP"]["text"].startswith("cannot connect to the proxy 127.0.0.1:")
    assert found.bad["tunnel"] == "skipped"
    found = await report(*argv, "http://proxy.invalid:3128")
    assert (found.bad["DNS"], found["DNS"]["advice"]) == ("error", "check the proxy's name")


async def test_options_win_over_the_environment(
    service: FakeService, report: Reporting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Options are checked, and the report says what they replace."""
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, f"http://joe:{SECRET}@192.0.2.1:9")
    monkeypatch.setenv("AIREITER_BASE_URL", "https://wrong.invalid")
    monkeypatch.setenv("AIREITER_API_KEY", "sk-of-the-environment")
    async with Peer() as proxy:
        proxy.answer(dated(0)(b""))
        options = ("--base-url", "http://aireiter.invalid", "--allow-http", "--api-key", KEY)
        found = await report(*options, "--proxy", proxy.url)
        assert found.bad == {}
        assert proxy.heard[0].startswith(b"GET http://aireiter.invalid/api/openapi/balance")
        assert b"Bearer " + KEY.encode() in proxy.heard[0]
    sources = {each["name"]: each["source"] for each in found.ran.document["checks"]}
    assert sources["base URL"] == "--base-url, not AIREITER_BASE_URL"
    assert sources["API key"] == "--api-key, not AIREITER_API_KEY"
    assert sources["proxy"] == "--proxy, not http_proxy"
    assert (sources["User-Agent"], sources["results"]) == ("default", "default")
    assert found["tunnel"]["text"] == "not used: the proxy forwards http:// requests"
    assert service.requests == []


async def test_the_environment_is_the_default(
    service: FakeService, report: Reporting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIREITER_BASE_URL", service.url)
    monkeypatch.setenv("ALL_PROXY", "http://192.0.2.1:9")
    found = await report("--user-agent", "kittens/1")
    sources = {each["name"]: each["source"] for each in found.ran.document["checks"]}
    assert (found.bad, sources["base URL"], sources["API key"], sources["User-Agent"]) == (
        {},
        "AIREITER_BASE_URL",
        "AIREITER_API_KEY",
        "--user-agent",
    )
    assert found["proxy"]["text"] == "none: ALL_PROXY does not apply to this machine"
    assert service.requests[0].headers["User-Agent"] == "kittens/1"


@pytest.mark.parametrize(
    ("variables", "state", "text"),
    [
        ({"HTTPS_PROXY": "http://127.0.0.1:9"}, "ok", "http://127.0.0.1:9"),
        ({"HTTPS_PROXY": f"socks5://{SECRET}@h:1"}, "warning", "none: HTTPS_PROXY is ignored"),
        (
            {"HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "aireiter.invalid"},
            "ok",
            "none: NO_PROXY excludes aireiter.invalid from HTTPS_PROXY",
        ),
    ],
)
async def test_proxies_of_the_environment_are_explained(
    report: Reporting,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    state: str,
    text: str,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = await report("--base-url", "https://aireiter.invalid")
    assert (found["proxy"]["state"], found["proxy"]["source"]) == (state, "HTTPS_PROXY")
    assert found["proxy"]["text"].startswith(text)


class Tunnel:
    """A proxy, with TLS or without, that leads to a port of this machine."""

    def __init__(self, port: int) -> None:
        self.heard: list[bytes] = []
        self._port = port

    async def start(self, tls: ssl.SSLContext | None = None) -> asyncio.Server:
        return await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heard.append(await reader.readuntil(b"\r\n\r\n"))
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
    except ConnectionError:
        pass
    writer.close()


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_tunnel_leads_through_the_proxy(
    listen: Listen,
    report: Reporting,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    until: Callable[..., Awaitable[None]],
    scheme: str,
) -> None:
    authority = trustme.CA()
    trust(authority, home, monkeypatch)
    url = await listen(dated(0), server(authority.issue_cert("aireiter.invalid")))
    tunnel = Tunnel(int(url.rpartition(":")[2]))
    tls = server(authority.issue_cert("127.0.0.1")) if scheme == "https" else None
    proxy = await tunnel.start(tls)
    monkeypatch.setenv(
        "HTTPS_PROXY", f"{scheme}://joe:{SECRET}@127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
    )
    found = await report("--base-url", "https://aireiter.invalid")
    proxy.close()
    assert (found.bad, found["proxy"]["source"]) == ({}, "HTTPS_PROXY")
    assert found["tunnel"]["text"] == "the proxy connected to aireiter.invalid:443"
    assert all(each.startswith(b"CONNECT aireiter.invalid:443 ") for each in tunnel.heard)
    assert all(b"Proxy-Authorization: Basic " in each for each in tunnel.heard)
    await until(lambda: len(asyncio.all_tasks()) == 1)


async def test_a_thread_that_ends_too_late_is_ignored(
    until: Callable[[Callable[[], object]], Awaitable[None]],
) -> None:
    ended = threading.Event()
    with pytest.raises(TimeoutError):
        await in_thread(ended.wait, 0.001)
    ended.set()
    await until(lambda: "aireiter-doctor" not in {each.name for each in threading.enumerate()})
    await asyncio.sleep(0)


async def test_nothing_hangs(listen: Listen, report: Reporting) -> None:
    """A peer that never responds, at each step."""
    silent = await listen(lambda _: (b"", b""), eager=True)
    found = await report("--base-url", silent.replace("http:", "https:"), seconds=0.05)
    assert found["TLS"]["text"] == "no answer from the service in 0.05 s"
    found = await report("--base-url", "https://aireiter.invalid", "--proxy", silent, seconds=0.05)
    assert found["tunnel"]["text"] == "no answer from the proxy in 0.05 s"
    found = await report("--base-url", silent, seconds=0.05)
    assert found["HTTP"]["text"] == "no complete response within 0.1 s"
    full = socket.create_server(("127.0.0.1", 0), backlog=0)
    ends = [socket.socket() for _ in range(4)]
    for end in ends:  # the queue of connections that nobody accepts
        end.setblocking(False)  # noqa: FBT003 - the socket's own signature
        end.connect_ex(full.getsockname())
    found = await report("--base-url", f"http://127.0.0.1:{full.getsockname()[1]}", seconds=0.05)
    assert "no answer in 0.05 s" in found["TCP"]["text"]
    for end in (full, *ends):
        end.close()


async def test_names_and_drives_that_never_respond(service: FakeService, report: Reporting) -> None:
    release = threading.Event()

    def block(*_: object, **__: object) -> Any:
        release.wait(20)
        raise OSError("too late")

    found = await report("--base-url", service.url, resolve=block, seconds=0.05)
    assert found["DNS"]["text"] == "no answer for 127.0.0.1 in 0.05 s"
    found = await report("--base-url", service.url, disk=Disk(create=block), seconds=0.05)
    assert found["results"]["text"] == "the disk does not respond in 0.05 s"
    release.set()


async def test_an_address_that_does_not_respond_is_a_warning(
    service: FakeService, report: Reporting
) -> None:
    good = ("127.0.0.1", int(service.url.rpartition(":")[2]))

    def resolve(*_: object, **__: object) -> list[Any]:
        return [(0, 0, 0, "", address) for address in (("127.0.0.1", 9), good, good)]

    found = await report("--base-url", service.url, resolve=resolve)
    assert found.bad == {"TCP": "warning"}
    assert "but not to 127.0.0.1:9: Connection refused" in found["TCP"]["text"]


async def test_a_ledger_that_never_responds_is_named(
    service: FakeService, report: Reporting, home: Path
) -> None:
    os.mkfifo(home / "pipe.db")
    options = ("--base-url", service.url)
    assert (await report(*options)).bad == {}  # not taken for a ledger
    found = await report(*options, "--ledger", "pipe.db", seconds=0.1)
    assert found["ledger"]["text"] == "pipe.db: the disk does not respond in 0.1 s"
    os.close(os.open(home / "pipe.db", os.O_RDWR))  # lets the thread go


def test_a_python_without_sqlite_is_named() -> None:
    script = (
        "import sys; sys.modules['sqlite3'] = None\n"
        "from aireiter_async.cli import main\n"
        "main(['doctor', '--base-url', 'http://127.0.0.1:9', '--ledger', 'a.db', '--json'])"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)  # noqa: S603
    found = Report(Ran(0, ran.stdout.decode(), ran.stderr.decode()))
    assert (found["Python"]["state"], found["ledger"]["state"]) == ("warning", "error")
    assert "Python that was built with SQLite" in found["ledger"]["advice"]


def test_a_home_that_is_the_root_is_no_secret(
    capsys: pytest.CaptureFixture[str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/")
    assert main(["doctor", "--base-url", "http://127.0.0.1:9"]) == 1
    assert f"{home} is writable" in capsys.readouterr().out


class Usage(NamedTuple):
    free: int


async def test_a_full_disk_is_named(service: FakeService, report: Reporting, home: Path) -> None:
    """A small tmpfs needs root; /dev/full in place of the file gives the kernel's own error."""

    def create(_directory: Path) -> Any:
        return open("/dev/full", "wb", buffering=0)  # noqa: PTH123 - closed by the doctor

    found = await report("--base-url", service.url, "--download", "a/b", disk=Disk(create=create))
    assert (found.ran.status, found.bad) == (1, {"results": "error"})
    assert found["results"]["text"] == "~ cannot be written: No space left on device"
    assert found["results"]["advice"].startswith("free some space")
    low = Disk(usage=lambda _: Usage(1_234_567))
    found = await report("--base-url", service.url, "--download", "a/b", disk=low)
    assert found.bad == {"results": "warning"}
    assert found["results"]["text"] == "~/a/b is writable, and will be created, 1.23 MB free"
    assert found["results"]["source"] == "--download"
    assert not (home / "a").exists()


async def test_a_disk_with_room_for_a_part_is_full(
    service: FakeService, report: Reporting, home: Path
) -> None:
    class Short(socket.SocketIO):
        def write(self, _data: object) -> int:
            return 1

    ours, theirs = socket.socketpair()
    disk = Disk(create=lambda _: Short(ours, "rw"))  # type: ignore[arg-type, return-value]
    found = await report("--base-url", service.url, disk=disk)
    assert found["results"]["text"] == "~ cannot be written: No space left on device"
    ours.close()
    theirs.close()
    (home / "file").touch()
    found = await report("--base-url", service.url, "--download", "file")
    assert found["results"]["text"] == "~/file cannot be written: Not a directory"
    big = Disk(usage=lambda _: Usage(2_500_000_000_000))
    assert "2.5 TB free" in (await report("--base-url", service.url, disk=big))["results"]["text"]


async def make_ledger(service: FakeService, path: Path) -> None:
    """Run a small batch."""
    requests = [SubmitRequest("nano_banana", {"prompt": f"secret prompt {n}"}) for n in range(30)]
    async with service.client() as client, Ledger(path) as ledger:
        async for outcome in client.run_many(requests, ledger=ledger):
            assert outcome.ok


async def test_ledgers_are_found_and_checked(
    service: FakeService, report: Reporting, home: Path
) -> None:
    await make_ledger(service, Path("prompts.csv.db"))
    (home / "other.db").write_bytes(b"not a ledger")
    (home / "dangling.db").symlink_to("nowhere")
    (home / "unreadable.db").symlink_to("/proc/self/mem")
    found = await report("--base-url", service.url)
    assert found.bad == {}
    assert found["ledger"]["text"] == "~/prompts.csv.db is intact: 30 tasks (30 completed)"
    assert found["ledger"]["source"] == "found here"
    found = await report("--base-url", service.url, "--ledger", "nowhere.db")
    assert (found.ran.status, found.bad) == (0, {"ledger": "warning"})
    found = await report("--base-url", service.url, "--ledger", "other.db")
    assert (found.ran.status, found.bad) == (1, {"ledger": "error"})
    assert not (home / "nowhere.db").exists()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "zeros": lambda path: overwrite(path, 4096, bytes(4096)),
    "header": lambda path: overwrite(path, 0, bytes(100)),
    "emptied": lambda path: path.write_bytes(b""),
    "json": lambda path: edit(path, "UPDATE tasks SET request = '{' WHERE number = 7"),
    "lost": lambda path: edit(path, "DELETE FROM tasks WHERE number > 20"),
    "lock": lambda path: Path(f"{path}.lock").write_bytes(b"kittens"),
    "a lock of another": lambda path: edit(path, "UPDATE batch SET salt = 'kittens'"),
    "newer": lambda path: edit(path, "PRAGMA user_version = 99"),
    "a directory": lambda path: replace(Path(f"{path}.lock")),
}


def replace(path: Path) -> None:
    path.unlink()
    path.mkdir()


def overwrite(path: Path, position: int, data: bytes) -> None:
    content = bytearray(path.read_bytes())
    content[position : position + len(data)] = data
    path.write_bytes(content)


def edit(path: Path, statement: str) -> None:
    import sqlite3  # noqa: PLC0415 - only here

    db = sqlite3.connect(path)
    db.execute(statement)
    db.commit()
    db.close()


@pytest.mark.parametrize("name", DAMAGE)
async def test_a_corrupt_ledger_is_named(
    service: FakeService, report: Reporting, home: Path, name: str
) -> None:
    path = home / "run.db"
    await make_ledger(service, path)
    charges = len(service.charges)
    DAMAGE[name](path)
    before = path.read_bytes()
    found = await report("--base-url", service.url, "--ledger", "run.db")
    assert (found.ran.status, found.bad) == (1, {"ledger": "error"})
    assert found["ledger"]["text"].startswith("run.db: ")
    assert "secret prompt" not in found.ran.out
    assert (path.read_bytes(), len(service.charges)) == (before, charges)


async def test_a_ledger_is_checked_without_disturbing_a_batch(
    service: FakeService, report: Reporting, home: Path
) -> None:
    await make_ledger(service, home / "run.db")
    async with Ledger("run.db"):
        assert (await report("--base-url", service.url)).bad == {}
    (home / "new.db").touch()
    (home / "new.db.lock").touch()
    found = await report("--base-url", service.url, "--ledger", "new.db")
    assert found["ledger"]["text"] == "new.db is intact: 0 tasks"


async def test_a_large_ledger_is_not_checked_forever(service: FakeService, home: Path) -> None:
    """Time may be up within SQLite, or after a page of rows."""
    await make_ledger(service, home / "run.db")
    looks: list[float] = []

    def check(last: int) -> object:
        """Let the time be up after a number of looks at it."""
        looks.clear()

        def now() -> float:
            looks.append(0.0)
            return 0.0 if len(looks) <= last else 9.0

        return verify(home / "run.db", 5.0, now=now)

    assert check(1_000_000) == {"completed": 30}
    total = len(looks)
    assert check(1) is None
    assert len(looks) == 3
    assert check(total - 1) is None
    assert len(looks) == total
    late = check_ledger(home / "run.db", "--ledger", -1.0)
    assert (late.state, late.advice) == (
        "warning",
        'check it with: sqlite3 run.db "PRAGMA integrity_check"',
    )
    with pytest.raises(LedgerError, match="unable to open"):
        verify(home / "nowhere.db", 5.0)


def test_versions_that_are_too_old_are_named() -> None:
    def version(name: str) -> str:
        return "3.9.9" if name == "aiohttp" else "99"

    def requires(_name: str) -> list[str]:
        return ["aiohttp>=3.14.1", "attrs>=24.2", "cattrs", 'Pillow>=100; extra == "images"']

    def absent(name: str) -> list[str]:
        raise PackageNotFoundError(name)

    packages = check_versions(version, requires)[1]
    assert (packages.state, packages.advice) == ("error", 'pip install "aiohttp>=3.14.1"')
    assert check_versions(version, absent)[1].state == "ok"
