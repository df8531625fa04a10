"""The project's checks: ``nox`` runs the default ones, ``nox -l`` lists all of them."""

import itertools
import json
import os
import shutil
import sys
from pathlib import Path

import nox
from packaging.specifiers import SpecifierSet

PROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PROJECT)
RUNNING = ".".join(map(str, sys.version_info[:2]))
TYPED = 0.98  # share of the public symbols whose types pyright finds complete
EXTRAS = f"-e.[{','.join(PROJECT['project']['optional-dependencies'])}]"

# nox skips a Python that is missing, and "all skipped" is no success: the Python that runs nox
# is always among those tested.
if RUNNING not in SpecifierSet(PROJECT["project"]["requires-python"]):
    sys.exit(f"nox runs on Python {RUNNING}: run it on one that pyproject.toml allows")

nox.needs_version = ">=2026.8.10"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False
nox.options.sessions = [
    *("lint", "typing", "tests", "pythons"),
    *("floor", "backoff", "integrations", "docs", "package"),
]


def group(name: str) -> list[str]:
    return nox.project.dependency_groups(PROJECT, name)


def run_tests(session: nox.Session, *options: str, **env: str) -> None:
    env["PYTHONDONTWRITEBYTECODE"] = ""  # else each program that a test starts is compiled anew
    workers = str(2 * (os.cpu_count() or 1))  # many tests wait
    command = ("python", "-m", "pytest", "-n", workers, "--dist", "worksteal")
    session.run(*command, *options, *session.posargs, env=env)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, format and the direction of imports."""
    session.install(*group("lint"), EXTRAS)
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("lint-imports")


@nox.session
def typing(session: nox.Session) -> None:
    """Check the types with mypy and pyright, and that the public ones are complete."""
    session.install(*group("typing"), EXTRAS)
    session.run("mypy")
    session.run("pyright")
    report = session.run(
        *("pyright", "--verifytypes", "aireiter_async", "--ignoreexternal", "--outputjson"),
        silent=True,
        success_codes=[0, 1],  # 1 as long as a single symbol is incomplete
    )
    score = json.loads(str(report))["typeCompleteness"]["completenessScore"]
    if score < TYPED:
        session.error(f"{score:.1%} of the public symbols have complete types, not {TYPED:.0%}")


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests with all extras and require full branch coverage."""
    session.install(*group("test"), EXTRAS)
    data = str(Path(session.create_tmp()).resolve() / "coverage")
    run_tests(session, "--cov", "--cov-report=term-missing:skip-covered", COVERAGE_FILE=data)


@nox.session(python=[python for python in PYTHONS if python != RUNNING])
def pythons(session: nox.Session) -> None:
    """Run the tests on each other supported Python that is installed."""
    session.install(*group("test"), EXTRAS)
    run_tests(session)


@nox.session(python=PYTHONS[0], venv_backend="uv")
def floor(session: nox.Session) -> None:
    """Run the tests with the lowest versions that the dependencies allow."""
    session.install("--resolution=lowest-direct", *group("test"), EXTRAS)
    run_tests(session)


@nox.session
def backoff(session: nox.Session) -> None:
    """Run the tests of retries with python-backoff, the maintained fork of backoff."""
    session.install(*group("test"), EXTRAS)
    session.run("uv", "pip", "uninstall", "backoff")
    session.install("python-backoff")
    run_tests(session, "tests/test_retry.py", "tests/test_submit.py")


@nox.session
def integrations(session: nox.Session) -> None:
    """Run the tests that need more than Python: a real browser, other frameworks."""
    session.install(*group("integrations"), EXTRAS)
    # They mostly wait; those of a file share servers, and their figures are of other processes.
    options = ("-n", "2", "--dist", "loadfile", "-m", "browser or integrations")
    session.run("python", "-m", "pytest", *options, *session.posargs)


@nox.session(default=False)
def ray(session: nox.Session) -> None:
    """Run the example on Ray, which is too large for the other integrations."""
    session.install(*group("ray"), EXTRAS)
    tests = ("tests/test_ray.py", *session.posargs)
    session.run("python", "-m", "pytest", "-m", "integrations", *tests)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation, with warnings as errors."""
    session.install(*group("docs"), EXTRAS)
    session.run("sphinx-build", "-W", "--keep-going", "-q", "docs", "docs/_build")


@nox.session
def package(session: nox.Session) -> None:
    """Build wheel and sdist, check both, and use each with each extra in a clean environment."""
    session.install(*group("package"))
    directory = Path(session.create_tmp()).resolve()
    dist, clean = directory / "dist", directory / "clean"
    shutil.rmtree(dist, ignore_errors=True)  # of an earlier run
    session.run("python", "-m", "build", "--installer", "uv", "--outdir", str(dist))
    files = sorted(dist.iterdir())
    session.run("twine", "check", "--strict", *map(str, files))
    python = str(clean / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python"))
    extras = PROJECT["project"]["optional-dependencies"]
    for file, subject in itertools.product(files, ["core", "pytest", *extras]):
        name = f"aireiter-async[{subject}]" if subject in extras else "aireiter-async"
        needs = ["pytest", "pytest-asyncio"] if subject == "pytest" else []
        session.run("uv", "venv", "--quiet", "--clear", "--python", sys.executable, str(clean))
        install = ("uv", "pip", "install", "--quiet", "--python", python)
        session.run(*install, f"{name} @ {file.as_uri()}", *needs)
        session.run(python, "-I", "-W", "error", "tests/smoke.py", subject, external=True)


@nox.session(default=False, name="aiohttp-latest")
def aiohttp_latest(session: nox.Session) -> None:
    """Run the tests with the newest aiohttp, pre-releases included; it may fail."""
    session.install(*group("test"), EXTRAS)
    session.install("--upgrade", "--pre", "aiohttp")
    run_tests(session)


@nox.session(default=False)
def soak(session: nox.Session) -> None:
    """Run the long tests, and count what becomes of tasks through faults, kills and damage."""
    session.install(*group("test"), EXTRAS)
    options = ("-m", "soak or hypothesis", "--hypothesis-profile=soak")
    session.run("python", "-m", "pytest", *options, *session.posargs)
    session.run("python", "-m", "benchmarks", "reliability")


@nox.session(default=False)
def screenshots(session: nox.Session) -> None:
    """Take the pictures of the README and the documentation; needs Chromium."""
    session.install(*group("screenshots"), EXTRAS)
    session.run("python", "docs/screenshots.py")


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Measure what a task costs next to other clients, and write benchmarks/RESULTS.md."""
    session.install("-e.")
    for peer in group("bench"):  # a peer that cannot be installed is reported and left out
        session.install(peer, success_codes=[0, 1, 2])
    session.run("python", "-m", "benchmarks", *session.posargs)
