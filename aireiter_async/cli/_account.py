"""What the demo came to: the account of a batch, and whether it is as it must be."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from attrs import frozen

from aireiter_async import ClientStats, Outcome, SubmitRequest
from aireiter_async.cli import _display
from aireiter_async.cli._views import number
from aireiter_async.testing import Charge

_NAMED: Final = 3


@frozen(kw_only=True)
class Account:
    """What a batch came to.

    Attributes:
        ended: One for each request.
        charges: The service's own list.
        faults: How often what went wrong there, by its name.
        stats: The client's counters.
        seconds: From the first submit to the last file.
        directory: Where the results are.
        ledger: Where the record of the batch is.
    """

    ended: Sequence[Outcome[SubmitRequest]]
    charges: Sequence[Charge]
    faults: Mapping[str, int]
    stats: ClientStats
    seconds: float
    directory: Path
    ledger: Path

    def problems(self) -> list[str]:
        """Say what is not as it must be: one charge, one completed task and one file for each."""
        wanted = Counter(_id(each) for each in self.ended)
        charged = Counter(charge.out_task_id for charge in self.charges)
        lacking = {
            "not charged exactly once": [
                each for each in wanted | charged if wanted[each] != charged[each]
            ],
            "not completed": [_id(e) for e in self.ended if not (e.task and e.task.succeeded)],
            "not on disk": [_id(e) for e in self.ended if not _on_disk(e)],
        }
        found = [
            f"{len(ids)} {what} ({_listed(sorted(ids))})" for what, ids in lacking.items() if ids
        ]
        errors = [f"the first error: {each.error}" for each in self.ended if not each.ok]
        return [*found, *errors[:1]]

    def document(self) -> dict[str, Any]:
        """Describe it to a program."""
        completed = [each for each in self.ended if each.ok]
        return {
            "tasks": len(self.ended),
            "completed": len(completed),
            "charges": len(self.charges),
            "faults": dict(self.faults),
            "requests": self.stats.requests,
            "retries": self.stats.retries,
            "settled": self.stats.settled,
            "seconds": round(self.seconds, 3),
            "tasks_per_second": round(len(completed) / self.seconds, 3),
            "credits": sum(each.task.credits_used or 0.0 for each in completed),
            "files": sum(len(each.paths) for each in completed),
            "directory": str(self.directory),
            "ledger": str(self.ledger),
            "problems": self.problems(),
        }


def account_view(document: Mapping[str, Any]) -> _display.View:
    """Show an account's document."""
    sums = _display.sums(_rows(document))
    if document["problems"]:
        return sums
    return _display.page(sums, "Each task was charged once, and what it made is on disk.")


def _rows(document: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    faults: Mapping[str, int] = document["faults"]
    yield "tasks", f"{document['tasks']:,}", f"{document['completed']:,} completed"
    yield "charges", f"{document['charges']:,}", "by the service's own list"
    yield "faults", f"{sum(faults.values()):,}", "that the service was told to make:"
    for what, times in faults.items():
        yield "", "", f"{times:,} {what}"
    yield "requests", f"{document['requests']:,}", "submits, looks and downloads"
    yield "retries", f"{document['retries']:,}", "of requests that had failed"
    yield "settled", f"{document['settled']:,}", "lost answers, made good by asking, not by paying"
    yield "seconds", f"{document['seconds']:.1f}", ""
    yield "tasks per second", f"{document['tasks_per_second']:.1f}", ""
    yield "credits", number(document["credits"]), "at invented prices, spent nowhere"
    yield "files", f"{document['files']:,}", document["directory"]
    yield "ledger", "", f"{document['ledger']}, an SQLite file with a row for each task"


def _id(outcome: Outcome[SubmitRequest]) -> str:
    return (outcome.request or outcome.item).out_task_id


def _on_disk(outcome: Outcome[SubmitRequest]) -> bool:
    paths = outcome.paths
    return bool(paths) and all(path.is_file() and path.stat().st_size for path in paths)


def _listed(ids: Sequence[str]) -> str:
    more = "" if len(ids) <= _NAMED else f" and {len(ids) - _NAMED} more"
    return f"{', '.join(ids[:_NAMED])}{more}"
