"""The doctor's requests to the API, and what the response to one shows.

They go through the transport that every command uses.
"""

import ssl
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import urlsplit

from aireiter_async import (
    AireiterError,
    AuthenticationError,
    Balance,
    ProtocolError,
    RateLimitError,
    ServerError,
    _wire,
)
from aireiter_async._envelope import Reply
from aireiter_async._redact import Redactor, Secret
from aireiter_async._transport import Stream, Transport
from aireiter_async.cli._display import number
from aireiter_async.cli._doctor._checks import Check, State, skip
from aireiter_async.cli._doctor._setup import Setup
from aireiter_async.cli._errors import advice, summarize, with_options

# What the response to one request shows, in this order.
RESPONSES: Final = ("HTTP", "CDN", "API", "account", "clock")

_NO_KEY: Final = "no-key-was-set"  # sent instead: the rejection shows whether this is the API
_PATHS: Final = {
    "submit": ("POST", _wire.SUBMIT_PATH),
    "query": ("POST", _wire.QUERY_PATH),
    "balance": ("GET", _wire.BALANCE_PATH),
}
_UNITS: Final = {"days": 86_400, "hours": 3_600, "minutes": 60}
_CLOCK_WARNING: Final = 60
_CLOCK_ERROR: Final = 3_600
_FORBIDDEN: Final = 403


class Caller:
    """Sends single requests to the API, with neither retries nor polling.

    Args:
        setup: The settings, which must be usable.
        transport: The connection pool.
        seconds: The longest time a request may take.
        connect: The longest time to connect.
    """

    def __init__(self, setup: Setup, transport: Transport, seconds: float, connect: float) -> None:
        self.transport = transport
        self.seconds = seconds
        self._setup = setup
        self._connect = connect

    async def call(self, endpoint: str, body: bytes | None = None, key: str | None = None) -> Reply:
        """Send a request and return the response, whatever it is.

        Args:
            endpoint: ``submit``, ``query`` or ``balance``.
            body: JSON, or None.
            key: Another key than the user's.

        Raises:
            AireiterError: There was no complete response.
        """
        method, path = _PATHS[endpoint]
        headers = {
            "Authorization": Secret(f"Bearer {key or self._setup.api_key or _NO_KEY}"),
            "Accept": "application/json",
            "User-Agent": self._setup.user_agent or "",
            **({} if body is None else {"Content-Type": "application/json"}),
        }
        url = f"{self._setup.base_url}{path}"
        return await self.transport.exchange(self._route(method, url, headers), body)

    def result(self, url: str, headers: Mapping[str, str]) -> Stream:
        """Request a result, without the key; an async context manager."""
        sent = {"User-Agent": self._setup.user_agent or "", "Accept-Encoding": "identity"}
        return self.transport.stream(self._route("GET", "", sent), url, headers)

    def _route(self, method: str, url: str, headers: Mapping[str, str]) -> Any:
        return self.transport.route(
            method, url, headers=headers, timeout=self.seconds, connect_timeout=self._connect
        )

    def redact(self, text: str) -> str:
        """Return a text from a response without the key, which a relay may have echoed."""
        return str(Redactor(self._setup.api_key or "").redact(text))


@asynccontextmanager
async def calling(
    setup: Setup, proxy: str | None, context: ssl.SSLContext, seconds: float
) -> AsyncGenerator[Caller, None]:
    """Open a connection pool with the user's settings."""
    transport = Transport(None, proxy=proxy, ssl=context)
    try:
        yield Caller(setup, transport, 2 * seconds, seconds)
    finally:
        await transport.close()


async def ask(setup: Setup, caller: Caller) -> list[Check]:
    """Ask for the balance, and judge the response."""
    began = time.monotonic()
    try:
        reply = await caller.call("balance")
    except AireiterError as error:
        first, *rest = RESPONSES
        text, hint = summarize(error), "check the network and the proxy, then try again"
        checks = [Check(name=first, state="error", text=text, advice=hint)]
        return checks + [skip(name, first) for name in rest]
    return judge(setup, reply, time.monotonic() - began)


def judge(setup: Setup, reply: Reply, took: float) -> list[Check]:
    """Return what the response to a balance request shows: one check for each of `RESPONSES`.

    Args:
        setup: The settings that the request was sent with.
        reply: The response.
        took: Seconds from the request to the response.
    """
    try:
        read: Balance | AireiterError = _wire.read_balance(reply)
    except AireiterError as error:
        read = error
    kind = reply.headers.get("Content-Type", "no type").partition(";")[0]
    server = reply.headers.get("Server", "unnamed")
    text = f"HTTP {reply.status}, {kind}, in {took * 1000:.0f} ms; server: {server}"
    cdn, api = _judge_cdn(reply), _judge_api(setup, read)
    if cdn.state == "error":
        api = skip("API", "CDN")
    account = _judge_account(setup, read) if api.state != "error" and cdn.state == "ok" else None
    return [
        Check(name="HTTP", text=text),
        cdn,
        api,
        account or skip("account", "CDN" if cdn.state == "error" else "API"),
        _judge_clock(reply, took),
    ]


def _judge_cdn(reply: Reply) -> Check:
    page = reply.body.lstrip()[:1] == b"<"
    if page and (reply.status == _FORBIDDEN or "cf-mitigated" in reply.headers):
        text = f"the CDN rejects this program: HTTP {reply.status} with a page"
        hint = (
            "try another --user-agent; if that does not help, this network is rejected: use "
            "another network, or --proxy"
        )
        return Check(name="CDN", state="error", text=text, advice=hint)
    return Check(name="CDN", text="does not reject this program")


def _judge_api(setup: Setup, read: Balance | AireiterError) -> Check:
    path = urlsplit(setup.base_url or "").path
    match read:
        case ProtocolError():
            hint = with_options(read.advice) or "check --base-url"
            if path.strip("/"):
                hint = f"the client appends /api/openapi itself: drop {path} from the base URL"
            text = f"{read.message} (HTTP {read.status})"
            return Check(name="API", state="error", text=with_options(text), advice=hint)
        case RateLimitError() | ServerError():
            state: State = "warning" if isinstance(read, RateLimitError) else "error"
            return Check(name="API", state=state, text=summarize(read), advice=advice(read))
        case _:
            return Check(name="API", text="the base URL is the API")


def _judge_account(setup: Setup, read: Balance | AireiterError) -> Check:
    if setup.api_key is None:
        return skip("account", "API key")
    match read:
        case Balance():
            free = sum(quota.remaining or 0 for quota in read.free_quotas)
            text = f"the key is accepted; {number(read.credits)} credits"
            if free:
                text += f", {number(free)} free tasks"
            if read.credits <= 0 and not free:
                hint = "top up the account at https://aireiter.com"
                return Check(name="account", state="warning", text=text, advice=hint)
            return Check(name="account", text=text)
        case RateLimitError():
            return skip("account", "API")
        case AuthenticationError():
            text, hint = f"the key is not accepted: {summarize(read)}", advice(read)
        case _:
            text, hint = f"the balance was refused: {summarize(read)}", advice(read)
    return Check(name="account", state="error", text=text, advice=hint)


def _judge_clock(reply: Reply, took: float) -> Check:
    """Compare this machine's clock with the response's, which has whole seconds."""
    try:
        there = parsedate_to_datetime(reply.headers["Date"]).timestamp()
        there += float(reply.headers.get("Age", 0))  # a cached response
    except (KeyError, ValueError, TypeError):
        return Check(name="clock", state="skipped", text="skipped: the response has no Date")
    offset = reply.received_at - took / 2 - (there + 0.5)
    size = abs(offset)
    if size < _CLOCK_WARNING:
        return Check(name="clock", text="agrees with the service's within a minute")
    unit = next((unit for unit in _UNITS if size >= 0.95 * _UNITS[unit]), "minutes")
    shown = f"{size / _UNITS[unit]:.1f} {unit}"
    return Check(
        name="clock",
        state="error" if size >= _CLOCK_ERROR else "warning",
        text=f"this machine's is {shown} {'ahead of' if offset > 0 else 'behind'} the service's",
        advice="set this machine's clock: certificates and signed URLs depend on it",
    )
