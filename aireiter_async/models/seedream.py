"""Images by the Seedream models."""

from typing import Annotated, Literal

from aireiter_async.models._base import Model, shared_fields
from aireiter_async.models._declare import model
from aireiter_async.models._markers import Array, Default, Doc, Items, Size
from aireiter_async.models._vocabulary import (
    Image,
    Images,
    PhotoRatio,
    PrintRatio,
    PublicUrls,
    ScreenRatio,
)


@shared_fields
class _Seedream(Model):
    prompt: str
    image_url: Annotated[Images | None, Items(9)] = None


@shared_fields
class _SeedreamV5(_Seedream):
    aspect_ratio: Literal[PhotoRatio, "21:9"] | None = None
    resolution: Annotated[Literal["2K", "3K"] | None, Default("2K")] = None
    output_format: Annotated[Literal["jpeg", "png"] | None, Default("jpeg")] = None
    web_search: Annotated[bool | None, Default(default=False)] = None


@model("seedream_v4", medium="image", doc="images/seedream-4/generation")
class SeedreamV4(_Seedream):
    """Seedream 4: images from text, or from up to 9 images."""

    aspect_ratio: ScreenRatio | None = None
    resolution: Annotated[Literal["1K", "2K", "4K"] | None, Default("1K")] = None
    output_n: Annotated[Literal["1", "2", "4"] | int | None, Default("1")] = None


@model("seedream_v4_5", medium="image", doc="images/seedream-4.5/generation")
class SeedreamV45(_Seedream):
    """Seedream 4.5: an image from text, or from up to 9 images."""

    aspect_ratio: Literal[PrintRatio, "21:9"] | None = None
    resolution: Annotated[Literal["basic", "high"] | None, Default("basic")] = None


@model("seedream_v5", medium="image", doc="images/seedream-v5-lite/seedream-5.0/generation")
class SeedreamV5(_SeedreamV5):
    """Seedream 5, now Lite: an image from text, or from up to 9 images."""

    image_url: Annotated[PublicUrls | None, Array(), Items(9)] = None


@model("seedream_v5_lite", medium="image", doc="images/seedream-v5-lite/generation")
class SeedreamV5Lite(_SeedreamV5):
    """Seedream 5 Lite: an image from text, or from up to 9 images."""


@model("seedream_v5_pro", medium="image", doc="images/seedream-v5-pro/generation")
class SeedreamV5Pro(_Seedream):
    """Seedream 5 Pro: an image from text, or from up to 10 images."""

    image_url: Annotated[Images | None, Items(10)] = None
    aspect_ratio: Annotated[
        Literal[PhotoRatio, "21:9"] | None, Doc("Width to height; ignored with a size")
    ] = None
    resolution: Annotated[Literal["1K", "2K"] | None, Default("1K")] = None
    size: Annotated[
        str | None,
        Size(min_pixels=921_600, max_pixels=4_194_304, multiple_of=16, max_ratio=16),
        Doc("Exact size in pixels, instead of ratio and resolution"),
    ] = None


@model("seedream_v5_pro_layerize", medium="image", doc="images/seedream-v5-pro-layerize/generation")
class SeedreamV5ProLayerize(Model):
    """Seedream 5 Pro Layerize: an image in layers, charged afterwards."""

    image_url: Annotated[Image, Doc("The image to take apart, at least 300 pixels a side")]
    prompt: Annotated[str | None, Doc("In what language to name the layers, in words")] = None
    image_size: Annotated[
        Literal["auto", "auto_1K", "auto_1.5K", "auto_2K"] | None,
        Default("auto"),
        Doc("Size of the layers"),
    ] = None
    enhance_prompt_mode: Annotated[
        Literal["standard", "fast"] | None,
        Default("standard"),
        Doc("How the prompt is written out"),
    ] = None
