"""The command at the top of an example runs it, without a key and without anything else."""

import asyncio
import os
import re
import shlex
import signal
import socket
import tomllib
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import aiohttp
import pytest

from tests.example_programs import EXAMPLES, command_of, end, start, wait_until

PROJECT = tomllib.loads((EXAMPLES.parent / "pyproject.toml").read_text(encoding="utf-8"))
GROUPS = PROJECT["dependency-groups"]


def names(requirements: list[object]) -> set[str]:
    """Return the names, with extras, of a group's own packages."""
    texts = (text for text in requirements if isinstance(text, str))
    return {text.split(";")[0].split(">")[0].strip() for text in texts}


@pytest.fixture
def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@pytest.mark.integrations
@pytest.mark.parametrize(
    ("name", "package", "printed"),
    [
        ("scrapy_pipeline.py", "scrapy", r"20 products in products.jsonl, 0 failed: finished\n"),
        ("crawlee_pipeline.py", "crawlee", r"20 products in products.jsonl, 0 failed\n"),
        ("dask_cluster.py", "distributed", "200 rows, 0 failed\n"),
        ("dbos_fleet.py", "dbos", r"(heron number \d+ http://\S+\n){20}"),
        ("taskiq_worker.py", "taskiq_nats", r"(heron number \d+ http://\S+\n){20}"),
    ],
)
async def test_the_command_at_the_top_runs_without_a_key(
    name: str, package: str, printed: str, tmp_path: Path
) -> None:
    if find_spec(package) is None:  # not imported: Dask changes how exceptions pickle
        pytest.skip(f"needs {package}")
    packages, run = command_of(name)
    assert set(packages) <= names(GROUPS["integrations"] + GROUPS["test"])
    assert run == ["python", f"examples/{name}"], shlex.join(run)
    quiet = {"XDG_RUNTIME_DIR": str(tmp_path)}  # PostgreSQL's wheel warns where it is missing
    ran = await end(await start(EXAMPLES / name, service=None, cwd=tmp_path, **quiet))
    assert (ran.status, bool(re.fullmatch(printed, ran.out))) == (0, True), ran.out
    count = 200 if name == "dask_cluster.py" else 20
    assert ran.complaints == [
        "AIREITER_API_KEY is not set: using a fake service on this machine",
        f"the fake service charged {count} tasks",
    ]
    assert "db" not in {name.rpartition(".")[2] for name in os.listdir(tmp_path)}  # noqa: PTH208


@pytest.mark.integrations
@pytest.mark.parametrize("name", ["aiohttp_app.py", "fastapi_app.py"])
async def test_the_command_of_an_application_serves_without_a_key(
    name: str, tmp_path: Path, free_port: int
) -> None:
    packages, run = command_of(name)
    assert set(packages) <= names(GROUPS["integrations"])
    if run[0] == "uvicorn":
        pytest.importorskip("fastapi")
        assert run == ["uvicorn", "--app-dir", "examples", "fastapi_app:app"]
        argv = ["-m", "uvicorn", "--app-dir", str(EXAMPLES), "fastapi_app:app"]
    else:
        argv = [str(EXAMPLES / name)]
    program = await start(*argv, "--port", free_port, service=None, cwd=tmp_path)
    job = {"key": "1", "prompt": "a heron"}
    async with (
        asyncio.timeout(60),
        aiohttp.ClientSession(
            f"http://127.0.0.1:{free_port}", headers={"X-User": "ada"}
        ) as session,
    ):

        async def accepts() -> bool:
            with suppress(aiohttp.ClientConnectionError):
                async with session.post("/images", json=job) as response:
                    assert response.status == 202
                    return True
            return False

        await wait_until(accepts)
        async with session.get("/images/1/events") as response:
            assert '"completed"' in await response.text()
    program.send_signal(signal.SIGINT)
    assert "the fake service charged 1 tasks\n" in (await end(program)).err
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - as above
