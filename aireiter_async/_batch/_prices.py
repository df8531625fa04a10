"""Kinds of tasks: a model and those of its parameters that may affect the price."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from aireiter_async import models
from aireiter_async.models._base import Model

# Durations, sizes and counts, by their names in the catalogue.
_QUANTITY: Final = re.compile(r"length|duration|size|width|height|count|_n$|_s$")
_UNPRICED: Final = frozenset({"seed", "prompt", "negative_prompt", "text", "lyrics", "title"})
_URL: Final = re.compile(r"(https?|data):", re.IGNORECASE)
_MAX_NUMBER: Final = 1e300  # floats end soon after it, ints do not
_MAX_WORD: Final = 40  # characters: longer strings are prose


def price_kind(model: str, params: Mapping[str, Any] | Model) -> str:
    """Return a readable name for the kind of a task: tasks of one kind should cost the same.

    For a model in the catalogue, the kind includes its enumerated, boolean, duration, size and
    count parameters; for any other, everything but seeds, texts and URLs.
    """
    cls = type(params) if isinstance(params, Model) else models.MODELS.get(model)
    values: Mapping[str, Any]
    if cls is None:
        assert not isinstance(params, Model)  # noqa: S101 - for the type checker
        values = params
    elif isinstance(params, Model):
        values = {name: getattr(params, name) for name in _priced(cls)}
    else:
        values = {name: params[name] for name in _priced(cls) if name in params}
    words = sorted(word for name, value in values.items() for word in _words(name, value))
    return f"{model} ({', '.join(words)})" if words else model


def _priced(cls: type[Model]) -> tuple[str, ...]:
    return tuple(
        parameter.name
        for parameter in cls.PARAMETERS
        if parameter.allowed is not None
        or parameter.type == "boolean"
        or (parameter.accepts is None and _QUANTITY.search(parameter.name))
    )


def _words(name: str, value: Any) -> Iterator[str]:
    match value:
        case None:
            return
        case bool():
            yield f"{name}={str(value).lower()}"
        case int() | float():
            if name not in _UNPRICED:
                # 5 and 5.0 cost the same, and so does "5".
                yield f"{name}={value:g}" if abs(value) < _MAX_NUMBER else f"{name} huge"
        case str():
            if name not in _UNPRICED and len(value) <= _MAX_WORD and not _URL.match(value):
                yield f"{name}={value}"
        case Mapping():
            for key, each in value.items():
                yield from _words(key, each)
        case _:
            for each in value:
                yield from _words(name, each)
