"""A ledger that was damaged, or has no room: it is refused, or works; it never pays twice."""

import asyncio
import os
import random
import re
import resource
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import attrs
import pytest

from aireiter_async import AireiterError, AsyncClient, Ledger, LedgerError, SubmitRequest
from aireiter_async._ledger import _file, _lock, journal_of
from aireiter_async.testing import FakeService
from tests.full_disk import full_disk

Connect = Callable[..., AsyncClient]
Damage = Callable[[Path], object]

COUNT = 24
FILES = ("", "-wal", "-shm", ".lock")


def beside(path: Path, suffix: str) -> Path:
    """Return the file of a ledger that has a suffix."""
    return Path(f"{path}{suffix}")


def copy(source: Path, target: Path) -> None:
    """Copy a ledger as it is, which is as a kill would leave it."""
    for suffix in FILES:
        if beside(source, suffix).exists():
            shutil.copy(beside(source, suffix), beside(target, suffix))


def length(file: Path) -> int:
    """Return how many bytes a file has."""
    return file.stat().st_size


def execute(path: Path, script: str) -> None:
    """Run statements on a database."""
    with closing(sqlite3.connect(path)) as db:
        db.executescript(script)


def flip(file: Path, position: int, bit: int) -> None:
    """Turn one bit of a file over."""
    content = bytearray(file.read_bytes())
    content[position] ^= 1 << bit
    file.write_bytes(content)


@attrs.define
class World:
    """A batch of which all was submitted, to a service that charges a used id again.

    Attributes:
        killed: Its ledger after a kill: most of it is in the ``-wal``.
        clean: Its ledger after the end.
        old: Its ledger when a part was submitted.
    """

    client: AsyncClient
    service: FakeService
    killed: Path
    clean: Path
    old: Path

    async def run(self, path: Path, count: int = COUNT) -> list[Exception | None]:
        """Run the batch, or its first requests, and return what has gone wrong with each."""
        requests = [SubmitRequest("nano_banana", {"prompt": f"kitten {n}"}) for n in range(count)]
        async with Ledger(path) as ledger:
            return [
                outcome.error async for outcome in self.client.run_many(requests, ledger=ledger)
            ]

    async def refused(self, path: Path) -> str:
        """Run the batch with a ledger; return why that is refused, nothing if it is not.

        Whatever happens: nothing is paid for, and what is raised is a LedgerError with the path.
        """
        told: LedgerError | None = None
        errors: list[Exception | None] = []
        try:
            async with asyncio.timeout(60):
                errors = await self.run(path)
        except LedgerError as error:
            told = error
            await asyncio.sleep(0)  # Python 3.11 traces no frame that an error was thrown into
        assert len(self.service.charges) == COUNT
        if told is not None:
            assert told.path == str(path)
            return told.message
        assert len(errors) == COUNT
        # What the service has said of a task may be illegible by itself.
        assert all(isinstance(error, LedgerError | None) for error in errors)
        return ""


@pytest.fixture
async def world(service: FakeService, client: AsyncClient, tmp_path: Path) -> World:
    """Submit the batch."""
    service.used_id = "charge"
    killed, clean, old = (tmp_path / name for name in ("killed.db", "clean.db", "old.db"))
    world = World(client, service, killed, clean, old)
    await world.run(clean, 4)
    copy(clean, old)
    async with Ledger(clean) as ledger:
        requests = [SubmitRequest("nano_banana", {"prompt": f"kitten {n}"}) for n in range(COUNT)]
        async for outcome in client.run_many(requests, ledger=ledger):
            assert outcome.ok
        await ledger.counts()
        copy(clean, killed)
    assert len(service.charges) == COUNT
    return world


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the ledger is."""
    return tmp_path / "run.db"


async def test_an_undamaged_copy_is_the_ledger(world: World, path: Path) -> None:
    for template in (world.killed, world.clean):
        copy(template, path)
        assert await world.refused(path) == ""


CUTS = (0, 1, 15, 100, 511, 4095, -16_000, -4120, -4096, -1)  # below 0: from the end


@pytest.mark.parametrize(
    ("name", "suffix"), [("killed", ""), ("killed", "-wal"), ("clean", ""), ("clean", ".lock")]
)
async def test_a_file_that_was_cut_short_pays_for_nothing(
    world: World, path: Path, name: str, suffix: str
) -> None:
    """Whatever is left of which file, the batch is rejected, or continues from the whole of it."""
    for cut in CUTS:
        copy(getattr(world, name), path)
        file = beside(path, suffix)
        os.truncate(file, max(0, cut if cut >= 0 else file.stat().st_size + cut))
        refused = await world.refused(path)
        # The last byte was a zero; the last of the -wal told of ends, which can be asked for.
        assert refused or suffix == ".lock" or cut == -1 or (suffix == "-wal" and cut < 0)


@pytest.mark.parametrize("suffix", FILES)
@pytest.mark.parametrize("flips", [24, pytest.param(1500, marks=pytest.mark.soak)])
async def test_a_bit_that_flipped_pays_for_nothing(
    world: World, path: Path, suffix: str, flips: int
) -> None:
    """With any bit of any of its files turned over, the batch is rejected, or continues."""
    draws = random.Random(suffix)  # noqa: S311 - repeatable, guards nothing
    for turn in range(flips):
        template = world.killed if suffix in {"-wal", "-shm"} or turn % 2 else world.clean
        copy(template, path)
        file = beside(path, suffix)
        size = file.stat().st_size
        # Half of them in the header.
        flip(file, draws.randrange(min(size, 100) if turn % 4 < 2 else size), draws.randrange(8))
        refused = await world.refused(path)
        assert suffix != "-shm" or not refused


def remove(suffix: str) -> Damage:
    """Return what removes a file of a ledger."""
    return lambda path: beside(path, suffix).unlink()


def write(suffix: str, content: bytes) -> Damage:
    """Return what overwrites a file of a ledger."""
    return lambda path: beside(path, suffix).write_bytes(content)


def both(*damages: Damage) -> Damage:
    """Return what does one damage after the other."""
    return lambda path: [damage(path) for damage in damages]


def edit(script: str) -> Damage:
    """Return what changes a ledger by SQL."""
    return lambda path: execute(path, script)


DAMAGES: dict[str, tuple[str, Damage, str]] = {
    "emptied": ("clean", write("", b""), "it is empty or truncated, and had tasks"),
    "emptied after a kill": ("killed", write("", b""), "it is empty or truncated, and had tasks"),
    "emptied, with nothing but a -wal": (
        "killed",
        both(remove(".lock"), write("", b"")),
        "it is empty or truncated, and had tasks",
    ),
    "made anew by another program": (
        "clean",
        both(remove(""), edit("VACUUM")),
        "it is empty or truncated, and had tasks",
    ),
    "an old copy": (
        "clean",
        lambda path: shutil.copy(path.with_name("old.db"), path),
        r"tasks up to number 4, but \d+ were recorded",
    ),
    "without its -wal": ("killed", remove("-wal"), r"tasks up to number 4, but \d+ were recorded"),
    "garbage as -wal": ("killed", write("-wal", b"x" * 9000), "tasks up to number 4, but"),
    "garbage as -shm": ("killed", write("-shm", b"x" * 9000), ""),
    "garbage": ("clean", write("", b"garbage\n" * 4000), "not a database"),
    "zeros": ("clean", write("", bytes(32768)), "not a database"),
    "garbage as lock": (
        "clean",
        write(".lock", b"x" * 9000),
        "run.db.lock is not a lock: delete it",
    ),
    "without salt": ("clean", edit("DELETE FROM batch"), "it has no salt"),
    "another salt": (
        "clean",
        edit("UPDATE batch SET salt = 'ffffffffffff'"),
        "run.db.lock belongs to another ledger: delete it",
    ),
    "a state that is none": (
        "clean",
        edit("PRAGMA ignore_check_constraints = 1; UPDATE tasks SET state = 'paid'"),
        "damaged .CHECK constraint failed",
    ),
    "without tables": (
        "clean",
        edit("DROP TABLE tasks; DROP TABLE batch"),
        "no such table: batch",
    ),
    "retries in a circle": (
        "clean",
        edit("UPDATE tasks SET retried_as = out_task_id"),
        "damaged .* was recorded before the task that it retries",
    ),
}


async def test_a_damaged_ledger_says_what_is_wrong(world: World, path: Path) -> None:
    """Each kind of damage has its own message, which the next run repeats."""
    for name, (template, damage, why) in DAMAGES.items():
        directory = path.parent / name
        directory.mkdir()
        shutil.copy(world.old, directory)
        ledger = directory / path.name
        copy(getattr(world, template), ledger)
        damage(ledger)
        for _ in range(2):
            refused = await world.refused(ledger)
            assert re.search(why, refused) if why else refused == "", name


async def test_a_reply_that_is_illegible_costs_its_line_only(
    service: FakeService, world: World, path: Path
) -> None:
    """Where what the service has said of one task cannot be read, that is its outcome's error."""
    copy(world.clean, path)
    execute(path, "UPDATE tasks SET reply = '{' WHERE number = 3")
    errors = [error for error in await world.run(path) if error is not None]
    assert [isinstance(error, AireiterError) for error in errors] == [True]
    assert len(service.charges) == COUNT


async def test_the_advice_about_a_lock_helps(world: World, path: Path) -> None:
    """Where a ledger belongs to another lock, it continues once the lock was deleted."""
    copy(world.clean, path)
    other = _lock.Lock(path.with_name("other.db"))
    other.compare("another salt", 3)
    other.close()
    shutil.copy(beside(path.with_name("other.db"), ".lock"), beside(path, ".lock"))
    refused = await world.refused(path)
    assert "delete it" in refused
    beside(path, ".lock").unlink()
    assert await world.refused(path) == ""


async def test_a_ledger_draws_the_same_ids_without_its_log(
    service: FakeService, client: AsyncClient, path: Path
) -> None:
    service.used_id = "return"
    requests = [SubmitRequest("nano_banana", {"prompt": f"kitten {n}"}) for n in range(4)]
    async with Ledger(path) as ledger:
        assert all([outcome.ok async for outcome in client.run_many(requests, ledger=ledger)])
        shutil.copy(path, f"{path}.copy")
    assert await finish(client, Ledger(f"{path}.copy"), requests) == 4
    assert len(service.charges) == 4


@pytest.mark.parametrize("prepare", [Path.touch, Path.exists])
async def test_a_ledger_that_was_deleted_begins_again(
    service: FakeService, world: World, path: Path, prepare: Damage
) -> None:
    """Where no file is, or an empty one and no ledger was before, a new batch begins."""
    prepare(path)
    assert await world.run(path, 2) == [None, None]
    assert len(service.charges) == COUNT + 2
    copy(world.killed, path)
    remove("")(path)
    assert await world.run(path, 3) == [None, None, None]
    assert len(service.charges) == COUNT + 5
    assert await world.run(path, 3) == [None, None, None]
    assert len(service.charges) == COUNT + 5


def zero(file: Path, index: str) -> None:
    """Overwrite the first page of an index with zeros."""
    with closing(sqlite3.connect(file)) as db:
        (page,) = db.execute(
            "SELECT rootpage - 1 FROM sqlite_master WHERE name = ?", (index,)
        ).fetchone()
    content = bytearray(file.read_bytes())
    content[page * 4096 : (page + 1) * 4096] = bytes(4096)
    file.write_bytes(content)


@pytest.fixture
def _unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Open ledgers as if they were too large to be checked."""
    monkeypatch.setattr(_file, "_CHECKED_PAGES", 0)


@pytest.mark.usefixtures("_unchecked")
@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (edit("PRAGMA ignore_check_constraints = 1; UPDATE tasks SET state = 'paid'"), "'paid'"),
        (lambda path: zero(path, "sqlite_autoindex_tasks_1"), "malformed"),
        (lambda path: zero(path, "contents"), "malformed"),
    ],
)
@pytest.mark.parametrize("limit", [None, 1000])
async def test_damage_that_shows_late_ends_the_batch(
    service: FakeService, world: World, path: Path, damage: Damage, why: str, limit: float | None
) -> None:
    """Damage that is met on the way is a LedgerError with its cause, and nothing more is sent."""
    copy(world.clean, path)
    damage(path)
    requests = [SubmitRequest("nano_banana", {"prompt": f"kitten {n}"}) for n in range(2 * COUNT)]
    ledger = await Ledger(path).__aenter__()
    batch = world.client.run_many(requests, ledger=ledger, max_credits=limit, window=4)
    with pytest.raises(LedgerError, match=why) as caught:
        _ = [outcome async for outcome in batch]
    assert isinstance(caught.value.__cause__, sqlite3.DatabaseError | ValueError)
    assert caught.value.path == str(path)
    broken = journal_of(ledger).broken
    if broken is None:  # it was met when the budget read the ledger
        await ledger.__aexit__(None, None, None)
    else:
        assert broken is caught.value
        with pytest.raises(LedgerError, match=why):
            await ledger.__aexit__(None, None, None)
    assert len(service.charges) == COUNT


async def finish(client: AsyncClient, ledger: Ledger, requests: list[SubmitRequest]) -> int:
    """Run a batch, and return for how many requests it has gone well."""
    async with ledger:
        batch = client.run_many(requests, ledger=ledger, window=8)
        return sum([outcome.ok async for outcome in batch])


@pytest.mark.parametrize("step", [7_000, pytest.param(500, marks=pytest.mark.soak)])
async def test_a_disk_that_was_full_for_a_while_costs_nothing(
    service: FakeService, client: AsyncClient, tmp_path: Path, step: int
) -> None:
    service.used_id = "charge"
    errors: list[LedgerError] = []
    for size in range(0, 90_000, step):
        service.charges.clear()
        requests = [SubmitRequest("nano_banana", {"prompt": f"{n} " * 500}) for n in range(COUNT)]
        ledger = Ledger(tmp_path / f"{size}.db")
        with full_disk(size):
            try:
                await finish(client, ledger, requests)
            except LedgerError as error:
                errors.append(error)
        assert await finish(client, ledger, requests) == COUNT
        assert len(service.charges) == COUNT
    assert len(errors) > 70_000 // step
    assert all(
        re.search("is full|disk I/O error|No space|too large", error.message) for error in errors
    )
    assert all(isinstance(error.__cause__, sqlite3.Error | OSError) for error in errors)


async def test_a_lock_that_is_cut_short_is_a_full_disk(path: Path) -> None:
    with full_disk(10), pytest.raises(LedgerError, match="No space left"):
        await Ledger(path).__aenter__()


@pytest.mark.parametrize("when", ["while it runs", "when it closes"])
async def test_a_full_disk_leaves_the_log_as_it_is(
    service: FakeService, client: AsyncClient, path: Path, when: str
) -> None:
    requests = [SubmitRequest("nano_banana", {"prompt": f"{n} " * 200_000}) for n in range(4)]
    assert await finish(client, Ledger(path), requests) == 4
    with closing(sqlite3.connect(path)) as db:
        db.execute("VACUUM")  # no free pages: whatever comes makes the file longer
    requests += [SubmitRequest("nano_banana", {"prompt": f"{n} " * 900}) for n in range(8)]
    size = length(path)
    running = when == "while it runs"
    ledger = await Ledger(path).__aenter__()
    store = journal_of(ledger)._store
    assert store is not None
    store._db.execute(f"PRAGMA wal_autocheckpoint = {1 if running else 1000}")
    with full_disk(size if running else resource.RLIM_INFINITY):
        batch = client.run_many(requests, ledger=ledger)
        assert all([outcome.ok async for outcome in batch])
    with full_disk(size):
        await ledger.__aexit__(None, None, None)
    assert length(beside(path, "-wal")) > 0
    assert length(path) == size
    assert await finish(client, Ledger(path), requests) == 12
    assert len(service.charges) == 12


def replace(path: Path) -> None:
    """Put a copy in the place of a file."""
    shutil.copy(path, f"{path}.new")
    Path(f"{path}.new").rename(path)


@pytest.mark.parametrize("damage", [remove(""), replace, lambda path: path.rename(f"{path}.moved")])
async def test_a_file_that_goes_away_ends_the_batch(
    service: FakeService, world: World, path: Path, damage: Damage
) -> None:
    """A ledger that is deleted or replaced during a run is noticed before anything more is sent."""
    requests = [SubmitRequest("nano_banana", {"prompt": f"kitten {n}"}) for n in range(2 * COUNT)]
    copy(world.clean, path)
    ledger = await Ledger(path).__aenter__()
    batch = world.client.run_many(requests, ledger=ledger, window=1)
    _ = [await anext(batch) for _ in range(COUNT)]
    damage(path)
    with pytest.raises(LedgerError, match="was deleted or replaced while the batch ran"):
        _ = [outcome async for outcome in batch]
    with pytest.raises(LedgerError, match="was deleted or replaced while the batch ran"):
        await ledger.__aexit__(None, None, None)
    assert len(service.charges) == COUNT
