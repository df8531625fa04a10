"""Requests: values that keep what they were given, and refuse what cannot be sent."""

import copy
import enum
import json
import math
import pickle
import re
import traceback
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aireiter_async import SubmitRequest, models
from aireiter_async._encoding import LARGE
from aireiter_async._requests import as_request, check_id
from aireiter_async.models import InvalidParamsError

ID = "kitten-1"
KITTEN = models.Seedance15Pro(prompt="a kitten", aspect_ratio="16:9")
CAT = models.GPT4o(prompt="a cat")
PICTURE = "data:image/png;base64," + "A" * LARGE


class Scalar:
    """Like a numpy scalar."""

    def tolist(self) -> int:
        raise AssertionError


class Colour(enum.StrEnum):
    """A str, for JSON as well."""

    RED = "red"


def sent(request: SubmitRequest) -> Any:
    return json.loads(request.encode())


# IDs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("out_task_id", ["a", "Z", "0", "_", "-", "x" * 64, "my_task_123456"])
def test_an_id_of_the_documented_characters_passes(out_task_id: str) -> None:
    assert check_id(out_task_id) is out_task_id
    assert SubmitRequest("m", {}, out_task_id).out_task_id is out_task_id


@pytest.mark.parametrize(
    "out_task_id",
    ["", "x" * 65, "x" * 10**7, "a b", "a\n", "\na", "a.b", "a/b", '"', "\u0664", "\xe9", "\0"],
    ids=lambda value: ascii(value[:4]),
)
def test_any_other_id_is_a_value_error(out_task_id: str) -> None:
    expected = "out_task_id must be 1 to 64 characters of A-Z, a-z, 0-9, '_' and '-', got "
    request = SubmitRequest("m", {})
    for call in (check_id, lambda value: SubmitRequest("m", {}, value), request.with_id):
        with pytest.raises(ValueError, match=re.escape(expected)) as caught:
            call(out_task_id)
        assert len(str(caught.value)) < 130


@pytest.mark.parametrize("out_task_id", [5, b"a", True])
def test_an_id_is_a_str(out_task_id: Any) -> None:
    kind = type(out_task_id).__name__
    with pytest.raises(TypeError, match=f"^out_task_id must be a str, got {kind}$"):
        SubmitRequest("m", {}, out_task_id)


def test_generated_ids_never_collide() -> None:
    ids = {SubmitRequest("m", {}).out_task_id for _ in range(100_000)}
    assert len(ids) == 100_000
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in ids)


@pytest.mark.parametrize("params", [{}, KITTEN])
def test_a_generated_id_is_known_to_be_one(params: Any) -> None:
    request = SubmitRequest("seedance_1_5_pro", params)
    assert request.generated
    assert attrs.evolve(request, metadata={}).generated
    assert pickle.loads(pickle.dumps(request)).generated  # noqa: S301 - our own pickle
    assert as_request(request, callback_url="https://h").generated
    assert not attrs.evolve(request, out_task_id="mine").generated
    assert not SubmitRequest(request.model, params, request.out_task_id).generated
    assert request.with_id("b", generated=True).generated
    assert not request.with_id("b").generated
    assert request.with_id("b") == SubmitRequest(request.model, params, "b")


# Arguments -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"model": 5}, TypeError, "model must be a str, got int"),
        ({"model": ""}, ValueError, "model must be a model's name such as 'nano_banana', got ''"),
        ({"model": "veo3_1\n"}, ValueError, "model must be a model's name such as"),
        ({"model": " " * 10**6}, ValueError, "model must be a model's name such as"),
        ({"model": "m\ud800"}, ValueError, "model must be a model's name such as"),
        ({"params": None}, TypeError, "params must be a mapping or an instance of a class in"),
        ({"params": [("a", 1)]}, TypeError, "params must be a mapping .*, got list"),
        (
            {"params": KITTEN},
            ValueError,
            "model 'm' does not take the params of Seedance15Pro: use one of seedance_1_5_pro",
        ),
        ({"callback_url": 5}, TypeError, "callback_url must be a str, got int"),
        ({"callback_url": ""}, ValueError, "callback_url must be an http or https URL"),
        ({"callback_url": "ftp://h"}, ValueError, "callback_url must be an http or https URL"),
        ({"callback_url": "http://a b"}, ValueError, "callback_url must be an http or https URL"),
        ({"callback_url": "http://\ud800"}, ValueError, "callback_url must be an http or https"),
        ({"callback_url": "x" * 10**6}, ValueError, "callback_url must be an http or https URL"),
        ({"metadata": [1]}, TypeError, "metadata must be a mapping, got list"),
        ({"metadata": "x"}, TypeError, "metadata must be a mapping, got str"),
    ],
)
def test_a_wrong_argument_is_named(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^{message}") as caught:
        SubmitRequest(**{"model": "m", "params": {}} | arguments)
    assert len(str(caught.value)) < 250


def endless() -> dict[str, Any]:
    values: dict[str, Any] = {}
    values["self"] = [values]
    return values


class NAType:
    """Pandas' value of an empty cell, by name."""


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


NO_JSON: list[tuple[Any, type[Exception], str]] = [
    (b"png", TypeError, ".x must be a JSON value .*, got bytes: pass text, a URL or a data URL"),
    (Path("a.png"), TypeError, r".x must be .*, got pathlib\.[\w.]+Path: pass text, a URL or"),
    ({1, 2}, TypeError, r".x must be .*, got set: use list\(\)"),
    ({"a": [1, 1j]}, TypeError, r".x.a\[1\] must be .*, got complex: convert it"),
    ({"a": NAType()}, TypeError, ".x.a must be .*NAType: leave it out where there is no value"),
    ([{"size": Scalar()}], TypeError, r".x\[0\].size must be .*Scalar: use \.tolist\(\)"),
    (datetime.now(UTC), TypeError, r".x must be .* got datetime.datetime: use \.isoformat\(\)"),
    ((date.max,), TypeError, r".x\[0\] must be .*, got datetime.date: use \.isoformat\(\)"),
    (Decimal("2.5"), TypeError, r".x must be .*, got decimal.Decimal: use float\(\) or str\(\)"),
    (MappingProxyType({}), TypeError, r".x must be .*, got mappingproxy: use dict\(\)"),
    ({1: "a", "1": "b"}, TypeError, r"the keys of params.x must be str, got 1 \(int\): use '1'"),
    ([{None: 1}], TypeError, r"the keys of params.x\[0\] must be str, got None \(NoneType\)"),
    ({"a b": {(): 1}}, TypeError, r"the keys of params.x\['a b'\] must be str, got \(\)"),
    ([math.nan], ValueError, r".x\[0\] must be a finite number, got nan: leave it out where"),
    ({"a": -math.inf}, ValueError, ".x.a must be a finite number, got -inf"),
    ("a\ud800", ValueError, r".x must be Unicode .* lone surrogate \('\\ud800'\) at index 1"),
    ({"\udfff": 1}, ValueError, r"the key '\\udfff' of params.x must be Unicode text"),
    (10**5000, ValueError, ".x must be an int of at most 4,300 digits"),
    (endless(), ValueError, r".x.self\[0\].self.* must not contain itself or over 200 levels"),
    (nested(20_000), ValueError, r".x\[0\]\[0\].* must not contain itself or over 200 levels"),
]


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize(("value", "kind", "message"), NO_JSON, ids=range(len(NO_JSON)))
def test_what_json_has_no_form_for_is_rejected_with_its_path(
    value: Any, kind: type[Exception], message: str, *, large: bool
) -> None:
    params = {"pad": "x" * LARGE * large, "x": value}
    expected = message if message.startswith("the key") else f"^params{message}"
    with pytest.raises(kind, match=expected) as caught:
        SubmitRequest("m", params)
    assert len(str(caught.value)) < 250
    with pytest.raises(kind, match=expected.replace("params", "metadata")):
        SubmitRequest("m", {}, metadata=params)


@pytest.mark.parametrize("key", [1, None, True, ("a",), b"a", "\ud800"])
def test_a_key_of_the_params_is_text(key: Any) -> None:
    for params in ({key: 1}, {"a": 1, key: 2}):
        with pytest.raises((TypeError, ValueError), match="of params must be"):
            SubmitRequest("m", params)


def test_what_json_can_say_passes() -> None:
    params = {"a": (1, 2.5), "n": 10**1000, "e": Colour.RED, "deep": nested(50), "t": True}
    for pad in ("", "x" * LARGE):
        assert sent(SubmitRequest("m", {**params, "p": pad}))["params"] == {
            **params,
            "a": [1, 2.5],
            "p": pad,
        }


# Values --------------------------------------------------------------------------------


@pytest.mark.parametrize("large", [False, True])
def test_a_request_keeps_what_it_was_given(*, large: bool) -> None:
    images = ["a"]
    params: dict[str, Any] = {"prompt": "x" * LARGE * large, "images": images, "o": {"seed": 1}}
    given = copy.deepcopy(params)
    request = SubmitRequest("m", params, ID, metadata=params)
    params["prompt"], params["o"]["seed"] = "later", 2
    images.append("b")
    seen: Any = request.params
    assert seen == request.metadata == given
    seen["images"].append("c")
    seen["o"]["seed"] = 3
    assert request.params == request.metadata == given
    assert sent(request)["params"] == sent(request)["metadata"] == given
    assert json.loads(request.encode_content())["params"] == given
    assert request.large is large


def test_large_metadata_make_a_large_request() -> None:
    assert SubmitRequest("m", {}, metadata={"a": [PICTURE]}).large
    assert not SubmitRequest("m", {}, metadata={"a": ["x"]}).large


VALUES = [
    SubmitRequest("m", {"a": [1]}, ID, "https://h/done", {"b": {}}),
    SubmitRequest("m", {"a": PICTURE}, ID, metadata={"b": [PICTURE]}),
    SubmitRequest("seedance_1_5_pro", KITTEN, ID),
]


@pytest.mark.parametrize("value", VALUES, ids=["small", "large", "model"])
def test_requests_are_values(value: SubmitRequest) -> None:
    twins = (
        pickle.loads(pickle.dumps(value)),  # noqa: S301 - our own pickle
        copy.copy(value),
        copy.deepcopy(value),
        attrs.evolve(value),
        value.with_id(ID),
    )
    assert {value, *twins} == {value}
    assert {each.encode() for each in twins} == {value.encode()}
    others = (
        attrs.evolve(value, params={}) if value.model == "m" else value.with_id("other"),
        attrs.evolve(value, metadata={"b": 1}),
        attrs.evolve(value, callback_url="https://h/other"),
        value.with_id("other"),
    )
    assert value not in others
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        value.model = "other"  # type: ignore[misc]


def test_the_order_of_keys_makes_no_difference() -> None:
    first = SubmitRequest("m", {"a": 1, "b": {"d": 1, "c": 2}}, ID)
    second = SubmitRequest("m", {"b": {"c": 2, "d": 1}, "a": 1}, ID)
    assert first == second
    assert first.encode() == second.encode()


def test_a_repr_shows_what_was_given_and_no_picture() -> None:
    params = {"image_url": [PICTURE, [PICTURE]], "prompt": PICTURE}
    for request in (
        SubmitRequest("m", params, callback_url="https://h", metadata=params),
        SubmitRequest("m", MappingProxyType(params)),
        as_request(models.GPT4o(prompt="x", image_url=PICTURE)),
    ):
        assert len(repr(request)) < 600
    assert repr(SubmitRequest("m", {"a": 1}, "b")) == (
        "SubmitRequest(model='m', params={'a': 1}, out_task_id='b')"
    )
    for url, hidden in (
        ("https://h", "https://h"),
        ("https://h/done", "https://h/..."),
        ("https://u:p@h:1?next=http://x", "https://h:1/..."),
    ):
        assert f"callback_url={hidden!r}" in repr(SubmitRequest("m", {}, callback_url=url))
    with pytest.raises(ValueError, match=r"got 'h/...'$"):
        SubmitRequest("m", {}, callback_url="h/secret")
    with pytest.raises(TypeError) as caught:
        SubmitRequest("m", {"a": b""})
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert "self = <SubmitRequest>" in "".join(shown.format())


# Bytes ---------------------------------------------------------------------------------


def test_the_documented_request_leaves_as_documented() -> None:
    params = {
        "prompt": "A cute kitten playing under the sunlight, fluffy fur, bright eyes",
        "video_length": 5,
        "aspect_ratio": "16:9",
        "resolution": "720p",
    }
    model = models.Seedance15Pro(**params)  # type: ignore[arg-type]
    body = SubmitRequest("seedance_1_5_pro", model, "my_task_123456").encode()
    expected = {"model": "seedance_1_5_pro", "params": params, "out_task_id": "my_task_123456"}
    assert json.loads(body) == expected
    assert b": " not in body


def test_the_bytes_of_a_request_are_always_the_same() -> None:
    request = SubmitRequest("m\xe9", {"b": "猫", "a": [1.5, None, True], "c": {"z": 1}}, ID)
    expected = (
        '{"model":"m\xe9","out_task_id":"kitten-1",'
        '"params":{"a":[1.5,null,true],"b":"猫","c":{"z":1}}}'
    )
    assert [request.encode() for _ in range(3)] == [expected.encode()] * 3


@pytest.mark.parametrize("callback_url", [None, "https://example.com/done", "http://localhost:1"])
@pytest.mark.parametrize("metadata", [None, {}, MappingProxyType({"a": "猫"})])
def test_what_was_given_is_sent(callback_url: str | None, metadata: Any) -> None:
    request = SubmitRequest("m", MappingProxyType({"seed": None}), ID, callback_url, metadata)
    assert (request.callback_url, request.metadata) == (callback_url, metadata)
    optional = {"callback_url": callback_url, "metadata": metadata and dict(metadata)}
    assert sent(request) == {
        "model": "m",
        "params": {"seed": None},
        "out_task_id": ID,
        **{name: value for name, value in optional.items() if value is not None},
    }


def test_the_content_is_canonical_and_holds_no_secret() -> None:
    first = SubmitRequest("m", {"a": 1, "b": {"d": 1, "c": 2}}, metadata={"x": "\xe9"})
    second = SubmitRequest(
        "m", {"b": {"c": 2, "d": 1}, "a": 1}, ID, "https://h/secret", {"x": "\xe9"}
    )
    expected = '{"metadata":{"x":"\xe9"},"model":"m","params":{"a":1,"b":{"c":2,"d":1}}}'
    assert first.encode_content() == second.encode_content() == expected


@pytest.mark.parametrize("size", [8, LARGE])
def test_the_content_has_digests_in_place_of_media(size: int) -> None:
    def content(letter: str) -> str:
        pictures = [
            f"data:image/png;base64,{letter * size}",
            f"DATA:;base64,{letter * size}",
            f"data:text/plain;charset=utf-8;x,{letter}",
        ]
        params = {"prompt": "data: a chart, in blue", "n": 1, "o": {"images": pictures}}
        return SubmitRequest("m", params, metadata={"x": pictures}).encode_content()

    assert content("A") == content("A") != content("B")
    params = json.loads(content("A"))["params"]
    assert params["prompt"] == "data: a chart, in blue"
    png, unknown, text = params["o"]["images"]
    assert re.fullmatch("data:image/png;sha256=[0-9a-f]{64},", png)
    assert re.fullmatch("data:;sha256=[0-9a-f]{64},", unknown)
    assert re.fullmatch("data:text/plain;sha256=[0-9a-f]{64},", text)
    assert len(content("A")) < 1000


NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SENDABLE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(NAMES, SENDABLE)


@given(params=OBJECTS, metadata=st.none() | OBJECTS, large=st.booleans())
def test_what_is_sent_is_what_was_given(
    params: dict[str, Any], metadata: dict[str, Any] | None, *, large: bool
) -> None:
    params |= {"pad": "x" * LARGE} if large else {}
    request = SubmitRequest("m", params, ID, metadata=metadata)
    body = sent(request)
    assert body.pop("metadata", None) == metadata == request.metadata
    assert body == {"model": "m", "params": params, "out_task_id": ID}
    assert request.params == params


# What submit takes ---------------------------------------------------------------------


@pytest.mark.parametrize("name", models.Seedance15Pro.VARIANTS)
def test_a_models_instance_goes_under_its_names(name: str) -> None:
    assert SubmitRequest(name, KITTEN).params is KITTEN


def test_a_models_instance_makes_a_request() -> None:
    first, second = as_request(KITTEN), as_request(KITTEN)
    assert (first.model, first.params) == ("seedance_1_5_pro", KITTEN)
    assert first.out_task_id != second.out_task_id


def test_a_request_is_sent_as_it_is() -> None:
    request = SubmitRequest("m", {})
    assert as_request(request) is request


def test_a_known_name_is_checked() -> None:
    made = as_request("gpt_4o_plus", {"prompt": "a cat"}, out_task_id="a")
    plus = models.build("gpt_4o_plus", {"prompt": "a cat"})
    assert made == SubmitRequest("gpt_4o_plus", plus, "a")
    assert made.params == plus
    with pytest.raises(InvalidParamsError, match=r"promt.*did you mean prompt"):
        as_request("nano_banana_v2", {"promt": "x"})
    assert as_request("gpt_4o", {"prompt": "x"}, channel="plus").model == "gpt_4o_plus"


def test_an_unknown_name_is_passed_on() -> None:
    made = as_request("brand_new", {"promt": "x"}, channel="max")
    assert (made.model, made.params) == ("brand_new_max", {"promt": "x"})


@pytest.mark.parametrize("name", ["gpt_4o", "brand_new"])
@pytest.mark.parametrize("params", [None, [], "x"])
def test_a_name_needs_a_mapping(name: str, params: Any) -> None:
    with pytest.raises(TypeError, match="must be a mapping"):
        as_request(name, params)


@pytest.mark.parametrize("request_", [SubmitRequest("m", {}), CAT])
def test_params_go_with_a_name_only(request_: Any) -> None:
    with pytest.raises(TypeError, match="pass params only with a model's name"):
        as_request(request_, {})


@pytest.mark.parametrize("request_", [SubmitRequest("gpt_4o", CAT), CAT])
def test_changes_are_made_on_the_way(request_: Any) -> None:
    changed = as_request(
        request_,
        out_task_id="mine",
        channel="plus",
        callback_url="https://example.com",
        metadata={"a": 1},
    )
    assert changed == SubmitRequest("gpt_4o_plus", CAT, "mine", "https://example.com", {"a": 1})


def test_a_change_leaves_the_rest() -> None:
    request = SubmitRequest("new_model", {"a": 1}, "mine", "https://example.com", {"a": 1})
    assert as_request(request, metadata={}) == attrs.evolve(request, metadata={})
    assert as_request(request, channel="max") == attrs.evolve(request, model="new_model_max")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"out_task_id": ""}, ValueError, "out_task_id must be 1 to 64 characters"),
        ({"channel": "turbo"}, ValueError, "channel"),
        ({"channel": "max"}, ValueError, "gpt_4o has no channel max"),
        ({"channel": ""}, ValueError, "channel"),
        ({"callback_url": ""}, ValueError, "callback_url must be an http or https URL"),
        ({"metadata": []}, TypeError, "metadata must be a mapping"),
    ],
)
@pytest.mark.parametrize("request_", [SubmitRequest("gpt_4o", {}), CAT], ids=["request", "model"])
def test_a_wrong_change_is_named(
    request_: Any, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        as_request(request_, **arguments)


@pytest.mark.parametrize("request_", [{"model": "m"}, b"m", None, models.GPT4o])
def test_only_requests_models_and_names_are_submitted(request_: Any) -> None:
    with pytest.raises(TypeError, match="request must be a SubmitRequest, an instance of"):
        as_request(request_)
