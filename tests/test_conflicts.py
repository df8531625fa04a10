"""Whether a task is that of our request: an ID may belong to an earlier one."""

from typing import Any

import pytest

from aireiter_async import SubmitRequest, Task, TaskStatus, models
from aireiter_async._conflicts import find_conflict, is_echo

REQUEST = SubmitRequest(
    "gpt_4o_plus",
    {
        "prompt": "a  cat on\na mat",
        "title": "cat",
        "style": "oil painting",
        "aspect_ratio": "16:9",
        "image_url": "https://ours/a.png?x=a b",
        "n": 1,
    },
    "a",
)


def task(given: Any, status: TaskStatus = TaskStatus.PROCESSING) -> Task:
    return Task("a", status, raw={"data": {"input": given}})


@pytest.mark.parametrize(
    ("given", "proof"),
    [
        ({"model": "veo3_1", "params": {}}, "the ID's task is for the model veo3_1"),
        ({"model": "veo3_1"}, "the ID's task is for the model veo3_1"),
        ({"params": {"prompt": "a dog"}}, "the ID's task has a different prompt"),
        ({"params": {"prompt": "a cat"}}, "the ID's task has a different prompt"),
        ({"params": {"prompt": "A cat on a mat"}}, "the ID's task has a different prompt"),
        ({"prompt": "a dog"}, "the ID's task has a different prompt"),
        ({"params": {"title": "dog"}}, "the ID's task has a different title"),
        ({"params": {"style": "ink"}}, "the ID's task has a different style"),
        ({"params": {"prompt": "a dog..."}}, "the ID's task has a different prompt"),
        ({"params": {"prompt": ""}}, "the ID's task has a different prompt"),
    ],
)
def test_another_model_or_text_proves_a_conflict(given: Any, proof: str) -> None:
    assert find_conflict(REQUEST, task(given)) == proof
    as_list = Task("a", TaskStatus.PENDING, raw={"data": [{"input": given}]})
    assert find_conflict(REQUEST, as_list) == proof
    bare = Task("a", TaskStatus.PENDING, raw={"input": given})
    assert find_conflict(REQUEST, bare) == proof


@pytest.mark.parametrize(
    "given",
    [
        None,
        "a dog",
        {},
        {"model": None, "params": None},
        {"model": "gpt_4o", "params": []},
        {"model": "GPT-4o", "params": {"prompt": "a cat on a mat "}},
        {"model": "gpt_4o_max", "params": {"prompt": "a cat on..."}},
        {"params": {"prompt": "a cat …"}},
        {"params": {"prompt": None, "title": 5, "style": ["ink"]}},
        {"params": {"aspect_ratio": "1:1", "n": 4, "seed": 7}},
        {"params": {"image_url": "https://theirs/b.png", "prompt": "https://theirs/prompt"}},
    ],
)
def test_other_differences_prove_nothing(given: Any) -> None:
    assert find_conflict(REQUEST, task(given)) is None


def test_a_long_text_may_have_been_cut() -> None:
    text = "word " * 100
    request = SubmitRequest("m", {"prompt": text})
    assert find_conflict(request, task({"params": {"prompt": text[:120]}})) is None
    assert find_conflict(request, task({"params": {"prompt": "x" + text[:120]}})) is not None


def test_a_models_instance_is_compared_too() -> None:
    request = SubmitRequest("gpt_4o", models.GPT4o(prompt="a cat"))
    assert find_conflict(request, task({"params": {"prompt": "a dog"}})) is not None
    assert find_conflict(request, task({"params": {"prompt": "a cat"}})) is None


@pytest.mark.parametrize("raw", [None, {}, {"data": None}, {"data": []}, []])
def test_a_new_task_has_not_ended(raw: Any) -> None:
    for status in TaskStatus:
        seen = Task("a", status, raw=raw)
        proof = find_conflict(REQUEST, seen, just_submitted=True)
        assert proof == (f"the ID's task is already {status}" if seen.done else None)
        assert find_conflict(REQUEST, seen) is None


def test_only_the_service_can_say_whose_an_id_is() -> None:
    wanted = SubmitRequest(
        "m", {"prompt": "a", "image_url": "https://x.example/1.png", "n": 1, "hd": True}, "i"
    )
    same = {"prompt": "a", "image_url": "https://elsewhere.example/2.png", "size": "1K"}
    cases: list[tuple[Any, bool]] = [
        ({"data": {"input": {"model": "m", "params": same}}}, True),
        ({"data": [{"input": {"model": "m", "params": same}}]}, True),
        ({"input": {"model": "m", "params": same}}, True),
        ({"data": {"input": {"model": "m2", "params": same}}}, False),
        ({"data": {"input": {"model": "m", "params": same | {"prompt": "b"}}}}, False),
        ({"data": {"input": {"model": "m", "params": same | {"n": "1"}}}}, True),
        ({"data": {"input": {"model": "m", "params": same | {"n": 1.0}}}}, True),
        ({"data": {"input": {"model": "m", "params": same | {"n": 4}}}}, False),
        ({"data": {"input": {"model": "m", "params": same | {"hd": "TRUE"}}}}, True),
        ({"data": {"input": {"model": "m", "params": same | {"hd": False}}}}, False),
        ({"data": {"input": {"model": "m", "params": None}}}, False),
        ({"data": {}}, False),
        ({"data": []}, False),
        ({"data": None}, False),
        ({"data": '{"input": {"model": "m"}}'}, False),
        (None, False),
    ]
    for raw, ours in cases:
        assert is_echo(wanted, Task("i", TaskStatus.COMPLETED, raw=raw)) is ours
