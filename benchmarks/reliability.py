"""What is promised of tasks, counted: none lost, none paid for twice, every wait ended.

Each part runs against a `FakeService` in a process of its own, over real sockets. The parts can be
run apart, on any share of the work:

    python -m benchmarks reliability --share 0.01
    python -m benchmarks.reliability submits 0.01     # or kills, or mutants
"""

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final, get_args

from attrs import frozen

from aireiter_async import (
    AireiterError,
    AmbiguousSubmitError,
    AsyncClient,
    ConnectError,
    RateLimitError,
    RetryPolicy,
    SubmitRequest,
)
from aireiter_async.testing import FakeService, Fault
from aireiter_async.testing._options import API_KEY, UsedId
from benchmarks import kills, mutants
from benchmarks.fleet import FakeServer, ask, serve
from benchmarks.report import Section, Table, Target
from benchmarks.scale import peak
from tests.faults import AMBIGUOUS, RATE_LIMITED

_MODULE: Final = "benchmarks.reliability"
USED_IDS: Final[tuple[UsedId, ...]] = get_args(UsedId)
_SUBMITS: Final = 100_000  # for each of them
_KILLS: Final = 200
_MUTANTS: Final = 100_000
_AT_ONCE: Final = 64
_MOST_CALLS: Final = 10  # of submit, for one task


def measure(share: float) -> Section:
    """Run all parts."""
    parts = [part(share) for part in PARTS.values()]
    return Section(
        "Reliability",
        "\n\n".join(part.text for part in parts),
        [table for part in parts for table in part.tables],
        [target for part in parts for target in part.targets],
    )


def _measure_submits(share: float) -> Section:
    all_figures = {
        used_id: submit_through_faults(used_id, round(_SUBMITS * share)) for used_id in USED_IDS
    }
    head = ["a used ID", "submits", "lost", "doubled", "settled", "retries", "called again",
            "CPU us each", "seconds", "MB grown"]  # fmt: skip
    text = (
        "Submits while 20 of 100 exchanges fail: lost before or after acceptance, reset, cut, "
        "late, 5xx, HTML, broken JSON, 429 and more, with `settle=0`. *Called again*: as the error "
        "says, after all attempts have failed. *MB grown*: the peak of the client's process over "
        "the last nine tenths."
    )
    table = Table(head, [[used_id, *figures.row()] for used_id, figures in all_figures.items()])
    targets = [
        Target(f"tasks {what}, a used ID: {used_id}", 0, number)
        for used_id, figures in all_figures.items()
        for what, number in (("lost", figures.lost), ("doubled", figures.doubled))
    ]
    return Section("Submits through faults", text, [table], targets)


PARTS: Final[dict[str, Callable[[float], Section]]] = {
    "submits": _measure_submits,
    "kills": lambda share: kills.measure(max(1, round(_KILLS * share))),
    "mutants": lambda share: mutants.measure(round(_MUTANTS * share)),
}


@frozen
class Submits:
    """What has become of many submits.

    Attributes:
        count: How many there were.
        lost: Tasks that were paid for and not returned, or returned and not accepted.
        doubled: Charges beyond one for each task.
        settled: Submits whose task was found by a query.
        retries: Attempts beyond the first, of submits and queries.
        again: Calls beyond the first.
        cpu: Seconds of the client's process.
        seconds: Seconds in all.
        grown: MB by which the peak of its memory grew over the last nine tenths.
    """

    count: int
    lost: int
    doubled: int
    settled: int
    retries: int
    again: int
    cpu: float
    seconds: float
    grown: float

    def row(self) -> list[str]:
        """Return the cells of a table."""
        whole = (self.count, self.lost, self.doubled, self.settled, self.retries, self.again)
        each = 1e6 * self.cpu / self.count
        return [*(f"{n:,}" for n in whole), f"{each:.0f}", f"{self.seconds:.0f}",
                f"{self.grown:.1f}"]  # fmt: skip


def submit_through_faults(used_id: UsedId, count: int, timeout: float = 5.0) -> Submits:
    """Submit *count* tasks while a fifth of all exchanges fails, and compare with the charges.

    Args:
        used_id: What the service does with a used ID.
        count: How many there are.
        timeout: Seconds of an attempt: what hangs takes so long. A slow machine needs more.
    """
    with FakeServer(_MODULE, used_id) as server:
        told = ask(_MODULE, "submit", server.urls[0], count, timeout)
        charged = Counter(charge["out_task_id"] for charge in server.charges())
    returned = {str(n) for n in range(count)}.difference(told.pop("failed"))
    lost = len(returned ^ charged.keys())
    return Submits(count=count, lost=lost, doubled=charged.total() - len(charged), **told)


def _faults() -> dict[Fault, float]:
    """Return faults that strike 20 of 100 exchanges."""

    def pairs(*, slow: bool) -> set[Fault]:
        return {
            fault
            for each in AMBIGUOUS.values()
            if each.slow is slow
            for fault in (each.before, each.after)
        }

    shares = ((pairs(slow=True), 0.002), (pairs(slow=False), 0.178), (RATE_LIMITED.values(), 0.02))
    return {fault: share / len(faults) for faults, share in shares for fault in faults}


def _requests(count: int) -> Iterator[SubmitRequest]:
    """Yield requests; every other one has an ID of the caller's."""
    for n in range(count):
        request = SubmitRequest("veo3_1", {"prompt": f"kitten {n}"})
        yield request.with_id(str(n), generated=n % 2 == 0)


async def _submit(client: AsyncClient, request: SubmitRequest) -> int | None:
    """Submit as the errors say; return how many calls it took, None for a failure."""
    maybe_sent = False
    for calls in range(1, _MOST_CALLS + 1):
        try:
            await client.submit(request, maybe_sent=maybe_sent)
        except AmbiguousSubmitError:
            maybe_sent = True
        except (ConnectError, RateLimitError):
            pass
        except AireiterError as error:
            print(repr(error), file=sys.stderr)
            return None
        else:
            return calls
    return None


async def _submit_all(url: str, count: int, timeout: float) -> dict[str, Any]:  # noqa: ASYNC109
    requests, failed, again, before = _requests(count), list[str](), 0, 0.0
    began, spent = time.monotonic(), time.process_time()

    async def work() -> None:
        nonlocal again, before
        for request in requests:
            if request.out_task_id == str(count // 10):
                before = peak()
            calls = await _submit(client, request)
            if calls is None:
                failed.append(request.out_task_id)
            else:
                again += calls - 1

    retry = RetryPolicy(base=0, settle=0)
    async with AsyncClient(
        API_KEY, base_url=url, max_concurrency=_AT_ONCE, timeout=timeout, retry=retry
    ) as client:
        await asyncio.gather(*(work() for _ in range(_AT_ONCE)))
        stats = client.stats
    return {
        "failed": failed,
        "settled": stats.settled,
        "retries": stats.retries,
        "again": again,
        "cpu": time.process_time() - spent,
        "seconds": time.monotonic() - began,
        "grown": peak() - before,
    }


def main() -> None:
    """Run one part, or what one of its processes does."""
    what, argument, *more = sys.argv[1:]
    if what == "serve":
        service = FakeService(used_id=argument, faults=_faults(), record=False)  # type: ignore[arg-type]
        asyncio.run(serve(service))
    elif what == "submit":
        print(json.dumps(asyncio.run(_submit_all(argument, int(more[0]), float(more[1])))))
    else:
        section = PARTS[what](float(argument))
        print(*section.tables, *section.targets, sep="\n\n")


if __name__ == "__main__":
    main()
