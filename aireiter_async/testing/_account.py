"""The service's books: its tasks, what was charged and what is left."""

import heapq
import itertools
import re
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, cast

import attrs

from aireiter_async.testing import _answers, _results
from aireiter_async.testing._answers import RefusalError
from aireiter_async.testing._options import Options

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")

# How long a task is pending before it is processing: invented, as a share of its duration.
_QUEUED = 0.2


@attrs.frozen
class Charge:
    """One accepted task; a second one with the same id is a task paid twice.

    Args:
        out_task_id: The id it was submitted under.
        model: The model's name as submitted.
        credits: What it was charged with, even if refunded later.
        at: When, on the service's clock.
    """

    out_task_id: str
    model: str
    credits: float
    at: float


@attrs.define
class FakeTask:
    """One task as the service keeps it.

    Args:
        out_task_id: Its id.
        model: The model's name as submitted.
        credits: What it was charged with.
        accepted_at: When, on the service's clock.
        duration: Seconds on that clock from acceptance to its end.
        failure: The error's code and message if it is going to fail.
        looks: How often it was asked for.
    """

    out_task_id: str
    model: str
    credits: float
    accepted_at: float
    duration: float
    failure: tuple[str, str] | None = None
    looks: int = 0

    @property
    def ends_at(self) -> float:
        """When it is over, on the service's clock."""
        return self.accepted_at + self.duration

    def status(self, now: float) -> str:
        """Return pending, processing, completed or failed, as of *now*."""
        if now >= self.ends_at:
            return "failed" if self.failure else "completed"
        return "pending" if now < self.accepted_at + self.duration * _QUEUED else "processing"


class Account:
    """Take tasks on and describe them; knows nothing of HTTP."""

    def __init__(self, options: Options, balance: float) -> None:
        self.charges: list[Charge] = []
        self.tasks: dict[str, FakeTask] = {}
        self.results_url = ""
        self._options = options
        self._balance = balance
        self._started = options.clock(), datetime.now(UTC).timestamp()
        # Tasks that will fail, soonest first, until they are refunded.
        self._doomed: list[tuple[float, int, FakeTask]] = []
        self._order = itertools.count()

    @property
    def credits(self) -> float:
        """Credits left, the refunds due by now included."""
        self._refund()
        return self._balance

    def refill(self, balance: float) -> None:
        """Set what is left to *balance*."""
        self._refund()
        self._balance = balance

    def submit(
        self, document: Mapping[str, Any], failure: tuple[str, str] | None
    ) -> dict[str, Any]:
        """Accept a task, or raise RefusalError; return the answer's data."""
        model, params, out_task_id = _checked(document)
        options = self._options
        used = self.tasks.get(out_task_id)
        if used and options.used_id == "refuse":
            raise RefusalError(_answers.BAD_REQUEST, "out_task_id already exists")
        if used and options.used_id == "return":
            return self._submitted(used)
        price = self._price(model, params)
        if price > self.credits:
            raise RefusalError(_answers.NO_CREDITS)
        task = FakeTask(
            out_task_id=out_task_id,
            model=model,
            credits=price,
            accepted_at=options.clock(),
            duration=self._duration(model, out_task_id),
            failure=failure,
        )
        self.tasks[out_task_id] = task
        self.charges.append(Charge(out_task_id, model, price, task.accepted_at))
        self._balance -= price
        if failure:
            self._owe(task)
        return self._submitted(task)

    def query(self, document: Any, failure: tuple[str, str] | None, status: str) -> dict[str, Any]:
        """Look at a task, or raise RefusalError; return the answer's data.

        Args:
            document: The request's body; empty if it was no JSON object.
            failure: Lets the task fail now.
            status: Replaces the task's own status unless empty.
        """
        task = self.tasks.get(_checked_id(document))
        if task is None or not self._visible(task):
            raise RefusalError(_answers.UNKNOWN_TASK)
        now = self._options.clock()
        if failure and not task.failure:
            task.failure = failure
            task.duration = min(task.duration, now - task.accepted_at)
            self._owe(task)
        data = {
            "status": status or task.status(now),
            "created_at": self._moment(task.accepted_at),
        }
        if self._options.query_ids:
            data = {"out_task_id": task.out_task_id, **data}
        if data["status"] == "failed" and task.failure:
            code, message = task.failure
            return {**data, "error": {"code": code, "message": message}}
        if data["status"] != "completed":
            return data
        count, root = self._options.outputs, self.results_url
        return {
            **data,
            "completed_at": self._moment(task.ends_at),
            "credits_used": task.credits,
            "output": _results.output(task.model, task.out_task_id, count, root),
        }

    def balance(self) -> dict[str, Any]:
        """Return the balance answer's data."""
        return {"credits": self.credits, "free_quotas": list(self._options.free_quotas)}

    def has_file(self, path: str) -> bool:
        """Return whether a completed task has its result at *path*."""
        out_task_id, _, name = path.removeprefix(_results.FOLDER).partition("/")
        task = self.tasks.get(out_task_id)
        if task is None or task.status(self._options.clock()) != "completed":
            return False
        return _results.is_file(task.model, self._options.outputs, name)

    def _submitted(self, task: FakeTask) -> dict[str, Any]:
        data = {
            "out_task_id": task.out_task_id,
            "status": "pending",
            "created_at": self._moment(task.accepted_at),
        }
        estimates = self._options.estimates
        if not estimates:
            return data
        return {**data, "estimated_credits": 0 if estimates == "zero" else task.credits}

    def _refund(self) -> None:
        now = self._options.clock()
        while self._doomed and self._doomed[0][0] <= now:
            self._balance += heapq.heappop(self._doomed)[2].credits

    def _owe(self, task: FakeTask) -> None:
        heapq.heappush(self._doomed, (task.ends_at, next(self._order), task))

    def _visible(self, task: FakeTask) -> bool:
        options = self._options
        task.looks += 1
        late = options.clock() < task.accepted_at + options.visible_after
        return not late and task.looks > options.visible_after_looks

    def _price(self, model: str, params: Mapping[str, Any]) -> float:
        price = self._options.price
        if callable(price):
            return price(model, params)
        return price.get(model, 1.0) if isinstance(price, Mapping) else price

    def _duration(self, model: str, out_task_id: str) -> float:
        options = self._options
        middle = options.durations
        if isinstance(middle, Mapping):
            middle = middle.get(model, 0.0)
        # From the id and not from a generator: the order of arrival must not matter.
        chance = zlib.crc32(out_task_id.encode(), options.seed & 0xFFFFFFFF) / 0xFFFFFFFF
        return max(0.0, middle * (1 + options.spread * (2 * chance - 1)))

    def _moment(self, at: float) -> str:
        clock, wall = self._started
        moment = datetime.fromtimestamp(wall + at - clock, UTC)
        return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def _checked(document: Mapping[str, Any]) -> tuple[str, Mapping[str, Any], str]:
    out_task_id = _checked_id(document)
    model, params = document.get("model"), document.get("params")
    if not isinstance(model, str) or not model:
        raise RefusalError(_answers.BAD_REQUEST, "Invalid model")
    if not isinstance(params, dict):
        raise RefusalError(_answers.BAD_REQUEST, "Invalid params")
    return model, cast("Mapping[str, Any]", params), out_task_id


def _checked_id(document: Mapping[str, Any]) -> str:
    out_task_id = document.get("out_task_id")
    if not isinstance(out_task_id, str) or not _ID.fullmatch(out_task_id):
        raise RefusalError(_answers.BAD_REQUEST, "Invalid out_task_id")
    return out_task_id
