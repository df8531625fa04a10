"""FakeService as a program."""

import asyncio
import contextlib
import io
import re
import runpy
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

import aireiter_async.testing
from aireiter_async.testing._program import main

ROOT = Path(aireiter_async.testing.__file__).parents[2]
LINE = re.compile(
    r"FakeService is at (\S+); point a client at it with "
    r"AIREITER_BASE_URL=(\S+) AIREITER_API_KEY=(\S+)\n"
)


@pytest.fixture
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_it_runs_until_a_signal(number: signal.Signals) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-m", "aireiter_async.testing"),
        *("--port", "0", "--seed", "1", "--credits", "7", "--fault", "server-error=0"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdout is not None
    found = LINE.fullmatch((await process.stdout.readline()).decode())
    assert found is not None
    url, base_url, key = found.groups()
    assert url == base_url
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.get(f"{url}/api/openapi/balance") as response,
    ):
        assert (await response.json())["data"]["credits"] == 7
        process.send_signal(number)
        summary = b"charged 0 credits for 0 tasks; more than once: none\n"
        assert await process.communicate() == (summary, b"")
    assert process.returncode == 0


class _Stopping(io.StringIO):
    """A stdout whose reader stops the program as soon as it has read a line."""

    def flush(self) -> None:
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.usefixtures("handlers")
def test_main_returns_zero_when_stopped() -> None:
    with contextlib.redirect_stdout(_Stopping()) as out:
        assert main([]) == 0
    assert LINE.match(out.getvalue())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fault", "lost"], "got 'lost'; names: lost, reset, "),
        (["--fault", "other=0.1"], "got 'other=0.1'; names: lost, reset, "),
        (["--fault", "lost@other=0.1"], "endpoints: submit, query, balance, result"),
        (["--fault", "failed@balance=0.1"], "NAME@ENDPOINT=PROBABILITY"),
        (["--outputs", "0"], "'outputs' must be >= 1: 0"),
        (["--outputs", "two"], "'outputs' must be <class 'int'>"),
        (["--fault", "lost=0.7", "--fault", "reset=0.7"], "must be in 0 to 1"),
        (["--envelope", "other"], "invalid choice"),
        (["--results-cert", "no-such.pem"], "No such file"),
    ],
)
def test_bad_arguments_are_explained(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.usefixtures("handlers")
def test_a_taken_port_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SystemExit) as caught:
        main(["--port", str(taken.getsockname()[1])])
    assert caught.value.code == 2
    assert "in use" in capsys.readouterr().err


def test_it_is_a_module_to_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["testing", "--help"])
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("aireiter_async.testing", run_name="__main__")
    assert caught.value.code == 0
    assert "python -m aireiter_async.testing" in capsys.readouterr().out
