"""What ``aireiter demo`` does: a batch on a service that misbehaves."""

import os
import sys
import time
from itertools import count
from pathlib import Path
from typing import Final

from attrs import frozen

from aireiter_async import AsyncClient, Ledger, Outcome, PollPolicy, RetryPolicy, SubmitRequest
from aireiter_async.cli import _display
from aireiter_async.cli._account import Account, account_view
from aireiter_async.cli._failure import CommandError, UsageError
from aireiter_async.cli._report import Report
from aireiter_async.cli._trouble import Trouble, requests
from aireiter_async.testing import FakeService

# As patient as the defaults, at the speed of a service that makes a video in a second.
_RETRY: Final = RetryPolicy(attempts=8, base=0.1, cap=1.0, settle=1.5)
_POLLING: Final = PollPolicy(first=1.0, step=0.25, cap=1.0)
_FOLDER: Final = Path("aireiter-demo")
_LEDGER: Final = "run.db"


@frozen(kw_only=True)
class Plan:
    """The options of the demo, as ``_app`` describes them.

    Raises:
        UsageError: One is out of its range.
    """

    tasks: int
    directory: Path | None
    seed: int
    concurrency: int
    window: int

    def __attrs_post_init__(self) -> None:
        """Check the counts."""
        for name in ("tasks", "concurrency", "window"):
            if getattr(self, name) < 1:
                raise UsageError(f"--{name} must be at least 1, got {getattr(self, name)}")


async def demo(plan: Plan, report: Report) -> int:
    """Run the demo.

    Raises:
        CommandError: A task was not charged exactly once, not completed or not saved.
        UsageError: There can be no such folder.
    """
    trouble = Trouble(plan.tasks, plan.seed)
    return await run_demo(plan, trouble, trouble.service(), report)


async def run_demo(plan: Plan, trouble: Trouble, service: FakeService, report: Report) -> int:
    """Run the demo on *service*, as `demo` does on the one that *trouble* makes."""
    directory = _make(plan.directory)
    report.note(f"{plan.tasks} videos, one client, a service that misbehaves; no key needed")
    ended: list[Outcome[SubmitRequest]] = []
    began = time.monotonic()
    async with (
        service,
        AsyncClient(
            service.api_key,
            base_url=service.url,
            max_concurrency=plan.concurrency,
            retry=_RETRY,
            polling=_POLLING,
        ) as client,
        Ledger(_fresh(directory / _LEDGER)) as ledger,
    ):

        def look() -> _display.Standing:
            stats = client.stats
            counts = {
                "submitted": str(stats.submitted),
                "faults": str(sum(trouble.struck(service).values())),
                "retries": str(stats.retries),
                "settled": str(stats.settled),
            }
            seconds = time.monotonic() - began
            return _display.Standing(
                total=plan.tasks, ended=len(ended), counts=counts, seconds=seconds
            )

        with _display.following(plan.tasks, look, sys.stderr) as step:
            wanted = requests(plan.tasks, plan.seed)
            batch = client.run_many(
                wanted, window=plan.window, ledger=ledger, download_to=directory
            )
            async with batch:
                async for outcome in batch:
                    ended.append(outcome)
                    step()
        account = Account(
            ended=ended,
            charges=service.charges,
            faults=trouble.struck(service),
            stats=client.stats,
            seconds=time.monotonic() - began,
            directory=directory,
            ledger=ledger.path,
        )
    report.note("")
    document = account.document()
    report.answer(document, account_view)
    if document["problems"]:
        raise CommandError(f"the demo has failed: {'; '.join(document['problems'])}")
    return 0


def _make(directory: Path | None) -> Path:
    """Make the folder for the results: the one that was asked for, else a new one."""
    path = _fresh(_FOLDER) if directory is None else directory
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--directory: there can be no such folder: {error}") from error
    return path


def _fresh(path: Path) -> Path:
    """Return *path*, with a number in its name if there is something already."""
    names = (path if n == 1 else path.with_stem(f"{path.stem}-{n}") for n in count(1))
    return next(each for each in names if not os.path.lexists(each))
