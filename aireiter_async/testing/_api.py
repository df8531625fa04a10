"""The endpoints and the result files, between the sockets and the books."""

import asyncio
import math
from typing import Any

from aiohttp import web

from aireiter_async.testing import _answers, _results
from aireiter_async.testing._account import Account
from aireiter_async.testing._answers import Answer, RefusalError
from aireiter_async.testing._delivery import UNFOUNDED, deliver, send
from aireiter_async.testing._faults import Endpoint, Fault
from aireiter_async.testing._limit import TokenBucket
from aireiter_async.testing._options import Options
from aireiter_async.testing._plan import FaultPlan
from aireiter_async.testing._traffic import RecordedRequest, Traffic

_ROUTES: dict[tuple[str, str], Endpoint] = {
    ("POST", "/api/openapi/submit"): "submit",
    ("POST", "/api/openapi/query"): "query",
    ("GET", "/api/openapi/balance"): "balance",
}


class Api:
    """Answer the requests of both hosts."""

    def __init__(
        self, options: Options, account: Account, plan: FaultPlan, traffic: Traffic
    ) -> None:
        self._options = options
        self._account = account
        self._plan = plan
        self._traffic = traffic
        rate = options.max_rate
        self._bucket = TokenBucket(rate, options.burst, options.clock) if rate else None

    async def api(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer on the API's host."""
        if request.path.startswith(_results.FOLDER):
            return await self.results(request)
        self._traffic.enter()
        try:
            return await self._api(request)
        finally:
            self._traffic.leave()

    async def results(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer on the results' host, which must never see a key."""
        seen = await self._traffic.read(request, keep=self._options.record)
        self._traffic.counts[_results.FOLDER.rstrip("/")] += 1
        if "Authorization" in seen.headers:
            self._traffic.leaks.append(seen)
            return send(_answers.page(400))
        agent = seen.headers.get("User-Agent", "")
        if not agent or agent.startswith("Python-urllib"):
            return send(_answers.page(403))
        if seen.method != "GET" or not seen.path.startswith(_results.FOLDER):
            return send(_answers.page(200))
        return await self._answer(request, "result", seen)

    async def _api(self, request: web.BaseRequest) -> web.StreamResponse:
        traffic = self._traffic
        seen = await traffic.read(request, keep=self._options.record)
        traffic.counts[seen.path] += 1
        if seen.headers.get("User-Agent", "").startswith("Python-urllib"):
            return send(_answers.page(403))
        endpoint = _ROUTES.get((seen.method, seen.path))
        if endpoint is None:
            return send(_answers.page(200))
        if endpoint == "submit":
            traffic.count_post(seen)
        if self._bucket and (wait := self._bucket.take()):
            traffic.refusals[429] += 1
            return send(self._slow_down(wait))
        return await self._answer(request, endpoint, seen)

    async def _answer(
        self, request: web.BaseRequest, endpoint: Endpoint, seen: RecordedRequest
    ) -> web.StreamResponse:
        fault = self._plan.next(endpoint)
        if fault is None:
            return send(self._handle(endpoint, seen, None))
        if fault.kind == "delay" and not fault.accepted:
            await asyncio.sleep(fault.seconds)
        handled = fault.needs_answer(endpoint)
        answer = self._handle(endpoint, seen, fault) if handled else UNFOUNDED
        if fault.kind == "delay" and fault.accepted:
            await asyncio.sleep(fault.seconds)
        return await deliver(request, fault, answer, self._account.results_url)

    def _handle(self, endpoint: Endpoint, seen: RecordedRequest, fault: Fault | None) -> Answer:
        if endpoint == "result":
            return self._file(seen.path)
        try:
            data = self._data(endpoint, seen, fault)
        except RefusalError as error:
            self._traffic.refusals[error.reason.code] += 1
            return _answers.refusal(error.reason, self._options.refusal_form, error.message)
        return _answers.success(data, self._options.envelope, accepting=endpoint == "submit")

    def _data(
        self, endpoint: Endpoint, seen: RecordedRequest, fault: Fault | None
    ) -> dict[str, Any]:
        key = self._options.api_key
        if key is not None and seen.headers.get("Authorization") != f"Bearer {key}":
            balance = endpoint == "balance"
            raise RefusalError(_answers.BAD_BALANCE_KEY if balance else _answers.BAD_KEY)
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

    def _slow_down(self, wait: float) -> Answer:
        form = self._options.retry_after
        # RFC 9110, 10.2.3: whole seconds; rounded up, so that obeying is never too early.
        seconds = float(math.ceil(wait)) if form else None
        return _answers.too_many(self._options.refusal_form, seconds, form or "seconds")

    def _file(self, path: str) -> Answer:
        if not self._account.has_file(path):
            return _answers.page(404)
        media_type, body = _results.file(path)
        return Answer(200, body, {"Content-Type": media_type})
