"""Images by Midjourney, up to four per task."""

from typing import Annotated, Literal

from aireiter_async.models._base import Model, shared_fields
from aireiter_async.models._declare import model
from aireiter_async.models._markers import Default, Doc, Items
from aireiter_async.models._rules import hd_is_fast
from aireiter_async.models._vocabulary import Images

_FLAGS = Doc("Text prompt with Midjourney's flags: --ar 16:9 --s 250 --chaos 10 --no text")
_ORIGINAL = Doc("Image to change")


@shared_fields
class _Generation(Model):
    prompt: Annotated[str, _FLAGS]
    image_url: Annotated[Images | None, Items(1)] = None


@shared_fields
class _RemoveBg(Model):
    image_url: Annotated[Images, Items(1, 1), _ORIGINAL]


@shared_fields
class _Retexture(_RemoveBg):
    prompt: Annotated[str, _FLAGS]


@model("mj_v7", medium="image", doc="images/midjourney-v7/generation")
class MJV7(_Generation):
    """Midjourney 7: images from text, or from one image."""

    speed: Annotated[Literal["draft", "fast", "turbo"] | None, Default("fast")] = None


@model("mj_v7_retexture", medium="image", doc="images/midjourney-v7/retexture")
class MJV7Retexture(_Retexture):
    """Midjourney 7 Retexture: an image in another style."""

    speed: Annotated[Literal["fast", "turbo"] | None, Default("fast")] = None


@model("mj_v7_remove_bg", medium="image", doc="images/midjourney-v7/remove-bg")
class MJV7RemoveBg(_RemoveBg):
    """Midjourney 7 Remove Background: the subject of an image without its background."""


@model("mj_v8_1", medium="image", doc="images/midjourney-v8-1/generation", rules=(hd_is_fast,))
class MJV81(_Generation):
    """Midjourney 8.1: images from text, or from one image."""

    speed: Annotated[Literal["draft", "fast"] | None, Default("fast")] = None
    quality: Annotated[Literal["standard", "hd"] | None, Default("standard")] = None


@model("mj_v8_1_retexture", medium="image", doc="images/midjourney-v8-1/retexture")
class MJV81Retexture(_Retexture):
    """Midjourney 8.1 Retexture: an image in another style."""


@model("mj_v8_1_remove_bg", medium="image", doc="images/midjourney-v8-1/remove-bg")
class MJV81RemoveBg(_RemoveBg):
    """Midjourney 8.1 Remove Background: the subject of an image without its background."""
