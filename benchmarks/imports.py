"""What an import costs, in fresh interpreters."""

import os
import subprocess
import sys
from typing import Final

from benchmarks.fleet import Numbers
from benchmarks.report import Section, Table, Target

_BASE: Final = "aiohttp, attrs, cattrs"
_OURS: Final = "aireiter_async"
_STATEMENTS: Final = ("pass", f"import {_BASE}", f"import {_OURS}")
_CODE: Final = "import time; t = time.process_time(); {}; print(time.process_time() - t)"
_ROUNDS: Final = 25


def measure(share: float) -> Section:
    """Import in turn, many times."""
    # Installed packages are compiled, and so is a clone's after its first import.
    environment = {key: os.environ[key] for key in os.environ if key != "PYTHONDONTWRITEBYTECODE"}
    found: dict[str, list[float]] = {statement: [] for statement in _STATEMENTS}
    for turn in range(-1, max(3, round(_ROUNDS * share))):
        for statement in _STATEMENTS:
            done = subprocess.run(  # noqa: S603 - ourselves
                [sys.executable, "-c", _CODE.format(statement)],
                check=True,
                capture_output=True,
                text=True,
                env=environment,
            )
            if turn >= 0:  # the first compiles, and warms up the disk's cache
                found[statement].append(1e3 * float(done.stdout))
    _, base, ours = (Numbers(numbers) for numbers in found.values())
    ratio = ours.against(base)
    rows = [
        [f"`import {_BASE}`", f"{base.median:.0f}"],
        [f"`import {_OURS}`", f"{ours.median:.0f}"],
    ]
    return Section(
        "Import",
        f"CPU milliseconds in fresh interpreters, {len(ours.rounds)} interleaved rounds.",
        [Table(["statement", "ms"], rows)],
        [Target("import / aiohttp, attrs and cattrs", 1.2, ratio.median, ratio.span)],
    )
