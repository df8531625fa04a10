"""Batches that are killed over and over, while their input files are edited."""

import asyncio
import json
import os
import random
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Timer
from typing import Any, Final, get_args

from attrs import define, fields

from aireiter_async import AsyncClient, Ledger, PollPolicy, RetryPolicy, SubmitRequest
from aireiter_async.testing import FakeService, Fault
from aireiter_async.testing._options import API_KEY, UsedId
from benchmarks.fleet import FakeServer, serve, start
from benchmarks.report import Section, Table, Target

_MODULE: Final = "benchmarks.kills"
_USED_IDS: Final = get_args(UsedId)
_KILLS_PER_LEDGER: Final = 10
_EVENTS_PER_ROW: Final = 10
_LONGEST_INPUT: Final = 120  # rows
_PEACEFUL_RUNS: Final = 5
_RESTARTS: Final = 0.2  # share of the runs in which the service restarts

# Of 100 exchanges, 4 lose their response; of 100 files, 4 are cut or not sent.
_LOSSES: Final = {
    Fault.lost_response(): 0.02,
    Fault.lost_response(accepted=True): 0.02,
    Fault.reset().on("result"): 0.02,
    Fault.truncated().on("result"): 0.02,
}

Rows = list[int]  # an input file: the number of the content of each row


@define
class Kills:
    """What has become of batches that were killed.

    Attributes:
        killed: Runs that SIGKILL has ended.
        runs: Runs in all.
        ledgers: Ledgers, each of several runs.
        edits: Edits of input files.
        charges: Tasks that were paid for.
        lost: Tasks that a reader of the inputs expects and that were not paid for, or have no
            row in the ledger or no whole file.
        doubled: Charges beyond those that a reader expects.
    """

    killed: int = 0
    runs: int = 0
    ledgers: int = 0
    edits: int = 0
    charges: int = 0
    lost: int = 0
    doubled: int = 0

    def __add__(self, other: "Kills") -> "Kills":
        names = [each.name for each in fields(Kills)]
        return Kills(*(getattr(self, name) + getattr(other, name) for name in names))


def measure(kills: int) -> Section:
    """Kill batches *kills* times."""
    figures = kill_batches(kills)
    names = [each.name for each in fields(Kills)]
    text = (
        "`run_many` with a ledger and downloads, killed by SIGKILL at random. Between the runs, "
        "the input file is sorted, shuffled, cut, saved in another form, and rows are inserted, "
        "appended, deleted and duplicated; the service restarts in a fifth of the runs and loses 4 "
        "of 100 responses. In the end the batch runs in peace, with all rows that it ever had. "
        "A reader expects to pay for each content as often as one input had it."
    )
    table = Table(names, [[f"{getattr(figures, name):,}" for name in names]])
    targets = [
        Target("tasks lost in killed batches", 0, figures.lost),
        Target("tasks doubled in killed batches", 0, figures.doubled),
    ]
    return Section("Killed batches", text, [table], targets)


def kill_batches(kills: int) -> Kills:
    """Kill batches *kills* times, a few times for each ledger."""
    whole, rest = divmod(kills, _KILLS_PER_LEDGER)
    shares = [_KILLS_PER_LEDGER] * whole + [rest] * (rest > 0)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        histories = map(History, range(len(shares)), shares)
        return sum(pool.map(History.play, histories), Kills())


# Input files ----------------------------------------------------------------------------------

_EDITS: Final[dict[str, Callable[[Rows, random.Random, Iterator[int]], Rows]]] = {
    "save": lambda rows, _draw, _new: rows,
    "sort": lambda rows, _draw, _new: sorted(rows, key=str),
    "reverse": lambda rows, _draw, _new: rows[::-1],
    "shuffle": lambda rows, draw, _new: draw.sample(rows, len(rows)),
    "insert": lambda rows, draw, new: _insert(rows, draw, [next(new) for _ in range(8)]),
    "append": lambda rows, draw, new: rows + [next(new) for _ in range(draw.randint(1, 20))],
    "delete": lambda rows, draw, _new: draw.sample(rows, len(rows) * 3 // 4),
    "cut": lambda rows, draw, _new: rows[draw.randint(0, len(rows) // 3) :],
    "duplicate": lambda rows, draw, _new: _insert(rows, draw, draw.sample(rows, len(rows) // 6)),
}


def _insert(rows: Rows, draw: random.Random, more: Rows) -> Rows:
    rows = rows.copy()
    for content in more:
        rows.insert(draw.randint(0, len(rows)), content)
    return rows


def _write(path: Path, rows: Rows, draw: random.Random) -> None:
    """Save rows as JSON lines, in one of the forms that editors and programs write."""
    options: dict[str, Any] = {
        "ensure_ascii": draw.choice([True, False]),
        "separators": draw.choice([(", ", ": "), (",", ":"), (" , ", " : ")]),
        "sort_keys": draw.choice([True, False]),
    }
    end = draw.choice(["\n", "\r\n", "\r", "\n\n"])
    lines = [json.dumps({"prompt": f"小猫 {row}", "content": row}, **options) for row in rows]
    text = end.join(lines) + draw.choice(["", end])
    path.write_bytes(text.encode(draw.choice(["utf-8", "utf-8-sig"])))


def _read(path: str) -> Iterator[SubmitRequest]:
    """Yield the requests of a file."""
    with Path(path).open(encoding="utf-8-sig") as lines:
        for line in lines:
            if line.strip():
                yield SubmitRequest("nano_banana", json.loads(line))


# Runs -----------------------------------------------------------------------------------------


def _price(_model: str, params: Mapping[str, Any]) -> float:
    """Return the number of a task's content: so a charge names what it is for."""
    return float(params["content"])


class History:
    """One ledger, from its first run to its last.

    Args:
        seed: Decides the edits and the moments of the kills.
        kills: How many kills there are.
    """

    def __init__(self, seed: int, kills: int) -> None:
        self._kills = kills
        self._draw = random.Random(seed)  # noqa: S311 - repeatable, guards nothing
        self._used_id = _USED_IDS[seed % len(_USED_IDS)]
        self._new = iter(range(1, 10_000))
        self._rows = [next(self._new) for _ in range(60)]
        self._expected = Counter[int]()  # each content as often as one input had it
        self._figures = Kills(ledgers=1)

    def play(self) -> Kills:
        """Run the batch, killed and edited, then in peace to its end."""
        draw, figures = self._draw, self._figures
        with ExitStack() as stack:
            self._server = stack.enter_context(FakeServer(_MODULE, self._used_id))
            self._directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            while figures.killed < self._kills:
                left = (Counter(self._rows) - self._charged()).total()
                event = draw.randint(1, 1 + _EVENTS_PER_ROW * left)
                delay = draw.random() * draw.choice([0.0, 0.005, 0.05])
                self._run(event, delay)
                for _ in range(draw.randint(0, 3)):
                    edit = _EDITS[draw.choice(sorted(_EDITS))]
                    self._rows = edit(self._rows, draw, self._new)[:_LONGEST_INPUT]
                    figures.edits += 1
            self._finish()
            self._rows = draw.sample(list(self._expected.elements()), self._expected.total())
            self._finish()
            charges = self._server.charges()
            figures.charges = len(charges)
            figures.lost = (self._expected - self._charged()).total()
            figures.lost += asyncio.run(_count_missing(self._directory, charges))
        return figures

    def _charged(self) -> Counter[int]:
        return Counter(int(charge["credits"]) for charge in self._server.charges())

    def _finish(self) -> None:
        """Run the batch in peace; the service loses responses, so again while an item fails."""
        for _ in range(_PEACEFUL_RUNS):
            if not self._run():
                break

    def _run(self, event: int = 0, delay: float = 0.0) -> int:
        """Run the batch, killed *delay* seconds after an event unless that is 0.

        Returns:
            How many of its items failed, or its exit status.
        """
        draw, figures = self._draw, self._figures
        _write(self._directory / "rows.jsonl", self._rows, draw)
        self._expected |= Counter(self._rows)
        figures.runs += 1
        process = start(
            _MODULE, "run", self._server.urls[0], str(self._directory), f"{event}", f"{delay}"
        )
        restart = Timer(draw.uniform(0.3, 0.8), self._server.restart)
        restarts = draw.random() < _RESTARTS
        if restarts:
            restart.start()
        told, trouble = process.communicate()
        if restarts:
            restart.join()
        if process.returncode not in {0, -signal.SIGKILL}:
            raise RuntimeError(trouble)
        figures.killed += process.returncode == -signal.SIGKILL
        figures.doubled += (self._charged() - self._expected).total()
        return process.returncode or int(told)


async def _count_missing(directory: Path, charges: Iterable[Mapping[str, Any]]) -> int:
    """Count charges that have no row in the ledger, or no whole file of their own."""
    contents = {charge["out_task_id"]: charge["credits"] for charge in charges}
    files: dict[str, Path] = {}
    async for row in Ledger(directory / "run.db").rows():
        out_task_id, paths = row["out_task_id"], [Path(each) for each in row["paths"]]
        known = row["params"]["content"] == contents.get(out_task_id)
        # A PNG that was cut has no end.
        if known and any(b"IEND" in each.read_bytes() for each in paths):
            files[out_task_id] = paths[0]
    strangers = set((directory / "results").iterdir()) ^ set(files.values())
    return len(contents) - len(set(files.values())) + len(strangers)


class Death:
    """Kills this process some time after a number of events."""

    def __init__(self, event: int, delay: float) -> None:
        self._left = event
        self._delay = delay

    def __call__(self, _event: object) -> None:
        """Count an event."""
        self._left -= 1
        if self._left == 0:
            timer = Timer(self._delay, os.kill, (os.getpid(), signal.SIGKILL))
            timer.daemon = True
            timer.start()


async def _run_batch(url: str, directory: Path, death: Death) -> int:
    """Run a batch, and return how many items have failed."""
    death("the start")
    quick: Any = {
        "retry": RetryPolicy(base=0, settle=0),
        "polling": PollPolicy(first=0, step=0, cap=0),
    }
    async with AsyncClient(API_KEY, base_url=url, max_concurrency=8, **quick) as client:
        client.subscribe(death)
        async with Ledger(directory / "run.db") as ledger:
            source = _read(str(directory / "rows.jsonl"))
            batch = client.run_many(source, ledger=ledger, download_to=directory / "results")
            return len([outcome async for outcome in batch if not outcome.ok])


def main() -> None:
    """Do what one of the processes does."""
    what, argument, *more = sys.argv[1:]
    if what == "serve":
        options: Any = {"used_id": argument, "price": _price, "credits": 1e9, "record": False}
        asyncio.run(serve(FakeService(faults=_LOSSES, **options)))
    else:
        directory, event, delay = more
        death = Death(int(event), float(delay))
        print(asyncio.run(_run_batch(argument, Path(directory), death)))


if __name__ == "__main__":
    main()
