"""The events that a client gives out, and listeners that misbehave."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aireiter_async import AsyncClient, Ledger, RetryPolicy, SubmitRequest, TaskStatus, events
from aireiter_async.testing import FakeService, Fault

Connect = Callable[..., AsyncClient]


def request() -> SubmitRequest:
    return SubmitRequest("veo3_1", {"prompt": "a kitten"})


def names(seen: list[events.Event]) -> list[str]:
    return [type(event).__name__ for event in seen]


async def test_the_events_of_one_task(
    service: FakeService, client: AsyncClient, tmp_path: Path
) -> None:
    seen: list[events.Event] = []
    client.subscribe(seen.append)
    service.script("query", Fault.task_status("processing"))
    task = await client.run(request())
    [path] = await client.download(task, tmp_path)
    id_ = task.out_task_id
    assert names(seen) == [
        *["CallStarted", "CallStarted", "RequestQueued", "RequestSent", "TaskAccepted"],
        *["CallEnded", "CallStarted"],
        *["RequestQueued", "RequestSent", "StatusChanged"],
        *["RequestQueued", "RequestSent", "TaskDone", "StatusChanged", "CallEnded", "CallEnded"],
        *["CallStarted", "RequestQueued", "RequestSent", "ResultDownloaded", "CallEnded"],
    ]
    started = [event for event in seen if isinstance(event, events.CallStarted)]
    assert [call.kind for call in started] == ["run", "submit", "wait", "download"]
    assert {(call.out_task_id, call.model) for call in started} == {(id_, "veo3_1")}
    ended = [event for event in seen if isinstance(event, events.CallEnded)]
    assert [event.call for event in ended] == [started[n] for n in (1, 2, 0, 3)]
    assert [event.result for event in ended[1:]] == [task, task, None]
    assert seen[2:4] == [events.RequestQueued("submit", id_), events.RequestSent("submit", id_)]
    changes = [event for event in seen if isinstance(event, events.StatusChanged)]
    assert [change.before for change in changes] == [TaskStatus.PENDING, TaskStatus.PROCESSING]
    assert events.TaskDone(task) in seen
    assert seen[-2] == events.ResultDownloaded(id_, path, path.stat().st_size)


@pytest.mark.parametrize("found", [False, True])
async def test_the_events_of_a_lost_submit(
    service: FakeService, client: AsyncClient, *, found: bool
) -> None:
    seen: list[events.Event] = []
    service.script("submit", Fault.too_many_requests(0), Fault.lost_response(accepted=found))
    client.subscribe(seen.append)
    task = await client.submit(request())
    [limited] = [event for event in seen if isinstance(event, events.RateLimited)]
    assert limited == events.RateLimited(0, task.out_task_id)
    [settled] = [event for event in seen if isinstance(event, events.SubmitSettled)]
    assert (settled.out_task_id, settled.task is not None) == (task.out_task_id, found)
    retried = [event for event in seen if isinstance(event, events.RequestRetried)]
    assert [event.out_task_id for event in retried] == [task.out_task_id] * (1 if found else 2)
    assert [event.seconds for event in retried] == [0] * len(retried)
    assert {event.kind for event in retried} == {"submit"}
    assert names(seen)[-2:] == ["TaskAccepted", "CallEnded"]


async def test_the_events_of_failed_polls(service: FakeService, client: AsyncClient) -> None:
    seen: list[events.Event] = []
    client.subscribe(seen.append)
    task = await client.submit(request())
    service.script("query", Fault.server_error())
    await client.wait(task)
    [retried] = [event for event in seen if isinstance(event, events.RequestRetried)]
    assert (retried.kind, retried.out_task_id) == ("query", task.out_task_id)
    assert retried.seconds >= 0


async def test_a_ledger_reports_what_it_has_stored(
    service: FakeService, connect: Connect, tmp_path: Path
) -> None:
    """Each state of each task, once it is durable; whoever listens after the end hears the rest."""
    seen: dict[str, list[str]] = {}

    def listen(event: events.Event) -> None:
        if isinstance(event, events.TaskStored):
            seen.setdefault(event.out_task_id, []).append(event.state)
        if isinstance(event, events.RequestSent) and event.kind == "submit":
            assert seen[str(event.out_task_id)] == ["intended"]

    service.script("submit", Fault.bad_request("no"))
    client, other = connect(), connect()
    client.subscribe(listen)
    requests = [SubmitRequest("veo3_1", {"prompt": f"{n}"}) for n in range(5)]
    async with Ledger(tmp_path / "run.db") as ledger:
        results = tmp_path / "results"
        options: Any = {"ledger": ledger, "download_to": results, "window": 1}
        outcomes = [outcome async for outcome in client.run_many(requests, **options)]
        again = [outcome async for outcome in other.run_many(requests, **options)]
    states = {outcome.request.out_task_id: outcome.ok for outcome in outcomes if outcome.request}
    assert {id_: seen[id_][-1] for id_ in seen} == {
        id_: "downloaded" if ok else "rejected" for id_, ok in states.items()
    }
    assert seen[outcomes[-1].task.out_task_id if outcomes[-1].task else ""] == [
        *["intended", "submitted", "completed", "downloaded"]
    ]
    assert [outcome.resumed for outcome in again] == [True] * 5


async def test_a_call_that_was_seen_to_start_is_seen_to_end(client: AsyncClient) -> None:
    seen: list[events.Event] = []
    end = client.subscribe(seen.append)
    late: list[events.Event] = []
    ends: list[Callable[[], None]] = []

    def swap(_task: object) -> None:
        end()
        ends.append(client.subscribe(late.append))

    await client.run(request(), on_update=swap)
    assert names(seen)[-2:] == ["CallEnded", "CallEnded"]
    assert "CallEnded" not in names(late)


async def test_a_call_equals_itself_only() -> None:
    calls = [events.CallStarted("wait", "a", "veo3_1") for _ in range(2)]
    assert calls[0] != calls[1]
    assert len({*calls}) == 2


async def test_views_share_their_listeners(client: AsyncClient) -> None:
    seen: list[events.Event] = []
    view = client.with_options(timeout=5)
    end = view.subscribe(seen.append)
    await client.balance()
    assert seen == [events.RequestQueued("balance", None), events.RequestSent("balance", None)]
    end()
    end()
    await client.balance()
    assert len(seen) == 2


async def test_a_listener_may_subscribe_twice(client: AsyncClient) -> None:
    seen: list[events.Event] = []
    listener = seen.append
    ends = [client.subscribe(listener), client.subscribe(listener)]
    await client.balance()
    assert len(seen) == 4
    ends[0]()
    await client.balance()
    assert len(seen) == 6


@pytest.mark.parametrize("retry", [RetryPolicy(attempts=1), RetryPolicy(base=0, settle=0)])
async def test_a_listener_that_raises_loses_no_task(
    service: FakeService, connect: Connect, caplog: pytest.LogCaptureFixture, retry: RetryPolicy
) -> None:
    """Every event of a paid task is met by a broken listener: it is logged, and nothing else."""

    def broken(event: events.Event) -> None:
        raise ValueError(event)

    seen: list[events.Event] = []
    client = connect(retry=retry)
    client.subscribe(broken)
    client.subscribe(seen.append)
    if retry.attempts > 1:
        service.script("submit", Fault.too_many_requests(0), Fault.lost_response(accepted=True))
    task = await client.run(request())
    assert task.succeeded
    assert [charge.out_task_id for charge in service.charges] == [task.out_task_id]
    errors = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert len(errors) == len(seen)
    assert {each.name for each in errors} == {"aireiter_async.events"}
    assert [each.getMessage() for each in errors] == [
        f"{name} of task {task.out_task_id}: a listener failed" for name in names(seen)
    ]


def test_a_coroutine_function_is_no_listener() -> None:
    async def listener(_event: events.Event) -> None: ...

    with pytest.raises(TypeError, match="plain function"):
        AsyncClient("sk-test-0123").subscribe(listener)


@pytest.mark.parametrize("name", [name for name in events.__all__ if name[0].isupper()])
def test_events_are_public_values(name: str) -> None:
    event: Any = getattr(events, name)
    if isinstance(event, type):
        assert event.__module__ == "aireiter_async.events"
        assert event.__doc__
        assert "frozen" in event.__setattr__.__name__
