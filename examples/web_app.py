"""
Generate images for the users of a web application, over the application's own session.

::

    export AIREITER_API_KEY=...
    python examples/web_app.py
    curl 'http://127.0.0.1:8080/image?prompt=a+lighthouse'

The client borrows the session, so proxies, TLS and tracing are the application's, and
every request of every user shares its pool, its pace and its cool-down.
"""

from collections.abc import AsyncIterator

from aiohttp import ClientSession, web

from aireiter_async import AireiterError, AsyncClient, InvalidRequestError, models

CLIENT = web.AppKey("client", AsyncClient)


async def client(app: web.Application) -> AsyncIterator[None]:
    """Open one session and one client for the life of the application."""
    async with ClientSession() as session, AsyncClient(session=session) as app[CLIENT]:
        yield


async def image(request: web.Request) -> web.Response:
    """Answer with the URL of an image of what the user asks for."""
    wanted = models.NanoBananaV2(prompt=request.query["prompt"])
    try:
        task = await request.app[CLIENT].run(wanted, timeout=300)
    except InvalidRequestError as error:
        raise web.HTTPBadRequest(text=error.message) from error
    except AireiterError as error:
        raise web.HTTPBadGateway(text=str(error)) from error
    return web.json_response({"url": task.outputs[0].url, "task": task.out_task_id})


def application() -> web.Application:
    """Make the application."""
    app = web.Application()
    app.cleanup_ctx.append(client)
    app.router.add_get("/image", image)
    return app


if __name__ == "__main__":
    web.run_app(application(), host="127.0.0.1", port=8080)
