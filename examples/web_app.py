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

from aireiter_async import (
    AireiterError,
    AsyncClient,
    InvalidRequestError,
    TaskTimeoutError,
    models,
)

CLIENT = web.AppKey("client", AsyncClient)
LOGGER = logging.getLogger(__name__)
PATIENCE = 300  # seconds


async def client(app: web.Application) -> AsyncIterator[None]:
    """Open one session and one client for the life of the application."""
    async with ClientSession() as session, AsyncClient(session=session) as app[CLIENT]:
        yield


async def image(request: web.Request) -> web.Response:
    """Answer with the URL of an image of what the user asks for, or say whose fault it is."""
    asked = {name: request.query.get(name) or None for name in ("prompt", "aspect_ratio")}
    try:
        wanted = models.build("nano_banana_v2", asked)
        task = await request.app[CLIENT].run(wanted, timeout=PATIENCE)
    except models.InvalidParamsError as error:  # the user's: nothing was sent
        raise web.HTTPBadRequest(text=str(error)) from error
    except InvalidRequestError as error:  # the user's, says the service
        raise web.HTTPBadRequest(text=error.message) from error
    except TaskTimeoutError as error:
        text = f"the image takes its time: task {error.out_task_id}"
        raise web.HTTPGatewayTimeout(text=text) from error
    except AireiterError as error:  # the service's, or ours: what it is does not concern the user
        LOGGER.exception("there is no image")
        raise web.HTTPBadGateway(text="there is no image") from error
    urls = [output.url for output in task.outputs if output.url is not None]
    if not urls:
        raise web.HTTPBadGateway(text=f"the service made no image: task {task.out_task_id}")
    return web.json_response({"url": urls[0], "task": task.out_task_id})


def application() -> web.Application:
    """Make the application."""
    app = web.Application()
    app.cleanup_ctx.append(client)
    app.router.add_get("/image", image)
    return app


if __name__ == "__main__":
    web.run_app(application(), host="127.0.0.1", port=8080)
