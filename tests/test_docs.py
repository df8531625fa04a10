"""Every Python block of the documentation runs, with a client of a service on this machine."""

import ast
import asyncio
import inspect
import logging
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from aireiter_async import AsyncClient, models
from aireiter_async.testing import FakeService

DOCS = Path(__file__).parent.parent / "docs"
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in DOCS.glob("*.md")}
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.fixture
async def client(
    service: FakeService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[AsyncClient]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AIREITER_API_KEY", service.api_key or "")
    monkeypatch.setenv("AIREITER_BASE_URL", service.url)
    logger = logging.getLogger("aireiter_async")
    level = logger.level
    async with service.client() as client:
        yield client
    logger.setLevel(level)  # a page sets it


@pytest.mark.parametrize("page", sorted(PAGES.keys() - {"models"}))  # that one is generated
async def test_every_block_runs(page: str, client: AsyncClient, service: FakeService) -> None:
    """The blocks of a page share their names, as cells of a notebook do."""
    names: dict[str, Any] = {"client": client, "asyncio": asyncio, "models": models}
    for block in BLOCK.findall(PAGES[page]):
        code = compile(block, page, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        running = eval(code, names)  # noqa: S307 - our own documentation
        if inspect.isawaitable(running):
            await running
    ids = [charge.out_task_id for charge in service.charges]
    assert len(ids) == len(set(ids))


def test_the_pages_have_blocks() -> None:
    assert sum(len(BLOCK.findall(text)) for text in PAGES.values()) > 15
