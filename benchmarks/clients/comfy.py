"""comfy-sdk: ``AsyncComfy.submit``."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from comfy_sdk import AsyncComfy

from benchmarks.clients._run import KEY, PROMPT, Run, by_workers

_WORKFLOW = {"1": {"class_type": "CLIPTextEncode", "inputs": {"text": PROMPT}}}


@asynccontextmanager
async def submit(url: str, concurrency: int) -> AsyncIterator[Run]:
    """Submit a workflow of one node."""
    os.environ["COMFY_BASE_URL"] = url
    async with AsyncComfy(api_key=KEY) as client:
        workflow = client.workflows.from_json(_WORKFLOW)
        yield by_workers(lambda: client.submit(workflow), concurrency)
