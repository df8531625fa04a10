"""The doctor command: say why something does not work, in a form that can be published.

The checks are in ``_setup``, ``_checks``, ``_network`` and ``_responses``, the experiments of
``--probe`` in ``_probe``. Here they are put in order, scrubbed and shown.
"""

import os
import re
import socket
import ssl
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from signal import default_int_handler
from typing import Any, Final

import attrs

from aireiter_async import AireiterError, AmbiguousSubmitError, SubmitRequest, models
from aireiter_async._wire import read_balance
from aireiter_async.cli import _display, _errors
from aireiter_async.cli._doctor._checks import (
    Check,
    Disk,
    Problem,
    check_directory,
    check_ledger,
    check_versions,
    find_ledgers,
    in_thread,
    skip,
)
from aireiter_async.cli._doctor._network import check_network
from aireiter_async.cli._doctor._probe import Clock, Fact, Probe
from aireiter_async.cli._doctor._responses import RESPONSES, calling
from aireiter_async.cli._doctor._setup import read_setup
from aireiter_async.cli._errors import UsageError
from aireiter_async.cli._options import Connection, DoctorOptions, check_numbers
from aireiter_async.cli._output import Output
from aireiter_async.cli._signals import catching

_SECONDS: Final = 10.0  # for each step
_LEDGER_SHARE: Final = 3  # of that: to check a ledger completely
_STATES: Final[Mapping[bool | None, str]] = {True: "ok", False: "error", None: "warning"}
_NEEDED: Final = ("API", "account")  # by the probe
_BAD: Final = ("error", "skipped")
# Required parameters of which an invented value would make the task fail.
_MEDIA: Final = frozenset({"image_url", "video_url", "audio_url", "clip_id"})


@attrs.frozen(kw_only=True)
class Surroundings:
    """The doctor's environment, except for the network; tests replace it.

    Attributes:
        disk: Access to the disk.
        clock: Time, for the probe.
        resolve: Resolves names.
        seconds: Maximum seconds for each step.
    """

    disk: Disk = attrs.field(factory=Disk)
    clock: Clock = attrs.field(factory=Clock)
    resolve: Callable[..., Any] = socket.getaddrinfo
    seconds: float = _SECONDS


async def doctor(
    options: DoctorOptions,
    connection: Connection,
    output: Output,
    *,
    around: Surroundings = Surroundings(),
) -> int:
    """Check everything that a command needs, and return 1 if something is wrong.

    Args:
        options: What to check.
        connection: The connection options.
        output: Where to show it.
        around: The disk, the time and its limits.

    Raises:
        UsageError: The options do not fit together.
    """
    request = _read_options(options)
    seconds, quiet = around.seconds, output.options.json
    setup = read_setup(connection)
    checks = [*check_versions(), *setup.checks]
    facts: list[Fact] = []
    context = ssl.create_default_context()
    proxy = connection.proxy if setup.usable else None
    async with calling(setup, proxy, context, seconds) as caller:
        if setup.usable:
            checks += await check_network(setup, caller, context, seconds, around.resolve)
        else:
            names = ("DNS", "TCP", "TLS", *RESPONSES)
            checks += (skip(name, "a setting that is invalid") for name in names)
        ledgers, files = await _check_files(options, around)
        checks += files
        if not quiet:
            output.answer(_document(checks, facts), _checks_view)
        if request is not None:
            probe = Probe(caller, request, max_credits=options.max_credits, clock=around.clock)
            checks.append(await _run(probe, options, checks, ledgers, facts, output))
            if not quiet:
                output.answer(_document(checks[-1:], facts), _probe_view)
    document = _document(checks, facts)
    if quiet:
        output.answer(document, _checks_view)
    return 0 if document["ok"] else _errors.FAILED


def _read_options(options: DoctorOptions) -> SubmitRequest | None:
    """Return the request of the probe, None if there is none.

    Raises:
        UsageError: The options do not fit together.
        UnknownModelError: This release does not know the model.
    """
    model = options.probe
    check_numbers(max_credits=options.max_credits)
    if model is None:
        if options.yes or options.max_credits is not None:
            raise UsageError("--yes and --max-credits need --probe MODEL")
        return None
    if options.max_credits == 0:
        raise UsageError("--max-credits must be more than 0 with --probe, which submits a task")
    params = models.example(model)
    if set(params) & _MEDIA:
        raise UsageError(
            f"--probe {model} needs media of yours: choose a model that needs only a prompt, "
            "such as nano_banana_v2"
        )
    if not options.yes and not (sys.stdin and sys.stdin.isatty()):
        raise UsageError(f"--probe {model} spends credits: confirm it with --yes")
    return SubmitRequest(model, params)


async def _check_files(
    options: DoctorOptions, around: Surroundings
) -> tuple[list[Path], list[Check]]:
    """Check the directory of the results and the ledgers; return the intact ledgers as well."""
    seconds, directory, given = around.seconds, options.download, options.ledger
    late = f"the disk does not respond in {seconds:g} s"
    try:
        results = await in_thread(partial(check_directory, directory, around.disk), seconds)
        ledgers = [given] if given else await in_thread(partial(find_ledgers, directory), seconds)
    except TimeoutError:
        return [], [Check(name="results", state="error", text=late, advice="check the drive")]
    checks, intact = [results], list[Path]()
    source = "--ledger" if given else "found here"
    for path in ledgers:
        check = partial(check_ledger, path, source, _LEDGER_SHARE * seconds)
        try:
            checks.append(await in_thread(check, (_LEDGER_SHARE + 1) * seconds))
        except TimeoutError:
            text = f"{path}: {late}"
            checks.append(Check(name="ledger", state="error", text=text, advice="check the drive"))
        if checks[-1].state == "ok":
            intact.append(path)
    return intact, checks


async def _run(
    probe: Probe,
    options: DoctorOptions,
    checks: Sequence[Check],
    ledgers: Sequence[Path],
    facts: list[Fact],
    output: Output,
) -> Check:
    """Run the probe unless a check rules it out; return its check, and add its facts."""
    check = partial(Check, name="probe", state="error")
    bad = [each.name for each in checks if each.name in _NEEDED and each.state in _BAD]
    if bad:
        return skip("probe", bad[0])
    try:
        await _permit(probe, options, ledgers, output)
        facts += await probe.shapes()
        facts += await _spend(probe, output)
    except Problem as problem:
        return check(state=problem.state, text=problem.text, advice=problem.advice)
    except AmbiguousSubmitError as error:
        return check(text=str(error), advice=_errors.recovery_hint(error.out_task_id))
    except AireiterError as error:
        hint = _errors.with_options(error.advice)
        return check(text=_errors.summarize(error), advice=hint)
    return _judge(facts)


def _judge(facts: Sequence[Fact]) -> Check:
    """Return whether the assumptions hold."""
    wrong = [fact.name for fact in facts if fact.holds is False]
    if wrong:
        text, hint = f"wrong assumptions: {', '.join(wrong)}", "please report this output"
        return Check(name="probe", state="error", text=text, advice=hint)
    unknown = [fact.name for fact in facts if fact.holds is None]
    if unknown:
        text = f"no assumption is wrong; not known: {', '.join(unknown)}"
        return Check(name="probe", state="warning", text=text)
    return Check(name="probe", text="every assumption of this client holds")


async def _permit(
    probe: Probe, options: DoctorOptions, ledgers: Sequence[Path], output: Output
) -> None:
    """Check that the probe can be paid for, and ask.

    Raises:
        Problem: It may not be run; nothing was submitted.
        AireiterError: The balance cannot be read.
    """
    model, limit = probe.request.model, options.max_credits
    price, source = await _price(probe.request, ledgers)
    balance = read_balance(await probe.caller.call("balance"))
    free = any(quota.model_key == model and quota.remaining for quota in balance.free_quotas)
    needed = price or 0.0
    left = _credits(balance.credits)
    if not free and (balance.credits <= 0 or balance.credits < needed):
        text = f"the account has {left}, which do not cover a task of {model}"
        raise Problem(text, "top up the account at https://aireiter.com; nothing was submitted")
    if limit is not None and needed > limit:
        text = f"a task of {model} costs {_credits(needed)}, according to {source}"
        raise Problem(text, "raise --max-credits; nothing was submitted")
    probe.price = price
    cost = f"at {_credits(needed)} each, according to {source}" if price else "of unknown price"
    if not options.yes:
        question = (
            f"This submits one task of {model} and sends its ID a second time: one or two tasks "
            f"{cost}. The account has {left}. Continue? [y/N] "
        )
        with catching(default_int_handler):
            output.write(question, sys.stderr)
            answer = sys.stdin.readline()
        if answer.strip().lower() not in {"y", "yes"}:
            raise Problem("not confirmed; nothing was submitted", state="skipped")


def _credits(amount: float) -> str:
    return f"{_display.number(amount)} {'credit' if amount == 1 else 'credits'}"


async def _price(request: SubmitRequest, ledgers: Sequence[Path]) -> tuple[float | None, str]:
    """Return the price of a task and the ledger that knows it, None if none does."""
    from aireiter_async import Ledger  # noqa: PLC0415 - needs SQLite
    from aireiter_async._batch._prices import price_kind  # noqa: PLC0415
    from aireiter_async.cli._known import Known  # noqa: PLC0415

    kind = price_kind(request.model, request.params)
    for path in ledgers:
        price = (await Known.read(Ledger(path))).prices.get(kind)
        if price is not None:
            return price, path.name
    return None, ""


async def _spend(probe: Probe, output: Output) -> list[Fact]:
    """Submit, with the ID reported before: it is the only handle on a task that is charged."""
    out_task_id = probe.request.out_task_id
    output.note(f"submitting task {out_task_id}")
    output.running, output.submitting = out_task_id, True
    seen = [""]
    with _display.waiting(f"task {out_task_id}", sys.stderr) as show:

        def on_status(status: str) -> None:
            output.submitting = False
            if status != seen[-1]:
                seen.append(status)
                show(status)

        facts = await probe.spend(on_status)
    output.running = None
    return facts


def _document(checks: Sequence[Check], facts: Sequence[Fact]) -> dict[str, Any]:
    """Return the result as JSON that can be published."""
    scrub = _scrubber()
    return {
        "ok": not any(check.state == "error" for check in checks),
        "checks": [{k: scrub(v) for k, v in attrs.asdict(check).items()} for check in checks],
        "probe": [{k: scrub(v) for k, v in attrs.asdict(fact).items()} for fact in facts],
    }


def _scrubber() -> Callable[[Any], Any]:
    """Return a function that replaces the home directory in a text."""
    homes: set[str] = set()
    with suppress(RuntimeError):  # it cannot be determined
        homes = {str(Path.home()), os.path.realpath(Path.home())}
    names = [re.escape(home) for home in homes if len(Path(home).parts) > 1]
    if not names:
        return lambda value: value
    pattern = re.compile(rf"(?:{'|'.join(sorted(names, reverse=True))})(?![\w-])")
    return lambda value: pattern.sub("~", value) if isinstance(value, str) else value


def _checks_view(document: dict[str, Any]) -> _display.View:
    rows: list[tuple[str, str, str, str]] = []
    for check in document["checks"]:
        source = f"  ({check['source']})" if check["source"] else ""
        rows.append((check["state"], check["name"], check["text"] + source, check["advice"]))
    states = {state: [row[1] for row in rows if row[0] == state] for state in ("error", "warning")}
    parts = [
        f"{_display.plural(len(names), noun)}: {', '.join(names)}"
        for noun, names in zip(("problem", "warning"), states.values(), strict=True)
        if names
    ]
    text = "; ".join(parts) or "nothing is wrong"
    return _display.page(_display.checks(rows), _display.verdict(text, good=not states["error"]))


def _probe_view(document: dict[str, Any]) -> _display.View:
    (check,) = document["checks"]
    verdict = _display.checks([(check["state"], "probe", check["text"], check["advice"])])
    if not document["probe"]:
        return verdict
    rows = [
        (_STATES[fact["holds"]], fact["name"], fact["found"], fact["assumed"])
        for fact in document["probe"]
    ]
    return _display.page(_display.comparison(rows), verdict)
