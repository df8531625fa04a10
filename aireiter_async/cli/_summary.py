"""The totals of a batch, and of a dry run."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from attrs import define, field

from aireiter_async import (
    AmbiguousSubmitError,
    APIError,
    BudgetExceededError,
    NotSubmittedError,
    Outcome,
    TaskFailedError,
    TaskNotFoundError,
    TaskTimeoutError,
)
from aireiter_async.cli import _display, _errors
from aireiter_async.cli._params import UnusableFileError
from aireiter_async.cli._rows import Row

_EXAMPLES: Final = 3


@define
class Reason:
    """Why requests failed.

    Attributes:
        text: The reason, in short.
        message: The message of the first.
        count: How many there are.
        lines: The first lines that they are in.
        others: Whether they are in more lines.
        unfinished: Whether the next run will know the outcome.
    """

    text: str
    message: str
    count: int = 0
    lines: list[int] = field(factory=list[int])
    others: bool = False
    unfinished: bool = False

    def add(self, line: int) -> None:
        """Count a request in *line*."""
        self.count += 1
        if line not in self.lines:
            if len(self.lines) < _EXAMPLES:
                self.lines.append(line)
            else:
                self.others = True

    def document(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        several = "lines" if len(self.lines) > 1 else "line"
        more = " and others" if self.others else ""
        where = f"{several} {', '.join(map(str, self.lines))}{more}"
        text = f"{self.text}, {where}: {self.message}"
        return {
            "count": self.count,
            "lines": self.lines,
            "text": text,
            "unfinished": self.unfinished,
        }


@define
class Summary:
    """Counts outcomes without keeping them.

    Attributes:
        succeeded: Requests whose tasks succeeded.
        known: Of these, those that the ledger already had.
        failed: Requests that failed.
        unusable: Of these, those whose local files could not be used.
        running: Requests whose tasks are still running.
        uncertain: Requests that may have been accepted.
        not_submitted: Requests not submitted because of the budget or a stop.
        files: Saved files.
        reasons: Why requests failed, by the short reason.
    """

    succeeded: int = 0
    known: int = 0
    failed: int = 0
    unusable: int = 0
    running: int = 0
    uncertain: int = 0
    not_submitted: int = 0
    files: int = 0
    reasons: dict[str, Reason] = field(factory=dict[str, Reason])

    @property
    def ended(self) -> int:
        """Requests with a final outcome."""
        return self.succeeded + self.failed + self.not_submitted

    @property
    def open(self) -> int:
        """Requests whose outcome is not final: the next run will know."""
        return self.running + self.uncertain

    def add(self, outcome: Outcome[Row]) -> None:
        """Count the outcome of a row."""
        self.files += len(outcome.paths)
        if outcome.ok is True:
            self.succeeded += 1
            self.known += outcome.resumed
            return
        error, unfinished = outcome.error, True
        if _still_runs(outcome):
            self.running += 1
        elif isinstance(error, AmbiguousSubmitError):
            self.uncertain += 1
        else:
            unfinished = False
            unsent = isinstance(error, BudgetExceededError | NotSubmittedError)
            self.not_submitted += unsent
            self.failed += not unsent
            self.unusable += isinstance(error, UnusableFileError)
        text = _reason(outcome)
        if text not in self.reasons:
            message = _errors.describe(error, in_batch=True)
            self.reasons[text] = Reason(text, message, unfinished=unfinished)
        self.reasons[text].add(outcome.item.number)


def _still_runs(outcome: Outcome[Row]) -> bool:
    """Return whether waiting for a task has failed, not the task."""
    error, task = outcome.error, outcome.task
    if isinstance(error, TaskTimeoutError | TaskNotFoundError):
        return isinstance(error, TaskTimeoutError)
    return task is not None and not task.done


def _reason(outcome: Outcome[Row]) -> str:
    match outcome.error:
        case _ if _still_runs(outcome):
            return "task still running"
        case TaskFailedError(failure_code=code):
            return f"task failed, {code or 'without a code'}"
        case BudgetExceededError():
            return "over budget"
        case NotSubmittedError():
            return "batch stopped"
        case APIError(code=code):
            return f"rejected, code {code}"
        case error:
            unusable = isinstance(error, UnusableFileError)
            return "unusable file" if unusable else type(error).__name__


def batch_view(document: Mapping[str, Any]) -> _display.View:
    """Show the totals of a batch."""
    return _display.sums(_rows(document))


def check_view(document: Mapping[str, Any]) -> _display.View:
    """Show the result of a dry run or an estimate."""
    multiplied = document["rows"] != document["requests"]
    what = "prompts" if document["format"] == "txt" and not multiplied else "requests"
    made = f"made of {_display.plural(document['rows'], 'row')}; " if multiplied else ""
    known, new = f"{made}{document['known']:,} known", f"{document['new']:,} new"
    if document["unusable"]:
        new += f", {document['unusable']:,} with unusable files"
    sent = f"{document['bought']} run now" if document.get("bought") else "nothing was sent"
    rows = [(what, f"{document['requests']:,}", f"{known}, {new}; {sent}")]
    rows += [("", f"{count:,}", model) for model, count in document["models"].items()]
    skipped = [_display.plural(count, what) for what, count in document["skipped"].items()]
    rows += [("skipped", "", ", ".join(skipped))] if skipped else []
    if "kinds" in document:
        rows += [("new", f"{kind['new']:,}", _priced(kind)) for kind in document["kinds"]]
        unknown = _display.plural(document["unpriced"], "task")
        remark = f"without {unknown} of unknown price" if document["unpriced"] else ""
        rows.append(("credits", _display.number(document["credits"]), remark))
    return _display.sums(rows)


def _priced(kind: Mapping[str, Any]) -> str:
    price = kind["price"]
    text = "unknown; --buy-one runs one" if price is None else f"{_display.number(price)} each"
    return f"{kind['kind']}: {text}"


def _rows(document: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    yield "requests", f"{document['requests']:,}", document["file"]
    known = document["known"]
    yield "succeeded", f"{document['succeeded']:,}", f"{known:,} submitted earlier" if known else ""
    yield "failed", f"{document['failed']:,}", ""
    if document["not_submitted"]:
        yield "not submitted", f"{document['not_submitted']:,}", ""
    yield from _reasons(document, unfinished=False)
    if document["unfinished"]:
        remark = f"{document['running']:,} of them are running at the service"
        yield "unfinished", f"{document['unfinished']:,}", remark
        yield from _reasons(document, unfinished=True)
    yield "retries", f"{document['retries']:,}", "failed HTTP requests sent again"
    yield "settled", f"{document['settled']:,}", "lost responses, recovered without paying again"
    yield "seconds", f"{document['seconds']:.1f}", ""
    yield "credits", _display.number(document["credits_used"]), _credits(document)
    if document["directory"] is not None:
        yield "files", f"{document['files']:,}", document["directory"]
    yield "ledger", "", document["ledger"]
    for what in ("results", "report"):
        if document[what] is not None:
            yield what, "", document[what]


def _reasons(document: Mapping[str, Any], *, unfinished: bool) -> Iterator[tuple[str, str, str]]:
    for reason in document["reasons"]:
        if reason["unfinished"] is unfinished:
            yield "", f"{reason['count']:,}", reason["text"]


def _credits(document: Mapping[str, Any]) -> str:
    spent = _display.number(document["credits_of_ledger"])
    text = f"of tasks that ended in this run; {spent} in the ledger"
    unknown = document["unpriced"]
    return (
        f"{text}; the price of {_display.plural(unknown, 'task')} is unknown" if unknown else text
    )
