"""Limits: what one value must be like, checked and said in words."""

import re
from abc import ABC, abstractmethod
from difflib import get_close_matches
from typing import Any

import attrs

from aireiter_async.models._errors import short
from aireiter_async.models._markers import Marker

_NUMBER = re.compile(r"[0-9]{1,18}(\.[0-9]{1,18})?")


class Limit(Marker, ABC):
    """What one value must be like."""

    __slots__ = ()

    @property
    @abstractmethod
    def phrase(self) -> str:
        """What is allowed, to be read after "must be"."""

    @abstractmethod
    def allows(self, value: Any, /) -> bool:
        """Tell whether *value*, of the parameter's type, is allowed."""

    def shown(self, value: Any, /) -> str:
        """Show a refused value in few characters."""
        return short(value)


@attrs.frozen
class OneOf(Limit):
    """One of some words; what a ``Literal`` says."""

    allowed: tuple[str, ...]
    _known: frozenset[str] = attrs.field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        """Keep the words where they are found at once."""
        object.__setattr__(self, "_known", frozenset(self.allowed))

    @property
    def phrase(self) -> str:
        """List them."""
        return f"one of {', '.join(map(repr, self.allowed))}"

    def allows(self, value: str, /) -> bool:
        """Look it up."""
        return value in self._known

    def shown(self, value: str, /) -> str:
        """Offer the word that looks most like it, if there is one."""
        words = {word.lower(): word for word in self.allowed}
        nearest = get_close_matches(value[:64].lower(), words, n=1, cutoff=0.7)
        return short(value) + (f"; did you mean {words[nearest[0]]!r}?" if nearest else "")

    def facts(self) -> dict[str, Any]:
        """Leave the order as it was declared."""
        return {"allowed": self.allowed}


@attrs.frozen
class Range(Limit):
    """A number between two others, both included."""

    minimum: float
    maximum: float | None = None

    @property
    def phrase(self) -> str:
        """Name the ends."""
        if self.maximum is None:
            return f"at least {self.minimum}"
        return f"from {self.minimum} to {self.maximum}"

    def allows(self, value: float, /) -> bool:
        """Compare."""
        return value >= self.minimum and (self.maximum is None or value <= self.maximum)


@attrs.frozen
class Step(Limit):
    """A multiple of a step, as near as binary fractions come to it."""

    step: float

    @property
    def phrase(self) -> str:
        """Name the step."""
        return "whole" if self.step == 1 else f"a multiple of {self.step}"

    def allows(self, value: float, /) -> bool:
        """Divide and look at what is left."""
        steps = value / self.step
        return abs(steps - round(steps)) < 1e-9  # noqa: PLR2004, far above any rounding error


@attrs.frozen
class NumberAsText(Limit):
    """A number that travels as text."""

    minimum: float

    @property
    def phrase(self) -> str:
        """Name the least, and that it is text."""
        return f"a number of at least {self.minimum} written as text, such as '120'"

    def allows(self, value: str, /) -> bool:
        """Read the number."""
        return _NUMBER.fullmatch(value) is not None and float(value) >= self.minimum


@attrs.frozen
class Length(Limit):
    """Text of so many characters."""

    max_length: int | None = None
    min_length: int | None = None

    @property
    def phrase(self) -> str:
        """Name the ends."""
        return f"{_count(self.min_length, self.max_length, 'character')} long"

    def allows(self, value: str, /) -> bool:
        """Count."""
        return _within(len(value), self.min_length, self.max_length)

    def shown(self, value: str, /) -> str:
        """Show the length: the text would not fit."""
        return str(len(value))


@attrs.frozen
class NotBlank(Limit):
    """Text of which something is left when it is trimmed."""

    not_blank: bool = True

    @property
    def phrase(self) -> str:
        """Say so."""
        return "more than blanks"

    def allows(self, value: str, /) -> bool:
        """Trim."""
        return value != "" and not value.isspace()


@attrs.frozen
class Items(Limit):
    """An array of so many items; a lone string counts as one."""

    max_items: int | None = None
    min_items: int | None = None

    @property
    def phrase(self) -> str:
        """Name the ends."""
        return _count(self.min_items, self.max_items, "item")

    def allows(self, value: tuple[str, ...], /) -> bool:
        """Count."""
        return _within(len(value), self.min_items, self.max_items)

    def shown(self, value: tuple[str, ...], /) -> str:
        """Show the count."""
        return str(len(value))


def _count(least: int | None, most: int | None, noun: str) -> str:
    if most is None:
        phrase = f"at least {least}"
    elif least is None:
        phrase = f"at most {most}"
    else:
        phrase = f"exactly {most}" if least == most else f"{least} to {most}"
    return f"{phrase} {noun}{'' if (most or least) == 1 else 's'}"


def _within(count: int, least: int | None, most: int | None) -> bool:
    return (least is None or count >= least) and (most is None or count <= most)
