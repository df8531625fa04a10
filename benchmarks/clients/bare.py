"""The references: what an exchange costs without any client of an API around it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from benchmarks.clients._run import KEY, MODEL, PARAMS, Run, by_workers

_PATH = "/api/openapi/submit"
_BODY = {"model": MODEL, "params": PARAMS, "out_task_id": "a" * 32}


@asynccontextmanager
async def streams(url: str, concurrency: int) -> AsyncIterator[Run]:
    """Write bytes made beforehand to asyncio's streams: the limit."""
    where = urlsplit(url)
    body = json.dumps(_BODY).encode()
    head = (
        f"POST {_PATH} HTTP/1.1\r\nHost: {where.netloc}\r\nAuthorization: Bearer {KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    request = head.encode() + body
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def submit() -> None:
        if not idle:
            idle.append(await asyncio.open_connection(where.hostname, where.port))
        reader, writer = connection = idle.pop()
        writer.write(request)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = int(answer.split(b"Content-Length: ")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        idle.append(connection)

    yield by_workers(submit, concurrency)
    for _, writer in idle:
        writer.close()


@asynccontextmanager
async def plain(url: str, concurrency: int) -> AsyncIterator[Run]:
    """Post with aiohttp as people write it."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=concurrency),
        headers={"Authorization": f"Bearer {KEY}"},
    ) as session:

        async def submit() -> None:
            async with session.post(url + _PATH, json=_BODY) as response:
                response.raise_for_status()
                await response.json()

        yield by_workers(submit, concurrency)


@asynccontextmanager
async def tuned(url: str, concurrency: int) -> AsyncIterator[Run]:
    """Post with aiohttp and all that its public interface offers to make it fast."""
    body = json.dumps(_BODY).encode()
    where = URL(url + _PATH)
    headers = {
        "Authorization": f"Bearer {KEY}",
        "Content-Type": "application/json",
        "Accept": "application/json",
        "User-Agent": "benchmark/1",
    }
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=concurrency),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=120),
    ) as session:

        async def submit() -> None:
            async with session.post(
                where, data=body, headers=headers, allow_redirects=False
            ) as response:
                await response.read()

        yield by_workers(submit, concurrency)
