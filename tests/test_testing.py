"""FakeService: its endpoints, its books and what it records."""

import asyncio
import gc
import io
import json
import re
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import attrs
import pytest

from aireiter_async.testing import Charge, FakeService, Fault
from tests.plain_caller import BALANCE, QUERY, SUBMIT, Caller, calling

Until = Callable[[Callable[[], object]], Awaitable[None]]

MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@attrs.define
class Clock:
    """A clock that stands still until it is moved."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_a_submit_is_answered_as_documented() -> None:
    async with calling(price=2.5) as caller:
        reply = await caller.submit("task-1")
    data = reply.json["data"]
    assert reply.status == 200
    assert reply.headers["Content-Type"] == "application/json; charset=utf-8"
    assert MOMENT.fullmatch(data.pop("created_at"))
    assert reply.json | {"data": data} == {
        "ok": True,
        "statusCode": 200,
        "message": "",
        "data": {
            "out_task_id": "task-1",
            "status": "pending",
            "estimated_credits": 2.5,
            "task_id": None,
        },
    }


async def test_estimates_can_be_absent() -> None:
    async with calling(estimates=False) as caller:
        assert "estimated_credits" not in (await caller.submit("a")).json["data"]


async def test_an_estimate_can_be_zero() -> None:
    async with calling(estimates="zero", price=2.5) as caller:
        assert (await caller.submit()).json["data"]["estimated_credits"] == 0
        assert (await caller.query()).json["data"]["credits_used"] == 2.5


async def test_a_query_need_not_repeat_the_id() -> None:
    async with calling(query_ids=False, durations=9) as caller:
        await caller.submit()
        assert (await caller.query()).json["data"].keys() == {"status", "created_at"}


async def test_an_accepted_task_is_charged_once() -> None:
    clock = Clock()
    async with calling(credits=10, price=2.5, clock=clock) as caller:
        await caller.submit("a")
        assert caller.service.charges == [Charge("a", "veo3_1", 2.5, 1000.0)]
        assert caller.service.credits == 7.5
        assert (await caller.balance()).json["data"] == {"credits": 7.5, "free_quotas": []}


async def test_free_quotas_are_shown() -> None:
    quota = {"model_key": "gpt_4o", "total": 3, "used": 1, "remaining": 2}
    async with calling(free_quotas=[quota]) as caller:
        assert (await caller.balance()).json["data"]["free_quotas"] == [quota]


@pytest.mark.parametrize(
    ("price", "expected"),
    [(3, 3), ({"veo3_1": 4.0}, 4), ({"other": 4.0}, 1), (lambda m, p: len(m) + p["n"], 8)],
)
async def test_prices_come_in_three_forms(price: Any, expected: float) -> None:
    async with calling(price=price) as caller:
        reply = await caller.submit("a", params={"n": 2})
    assert reply.json["data"]["estimated_credits"] == expected


async def test_a_task_lives_by_the_clock() -> None:
    clock = Clock()
    async with calling(clock=clock, durations={"veo3_1": 100.0}) as caller:
        await caller.submit("a")
        assert (await caller.query("a")).json["data"].keys() == {
            "out_task_id",
            "status",
            "created_at",
        }
        seen = []
        for moment in (0, 19, 20, 99, 100):
            clock.now = 1000.0 + moment
            seen.append(await caller.status("a"))
        data = (await caller.query("a")).json["data"]
    assert seen == ["pending", "pending", "processing", "processing", "completed"]
    assert data["credits_used"] == 1
    assert MOMENT.fullmatch(data["completed_at"])
    assert data["completed_at"] > data["created_at"]
    assert data["output"] == [{"url": f"{caller.service.results_url}/upload/a/item-0.mp4"}]


async def test_a_model_without_a_duration_is_done_at_once() -> None:
    async with calling(clock=Clock(), durations={"other": 9.0}) as caller:
        await caller.submit("a")
        assert await caller.status("a") == "completed"


async def test_durations_spread_by_seed_and_id() -> None:
    async def durations(seed: int) -> list[float]:
        async with calling(durations=100, spread=0.5, seed=seed) as caller:
            for name in "abc":
                await caller.submit(name)
            return [task.duration for task in caller.service.tasks.values()]

    first = await durations(1)
    assert len(set(first)) == 3
    assert all(50 <= duration <= 150 for duration in first)
    assert await durations(1) == first
    assert await durations(2) != first


async def test_an_unknown_id_is_rejected_in_a_200() -> None:
    async with calling() as caller:
        reply = await caller.query("nobody")
    assert reply.status == 200
    assert reply.json == {
        "ok": True,
        "statusCode": 400,
        "message": "api task not found",
        "data": None,
    }


async def test_a_task_can_become_visible_late() -> None:
    clock = Clock()
    async with calling(clock=clock, visible_after=5) as caller:
        await caller.submit("a")
        clock.now += 4.9
        assert await caller.status("a") == "api task not found"
        clock.now += 0.1
        assert await caller.status("a") == "completed"


async def test_a_task_can_become_visible_after_looks() -> None:
    async with calling(visible_after_polls=2) as caller:
        await caller.submit("a")
        await caller.submit("b")
        seen = [await caller.status(name) for name in "aabaa"]
    assert [word == "completed" for word in seen] == [False, False, False, True, True]


@pytest.mark.parametrize("key", [None, "Bearer wrong", "sk-fake-0123456789abcdef"])
async def test_a_bad_key_is_rejected_as_documented(key: str | None) -> None:
    headers = {"Authorization": key} if key else {}
    nested = {"error": {"code": 401, "message": "Authentication failed, please check your API key"}}
    flat = {"statusCode": 401, "message": "Unauthorized", "ok": False}
    async with calling() as caller:
        for method, path, body in (
            ("POST", SUBMIT, nested),
            ("POST", QUERY, nested),
            ("GET", BALANCE, flat),
        ):
            reply = await caller.call(method, path, headers=headers)
            assert (reply.status, reply.json) == (401, body)
        assert caller.service.rejections[401] == 3


async def test_no_key_lets_any_in() -> None:
    async with calling(api_key=None) as caller:
        assert (await caller.call("GET", BALANCE, headers={})).status == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", SUBMIT),
        ("POST", BALANCE),
        ("POST", "/api/openapi/cancel"),
        ("GET", "/"),
    ],
)
async def test_a_wrong_route_is_marketing(method: str, path: str) -> None:
    async with calling() as caller:
        reply = await caller.call(method, path)
        assert caller.service.counts == {path: 1}
    assert reply.status == 200
    assert reply.headers["Content-Type"] == "text/html; charset=utf-8"
    assert reply.text.startswith("<!DOCTYPE html>")


async def test_urllib_is_turned_away() -> None:
    async with calling() as caller:
        headers = {"User-Agent": "Python-urllib/3.11"}
        reply = await caller.call("GET", BALANCE, headers=headers)
    assert reply.status == 403
    assert "403 Forbidden" in reply.text


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": None}, "Invalid model"),
        ({"model": ""}, "Invalid model"),
        ({"params": None}, "Invalid params"),
        ({"params": []}, "Invalid params"),
        ({"out_task_id": None}, "Invalid out_task_id"),
        ({"out_task_id": ""}, "Invalid out_task_id"),
        ({"out_task_id": "a b"}, "Invalid out_task_id"),
        ({"out_task_id": "a\n"}, "Invalid out_task_id"),
        ({"out_task_id": "x" * 65}, "Invalid out_task_id"),
    ],
)
async def test_a_bad_parameter_is_rejected(fields: dict[str, Any], message: str) -> None:
    async with calling() as caller:
        reply = await caller.submit("a", **fields)
        assert caller.service.charges == []
    assert reply.status == 200
    assert reply.json == {"statusCode": 400, "message": message, "ok": False}


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff"])
async def test_a_body_that_is_no_object_is_rejected(body: bytes) -> None:
    async with calling() as caller:
        reply = await caller.call("POST", SUBMIT, data=body)
        assert reply.json["statusCode"] == 400
        assert caller.service.requests[0].body == ([] if body == b"[]" else None)


async def test_ids_of_64_characters_and_large_bodies_are_accepted() -> None:
    async with calling() as caller:
        params = {"image_url": "x" * 10_000_000}
        body = {"model": "m", "params": params, "out_task_id": "x" * 60 + "_-Z9"}
        # In a file: aiohttp warns of a megabyte in bytes.
        data = io.BytesIO(json.dumps(body).encode())
        reply = await caller.call("POST", SUBMIT, data=data)
    assert reply.json["statusCode"] == 200


@pytest.mark.parametrize(
    ("envelope", "submitted", "asked"),
    [
        ("plain", {"statusCode": 200, "message": ""}, {"statusCode": 200, "message": ""}),
        (
            "ok",
            {"ok": True, "statusCode": 200, "message": ""},
            {"ok": True, "statusCode": 200, "message": ""},
        ),
        ("code", {"code": "200", "success": True}, {"code": "200", "success": True}),
        ("list", {"code": 200}, {"statusCode": 200, "message": ""}),
    ],
)
async def test_each_envelope_has_its_form(
    envelope: str, submitted: dict[str, Any], asked: dict[str, Any]
) -> None:
    async with calling(envelope=envelope) as caller:
        submit, query = (await caller.submit("a")).json, (await caller.query("a")).json
    data = submit.pop("data")
    assert query.pop("data")["status"] == "completed"
    assert (submit, query) == (submitted, asked)
    if envelope == "list":
        assert data == [{"status": "submitted", "task_id": "task_a"}]
    else:
        assert data["status"] == "pending"
        assert data.get("task_id", "absent") == {"ok": None, "code": ""}.get(envelope, "absent")


@pytest.mark.parametrize(
    ("form", "statuses", "codes"),
    [
        ("live", [200, 401, 429, 200], [400, 401, 429, 433]),
        ("http", [400, 401, 429, 433], [400, 401, 429, 433]),
        ("envelope", [200, 200, 200, 200], [400, 401, 429, 433]),
    ],
)
async def test_each_refusal_has_its_form(form: str, statuses: list[int], codes: list[int]) -> None:
    async with calling(
        rejection_form=form, credits=0, max_rate=1, burst=3, clock=Clock()
    ) as caller:
        replies = [
            await caller.submit(""),
            await caller.call("POST", QUERY, headers={}),
        ]
        empty = await caller.submit("a")
        replies += [await caller.submit("a"), empty]
    assert [reply.status for reply in replies] == statuses
    documents = [reply.json for reply in replies]
    assert [doc.get("error", doc).get("code", doc.get("statusCode")) for doc in documents] == codes
    assert replies[2].json == (
        {"statusCode": 429, "message": "Too many requests, please try again later", "ok": False}
        if form == "envelope"
        else {
            "error": {
                "code": 429,
                "message": "Too many requests, please try again later",
                "type": "rate_limit_error",
            }
        }
    )
    assert empty.json == (
        {"error": {"code": 433, "message": "not enough credits"}}
        if form == "http"
        else {"ok": True, "statusCode": 433, "message": "not enough credits", "data": None}
    )


@pytest.mark.parametrize(("used_id", "charges"), [("reject", 1), ("return", 1), ("charge", 2)])
async def test_a_used_id_is_treated_as_chosen(used_id: str, charges: int) -> None:
    async with calling(used_id=used_id, price={"suno": 2.0}) as caller:
        first = (await caller.submit("a")).json
        second = (await caller.submit("a", model="suno")).json
        assert len(caller.service.charges) == charges
        assert caller.service.posts("a") == 2
        assert caller.service.tasks["a"].model == ("suno" if used_id == "charge" else "veo3_1")
    if used_id == "reject":
        assert second == {"statusCode": 400, "message": "out_task_id already exists", "ok": False}
    else:
        assert second["data"]["out_task_id"] == "a"
    assert (second == first) == (used_id == "return")


async def test_options_may_change_while_it_runs() -> None:
    async with calling(credits=0) as caller:
        assert (await caller.submit("a")).json["statusCode"] == 433
        caller.service.credits = 5
        caller.service.envelope = "code"
        assert (await caller.submit("a")).json["code"] == "200"
        assert caller.service.credits == 4


async def test_a_failed_task_is_refunded_when_its_time_is_up() -> None:
    clock = Clock()
    async with calling(credits=10, price=4, durations=60, clock=clock) as caller:
        caller.service.script("submit", Fault.failed("NSFW", "not allowed"))
        await caller.submit("a")
        assert await caller.status("a") == "pending"
        clock.now += 59
        assert caller.service.credits == 6
        clock.now += 1
        assert caller.service.credits == 10
        data = (await caller.query("a")).json["data"]
        assert len(caller.service.charges) == 1
    assert data["status"] == "failed"
    assert data["error"] == {"code": "NSFW", "message": "not allowed"}
    assert "output" not in data


async def test_the_rate_is_a_token_bucket() -> None:
    clock = Clock()
    async with calling(max_rate=2, burst=3, clock=clock) as caller:
        codes = [(await caller.balance()).status for _ in range(4)]
        clock.now += 0.5
        codes += [(await caller.balance()).status for _ in range(2)]
        clock.now += 100
        codes += [(await caller.balance()).status for _ in range(4)]
        assert caller.service.rejections == {429: 3}
    assert codes == [200, 200, 200, 429, 200, 429, 200, 200, 200, 429]


@pytest.mark.parametrize(
    ("form", "pattern"),
    [(None, "None"), ("seconds", "4"), ("date", r"\w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT")],
)
async def test_a_rejected_pace_says_when_to_come_back(form: str | None, pattern: str) -> None:
    async with calling(max_rate=0.3, retry_after=form, clock=Clock()) as caller:
        assert (await caller.balance()).status == 200
        reply = await caller.balance()
    assert reply.status == 429
    assert re.fullmatch(pattern, str(reply.headers.get("Retry-After")))


async def test_requests_are_recorded() -> None:
    async with calling(clock=Clock(5.0)) as caller:
        await caller.submit("a")
        await caller.balance()
        submit, balance = caller.service.requests
    assert (submit.method, submit.path, submit.at) == ("POST", SUBMIT, 5.0)
    assert submit.body == {"model": "veo3_1", "params": {}, "out_task_id": "a"}
    assert submit.headers["authorization"] == f"Bearer {caller.service.api_key}"
    assert str(caller.service.api_key) not in repr(submit)
    assert (balance.method, balance.body) == ("GET", None)


async def test_recording_can_be_off() -> None:
    async with calling(record=False) as caller:
        await caller.submit("a")
        await caller.submit("a")
        await caller.query("a")
        service = caller.service
        assert service.requests == []
        assert service.counts == {"/api/openapi/submit": 2, "/api/openapi/query": 1}
        assert (service.posts("a"), service.posts("b"), len(service.charges)) == (2, 0, 1)


async def test_sockets_and_requests_in_flight_are_counted(until: Until) -> None:
    async with calling() as caller:
        service = caller.service
        service.script("balance", Fault.hang(), Fault.hang())
        hanging = [asyncio.create_task(caller.balance()) for _ in range(2)]
        await until(lambda: service.in_flight == 2)
        await caller.balance()
        assert (service.connections, service.peak_connections) == (3, 3)
        assert (service.in_flight, service.peak_in_flight) == (2, 3)
        for task in hanging:
            task.cancel()
        await until(lambda: service.connections == 1)
        await until(lambda: service.in_flight == 0)
        assert (service.peak_connections, service.peak_in_flight) == (3, 3)


async def test_it_comes_back_where_it_was() -> None:
    async with calling() as caller:
        await caller.submit("a")
        place = caller.service.url, caller.service.results_url
        await caller.service.close()
        with pytest.raises(aiohttp.ClientConnectionError):
            await caller.balance()
        await caller.service.start()
        assert (caller.service.url, caller.service.results_url) == place
        assert await caller.status("a") == "completed"


async def test_it_is_not_started_twice() -> None:
    async with calling() as caller:
        with pytest.raises(RuntimeError, match=f"already running at {caller.service.url}"):
            await caller.service.start()
        assert (await caller.balance()).status == 200


async def test_it_shows_where_it_is() -> None:
    async with calling() as caller:
        await caller.submit()
        url = caller.service.url
        assert repr(caller.service) == f"FakeService(url={url!r}, running=True, charges=1)"
    assert repr(caller.service) == f"FakeService(url={url!r}, running=False, charges=1)"


def test_forgetting_to_close_it_is_told() -> None:
    def forget() -> None:
        asyncio.run(FakeService(separate_results=False).start())
        gc.collect()

    with pytest.warns(ResourceWarning, match="unclosed FakeService: use 'async with', or await"):
        forget()


async def test_it_listens_where_it_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            await FakeService(port=port).start()
    async with FakeService(port=port) as service:
        assert service.url == f"http://127.0.0.1:{port}"


async def test_closing_twice_is_nothing() -> None:
    service = FakeService()
    await service.close()
    await service.start()
    await service.close()
    await service.close()


async def test_closing_while_clients_connect_leaves_nothing() -> None:
    for turns in range(6):
        async with FakeService() as service, aiohttp.ClientSession() as session:
            caller = Caller(service, session)
            tasks = [asyncio.create_task(caller.balance()) for _ in range(20)]
            for _ in range(turns):
                await asyncio.sleep(0)
            await service.close()
            assert service.connections == 0
            await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("envelope", "other"),
        ("rejection_form", "other"),
        ("used_id", "Return"),
        ("estimates", "yes"),
        ("retry_after", 5),
        ("max_rate", 0),
        ("max_rate", "5"),
        ("burst", 0),
        ("outputs", 1.5),
        ("spread", -1),
        ("visible_after", "1"),
        ("visible_after_polls", -1),
        ("port", "80"),
        ("seed", None),
        ("credits", "1"),
        ("price", "1"),
        ("durations", (1, 2)),
        ("clock", 5),
        ("api_key", 5),
        ("results_ssl", True),
        ("callbacks", "soon"),
        ("callbacks", ()),
        ("faults", [Fault.reset()]),
        ("faults", {"reset": 0.1}),
        ("faults", {Fault.reset: 0.1}),
        ("faults", {Fault.reset(): "5%"}),
        ("faults", None),
    ],
)
def test_a_bad_option_is_rejected(name: str, value: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=name.removeprefix("_")):
        FakeService(**{name: value})


def test_a_bad_option_is_rejected_when_it_is_assigned() -> None:
    service = FakeService()
    with pytest.raises(ValueError, match="'used_id' must be in"):
        service.used_id = "again"  # type: ignore[assignment]
    assert service.used_id == "reject"
