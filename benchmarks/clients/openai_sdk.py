"""openai: ``images.generate``, over httpx and over its aiohttp client."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from openai import AsyncOpenAI, DefaultAioHttpClient

from benchmarks.clients._run import KEY, PROMPT, Run, by_workers


@asynccontextmanager
async def over_httpx(url: str, concurrency: int) -> AsyncIterator[Run]:
    """Generate with the default client."""
    async with AsyncOpenAI(api_key=KEY, base_url=f"{url}/v1") as client:
        yield _run(client, concurrency)


@asynccontextmanager
async def over_aiohttp(url: str, concurrency: int) -> AsyncIterator[Run]:
    """Generate with the client that it offers for concurrency."""
    async with AsyncOpenAI(
        api_key=KEY, base_url=f"{url}/v1", http_client=DefaultAioHttpClient()
    ) as client:
        yield _run(client, concurrency)


def _run(client: AsyncOpenAI, concurrency: int) -> Run:
    return by_workers(
        lambda: client.images.generate(model="gpt-image-1", prompt=PROMPT, size="1024x1024"),
        concurrency,
    )
