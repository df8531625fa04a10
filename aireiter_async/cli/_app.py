"""The commands and their options. The room with cyclopts.

Parsing does nothing yet: it ends in a `Command`, or in a `UsageError` of one line.
"""

import sys
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias

from attrs import frozen
from cyclopts import (
    App,
    CycloptsError,
    Group,
    Parameter,
    UnknownCommandError,
    UnusedCliTokensError,
)

from aireiter_async import __version__
from aireiter_async.cli import _batch, _demo, _display, _models, _tasks
from aireiter_async.cli._connection import Connection
from aireiter_async.cli._failure import UsageError
from aireiter_async.cli._report import Manner, Report
from aireiter_async.cli._request import Order
from aireiter_async.cli._running import BatchOptions


@frozen
class Command:
    """What a command line asks for.

    Attributes:
        action: Does it, and returns the exit status.
        manner: How it is told.
    """

    action: Callable[[Report], Coroutine[Any, Any, int]]
    manner: Manner


_Connection: TypeAlias = Annotated[
    Connection, Parameter(name="*", group=Group("Connection", sort_key=8))
]
_Manner: TypeAlias = Annotated[Manner, Parameter(name="*", group=Group("Output", sort_key=9))]
_Order: TypeAlias = Annotated[Order, Parameter(name="*")]
_BatchOptions: TypeAlias = Annotated[BatchOptions, Parameter(name="*")]

# cyclopts wants a default where all of a class's options have one.
_CONNECTION: Final = Connection()
_MANNER: Final = Manner()
_ORDER: Final = Order()
_BATCH_OPTIONS: Final = BatchOptions()

_app = App(
    name="aireiter",
    help="""
    Images, videos, music and lyrics from the AIReiter API: one task, or many.

    The API key is read from AIREITER_API_KEY. Without one, begin with: aireiter demo

    Exit status: 0 done, 1 the service or a task failed, 2 bad usage or input, 3 a batch was
    interrupted, 4 a batch has reached its budget, 130 interrupted, 141 nobody reads the output.
    """,
    version=f"aireiter_async {__version__}",
    default_parameter=Parameter(negative=(), show_default=False),
    help_format="markdown",
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)


def parse(argv: Sequence[str]) -> Command:
    """Find out what *argv* asks for.

    Raises:
        UsageError: It cannot be understood.
    """
    if argv and argv[0].startswith("-") and argv[0] not in {"--help", "-h", "--version"}:
        raise UsageError(f"options come after a command: aireiter query ID {argv[0]}")
    command: Command | None = None

    def read(console: Any) -> None:
        nonlocal command
        command = _app(argv, console=console, exit_on_error=False, print_error=False, verbose=False)

    try:
        text = _display.capture(read, sys.stdout)
    except CycloptsError as error:
        raise UsageError(_told(error, argv)) from error
    return command or Command(partial(_answer, text), _MANNER)


def _told(error: CycloptsError, argv: Sequence[str]) -> str:
    match error:
        case UnknownCommandError():
            return f"{error} See: aireiter --help"
        case UnusedCliTokensError(unused_tokens=list() as tokens):
            what = f"What is {' '.join(tokens)!r}? It is one too many."
        case _:
            what = str(error)
    return f"{what} See: aireiter {argv[0]} --help"


async def _answer(text: str, report: Report) -> int:
    report.text(text)
    return 0


@_app.command(sort_key=1)
def demo(
    *,
    tasks: int = 200,
    directory: Path | None = None,
    seed: int = 0,
    concurrency: int = 32,
    window: int = 64,
    manner: _Manner = _MANNER,
) -> Command:
    """Run a batch against a service that misbehaves, without a key.

    The service is a FakeService in this process: it loses answers, resets connections, refuses,
    and charges again for a used id. The demo has succeeded, and exits with 0, if every task was
    charged once and its result is on disk.

    Args:
        tasks: How many; 200 unless told otherwise.
        directory: Where to save the results; else aireiter-demo, or aireiter-demo-2 and so on,
            whichever is new.
        seed: Decides what goes wrong, and when.
        concurrency: HTTP exchanges at once; 32 unless told otherwise.
        window: Tasks that are submitted and have not ended; 64 unless told otherwise.
        manner: How it tells its outcome.
    """
    plan = _demo.Plan(
        tasks=tasks, directory=directory, seed=seed, concurrency=concurrency, window=window
    )
    return Command(partial(_demo.demo, plan), manner)


@_app.command(sort_key=2)
def models(name: str | None = None, /, *, manner: _Manner = _MANNER) -> Command:
    """List the models, or show one: parameters, defaults, an example.

    Args:
        name: The model to show.
        manner: How it tells its outcome.
    """
    if name is None:
        return Command(_models.list_models, manner)
    return Command(partial(_models.show_model, name), manner)


@_app.command(sort_key=3)
def submit(
    model: str,
    /,
    *,
    order: _Order = _ORDER,
    wait: bool = False,
    download: Path | None = None,
    timeout: float | None = None,
    connection: _Connection = _CONNECTION,
    manner: _Manner = _MANNER,
) -> Command:
    """Submit a task, and print it.

    Its id is on standard error before anything is sent: with it nothing is lost, whatever happens.
    What this release knows of the model is checked before anything is spent.

    Args:
        model: The model's name; see: aireiter models
        wait: Wait until the task has completed.
        download: Wait, and save the results in this folder.
        timeout: Seconds that all of it may take before the results are saved.
        order: What to submit.
        connection: How to reach the service.
        manner: How it tells its outcome.
    """
    action = partial(
        _tasks.submit, connection, model, order, wait=wait, download=download, timeout=timeout
    )
    return Command(action, manner)


@_app.command(sort_key=4)
def batch(
    file: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    options: _BatchOptions = _BATCH_OPTIONS,
    connection: _Connection = _CONNECTION,
    manner: _Manner = _MANNER,
) -> Command:
    """Run the requests in a file, each paid for once whatever happens.

    All lines are checked before the first is sent. What was ended by anything is finished by the
    same command: lines are known by where they stand and what they say, so append to the file, and
    do not insert, or give each line an out_task_id.

    Ctrl-C stops taking new lines and ends when no submit is under way; twice ends at once.

    Args:
        file: JSON Lines, one request per line: model, params, and optionally out_task_id,
            callback_url, metadata. Or CSV (.csv), whose columns are parameters, and optionally
            out_task_id; an empty cell is not sent. Or - for JSON Lines from standard input.
        options: What to do with them.
        connection: How to reach the service.
        manner: How it tells its outcome.
    """
    return Command(partial(_batch.batch, file, options, connection), manner)


@_app.command(sort_key=5)
def wait(
    out_task_id: str,
    /,
    *,
    download: Path | None = None,
    timeout: float | None = None,
    connection: _Connection = _CONNECTION,
    manner: _Manner = _MANNER,
) -> Command:
    """Wait until a task has completed, and print it.

    Args:
        out_task_id: The task's id.
        download: Save the results in this folder.
        timeout: Seconds to wait; the task itself goes on.
        connection: How to reach the service.
        manner: How it tells its outcome.
    """
    action = partial(_tasks.wait, connection, out_task_id, download=download, timeout=timeout)
    return Command(action, manner)


@_app.command(sort_key=6)
def query(
    out_task_id: str,
    /,
    *,
    timeout: float | None = None,
    connection: _Connection = _CONNECTION,
    manner: _Manner = _MANNER,
) -> Command:
    """Ask for a task once, and print it as it is now.

    Args:
        out_task_id: The task's id.
        timeout: Seconds that it may take, retries included.
        connection: How to reach the service.
        manner: How it tells its outcome.
    """
    return Command(partial(_tasks.query, connection, out_task_id, timeout=timeout), manner)


@_app.command(sort_key=7)
def balance(
    *,
    timeout: float | None = None,
    connection: _Connection = _CONNECTION,
    manner: _Manner = _MANNER,
) -> Command:
    """Print the credits that are left.

    Args:
        timeout: Seconds that it may take, retries included.
        connection: How to reach the service.
        manner: How it tells its outcome.
    """
    return Command(partial(_tasks.balance, connection, timeout=timeout), manner)
