"""How a command reaches the service."""

from typing import TypedDict, Unpack

from attrs import field, frozen

from aireiter_async import AsyncClient
from aireiter_async.cli._failure import usage


class Sizes(TypedDict, total=False):
    """The options of a client that say how much it does at once."""

    max_concurrency: int
    max_rate: float | None


@frozen(kw_only=True)
class Connection:
    """The options of every command that talks to the service.

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

    def client(self, **sizes: Unpack[Sizes]) -> AsyncClient:
        """Make the client, which reads the environment for what is not given.

        Raises:
            UsageError: An option is missing or not as it must be.
        """
        with usage():
            return AsyncClient(
                self.api_key,
                base_url=self.base_url,
                user_agent=self.user_agent,
                allow_http=self.allow_http,
                **sizes,
            )
