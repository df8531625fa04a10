"""What the catalogue says in words: of parameters together, of media."""

import re
from typing import Any

import pytest

from aireiter_async import models
from aireiter_async.models import InvalidParamsError, Model
from aireiter_async.models._rules import Given

A, B, C = (f"https://example.com/{name}" for name in "abc")
P = {"prompt": "p"}
FRAMES = {"prompt": "p", "type": "first_last_frame"}
REFERENCES = {"prompt": "p", "type": "all_reference"}
HORSE = {"prompt": "p", "image_url": A}
EDIT = {"type": "video_edit", "prompt": "p", "video_url": A}
CLIP = {"clip_id": "c", "prompt": "p"}

SEEDANCE2 = ("seedance2", "seedance2_fast", "seedance2_mini", "seedance2_face")

ALLOWED: list[tuple[str, dict[str, Any]]] = [
    ("gpt_image_2", {**P, "size": "1024x1024"}),
    ("gpt_image_2", {**P, "aspect_ratio": "21:9", "resolution": "4K"}),
    ("seedream_v5_pro", {**P, "size": "1024x1024", "aspect_ratio": "1:1", "resolution": "1K"}),
    *(
        ("gpt_image_2_official", {**P, "resolution": "4K", "aspect_ratio": ratio})
        for ratio in ("16:9", "9:16", "2:1", "1:2", "21:9", "9:21")
    ),
    ("gpt_image_2_official", {**P, "resolution": "2K"}),
    ("mj_v8_1", {**P, "quality": "hd"}),
    ("mj_v8_1", {**P, "quality": "hd", "speed": "fast"}),
    ("mj_v8_1", {**P, "quality": "standard", "speed": "draft"}),
    ("qwen_image_3", {**P, "prompt_extend": True, "prompt_extend_mode": "agent"}),
    ("qwen_image_3", {**P, "prompt_extend": True, "prompt_extend_mode": "direct", "image_url": A}),
    ("qwen_image_3", {**P, "prompt_extend_mode": "direct"}),
    *((model, {**FRAMES, "image_url": A, "end_image_url": B}) for model in SEEDANCE2),
    *((model, {**REFERENCES, "image_url": [A], "video_url": [B, C]}) for model in SEEDANCE2),
    *((model, REFERENCES) for model in SEEDANCE2),
    ("seedance2_5", {**FRAMES, "image_url": A, "end_image_url": B}),
    ("seedance2_5", {**FRAMES, "image_url": [A], "video_url": [], "audio_url": []}),
    ("seedance2_5", {**P, "image_url": [A, B], "video_url": A, "audio_url": [C]}),
    ("minimax_h3", {**FRAMES, "image_url": [A, B]}),
    ("minimax_h3", {**FRAMES, "image_url": A, "end_image_url": B, "aspect_ratio": "16:9"}),
    ("minimax_h3", {**P, "video_length": 5.0}),
    ("kling_3_0", {**P, "image_url": A, "end_image_url": B}),
    ("kling_v3_omni", {**FRAMES, "image_url": [A], "end_image_url": B}),
    ("kling_v3_omni", {**P, "refer_type": "feature", "keep_original_sound": False}),
    ("kling_v3_omni", {**P, "video_url": A, "refer_type": "base", "keep_original_sound": True}),
    ("wan3_0", {"image_url": A}),
    ("wan3_0", {"type": "all_reference", "audio_url": [A]}),
    ("wan3_0", {"type": "first_last_frame", "image_url": [A, B]}),
    ("wan3_0", {"type": "file_web", "file_url": A}),
    ("wan3_0", {"type": "file_web", "link_url": A, **P}),
    ("gemini_omni_flash_ext", {**P, "image_url": [A] * 7, "video_length": "4"}),
    ("gemini_omni_flash_ext", {**P, "image_url": [A] * 5, "video_url": B}),
    ("happyhorse_1_0", {"type": "image_to_video", "image_url": A}),
    ("happyhorse_1_0", {**EDIT, "image_url": [A] * 5, "keep_original_sound": True}),
    ("flux_3_video", {**P, "mode": "i2v", "image_url": A}),
    ("flux_3_video", {**P, "mode": "v2v", "video_url": [A]}),
    ("seed_audio_1_0", {**P, "reference_mode": "audio", "audio_url": [A, B, C]}),
    ("seed_audio_1_0", {**P, "reference_mode": "image", "image_url": A, "audio_url": []}),
    ("suno", {**P, "custom_mode": True, "title": "t", "style": "s"}),
    ("suno", {**P, "custom_mode": False, "title": "t"}),
    ("flow_music_replace", {**CLIP, "start_s": 9.5}),
    ("flow_music_replace", {**CLIP, "start_s": 60, "end_s": 60.5}),
    ("flow_music_cover", {**CLIP, "strength": 0.1 + 0.2}),
    ("flow_music", {**P, "bpm": "128.5"}),
    ("nano_banana_pro", {**P, "format": "jpg"}),
    ("grok_imagine_2_0_ext", {"prompt": " p "}),
]

REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("gpt_image_2", {**P, "size": "1024x1024", "aspect_ratio": "1:1"}, "size"),
    ("gpt_image_2", {**P, "size": "1024x1024", "resolution": "1K"}, "size"),
    ("gpt_image_2_5_sunburst", {**P, "size": "1024x1024", "resolution": "1K"}, "size"),
    ("gpt_image_2_official", {**P, "resolution": "4K"}, "resolution"),
    ("gpt_image_2_official", {**P, "resolution": "4K", "aspect_ratio": "4:3"}, "resolution"),
    ("mj_v8_1", {**P, "quality": "hd", "speed": "draft"}, "quality"),
    ("qwen_image_3", {**P, "prompt_extend_mode": "agent"}, "prompt_extend_mode"),
    *(
        (
            model,
            {**P, "prompt_extend": True, "prompt_extend_mode": "agent", "image_url": A},
            "prompt_extend_mode",
        )
        for model in ("qwen_image_3", "qwen_image_3_pro")
    ),
    *((model, {**FRAMES, "image_url": A, "video_url": B}, "video_url") for model in SEEDANCE2),
    *((model, {**FRAMES, "image_url": [A, B]}, "image_url") for model in SEEDANCE2),
    *((model, FRAMES, "image_url") for model in SEEDANCE2),
    *((model, {**REFERENCES, "end_image_url": B}, "end_image_url") for model in SEEDANCE2),
    *((model, {**REFERENCES, "prompt": ""}, "prompt") for model in SEEDANCE2),
    ("seedance2_5", {**FRAMES, "image_url": A, "video_url": B}, "video_url"),
    ("seedance2_5", {**FRAMES, "image_url": A, "audio_url": [B]}, "audio_url"),
    ("seedance2_5", {**FRAMES, "image_url": [A, B]}, "image_url"),
    ("seedance2_5", {**P, "end_image_url": B}, "end_image_url"),
    ("minimax_h3", {**FRAMES, "image_url": [A, B, C]}, "image_url"),
    ("minimax_h3", {**FRAMES, "image_url": A, "aspect_ratio": "9:16"}, "aspect_ratio"),
    ("minimax_h3", {**P, "video_url": A}, "video_url"),
    ("minimax_h3", {**P, "audio_url": A}, "audio_url"),
    ("minimax_h3", {**REFERENCES, "end_image_url": A}, "end_image_url"),
    ("minimax_h3", {**P, "video_length": 5.5}, "video_length"),
    ("kling_3_0", {**P, "end_image_url": B}, "end_image_url"),
    ("kling_v3_omni", {**FRAMES, "end_image_url": B}, "end_image_url"),
    ("kling_v3_omni", {**FRAMES, "image_url": [A, B, C]}, "image_url"),
    ("kling_v3_omni", {**FRAMES, "image_url": A, "video_url": B}, "video_url"),
    ("kling_v3_omni", {**P, "refer_type": "base"}, "refer_type"),
    ("kling_v3_omni", {**P, "keep_original_sound": True}, "keep_original_sound"),
    ("wan3_0", {}, "prompt"),
    ("wan3_0", {"prompt": "", "image_url": []}, "prompt"),
    ("wan3_0", {"type": "first_last_frame", "image_url": [A, B, C]}, "image_url"),
    ("wan3_0", {"type": "first_last_frame", "image_url": A, "video_url": B}, "video_url"),
    ("wan3_0", {"type": "first_last_frame", "image_url": A, "audio_url": B}, "audio_url"),
    ("wan3_0", {"type": "first_last_frame", "image_url": A, "file_url": B}, "file_url"),
    ("wan3_0", {**P, "end_image_url": A}, "end_image_url"),
    ("wan3_0", {**P, "link_url": A}, "link_url"),
    ("wan3_0", {"type": "file_web", "link_url": A, "file_url": B}, "link_url"),
    ("wan3_0", {"type": "file_web", "link_url": A, "image_url": B}, "image_url"),
    ("gemini_omni_flash_ext", {**P, "video_url": A, "video_length": "6"}, "video_length"),
    ("gemini_omni_1_1_flash_ext", {**P, "image_url": [A] * 6, "video_url": B}, "image_url"),
    *(
        ("happyhorse_1_0", {"type": f"{kind}_to_video", "image_url": A}, "prompt")
        for kind in ("text", "reference")
    ),
    ("happyhorse_1_0", {"type": "video_edit", "video_url": A}, "prompt"),
    ("happyhorse_1_0", {"type": "video_edit", **P}, "video_url"),
    ("happyhorse_1_0", {"type": "image_to_video", **P}, "image_url"),
    ("happyhorse_1_0", {"type": "reference_to_video", **P, "image_url": []}, "image_url"),
    ("happyhorse_1_0", {**EDIT, "image_url": [A] * 6}, "image_url"),
    ("happyhorse_1_0", {**EDIT, "aspect_ratio": "16:9"}, "aspect_ratio"),
    ("happyhorse_1_0", {**EDIT, "aspect_ratio": "1:1"}, "aspect_ratio"),
    ("happyhorse_1_0", {**EDIT, "video_length": 5}, "video_length"),
    (
        "happyhorse_1_0",
        {"type": "image_to_video", **HORSE, "aspect_ratio": "1:1"},
        "aspect_ratio",
    ),
    (
        "happyhorse_1_0",
        {"type": "image_to_video", **HORSE, "keep_original_sound": True},
        "keep_original_sound",
    ),
    ("flux_3_video", {**P, "mode": "i2v"}, "image_url"),
    ("flux_3_video", {**P, "mode": "v2v"}, "video_url"),
    ("flux_3_video", {**P, "image_url": A}, "image_url"),
    ("flux_3_video", {**P, "mode": "i2v", "image_url": A, "video_url": B}, "video_url"),
    ("seed_audio_1_0", {**P, "audio_url": A}, "audio_url"),
    ("seed_audio_1_0", {**P, "image_url": A}, "image_url"),
    ("seed_audio_1_0", {**P, "reference_mode": "text", "image_url": A}, "image_url"),
    (
        "seed_audio_1_0",
        {**P, "reference_mode": "audio", "audio_url": A, "image_url": B},
        "image_url",
    ),
    ("suno", {**P, "custom_mode": True, "style": "s"}, "title"),
    ("suno_cover", {**P, "audio_url": A, "custom_mode": True, "title": "t"}, "style"),
    ("flow_music_replace", {**CLIP, "start_s": 10}, "end_s"),
    ("flow_music_replace", {**CLIP, "start_s": 9, "end_s": 8}, "end_s"),
    ("flow_music_cover", {**CLIP, "strength": 0.55}, "strength"),
    ("flow_music", {**P, "bpm": "0.5"}, "bpm"),
    ("flow_music", {**P, "bpm": "1" * 5000}, "bpm"),
    ("grok_imagine_2_0_ext", {"prompt": " \t\n"}, "prompt"),
    ("grok_imagine_2_0_ext", {"prompt": ""}, "prompt"),
    ("grok_imagine_2_0_ext", {**P, "image_url": A}, "image_url"),
    ("z_image_turbo", {**P, "size": "1024x1024"}, "size"),
    ("z_image_turbo", {**P, "resolution": "1K"}, "resolution"),
    ("z_image_turbo", {**P, "output_n": 1}, "output_n"),
    ("gpt_image_1_5", {**P, "background": "transparent"}, "background"),
]


def problems(model: str, params: dict[str, Any]) -> list[str]:
    with pytest.raises(InvalidParamsError) as caught:
        models.build(model, params)
    return [problem.param for problem in caught.value.problems]


def given(cls: type[Model], params: dict[str, Any]) -> Given:
    values = Given({parameter.name: parameter.default for parameter in cls.PARAMETERS})
    values |= {n: tuple(value) if isinstance(value, list) else value for n, value in params.items()}
    return values


def words(*texts: str) -> set[str]:
    return set(re.findall(r"\w+", " ".join(texts)))


@pytest.mark.parametrize(("model", "params"), ALLOWED)
def test_what_the_constraints_allow_is_accepted(model: str, params: dict[str, Any]) -> None:
    assert set(models.build(model, params).to_params()) == set(params)


@pytest.mark.parametrize(("model", "params", "name"), REFUSED)
def test_what_the_constraints_forbid_is_rejected_once(
    model: str, params: dict[str, Any], name: str
) -> None:
    assert problems(model, params) == [name]


@pytest.mark.parametrize("model", sorted({c.MODEL for c in models.MODELS.values() if c.RULES}))
def test_every_rule_is_told_in_a_sentence(model: str) -> None:
    cls = models.MODELS[model]
    names = {parameter.name for parameter in cls.PARAMETERS}
    requests = [params for name, params, _ in REFUSED if models.MODELS[name] is cls]
    assert len(cls.CONSTRAINTS) == len(cls.RULES)
    for rule, sentence in zip(cls.RULES, cls.CONSTRAINTS, strict=True):
        found = [str(problem) for params in requests for problem in rule(given(cls, params))]
        assert found
        assert names & words(*found) <= words(sentence)
        assert re.fullmatch(r"\S.+ .+\.", sentence)
        assert f"    {sentence}\n" in str(cls.__doc__)


@pytest.mark.parametrize(
    ("model", "good", "bad"),
    [
        (
            "gpt_image_2",
            ["1024x640", "3840x2160", "655360x1", "01024x640"],
            ["1023x640", "3841x2160", "0x0"],
        ),
        (
            "seedream_v5_pro",
            ["960x960", "2048x2048", "3840x240", "240x3840"],
            ["944x976", "2064x2048", "970x970", "3856x240", "240x3856"],
        ),
        (
            "gpt_image_2_5_flare",
            ["1024x640", "3840x2160", "3840x1280"],
            ["1024x624", "3856x2160", "3840x1264", "1280x3856", "1025x1025"],
        ),
    ],
)
def test_a_size_is_judged_by_area_sides_and_ratio(
    model: str, good: list[str], bad: list[str]
) -> None:
    for size in good:
        assert models.build(model, {**P, "size": size}).to_params()["size"] == size
    for size in [*bad, "1024", "1024X1024", "1024x1024\n", "1024 x 1024", "-1024x-1024", "x"]:
        assert problems(model, {**P, "size": size}) == ["size"]
    assert problems(model, {**P, "size": f"{'9' * 5000}x1"}) == ["size"]


def image(megabytes: float, kind: str = "png") -> str:
    head = f"data:image/{kind};base64,"
    size = int(megabytes * 1024 * 1024) - len(head)
    return head + "A" * (size // 4 * 4)


@pytest.mark.parametrize("model", ["gpt_4o", "nano_banana", "flux_2_pro", "mj_v7"])
def test_an_image_in_a_request_has_ten_megabytes_at_most(model: str) -> None:
    single = model == "gpt_4o"
    large, small = image(10.01), image(10)
    sent = models.build(model, {**P, "image_url": small}).to_params()["image_url"]
    assert sent in (small, [small])
    with pytest.raises(InvalidParamsError, match="at most 10 MB") as caught:
        models.build(model, {**P, "image_url": large})
    assert caught.value.problems[0].param == ("image_url" if single else "image_url[0]")
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("model", ["gpt_image_2", "wan2_7_image_pro"])
def test_an_image_may_be_larger_where_no_limit_is_documented(model: str) -> None:
    models.build(model, {**P, "image_url": image(11)})


@pytest.mark.parametrize("kind", ["jpeg", "jpg", "png", "webp", "PNG"])
def test_an_image_is_jpeg_png_or_webp(kind: str) -> None:
    models.build("gpt_4o", {**P, "image_url": image(0.001, kind)})
    for bad in (f"gif{kind}", "svg+xml", ""):
        assert problems("gpt_4o", {**P, "image_url": image(0.001, bad)}) == ["image_url"]
    assert problems("gpt_4o", {**P, "image_url": f"data:image/{kind};base64,"}) == ["image_url"]


def test_one_model_takes_bare_base64() -> None:
    models.build("grok_imagine_image_2_0", {**P, "image_url": "iVBORw0KGgo="})
    for bad in ("A" * 15 * 1024 * 1024, "./cat.png"):
        params = {**P, "image_url": ["iVBORw0KGgo=", bad]}
        assert problems("grok_imagine_image_2_0", params) == ["image_url[1]"]


@pytest.mark.parametrize(
    ("model", "params", "names"),
    [
        ("kling_3_0", {**P, "image_url": 5, "end_image_url": A}, ["image_url"]),
        ("flux_3_video", {**P, "mode": "i2v", "image_url": ["x"]}, ["image_url[0]"]),
        ("seedance2", {**FRAMES, "image_url": ["x"]}, ["image_url[0]"]),
        ("seedance2", {**P, "end_image_url": A}, ["type"]),
        ("seedance2", {**P, "type": "x", "end_image_url": A}, ["type"]),
        ("seedance2_5", {**P, "type": "x", "end_image_url": A}, ["type"]),
        ("wan3_0", {"image_url": 5}, ["image_url"]),
        ("wan3_0", {"prompt": 5}, ["prompt"]),
        ("gpt_image_2_official", {**P, "resolution": "4K", "aspect_ratio": "x"}, ["aspect_ratio"]),
        ("mj_v8_1", {**P, "quality": "hd", "speed": "x"}, ["speed"]),
        ("flow_music_replace", {**CLIP, "start_s": "x", "end_s": 1}, ["start_s"]),
        ("happyhorse_1_0", {"type": "image_to_video", "seed": -1}, ["seed", "image_url"]),
    ],
)
def test_a_wrong_value_is_not_complained_of_twice(
    model: str, params: dict[str, Any], names: list[str]
) -> None:
    assert problems(model, params) == names
