"""The output of a command, and its state for when it is interrupted.

Standard output gets the result, with ``--json`` one document and nothing else; messages go to
standard error. Everything passes `Output.write`, which redacts the API key.
"""

import json
import os
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Self, TextIO

import attrs
from attrs import define, field, frozen

from aireiter_async import Balance, Task
from aireiter_async.cli import _display, _errors
from aireiter_async.errors import TaskError, TaskTimeoutError

_SECRET_OPTION: Final = re.compile(r"--?(?:api[-_]?key|proxy)(?:=(.*))?", re.IGNORECASE | re.DOTALL)
_SHORTEST_KEY: Final = 8  # redacting shorter ones would mangle ordinary words
_HIDDEN: Final = "***"
_MAX_URL: Final = 2_000  # characters that are shown
_UNUSUAL: Final = re.compile(r"[^\x00-\x7e]")  # json.dumps escapes lower characters itself


@frozen(kw_only=True)
class OutputOptions:
    """The output options of a command.

    Attributes:
        json: Print one JSON document on standard output, and nothing else there.
        debug: Log what happens, and print tracebacks of failures.
    """

    json: bool = False
    debug: bool = False


@define
class Output:
    """The output of one run of the command.

    Attributes:
        options: The output options.
        keys: Secrets to redact.
        running: The ID of the task that would keep running without this program.
        submitting: Whether the service has not yet confirmed that task.
        task: The task that the command is about, as last seen.
        saving: The options of ``wait`` that save its results as this command does.
    """

    options: OutputOptions = OutputOptions()
    keys: tuple[str, ...] = field(default=(), repr=False)
    running: str | None = None
    submitting: bool = False
    task: Task | None = None
    saving: tuple[str, ...] = ()
    _answered: bool = field(default=False, init=False)

    @classmethod
    def of(cls, argv: Sequence[str]) -> Self:
        """Create it from *argv*, even if that cannot be parsed."""
        keys = tuple(key for key in _keys(argv) if len(key) >= _SHORTEST_KEY)
        return cls(OutputOptions(json="--json" in argv, debug="--debug" in argv), keys)

    def write(self, text: str, stream: TextIO) -> None:
        """Write *text* and flush, with the API key replaced by stars."""
        for key in self.keys:
            text = text.replace(key, _HIDDEN)
        stream.write(text)
        stream.flush()

    def note(self, text: str) -> None:
        """Write a message of one line."""
        self.write(f"{_display.clean(text)}\n", sys.stderr)

    def answer(self, document: Any, view: Callable[[Any], _display.View]) -> None:
        """Write the result: *document* with ``--json``, else *view* of it."""
        if self.options.json:
            text = f"{encode(document)}\n"
        else:
            text = _display.render(view(document), sys.stdout)
        self._answered = True
        self.write(text, sys.stdout)

    def fail(self, error: Exception) -> int:
        """Report *error* in one line, and return the exit status."""
        if not self._answered:
            with suppress(OSError):  # the line below says the same
                self._answer_failure(error)
        if self.options.debug:
            text = "".join(traceback.format_exception(error))
            self.write(_display.escape(text, "\n"), sys.stderr)
        self.note(f"aireiter: {self._describe(error)}")
        return _errors.exit_status(error)

    def interrupted(self) -> int:
        """Report how to resume the task that is left running, and return the exit status."""
        task = self.running
        if task is None:
            text = "interrupted"
        elif self.submitting:
            hint = _errors.recovery_hint(task)
            text = f"interrupted; the task may have been accepted; {hint}"
        else:
            open_ = self.task is not None and not self.task.done
            state = "the task is still running; " if open_ else ""
            text = f"interrupted; {state}resume with: aireiter wait {task}{self._saving()}"
        return self.fail(_errors.Interrupted(text, task))

    def _describe(self, error: Exception) -> str:
        text = _errors.describe(error)  # with a command to resume at its end
        return text + self._saving() if isinstance(error, TaskTimeoutError) else text

    def _saving(self) -> str:
        return f" {shlex.join(self.saving)}" if self.saving else ""

    def _answer_failure(self, error: Exception) -> None:
        task = error.task if isinstance(error, TaskError) else self.task
        document: Mapping[str, Any] = {} if task is None else task_document(task)
        if self.options.json:
            told = {**_errors.error_document(error), "message": self._describe(error)}
            document = {**document, "error": told}
            self.answer(document, lambda _: "")
        elif task is not None and not isinstance(error, _errors.Interrupted):
            self.answer(document, task_view)


def encode(document: Any, indent: int | None = 2) -> str:
    """Encode as JSON, escaping characters that could control a terminal.

    Args:
        document: The value to encode.
        indent: Columns per level; None for one line.
    """
    text = json.dumps(document, ensure_ascii=False, indent=indent, allow_nan=False)
    return _UNUSUAL.sub(lambda found: _escaped(found[0]), text)


def _escaped(char: str) -> str:
    if char.isprintable():
        return char
    return "\\u007f" if char == "\x7f" else json.dumps(char)[1:-1]


def task_document(task: Task, files: Sequence[Path] = ()) -> dict[str, Any]:
    """Return *task* as a JSON object, with the paths of its *files* and the whole reply."""
    return {**task.to_dict(), "files": [str(path) for path in files], "raw": task.raw}


def balance_document(balance: Balance) -> dict[str, Any]:
    """Return *balance* as a JSON object, with the whole reply."""
    # A quota's raw is part of the whole reply.
    document = attrs.asdict(balance, filter=lambda attribute, _: attribute.name != "raw")
    return {**document, "raw": balance.raw}


def task_view(document: Mapping[str, Any]) -> _display.View:
    """Show a task's document."""
    return _display.facts(_task_rows(document))


def balance_view(document: Mapping[str, Any]) -> _display.View:
    """Show a balance's document."""
    rows = [("credits", _display.number(document["credits"]))]
    rows += [("free tasks", _quota(quota)) for quota in document["free_quotas"]]
    return _display.facts(rows)


def _task_rows(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "task", document["out_task_id"]
    if document["model"] is not None:
        yield "model", document["model"]
    yield "status", document["status"]
    if document["credits_used"] is not None:
        yield "credits", _display.number(document["credits_used"])
    elif document["estimated_credits"] is not None:
        yield "credits", f"{_display.number(document['estimated_credits'])} estimated"
    for name in ("created", "completed"):
        if document[f"{name}_at"] is not None:
            moment = datetime.fromisoformat(document[f"{name}_at"])
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
    """Shorten a data URL, which may have megabytes."""
    return url if len(url) <= _MAX_URL else f"{url[:100]}... ({len(url):,} characters)"


def _quota(quota: Mapping[str, Any]) -> str:
    remaining, total = quota["remaining"], quota["total"]
    left = "unknown" if remaining is None else _display.number(remaining)
    of = "" if total is None else f" of {_display.number(total)}"
    return f"{quota['model_key']}: {left} left{of}"


def _keys(argv: Sequence[str]) -> Iterator[str]:
    yield os.environ.get("AIREITER_API_KEY", "").strip()
    for option, following in pairwise((*argv, "")):
        if match := _SECRET_OPTION.fullmatch(option):
            text = (match[1] or following).strip()
            credentials, at, _ = text.rpartition("@")
            yield credentials.rpartition(":")[2] if at else text
