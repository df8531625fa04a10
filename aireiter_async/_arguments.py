"""Argument checks; the errors name the argument, what is allowed and what was given."""

import reprlib
import sys
from typing import Any


def check_number(name: str, value: object, *, above: float | None = None) -> float:
    """Return *value* if it is finite and at least 0, or more than *above* if that is given.

    Raises:
        TypeError: It is not a number.
        ValueError: It is out of range.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    allowed = "at least 0" if above is None else f"more than {above:g}"
    enough = value >= 0 if above is None else value > above  # False for NaN
    if not enough or value > sys.float_info.max:
        raise ValueError(f"{name} must be a finite number, {allowed}, got {reprlib.repr(value)}")
    return value


def check_count(name: str, value: object) -> int:
    """Return *value* if it is a whole number of at least 1.

    Raises:
        TypeError: It is not an int.
        ValueError: It is below 1.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, got {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return value


def check_size(max_side: object, quality: object = 84) -> None:
    """Check the size and quality options of images.

    Raises:
        TypeError: One is not an int.
        ValueError: One is out of range.
    """
    for name, value, most in (("max_side", max_side, 65_535), ("quality", quality, 95)):
        if value is None and name == "max_side":
            continue
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name} must be an int, got {type(value).__name__}")
        if not 1 <= value <= most:
            raise ValueError(f"{name} must be 1 to {most}, got {value}")


# Validators of attrs fields.


def check_name(name: object) -> str:
    """Return what a caller's function *name* has returned, if it is a str.

    Raises:
        TypeError: It is not.
    """
    if not isinstance(name, str):
        raise TypeError(f"the function name must return a str, got {type(name).__name__}")
    return name


def not_negative(_instance: object, attribute: Any, value: object) -> None:
    check_number(attribute.name, value)


def not_negative_or_none(_instance: object, attribute: Any, value: object) -> None:
    if value is not None:
        check_number(attribute.name, value)


def at_least_one(_instance: object, attribute: Any, value: object) -> None:
    if check_number(attribute.name, value) < 1:
        raise ValueError(f"{attribute.name} must be at least 1, got {value!r}")


def flag(_instance: object, attribute: Any, value: object) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{attribute.name} must be a bool, got {type(value).__name__}")


def count(_instance: object, attribute: Any, value: object) -> None:
    check_count(attribute.name, value)


def share(_instance: object, attribute: Any, value: object) -> None:
    if check_number(attribute.name, value) > 1:
        raise ValueError(f"{attribute.name} must be from 0 to 1, got {value!r}")
