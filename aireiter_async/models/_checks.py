"""From declarations to one function that finds every mistake.

It is made once for each class; what runs for each instance is a flat loop over closures.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf
from operator import attrgetter
from typing import Any, Final, TypeAlias

from aireiter_async.models._errors import Problem, short
from aireiter_async.models._limits import Items, Limit
from aireiter_async.models._markers import Marker, Needs, OnlyWhen, RequiredWhen
from aireiter_async.models._parameters import Declared, Parameter
from aireiter_async.models._rules import Given, Rule, needs, only_when, required_when

Check: TypeAlias = Callable[[Any], Sequence[Problem]]
Find: TypeAlias = Callable[[Any], tuple[Problem, ...]]


def finder(declarations: Sequence[Declared], rules: Iterable[Rule]) -> Find:
    """Make the function that finds every mistake in an instance.

    Args:
        declarations: The fields of the class, at least two.
        rules: What the class constrains between its parameters, beyond the markers of each.
    """
    fields = [(each.name, each.required, _check(each, markers)) for each, markers in declarations]
    crossing = [*_cases(declarations), *((None, rule) for rule in rules)]
    defaults = {each.name: each.default for each, _ in declarations}
    values_of = attrgetter(*defaults)

    def find(instance: Any) -> tuple[Problem, ...]:
        problems: list[Problem] = []
        given = Given(defaults)
        for (name, required, check), value in zip(fields, values_of(instance), strict=True):
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


def _cases(declarations: Iterable[Declared]) -> Iterable[tuple[str | None, Rule]]:
    """Give the rules of markers, each with the parameter it hangs on."""
    for parameter, markers in declarations:
        for marker in markers:
            if isinstance(marker, RequiredWhen):
                yield None, required_when(parameter.name, marker)
            elif isinstance(marker, OnlyWhen):
                yield parameter.name, only_when(parameter.name, marker)
            elif isinstance(marker, Needs):
                yield parameter.name, needs(parameter.name, marker)


def _check(parameter: Parameter, markers: Iterable[Marker]) -> Check:
    limits = [marker for marker in markers if isinstance(marker, Limit)]
    if not parameter.type.endswith("[]"):
        return _scalar(parameter.name, parameter.type, limits)
    counts = [limit for limit in limits if isinstance(limit, Items)]
    return _array(parameter.name, counts, [limit for limit in limits if limit not in counts])


def _scalar(name: str, kind: str, limits: Sequence[Limit]) -> Check:
    exact, fits, phrase = _KINDS[kind]
    tests = [(limit.allows, limit) for limit in limits]

    def check(value: Any) -> Sequence[Problem]:
        if type(value) is not exact and not fits(value):
            expected = ", ".join([phrase, *(limit.phrase for limit in limits)])
            return [Problem(name, f"must be {expected}, not {short(value)}")]
        for allows, limit in tests:
            if not allows(value):
                return [Problem(name, f"must be {limit.phrase}, not {limit.shown(value)}")]
        return ()

    return check


def _array(name: str, counts: Sequence[Limit], limits: Sequence[Limit]) -> Check:
    check_count = _scalar(name, "array", counts)
    check_item = _scalar(name, "string", limits)

    def check(value: Any) -> Sequence[Problem]:
        items = (value,) if isinstance(value, str) else value
        problems = list(check_count(items))
        if not problems:
            for index, item in enumerate(items):
                found = check_item(item)
                if found:
                    problems += (Problem(f"{name}[{index}]", each.text) for each in found)
        return problems

    return check


def _is_string(value: object) -> bool:
    return isinstance(value, str)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -inf < value < inf


def _is_nothing_else(_: object) -> bool:
    return False


# For each kind: the type that needs no further look, a look at anything else, and words.
_KINDS: Final[Mapping[str, tuple[type, Callable[[object], bool], str]]] = {
    "string": (str, _is_string, "a string"),
    "integer": (int, _is_integer, "a whole number"),
    "number": (int, _is_number, "a finite number"),
    "boolean": (bool, _is_nothing_else, "True or False"),
    "array": (tuple, _is_nothing_else, "a string or an array of strings"),
}
