"""What an option or a fault may be, told in words where it is not."""

from collections.abc import Callable
from math import inf
from typing import Any, TypeAlias, get_args

import attrs

Validator: TypeAlias = "Callable[[Any, attrs.Attribute[Any], Any], None]"


def must_be(phrase: str, holds: Callable[[Any], bool]) -> Validator:
    """Make a validator that raises ValueError with the name, *phrase* and the value.

    Args:
        phrase: What is allowed, to be read after "must be".
        holds: Tells whether a value is.
    """

    def check(_: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
        if not holds(value):
            raise ValueError(f"{attribute.alias} must be {phrase}, not {value!r}")

    return check


def one_of(literal: object) -> Validator:
    """Make a validator from the values of a ``Literal``."""
    values = get_args(literal)
    return must_be(f"one of {', '.join(map(repr, values))}", values.__contains__)


def at_least(least: float) -> Validator:
    """Make a validator for numbers, *least* included."""
    return must_be(
        f"a number of at least {least}", lambda value: is_number(value) and value >= least
    )


def whole(least: float = -inf) -> Validator:
    """Make a validator for whole numbers, *least* included."""
    return must_be(
        "a whole number" + ("" if least == -inf else f" of at least {least}"),
        lambda value: isinstance(value, int) and value >= least,
    )


def is_number(value: object) -> bool:
    """Return whether *value* can be reckoned with."""
    return isinstance(value, int | float)
