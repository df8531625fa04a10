"""The checks of arguments: what they let through, and what they say of the rest."""

import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import attrs
import pytest

from aireiter_async import _arguments

NUMBERS = [0, 0.0, 1, 0.5, 1e308]
NO_NUMBERS = [True, "1", None, Decimal(1), 1j]
NO_FINITE_NUMBERS = [math.nan, math.inf, -math.inf, 10**400, -(10**400), -1, -1e-9]


def made(validator: Callable[[Any, Any, Any], None], value: object) -> Any:
    return attrs.make_class("Holder", {"size": attrs.field(validator=validator)})(value)


@pytest.mark.parametrize("value", NUMBERS)
def test_a_number_of_at_least_zero_is_returned(value: float) -> None:
    assert _arguments.check_number("size", value) is value


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_what_is_no_number_is_a_type_error(value: object) -> None:
    with pytest.raises(TypeError, match=f"^size must be a number, got {type(value).__name__}$"):
        _arguments.check_number("size", value)


@pytest.mark.parametrize("value", NO_FINITE_NUMBERS)
def test_a_number_out_of_range_names_the_range(value: float) -> None:
    with pytest.raises(ValueError, match="size must be a finite number, at least 0, got "):
        _arguments.check_number("size", value)


@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf, 10**400])
def test_a_number_can_have_to_be_more_than_another(value: float) -> None:
    with pytest.raises(ValueError, match="size must be a finite number, more than 0, got "):
        _arguments.check_number("size", value, above=0)
    assert _arguments.check_number("size", 5e-324, above=0) == 5e-324


@pytest.mark.parametrize("value", [True, 1.0, "1", None])
def test_a_count_is_an_int(value: object) -> None:
    with pytest.raises(TypeError, match=f"^size must be an int, got {type(value).__name__}$"):
        _arguments.check_count("size", value)


@pytest.mark.parametrize("value", [0, -3])
def test_a_count_is_at_least_one(value: int) -> None:
    with pytest.raises(ValueError, match=f"^size must be at least 1, got {value}$"):
        _arguments.check_count("size", value)


@pytest.mark.parametrize(
    ("validator", "value"),
    [
        (_arguments.not_negative, 0),
        (_arguments.not_negative_or_none, None),
        (_arguments.not_negative_or_none, 2.5),
        (_arguments.at_least_one, 1),
        (_arguments.count, 1),
        (_arguments.share, 0),
        (_arguments.share, 1.0),
        (_arguments.flag, False),
    ],
)
def test_validators_let_through_what_is_allowed(
    validator: Callable[[Any, Any, Any], None], value: object
) -> None:
    assert made(validator, value).size is value


@pytest.mark.parametrize(
    ("validator", "value", "error", "message"),
    [
        (_arguments.not_negative, None, TypeError, "size must be a number, got NoneType"),
        (_arguments.not_negative, -1, ValueError, "size must be a finite number, at least 0"),
        (_arguments.not_negative_or_none, -1, ValueError, "size must be a finite number"),
        (_arguments.at_least_one, 0.9, ValueError, "size must be at least 1, got 0.9"),
        (_arguments.count, 0, ValueError, "size must be at least 1, got 0"),
        (_arguments.share, 1.1, ValueError, "size must be from 0 to 1, got 1.1"),
        (_arguments.flag, 0, TypeError, "size must be a bool, got int"),
    ],
)
def test_validators_name_the_field(
    validator: Callable[[Any, Any, Any], None],
    value: object,
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=f"^{message}"):
        made(validator, value)
