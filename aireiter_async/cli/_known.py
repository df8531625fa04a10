"""What a ledger knows of the rows of a file, read without opening it for a batch."""

import hashlib
import re
from collections import Counter
from pathlib import Path
from typing import Any, Final, Self

from attrs import define, field

from aireiter_async import Ledger, SubmitRequest

# The IDs that a ledger generates end with the beginning of the content's SHA-256.
_GENERATED: Final = re.compile(r"[0-9a-f]+-\d{8}-([0-9a-f]{16})")


@define
class Known:
    """The requests that a ledger has recorded.

    Attributes:
        ids: The IDs of its tasks.
        contents: How many tasks with a generated ID have a content, by its digest.
    """

    ids: set[str] = field(factory=set[str])
    contents: Counter[str] = field(factory=Counter[str])

    @classmethod
    async def read(cls, path: Path) -> Self:
        """Read the ledger at *path*, if there is one.

        Raises:
            LedgerError: It cannot be read.
        """
        known, replacements = cls(), set[str]()
        if path.exists():  # noqa: ASYNC240 - nothing else runs
            async for row in Ledger(path).rows():
                known._add(row, replacements)
        return known

    def _add(self, row: dict[str, Any], replacements: set[str]) -> None:
        out_task_id: str = row["out_task_id"]
        self.ids.add(out_task_id)
        if row["retried_as"] is not None:
            replacements.add(row["retried_as"])
        generated = _GENERATED.fullmatch(out_task_id)
        if generated and out_task_id not in replacements:
            self.contents[generated[1]] += 1

    def take(self, request: SubmitRequest) -> bool:
        """Return whether *request* is known; call it once for each, in the file's order."""
        if not request.generated:
            return request.out_task_id in self.ids
        digest = hashlib.sha256(request.encode_content().encode()).hexdigest()[:16]
        self.contents[digest] -= 1
        return self.contents[digest] >= 0
