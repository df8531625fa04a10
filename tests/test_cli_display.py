"""Text, tables and progress on a terminal and elsewhere."""

import collections
import contextlib
import io
import os
import threading
from collections.abc import Iterator
from typing import Any, TextIO

import attrs
import pytest

from aireiter_async.cli import _display
from aireiter_async.cli._display import ProgressView


@attrs.define
class Terminal:
    """A terminal of this system, 60 columns wide, whose screen is read along."""

    stream: TextIO
    master: int
    seen: bytearray = attrs.field(factory=bytearray)
    reader: threading.Thread = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Begin to read."""
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # how Linux says that the other side is closed
            pieces = iter(lambda: os.read(self.master, 4096), b"")
            collections.deque(map(self.seen.extend, pieces), maxlen=0)

    def text(self) -> str:
        """Close the terminal, and return what was written to it."""
        self.stream.close()
        self.reader.join()
        return self.seen.decode()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    """Open a terminal that can do all that xterm can."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.delenv("NO_COLOR", raising=False)
    master, slave = os.openpty()
    terminal = Terminal(open(slave, "w", encoding="utf-8"), master)  # noqa: PTH123, SIM115 - a descriptor
    yield terminal
    terminal.text()
    os.close(master)


def progress(done: int, **changes: Any) -> ProgressView:
    """Return the progress of a batch of 20."""
    counts = {"failed": "1", "running": "12", "credits": "3.5 of 40", "rate": "2.5/s"}
    now = ProgressView(total=20, done=done, seconds=1.25, left=75, counts=counts)
    return attrs.evolve(now, **changes)


def test_progress_is_redrawn_on_a_terminal(terminal: Terminal) -> None:
    with _display.following(20, lambda: progress(7), terminal.stream) as step:
        step()
    text = terminal.text()
    assert "7/20" in text
    assert "\x1b[2K" in text


@pytest.mark.parametrize(
    ("width", "lines"),
    [
        (100, ["7/20  0:01:15 left  1 s", "failed 1  running 12  credits 3.5 of 40  rate 2.5/s"]),
        (60, ["7/20  0:01:15 left  1 s", "failed 1  running 12  credits 3.5 of 40  rate 2.5/s"]),
        (50, ["7/20  0:01:15 left  1 s", "failed 1  running 12  credits 3.5 of 40"]),
        (36, ["7/20  0:01:15 left  1 s", "failed 1  running 12  rate 2.5/s"]),
        (30, ["7/20  0:01:15 left  1 s", "failed 1  running 12"]),
        (12, ["7/20  1 s", "failed 1"]),
        (3, ["1 s", ""]),
    ],
)
def test_progress_fits_any_terminal(width: int, lines: list[str]) -> None:
    """What does not fit is left out, the least important first; the bar takes what is left."""
    text = _display.render(_display.progress_lines(progress(7), width), io.StringIO())
    head, counts = text.splitlines()
    rest = head.lstrip("━╸╺ ")
    assert [rest, counts] == lines
    assert max(len(head), len(counts)) <= width
    assert (head != rest) == (width >= len(rest) + 10)


def test_unknown_time_left_is_not_shown() -> None:
    text = _display.render(_display.progress_lines(progress(0, left=None), 60), io.StringIO())
    assert "left" not in text


def test_progress_is_ten_lines_elsewhere() -> None:
    stream, done = io.StringIO(), 0
    with _display.following(20, lambda: progress(done), stream) as step:
        for done in range(1, 21):  # noqa: B007 - the lambda reads it
            step()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 10
    assert lines[0] == ("  1.2 s   2/20  failed  1  running 12  credits 3.5 of 40  rate 2.5/s")


def test_a_long_batch_reports_every_minute() -> None:
    stream, seconds = io.StringIO(), 0.0
    with _display.following(20, lambda: progress(1, seconds=seconds), stream) as step:
        for seconds in range(0, 200, 10):  # noqa: B007 - the lambda reads it
            step()
    printed = [line.split()[0] for line in stream.getvalue().splitlines()]
    assert printed == ["60.0", "120.0", "180.0"]


@pytest.mark.parametrize("dumb", [True, False])
def test_a_wait_is_a_line_per_status_where_it_cannot_be_redrawn(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, *, dumb: bool
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    file = io.StringIO()
    with _display.waiting("task a", terminal.stream if dumb else file) as show:
        show("processing")
        show("completed")
    text = terminal.text() + file.getvalue()
    assert text.splitlines() == ["task a is processing", "task a is completed"]


def test_a_wait_is_redrawn_on_a_terminal(terminal: Terminal) -> None:
    with _display.waiting("task [/a]", terminal.stream) as show:
        show("processing")
    assert "task [/a] is processing" in terminal.text()


def test_tables_fit_the_terminal(terminal: Terminal) -> None:
    name = "a_name_of_22_characters"
    view = _display.table(("name", "what"), [(name, "word " * 40)])
    text = _display.render(view, terminal.stream)
    assert len(text.splitlines()) > 3
    assert name in text  # whole, to be copied
    assert "\x1b[1m" in text


def test_lines_stay_whole_elsewhere() -> None:
    view = _display.table(("name", "what"), [("a", "word " * 400), ("b", "")])
    lines = _display.render(view, io.StringIO()).splitlines()
    assert lines == ["name   what", f"a      {'word ' * 399}word", "b"]


def test_a_verdict_is_coloured_unless_the_user_objects(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    for good, colour in ((True, "\x1b[1;32m"), (False, "\x1b[1;31m")):
        view = _display.page(_display.facts([("a", "b")]), _display.verdict("c", good=good))
        monkeypatch.delenv("NO_COLOR", raising=False)
        assert colour in _display.render(view, terminal.stream)
        monkeypatch.setenv("NO_COLOR", "1")
        assert colour not in _display.render(view, terminal.stream)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\nb\t c ", "a b c"),
        ("末班 é 👨\u200d👩", "末班 é 👨\u200d👩"),
        ("\x1b]0;x\x07\x7f", "\\x1b]0;x\\x07\\x7f"),
        ("\x9b1m\u202e\udc80", "\\x9b1m\\u202e\\udc80"),
    ],
)
def test_a_line_cannot_steer_a_terminal(text: str, line: str) -> None:
    assert _display.clean(text) == line
