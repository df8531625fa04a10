"""Generate images for the users of a web application, over the application's own session.

::

    export AIREITER_API_KEY=...
    python examples/web_app.py
    curl 'http://127.0.0.1:8080/image?prompt=a+lighthouse&aspect_ratio=16:9'

The client borrows the session, so proxies, TLS and tracing are the application's, and
every request of every user shares its pool, its pace and its cool-down.
"""

import logging
from collections.abc import AsyncIterator

from aiohttp import ClientSession, web

from aireiter_async import AireiterError, AsyncClient, models
from aireiter_async.errors import http_status

CLIENT = web.AppKey("client", AsyncClient)
LOGGER = logging.getLogger(__name__)
TIMEOUT = 300  # seconds


async def client(app: web.Application) -> AsyncIterator[None]:
    """Open one session and one client for the lifetime of the application."""
    async with ClientSession() as session, AsyncClient(session=session) as app[CLIENT]:
        yield


async def image(request: web.Request) -> web.Response:
    """Respond with the URL of an image, or with an error and its HTTP status."""
    params = {name: request.query.get(name) or None for name in ("prompt", "aspect_ratio")}
    try:
        wanted = models.build("nano_banana_v2", params)
        task = await request.app[CLIENT].run(wanted, timeout=TIMEOUT)
    except (AireiterError, ValueError) as error:
        status = http_status(error)
        if status >= 500:  # noqa: PLR2004 - not the user's fault
            LOGGER.exception("no image")
        return web.json_response({"error": str(error)}, status=status)
    return web.json_response({"url": task.url, "task": task.out_task_id})


def application() -> web.Application:
    """Create the application."""
    app = web.Application()
    app.cleanup_ctx.append(client)
    app.router.add_get("/image", image)
    return app


if __name__ == "__main__":
    web.run_app(application(), host="127.0.0.1", port=8080)
