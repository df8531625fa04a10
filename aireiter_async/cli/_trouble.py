"""The demo's service: what is asked of it, and what goes wrong there, decided by a seed."""

import math
import random
from collections import Counter
from collections.abc import Mapping
from itertools import cycle, islice
from typing import Any, Final, Literal

from aireiter_async import SubmitRequest
from aireiter_async.models import Seedance15Pro
from aireiter_async.testing import FakeService, Fault

_Endpoint = Literal["submit", "query", "result"]

_LOST: Final = "tasks accepted, the answer lost"
_UNHEARD: Final = "submits lost or broken off before that"
_BLIND: Final = "looks at a task that went wrong"
_CUT: Final = "downloads broken off"
_PACED: Final = "refusals for pace (429)"

_FAULTS: Final[Mapping[_Endpoint, tuple[tuple[str, Fault], ...]]] = {
    "submit": (
        (_LOST, Fault.lost_answer(accepted=True)),
        (_UNHEARD, Fault.lost_answer()),
        (_LOST, Fault.reset(accepted=True)),
        (_LOST, Fault.truncated(accepted=True)),
        (_UNHEARD, Fault.server_error(503)),
        (_LOST, Fault.html(502, accepted=True)),
        (_UNHEARD, Fault.reset()),
        (_LOST, Fault.no_data(accepted=True)),
        (_UNHEARD, Fault.html(502)),
        (_LOST, Fault.broken_json(accepted=True)),
    ),
    "query": (
        (_BLIND, Fault.lost_answer()),
        (_BLIND, Fault.server_error(500)),
        (_BLIND, Fault.html(502)),
        (_BLIND, Fault.broken_json()),
        (_BLIND, Fault.reset()),
    ),
    "result": ((_CUT, Fault.truncated()), (_CUT, Fault.reset())),
}
_SHARES: Final[Mapping[_Endpoint, float]] = {"submit": 0.15, "query": 0.08, "result": 0.04}
_TOO_MANY: Final = Fault.too_many_requests(1)
_TOO_MANY_AT: Final = (0.5, 0.85)  # of the submits

_SUBJECTS: Final = (
    "a kitten",
    "an old tram",
    "two herons",
    "a paper boat",
    "a red kite",
    "a baker",
)
_PLACES: Final = ("in the sun", "by the sea", "in the first snow", "over the harbour", "at dusk")
_STYLES: Final = ("handheld, close up", "a slow pan, wide", "from above", "in soft focus")


def requests(tasks: int, seed: int) -> list[SubmitRequest]:
    """Make *tasks* requests with prompts of all sorts, under ids that read well."""
    chance = _chance(seed)
    digits = len(str(tasks))
    return [
        SubmitRequest("seedance_1_5_pro", _video(chance), f"demo-{number:0{digits}}")
        for number in range(1, tasks + 1)
    ]


def _video(chance: random.Random) -> Seedance15Pro:
    prompt = ", ".join(
        (f"{chance.choice(_SUBJECTS)} {chance.choice(_PLACES)}", chance.choice(_STYLES))
    )
    return Seedance15Pro(
        prompt=prompt,
        aspect_ratio=chance.choice(("16:9", "9:16")),
        video_length=chance.randint(4, 12),
        resolution=chance.choice(("720p", "1080p")),
    )


class Trouble:
    """What goes wrong in one demo.

    Args:
        tasks: How many are going to be submitted.
        seed: Decides which request is struck by what.
    """

    def __init__(self, tasks: int, seed: int) -> None:
        chance = _chance(seed)
        self._scripts: dict[_Endpoint, list[tuple[str, Fault]]] = {
            name: _script(name, tasks, chance) for name in _FAULTS
        }
        for share in _TOO_MANY_AT:
            self._scripts["submit"].insert(math.ceil(share * tasks), (_PACED, _TOO_MANY))
        self._seed = seed

    def service(self) -> FakeService:
        """Make the service: with invented prices, late to show a task, quick to make a video.

        A used id is charged again, the worst that a service can do.
        """
        service = FakeService(
            durations=1.25,
            spread=0.2,
            price=_price,
            used_id="charge",
            visible_after=0.3,
            seed=self._seed,
            record=False,
        )
        for name, script in self._scripts.items():
            service.script(name, *(fault for _, fault in script))
        return service

    def struck(self, service: FakeService) -> dict[str, int]:
        """Count what has gone wrong so far, by its name."""
        counts: Counter[str] = Counter()
        for name, script in self._scripts.items():
            counts.update(
                what for what, _ in script[: len(script) - service.scripted(name)] if what
            )
        return dict(counts)


def _script(endpoint: _Endpoint, tasks: int, chance: random.Random) -> list[tuple[str, Fault]]:
    """Spread faults over as many requests as are certain to come: one for each task."""
    count = math.ceil(_SHARES[endpoint] * tasks)
    script = list(islice(cycle(_FAULTS[endpoint]), count))
    script += [("", Fault.ok())] * (tasks - count)
    chance.shuffle(script)
    return script


def _price(_model: str, params: Mapping[str, Any]) -> float:
    seconds: int = params["video_length"]
    return seconds * (2.5 if params["resolution"] == "1080p" else 1.25)


def _chance(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - repeatable, guards nothing
