"""The budget: credits are reserved before they are spent, and never more than there are."""

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from aireiter_async import (
    AmbiguousSubmitError,
    AsyncClient,
    BatchProgress,
    BudgetExceededError,
    Ledger,
    LedgerState,
    Outcome,
    PollPolicy,
    RateLimitError,
    RetryPolicy,
    SubmitRequest,
    TaskFailedError,
    TaskNotFoundError,
    models,
)
from aireiter_async._batch._budget import Budget, Unpriced
from aireiter_async._batch._prices import price_kind
from aireiter_async._ledger import journal_of
from aireiter_async.testing import FakeService, Fault

Connect = Callable[..., AsyncClient]
Until = Callable[[Callable[[], object]], Awaitable[None]]

ONCE = RetryPolicy(attempts=1, base=0, settle=0)


def asked(count: int, *names: str) -> list[SubmitRequest]:
    """Make requests for some models in turn."""
    return [
        SubmitRequest(
            names[n % len(names)], {"seed": n, "prompt": f"cat {n}", "url": f"http://a/{n}"}
        )
        for n in range(count)
    ]


async def collect(batch: AsyncIterator[Outcome[Any]]) -> list[Any]:
    """Return all outcomes of a batch."""
    return [outcome async for outcome in batch]


def spent(service: FakeService) -> float:
    """Return the credits charged, refunds not counted."""
    return sum(charge.credits for charge in service.charges)


def kinds(outcomes: list[Any]) -> list[type | None]:
    """Return the types of the outcomes' errors, in the order of the input."""
    found = sorted(outcomes, key=lambda outcome: outcome.index)
    return [None if outcome.error is None else type(outcome.error) for outcome in found]


@pytest.mark.parametrize("many", [AsyncClient.submit_many, AsyncClient.run_many])
@pytest.mark.parametrize("limit", [1, 2.5, 10, 33.3, 64])
async def test_a_limit_is_not_passed(
    service: FakeService, client: AsyncClient, many: Any, limit: float
) -> None:
    """With 64 slots and mixed prices the charges stay within the limit, and come close to it."""
    service.price = {"cheap": 0.5, "dear": 2.5}
    outcomes = await collect(many(client, asked(300, "cheap", "dear"), max_credits=limit))
    done = [outcome for outcome in outcomes if outcome.ok]
    refused = [outcome for outcome in outcomes if isinstance(outcome.error, BudgetExceededError)]
    assert (len(outcomes), len(done) + len(refused)) == (300, 300)
    # The first task of a kind has no price yet: it may exceed the limit by its own.
    assert spent(service) <= limit + (2.5 if limit < 3 else 0.0)
    assert spent(service) > limit - 2.5
    assert service.counts["/api/openapi/submit"] == len(done)
    error = refused[0].error
    assert isinstance(error, BudgetExceededError)
    assert error.out_task_id == refused[0].request.out_task_id
    assert f"max_credits is {limit:g}" in str(error)


async def test_fractions_add_up(service: FakeService, client: AsyncClient) -> None:
    """Ten tasks of a tenth of a credit fit into one credit."""
    service.price = 0.1
    outcomes = await collect(client.submit_many(asked(12, "m"), max_credits=1))
    assert [outcome.ok for outcome in outcomes].count(True) == 10


async def test_no_credits_are_no_submits(service: FakeService, client: AsyncClient) -> None:
    """A limit of zero sends nothing."""
    outcomes = await collect(client.run_many(asked(5, "a", "b"), max_credits=0))
    assert kinds(outcomes) == [BudgetExceededError] * 5
    assert service.counts.total() == 0


async def test_cheaper_requests_are_still_submitted(
    service: FakeService, client: AsyncClient
) -> None:
    service.price = {"cheap": 1, "dear": 6}
    requests = asked(2, "cheap", "dear") + asked(1, "dear") + asked(5, "cheap")
    batch = client.run_many(requests, max_credits=10, window=1)
    outcomes = await collect(batch)
    refused = BudgetExceededError
    assert kinds(outcomes) == [None, None, refused, None, None, None, refused, refused]
    assert isinstance(batch.stopped, BudgetExceededError)


async def test_one_task_of_unknown_price_goes_at_a_time(
    service: FakeService, client: AsyncClient
) -> None:
    """Across models and kinds; from then on, seeds, texts and URLs do not hold anything up."""
    seen: list[tuple[str, Any]] = []
    together: list[int] = []

    def price(model: str, params: Any) -> float:
        seen.append((model, params["size"]))
        together.append(service.in_flight)
        return 1.0

    service.price = price
    requests = [
        SubmitRequest(f"model_{n % 2}", {"size": n // 2 % 2, "seed": n, "prompt": f"cat {n}"})
        for n in range(64)
    ]
    service.script("submit", *[Fault.delay(0.01)] * 64)
    await collect(client.submit_many(requests, max_credits=100))
    firsts = {kind: seen.index(kind) for kind in set(seen)}
    assert len(firsts) == 4
    assert together[0] == 1
    assert service.peak_in_flight > 8


async def test_tasks_of_known_price_run_beside_one_of_unknown_price(
    service: FakeService, client: AsyncClient, until: Until
) -> None:
    budget = client.budget(100)
    await collect(client.submit_many(asked(1, "known"), max_credits=budget))
    service.script("submit", Fault.hang())
    hanging = asyncio.create_task(
        collect(client.submit_many(asked(2, "unknown", "another"), max_credits=budget))
    )
    await until(lambda: service.in_flight)
    outcomes = await collect(client.submit_many(asked(40, "known"), max_credits=budget))
    assert all(outcome.ok for outcome in outcomes)
    assert {charge.model for charge in service.charges} == {"known"}
    hanging.cancel()
    await asyncio.wait([hanging])
    outcomes = await collect(client.submit_many(asked(4, "another"), max_credits=budget))
    assert kinds(outcomes) == [BudgetExceededError] * 4  # what the lost one has cost is not known


async def test_without_a_limit_nobody_waits_for_a_price(
    service: FakeService, client: AsyncClient, until: Until
) -> None:
    """A batch without a limit sends its first requests together."""
    service.script("submit", *[Fault.hang()] * 32)
    batch = asyncio.create_task(collect(client.submit_many(asked(32, "m"))))
    await until(lambda: service.in_flight == 32)
    batch.cancel()
    await asyncio.wait([batch])


ESTIMATES = [True, False, "zero"]


@pytest.mark.parametrize("many", [AsyncClient.submit_many, AsyncClient.run_many])
@pytest.mark.parametrize("estimates", ESTIMATES)
@pytest.mark.parametrize("lost", [0, 3])
async def test_the_limit_holds_whatever_the_service_tells(
    service: FakeService, connect: Connect, many: Any, estimates: Any, lost: int
) -> None:
    """Case 15: responses are lost, and the price comes from estimates, charges or the balance."""
    service.price, service.estimates = 3.0, estimates
    client = connect(retry=ONCE)
    service.script("submit", Fault.ok(), *[Fault.lost_response(accepted=True)] * lost)
    service.script("query", *[Fault.html(502)] * lost)
    outcomes = await collect(many(client, asked(150, "m"), max_credits=12))
    assert spent(service) == 12
    assert kinds(outcomes).count(AmbiguousSubmitError) <= lost
    assert kinds(outcomes).count(BudgetExceededError) == 146


@pytest.mark.parametrize("estimates", [False, "zero"])
async def test_a_price_that_cannot_be_learned_is_named(
    service: FakeService, client: AsyncClient, estimates: Any
) -> None:
    service.estimates = estimates
    service.script("balance", *[Fault.not_found()] * 99)
    batch = client.submit_many(asked(50, "m"), max_credits=10)
    outcomes = await collect(batch)
    assert kinds(outcomes).count(BudgetExceededError) == 49
    error = batch.stopped
    assert isinstance(error, BudgetExceededError)
    assert "the price of a m task is unknown" in str(error)
    assert "without max_credits" in error.advice
    assert len(service.charges) == 1


@pytest.mark.parametrize("many", [AsyncClient.submit_many, AsyncClient.run_many])
async def test_a_price_is_learned_for_each_kind(
    service: FakeService, client: AsyncClient, many: Any
) -> None:
    """Case 16: one model, tasks of 2 and of 30 credits by their parameters."""
    service.price = lambda _model, params: 30.0 if params["resolution"] == "1080p" else 2.0
    requests = [
        SubmitRequest(
            "seedance_1_5_pro",
            {
                "prompt": f"cat {n}",
                "aspect_ratio": "16:9",
                "resolution": "720p" if n % 3 else "1080p",
            },
        )
        for n in range(150)
    ]
    outcomes = await collect(many(client, requests, max_credits=100))
    assert 98 < spent(service) <= 100
    assert kinds(outcomes).count(None) == len(service.charges)


@pytest.mark.parametrize("many", [AsyncClient.submit_many, AsyncClient.run_many])
async def test_batches_share_a_budget(service: FakeService, connect: Connect, many: Any) -> None:
    """Case 153: a lost response keeps its reservation, a rejected or failed task releases it."""
    service.price = 3.0
    service.script("submit", Fault.ok(), Fault.html(502), Fault.bad_request("no"), Fault.failed())
    service.script("query", Fault.html(502))
    client = connect(retry=ONCE)
    budget = client.budget(20)
    batches = [many(client, asked(100, "m"), max_credits=budget) for _ in range(2)]
    outcomes = [each for both in await asyncio.gather(*map(collect, batches)) for each in both]
    errors = Counter(type(each.error) for each in outcomes)
    assert errors[AmbiguousSubmitError] == 1
    # Of 20 credits 3 are kept for the lost one; that a task has failed is only seen by waiting.
    assert errors[type(None)] == 5
    assert budget.max_credits == 20
    assert budget.committed == 18
    assert repr(budget) == "<Budget: 18 of 20 credits>"


async def test_a_ledger_is_counted_once_by_batches_that_share_a_budget(
    service: FakeService, client: AsyncClient, tmp_path: Path
) -> None:
    service.price = 2.0
    async with Ledger(tmp_path / "run.db") as ledger:
        await collect(client.submit_many(asked(3, "m"), ledger=ledger))
        budget = client.budget(10)
        for count in (4, 9):
            await collect(client.run_many(asked(count, "m"), ledger=ledger, max_credits=budget))
    assert spent(service) == 10
    assert budget.committed == 10


async def test_a_budget_of_nothing_is_rejected(client: AsyncClient) -> None:
    with pytest.raises(ValueError, match="max_credits"):
        client.budget(-1)
    with pytest.raises(TypeError, match="max_credits"):
        client.submit_many([], max_credits="12")  # type: ignore[arg-type]


FIRST: dict[str, tuple[Fault, type[Exception]]] = {
    "failed": (Fault.failed(), TaskFailedError),
    "refused": (Fault.bad_request("no"), Exception),
    "rate": (Fault.too_many_requests(1e6), RateLimitError),
}


@pytest.mark.parametrize("estimates", ESTIMATES)
@pytest.mark.parametrize("name", FIRST)
async def test_a_first_task_without_a_price_holds_nobody_up(
    service: FakeService, connect: Connect, name: str, estimates: Any
) -> None:
    """When the first task of a kind comes to nothing, the next one tells the price."""
    fault, error = FIRST[name]
    service.price, service.estimates = 3.0, estimates
    service.script("submit", fault, fault)
    client = connect(retry=ONCE)
    outcomes = await collect(client.run_many(asked(60, "m"), max_credits=10))
    assert kinds(outcomes).count(None) == 3
    others = [o.error for o in outcomes if not isinstance(o.error, BudgetExceededError | None)]
    assert [type(other) for other in others] == [type(others[0])] * 2
    assert all(isinstance(other, error) for other in others)


async def test_a_lost_task_of_unknown_price_ends_the_batch(
    service: FakeService, connect: Connect
) -> None:
    service.price = 3.0
    service.script("submit", Fault.html(502))
    service.script("query", Fault.html(502))
    batch = connect(retry=ONCE).run_many(asked(60, "m"), max_credits=10)
    found = kinds(await collect(batch))
    assert Counter(found) == {AmbiguousSubmitError: 1, BudgetExceededError: 59}
    assert "the price of a m task is unknown" in str(batch.stopped)


async def test_a_task_that_times_out_stays_reserved(
    service: FakeService, client: AsyncClient
) -> None:
    """A task that is running at its timeout counts by its estimate."""
    service.durations, service.price = 1e9, 4.0
    outcomes = await collect(client.run_many(asked(5, "m"), max_credits=10, timeout=0))
    assert kinds(outcomes).count(BudgetExceededError) == 3


# The budget itself -----------------------------------------------------------------------------


def one(model: str = "m", **params: Any) -> SubmitRequest:
    """Make a request."""
    return SubmitRequest(model, params)


async def test_charges_replace_estimates_and_the_highest_price_is_reserved() -> None:
    budget = Budget(10)
    first = await budget.reserve(one())
    first.accepted(2)
    first.finished(5)
    first.close()
    assert budget.committed == 5
    second = await budget.reserve(one())
    assert budget.committed == 10
    second.accepted(2)
    second.finished(None)
    second.close()
    assert budget.committed == 7
    with pytest.raises(BudgetExceededError, match=r"7 are spent or reserved: a m task .* up to 5"):
        await budget.reserve(one())


async def test_a_request_that_does_not_fit_waits_while_a_reservation_is_open() -> None:
    budget = Budget(5)
    first = await budget.reserve(one())
    first.accepted(3)
    waiting = [asyncio.create_task(budget.reserve(one())) for _ in range(3)]
    await asyncio.sleep(0)
    cancelled = waiting.pop(0)
    cancelled.cancel()
    first.released()
    first.close()
    second = await waiting[0]
    assert budget.committed == 3
    second.accepted(3)
    second.close()
    with pytest.raises(BudgetExceededError):
        await waiting[1]
    assert cancelled.cancelled()
    for late in (second.accepted, second.finished):
        late(99)
    second.released()
    second.close()
    await second.measure()
    assert budget.committed == 3


async def test_a_caller_that_is_cancelled_when_its_turn_comes_releases_it() -> None:
    budget = Budget(5)
    first = await budget.reserve(one())
    waiting = asyncio.create_task(budget.reserve(one()))
    await asyncio.sleep(0)
    first.accepted(3)
    first.released()
    first.close()
    waiting.cancel()
    await asyncio.wait([waiting])
    assert budget.committed == 0
    assert (await budget.reserve(one())).credits == 3


async def test_a_balance_that_cannot_be_read_in_time_tells_nothing() -> None:
    """A submit in progress makes the balance useless; after a while the others continue."""
    balances = iter([100.0, 95.0, math.nan])

    async def get_balance() -> float:
        return next(balances)

    budget = Budget(50, get_balance, quiet=0)
    known = await budget.reserve(one("known"))
    known.accepted(None)
    await known.measure()
    known.close()
    assert budget.committed == 5
    under_way = await budget.reserve(one("known"))
    unknown = await budget.reserve(one("unknown"))
    assert not unknown.unpriced
    under_way.close()
    unknown.released()
    unknown.close()
    assert not (await budget.reserve(one("unknown"))).unpriced


async def test_a_loss_meanwhile_makes_a_measurement_useless() -> None:
    balances = iter([100.0, 90.0, 80.0])

    async def get_balance() -> float:
        return next(balances)

    budget = Budget(50, get_balance)
    budget.include(row("known", estimated_credits=2.0))
    unknown = await budget.reserve(one("unknown"))
    lost = await budget.reserve(one("known"))
    lost.close()
    unknown.accepted(None)
    await unknown.measure()
    assert unknown.credits is None
    unknown.finished(7)
    assert budget.committed == 2 + 2 + 7


async def test_other_tasks_are_no_part_of_what_the_balance_tells() -> None:
    account = 100.0

    async def get_balance() -> float:
        return account

    budget = Budget(50, get_balance)
    budget.include(row("known", estimated_credits=2.0))
    unknown = await budget.reserve(one("unknown"))
    for refunded in (False, True):
        known = await budget.reserve(one("known"))
        known.accepted(2.0)
        if refunded:
            known.released()
        known.close()
    account -= 7 + 2
    unknown.accepted(0)
    await unknown.measure()
    assert unknown.credits == 7
    unknown.finished(0)  # what the account lost is no gift
    assert unknown.credits == 7


async def test_a_budget_is_left_while_the_balance_is_read() -> None:
    asked_for = asyncio.Event()

    async def get_balance() -> float:
        asked_for.set()
        return float(await asyncio.get_running_loop().create_future())

    budget = Budget(50, get_balance)
    budget.include(row("m", state="intended"))
    for maybe_sent in (False, True):
        asked_for.clear()
        reserving = asyncio.create_task(
            budget.reserve(one("m" if maybe_sent else "n"), maybe_sent=maybe_sent)
        )
        if not maybe_sent:  # what m has cost is not known
            with pytest.raises(BudgetExceededError, match="price of a m task"):
                await reserving
            continue
        await asked_for.wait()
        reserving.cancel()
        await asyncio.wait([reserving])
    budget.remove(one("m"))
    assert budget.committed == 0


def row(model: str, state: str = "submitted", **columns: Any) -> dict[str, Any]:
    """Make a row of a ledger."""
    return {
        "model": model,
        "params": {},
        "state": state,
        "estimated_credits": None,
        "credits_used": None,
        **columns,
    }


async def test_rows_of_a_ledger_count() -> None:
    budget = Budget(100)
    budget.include(row("m", estimated_credits=2.0, credits_used=3.0))
    budget.include(row("m", estimated_credits=4.0))
    budget.include(row("m", state="uncertain", estimated_credits=0.0))
    budget.include(row("other", state="failed", estimated_credits=9.0))
    assert budget.committed == 3 + 4 + 4
    found = await budget.reserve(one("m"), maybe_sent=True)
    assert budget.committed == 11
    found.accepted(1.0)
    assert budget.committed == 8
    assert (await budget.reserve(one("other"))).credits == 9
    unlimited = Budget(None)
    unlimited.include_unknown(one())
    assert unlimited.reopen(one(), 3.0).unpriced is False
    assert (unlimited.max_credits, unlimited.committed) == (None, 0)


class Rows:
    """Stands in for a ledger whose rows come one at a time, after a turn of the loop."""

    path = Path("run.db")

    def __init__(self, *costs: float | None) -> None:
        self.costs, self.read = costs, 0

    async def rows(self) -> AsyncIterator[dict[str, Any]]:
        for cost in self.costs:
            self.read += 1
            await asyncio.sleep(0)
            yield {
                "out_task_id": f"{self.read}",
                "model": "m",
                "params": {},
                "state": "completed" if cost else "intended",
                "estimated_credits": cost,
                "credits_used": cost,
            }


async def no_price(_: Unpriced) -> None:
    raise AssertionError


async def test_all_batches_with_a_ledger_wait_until_it_is_included() -> None:
    budget, ledger = Budget(10.0), cast("Ledger", Rows(3.0, 4.0, 4.0))
    prepared = [asyncio.create_task(budget.prepare(ledger, no_price)) for _ in range(3)]
    await asyncio.wait(prepared, return_when=asyncio.FIRST_COMPLETED)
    assert (budget.committed, cast("Any", ledger).read) == (11, 3)
    await asyncio.gather(*prepared)
    with pytest.raises(BudgetExceededError):
        await budget.reserve(one())
    assert (budget.committed, cast("Any", ledger).read) == (11, 3)


@pytest.mark.parametrize("turns", range(6))
async def test_a_cancelled_batch_includes_a_ledger_wholly_or_not_at_all(turns: int) -> None:
    budget, ledger = Budget(10.0), cast("Ledger", Rows(3.0, 4.0, 4.0))
    preparing = asyncio.create_task(budget.prepare(ledger, no_price))
    for _ in range(turns):
        await asyncio.sleep(0)
    preparing.cancel()
    await asyncio.wait([preparing])
    assert budget.committed in {0, 11}
    await budget.prepare(ledger, no_price)
    assert budget.committed == 11


async def test_a_cancelled_batch_leaves_the_other_prices_to_the_next(until: Until) -> None:
    """A task that the service does not have is discounted once."""
    budget, ledger, looked = Budget(10.0), cast("Ledger", Rows(None, None)), list[str]()

    async def learn(unpriced: Unpriced) -> None:
        looked.append(unpriced.out_task_id)
        if looked == ["1", "2"]:
            await asyncio.Event().wait()
        budget.learn_from(unpriced, None)

    preparing = asyncio.create_task(budget.prepare(ledger, learn))
    await until(lambda: looked == ["1", "2"])
    preparing.cancel()
    await asyncio.wait([preparing])
    await budget.prepare(ledger, learn)
    await budget.prepare(ledger, learn)
    assert looked == ["1", "2", "2"]
    assert (await budget.reserve(one())).credits is None  # nothing else is unknown


@pytest.mark.parametrize(
    ("model", "params", "kind"),
    [
        (
            "seedance_1_5_pro",
            {"prompt": "x", "aspect_ratio": "16:9", "video_length": "5", "image_url": "https://a"},
            "seedance_1_5_pro (aspect_ratio=16:9, video_length=5)",
        ),
        ("seedream_v4", {"prompt": "x", "output_n": "3"}, "seedream_v4 (output_n=3)"),
        ("kling_v3_omni", {"multi_shot": True, "title": "no"}, "kling_v3_omni (multi_shot=true)"),
        ("new", {"seed": 1, "prompt": "cat", "n": 2.0, "hd": False}, "new (hd=false, n=2)"),
        ("new", {"mode": "pro", "x": None, "y": "x" * 41, "url": "HTTPS://a"}, "new (mode=pro)"),
        ("new", {"mode": "pro", "picture": "data:;base64,x"}, "new (mode=pro)"),
        ("new", {"a": {"seed": 4, "size": "1x1"}, "b": ["https://a", 7]}, "new (b=7, size=1x1)"),
        ("new", {}, "new"),
        ("new", {"n": 10**400, "m": -(10**400)}, "new (m huge, n huge)"),
    ],
)
def test_a_kind_is_what_can_set_the_price(model: str, params: dict[str, Any], kind: str) -> None:
    assert price_kind(model, params) == kind


def test_a_kind_is_the_same_for_a_typed_request() -> None:
    params: dict[str, Any] = {"prompt": "x", "aspect_ratio": "16:9", "video_length": 5}
    typed = models.Seedance15Pro(**params)
    assert price_kind("seedance_1_5_pro", typed) == price_kind("seedance_1_5_pro", params)


# Over earlier runs -----------------------------------------------------------------------------


async def test_earlier_runs_count(
    service: FakeService, client: AsyncClient, tmp_path: Path
) -> None:
    """What earlier runs with the same ledger have spent is spent; failed tasks are not."""
    service.price = 2.0
    service.script("submit", Fault.failed())
    for limit, done in [(6, 3), (6, 3), (11, 5), (100, 9)]:
        async with Ledger(tmp_path / "run.db") as ledger:
            outcomes = await collect(
                client.run_many(asked(10, "m"), ledger=ledger, max_credits=limit, window=1)
            )
        assert [outcome.ok for outcome in outcomes].count(True) == done
        assert kinds(outcomes)[0] is TaskFailedError
    assert spent(service) == 20


async def test_what_is_there_is_finished_without_credits(
    service: FakeService, client: AsyncClient, tmp_path: Path
) -> None:
    async with Ledger(tmp_path / "run.db") as ledger:
        await collect(client.submit_many(asked(5, "m"), ledger=ledger))
    async with Ledger(tmp_path / "run.db") as ledger:
        batch = client.run_many(asked(9, "m"), ledger=ledger, max_credits=3)
        outcomes = await collect(batch)
    assert kinds(outcomes) == [None] * 5 + [BudgetExceededError] * 4
    assert len(service.charges) == 5


async def test_what_is_resumed_is_counted_once(
    service: FakeService, client: AsyncClient, tmp_path: Path
) -> None:
    service.price = 2.0
    service.script("submit", Fault.failed())
    async with Ledger(tmp_path / "run.db") as ledger:
        await collect(client.submit_many(asked(3, "m"), ledger=ledger))
    async with Ledger(tmp_path / "run.db") as ledger:
        batch = client.run_many(asked(8, "m"), ledger=ledger, max_credits=10, window=1)
        outcomes = await collect(batch)
    assert kinds(outcomes) == [TaskFailedError, *[None] * 5, *[BudgetExceededError] * 2]


async def doubt(
    path: Path, client: AsyncClient, requests: list[SubmitRequest], *sent: int
) -> list[str]:
    """Leave a ledger as a run that died among its submits does; return the IDs."""
    ids: list[str] = []
    async with Ledger(path) as ledger:
        journal = journal_of(ledger)
        for position, request in enumerate(requests):
            content = request.encode_content()
            intent = journal.make_intent(1, request, content, unique=True, record=True)
            await journal.record(intent)
            named = request.with_id(intent.out_task_id)
            if position in sent:
                await client.submit(named)
            ids.append(named.out_task_id)
    return ids


@pytest.mark.parametrize(
    "many",
    [
        partial(AsyncClient.submit_many, max_credits=0),
        partial(AsyncClient.run_many, max_credits=0),
        partial(AsyncClient.run_many, max_credits=4, window=1),
    ],
)
async def test_what_may_have_been_sent_is_looked_for_without_credits(
    service: FakeService, client: AsyncClient, tmp_path: Path, many: Any
) -> None:
    service.price, service.used_id = 2.0, "charge"
    requests = asked(7, "m")
    ids = await doubt(tmp_path / "run.db", client, requests[:6], 0, 1, 2, 4)
    service.visible_after_polls = 3
    for _ in range(2):
        async with Ledger(tmp_path / "run.db") as ledger:
            outcomes = await collect(many(client, requests, ledger=ledger))
            counts = await ledger.counts()
        assert counts.pop(LedgerState.INTENDED) == 2
        assert list(counts.values()) == [4]
        found = [None if n in {0, 1, 2, 4} else BudgetExceededError for n in range(7)]
        assert kinds(outcomes) == found
        assert [service.posts(out_task_id) for out_task_id in ids] == [1, 1, 1, 0, 1, 0]
        assert spent(service) == 8


@pytest.mark.parametrize("faults", [(), (Fault.html(502), Fault.html(502))])
@pytest.mark.parametrize("sent", [(), (0,), (0, 1)])
async def test_a_new_request_may_come_before_those_of_unknown_price(
    service: FakeService,
    connect: Connect,
    tmp_path: Path,
    sent: tuple[int, ...],
    faults: tuple[Fault, ...],
) -> None:
    """What an earlier run may have sent is looked up first, in case it shows the price."""
    client = connect(retry=ONCE)
    service.price, service.used_id = 2.0, "charge"
    requests = asked(8, "m")
    await doubt(tmp_path / "run.db", client, requests[:2], *sent)
    service.script("query", *faults)
    async with Ledger(tmp_path / "run.db") as ledger:
        batch = client.run_many(requests[::-1], ledger=ledger, max_credits=30, window=1)
        outcomes = await collect(batch)
    assert len({charge.out_task_id for charge in service.charges}) == len(service.charges)
    if not faults:
        assert kinds(outcomes) == [None] * 8
        assert spent(service) == 16
    else:
        assert kinds(outcomes)[:6] == [BudgetExceededError] * 6
        assert "price of a m task is unknown" in str(outcomes[0].error)


async def test_an_accepted_task_that_is_gone_may_have_cost_something(
    service: FakeService, connect: Connect, tmp_path: Path
) -> None:
    """Without an estimate its price is unknown, and so nothing else is sent."""
    service.estimates = False
    client = connect(retry=ONCE)
    requests = asked(2, "m")
    async with Ledger(tmp_path / "run.db") as ledger:
        await collect(client.submit_many(requests[:1], ledger=ledger))
    async with FakeService(api_key=service.api_key) as other:
        client = connect(base_url=other.url, retry=ONCE, polling=PollPolicy(first=0, grace=0))
        async with Ledger(tmp_path / "run.db", rebind=True) as ledger:
            batch = client.run_many(requests[::-1], ledger=ledger, max_credits=9, window=1)
            assert kinds(await collect(batch)) == [BudgetExceededError, TaskNotFoundError]
        assert other.charges == []


async def test_what_is_found_counts(
    service: FakeService, client: AsyncClient, tmp_path: Path
) -> None:
    """A task that is found beyond the limit is counted as spent, and not when it has failed."""
    service.price = 2.0
    service.script("submit", Fault.ok(), Fault.ok(), Fault.failed())
    requests = asked(4, "m")
    await doubt(tmp_path / "run.db", client, requests[:3], 0, 1, 2)
    async with Ledger(tmp_path / "run.db") as ledger:
        told: list[BatchProgress] = []
        batch = client.run_many(
            requests, ledger=ledger, max_credits=3, window=1, on_progress=told.append
        )
        outcomes = await collect(batch)
        assert kinds(outcomes) == [None, None, TaskFailedError, BudgetExceededError]
        assert "4 are spent or reserved" in str(outcomes[3].error)
        assert told[-1].credits_used == 4
        assert await ledger.spent() == (4, 0)
        assert await ledger.counts() == {LedgerState.COMPLETED: 2, LedgerState.FAILED: 1}


async def test_what_cannot_be_looked_for_stays_in_doubt(
    service: FakeService, connect: Connect, tmp_path: Path
) -> None:
    """Without credits, a request is not said to cost nothing while that is unknown."""
    client = connect(retry=ONCE)
    (out_task_id,) = await doubt(tmp_path / "run.db", client, asked(1, "m"))
    service.script("query", *[Fault.html(502)] * 2)
    async with Ledger(tmp_path / "run.db") as ledger:
        (outcome,) = await collect(client.run_many(asked(1, "m"), ledger=ledger, max_credits=0))
        assert isinstance(outcome.error, AmbiguousSubmitError)
        assert outcome.error.out_task_id == out_task_id
        assert await ledger.counts() == {LedgerState.INTENDED: 1}
    assert service.posts(out_task_id) == 0


async def test_a_retry_is_paid_for(
    service: FakeService, client: AsyncClient, tmp_path: Path
) -> None:
    """What is retried is submitted within the limit, and rejected beyond it as it was."""
    service.script("submit", Fault.failed(), Fault.failed())
    for limit, expected in [
        (5, [TaskFailedError] * 2),
        (1, [None, BudgetExceededError]),
        (2, [None, None]),
    ]:
        async with Ledger(tmp_path / "run.db") as ledger:
            options: dict[str, Any] = {"ledger": ledger, "max_credits": limit, "window": 1}
            batch = client.run_many(asked(2, "m"), retry_failed=limit < 5, **options)
            assert kinds(await collect(batch)) == expected


async def test_a_batch_that_is_left_frees_its_reservations(
    service: FakeService, client: AsyncClient
) -> None:
    service.script("submit", Fault.ok(), Fault.hang())
    budget = client.budget(100)
    async with client.submit_many(asked(20, "a", "b"), max_credits=budget, ordered=True) as batch:
        assert (await anext(batch)).ok
    outcomes = await collect(client.submit_many(asked(20, "a"), max_credits=budget))
    assert all(outcome.ok for outcome in outcomes)


@pytest.mark.parametrize("many", [AsyncClient.submit_many, AsyncClient.run_many])
async def test_a_lost_response_does_not_open_the_limit(
    service: FakeService, client: AsyncClient, tmp_path: Path, many: Any
) -> None:
    """Tasks whose response was lost tell no estimate: they count like the others of their kind."""
    service.price, lost = 2.0, Fault.lost_response(accepted=True)
    service.script("submit", lost, Fault.ok(), lost, Fault.ok(), lost)
    async with Ledger(tmp_path / "run.db") as ledger:
        await collect(client.submit_many(asked(2, "m"), ledger=ledger))
    async with Ledger(tmp_path / "run.db") as ledger:
        outcomes = await collect(many(client, asked(20, "m"), ledger=ledger, max_credits=12))
    assert kinds(outcomes).count(BudgetExceededError) == 14
    assert spent(service) == 12


async def test_an_estimate_of_zero_is_no_price(
    service: FakeService, client: AsyncClient, tmp_path: Path
) -> None:
    service.price, service.estimates = 2.0, "zero"
    async with Ledger(tmp_path / "run.db") as ledger:
        await collect(client.submit_many(asked(2, "m"), ledger=ledger))
        outcomes = await collect(client.run_many(asked(20, "m"), ledger=ledger, max_credits=12))
    assert kinds(outcomes).count(None) == 6
    assert spent(service) == 12


async def test_what_is_in_doubt_counts(
    service: FakeService, client: AsyncClient, tmp_path: Path
) -> None:
    """A task that may have been accepted by an earlier run counts before it is looked for again."""
    service.price = 2.0
    service.script("submit", *[Fault.lost_response(accepted=True)] * 2)
    service.script("query", *[Fault.html(502)] * 10)
    requests = [SubmitRequest("m", {}, f"task-{n}") for n in range(6)]
    async with Ledger(tmp_path / "run.db") as ledger:
        doubtful = await collect(client.submit_many(requests[4:], ledger=ledger))
    assert kinds(doubtful) == [AmbiguousSubmitError] * 2
    async with Ledger(tmp_path / "run.db") as ledger:
        await collect(client.run_many(requests, ledger=ledger, max_credits=6, window=1))
    assert spent(service) <= 6


async def test_a_task_of_a_rejected_id_counts(
    service: FakeService, client: AsyncClient, tmp_path: Path
) -> None:
    """A submit outside the ledger had used the ID: what it has cost is spent."""
    service.price = 2.0
    request = SubmitRequest("m", {"prompt": "a cat"}, "cat")
    service.script("submit", Fault.bad_request("no"))
    async with Ledger(tmp_path / "run.db") as ledger:
        await collect(client.run_many([request], ledger=ledger))
    await client.submit(request)
    async with Ledger(tmp_path / "run.db") as ledger:
        budget = client.budget(9)
        options: dict[str, Any] = {"ledger": ledger, "retry_failed": True}
        [outcome] = await collect(client.run_many([request], max_credits=budget, **options))
    assert outcome.ok
    assert budget.committed == spent(service) == 2
