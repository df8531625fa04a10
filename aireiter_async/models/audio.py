"""Sound, songs and lyrics: Seed Audio, Suno, Flow Music."""

from typing import Annotated, Literal

from aireiter_async.models._base import Model, shared_fields
from aireiter_async.models._declare import model
from aireiter_async.models._markers import (
    Default,
    Doc,
    Items,
    Length,
    NumberAsText,
    OnlyWhen,
    Range,
    RequiredWhen,
    Step,
)
from aireiter_async.models._rules import end_after_start, voice_or_picture
from aireiter_async.models._vocabulary import AnyUrls, PublicUrls

_SunoModel = Annotated[
    Literal["V4", "V4_5", "V4_5PLUS", "V4_5ALL", "V5", "V5_5"] | None, Default("V5")
]
_Lyria = Annotated[Literal["lyria-3-pro", "lyria-3.5"] | None, Default("lyria-3-pro")]
_CUSTOM = RequiredWhen("custom_mode", (True,))
_SONG = Doc("The song to work from, MP3 or WAV, at most 8 minutes and 20 MB; the first is taken")


@model(
    "seed_audio_1_0",
    medium="audio",
    output="audio",
    doc="audios/seed-audio-1-0/generation",
    rules=(voice_or_picture,),
)
class SeedAudio10(Model):
    """Seed Audio 1.0: up to 120 seconds of speech and sound."""

    prompt: Annotated[
        str, Length(1500), Doc("What to say or to make; cites references as @audio1 to @audio3")
    ]
    reference_mode: Annotated[
        Literal["text", "audio", "image"] | None,
        Default("text"),
        Doc("Kind of input besides the prompt"),
    ] = None
    audio_url: Annotated[
        AnyUrls | None,
        Items(3),
        OnlyWhen("reference_mode", ("audio",)),
        Doc("Voices, at most 30 seconds and 10 MB each"),
    ] = None
    image_url: Annotated[
        AnyUrls | None,
        Items(1),
        OnlyWhen("reference_mode", ("image",)),
        Doc("A picture, JPEG, PNG or WEBP, at most 10 MB"),
    ] = None
    speech_rate: Annotated[float | None, Range(0.5, 2), Default(1), Doc("Speed")] = None
    loudness_rate: Annotated[float | None, Range(0.5, 2), Default(1), Doc("Loudness")] = None
    pitch_rate: Annotated[int | None, Range(-12, 12), Default(0), Doc("Pitch, up or down")] = None
    sample_rate: Annotated[
        Literal["8000", "16000", "24000", "32000", "44100", "48000"] | int | None, Default("24000")
    ] = None
    format: Annotated[Literal["wav", "mp3", "ogg_opus", "pcm"] | None, Default("wav")] = None


@shared_fields
class _SunoSong(Model):
    prompt: Annotated[str, Length(5000), Doc("What to make, in words; the lyrics in custom mode")]
    suno_model: _SunoModel = None
    custom_mode: Annotated[bool | None, Default(default=False)] = None
    instrumental: Annotated[bool | None, Default(default=False)] = None
    vocal_gender: Annotated[Literal["m", "f"] | None, Default("m")] = None
    title: Annotated[str | None, Length(100), _CUSTOM] = None
    style: Annotated[str | None, Length(1000), _CUSTOM] = None


@model("suno", medium="audio", output="audio", doc="audios/suno/generation")
class Suno(_SunoSong):
    """Suno: two songs from a prompt, or from lyrics, a title and a style."""


@model("suno_cover", medium="audio", output="audio", doc="audios/suno/cover")
class SunoCover(_SunoSong):
    """Suno Cover: a new version of a song."""

    audio_url: Annotated[PublicUrls, _SONG]


@model("suno_extend", medium="audio", output="audio", doc="audios/suno/extend")
class SunoExtend(Model):
    """Suno Extend: an extended song."""

    audio_url: Annotated[PublicUrls, _SONG]
    prompt: str | None = None
    continue_at: Annotated[
        float | None,
        Range(0, 240),
        Default(60),
        Doc("Where to continue, in seconds; before the end of the song"),
    ] = None
    suno_model: _SunoModel = None
    instrumental: Annotated[bool | None, Default(default=False)] = None


@model("suno_lyrics", medium="text", output="text", doc="audios/suno/lyrics")
class SunoLyrics(Model):
    """Suno Lyrics: two or three sets of lyrics."""

    prompt: Annotated[str, Doc("Topic, in up to about 200 words")]


@model("flow_music", medium="audio", output="audio", doc="audios/flow-music/generation")
class FlowMusic(Model):
    """Flow Music (Google Lyria): a song from text."""

    prompt: str
    lyrics: str | None = None
    title: str | None = None
    bpm: Annotated[str | float | None, NumberAsText(1)] = None
    length: Annotated[
        float | None, Range(1, 240), Default(60), Doc("Length in seconds, a hint")
    ] = None
    version: _Lyria = None


@shared_fields
class _EditedClip(Model):
    clip_id: str
    prompt: str
    version: _Lyria = None


@model("flow_music_extend", medium="audio", output="audio", doc="audios/flow-music/extend")
class FlowMusicExtend(_EditedClip):
    """Flow Music Extend: an extended clip."""

    extend_from_s: Annotated[
        float | None, Range(0, 240), Default(0), Doc("Where to continue, in seconds")
    ] = None
    extend_s: Annotated[
        float | None, Range(1, 240), Default(30), Doc("How much to add, in seconds")
    ] = None


@model(
    "flow_music_replace",
    medium="audio",
    output="audio",
    doc="audios/flow-music/replace",
    rules=(end_after_start,),
)
class FlowMusicReplace(_EditedClip):
    """Flow Music Replace: a clip with a section replaced."""

    start_s: Annotated[
        float | None, Range(0, 240), Default(0), Doc("Start of the section, in seconds")
    ] = None
    end_s: Annotated[
        float | None, Range(1, 240), Default(10), Doc("End of the section, in seconds")
    ] = None


@model("flow_music_cover", medium="audio", output="audio", doc="audios/flow-music/cover")
class FlowMusicCover(_EditedClip):
    """Flow Music Cover: a clip in another style."""

    strength: Annotated[
        float | None, Range(0, 1), Step(0.1), Default(0.5), Doc("Strength of the change")
    ] = None


@model("flow_music_stems", medium="audio", output="file", doc="audios/flow-music/stems")
class FlowMusicStems(Model):
    """Flow Music Stems: the separate stems of a clip, in a ZIP."""

    clip_id: str


@model("flow_music_lyrics", medium="text", output="text", doc="audios/flow-music/lyrics")
class FlowMusicLyrics(Model):
    """Flow Music Lyrics: lyrics for a song."""

    prompt: str


@model("flow_music_download", medium="audio", output="audio", doc="audios/flow-music/download")
class FlowMusicDownload(Model):
    """Flow Music Download: a clip as a file."""

    clip_id: str
    format: Annotated[Literal["mp3", "wav"] | None, Default("mp3")] = None


@model("flow_music_video", medium="video", output="video", doc="audios/flow-music/video")
class FlowMusicVideo(Model):
    """Flow Music Video: a video for a clip."""

    clip_id: str
    preset: Annotated[
        Literal["simple", "modern", "player"] | None, Default("simple"), Doc("Look")
    ] = None


@model("flow_music_upload", medium="audio", output="audio", doc="audios/flow-music/upload")
class FlowMusicUpload(Model):
    """Flow Music Upload: a clip from a song at a public URL."""

    audio_url: Annotated[PublicUrls, _SONG]
