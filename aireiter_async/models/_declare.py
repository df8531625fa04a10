"""How a class becomes a model: declared, it is checked and found."""

from collections.abc import Sequence
from inspect import cleandoc
from typing import Any, Final, TypeVar, cast, dataclass_transform

import attrs

from aireiter_async.models._base import Model
from aireiter_async.models._checks import finder
from aireiter_async.models._limits import OneOf
from aireiter_async.models._parameters import Parameter, declared

REGISTRY: Final[dict[str, type[Model]]] = {}

_M = TypeVar("_M", bound=Model)


@dataclass_transform(kw_only_default=True, frozen_default=True)
def model(cls: type[_M]) -> type[_M]:
    """Make *cls* a model: frozen, checked, found under its names.

    A class without a ``MODEL`` of its own is a base that others share.
    """
    cls = attrs.frozen(cls, kw_only=True, repr=False, field_transformer=_wrapping)
    if "MODEL" not in vars(cls):
        return cls
    if "VARIANTS" not in vars(cls):
        cls.VARIANTS = (cls.MODEL,)
    variant = Parameter(name="variant", type="string", required=False, doc="The name to submit.")
    declarations = [declared(field) for field in attrs.fields(cls) if field.name != "variant"]
    cls.PARAMETERS = tuple(parameter for parameter, _ in declarations)
    cls.CHECK = finder([(variant, (OneOf(cls.VARIANTS),)), *declarations], cls.RULES)
    cls.CONSTRAINTS = tuple(cleandoc(rule.__doc__) for rule in cls.RULES if rule.__doc__)
    cls.__doc__ = _documentation(cls)
    REGISTRY.update(dict.fromkeys(cls.VARIANTS, cls))
    return cls


def _documentation(cls: type[Model]) -> str:
    sections = {
        "Attributes": [f"{each.name}: {each}" for each in cls.PARAMETERS],
        "Constraints": cls.CONSTRAINTS,
    }
    told = ["\n    ".join([f"{title}:", *lines]) for title, lines in sections.items() if lines]
    return "\n\n".join([cleandoc(str(cls.__doc__)), *told, f"Documentation: {cls.DOC}\n"])


def _wrapping(_: type, fields: list["attrs.Attribute[Any]"]) -> list["attrs.Attribute[Any]"]:
    """Keep arrays as tuples: what was checked is what is sent."""
    converters = {"string[]": _array, "string | string[]": _array_or_string}
    for index, field in enumerate(fields):
        kind = declared(field)[0].type
        if kind in converters:
            fields[index] = field.evolve(converter=converters[kind])
    return fields


def _array(value: object) -> object:
    return (value,) if isinstance(value, str) else _array_or_string(value)


def _array_or_string(value: object) -> object:
    if value is None or isinstance(value, str | bytes | bytearray):
        return value
    return tuple(cast("Sequence[object]", value)) if isinstance(value, Sequence) else value
