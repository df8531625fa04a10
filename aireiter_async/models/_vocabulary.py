"""Types and descriptions that many models share."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal

from aireiter_async.models._markers import Array, Default, Doc, OnlyWhen, When
from aireiter_async.models._media import MEGABYTE, Media, MediaOutput, Url

# Aspect ratios, each set including those above it.
WideOrTall = Literal["16:9", "9:16"]
VideoRatio = Literal[WideOrTall, "1:1"]
ScreenRatio = Literal[VideoRatio, "4:3", "3:4"]
CinemaRatio = Literal[ScreenRatio, "21:9"]
PhotoRatio = Literal[ScreenRatio, "3:2", "2:3"]
PrintRatio = Literal[PhotoRatio, "5:4", "4:5"]
AnyRatio = Literal[PrintRatio, "2:1", "1:2", "21:9", "9:21"]

# The role of the media in a request.
FRAMES = When("type", ("first_last_frame",))
FRAMES_ONLY = OnlyWhen("type", ("first_last_frame",))
REFERENCES_ONLY = OnlyWhen("type", ("all_reference",))
MediaRole = Annotated[
    Literal["all_reference", "first_last_frame"],
    Default("all_reference"),
    Doc("Role of the media"),
]

# Media, by the documented forms; "Any" if none are documented.
PublicUrl = Annotated[str | MediaOutput, Url("url")]
PublicUrls = Annotated[str | MediaOutput | Sequence[str | MediaOutput], Url("url")]
FirstFrame = Annotated[PublicUrl, Doc("First frame, one image")]
LastFrame = Annotated[PublicUrl, Doc("Last frame, one image")]
AnyUrl = Annotated[Media, Url("url or data")]
AnyUrls = Annotated[Media | Sequence[Media], Url("url or data")]
AnyUrlArray = Annotated[AnyUrls, Array()]
Image = Annotated[Media, Url("url or image data", 10 * MEGABYTE), Doc("Input image")]
Images = Annotated[Media | Sequence[Media], Array(), Url("url or image data", 10 * MEGABYTE)]
ImagesOfAnySize = Annotated[Media | Sequence[Media], Array(), Url("url or image data")]

# Descriptions of parameters, unless their declarations have their own.
MEANINGS: Final[Mapping[str, str]] = {
    "aspect_ratio": "Width to height",
    "audio_url": "Input audio",
    "background": "Background of the subject",
    "bpm": "Beats per minute",
    "clip_id": "Clip to edit: clip_id in the output of an earlier task",
    "custom_mode": "Use the prompt as the lyrics and follow style",
    "end_image_url": "Last frame",
    "format": "File format",
    "generate_audio": "Add sound",
    "image_url": "Input images",
    "instrumental": "No vocals",
    "keep_original_sound": "Keep the sound of the input video",
    "lyrics": "Lyrics",
    "negative_prompt": "What to avoid",
    "output_format": "File format",
    "output_n": "Number of images",
    "prompt": "Text prompt",
    "prompt_extend": "Let the service extend the prompt",
    "prompt_extend_mode": "How the prompt is extended",
    "quality": "Quality",
    "resolution": "Resolution",
    "sample_rate": "Samples per second",
    "seed": "Random seed",
    "size": "Exact size in pixels",
    "speed": "Speed",
    "style": "Genre, mood, instruments and voice",
    "suno_model": "Version of the model",
    "title": "Title of the song",
    "version": "Version of the model",
    "video_length": "Length of the video in seconds",
    "video_url": "Input video",
    "vocal_gender": "Voice; ignored when instrumental",
    "watermark": "Watermark the video",
    "web_search": "Search the web first, which takes longer",
}

# Sample values for examples, where no values are documented.
SAMPLES: Final[Mapping[str, str]] = {
    "prompt": "A calm evening by the sea",
    "image_url": "https://example.com/image.png",
    "video_url": "https://example.com/video.mp4",
    "audio_url": "https://example.com/audio.mp3",
    "clip_id": "cd984d09-5a77-4a06-9553-e47a55f009b0",
}
