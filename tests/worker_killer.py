"""Kills a worker of a cluster in the middle of its work."""

import time
from collections.abc import Callable
from typing import Any

import pytest

psutil = pytest.importorskip("psutil")


class WorkerKiller:
    """A clock for a service that kills a worker of a program once it has been read *reads* times.

    Attributes:
        program: The process ID of the program, set once it has been started.
        killed: The process IDs of the workers that were killed.
    """

    def __init__(self, reads: int, is_worker: Callable[[list[str]], bool]) -> None:
        self.reads_left = reads
        self.is_worker = is_worker  # takes a command line
        self.program = 0
        self.killed: list[int] = []

    def __call__(self) -> float:
        self.reads_left -= 1
        if self.reads_left == 0:
            children: list[Any] = psutil.Process(self.program).children(recursive=True)
            worker = next(child for child in children if self.is_worker(child.cmdline()))
            worker.kill()
            self.killed.append(worker.pid)
        return time.monotonic()
