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
