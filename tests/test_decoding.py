"""JSON of responses: read strictly where it is JSON, and as far as possible where it is not."""

import copy
import json
import pickle
from typing import Any

import pytest

from aireiter_async._decoding import decode, salvage

DEEP = 100_000


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b'{"statusCode":200',
        b"{'statusCode':200}",
        b'{"data":' + b"[" * DEEP + b"]" * DEEP + b"}",
        b"[" * DEEP,
        b"\x00",
        b"<html>",
        '{"a":"猫"}'.encode("utf-16"),
    ],
    ids=lambda body: repr(body[:24]),
)
def test_what_is_no_json_is_none(body: bytes) -> None:
    assert decode(body, {}) is None


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'\xef\xbb\xbf{"a":1}', {"a": 1}),
        (b' \n{"a":1}\n\0', {"a": 1}),
        (b'{"a":1} trailing', {"a": 1}),
        (b'{"a":"\\ud83d\\ude00"}', {"a": "\U0001f600"}),
        (b'{"a":"\\ud83d","\\uDC00":1}', {"a": "\ufffd", "\ufffd": 1}),
        (b'{"a":%d}' % 10**4000, {"a": 10**4000}),
        (b'{"a":' + b"1" * 5000 + b"}", {"a": "1" * 5000}),
        (b'{"a":NaN,"b":[-Infinity]}', {"a": None, "b": [None]}),
        (b'{"a":"\xff"}', {"a": "\ufffd"}),
        (b'{"a":"\xe7\x8c"}', {"a": "\ufffd"}),
        (b'{"a":"caf\xe9"}', {"a": "caf\ufffd"}),
        (b'{"a":"\xed\xa0\xbd\xed\xb8\x80"}', {"a": "\U0001f600"}),
        (b'{"a":"\xed\xa0\x80"}', {"a": "\ufffd"}),
        (b'{"a":"a\nb\0\x1b"}', {"a": "a\nb\0\x1b"}),
        (b'{"a":1,"a":2,"b":NaN}', {"a": 2, "b": None}),
        (b'{"a":[1],"a":null,"a":[],"b":NaN}', {"a": [1], "b": None}),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_what_can_be_read_is_read(body: bytes, value: Any) -> None:
    assert decode(body, {}) == value


@pytest.mark.parametrize(
    ("charset", "text"), [("ISO-8859-1", "café"), ('"GB18030"', "你好"), ("hex", "a\ufffd")]
)
def test_a_declared_encoding_is_believed_where_utf_8_fails(charset: str, text: str) -> None:
    body = {"café": b"caf\xe9", "你好": "你好".encode("gb18030")}.get(text, b"a\xff")
    headers = {"Content-Type": f"application/json; charset={charset}"}
    assert decode(b'{"a":"%b"}' % body, headers) == {"a": text}


def test_what_was_read_can_be_written() -> None:
    value = decode(b'{"data":[1e999,-1e999,1e308,-0.0,1e-999]}', {})
    assert value == {"data": ["1e999", "-1e999", 1e308, 0.0, 0.0]}
    assert json.loads(json.dumps(value, allow_nan=False)) == value


@pytest.mark.parametrize("core", ["[]", "[1]", '["[{"]', "{}"])
@pytest.mark.parametrize(("left", "right"), [("[", "]"), ('{"a":', "}"), ('["x",0,', ",[]]")])
def test_nesting_is_cut(left: str, right: str, core: str) -> None:
    """Values of 200 levels can be copied and pickled; what is deeper is left out."""
    for levels in (198, 199, 500):
        value = decode(f'{{"s":"x","data":{left * levels}{core}{right * levels}}}'.encode(), {})
        assert copy.deepcopy(value) == pickle.loads(pickle.dumps(value))  # noqa: S301
        assert value["s"] == "x"
        assert ("None" in repr(value)) is (levels > 198)


def test_brackets_in_texts_are_no_nesting() -> None:
    data = {"prompt": "[{" * 10_000, "flat": [[]] * 10_000}
    assert decode(json.dumps(data).encode(), {}) == data


@pytest.mark.parametrize("value", [b"[],", b"1,", b'"",', b"{},"])
def test_values_have_a_limit(value: bytes) -> None:
    """A million values are a response; many more would take gigabytes."""
    many = b'{"a":[' + value * 400_000 + b"0]}"
    assert len(decode(many, {})["a"]) == 400_001
    assert decode(many.replace(value, value * 3), {}) is None
    assert salvage(many.replace(value, value * 3), {}, ("a",)) == {}


def test_values_are_salvaged_from_broken_json() -> None:
    body = b'{"a": "x", "b": [1, {"c": "y"}], "d": "z" quoted", "e": tru, "a": "x", "f":1, "f":2'
    names = ("a", "b", "c", "d", "e", "f", "g")
    assert salvage(body, {}, names) == {"a": "x", "b": [1, {"c": "y"}], "c": "y", "d": "z"}
    assert salvage(rb'{"p": "\"a\": 1", ', {}, ("a", "p")) == {"p": '"a": 1'}
