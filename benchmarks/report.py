"""What was measured, as Markdown and as a chart."""

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from attrs import field, frozen

_PACKAGES: Final = (
    "aireiter-async",
    "aiohttp",
    "attrs",
    "cattrs",
    "backoff",
    "uvloop",
    "httpx",
    "fal-client",
    "runwayml",
    "replicate",
    "openai",
    "google-genai",
    "comfy-sdk",
    "zyte-api",
)
_METHOD: Final = (
    "Every cost is the client's own process CPU time, user and system, all its threads. Each "
    "client runs in a process of its own, the service in another, on loopback. Rounds are "
    "interleaved; a ratio is taken within a round, and the median and the range over the "
    "rounds are shown. Ratios carry over to other machines; absolute times do not."
)
_REPEAT: Final = (
    "Written by `nox -s bench` (or, with the packages of the dependency group `bench`, by "
    "`python -m benchmarks`); do not edit."
)
_COLOURS: Final = {"ours": "#2f6fde", "bare": "#6b7280", "peer": "#c7ccd4"}
_MET: Final = "met"
_LEFT: Final = 335
_WIDTH: Final = 920
_ROW: Final = 26
_HEAD: Final = 42
_GAP: Final = 20


@frozen
class Table:
    """Rows under a head; all cells are text.

    Attributes:
        head: One text per column.
        rows: Rows of as many texts.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __str__(self) -> str:
        """Show it as Markdown: the first column to the left, numbers to the right."""
        rule = ["---", *["--:"] * (len(self.head) - 1)]
        return "\n".join(f"| {' | '.join(row)} |" for row in (self.head, rule, *self.rows))


@frozen
class Target:
    """A limit to be kept.

    Attributes:
        claim: What is compared with what.
        limit: At most this.
        value: The measured value; None: it could not be measured.
        span: The range over the rounds, or how it was measured.
        why: The reason, where it is missed.
    """

    claim: str
    limit: float
    value: float | None
    span: str = ""
    why: str = ""

    @property
    def verdict(self) -> str:
        """Met, or by how much it was missed."""
        if self.value is None:
            return "not measured"
        if self.value <= self.limit:
            return _MET
        by = f" by {100 * (self.value / self.limit - 1):.0f} %" if self.limit else ""
        return f"missed{by}"


@frozen
class Section:
    """One subject of the report.

    Attributes:
        title: The heading.
        text: The method, and remarks.
        tables: The measurements.
        targets: The limits to be kept.
        bars: For the chart: label, kind (``ours``, ``bare``, ``peer``) and a number.
        chart: What the numbers are.
    """

    title: str
    text: str
    tables: Sequence[Table] = ()
    targets: Sequence[Target] = ()
    bars: Sequence[tuple[str, str, float]] = field(factory=tuple)
    chart: str = ""


def render(sections: Sequence[Section], seconds: float, tried: str, note: str) -> str:
    """Return the whole report as Markdown.

    Args:
        sections: What was measured.
        seconds: How long it took.
        tried: Optimizations that paid, and those that did not.
        note: The circumstances, if they matter.
    """
    targets = Table(
        ["target", "at most", "measured", "range", "verdict", "note"],
        [
            [
                target.claim,
                f"{target.limit:.4g}",
                "-" if target.value is None else f"{target.value:.4g}",
                target.span,
                target.verdict,
                "" if target.verdict == _MET else target.why,
            ]
            for section in sections
            for target in section.targets
        ],
    )
    parts = [
        "# Results",
        _circumstances(seconds),
        *([note] if note else []),
        _METHOD,
        "![Charges when responses are lost, CPU per submit, memory](chart.svg)",
        "## Targets",
        str(targets),
    ]
    for section in sections:
        parts += [f"## {section.title}", section.text, *map(str, section.tables)]
    return "\n\n".join([*parts, tried])


def _circumstances(seconds: float) -> str:
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    where = f"{platform.python_implementation()} {platform.python_version()}, "
    where += f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    took = f"the whole run took {seconds / 60:.1f} minutes"
    packages = ", ".join(filter(None, map(_version, _PACKAGES)))
    return f"{when}; {where}; {took}. {_REPEAT}\n\n{packages}."


def draw(sections: Sequence[Section]) -> str:
    """Return bar charts as SVG, one for each section that has bars."""
    lines: list[str] = []
    top = 0
    for section in sections:
        if section.bars:
            lines += _panel(section, top)
            top += _HEAD + _ROW * len(section.bars) + _GAP
    size = f'width="{_WIDTH}" height="{top}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top}" {size}>',
            '<g font-family="system-ui, sans-serif" font-size="13">',
            f'<rect {size} fill="white"/>',
            *lines,
            "</g>",
            "</svg>",
            "",
        ]
    )


def _panel(section: Section, top: int) -> Sequence[str]:
    """Return one chart: the shorter a bar, the better."""
    bars = sorted(section.bars, key=lambda bar: bar[2])
    longest = max(number for *_, number in bars)
    lines = [_text(16, top + 26, section.chart, 'font-size="16" font-weight="600"')]
    for row, (label, kind, number) in enumerate(bars):
        y = top + _HEAD + _ROW * row
        length = max(2.0, (_WIDTH - _LEFT - 80) * number / longest)
        bold = 'font-weight="600"' if kind == "ours" else ""
        place = f'x="{_LEFT}" y="{y + 2}" width="{length:.1f}" height="{_ROW - 8}"'
        lines += [
            _text(_LEFT - 8, y + 15, label, f'text-anchor="end" {bold}'),
            f'<rect {place} rx="2" fill="{_COLOURS[kind]}"/>',
            _text(_LEFT + length + 6, y + 15, f"{number:,.3g}"),
        ]
    return lines


def _text(x: float, y: float, text: str, style: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="#111827" {style}>{escape(text)}</text>'


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return ""
