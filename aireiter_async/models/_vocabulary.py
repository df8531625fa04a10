"""What many models say in the same words."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal

from aireiter_async.models._markers import Array, Doc, OnlyWhen, When
from aireiter_async.models._media_limits import MEGABYTE, Url

# Widths to heights, each set with those above it in mind.
WideOrTall = Literal["16:9", "9:16"]
VideoRatio = Literal[WideOrTall, "1:1"]
ScreenRatio = Literal[VideoRatio, "4:3", "3:4"]
CinemaRatio = Literal[ScreenRatio, "21:9"]
PhotoRatio = Literal[ScreenRatio, "3:2", "2:3"]
PrintRatio = Literal[PhotoRatio, "5:4", "4:5"]
AnyRatio = Literal[PrintRatio, "2:1", "1:2", "21:9", "9:21"]

# What the media of a request are for.
FRAMES = When("type", ("first_last_frame",))
FRAMES_ONLY = OnlyWhen("type", ("first_last_frame",))
REFERENCES_ONLY = OnlyWhen("type", ("all_reference",))

# Media, by the forms that the pages name; "Any" where they name none.
FirstFrame = Annotated[str, Url("url"), Doc("The first frame, one image")]
LastFrame = Annotated[str, Url("url"), Doc("The last frame, one image")]
AnyUrl = Annotated[str, Url("url or data")]
AnyUrls = Annotated[str | Sequence[str], Url("url or data")]
AnyUrlArray = Annotated[str | Sequence[str], Array(), Url("url or data")]
PublicUrls = Annotated[str | Sequence[str], Url("url")]
Image = Annotated[str, Url("url or image data", 10 * MEGABYTE), Doc("One image to work from")]
Images = Annotated[str | Sequence[str], Array(), Url("url or image data", 10 * MEGABYTE)]
ImagesOfAnySize = Annotated[str | Sequence[str], Array(), Url("url or image data")]

# The meaning of a parameter whose declaration does not tell it.
MEANINGS: Final[Mapping[str, str]] = {
    "aspect_ratio": "Width to height",
    "audio_url": "Sound to work from",
    "background": "What is behind the subject",
    "bpm": "Beats per minute",
    "clip_id": "The clip to work on: clip_id in the output of an earlier task",
    "custom_mode": "Take the prompt for the lyrics, and the style from its own parameter",
    "end_image_url": "The last frame",
    "format": "File format",
    "generate_audio": "Make sound, too",
    "image_url": "Images to work from",
    "instrumental": "No vocals",
    "keep_original_sound": "Keep the sound of the source video",
    "lyrics": "What is sung",
    "negative_prompt": "What to keep out, in words",
    "output_format": "File format",
    "output_n": "How many images to make",
    "prompt": "What to make, in words",
    "prompt_extend": "Let the service write the prompt out",
    "prompt_extend_mode": "How it does",
    "quality": "Quality",
    "resolution": "Resolution",
    "sample_rate": "Samples per second",
    "seed": "Seed of the random numbers",
    "size": "Exact size in pixels",
    "speed": "Speed",
    "style": "Genre, mood, instruments, voice",
    "suno_model": "Version of the model",
    "title": "Title of the song",
    "version": "Version of the model",
    "video_length": "Length of the video in seconds",
    "video_url": "Video to work from",
    "vocal_gender": "Voice; ignored when instrumental",
    "watermark": "Put a watermark on the video",
    "web_search": "Look things up first, which takes longer",
}

# What an example takes where only a form is documented.
SAMPLES: Final[Mapping[str, str]] = {
    "prompt": "A calm evening by the sea",
    "image_url": "https://example.com/image.png",
    "video_url": "https://example.com/video.mp4",
    "audio_url": "https://example.com/audio.mp3",
    "clip_id": "cd984d09-5a77-4a06-9553-e47a55f009b0",
}
