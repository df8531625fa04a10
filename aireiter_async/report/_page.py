"""Render the rows of a ledger as an HTML page; no I/O except reading lyrics."""

import base64
import hashlib
import html
import json
import os
import re
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from importlib import resources
from itertools import chain
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from attrs import define, field

MOST_TASKS: Final = 20_000  # a browser filters these within 200 ms
_GENERATOR: Final = b'<meta name="generator" content="aireiter_async">'
_HEAD: Final = 1024  # bytes of a page that have it
_MOST_BINS: Final = 60
# Seconds per bin of the chart.
_STEPS: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 86400)
_LONGEST_TEXT: Final = 20_000  # characters of lyrics
_KINDS: Final = {
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".webp", ".gif", ".avif", ".svg"), "image"),
    **dict.fromkeys((".mp4", ".mov", ".webm", ".m4v", ".mkv"), "video"),
    **dict.fromkeys((".mp3", ".m4a", ".wav", ".ogg", ".opus", ".flac", ".aac"), "audio"),
    ".txt": "text",
}
_STATUSES: Final = {
    "intended": "maybe sent",
    "submitted": "running",
    "completed": "succeeded",
    "downloaded": "succeeded",
    "failed": "failed",
    "rejected": "rejected",
    "uncertain": "uncertain",
}
_BAD: Final = frozenset({"failed", "rejected"})

Thumbnail = Callable[[Path], str | None]


@define
class _Totals:
    """Sums, and the ends of tasks: when, whether badly, and the credits; 17 bytes for each."""

    statuses: Counter[str] = field(factory=Counter[str])
    credits_used: float = 0.0
    credits_estimated: float = 0.0
    first: float | None = None
    last: float | None = None
    ended: "array[float]" = field(factory=lambda: array("d"))
    bad: bytearray = field(factory=bytearray)
    used: "array[float]" = field(factory=lambda: array("d"))
    tasks: int = 0

    def count(self, task: Mapping[str, Any], ended: float | None) -> None:
        self.tasks += 1
        self.statuses[task["status"]] += 1
        self.credits_used += task["credits"] or 0.0
        self.credits_estimated += task["estimate"] or 0.0
        for moment in (task["created"], ended):
            if moment is not None:
                self.first = moment if self.first is None else min(self.first, moment)
                self.last = moment if self.last is None else max(self.last, moment)
        if ended is not None:
            self.ended.append(ended)
            self.bad.append(task["status"] in _BAD)
            self.used.append(task["credits"] or 0.0)


@define
class PageBuilder:
    """Builds the page of a ledger from its rows; blocks.

    It keeps no rows, and of the tasks what the page shows.

    Attributes:
        directory: The page's directory, to which links to files are relative.
        thumbnail: Returns a small picture of a file as a data URL, or None.
    """

    directory: Path
    thumbnail: Thumbnail | None = None
    _totals: _Totals = field(factory=_Totals, init=False)
    # Whether each has failed, and its JSON.
    _newest: deque[tuple[bool, str]] = field(factory=lambda: deque(maxlen=MOST_TASKS), init=False)
    _failures: deque[tuple[bool, str]] = field(factory=lambda: deque(maxlen=MOST_TASKS), init=False)
    _attempts: dict[str, int] = field(factory=dict[str, int], init=False)

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows of `Ledger.rows`, in the order of the input."""
        for row in rows:
            task, ended = _read_row(row, self.directory, self.thumbnail)
            task["attempts"] = self._attempts.pop(task["id"], 1)
            if row.get("retried_as"):  # the task that replaces it has its own row
                self._attempts[row["retried_as"]] = task["attempts"] + 1
                continue
            self._totals.count(task, ended)
            # Failures are kept when newer tasks push them out.
            if len(self._newest) == MOST_TASKS and self._newest[0][0]:
                self._failures.append(self._newest[0])
            self._newest.append((task["status"] in _BAD, _encode(task)))

    def render(self, *, title: str, ledger: str, retry: str | None = None) -> Iterator[str]:
        """Yield the page in pieces.

        Args:
            title: The heading.
            ledger: Identifies the ledger; favourites are stored under it.
            retry: The command that submits failed tasks again.
        """
        totals = self._totals
        shown = len(self._failures) + len(self._newest)
        width, chart = _bins(totals)
        data = {
            "title": title,
            "subtitle": _subtitle(totals),
            "ledger": ledger,
            "sums": _sums(totals),
            "bin": width,
            "chart": chart,
            "retry": retry,
            "omitted": totals.tasks - shown,
        }
        before, after = _fill(title)
        yield f'{before}{_encode(data)[:-1]},"tasks":['
        for number, (_, task) in enumerate(chain(self._failures, self._newest)):
            yield f",{task}" if number else task
        yield f"]}}{after}"


def is_page(path: Path) -> bool:
    """Return whether a file is the page of a ledger.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        return _GENERATOR in file.read(_HEAD)


def _encode(value: Any) -> str:
    """Encode for a script element, where only "</" and "<!--" could end the data."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def _fill(title: str) -> tuple[str, str]:
    """Return what is before and after the page's data."""
    template = resources.files(__package__ or "").joinpath("page.html").read_text(encoding="utf-8")
    hashes = {
        tag: base64.b64encode(hashlib.sha256(_element(template, tag).encode()).digest()).decode()
        for tag in ("style", "script")
    }
    # Files beside the page are file: URLs on a disk, and of its own origin behind a web server.
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; "
        f"script-src 'sha256-{hashes['script']}'; style-src 'sha256-{hashes['style']}'; "
        "img-src 'self' file: data:; media-src 'self' file:"
    )
    values = {"policy": policy, "title": html.escape(title)}
    before, after = template.split("{{data}}")
    before = re.sub(r"\{\{(policy|title)\}\}", lambda found: values[found[1]], before)
    return before, after


def _element(template: str, tag: str) -> str:
    start = template.index(f"<{tag}>") + len(tag) + 2
    return template[start : template.index(f"</{tag}>", start)]


def _read_row(
    row: Mapping[str, Any], directory: Path, thumbnail: Thumbnail | None
) -> tuple[dict[str, Any], float | None]:
    created, completed = _seconds(row.get("created_at")), _seconds(row.get("completed_at"))
    status = _STATUSES.get(str(row["state"]), str(row["state"]))
    paths = [Path(path) for path in row.get("paths") or ()]
    params = dict(row.get("params") or {})
    prompt = params.pop("prompt", None)
    task = {
        "id": row["out_task_id"],
        "platform": row.get("task_id"),
        "status": status,
        "model": row["model"],
        "prompt": prompt if isinstance(prompt, str) else "",
        "params": params,
        "credits": row.get("credits_used"),
        "estimate": row.get("estimated_credits"),
        "created": created,
        "seconds": None if created is None or completed is None else max(0.0, completed - created),
        "files": [_file(path, directory, thumbnail) for path in paths],
        "text": _text(paths),
        "error": _error(row.get("error")),
    }
    return task, completed


def _seconds(moment: datetime | str | None) -> float | None:
    if isinstance(moment, str):
        try:
            moment = datetime.fromisoformat(moment)
        except ValueError:
            return None
    if moment is None:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _file(path: Path, directory: Path, thumbnail: Thumbnail | None) -> dict[str, Any]:
    file: dict[str, Any] = {
        "name": path.name,
        "src": _link(path, directory),
        "kind": _KINDS.get(path.suffix.lower(), "file"),
    }
    if thumbnail is not None and file["kind"] == "image" and (small := thumbnail(path)):
        file["thumb"] = small
    return file


def _link(path: Path, directory: Path) -> str:
    """Return a URL of *path* relative to *directory*, with every special character encoded."""
    try:
        relative = os.path.relpath(path, directory)
    except ValueError:  # pragma: no cover - on Windows, another drive
        return path.absolute().as_uri()
    return quote(Path(relative).as_posix().encode("utf-8", "surrogateescape"))


def _text(paths: Iterable[Path]) -> str | None:
    for path in paths:
        if path.suffix.lower() == ".txt":
            try:
                with path.open(encoding="utf-8", errors="replace") as file:
                    return file.read(_LONGEST_TEXT)
            except OSError:  # it was moved or deleted: the link is still there
                return None
    return None


def _error(error: Any) -> str | None:
    if isinstance(error, Mapping):
        parts = [str(error[name]) for name in ("type", "code", "message") if error.get(name)]
        return ": ".join(parts)
    return None if error is None else str(error)


def _subtitle(totals: _Totals) -> str:
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"{totals.tasks:,} task{'' if totals.tasks == 1 else 's'}, page written {made}"


def _sums(totals: _Totals) -> list[tuple[str, str, str]]:
    statuses = totals.statuses
    sums = [("succeeded", f"{statuses['succeeded']:,}", "good")]
    for status, kind in (("failed", "bad"), ("rejected", "bad"), ("uncertain", "open")):
        if statuses[status]:
            sums.append((status, f"{statuses[status]:,}", kind))
    running = statuses["running"] + statuses["maybe sent"]
    if running:
        sums.append(("running or maybe sent", f"{running:,}", "open"))
    sums.append(("credits used", f"{totals.credits_used:,.6g}", ""))
    sums.append(("credits estimated", f"{totals.credits_estimated:,.6g}", ""))
    if totals.first is not None and totals.last is not None:
        sums.append(("from first to last", _duration(totals.last - totals.first), ""))
    return sums


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _bins(totals: _Totals) -> tuple[int, list[tuple[float, int, int, float]]]:
    """Return the seconds per bin, and for each its start, successes, failures, credits so far."""
    if not totals.ended:
        return 1, []
    first, last = min(totals.ended), max(totals.ended)
    fitting = (step for step in _STEPS if (last - first) / step < _MOST_BINS)
    width = next(fitting, _STEPS[-1] * (1 + int((last - first) / _STEPS[-1] / _MOST_BINS)))
    start = first // width * width
    bins = [[start + n * width, 0, 0, 0.0] for n in range(int((last - start) // width) + 1)]
    for ended, bad, used in zip(totals.ended, totals.bad, totals.used, strict=True):
        found = bins[int((ended - start) // width)]
        found[2 if bad else 1] += 1
        found[3] += used
    spent = 0.0
    chart: list[tuple[float, int, int, float]] = []
    for moment, succeeded, failed, credits_used in bins:
        spent += credits_used
        chart.append((moment, int(succeeded), int(failed), spent))
    return width, chart
