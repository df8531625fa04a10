"""The asyncio-native Python client for the AIReiter generation API.

::

    import asyncio
    from aireiter_async import AsyncClient, models

    async def main() -> None:
        async with AsyncClient() as client:  # reads AIREITER_API_KEY
            request = models.Seedance15Pro(prompt="a kitten in the sun", aspect_ratio="16:9")
            task = await client.run(request)
            print(await client.download(task, "results"))

    asyncio.run(main())
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from aireiter_async import errors, events, models
from aireiter_async._client import AsyncClient
from aireiter_async._poll import PollPolicy
from aireiter_async._requests import SubmitRequest
from aireiter_async._retry import RetryPolicy
from aireiter_async._tasks import (
    Balance,
    ClientStats,
    ErrorDetail,
    FreeQuota,
    LedgerState,
    Output,
    Task,
    TaskStatus,
)
from aireiter_async._version import __version__
from aireiter_async.errors import (
    AireiterError,
    AmbiguousSubmitError,
    APIError,
    AuthenticationError,
    BudgetExceededError,
    ConnectError,
    DownloadError,
    IDInUseError,
    InsufficientCreditsError,
    InvalidRequestError,
    LedgerError,
    NotSubmittedError,
    ProtocolError,
    RateLimitError,
    RequestTimeoutError,
    ResultMissingError,
    ServerError,
    StoreError,
    TaskError,
    TaskFailedError,
    TaskNotFoundError,
    TaskTimeoutError,
    TransportError,
)

if TYPE_CHECKING:
    from aireiter_async._batch import Batch, BatchProgress, Failure, Outcome, Success
    from aireiter_async._ledger import Ledger
    from aireiter_async._media import Sink, data_url
    from aireiter_async.stores import IdempotencyStore, PostgresStore, SQLiteStore, stable_id

__all__ = [
    "APIError",
    "AireiterError",
    "AmbiguousSubmitError",
    "AsyncClient",
    "AuthenticationError",
    "Balance",
    "Batch",
    "BatchProgress",
    "BudgetExceededError",
    "ClientStats",
    "ConnectError",
    "DownloadError",
    "ErrorDetail",
    "Failure",
    "FreeQuota",
    "IDInUseError",
    "IdempotencyStore",
    "InsufficientCreditsError",
    "InvalidRequestError",
    "Ledger",
    "LedgerError",
    "LedgerState",
    "NotSubmittedError",
    "Outcome",
    "Output",
    "PollPolicy",
    "PostgresStore",
    "ProtocolError",
    "RateLimitError",
    "RequestTimeoutError",
    "ResultMissingError",
    "RetryPolicy",
    "SQLiteStore",
    "ServerError",
    "Sink",
    "StoreError",
    "SubmitRequest",
    "Success",
    "Task",
    "TaskError",
    "TaskFailedError",
    "TaskNotFoundError",
    "TaskStatus",
    "TaskTimeoutError",
    "TransportError",
    "__version__",
    "data_url",
    "errors",
    "events",
    "models",
    "stable_id",
]

# Imported on first use, which keeps the import of the package fast.
_LAZY = {
    "Batch": "_batch",
    "BatchProgress": "_batch",
    "Failure": "_batch",
    "Ledger": "_ledger",
    "Outcome": "_batch",
    "Sink": "_media",
    "Success": "_batch",
    "IdempotencyStore": "stores",
    "PostgresStore": "stores",
    "SQLiteStore": "stores",
    "data_url": "_media",
    "stable_id": "stores",
}


if not TYPE_CHECKING:  # otherwise a type checker would accept any name

    def __getattr__(name: str) -> Any:
        """Import a name of `_LAZY` on first use."""
        if name not in _LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
        globals()[name] = value
        _show_public_path(value)
        return value


def _show_public_path(value: object) -> None:
    """Set a public class's module to the one users import it from: for reprs, docs, pickles."""
    if isinstance(value, type) and value.__module__.startswith(f"{__name__}._"):
        value.__module__ = __name__


for _name in __all__:
    _show_public_path(globals().get(_name))


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted({*globals(), *__all__})
