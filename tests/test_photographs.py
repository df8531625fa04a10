"""A folder of photographs: each is edited once, paid once and saved under its name."""

import csv
import io
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from aireiter_async import AsyncClient, Ledger, models
from aireiter_async.testing import FakeService, Fault
from tests.command import start

COUNTS = pytest.mark.parametrize("count", [12, pytest.param(84, marks=pytest.mark.soak)])
PROMPT = "make it winter, with snow"


def photographs(folder: Path, count: int) -> list[Path]:
    """Write photographs, all different."""
    folder.mkdir()
    paths = [folder / f"IMG {number:04}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        buffer = io.BytesIO()
        Image.new("RGB", (64, 48), (number * 3, 90, 200)).save(buffer, "JPEG")
        path.write_bytes(buffer.getvalue())
    return paths


def misbehave(service: FakeService, count: int) -> None:
    """Lose responses to submits that were accepted, and let other requests fail."""
    submits = [Fault.ok(), Fault.lost_response(accepted=True), Fault.too_many_requests(0)]
    service.script("submit", *submits * (count // 3))
    service.script("query", *[Fault.ok(), Fault.server_error()] * (count // 6))
    service.script("result", *[Fault.ok(), Fault.truncated(), Fault.ok()] * (count // 3))


def check(service: FakeService, photos: Sequence[Path], results: Path) -> None:
    assert sorted(path.stem for path in results.iterdir()) == [path.stem for path in photos]
    assert all(path.stat().st_size for path in results.iterdir())
    assert len(service.charges) == len(photos)
    assert len({each.out_task_id for each in service.charges}) == len(photos)


@COUNTS
async def test_photographs_in_python(
    service: FakeService, client: AsyncClient, tmp_path: Path, count: int
) -> None:
    """The batch is left halfway; then the folder is read in another order."""
    photos = photographs(tmp_path / "photos", count)
    misbehave(service, count)

    async def run(paths: Sequence[Path], leave: int) -> None:
        async with (
            Ledger(tmp_path / "run.db") as ledger,
            client.run_many(
                paths,
                request=lambda path: models.NanoBanana(prompt=PROMPT, image_url=[path]),
                ledger=ledger,
                window=4,
                download_to=tmp_path / "results",
                name=lambda path: path.stem,
            ) as batch,
        ):
            async for outcome in batch:
                assert outcome.ok, outcome.error
                leave -= 1
                if leave == 0:
                    break

    await run(photos[: count // 2], count // 3)
    await run(photos[::-1], count)
    await run(photos, count)
    check(service, photos, tmp_path / "results")
    rows = [row async for row in Ledger(tmp_path / "run.db").rows()]
    assert sorted(row["inputs"][0]["path"] for row in rows) == [str(path) for path in photos]


@COUNTS
def test_photographs_on_the_command_line(served: FakeService, count: int) -> None:
    """The command is killed twice, and the table is extended and sorted again in between."""
    photos = photographs(Path("photos"), count)
    misbehave(served, count)
    running: list[subprocess.Popen[bytes]] = []

    def run(paths: Sequence[Path], kill_at: int | None) -> int:
        def price(_model: str, _params: Mapping[str, Any]) -> float:
            if len(served.charges) == kill_at:
                os.kill(running[-1].pid, signal.SIGKILL)
            return 1.0

        served.price = price
        with Path("photos.csv").open("w", newline="") as file:
            lines = [[PROMPT, f"@photos/{path.name}", path.stem] for path in paths]
            csv.writer(file).writerows([["prompt", "image_url", "photo"], *lines])
        options = ("-m", "nano_banana", "-o", "results", "--name", "{photo}", "--keep-columns")
        running.append(start("batch", "photos.csv", *options, "--window", "4", "--report"))
        _, errors = running[-1].communicate()
        status = running[-1].returncode
        assert status in {0, -signal.SIGKILL}, errors
        return status

    assert run(photos[: count // 2], count // 4) == -signal.SIGKILL
    assert run(photos[::-1], count * 3 // 4) == -signal.SIGKILL
    assert run(photos, None) == 0
    report = Path("results/photos.csv.html")
    assert report.exists()
    report.unlink()
    check(served, photos, Path("results"))
