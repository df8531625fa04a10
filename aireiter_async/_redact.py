"""Keeping the API key out of reprs, tracebacks, errors and logs."""

import json
import re
from typing import Any, Final
from urllib.parse import quote

import attrs

from aireiter_async._envelope import Reply
from aireiter_async.errors import AireiterError

_HIDDEN: Final = "***"
_REDIRECTS: Final = range(300, 400)
# Characters. Anything shorter may be an ordinary word of a response ("data", "png"), and is not a
# key of the service.
_SHORTEST_KEY: Final = 8
_SHORTEST_PART: Final = 4
_DATA: Final = frozenset({"out_task_id", "url"})  # never redacted: without these a value is useless


class Secret(str):
    """A string that does not show in a repr: tracebacks and debuggers print those."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


def hide(api_key: str | None) -> str | None:
    """Wrap a key, valid or not, so that tracebacks that show variables do not show it."""
    return Secret(api_key) if isinstance(api_key, str) else api_key


class Redactor:
    """Removes the key from everything reported: a relay may echo the request in a response.

    Responses are parsed unchanged; the values read from them are redacted.

    Attributes:
        forms: The bytes to search a body for; empty if the key is too short to be real.
    """

    def __init__(self, key: str) -> None:
        forms = _forms(key) if len(key) >= _SHORTEST_KEY else ()
        self.forms = tuple(Secret(form).encode() for form in forms)
        # Errors show header values as reprs.
        self._texts = {form for text in forms for form in (text, repr(str(text))[1:-1])}

    def finds_key(self, reply: Reply) -> bool:
        """Return whether *reply* may contain the key; a redirect's Location always may."""
        return reply.status in _REDIRECTS or any(form in reply.body for form in self.forms)

    def redact(self, value: Any) -> Any:
        """Return *value*, read from a response, with the key removed from its strings."""
        if type(value) is str:
            return self._redact_text(value)
        if isinstance(value, dict):
            return {self.redact(name): self.redact(inner) for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(map(self.redact, value))
        if attrs.has(type(value)):
            fields = {field.name for field in attrs.fields(type(value))} - _DATA
            changes = {name: self.redact(getattr(value, name)) for name in fields}
            return attrs.evolve(value, **changes)
        return value

    def redact_error(self, error: AireiterError) -> None:
        """Remove the key from *error*, and the frames that hold the response."""
        for name in ("message", "excerpt"):
            text = getattr(error, name, None)
            if text:
                setattr(error, name, self._redact_end(self._redact_text(text)))
        error.args = self.redact(error.args)  # these are pickled as well
        error.__traceback__ = error.__cause__ = error.__context__ = None

    def _redact_text(self, text: str) -> str:
        for form in self._texts:
            text = text.replace(form, _HIDDEN)
        return text

    def _redact_end(self, text: str) -> str:
        """Remove a partial key from the end of a truncated text."""
        for form in self._texts:
            for length in range(len(form) - 1, _SHORTEST_PART - 1, -1):
                if text.removesuffix("...").endswith(form[:length]):
                    return text.removesuffix("...")[:-length] + _HIDDEN
        return text


def _forms(key: str) -> set[str]:
    """Return *key* verbatim, escaped as in JSON, and encoded as in a URL."""
    in_json = json.dumps(key)[1:-1]
    in_url = quote(key, safe="")
    in_lower_case = re.sub("%..", lambda found: found[0].lower(), in_url)
    return {key, in_json, in_json.replace("/", r"\/"), in_url, in_lower_case}
