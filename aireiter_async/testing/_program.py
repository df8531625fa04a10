"""FakeService as a program, for clients in other processes."""

import argparse
import asyncio
import json
import re
import signal
import ssl
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from inspect import cleandoc
from typing import Any, get_args

import attrs

from aireiter_async.testing._faults import ENDPOINTS, Fault
from aireiter_async.testing._options import Callbacks, Options, UsedId
from aireiter_async.testing._replies import Envelope, RetryAfterForm, StatusForm
from aireiter_async.testing._service import FakeService

_FAULTS: Mapping[str, Fault] = {
    "lost": Fault.lost_response(accepted=True),
    "reset": Fault.reset(accepted=True),
    "hang": Fault.hang(accepted=True),
    "delay": Fault.delay(1.0),
    "drip": Fault.drip(1.0),
    "truncated": Fault.truncated(accepted=True),
    "broken-json": Fault.broken_json(accepted=True),
    "no-data": Fault.no_data(accepted=True),
    "html": Fault.html(502),
    "html-200": Fault.html(200),
    "server-error": Fault.server_error(),
    "too-many": Fault.too_many_requests(1),
    "no-credits": Fault.no_credits(),
    "not-found": Fault.not_found(),
    "redirect": Fault.redirect(),
    "unknown-status": Fault.task_status("reviewing").on("query"),
    "failed": Fault.failed(),
    "cut-file": Fault.truncated().on("result"),
}
_CHOICES: Mapping[str, Any] = {
    "envelope": Envelope,
    "rejection_form": StatusForm,
    "used_id": UsedId,
    "retry_after": RetryAfterForm,
}
_TEXTS = ("api_key", *_CHOICES)
# Options whose values do not fit on a command line, or have another form there.
_OTHERS = ("results_ssl", "callbacks", "faults", "clock", "record")


def _fault(text: str) -> tuple[Fault, float]:
    name, _, probability = text.partition("=")
    name, _, endpoint = name.partition("@")
    try:
        fault = _FAULTS[name]
        return (fault.on(endpoint) if endpoint else fault), float(probability)  # type: ignore[arg-type]
    except (KeyError, ValueError):
        raise argparse.ArgumentTypeError(
            f"a fault must be NAME=PROBABILITY or NAME@ENDPOINT=PROBABILITY, got {text!r}; names: "
            f"{', '.join(_FAULTS)}; endpoints: {', '.join(ENDPOINTS)}"
        ) from None


def _json(text: str) -> Any:
    """Parse JSON; anything else is returned as text, for the option to reject."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _parser() -> argparse.ArgumentParser:
    """Build a parser from the options of the class, with their documentation as help."""
    parser = argparse.ArgumentParser(
        prog="python -m aireiter_async.testing",
        description="Run a fake of the AIReiter API on 127.0.0.1 until Ctrl-C or SIGTERM.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    found = re.findall(
        r"^    (\w+): (.*?)(?=\n    \w|\n\n)",
        cleandoc(str(FakeService.__doc__)),
        re.DOTALL | re.MULTILINE,
    )
    helps = {name: " ".join(text.split()).replace("%", "%%") for name, text in found}
    for field in attrs.fields(Options):
        name = str(field.alias)
        if name in _OTHERS:
            continue
        arguments: dict[str, Any] = {"default": field.default, "help": helps.get(name)}
        if field.type is bool:
            arguments["action"] = argparse.BooleanOptionalAction
        else:
            arguments["type"] = str if name in _TEXTS else _json
            arguments["choices"] = get_args(_CHOICES.get(name)) or None
        parser.add_argument(f"--{name.replace('_', '-')}", **arguments)
    parser.add_argument(
        "--callbacks", nargs="+", choices=get_args(Callbacks), default=["once"],
        help=helps.get("callbacks"),
    )  # fmt: skip
    parser.add_argument(
        "--results-cert", help="PEM certificate and key to serve results over https"
    )
    parser.add_argument(
        "--fault",
        type=_fault,
        action="append",
        default=[],
        metavar="NAME[@ENDPOINT]=PROBABILITY",
        help="a random fault, may be repeated; names: " + ", ".join(_FAULTS),
    )
    return parser


async def _serve(service: FakeService) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal(*_: object) -> None:
        loop.call_soon_threadsafe(stop.set)

    # Not loop.add_signal_handler, which Windows lacks.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    async with service:
        sys.stdout.write(
            f"FakeService is at {service.url}; point a client at it with "
            f"AIREITER_BASE_URL={service.url} AIREITER_API_KEY={service.api_key}\n"
        )
        sys.stdout.flush()
        await stop.wait()
    sys.stdout.write(_summary(service))


def _summary(service: FakeService) -> str:
    charged = sum(charge.credits for charge in service.charges)
    line = f"charged {charged:g} credits for {len(service.charges)} tasks"
    times = Counter(charge.out_task_id for charge in service.charges)
    twice = [out_task_id for out_task_id, count in times.items() if count > 1]
    return f"{line}; more than once: {', '.join(twice) or 'none'}\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM, and return the exit status.

    Args:
        argv: The arguments; None uses those of the process.
    """
    parser = _parser()
    options = vars(parser.parse_args(argv))
    faults, certificate = dict(options.pop("fault")), options.pop("results_cert")
    try:
        if certificate is not None:
            options["results_ssl"] = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            options["results_ssl"].load_cert_chain(certificate)
        asyncio.run(_serve(FakeService(**options, faults=faults, record=False)))
    except (OSError, TypeError, ValueError) as error:
        parser.error(str(error.args[0] if isinstance(error, TypeError | ValueError) else error))
    return 0
