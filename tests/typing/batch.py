"""A user's batch, for type checkers: rows of a file become pictures, and a table of results."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from aireiter_async import AsyncClient, Failure, Ledger, SubmitRequest, models


@dataclass(frozen=True)
class Row:
    """A row of the user's table."""

    key: str
    prompt: str


def request_for(row: Row) -> SubmitRequest:
    params = models.NanoBananaV2(prompt=row.prompt, resolution="2K")
    return SubmitRequest("nano_banana_v2", params, row.key)


async def run(rows: list[Row], directory: Path) -> Iterator[str]:
    done: dict[str, tuple[Path, ...]] = {}
    failed: dict[str, str] = {}
    async with AsyncClient(max_rate=5.0) as client, Ledger(directory / "run.db") as ledger:
        batch = client.run_many(
            rows,
            request=request_for,
            ledger=ledger,
            max_credits=20.0,
            download_to=directory,
            name=lambda row: row.key,
        )
        async with batch:
            async for outcome in batch:
                row: Row = outcome.item
                if outcome.ok is True:
                    done[row.key] = outcome.paths
                else:
                    failed[row.key] = str(outcome.error)
                if isinstance(outcome, Failure):
                    error: Exception = outcome.error
                    print(outcome.index, error)
                else:
                    print(outcome.task.out_task_id, outcome.task.url)
        if batch.stopped is not None:
            print(batch.stopped, batch.progress)
    return iter([*map(str, done.values()), *failed.values()])


async def submit_plain(client: AsyncClient) -> list[str]:
    requests = (models.Suno(prompt=f"song {number}") for number in range(3))
    return [outcome.result().out_task_id async for outcome in client.submit_many(requests)]
