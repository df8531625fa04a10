"""What came back, as documents for programs: dicts of JSON values."""

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import attrs

from aireiter_async import Balance, Task


def task_document(task: Task, files: Sequence[Path] = ()) -> dict[str, Any]:
    """Describe *task* with all that the service said: the whole reply is under ``raw``.

    Args:
        task: The task.
        files: Where its results were saved.
    """
    return {**_plain(task), "files": [str(path) for path in files], "raw": task.raw}


def balance_document(balance: Balance) -> dict[str, Any]:
    """Describe *balance*, the whole reply under ``raw``."""
    return {**_plain(balance), "raw": balance.raw}


def encode(document: Any, indent: int | None = 2) -> str:
    """Encode as JSON text.

    A lone surrogate stays in it: as the stream writes it, it is JSON's own escape.

    Args:
        document: What is encoded.
        indent: Columns per level; None for one line.
    """
    default = datetime.isoformat
    return json.dumps(document, ensure_ascii=False, indent=indent, allow_nan=False, default=default)


def _plain(value: Task | Balance) -> dict[str, Any]:
    # An output's own raw is a part of the whole reply.
    return attrs.asdict(value, filter=lambda attribute, _: attribute.name != "raw")
