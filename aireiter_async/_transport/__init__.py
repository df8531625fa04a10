"""HTTP exchanges over aiohttp, with its exceptions translated."""

from aireiter_async._transport._addresses import is_loopback
from aireiter_async._transport._pool import CLOSED, Route, Transport
from aireiter_async._transport._proxies import Proxy, find_proxy
from aireiter_async._transport._stream import Stream

__all__ = ["CLOSED", "Proxy", "Route", "Stream", "Transport", "find_proxy", "is_loopback"]
