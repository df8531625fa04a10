"""What a ledger knows of a file's rows and of prices, read without opening it for a batch."""

import hashlib
import re
from collections import Counter
from typing import Any, Final, Self

from attrs import define, field

from aireiter_async import Ledger, LedgerState, SubmitRequest
from aireiter_async._batch._prices import price_kind

_CHARGED: Final = frozenset({LedgerState.COMPLETED, LedgerState.DOWNLOADED})
# The IDs that a ledger generates end with the beginning of the content's SHA-256.
_GENERATED: Final = re.compile(r"[0-9a-f]+-\d{8}-([0-9a-f]{16})")


@define
class Known:
    """The requests that a ledger has recorded.

    Attributes:
        ids: The IDs of its tasks.
        contents: How many tasks with a generated ID have a content, by its digest.
        prices: Credits of one task, by its kind: the last charge, else the last estimate.
    """

    ids: set[str] = field(factory=set[str])
    contents: Counter[str] = field(factory=Counter[str])
    prices: dict[str, float] = field(factory=dict[str, float])

    @classmethod
    async def read(cls, ledger: Ledger) -> Self:
        """Read a ledger, if its file exists.

        Raises:
            LedgerError: It cannot be read.
        """
        known, replacements = cls(), set[str]()
        if ledger.path.exists():
            async for row in ledger.rows():
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
        charged = row["state"] in _CHARGED
        price = row["credits_used"] if charged else row["estimated_credits"]
        kind = price_kind(row["model"], row["params"])
        if price is not None and (charged or kind not in self.prices):
            self.prices[kind] = price

    def take(self, request: SubmitRequest) -> bool:
        """Return whether *request* is known; call it once for each, in the file's order."""
        if not request.generated:
            return request.out_task_id in self.ids
        digest = hashlib.sha256(request.encode_content().encode()).hexdigest()[:16]
        self.contents[digest] -= 1
        return self.contents[digest] >= 0
