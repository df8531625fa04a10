"""Resize, rotate and normalise images with Pillow (extra ``images``)."""

import importlib
import io
from typing import Any, Final

# The plugin of each format, and its class. Plugins are called directly:
# `PIL.Image.open` would try dozens of them, and warn about large images on stderr.
_PLUGINS: Final = {
    ".jpg": ("PIL.JpegImagePlugin", "JpegImageFile"),
    ".png": ("PIL.PngImagePlugin", "PngImageFile"),
    ".webp": ("PIL.WebPImagePlugin", "WebPImageFile"),
    ".gif": ("PIL.GifImagePlugin", "GifImageFile"),
    ".bmp": ("PIL.BmpImagePlugin", "BmpImageFile"),
    ".tif": ("PIL.TiffImagePlugin", "TiffImageFile"),
    ".avif": ("PIL.AvifImagePlugin", "AvifImageFile"),
    ".heic": ("pillow_heif.as_plugin", "HeifImageFile"),
}
_MAX_PIXELS: Final = 40_000_000  # in a decoded image, at four bytes each
_ORIENTATION: Final = 0x0112  # Exif tag
_OPAQUE: Final = 255
_SUFFIX_NAMES: Final = {".jpg": "JPEG", ".tif": "TIFF"}


def format_name(suffix: str) -> str:
    """Return the name of a format, such as "HEIC"."""
    return _SUFFIX_NAMES.get(suffix, suffix.removeprefix(".").upper())


def convert(content: bytes, suffix: str, max_side: int | None, quality: int) -> tuple[str, bytes]:
    """Convert an image to upright sRGB without metadata, and optionally shrink it.

    Returns:
        The content type (JPEG, or PNG if it is partly transparent) and the content.

    Raises:
        ValueError: It cannot be converted.
    """
    name = format_name(suffix)
    try:
        module, plugin = _PLUGINS[suffix]
        opener = getattr(importlib.import_module(module), plugin)
    except KeyError:
        raise ValueError(f"{name} cannot be converted: convert it to JPEG, PNG or WebP") from None
    except (ImportError, AttributeError):
        needs = "Pillow and pillow-heif" if suffix == ".heic" else "Pillow"
        verb, otherwise = (
            ("converting", "convert it to JPEG, PNG or WebP")
            if max_side is None
            else ("shrinking", "shrink it yourself")
        )
        raise ValueError(
            f"{verb} a {name} needs {needs}: pip install 'aireiter-async[images]', or {otherwise}"
        ) from None
    try:
        with opener(io.BytesIO(content)) as image:
            return _convert(image, max_side, quality)
    except ValueError:
        raise
    except Exception as error:  # decoders raise anything on a damaged file
        raise ValueError(f"the {name} is damaged: {error}") from error


def _convert(image: Any, max_side: int | None, quality: int) -> tuple[str, bytes]:
    from PIL import Image, ImageOps  # noqa: PLC0415 - an extra

    size = image.size
    if max_side is not None:
        image.draft(
            "RGB", (max_side, max_side)
        )  # decodes a JPEG at down to an eighth of its size, if that is enough
    # A progressive JPEG is kept whole while it is decoded, however small it is made.
    width, height = size if image.info.get("progressive") else image.size
    if width * height > _MAX_PIXELS:
        raise ValueError(
            f"it has {size[0]} x {size[1]} pixels, {size[0] * size[1] / 1e6:.0f} million: "
            f"at most {_MAX_PIXELS / 1e6:.0f} million can be converted"
        )
    image.load()
    profile = image.info.get("icc_profile")
    exif = image.getexif()
    plain: Any = _without_palette(image)
    if max_side is not None:  # before the colours are converted, which makes copies
        plain.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    plain = _to_srgb(plain, profile)
    plain.info, plain.getexif()[_ORIENTATION] = {}, exif.get(_ORIENTATION, 1)
    plain = ImageOps.exif_transpose(plain)
    output = io.BytesIO()
    if plain.mode == "RGBA" and plain.getextrema()[3][0] < _OPAQUE:
        plain.save(output, "PNG", optimize=True, exif=b"")
        return "image/png", output.getvalue()
    plain.convert("RGB").save(output, "JPEG", quality=quality, optimize=True, exif=b"")
    return "image/jpeg", output.getvalue()


def _without_palette(image: Any) -> Any:
    """Return an image in a mode that can be resized."""
    if image.mode.startswith("I"):  # 16-bit greyscale
        image = image.convert("I").point([value >> 8 for value in range(65_536)], "L")
    transparent = image.has_transparency_data
    if image.mode in {"P", "PA", "LA", "La", "1", "RGBa"} or (transparent and image.mode != "RGBA"):
        return image.convert("RGBA" if transparent else "RGB")
    return image


def _to_srgb(image: Any, profile: bytes | None) -> Any:
    """Return an image as RGB or RGBA in the sRGB colour space."""
    from PIL import ImageCms  # noqa: PLC0415 - an extra

    if profile and image.mode in {"RGB", "RGBA", "CMYK", "L"}:
        alpha = image.getchannel("A") if image.mode == "RGBA" else None
        base: Any = image.convert("RGB") if alpha else image
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            srgb = ImageCms.createProfile("sRGB")
            base = ImageCms.profileToProfile(base, source, srgb, outputMode="RGB")
        except (OSError, ImageCms.PyCMSError):
            pass  # a damaged profile, or one of another colour space
        else:
            if alpha:
                base.putalpha(alpha)
            return base
    return image if image.mode == "RGBA" else image.convert("RGB")
