"""What a ledger takes for the same request: an input may be edited, and nothing is paid twice."""

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aireiter_async import (
    AsyncClient,
    IDInUseError,
    Ledger,
    LedgerError,
    LedgerState,
    PollPolicy,
    RetryPolicy,
    SubmitRequest,
    TaskNotFoundError,
    models,
)
from aireiter_async._batch import _items
from aireiter_async.testing import FakeService, Fault

Connect = Callable[..., AsyncClient]
Line = tuple[str, str | None]  # a prompt, and an ID or None


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.db"


def request(line: Line) -> SubmitRequest:
    return SubmitRequest("nano_banana", {"prompt": line[0]}, line[1])


async def run(client: AsyncClient, path: Path, items: Sequence[Any], **options: Any) -> list[Any]:
    async with Ledger(path) as ledger:
        batch = client.run_many(items, ledger=ledger, ordered=True, **options)
        return [outcome async for outcome in batch]


# Edits of an input file, each with numbers that say where.
EDITS: dict[str, Callable[[list[Line], int, int], list[Line]]] = {
    "save": lambda lines, _a, _b: lines,
    "sort": lambda lines, _a, _b: sorted(lines, key=str),
    "reverse": lambda lines, _a, _b: lines[::-1],
    "delete": lambda lines, a, b: [line for n, line in enumerate(lines) if n not in {a, b}],
    "insert": lambda lines, a, b: [*lines[:a], (f"new {b}", None), *lines[a:]],
    "duplicate": lambda lines, a, b: [*lines[:b], *lines[a : a + 1], *lines[b:]],
    "concatenate": lambda lines, _a, _b: lines + lines,
    "name": lambda lines, a, b: [
        (line[0], f"id-{b}-{n}") if n == a else line for n, line in enumerate(lines)
    ],
}
LINES = st.lists(st.tuples(st.sampled_from("abc"), st.none()), max_size=5)
STEPS = st.lists(st.tuples(st.sampled_from(sorted(EDITS)), st.integers(0, 6), st.integers(0, 6)))


@given(lines=LINES, steps=STEPS)
@settings(
    max_examples=settings().max_examples // 5,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_edits_charge_what_a_reader_expects(
    lines: list[Line], steps: list[Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Paid for is each content as often as one input had it, and each chosen ID."""

    async def play() -> None:
        now = list(lines)
        expected: Counter[str] = Counter()
        ids: set[str | None] = set()
        path = tmp_path_factory.mktemp("ledger") / "run.db"
        async with (
            FakeService(used_id="charge") as service,
            AsyncClient(
                service.api_key, base_url=service.url, polling=PollPolicy(first=0, step=0)
            ) as client,
        ):
            for edit, a, b in [("save", 0, 0), *steps]:
                now = EDITS[edit](now, a, b)[:20]
                outcomes = await run(client, path, now, request=request)
                expected |= Counter(prompt for prompt, chosen in now if chosen is None)
                chosen = [each for _, each in now if each]
                ids |= set(chosen)
                errors = [outcome.error for outcome in outcomes if not outcome.ok]
                assert len(errors) == len(chosen) - len(set(chosen))
                assert {type(error) for error in errors} <= {ValueError}
                assert len(service.charges) == expected.total() + len(ids)
            resumed = await run(client, path, now, request=request)
            assert {outcome.resumed for outcome in resumed if outcome.ok} <= {True}

    asyncio.run(play())


async def test_as_many_ids_are_remembered_as_may_be_outstanding(
    service: FakeService, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_items, "_RECENT_IDS", 2)
    service.used_id, service.durations = "charge", 1000
    requests = [SubmitRequest("m", {}, out_task_id) for out_task_id in ("a", "b", "c", "d", "a")]
    batch = client.run_many(requests, window=5, timeout=0)
    errors = [str(outcome.error) async for outcome in batch]
    assert [error for error in errors if "out_task_id a is used twice" in error]
    assert len(service.charges) == 4


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("window", [1, 8])
@pytest.mark.parametrize("out_task_id", [None, "a"])
@pytest.mark.parametrize("limit", [None, 100])
async def test_an_id_is_used_once_in_a_batch(
    service: FakeService,
    client: AsyncClient,
    path: Path,
    window: int,
    out_task_id: str | None,
    limit: float | None,
    *,
    kept: bool,
) -> None:
    """The same request again is an error that says so, with a ledger or without, on every run."""
    service.used_id = "charge"
    requests = [SubmitRequest("nano_banana", {"prompt": "a"}, out_task_id)] * 4
    options: dict[str, Any] = {"window": window, "max_credits": limit}
    for _ in range(2 if kept else 1):
        if kept:
            outcomes = await run(client, path, requests, **options)
        else:
            batch = client.run_many(requests, ordered=True, **options)
            outcomes = [outcome async for outcome in batch]
        assert [outcome.ok for outcome in outcomes] == [True, False, False, False]
        assert "is used twice in this batch: give each request its own" in str(outcomes[1].error)
    assert len(service.charges) == 1


async def test_a_batch_without_a_ledger_remembers_so_many_ids(
    service: FakeService, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aireiter_async._batch._items._RECENT_IDS", 2)
    service.used_id = "return"
    names = ["a", "b", "a", "c", "d", "a"]
    requests = [SubmitRequest("m", {}, name) for name in names]
    outcomes = [o async for o in client.submit_many(requests, ordered=True)]
    assert [outcome.ok for outcome in outcomes] == [True, True, False, True, True, True]


async def test_models_and_mappings_of_equal_content_are_one_request(
    service: FakeService, client: AsyncClient, path: Path
) -> None:
    """Neither the class, nor the order of the keys, nor the callback URL is part of the content."""
    forms: list[Any] = [
        models.NanoBanana(prompt="a", aspect_ratio="1:1"),
        SubmitRequest("nano_banana", {"aspect_ratio": "1:1", "prompt": "a"}),
        SubmitRequest(
            "nano_banana", {"prompt": "a", "aspect_ratio": "1:1"}, None, "https://x.example/secret"
        ),
    ]
    for form in forms:
        (outcome,) = await run(client, path, [form])
        assert outcome.ok
    assert len(service.charges) == 1
    assert "secret" not in str([row async for row in Ledger(path).rows()])


@pytest.mark.parametrize("options", [{}, {"max_credits": 1000}, {"ledger": True}])
async def test_a_source_may_refill_one_mapping(
    service: FakeService, client: AsyncClient, path: Path, options: dict[str, Any]
) -> None:
    """What was in it when the request was made is sent and recorded, however late that is."""

    def refill() -> Iterator[SubmitRequest]:
        params: dict[str, Any] = {"style": {}}
        for letter in "abcde":
            params["prompt"] = params["style"]["name"] = letter
            yield SubmitRequest("a_new_model", params)

    sent = [{"prompt": letter, "style": {"name": letter}} for letter in "abcde"]
    for _ in range(2 if "ledger" in options else 1):
        async with AsyncExitStack() as stack:
            if "ledger" in options:
                options = {"ledger": await stack.enter_async_context(Ledger(path))}
            async for outcome in client.submit_many(refill(), **options):
                outcome.result()
    bodies = [seen.body["params"] for seen in service.requests if seen.path.endswith("/submit")]
    assert sorted(bodies, key=str) == sent


@pytest.mark.parametrize("size", [100, 300_000])
async def test_a_data_uri_is_known_by_its_digest(
    service: FakeService, client: AsyncClient, path: Path, size: int
) -> None:
    """Media in the parameters are not stored, and tell requests apart anyway."""
    uris = [f"data:image/png;base64,{letter * size}" for letter in "AB"]
    items = [SubmitRequest("m", {"prompt": "p", "image_url": uri}) for uri in uris]
    await run(client, path, items)
    assert [outcome.resumed for outcome in await run(client, path, items[::-1])] == [True, True]
    assert len(service.charges) == 2
    async with Ledger(path) as ledger:
        rows = [row async for row in ledger.rows()]
    assert {len(row["params"]["image_url"]) for row in rows} == {
        len("data:image/png;sha256=,") + 64
    }
    assert {row["prompt"] for row in rows} == {"p"}


async def test_a_callback_url_is_neither_identity_nor_stored(
    service: FakeService, client: AsyncClient, path: Path
) -> None:
    """It may hold a secret, and a new one must not pay again."""
    for secret in ("first-secret", "second-secret"):
        items = [
            SubmitRequest(
                "m", {"prompt": "p"}, out_task_id, f"https://example.com/done?token={secret}"
            )
            for out_task_id in (None, "mine")
        ]
        outcomes = await run(client, path, items)
        assert [outcome.resumed for outcome in outcomes] == [secret == "second-secret"] * 2
    assert len(service.charges) == 2
    assert "first-secret" in str(service.requests[0].body)
    for file in path.parent.iterdir():
        assert b"-secret" not in file.read_bytes(), file


async def test_two_files_share_a_ledger(
    service: FakeService, client: AsyncClient, path: Path
) -> None:
    """Each run tells what it has resumed and what it has submitted, whatever else there is."""
    june = [request((f"june {n}", None)) for n in range(3)]
    july = [request((f"july {n}", None)) for n in range(2)]
    for items, resumed in ((june, 0), (july, 0), ([*june, *july], 5)):
        outcomes = await run(client, path, items)
        assert sum(outcome.resumed for outcome in outcomes) == resumed
    assert len(service.charges) == 5


async def test_a_ledger_belongs_to_one_service(
    service: FakeService, client: AsyncClient, connect: Connect, path: Path
) -> None:
    """Another service's results are not taken for this one's: the error names both."""
    items = [request(("a", None))]
    await run(client, path, items)
    async with FakeService() as other:
        stranger = connect(api_key=other.api_key, base_url=f"{other.url}/relay/")
        with pytest.raises(LedgerError) as caught:
            await run(stranger, path, items)
        here, there = service.url.removeprefix("http://"), other.url.removeprefix("http://")
        assert f"belong to {here}, not to {there}/relay:" in str(caught.value)
        assert other.requests == []
        stranger = connect(api_key=other.api_key, base_url=other.url)
        async with Ledger(path, rebind=True) as ledger:
            outcomes = [o async for o in stranger.submit_many(items, ledger=ledger)]
        assert [outcome.resumed for outcome in outcomes] == [True]
        with pytest.raises(LedgerError, match=here):
            await run(client, path, items)


async def test_a_retry_is_named_after_its_request(
    service: FakeService, client: AsyncClient, path: Path, tmp_path: Path
) -> None:
    """Its ID and its file are the request's, with the number of the attempt."""
    names = ["ring-079", "x" * 64, "taken", "taken-2"]
    items = [SubmitRequest("m", {"prompt": name}, name) for name in names]
    service.script("submit", *[Fault.failed()] * 3)
    await run(client, path, items, window=1)
    service.script("submit", *[Fault.failed()] * 3)
    again = await run(client, path, items, window=1, retry_failed=True, download_to=tmp_path)
    assert [o.request.out_task_id for o in again[:3]] == ["ring-079-2", f"{'x' * 62}-2", "taken-3"]
    final = await run(client, path, items, window=1, retry_failed=True, download_to=tmp_path)
    assert [outcome.task.out_task_id for outcome in final] == [
        *("ring-079-3", f"{'x' * 62}-3", "taken-4", "taken-2")
    ]
    assert final[0].paths[0].stem == "ring-079-3"
    assert [outcome.resumed for outcome in final] == [False, False, False, True]
    plain = await run(client, path, items)
    assert [outcome.task for outcome in plain] == [outcome.task for outcome in final]


async def test_a_task_that_the_service_lost_is_submitted_again_if_asked(
    service: FakeService, client: AsyncClient, path: Path
) -> None:
    """What was accepted and is no longer known gets a new ID, and counts as spent anyway."""
    items = [SubmitRequest("m", {"prompt": "a"}, "a")]
    async with Ledger(path) as ledger:
        _ = [o async for o in client.submit_many(items, ledger=ledger)]
    service._account.tasks.clear()
    for _ in range(2):
        (outcome,) = await run(client, path, items)
        assert isinstance(outcome.error, TaskNotFoundError)
    (outcome,) = await run(client, path, items, retry_failed=True)
    assert outcome.result().out_task_id == "a-2"
    async with Ledger(path) as ledger:
        assert await ledger.counts() == {LedgerState.LOST: 1, LedgerState.COMPLETED: 1}
        assert await ledger.spent() == (2.0, 0)


@pytest.mark.parametrize("used_id", ["reject", "return", "charge"])
async def test_an_id_of_another_ledger_is_never_its_old_picture(
    service: FakeService, connect: Connect, tmp_path: Path, used_id: Any
) -> None:
    """IDs that an earlier batch has used for other prompts fail, and nothing counts as spent."""
    service.used_id = used_id
    client = connect(retry=RetryPolicy(base=0, settle=0))
    june = [SubmitRequest("m", {"prompt": f"june {n}"}, str(n)) for n in range(3)]
    july = [SubmitRequest("m", {"prompt": f"july {n}"}, str(n)) for n in range(3)]
    await run(client, tmp_path / "june.db", june)
    outcomes = await run(client, tmp_path / "july.db", july)
    if used_id == "charge":
        assert all(outcome.ok for outcome in outcomes)
        return
    assert {type(outcome.error) for outcome in outcomes} == {IDInUseError}
    async with Ledger(tmp_path / "july.db") as ledger:
        assert await ledger.spent() == (0.0, 0)
    retried = await run(client, tmp_path / "july.db", july, retry_failed=True)
    assert [outcome.task.out_task_id for outcome in retried] == ["0-2", "1-2", "2-2"]


async def test_a_rejection_for_a_used_id_is_remembered_as_one(
    client: AsyncClient, path: Path
) -> None:
    """The next run reports the error of the first, with its type."""
    await run(client, path, [request(("a", "a"))])
    with closing(sqlite3.connect(path)) as db:
        detail = '{"type": "IDInUseError", "code": 409, "message": "taken"}'
        db.execute("UPDATE tasks SET state = 'rejected', error = ?", (detail,))
        db.commit()
    (outcome,) = await run(client, path, [request(("a", "a"))])
    assert type(outcome.error) is IDInUseError


async def test_a_batch_can_be_read_while_it_runs(
    service: FakeService, client: AsyncClient, path: Path
) -> None:
    """Another object reads counts and rows without opening the ledger, and sees whole rows."""
    service.script("submit", Fault.ok(), Fault.failed("NSFW", "no"), Fault.bad_request("bad"))
    items = [SubmitRequest("m", {"prompt": str(n)}, f"t{n}", metadata={"n": n}) for n in range(3)]
    async with Ledger(path) as ledger:
        async for _ in client.run_many(items, ledger=ledger, window=1):
            rows = [row async for row in Ledger(path).rows()]
            assert {row["state"] for row in rows} <= set(LedgerState)
        assert sum((await Ledger(path).counts()).values()) == 3
    assert set((await Ledger(path).counts()).values()) == {1}
    good, failed, refused = [row async for row in Ledger(path).rows()]
    assert (good["out_task_id"], good["model"], good["state"]) == ("t0", "m", "completed")
    assert (good["params"], good["metadata"], good["prompt"]) == ({"prompt": "0"}, {"n": 0}, "0")
    assert (good["credits_used"], good["error"], good["paths"]) == (1.0, None, [])
    assert good["created_at"] <= good["completed_at"]
    assert failed["error"] == {"type": "TaskFailedError", "code": "NSFW", "message": "no"}
    assert (refused["error"]["code"], refused["completed_at"]) == (400, None)
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE tasks SET request = '{' WHERE number = 1")
        db.commit()
    with pytest.raises(LedgerError, match="task t0"):
        _ = [row async for row in Ledger(path).rows()]
    with pytest.raises(LedgerError, match="unable to open"):
        await Ledger(path.with_name("missing.db")).counts()
