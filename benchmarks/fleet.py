"""Processes side by side: services, and drivers whose rounds are interleaved."""

import asyncio
import json
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final, Self
from urllib.request import urlopen

from attrs import field, frozen

from aireiter_async.testing import FakeService

_ROOT: Final = Path(__file__).parents[1]


class Service:
    """The service in a process of its own.

    Attributes:
        url: Where it is.
    """

    def __init__(self) -> None:
        self._process = start("benchmarks.service")

    def __enter__(self) -> Self:
        """Wait until it listens."""
        self.url = f"http://127.0.0.1:{read_line(self._process)}"
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()

    def control(self, **told: object) -> dict[str, Any]:
        """Tell it what to do from now on, and return what it has seen so far."""
        query = "&".join(f"{name}={value}" for name, value in told.items())
        with urlopen(f"{self.url}/control?{query}") as answer:  # noqa: S310 - loopback
            account: dict[str, Any] = json.load(answer)
        return account


class FakeServer:
    """A `FakeService` in a process of its own, which calls `serve`.

    Args:
        module: The module that runs it, with ``serve`` and more as its arguments.

    Attributes:
        urls: What it has printed.
    """

    def __init__(self, module: str, *arguments: str) -> None:
        self._process = start(module, "serve", *arguments)

    def __enter__(self) -> Self:
        """Wait until it listens."""
        self.urls = read_line(self._process).split()
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()

    def restart(self) -> None:
        """Cut all connections, and listen again."""
        _stdin(self._process).write("\n")
        _stdin(self._process).flush()
        read_line(self._process)

    def charges(self) -> list[dict[str, Any]]:
        """Return what it has charged for."""
        with urlopen(f"{self.urls[0]}/_fake/charges") as reply:  # noqa: S310 - loopback
            charges: list[dict[str, Any]] = json.load(reply)["charges"]
        return charges


async def serve(service: FakeService) -> None:
    """Run *service* for a `FakeServer`, until the standard input ends."""
    loop = asyncio.get_running_loop()
    async with service:
        print(service.url, flush=True)
        while await loop.run_in_executor(None, sys.stdin.readline):
            await service.close()
            await service.start()
            print(service.url, flush=True)


class Driver:
    """One client in a process of its own.

    Args:
        client: Its module and function, such as ``ours:mapping``.
        url: The service.
        concurrency: Submits in flight.
        loop: ``asyncio`` or ``uvloop``.

    """

    def __init__(self, client: str, url: str, concurrency: int, loop: str) -> None:
        self._process = start("benchmarks.driver", client, url, str(concurrency), loop)

    def ready(self) -> None:
        """Wait until it is.

        Raises:
            RuntimeError: It cannot be imported or driven; the text says why.
        """
        read_line(self._process)

    def run(self, count: int) -> float:
        """Submit *count* times and return the CPU seconds that it took."""
        _stdin(self._process).write(f"{count}\n")
        _stdin(self._process).flush()
        return float(read_line(self._process))

    def close(self) -> None:
        """End the process."""
        with suppress(BrokenPipeError):
            _stdin(self._process).close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _tuple(numbers: Iterable[float]) -> tuple[float, ...]:
    return tuple(numbers)


@frozen
class Numbers:
    """One number per round.

    Attributes:
        rounds: The numbers, in the order of the rounds.
    """

    rounds: tuple[float, ...] = field(converter=_tuple)

    @property
    def median(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.rounds)

    @property
    def span(self) -> str:
        """The range of the rounds."""
        return f"{min(self.rounds):.2f} to {max(self.rounds):.2f}"

    def against(self, other: "Numbers") -> "Numbers":
        """Return the ratios to *other*, taken round by round."""
        return Numbers(one / two for one, two in zip(self.rounds, other.rounds, strict=True))


@contextmanager
def drivers(
    clients: Sequence[str], url: str, concurrency: int, loop: str
) -> Iterator[tuple[dict[str, Driver], dict[str, str]]]:
    """Start one driver per client; also yield why some could not be."""
    with ExitStack() as stack:
        started = {client: Driver(client, url, concurrency, loop) for client in clients}
        failed: dict[str, str] = {}
        for client, driver in started.items():
            stack.callback(driver.close)
            try:
                driver.ready()
                driver.run(1)
            except RuntimeError as error:
                failed[client] = str(error)
        yield {name: driver for name, driver in started.items() if name not in failed}, failed


def interleave(started: Mapping[str, Driver], *, rounds: int, count: int) -> dict[str, Numbers]:
    """Let each driver submit *count* times in turn, *rounds* times, after a round to warm up.

    The order turns from round to round: no client always comes after the same.

    Returns:
        CPU microseconds per submit, by client.
    """
    names = list(started)
    micros: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(-1, rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            spent = started[name].run(count)
            if turn >= 0:
                micros[name].append(1e6 * spent / count)
    return {name: Numbers(numbers) for name, numbers in micros.items()}


def ask(module: str, *arguments: object) -> Any:
    """Run a module in a process of its own, and return what it prints, as JSON."""
    process = start(module, *map(str, arguments))
    told, trouble = process.communicate()
    if process.returncode:
        raise RuntimeError((trouble.strip().splitlines() or ["it ended without a word"])[-1])
    return json.loads(told)


def start(*arguments: str) -> subprocess.Popen[str]:
    """Run a module in a process of its own, with pipes."""
    return subprocess.Popen(  # noqa: S603 - ourselves
        [sys.executable, "-m", *arguments],
        cwd=_ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _stdin(process: subprocess.Popen[str]) -> IO[str]:
    assert process.stdin is not None
    return process.stdin


def read_line(process: subprocess.Popen[str]) -> str:
    """Read a line that a process prints.

    Raises:
        RuntimeError: It has ended instead; the text says why.
    """
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        assert process.stderr is not None
        told = process.stderr.read().strip().splitlines() or ["it ended without a word"]
        raise RuntimeError(told[-1])
    return line.strip()
