"""Images by the GPT models."""

from typing import Annotated, Literal

from aireiter_async.models._base import Model, shared_fields
from aireiter_async.models._declare import model
from aireiter_async.models._markers import Default, Doc, Items, Size
from aireiter_async.models._rules import four_k_is_not_square, size_or_ratio
from aireiter_async.models._vocabulary import AnyRatio, Image, Images, ImagesOfAnySize


@model(
    "gpt_4o", medium="image", doc="images/gpt-4o/generation", channels=("base", "plus", "advanced")
)
class GPT4o(Model):
    """GPT-4o: an image from text, or from one image."""

    prompt: str
    image_url: Image | None = None
    aspect_ratio: Literal["1:1", "3:2", "2:3"] | None = None


@model("gpt_image_1_5", medium="image", doc="images/gpt-image-1-5/generation")
class GPTImage15(Model):
    """GPT Image 1.5: an image from text, or from up to 16 images."""

    prompt: str
    image_url: Annotated[Images | None, Items(16)] = None
    aspect_ratio: Annotated[Literal["1:1", "3:2", "2:3"] | None, Default("1:1")] = None
    quality: Annotated[Literal["medium", "high"] | None, Default("medium")] = None


@shared_fields
class _SizedImage(Model):
    prompt: str
    image_url: Annotated[ImagesOfAnySize | None, Items(10)] = None
    resolution: Annotated[Literal["1K", "2K", "4K"] | None, Default("1K")] = None


@model("gpt_image_2", medium="image", doc="images/gpt-image-2/generation", rules=(size_or_ratio,))
class GPTImage2(_SizedImage):
    """GPT Image 2: an image from text, or from up to 10 images."""

    aspect_ratio: Annotated[
        Literal["auto", AnyRatio] | None,
        Default("auto"),
        Doc("Width to height; 4K defaults to 16:9"),
    ] = None
    size: Annotated[
        str | None,
        Size(min_pixels=655_360, max_pixels=8_294_400),
        Doc("Exact size in pixels; below 2088960 in all the output has about 1.57 million"),
    ] = None


@model(
    "gpt_image_2_official",
    medium="image",
    doc="images/gpt-image-2-official/generation",
    rules=(four_k_is_not_square,),
)
class GPTImage2Official(Model):
    """GPT Image 2 Official: an image from text, or from up to 9 images."""

    prompt: str
    aspect_ratio: Annotated[AnyRatio | None, Default("1:1")] = None
    resolution: Annotated[Literal["1K", "2K", "4K"] | None, Default("1K")] = None
    quality: Annotated[Literal["low", "medium", "high"] | None, Default("low")] = None
    image_url: Annotated[ImagesOfAnySize | None, Items(9)] = None


@model(
    "gpt_image_2_5_flare",
    medium="image",
    doc="images/gpt-image-2-5/generation",
    variants=("gpt_image_2_5_sunburst",),
    rules=(size_or_ratio,),
)
class GPTImage25Flare(_SizedImage):
    """GPT Image 2.5 Flare, or Sunburst: an image from text or images."""

    aspect_ratio: Annotated[Literal["auto", AnyRatio] | None, Default("auto")] = None
    size: Annotated[
        str | None,
        Size(min_pixels=655_360, max_pixels=8_294_400, multiple_of=16, max_side=3840, max_ratio=3),
    ] = None
    background: Annotated[
        Literal["auto", "opaque", "transparent"] | None,
        Default("auto"),
        Doc("What is behind the subject; transparent gives a PNG with alpha"),
    ] = None
