"""Markers for the annotations of parameters: limits of a value, and facts about it.

The attributes of a marker appear under the same names on :class:`~aireiter_async.models.Parameter`.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import attrs

from aireiter_async.models._errors import short

_NUMBER = re.compile(r"[0-9]{1,18}(\.[0-9]{1,18})?")
_SIZE = re.compile("([0-9]{1,9})x([0-9]{1,9})")


@attrs.frozen
class Marker:
    """Base class of all markers."""

    def facts(self) -> dict[str, Any]:
        """Return its facts, by the names of ``Parameter``'s attributes."""
        return attrs.asdict(self, recurse=False, filter=lambda _, value: value is not None)


@attrs.frozen
class Doc(Marker):
    """The purpose of the parameter, in one line."""

    doc: str


@attrs.frozen
class Default(Marker):
    """The service's default for a parameter that is not sent; never sent by the client."""

    default: str | float


@attrs.frozen
class Deprecated(Marker):
    """No longer documented, but still accepted."""

    deprecated: bool = True


@attrs.frozen
class Array(Marker):
    """Always an array on the wire; a single value is wrapped."""

    def facts(self) -> dict[str, Any]:
        return {"type": "string[]"}


@attrs.frozen
class When(Marker):
    """A condition: parameter *param* has one of *values*, given or by default."""

    param: str
    values: tuple[str | bool, ...]

    def __str__(self) -> str:
        return f"{self.param}={' or '.join(map(str, self.values))}"


class RequiredWhen(When):
    """Required under this condition."""

    __slots__ = ()

    def facts(self) -> dict[str, Any]:
        return {"required_when": str(self)}


class OnlyWhen(When):
    """Only allowed under this condition, except for its default."""

    __slots__ = ()

    def facts(self) -> dict[str, Any]:
        return {"only_when": str(self)}


@attrs.frozen
class Needs(Marker):
    """Only allowed together with another parameter, except for its default."""

    needs: str


class Limit(Marker, ABC):
    """A limit of one value."""

    __slots__ = ()

    @property
    @abstractmethod
    def phrase(self) -> str:
        """What is allowed, phrased to follow "must be"."""

    @abstractmethod
    def allows(self, value: Any, /) -> bool:
        """Return whether *value*, which has the parameter's type, is allowed."""

    def shown(self, value: Any, /) -> str:
        """Return a short form of a rejected value, with advice if there is any."""
        return short(value)


@attrs.frozen
class OneOf(Limit):
    """One of several strings; from a ``Literal``."""

    allowed: tuple[str, ...]

    @property
    def phrase(self) -> str:
        return f"one of {', '.join(map(repr, self.allowed))}"

    def allows(self, value: str, /) -> bool:
        return value in self.allowed

    def shown(self, value: str, /) -> str:
        words = {word.lower(): word for word in self.allowed}
        nearest = get_close_matches(value[:64].lower(), words, n=1, cutoff=0.7)
        return short(value) + (f"; did you mean {words[nearest[0]]!r}?" if nearest else "")


@attrs.frozen
class Range(Limit):
    """A number between two others, both included."""

    minimum: float
    maximum: float | None = None

    @property
    def phrase(self) -> str:
        if self.maximum is None:
            return f"at least {self.minimum}"
        return f"from {self.minimum} to {self.maximum}"

    def allows(self, value: float, /) -> bool:
        return value >= self.minimum and (self.maximum is None or value <= self.maximum)


@attrs.frozen
class Step(Limit):
    """A multiple of a step, within rounding errors."""

    step: float

    @property
    def phrase(self) -> str:
        return "whole" if self.step == 1 else f"a multiple of {self.step}"

    def allows(self, value: float, /) -> bool:
        steps = value / self.step
        return abs(steps - round(steps)) < 1e-9  # noqa: PLR2004, far above any rounding error


@attrs.frozen
class NumberAsText(Limit):
    """A number that is sent as a string."""

    minimum: float

    @property
    def phrase(self) -> str:
        return f"a number of at least {self.minimum}, which is sent as a string such as '120'"

    def allows(self, value: str, /) -> bool:
        return _NUMBER.fullmatch(value) is not None and float(value) >= self.minimum


@attrs.frozen
class Length(Limit):
    """A number of characters."""

    max_length: int | None = None
    min_length: int | None = None

    @property
    def phrase(self) -> str:
        return f"{_count(self.min_length, self.max_length, 'character')} long"

    def allows(self, value: str, /) -> bool:
        return _within(value, self.min_length, self.max_length)

    def shown(self, value: str, /) -> str:
        return str(len(value))


@attrs.frozen
class NotBlank(Limit):
    """Text that is not blank."""

    not_blank: bool = True

    @property
    def phrase(self) -> str:
        return "more than blanks"

    def allows(self, value: str, /) -> bool:
        return value != "" and not value.isspace()


@attrs.frozen
class Items(Limit):
    """A number of items of an array; a single value counts as one."""

    max_items: int | None = None
    min_items: int | None = None

    @property
    def phrase(self) -> str:
        return _count(self.min_items, self.max_items, "item")

    def allows(self, value: tuple[object, ...], /) -> bool:
        return _within(value, self.min_items, self.max_items)

    def shown(self, value: tuple[object, ...], /) -> str:
        return str(len(value))


@attrs.frozen(kw_only=True)
class Size(Limit):
    """Exact size in pixels, as ``WIDTHxHEIGHT``."""

    min_pixels: int
    max_pixels: int
    multiple_of: int | None = None
    max_side: int | None = None
    max_ratio: int | None = None

    @property
    def phrase(self) -> str:
        # All limits at once: a size fixed for one should not violate the next.
        limits = [f"{self.min_pixels} to {self.max_pixels} pixels in all"]
        if self.multiple_of is not None:
            limits.append(f"both sides multiples of {self.multiple_of}")
        if self.max_side is not None:
            limits.append(f"no side over {self.max_side}")
        if self.max_ratio is not None:
            limits.append(f"no side more than {self.max_ratio} times the other")
        return f"WIDTHxHEIGHT such as '1024x1024', {', '.join(limits)}"

    def allows(self, value: str, /) -> bool:
        sides = _SIZE.fullmatch(value)
        if sides is None:
            return False
        shorter, longer = sorted(map(int, sides.groups()))
        return (
            self.min_pixels <= shorter * longer <= self.max_pixels
            and shorter % (self.multiple_of or 1) == longer % (self.multiple_of or 1) == 0
            and (self.max_side is None or longer <= self.max_side)
            and (self.max_ratio is None or longer <= self.max_ratio * shorter)
        )


def _count(least: int | None, most: int | None, noun: str) -> str:
    if most is None:
        phrase = f"at least {least}"
    elif least is None:
        phrase = f"at most {most}"
    else:
        phrase = f"exactly {most}" if least == most else f"{least} to {most}"
    return f"{phrase} {noun}{'' if (most or least) == 1 else 's'}"


def _within(value: Sequence[object], least: int | None, most: int | None) -> bool:
    return (least is None or len(value) >= least) and (most is None or len(value) <= most)
