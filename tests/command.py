"""The `aireiter` command for tests: run in this process or as a program, against a FakeService."""

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import attrs

from aireiter_async.testing import FakeService

KEY = "sk-fake-0123456789abcdef"
# One transparent pixel.
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000 1f15c489"
    "0000000d49444154789c6360606060000000050001a5f645400000000049454e44ae426082".replace(" ", "")
)
VIDEO = ("seedance_1_5_pro", "prompt=a kitten", "aspect_ratio=16:9")


@attrs.frozen
class Ran:
    """One run of the command."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one document on standard output."""
        return json.loads(self.out)


@contextmanager
def serving(service: FakeService) -> Iterator[FakeService]:
    """Run *service* on a loop in a thread: the command makes its own loop in this one."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def stop() -> None:
        await service.close()
        await asyncio.sleep(0)  # let the connections that were cut go
        loop.stop()

    try:
        asyncio.run_coroutine_threadsafe(service.start(), loop).result()
        yield service
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop)
        thread.join()
        loop.close()


def start(
    *argv: str, env: Mapping[str, str] | None = None, stdin: bool = False
) -> "subprocess.Popen[bytes]":
    """Run the command as a program."""
    return subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-m", "aireiter_async", *argv],
        stdin=subprocess.PIPE if stdin else None,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **(env or {})},
    )


def shell(line: str, *argv: str) -> "subprocess.CompletedProcess[bytes]":
    """Run the command with a shell's redirections: *line* has ``"$@"`` in it."""
    command = [sys.executable, "-m", "aireiter_async", *argv]
    return subprocess.run(  # noqa: S603 - our own program
        ["/bin/sh", "-c", line, "sh", *command], capture_output=True, check=False
    )
