"""The models' door: building, naming, describing, importing."""

import contextlib
import copy
import pickle
import re
import subprocess
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aireiter_async import models
from aireiter_async.models import (
    GPT4o,
    InvalidParamsError,
    KlingV3Omni,
    Model,
    NanoBanana,
    Problem,
    Seedance2,
    Seedance15Pro,
    Seedance25,
    UnknownModelError,
    _catalogue,
)
from tests.model_strategies import instances

KITTEN = Seedance15Pro(prompt="a kitten", aspect_ratio="16:9")


@settings(max_examples=20, deadline=None)
@given(st.data())
@pytest.mark.parametrize("model", sorted(models.MODELS))
def test_a_valid_instance_survives_every_way_it_can_go(model: str, data: st.DataObject) -> None:
    """What is sent builds an equal instance; copies and pickles are equal."""
    instance = data.draw(instances(model))
    assert instance.model_name == model
    again = models.build(model, instance.to_params())
    for twin in (again, copy.deepcopy(instance), pickle.loads(pickle.dumps(instance))):  # noqa: S301
        assert twin == instance
        assert hash(twin) == hash(instance)


@settings(deadline=None)
@given(
    st.sampled_from(sorted(models.MODELS)),
    st.dictionaries(
        st.sampled_from(["prompt", "image_url", "type", "video_length", "seed", "size", "x"]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text()),
    ),
)
def test_anything_at_all_is_refused_or_sent(model: str, params: dict[str, Any]) -> None:
    """Whatever is given is refused with the one error, or sent as it is."""
    sent = whole = {name: value for name, value in params.items() if value is not None}
    with contextlib.suppress(InvalidParamsError):
        sent = models.build(model, params).to_params()
    assert sent == whole


def test_all_mistakes_of_a_request_come_at_once() -> None:
    """Unknown, missing and wrong parameters have a line each."""
    with pytest.raises(InvalidParamsError) as caught:
        models.build(
            "seedance_1_5_pro",
            {
                "promt": "x",
                "duration": 5,
                "aspect_ratio": "1:1",
                "video_length": "5",
                "image_url": "data:" + "x" * 10_000_000,
                "resolution": None,
                "generate_audio": 1,
            },
        )
    names = ", ".join(parameter.name for parameter in models.describe("seedance_1_5_pro"))
    data = f"'data:{'x' * 22}...{'x' * 28}'"
    upload = "this parameter takes URLs only: upload the file and pass its URL"
    assert str(caught.value).splitlines() == [
        "seedance_1_5_pro: promt is not a parameter of this model; did you mean prompt?",
        f"seedance_1_5_pro: duration is not a parameter of this model; it takes {names}",
        "seedance_1_5_pro: prompt is required",
        "seedance_1_5_pro: aspect_ratio must be one of '16:9', '9:16', got '1:1'",
        "seedance_1_5_pro: video_length must be a finite number, from 4 to 12, got '5'",
        f"seedance_1_5_pro: image_url must be a public http(s) URL, got {data}; {upload}",
        "seedance_1_5_pro: generate_audio must be True or False, got 1",
    ]


def test_a_mistake_is_a_value_error_and_a_type_error() -> None:
    """One request can hold both kinds: the error is caught as either."""
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
    ],
)
def test_a_word_that_is_nearly_right_is_told_with_the_right_one(
    model: str, name: str, value: str, offered: str
) -> None:
    """Another case, a letter too many or too few lead to what was meant."""
    with pytest.raises(InvalidParamsError) as caught:
        models.build(model, {"prompt": "p", name: value})
    assert str(caught.value).endswith(f", got {value!r}; did you mean {offered!r}?")


@pytest.mark.parametrize("value", ["7:3", "wide", "", "x" * 1_000_000])
def test_a_word_that_looks_like_none_is_told_without_a_guess(value: str) -> None:
    """What is allowed is listed, and nothing is offered."""
    with pytest.raises(InvalidParamsError) as caught:
        NanoBanana(prompt="p", aspect_ratio=value)  # type: ignore[arg-type]
    assert "must be one of 'auto', '16:9', " in str(caught.value)
    assert "did you mean" not in str(caught.value)


def test_a_missing_first_frame_is_told_as_missing() -> None:
    """Nothing given is not "0 items": the parameter is required."""
    with pytest.raises(InvalidParamsError) as caught:
        Seedance2(prompt="p", type="first_last_frame")
    assert str(caught.value) == "seedance2: image_url is required with type='first_last_frame'"


@pytest.mark.parametrize("params", [None, 5, ["prompt"], "prompt"])
def test_parameters_are_a_mapping(params: Any) -> None:
    """Anything else is told, not tripped over."""
    with pytest.raises(TypeError, match="parameters of suno must be a mapping, not "):
        models.build("suno", params)


@pytest.mark.parametrize("name", ["x" * 10_000, "a\nb", "", 5, ("prompt",)])
def test_a_strange_name_is_told_in_a_line(name: Any) -> None:
    """Whatever was given for a name, the error has one line for it."""
    with pytest.raises(InvalidParamsError) as caught:
        models.build("suno_lyrics", {"prompt": "p", name: 5})
    assert len(caught.value.problems) == len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 200


def test_items_are_named_by_their_place() -> None:
    """Among many media the wrong ones are told."""
    with pytest.raises(InvalidParamsError) as caught:
        NanoBanana(prompt="p", image_url=["https://a.io/b", "b.png", "https://a.io/c", "d.png"])
    assert [problem.param for problem in caught.value.problems] == ["image_url[1]", "image_url[3]"]


def test_the_model_in_an_error_is_the_one_that_was_asked_for() -> None:
    """A mistake names the variant; a wrong variant names the model."""
    with pytest.raises(InvalidParamsError, match=r"^gpt_4o_plus: prompt is required$"):
        models.build("gpt_4o_plus", {})
    with pytest.raises(InvalidParamsError, match=r"^gpt_4o_plus: prompt must be a string, got 5$"):
        GPT4o(prompt=5, variant="gpt_4o_plus")  # type: ignore[arg-type]
    with pytest.raises(InvalidParamsError, match=r"^gpt_4o: variant must be one of 'gpt_4o', "):
        GPT4o(prompt="p", variant="gpt_4o_max")


def test_a_variant_is_submitted_under_its_own_name() -> None:
    """The variant is the name, and no parameter."""
    instance = models.build("gpt_4o_plus", {"prompt": "p"})
    assert instance == GPT4o(prompt="p", variant="gpt_4o_plus") != GPT4o(prompt="p")
    assert instance.model_name == "gpt_4o_plus"
    assert instance.to_params() == {"prompt": "p"}
    assert GPT4o(prompt="p").model_name == "gpt_4o"
    with pytest.raises(InvalidParamsError, match="variant is not a parameter"):
        models.build("gpt_4o", {"prompt": "p", "variant": "gpt_4o_plus"})


def test_only_what_was_set_is_sent_and_all_of_it() -> None:
    """Defaults are sent only when said; None is as good as nothing."""
    assert KITTEN.to_params() == {"prompt": "a kitten", "aspect_ratio": "16:9"}
    said = attrs.evolve(KITTEN, video_length=5, resolution="720p", generate_audio=False)  # type: ignore[misc]
    assert said.to_params() == {
        **KITTEN.to_params(),
        "video_length": 5,
        "resolution": "720p",
        "generate_audio": False,
    }
    assert models.build("seedance_1_5_pro", {**KITTEN.to_params(), "resolution": None}) == KITTEN


@pytest.mark.parametrize(
    ("ratio", "resolution", "size"),
    [
        ("16:9", None, "1280x720"),
        ("16:9", "720p", "1280x720"),
        ("16:9", "1080p", "1920x1080"),
        ("9:16", None, "720x1280"),
        ("9:16", "1080p", "1080x1920"),
    ],
)
@pytest.mark.parametrize("model", ["seedance_1_5_pro", "seedance_pro", "seedance_pro_fast"])
def test_the_size_of_a_seedance_video_follows_from_ratio_and_resolution(
    model: str, ratio: str, resolution: str | None, size: str
) -> None:
    """The documented sizes, with the documented default of the resolution."""
    params = {"prompt": "p", "aspect_ratio": ratio, "resolution": resolution}
    assert models.build(model, params).size == size  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "images", ["https://a.io/b,c", ["https://a.io/b,c"], ("https://a.io/b,c",)]
)
def test_a_lone_string_is_wrapped_where_an_array_is_wanted(images: str | Sequence[str]) -> None:
    """A sequence leaves as a list; nothing is split or joined at commas."""
    assert NanoBanana(prompt="p", image_url=images).to_params()["image_url"] == ["https://a.io/b,c"]


def test_where_both_are_documented_a_string_stays_a_string() -> None:
    """A string and an array of one leave as what they were."""
    assert (
        Seedance25(prompt="p", image_url="https://a.io/b").to_params()["image_url"]
        == "https://a.io/b"
    )
    assert Seedance25(prompt="p", image_url=("https://a.io/b",)).to_params()["image_url"] == [
        "https://a.io/b"
    ]


def test_a_checked_request_cannot_be_changed_from_outside() -> None:
    """Neither the list given nor the one sent is the request's own."""
    images = ["https://a.io/b"]
    request = NanoBanana(prompt="p", image_url=images)
    images.append("no URL")
    request.to_params()["image_url"].append("no URL")
    assert request.to_params()["image_url"] == ["https://a.io/b"]
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        request.prompt = "q"  # type: ignore[misc]


def test_subclasses_of_the_plain_types_are_taken() -> None:
    """A member of a ``StrEnum`` is a string."""

    class Ratio(StrEnum):
        WIDE = "16:9"

    params = {"prompt": "p", "aspect_ratio": Ratio.WIDE}
    assert models.build("seedance_1_5_pro", params).to_params() == params


def test_a_request_shows_itself_in_a_line() -> None:
    """What was set is shown, shortened; a data URI does not land in a log."""
    request = GPT4o(prompt="p" * 1000, image_url="data:image/png;base64," + "A" * 1_000_000)
    assert repr(KITTEN) == "Seedance15Pro(prompt='a kitten', aspect_ratio='16:9')"
    assert len(repr(request)) < 200


@pytest.mark.parametrize("name", ["seedance_15_pro", "gpt4o", "sunno", "x", "", 5, "x" * 10_000])
def test_an_unknown_model_is_told_with_its_nearest_names(name: Any) -> None:
    """The error is a ``KeyError``, reads as a sentence, and pickles."""
    for ask in (models.describe, models.example, lambda name: models.build(name, {})):
        with pytest.raises(UnknownModelError) as caught:
            ask(name)
        assert isinstance(caught.value, KeyError)
        assert str(caught.value).startswith("no model is called ")
        assert len(str(caught.value)) < 200
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301
    assert UnknownModelError("gpt4o", ("gpt_4o", "suno")).args == ("gpt4o", ("gpt_4o", "suno"))


@pytest.mark.parametrize(
    ("slip", "name"),
    [
        ("seedance_15_pro", "seedance_1_5_pro"),
        ("nano-banana-v2", "nano_banana_v2"),
        ("NanoBananaV2", "nano_banana_v2"),
        ("GPT_4O", "gpt_4o"),
        ("SUNO", "suno"),
    ],
)
def test_the_nearest_names_are_offered(slip: str, name: str) -> None:
    """A slip, in whatever case, leads to the right name."""
    with pytest.raises(UnknownModelError, match=f"'{slip}'; did you mean {name}( or |\\?)"):
        models.describe(slip)


@pytest.mark.parametrize("slip", ["promt", "Prompt", "PROMPT"])
def test_a_parameter_in_another_case_is_recognised(slip: str) -> None:
    """The right spelling is offered."""
    with pytest.raises(InvalidParamsError, match=rf"{slip} is not .*; did you mean prompt\?"):
        models.build("suno_lyrics", {slip: "p"})


def test_the_errors_pickle() -> None:
    """An error that crosses a process says the same on the other side."""
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
    """The model has the channel, or is unknown, or is on it already."""
    assert models.with_channel(name, channel) == full


@pytest.mark.parametrize(
    ("name", "channel", "text"),
    [
        ("gpt_4o", "max", "gpt_4o has no channel max; it has base, plus, advanced"),
        ("seedance2", "plus", "seedance2 has no channel plus; it has none at all"),
        ("gpt_4o_plus", "base", "gpt_4o_plus is on channel plus already, not on base"),
        ("next_plus", "base", "next_plus is on channel plus already, not on base"),
        ("gpt_4o", "gold", "a channel is one of base, plus, advanced, max, not 'gold'"),
        ("next_months_model", "gold", "a channel is one of base, plus, advanced, max, not 'gold'"),
        ("seedance2", "face", "a channel is one of base, plus, advanced, max, not 'face'"),
    ],
)
def test_a_channel_that_the_model_does_not_have_is_refused(
    name: str, channel: str, text: str
) -> None:
    """The error tells the channels that there are."""
    with pytest.raises(ValueError, match=text):
        models.with_channel(name, channel)


def test_a_parameter_tells_itself_in_a_line() -> None:
    """Type, limits, cases and default are told in words."""
    told = {each.name: str(each) for each in models.describe("kling_v3_omni")}
    assert told["video_length"] == (
        "Length of the video in seconds; ignored with refer_type=base "
        "(integer, from 3 to 15, default 5)."
    )
    assert told["end_image_url"] == (
        "Last frame (string, a public http(s) URL or a data URI, "
        "only with type=first_last_frame, only with image_url)."
    )
    assert str(KlingV3Omni.__doc__).count(told["video_length"]) == 1
    told = {each.name: str(each) for each in models.describe("suno")}
    assert told["title"] == (
        "Title of the song (string, at most 100 characters long, required with custom_mode=True)."
    )
    assert "deprecated" in str(models.describe("nano_banana_pro")[-1])
    told = {each.name: str(each) for each in models.describe("seedance2")}
    assert told["prompt"] == "Text prompt (string, at least 1 character long, required)."
    wan = {each.name: str(each) for each in models.describe("wan3_0")}
    assert "at least 0" in wan["seed"]


def test_the_public_names_are_sorted_and_there() -> None:
    """``__all__`` and ``dir`` agree; what is not there is an error."""
    assert models.MODELS  # which opens the door
    names: list[str] = vars(models)["__all__"]
    assert names == sorted(names)
    assert {cls.__name__ for cls in models.MODELS.values()} <= set(names) <= set(dir(models))
    assert all(getattr(models, name) is not None for name in names)
    for missing in ("Seedance", "_nothing", "__nothing__"):
        with pytest.raises(AttributeError, match=missing):
            getattr(models, missing)


@pytest.mark.parametrize(
    ("ask", "loaded"),
    [
        ("isinstance(5, models.Model)", False),
        ("hasattr(models, '__wrapped__')", False),
        ("models.loaded()", False),
        ("models.load()", True),
        ("models.MODELS", True),
        ("models.Seedance15Pro", True),
        ("models.Parameter", True),
        ("models.__all__", True),
        ("dir(models)", True),
        ("exec('from aireiter_async.models import *; Suno')", True),
        ("models.with_channel('gpt_4o', 'plus')", True),
    ],
)
def test_classes_are_imported_when_they_are_asked_for(ask: str, loaded: bool) -> None:  # noqa: FBT001
    """The package alone does not import the classes, and any way to them does."""
    code = (
        f"import sys; from aireiter_async import models; {ask}; "
        "print('aireiter_async.models.videos' in sys.modules, models.loaded())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)  # noqa: S603
    assert done.stdout.split() == [str(loaded)] * 2


def test_type_checkers_look_into_the_same_rooms() -> None:
    """Each room that is imported at run time has its line for checkers."""
    source = Path(models.__file__).read_text(encoding="utf-8")
    stars = re.findall(r"from aireiter_async\.models\.(\w+) import \*", source)
    assert tuple(stars) == _catalogue.FAMILIES


def test_a_wrong_use_is_seen_by_the_type_checker_too() -> None:
    """Each is refused here, and by mypy, or the comments were unused."""
    assert isinstance(KITTEN, Model)
    size: str = KITTEN.size
    assert size == "1280x720"
    Seedance2(prompt="p", type="all_reference", video_length="5", image_url="https://a.io/b")
    with pytest.raises(ValueError, match="aspect_ratio"):
        Seedance15Pro(prompt="x", aspect_ratio="1:1")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="video_length"):
        Seedance15Pro(prompt="x", aspect_ratio="16:9", video_length="5")  # type: ignore[arg-type]
    Seedance2(prompt="p", type="all_reference", video_length=5)
    with pytest.raises(ValueError, match="video_length"):
        Seedance2(prompt="p", type="all_reference", video_length=5.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="aspect_ratio"):
        Seedance15Pro(prompt="x")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="promt"):
        Seedance15Pro(promt="x", aspect_ratio="16:9")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="positional"):
        Seedance15Pro("x", "16:9")  # type: ignore[call-arg]
    with pytest.raises(AttributeError, match="Seedance1"):
        models.Seedance1  # type: ignore[attr-defined]  # noqa: B018
