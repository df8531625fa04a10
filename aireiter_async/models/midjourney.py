"""Images by Midjourney, up to four for each task."""

from typing import Annotated, Literal

from aireiter_async.models._base import Model
from aireiter_async.models._declare import model
from aireiter_async.models._limits import Items
from aireiter_async.models._markers import Default, Doc
from aireiter_async.models._rules import hd_is_fast
from aireiter_async.models._vocabulary import Images

_FLAGS = Doc(
    "What to make, in words and Midjourney's flags: --ar 16:9 --s 250 --chaos 10 --no text"
)
_ORIGINAL = Doc("The image to change")

_OneImage = Annotated[Images, Items(1, 1), _ORIGINAL]


@model
class MJV7(Model):
    """Midjourney 7: images from text, or from one image."""

    MODEL = "mj_v7"
    MEDIUM = "image"
    DOC = "https://docs.aireiter.com/en/api-reference/images/midjourney-v7/generation"

    prompt: Annotated[str, _FLAGS]
    speed: Annotated[Literal["draft", "fast", "turbo"] | None, Default("fast")] = None
    image_url: Annotated[Images | None, Items(1)] = None


@model
class MJV7Retexture(Model):
    """Midjourney 7 Retexture: an image in another style."""

    MODEL = "mj_v7_retexture"
    MEDIUM = "image"
    DOC = "https://docs.aireiter.com/en/api-reference/images/midjourney-v7/retexture"

    image_url: _OneImage
    prompt: Annotated[str, _FLAGS]
    speed: Annotated[Literal["fast", "turbo"] | None, Default("fast")] = None


@model
class MJV7RemoveBg(Model):
    """Midjourney 7 Remove Background: the subject of an image alone."""

    MODEL = "mj_v7_remove_bg"
    MEDIUM = "image"
    DOC = "https://docs.aireiter.com/en/api-reference/images/midjourney-v7/remove-bg"

    image_url: _OneImage


@model
class MJV81(Model):
    """Midjourney 8.1: images from text, or from one image."""

    MODEL = "mj_v8_1"
    MEDIUM = "image"
    DOC = "https://docs.aireiter.com/en/api-reference/images/midjourney-v8-1/generation"
    RULES = (hd_is_fast,)

    prompt: Annotated[str, _FLAGS]
    speed: Annotated[Literal["draft", "fast"] | None, Default("fast")] = None
    quality: Annotated[Literal["standard", "hd"] | None, Default("standard")] = None
    image_url: Annotated[Images | None, Items(1)] = None


@model
class MJV81Retexture(Model):
    """Midjourney 8.1 Retexture: an image in another style."""

    MODEL = "mj_v8_1_retexture"
    MEDIUM = "image"
    DOC = "https://docs.aireiter.com/en/api-reference/images/midjourney-v8-1/retexture"

    image_url: _OneImage
    prompt: Annotated[str, _FLAGS]


@model
class MJV81RemoveBg(Model):
    """Midjourney 8.1 Remove Background: the subject of an image alone."""

    MODEL = "mj_v8_1_remove_bg"
    MEDIUM = "image"
    DOC = "https://docs.aireiter.com/en/api-reference/images/midjourney-v8-1/remove-bg"

    image_url: _OneImage
