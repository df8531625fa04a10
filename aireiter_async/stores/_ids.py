"""IDs that depend on nothing but what they stand for."""

import hashlib
import json
from typing import Any

from aireiter_async._encoding import check_values


def stable_id(namespace: str, *parts: Any) -> str:
    """Return an ID that is the same for equal parts, in every process and on every machine.

    Args:
        namespace: Such as the name of the application: equal parts in different namespaces
            give different IDs.
        *parts: JSON values; the order of keys in a mapping does not count. 1 and 1.0 differ.

    Returns:
        The first 32 hexadecimal digits of the SHA-256 of the parts as canonical JSON.

    Raises:
        TypeError: A part is not a JSON value.
        ValueError: A part is NaN or infinite.
    """
    try:
        text = json.dumps(
            [namespace, *parts], sort_keys=True, separators=(",", ":"), allow_nan=False
        )
    except (TypeError, ValueError) as error:
        check_values("parts", parts)  # raises an error that names the part
        raise type(error)(f"parts cannot be JSON: {error}") from error  # pragma: no cover
    return hashlib.sha256(text.encode()).hexdigest()[:32]
