"""Starts the examples as their users do: as programs."""

import ast
import asyncio
import inspect
import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import attrs

from aireiter_async.testing import FakeService

EXAMPLES = Path(__file__).parent.parent / "examples"
_LOGGED = re.compile(r"\b(INFO|WARNING)\b")


@attrs.frozen
class Ran:
    """A program that has ended."""

    status: int
    out: str
    err: str

    @property
    def complaints(self) -> list[str]:
        """The lines of stderr, except for logged warnings: a queue may say that it is slow."""
        return [line for line in self.err.splitlines() if not _LOGGED.search(line)]


def command_of(name: str) -> tuple[list[str], list[str]]:
    """Return the command at the top of an example: the packages it installs, and what it runs."""
    docstring = ast.get_docstring(ast.parse((EXAMPLES / name).read_text(encoding="utf-8"))) or ""
    line = docstring.split("::\n\n", 1)[1].splitlines()[0]
    install, run = line.split(" && ")
    words = shlex.split(install)
    assert words[:2] == ["pip", "install"]
    assert words[2] in {".", ".[postgres]"}
    return words[3:], shlex.split(run)


def environment(service: FakeService | None, **more: str) -> Mapping[str, str]:
    """Return the environment of a program: a key for *service*, or none."""
    inherited = {name: text for name, text in os.environ.items() if "AIREITER" not in name}
    key = {} if service is None else {
        "AIREITER_API_KEY": service.api_key or "",
        "AIREITER_BASE_URL": service.url,
    }  # fmt: skip
    return {**inherited, "PYTHONPATH": str(EXAMPLES.parent), **key, **more}


async def start(
    *argv: object, service: FakeService | None, cwd: Path, **more: str
) -> asyncio.subprocess.Process:
    """Start a Python program."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, *map(str, argv)),
        cwd=cwd,
        env=environment(service, **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


async def end(process: asyncio.subprocess.Process, seconds: float = 200) -> Ran:
    """Wait for the end of a program; it is killed if that takes too long."""
    try:
        async with asyncio.timeout(seconds):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        raise
    return Ran(process.returncode or 0, out.decode(), err.decode())


async def wait_until(condition: Callable[[], object], seconds: float = 120) -> None:
    """Wait until a condition, plain or async, holds because of other processes.

    They offer no event to wait for: a port that opens, a file that grows, a job that ends. The loop
    sleeps between two checks, because the others need the processor.
    """
    async with asyncio.timeout(seconds):
        while True:
            holds = condition()
            if await holds if inspect.isawaitable(holds) else holds:
                return
            await asyncio.sleep(0.02)


def charged(service: FakeService) -> tuple[int, int]:
    """Return the number of IDs that were charged, and the number of charges."""
    charges = Counter(charge.out_task_id for charge in service.charges)
    return len(charges), charges.total()
