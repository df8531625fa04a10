"""FakeService as a program, for clients in other processes."""

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from typing import get_args

from aireiter_async.testing._answers import Envelope
from aireiter_async.testing._faults import Fault
from aireiter_async.testing._options import API_KEY, UsedId
from aireiter_async.testing._service import FakeService

_FAULTS: dict[str, Fault] = {
    "lost": Fault.lost_answer(accepted=True),
    "reset": Fault.reset(accepted=True),
    "truncated": Fault.truncated(accepted=True),
    "no-data": Fault.no_data(accepted=True),
    "html": Fault.html(502),
    "server-error": Fault.server_error(),
    "too-many": Fault.too_many_requests(1),
    "failed": Fault.failed(),
    "cut-file": Fault.truncated().on("result"),
}


def _chance(text: str) -> tuple[Fault, float]:
    name, _, probability = text.partition("=")
    try:
        return _FAULTS[name], float(probability)
    except (KeyError, ValueError):
        known = ", ".join(_FAULTS)
        raise argparse.ArgumentTypeError(
            f"{text!r} is not NAME=PROBABILITY with a name of {known}"
        ) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m aireiter_async.testing",
        description="Run the AIReiter API in miniature on 127.0.0.1 until Ctrl-C or SIGTERM.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--port", type=int, default=0, help="0 takes a free one")
    add("--api-key", default=API_KEY, help="the only key that is let in")
    add("--seed", type=int, default=0, help="decides what is drawn")
    add("--credits", type=float, default=1e6, help="the balance to begin with")
    add("--price", type=float, default=1.0, help="credits per task")
    add("--duration", type=float, default=0.0, help="seconds that a task takes")
    add("--spread", type=float, default=0.0, help="how far from that, as a share of it")
    add("--outputs", type=int, default=1, help="results per task")
    add("--max-rate", type=float, help="requests per second before a 429")
    add("--envelope", choices=get_args(Envelope), default="plain", help="the form of success")
    add("--used-id", choices=get_args(UsedId), default="refuse", help="what a used id does")
    add(
        "--fault",
        type=_chance,
        action="append",
        default=[],
        metavar="NAME=PROBABILITY",
        help="what goes wrong by chance, may be repeated: " + ", ".join(_FAULTS),
    )
    return parser


async def _serve(service: FakeService) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal(*_: object) -> None:
        loop.call_soon_threadsafe(stop.set)

    # Not loop.add_signal_handler, which Windows does not have.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    async with service:
        sys.stdout.write(
            f"FakeService is at {service.url}; point a client at it with "
            f"AIREITER_BASE_URL={service.url} AIREITER_API_KEY={service.api_key}\n"
        )
        sys.stdout.flush()
        await stop.wait()


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM, and return the exit status.

    Args:
        argv: The command line after the program's name; None: that of the process.
    """
    parser = _parser()
    given = parser.parse_args(argv)
    try:
        service = FakeService(
            port=given.port,
            api_key=given.api_key,
            seed=given.seed,
            credits=given.credits,
            price=given.price,
            durations=given.duration,
            spread=given.spread,
            outputs=given.outputs,
            max_rate=given.max_rate,
            envelope=given.envelope,
            used_id=given.used_id,
            faults=dict(given.fault),
            record=False,
        )
        asyncio.run(_serve(service))
    except (OSError, ValueError) as error:
        parser.error(str(error))
    return 0
