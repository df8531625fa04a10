"""Read bodies of bounded length."""

from typing import Final

import aiohttp

# Bytes. A query may echo the task's input: at most nine images of 10 MB in base64.
MAX_BODY: Final = 256 * 1024 * 1024


async def read_body(content: aiohttp.StreamReader) -> bytes | None:
    """Return a body, or None if it is too long: the sender decides how far it decompresses."""
    first = await content.readany()
    if content.at_eof() and len(first) <= MAX_BODY:  # nearly every response
        return first
    chunks = [first]
    length = len(first)
    while chunk := await content.readany():
        chunks.append(chunk)
        length += len(chunk)
        if length > MAX_BODY:
            return None
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
