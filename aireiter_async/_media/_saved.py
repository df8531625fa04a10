"""Digests of saved files, and checks that files are intact."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import define, field, frozen


@define
class Digest:
    """Computes size and digest of content in pieces.

    Attributes:
        size: Bytes so far.
    """

    size: int = 0
    _sha256: Any = field(factory=hashlib.sha256)

    def update(self, data: bytes) -> None:
        self.size += len(data)
        self._sha256.update(data)

    def saved(self, place: Any) -> "Saved":
        return Saved(place, self.size, self._sha256.hexdigest())


@frozen
class Saved:
    """A saved result.

    Attributes:
        place: Its path, or what a sink returned.
        size: Its size in bytes.
        sha256: Its digest, in hexadecimal.
    """

    place: Any
    size: int
    sha256: str

    def to_dict(self) -> dict[str, Any]:
        """Return it in the form that a ledger records."""
        place = self.place
        path = place.absolute() if isinstance(place, Path) else place
        return {"path": str(path), "size": self.size, "sha256": self.sha256}


@frozen
class Found:
    """The recorded files of a task, as found in a directory.

    Attributes:
        paths: Where they are, or should be.
        files: What a ledger records of them.
        damaged: The positions of those that are missing or have changed.
    """

    paths: list[Path]
    files: list[dict[str, Any]]
    damaged: list[int]


def find_saved(files: Sequence[Mapping[str, Any]], directory: Path) -> Found | None:
    """Look for recorded files in *directory*; blocks.

    They may have been moved there since, or recorded by a path that was relative to another
    working directory.

    Returns:
        None if they were not saved there.
    """
    place = directory.resolve()
    names = [Path(file["path"]).name for file in files]
    here = [{**file, "path": str(place / name)} for file, name in zip(files, names, strict=True)]
    damaged = [position for position, file in enumerate(here) if not _is_intact(file)]
    if damaged and any(Path(file["path"]).parent.resolve() != place for file in files):
        return None
    return Found([directory / name for name in names], here, damaged)


def _is_intact(file: Mapping[str, Any]) -> bool:
    path = Path(file["path"])
    try:
        if not path.is_file() or path.stat().st_size != file["size"]:
            return False
        with path.open("rb") as content:
            return bool(hashlib.file_digest(content, "sha256").hexdigest() == file["sha256"])
    except OSError:
        return False
