"""What every model's class has: facts, a check, a way to the wire.

Cheap to import: the client asks of every request whether it is a :class:`Model`, even where no
model's class is used.
"""

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, TypeVar, dataclass_transform

import attrs
from cattrs import Converter
from cattrs.fns import identity
from cattrs.gen import make_dict_unstructure_fn, override

from aireiter_async.models._errors import InvalidParamsError, Problem, short

if TYPE_CHECKING:
    from aireiter_async.models._parameters import Parameter
    from aireiter_async.models._rules import Rule

_T = TypeVar("_T")


@dataclass_transform(kw_only_default=True, frozen_default=True)
def _frozen(cls: type[_T]) -> type[_T]:
    """Tell checkers what attrs does, in the words of ``_declare.model``."""
    return attrs.frozen(cls, kw_only=True, repr=False)


@_frozen
class Model:
    """A request to one model: checked when it is made, frozen, hashable.

    What is known of the model stands in class attributes in capitals; the fields are its
    parameters, under the names that they have on the wire. A parameter left at None is not sent,
    and the service takes its own default; one that is set is always sent.

    Attributes:
        MODEL: The model's name.
        VARIANTS: All names to submit under, *MODEL* among them: channels, and models that take
            the same parameters.
        MEDIUM: What it makes.
        OUTPUT: Where in an item of the output the medium is found.
        DOC: The page that documents it.
        PARAMETERS: The parameters, in the order of the fields.
        RULES: What is constrained between parameters, beyond what the fields say.
        CONSTRAINTS: The same in words, one sentence for each rule.
        CHECK: Finds every mistake in an instance.
        variant: The name to submit under, one of *VARIANTS*; None: *MODEL*. Not a parameter.

    Raises:
        InvalidParamsError: Something given is not as documented; every mistake is named.
    """

    MODEL: ClassVar[str]
    VARIANTS: ClassVar[tuple[str, ...]]
    MEDIUM: ClassVar[Literal["image", "video", "audio", "text"]]
    OUTPUT: ClassVar[Literal["url", "video", "audio", "file", "text"]] = "url"
    DOC: ClassVar[str]
    PARAMETERS: ClassVar[tuple["Parameter", ...]]
    RULES: ClassVar[tuple["Rule", ...]] = ()
    CONSTRAINTS: ClassVar[tuple[str, ...]]
    CHECK: ClassVar[Callable[[Any], tuple[Problem, ...]]]
    __attrs_attrs__: ClassVar[tuple["attrs.Attribute[Any]", ...]]  # for those who call attrs.evolve

    variant: str | None = None

    def __attrs_post_init__(self) -> None:
        """Refuse mistakes before anything is spent."""
        problems = type(self).CHECK(self)
        if problems:
            known = self.model_name in self.VARIANTS
            raise InvalidParamsError(self.model_name if known else self.MODEL, problems)

    @property
    def model_name(self) -> str:
        """The name to submit."""
        return self.MODEL if self.variant is None else self.variant

    def to_params(self) -> dict[str, Any]:
        """Make ``params`` as on the wire: what was set, and nothing else."""
        hook = _HOOKS.get(type(self)) or _hook(type(self))  # made at first use
        return hook(self)

    def __repr__(self) -> str:
        """Show what was set, each value in a few dozen characters."""
        values = attrs.asdict(self, recurse=False, filter=lambda _, value: value is not None)
        shown = ", ".join(f"{name}={short(value)}" for name, value in values.items())
        return f"{type(self).__name__}({shown})"


_HOOKS: Final[dict[type, Callable[[Any], dict[str, Any]]]] = {}


def _hook(cls: type[Model]) -> Callable[[Any], dict[str, Any]]:
    arrays: dict[str, Callable[[Any], Any]] = {"string[]": list, "string | string[]": _listed}
    overrides: Any = {"variant": override(omit=True)}
    for each in cls.PARAMETERS:
        hook = arrays.get(each.type, identity)
        overrides[each.name] = override(omit_if_default=not each.required, unstruct_hook=hook)
    return _HOOKS.setdefault(cls, make_dict_unstructure_fn(cls, _converter(), **overrides))


@cache
def _converter() -> Converter:
    return Converter()


def _listed(value: str | tuple[str, ...]) -> str | list[str]:
    return value if isinstance(value, str) else list(value)
