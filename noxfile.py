"""The project's checks: ``nox`` runs the default ones, ``nox -l`` lists them all."""

import sys
from pathlib import Path

import nox
from packaging.specifiers import SpecifierSet

PROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PROJECT)
RUNNING = ".".join(map(str, sys.version_info[:2]))
EXTRAS = "-e.[cli]"

# A Python that is missing is skipped, so the one that runs this is always among those tested:
# "all skipped" is no success.
if RUNNING not in SpecifierSet(PROJECT["project"]["requires-python"]):
    sys.exit(f"nox runs on Python {RUNNING}: run it on one that pyproject.toml allows")
if RUNNING not in PYTHONS:
    PYTHONS.append(RUNNING)

nox.needs_version = ">=2026.8.10"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False
nox.options.sessions = ["lint", "typing", "tests", "floor", "package"]


def group(name: str) -> list[str]:
    """Return the requirements of a dependency group."""
    return nox.project.dependency_groups(PROJECT, name)


def run_tests(session: nox.Session, *options: str) -> None:
    """Run the tests under coverage and require all of it."""
    data = str(Path(session.create_tmp()).resolve() / "coverage")
    env = {"COVERAGE_FILE": data}
    session.run("coverage", "erase", env=env)
    session.run("coverage", "run", "-m", "pytest", *options, *session.posargs, env=env)
    session.run("coverage", "combine", "--quiet", env=env)
    session.run("coverage", "report", env=env)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, format and the direction of imports."""
    session.install(*group("lint"), EXTRAS)
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("lint-imports")


@nox.session
def typing(session: nox.Session) -> None:
    """Check the types, strictly, with mypy and pyright."""
    session.install(*group("typing"), EXTRAS)
    session.run("mypy")
    session.run("pyright")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests on each supported Python that is there, and on the one that runs this."""
    session.install(*group("test"), EXTRAS)
    run_tests(session)


@nox.session(python=PYTHONS[0], venv_backend="uv")
def floor(session: nox.Session) -> None:
    """Run the tests with the lowest versions that the dependencies allow."""
    session.install("--resolution=lowest-direct", *group("test"), EXTRAS)
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def package(session: nox.Session) -> None:
    """Build, check, and import the wheel alone."""
    session.install(*group("package"))
    dist = Path(session.create_tmp()).resolve() / "dist"
    session.run("python", "-m", "build", "--outdir", str(dist))
    session.run("twine", "check", "--strict", *map(str, dist.iterdir()))
    session.install("--force-reinstall", *map(str, dist.glob("*.whl")))
    session.chdir(dist)
    session.run("python", "-W", "error", "-c", "import aireiter_async.testing")


@nox.session(default=False)
def soak(session: nox.Session) -> None:
    """Run the long tests: many restarts, many faults, bounded memory."""
    session.install(*group("test"), EXTRAS)
    session.run("python", "-m", "pytest", "-m", "soak", *session.posargs)


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Measure what a task costs, beside others, and write benchmarks/RESULTS.md."""
    session.install("-e.")
    for peer in group("bench"):  # one that cannot be installed is reported, and stops nothing
        session.install(peer, success_codes=[0, 1, 2])
    session.run("python", "-m", "benchmarks", *session.posargs)
