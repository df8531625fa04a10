"""How often each client looks for a task, and how late it notices the end.

Nothing is asked here: our own policy is a generator of seconds, and the peers
wait by constants that are read from their packages. Time is a number.
"""

import heapq
import importlib
import random
import statistics
from collections.abc import Callable, Iterator
from typing import Final

from attrs import define

from aireiter_async import PollPolicy
from aireiter_async._poll import Durations
from benchmarks.report import Section, Table

Waits = Iterator[float]
_MODEL: Final = "seedance_1_5_pro"
_LENGTHS: Final = {"8 s": 8.0, "120 s": 120.0, "20 min": 1200.0}
_SPREAD: Final = 0.2
_TASKS: Final = (1, 500)
_SINGLES: Final = 300
_chance: Final = random.Random()  # noqa: S311 - no secret


@define
class Watched:
    """What has been seen: looks, and the seconds from each end to its notice."""

    looks: int
    delays: list[float]


def _steady(first: float, step: float, jitter: float = 0.0) -> Waits:
    yield first
    while True:
        yield step + jitter * (_chance.random() - 0.5)


def _fal() -> Waits:
    return _steady(0, importlib.import_module("fal_client.client").DEFAULT_QUEUE_POLL_INTERVAL)


def _replicate() -> Waits:
    client = importlib.import_module("replicate.client").Client(api_token="none")  # noqa: S106 - none it is
    return _steady(client.poll_interval, client.poll_interval)


def _runway() -> Waits:
    polling = importlib.import_module("runwayml.lib.polling")
    return _steady(0, polling.POLL_TIME, polling.POLL_JITTER)


def _comfy() -> Waits:
    yield 0
    yield from importlib.import_module("comfy_sdk._core").backoff_schedule()


def _openai() -> Waits:
    return _steady(0, 1.0)  # videos.create_and_poll, unless the service's header says otherwise


PEERS: Final[dict[str, Callable[[], Waits]]] = {
    "fal-client": _fal,
    "replicate": _replicate,
    "openai": _openai,
    "comfy-sdk": _comfy,
    "runwayml": _runway,
}


def measure(share: float) -> Section:
    """Simulate tasks of each length, alone and together."""
    rows = []
    for name, waits in PEERS.items():
        try:
            waits()
        except ImportError as error:
            rows.append([name, f"not installed: {error}"] + ["-"] * 5)
            continue
        rows.append([name, *_cells(_untaught(waits), share)])
    rows.append(["aireiter_async, nothing known", *_cells(_ours, share, learning=False)])
    rows.append(["aireiter_async", *_cells(_ours, share)])
    head = ["client", *(f"{label}, {count}" for label in _LENGTHS for count in _TASKS)]
    text = (
        "Polls per finished task / mean seconds between its end and its notice, for one task (the "
        f"mean of {_SINGLES}) and for 500 that are submitted together; lengths spread by 20 per "
        "cent to either side. Ours on a virtual clock, with its default policy: *nothing known* is "
        "the first task of a model in a process, the other line is after 20 of them. The peers "
        "from their constants; google-genai, zyte-api and httpx do not wait by themselves."
    )
    return Section("Waiting", text, [Table(head, rows)])


def _untaught(waits: Callable[[], Waits]) -> Callable[[Durations], Waits]:
    return lambda _known: waits()


def _ours(known: Durations) -> Waits:
    return PollPolicy().waits(known.expect(_MODEL, "video"))


def _cells(
    waits: Callable[[Durations], Waits], share: float, *, learning: bool = True
) -> Iterator[str]:
    _chance.seed(6)
    for length in _LENGTHS.values():
        for count in _TASKS:
            runs = max(1, round(_SINGLES * share)) if count == 1 else 1
            seen = [_watch(waits, length, count, learning=learning) for _ in range(runs)]
            looks = sum(one.looks for one in seen) / (count * runs)
            late = statistics.mean(delay for one in seen for delay in one.delays)
            yield f"{looks:.1f} / {late:.1f} s"


def _watch(
    waits: Callable[[Durations], Waits], length: float, count: int, *, learning: bool
) -> Watched:
    """Let *count* tasks run at once, and the client look for them in the order of time."""
    known = Durations()
    if learning:
        for _ in range(20):
            known.learn(_MODEL, _draw(length))
    watched = Watched(0, [])
    queue = []
    for number in range(count):
        steps = waits(known)
        queue.append((next(steps), number, _draw(length), steps))
    heapq.heapify(queue)
    while queue:
        now, number, end, steps = heapq.heappop(queue)
        watched.looks += 1
        if now >= end:
            watched.delays.append(now - end)
            known.learn(_MODEL, end)
        else:
            heapq.heappush(queue, (now + next(steps), number, end, steps))
    return watched


def _draw(length: float) -> float:
    return length * _chance.uniform(1 - _SPREAD, 1 + _SPREAD)
