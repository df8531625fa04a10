"""aireiter_async, in each way that it can be used."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from itertools import count as counter
from pathlib import Path

from aireiter_async import AsyncClient, Ledger, SubmitRequest, models
from benchmarks.clients._run import KEY, MODEL, PARAMS, Run, by_workers


def connect(url: str, concurrency: int) -> AsyncClient:
    """Make a client of the service."""
    return AsyncClient(KEY, base_url=url, max_concurrency=concurrency)


@asynccontextmanager
async def mapping(url: str, concurrency: int) -> AsyncIterator[Run]:
    """Submit requests with a mapping of parameters, each by a call of its own."""
    async with connect(url, concurrency) as client:
        yield by_workers(lambda: client.submit(SubmitRequest(MODEL, {**PARAMS})), concurrency)


@asynccontextmanager
async def typed(url: str, concurrency: int) -> AsyncIterator[Run]:
    """Submit instances of a class of models, made and checked anew for each."""
    async with connect(url, concurrency) as client:
        yield by_workers(lambda: client.submit(models.Seedance15Pro(**PARAMS)), concurrency)


@asynccontextmanager
async def gather(url: str, concurrency: int) -> AsyncIterator[Run]:
    """Submit all at once with ``asyncio.gather``: the client's own queue holds them back."""
    numbers = counter()
    async with connect(url, concurrency) as client:

        async def run(count: int) -> None:
            await asyncio.gather(*map(client.submit, requests(count, numbers)))

        yield run


@asynccontextmanager
async def many(url: str, concurrency: int) -> AsyncIterator[Run]:
    """Submit a batch."""
    async with connect(url, concurrency) as client:
        yield batches(client, None)


@asynccontextmanager
async def ledger(url: str, concurrency: int) -> AsyncIterator[Run]:
    """Submit a batch that survives a crash; one batch after another adds to one ledger."""
    with tempfile.TemporaryDirectory() as directory:
        async with (
            connect(url, concurrency) as client,
            Ledger(Path(directory, "run.db")) as record,
        ):
            yield batches(client, record)


def batches(client: AsyncClient, record: Ledger | None) -> Run:
    """Make what submits one batch after another, each request of all of them another one."""
    numbers = counter()

    async def run(count: int) -> None:
        source = requests(count, numbers)
        async with aclosing(client.submit_many(source, ledger=record)) as outcomes:
            async for outcome in outcomes:
                assert outcome.ok, outcome.error

    return run


def requests(count: int, numbers: Iterator[int]) -> Iterator[SubmitRequest]:
    """Yield requests that differ: a ledger takes the same request at the same place for one."""
    for _ in range(count):
        yield SubmitRequest(MODEL, {**PARAMS, "prompt": f"{PARAMS['prompt']} {next(numbers)}"})
