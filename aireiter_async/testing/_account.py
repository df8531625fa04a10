"""The state of the service: tasks, charges and balance."""

import heapq
import itertools
import re
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, cast

import attrs

from aireiter_async.testing import _replies, _results
from aireiter_async.testing._options import Options
from aireiter_async.testing._replies import RejectionError

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")

# The share of its duration for which a task is pending: invented.
_QUEUED = 0.2


@attrs.frozen
class Charge:
    """The charge of one accepted task; a second one with the same ID is a double payment.

    Args:
        out_task_id: The ID it was submitted under.
        model: The model's name as submitted.
        credits: The credits charged, even if refunded later.
        at: The time of the charge, on the service's clock.
    """

    out_task_id: str
    model: str
    credits: float
    at: float


@attrs.define
class FakeTask:
    """One task as the service keeps it.

    Args:
        out_task_id: Its ID.
        model: The model's name as submitted.
        credits: The credits charged.
        accepted_at: The time of acceptance, on the service's clock.
        duration: Seconds on that clock from acceptance to its end.
        failure: The code and message of its error, if it will fail.
        polls: How often it was queried.
        number: Its position among all accepted tasks, from 1.
        params: Its parameters, None if the service does not record requests.
    """

    out_task_id: str
    model: str
    credits: float
    accepted_at: float
    duration: float
    failure: tuple[str, str] | None = None
    polls: int = 0
    number: int = 1
    params: Mapping[str, Any] | None = attrs.field(default=None, repr=False)

    @property
    def ends_at(self) -> float:
        """The time of its end, on the service's clock."""
        return self.accepted_at + self.duration

    def status(self, now: float) -> str:
        """Return the status word at *now*."""
        if now >= self.ends_at:
            return "failed" if self.failure else "completed"
        return "pending" if now < self.accepted_at + self.duration * _QUEUED else "processing"


class Account:
    """Accepts tasks and describes them; knows nothing about HTTP."""

    def __init__(self, options: Options, balance: float) -> None:
        self.charges: list[Charge] = []
        self.tasks: dict[str, FakeTask] = {}
        self.api_url = self.results_url = ""
        self._options = options
        self._balance = balance
        self._started = options.clock(), datetime.now(UTC).timestamp()
        # Tasks that will fail, soonest first, until they are refunded.
        self._failing: list[tuple[float, int, FakeTask]] = []
        self._order = itertools.count()

    @property
    def credits(self) -> float:
        """Remaining credits, including refunds due by now."""
        self._refund()
        return self._balance

    def set_balance(self, balance: float) -> None:
        """Set the remaining credits."""
        self._refund()
        self._balance = balance

    def submit(
        self, document: Mapping[str, Any], failure: tuple[str, str] | None
    ) -> dict[str, Any]:
        """Accept a task, or raise RejectionError; return the reply's data."""
        model, params, out_task_id = _checked(document)
        options = self._options
        if options.check_models:
            self._check(model, params)
        used = self.tasks.get(out_task_id)
        if used and options.used_id == "reject":
            raise RejectionError(_replies.BAD_REQUEST, "out_task_id already exists")
        if used and options.used_id == "return":
            return self._submitted(used)
        price = self._price(model, params)
        if price > self.credits:
            raise RejectionError(_replies.NO_CREDITS)
        task = FakeTask(
            out_task_id=out_task_id,
            model=model,
            credits=price,
            accepted_at=options.clock(),
            duration=self._duration(model, out_task_id),
            failure=failure,
            number=len(self.charges) + 1,
            params=params if options.record else None,
        )
        self.tasks[out_task_id] = task
        self.charges.append(Charge(out_task_id, model, price, task.accepted_at))
        self._balance -= price
        if failure:
            self._refund_later(task)
        return self._submitted(task)

    def query(self, document: Any, failure: tuple[str, str] | None, status: str) -> dict[str, Any]:
        """Describe a task, or raise RejectionError; return the reply's data.

        Args:
            document: The request's body; empty if it is not a JSON object.
            failure: Makes the task fail now.
            status: Replaces the task's own status, unless empty.
        """
        task = self.tasks.get(_checked_id(document))
        if task is None or not self._visible(task):
            raise RejectionError(_replies.UNKNOWN_TASK)
        if failure and not task.failure:
            task.failure = failure
            task.duration = min(task.duration, self._options.clock() - task.accepted_at)
            self._refund_later(task)
        return self.describe(task, status)

    def describe(self, task: FakeTask, status: str = "") -> dict[str, Any]:
        """Return the data of a query for *task*; *status* replaces its own, unless empty."""
        data = {
            "status": status or task.status(self._options.clock()),
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
        seen = (
            {} if task.params is None else {"input": {"model": task.model, "params": task.params}}
        )
        return {
            **data,
            "task_id": f"order_{task.number:08}",
            **seen,
            "completed_at": self._moment(task.ends_at),
            "credits_used": task.credits,
            "output": _results.output(task.model, task.out_task_id, count, root),
        }

    def balance(self) -> dict[str, Any]:
        """Return the data of the balance."""
        return {"credits": self.credits, "free_quotas": list(self._options.free_quotas)}

    def summary(self) -> dict[str, Any]:
        """Return the charges, for tests in other processes."""
        return {
            "charges": [attrs.asdict(charge) for charge in self.charges],
            "charged": sum(charge.credits for charge in self.charges),
            "credits": self.credits,
        }

    def number_of_file(self, path: str) -> int | None:
        """Return the number of the completed task whose result is at *path*."""
        out_task_id, _, name = path.removeprefix(_results.FOLDER).partition("/")
        task = self.tasks.get(out_task_id)
        if task is None or task.status(self._options.clock()) != "completed":
            return None
        return task.number if _results.is_file(task.model, self._options.outputs, name) else None

    def _check(self, model: str, params: Mapping[str, Any]) -> None:
        from aireiter_async import models  # noqa: PLC0415 - takes 0.1 seconds

        try:
            models.build(model, {name: self._published(value) for name, value in params.items()})
        except models.UnknownModelError as error:
            raise RejectionError(_replies.BAD_REQUEST, f"Invalid model: {error}") from None
        except models.InvalidParamsError as error:
            message = "; ".join(f"Invalid {each.param}: {each.text}" for each in error.problems)
            raise RejectionError(_replies.BAD_REQUEST, message) from None

    def _published(self, value: list[Any] | str | float | None) -> Any:
        """Return *value* with this service's own results, on loopback, as public URLs."""
        if isinstance(value, list):
            return [self._published(each) for each in value]
        for own in (self.results_url, self.api_url):
            if isinstance(value, str) and value.startswith(f"{own}/"):
                return "https://static.aireiter.com" + value.removeprefix(own)
        return value

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
        while self._failing and self._failing[0][0] <= now:
            self._balance += heapq.heappop(self._failing)[2].credits

    def _refund_later(self, task: FakeTask) -> None:
        heapq.heappush(self._failing, (task.ends_at, next(self._order), task))

    def _visible(self, task: FakeTask) -> bool:
        options = self._options
        task.polls += 1
        late = options.clock() < task.accepted_at + options.visible_after
        return not late and task.polls > options.visible_after_polls

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
        # Derived from the ID, so that the order of arrival does not matter.
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
        raise RejectionError(_replies.BAD_REQUEST, "Invalid model")
    if not isinstance(params, dict):
        raise RejectionError(_replies.BAD_REQUEST, "Invalid params")
    return model, cast("Mapping[str, Any]", params), out_task_id


def _checked_id(document: Mapping[str, Any]) -> str:
    out_task_id = document.get("out_task_id")
    if not isinstance(out_task_id, str) or not _ID.fullmatch(out_task_id):
        raise RejectionError(_replies.BAD_REQUEST, "Invalid out_task_id")
    return out_task_id
