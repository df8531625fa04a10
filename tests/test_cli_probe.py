"""``aireiter doctor --probe``: the service's undocumented behaviours are told apart."""

import asyncio
import io
import os
import pty
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from aireiter_async import Ledger, SubmitRequest
from aireiter_async.cli import main
from aireiter_async.cli._app import parse
from aireiter_async.cli._doctor import Surroundings
from aireiter_async.cli._doctor._probe import Clock as ProbeClock
from aireiter_async.cli._output import Output
from aireiter_async.testing import FakeService, Fault
from tests.command import KEY, Ran
from tests.hostile_time import Clock

MODEL = "nano_banana_v2"
Probing = Callable[..., Awaitable["Probed"]]


class Probed:
    """What a probe has found."""

    def __init__(self, ran: Ran) -> None:
        self.ran = ran

    def __getitem__(self, name: str) -> tuple[bool | None, str]:
        fact = next(each for each in self.ran.document["probe"] if each["name"] == name)
        return fact["holds"], fact["found"]

    @property
    def verdict(self) -> tuple[str, str]:
        """The state and the text of the probe's check."""
        check = self.ran.document["checks"][-1]
        assert check["name"] == "probe"
        return check["state"], check["text"]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SSL_CERT_FILE", os.devnull)  # the system's authorities take long to load
    monkeypatch.setenv("AIREITER_API_KEY", KEY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(
    service: FakeService, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Awaitable[Ran]]:
    """Return what runs the doctor in the loop of the test, by the service's clock."""

    async def sleep(seconds: float) -> None:
        clock.pass_by(seconds)
        await asyncio.sleep(0)

    async def run(*argv: str, seconds: float = 5.0) -> Ran:
        command = parse(["doctor", "--base-url", service.url, *argv])
        assert command is not None
        output = Output.of(argv)
        output.options = command.options
        action: Any = command.action
        around = Surroundings(clock=ProbeClock(now=clock, sleep=sleep), seconds=seconds)
        return Ran(await action(output, around=around), *capsys.readouterr())

    return run


@pytest.fixture
def probe(run: Callable[..., Awaitable[Ran]]) -> Probing:
    """Return what probes and reads the document."""

    async def probe(*argv: str, **options: Any) -> Probed:
        return Probed(await run("--probe", MODEL, "--yes", "--json", *argv, **options))

    return probe


async def test_the_facts_are_a_table(
    service: FakeService, run: Callable[..., Awaitable[Ran]]
) -> None:
    ran = await run("--probe", MODEL, "--yes")
    lines = ran.out.splitlines()
    (title,) = (n for n, line in enumerate(lines) if line.split()[:2] == ["fact", "found"])
    assert "this client assumes" in lines[title]
    assert {line[0] for line in lines[title + 1 : title + 11]} == {"✓"}
    assert lines[-1] == "✓  probe  every assumption of this client holds"
    (charge,) = service.charges
    assert ran.err.splitlines() == [
        f"submitting task {charge.out_task_id}",
        f"task {charge.out_task_id} is completed",
    ]
    assert ran.status == 0
    assert service.posts(charge.out_task_id) == 2


USED = {
    "reject": ("rejected: out_task_id already exists (code 400)", 1),
    "return": ("returned: the first task, without a second charge", 1),
    "charge": ("charged again: the ID has two tasks now", 2),
}


@pytest.mark.parametrize(
    ("rejection_form", "estimates"), [("live", True), ("http", False), ("envelope", "zero")]
)
@pytest.mark.parametrize("used_id", USED)
async def test_used_ids_are_told_apart(
    service: FakeService, probe: Probing, used_id: Any, rejection_form: Any, estimates: Any
) -> None:
    service.used_id, service.rejection_form, service.estimates = used_id, rejection_form, estimates
    service.durations, service.price = 30.0, 2.5
    found = await probe()
    text, charges = USED[used_id]
    assert found["used ID"] == (True, text)
    assert len(service.charges) == charges
    assert service.posts(service.charges[0].out_task_id) == 2
    assert found.verdict == ("ok", "every assumption of this client holds")
    assert found["statuses"] == (True, "pending, processing, completed")
    estimated = {True: "estimated 2.5, ", False: "", "zero": "estimated 0, "}[estimates]
    assert found["credits"] == (
        True,
        f"{estimated}credits_used 2.5, charged at acceptance 2.5, charged in all {2.5 * charges:g}",
    )


@pytest.mark.parametrize("envelope", ["ok", "plain", "code", "list"])
@pytest.mark.parametrize("used_id", USED)
async def test_used_ids_are_told_apart_in_each_envelope(
    service: FakeService, probe: Probing, used_id: Any, envelope: Any
) -> None:
    service.used_id, service.envelope = used_id, envelope
    found = await probe()
    assert found["used ID"] == (True, USED[used_id][0])


FREE = {
    "reject": (True, "rejected: out_task_id already exists (code 400)"),
    "return": (True, "returned: the first task, by its created_at; the balance did not change"),
    "charge": (True, "accepted as another task, by its created_at; the balance did not change"),
}


@pytest.mark.parametrize("used_id", FREE)
async def test_free_tasks_are_told_apart_by_their_times(
    service: FakeService, probe: Probing, used_id: Any
) -> None:
    service.used_id, service.price, service.visible_after_polls = used_id, 0.0, 1
    assert (await probe())["used ID"] == FREE[used_id]


async def test_free_tasks_without_times_are_not_told_apart(
    service: FakeService, probe: Probing
) -> None:
    service.used_id, service.price, service.envelope = "charge", 0.0, "list"
    found = await probe()
    assert found["used ID"] == (None, "accepted; not known whether it was charged again")
    assert found.verdict[0] == "warning"
    assert found.ran.status == 0


@pytest.mark.parametrize("used_id", USED)
async def test_tasks_that_are_charged_at_their_end_are_counted(
    service: FakeService, probe: Probing, used_id: Any
) -> None:
    """The balance falls only between the second submit and the end."""
    service.used_id, service.price = used_id, 4.0
    service.script("balance", *(Fault.ok() for _ in range(2)))

    def balance(credits_: float) -> Fault:
        return Fault.reply(200, f'{{"statusCode":200,"data":{{"credits":{credits_}}}}}')

    charges = USED[used_id][1]
    # The doctor's two, that of the bad key, and the probe's four.
    service.script("balance", Fault.ok(), *(balance(100) for _ in range(3)))
    service.script("balance", balance(100 - 4 * charges))
    found = await probe()
    assert found["used ID"] == (True, USED[used_id][0])
    assert f"charged at acceptance 0, charged in all {4 * charges}" in found["credits"][1]


@pytest.mark.parametrize(
    ("seconds", "looks", "holds", "text"),
    [
        (0.0, 0, True, "at once: by the first query"),
        (4.9, 0, True, "3.0 to 5.0 s after its acceptance, by query 7"),
        (5.5, 0, False, "5.0 to 10.0 s after its acceptance, by query 8"),
        (0.0, 3, True, "0.3 to 0.7 s after its acceptance, by query 4"),
        (99.0, 0, False, "not found within 60 s"),
    ],
)
@pytest.mark.parametrize("used_id", ["reject", "charge"])
async def test_the_delay_until_a_task_is_visible_is_found(
    service: FakeService,
    probe: Probing,
    used_id: Any,
    seconds: float,
    looks: int,
    holds: bool,  # noqa: FBT001 - a parameter
    text: str,
) -> None:
    service.used_id, service.visible_after, service.visible_after_polls = used_id, seconds, looks
    found = await probe()
    assert found["visible"] == (holds, text)
    assert found.ran.status == (not holds)
    if not holds:
        assert found.verdict == ("error", "wrong assumptions: visible")
    assert len(service.charges) == USED[used_id][1]
    if seconds > 60:
        assert found["statuses"] == (None, "none")
        assert found["Range"] == (None, "not known: the task has not ended")


@pytest.mark.parametrize("form", ["live", "http", "envelope"])
async def test_the_shapes_of_errors_are_shown(
    service: FakeService, probe: Probing, form: Any
) -> None:
    service.rejection_form = form
    found = await probe()
    status = {"live": 200, "http": 400, "envelope": 200}[form]
    reply = '{"statusCode":400,"message":"Invalid model","ok":false}'
    assert found["400"] == (True, f"InvalidRequestError: HTTP {status} {reply}")
    assert found["401 on query"][1].startswith("AuthenticationError: HTTP ")
    assert "Unauthorized" in found["401 on balance"][1]
    assert "api task not found" in found["unknown ID"][1]
    assert all(found[name][0] for name in ("401 on query", "401 on balance", "unknown ID"))
    assert len(service.charges) == 1


async def test_a_service_without_keys_is_noticed(service: FakeService, probe: Probing) -> None:
    service.api_key = None
    found = await probe()
    assert found["401 on balance"][0] is False
    assert found["401 on balance"][1].startswith("success: HTTP 200 ")
    assert found.verdict == ("error", "wrong assumptions: 401 on query, 401 on balance")
    assert found.ran.status == 1


async def test_a_long_error_is_cut_and_shows_no_key(service: FakeService, probe: Probing) -> None:
    text = f'{{"statusCode":400,"message":"{KEY} {"kittens " * 100}"}}'
    service.script("submit", Fault.reply(400, text))
    found = await probe()
    assert found["400"][1].endswith("...")
    assert KEY not in found.ran.out


REJECTIONS: dict[str, tuple[Fault, bool | None, str]] = {
    "a broken request": (Fault.bad_request("no kittens"), False, "rejected, but not as a used ID"),
    "no credits": (Fault.no_credits(), None, "not known: not enough credits"),
    "rate": (Fault.too_many_requests(), None, "not known: Too many requests"),
    "lost": (Fault.html(502), None, "not known: the response is HTML"),
    "rejected, but charged": (
        Fault.reply(409, '{"statusCode":409,"message":"duplicate id"}', accepted=True),
        False,
        "rejected, but charged again: duplicate id",
    ),
}


@pytest.mark.parametrize("name", REJECTIONS)
async def test_other_ends_of_the_second_submit(
    service: FakeService, probe: Probing, name: str
) -> None:
    fault, holds, text = REJECTIONS[name]
    service.used_id = "charge"
    service.script("submit", Fault.ok(), Fault.ok(), fault)
    found = await probe()
    assert found["used ID"][0] is holds
    assert found["used ID"][1].startswith(text)
    assert len(service.charges) == (2 if "charged" in name else 1)


@pytest.mark.parametrize("accepted", [True, False])
async def test_a_lost_response_to_the_first_submit(
    service: FakeService, probe: Probing, *, accepted: bool
) -> None:
    service.script("submit", Fault.ok(), Fault.lost_response(accepted=accepted))
    found = await probe()
    assert len(service.charges) == accepted
    if accepted:
        assert found["used ID"] == (True, USED["reject"][0])
        return
    state, text = found.verdict
    assert (state, found.ran.status) == ("error", 1)
    assert text.startswith("the submit may or may not have been accepted [task ")
    assert "aireiter query " in found.ran.document["checks"][-1]["advice"]
    assert len(found.ran.document["probe"]) == 4


async def test_a_rejected_first_submit_ends_the_probe(service: FakeService, probe: Probing) -> None:
    service.script("submit", Fault.ok(), Fault.bad_request("no kittens"))
    found = await probe()
    state, text = found.verdict
    assert (state, text.startswith("no kittens (code 400)")) == ("error", True)
    assert service.charges == []


async def test_failures_of_single_requests_do_not_lose_the_facts(
    service: FakeService, probe: Probing
) -> None:
    service.durations = 30.0
    service.script("query", *[Fault.ok()] * 3, *[Fault.html(502)] * 3, Fault.task_status("odd"))
    service.script("balance", *[Fault.ok()] * 4, *[Fault.html(502)] * 12)
    found = await probe()
    assert found["statuses"] == (False, "pending, odd, processing, completed")
    assert found["credits"] == (True, "estimated 1, credits_used 1")
    assert found["used ID"] == (True, USED["reject"][0])
    assert found.verdict == ("error", "wrong assumptions: statuses")


async def test_a_task_that_fails_or_never_ends(service: FakeService, probe: Probing) -> None:
    service.script("submit", Fault.ok(), Fault.failed())
    found = await probe()
    assert found["Range"] == (None, "not known: there is no file")
    assert found["credits"][0] is None
    assert found["used ID"] == (True, USED["reject"][0])
    service.durations = 1e6
    found = await probe()
    assert found["expiry"] == (None, "not known: the task has not ended")


RANGES: dict[str, tuple[Fault, bool | None, str]] = {
    "whole": (Fault.ok(), True, "127.0.0.1: HTTP 200"),
    "one byte": (
        Fault.reply(206, b"x", headers={"Content-Range": "bytes 0-0/9", "ETag": '"a"'}),
        True,
        "127.0.0.1: HTTP 206, the byte asked for; validator: ETag",
    ),
    "without a validator": (
        Fault.reply(206, b"x", headers={"Content-Range": "bytes 0-0/9"}),
        True,
        "127.0.0.1: HTTP 206, the byte asked for; validator: nothing",
    ),
    "another range": (
        Fault.reply(206, b"x", headers={"Last-Modified": "Mon, 02 Nov 2026 10:00:00 GMT"}),
        False,
        "127.0.0.1: HTTP 206, another range; validator: Last-Modified",
    ),
    "unsatisfiable": (Fault.reply(416), False, "127.0.0.1: HTTP 416"),
    "reset": (Fault.reset(), None, "not known: "),
    "never": (Fault.hang(), None, "not known: no response in 0.2 s"),
}


@pytest.mark.parametrize("name", RANGES)
async def test_result_hosts_are_examined(service: FakeService, probe: Probing, name: str) -> None:
    fault, holds, text = RANGES[name]
    service.script("result", fault, fault)
    found = await probe(seconds=0.1 if name == "never" else 5.0)
    assert found["Range"][0] is holds
    assert found["Range"][1].startswith(text)
    assert service.leaks == []


async def test_expiry_headers_are_shown(service: FakeService, probe: Probing) -> None:
    headers = {"Cache-Control": "max-age=60", "Expires": "Mon, 02 Nov 2026 10:00:00 GMT"}
    service.script("result", Fault.reply(200, b"x", headers=headers))
    assert (await probe())["expiry"] == (
        True,
        "Expires: Mon, 02 Nov 2026 10:00:00 GMT, Cache-Control: max-age=60",
    )
    url = f"{service.results_url}/upload/a.png?X-Amz-Expires=3600&Expires=a%20b&token=kittens"
    body = f'{{"statusCode":200,"data":{{"status":"completed","output":[{{"url":"{url}"}}]}}}}'
    service.script("query", Fault.ok(), Fault.ok(), *[Fault.reply(200, body)] * 2)
    assert (await probe())["expiry"] == (True, "X-Amz-Expires=3600 in the URL")


@pytest.mark.parametrize(
    ("credits_", "advice"), [(0.0, "top up the account"), (-1.0, "top up the account")]
)
async def test_a_probe_without_credits_is_refused(
    service: FakeService, probe: Probing, credits_: float, advice: str
) -> None:
    service.credits = credits_
    found = await probe()
    assert found.verdict == (
        "error",
        f"the account has {credits_:g} credits, which do not cover a task of {MODEL}",
    )
    assert found.ran.document["checks"][-1]["advice"].startswith(advice)
    assert (found.ran.status, service.charges, found.ran.document["probe"]) == (1, [], [])
    service.free_quotas = [{"model_key": MODEL, "remaining": 7}]
    await probe()
    assert service.rejections[433] == 1  # it was tried


async def test_a_wrong_key_skips_the_probe(service: FakeService, probe: Probing) -> None:
    found = await probe("--api-key", "sk-of-another-account")
    assert found.verdict == ("skipped", "skipped: depends on account")
    assert (found.ran.status, service.counts["/api/openapi/submit"]) == (1, 0)


async def learn_price(service: FakeService) -> None:
    """Let a ledger know the price of the probe's kind of task."""
    request = SubmitRequest(MODEL, {"prompt": "a kitten"})
    async with Ledger("another.db"):
        pass
    async with service.client() as client, Ledger("prices.db") as ledger:
        async for outcome in client.run_many([request], ledger=ledger):
            assert outcome.ok
    service.charges.clear()


@pytest.mark.parametrize(
    ("limit", "known", "charges", "found"),
    [
        ("7.9", True, 0, None),
        ("8", True, 1, "not tried: a second charge might exceed --max-credits"),
        ("16", True, 2, "charged again: the ID has two tasks now"),
        ("7.9", False, 1, "not tried: a second charge might exceed --max-credits"),
        ("16", False, 2, "charged again: the ID has two tasks now"),
    ],
)
async def test_the_probe_keeps_to_a_limit(
    service: FakeService,
    probe: Probing,
    limit: str,
    known: bool,  # noqa: FBT001 - a parameter
    charges: int,
    found: str | None,
) -> None:
    """At a price that is unknown, it is exceeded by at most that of one task."""
    service.used_id, service.price = "charge", 8.0
    if known:
        await learn_price(service)
    end = await probe("--max-credits", limit)
    assert len(service.charges) == charges
    if found is None:
        assert end.verdict == (
            "error",
            f"a task of {MODEL} costs 8 credits, according to prices.db",
        )
    else:
        assert end["used ID"][1] == found


async def test_a_price_that_stays_unknown_allows_one_task(
    service: FakeService, probe: Probing
) -> None:
    service.used_id, service.price, service.estimates = "charge", 0.0, False
    found = await probe("--max-credits", "5")
    assert found["used ID"][0] is None
    assert len(service.charges) == 1


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (("--yes",), "--yes and --max-credits need --probe MODEL"),
        (("--max-credits", "3"), "--yes and --max-credits need --probe MODEL"),
        (("--probe", MODEL, "--yes", "--max-credits", "0"), "--max-credits must be more than 0"),
        (("--probe", MODEL, "--max-credits", "-1"), "--max-credits must be at least 0, got -1"),
        (("--probe", "mj_v7_retexture", "--yes"), "needs media of yours: choose a model that"),
        (("--probe", MODEL), f"--probe {MODEL} spends credits: confirm it with --yes"),
        (("--probe", "nano_banana_v3", "--yes"), "nano_banana_v2"),
    ],
)
def test_bad_options_are_refused_before_anything_is_sent(
    served: FakeService,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    argv: tuple[str, ...],
    text: str,
) -> None:
    for stdin in (io.StringIO("y\n"), None):
        monkeypatch.setattr(sys, "stdin", stdin)
        assert main(["doctor", *argv]) == 2
        assert text in capsys.readouterr().err
    assert served.requests == []


@pytest.mark.parametrize(
    ("answer", "charges", "known"),
    [
        ("y\n", 1, True),
        ("Yes\n", 1, False),
        ("n\n", 0, False),
        ("\n", 0, False),
        ("\x04", 0, False),
    ],
)
async def test_the_probe_asks_on_a_terminal(
    service: FakeService,
    run: Callable[..., Awaitable[Ran]],
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    charges: int,
    known: bool,  # noqa: FBT001 - a parameter
) -> None:
    if known:
        await learn_price(service)
    parent, child = pty.openpty()
    with os.fdopen(child) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        os.write(parent, answer.encode())
        ran = await run("--probe", MODEL)
    os.close(parent)
    price = "at 1 credit each, according to prices.db" if known else "of unknown price"
    assert f"sends its ID a second time: one or two tasks {price}. The account has" in ran.err
    assert len(service.charges) == charges
    assert ran.status == 0
    assert ("not confirmed; nothing was submitted" in ran.out) == (not charges)
