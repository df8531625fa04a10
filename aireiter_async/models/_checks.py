"""Validate the parameters of one request: each by itself, then the rules between them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf
from typing import Any, Final, TypeAlias

from aireiter_async.models._errors import Problem, conversion_hint, short
from aireiter_async.models._markers import Items, Limit, OneOf
from aireiter_async.models._media import Url
from aireiter_async.models._rules import Given, Rule

Crossing: TypeAlias = tuple[str | None, Rule]  # a rule, and the parameter it needs, if any
_Find: TypeAlias = Callable[[Any], Sequence[Problem]]


class Check:
    """The check of one parameter.

    Args:
        name: The name of the parameter.
        kind: Its type on the wire.
        limits: The limits of its values.
    """

    def __init__(self, name: str, kind: str, limits: Sequence[Limit]) -> None:
        self.name = name
        self._array = kind.endswith("[]")
        media = any(isinstance(limit, Url) for limit in limits)
        self._kind = "media" if media else "string" if self._array else kind
        self._counts = [limit for limit in limits if isinstance(limit, Items)]
        self._limits = [limit for limit in limits if not isinstance(limit, Items)]

    def problem_finder(self) -> _Find:
        """Return a function that finds all problems of a value."""
        name = self.name
        check_item = _scalar(name, self._kind, self._limits)
        if not self._array:
            return check_item
        check_count = _scalar(name, "array", self._counts)

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

    def usual(self) -> tuple[type, Callable[[Any], bool] | None]:
        """Return the type of the usual values, and a test of whether one is valid."""
        if not self._array:
            exact, _, _ = _KINDS[self._kind]
            return exact, _every(self._limits)
        fits, counts = _every(self._limits), _every(self._counts)

        def allows(value: list[object]) -> bool:
            return (counts is None or counts(value)) and all(
                type(item) is str and (fits is None or fits(item)) for item in value
            )

        return list, allows


def _every(limits: Sequence[Limit]) -> Callable[[Any], bool] | None:
    """Return a test of whether a value is within all *limits*; None: all are."""
    # Calling a method of a built-in type is much cheaper than calling one of ours.
    tests = [
        each.allowed.__contains__ if isinstance(each, OneOf) else each.allows for each in limits
    ]
    if len(tests) > 1:
        return lambda value: all(test(value) for test in tests)
    return tests[0] if tests else None


def problem_finder(
    checks: Iterable[Check],
    required: frozenset[str],
    crossing: Sequence[Crossing],
    defaults: Mapping[str, Any],
) -> Callable[[Mapping[str, Any]], tuple[Problem, ...]]:
    """Return a function that finds all problems of the values of a request."""
    finders = [(each.name, each.problem_finder()) for each in checks]

    def find(values: Mapping[str, Any]) -> tuple[Problem, ...]:
        problems: list[Problem] = []
        given = Given(defaults)
        for name, check in finders:
            value = values[name]
            if value is not None:
                found = check(value)
                if found:
                    problems += found
                    given.wrong.add(name)
                else:
                    given[name] = value
            elif name in required:
                problems.append(Problem(name, "is required"))
                given.wrong.add(name)
        return (*problems, *_conflicts(crossing, given))

    return find


def conflict_finder(
    crossing: Sequence[Crossing], defaults: Mapping[str, Any]
) -> Callable[[Mapping[str, Any]], Sequence[Problem]]:
    """Return a function that finds the conflicts between values that are valid by themselves."""

    def find(values: Mapping[str, Any]) -> Sequence[Problem]:
        given = Given(defaults)
        given.update(values)
        return _conflicts(crossing, given)

    return find


def _conflicts(crossing: Sequence[Crossing], given: Given) -> Sequence[Problem]:
    problems: list[Problem] = []
    for concerned, rule in crossing:
        if concerned is None or concerned in given:
            for problem in rule(given):
                if problem.param not in given.wrong:
                    problems.append(problem)
                    given.wrong.add(problem.param)
    return problems


def _scalar(name: str, kind: str, limits: Sequence[Limit]) -> _Find:
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
