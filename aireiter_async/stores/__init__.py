"""Idempotency stores: processes and machines agree on which of them may submit an ID.

An ID is claimed right before its POST. A claim is granted to one owner at a time, so that workers
that receive the same job (a redelivered message, a form posted twice) submit it once.
"""

from aireiter_async.stores._ids import stable_id
from aireiter_async.stores._postgres import PostgresStore
from aireiter_async.stores._protocol import Claim, IdempotencyStore
from aireiter_async.stores._sqlite import SQLiteStore

__all__ = ["Claim", "IdempotencyStore", "PostgresStore", "SQLiteStore", "stable_id"]

for _public in (Claim, IdempotencyStore, PostgresStore, SQLiteStore, stable_id):
    _public.__module__ = __name__
