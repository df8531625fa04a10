"""The record of a batch in an SQLite file: what was intended, accepted, ended and saved."""

from aireiter_async._ledger._ledger import Ledger
from aireiter_async._ledger._store import Entry, LedgerState

__all__ = ["Entry", "Ledger", "LedgerState"]
