"""What an ``Annotated`` parameter can be marked with, beside its limits.

What a marker holds is found under the same name on :class:`~aireiter_async.models.Parameter`.
"""

from typing import Any

import attrs


@attrs.frozen
class Marker:
    """Something that a declaration says of a parameter."""

    def facts(self) -> dict[str, Any]:
        """Give what is said, by the names that it has on ``Parameter``."""
        return attrs.asdict(self, filter=lambda _, value: value is not None)


@attrs.frozen
class Default(Marker):
    """What the service takes for what is left out; never sent from here."""

    default: str | float


@attrs.frozen
class Deprecated(Marker):
    """No longer on the current page, still accepted here."""

    deprecated: bool = True


@attrs.frozen
class Array(Marker):
    """Always an array on the wire; a lone string is wrapped."""

    def facts(self) -> dict[str, Any]:
        """Tell it by the type."""
        return {"type": "string[]"}


@attrs.frozen
class When(Marker):
    """A case: another parameter has one of some values, be it by default.

    Attributes:
        param: The other parameter.
        values: The values of the case.
    """

    param: str
    values: tuple[str | bool, ...]

    def __str__(self) -> str:
        """Write the case as the documentation does."""
        return f"{self.param}={' or '.join(map(str, self.values))}"


class RequiredWhen(When):
    """Required in this case."""

    __slots__ = ()

    def facts(self) -> dict[str, Any]:
        """Tell the case in words."""
        return {"required_when": str(self)}


class OnlyWhen(When):
    """Not to be given in any other case, but for its default."""

    __slots__ = ()

    def facts(self) -> dict[str, Any]:
        """Tell the case in words."""
        return {"only_when": str(self)}


@attrs.frozen
class Needs(Marker):
    """Not to be given without another parameter, but for its default."""

    needs: str


@attrs.frozen
class Doc(Marker):
    """What the parameter is for, in one line."""

    doc: str
