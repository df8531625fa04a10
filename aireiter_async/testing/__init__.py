"""The API in miniature, for tests and demonstrations without a key.

`FakeService` knows nothing of the client beside it: the two must not share a
misunderstanding. ``python -m aireiter_async.testing`` runs it as a program.
"""

from aireiter_async.testing._account import Charge, FakeTask
from aireiter_async.testing._faults import Fault
from aireiter_async.testing._service import FakeService
from aireiter_async.testing._traffic import RecordedRequest

__all__ = ["Charge", "FakeService", "FakeTask", "Fault", "RecordedRequest"]
