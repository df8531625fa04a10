"""The doctor's view of the settings: their values, and where each comes from."""

import os
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit
from urllib.request import proxy_bypass

from attrs import field, frozen

from aireiter_async._client._settings import (
    DEFAULT_BASE_URL,
    read_base_url,
    read_key,
    read_user_agent,
)
from aireiter_async._transport import Proxy, find_proxy, is_loopback
from aireiter_async.cli._doctor._checks import Check
from aireiter_async.cli._errors import with_options
from aireiter_async.cli._options import Connection

PORTS: Final = {"http": 80, "https": 443}


@frozen(kw_only=True)
class Setup:
    """The settings as every command would use them; None where one is missing or invalid.

    Attributes:
        checks: One per setting.
        base_url: The service.
        api_key: The key.
        user_agent: The User-Agent.
        proxy: The proxy for the service, if any.
        usable: Whether the service can be reached with them.
    """

    checks: tuple[Check, ...]
    base_url: str | None
    api_key: str | None = field(repr=False)
    user_agent: str | None
    proxy: Proxy | None

    @property
    def usable(self) -> bool:
        names = {"base URL", "User-Agent", "proxy"}
        return not any(each.name in names and each.state == "error" for each in self.checks)


class _Setting(NamedTuple):
    """One setting: its check, and its value if it is valid."""

    check: Check
    value: Any = None


def read_setup(connection: Connection) -> Setup:
    """Read the settings as the client does, each by itself."""
    base_url = _base_url(connection)
    key = _key(connection)
    user_agent = _read(
        "User-Agent",
        "--user-agent" if connection.user_agent is not None else "default",
        partial(read_user_agent, connection.user_agent),
        str,
    )
    proxy = _proxy(connection, base_url.value)
    return Setup(
        checks=(base_url.check, key.check, user_agent.check, proxy.check),
        base_url=base_url.value,
        api_key=key.value,
        user_agent=user_agent.value,
        proxy=proxy.value,
    )


def _base_url(connection: Connection) -> _Setting:
    variable = "AIREITER_BASE_URL"
    source = _source("--base-url", connection.base_url, variable, required=False)
    given = os.environ.get(variable) if connection.base_url is None else connection.base_url
    try:
        host = urlsplit(given or DEFAULT_BASE_URL).hostname
    except ValueError:
        host = None
    if not host:  # not shown: it may well be the key, in the wrong place
        text = f"{source} must be an absolute URL such as {DEFAULT_BASE_URL}"
        return _Setting(Check(name="base URL", state="error", text=text, source=source))
    read = partial(read_base_url, connection.base_url, allow_http=connection.allow_http)
    return _read("base URL", source, read, str)


def _key(connection: Connection) -> _Setting:
    variable = "AIREITER_API_KEY"
    source = _source("--api-key", connection.api_key, variable, required=True)
    return _read("API key", source, partial(read_key, connection.api_key), lambda _: "set")


def _source(option: str, given: str | None, variable: str, *, required: bool) -> str:
    present = variable in os.environ if required else bool(os.environ.get(variable))
    if given is not None:
        return f"{option}, not {variable}" if present else option
    if present:
        return variable
    return "" if required else "default"


def _read(name: str, source: str, read: Callable[[], Any], show: Callable[[Any], str]) -> _Setting:
    try:
        value = read()
    except ValueError as error:
        text = with_options(str(error))
        if source.isupper():  # a variable, which the library's message does not name
            text = text.replace("--api-key", source).replace("--base-url", source)
        what, _, hint = text.partition(": ")
        return _Setting(Check(name=name, state="error", text=what, advice=hint, source=source))
    return _Setting(Check(name=name, text=show(value), source=source), value)


def _proxy(connection: Connection, base_url: str | None) -> _Setting:
    url = base_url or DEFAULT_BASE_URL
    parts = urlsplit(url)
    scheme, host = parts.scheme, parts.hostname or ""
    given = connection.proxy
    names = [f"{scheme}_proxy", f"{scheme}_proxy".upper(), "all_proxy", "ALL_PROXY"]
    present = [name for name in names if os.environ.get(name)]
    if given is not None:
        source = f"--proxy, not {present[0]}" if present else "--proxy"
        return _read("proxy", source, partial(find_proxy, url, given), _shown_proxy)
    proxy = find_proxy(url, None)
    if proxy is not None:
        source = present[0] if present else "the system's settings"
        return _Setting(Check(name="proxy", text=_shown_proxy(proxy), source=source), proxy)
    if not present:
        return _Setting(Check(name="proxy", text="none", source="default"))
    port = parts.port or PORTS[scheme]
    if is_loopback(host):
        text = f"none: {present[0]} does not apply to this machine"
    elif proxy_bypass(host) or proxy_bypass(f"{host}:{port}"):
        text = f"none: NO_PROXY excludes {host} from {present[0]}"
    else:
        text = f"none: {present[0]} is ignored, because it is not an http or https URL"
        hint = f"set {present[0]} to an http:// or https:// URL; SOCKS is not supported"
        check = Check(name="proxy", state="warning", text=text, advice=hint, source=present[0])
        return _Setting(check)
    return _Setting(Check(name="proxy", text=text, source=present[0]))


def _shown_proxy(proxy: Proxy) -> str:
    return f"{proxy.url} with a user name" if proxy.headers else proxy.url
