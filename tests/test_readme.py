"""The README: its examples run, its links lead somewhere, its table is the benchmarks'."""

import asyncio
import json
import re
import shlex
import subprocess
import sys
import textwrap
import threading
import tomllib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import aireiter_async
from aireiter_async import (
    AsyncClient,
    ConnectError,
    Ledger,
    RetryPolicy,
    SubmitRequest,
    models,
)
from aireiter_async.testing import FakeService, Fault
from tests.command import PNG, Ran

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
LINKS = re.findall(r"\]\((?!https?://)([^)]+)\)", README)
MAX_PICTURE = 300_000  # bytes
COMMANDS, CONSOLE, BLOCKS = (
    re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    for language in ("sh", "console", "python")
)
SCRIPTS = [block for block in BLOCKS if "fastapi" not in block]
SCRIPTS.append(textwrap.dedent((aireiter_async.__doc__ or "").partition("::\n")[2]))


def prepare(directory: Path) -> None:
    """Write the files that the examples name."""
    (directory / "photo.jpg").write_bytes(PNG)
    (directory / "prompts.csv").write_text("prompt\na heron\nan owl\n", encoding="utf-8")


def test_what_the_readme_links_to_is_shipped() -> None:
    assert LINKS
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    shipped = project["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    for link in LINKS:
        assert (ROOT / link).is_file()
        assert f"/{Path(link).parts[0]}" in shipped


def test_the_pictures_are_small() -> None:
    pictures = [ROOT / link for link in LINKS if "/images/" in link]
    assert len(pictures) == 2
    for path in (*pictures, *(ROOT / "docs" / "images").iterdir()):
        assert path.stat().st_size < MAX_PICTURE


def test_ci_runs_the_tests_as_the_readme_says() -> None:
    demo, tests = COMMANDS
    assert demo.endswith("aireiter demo\n")
    assert tests in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_table_of_lost_responses_is_the_benchmarks() -> None:
    results = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
    measured: dict[str, set[tuple[str, bool]]] = {}
    section = results.partition("## When responses are lost")[2].partition("\n## ")[0]
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and cells[1].isdigit():
            name = re.sub(r"( submit$| over .+| by hand$|, usual code$)", "", cells[0])
            result = (cells[2].partition(" ")[0], cells[3] == "the task")
            measured.setdefault(name, set()).add(result)
    table = re.findall(r"^\| (.+) \| (\d) \| (.+) \|$", README, re.MULTILINE)
    written = {
        name: {(charges, outcome == "the task")}
        for names, charges, outcome in table
        for name in re.split(", | or ", names.replace(" by hand", ""))
    }
    assert written == measured
    assert len(table) == 3


@pytest.mark.parametrize("block", SCRIPTS, ids=range(1, len(SCRIPTS) + 1))
async def test_every_example_runs(
    block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(tmp_path)
    script = tmp_path / "example.py"
    script.write_text(block, encoding="utf-8")
    async with FakeService(check_models=True) as service:
        monkeypatch.setenv("AIREITER_API_KEY", service.api_key or "")
        monkeypatch.setenv("AIREITER_BASE_URL", service.url)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-W", "error", script.name),
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, complaints = await process.communicate()
        assert (process.returncode, complaints.decode()) == (0, "")
        assert b"results" in output
        ids = [charge.out_task_id for charge in service.charges]
        assert len(ids) == len(set(ids)) > 0
        assert service.leaks == []


def test_the_commands_run(served: FakeService, aireiter: Callable[..., Ran]) -> None:
    prepare(Path())
    lines = re.findall(r"^\$ aireiter (.+)$", "".join(CONSOLE), re.MULTILINE)
    assert len(lines) == 1
    for line in lines:
        for _ in range(2):  # a second run pays for nothing
            assert aireiter(*shlex.split(line)).status == 0
    assert Path("results/prompts.csv.html").is_file()
    (script,) = (block for block in SCRIPTS if "DictReader" in block)
    subprocess.run([sys.executable, "-c", script], check=True)  # noqa: S603 - with the same ledger
    assert len(served.charges) == 2


@pytest.mark.integrations
async def test_the_web_endpoint_makes_one_task_of_one_form(
    service: FakeService, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("fastapi")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AIREITER_API_KEY", service.api_key or "")
    monkeypatch.setenv("AIREITER_BASE_URL", service.url)
    (block,) = (block for block in BLOCKS if "fastapi" in block)
    names: dict[str, Any] = {}
    exec(block, names)  # noqa: S102 - our own documentation
    app = names["app"]
    request = {
        "type": "http",
        "method": "POST",
        "path": "/pictures/17",
        "headers": [],
        "query_string": b"prompt=a+heron",
    }
    replies: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    async def send(message: dict[str, Any]) -> None:
        replies.append(message)

    async with app.router.lifespan_context(app):
        for _ in range(2):
            await app(dict(request), receive, send)
    assert [each["status"] for each in replies if "status" in each] == [202, 202]
    first, second = (json.loads(each["body"]) for each in replies if each.get("body"))
    assert first["out_task_id"] == second["out_task_id"]
    assert len(service.charges) == 1


@pytest.mark.parametrize("accepted", [True, False])
async def test_a_cancelled_call_with_an_id_is_made_again(
    service: FakeService, client: AsyncClient, until: Any, *, accepted: bool
) -> None:
    service.script("submit", Fault.hang(accepted=accepted))
    request = models.NanoBananaV2(prompt="a heron")
    cancelled = asyncio.create_task(client.run(request, out_task_id="order-17"))
    await until(lambda: service.in_flight and len(service.charges) == accepted)
    cancelled.cancel()
    await asyncio.wait([cancelled])
    task = await client.run(request, out_task_id="order-17", maybe_sent=True)
    assert [charge.out_task_id for charge in service.charges] == ["order-17"] == [task.out_task_id]


@pytest.mark.parametrize("trust_env", [False, True])
async def test_the_environments_proxy_is_for_a_session_that_trusts_it(
    service: FakeService, monkeypatch: pytest.MonkeyPatch, *, trust_env: bool
) -> None:
    """``HTTP_PROXY`` counts for a lent session with ``trust_env``, and for nothing else."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    options: dict[str, Any] = {"base_url": service.url, "retry": RetryPolicy(attempts=1)}
    async with (
        aiohttp.ClientSession(trust_env=trust_env) as session,
        AsyncClient(service.api_key, session=session, **options) as lent,
        AsyncClient(service.api_key, **options) as owner,
    ):
        await owner.balance()
        if trust_env:
            with pytest.raises(ConnectError):
                await lent.balance()
        else:
            await lent.balance()


async def test_a_ledger_knows_a_request_by_its_content(
    service: FakeService, client: AsyncClient, tmp_path: Path
) -> None:
    cat, dog, owl = (SubmitRequest("nano_banana", {"prompt": it}) for it in ("cat", "dog", "owl"))
    ids: set[str] = set()
    for requests, charges in ([cat, dog], 2), ([cat, dog, owl], 3), ([owl, dog, cat], 3):
        async with Ledger(tmp_path / "run.db") as ledger:
            async for outcome in client.submit_many(requests, ledger=ledger):
                ids.add(outcome.result().out_task_id)
        assert len(service.charges) == charges
    assert ids == {charge.out_task_id for charge in service.charges}
    assert ids.isdisjoint({cat.out_task_id, dog.out_task_id, owl.out_task_id})


async def test_a_plain_iterable_is_read_on_the_loops_thread(client: AsyncClient) -> None:
    """What a plain iterable does between its items is done on the event loop's thread."""
    threads: list[int] = []

    def requests() -> Iterator[SubmitRequest]:
        for prompt in "abc":
            threads.append(threading.get_ident())
            yield SubmitRequest("nano_banana", {"prompt": prompt})

    assert [outcome.ok async for outcome in client.run_many(requests())] == [True] * 3
    assert threads == [threading.get_ident()] * 3


async def test_an_async_iterable_may_read_what_blocks(client: AsyncClient) -> None:
    """A source that blocks in a thread holds up nothing: what was pulled before is finished."""
    finished = threading.Event()

    async def requests() -> AsyncIterator[SubmitRequest]:
        yield SubmitRequest("nano_banana", {"prompt": "a cat"})
        assert await asyncio.to_thread(finished.wait, 60)
        yield SubmitRequest("nano_banana", {"prompt": "a dog"})

    outcomes = []
    async for outcome in client.run_many(requests()):
        outcomes.append(outcome.ok)
        finished.set()
    assert outcomes == [True, True]


@pytest.mark.parametrize(
    ("mistake", "kinds"),
    [
        (lambda: models.build("nano_banan", {}), (ValueError, KeyError)),
        (lambda: models.build("nano_banana", {"promt": "a cat"}), (ValueError, TypeError)),
        (lambda: models.NanoBananaV2(prompt=5), (ValueError, TypeError)),  # type: ignore[arg-type]
        (lambda: SubmitRequest("nano_banana", {}, out_task_id="a b"), (ValueError,)),
        (lambda: AsyncClient("key", timeout="5"), (TypeError,)),  # type: ignore[arg-type]
    ],
)
def test_a_bad_argument_is_a_value_or_a_type_error(
    mistake: Callable[[], object], kinds: tuple[type[Exception], ...]
) -> None:
    for kind in kinds:
        with pytest.raises(kind):
            mistake()
