"""httpx as people write it: more connections than its limits allow made it slower still."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from benchmarks.clients._run import KEY, MODEL, PARAMS, Run, by_workers


@asynccontextmanager
async def post(url: str, concurrency: int) -> AsyncIterator[Run]:
    """Post to the same path as we do."""
    async with httpx.AsyncClient(
        base_url=url, headers={"Authorization": f"Bearer {KEY}"}, timeout=120
    ) as client:

        async def submit() -> None:
            body = {"model": MODEL, "params": PARAMS, "out_task_id": "a" * 32}
            answer = await client.post("/api/openapi/submit", json=body)
            answer.raise_for_status()
            answer.json()

        yield by_workers(submit, concurrency)
