"""FakeService beyond the endpoints: a client of its own, checks, charges, https, callbacks."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
from aiohttp import web

from aireiter_async import InvalidRequestError, SubmitRequest, models
from aireiter_async.testing import FakeService, Fault
from aireiter_async.testing._program import _parser
from tests.plain_caller import SUBMIT, Caller, calling, task

Until = Callable[[Callable[[], object]], Awaitable[None]]


class Receiver:
    """A server that keeps the callbacks it gets."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.bodies: list[Any] = []
        self.url = ""

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        self.bodies.append(await request.json())
        return web.Response(status=self.status)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver(204)
    runner = web.ServerRunner(web.Server(receiver))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield receiver
    await runner.cleanup()


async def submit(caller: Caller, name: str, url: str) -> None:
    assert (await caller.submit(name, callback_url=url)).status == 200


async def test_a_client_of_its_own_polls_at_once() -> None:
    async with FakeService() as service, service.client() as client:
        task = await client.run(models.NanoBanana(prompt="a cat"))
        assert task.succeeded
        assert len(service.requests) == 2
        service.script("submit", Fault.server_error())
        await client.run(models.NanoBanana(prompt="a cat"))
    assert len(service.charges) == 2


async def test_a_client_of_its_own_takes_options_and_any_key() -> None:
    async with FakeService(api_key=None) as service, service.client(max_concurrency=3) as client:
        assert client.max_concurrency == 3
        assert (await client.balance()).credits == 1_000_000


async def test_a_client_of_its_own_goes_around_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    async with FakeService() as service, service.client() as client:
        await client.balance()


async def test_a_completed_task_shows_its_request() -> None:
    params = {"prompt": "p"}
    async with calling(durations={"slow": 3600}) as caller:
        await caller.submit("a", params=params)
        data = (await caller.query("a")).json["data"]
        assert data["task_id"] == "order_00000001"
        assert data["input"] == {"model": "veo3_1", "params": params}
        await caller.submit("b", model="slow")
        assert not {"task_id", "input"} & (await caller.query("b")).json["data"].keys()
    async with calling(record=False) as caller:
        await caller.submit("a")
        assert "input" not in (await caller.query("a")).json["data"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": "seedance_2"}, "Invalid model: no model is called 'seedance_2'; did you mean "),
        ({"params": {}}, "Invalid prompt: is required"),
        (
            {"params": {"prompt": 5, "aspect_ratio": "1:1"}},
            "Invalid prompt: must be a string, got 5; Invalid aspect_ratio: must be one of ",
        ),
        ({"params": {"prompt": "p", "image_url": "http://localhost/a"}}, "Invalid image_url: must"),
    ],
)
async def test_models_can_be_checked(fields: dict[str, Any], message: str) -> None:
    async with calling(check_models=True) as caller:
        reply = await caller.submit("a", **fields)
        assert reply.json["statusCode"] == 400
        assert reply.json["message"].startswith(message)
        assert caller.service.charges == []


async def test_results_of_the_service_itself_pass_the_check() -> None:
    """They are on loopback, which no real service could reach."""
    async with FakeService(check_models=True) as service, service.client() as client:
        first = await client.run(models.NanoBanana(prompt="a cat"))
        for params in ({"image_url": [first.url]}, {"image_url": f"{service.url}/upload/x.png"}):
            body = task("b", model="nano_banana", params={"prompt": "p", **params})
            async with aiohttp.ClientSession() as session:
                caller = Caller(service, session)
                assert "data" in (await caller.call("POST", SUBMIT, json=body)).json
            service._account.tasks.pop("b")
        with pytest.raises(InvalidRequestError, match="Invalid model: no model is called 'other'"):
            await client.submit(SubmitRequest("other", {"prompt": "p"}))


async def test_charges_can_be_seen_from_other_processes() -> None:
    async with calling(credits=10, price=2.5) as caller:
        await caller.submit("a")
        reply = await caller.call("GET", "/_fake/charges", headers={})
        at = caller.service.charges[0].at
        assert len(caller.service.requests) == 1
    assert reply.json == {
        "charges": [{"out_task_id": "a", "model": "veo3_1", "credits": 2.5, "at": at}],
        "charged": 2.5,
        "credits": 7.5,
    }


async def test_results_can_be_served_over_https(tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with (
        FakeService(results_ssl=context, separate_results=False) as service,
        service.client(ssl=trusting) as client,
    ):
        task = await client.run(models.NanoBanana(prompt="a cat"))
        assert str(task.url).startswith("https://127.0.0.1:")
        (path,) = await client.download(task, tmp_path)
        assert path.read_bytes().startswith(b"\x89PNG")


async def test_a_few_pictures_are_animated() -> None:
    """One of 25, as APNG: a viewer that does not know it shows the first frame."""
    animated: list[int] = []
    async with FakeService(durations=0) as service, service.client() as client:
        for number in range(1, 51):
            task = await client.run(models.NanoBanana(prompt="a cat"))
            content = await client.read(task.outputs[0])
            assert content.count(b"IDAT") == 1
            assert content.endswith(b"IEND\xaeB`\x82")
            if b"acTL" in content:
                animated.append(number)
                assert content.index(b"acTL") < content.index(b"fcTL") < content.index(b"IDAT")
                assert (content.count(b"fcTL"), content.count(b"fdAT")) == (8, 7)
    assert animated == [25, 50]


@pytest.mark.parametrize(
    ("callbacks", "expected"),
    [
        ("once", ["a", "b", "c"]),
        (["once", "never"], ["a", "c"]),
        ("twice", ["a", "a", "b", "b", "c", "c"]),
        ("never", []),
        ("early", ["a", "b", "c"]),
    ],
)
async def test_callbacks_come_as_chosen(
    callbacks: Any, expected: list[str], receiver: Receiver, until: Until
) -> None:
    async with calling(callbacks=callbacks) as caller:
        for name in "abc":
            await submit(caller, name, receiver.url)
        await until(lambda: len(caller.service.callbacks_sent) == len(expected))
        sent = caller.service.callbacks_sent
    assert sorted(body["out_task_id"] for body in receiver.bodies) == expected
    assert {body["status"] for body in receiver.bodies} <= {"completed"}
    assert {(callback.url, callback.status) for callback in sent} <= {(receiver.url, 204)}


async def test_an_early_callback_comes_before_the_response(receiver: Receiver) -> None:
    async with calling(callbacks="early", durations=3600) as caller:
        caller.service.script("submit", Fault.hang(accepted=True))
        waiting = asyncio.create_task(submit(caller, "a", receiver.url))
        while not receiver.bodies:  # noqa: ASYNC110 - only turns the loop
            await asyncio.sleep(0)
        assert receiver.bodies[0]["status"] == "pending"
        assert not waiting.done()
        waiting.cancel()


async def test_a_callback_waits_for_the_end_by_the_clock(receiver: Receiver, until: Until) -> None:
    now = 0.0
    async with calling(
        clock=lambda: now, durations=100, callbacks=["once", "late"], callback_delay=50
    ) as caller:
        for name in "ab":
            await submit(caller, name, receiver.url)
        assert receiver.bodies == []
        for now, count in ((100.0, 1), (150.0, 2)):  # noqa: B007 - the clock reads it
            await until(lambda: len(receiver.bodies) == count)  # noqa: B023 - awaited here
        assert [body["out_task_id"] for body in receiver.bodies] == ["a", "b"]
        await submit(caller, "c", receiver.url)
    assert len(receiver.bodies) == 2


async def test_a_callback_that_nobody_takes_is_recorded(until: Until) -> None:
    async with calling() as caller:
        for url in ("http://127.0.0.1:9/", "not a URL"):
            await submit(caller, str(len(url)), url)
        await until(lambda: len(caller.service.callbacks_sent) == 2)
        assert {each.status for each in caller.service.callbacks_sent} == {None}


async def test_a_callback_names_its_task_even_if_queries_do_not(
    receiver: Receiver, until: Until
) -> None:
    async with calling(query_ids=False) as caller:
        await submit(caller, "a", receiver.url)
        await until(lambda: receiver.bodies)
    assert receiver.bodies[0]["out_task_id"] == "a"


async def test_a_task_that_is_returned_again_is_called_back_once(
    receiver: Receiver, until: Until
) -> None:
    async with calling(used_id="return") as caller:
        for _ in range(2):
            await submit(caller, "a", receiver.url)
        await until(lambda: caller.service.callbacks_sent)
    assert len(receiver.bodies) == 1


def test_the_program_has_the_options_of_the_class() -> None:
    given = _parser().parse_args(
        [
            *("--no-separate-results", "--check-models", "--no-query-ids"),
            *("--price", '{"veo3_1": 4}', "--durations", "2.5", "--estimates", "zero"),
            *("--max-rate", "5", "--burst", "null", "--retry-after", "date", "--api-key", "123456"),
            *("--callbacks", "once", "never", "--fault", "html-200@query=0.5"),
        ]
    )
    options = vars(given)
    faults = dict(options.pop("fault"))
    assert faults == {Fault.html(200).on("query"): 0.5}
    assert options.pop("results_cert") is None
    service = FakeService(**options, faults=faults)
    assert service.price == {"veo3_1": 4}
    assert (service.durations, service.estimates, service.burst) == (2.5, "zero", None)
    assert (service.separate_results, service.check_models, service.query_ids) == (
        False,
        True,
        False,
    )
    assert (service.api_key, service.retry_after) == ("123456", "date")
    assert list(service.callbacks) == ["once", "never"]
    text = _parser().format_help()
    assert "--visible-after-polls" in text
    assert "The number of queries for a task that do not find it" in text
