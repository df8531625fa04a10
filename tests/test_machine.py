"""A state machine of client, service and ledger, with random faults, cancellations and kills.

After each step: nothing is charged twice, nothing that was not asked for, and each id of the batch
that was charged stands in the ledger; what is said to be refused was not charged, what is said to
have failed has, and no limit is passed. In the end all of it is completed, once.
"""

import asyncio
import json
import shutil
import sqlite3
import tempfile
from collections.abc import Coroutine
from contextlib import aclosing, closing, suppress
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from aireiter_async import (
    AireiterError,
    AmbiguousSubmitError,
    AsyncClient,
    AuthenticationError,
    BudgetExceededError,
    DownloadError,
    InsufficientCreditsError,
    Ledger,
    NotSubmittedError,
    PollPolicy,
    RetryPolicy,
    SubmitRequest,
    Task,
    TaskFailedError,
    TaskNotFoundError,
    TaskStatus,
    TaskTimeoutError,
)
from aireiter_async.testing import FakeService, Fault
from tests.hostile_steps import Blow, Death, counting
from tests.hostile_time import Clock, clocked

T = TypeVar("T")

PRICE = 2.0
OTHER_TASK = '{"statusCode":200,"data":{"out_task_id":"other","status":"pending"}}'
BREAKS = [Fault.lost_response, Fault.reset, Fault.truncated, Fault.no_data, Fault.server_error]
TAKEN = [
    *(make(accepted=True) for make in BREAKS),
    Fault.html(502, accepted=True),
    Fault.reply(200, OTHER_TASK, accepted=True),
]
NOT_TAKEN = [*(make() for make in BREAKS), Fault.html(502), Fault.redirect()]
REFUSED = [
    Fault.too_many_requests(0),
    Fault.too_many_requests(3, in_envelope=True),
    Fault.too_many_requests(500),
    Fault.no_credits(),
    Fault.bad_request("Invalid aspect_ratio"),
    Fault.reply(401, '{"error":{"code":401,"message":"Invalid API key"}}'),
]
ON_SUBMIT = st.one_of(
    *(st.sampled_from(kind) for kind in (TAKEN, NOT_TAKEN, REFUSED, [Fault.ok(), Fault.failed()]))
)
ON_QUERY = st.sampled_from(
    [
        Fault.lost_response(),
        Fault.reset(),
        Fault.truncated(),
        Fault.html(200),
        Fault.server_error(503),
        Fault.too_many_requests(1),
        Fault.task_status("processing"),
        Fault.task_status("dreaming"),
        Fault.broken_json(),
    ]
)
ON_RESULT = st.sampled_from([Fault.truncated(), Fault.reset(), Fault.html(502)])
# What strikes next, at each endpoint; what is left of it strikes later.
TROUBLE = st.fixed_dictionaries(
    {
        "submit": st.lists(ON_SUBMIT, max_size=4),
        "query": st.lists(ON_QUERY, max_size=6),
        "result": st.lists(ON_RESULT, max_size=3),
    }
)
# What happens to a used id, and how many looks do not see a task: where it is charged again, only
# a task that settling finds is safe.
LAGS = st.one_of(
    st.tuples(st.just("charge"), st.integers(0, 2)),
    st.tuples(st.sampled_from(["reject", "return"]), st.integers(0, 6)),
)
# A cancellation at that suspension; 0: none.
STEPS = st.one_of(st.just(0), st.integers(1, 120))
# By how much the batch becomes longer.
MORE = st.integers(0, 3)
# How a batch is run.
PLANS = st.fixed_dictionaries(
    {
        "waiting": st.booleans(),
        "max_credits": st.sampled_from([None, None, 3 * PRICE, 8 * PRICE]),
        "timeout": st.sampled_from([None, 2.0]),
        "saving": st.booleans(),
    }
)


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="machine-"))
        self.ledger = self.directory / "run.db"
        self.loop = asyncio.new_event_loop()
        self.clock = Clock()
        self.service = FakeService(clock=self.clock, used_id="charge", durations=5.0, price=PRICE)
        self.singles: list[SubmitRequest] = []
        self.batch: list[SubmitRequest] = []
        self.play(self.service.start())
        self.client = self.connect()

    def play(self, call: Coroutine[Any, Any, T]) -> T:
        """Run *call* to its end, in bounded time."""
        return self.loop.run_until_complete(asyncio.wait_for(call, 60))

    def connect(self) -> AsyncClient:
        return clocked(
            self.clock,
            self.service.api_key,
            base_url=self.service.url,
            max_concurrency=3,
            retry=RetryPolicy(base=1),
            polling=PollPolicy(first=1, step=1, cap=5),
        )

    async def struck(self, call: Coroutine[Any, Any, Any], blow: Blow) -> Any:
        """Run *call*, cancelled by *blow*; return its result, or None if it was cancelled."""
        with counting(blow):
            blow.task = self.loop.create_task(call)
            await asyncio.wait([blow.task])
        return None if blow.task.cancelled() else blow.task.result()

    def more_singles(self, count: int) -> list[SubmitRequest]:
        first = len(self.singles)
        self.singles += [SubmitRequest("veo3_1", {"n": first + n}) for n in range(count)]
        return self.singles[first:]

    def disturb(self, trouble: dict[Any, list[Fault]]) -> None:
        for endpoint, faults in trouble.items():
            self.service.script(endpoint, *faults)

    @rule(
        lag=LAGS,
        seconds=st.sampled_from([0.0, 3.0]),
        envelope=st.sampled_from(["plain", "ok", "code", "list"]),
        form=st.sampled_from(["live", "http", "envelope"]),
    )
    def change_the_service(
        self, lag: tuple[Any, int], seconds: float, envelope: Any, form: Any
    ) -> None:
        """Change the service to another behaviour that the API allows."""
        self.service.used_id, self.service.visible_after_polls = lag
        self.service.visible_after = seconds
        self.service.envelope, self.service.rejection_form = envelope, form

    @rule(trouble=TROUBLE, count=st.integers(1, 4), step=STEPS, late=st.booleans())
    def submit(self, trouble: Any, count: int, step: int, late: bool) -> None:  # noqa: FBT001
        self.disturb(trouble)
        requests = self.more_singles(count)

        async def play() -> list[Any]:
            calls = (self.client.submit(request) for request in requests)
            return await asyncio.gather(*calls, return_exceptions=True)

        ends = self.play(self.struck(play(), Blow(step, late=late)))
        for request, end in zip(requests, ends or [], strict=ends is not None):
            self.check(request.out_task_id, end)

    @precondition(lambda self: self.singles)
    @rule(trouble=TROUBLE, which=st.integers(0, 99), step=STEPS, late=st.booleans())
    def submit_again(self, trouble: Any, which: int, step: int, late: bool) -> None:  # noqa: FBT001
        """Run a request again that may have been submitted."""
        self.disturb(trouble)
        request = self.singles[which % len(self.singles)]

        async def play() -> Any:
            try:
                return await self.client.run(request, maybe_sent=True)
            except AireiterError as error:
                return error

        end = self.play(self.struck(play(), Blow(step, late=late)))
        if end is not None:  # pragma: no branch - None where it was cancelled
            self.check(request.out_task_id, end)

    @rule(more=MORE, trouble=TROUBLE, plan=PLANS, step=STEPS, late=st.booleans())
    def run_the_batch(
        self,
        more: int,
        trouble: Any,
        plan: dict[str, Any],
        step: int,
        late: bool,  # noqa: FBT001 - of hypothesis
    ) -> None:
        """Resume the batch, which may have become longer."""
        self.lengthen(more, trouble)
        before, limit = self.spent(), plan["max_credits"]
        priced = any(row["estimated_credits"] or row["credits_used"] for row in self.rows())
        outcomes = self.play(self.struck(self.consume(**plan), Blow(step, late=late)))
        if limit is not None and priced:  # else the price may not be told in time
            assert self.spent() <= max(before, limit)
        if outcomes is not None:
            assert sorted(outcome.index for outcome in outcomes) == list(range(len(outcomes)))
            # A batch stops where the account is at fault.
            errors = [outcome.error for outcome in outcomes]
            account = (AuthenticationError, InsufficientCreditsError, NotSubmittedError)
            stopped = any(isinstance(error, account) for error in errors)
            assert stopped or len(outcomes) == len(self.batch)
            for outcome in outcomes:
                self.check(outcome.request.out_task_id, outcome.error or outcome.task)

    @rule(more=MORE, trouble=TROUBLE, plan=PLANS, step=STEPS.filter(bool), late=st.booleans())
    def kill_the_batch(
        self,
        more: int,
        trouble: Any,
        plan: dict[str, Any],
        step: int,
        late: bool,  # noqa: FBT001 - of hypothesis
    ) -> None:
        """Resume the batch in a process that is killed."""
        self.lengthen(more, trouble)
        death = Death(step, late=late, ledger=self.ledger)
        self.play(self.struck(self.consume(**plan), death))
        death.bury()

    def lengthen(self, more: int, trouble: dict[Any, list[Fault]]) -> None:
        """Append requests to the batch, and script faults."""
        self.disturb(trouble)
        for line in range(len(self.batch), len(self.batch) + more):
            self.batch.append(SubmitRequest("veo3_1", {"line": line}))

    async def consume(
        self,
        *,
        waiting: bool = True,
        max_credits: float | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - of each task
        saving: bool = False,
    ) -> list[Any]:
        async with Ledger(self.ledger) as ledger:
            options: dict[str, Any] = {
                "ledger": ledger,
                "max_credits": max_credits,
                "retry_failed": True,
            }
            if waiting:
                options |= {"window": 3, "timeout": timeout}
                options |= {"download_to": self.directory / "results"} if saving else {}
            many: Any = AsyncClient.run_many if waiting else AsyncClient.submit_many
            async with aclosing(many(self.client, self.batch, **options)) as outcomes:
                return [outcome async for outcome in outcomes]

    @rule()
    def restart_the_service(self) -> None:
        """Cut every connection."""
        self.play(self.restart())

    @rule(more=MORE, trouble=TROUBLE, plan=PLANS, turns=st.integers(1, 200))
    def restart_while_busy(self, more: int, trouble: Any, plan: dict[str, Any], turns: int) -> None:
        """Cut every connection in the middle of a batch."""
        self.lengthen(more, trouble)

        async def play() -> list[Any]:
            task = self.loop.create_task(self.consume(**plan))
            for _ in range(turns):
                await asyncio.sleep(0)
            await self.restart()
            return await task

        for outcome in self.play(play()):
            self.check(outcome.request.out_task_id, outcome.error or outcome.task)

    async def restart(self) -> None:
        await self.service.close()
        await self.service.start()

    @rule()
    def restart_the_client(self) -> None:
        self.play(self.client.close())
        self.client = self.connect()

    @rule(more=MORE, trouble=TROUBLE, count=st.integers(0, 4), turns=st.integers(1, 200))
    def close_while_busy(self, more: int, trouble: Any, count: int, turns: int) -> None:
        """Close the client in the middle of submits and a batch."""
        self.lengthen(more, trouble)
        old, requests = self.client, self.more_singles(count)

        async def play() -> list[Any]:
            batch = self.loop.create_task(self.consume())
            singles = [self.loop.create_task(old.submit(request)) for request in requests]
            for _ in range(turns):
                await asyncio.sleep(0)
            await old.close()
            await asyncio.wait([batch, *singles])
            assert batch.exception() is None or isinstance(batch.exception(), RuntimeError)
            return await asyncio.gather(*singles, return_exceptions=True)

        for request, end in zip(requests, self.play(play()), strict=True):
            self.check(request.out_task_id, end)
        self.client = self.connect()

    def check(self, out_task_id: str, end: Any) -> None:
        """Fail unless the outcome of a call agrees with the service."""
        task = self.service.tasks.get(out_task_id)
        if isinstance(end, AmbiguousSubmitError):
            return
        if isinstance(end, Task):
            assert task is not None
            assert end.status is not TaskStatus.COMPLETED or not task.failure
        elif isinstance(end, TaskFailedError):
            assert task is not None
            assert task.failure
        elif isinstance(end, TaskTimeoutError | TaskNotFoundError | DownloadError):
            assert task is not None
        elif isinstance(end, BudgetExceededError):
            known = {row["out_task_id"]: row["state"] for row in self.rows()}
            # A task that the service does not show yet would be submitted again.
            hidden = task is not None and task.polls <= self.service.visible_after_polls
            resumable = {"intended", "uncertain", "failed", *(["submitted"] if hidden else [])}
            assert task is None or known[out_task_id] in resumable
        else:  # it was certainly not accepted
            assert isinstance(end, AireiterError | RuntimeError)
            assert task is None

    def charged(self) -> list[str]:
        return [charge.out_task_id for charge in self.service.charges]

    def spent(self) -> float:
        """Return what the batch has cost, without refunds for failed tasks."""
        singles = {request.out_task_id for request in self.singles}
        return sum(
            charge.credits
            for charge in self.service.charges
            if charge.out_task_id not in singles
            and not self.service.tasks[charge.out_task_id].failure
        )

    def rows(self) -> list[sqlite3.Row]:
        if not self.ledger.exists():
            return []
        with closing(sqlite3.connect(self.ledger)) as db:
            db.row_factory = sqlite3.Row
            if not db.execute("SELECT * FROM sqlite_master").fetchall():
                return []  # pragma: no cover - cut short while it was made
            return db.execute("SELECT * FROM tasks").fetchall()

    @invariant()
    def nothing_twice(self) -> None:
        """Charges equal tasks: no ID is charged twice."""
        assert sorted(self.charged()) == sorted(self.service.tasks)

    @invariant()
    def nothing_unknown(self) -> None:
        singles = {request.out_task_id for request in self.singles}
        recorded = {row["out_task_id"] for row in self.rows()}
        assert set(self.charged()) - singles <= recorded

    @invariant()
    def nothing_untrue(self) -> None:
        """The states in the ledger agree with the service."""
        for row in self.rows():
            task, state = self.service.tasks.get(row["out_task_id"]), row["state"]
            assert task is None or state != "rejected"
            if state not in {"intended", "uncertain", "rejected"}:
                assert task is not None
                if state not in {"submitted", "lost"}:
                    assert bool(task.failure) == (state == "failed")
                if state in {"completed", "downloaded"}:
                    assert row["credits_used"] == task.credits
                if state == "downloaded":
                    files = json.loads(row["paths"])
                    assert all(Path(file["path"]).stat().st_size == file["size"] for file in files)

    @invariant()
    def nothing_left(self) -> None:
        """No slot is held, no call queues, and no file is partial."""
        stats = self.client.stats
        assert (stats.in_flight, stats.waiting) == (0, 0)
        assert list(self.directory.rglob("*.part")) == []

    def teardown(self) -> None:
        try:
            self.end_well()
        finally:
            self.play(self.client.close())
            self.play(self.service.close())
            assert asyncio.all_tasks(self.loop) == set()
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()
            shutil.rmtree(self.directory)

    def end_well(self) -> None:
        """Without further faults everything completes, each charged once."""
        for script in self.service._plan._scripts.values():
            script.clear()
        self.service.visible_after = self.service.visible_after_polls = 0
        for _ in range(2):  # what the service has let fail is submitted again, under a new id
            outcomes = self.play(self.consume())
        failed = {task.out_task_id for task in self.service.tasks.values() if task.failure}
        assert [outcome.error for outcome in outcomes] == [None] * len(self.batch)
        for request in self.singles:
            with suppress(AireiterError):
                task = self.play(self.client.run(request, maybe_sent=True))
                assert task.status is TaskStatus.COMPLETED
        singles = {request.out_task_id for request in self.singles}
        done = {outcome.request.out_task_id for outcome in outcomes}
        charged = self.charged()
        assert len(charged) == len(set(charged))
        # These clients have no grace: what the service did not show at once was submitted again.
        lost = {row["out_task_id"] for row in self.rows() if row["state"] == "lost"}
        assert set(charged) == singles | done | failed | lost


TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=settings().max_examples // 10,
    stateful_step_count=15,
    phases=set(Phase) - {Phase.shrink},  # it takes minutes, and a hung test is ended after two
    suppress_health_check=list(HealthCheck),
)
