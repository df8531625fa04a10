"""Digests of saved files, and checks that files are intact."""

import hashlib
import os
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
        return {"path": str(self.place), "size": self.size, "sha256": self.sha256}


def find_damaged(files: Sequence[Mapping[str, Any]], directory: Path) -> list[int] | None:
    """Return the positions of recorded files that are missing or have changed; blocks.

    Returns:
        None if they were not saved in *directory*.
    """
    place = os.path.realpath(directory)
    if any(os.path.realpath(Path(file["path"]).parent) != place for file in files):
        return None
    return [position for position, file in enumerate(files) if not _is_intact(file)]


def _is_intact(file: Mapping[str, Any]) -> bool:
    path = Path(file["path"])
    try:
        if not path.is_file() or path.stat().st_size != file["size"]:
            return False
        with path.open("rb") as content:
            return bool(hashlib.file_digest(content, "sha256").hexdigest() == file["sha256"])
    except OSError:
        return False
