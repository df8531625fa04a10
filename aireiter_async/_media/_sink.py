"""The protocol for storing results anywhere but in a directory."""

from collections.abc import AsyncIterator
from typing import Protocol, runtime_checkable


@runtime_checkable
class Sink(Protocol):
    """Stores results, for example in object storage; `aireiter_async.sinks` has two sinks."""

    async def put(self, name: str, chunks: AsyncIterator[bytes], *, content_type: str) -> str:
        """Store one result completely or not at all.

        Args:
            name: A safe file name with a suffix, always of the same result; an existing object of
                that name is replaced.
            chunks: The content. If reading it raises, no object must be left behind.
            content_type: The media type, such as ``image/png``.

        Returns:
            The object's location, which `download` returns.
        """
        ...
