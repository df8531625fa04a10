"""What each client does when the response is lost, and after a 429 with Retry-After."""

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
    """Let each client submit once per fault; they mostly wait, so several run at once."""
    del share
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        rows = list(pool.map(_row, _CLIENTS))
    text = (
        "One submit each. *Lost response*: the service accepts and charges it, then drops the "
        "connection, once. Charges: if the service takes each POST for a new task, and in "
        "brackets if it recognizes a repeated ID or idempotency key. *Retry-After*: a 429 with "
        "`Retry-After: 2`, as seconds and as a date; the seconds until the second POST (a date "
        "has whole seconds, so up to 3), or the error that the caller gets."
    )
    head = [
        "client",
        "lost response: POSTs",
        "charges",
        "the caller gets",
        "Retry-After: seconds",
        "Retry-After: date",
    ]
    bars = [
        (row[0], "ours" if row[0] == LABELS[OURS] else "peer", float(row[2].split()[0]))
        for row in rows
        if row[3] == "the task"  # the others leave it to the caller, who knows no more
    ]
    chart = "Charges for one task whose response is lost, clients that deliver it"
    return Section("When responses are lost", text, [Table(head, rows)], bars=bars, chart=chart)


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
