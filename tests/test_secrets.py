"""
The key: in no log, repr, error, traceback or pickle, and on no wire but the API's.
"""

import asyncio
import copy
import io
import json
import logging
import pickle
import warnings
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aireiter_async import (
    AireiterError,
    AsyncClient,
    InvalidRequestError,
    Output,
    RetryPolicy,
    SubmitRequest,
    TransportError,
)
from aireiter_async.testing import FakeService, Fault

Connect = Callable[..., AsyncClient]
Listen = Callable[..., Awaitable[str]]
FindKey = Callable[[BaseException, str], list[str]]

ONCE = RetryPolicy(base=0, settle=0, attempts=1)


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """
    Write all that any logger says to a text.
    """
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
    """
    Raise an error that has a key in some place.
    """
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
    """
    A key in a message, a field, a variable, a cause or a context of an error is found.
    """
    with pytest.raises((ValueError, OSError, AireiterError)) as caught:
        fail(kind)
    assert bool(find_key(caught.value, KEY)) == (kind != "nothing")


async def happen(client: AsyncClient, service: FakeService, directory: Path) -> list[Any]:
    """
    Let everything happen that a client can do, well and badly; return what came of it.
    """
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
        Fault.lost_answer(), Fault.reset(), Fault.truncated(), Fault.broken_json(), Fault.html(200),
        Fault.html(403), Fault.html(502), Fault.server_error(), Fault.no_data(), Fault.hang(),
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
    await attempt(client.submit(SubmitRequest("veo3_1", {"a": float("nan")})))
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
    """
    After everything has happened the key is in no log, value, error, pickle, warning or file.
    """
    asyncio.get_running_loop().set_debug(True)
    key = str(service.api_key)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        things = await happen(connect(retry=ONCE, timeout=0.2), service, tmp_path)
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
    assert "aireiter_async INFO" in log.getvalue()
    assert key not in log.getvalue()
    assert [str(each.message) for each in told] == []
    assert service.leaks == []


async def test_a_reply_that_repeats_the_key_is_kept_without_it(
    connect: Connect, listen: Listen, tmp_path: Path
) -> None:
    """
    Where a relay adds the request to a good answer, the key is not in what is kept of it.
    """

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


async def test_a_message_that_repeats_the_key_is_told_without_it(
    service: FakeService, client: AsyncClient
) -> None:
    """
    A refusal that quotes the key is raised with the rest of its words.
    """
    body = json.dumps({"statusCode": 400, "message": f"no such key: {service.api_key}!"})
    service.script("submit", Fault.reply(400, body))
    with pytest.raises(InvalidRequestError) as caught:
        await client.submit(SubmitRequest("veo3_1", {}))
    assert caught.value.message == "no such key: ***!"


async def test_debugging_the_loop_tells_no_key(
    service: FakeService, connect: Connect, log: io.StringIO
) -> None:
    """
    The loop's debug mode, which shows tasks and their waits, does not show the key.
    """
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0
    client = connect()
    service.script("submit", Fault.lost_answer())
    running = asyncio.create_task(client.submit(SubmitRequest("veo3_1", {})))
    shown = [repr(running)]
    await asyncio.sleep(0)
    shown.append(repr(asyncio.all_tasks()))
    await running
    assert "took" in log.getvalue()
    assert str(service.api_key) not in log.getvalue() + "".join(shown)
