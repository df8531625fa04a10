"""runwayml: ``text_to_video.create``, over httpx and over its aiohttp client."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from runwayml import AsyncRunwayML, DefaultAioHttpClient

from benchmarks.clients._run import KEY, PROMPT, Run, by_workers


@asynccontextmanager
async def over_httpx(url: str, concurrency: int) -> AsyncIterator[Run]:
    """Create a task with the default client."""
    async with AsyncRunwayML(api_key=KEY, base_url=url) as client:
        yield _run(client, concurrency)


@asynccontextmanager
async def over_aiohttp(url: str, concurrency: int) -> AsyncIterator[Run]:
    """Create a task with the client that it offers for concurrency."""
    async with AsyncRunwayML(
        api_key=KEY, base_url=url, http_client=DefaultAioHttpClient()
    ) as client:
        yield _run(client, concurrency)


def _run(client: AsyncRunwayML, concurrency: int) -> Run:
    return by_workers(
        lambda: client.text_to_video.create(
            model="veo3.1", prompt_text=PROMPT, ratio="1280:720", duration=8
        ),
        concurrency,
    )
