"""One HTTP exchange over an aiohttp session; aiohttp's errors become ours.

aiohttp is tuned here for many small exchanges with one host: a pool as large as
the client's own semaphore (so that its unfair queue is never used), idle
connections dropped well before a CDN drops them (a POST on a connection that
the other side has just closed is ambiguous), one DNS lookup for all connects,
no cookies, no redirects where the key travels.
"""

from aireiter_async._transport._pool import CLOSED, Transport
from aireiter_async._transport._route import Route
from aireiter_async._transport._stream import Stream

__all__ = ["CLOSED", "Route", "Stream", "Transport"]
