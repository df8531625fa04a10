"""A limit on the credits that batches may spend.

A submit is charged when it is accepted, so its price is reserved before it is sent: the highest
known price of its kind. If none is known, only one such task runs at a time, across all kinds, and
its estimate, its charge or the balance shows the price. The limit is therefore exceeded by at most
one task's price, and by what the service charges above its own estimates.
"""

import asyncio
import math
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from aireiter_async._batch._prices import price_kind
from aireiter_async._requests import SubmitRequest
from aireiter_async._tasks import Task
from aireiter_async.errors import AireiterError, BudgetExceededError

if TYPE_CHECKING:
    from aireiter_async._ledger import Ledger

_SLACK: Final = 1e-9  # share of the limit, for rounding errors
_QUIET: Final = 10.0  # maximum seconds to wait for the submits in progress
_LOOKUPS: Final = 20  # tasks of a kind that are looked up to learn its price
_UNCERTAIN: Final = frozenset({"intended", "uncertain"})  # the service may not have the task
_OPEN: Final = _UNCERTAIN | {"submitted"}


class Budget:
    """Credits that one or more batches may spend in total; created by `AsyncClient.budget`.

    Args:
        max_credits: The limit; None for none.
        get_balance: Returns the account's remaining credits. None: learn prices from estimates
            and charges only.
        quiet: Maximum seconds to wait for submits in progress before reading the balance.

    Attributes:
        limited: Whether there is a limit.
    """

    def __init__(
        self,
        max_credits: float | None,
        get_balance: Callable[[], Awaitable[float]] | None = None,
        *,
        quiet: float = _QUIET,
    ) -> None:
        self.limited: bool = max_credits is not None
        self._limit = math.inf if max_credits is None else max_credits
        self._slack = _SLACK * max(1.0, self._limit)
        self._get_balance = get_balance
        self._quiet = quiet
        self._prices: dict[str, float] = {}  # the highest known price of each kind
        self._committed = 0.0
        self._releasable = 0.0  # the part held by open reservations
        self._unknown: Counter[str] = Counter()  # tasks of unknown cost, by kind
        self._open_unknown = 0  # those with an open reservation
        self._waiting: dict[tuple[str, bool], deque[_Waiter]] = {}
        self._including: dict[Path, asyncio.Lock] = {}
        self._unpriced: dict[Path, list[Unpriced]] = {}  # to look up, of each included ledger
        self._absent: set[str] = set()  # IDs of earlier runs that the service does not have
        self._charged = 0.0  # known charges since this object was created
        self._ambiguous = 0  # submits that may or may not have been charged
        self._pending = 0  # submits in progress
        self._idle = asyncio.Event()
        self._idle.set()
        self._readings = 0  # of the balance, in progress

    @property
    def max_credits(self) -> float | None:
        """The limit in credits, None if there is none."""
        return self._limit if self.limited else None

    @property
    def committed(self) -> float:
        """Credits spent and reserved; tasks of unknown cost count at the price of their kind."""
        prices = self._prices
        return self._committed + sum(
            number * prices.get(kind, 0.0) for kind, number in self._unknown.items()
        )

    def __repr__(self) -> str:
        return f"<Budget: {self.committed:g} of {self._limit:g} credits>"

    async def prepare(
        self, ledger: "Ledger | None", learn: "Callable[[Unpriced], Awaitable[None]]"
    ) -> None:
        """Include what earlier runs with a ledger have spent, once per ledger.

        Args:
            ledger: The ledger; other batches with it wait until it is included.
            learn: Looks up a task of an earlier run whose kind has no known price, so that no
                other task of unknown price may be sent, and passes the result to `learn_from`.
        """
        if ledger is None:
            return
        async with self._including.setdefault(ledger.path, asyncio.Lock()):
            if ledger.path not in self._unpriced:
                self._unpriced[ledger.path] = await self._include_all(ledger)
            unpriced = self._unpriced[ledger.path]

            async def learn_one(each: "Unpriced") -> None:
                await learn(each)
                unpriced.remove(each)  # if cancelled, the next batch looks up the others

            await asyncio.gather(*map(learn_one, [*unpriced]))

    async def _include_all(self, ledger: "Ledger") -> "list[Unpriced]":
        """Include all tasks of a ledger, or none; return those to learn prices from."""
        found: dict[str, list[Unpriced]] = {}
        tally = Budget(None)
        async for row in ledger.rows():
            kind = tally.include(row)
            known = found.setdefault(kind, [])
            if kind not in tally._prices and row["state"] in _OPEN and len(known) < _LOOKUPS:
                uncertain = row["state"] in _UNCERTAIN
                known.append(Unpriced(row["out_task_id"], row["model"], kind, uncertain))
        self._committed += tally._committed
        self._unknown.update(tally._unknown)
        for kind, price in tally._prices.items():
            self._learn(kind, price)
        return [each for kind in found if kind not in self._prices for each in found[kind]]

    def learn_from(self, unpriced: "Unpriced", task: Task | None) -> None:
        """Learn from a task of an earlier run; None: the service has no such task."""
        if task is not None:
            self._learn(unpriced.kind, task.credits_used or task.estimated_credits)
        elif unpriced.uncertain:
            self._absent.add(unpriced.out_task_id)
            self._add_unknown(unpriced.kind, -1)

    def discard_absent(self, out_task_id: str) -> bool:
        """Return whether `learn_from` found no such task, and forget that."""
        absent = out_task_id in self._absent
        self._absent.discard(out_task_id)
        return absent

    def include(self, row: Mapping[str, Any]) -> str:
        """Count a task of an earlier run, given as a row of `Ledger.rows`; return its kind."""
        kind = price_kind(row["model"], row["params"])
        estimate: float | None = row["estimated_credits"] or None
        if row["state"] in {"failed", "rejected"}:
            self._learn(kind, estimate)
            return kind
        cost: float | None = row["credits_used"]
        if cost is None:
            cost = estimate
        if cost is None:
            self._unknown[kind] += 1
        else:
            self._committed += cost
            self._learn(kind, cost)
        return kind

    async def reserve(self, request: SubmitRequest, *, maybe_sent: bool = False) -> "Reservation":
        """Reserve the price of a task before it is submitted.

        A request that does not fit waits as long as open reservations could still make room.

        Args:
            request: The task's request.
            maybe_sent: Whether `include` has already counted the task, without a cost.

        Raises:
            BudgetExceededError: The task could exceed the limit.
        """
        kind = price_kind(request.model, request.params)
        queue = self._waiting.get((kind, maybe_sent))
        admitted = None if queue else self._may_send(kind, counted=maybe_sent)
        if admitted is None:
            reservation = await self._wait(kind, request.out_task_id, counted=maybe_sent)
        elif admitted:
            reservation = self._open(kind, counted=maybe_sent)
        else:
            raise self._exceeded(kind, request.out_task_id)
        if reservation.credits is None:
            if self._get_balance is not None:
                try:
                    reservation.before = await self.read_balance()
                except BaseException:
                    self._cancel(reservation, counted=maybe_sent)
                    raise
            reservation.send()
        return reservation

    def include_unknown(self, request: SubmitRequest) -> None:
        """Count a task of unknown cost that `include` has not counted."""
        if self.limited:
            self._unknown[price_kind(request.model, request.params)] += 1

    def reopen(
        self, request: SubmitRequest, credits_: float | None
    ) -> "Reservation | NullReservation":
        """Reopen the reservation of a task that is already counted, with or without a cost."""
        if not self.limited:
            return NO_RESERVATION
        credits_ = credits_ or None
        if credits_ is None:
            self._open_unknown += 1
        else:
            self._releasable += credits_
        return Reservation(self, price_kind(request.model, request.params), credits_)

    def remove(self, request: SubmitRequest) -> None:
        """Remove a task that was counted without a cost and does not exist."""
        self._add_unknown(price_kind(request.model, request.params), -1)
        self._serve_waiting()

    async def _wait(self, kind: str, out_task_id: str, *, counted: bool) -> "Reservation":
        opened: asyncio.Future[Reservation] = asyncio.get_running_loop().create_future()
        waiter = _Waiter(opened, out_task_id)
        queue = self._waiting.setdefault((kind, counted), deque())
        queue.append(waiter)
        try:
            return await opened
        except asyncio.CancelledError:
            if not opened.cancelled() and opened.exception() is None:  # opened just before
                self._cancel(opened.result(), counted=counted)
            raise

    @staticmethod
    def _cancel(reservation: "Reservation", *, counted: bool) -> None:
        """Close the reservation of a task that this run will not submit."""
        if not counted:
            reservation.released()
        reservation.close()

    def _serve_waiting(self) -> None:
        """Open or reject waiting reservations; all of one kind get the same result."""
        for (kind, counted), queue in list(self._waiting.items()):
            while queue and (admitted := self._may_send(kind, counted=counted)) is not None:
                waiter = queue.popleft()
                if waiter.opened.done():
                    continue
                if admitted:
                    waiter.opened.set_result(self._open(kind, counted=counted))
                else:
                    waiter.opened.set_exception(self._exceeded(kind, waiter.out_task_id))
            if not queue:
                self._waiting.pop((kind, counted), None)

    def _may_send(self, kind: str, *, counted: bool) -> bool | None:
        """Return whether a task may be sent; None if only later, perhaps."""
        if self._readings:
            return None
        price = self._prices.get(kind)
        if price is None:
            unknown = sum(
                number for each, number in self._unknown.items() if each not in self._prices
            )
            if unknown > counted:
                return None if self._open_unknown else False
            # Any remainder will do: the task exceeds the limit by at most its own price.
            excess = self.committed - self._limit + 2 * self._slack
        else:
            excess = self.committed + (0.0 if counted else price) - self._limit
        if excess <= self._slack:
            return True
        # Open reservations may still be released.
        return None if self._open_unknown or excess - self._releasable <= self._slack else False

    def _open(self, kind: str, *, counted: bool) -> "Reservation":
        price = self._prices.get(kind)
        if price is None:
            self._unknown[kind] += not counted
            self._open_unknown += 1
        else:
            self._add_unknown(kind, -counted)
            self._committed += price
            self._releasable += price
        reservation = Reservation(self, kind, price, counted=counted)
        if price is not None:
            reservation.send()
        return reservation

    def _exceeded(self, kind: str, out_task_id: str) -> BudgetExceededError:
        price = self._prices.get(kind)
        taken = f"max_credits is {self._limit:g}, and {self.committed:g} are spent or reserved"
        if price is not None:
            return BudgetExceededError(f"{taken}: a {kind} task costs up to {price:g}", out_task_id)
        unknown = sorted(each for each in +self._unknown if each not in self._prices)
        if not unknown:
            return BudgetExceededError(taken, out_task_id)
        return BudgetExceededError(
            f"the price of a {unknown[0]} task is unknown: neither an estimate, nor its charge, "
            f"nor the balance shows it, so {self._limit:g} credits could be exceeded",
            out_task_id,
            price_unknown=True,
        )

    # Called by reservations -----------------------------------------------------------------

    def start(self) -> None:
        """Count a submit in progress."""
        self._pending += 1
        self._idle.clear()

    def stop(self, charged: float | None) -> None:
        """Count the end of a submit, and its charge, or None if unknown."""
        self._pending -= 1
        if not self._pending:
            self._idle.set()
        if charged is None:
            self._ambiguous += 1
        else:
            self._charged += charged

    def refund(self, credits_: float) -> None:
        """Count credits that the service has refunded."""
        self._charged -= credits_

    def change(self, kind: str, before: float | None, now: float) -> None:
        """Change the amount of an open reservation."""
        if before is None:
            self._add_unknown(kind, -1)
            self._open_unknown -= 1
            before = 0.0
        self._committed += now - before
        self._releasable += now - before

    def learn(self, kind: str, price: float) -> None:
        """Learn the price of a kind; the highest is reserved from then on."""
        self._learn(kind, price)
        self._serve_waiting()

    def close(self, kept: float | None) -> None:
        """Close a reservation, which keeps its amount."""
        if kept is None:
            self._open_unknown -= 1
        else:
            self._releasable -= kept
        self._serve_waiting()

    async def read_balance(self) -> "_Reading | None":
        """Read the balance while no submit is in progress; None if not possible.

        Submits that wait for a reservation keep waiting meanwhile.
        """
        self._readings += 1
        try:
            async with asyncio.timeout(self._quiet):
                await self._idle.wait()
            charged = self._charged
            assert self._get_balance is not None  # noqa: S101 - for the type checker
            balance = await self._get_balance()
        except (TimeoutError, AireiterError):
            return None
        finally:
            self._readings -= 1
            self._serve_waiting()
        if charged != self._charged or not math.isfinite(balance):
            return None  # a refund arrived in between
        return _Reading(balance, charged, self._ambiguous)

    def _learn(self, kind: str, price: float | None) -> None:
        if price is not None and price > self._prices.get(kind, 0.0):
            self._prices[kind] = price

    def _add_unknown(self, kind: str, number: int) -> None:
        self._unknown[kind] += number
        if not self._unknown[kind]:
            del self._unknown[kind]


class Reservation:
    """One task's share of a budget.

    It holds the price of the task's kind, then the estimate, then the charge. Close it when
    the amount can no longer change.

    Attributes:
        credits: The amount that the budget counts for the task, None if unknown.
        before: The balance before its submit, if that is used to learn the price.
    """

    __slots__ = ("_budget", "_counted", "_measured", "_pending", "before", "credits", "kind")

    def __init__(
        self, budget: Budget, kind: str, credits_: float | None, *, counted: bool = False
    ) -> None:
        self.kind = kind
        self.credits = credits_
        self.before: _Reading | None = None
        self._budget: Budget | None = budget
        self._counted = counted
        self._pending = False
        self._measured = False

    @property
    def unpriced(self) -> bool:
        """Whether `measure` may learn the price of the accepted task."""
        return self.credits is None and self.before is not None

    def send(self) -> None:
        """Record that the submit is about to start."""
        assert self._budget is not None  # noqa: S101 - it was just opened
        self._pending = True
        self._budget.start()

    def accepted(self, estimate: float | None) -> None:
        """Record that the service has accepted the task."""
        if self._budget is None:
            return
        if estimate:  # 0 is the estimate of a task that is charged afterwards
            self._set_credits(self._budget, estimate)
        if self._pending:
            self._pending = False
            # A task that may have been sent before may have been charged at any time.
            self._budget.stop(None if self._counted else self.credits or 0.0)
        self._share_price(self._budget)

    async def measure(self) -> None:
        """Learn the price of an accepted task from the balance before and after it."""
        budget, before = self._budget, self.before
        if budget is None or before is None:
            return
        after = await budget.read_balance()
        if after is None or self.credits is not None or after.ambiguous != before.ambiguous:
            return
        # Less the charges of other tasks meanwhile.
        cost = round(before.balance - after.balance - (after.charged - before.charged), 6)
        if cost > 0:  # 0 may mean that the balance lags behind
            self._measured = True
            self._set_credits(budget, cost)
            self._share_price(budget)

    def finished(self, charge: float | None) -> None:
        """Record the charge of a completed task; None if the service reported none."""
        if self._budget is None or charge is None or (charge == 0 and self._measured):
            return
        self._set_credits(self._budget, charge)
        self._share_price(self._budget)

    def released(self) -> None:
        """Record that the task costs nothing: it was rejected, or it failed."""
        if self._budget is None:
            return
        if self._pending:
            self._pending = False
            self._budget.stop(0.0)
        elif self.credits:
            self._budget.refund(self.credits)
        self._set_credits(self._budget, 0.0)

    def close(self) -> None:
        """Close the reservation, keeping its amount; idempotent."""
        budget, self._budget = self._budget, None
        if budget is not None:
            if self._pending:  # the response was lost
                budget.stop(None)
            budget.close(self.credits)

    def _set_credits(self, budget: Budget, credits_: float) -> None:
        budget.change(self.kind, self.credits, credits_)
        self.credits = credits_

    def _share_price(self, budget: Budget) -> None:
        budget.learn(self.kind, self.credits or 0.0)


class NullReservation:
    """The reservation of a batch without a limit."""

    __slots__ = ()

    unpriced = False  # so that nothing calls `measure`

    def accepted(self, estimate: float | None) -> None:
        pass

    def finished(self, charge: float | None) -> None:
        pass

    def released(self) -> None:
        pass

    async def measure(self) -> None: ...

    def close(self) -> None:
        pass


NO_RESERVATION: Final = NullReservation()


class Unpriced(NamedTuple):
    """A task of an earlier run, of a kind without a known price."""

    out_task_id: str
    model: str
    kind: str
    uncertain: bool  # the service may not have it


class _Waiter(NamedTuple):
    opened: asyncio.Future[Reservation]
    out_task_id: str


class _Reading(NamedTuple):
    """The balance at a moment without submits in progress."""

    balance: float
    charged: float
    ambiguous: int
