"""Videos: Veo, Sora, MiniMax, Grok, Wan, Gemini Omni, Flux."""

from typing import Annotated, Literal

from aireiter_async.models._base import Model, shared_fields
from aireiter_async.models._declare import model
from aireiter_async.models._markers import (
    Default,
    Deprecated,
    Doc,
    Items,
    Length,
    OnlyWhen,
    Range,
    RequiredWhen,
    Step,
)
from aireiter_async.models._rules import (
    count_when,
    file_or_link,
    length_of_the_source,
    seven_slots,
    words_or_media,
)
from aireiter_async.models._vocabulary import (
    FRAMES,
    FRAMES_ONLY,
    REFERENCES_ONLY,
    AnyUrl,
    AnyUrls,
    CinemaRatio,
    FirstFrame,
    LastFrame,
    PhotoRatio,
    ScreenRatio,
    WideOrTall,
)


@shared_fields
class _Sora2(Model):
    prompt: str
    image_url: FirstFrame | None = None
    aspect_ratio: Annotated[WideOrTall | None, Default("16:9")] = None


@shared_fields
class _Veo31(_Sora2):
    end_image_url: LastFrame | None = None


@model("veo3_1", medium="video", doc="videos/veo3-1/generation", channels=("base", "plus"))
class Veo31(_Veo31):
    """Veo 3.1: a video from text, or from a first and a last frame."""


@model(
    "veo3_1_fast",
    medium="video",
    doc="videos/veo3-1-fast/generation",
    channels=("base", "plus", "advanced"),
)
class Veo31Fast(_Veo31):
    """Veo 3.1 Fast: a video from text, or from a first and a last frame."""


@model(
    "sora2", medium="video", doc="videos/sora2/generation", channels=("base", "plus", "advanced")
)
class Sora2(_Sora2):
    """Sora 2, no longer documented: a video from text or a first frame."""

    video_length: Annotated[Literal["10", "15"] | int | None, Default("10")] = None


@model("sora2_pro", medium="video", doc="videos/sora2-pro/generation", channels=("base", "plus"))
class Sora2Pro(_Sora2):
    """Sora 2 Pro, no longer documented: a video from text or a frame."""

    video_length: Annotated[Literal["15", "25"] | int | None, Default("15")] = None
    resolution: Annotated[Literal["standard", "high"] | None, Default("standard"), Deprecated()] = (
        None
    )


@model(
    "minimax_h3",
    medium="video",
    doc="videos/minimax-h3/generation",
    rules=(count_when(FRAMES, "image_url", most=2),),
)
class MinimaxH3(Model):
    """MiniMax H3: a video from text, from frames, or from references."""

    prompt: Annotated[str, Length(7000)]
    type: Annotated[
        Literal["text_to_video", "first_last_frame", "all_reference"] | None,
        Default("text_to_video"),
        Doc("Role of the media"),
    ] = None
    video_length: Annotated[float | None, Range(4, 15), Step(1), Default(4)] = None
    quality: Annotated[Literal["768p", "2k"] | None, Default("2k")] = None
    aspect_ratio: Annotated[
        CinemaRatio | None, Default("16:9"), OnlyWhen("type", ("text_to_video", "all_reference"))
    ] = None
    image_url: Annotated[
        AnyUrls | None,
        Items(9),
        Doc("The first frame and the last, or up to 9 references, at most 30 MB"),
    ] = None
    end_image_url: Annotated[AnyUrl | None, FRAMES_ONLY] = None
    video_url: Annotated[
        AnyUrls | None,
        Items(1),
        REFERENCES_ONLY,
        Doc("A reference, MP4 or MOV, 2 to 15 seconds, at most 50 MB"),
    ] = None
    audio_url: Annotated[
        AnyUrls | None,
        Items(3),
        REFERENCES_ONLY,
        Doc("References, WAV or MP3, 2 to 15 seconds, at most 15 MB"),
    ] = None


@model("minimax_h3_turbo", medium="video", output="video", doc="videos/minimax-h3/turbo")
class MinimaxH3Turbo(Model):
    """MiniMax H3 Turbo: a video from text, or from references."""

    prompt: Annotated[str, Doc("What to make, in words; cites media as Image 1, Audio 1")]
    video_length: Annotated[float | None, Range(5, 15), Step(1), Default(5)] = None
    resolution: Annotated[Literal["480p", "720p"] | None, Default("720p")] = None
    aspect_ratio: Annotated[Literal[PhotoRatio, "21:9"] | None, Default("16:9")] = None
    image_url: Annotated[
        AnyUrls | None, Items(9), Doc("References, JPEG, PNG or WEBP, at most 20 MB")
    ] = None
    audio_url: Annotated[
        AnyUrls | None, Items(3), Doc("References, MP3 or WAV, at most 15 seconds and 20 MB each")
    ] = None


@model("grok_imagine_1_5", medium="video", doc="videos/grok-imagine-1-5/generation")
class GrokImagine15(Model):
    """Grok Imagine 1.5: a video from an image."""

    image_url: Annotated[FirstFrame, Doc("The image to animate, at most 20 MB")]
    prompt: Annotated[str | None, Length(4096)] = None
    resolution: Annotated[Literal["480p", "720p"] | None, Default("480p")] = None
    video_length: Annotated[int | None, Range(1, 15), Default(5)] = None
    aspect_ratio: Annotated[Literal["auto", PhotoRatio] | None, Default("auto")] = None


@model(
    "wan3_0",
    medium="video",
    output="video",
    doc="videos/wan-3-0/generation",
    rules=(count_when(FRAMES, "image_url", most=2), words_or_media, file_or_link),
)
class Wan30(Model):
    """Wan 3.0: a video from text, media, a document or a web page."""

    prompt: Annotated[
        str | None, Doc("What to make, in words; cites media as Image 1, Video 1, Audio 1")
    ] = None
    type: Annotated[
        Literal["all_reference", "first_last_frame", "file_web"] | None,
        Default("all_reference"),
        Doc("Role of the media"),
    ] = None
    video_length: Annotated[int | None, Range(2, 30), Default(5)] = None
    resolution: Annotated[Literal["480p", "720p", "1080p"] | None, Default("720p")] = None
    aspect_ratio: Annotated[Literal["auto", ScreenRatio] | None, Default("auto")] = None
    generate_audio: Annotated[bool | None, Default(default=True)] = None
    image_url: Annotated[
        AnyUrls | None,
        Items(10),
        OnlyWhen("type", ("all_reference", "first_last_frame")),
        Doc("The first frame and the last, or up to 10 references, at most 20 MB"),
    ] = None
    end_image_url: Annotated[AnyUrl | None, FRAMES_ONLY] = None
    video_url: Annotated[
        AnyUrls | None,
        Items(5),
        REFERENCES_ONLY,
        Doc("References, 1 to 15 seconds each, 15 together, at most 100 MB; seconds are paid for"),
    ] = None
    audio_url: Annotated[
        AnyUrls | None,
        Items(5),
        REFERENCES_ONLY,
        Doc("References, WAV or MP3, 1 to 15 seconds each, 15 together, at most 15 MB"),
    ] = None
    file_url: Annotated[
        AnyUrl | None,
        OnlyWhen("type", ("file_web",)),
        Doc("A document to make a video of, at most 100 MB and 50 pages"),
    ] = None
    link_url: Annotated[
        FirstFrame | None,
        OnlyWhen("type", ("file_web",)),
        Doc("A public web page to make a video of"),
    ] = None
    watermark: Annotated[bool | None, Default(default=False)] = None
    seed: Annotated[int | None, Range(0)] = None


@model(
    "gemini_omni_flash_ext",
    medium="video",
    output="video",
    doc="videos/gemini-omni-flash-ext/generation",
    variants=("gemini_omni_1_1_flash_ext",),
    rules=(length_of_the_source, seven_slots),
)
class GeminiOmniFlashExt(Model):
    """Gemini Omni Flash Ext, or 1.1: a video from text and media."""

    prompt: str
    video_length: Annotated[Literal["4", "6", "8", "10"] | int | None, Default("6")] = None
    resolution: Annotated[Literal["720p", "1080p", "4K"] | None, Default("720p")] = None
    aspect_ratio: Annotated[WideOrTall | None, Default("16:9")] = None
    image_url: Annotated[
        AnyUrls | None, Items(7), Doc("References, at most 10 MB; 5 beside a video")
    ] = None
    video_url: Annotated[
        AnyUrls | None, Items(1), Doc("A reference, at most 10 seconds and 100 MB")
    ] = None


@model("flux_3_video", medium="video", doc="videos/flux-3-video/generation")
class Flux3Video(Model):
    """Flux 3 Video: a video from text, keyframes or a video to continue."""

    mode: Annotated[Literal["t2v", "i2v", "v2v"] | None, Default("t2v"), Doc("Kind of input")] = (
        None
    )
    prompt: str
    image_url: Annotated[
        AnyUrls | None,
        Items(10),
        RequiredWhen("mode", ("i2v",)),
        OnlyWhen("mode", ("i2v",)),
        Doc("Keyframes, in order"),
    ] = None
    video_url: Annotated[
        AnyUrls | None,
        Items(1),
        RequiredWhen("mode", ("v2v",)),
        OnlyWhen("mode", ("v2v",)),
        Doc("The video to continue, MP4"),
    ] = None
    video_length: Annotated[int | None, Range(5, 20), Default(5)] = None
    resolution: Annotated[Literal["hd", "fhd"] | None, Default("hd")] = None
    aspect_ratio: Annotated[Literal["auto", CinemaRatio, "2:1"] | None, Default("auto")] = None
    generate_audio: Annotated[bool | None, Default(default=True)] = None
    safety_tolerance: Annotated[
        int | None, Range(0, 4), Default(2), Doc("How tolerant the safety check is")
    ] = None
