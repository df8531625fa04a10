"""Client settings, validated before any I/O; the key is redacted from reprs."""

import ipaddress
import os
import platform
import reprlib
from typing import Final
from urllib.parse import urlsplit

from attrs import frozen

from aireiter_async._arguments import check_number, check_size
from aireiter_async._poll import PollPolicy
from aireiter_async._redact import Secret, hide
from aireiter_async._retry import RetryPolicy
from aireiter_async._version import __version__

DEFAULT_BASE_URL: Final = "https://aireiter.com"


@frozen(kw_only=True)
class Settings:
    """The validated options of one view of a client; see `AsyncClient`."""

    api_key: Secret
    base_url: str
    timeout: float
    connect_timeout: float
    retry: RetryPolicy
    polling: PollPolicy
    user_agent: str
    allow_http: bool
    max_image_side: int | None


def read_settings(  # noqa: PLR0913 - each is an option on its own
    *,
    api_key: str | None,
    base_url: str | None,
    timeout: float,
    connect_timeout: float,
    retry: RetryPolicy,
    polling: PollPolicy,
    user_agent: str | None,
    allow_http: bool,
    max_image_side: int | None,
) -> Settings:
    """Validate a client's options, with defaults from the environment."""
    if not isinstance(retry, RetryPolicy):
        raise TypeError(f"retry must be a RetryPolicy, got {type(retry).__name__}")
    if not isinstance(polling, PollPolicy):
        raise TypeError(f"polling must be a PollPolicy, got {type(polling).__name__}")
    if not isinstance(allow_http, bool):
        raise TypeError(f"allow_http must be a bool, got {type(allow_http).__name__}")
    check_size(max_image_side)
    return Settings(
        api_key=read_key(api_key),
        base_url=read_base_url(base_url, allow_http=allow_http),
        timeout=check_number("timeout", timeout, above=0),
        connect_timeout=check_number("connect_timeout", connect_timeout, above=0),
        retry=retry,
        polling=polling,
        user_agent=read_user_agent(user_agent),
        allow_http=allow_http,
        max_image_side=max_image_side,
    )


def read_key(api_key: str | None) -> Secret:
    """Return *api_key*, else the environment's; errors do not show it."""
    key = hide(os.environ.get("AIREITER_API_KEY") if api_key is None else api_key)
    if not key and api_key is None:
        raise ValueError(
            "no API key: pass api_key or set AIREITER_API_KEY; "
            "get a key at https://aireiter.com/keys"
        )
    if not isinstance(key, str):
        raise TypeError(f"api_key must be a str, got {type(key).__name__}")
    # Even an invalid key is never shown: it may be valid but for a line break.
    if not key:
        raise ValueError("api_key is empty: get a key at https://aireiter.com/keys")
    if not all("!" <= char <= "~" for char in key):
        raise ValueError(
            "api_key must be printable ASCII without spaces and line breaks: "
            "check how it was copied"
        )
    return Secret(key)


def read_base_url(base_url: str | None, *, allow_http: bool) -> str:
    """Return *base_url*, the environment's or the default, without a trailing slash."""
    url = base_url
    if url is None:
        url = os.environ.get("AIREITER_BASE_URL") or DEFAULT_BASE_URL
    if not isinstance(url, str):
        raise TypeError(f"base_url must be a str, got {type(url).__name__}")
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"base_url is not a URL: {error}") from error
    if parts.scheme not in {"http", "https"} or not host or any(char <= " " for char in url):
        raise ValueError(
            f"base_url must be an absolute URL such as {DEFAULT_BASE_URL}, got {reprlib.repr(url)}"
        )
    if parts.username is not None or parts.password is not None:
        raise ValueError("base_url must not contain a user name or password: remove it")
    if "?" in url or "#" in url:
        raise ValueError("base_url must not contain a query or fragment: remove it")
    if parts.scheme == "http" and not allow_http and not _is_loopback(host):
        raise ValueError(
            f"base_url is http:// to {host}, which is not this machine: the API key would travel "
            "unencrypted; use https://, or allow_http=True if the network itself is safe"
        )
    return url.rstrip("/")


def _is_loopback(host: str) -> bool:
    # Stricter than the transport's: an embedded IPv4 address may be routed elsewhere.
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def read_user_agent(user_agent: str | None) -> str:
    if user_agent is None:
        # The CDN rejects the default User-Agents of Python.
        return f"aireiter-async/{__version__} Python/{platform.python_version()}"
    if not isinstance(user_agent, str):
        raise TypeError(f"user_agent must be a str, got {type(user_agent).__name__}")
    if not user_agent.strip() or not all(" " <= char <= "~" for char in user_agent):
        raise ValueError(
            "user_agent must be printable ASCII on one line and not empty, "
            f"got {reprlib.repr(user_agent)}"
        )
    return user_agent
