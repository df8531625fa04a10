"""Sweeps: every row of a batch with every combination of values."""

import json
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from difflib import get_close_matches
from itertools import product
from pathlib import Path
from typing import Any, Final, Self

from attrs import field, frozen

from aireiter_async.cli._errors import UsageError
from aireiter_async.cli._params import name_files, parameter_types, parse_json

MODEL: Final = "model"
_NO_AXES: Final = ("out_task_id", "callback_url", "metadata", "params")
# A value and the comma after it; quotes are doubled within quotes.
_VALUE: Final = re.compile(r'[ \t]*(?:"((?:[^"]|"")*)"|((?!")[^,]*))[ \t]*(,|\Z)')


@frozen(kw_only=True)
class Sweep:
    """The combinations of values that each row is run with.

    Attributes:
        axes: The values of each axis, as text: the model, and parameters.
        where_known: Whether a model without the parameter of an axis is used without it.
        checked: Whether such a model is otherwise an error.
        repeat: How often each combination runs.
    """

    axes: Mapping[str, tuple[str, ...]] = field(factory=dict[str, tuple[str, ...]])
    where_known: bool = False
    checked: bool = True
    repeat: int = 1
    _known: dict[Any, Mapping[str, tuple[str, ...]]] = field(
        factory=dict[Any, Mapping[str, tuple[str, ...]]], init=False, eq=False
    )

    @classmethod
    def read(cls, each: Iterable[str], **options: Any) -> Self:
        """Read NAME=VALUE,VALUE; a repeated NAME adds values.

        Raises:
            UsageError: One is malformed, has an empty value, or the same value twice.
        """
        axes: dict[str, dict[str, tuple[str, str]]] = {}
        for text in each:
            name, equals, line = text.partition("=")
            name = name.strip()
            if not name or not equals:
                raise UsageError(f"--each must be NAME=VALUE,VALUE, got {text!r}")
            if name in _NO_AXES:
                raise UsageError(f"--each {name}: only the model and parameters can be varied")
            known = axes.setdefault(name, {})
            for value in _values(name, line):
                key = _key(value)
                if key in known:
                    raise _same_twice(name, known[key], (value, text))
                known[key] = value, text
        values = {name: tuple(v for v, _ in known.values()) for name, known in axes.items()}
        return cls(axes=values, **options)

    def __bool__(self) -> bool:
        return bool(self.axes) or self.repeat > 1

    def check(self, given: Mapping[str, str], models: Collection[str]) -> None:
        """Check the axes against what else is known before the rows are read.

        Args:
            given: Where values come from that all rows share, by name.
            models: Names of models.

        Raises:
            UsageError: An axis has other values already, or one of the models lacks it.
        """
        for name, place in given.items():
            if name in self.axes:
                raise UsageError(f"{place} and --each {name} both set {name}: remove one of them")
        for model in models:
            self.known(model)

    def known(self, model: Any) -> Mapping[str, tuple[str, ...]]:
        """Return the axes other than the model, for rows of *model*.

        Raises:
            UsageError: The model has no such parameter, or a value is a file that is missing.
        """
        if not isinstance(model, str):  # reported with its row
            return {}
        if model not in self._known:
            self._known[model] = dict(self._find_known(model))
        return self._known[model]

    def _find_known(self, model: str) -> Iterator[tuple[str, tuple[str, ...]]]:
        types = parameter_types(model)
        for name, values in self.axes.items():
            if name == MODEL or (types and name not in types and self.where_known):
                continue
            if types and name not in types and self.checked:
                near = get_close_matches(name[:64], types, n=1)
                hint = f"did you mean {near[0]}? Otherwise, " if near else ""
                raise UsageError(
                    f"--each {name}: {model} has no such parameter; "
                    f"{hint}--each-where-known omits it for this model"
                )
            for value in values:
                file = name_files(model, {name: value}, Path())[name]
                if isinstance(file, Path) and not file.is_file():
                    raise UsageError(f"--each {name}: there is no file {file}")
            yield name, values

    def unknown(self, models: Collection[str]) -> str | None:
        """Return an axis that none of *models* has, if any."""
        known = {name for model in models for name in self.known(model)}
        return next((name for name in self.axes if name not in {MODEL, *known}), None)

    def models(self, model: Any) -> tuple[Any, ...]:
        """Return the models of a row whose own is *model*."""
        return self.axes.get(MODEL, (model,))

    def size(self, model: Any) -> int:
        """Return the number of tasks of a row whose own model is *model*."""
        sizes = (math.prod(map(len, self.known(each).values())) for each in self.models(model))
        return sum(sizes) * self.repeat

    def combinations(self, model: Any) -> Iterator[dict[str, str]]:
        """Yield the values for each task of a row whose own model is *model*."""
        for each in self.models(model):
            chosen = {MODEL: each} if MODEL in self.axes else {}
            axes = self.known(each)
            for values in product(*axes.values()):
                for _ in range(self.repeat):
                    yield chosen | dict(zip(axes, values, strict=True))

    def find_conflict(self, row: Iterable[str]) -> str | None:
        """Return the name of an axis that a row sets as well, if any."""
        return next((name for name in row if name in self.axes), None)


def _values(name: str, line: str) -> Iterator[str]:
    if line.splitlines()[1:]:
        raise UsageError(f"--each {name} must be one line, with commas between the values")
    position, separator = 0, ","
    while separator:
        found = _VALUE.match(line, position)
        if found is None:
            raise UsageError(
                f"--each {name} must be one line of CSV, got {line[position:].strip()!r}: "
                'quote a value with a comma as "oil, warm", and double the quotes in it'
            )
        quoted, bare, separator = found.groups()
        value = (bare if quoted is None else quoted.replace('""', '"')).strip()
        if not value:
            raise UsageError(f"--each {name} has an empty value in {line!r}: remove it")
        yield value
        position = found.end()


def _key(text: str) -> str:
    """Return a key that is the same for texts of the same value, such as 1 and 1.0."""
    try:
        value = parse_json(text.lower() if text.lower() in {"true", "false"} else text)
    except ValueError:
        return text
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"\0{json.dumps(value, sort_keys=True)}"


def _same_twice(name: str, first: tuple[str, str], second: tuple[str, str]) -> UsageError:
    (value, place), (again, other) = first, second
    places = dict.fromkeys((f"--each {place}", f"--each {other}"))
    return UsageError(
        f"{' and '.join(places)}: the {name} {value} and the {name} {again} are the same; "
        "to run a request several times, use --repeat"
    )
