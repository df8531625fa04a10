"""What reached the service's sockets."""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, cast

import attrs
from aiohttp import web


@attrs.frozen(eq=False)
class RecordedRequest:
    """One request as it arrived.

    Args:
        method: The HTTP method.
        path: The path, without host and query.
        headers: The headers; names match in any case.
        body: The parsed JSON; None if there was no body or it was not JSON.
        at: When it was complete, on the service's clock.
    """

    method: str
    path: str
    headers: Mapping[str, str] = attrs.field(repr=False)
    body: Any
    at: float

    @property
    def fields(self) -> Mapping[str, Any]:
        """The body if it is a JSON object, else an empty mapping."""
        body: object = self.body
        return cast("Mapping[str, Any]", body) if isinstance(body, dict) else {}


class Traffic:
    """Count requests, and keep them where asked to."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.requests: list[RecordedRequest] = []
        self.leaks: list[RecordedRequest] = []
        self.counts: Counter[str] = Counter()
        self.refusals: Counter[int] = Counter()
        self.posts: Counter[str] = Counter()
        self.in_flight = 0
        self.peak_in_flight = 0
        self._clock = clock

    def enter(self) -> None:
        """Count a request that has begun."""
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)

    def leave(self) -> None:
        """Count a request that has ended, answered or not."""
        self.in_flight -= 1

    def count_post(self, seen: RecordedRequest) -> None:
        """Count a submit under its id, if it has one."""
        out_task_id = seen.fields.get("out_task_id")
        if isinstance(out_task_id, str):
            self.posts[out_task_id] += 1

    async def read(self, request: web.BaseRequest, *, keep: bool) -> RecordedRequest:
        """Read *request* to its end; *keep* it in the list of requests."""
        # Not request.read(): that one refuses what is larger than a megabyte.
        raw = await request.content.read()
        try:
            body = json.loads(raw) if raw else None
        except ValueError:
            body = None
        seen = RecordedRequest(request.method, request.path, request.headers, body, self._clock())
        if keep:
            self.requests.append(seen)
        return seen
