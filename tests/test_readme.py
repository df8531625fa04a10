"""What the README says beside its examples, where no room's own tests hold it."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from aireiter_async import (
    AsyncClient,
    ConnectError,
    Ledger,
    RetryPolicy,
    SubmitRequest,
    models,
)
from aireiter_async.testing import FakeService, Fault


@pytest.mark.parametrize("accepted", [True, False])
async def test_a_cancelled_call_with_an_id_is_made_again(
    service: FakeService, client: AsyncClient, until: Any, *, accepted: bool
) -> None:
    service.script("submit", Fault.hang(accepted=accepted))
    request = models.NanoBananaV2(prompt="a heron")
    cancelled = asyncio.create_task(client.run(request, out_task_id="order-17"))
    await until(lambda: service.in_flight and len(service.charges) == accepted)
    cancelled.cancel()
    await asyncio.wait([cancelled])
    task = await client.run(request, out_task_id="order-17", maybe_sent=True)
    assert [charge.out_task_id for charge in service.charges] == ["order-17"] == [task.out_task_id]


@pytest.mark.parametrize("trust_env", [False, True])
async def test_the_environments_proxy_is_for_a_session_that_trusts_it(
    service: FakeService, monkeypatch: pytest.MonkeyPatch, *, trust_env: bool
) -> None:
    """``HTTP_PROXY`` counts for a lent session with ``trust_env``, and for nothing else."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    options: dict[str, Any] = {"base_url": service.url, "retry": RetryPolicy(attempts=1)}
    async with (
        aiohttp.ClientSession(trust_env=trust_env) as session,
        AsyncClient(service.api_key, session=session, **options) as lent,
        AsyncClient(service.api_key, **options) as owner,
    ):
        await owner.balance()
        if trust_env:
            with pytest.raises(ConnectError):
                await lent.balance()
        else:
            await lent.balance()


async def test_a_ledger_knows_a_request_by_its_content(
    service: FakeService, client: AsyncClient, tmp_path: Path
) -> None:
    cat, dog, owl = (SubmitRequest("nano_banana", {"prompt": it}) for it in ("cat", "dog", "owl"))
    ids: set[str] = set()
    for requests, charges in ([cat, dog], 2), ([cat, dog, owl], 3), ([owl, dog, cat], 3):
        async with Ledger(tmp_path / "run.db") as ledger:
            async for outcome in client.submit_many(requests, ledger=ledger):
                ids.add(outcome.result().out_task_id)
        assert len(service.charges) == charges
    assert ids == {charge.out_task_id for charge in service.charges}
    assert ids.isdisjoint({cat.out_task_id, dog.out_task_id, owl.out_task_id})


async def test_a_plain_iterable_is_read_on_the_loops_thread(client: AsyncClient) -> None:
    """What a plain iterable does between its items is done on the event loop's thread."""
    threads: list[int] = []

    def requests() -> Iterator[SubmitRequest]:
        for prompt in "abc":
            threads.append(threading.get_ident())
            yield SubmitRequest("nano_banana", {"prompt": prompt})

    assert [outcome.ok async for outcome in client.run_many(requests())] == [True] * 3
    assert threads == [threading.get_ident()] * 3


async def test_an_async_iterable_may_read_what_blocks(client: AsyncClient) -> None:
    """A source that blocks in a thread holds up nothing: what was pulled before is finished."""
    finished = threading.Event()

    async def requests() -> AsyncIterator[SubmitRequest]:
        yield SubmitRequest("nano_banana", {"prompt": "a cat"})
        assert await asyncio.to_thread(finished.wait, 60)
        yield SubmitRequest("nano_banana", {"prompt": "a dog"})

    outcomes = []
    async for outcome in client.run_many(requests()):
        outcomes.append(outcome.ok)
        finished.set()
    assert outcomes == [True, True]


@pytest.mark.parametrize(
    ("mistake", "kinds"),
    [
        (lambda: models.build("nano_banan", {}), (ValueError, KeyError)),
        (lambda: models.build("nano_banana", {"promt": "a cat"}), (ValueError, TypeError)),
        (lambda: models.NanoBananaV2(prompt=5), (ValueError, TypeError)),  # type: ignore[arg-type]
        (lambda: SubmitRequest("nano_banana", {}, out_task_id="a b"), (ValueError,)),
        (lambda: AsyncClient("key", timeout="5"), (TypeError,)),  # type: ignore[arg-type]
    ],
)
def test_a_bad_argument_is_a_value_or_a_type_error(
    mistake: Callable[[], object], kinds: tuple[type[Exception], ...]
) -> None:
    for kind in kinds:
        with pytest.raises(kind):
            mistake()
