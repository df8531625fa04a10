"""The short path: taken where it can be, its connections clean, and closed when idle."""

import asyncio
import json
import select
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp.client_proto import ResponseHandler

from aireiter_async import AsyncClient, ConnectError, RetryPolicy, SubmitRequest, Task
from aireiter_async._transport import _leases
from aireiter_async._transport._leases import Leases
from aireiter_async.testing import FakeService, Fault
from tests.hostile_wire import Peer, whole

Connect = Callable[..., AsyncClient]
Until = Callable[[Callable[[], object]], Awaitable[None]]

KEY = "sk-test-0a1b2c3d4e5f"
ONCE = RetryPolicy(base=0, settle=0, attempts=1)
PENDING = whole(b'{"statusCode":200,"data":{"status":"pending","credits":2.5}}')


async def submit(client: AsyncClient) -> Task:
    """Submit a task."""
    return await client.submit(SubmitRequest("veo3_1", {}))


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what the log says of the path."""
    messages = [each.getMessage() for each in caplog.records]
    return [text.partition(": ")[2] for text in messages if text.startswith("connect to ")]


async def test_the_short_path_is_taken(
    client: AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    """With this aiohttp it is: a silent fall-back would cost half of the speed."""
    transport = client._shared.transport
    assert transport.path is None
    await submit(client)
    await client.query(await submit(client))
    assert transport.path == "short"
    assert logged(caplog) == ["requests take the short path"]


class NeverClean(ResponseHandler):
    """Is never to be used again."""

    @property
    def should_close(self) -> bool:
        return True


class AlwaysClean(ResponseHandler):
    """Does not mind bytes that nobody has asked for."""

    @property
    def should_close(self) -> bool:
        return False


class OtherBodies(ResponseHandler):
    """Gives bodies that are not at hand."""

    async def read(self) -> Any:
        message, _ = await super().read()
        return message, aiohttp.StreamReader(self, 1, loop=asyncio.get_running_loop())


@pytest.mark.parametrize("kind", [NeverClean, AlwaysClean, OtherBodies, object])
async def test_an_aiohttp_that_behaves_otherwise(
    monkeypatch: pytest.MonkeyPatch,
    service: FakeService,
    client: AsyncClient,
    caplog: pytest.LogCaptureFixture,
    kind: type,
) -> None:
    """The self-check falls back to aiohttp's session, once for all."""
    monkeypatch.setattr(_leases, "ResponseHandler", kind)
    for _ in range(2):
        await client.query(await submit(client))
    assert client._shared.transport.path == "session"
    assert logged(caplog) == ["requests take the session path: this aiohttp is not supported"]
    assert len(service.charges) == 2


class NoMiddlewares:
    """A session that sends what it should only make."""

    closed = False

    async def request(self, *_: object, **__: object) -> "NoMiddlewares":
        return self

    def close(self) -> None:
        self.closed = True


async def test_an_aiohttp_that_ignores_middlewares(client: AsyncClient) -> None:
    session: Any = NoMiddlewares()
    leases = Leases(session, keepalive=1)
    assert (
        await leases.make_template(
            client._shared.transport.route(
                "POST", "http://h/", headers={}, timeout=1, connect_timeout=1
            )
        )
        is None
    )
    assert session.closed


async def test_a_header_that_could_not_be_sent(client: AsyncClient) -> None:
    """What no header may hold is left to aiohttp to refuse."""
    transport = client._shared.transport
    route = transport.route(
        "POST", "http://127.0.0.1/", headers={"X": "a\r\nY: b"}, timeout=1, connect_timeout=1
    )
    assert await Leases(transport.open(), keepalive=1).make_template(route) is None


async def test_a_proxy_takes_aiohttps_session(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    async with Peer() as proxy:
        client = connect(base_url="http://h.invalid", allow_http=True, proxy=proxy.url)
        proxy.answer(PENDING)
        await submit(client)
        assert client._shared.transport.path == "session"
        assert logged(caplog) == ["requests take the session path: there is a proxy"]


async def test_idle_connections_are_closed_in_time(
    monkeypatch: pytest.MonkeyPatch, service: FakeService, client: AsyncClient, until: Until
) -> None:
    """Neither used nor kept after the keep-alive time; the test calls the sweep at its own time."""
    now = 1000.0
    monkeypatch.setattr(_leases, "time", lambda: now)
    await asyncio.gather(submit(client), submit(client), submit(client))
    leases = client._shared.transport._leases
    assert leases is not None
    assert service.connections == service.peak_connections == 3
    now += 6
    await submit(client)
    now += 7
    leases._sweep()
    await until(lambda: service.connections == 1)
    assert leases._timer is not None
    leases._timer.cancel()
    now += 6
    await submit(client)  # over a new one: the other is too old
    await until(lambda: service.connections == 1)
    assert service.peak_connections == 3
    now += 13
    leases._timer.cancel()
    leases._sweep()
    await until(lambda: service.connections == 0)
    assert leases._timer is None


async def test_the_last_used_connection_is_used_first(
    service: FakeService, client: AsyncClient
) -> None:
    await asyncio.gather(*(submit(client) for _ in range(4)))
    for _ in range(10):
        await submit(client)
    assert service.peak_connections == 4
    leases = client._shared.transport._leases
    assert leases is not None
    [idle] = leases._idle.values()
    assert len({each.since for each in list(idle)[:3]}) <= 3
    assert idle[-1].since == max(each.since for each in idle)


@pytest.mark.parametrize("poll", [True, False])
async def test_a_stale_connection_costs_nothing(
    monkeypatch: pytest.MonkeyPatch, service: FakeService, connect: Connect, *, poll: bool
) -> None:
    """A connection that the service has closed is not used, even before the loop knows."""
    if not poll:
        monkeypatch.delattr(select, "poll")
    client = connect(retry=ONCE)
    await submit(client)
    await service.close()
    await service.start()
    await submit(client)
    assert len(service.charges) == 2


async def test_a_connection_that_closes_as_it_is_made(
    monkeypatch: pytest.MonkeyPatch, service: FakeService, connect: Connect
) -> None:
    """Nothing was sent: a ConnectError."""
    client = connect(retry=ONCE)
    connector = client._shared.transport.open().connector
    assert connector is not None
    real = connector.connect

    async def closing(*args: Any) -> aiohttp.connector.Connection:
        connection = await real(*args)
        assert connection.transport is not None
        connection.transport.close()
        return connection

    monkeypatch.setattr(connector, "connect", closing)
    with pytest.raises(ConnectError, match="closing transport"):
        await submit(client)
    assert service.charges == []


async def test_a_connect_takes_its_time_at_most(
    monkeypatch: pytest.MonkeyPatch, connect: Connect
) -> None:
    """A name that is never resolved is a ConnectError after connect_timeout."""

    async def never(*_: object, **__: object) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", never)
    client = connect(base_url="https://h.invalid", connect_timeout=0.01, retry=ONCE)
    with pytest.raises(ConnectError, match="no connection in time"):
        await submit(client)
    assert client._shared.transport.path == "short"


class Doubling(asyncio.Protocol):
    """A service that answers with the body of the request, and the second request twice.

    Args:
        names: Whether its responses name their task.
        turns: Turns of the loop after which the second of the two is sent.
    """

    requests = 0
    connections = 0

    def __init__(self, *, names: bool, turns: int) -> None:
        self._names = names
        self._turns = turns
        type(self).connections += 1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        type(self).requests += 1
        asked = json.loads(data.partition(b"\r\n\r\n")[2])["out_task_id"]
        named = {"out_task_id": asked} if self._names else {}
        body = {"statusCode": 200, "data": {"status": "pending", "asked": asked, **named}}
        answer = whole(json.dumps(body).encode())
        if type(self).requests == 2:
            if self._turns == 0:
                answer *= 2
            else:
                self._send_later(answer, self._turns)
        self._transport.write(answer)

    def _send_later(self, answer: bytes, turns: int) -> None:
        if turns == 0:
            self._transport.write(answer)
        else:
            asyncio.get_running_loop().call_soon(self._send_later, answer, turns - 1)


@pytest.mark.parametrize("names", [True, False], ids=["named", "unnamed"])
@pytest.mark.parametrize("turns", range(4))
async def test_a_response_that_comes_twice(*, names: bool, turns: int) -> None:
    """The connection is closed at a response that is another task's or precedes its request."""

    class Service(Doubling):
        pass

    server = await asyncio.get_running_loop().create_server(
        lambda: Service(names=names, turns=turns), "127.0.0.1", 0
    )
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    retry = RetryPolicy(base=0, settle=0)
    async with AsyncClient(KEY, base_url=url, max_concurrency=1, retry=retry) as client:
        ids = [f"task-{number}" for number in range(40)]
        told = [(await client.query(each)).raw["data"]["asked"] for each in ids]
    server.close()
    wrong = sum(a != b for a, b in zip(ids, told, strict=True))
    # Nothing shows that a response which comes during another task's request is not for that.
    assert wrong <= (not names and turns == 3)
    assert 2 <= Service.connections <= 3


@pytest.mark.parametrize("lent", [False, True], ids=["owned", "lent"])
async def test_a_response_of_another_task_closes_all_idle_connections(
    service: FakeService, connect: Connect, until: Until, *, lent: bool
) -> None:
    """Those that are leased, that is: aiohttp's own cannot be closed one by one."""
    async with aiohttp.ClientSession() as session:
        client = connect(session=session if lent else None)
        tasks = await asyncio.gather(*(submit(client) for _ in range(3)))
        other = json.dumps(
            {"statusCode": 200, "data": {"status": "pending", "out_task_id": "another"}}
        )
        service.script("query", Fault.reply(200, other))
        assert (await client.query(tasks[0])).out_task_id == tasks[0].out_task_id
        await until(lambda: service.connections == (3 if lent else 1))
