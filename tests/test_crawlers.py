"""The crawlers among the examples, over a site that these tests serve."""

import json
import re
import signal
from collections.abc import AsyncIterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from aiohttp import web

from aireiter_async.testing import FakeService, Fault
from tests.example_programs import EXAMPLES, Ran, charged, end, start, wait_until
from tests.hostile_time import Clock

LOSSES = {Fault.lost_response(): 0.02, Fault.lost_response(accepted=True): 0.04}
QUERY = "/api/openapi/query"
CRAWLERS = [
    pytest.param(
        name,
        marks=[
            pytest.mark.integrations,
            pytest.mark.skipif(find_spec(name) is None, reason=f"needs {name}"),
        ],
    )
    for name in ("scrapy", "crawlee")
]


class Shop:
    """A shop: a page that links to its products, and a page for each."""

    def __init__(self, products: int) -> None:
        self.products, self.served, self.url = products, 0, ""

    async def index(self, _request: web.Request) -> web.Response:
        links = "".join(f'<a href="/products/{n}">{n}</a>' for n in range(self.products))
        return web.Response(text=links, content_type="text/html")

    async def product(self, request: web.Request) -> web.Response:
        self.served += 1
        name = f"lamp number {request.match_info['number']}"
        page = f'<h1 class="product">{name}</h1><a href="/">all</a>'
        return web.Response(text=page, content_type="text/html")


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    shop = Shop(60)
    app = web.Application()
    app.router.add_get("/", shop.index)
    app.router.add_get("/products/{number}", shop.product)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    shop.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    yield shop
    await runner.cleanup()


@pytest.mark.parametrize("crawler", CRAWLERS)
async def test_a_killed_crawl_that_is_run_again_pays_for_new_pages_only(
    crawler: str, shop: Shop, tmp_path: Path
) -> None:
    example = EXAMPLES / f"{crawler}_pipeline.py"
    async with FakeService(used_id="charge", faults=LOSSES, durations=0.5) as service:
        arguments = (example, shop.url, "--timeout", "2")
        killed = await start(*arguments, service=service, cwd=tmp_path)
        await wait_until(lambda: len(service.charges) >= 25)
        killed.kill()
        assert (await end(killed)).status == -signal.SIGKILL
        assert len(service.charges) < 60
        shop.products += 5
        ran = await end(await start(*arguments, service=service, cwd=tmp_path))
        assert (ran.status, ran.complaints) == (0, [])
        assert charged(service) == (65, 65)
    lines = (tmp_path / "products.jsonl").read_text(encoding="utf-8").splitlines()
    items = list(map(json.loads, lines))
    assert {item["name"] for item in items} == {f"lamp number {n}" for n in range(65)}
    assert len(items) == 65
    for item in items:
        assert item["error"] is None
        (picture,) = item["pictures"]
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("crawler", CRAWLERS)
async def test_backpressure_reaches_the_crawler(crawler: str, shop: Shop, tmp_path: Path) -> None:
    """While no task ends, the crawler requests few pages more than items it may have open."""
    clock = Clock()
    shop.products = 120
    async with FakeService(durations=10, clock=clock) as service:
        example = EXAMPLES / f"{crawler}_pipeline.py"
        crawl = await start(example, shop.url, "--max-items", "20", service=service, cwd=tmp_path)
        await wait_until(lambda: service.counts[QUERY] > 30)  # it has been waiting for a while
        assert 20 <= shop.served < 70  # those in flight come on top
        service.durations, clock.now = 0, clock.now + 10
        ran = await end(crawl)
        assert (ran.status, ran.complaints) == (0, [])
    assert (shop.served, charged(service)) == (120, (120, 120))


@pytest.mark.parametrize("crawler", CRAWLERS)
async def test_a_problem_with_the_account_ends_the_crawl(
    crawler: str, shop: Shop, tmp_path: Path
) -> None:
    shop.products = 500
    async with FakeService(credits=0) as service:
        example = EXAMPLES / f"{crawler}_pipeline.py"
        ran = await end(
            await start(example, shop.url, "--max-items", "20", service=service, cwd=tmp_path)
        )
    assert ran.status == 1
    assert re.search("the crawl end(s|ed): .*credits", ran.err)
    assert (service.charges, shop.served < 300) == ([], True)


SPIDER = """
import scrapy
from scrapy.crawler import AsyncCrawlerProcess
from scrapy_pipeline import PicturePipeline

class Spider(scrapy.Spider):
    name = "fifty"

    async def start(self):
        for n in range(50):
            yield {"url": f"https://shop.example/{n}", "name": f"lamp {n}"}

class Watching(PicturePipeline):
    async def close_spider(self):
        print("closing with", self.in_progress)
        await super().close_spider()
        print("clients open:", self.client.stats.in_flight)

process = AsyncCrawlerProcess({
    "LOG_LEVEL": "WARNING",
    "ITEM_PIPELINES": {Watching: 300},
    "FEEDS": {"items.jsonl": {"format": "jsonlines"}},
})
process.crawl(Spider)
process.start()
"""


async def run_spider(service: FakeService, directory: Path) -> tuple[Ran, int]:
    """Run the spider of 50 items, and return how it ended and the number of its pictures."""
    script = directory / "fifty.py"
    script.write_text(SPIDER, encoding="utf-8")
    paths = f"{EXAMPLES}:{EXAMPLES.parent}"
    ran = await end(await start(script, service=service, cwd=directory, PYTHONPATH=paths))
    lines = (directory / "items.jsonl").read_text(encoding="utf-8").splitlines()
    return ran, sum(len(json.loads(line)["pictures"]) for line in lines)


@pytest.mark.integrations
async def test_items_without_pages_are_waited_for(tmp_path: Path) -> None:
    """A spider that yields 50 items from `start` and has no page; each picture takes 3 s."""
    pytest.importorskip("scrapy")
    async with FakeService(durations=3.0) as service:
        ran, pictures = await run_spider(service, tmp_path)
    assert (ran.status, ran.complaints) == (0, [])
    assert ran.out == "closing with 0\nclients open: 0\n"
    assert (charged(service), pictures) == ((50, 50), 50)


WAITING = """
import asyncio, logging, sys
from datetime import timedelta
from crawlee.crawlers import HttpCrawler
from crawlee.storage_clients import MemoryStorageClient
from aireiter_async import AsyncClient, SQLiteStore, stable_id

async def main():
    async with AsyncClient(timeout=2) as client, SQLiteStore("claims.db") as store:
        crawler = HttpCrawler(
            request_handler_timeout=timedelta(seconds=1),
            max_request_retries=2,
            storage_client=MemoryStorageClient(),
            configure_logging=False,
        )

        @crawler.router.default_handler
        async def wait(context):
            url = context.request.url
            await client.run(
                "seedance_1_5_pro",
                {"prompt": url, "aspect_ratio": "16:9"},
                out_task_id=stable_id("videos", url),
                idempotency=store,
            )

        ended = await crawler.run([f"{sys.argv[1]}products/{n}" for n in range(5)])
        print(ended.requests_finished, ended.requests_failed, ended.retry_histogram)

logging.disable()
asyncio.run(main())
"""


@pytest.mark.integrations
async def test_a_handler_that_waits_fails_but_pays_once(shop: Shop, tmp_path: Path) -> None:
    """A video takes longer than Crawlee's limit, which runs the handler three times."""
    pytest.importorskip("crawlee")
    script = tmp_path / "waiting.py"
    script.write_text(WAITING, encoding="utf-8")
    async with FakeService(used_id="charge", durations=1000) as service:
        ran = await end(await start(script, shop.url, service=service, cwd=tmp_path))
        assert (ran.status, ran.out) == (0, "0 5 [0, 0, 5]\n")
        pages, charges = charged(service)
        assert 0 < charges == pages <= 5  # the limit may have cut a first attempt short


@pytest.mark.integrations
async def test_items_without_pages_end_with_a_problem_of_the_account(tmp_path: Path) -> None:
    pytest.importorskip("scrapy")
    async with FakeService(credits=10) as service:
        ran, pictures = await run_spider(service, tmp_path)
    assert "the crawl ends: " in ran.err
    assert (charged(service), pictures) == ((10, 10), 10)
