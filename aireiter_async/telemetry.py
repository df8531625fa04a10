"""OpenTelemetry spans and metrics of a client; needs the extra ``otel``.

::

    from aireiter_async import telemetry

    telemetry.instrument(client)

Each call is a span: ``aireiter.run``, ``aireiter.submit``, ``aireiter.wait``,
``aireiter.download`` and ``aireiter.batch``. HTTP requests are left to aiohttp's own
instrumentation, whose spans become children of these. Names of attributes and metrics are
listed in the documentation, "Telemetry and logs". Durations are in seconds.

Attributes, events and statuses contain neither query strings nor the API key, and no
prompt, unless the service repeats it in an error's text.
"""

import os
from collections.abc import Callable
from typing import Any, Final

from attrs import define

from aireiter_async import events
from aireiter_async._client import AsyncClient, api_of
from aireiter_async._tasks import Task
from aireiter_async._text import without_queries
from aireiter_async._version import __version__
from aireiter_async.errors import AireiterError

try:
    from opentelemetry import context, metrics, trace
except ImportError as error:  # pragma: no cover - in another process
    raise ImportError(
        "aireiter_async.telemetry needs the extra otel: pip install 'aireiter-async[otel]'"
    ) from error

__all__ = ["instrument"]

_SCOPE: Final = "aireiter_async"
_OPT_IN: Final = "OTEL_SEMCONV_STABILITY_OPT_IN"
_GEN_AI: Final = "gen_ai_latest_experimental"
# Seconds: submits take tenths of a second, videos half an hour.
_BUCKETS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500)

_Attributes = dict[str, str | bool | int | float]


def instrument(
    client: AsyncClient,
    *,
    tracer_provider: trace.TracerProvider | None = None,
    meter_provider: metrics.MeterProvider | None = None,
) -> Callable[[], None]:
    """Record spans and metrics of *client*'s calls, and those of its views.

    Nothing needs to be undone before the client is closed.

    Args:
        client: The client.
        tracer_provider: Creates the spans; None for the global one.
        meter_provider: Creates the metrics; None for the global one.

    Returns:
        A function that ends this; calls in progress are still recorded.

    Raises:
        RuntimeError: The client is instrumented already.
        TypeError: *client* is not an AsyncClient.
    """
    if not isinstance(client, AsyncClient):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"client must be an AsyncClient, got {type(client).__name__}")
    shared = api_of(client).shared
    if any(isinstance(each.func, _Telemetry) for each in shared.events.listeners):
        raise RuntimeError(
            "the client is instrumented already: call the function that instrument() returned first"
        )
    tracer = trace.get_tracer(_SCOPE, __version__, tracer_provider)
    meter = metrics.get_meter(_SCOPE, __version__, meter_provider)
    return client.subscribe(_Telemetry(tracer, meter, shared.clock.now))


@define(eq=False)
class _Call:
    """A call in progress, with what has happened in it and in the calls it contains."""

    span: trace.Span
    parent: "_Call | None"
    began: float
    token: Any = None
    attempts: int = 0
    polls: int = 0
    queued: float = 0.0
    backoff: float = 0.0
    settling: float = 0.0

    def attributes(self) -> _Attributes:
        return {
            "aireiter.attempts": self.attempts,
            "aireiter.polls": self.polls,
            "aireiter.queue.duration": self.queued,
            "aireiter.backoff.duration": self.backoff,
            "aireiter.settle.duration": self.settling,
        }

    def add(self, other: "_Call") -> None:
        self.attempts += other.attempts
        self.polls += other.polls
        self.queued += other.queued
        self.backoff += other.backoff
        self.settling += other.settling


class _Telemetry:
    """The listener.

    The current call is found in OpenTelemetry's context, which is that of the running task.

    Args:
        tracer: Creates the spans.
        meter: Creates the metrics.
        now: Returns monotonic seconds.
    """

    def __init__(
        self, tracer: trace.Tracer, meter: metrics.Meter, now: Callable[[], float]
    ) -> None:
        self._tracer = tracer
        self._now = now
        self._key = context.create_key("aireiter-call")
        self._calls: dict[events.CallStarted, _Call] = {}
        self._gen_ai = _GEN_AI in os.environ.get(_OPT_IN, "").replace(" ", "").split(",")

        def histogram(name: str, description: str) -> metrics.Histogram:
            return meter.create_histogram(
                name, "s", description, explicit_bucket_boundaries_advisory=_BUCKETS
            )

        self._active = meter.create_up_down_counter(
            "aireiter.calls.active", "{call}", "Calls in progress"
        )
        self._durations = histogram("aireiter.call.duration", "Duration of calls")
        self._queue = histogram("aireiter.queue.duration", "Time of requests in the queue")
        self._tasks = meter.create_counter("aireiter.tasks", "{task}", "Ended tasks")
        self._task_durations = histogram(
            "aireiter.task.duration",
            "Time from acceptance to end of tasks, by the service's clock",
        )
        self._retries = meter.create_counter("aireiter.retries", "{retry}", "Repeated attempts")
        self._settles = meter.create_counter(
            "aireiter.settles", "{settle}", "Lookups of ambiguous submits"
        )
        self._estimated = meter.create_counter(
            "aireiter.credits.estimated", "{credit}", "Estimates of accepted tasks"
        )
        self._used = meter.create_counter(
            "aireiter.credits.used", "{credit}", "Charges of ended tasks"
        )

    def __call__(self, event: events.Event) -> None:
        match event:
            case events.CallStarted():
                self._start(event)
            case events.CallEnded():
                self._end(event)
            case events.RequestSent():
                self._note_sent(event)
            case events.RequestRetried():
                self._note_retry(event)
            case events.SubmitSettled():
                self._note_settled(event)
            case events.StatusChanged(task, before):
                change = {"aireiter.task.status.before": before.value}
                self._add_event(
                    "aireiter.status", {**change, "aireiter.task.status": task.status.value}
                )
            case events.TaskAccepted(task):
                self._count(self._estimated, task.estimated_credits, task.model)
            case events.TaskDone(task):
                self._note_done(task)
            case events.ResultDownloaded():
                self._add_event("aireiter.downloaded", {"aireiter.size": event.size})
            case _:
                pass

    def _start(self, event: events.CallStarted) -> None:
        attributes = self._model(event.model)
        if event.out_task_id is not None:
            attributes["aireiter.task.id"] = event.out_task_id
        span = self._tracer.start_span(f"aireiter.{event.kind}", attributes=attributes)
        call = _Call(span, self._current(), self._now())
        call.token = context.attach(
            context.set_value(self._key, call, trace.set_span_in_context(span))
        )
        self._calls[event] = call
        self._active.add(1, {"aireiter.call": event.kind})

    def _end(self, event: events.CallEnded) -> None:
        call, kind, error = self._calls.pop(event.call), event.call.kind, event.error
        task = event.result if error is None else getattr(error, "task", event.result)
        attributes: _Attributes = {}
        if kind == "batch":
            attributes |= _progress(event.result)
        elif isinstance(task, Task):
            attributes |= self._task(task)
        measured = {"aireiter.call": kind, **self._model(event.call.model)}
        if isinstance(task, Task):
            measured |= self._model(task.model)
        if error is not None:
            measured["error.type"] = attributes["error.type"] = type(error).__qualname__
        if isinstance(error, Exception):  # being cancelled is no failure
            text = error.summary if isinstance(error, AireiterError) else str(error)
            call.span.set_status(trace.StatusCode.ERROR, without_queries(text))
        call.span.set_attributes({**attributes, **call.attributes()})
        if call.parent is not None:
            call.parent.add(call)
        self._durations.record(self._now() - call.began, measured)
        self._active.add(-1, {"aireiter.call": kind})
        # A coroutine that was never finished is closed in some other context.
        if context.get_value(self._key) is call:
            context.detach(call.token)
        call.span.end()

    def _current(self) -> _Call | None:
        call = context.get_value(self._key)
        return call if isinstance(call, _Call) else None

    def _add_event(self, name: str, attributes: _Attributes) -> _Call:
        """Add an event to the current call's span, and return the call."""
        call = self._current() or _Call(trace.INVALID_SPAN, None, 0.0)
        # Not after its end: a task that the caller has started within a call may outlast it.
        if call.span.is_recording():
            call.span.add_event(name, attributes)
        return call

    def _note_sent(self, event: events.RequestSent) -> None:
        kind: _Attributes = {"aireiter.request": event.kind}
        self._queue.record(event.queued, kind)
        is_poll = event.kind == "query"
        call = self._add_event(
            "aireiter.poll" if is_poll else "aireiter.attempt",
            {**kind, "aireiter.queue.duration": event.queued},
        )
        call.queued += event.queued
        call.polls += is_poll
        call.attempts += not is_poll

    def _note_retry(self, event: events.RequestRetried) -> None:
        what = {"aireiter.request": event.kind, "error.type": type(event.error).__qualname__}
        self._retries.add(1, what)
        call = self._add_event(
            "aireiter.retry", {**what, "aireiter.backoff.duration": event.seconds}
        )
        call.backoff += event.seconds

    def _note_settled(self, event: events.SubmitSettled) -> None:
        found: _Attributes = {"aireiter.found": event.task is not None}
        self._settles.add(1, found)
        call = self._add_event(
            "aireiter.settled", {**found, "aireiter.settle.duration": event.seconds}
        )
        call.settling += event.seconds

    def _note_done(self, task: Task) -> None:
        outcome = {**self._model(task.model), "aireiter.task.status": task.status.value}
        self._tasks.add(1, outcome)
        self._count(self._used, task.credits_used, task.model)
        if task.created_at is not None and task.completed_at is not None:
            seconds = (task.completed_at - task.created_at).total_seconds()
            self._task_durations.record(max(0, seconds), outcome)

    def _count(self, counter: metrics.Counter, number: float | None, model: str | None) -> None:
        if number is not None:
            counter.add(max(0.0, number), self._model(model))  # it comes from the service

    def _task(self, task: Task) -> _Attributes:
        attributes = self._model(task.model)
        attributes["aireiter.task.id"] = task.out_task_id
        attributes["aireiter.task.status"] = task.status.value
        if task.estimated_credits is not None:
            attributes["aireiter.credits.estimated"] = task.estimated_credits
        if task.credits_used is not None:
            attributes["aireiter.credits.used"] = task.credits_used
        return attributes

    def _model(self, model: str | None) -> _Attributes:
        if model is None:
            return {}
        if not self._gen_ai:
            return {"aireiter.model": model}
        return {
            "aireiter.model": model,
            "gen_ai.operation.name": "generate_content",
            "gen_ai.provider.name": "aireiter",
            "gen_ai.request.model": model,
        }


def _progress(progress: Any) -> _Attributes:
    """Return the attributes of a batch's `BatchProgress`, which is not imported for this."""
    return {
        "aireiter.batch.pulled": progress.pulled,
        "aireiter.batch.succeeded": progress.succeeded,
        "aireiter.batch.failed": progress.failed,
        "aireiter.batch.not_submitted": progress.not_submitted,
        "aireiter.credits.estimated": progress.credits_estimated,
        "aireiter.credits.used": progress.credits_used,
    }
