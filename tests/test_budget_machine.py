"""A budget against services of every kind: the limit holds, and nothing is stuck below it."""

import asyncio
import itertools
from collections.abc import Iterator
from typing import Any

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from aireiter_async import SubmitRequest
from aireiter_async._batch._budget import Budget, NullReservation, Reservation
from aireiter_async._batch._prices import price_kind
from aireiter_async.errors import BudgetExceededError, ServerError

PRICES = st.sampled_from([0.0, 0.5, 1.0, 2.5, 7.0, 30.0])
ESTIMATES = st.sampled_from(["right", "missing", "zero", "low", "high"])
FACTORS = {"right": 1.0, "low": 0.5, "high": 2.0}


@attrs.define
class Model:
    """What the service does with one model, of which each *size* is a kind of its own."""

    name: str
    prices: tuple[float, ...]
    estimates: str
    charges: bool

    def estimate(self, price: float) -> float | None:
        if self.estimates == "missing":
            return None
        return FACTORS.get(self.estimates, 0.0) * price


@attrs.define(eq=False)
class Job:
    """One request on its way, and what the service knows of it."""

    request: SubmitRequest
    model: Model
    price: float
    maybe_sent: bool = False
    row: dict[str, Any] | None = None
    opening: "asyncio.Task[Reservation] | None" = None
    reservation: Reservation | NullReservation | None = None
    charged: bool = False


class BudgetMachine(RuleBasedStateMachine):
    """Requests of several models, in any order of events, across restarts."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.jobs: list[Job] = []
        self.rows: list[Job] = []  # the ledger
        self.account = 1e6
        self.tells_balance = True
        self.numbers: Iterator[int] = itertools.count()
        self.excess = 0.0  # charged above the estimates

    @initialize(
        limit=st.sampled_from([0.0, 1.0, 5.0, 12.0, 100.0]),
        models=st.lists(
            st.tuples(st.lists(PRICES, min_size=2, max_size=2), ESTIMATES, st.booleans()),
            min_size=1,
            max_size=3,
        ),
        balance=st.booleans(),
        waits=st.booleans(),
    )
    def begin(self, limit: float, models: list[Any], *, balance: bool, waits: bool) -> None:
        self.limit = limit
        self.models = [
            Model(f"model_{n}", tuple(prices), estimates, charges)
            for n, (prices, estimates, charges) in enumerate(models)
        ]
        self.tells_balance = balance
        self.waits = waits  # as run_many does, and submit_many does not
        self.budget = self.make()

    def make(self) -> Budget:
        return Budget(self.limit, self.balance)

    async def balance(self) -> float:
        if not self.tells_balance:
            raise ServerError(500, "no")
        return self.account

    def turn(self) -> None:
        """Let everything run that can, and collect what was reserved or rejected."""
        self.loop.run_until_complete(self.settle())

    async def settle(self) -> None:
        for _ in range(8):
            await asyncio.sleep(0)
        for job in [each for each in self.jobs if each.opening and each.opening.done()]:
            assert job.opening is not None
            error = job.opening.exception()
            if error is None:
                job.reservation, job.opening = job.opening.result(), None
                if job.row is None:
                    job.row = {
                        "model": job.request.model,
                        "params": job.request.params,
                        "state": "intended",
                        "estimated_credits": None,
                        "credits_used": None,
                    }
                    self.rows.append(job)
            else:
                assert isinstance(error, BudgetExceededError)
                self.refused(job)

    def refused(self, job: Job) -> None:
        """A rejection is right: what is final leaves no room, or a price is unknown."""
        self.jobs.remove(job)
        price = self.budget._prices.get(price_kind(job.request.model, job.request.params), 0.0)
        fits = self.budget.committed + price <= self.limit - 1e-6 and not self.budget._unknown
        assert not fits or job.maybe_sent

    def open(self) -> list[Job]:
        return [job for job in self.jobs if job.reservation is not None and not job.charged]

    def running(self) -> list[Job]:
        return [job for job in self.jobs if job.reservation is not None and job.charged]

    @rule(number=st.integers(1, 10), data=st.data())
    def submit(self, number: int, data: st.DataObject) -> None:
        for _ in range(number):
            model = data.draw(st.sampled_from(self.models))
            size = data.draw(st.integers(0, len(model.prices) - 1))
            params = {"size": size, "seed": next(self.numbers), "prompt": f"{next(self.numbers)}"}
            job = Job(SubmitRequest(model.name, params), model, model.prices[size])
            job.opening = self.loop.create_task(self.budget.reserve(job.request))
            self.jobs.append(job)
        self.turn()

    @precondition(lambda self: self.open())
    @rule(number=st.integers(1, 20))
    def accept(self, number: int) -> None:
        for _ in range(number):
            for job in self.open()[:1]:
                self.accept_one(job)

    def accept_one(self, job: Job) -> None:
        assert job.reservation is not None
        assert job.row is not None
        if job.row["state"] == "intended":
            self.charge(job)
        job.charged = True
        estimate = job.model.estimate(job.price)
        job.row |= {"state": "submitted", "estimated_credits": estimate}
        self.loop.run_until_complete(self.accepted(job.reservation, estimate))
        if not self.waits:
            job.reservation.close()
            self.jobs.remove(job)
        self.turn()

    async def accepted(
        self, reservation: Reservation | NullReservation, estimate: float | None
    ) -> None:
        reservation.accepted(estimate)
        if reservation.unpriced:
            await reservation.measure()

    def charge(self, job: Job) -> None:
        self.account -= job.price
        estimate = job.model.estimate(job.price)
        if estimate:
            self.excess += max(0.0, job.price - estimate)

    @precondition(lambda self: self.open())
    @rule(data=st.data(), charged=st.booleans())
    def lose(self, data: st.DataObject, *, charged: bool) -> None:
        """The response is lost, and the service cannot be queried."""
        job = data.draw(st.sampled_from(self.open()))
        assert job.reservation is not None
        assert job.row is not None
        if charged and job.row["state"] == "intended":
            self.charge(job)
            job.row["state"] = "uncertain"
        job.reservation.close()
        self.jobs.remove(job)
        self.turn()

    @precondition(lambda self: any(not job.maybe_sent for job in self.open()))
    @rule(data=st.data())
    def reject(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from([job for job in self.open() if not job.maybe_sent]))
        assert job.reservation is not None
        job.reservation.released()
        job.reservation.close()
        self.jobs.remove(job)
        self.rows.remove(job)
        self.turn()

    @precondition(lambda self: self.running())
    @rule(data=st.data(), fails=st.booleans())
    def end(self, data: st.DataObject, *, fails: bool) -> None:
        self.finish(data.draw(st.sampled_from(self.running())), fails=fails)

    def finish(self, job: Job, *, fails: bool) -> None:
        assert job.reservation is not None
        assert job.row is not None
        if fails:
            self.account += job.price
            job.row["state"] = "failed"
            job.reservation.released()
        else:
            charge = job.price if job.model.charges else None
            job.row |= {"state": "completed", "credits_used": charge}
            job.reservation.finished(charge)
        job.reservation.close()
        self.jobs.remove(job)
        self.turn()

    @precondition(lambda self: any(job.opening for job in self.jobs))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from([job for job in self.jobs if job.opening]))
        assert job.opening is not None
        job.opening.cancel()
        self.jobs.remove(job)
        self.turn()

    @rule()
    def restart(self) -> None:
        """The program is killed; the next run goes through the ledger."""
        self.kill()
        self.budget = self.make()
        for job in self.rows:
            assert job.row is not None
            self.budget.include(job.row)
        for job in self.rows:
            assert job.row is not None
            again = Job(job.request, job.model, job.price, maybe_sent=True, row=job.row)
            if job.row["state"] in {"intended", "uncertain"}:
                coroutine = self.budget.reserve(job.request, maybe_sent=True)
                again.opening = self.loop.create_task(coroutine)
                self.jobs.append(again)
            elif job.row["state"] == "submitted" and self.waits:
                estimate = job.row["estimated_credits"]
                again.reservation = self.budget.reopen(job.request, estimate)
                again.charged = True
                self.jobs.append(again)
        self.turn()

    def kill(self) -> None:
        for job in self.jobs:
            if job.opening is not None:
                job.opening.cancel()
        self.turn_quietly()
        self.jobs = []

    def turn_quietly(self) -> None:
        opening = [job.opening for job in self.jobs if job.opening is not None]
        if opening:
            self.loop.run_until_complete(asyncio.wait(opening))

    @invariant()
    def the_limit_holds(self) -> None:
        if hasattr(self, "budget"):
            spent = 1e6 - self.account
            dearest = max(price for model in self.models for price in model.prices)
            assert spent <= self.limit + dearest + self.excess + 1e-6

    def teardown(self) -> None:
        """Whatever is in progress ends, and then nobody waits for the budget."""
        if hasattr(self, "budget"):
            for _ in range(200):
                for job in self.open():
                    if job.maybe_sent or not job.charged:
                        assert job.reservation is not None
                        job.reservation.close()
                        self.jobs.remove(job)
                for job in self.running():
                    self.finish(job, fails=False)
                self.turn()
                if not self.jobs:
                    break
            assert not self.jobs
            assert not self.budget._waiting
        self.loop.close()


TestBudget = BudgetMachine.TestCase
TestBudget.settings = settings(max_examples=settings().max_examples // 4, stateful_step_count=25)
