"""OpenTelemetry: the spans and metrics of a client, alone and with aiohttp's instrumentation."""

import asyncio
import gc
import json
import logging
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from attrs import define
from opentelemetry import trace
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from aireiter_async import (
    AsyncClient,
    DownloadError,
    IDInUseError,
    InsufficientCreditsError,
    Output,
    PollPolicy,
    RetryPolicy,
    SubmitRequest,
    Task,
    TaskFailedError,
    TaskTimeoutError,
    telemetry,
)
from aireiter_async.testing import FakeService, Fault
from tests.hostile_time import Clock

Connect = Callable[..., AsyncClient]
Until = Callable[[Callable[[], object]], Awaitable[None]]

ROOT = Path(__file__).parent.parent
SETTLING = RetryPolicy(base=0, settle=10)


@define
class Recorded:
    """What was exported."""

    tracer_provider: TracerProvider
    meter_provider: MeterProvider
    exporter: InMemorySpanExporter
    reader: InMemoryMetricReader

    def instrument(self, client: AsyncClient) -> Callable[[], None]:
        return telemetry.instrument(
            client, tracer_provider=self.tracer_provider, meter_provider=self.meter_provider
        )

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self.exporter.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]

    def attributes(self, name: str) -> dict[str, Any]:
        """Return the attributes of the only span of that name, without our prefix."""
        [span] = self.named(name)
        return {key.removeprefix("aireiter."): value for key, value in attributes(span).items()}

    def tree(self) -> Counter[str]:
        """Return how often which span is in which."""
        names = {context_of(span).span_id: span.name for span in self.spans}
        return Counter(
            f"{names.get(span.parent.span_id, 'the caller') if span.parent else '-'} > {span.name}"
            for span in self.spans
        )

    def metrics(self) -> dict[str, list[tuple[dict[str, Any], float]]]:
        """Return the points of each metric: attributes, and value or sum."""
        data = self.reader.get_metrics_data()
        found: dict[str, list[tuple[dict[str, Any], float]]] = {}
        for metric in data.resource_metrics[0].scope_metrics[0].metrics if data else ():
            found[metric.name] = [
                (dict(point.attributes or {}), getattr(point, "value", getattr(point, "sum", 0)))
                for point in metric.data.data_points
            ]
        return found


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def context_of(span: ReadableSpan) -> trace.SpanContext:
    context = span.get_span_context()
    assert context is not None
    return context


def happened(span: ReadableSpan) -> list[str]:
    return [event.name.removeprefix("aireiter.") for event in span.events]


def request(prompt: str = "a kitten") -> SubmitRequest:
    return SubmitRequest("veo3_1", {"prompt": prompt})


@pytest.fixture
def recorded(caplog: pytest.LogCaptureFixture) -> Iterator[Recorded]:
    """Record spans and metrics; in the end, OpenTelemetry has had nothing to complain of."""
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracer_provider = TracerProvider()
    tracer_provider.add_span_processor(SimpleSpanProcessor(exporter))
    meter_provider = MeterProvider(metric_readers=[reader])
    yield Recorded(tracer_provider, meter_provider, exporter, reader)
    assert trace.get_current_span() is trace.INVALID_SPAN
    tracer_provider.shutdown()
    meter_provider.shutdown()
    ours = ("opentelemetry", "aireiter_async.events")
    complaints = [each for each in caplog.records if each.name.startswith(ours)]
    assert [each.getMessage() for each in complaints if each.levelno > logging.INFO] == []


@pytest.fixture
def instrumented(recorded: Recorded) -> Iterator[Recorded]:
    """Instrument aiohttp as well."""
    instrumentor = AioHttpClientInstrumentor()
    instrumentor.instrument(
        tracer_provider=recorded.tracer_provider,
        url_filter=lambda url: str(url.with_query(None)),  # as the documentation says
    )
    yield recorded
    instrumentor.uninstrument()


async def test_the_spans_of_one_task(
    service: FakeService, client: AsyncClient, recorded: Recorded, tmp_path: Path
) -> None:
    service.price = 2.5
    recorded.instrument(client)
    task = await client.run(request())
    await client.download(task, tmp_path)
    assert await client.read(task.outputs[0])
    assert recorded.tree() == {
        "aireiter.run > aireiter.submit": 1,
        "aireiter.run > aireiter.wait": 1,
        "- > aireiter.run": 1,
        "- > aireiter.download": 2,
    }
    expected = {
        "task.id": task.out_task_id,
        "task.status": "completed",
        "model": "veo3_1",
        "credits.estimated": 2.5,
        "credits.used": 2.5,
        "attempts": 1,
        "polls": 1,
        "queue.duration": 0,
        "backoff.duration": 0,
        "settle.duration": 0,
    }
    assert recorded.attributes("aireiter.run") == expected
    assert recorded.attributes("aireiter.wait") == expected | {"attempts": 0}
    submit = expected | {"polls": 0, "task.status": "pending"}
    del submit["credits.used"]
    assert recorded.attributes("aireiter.submit") == submit
    download, read = recorded.named("aireiter.download")
    assert happened(download) == ["attempt", "downloaded"]
    assert happened(read) == ["attempt"]
    assert attributes(download)["aireiter.task.id"] == task.out_task_id
    assert {span.status.status_code for span in recorded.spans} == {trace.StatusCode.UNSET}
    assert {span.kind for span in recorded.spans} == {trace.SpanKind.INTERNAL}


async def test_the_time_of_a_task_is_explained(
    service: FakeService, connect: Connect, recorded: Recorded, clock: Clock
) -> None:
    """Queue, Retry-After, settling and polls: together they are what the call took."""
    client = connect(retry=SETTLING, max_rate=0.5, polling=PollPolicy(first=0, step=0, grace=0))
    recorded.instrument(client)
    service.script("submit", Fault.too_many_requests(7), Fault.lost_response(accepted=True))
    service.script(
        "query", Fault.not_found(), Fault.task_status("processing"), Fault.server_error()
    )
    began = clock()
    await client.run(request())
    run = recorded.attributes("aireiter.run")
    explained = sum(run[f"{name}.duration"] for name in ("queue", "backoff", "settle"))
    assert (run["attempts"], run["polls"], run["backoff.duration"]) == (2, 4, 7)
    # Two queries of the settling wait for their turn, within it.
    [submit] = recorded.named("aireiter.submit")
    assert happened(submit) == ["attempt", "retry", "attempt", "poll", "poll", "settled"]
    [wait] = recorded.named("aireiter.wait")
    assert happened(wait) == ["poll", "retry", "poll", "status"]
    [settled] = [event for event in submit.events if event.name == "aireiter.settled"]
    assert settled.attributes == {
        "aireiter.found": True,
        "aireiter.settle.duration": run["settle.duration"],
    }
    in_settling = [event for event in submit.events if event.name == "aireiter.poll"]
    waits: list[Any] = [
        (event.attributes or {})["aireiter.queue.duration"] for event in in_settling
    ]
    twice = sum(waits)
    assert explained - twice == pytest.approx(clock() - began)


@pytest.mark.parametrize("verb", ["submit", "run", "wait"])
async def test_a_call_that_fails(
    service: FakeService, client: AsyncClient, recorded: Recorded, verb: str
) -> None:
    recorded.instrument(client)
    if verb == "submit":
        service.script("submit", Fault.no_credits())
    elif verb == "wait":
        await client.submit(request(), out_task_id="mine")
        recorded.exporter.clear()
    service.script("query", Fault.failed("TIMEOUT", "see https://a.example/b?token=sesame"))
    call: Any = {
        "submit": lambda: client.submit(request()),
        "run": lambda: client.run(request()),
        "wait": lambda: client.wait("mine"),
    }[verb]
    with pytest.raises((InsufficientCreditsError, TaskFailedError)) as caught:
        await call()
    [span] = recorded.named(f"aireiter.{verb}")
    assert attributes(span)["error.type"] == type(caught.value).__name__
    assert span.status.status_code is trace.StatusCode.ERROR
    if verb != "submit":
        assert attributes(span)["aireiter.task.status"] == "failed"
        assert span.status.description == "the task failed: TIMEOUT: see https://a.example/b?..."


async def test_a_task_that_outlasts_the_wait(
    service: FakeService, connect: Connect, recorded: Recorded
) -> None:
    client = connect(polling=PollPolicy(first=1, step=1))
    recorded.instrument(client)
    service.durations = 60
    with pytest.raises(TaskTimeoutError):
        await client.run(request(), timeout=1)
    assert recorded.attributes("aireiter.run")["task.status"] == "pending"
    assert recorded.attributes("aireiter.submit").keys() & {"error.type"} == set()


async def test_cancelled_calls_end(
    service: FakeService, client: AsyncClient, recorded: Recorded, until: Until
) -> None:
    recorded.instrument(client)
    service.script("query", Fault.hang())
    running = asyncio.create_task(client.run(request()))
    await until(lambda: not service.scripted("query"))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    for name in ("aireiter.wait", "aireiter.run"):
        [span] = recorded.named(name)
        assert attributes(span)["error.type"] == "CancelledError"
        assert span.status.status_code is trace.StatusCode.UNSET
    assert dict(recorded.metrics())["aireiter.calls.active"] == [
        ({"aireiter.call": kind}, 0) for kind in ("run", "submit", "wait")
    ]


async def test_each_change_of_a_watched_task_is_a_wait(
    service: FakeService, client: AsyncClient, recorded: Recorded
) -> None:
    recorded.instrument(client)
    service.script("query", Fault.task_status("processing"))
    task = await client.submit(request())
    seen = []
    with recorded.tracer_provider.get_tracer("user").start_as_current_span("user") as mine:
        async for change in client.watch(task):
            assert trace.get_current_span() is mine
            seen.append(change.status.value)
    assert seen == ["pending", "processing", "completed"]
    assert [
        attributes(span)["aireiter.task.status"] for span in recorded.named("aireiter.wait")
    ] == [
        "processing",
        "completed",
    ]
    assert recorded.tree()["user > aireiter.wait"] == 2


async def test_leaving_a_watch_leaves_no_span(
    service: FakeService, client: AsyncClient, recorded: Recorded
) -> None:
    recorded.instrument(client)
    service.script("query", Fault.task_status("processing"))
    task = await client.submit(request())
    with recorded.tracer_provider.get_tracer("user").start_as_current_span("user") as mine:
        async for change in client.watch(task):
            assert trace.get_current_span() is mine
            if not change.done:
                break
        assert trace.get_current_span() is mine
    gc.collect()
    assert recorded.tree()["user > aireiter.wait"] == 0
    assert {span.name for span in recorded.spans} == {"aireiter.submit", "user"}


async def test_the_spans_of_a_batch(
    service: FakeService, client: AsyncClient, recorded: Recorded, tmp_path: Path
) -> None:
    recorded.instrument(client)
    service.script("query", Fault.failed())
    requests = [request(f"{n}") for n in range(20)]
    with recorded.tracer_provider.get_tracer("user").start_as_current_span("user") as mine:
        async for outcome in client.run_many(requests, download_to=tmp_path):
            assert trace.get_current_span() is mine
            assert outcome.ok or isinstance(outcome.error, TaskFailedError)
        assert trace.get_current_span() is mine
    assert recorded.tree() == {
        "- > user": 1,
        "user > aireiter.batch": 1,
        "aireiter.batch > aireiter.run": 20,
        "aireiter.run > aireiter.submit": 20,
        "aireiter.run > aireiter.wait": 20,
        "aireiter.run > aireiter.download": 19,
    }
    batch = recorded.attributes("aireiter.batch")
    assert {key: batch[f"batch.{key}"] for key in ("pulled", "succeeded", "failed")} == {
        "pulled": 20,
        "succeeded": 19,
        "failed": 1,
    }
    assert (batch["credits.estimated"], batch["credits.used"]) == (20, 19)
    # The sum of its items: 20 submits, 19 results, 20 polls.
    assert (batch["attempts"], batch["polls"]) == (39, 20)
    assert "error.type" not in batch
    runs = recorded.named("aireiter.run")
    kinds = Counter(attributes(span).get("error.type") for span in runs)
    assert kinds == {None: 19, "TaskFailedError": 1}
    assert {attributes(span)["aireiter.task.id"] for span in runs} == set(service.tasks)


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("verb", ["run_many", "submit_many"])
async def test_leaving_a_batch(
    client: AsyncClient, recorded: Recorded, until: Until, verb: str, *, closed: bool
) -> None:
    """All spans end, whether the batch is closed or the interpreter finds it abandoned."""
    recorded.instrument(client)
    requests = (request(f"{n}") for n in range(10_000))
    with recorded.tracer_provider.get_tracer("user").start_as_current_span("user") as mine:
        batch: Any = getattr(client, verb)(requests)
        async for outcome in batch:
            assert trace.get_current_span() is mine
            if outcome.index >= 10:
                break
        assert trace.get_current_span() is mine
        if closed:
            await batch.aclose()
        del batch
        gc.collect()
        await until(lambda: recorded.named("aireiter.batch"))
    counts = Counter(span.name for span in recorded.spans)
    assert "error.type" not in recorded.attributes("aireiter.batch")
    inner = "aireiter.run" if verb == "run_many" else "aireiter.submit"
    assert recorded.tree()[f"aireiter.batch > {inner}"] == counts[inner]
    active = dict(recorded.metrics())["aireiter.calls.active"]
    assert {value for _, value in active} == {0}


async def test_a_batch_through_faults(
    connect: Connect, instrumented: Recorded, clock: Clock, tmp_path: Path
) -> None:
    """Spans, metrics and statistics agree, and every request has its place."""
    faults = {
        Fault.lost_response(accepted=True): 0.05,
        Fault.lost_response(): 0.05,
        Fault.server_error(): 0.05,
        Fault.too_many_requests(1): 0.05,
        Fault.html(502): 0.05,
    }
    async with FakeService(clock=clock, faults=faults, seed=7) as service:
        client = connect(api_key=service.api_key, base_url=service.url)
        instrumented.instrument(client)
        requests = [request(f"{n}") for n in range(100)]
        batch = client.run_many(requests, download_to=tmp_path, window=20)
        outcomes = [outcome.ok async for outcome in batch]
        stats, paths = client.stats, Counter(each.path for each in service.requests)
    assert len(outcomes) == 100
    succeeded = sum(outcomes)
    tree, found = instrumented.tree(), instrumented.metrics()
    assert tree["aireiter.batch > aireiter.run"] == 100
    # In a run itself: a submit that is still ambiguous in the end is queried once more.
    places = [f"aireiter.{name} > POST" for name in ("submit", "wait", "run")]
    places.append("aireiter.download > GET")
    assert {name for name in tree if name.endswith(("POST", "GET"))} - {*places} == set()
    posts = sum(tree.get(name, 0) for name in places[:-1])
    assert posts + tree["aireiter.download > GET"] == stats.requests == paths.total()
    attributes_of = instrumented.attributes("aireiter.batch")
    assert attributes_of["attempts"] + attributes_of["polls"] == stats.requests
    assert attributes_of["batch.succeeded"] == succeeded
    assert sum(value for _, value in found["aireiter.tasks"]) == stats.completed + stats.failed
    assert found["aireiter.credits.used"] == [({"aireiter.model": "veo3_1"}, stats.credits_used)]
    settled = {point["aireiter.found"]: value for point, value in found["aireiter.settles"]}
    assert settled[True] == stats.settled > 0
    retried = Counter[str]()
    for point, value in found["aireiter.retries"]:
        retried[point["aireiter.request"]] += int(value)
    assert retried["submit"] > 10
    assert {value for _, value in found["aireiter.calls.active"]} == {0}


async def test_a_batch_that_stops(
    service: FakeService, client: AsyncClient, recorded: Recorded
) -> None:
    recorded.instrument(client)
    service.script("submit", Fault.no_credits())
    batch = client.run_many([request(f"{n}") for n in range(3)], window=1)
    assert not [outcome.ok async for outcome in batch if outcome.ok]
    assert recorded.attributes("aireiter.batch")["error.type"] == "InsufficientCreditsError"
    [run] = recorded.named("aireiter.run")
    assert attributes(run)["error.type"] == "InsufficientCreditsError"


async def test_a_batch_whose_source_raises(client: AsyncClient, recorded: Recorded) -> None:
    def source() -> Iterator[SubmitRequest]:
        yield request()
        raise LookupError("no more")

    recorded.instrument(client)
    with pytest.raises(LookupError):
        _ = [outcome async for outcome in client.run_many(source())]
    [batch] = recorded.named("aireiter.batch")
    assert attributes(batch)["error.type"] == "LookupError"
    assert batch.status.description == "no more"


async def test_a_cancelled_item(
    service: FakeService, client: AsyncClient, recorded: Recorded, until: Until
) -> None:
    recorded.instrument(client)
    service.script("query", *[Fault.hang()] * 2)
    async with aclosing(client.run_many([request(), request("b")])) as batch:
        reading = asyncio.ensure_future(anext(batch))
        await until(lambda: not service.scripted("query"))
        reading.cancel()
        await asyncio.wait([reading])
    names = ("aireiter.run", "aireiter.wait")
    kinds = [attributes(span)["error.type"] for name in names for span in recorded.named(name)]
    assert kinds == ["CancelledError"] * 4


async def test_http_spans_nest_under_ours(
    service: FakeService, connect: Connect, instrumented: Recorded, tmp_path: Path
) -> None:
    """With aiohttp's own instrumentation, whose headers go to the service only."""
    client = connect()
    instrumented.instrument(client)
    service.script("submit", Fault.lost_response(accepted=True))
    service.script("query", Fault.task_status("processing"))
    task = await client.run(request())
    await client.download(task, tmp_path)
    await client.balance()
    assert client._shared.transport.path == "session"
    assert instrumented.tree() == {
        "- > aireiter.run": 1,
        "aireiter.run > aireiter.submit": 1,
        "aireiter.submit > POST": 2,
        "aireiter.run > aireiter.wait": 1,
        "aireiter.wait > POST": 1,
        "- > aireiter.download": 1,
        "aireiter.download > GET": 1,
        "- > GET": 1,
    }
    ids = {f"{context_of(span).trace_id:032x}" for span in instrumented.named("aireiter.run")}
    sent = [each.headers.get("traceparent", "") for each in service.requests]
    *submits, result, balance = sent
    assert {text.split("-")[1] for text in submits} == ids
    assert (result, bool(balance)) == ("", True)


@pytest.mark.parametrize("borrowed", [True, False])
async def test_a_results_host_gets_no_trace_headers(
    service: FakeService, connect: Connect, instrumented: Recorded, *, borrowed: bool
) -> None:
    """Not even with a session of the caller's, whose own headers and middlewares remain."""

    async def mark(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        request.headers["X-Middleware"] = "1"
        return await handler(request)

    async with aiohttp.ClientSession(
        headers={"X-Mine": "1"}, middlewares=(mark,), trace_configs=[baggage()]
    ) as session:
        client = connect(session=session) if borrowed else connect()
        instrumented.instrument(client)
        task = await client.run(request())
        assert await client.read(task.outputs[0])
    submit, *_, result = service.requests
    assert submit.headers["traceparent"]
    assert submit.headers.get("baggage") == ("user=1" if borrowed else None)
    assert {*result.headers} & {"traceparent", "tracestate", "baggage"} == set()
    mine = {"X-Mine", "X-Middleware"}
    assert {*result.headers} & mine == (mine if borrowed else set())
    assert {"Host", "Accept", "User-Agent"} <= {*result.headers}


def baggage() -> aiohttp.TraceConfig:
    """Make what adds a header to each request, as instrumentations do."""

    async def start(_session: object, _context: object, params: Any) -> None:
        params.headers["baggage"] = "user=1"

    config = aiohttp.TraceConfig()
    config.on_request_start.append(start)
    return config


@pytest.mark.parametrize("query", ["x-signature=sesame", "X-Amz-Signature=sesame&a=b", "sesame"])
@pytest.mark.parametrize("status", [None, 403, 503])
async def test_no_query_string_is_recorded(
    service: FakeService,
    connect: Connect,
    instrumented: Recorded,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    status: int | None,
    query: str,
) -> None:
    client = connect()
    instrumented.instrument(client)
    done = await client.run(request())
    url = f"{done.url}?{query}"
    data = {"status": "completed", "output": [{"url": url}]}
    body = json.dumps({"statusCode": 200, "data": data})
    odd = json.dumps(
        {"statusCode": 200, "data": data | {"status": "odd", "output": [], "u": "h://a?" + query}}
    )
    service.script("query", Fault.reply(200, odd), Fault.reply(502, f"<a href='{url}'>"))
    service.script("query", *[Fault.reply(200, body)] * 3)
    task = await client.wait("mine")
    assert task.url == url
    if status is not None:
        page = Fault.reply(status, f"<a href='{url}'>", headers={"Content-Type": "text/html"})
        service.script("result", *[page] * 5)
        with pytest.raises(DownloadError):
            await client.download(task, tmp_path)
    else:
        service.script("result", Fault.reset())
        assert await client.download(task, tmp_path)
    recorded = [span.to_json() for span in instrumented.spans]
    assert len(recorded) > 5
    for text in (*recorded, *caplog.messages, json.dumps(instrumented.metrics())):
        assert "sesame" not in text


async def test_the_metrics(
    service: FakeService, client: AsyncClient, recorded: Recorded, clock: Clock
) -> None:
    service.price = 2.5
    recorded.instrument(client)
    service.script(
        "submit",
        Fault.too_many_requests(3),
        Fault.lost_response(),
        Fault.lost_response(accepted=True),
    )
    task = await client.run(request())
    service.script("query", Fault.failed())
    await client.submit(request(), out_task_id="other")
    with pytest.raises(TaskFailedError):
        await client.wait("other")
    model = {"aireiter.model": "veo3_1"}
    found = recorded.metrics()
    assert found["aireiter.tasks"] == [
        ({**model, "aireiter.task.status": "completed"}, 1),
        ({"aireiter.task.status": "failed"}, 1),
    ]
    assert found["aireiter.credits.estimated"] == [(model, 2.5)]  # one was found, not accepted
    assert dict_of(found["aireiter.credits.used"]) == {"veo3_1": 2.5}
    assert found["aireiter.settles"] == [
        ({"aireiter.found": False}, 1),
        ({"aireiter.found": True}, 1),
    ]
    kinds = {
        (point["aireiter.request"], point["error.type"]): n
        for point, n in found["aireiter.retries"]
    }
    assert kinds == {("submit", "RateLimitError"): 1, ("submit", "TransportError"): 1}
    assert {value for _, value in found["aireiter.calls.active"]} == {0}
    calls = {
        (point["aireiter.call"], point.get("error.type"))
        for point, _ in found["aireiter.call.duration"]
    }
    assert calls == {("run", None), ("submit", None), ("wait", None), ("wait", "TaskFailedError")}
    [(_, seconds)] = [
        (point, n)
        for point, n in found["aireiter.call.duration"]
        if point["aireiter.call"] == "run"
    ]
    assert seconds == clock() - 1000
    assert {point["aireiter.request"] for point, _ in found["aireiter.queue.duration"]} == {
        "submit",
        "query",
    }
    assert found["aireiter.task.duration"][0][0] == {**model, "aireiter.task.status": "completed"}
    assert task.succeeded


def dict_of(points: list[tuple[dict[str, Any], float]]) -> dict[str | None, float]:
    return {point.get("aireiter.model"): value for point, value in points}


@pytest.mark.parametrize("opt_in", ["http, gen_ai_latest_experimental", "http", None])
async def test_gen_ai_names(
    client: AsyncClient, recorded: Recorded, monkeypatch: pytest.MonkeyPatch, opt_in: str | None
) -> None:
    if opt_in is not None:
        monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", opt_in)
    recorded.instrument(client)
    await client.run(request())
    names = {
        "gen_ai.operation.name": "generate_content",
        "gen_ai.provider.name": "aireiter",
        "gen_ai.request.model": "veo3_1",
    }
    expected = names if opt_in and "gen_ai" in opt_in else {}
    points = recorded.metrics()["aireiter.tasks"] + recorded.metrics()["aireiter.call.duration"]
    for found in (*map(attributes, recorded.spans), *(point for point, _ in points)):
        assert {key: found[key] for key in found if key.startswith("gen_ai")} == expected


async def test_the_end_of_an_instrumentation(
    service: FakeService, client: AsyncClient, recorded: Recorded
) -> None:
    """Calls in progress are still recorded; later ones are not, until it begins again."""
    end = recorded.instrument(client)
    with pytest.raises(RuntimeError, match="instrumented already"):
        telemetry.instrument(client.with_options(timeout=3))
    task = await client.run(request(), on_update=lambda _: end())
    end()
    assert {span.name for span in recorded.spans} == {
        f"aireiter.{n}" for n in ("run", "submit", "wait")
    }
    recorded.exporter.clear()
    await client.wait(task.out_task_id)
    assert recorded.spans == ()
    recorded.instrument(client)
    await client.wait(task.out_task_id)
    assert recorded.tree() == {"- > aireiter.wait": 1}
    assert len(service.charges) == 1


async def test_closing_the_client_ends_its_spans(
    service: FakeService, client: AsyncClient, recorded: Recorded, until: Until
) -> None:
    recorded.instrument(client)
    service.script("query", Fault.hang())
    waiting = asyncio.create_task(client.wait("mine"))
    await until(lambda: not service.scripted("query"))
    await client.close()
    with pytest.raises(RuntimeError):
        await waiting
    assert recorded.attributes("aireiter.wait")["error.type"] == "RuntimeError"


async def test_clients_may_share_their_providers(connect: Connect, recorded: Recorded) -> None:
    for client in (connect(), connect()):
        recorded.instrument(client)
        await client.run(request())
    assert recorded.metrics()["aireiter.tasks"][0][1] == 2
    assert recorded.tree()["- > aireiter.run"] == 2


async def test_a_call_within_a_call(
    service: FakeService, client: AsyncClient, recorded: Recorded
) -> None:
    """A task that on_update starts may outlast its call."""
    recorded.instrument(client)
    later = asyncio.Event()
    started: list[asyncio.Task[Task]] = []

    async def again() -> Task:
        await later.wait()
        await client.query("mine")
        return await client.submit(request("b"))

    def on_update(_task: Task) -> None:
        if not started:
            started.append(asyncio.create_task(again()))

    await client.run(request(), on_update=on_update, out_task_id="mine")
    later.set()
    await started[0]
    assert recorded.tree()["aireiter.wait > aireiter.submit"] == 1
    assert len(service.charges) == 2


async def test_a_coroutine_that_is_never_finished(client: AsyncClient, recorded: Recorded) -> None:
    """It is closed in another context than the one in which it has run."""
    recorded.instrument(client)
    running = AsyncClient.wait(client, "mine")
    step = asyncio.create_task(drive(running))
    await step
    running.close()
    assert recorded.attributes("aireiter.wait")["error.type"] == "GeneratorExit"


async def drive(running: Any) -> None:
    """Run a coroutine up to its first suspension."""
    running.send(None)


@pytest.mark.parametrize(
    "provider", [TracerProvider(sampler=ALWAYS_OFF), trace.NoOpTracerProvider()]
)
async def test_metrics_without_spans(
    client: AsyncClient, recorded: Recorded, provider: trace.TracerProvider
) -> None:
    telemetry.instrument(client, tracer_provider=provider, meter_provider=recorded.meter_provider)
    await client.run(request())
    assert recorded.spans == ()
    assert recorded.metrics()["aireiter.tasks"][0][1] == 1


async def test_a_query_is_no_call(
    service: FakeService, client: AsyncClient, recorded: Recorded
) -> None:
    """It has aiohttp's span alone, and our metrics."""
    recorded.instrument(client)
    service.script("balance", Fault.server_error())
    await client.balance()
    assert recorded.spans == ()
    [(point, number)] = recorded.metrics()["aireiter.retries"]
    assert (point["aireiter.request"], number) == ("balance", 1)


async def test_a_rejected_id(service: FakeService, client: AsyncClient, recorded: Recorded) -> None:
    recorded.instrument(client)
    service.used_id = "reject"
    await client.submit(request(), out_task_id="mine")
    with pytest.raises(IDInUseError):
        await client.submit(request("b"), out_task_id="mine")
    assert len(recorded.named("aireiter.submit")) == 2


def test_only_clients_are_instrumented() -> None:
    with pytest.raises(TypeError, match="client must be an AsyncClient, got str"):
        telemetry.instrument("client")  # type: ignore[arg-type]


def run_alone(script: str) -> str:
    done = subprocess.run(  # noqa: S603 - our own script
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return done.stdout


USE = """
import asyncio, sys
from aireiter_async import SubmitRequest
from aireiter_async.testing import FakeService

async def main():
    async with FakeService() as service, service.client() as client:
        await client.run(SubmitRequest("veo3_1", {"prompt": "a kitten"}))

asyncio.run(main())
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""


def test_nothing_is_imported_without_telemetry() -> None:
    assert run_alone(USE) == "[]\n"


def test_the_extra_is_named_where_it_is_missing() -> None:
    script = """
import sys
sys.modules["opentelemetry"] = None  # importing it is an ImportError
try:
    import aireiter_async.telemetry
except ImportError as error:
    print(error)
"""
    assert run_alone(script) == (
        "aireiter_async.telemetry needs the extra otel: pip install 'aireiter-async[otel]'\n"
    )


async def test_outputs_without_a_task(
    service: FakeService, client: AsyncClient, recorded: Recorded, tmp_path: Path
) -> None:
    recorded.instrument(client)
    task = await client.run(request())
    await client.download(Output(url=task.url), tmp_path)
    assert "task.id" not in recorded.attributes("aireiter.download")
    assert service.leaks == []
