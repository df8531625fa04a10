"""What a submit costs: ours, the limits below it, and the peers."""

from collections.abc import Mapping, Sequence
from typing import Final

from benchmarks.fleet import Numbers, Service, drivers, interleave
from benchmarks.report import Section, Table, Target

REFERENCE: Final = "bare:tuned"
PLAIN: Final = "bare:plain"
OURS: Final = "ours:mapping"
BARE: Final = {
    "bare:streams": "asyncio streams, bytes made beforehand",
    REFERENCE: "aiohttp, tuned",
    PLAIN: "aiohttp as people write it",
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

# What is known of the targets that are not reached everywhere: told where one is missed.
_NOTE_READS: Final = (
    "in a process that has once freed a large block, as these have, asyncio's read buffers cost "
    "aiohttp nothing: see the end"
)
_NOTE_LEDGER: Final = (
    "each task is written down twice, by a thread that shares Python's lock with the loop"
)
_NOTE_UVLOOP: Final = (
    "what we do for a submit (ids, JSON, checks, slots) costs the same on every loop; on uvloop "
    "the exchange below it is cheaper, and has no read buffers to be saved"
)
_NOTE_PLAIN: Final = (
    "the two bare ones lie closer together than the 1.25 that the target came from: see the table"
)
_NOTE_OPENAI: Final = (
    "its cost is about six times that of tuned aiohttp: a sixth leaves nothing for a client"
)
_NOTE_TYPED: Final = "each parameter is checked, and its class encoded"


def measure(share: float) -> Section:
    """Measure all; *share* of the submits is enough to see that it runs."""
    tables, targets, bars = [], [], []
    text = (
        f"{_SUBMITS * share:,.0f} submits each without a delay of the service, a tenth of that "
        f"with one; {_PEER_SUBMITS * share:,.0f} of each peer. Microseconds are medians over the "
        "rounds; the ratio is to tuned aiohttp (DummyCookieJar, bytes in, `read()` out, prebuilt "
        "URL and headers, no redirects, socket timeouts only). A round of submit_many makes its "
        "workers anew: at 200 items they are a good part of it, at 10,000 (Targets) they are not."
    )
    with Service() as service:
        main, table = _matrix(service, share)
        among, peers = _with_peers(service, 64, 0.0, share)
        tables += [table, peers]
        bars = [
            (LABELS[name], _kind(name), numbers.median)
            for name, numbers in among.items()
            if name in {**BARE, **PEERS, OURS: "", "ours:ledger": ""}
        ]
        targets += _targets(main["asyncio"], main["uvloop"], among)
        tables.append(_with_peers(service, 256, 0.05, share)[1])
        targets += _batches(service, share)
    return Section("Cost of a submit", text, tables, targets, bars)


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
    """Hold us against the references, with many rounds, and against the peers, with few."""
    uvloop = Target("the same on uvloop", 1.10, None, why="uvloop is not installed")
    if on_uvloop:
        ratio = on_uvloop[OURS].against(on_uvloop[REFERENCE])
        uvloop = Target(uvloop.claim, 1.10, ratio.median, ratio.span, _NOTE_UVLOOP)

    def target(claim: str, limit: float, other: str, note: str = "") -> Target:
        found = among if other in PEERS else alone
        if other not in found:
            return Target(claim, limit, None, why=note)
        ratio = found[OURS].against(found[other])
        return Target(claim, limit, ratio.median, ratio.span, note)

    return [
        target("submit against tuned aiohttp", 1.10, REFERENCE, _NOTE_READS),
        uvloop,
        target("submit against aiohttp as people write it", 0.90, PLAIN, _NOTE_PLAIN),
        target("submit against openai over aiohttp", 1 / 6, AIOHTTP_PEER, _NOTE_OPENAI),
        *(
            target(f"submit against {label} (httpx)", 1 / 10, name)
            for name, label in HTTPX_PEERS.items()
        ),
    ]


def _batches(service: Service, share: float) -> Sequence[Target]:
    """Compare our own ways, 10,000 at a time."""
    service.control(delay=0)
    with drivers(list(WAYS), service.url, 64, "asyncio") as (started, _):
        found = interleave(started, rounds=max(2, round(7 * share)), count=round(10_000 * share))
    many = found["ours:many"].against(found["ours:gather"])
    ledger = found["ours:ledger"].against(found["ours:many"])
    typed = found["ours:typed"].against(found[OURS])
    return [
        Target("submit_many against gather over submit, 10,000", 1.0, many.median, many.span),
        Target(
            "submit_many with a ledger against without",
            1.35,
            ledger.median,
            ledger.span,
            _NOTE_LEDGER,
        ),
        Target("typed models against a mapping", 1.05, typed.median, typed.span, _NOTE_TYPED),
    ]


def _plan(submits: float, concurrency: int) -> tuple[int, int]:
    """Return rounds and submits per round: many short rounds, so that noise meets all alike."""
    count = max(_FEWEST_SUBMITS, concurrency)
    return max(_FEWEST_ROUNDS, round(submits / count)), count


def _cell(found: Mapping[str, Numbers], name: str) -> str:
    if name not in found:
        return "-"
    ratio = found[name].against(found[REFERENCE])
    return f"{found[name].median:.0f} us, {ratio.median:.2f} ({ratio.span})"


def _kind(name: str) -> str:
    return {"ours": "ours", "bare": "bare"}.get(name.partition(":")[0], "peer")
