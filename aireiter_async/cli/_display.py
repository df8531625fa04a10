"""How things look: aligned text, tables and the live display. The room with rich.

On a terminal rich wraps and colours as the terminal can (and as ``NO_COLOR``
says); anywhere else lines stay whole, for ``grep`` and for logs.
"""

import io
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, TextIO, TypeAlias

from attrs import frozen
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

View: TypeAlias = RenderableType

# Wider than any line of ours: off a terminal nothing is wrapped.
_UNWRAPPED: Final = 20_000
_BAR: Final = 44
_REFRESH: Final = 12  # times per second
_PLAIN_LINES: Final = 10
_PLAIN_SECONDS: Final = 60.0  # between two lines at most, as long as anything happens


def clean(text: str) -> str:
    """Make one line of *text* that cannot steer a terminal."""
    line = " ".join(text.split())
    if line.isprintable():
        return line
    return "".join(char if char.isprintable() else _escaped(char) for char in line)


def _escaped(char: str) -> str:
    return (
        char.encode("ascii", "backslashreplace").decode() if char > "~" else f"\\x{ord(char):02x}"
    )


def render(view: View, stream: TextIO) -> str:
    """Turn *view* into text for *stream*, colours included where it shows them."""
    width = None if stream.isatty() else _UNWRAPPED
    text = capture(
        lambda console: console.print(view, soft_wrap=isinstance(view, Text)), stream, width
    )
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


def capture(show: Callable[[Console], None], stream: TextIO, width: int | None = None) -> str:
    """Return what *show* prints on a console of *stream*'s kind.

    Not with rich's own capture, which writes to the stream though there is nothing to write.
    """
    buffer = io.StringIO()
    show(
        Console(
            file=buffer,
            force_terminal=stream.isatty() or None,
            width=width,
            highlight=False,
            markup=False,
            emoji=False,
        )
    )
    return buffer.getvalue()


def facts(rows: Iterable[tuple[str, str]]) -> View:
    """Show names and values, one pair a line; a name is not repeated below itself."""
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
    """Show rows below headers."""
    grid = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for header in headers:
        grid.add_column(header, overflow="fold")
    for row in rows:
        grid.add_row(*(Text(clean(cell)) for cell in row))
    return grid


def page(*parts: View | str) -> View:
    """Put views below each other, an empty line between two."""
    shown: list[View] = []
    for part in parts:
        shown += [Text(part) if isinstance(part, str) else part, Text()]
    return Group(*shown[:-1])


def _alive(console: Console) -> bool:
    """Tell whether lines can be drawn over: FORCE_COLOR makes no terminal of a file."""
    return console.file.isatty() and not console.is_dumb_terminal


@contextmanager
def waiting(what: str, stream: TextIO) -> Generator[Callable[[str], None], None, None]:
    """Show for how long *what* has been going on.

    Yields:
        What takes each new status.
    """
    console = Console(file=stream, highlight=False)
    if not _alive(console):
        yield lambda status: print(f"{what} is {clean(status)}", file=stream, flush=True)
        return
    columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        shown = progress.add_task(what, total=None)
        yield lambda status: progress.update(shown, description=f"{what} is {clean(status)}")


@frozen(kw_only=True)
class Standing:
    """How far a batch has come.

    Attributes:
        total: Requests in all.
        ended: Requests that are done with, well or not.
        counts: What else is counted, by its name, as it is shown.
        seconds: Since it began.
    """

    total: int
    ended: int
    counts: Mapping[str, str]
    seconds: float


@contextmanager
def following(
    total: int, look: Callable[[], Standing], stream: TextIO
) -> Generator[Callable[[], None], None, None]:
    """Follow a batch: live on a terminal, a line for each tenth or minute of it elsewhere.

    Args:
        total: Requests in all.
        look: Tells how far it is; a thread calls it, too.
        stream: Where to show it.

    Yields:
        What is to be called whenever a request has ended, or anything else has changed.
    """
    console = Console(file=stream, highlight=False)
    if _alive(console):
        live = Live(
            get_renderable=lambda: _drawn(look()),
            console=console,
            refresh_per_second=_REFRESH,
            transient=True,
        )
        with live:
            yield _nothing
        return
    tenths, said = 0, 0.0

    def step() -> None:
        nonlocal tenths, said
        standing = look()
        reached = standing.ended * _PLAIN_LINES // total
        if reached > tenths or standing.seconds - said >= _PLAIN_SECONDS:
            tenths, said = reached, standing.seconds
            print(_spelled(standing), file=stream, flush=True)

    yield step


def _nothing() -> None:
    """The live display looks by itself."""


def _drawn(standing: Standing) -> View:
    head = Table.grid(padding=(0, 2))
    head.add_row(
        ProgressBar(
            total=standing.total,
            completed=standing.ended,
            width=_BAR,
            complete_style="cyan",
            finished_style="cyan",
        ),
        f"{standing.ended}/{standing.total}",
        Text(f"{standing.seconds:.1f} s", style="dim"),
    )
    counts = Table.grid(padding=(0, 3, 0, 0))
    cells = [Text.assemble((f"{name} ", "dim"), text) for name, text in standing.counts.items()]
    counts.add_row(*cells)
    return Group(head, counts)


def _spelled(standing: Standing) -> str:
    width = len(str(standing.total))
    counts = "  ".join(f"{name} {text:>{width}}" for name, text in standing.counts.items())
    return f"{standing.seconds:5.1f} s  {standing.ended:{width}}/{standing.total}  {counts}"
