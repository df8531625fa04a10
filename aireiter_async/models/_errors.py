"""What is wrong with a request, as data and as sentences.

Both errors are raised before any I/O: whoever wrote the request can mend it, and nothing was spent.
"""

import reprlib

import attrs


class _Short(reprlib.Repr):
    """Representations that fit on a line, were it a data URI."""

    def repr_int(self, x: int, level: int) -> str:
        """Spell out no number that Python itself refuses to spell out."""
        if x.bit_length() > 256:  # noqa: PLR2004, far beyond any parameter
            return f"an integer of {x.bit_length()} bits"
        return super().repr_int(x, level)


_SHORT = _Short()
_SHORT.maxstring = _SHORT.maxother = 60
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = 3
short = _SHORT.repr


@attrs.frozen
class Problem:
    """One mistake in one request.

    Attributes:
        param: The parameter as the documentation spells it; an item of an array as ``name[2]``.
        text: What was given and what is allowed, to be read after the parameter's name.
    """

    param: str
    text: str

    def __str__(self) -> str:
        """Read as a clause, without the model's name."""
        return f"{self.param} {self.text}"


class InvalidParamsError(ValueError, TypeError):
    """Report every mistake in the parameters of one request at once.

    It is a ``ValueError`` and a ``TypeError``, because one request can hold both kinds of mistake.

    Attributes:
        model: The model's name, as it would have been submitted.
        problems: One :class:`Problem` for each mistake, in the order of the parameters.
    """

    def __init__(self, model: str, problems: tuple[Problem, ...]) -> None:
        super().__init__(model, problems)
        self.model = model
        self.problems = problems

    def __str__(self) -> str:
        """Give one line for each mistake, with the model and the name."""
        return "\n".join(f"{self.model}: {problem}" for problem in self.problems)


class UnknownModelError(KeyError, ValueError):
    """Report a model that this release's catalogue does not hold.

    It is a ``KeyError``, as for any mapping, and a ``ValueError``, as for any wrong argument.

    Attributes:
        name: What was asked for.
        nearest: The names that look most like it, the best first; may be empty.
    """

    def __init__(self, name: object, nearest: tuple[str, ...]) -> None:
        super().__init__(name, nearest)
        self.name = name
        self.nearest = nearest

    def __str__(self) -> str:
        """Read as a sentence; a ``KeyError`` would show its key."""
        hint = f"; did you mean {' or '.join(self.nearest)}?" if self.nearest else ""
        return f"no model is called {short(self.name)}{hint}"
