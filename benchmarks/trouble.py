"""What each client does when the answer is lost, and when it is told to wait."""

import asyncio
import importlib
import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, Final

from benchmarks.fleet import Service, ask
from benchmarks.report import Section, Table
from benchmarks.submit import LABELS, OURS, PEERS, PLAIN

_FAULTS: Final = ("drop", "wait-seconds", "wait-date")
_CLIENTS: Final = (OURS, PLAIN, *PEERS)
_PATIENCE: Final = 60  # seconds
_AT_ONCE: Final = 12


def measure(share: float) -> Section:
    """Let each client submit once per fault; they mostly wait, so some go at once."""
    del share
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        rows = list(pool.map(_row, _CLIENTS))
    text = (
        "One submit each. *Lost answer*: the service accepts it, a charge, and drops the "
        "connection, once. Charges: what is paid if the service takes each POST for a new task, "
        "and in brackets if it knows one again by an id or an idempotency key in it. *Told to "
        "wait*: a 429 with `Retry-After: 2`, as seconds and as a date; the seconds to the second "
        "POST (a date has whole seconds, so up to 3), or the error that the caller gets."
    )
    head = ["client", "lost answer: POSTs", "charges", "the caller gets", "`2`", "a date"]
    return Section("When things go wrong", text, [Table(head, rows)])


def _row(client: str) -> list[str]:
    return [LABELS[client], *_cells(client)]


def _cells(client: str) -> Iterator[str]:
    for fault in _FAULTS:
        with Service() as service:
            service.control(fault=fault)
            try:
                told = ask("benchmarks.trouble", client, service.url)
            except RuntimeError as error:
                told = str(error)
            account = service.control()
        if fault == "drop":
            yield from _lost(account, told)
        else:
            waits = [b - a for (a, _), (b, _) in pairwise(account["posts"])]
            yield ", ".join(f"{wait:.1f} s" for wait in waits) or told


def _lost(account: dict[str, Any], told: str) -> Iterator[str]:
    keys = [key for _, key in account["posts"]]
    known = len(set(filter(None, keys))) + keys.count("")
    yield str(len(keys))
    yield f"{account['accepted']} ({known})"
    yield told


async def submit_once(client: str, url: str) -> str:
    """Submit once, and say what the caller gets."""
    module, _, name = client.partition(":")
    connect = getattr(importlib.import_module(f"benchmarks.clients.{module}"), name)
    try:
        async with asyncio.timeout(_PATIENCE), connect(url, 4) as run:
            await run(1)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what the caller gets
        return type(error).__name__
    return "the task"


if __name__ == "__main__":
    print(json.dumps(asyncio.run(submit_once(*sys.argv[1:]))))
