"""Wait: patient with the network, light on the service, and never wrong about a task."""

import asyncio
import itertools
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from aireiter_async import (
    AireiterError,
    APIError,
    AsyncClient,
    AuthenticationError,
    ConnectError,
    InsufficientCreditsError,
    PollPolicy,
    ProtocolError,
    RateLimitError,
    RequestTimeoutError,
    ResultMissingError,
    RetryPolicy,
    ServerError,
    SubmitRequest,
    Task,
    TaskFailedError,
    TaskNotFoundError,
    TaskStatus,
    TaskTimeoutError,
    events,
    models,
)
from aireiter_async.testing import FakeService, Fault
from tests.faults import AMBIGUOUS, PASSING
from tests.hostile_steps import Sweep, cancel_at
from tests.hostile_time import skip_idle_time

Connect = Callable[..., AsyncClient]
Until = Callable[[Callable[[], object]], Awaitable[None]]

QUERY = "/api/openapi/query"
ELSEWHERE = {
    "HTML 403": Fault.html(403),
    "HTML 404": Fault.html(404),
    "JSON 404": Fault.reply(404, '{"message":"no Route matched with those values"}'),
    "418": Fault.reply(418, "{}"),
}
LONG = 3600.0  # longer than a test may take
EACH_SECOND = PollPolicy(first=1, step=1, growth=1, jitter=0, grace=0)

RESULT = [{"url": "https://a.example/1.mp4"}]


def reply(**data: Any) -> Fault:
    """Make a query's response."""
    return Fault.reply(200, json.dumps({"statusCode": 200, "data": data}))


def request(**options: Any) -> SubmitRequest:
    """Make a request with an ID of its own."""
    return SubmitRequest("veo3_1", {"prompt": "a kitten"}, **options)


async def collect(items: AsyncIterator[Task], seen: list[Task]) -> None:
    """Add all items to *seen*."""
    async for item in items:
        seen.append(item)  # noqa: PERF401 - those before an error, too


async def test_a_task_that_completes_is_returned(service: FakeService, client: AsyncClient) -> None:
    service.durations, service.price = 30, 2.5
    task = await client.with_options(polling=EACH_SECOND).run(request())
    assert task.status is TaskStatus.COMPLETED
    assert task.credits_used == 2.5
    assert [output.kind for output in task.outputs] == ["video"]
    assert task.outputs[0].url is not None
    assert task.outputs[0].url.startswith(service.results_url)
    assert task.raw["data"]["output"][0]["url"] == task.outputs[0].url


async def test_what_only_the_submit_said_is_kept(service: FakeService, client: AsyncClient) -> None:
    service.price = 2.5
    submitted = await client.submit(request())
    service.script("query", reply(status="completed", output=RESULT))
    task = await client.wait(submitted)
    assert task.status is TaskStatus.COMPLETED
    assert task.estimated_credits == 2.5
    assert task.model == "veo3_1"
    assert task.created_at == submitted.created_at is not None


@pytest.mark.parametrize("asked_by", ["task", "id"])
async def test_a_task_that_failed_is_an_error(
    service: FakeService, client: AsyncClient, asked_by: str
) -> None:
    """A failed task raises the service's code and message, with the task."""
    service.script("submit", Fault.failed("NSFW", "not allowed, 不允许"))
    task = await client.submit(request())
    with pytest.raises(TaskFailedError, match="NSFW: not allowed, 不允许") as caught:
        await client.wait(task if asked_by == "task" else task.out_task_id)
    error = caught.value
    assert (error.failure_code, error.message) == ("NSFW", "not allowed, 不允许")
    assert (error.out_task_id, error.task.status) == (task.out_task_id, TaskStatus.FAILED)
    assert error.task.raw["data"]["error"]["code"] == "NSFW"
    assert (client.stats.completed, client.stats.failed) == (0, 1)


async def test_unknown_statuses_run_on(
    service: FakeService, client: AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    """A status that is unknown means still running, and is logged with its word."""
    service.script("query", Fault.task_status("archiving"), Fault.task_status("archiving"))
    task = await client.run(request())
    assert task.status is TaskStatus.COMPLETED
    warnings = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "archiving" in warnings[0]
    assert task.out_task_id in warnings[0]


async def test_an_unknown_status_is_logged_where_only_the_id_was_known(
    service: FakeService, client: AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    """A wait for an ID logs a status that is unknown, and tells on_update of it."""
    out_task_id = (await client.submit(request())).out_task_id
    service.script("query", Fault.task_status("archiving"))
    seen: list[Task] = []
    await client.wait(out_task_id, on_update=seen.append)
    assert [task.status for task in seen] == [TaskStatus.UNKNOWN, TaskStatus.COMPLETED]
    assert "archiving" in caplog.text


async def test_an_unknown_status_does_not_log_the_whole_reply(
    service: FakeService, client: AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    """The log of a status that is unknown stays short when the reply repeats the input."""
    fault = reply(created_at="?", input={"image": "x" * 10_000}, status="archiving")
    service.script("query", fault)
    await client.run(request())
    assert "archiving" in caplog.text
    assert len(caplog.text) < 2000


@pytest.mark.parametrize("name", [*PASSING, *ELSEWHERE])
async def test_trouble_is_ridden_out(service: FakeService, client: AsyncClient, name: str) -> None:
    """A poll that fails in passing, however often, does not end the wait."""
    task = await client.submit(request())
    service.script("query", *[(PASSING | ELSEWHERE)[name]] * 8)
    assert (await client.wait(task)).status is TaskStatus.COMPLETED
    assert service.counts[QUERY] == 9


async def test_a_poll_that_hangs_is_ridden_out(service: FakeService, connect: Connect) -> None:
    """A poll that is never answered is interrupted by the client's timeout and repeated."""
    skip_idle_time()
    client = connect(timeout=20)
    task = await client.submit(request())
    service.script("query", Fault.hang())
    assert (await client.wait(task)).status is TaskStatus.COMPLETED
    assert service.counts[QUERY] == 2


async def test_a_service_that_is_away_is_ridden_out(
    service: FakeService, client: AsyncClient, until: Until
) -> None:
    """A wait continues while the service cannot be reached, and sees the task when it is back."""
    task = await client.submit(request())
    await service.close()
    waiting = asyncio.create_task(client.wait(task))
    await until(lambda: client.stats.requests > 10)
    await service.start()
    assert (await waiting).status is TaskStatus.COMPLETED


@pytest.mark.parametrize(
    ("code", "kind"),
    [(401, AuthenticationError), (403, AuthenticationError), (402, InsufficientCreditsError)],
)
async def test_a_rejection_to_be_asked_ends_it(
    service: FakeService, client: AsyncClient, code: int, kind: type[APIError]
) -> None:
    """A bad key ends a wait at once."""
    body = json.dumps({"error": {"code": code, "message": "no"}})
    service.script("query", Fault.reply(code, body))
    with pytest.raises(kind):
        await client.wait("a")
    assert service.counts[QUERY] == 1


async def test_not_found_is_a_lag_at_first(service: FakeService, connect: Connect) -> None:
    """A task that is not found for less than the grace is waited for."""
    service.visible_after_polls = 3
    policy = PollPolicy(first=1, step=1, growth=1, jitter=0, grace=3)
    task = await connect(polling=policy).run(request())
    assert task.status is TaskStatus.COMPLETED
    assert service.counts[QUERY] == 4


async def test_not_found_is_the_truth_in_the_end(
    service: FakeService, connect: Connect, slept: list[float]
) -> None:
    """A task that is not found for the whole grace raises TaskNotFoundError."""
    policy = PollPolicy(first=1, step=1, growth=1, jitter=0, grace=3)
    with pytest.raises(TaskNotFoundError, match="api task not found") as caught:
        await connect(polling=policy).wait("nobody")
    assert caught.value.out_task_id == "nobody"
    assert service.counts[QUERY] == 4
    assert slept == [1, 1, 1]


async def test_being_seen_begins_the_grace_again(service: FakeService, connect: Connect) -> None:
    """The grace is counted without a break: a task that was seen in between is there."""
    service.durations = 6
    policy = PollPolicy(first=1, step=1, growth=1, jitter=0, grace=2)
    lost = Fault.not_found()
    service.script("query", lost, lost, Fault.ok(), lost, lost)
    task = await connect(polling=policy).run(request())
    assert task.status is TaskStatus.COMPLETED


@pytest.mark.parametrize("answer", ["not found", "500"])
async def test_a_grace_of_nothing(service: FakeService, client: AsyncClient, answer: str) -> None:
    """Without a grace "not found" ends a wait at once; other trouble does not."""
    task = await client.submit(request())
    service.script("query", Fault.not_found() if answer == "not found" else Fault.server_error())
    if answer == "not found":
        with pytest.raises(TaskNotFoundError):
            await client.wait(task)
    else:
        assert (await client.wait(task)).status is TaskStatus.COMPLETED


async def test_after_the_deadline_comes_one_final_poll(
    service: FakeService, connect: Connect, slept: list[float]
) -> None:
    """The last look is made at the deadline, and a task that has completed by then is returned."""
    service.durations = 10
    client = connect(polling=PollPolicy(first=4, step=1000, cap=1000, jitter=0))
    task = await client.run(request(), timeout=10)
    assert task.status is TaskStatus.COMPLETED
    assert slept == [4, 6]


async def test_a_task_that_is_alive_at_the_deadline_can_be_waited_for_again(
    service: FakeService, connect: Connect, slept: list[float]
) -> None:
    """TaskTimeoutError is a TimeoutError that carries the task, and waiting for it continues."""
    service.durations = 100
    client = connect(polling=PollPolicy(first=30, step=30, growth=1, jitter=0))
    with pytest.raises(TaskTimeoutError) as caught:
        await client.run(request(), timeout=70)
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.task.status is TaskStatus.PROCESSING
    assert caught.value.task.estimated_credits == 1
    assert slept == [30, 30, 10]
    task = await client.wait(caught.value.task, timeout=70)
    assert task.status is TaskStatus.COMPLETED
    assert task.out_task_id == caught.value.out_task_id
    assert client.stats.completed == 1


@pytest.mark.parametrize("name", [name for name, each in AMBIGUOUS.items() if not each.slow])
async def test_a_final_poll_that_fails_is_the_cause(
    service: FakeService, client: AsyncClient, name: str
) -> None:
    """Where the final poll fails the task counts as running, and the failure is the cause."""
    task = await client.submit(request())
    service.script("query", AMBIGUOUS[name].before)
    with pytest.raises(TaskTimeoutError) as caught:
        await client.wait(task, timeout=0)
    assert isinstance(caught.value.__cause__, AMBIGUOUS[name].error)
    assert caught.value.task == task


async def test_a_poll_that_hangs_does_not_outlast_the_deadline(
    service: FakeService, connect: Connect, until: Until
) -> None:
    """A look under way at the deadline is given up for the last one, which sees what has become."""
    client = connect(timeout=LONG, polling=PollPolicy(first=0, step=LONG, cap=LONG))
    task = await client.submit(request())
    service.script("query", Fault.hang())
    assert (await client.wait(task, timeout=0.05)).status is TaskStatus.COMPLETED
    assert service.counts[QUERY] == 2
    assert client.stats.retries == 0
    await until(lambda: service.connections == 1)


async def test_a_final_poll_that_hangs_is_the_end(service: FakeService, connect: Connect) -> None:
    """The last look has the client's timeout, and no more: then the task counts as alive."""
    client = connect(polling=PollPolicy(first=0, step=LONG, cap=LONG))
    task = await client.submit(request())
    service.script("query", Fault.hang(), Fault.hang())
    with pytest.raises(TaskTimeoutError) as caught:
        await client.with_options(timeout=0.1).wait(task, timeout=0.05)
    assert caught.value.task == task
    assert isinstance(caught.value.__cause__, RequestTimeoutError)
    assert service.counts[QUERY] == 2
    assert (await client.wait(caught.value.task)).status is TaskStatus.COMPLETED


async def test_a_poll_in_the_queue_does_not_outlast_the_deadline(
    service: FakeService, connect: Connect, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    """A poll that still queues for a slot at the deadline leaves the queue, and comes back once."""
    client = connect(max_concurrency=1, timeout=LONG, polling=PollPolicy(first=0, step=LONG))
    task = await client.submit(request())
    service.script("balance", Fault.hang())
    holder = asyncio.create_task(client.balance())
    await until(lambda: service.in_flight == 1)
    waiting = asyncio.create_task(client.wait(task, timeout=0.05))
    await until(lambda: "before the deadline" in caplog.text and client.stats.waiting == 1)
    holder.cancel()
    assert (await waiting).status is TaskStatus.COMPLETED
    assert service.counts[QUERY] == 1


async def test_a_cancellation_at_the_deadline_is_a_cancellation(
    service: FakeService, connect: Connect, until: Until
) -> None:
    for seconds in (0.02, 0.03, 0.04):
        client = connect(timeout=0.03, polling=PollPolicy(first=0, step=LONG, cap=LONG))
        service.script("query", Fault.hang(), Fault.hang())
        waiting = asyncio.create_task(client.wait("a", timeout=0.03))
        asyncio.get_running_loop().call_later(seconds, waiting.cancel)
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await until(lambda: service.connections == 0)


@pytest.mark.parametrize(
    ("asked", "slept_for"),
    [
        ("120", 120),
        ("0.5", 0.5),
        ("Mon, 01 Jan 0001 00:00:00 GMT", 0),
        ("-5", 0),
        ("nan", 0.25),
        ("inf", 0.25),
    ],
)
async def test_a_retry_after_is_kept_in_full(
    service: FakeService, connect: Connect, slept: list[float], asked: str, slept_for: float
) -> None:
    client = connect(polling=EACH_SECOND)
    service.script("query", Fault.reply(503, "{}", headers={"Retry-After": asked}))
    assert (await client.run(request())).succeeded
    assert slept == [1, *[slept_for] * (slept_for > 0)]


@pytest.mark.parametrize("asked", ["120.5", "3601", "1e308", "Fri, 31 Dec 9999 23:59:59 GMT"])
async def test_too_long_a_retry_after_is_raised(
    service: FakeService, connect: Connect, slept: list[float], asked: str
) -> None:
    client = connect(polling=EACH_SECOND)
    service.script("query", Fault.reply(503, "{}", headers={"Retry-After": asked}))
    with pytest.raises(ServerError) as caught:
        await client.run(request())
    assert caught.value.retry_after is not None
    assert caught.value.retry_after > 120
    assert slept == [1]


async def test_a_timeout_of_nothing_polls_once(
    service: FakeService, connect: Connect, slept: list[float]
) -> None:
    """With a timeout of 0 there is one look, at once."""
    service.durations = 100
    client = connect(polling=EACH_SECOND)
    task = await client.submit(request())
    with pytest.raises(TaskTimeoutError):
        await client.wait(task, timeout=0)
    assert service.counts[QUERY] == 1
    assert slept == []
    service.durations = 0
    done = await client.submit(request())
    assert (await client.wait(done, timeout=0)).status is TaskStatus.COMPLETED


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), True, "5"])
@pytest.mark.parametrize("verb", ["wait", "run"])
async def test_a_timeout_that_cannot_be(
    service: FakeService, client: AsyncClient, verb: str, seconds: Any
) -> None:
    """A negative timeout, or what is no number, is rejected before anything is sent."""
    work = client.wait("a", timeout=seconds) if verb == "wait" else None
    with pytest.raises((ValueError, TypeError), match="timeout must be"):
        await (work or client.run(request(), timeout=seconds))
    assert service.requests == []


@pytest.mark.parametrize("asked", ["12", "4000"])
async def test_no_final_poll_where_a_retry_after_passes_the_deadline(
    service: FakeService, connect: Connect, slept: list[float], asked: str
) -> None:
    client = connect(polling=EACH_SECOND)
    task = await client.submit(request())
    service.script("query", Fault.too_many_requests(float(asked)))
    with pytest.raises(TaskTimeoutError) as caught:
        await client.wait(task, timeout=5)
    assert isinstance(caught.value.__cause__, RateLimitError)
    assert sum(slept) == pytest.approx(5)
    assert service.counts[QUERY] == 1


@pytest.mark.parametrize("name", PASSING)
async def test_a_failed_poll_is_repeated_soon(
    service: FakeService, connect: Connect, slept: list[float], name: str
) -> None:
    """Not after the next interval, which may be a minute."""
    client = connect(polling=PollPolicy(first=0, step=60, jitter=0))
    task = await client.submit(request())
    service.script("query", *[PASSING[name]] * 4)
    assert (await client.wait(task)).succeeded
    assert sum(slept) <= 4 * 1.0


async def test_on_update_is_reported_each_new_status(
    service: FakeService, connect: Connect
) -> None:
    """on_update hears of each status once; run tells it of the submitted task first."""
    service.durations = 10
    seen: list[Task] = []
    await connect(polling=EACH_SECOND).run(request(), on_update=seen.append)
    assert [str(task.status) for task in seen] == ["pending", "processing", "completed"]
    assert [task.model for task in seen] == ["veo3_1"] * 3


async def test_on_update_may_be_a_coroutine_function(client: AsyncClient) -> None:
    """What on_update returns is awaited if it can be."""
    seen: list[Task] = []

    async def update(task: Task) -> None:
        await asyncio.sleep(0)
        seen.append(task)

    task = await client.run(request(), on_update=update)
    assert seen[-1] == task
    assert len(seen) == 2


@pytest.mark.parametrize("wrong", ["submitted", "completed"])
async def test_what_on_update_raises_is_raised(client: AsyncClient, wrong: str) -> None:
    """An error in on_update ends the wait as it is; the task can be waited for again."""

    def update(task: Task) -> None:
        if wrong == "submitted" or task.done:
            raise ValueError(task.out_task_id)

    wanted = request()
    with pytest.raises(ValueError, match=wanted.out_task_id):
        await client.run(wanted, on_update=update)
    assert (await client.wait(wanted.out_task_id)).status is TaskStatus.COMPLETED


async def test_ended_tasks_are_not_asked_for(service: FakeService, client: AsyncClient) -> None:
    """Waiting for a task that has completed returns it, for one that failed raises: no request."""
    done = await client.run(request())
    service.script("submit", Fault.failed())
    with pytest.raises(TaskFailedError) as caught:
        await client.run(request())
    before, stats = len(service.requests), client.stats
    assert await client.wait(done) is done
    with pytest.raises(TaskFailedError):
        await client.wait(caught.value.task)
    assert len(service.requests) == before
    assert client.stats == stats


async def test_an_id_is_queried_at_once(
    service: FakeService, connect: Connect, slept: list[float]
) -> None:
    """Of an ID alone no age is known: the first poll is made at once."""
    service.durations = 2
    client = connect(polling=PollPolicy(first=30, step=1, growth=1, jitter=0))
    out_task_id = (await client.submit(request())).out_task_id
    task = await client.wait(out_task_id)
    assert (task.out_task_id, task.model, task.status) == (out_task_id, None, TaskStatus.COMPLETED)
    assert slept == [1, 1]


@pytest.mark.parametrize("wrong", ["", "a.b", "a b", "x" * 65, "ä", "../balance"])
async def test_an_id_that_no_task_can_have_is_not_found(
    service: FakeService, client: AsyncClient, wrong: str
) -> None:
    for call in (client.query, client.wait, client.watch):
        with pytest.raises(TaskNotFoundError, match="invalid ID"):
            await call(wrong)  # type: ignore[misc]
    assert await client.find(wrong) is None
    assert service.requests == []


async def test_how_long_a_model_takes_is_learned(
    service: FakeService, connect: Connect, slept: list[float]
) -> None:
    """The first poll for a task comes when the tasks of its model have been about to end."""
    service.durations = {"veo3_1": 100, "nano_banana": 10}
    client = connect(polling=PollPolicy(jitter=0))
    for model, seconds in (("veo3_1", 100), ("nano_banana", 10)):
        await client.run(SubmitRequest(model, {}))
        slept.clear()
        await client.run(SubmitRequest(model, {}))
        assert slept[0] == pytest.approx(0.85 * seconds, rel=0.01)
        # Later steps are short beside that, so the end is noticed soon after.
        assert sum(slept) < 1.15 * seconds
        slept.clear()
    await client.with_options(timeout=5).run(SubmitRequest("veo3_1", {}))
    assert slept[0] == pytest.approx(85, rel=0.01)


async def test_a_new_model_is_queried_by_its_medium(
    service: FakeService, connect: Connect, slept: list[float]
) -> None:
    """While nothing is learned the first poll for a video comes later than for the unknown."""
    client = connect(polling=PollPolicy(jitter=0))
    await client.run(SubmitRequest("brand_new", {}))
    unknown = slept.pop()
    await client.run(models.Seedance15Pro(prompt="a kitten", aspect_ratio="16:9"))
    assert slept.pop() > unknown
    assert slept == []
    assert service.counts[QUERY] == 2


async def test_age_counts(service: FakeService, connect: Connect, slept: list[float]) -> None:
    """A task is not waited for from the beginning again: its age shortens the first wait."""
    client = connect(polling=PollPolicy(first=30, step=1, jitter=0))
    data = {"status": "pending", "created_at": "2020-01-01T00:00:00Z"}
    service.script("submit", Fault.reply(200, json.dumps({"data": data}), accepted=True))
    task = await client.submit(request())
    await client.wait(task)
    assert slept == []


async def test_a_task_that_ended_before_it_began_teaches_how_long_it_was_waited_for(
    service: FakeService, connect: Connect, slept: list[float]
) -> None:
    client = connect(polling=PollPolicy(jitter=0))
    times = {"created_at": "2026-01-02T00:00:00Z", "completed_at": "2026-01-01T00:00:00Z"}
    service.script("query", reply(status="completed", output=RESULT, **times))
    await client.run(request())
    first = slept.pop()
    await client.run(request())
    assert slept == [pytest.approx(0.85 * first)]


async def test_without_times_the_wait_itself_is_learned(
    service: FakeService, connect: Connect, slept: list[float]
) -> None:
    """Where the service tells no times, what the wait took is how long the model takes."""
    client = connect(polling=PollPolicy(first=20, step=20, growth=1, jitter=0))
    for status, output in (("processing", None), ("completed", RESULT)):
        service.script("query", reply(status=status, output=output))
    await client.run(request())
    slept.clear()
    await client.with_options(polling=PollPolicy(jitter=0)).run(request())
    assert slept == [pytest.approx(0.85 * 40, rel=0.01)]


async def test_tasks_that_ended_on_submit_are_counted(
    service: FakeService, client: AsyncClient
) -> None:
    service.price = 2.5
    service.script("submit", Fault.lost_response(accepted=True))
    task = await client.run(request())
    assert task.status is TaskStatus.COMPLETED
    service.script("submit", Fault.lost_response(accepted=True))
    service.script("query", Fault.failed())
    with pytest.raises(TaskFailedError):
        await client.run(request())
    stats = client.stats
    assert (stats.settled, stats.completed, stats.failed) == (2, 1, 1)
    assert stats.credits_used == 2.5
    assert service.counts[QUERY] == 2


async def test_run_is_submit_and_wait(service: FakeService, client: AsyncClient) -> None:
    """Run takes what submit takes, and returns what wait returns."""
    task = await client.run(
        SubmitRequest("brand_new", {"prompt": "a kitten"}),
        out_task_id="mine",
        channel="max",
        callback_url="https://example.com/",
        metadata={"a": 1},
    )
    assert (task.out_task_id, task.model) == ("mine", "brand_new_max")
    assert service.requests[0].body == {
        "model": "brand_new_max",
        "params": {"prompt": "a kitten"},
        "out_task_id": "mine",
        "callback_url": "https://example.com/",
        "metadata": {"a": 1},
    }
    assert service.counts[QUERY] == 1


@pytest.mark.parametrize("asked_by", ["task", "id"])
async def test_query_polls_once(service: FakeService, client: AsyncClient, asked_by: str) -> None:
    """Query gives the task as it is, running or failed, and raises only if it cannot see it."""
    service.durations = 100
    task = await client.submit(request())
    asked = task if asked_by == "task" else task.out_task_id
    assert (await client.query(asked)).status is TaskStatus.PENDING
    service.script("query", Fault.failed("TIMEOUT", "upstream"))
    failed = await client.query(asked)
    assert failed.status is TaskStatus.FAILED
    assert failed.error is not None
    assert (failed.error.code, failed.error.message) == ("TIMEOUT", "upstream")
    assert failed.model == (task.model if asked_by == "task" else None)
    assert service.counts[QUERY] == 2


@pytest.mark.parametrize("name", PASSING)
async def test_a_query_is_retried(service: FakeService, client: AsyncClient, name: str) -> None:
    """A query that fails in passing is tried again, and in the end raises what happened."""
    fault = PASSING[name]
    task = await client.submit(request())
    service.script("query", *[fault] * 4)
    assert (await client.query(task)).succeeded
    service.script("query", *[fault] * 5)
    with pytest.raises(AireiterError):
        await client.query(task)
    assert service.scripted("query") == 0
    assert client.stats.retries == 8


@pytest.mark.parametrize("in_envelope", [False, True])
async def test_a_query_for_nobody(
    service: FakeService, client: AsyncClient, *, in_envelope: bool
) -> None:
    """An ID that the service does not know is a TaskNotFoundError, after one look."""
    if not in_envelope:
        body = '{"error":{"code":404,"message":"task not found"}}'
        service.script("query", Fault.reply(404, body))
    with pytest.raises(TaskNotFoundError) as caught:
        await client.query("nobody")
    assert caught.value.out_task_id == "nobody"
    assert caught.value.code == (400 if in_envelope else 404)
    assert service.counts[QUERY] == 1


@pytest.mark.parametrize("late", [False, True])
async def test_cancelled_anywhere_around_the_deadline(
    service: FakeService, connect: Connect, until: Until, *, late: bool
) -> None:
    client = connect(max_concurrency=1, timeout=LONG, polling=PollPolicy(first=0, step=LONG))
    task = await client.submit(request())
    for step in (sweep := Sweep()):
        service.script("query", Fault.hang())
        sweep.struck = await cancel_at(partial(client.wait, task, timeout=0.01), step, late=late)
        service._plan._scripts["query"].clear()
        assert (client.stats.in_flight, client.stats.waiting) == (0, 0)
        assert (await client.balance()).credits
        await until(lambda: service.in_flight == 0)
    assert step > 3


async def test_cancelled_in_on_update(client: AsyncClient, until: Until) -> None:
    """A wait that is cancelled in a slow on_update ends there."""
    updates = itertools.count()
    began: list[int] = []

    async def update(_task: Task) -> None:
        began.append(next(updates))
        await asyncio.Event().wait()

    waiting = asyncio.create_task(client.run(request(), on_update=update))
    await until(lambda: began)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert began == [0]


async def test_many_wait_over_few_connections(service: FakeService, connect: Connect) -> None:
    """200 tasks that are waited for at once use no more connections than max_concurrency."""
    service.durations = 50
    client = connect(max_concurrency=8, polling=EACH_SECOND)
    tasks = await asyncio.gather(*(client.run(request()) for _ in range(200)))
    assert all(task.status is TaskStatus.COMPLETED for task in tasks)
    assert service.peak_connections <= 8
    assert client.stats.completed == 200


async def test_an_id_that_was_never_seen_does_not_continue(connect: Connect) -> None:
    """At the deadline an ID that no poll has found is said to be unknown, not to be running."""
    client = connect(polling=PollPolicy(first=1, step=1, cap=1, grace=1000))
    with pytest.raises(TaskNotFoundError):
        await client.wait("nosuch", timeout=5)


EMPTY: list[Any] = [None, [], {}, {"list": []}, [{}], [{"url": ""}]]


@pytest.mark.parametrize("output", EMPTY, ids=repr)
async def test_a_result_that_is_published_late(
    service: FakeService, connect: Connect, slept: list[float], output: Any
) -> None:
    """Completed comes before the outputs: they are waited for, and nobody hears of it before."""
    client = connect(polling=PollPolicy(first=1, jitter=0))
    service.script("query", *[reply(status="completed", output=output)] * 3)
    seen: list[Task] = []
    task = await client.run(request(), on_update=seen.append)
    assert task.urls
    assert [each.status for each in seen] == [TaskStatus.PENDING, TaskStatus.COMPLETED]
    assert seen[-1] is task
    assert sum(slept) < 10
    assert client.stats.completed == 1


async def test_a_task_found_after_a_lost_response_is_done_once_its_result_is_published(
    service: FakeService, connect: Connect
) -> None:
    client = connect(retry=RetryPolicy(settle=0))
    seen: list[events.Event] = []
    client.subscribe(seen.append)
    service.script("submit", Fault.lost_response(accepted=True))
    service.script("query", reply(status="completed", output=[]))
    task = await client.run(request())
    assert task.urls
    assert [event.task for event in seen if isinstance(event, events.TaskDone)] == [task]


@pytest.mark.parametrize("limit", [None, 5])
@pytest.mark.parametrize("output", EMPTY, ids=repr)
async def test_a_result_that_is_never_published(
    service: FakeService, connect: Connect, slept: list[float], output: Any, limit: float | None
) -> None:
    client = connect(polling=PollPolicy(first=1, jitter=0, grace=2))
    wanted = await client.submit(request())
    service.script("query", *[reply(status="completed", output=output)] * 50)
    with pytest.raises(ResultMissingError, match="shows no result") as caught:
        await client.wait(wanted, timeout=limit)
    assert caught.value.task.out_task_id == wanted.out_task_id
    assert 5 <= sum(slept) < 60
    service.script("query", *[Fault.ok()])
    while service.scripted("query"):
        await client.query(wanted)
    assert (await client.wait(caught.value.task)).urls


@pytest.mark.parametrize("verb", ["wait", "watch"])
async def test_a_wrong_base_url_ends_the_wait(
    service: FakeService, connect: Connect, verb: str
) -> None:
    url = f"{service.url}/wrong/place"
    client = connect(base_url=url)
    with pytest.raises(ProtocolError, match=f"{url} has never responded as the API"):
        await (client.wait("a") if verb == "wait" else collect(client.watch("a"), []))
    assert len(service.requests) == 5


async def test_a_base_url_where_nobody_listens_ends_the_wait(
    service: FakeService, connect: Connect
) -> None:
    await service.close()
    with pytest.raises(ConnectError) as caught:
        await connect().wait("a")
    assert f"{service.url} has never responded as the API" in caught.value.__notes__


async def test_a_view_knows_that_the_base_url_has_responded(
    service: FakeService, client: AsyncClient
) -> None:
    task = await client.submit(request())
    service.script("query", *[Fault.html(200)] * 20)
    assert (await client.with_options(timeout=5).wait(task)).succeeded


async def test_a_final_poll_is_bounded_queue_included(
    service: FakeService, connect: Connect, until: Until
) -> None:
    client = connect(max_concurrency=1, timeout=LONG)
    task = await client.submit(request())
    service.script("balance", Fault.hang())
    holder = asyncio.create_task(client.balance())
    await until(lambda: service.in_flight == 1)
    with pytest.raises(TaskTimeoutError):
        await client.with_options(timeout=0.05).wait(task, timeout=0)
    holder.cancel()
    await asyncio.wait([holder])


async def test_watch_yields_the_first_status_and_each_change(
    service: FakeService, connect: Connect
) -> None:
    service.durations = 10
    client = connect(polling=EACH_SECOND)
    task = await client.submit(request())
    items = [item async for item in client.watch(task)]
    assert [str(item.status) for item in items] == ["pending", "processing", "completed"]
    assert items[0] is task
    assert [item async for item in client.watch(items[-1])] == [items[-1]]
    assert [str(item.status) async for item in client.watch(task.out_task_id)] == ["completed"]
    assert client.stats.completed == 1


async def test_a_failed_end_is_an_item(service: FakeService, client: AsyncClient) -> None:
    service.script("submit", Fault.failed("NSFW", "no"))
    task = await client.submit(request())
    *_, last = [item async for item in client.watch(task)]
    assert last.failed


async def test_only_the_timeout_of_a_watch_raises(
    service: FakeService, connect: Connect, slept: list[float]
) -> None:
    service.durations = 100
    client = connect(polling=EACH_SECOND)
    task = await client.submit(request())
    seen: list[Task] = []
    with pytest.raises(TaskTimeoutError):
        await collect(client.watch(task, timeout=30), seen)
    assert [str(item.status) for item in seen] == ["pending", "processing"]
    assert sum(slept) == pytest.approx(30)


async def test_leaving_a_watch_leaves_nothing(service: FakeService, connect: Connect) -> None:
    service.durations = 10
    client = connect(polling=EACH_SECOND)
    watch = client.watch(await client.submit(request()))
    async for _ in watch:
        break
    before = len(service.requests)
    await asyncio.sleep(0)
    assert (client.stats.in_flight, client.stats.waiting) == (0, 0)
    assert len(service.requests) == before
    assert [str(item.status) async for item in watch] == ["processing", "completed"]


async def test_a_task_that_is_waited_for_twice_counts_once(
    service: FakeService, connect: Connect
) -> None:
    service.durations, service.price = 10, 2.5
    client = connect(polling=EACH_SECOND)
    task = await client.submit(request())
    await asyncio.gather(*(client.wait(task) for _ in range(3)))
    await client.wait(task.out_task_id)
    assert (client.stats.completed, client.stats.credits_used) == (1, 2.5)


async def test_times_in_two_time_zones_delay_no_later_poll(
    service: FakeService, connect: Connect, slept: list[float]
) -> None:
    client = connect(polling=PollPolicy(jitter=0))
    times = {"created_at": "2026-01-01T00:00:00Z", "completed_at": "2026-01-01T08:00:00Z"}
    service.script("query", reply(status="completed", output=RESULT, **times))
    await client.run(request())
    longest = sum(slept)
    slept.clear()
    await client.run(request())
    assert slept[0] <= longest


async def test_a_model_that_has_become_fast_is_polled_sooner(
    service: FakeService, connect: Connect, slept: list[float]
) -> None:
    """Without times, too: a task that is done at its first poll ended before that."""
    client = connect(polling=PollPolicy(jitter=0))
    service.durations = 200
    await client.run(request())
    service.durations = 1
    delays = []
    for _ in range(6):
        slept.clear()
        service.script("query", reply(status="completed", output=RESULT))
        await client.run(request())
        delays.append(slept[0])
    assert delays == sorted(delays, reverse=True)
    assert delays[-1] < 20
