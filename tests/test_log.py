"""The log: every line says which call, which host and which ID; AIREITER_LOG shows it."""

import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aireiter_async import (
    AsyncClient,
    RetryPolicy,
    SQLiteStore,
    SubmitRequest,
)
from aireiter_async._log import read_level
from aireiter_async._text import host_of, without_queries
from aireiter_async.testing import FakeService, Fault
from tests.command import VIDEO, Ran

Connect = Callable[..., AsyncClient]
Run = Callable[..., Ran]

LINE = re.compile(
    r"(submit|query|wait|result) [\w-]{4,} at 127\.0\.0\.1:\d+: .+"
    r"|(connect to|balance at|batch at) 127\.0\.0\.1:\d+: .+"
)


def request(prompt: str = "a kitten") -> SubmitRequest:
    return SubmitRequest("veo3_1", {"prompt": prompt})


async def test_every_line_says_which_call_host_and_id(
    service: FakeService, connect: Connect, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    client = connect(retry=RetryPolicy(base=0, settle=0, attempts=3))
    for fault in (
        *(Fault.lost_response(accepted=True), Fault.too_many_requests(0), Fault.html(502)),
        *(Fault.broken_json(accepted=True), Fault.server_error(), Fault.reset()),
    ):
        service.script("submit", fault)
        service.script("query", Fault.task_status("processing"), fault)
    service.script("balance", Fault.server_error())
    service.script("result", Fault.reset(), Fault.server_error())
    await client.balance()
    requests = [request(f"{n}") for n in range(8)]
    async for outcome in client.run_many(requests, download_to=tmp_path, window=1):
        assert outcome.ok
    service.script("query", Fault.task_status("odd"), Fault.ok(), Fault.server_error())
    task = await client.submit(request())
    await client.wait(task.out_task_id)
    await client.query(task)
    store = SQLiteStore(tmp_path / "claims.db")
    await client.submit(request(), out_task_id="claimed", idempotency=store)
    await store.close()
    records = [each for each in caplog.records if each.name.startswith("aireiter_async")]
    odd = [each.getMessage() for each in records if not LINE.fullmatch(each.getMessage())]
    assert odd == []
    first = {each.getMessage().split()[0] for each in records}
    assert first == {"submit", "query", "wait", "result", "connect", "balance"}
    assert {each.levelno for each in records} == {logging.DEBUG, logging.INFO, logging.WARNING}
    assert all(each.name.count(".") for each in records)


@pytest.mark.parametrize("lost", [False, True])
async def test_the_end_of_a_task_is_logged_once(
    service: FakeService, connect: Connect, caplog: pytest.LogCaptureFixture, *, lost: bool
) -> None:
    """Whether a poll finds it or the lookup of a lost response."""
    client = connect(retry=RetryPolicy(settle=0))
    if lost:
        service.script("submit", Fault.lost_response(accepted=True))
    task = await client.run(request())
    end = f"wait {task.out_task_id} at {service.url.partition('//')[2]}: completed"
    assert caplog.messages.count(end) == 1


async def test_a_pause_of_a_batch_is_logged_with_its_host(
    service: FakeService, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    client = connect(retry=RetryPolicy(base=0, settle=0, attempts=1))
    batch = client.submit_many([request("1"), request("2")], ordered=True)
    assert (await anext(batch)).ok
    await batch.aclose()
    service.script("submit", Fault.ok(), Fault.lost_response())
    service.script("query", *[Fault.reset()] * 3)
    assert [outcome.ok async for outcome in client.submit_many([request("3"), request("4")])]
    warnings = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert all(LINE.fullmatch(text) for text in warnings)
    assert any(text.startswith("batch at ") for text in warnings)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at https://a.example/b.png?x-signature=s+%2F", "at https://a.example/b.png?..."),
        ("'https://a.example/b?X-Amz-Signature=s&a=b': gone", "'https://a.example/b?...': gone"),
        ("https://a.example/?sesame", "https://a.example/?..."),
        ('{"url":"https:\\/\\/a.example\\/b?token=s"}', '{"url":"https:\\/\\/a.example\\/b?..."}'),
        ("<a href=/b?token=s>", "<a href=/b?...>"),
        ("s3://bucket/b?versionId=s", "s3://bucket/b?..."),
        ("what now? yes: a=b", "what now? yes: a=b"),
        ("https://a.example/b", "https://a.example/b"),
    ],
)
def test_query_strings_are_removed(text: str, shown: str) -> None:
    assert without_queries(text) == shown


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://a.example/b?c=d", "a.example"),
        ("http://joe:sesame@a.example:81/", "a.example:81"),
        ("http://[::1]:81/", "[::1]:81"),
        ("http://[::1/", ""),
        ("data:,x", ""),
    ],
)
def test_the_host_of_a_url(url: str, host: str) -> None:
    assert host_of(url) == host


USE = """
import asyncio, logging, sys
from aireiter_async import SubmitRequest
from aireiter_async.testing import FakeService, Fault

async def main():
    async with FakeService() as service, service.client() as client, service.client():
        service.script("submit", Fault.lost_response(accepted=True))
        service.script("query", Fault.task_status("processing"))
        await client.run(SubmitRequest("veo3_1", {"prompt": "a kitten"}), out_task_id="mine")
        print(service.api_key)

"""
BARE = USE + "asyncio.run(main())"
CONFIGURED = USE + "logging.basicConfig(format='own %(message)s', level=0)\nasyncio.run(main())"


def run(script: str, level: str) -> tuple[int, list[str], str]:
    """Run a script with AIREITER_LOG; return its status, its lines on stderr, and the key."""
    done = subprocess.run(  # noqa: S603 - our own script
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "AIREITER_LOG": level},
    )
    return done.returncode, done.stderr.splitlines(), done.stdout.strip()


@pytest.mark.parametrize("level", ["debug", "INFO"])
def test_the_variable_shows_the_log(level: str) -> None:
    status, lines, key = run(BARE, level)
    assert (status, len(key) > 8) == (0, True)
    assert key not in "".join(lines)
    kinds = {line.split()[2] for line in lines}
    assert kinds == {"debug": {"DEBUG", "INFO"}, "INFO": {"INFO"}}[level]
    for line in lines:
        time, name, message = re.fullmatch(r"(\S+ \S+) \w+ (\S+): (.*)", line).groups()  # type: ignore[union-attr]
        assert time.startswith("20")
        assert name.startswith("aireiter_async.")
        assert LINE.fullmatch(message)


def test_an_application_that_logs_is_not_told_twice() -> None:
    status, lines, _ = run(CONFIGURED, "info")
    ours = [line for line in lines if "mine at" in line]
    assert status == 0
    assert len(ours) == 1
    assert ours[0].startswith("own ")


def test_an_unknown_level_is_an_error_of_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIREITER_LOG", "loud")
    with pytest.raises(ValueError, match="AIREITER_LOG must be debug or info, got 'loud'"):
        AsyncClient("sk-test-0123")


@pytest.fixture
def quiet() -> Any:
    logger = logging.getLogger("aireiter_async")
    handlers, level = [*logger.handlers], logger.level
    yield logger
    logger.handlers[:] = handlers
    logger.setLevel(level)


@pytest.mark.parametrize("level", ["info", "debug", "warning"])
def test_the_command_shows_the_log(
    served: FakeService,
    aireiter: Run,
    quiet: logging.Logger,
    monkeypatch: pytest.MonkeyPatch,
    level: str,
) -> None:
    monkeypatch.setenv("AIREITER_LOG", level)
    served.script("submit", Fault.lost_response(accepted=True))
    ran = aireiter("submit", *VIDEO, "--id", "mine")
    if level == "warning":
        assert (ran.status, "AIREITER_LOG must be debug or info" in ran.err) == (2, True)
        return
    assert ran.status == 0
    assert "info: submit mine at 127.0.0.1:" in ran.err
    assert ("debug: submit mine at 127.0.0.1:" in ran.err) == (level == "debug")
    assert len(ran.err.splitlines()) == (2 if level == "info" else 4)
    assert quiet.level == logging.NOTSET


def test_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIREITER_LOG", raising=False)
    assert read_level() is None
    monkeypatch.setenv("AIREITER_LOG", "")
    assert read_level() is None
    monkeypatch.setenv("AIREITER_LOG", " Debug ")
    assert read_level() == logging.DEBUG


def test_the_handler_is_added_once(
    quiet: logging.Logger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AIREITER_LOG", "info")
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    for _ in range(2):
        AsyncClient("sk-test-0123")
    logging.getLogger("aireiter_async.events").info("hello")
    assert capsys.readouterr().err.endswith(" INFO aireiter_async.events: hello\n")
    assert quiet.level == logging.INFO


def test_an_application_may_want_more(
    quiet: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIREITER_LOG", "info")
    quiet.setLevel(logging.DEBUG)
    AsyncClient("sk-test-0123")
    assert quiet.level == logging.DEBUG
