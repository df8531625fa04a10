"""Sound, songs and lyrics: Seed Audio, Suno, Flow Music."""

from typing import Annotated, Literal

from aireiter_async.models._base import Model
from aireiter_async.models._declare import model
from aireiter_async.models._limits import Items, Length, NumberAsText, Range, Step
from aireiter_async.models._markers import Default, Doc, OnlyWhen, RequiredWhen
from aireiter_async.models._rules import end_after_start, voice_or_picture
from aireiter_async.models._vocabulary import AnyUrls, PublicUrls

_SunoModel = Annotated[
    Literal["V4", "V4_5", "V4_5PLUS", "V4_5ALL", "V5", "V5_5"] | None, Default("V5")
]
_Lyria = Annotated[Literal["lyria-3-pro", "lyria-3.5"] | None, Default("lyria-3-pro")]
_CUSTOM = RequiredWhen("custom_mode", (True,))
_SONG = Doc("The song to work from, MP3 or WAV, at most 8 minutes and 20 MB; the first is taken")


@model
class SeedAudio10(Model):
    """Seed Audio 1.0: up to 120 seconds of speech and sound."""

    MODEL = "seed_audio_1_0"
    MEDIUM = "audio"
    OUTPUT = "audio"
    DOC = "https://docs.aireiter.com/en/api-reference/audios/seed-audio-1-0/generation"
    RULES = (voice_or_picture,)

    prompt: Annotated[
        str, Length(1500), Doc("What to say or to make; cites references as @audio1 to @audio3")
    ]
    reference_mode: Annotated[
        Literal["text", "audio", "image"] | None,
        Default("text"),
        Doc("What to work from beside the prompt"),
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
        Literal["8000", "16000", "24000", "32000", "44100", "48000"] | None, Default("24000")
    ] = None
    format: Annotated[Literal["wav", "mp3", "ogg_opus", "pcm"] | None, Default("wav")] = None


@model
class _SunoSong(Model):
    """What the Suno models share that write a song."""

    MEDIUM = "audio"
    OUTPUT = "audio"

    prompt: Annotated[str, Length(5000), Doc("What to make, in words; the lyrics in custom mode")]
    suno_model: _SunoModel = None
    custom_mode: Annotated[bool | None, Default(default=False)] = None
    instrumental: Annotated[bool | None, Default(default=False)] = None
    vocal_gender: Annotated[Literal["m", "f"] | None, Default("m")] = None
    title: Annotated[str | None, Length(100), _CUSTOM] = None
    style: Annotated[str | None, Length(1000), _CUSTOM] = None


@model
class Suno(_SunoSong):
    """Suno: two songs from a prompt, or from lyrics, a title and a style."""

    MODEL = "suno"
    DOC = "https://docs.aireiter.com/en/api-reference/audios/suno/generation"


@model
class SunoCover(_SunoSong):
    """Suno Cover: a song sung anew."""

    MODEL = "suno_cover"
    DOC = "https://docs.aireiter.com/en/api-reference/audios/suno/cover"

    audio_url: Annotated[PublicUrls, _SONG]


@model
class SunoExtend(Model):
    """Suno Extend: a song made longer."""

    MODEL = "suno_extend"
    MEDIUM = "audio"
    OUTPUT = "audio"
    DOC = "https://docs.aireiter.com/en/api-reference/audios/suno/extend"

    audio_url: Annotated[PublicUrls, _SONG]
    prompt: str | None = None
    continue_at: Annotated[
        float | None,
        Range(0, 240),
        Default(60),
        Doc("Where to go on, in seconds; before the end of the song"),
    ] = None
    suno_model: _SunoModel = None
    instrumental: Annotated[bool | None, Default(default=False)] = None


@model
class SunoLyrics(Model):
    """Suno Lyrics: two or three texts for songs."""

    MODEL = "suno_lyrics"
    MEDIUM = "text"
    OUTPUT = "text"
    DOC = "https://docs.aireiter.com/en/api-reference/audios/suno/lyrics"

    prompt: Annotated[str, Doc("What to write of, in up to about 200 words")]


@model
class FlowMusic(Model):
    """Flow Music (Google Lyria): a song from text."""

    MODEL = "flow_music"
    MEDIUM = "audio"
    OUTPUT = "audio"
    DOC = "https://docs.aireiter.com/en/api-reference/audios/flow-music/generation"

    prompt: str
    lyrics: str | None = None
    title: str | None = None
    bpm: Annotated[str | None, NumberAsText(1)] = None
    length: Annotated[
        float | None, Range(1, 240), Default(60), Doc("Length in seconds, a hint")
    ] = None
    version: _Lyria = None


@model
class FlowMusicExtend(Model):
    """Flow Music Extend: a clip made longer."""

    MODEL = "flow_music_extend"
    MEDIUM = "audio"
    OUTPUT = "audio"
    DOC = "https://docs.aireiter.com/en/api-reference/audios/flow-music/extend"

    clip_id: str
    prompt: str
    extend_from_s: Annotated[
        float | None, Range(0, 240), Default(0), Doc("Where to go on, in seconds")
    ] = None
    extend_s: Annotated[
        float | None, Range(1, 240), Default(30), Doc("How much to add, in seconds")
    ] = None
    version: _Lyria = None


@model
class FlowMusicReplace(Model):
    """Flow Music Replace: a section of a clip made anew."""

    MODEL = "flow_music_replace"
    MEDIUM = "audio"
    OUTPUT = "audio"
    DOC = "https://docs.aireiter.com/en/api-reference/audios/flow-music/replace"
    RULES = (end_after_start,)

    clip_id: str
    prompt: str
    start_s: Annotated[
        float | None, Range(0, 240), Default(0), Doc("Where the section begins, in seconds")
    ] = None
    end_s: Annotated[
        float | None, Range(1, 240), Default(10), Doc("Where the section ends, in seconds")
    ] = None
    version: _Lyria = None


@model
class FlowMusicCover(Model):
    """Flow Music Cover: a clip in another style."""

    MODEL = "flow_music_cover"
    MEDIUM = "audio"
    OUTPUT = "audio"
    DOC = "https://docs.aireiter.com/en/api-reference/audios/flow-music/cover"

    clip_id: str
    prompt: str
    strength: Annotated[
        float | None, Range(0, 1), Step(0.1), Default(0.5), Doc("Strength of the change")
    ] = None
    version: _Lyria = None


@model
class FlowMusicStems(Model):
    """Flow Music Stems: the voices of a clip, each for itself, in a ZIP."""

    MODEL = "flow_music_stems"
    MEDIUM = "audio"
    OUTPUT = "file"
    DOC = "https://docs.aireiter.com/en/api-reference/audios/flow-music/stems"

    clip_id: str


@model
class FlowMusicLyrics(Model):
    """Flow Music Lyrics: a text for a song."""

    MODEL = "flow_music_lyrics"
    MEDIUM = "text"
    OUTPUT = "text"
    DOC = "https://docs.aireiter.com/en/api-reference/audios/flow-music/lyrics"

    prompt: str


@model
class FlowMusicDownload(Model):
    """Flow Music Download: a clip as a file."""

    MODEL = "flow_music_download"
    MEDIUM = "audio"
    OUTPUT = "audio"
    DOC = "https://docs.aireiter.com/en/api-reference/audios/flow-music/download"

    clip_id: str
    format: Annotated[Literal["mp3", "wav"] | None, Default("mp3")] = None


@model
class FlowMusicVideo(Model):
    """Flow Music Video: a clip with moving pictures."""

    MODEL = "flow_music_video"
    MEDIUM = "video"
    OUTPUT = "video"
    DOC = "https://docs.aireiter.com/en/api-reference/audios/flow-music/video"

    clip_id: str
    preset: Annotated[
        Literal["simple", "modern", "player"] | None, Default("simple"), Doc("Look")
    ] = None


@model
class FlowMusicUpload(Model):
    """Flow Music Upload: a song from a public URL, made a clip."""

    MODEL = "flow_music_upload"
    MEDIUM = "audio"
    OUTPUT = "audio"
    DOC = "https://docs.aireiter.com/en/api-reference/audios/flow-music/upload"

    audio_url: Annotated[PublicUrls, _SONG]
