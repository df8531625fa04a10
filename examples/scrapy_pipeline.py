"""Crawl a shop with Scrapy, and generate a picture of each product.

::

    pip install . scrapy && python examples/scrapy_pipeline.py

This crawls a small shop on your own machine. With a key and the URL of a site, it crawls that:
``AIREITER_API_KEY=... python examples/scrapy_pipeline.py https://shop.example/``. A page with an
``<h1 class="product">`` is a product; pictures are saved in ``pictures``, and items in
``products.jsonl``. Interrupted, even by ``kill -9``, run it again: it crawls all pages, and pays
for those that it had not paid for. Keep ``claims.db`` for that.
"""

import argparse
import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import demo
from itemadapter import ItemAdapter
from scrapy import Request, Spider
from scrapy.crawler import AsyncCrawlerProcess, Crawler
from scrapy.http import Response, TextResponse

from aireiter_async import AsyncClient, RetryPolicy, SQLiteStore, stable_id
from aireiter_async.errors import AireiterError, AuthenticationError, InsufficientCreditsError

_LOGGER = logging.getLogger(__name__)


class PicturePipeline:
    """Generates a picture for each item; one client for the whole crawl.

    Settings:
        AIREITER_CLAIMS: The file of claims, which makes a crawl that is run again pay for new
            items only.
        AIREITER_PICTURES: The directory for the pictures.
        AIREITER_MAX_ITEMS: Items in progress, beyond which no further page is requested.
        AIREITER_TIMEOUT: Seconds per request to the service; the claims of a crawl that was
            killed expire after twice that.
    """

    def __init__(self, crawler: Crawler) -> None:
        self.crawler = crawler
        self.in_progress = 0
        self.stopping: asyncio.Future[None] | None = None
        self.max_items = crawler.settings.getint("AIREITER_MAX_ITEMS", 100)

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        """Create the pipeline; Scrapy calls it."""
        return cls(crawler)

    async def open_spider(self) -> None:
        """Open the client and the store."""
        settings = self.crawler.settings
        timeout = settings.getfloat("AIREITER_TIMEOUT", 60)
        self.stack = AsyncExitStack()
        self.client = await self.stack.enter_async_context(
            AsyncClient(timeout=timeout, retry=RetryPolicy(max_retry_after=timeout))
        )
        self.store = await self.stack.enter_async_context(
            SQLiteStore(settings.get("AIREITER_CLAIMS", "claims.db"))
        )

    async def close_spider(self) -> None:
        """Close them; Scrapy has waited for the last item."""
        await self.stack.aclose()

    async def process_item(self, item: Any) -> Any:
        """Add the fields ``pictures`` and ``error``: an exception would drop the item."""
        fields = ItemAdapter(item)
        self._pause_crawl(1)
        try:
            fields["pictures"] = await self._generate(fields)
            fields["error"] = None
        except AireiterError as error:
            fields["pictures"], fields["error"] = [], str(error)
            self.crawler.stats.inc_value("aireiter/failed")
            problem = isinstance(error, AuthenticationError | InsufficientCreditsError)
            if problem and self.stopping is None:  # of the account: it concerns all items
                self.stopping = asyncio.ensure_future(self._stop_crawl(str(error)))
        finally:
            self._pause_crawl(-1)
        return item

    async def _generate(self, fields: ItemAdapter) -> list[str]:
        prompt = f"studio photograph of {fields['name']}, white background"
        task = await self.client.run(
            "nano_banana_v2",
            {"prompt": prompt},
            out_task_id=stable_id("scrapy-example", fields["url"], prompt),
            idempotency=self.store,
        )
        directory = self.crawler.settings.get("AIREITER_PICTURES", "pictures")
        return [str(path) for path in await self.client.download(task, directory)]

    def _pause_crawl(self, change: int) -> None:
        """Request no further pages while there are enough items: a page is faster than a task."""
        self.in_progress += change
        if self.in_progress >= self.max_items:
            self.engine.pause()
        elif self.stopping is None:
            self.engine.unpause()

    async def _stop_crawl(self, reason: str) -> None:
        """End the crawl after the items in progress, for which Scrapy does not always wait."""
        _LOGGER.error("the crawl ends: %s", reason)
        self.engine.pause()
        while not self.engine.scraper.slot.is_idle():  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.1)
        await self.engine.close_spider_async(reason="aireiter")

    @property
    def engine(self) -> Any:
        """Scrapy's engine."""
        return self.crawler.engine


class ShopSpider(Spider):
    """Yields an item for each product of a site."""

    name = "shop"

    async def start(self) -> AsyncIterator[Any]:
        """Begin with the URL that was given."""
        yield Request(self.url, self.parse)

    def parse(self, response: Response) -> Iterator[Any]:
        """Yield the page's product, and follow its links within the site."""
        assert isinstance(response, TextResponse)  # noqa: S101 - Scrapy's type for HTML
        name = response.css("h1.product::text").get()
        if name is not None:
            yield {"url": response.url, "name": name}
        yield from response.follow_all(css="a", callback=self.parse)


def main() -> int:
    """Crawl, and return whether any item failed."""
    parser = argparse.ArgumentParser(description="Generate a picture of each product of a site.")
    parser.add_argument("url", nargs="?", help="where to begin; default: a shop on this machine")
    parser.add_argument("--products", type=Path, default=Path("products.jsonl"))
    parser.add_argument("--pictures", default="pictures")
    parser.add_argument("--claims", type=Path, help="default: claims.db")
    parser.add_argument("--timeout", type=float, default=60, help="seconds per request")
    parser.add_argument("--max-items", type=int, default=100, help="items in progress")
    options = parser.parse_args()
    with ExitStack() as stack:
        state = stack.enter_context(demo.environment())
        url = options.url or stack.enter_context(demo.shop())
        process = AsyncCrawlerProcess(
            {
                "LOG_LEVEL": "WARNING",
                "TELNETCONSOLE_ENABLED": False,
                "ITEM_PIPELINES": {PicturePipeline: 300},
                "FEEDS": {options.products: {"format": "jsonlines", "overwrite": True}},
                "AIREITER_CLAIMS": options.claims or state / "claims.db",
                "AIREITER_PICTURES": options.pictures,
                "AIREITER_MAX_ITEMS": options.max_items,
                "AIREITER_TIMEOUT": options.timeout,
            }
        )
        crawler = process.create_crawler(ShopSpider)
        process.crawl(crawler, url=url, allowed_domains=[urlsplit(url).hostname])
        process.start()
    stats = crawler.stats.get_stats()
    items, failed = (stats.get(key, 0) for key in ("item_scraped_count", "aireiter/failed"))
    print(f"{items} products in {options.products}, {failed} failed: {stats['finish_reason']}")
    return int(failed > 0 or stats["finish_reason"] != "finished")


if __name__ == "__main__":
    raise SystemExit(main())
