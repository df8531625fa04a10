"""The HTTP layer: the API's endpoints and the result files."""

import asyncio
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, cast

import attrs
from aiohttp import web

from aireiter_async.testing import _replies, _results
from aireiter_async.testing._account import Account
from aireiter_async.testing._callbacks import Callbacks
from aireiter_async.testing._delivery import UNHANDLED, deliver, send
from aireiter_async.testing._faults import Endpoint, Fault, FaultPlan
from aireiter_async.testing._options import Options
from aireiter_async.testing._replies import RejectionError, Reply

_ROUTES: dict[tuple[str, str], Endpoint] = {
    ("POST", "/api/openapi/submit"): "submit",
    ("POST", "/api/openapi/query"): "query",
    ("GET", "/api/openapi/balance"): "balance",
}
_CHARGES = "/_fake/charges"


@attrs.frozen(eq=False)
class RecordedRequest:
    """One request as it arrived.

    Args:
        method: The HTTP method.
        path: The path, without host and query.
        headers: The headers, with case-insensitive names.
        body: The parsed JSON; None if there was no body or it was not JSON.
        at: The time of its arrival, on the service's clock.
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


class Api:
    """Replies to the requests of both hosts, and records them."""

    def __init__(
        self, options: Options, account: Account, plan: FaultPlan, callbacks: Callbacks
    ) -> None:
        self.requests: list[RecordedRequest] = []
        self.leaks: list[RecordedRequest] = []
        self.counts: Counter[str] = Counter()
        self.rejections: Counter[int] = Counter()
        self.posts: Counter[str] = Counter()
        self.in_flight = 0
        self.peak_in_flight = 0
        self._options = options
        self._account = account
        self._plan = plan
        self._callbacks = callbacks
        rate = options.max_rate
        self._bucket = _TokenBucket(rate, options.burst, options.clock) if rate else None

    async def handle_api(self, request: web.BaseRequest) -> web.StreamResponse:
        """Reply on the API's host."""
        if request.path.startswith(_results.FOLDER):
            return await self.handle_result(request)
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
        try:
            return await self._route(request)
        finally:
            self.in_flight -= 1

    async def handle_result(self, request: web.BaseRequest) -> web.StreamResponse:
        """Reply on the results' host, which must never see a key."""
        seen = await self._read(request)
        self.counts[_results.FOLDER.rstrip("/")] += 1
        if "Authorization" in seen.headers:
            self.leaks.append(seen)
            return send(_replies.page(400))
        agent = seen.headers.get("User-Agent", "")
        if not agent or agent.startswith("Python-urllib"):
            return send(_replies.page(403))
        if seen.method != "GET" or not seen.path.startswith(_results.FOLDER):
            return send(_replies.page(200))
        return await self._respond(request, "result", seen)

    async def _route(self, request: web.BaseRequest) -> web.StreamResponse:
        if (request.method, request.path) == ("GET", _CHARGES):  # for tests, not part of the API
            return send(_replies.json_reply(self._account.summary()))
        seen = await self._read(request)
        self.counts[seen.path] += 1
        if seen.headers.get("User-Agent", "").startswith("Python-urllib"):
            return send(_replies.page(403))
        endpoint = _ROUTES.get((seen.method, seen.path))
        if endpoint is None:
            return send(_replies.page(200))
        out_task_id = seen.fields.get("out_task_id")
        if endpoint == "submit" and isinstance(out_task_id, str):
            self.posts[out_task_id] += 1
        if self._bucket and (wait := self._bucket.take()):
            self.rejections[429] += 1
            return send(self._too_many(wait))
        return await self._respond(request, endpoint, seen)

    async def _read(self, request: web.BaseRequest) -> RecordedRequest:
        # Not request.read(), which rejects bodies larger than a megabyte.
        raw = await request.content.read()
        try:
            body = json.loads(raw) if raw else None
        except ValueError:
            body = None
        at = self._options.clock()
        seen = RecordedRequest(request.method, request.path, request.headers, body, at)
        if self._options.record:
            self.requests.append(seen)
        return seen

    async def _respond(
        self, request: web.BaseRequest, endpoint: Endpoint, seen: RecordedRequest
    ) -> web.StreamResponse:
        fault = self._plan.next(endpoint)
        if fault is None:
            return send(await self._handle(endpoint, seen, None))
        if fault.kind == "delay" and not fault.accepted:
            await asyncio.sleep(fault.seconds)
        handled = fault.needs_reply(endpoint)
        reply = await self._handle(endpoint, seen, fault) if handled else UNHANDLED
        if fault.kind == "delay" and fault.accepted:
            await asyncio.sleep(fault.seconds)
        return await deliver(request, fault, reply, self._account.results_url)

    async def _handle(
        self, endpoint: Endpoint, seen: RecordedRequest, fault: Fault | None
    ) -> Reply:
        if endpoint == "result":
            return self._file(seen.path)
        charges = len(self._account.charges)
        try:
            data = self._data(endpoint, seen, fault)
        except RejectionError as error:
            self.rejections[error.reason.code] += 1
            return _replies.rejection(error.reason, self._options.rejection_form, error.message)
        url = seen.fields.get("callback_url")
        if len(self._account.charges) > charges and isinstance(url, str):
            await self._callbacks.accepted(self._account.tasks[data["out_task_id"]], url)
        return _replies.success(data, self._options.envelope, on_submit=endpoint == "submit")

    def _data(
        self, endpoint: Endpoint, seen: RecordedRequest, fault: Fault | None
    ) -> dict[str, Any]:
        key = self._options.api_key
        if key is not None and seen.headers.get("Authorization") != f"Bearer {key}":
            balance = endpoint == "balance"
            raise RejectionError(_replies.BAD_BALANCE_KEY if balance else _replies.BAD_KEY)
        failure = (fault.text, fault.message) if fault and fault.kind == "failed" else None
        status = fault.text if fault and fault.kind == "task_status" else ""
        match endpoint:
            case "submit":
                data = self._account.submit(seen.fields, failure)
                return {**data, "status": status} if status else data
            case "query":
                return self._account.query(seen.fields, failure, status)
            case _:
                return self._account.balance()

    def _too_many(self, wait: float) -> Reply:
        form = self._options.retry_after
        # RFC 9110, 10.2.3: whole seconds; rounded up, so that obeying is never too early.
        seconds = float(math.ceil(wait)) if form else None
        return _replies.too_many(self._options.rejection_form, seconds, form or "seconds")

    def _file(self, path: str) -> Reply:
        number = self._account.number_of_file(path)
        if number is None:
            return _replies.page(404)
        media_type, body = _results.file(path, number)
        return Reply(200, body, {"Content-Type": media_type})


class _TokenBucket:
    """Grants *rate* requests per second of *clock*, in bursts of up to *burst*.

    Args:
        rate: Tokens per second, more than 0.
        burst: Maximum and initial tokens. None: one second's worth, at least one.
        clock: Returns the time in seconds.
    """

    def __init__(self, rate: float, burst: int | None, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._size = float(burst or math.ceil(rate))
        self._clock = clock
        self._tokens = self._size
        self._at = clock()

    def take(self) -> float:
        """Take a token and return 0, or return the seconds until there is one."""
        now = self._clock()
        self._tokens = min(self._size, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1:
            return (1 - self._tokens) / self._rate
        self._tokens -= 1
        return 0.0
