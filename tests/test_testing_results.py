"""FakeService: what a finished task gives."""

import io
import struct
import wave
import zipfile
import zlib
from typing import Any

import aiohttp
import pytest

from aireiter_async.testing import Fault
from tests.plain_caller import SUBMIT, Caller, calling

NO_AGENT = ["User-Agent"]


async def output(caller: Caller, model: str, out_task_id: str = "a") -> Any:
    await caller.submit(out_task_id, model=model)
    return (await caller.query(out_task_id)).json["data"]["output"]


async def result(caller: Caller, model: str = "veo3_1", out_task_id: str = "a") -> str:
    item = (await output(caller, model, out_task_id))[0]
    return str(item.get("audio") or item.get("file") or item["url"])


async def fetch(caller: Caller, url: str, **options: Any) -> tuple[int, str, bytes]:
    async with caller.session.get(url, **options) as response:
        return response.status, response.content_type, await response.read()


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        ("gpt_4o_plus", {"url": "png"}),
        ("seedream_v5_pro", {"url": "png"}),
        ("seedream_v5_pro_layerize", {"url": "png", "metadata": None}),
        ("mj_v8_1_remove_bg", {"url": "png"}),
        ("seedance2_fast", {"url": "mp4"}),
        ("a_model_of_tomorrow", {"url": "mp4"}),
        ("minimax_h3", {"url": "mp4"}),
        ("kling_3_0", {"url": "mp4"}),
        ("kling_v3_omni", {"video": "mp4"}),
        ("wan3_0", {"video": "mp4"}),
        ("wan2_7_image_pro", {"url": "png"}),
        ("gemini_omni_flash_ext", {"video": "mp4"}),
        ("flow_music_video", {"video": "mp4", "clip_id": None}),
        ("seed_audio_1_0", {"audio": "wav"}),
        ("suno_cover", {"audio": "mp3", "url": "jpeg", "title": None, "text": None}),
        (
            "flow_music",
            {"audio": "m4a", "url": "jpeg", "title": None, "text": None, "clip_id": None},
        ),
        ("flow_music_download", {"audio": "mp3", "clip_id": None}),
        ("flow_music_upload", {"audio": "m4a", "clip_id": None}),
        ("flow_music_stems", {"file": "zip", "clip_id": None}),
        ("suno_lyrics", {"title": None, "text": None}),
        ("flow_music_lyrics", {"title": None, "text": None}),
    ],
)
async def test_each_model_has_its_shape(model: str, fields: dict[str, str | None]) -> None:
    async with calling(outputs=2) as caller:
        items = await output(caller, model)
        root = f"{caller.service.results_url}/upload/a/"
    assert len(items) == 2
    assert items[0] != items[1]
    for item in items:
        assert item.keys() == fields.keys()
        for field, suffix in fields.items():
            if suffix:
                assert item[field].startswith(root)
                assert item[field].endswith("." + suffix)


async def test_one_model_returns_an_object() -> None:
    async with calling() as caller:
        given = await output(caller, "minimax_h3_turbo")
        url = f"{caller.service.results_url}/upload/a/item-0.mp4"
    assert given == {"list": [{"video": url}]}


async def test_layers_are_described() -> None:
    async with calling(outputs=2) as caller:
        first, second = await output(caller, "seedream_v5_pro_layerize")
    assert first["metadata"] == {
        "kind": "layer",
        "z_index": 0,
        "bounding_box": None,
        "name": None,
        "description": None,
    }
    assert second["metadata"]["z_index"] == 1
    assert second["metadata"]["bounding_box"].keys() == {"absolute", "normalized"}
    assert second["metadata"]["name"] == "Layer 1"


async def test_texts_are_not_ascii() -> None:
    async with calling() as caller:
        (item,) = await output(caller, "suno_lyrics")
    assert not item["text"].isascii()
    assert not item["title"].isascii()


@pytest.mark.parametrize(
    ("model", "media_type", "offset", "magic"),
    [
        ("gpt_4o", "image/png", 0, b"\x89PNG\r\n\x1a\n"),
        ("veo3_1", "video/mp4", 4, b"ftypisom"),
        ("flow_music", "audio/mp4", 4, b"ftypM4A "),
        ("suno", "audio/mpeg", 0, b"ID3"),
        ("seed_audio", "audio/wav", 0, b"RIFF"),
        ("flow_music_stems", "application/zip", 0, b"PK\x03\x04"),
    ],
)
async def test_files_are_what_they_say(
    model: str, media_type: str, offset: int, magic: bytes
) -> None:
    async with calling() as caller:
        first, other = await result(caller, model), await result(caller, model, "b")
        status, found_type, body = await fetch(caller, first)
        assert (status, found_type) == (200, media_type)
        assert body[offset:].startswith(magic)
        assert (await fetch(caller, first))[2] == body
        assert (await fetch(caller, other))[2] != body
        assert caller.service.counts["/upload"] == 3


def pixels(png: bytes) -> tuple[int, list[bytes]]:
    chunks, at = {}, 8
    while at < len(png):
        size, kind = int.from_bytes(png[at : at + 4]), png[at + 4 : at + 8]
        data = png[at + 8 : at + 8 + size]
        assert zlib.crc32(kind + data) == int.from_bytes(png[at + 8 + size : at + 12 + size])
        chunks[kind] = data
        at += 12 + size
    width, height = struct.unpack_from(">II", chunks[b"IHDR"])
    raw = zlib.decompress(chunks[b"IDAT"])
    assert len(raw) == height * (width + 1)
    assert max(raw) < len(chunks[b"PLTE"]) // 3
    return width, [raw[y * (width + 1) + 1 : (y + 1) * (width + 1)] for y in range(height)]


async def test_a_picture_shows_the_number_of_its_task() -> None:
    async with calling(outputs=2) as caller:
        pictures: dict[str, bytes] = {}
        for name in "ab":
            for index, item in enumerate(await output(caller, "gpt_4o", name)):
                pictures[f"{name}{index}"] = (await fetch(caller, item["url"]))[2]
    assert len(set(pictures.values())) == 4
    assert all(len(png) < 3000 for png in pictures.values())
    lit = {
        name: sum(row.count(0) for row in rows) // 16**2
        for name, (_, rows) in ((name, pixels(png)) for name, png in pictures.items())
    }
    assert (lit["a0"], lit["b0"]) == (8, 11)  # dots of a 1 and a 2, the only white there is
    assert pixels(pictures["a1"])[1] != pixels(pictures["b1"])[1]


async def test_a_sound_and_a_zip_can_be_opened() -> None:
    async with calling() as caller:
        sound = (await fetch(caller, str((await output(caller, "seed_audio_1_0"))[0]["audio"])))[2]
        archive = (await fetch(caller, await result(caller, "flow_music_stems", "b")))[2]
    with wave.open(io.BytesIO(sound)) as opened_sound:
        assert opened_sound.getnframes() > 1000
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        assert opened.testzip() is None
        assert opened.namelist() == ["stem.txt"]


async def test_a_cover_can_be_fetched() -> None:
    async with calling() as caller:
        (item,) = await output(caller, "suno")
        status, media_type, body = await fetch(caller, item["url"])
    assert (status, media_type, body[:3]) == (200, "image/jpeg", b"\xff\xd8\xff")


async def test_files_are_on_another_host() -> None:
    async with calling() as caller:
        url = await result(caller)
        assert not url.startswith(caller.service.url)
        here = url.replace(caller.service.results_url, caller.service.url)
        assert await fetch(caller, here) == await fetch(caller, url)


async def test_files_can_be_on_the_same_host() -> None:
    async with calling(separate_results=False) as caller:
        url = await result(caller)
        assert caller.service.results_url == caller.service.url
        assert url.startswith(caller.service.url)
        assert (await fetch(caller, url))[0] == 200


@pytest.mark.parametrize("separate", [True, False])
async def test_a_leaked_key_is_caught(separate: bool) -> None:  # noqa: FBT001 - a parameter of the test
    async with calling(separate_results=separate, record=False) as caller:
        url = await result(caller)
        assert caller.service.leaks == []
        headers = {"Authorization": "Bearer x"}
        assert (await fetch(caller, url, headers=headers))[0] == 400
        assert [leak.path for leak in caller.service.leaks] == ["/upload/a/item-0.mp4"]


async def test_a_followed_redirect_with_a_key_is_a_leak() -> None:
    async with calling() as caller:
        caller.service.script("submit", Fault.redirect())
        elsewhere = (await caller.call("POST", SUBMIT)).headers["Location"]
        headers = {"Authorization": f"Bearer {caller.service.api_key}"}
        async with caller.session.post(elsewhere, headers=headers) as response:
            assert response.status == 400
        assert [leak.path for leak in caller.service.leaks] == ["/api/openapi/submit"]
        assert caller.service.posts("a") == 0


@pytest.mark.parametrize(
    "options",
    [{"skip_auto_headers": NO_AGENT}, {"headers": {"User-Agent": "Python-urllib/3.11"}}],
)
async def test_a_file_wants_a_user_agent(options: dict[str, Any]) -> None:
    async with calling() as caller:
        status, media_type, _ = await fetch(caller, await result(caller), **options)
    assert (status, media_type) == (403, "text/html")


@pytest.mark.parametrize(
    "path",
    [
        "/upload/a/item-1.mp4",
        "/upload/a/item-0.png",
        "/upload/a/cover-0.jpeg",
        "/upload/a",
        "/upload/nobody/item-0.mp4",
    ],
)
async def test_a_missing_file_is_a_404(path: str) -> None:
    async with calling() as caller:
        await result(caller)
        status, media_type, _ = await fetch(caller, caller.service.results_url + path)
    assert (status, media_type) == (404, "text/html")


async def test_a_file_exists_once_its_task_is_completed() -> None:
    async with calling(durations={"slow": 3600}) as caller:
        await output(caller, "suno_lyrics", "text")
        caller.service.script("submit", Fault.failed(), Fault.ok())
        with pytest.raises(KeyError):
            await output(caller, "veo3_1", "failed")
        with pytest.raises(KeyError):
            await output(caller, "slow", "running")
        for name in ("text/item-0.", "failed/item-0.mp4", "running/item-0.mp4"):
            assert (await fetch(caller, f"{caller.service.results_url}/upload/{name}"))[0] == 404


async def test_other_paths_of_the_results_host_are_marketing() -> None:
    async with calling() as caller:
        url = await result(caller)
        async with caller.session.post(url) as response:
            assert (response.status, response.content_type) == (200, "text/html")
        assert (await fetch(caller, caller.service.results_url + "/"))[:2] == (200, "text/html")


async def test_a_download_is_truncated() -> None:
    async with calling() as caller:
        url = await result(caller)
        caller.service.script("result", Fault.truncated())
        with pytest.raises(aiohttp.ClientPayloadError):
            await fetch(caller, url)
        assert (await fetch(caller, url))[0] == 200


@pytest.mark.parametrize("status", [200, 404])
async def test_a_download_is_html(status: int) -> None:
    async with calling(faults={Fault.html(status).on("result"): 1.0}) as caller:
        assert (await fetch(caller, await result(caller)))[:2] == (status, "text/html")
