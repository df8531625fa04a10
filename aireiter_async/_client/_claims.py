"""Submits whose ID is claimed in an idempotency store, right before each POST."""

import asyncio
import hashlib
import logging
import math
import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from attrs import define, field

from aireiter_async._client._api import Api
from aireiter_async._client._submission import Submission, used_by_another
from aireiter_async._requests import SubmitRequest
from aireiter_async._tasks import Task
from aireiter_async.errors import (
    AireiterError,
    AmbiguousSubmitError,
    StoreError,
    TaskNotFoundError,
)

if TYPE_CHECKING:  # it brings SQLite along
    from aireiter_async.stores import Claim, IdempotencyStore

_log = logging.getLogger(__name__)

# Seconds between two polls for a task whose ID another call has claimed: at first, and at most.
_FIRST_PAUSE: Final = 0.25
_LONGEST_PAUSE: Final = 4.0


def claimed_in(store: "IdempotencyStore") -> Callable[..., Submission]:
    """Return what makes submits, as `Submission` does, whose IDs are claimed in *store*.

    Raises:
        TypeError: *store* is no store.
    """
    from aireiter_async.stores import IdempotencyStore  # noqa: PLC0415 - it brings SQLite along

    if not isinstance(store, IdempotencyStore):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"idempotency must be an IdempotencyStore, got {type(store).__name__}")
    return partial(ClaimedSubmission, store)


class NotClaimedError(Exception):
    """The POST must not be sent now. Internal.

    Attributes:
        claim: What the store answered; None: it could not be used, which is the cause.
    """

    def __init__(self, claim: "Claim | None") -> None:
        super().__init__(claim)
        self.claim = claim


@define(eq=False, kw_only=True)
class Claiming:
    """The claim of one call on its ID.

    Attributes:
        store: Where it is made.
        out_task_id: The ID.
        lease: Seconds that it holds for.
        settle: Seconds that it takes to look the ID up.
        maybe_sent: Whether the ID may have been sent without a claim.
        now: Returns seconds that never go back.
        owner: Who claims.
        fingerprint: A digest of the request.
        held: Whether the last claim was granted.
    """

    store: "IdempotencyStore"
    out_task_id: str
    lease: float
    settle: float
    maybe_sent: bool
    now: Callable[[], float]
    owner: str = field(factory=lambda: os.urandom(16).hex())
    fingerprint: str = ""
    held: bool = False
    # Until then, no owner can have claimed the ID after this one, and have left its claim.
    _known_until: float = -math.inf

    async def claim(self) -> None:
        """Claim the ID, right before a POST.

        Raises:
            NotClaimedError: The POST must not be sent now.
        """
        started = self.now()
        try:
            claim = await self.store.claim(
                self.out_task_id, self.fingerprint, owner=self.owner, lease=self.lease
            )
        except AireiterError as error:
            raise NotClaimedError(None) from error
        self.held = claim.held
        if not claim.held:
            raise NotClaimedError(claim)
        unknown = started > self._known_until
        self._known_until = started + self.lease + self.settle
        if unknown and (claim.taken_over or self.maybe_sent):
            raise NotClaimedError(claim)

    async def release(self, *, accepted: bool) -> None:
        """End the claim, if there is one."""
        if not self.held:
            return
        try:
            await self.store.release(self.out_task_id, self.owner, accepted=accepted)
        except Exception as error:  # noqa: BLE001 - the outcome of the submit counts
            _log.warning("the claim of %s holds until its lease ends: %s", self.out_task_id, error)


class ClaimedSubmission(Submission):
    """One submit whose ID is claimed before each POST.

    Args:
        store: Where it is claimed.
        api: The endpoints.
        request: What to submit.
        maybe_sent: Whether it may have been sent without a claim.

    Raises:
        ValueError: The ID was generated: no other process can know it.
    """

    claiming: Claiming

    def __init__(
        self,
        store: "IdempotencyStore",
        api: Api,
        request: SubmitRequest,
        *,
        maybe_sent: bool = False,
    ) -> None:
        super().__init__(api, request, maybe_sent=maybe_sent)
        if request.generated:
            raise ValueError(
                "idempotency needs an ID that another process would choose as well: "
                "give it as out_task_id, for instance stable_id(namespace, ...)"
            )
        retry = api.settings.retry
        self.claiming = Claiming(
            store=store,
            out_task_id=request.out_task_id,
            lease=api.settings.timeout + retry.max_retry_after,
            settle=retry.settle,
            maybe_sent=maybe_sent,
            now=api.shared.clock.now,
        )

    async def submit(self) -> Task:
        """Submit the request, unless another call does or did: then find its task.

        Raises:
            IDInUseError: The ID stands for another request.
            StoreError: The store cannot be used; nothing was sent.
            AireiterError: As in `Submission.submit`.
        """
        request = self._request
        try:
            encode = request.encode_content
            threads = self._api.shared.files.threads
            content = await threads.run(encode) if request.large else encode()
            self.claiming.fingerprint = hashlib.sha256(content.encode()).hexdigest()
            self._settle_first = False  # the claim comes before the settling
            try:
                task = await self._submit_or_find()
            except AmbiguousSubmitError:
                raise
            except (AireiterError, RuntimeError):  # certainly not accepted
                await self.claiming.release(accepted=False)
                raise
            await self.claiming.release(accepted=True)
        except asyncio.CancelledError as error:  # the claim is left to expire
            if not getattr(error, "__notes__", ()):
                error.add_note(self._note())
            raise
        return task

    async def _submit_or_find(self) -> Task:
        pause = _FIRST_PAUSE
        while True:
            try:
                return await super().submit()
            except NotClaimedError as error:
                claim = error.claim
                if claim is None:
                    raise self._explain(error.__cause__) from error.__cause__
            if claim.held:  # but an earlier owner, or call, may have sent it
                self._settle_first = self.may_exist = True
                continue
            if not claim.same_request:
                raise used_by_another(self._request, "the store has it with other content")
            before, self.may_exist = self.may_exist, True  # another call may have sent it
            task = await self._find_claimed(claim, pause)
            if task is not None:
                return task
            self._settle_first = self.may_exist = before
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _find_claimed(self, claim: "Claim", pause: float) -> Task | None:
        """Look up the task of an ID that another call has claimed.

        Raises:
            AmbiguousSubmitError: It was accepted, and was not found, or the service could
                not be asked.
        """
        api, request = self._api, self._request
        out_task_id = request.out_task_id
        try:
            if claim.accepted:
                task = await api.find(out_task_id, request.model)
            else:
                await api.shared.clock.sleep(min(pause, claim.remaining))
                task = await api.ask(out_task_id, request.model)
        except TaskNotFoundError:
            return None
        except (AireiterError, RuntimeError) as error:
            reason = getattr(error, "summary", error)
            text = "another call has claimed the ID, and the service could not be asked"
            raise AmbiguousSubmitError(out_task_id, f"{text} ({reason})") from error
        if task is None:
            text = "the store says that the service has accepted it, but it was not found"
            raise AmbiguousSubmitError(out_task_id, text)
        self.verify(task)
        api.shared.note_accepted(request, task)
        return task

    def _explain(self, cause: Any) -> AireiterError:
        """Return the error of a store that cannot be used."""
        out_task_id = self._request.out_task_id
        if not self.may_exist:
            return StoreError(cause.summary, out_task_id)
        text = f"no attempt was confirmed, and the ID could not be claimed ({cause.summary})"
        return AmbiguousSubmitError(out_task_id, text)
