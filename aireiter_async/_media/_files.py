"""Save results in directories: files are complete or absent, and never overwrite others."""

import itertools
import os
import stat
import sys
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Hashable, Iterator
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Final

from aireiter_async._media._saved import Digest
from aireiter_async._threads import Threads

if sys.platform == "win32":  # pragma: no cover

    def _flock(_descriptor: int) -> None:
        """Do nothing: Windows does not remove open files."""

else:
    import fcntl

    def _flock(descriptor: int) -> None:
        """Lock an open file; raise if another open file has locked it."""
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


_STABLE_NAMES: Final = 4  # temporary names per result that the next run checks for leftovers
_BLOCK: Final = 1024 * 1024  # bytes per write, off the event loop


class Owners:
    """The results that own the latest names, bounded in memory.

    Args:
        remembered: The maximum number of names.
    """

    def __init__(self, remembered: int) -> None:
        self._remembered = remembered
        self._owners: OrderedDict[Hashable, Hashable] = OrderedDict()

    def find(self, name: Hashable) -> Hashable | None:
        """Return the owner of *name*, or None if unknown."""
        return self._owners.get(name)

    def add(self, name: Hashable, owner: Hashable) -> None:
        """Record the owner of *name*."""
        self._owners[name] = owner
        self._owners.move_to_end(name)
        if len(self._owners) > self._remembered:
            self._owners.popitem(last=False)


class Files:
    """Saves results in directories, for a client and its views.

    Args:
        threads: Runs the blocking calls.
        link: Creates a hard link; fails if the name is taken.
        remembered: The maximum number of files whose results are remembered.
    """

    def __init__(
        self,
        threads: Threads,
        link: Callable[[Path, Path], None] = os.link,
        remembered: int = 4096,
    ) -> None:
        self._threads = threads
        self._link = link
        self._lock = threading.Lock()
        self._owners = Owners(remembered)

    def adopt(self, path: Path, owner: Hashable) -> None:
        """Note that the file at *path*, if there is one, is the result of *owner*."""
        self._owners.add(_key(path), owner)

    async def save(
        self,
        chunks: AsyncIterator[bytes],
        folder: Path,
        stem: str,
        suffix: str,
        *,
        owner: Hashable,
        replace: bool,
        digest: Digest | None = None,
    ) -> Path:
        """Write *chunks* to a file, under a temporary name until it is complete and on disk.

        An existing file of that name is replaced if it is the same result: saved by *owner* or,
        if this client has not saved it, with equal content. Otherwise a number is appended.

        Args:
            chunks: The content.
            folder: The directory, created if missing.
            stem: The file's name without its suffix, safe.
            suffix: The suffix, including its dot.
            owner: Identifies the result.
            replace: Whether an existing file that this client has not saved is an earlier copy of
                the result.
            digest: Updated with the content.

        Raises:
            OSError: The file could not be written.
        """
        partial = _Partial(folder, stem, Digest() if digest is None else digest)
        buffer = bytearray()
        try:
            async for chunk in chunks:
                buffer += chunk
                if len(buffer) >= _BLOCK:
                    await self._threads.run(partial.write, bytes(buffer))
                    buffer.clear()
            names = _names(folder, stem, suffix)
            return await self._threads.run(
                self._finish, partial, bytes(buffer), names, owner, replace=replace
            )
        finally:
            partial.discard()

    def _finish(
        self,
        partial: "_Partial",
        rest: bytes,
        names: Iterator[Path],
        owner: Hashable,
        *,
        replace: bool,
    ) -> Path:
        partial.write(rest)
        partial.sync()
        target = next(names)
        with self._lock:
            while not self._move(partial.path, target, owner, replace=replace):
                target, replace = next(names), False
            self.adopt(target, owner)
        partial.finished = True
        _sync_folder(target.parent)
        return target

    def _move(self, partial: Path, target: Path, owner: Hashable, *, replace: bool) -> bool:
        """Move a complete file to its name, unless another result owns that."""
        if self._move_if_free(partial, target):
            return True
        known = self._owners.find(_key(target))
        own = replace or _same_content(partial, target) if known is None else known == owner
        if not own or target.is_dir():
            return False
        partial.replace(target)
        return True

    def _move_if_free(self, partial: Path, target: Path) -> bool:
        """Move a complete file to a name unless that is taken; return whether it was moved."""
        try:
            self._link(partial, target)
        except FileExistsError:
            return False
        except FileNotFoundError:  # something has removed the file
            raise
        except OSError:  # the file system has no hard links
            try:
                os.close(os.open(target, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return False
            try:
                partial.replace(target)
            except OSError:
                target.unlink()
                raise
        else:
            partial.unlink()
        return True


class _Partial:
    """A file under a temporary name; its methods block.

    Its name depends only on the result's, so that leftovers of a killed process are found and
    removed. A lock marks the files in use.
    """

    def __init__(self, folder: Path, stem: str, digest: Digest) -> None:
        self.finished = False
        self._digest = digest
        few = itertools.islice(_names(folder, f".{stem}", ".part"), _STABLE_NAMES)
        # If many write the same result at once, probing all numbered names would take too long.
        self._names = itertools.chain(few, _random_names(folder, stem))
        self._folder = folder
        self._file: FileIO | None = None

    def write(self, data: bytes) -> None:
        if self._file is None:
            _make_folder(self._folder)
            self.path, self._file = next(filter(None, map(create, self._names)))
        self._digest.update(data)
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]

    def sync(self) -> None:
        assert self._file is not None  # noqa: S101 - it was written
        os.fsync(self._file.fileno())
        if sys.platform == "win32":  # pragma: no cover - an open file cannot be renamed there
            self._file.close()

    def discard(self) -> None:
        """Remove an unfinished file; its errors are suppressed in favour of the original one."""
        if self._file is None:
            return
        if sys.platform == "win32":  # pragma: no cover - an open file cannot be removed there
            self._file.close()
        with suppress(OSError):
            try:
                if not self.finished:
                    self.path.unlink()
            finally:  # unlock last, so that no other process removes the file meanwhile
                self._file.close()


def _key(path: Path) -> Hashable:
    """Return a key that is equal for paths that differ only in case."""
    return path.parent, path.name.casefold()


def _names(folder: Path, stem: str, suffix: str) -> Iterator[Path]:
    yield folder / f"{stem}{suffix}"
    for number in itertools.count(2):  # pragma: no branch - endless
        yield folder / f"{stem}-{number}{suffix}"


def _random_names(folder: Path, stem: str) -> Iterator[Path]:
    while True:
        yield folder / f".{stem}-{os.urandom(4).hex()}.part"


def create(path: Path, flock: Callable[[int], None] = _flock) -> tuple[Path, FileIO] | None:
    """Create a file for exclusive use; None if the name is in use."""
    with suppress(OSError):
        _remove_leftover(path, flock)
    try:
        file = FileIO(path, "x")
    except FileExistsError:
        return None
    try:
        flock(file.fileno())
        if os.path.samestat(os.fstat(file.fileno()), path.lstat()):
            return path, file
    except (BlockingIOError, FileNotFoundError):
        pass  # another process has mistaken it for a leftover
    except OSError:  # the file system has no locks
        return path, file
    file.close()
    return None


def _remove_leftover(path: Path, flock: Callable[[int], None]) -> None:
    if sys.platform == "win32":  # pragma: no cover
        path.unlink()
        return
    leftover = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        flock(leftover)
        if os.path.samestat(os.fstat(leftover), path.lstat()):
            path.unlink()
    finally:
        os.close(leftover)


def _same_content(one: Path, other: Path) -> bool:
    try:
        found = other.stat()
        if not stat.S_ISREG(found.st_mode) or found.st_size != one.stat().st_size:
            return False
        with one.open("rb") as left, other.open("rb") as right:
            while block := left.read(_BLOCK):
                if block != right.read(_BLOCK):
                    return False
    except OSError:  # unreadable, or a broken link: not the same result
        return False
    return True


def _make_folder(folder: Path) -> None:
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Flush a directory's entries to disk, if the system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
