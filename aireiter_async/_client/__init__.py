"""AsyncClient, and what batches use of it."""

from aireiter_async._client._api import Api, SubmitsHaltedError
from aireiter_async._client._client import AsyncClient, api_of, limit_to_share
from aireiter_async._client._shared import Clock
from aireiter_async._client._submission import check_owner
from aireiter_async._client._waiting import Watch

__all__ = [
    "Api",
    "AsyncClient",
    "Clock",
    "SubmitsHaltedError",
    "Watch",
    "api_of",
    "check_owner",
    "limit_to_share",
]
