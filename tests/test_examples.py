"""The examples, run against a service of their own."""

import asyncio
import importlib.util
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

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


@pytest.fixture
async def service(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeService]:
    """Run a service that the environment points to."""
    async with FakeService() as service:
        monkeypatch.setenv("AIREITER_API_KEY", service.api_key or "")
        monkeypatch.setenv("AIREITER_BASE_URL", service.url)
        yield service


async def fan_out(*argv: object) -> asyncio.subprocess.Process:
    """Start the example as a program."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-W", "error", str(EXAMPLES / "fan_out.py"), *map(str, argv)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def test_fan_out_saves_a_result_per_line_and_goes_on_where_it_was(
    service: FakeService, tmp_path: Path
) -> None:
    """Two runs of the same lines make one task per line, and end with its file on disk."""
    for _ in range(2):
        process = await fan_out(tmp_path / "run.db", tmp_path / "results")
        printed, told = await process.communicate(b"a cat\n\na dog\n")
        assert (process.returncode, told) == (0, b"")
        assert len(printed.splitlines()) == 2
    assert len(service.charges) == 2
    assert len(list((tmp_path / "results").iterdir())) == 2


async def test_fan_out_goes_on_while_it_waits_for_the_next_line(
    service: FakeService, tmp_path: Path
) -> None:
    """A pipe that says nothing more for now does not hold up what has been read."""
    process = await fan_out(tmp_path / "run.db", tmp_path / "results")
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"a cat\n")
    assert (await process.stdout.readline()).startswith(b"0 completed ")
    assert len(service.charges) == 1
    process.stdin.close()
    assert await process.communicate() == (b"", b"")
    assert process.returncode == 0


async def test_fan_out_prints_why_a_task_failed(service: FakeService, tmp_path: Path) -> None:
    service.script("submit", Fault.failed("NSFW", "no"))
    process = await fan_out(tmp_path / "other.db", tmp_path / "results")
    assert (await process.communicate(b"a dog\n"))[0].startswith(b"0 the task failed: NSFW: no")
    assert process.returncode == 1


async def test_fan_out_says_what_it_takes(service: FakeService) -> None:
    """Without arguments there is a usage message, and nothing is sent."""
    process = await fan_out()
    _, told = await process.communicate()
    assert (process.returncode, told.startswith(b"usage: fan_out.py")) == (2, True)
    assert service.requests == []


@asynccontextmanager
async def serving(example: ModuleType) -> AsyncIterator[Any]:
    """Run the web application, and yield what asks it for an image."""
    async with TestServer(example.application()) as server, ClientSession() as session:

        async def ask(**query: str) -> tuple[int, str]:
            async with session.get(server.make_url("/image").with_query(query)) as response:
                return response.status, await response.text()

        yield ask


async def test_the_web_application_answers_with_an_url(service: FakeService) -> None:
    """What the user asks for is made once, and its URL is the answer."""
    async with serving(load("web_app")) as ask:
        status, text = await ask(prompt="a cat", aspect_ratio="16:9")
    assert (status, '{"url": "http' in text) == (200, True)
    assert service.requests[0].fields["params"] == {"prompt": "a cat", "aspect_ratio": "16:9"}


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ({}, "prompt is required"),
        ({"prompt": ""}, "prompt is required"),
        ({"prompt": "a cat", "aspect_ratio": "round"}, "aspect_ratio must be"),
    ],
)
async def test_the_web_application_refuses_what_cannot_be_asked_for(
    service: FakeService, query: dict[str, str], told: str
) -> None:
    async with serving(load("web_app")) as ask:
        status, text = await ask(**query)
    assert (status, told in text) == (422, True), text
    assert service.requests == []


@pytest.mark.parametrize(
    ("fault", "status", "text"),
    [
        (Fault.bad_request("no such thing"), 400, "no such thing"),
        (Fault.no_credits(), 503, "not enough credits"),
        (Fault.failed("NSFW"), 502, "the task failed: NSFW"),
    ],
)
async def test_the_web_application_says_whose_fault_it_is(
    service: FakeService, fault: Fault, status: int, text: str
) -> None:
    """A rejected request is the user's fault, everything else the server's or the gateway's."""
    service.script("submit", fault)
    async with serving(load("web_app")) as ask:
        answer = await ask(prompt="a cat")
    assert answer[0] == status
    assert text in answer[1]
