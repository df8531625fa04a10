"""The report page in a real browser: nothing in the console, filters, players, keyboard."""

import shutil
import struct
import wave
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from aireiter_async.report import PageBuilder
from aireiter_async.testing import FakeService
from tests.command import Ran

webdriver = pytest.importorskip("selenium.webdriver")
WebDriverWait = pytest.importorskip("selenium.webdriver.support.ui").WebDriverWait
Keys = pytest.importorskip("selenium.webdriver.common.keys").Keys
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver"),
]
OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",  # scripts press the buttons here
)
NAMES = ("a#1.png", "what?.png", "100%41.png", "ein bild.png")
HOSTILE = (
    "<script>document.title='broken'</script>",
    "</script><img src=x onerror=\"document.title='broken'\">",
    "\u202eright to left\u200e",
    "x" * 100_000,
)
START = datetime(2026, 11, 26, tzinfo=UTC)
Show = Callable[..., None]


def png(number: int) -> bytes:
    width, height = 32, 18
    shades = bytes((number * step + x * 7) % 256 for x in range(width) for step in (37, 101, 173))

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress((b"\0" + shades) * height)
    parts = chunk(b"IHDR", head), chunk(b"IDAT", rows), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tone(path: Path) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(1)
        file.setframerate(8000)
        file.writeframes(bytes(range(256)) * 16)


def row(number: int, **changes: Any) -> dict[str, Any]:
    created = START + timedelta(seconds=number)
    return {
        "out_task_id": f"task-{number}",
        "state": "failed" if number % 17 == 16 else "downloaded",
        "model": ("nano_banana_v2", "seedream_v5_lite", "gpt_4o", "krea_2_turbo")[number % 4],
        "params": {"prompt": f"a heron, take {number // 4:05}", "aspect_ratio": "1:1"},
        "credits_used": 2.5,
        "created_at": created,
        "completed_at": created + timedelta(seconds=5 + number % 7),
    } | changes


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for option in (*OPTIONS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.set_window_size(1600, 1000)
    driver.implicitly_wait(10)
    yield driver
    driver.quit()


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Iterator[Show]:
    """Write a report and open it; in the end the console must be empty."""
    browser.get_log("browser")

    def open_page(rows: list[dict[str, Any]], ledger: str = "ring", to: Path = tmp_path) -> None:
        page, builder = to / "run.html", PageBuilder(to)
        builder.add(rows)
        text = "".join(builder.render(title="run.db", ledger=ledger))
        page.write_text(text, encoding="utf-8")
        browser.get(page.as_uri())

    yield open_page
    assert browser.get_log("browser") == []
    assert browser.title == "run.db"


def click(browser: Any, selector: str) -> None:
    browser.find_element("css selector", selector).click()


def texts(browser: Any, selector: str) -> list[str]:
    return [node.text for node in browser.find_elements("css selector", selector)]


def set_value(browser: Any, identity: str, value: str, event: str = "change") -> None:
    browser.execute_script(
        "const node = document.getElementById(arguments[0]); node.value = arguments[1];"
        "node.dispatchEvent(new Event(arguments[2]))",
        *(identity, value, event),
    )


def loaded(browser: Any) -> bool:
    script = "return [...document.querySelectorAll('.card img')].every((i) => i.naturalWidth > 0)"
    return bool(browser.execute_script(script))


def test_pictures_with_awkward_names_are_shown_and_open(
    browser: Any, show: Show, tmp_path: Path
) -> None:
    for number, name in enumerate(NAMES):
        (tmp_path / name).write_bytes(png(number))
    show([row(number, paths=[tmp_path / name]) for number, name in enumerate(NAMES)])
    WebDriverWait(browser, 30).until(loaded)
    for number in range(len(NAMES)):
        browser.find_elements("css selector", ".media")[number].click()
        width = "return document.querySelector('dialog img').decode().then(() => 1)"
        assert browser.execute_script(width) == 1
        click(browser, "dialog button:not(.star)")


def test_hostile_prompts_are_inert(browser: Any, show: Show) -> None:
    show([row(n, params={"prompt": prompt}, paths=[]) for n, prompt in enumerate(HOSTILE)])
    assert (
        browser.execute_script("return document.querySelectorAll('img, #results script').length")
        == 0
    )
    assert texts(browser, ".prompt")[0] == HOSTILE[0]


def test_filters_narrow_the_grid(browser: Any, show: Show) -> None:
    show([row(number) for number in range(200)])
    assert texts(browser, "#count") == ["200 of 200 tasks"]
    set_value(browser, "text", "heron 00007", "input")
    assert texts(browser, "#count") == ["4 of 200 tasks"]
    set_value(browser, "model", "gpt_4o")
    assert texts(browser, "#count") == ["1 of 200 tasks"]
    set_value(browser, "text", "", "input")
    set_value(browser, "status", "failed")
    assert texts(browser, "#count") == ["3 of 200 tasks"]


def test_no_media_is_loaded_before_it_is_clicked(browser: Any, show: Show, tmp_path: Path) -> None:
    for number in range(300):
        tone(tmp_path / f"{number}.wav")
    show(
        [
            row(number, state="downloaded", paths=[tmp_path / f"{number}.wav"])
            for number in range(300)
        ]
    )
    for _ in range(5):
        browser.execute_script("window.scrollTo(0, document.body.scrollHeight)")
        browser.execute_async_script("requestAnimationFrame(() => setTimeout(arguments[0], 0))")
    count = "return document.querySelectorAll('audio, video').length"
    assert browser.execute_script(count) == 0
    for number in range(20):
        browser.execute_script("document.querySelectorAll('.media')[arguments[0]].click()", number)
        played = (
            "const done = arguments[0], player = document.querySelector('dialog audio');"
            "player.muted = true;"
            "player.play().then(() => done(player.duration > 0), (error) => done(`${error}`))"
        )
        assert browser.execute_async_script(played) is True
        click(browser, "dialog button:not(.star)")
        # The event of its end comes a moment later.
        WebDriverWait(browser, 30).until(lambda _: browser.execute_script(count) == 0)


def test_favourites_stay_with_their_ledger(browser: Any, show: Show, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    show([row(0), row(1)], "first", first)
    assert texts(browser, ".star") == ["☆", "☆"]

    def is_kept(_: Any) -> bool:
        click(browser, ".star")
        show([row(0), row(1)], "second", second)
        show([row(0), row(1)], "first", first)
        return texts(browser, ".star") == ["★", "☆"]

    # On a busy machine, one page in a hundred gets an empty local storage from Chromium and loses
    # what it writes there; others read it with a delay. So a page without its star gets it again.
    WebDriverWait(browser, 30).until(is_kept)
    click(browser, "#starred")
    assert texts(browser, "#count") == ["1 of 2 tasks"]
    show([row(0), row(1)], "second", second)
    assert texts(browser, ".star") == ["☆", "☆"]


def swept(number: int, **changes: Any) -> dict[str, Any]:
    """Return a row of a sweep: prompts, four models, two sizes; two in forty have failed."""
    ratio = ("16:9", "9:16")[number // 4 % 2]
    params = {"prompt": f"a heron, take {number // 8:05}", "aspect_ratio": ratio, "n": 1}
    state = "failed" if number % 40 in {5, 39} else "downloaded"
    return row(number, params=params, state=state, credits_used=number % 4 + 0.5) | changes


def sizes(browser: Any, selector: str) -> set[tuple[int, int]]:
    """Return the sizes of elements, in pixels."""
    script = (
        "return [...document.querySelectorAll(arguments[0])].map((each) =>"
        "[Math.round(each.offsetWidth / 2), Math.round(each.offsetHeight / 2)].join())"
    )
    found = browser.execute_script(script, selector)
    return {(int(width), int(height)) for width, height in (each.split(",") for each in found)}


def test_prompts_are_compared_across_models(browser: Any, show: Show) -> None:
    show([swept(number) for number in range(80)])
    click(browser, "#compare")
    assert len(browser.find_elements("css selector", ".matrix thead th")) == 4
    assert len(browser.find_elements("css selector", ".matrix tbody tr")) == 10
    assert len(browser.find_elements("css selector", ".matrix .card")) == 80
    assert len(sizes(browser, ".matrix .media")) == 1
    options = texts(browser, "#columns option")
    assert options == ["prompt (10)", "model (4)", "aspect_ratio (2)"]  # what varies
    heads = texts(browser, ".matrix thead th")
    assert [head.splitlines()[0] for head in heads] == [
        *("gpt_4o", "krea_2_turbo", "nano_banana_v2", "seedream_v5_lite")
    ]
    # A failed task costs nothing: it is no part of the mean.
    assert heads[3].splitlines()[1] == "mean 1.5 credits · median 7.5 s · 2 failed"
    assert texts(browser, ".matrix .prompt")[:2] == [
        "gpt_4o · aspect_ratio 16:9",
        "gpt_4o · aspect_ratio 9:16",
    ]
    set_value(browser, "columns", "aspect_ratio")
    set_value(browser, "rows", "model")
    assert len(browser.find_elements("css selector", ".matrix thead th")) == 2
    assert len(browser.find_elements("css selector", ".matrix tbody tr")) == 4
    assert texts(browser, ".matrix .prompt")[0] == "aspect_ratio 9:16 · a heron, take 00000"


def test_columns_and_rows_are_sorted_by_credits_and_duration(browser: Any, show: Show) -> None:
    slow = START + timedelta(minutes=9)
    show([swept(n, **({"completed_at": slow} if n // 8 == 7 else {})) for n in range(80)])
    click(browser, "#compare")
    set_value(browser, "sort", "credits")
    heads = [head.splitlines()[0] for head in texts(browser, ".matrix thead th")]
    assert heads == ["krea_2_turbo", "gpt_4o", "seedream_v5_lite", "nano_banana_v2"]
    set_value(browser, "sort", "seconds")
    assert texts(browser, ".matrix tbody th")[0] == "a heron, take 00007"


def test_a_comparison_fits_every_window(browser: Any, show: Show) -> None:
    """Where the table fits, header and prompts stay in view; else it scrolls sideways."""
    show([swept(number) for number in range(80)])
    click(browser, "#compare")
    rects = (
        "return ['thead th', 'tbody th', 'tr:nth-child(3) .name'].map((name) => {"
        "const rect = document.querySelector(`.matrix ${name}`).getBoundingClientRect();"
        "return [rect.left, rect.top]})"
    )
    try:
        browser.execute_script(
            "const row = document.querySelectorAll('.matrix tbody tr')[2].getBoundingClientRect();"
            "scrollTo({top: scrollY + row.top + row.height / 4, behavior: 'instant'})"
        )
        (_, top), _, (_, name) = browser.execute_script(rects)
        assert 0 <= top < name < 200
        browser.set_window_size(500, 900)
        wide = "return document.documentElement.scrollWidth <= innerWidth"
        WebDriverWait(browser, 30).until(lambda _: browser.execute_script(wide))
        browser.execute_script("document.querySelector('.scroll').scrollTo(300, 0)")
        _, (left, _), _ = browser.execute_script(rects)
        assert 0 <= left < 50
        assert len(sizes(browser, ".matrix .media")) == 1
    finally:
        browser.set_window_size(1600, 1000)


def test_two_thousand_pictures_are_added_while_scrolling(
    browser: Any, show: Show, tmp_path: Path
) -> None:
    for number in range(20):
        (tmp_path / f"{number}.png").write_bytes(png(number))
    show([swept(n, paths=[tmp_path / f"{n % 20}.png"]) for n in range(2000)])
    click(browser, "#compare")
    cards = "return document.querySelectorAll('.matrix .card').length"
    assert browser.execute_script(cards) < 1000
    down = "scrollTo({top: document.body.scrollHeight, behavior: 'instant'})"

    def all_there(_: Any) -> bool:
        browser.execute_script(down)
        return bool(browser.execute_script(cards) == 2000)

    WebDriverWait(browser, 60).until(all_there)
    pictures = "return document.querySelectorAll('.matrix img:not([loading=lazy])').length"
    assert browser.execute_script(pictures) == 0


def test_favourites_are_exported_for_the_command_line(
    browser: Any, served: FakeService, aireiter: Callable[..., Ran], tmp_path: Path
) -> None:
    browser.get_log("browser")
    (tmp_path / "p.txt").write_text("a fox\nan owl\n")
    sweep = ("p.txt", "--each", "model=nano_banana_v2,seedream_v5_lite", "--repeat", "2")
    assert aireiter("batch", *sweep, "--report", "-o", "out").status == 0
    downloads = {"behavior": "allow", "downloadPath": str(tmp_path)}
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", downloads)
    browser.get((tmp_path / "out/p.txt.html").as_uri())
    assert not browser.find_element("css selector", "#export").is_enabled()
    click(browser, "#compare")
    stars = browser.find_elements("css selector", ".matrix .star")
    ids = [stars[n].get_attribute("data-star") for n in (1, 6)]
    for number in (1, 4, 6, 4):
        browser.execute_script("arguments[0].click()", stars[number])
    assert texts(browser, "#export") == ["Export (2)"]
    click(browser, "#export")
    exported = tmp_path / "favourites.txt"
    WebDriverWait(browser, 30).until(lambda _: exported.exists() and exported.stat().st_size)
    assert sorted(exported.read_text().split()) == sorted(ids)
    ran = aireiter("batch", *sweep, "--only", "favourites.txt", "-o", "best", "--json")
    assert (ran.status, ran.document["requests"], len(served.charges)) == (0, 2, 8)
    assert sorted(path.stem for path in (tmp_path / "best").iterdir()) == sorted(ids)
    assert browser.get_log("browser") == []


def test_the_keyboard_is_enough(browser: Any, show: Show) -> None:
    show([row(0), row(1)])
    browser.execute_script("document.querySelector('.media').focus()")
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    assert browser.find_element("css selector", "dialog").get_attribute("open") is not None
    browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert browser.find_element("css selector", "dialog").get_attribute("open") is None


def test_five_thousand_tasks_are_filtered_without_rebuilding_all(browser: Any, show: Show) -> None:
    show([row(number) for number in range(5000)])
    cards = "return document.querySelectorAll('.card').length"
    assert browser.execute_script(cards) < 1000
    set_value(browser, "text", "take 01249", "input")
    assert texts(browser, "#count") == ["4 of 5,000 tasks"]
    assert browser.execute_script(cards) == 4
