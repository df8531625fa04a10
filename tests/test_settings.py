"""What a client may be told: checked at construction, the key kept out of sight."""

import platform
import traceback
from typing import Any

import pytest

from aireiter_async import AsyncClient, PollPolicy, RetryPolicy, __version__
from aireiter_async._client._settings import Settings, read_settings

KEY = "sk-test-0a1b2c3d4e5f"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIREITER_API_KEY", raising=False)
    monkeypatch.delenv("AIREITER_BASE_URL", raising=False)


def settings(**options: Any) -> Settings:
    """Make the settings of a client that is given a key and *options*."""
    return AsyncClient(**{"api_key": KEY} | options)._settings


def shown(error: BaseException) -> str:
    """Return a traceback with the variables of all frames but the test's own."""
    assert error.__traceback__ is not None
    error = error.with_traceback(error.__traceback__.tb_next)
    told = traceback.TracebackException.from_exception(error, capture_locals=True)
    return "".join(told.format())


def test_the_defaults() -> None:
    """A key alone makes a client of the live service, over https, with documented timeouts."""
    made = settings()
    assert made.base_url == "https://aireiter.com"
    assert (made.timeout, made.connect_timeout, made.allow_http) == (120, 10, False)
    assert made.retry == RetryPolicy()
    assert made.polling == PollPolicy()
    assert made.user_agent == f"aireiter-async/{__version__} Python/{platform.python_version()}"


def test_a_missing_key_says_where_keys_come_from() -> None:
    """Without a key, given or in the environment, the error says how to get and set one."""
    with pytest.raises(ValueError, match=r"AIREITER_API_KEY.*https://aireiter\.com/keys"):
        AsyncClient()


@pytest.mark.parametrize(
    "key",
    [
        "",
        " ",
        f" {KEY}",
        f"{KEY} ",
        f"{KEY}\n",
        f"{KEY}\r\n",
        "sk test 0a1b2c3d4e5f",
        f"{KEY}\x00",
        f"{KEY}\x7f",
        f"{KEY}é",
        f"\ufeff{KEY}",
        f"Bearer {KEY}",
    ],
)
@pytest.mark.parametrize("source", ["argument", "environment", "view"])
def test_a_bad_key_is_rejected_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, key: str, source: str
) -> None:
    """A key that cannot be one is a ValueError that names the argument, and nobody sees the key."""
    client = AsyncClient("other")
    if source == "environment":
        monkeypatch.setenv("AIREITER_API_KEY", key.replace("\x00", "\n"))
    given: dict[str, Any] = {} if source == "environment" else {"api_key": key}
    make = client.with_options if source == "view" else AsyncClient
    with pytest.raises(ValueError, match="api_key") as caught:
        make(**given)
    assert "0a1b2c3d4e5f" not in shown(caught.value)


@pytest.mark.parametrize("key", [b"sk-test", 5, ["sk-test"], object()])
def test_a_key_is_text(key: Any) -> None:
    """A key that is no string is a TypeError that does not show it."""
    with pytest.raises(TypeError, match="api_key must be a str") as caught:
        AsyncClient(key)
    assert "sk-test" not in str(caught.value)


@pytest.mark.parametrize("source", ["argument", "environment", "view"])
@pytest.mark.parametrize("option", ["timeout", "max_concurrency", "max_rate", "session"])
def test_other_mistakes_do_not_show_the_key(
    monkeypatch: pytest.MonkeyPatch, option: str, source: str
) -> None:
    """A key is not among the variables of our frames when another option is wrong."""
    client = AsyncClient("other")
    options: dict[str, Any] = {option: -1}
    if source == "environment":
        monkeypatch.setenv("AIREITER_API_KEY", KEY)
    else:
        options["api_key"] = KEY
    make = client.with_options if source == "view" else AsyncClient
    with pytest.raises((ValueError, TypeError), match=option) as caught:
        make(**options)
    told = shown(caught.value)
    assert KEY not in told
    assert "api_key = '***'" in told or "'api_key': '***'" in told or source == "environment"


def test_the_environment_is_asked_where_nothing_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """AIREITER_API_KEY and AIREITER_BASE_URL fill in for arguments, which go before them."""
    monkeypatch.setenv("AIREITER_API_KEY", KEY)
    monkeypatch.setenv("AIREITER_BASE_URL", "https://relay.example/v2/")
    made = AsyncClient()._settings
    assert (made.api_key, made.base_url) == (KEY, "https://relay.example/v2")
    made = AsyncClient("mine", base_url="https://other.example")._settings
    assert (made.api_key, made.base_url) == ("mine", "https://other.example")


def test_an_empty_base_url_in_the_environment_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """AIREITER_BASE_URL set to nothing is the default."""
    monkeypatch.setenv("AIREITER_BASE_URL", "")
    assert settings().base_url == "https://aireiter.com"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://relay.example", "https://relay.example"),
        ("https://relay.example/", "https://relay.example"),
        ("https://relay.example//", "https://relay.example"),
        ("https://relay.example/a/b", "https://relay.example/a/b"),
        ("https://relay.example:8443/a/", "https://relay.example:8443/a"),
        ("HTTPS://Relay.Example", "HTTPS://Relay.Example"),
        ("https://bücher.example", "https://bücher.example"),
        ("https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://127.8.9.1", "http://127.8.9.1"),
        ("http://[::1]:8080/x", "http://[::1]:8080/x"),
        ("http://localhost", "http://localhost"),
        ("http://LOCALHOST:80", "http://LOCALHOST:80"),
        ("http://relay.localhost", "http://relay.localhost"),
    ],
)
def test_a_base_url_may_be(given: str, kept: str) -> None:
    """An absolute URL is kept without its last slashes; plain http leads to this machine only."""
    assert settings(base_url=given).base_url == kept


@pytest.mark.parametrize(
    "url",
    [
        "",
        "aireiter.com",
        "//aireiter.com",
        "ftp://aireiter.com",
        "https://",
        "https:///api",
        "https:aireiter.com",
        "https://aireiter.com:port",
        "https://aireiter.com:99999",
        "https://[::1",
        "https://aireiter.com /",
        "https://aireiter.com/\n",
        " https://aireiter.com",
        "https://aireiter.com/a?b=c",
        "https://aireiter.com?",
        "https://aireiter.com/?",
        "https://aireiter.com#",
        "https://aireiter.com/#a",
        "https://user@aireiter.com",
        "https://user:word@aireiter.com",
        "https://@aireiter.com",
        "https://:@aireiter.com",
        "https://evil.example\\@aireiter.com",
    ],
)
def test_a_base_url_may_not_be(url: str) -> None:
    """What is no plain absolute URL is a ValueError that names base_url."""
    with pytest.raises(ValueError, match="base_url") as caught:
        settings(base_url=url)
    assert "word" not in str(caught.value).replace("password", "")


@pytest.mark.parametrize(
    "url",
    [
        "http://aireiter.com",
        "HTTP://aireiter.com",
        "http://10.0.0.1",
        "http://0.0.0.0",
        "http://127.0.0.1.example.com",
        "http://localhost.example.com",
        "http://notlocalhost",
        "http://[2001:db8::1]",
        "http://127。0。0。1.example",
    ],
)
def test_the_key_does_not_travel_unencrypted(url: str) -> None:
    """http:// to another machine is rejected, unless allowed by name."""
    with pytest.raises(ValueError, match=r"unencrypted.*allow_http=True"):
        settings(base_url=url)
    assert settings(base_url=url, allow_http=True).base_url == url


def test_http_may_come_from_the_environment_no_more_than_from_an_argument(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """AIREITER_BASE_URL is checked like base_url."""
    monkeypatch.setenv("AIREITER_BASE_URL", "http://aireiter.com")
    with pytest.raises(ValueError, match="unencrypted"):
        settings()


@pytest.mark.parametrize("option", ["timeout", "connect_timeout", "max_rate"])
@pytest.mark.parametrize("value", [0, -1, -0.5, float("nan"), float("inf"), float("-inf")])
def test_numbers_are_positive(option: str, value: float) -> None:
    """A time or rate that is not above 0 and finite is a ValueError that names it."""
    with pytest.raises(ValueError, match=f"^{option} must be"):
        settings(**{option: value})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("timeout", "5"),
        ("timeout", None),
        ("timeout", True),
        ("connect_timeout", [5]),
        ("connect_timeout", None),
        ("max_rate", "5"),
        ("max_rate", False),
        ("max_concurrency", "5"),
        ("max_concurrency", 5.0),
        ("max_concurrency", True),
        ("max_concurrency", None),
        ("retry", None),
        ("retry", 3),
        ("polling", None),
        ("polling", RetryPolicy()),
        ("base_url", b"https://aireiter.com"),
        ("base_url", 5),
        ("user_agent", b"me"),
        ("allow_http", "no"),
        ("allow_http", None),
        ("session", "session"),
        ("session", object()),
    ],
)
def test_options_have_types(option: str, value: Any) -> None:
    """An option of a wrong type is a TypeError that names it."""
    with pytest.raises(TypeError, match=f"^{option} must be"):
        settings(**{option: value})


@pytest.mark.parametrize("value", [0, -1])
def test_at_least_one_exchange_at_a_time(value: int) -> None:
    """max_concurrency is at least 1."""
    with pytest.raises(ValueError, match=r"^max_concurrency must be at least 1"):
        settings(max_concurrency=value)


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "a\r\nX: y", "agent ü", "\x00"])
def test_a_user_agent_may_not_be(name: str) -> None:
    """A User-Agent that would break a header is a ValueError."""
    with pytest.raises(ValueError, match=r"^user_agent must be"):
        settings(user_agent=name)


def test_a_user_agent_may_be() -> None:
    """Any printable line is kept as the User-Agent."""
    assert settings(user_agent="my-app/1.0 (a; b)").user_agent == "my-app/1.0 (a; b)"


def test_options_that_are_not_known() -> None:
    """An option that does not exist is a TypeError."""
    with pytest.raises(TypeError, match="time_out"):
        settings(time_out=5)


def test_all_but_the_key_is_named() -> None:
    """No argument but the key may be given by position."""
    with pytest.raises(TypeError):
        AsyncClient(KEY, "https://aireiter.com")  # type: ignore[call-arg]


def test_the_key_is_not_shown() -> None:
    """Neither the client nor its settings show the key."""
    client = AsyncClient(KEY)
    assert repr(client) == "<AsyncClient of https://aireiter.com>"
    assert KEY not in f"{client} {client._settings!r} {client._settings} {client.stats}"
    assert "***" in repr(client._settings)


def test_settings_are_read_without_a_client() -> None:
    """The settings are a value of their own, which a view is made of again."""
    given: dict[str, Any] = {
        "api_key": KEY,
        "base_url": "https://relay.example",
        "timeout": 5,
        "connect_timeout": 1,
        "retry": RetryPolicy(attempts=2),
        "polling": PollPolicy(grace=1),
        "user_agent": "me",
        "allow_http": True,
        "max_image_side": 1280,
    }
    made = read_settings(**given)
    assert {name: getattr(made, name) for name in given} == given
