"""Batches: one outcome for each request, whatever befalls it."""

import asyncio
import json
import logging
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from aireiter_async import (
    AsyncClient,
    DownloadError,
    InvalidRequestError,
    Ledger,
    Outcome,
    PollPolicy,
    RetryPolicy,
    SubmitRequest,
    Success,
    TaskFailedError,
    TaskStatus,
    TaskTimeoutError,
    models,
)
from aireiter_async.testing import FakeService, Fault
from tests.hostile_time import Clock

Connect = Callable[..., AsyncClient]
Until = Callable[[Callable[[], object]], Awaitable[None]]

SUBMIT = "/api/openapi/submit"
QUERY = "/api/openapi/query"
BOTH = pytest.mark.parametrize("many", [AsyncClient.submit_many, AsyncClient.run_many])


def asked(count: int) -> list[SubmitRequest]:
    """Make requests with IDs that tell their order."""
    return [SubmitRequest("nano_banana", {"n": n}, f"t-{n:04d}") for n in range(count)]


async def stream(requests: Iterable[Any]) -> AsyncIterator[Any]:
    """Give requests asynchronously."""
    for request in requests:
        await asyncio.sleep(0)
        yield request


async def collect(batch: AsyncIterator[Outcome[Any]]) -> list[Any]:
    """Return all outcomes of a batch in the order of the input, which has each exactly once."""
    outcomes = sorted([outcome async for outcome in batch], key=lambda outcome: outcome.index)
    assert [outcome.index for outcome in outcomes] == list(range(len(outcomes)))
    for outcome in outcomes:
        assert outcome.ok is isinstance(outcome, Success) is (outcome.error is None)
    return outcomes


def workers() -> int:
    """Return how many tasks of a batch there are."""
    return sum("Window" in repr(task.get_coro()) for task in asyncio.all_tasks())


@BOTH
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_each_request_has_one_outcome(
    service: FakeService, client: AsyncClient, many: Any, *, asynchronous: bool
) -> None:
    """All requests of an iterable or async iterable are submitted once, under their own IDs."""
    requests = asked(150)
    outcomes = await collect(many(client, stream(requests) if asynchronous else iter(requests)))
    assert [outcome.request for outcome in outcomes] == requests
    status = TaskStatus.PENDING if many is AsyncClient.submit_many else TaskStatus.COMPLETED
    assert {outcome.task and outcome.task.status for outcome in outcomes} == {status}
    assert sorted(service.tasks) == [request.out_task_id for request in requests]
    assert service.counts[SUBMIT] == len(service.charges) == 150
    assert service.counts[QUERY] == (0 if many is AsyncClient.submit_many else 150)
    assert service.peak_in_flight <= 64


@BOTH
async def test_outcomes_come_in_order_if_asked(
    service: FakeService, client: AsyncClient, many: Any
) -> None:
    """With *ordered* outcomes come in the order of the requests, however long each takes."""
    service.script("submit", *[Fault.delay(0.02), Fault.ok()] * 20)
    batch = many(client, asked(60), ordered=True)
    assert [outcome.index async for outcome in batch] == list(range(60))


async def test_the_window_is_what_is_outstanding(service: FakeService, client: AsyncClient) -> None:
    """No more tasks than the window are submitted and not yielded."""
    yielded = 0
    async with aclosing(client.run_many(asked(40), window=7)) as batch:
        async for _ in batch:
            yielded += 1
            assert len(service.charges) <= yielded + 7
    assert yielded == 40


async def test_one_failure_is_one_outcome(
    service: FakeService, connect: Connect, tmp_path: Path
) -> None:
    """Every way in which a request can fail is its own outcome, and the others complete."""
    client = connect(retry=RetryPolicy(attempts=1, base=0, settle=0))
    service.script("submit", Fault.ok(), Fault.failed(), Fault.bad_request("no"))
    service.script("result", Fault.html(502))
    outcomes = await collect(client.run_many(asked(4), window=1, download_to=tmp_path))
    kinds = [type(outcome.error) for outcome in outcomes]
    assert kinds == [DownloadError, TaskFailedError, InvalidRequestError, type(None)]
    assert [outcome.task and outcome.task.status for outcome in outcomes] == [
        *("completed", "failed", None, "completed")
    ]
    assert [path.name for path in outcomes[3].paths] == ["t-0003.png"]


@BOTH
async def test_what_is_no_request_is_an_outcome(
    service: FakeService, client: AsyncClient, many: Any
) -> None:
    """Items that cannot be submitted are outcomes with the item, and do not end the batch."""
    model = models.NanoBanana(prompt="a kitten")
    requests: list[Any] = [7, None, model, *asked(2)]
    outcomes = await collect(many(client, requests))
    kinds = [type(outcome.error) for outcome in outcomes]
    assert kinds == [TypeError, TypeError, type(None), type(None), type(None)]
    assert [outcome.item for outcome in outcomes] == requests
    assert [outcome.request for outcome in outcomes[:2]] == [None, None]
    assert outcomes[2].request.model == "nano_banana"
    assert len(service.charges) == 3


async def test_results_are_saved(service: FakeService, client: AsyncClient, tmp_path: Path) -> None:
    """With a directory each outcome has the paths of its files."""
    service.outputs = 2
    outcomes = await collect(client.run_many(asked(5), download_to=str(tmp_path / "results")))
    assert [path.name for path in outcomes[3].paths] == ["t-0003-1.png", "t-0003-2.png"]
    assert len({path for outcome in outcomes for path in outcome.paths if path.exists()}) == 10


async def test_a_task_that_takes_too_long_is_an_outcome(
    service: FakeService, client: AsyncClient
) -> None:
    """A task that is alive at its timeout is an outcome with the task in its error."""
    service.durations = 100
    policy = PollPolicy(first=30, step=30, growth=1, jitter=0)
    outcomes = await collect(
        client.with_options(polling=policy).run_many(asked(3), timeout=70, window=1)
    )
    for outcome in outcomes:
        assert isinstance(outcome.error, TaskTimeoutError)
        assert outcome.error.task.status is TaskStatus.PROCESSING
    assert all(outcome.ok for outcome in await collect(client.run_many([])))


async def test_the_timeout_of_a_task_begins_with_its_acceptance(
    service: FakeService, connect: Connect
) -> None:
    """The last of the submits is queued for longer than that."""
    service.durations = 50
    policy = PollPolicy(first=30, step=30, growth=1, jitter=0)
    client = connect(max_rate=0.1, polling=policy)
    batch = client.run_many(asked(20), timeout=150)
    began = client._shared.clock.now()
    assert [outcome.ok for outcome in await collect(batch)] == [True] * 20
    assert client._shared.clock.now() - began > 190


@BOTH
async def test_a_source_that_raises_is_heard(
    service: FakeService, client: AsyncClient, many: Any
) -> None:
    """An error of the source comes after the outcomes of all that it gave."""

    def source() -> Any:
        yield from asked(20)
        raise ZeroDivisionError("mine")

    outcomes: list[Any] = []

    async def consume() -> None:
        async for outcome in many(client, source()):
            outcomes.append(outcome)  # noqa: PERF401 - it raises in the end

    with pytest.raises(ZeroDivisionError, match="mine"):
        await consume()
    assert all(outcome.ok for outcome in outcomes)
    assert len(outcomes) == len(service.charges) == 20


@BOTH
async def test_leaving_stops_the_pulling(client: AsyncClient, many: Any) -> None:
    """A loop that is left pulls and submits nothing more, and leaves no task."""
    pulled: list[int] = []

    def pull(request: SubmitRequest) -> SubmitRequest:
        pulled.append(1)
        return request

    async with aclosing(many(client, map(pull, asked(1000)))) as batch:
        async for _ in batch:  # pragma: no branch
            break
    assert workers() == 0
    assert client.stats.in_flight == 0
    assert len(pulled) < 400


async def test_a_batch_that_is_cancelled_leaves_nothing(
    service: FakeService, client: AsyncClient, until: Until
) -> None:
    """Cancelled while its requests hang, a batch ends at once and its slots are free."""
    service.script("submit", *[Fault.hang()] * 64)
    task = asyncio.create_task(collect(client.run_many(asked(200))))
    await until(lambda: service.in_flight == 64)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert workers() == 0
    assert (client.stats.in_flight, client.stats.waiting) == (0, 0)


async def test_a_closed_client_ends_the_batch(connect: Connect) -> None:
    """What is wrong with the program and not with a request is raised, not an outcome."""
    client = connect()
    await client.close()
    with pytest.raises(RuntimeError, match="closed"):
        await anext(client.run_many(asked(3)))


@pytest.mark.parametrize(
    ("many", "options", "error"),
    [
        (AsyncClient.run_many, {"window": 0}, ValueError),
        (AsyncClient.run_many, {"window": 1.5}, TypeError),
        (AsyncClient.run_many, {"timeout": -1}, ValueError),
        (AsyncClient.run_many, {"timeout": "1"}, TypeError),
        (AsyncClient.run_many, {"max_credits": -1}, ValueError),
        (AsyncClient.submit_many, {"max_credits": "1"}, TypeError),
        (AsyncClient.submit_many, {"source": None}, TypeError),
        (AsyncClient.run_many, {"source": 7}, TypeError),
    ],
)
async def test_bad_arguments_are_rejected_at_the_call(
    client: AsyncClient, many: Any, options: Any, error: type[Exception]
) -> None:
    """An argument that cannot be used is an error of the call itself, before anything is pulled."""
    source = options.pop("source", [])
    with pytest.raises(error):
        many(client, source, **options)


async def test_a_wide_window_needs_few_connections(
    service: FakeService, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """Hundreds of outstanding tasks share a handful of connections."""
    caplog.set_level(logging.WARNING)
    client = connect(max_concurrency=8)
    service.durations = 60
    polling = PollPolicy(first=61, step=1, jitter=0)
    batch = client.with_options(polling=polling).run_many(asked(400), window=400)
    outcomes = await collect(batch)
    assert all(outcome.ok for outcome in outcomes)
    assert service.peak_connections <= 8


async def test_a_service_with_a_rate_limit_serves_the_whole_batch(
    connect: Connect, clock: Clock
) -> None:
    """With 64 slots and a limit of 400 per second all complete, none with its last attempt."""
    async with FakeService(max_rate=400, burst=20, used_id="charge", clock=clock) as service:
        client = connect(api_key=service.api_key, base_url=service.url, retry=RetryPolicy())
        outcomes = await collect(client.submit_many(asked(600)))
        assert all(outcome.ok for outcome in outcomes)
        # Those of the first moment, when nothing was known: at most one for each slot and a few.
        assert service.rejections[429] == client.stats.rate_limited <= 64 + 30
        assert len(service.charges) == 600
        assert max(service.posts(request.out_task_id) for request in asked(600)) < 5


@BOTH
@pytest.mark.parametrize("used_id", ["reject", "return", "charge"])
@pytest.mark.parametrize("limit", [None, 1000])
async def test_two_batches_share_a_client_and_a_ledger(
    service: FakeService,
    client: AsyncClient,
    tmp_path: Path,
    many: Any,
    used_id: Any,
    limit: float | None,
) -> None:
    """Two batches at once over one ledger submit each ID once, however slow the responses are."""
    service.used_id = used_id
    service.script("submit", *[Fault.delay(0.05)] * 8)
    async with Ledger(tmp_path / "run.db") as ledger:
        batches = [
            collect(many(client, asked(20), ledger=ledger, max_credits=limit)) for _ in range(2)
        ]
        for outcomes in await asyncio.gather(*batches):
            assert [outcome.error for outcome in outcomes] == [None] * 20
    assert [service.posts(request.out_task_id) for request in asked(20)] == [1] * 20


@BOTH
async def test_two_batches_share_a_client(
    service: FakeService, client: AsyncClient, many: Any
) -> None:
    """Two batches at once over one client get each its own outcomes, out of one set of slots."""
    first, second = (
        asked(100),
        [evolve(request, out_task_id=f"b-{n}") for n, request in enumerate(asked(100))],
    )
    both = await asyncio.gather(collect(many(client, first)), collect(many(client, second)))
    assert [[o.request for o in outcomes] for outcomes in both] == [first, second]
    assert len(service.charges) == 200
    assert service.peak_in_flight <= 64


async def test_files_that_cannot_be_looked_at_are_saved_again(
    service: FakeService, client: AsyncClient, tmp_path: Path
) -> None:
    path, results = tmp_path / "run.db", tmp_path / "results"
    for _ in range(2):
        async with Ledger(path) as ledger:
            batch = client.run_many(asked(2), ledger=ledger, download_to=results)
            outcomes = await collect(batch)
        assert all(outcome.paths[0].exists() for outcome in outcomes)
        with closing(sqlite3.connect(path)) as db:
            db.execute(
                "UPDATE tasks SET paths = ?",
                (json.dumps([{"path": f"{results}/{'x' * 5000}", "size": 1, "sha256": ""}]),),
            )
            db.commit()
    assert service.counts["/upload"] == 4


@BOTH
async def test_an_id_that_was_used_before_for_the_same_is_not_paid_again(
    service: FakeService, client: AsyncClient, tmp_path: Path, many: Any
) -> None:
    """What was rejected for its ID is not retried under a new one: the service has our task."""
    [wanted] = asked(1)
    await client.submit(wanted)  # and the record of it is lost
    async with Ledger(tmp_path / "run.db") as ledger:
        [first] = await collect(many(client, [wanted], ledger=ledger))
        assert isinstance(first.error, InvalidRequestError)
        [second] = await collect(
            many(client, [wanted], ledger=ledger, retry_failed=True, max_credits=1000)
        )
    assert second.result().out_task_id == wanted.out_task_id
    assert len(service.charges) == 1


async def test_a_directory_that_cannot_be_is_told_before_anything_is_spent(
    service: FakeService, client: AsyncClient, tmp_path: Path
) -> None:
    """Where results could not be saved, nothing is submitted."""
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        await collect(client.run_many(asked(3), download_to=tmp_path / "file"))
    assert service.requests == []


async def test_an_outcome_gives_its_task_or_raises(
    service: FakeService, client: AsyncClient
) -> None:
    """`result` is what awaiting the request alone would have been."""
    service.script("submit", Fault.ok(), Fault.bad_request("no"))
    good, bad = await collect(client.submit_many(asked(2), ordered=True))
    assert good.result() is good.task
    with pytest.raises(InvalidRequestError, match="no"):
        bad.result()


@BOTH
@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"ledger": "run.db"}, "ledger must be an open Ledger, got str"),
        ({"source": "ab"}, "source must be an iterable of requests or items, got str"),
        ({"source": {"a": 1}}, "source must be an iterable of requests or items, got dict"),
    ],
)
async def test_a_wrong_argument_is_told_at_once(
    client: AsyncClient, many: Any, options: dict[str, Any], told: str
) -> None:
    """What cannot work is a TypeError of the call itself, before anything is pulled or sent."""
    with pytest.raises(TypeError, match=told):
        many(client, **{"source": asked(1), **options})


async def test_a_request_is_made_of_each_item(client: AsyncClient, tmp_path: Path) -> None:
    """Any items will do with `request=`; outcomes have them, and its errors are theirs alone."""

    def request(item: dict[str, Any]) -> Any:
        if item["kind"] == "typed":
            return models.NanoBanana(prompt=item["prompt"])
        return "nano_banana", {"prompt": item["prompt"]}

    items: list[dict[str, Any]] = [
        {"kind": "typed", "prompt": "a"},
        {"kind": "named", "prompt": "b"},
        {"kind": "named"},
        {"kind": "named", "prompt": "d"},
    ]
    batch = client.run_many(
        items,
        request=request,
        download_to=tmp_path,
        name=lambda item: {"a": "first", "b": "second"}[item["prompt"]],
    )
    outcomes = await collect(batch)
    assert [outcome.item for outcome in outcomes] == items
    assert [outcome.request and outcome.request.model for outcome in outcomes] == [
        *("nano_banana", "nano_banana", None, "nano_banana")
    ]
    assert [outcome.ok for outcome in outcomes] == [True, True, False, False]
    assert [path.name for outcome in outcomes for path in outcome.paths] == [
        *("first.png", "second.png")
    ]
    assert isinstance(outcomes[2].error, KeyError)
    assert isinstance(outcomes[3].error, KeyError)
    assert outcomes[3].task is None  # named before it is paid for
    nameless: Any = lambda _: None  # noqa: E731
    [outcome] = await collect(client.run_many(asked(1), download_to=tmp_path, name=nameless))
    assert (outcome.task, str(outcome.error)) == (
        None,
        "the function name must return a str, got NoneType",
    )


@BOTH
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_batch_that_is_stopped_finishes_what_it_took(
    service: FakeService, client: AsyncClient, many: Any, *, asynchronous: bool
) -> None:
    """After `stop` nothing more is pulled, and each item that was pulled has its outcome."""
    pulled: list[SubmitRequest] = []

    def pull() -> Iterable[SubmitRequest]:
        for request in asked(1000):
            pulled.append(request)
            yield request

    async with many(client, stream(pull()) if asynchronous else pull()) as batch:
        outcomes = [await anext(batch)]
        batch.stop()
        outcomes += [outcome async for outcome in batch]
        assert batch.progress.succeeded == len(outcomes)
        assert batch.stopped is None
    assert len(outcomes) in {len(pulled), len(pulled) - 1}
    assert len(service.charges) == len(outcomes) < 600


async def test_a_source_that_waits_does_not_hold_up_a_stop(client: AsyncClient) -> None:
    """A batch whose source has nothing to give at the moment ends when it is stopped."""

    async def source() -> AsyncIterator[SubmitRequest]:
        yield asked(1)[0]
        await asyncio.Event().wait()

    async with client.submit_many(source()) as batch:
        await anext(batch)
        batch.stop()
        assert [outcome async for outcome in batch] == []
