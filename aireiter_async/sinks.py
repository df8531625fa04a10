"""Sinks for `AsyncClient.download` that store results with obstore or fsspec.

::

    store = obstore.store.S3Store("bucket")
    await client.download(task, ObstoreSink(store, "results/"))

Neither library is a dependency of this package.
"""

import asyncio
import importlib
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any, Final, Self

from attrs import field, frozen

from aireiter_async._media import Sink
from aireiter_async._threads import Threads, outlast

__all__ = ["FsspecSink", "ObstoreSink", "Sink"]

# The argument of `put_file` for the content type, by protocol.
_CONTENT_TYPES: Final = {
    "s3": "ContentType",
    "s3a": "ContentType",
    "gs": "content_type",
    "gcs": "content_type",
}


@frozen
class ObstoreSink:
    """Stores results with obstore: in S3, Google Cloud Storage, Azure, memory or a directory.

    If a download fails or is cancelled, the upload is aborted.

    Attributes:
        store: An instance of a class in `obstore.store`.
        prefix: Prepended to each name, such as ``"results/"``.
    """

    store: Any = field(eq=id)
    prefix: str = ""

    async def put(self, name: str, chunks: AsyncIterator[bytes], *, content_type: str) -> str:
        """Store one result, with its content type if the store supports attributes.

        Returns:
            The path in the store.
        """
        put_async = importlib.import_module("obstore").put_async
        path = f"{self.prefix}{name}"
        feed = _Feed(chunks)
        try:
            await feed.upload(put_async, path, self.store, {"Content-Type": content_type})
        except NotImplementedError:
            if feed.started:
                raise
            await feed.upload(put_async, path, self.store, None)
        return path


class _Feed:
    """A result's chunks, for a library that reads them in a task of its own."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._reader: asyncio.Task[Any] | None = None
        self._stopped = False
        self.started = False

    async def upload(
        self, put: Callable[..., Awaitable[object]], path: str, store: Any, attributes: Any
    ) -> None:
        """Upload the chunks; if cancelled, wait until the upload is aborted."""
        putting = asyncio.ensure_future(put(store, path, self, attributes=attributes))
        try:
            await asyncio.shield(putting)
        except asyncio.CancelledError:
            self._stopped = True
            if self._reader is not None:
                self._reader.cancel()
            await outlast(putting)
            raise

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        self.started = True
        self._reader = asyncio.current_task()
        try:
            if not self._stopped:
                return await anext(self._chunks)
        except asyncio.CancelledError:  # by `upload`: only an error aborts the upload
            pass
        finally:
            self._reader = None
        raise ConnectionAbortedError("the download was cancelled")


@frozen
class FsspecSink:
    """Stores results in any fsspec file system.

    A result is first written to a local temporary file, since few file systems can discard a
    partial one. The work is done in threads.

    Attributes:
        fs: A file system, not created with ``asynchronous=True``.
        prefix: Prepended to each name, such as ``"bucket/results/"``.
    """

    fs: Any = field(eq=id)
    prefix: str = ""
    _threads: Threads = field(factory=Threads, init=False, repr=False, eq=False)

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what a pickle makes the sink from: without its threads."""
        return FsspecSink, (self.fs, self.prefix)

    async def put(self, name: str, chunks: AsyncIterator[bytes], *, content_type: str) -> str:
        """Store one result, with its content type on S3 and Google Cloud Storage.

        Returns:
            The URL, such as ``s3://bucket/results/a.png``.
        """
        run = self._threads.run
        path = f"{self.prefix}{name}"
        suffix = PurePosixPath(name).suffix  # other file systems guess the type from it
        descriptor, local = await run(tempfile.mkstemp, suffix=suffix)
        try:
            with os.fdopen(descriptor, "wb") as file:
                async for chunk in chunks:
                    await run(file.write, chunk)
            await run(self._put_file, local, path, content_type)
        finally:
            await run(os.unlink, local)
        return str(self.fs.unstrip_protocol(path))

    def _put_file(self, local: str, path: str, content_type: str) -> None:
        protocols = self.fs.protocol
        protocol = protocols if isinstance(protocols, str) else protocols[0]
        option = _CONTENT_TYPES.get(protocol)
        options = {option: content_type} if option else {}
        before = self._size(path)
        try:
            try:
                self.fs.put_file(local, path, **options)
            except FileNotFoundError:  # the directory is missing
                self.fs.makedirs(self.fs._parent(path), exist_ok=True)  # noqa: SLF001 - not public
                self.fs.put_file(local, path, **options)
        except Exception:
            if self._size(path) != before:  # a part of it; an earlier copy is left alone
                with suppress(Exception):  # in favour of the first error
                    self.fs.rm_file(path)
            raise

    def _size(self, path: str) -> Any:
        with suppress(Exception):  # it is missing, or may not be asked for
            return self.fs.size(path)
        return None
