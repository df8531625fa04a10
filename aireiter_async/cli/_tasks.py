"""The commands for single tasks: submit, run, wait, query, balance."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from aireiter_async import (
    AireiterError,
    AmbiguousSubmitError,
    AsyncClient,
    RequestTimeoutError,
    SubmitRequest,
    Task,
    TaskFailedError,
)
from aireiter_async._media import NameTemplate
from aireiter_async._requests import check_id
from aireiter_async.cli import _display
from aireiter_async.cli._errors import UsageError, usage
from aireiter_async.cli._options import Connection, SubmitOptions, check_numbers, make_directory
from aireiter_async.cli._output import (
    Output,
    balance_document,
    balance_view,
    task_document,
    task_view,
)

T = TypeVar("T")


async def submit(
    connection: Connection,
    model: str,
    pairs: Sequence[str],
    options: SubmitOptions,
    output: Output,
    *,
    timeout: float | None,  # noqa: ASYNC109 - the command's, over all attempts
) -> int:
    """Submit one task."""
    check_numbers(timeout=timeout)
    request = options.request(model, pairs, output.note)
    async with connection.client() as client:
        out_task_id = request.out_task_id
        # Before the POST: the ID is the only handle on a task that may be charged.
        output.note(f"submitting task {out_task_id}")
        output.running, output.submitting = out_task_id, True
        accepted = client.submit(request, maybe_sent=options.maybe_sent)
        task = await _within(timeout, accepted, partial(AmbiguousSubmitError, out_task_id))
    output.running = None
    output.answer(task_document(task), task_view)
    return 0


async def run(
    connection: Connection,
    model: str,
    pairs: Sequence[str],
    options: SubmitOptions,
    output: Output,
    *,
    download: Path,
    name: str | None,
    timeout: float | None,  # noqa: ASYNC109 - until the task has ended
) -> int:
    """Submit one task, wait for it and save its results."""
    check_numbers(timeout=timeout)
    request = options.request(model, pairs, output.note)
    filled = None if name is None else _fill_name(name, request)
    output.saving = _saving(download, filled)
    async with connection.client() as client:
        make_directory("--download", download)
        output.note(f"submitting task {request.out_task_id}")
        output.running, output.submitting = request.out_task_id, True
        with _display.waiting(f"task {request.out_task_id}", sys.stderr) as show:
            task = await client.run(
                request,
                timeout=timeout,
                on_update=partial(_on_update, output, show),
                maybe_sent=options.maybe_sent,
            )
        await _finish(client, task, output, download, filled)
    return 0


async def wait(
    connection: Connection,
    out_task_id: str,
    output: Output,
    *,
    download: Path | None,
    name: str | None,
    timeout: float | None,  # noqa: ASYNC109 - one final poll follows it
) -> int:
    """Wait for a task that was submitted earlier."""
    check_numbers(timeout=timeout)
    with usage():
        check_id(out_task_id)
        if name is not None:
            NameTemplate(name).check(("out_task_id", "n"))
    if download is None and name is not None:
        raise UsageError("--name needs --download, the directory of the files")
    output.saving = () if download is None else _saving(download, name)
    async with connection.client() as client:
        make_directory("--download", download)
        output.running = out_task_id
        with _display.waiting(f"task {out_task_id}", sys.stderr) as show:
            on_update = partial(_on_update, output, show)
            task = await client.wait(out_task_id, timeout=timeout, on_update=on_update)
        await _finish(client, task, output, download, name)
    return 0


async def query(
    connection: Connection,
    out_task_id: str,
    output: Output,
    *,
    timeout: float | None,  # noqa: ASYNC109 - the command's, over all attempts
) -> int:
    """Query a task once."""
    check_numbers(timeout=timeout)
    with usage():
        check_id(out_task_id)
    async with connection.client() as client:
        task = await _within(
            timeout,
            client.query(out_task_id),
            lambda text: RequestTimeoutError(text, out_task_id),
        )
    if task.failed:
        raise TaskFailedError(task=task)
    output.answer(task_document(task), task_view)
    return 0


async def balance(
    connection: Connection,
    output: Output,
    *,
    timeout: float | None,  # noqa: ASYNC109 - the command's, over all attempts
) -> int:
    """Query the remaining credits."""
    check_numbers(timeout=timeout)
    async with connection.client() as client:
        left = await _within(timeout, client.balance(), RequestTimeoutError)
    output.answer(balance_document(left), balance_view)
    return 0


def _fill_name(text: str, request: SubmitRequest) -> str:
    """Return the template *text* with the request's values filled in.

    Raises:
        UsageError: It has other fields.
    """
    params = json.loads(request.encode_content())["params"]
    with usage():
        template = NameTemplate(text)
        template.check(("prompt", "model", "out_task_id", "n"))
    return template.fill({"prompt": params.get("prompt"), "model": request.model})


def _saving(download: Path, name: str | None) -> tuple[str, ...]:
    """Return the options of ``wait`` that save results in a directory, by a name."""
    named = () if name is None else (f"--name={name}",)  # it may start with a hyphen
    return "-o", str(download), *named


def _on_update(output: Output, show: Callable[[str], None], task: Task) -> None:
    output.task, output.submitting = task, False
    show(task.status)


async def _finish(
    client: AsyncClient,
    task: Task,
    output: Output,
    directory: Path | None,
    name: str | None = None,
) -> None:
    """Save the results of a task that succeeded, and print it."""
    output.task, output.submitting = task, False
    files = [] if directory is None else await client.download(task, directory, name=name)
    output.running = None
    output.answer(task_document(task, files), task_view)


async def _within(
    seconds: float | None, call: Awaitable[T], error: Callable[[str], AireiterError]
) -> T:
    """Await *call* for at most *seconds*, then raise *error* of a message."""
    scope = asyncio.timeout(seconds)
    try:
        async with scope:
            return await call
    except TimeoutError as late:
        if not scope.expired():  # the client's own timeout, which is more specific
            raise
        raise error(f"no definite outcome within the {seconds:g} s of --timeout") from late
