"""Use an installed package as a user would, with one extra or none; nox -s package runs it.

``python -I -W error smoke.py SUBJECT``: isolated, so that the checkout is not imported.
"""

import asyncio
import base64
import contextlib
import io
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Coroutine
from importlib import import_module, metadata, resources
from pathlib import Path

import aireiter_async
from aireiter_async import Ledger, data_url, models
from aireiter_async.testing import FakeService

SCOPE = ("-o", "asyncio_default_fixture_loop_scope=function")  # else some releases warn
COMMAND = Path(sysconfig.get_path("scripts"), "aireiter")
TEST = """
import pytest

@pytest.mark.asyncio
async def test_it(aireiter_client, aireiter_service):
    task = await aireiter_client.run("nano_banana_v2", {"prompt": "a heron"})
    assert [charge.out_task_id for charge in aireiter_service.charges] == [task.out_task_id]
"""


def command(*argv: str, status: int = 0) -> str:
    """Run a program, and return what it prints."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)  # noqa: S603 - ours
    assert done.returncode == status, done
    return done.stdout + done.stderr


async def core() -> None:
    """Run a task, a batch with a ledger, and everything that ships beside the modules."""
    assert aireiter_async.__version__ == metadata.version("aireiter-async")
    for name in ("py.typed", "report/page.html"):
        assert resources.files(aireiter_async).joinpath(name).is_file(), name
    (plugin,) = metadata.entry_points(group="pytest11", name="aireiter")
    assert plugin.dist is not None
    assert any(path.name == "pytest_aireiter.py" for path in plugin.dist.files or ())
    async with FakeService() as service, service.client() as client:
        task = await client.run(models.NanoBananaV2(prompt="a heron"))
        (path,) = await client.download(task, "results")
        assert path.read_bytes()
        async with Ledger("run.db") as ledger:
            requests = [models.NanoBananaV2(prompt=prompt) for prompt in ("a heron", "an owl")]
            outcomes = [each.ok async for each in client.run_many(requests, ledger=ledger)]
        assert outcomes == [True, True]
        assert len(service.charges) == 3
    assert "[cli]" in command(str(COMMAND), "--version", status=2)


async def cli() -> None:
    version = aireiter_async.__version__
    assert command(str(COMMAND), "--version").strip() == f"aireiter_async {version}"
    assert version in command(sys.executable, "-I", "-m", "aireiter_async", "--version")
    assert "nano_banana_v2" in command(str(COMMAND), "models")
    told = command(str(COMMAND), "demo", "--tasks", "20", "--directory", "demo")
    assert "this one paid 20 times" in told, told
    assert Path("demo/run.html").is_file()  # noqa: ASYNC240 - nothing else runs


async def images() -> None:
    from PIL import Image  # noqa: PLC0415 - needs the extra

    Image.new("RGB", (64, 32)).save("wide.png")
    shrunk = base64.b64decode(data_url("wide.png", max_side=16).partition(",")[2])
    assert Image.open(io.BytesIO(shrunk)).size == (16, 8)


async def postgres() -> None:
    import asyncpg  # noqa: PLC0415 - needs the extra

    from aireiter_async.stores import PostgresStore  # noqa: PLC0415 - needs the extra

    PostgresStore(asyncpg.create_pool("postgresql://127.0.0.1/none"))  # connects when awaited


async def otel() -> None:
    telemetry = import_module("aireiter_async.telemetry")
    async with FakeService() as service, service.client() as client:
        telemetry.instrument(client)
        await client.run(models.NanoBananaV2(prompt="a heron"))


async def plugin() -> None:
    Path("test_user.py").write_text(TEST)  # noqa: ASYNC240 - nothing else runs
    assert "1 passed" in command(sys.executable, "-W", "error", "-m", "pytest", "-q", *SCOPE)


CHECKS: dict[str, Callable[[], Coroutine[None, None, None]]] = {
    "cli": cli,
    "core": core,
    "images": images,
    "otel": otel,
    "postgres": postgres,
    "pytest": plugin,
}

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory, contextlib.chdir(directory):
        asyncio.run(CHECKS[sys.argv[1]]())
