"""One task for one ID, whichever calls and processes submit it, and however often."""

import asyncio
import hashlib
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from aireiter_async import (
    AmbiguousSubmitError,
    AsyncClient,
    AuthenticationError,
    ConnectError,
    IDInUseError,
    InvalidRequestError,
    Ledger,
    RateLimitError,
    RetryPolicy,
    SQLiteStore,
    StoreError,
    SubmitRequest,
    models,
)
from aireiter_async.stores import Claim
from aireiter_async.testing import FakeService, Fault
from tests.command import PNG
from tests.hostile_time import Clock

Connect = Callable[..., AsyncClient]
Until = Callable[[Callable[[], object]], Awaitable[None]]
QUERY = "/api/openapi/query"
USED_IDS = ["reject", "return", "charge"]
ID = "order-17"
CAT = SubmitRequest("nano_banana", {"prompt": "a cat"}, ID)
DOG = SubmitRequest("nano_banana", {"prompt": "a dog"}, ID)
BAD_KEY = Fault.reply(401, '{"error": {"code": 401, "message": "bad key"}}')
LEASE = 30 + 120  # seconds: the timeout of these clients, and the policy's max_retry_after


class Store(SQLiteStore):
    """A store that counts the claims it has answered."""

    answered = 0

    async def claim(self, out_task_id: str, fingerprint: str, *, owner: str, lease: float) -> Claim:
        assert lease == LEASE
        claim = await super().claim(out_task_id, fingerprint, owner=owner, lease=lease)
        self.answered += 1
        return claim

    async def is_free(self) -> bool:
        """Tell whether anyone may claim the ID, and leave it so."""
        claim = await super().claim(ID, fingerprint(CAT), owner="test", lease=0)
        await self.release(ID, "test", accepted=False)
        return claim == Claim(held=True)


class Scripted:
    """A store with ready responses, which is unusable after them, and for releases."""

    def __init__(self, *answers: Claim) -> None:
        self.answers = list(answers)

    async def claim(self, *_: str, **__: Any) -> Claim:
        if not self.answers:
            raise StoreError("the disk is full")
        return self.answers.pop(0)

    async def release(self, *_: str, **__: Any) -> None:
        raise OSError("the disk is full")


def fingerprint(request: SubmitRequest) -> str:
    return hashlib.sha256(request.encode_content().encode()).hexdigest()


@pytest.fixture
async def store(tmp_path: Path, clock: Clock) -> AsyncIterator[Store]:
    async with Store(tmp_path / "claims.db", clock=clock) as store:
        yield store


async def abandon(store: SQLiteStore) -> None:
    """Claim the ID as a worker does that dies before it says more."""
    await SQLiteStore.claim(store, ID, fingerprint(CAT), owner="dead", lease=LEASE)


@pytest.mark.parametrize("used_id", USED_IDS)
async def test_a_call_waits_for_the_one_that_has_claimed_the_id(
    service: FakeService, connect: Connect, clock: Clock, store: Store, until: Until, used_id: Any
) -> None:
    """The first call is told to wait for 8 seconds; the second comes meanwhile."""
    service.used_id = used_id
    service.script("submit", Fault.too_many_requests(8))
    first, second = connect(), connect()
    clock.held = True
    calls = [asyncio.create_task(first.submit(CAT, idempotency=store))]
    await until(lambda: first.stats.retries)
    calls.append(asyncio.create_task(second.run(CAT, idempotency=store)))
    await until(lambda: store.answered == 2)
    assert service.posts(ID) == 1
    clock.held = False
    tasks = await asyncio.gather(*calls)
    # Whoever comes later is told of the same task.
    tasks.append(await second.submit(CAT, idempotency=store, maybe_sent=True))
    assert [task.out_task_id for task in tasks] == [ID] * 3
    assert len(service.charges) == 1
    assert service.posts(ID) == 2


@pytest.mark.parametrize("maybe_sent", [False, True])
async def test_another_request_under_a_used_id_is_rejected_by_the_store(
    service: FakeService, client: AsyncClient, store: Store, *, maybe_sent: bool
) -> None:
    await client.submit(CAT, idempotency=store)
    sent = len(service.requests)
    with pytest.raises(IDInUseError, match="other content") as caught:
        await client.run(DOG, idempotency=store, maybe_sent=maybe_sent)
    assert caught.value.out_task_id == ID
    assert len(service.requests) == sent


async def test_a_request_under_an_id_that_is_being_submitted_for_another_one_is_rejected(
    service: FakeService, client: AsyncClient, store: Store
) -> None:
    await abandon(store)
    with pytest.raises(IDInUseError):
        await client.submit(DOG, idempotency=store)
    assert service.requests == []


@pytest.mark.parametrize(
    ("faults", "error"),
    [
        ([Fault.bad_request("no such thing")], InvalidRequestError),
        ([BAD_KEY], AuthenticationError),
        ([Fault.too_many_requests(121)], RateLimitError),
        ([Fault.lost_response(), Fault.bad_request("no such thing")], InvalidRequestError),
    ],
)
async def test_a_rejected_request_releases_its_claim(
    service: FakeService, client: AsyncClient, store: Store, faults: list[Fault], error: Any
) -> None:
    service.script("submit", *faults)
    with pytest.raises(error):
        await client.submit(CAT, idempotency=store)
    assert await store.is_free()


async def test_a_request_that_was_not_sent_releases_its_claim(
    service: FakeService, client: AsyncClient, store: Store
) -> None:
    await service.close()
    with pytest.raises(ConnectError):
        await client.submit(CAT, idempotency=store)
    assert await store.is_free()


async def test_a_call_takes_over_when_the_other_request_was_rejected(
    service: FakeService, client: AsyncClient, store: Store, clock: Clock, until: Until
) -> None:
    await SQLiteStore.claim(store, ID, fingerprint(CAT), owner="other", lease=LEASE)
    began = clock.now
    waiting = asyncio.create_task(client.submit(CAT, idempotency=store))
    await until(lambda: store.answered == 1)
    await store.release(ID, "other", accepted=False)
    await waiting
    assert service.posts(ID) == 1
    assert clock.now < began + LEASE


@pytest.mark.parametrize("sent", [False, True])
@pytest.mark.parametrize("used_id", USED_IDS)
async def test_the_claim_of_a_dead_worker_is_taken_over(
    service: FakeService,
    client: AsyncClient,
    store: Store,
    clock: Clock,
    used_id: Any,
    *,
    sent: bool,
) -> None:
    """Whether its request had arrived is found out before anything is sent."""
    service.used_id = used_id
    await abandon(store)
    if sent:
        # Not visible while the claim holds: the end of the claim is waited for.
        service.visible_after = LEASE
        await client.submit(CAT)
    began = clock.now
    task = await client.submit(CAT, idempotency=store)
    assert task.out_task_id == ID
    assert clock.now - began >= LEASE - 5
    assert [charge.out_task_id for charge in service.charges] == [ID]
    assert service.posts(ID) == 1
    assert not await store.is_free()


async def test_a_worker_that_was_suspended_looks_an_id_that_was_taken_over_up_again(
    service: FakeService, client: AsyncClient, store: Store, clock: Clock
) -> None:
    """Between two attempts of its own, other owners may have come and died."""

    class Slow(Store):
        async def claim(self, *args: Any, **options: Any) -> Claim:
            claim = await super().claim(*args, **options)
            clock.now += LEASE
            return claim

    service.script("submit", *[Fault.too_many_requests(100)] * 2)
    await SQLiteStore.claim(store, ID, fingerprint(CAT), owner="dead", lease=0)
    async with Slow(store.path, clock=clock) as slow:
        await client.submit(CAT, idempotency=slow)
    assert (service.posts(ID), service.counts[QUERY]) == (
        3,
        5 * 4,
    )  # and after each 429 that followed


async def test_the_rejection_of_a_claimed_id_as_used_is_settled(
    service: FakeService, client: AsyncClient, store: Store
) -> None:
    """The ID was submitted by a program that does not use the store."""
    await client.submit(CAT)
    assert (await client.submit(CAT, idempotency=store)).out_task_id == ID
    assert service.posts(ID) == 2
    assert not await store.is_free()


async def test_a_claim_outlasts_the_lookup_before_its_post(
    service: FakeService, connect: Connect, clock: Clock, tmp_path: Path
) -> None:
    """Where `settle` is longer than the timeouts, calls do not take the ID from each other."""
    retry = RetryPolicy(base=0, settle=9, max_retry_after=0)
    async with SQLiteStore(tmp_path / "claims.db", clock=clock) as store, asyncio.timeout(60):
        await store.claim(ID, fingerprint(CAT), owner="dead", lease=0)
        clients = [connect(retry=retry, timeout=5) for _ in range(4)]
        calls = (client.submit(CAT, idempotency=store) for client in clients)
        assert {task.out_task_id for task in await asyncio.gather(*calls)} == {ID}
    assert len(service.charges) == 1


async def test_an_id_that_is_rejected_as_used_and_is_another_requests_is_released(
    client: AsyncClient, store: Store
) -> None:
    await client.submit(DOG)
    with pytest.raises(IDInUseError, match="prompt"):
        await client.submit(CAT, idempotency=store)
    assert await store.is_free()


async def test_what_may_have_been_sent_without_a_claim_is_looked_up_after_the_claim(
    service: FakeService, client: AsyncClient, store: Store
) -> None:
    await client.submit(CAT, idempotency=store, maybe_sent=True)
    assert [request.path for request in service.requests] == [QUERY] * 4 + ["/api/openapi/submit"]
    other = CAT.with_id("order-18")
    await client.submit(other)
    await client.submit(other, idempotency=store, maybe_sent=True)
    assert service.posts("order-18") == 1


async def test_an_accepted_id_is_looked_up_only(
    service: FakeService, client: AsyncClient, store: Store
) -> None:
    """Even where the service no longer knows it, or cannot be queried."""
    await store.claim(ID, fingerprint(CAT), owner="other", lease=LEASE)
    await store.release(ID, "other", accepted=True)
    with pytest.raises(AmbiguousSubmitError, match="it was not found"):
        await client.submit(CAT, idempotency=store)
    await service.close()
    with pytest.raises(AmbiguousSubmitError, match="could not be queried") as caught:
        await client.submit(CAT, idempotency=store)
    assert isinstance(caught.value.__cause__, ConnectError)
    assert service.posts(ID) == 0


async def test_an_ambiguous_submit_leaves_its_claim(
    service: FakeService, client: AsyncClient, store: Store
) -> None:
    service.script("submit", Fault.lost_response(accepted=True))
    service.script("query", BAD_KEY)
    with pytest.raises(AmbiguousSubmitError):
        await client.submit(CAT, idempotency=store)
    claim = await SQLiteStore.claim(store, ID, fingerprint(CAT), owner="other", lease=LEASE)
    assert (claim.held, claim.remaining > 0) == (False, True)
    await client.submit(CAT, idempotency=store)
    assert service.posts(ID) == 1


async def test_a_rejection_after_a_lost_claim_is_settled(
    service: FakeService, client: AsyncClient
) -> None:
    """The first attempt may have been accepted, whoever has claimed the ID since."""
    held, refused = Claim(held=True), Claim(held=False, remaining=1)
    service.script("submit", Fault.lost_response(accepted=True))
    service.visible_after_polls = 6
    store = Scripted(held, refused, held)
    assert (await client.submit(CAT, idempotency=store)).out_task_id == ID
    assert len(service.charges) == 1


@pytest.mark.parametrize("after", ["nothing", "429"])
async def test_without_the_store_nothing_is_sent(
    service: FakeService, client: AsyncClient, after: str
) -> None:
    answers = [] if after == "nothing" else [Claim(held=True)]
    service.script("submit", Fault.too_many_requests())
    with pytest.raises(StoreError, match="the disk is full") as caught:
        await client.submit(CAT, idempotency=Scripted(*answers))
    assert caught.value.out_task_id == ID
    assert service.posts(ID) == len(answers)


async def test_a_store_may_raise_anything(service: FakeService, client: AsyncClient) -> None:
    """One over a network, for example, in the middle of a batch."""

    class Networked(Scripted):
        async def claim(self, *_: str, **__: Any) -> Claim:
            self.answers.append(Claim(held=True))
            if len(self.answers) == 2:
                raise ConnectionResetError("the peer has gone")
            return Claim(held=True)

    requests = [SubmitRequest("m", {}, out_task_id=f"{n}") for n in range(4)]
    batch = client.run_many(requests, idempotency=Networked(), ordered=True, window=1)
    outcomes = [outcome async for outcome in batch]
    assert [outcome.ok for outcome in outcomes] == [True, False, True, True]
    assert isinstance(outcomes[1].error, StoreError)
    assert "the store failed: ConnectionResetError: the peer has gone" in str(outcomes[1].error)
    assert len(service.charges) == 3


async def test_without_the_store_an_ambiguous_submit_stays_ambiguous(
    service: FakeService, client: AsyncClient
) -> None:
    service.script("submit", Fault.lost_response())
    with pytest.raises(AmbiguousSubmitError, match="the disk is full"):
        await client.submit(CAT, idempotency=Scripted(Claim(held=True)))


async def test_a_task_is_returned_though_the_store_cannot_record_it(
    client: AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    task = await client.submit(CAT, idempotency=Scripted(Claim(held=True)))
    assert task.out_task_id == ID
    assert "submit order-17 at 127.0.0.1:" in caplog.text
    assert ": its claim holds until the lease ends: " in caplog.text


@pytest.mark.parametrize("where", ["post", "lookup"])
async def test_a_cancelled_call_leaves_its_claim_and_names_its_id(
    service: FakeService, client: AsyncClient, store: Store, clock: Clock, until: Until, where: str
) -> None:
    if where == "post":
        service.script("submit", Fault.hang(accepted=True))
    else:
        await abandon(store)
        clock.held = True
    running = asyncio.create_task(client.submit(CAT, idempotency=store))
    await until(lambda: service.charges if where == "post" else store.answered)
    running.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await running
    assert caught.value.__notes__ == [
        f"task {ID} may have been submitted: query it, or pass maybe_sent=True"
    ]
    clock.held = False
    assert not await store.is_free()
    assert (await client.submit(CAT, idempotency=store)).out_task_id == ID
    assert len(service.charges) == 1


@pytest.mark.parametrize("found", [False, True])
async def test_a_run_that_ends_while_another_call_submits_looks_once_more(
    client: AsyncClient, store: Store, clock: Clock, *, found: bool
) -> None:
    await abandon(store)
    clock.held = True
    if found:
        await client.submit(CAT)
        task = await client.run(CAT, timeout=0.2, idempotency=store)
        assert task.done
    else:
        with pytest.raises(AmbiguousSubmitError):
            await client.run(CAT, timeout=0.2, idempotency=store)


async def test_a_batch_claims_its_ids(service: FakeService, connect: Connect, store: Store) -> None:
    requests = [CAT.with_id(f"order-{n}") for n in range(20)] + [
        SubmitRequest("nano_banana", {"prompt": "a cat"})
    ]
    batches = [
        connect().submit_many(requests, idempotency=store),
        connect().run_many(requests, idempotency=store),
    ]

    async def read(batch: Any) -> list[Any]:
        return [outcome async for outcome in batch]

    for outcomes in await asyncio.gather(*map(read, batches)):
        (failed,) = (outcome for outcome in outcomes if not outcome.ok)
        assert "stable_id" in str(failed.error)
    assert len(service.charges) == 20


async def test_a_batch_has_a_ledger_or_a_store(
    client: AsyncClient, store: Store, tmp_path: Path
) -> None:
    async with Ledger(tmp_path / "run.db") as ledger:
        with pytest.raises(ValueError, match="ledger or idempotency"):
            client.submit_many([CAT], ledger=ledger, idempotency=store)


@pytest.mark.parametrize(
    ("request_", "idempotency", "error", "text"),
    [
        (models.NanoBanana(prompt="a cat"), None, ValueError, "stable_id"),
        (SubmitRequest("nano_banana", {}), None, ValueError, "stable_id"),
        (CAT, "claims.db", TypeError, "must be an IdempotencyStore, got str"),
    ],
)
async def test_what_cannot_be_claimed_is_rejected(
    service: FakeService,
    client: AsyncClient,
    store: Store,
    request_: Any,
    idempotency: Any,
    error: Any,
    text: str,
) -> None:
    with pytest.raises(error, match=text):
        await client.submit(request_, idempotency=idempotency or store)
    assert service.requests == []


async def test_local_and_large_content_is_claimed(
    service: FakeService, client: AsyncClient, store: Store, tmp_path: Path
) -> None:
    """The fingerprint is that of the content, wherever the file lies."""
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(PNG)
        wanted = models.NanoBananaV2(prompt="a cat", image_url=[tmp_path / name])
        await client.submit(wanted, out_task_id=ID, idempotency=store)
    for prompt in ("x" * 100_000, "y" * 100_000):
        large = SubmitRequest("nano_banana", {"prompt": prompt}, ID)
        with pytest.raises(IDInUseError):
            await client.submit(large, idempotency=store)
    assert len(service.charges) == 1


PROGRAM = """
import asyncio, json, random, sys
from aireiter_async import AsyncClient, RetryPolicy, SQLiteStore, SubmitRequest
from aireiter_async.errors import AmbiguousSubmitError

async def deliver(client, store, out_task_id, draws):
    request = SubmitRequest("nano_banana", {"prompt": out_task_id}, out_task_id)
    while True:
        submitting = asyncio.ensure_future(client.submit(request, idempotency=store))
        if draws.random() < 0.1:
            asyncio.get_running_loop().call_later(draws.random() / 20, submitting.cancel)
        try:
            return (await submitting).out_task_id
        except (AmbiguousSubmitError, asyncio.CancelledError):
            pass  # the queue delivers it again

async def main(key, url, path, seed, *ids):
    draws = random.Random(seed)
    retry = RetryPolicy(base=0.01, settle=0.05, attempts=9, max_retry_after=0)
    async with (
        AsyncClient(key, base_url=url, max_concurrency=16, retry=retry, timeout=3) as client,
        SQLiteStore(path) as store,
    ):
        print(*await asyncio.gather(*(deliver(client, store, i, draws) for i in ids)))

asyncio.run(main(*sys.argv[1:]))
"""


class Killer:
    """A clock for the service that kills a worker whenever it has been read often enough."""

    def __init__(self, *at: int) -> None:
        self.at = list(at)
        self.reads = 0
        self.workers: dict[int, asyncio.subprocess.Process] = {}

    def __call__(self) -> float:
        self.reads += 1
        if self.at and self.reads >= self.at[0]:
            running = [each for each in self.workers.values() if each.returncode is None]
            self.at.pop(0)
            running[self.reads % len(running)].kill()
        return time.monotonic()


@pytest.mark.parametrize(
    "used_id",
    ["charge", *(pytest.param(each, marks=pytest.mark.soak) for each in ("reject", "return"))],
)
async def test_ids_that_are_delivered_repeatedly_are_charged_once(
    tmp_path: Path, used_id: Any
) -> None:
    """300 IDs are delivered 430 times to workers that are cancelled and killed."""
    ids = [f"order-{n}" for n in range(300)]
    draws = random.Random(used_id)  # noqa: S311 - repeatable, guards nothing
    deliveries = ids + draws.choices(ids, k=130)
    draws.shuffle(deliveries)
    killer, killed = Killer(150, 350, 600), 0
    losses = {Fault.lost_response(): 0.05, Fault.lost_response(accepted=True): 0.1}
    async with FakeService(used_id=used_id, faults=losses, clock=killer) as service:

        async def work(number: int) -> list[str]:
            nonlocal killed
            while True:
                worker = killer.workers[number] = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-W", "error", "-c", PROGRAM, str(service.api_key)),
                    *(service.url, str(tmp_path / "claims.db"), str(number)),
                    *deliveries[number::4],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                )
                stdout, stderr = await worker.communicate()
                if worker.returncode == 0:
                    return stdout.decode().split()
                assert (worker.returncode, stderr) == (-9, b"")
                killed += 1

        returned = await asyncio.gather(*map(work, range(4)))
    assert [each for number in range(4) for each in returned[number]] == [
        each for number in range(4) for each in deliveries[number::4]
    ]
    charges = Counter(charge.out_task_id for charge in service.charges)
    assert (len(charges), charges.total()) == (300, 300)
    assert killed == 3
