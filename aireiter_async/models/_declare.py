"""Build models from annotated classes: their parameters and validation."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import cleandoc
from math import inf
from operator import attrgetter
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    TypeAlias,
    TypeVar,
    Union,
    cast,
    dataclass_transform,
    get_args,
    get_origin,
)

import attrs

from aireiter_async.models._base import Medium, Model, OutputField, Spec
from aireiter_async.models._errors import Problem, conversion_hint, short
from aireiter_async.models._markers import (
    Items,
    Limit,
    Marker,
    Needs,
    OneOf,
    OnlyWhen,
    RequiredWhen,
)
from aireiter_async.models._media import Accepts, BinaryFile, MediaOutput, Url
from aireiter_async.models._rules import Given, Rule, needs, only_when, required_when
from aireiter_async.models._vocabulary import MEANINGS

_Check: TypeAlias = Callable[[Any], Sequence[Problem]]
_Crossing: TypeAlias = tuple[str | None, Rule]  # a rule, and the parameter it needs, if any
_M = TypeVar("_M", bound=Model)

REGISTRY: Final[dict[str, type[Model]]] = {}
_PAGES: Final = "https://docs.aireiter.com/en/api-reference"

Type: TypeAlias = Literal["string", "integer", "number", "boolean", "string[]", "string | string[]"]


@attrs.frozen(kw_only=True)
class Parameter:
    """One parameter of a model, as documented.

    Attributes:
        name: The name, in Python and on the wire.
        type: The type on the wire.
        required: Whether every request must have it.
        doc: Its purpose, in one line.
        limits: The limits in words; empty if any value of the type is allowed.
        allowed: The allowed values, None if not enumerated.
        default: The service's default, None if undocumented.
        minimum: Minimum of a number.
        maximum: Maximum of a number.
        step: The number must be a multiple of this.
        min_length: Minimum number of characters.
        max_length: Maximum number of characters.
        not_blank: Whether blank text is rejected.
        min_items: Minimum number of items of an array.
        max_items: Maximum number of items of an array.
        min_pixels: Minimum area of a size ``WIDTHxHEIGHT``.
        max_pixels: Maximum area of a size.
        multiple_of: Both sides of a size must be multiples of this.
        max_side: Maximum length of a side of a size.
        max_ratio: Maximum ratio of the longer to the shorter side of a size.
        accepts: For media, the accepted forms.
        max_bytes: For media, the maximum size of a data URL.
        required_when: The condition under which it is required.
        only_when: The only condition under which it is allowed.
        needs: The parameter without which it is not allowed.
        deprecated: Whether the current documentation omits it.
    """

    name: str
    type: Type
    required: bool
    doc: str
    limits: str = ""
    allowed: tuple[str, ...] | None = None
    default: str | float | None = None
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None
    min_length: int | None = None
    max_length: int | None = None
    not_blank: bool = False
    min_items: int | None = None
    max_items: int | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None
    multiple_of: int | None = None
    max_side: int | None = None
    max_ratio: int | None = None
    accepts: Accepts | None = None
    max_bytes: int | None = None
    required_when: str | None = None
    only_when: str | None = None
    needs: str | None = None
    deprecated: bool = False

    def __str__(self) -> str:
        words = [self.type, self.limits, "required" if self.required else ""]
        words.append("" if self.default is None else f"default {self.default!r}")
        words.append(f"required with {self.required_when}" if self.required_when else "")
        words.append(f"only with {self.only_when}" if self.only_when else "")
        words.append(f"only with {self.needs}" if self.needs else "")
        words.append("deprecated" if self.deprecated else "")
        return f"{self.doc} ({', '.join(filter(None, words))})."


Parameter.__module__ = "aireiter_async.models"


@attrs.frozen
class _Field:
    """One parameter with everything from its annotation."""

    parameter: Parameter
    limits: tuple[Limit, ...]
    rules: tuple[_Crossing, ...]
    converter: Callable[[Any], Any] | None


_TYPES: Final[Mapping[object, Type]] = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
}


def _read(attribute: "attrs.Attribute[Any]") -> _Field:
    """Build a field from its annotation."""
    name, required = attribute.name, attribute.default is attrs.NOTHING
    kinds, markers = _unfold(attribute.type)
    facts: dict[str, Any] = {"doc": MEANINGS.get(name, "")}
    converter: Callable[[Any], Any] | None = None
    if get_origin(kinds[0]) is Literal:
        markers = (OneOf(get_args(kinds[0])), *markers)
        facts["type"] = "string"
    else:
        facts["type"] = _TYPES[kinds[0]]
    if facts["type"] == "string" and not {int, float}.isdisjoint(kinds):
        converter = _number_as_text
    if any(get_origin(kind) is Sequence for kind in kinds):
        facts["type"] = "string | string[]"
        markers = tuple(
            attrs.evolve(each, many=True) if isinstance(each, Url) else each for each in markers
        )
    # Check the number of items before the items.
    limits = sorted(
        (each for each in markers if isinstance(each, Limit)),
        key=lambda each: not isinstance(each, Items),
    )
    facts["limits"] = ", ".join(limit.phrase for limit in limits)
    for marker in markers:
        facts |= marker.facts()
    if facts["type"].endswith("[]"):
        converter = _array if facts["type"] == "string[]" else _tuple
    parameter = Parameter(name=name, required=required, **facts)
    return _Field(parameter, tuple(limits), tuple(_rules(name, markers)), converter)


def _unfold(annotation: Any) -> tuple[list[Any], tuple[Marker, ...]]:
    """Return the types and the markers of an annotation, outer markers last."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        kinds, markers = _unfold(args[0])
        return kinds, (*markers, *args[1:])
    if origin not in (Union, UnionType):
        return [annotation], ()
    parts = [_unfold(arg) for arg in args if arg is not NoneType]
    return [kind for kinds, _ in parts for kind in kinds], tuple(
        marker for _, markers in parts for marker in markers
    )


@dataclass_transform(kw_only_default=True, frozen_default=True)
def model(
    name: str,
    *,
    medium: Medium,
    doc: str,
    output: OutputField = "url",
    channels: Sequence[str] = (),
    variants: Sequence[str] = (),
    rules: Sequence[Rule] = (),
) -> Callable[[type[_M]], type[_M]]:
    """Decorate a class as a model: frozen, validated, and registered under its names.

    Args:
        name: The model's name.
        medium: The kind of medium that it generates.
        doc: The path of its documentation, below the API reference.
        output: The field of an output item that holds the medium.
        channels: Its channels.
        variants: Other models with the same parameters.
        rules: Constraints between parameters, beyond their annotations.
    """

    def decorate(cls: type[_M]) -> type[_M]:
        fields: list[_Field] = []

        def read(_: type, attributes: list["attrs.Attribute[Any]"]) -> list["attrs.Attribute[Any]"]:
            fields[:] = [_read(each) for each in attributes if each.name != "variant"]
            converters = {each.parameter.name: each.converter for each in fields}
            return [
                each.evolve(converter=converters[each.name]) if converters.get(each.name) else each
                for each in attributes
            ]

        cls = attrs.frozen(cls, kw_only=True, repr=False, eq=False, field_transformer=read)
        cls.MODEL, cls.MEDIUM, cls.OUTPUT, cls.DOC = name, medium, output, f"{_PAGES}/{doc}"
        cls.VARIANTS = (name, *(f"{name}_{channel}" for channel in channels), *variants)
        cls.PARAMETERS = tuple(each.parameter for each in fields)
        cls.RULES = tuple(rules)
        cls.CONSTRAINTS = tuple(cleandoc(rule.__doc__ or "") for rule in rules)
        names = ("variant", *(each.name for each in cls.PARAMETERS))
        media = {
            each.parameter.name: limit
            for each in fields
            for limit in each.limits
            if isinstance(limit, Url)
        }
        values = attrgetter(*names)
        checked = _finder(cls, fields, values)
        cls._spec = Spec(names, values, media, checked)  # pyright: ignore[reportPrivateUsage]
        cls.__doc__ = _documentation(cls)
        cls.__module__ = Model.__module__
        REGISTRY.update(dict.fromkeys(cls.VARIANTS, cls))
        return cls

    return decorate


def _documentation(cls: type[Model]) -> str:
    sections = {
        "Attributes": [f"{each.name}: {each}" for each in cls.PARAMETERS],
        "Constraints": cls.CONSTRAINTS,
    }
    parts = ["\n    ".join([f"{title}:", *lines]) for title, lines in sections.items() if lines]
    return "\n\n".join([cleandoc(str(cls.__doc__)), *parts, f"Documentation: {cls.DOC}\n"])


def _rules(name: str, markers: Iterable[Marker]) -> Iterable[_Crossing]:
    for marker in markers:
        if isinstance(marker, RequiredWhen):
            yield None, required_when(name, marker)
        elif isinstance(marker, OnlyWhen):
            yield name, only_when(name, marker)
        elif isinstance(marker, Needs):
            yield name, needs(name, marker)


# Converters: normalised values are validated, compared and sent.


def _array(value: object) -> object:
    alone = isinstance(value, str | bytes | Path | BinaryFile | MediaOutput)
    return (value,) if alone else _tuple(value)


def _tuple(value: object) -> object:
    if isinstance(value, str | bytes | bytearray) or not isinstance(value, Sequence):
        return value
    return tuple(cast("Sequence[object]", value))


def _number_as_text(value: Any) -> Any:
    """Format a number that is sent as a string; 5.0, as from a data frame, becomes "5"."""
    if type(value) not in (int, float) or not -_LONG < value < _LONG:
        return value
    return str(int(value)) if value == int(value) else str(value)


def _finder(
    cls: type[Model], fields: Sequence[_Field], values: Callable[[Any], tuple[Any, ...]]
) -> Callable[[Any], tuple[Problem, ...]]:
    """Return a function that finds all problems of an instance: a flat loop over closures."""
    variant = _scalar("variant", "string", [OneOf(cls.VARIANTS)])
    checks = [
        ("variant", False, variant),
        *((each.parameter.name, each.parameter.required, _check(each)) for each in fields),
    ]
    crossing = [rule for each in fields for rule in each.rules]
    crossing += [(None, rule) for rule in cls.RULES]
    defaults = {each.name: each.default for each in cls.PARAMETERS}

    def find(instance: Any) -> tuple[Problem, ...]:
        problems: list[Problem] = []
        given = Given(defaults)
        for (name, required, check), value in zip(checks, values(instance), strict=True):
            if value is not None:
                found = check(value)
                if found:
                    problems += found
                    given.wrong.add(name)
                else:
                    given[name] = value
            elif required:
                problems.append(Problem(name, "is required"))
                given.wrong.add(name)
        for concerned, rule in crossing:
            if concerned is None or concerned in given:
                for problem in rule(given):
                    if problem.param not in given.wrong:
                        problems.append(problem)
                        given.wrong.add(problem.param)
        return tuple(problems)

    return find


def _check(each: _Field) -> _Check:
    name, kind = each.parameter.name, each.parameter.type
    if not kind.endswith("[]"):
        return _scalar(name, kind, each.limits)
    counts = [limit for limit in each.limits if isinstance(limit, Items)]
    check_count = _scalar(name, "array", counts)
    check_item = _scalar(name, "string", [limit for limit in each.limits if limit not in counts])

    def check(value: tuple[object, ...] | str) -> Sequence[Problem]:
        if not isinstance(value, tuple):
            return check_item(value)
        problems = list(check_count(value))
        if not problems:
            for index, item in enumerate(value):
                found = check_item(item)
                if found:
                    problems += (Problem(f"{name}[{index}]", each.text) for each in found)
        return problems

    return check


def _scalar(name: str, kind: str, limits: Sequence[Limit]) -> _Check:
    if any(isinstance(limit, Url) for limit in limits):
        kind = "media"
    exact, fits, phrase = _KINDS[kind]
    tests = [(limit.allows, limit) for limit in limits]

    def check(value: Any) -> Sequence[Problem]:
        if type(value) is not exact and not fits(value):
            expected = ", ".join([phrase, *(limit.phrase for limit in limits)])
            hint = conversion_hint(value)
            got = f"{short(value)}; {hint}" if hint else short(value)
            return [Problem(name, f"must be {expected}, got {got}")]
        for allows, limit in tests:
            if not allows(value):
                return [Problem(name, f"must be {limit.phrase}, got {limit.shown(value)}")]
        return ()

    return check


def _is_string(value: object) -> bool:
    return isinstance(value, str)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -inf < value < inf


def _is_nothing_else(_: object) -> bool:
    return False


def _is_anything(_: object) -> bool:
    return True  # Url.allows decides


# For each kind: the type that always fits, a test for other types, and a description.
_KINDS: Final[Mapping[str, tuple[type, Callable[[object], bool], str]]] = {
    "string": (str, _is_string, "a string"),
    "integer": (int, _is_integer, "a whole number"),
    "number": (int, _is_number, "a finite number"),
    "boolean": (bool, _is_nothing_else, "True or False"),
    "media": (str, _is_anything, ""),
    "array": (tuple, _is_nothing_else, "an array"),
}
_LONG: Final = 10**18  # far beyond any parameter, yet short enough to print
