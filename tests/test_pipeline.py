"""The pipeline of the examples: prompts, pictures, videos; each is paid for once."""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aireiter_async import AsyncClient, Ledger, Output, PollPolicy, models
from aireiter_async.testing import FakeService, Fault
from tests.example_programs import EXAMPLES, end, start
from tests.test_examples import load

pipeline = load("pipeline")
PICTURE, VIDEO = "nano_banana_v2", "kling_3_0"
KILLS, PROMPTS = 20, 60
REQUESTS = 15  # after which the program is killed

# The example as a program, which does not wait a second for its first poll.
PROGRAM = f"""
import asyncio, sys
from pathlib import Path
sys.path.insert(0, {str(EXAMPLES)!r})
import pipeline
from aireiter_async import AsyncClient, PollPolicy, RetryPolicy

async def main():
    polling = PollPolicy(first=0.02, step=0.02, cap=0.05)
    async with AsyncClient(polling=polling, retry=RetryPolicy(base=0.01, settle=0.2)) as client:
        prompts = [f"a fox, number {{n}}" for n in range({PROMPTS})]
        return await pipeline.run(client, prompts, Path(sys.argv[1]), max_credits=1000)

sys.exit(asyncio.run(main()))
"""


def films(directory: Path) -> int:
    return len([*directory.glob("*.mp4")])


def charged(service: FakeService) -> Counter[str]:
    return Counter(charge.model for charge in service.charges)


def bodies(service: FakeService, path: str = "/submit") -> list[dict[str, Any]]:
    """Return the bodies of requests, with the position of each among all requests."""
    return [
        {**request.body, "position": position}
        for position, request in enumerate(service.requests)
        if request.path.endswith(path)
    ]


async def run(client: AsyncClient, directory: Path, count: int, **options: Any) -> int:
    prompts = [f"a fox, number {n}" for n in range(count)]
    options = {"max_credits": 1000} | options
    failed: int = await pipeline.run(client, prompts, directory, **options)
    return failed


async def test_prompts_become_videos_and_a_rerun_asks_and_pays_nothing(
    service: FakeService,
    client: AsyncClient,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    service.price = {PICTURE: 3.0, VIDEO: 10.0}
    assert await run(client, tmp_path, 30) == 0
    assert charged(service) == {PICTURE: 30, VIDEO: 30}
    assert films(tmp_path) == 30
    assert capsys.readouterr().out.splitlines()[30:] == [
        "pictures  30 of 30",
        "videos    30 of 30",
        "credits   390 of 1000, including earlier runs",
    ]
    before = len(service.requests)
    assert await run(client, tmp_path, 30) == 0
    assert len(service.requests) == before


async def test_both_batches_run_at_once_and_nothing_is_read_ahead(
    service: FakeService, client: AsyncClient, tmp_path: Path
) -> None:
    """The first video is submitted before the last picture is."""
    assert await run(client, tmp_path, 60) == 0
    models_ = [body["model"] for body in bodies(service)]
    assert models_.index(VIDEO) < len(models_) - models_[::-1].index(PICTURE)
    ahead = 0
    for model in models_:
        ahead += 1 if model == PICTURE else -1
        assert ahead <= 300  # a window of pictures, and one of videos


async def test_a_failed_picture_and_a_rejected_one_leave_the_others_alone(
    service: FakeService,
    client: AsyncClient,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def price(model: str, params: Any) -> float:
        del params
        return {PICTURE: 3.0, VIDEO: 10.0}[model]

    service.price = price
    service.script("submit", Fault.failed("NSFW", "no"))
    assert await run(client, tmp_path, 3) == 1
    assert charged(service) == {PICTURE: 3, VIDEO: 2}
    service.script("submit", Fault.ok(), Fault.bad_request("image too small"))
    assert await run(client, tmp_path, 4) == 2  # a new picture, whose video is rejected
    assert charged(service) == {PICTURE: 4, VIDEO: 2}
    told = capsys.readouterr().err
    assert "no picture of 'a fox, number " in told
    assert "no video of 'a fox, number 3': image too small" in told
    assert await run(client, tmp_path, 4, retry_failed=True) == 0
    assert charged(service) == {PICTURE: 5, VIDEO: 4}


async def test_the_budget_is_for_pictures_and_videos(
    service: FakeService,
    client: AsyncClient,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Case 153; a second run with more credits makes the rest."""
    service.price = {PICTURE: 3.0, VIDEO: 10.0}
    missing = await run(client, tmp_path, 20, max_credits=100)
    spent = sum(charge.credits for charge in service.charges)
    assert 90 < spent <= 110
    assert missing == 20 - charged(service)[VIDEO]
    assert "stopped: max_credits is 100" in capsys.readouterr().err
    assert await run(client, tmp_path, 20) == 0
    assert charged(service) == {PICTURE: 20, VIDEO: 20}


async def test_a_url_is_refreshed_right_before_its_video_is_submitted(
    service: FakeService, connect: Callable[..., AsyncClient], clock: Any, tmp_path: Path
) -> None:
    """Case 154: here the video waits forty minutes for credits."""
    service.durations = {VIDEO: 2400.0}
    service.price = 10.0
    client = connect(polling=PollPolicy())
    made = (await client.run(PICTURE, {"prompt": "a fox"})).outputs[0]
    expired = Output(url="https://example.com/expired.png", out_task_id=made.out_task_id)
    began = clock()

    async def make_videos() -> list[str]:
        requests = [
            models.Kling30(prompt="a dog"),
            models.Kling30(prompt="a fox", image_url=expired),
        ]
        async with Ledger(tmp_path / "run.db") as ledger:
            batch = client.run_many(requests, ledger=ledger, max_credits=15)
            outcomes = {outcome.index: outcome async for outcome in batch}
        assert outcomes[1].ok
        return [outcome.task.out_task_id for outcome in outcomes.values() if outcome.task]

    service.script("submit", Fault.failed())  # which releases its credits
    ids = await make_videos()
    assert clock() - began >= 2400
    sent = bodies(service)[-1]
    assert sent["params"]["image_url"] == made.url
    before = service.requests[sent["position"] - 1]
    assert before.body == {"out_task_id": made.out_task_id}
    counts = len(service.charges), len(service.requests)
    assert await make_videos() == ids
    assert (len(service.charges), len(service.requests)) == counts


@pytest.mark.integrations
async def test_a_pipeline_that_is_killed_twenty_times_pays_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second submit of an ID would be charged."""
    program: asyncio.subprocess.Process | None = None
    limit, ends, out = 0.0, list[int](), b""

    def clock() -> float:
        """Kill the program after so many requests, in whatever state its tasks are."""
        nonlocal limit
        if program is not None and len(service.requests) > limit:
            program.kill()
            limit = float("inf")
        return time.monotonic()

    service = FakeService(used_id="charge", durations=0.1, clock=clock)
    async with service:
        monkeypatch.setenv("AIREITER_API_KEY", service.api_key or "")
        monkeypatch.setenv("AIREITER_BASE_URL", service.url)
        while not ends or ends[-1] < 0:
            program = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-W", "error", "-c", PROGRAM, str(tmp_path)),
                stdout=asyncio.subprocess.PIPE,
            )
            if len(ends) < KILLS:
                limit = len(service.requests) + REQUESTS
            async with asyncio.timeout(60):
                out, _ = await program.communicate()
            limit = float("inf")
            ends.append(program.returncode or 0)
    assert ends == [*[-9] * KILLS, 0]
    assert charged(service) == {PICTURE: PROMPTS, VIDEO: PROMPTS}
    assert len(service.charges) == len({charge.out_task_id for charge in service.charges})
    assert f"videos    {PROMPTS} of {PROMPTS}" in out.decode()
    assert films(tmp_path) == PROMPTS


@pytest.mark.integrations  # it waits for videos as its users do
async def test_the_program_runs_without_a_key(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a heron\nan otter\n", encoding="utf-8")
    command = (EXAMPLES / "pipeline.py", "prompts.txt", "videos", "--max-credits", "500")
    ran = await end(await start(*command, service=None, cwd=tmp_path))
    assert (ran.status, ran.out.count("videos/")) == (0, 2), ran.err
    assert ran.err.endswith("the fake service charged 4 tasks\n")
    assert not [*(tmp_path / "videos").glob("*.db")]
