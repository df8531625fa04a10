"""What the commands about tasks do: submit, query, wait, balance."""

import asyncio
import math
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from aireiter_async import (
    AireiterError,
    AmbiguousSubmitError,
    AsyncClient,
    RequestTimeoutError,
    Task,
    TaskFailedError,
    TaskStatus,
)
from aireiter_async._requests import check_id
from aireiter_async.cli import _display
from aireiter_async.cli._connection import Connection
from aireiter_async.cli._documents import balance_document, task_document
from aireiter_async.cli._failure import UsageError, usage
from aireiter_async.cli._report import Report
from aireiter_async.cli._request import Order
from aireiter_async.cli._views import balance_view, task_view

T = TypeVar("T")


class Deadline:
    """The end of the time that a command has.

    Args:
        seconds: From now; None for as long as it takes.

    Raises:
        UsageError: It is no number of seconds.
    """

    def __init__(self, seconds: float | None) -> None:
        if seconds is not None and not (math.isfinite(seconds) and seconds >= 0):
            raise UsageError(f"--timeout must be a number of seconds, at least 0, got {seconds}")
        self._seconds = seconds
        self._at = None if seconds is None else time.monotonic() + seconds

    @property
    def left(self) -> float | None:
        """Seconds left, None for no limit."""
        return None if self._at is None else max(0.0, self._at - time.monotonic())

    async def hold(self, call: Awaitable[T], late: Callable[[str], AireiterError]) -> T:
        """Wait for *call* as long as there is time.

        Args:
            call: What takes time.
            late: Makes the error for when it takes too long.
        """
        timer = asyncio.timeout(self.left)
        try:
            async with timer:
                return await call
        except TimeoutError as error:
            if not timer.expired():  # the client's own, which says more
                raise
            raise late(f"no answer for certain within {self._seconds:g} s of --timeout") from error


async def submit(
    connection: Connection,
    model: str,
    order: Order,
    report: Report,
    *,
    wait: bool,
    download: Path | None,
    timeout: float | None,  # noqa: ASYNC109 - for the submit and the wait together
) -> int:
    """Submit one task, and see it through if asked to."""
    deadline = Deadline(timeout)
    request = order.request(model, report.note)
    async with connection.client() as client:
        make_folder(download)
        out_task_id = request.out_task_id
        # Before the POST leaves: it is the only handle on what may be paid for.
        report.note(f"submitting task {out_task_id}")
        report.running, report.submitting = out_task_id, True
        accepted = client.submit(request, maybe_sent=order.maybe_sent)
        late = partial(AmbiguousSubmitError, out_task_id)
        task = report.task = await deadline.hold(accepted, late)
        report.submitting = False
        if wait or download is not None:
            task, files = await _see_through(client, task, report, deadline, download)
        else:
            files = []
    report.running = None
    report.answer(task_document(task, files), task_view)
    return 0


async def wait(
    connection: Connection,
    out_task_id: str,
    report: Report,
    *,
    download: Path | None,
    timeout: float | None,  # noqa: ASYNC109 - after it comes one last look
) -> int:
    """Wait for a task that was submitted before."""
    deadline = Deadline(timeout)
    with usage():
        check_id(out_task_id)
    async with connection.client() as client:
        make_folder(download)
        report.running = out_task_id
        task, files = await _see_through(client, out_task_id, report, deadline, download)
    report.running = None
    report.answer(task_document(task, files), task_view)
    return 0


async def query(
    connection: Connection,
    out_task_id: str,
    report: Report,
    *,
    timeout: float | None,  # noqa: ASYNC109 - over all attempts
) -> int:
    """Ask for a task once."""
    deadline = Deadline(timeout)
    with usage():
        check_id(out_task_id)
    async with connection.client() as client:
        task = await deadline.hold(
            client.query(out_task_id), lambda text: RequestTimeoutError(text, out_task_id)
        )
    report.answer(task_document(task), task_view)
    if task.status is TaskStatus.FAILED:
        raise TaskFailedError(task=task)
    return 0


async def balance(
    connection: Connection,
    report: Report,
    *,
    timeout: float | None,  # noqa: ASYNC109 - over all attempts
) -> int:
    """Ask for the credits that are left."""
    deadline = Deadline(timeout)
    async with connection.client() as client:
        left = await deadline.hold(client.balance(), RequestTimeoutError)
    report.answer(balance_document(left), balance_view)
    return 0


def make_folder(directory: Path | None) -> None:
    """Make the folder now: after the task is paid for is a bad time to find that it cannot be."""
    if directory is None:
        return
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--download: there can be no such folder: {error}") from error


async def _see_through(
    client: AsyncClient,
    task_or_id: Task | str,
    report: Report,
    deadline: Deadline,
    directory: Path | None,
) -> tuple[Task, list[Path]]:
    """Wait for the task, for the report to know, and save its results where asked to."""
    name = task_or_id if isinstance(task_or_id, str) else task_or_id.out_task_id
    with _display.waiting(f"task {name}", sys.stderr) as show:

        def on_update(seen: Task) -> None:
            report.task = seen
            show(seen.status)

        task = report.task = await client.wait(
            task_or_id, timeout=deadline.left, on_update=on_update
        )
    return task, [] if directory is None else await client.download(task, directory)
