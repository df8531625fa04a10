"""Constraints between the parameters of one request, shared by name.

A rule reads the values that are individually valid, and yields a problem for each conflict. A value
that the documentation calls ignored is accepted; one that it calls exclusive, required or "only
with" is checked.

The docstring of a rule in a class's ``RULES`` is shown to users: one sentence that names each
parameter concerned.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from aireiter_async.models._errors import Problem, short
from aireiter_async.models._markers import Items, Needs, OnlyWhen, RequiredWhen, When


class Given(dict[str, Any]):
    """The given values that are individually valid.

    Indexing falls back to the documented default, then to None; ``get`` and ``in`` do not.

    Attributes:
        defaults: The documented defaults.
        wrong: The parameters that already have a problem: they get no second one, and no rule
            may treat them as absent.
    """

    __slots__ = ("defaults", "wrong")

    def __init__(self, defaults: Mapping[str, Any]) -> None:
        self.defaults: Mapping[str, Any] = defaults
        self.wrong: set[str] = set()

    def __missing__(self, name: str) -> Any:
        return None if name in self.wrong else self.defaults.get(name)

    def has(self, name: str) -> bool:
        """Return whether a value was given, even an invalid one; ``[]`` counts as none."""
        return name in self.wrong or self.get(name, ()) != ()

    def items_of(self, name: str) -> tuple[Any, ...]:
        """Return the media of a parameter that takes one or many."""
        value: tuple[Any, ...] | str = self.get(name, ())
        return value if isinstance(value, tuple) else (value,)

    def differs_from_default(self, name: str) -> bool:
        """Return whether a value other than the default or ``[]`` was given."""
        return self.get(name, ()) not in ((), self.defaults.get(name, ()))

    def describe(self, name: str) -> str:
        """Return a value with its name, marked if it is the default."""
        return f"{name}={short(self[name])}{'' if name in self else ' (the default)'}"


Rule: TypeAlias = Callable[[Given], Iterator[Problem]]


def required_when(name: str, case: RequiredWhen) -> Rule:
    """Return the rule that *name* is required in *case*."""

    def rule(given: Given) -> Iterator[Problem]:
        if given[case.param] in case.values and not given.has(name):
            yield Problem(name, f"is required with {given.describe(case.param)}")

    return rule


def only_when(name: str, case: OnlyWhen) -> Rule:
    """Return the rule that *name* is allowed only in *case*, except for its default."""

    def rule(given: Given) -> Iterator[Problem]:
        if given.differs_from_default(name) and given[case.param] not in (None, *case.values):
            yield Problem(name, f"needs {case}, got {given.describe(case.param)}")

    return rule


def needs(name: str, marker: Needs) -> Rule:
    """Return the rule that *name* is allowed only together with another parameter."""

    def rule(given: Given) -> Iterator[Problem]:
        if given.differs_from_default(name) and not given.has(marker.needs):
            yield Problem(name, f"needs {marker.needs}, which is not given")

    return rule


def count_when(case: When, name: str, most: int) -> Rule:
    """Return the rule that *name* has at most *most* items in *case*."""
    limit = Items(most)

    def rule(given: Given) -> Iterator[Problem]:
        items = given.items_of(name)
        if given[case.param] in case.values and not limit.allows(items):
            yield Problem(name, f"must be {limit.phrase} with {case}, got {limit.shown(items)}")

    rule.__doc__ = f"With {case}, {name} takes {limit.phrase}."
    return rule


def size_or_ratio(given: Given) -> Iterator[Problem]:
    """Do not give size together with aspect_ratio or resolution."""
    others = [name for name in ("aspect_ratio", "resolution") if name in given]
    if "size" in given and others:
        yield Problem("size", f"excludes {' and '.join(others)}: pass one or the other")


def four_k_is_not_square(given: Given) -> Iterator[Problem]:
    """With resolution=4K, give an aspect_ratio of 16:9, 9:16, 2:1, 1:2, 21:9 or 9:21."""
    long = ("16:9", "9:16", "2:1", "1:2", "21:9", "9:21")
    if given["resolution"] == "4K" and given["aspect_ratio"] not in (None, *long):
        yield Problem(
            "resolution",
            f"4K needs an aspect_ratio of {', '.join(long)}, got {given.describe('aspect_ratio')}",
        )


def agent_from_text_only(given: Given) -> Iterator[Problem]:
    """With prompt_extend_mode=agent, leave out image_url: the agent works from text only."""
    if given["prompt_extend_mode"] == "agent" and given.items_of("image_url"):
        yield Problem("prompt_extend_mode", "'agent' works from text only, without image_url")


def hd_is_fast(given: Given) -> Iterator[Problem]:
    """With quality=hd, speed must be fast, which is its default."""
    if given["quality"] == "hd" and given["speed"] not in (None, "fast"):
        yield Problem("quality", f"'hd' needs speed='fast', got {given.describe('speed')}")


def file_or_link(given: Given) -> Iterator[Problem]:
    """Do not give file_url and link_url together."""
    if "file_url" in given and "link_url" in given:
        yield Problem("link_url", "excludes file_url: give one or the other")


def voice_or_picture(given: Given) -> Iterator[Problem]:
    """Do not give audio_url and image_url together."""
    if given.items_of("audio_url") and given.items_of("image_url"):
        yield Problem("image_url", "excludes audio_url: give one or the other")


def words_or_media(given: Given) -> Iterator[Problem]:
    """With type=all_reference, give at least one of prompt, image_url, video_url and audio_url."""
    media = ("image_url", "video_url", "audio_url")
    if (
        given["type"] == "all_reference"
        and not given.get("prompt")
        and not any(map(given.has, media))
    ):
        yield Problem("prompt", f"is required without {', '.join(media)}")


def length_of_the_source(given: Given) -> Iterator[Problem]:
    """With video_url, leave out video_length, which is that of the video."""
    if given.items_of("video_url") and "video_length" in given:
        yield Problem("video_length", "is taken from video_url: leave it out")


def seven_slots(given: Given) -> Iterator[Problem]:
    """image_url and video_url share 7 slots, of which an image takes 1 and a video takes 2."""
    taken = len(given.items_of("image_url")) + (2 if given.items_of("video_url") else 0)
    if taken > 7:  # noqa: PLR2004, as documented
        yield Problem(
            "image_url", f"and video_url have 7 slots in all, of which a video takes 2; not {taken}"
        )


def edits_keep_the_source(given: Given) -> Iterator[Problem]:
    """With type=video_edit, leave out aspect_ratio and video_length: video_url has them."""
    if given["type"] == "video_edit":
        for name in ("aspect_ratio", "video_length"):
            if name in given:
                yield Problem(name, "is taken from video_url with type='video_edit': leave it out")


def end_after_start(given: Given) -> Iterator[Problem]:
    """end_s must be more than start_s; their defaults, 10 and 0, count as well."""
    if None not in (given["start_s"], given["end_s"]) and given["end_s"] <= given["start_s"]:
        yield Problem(
            "end_s",
            f"must be more than start_s: {given.describe('end_s')}, {given.describe('start_s')}",
        )
