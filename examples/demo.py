"""A fake service and a shop to crawl, with which the other examples run without a key."""

import asyncio
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from aireiter_async.testing import FakeService

_PRODUCTS = ("a copper kettle", "a wool blanket", "a garden chair", "a desk lamp", "a bread knife")


@contextmanager
def environment(**options: Any) -> Iterator[Path]:
    """Yield the directory for claims and ledgers: the current one, if there is a key.

    Without ``AIREITER_API_KEY``, a fake service runs for this program and for those that it
    starts, and the directory is a temporary one, since that service forgets its tasks.

    Args:
        **options: Those of `FakeService`.
    """
    if os.environ.get("AIREITER_API_KEY"):
        yield Path.cwd()
        return
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    service = FakeService(**options)
    asyncio.run_coroutine_threadsafe(service.start(), loop).result()
    os.environ.update(AIREITER_API_KEY=service.api_key or "", AIREITER_BASE_URL=service.url)
    print("AIREITER_API_KEY is not set: using a fake service on this machine", file=sys.stderr)
    try:
        with tempfile.TemporaryDirectory() as directory:
            yield Path(directory)
    finally:
        asyncio.run_coroutine_threadsafe(service.close(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        print(f"the fake service charged {len(service.charges)} tasks", file=sys.stderr)


class _Shop(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        number = self.path.removeprefix("/products/")
        if number.isdigit():
            body = f'<h1 class="product">{_PRODUCTS[int(number) % len(_PRODUCTS)]}, {number}</h1>'
        else:
            body = "".join(f'<a href="/products/{n}">{n}</a>' for n in range(20))
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_args: Any) -> None:
        """Log nothing."""


@contextmanager
def shop() -> Iterator[str]:
    """Serve a shop of 20 products on this machine, and yield its URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Shop) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()
