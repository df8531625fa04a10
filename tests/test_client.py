"""The client: what it owns, what it borrows, what it shares, and when it is no longer of use."""

import asyncio
import copy
import gc
import json
import logging
import pickle
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import attrs
import pytest

from aireiter_async import (
    AmbiguousSubmitError,
    APIError,
    AsyncClient,
    AuthenticationError,
    ClientStats,
    FreeQuota,
    Output,
    PollPolicy,
    ProtocolError,
    RateLimitError,
    RetryPolicy,
    ServerError,
    SubmitRequest,
    TaskFailedError,
    TaskStatus,
    TransportError,
    models,
)
from aireiter_async.testing import FakeService, Fault
from tests.hostile_time import skip_idle_time

Connect = Callable[..., AsyncClient]
Until = Callable[[Callable[[], object]], Awaitable[None]]
Listen = Callable[..., Awaitable[str]]

BALANCE = "/api/openapi/balance"


def request() -> SubmitRequest:
    """Make a request with an ID of its own."""
    return SubmitRequest("veo3_1", {"prompt": "a kitten"})


async def test_one_task_from_submit_to_file(tmp_path: Path) -> None:
    """With the waits of the real world a request becomes a file on disk."""
    async with (
        FakeService() as service,
        AsyncClient(
            service.api_key, base_url=service.url, polling=PollPolicy(first=0, step=0.01)
        ) as client,
    ):
        model = models.Seedance15Pro(prompt="a kitten in the sun", aspect_ratio="16:9")
        task = await client.run(model, timeout=60)
        [path] = await client.download(task, tmp_path)
        assert path.read_bytes()
        assert (await client.balance()).credits == 999_999
        assert len(service.charges) == 1


@pytest.mark.parametrize("envelope", ["plain", "ok", "code", "list"])
async def test_the_balance_is_read(
    service: FakeService, client: AsyncClient, envelope: Any
) -> None:
    """Credits, fractions of them, and free quotas are read from every envelope."""
    service.envelope, service.credits = envelope, 82.625
    service.free_quotas = [
        {"model_key": "nano_banana", "total": 10, "used": 3, "remaining": 7},
        {"model_key": "new"},
    ]
    balance = await client.balance()
    assert balance.credits == 82.625
    assert balance.free_quotas == (FreeQuota("nano_banana", 10, 3, 7), FreeQuota("new"))
    assert balance.raw["data"]["credits"] == 82.625
    assert service.counts == {BALANCE: 1}


@pytest.mark.parametrize("form", ["live", "http", "envelope"])
async def test_a_bad_key_is_named(service: FakeService, connect: Connect, form: Any) -> None:
    """A key that the service rejects is an AuthenticationError, at once, on every endpoint."""
    service.rejection_form = form
    client = connect(api_key="sk-wrong-0a1b2c3d")
    for call in (client.balance(), client.query("a"), client.submit(request()), client.wait("a")):
        with pytest.raises(AuthenticationError) as caught:
            await call
        assert caught.value.code == 401
    assert sum(service.counts.values()) == 4


BALANCE_TROUBLE: dict[str, tuple[Fault, type[Exception]]] = {
    "truncated": (Fault.truncated(), TransportError),
    "broken JSON": (Fault.broken_json(), ProtocolError),
    "HTML 200": (Fault.html(200), ProtocolError),
    "500": (Fault.server_error(), ServerError),
    "no data": (Fault.no_data(), ProtocolError),
    "redirect": (Fault.redirect(), ProtocolError),
    "429": (Fault.too_many_requests(0), RateLimitError),
    "no credits": (Fault.reply(200, '{"statusCode":200,"data":{"credits":"?"}}'), ProtocolError),
}


@pytest.mark.parametrize("name", BALANCE_TROUBLE)
async def test_a_balance_is_retried(service: FakeService, client: AsyncClient, name: str) -> None:
    """A balance that fails in passing is asked for again, and in the end raises what happened."""
    fault, kind = BALANCE_TROUBLE[name]
    service.script("balance", *[fault] * 9)
    with pytest.raises(kind):
        await client.balance()
    assert (await client.balance()).credits == 1_000_000
    assert client.stats.retries == 8


async def test_html_names_its_likely_cause(service: FakeService, connect: Connect) -> None:
    client = connect(base_url=f"{service.url}/wrong/place", retry=RetryPolicy(attempts=1))
    with pytest.raises(ProtocolError, match="base_url is probably wrong") as caught:
        await client.balance()
    assert caught.value.status == 200
    assert caught.value.excerpt.startswith("<!DOCTYPE html>")
    assert len(caught.value.excerpt) <= 200


async def test_the_user_agent_that_the_cdn_rejects_is_named(
    service: FakeService, connect: Connect
) -> None:
    """An HTML 403 names the User-Agent as its likely cause, also where a submit met it."""
    client = connect(user_agent="Python-urllib/3.11")
    with pytest.raises(ProtocolError, match="CDN may have rejected the User-Agent"):
        await client.balance()
    with pytest.raises(ProtocolError, match="User-Agent"):
        await client.submit(request())
    assert service.charges == []


async def test_who_we_are_is_said(service: FakeService, connect: Connect) -> None:
    """The User-Agent is this package's own, or the one given, on every request."""
    await connect().balance()
    await connect(user_agent="my-app/1").run(request())
    names = [seen.headers["User-Agent"] for seen in service.requests]
    assert names[0].startswith("aireiter-async/")
    assert names[1:] == ["my-app/1", "my-app/1"]


async def test_a_base_url_may_have_a_path(connect: Connect, listen: Listen) -> None:
    """The endpoints are below the base URL's own path."""
    heard: list[bytes] = []
    body = b'{"statusCode":200,"data":{"credits":1}}'

    def reply(request: bytes) -> bytes:
        heard.append(request)
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)

    url = await listen(reply)
    assert (await connect(base_url=f"{url}/relay/v1/").balance()).credits == 1
    assert heard[0].startswith(b"GET /relay/v1/api/openapi/balance HTTP/1.1\r\n")


async def test_a_borrowed_session_is_left_as_it_was(service: FakeService, connect: Connect) -> None:
    """A borrowed session works with its own headers and is neither changed nor closed."""
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(
        headers={"X-Mine": "1", "User-Agent": "mine", "Authorization": "Basic bWU6bWU="},
        cookies={"a": "b"},
        cookie_jar=jar,
        timeout=aiohttp.ClientTimeout(total=0.000001),
        raise_for_status=True,
    ) as session:
        before = dict(session.headers), list(jar), session.timeout
        client = connect(session=session)
        async with client:
            await client.run(request())
            service.script("query", Fault.bad_request("Invalid id", in_envelope=False))
            with pytest.raises(APIError, match="Invalid id"):
                await client.query("a")
            service.script("balance", Fault.server_error())
            await client.balance()
        assert not session.closed
        assert (dict(session.headers), list(jar), session.timeout) == before
        seen = service.requests[0]
        assert seen.headers["X-Mine"] == "1"
        assert seen.headers["Authorization"] == f"Bearer {service.api_key}"
        assert seen.headers["User-Agent"].startswith("aireiter-async/")
        with pytest.raises(RuntimeError, match="closed"):
            await client.balance()


async def test_a_borrowed_session_that_does_not_unpack(connect: Connect, listen: Listen) -> None:
    """A packed response is read, whatever a borrowed session does with packed ones."""
    # gzip of {"statusCode":200,"data":{"credits":1}}, with a fixed time.
    import gzip  # noqa: PLC0415 - only here

    body = gzip.compress(b'{"statusCode":200,"data":{"credits":1}}')
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
    url = await listen(lambda _: head + body)
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        assert (await connect(base_url=url, session=session).balance()).credits == 1


async def test_a_borrowed_session_with_few_connections(
    service: FakeService, connect: Connect
) -> None:
    """What queues for a connection of a borrowed session's pool is not taken for one that fails."""
    skip_idle_time()
    service.script("submit", Fault.delay(20, accepted=True))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:
        client = connect(session=session, connect_timeout=5)
        await asyncio.gather(*(client.submit(request()) for _ in range(3)))
        assert client.stats.retries == 0
    assert len(service.charges) == 3


async def test_a_borrowed_session_that_is_closed(service: FakeService, connect: Connect) -> None:
    """A session that its owner has closed is a RuntimeError, and no task may be lost by it."""
    async with aiohttp.ClientSession() as session:
        client = connect(session=session)
    with pytest.raises(RuntimeError, match="closed"):
        await client.balance()
    with pytest.raises(RuntimeError, match="closed"):
        await client.submit(request())
    assert service.requests == []


def test_a_client_belongs_to_one_loop() -> None:
    """A client that is used from a second event loop is a RuntimeError that says what to do."""

    async def ask(client: AsyncClient) -> float:
        async with FakeService() as service:
            return (await client.with_options(base_url=service.url).balance()).credits

    client = AsyncClient("sk-fake-0123456789abcdef")
    with asyncio.Runner() as first, asyncio.Runner() as second:
        assert first.run(ask(client)) == 1_000_000
        with pytest.raises(RuntimeError, match="another event loop: create one per loop"):
            second.run(ask(client))
        assert first.run(ask(client)) == 1_000_000
        first.run(client.close())


async def test_a_closed_client_is_of_no_use(service: FakeService, client: AsyncClient) -> None:
    """After close every verb is a RuntimeError, and nothing is sent."""
    await client.balance()
    await client.close()
    for call in (
        client.balance(),
        client.query("a"),
        client.wait("a"),
        client.submit(request()),
        client.read(Output(url="https://example.com/a.png")),
    ):
        with pytest.raises(RuntimeError, match="this AsyncClient is closed: create a new one"):
            await call
    with pytest.raises(RuntimeError, match="closed"):
        await client.__aenter__()
    assert service.counts == {BALANCE: 1}


async def test_closing_twice_is_nothing(service: FakeService, connect: Connect) -> None:
    """A client may be closed again, and one that was never used too; its connections are gone."""
    client = connect()
    await client.close()
    client = connect()
    async with client:
        await client.balance()
        assert service.connections == 1
    await client.close()


async def test_a_client_needs_no_entry(service: FakeService) -> None:
    """Without "async with" the pool is made at the first call, and close closes it."""
    client = AsyncClient(service.api_key, base_url=service.url)
    assert (await client.balance()).credits == 1_000_000
    await client.close()


async def test_closing_connections(service: FakeService, connect: Connect, until: Until) -> None:
    """Close closes the connections of the pool."""
    client = connect()
    await asyncio.gather(*(client.balance() for _ in range(5)))
    await client.close()
    await until(lambda: service.connections == 0)


async def test_closing_while_busy_tells_everyone(
    service: FakeService, connect: Connect, until: Until
) -> None:
    """Those who wait for a response, or in the queue, are told when the client is closed."""
    client = connect(max_concurrency=2)
    service.script("submit", Fault.hang(accepted=True))
    service.script("balance", Fault.hang())
    wanted = request()
    calls = [
        asyncio.create_task(call)
        for call in (client.submit(wanted), client.balance(), client.query("a"))
    ]
    await until(lambda: service.in_flight == 2 and client.stats.waiting == 1)
    await client.close()
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(ends[0], AmbiguousSubmitError)
    assert ends[0].out_task_id == wanted.out_task_id
    assert [isinstance(end, RuntimeError | TransportError) for end in ends[1:]] == [True, True]


async def test_a_close_that_is_cancelled_closes(
    service: FakeService, connect: Connect, until: Until
) -> None:
    """A close that is cancelled half way still closes the pool."""
    client = connect()
    await client.balance()
    closing = asyncio.create_task(client.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait([closing])
    await until(lambda: service.connections == 0)
    await until(lambda: len(asyncio.all_tasks()) == 1)


async def test_a_client_left_open_is_reported(
    service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    """A client that was used and not closed warns of itself, and says how to close it."""
    client = AsyncClient(service.api_key, base_url=service.url)
    client._shared.transport.open()
    with pytest.warns(ResourceWarning, match="unclosed AsyncClient: use 'async with"):
        del client
    assert str(service.api_key) not in caplog.text


async def test_a_client_that_was_never_opened_is_not_told_of(
    service: FakeService, recwarn: pytest.WarningsRecorder
) -> None:
    """A client without a pool, or with a borrowed one, needs no closing."""
    client = AsyncClient(service.api_key, base_url=service.url)
    del client
    async with aiohttp.ClientSession() as session:
        client = AsyncClient(service.api_key, base_url=service.url, session=session)
        await client.balance()
        del client
        gc.collect()
    assert list(recwarn) == []


async def test_views_share_what_is_costly(service: FakeService, connect: Connect) -> None:
    """A view has options of its own and shares pool, throttle, statistics and what was learned."""
    client = connect(max_concurrency=3)
    view = client.with_options(timeout=5, user_agent="view/1", retry=RetryPolicy(attempts=1))
    assert isinstance(view, AsyncClient)
    assert (view._settings.timeout, client._settings.timeout) == (5, 30)
    assert (view.max_concurrency, client.max_concurrency) == (3, 3)
    assert view._settings.api_key == client._settings.api_key
    await client.balance()
    await view.balance()
    assert service.peak_connections == 1
    assert client.stats == view.stats
    assert client.stats.requests == 2
    assert view._shared is client._shared
    assert [seen.headers["User-Agent"][:5] for seen in service.requests] == ["airei", "view/"]


async def test_a_view_may_have_another_key_and_place(
    service: FakeService, connect: Connect
) -> None:
    """A view's key and base URL are used for its calls only."""
    client = connect()
    async with FakeService(api_key="sk-second-abcdef") as other:
        view = client.with_options(api_key="sk-second-abcdef", base_url=other.url)
        await view.submit(request())
        await client.submit(request())
        assert (len(service.charges), len(other.charges)) == (1, 1)
        assert client.stats.submitted == 2


async def test_closing_a_view_closes_nothing(service: FakeService, connect: Connect) -> None:
    """The client and other views continue when a view is closed; with the client all are closed."""
    client = connect()
    async with client.with_options(timeout=5) as view:
        await view.balance()
    await client.balance()
    await view.balance()
    await client.close()
    with pytest.raises(RuntimeError, match="closed"):
        await view.balance()
    assert service.counts == {BALANCE: 3}


def test_what_a_view_cannot_change() -> None:
    """What views share is rejected with its name, so is what does not exist, or is out of range."""
    client = AsyncClient("sk-test")
    with pytest.raises(ValueError, match="max_concurrency, max_rate are shared by all views"):
        client.with_options(max_rate=5, max_concurrency=5)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="session"):
        client.with_options(session=None)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unknown option: time_out; the options are allow_http"):
        client.with_options(time_out=5)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="timeout"):
        client.with_options(timeout=0)
    with pytest.raises(ValueError, match="unencrypted"):
        client.with_options(base_url="http://aireiter.com")


def test_a_view_keeps_what_it_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A view of a view keeps all options but those given; None asks the environment again."""
    polling, retry = PollPolicy(grace=1), RetryPolicy(attempts=2)
    client = AsyncClient("sk-test", base_url="https://relay.example", user_agent="me", retry=retry)
    view = client.with_options(polling=polling).with_options(timeout=3, connect_timeout=1)
    assert view._settings == attrs.evolve(
        client._settings, polling=polling, timeout=3, connect_timeout=1
    )
    monkeypatch.setenv("AIREITER_API_KEY", "sk-env")
    assert client.with_options(api_key=None)._settings.api_key == "sk-env"


async def test_the_statistics_add_up(
    service: FakeService, client: AsyncClient, tmp_path: Path
) -> None:
    """After a known course of events each number is as expected."""
    service.price = 2.5
    assert client.stats == ClientStats()
    service.script("submit", Fault.lost_response(accepted=True))
    task = await client.run(request())  # a submit, a look to settle it
    service.script("submit", Fault.too_many_requests(0), Fault.failed())
    with pytest.raises(TaskFailedError):
        await client.run(request())  # a submit refused, one accepted, a look
    service.estimates = False
    await client.submit(request())
    [path] = await client.download(task, tmp_path)
    stats = client.stats
    assert attrs.asdict(stats) == {
        "requests": 7,
        "retries": 1,
        "submitted": 3,
        "settled": 1,
        "completed": 1,
        "failed": 1,
        "rate_limited": 1,
        "in_flight": 0,
        "waiting": 0,
        "rate": None,
        "credits_estimated": 2.5,
        "credits_unknown": 2,
        "credits_used": 2.5,
        "bytes_downloaded": path.stat().st_size,
        "estimated_by_model": {task.model: 2.5},
        "used_by_model": {task.model: 2.5},
    }


async def test_the_statistics_are_a_snapshot(client: AsyncClient) -> None:
    """Statistics do not change once they were taken, nor can they be changed."""
    before = client.stats
    await client.balance()
    assert (before.requests, client.stats.requests) == (0, 1)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        before.requests = 5  # type: ignore[misc]


@pytest.mark.parametrize("how", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_client_does_not_travel(how: Callable[[AsyncClient], object]) -> None:
    """A client cannot be pickled or copied: the error says to create one in each process."""
    with pytest.raises(TypeError, match="create one in each process"):
        how(AsyncClient("sk-test-0a1b2c3d"))


async def test_the_headers_of_a_request(service: FakeService, client: AsyncClient) -> None:
    """Requests carry the key as a bearer, and say that JSON goes both ways; a GET has no body."""
    await client.submit(request())
    await client.balance()
    submit, balance = service.requests
    assert submit.headers["Authorization"] == f"Bearer {service.api_key}"
    assert submit.headers["Content-Type"] == "application/json"
    assert submit.headers["Accept"] == "application/json"
    assert "Content-Type" not in balance.headers
    assert (balance.method, balance.body) == ("GET", None)


async def test_a_quiet_client_logs_nothing(
    client: AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Where nothing goes wrong there is nothing in the log."""
    task = await client.run(request())
    assert task.status is TaskStatus.COMPLETED
    ours = [each for each in caplog.records if each.name.startswith("aireiter_async")]
    assert {each.levelno for each in ours} <= {logging.DEBUG}
    assert logging.getLogger("aireiter_async").handlers == []


async def test_unknown_fields_are_kept(service: FakeService, client: AsyncClient) -> None:
    """What this release does not know of a reply is in raw."""
    data = {"status": "pending", "queue": {"position": 7}}
    service.script("submit", Fault.reply(200, json.dumps({"data": data, "trace": "x"})))
    task = await client.submit(request())
    assert task.raw == {"data": data, "trace": "x"}


async def test_stats_tell_the_credits_by_model(service: FakeService, connect: Connect) -> None:
    """What models cost is told apart; a task of which only the ID was known has no model."""
    service.price = {"gpt_4o": 2.5, "nano_banana": 1.0}
    client = connect(polling=PollPolicy(first=0, step=0))
    for model in ("gpt_4o", "nano_banana", "gpt_4o"):
        await client.run(SubmitRequest(model, {"prompt": "a cat"}))
    task = await client.submit(SubmitRequest("nano_banana", {"prompt": "a cat"}))
    await client.wait(task.out_task_id)
    stats = client.stats
    assert stats.estimated_by_model == {"gpt_4o": 5.0, "nano_banana": 2.0}
    assert stats.used_by_model == {"gpt_4o": 5.0, "nano_banana": 1.0, "?": 1.0}
    assert sum(stats.used_by_model.values()) == stats.credits_used


@pytest.mark.parametrize("used_id", ["reject", "return", "charge"])
async def test_the_advice_after_a_lost_response_pays_once(
    service: FakeService, connect: Connect, used_id: Any
) -> None:
    """Who does what an AmbiguousSubmitError says gets the task, and pays nothing more."""
    service.used_id = used_id
    service.script("submit", Fault.lost_response(accepted=True))
    service.script("query", Fault.reset())
    client = connect(retry=RetryPolicy(attempts=1, base=0, settle=0))
    model = models.Seedance15Pro(prompt="a kitten", aspect_ratio="16:9")
    with pytest.raises(AmbiguousSubmitError) as lost:
        await client.submit(model)
    assert "this out_task_id and maybe_sent=True" in lost.value.advice
    with pytest.raises(ValueError, match="give it as out_task_id"):
        await client.submit(model, maybe_sent=True)
    id_ = lost.value.out_task_id
    task = await client.submit(model, out_task_id=id_, maybe_sent=True)
    assert task.out_task_id == id_
    assert [charge.out_task_id for charge in service.charges] == [id_]


async def test_an_error_says_what_it_quotes_once(service: FakeService, connect: Connect) -> None:
    """An error about another error repeats neither its task nor its advice."""
    service.script("submit", Fault.lost_response())
    service.script("query", Fault.reset())
    client = connect(retry=RetryPolicy(attempts=1, base=0, settle=0))
    with pytest.raises(AmbiguousSubmitError) as lost:
        await client.submit(request())
    assert str(lost.value).count(lost.value.out_task_id) == 1
    assert "try again" not in str(lost.value)
