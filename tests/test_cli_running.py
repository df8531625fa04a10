"""A batch whose file does not stay as it was checked, and what is told on the way and in the end."""

import asyncio
import functools
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from aireiter_async import AsyncClient, BatchProgress, PollPolicy, RetryPolicy
from aireiter_async.cli import _connection, main
from aireiter_async.cli._failure import CommandError
from aireiter_async.cli._lines import Lines
from aireiter_async.cli._running import Source
from aireiter_async.cli._stop import Stop
from aireiter_async.testing import FakeService
from tests.test_cli import KEY, Ran, serving

Run = Callable[..., Ran]

NAME = "f.jsonl"
# Longer than what is read of a file at once: what is behind the first line is read later.
LENGTH = 200_000


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeService]:
    """Run a service that the environment points to, and work in an empty folder."""
    with serving(FakeService()) as service:
        monkeypatch.setenv("AIREITER_API_KEY", KEY)
        monkeypatch.setenv("AIREITER_BASE_URL", service.url)
        monkeypatch.chdir(tmp_path)
        yield service


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the batch in this process, with a client that waits for nothing."""
    quick = functools.partial(
        AsyncClient,
        polling=PollPolicy(first=0, step=0.001, cap=0.001),
        retry=RetryPolicy(base=0, settle=0),
    )
    monkeypatch.setattr(_connection, "AsyncClient", quick)

    def run(*argv: str, window: int = 1) -> Ran:
        return Ran(main(["batch", NAME, "--window", str(window), *argv]), *capsys.readouterr())

    return run


def write(count: int) -> None:
    """Write a file of *count* requests, each in a line that is mostly blank."""
    bodies = [
        json.dumps({"model": "suno_lyrics", "params": {"prompt": f"rain {number}"}})
        for number in range(count)
    ]
    Path(NAME).write_text("".join(f"{body:{LENGTH - 1}}\n" for body in bodies))


def spoil(file: io.BufferedRandom) -> None:
    """Make the third line one that cannot be submitted."""
    file.seek(2 * LENGTH)
    file.write(b"[]    ")
    file.seek(2 * LENGTH)
    assert file.readline().startswith(b"[] ")


def shorten(file: io.BufferedRandom) -> None:
    """Take the third line away."""
    file.truncate(2 * LENGTH)


@pytest.mark.parametrize(
    ("change", "told"),
    [(spoil, "f.jsonl, line 3: not "), (shorten, "f.jsonl has lost lines during the batch")],
)
def test_a_file_that_changes_under_way_ends_the_batch_with_its_sums(
    served: FakeService, run: Run, change: Callable[[io.BufferedRandom], None], told: str
) -> None:
    """What was submitted is seen through and summed up; it is not said that nothing was sent."""

    def price(_model: str, _params: Mapping[str, Any]) -> float:
        with Path(NAME).open("r+b") as file:
            change(file)
        return 1.0

    served.price = price
    write(3)
    ran = run("--json")
    assert ran.status == 1
    assert (ran.document["completed"], ran.document["unfinished"]) == (2, 1)
    assert ran.document["credits_used"] == len(served.charges) == 2
    assert ran.document["error"]["message"].startswith(told)
    assert ran.err.splitlines()[-1].startswith(f"aireiter: {told}")
    assert ran.err.splitlines()[-1].endswith("put it right and run the same command again")
    served.price = 1.0
    write(3)
    assert (run().status, len(served.charges)) == (0, 3)


async def test_a_source_that_was_stopped_does_not_miss_what_is_not_there() -> None:
    """Lines that are not read are not checked again."""
    lines = Lines(name="f", file=io.BytesIO(b""), is_csv=False, model=None)
    stop = Stop(print)
    with pytest.raises(CommandError, match="f has lost lines"):
        list(Source(lines, 1, stop))
    stop.asked = True
    assert list(Source(lines, 1, stop)) == []


def test_what_ends_a_batch_early_comes_after_its_sums(served: FakeService, run: Run) -> None:
    """Results that cannot be written are a failure, with the sums of what has been done."""
    write(3)
    ran = run("--json", "--results", "/dev/full")
    assert ran.status == 1
    assert ran.document["credits_used"] == len(served.charges) == 1
    assert ran.document["error"]["type"] == "OSError"
    assert "No space left on device" in ran.err.splitlines()[-1]


def test_only_tasks_of_the_service_are_shown_as_outstanding(served: FakeService, run: Run) -> None:
    """A batch that is finished already has none, however many lines are under way."""
    write(5)
    assert run().status == 0
    ran = run(window=5)
    shown = [int(number) for number in re.findall(r"outstanding +(\d+)", ran.err)]
    assert (len(shown), set(shown)) == (5, {0})
    assert len(served.charges) == 5


async def test_an_interrupt_counts_though_nobody_can_be_told() -> None:
    """Where the message cannot be written, the next signal leaves the batch all the same."""

    def gone(_text: str) -> None:
        raise BrokenPipeError

    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, what: told.append(what))
    stop = Stop(gone)
    stop.follow(BatchProgress(submitting=1))

    async def running() -> None:
        stop.on_signal(2, None)
        stop.on_signal(2, None)
        await asyncio.Event().wait()

    guarded = asyncio.create_task(stop.guard(running()))
    await asyncio.wait([guarded])
    assert (stop.asked, guarded.exception()) == (True, None)
    assert [type(each["exception"]) for each in told] == [BrokenPipeError]
