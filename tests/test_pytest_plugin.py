"""The pytest plugin, in a pytest of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ASYNCIO = ["-p", "asyncio", "-o", "asyncio_default_fixture_loop_scope=function"]
BODY = """
import asyncio, time
import pytest
from aireiter_async import models

pytestmark = [{marks}]

@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param

async def make(client):
    started = time.perf_counter()
    task = await client.run(models.MJV81(prompt="a cat"))
    assert time.perf_counter() - started < 5
    return task

async def test_client(aireiter_client, aireiter_service):
    task = await make(aireiter_client)
    assert task.succeeded
    assert [charge.out_task_id for charge in aireiter_service.charges] == [task.out_task_id]

class TestSharedLoop:
    async def test_one(self, aireiter_client):
        assert (await make(aireiter_client)).succeeded

    async def test_two(self, aireiter_client, aireiter_service):
        assert (await make(aireiter_client)).succeeded
        assert len(aireiter_service.charges) == 1
"""


def run(directory: Path, text: str, *options: str) -> subprocess.CompletedProcess[str]:
    (directory / "test_user.py").write_text(text, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "pytest_aireiter"]
    return subprocess.run(  # noqa: S603 - our own
        [*command, "-c", os.devnull, "--rootdir=.", *options],
        capture_output=True,
        check=False,
        cwd=directory,
        env=environment,
        text=True,
    )


@pytest.mark.parametrize(
    ("options", "marks", "outcome"),
    [
        ([*ASYNCIO, "-o", "asyncio_mode=auto"], "", "3 passed in"),
        (ASYNCIO, "pytest.mark.asyncio(loop_scope='module')", "3 passed in"),
        (["-p", "anyio"], "pytest.mark.anyio", "3 passed, 3 skipped in"),  # on trio
    ],
)
def test_the_client_belongs_to_the_loop_of_the_test(
    tmp_path: Path, options: list[str], marks: str, outcome: str
) -> None:
    done = run(tmp_path, BODY.format(marks=marks), *options)
    assert outcome in done.stdout, done.stdout + done.stderr
    assert "warning" not in done.stdout


def test_a_plain_test_gets_advice_and_no_import(tmp_path: Path) -> None:
    names = "'aiohttp', 'aireiter_async', 'attrs', 'pytest_asyncio', 'anyio'"
    text = f"import sys\ndef test_x(): assert not {{{names}}} & set(sys.modules)"
    done = run(tmp_path, f"{text}\ndef test_y(aireiter_client): ...")
    assert "1 passed, 1 error" in done.stdout
    assert "for async tests: mark the test with pytest.mark.asyncio" in done.stdout
