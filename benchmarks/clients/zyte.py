"""zyte-api: ``AsyncZyteAPI.session().get``."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from zyte_api import AsyncZyteAPI

from benchmarks.clients._run import KEY, Run, by_workers


@asynccontextmanager
async def get(url: str, concurrency: int) -> AsyncIterator[Run]:
    """Extract, in a session with its own settings: they open a connection for each request."""
    client = AsyncZyteAPI(api_key=KEY, api_url=f"{url}/v1/", n_conn=concurrency)
    async with client.session() as session:
        query = {"url": "https://example.com", "httpResponseBody": True}
        yield by_workers(lambda: session.get(query), concurrency)
