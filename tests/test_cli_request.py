"""What the options of ``aireiter submit`` make of a request."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from aireiter_async import models
from aireiter_async.cli._failure import UsageError
from aireiter_async.cli._request import Order, read_object
from aireiter_async.models import InvalidParamsError, Model


def ignore(_note: str) -> None:
    """Take a note that is not looked at."""


def params(model: str, *pairs: str, **options: Any) -> Any:
    """Return the params that would leave."""
    made = Order(param=pairs, **options).request(model, ignore).params
    return made.to_params() if isinstance(made, Model) else made


@pytest.mark.parametrize(
    ("model", "pair", "value"),
    [
        ("seedance_1_5_pro", "prompt=123", "123"),
        ("seedance_1_5_pro", 'prompt="a=b"', '"a=b"'),
        ("seedance_1_5_pro", "prompt=[1]", "[1]"),
        ("seedance_1_5_pro", "video_length=4.5", 4.5),
        ("seedance_1_5_pro", "generate_audio=True", True),
        ("seedance2", "video_length=5", "5"),
        ("kling_v3_omni", "video_length=5", 5),
        ("kling_v3_omni", "image_url=https://example.com/a,b.png", "https://example.com/a,b.png"),
        ("kling_v3_omni", 'image_url=["https://example.com/a.png"]', ["https://example.com/a.png"]),
        ("nano_banana", "image_url=https://example.com/a.png", ["https://example.com/a.png"]),
    ],
)
def test_a_value_is_read_as_the_model_takes_it(model: str, pair: str, value: Any) -> None:
    """Text stays text, numbers become numbers, and nothing is split at commas."""
    name = pair.partition("=")[0]
    given = models.example(model)
    assert params(model, pair, params=json.dumps(given))[name] == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("0.5", 0.5),
        ("true", True),
        ("[1, 2]", [1, 2]),
        ('{"a": null}', {"a": None}),
        ("null", "null"),
        ('"5"', '"5"'),
        ("a kitten", "a kitten"),
        ("", ""),
        ("NaN", "NaN"),
        ("[" * 100_000, "[" * 100_000),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_an_unknown_model_takes_json_and_text(text: str, value: Any) -> None:
    """Numbers, booleans, arrays and objects are read as JSON; all else is text."""
    assert params("new_model", f"x={text}") == {"x": value}


@pytest.mark.parametrize(
    ("pair", "told"),
    [
        ("video_length=soon", "video_length must be a finite number, from 4 to 12, got 'soon'"),
        ("video_length=true", "video_length must be a finite number, from 4 to 12, got 'true'"),
        ("video_length=NaN", "video_length must be"),
        ("generate_audio=maybe", "generate_audio must be"),
    ],
)
def test_a_value_that_cannot_be_read_is_named(pair: str, told: str) -> None:
    """What a model does not take is refused with the parameter and what is allowed."""
    with pytest.raises(InvalidParamsError, match=told):
        params("seedance_1_5_pro", "prompt=x", "aspect_ratio=16:9", pair)


def test_a_repeated_name_makes_an_array() -> None:
    """Where the model takes an array a parameter may be given again."""
    urls = ["https://example.com/a.png", "https://example.com/b.png"]
    pairs = [f"image_url={url}" for url in urls]
    assert params("nano_banana", "prompt=x", *pairs)["image_url"] == urls
    assert params("kling_v3_omni", "prompt=x", *pairs)["image_url"] == urls


@pytest.mark.parametrize("model", ["nano_banana", "new_model"])
def test_a_repeated_name_is_refused_elsewhere(model: str) -> None:
    """Where one value is taken, or nothing is known, none is silently dropped."""
    with pytest.raises(UsageError, match="--param prompt is given 2 times"):
        params(model, "prompt=a", "prompt=b")


def test_single_parameters_go_before_the_object() -> None:
    """--param adds to --params, and wins."""
    assert params("new_model", "a=1", params='{"a": 2, "b": 3}') == {"a": 1, "b": 3}


def test_unchecked_parameters_leave_as_they_are() -> None:
    """--unchecked sends what a known model does not take, without a word."""
    assert params("seedance_1_5_pro", "promt=x", unchecked=True) == {"promt": "x"}


def test_a_channel_is_checked_like_the_model() -> None:
    """The channel's suffix is on the model's name, and the parameters are checked."""
    request = Order(param=("prompt=x",), channel="plus").request("veo3_1", ignore)
    assert request.model == "veo3_1_plus"
    with pytest.raises(InvalidParamsError, match="veo3_1_plus: prompt is required"):
        params("veo3_1", channel="plus")


def test_an_id_is_kept_or_drawn() -> None:
    """A given id is the task's; without one each request draws its own."""
    assert Order(id="mine").request("new_model", ignore).out_task_id == "mine"
    drawn = {Order().request("new_model", ignore).out_task_id for _ in range(2)}
    assert len(drawn) == 2


def test_a_model_like_no_other_is_noted() -> None:
    """Of an unknown model it is said that nothing was checked."""
    notes: list[str] = []
    for model in ("zzz", "nano_bananna"):
        Order().request(model, notes.append)
    assert notes[0] == "zzz is not in this release's catalogue: not checked"
    assert "(did you mean nano_banana" in notes[1]


def test_an_object_may_be_in_a_file(tmp_path: Path) -> None:
    """``@FILE`` is read as UTF-8, with or without a byte order mark."""
    path = tmp_path / "params.json"
    for encoding in ("utf-8", "utf-8-sig"):
        path.write_text('{"prompt": "末班"}', encoding=encoding)
        assert read_object("--params", f"@{path}") == {"prompt": "末班"}


def test_an_object_may_come_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """``@-`` is standard input, read as bytes."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"a": 1}'), "ascii"))
    assert read_object("--params", "@-") == {"a": 1}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "--params is not JSON: Expecting property name"),
        ('{"a": NaN}', "--params is not JSON: NaN is not a number of JSON"),
        ("[" * 100_000, "--params is not JSON"),
        ("[]", "--params must be a JSON object"),
        ("@no/such/file", "--params cannot be read from 'no/such/file'"),
    ],
)
def test_a_bad_object_is_named(text: str, told: str) -> None:
    """What is wrong with an object is told with the option's name."""
    with pytest.raises(UsageError, match=told):
        read_object("--params", text)


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    """Bytes that are not UTF-8, and text that is not JSON, are told with the file's name."""
    path = tmp_path / "params.json"
    path.write_bytes(b"\xff\xfe{")
    with pytest.raises(UsageError, match="--params cannot be read from"):
        read_object("--params", f"@{path}")
    path.write_bytes(b"{")
    with pytest.raises(UsageError, match=r"--params @.*params\.json is not JSON"):
        read_object("--params", f"@{path}")
