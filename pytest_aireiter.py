"""pytest plugin: a fake AIReiter service and a client of it, for async tests that ask for them.

pytest loads it in every project of an environment, so it stays outside of the package: to import
anything below ``aireiter_async`` is to import the client and aiohttp.
"""

import sys
from collections.abc import AsyncIterator, Callable
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from aireiter_async import AsyncClient
    from aireiter_async.testing import FakeService

_LOOP_SCOPES = ("function", "class", "module", "package", "session")


@pytest.fixture
def aireiter_service(request: pytest.FixtureRequest) -> "FakeService":
    """A `FakeService` in the test's loop."""
    service: FakeService = request.getfixturevalue(f"_aireiter_service_{_runner_of(request)}")
    return service


@pytest.fixture
def aireiter_client(request: pytest.FixtureRequest) -> "AsyncClient":
    """A client of ``aireiter_service`` in the test's loop, without noticeable delays."""
    client: AsyncClient = request.getfixturevalue(f"_aireiter_client_{_runner_of(request)}")
    return client


def _runner_of(request: pytest.FixtureRequest) -> str:
    """Return who runs the test: "anyio", or the scope of its loop under pytest-asyncio."""
    if "anyio_backend" in request.fixturenames:
        if "trio" in str(request.getfixturevalue("anyio_backend")):
            pytest.skip("aireiter_async runs on asyncio only")
        return "anyio"
    marker = request.node.get_closest_marker("asyncio")
    if marker is None:
        pytest.fail(
            "aireiter_service and aireiter_client are for async tests: mark the test with "
            "pytest.mark.asyncio (pytest-asyncio) or pytest.mark.anyio (anyio)",
            pytrace=False,
        )
    default = request.config.getini("asyncio_default_test_loop_scope")
    return str(marker.kwargs.get("loop_scope") or marker.kwargs.get("scope") or default)


def _functions() -> dict[str, Callable[..., AsyncIterator[Any]]]:
    """Return new functions: a decorator of pytest-asyncio leaves its mark on them."""

    async def serve() -> AsyncIterator["FakeService"]:
        from aireiter_async.testing import FakeService  # noqa: PLC0415 - see above

        async with FakeService() as service:
            yield service

    async def connect(aireiter_service: "FakeService") -> AsyncIterator["AsyncClient"]:
        async with aireiter_service.client() as client:
            yield client

    return {"service": serve, "client": connect}


def pytest_configure(config: pytest.Config) -> None:
    """Make the fixtures that those above choose from."""
    fixtures = ModuleType("aireiter_fixtures")
    makers: dict[str, Callable[..., Any]] = {"anyio": pytest.fixture}
    loaded = sys.modules.get("pytest_asyncio.plugin")
    if loaded is not None and config.pluginmanager.is_registered(loaded):
        import pytest_asyncio  # noqa: PLC0415 - loaded already

        for scope in _LOOP_SCOPES:
            makers[scope] = partial(pytest_asyncio.fixture, loop_scope=scope)
    for runner, make in makers.items():
        for kind, function in _functions().items():
            name = f"_aireiter_{kind}_{runner}"
            setattr(fixtures, name, make(name=name)(function))
    config.pluginmanager.register(fixtures)
