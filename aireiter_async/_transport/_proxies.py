"""Choose the proxy for each URL: the caller's, or the environment's."""

import base64
import logging
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote
from urllib.request import getproxies, proxy_bypass

from attrs import frozen
from yarl import URL

from aireiter_async._redact import Secret
from aireiter_async._transport._addresses import is_loopback

_SCHEMES: Final = {"http", "https"}
_MAX_HOSTS: Final = 1000  # in the cache

_log = logging.getLogger(__name__)


@frozen
class Proxy:
    """A proxy and the headers to send to it; its credentials are not part of the URL."""

    url: str
    headers: Mapping[str, str]


class Proxies:
    """Chooses the proxy for each URL, once per host.

    Args:
        proxy: The URL of the proxy for every request; None: as the environment says.
        trust_env: Whether to read the environment's proxy variables; netrc is never read.

    Raises:
        TypeError: *proxy* is not a str.
        ValueError: *proxy* is not an http or https URL.
    """

    def __init__(self, proxy: str | None, *, trust_env: bool) -> None:
        self._proxy = None if proxy is None else _read_explicit(proxy)
        self._trust_env = trust_env
        self._by_origin: dict[URL, Proxy | None] = {}

    def find(self, url: URL) -> Proxy | None:
        """Return the proxy for an absolute *url*, or None."""
        if self._proxy is not None or not self._trust_env:
            return self._proxy
        origin = url.origin()
        if origin not in self._by_origin:
            if len(self._by_origin) >= _MAX_HOSTS:
                self._by_origin.clear()
            self._by_origin[origin] = _from_environment(origin)
        return self._by_origin[origin]


def find_proxy(url: str, proxy: str | None) -> Proxy | None:
    """Return the proxy that requests for *url* use: *proxy*, else the environment's, if any.

    Raises:
        ValueError: *proxy* is not an http or https URL.
    """
    return Proxies(proxy, trust_env=True).find(URL(url))


def _from_environment(origin: URL) -> Proxy | None:
    host = origin.raw_host or ""
    # On the proxy's machine, a loopback address would not be this machine.
    if is_loopback(host) or proxy_bypass(host) or proxy_bypass(f"{host}:{origin.port}"):
        return None
    found = getproxies()
    for name in (origin.scheme, "all"):
        if text := found.get(name):
            proxy = _read(text if "://" in text else f"http://{text}")
            if proxy is not None:
                return proxy
            text = "connect to %s: %s_PROXY is ignored, it is not an http or https URL"
            _log.warning(text, host, name.upper())
    return None


def _read_explicit(text: str) -> Proxy:
    if not isinstance(text, str):
        raise TypeError(f"proxy must be a str, got {type(text).__name__}")
    proxy = _read(text)
    if proxy is None:  # not shown: it may hold a password
        raise ValueError("proxy must be an http or https URL, such as http://proxy.example:3128")
    return proxy


def _read(text: str) -> Proxy | None:
    try:
        url = URL(text)
        origin = url.origin()
    except ValueError:
        return None
    if origin.scheme not in _SCHEMES or not origin.raw_host:
        return None
    headers: dict[str, str] = {}
    if url.raw_user is not None or url.raw_password is not None:
        pair = f"{unquote(url.raw_user or '')}:{unquote(url.raw_password or '')}"
        encoded = base64.b64encode(pair.encode()).decode()
        headers["Proxy-Authorization"] = Secret(f"Basic {encoded}")
    return Proxy(str(origin), headers)
