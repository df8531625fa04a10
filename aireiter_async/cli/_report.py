"""Where a command says things, and what it knows should it be broken off.

Standard output gets what was asked for, with ``--json`` one document and
nothing else; what is said on the way goes to standard error. The API key is in
neither: all that is written passes `Report.write`.
"""

import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any, Final, Self, TextIO

from attrs import define, field, frozen

from aireiter_async import Task
from aireiter_async.cli import _display, _failure
from aireiter_async.cli._documents import encode, task_document
from aireiter_async.cli._views import task_view
from aireiter_async.errors import TaskError

_KEY_OPTION: Final = re.compile(r"--?api[-_]?key(?:=(.*))?", re.IGNORECASE | re.DOTALL)
_SHORTEST_KEY: Final = 8  # what is shorter hides nothing but half of all words
_HIDDEN: Final = "***"


@frozen(kw_only=True)
class Manner:
    """How a command tells its outcome.

    Attributes:
        json: Print one JSON document on standard output, and nothing else there.
        debug: Tell what goes on, and show tracebacks of failures.
    """

    json: bool = False
    debug: bool = False


@define
class Report:
    """What one run of the command says.

    Attributes:
        manner: How it is told.
        keys: What is never shown.
        running: The id of the task that goes on without this program.
        submitting: Whether it is not known yet that the service has that task.
        task: The task that the command is about, as it was last seen.
    """

    manner: Manner = Manner()
    keys: tuple[str, ...] = field(default=(), repr=False)
    running: str | None = None
    submitting: bool = False
    task: Task | None = None
    _answered: bool = field(default=False, init=False)

    @classmethod
    def of(cls, argv: Sequence[str]) -> Self:
        """Read from *argv* what must be known even if it cannot be parsed."""
        keys = tuple(key for key in _keys(argv) if len(key) >= _SHORTEST_KEY)
        return cls(Manner(json="--json" in argv, debug="--debug" in argv), keys)

    def write(self, text: str, stream: TextIO) -> None:
        """Write *text* at once, any key as stars."""
        for key in self.keys:
            text = text.replace(key, _HIDDEN)
        stream.write(text)
        stream.flush()

    def note(self, text: str) -> None:
        """Say *text* on the way, in one line."""
        self.write(f"{_display.clean(text)}\n", sys.stderr)

    def text(self, text: str) -> None:
        """Answer with *text* as it is."""
        self.write(text, sys.stdout)

    def answer(self, document: Any, view: Callable[[Any], _display.View]) -> None:
        """Answer with *document*: to a program as JSON, to people as *view* shows it."""
        if self.manner.json:
            text = f"{encode(document)}\n"
        else:
            text = _display.render(view(document), sys.stdout)
        self._answered = True
        self.text(text)

    def fail(self, error: Exception) -> int:
        """Say what went wrong in one line, and return the exit status."""
        if not self._answered:
            with suppress(OSError):  # the line below tells the same
                self._answer_failure(error)
        if self.manner.debug:
            self.write("".join(traceback.format_exception(error)), sys.stderr)
        self.note(f"aireiter: {_failure.sentence(error)}")
        return _failure.status(error)

    def interrupted(self) -> int:
        """Say how to go on with what this program leaves, and return the exit status."""
        task = self.running
        if task is None:
            text = "interrupted"
        elif self.submitting:
            text = f"interrupted; the task may have been accepted; {_failure.ways_on(task)}"
        else:
            text = f"interrupted; go on with: aireiter wait {task}"
        return self.fail(_failure.Interrupted(text, task))

    def _answer_failure(self, error: Exception) -> None:
        """Give a program its one document, and people what is known of the task."""
        task = error.task if isinstance(error, TaskError) else self.task
        document: Mapping[str, Any] = {} if task is None else task_document(task)
        if self.manner.json:
            self.answer({**document, "error": _failure.document(error)}, task_view)
        elif document and not isinstance(error, _failure.Interrupted):
            self.answer(document, task_view)


def _keys(argv: Sequence[str]) -> Iterator[str]:
    yield os.environ.get("AIREITER_API_KEY", "").strip()
    for option, following in pairwise((*argv, "")):
        if match := _KEY_OPTION.fullmatch(option):
            yield (match[1] or following).strip()
