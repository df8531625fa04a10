"""Media parameters: references, local media, and values that are neither."""

import datetime as dt
import io
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from aireiter_async import Output, models
from aireiter_async.models import InvalidParamsError
from aireiter_async.testing import FakeService

P = {"prompt": "p"}
URL = "https://example.com/a.png"
PNG = "data:image/png;base64,iVBORw0KGgo="
OUTPUT = Output(url="http://127.0.0.1:8000/result.png", out_task_id="t", number=2)
SEVERAL = "for several, repeat the parameter or write a JSON array"
SINGLE = "it takes a single URL"
ENCODE = "percent-encode whitespace in a URL (a space is %20)"
UPLOAD = "this parameter takes URLs only: upload the file and pass its URL"
PATH = "a str is never opened as a file: pass a pathlib.Path to send a local file"
BASE64 = "it is not valid base64: check for line breaks, truncation or another alphabet"
FORMAT = "encode the image as JPEG, PNG or WebP, in base64"
WRITE = "write it as data:TYPE;base64,DATA"
UNREACHABLE = "the service cannot reach "
SHRINK = (
    "as a data URL it has 10.5 MB: shrink it, "
    "for example with aireiter_async.data_url(path, max_side=1280)"
)
FORMS = "pass a str, a pathlib.Path, bytes, an open binary file or an Output"


class Upload:
    """What a web framework hands over."""

    async def read(self, size: int = -1) -> bytes:
        raise NotImplementedError


class Foreign:
    """A value of another library, as far as hints need it."""

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


class NAType:
    """What pandas puts into an empty cell."""


def problem(model: str, **params: Any) -> str:
    """Return what is wrong with the only wrong parameter."""
    with pytest.raises(InvalidParamsError) as caught:
        models.build(model, {**P, **params})
    (found,) = caught.value.problems
    return str(found)


@pytest.mark.parametrize(
    "url",
    [
        URL,
        "http://example.com:8080/a,b.mp4?sign=1%2C2,3;4|5#x",
        "HTTPS://EXAMPLE.COM/x",
        "https://user:p@ss@cdn.example.com/x",
        "https://ex\u00e4mple.com/\u732b.png",
        "https://8.8.8.8/x",
        "https://[2606:4700::1111]/x",
        "https://example.com./x",
        "https://localhost.example.com/x?host=127.0.0.1",
        "https://1.example.com/x",
        f"https://example.com/x?u={'a' * 70_000}",
    ],
)
def test_public_urls_are_sent_unchanged(url: str) -> None:
    sent = models.build("nano_banana", {**P, "image_url": url}).to_params()["image_url"]
    assert sent == [url]


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        *(
            (f"{URL}{between}{other}", SEVERAL)
            for between in (",", ", ", ";", "|", "\n", " ", ",\n ")
            for other in (URL, "http://b.io", PNG, "HTTPS://B.IO")
        ),
        (f"{URL}?sign=a,b,https://example.com/b.png", SEVERAL),
        ("https://example.com/my cat.png", ENCODE),
        (f"{URL}\n", ENCODE),
        (f" {URL}", ENCODE),
        ("https://example.com/a\tb", ENCODE),
        ("https://example.com/a\x00b", ENCODE),
        ("https://example.com/a\u00a0b", ENCODE),
        ("https://", "it names no host"),
        ("https:///a.png", "it names no host"),
        ("https:/a.png", "it names no host"),
        *(
            (f"http://{host}/a.png", UNREACHABLE)
            for host in (
                "localhost",
                "LOCALHOST:8000",
                "app.localhost",
                "minio:9000",
                "printer.local",
                "nas.lan.",
                "files.corp.internal",
                "app.test",
                "127.0.0.1:8000",
                "user:key@127.0.0.1",
                "10.1.2.3",
                "192.168.0.5",
                "172.16.1.1",
                "169.254.169.254",
                "100.64.0.1",
                "0.0.0.1",
                "127.1",
                "2130706433",
                "0x7f.1",
                "[::1]:8000",
                "[fd00::1]",
                "[::ffff:127.0.0.1]",
                "[fe80::1%25eth0]",
                "[::1",
                "[x]",
            )
        ),
        ("./cat.png", PATH),
        ("@cat.png", PATH),
        ("file:///srv/cat.png", PATH),
        ("example.com/cat.png", PATH),
        ("", PATH),
        ("s3://bucket/cat.png", "the service fetches only http and https: pass a signed https URL"),
        ("data:image/gif;base64,R0lGODlh", FORMAT),
        ("data:image/png,x", FORMAT),
        ("data:;base64,aaaa", FORMAT),
        ("data:image/png;base64,", WRITE),
        ("data:image/png;base64", WRITE),
        ("data:image/png;base64,iVBORw0KGgo", BASE64),
        ("data:image/png;base64,iVBO\nRw0KGgo=", BASE64),
        ("data:image/png;base64,iVBORw0KGg-_", BASE64),
        ("data:image/png;base64,iVBO=w0KGgo=", BASE64),
    ],
)
def test_a_reference_that_cannot_work_is_rejected_with_advice(url: str, advice: str) -> None:
    text = problem("nano_banana", image_url=url)
    assert text.startswith("image_url[0] must be a public http(s) URL or a whole data URI")
    assert advice in text
    assert len(text) < 400


@pytest.mark.parametrize(
    ("model", "value", "advice"),
    [
        ("kling_3_0", f"{URL},{URL}", SINGLE),
        ("seedance2_5", f"{URL},{URL}", SEVERAL),
        ("kling_3_0", PNG, UPLOAD),
        ("kling_3_0", "./cat.png", UPLOAD),
        ("kling_3_0", Path("cat.png"), UPLOAD),
        ("kling_3_0", b"\x89PNG", UPLOAD),
        ("kling_3_0", io.BytesIO(b"\x89PNG"), UPLOAD),
        ("kling_3_0", Output(), "this output has no URL"),
        ("kling_3_0", 5, "pass a str or an Output"),
        ("gpt_4o", Output(text="rain", kind="text"), "this output has no URL"),
        ("gpt_4o", 5, FORMS),
        ("gpt_4o", {"url": URL}, FORMS),
        ("gpt_4o", b"", "it is empty"),
        ("gpt_4o", io.StringIO("x"), "open the file in binary mode"),
        ("gpt_4o", Upload(), "its read() is asynchronous: read it and pass the bytes"),
        ("gpt_4o", {URL}, "convert it to a list"),
        ("gpt_4o", bytearray(b"x"), "convert it to bytes"),
        ("gpt_4o", memoryview(b"x"), "convert it to bytes"),
        ("gpt_4o", f"data:image/png;base64,{'A' * 10_500_000}", SHRINK),
        ("seedance2_5", "data:video/mp4;base64,AAA", BASE64),
    ],
)
def test_what_a_parameter_does_not_take_is_rejected_with_advice(
    model: str, value: Any, advice: str
) -> None:
    text = problem(model, image_url=value)
    assert text.startswith("image_url must be a public http(s) URL")
    assert text.endswith(f"; {advice}")


def test_data_that_no_page_restricts_is_accepted() -> None:
    for data in ("data:,hello", "data:video/mp4;codecs=avc1;base64,AAAA", PNG):
        request = models.Seedance25(prompt="p", image_url=data)
        assert request.to_params()["image_url"] == data


def test_local_media_are_listed_and_replaced() -> None:
    file = io.BytesIO(b"\x89PNG")
    request = models.Seedance25(
        prompt="p", image_url=[URL, Path("cat.png"), file, OUTPUT], video_url=b"ftyp"
    )
    listed = request.local_media()
    assert [(str(each), each.source) for each in listed] == [
        ("image_url[1]", Path("cat.png")),
        ("image_url[2]", file),
        ("image_url[3]", OUTPUT),
        ("video_url", b"ftyp"),
    ]
    assert {(each.accepts, each.max_bytes) for each in listed} == {("url or data", None)}
    urls = ["data:,1", "data:,2", "https://example.com/3", "data:,4"]
    assert request.to_params(urls) == {
        "prompt": "p",
        "image_url": [URL, *urls[:3]],
        "video_url": urls[3],
    }
    for media in ((), urls[:3]):
        with pytest.raises(ValueError, match=r"image_url\[1\], .*: submit the instance itself"):
            request.to_params(media)
    with pytest.raises(ValueError, match="no parameter is a local medium, got 4 URLs"):
        models.Seedance25(prompt="p", image_url=URL).to_params(urls)


@pytest.mark.parametrize("source", [Path("a.png"), b"\x89PNG", io.BytesIO(b"x"), OUTPUT])
def test_a_single_local_medium_is_wrapped_where_an_array_is_wanted(source: Any) -> None:
    (medium,) = models.NanoBanana(prompt="p", image_url=source).local_media()
    assert (medium.param, medium.index, medium.source) == ("image_url", 0, source)
    assert (medium.accepts, medium.max_bytes) == ("url or image data", 10 * 1024 * 1024)
    single = models.GPT4o(prompt="p", image_url=source)
    assert single == models.GPT4o(prompt="p", image_url=source)
    assert hash(single) == hash(models.GPT4o(prompt="p", image_url=source))
    assert single.local_media()[0].index is None


async def test_an_output_may_be_where_only_its_own_client_gets(
    service: FakeService,
) -> None:
    """The rule on public hosts is for URLs that people write: a fake service runs on loopback."""
    request = models.Seedance15Pro(prompt="p", aspect_ratio="16:9", image_url=OUTPUT)
    assert request.to_params([str(OUTPUT.url)])["image_url"] == OUTPUT.url
    assert "must be a public" in problem("kling_3_0", image_url=service.url)


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("seed", Foreign(ndim=0, tolist=int), "convert it with .item()"),
        ("seed", Foreign(ndim=1, tolist=list), "convert it with .tolist()"),
        ("seed", Decimal(5), "convert it with int() or float()"),
        ("seed", float("nan"), "leave the parameter out where there is no value"),
        ("seed", NAType(), "leave the parameter out where there is no value"),
        ("prompt", float("nan"), "leave the parameter out where there is no value"),
        ("prompt", dt.date(2026, 1, 1), "convert it with .isoformat()"),
        ("prompt", b"text", "decode it to a str"),
        ("prompt", Path("text"), "convert it with str()"),
        ("prompt", iter("text"), "convert it to a list"),
    ],
)
def test_a_value_of_a_foreign_type_is_rejected_with_its_conversion(
    name: str, value: Any, hint: str
) -> None:
    text = problem("krea_2_turbo", **{name: value})
    assert text.startswith(f"{name} must be ")
    assert text.endswith(f"; {hint}")


def test_a_foreign_array_is_rejected_with_its_conversion() -> None:
    array = Foreign(ndim=1, tolist=list)
    assert problem("nano_banana", image_url=array).endswith("; convert it with .tolist()")
    assert problem("gpt_4o", prompt=object()).endswith(">")


@pytest.mark.parametrize(
    ("model", "name", "given", "sent"),
    [
        ("seedance2", "video_length", 5, "5"),
        ("seedance2", "video_length", 5.0, "5"),
        ("seedance2", "video_length", "5", "5"),
        ("sora2", "video_length", 10, "10"),
        ("gemini_omni_flash_ext", "video_length", 8, "8"),
        ("seedream_v4", "output_n", 2, "2"),
        ("wan2_7_image_pro", "output_n", 4, "4"),
        ("seed_audio_1_0", "sample_rate", 44100, "44100"),
        ("flow_music", "bpm", 120, "120"),
        ("flow_music", "bpm", 128.5, "128.5"),
    ],
)
def test_a_number_that_is_sent_as_a_string_may_be_a_number(
    model: str, name: str, given: Any, sent: str
) -> None:
    params = {**models.example(model), **({"type": "all_reference"} if "dance" in model else {})}
    number, text = (models.build(model, {**params, name: value}) for value in (given, sent))
    assert number.to_params()[name] == sent
    assert number == text


@pytest.mark.parametrize(
    "value", [3, 5.5, True, pytest.param(10**5000, id="long"), float("inf"), float("nan"), "5.0"]
)
def test_other_numbers_are_rejected(value: Any) -> None:
    text = problem("seedance2", type="all_reference", video_length=value)
    assert text.startswith("video_length must be ")
