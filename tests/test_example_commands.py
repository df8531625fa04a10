"""The command at the top of an example runs it, without a key and without anything else."""

import os
import re
import shlex
import tomllib
from pathlib import Path

import pytest

from tests.example_programs import EXAMPLES, command_of, end, start

PROJECT = tomllib.loads((EXAMPLES.parent / "pyproject.toml").read_text(encoding="utf-8"))
GROUPS = PROJECT["dependency-groups"]


def names(requirements: list[object]) -> set[str]:
    """Return the names, with extras, of a group's own packages."""
    texts = (text for text in requirements if isinstance(text, str))
    return {text.split(";")[0].split(">")[0].strip() for text in texts}


@pytest.mark.integrations
@pytest.mark.parametrize(
    ("name", "package", "printed"),
    [
        ("scrapy_pipeline.py", "scrapy", r"20 products in products.jsonl, 0 failed: finished\n"),
        ("crawlee_pipeline.py", "crawlee", r"20 products in products.jsonl, 0 failed\n"),
        ("dbos_fleet.py", "dbos", r"(heron number \d+ http://\S+\n){20}"),
        ("taskiq_worker.py", "taskiq_nats", r"(heron number \d+ http://\S+\n){20}"),
    ],
)
async def test_the_command_at_the_top_runs_without_a_key(
    name: str, package: str, printed: str, tmp_path: Path
) -> None:
    pytest.importorskip(package)
    packages, run = command_of(name)
    assert set(packages) <= names(GROUPS["integrations"] + GROUPS["test"])
    assert run == ["python", f"examples/{name}"], shlex.join(run)
    quiet = {"XDG_RUNTIME_DIR": str(tmp_path)}  # PostgreSQL's wheel warns where it is missing
    ran = await end(await start(EXAMPLES / name, service=None, cwd=tmp_path, **quiet))
    assert (ran.status, bool(re.fullmatch(printed, ran.out))) == (0, True), ran.out
    assert ran.err.splitlines() == [
        "AIREITER_API_KEY is not set: using a fake service on this machine",
        "the fake service charged 20 tasks",
    ]
    assert "db" not in {name.rpartition(".")[2] for name in os.listdir(tmp_path)}  # noqa: PTH208
