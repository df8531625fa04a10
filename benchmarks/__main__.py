"""Run all benchmarks, and write RESULTS.md and chart.svg beside this file.

python -m benchmarks                    # all, less than 15 minutes on two cores
python -m benchmarks --share 0.1        # all, a tenth of the work: to see that it runs
python -m benchmarks submit waiting     # some, printed and not written
python -m benchmarks reliability        # about 15 minutes, and only when asked for
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from benchmarks import (
    imports,
    instructions,
    latency,
    ledger,
    rate,
    reliability,
    scale,
    submit,
    trouble,
    waiting,
)
from benchmarks.report import Section, draw, render

SECTIONS: Final[dict[str, Callable[[float], Section]]] = {
    "trouble": trouble.measure,
    "submit": submit.measure,
    "instructions": instructions.measure,
    "rate": rate.measure,
    "waiting": waiting.measure,
    "scale": scale.measure,
    "ledger": ledger.measure,
    "latency": latency.measure,
    "imports": imports.measure,
    "reliability": reliability.measure,
}
_WHEN_ASKED: Final = {"reliability"}
_HERE: Final = Path(__file__).parent


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("sections", nargs="*", help=f"of {', '.join(SECTIONS)}; none: all")
    parser.add_argument("--share", type=float, default=1.0, help="of the full work, at most 1")
    parser.add_argument("--note", default="", help="about the circumstances, for the report")
    options = parser.parse_args()
    unknown = set(options.sections) - SECTIONS.keys()
    if unknown:
        parser.error(f"no such section: {', '.join(sorted(unknown))}")
    began = time.monotonic()
    sections = []
    for name in options.sections or [name for name in SECTIONS if name not in _WHEN_ASKED]:
        print(f"{time.monotonic() - began:6.0f} s  {name}", file=sys.stderr, flush=True)
        sections.append(SECTIONS[name](options.share))
    tried = (_HERE / "tried.md").read_text()
    text = render(sections, time.monotonic() - began, tried, options.note)
    if options.sections:
        print(text)
        # A limit of 0 is a promise.
        sys.exit(any(each.value and not each.limit for part in sections for each in part.targets))
    (_HERE / "RESULTS.md").write_text(text)
    (_HERE / "chart.svg").write_text(draw(sections))


if __name__ == "__main__":
    main()
