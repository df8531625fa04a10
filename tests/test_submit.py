"""Submit: exactly one task per ID, whatever happens to the responses."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from aireiter_async import (
    AireiterError,
    AmbiguousSubmitError,
    APIError,
    AsyncClient,
    AuthenticationError,
    ConnectError,
    IDInUseError,
    InsufficientCreditsError,
    InvalidRequestError,
    ProtocolError,
    RateLimitError,
    RetryPolicy,
    ServerError,
    SubmitRequest,
    Task,
    TaskNotFoundError,
    TaskStatus,
    TransportError,
    models,
)
from aireiter_async._client._api import Api, Endpoint
from aireiter_async._client._shared import Clock, Shared
from aireiter_async._client._submission import Submission
from aireiter_async._transport import Transport
from aireiter_async.testing import FakeService, Fault
from tests.faults import AMBIGUOUS
from tests.hostile_time import Clock as VirtualClock
from tests.hostile_time import skip_idle_time

Connect = Callable[..., AsyncClient]
Until = Callable[[Callable[[], object]], Awaitable[None]]
Listen = Callable[..., Awaitable[str]]

SUBMIT, QUERY = "/api/openapi/submit", "/api/openapi/query"
USED_IDS = ["reject", "return", "charge"]
REJECTIONS: dict[int, type[APIError]] = {
    400: InvalidRequestError,
    401: AuthenticationError,
    402: InsufficientCreditsError,
    403: AuthenticationError,
    404: InvalidRequestError,
    422: InvalidRequestError,
    433: InsufficientCreditsError,
}


def request(**options: Any) -> SubmitRequest:
    return SubmitRequest("veo3_1", {"prompt": "a kitten, 小猫"}, **options)


def refusal(code: int, *, in_envelope: bool) -> Fault:
    body = json.dumps({"error": {"code": code, "message": "no, 不"}})
    return Fault.reply(200 if in_envelope else code, body)


def charged(service: FakeService) -> list[str]:
    return [charge.out_task_id for charge in service.charges]


@pytest.mark.parametrize("used_id", ["reject", "return"])
async def test_a_task_that_appears_late_is_charged_once(
    service: FakeService, client: AsyncClient, used_id: Any
) -> None:
    """The second POST, after the ID was not found, has the same ID."""
    service.used_id, service.visible_after_polls = used_id, 4
    service.script("submit", Fault.lost_response(accepted=True))
    task = await client.submit(request())
    assert charged(service) == [task.out_task_id]
    assert service.posts(task.out_task_id) == 2


async def test_where_a_used_id_is_charged_again_resubmitting_can_be_forbidden(
    service: FakeService, connect: Connect
) -> None:
    service.used_id, service.visible_after_polls = "charge", 4
    service.script("submit", Fault.lost_response(accepted=True))
    wanted = request()
    client = connect(retry=RetryPolicy(base=0, settle=0, resubmit=False))
    with pytest.raises(AmbiguousSubmitError):
        await client.submit(wanted)
    assert charged(service) == [wanted.out_task_id]
    assert (await client.submit(wanted, maybe_sent=True)).out_task_id == wanted.out_task_id
    assert charged(service) == [wanted.out_task_id]


@pytest.fixture
async def sent() -> AsyncIterator[tuple[aiohttp.ClientSession, list[tuple[str, bytes]]]]:
    """Run a session that keeps the path and the bytes of each request's body."""
    bodies: list[tuple[str, bytes]] = []

    async def start(_session: Any, _context: Any, params: aiohttp.TraceRequestStartParams) -> None:
        bodies.append((params.url.path, b""))

    async def chunk(
        _session: Any, _context: Any, params: aiohttp.TraceRequestChunkSentParams
    ) -> None:
        path, body = bodies[-1]
        bodies[-1] = path, body + params.chunk

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(start)
    trace.on_request_chunk_sent.append(chunk)
    async with aiohttp.ClientSession(trace_configs=[trace]) as session:
        yield session, bodies


@pytest.mark.parametrize("name", ["lost", "broken JSON", "500"])
async def test_the_second_post_is_the_first_one(
    service: FakeService,
    connect: Connect,
    sent: tuple[aiohttp.ClientSession, list[tuple[str, bytes]]],
    name: str,
) -> None:
    """A submit that is sent again has the same bytes, ID included."""
    session, bodies = sent
    service.script("submit", AMBIGUOUS[name].before)
    wanted = request(callback_url="https://example.com/", metadata={"order": 7})
    await connect(session=session).submit(wanted)
    first, second = [body for path, body in bodies if path == SUBMIT]
    assert first == second
    assert json.loads(first) == {
        "model": "veo3_1",
        "params": {"prompt": "a kitten, 小猫"},
        "out_task_id": wanted.out_task_id,
        "callback_url": "https://example.com/",
        "metadata": {"order": 7},
    }


async def test_a_large_body_is_sent_twice_alike(
    service: FakeService,
    connect: Connect,
    sent: tuple[aiohttp.ClientSession, list[tuple[str, bytes]]],
) -> None:
    """A data URI of 12 MB is sent without a warning, and again the same."""
    session, bodies = sent
    service.script("submit", Fault.lost_response(), Fault.too_many_requests(0))
    image = "data:image/png;base64," + "iVBORw0K" * (12 * 1024 * 1024 // 8)
    await connect(session=session).submit(SubmitRequest("veo3_1", {"image_url": image}))
    first, second, third = [body for path, body in bodies if path == SUBMIT]
    assert len(first) > 12 * 1024 * 1024
    assert first == second == third
    assert len(service.charges) == 1


async def test_the_body_is_fixed_before_the_first_attempt(
    service: FakeService, client: AsyncClient, until: Until
) -> None:
    """Params that the caller changes after the first attempt are sent as they were."""
    params: dict[str, Any] = {"prompt": "first"}
    wanted = SubmitRequest("veo3_1", params)
    service.script("submit", Fault.reply(502, "{", headers={"Retry-After": "0.05"}))
    running = asyncio.create_task(client.submit(wanted))
    await until(lambda: client.stats.retries)
    params["prompt"] = "second"
    await running
    bodies = [seen.body["params"] for seen in service.requests if seen.path == SUBMIT]
    assert bodies == [{"prompt": "first"}, {"prompt": "first"}]


async def test_a_submit_that_cannot_be_queried_is_ambiguous(
    service: FakeService, connect: Connect
) -> None:
    """The error carries the ID and the cause, and there is no second POST."""
    service.script("submit", Fault.lost_response(accepted=True))
    service.script("query", Fault.server_error(), Fault.html(502), Fault.server_error(503))
    wanted = request()
    with pytest.raises(AmbiguousSubmitError, match="could not be queried") as caught:
        await connect(retry=RetryPolicy(base=0, settle=0, attempts=3)).submit(wanted)
    assert caught.value.out_task_id == wanted.out_task_id
    assert type(caught.value.__cause__) is TransportError
    assert service.posts(wanted.out_task_id) == 1
    assert service.scripted("query") == 0


async def test_a_key_rejected_while_settling_is_ambiguous(
    service: FakeService, client: AsyncClient
) -> None:
    """A bad key while settling ends it at once: the task may exist."""
    service.script("submit", Fault.server_error(accepted=True))
    service.script("query", refusal(401, in_envelope=False))
    with pytest.raises(AmbiguousSubmitError) as caught:
        await client.submit(request())
    assert type(caught.value.__cause__) is ServerError
    assert (len(service.charges), service.counts[QUERY]) == (1, 1)


@pytest.mark.parametrize("name", AMBIGUOUS)
async def test_resubmitting_can_be_forbidden(
    service: FakeService, connect: Connect, name: str
) -> None:
    """With resubmit=False what is not found is not sent again."""
    fault = AMBIGUOUS[name]
    service.script("submit", fault.before)
    skip_idle_time()
    client = connect(retry=RetryPolicy(base=0, settle=0, resubmit=False), timeout=20)
    wanted = request()
    with pytest.raises(AmbiguousSubmitError, match="not found") as caught:
        await client.submit(wanted)
    assert caught.value.out_task_id == wanted.out_task_id
    assert isinstance(caught.value.__cause__, fault.error)
    assert service.posts(wanted.out_task_id) == 1
    assert charged(service) == []


async def test_forbidding_does_not_hinder_settling(service: FakeService, connect: Connect) -> None:
    """With resubmit=False an accepted task is found, and a 429 is still retried."""
    service.script("submit", Fault.too_many_requests(0), Fault.lost_response(accepted=True))
    client = connect(retry=RetryPolicy(base=0, settle=0, resubmit=False))
    task = await client.submit(request())
    assert charged(service) == [task.out_task_id]


@pytest.mark.parametrize("in_envelope", [False, True])
@pytest.mark.parametrize("code", REJECTIONS)
async def test_a_rejection_after_ambiguity_is_not_believed(
    service: FakeService, client: AsyncClient, code: int, *, in_envelope: bool
) -> None:
    """A rejection that follows a lost response is settled first: the task had been accepted."""
    service.visible_after_polls = 4
    service.script(
        "submit", Fault.lost_response(accepted=True), refusal(code, in_envelope=in_envelope)
    )
    task = await client.submit(request())
    assert charged(service) == [task.out_task_id]
    assert service.posts(task.out_task_id) == 2
    assert client.stats.settled == 1


@pytest.mark.parametrize("in_envelope", [False, True])
@pytest.mark.parametrize(("code", "kind"), REJECTIONS.items())
async def test_a_settled_rejection_is_believed(
    service: FakeService,
    client: AsyncClient,
    code: int,
    kind: type[APIError],
    *,
    in_envelope: bool,
) -> None:
    """A rejection that follows a lost response is raised once the task was not found either."""
    service.script("submit", Fault.lost_response(), refusal(code, in_envelope=in_envelope))
    wanted = request()
    with pytest.raises(kind) as caught:
        await client.submit(wanted)
    assert (caught.value.code, caught.value.out_task_id) == (code, wanted.out_task_id)
    assert service.posts(wanted.out_task_id) == 2
    assert service.counts[QUERY] == 8
    assert charged(service) == []


async def test_a_rejection_after_ambiguity_that_cannot_be_settled_is_ambiguous(
    service: FakeService, client: AsyncClient
) -> None:
    """A key that is rejected for good after a lost response leaves the submit ambiguous."""
    key = refusal(401, in_envelope=False)
    service.visible_after_polls = 4
    service.script("submit", Fault.lost_response(accepted=True), key)
    service.script("query", *[Fault.ok()] * 4, key)
    with pytest.raises(AmbiguousSubmitError) as caught:
        await client.submit(request())
    assert type(caught.value.__cause__) is AuthenticationError
    assert len(service.charges) == 1


class Played(Api):
    """An API whose submits end one after another as scripted; it knows no task."""

    def __init__(self, *ends: Task | Exception, found: Exception) -> None:
        settings = AsyncClient("sk-test-0123", retry=RetryPolicy(base=0, settle=0))._settings
        super().__init__(Shared(Transport(None), Clock(), 1, None), settings)
        self.ends = list(ends)
        self.found = found
        self.queries = 0

    async def exchange(self, endpoint: Endpoint[Any], *_: Any, **_options: Any) -> Any:
        if endpoint is self.query_endpoint:
            self.queries += 1
            raise self.found
        end = self.ends.pop(0)
        if isinstance(end, Exception):
            raise end
        return end


async def test_a_rejected_connection_after_ambiguity_adds_none() -> None:
    wanted = request()
    accepted = Task(wanted.out_task_id, TaskStatus.PENDING)
    ends = TransportError("lost"), ConnectError("refused"), ConnectError("refused"), accepted
    played = Played(*ends, found=TaskNotFoundError(404, "task not found"))
    assert await Submission(played, wanted).submit() is accepted
    assert played.queries == 4  # all of them after the first


async def test_closed_while_it_is_queried_is_said() -> None:
    """A client that was closed could not ask for a lost submit: it is not that it was not found."""
    played = Played(TransportError("lost"), found=RuntimeError("it is closed"))
    with pytest.raises(AmbiguousSubmitError, match=r"could not be queried \(it is closed\)"):
        await Submission(played, request()).submit()


async def test_a_429_after_ambiguity_is_settled_and_retried(
    service: FakeService, client: AsyncClient
) -> None:
    service.script("submit", Fault.lost_response(), Fault.too_many_requests(0))
    task = await client.submit(request())
    assert charged(service) == [task.out_task_id]
    assert service.posts(task.out_task_id) == 3


@pytest.mark.parametrize("in_envelope", [False, True])
@pytest.mark.parametrize(("code", "kind"), REJECTIONS.items())
async def test_a_rejection_for_good_costs_one_post(
    service: FakeService,
    client: AsyncClient,
    code: int,
    kind: type[APIError],
    *,
    in_envelope: bool,
) -> None:
    """A rejection for good is raised at once, typed, with code and message; nothing is asked."""
    service.script("submit", refusal(code, in_envelope=in_envelope))
    wanted = request()
    with pytest.raises(kind) as caught:
        await client.submit(wanted)
    error = caught.value
    assert (error.code, error.message) == (code, "no, 不")
    assert (error.out_task_id, error.status) == (wanted.out_task_id, 200 if in_envelope else code)
    assert service.counts == {SUBMIT: 1}
    assert client.stats.retries == 0


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault.no_credits(), InsufficientCreditsError),
        (Fault.no_credits(in_envelope=False), InsufficientCreditsError),
        (Fault.bad_request("Invalid aspect_ratio"), InvalidRequestError),
        (Fault.bad_request("Invalid aspect_ratio", in_envelope=False), InvalidRequestError),
        (Fault.reply(200, '{"ok":true,"statusCode":400,"message":"x"}'), InvalidRequestError),
        (Fault.reply(200, '{"success":true,"code":"400","data":{}}'), InvalidRequestError),
    ],
)
async def test_ok_true_is_no_success(
    service: FakeService, client: AsyncClient, fault: Fault, kind: type[APIError]
) -> None:
    """A rejection in a 200 that calls itself ok is a rejection."""
    service.script("submit", fault)
    with pytest.raises(kind):
        await client.submit(request())
    assert service.counts == {SUBMIT: 1}


@pytest.mark.parametrize("in_envelope", [False, True])
@pytest.mark.parametrize("code", [425, 429])
@pytest.mark.parametrize("wait", [None, "0", "0.02", "Thu, 01 Jan 1970 00:00:00 GMT", "soon"])
async def test_a_rate_limited_submit_is_retried(
    service: FakeService,
    client: AsyncClient,
    caplog: pytest.LogCaptureFixture,
    code: int,
    wait: str | None,
    *,
    in_envelope: bool,
) -> None:
    """429 and 425, as HTTP status or in the body, are retried after the wait, without a query."""
    body = json.dumps({"statusCode": code, "message": "slow down", "ok": False})
    headers = {} if wait is None else {"Retry-After": wait}
    service.script("submit", Fault.reply(200 if in_envelope else code, body, headers=headers))
    task = await client.submit(request())
    assert charged(service) == [task.out_task_id]
    assert service.counts == {SUBMIT: 2}
    assert (client.stats.retries, client.stats.rate_limited) == (1, 1)
    assert f"retrying in {'0.02' if wait == '0.02' else '0.00'} s" in caplog.text


@pytest.mark.parametrize("in_envelope", [False, True])
async def test_too_long_a_retry_after_is_raised_at_once(
    service: FakeService, client: AsyncClient, slept: list[float], *, in_envelope: bool
) -> None:
    """A Retry-After beyond max_retry_after is raised, and holds up no other call."""
    service.script("submit", Fault.too_many_requests(121, in_envelope=in_envelope))
    with pytest.raises(RateLimitError) as caught:
        await client.submit(request())
    assert caught.value.retry_after == 121
    assert service.counts == {SUBMIT: 1}
    await client.submit(request())
    assert slept == []


async def test_too_long_a_retry_after_after_ambiguity_is_ambiguous(
    service: FakeService, client: AsyncClient
) -> None:
    """A 503 of a CDN does not say that the task was not accepted."""
    service.script("submit", Fault.reply(503, "<html>", headers={"Retry-After": "7200"}))
    with pytest.raises(AmbiguousSubmitError) as caught:
        await client.submit(request())
    assert isinstance(caught.value.__cause__, ProtocolError)
    assert caught.value.__cause__.retry_after == 7200
    assert service.counts == {SUBMIT: 1, QUERY: 4}


@pytest.mark.parametrize("attempts", [1, 3])
@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault.lost_response(), AmbiguousSubmitError),
        (Fault.server_error(), AmbiguousSubmitError),
        (Fault.no_data(), AmbiguousSubmitError),
        (Fault.too_many_requests(0), RateLimitError),
        (Fault.too_many_requests(in_envelope=True), RateLimitError),
    ],
)
async def test_attempts_are_counted(
    service: FakeService, connect: Connect, attempts: int, fault: Fault, kind: type[AireiterError]
) -> None:
    service.script("submit", *[fault] * 5)
    client = connect(retry=RetryPolicy(base=0, settle=0, attempts=attempts))
    wanted = request()
    with pytest.raises(kind) as caught:
        await client.submit(wanted)
    assert getattr(caught.value, "out_task_id", None) == wanted.out_task_id
    assert service.posts(wanted.out_task_id) == attempts
    assert client.stats.retries == attempts - 1


async def test_a_rejected_connection_is_tried_again(service: FakeService, connect: Connect) -> None:
    await service.close()
    client = connect()
    wanted = request()
    with pytest.raises(ConnectError) as caught:
        await client.submit(wanted)
    assert "nothing was sent" in caught.value.advice
    assert caught.value.out_task_id == wanted.out_task_id
    assert isinstance(caught.value.__cause__, OSError)
    assert (client.stats.requests, client.stats.retries) == (5, 4)


async def test_a_service_that_starts_between_attempts_gets_one_post(
    service: FakeService, connect: Connect, until: Until
) -> None:
    await service.close()
    client = connect(retry=RetryPolicy(base=0, settle=0, attempts=100_000))
    running = asyncio.create_task(client.submit(request()))
    await until(lambda: client.stats.retries)
    await service.start()
    task = await running
    assert charged(service) == [task.out_task_id]
    assert service.counts == {SUBMIT: 1}


async def test_a_name_that_does_not_resolve_is_not_ambiguous(connect: Connect) -> None:
    client = connect(base_url="https://aireiter.invalid")
    with pytest.raises(ConnectError, match=r"aireiter\.invalid"):
        await client.submit(request())
    assert client.stats.requests == 5


async def test_a_connection_that_takes_too_long_is_not_ambiguous(
    connect: Connect, listen: Listen
) -> None:
    """A TLS handshake without a response ends with connect_timeout, as a ConnectError."""
    url = await listen(lambda _: b"")  # a handshake is no request: there is no answer to it
    client = connect(
        base_url=url.replace("http:", "https:"),
        connect_timeout=0.02,
        retry=RetryPolicy(base=0, settle=0, attempts=2),
    )
    with pytest.raises(ConnectError):
        await client.submit(request())
    assert client.stats.requests == 2


@pytest.mark.parametrize("gone", ["service", "client"])
async def test_ambiguity_outlives_what_comes_after(
    service: FakeService, client: AsyncClient, clock: VirtualClock, until: Until, gone: str
) -> None:
    """After a lost response, not even a rejected connection or a closed client makes it certain."""
    clock.held = True
    service.script("submit", Fault.html(502, accepted=True))
    service.visible_after_polls = 4
    wanted = request()
    running = asyncio.create_task(client.with_options(retry=RetryPolicy(settle=0)).submit(wanted))
    await until(lambda: client.stats.retries)
    await (service if gone == "service" else client).close()
    clock.held = False
    with pytest.raises(AmbiguousSubmitError) as caught:
        await running
    assert caught.value.out_task_id == wanted.out_task_id
    kind = TransportError if gone == "service" else RuntimeError
    assert isinstance(caught.value.__cause__, kind)


@pytest.mark.parametrize("envelope", ["plain", "ok", "code", "list"])
async def test_each_envelope_is_an_acceptance(
    service: FakeService, client: AsyncClient, envelope: Any
) -> None:
    """Every documented form of success gives the task, with our ID."""
    service.envelope, service.price = envelope, 2.5
    wanted = request()
    task = await client.submit(wanted)
    assert (task.out_task_id, task.status) == (wanted.out_task_id, TaskStatus.PENDING)
    assert task.estimated_credits == (None if envelope == "list" else 2.5)
    assert service.counts == {SUBMIT: 1}
    assert client.stats.credits_unknown == (envelope == "list")


@pytest.mark.parametrize("used_id", USED_IDS)
async def test_many_at_once_under_every_fault(connect: Connect, used_id: Any) -> None:
    """Of 150 submits at once, a third of them hit by faults, each is charged once."""
    quick = [each for each in AMBIGUOUS.values() if not each.slow]
    faults = [each.make(accepted=accepted) for each in quick for accepted in (True, False)]
    chances = {fault: 0.35 / len(faults) for fault in faults} | {
        Fault.reset().on("query"): 0.05,
        Fault.server_error().on("query"): 0.05,
    }
    async with FakeService(faults=chances, used_id=used_id, seed=7) as service:
        client = connect(
            base_url=service.url,
            max_concurrency=16,
            retry=RetryPolicy(base=0, settle=0, attempts=30),
        )
        wanted = [request() for _ in range(150)]
        tasks = await asyncio.gather(*(client.submit(each) for each in wanted))
        assert [task.out_task_id for task in tasks] == [each.out_task_id for each in wanted]
        assert sorted(charged(service)) == sorted(each.out_task_id for each in wanted)
        assert client.stats.submitted == 150
        assert client.stats.retries > 0
        assert client.stats.settled > 0


@pytest.mark.parametrize("used_id", ["reject", "return"])
async def test_the_same_request_again_is_not_paid_again(
    service: FakeService, client: AsyncClient, used_id: Any
) -> None:
    """Submitting a request a second time, later or at once, charges nothing more."""
    service.used_id = used_id
    wanted = request()
    service.durations = 100
    first = await client.submit(wanted)
    others = await asyncio.gather(
        client.submit(wanted), client.submit(wanted), return_exceptions=True
    )
    assert charged(service) == [wanted.out_task_id]
    if used_id == "return":
        assert all(other == first for other in others)
    else:
        assert [type(other) for other in others] == [IDInUseError] * 2


@pytest.mark.parametrize("used_id", USED_IDS)
@pytest.mark.parametrize("was_accepted", [False, True])
async def test_what_may_have_been_sent_is_queried_first(
    service: FakeService, client: AsyncClient, used_id: Any, *, was_accepted: bool
) -> None:
    """With maybe_sent a task that exists is returned without a POST, and another is submitted."""
    service.used_id = used_id
    wanted = request()
    if was_accepted:
        await client.submit(wanted)
    task = await client.submit(wanted, maybe_sent=True)
    assert (task.out_task_id, task.model) == (wanted.out_task_id, "veo3_1")
    assert charged(service) == [wanted.out_task_id]
    assert service.posts(wanted.out_task_id) == 1
    assert service.requests[-1].path == (QUERY if was_accepted else SUBMIT)


async def test_what_may_have_been_sent_and_is_rejected_is_queried_again(
    service: FakeService, client: AsyncClient
) -> None:
    """With maybe_sent a rejection is settled before it is believed."""
    wanted = request()
    await client.submit(wanted)
    service.visible_after_polls = 4
    task = await client.submit(wanted, maybe_sent=True)
    assert task.out_task_id == wanted.out_task_id
    assert (len(service.charges), service.posts(wanted.out_task_id)) == (1, 2)


@pytest.mark.parametrize("why", ["cannot ask", "may not resubmit"])
async def test_what_may_have_been_sent_and_cannot_be_settled_is_ambiguous(
    service: FakeService, connect: Connect, why: str
) -> None:
    """With maybe_sent nothing is sent while it is not certain, nor where resubmit is False."""
    if why == "cannot ask":
        service.script("query", *[Fault.html(502)] * 5)
    client = connect(retry=RetryPolicy(base=0, settle=0, resubmit=why == "cannot ask"))
    wanted = request()
    with pytest.raises(AmbiguousSubmitError) as caught:
        await client.submit(wanted, maybe_sent=True)
    assert caught.value.out_task_id == wanted.out_task_id
    assert isinstance(caught.value.__cause__, TransportError)
    assert SUBMIT not in service.counts


@pytest.mark.parametrize("accepted", [False, True])
async def test_cancelled_in_flight(
    service: FakeService, connect: Connect, until: Until, *, accepted: bool
) -> None:
    """A submit that is cancelled in flight ends at once and gives slot and connection back."""
    client = connect(max_concurrency=1)
    service.script("submit", Fault.hang(accepted=accepted))
    wanted = request()
    running = asyncio.create_task(client.submit(wanted))
    await until(lambda: service.in_flight)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert client.stats.in_flight == 0
    await until(lambda: service.connections == 0)
    assert (service.posts(wanted.out_task_id), service.counts[QUERY]) == (1, 0)
    assert (await client.submit(request())).status is TaskStatus.PENDING


async def test_options_of_submit_override_the_request(
    service: FakeService, client: AsyncClient
) -> None:
    original = SubmitRequest("brand_new", {"prompt": "?"}, "first", "https://a.example/", {"a": 1})
    task = await client.submit(
        original,
        out_task_id="second",
        channel="plus",
        callback_url="https://b.example/",
        metadata={"b": [1, None]},
    )
    assert (task.out_task_id, task.model) == ("second", "brand_new_plus")
    assert service.requests[0].body == {
        "model": "brand_new_plus",
        "params": {"prompt": "?"},
        "out_task_id": "second",
        "callback_url": "https://b.example/",
        "metadata": {"b": [1, None]},
    }
    assert original.out_task_id == "first"


async def test_a_model_is_submitted(service: FakeService, client: AsyncClient) -> None:
    """An instance of a models class is sent under its name, with an ID drawn for each call."""
    model = models.Seedance15Pro(prompt="a kitten", aspect_ratio="16:9", video_length=5)
    first, second = await client.submit(model), await client.submit(model, out_task_id="mine")
    assert first.model == second.model == "seedance_1_5_pro"
    assert (len(first.out_task_id), second.out_task_id) == (32, "mine")
    assert service.requests[1].body == {
        "model": "seedance_1_5_pro",
        "params": {"prompt": "a kitten", "aspect_ratio": "16:9", "video_length": 5},
        "out_task_id": "mine",
    }


@pytest.mark.parametrize(
    ("options", "kind", "match"),
    [
        ({"out_task_id": "a b"}, ValueError, "out_task_id must be 1 to 64"),
        ({"out_task_id": ""}, ValueError, "out_task_id must be 1 to 64"),
        ({"out_task_id": 5}, TypeError, "out_task_id must be a str"),
        ({"channel": "gold"}, ValueError, "channel"),
        ({"callback_url": "ftp://example.com"}, ValueError, "callback_url must be"),
        ({"metadata": [1]}, TypeError, "metadata must be a mapping"),
        ({"metadata": {"a": float("nan")}}, ValueError, "metadata.a must be a finite number"),
        ({"metadata": {"a": {1, 2}}}, TypeError, "metadata.a must be a JSON value"),
    ],
)
async def test_bad_arguments_are_named_before_anything_is_sent(
    service: FakeService,
    client: AsyncClient,
    options: dict[str, Any],
    kind: type[Exception],
    match: str,
) -> None:
    with pytest.raises(kind, match=match):
        await client.submit(request(), **options)
    assert service.requests == []


@pytest.mark.parametrize("wrong", [b"veo3_1", None, {"model": "veo3_1"}])
async def test_only_requests_are_submitted(
    service: FakeService, client: AsyncClient, wrong: Any
) -> None:
    with pytest.raises(TypeError, match="request must be a SubmitRequest"):
        await client.submit(wrong)
    assert service.requests == []


async def test_retries_are_logged(
    service: FakeService, client: AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    """A retry and a settling are logged at INFO, with the ID."""
    service.script("submit", Fault.lost_response())
    wanted = request()
    await client.submit(wanted)
    told = [
        record.getMessage()
        for record in caplog.records
        if record.name.startswith("aireiter_async.") and record.levelno == logging.INFO
    ]
    assert any(wanted.out_task_id in text and "querying" in text for text in told)
    assert any("attempt 1 of 5 failed" in text for text in told)
