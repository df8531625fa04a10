"""Errors in a request, as data and as text; raised before any I/O."""

import reprlib
from math import isnan

import attrs


class _Short(reprlib.Repr):
    def repr_int(self, x: int, level: int) -> str:
        if x.bit_length() > 256:  # noqa: PLR2004, Python limits the conversion of long ones
            return f"an integer of {x.bit_length()} bits"
        return super().repr_int(x, level)


_SHORT = _Short()
_SHORT.maxstring = _SHORT.maxother = 60
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = 3
short = _SHORT.repr


# Attributes of foreign types, and how to convert them to JSON types.
_CONVERSIONS = (
    ("ndim", 0, "convert it with .item()"),  # NumPy scalars and 0-dimensional arrays
    ("tolist", None, "convert it with .tolist()"),  # arrays, series
    ("isoformat", None, "convert it with .isoformat()"),
    ("as_integer_ratio", None, "convert it with int() or float()"),
    ("decode", None, "decode it to a str"),
    ("__fspath__", None, "convert it with str()"),
    ("__iter__", None, "convert it to a list"),
)
_PANDAS_EMPTY = {"NAType", "NaTType"}


def conversion_hint(value: object) -> str:
    """Return how to convert a value of a foreign type, or an empty string if unknown."""
    if type(value).__name__ in _PANDAS_EMPTY or (isinstance(value, float) and isnan(value)):
        return "leave the parameter out where there is no value"
    if value is None or isinstance(value, str | int | float | list | tuple | dict):
        return ""
    for name, wanted, hint in _CONVERSIONS:
        if hasattr(value, name) and (wanted is None or getattr(value, name) == wanted):
            return hint
    return ""


class LocalMediaError(ValueError):
    """An instance has media that must be converted to URLs before it can be sent.

    Attributes:
        model: The instance.
    """

    def __init__(self, model: object, message: str) -> None:
        super().__init__(message)
        self.model = model


@attrs.frozen
class Problem:
    """One problem with one request.

    Attributes:
        param: The parameter's documented name; ``name[2]`` for an item of an array.
        text: What is allowed and what was given, phrased to follow the parameter's name.
    """

    param: str
    text: str

    def __str__(self) -> str:
        return f"{self.param} {self.text}"


class InvalidParamsError(ValueError, TypeError):
    """The parameters of a request are not as documented.

    It is both a ``ValueError`` and a ``TypeError``, since a request can have both problems.

    Attributes:
        model: The model's name, as it would have been submitted.
        problems: All problems, in the order of the parameters.
    """

    def __init__(self, model: str, problems: tuple[Problem, ...]) -> None:
        super().__init__(model, problems)
        self.model: str = model
        self.problems: tuple[Problem, ...] = problems

    def __str__(self) -> str:
        return "\n".join(f"{self.model}: {problem}" for problem in self.problems)


class UnknownModelError(KeyError, ValueError):
    """A model that this release does not know.

    It is a ``KeyError``, as for any mapping, and a ``ValueError``, as for any wrong argument.

    Attributes:
        name: The unknown name.
        nearest: Similar names, the best match first; may be empty.
    """

    def __init__(self, name: object, nearest: tuple[str, ...]) -> None:
        super().__init__(name, nearest)
        self.name: object = name
        self.nearest: tuple[str, ...] = nearest

    def __str__(self) -> str:
        hint = f"; did you mean {' or '.join(self.nearest)}?" if self.nearest else ""
        return f"no model is called {short(self.name)}{hint}"


for _public in (Problem, InvalidParamsError, UnknownModelError):
    _public.__module__ = "aireiter_async.models"
