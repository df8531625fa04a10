"""HTTP exchanges over aiohttp, with its exceptions translated."""

from aireiter_async._transport._pool import CLOSED, Route, Transport
from aireiter_async._transport._results import Stream

__all__ = ["CLOSED", "Route", "Stream", "Transport"]
