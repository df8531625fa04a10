"""google-genai: ``aio.models.generate_content``, of an image model."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from google import genai
from google.genai import types

from benchmarks.clients._run import KEY, PROMPT, Run, by_workers


@asynccontextmanager
async def generate(url: str, concurrency: int) -> AsyncIterator[Run]:
    """Generate: videos, its call that returns at once, need another platform and its login."""
    client = genai.Client(api_key=KEY, http_options=types.HttpOptions(base_url=url))
    yield by_workers(
        lambda: client.aio.models.generate_content(model="gemini-image", contents=PROMPT),
        concurrency,
    )
    await client.aio.aclose()
