"""Images: Nano Banana, Wan, Flux, Grok, Krea, Qwen, Z-Image."""

from collections.abc import Sequence
from typing import Annotated, Literal

from aireiter_async.models._base import Model, shared_fields
from aireiter_async.models._declare import model
from aireiter_async.models._markers import (
    Array,
    Default,
    Deprecated,
    Doc,
    Items,
    Length,
    NotBlank,
    OnlyWhen,
    Range,
)
from aireiter_async.models._media import MEGABYTE, Url
from aireiter_async.models._rules import agent_from_text_only
from aireiter_async.models._vocabulary import Images, ImagesOfAnySize, PhotoRatio, PrintRatio


@model(
    "nano_banana",
    medium="image",
    doc="images/nano-banana/generation",
    channels=("base", "plus", "max"),
)
class NanoBanana(Model):
    """Nano Banana: an image from text, or from up to 9 images."""

    prompt: str
    image_url: Annotated[Images | None, Items(9)] = None
    aspect_ratio: Literal["auto", PrintRatio, "21:9"] | None = None


@shared_fields
class _NanoBanana(Model):
    prompt: str
    image_url: Annotated[Images | None, Items(8)] = None
    aspect_ratio: Literal["auto", PrintRatio, "21:9"] | None = None
    resolution: Annotated[Literal["1K", "2K", "4K"] | None, Default("1K")] = None


@model(
    "nano_banana_pro",
    medium="image",
    doc="images/gemini-3-pro/generation",
    channels=("base", "plus", "advanced", "max"),
)
class NanoBananaPro(_NanoBanana):
    """Nano Banana Pro: an image from text, or from up to 8 images."""

    format: Annotated[Literal["png", "jpg"] | None, Default("png"), Deprecated()] = None


@model(
    "nano_banana_v2",
    medium="image",
    doc="images/nano-banana-v2/generation",
    channels=("base", "plus", "max"),
)
class NanoBananaV2(_NanoBanana):
    """Nano Banana 2: an image from text, or from up to 8 images."""


@model("nano_banana_v2_1", medium="image", doc="images/nano-banana-2-1/generation")
class NanoBananaV21(_NanoBanana):
    """Nano Banana 2.1: an image from text, or from up to 10 images."""

    image_url: Annotated[Images | None, Items(10)] = None


@model("wan2_7_image_pro", medium="image", doc="images/wan2-7-image-pro/generation")
class Wan27ImagePro(Model):
    """Wan 2.7 Image Pro: images from text, or from images."""

    prompt: str
    image_url: ImagesOfAnySize | None = None
    aspect_ratio: Annotated[Literal["auto", PhotoRatio] | None, Default("auto")] = None
    resolution: Annotated[Literal["1K", "2K", "4K"] | None, Default("2K")] = None
    output_n: Annotated[Literal["1", "2", "4"] | int | None, Default("1")] = None


@model("flux_2_pro", medium="image", doc="images/flux-2-pro/generation")
class Flux2Pro(Model):
    """Flux 2 Pro: an image from text, or from up to 8 images."""

    prompt: Annotated[str, Length(5000)]
    image_url: Annotated[Images | None, Items(8)] = None
    aspect_ratio: Annotated[PhotoRatio | None, Default("1:1")] = None
    resolution: Annotated[Literal["1K", "2K"] | None, Default("1K")] = None


@model("grok_imagine_image_2_0", medium="image", doc="images/grok-imagine-image-2-0/generation")
class GrokImagineImage20(Model):
    """Grok Imagine Image 2.0: images from text, or from up to 3 images."""

    prompt: Annotated[str, Doc("What to make, in words; cites images as <IMAGE_0>, <IMAGE_1>")]
    image_url: Annotated[
        str | Sequence[str] | None,
        Array(),
        Items(3),
        Url("url, image data or base64", 10 * MEGABYTE),
    ] = None
    aspect_ratio: Annotated[
        Literal["auto", PhotoRatio, "2:1", "1:2", "19.5:9", "9:19.5", "20:9", "9:20"] | None,
        Default("auto"),
    ] = None
    resolution: Annotated[Literal["1K", "2K"] | None, Default("1K")] = None
    quality: Annotated[Literal["low", "medium"] | None, Default("medium")] = None
    output_n: Annotated[int | None, Range(1, 10), Default(1)] = None


@model("grok_imagine_2_0_ext", medium="image", doc="images/grok-imagine-2-0-ext/generation")
class GrokImagine20Ext(Model):
    """Grok Imagine 2.0 Ext: images from text."""

    prompt: Annotated[str, NotBlank()]
    aspect_ratio: Annotated[PhotoRatio | None, Default("1:1")] = None
    output_n: Annotated[int | None, Range(1, 12), Default(1)] = None


@model("krea_2_turbo", medium="image", doc="images/krea-2-turbo/generation")
class Krea2Turbo(Model):
    """Krea 2 Turbo: an image from text."""

    prompt: Annotated[str, Doc("What to make, in words, best in English; up to 640 tokens")]
    aspect_ratio: Literal[PrintRatio, "2:1", "1:2"] | None = None
    resolution: Annotated[Literal["1K", "2K"] | None, Default("1K")] = None
    seed: Annotated[
        int | None, Range(0, 1_048_576), Doc("Seed of the random numbers; 0 draws one")
    ] = None


@shared_fields
class _QwenImage3(Model):
    prompt: str
    image_url: Annotated[Images | None, Items(3)] = None
    resolution: Annotated[Literal["1K", "2K"] | None, Default("1K")] = None
    aspect_ratio: Annotated[PhotoRatio | None, Default("1:1")] = None
    output_n: Annotated[int | None, Range(1, 6), Default(1)] = None
    prompt_extend: Annotated[bool | None, Default(default=False)] = None
    prompt_extend_mode: Annotated[
        Literal["direct", "agent"] | None, OnlyWhen("prompt_extend", (True,)), Default("direct")
    ] = None
    negative_prompt: str | None = None


@model(
    "qwen_image_3",
    medium="image",
    doc="images/qwen-image-3/generation",
    rules=(agent_from_text_only,),
)
class QwenImage3(_QwenImage3):
    """Qwen Image 3: images from text, or from up to 3 images."""


@model(
    "qwen_image_3_pro",
    medium="image",
    doc="images/qwen-image-3-pro/generation",
    rules=(agent_from_text_only,),
)
class QwenImage3Pro(_QwenImage3):
    """Qwen Image 3 Pro: images from text, or from up to 3 images."""


@model("z_image_turbo", medium="image", doc="images/z-image-turbo/generation")
class ZImageTurbo(Model):
    """Z-Image Turbo: an image from text."""

    prompt: Annotated[str, Length(2000)]
    aspect_ratio: Annotated[Literal[PhotoRatio, "2:1", "1:2"] | None, Default("1:1")] = None
    seed: Annotated[int | None, Range(1, 2_147_483_647)] = None
