"""The base class of all models: facts, validation, and conversion to params.

Cheap to import, since the client checks whether each request is a :class:`Model`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Final,
    Literal,
    TypeAlias,
    TypeVar,
    dataclass_transform,
)

import attrs

from aireiter_async.models._errors import InvalidParamsError, LocalMediaError, Problem, short

if TYPE_CHECKING:
    from aireiter_async.models._declare import Parameter
    from aireiter_async.models._media import LocalMedia, Media, Url
    from aireiter_async.models._rules import Rule

Medium: TypeAlias = Literal["image", "video", "audio", "text"]
OutputField: TypeAlias = Literal["url", "video", "audio", "file", "text"]

_T = TypeVar("_T")
_UNKNOWN: Final = (None, None)


# Equality is inherited from Model, which saves a third of the catalogue's import time. Instances
# have no slots: filling a dictionary is much cheaper.
@dataclass_transform(kw_only_default=True, frozen_default=True)
def shared_fields(cls: type[_T]) -> type[_T]:
    """Declare *cls* as a base whose fields several models share."""
    return attrs.frozen(cls, kw_only=True, repr=False, eq=False, init=False, slots=False)


@attrs.frozen
class Spec:
    """The data that all instances of a class share, built once from its annotations.

    Attributes:
        values: Returns the values of the fields.
        required: The names of the required parameters.
        optional: The names of all other fields.
        arrays: The names of the parameters that may be arrays.
        adapted: The names of the fields that are not sent, or not always as they are.
        media: The media parameters.
        usual: For each field, the exact type of the usual values, and a test of whether such a
            value is valid; None: all are.
        conflicts: Returns the problems between valid parameters; None: there are no rules.
        check: Returns all problems.
    """

    values: Callable[[Any], tuple[Any, ...]]
    required: frozenset[str]
    optional: frozenset[str]
    arrays: tuple[str, ...]
    adapted: tuple[str, ...]
    media: Mapping[str, "Url"]
    usual: Mapping[str, tuple[type, Callable[[Any], bool] | None]]
    conflicts: Callable[[Mapping[str, Any]], Sequence[Problem]] | None
    check: Callable[[Mapping[str, Any]], tuple[Problem, ...]]


@shared_fields
class Model:
    """A request to one model: validated on construction, frozen, hashable.

    Facts about the model are class attributes in capitals; the fields are its parameters, under
    their names on the wire. A parameter that is None is not sent, so that the service's default
    applies; any other is always sent.

    A media parameter takes a public URL, a ``data:`` URL, a ``pathlib.Path``, bytes, an open binary
    file or an :class:`~aireiter_async.Output` of an earlier task. A str is never opened as a file.
    The client reads files when it submits the instance.

    Attributes:
        MODEL: The model's name.
        VARIANTS: All names to submit under, including *MODEL*: channels, and models with the
            same parameters.
        MEDIUM: The kind of medium that it generates.
        OUTPUT: The field of an output item that holds the medium.
        DOC: The URL of its documentation.
        PARAMETERS: The parameters, in the order of the fields.
        RULES: Constraints between parameters, beyond the annotations of the fields.
        CONSTRAINTS: The rules in words, one sentence each.
        variant: The name to submit under, one of *VARIANTS*; None: *MODEL*. Not a parameter.

    Raises:
        InvalidParamsError: Parameters are not as documented; lists every problem.
    """

    MODEL: ClassVar[str]
    VARIANTS: ClassVar[tuple[str, ...]]
    MEDIUM: ClassVar[Medium]
    OUTPUT: ClassVar[OutputField]
    DOC: ClassVar[str]
    PARAMETERS: ClassVar[tuple["Parameter", ...]]
    RULES: ClassVar[tuple["Rule", ...]]
    CONSTRAINTS: ClassVar[tuple[str, ...]]
    __attrs_attrs__: ClassVar[tuple["attrs.Attribute[Any]", ...]]  # for callers of attrs.evolve

    _spec: ClassVar["Spec"]
    __attrs_init__: ClassVar[Callable[..., None]]  # generated; checks names, converts values

    variant: str | None = None

    # An instance's dictionary has only what was given; the rest are class attributes, all None.

    def __init__(self, **params: Any) -> None:
        # Accept plain valid values, that is, nearly all, without the calls of a full check.
        spec = self._spec
        usual = spec.usual
        has_none = False
        for name, value in params.items():
            if value is None and name in spec.optional:
                has_none = True
                continue
            exact, allows = usual.get(name, _UNKNOWN)
            if type(value) is not exact or (allows is not None and not allows(value)):
                break
        else:
            if has_none:
                params = _without_none(params)
            for name in spec.arrays:
                if name in params:
                    params[name] = tuple(params[name])
            if params.keys() >= spec.required and not (spec.conflicts and spec.conflicts(params)):
                self.__dict__.update(params)
                return
        self.__attrs_init__(**params)

    def __attrs_post_init__(self) -> None:
        values = vars(self)
        problems = self._spec.check(values)
        if problems:
            known = self.model_name in self.VARIANTS
            raise InvalidParamsError(self.model_name if known else self.MODEL, problems)
        given = _without_none(values)
        values.clear()
        values.update(given)

    @property
    def model_name(self) -> str:
        """The name to submit."""
        return self.MODEL if self.variant is None else self.variant

    def json_params(self) -> Mapping[str, Any]:
        """Return :meth:`to_params`, or the parameters themselves where they can be sent as is."""
        params = self.__dict__
        for name in self._spec.adapted:
            if name in params:
                return self.to_params()
        return params

    def to_params(self, media: Sequence[str] = ()) -> dict[str, Any]:
        """Return the ``params`` to send: the parameters that are set.

        Args:
            media: One URL or data URL for each of :meth:`local_media`, in the same order.

        Raises:
            ValueError: The number of *media* is wrong.
        """
        spec = self._spec
        params: dict[str, Any] = self.__dict__.copy()
        params.pop("variant", None)
        for name in spec.arrays:
            if type(params.get(name)) is tuple:
                params[name] = [*params[name]]
        local = self.local_media()
        if len(local) != len(media):
            raise LocalMediaError(
                self,
                f"{', '.join(map(str, local)) or 'no parameter'} is a local medium, "
                f"got {len(media)} URLs: submit the instance itself, and the client reads it",
            )
        for each, url in zip(local, media, strict=True):
            if each.index is None:
                params[each.param] = url
            else:
                params[each.param][each.index] = url
        return params

    def local_media(self) -> tuple["LocalMedia", ...]:
        """Return the media that must be converted to URLs before the request is sent."""
        found: list[LocalMedia] = []
        for name, limit in self._spec.media.items():
            value: tuple[Media, ...] | Media = getattr(self, name) or ()
            if isinstance(value, tuple):
                for index, each in enumerate(value):
                    if not isinstance(each, str):
                        found.append(limit.local(name, index, each))
            elif not isinstance(value, str):
                found.append(limit.local(name, None, value))
        return tuple(found)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._spec.values(self) == self._spec.values(other)

    def __hash__(self) -> int:
        return hash(self._spec.values(self))

    def __repr__(self) -> str:
        values = attrs.asdict(self, recurse=False, filter=lambda _, value: value is not None)
        shown = ", ".join(f"{name}={short(value)}" for name, value in values.items())
        return f"{type(self).__name__}({shown})"


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


Model.__module__ = "aireiter_async.models"
