"""Keeping the API key out of reprs, tracebacks, errors and logs."""

import json
import re
from typing import Final
from urllib.parse import quote

from aireiter_async._envelope import Reply

_HIDDEN: Final = b"***"
_REDIRECTS: Final = range(300, 400)


class Secret(str):
    """A string that does not show in a repr: tracebacks and debuggers print those."""

    __slots__ = ()

    def __repr__(self) -> str:
        """Hide the value."""
        return "'***'"


def hide(api_key: str | None) -> str | None:
    """Keep a key out of the variables that a traceback shows, whether it is a good one or not."""
    return Secret(api_key) if isinstance(api_key, str) else api_key


class Redactor:
    """
    Removes a key from responses: a relay may echo the request in a page or a header.

    Args:
        key: The API key.
    """

    def __init__(self, key: str) -> None:
        self._key = key.encode()
        self._escaped = _escaped(key)

    def finds_key(self, reply: Reply) -> bool:
        """Return whether *reply* may contain the key; a redirect's Location always may."""
        return (
            self._key in reply.body
            or reply.status in _REDIRECTS
            or (bool(self._escaped) and any(map(reply.body.__contains__, self._escaped)))
        )

    def redact(self, reply: Reply) -> Reply:
        """Return *reply* with every form of the key replaced."""
        headers = {name.title(): text for name, text in reply.headers.items()}
        body = reply.body
        for echo in (self._key, *self._escaped):
            shown, hidden = echo.decode(), _HIDDEN.decode()
            headers = {name: text.replace(shown, hidden) for name, text in headers.items()}
            body = body.replace(echo, _HIDDEN)
        return Reply(reply.status, headers, body, reply.received_at)


def _escaped(key: str) -> tuple[bytes, ...]:
    """Return the other forms of *key* in JSON and in a URL; none for an ordinary key."""
    in_json = json.dumps(key)[1:-1]
    in_url = quote(key, safe="")
    in_lower_case = re.sub("%..", lambda found: found[0].lower(), in_url)
    forms = {in_json, in_json.replace("/", r"\/"), in_url, in_lower_case} - {key}
    return tuple(form.encode() for form in forms)
