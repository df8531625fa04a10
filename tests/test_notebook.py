"""Notebooks: the example, and what one with large pictures saves, executed in a real kernel."""

import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from aireiter_async.testing import FakeService
from tests.example_programs import EXAMPLES, charged, end, start

pytestmark = pytest.mark.integrations
pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
pytest.importorskip("pandas")

PICTURE = b"\x89PNG\r\n\x1a\n" + os.urandom(3_000_000)


async def execute(notebook: Path, service: FakeService | None, cwd: Path) -> list[dict[str, Any]]:
    """Execute a notebook as the example's command does, and return all outputs."""
    executed = cwd / "executed.ipynb"
    jupyter = Path(sys.executable).with_name("jupyter-execute")
    ran = await end(
        await start(jupyter, notebook, f"--output={executed}", service=service, cwd=cwd)
    )
    assert ran.status == 0, ran.err
    cells = json.loads(executed.read_text(encoding="utf-8"))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    assert "error" not in {output["output_type"] for output in outputs}
    assert max(len(json.dumps(output)) for output in outputs) < 200_000
    assert executed.stat().st_size < 3_000_000  # less than one of the pictures
    return outputs


def html(outputs: list[dict[str, Any]]) -> list[str]:
    """Return what is shown as HTML."""
    return ["".join(output.get("data", {}).get("text/html", ())) for output in outputs]


@pytest.mark.parametrize("key", [False, True])
async def test_the_example_runs(tmp_path: Path, *, key: bool) -> None:
    if not key:
        outputs = await execute(EXAMPLES / "notebook.ipynb", None, tmp_path)
        assert "the fake service charged 21 tasks\n" in outputs[-1]["text"]
    else:  # in a directory of its own: it keeps the ledger and the pictures
        for name in ("notebook.ipynb", "demo.py"):
            (tmp_path / name).write_bytes((EXAMPLES / name).read_bytes())
        async with FakeService(used_id="charge") as service:
            outputs = await execute(tmp_path / "notebook.ipynb", service, tmp_path)
            assert charged(service) == (21, 21)
            await execute(tmp_path / "notebook.ipynb", service, tmp_path)
            assert charged(service) == (22, 22)  # the one task is a new one, the rows are not
        assert len(list((tmp_path / "pictures").iterdir())) == 20
    shown = [text for text in html(outputs) if "<img " in text]
    assert len(shown) == 21


@pytest.fixture
async def pictures() -> AsyncIterator[str]:
    """Serve pictures of 3 MB, and give their URL."""

    async def picture(_request: web.Request) -> web.Response:
        return web.Response(body=PICTURE, content_type="image/png")

    app = web.Application()
    app.router.add_get("/{name}", picture)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


LARGE = """
import base64, pathlib
from aireiter_async import AsyncClient, Output, Task, TaskStatus

data = base64.b64encode(pathlib.Path("picture.png").read_bytes()).decode()
raw = {{"data": {{"input": {{"params": {{"prompt": "<script>alert(1)</script>" * 10_000}}}}}}}}

def task(n):
    urls = ["{url}/a.png", "data:image/png;base64," + data]
    outputs = [Output(url, "image", out_task_id=f"t{{n}}", number=i) for i, url in enumerate(urls)]
    outputs += [Output("{url}/a.mp4", "video"), Output("{url}/a.mp3", "audio", title="<b>")]
    return Task(f"t{{n}}", TaskStatus.COMPLETED, "nano_banana_v2", outputs=tuple(outputs), raw=raw)

async with AsyncClient() as client:
    for n in range(20):
        display(task(n))
        for output in task(n).outputs[:2]:
            await client.download(output, "saved")
task(20)
"""


async def test_a_notebook_with_large_pictures_is_small(pictures: str, tmp_path: Path) -> None:
    """Twenty tasks with two pictures of 3 MB, one of them within its URL, shown and saved."""
    (tmp_path / "picture.png").write_bytes(PICTURE)
    cell = {"cell_type": "code", "id": "a", "metadata": {}, "outputs": []}
    notebook = {
        "cells": [{**cell, "execution_count": None, "source": LARGE.format(url=pictures)}],
        "metadata": {"kernelspec": {"name": "python3", "display_name": "", "language": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    path = tmp_path / "large.ipynb"
    path.write_text(json.dumps(notebook), encoding="utf-8")
    async with FakeService() as service:
        outputs = await execute(path, service, tmp_path)
    assert len(outputs) == 21
    for text in html(outputs):
        assert "image, 4.0 MB: save it with client.download" in text
        assert "&lt;b&gt;" in text
        assert "&lt;script&gt;" in text
        assert "<script" not in text
        for element in ("<img ", "<video ", "<audio "):
            assert text.count(element) == 1
    saved = list((tmp_path / "saved").iterdir())
    assert len(saved) == 40
    assert {file.stat().st_size for file in saved} == {len(PICTURE)}
