"""Say what is wrong with a command line: cyclopts' errors in one style."""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final, Literal, get_args, get_origin

from cyclopts import (
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    RepeatArgumentError,
    Token,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
)
from cyclopts.argument import Argument

_KINDS: Final[Mapping[Any, str]] = {bool: "true or false", int: "an integer", float: "a number"}


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
