"""Repeated calls leave no descriptors, tasks or memory behind."""

import asyncio
import gc
import tracemalloc
from pathlib import Path

import pytest

from aireiter_async import AsyncClient, RetryPolicy, SubmitRequest, TransportError
from aireiter_async.testing import FakeService, Fault

DESCRIPTORS = Path("/proc/self/fd")
NO_PROC = pytest.mark.skipif(not DESCRIPTORS.exists(), reason="there is no /proc here")


def descriptors() -> int:
    return len(list(DESCRIPTORS.iterdir()))


def memory() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


@NO_PROC
async def test_opened_and_closed_clients() -> None:
    async with FakeService(record=False) as service:

        async def use(times: int) -> None:
            for n in range(times):
                async with AsyncClient(service.api_key, base_url=service.url) as client:
                    if n % 4 == 0:
                        await client.balance()

        await use(8)
        tracemalloc.start()
        try:
            before, held = descriptors(), memory()
            await use(500)
            for _ in range(8):
                await asyncio.sleep(0)
            after, grown = descriptors(), memory() - held
        finally:
            tracemalloc.stop()
        # Connections that the service has not yet seen closed are its own.
        assert after <= before + service.connections + 8
        assert grown < 150_000
        assert len([task for task in asyncio.all_tasks() if "aireiter" in repr(task)]) <= 1


async def churn(submits: int) -> tuple[int, int]:
    """Submit through faults and retries; return how many bytes and descriptors are in use since."""
    faults = {
        Fault.lost_response(): 0.01,
        Fault.lost_response(accepted=True): 0.01,
        Fault.html(502): 0.01,
        Fault.too_many_requests(0): 0.0,
    }
    async with (
        FakeService(record=False, faults=faults) as service,
        AsyncClient(
            service.api_key,
            base_url=service.url,
            max_concurrency=16,
            retry=RetryPolicy(base=0, settle=0),
        ) as client,
    ):

        async def work(times: int) -> None:
            for _ in range(times // 16):
                await client.submit(SubmitRequest("veo3_1", {}))

        async def all_work(times: int) -> None:
            await asyncio.gather(*(work(times) for _ in range(16)))
            # What the service remembers is its own.
            service._account.tasks.clear()
            service._api.posts.clear()
            service.charges.clear()

        await all_work(800)
        tracemalloc.start()
        try:
            await all_work(400)
            held, before = memory(), descriptors()
            await all_work(submits)
            return memory() - held, descriptors() - before
        finally:
            tracemalloc.stop()


@NO_PROC
async def test_submits() -> None:
    grown, opened = await churn(800)
    assert grown < 150_000
    assert opened <= 16


async def test_failures_leave_no_garbage() -> None:
    """Errors do not keep bodies and frames alive in reference cycles."""
    async with (
        FakeService(record=False) as service,
        AsyncClient(service.api_key, base_url=service.url, retry=RetryPolicy(attempts=1)) as client,
    ):

        async def fail() -> None:
            service.script("balance", Fault.truncated())
            [error] = await asyncio.gather(client.balance(), return_exceptions=True)
            assert isinstance(error, TransportError)

        def held() -> int:
            return sum(isinstance(each, TransportError) for each in gc.get_objects())

        await fail()
        gc.collect()
        gc.disable()
        try:
            before = held()
            for _ in range(50):
                await fail()
            after = held()
        finally:
            gc.enable()
        assert after <= before + 1
