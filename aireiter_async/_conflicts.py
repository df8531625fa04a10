"""Detect that an ID's task belongs to another request: a caller may use an ID twice."""

import re
import unicodedata
from typing import Any, Final

from aireiter_async._requests import SubmitRequest
from aireiter_async._tasks import Task
from aireiter_async.models._base import Model

_CHANNELS: Final = r"_(?:base|plus|advanced|max)$"
_TEXTS: Final = r"prompt$|^(?:text|lyrics|title|description|script|content)$"
_MEDIA: Final = r"(?i)\s*(?:[a-z][a-z0-9+.-]*://|data:)"
_LONG: Final = 100  # characters; a longer echo may have been truncated


def find_conflict(
    request: SubmitRequest, task: Task, *, just_submitted: bool = False
) -> str | None:
    """Return why *task* cannot be that of *request*, or None if it may be.

    Only a different model or text is evidence: the service fills in defaults and
    rehosts media, and clocks differ. With *just_submitted*, *task* is the response to
    the first POST of the request, so that it cannot have ended.
    """
    if just_submitted and task.done:
        return f"the ID's task is already {task.status}"
    payload = task.raw if isinstance(task.raw, dict) else {}
    data = payload.get("data")
    data = data[0] if isinstance(data, list) and data else data
    theirs = data.get("input") if isinstance(data, dict) else None
    if not isinstance(theirs, dict):
        return None
    model = theirs.get("model")
    if isinstance(model, str) and model and _model_key(model) != _model_key(request.model):
        return f"the ID's task is for the model {model}"
    params, ours = theirs.get("params", theirs), request.params
    if not isinstance(params, dict):
        return None
    for name, text in (ours.to_params() if isinstance(ours, Model) else ours).items():
        if _is_text(name, text) and not _may_echo(params.get(name), text):
            return f"the ID's task has a different {name}"
    return None


def _model_key(model: str) -> str:
    return re.sub(_CHANNELS, "", re.sub(r"[\W_]+", "_", model.casefold()))


def _is_text(name: str, value: Any) -> bool:
    """Return whether a parameter holds prose, which the service would not replace."""
    if not isinstance(value, str) or re.match(_MEDIA, value):
        return False
    return bool(re.search(_TEXTS, name)) or len(value.split()) > 1


def _may_echo(theirs: Any, ours: str) -> bool:
    """Return whether *theirs* may be an echo of *ours*, perhaps normalised or truncated."""
    if not isinstance(theirs, str) or re.match(_MEDIA, theirs):
        return True
    cut = theirs.rstrip(".… ") if theirs.endswith(("...", "…")) else theirs
    shown, sent = _words(cut), _words(ours)
    truncated = cut is not theirs or len(shown) >= _LONG
    return shown == sent or (truncated and sent.startswith(shown))


def _words(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())
