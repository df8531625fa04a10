"""FakeService: everything that can go wrong on purpose."""

import asyncio
import errno
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import pytest

from aireiter_async.testing import FakeService, Fault
from tests.plain_caller import QUERY, SUBMIT, calling, task

Until = Callable[[Callable[[], object]], Awaitable[None]]


either = pytest.mark.parametrize("accepted", [False, True])


@either
async def test_a_response_is_lost(accepted: bool) -> None:  # noqa: FBT001 - a parameter of the test
    async with calling() as caller:
        caller.service.script("submit", Fault.lost_response(accepted=accepted))
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await caller.submit()
        assert len(caller.service.charges) == accepted
        assert caller.service.posts("a") == 1
        assert caller.service.scripted("submit") == 0


@either
async def test_a_connection_is_reset(accepted: bool) -> None:  # noqa: FBT001 - a parameter of the test
    async with calling() as caller:
        caller.service.script("submit", Fault.reset(accepted=accepted))
        with pytest.raises(aiohttp.ClientOSError) as caught:
            await caller.submit()
        assert caught.value.errno == errno.ECONNRESET
        assert len(caller.service.charges) == accepted


@either
async def test_a_request_hangs_until_the_client_goes(accepted: bool, until: Until) -> None:  # noqa: FBT001 - a parameter of the test
    async with calling() as caller:
        service = caller.service
        service.script("submit", Fault.hang(accepted=accepted))
        task = asyncio.create_task(caller.submit())
        await until(lambda: service.in_flight)
        assert len(service.charges) == accepted
        task.cancel()
        await until(lambda: not service.in_flight)
        assert len(service.charges) == accepted


async def test_a_request_hangs_until_the_service_closes(until: Until) -> None:
    async with calling() as caller:
        service = caller.service
        service.script("submit", Fault.hang(), Fault.delay(3600), Fault.drip(3600))
        tasks = [asyncio.create_task(caller.submit(name)) for name in "abc"]
        await until(lambda: service.in_flight == 3)
        await service.close()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, aiohttp.ClientError) for result in results)
    assert service.in_flight == 0


@either
async def test_an_answer_is_delayed(accepted: bool, until: Until) -> None:  # noqa: FBT001 - a parameter of the test
    async with calling() as caller:
        service = caller.service
        service.script(
            "submit",
            Fault.delay(0.001, accepted=accepted),
            Fault.delay(3600, accepted=accepted),
        )
        assert (await caller.submit()).json["data"]["status"] == "pending"
        task = asyncio.create_task(caller.submit("b"))
        await until(lambda: service.in_flight)
        assert ("b" in service.tasks) == accepted
        task.cancel()
        await until(lambda: not service.in_flight)
        assert len(service.charges) == 1 + accepted


async def test_a_body_drips() -> None:
    async with calling() as caller:
        caller.service.script("submit", Fault.drip(0.008), Fault.drip(3600))
        assert (await caller.submit()).json["data"]["status"] == "pending"
        async with caller.open("POST", SUBMIT, json=task("b")) as response:
            piece = await response.content.readany()
            assert 0 < len(piece) < int(response.headers["Content-Length"])
        assert len(caller.service.charges) == 2


@either
async def test_a_body_is_truncated(accepted: bool) -> None:  # noqa: FBT001 - a parameter of the test
    async with calling() as caller:
        caller.service.script("submit", Fault.truncated(accepted=accepted))
        with pytest.raises(aiohttp.ClientPayloadError):
            await caller.submit()
        assert len(caller.service.charges) == accepted


async def test_a_query_is_truncated_halfway_through_its_response() -> None:
    async with calling() as caller:
        await caller.submit()
        whole = (await caller.query()).text
        caller.service.script("query", Fault.truncated())
        async with caller.open("POST", QUERY, json=task()) as response:
            assert int(response.headers["Content-Length"]) == len(whole)
            half = len(whole) // 2
            assert await response.content.readexactly(half) == whole[:half].encode()
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.content.read()


@either
async def test_json_is_broken(accepted: bool) -> None:  # noqa: FBT001 - a parameter of the test
    async with calling() as caller:
        caller.service.script("submit", Fault.broken_json(accepted=accepted))
        reply = await caller.submit()
        assert reply.headers["Content-Type"].startswith("application/json")
        with pytest.raises(ValueError, match="Expecting"):
            json.loads(reply.text)
        assert len(caller.service.charges) == accepted


@either
async def test_data_is_null(accepted: bool) -> None:  # noqa: FBT001 - a parameter of the test
    async with calling() as caller:
        caller.service.script("submit", Fault.no_data(accepted=accepted))
        assert (await caller.submit()).json == {"statusCode": 200, "data": None}
        assert len(caller.service.charges) == accepted


@pytest.mark.parametrize("status", [200, 403, 502])
async def test_html_stands_in_front(status: int) -> None:
    async with calling() as caller:
        caller.service.script("submit", Fault.html(status), Fault.html(status, accepted=True))
        reply = await caller.submit()
        assert reply.status == status
        assert reply.headers["Content-Type"].startswith("text/html")
        assert reply.text.startswith("<!DOCTYPE html>")
        assert caller.service.charges == []
        await caller.submit()
        assert len(caller.service.charges) == 1


@pytest.mark.parametrize("seconds", [None, 0, 2, 0.5])
@pytest.mark.parametrize("in_envelope", [False, True])
async def test_too_many_requests(seconds: float | None, in_envelope: bool) -> None:  # noqa: FBT001 - a parameter of the test
    async with calling() as caller:
        caller.service.script("submit", Fault.too_many_requests(seconds, in_envelope=in_envelope))
        reply = await caller.submit()
    assert reply.status == (200 if in_envelope else 429)
    assert reply.json.get("statusCode", reply.json.get("error", {}).get("code")) == 429
    assert reply.headers.get("Retry-After") == (None if seconds is None else str(seconds))


async def test_retry_after_is_a_date() -> None:
    async with calling() as caller:
        caller.service.script("submit", Fault.too_many_requests(60, as_date=True))
        before = datetime.now(UTC)
        reply = await caller.submit()
        after = datetime.now(UTC)
    date = parsedate_to_datetime(reply.headers["Retry-After"])
    assert before + timedelta(seconds=60) <= date <= after + timedelta(seconds=61)


@pytest.mark.parametrize(
    ("fault", "status", "document"),
    [
        (
            Fault.no_credits(),
            200,
            {"ok": True, "statusCode": 433, "message": "not enough credits", "data": None},
        ),
        (
            Fault.no_credits(in_envelope=False),
            433,
            {"error": {"code": 433, "message": "not enough credits"}},
        ),
        (Fault.bad_request("no"), 200, {"statusCode": 400, "message": "no", "ok": False}),
        (
            Fault.bad_request("no", in_envelope=False),
            400,
            {"statusCode": 400, "message": "no", "ok": False},
        ),
        (
            Fault.bad_request("no", ok=True),
            200,
            {"statusCode": 400, "message": "no", "ok": True},
        ),
        (
            Fault.payment_required(),
            402,
            {
                "error": {
                    "code": 402,
                    "message": "Insufficient account balance, please recharge and try again",
                    "type": "payment_required",
                }
            },
        ),
        (
            Fault.not_found(),
            200,
            {"ok": True, "statusCode": 400, "message": "api task not found", "data": None},
        ),
        (
            Fault.server_error(),
            500,
            {"error": {"code": 500, "message": "Internal server error"}},
        ),
        (
            Fault.server_error(503),
            503,
            {"error": {"code": 503, "message": "Internal server error"}},
        ),
        (Fault.reply(418, "[1]"), 418, [1]),
        (Fault.reply(body=b"{}"), 200, {}),
    ],
)
async def test_a_rejection_is_made_up(fault: Fault, status: int, document: Any) -> None:
    async with calling() as caller:
        caller.service.script("submit", fault)
        reply = await caller.submit()
        assert (reply.status, reply.json) == (status, document)
        assert reply.headers["Content-Type"].startswith("application/json")
        assert caller.service.charges == []


@pytest.mark.parametrize("fault", [Fault.server_error(accepted=True), Fault.reply(accepted=True)])
async def test_an_error_can_hide_an_accepted_task(fault: Fault) -> None:
    async with calling() as caller:
        caller.service.script("submit", fault)
        await caller.submit()
        assert len(caller.service.charges) == 1


async def test_a_reply_has_its_own_headers() -> None:
    async with calling() as caller:
        caller.service.script("query", Fault.reply(200, "x", headers={"Content-Type": "a/b"}))
        reply = await caller.query()
    assert (reply.headers["Content-Type"], reply.text) == ("a/b", "x")


@pytest.mark.parametrize("location", [None, "http://127.0.0.1:1/other"])
async def test_a_redirect_leads_to_another_host(location: str | None) -> None:
    async with calling() as caller:
        caller.service.script("submit", Fault.redirect(location))
        reply = await caller.submit()
        elsewhere = caller.service.results_url + "/api/openapi/submit"
        assert caller.service.charges == []
    assert reply.status == 307
    assert reply.headers["Location"] == (location or elsewhere)
    assert not elsewhere.startswith(caller.service.url)


async def test_a_status_is_replaced() -> None:
    async with calling() as caller:
        caller.service.script("submit", Fault.task_status("submitted"))
        caller.service.script("query", Fault.task_status("reviewing"))
        assert (await caller.submit()).json["data"]["status"] == "submitted"
        data = (await caller.query()).json["data"]
        assert (data["status"], "output" in data) == ("reviewing", False)
        assert (await caller.query()).json["data"]["status"] == "completed"


async def test_a_task_fails_under_the_eyes_of_a_query() -> None:
    async with calling(credits=10, price=4, durations=3600) as caller:
        caller.service.script("query", Fault.failed(), Fault.failed("OTHER", "again"))
        await caller.submit()
        for _ in range(3):
            data = (await caller.query()).json["data"]
            assert data["status"] == "failed"
            assert data["error"] == {"code": "TIMEOUT", "message": "upstream timed out"}
        assert caller.service.credits == 10


async def test_a_script_is_followed_in_order() -> None:
    async with calling() as caller:
        service = caller.service
        service.script("balance", Fault.server_error(), Fault.ok())
        service.script("balance", Fault.server_error(502))
        assert service.scripted("balance") == 3
        await caller.submit()
        seen = [(await caller.balance()).status for _ in range(4)]
    assert seen == [500, 200, 502, 200]


async def test_a_fault_does_not_let_a_bad_request_in() -> None:
    async with calling(credits=0) as caller:
        caller.service.script("submit", Fault.lost_response(accepted=True))
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await caller.submit()
        assert caller.service.charges == []


async def test_chance_repeats_with_its_seed() -> None:
    async def draw(seed: int) -> list[int]:
        faults = {Fault.server_error(): 0.2, Fault.html(502): 0.2}
        async with calling(faults=faults, seed=seed) as caller:
            return [(await caller.balance()).status for _ in range(300)]

    first = await draw(1)
    assert await draw(1) == first
    assert await draw(2) != first
    counts = Counter(first)
    assert 140 < counts[200] < 220
    assert 30 < counts[500] < 90
    assert 30 < counts[502] < 90


async def test_a_fault_can_be_limited_to_an_endpoint() -> None:
    async with calling(faults={Fault.server_error().on("query"): 1.0}) as caller:
        assert (await caller.submit()).status == 200
        assert (await caller.query()).status == 500
        assert (await caller.balance()).status == 200


async def test_failures_by_chance_strike_submits_only() -> None:
    faults = {Fault.failed(): 1.0, Fault.task_status("odd"): 1.0}
    async with calling(faults=faults) as caller:
        assert (await caller.submit()).json["data"]["status"] == "pending"
        assert caller.service.tasks["a"].failure == ("TIMEOUT", "upstream timed out")
        assert (await caller.query()).json["data"]["status"] == "odd"
        assert (await caller.balance()).status == 200


async def test_a_script_goes_before_chance() -> None:
    async with calling(faults={Fault.server_error(): 1.0}) as caller:
        caller.service.script("balance", Fault.ok())
        assert [(await caller.balance()).status for _ in range(2)] == [200, 500]


@pytest.mark.parametrize("chances", [(0.6, 0.6), (-0.1, 0.1), (1.1, 0.0)])
def test_probabilities_must_add_up(chances: tuple[float, float]) -> None:
    faults = dict(zip((Fault.reset(), Fault.hang()), chances, strict=True))
    with pytest.raises(ValueError, match="must be in 0 to 1"):
        FakeService(faults=faults)


def test_a_fault_must_mean_something_where_it_strikes() -> None:
    with pytest.raises(ValueError, match="'failed' cannot occur on 'balance'"):
        FakeService().script("balance", Fault.failed())
    with pytest.raises(ValueError, match="'task_status' cannot occur on 'result'"):
        Fault.task_status("x").on("result")
    with pytest.raises(ValueError, match="'reset' cannot occur on 'query'"):
        FakeService().script("query", Fault.reset().on("submit"))


@pytest.mark.parametrize(
    "use",
    [
        lambda: Fault.reset().on("other"),  # type: ignore[arg-type]
        lambda: FakeService().script("other"),  # type: ignore[arg-type]
        lambda: FakeService().scripted("other"),  # type: ignore[arg-type]
    ],
)
def test_an_endpoint_that_there_is_not_is_rejected(use: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="one of submit, query, balance, result, got 'other'"):
        use()


@pytest.mark.parametrize("mistake", [Fault.reset, "reset", [Fault.reset()], None])
def test_a_script_takes_faults(mistake: Any) -> None:
    service = FakeService()
    with pytest.raises(TypeError, match=r"made by a call such as Fault\.reset\(\), got "):
        service.script("submit", Fault.ok(), mistake)
    assert service.scripted("submit") == 0


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: Fault("rest"), "kind"),  # type: ignore[arg-type]
        (lambda: Fault.delay(-1), "seconds"),
        (lambda: Fault.drip("1"), "seconds"),  # type: ignore[arg-type]
        (lambda: Fault.too_many_requests(-1), "retry_after"),
        (lambda: Fault.reply(20), "http_status"),
        (lambda: Fault.reply(200, {}), "body"),  # type: ignore[arg-type]
    ],
)
def test_a_fault_with_a_bad_argument_is_rejected(make: Callable[[], object], name: str) -> None:
    with pytest.raises((ValueError, TypeError), match=f"'{name}' must be"):
        make()


def test_a_fault_shows_itself_in_short() -> None:
    assert repr(Fault.ok()) == "Fault(kind='pass')"
    assert repr(Fault.reset(accepted=True)) == "Fault(kind='reset', accepted=True)"


def test_faults_are_values() -> None:
    assert {Fault.html(502), Fault.html(502)} == {Fault.html(502)}
    assert Fault.reset(accepted=True) != Fault.reset()
