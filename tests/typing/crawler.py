"""A user's crawler, for type checkers: a source that pages arrive in, a picture for each."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypedDict

from aireiter_async import AsyncClient, BatchProgress, Output, TaskStatus, models


class Page(TypedDict):
    """What the crawler finds."""

    url: str
    title: str


class Picture(TypedDict):
    """What the crawler stores."""

    page: str
    files: list[str]


async def pages(queue: asyncio.Queue[Page | None]) -> AsyncIterator[Page]:
    while (page := await queue.get()) is not None:
        yield page


def request_for(page: Page) -> models.NanoBanana:
    return models.NanoBanana(prompt=page["title"], aspect_ratio="1:1")


async def show(progress: BatchProgress) -> None:
    print(progress)


async def crawl(client: AsyncClient, queue: asyncio.Queue[Page | None]) -> list[Picture]:
    pictures: list[Picture] = []
    async for outcome in client.run_many(pages(queue), request=request_for, window=8):
        page: Page = outcome.item
        task = outcome.task
        if task is not None and task.status is TaskStatus.COMPLETED:
            files: list[Path] = await client.download(task, "pictures")
            pictures.append(Picture(page=page["url"], files=[str(each) for each in files]))
    return pictures


async def animate(client: AsyncClient, output: Output) -> str | None:
    video = models.Seedance15Pro(prompt="it moves", aspect_ratio="16:9", image_url=output)
    return (await client.run(video, timeout=1800.0)).url


async def illustrate(client: AsyncClient, title: str) -> bytes:
    task = await client.run("nano_banana_v2", {"prompt": title}, on_update=print)
    return await client.read(task.outputs[0])


async def watch_requests(proxy: str) -> AsyncClient:
    client = AsyncClient(proxy=proxy, trust_env=False)
    unsubscribe: Callable[[], None] = client.subscribe(print)
    unsubscribe()
    await client.aclose()
    return client
