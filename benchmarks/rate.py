"""How long a batch takes when the service rejects requests, on a virtual clock.

The client's own throttle and retry policy run beside models of what other clients do, against a
table of services. No time passes and chance is seeded: the same table on any machine.
"""

import asyncio
import math
import random
import selectors
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final, TypeVar

from attrs import Factory, define, field, frozen

from aireiter_async._retry import RetryPolicy
from aireiter_async._throttle import Throttle
from aireiter_async.errors import RateLimitError
from benchmarks.report import Section, Table

T = TypeVar("T")

SLOTS: Final = 64
_WORKERS: Final = 2 * SLOTS  # as in a batch: a request that backs off holds no slot
_OPENAI_LONGEST: Final = 120  # seconds: `MAX_RETRY_AFTER_DELAY`


# A clock that only waiting moves --------------------------------------------------------------


class _Jump(selectors.SelectSelector):
    """A selector that lets time pass instead of waiting."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        """Pass the time until the next timer."""
        self.now += timeout or 0.0
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time, for coroutines that do no I/O."""

    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._jump.now


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run *coroutine* in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(coroutine)


def _now() -> float:
    return asyncio.get_running_loop().time()


def dice(seed: int = 1) -> Callable[[], float]:
    """Return a function that draws from [0, 1)."""
    return random.Random(seed).random  # noqa: S311 - a simulation


# Services -------------------------------------------------------------------------------------


@define(kw_only=True)
class Service:
    """A service without a limit.

    Attributes:
        latency: Seconds that a request and its response take on their way.
        work: Seconds that an accepted request takes besides.
        tells: Whether a rejection says when to come back.
        responses: The time of each response, and whether it was an acceptance.
    """

    latency: float = 0.05
    work: float = 0.0
    tells: bool = True
    responses: list[tuple[float, bool]] = field(factory=list[tuple[float, bool]], repr=False)

    async def exchange(self) -> RateLimitError | None:
        """Send a request, and return its rejection, if it is rejected."""
        await asyncio.sleep(self.latency / 2)
        retry_after = self.rejects(_now())
        if retry_after is None:
            self.begin()
            await asyncio.sleep(self.work + self.latency / 2)
            self.end()
        else:
            await asyncio.sleep(self.latency / 2)
        self.responses.append((_now(), retry_after is None))
        if retry_after is None:
            return None
        return RateLimitError(429, "slow down", retry_after if self.tells else None)

    def rejects(self, now: float) -> float | None:
        """Return None to accept a request, or the seconds until another one may come."""
        del now
        return None

    def begin(self) -> None:
        """Begin the work of a request."""

    def end(self) -> None:
        """End the work of a request."""

    def accepted(self, since: float, until: float) -> int:
        """Count the acceptances in a span of time."""
        return sum(ok and since <= moment < until for moment, ok in self.responses)


@define(kw_only=True)
class Bucket(Service):
    """Grants a number of requests per second, and *burst* at once; the limit may change once."""

    limit: float = 20.0
    burst: float = 20.0
    then: float = 0.0
    changes_at: float = math.inf
    tokens: float = Factory(lambda self: self.burst, takes_self=True)
    filled_at: float = 0.0

    def rejects(self, now: float) -> float | None:
        """Take a token."""
        limit = self.limit if now < self.changes_at else self.then
        self.tokens = min(self.burst, self.tokens + (now - self.filled_at) * limit)
        self.filled_at = now
        if self.tokens < 1 - 1e-9:
            return 1.0
        self.tokens -= 1
        return None


@define(kw_only=True)
class SlidingWindow(Service):
    """Grants *limit* requests in any *span* of seconds."""

    limit: int = 100
    span: float = 5.0
    granted: list[float] = field(factory=list[float])

    def rejects(self, now: float) -> float | None:
        """Look back over the span."""
        if len(self.granted) >= self.limit and now - self.granted[-self.limit] < self.span:
            return self.granted[-self.limit] + self.span - now
        self.granted.append(now)
        return None


@define(kw_only=True)
class FixedWindow(Service):
    """Grants *limit* requests in each *span* of seconds of its own clock."""

    limit: int = 60
    span: float = 60.0
    window: float = 0.0
    taken: int = 0

    def rejects(self, now: float) -> float | None:
        """Count in the current window."""
        if now // self.span != self.window:
            self.window, self.taken = now // self.span, 0
        self.taken += 1
        return None if self.taken <= self.limit else self.span - now % self.span


class _Quota(FixedWindow):
    """Grants 500 requests an hour, and says nothing."""

    def __init__(self) -> None:
        super().__init__(limit=500, span=3600.0, tells=False)


@define(kw_only=True)
class Concurrent(Service):
    """Works on *limit* requests at a time."""

    work: float = 0.5
    limit: int = 16
    at_work: int = 0

    def rejects(self, now: float) -> float | None:
        """Reject what comes on top."""
        del now
        return None if self.at_work < self.limit else 1.0

    def begin(self) -> None:
        """Begin the work of a request."""
        self.at_work += 1

    def end(self) -> None:
        """End the work of a request."""
        self.at_work -= 1


@define(kw_only=True)
class Busy(Service):
    """Rejects a share of the requests at random, between two times."""

    share: float
    since: float = 0.0
    until: float = math.inf
    draw: Callable[[], float] = field(factory=dice)

    def rejects(self, now: float) -> float | None:
        """Roll the dice."""
        rejected = self.since <= now < self.until and self.draw() < self.share
        return 1.0 if rejected else None


# Clients --------------------------------------------------------------------------------------


class Ours:
    """`AsyncClient`: its throttle and its retry policy."""

    workers = _WORKERS

    def __init__(self, seed: int = 1, max_rate: float | None = None) -> None:
        self.throttle = Throttle(SLOTS, max_rate, clock=_now)
        self._policy = RetryPolicy()
        self._uniform = dice(seed)

    async def submit(self, service: Service) -> bool:
        """Try as `AsyncClient` does."""
        throttle = self.throttle
        for attempt in range(self._policy.attempts):
            sent_at = throttle.try_acquire()
            if sent_at is None:
                sent_at = await throttle.acquire()
            error = await service.exchange()
            throttle.release()
            if error is None:
                throttle.accepted(sent_at)
                return True
            throttle.rejected(sent_at, error.retry_after)
            if attempt + 1 < self._policy.attempts:
                await asyncio.sleep(self._policy.wait(error, attempt, self._uniform))
        return False


class Backoff:
    """A loop around each request that waits between attempts, with a slot in its hand."""

    workers = SLOTS

    def __init__(self, attempts: int, wait: Callable[[int, float | None], float]) -> None:
        self._attempts = attempts
        self._wait = wait

    async def before(self) -> None:
        """Do nothing before a request."""

    def after(self, *, rejected: bool) -> None:
        """Do nothing after a request."""

    async def submit(self, service: Service) -> bool:
        """Try so many times."""
        for attempt in range(self._attempts):
            await self.before()
            error = await service.exchange()
            self.after(rejected=error is not None)
            if error is None:
                return True
            if attempt + 1 < self._attempts:
                await asyncio.sleep(self._wait(attempt, error.retry_after))
        return False


def fixed(seed: int = 1) -> Backoff:
    """Wait a second between five attempts."""
    del seed
    return Backoff(5, lambda _attempt, _retry_after: 1.0)


def openai(seed: int = 1) -> Backoff:
    """Model openai 3.57: `BaseClient._calculate_retry_timeout`, three attempts by default."""
    uniform = dice(seed)

    def wait(attempt: int, retry_after: float | None) -> float:
        if retry_after is not None and 0 < retry_after <= _OPENAI_LONGEST:
            return retry_after
        return min(0.5 * 2.0**attempt, 8.0) * (1 - 0.25 * uniform())

    return Backoff(3, wait)


class Botocore(Backoff):
    """Model botocore 1.44, mode "adaptive": `botocore.retries.adaptive.ClientRateLimiter`.

    Three attempts, `standard.ExponentialBackoff` between them (it knows no Retry-After, only a
    header of its own), `throttling.CubicCalculator` and `bucket.TokenBucket` before each.
    """

    def __init__(self, seed: int = 1) -> None:
        uniform = dice(seed)
        super().__init__(3, lambda attempt, _retry_after: uniform() * min(2.0**attempt, 20.0))
        self._enabled = False
        self._fill_rate = self._capacity_limit = 1.0
        self._capacity, self._filled_at = 0.0, 0.0
        self._best = self._zero_point = self._failed_at = 0.0
        self._measured, self._bucket, self._count = 0.0, 0.0, 0

    async def before(self) -> None:
        """Take a token: `TokenBucket.acquire`."""
        if not self._enabled:
            return
        self._refill()
        while self._capacity < 1 - 1e-9:
            await asyncio.sleep((1 - self._capacity) / self._fill_rate)
            self._refill()
        self._capacity -= 1

    def after(self, *, rejected: bool) -> None:
        """Adjust the rate: `ClientRateLimiter.on_receiving_response`."""
        now = _now()
        self._measure(now)
        if rejected:
            rate = min(self._measured, self._fill_rate) if self._enabled else self._measured
            self._best, self._failed_at, self._enabled = rate, now, True
            self._zero_point = math.cbrt(rate * 0.3 / 0.4)
            rate *= 0.7
        else:
            rate = 0.4 * (now - self._failed_at - self._zero_point) ** 3 + self._best
        self._refill()
        rate = min(rate, 2 * self._measured)
        self._fill_rate, self._capacity_limit = max(rate, 0.5), max(rate, 1.0)
        self._capacity = min(self._capacity, self._capacity_limit)

    def _measure(self, now: float) -> None:
        """Measure the rate of responses: `RateClocker.record`."""
        bucket = math.floor(now * 2) / 2
        self._count += 1
        if bucket > self._bucket:
            self._measured = 0.8 * self._count / (bucket - self._bucket) + 0.2 * self._measured
            self._count, self._bucket = 0, bucket

    def _refill(self) -> None:
        now = _now()
        filled = self._capacity + (now - self._filled_at) * self._fill_rate
        self._capacity, self._filled_at = min(self._capacity_limit, filled), now


# A batch --------------------------------------------------------------------------------------


@frozen
class Batch:
    """The result of a batch.

    Attributes:
        seconds: How long it took.
        failed: Tasks that were given up.
        rejected: Requests that were rejected.
    """

    seconds: float
    failed: int
    rejected: int


async def _work(client: Any, service: Service, tasks: int) -> Batch:
    remaining, failed = iter(range(tasks)), 0

    async def worker() -> None:
        nonlocal failed
        for _ in remaining:
            accepted = await client.submit(service)
            failed += not accepted  # in one step: others count meanwhile

    await asyncio.gather(*(worker() for _ in range(min(client.workers, tasks))))
    return Batch(_now(), failed, sum(not ok for _, ok in service.responses))


def batch(client: Any, service: Service, tasks: int = 1000) -> Batch:
    """Let *client* bring a batch of *tasks* to *service*, in virtual time."""
    return run(_work(client, service, tasks))


# The table ------------------------------------------------------------------------------------


@frozen
class Scenario:
    """A service, and a batch for it.

    Attributes:
        name: What the service does.
        make: Makes it.
        tasks: Size of the batch.
        ideal: Seconds that a client takes which knows what the service does.
        most: Times the ideal that ours may take.
        failed: Tasks that ours gives up.
    """

    name: str
    make: Callable[[], Service]
    tasks: int
    ideal: float
    most: float = 1.35
    failed: int = 0


def _bucket(limit: float, burst: float, tasks: int, **options: Any) -> Scenario:
    name = f"{limit:g} per second, {burst:g} at once"
    if "latency" in options:
        name += f", answers in {options['latency']:g} s"
    if not options.get("tells", True):
        name += ", no Retry-After"
    make = partial(Bucket, limit=limit, burst=burst, **options)
    return Scenario(name, make, tasks, (tasks - burst) / limit)


def _change(limit: float, then: float) -> Scenario:
    # Fifteen seconds before the change, and thirty after it.
    tasks = int(15 * limit + 30 * then)
    make = partial(Bucket, limit=limit, then=then, changes_at=15.0)
    return Scenario(f"{limit:g} per second, after 15 s {then:g}", make, tasks, 45.0)


def _busy(share: float, most: float, **options: Any) -> Scenario:
    tells = "" if options.get("tells", True) else ", no Retry-After"
    make = partial(Busy, share=share, latency=0.25, **options)
    return Scenario(f"rejects {100 * share:g} % at random{tells}", make, 1000, 4.0, most)


SCENARIOS: Final = (
    Scenario("accepts everything", Service, 1000, 0.8, 1.01),
    _bucket(20, 20, 1000),
    _bucket(20, 20, 1000, tells=False),
    _bucket(20, 1, 1000),
    _bucket(20, 1, 1000, tells=False),
    _bucket(20, 20, 1000, latency=1.0),
    _bucket(200, 20, 2000),
    _bucket(2, 2, 100),
    _change(80, 20),
    _change(20, 80),
    _change(200, 20),
    _change(20, 200),
    Scenario("any 5 seconds: 100", SlidingWindow, 1000, 45.0),
    Scenario("any 5 seconds: 100, no Retry-After", partial(SlidingWindow, tells=False), 1000, 45.0),
    Scenario("each minute: 60", FixedWindow, 300, 240.0),
    Scenario("each minute: 60, no Retry-After", partial(FixedWindow, tells=False), 300, 240.0),
    Scenario("500 an hour, no Retry-After", _Quota, 600, 3600.0, 1.01, 100),
    Scenario("16 at a time, half a second each", Concurrent, 1000, 1000 / 16 * 0.525),
    _busy(0.005, 2.0),
    _busy(0.03, 3.0),
    _busy(0.03, 3.0, tells=False),
    _busy(0.1, 10.0),
    _busy(0.1, 10.0, tells=False),
    Scenario(
        "rejects 80 % between 5 s and 25 s",
        partial(Busy, share=0.8, since=5.0, until=25.0, latency=0.25),
        10_000,
        20.0 * 0.8 + 40.0,
        2.5,
    ),
    Scenario(
        "rejects everything between 5 s and 25 s",
        partial(Busy, share=1.0, since=5.0, until=25.0, latency=0.25),
        10_000,
        20.0 + 40.0,
    ),
)
CLIENTS: Final[dict[str, Callable[[], Any]]] = {
    "aireiter_async": Ours,
    "openai": openai,
    'botocore "adaptive"': Botocore,
    "fixed second": fixed,
}


def measure(share: float) -> Section:
    """Let each client bring a batch to each service."""
    del share
    rows = []
    for scenario in SCENARIOS:
        row = [scenario.name, f"{scenario.ideal:.1f} s"]
        for client in CLIENTS.values():
            result = batch(client(), scenario.make(), scenario.tasks)
            failed = f", {result.failed} failed" if result.failed else ""
            row.append(f"{result.seconds / scenario.ideal:.2f}{failed} ({result.rejected})")
        rows.append(row)
    text = (
        f"A batch with {SLOTS} slots, on a virtual clock: the table is the same on any machine. "
        "*Ideal*: the seconds of a client that knows what the service does. Then the time that "
        "each client takes, as a multiple of it, the tasks that it gives up, and in brackets the "
        "requests that the service rejects. aireiter_async is the real throttle and retry policy. "
        "The others are models of the retries of openai 3.57 (three attempts), of botocore 1.44 "
        "in mode `adaptive` (three attempts; it ignores Retry-After), and of a loop that waits a "
        "second between five attempts."
    )
    table = Table(["service", "ideal", *CLIENTS], rows)
    return Section("When the service rejects requests", text, [table])
