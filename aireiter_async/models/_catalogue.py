"""Look up models by name, variant and channel."""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from aireiter_async.models._errors import InvalidParamsError, Problem, UnknownModelError, short

if TYPE_CHECKING:
    from aireiter_async.models._base import Model
    from aireiter_async.models._declare import Parameter

FAMILIES: Final = (
    "audio",
    "gpt",
    "happyhorse",
    "images",
    "kling",
    "midjourney",
    "seedance",
    "seedream",
    "videos",
)
CHANNELS: Final = ("base", "plus", "advanced", "max")


@cache
def load() -> Mapping[str, type["Model"]]:
    """Import the model classes; blocks for about 0.1 seconds the first time.

    All functions here call it when needed. Call it on startup or in a thread if your event loop
    must not block later.

    Returns:
        The class of each model, by name and by variant.
    """
    for family in FAMILIES:
        import_module(f"aireiter_async.models.{family}")
    registry: dict[str, type[Model]] = import_module("aireiter_async.models._declare").REGISTRY
    return MappingProxyType(registry)


def loaded() -> bool:
    """Return whether the model classes have been imported, without importing them."""
    return load.cache_info().currsize > 0


def _find(name: str) -> type["Model"]:
    models = load()
    if name in models:
        return models[name]
    raise UnknownModelError(name, tuple(_get_close_matches(str(name)[:64].lower(), models)))


def build(model: str, params: Mapping[str, Any]) -> "Model":
    """Build a validated instance from a name and a mapping.

    Args:
        model: A model's name or one of its variants, under which it will be submitted.
        params: The parameters, as on the wire or with local media; None values are not sent.

    Raises:
        UnknownModelError: This release does not know the model.
        InvalidParamsError: Params are missing, unknown or not as documented; lists every problem.
        TypeError: *params* is not a mapping.
    """
    _require_mapping(model, params)
    cls = _find(model)
    known = {parameter.name: parameter for parameter in cls.PARAMETERS}
    unknown = [_unknown(name, tuple(known)) for name in params if name not in known]
    values: dict[str, Any] = dict.fromkeys(name for name in known if known[name].required)
    values |= {name: value for name, value in params.items() if name in known}
    try:
        instance = cls(variant=None if model == cls.MODEL else model, **values)
    except InvalidParamsError as error:
        raise InvalidParamsError(model, (*unknown, *error.problems)) from None
    if unknown:
        raise InvalidParamsError(model, tuple(unknown))
    return instance


def _get_close_matches(word: str, known: Iterable[str], n: int = 3) -> list[str]:
    from difflib import get_close_matches  # noqa: PLC0415 - for errors only

    return get_close_matches(word, list(known), n)


def _require_mapping(model: str, params: object) -> None:
    if not isinstance(params, Mapping):
        raise TypeError(f"the parameters of {model} must be a mapping, got {short(params)}")


def _unknown(name: object, known: Sequence[str]) -> Problem:
    shown = name if isinstance(name, str) and re.fullmatch(r"\w{1,60}", name) else short(name)
    nearest = _get_close_matches(shown.lower(), known, n=1)
    hint = f"did you mean {nearest[0]}?" if nearest else f"it takes {', '.join(known)}"
    return Problem(shown, f"is not a parameter of this model; {hint}")


def with_channel(model_name: str, channel: str) -> str:
    """Return the name of a model on one of its channels.

    A model that this release does not know may use any documented channel.

    Args:
        model_name: The name, without a channel or already with this one.
        channel: "base", "plus", "advanced" or "max".

    Raises:
        ValueError: The model does not have the channel, or its name already has another one.
    """
    if channel not in CHANNELS:
        raise ValueError(f"channel must be one of {', '.join(CHANNELS)}, got {short(channel)}")
    present = model_name.rpartition("_")[2]
    if present in CHANNELS:
        if present == channel:
            return model_name
        raise ValueError(f"{model_name} already names a channel, got {channel} as well")
    models = load()
    if model_name not in models:
        return f"{model_name}_{channel}"
    variants = models[model_name].VARIANTS
    if f"{model_name}_{channel}" in variants:
        return f"{model_name}_{channel}"
    has = ", ".join(each for each in CHANNELS if f"{model_name}_{each}" in variants)
    raise ValueError(f"{model_name} has no channel {channel}; it has {has or 'none'}")


def describe(model: str) -> tuple["Parameter", ...]:
    """Return the documented parameters of a model.

    Raises:
        UnknownModelError: This release does not know the model.
    """
    return _find(model).PARAMETERS


def example(model: str) -> dict[str, Any]:
    """Return the params of a small valid request, as a starting point.

    Raises:
        UnknownModelError: This release does not know the model.
    """
    samples = import_module("aireiter_async.models._vocabulary").SAMPLES
    params: dict[str, Any] = {}
    for each in describe(model):
        if each.required or each.name == "prompt":
            sample = each.default or (each.allowed[0] if each.allowed else samples[each.name])
            params[each.name] = [sample] if each.type == "string[]" else sample
    return params
