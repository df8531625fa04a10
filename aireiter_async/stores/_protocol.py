"""What a store promises to those who claim IDs."""

from typing import Protocol, runtime_checkable

from attrs import frozen


@frozen
class Claim:
    """The result of a claim.

    Attributes:
        held: Whether the caller may submit the ID now.
        remaining: Seconds until another owner's claim expires; 0 if there is none.
        same_request: Whether the stored fingerprint is equal: the ID belongs to the same request.
        accepted: Whether the service has accepted the ID: it must never be submitted again.
        taken_over: Whether an earlier owner's claim expired without being released, so that the
            request may have been sent: look the ID up before submitting it.
    """

    held: bool
    remaining: float = 0.0
    same_request: bool = True
    accepted: bool = False
    taken_over: bool = False


@runtime_checkable
class IdempotencyStore(Protocol):
    """Where processes agree on which of them may submit an ID.

    Each method is atomic and durable on return, and may be called from any number of processes.
    Implementations raise `StoreError` where the store cannot be used.
    """

    async def claim(self, out_task_id: str, fingerprint: str, *, owner: str, lease: float) -> Claim:
        """Claim the right to submit an ID.

        It is granted if the ID is unclaimed, claimed by *owner*, or claimed by another owner whose
        lease has expired without the ID being accepted; never if the fingerprint differs. A claim
        that is not granted changes nothing.

        Args:
            out_task_id: The ID.
            fingerprint: The digest of the request.
            owner: Identifies the claimant: random per call.
            lease: Seconds for which the claim holds, by the store's own clock.
        """
        ...

    async def release(self, out_task_id: str, owner: str, *, accepted: bool) -> None:
        """End a claim of *owner*.

        Args:
            out_task_id: The ID.
            owner: The claim's owner; another owner's claim is not changed.
            accepted: True: the service has accepted the ID, which must never be submitted again.
                False: it has definitely not, and the ID may be claimed by anyone.
        """
        ...
