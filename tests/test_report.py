"""The report page: what its data hold, and that they cannot become markup."""

import base64
import hashlib
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from aireiter_async.report import PageBuilder
from aireiter_async.report._page import MOST_TASKS

START = datetime(2026, 11, 26, tzinfo=UTC)


def row(number: int = 0, **changes: Any) -> dict[str, Any]:
    return {
        "out_task_id": f"task-{number}",
        "state": "downloaded",
        "model": "nano_banana_v2",
        "params": {"prompt": f"prompt {number}", "seed": number},
        "credits_used": 2.5,
        "estimated_credits": 3.0,
        "created_at": START + timedelta(seconds=number),
        "completed_at": START + timedelta(seconds=number + 8),
        "paths": [],
        "error": None,
    } | changes


def page(
    rows: list[dict[str, Any]],
    directory: Path = Path(),
    retry: str | None = None,
    thumbnail: Callable[[Path], str | None] | None = None,
) -> str:
    builder = PageBuilder(directory, thumbnail)
    builder.add(rows)
    return "".join(builder.render(title="a <b> & c", ledger="ring", retry=retry))


def data(text: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    document: dict[str, Any] = json.loads(found[1])
    return document


def test_a_task_has_its_prompt_parameters_credits_and_times() -> None:
    (task,) = data(page([row(7)]))["tasks"]
    assert task["prompt"] == "prompt 7"
    assert task["params"] == {"seed": 7}
    assert (task["credits"], task["estimate"], task["seconds"]) == (2.5, 3.0, 8.0)
    assert (task["status"], task["attempts"], task["error"]) == ("succeeded", 1, None)


@pytest.mark.parametrize(
    "prompt",
    [
        "<script>alert(1)</script>",
        "</script><!-- <img src=x onerror=alert(1)>",
        "{{data}} {{policy}} \\1 \\g<0>",
        "\u202ertl\u200e\u2028\x00\x1b",
        "\ud83d half a pair",
        "x" * 100_000,
    ],
)
def test_a_prompt_is_data_and_never_markup(prompt: str) -> None:
    text = page([row(params={"prompt": prompt})])
    text.encode()  # half a surrogate pair is escaped
    assert data(text)["tasks"][0]["prompt"] == prompt
    assert text.count("<script") == text.count("</script>") == 2
    assert "<title>a &lt;b&gt; &amp; c</title>" in text


def test_the_policy_allows_this_script_this_style_and_no_network() -> None:
    text = page([row()])
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy
    for tag in ("script", "style"):
        content = text[text.index(f"<{tag}>") + len(tag) + 2 :].partition(f"</{tag}>")[0]
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy[1]
    assert policy[1].startswith("default-src 'none'")
    assert "http" not in policy[1]
    assert " style=" not in text


@pytest.mark.parametrize(
    ("name", "link"),
    [
        ("a#1.png", "r/a%231.png"),
        ("what?.png", "r/what%3F.png"),
        ("100%41.png", "r/100%2541.png"),
        ("ein bild.png", "r/ein%20bild.png"),
        ("a:b.mp4", "r/a%3Ab.mp4"),
        ("\udcff.wav", "r/%FF.wav"),
    ],
)
def test_links_are_relative_and_encoded(name: str, link: str, tmp_path: Path) -> None:
    (file,) = data(page([row(paths=[tmp_path / "r" / name])], tmp_path))["tasks"][0]["files"]
    assert file["src"] == link
    assert file["kind"] == {".png": "image", ".mp4": "video", ".wav": "audio"}[link[-4:]]


def test_lyrics_are_on_the_page(tmp_path: Path) -> None:
    (tmp_path / "song.txt").write_text("la la", encoding="utf-8")
    rows = [row(paths=["a.bin", tmp_path / "song.txt"]), row(1, paths=[tmp_path / "gone.txt"])]
    first, second = data(page(rows, tmp_path))["tasks"]
    assert (first["text"], second["text"]) == ("la la", None)
    assert [file["kind"] for file in first["files"]] == ["file", "text"]


def test_a_retried_task_is_listed_once_with_its_attempts() -> None:
    rows = [
        row(0, state="failed", retried_as="task-1"),
        row(1, state="failed", retried_as="task-2"),
        row(2),
    ]
    document = data(page(rows))
    assert [(task["id"], task["attempts"]) for task in document["tasks"]] == [("task-2", 3)]


def test_the_sums_name_what_there_is() -> None:
    rows = [
        row(0),
        row(1, state="failed", credits_used=None, error={"code": "TIMEOUT", "message": "late"}),
        row(2, state="rejected", error="no", completed_at=None),
        row(3, state="uncertain", completed_at="never", created_at=None),
        row(4, state="submitted", completed_at=None, created_at="2026-11-26T01:00:00"),
    ]
    document = data(page(rows, retry="aireiter batch x.csv --retry-failed"))
    sums = {label: value for label, value, _ in document["sums"]}
    assert sums == {
        "succeeded": "1",
        "failed": "1",
        "rejected": "1",
        "uncertain": "1",
        "running or maybe sent": "1",
        "credits used": "10",
        "credits estimated": "15",
        "from first to last": "1 h 0 min",
    }
    assert [task["error"] for task in document["tasks"]] == [
        None,
        "TIMEOUT: late",
        "no",
        None,
        None,
    ]
    assert document["retry"] == "aireiter batch x.csv --retry-failed"


def test_the_bars_count_each_end_once() -> None:
    rows = [row(n, state="failed" if n % 5 == 0 else "completed") for n in range(1000)]
    document = data(page(rows))
    chart = document["chart"]
    assert 1 < len(chart) <= 61
    assert sum(good for _, good, _, _ in chart) == 800
    assert sum(bad for _, _, bad, _ in chart) == 200
    assert chart[-1][3] == 2500
    starts = [start for start, *_ in chart]
    assert {later - start for start, later in pairwise(starts)} == {document["bin"]}


def test_years_still_fit() -> None:
    rows = [row(n, completed_at=START + timedelta(days=100 * n)) for n in range(20)]
    document = data(page(rows))
    assert len(document["chart"]) <= 62
    assert {label: value for label, value, _ in document["sums"]}[
        "from first to last"
    ] == "45600 h 0 min"


def test_an_empty_ledger_has_a_page() -> None:
    document = data(page([]))
    assert (document["tasks"], document["chart"], document["omitted"]) == ([], [], 0)


def test_a_short_run_is_told_in_seconds() -> None:
    sums = {label: value for label, value, _ in data(page([row()]))["sums"]}
    assert sums["from first to last"] == "8 s"


def test_a_huge_ledger_keeps_failures_and_the_newest() -> None:
    rows = [row(n, state="failed" if n == 3 else "completed") for n in range(MOST_TASKS + 10)]
    document = data(page(rows))
    assert len(document["tasks"]) == MOST_TASKS + 1
    assert [task["id"] for task in document["tasks"][:2]] == ["task-3", "task-10"]
    assert document["omitted"] == 9
    assert document["sums"][0][:2] == ["succeeded", "20,009"]


def test_thumbnails_are_inlined_for_pictures(tmp_path: Path) -> None:
    paths = [tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.mp4"]
    thumbs = {paths[0]: "data:image/webp;base64,AAAA"}
    (task,) = data(page([row(paths=paths)], tmp_path, thumbnail=thumbs.get))["tasks"]
    assert [file.get("thumb") for file in task["files"]] == [
        "data:image/webp;base64,AAAA",
        None,
        None,
    ]
