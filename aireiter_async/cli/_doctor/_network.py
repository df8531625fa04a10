"""The doctor's checks of the way to the service: DNS, TCP, proxy, TLS, step by step."""

import asyncio
import os
import socket
import ssl
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

from attrs import define, field

from aireiter_async._transport import Proxy
from aireiter_async.cli._doctor._checks import Check, Problem, in_thread, skip
from aireiter_async.cli._doctor._responses import RESPONSES, Caller, ask
from aireiter_async.cli._doctor._setup import PORTS, Setup

_MAX_ADDRESSES: Final = 4
_DAY: Final = 86_400
_EXPIRES_SOON: Final = 14 * _DAY
_PROXY_AUTHENTICATION: Final = 407
_SUCCESSES: Final = range(200, 300)
# OpenSSL's X509_V_ERR_ codes.
_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
_OTHER_NAME: Final = frozenset({62, 64})


@define
class _Line:
    """A connection to the service that is made step by step, each within *seconds*.

    Attributes:
        base_url: The service.
        proxy: The proxy on the way, if any.
        context: Verifies certificates.
        seconds: The longest time of each step.
        resolve: Resolves a name.
    """

    base_url: str
    proxy: Proxy | None
    context: ssl.SSLContext
    seconds: float
    resolve: Callable[..., Any]
    _addresses: list[tuple[Any, ...]] = field(factory=list[tuple[Any, ...]], init=False)
    _streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = field(
        default=None, init=False
    )

    @property
    def target(self) -> tuple[str, str, int]:
        """The scheme, host and port of the service."""
        return _place(self.base_url)

    @property
    def first(self) -> tuple[str, str, int]:
        """The scheme, host and port to connect to."""
        return self.target if self.proxy is None else _place(self.proxy.url)

    async def look_up(self) -> str:
        """Resolve the name."""
        _, host, port = self.first
        try:
            call = partial(self.resolve, host, port, type=socket.SOCK_STREAM)
            found = await in_thread(call, self.seconds)
        except TimeoutError:
            raise Problem(f"no answer for {host} in {self.seconds:g} s", self._dns_advice) from None
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise Problem(f"{host} cannot be resolved: {reason}", self._dns_advice) from error
        addresses = [str(each[4][0]) for each in found]
        self._addresses = found[:_MAX_ADDRESSES]
        if addresses == [host]:
            return f"{host} is an address"
        return f"{host} is {', '.join(addresses)}"

    @property
    def _dns_advice(self) -> str:
        if self.proxy is not None:
            return "check the proxy's name"
        return (
            "check --base-url and the network's DNS; where a network does not resolve this name, "
            "use another DNS server, --proxy, or --base-url of a relay"
        )

    async def connect(self) -> str:
        """Connect to one of the addresses."""
        what = "" if self.proxy is None else "the proxy "
        began = time.monotonic()
        ends = await asyncio.gather(*map(self._connect, self._addresses))
        took = (time.monotonic() - began) * 1000
        opened = [end for end in ends if isinstance(end, tuple)]
        problems = [end for end in ends if isinstance(end, str)]
        for _, writer in opened[1:]:
            await _close(writer)
        if not opened:
            firewall = "check the network, the firewall and the port in --base-url"
            hint = firewall if self.proxy is None else "check that the proxy is running"
            raise Problem(f"cannot connect to {what}{'; '.join(problems)}", hint)
        self._streams = opened[0]
        host, port, *_ = opened[0][1].get_extra_info("peername")
        text = f"connected to {what}{_pair(host, port)} in {took:.0f} ms"
        if problems:
            hint = "connecting may take longer: check the network's IPv6"
            raise Problem(f"{text}, but not to {'; '.join(problems)}", hint, "warning")
        return text

    async def _connect(
        self, found: tuple[Any, ...]
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | str:
        host, port, *_ = found[4]
        try:
            async with asyncio.timeout(self.seconds):
                return await asyncio.open_connection(host, port)
        except TimeoutError:
            return f"{_pair(host, port)}: no answer in {self.seconds:g} s"
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            return f"{_pair(host, port)}: {reason}"

    async def tunnel(self) -> str:
        """Have the proxy connect to the service."""
        scheme, host, port = self.target
        assert self.proxy is not None  # noqa: S101 - otherwise there is no such step
        reader, writer = self._open
        async with self._within("the proxy"):
            if self.first[0] == "https":
                await writer.start_tls(self.context, server_hostname=self.first[1])
            if scheme == "http":
                return "not used: the proxy forwards http:// requests"
            place = _pair(host, port)
            headers = {"Host": place, **self.proxy.headers}
            lines = [f"CONNECT {place} HTTP/1.1", *(f"{k}: {v!s}" for k, v in headers.items())]
            writer.write("\r\n".join([*lines, "", ""]).encode())
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                raise Problem("the proxy closed the connection", _PROXY_ADVICE) from None
        words = head.split(maxsplit=2)
        status = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
        if status in _SUCCESSES:
            return f"the proxy connected to {place}"
        hint = _PROXY_ADVICE
        if status == _PROXY_AUTHENTICATION:
            hint = "put the user name and password into its URL: http://USER:PASSWORD@HOST:PORT"
        what = f"HTTP {status}" if status else "a response that is not HTTP"
        raise Problem(f"the proxy refuses to connect to {place}: {what}", hint)

    async def secure(self) -> str:
        """Complete the TLS handshake, and verify the certificate."""
        scheme, host, _ = self.target
        if scheme == "http":
            return "not used: the base URL is http://"
        _, writer = self._open
        async with self._within("the service"):
            await writer.start_tls(self.context, server_hostname=host)
        connection = writer.get_extra_info("ssl_object")
        certificate = connection.getpeercert()
        left = ssl.cert_time_to_seconds(certificate["notAfter"]) - time.time()
        issuer = dict(pair for pairs in certificate["issuer"] for pair in pairs)
        by = issuer.get("organizationName") or issuer.get("commonName") or "an unnamed authority"
        days = int(left // _DAY)
        text = f"{connection.version()}, certificate by {by}, valid for {days} more days"
        if left < _EXPIRES_SOON:
            hint = "tell whoever runs the service to renew it"
            raise Problem(text, hint, "warning")
        return text

    @property
    def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        assert self._streams is not None  # noqa: S101 - the steps are in order
        return self._streams

    @asynccontextmanager
    async def _within(self, who: str) -> AsyncGenerator[None, None]:
        """Limit a step, and turn its errors into Problems."""
        try:
            async with asyncio.timeout(self.seconds):
                yield
        except TimeoutError:
            hint = "check the network, the firewall and the port"
            raise Problem(f"no answer from {who} in {self.seconds:g} s", hint) from None
        except ssl.SSLCertVerificationError as error:
            code, reason = error.verify_code, error.verify_message
            text = f"the certificate of {who} is not valid: {reason}"
            raise Problem(text, _certificate_advice(code)) from error
        except (ssl.SSLError, OSError) as error:
            reason = getattr(error, "reason", None) or error.strerror or str(error)
            hint = "check that the port speaks TLS, and that nothing on the way blocks it"
            raise Problem(f"the TLS handshake with {who} failed: {reason}", hint) from error

    async def close(self) -> None:
        """Close the connection."""
        if self._streams is not None:
            await _close(self._streams[1])


_PROXY_ADVICE: Final = "ask whoever runs the proxy, or use another one with --proxy"


def _certificate_advice(code: int) -> str:
    if code == _EXPIRED:
        return "if this machine's date is right, tell whoever runs the service to renew it"
    if code == _NOT_YET_VALID:
        return "check this machine's date"
    if code in _OTHER_NAME:
        return "check the host in --base-url: the certificate is for another one"
    text = "a proxy, virus scanner or relay may have an authority of its own"
    hint = "set SSL_CERT_FILE to a file with its certificate"
    present = [name for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(name)]
    return f"{text}: {f'check {present[0]}, which is set' if present else hint}"


def _place(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or PORTS[parts.scheme]


def _pair(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()  # TLS would wait for the other end
    # Not wait_closed(), which never returns after a handshake that failed.
    await asyncio.sleep(0)


async def check_network(
    setup: Setup,
    caller: Caller,
    context: ssl.SSLContext,
    seconds: float,
    resolve: Callable[..., Any] = socket.getaddrinfo,
) -> list[Check]:
    """Check the way to the service, and what responds there.

    Args:
        setup: The settings, which must be usable.
        caller: Sends the request.
        context: Verifies certificates.
        seconds: The longest time of each step.
        resolve: Resolves names.
    """
    line = _Line(setup.base_url or "", setup.proxy, context, seconds, resolve)
    steps: dict[str, Callable[[], Awaitable[str]]] = {"DNS": line.look_up, "TCP": line.connect}
    if setup.proxy is not None:
        steps["tunnel"] = line.tunnel
    steps["TLS"] = line.secure
    checks: list[Check] = []
    failed = ""
    try:
        for name, step in steps.items():
            checks.append(skip(name, failed) if failed else await _run(name, step))
            if checks[-1].state == "error":
                failed = name
    finally:
        await line.close()
    if failed:
        return [*checks, *(skip(name, failed) for name in RESPONSES)]
    return [*checks, *await ask(setup, caller)]


async def _run(name: str, step: Callable[[], Awaitable[str]]) -> Check:
    try:
        return Check(name=name, text=await step())
    except Problem as problem:
        return Check(name=name, state=problem.state, text=problem.text, advice=problem.advice)
