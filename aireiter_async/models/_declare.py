"""Build models from annotated classes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import Signature, cleandoc, signature
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
from aireiter_async.models._checks import Check, Crossing, conflict_finder, problem_finder
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
from aireiter_async.models._rules import Rule, needs, only_when, required_when
from aireiter_async.models._vocabulary import MEANINGS

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
    rules: tuple[Crossing, ...]
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

        cls = attrs.frozen(
            cls,
            kw_only=True,
            repr=False,
            eq=False,
            init=False,
            slots=False,
            field_transformer=read,
        )
        cls.MODEL, cls.MEDIUM, cls.OUTPUT, cls.DOC = name, medium, output, f"{_PAGES}/{doc}"
        cls.VARIANTS = (name, *(f"{name}_{channel}" for channel in channels), *variants)
        cls.PARAMETERS = tuple(each.parameter for each in fields)
        cls.RULES = tuple(rules)
        cls.CONSTRAINTS = tuple(cleandoc(rule.__doc__ or "") for rule in rules)
        _complete(cls, fields)
        cls.__doc__ = _documentation(cls)
        cls.__module__ = Model.__module__
        REGISTRY.update(dict.fromkeys(cls.VARIANTS, cls))
        return cls

    return decorate


def _complete(cls: type[Model], fields: Sequence[_Field]) -> None:
    """Set what a class of fields needs beyond what attrs makes: `Spec`, defaults, signature."""
    parameters = cls.PARAMETERS
    checks = [Check(each.parameter.name, each.parameter.type, each.limits) for each in fields]
    checks.insert(0, Check("variant", "string", [OneOf(cls.VARIANTS)]))
    crossing = [rule for each in fields for rule in each.rules]
    crossing += [(None, rule) for rule in cls.RULES]
    defaults = {each.name: each.default for each in parameters}
    names = ("variant", *defaults)
    required = frozenset(each.name for each in parameters if each.required)
    optional = frozenset(names) - required
    arrays = [each.name for each in parameters if each.type.endswith("[]")]
    media = {
        each.parameter.name: limit
        for each in fields
        for limit in each.limits
        if isinstance(limit, Url)
    }
    cls._spec = Spec(  # pyright: ignore[reportPrivateUsage]
        values=attrgetter(*names),
        required=required,
        optional=optional,
        arrays=tuple(arrays),
        adapted=("variant", *dict.fromkeys([*arrays, *media])),
        media=media,
        usual={each.name: each.usual() for each in checks},
        conflicts=conflict_finder(crossing, defaults) if crossing else None,
        check=problem_finder(checks, required, crossing, defaults),
    )
    for name in optional:
        setattr(cls, name, None)
    made: Any = vars(cls)["__attrs_init__"]
    made.__qualname__ = f"{cls.__name__}.__init__"  # in the texts of errors
    _, *arguments = signature(made).parameters.values()
    vars_of: Any = cls
    vars_of.__signature__ = Signature(arguments)


def _documentation(cls: type[Model]) -> str:
    sections = {
        "Attributes": [f"{each.name}: {each}" for each in cls.PARAMETERS],
        "Constraints": cls.CONSTRAINTS,
    }
    parts = ["\n    ".join([f"{title}:", *lines]) for title, lines in sections.items() if lines]
    return "\n\n".join([cleandoc(str(cls.__doc__)), *parts, f"Documentation: {cls.DOC}\n"])


def _rules(name: str, markers: Iterable[Marker]) -> Iterable[Crossing]:
    for marker in markers:
        if isinstance(marker, RequiredWhen):
            yield None, required_when(name, marker)
        elif isinstance(marker, OnlyWhen):
            yield name, only_when(name, marker)
        elif isinstance(marker, Needs):
            yield name, needs(name, marker)


# Converters: normalised values are validated, compared and sent.


def _array(value: object) -> object:
    if value is None or isinstance(value, list | tuple):  # protocols are slow to check
        return _tuple(cast("object", value))
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


_LONG: Final = 10**18  # far beyond any parameter, yet short enough to print
