"""Many calls at once: bounded, in order, each with its full timeout, at the accepted rate."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest

from aireiter_async import (
    AireiterError,
    AsyncClient,
    RetryPolicy,
    ServerError,
    SubmitRequest,
    TaskStatus,
)
from aireiter_async.testing import FakeService, Fault
from tests.hostile_time import Clock, leaping, skip_idle_time

Connect = Callable[..., AsyncClient]
Until = Callable[[Callable[[], object]], Awaitable[None]]


def request() -> SubmitRequest:
    return SubmitRequest("veo3_1", {"prompt": "a kitten"})


def has_received(service: FakeService, submits: int) -> bool:
    return service.counts["/api/openapi/submit"] == submits


async def test_a_thousand_submits_over_fifty_connections(until: Until) -> None:
    """The last of 1,000 submits queue for 20 minutes; their timeout of 100 s starts with a slot."""
    leap = leaping()
    late = {Fault.delay(60).on("submit"): 1.0}
    async with (
        FakeService(faults=late, record=False) as service,
        AsyncClient(
            service.api_key,
            base_url=service.url,
            max_concurrency=50,
            timeout=100,
            retry=RetryPolicy(attempts=1, resubmit=False),
        ) as client,
    ):
        submits = [asyncio.create_task(client.submit(request())) for _ in range(1000)]
        for arrived in range(50, 1001, 50):
            await until(partial(has_received, service, arrived))
            leap(60)
        tasks = await asyncio.gather(*submits)
        assert {task.status for task in tasks} == {TaskStatus.PENDING}
        assert len({charge.out_task_id for charge in service.charges}) == 1000
        assert len(service.charges) == 1000
        assert service.peak_connections <= 50
        assert service.peak_in_flight <= 50
        stats = client.stats
        assert (stats.requests, stats.retries) == (1000, 0)
        assert (stats.in_flight, stats.waiting) == (0, 0)


async def test_the_queue_is_first_in_first_out(
    service: FakeService, connect: Connect, until: Until
) -> None:
    client = connect(max_concurrency=1)
    service.script("balance", Fault.hang())
    holder = asyncio.create_task(client.balance())
    await until(lambda: service.in_flight)
    wanted = [request() for _ in range(20)]
    queued = [asyncio.create_task(client.submit(each)) for each in wanted]
    await until(lambda: client.stats.waiting == 20)
    holder.cancel()
    await asyncio.gather(*queued)
    assert [charge.out_task_id for charge in service.charges] == [
        each.out_task_id for each in wanted
    ]
    assert service.peak_connections <= 2


async def test_a_slot_is_free_while_its_caller_backs_off(
    service: FakeService, connect: Connect, until: Until
) -> None:
    client = connect(max_concurrency=1)
    service.script("balance", Fault.reply(503, "{}", headers={"Retry-After": "100"}))
    waiting = asyncio.create_task(client.balance())
    await until(lambda: client.stats.retries)
    assert client.stats.in_flight == 0
    assert (await client.balance()).credits == 1_000_000
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_429_holds_up_only_its_own_call(
    service: FakeService, connect: Connect, clock: Clock, until: Until
) -> None:
    client = connect(max_concurrency=1)
    service.script("submit", Fault.too_many_requests(100))
    clock.held = True
    rejected = asyncio.create_task(client.submit(request()))
    await until(lambda: client.stats.retries)
    assert client.stats.rate is None
    assert (await client.balance()).credits == 1_000_000
    rejected.cancel()
    await asyncio.wait([rejected])


async def test_a_run_of_429s_pauses_the_whole_client(
    service: FakeService, connect: Connect, clock: Clock, until: Until
) -> None:
    """After five rejected calls, the next one waits as long, even that of a view."""
    client = connect(max_concurrency=5)
    service.script("submit", *[Fault.too_many_requests(100)] * 5)
    clock.held = True
    rejected = [asyncio.create_task(client.submit(request())) for _ in range(5)]
    await until(lambda: client.stats.retries == 5)
    assert client.stats.rate is not None
    assert (client.stats.rate_limited, client.stats.in_flight) == (5, 0)
    for each in rejected:
        each.cancel()
    await asyncio.wait(rejected)
    clock.held = False
    await client.with_options(timeout=5).balance()
    assert sum(clock.slept) == pytest.approx(100, abs=1)


async def test_the_rate_grows_back(service: FakeService, client: AsyncClient) -> None:
    """Accepted requests raise a rate that was cut."""
    service.script("balance", *[Fault.too_many_requests(0)] * 5)
    await asyncio.gather(*(client.balance() for _ in range(5)))
    cut = client.stats.rate
    assert cut is not None
    for _ in range(60):
        await client.balance()
    assert client.stats.rate is None or client.stats.rate > 2 * cut


async def test_many_rejections_at_once_are_one_cut(service: FakeService, connect: Connect) -> None:
    """Requests that were sent before the cut say nothing about the new rate."""
    client = connect(max_concurrency=20)
    service.script("balance", *[Fault.too_many_requests(0)] * 20)
    balances = await asyncio.gather(*(client.balance() for _ in range(20)))
    assert len(balances) == 20
    assert client.stats.rate_limited == 20
    assert client.stats.retries == 20


async def test_the_rate_that_the_service_accepts_is_found(
    connect: Connect, slept: list[float]
) -> None:
    """Even if the service has no latency."""
    clock = connect()._shared.throttle._clock
    async with FakeService(max_rate=20, clock=clock) as service:
        client = connect(
            base_url=service.url, max_concurrency=10, retry=RetryPolicy(base=0, attempts=50)
        )
        began = clock()
        await asyncio.gather(*(client.balance() for _ in range(300)))
        assert 13 < clock() - began < 60
        assert service.rejections[429] < 150
        assert len(slept) > 20


async def test_max_rate_is_kept(service: FakeService, connect: Connect, slept: list[float]) -> None:
    """With max_rate, requests are evenly spaced."""
    client = connect(max_rate=2)
    assert client.stats.rate == 2
    await asyncio.gather(*(client.balance() for _ in range(21)))
    assert sum(slept) == pytest.approx(10, rel=0.05)
    assert service.rejections == {}


async def test_a_rate_is_not_for_results(
    service: FakeService, connect: Connect, slept: list[float], tmp_path: Path
) -> None:
    """Downloads go to other hosts: the API's rate does not hold them up."""
    service.outputs = 5
    client = connect(max_rate=0.01)
    task = await client.run(request())
    assert slept
    slept.clear()
    await client.download(task, tmp_path)
    assert slept == []


async def test_all_who_queue_can_be_cancelled(
    service: FakeService, connect: Connect, until: Until
) -> None:
    """Cancelling 500 calls, in flight and in the queue, leaves the client usable."""
    client = connect(max_concurrency=5)
    service.script("submit", *[Fault.hang()] * 5)
    calls = [asyncio.create_task(client.submit(request())) for _ in range(500)]
    await until(lambda: service.in_flight == 5)
    assert client.stats.waiting == 495
    for call in calls:
        call.cancel()
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(end, asyncio.CancelledError) for end in ends)
    assert (client.stats.in_flight, client.stats.waiting) == (0, 0)
    await until(lambda: service.connections == 0)
    await asyncio.gather(*(client.submit(request()) for _ in range(20)))
    assert len(service.charges) == 20


async def test_some_who_queue_are_cancelled_as_others_leave(
    service: FakeService, connect: Connect, until: Until
) -> None:
    """Cancelling every second call does not affect the others."""
    client = connect(max_concurrency=3)
    calls = [asyncio.create_task(client.submit(request())) for _ in range(120)]
    for turn, call in enumerate(calls):
        if turn % 2:
            call.cancel()
        await asyncio.sleep(0)
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert not any(isinstance(end, BaseException) for end in ends[::2])
    assert (client.stats.in_flight, client.stats.waiting) == (0, 0)
    assert service.peak_in_flight <= 3
    service.script("balance", *[Fault.hang()] * 3)
    three = [asyncio.create_task(client.balance()) for _ in range(3)]
    await until(lambda: service.in_flight == 3)
    for each in three:
        each.cancel()
    await asyncio.gather(*three, return_exceptions=True)


async def test_every_way_to_fail_gives_the_slot_back(
    service: FakeService, connect: Connect
) -> None:
    skip_idle_time()
    client = connect(max_concurrency=1, retry=RetryPolicy(attempts=1), timeout=20)
    faults = [
        Fault.truncated(), Fault.broken_json(), Fault.html(502), Fault.server_error(),
        Fault.no_data(), Fault.hang(), Fault.redirect(), Fault.bad_request("no"),
        Fault.too_many_requests(0), Fault.reply(401, '{"error":{"code":401}}'),
    ]  # fmt: skip
    service.script("balance", *(each for fault in faults for each in (fault, Fault.ok())))
    for _ in faults:
        with pytest.raises(AireiterError):
            await client.balance()
        assert (await client.balance()).credits == 1_000_000
    assert client.stats.requests == 2 * len(faults)


async def test_views_share_the_slots(service: FakeService, connect: Connect) -> None:
    client = connect(max_concurrency=4)
    views = [client.with_options(timeout=seconds) for seconds in (5, 10, 15)]
    await asyncio.gather(*(each.submit(request()) for each in [client, *views] * 25))
    assert service.peak_in_flight <= 4
    assert service.peak_connections <= 4
    assert client.stats.submitted == 100


async def test_an_overloaded_service_does_not_use_up_the_attempts(connect: Connect) -> None:
    """Calls in the queue keep their attempts while the service rejects everything."""
    clock = connect()._shared.throttle._clock
    began = clock()
    async with FakeService(max_rate=5, burst=1, clock=clock) as service:
        client = connect(
            base_url=service.url, max_concurrency=4, retry=RetryPolicy(base=0, attempts=12)
        )
        tasks = await asyncio.gather(*(client.submit(request()) for _ in range(100)))
        assert len(tasks) == len(service.charges) == 100
        assert clock() > began


async def test_an_error_is_each_callers_own(service: FakeService, connect: Connect) -> None:
    client = connect(retry=RetryPolicy(attempts=1))
    service.script("balance", Fault.server_error(), Fault.ok(), Fault.server_error(503))
    ends = await asyncio.gather(*(client.balance() for _ in range(30)), return_exceptions=True)
    failed = [end for end in ends if isinstance(end, BaseException)]
    assert sorted(end.code for end in failed if isinstance(end, ServerError)) == [500, 503]
    assert len(failed) == 2
