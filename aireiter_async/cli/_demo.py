"""The demo command: a batch against a service whose many faults are derived from a seed."""

import math
import os
import random
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import count, cycle, islice
from pathlib import Path
from typing import Any, Final, Literal

from attrs import frozen

from aireiter_async import (
    AsyncClient,
    Ledger,
    Outcome,
    PollPolicy,
    RetryPolicy,
    SubmitRequest,
    models,
)
from aireiter_async.cli import _display
from aireiter_async.cli._errors import CommandError
from aireiter_async.cli._options import check_numbers, make_directory
from aireiter_async.cli._output import Output
from aireiter_async.cli._page import write_page
from aireiter_async.testing import Charge, FakeService, Fault

# The default policies, scaled to a service that takes one second per task.
_RETRY: Final = RetryPolicy(attempts=8, base=0.1, cap=1.0, settle=1.5)
_POLLING: Final = PollPolicy(first=1.0, step=0.25, cap=1.0)
_DIRECTORY: Final = Path("aireiter-demo")
_LEDGER: Final = "run.db"
_NAMED: Final = 3
_NEXT: Final = 'aireiter run nano_banana_v2 prompt="a lighthouse in a storm"'

_Endpoint = Literal["submit", "query", "result"]

_LOST: Final = "tasks accepted, the response lost"
_NOT_ACCEPTED: Final = "submits that failed before that"
_POLLS: Final = "polls that failed"
_CUT: Final = "downloads cut off"
_LIMITED: Final = "rate limits (429)"

_FAULTS: Final[Mapping[_Endpoint, tuple[tuple[str, Fault], ...]]] = {
    "submit": (
        (_LOST, Fault.lost_response(accepted=True)),
        (_NOT_ACCEPTED, Fault.lost_response()),
        (_LOST, Fault.reset(accepted=True)),
        (_LOST, Fault.truncated(accepted=True)),
        (_NOT_ACCEPTED, Fault.server_error(503)),
        (_LOST, Fault.html(502, accepted=True)),
        (_NOT_ACCEPTED, Fault.reset()),
        (_LOST, Fault.no_data(accepted=True)),
        (_NOT_ACCEPTED, Fault.html(502)),
        (_LOST, Fault.broken_json(accepted=True)),
    ),
    "query": (
        (_POLLS, Fault.lost_response()),
        (_POLLS, Fault.server_error(500)),
        (_POLLS, Fault.html(502)),
        (_POLLS, Fault.broken_json()),
        (_POLLS, Fault.reset()),
    ),
    "result": ((_CUT, Fault.truncated()), (_CUT, Fault.reset())),
}
_SHARES: Final[Mapping[_Endpoint, float]] = {"submit": 0.15, "query": 0.08, "result": 0.04}
_TOO_MANY: Final = Fault.too_many_requests(1)
_TOO_MANY_AT: Final = (0.5, 0.85)  # of the submits

_SOUND_EVERY: Final = 40  # tasks; the others are pictures
_SOUND: Final = "seed_audio_1_0"
_PICTURES: Final = ("nano_banana_v2", "z_image_turbo")
_PRICES: Final = {"nano_banana_v2": 3.0, "z_image_turbo": 1.25, _SOUND: 2.5}
_SUBJECTS: Final = (
    "a kitten",
    "an old tram",
    "two herons",
    "a paper boat",
    "a red kite",
    "a baker",
)
_PLACES: Final = ("in the sun", "by the sea", "in the first snow", "over the harbour", "at dusk")
_STYLES: Final = ("close up", "wide", "from above", "in soft focus")


class FaultScript:
    """The faults of one demo.

    Args:
        tasks: The number of tasks.
        seed: The random seed.
    """

    def __init__(self, tasks: int, seed: int) -> None:
        chance = _chance(seed)
        self._scripts: dict[_Endpoint, list[tuple[str, Fault]]] = {
            name: _script(name, tasks, chance) for name in _FAULTS
        }
        for share in _TOO_MANY_AT:
            self._scripts["submit"].insert(math.ceil(share * tasks), (_LIMITED, _TOO_MANY))
        self._seed = seed

    def service(self) -> FakeService:
        """Create the service: its prices are invented, and tasks become visible late.

        A used ID is charged again, which is the worst case.
        """
        service = FakeService(
            durations=1.25,
            spread=0.2,
            price=_PRICES,
            used_id="charge",
            visible_after=0.3,
            seed=self._seed,
            record=False,
        )
        for name, script in self._scripts.items():
            service.script(name, *(fault for _, fault in script))
        return service

    def injected(self, service: FakeService) -> dict[str, int]:
        """Count the faults so far, by their names."""
        counts: Counter[str] = Counter()
        for name, script in self._scripts.items():
            counts.update(
                what for what, _ in script[: len(script) - service.scripted(name)] if what
            )
        return dict(counts)


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
                    "lost responses": str(script.injected(service).get(_LOST, 0)),
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
            "charges_if_resent": len(service.charges) + faults.get(_LOST, 0),
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
    lost = document["faults"].get(_LOST, 0)
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
    yield "retries", f"{document['retries']:,}", "failed requests sent again"
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


def requests(tasks: int, seed: int) -> list[SubmitRequest]:
    """Make *tasks* requests with varied prompts and readable IDs."""
    chance = _chance(seed)
    digits = len(str(tasks))
    made: list[SubmitRequest] = []
    for number in range(1, tasks + 1):
        words = map(chance.choice, (_SUBJECTS, _PLACES, _STYLES))
        params = {"prompt": "{} {}, {}".format(*words)}
        if number % _SOUND_EVERY:
            name = chance.choice(_PICTURES)
            params["aspect_ratio"] = chance.choice(("1:1", "16:9", "9:16"))
        else:
            name = _SOUND
        made.append(SubmitRequest(name, models.build(name, params), f"demo-{number:0{digits}}"))
    return made


def _script(endpoint: _Endpoint, tasks: int, chance: random.Random) -> list[tuple[str, Fault]]:
    """Spread faults over the requests that are certain to happen: one per task."""
    count = math.ceil(_SHARES[endpoint] * tasks)
    script = list(islice(cycle(_FAULTS[endpoint]), count))
    script += [("", Fault.ok())] * (tasks - count)
    chance.shuffle(script)
    return script


def _chance(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - repeatable, not for security
