"""The receiver in the servers and frameworks that people run it in."""

import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from aireiter_async import PollPolicy, SubmitRequest
from aireiter_async.testing import FakeService
from aireiter_async.webhooks import Receiver
from tests.example_programs import wait_until

uvicorn = pytest.importorskip("uvicorn")
pytest.importorskip("fastapi")

pytestmark = pytest.mark.integrations

QUERY = "/api/openapi/query"
SECRET = "s3cret-0123456789"
PAGE = (Path(__file__).parent.parent / "docs" / "webhooks.md").read_text(encoding="utf-8")
(BLOCK,) = re.findall(r"^```py\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)

Serve = Callable[[Any], Awaitable[None]]


@pytest.fixture
def address() -> tuple[socket.socket, str]:
    """Bind a free port, and return the URL of what will be served there."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    return listening, f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture
async def serve(address: tuple[socket.socket, str]) -> AsyncIterator[Serve]:
    """Return what serves an ASGI application with uvicorn, in this event loop."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(app: Any) -> None:
            server = uvicorn.Server(uvicorn.Config(app, lifespan="on", log_level="warning"))
            running = asyncio.create_task(server.serve([address[0]]))

            async def stop() -> None:
                server.should_exit = True
                await running

            stack.push_async_callback(stop)
            await wait_until(lambda: server.started)

        yield start


async def post(url: str, **options: Any) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as session, session.post(url, **options) as response:
        content = response.content_type == "application/json"
        return response.status, await (response.json() if content else response.text())


async def test_the_documented_application_completes_on_callbacks(
    serve: Serve, address: tuple[socket.socket, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with FakeService(callbacks="twice", durations=0.2) as service:
        monkeypatch.setenv("AIREITER_API_KEY", service.api_key or "")
        monkeypatch.setenv("AIREITER_BASE_URL", service.url)
        monkeypatch.setenv("WEBHOOK_SECRET", SECRET)
        monkeypatch.setenv("PUBLIC_URL", address[1])
        names: dict[str, Any] = {"os": os}
        exec(BLOCK, names)  # noqa: S102 - our own documentation
        await serve(names["app"])
        calls = [post(f"{address[1]}/images?prompt=heron-{n}") for n in range(20)]
        results = await asyncio.gather(*calls)
        assert {status for status, _ in results} == {200}
        assert len({body["url"] for _, body in results}) == len(service.charges) == 20
        assert service.counts[QUERY] == 20
        assert {each.status for each in service.callbacks_sent} == {200}


async def test_uvicorn_serves_the_receiver_alone(
    serve: Serve, address: tuple[socket.socket, str]
) -> None:
    listening, base = address
    async with (
        FakeService(callbacks="early") as service,
        service.client(polling=PollPolicy(first=3600)) as client,
    ):
        receiver = Receiver(client, secret=SECRET)
        await serve(receiver.asgi)
        url = receiver.url(base)
        request = SubmitRequest("seedream_v5", {"prompt": "a heron"}, None, url)
        assert (await client.run(request, webhooks=receiver)).succeeded
        assert service.counts[QUERY] == 1
        async with aiohttp.ClientSession() as session:
            for path, status in ((f"/{SECRET}", 405), ("/other", 404)):
                async with session.get(base + path) as response:
                    assert response.status == status
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await session.ws_connect(url)
        assert (await post(url, data=b"x" * 10**6))[0] == 413
        _, writer = await asyncio.open_connection(*listening.getsockname())
        head = f"POST /{SECRET} HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n"
        writer.write(head.encode() + b'{"out_task_id": "broken-off"')
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        assert (await post(url, json={"id": "late"}))[0] == 200
        assert "late" in receiver._kept
        assert "broken-off" not in receiver._kept


async def test_four_processes_share_a_url(
    address: tuple[socket.socket, str], tmp_path: Path
) -> None:
    """Most callbacks reach a process that does not wait for the task."""
    listening, base = address
    port = listening.getsockname()[1]
    listening.close()
    soon = "AsyncClient(polling=PollPolicy(first=0.3))"
    source = "import os\nfrom aireiter_async import PollPolicy\n" + BLOCK
    (tmp_path / "app.py").write_text(source.replace("AsyncClient()", soon), encoding="utf-8")
    async with FakeService(durations=0.2) as service:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "uvicorn", "app:app", "--port", str(port)),
            *("--workers", "4", "--log-level", "warning"),
            cwd=tmp_path,
            env={
                **os.environ,
                "AIREITER_API_KEY": service.api_key or "",
                "AIREITER_BASE_URL": service.url,
                "PUBLIC_URL": base,
                "PYTHONPATH": str(Path(__file__).parent.parent),
                "WEBHOOK_SECRET": SECRET,
            },
        )

        async def responds() -> bool:
            with contextlib.suppress(aiohttp.ClientError):
                return (await post(f"{base}/nothing"))[0] == 404
            return False

        await wait_until(responds)
        async with asyncio.timeout(60):
            calls = [post(f"{base}/images?prompt=heron-{n}") for n in range(20)]
            results = await asyncio.gather(*calls)
            await wait_until(lambda: len(service.callbacks_sent) == 20)
            process.send_signal(signal.SIGTERM)
            await process.wait()
        assert {status for status, _ in results} == {200}
        assert len(service.charges) == 20
        assert [each.status for each in service.callbacks_sent] == [200] * 20
