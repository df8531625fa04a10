"""The doctor's experiments: one or two tasks that show what the service does not document.

A `Fact` is a value: what was found, next to what this client assumes. Requests are sent exactly
once each, and the task's ID at most twice.
"""

import asyncio
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import Any, Final, cast
from urllib.parse import parse_qsl, urlsplit

from attrs import define, field, frozen

from aireiter_async import (
    AireiterError,
    AmbiguousSubmitError,
    AuthenticationError,
    InsufficientCreditsError,
    InvalidRequestError,
    RetryPolicy,
    SubmitRequest,
    Task,
    TaskNotFoundError,
    TaskStatus,
    _wire,
)
from aireiter_async._envelope import Reply
from aireiter_async._media import EXPIRED
from aireiter_async._retry import FailureClass, failure_class, retry_after
from aireiter_async.cli._display import clean, number
from aireiter_async.cli._doctor._responses import Caller
from aireiter_async.errors import IDInUseError

_SETTLE: Final = RetryPolicy().settle
# Seconds from its acceptance at which a task is queried until it is found.
_QUERY_TIMES: Final = (0.0, 0.1, 0.3, 0.7, 1.5, 3.0, _SETTLE, 10.0, 20.0, 40.0, 60.0)
_POLL: Final = 2.0
_END: Final = 600.0  # seconds to wait for the end of the task
_ATTEMPTS: Final = 3
_EXCERPT: Final = 160  # characters of a response that are shown
_EXPIRY: Final = re.compile(r"(x-[a-z]+-)?(expires|date)|expiry|exp|se", re.IGNORECASE)
_MOMENT: Final = re.compile(r"[\w:.+-]{1,32}", re.ASCII)
_EXPIRY_HEADERS: Final = ("Expires", "Cache-Control", "Last-Modified")
_ONE_BYTE: Final = "bytes 0-0/"
_STATUSES: Final = [each.value for each in TaskStatus if each is not TaskStatus.UNKNOWN]

_USED_ID_ASSUMED: Final = "rejected as a used ID, returned, or charged again: all three are handled"
_RANGE_ASSUMED: Final = "HTTP 206 with the range, to resume downloads; or 200, to start again"
_EXPIRY_ASSUMED: Final = (
    f"a URL may expire: after {', '.join(map(str, sorted(EXPIRED)))}, the task is queried for a "
    "fresh one"
)


@frozen(kw_only=True)
class Fact:
    """What an experiment has shown.

    Attributes:
        name: What it is about.
        found: What was found.
        assumed: What this client assumes.
        holds: Whether the assumption holds; None if that could not be found out.
    """

    name: str
    found: str
    assumed: str
    holds: bool | None


@frozen(kw_only=True)
class Clock:
    """Time, which tests replace.

    Attributes:
        now: Returns monotonic seconds.
        sleep: Sleeps for a number of seconds.
    """

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep


@define
class Probe:
    """The experiments on one task, in order.

    Attributes:
        caller: Sends requests.
        request: The task's request.
        max_credits: Maximum credits to spend, None for no limit.
        price: Credits of one task, None if unknown.
        clock: Time.
    """

    caller: Caller
    request: SubmitRequest
    max_credits: float | None = None
    price: float | None = None
    clock: Clock = Clock()
    _show: Callable[[str], None] = field(default=lambda _status: None, init=False)
    _statuses: dict[str, bool] = field(factory=dict[str, bool], init=False)

    async def shapes(self) -> list[Fact]:
        """Find out how errors look; costs nothing."""
        stranger = f"sk-{secrets.token_hex(16)}"
        nobody = f"doctor-{secrets.token_hex(8)}"
        query = _wire.encode_query(nobody)
        # Without a model, it cannot be accepted.
        broken = b'{"params":{},"out_task_id":"%s"}' % nobody.encode()
        read_query = partial(_wire.read_query, out_task_id=nobody, model=None)
        read_submit = partial(_wire.read_submit, request=self.request)
        read_balance, unauthorized = _wire.read_balance, AuthenticationError
        call, shape = self.caller.call, self._shape
        return [
            shape("400", await call("submit", broken), read_submit, InvalidRequestError),
            shape("401 on query", await call("query", query, stranger), read_query, unauthorized),
            shape(
                "401 on balance", await call("balance", key=stranger), read_balance, unauthorized
            ),
            shape("unknown ID", await call("query", query), read_query, TaskNotFoundError),
        ]

    def _shape(
        self, name: str, reply: Reply, read: Callable[[Reply], object], kind: type[AireiterError]
    ) -> Fact:
        end = _attempt(read, reply)
        taken = type(end).__name__ if isinstance(end, AireiterError) else "success"
        return Fact(
            name=name,
            found=f"{taken}: {self._excerpt(reply)}",
            assumed=kind.__name__,
            holds=isinstance(end, kind),
        )

    def _excerpt(self, reply: Reply) -> str:
        text = self.caller.redact(reply.body[: 4 * _EXCERPT].decode("utf-8", "replace"))
        text = clean(text)
        return f"HTTP {reply.status} {text if len(text) <= _EXCERPT else f'{text[:_EXCERPT]}...'}"

    async def spend(self, show: Callable[[str], None]) -> list[Fact]:
        """Submit the task, and its ID a second time; find out what happens to both.

        Args:
            show: Called with each status of the task.

        Raises:
            AmbiguousSubmitError: The submit was not answered, and the task not found.
            AireiterError: The service rejected it: nothing was charged.
        """
        self._show = show
        before = await self._balance()
        first = await self._submit()
        if isinstance(first, AireiterError) and failure_class(first) is not FailureClass.AMBIGUOUS:
            raise first
        visible = await self._find()
        if isinstance(first, AireiterError):
            if visible.task is None:
                raise AmbiguousSubmitError(self.request.out_task_id) from first
            first = visible.task
        between = await self._balance()
        first_charge = _difference(before, between)
        price = first_charge or first.estimated_credits or self.price
        second = await self._submit() if self._affords(price) else None
        after = await self._balance()
        task = await self._wait(visible.task)
        end = await self._balance()
        charges = _Charges(
            first=first_charge,
            second=_difference(between, after),
            total=_difference(before, end),
            used=None if task is None else task.credits_used,
        )
        return [
            visible.fact(),
            _judge_used_id(first, second, charges),
            _judge_credits(first, charges),
            self._judge_statuses(),
            *await self._judge_result(task),
        ]

    def _affords(self, price: float | None) -> bool:
        """Return whether a second charge keeps to the limit."""
        if self.max_credits is None:
            return True
        return price is not None and 2 * price <= self.max_credits

    async def _balance(self) -> float | None:
        """Return the credits; None if they cannot be read now."""
        for _ in range(_ATTEMPTS):
            try:
                return _wire.read_balance(await self.caller.call("balance")).credits
            except AireiterError as error:
                await self.clock.sleep(retry_after(error) or _POLL)
        return None

    async def _submit(self) -> Task | AireiterError:
        """Send the request once."""
        try:
            reply = await self.caller.call("submit", self.request.encode())
            return _wire.read_submit(reply, self.request)
        except AireiterError as error:
            return error

    async def _query(self) -> Task | AireiterError:
        """Query the task once."""
        out_task_id = self.request.out_task_id
        try:
            reply = await self.caller.call("query", _wire.encode_query(out_task_id))
            task = _wire.read_query(reply, out_task_id, self.request.model)
        except AireiterError as error:
            return error
        raw: Any = task.raw
        data: Any = raw.get("data")
        fields = cast("dict[str, Any]", data) if isinstance(data, dict) else {}
        self._statuses[str(fields.get("status"))] = task.status is not TaskStatus.UNKNOWN
        self._show(task.status)
        return task

    async def _find(self) -> "_Visibility":
        """Query the task until it is found."""
        began = self.clock.now()
        missed = 0.0
        for tries, planned in enumerate(_QUERY_TIMES, 1):
            await self.clock.sleep(max(0.0, began + planned - self.clock.now()))
            at = self.clock.now() - began
            found = await self._query()
            if isinstance(found, Task):
                return _Visibility(task=found, missed=missed, at=at, planned=planned, tries=tries)
            missed = at
        return _Visibility(task=None, missed=missed, at=missed, planned=_QUERY_TIMES[-1], tries=0)

    async def _wait(self, task: Task | None) -> Task | None:
        """Query the task until it has ended, or for `_END` seconds; return its last state."""
        end = self.clock.now() + _END
        while task is not None and self.clock.now() < end:
            found = await self._query()
            if isinstance(found, Task):
                task = found
                if task.done:
                    break
            await self.clock.sleep(_POLL)
        return task

    def _judge_statuses(self) -> Fact:
        unknown = [word for word, known in self._statuses.items() if not known]
        return Fact(
            name="statuses",
            found=", ".join(self._statuses) or "none",
            assumed=", ".join(_STATUSES),
            holds=not unknown if self._statuses else None,
        )

    async def _judge_result(self, task: Task | None) -> list[Fact]:
        """Request one byte of the result."""
        url = next((each.url for each in (task.outputs if task else ()) if each.url), None)
        reason = "there is no file" if task and task.done else "the task has not ended"
        status = 0
        headers: Mapping[str, str] = {}
        if url is not None:
            try:
                async with (
                    asyncio.timeout(self.caller.seconds),
                    self.caller.result(url, {"Range": "bytes=0-0"}) as stream,
                ):
                    status, headers = stream.status, stream.headers
            except TimeoutError:
                reason = f"no response in {self.caller.seconds:g} s"
            except (AireiterError, ValueError) as error:
                reason = str(error)
        if url is None or not status:
            missing = f"not known: {reason}"
            return [
                Fact(name="Range", found=missing, assumed=_RANGE_ASSUMED, holds=None),
                Fact(name="expiry", found=missing, assumed=_EXPIRY_ASSUMED, holds=None),
            ]
        return [_judge_range(url, status, headers), _judge_expiry(url, headers)]


@frozen(kw_only=True)
class _Visibility:
    """When a task was found.

    Attributes:
        task: The task, None if it was not found.
        missed: Seconds from its acceptance to the last query that did not find it.
        at: Seconds to the query that did.
        planned: The same, without delays on the way.
        tries: The number of queries up to that one, 0 if none did.
    """

    task: Task | None
    missed: float
    at: float
    planned: float
    tries: int

    def fact(self) -> Fact:
        if self.task is None:
            found = f"not found within {self.planned:g} s"
        elif self.tries == 1:
            found = "at once: by the first query"
        else:
            found = (
                f"{self.missed:.1f} to {self.at:.1f} s after its acceptance, by query {self.tries}"
            )
        return Fact(
            name="visible",
            found=found,
            assumed=f"within {_SETTLE:g} s of its acceptance",
            holds=self.task is not None and self.planned <= _SETTLE,
        )


@frozen(kw_only=True)
class _Charges:
    """What the two submits have cost, in credits; None where it is not known.

    Attributes:
        first: The fall of the balance by the first submit.
        second: The fall by the second.
        total: The fall from before the first to the end of the task.
        used: The task's ``credits_used``.
    """

    first: float | None
    second: float | None
    total: float | None
    used: float | None

    @property
    def count(self) -> int | None:
        """The number of charges, None if unknown."""
        if self.first is not None and self.first > 0 and self.second is not None:
            return 2 if self.second >= self.first / 2 else 1
        if self.total and self.used and self.total > 0 and self.used > 0:  # charged at the end
            return max(1, round(self.total / self.used))
        return None


def _difference(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else before - after


def _judge_used_id(first: Task, second: Task | AireiterError | None, charges: _Charges) -> Fact:
    if second is None:
        found, holds = "not tried: a second charge might exceed --max-credits", None
    elif isinstance(second, AireiterError):
        found, holds = _describe_rejection(second, charges.count)
    else:
        found, holds = _describe_acceptance(first, second, charges.count)
    return Fact(name="used ID", found=found, assumed=_USED_ID_ASSUMED, holds=holds)


def _describe_rejection(error: AireiterError, count: int | None) -> tuple[str, bool | None]:
    rejected = failure_class(error) is FailureClass.REJECTED
    if not rejected or isinstance(error, InsufficientCreditsError):
        return f"not known: {error}", None
    if not isinstance(error, IDInUseError):
        return f"rejected, but not as a used ID: {error}", False
    charged = count is not None and count > 1
    return f"rejected{', but charged again' if charged else ''}: {error}", not charged


def _describe_acceptance(first: Task, second: Task, count: int | None) -> tuple[str, bool | None]:
    if count is not None:
        returned = "returned: the first task, without a second charge"
        return (returned if count == 1 else "charged again: the ID has two tasks now"), True
    if first.created_at is None or second.created_at is None:
        return "accepted; not known whether it was charged again", None
    if first.created_at == second.created_at:
        return "returned: the first task, by its created_at; the balance did not change", True
    return "accepted as another task, by its created_at; the balance did not change", True


def _judge_credits(first: Task, charges: _Charges) -> Fact:
    estimate, used = first.estimated_credits, charges.used
    parts = {
        "estimated": estimate,
        "credits_used": used,
        "charged at acceptance": charges.first,
        "charged in all": charges.total,
    }
    found = ", ".join(f"{name} {number(n)}" for name, n in parts.items() if n is not None)
    return Fact(
        name="credits",
        found=found or "not known",
        assumed="credits_used is the price, and not above the estimate, if there is one",
        holds=None if used is None else not estimate or used <= estimate,
    )


def _judge_range(url: str, status: int, headers: Mapping[str, str]) -> Fact:
    host = urlsplit(url).hostname
    supported = status == HTTPStatus.PARTIAL_CONTENT
    right = headers.get("Content-Range", "").startswith(_ONE_BYTE)
    validator = next((name for name in ("ETag", "Last-Modified") if name in headers), "nothing")
    found = f"{host}: HTTP {status}"
    if supported:
        found += f", {'the byte asked for' if right else 'another range'}; validator: {validator}"
    return Fact(
        name="Range",
        found=found,
        assumed=_RANGE_ASSUMED,
        holds=right if supported else status == HTTPStatus.OK,
    )


def _judge_expiry(url: str, headers: Mapping[str, str]) -> Fact:
    parts = [f"{name}: {headers[name]}" for name in _EXPIRY_HEADERS if name in headers]
    parts += [
        f"{name}={value} in the URL"
        for name, value in parse_qsl(urlsplit(url).query)
        if _EXPIRY.fullmatch(name) and _MOMENT.fullmatch(value)
    ]
    found = ", ".join(parts) or "nothing about it"
    return Fact(name="expiry", found=found, assumed=_EXPIRY_ASSUMED, holds=True)


def _attempt(read: Callable[[Reply], object], reply: Reply) -> object:
    """Return what *read* makes of a response, or the error it raises."""
    try:
        return read(reply)
    except AireiterError as error:
        return error
