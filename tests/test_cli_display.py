"""How things look on a terminal and elsewhere."""

import collections
import contextlib
import io
import os
import threading
from collections.abc import Iterator
from typing import TextIO

import attrs
import pytest

from aireiter_async.cli import _display
from aireiter_async.cli._display import Standing


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


def standing(ended: int) -> Standing:
    """Return how far a batch of 20 is."""
    return Standing(total=20, ended=ended, counts={"submitted": "20", "retries": "3"}, seconds=1.25)


def test_a_batch_is_drawn_on_a_terminal(terminal: Terminal) -> None:
    """The live display draws over itself, and is gone in the end."""
    with _display.following(20, lambda: standing(7), terminal.stream) as step:
        step()
    text = terminal.text()
    assert "7/20" in text
    assert "\x1b[2K" in text


def test_a_batch_is_told_in_ten_lines_elsewhere() -> None:
    """There is a line for each tenth, however many requests end."""
    stream, ended = io.StringIO(), 0
    with _display.following(20, lambda: standing(ended), stream) as step:
        for ended in range(1, 21):  # noqa: B007 - the lambda looks at it
            step()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 10
    assert lines[0] == "  1.2 s   2/20  submitted 20  retries  3"


def test_a_long_batch_is_told_every_minute() -> None:
    """Where the next tenth is hours away, a line a minute says that it is alive."""
    stream, seconds = io.StringIO(), 0.0
    with _display.following(20, lambda: attrs.evolve(standing(1), seconds=seconds), stream) as step:
        for seconds in range(0, 200, 10):  # noqa: B007 - the lambda looks at it
            step()
    assert [line.split()[0] for line in stream.getvalue().splitlines()] == [
        "60.0",
        "120.0",
        "180.0",
    ]


@pytest.mark.parametrize("dumb", [True, False])
def test_a_wait_is_told_where_it_cannot_be_drawn(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, *, dumb: bool
) -> None:
    """A file and a dumb terminal get a line for each new status."""
    monkeypatch.setenv("TERM", "dumb")
    file = io.StringIO()
    with _display.waiting("task a", terminal.stream if dumb else file) as show:
        show("processing")
        show("completed")
    text = terminal.text() + file.getvalue()
    assert text.splitlines() == ["task a is processing", "task a is completed"]


def test_a_wait_is_drawn_on_a_terminal(terminal: Terminal) -> None:
    """A terminal shows for how long it has been going on, markup in ids being text."""
    with _display.waiting("task [/a]", terminal.stream) as show:
        show("processing")
    assert "task [/a] is processing" in terminal.text()


def test_tables_fit_the_terminal(terminal: Terminal) -> None:
    """On a terminal long cells are wrapped, and headers stand out."""
    view = _display.table(("name", "what"), [("a", "word " * 40)])
    text = _display.render(view, terminal.stream)
    assert len(text.splitlines()) > 3
    assert "\x1b[1m" in text


def test_lines_stay_whole_elsewhere() -> None:
    """Off a terminal nothing is wrapped, coloured or padded."""
    view = _display.table(("name", "what"), [("a", "word " * 400), ("b", "")])
    lines = _display.render(view, io.StringIO()).splitlines()
    assert lines == ["name   what", f"a      {'word ' * 399}word", "b"]


def test_no_colour_is_respected(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR leaves no colour in what a terminal shows."""
    view = _display.page(_display.facts([("a", "b")]), "c")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in _display.render(view, terminal.stream)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\nb\t c ", "a b c"),
        ("末班 é", "末班 é"),
        ("\x1b]0;x\x07", "\\x1b]0;x\\x07"),
        ("\x9b1m\u202e\udc80", "\\x9b1m\\u202e\\udc80"),
    ],
)
def test_a_line_cannot_steer_a_terminal(text: str, line: str) -> None:
    """Line breaks become blanks, and what is not printable is spelled out."""
    assert _display.clean(text) == line
