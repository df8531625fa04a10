"""The outputs: where each model's media are, and that no shape of them is ever lost."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aireiter_async import models
from aireiter_async._outputs import find_outputs, read_outputs
from aireiter_async._tasks import Output

CATALOGUE = json.loads((Path(__file__).parent / "data" / "models.json").read_text(encoding="utf-8"))
EXAMPLES: list[tuple[str, Any]] = [
    (entry["model"], entry["example_query_response"]["data"]["output"])
    for entry in CATALOGUE
    if "example_query_response" in entry
]
KNOWN = [None, "no_such_model"]

PNG = "https://s1.pxz.ai/upload/a.png"
MP4 = "https://s1.pxz.ai/upload/a.mp4?sign=1,2#t"
WAV = "https://s1.pxz.ai/upload/a.WAV"
ZIP = "https://static.aireiter.com/tmp/a.zip"
COVER = "https://s1.pxz.ai/upload/cover.jpeg"


@pytest.mark.parametrize(
    ("names", "item", "expected"),
    [
        (["seedance_1_5_pro", "veo3_1"], {"url": MP4}, Output(url=MP4, kind="video")),
        (["gpt_4o", "nano_banana"], {"url": PNG}, Output(url=PNG, kind="image")),
        (["kling_v3_omni", "wan3_0"], {"video": MP4}, Output(url=MP4, kind="video")),
        (["gemini_omni_flash_ext"], {"video": MP4}, Output(url=MP4, kind="video")),
        (["flow_music_video"], {"video": MP4}, Output(url=MP4, kind="video")),
        (
            ["kling_v3_omni", "flow_music_video"],
            {"video": MP4, "url": COVER},
            Output(url=MP4, kind="video", cover_url=COVER),
        ),
        (
            ["seed_audio_1_0", "suno", "suno_cover", "flow_music"],
            {"audio": WAV},
            Output(url=WAV, kind="audio"),
        ),
        (
            ["suno", "suno_extend", "flow_music", "flow_music_extend", "flow_music_upload"],
            {"audio": WAV, "url": COVER, "title": "Rain"},
            Output(url=WAV, kind="audio", cover_url=COVER, title="Rain"),
        ),
        (["flow_music_stems"], {"file": ZIP, "clip_id": "c"}, Output(url=ZIP, kind="file")),
        (
            ["suno_lyrics", "flow_music_lyrics"],
            {"title": "Rain", "text": "[Verse]\nRain"},
            Output(kind="text", title="Rain", text="[Verse]\nRain"),
        ),
        (
            ["seedream_v5_pro_layerize"],
            {"url": PNG, "metadata": {"kind": "layer", "z_index": 1, "name": None}},
            Output(url=PNG, kind="image", metadata={"kind": "layer", "z_index": 1, "name": None}),
        ),
        (["minimax_h3_turbo"], {"video": MP4}, Output(url=MP4, kind="video")),
    ],
)
def test_each_model_has_its_place(names: list[str], item: Any, expected: Output) -> None:
    for name in [*names, *KNOWN]:
        assert read_outputs([item], name) == (expected,), name
        assert read_outputs({"list": [item], "total": 1}, name) == (expected,), name
        assert read_outputs(item, name) == (expected,), name
    assert all(name in models.MODELS for name in names)


def test_an_item_with_a_list_of_urls_is_one_for_each() -> None:
    for name in KNOWN:
        urls = [each.url for each in read_outputs({"url": [PNG, None, MP4]}, name)]
        assert urls == [PNG, MP4]
    (song,) = read_outputs([{"audio": [WAV], "url": COVER, "title": "Rain"}], "suno")
    assert (song.url, song.cover_url, song.title) == (WAV, COVER, "Rain")
    (song,) = read_outputs([{"audio": WAV, "url": [COVER, PNG]}], "suno")
    assert (song.url, song.cover_url) == (WAV, None)


@pytest.mark.parametrize(("name", "output"), EXAMPLES)
def test_every_documented_output_is_read(name: str, output: Any) -> None:
    outputs = read_outputs(output, name)
    medium = models.MODELS[name].MEDIUM
    place = models.MODELS[name].OUTPUT
    assert len(outputs) == len(output["list"] if isinstance(output, dict) else output)
    for each in outputs:
        assert each.url or each.text
        assert each.kind == ("file" if place == "file" else medium)
        assert each.raw is not None


def test_a_result_within_its_url_is_not_taken_apart() -> None:
    tracemalloc.start()
    try:
        for number in range(20):
            read_outputs([{"url": f"data:image/png;base64,{number:09}" + "/abc" * 250_000}], None)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 1_000_000


def test_the_order_is_the_services() -> None:
    items = [{"url": f"https://h/{n}.png"} for n in (3, 1, 2, 1)]
    outputs = read_outputs(items, "gpt_4o", "kitten")
    assert [each.url for each in outputs] == [f"https://h/{n}.png" for n in (3, 1, 2, 1)]
    assert [each.number for each in outputs] == [1, 2, 3, 4]
    assert {each.out_task_id for each in outputs} == {"kitten"}


@pytest.mark.parametrize(
    ("url", "name", "kind"),
    [
        (PNG, None, "image"),
        (MP4, None, "video"),
        (WAV, None, "audio"),
        (ZIP, None, "file"),
        ("https://h/lyrics.txt", None, "text"),
        ("https://h/a", None, "file"),
        ("https://h/a", "gpt_4o", "image"),
        ("https://h/a", "veo3_1", "video"),
        ("https://h/a.bin", "suno", "audio"),
        ("https://[h/a.png", "veo3_1", "video"),
        ("https://[h/a.png", None, "file"),
        (PNG, "veo3_1", "image"),
        ("\x00", None, "file"),
        ("data:image/png;base64,AAAA", None, "image"),
        ("DATA:Video/mp4;base64,AAAA", None, "video"),
        ("data:audio/mpeg,a/b.png", None, "audio"),
        ("data:text/plain,a.png", "gpt_4o", "text"),
        ("data:;base64,AAAA/b.png", None, "file"),
        ("data:application/zip,a.png", "gpt_4o", "image"),
        ("data:,image/a.png", None, "file"),
        ("https://h/" + "a" * 70_000 + ".png", None, "file"),
        ("image/", None, "file"),
    ],
)
def test_the_kind_of_a_url_is_by_its_suffix(url: str, name: str | None, kind: str) -> None:
    assert read_outputs([{"url": url}], name) == (Output(url=url, kind=kind),)  # type: ignore[arg-type]
    assert read_outputs([url], name) == (Output(url=url, kind=kind),)  # type: ignore[arg-type]
    assert read_outputs(url, name) == (Output(url=url, kind=kind),)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ({"video": None, "url": MP4}, Output(url=MP4, kind="video")),
        ({"audio": "", "url": WAV}, Output(url=WAV, kind="audio")),
        ({"url": PNG, "title": 5, "text": None, "metadata": []}, Output(url=PNG, kind="image")),
        ({"url": PNG, "text": "a cat"}, Output(url=PNG, kind="image", text="a cat")),
        ({"list": "none", "url": PNG}, Output(url=PNG, kind="image")),
    ],
)
def test_what_is_malformed_is_left_out(item: Any, expected: Output) -> None:
    (output,) = read_outputs([item], None)
    assert output == expected
    assert output.raw == item


@pytest.mark.parametrize(
    "output",
    [
        *(None, [], {}, {"list": []}, {"list": None}, "", " ", 5, True, [[PNG]]),
        *([{}], [{"url": None}], [{"url": ""}], [{"url": " "}], [""], [None], [5]),
        [{"url": 5, "video": [], "audio": {}, "file": True}],
        [{"title": "Rain", "audio": ""}],
        [{"metadata": {"a": 1}}],
    ],
)
def test_what_has_neither_url_nor_text_is_no_output(output: Any) -> None:
    assert read_outputs(output, None) == ()
    assert find_outputs({"output": output, "cover": COVER}, None, "a") == ()


def test_a_cover_alone_is_no_result() -> None:
    for name in ("suno", "kling_v3_omni"):
        assert read_outputs([{"url": COVER}], name) == ()
    assert read_outputs([{"url": COVER}], "gpt_4o") == (Output(url=COVER, kind="image"),)


def test_the_number_is_the_place_in_the_reply() -> None:
    outputs = read_outputs([None, PNG, {}, {"url": MP4}], None)
    assert [(each.url, each.number) for each in outputs] == [(PNG, 2), (MP4, 4)]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"video": MP4}, [Output(url=MP4, kind="video")]),
        ({"video": MP4, "cover": COVER}, [Output(url=MP4, kind="video", cover_url=COVER)]),
        ({"video": {"url": MP4}}, [Output(url=MP4, kind="video")]),
        ({"videos": [MP4]}, [Output(url=MP4, kind="video")]),
        ({"audio": WAV, "cover_url": COVER}, [Output(url=WAV, kind="audio", cover_url=COVER)]),
        (
            {"images": [PNG, {"url": COVER}]},
            [Output(PNG, "image"), Output(COVER, "image", number=2)],
        ),
        ({"image": PNG, "cover": COVER}, [Output(url=PNG, kind="image")]),
        ({"output": [{}], "results": [{"url": PNG}]}, [Output(url=PNG, kind="image")]),
        ({"output": [], "result": {"list": [PNG]}}, [Output(url=PNG, kind="image")]),
        ({"output": [PNG], "video": MP4}, [Output(url=PNG, kind="image")]),
        ({"url": PNG}, [Output(url=PNG, kind="image")]),
        ({"images": [], "videos": [""], "file": ZIP}, [Output(url=ZIP, kind="file")]),
    ],
)
def test_results_beside_the_output_are_found(data: Any, expected: list[Output]) -> None:
    assert list(find_outputs(data, None, None)) == expected


def test_a_url_of_lyrics_is_their_cover() -> None:
    item = {"title": "Rain", "text": "Rain", "url": COVER}
    expected = Output(kind="text", cover_url=COVER, title="Rain", text="Rain")
    assert read_outputs([item], "suno_lyrics") == (expected,)


def test_unknown_fields_can_be_reached() -> None:
    item = {"audio": WAV, "clip_id": "c", "duration": 12.5}
    assert read_outputs([item], "suno")[0].raw["clip_id"] == "c"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["list", "url", "video", "audio", "file", "title", "text", "metadata"]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(JSON, st.none() | st.text(max_size=5) | st.sampled_from(list(models.MODELS)))
def test_reading_never_raises(output: Any, model: str | None) -> None:
    for each in read_outputs(output, model):
        assert each.number
        assert each.kind in {"image", "video", "audio", "text", "file"}
        assert each.url or each.text
        assert all(value != "" for value in (each.url, each.cover_url, each.title, each.text))
    find_outputs(output if isinstance(output, dict) else {"video": output}, model, None)
