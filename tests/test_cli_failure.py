"""What an error is to the user of the command: an exit status and a line."""

import inspect
import json
import re
from typing import Any

import pytest

from aireiter_async import AsyncClient, Task, TaskStatus, errors, models
from aireiter_async.cli._failure import (
    CommandError,
    Interrupted,
    UsageError,
    document,
    sentence,
    status,
    usage,
)
from aireiter_async.cli._report import Manner, Report
from aireiter_async.cli._views import task_view
from aireiter_async.models import InvalidParamsError, Problem, UnknownModelError

TASK = Task("mine", TaskStatus.PROCESSING)
WAYS_ON = "see: aireiter query mine, or submit the same again with --id mine --maybe-sent"
NAMES = [name for name in errors.__all__ if name.endswith("Error")]
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "ProtocolError": ("what happened", 502),
    "AmbiguousSubmitError": ("mine",),
    "TaskError": (TASK,),
    "TaskFailedError": (TASK,),
    "TaskTimeoutError": (TASK,),
    "DownloadError": ("https://example.com/a.png", "what happened"),
} | {
    name: (400, "what happened")
    for name in NAMES
    if issubclass(getattr(errors, name), errors.APIError)
}


def keywords() -> set[str]:
    """Return all keywords of the library's calls."""
    found = {"api_key"}
    for call in (AsyncClient, AsyncClient.submit, AsyncClient.run_many):
        parameters = inspect.signature(call).parameters.values()
        found |= {each.name for each in parameters if each.kind is each.KEYWORD_ONLY}
    return found


@pytest.mark.parametrize("name", NAMES)
def test_an_error_advises_in_the_words_of_the_command_line(name: str) -> None:
    """No advice speaks of a keyword: an option has dashes."""
    made = getattr(errors, name)(*ARGUMENTS.get(name, ("what happened",)))
    spoken = set(re.findall(r"(?<![\w-])[a-z_]+(?![\w-])", sentence(made)))
    assert spoken & keywords() == set()
    assert "=" not in sentence(made)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            errors.RateLimitError(429, "max_rate"),
            "max_rate (code 429); wait, or lower --max-rate or --concurrency",
        ),
        (
            errors.ProtocolError("HTML: set user_agent", 403, "set user_agent"),
            "HTML: set --user-agent (HTTP 403): 'set user_agent'",
        ),
        (
            errors.BudgetExceededError("max_credits is 2", "mine"),
            "--max-credits is 2 [task mine]; raise --max-credits to go on; nothing was charged",
        ),
        (errors.RequestTimeoutError("late", "mine"), "late [task mine]; try again"),
        (
            errors.TaskTimeoutError(TASK),
            "the task is processing, and the time is over; go on with: aireiter wait mine",
        ),
        (
            errors.AmbiguousSubmitError("mine", "lost (set base_url)"),
            f"lost (set --base-url); {WAYS_ON}",
        ),
        (
            errors.DownloadError("https://x/?api_key=1", "cut"),
            "cut: https://x/?api_key=1; the result",
        ),
        (ValueError("gone"), "a defect of this program: ValueError: gone; please report it"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_keyword_becomes_an_option_and_a_quotation_stays(error: Exception, told: str) -> None:
    """What this package says has options in it; what the service says is left as it is."""
    assert sentence(error).startswith(told)


@pytest.mark.parametrize(
    ("error", "exits"),
    [
        (UsageError("no"), 2),
        (InvalidParamsError("m", (Problem("prompt", "is required"),)), 2),
        (UnknownModelError("m", ()), 2),
        (Interrupted("interrupted"), 130),
        (CommandError("no"), 1),
        (errors.InvalidRequestError(400, "no"), 1),
        (OSError("no"), 1),
        (ValueError("from anywhere"), 1),
        (LookupError("from anywhere"), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_bad_usage_is_what_was_seen_before_anything_was_sent(error: Exception, exits: int) -> None:
    """An error that may have come from anywhere does not claim that nothing was sent."""
    assert status(error) == exits


def test_what_the_library_refuses_beforehand_is_bad_usage() -> None:
    """A plain ValueError becomes a UsageError, and what names its problems stays as it is."""
    with pytest.raises(UsageError, match=r"^give --api-key$"), usage():
        raise ValueError("give api_key")
    with pytest.raises(InvalidParamsError), usage():
        models.build("suno", {})


def test_a_defect_is_not_blamed_on_the_user(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What nobody has foreseen exits with 1 and asks for a report."""
    monkeypatch.delenv("AIREITER_API_KEY", raising=False)
    assert Report.of(()).fail(LookupError("gone")) == 1
    assert capsys.readouterr() == (
        "",
        (
            "aireiter: a defect of this program: LookupError: gone; "
            "please report it with what --debug shows\n"
        ),
    )


def test_an_answer_that_cannot_be_encoded_leaves_room_for_one_that_can(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Standard output has one document also where the first could not be made."""
    report = Report(Manner(json=True))
    with pytest.raises(ValueError, match="JSON") as caught:
        report.answer({"credits": float("nan")}, task_view)
    assert report.fail(caught.value) == 1
    assert json.loads(capsys.readouterr().out)["error"]["type"] == "ValueError"


@pytest.mark.parametrize(
    ("report", "told"),
    [
        (Report(), "interrupted"),
        (Report(running="mine"), "interrupted; go on with: aireiter wait mine"),
        (
            Report(running="mine", submitting=True),
            f"interrupted; the task may have been accepted; {WAYS_ON}",
        ),
    ],
)
def test_an_interrupt_says_how_to_go_on(
    capsys: pytest.CaptureFixture[str], report: Report, told: str
) -> None:
    """A task that goes on is named, and one that may have been accepted is not said to."""
    assert report.interrupted() == 130
    assert capsys.readouterr() == ("", f"aireiter: {told}\n")


@pytest.mark.parametrize("task", [None, TASK])
def test_an_interrupt_is_one_document(
    capsys: pytest.CaptureFixture[str], task: Task | None
) -> None:
    assert Report(Manner(json=True), running="mine", task=task).interrupted() == 130
    told = json.loads(capsys.readouterr().out)
    assert told.get("status") == (task and task.status)
    assert told["error"] == {
        "type": "Interrupted",
        "message": "interrupted; go on with: aireiter wait mine",
        "out_task_id": "mine",
    }


def test_an_error_is_described_with_what_it_carries() -> None:
    """Of an error's values those are told that it has."""
    assert document(errors.RateLimitError(429, "slow", 2.5, "mine")) == {
        "type": "RateLimitError",
        "message": "slow (code 429, retry after 2.5 s) [task mine]; "
        "wait, or lower --max-rate or --concurrency",
        "code": 429,
        "retry_after": 2.5,
        "out_task_id": "mine",
        "status": 200,
    }
