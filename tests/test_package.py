"""The package as a whole: its names, their docstrings, its examples, what it ships and imports."""

import inspect
import json
import pickle
import re
import subprocess
import sys
import textwrap
import tomllib
from importlib import resources
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import aireiter_async
from aireiter_async import errors
from aireiter_async._tasks import Task, TaskStatus
from aireiter_async.models._catalogue import FAMILIES
from tests.smoke import CHECKS

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def run(script: str) -> str:
    """Return what a script prints in an interpreter of its own, without a warning."""
    done = subprocess.run(  # noqa: S603 - our own script
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return done.stdout


def public(module: ModuleType) -> set[str]:
    """Return the names that a module gives without an underscore, other modules aside."""
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }


def documented(thing: Any, path: str) -> dict[str, bool]:
    """Tell of a class or function, and of all that is public in it, whether it has a docstring."""
    told = {path: bool(inspect.getdoc(thing))}
    for name, value in vars(thing).items() if isinstance(thing, type) else ():
        if name.startswith("_") and name != "__call__":
            continue
        if callable(value) or isinstance(value, property | classmethod | staticmethod):
            told[f"{path}.{name}"] = bool(inspect.getdoc(getattr(thing, name)))
    return told


def test_all_names_are_listed_and_sorted() -> None:
    """``__all__`` is what can be imported, in order."""
    assert aireiter_async.__all__ == sorted(aireiter_async.__all__)
    modules, special = {"errors", "events", "models"}, {"__version__"}
    assert all(hasattr(aireiter_async, name) for name in aireiter_async.__all__)
    its_own = {"TYPE_CHECKING", "Any", "import_module"}
    assert set(aireiter_async.__all__) == (public(aireiter_async) | modules | special) - its_own
    assert all(isinstance(getattr(aireiter_async, name), ModuleType) for name in modules)
    assert set(aireiter_async.__all__) <= set(dir(aireiter_async))


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    """Names that are imported later are imported by name, and by no other."""
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = aireiter_async.nothing  # type: ignore[attr-defined]


def test_all_errors_are_listed_and_sorted() -> None:
    """The errors' ``__all__`` are the errors, and the package gives each of them."""
    declared = {
        name for name in public(errors) if getattr(errors, name).__module__ == errors.__name__
    }
    assert errors.__all__ == sorted(declared)
    kinds = declared - {"http_status"}
    assert kinds <= set(aireiter_async.__all__)
    assert all(getattr(aireiter_async, name) is getattr(errors, name) for name in kinds)


@pytest.mark.parametrize("name", sorted(public(aireiter_async) - {"Outcome"}))  # a union
def test_everything_public_is_documented(name: str) -> None:
    """Each class and function has a docstring, and so has each method and property of a class."""
    told = documented(getattr(aireiter_async, name), name)
    assert [path for path, has in told.items() if not has] == []


@pytest.mark.parametrize("name", sorted({*errors.__all__} - {"http_status"}))
def test_every_error_pickles(name: str) -> None:
    """An error passes between processes, whatever its class."""
    kind = getattr(errors, name)
    fields = inspect.signature(kind).parameters
    values = {"code": 429, "status": 200, "task": Task("a", TaskStatus.FAILED), "retry_after": 1.5}
    error = kind(**{field: values.get(field, "text") for field in fields})
    back = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own pickle
    assert (type(back), vars(back), str(back)) == (kind, vars(error), str(error))


def test_the_types_are_shipped() -> None:
    """A type checker finds ``py.typed`` in the package."""
    assert (resources.files(aireiter_async) / "py.typed").is_file()


def test_the_import_is_light() -> None:
    """Importing the package imports only what nearly everybody uses."""
    imported = set(run("import sys, aireiter_async; print(*sys.modules, sep='\\n')").split())
    assert "aireiter_async._client" in imported
    rooms = {f"aireiter_async.models.{room}" for room in (*FAMILIES, "_declare", "_checks")}
    unwanted = {"sqlite3", "aireiter_async._batch", "aireiter_async._ledger"}
    unwanted |= {"aireiter_async.cli", "aireiter_async.testing", "cyclopts", "rich"}
    unwanted |= {"aireiter_async._media", "aireiter_async.models._media", "decimal", "difflib"}
    assert imported & (rooms | unwanted) == set()


def test_a_batch_without_a_ledger_does_not_import_sqlite() -> None:
    """The first batch of a process imports in the event loop, so it must import little."""
    script = """
        import sys
        import aireiter_async
        aireiter_async.AsyncClient("key").run_many([])
        print(*sys.modules, sep="\\n")
    """
    imported = set(run(textwrap.dedent(script)).split())
    assert "aireiter_async._batch" in imported
    assert imported & {"sqlite3", "aireiter_async._ledger", "aireiter_async._media"} == set()


@pytest.mark.parametrize("call", ["submit('nano_banana_v2', {'prompt': 'a heron'})", "wait('a')"])
def test_the_first_call_of_a_closed_client_says_so(call: str) -> None:
    """Nothing is imported for it: the client's threads have ended."""
    script = f"""
        import asyncio
        import aireiter_async

        async def main():
            client = aireiter_async.AsyncClient("key")
            await client.close()
            try:
                await client.{call}
            except RuntimeError as error:
                print(error)

        asyncio.run(main())
    """
    assert run(textwrap.dedent(script)) == "this AsyncClient is closed: create a new one\n"


def test_the_version_is_stated_once() -> None:
    assert PROJECT["project"]["dynamic"] == ["version"]
    (path,) = PROJECT["tool"]["hatch"]["version"].values()
    assert f'__version__ = "{aireiter_async.__version__}"' in (ROOT / path).read_text("utf-8")


def test_the_classifiers_name_the_pythons_that_the_workflow_tests() -> None:
    name = "Programming Language :: Python :: 3."
    classifiers = PROJECT["project"]["classifiers"]
    pythons = [f"3.{each[len(name) :]}" for each in classifiers if each.startswith(name)]
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8")
    assert json.loads(re.findall(r"python: (\[.+\])", workflow)[0]) == pythons
    assert PROJECT["project"]["requires-python"] == f">={pythons[0]}"


def test_each_extra_has_a_smoke_test() -> None:
    assert CHECKS.keys() >= PROJECT["project"]["optional-dependencies"].keys()


def test_the_metadata_is_not_needed() -> None:
    script = """
        import sys
        sys.modules["importlib.metadata"] = None  # importing it is an ImportError
        import aireiter_async
        print(aireiter_async.AsyncClient("key")._settings.user_agent)
    """
    told = run(textwrap.dedent(script))
    assert told.startswith(f"aireiter-async/{aireiter_async.__version__} Python/")


def test_the_architecture_names_tests_that_exist() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_\w+\.py)`", text))
    assert len(named) > 20
    assert named <= {path.name for path in (ROOT / "tests").iterdir()}


def test_the_architecture_names_the_layers_of_the_contract() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    (contract,) = PROJECT["tool"]["importlinter"]["contracts"]
    assert text.partition("```text\n")[2].partition("```")[0].splitlines() == contract["layers"]


@pytest.mark.parametrize("name", PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"])
def test_what_is_shipped_exists(name: str) -> None:
    """The sdist's list names what there is."""
    assert (ROOT / name.lstrip("/")).exists()


def test_public_classes_name_the_module_that_users_import_them_from() -> None:
    for name in aireiter_async.__all__:
        value = getattr(aireiter_async, name)
        if isinstance(value, type):
            assert value.__module__ in {
                f"aireiter_async{module}" for module in ("", ".errors", ".stores")
            }
            assert pickle.loads(pickle.dumps(value)) is value  # noqa: S301 - our own
