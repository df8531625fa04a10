"""Take the pictures of the README and the documentation; ``nox -s screenshots`` runs it.

The command runs in a pseudo-terminal, pyte interprets what it writes, and a few of its screens
become an animated SVG. Chromium shows the page that the demo leaves behind.
"""

import asyncio
import csv
import fcntl
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby, pairwise
from pathlib import Path

import pyte
from attrs import frozen
from selenium import webdriver
from selenium.webdriver.support.ui import WebDriverWait

from aireiter_async.testing import FakeService

IMAGES = Path(__file__).parent / "images"
COLUMNS, ROWS = 92, 40
STEP = 0.5  # seconds between two screens of an animation
HOLD = 20.0  # seconds for which the last one stays
CELL_WIDTH, LINE_HEIGHT, PADDING, TITLE = 8.43, 19, 18, 34  # pixels, at a font size of 14
COLOURS = {
    "default": "#d6dbe3",
    "black": "#5b6472",
    "brightblack": "#8b95a5",
    "red": "#ff7b72",
    "green": "#7ee787",
    "brown": "#e3b341",  # pyte's name for yellow
    "blue": "#79c0ff",
    "magenta": "#d2a8ff",
    "cyan": "#56d4dd",
    "white": "#f0f3f6",
}
WIDTH, HEIGHT = 1280, 810  # of the browser, in pixels

Line = tuple[tuple[str, str, bool], ...]  # runs of text, colour and boldness


@frozen
class Frame:
    """A screen, and the seconds after the start at which it was shown."""

    seconds: float
    lines: tuple[Line, ...]


def record(command: Sequence[str], shown: str, directory: Path, env: dict[str, str]) -> list[Frame]:
    """Run a command in a pseudo-terminal, and return some of its screens."""
    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.Stream(screen)
    stream.feed(f"\x1b[1;32m$\x1b[0m {shown}\r\n")
    master, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    process = subprocess.Popen(  # noqa: S603 - our own
        command, stdin=terminal, stdout=terminal, stderr=terminal, cwd=directory, env=env
    )
    os.close(terminal)
    frames, began = [Frame(0.0, lines_of(screen))], time.monotonic()
    while text := read(master):
        stream.feed(re.sub("\x1b\\[2m", "\x1b[90m", text))  # pyte knows no dim text
        now = time.monotonic() - began
        if now >= frames[-1].seconds + STEP:
            frames.append(Frame(now, lines_of(screen)))
    if process.wait():
        sys.exit(f"{shown}: {screen.display}")
    return [*frames, Frame(time.monotonic() - began, lines_of(screen))]


def read(descriptor: int) -> str:
    """Read from a pseudo-terminal; empty when the program has closed it."""
    try:
        return os.read(descriptor, 1 << 16).decode()
    except OSError:
        return ""


def lines_of(screen: pyte.Screen) -> tuple[Line, ...]:
    lines = []
    for y in range(screen.lines):
        cells = [screen.buffer[y][x] for x in range(screen.columns)]
        runs = groupby(cells, key=lambda cell: (cell.fg, cell.bold))
        lines.append(tuple(("".join(cell.data for cell in run), *key) for key, run in runs))
    while lines and not "".join(text for text, *_ in lines[-1]).strip():
        lines.pop()
    return tuple(lines)


def animate(frames: Sequence[Frame]) -> str:
    """Return an SVG that plays the frames; where nothing moves, it shows the last."""
    total = frames[-1].seconds + HOLD
    width = round(COLUMNS * CELL_WIDTH + 2 * PADDING)
    height = max(len(frame.lines) for frame in frames) * LINE_HEIGHT + TITLE + PADDING
    ends = [after.seconds for _, after in pairwise(frames)] + [total]
    keys, groups = [], []
    for number, (frame, end) in enumerate(zip(frames, ends, strict=True)):
        last = frame is frames[-1]
        start, stop = 100 * frame.seconds / total, 100 * end / total
        steps = f"0%{{opacity:0}}{start:.2f}%{{opacity:1}}"
        steps += "" if last else f"{stop:.2f}%{{opacity:0}}"
        keys.append(f"@keyframes f{number}{{{steps}}}#f{number}{{animation-name:f{number}}}")
        hidden = "" if last else ' opacity="0"'
        groups.append(f'<g id="f{number}" class="f"{hidden}>{"".join(texts(frame.lines))}</g>')
    dots = "".join(
        f'<circle cx="{PADDING + 4 + 20 * n}" cy="17" r="5.5" fill="{colour}"/>'
        for n, colour in enumerate(("#ff5f57", "#febc2e", "#28c840"))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}">\n<style>\n'
        "text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;"
        "white-space:pre}.b{font-weight:bold}"
        f".f{{animation:{total:.1f}s step-end infinite}}\n"
        + "\n".join(keys)
        + "\n@media (prefers-reduced-motion:reduce){.f{animation:none}}\n</style>\n"
        f'<rect width="{width}" height="{height}" rx="8" fill="#12161d"/>{dots}\n'
        + "\n".join(groups)
        + "\n</svg>\n"
    )


def texts(lines: Sequence[Line]) -> Iterator[str]:
    for row, line in enumerate(lines):
        column, y = 0, TITLE + LINE_HEIGHT * (row + 0.75)
        for text, colour, bold in line:
            if text.strip():
                lead = len(text) - len(text.lstrip())
                shown, fill = text.strip(), COLOURS.get(colour, f"#{colour}")
                weight = ' class="b"' if bold else ""
                x = PADDING + CELL_WIDTH * (column + lead)
                yield (
                    f'<text x="{x:.1f}" y="{y:g}" textLength="{CELL_WIDTH * len(shown):.1f}" '
                    f'fill="{fill}"{weight}>{escape(shown, quote=False)}</text>'
                )
            column += len(text)


def photograph(page: Path, name: str, script: str = "") -> None:
    """Take pictures of a report after *script* has run, in a light and a dark browser."""
    for scheme in ("light", "dark"):
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium")
        for option in ("--headless=new", "--no-sandbox", "--hide-scrollbars"):
            options.add_argument(option)
        driver = webdriver.Chrome(
            options=options, service=webdriver.ChromeService(shutil.which("chromedriver"))
        )
        try:
            metrics = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
            feature = {"name": "prefers-color-scheme", "value": scheme}
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
            driver.get(page.as_uri())
            WebDriverWait(driver, 20).until(
                lambda driver: driver.execute_script(
                    "const pictures = [...document.querySelectorAll('.card img')];"
                    "return pictures.slice(0, 12).every((each) => each.naturalWidth > 0)"
                )
            )
            driver.execute_script(script)
            driver.save_screenshot(str(IMAGES / f"{name}-{scheme}.png"))
        finally:
            driver.quit()


async def record_batch(
    directory: Path, env: dict[str, str], prompts: Sequence[str], options: str
) -> list[Frame]:
    """Record a batch on a service whose tasks take a few seconds."""
    with (directory / "prompts.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["prompt"], *([prompt] for prompt in prompts)])
    line = f"batch prompts.csv {options} --report"
    async with FakeService(durations=3.0, spread=0.4, price=4.0) as service:
        access = {"AIREITER_API_KEY": service.api_key or "", "AIREITER_BASE_URL": service.url}
        return await asyncio.to_thread(
            record, program(line), f"aireiter {line}", directory, {**env, **access}
        )


def program(line: str) -> list[str]:
    return [sys.executable, "-m", "aireiter_async", *line.split()]


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AIREITER_")}
    env = {**kept, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LINES": str(ROWS)}
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        demo = record(program("demo"), "aireiter demo", directory, env)
        (IMAGES / "demo.svg").write_text(animate(demo), encoding="utf-8")
        photograph(directory / "aireiter-demo" / "run.html", "report")
        prompts = [f"a lighthouse, {n}" for n in range(500)]
        options = "-m nano_banana_v2 -o results --max-credits 5000"
        batch = asyncio.run(record_batch(directory, env, prompts, options))
        (IMAGES / "batch.svg").write_text(animate(batch), encoding="utf-8")
        prompts = ["a lighthouse in a storm", "a heron at dawn", "a red kite by the sea"]
        options = "--each model=nano_banana_v2,seedream_v5_lite,flux_2_pro -o sweep --ledger s.db"
        asyncio.run(record_batch(directory, env, prompts, options))
        show = "document.getElementById('compare').click(); window.scrollTo(0, 300)"
        photograph(directory / "sweep" / "s.html", "compare", show)


if __name__ == "__main__":
    main()
