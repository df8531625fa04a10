"""The steps of a submit, each by itself, so that a regression has a name."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Final

from aireiter_async import SubmitRequest, models
from aireiter_async._envelope import Reply
from aireiter_async._throttle import Throttle
from aireiter_async._transport._deadlines import Deadlines
from aireiter_async._wire import read_query, read_submit
from benchmarks.clients._run import MODEL, PARAMS
from benchmarks.replies import REPLIES

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


def plain() -> dict[str, Callable[[], object]]:
    """Return the steps that are functions."""
    request = SubmitRequest(MODEL, PARAMS)
    text = _ACCEPTED.body.decode()
    return {
        "make a SubmitRequest": lambda: SubmitRequest(MODEL, PARAMS),
        "make and check a models instance": lambda: models.Seedance15Pro(**PARAMS),
        "assemble the body": request.encode,
        "encode the content, for the ledger": request.encode_content,
        "read the response to a submit": lambda: read_submit(_ACCEPTED, request),
        "`json.loads` of it, for comparison": lambda: json.loads(text),
        "read a completed task": lambda: read_query(_COMPLETED, _ID, MODEL),
    }


def awaited() -> dict[str, Callable[[], Awaitable[None]]]:
    """Return the steps that take an event loop."""
    throttle, deadlines = Throttle(64), Deadlines(60)

    async def nothing() -> None:
        pass

    async def slot() -> None:
        sent_at = throttle.try_acquire() or await throttle.acquire()
        throttle.release()
        throttle.accepted(sent_at)

    async def deadline() -> None:
        with deadlines:
            await nothing()

    async def timeout() -> None:
        async with asyncio.timeout(60):
            await nothing()

    return {
        "a slot of the throttle": slot,
        "a deadline": deadline,
        "`asyncio.timeout`, for comparison": timeout,
    }
