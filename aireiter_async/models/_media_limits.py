"""Limits of media: the size of a picture, the form of a reference."""

import re
from typing import Literal

import attrs

from aireiter_async.models._limits import Limit

# The generous reading of "MB": what is near the limit is the service's to judge.
MEGABYTE = 1024 * 1024

_HTTP = re.compile(r"https?://[^\s/]", re.IGNORECASE)
_DATA = re.compile("data:.", re.IGNORECASE)
# image/jpg is no registered type, but a common slip that the service may well let pass.
_IMAGE = re.compile("data:image/(?:jpeg|jpg|png|webp);base64,(?=.)", re.IGNORECASE)
_BASE64 = re.compile(r"[\w+/=\s-]{1,64}", re.ASCII)
_SIZE = re.compile("([0-9]{1,9})x([0-9]{1,9})")


@attrs.frozen(kw_only=True)
class Size(Limit):
    """Exact pixels as text, width x height."""

    min_pixels: int
    max_pixels: int
    multiple_of: int | None = None
    max_side: int | None = None
    max_ratio: int | None = None

    @property
    def phrase(self) -> str:
        """Name all limits at once: mending one should not break another."""
        limits = [f"{self.min_pixels} to {self.max_pixels} pixels in all"]
        if self.multiple_of is not None:
            limits.append(f"both sides multiples of {self.multiple_of}")
        if self.max_side is not None:
            limits.append(f"no side over {self.max_side}")
        if self.max_ratio is not None:
            limits.append(f"no side more than {self.max_ratio} times the other")
        return f"WIDTHxHEIGHT such as '1024x1024', {', '.join(limits)}"

    def allows(self, value: str, /) -> bool:
        """Multiply, divide and compare."""
        sides = _SIZE.fullmatch(value)
        if sides is None:
            return False
        shorter, longer = sorted(map(int, sides.groups()))
        return (
            self.min_pixels <= shorter * longer <= self.max_pixels
            and shorter % (self.multiple_of or 1) == longer % (self.multiple_of or 1) == 0
            and (self.max_side is None or longer <= self.max_side)
            and (self.max_ratio is None or longer <= self.max_ratio * shorter)
        )


@attrs.frozen
class Url(Limit):
    """A reference to media, judged without fetching it.

    Attributes:
        accepts: The forms that the documentation names; "url or data" where it names none.
        max_bytes: The most that an image inside the value itself may have, once decoded.
    """

    accepts: Literal["url", "url or data", "url or image data", "url, image data or base64"]
    max_bytes: int | None = None

    @property
    def phrase(self) -> str:
        """Name the forms, and the largest size."""
        image = "a whole data URI (data:image/<jpeg|png|webp>;base64,...)"
        form = {
            "url": "a public http(s) URL",
            "url or data": "a public http(s) URL or a data URI",
            "url or image data": f"a public http(s) URL or {image}",
            "url, image data or base64": f"a public http(s) URL, {image} or bare base64",
        }[self.accepts]
        size = "" if self.max_bytes is None else f" of at most {self.max_bytes // MEGABYTE} MB"
        return f"{form}{size}"

    def allows(self, value: str, /) -> bool:
        """Look at the beginning and, for media in the value, the length."""
        if _HTTP.match(value):
            return True
        if self.accepts == "url":
            return False
        if self.accepts == "url or data":
            return _DATA.match(value) is not None
        image = _IMAGE.match(value)
        if image is None and not (
            self.accepts == "url, image data or base64" and _BASE64.fullmatch(value, 0, 64)
        ):
            return False
        base64 = len(value) - (image.end() if image else 0)
        return self.max_bytes is None or base64 * 3 // 4 - value.count("=", -2) <= self.max_bytes
