"""A plain aiohttp client for the tests of FakeService, which must not lean on ours."""

import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
import attrs

from aireiter_async.testing import FakeService

SUBMIT = "/api/openapi/submit"
QUERY = "/api/openapi/query"
BALANCE = "/api/openapi/balance"


@attrs.frozen
class Reply:
    """One answer as a client sees it."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


@attrs.frozen
class Caller:
    """A client of one service."""

    service: FakeService
    session: aiohttp.ClientSession

    def open(self, method: str, path: str, **options: Any) -> Any:
        options.setdefault("headers", {"Authorization": f"Bearer {self.service.api_key}"})
        options.setdefault("allow_redirects", False)
        return self.session.request(method, self.service.url + path, **options)

    async def call(self, method: str, path: str, **options: Any) -> Reply:
        async with self.open(method, path, **options) as response:
            return Reply(response.status, response.headers, await response.text())

    async def submit(self, out_task_id: str = "a", /, **fields: Any) -> Reply:
        return await self.call("POST", SUBMIT, json=task(out_task_id, **fields))

    async def query(self, out_task_id: str = "a") -> Reply:
        return await self.call("POST", QUERY, json={"out_task_id": out_task_id})

    async def status(self, out_task_id: str) -> str:
        document = (await self.query(out_task_id)).json
        data = document["data"]
        return str(data["status"] if data else document["message"])

    async def balance(self) -> Reply:
        return await self.call("GET", BALANCE)


def task(out_task_id: str = "a", /, **fields: Any) -> dict[str, Any]:
    return {"model": "veo3_1", "params": {}, "out_task_id": out_task_id} | fields


@contextlib.asynccontextmanager
async def calling(**options: Any) -> AsyncIterator[Caller]:
    async with FakeService(**options) as service, aiohttp.ClientSession() as session:
        yield Caller(service, session)
