"""Every class of the catalogue over a real socket: what is declared is what arrives."""

import asyncio
from collections.abc import Iterator

import pytest
from attrs import frozen
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aireiter_async import AsyncClient, models
from aireiter_async.testing import FakeService
from tests.model_strategies import instances


@frozen
class Line:
    """A client and a service, for tests without a loop of their own."""

    runner: asyncio.Runner
    service: FakeService
    client: AsyncClient


@pytest.fixture(scope="module")
def line() -> Iterator[Line]:
    """One line for all models."""
    service = FakeService()
    with asyncio.Runner() as runner:
        runner.run(service.start())
        client = AsyncClient(service.api_key, base_url=service.url)
        yield Line(runner, service, client)
        runner.run(client.close())
        runner.run(service.close())


@pytest.mark.parametrize("model", sorted(models.MODELS))
@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_what_is_valid_arrives_as_it_was_declared(
    line: Line, model: str, data: st.DataObject
) -> None:
    """Whatever a class accepts is accepted, and its parameters arrive as ``to_params`` says."""
    instance = data.draw(instances(model))
    task = line.runner.run(line.client.submit(instance))
    body = line.service.requests[-1].body
    assert body == {
        "model": instance.model_name,
        "params": instance.to_params(),
        "out_task_id": task.out_task_id,
    }
    assert line.service.charges[-1].model == task.model == instance.model_name
