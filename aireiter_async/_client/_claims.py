"""Submit under an ID that is claimed in an idempotency store right before each POST."""

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
from aireiter_async._client._submission import Submission, check_owner, id_in_use, summary_of
from aireiter_async._requests import SubmitRequest
from aireiter_async._tasks import Task
from aireiter_async.errors import (
    AireiterError,
    AmbiguousSubmitError,
    StoreError,
    TaskNotFoundError,
)

if TYPE_CHECKING:  # imports SQLite
    from aireiter_async.stores import Claim, IdempotencyStore

_log = logging.getLogger(__name__)

# Seconds between polls for a task whose ID another call has claimed: initial and maximum.
_FIRST_PAUSE: Final = 0.25
_MAX_PAUSE: Final = 4.0


def claimed_submission(store: "IdempotencyStore") -> Callable[..., Submission]:
    """Return a constructor like `Submission` that claims IDs in *store*.

    Raises:
        TypeError: *store* is not an IdempotencyStore.
    """
    from aireiter_async.stores import IdempotencyStore  # noqa: PLC0415 - imports SQLite

    if not isinstance(store, IdempotencyStore):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"idempotency must be an IdempotencyStore, got {type(store).__name__}")
    return partial(ClaimedSubmission, store)


class NotClaimedError(Exception):
    """The POST must not be sent now. Internal.

    Attributes:
        claim: The result of the claim; None if the store failed, which is the cause.
    """

    def __init__(self, claim: "Claim | None") -> None:
        super().__init__(claim)
        self.claim = claim


@define(eq=False, kw_only=True)
class IDClaim:
    """One call's claim on its ID.

    Attributes:
        lease: Seconds for which a claim holds.
        settle: Seconds that a lookup of the ID takes.
        maybe_sent: Whether the ID may have been sent without a claim.
        host: The service's host, for the log.
        now: Returns monotonic seconds.
        fingerprint: The digest of the request.
        held: Whether the last claim was granted.
    """

    store: "IdempotencyStore"
    out_task_id: str
    lease: float
    settle: float
    maybe_sent: bool
    host: str
    now: Callable[[], float]
    owner: str = field(factory=lambda: os.urandom(16).hex())
    fingerprint: str = ""
    held: bool = False
    # Until then, no other owner can have claimed the ID after this one and abandoned it.
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
        except Exception as error:  # noqa: BLE001 - a store may raise anything
            failure = StoreError(f"the store failed: {type(error).__name__}: {error}")
            failure.__cause__ = error
            raise NotClaimedError(None) from failure
        self.held = claim.held
        if not claim.held:
            raise NotClaimedError(claim)
        unknown = started > self._known_until
        self._known_until = started + self.lease + self.settle
        if unknown and (claim.taken_over or self.maybe_sent):
            raise NotClaimedError(claim)

    async def release(self, *, accepted: bool) -> None:
        if not self.held:
            return
        try:
            await self.store.release(self.out_task_id, self.owner, accepted=accepted)
        except Exception as error:  # noqa: BLE001 - must not hide the outcome
            text = "submit %s at %s: its claim holds until the lease ends: %s"
            _log.warning(text, self.out_task_id, self.host, error)


class ClaimedSubmission(Submission):
    """One submit whose ID is claimed before each POST.

    Raises:
        ValueError: The ID was generated, so no other process can know it.
    """

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
                "idempotency needs an ID that other processes would choose as well: "
                "pass it as out_task_id, for example stable_id(namespace, ...)"
            )
        retry = api.settings.retry
        self._id_claim = IDClaim(
            store=store,
            out_task_id=request.out_task_id,
            # After a takeover, the lookup before the POST is part of it: calls whose claims expire
            # meanwhile would take the ID over from each other, and none would ever submit it.
            lease=max(api.settings.timeout + retry.max_retry_after, 2 * retry.settle),
            settle=retry.settle,
            maybe_sent=maybe_sent,
            host=api.host,
            now=api.shared.clock.now,
        )
        self.claim = self._id_claim.claim

    async def submit(self) -> Task:
        """Submit the request, or find its task if another call submits it.

        Raises:
            IDInUseError: The ID belongs to another request.
            StoreError: The store cannot be used; nothing was sent.
            AireiterError: As in `Submission.submit`.
        """
        request = self._request
        try:
            encode = request.encode_content
            threads = self._api.shared.threads
            content = await threads.run(encode) if request.large else encode()
            self._id_claim.fingerprint = hashlib.sha256(content.encode()).hexdigest()
            self._settle_first = False  # claim before settling
            try:
                task = await self._submit_or_find()
            except AmbiguousSubmitError:
                raise
            except (AireiterError, RuntimeError):  # definitely not accepted
                await self._id_claim.release(accepted=False)
                raise
            await self._id_claim.release(accepted=True)
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
                    raise self._store_error(error.__cause__) from error.__cause__
            if claim.held:  # but an earlier owner or call may have sent it
                self._settle_first = self.may_exist = True
                continue
            if not claim.same_request:
                raise id_in_use(self._request, "the store has it with other content")
            before, self.may_exist = self.may_exist, True  # another call may have sent it
            task = await self._find_claimed(claim, pause)
            if task is not None:
                return task
            self._settle_first = self.may_exist = before
            pause = min(2 * pause, _MAX_PAUSE)

    async def _find_claimed(self, claim: "Claim", pause: float) -> Task | None:
        """Look up the task of an ID that another call has claimed.

        Raises:
            AmbiguousSubmitError: It was accepted but not found, or the service could not be
                queried.
        """
        api, request = self._api, self._request
        out_task_id = request.out_task_id
        try:
            if claim.accepted:
                task = await api.find(out_task_id, request.model)
            else:
                await api.shared.clock.sleep(min(pause, claim.remaining))
                task = await api.query(out_task_id, request.model)
        except TaskNotFoundError:
            return None
        except (AireiterError, RuntimeError) as error:
            text = "another call has claimed the ID, and the service could not be queried"
            raise AmbiguousSubmitError(out_task_id, f"{text} ({summary_of(error)})") from error
        if task is None:
            text = "the store says that the service has accepted it, but it was not found"
            raise AmbiguousSubmitError(out_task_id, text)
        check_owner(request, task)
        api.shared.note_accepted(request, task)
        return task

    def _store_error(self, cause: Any) -> AireiterError:
        out_task_id = self._request.out_task_id
        if not self.may_exist:
            return StoreError(cause.summary, out_task_id)
        text = f"no attempt was confirmed, and the ID could not be claimed ({cause.summary})"
        return AmbiguousSubmitError(out_task_id, text)
