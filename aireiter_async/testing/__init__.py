"""A fake of the API, for tests and demos without a key.

`FakeService` shares no protocol code with the client, so that the two cannot share a
misunderstanding. ``python -m aireiter_async.testing`` runs it as a program, and a pytest plugin
provides the fixtures ``aireiter_service`` and ``aireiter_client``.
"""

from aireiter_async.testing._account import Charge, FakeTask
from aireiter_async.testing._api import RecordedRequest
from aireiter_async.testing._callbacks import Callback
from aireiter_async.testing._faults import Fault
from aireiter_async.testing._service import FakeService

__all__ = ["Callback", "Charge", "FakeService", "FakeTask", "Fault", "RecordedRequest"]

for _public in (Callback, Charge, FakeService, FakeTask, Fault, RecordedRequest):
    _public.__module__ = __name__
