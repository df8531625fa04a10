"""Each fault at each place of an exchange, for each way to treat a used ID.

What is charged for is what was submitted, once each.
"""

import asyncio
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from aireiter_async import (
    AmbiguousSubmitError,
    AsyncClient,
    BudgetExceededError,
    InvalidRequestError,
    Ledger,
    PollPolicy,
    RateLimitError,
    RetryPolicy,
    ServerError,
    SubmitRequest,
    TaskNotFoundError,
    TaskStatus,
    TaskTimeoutError,
)
from aireiter_async.testing import FakeService, Fault
from tests.faults import AMBIGUOUS, PASSING, RATE_LIMITED
from tests.hostile_time import skip_idle_time

pytestmark = pytest.mark.usefixtures("path_in_soak")

Connect = Callable[..., AsyncClient]

GRACIOUS = PollPolicy(first=0, step=0, cap=0, grace=60)
QUICK = RetryPolicy(base=0, settle=0)
USED_IDS = ["reject", "return", "charge"]
ENVELOPES = ["plain", "ok", "code", "list"]

AFTER = {name: each.after for name, each in AMBIGUOUS.items()}
BEFORE = {
    **{name: each.before for name, each in AMBIGUOUS.items()},
    "drip": Fault.drip(30),
    **RATE_LIMITED,
}
# What a poll may meet.
POLLS: dict[str, Fault] = {
    **PASSING,
    "hang": Fault.hang(),
    "slow": Fault.drip(0.01),
    "odd status": Fault.task_status("dreaming"),
    "not found": Fault.not_found(),
}
SLOW = {"drip", *(name for name, each in AMBIGUOUS.items() if each.slow)}
QUICK_POLLS = [fault for name, fault in POLLS.items() if name not in SLOW | {"slow"}]
# One of each kind of thing that can become of a submit.
KINDS: dict[str, Fault] = {
    "taken": AFTER["lost"],
    "taken, and a page": AFTER["HTML 502"],
    "not taken": BEFORE["reset"],
    "pace": RATE_LIMITED["429"],
    "refused": Fault.bad_request("Invalid aspect_ratio"),
}


def patience(*names: str) -> dict[str, Any]:
    """Return options for a client that outlasts no fault which takes 30 s."""
    if SLOW & set(names):
        skip_idle_time()
    return {"timeout": 20, "retry": QUICK}


async def submit(service: FakeService, client: AsyncClient, used_id: Any, **options: Any) -> None:
    """Run one task; it must have been charged once."""
    service.used_id = used_id
    request = SubmitRequest("veo3_1", {"prompt": "a kitten, 小猫"}, **options)
    task = await client.run(request)
    assert (task.out_task_id, task.status) == (request.out_task_id, TaskStatus.COMPLETED)
    assert [charge.out_task_id for charge in service.charges] == [request.out_task_id]
    assert service.credits == 1_000_000 - service.charges[0].credits


@pytest.mark.parametrize("used_id", USED_IDS)
@pytest.mark.parametrize("looks", [0, 3])
@pytest.mark.parametrize("name", AFTER)
async def test_a_fault_after_acceptance(
    service: FakeService, connect: Connect, name: str, looks: int, used_id: Any
) -> None:
    """The task is charged once, whether it is visible at once or late."""
    service.visible_after_polls = looks
    service.script("submit", AFTER[name])
    client = connect(**patience(name))
    await submit(service, client, used_id)
    assert sum(service.posts(charge.out_task_id) for charge in service.charges) == 1
    assert (client.stats.submitted, client.stats.settled) == (1, 1)


@pytest.mark.parametrize("used_id", USED_IDS)
@pytest.mark.parametrize("name", BEFORE)
async def test_a_fault_before_acceptance(
    service: FakeService, connect: Connect, name: str, used_id: Any
) -> None:
    """The submit is sent again, and the task charged once."""
    service.script("submit", BEFORE[name])
    client = connect(**patience(name))
    await submit(service, client, used_id)
    found = name == "drip"  # whose response is on its way when the time is over
    assert sum(service.posts(charge.out_task_id) for charge in service.charges) == 2 - found
    assert (client.stats.submitted, client.stats.settled) == (1, found)


@pytest.mark.parametrize("used_id", ["charge", pytest.param("reject", marks=pytest.mark.soak)])
@pytest.mark.parametrize("second", AFTER)
@pytest.mark.parametrize("first", ["lost", "500", "429", "HTML 502"])
async def test_two_faults_in_a_row(
    service: FakeService, connect: Connect, first: str, second: str, used_id: Any
) -> None:
    """The second comes after acceptance."""
    service.script("submit", BEFORE[first], AFTER[second])
    await submit(service, connect(**patience(first, second)), used_id)


@pytest.mark.parametrize(
    ("used_id", "looks"),
    [
        *(("reject", 5), ("return", 0), ("charge", 3)),  # 5: visible after the settling
        *(
            pytest.param(*each, marks=pytest.mark.soak)
            for each in [("reject", 0), ("reject", 3), ("return", 3), ("return", 5), ("charge", 0)]
        ),
    ],
)
async def test_three_faults_in_a_row(
    service: FakeService, client: AsyncClient, used_id: Any, looks: int
) -> None:
    """An accepted task is the outcome, charged once.

    A refusal is the outcome only of what was not taken before, and nothing is charged then.
    """
    service.used_id, service.visible_after_polls = used_id, looks
    for names in product(KINDS, repeat=3):
        service.script("submit", *(KINDS[name] for name in names))
        request = SubmitRequest("veo3_1", {})
        decided = next((name for name in names if name.startswith(("taken", "refused"))), None)
        if decided == "refused":
            with pytest.raises(InvalidRequestError, match="aspect_ratio"):
                await client.submit(request)
        else:
            task = await client.submit(request)
            assert task.out_task_id == request.out_task_id
        charges = [charge.out_task_id for charge in service.charges]
        assert charges.count(request.out_task_id) == (decided != "refused"), names
        service._plan._scripts["submit"].clear()


@pytest.mark.parametrize("used_id", USED_IDS)
@pytest.mark.parametrize("stride", [3, pytest.param(1, marks=pytest.mark.soak)])
async def test_two_faults_while_settling(
    service: FakeService, client: AsyncClient, used_id: str, stride: int
) -> None:
    service.used_id, service.visible_after_polls = used_id, 1  # type: ignore[assignment]
    pairs = list(product(QUICK_POLLS, repeat=2))
    for faults in pairs[USED_IDS.index(used_id) % stride :: stride]:  # together, all of them
        service.script("submit", Fault.lost_response(accepted=True))
        service.script("query", *faults)
        await client.submit(SubmitRequest("veo3_1", {}))
        assert len(service.charges) == len(service.tasks) == service.counts["/api/openapi/submit"]


@pytest.mark.parametrize("used_id", USED_IDS)
@pytest.mark.parametrize("taken", [False, True])
async def test_faults_after_a_crash(
    service: FakeService, client: AsyncClient, used_id: Any, *, taken: bool
) -> None:
    service.used_id = used_id
    for look, kind in product(QUICK_POLLS, set(KINDS) - {"refused"}):
        request = SubmitRequest("veo3_1", {})
        if taken:
            await client.submit(request)
        service.script("query", look)
        service.script("submit", KINDS[kind])
        task = await client.submit(request, maybe_sent=True)
        assert task.out_task_id == request.out_task_id
        service._plan._scripts["submit"].clear()
        assert len(service.charges) == len(service.tasks)
        assert service.posts(request.out_task_id) == (1 if taken or kind.startswith("taken") else 2)


@pytest.mark.parametrize("name", [*AFTER, *(f"not taken: {name}" for name in BEFORE)])
async def test_a_batch_that_is_left_ambiguous(
    service: FakeService, connect: Connect, tmp_path: Path, name: str
) -> None:
    """The next run settles it."""
    fault = AFTER[name] if name in AFTER else BEFORE[name.removeprefix("not taken: ")]
    requests = [SubmitRequest("veo3_1", {"n": n}) for n in range(2)]
    service.used_id = "charge"
    service.script("submit", fault)
    service.script("query", *[Fault.server_error()] * 5)  # as many as a look has attempts
    # Its ledger waits for a thread: time cannot be skipped.
    slow = name.removeprefix("not taken: ") in SLOW
    client = connect(timeout=0.5 if slow else 20, retry=QUICK)
    for ambiguous in ("429" not in name, False):
        async with Ledger(tmp_path / "run.db") as ledger:
            outcomes = client.run_many(requests, ledger=ledger, window=1)
            ends = [outcome.error async for outcome in outcomes]
        assert [isinstance(end, AmbiguousSubmitError) for end in ends].count(True) == ambiguous
    assert ends == [None, None]
    assert len(service.charges) == len(service.tasks) == 2


@pytest.mark.parametrize(
    ("fault", "error", "done"),
    [
        (KINDS["refused"], InvalidRequestError, 3),
        (Fault.too_many_requests(1e6), RateLimitError, 3),
        (KINDS["taken"], BudgetExceededError, 3),
        (KINDS["not taken"], AmbiguousSubmitError, 2),
    ],
    ids=["refused", "too long a wait", "taken", "not taken"],
)
async def test_a_limit_counts_what_may_have_been_taken(
    service: FakeService,
    client: AsyncClient,
    fault: Fault,
    error: type[Exception],
    done: int,
) -> None:
    service.price = 2.0
    service.script("submit", Fault.ok(), fault)
    service.script("query", Fault.ok(), *[Fault.server_error()] * 5)
    requests = [SubmitRequest("veo3_1", {}) for _ in range(5)]
    outcomes = client.run_many(requests, window=1, max_credits=6)
    ends = [outcome.error async for outcome in outcomes]
    assert [type(end) for end in ends if end][:1] == [error]
    assert ends.count(None) == done
    assert isinstance(ends[-1], BudgetExceededError)


async def test_a_resumed_wait_has_its_own_timeout(
    service: FakeService, connect: Connect, tmp_path: Path
) -> None:
    """It does not count from the run that submitted the task."""
    service.durations = 1e9
    client = connect(polling=PollPolicy(first=3, step=3))
    requests = [SubmitRequest("veo3_1", {})]
    async with Ledger(tmp_path / "run.db") as ledger:
        async for _ in client.submit_many(requests, ledger=ledger):
            pass
        [outcome] = [each async for each in client.run_many(requests, ledger=ledger, timeout=9)]
    assert isinstance(outcome.error, TaskTimeoutError)
    assert len(service.charges) == 1


@pytest.mark.parametrize("used_id", USED_IDS)
@pytest.mark.parametrize("name", POLLS)
@pytest.mark.parametrize("times", [1, 4])
async def test_a_fault_while_settling(
    service: FakeService, connect: Connect, name: str, times: int, used_id: Any
) -> None:
    """Polls for a lost submit fail as well: the task is charged once."""
    # "Not found" all through, of a task that is there, cannot be told from a task that is not:
    # where a used id is charged again, only looking for longer helps.
    if name == "not found" and times == 4 and used_id == "charge":
        times = 3
    service.script("submit", Fault.lost_response(accepted=True))
    service.script("query", *[POLLS[name]] * times)
    await submit(service, connect(**patience(name)), used_id)


@pytest.mark.parametrize("name", POLLS)
@pytest.mark.parametrize("look", [0, 2])
@pytest.mark.parametrize("late", [0, 2])
async def test_a_fault_while_polling(
    service: FakeService, connect: Connect, name: str, look: int, late: int
) -> None:
    """A failed poll does not end the wait."""
    service.visible_after_polls = late
    running = Fault.task_status("processing")
    service.script("query", *[running] * look, POLLS[name], POLLS[name], running)
    await submit(service, connect(**patience(name), polling=GRACIOUS), "charge")


@pytest.mark.parametrize("used_id", USED_IDS)
@pytest.mark.parametrize("envelope", ENVELOPES)
@pytest.mark.parametrize("form", ["live", "http", "envelope"])
async def test_every_form_of_response(
    service: FakeService, connect: Connect, envelope: Any, form: Any, used_id: Any
) -> None:
    """Lost responses are handled in every documented envelope."""
    service.envelope, service.rejection_form = envelope, form
    service.visible_after_polls = 2
    service.script("submit", Fault.reset(), Fault.truncated(accepted=True))
    service.script("query", Fault.ok(), Fault.lost_response(), Fault.html(502))
    await submit(service, connect(**patience()), used_id)


@pytest.mark.parametrize("used_id", USED_IDS)
@pytest.mark.parametrize("name", AFTER)
async def test_ambiguity_that_cannot_be_settled(
    service: FakeService, connect: Connect, name: str, used_id: Any
) -> None:
    """The error says so, and running the request again is safe."""
    service.script("submit", AFTER[name])
    service.script("query", *[Fault.server_error()] * 5)  # as many as a look has attempts
    client = connect(**patience(name))
    service.used_id = used_id
    request = SubmitRequest("veo3_1", {})
    with pytest.raises(AmbiguousSubmitError) as caught:
        await client.submit(request)
    assert caught.value.out_task_id == request.out_task_id
    task = await client.run(request, maybe_sent=True)
    assert task.status is TaskStatus.COMPLETED
    assert [charge.out_task_id for charge in service.charges] == [request.out_task_id]


async def test_any_response_lets_the_rate_grow(service: FakeService, connect: Connect) -> None:
    client = connect(retry=RetryPolicy(base=0, attempts=2))
    service.script("balance", *[Fault.too_many_requests(0)] * 4)
    await asyncio.gather(*(client.balance() for _ in range(4)))
    rates = [client.stats.rate or 0.0]
    for _ in range(5):
        with pytest.raises(TaskNotFoundError):
            await client.query("nobody")
        rates.append(client.stats.rate or 0.0)
    assert rates == sorted(set(rates))
    service.script("balance", *[Fault.server_error()] * 2)
    with pytest.raises(ServerError):
        await client.balance()
    assert client.stats.rate == rates[-1]


@pytest.mark.parametrize("used_id", USED_IDS)
async def test_a_service_that_restarts_in_between(
    service: FakeService, connect: Connect, used_id: Any
) -> None:
    """Responses that are lost with all connections leave each task charged once."""
    client = connect(**patience())
    for _ in range(3):
        await client.balance()
        await service.close()
        await service.start()
        service.script("submit", Fault.lost_response(accepted=True))
        request = SubmitRequest("veo3_1", {})
        service.used_id = used_id
        await client.run(request)
    assert len(service.charges) == len(service.tasks) == 3
