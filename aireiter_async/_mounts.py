"""Network file systems, whose locks SQLite cannot rely on."""

import os
import re
from pathlib import Path
from typing import Final

MOUNTS: Final = Path("/proc/self/mounts")
"""The system's mount table."""

_NETWORK: Final = frozenset(
    {"9p", "afs", "ceph", "cifs", "fuse.sshfs", "glusterfs", "nfs", "nfs4", "smb3", "smbfs"}
)
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")  # spaces, tabs, newlines and backslashes


def find_network(path: Path, mounts: Path = MOUNTS) -> str | None:
    """Return the type of *path*'s file system if it is a network file system, else None.

    Args:
        path: A path; it need not exist.
        mounts: The mount table; where there is none, nothing is found.
    """
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        return None
    place = os.path.realpath(path)
    deepest, kind = "", ""
    for line in lines:
        _, mount, found, *_ = line.split(" ")
        mount = _ESCAPED.sub(lambda code: chr(int(code[1], 8)), mount)
        inside = place == mount or place.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(deepest):
            deepest, kind = mount, found
    return kind if kind in _NETWORK else None
