"""fal-client: ``AsyncClient.submit``."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import fal_client
import fal_client.client

from benchmarks.clients._run import KEY, PARAMS, Run, by_workers


@asynccontextmanager
async def submit(url: str, concurrency: int) -> AsyncIterator[Run]:
    """Queue a request."""
    # Its host is an environment variable, its https:// is not.
    fal_client.client.QUEUE_URL_FORMAT = f"{url}/"
    client = fal_client.AsyncClient(key=KEY)
    yield by_workers(lambda: client.submit("fal-ai/video", PARAMS), concurrency)
