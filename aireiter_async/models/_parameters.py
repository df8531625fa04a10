"""From the annotation of a field to what is known of a parameter."""

from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, TypeAlias, Union, get_args, get_origin

import attrs

from aireiter_async.models._limits import Items, Limit, OneOf
from aireiter_async.models._markers import Marker
from aireiter_async.models._vocabulary import MEANINGS

Type: TypeAlias = Literal["string", "integer", "number", "boolean", "string[]", "string | string[]"]


@attrs.frozen(kw_only=True)
class Parameter:
    """One parameter of a model, as documented.

    Attributes:
        name: The name, in Python and on the wire.
        type: The type on the wire.
        required: Whether no request is complete without it.
        doc: What it is for, in one line.
        limits: What is allowed, in words; empty: whatever has the type.
        allowed: The only values allowed; None: no such list.
        default: What the service takes where it is left out; None: not documented.
        minimum: The least number.
        maximum: The greatest number.
        step: What the number must be a multiple of.
        min_length: The least number of characters.
        max_length: The greatest number of characters.
        not_blank: Whether something must be left after trimming.
        min_items: The least number of items of an array.
        max_items: The greatest number of items of an array.
        min_pixels: The least area of a size ``WIDTHxHEIGHT``.
        max_pixels: The greatest area of a size.
        multiple_of: What both sides of a size must be multiples of.
        max_side: The longest side of a size.
        max_ratio: How often the short side of a size may fit into the long one.
        accepts: For media, the forms in which they can be given.
        max_bytes: For media inside the value itself, the greatest size once decoded.
        required_when: The case in which it is required.
        only_when: The only case in which it can be given.
        needs: The parameter without which it cannot be given.
        deprecated: Whether it is gone from the current documentation.
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
    accepts: str | None = None
    max_bytes: int | None = None
    required_when: str | None = None
    only_when: str | None = None
    needs: str | None = None
    deprecated: bool = False

    def __str__(self) -> str:
        """Tell in one line what it is for and what it may be."""
        words = [self.type, self.limits, "required" if self.required else ""]
        words.append("" if self.default is None else f"default {self.default!r}")
        words.append(f"required with {self.required_when}" if self.required_when else "")
        words.append(f"only with {self.only_when}" if self.only_when else "")
        words.append(f"only with {self.needs}" if self.needs else "")
        words.append("deprecated" if self.deprecated else "")
        return f"{self.doc} ({', '.join(filter(None, words))})."


Declared: TypeAlias = tuple[Parameter, tuple[Marker, ...]]

_TYPES: Final[Mapping[object, Type]] = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
}


def declared(attribute: "attrs.Attribute[Any]") -> Declared:
    """Read what the annotation of one field says."""
    kinds, markers = _unfold(attribute.type)
    facts: dict[str, Any] = {"doc": MEANINGS.get(attribute.name, "")}
    if get_origin(kinds[0]) is Literal:
        facts["type"] = "string"
        markers = (OneOf(get_args(kinds[0])), *markers)
    else:
        facts["type"] = _TYPES[kinds[0]] if len(kinds) == 1 else "string | string[]"
    limits = [each for each in markers if isinstance(each, Limit)]
    limits.sort(key=lambda each: not isinstance(each, Items))  # first how many, then what each is
    facts["limits"] = ", ".join(limit.phrase for limit in limits)
    for marker in markers:
        facts |= marker.facts()
    required = attribute.default is attrs.NOTHING
    return Parameter(name=attribute.name, required=required, **facts), markers


def _unfold(annotation: Any) -> tuple[list[Any], tuple[Marker, ...]]:
    """Take types and markers out of an annotation, outer ones last."""
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
