"""Ledgers: the record of a batch in an SQLite file."""

from aireiter_async._ledger._journal import Journal
from aireiter_async._ledger._ledger import Ledger, journal_of, verify
from aireiter_async._ledger._store import Entry, Intent

__all__ = ["Entry", "Intent", "Journal", "Ledger", "journal_of", "verify"]
