"""CPU time of a submit: ours, the references, and the peers."""

from collections.abc import Mapping, Sequence
from typing import Final

from benchmarks.fleet import Numbers, Service, drivers, interleave
from benchmarks.report import Section, Table, Target

REFERENCE: Final = "bare:tuned"
PLAIN: Final = "bare:plain"
OURS: Final = "ours:mapping"
BARE: Final = {
    "bare:streams": "asyncio streams, prepared bytes",
    REFERENCE: "aiohttp, tuned",
    PLAIN: "aiohttp, usual code",
}
WAYS: Final = {
    OURS: "aireiter_async submit",
    "ours:typed": "aireiter_async submit, typed models",
    "ours:gather": "aireiter_async gather over submit",
    "ours:many": "aireiter_async submit_many",
    "ours:ledger": "aireiter_async submit_many with a ledger",
}
AIOHTTP_PEER: Final = "openai_sdk:over_aiohttp"
HTTPX_PEERS: Final = {
    "httpx_by_hand:post": "httpx by hand",
    "fal:submit": "fal-client",
    "comfy:submit": "comfy-sdk",
    "openai_sdk:over_httpx": "openai over httpx",
    "replicate_sdk:create": "replicate",
    "runway:over_httpx": "runwayml over httpx",
}
PEERS: Final = {
    **HTTPX_PEERS,
    AIOHTTP_PEER: "openai over aiohttp",
    "runway:over_aiohttp": "runwayml over aiohttp",
    "genai:generate": "google-genai over aiohttp",
    "zyte:get": "zyte-api",
}
LABELS: Final = {**BARE, **WAYS, **PEERS}
_LOOPS: Final = ("asyncio", "uvloop")
_CONCURRENCIES: Final = (64, 256, 1000)
_DELAYS: Final = (0.0, 0.05)
_SUBMITS: Final = 10_000
_PEER_SUBMITS: Final = 2_000
_FEWEST_ROUNDS: Final = 5
_FEWEST_SUBMITS: Final = 200  # per round

_NOTE_TYPED: Final = "each parameter is checked, and the instance is turned into a mapping"
_NOTE_LEDGER: Final = (
    "each task is recorded twice, by a thread that shares the interpreter's lock with the loop"
)
_NOTE_CPU: Final = (
    "half the instructions (below), but the kernel's share is the same for both, and the remaining "
    "instructions take longer each"
)


def measure(share: float) -> Section:
    """Measure all; *share* of the submits is enough to see that it runs."""
    tables, targets, bars = [], [], []
    text = (
        f"{_SUBMITS * share:,.0f} submits each without a delay of the service, a tenth of that "
        f"with one; {_PEER_SUBMITS * share:,.0f} of each peer. Medians and ranges over the "
        "rounds of the ratio to tuned aiohttp (DummyCookieJar, bytes in, `read()` out, prebuilt "
        "URL and headers, no redirects, socket timeouts only). A round of submit_many starts new "
        "workers, which matters at 200 items and not at 10,000 (see the targets)."
    )
    with Service() as service:
        main, table = _matrix(service, share)
        among, peers = _with_peers(service, 64, 0.0, share)
        tables += [table, peers]
        bars = [
            (LABELS[name], _kind(name), numbers.against(among[REFERENCE]).median)
            for name, numbers in among.items()
            if name in {**BARE, **PEERS, OURS: "", "ours:ledger": ""}
        ]
        targets += _targets(main["asyncio"], main["uvloop"], among)
        tables.append(_with_peers(service, 256, 0.05, share)[1])
        targets += _batches(service, share)
    chart = "CPU per submit relative to tuned aiohttp, 64 in flight"
    return Section("CPU per submit", text, tables, targets, bars, chart)


def _matrix(service: Service, share: float) -> tuple[dict[str, dict[str, Numbers]], Table]:
    """Measure us and the references in all circumstances; also return each loop's first."""
    rows = []
    first: dict[str, dict[str, Numbers]] = {}
    for loop in _LOOPS:
        for delay in _DELAYS:
            for concurrency in _CONCURRENCIES:
                rounds, count = _plan(_SUBMITS * share / (10 if delay else 1), concurrency)
                service.control(delay=delay)
                with drivers([*BARE, *WAYS], service.url, concurrency, loop) as (started, _):
                    found = interleave(started, rounds=rounds, count=count)
                first.setdefault(loop, found)
                rows.append(
                    [
                        f"{loop}, {concurrency}, {1000 * delay:.0f} ms",
                        *(_cell(found, name) for name in (*BARE, *WAYS)),
                    ]
                )
    return first, Table(["loop, in flight, delay", *BARE.values(), *WAYS.values()], rows)


def _with_peers(
    service: Service, concurrency: int, delay: float, share: float
) -> tuple[dict[str, Numbers], Table]:
    """Measure the peers, and us and the references among them."""
    rounds, count = _plan(_PEER_SUBMITS * share, concurrency)
    service.control(delay=delay)
    clients = [*BARE, OURS, "ours:typed", "ours:ledger", *PEERS]
    with drivers(clients, service.url, concurrency, "asyncio") as (started, failed):
        found = interleave(started, rounds=rounds, count=count)
    ours, reference = found[OURS], found[REFERENCE]
    rows = [
        [
            LABELS[name],
            f"{numbers.median:,.0f}",
            f"{numbers.against(reference).median:.2f}",
            numbers.against(reference).span,
            f"{numbers.against(ours).median:.2f}",
        ]
        for name, numbers in sorted(found.items(), key=lambda item: item[1].median)
    ]
    rows += [[LABELS[name], "-", "-", "-", f"not driven: {why}"] for name, why in failed.items()]
    head = f"{concurrency} in flight, {1000 * delay:.0f} ms, {rounds} rounds of {count}"
    return found, Table([head, "us", "of tuned", "range", "of our submit"], rows)


def _targets(
    alone: Mapping[str, Numbers], on_uvloop: Mapping[str, Numbers], among: Mapping[str, Numbers]
) -> list[Target]:
    """Compare with the references, over many rounds, and with the peers, over few."""

    def target(
        claim: str, limit: float, found: Mapping[str, Numbers], other: str, note: str = ""
    ) -> Target:
        if not {OURS, other} <= found.keys():
            return Target(f"CPU: {claim}", limit, None)
        ratio = found[OURS].against(found[other])
        return Target(f"CPU: {claim}", limit, ratio.median, ratio.span, note)

    return [
        target("submit / tuned aiohttp", 0.50, alone, REFERENCE, _NOTE_CPU),
        target("submit / tuned aiohttp, uvloop", 0.55, on_uvloop, REFERENCE, _NOTE_CPU),
        target("submit / openai over aiohttp", 1 / 12, among, AIOHTTP_PEER),
        *(
            target(f"submit / {label} (httpx)", 1 / 20, among, name)
            for name, label in HTTPX_PEERS.items()
        ),
    ]


def _batches(service: Service, share: float) -> Sequence[Target]:
    """Compare batches with tuned aiohttp, 10,000 at a time."""
    service.control(delay=0)
    names = [REFERENCE, *WAYS]
    with drivers(names, service.url, 64, "asyncio") as (started, _):
        found = interleave(started, rounds=max(3, round(7 * share)), count=round(10_000 * share))

    def target(claim: str, limit: float, name: str, other: str, note: str) -> Target:
        ratio = found[name].against(found[other])
        return Target(f"CPU: {claim}", limit, ratio.median, ratio.span, note)

    return [
        target("submit_many / tuned aiohttp", 0.65, "ours:many", REFERENCE, _NOTE_CPU),
        target(
            "submit_many with a ledger / tuned aiohttp", 1.0, "ours:ledger", REFERENCE, _NOTE_LEDGER
        ),
        target("typed model / mapping", 1.05, "ours:typed", OURS, _NOTE_TYPED),
    ]


def _plan(submits: float, concurrency: int) -> tuple[int, int]:
    """Return rounds and submits per round: many short rounds, so that noise meets all alike."""
    count = max(_FEWEST_SUBMITS, concurrency)
    return max(_FEWEST_ROUNDS, round(submits / count)), count


def _cell(found: Mapping[str, Numbers], name: str) -> str:
    if name not in found:
        return "-"
    if name == REFERENCE:
        return "1"
    ratio = found[name].against(found[REFERENCE])
    return f"{ratio.median:.2f} ({ratio.span})"


def _kind(name: str) -> str:
    return {"ours": "ours", "bare": "bare"}.get(name.partition(":")[0], "peer")
