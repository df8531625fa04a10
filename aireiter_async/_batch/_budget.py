"""What a batch may spend, in credits.

A submit is charged when it is accepted, so its price is reserved before it
leaves: the highest that has been seen for its model. Until one has been seen,
one task of that model goes at a time. A missing estimate, or one of zero, is
unknown, counted at the highest price of its model, and the real charge teaches
that price instead.
"""

import asyncio
import logging
import math
from collections import Counter, defaultdict
from typing import Final

from aireiter_async.errors import BudgetExceededError

_log = logging.getLogger(__name__)

_SLACK: Final = 1e-9  # credits: sums of fractions are not exact
# Tasks that go alone and tell no price before a model is taken to have none: an answer that was
# lost tells none either.
_FIRSTS: Final = 3


class Unlimited:
    """What one task of a batch costs where nothing limits it: it is told, and not counted."""

    __slots__ = ()

    def accepted(self, estimate: float | None) -> None:
        """Take in that the service has accepted the task, with its estimate or without."""

    def ended(self, charge: float | None) -> None:
        """Take in that the task has ended, with its charge or without."""

    def refunded(self) -> None:
        """Take in that the task was not accepted, or has failed."""

    def close(self) -> None:
        """Take in that nothing more is to come."""


UNLIMITED: Final = Unlimited()


class Reservation(Unlimited):
    """What one task of a batch costs: the price reserved, then the estimate, then the charge.

    Args:
        budget: What it counts in.
        model: The task's model.
        held: Credits that the budget counts for it now; None: it is one of those of
            its model that are counted at the highest price seen.
        first: Held while this task finds out its model's price.
    """

    __slots__ = ("_accepted", "_budget", "_first", "_held", "_model")

    def __init__(
        self, budget: "Budget", model: str, held: float | None, first: asyncio.Lock | None = None
    ) -> None:
        self._budget = budget
        self._model = model
        self._held = held
        self._first = first
        self._accepted = False

    def accepted(self, estimate: float | None) -> None:
        """Count the service's estimate, if there is one, in place of the highest price seen."""
        self._accepted = True
        if estimate:  # 0 is said of what is paid for afterwards
            self._hold(estimate)
            self._learn(estimate)

    def ended(self, charge: float | None) -> None:
        """Count the real charge in place of the estimate; None: the service did not say."""
        if charge is not None:
            self._hold(charge)
            self._learn(charge)

    def refunded(self) -> None:
        """Count nothing: it was not accepted, or it has failed."""
        self._accepted = False
        self._hold(0.0)

    def close(self) -> None:
        """Let others of the model go; the next is the first if this one could not tell a price."""
        if self._first is not None:
            if self._accepted:
                self._budget.give_up(self._model)
            self._first.release()
            self._first = None

    def _learn(self, price: float) -> None:
        self._budget.learn(self._model, price)
        self.close()

    def _hold(self, held: float) -> None:
        if self._held is None:
            self._budget.uncounted[self._model] -= 1
        self._budget.committed += held - (self._held or 0.0)
        self._held = held


class Budget:
    """Credits spent and reserved, against a limit.

    Args:
        limit: Credits that are not exceeded; None: no limit.

    Attributes:
        limited: Whether there is a limit; there is nothing to reserve without one.
        committed: Credits spent and reserved so far, by earlier runs of the batch too.
        uncounted: Tasks of each model that may cost something and are not in `committed`.
        exceeded: Whether a task has been refused; all after it are too.
    """

    def __init__(self, limit: float | None) -> None:
        self.limited: bool = limit is not None
        self._limit = math.inf if limit is None else limit
        self._prices: dict[str, float] = {}
        self._silent: Counter[str] = Counter()
        self._first: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.committed: float = 0.0
        self.uncounted: Counter[str] = Counter()
        self.exceeded: bool = False

    def take_over(self, model: str, spent: float, uncounted: int, price: float | None) -> None:
        """Take in what earlier runs have left of *model*.

        Args:
            model: The model.
            spent: Credits that its tasks have cost, or will.
            uncounted: Its tasks that may have cost something, too.
            price: The highest price seen, None where none was.
        """
        self.committed += spent
        self.uncounted[model] += uncounted
        if price is not None:
            self.learn(model, price)

    async def reserve(
        self, model: str, out_task_id: str, *, maybe_sent: bool = False
    ) -> Reservation:
        """Reserve the price of a task of *model* before it is submitted.

        Args:
            model: The task's model.
            out_task_id: The task.
            maybe_sent: Whether it is one of those taken over as uncounted.

        Raises:
            BudgetExceededError: It could pass the limit, or one before it could.
        """
        first = await self._wait_for_price(model) if self._unknown(model) else None
        price = self._prices.get(model)
        self.uncounted[model] -= maybe_sent
        committed = self._committed_at_most()
        if (
            self.exceeded
            or committed + (price or 0.0) > self._limit + _SLACK
            or (not price and committed >= self._limit)
        ):
            self.exceeded = True
            self.uncounted[model] += maybe_sent
            if first is not None:
                first.release()
            raise BudgetExceededError(
                f"max_credits is {self._limit:g}: {committed:g} credits are spent or "
                f"reserved, and a {model} task has cost up to {price or 0:g}",
                out_task_id,
            )
        if price is None:
            self.uncounted[model] += 1
        else:
            self.committed += price
        return Reservation(self, model, price, first)

    def _committed_at_most(self) -> float:
        """Return what is spent and reserved, with what has no price at the highest seen."""
        prices = self._prices
        return self.committed + sum(
            number * prices.get(model, 0.0) for model, number in self.uncounted.items()
        )

    def resume(self, model: str, estimate: float | None) -> Reservation:
        """Take over a task of an earlier run, which is counted already."""
        return Reservation(self, model, estimate or None)

    async def _wait_for_price(self, model: str) -> asyncio.Lock | None:
        """Wait until the price of *model* is known, or this task is the one to find it out."""
        first = self._first[model]
        await first.acquire()
        if self._unknown(model):
            return first
        first.release()
        return None

    def learn(self, model: str, price: float) -> None:
        """Take in what a task of *model* costs; the highest price is the one reserved."""
        self._prices[model] = max(price, self._prices.get(model, 0.0))

    def give_up(self, model: str) -> None:
        """Say so if a task of *model* has gone by and its price is not known even so."""
        if not self._unknown(model):
            return
        self._silent[model] += 1
        if self._silent[model] == _FIRSTS:
            _log.warning(
                "the service does not say what a %s task costs: max_credits cannot count it", model
            )

    def _unknown(self, model: str) -> bool:
        return model not in self._prices and self._silent[model] < _FIRSTS
