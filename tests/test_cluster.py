"""`generate`, as a distributed engine calls it for each partition."""

import asyncio
import json
import pickle
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from aireiter_async import (
    AsyncClient,
    IDInUseError,
    SQLiteStore,
    SubmitRequest,
    cluster,
    models,
    stable_id,
)
from aireiter_async.cluster import generate
from aireiter_async.testing import FakeService, Fault
from tests.command import PNG, serving
from tests.test_idempotency import Killer

CAT = {"prompt": "a cat"}


def request(row: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return "nano_banana", {"prompt": row["prompt"]}


@pytest.fixture
def service() -> Iterator[FakeService]:
    with serving(FakeService()) as service:
        yield service


@pytest.fixture
def run(service: FakeService) -> Any:
    """Return `generate` for the service, as a list."""

    def run(rows: Any, **options: Any) -> list[dict[str, Any]]:
        defaults = {"request": request, "connect": service.client, "namespace": "test"}
        return list(generate(rows, **{**defaults, **options}))

    return run


def test_equal_rows_share_a_task(service: FakeService, run: Any) -> None:
    records = run([CAT] * 4)
    assert [record["row"] for record in records] == [CAT] * 4
    assert {record["out_task_id"] for record in records} == {stable_id("test", CAT)}
    assert len(service.charges) == 1
    assert len(run([{**CAT, "n": n} for n in range(4)])) == 4
    assert len(service.charges) == 5


def test_rows_may_be_one_object_that_changes(service: FakeService, run: Any) -> None:
    """As from a reader that reuses its buffer."""

    def read(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for n in range(5):
            row["prompt"] = f"cat {n}"
            yield row

    records = run(read({}))
    assert sorted(record["row"]["prompt"] for record in records) == [f"cat {n}" for n in range(5)]
    assert len(service.charges) == 5


def test_a_record_has_all_that_is_known_of_a_row(
    service: FakeService, run: Any, tmp_path: Path
) -> None:
    (record,) = run([CAT], download_to=tmp_path)
    out_task_id = stable_id("test", CAT)
    (path,) = tmp_path.iterdir()
    assert record == {
        "row": CAT,
        "out_task_id": out_task_id,
        "status": "completed",
        "urls": [f"{service.results_url}/upload/{out_task_id}/item-0.png"],
        "paths": [str(path)],
        "credits_used": 1.0,
        "error": None,
    }
    assert json.loads(json.dumps(record)) == record
    assert type(record["status"]) is str


def test_a_row_fails_alone(service: FakeService, run: Any) -> None:
    service.script("submit", Fault.failed("NSFW", "no"))
    rows = [CAT, {"prompt": 1j}, {"text": "a dog"}, {"prompt": 5}]
    records = run(rows, request=lambda row: models.NanoBanana(prompt=row["prompt"]))
    found = {str(record["row"]): record["error"].partition(":")[0] for record in records}
    assert list(map(found.get, map(str, rows))) == [
        "TaskFailedError",
        "TypeError",
        "KeyError",
        "InvalidParamsError",
    ]
    failed = next(record for record in records if record["row"] == CAT)
    assert failed["status"] == "failed"
    assert {record["out_task_id"] for record in records} == {
        None,
        *(stable_id("test", row) for row in rows if row != rows[1]),
    }


def test_rows_that_come_again_later_are_answered_from_memory(
    service: FakeService, run: Any
) -> None:
    rows = [{"prompt": f"{n % 60}"} for n in range(120)]
    records = run(rows, window=1)
    assert [record["row"] for record in records] == rows
    assert len(service.charges) == 60


def test_rows_that_are_forgotten_are_found_in_the_store(
    service: FakeService, tmp_path: Path
) -> None:
    job = cluster._Job(
        request=request,
        connect=service.client,
        namespace="test",
        store=partial(SQLiteStore, tmp_path / "claims.db"),
        share=1.0,
        window=1,
        options={},
        remembered=1,  # no test can have as many rows as are remembered
    )
    rows = [{"prompt": "a"}, {"prompt": "b"}, {"prompt": "a"}]
    records = list(cluster._records(rows, job))
    assert [record["row"] for record in records] == rows
    assert {record["error"] for record in records} == {None}
    assert len(service.charges) == 2


def test_local_media_are_sent(service: FakeService, run: Any, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    (record,) = run(
        [{"image": str(tmp_path / "a.png")}],
        request=lambda row: models.NanoBananaV2(prompt="x", image_url=[Path(row["image"])]),
    )
    assert record["error"] is None
    assert service.charges[0].out_task_id == record["out_task_id"]


def test_rows_are_read_in_the_callers_thread_as_there_is_room(
    service: FakeService,
) -> None:
    read = 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal read
        for n in range(50):
            assert threading.current_thread() is threading.main_thread()
            read += 1
            yield {"prompt": f"{n}"}

    options = {"request": request, "connect": service.client, "namespace": "test", "window": 4}
    taken = 0
    for _ in generate(rows(), **options):  # type: ignore[arg-type]
        taken += 1
        assert read <= taken + 4
    assert taken == 50


def test_left_early_it_leaves_nothing_behind(service: FakeService) -> None:
    service.durations = 1000
    options = {"request": request, "connect": service.client, "namespace": "test", "window": 4}
    records = generate(({"prompt": f"{n}"} for n in range(50)), **options)  # type: ignore[arg-type]
    service.durations = {}
    next(records)
    records.close()  # type: ignore[attr-defined]
    assert [each for each in threading.enumerate() if each.name == "aireiter-cluster"] == []


def test_a_problem_of_the_account_is_the_error_of_all_remaining_rows(
    service: FakeService, run: Any
) -> None:
    connect = partial(service.client, api_key="sk-wrong", max_concurrency=1)
    rows = [{"prompt": f"{n}"} for n in range(300)]
    records = run([*rows, *rows], connect=connect, window=20)
    assert len(records) == 600
    kinds = Counter(record["error"].partition(":")[0] for record in records)
    assert kinds.keys() <= {"AuthenticationError", "NotSubmittedError"}
    assert len(service.requests) < 30


@pytest.mark.parametrize("name", ["connect", "store", "download_to"])
def test_what_cannot_be_set_up_is_raised(run: Any, tmp_path: Path, name: str) -> None:
    def fail() -> Any:
        raise LookupError("no")

    (tmp_path / "file").touch()
    value: Any = tmp_path / "file" if name == "download_to" else fail
    with pytest.raises((LookupError, FileExistsError)):
        run([CAT], **{name: value})


def test_a_share_scales_rate_and_concurrency(service: FakeService, run: Any) -> None:
    clients: list[AsyncClient] = []

    def connect() -> AsyncClient:
        clients.append(service.client(max_concurrency=10, max_rate=rate))
        return clients[-1]

    for rate in (40.0, None):
        run([], connect=connect, share=0.25)
        assert clients[-1].max_concurrency == 2
        assert clients[-1].stats.rate == (rate and 10)
    run([], connect=connect, share=0.01)
    assert clients[-1].max_concurrency == 1


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"rows": "abc"}, TypeError, "rows must be an iterable of rows, got str"),
        ({"rows": {"a": 1}}, TypeError, "got dict"),
        ({"share": 0}, ValueError, "share"),
        ({"share": 1.5}, ValueError, "share"),
        ({"window": 0}, ValueError, "window"),
        ({"timeout": -1}, ValueError, "timeout"),
    ],
)
def test_bad_arguments_are_named_at_once(options: Any, error: Any, text: str) -> None:
    defaults: Any = {"rows": [], "request": request, "connect": AsyncClient, "namespace": "test"}
    with pytest.raises(error, match=text):
        generate(**{**defaults, **options})


class Plain:
    """A store that is no context manager."""

    def __init__(self, path: Path) -> None:
        self.store = SQLiteStore(path)
        self.claim, self.release = self.store.claim, self.store.release


def test_a_store_is_used_and_may_be_a_context_manager(
    service: FakeService, run: Any, tmp_path: Path
) -> None:
    @asynccontextmanager
    async def connected() -> AsyncIterator[SQLiteStore]:
        async with SQLiteStore(tmp_path / "claims.db") as store:
            yield store

    stores = [partial(SQLiteStore, tmp_path / "claims.db"), connected]
    plain = Plain(tmp_path / "claims.db")
    for store in [*stores, lambda: plain]:
        (record,) = run([CAT], store=store)
        assert record["error"] is None
    asyncio.run(plain.store.close())
    assert (len(service.charges), service.posts(record["out_task_id"])) == (1, 1)
    (record,) = run([CAT], store=stores[0], request=lambda _: SubmitRequest("veo3_1", {}))
    assert record["error"].startswith(IDInUseError.__name__)


def test_it_can_be_sent_to_another_process() -> None:
    job = partial(
        generate,
        request=request,
        connect=AsyncClient,
        namespace="test",
        store=partial(SQLiteStore, "claims.db"),
    )
    sent = pickle.loads(pickle.dumps(job))  # noqa: S301 - our own
    assert sent.keywords.keys() == job.keywords.keys()


PROGRAM = """
import json, sys
from functools import partial
from aireiter_async import AsyncClient, PollPolicy, RetryPolicy, SQLiteStore
from aireiter_async.cluster import generate

key, url, path, first, last = sys.argv[1:]
connect = partial(
    AsyncClient, key, base_url=url, timeout=3, max_concurrency=16,
    retry=RetryPolicy(base=0.01, settle=0.05, attempts=9, max_retry_after=0),
    polling=PollPolicy(first=0, step=0.01, cap=0.05),
)
rows = ({"n": n} for n in range(int(first), int(last)))
for record in generate(
    rows, request=lambda row: ("nano_banana", {"prompt": str(row["n"])}), connect=connect,
    namespace="test", store=partial(SQLiteStore, path), share=0.5,
):
    assert record["error"] is None, record
    print(json.dumps(record))
"""


async def test_partitions_that_run_again_and_overlap_are_charged_once(tmp_path: Path) -> None:
    """Two processes, each killed once and run again, have a third of their rows in common."""
    killer = Killer(100, 300)
    losses = {Fault.lost_response(): 0.02, Fault.lost_response(accepted=True): 0.04}
    async with FakeService(used_id="charge", faults=losses, clock=killer) as service:

        async def work(first: int, last: int) -> list[dict[str, Any]]:
            while True:
                worker = killer.workers[first] = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-W", "error", "-c", PROGRAM, str(service.api_key)),
                    *(service.url, str(tmp_path / "claims.db"), str(first), str(last)),
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                )
                stdout, stderr = await worker.communicate()
                if worker.returncode == 0:
                    return list(map(json.loads, stdout.decode().splitlines()))
                assert (worker.returncode, stderr.decode()) == (-9, "")

        parts = await asyncio.gather(work(0, 90), work(60, 150))
    assert killer.at == []
    assert [sorted(record["row"]["n"] for record in part) for part in parts] == [
        list(range(90)),
        list(range(60, 150)),
    ]
    ids = {record["row"]["n"]: record["out_task_id"] for part in parts for record in part}
    charges = [charge.out_task_id for charge in service.charges]
    assert sorted(charges) == sorted(ids.values())
