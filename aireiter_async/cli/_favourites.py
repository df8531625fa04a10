"""Favourites: the IDs of some tasks of a ledger, as the report page exports them."""

import reprlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from attrs import define, field, frozen

from aireiter_async import Ledger, SubmitRequest
from aireiter_async._requests import is_id
from aireiter_async.cli._errors import UsageError, reason
from aireiter_async.cli._known import content_digest, digest_of_id


@frozen
class Favourites:
    """The requests of a file of IDs.

    Attributes:
        path: The file.
        lines: Where each ID is in it.
        tasks: The IDs by the ID of their request's first attempt.
        contents: The first attempts with generated IDs, by content and occurrence.
    """

    path: Path
    lines: Mapping[str, int]
    tasks: Mapping[str, str]
    contents: Mapping[tuple[str, int], str]

    @classmethod
    async def read(cls, path: Path, ledger: Ledger) -> Self:
        """Read a file, and find its IDs in a ledger.

        Raises:
            UsageError: The file cannot be read, or has an ID that the ledger does not have.
            LedgerError: The ledger cannot be read.
        """
        lines = dict(_read_ids(path))
        if not lines:
            raise UsageError(f"--only: {path} has no IDs: mark favourites in the report first")
        if not ledger.path.exists():
            raise UsageError(f"--only: there is no ledger {ledger.path}, which should have the IDs")
        index = _Index(lines)
        async for row in ledger.rows():
            index.add(row)
        for out_task_id, line in lines.items():
            if out_task_id not in index.first:
                raise UsageError(
                    f"--only: {path}, line {line}: {ledger.path} has no task {out_task_id}; "
                    "name the ledger of the batch that made it with --ledger"
                )
        tasks = {index.first[each]: each for each in lines}
        contents = {place: first for first, place in index.places.items() if first in tasks}
        return cls(path, lines, tasks, contents)

    def selector(self) -> Callable[[SubmitRequest], SubmitRequest | None]:
        """Return what returns a request under its ID if it is a favourite, else None.

        It counts occurrences: call it once for each request, in the order of the batch.
        """
        digests = {digest for digest, _ in self.contents}
        seen: Counter[str] = Counter()

        def select(request: SubmitRequest) -> SubmitRequest | None:
            if not request.generated:
                return request if request.out_task_id in self.tasks else None
            digest = content_digest(request)
            if digest not in digests:
                return None
            seen[digest] += 1
            first = self.contents.get((digest, seen[digest]))
            return None if first is None else request.with_id(first)

        return select

    def check(self, selected: Collection[str], name: str) -> None:
        """Check that the batch has all favourites, given the IDs that it has selected.

        Raises:
            UsageError: It has not.
        """
        for first, out_task_id in self.tasks.items():
            if first not in selected:
                raise UsageError(
                    f"--only: {self.path}, line {self.lines[out_task_id]}: no request of {name} "
                    f"is that of {out_task_id}; repeat the parameters, --model, --each and "
                    "--repeat of the batch that made it"
                )


@define
class _Index:
    """Finds the first attempt of favourites in the rows of a ledger.

    Attributes:
        wanted: The favourites.
        first: The ID of the first attempt of favourites, and of tasks that were retried.
        places: Content and occurrence of those first attempts that have generated IDs.
    """

    wanted: Collection[str]
    first: dict[str, str] = field(factory=dict[str, str])
    places: dict[str, tuple[str, int]] = field(factory=dict[str, tuple[str, int]])
    _counts: Counter[str] = field(factory=Counter[str])

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a row; call it in the order of the ledger."""
        out_task_id: str = row["out_task_id"]
        again: str | None = row["retried_as"]
        first = self.first.get(out_task_id)
        if first is None:
            digest = digest_of_id(out_task_id)
            if digest is not None:
                self._counts[digest] += 1
            if out_task_id not in self.wanted and again is None:
                return
            self.first[out_task_id] = first = out_task_id
            if digest is not None:
                self.places[out_task_id] = digest, self._counts[digest]
        if again is not None:
            self.first[again] = first


def _read_ids(path: Path) -> Iterator[tuple[str, int]]:
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise UsageError(f"--only: {path} cannot be read: {reason(error)}") from error
    for number, line in enumerate(text.splitlines(), 1):
        out_task_id = line.strip()
        if not out_task_id or out_task_id.startswith("#"):
            continue
        if not is_id(out_task_id):
            raise UsageError(
                f"--only: {path}, line {number}: an ID has 1 to 64 characters of A-Z, a-z, 0-9, "
                f"_ and -, got {reprlib.repr(out_task_id)}"
            )
        yield out_task_id, number
