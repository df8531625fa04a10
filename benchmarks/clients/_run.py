"""What all clients share: the request that each makes of it what it can, and how many at once."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

Submit = Callable[[], Awaitable[object]]
Run = Callable[[int], Awaitable[None]]

KEY: Final = "sk-benchmark"
MODEL: Final = "seedance_1_5_pro"
PROMPT: Final = "A cute kitten playing under the sunlight, fluffy fur, bright eyes"
PARAMS: Final[dict[str, Any]] = {
    "prompt": PROMPT,
    "video_length": 5,
    "aspect_ratio": "16:9",
    "resolution": "720p",
}


def by_workers(submit: Submit, concurrency: int) -> Run:
    """Make of *submit* what calls it any number of times, *concurrency* at once."""

    async def run(count: int) -> None:
        left = iter(range(count))

        async def worker() -> None:
            for _ in left:
                await submit()

        await asyncio.gather(*(worker() for _ in range(min(concurrency, count))))

    return run
