"""Batches: a bounded window over many requests, with a ledger and a budget."""

from aireiter_async._batch._batch import Batch, default_window, run_many, submit_many
from aireiter_async._batch._budget import Budget
from aireiter_async._batch._outcomes import Failure, Outcome, Success
from aireiter_async._batch._progress import BatchProgress

__all__ = [
    "Batch",
    "BatchProgress",
    "Budget",
    "Failure",
    "Outcome",
    "Success",
    "default_window",
    "run_many",
    "submit_many",
]
