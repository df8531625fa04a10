"""Single steps of a submit, hot: microseconds each, so that a regression has a name."""

import asyncio
import json
import timeit
from collections.abc import Awaitable, Callable
from typing import Final

from aireiter_async import RetryPolicy, SubmitRequest, models
from aireiter_async._envelope import Reply
from aireiter_async._retry import Retry
from aireiter_async._throttle import Throttle
from aireiter_async._transport._deadlines import Deadlines
from aireiter_async._wire import (
    encode_content,
    encode_query,
    encode_submit,
    read_query,
    read_submit,
)
from benchmarks.clients._run import MODEL, PARAMS
from benchmarks.replies import REPLIES
from benchmarks.report import Section, Table

_TIMES: Final = 20_000
_REPEATS: Final = 5
_ID: Final = "a" * 32
_ACCEPTED: Final = Reply(200, {}, REPLIES[b"/api/openapi/submit"][1], 0.0)
_COMPLETED: Final = Reply(
    200,
    {},
    json.dumps(
        {
            "statusCode": 200,
            "data": {
                "out_task_id": _ID,
                "status": "completed",
                "created_at": "2026-11-22T18:00:00.000Z",
                "completed_at": "2026-11-22T18:01:00.000Z",
                "credits_used": 100,
                "output": [{"url": "https://static.aireiter.com/upload/a.mp4"}],
            },
        }
    ).encode(),
    0.0,
)


def measure(share: float) -> Section:
    """Time each step by itself."""
    times = max(100, round(_TIMES * share))
    request = SubmitRequest(MODEL, PARAMS)
    model = models.Seedance15Pro(**PARAMS)
    typed = SubmitRequest(MODEL, model)
    steps: dict[str, Callable[[], object]] = {
        "make a SubmitRequest": lambda: SubmitRequest(MODEL, PARAMS),
        "make and check a typed model": lambda: models.Seedance15Pro(**PARAMS),
        "encode a submit": lambda: encode_submit(request),
        "encode a submit, typed": lambda: encode_submit(typed),
        "encode a query": lambda: encode_query(_ID),
        "encode for the ledger": lambda: encode_content(request),
        "read the answer to a submit": lambda: read_submit(_ACCEPTED, request),
        "read a completed task": lambda: read_query(_COMPLETED, _ID, MODEL),
        "json.loads of an answer, for comparison": lambda: json.loads(_ACCEPTED.body),
    }
    rows = [[name, f"{_hot(step, times):.2f}"] for name, step in steps.items()]
    rows += [[name, f"{micros:.2f}"] for name, micros in asyncio.run(_in_loop(times)).items()]
    text = (
        f"The best of {_REPEATS} times {times:,}. Hot and alone: within a submit, with the caches "
        "full of other work, each costs two to four times as much."
    )
    return Section("Micro", text, [Table(["step", "us"], rows)])


def _hot(step: Callable[[], object], times: int) -> float:
    return 1e6 * min(timeit.repeat(step, number=times, repeat=_REPEATS)) / times


async def _in_loop(times: int) -> dict[str, float]:
    throttle, deadlines = Throttle(64), Deadlines(60)

    async def nothing() -> None:
        pass

    async def slot() -> None:
        sent_at = throttle.enter() or await throttle.acquire()
        throttle.release()
        throttle.accepted(sent_at)

    async def deadline() -> None:
        with deadlines:
            await nothing()

    async def timeout() -> None:
        async with asyncio.timeout(60):
            await nothing()

    retry = Retry(RetryPolicy(), sleep=asyncio.sleep, on_retry=lambda *_: None)

    async def wrapped() -> None:
        await retry.call(nothing)

    steps: dict[str, Callable[[], Awaitable[None]]] = {
        "await nothing": nothing,
        "the retry wrapper": wrapped,
        "a slot of the pace": slot,
        "a deadline": deadline,
        "asyncio.timeout, for comparison": timeout,
    }
    return {name: await _awaited(step, times) for name, step in steps.items()}


async def _awaited(step: Callable[[], Awaitable[None]], times: int) -> float:
    best = float("inf")
    for _ in range(_REPEATS):
        began = timeit.default_timer()
        for _ in range(times):
            await step()
        best = min(best, timeit.default_timer() - began)
    return 1e6 * best / times
