"""A million tasks done right: a bounded window, outcomes as they come, a ledger, a budget."""

from aireiter_async._batch._batch import run_many, submit_many
from aireiter_async._batch._plan import Outcome
from aireiter_async._batch._progress import BatchProgress

__all__ = ["BatchProgress", "Outcome", "run_many", "submit_many"]
