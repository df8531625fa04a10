"""
A machine that plays client, service, ledger and misfortune against each other, at random.

After each step: nothing is charged twice, nothing that was not asked for, and each id of the batch
that was charged stands in the ledger. In the end all of it is completed, once.
"""

import asyncio
import shutil
import sqlite3
import tempfile
from collections.abc import Coroutine
from contextlib import aclosing, closing, suppress
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from aireiter_async import (
    AireiterError,
    AsyncClient,
    Ledger,
    Outcome,
    PollPolicy,
    RetryPolicy,
    SubmitRequest,
    TaskStatus,
    run_many,
    submit_many,
)
from aireiter_async.testing import FakeService, Fault
from tests.hostile_steps import Blow, counting
from tests.hostile_time import Clock, clocked

T = TypeVar("T")

ON_SUBMIT = [
    make(accepted=accepted)
    for make in (Fault.lost_answer, Fault.reset, Fault.truncated, Fault.no_data, Fault.server_error)
    for accepted in (False, True)
] + [
    Fault.too_many_requests(0),
    Fault.too_many_requests(3, in_envelope=True),
    Fault.html(403, accepted=True),
    Fault.html(502),
    Fault.no_credits(),
    Fault.bad_request("Invalid aspect_ratio"),
    Fault.failed(),
    Fault.redirect(),
]
ON_QUERY = [
    Fault.lost_answer(),
    Fault.reset(),
    Fault.truncated(),
    Fault.html(200),
    Fault.server_error(503),
    Fault.too_many_requests(1),
    Fault.task_status("processing"),
    Fault.task_status("dreaming"),
    Fault.broken_json(),
]
# A cancellation at that suspension; 0: none.
STEPS = st.one_of(st.just(0), st.integers(1, 60))


class Machine(RuleBasedStateMachine):
    """
    The steps, and what has to hold after each.
    """

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="machine-"))
        self.ledger = self.directory / "run.db"
        self.loop = asyncio.new_event_loop()
        self.clock = Clock()
        self.service = FakeService(clock=self.clock, used_id="charge", durations=5.0)
        self.singles: list[SubmitRequest] = []
        self.sent: set[str] = set()
        self.batch: list[SubmitRequest] = []
        self.play(self.service.start())
        self.client = self.connect()

    def play(self, call: Coroutine[Any, Any, T]) -> T:
        """
        Run *call* to its end, in bounded time.
        """
        return self.loop.run_until_complete(asyncio.wait_for(call, 60))

    def connect(self) -> AsyncClient:
        """
        Make a client.
        """
        return clocked(
            self.clock,
            self.service.api_key,
            base_url=self.service.url,
            max_concurrency=3,
            retry=RetryPolicy(base=1),
            polling=PollPolicy(first=1, step=1, cap=5),
        )

    async def cancelled(self, call: Coroutine[Any, Any, Any], step: int, *, late: bool) -> Any:
        """
        Run *call*, cancelled at one of the suspensions of its tasks; return how it ended.
        """
        blow = Blow(step, late=late)
        with counting(blow):
            blow.task = self.loop.create_task(call)
            await asyncio.wait([blow.task])
        if blow.task.cancelled():
            return None
        return blow.task.exception() or blow.task.result()

    @rule(faults=st.lists(st.sampled_from(ON_SUBMIT), max_size=3))
    def disturb_submits(self, faults: list[Fault]) -> None:
        """
        Let faults strike the next submits.
        """
        self.service.script("submit", *faults)

    @rule(faults=st.lists(st.sampled_from(ON_QUERY), max_size=6))
    def disturb_looks(self, faults: list[Fault]) -> None:
        """
        Let faults strike the next looks.
        """
        self.service.script("query", *faults)

    @rule(
        used_id=st.sampled_from(["refuse", "return", "charge"]),
        looks=st.integers(0, 2),
        envelope=st.sampled_from(["plain", "ok", "code", "list"]),
        form=st.sampled_from(["seen", "http", "envelope"]),
    )
    def change_the_service(self, used_id: Any, looks: int, envelope: Any, form: Any) -> None:
        """
        Let the service behave in another way that is not ruled out.
        """
        self.service.used_id, self.service.visible_after_looks = used_id, looks
        self.service.envelope, self.service.refusal_form = envelope, form

    @rule(step=STEPS, late=st.booleans())
    def submit(self, step: int, late: bool) -> None:  # noqa: FBT001 - of hypothesis
        """
        Submit one more task.
        """
        request = SubmitRequest("veo3_1", {"n": len(self.singles)})
        self.singles.append(request)
        end = self.play(self.cancelled(self.client.submit(request), step, late=late))
        assert not isinstance(end, Exception) or isinstance(end, AireiterError)

    @precondition(lambda self: self.singles)
    @rule(which=st.integers(0, 99), step=STEPS, late=st.booleans())
    def submit_again(self, which: int, step: int, late: bool) -> None:  # noqa: FBT001
        """
        Run a task again that may have been submitted.
        """
        request = self.singles[which % len(self.singles)]
        end = self.play(self.cancelled(self.client.run(request, maybe_sent=True), step, late=late))
        assert not isinstance(end, Exception) or isinstance(end, AireiterError)

    @rule(more=st.integers(0, 3), step=STEPS, late=st.booleans(), waiting=st.booleans())
    def run_the_batch(self, more: int, step: int, late: bool, waiting: bool) -> None:  # noqa: FBT001
        """
        Go on with the batch, that may have become longer.
        """
        first = len(self.batch)
        self.batch += [SubmitRequest("veo3_1", {"line": first + n}) for n in range(more)]
        end = self.play(self.cancelled(self.consume(waiting=waiting), step, late=late))
        assert not isinstance(end, Exception)

    async def consume(self, *, waiting: bool) -> list[Outcome]:
        """
        Run the batch.
        """
        async with Ledger(self.ledger) as ledger:
            outcomes = (
                run_many(self.client, self.batch, ledger=ledger, window=3, retry_failed=True)
                if waiting
                else submit_many(self.client, self.batch, ledger=ledger, retry_failed=True)
            )
            async with aclosing(outcomes):
                return [outcome async for outcome in outcomes]

    @rule()
    def restart_the_service(self) -> None:
        """
        Cut every connection.
        """
        self.play(self.service.close())
        self.play(self.service.start())

    @rule()
    def restart_the_client(self) -> None:
        """
        Close the client, and make another.
        """
        self.play(self.client.close())
        self.client = self.connect()

    @rule(step=st.integers(1, 60))
    def close_while_busy(self, step: int) -> None:
        """
        Close the client in the middle of a batch.
        """
        old = self.client

        async def play() -> None:
            task = self.loop.create_task(self.consume(waiting=True))
            for _ in range(step):
                await asyncio.sleep(0)
            await old.close()
            await asyncio.wait([task])
            assert task.exception() is None or isinstance(task.exception(), RuntimeError)

        self.play(play())
        self.client = self.connect()

    def charged(self) -> list[str]:
        """
        Return the ids that were charged for.
        """
        return [charge.out_task_id for charge in self.service.charges]

    def recorded(self) -> set[str]:
        """
        Return the ids in the ledger.
        """
        if not self.ledger.exists():
            return set()
        with closing(sqlite3.connect(self.ledger)) as db:
            return {row[0] for row in db.execute("SELECT out_task_id FROM tasks")}

    @invariant()
    def nothing_twice(self) -> None:
        """
        No id is charged twice.
        """
        charged = self.charged()
        assert len(charged) == len(set(charged))

    @invariant()
    def nothing_unknown(self) -> None:
        """
        What was charged was submitted: on its own, or by the batch, and then the ledger knows.
        """
        singles = {request.out_task_id for request in self.singles}
        assert set(self.charged()) - singles <= self.recorded()

    @invariant()
    def nothing_left(self) -> None:
        """
        No slot is taken, and nobody waits for one.
        """
        stats = self.client.stats
        assert (stats.in_flight, stats.waiting) == (0, 0)

    def teardown(self) -> None:
        """
        Let all end well, and look whether it has.
        """
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
        """
        Without further faults everything completes, each charged once.
        """
        for script in self.service._plan._scripts.values():
            script.clear()
        self.service.visible_after_looks = 0
        for _ in range(2):  # what the service has let fail is submitted again, under a new id
            outcomes = self.play(self.consume(waiting=True))
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
        assert set(charged) == singles | done | failed


TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=25,
    stateful_step_count=15,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
