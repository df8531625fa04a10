"""The classes against the catalogue: nothing forgotten or invented."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from aireiter_async import models
from aireiter_async.models import InvalidParamsError

CATALOGUE: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent / "data" / "models.json").read_text(encoding="utf-8")
)
ENTRIES = {entry["model"]: entry for entry in CATALOGUE}
EXAMPLES = [
    request
    for entry in CATALOGUE
    for request in [entry["example_request"], *entry.get("more_example_requests", [])]
]
JPEG = "data:image/jpeg;base64,/9j/4AAQSkZJRg=="

# Where the examples do not show a value that the constraints allow in some request.
CONTEXTS: dict[str, list[dict[str, Any]]] = {
    "kling_v3_omni": [{"prompt": "p", "video_url": "https://a.io/b"}],
    "wan3_0": [{"type": "file_web"}, {"type": "first_last_frame"}, {"prompt": "p"}],
    "minimax_h3": [{"prompt": "p", "type": "first_last_frame"}],
    "happyhorse_1_0": [{"type": "video_edit", "prompt": "p", "video_url": "https://a.io/b"}],
    "seed_audio_1_0": [{"prompt": "p"}],
    "flux_3_video": [
        {"mode": mode, "prompt": "p", medium: "https://a.io/b"}
        for mode, medium in (("i2v", "image_url"), ("v2v", "video_url"))
    ],
}


EACH_MODEL = pytest.mark.parametrize("model", ENTRIES)


def contexts(model: str) -> list[dict[str, Any]]:
    documented = [each["params"] for each in EXAMPLES if each["model"] == model]
    return [*documented, *CONTEXTS.get(model, []), models.example(model)]


def accepted(model: str, name: str, value: Any) -> bool:
    for params in contexts(model):
        try:
            sent = models.build(model, {**params, name: value}).to_params()[name]
        except InvalidParamsError:
            continue
        return json.dumps(sent) == json.dumps(value)
    return False


def complaint(model: str, params: dict[str, Any]) -> InvalidParamsError:
    with pytest.raises(InvalidParamsError) as caught:
        models.build(model, params)
    return caught.value


def refused(model: str, name: str, value: Any) -> bool:
    for params in contexts(model):
        error = complaint(model, {**params, name: value})
        assert any(problem.param.partition("[")[0] == name for problem in error.problems)
        assert f"{model}: {name}" in str(error)
        assert len(str(error)) < 2000
    return True


def texts(facts: dict[str, Any], name: str) -> str:
    return "https://example.com/x" if name.endswith("_url") else facts.get("enum", ["a"])[0]


def test_the_names_are_those_of_the_catalogue() -> None:
    names = {name for entry in CATALOGUE for name in (entry["model"], *entry.get("variants", []))}
    assert set(models.MODELS) == names
    assert len(set(models.MODELS.values())) == len(CATALOGUE) == 66


@EACH_MODEL
def test_a_class_says_what_the_catalogue_says_of_its_model(model: str) -> None:
    entry, cls = ENTRIES[model], models.MODELS[model]
    variants = tuple(entry.get("variants", [model]))
    assert model == cls.MODEL
    assert model.replace("_", "") == cls.__name__.lower()
    assert variants == cls.VARIANTS
    assert all(models.MODELS[variant] is cls for variant in variants)
    assert entry["kind"] == cls.MEDIUM
    assert entry["output_media_field"].removeprefix("list[].") == cls.OUTPUT
    assert entry["doc"] == cls.DOC
    assert str(cls.__doc__).rstrip().endswith(cls.DOC)


@EACH_MODEL
def test_the_parameters_are_those_of_the_catalogue(model: str) -> None:
    names = {parameter.name for parameter in models.describe(model)}
    assert names == set(ENTRIES[model]["params"])
    fields = {field.name for field in attrs.fields(models.MODELS[model])}
    assert fields == {*names, "variant"}


def documented(facts: dict[str, Any]) -> dict[str, Any]:
    whole = facts.get("notes") == "whole seconds"
    ratio = facts.get("max_ratio") or facts.get("ratio_range", [None, None])[1]
    expected = {
        "type": facts["type"].replace("array", "string[]"),
        "required": facts["required"],
        "allowed": facts.get("enum"),
        "default": facts.get("default"),
        "minimum": facts.get("min"),
        "maximum": facts.get("max"),
        "step": 1 if whole else facts.get("step"),
        "max_length": facts.get("max_chars"),
        "min_items": facts.get("min_items"),
        "max_items": facts.get("max_items"),
        "min_pixels": facts.get("min_pixels"),
        "max_pixels": facts.get("max_pixels"),
        "multiple_of": facts.get("multiple_of"),
        "max_side": facts.get("max_side"),
        "max_ratio": ratio and int(ratio.removesuffix(":1")),
        "deprecated": facts.get("deprecated", False),
    }
    if facts["type"] == "string" and "max" in facts:  # whole seconds as text
        seconds = [str(number) for number in range(facts["min"], facts["max"] + 1)]
        expected |= {"allowed": seconds, "minimum": None, "maximum": None}
    return expected


@EACH_MODEL
def test_each_parameter_is_described_as_in_the_catalogue(model: str) -> None:
    for parameter in models.describe(model):
        expected = documented(ENTRIES[model]["params"][parameter.name])
        described = {key: getattr(parameter, key) for key in expected}
        for each in (described, expected):
            each["allowed"] = sorted(each["allowed"] or [])
        assert json.dumps(described) == json.dumps(expected), parameter.name
        assert parameter.doc
        assert str(parameter).startswith(parameter.doc)


@pytest.mark.parametrize("request_", EXAMPLES, ids=lambda each: each.get("out_task_id", "none"))
def test_a_documented_example_leaves_as_the_very_same_json(request_: dict[str, Any]) -> None:
    instance = models.build(request_["model"], request_["params"])
    assert instance.model_name == request_["model"]
    assert json.dumps(instance.to_params(), sort_keys=True) == json.dumps(
        request_["params"], sort_keys=True
    )


def is_number_as_text(facts: dict[str, Any]) -> bool:
    return facts["type"] == "string" and (
        "min" in facts or all(word.isdigit() for word in facts.get("enum", ["a"]))
    )


def good_values(name: str, facts: dict[str, Any]) -> Iterator[Any]:
    yield from facts.get("enum", [])
    match facts["type"]:
        case "boolean":
            yield from (True, False)
        case "integer" | "number":
            yield from (facts[end] for end in ("min", "max") if end in facts)
        case "string" if "min" in facts:
            yield from map(str, range(facts["min"], facts.get("max", facts["min"] + 300) + 1))
        case "string" if "max_chars" in facts:
            yield "字" * facts["max_chars"]
        case "string":
            yield from [] if "enum" in facts or "pattern" in facts else [texts(facts, name)]
        case _:
            least, most = facts.get("min_items", 1), facts.get("max_items", 20)
            yield from ([texts(facts, name)] * count for count in (least, most))


def bad_values(name: str, facts: dict[str, Any]) -> Iterator[Any]:
    text = texts(facts, name)
    yield from (object(), {text: text}, {text}, 1j)
    yield from () if name.endswith("_url") else (b"bytes",)
    yield from ("no such thing", "", text.swapcase() + " ") if "enum" in facts else ()
    match facts["type"]:
        case "boolean":
            yield from (0, 1, "true", "")
        case "integer" | "number":
            yield from (facts["min"] - 1, facts["min"] - 0.001, str(facts["min"]), True)
            yield from (float("nan"), float("inf"), float("-inf"), -(10**5000))
            yield from (facts["max"] + 1, facts["max"] + 0.001) if "max" in facts else ()
            yield from (facts["min"] + 0.5,) if facts["type"] == "integer" else ()
        case "string":
            yield from (True, ["a"], [])
            yield from () if is_number_as_text(facts) else (5, 5.0)
            yield from ("a" * (facts["max_chars"] + 1),) if "max_chars" in facts else ()
            yield from ("", "-1", "0", "five", "5s", " 5", "\u0665") if "min" in facts else ()
            yield from (str(facts["max"] + 1), "5.5") if "min" in facts and "max" in facts else ()
        case _:
            yield from (5, 5.0, True, [5], [text, None], [[text]])
            yield from ([text] * (facts["max_items"] + 1),) if "max_items" in facts else ()
            yield from ([text] * (facts["min_items"] - 1),) if "min_items" in facts else ()


@EACH_MODEL
def test_every_documented_value_is_accepted(model: str) -> None:
    for name, facts in ENTRIES[model]["params"].items():
        impossible = [240] if name == "start_s" else []  # no end_s can be after it
        refusals = [each for each in good_values(name, facts) if not accepted(model, name, each)]
        assert refusals == impossible, name


@EACH_MODEL
def test_every_other_value_is_rejected(model: str) -> None:
    for name, facts in ENTRIES[model]["params"].items():
        assert [each for each in bad_values(name, facts) if not refused(model, name, each)] == []


@EACH_MODEL
def test_a_misspelt_parameter_is_rejected_with_a_suggestion(model: str) -> None:
    for name, facts in ENTRIES[model]["params"].items():
        error = complaint(model, {**models.example(model), f"{name}x": texts(facts, name)})
        problem = f"{name}x is not a parameter of this model; did you mean {name}?"
        assert f"{model}: {problem}" in str(error)


@EACH_MODEL
def test_all_that_is_missing_is_named_at_once(model: str) -> None:
    required = {name for name, facts in ENTRIES[model]["params"].items() if facts["required"]}
    if model == "wan3_0":
        required = {"prompt"}  # or a medium: see its notes
    error = complaint(model, {})
    assert {problem.param for problem in error.problems} == required
    assert all("is required" in problem.text for problem in error.problems)


@EACH_MODEL
def test_the_example_to_paste_is_valid(model: str) -> None:
    params = models.example(model)
    assert models.build(model, params).to_params() == params


@EACH_MODEL
def test_media_are_accepted_in_the_documented_forms(model: str) -> None:
    for name, facts in ENTRIES[model]["params"].items():
        if not name.endswith("_url"):
            continue
        notes = facts.get("notes", "")
        data = JPEG if facts["type"] == "string" else [JPEG]
        names_forms = any(form in notes for form in ("URL", "data URI", "web page"))
        allowed = "data URI" in notes or not names_forms
        assert (accepted if allowed else refused)(model, name, data), name
        for bad in ("cat.png", "./cat.jpg", "ftp://example.com/x", "https://", "file:///x"):
            assert refused(model, name, bad)
