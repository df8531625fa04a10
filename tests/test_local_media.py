"""Local media: read, checked and encoded before anything is sent."""

import base64
import hashlib
import io
import json
import os
import struct
import sys
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageCms, ImageDraw

from aireiter_async import (
    AsyncClient,
    Ledger,
    Output,
    SubmitRequest,
    data_url,
    models,
)
from aireiter_async._media import read_local
from aireiter_async.testing import FakeService, Fault

Connect = Callable[..., AsyncClient]

RED = (255, 0, 0)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decode(url: str) -> tuple[str, Image.Image]:
    head, _, content = url.partition(",")
    image = Image.open(io.BytesIO(base64.b64decode(content)))
    return head, image


def photo(width: int = 400, height: int = 300) -> Image.Image:
    """Make an image, red at its top left."""
    image = Image.new("RGB", (width, height), (20, 120, 220))
    ImageDraw.Draw(image).rectangle((0, 0, width // 4, height // 4), RED)
    return image


def large_png(side: int) -> bytes:
    """Make a PNG of a few kilobytes and of *side* times *side* pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    packer = zlib.compressobj(9)
    pixels = b"".join(packer.compress(bytes(side // 8 + 2)) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", pixels), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "Camera"
    return exif


def near(one: Any, other: Any) -> bool:
    return all(abs(a - b) <= 6 for a, b in zip(one, other, strict=True))


JPEG = encode(photo(), "JPEG")
PNG = encode(photo(), "PNG")
WEBP = encode(photo(), "WEBP")


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (JPEG, "image/jpeg"),
        (PNG, "image/png"),
        (WEBP, "image/webp"),
        (b"ID3\x04" + bytes(9), "audio/mpeg"),
    ],
)
def test_the_type_comes_from_the_content(tmp_path: Path, content: bytes, kind: str) -> None:
    """Whatever the name is, and the bytes are sent as they are."""
    path = tmp_path / "cat.gif"
    path.write_bytes(content)
    wanted = f"data:{kind};base64,{base64.b64encode(content).decode()}"
    assert data_url(path) == data_url(str(path)) == data_url(content) == wanted
    with path.open("rb") as file:
        assert data_url(file) == wanted
    assert data_url(io.BytesIO(content)) == wanted


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_shrunk_and_upright(orientation: int) -> None:
    """As a camera's owner sees it; nothing else of the metadata is kept."""
    upright = photo(4000, 3000)
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    stored = upright
    if orientation > 1:
        stored = upright.transpose(Image.Transpose(undo[orientation]))
    content = encode(stored, "JPEG", exif=turned(orientation), comment=b"secret")
    head, image = decode(data_url(content, max_side=1280))
    assert head == "data:image/jpeg;base64"
    assert image.size == (1280, 960)
    assert near(image.getpixel((20, 20)), RED)
    assert not image.getexif()
    assert not {"comment", "exif", "icc_profile"} & set(image.info)


# The primaries, as XYZ under D50.
DISPLAY_P3 = (0.51512, 0.2412, -0.00105), (0.29198, 0.69225, 0.04189), (0.1571, 0.06657, 0.78407)
ADOBE_RGB = (0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)


def profile(primaries: tuple[tuple[float, float, float], ...]) -> bytes:
    """Make an ICC profile of an RGB colour space with a gamma of 2.2."""

    def xyz(*values: float) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(v * 65536)) for v in values)

    tags = {b"wtpt": xyz(0.9642, 1.0, 0.82491)}
    tags |= {bytes([c]) + b"XYZ": xyz(*p) for c, p in zip(b"rgb", primaries, strict=True)}
    tags |= {bytes([c]) + b"TRC": b"curv" + struct.pack(">IIHH", 0, 1, 563, 0) for c in b"rgb"}
    table, content, start = b"", b"", 128 + 4 + 12 * len(tags)
    for name, tag in tags.items():
        table += name + struct.pack(">II", start + len(content), len(tag))
        content += tag
    body = struct.pack(">I", len(tags)) + table + content
    head = struct.pack(
        ">I4sI4s4s4s12x4s28x3i",
        128 + len(body),
        b"",
        0x02100000,
        b"mntr",
        b"RGB ",
        b"XYZ ",
        b"acsp",
        63190,
        65536,
        54061,
    )
    return head.ljust(128, b"\0") + body


@pytest.mark.parametrize(
    ("primaries", "colour"), [(DISPLAY_P3, (216, 93, 24)), (ADOBE_RGB, (227, 100, 42))]
)
def test_a_wide_colour_space_becomes_srgb(primaries: Any, colour: tuple[int, int, int]) -> None:
    """As phones and cameras save it; viewers that ignore profiles show the right colours, too."""
    image = Image.new("RGB", (64, 64), (200, 100, 50))
    content = encode(image, "JPEG", icc_profile=profile(primaries), quality=95)
    _, shrunk = decode(data_url(content, max_side=32))
    assert near(shrunk.getpixel((16, 16)), colour)
    assert "icc_profile" not in shrunk.info


def test_colours_are_kept() -> None:
    """Of CMYK, of another profile than sRGB, of 16 bits of grey, of palettes."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    cases: list[tuple[bytes, Any]] = [
        (encode(Image.new("CMYK", (64, 64), (0, 255, 255, 0)), "JPEG"), RED),
        (encode(Image.new("RGB", (64, 64), RED), "JPEG", icc_profile=srgb), RED),
        (encode(Image.new("RGB", (64, 64), RED), "JPEG", icc_profile=lab), RED),
        (encode(Image.new("RGB", (64, 64), RED), "JPEG", icc_profile=b"none"), RED),
        (encode(Image.new("I;16", (64, 64), 40_000), "PNG"), (156, 156, 156)),
        (encode(Image.new("1", (64, 64), 1), "PNG"), (255, 255, 255)),
        (encode(Image.new("L", (64, 64), 77), "PNG"), (77, 77, 77)),
        (encode(Image.new("RGB", (64, 64), RED).quantize(4), "GIF"), RED),
        (encode(Image.new("RGBA", (64, 64), (*RED, 255)), "PNG"), RED),
    ]
    for content, colour in cases:
        head, image = decode(data_url(content, max_side=32))
        assert (head, image.mode, image.size) == ("data:image/jpeg;base64", "RGB", (32, 32))
        assert near(image.getpixel((16, 16)), colour)


def test_transparency_is_kept() -> None:
    """Black text on it does not end up on black."""
    text = Image.new("RGBA", (400, 200), (0, 0, 0, 0))
    ImageDraw.Draw(text).rectangle((0, 0, 100, 100), (0, 0, 0, 255))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for content in (
        encode(text, "PNG"),
        encode(text, "PNG", icc_profile=srgb),
        encode(text.quantize(4), "PNG"),
        encode(text.convert("LA"), "PNG"),
        encode(text, "WEBP", lossless=True),
    ):
        head, image = decode(data_url(content, max_side=200))
        assert (head, image.mode, image.size) == ("data:image/png;base64", "RGBA", (200, 100))
        assert image.getpixel((190, 90))[3] == 0  # type: ignore[index]
        assert image.getpixel((10, 10)) == (0, 0, 0, 255)


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "AVIF", "HEIF"])
def test_what_no_model_takes_is_converted(tmp_path: Path, kind: str) -> None:
    """Also without a size: a phone's HEIC, whatever its name is."""
    if kind == "HEIF":
        from pillow_heif import register_heif_opener  # noqa: PLC0415 - it changes Pillow

        register_heif_opener()
    path = tmp_path / "photo.jpg"
    path.write_bytes(encode(photo(), kind))
    head, image = decode(data_url(path))
    assert (head, image.size) == ("data:image/jpeg;base64", (400, 300))


def test_without_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    """What needs none is sent; the rest says what to install."""
    heic = b"\0\0\0\x1cftypheic" + bytes(99)
    for name in ("PIL", "PIL.JpegImagePlugin", "pillow_heif", "pillow_heif.as_plugin"):
        monkeypatch.setitem(sys.modules, name, None)
    assert data_url(JPEG)
    with pytest.raises(
        ValueError, match=r"shrinking a JPEG needs Pillow: pip install 'aireiter-async\[images"
    ):
        data_url(JPEG, max_side=99)
    with pytest.raises(ValueError, match="a HEIC needs Pillow and pillow-heif: pip install"):
        data_url(heic)


@pytest.mark.parametrize("side", [10_000, 14_000])
def test_an_image_of_too_many_pixels(side: int) -> None:
    """It is not decoded, and nothing is printed; a JPEG of as many would be decoded to less."""
    with (
        warnings.catch_warnings(record=True) as said,
        pytest.raises(ValueError, match=rf"it has {side} x {side} pixels, {side**2 // 10**6} m"),
    ):
        data_url(large_png(side), max_side=1280)
    assert said == []
    large = Image.new("L", (9000, 9000))
    content = encode(large, "JPEG")
    assert decode(data_url(content, max_side=1000))[1].size == (1000, 1000)
    with pytest.raises(ValueError, match="it has 9000 x 9000 pixels"):  # it is decoded whole
        data_url(encode(large, "JPEG", progressive=True), max_side=1000)


THUMBNAIL = b"\xff\xe1\x00\x08\xff\xd8\xff\xd9\0\0"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (JPEG[: len(JPEG) // 2], "the JPEG is truncated"),
        (JPEG[:2] + THUMBNAIL + JPEG[2 : len(JPEG) // 2], "the JPEG is truncated"),
        (PNG[: len(PNG) // 2], "the PNG is truncated"),
        (WEBP[: len(WEBP) // 2], "the WEBP is truncated"),
        (b"", "it is empty"),
        (b"<!DOCTYPE html><html>", "it is an HTML page, not an image"),
        (b"a cat", "it is text, not an image"),
        (b"%PDF-1.7", "it is a PDF, not an image"),
        (bytes(99), "it is of an unknown type, not an image"),
        (b"<svg></svg>", "SVG cannot be converted: convert it to JPEG, PNG or WebP"),
        (b"GIF89a", "the GIF is damaged"),
        (b"\xff\xd8\xff\xe0\x00\x02", "the JPEG is truncated"),
    ],
)
def test_what_cannot_be_sent(tmp_path: Path, content: bytes, text: str) -> None:
    """Each is named, with its file, before anything is sent."""
    path = tmp_path / "cat.png"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"cat.png: .*{text}"):
        data_url(path)


def test_a_sound_is_no_image() -> None:
    with pytest.raises(ValueError, match="the file: it is a MP3, and the model takes an image"):
        read_local(b"ID3\x04" + bytes(9), max_side=None, images_only=True)


def test_a_cut_image_that_is_shrunk_is_damaged() -> None:
    with pytest.raises(ValueError, match="the file: the JPEG is damaged: image file is truncated"):
        data_url(JPEG[: len(JPEG) // 2], max_side=100)


def test_an_intact_image_is_not_taken_for_a_cut_one() -> None:
    """Neither with a second picture behind it nor as WebP or progressive JPEG."""
    for content in (JPEG + JPEG, JPEG + bytes(99), encode(photo(), "JPEG", progressive=True), WEBP):
        assert data_url(content)


def make_huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 2**28 + 1)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (str, "cat.png cannot be read: No such file or directory"),
        (lambda path: path.mkdir(), "cat.png cannot be read: Is a directory"),
        (os.mkfifo, "cat.png: it is not a regular file"),
        (lambda path: path.touch(), "cat.png: it is empty"),
        (make_huge, "cat.png: it has 256 MB"),
    ],
)
def test_a_file_that_cannot_be_read(
    tmp_path: Path, make: Callable[[Path], object], text: str
) -> None:
    path = tmp_path / "cat.png"
    make(path)
    with pytest.raises(ValueError, match=text):
        data_url(path)


class Growing(io.BytesIO):
    """A file of a text, or one without an end."""

    def __init__(self, content: Any) -> None:
        super().__init__()
        self.content = content

    def read(self, size: int | None = -1) -> Any:
        return self.content if isinstance(self.content, str) else bytes(size or 0)


def test_files_that_are_none() -> None:
    class Raw(io.RawIOBase):
        """A raw file that returns less than it is asked for, as a pipe does."""

        def __init__(self, *pieces: bytes | None) -> None:
            self._pieces = [*pieces, b""]

        def read(self, _size: int = -1) -> bytes | None:
            return self._pieces.pop(0)

    assert data_url(Raw(JPEG[:9], JPEG[9:])) == data_url(JPEG)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="open the file in binary mode"):
        data_url(Raw(JPEG[:9], None))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="open the file in binary mode"):
        data_url(Growing("text"))
    with pytest.raises(ValueError, match="it has more than 256 MB"):
        data_url(Growing(b""))


def test_a_file_that_changes_while_it_is_read() -> None:
    """Such as one of Linux' own, which has another length than it says."""
    with pytest.raises(ValueError, match="status: it changed while being read"):
        data_url("/proc/self/status")


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"max_side": 0}, ValueError, "max_side must be 1 to 65535, got 0"),
        ({"max_side": 1.5}, TypeError, "max_side must be an int, got float"),
        ({"max_side": True}, TypeError, "max_side must be an int, got bool"),
        ({"quality": 96}, ValueError, "quality must be 1 to 95, got 96"),
        ({"quality": None}, TypeError, "quality must be an int, got NoneType"),
    ],
)
def test_a_size_that_is_none(options: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        data_url(JPEG, **options)
    if "quality" not in options:
        with pytest.raises(error, match=text):
            AsyncClient("sk-test", max_image_side=options["max_side"])


@pytest.mark.parametrize("form", ["path", "bytes", "file", "beside a URL"])
async def test_a_local_image_is_sent_as_a_data_url(
    service: FakeService, client: AsyncClient, tmp_path: Path, form: str
) -> None:
    path = tmp_path / "cat.png"
    path.write_bytes(JPEG)
    media: Any = {
        "path": [path],
        "bytes": [JPEG],
        "file": [io.BytesIO(JPEG)],
        "beside a URL": [path, "https://example.com/a.png"],
    }[form]
    task = await client.run(models.NanoBanana(prompt="a hat on the cat", image_url=media))
    assert task.succeeded
    [sent] = sent_images(service)
    assert sent[0] == data_url(JPEG)
    assert sent[1:] == media[1:]


def sent_images(service: FakeService) -> list[list[str]]:
    """Return the image_url of each submit."""
    bodies: list[Any] = [seen.body for seen in service.requests if seen.path.endswith("/submit")]
    return [body["params"].get("image_url", []) for body in bodies]


async def test_local_images_are_shrunk_where_the_client_says_so(
    service: FakeService, connect: Connect
) -> None:
    client = connect(max_image_side=100)
    await client.submit(models.NanoBanana(prompt="a", image_url=[JPEG]))
    view = client.with_options(max_image_side=None)
    await view.submit(models.NanoBanana(prompt="a", image_url=[JPEG]), out_task_id="mine")
    shrunk, whole = sent_images(service)
    assert decode(shrunk[0])[1].size == (100, 75)
    assert decode(whole[0])[1].size == (400, 300)


async def test_an_image_that_is_too_large_is_not_sent(
    service: FakeService, client: AsyncClient, tmp_path: Path
) -> None:
    """The size that counts is the data URL's."""
    path = tmp_path / "photo.jpg"
    path.write_bytes(JPEG[:-2] + bytes(7_900_000 - len(JPEG)) + b"\xff\xd9")
    with pytest.raises(
        ValueError, match=r"photo.jpg: it has 7.9 MB, and 10.5 MB as a data URL, but "
    ):
        await client.submit(models.NanoBanana(prompt="a", image_url=[path]))
    assert service.charges == []


async def test_an_output_is_sent_as_its_url_of_now(
    service: FakeService, client: AsyncClient
) -> None:
    """It is queried for right before; where it cannot be, the known URL will do."""
    task = await client.run(SubmitRequest("nano_banana", {}, out_task_id="first"))
    output = task.outputs[0]
    fresh = "https://example.com/fresh.png"
    reply = {"statusCode": 200, "data": {"status": "completed", "output": [{"url": fresh}]}}
    empty = {"statusCode": 200, "data": {"status": "completed", "output": []}}
    bare = Output(url="https://example.com/bare.png")
    known = Output(url="https://example.com/known.png", out_task_id="first")
    for media, fault in (
        (known, Fault.reply(200, json.dumps(reply))),
        (known, Fault.reply(200, json.dumps(empty))),
        (known, Fault.reply(401, b"{}")),
        (bare, None),
    ):
        service.script("query", *[fault] if fault else [])
        await client.submit(models.NanoBanana(prompt="a", image_url=[media]))
    assert output.out_task_id == "first"
    assert [urls[0] for urls in sent_images(service)[1:] if urls] == [
        fresh,
        known.url,
        known.url,
        bare.url,
    ]


async def test_a_bad_image_in_a_batch_is_its_own_failure(
    service: FakeService, client: AsyncClient, tmp_path: Path
) -> None:
    """It is rejected before its POST; the other rows run, each file read when its turn comes."""
    paths = [tmp_path / f"{number}.jpg" for number in range(12)]
    for path in paths:
        path.write_bytes(JPEG + path.name.encode())
    paths[4].write_bytes(JPEG[: len(JPEG) // 2])
    paths[5].unlink()
    rows = [("nano_banana", {"prompt": "a", "image_url": [path]}) for path in paths]
    outcomes = [outcome async for outcome in client.run_many(rows, window=3)]
    assert {each.index: str(each.error) for each in outcomes if not each.ok} == {
        4: "image_url[0]: 4.jpg: the JPEG is truncated",
        5: "image_url[0]: 5.jpg cannot be read: No such file or directory",
    }
    assert len(service.charges) == 10


async def test_a_picture_is_identified_by_its_original(
    service: FakeService, client: AsyncClient, connect: Connect, tmp_path: Path
) -> None:
    """Not by its name; an edited one, or another size, is another request, a fresh URL is not."""
    first = await client.run(SubmitRequest("nano_banana", {}, out_task_id="first"))
    before = len(service.charges)

    async def run(media: Any, charged: int, through: AsyncClient = client) -> None:
        request = models.NanoBanana(prompt="a", image_url=[media])
        async with Ledger(tmp_path / "run.db") as ledger:
            outcomes = [outcome async for outcome in through.run_many([request], ledger=ledger)]
        assert all(outcome.ok for outcome in outcomes)
        assert len(service.charges) - before == charged

    path, twin = tmp_path / "cat.jpg", tmp_path / "twin.jpg"
    path.write_bytes(JPEG)
    twin.write_bytes(JPEG)
    await run(path, 1)
    await run(twin, 1)
    await run(JPEG, 1)
    await run(path, 2, connect(max_image_side=64))
    await run(JPEG, 2, connect(max_image_side=64))
    path.write_bytes(JPEG + b"edited")
    await run(path, 3)
    await run(Output(url=first.outputs[0].url, out_task_id="first"), 4)
    await run(Output(url="https://example.com/other.png", out_task_id="first"), 4)
    rows = [row async for row in Ledger(tmp_path / "run.db").rows()]
    digest, edited = (hashlib.sha256(each).hexdigest() for each in (JPEG, JPEG + b"edited"))
    known = {"param": "image_url[0]", "path": str(path), "size": len(JPEG), "sha256": digest}
    assert [row["inputs"] for row in rows] == [
        [known],
        [known],
        [{**known, "size": len(JPEG) + 6, "sha256": edited}],
        [],
    ]
    assert rows[0]["params"]["image_url"] == [f"sha256:{digest}"]
