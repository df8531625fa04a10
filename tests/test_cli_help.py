"""The command's own texts: help and examples."""

import inspect
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from aireiter_async.cli._app import _app
from aireiter_async.testing import FakeService
from tests.command import PNG, Ran

Run = Callable[..., Ran]
COMMANDS = [name for name in _app if not name.startswith("-")]


def examples(name: str) -> list[str]:
    """Return the commands in the help of a command, each in a paragraph of its own."""
    text = inspect.cleandoc(_app[name].help).partition("\nArgs:")[0]
    return re.findall(r"^[A-Z][\w ]+: (aireiter .+)$", text, re.MULTILINE)


@pytest.fixture
def workplace(served: FakeService, aireiter: Run) -> FakeService:
    """Prepare what the examples name: a photo, a file of prompts, a ledger, a task."""
    Path("photo.jpg").write_bytes(PNG)
    Path("prompts.csv").write_text("prompt\na heron\nan owl\n", encoding="utf-8")
    assert aireiter("batch", "prompts.csv", "-m", "nano_banana_v2").status == 0
    assert aireiter("submit", "nano_banana_v2", "prompt=a cat", "--id", "order-17").status == 0
    return served


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_of_a_command_work(workplace: FakeService, aireiter: Run, name: str) -> None:
    del workplace
    commands = examples(name)
    assert commands
    for command in commands:
        program, verb, *argv = shlex.split(command)
        assert (program, verb) == ("aireiter", name)
        ran = aireiter(verb, *argv)
        assert ran.status == 0, ran.err
        assert ran.out


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_fits_the_terminal(
    aireiter: Run, monkeypatch: pytest.MonkeyPatch, name: str, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    ran = aireiter(*filter(None, [name]), "--help")
    assert (ran.status, ran.err) == (0, "")
    assert max(map(len, ran.out.splitlines())) <= width
    assert "…" not in ran.out  # nothing is cut off
    words = " ".join(ran.out.replace("│", " ").split())
    for example in examples(name) if name else []:
        assert example in words
