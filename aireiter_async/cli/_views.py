"""How a task and a balance look to people."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from aireiter_async.cli import _display

_LONGEST_URL: Final = 2_000


def task_view(document: Mapping[str, Any]) -> _display.View:
    """Show a task's document."""
    return _display.facts(_task_rows(document))


def balance_view(document: Mapping[str, Any]) -> _display.View:
    """Show a balance's document."""
    rows = [("credits", number(document["credits"]))]
    rows += [("free tasks", _quota(quota)) for quota in document["free_quotas"]]
    return _display.facts(rows)


def number(value: float) -> str:
    """Write a number of credits or tasks, with no more digits than it has."""
    return f"{value:,.6f}".rstrip("0").rstrip(".")


def _quota(quota: Mapping[str, Any]) -> str:
    remaining, total = quota["remaining"], quota["total"]
    left = "unknown" if remaining is None else number(remaining)
    return f"{quota['model_key']}: {left} left" + ("" if total is None else f" of {number(total)}")


def _task_rows(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "task", document["out_task_id"]
    if document["model"] is not None:
        yield "model", document["model"]
    yield "status", document["status"]
    if document["credits_used"] is not None:
        yield "credits", number(document["credits_used"])
    elif document["estimated_credits"] is not None:
        yield "credits", f"{number(document['estimated_credits'])} estimated"
    for name in ("created", "completed"):
        moment: datetime | None = document[f"{name}_at"]
        if moment is not None:
            yield name, f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    if document["error"] is not None:
        yield "error", f"{document['error']['code']}: {document['error']['message']}"
    for output in document["outputs"]:
        yield from _output_rows(output)
    files: Sequence[str] = document["files"]
    yield from (("saved", path) for path in files)


def _output_rows(output: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if output["title"] is not None:
        yield "title", output["title"]
    if output["url"] is not None:
        yield output["kind"], _shortened(output["url"])
    if output["cover_url"] is not None:
        yield "cover", _shortened(output["cover_url"])
    text: str = output["text"] or ""
    yield from (("text", line) for line in text.splitlines())


def _shortened(url: str) -> str:
    """Leave out most of what nobody can read: a URL may hold the result itself, megabytes of it."""
    return url if len(url) <= _LONGEST_URL else f"{url[:100]}... ({len(url):,} characters)"
