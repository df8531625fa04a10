"""How many instructions a submit takes: the same numbers on any machine, however busy it is.

Valgrind's callgrind counts them in user space, in one process, with the service beside it. Repeats
agree to half a per cent. It takes valgrind with its headers, and a C compiler.

    python -m benchmarks.instructions ours:mapping bare:tuned      # prints thousands per submit
"""

import argparse
import asyncio
import ctypes
import gc
import importlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from benchmarks import steps
from benchmarks.driver import LARGE
from benchmarks.fleet import Service
from benchmarks.report import Section, Table, Target
from benchmarks.submit import BARE, LABELS, OURS, REFERENCE, WAYS

_SOURCE: Final = Path(__file__).with_name("callgrind.c")
_LOOPS: Final = ("asyncio", "uvloop")
_CONCURRENCY: Final = 64
_SUBMITS: Final = 640
_STEPS: Final = 50
_TRIGGER: Final = re.compile(r"^desc: Trigger: Client Request: (.+)$", re.MULTILINE)
_TOTAL: Final = re.compile(r"^(?:summary|totals): (\d+)", re.MULTILINE)
_PREFIX: Final = "step:"
_AWAITED: Final = ("a slot of the throttle", "a deadline", "`asyncio.timeout`, for comparison")
_NOTE_TYPED: Final = (
    "21 k: an instance is created and its parameters are checked by name, type and value; the "
    "target dates from a submit of 470 k, of which 5 per cent are 23 k"
)
_NOTE_LEDGER: Final = (
    "identity by content costs about 0.06 of it: each content is counted in a table and has an "
    "entry in an index; finding IDs that are used twice costs as much"
)
_TARGETS: Final = (
    ("submit / tuned aiohttp", "asyncio", OURS, REFERENCE, 0.50, ""),
    ("submit / tuned aiohttp, uvloop", "uvloop", OURS, REFERENCE, 0.55, ""),
    ("submit_many / tuned aiohttp", "asyncio", "ours:many", REFERENCE, 0.65, ""),
    (
        "submit_many with a ledger / the same",
        "asyncio",
        "ours:ledger",
        REFERENCE,
        1.0,
        _NOTE_LEDGER,
    ),
    ("typed model / mapping", "asyncio", "ours:typed", OURS, 1.05, _NOTE_TYPED),
)


class UnavailableError(RuntimeError):
    """Valgrind, its headers or a compiler is missing."""


def count(names: Sequence[str], loop: str = "asyncio", submits: int = _SUBMITS) -> dict[str, float]:
    """Return the thousands of instructions per submit of each client, or of each `step:`.

    Raises:
        UnavailableError: There is nothing to count with.
    """
    compiler, valgrind = shutil.which("cc") or shutil.which("gcc"), shutil.which("valgrind")
    if compiler is None or valgrind is None:
        raise UnavailableError("it takes valgrind and a C compiler")
    with tempfile.TemporaryDirectory() as directory, Service() as service:
        library, output = Path(directory, "callgrind.so"), Path(directory, "out")
        _run([compiler, "-O2", "-shared", "-fPIC", str(_SOURCE), "-o", str(library)])
        fixed = [shutil.which("setarch") or "", "-R"]  # addresses that do not vary
        _run(
            [
                *(fixed if fixed[0] else []),
                *(valgrind, "-q", "--tool=callgrind", "--instr-atstart=no"),
                *(
                    f"--callgrind-out-file={output}",
                    sys.executable,
                    "-m",
                    "benchmarks.instructions",
                ),
                *("--under", str(library), service.url, "--loop", loop),
                *("--submits", str(submits), *names),
            ]
        )
        found = {}
        for dump in Path(directory).glob("out.*"):
            text = dump.read_text()
            trigger, total = _TRIGGER.search(text), _TOTAL.search(text)
            if trigger is not None and total is not None:
                name, _, times = trigger[1].rpartition("/")
                found[name] = int(total[1]) / int(times) / 1000
    return {name: found[name] for name in names}


def measure(share: float) -> Section:
    """Count every use of this package and the references, then each step of a submit."""
    text = (
        f"Thousands of instructions per submit in user space, {_CONCURRENCY} in flight, counted by "
        "callgrind, and the ratio to tuned aiohttp. Repeats agree to 0.5 per cent, however busy "
        "the machine is; what the kernel does is the same for all, and not included."
    )
    del share  # fewer submits would count the start of a batch's workers for more
    title = "Instructions per submit"
    names = [*BARE, *WAYS]
    try:
        found = {"asyncio": count(names)}
        alone = count([_PREFIX + name for name in (*steps.plain(), *_AWAITED)])
    except UnavailableError as error:
        return Section(title, f"Not counted: {error}.")
    with suppress(UnavailableError):  # uvloop is not installed
        found["uvloop"] = count(names, "uvloop")
    rows = [[LABELS[name], *(_cell(numbers, name) for numbers in found.values())] for name in names]
    costs = [
        [name.removeprefix(_PREFIX), f"{number:.1f}", f"{number / found['asyncio'][REFERENCE]:.3f}"]
        for name, number in alone.items()
    ]
    head = ["step of a submit, by itself", "thousands", "of tuned aiohttp"]
    tables = [Table(["client", *found], rows), Table(head, costs)]
    return Section(title, text, tables, list(_targets(found)))


def _cell(numbers: Mapping[str, float], name: str) -> str:
    return f"{numbers[name]:.0f}, {numbers[name] / numbers[REFERENCE]:.2f}"


def _targets(found: Mapping[str, Mapping[str, float]]) -> Iterator[Target]:
    for claim, loop, name, other, limit, why in _TARGETS:
        value = found[loop][name] / found[loop][other] if loop in found else None
        yield Target(f"instructions: {claim}", limit, value, "counted", why)


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(  # noqa: S603 - ourselves
        command,
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": "0"},
    )
    if done.returncode:
        raise UnavailableError(f"{command[0]}: {done.stderr.strip()[-500:]}")


class Callgrind:
    """The counter of the process that runs under it."""

    def __init__(self, library: str) -> None:
        self._library = ctypes.CDLL(library)
        self._library.stop.argtypes = [ctypes.c_char_p]

    def start(self) -> None:
        """Count from here."""
        gc.collect()
        self._library.start()

    def stop(self, name: str, times: int) -> None:
        """Write down what was counted, as *times* of *name*."""
        self._library.stop(f"{name}/{times}".encode())


async def _count_clients(
    callgrind: Callgrind, clients: Sequence[str], url: str, submits: int
) -> None:
    for client in clients:
        module, _, name = client.partition(":")
        connect = getattr(importlib.import_module(f"benchmarks.clients.{module}"), name)
        async with connect(url, _CONCURRENCY) as run:
            await run(3 * _CONCURRENCY)  # connections and caches are there by then
            callgrind.start()
            await run(submits)
            callgrind.stop(client, submits)


async def _count_steps(callgrind: Callgrind, names: Sequence[str]) -> None:
    plain: dict[str, Callable[[], Any]] = {**steps.plain()}
    awaited: dict[str, Callable[[], Any]] = {**steps.awaited()}
    for name in names:
        step = plain.get(name) or awaited[name]
        for _ in range(3):
            (await step()) if name in awaited else step()
        callgrind.start()
        if name in awaited:
            for _ in range(_STEPS):
                await step()
        else:
            for _ in range(_STEPS):
                step()
        callgrind.stop(_PREFIX + name, _STEPS)


def main() -> None:
    """Count what the command line names, and print it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="+")
    parser.add_argument("--loop", default="asyncio")
    parser.add_argument("--submits", type=int, default=_SUBMITS)
    parser.add_argument("--under", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.under is None:
        found = count(options.names, options.loop, options.submits)
        for name, number in found.items():
            ratio = number / found.get(REFERENCE, number)
            print(f"{name:40s} {number:9.2f} k {ratio:6.3f}")
        return
    library, url = options.under
    callgrind = Callgrind(library)
    bytearray(LARGE)  # as in `driver.main`
    wanted = [name.removeprefix(_PREFIX) for name in options.names if name.startswith(_PREFIX)]
    clients = [name for name in options.names if not name.startswith(_PREFIX)]
    factory = importlib.import_module(options.loop).new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_count_clients(callgrind, clients, url, options.submits))
        runner.run(_count_steps(callgrind, wanted))


if __name__ == "__main__":
    main()
