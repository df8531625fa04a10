"""Media parameters: URLs, validated without fetching them, and local media."""

import re
from inspect import iscoroutinefunction
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, Literal, Protocol, TypeAlias, runtime_checkable

import attrs

from aireiter_async.models._errors import conversion_hint, short
from aireiter_async.models._markers import Limit

Accepts: TypeAlias = Literal["url", "url or data", "url or image data", "url, image data or base64"]

# The generous reading of "MB": near the limit, the service decides.
MEGABYTE: Final = 1024 * 1024

_SCHEME = re.compile(r"\s*(https?|data|[\w+.-]+(?=://)):", re.IGNORECASE)
_HOST = re.compile(r"https?://(?:[^/?#]*@)?(\[[^\]/?#]*\]|[^/?#:]*)", re.IGNORECASE)
_SEVERAL = re.compile(r"\S[,;|\s]\s*(?:https?://|data:)", re.IGNORECASE)
_NOT_IN_URL = re.compile(r"[\s\x00-\x1f\x7f]")
_PRIVATE = re.compile(
    r"[^.]*|.*\.(localhost|local|localdomain|internal|lan|home\.arpa|test)", re.IGNORECASE
)
_ADDRESS = re.compile(r"(.*\.)?(0x[0-9a-f]*|[0-9]+)", re.IGNORECASE)  # as browsers read a host
_DATA = re.compile(r"data:([^,;]*)(?:;[^,;]*?)*?(;base64)?,", re.IGNORECASE)
# image/jpg is not registered, but common, and the service may accept it.
_IMAGE = re.compile("image/(?:jpeg|jpg|png|webp)", re.IGNORECASE)
_BASE64 = re.compile("[A-Za-z0-9+/]++={0,2}")


@runtime_checkable
class BinaryFile(Protocol):
    """An open file of bytes."""

    def read(self, size: int = ..., /) -> bytes:
        """Read at most *size* bytes."""
        ...


@runtime_checkable
class MediaOutput(Protocol):
    """A result of an earlier task: an :class:`~aireiter_async.Output`."""

    @property
    def url(self) -> str | None:
        """The URL of the medium."""
        ...

    @property
    def out_task_id(self) -> str | None:
        """The ID of the task."""
        ...

    @property
    def number(self) -> int:
        """Position among the task's outputs, from 1."""
        ...


Source: TypeAlias = Path | bytes | BinaryFile | MediaOutput
Media: TypeAlias = str | Source


@attrs.frozen
class LocalMedia:
    """A media value that must be converted to a URL before the request is sent.

    Attributes:
        param: The parameter.
        index: The index in an array, from 0; None for a single value.
        source: The value. An output becomes its URL, anything else a data URL.
        accepts: The forms that the parameter accepts.
        max_bytes: The maximum size of a data URL, None if undocumented.
    """

    param: str
    index: int | None
    source: Source
    accepts: Accepts
    max_bytes: int | None

    def __str__(self) -> str:
        return self.param if self.index is None else f"{self.param}[{self.index}]"


@attrs.frozen
class Url(Limit):
    """The URL of a medium, or a local medium if data URLs are accepted.

    Attributes:
        accepts: The documented forms; "url or data" if none are documented.
        max_bytes: The maximum size of a data URL.
        many: Whether the parameter takes an array.
    """

    accepts: Accepts
    max_bytes: int | None = None
    many: bool = False

    def facts(self) -> dict[str, Any]:
        return {"accepts": self.accepts, "max_bytes": self.max_bytes}

    @property
    def phrase(self) -> str:
        image = "a whole data URI (data:image/<jpeg|png|webp>;base64,...)"
        form = {
            "url": "a public http(s) URL",
            "url or data": "a public http(s) URL or a data URI",
            "url or image data": f"a public http(s) URL or {image}",
            "url, image data or base64": f"a public http(s) URL, {image} or bare base64",
        }[self.accepts]
        size = "" if self.max_bytes is None else f" of at most {self.max_bytes // MEGABYTE} MB"
        return f"{form}{size}"

    def local(self, param: str, index: int | None, source: Source) -> LocalMedia:
        return LocalMedia(param, index, source, self.accepts, self.max_bytes)

    def allows(self, value: object, /) -> bool:
        return self._advice(value) is None

    def shown(self, value: object, /) -> str:
        return f"{short(value)}; {self._advice(value)}"

    def _advice(self, value: object) -> str | None:
        """Return advice on an invalid *value*, or None if it is valid."""
        if not isinstance(value, str):
            return self._advice_on_source(value)
        match = _SCHEME.match(value)
        scheme = "" if match is None else match[1].lower()
        if scheme in ("http", "https"):
            return self._advice_on_url(value)
        if scheme == "data":
            return self._advice_on_data(value)
        if self.accepts == "url, image data or base64" and _is_base64(value, 0):
            return self._advice_on_size(len(value))
        if scheme not in ("", "file"):
            return "the service fetches only http and https: pass a signed https URL"
        return _UPLOAD if self.accepts == "url" else _PATH

    def _advice_on_url(self, url: str) -> str | None:
        if _SEVERAL.search(url):
            return _SEVERAL_URLS if self.many else "it takes a single URL"
        if _NOT_IN_URL.search(url):
            return "percent-encode whitespace in a URL (a space is %20)"
        match = _HOST.match(url)
        host = "" if match is None else match[1]
        if not host:
            return "it names no host"
        if not _is_public(host):
            return f"the service cannot reach {short(host)}: pass a URL that is public"
        return None

    def _advice_on_data(self, value: str) -> str | None:
        if self.accepts == "url":
            return _UPLOAD
        head = _DATA.match(value)
        if head is None or head.end() == len(value):
            return "write it as data:TYPE;base64,DATA"
        if self.accepts != "url or data" and not (head[2] and _IMAGE.fullmatch(head[1])):
            return "encode the image as JPEG, PNG or WebP, in base64"
        if head[2] and not _is_base64(value, head.end()):
            return "it is not valid base64: check for line breaks, truncation or another alphabet"
        return self._advice_on_size(len(value))

    def _advice_on_size(self, size: int) -> str | None:
        if self.max_bytes is None or size <= self.max_bytes:
            return None
        return (
            f"as a data URL it has {size / 1e6:.1f} MB: shrink it, "
            "for example with aireiter_async.data_url(path, max_side=1280)"
        )

    def _advice_on_source(self, value: object) -> str | None:
        if isinstance(value, MediaOutput):
            return None if value.url else "this output has no URL"
        if not isinstance(value, Path | bytes | BinaryFile):
            if isinstance(value, bytearray | memoryview):
                return "convert it to bytes"
            return conversion_hint(value) or f"pass {_FORMS[self.accepts == 'url']}"
        if self.accepts == "url":
            return _UPLOAD
        if isinstance(value, bytes):
            return None if value else "it is empty"  # if too large, the client may shrink it
        return _advice_on_file(value) if isinstance(value, BinaryFile) else None


_UPLOAD: Final = "this parameter takes URLs only: upload the file and pass its URL"
_PATH: Final = "a str is never opened as a file: pass a pathlib.Path to send a local file"
_SEVERAL_URLS: Final = "for several, repeat the parameter or write a JSON array"
_FORMS: Final = (
    "a str, a pathlib.Path, bytes, an open binary file or an Output",
    "a str or an Output",
)


def _advice_on_file(file: BinaryFile) -> str | None:
    if hasattr(file, "encoding"):
        return "open the file in binary mode"
    if iscoroutinefunction(file.read):
        return "its read() is asynchronous: read it and pass the bytes"
    return None


def _is_public(host: str) -> bool:
    """Return whether *host* is publicly reachable, judged by its name."""
    host = host.removesuffix(".")
    if host.startswith("[") or _ADDRESS.fullmatch(host):
        try:
            address = ip_address(host.strip("[]"))
        except ValueError:  # such as 127.1, which resolvers read as 127.0.0.1
            return False
        return (getattr(address, "ipv4_mapped", None) or address).is_global
    return _PRIVATE.fullmatch(host) is None


def _is_base64(value: str, start: int) -> bool:
    return (len(value) - start) % 4 == 0 and _BASE64.fullmatch(value, start) is not None
