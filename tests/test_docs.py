"""Every Python block of the documentation runs, with a client of a service on this machine."""

import ast
import asyncio
import inspect
import logging
import pkgutil
import re
import shlex
from collections.abc import AsyncIterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
from PIL import Image

import aireiter_async
from aireiter_async import AsyncClient, SubmitRequest, models
from aireiter_async.cli._options import SubmitOptions
from aireiter_async.testing import FakeService, Fault

DOCS = Path(__file__).parent.parent / "docs"
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in DOCS.glob("*.md")}
GENERATED = {"models", "cli"}  # at each build
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.fixture
async def client(
    service: FakeService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[AsyncClient]:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 48), "teal").save("photo.jpg")  # pages send it
    monkeypatch.setenv("AIREITER_API_KEY", service.api_key or "")
    monkeypatch.setenv("AIREITER_BASE_URL", service.url)
    logger = logging.getLogger("aireiter_async")
    level = logger.level
    async with service.client() as client:
        yield client
    logger.setLevel(level)  # a page sets it
    if AioHttpClientInstrumentor().is_instrumented_by_opentelemetry:
        AioHttpClientInstrumentor().uninstrument()


@pytest.mark.parametrize("page", sorted(PAGES.keys() - GENERATED))
async def test_every_block_runs(page: str, client: AsyncClient, service: FakeService) -> None:
    """The blocks of a page share their names, as cells of a notebook do."""
    names: dict[str, Any] = {"client": client, "asyncio": asyncio, "models": models}
    for block in BLOCK.findall(PAGES[page]):
        code = compile(block, page, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        running = eval(code, names)  # noqa: S307 - our own documentation
        if inspect.isawaitable(running):
            await running
    ids = [charge.out_task_id for charge in service.charges]
    assert len(ids) == len(set(ids))


async def test_a_test_as_on_the_page_passes(client: AsyncClient, service: FakeService) -> None:
    block = BLOCK.findall(PAGES["testing"])[-1]
    names: dict[str, Any] = {"Fault": Fault}
    exec(block, names)  # noqa: S102 - our own documentation
    await names["test_a_lost_response_is_paid_for_once"](client, service)


def test_the_pages_have_blocks() -> None:
    assert sum(len(BLOCK.findall(text)) for text in PAGES.values()) > 15


@pytest.fixture
def generated(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(DOCS))
    return pytest.importorskip("generated", reason="needs a newer cyclopts", exc_type=ImportError)


def test_the_page_of_models_is_complete(generated: Any) -> None:
    page = generated.write_models()
    assert page == generated.write_models()
    sections = {text.partition("\n")[0]: text for text in page.split("\n### ")[1:]}
    classes = set(models.MODELS.values())
    assert sections.keys() == {each.MODEL for each in classes}
    assert len(sections) == 66
    for cls in classes:
        section = sections[cls.MODEL]
        assert cls.DOC in section
        for parameter in cls.PARAMETERS:
            assert f"\n| `{parameter.name}` | {parameter.type}" in section.replace("\\", "")
        for name in cls.VARIANTS:
            assert name in section


def test_both_examples_of_a_model_are_the_same_request(generated: Any) -> None:
    page = generated.write_models()
    pairs = re.findall(r"```python\n(.+)\n```\n\n```console\n\$ (.+)\n```", page)
    assert len(pairs) == 66
    for code, command in pairs:
        program, verb, model, *arguments, option, place = shlex.split(command)
        assert (program, verb, option, place) == ("aireiter", "run", "-o", "results")
        written = SubmitOptions().request(model, arguments, pytest.fail)
        expected = SubmitRequest(model, eval(code, {"models": models}))  # noqa: S307 - ours
        assert written.encode_content() == expected.encode_content()


def test_the_page_of_commands_is_complete(generated: Any) -> None:
    page = generated.write_commands()
    assert page == generated.write_commands()
    for name in generated.app:
        if name.startswith("-"):
            continue
        assert f"\n## aireiter {name}\n" in page
        for argument in generated.app[name].assemble_argument_collection(parse_docstring=True):
            assert argument.names == ("*",) or generated.option(argument) in page


def test_the_api_reference_is_complete(generated: Any) -> None:
    """Every public name has a directive, or its module is documented with its members."""
    text = PAGES["api"] + generated.write_models()
    directives = re.findall(
        r"^(?:\.\. |```\{)(?:auto|py:)(\w+)(?:::|\}) aireiter_async\.?(\S*)((?:\n   .*)*)",
        text,
        re.MULTILINE,
    )
    documented = {name.rpartition(".")[2] for kind, name, _ in directives if kind != "module"}
    modules = {name for kind, name, _ in directives if kind == "module"}
    for kind, name, options in directives:
        if kind == "module" and ":no-members:" not in options:
            documented |= {*import_module(f"aireiter_async.{name}").__all__}
    private = {"__main__", "cli", "report"}
    public = [
        module.name
        for module in pkgutil.iter_modules(aireiter_async.__path__)
        if not module.name.startswith("_") and module.name not in private
    ]
    assert modules == set(public)
    for name in public:
        names = getattr(import_module(f"aireiter_async.{name}"), "__all__")  # noqa: B009 - lazy
        assert {*names} - documented == set()
    assert {*aireiter_async.__all__} - documented - modules == {"__version__"}
