"""Generate images for the users of a FastAPI application; restarts lose nothing.

::

    pip install . fastapi uvicorn && uvicorn --app-dir examples fastapi_app:app

Then, in another terminal::

    curl -H 'X-User: ada' --json '{"key": "1", "prompt": "a heron"}' http://127.0.0.1:8000/images
    curl -H 'X-User: ada' http://127.0.0.1:8000/images/1
    curl -H 'X-User: ada' -N http://127.0.0.1:8000/images/1/events

POST stores the job and responds at once. The header stands in for your authentication. Without
``AIREITER_API_KEY``, each process has a fake service of its own, and forgets its jobs in the end.
"""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import FrameType
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, HTTPException, Request
from fastapi.responses import JSONResponse, StreamingResponse
from jobs import STREAM_HEADERS, Jobs
from pydantic import BaseModel

from aireiter_async.errors import AireiterError, http_status


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Run the jobs as long as the application runs."""
    async with Jobs() as jobs:
        app.state.jobs = jobs
        _end_streams_on_shutdown(jobs)
        yield


def _end_streams_on_shutdown(jobs: Jobs) -> None:
    """Set `Jobs.stopping` with the signal: uvicorn ends the lifespan only after all streams."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        uvicorns: Any = signal.getsignal(number)

        def stop(number: int, frame: FrameType | None, then: Any = uvicorns) -> None:
            loop.call_soon_threadsafe(jobs.stopping.set)
            then(number, frame)

        signal.signal(number, stop)


app = FastAPI(lifespan=lifespan)


def get_jobs(request: Request) -> Jobs:
    """Return the jobs of the application."""
    jobs: Jobs = request.app.state.jobs
    return jobs


User = Annotated[str, Header(alias="X-User")]
AllJobs = Annotated[Jobs, Depends(get_jobs)]


class Order(BaseModel):
    """A job that a user posts; a form that is posted twice has the same key, and is one job."""

    key: str
    prompt: str
    aspect_ratio: str | None = None


@app.exception_handler(AireiterError)
@app.exception_handler(ValueError)
async def explain(_request: Request, error: Exception) -> JSONResponse:
    """Respond with the error and its status."""
    return JSONResponse({"error": str(error)}, http_status(error))


@app.post("/images", status_code=202)
async def create(order: Order, user: User, jobs: AllJobs) -> dict[str, Any]:
    """Store and start a job."""
    params = order.model_dump(exclude={"key"}, exclude_none=True)
    return jobs.create(user, order.key, params)


@app.get("/images/{key}")
async def report(key: str, user: User, jobs: AllJobs) -> dict[str, Any]:
    """Return the state of a job."""
    job = jobs.get(user, key)
    if job is None:
        raise HTTPException(404)
    return job


@app.get("/images/{key}/events")
async def events(key: str, user: User, jobs: AllJobs) -> StreamingResponse:
    """Stream a job's changes as server-sent events."""
    if jobs.get(user, key) is None:
        raise HTTPException(404)
    return StreamingResponse(
        jobs.events(user, key), media_type="text/event-stream", headers=STREAM_HEADERS
    )
