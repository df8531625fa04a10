"""run and submit: deadlines, IDs that are never lost, and IDs that others have used."""

import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from itertools import product
from typing import Any

import pytest

from aireiter_async import (
    AmbiguousSubmitError,
    AsyncClient,
    IDInUseError,
    PollPolicy,
    RequestTimeoutError,
    RetryPolicy,
    SubmitRequest,
    Task,
    TaskFailedError,
    TaskStatus,
    TaskTimeoutError,
    models,
)
from aireiter_async.testing import FakeService, Fault
from tests.hostile_time import Clock, skip_idle_time

Connect = Callable[..., AsyncClient]
Until = Callable[[Callable[[], object]], Awaitable[None]]

SUBMIT, QUERY = "/api/openapi/submit", "/api/openapi/query"
SOON = 0.4  # seconds: a request arrives well before that
USED = ["return", "reject"]


def request(**options: Any) -> SubmitRequest:
    return SubmitRequest("veo3_1", {"prompt": "a kitten"}, **options)


async def test_a_deadline_in_the_queue_submits_nothing(
    service: FakeService, connect: Connect, until: Until
) -> None:
    client = connect(max_concurrency=1)
    service.script("balance", Fault.hang())
    holder = asyncio.create_task(client.balance())
    await until(lambda: service.in_flight)
    wanted = request()
    with pytest.raises(RequestTimeoutError, match="not submitted within") as caught:
        await client.run(wanted, timeout=SOON)
    assert caught.value.out_task_id == wanted.out_task_id
    assert SUBMIT not in service.counts
    holder.cancel()
    await asyncio.wait([holder])


@pytest.mark.parametrize("fault", ["429", "refused"])
async def test_a_deadline_while_nothing_is_in_flight_submits_nothing(
    service: FakeService, connect: Connect, clock: Clock, fault: str
) -> None:
    client = connect(retry=RetryPolicy(base=5))
    if fault == "429":
        service.script("submit", Fault.too_many_requests(60))
    else:
        await service.close()
    clock.held = True
    with pytest.raises(RequestTimeoutError, match="not submitted within"):
        await client.run(request(), timeout=SOON)
    assert (service.charges, service.counts[QUERY]) == ([], 0)


@pytest.mark.parametrize("duration", [0, 100])
async def test_a_deadline_with_a_submit_in_flight_asks_for_the_task(
    service: FakeService, client: AsyncClient, duration: float
) -> None:
    service.durations = duration
    service.script("submit", Fault.hang(accepted=True))
    wanted = request()
    if duration:
        with pytest.raises(TaskTimeoutError) as caught:
            await client.run(wanted, timeout=SOON)
        assert caught.value.task.out_task_id == wanted.out_task_id
    else:
        assert (await client.run(wanted, timeout=SOON)).succeeded
    assert service.counts == {SUBMIT: 1, QUERY: 1}
    assert client.stats.submitted == client.stats.settled == 1


async def test_a_deadline_with_a_submit_in_flight_and_a_failed_task(
    service: FakeService, client: AsyncClient
) -> None:
    service.script("submit", Fault.hang(accepted=True))
    service.script("query", Fault.failed("NSFW", "no"))
    with pytest.raises(TaskFailedError, match="NSFW"):
        await client.run(request(), timeout=SOON)


@pytest.mark.parametrize("query", ["not found", "500", "hang"])
async def test_a_deadline_with_a_submit_in_flight_that_cannot_be_settled(
    service: FakeService, connect: Connect, query: str
) -> None:
    faults = {"not found": Fault.not_found(), "500": Fault.server_error(), "hang": Fault.hang()}
    service.script("submit", Fault.hang())
    service.script("query", faults[query])
    wanted = request()
    client = connect(timeout=2 * SOON)
    with pytest.raises(AmbiguousSubmitError, match="no response within") as caught:
        await client.run(wanted, timeout=SOON)
    assert caught.value.out_task_id == wanted.out_task_id
    assert service.counts == {SUBMIT: 1, QUERY: 1}


async def test_an_attempt_that_times_out_is_no_deadline(
    service: FakeService, connect: Connect
) -> None:
    service.script("submit", *[Fault.hang()] * 9)
    skip_idle_time()
    client = connect(timeout=20, retry=RetryPolicy(attempts=2, base=0, settle=0))
    with pytest.raises(AmbiguousSubmitError, match="no attempt was confirmed"):
        await client.run(request(), timeout=60)


async def test_the_deadline_covers_submit_and_wait(
    service: FakeService, connect: Connect, slept: list[float]
) -> None:
    service.durations = 100
    service.script("submit", Fault.too_many_requests(20))
    client = connect(polling=PollPolicy(first=30, step=30, growth=1, jitter=0))
    with pytest.raises(TaskTimeoutError):
        await client.run(request(), timeout=70)
    assert sum(slept) == pytest.approx(70, abs=1)


ENDS: dict[str, str] = {
    "queued": "was not submitted",
    "in flight": "may have been submitted",
    "settling": "may have been submitted",
    "polling": "was accepted and keeps running",
    "updating": "was accepted and keeps running",
}


@pytest.mark.parametrize("how", ["cancelled", "timed out"])
@pytest.mark.parametrize("when", ENDS)
async def test_a_call_that_is_ended_names_the_task(
    service: FakeService, connect: Connect, clock: Clock, until: Until, when: str, how: str
) -> None:
    client = connect(max_concurrency=1, polling=PollPolicy(first=1000))
    clock.held = when in {"settling", "polling"}
    holder = None
    if when == "queued":
        service.script("balance", Fault.hang())
        holder = asyncio.create_task(client.balance())
        await until(lambda: service.in_flight)
    elif when == "in flight":
        service.script("submit", Fault.hang(accepted=True))
    elif when == "settling":
        service.script("submit", Fault.lost_response())
        service.script("query", Fault.hang())
    wanted = models.Seedance15Pro(prompt="a kitten", aspect_ratio="16:9")

    async def update(_task: Task) -> None:
        if when == "updating":
            await asyncio.Event().wait()

    running = asyncio.create_task(client.run(wanted, out_task_id="mine", on_update=update))
    await until(lambda: _is_there(client, service, when))
    if how == "timed out":
        with pytest.raises(TimeoutError) as timeout:
            await asyncio.wait_for(running, 0)
        ended = timeout.value.__cause__
    else:
        running.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await running
        ended = caught.value
    assert ended is not None
    assert any(f"task mine {ENDS[when]}" in note for note in ended.__notes__)
    if holder is not None:
        holder.cancel()
        await asyncio.wait([holder])


def _is_there(client: AsyncClient, service: FakeService, when: str) -> bool:
    if when == "queued":
        return client.stats.waiting > 0
    if when in {"polling", "updating"}:
        return client.stats.submitted > 0
    return service.counts[QUERY if when == "settling" else SUBMIT] > 0


async def test_what_on_update_raises_names_the_task(client: AsyncClient) -> None:
    def update(_task: Task) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError) as caught:
        await client.run(request(), out_task_id="mine", on_update=update)
    assert caught.value.__notes__ == ["task mine was accepted and keeps running"]


async def test_the_id_is_logged_before_anything_is_sent(
    service: FakeService, client: AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    service.script("submit", Fault.hang(accepted=True))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client.submit(models.NanoBananaV2(prompt="a kitten")), SOON)
    [charge] = service.charges
    [record] = [each for each in caplog.records if charge.out_task_id in each.getMessage()]
    assert record.levelno == logging.DEBUG


@pytest.mark.parametrize("verb", ["submit", "run"])
async def test_a_model_name_and_its_params(
    service: FakeService, client: AsyncClient, verb: str
) -> None:
    call = getattr(client, verb)
    task = await call("nano_banana_v2", {"prompt": "a kitten"})
    assert (task.model, service.requests[0].body["params"]["prompt"]) == (
        "nano_banana_v2",
        "a kitten",
    )
    assert (await call("brand_new", {"whatever": 1})).model == "brand_new"
    before = len(service.requests)
    with pytest.raises(models.InvalidParamsError):
        await call("nano_banana_v2", {"promt": "a kitten"})
    with pytest.raises(ValueError, match="give it as out_task_id"):
        await call("nano_banana_v2", {"prompt": "a kitten"}, maybe_sent=True)
    assert len(service.requests) == before


async def test_find(service: FakeService, client: AsyncClient) -> None:
    task = await client.submit(request())
    service.visible_after_polls = 2
    found = await client.find(task)
    assert found is not None
    assert found.out_task_id == task.out_task_id
    assert await client.find("nobody") is None


async def test_find_asks_for_as_long_as_settle(connect: Connect, slept: list[float]) -> None:
    assert await connect(retry=RetryPolicy(settle=5)).find("nobody") is None
    assert sum(slept) == pytest.approx(5)


def test_counting_tasks_once_takes_bounded_memory() -> None:
    """A promise that only private state shows: the IDs counted last are remembered."""
    shared = AsyncClient("sk-test-0123")._shared
    for n in range(20_000):
        shared.note_done(Task(str(n), TaskStatus.COMPLETED))
    shared.note_done(Task("19999", TaskStatus.COMPLETED))
    assert shared.counters.completed == 20_000
    assert len(shared._done) == 10_000


async def test_aclose_closes(client: AsyncClient) -> None:
    await client.aclose()
    with pytest.raises(RuntimeError, match="closed"):
        await client.balance()


@pytest.mark.parametrize(("verb", "used_id"), [*product(["run"], USED), ("submit", "reject")])
async def test_an_id_of_an_earlier_request(
    service: FakeService, client: AsyncClient, verb: str, used_id: Any
) -> None:
    """An old result is never returned for a new request."""
    service.used_id = used_id
    await client.run(request(out_task_id="1"))
    other = SubmitRequest("veo3_1", {"prompt": "a dog"}, "1")
    with pytest.raises(IDInUseError) as caught:
        await getattr(client, verb)(other)
    assert caught.value.out_task_id == "1"
    assert len(service.charges) == 1


@pytest.mark.parametrize("other", [("veo3_1", "a dog"), ("sora2", "a kitten")])
async def test_an_id_of_a_task_that_still_runs(
    service: FakeService, connect: Connect, other: tuple[str, str]
) -> None:
    service.used_id, service.durations = "return", 100
    client = connect(polling=PollPolicy(first=1, step=1))
    await client.submit(request(out_task_id="1"))
    wanted = SubmitRequest(other[0], {"prompt": other[1]}, "1")
    with pytest.raises(IDInUseError, match="belongs to an earlier request"):
        await client.run(wanted)
    service.script("submit", Fault.lost_response())
    with pytest.raises(IDInUseError):
        await client.submit(wanted)
    with pytest.raises(IDInUseError):
        await client.submit(wanted, maybe_sent=True)
    assert len(service.charges) == 1


@pytest.mark.parametrize("chosen", [False, True])
async def test_a_submit_that_is_answered_with_a_task_that_has_ended(
    service: FakeService, client: AsyncClient, *, chosen: bool
) -> None:
    """A chosen ID has been used before; of a generated one, the task is ours anyway."""
    data = '{"statusCode":200,"data":{"status":"completed","output":[{"url":"https://a.b/c.png"}]}}'
    service.script("submit", Fault.reply(200, data, accepted=True))
    if not chosen:
        assert (await client.submit(request())).url == "https://a.b/c.png"
        return
    with pytest.raises(IDInUseError, match="already completed"):
        await client.submit(request(out_task_id="1"))


async def test_what_came_back_is_said(service: FakeService, client: AsyncClient) -> None:
    service.script("submit", *[Fault.server_error()] * 9)
    with pytest.raises(AmbiguousSubmitError) as caught:
        await client.submit(request())
    assert "(code 500" in str(caught.value)


async def test_a_large_body_is_encoded_in_a_thread(
    service: FakeService, client: AsyncClient
) -> None:
    image = "data:image/png;base64," + "iVBORw0K" * 20_000
    task = await client.submit(SubmitRequest("veo3_1", {"image_url": image}))
    assert service.requests[0].body["params"]["image_url"] == image
    assert [charge.out_task_id for charge in service.charges] == [task.out_task_id]


CALLS = [
    "client.run(request)",
    "client.query(task)",
    "client.wait(task)",
    "client.submit(request)",  # whose response is lost: it is settled
    "client.submit('nano_banana_v2', {'prompt': 'a kitten'})",
    "client.read(Output(text='a kitten'))",
    "last(client.run_many([('nano_banana_v2', {'prompt': 'a kitten'})]))",
    "last(client.submit_many([request], max_credits=9))",
]
IMPORTS = """
import asyncio, os, sys, threading

class Finder:
    threads = {}
    def find_spec(self, name, path=None, target=None):
        self.threads[name] = threading.current_thread()

sys.meta_path.insert(0, Finder())
from aireiter_async import AsyncClient, Output, PollPolicy, SubmitRequest
from aireiter_async.testing import FakeService, Fault

async def last(batch):
    Finder.threads.clear()  # of the module of batches, on the call
    async for outcome in batch:
        outcome.result()

async def main(call):
    async with FakeService() as service, AsyncClient(
        service.api_key, base_url=service.url, polling=PollPolicy(first=0, step=0)
    ) as client:
        request = SubmitRequest("nano_banana_v2", {"prompt": "a kitten"})
        if "task" in call:
            task = await client.submit(request)
        elif "request" in call:
            service.script("submit", Fault.lost_response(accepted=True))
        Finder.threads.clear()
        await eval(call)

for call in sys.argv[1:]:
    if not os.fork():
        asyncio.run(main(call))
        main_thread, threads = threading.main_thread(), Finder.threads
        ours = [each for each in threads if each.startswith("aireiter_async.")]
        assert {"aireiter_async.models.images", "aireiter_async._media"} & {*ours}
        print(*(each for each in ours if threads[each] is main_thread), flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_nothing_is_imported_on_the_event_loop() -> None:
    """The catalogue alone takes a tenth of a second or more, in which nothing else would happen."""
    done = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-c", IMPORTS, *CALLS],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.splitlines() == [""] * len(CALLS)
