"""The HTML page of a ledger: pictures, prompts, credits and failures, without a network."""

from aireiter_async.report._page import PageBuilder, is_page

__all__ = ["PageBuilder", "is_page"]
