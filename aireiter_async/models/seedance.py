"""Videos by the Seedance models."""

from typing import Annotated, Literal

from aireiter_async.models._base import Model
from aireiter_async.models._declare import model
from aireiter_async.models._limits import Items, Length, Range
from aireiter_async.models._markers import Default, Doc, RequiredWhen
from aireiter_async.models._rules import count_when
from aireiter_async.models._vocabulary import (
    FRAMES,
    FRAMES_ONLY,
    REFERENCES_ONLY,
    AnyUrl,
    AnyUrlArray,
    AnyUrls,
    CinemaRatio,
    FirstFrame,
    LastFrame,
    WideOrTall,
)

_SIZES = {
    ("16:9", "720p"): "1280x720",
    ("16:9", "1080p"): "1920x1080",
    ("9:16", "720p"): "720x1280",
    ("9:16", "1080p"): "1080x1920",
}


@model
class _Seedance1(Model):
    """What the first Seedance models share."""

    MEDIUM = "video"

    prompt: str
    aspect_ratio: WideOrTall
    video_length: Annotated[float | None, Range(4, 12), Default(5)] = None
    resolution: Annotated[Literal["720p", "1080p"] | None, Default("720p")] = None
    image_url: FirstFrame | None = None

    @property
    def size(self) -> str:
        """The size of the video in pixels, width x height."""
        return _SIZES[self.aspect_ratio, self.resolution or "720p"]


@model
class Seedance15Pro(_Seedance1):
    """Seedance 1.5 Pro: a video with sound from text, or from frames."""

    MODEL = "seedance_1_5_pro"
    DOC = "https://docs.aireiter.com/en/api-reference/videos/seedance-1-5-pro/generation"

    end_image_url: LastFrame | None = None
    generate_audio: Annotated[bool | None, Default(default=False)] = None


@model
class SeedancePro(_Seedance1):
    """Seedance Pro: a video from text, or from a first and a last frame."""

    MODEL = "seedance_pro"
    DOC = "https://docs.aireiter.com/en/api-reference/videos/seedance_pro/generation"

    end_image_url: LastFrame | None = None


@model
class SeedanceProFast(_Seedance1):
    """Seedance Pro Fast: a video from text, or from a first frame."""

    MODEL = "seedance_pro_fast"
    DOC = "https://docs.aireiter.com/en/api-reference/videos/seedance_pro_fast/generation"


@model
class _Seedance2(Model):
    """What the Seedance 2 models share, but for the resolution."""

    MEDIUM = "video"
    RULES = (count_when(FRAMES, "image_url", most=1),)

    prompt: Annotated[str, Length(min_length=1)]
    type: Annotated[Literal["all_reference", "first_last_frame"], Doc("What the media are for")]
    image_url: Annotated[
        AnyUrlArray | None,
        Items(9),
        RequiredWhen("type", ("first_last_frame",)),
        Doc("Up to 9 references of at most 50 MB, or the first frame of at most 10 MB"),
    ] = None
    video_url: Annotated[
        AnyUrlArray | None,
        Items(3),
        REFERENCES_ONLY,
        Doc("References, 2 to 15 seconds each, 15 together, at most 50 MB"),
    ] = None
    end_image_url: Annotated[AnyUrl | None, FRAMES_ONLY, Doc("The last frame, at most 10 MB")] = (
        None
    )
    aspect_ratio: Annotated[CinemaRatio | None, Default("16:9")] = None
    video_length: Annotated[
        Literal["4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15"] | None,
        Default("5"),
    ] = None
    generate_audio: Annotated[bool | None, Default(default=True)] = None


@model
class Seedance2(_Seedance2):
    """Seedance 2, or its face variant: a video from references or frames."""

    MODEL = "seedance2"
    VARIANTS = ("seedance2", "seedance2_face")
    DOC = "https://docs.aireiter.com/en/api-reference/videos/seedance2/generation"

    resolution: Annotated[Literal["480p", "720p", "1080p"] | None, Default("720p")] = None


@model
class Seedance2Fast(_Seedance2):
    """Seedance 2 Fast, or face: a video from references or frames."""

    MODEL = "seedance2_fast"
    VARIANTS = ("seedance2_fast", "seedance2_fast_face")
    DOC = "https://docs.aireiter.com/en/api-reference/videos/seedance2_fast/generation"

    resolution: Annotated[Literal["480p", "720p"] | None, Default("720p")] = None


@model
class Seedance2Mini(_Seedance2):
    """Seedance 2 Mini: a video from references or frames."""

    MODEL = "seedance2_mini"
    DOC = "https://docs.aireiter.com/en/api-reference/videos/seedance2_mini/generation"

    resolution: Annotated[Literal["480p", "720p"] | None, Default("720p")] = None


@model
class Seedance25(Model):
    """Seedance 2.5: a video of up to 30 seconds from references or frames."""

    MODEL = "seedance2_5"
    MEDIUM = "video"
    DOC = "https://docs.aireiter.com/en/api-reference/videos/seedance2_5/generation"
    RULES = (count_when(FRAMES, "image_url", most=1),)

    prompt: str
    type: Annotated[
        Literal["all_reference", "first_last_frame"] | None,
        Default("all_reference"),
        Doc("What the media are for"),
    ] = None
    image_url: Annotated[
        AnyUrls | None,
        Items(30),
        Doc("Up to 30 references of at most 50 MB, or the first frame of at most 10 MB"),
    ] = None
    end_image_url: Annotated[AnyUrl | None, FRAMES_ONLY, Doc("The last frame, at most 10 MB")] = (
        None
    )
    video_url: Annotated[
        AnyUrls | None,
        Items(9),
        REFERENCES_ONLY,
        Doc("References, 2 to 30 seconds each, 30 together, at most 200 MB"),
    ] = None
    audio_url: Annotated[
        AnyUrls | None,
        Items(10),
        REFERENCES_ONLY,
        Doc("References, WAV or MP3, 2 to 30 seconds each, 30 together, at most 15 MB"),
    ] = None
    resolution: Annotated[Literal["480p", "720p"] | None, Default("720p")] = None
    video_length: Annotated[int | None, Range(4, 30), Default(5)] = None
    aspect_ratio: Annotated[CinemaRatio | None, Default("16:9")] = None
    generate_audio: Annotated[bool | None, Default(default=True)] = None
    output_format: Annotated[
        Literal["mp4", "mov"] | None, Default("mp4"), Doc("File format; mov is yuv444p")
    ] = None
