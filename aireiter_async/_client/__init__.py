"""One task done right: submit, query, wait, run, balance, download."""

from aireiter_async._client._client import AsyncClient

__all__ = ["AsyncClient"]
