r"""Turn prompts into pictures, and each picture into a video; both batches run at once.

::

    printf 'a heron\nan otter\n' > prompts.txt
    pip install . && python examples/pipeline.py prompts.txt videos --max-credits 500

After an interruption or a kill, run the same command again: it resumes. A picture is paid for once,
and so is its video: the ledger identifies the video's request by the picture's ID, although its URL
changes. The URL is refreshed right before the video is submitted. Without ``AIREITER_API_KEY``, it
uses a fake service, which forgets its tasks in the end.
"""

import argparse
import asyncio
import sys
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from pathlib import Path

import demo

from aireiter_async import AsyncClient, Batch, Ledger, Success, models

_AHEAD = 16  # pictures that are made before their videos have been started


def picture_of(prompt: str) -> models.NanoBananaV2:
    """Return the request for the picture of a prompt."""
    return models.NanoBananaV2(prompt=prompt, aspect_ratio="16:9")


def video_of(picture: Success[str]) -> models.Kling30:
    """Return the request for the video of a picture: it takes the output, not its URL."""
    return models.Kling30(prompt=picture.item, image_url=picture.task.outputs[0])


async def completed(pictures: Batch[str]) -> AsyncGenerator[Success[str], None]:
    """Yield the pictures that have been made; a failed one has no video."""
    async for picture in pictures:
        if picture.ok is True:
            yield picture
        else:
            print(f"no picture of {picture.item!r}: {picture.error}", file=sys.stderr)


async def run(
    client: AsyncClient,
    prompts: Iterable[str],
    directory: Path,
    *,
    max_credits: float,
    retry_failed: bool = False,
    state: Path | None = None,
) -> int:
    """Make the videos, print one summary, and return the number of prompts without a video.

    The ledger is in *state*; by default, it is in the directory of the videos.
    """
    budget = client.budget(max_credits)
    async with Ledger((state or directory) / "pipeline.db") as ledger:
        # Nothing is read ahead: the videos ask for the next picture when there is room for it, and
        # the pictures for the next prompt.
        pictures = client.run_many(
            prompts,
            request=picture_of,
            window=_AHEAD,
            ledger=ledger,
            max_credits=budget,
            retry_failed=retry_failed,
        )
        async with pictures, aclosing(completed(pictures)) as source:
            videos = client.run_many(
                source,
                request=video_of,
                ledger=ledger,
                max_credits=budget,
                retry_failed=retry_failed,
                download_to=directory,
            )
            async with videos:
                async for video in videos:
                    if video.ok is True:
                        print(*video.paths, flush=True)
                    else:
                        print(f"no video of {video.item.item!r}: {video.error}", file=sys.stderr)
        made, filmed = pictures.progress, videos.progress
        spent, _ = await ledger.spent()
    print(f"pictures  {made.succeeded} of {made.pulled}")
    print(f"videos    {filmed.succeeded} of {filmed.pulled}")
    print(f"credits   {spent:g} of {max_credits:g}, including earlier runs")
    if stopped := pictures.stopped or videos.stopped:
        print(f"stopped: {stopped}", file=sys.stderr)
    return made.pulled - filmed.succeeded


def main() -> int:
    """Read the command line, and run."""
    parser = argparse.ArgumentParser(description="Turn prompts into pictures, and into videos.")
    parser.add_argument("prompts", type=Path, help="a text file, one prompt per line")
    parser.add_argument("directory", type=Path, help="where the videos and the ledger are saved")
    parser.add_argument("--max-credits", type=float, required=True, help="of all runs together")
    parser.add_argument("--retry-failed", action="store_true", help="pay for what failed again")
    options = parser.parse_args()
    options.directory.mkdir(parents=True, exist_ok=True)
    with demo.environment() as state:  # the current directory, with a key
        ledger_directory = options.directory if state == Path.cwd() else state
        return asyncio.run(make_videos(options, ledger_directory))


async def make_videos(options: argparse.Namespace, state: Path) -> int:
    """Read the prompts, and run."""
    async with AsyncClient() as client:
        with options.prompts.open(encoding="utf-8") as lines:
            return await run(
                client,
                (line.strip() for line in lines if line.strip()),
                options.directory,
                max_credits=options.max_credits,
                retry_failed=options.retry_failed,
                state=state,
            )


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
