"""The commands; with ``_options``, the only module that imports cyclopts.

Parsing runs nothing: it returns a `Command` or raises a `UsageError` of one line. Commands import
their dependencies when called, so that the others work without them.
"""

import sys
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias, get_args, get_origin

from attrs import frozen
from cyclopts import (
    App,
    CoercionError,
    CycloptsError,
    Group,
    MissingArgumentError,
    Parameter,
    RepeatArgumentError,
    Token,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
)
from cyclopts.argument import Argument

from aireiter_async import __version__
from aireiter_async.cli import _display
from aireiter_async.cli._errors import UsageError
from aireiter_async.cli._options import BatchOptions, Connection, DoctorOptions, SubmitOptions
from aireiter_async.cli._output import Output, OutputOptions


@frozen
class Command:
    """The command to run.

    Attributes:
        action: Runs it, and returns the exit status.
        options: The output options.
    """

    action: Callable[[Output], Coroutine[Any, Any, int]]
    options: OutputOptions


_Connection: TypeAlias = Annotated[
    Connection, Parameter(name="*", group=Group("Connection", sort_key=8))
]
_Output: TypeAlias = Annotated[
    OutputOptions, Parameter(name="*", group=Group("Output", sort_key=9))
]
_Submit: TypeAlias = Annotated[SubmitOptions, Parameter(name="*")]
_Batch: TypeAlias = Annotated[BatchOptions, Parameter(name="*")]
_Doctor: TypeAlias = Annotated[DoctorOptions, Parameter(name="*")]
_Model: TypeAlias = Annotated[str, Parameter(name=("--model", "-m"), group="Arguments")]
_Download: TypeAlias = Annotated[Path, Parameter(name=("--download", "-o"))]

# cyclopts requires a default if all fields of a class have one.
_CONNECTION: Final = Connection()
_OUTPUT: Final = OutputOptions()
_SUBMIT: Final = SubmitOptions()
_BATCH: Final = BatchOptions()
_DOCTOR: Final = DoctorOptions()
_HERE: Final = Path()

_KINDS: Final[Mapping[Any, str]] = {bool: "true or false", int: "an integer", float: "a number"}

_app = App(
    name="aireiter",
    help="""
    Images, videos, music and lyrics from the AIReiter API: one task, or many.

    Example: aireiter run nano_banana_v2 prompt="a cat" -o results

    The API key is read from AIREITER_API_KEY. Without one, start with: aireiter demo

    If something does not work: aireiter doctor

    Exit status: 0 done, 1 the service, a task or a check failed, 2 invalid usage or input, 3 a
    batch is unfinished, 4 a batch reached --max-credits, 5 the account or this machine stopped a
    batch, 130 interrupted, 141 standard output was closed.
    """,
    version=f"aireiter_async {__version__}",
    default_parameter=Parameter(negative=(), show_default=False),
    group_parameters=Group("Options", sort_key=7),
    help_format="markdown",
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)
_app.register_install_completion_command()  # pyright: ignore[reportUnknownMemberType]
_FIRST: Final = {"--help", "-h", "--version", "--install-completion"}


def parse(argv: Sequence[str]) -> Command | None:
    """Parse *argv*; None if help or the version was requested, and printed.

    Raises:
        UsageError: It is invalid.
    """
    if argv and argv[0].startswith("-") and argv[0] not in _FIRST:
        raise UsageError(f"options go after a command, as in: aireiter query ID {argv[0]}")
    try:
        command: Command | None = _app(
            argv,
            console=_display.console(sys.stdout),
            exit_on_error=False,
            print_error=False,
            verbose=False,
        )
    except CycloptsError as error:
        commands = [name for name in _app if not name.startswith("-")]
        raise UsageError(describe_usage(error, argv, commands)) from error
    return command


@_app.command(sort_key=1)
def demo(
    *,
    tasks: int = 200,
    directory: Path | None = None,
    seed: int = 0,
    concurrency: int = 32,
    window: int = 64,
    output: _Output = _OUTPUT,
) -> Command:
    """Run a batch against a service that fails in many ways; needs no key.

    Example: aireiter demo --tasks 20

    The service is a FakeService in this process. It loses responses, resets connections, rejects
    requests and charges again for a used ID. The demo succeeds if every task is charged once and
    its result is on disk.

    Args:
        tasks: Number of tasks; default 200.
        directory: Where to save the results; default: aireiter-demo, or aireiter-demo-2 and so on.
        seed: Random seed of the faults.
        concurrency: Maximum concurrent HTTP exchanges; default 32.
        window: Maximum tasks outstanding; default 64.
        output: The output options.
    """
    from aireiter_async.cli import _demo  # noqa: PLC0415 - needs SQLite

    options = _demo.DemoOptions(
        tasks=tasks, directory=directory, seed=seed, concurrency=concurrency, window=window
    )
    return Command(partial(_demo.demo, options), output)


@_app.command(sort_key=2)
def models(name: str | None = None, /, *, output: _Output = _OUTPUT) -> Command:
    """List the models, or show one: parameters, defaults, an example.

    Example: aireiter models nano_banana_v2

    Args:
        name: The model to show.
        output: The output options.
    """
    from aireiter_async.cli import _models  # noqa: PLC0415 - loads the catalogue

    if name is None:
        return Command(_models.list_models, output)
    return Command(partial(_models.show_model, name), output)


@_app.command(sort_key=3, usage="Usage: aireiter submit [OPTIONS] MODEL [NAME=VALUE...]")
def submit(
    model: _Model,
    *parameters: str,
    options: _Submit = _SUBMIT,
    timeout: float | None = None,
    connection: _Connection = _CONNECTION,
    output: _Output = _OUTPUT,
) -> Command:
    """Submit a task, and print it.

    Example: aireiter submit nano_banana_v2 prompt="a cat"

    Its ID is printed to standard error before anything is sent, so that the task can always be
    found again. Parameters are validated first if this release knows the model.

    Args:
        model: The model's name; see: aireiter models
        parameters: The model's parameters, NAME=VALUE; a repeated NAME makes an array. For a model
            that this release does not know, a VALUE that is a JSON number, boolean, array or
            object is sent as such, any other as text. For media parameters, @FILE is a local
            file, and @@ a literal @.
        options: The submit options.
        timeout: Maximum seconds for the command.
        connection: The connection options.
        output: The output options.
    """
    from aireiter_async.cli import _tasks  # noqa: PLC0415

    action = partial(_tasks.submit, connection, model, parameters, options, timeout=timeout)
    return Command(action, output)


@_app.command(sort_key=4, usage="Usage: aireiter run [OPTIONS] MODEL [NAME=VALUE...]")
def run(
    model: _Model,
    *parameters: str,
    options: _Submit = _SUBMIT,
    download: _Download = _HERE,
    name: str | None = None,
    timeout: float | None = None,
    connection: _Connection = _CONNECTION,
    output: _Output = _OUTPUT,
) -> Command:
    """Submit a task, wait for it and save its results.

    Example: aireiter run nano_banana_v2 prompt="a cat" -o results

    From a photo: aireiter run flux_2_pro -p "in oil" image_url=@photo.jpg

    Args:
        model: The model's name; see: aireiter models
        parameters: The model's parameters, NAME=VALUE, as for: aireiter submit
        options: The submit options.
        download: Where to save the results; default: the current directory.
        name: The files' name, without suffix; default: the task's ID. {prompt}, {model},
            {out_task_id} and {n} (the output's number), with a width or a maximum length.
        timeout: Seconds until the task must have ended; it keeps running afterwards.
        connection: The connection options.
        output: The output options.
    """
    from aireiter_async.cli import _tasks  # noqa: PLC0415

    action = partial(
        _tasks.run,
        connection,
        model,
        parameters,
        options,
        download=download,
        name=name,
        timeout=timeout,
    )
    return Command(action, output)


@_app.command(sort_key=5, usage="Usage: aireiter batch [OPTIONS] FILE [NAME=VALUE...]")
def batch(
    file: Annotated[str, Parameter(name="FILE", allow_leading_hyphen=True)],
    /,
    *parameters: str,
    options: _Batch = _BATCH,
    connection: _Connection = _CONNECTION,
    output: _Output = _OUTPUT,
) -> Command:
    """Run the requests in a file, each paid for once whatever happens.

    Example: aireiter batch prompts.csv -m nano_banana_v2 -o results

    What it will cost: aireiter batch prompts.csv -m krea_2_turbo --estimate

    A sweep: aireiter batch prompts.csv --each model=krea_2_turbo,flux_2_pro

    Every row is checked before anything is sent: if one is invalid, nothing is. A row whose local
    file cannot be used fails alone. If a run is interrupted, even by kill -9, run the same command
    again to finish it.

    Ctrl-C stops submitting and ends once no submit is in flight; a second one ends immediately.

    Args:
        file: The requests. JSON Lines or a JSON array of objects: model, params, and optionally
            out_task_id, callback_url, metadata. CSV, with any separator, or TSV: the columns are
            parameters, and optionally model and out_task_id; an empty cell is not sent. Text: one
            prompt per line; lines beginning with # are comments, and a prompt's own # needs a
            backslash before it. For media parameters, @FILE is a local file, relative to this
            file. UTF-8 or UTF-16, also compressed with gzip; - is standard input.
        parameters: Parameters for all rows that do not set them, NAME=VALUE.
        options: The batch options.
        connection: The connection options.
        output: The output options.
    """
    from aireiter_async.cli import _batch  # noqa: PLC0415 - needs SQLite

    return Command(partial(_batch.batch, file, parameters, options, connection), output)


@_app.command(sort_key=6)
def report(
    ledger: Path,
    /,
    *,
    page: Annotated[Path | None, Parameter(name=("--page", "-o"))] = None,
    standalone: bool = False,
    output: _Output = _OUTPUT,
) -> Command:
    """Write an HTML page of a ledger: results, prompts, credits, failures.

    Example: aireiter report prompts.csv.db

    Args:
        ledger: The ledger of a batch, which may be running.
        page: The page (.html), or its directory; default: the directory of the results. Only
            an earlier report is overwritten.
        standalone: Embed small copies of the pictures in the page, so that it can be shared
            without them; needs the extra images.
        output: The output options.
    """
    from aireiter_async.cli import _page  # noqa: PLC0415 - needs SQLite

    return Command(partial(_page.report, ledger, page, standalone=standalone), output)


@_app.command(sort_key=7)
def wait(
    out_task_id: str,
    /,
    *,
    download: Annotated[Path | None, Parameter(name=("--download", "-o"))] = None,
    name: str | None = None,
    timeout: float | None = None,
    connection: _Connection = _CONNECTION,
    output: _Output = _OUTPUT,
) -> Command:
    """Wait until a task has ended, and print it.

    Example: aireiter wait order-17 -o results

    Args:
        out_task_id: The task's ID.
        download: Save the results in this directory.
        name: The files' name, without suffix; default: the task's ID. {out_task_id} and {n}
            (the output's number), with a width or a maximum length.
        timeout: Seconds to wait; the task keeps running afterwards.
        connection: The connection options.
        output: The output options.
    """
    from aireiter_async.cli import _tasks  # noqa: PLC0415

    action = partial(
        _tasks.wait, connection, out_task_id, download=download, name=name, timeout=timeout
    )
    return Command(action, output)


@_app.command(sort_key=8)
def query(
    out_task_id: str,
    /,
    *,
    timeout: float | None = None,
    connection: _Connection = _CONNECTION,
    output: _Output = _OUTPUT,
) -> Command:
    """Query a task once, and print it.

    Example: aireiter query order-17

    Args:
        out_task_id: The task's ID.
        timeout: Maximum seconds for the command, including retries.
        connection: The connection options.
        output: The output options.
    """
    from aireiter_async.cli import _tasks  # noqa: PLC0415

    return Command(partial(_tasks.query, connection, out_task_id, timeout=timeout), output)


@_app.command(sort_key=9)
def balance(
    *,
    timeout: float | None = None,
    connection: _Connection = _CONNECTION,
    output: _Output = _OUTPUT,
) -> Command:
    """Print the remaining credits.

    Example: aireiter balance --json

    Args:
        timeout: Maximum seconds for the command, including retries.
        connection: The connection options.
        output: The output options.
    """
    from aireiter_async.cli import _tasks  # noqa: PLC0415

    return Command(partial(_tasks.balance, connection, timeout=timeout), output)


@_app.command(sort_key=10)
def doctor(
    *,
    options: _Doctor = _DOCTOR,
    connection: _Connection = _CONNECTION,
    output: _Output = _OUTPUT,
) -> Command:
    """Find out why something does not work; costs nothing, unless --probe is used.

    Example: aireiter doctor --download results --ledger prompts.csv.db

    Experiment: aireiter doctor --probe nano_banana_v2 --max-credits 20 --yes

    Checks the installation, the settings and where each comes from, DNS, TCP, TLS, the proxy,
    whether the base URL is the API, the key, this machine's clock, the disk and the ledgers. The
    output can be published as it is: it has no key, no password, no home directory and no prompt.
    Exits with 1 if something is wrong.

    Args:
        options: What to check.
        connection: The connection options.
        output: The output options.
    """
    from aireiter_async.cli import _doctor  # noqa: PLC0415 - needs the network's modules

    return Command(partial(_doctor.doctor, options, connection), output)


def describe_usage(error: CycloptsError, argv: Sequence[str], commands: Iterable[str]) -> str:
    """Return what is wrong, and which help to read.

    Args:
        error: The error.
        argv: The arguments of the program.
        commands: The names of its commands.
    """
    name = argv[0]
    if isinstance(error, UnknownCommandError):
        return f"unknown command {name!r}{_nearest(name, commands)}; see: aireiter --help"
    return f"{_describe(error, argv)}; see: aireiter {name} --help"


def _describe(error: CycloptsError, argv: Sequence[str]) -> str:
    match error:
        case UnknownOptionError(token=token, argument_collection=arguments):
            option = (token.keyword or token.value).partition("=")[0]
            options = [name for each in arguments for name in each.names if name.startswith("--")]
            text = f"unknown option {option}{_nearest(option, options)}"
        case UnusedCliTokensError(unused_tokens=list() as tokens):
            text = f"unexpected argument {' '.join(tokens)!r}"
        case RepeatArgumentError(token=token):
            text = f"{token.keyword} can be given once"
        case MissingArgumentError(argument=Argument() as argument):
            given = [name for name in argument.names if name.startswith("-") and name in argv]
            missing = f"{argument.name.lstrip('-').upper()} is missing"
            text = f"{given[0]} needs a value" if given else missing
        case CoercionError(argument=Argument() as argument, token=Token() as token):
            text = f"{token.keyword} must be {_expected(argument.hint)}, got {token.value!r}"
        case _:
            text = str(error)
    return text


def _expected(hint: Any) -> str:
    kinds = get_args(hint) if type(None) in get_args(hint) else (hint,)
    if get_origin(kinds[0]) is Literal:
        return f"one of {', '.join(get_args(kinds[0]))}"
    return _KINDS.get(kinds[0], "valid")


def _nearest(word: str, known: Iterable[str]) -> str:
    near = get_close_matches(word, [*known], 1)
    return f"; did you mean {near[0]}?" if near else ""
