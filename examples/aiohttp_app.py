"""Generate images for the users of an aiohttp application; restarts lose nothing.

::

    pip install . && python examples/aiohttp_app.py

Then, in another terminal::

    curl -H 'X-User: ada' --json '{"key": "1", "prompt": "a heron"}' http://127.0.0.1:8000/images
    curl -H 'X-User: ada' http://127.0.0.1:8000/images/1
    curl -H 'X-User: ada' -N http://127.0.0.1:8000/images/1/events

POST stores the job and responds at once. The header stands in for your authentication. Without
``AIREITER_API_KEY``, it has a fake service of its own, and forgets its jobs in the end.
"""

import argparse
from collections.abc import AsyncIterator

from aiohttp import web
from jobs import STREAM_HEADERS, Jobs

from aireiter_async.errors import AireiterError, http_status

JOBS = web.AppKey("jobs", Jobs)


async def run_jobs(app: web.Application) -> AsyncIterator[None]:
    """Run the jobs as long as the application runs."""
    async with Jobs() as app[JOBS]:
        yield


async def end_streams(app: web.Application) -> None:
    """End the streams: the connections are waited for next."""
    app[JOBS].stopping.set()


async def create(request: web.Request) -> web.Response:
    """Store and start a job."""
    try:
        order = await request.json()
        params = {name: order[name] for name in ("prompt", "aspect_ratio") if name in order}
        job = request.app[JOBS].create(request.headers["X-User"], str(order["key"]), params)
    except KeyError as error:
        raise web.HTTPBadRequest(text=f"{error} is missing") from error
    except (AireiterError, ValueError, TypeError) as error:
        return web.json_response({"error": str(error)}, status=http_status(error))
    return web.json_response(job, status=202)


async def report(request: web.Request) -> web.Response:
    """Return the state of a job."""
    job = request.app[JOBS].get(request.headers.get("X-User", ""), request.match_info["key"])
    if job is None:
        raise web.HTTPNotFound
    return web.json_response(job)


async def events(request: web.Request) -> web.StreamResponse:
    """Stream a job's changes as server-sent events."""
    jobs, user, key = (
        request.app[JOBS],
        request.headers.get("X-User", ""),
        request.match_info["key"],
    )
    if jobs.get(user, key) is None:
        raise web.HTTPNotFound
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", **STREAM_HEADERS})
    await response.prepare(request)
    async for event in jobs.events(user, key):
        await response.write(event.encode())
    return response


def application() -> web.Application:
    """Make the application."""
    app = web.Application()
    app.cleanup_ctx.append(run_jobs)
    app.on_shutdown.append(end_streams)
    app.router.add_post("/images", create)
    app.router.add_get("/images/{key}", report)
    app.router.add_get("/images/{key}/events", events)
    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Generate images for users.")
    parser.add_argument("--port", type=int, default=8000)
    web.run_app(
        application(),
        host="127.0.0.1",
        port=parser.parse_args().port,
        shutdown_timeout=5.0,  # connections without a request would be waited for as well
    )
