"""The web applications among the examples, started, killed and restarted as their users would."""

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from aireiter_async import stable_id
from aireiter_async.testing import FakeService, Fault
from tests.example_programs import wait_until
from tests.test_examples import EXAMPLES, load

QUERY = "/api/openapi/query"
LOSSES = {Fault.lost_response(): 0.01, Fault.lost_response(accepted=True): 0.02}
APPS = ["aiohttp", pytest.param("fastapi", marks=pytest.mark.integrations)]


class App:
    """One of the applications as a program, and a session of a user's."""

    def __init__(self, kind: str, service: FakeService, directory: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.kind, self.directory = kind, directory
        self.process: asyncio.subprocess.Process
        self.env = {
            **os.environ,
            "AIREITER_API_KEY": service.api_key or "",
            "AIREITER_BASE_URL": service.url,
            "JOB_LEASE": "3",
            "REQUEST_TIMEOUT": "3",
            "PYTHONPATH": str(EXAMPLES.parent),
        }

    async def start(self, workers: int = 1) -> None:
        """Start it, and wait until it responds."""
        command = (
            (str(EXAMPLES / "aiohttp_app.py"), "--port", str(self.port))
            if self.kind == "aiohttp"
            else ("-m", "uvicorn", "--app-dir", str(EXAMPLES), "fastapi_app:app", "--port",
                  str(self.port), "--workers", str(workers), "--log-level", "warning")
        )  # fmt: skip
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, *command, cwd=self.directory, env=self.env, stdout=subprocess.DEVNULL
        )
        await wait_until(self.responds)

    async def responds(self) -> bool:
        return (await self.get("/images/none"))[0] == 404

    async def stop(self, number: signal.Signals) -> int:
        """End it, and return its status."""
        self.process.send_signal(number)
        async with asyncio.timeout(60):
            return await self.process.wait()

    async def get(self, path: str, user: str = "ada") -> tuple[int, Any]:
        """GET; 0 where there is no response."""
        return await self.ask("GET", path, user)

    async def post(self, key: str, prompt: str = "a cat", user: str = "ada") -> tuple[int, Any]:
        """POST a job; 0 where there is no response."""
        return await self.ask("POST", "/images", user, json={"key": key, "prompt": prompt})

    async def ask(self, method: str, path: str, user: str, **options: Any) -> tuple[int, Any]:
        try:
            async with (
                aiohttp.ClientSession(f"http://127.0.0.1:{self.port}") as session,
                session.request(method, path, headers={"X-User": user}, **options) as response,
            ):
                content = response.content_type == "application/json"
                return response.status, await (response.json() if content else response.text())
        except aiohttp.ClientError:
            return 0, None

    async def completed(self, *keys: str, user: str = "ada") -> None:
        """Wait until jobs have completed."""
        job: dict[str, Any] = {}

        async def ended(key: str) -> bool:
            nonlocal job
            _, job = await self.get(f"/images/{key}", user)
            return bool(job["status"] != "open")

        for key in keys:
            await wait_until(partial(ended, key), 90)
            assert job["status"] == "completed", job


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[App]]]:
    """Return what starts an application; it is killed in the end."""
    apps: list[App] = []

    async def start(kind: str, service: FakeService, workers: int = 1) -> App:
        app = App(kind, service, tmp_path)
        await app.start(workers)
        apps.append(app)
        return app

    yield start
    for app in apps:
        if app.process.returncode is None:
            await app.stop(signal.SIGTERM)


def charged(service: FakeService) -> list[str]:
    return sorted(charge.out_task_id for charge in service.charges)


@pytest.mark.integrations
@pytest.mark.parametrize("kind", ["aiohttp", "fastapi"])
async def test_restarts_lose_nothing_and_pay_for_nothing_twice(
    start: Callable[..., Awaitable[App]], kind: str
) -> None:
    """500 jobs; in the middle the application is terminated, and later killed."""
    async with FakeService(used_id="charge", faults=LOSSES, durations=1.0) as service:
        app = await start(kind, service)
        keys = [f"{n}" for n in range(500)]
        posted: set[str] = set()
        enough = {count: asyncio.Event() for count in (150, 350)}

        async def post(key: str) -> bool:
            accepted = (await app.post(key))[0] == 202
            if accepted:
                posted.add(key)
                if len(posted) in enough:
                    enough[len(posted)].set()
            return accepted

        async def interrupt() -> None:
            for event, number in zip(
                enough.values(), (signal.SIGTERM, signal.SIGKILL), strict=True
            ):
                await event.wait()
                status = await app.stop(number)
                assert number is signal.SIGTERM or status == -number
                await app.start()

        async def user(number: int) -> None:
            for key in keys[number::10]:
                await wait_until(partial(post, key))

        await asyncio.gather(interrupt(), *map(user, range(10)))
        await app.completed(*keys)
    assert charged(service) == sorted(stable_id("app", "ada", key) for key in keys)


@pytest.mark.parametrize("kind", APPS)
async def test_a_stream_ends_with_the_application(
    start: Callable[..., Awaitable[App]], kind: str
) -> None:
    async with FakeService(durations=3.0) as service:
        app = await start(kind, service)
        assert await app.post("1") == (202, {"id": stable_id("app", "ada", "1"), "key": "1"})
        async with (
            aiohttp.ClientSession(f"http://127.0.0.1:{app.port}") as session,
            session.get("/images/1/events", headers={"X-User": "ada"}) as response,
        ):
            assert response.headers["X-Accel-Buffering"] == "no"
            assert response.headers["Cache-Control"] == "no-store"
            assert response.content_type == "text/event-stream"
            assert (await response.content.readline()).startswith(b"data: {")
            await app.stop(signal.SIGTERM)
            rest = await response.content.read()
            assert b"completed" not in rest
        await app.start()
        await app.completed("1")
        _, text = await app.get("/images/1/events")
    assert '"completed"' in text
    assert len(service.charges) == 1


@pytest.mark.parametrize("kind", APPS)
async def test_users_share_nothing(start: Callable[..., Awaitable[App]], kind: str) -> None:
    """A key is its user's: a form that is posted twice is one job, another user's is another."""
    async with FakeService() as service:
        app = await start(kind, service)
        (_, first), (_, again) = await asyncio.gather(app.post("1"), app.post("1"))
        assert first == again
        assert (await app.post("1", "a dog"))[0] == 409
        assert (await app.post("2", ""))[0] in {202, 422}
        for path in ("/images/1", "/images/1/events"):
            assert (await app.get(path, "bob"))[0] == 404
        _, other = await app.post("1", "a dog", "bob")
        assert other["id"] != first["id"]
        await app.completed("1")
        await app.completed("1", user="bob")


@pytest.mark.parametrize("kind", APPS)
async def test_a_user_who_leaves_and_comes_again_pays_once(
    start: Callable[..., Awaitable[App]], kind: str
) -> None:
    draws = random.Random(0)  # noqa: S311 - repeatable, guards nothing
    async with FakeService(used_id="charge") as service:
        app = await start(kind, service)
        keys = [f"{n}" for n in range(30)]
        for key in keys:
            leaving = asyncio.create_task(app.post(key))
            await asyncio.wait([leaving], timeout=draws.random() / 100)
            leaving.cancel()
            with suppress(asyncio.CancelledError):
                await leaving
        for key in keys:
            assert (await app.post(key))[0] == 202
        await app.completed(*keys)
    assert len(service.charges) == 30


@pytest.mark.integrations
async def test_processes_agree_on_who_works_on_a_job(tmp_path: Path) -> None:
    """Forms are posted twice to three processes, which restart; nothing is polled for thrice."""
    queries: dict[int, int] = {}
    for workers in (1, 3):
        (tmp_path / f"{workers}").mkdir()
        async with FakeService(used_id="charge", durations=6.0) as service:
            app = App("fastapi", service, tmp_path / f"{workers}")
            await app.start(workers)
            keys = [f"{n}" for n in range(20)]
            for key in keys:
                answers = await asyncio.gather(app.post(key), app.post(key))
                assert answers[0] == answers[1]
                assert answers[0][0] == 202
            await app.stop(signal.SIGTERM)
            before = service.counts[QUERY]
            await app.start(workers)
            await app.completed(*keys)
            queries[workers] = service.counts[QUERY] - before
            await app.stop(signal.SIGTERM)
        counts = Counter(charge.out_task_id for charge in service.charges)
        assert (len(counts), counts.total()) == (20, 20)
    assert queries[3] < 2 * queries[1], queries


async def test_a_stream_where_nothing_happens_has_comments(
    service: FakeService, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AIREITER_API_KEY", service.api_key or "")
    monkeypatch.setenv("AIREITER_BASE_URL", service.url)
    module = load("jobs")
    assert module.HEARTBEAT <= 15
    module.HEARTBEAT = 0.01  # type: ignore[attr-defined]
    service.durations = 1000
    async with module.Jobs() as jobs:
        jobs.create("ada", "1", {"prompt": "a cat"})
        seen: list[str] = []
        async for event in jobs.events("ada", "1"):
            seen.append(event)
            if len(seen) == 5:
                jobs.stopping.set()
    assert ": nothing new\n\n" in seen
