"""Crawl a shop with Crawlee, and generate a picture of each product.

::

    pip install . "crawlee[parsel]" && python examples/crawlee_pipeline.py

This crawls a small shop on your own machine. With a key and the URL of a site, it crawls that:
``AIREITER_API_KEY=... python examples/crawlee_pipeline.py https://shop.example/``. A page with an
``<h1 class="product">`` is a product; pictures are saved in ``pictures``, and items in
``products.jsonl``. Interrupted, even by ``kill -9``, run it again: it crawls all pages, and pays
for those that it had not paid for. Keep ``crawl.db`` for that.

A handler does not wait for its picture: Crawlee would call it again after a minute. It puts its
product into a short queue, from which a batch reads.
"""

import argparse
import asyncio
import json
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any, TextIO

import demo
from crawlee import ConcurrencySettings
from crawlee.crawlers import ParselCrawler, ParselCrawlingContext
from crawlee.storage_clients import MemoryStorageClient

from aireiter_async import AsyncClient, Ledger

Products = asyncio.Queue[dict[str, Any] | None]


def make_request(product: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return a product's request."""
    return "nano_banana_v2", {"prompt": f"studio photograph of {product['name']}, white background"}


def make_crawler(products: Products) -> ParselCrawler:
    """Return a crawler that puts products into a queue."""
    crawler = ParselCrawler(
        # A handler that waits for room occupies one of these places: the crawl slows down.
        concurrency_settings=ConcurrencySettings(desired_concurrency=8, max_concurrency=8),
        request_handler_timeout=timedelta(days=1),  # room may take as long as a video
        storage_client=MemoryStorageClient(),  # paid tasks are in the ledger
        configure_logging=False,
    )

    @crawler.router.default_handler
    async def handle(context: ParselCrawlingContext) -> None:
        name = context.selector.css("h1.product::text").get()
        await context.enqueue_links()  # to the same host
        if name is not None:
            await products.put({"url": context.request.url, "name": name})

    return crawler


async def crawl(crawler: ParselCrawler, url: str, products: Products) -> None:
    """Crawl a site; None is the end of its products."""
    try:
        await crawler.run([url])
    finally:
        await products.put(None)


async def take(products: Products) -> AsyncIterator[dict[str, Any]]:
    """Yield products as they are found."""
    while (product := await products.get()) is not None:
        yield product


async def end(crawler: ParselCrawler, crawling: "asyncio.Task[None]", products: Products) -> None:
    """End a crawl early: handlers wait for room, and Crawlee waits for them."""

    async def make_room() -> None:
        while True:
            await products.get()

    crawler.stop()
    making = asyncio.create_task(make_room())
    await asyncio.wait([crawling])
    making.cancel()


async def generate(
    url: str, options: argparse.Namespace, ledger: Path, out: TextIO
) -> tuple[int, int]:
    """Crawl and generate at the same time, and return the numbers of products and failures."""
    found = failed = 0
    products: Products = asyncio.Queue(maxsize=8)
    crawler = make_crawler(products)
    async with AsyncClient(timeout=options.timeout) as client, Ledger(ledger) as record:
        crawling = asyncio.create_task(crawl(crawler, url, products))
        batch = client.run_many(
            take(products),
            request=make_request,
            ledger=record,
            window=options.max_items,
            download_to=options.pictures,
        )
        try:
            async with batch:
                async for outcome in batch:
                    pictures = [str(path) for path in outcome.paths] if outcome.ok else []
                    error = None if outcome.ok else str(outcome.error)
                    row = {**outcome.item, "pictures": pictures, "error": error}
                    out.write(f"{json.dumps(row)}\n")
                    found, failed = found + 1, failed + (not outcome.ok)
        finally:
            await end(crawler, crawling, products)
        if batch.stopped is not None:  # by a problem with the account
            print(f"the crawl ended: {batch.stopped}", file=sys.stderr)
        await crawling
    return found, failed


def main() -> int:
    """Crawl, and return whether any product failed."""
    parser = argparse.ArgumentParser(description="Generate a picture of each product of a site.")
    parser.add_argument("url", nargs="?", help="where to begin; default: a shop on this machine")
    parser.add_argument("--products", type=Path, default=Path("products.jsonl"))
    parser.add_argument("--pictures", default="pictures")
    parser.add_argument("--ledger", type=Path, help="default: crawl.db")
    parser.add_argument("--timeout", type=float, default=60, help="seconds per request")
    parser.add_argument("--max-items", type=int, default=100, help="pictures in progress")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    with ExitStack() as stack:
        state = stack.enter_context(demo.environment())
        url = options.url or stack.enter_context(demo.shop())
        out = stack.enter_context(options.products.open("w", encoding="utf-8"))
        ledger = options.ledger or state / "crawl.db"
        found, failed = asyncio.run(generate(url, options, ledger, out))
    print(f"{found} products in {options.products}, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
