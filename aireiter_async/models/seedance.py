"""Videos by the Seedance models."""

from typing import Annotated, Literal

from aireiter_async.models._base import Model, shared_fields
from aireiter_async.models._declare import model
from aireiter_async.models._markers import Default, Doc, Items, Length, Range, RequiredWhen
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
    MediaRole,
    WideOrTall,
)

_RULES = (count_when(FRAMES, "image_url", most=1),)
_SIZES = {
    ("16:9", "720p"): "1280x720",
    ("16:9", "1080p"): "1920x1080",
    ("9:16", "720p"): "720x1280",
    ("9:16", "1080p"): "1080x1920",
}


@shared_fields
class _Seedance1(Model):
    prompt: str
    aspect_ratio: WideOrTall
    video_length: Annotated[float | None, Range(4, 12), Default(5)] = None
    resolution: Annotated[Literal["720p", "1080p"] | None, Default("720p")] = None
    image_url: FirstFrame | None = None

    @property
    def size(self) -> str:
        """The size of the video in pixels, width x height."""
        return _SIZES[self.aspect_ratio, self.resolution or "720p"]


@model("seedance_1_5_pro", medium="video", doc="videos/seedance-1-5-pro/generation")
class Seedance15Pro(_Seedance1):
    """Seedance 1.5 Pro: a video with sound from text, or from frames."""

    end_image_url: LastFrame | None = None
    generate_audio: Annotated[bool | None, Default(default=False)] = None


@model("seedance_pro", medium="video", doc="videos/seedance_pro/generation")
class SeedancePro(_Seedance1):
    """Seedance Pro: a video from text, or from a first and a last frame."""

    end_image_url: LastFrame | None = None


@model("seedance_pro_fast", medium="video", doc="videos/seedance_pro_fast/generation")
class SeedanceProFast(_Seedance1):
    """Seedance Pro Fast: a video from text, or from a first frame."""


@shared_fields
class _Seedance2(Model):
    prompt: Annotated[str, Length(min_length=1)]
    type: Annotated[Literal["all_reference", "first_last_frame"], Doc("Role of the media")]
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
    end_image_url: Annotated[AnyUrl | None, FRAMES_ONLY, Doc("Last frame, at most 10 MB")] = None
    aspect_ratio: Annotated[CinemaRatio | None, Default("16:9")] = None
    video_length: Annotated[
        Literal["4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15"] | int | None,
        Default("5"),
    ] = None
    generate_audio: Annotated[bool | None, Default(default=True)] = None


@model(
    "seedance2",
    medium="video",
    doc="videos/seedance2/generation",
    variants=("seedance2_face",),
    rules=_RULES,
)
class Seedance2(_Seedance2):
    """Seedance 2, or its face variant: a video from references or frames."""

    resolution: Annotated[Literal["480p", "720p", "1080p"] | None, Default("720p")] = None


@model(
    "seedance2_fast",
    medium="video",
    doc="videos/seedance2_fast/generation",
    variants=("seedance2_fast_face",),
    rules=_RULES,
)
class Seedance2Fast(_Seedance2):
    """Seedance 2 Fast, or face: a video from references or frames."""

    resolution: Annotated[Literal["480p", "720p"] | None, Default("720p")] = None


@model("seedance2_mini", medium="video", doc="videos/seedance2_mini/generation", rules=_RULES)
class Seedance2Mini(_Seedance2):
    """Seedance 2 Mini: a video from references or frames."""

    resolution: Annotated[Literal["480p", "720p"] | None, Default("720p")] = None


@model("seedance2_5", medium="video", doc="videos/seedance2_5/generation", rules=_RULES)
class Seedance25(Model):
    """Seedance 2.5: a video of up to 30 seconds from references or frames."""

    prompt: str
    type: MediaRole | None = None
    image_url: Annotated[
        AnyUrls | None,
        Items(30),
        Doc("Up to 30 references of at most 50 MB, or the first frame of at most 10 MB"),
    ] = None
    end_image_url: Annotated[AnyUrl | None, FRAMES_ONLY, Doc("Last frame, at most 10 MB")] = None
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
