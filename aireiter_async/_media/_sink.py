"""Where results go that are not kept in a folder."""

from collections.abc import AsyncIterator
from typing import Protocol, runtime_checkable


@runtime_checkable
class Sink(Protocol):
    """Stores results, for example in object storage; `aireiter_async.sinks` has two."""

    async def put(self, name: str, chunks: AsyncIterator[bytes], *, content_type: str) -> str:
        """Store one result whole or not at all.

        Args:
            name: A safe file name with its suffix; an object of that name is replaced.
            chunks: The content. What reading it raises has to leave no object behind.
            content_type: What it is, such as ``image/png``.

        Returns:
            Where it is, for the caller of `download`.
        """
        ...
