"""The memory of large batches."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

MEGABYTE = 1024 * 1024

# Accepts any submit, has credits for all of them, and keeps nothing.
SERVER = """
import asyncio, re

class Server(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.seen = transport, b""

    def data_received(self, data):
        self.seen += data
        head, end, body = self.seen.partition(b"\\r\\n\\r\\n")
        length = re.search(rb"Content-Length: (\\d+)", head)
        if not end or len(body) < int(length[1] if length else 0):
            return
        self.seen = b""
        answer = b'{"statusCode":200,"data":{"credits":1e9}}'
        if length:
            name = re.search(rb'"out_task_id": ?"([^"]+)"', body)[1]
            answer = b'{"statusCode":200,"data":{"out_task_id":"%s","status":"pending",' % name
            answer += b'"estimated_credits":1}}'
        self.transport.write(
            b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\n"
            b"Content-Length: %d\\r\\n\\r\\n%s" % (len(answer), answer)
        )

async def main():
    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asyncio.run(main())
"""

CLIENT = """
import asyncio, resource, sys
from aireiter_async import AsyncClient, Ledger, SubmitRequest

async def main(url, count, path):
    requests = (SubmitRequest("m", {"prompt": f"kitten {n}"}) for n in range(int(count)))
    async with AsyncClient("sk", base_url=url) as client, Ledger(path) as ledger:
        done = 0
        async for outcome in client.submit_many(requests, ledger=ledger, max_credits=1e9):
            done += outcome.ok
    print(done, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)

asyncio.run(main(*sys.argv[1:]))
"""


@asynccontextmanager
async def program(text: str, *arguments: object) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a program until the block ends."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", text, *map(str, arguments), stdout=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def read_line(process: asyncio.subprocess.Process) -> list[int]:
    """Read the numbers in one line of a program's output."""
    assert process.stdout is not None
    return [int(word) for word in (await process.stdout.readline()).split()]


async def grown(path: Path, few: int, many: int) -> float:
    """Return by how many megabytes the peak of a batch of *many* is above that of one of *few*."""
    peaks = []
    async with program(SERVER) as server:
        (port,) = await read_line(server)
        for count in (few, many):
            url = f"http://127.0.0.1:{port}"
            async with program(CLIENT, url, count, path / f"{count}.db") as client:
                done, peak = await read_line(client)
            assert done == count
            peaks.append(peak)
    return (peaks[1] - peaks[0]) * 1024 / MEGABYTE


@pytest.mark.parametrize("count", [10_000, pytest.param(200_000, marks=pytest.mark.soak)])
async def test_memory_does_not_grow_with_the_batch(tmp_path: Path, count: int) -> None:
    """A large batch with ledger and budget peaks within 10 MB of one of 2,000."""
    assert await grown(tmp_path, 2000, count) < 10
