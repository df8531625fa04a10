"""The values: what is asked, what comes back, and what is refused before it is sent."""

import copy
import json
import pickle
import re
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import attrs
import pytest

from aireiter_async import models
from aireiter_async._requests import SubmitRequest, as_request, check_id, draw_id
from aireiter_async._tasks import (
    Balance,
    ClientStats,
    ErrorDetail,
    FreeQuota,
    Output,
    Task,
    TaskStatus,
)

KITTEN = models.Seedance15Pro(prompt="a kitten", aspect_ratio="16:9")
CAT = models.GPT4o(prompt="a cat")


@pytest.mark.parametrize("out_task_id", ["a", "Z", "0", "_", "-", "x" * 64, "my_task_123456"])
def test_an_id_of_the_documented_characters_passes(out_task_id: str) -> None:
    """1 to 64 letters, digits, underscores and hyphens are an id."""
    assert check_id(out_task_id) is out_task_id
    assert SubmitRequest("m", {}, out_task_id).out_task_id is out_task_id


@pytest.mark.parametrize(
    "out_task_id",
    [
        "",
        "x" * 65,
        "x" * 10_000_000,
        "a b",
        "a\n",
        "\na",
        "a.b",
        "a/b",
        '"',
        "\u0664",
        "\xe9",
        "\0",
    ],
    ids=lambda value: ascii(value[:4]),
)
def test_any_other_id_is_a_value_error(out_task_id: str) -> None:
    """What is no id is told what one is, in a short message, a line break at the end included."""
    expected = "out_task_id must be 1 to 64 characters of A-Z, a-z, 0-9, '_' and '-', got "
    for call in (check_id, lambda value: SubmitRequest("m", {}, value)):
        with pytest.raises(ValueError, match=re.escape(expected)) as caught:
            call(out_task_id)
        assert len(str(caught.value)) < 130


@pytest.mark.parametrize("out_task_id", [None, 5, b"a", True])
def test_an_id_is_a_str(out_task_id: Any) -> None:
    """What is no text is a TypeError."""
    kind = type(out_task_id).__name__
    with pytest.raises(TypeError, match=f"^out_task_id must be a str, got {kind}$"):
        check_id(out_task_id)


def test_ids_never_collide() -> None:
    """A hundred thousand ids are as many different ones, all fit to be sent."""
    ids = {draw_id() for _ in range(100_000)}
    assert len(ids) == 100_000
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in ids)


def test_a_request_keeps_the_id_that_it_drew() -> None:
    """The id is fixed when the request is made, and each request has its own."""
    first, second = SubmitRequest("m", {}), SubmitRequest("m", {})
    assert first.out_task_id == first.out_task_id != second.out_task_id


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"model": 5}, TypeError, "model must be a str, got int"),
        ({"model": ""}, ValueError, "model must be a model's name such as 'nano_banana', got ''"),
        ({"model": "veo3_1\n"}, ValueError, "model must be a model's name such as"),
        ({"model": " " * 10**6}, ValueError, "model must be a model's name such as"),
        ({"params": None}, TypeError, "params must be a mapping or an instance of a class in"),
        ({"params": [("a", 1)]}, TypeError, "params must be a mapping .*, got list"),
        (
            {"params": KITTEN},
            ValueError,
            "model 'm' does not take the params of Seedance15Pro: use one of seedance_1_5_pro",
        ),
        ({"out_task_id": "a b"}, ValueError, "out_task_id must be 1 to 64 characters"),
        ({"out_task_id": None}, TypeError, "out_task_id must be a str, got NoneType"),
        ({"callback_url": 5}, TypeError, "callback_url must be a str, got int"),
        ({"callback_url": ""}, ValueError, "callback_url must be an http or https URL, got ''"),
        ({"callback_url": "ftp://h"}, ValueError, "callback_url must be an http or https URL"),
        ({"callback_url": "x" * 10**6}, ValueError, "callback_url must be an http or https URL"),
        ({"metadata": [1]}, TypeError, "metadata must be a mapping, got list"),
        ({"metadata": "x"}, TypeError, "metadata must be a mapping, got str"),
    ],
)
def test_a_wrong_argument_is_named(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    """Each message names the argument and what it may be, and stays short."""
    with pytest.raises(error, match=f"^{message}") as caught:
        SubmitRequest(**{"model": "m", "params": {}} | arguments)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("callback_url", [None, "https://example.com/done", "http://localhost:1"])
@pytest.mark.parametrize("metadata", [None, {}, MappingProxyType({"a": 1})])
def test_what_is_allowed_is_kept(callback_url: str | None, metadata: Any) -> None:
    """A request holds what it was given."""
    request = SubmitRequest("new_model", {"a": 1}, "id", callback_url, metadata)
    assert attrs.astuple(request, recurse=False) == (
        "new_model",
        {"a": 1},
        "id",
        callback_url,
        metadata,
    )


def test_a_repr_shows_no_picture() -> None:
    """A request with megabytes of base64 has a short repr, wherever they are."""
    picture = "data:image/png;base64," + "A" * 10_000_000
    params = {"image_url": [picture, [picture]], "prompt": picture}
    for request in (
        SubmitRequest("m", params, metadata=params),
        SubmitRequest("m", MappingProxyType(params)),
        as_request(models.GPT4o(prompt="x", image_url=picture)),
    ):
        assert len(repr(request)) < 500
        assert "SubmitRequest(model=" in repr(request)


@pytest.mark.parametrize("name", models.Seedance15Pro.VARIANTS)
def test_a_models_instance_goes_under_its_names(name: str) -> None:
    """A models class may be submitted under each of its variants."""
    assert SubmitRequest(name, KITTEN).params is KITTEN


def test_a_models_instance_makes_a_request() -> None:
    """An instance is submitted under its own name, with an id of its own each time."""
    first, second = as_request(KITTEN), as_request(KITTEN)
    assert (first.model, first.params) == ("seedance_1_5_pro", KITTEN)
    assert first.out_task_id != second.out_task_id


def test_a_request_is_sent_as_it_is() -> None:
    """Without changes the request itself is used, with its id."""
    request = SubmitRequest("m", {})
    assert as_request(request) is request


@pytest.mark.parametrize("request_", [SubmitRequest("gpt_4o", CAT), CAT])
def test_changes_are_made_on_the_way(request_: Any) -> None:
    """The id, the channel, the callback and the metadata can be given at the call."""
    changed = as_request(
        request_,
        out_task_id="mine",
        channel="plus",
        callback_url="https://example.com",
        metadata={"a": 1},
    )
    assert changed == SubmitRequest("gpt_4o_plus", CAT, "mine", "https://example.com", {"a": 1})


def test_a_change_leaves_the_rest() -> None:
    """What is not given at the call stays as the request has it."""
    request = SubmitRequest("new_model", {"a": 1}, "mine", "https://example.com", {"a": 1})
    assert as_request(request, metadata={}) == attrs.evolve(request, metadata={})
    assert as_request(request, channel="max") == attrs.evolve(request, model="new_model_max")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"out_task_id": ""}, ValueError, "out_task_id must be 1 to 64 characters"),
        ({"channel": "turbo"}, ValueError, "channel"),
        ({"channel": "max"}, ValueError, "gpt_4o has no channel max"),
        ({"channel": ""}, ValueError, "channel"),
        ({"callback_url": ""}, ValueError, "callback_url must be an http or https URL"),
        ({"metadata": []}, TypeError, "metadata must be a mapping"),
    ],
)
@pytest.mark.parametrize("request_", [SubmitRequest("gpt_4o", {}), CAT], ids=["request", "model"])
def test_a_wrong_change_is_named(
    request_: Any, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    """What is given at the call is checked as if the request had been made with it."""
    with pytest.raises(error, match=message):
        as_request(request_, **arguments)


@pytest.mark.parametrize("request_", [{"model": "m"}, "m", None, models.GPT4o])
def test_only_requests_and_models_are_submitted(request_: Any) -> None:
    """A dict, a name or a class is no request."""
    with pytest.raises(TypeError, match="request must be a SubmitRequest or an instance of"):
        as_request(request_)


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
    """A status compares and formats as the word on the wire."""
    words = ["pending", "processing", "completed", "failed", "unknown"]
    assert [f"{status}" for status in TaskStatus] == words == list(TaskStatus)


def test_nothing_has_happened_at_first() -> None:
    """Fresh statistics are zeros, without a rate."""
    values = attrs.asdict(ClientStats()).values()
    assert all(value in (0, None, {}) for value in values)


VALUES = [
    SubmitRequest("m", {"a": [1]}, "id", metadata={"b": {}}),
    SubmitRequest("seedance_1_5_pro", KITTEN, "id"),
    Output(url="https://h/a.png", kind="image", metadata={"z_index": 1}, raw={"url": []}),
    ErrorDetail("TIMEOUT", "upstream"),
    Task("id", TaskStatus.COMPLETED, outputs=(Output(metadata={"z_index": 1}),), raw={"a": []}),
    FreeQuota("gpt_4o", 3, 1, 2),
    Balance(2.5, (FreeQuota("gpt_4o"),), raw={"data": {}}),
    ClientStats(requests=3),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_are_values(value: Any) -> None:
    """Each compares, hashes, copies and pickles by what it holds, and cannot be changed."""
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
    """The reply itself counts neither for equality nor for the repr."""
    assert one == other
    assert repr(one) == repr(other)
    assert "raw" not in repr(one)
