"""The demo command: a batch against a service that fails in many ways."""

import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, Final

from attrs import frozen

from aireiter_async import (
    AsyncClient,
    Ledger,
    Outcome,
    PollPolicy,
    RetryPolicy,
    SubmitRequest,
)
from aireiter_async.cli import _display
from aireiter_async.cli._errors import CommandError
from aireiter_async.cli._faults import LOST, FaultScript, requests
from aireiter_async.cli._options import check_numbers, make_directory
from aireiter_async.cli._output import Output
from aireiter_async.cli._page import write_page
from aireiter_async.testing import Charge, FakeService

# The default policies, scaled to a service that takes one second per task.
_RETRY: Final = RetryPolicy(attempts=8, base=0.1, cap=1.0, settle=1.5)
_POLLING: Final = PollPolicy(first=1.0, step=0.25, cap=1.0)
_DIRECTORY: Final = Path("aireiter-demo")
_LEDGER: Final = "run.db"
_NAMED: Final = 3
_NEXT: Final = 'aireiter run nano_banana_v2 prompt="a lighthouse in a storm"'


@frozen(kw_only=True)
class DemoOptions:
    """The options of the demo, documented in ``_app``."""

    tasks: int
    directory: Path | None
    seed: int
    concurrency: int
    window: int


async def demo(options: DemoOptions, output: Output) -> int:
    """Run the demo.

    Raises:
        CommandError: A task was not charged exactly once, did not succeed or was not saved.
        UsageError: An option is invalid.
    """
    check_numbers(tasks=options.tasks, concurrency=options.concurrency, window=options.window)
    script = FaultScript(options.tasks, options.seed)
    return await run_demo(options, script, script.service(), output)


async def run_demo(
    options: DemoOptions, script: FaultScript, service: FakeService, output: Output
) -> int:
    """Run the demo on *service*."""
    directory = options.directory or _unused(_DIRECTORY)
    make_directory("--directory", directory)
    tasks = _display.plural(options.tasks, "task")
    output.note(f"{tasks} on a service that loses responses: each must be charged exactly once.")
    outcomes: list[Outcome[SubmitRequest]] = []
    async with (
        service,
        AsyncClient(
            service.api_key,
            base_url=service.url,
            max_concurrency=options.concurrency,
            retry=_RETRY,
            polling=_POLLING,
        ) as client,
        Ledger(_unused(directory / _LEDGER)) as ledger,
    ):
        batch = client.run_many(
            requests(options.tasks, options.seed),
            window=options.window,
            ledger=ledger,
            download_to=directory,
        )

        def view() -> _display.ProgressView:
            now = batch.progress
            return _display.ProgressView(
                total=options.tasks,
                done=now.succeeded + now.failed,
                seconds=now.seconds,
                left=now.expected_end,
                counts={
                    "lost responses": str(script.injected(service).get(LOST, 0)),
                    "faults": str(sum(script.injected(service).values())),
                    "retries": str(client.stats.retries),
                    "submitted": str(client.stats.submitted),
                },
            )

        with _display.following(options.tasks, view, sys.stderr) as step:
            async with batch:
                async for outcome in batch:
                    outcomes.append(outcome)
                    step()
        seconds = batch.progress.seconds
        succeeded = [each.task for each in outcomes if each.ok is True]
        faults = script.injected(service)
        problems = find_problems(outcomes, service.charges)
        document = {
            "tasks": len(outcomes),
            "succeeded": len(succeeded),
            "charges": len(service.charges),
            "charges_if_resent": len(service.charges) + faults.get(LOST, 0),
            "faults": faults,
            "requests": client.stats.requests,
            "retries": client.stats.retries,
            "settled": client.stats.settled,
            "seconds": round(seconds, 3),
            "tasks_per_second": round(len(succeeded) / seconds, 3),
            "credits": sum(task.credits_used or 0.0 for task in succeeded),
            "files": sum(len(each.paths) for each in outcomes),
            "directory": str(directory),
            "ledger": str(ledger.path),
            "report": (await write_page(ledger))["report"],
            "problems": problems,
        }
    output.note("")
    output.answer(document, demo_view)
    if problems:
        raise CommandError(f"the demo failed: {'; '.join(problems)}")
    return 0


def find_problems(
    outcomes: Sequence[Outcome[SubmitRequest]], charges: Sequence[Charge]
) -> list[str]:
    """Return all problems: each task must be charged once, have succeeded and be on disk."""
    wanted = Counter(each.item.out_task_id for each in outcomes)
    charged = Counter(charge.out_task_id for charge in charges)
    lacking = {
        "not charged exactly once": [
            each for each in wanted | charged if wanted[each] != charged[each]
        ],
        "not completed": [each.item.out_task_id for each in outcomes if not each.ok],
        "not on disk": [each.item.out_task_id for each in outcomes if not _on_disk(each.paths)],
    }
    found = [f"{len(ids)} {what} ({_listed(sorted(ids))})" for what, ids in lacking.items() if ids]
    errors = [f"the first error: {each.error}" for each in outcomes if each.error is not None]
    return [*found, *errors[:1]]


def demo_view(document: Mapping[str, Any]) -> _display.View:
    """Show the demo's document."""
    sums = _display.sums(_rows(document))
    if document["problems"]:
        return sums
    lost = document["faults"].get(LOST, 0)
    resent, paid = document["charges_if_resent"], document["charges"]
    answers = "1 response was" if lost == 1 else f"{lost:,} responses were"
    return _display.page(
        sums,
        _display.verdict(
            f"{answers} lost after the task was accepted. A client that resends would have paid "
            f"{resent:,} times; this one paid {paid:,} times.",
            good=True,
        ),
        _display.facts(
            [
                ("report", f"{document['report']} (open it in a browser)"),
                ("next", "export AIREITER_API_KEY=...  # from https://aireiter.com/keys"),
                ("next", _NEXT),
            ]
        ),
    )


def _rows(document: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    faults: Mapping[str, int] = document["faults"]
    yield "tasks", f"{document['tasks']:,}", f"{document['succeeded']:,} succeeded"
    yield "charges", f"{document['charges']:,}", "on the service's own list"
    yield "faults", f"{sum(faults.values()):,}", "injected into the service:"
    for what, times in faults.items():
        yield "", f"{times:,}", what
    yield "requests", f"{document['requests']:,}", "submits, polls and downloads"
    yield "retries", f"{document['retries']:,}", "of requests that failed"
    yield "settled", f"{document['settled']:,}", "lost responses, recovered without paying again"
    yield (
        "seconds",
        f"{document['seconds']:.1f}",
        f"{document['tasks_per_second']:.1f} tasks a second",
    )
    yield "credits", _display.number(document["credits"]), "at invented prices"
    yield "files", f"{document['files']:,}", document["directory"]
    yield "ledger", "", f"{document['ledger']}, an SQLite file with a row per task"


def _on_disk(paths: Sequence[Path]) -> bool:
    return bool(paths) and all(path.is_file() and path.stat().st_size for path in paths)


def _listed(ids: Sequence[str]) -> str:
    more = "" if len(ids) <= _NAMED else f" and {len(ids) - _NAMED} more"
    return f"{', '.join(ids[:_NAMED])}{more}"


def _unused(path: Path) -> Path:
    """Return *path*, with a number appended to its name if it exists."""
    names = (path if n == 1 else path.with_stem(f"{path.stem}-{n}") for n in count(1))
    return next(each for each in names if not os.path.lexists(each))
