"""How a command reaches the service."""

from typing import TypedDict

from attrs import field, frozen

from aireiter_async import AsyncClient
from aireiter_async.cli._failure import usage


class Options(TypedDict):
    """The options of a client that say how it reaches the service."""

    api_key: str | None
    base_url: str | None
    user_agent: str | None
    allow_http: bool


@frozen(kw_only=True)
class Connection:
    """
    The options of every command that talks to the service.

    Attributes:
        api_key: The API key. Safer in the environment as AIREITER_API_KEY: lists
            of processes show options.
        base_url: Where the service is; else AIREITER_BASE_URL, else
            https://aireiter.com.
        user_agent: Sent in place of this package's own, should the CDN refuse that.
        allow_http: Let the key travel unencrypted, to an http:// base URL on
            another machine.
    """

    api_key: str | None = field(default=None, repr=False)
    base_url: str | None = None
    user_agent: str | None = None
    allow_http: bool = False

    def client(self) -> AsyncClient:
        """
        Make the client.

        Raises:
            UsageError: An option is missing or not as it must be.
        """
        return AsyncClient(**self.options())

    def options(self) -> Options:
        """
        Return the options of the client, which reads the environment for what is not given.

        Raises:
            UsageError: There is no key, or an option is not as it must be.
        """
        options: Options = {
            "api_key": self.api_key,
            "base_url": self.base_url,
            "user_agent": self.user_agent,
            "allow_http": self.allow_http,
        }
        with usage():
            AsyncClient(**options)  # checks them; it has no pool before it is used
        return options
