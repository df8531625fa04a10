"""A user's web app, for type checkers: an aiohttp application with one client for its lifetime."""

from collections.abc import AsyncIterator

from aiohttp import web

from aireiter_async import (
    AireiterError,
    AsyncClient,
    PollPolicy,
    RateLimitError,
    RetryPolicy,
    Task,
    TaskNotFoundError,
    models,
)
from aireiter_async.errors import http_status

CLIENT = web.AppKey("client", AsyncClient)


async def client_context(app: web.Application) -> AsyncIterator[None]:
    policy = RetryPolicy(attempts=3)
    async with AsyncClient(retry=policy, polling=PollPolicy(), max_concurrency=32) as client:
        app[CLIENT] = client
        yield


def as_json(task: Task) -> web.Response:
    outputs: list[str] = [output.url for output in task.outputs if output.url is not None]
    return web.json_response({"done": task.done, "task": task.to_dict(), "urls": outputs})


async def submit(request: web.Request) -> web.Response:
    body: dict[str, object] = await request.json()
    try:
        client = request.app[CLIENT]
        task = await client.submit(str(body.pop("model")), body, metadata={"user": "u1"})
    except models.InvalidParamsError as error:
        names: list[str] = [problem.param for problem in error.problems]
        return web.json_response({"invalid": names}, status=422)
    except RateLimitError as error:
        return web.json_response({"retry_after": error.retry_after}, status=503)
    except AireiterError as error:
        return web.json_response({"error": error.message}, status=http_status(error))
    return as_json(task)


async def events(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    async for task in request.app[CLIENT].watch(request.match_info["id"], timeout=600):
        await response.write(f"data: {task.status}\n\n".encode())
    return response


async def show(request: web.Request) -> web.Response:
    def report(task: Task) -> None:
        print(task.out_task_id, task.status, task.credits_used)

    client = request.app[CLIENT]
    try:
        return as_json(await client.wait(request.match_info["id"], timeout=30.0, on_update=report))
    except TaskNotFoundError:
        found: Task | None = await client.find(request.match_info["id"])
        return web.json_response(found and found.to_dict(), status=404)


def make_app() -> web.Application:
    app = web.Application()
    app.cleanup_ctx.append(client_context)
    app.add_routes([web.post("/tasks", submit), web.get("/tasks/{id}", show)])
    app.add_routes([web.get("/tasks/{id}/events", events)])
    return app
