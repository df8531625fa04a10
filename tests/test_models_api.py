"""Models: building, sending, naming, describing, importing."""

import contextlib
import copy
import inspect
import json
import os
import pickle
import re
import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aireiter_async import AsyncClient, models
from aireiter_async.models import (
    GPT4o,
    InvalidParamsError,
    NanoBanana,
    Parameter,
    Problem,
    Seedance2,
    Seedance15Pro,
    Seedance25,
    UnknownModelError,
    _catalogue,
)
from aireiter_async.testing import FakeService
from tests.model_strategies import instances

URL_OR_DATA = "a public http(s) URL or a data URI"
KITTEN = Seedance15Pro(prompt="a kitten", aspect_ratio="16:9")


def refusal(model: str, params: dict[str, Any]) -> InvalidParamsError:
    with pytest.raises(InvalidParamsError) as caught:
        models.build(model, params)
    return caught.value


@settings(max_examples=settings().max_examples // 20)
@given(st.data())
@pytest.mark.parametrize("model", sorted(models.MODELS))
def test_a_valid_instance_survives_every_way_it_can_go(model: str, data: st.DataObject) -> None:
    instance = data.draw(instances(model))
    assert instance.model_name == model
    again = models.build(model, instance.to_params())
    for twin in (again, copy.deepcopy(instance), pickle.loads(pickle.dumps(instance))):  # noqa: S301
        assert twin == instance
        assert hash(twin) == hash(instance)
    assert instance != instance.to_params()


@given(
    st.sampled_from(sorted(models.MODELS)),
    st.dictionaries(
        st.sampled_from(["prompt", "image_url", "type", "video_length", "seed", "size", "x"]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text()),
    ),
)
def test_anything_is_rejected_or_sent(model: str, params: dict[str, Any]) -> None:
    sent = whole = {name: value for name, value in params.items() if value is not None}
    with contextlib.suppress(InvalidParamsError):
        sent = models.build(model, params).to_params()
    for each in (sent, whole):
        each["video_length"] = str(each.get("video_length"))  # some models send it as a string
    assert sent == whole


async def test_what_is_declared_is_what_arrives() -> None:
    """One request to each model over a real socket, as ``to_params`` says."""
    async with (
        FakeService() as service,
        AsyncClient(service.api_key, base_url=service.url) as client,
    ):
        for model in models.MODELS:
            instance = models.build(model, models.example(model))
            task = await client.submit(instance)
            assert service.requests[-1].body == {
                "model": model,
                "params": instance.to_params(),
                "out_task_id": task.out_task_id,
            }
            assert service.charges[-1].model == task.model == model


WRONG = st.none() | st.integers(-5, 40) | st.booleans() | st.text(max_size=3) | st.lists(st.text())


@settings(deadline=None)
@given(st.data())
def test_the_short_check_accepts_only_what_the_full_one_accepts(data: st.DataObject) -> None:
    """It reaches into `__attrs_init__`: which of the two checks ran is not to be seen outside."""
    good = data.draw(st.sampled_from(sorted(models.MODELS)).flatmap(instances))
    cls = type(good)
    params = {name: value for name, value in vars(good).items() if name != "variant"}
    changed = data.draw(st.dictionaries(st.sampled_from(sorted(params)), WRONG, max_size=2))
    try:
        made = models.build(good.model_name, params | changed)
    except InvalidParamsError:
        return
    full = object.__new__(cls)
    full.__attrs_init__(variant=made.variant, **params | changed)
    assert vars(full) == vars(made)


def test_a_constructor_has_the_signature_of_its_fields() -> None:
    signature = inspect.signature(Seedance15Pro)
    assert set(signature.parameters) == {"variant", *(each.name for each in KITTEN.PARAMETERS)}
    assert signature.parameters["prompt"].default is inspect.Parameter.empty
    assert signature.parameters["resolution"].default is None
    assert {each.kind for each in signature.parameters.values()} == {inspect.Parameter.KEYWORD_ONLY}
    wrong: dict[str, Any] = {"prompt": "p", "aspect_ratio": "16:9", "promt": "p"}
    with pytest.raises(TypeError, match=r"Seedance15Pro\.__init__\(\) got an unexpected keyword"):
        Seedance15Pro(**wrong)
    with pytest.raises(TypeError, match=r"Seedance15Pro\.__init__\(\) missing 1 required keyword"):
        Seedance15Pro(prompt="p")  # type: ignore[call-arg]


def test_none_is_the_same_as_nothing() -> None:
    assert attrs.evolve(KITTEN) == KITTEN  # type: ignore[misc]
    named = Seedance15Pro(prompt="a kitten", aspect_ratio="16:9", image_url=None, variant=None)
    assert named == KITTEN
    assert hash(named) == hash(KITTEN)
    assert (named.image_url, named.to_params()) == (None, KITTEN.to_params())
    with pytest.raises(InvalidParamsError, match="prompt is required"):
        Seedance15Pro(prompt=None, aspect_ratio="16:9", video_length=None)  # type: ignore[arg-type]


def test_all_mistakes_of_a_request_come_at_once() -> None:
    params = {
        "promt": "x",
        "duration": 5,
        "aspect_ratio": "1:1",
        "video_length": "5",
        "image_url": "data:" + "x" * 10_000_000,
        "resolution": None,
        "generate_audio": 1,
    }
    names = ", ".join(parameter.name for parameter in models.describe("seedance_1_5_pro"))
    data = f"'data:{'x' * 22}...{'x' * 28}'"
    upload = "this parameter takes URLs only: upload the file and pass its URL"
    assert str(refusal("seedance_1_5_pro", params)).splitlines() == [
        "seedance_1_5_pro: promt is not a parameter of this model; did you mean prompt?",
        f"seedance_1_5_pro: duration is not a parameter of this model; it takes {names}",
        "seedance_1_5_pro: prompt is required",
        "seedance_1_5_pro: aspect_ratio must be one of '16:9', '9:16', got '1:1'",
        "seedance_1_5_pro: video_length must be a finite number, from 4 to 12, got '5'",
        f"seedance_1_5_pro: image_url must be a public http(s) URL, got {data}; {upload}",
        "seedance_1_5_pro: generate_audio must be True or False, got 1",
    ]


def test_a_mistake_is_a_value_error_and_a_type_error() -> None:
    for kind in (ValueError, TypeError):
        with pytest.raises(kind, match="gpt_4o: prompt must be a string, got 5"):
            models.build("gpt_4o", {"prompt": 5})


@pytest.mark.parametrize(
    ("model", "name", "value", "offered"),
    [
        ("nano_banana_v2", "resolution", "2k", "2K"),
        ("minimax_h3", "quality", "2K", "2k"),
        ("nano_banana_v2", "aspect_ratio", "16x9", "16:9"),
        ("nano_banana_v2", "aspect_ratio", "16:9 ", "16:9"),
        ("kling_v3_omni", "type", "first_last_frames", "first_last_frame"),
        ("kling_v3_omni", "resolution", "1080", "1080p"),
        *(("nano_banana", "aspect_ratio", value, None) for value in ("7:3", "", "x" * 1_000_000)),
    ],
)
def test_a_word_that_is_nearly_right_leads_to_the_right_one(
    model: str, name: str, value: str, offered: str | None
) -> None:
    text = str(refusal(model, {"prompt": "p", name: value}))
    assert "must be one of '" in text
    hint = f"; did you mean {offered!r}?" if offered else ""
    assert text.endswith(f", got {value!r}{hint}" if len(value) < 50 else "xxx'")


def test_a_missing_first_frame_is_reported_as_missing() -> None:
    with pytest.raises(InvalidParamsError) as caught:
        Seedance2(prompt="p", type="first_last_frame")
    assert str(caught.value) == "seedance2: image_url is required with type='first_last_frame'"


@pytest.mark.parametrize("params", [None, 5, ["prompt"], "prompt"])
def test_parameters_must_be_a_mapping(params: Any) -> None:
    with pytest.raises(TypeError, match="the parameters of suno must be a mapping, got "):
        models.build("suno", params)


@pytest.mark.parametrize("name", ["x" * 10_000, "a\nb", "", 5, ("prompt",)])
def test_a_strange_name_is_reported_in_one_line(name: Any) -> None:
    error = refusal("suno_lyrics", {"prompt": "p", name: 5})
    assert len(error.problems) == len(str(error).splitlines()) == 1
    assert len(str(error)) < 200


@pytest.mark.parametrize("slip", ["promt", "Prompt", "PROMPT"])
def test_a_parameter_in_another_case_is_recognised(slip: str) -> None:
    error = refusal("suno_lyrics", {slip: "p"})
    assert f"{slip} is not a parameter of this model; did you mean prompt?" in str(error)


def test_items_are_named_by_their_index() -> None:
    urls = ["https://a.io/b", "b.png", "https://a.io/c", "d.png"]
    problems = refusal("nano_banana", {"prompt": "p", "image_url": urls}).problems
    assert [problem.param for problem in problems] == ["image_url[1]", "image_url[3]"]


def test_an_error_names_the_model_that_was_asked_for() -> None:
    assert str(refusal("gpt_4o_plus", {})) == "gpt_4o_plus: prompt is required"
    with pytest.raises(InvalidParamsError, match=r"^gpt_4o_plus: prompt must be a string, got 5$"):
        GPT4o(prompt=5, variant="gpt_4o_plus")  # type: ignore[arg-type]
    with pytest.raises(InvalidParamsError, match=r"^gpt_4o: variant must be one of 'gpt_4o', "):
        GPT4o(prompt="p", variant="gpt_4o_max")


def test_a_variant_is_submitted_under_its_own_name() -> None:
    instance = models.build("gpt_4o_plus", {"prompt": "p"})
    assert instance == GPT4o(prompt="p", variant="gpt_4o_plus") != GPT4o(prompt="p")
    assert instance.model_name == "gpt_4o_plus"
    assert instance.to_params() == {"prompt": "p"}
    assert GPT4o(prompt="p").model_name == "gpt_4o"
    with pytest.raises(InvalidParamsError, match="variant is not a parameter"):
        models.build("gpt_4o", {"prompt": "p", "variant": "gpt_4o_plus"})


def test_only_what_was_set_is_sent_and_all_of_it() -> None:
    """Defaults are sent only when set; None is not sent."""
    assert KITTEN.to_params() == {"prompt": "a kitten", "aspect_ratio": "16:9"}
    said = attrs.evolve(KITTEN, video_length=5, resolution="720p", generate_audio=False)  # type: ignore[misc]
    assert said.to_params() == {
        **KITTEN.to_params(),
        "video_length": 5,
        "resolution": "720p",
        "generate_audio": False,
    }
    assert models.build("seedance_1_5_pro", {**KITTEN.to_params(), "resolution": None}) == KITTEN


@pytest.mark.parametrize("model", ["seedance_1_5_pro", "seedance_pro", "seedance_pro_fast"])
def test_the_size_of_a_seedance_video_follows_from_ratio_and_resolution(model: str) -> None:
    sizes = {
        ("16:9", None): "1280x720",
        ("16:9", "720p"): "1280x720",
        ("16:9", "1080p"): "1920x1080",
        ("9:16", None): "720x1280",
        ("9:16", "1080p"): "1080x1920",
    }
    for (ratio, resolution), size in sizes.items():
        params = {"prompt": "p", "aspect_ratio": ratio, "resolution": resolution}
        assert models.build(model, params).size == size  # type: ignore[attr-defined]


@pytest.mark.parametrize("images", ["https://a.io/b,c", ["https://a.io/b,c"]])
def test_a_single_string_is_wrapped_where_an_array_is_wanted(images: str | list[str]) -> None:
    """Nothing is split or joined at commas."""
    assert NanoBanana(prompt="p", image_url=images).to_params()["image_url"] == ["https://a.io/b,c"]


def test_where_both_are_documented_a_string_stays_a_string() -> None:
    for given_, sent in (("https://a.io/b",) * 2, (("https://a.io/b",), ["https://a.io/b"])):
        assert Seedance25(prompt="p", image_url=given_).to_params()["image_url"] == sent


def test_a_checked_request_cannot_be_changed_from_outside() -> None:
    images = ["https://a.io/b"]
    request = NanoBanana(prompt="p", image_url=images)
    images.append("no URL")
    request.to_params()["image_url"].append("no URL")
    assert request.to_params()["image_url"] == ["https://a.io/b"]
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        request.prompt = "q"  # type: ignore[misc]


def test_a_member_of_a_string_enum_is_a_string() -> None:
    class Ratio(StrEnum):
        WIDE = "16:9"

    params = {"prompt": "p", "aspect_ratio": Ratio.WIDE}
    assert models.build("seedance_1_5_pro", params).to_params() == params


def test_a_repr_is_short() -> None:
    request = GPT4o(prompt="p" * 1000, image_url="data:image/png;base64," + "A" * 1_000_000)
    assert repr(KITTEN) == "Seedance15Pro(prompt='a kitten', aspect_ratio='16:9')"
    assert len(repr(request)) < 200


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("seedance_15_pro", "seedance_1_5_pro"),
        ("nano-banana-v2", "nano_banana_v2"),
        ("NanoBananaV2", "nano_banana_v2"),
        ("GPT_4O", "gpt_4o"),
        ("SUNO", "suno"),
        *((name, None) for name in ("zzz", "", 5, "9" * 10_000)),
    ],
)
def test_an_unknown_model_is_reported_with_its_nearest_names(
    name: Any, nearest: str | None
) -> None:
    for ask in (models.describe, models.example, lambda name: models.build(name, {})):
        with pytest.raises(UnknownModelError) as caught:
            ask(name)
        assert isinstance(caught.value, KeyError)
        assert str(caught.value).startswith("no model is called ")
        assert len(str(caught.value)) < 200
        assert (f"; did you mean {nearest}" in str(caught.value)) is (nearest is not None)
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301


def test_invalid_params_pickle() -> None:
    error = InvalidParamsError("gpt_4o", (Problem("prompt", "is required"),))
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (again.model, again.problems, str(again)) == (error.model, error.problems, str(error))


@pytest.mark.parametrize(
    ("name", "channel", "full"),
    [
        ("gpt_4o", "plus", "gpt_4o_plus"),
        ("gpt_4o_plus", "plus", "gpt_4o_plus"),
        ("nano_banana", "max", "nano_banana_max"),
        ("next_months_model", "advanced", "next_months_model_advanced"),
    ],
)
def test_a_channel_is_appended(name: str, channel: str, full: str) -> None:
    assert models.with_channel(name, channel) == full


@pytest.mark.parametrize(
    ("name", "channel", "text"),
    [
        ("gpt_4o", "max", "gpt_4o has no channel max; it has base, plus, advanced"),
        ("seedance2", "plus", "seedance2 has no channel plus; it has none"),
        ("gpt_4o_plus", "base", "gpt_4o_plus already names a channel, got base as well"),
        ("next_plus", "base", "next_plus already names a channel, got base as well"),
        ("next_model", "gold", "channel must be one of base, plus, advanced, max, got 'gold'"),
        ("seedance2", "face", "channel must be one of base, plus, advanced, max, got 'face'"),
    ],
)
def test_a_channel_that_the_model_does_not_have_is_rejected(
    name: str, channel: str, text: str
) -> None:
    with pytest.raises(ValueError, match=f"^{text}$"):
        models.with_channel(name, channel)


@pytest.mark.parametrize(
    ("model", "name", "text", "facts"),
    [
        (
            "kling_v3_omni",
            "video_length",
            "Length of the video in seconds; ignored with refer_type=base",
            "integer, from 3 to 15, default 5",
        ),
        (
            "kling_v3_omni",
            "end_image_url",
            "Last frame",
            f"string, {URL_OR_DATA}, only with type=first_last_frame, only with image_url",
        ),
        (
            "suno",
            "title",
            "Title of the song",
            "string, at most 100 characters long, required with custom_mode=True",
        ),
        (
            "nano_banana_pro",
            "format",
            "File format",
            "string, one of 'png', 'jpg', default 'png', deprecated",
        ),
        ("seedance2", "prompt", "Text prompt", "string, at least 1 character long, required"),
        ("wan3_0", "seed", "Random seed", "integer, at least 0"),
    ],
)
def test_a_parameter_describes_itself_in_a_line(
    model: str, name: str, text: str, facts: str
) -> None:
    described = {each.name: str(each) for each in models.describe(model)}
    assert described[name] == f"{text} ({facts})."
    assert str(models.MODELS[model].__doc__).count(described[name]) == 1


def test_public_names() -> None:
    """``__all__`` and ``dir`` agree, and every class says where users find it."""
    assert models.loaded()
    assert models.load() is models.MODELS
    names: list[str] = vars(models)["__all__"]
    assert names == sorted(names)
    classes = {*models.MODELS.values(), models.Model, Parameter, Problem, InvalidParamsError}
    assert {cls.__name__ for cls in classes} <= set(names) <= set(dir(models))
    assert {cls.__module__ for cls in classes} == {"aireiter_async.models"}
    assert all(getattr(models, name) is not None for name in names)
    for missing in ("Seedance", "_nothing", "__nothing__"):
        with pytest.raises(AttributeError, match=missing):
            getattr(models, missing)


LOADING = {
    "aireiter_async": False,
    "isinstance(5, models.Model)": False,
    "hasattr(models, '__wrapped__')": False,
    "models.loaded()": False,
    "models.load()": True,
    "models.MODELS": True,
    "models.Seedance15Pro": True,
    "models.Parameter": True,
    "models.__all__": True,
    "dir(models)": True,
    "exec('from aireiter_async.models import *; Suno')": True,
    "models.with_channel('gpt_4o', 'plus')": True,
}
FORKING = """
import json, os, sys
import aireiter_async
from aireiter_async import models
for code in sys.argv[1:]:
    if not os.fork():
        exec(code)
        loaded = ['aireiter_async.models.videos' in sys.modules, models.loaded()]
        print(json.dumps([code, loaded]), flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_classes_are_imported_on_demand() -> None:
    command = [sys.executable, "-c", FORKING, *LOADING]
    done = subprocess.run(command, capture_output=True, check=True, text=True)  # noqa: S603
    loaded = dict(map(json.loads, done.stdout.splitlines()))
    assert loaded == {code: [expected] * 2 for code, expected in LOADING.items()}


def test_type_checkers_see_the_same_families() -> None:
    source = Path(models.__file__).read_text(encoding="utf-8")
    stars = re.findall(r"from aireiter_async\.models\.(\w+) import \*", source)
    assert tuple(stars) == _catalogue.FAMILIES
