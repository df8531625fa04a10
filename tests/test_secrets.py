"""The key: in no log, repr, error, traceback or pickle, and on no wire but the API's."""

import asyncio
import copy
import io
import json
import logging
import pickle
import re
import warnings
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

from aireiter_async import (
    AireiterError,
    AsyncClient,
    ConnectError,
    InvalidRequestError,
    Output,
    RetryPolicy,
    SubmitRequest,
    TransportError,
    telemetry,
)
from aireiter_async.testing import FakeService, Fault

pytestmark = pytest.mark.usefixtures("path")

Connect = Callable[..., AsyncClient]
Listen = Callable[..., Awaitable[str]]
FindKey = Callable[[BaseException, str], list[str]]

ONCE = RetryPolicy(base=0, settle=0, attempts=1)


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Write all that any logger says to a text."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    handler.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s %(exc_info)s"))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield text
    root.removeHandler(handler)
    root.setLevel(level)


KEY = "sk-0a1b2c3d"


def fail(kind: str) -> None:
    """Raise an error that has a key in some place."""
    hidden = KEY if kind == "variable" else ""
    if kind == "message":
        raise ValueError(KEY)
    if kind == "field":
        raise InvalidRequestError(400, KEY)
    if kind == "cause":
        raise ValueError from TransportError(KEY)
    try:
        int(KEY if kind == "context" else "?")
    except ValueError:
        raise OSError(len(hidden))  # noqa: B904 - a context, not a cause


@pytest.mark.parametrize("kind", ["message", "field", "variable", "cause", "context", "nothing"])
def test_the_search_finds_a_key(find_key: FindKey, kind: str) -> None:
    """A key in a message, a field, a variable, a cause or a context of an error is found."""
    with pytest.raises((ValueError, OSError, AireiterError)) as caught:
        fail(kind)
    assert bool(find_key(caught.value, KEY)) == (kind != "nothing")


async def happen(client: AsyncClient, service: FakeService, directory: Path) -> list[Any]:
    """Let everything happen that a client can do, well and badly; return what came of it."""
    request = SubmitRequest("veo3_1", {"prompt": "a kitten"})
    things: list[Any] = [client, client.stats, client._settings, client._shared, request]

    async def attempt(call: Awaitable[Any]) -> None:
        try:
            things.append(await call)
        except (AireiterError, ValueError, RuntimeError) as error:
            things.append(error)

    task = await client.run(request)
    things += [task, await client.balance(), await client.query(task)]
    await attempt(client.download(task, directory))
    for fault in (
        Fault.lost_response(), Fault.reset(), Fault.truncated(), Fault.broken_json(),
        Fault.html(200), Fault.html(403), Fault.html(502), Fault.server_error(), Fault.no_data(),
        Fault.hang(),
        Fault.redirect(), Fault.bad_request("no"), Fault.no_credits(), Fault.not_found(),
        Fault.too_many_requests(0), Fault.too_many_requests(500),
        Fault.reply(401, '{"error":{"code":401,"message":"bad key"}}'),
    ):  # fmt: skip
        service.script("submit", fault)
        service.script("query", Fault.html(502), fault)
        service.script("balance", fault, fault)
        service.script("result", fault, fault)
        await attempt(client.submit(SubmitRequest("veo3_1", {})))
        await attempt(client.query("a"))
        await attempt(client.balance())
        await attempt(client.download(task, directory))
        await attempt(client.wait("a", timeout=0))
    service.script("submit", Fault.failed())
    await attempt(client.run(SubmitRequest("veo3_1", {})))
    await attempt(client.submit(SubmitRequest("veo3_1", {}), out_task_id="a b"))
    await attempt(client.download(Output(url="ftp://nowhere"), directory))
    await service.close()
    await attempt(client.submit(SubmitRequest("veo3_1", {})))
    await client.close()
    await attempt(client.balance())
    return things


async def test_the_key_is_nowhere(
    service: FakeService,
    connect: Connect,
    find_key: FindKey,
    log: io.StringIO,
    tmp_path: Path,
) -> None:
    """After everything has happened the key is in no log, span, value, error, pickle or file."""
    asyncio.get_running_loop().set_debug(True)
    key = str(service.api_key)
    client, spans, provider = connect(retry=ONCE, timeout=0.2), io.StringIO(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(out=spans)))
    telemetry.instrument(client, tracer_provider=provider)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        things = await happen(client, service, tmp_path)
    errors = [thing for thing in things if isinstance(thing, BaseException)]
    assert len(errors) > 70
    assert len({type(error) for error in errors}) >= 10
    for error in errors:
        assert find_key(error, key) == []
    for thing in things:
        assert key not in f"{thing!r} {thing}"
        if not isinstance(thing, AsyncClient) and thing not in things[:4]:
            assert key.encode() not in pickle.dumps(thing)
            assert key not in repr(copy.deepcopy(thing))
    assert "aireiter_async._client._submission INFO" in log.getvalue()
    assert key not in log.getvalue()
    assert spans.getvalue().count("span_id") > 50
    assert key not in spans.getvalue()
    assert [str(each.message) for each in told] == []
    assert service.leaks == []


async def test_a_reply_that_repeats_the_key_is_kept_without_it(
    connect: Connect, listen: Listen, tmp_path: Path
) -> None:
    """Where a relay adds the request to a good response, the key is not in what is kept of it."""

    def reply(request: bytes) -> bytes:
        echo = request.split(b"\r\n\r\n")[0].decode()
        data = {"status": "completed", "credits": 5, "output": [{"title": "t", "text": echo}]}
        body = json.dumps({"statusCode": 200, "message": echo, "data": data}).encode()
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)

    client = connect(base_url=await listen(reply))
    key = client._settings.api_key
    task = await client.run(SubmitRequest("suno_lyrics", {}))
    balance = await client.balance()
    assert balance.credits == 5
    assert key not in f"{task.raw} {balance.raw} {task.outputs}"
    assert "Authorization: Bearer ***" in task.raw["message"]
    assert key.encode() not in pickle.dumps((task, balance))
    [path] = await client.download(task, tmp_path)
    assert key not in path.read_text(encoding="utf-8")


BROKEN_OFF = {
    "in a header": b"HTTP/1.1 200 OK\r\nX-Request: %s\r\nContent-",
    "as a header": b"HTTP/1.1 502 Bad Gateway\r\n%s\r\nDate: Su",
    "in the reason": b"HTTP/1.1 401 no such key: %s\r\nContent-Len",
    "in a place": b"HTTP/1.1 307 Moved\r\nLocation: https://elsewhere.invalid/%s\r\nX",
    "in a line": b"HTTP/1.1 200 OK\r\nX-Request: %s",
    "after the head": b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n%s",
    "in a whole head": b"HTTP/1.1 200 no: %s\r\nContent-Length: 9999\r\n\r\n{",
    "in a header of chunks": b"HTTP/1.1 200 OK\r\n%s\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
}


@pytest.mark.parametrize("verb", ["balance", "query", "submit", "wait"])
@pytest.mark.parametrize("name", BROKEN_OFF)
async def test_a_response_that_breaks_off_is_told_without_the_key(
    connect: Connect, listen: Listen, find_key: FindKey, name: str, verb: str
) -> None:
    """Where a relay echoes the request and hangs up half-way, the key is in no error."""

    def reply(request: bytes) -> bytes:
        lines = request.split(b"\r\n")
        [line] = [line for line in lines if line.startswith(b"Authorization: ")]
        return BROKEN_OFF[name] % line

    client = connect(base_url=await listen(reply), retry=RetryPolicy(base=0, settle=0, attempts=2))
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "balance": client.balance,
        "query": lambda: client.query("a"),
        "submit": lambda: client.submit(SubmitRequest("veo3_1", {})),
        "wait": lambda: client.wait("a", timeout=0),
    }
    with pytest.raises(AireiterError) as caught:
        await calls[verb]()
    assert find_key(caught.value, client._settings.api_key) == []
    told = caught.value.__cause__ or caught.value
    assert re.search("the (response|answer)", str(told))


async def test_a_proxys_password_is_not_told(listen: Listen, find_key: FindKey) -> None:
    """The password in the URL of a lent session's proxy is in no error, whatever the proxy says."""
    refusal = b"HTTP/1.1 407 joe:sesame is unknown\r\nContent-Length: 0\r\n\r\n"
    proxy = (await listen(lambda _: refusal)).replace("://", "://joe:sesame@")
    async with aiohttp.ClientSession(proxy=proxy) as session:
        client = AsyncClient(KEY, base_url="https://a.invalid", session=session, retry=ONCE)
        calls = client.balance(), client.submit(SubmitRequest("veo3_1", {}))
        for error in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(error, ConnectError)
            assert "HTTP 407" in str(error)
            assert find_key(error, "sesame") == []


ODD_KEY = 'sk/0a+1b="2c\\3d%25'
WRITTEN: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "in JSON": lambda key: json.dumps(key)[1:-1],
    "in PHP's JSON": lambda key: json.dumps(key)[1:-1].replace("/", "\\/"),
    "in a URL": lambda key: quote(key, safe=""),
    "in a URL in lower case": lambda key: re.sub(
        "%..", lambda found: found[0].lower(), quote(key, safe="")
    ),
}


@pytest.mark.parametrize("form", WRITTEN)
async def test_a_key_that_is_escaped_is_found(
    connect: Connect, listen: Listen, find_key: FindKey, form: str
) -> None:
    """A key of odd characters is in no error, however a relay escapes it."""
    written = WRITTEN[form](ODD_KEY)
    page = f"<html>{written}</html>".encode()
    place = b"HTTP/1.1 302 Found\r\nLocation: /?%s\r\nContent-Length: 0\r\n\r\n" % written.encode()
    answers = [b"HTTP/1.1 400 No\r\nContent-Length: %d\r\n\r\n%s" % (len(page), page), place]
    if "JSON" in form:
        body = b'{"statusCode":400,"message":"no such key: %s"}' % written.encode()
        answers.append(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    client = connect(api_key=ODD_KEY, base_url=await listen(lambda _: answers[0]), retry=ONCE)
    while answers:
        [error] = await asyncio.gather(client.balance(), return_exceptions=True)
        assert isinstance(error, AireiterError)
        assert "***" in str(error)
        for shown in {ODD_KEY, written}:
            assert find_key(error, shown) == []
        del answers[0]


async def test_a_message_that_repeats_the_key_is_told_without_it(
    service: FakeService, client: AsyncClient
) -> None:
    """A rejection that quotes the key is raised with the rest of its words."""
    body = json.dumps({"statusCode": 400, "message": f"no such key: {service.api_key}!"})
    service.script("submit", Fault.reply(400, body))
    with pytest.raises(InvalidRequestError) as caught:
        await client.submit(SubmitRequest("veo3_1", {}))
    assert caught.value.message == "no such key: ***!"


async def test_debugging_the_loop_tells_no_key(
    service: FakeService, connect: Connect, log: io.StringIO
) -> None:
    """The loop's debug mode, which shows tasks and their waits, does not show the key."""
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0
    client = connect()
    service.script("submit", Fault.lost_response())
    running = asyncio.create_task(client.submit(SubmitRequest("veo3_1", {})))
    shown = [repr(running)]
    await asyncio.sleep(0)
    shown.append(repr(asyncio.all_tasks()))
    await running
    assert "took" in log.getvalue()
    assert str(service.api_key) not in log.getvalue() + "".join(shown)


@pytest.mark.parametrize("key", ["x", "sk", "1", "data", "png", "status", "output", "pending"])
async def test_a_short_key_changes_no_response(
    service: FakeService, connect: Connect, key: str
) -> None:
    service.api_key, service.price = key, 2.5
    client = connect(api_key=key)
    task = await client.run(SubmitRequest("nano_banana", {"prompt": "a kitten"}))
    assert (task.credits_used, task.raw["data"]["status"]) == (2.5, "completed")
    assert task.url is not None
    assert task.url.startswith(service.results_url)
    assert len(service.charges) == 1


@pytest.mark.parametrize("key", ["statusCode", "completed", "created_at"])
async def test_a_key_that_is_a_word_of_the_api_loses_no_task(
    service: FakeService, connect: Connect, key: str
) -> None:
    service.api_key = key
    task = await connect(api_key=key).run(SubmitRequest("nano_banana", {"prompt": "a kitten"}))
    assert task.succeeded
    assert task.created_at is not None
    assert task.urls


@pytest.mark.parametrize("length", [190, 195, 199])
async def test_an_excerpt_ends_without_a_part_of_the_key(
    connect: Connect, listen: Listen, length: int
) -> None:
    page = b"<" + b"x" * length + KEY.encode()
    url = await listen(
        lambda _: b"HTTP/1.1 500 No\r\nContent-Length: %d\r\n\r\n" % len(page) + page
    )
    with pytest.raises(AireiterError) as caught:
        await connect(api_key=KEY, base_url=url, retry=ONCE).balance()
    assert "sk-0" not in str(caught.value)
