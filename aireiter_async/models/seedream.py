"""Images by the Seedream models."""

from collections.abc import Sequence
from typing import Annotated, Literal

from aireiter_async.models._base import Model
from aireiter_async.models._declare import model
from aireiter_async.models._limits import Items
from aireiter_async.models._markers import Array, Default, Doc
from aireiter_async.models._media_limits import Size, Url
from aireiter_async.models._vocabulary import Image, Images, PhotoRatio, PrintRatio, ScreenRatio


@model
class SeedreamV4(Model):
    """Seedream 4: images from text, or from up to 9 images."""

    MODEL = "seedream_v4"
    MEDIUM = "image"
    DOC = "https://docs.aireiter.com/en/api-reference/images/seedream-4/generation"

    prompt: str
    image_url: Annotated[Images | None, Items(9)] = None
    aspect_ratio: ScreenRatio | None = None
    resolution: Annotated[Literal["1K", "2K", "4K"] | None, Default("1K")] = None
    output_n: Annotated[Literal["1", "2", "4"] | None, Default("1")] = None


@model
class SeedreamV45(Model):
    """Seedream 4.5: an image from text, or from up to 9 images."""

    MODEL = "seedream_v4_5"
    MEDIUM = "image"
    DOC = "https://docs.aireiter.com/en/api-reference/images/seedream-4.5/generation"

    prompt: str
    image_url: Annotated[Images | None, Items(9)] = None
    aspect_ratio: Literal[PrintRatio, "21:9"] | None = None
    resolution: Annotated[Literal["basic", "high"] | None, Default("basic")] = None


@model
class SeedreamV5(Model):
    """Seedream 5, now Lite: an image from text, or from up to 9 images."""

    MODEL = "seedream_v5"
    MEDIUM = "image"
    DOC = (
        "https://docs.aireiter.com/en/api-reference/images/seedream-v5-lite/seedream-5.0/generation"
    )

    prompt: str
    image_url: Annotated[str | Sequence[str] | None, Array(), Items(9), Url("url")] = None
    aspect_ratio: Literal[PhotoRatio, "21:9"] | None = None
    resolution: Annotated[Literal["2K", "3K"] | None, Default("2K")] = None
    output_format: Annotated[Literal["jpeg", "png"] | None, Default("jpeg")] = None
    web_search: Annotated[bool | None, Default(default=False)] = None


@model
class SeedreamV5Lite(Model):
    """Seedream 5 Lite: an image from text, or from up to 9 images."""

    MODEL = "seedream_v5_lite"
    MEDIUM = "image"
    DOC = "https://docs.aireiter.com/en/api-reference/images/seedream-v5-lite/generation"

    prompt: str
    image_url: Annotated[Images | None, Items(9)] = None
    aspect_ratio: Literal[PhotoRatio, "21:9"] | None = None
    resolution: Annotated[Literal["2K", "3K"] | None, Default("2K")] = None
    output_format: Annotated[Literal["jpeg", "png"] | None, Default("jpeg")] = None
    web_search: Annotated[bool | None, Default(default=False)] = None


@model
class SeedreamV5Pro(Model):
    """Seedream 5 Pro: an image from text, or from up to 10 images."""

    MODEL = "seedream_v5_pro"
    MEDIUM = "image"
    DOC = "https://docs.aireiter.com/en/api-reference/images/seedream-v5-pro/generation"

    prompt: str
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


@model
class SeedreamV5ProLayerize(Model):
    """Seedream 5 Pro Layerize: an image in layers, paid afterwards."""

    MODEL = "seedream_v5_pro_layerize"
    MEDIUM = "image"
    DOC = "https://docs.aireiter.com/en/api-reference/images/seedream-v5-pro-layerize/generation"

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
