"""What is done with each request of a batch, and what has become of it."""

from pathlib import Path
from typing import Any

from attrs import frozen

from aireiter_async._client import AsyncClient
from aireiter_async._ledger import Ledger
from aireiter_async._tasks import Task


@frozen
class Outcome:
    """What became of one request of a batch.

    Attributes:
        index: Where the request stood in the input, from 0.
        request: The request as it was submitted, with its id; what the source
            yielded, where that was no request.
        task: The task: accepted, from `submit_many`; completed, from `run_many`.
        error: Why there is none. Exactly one of the two is set.
        paths: The files, where results are downloaded.
    """

    index: int
    request: Any
    task: Task | None = None
    error: Exception | None = None
    paths: tuple[Path, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether there is a task, and no error."""
        return self.error is None

    def result(self) -> Task:
        """Return the task.

        Raises:
            Exception: There is none: the error.
        """
        if self.task is None:
            raise self.error or ValueError("an Outcome has a task or an error")
        return self.task


@frozen(kw_only=True)
class Plan:
    """What is done with each request of a batch.

    Attributes:
        client: Does it.
        wait: Whether tasks are waited for, or only submitted.
        ledger: Where it is recorded.
        timeout: Seconds to wait for each task, None for no limit.
        download_to: Where results are saved, None for nowhere.
        retry_failed: Whether what an earlier run has left failed or refused is
            submitted again, under a new id.
    """

    client: AsyncClient
    wait: bool
    ledger: Ledger | None = None
    timeout: float | None = None
    download_to: Path | None = None
    retry_failed: bool = False
