"""What a batch came to: a row for each request, and the sums of all."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from attrs import define, field

from aireiter_async import (
    AmbiguousSubmitError,
    APIError,
    BudgetExceededError,
    DownloadError,
    InvalidRequestError,
    Outcome,
    TaskError,
    TaskFailedError,
    TaskTimeoutError,
)
from aireiter_async.cli import _display, _failure
from aireiter_async.cli._documents import task_document
from aireiter_async.cli._views import number

_EXAMPLES: Final = 3

# What is known of a task from the error in its place.
_STATUS: Final[Mapping[type, str]] = {
    AmbiguousSubmitError: "uncertain",
    BudgetExceededError: "unsubmitted",
    DownloadError: "completed",
    InvalidRequestError: "refused",
}


@define
class Reason:
    """Why requests have failed.

    Attributes:
        text: It, in short.
        message: What the first of them was told.
        count: How many there are.
        lines: Where the first of them stand.
    """

    text: str
    message: str
    count: int = 0
    lines: list[int] = field(factory=list[int])

    def __str__(self) -> str:
        """Say where, and what."""
        several = "lines" if len(self.lines) > 1 else "line"
        more = " and others" if self.count > len(self.lines) else ""
        where = f"{several} {', '.join(map(str, self.lines))}{more}"
        return f"{self.text}, {where}: {self.message}"


@define
class Tally:
    """Counts outcomes as they come, and keeps none of them.

    Attributes:
        completed: Requests that have gone well.
        failed: Requests that have not.
        unsubmitted: Of these, those that the budget did not allow.
        files: Files that were saved.
        reasons: Why requests have failed, by the reason.
    """

    completed: int = 0
    failed: int = 0
    unsubmitted: int = 0
    files: int = 0
    reasons: dict[str, Reason] = field(factory=dict[str, Reason])

    @property
    def ended(self) -> int:
        """How many requests have an outcome."""
        return self.completed + self.failed

    def add(self, outcome: Outcome[Any], line: int) -> None:
        """Count *outcome*, of the request at *line*."""
        self.files += len(outcome.paths)
        if outcome.ok:
            self.completed += 1
            return
        self.failed += 1
        self.unsubmitted += isinstance(outcome.error, BudgetExceededError)
        text = _reason(outcome.error)
        if text not in self.reasons:
            self.reasons[text] = Reason(text, _failure.sentence(outcome.error))
        reason = self.reasons[text]
        reason.count += 1
        if len(reason.lines) < _EXAMPLES:
            reason.lines.append(line)


def row(outcome: Outcome[Any], line: int) -> dict[str, Any]:
    """Describe *outcome*, of the request at *line*, to a program."""
    error = outcome.error
    task = error.task if isinstance(error, TaskError) else outcome.task
    told = {} if task is None else task_document(task)
    request = outcome.request
    return {
        "index": outcome.index,
        "line": line,
        "id": request and request.out_task_id,
        "model": request and request.model,
        "status": told.get("status", _STATUS.get(type(error))),
        "outputs": told.get("outputs", []),
        "files": [str(path) for path in outcome.paths],
        "credits": told.get("credits_used"),
        "error": None if error is None else _failure.document(error),
    }


def _reason(error: Exception) -> str:
    match error:
        case TaskFailedError(failure_code=code):
            return f"task failed, {code or 'without a code'}"
        case TaskTimeoutError():
            return "task goes on"
        case BudgetExceededError():
            return "over budget"
        case APIError(code=code):
            return f"refused, code {code}"
        case _:
            return type(error).__name__


def batch_view(document: Mapping[str, Any]) -> _display.View:
    """Show what a batch came to."""
    return _display.sums(_rows(document))


def check_view(document: Mapping[str, Any]) -> _display.View:
    """Show what a dry run has found."""
    rows = [("requests", f"{document['requests']:,}", f"in {document['file']}, nothing was sent")]
    rows += [("", f"{count:,}", model) for model, count in document["models"].items()]
    return _display.sums(rows)


def _rows(document: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    yield "requests", f"{document['requests']:,}", document["file"]
    before = document["completed_before"]
    remark = f"of them {before:,} before, as the ledger says" if before else ""
    yield "completed", f"{document['completed']:,}", remark
    yield "failed", f"{document['failed']:,}", ""
    for reason in document["reasons"]:
        yield "", f"{reason['count']:,}", reason["text"]
    if document["unfinished"]:
        remark = f"of them {document['outstanding']:,} go on at the service"
        yield "unfinished", f"{document['unfinished']:,}", remark
    yield "retries", f"{document['retries']:,}", "of HTTP requests that had failed"
    yield "settled", f"{document['settled']:,}", "lost answers, made good by asking, not by paying"
    yield "seconds", f"{document['seconds']:.1f}", ""
    yield "credits", number(document["credits_used"]), _credits(document)
    if document["directory"] is not None:
        yield "files", f"{document['files']:,}", document["directory"]
    yield "ledger", "", document["ledger"]
    if document["results"] is not None:
        yield "results", "", document["results"]


def _credits(document: Mapping[str, Any]) -> str:
    text = f"in this run; {number(document['credits_of_ledger'])} in the ledger"
    unknown = document["unpriced"]
    return f"{text}; {unknown:,} tasks did not say what they cost" if unknown else text
