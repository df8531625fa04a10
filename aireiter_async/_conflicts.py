"""Tell whether an ID's task belongs to a request: a caller may use an ID twice."""

import re
import unicodedata
from collections.abc import Mapping
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
    theirs = _echo(task)
    if not theirs:
        return None
    model = theirs.get("model")
    if isinstance(model, str) and model and _model_key(model) != _model_key(request.model):
        return f"the ID's task is for the model {model}"
    params = theirs.get("params", theirs)
    if not isinstance(params, dict):
        return None
    for name, text in _given(request).items():
        if _is_text(name, text) and not _may_echo(params.get(name), text):
            return f"the ID's task has a different {name}"
    return None


def is_echo(request: SubmitRequest, task: Task) -> bool:
    """Return whether the service's echo proves that *task* belongs to *request*."""
    theirs = _echo(task)
    params = theirs.get("params")
    if theirs.get("model") != request.model or not isinstance(params, dict):
        return False
    return all(_is_repeated(params, name, value) for name, value in _given(request).items())


def _is_repeated(params: Mapping[str, Any], name: str, value: Any) -> bool:
    """Return whether an echo may repeat a parameter; a text must be there, as it was sent."""
    if isinstance(value, str):
        return bool(re.match(_MEDIA, value)) or params.get(name) == value
    if isinstance(value, bool | int | float) and name in params:
        theirs = params[name]
        return bool(theirs == value) or str(theirs).casefold() == str(value).casefold()
    return True  # the service fills in objects, and rehosts media


def _echo(task: Task) -> dict[str, Any]:
    """Return the request as the service repeats it with its task, empty if it does not."""
    payload = task.raw if isinstance(task.raw, dict) else {}
    data = payload.get("data", payload)  # a relay may have removed the envelope
    data = data[0] if isinstance(data, list) and data else data
    theirs = data.get("input") if isinstance(data, dict) else None
    return theirs if isinstance(theirs, dict) else {}


def _given(request: SubmitRequest) -> Mapping[str, Any]:
    params = request.params
    return params.to_params() if isinstance(params, Model) else params


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
