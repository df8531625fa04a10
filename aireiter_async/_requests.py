"""What is asked of the service: a request with the id that it keeps, frozen, no I/O."""

import os
import re
import reprlib
from collections.abc import Mapping
from typing import Any

import attrs
from attrs import field, frozen

from aireiter_async.models import with_channel
from aireiter_async.models._base import Model

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class DrawnId(str):
    """An id that nobody has chosen: a ledger may put a stable one in its place."""

    __slots__ = ()


def draw_id() -> DrawnId:
    """Draw an ``out_task_id`` that collides with no other.

    Returns:
        32 hexadecimal characters from the system's random source: timestamps
        collided in the wild.
    """
    return DrawnId(os.urandom(16).hex())


def check_id(out_task_id: object) -> str:
    """Return *out_task_id* if the service accepts it as an id.

    Raises:
        TypeError: It is not a string.
        ValueError: It is not 1 to 64 characters of ``[A-Za-z0-9_-]``.
    """
    if not isinstance(out_task_id, str):
        raise TypeError(f"out_task_id must be a str, got {type(out_task_id).__name__}")
    if _ID.fullmatch(out_task_id) is None:
        raise ValueError(
            "out_task_id must be 1 to 64 characters of A-Z, a-z, 0-9, '_' and '-', "
            f"got {reprlib.repr(out_task_id)}"
        )
    return out_task_id


@frozen
class SubmitRequest:
    """One task to be submitted, with the id that it keeps on every attempt.

    Attributes:
        model: The model's name, a channel's suffix included. Names that this
            release does not know are passed on.
        params: A mapping, passed on unchecked, or an instance of a class in
            `aireiter_async.models`.
        out_task_id: 1 to 64 characters of ``[A-Za-z0-9_-]``, drawn when not
            given; the only handle on the task, and used once per API key.
        callback_url: Where the service reports the end of the task; documented
            for five models only.
        metadata: Echoed back by the service; documented for five models only.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: An argument is out of its range.
    """

    model: str
    params: Mapping[str, Any] | Model = field(repr=reprlib.repr, hash=False)
    out_task_id: str = field(factory=draw_id)
    callback_url: str | None = None
    metadata: Mapping[str, Any] | None = field(default=None, repr=reprlib.repr, hash=False)

    # All in one: a validator for each attribute would be a call for each, of every request.
    def __attrs_post_init__(self) -> None:
        """Check what was given."""
        model, params = self.model, self.params
        if not _is_name(model):
            raise _wrong_model(model)
        if isinstance(params, Model):
            if model not in params.VARIANTS:
                raise _wrong_class(model, params)
        elif not isinstance(
            params, (dict, Mapping)
        ):  # a dict needs no look at Mapping's subclasses
            raise TypeError(
                "params must be a mapping or an instance of a class in aireiter_async.models, "
                f"got {type(params).__name__}"
            )
        if type(self.out_task_id) is not DrawnId:
            check_id(self.out_task_id)
        if self.callback_url is not None:
            _check_url(self.callback_url)
        if self.metadata is not None and not isinstance(self.metadata, Mapping):
            raise TypeError(f"metadata must be a mapping, got {type(self.metadata).__name__}")


def _is_name(model: object) -> bool:
    return isinstance(model, str) and model == model.strip() != ""


def _wrong_model(model: object) -> Exception:
    if not isinstance(model, str):
        return TypeError(f"model must be a str, got {type(model).__name__}")
    return ValueError(
        f"model must be a model's name such as 'nano_banana', got {reprlib.repr(model)}"
    )


def _wrong_class(model: str, params: Model) -> ValueError:
    return ValueError(
        f"model {model!r} does not take the params of {type(params).__name__}: "
        f"use one of {', '.join(params.VARIANTS)}"
    )


def _check_url(callback_url: object) -> None:
    if not isinstance(callback_url, str):
        raise TypeError(f"callback_url must be a str, got {type(callback_url).__name__}")
    if not callback_url.startswith(("http://", "https://")):
        raise ValueError(
            f"callback_url must be an http or https URL, got {reprlib.repr(callback_url)}"
        )


def as_request(
    request: SubmitRequest | Model,
    *,
    out_task_id: str | None = None,
    channel: str | None = None,
    callback_url: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> SubmitRequest:
    """Make the request that `submit` sends from what it was given.

    Raises:
        TypeError: *request* is neither a request nor a models instance.
        ValueError: The model has no such *channel*, or an id is malformed.
    """
    unchanged = out_task_id is None and channel is None and callback_url is None
    if type(request) is SubmitRequest and unchanged and metadata is None:
        return request
    changes: dict[str, Any] = {}
    if out_task_id is not None:
        changes["out_task_id"] = out_task_id
    if callback_url is not None:
        changes["callback_url"] = callback_url
    if metadata is not None:
        changes["metadata"] = metadata
    if isinstance(request, Model):
        model = request.model_name
        if channel is not None:
            model = with_channel(model, channel)
        return SubmitRequest(model, request, **changes)
    if not isinstance(request, SubmitRequest):
        raise TypeError(
            "request must be a SubmitRequest or an instance of a class in "
            f"aireiter_async.models, got {type(request).__name__}"
        )
    if channel is not None:
        changes["model"] = with_channel(request.model, channel)
    return attrs.evolve(request, **changes) if changes else request
