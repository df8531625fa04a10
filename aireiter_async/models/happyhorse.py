"""Videos by the HappyHorse models."""

from typing import Annotated, Literal

from aireiter_async.models._base import Model
from aireiter_async.models._declare import model
from aireiter_async.models._markers import Default, Doc, Items, OnlyWhen, Range, RequiredWhen, When
from aireiter_async.models._rules import count_when, edits_keep_the_source
from aireiter_async.models._vocabulary import AnyUrls, CinemaRatio, PublicUrls


@model(
    "happyhorse_1_0",
    medium="video",
    doc="videos/happyhorse-1-0/generation",
    rules=(count_when(When("type", ("video_edit",)), "image_url", most=5), edits_keep_the_source),
)
class HappyHorse10(Model):
    """HappyHorse 1.0: a video from text, images or a video to edit."""

    type: Annotated[
        Literal["text_to_video", "image_to_video", "reference_to_video", "video_edit"],
        Default("text_to_video"),
        Doc("Kind of input"),
    ]
    prompt: Annotated[
        str | None,
        RequiredWhen("type", ("text_to_video", "reference_to_video", "video_edit")),
        Doc("What to make, in words; cites references as character1, character2"),
    ] = None
    image_url: Annotated[
        AnyUrls | None,
        Items(9),
        RequiredWhen("type", ("image_to_video", "reference_to_video")),
        Doc("The first frame, 1 to 9 references, or up to 5 for an edit; at most 10 MB"),
    ] = None
    video_url: Annotated[
        AnyUrls | None,
        Items(1),
        RequiredWhen("type", ("video_edit",)),
        Doc("The video to edit, 3 to 60 seconds, of which 15 are used, at most 100 MB"),
    ] = None
    resolution: Annotated[Literal["720p", "1080p"] | None, Default("720p")] = None
    aspect_ratio: Annotated[
        Literal[CinemaRatio, "4:5", "5:4", "9:21"] | None,
        Default("16:9"),
        OnlyWhen("type", ("text_to_video", "reference_to_video")),
    ] = None
    video_length: Annotated[int | None, Range(3, 15), Default(5)] = None
    seed: Annotated[
        int | None,
        Range(0, 2_147_483_647),
        Default(0),
        Doc("Seed of the random numbers; 0 draws one"),
    ] = None
    keep_original_sound: Annotated[
        bool | None, Default(default=False), OnlyWhen("type", ("video_edit",))
    ] = None


@model("happyhorse_1_1", medium="video", doc="videos/happyhorse-1-1/generation")
class HappyHorse11(Model):
    """HappyHorse 1.1: a video from 1 to 9 references."""

    prompt: Annotated[str, Doc("What to make, in words; cites references as [Image 1], [Image 2]")]
    image_url: Annotated[PublicUrls, Items(9, 1), Doc("References, at most 10 MB")]
    resolution: Annotated[Literal["720p", "1080p"] | None, Default("1080p")] = None
    aspect_ratio: Annotated[Literal[CinemaRatio, "4:5", "5:4", "9:21"] | None, Default("16:9")] = (
        None
    )
    video_length: Annotated[int | None, Range(3, 15), Default(5)] = None
    seed: Annotated[int | None, Range(0, 2_147_483_647), Default(0)] = None
