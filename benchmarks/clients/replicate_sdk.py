"""replicate: ``predictions.async_create``."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from replicate.client import Client

from benchmarks.clients._run import KEY, PARAMS, Run, by_workers


@asynccontextmanager
async def create(url: str, concurrency: int) -> AsyncIterator[Run]:
    """Create a prediction."""
    client = Client(api_token=KEY, base_url=url)
    yield by_workers(
        lambda: client.predictions.async_create(version="a" * 64, input=PARAMS), concurrency
    )
