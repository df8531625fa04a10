"""The examples, run against a service of their own."""

import asyncio
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer

from aireiter_async.testing import FakeService, Fault

EXAMPLES = Path(__file__).parent.parent / "examples"


def load(name: str) -> ModuleType:
    """Import an example as a module."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def test_fan_out_saves_a_result_per_line_and_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs of the same lines make one task per line, and end with its file on disk."""
    async with FakeService() as service:
        monkeypatch.setenv("AIREITER_API_KEY", service.api_key or "")
        monkeypatch.setenv("AIREITER_BASE_URL", service.url)
        for _ in range(2):
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-W", "error", str(EXAMPLES / "fan_out.py")),
                *(str(tmp_path / "run.db"), str(tmp_path / "results")),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            printed, _ = await process.communicate(b"a cat\n\na dog\n")
            assert process.returncode == 0
            assert len(printed.splitlines()) == 2
        assert len(service.charges) == 2
    assert len(list((tmp_path / "results").iterdir())) == 2


async def test_the_web_application_answers_with_an_url_or_says_whose_fault_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A request gives the result's URL, a refused one is the user's fault, others the gateway's."""
    async with FakeService() as service:
        monkeypatch.setenv("AIREITER_API_KEY", service.api_key or "")
        monkeypatch.setenv("AIREITER_BASE_URL", service.url)
        async with TestServer(load("web_app").application()) as server, ClientSession() as session:
            url = server.make_url("/image").with_query(prompt="a cat")
            async with session.get(url) as response:
                assert (await response.json())["url"].startswith("http")
            service.script("submit", Fault.bad_request("no such thing"))
            async with session.get(url) as response:
                assert (response.status, await response.text()) == (400, "no such thing")
            service.script("submit", Fault.no_credits())
            async with session.get(url) as response:
                assert response.status == 502
