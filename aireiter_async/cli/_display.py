"""Aligned text, tables and live progress; the only module that imports rich.

On a terminal, rich wraps and colours as the terminal allows (and ``NO_COLOR`` demands). Elsewhere
lines stay whole, for ``grep`` and for logs.
"""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Final, TextIO, TypeAlias

from attrs import frozen
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

View: TypeAlias = RenderableType

_UNWRAPPED: Final = 20_000  # columns: wider than any line of ours
_BAR: Final = 40
_SMALLEST_BAR: Final = 8
_REFRESH: Final = 12  # times per second
_PLAIN_LINES: Final = 10
_PLAIN_SECONDS: Final = 60.0  # maximum between lines, while there are changes
# Not "printable" for Python, but harmless: it joins emoji.
_JOINER: Final = "\u200d"


def clean(text: str) -> str:
    """Return *text* as one line, without characters that could control a terminal."""
    line = " ".join(text.split())
    return line if line.isprintable() else escape(line)


def escape(text: str, keep: str = "") -> str:
    """Escape control, bidi and other invisible characters, except those in *keep*."""
    harmless = keep + _JOINER
    return "".join(
        char if char in harmless or char.isprintable() else _escape(char) for char in text
    )


def _escape(char: str) -> str:
    return (
        f"\\x{ord(char):02x}"
        if char.isascii()
        else char.encode("ascii", "backslashreplace").decode()
    )


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Let the command report it: rich would end the process."""
        raise  # noqa: PLE0704 - rich calls this while it handles the BrokenPipeError


def console(stream: TextIO, width: int | None = None) -> Console:
    """Return a console on *stream* that prints text as it is."""
    return _Console(
        file=stream,
        width=width,
        force_terminal=stream.isatty() or None,
        highlight=False,
        markup=False,
        emoji=False,
    )


def render(view: View, stream: TextIO) -> str:
    """Return *view* as text for *stream*, with colours if it supports them."""
    target = console(stream, None if stream.isatty() else _UNWRAPPED)
    with target.capture() as captured:
        target.print(view, soft_wrap=isinstance(view, Text))
    return "".join(f"{line.rstrip()}\n" for line in captured.get().splitlines())


def facts(rows: Iterable[tuple[str, str]]) -> View:
    """Show names and values, one pair per line, without repeating a name."""
    shown = [(name, clean(value)) for name, value in rows]
    width = max(len(name) for name, _ in shown) + 2
    text, before = Text(), None
    for name, value in shown:
        text.append(f"{'' if name == before else name:{width}}", style="dim")
        text.append(f"{value}\n")
        before = name
    text.rstrip()
    return text


def sums(rows: Iterable[tuple[str, str, str]]) -> View:
    """Show names, numbers and remarks."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(justify="right", style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for row in rows:
        grid.add_row(*(Text(clean(cell)) for cell in row))
    return grid


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> View:
    """Show rows below headers; the first cell of each is a name, which stays whole."""
    grid = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for number, header in enumerate(headers):
        grid.add_column(header, overflow="fold", no_wrap=number == 0)  # names can be copied
    for row in rows:
        grid.add_row(*(Text(clean(cell)) for cell in row))
    return grid


_MARKS: Final = {
    "ok": ("✓", "green"),
    "warning": ("!", "bold yellow"),
    "error": ("✗", "bold red"),
    "skipped": ("-", "dim"),
}


def checks(rows: Iterable[tuple[str, str, str, str]]) -> View:
    """Show the state, name, text and advice of checks: a mark each, and advice below the text."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for state, name, text, advice in rows:
        mark, style = _MARKS[state]
        grid.add_row(Text(mark, style), Text(clean(name)), Text(clean(text)))
        if advice:
            grid.add_row("", "", Text(f"-> {clean(advice)}", "bold"))
    return grid


def comparison(rows: Iterable[tuple[str, str, str, str]]) -> View:
    """Show what was found next to what is assumed: rows of a state, a name and both texts."""
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    grid.add_column(no_wrap=True)
    grid.add_column("fact", no_wrap=True, style="dim")
    grid.add_column("found", overflow="fold", ratio=3, min_width=20)
    grid.add_column("this client assumes", overflow="fold", ratio=2, min_width=20)
    for state, *cells in rows:
        mark, style = _MARKS[state]
        grid.add_row(Text(mark, style), *(Text(clean(cell)) for cell in cells))
    return grid


def page(*parts: View) -> View:
    """Stack views, separated by empty lines."""
    shown: list[View] = []
    for part in parts:
        shown += [part, Text()]
    return Group(*shown[:-1])


def verdict(text: str, *, good: bool) -> View:
    """Show a conclusion: green or red on a terminal."""
    return Text(clean(text), style="bold green" if good else "bold red")


def number(value: float) -> str:
    """Format an amount without trailing zeros."""
    return f"{value:,.6f}".rstrip("0").rstrip(".")


def plural(count: int, noun: str) -> str:
    """Format a count with its noun, such as "1 file" or "1,200 files"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _is_live(target: Console) -> bool:
    """Return whether lines can be redrawn, which FORCE_COLOR does not imply."""
    return target.file.isatty() and not target.is_dumb_terminal


@contextmanager
def waiting(what: str, stream: TextIO) -> Generator[Callable[[str], None], None, None]:
    """Show how long *what* has been running; yields a function to call with each status."""
    target = console(stream)
    if not _is_live(target):
        yield lambda status: print(f"{what} is {clean(status)}", file=stream, flush=True)
        return
    columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()
    with Progress(*columns, console=target, transient=True) as progress:
        shown = progress.add_task(what, total=None)
        yield lambda status: progress.update(shown, description=f"{what} is {clean(status)}")


@frozen(kw_only=True)
class ProgressView:
    """The progress of a batch, as displayed.

    Attributes:
        total: Number of requests.
        done: Requests that have ended, successfully or not.
        seconds: Elapsed seconds.
        left: Remaining seconds, None if unknown.
        counts: Other figures by name, the most important first.
    """

    total: int
    done: int
    seconds: float
    left: float | None
    counts: Mapping[str, str]


@contextmanager
def following(
    total: int, view: Callable[[], ProgressView], stream: TextIO
) -> Generator[Callable[[], None], None, None]:
    """Show the progress of a batch: live on a terminal, elsewhere a line per tenth or minute.

    Args:
        total: Number of requests.
        view: Returns the current progress; also called from another thread.
        stream: Where to show it.

    Yields:
        A function to call after every change.
    """
    target = console(stream)
    if _is_live(target):
        live = Live(
            get_renderable=lambda: progress_lines(view(), target.width),
            console=target,
            refresh_per_second=_REFRESH,
            transient=True,
        )
        with live:
            yield lambda: None  # the live display polls
        return
    tenths, printed_at = 0, 0.0

    def step() -> None:
        nonlocal tenths, printed_at
        now = view()
        reached = now.done * _PLAIN_LINES // total
        if reached > tenths or now.seconds - printed_at >= _PLAIN_SECONDS:
            tenths, printed_at = reached, now.seconds
            print(_plain_line(now), file=stream, flush=True)

    yield step


def progress_lines(now: ProgressView, width: int) -> View:
    """Show progress in two lines of at most *width* columns, omitting what does not fit."""
    left = "" if now.left is None else f"{timedelta(seconds=round(now.left))} left"
    count = f"{now.done}/{now.total}"
    head = _fitting([(count, ""), (left, "dim"), (f"{now.seconds:.0f} s", "dim")], width)
    bar = min(_BAR, width - cell_len(head.plain) - 2)
    lines: list[View] = [head]
    if bar >= _SMALLEST_BAR:
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_row(
            ProgressBar(
                total=now.total,
                completed=now.done,
                width=bar,
                complete_style="cyan",
                finished_style="cyan",
            ),
            head,
        )
        lines = [grid]
    counts = [(f"{name} {text}", "") for name, text in now.counts.items()]
    return Group(*lines, _fitting(counts, width))


def _fitting(cells: Iterable[tuple[str, str]], width: int) -> Text:
    """Join the cells that fit into *width* columns, in order of priority."""
    text = Text(no_wrap=True, overflow="crop")
    for cell, style in cells:
        gap = "  " if text.plain else ""
        if cell and cell_len(text.plain) + len(gap) + cell_len(cell) <= width:
            text.append(gap).append(cell, style=style)
    return text


def _plain_line(now: ProgressView) -> str:
    width = len(str(now.total))
    counts = "  ".join(f"{name} {text:>{width}}" for name, text in now.counts.items())
    return f"{now.seconds:5.1f} s  {now.done:{width}}/{now.total}  {counts}"
