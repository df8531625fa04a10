"""Images: Nano Banana, Wan, Flux, Grok, Krea, Qwen, Z-Image."""

from collections.abc import Sequence
from typing import Annotated, Literal

from aireiter_async.models._base import Model
from aireiter_async.models._declare import model
from aireiter_async.models._limits import Items, Length, NotBlank, Range
from aireiter_async.models._markers import Array, Default, Deprecated, Doc, OnlyWhen
from aireiter_async.models._media_limits import MEGABYTE, Url
from aireiter_async.models._rules import agent_from_text_only
from aireiter_async.models._vocabulary import (
    Images,
    ImagesOfAnySize,
    PhotoRatio,
    PrintRatio,
)


@model
class NanoBanana(Model):
    """Nano Banana: an image from text, or from up to 9 images."""

    MODEL = "nano_banana"
    VARIANTS = ("nano_banana", "nano_banana_base", "nano_banana_plus", "nano_banana_max")
    MEDIUM = "image"
    DOC = "https://docs.aireiter.com/en/api-reference/images/nano-banana/generation"

    prompt: str
    image_url: Annotated[Images | None, Items(9)] = None
    aspect_ratio: Literal["auto", PrintRatio, "21:9"] | None = None


@model
class NanoBananaPro(Model):
    """Nano Banana Pro: an image from text, or from up to 8 images."""

    MODEL = "nano_banana_pro"
    VARIANTS = (
        "nano_banana_pro",
        "nano_banana_pro_base",
        "nano_banana_pro_plus",
        "nano_banana_pro_advanced",
        "nano_banana_pro_max",
    )
    MEDIUM = "image"
    DOC = "https://docs.aireiter.com/en/api-reference/images/gemini-3-pro/generation"

    prompt: str
    image_url: Annotated[Images | None, Items(8)] = None
    aspect_ratio: Literal["auto", PrintRatio, "21:9"] | None = None
    resolution: Annotated[Literal["1K", "2K", "4K"] | None, Default("1K")] = None
    format: Annotated[Literal["png", "jpg"] | None, Default("png"), Deprecated()] = None


@model
class NanoBananaV2(Model):
    """Nano Banana 2: an image from text, or from up to 8 images."""

    MODEL = "nano_banana_v2"
    VARIANTS = (
        "nano_banana_v2",
        "nano_banana_v2_base",
        "nano_banana_v2_plus",
        "nano_banana_v2_max",
    )
    MEDIUM = "image"
    DOC = "https://docs.aireiter.com/en/api-reference/images/nano-banana-v2/generation"

    prompt: str
    image_url: Annotated[Images | None, Items(8)] = None
    aspect_ratio: Literal["auto", PrintRatio, "21:9"] | None = None
    resolution: Annotated[Literal["1K", "2K", "4K"] | None, Default("1K")] = None


@model
class NanoBananaV21(Model):
    """Nano Banana 2.1: an image from text, or from up to 10 images."""

    MODEL = "nano_banana_v2_1"
    MEDIUM = "image"
    DOC = "https://docs.aireiter.com/en/api-reference/images/nano-banana-2-1/generation"

    prompt: str
    image_url: Annotated[Images | None, Items(10)] = None
    aspect_ratio: Literal["auto", PrintRatio, "21:9"] | None = None
    resolution: Annotated[Literal["1K", "2K", "4K"] | None, Default("1K")] = None


@model
class Wan27ImagePro(Model):
    """Wan 2.7 Image Pro: images from text, or from images."""

    MODEL = "wan2_7_image_pro"
    MEDIUM = "image"
    DOC = "https://docs.aireiter.com/en/api-reference/images/wan2-7-image-pro/generation"

    prompt: str
    image_url: ImagesOfAnySize | None = None
    aspect_ratio: Annotated[Literal["auto", PhotoRatio] | None, Default("auto")] = None
    resolution: Annotated[Literal["1K", "2K", "4K"] | None, Default("2K")] = None
    output_n: Annotated[Literal["1", "2", "4"] | None, Default("1")] = None


@model
class Flux2Pro(Model):
    """Flux 2 Pro: an image from text, or from up to 8 images."""

    MODEL = "flux_2_pro"
    MEDIUM = "image"
    DOC = "https://docs.aireiter.com/en/api-reference/images/flux-2-pro/generation"

    prompt: Annotated[str, Length(5000)]
    image_url: Annotated[Images | None, Items(8)] = None
    aspect_ratio: Annotated[PhotoRatio | None, Default("1:1")] = None
    resolution: Annotated[Literal["1K", "2K"] | None, Default("1K")] = None


@model
class GrokImagineImage20(Model):
    """Grok Imagine Image 2.0: images from text, or from up to 3 images."""

    MODEL = "grok_imagine_image_2_0"
    MEDIUM = "image"
    DOC = "https://docs.aireiter.com/en/api-reference/images/grok-imagine-image-2-0/generation"

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


@model
class GrokImagine20Ext(Model):
    """Grok Imagine 2.0 Ext: images from text."""

    MODEL = "grok_imagine_2_0_ext"
    MEDIUM = "image"
    DOC = "https://docs.aireiter.com/en/api-reference/images/grok-imagine-2-0-ext/generation"

    prompt: Annotated[str, NotBlank()]
    aspect_ratio: Annotated[PhotoRatio | None, Default("1:1")] = None
    output_n: Annotated[int | None, Range(1, 12), Default(1)] = None


@model
class Krea2Turbo(Model):
    """Krea 2 Turbo: an image from text."""

    MODEL = "krea_2_turbo"
    MEDIUM = "image"
    DOC = "https://docs.aireiter.com/en/api-reference/images/krea-2-turbo/generation"

    prompt: Annotated[str, Doc("What to make, in words, best in English; up to 640 tokens")]
    aspect_ratio: Literal[PrintRatio, "2:1", "1:2"] | None = None
    resolution: Annotated[Literal["1K", "2K"] | None, Default("1K")] = None
    seed: Annotated[
        int | None, Range(0, 1_048_576), Doc("Seed of the random numbers; 0 draws one")
    ] = None


@model
class _QwenImage3(Model):
    """What the Qwen Image 3 models share."""

    MEDIUM = "image"
    RULES = (agent_from_text_only,)

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


@model
class QwenImage3(_QwenImage3):
    """Qwen Image 3: images from text, or from up to 3 images."""

    MODEL = "qwen_image_3"
    DOC = "https://docs.aireiter.com/en/api-reference/images/qwen-image-3/generation"


@model
class QwenImage3Pro(_QwenImage3):
    """Qwen Image 3 Pro: images from text, or from up to 3 images."""

    MODEL = "qwen_image_3_pro"
    DOC = "https://docs.aireiter.com/en/api-reference/images/qwen-image-3-pro/generation"


@model
class ZImageTurbo(Model):
    """Z-Image Turbo: an image from text."""

    MODEL = "z_image_turbo"
    MEDIUM = "image"
    DOC = "https://docs.aireiter.com/en/api-reference/images/z-image-turbo/generation"

    prompt: Annotated[str, Length(2000)]
    aspect_ratio: Annotated[Literal[PhotoRatio, "2:1", "1:2"] | None, Default("1:1")] = None
    seed: Annotated[int | None, Range(1, 2_147_483_647)] = None
