"""The values that come back."""

import copy
import json
import pickle
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest

from aireiter_async._tasks import (
    Balance,
    ClientStats,
    ErrorDetail,
    FreeQuota,
    Output,
    Task,
    TaskStatus,
)


@pytest.mark.parametrize("status", TaskStatus)
def test_a_task_is_done_once_it_has_succeeded_or_failed(status: TaskStatus) -> None:
    task = Task("a", status)
    assert task.succeeded is (status == "completed")
    assert task.failed is (status == "failed")
    assert task.done is (task.succeeded or task.failed)


def test_a_task_lists_its_urls() -> None:
    lyrics, song = Output(kind="text", text="Rain"), Output("https://h/a.mp3", "audio")
    task = Task("a", TaskStatus.COMPLETED, outputs=(lyrics, song, Output("https://h/b.mp3")))
    assert (task.url, task.urls) == ("https://h/a.mp3", ("https://h/a.mp3", "https://h/b.mp3"))
    assert (Task("a", TaskStatus.PENDING).url, Task("a", TaskStatus.PENDING).urls) == (None, ())


def test_a_task_becomes_json() -> None:
    moment = datetime(2026, 11, 22, 18, tzinfo=UTC)
    output = Output("https://h/a.png", "image", metadata={"box": [1, 2]}, out_task_id="a", number=1)
    task = Task(
        "a",
        TaskStatus.FAILED,
        "gpt_4o",
        estimated_credits=2.5,
        created_at=moment,
        outputs=(output, Output(raw=object())),
        error=ErrorDetail("TIMEOUT", "upstream, 超时"),
        raw=object(),
    )
    document = task.to_dict()
    assert json.loads(json.dumps(document)) == document
    nothing = dict.fromkeys(["url", "cover_url", "title", "text", "out_task_id"])
    empty: dict[str, Any] = {**nothing, "kind": "file", "metadata": {}, "number": 1}
    assert document == {
        "out_task_id": "a",
        "status": "failed",
        "model": "gpt_4o",
        "estimated_credits": 2.5,
        "credits_used": None,
        "created_at": "2026-11-22T18:00:00+00:00",
        "completed_at": None,
        "outputs": [
            {
                **empty,
                "url": "https://h/a.png",
                "kind": "image",
                "metadata": {"box": [1, 2]},
                "out_task_id": "a",
            },
            empty,
        ],
        "error": {"code": "TIMEOUT", "message": "upstream, 超时"},
    }


def test_the_statuses_are_the_services_words() -> None:
    words = ["pending", "processing", "completed", "failed", "unknown"]
    assert [f"{status}" for status in TaskStatus] == words == list(TaskStatus)


def test_nothing_has_happened_at_first() -> None:
    values = attrs.asdict(ClientStats()).values()
    assert all(value in (0, None, {}) for value in values)


VALUES = [
    Output(url="https://h/a.png", kind="image", metadata={"z_index": 1}, raw={"url": []}),
    ErrorDetail("TIMEOUT", "upstream"),
    Task("id", TaskStatus.COMPLETED, outputs=(Output(metadata={"z_index": 1}),), raw={"a": []}),
    FreeQuota("gpt_4o", 3, 1, 2),
    Balance(2.5, (FreeQuota("gpt_4o"),), raw={"data": {}}),
    ClientStats(requests=3),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_are_values(value: Any) -> None:
    twin = pickle.loads(pickle.dumps(value))  # noqa: S301 - our own pickle
    assert twin == value == copy.deepcopy(value)
    assert getattr(twin, "raw", None) == getattr(value, "raw", None)
    assert len({twin, value}) == 1
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(value, attrs.fields(type(value))[0].name, None)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Task("a", TaskStatus.PENDING, raw=1), Task("a", TaskStatus.PENDING, raw=2)),
        (Output(url="x", raw=1), Output(url="x", raw=2)),
        (Balance(1, raw=1), Balance(1, raw=2)),
    ],
)
def test_the_raw_reply_is_kept_apart(one: Any, other: Any) -> None:
    assert one == other
    assert repr(one) == repr(other)
    assert "raw" not in repr(one)


def html(*outputs: Output, **changes: Any) -> str:
    task = Task("a", TaskStatus.COMPLETED, "nano_banana", 3.0, outputs=outputs)
    return attrs.evolve(task, **changes)._repr_html_()


def test_a_notebook_shows_pictures_and_players() -> None:
    text = html(
        Output("https://h/a.png?x=1&y=2", "image"),
        Output("https://h/a.mp4", "video", cover_url="https://h/c.png"),
        Output("https://h/b.mp4", "video"),
        Output("https://h/a.mp3", "audio", title="Song <b>"),
        Output("https://h/a.zip"),
        Output(kind="text", text="la <script>"),
    )
    assert "<p>a · nano_banana · completed · 3 credits estimated</p>" in text
    assert '<img src="https://h/a.png?x=1&amp;y=2"' in text
    assert '<video src="https://h/a.mp4" poster="https://h/c.png" controls preload="none"' in text
    assert '<audio src="https://h/a.mp3" controls preload="none">' in text
    assert "Song &lt;b&gt;" in text
    assert '<a href="https://h/a.zip"' in text
    assert "la &lt;script&gt;" in text
    assert "2.5 credits<" in html(credits_used=2.5)
    assert "TIMEOUT: &lt;late&gt;" in html(error=ErrorDetail("TIMEOUT", "<late>"))
    assert "completed</p>" in html(estimated_credits=None)


def test_what_a_notebook_saves_is_small_and_inert() -> None:
    """Twenty tasks with pictures of 3 MB, within their URLs even, and hostile texts."""
    hostile = '"><script>alert(1)</script>\ud83d\u202e' * 3000
    raw = {"data": {"input": {"params": {"prompt": hostile}}}}
    outputs = [Output("data:image/png;base64," + "A" * 4_000_000, "image")]
    outputs += [Output("javascript:alert(1)", "image"), Output("data:image/png;base64,AA", "image")]
    outputs += [Output("https://h/" + "&" * 3_900, "image", title=hostile)] * 20
    text = html(*outputs, raw=raw)
    task = Task("a", TaskStatus.COMPLETED, outputs=tuple(outputs))
    # A notebook saves both.
    assert len(text.encode()) + len(repr(task)) < 200_000
    assert "<script" not in text
    assert "javascript" not in text
    assert "image, 4.0 MB: save it with client.download" in text
    assert 'src="data:image/png;base64,AA"' in text
    assert " more outputs" in text


def test_the_repr_of_a_result_is_short() -> None:
    signed = f"https://h/a.png?signature={'a' * 1000}"
    long = Output("data:image/png;base64," + "A" * 400_000, "image", text="la " * 1000)
    assert signed in repr(Output(signed))
    assert "url=<'data:image/png;base64,AAAA" in repr(long)
    assert "AAA... 400,024 characters>, kind='image'" in repr(long)
    task = Task("a", TaskStatus.COMPLETED, outputs=(long,) * 3)
    assert len(repr(task)) < 2_000
    assert "outputs=<1000 outputs>" in repr(attrs.evolve(task, outputs=(long,) * 1000))
