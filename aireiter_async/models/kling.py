"""Videos by the Kling models."""

from typing import Annotated, Literal

from aireiter_async.models._base import Model
from aireiter_async.models._declare import model
from aireiter_async.models._markers import Default, Doc, Items, Length, Needs, Range
from aireiter_async.models._rules import count_when
from aireiter_async.models._vocabulary import (
    FRAMES,
    FRAMES_ONLY,
    REFERENCES_ONLY,
    AnyUrl,
    AnyUrls,
    FirstFrame,
    MediaRole,
    VideoRatio,
)


@model("kling_3_0", medium="video", doc="videos/kling-3-0/generation")
class Kling30(Model):
    """Kling 3.0: a video from text, or from a first and a last frame."""

    prompt: str
    image_url: FirstFrame | None = None
    end_image_url: Annotated[AnyUrl | None, Needs("image_url")] = None
    resolution: Annotated[Literal["720p", "1080p", "4K"] | None, Default("1080p")] = None
    video_length: Annotated[int | None, Range(3, 15), Default(5)] = None
    generate_audio: Annotated[bool | None, Default(default=True)] = None
    aspect_ratio: Annotated[VideoRatio | None, Default("16:9")] = None


@model("kling_3_0_turbo", medium="video", doc="videos/kling-3-0-turbo/generation")
class Kling30Turbo(Model):
    """Kling 3.0 Turbo: a video from text, or from one image."""

    prompt: Annotated[str, Length(2500)]
    image_url: Annotated[FirstFrame | None, Doc("One image to work from")] = None
    aspect_ratio: Annotated[VideoRatio, Default("16:9")]
    resolution: Annotated[Literal["720p", "1080p"] | None, Default("720p")] = None
    video_length: Annotated[int | None, Range(3, 15), Default(5)] = None


@model("kling_3_0_motion_control", medium="video", doc="videos/kling-3-motion-control/generation")
class Kling30MotionControl(Model):
    """Kling 3.0 Motion Control: an image animated with the motion of a video."""

    prompt: Annotated[str | None, Length(2500)] = None
    image_url: Annotated[AnyUrl, Doc("The subject, JPEG or PNG, at most 10 MB")]
    video_url: Annotated[
        AnyUrl, Doc("The motion, MP4 or MOV, at most 100 MB; at most 30 seconds, 10 by the image")
    ]
    resolution: Annotated[Literal["720p", "1080p"] | None, Default("720p")] = None
    character_orientation: Annotated[
        Literal["video", "image"] | None,
        Default("video"),
        Doc("Orientation of the subject"),
    ] = None
    background_source: Annotated[
        Literal["input_video", "input_image"] | None,
        Default("input_video"),
        Doc("Source of the background"),
    ] = None


@model(
    "kling_v3_omni",
    medium="video",
    output="video",
    doc="videos/kling-v3-omni/generation",
    rules=(count_when(FRAMES, "image_url", most=2),),
)
class KlingV3Omni(Model):
    """Kling 3 Omni: a video from text, frames, references or a clip."""

    prompt: Annotated[str, Doc("What to make, in words; cites media as <<<image_1>>>")]
    negative_prompt: Annotated[str | None, Length(2500)] = None
    type: MediaRole | None = None
    video_length: Annotated[
        int | None,
        Range(3, 15),
        Default(5),
        Doc("Length of the video in seconds; ignored with refer_type=base"),
    ] = None
    resolution: Annotated[Literal["720p", "1080p", "4K"] | None, Default("720p")] = None
    aspect_ratio: Annotated[
        VideoRatio | None,
        Default("16:9"),
        Doc("Width to height; ignored with a first frame or a reference video"),
    ] = None
    generate_audio: Annotated[
        bool | None, Default(default=False), Doc("Make sound, too; ignored with video_url")
    ] = None
    image_url: Annotated[
        AnyUrls | None,
        Items(7),
        Doc("The first frame and the last, or up to 7 references, at most 20 MB"),
    ] = None
    end_image_url: Annotated[AnyUrl | None, FRAMES_ONLY, Needs("image_url")] = None
    video_url: Annotated[
        AnyUrls | None,
        Items(1),
        REFERENCES_ONLY,
        Doc("A reference, MP4 or MOV, 3 to 10 seconds, at most 200 MB"),
    ] = None
    refer_type: Annotated[
        Literal["feature", "base"] | None,
        Default("feature"),
        Needs("video_url"),
        Doc("Look at the reference video, or edit it"),
    ] = None
    keep_original_sound: Annotated[bool | None, Default(default=False), Needs("video_url")] = None
    watermark: Annotated[bool | None, Default(default=False)] = None
    multi_shot: Annotated[bool | None, Default(default=False), Doc("Cut between several shots")] = (
        None
    )
