"""The demo's requests and faults, derived from a seed."""

import math
import random
from collections import Counter
from collections.abc import Mapping
from itertools import cycle, islice
from typing import Final, Literal

from aireiter_async import SubmitRequest, models
from aireiter_async.testing import FakeService, Fault

_Endpoint = Literal["submit", "query", "result"]

LOST: Final = "tasks accepted, the response lost"
_NOT_ACCEPTED: Final = "submits that failed before that"
_POLLS: Final = "polls that failed"
_CUT: Final = "downloads cut off"
_LIMITED: Final = "rate limits (429)"

_FAULTS: Final[Mapping[_Endpoint, tuple[tuple[str, Fault], ...]]] = {
    "submit": (
        (LOST, Fault.lost_response(accepted=True)),
        (_NOT_ACCEPTED, Fault.lost_response()),
        (LOST, Fault.reset(accepted=True)),
        (LOST, Fault.truncated(accepted=True)),
        (_NOT_ACCEPTED, Fault.server_error(503)),
        (LOST, Fault.html(502, accepted=True)),
        (_NOT_ACCEPTED, Fault.reset()),
        (LOST, Fault.no_data(accepted=True)),
        (_NOT_ACCEPTED, Fault.html(502)),
        (LOST, Fault.broken_json(accepted=True)),
    ),
    "query": (
        (_POLLS, Fault.lost_response()),
        (_POLLS, Fault.server_error(500)),
        (_POLLS, Fault.html(502)),
        (_POLLS, Fault.broken_json()),
        (_POLLS, Fault.reset()),
    ),
    "result": ((_CUT, Fault.truncated()), (_CUT, Fault.reset())),
}
_SHARES: Final[Mapping[_Endpoint, float]] = {"submit": 0.15, "query": 0.08, "result": 0.04}
_TOO_MANY: Final = Fault.too_many_requests(1)
_TOO_MANY_AT: Final = (0.5, 0.85)  # of the submits

_SOUND_EVERY: Final = 40  # tasks; the others are pictures
_SOUND: Final = "seed_audio_1_0"
_PICTURES: Final = ("nano_banana_v2", "z_image_turbo")
_PRICES: Final = {"nano_banana_v2": 3.0, "z_image_turbo": 1.25, _SOUND: 2.5}
_SUBJECTS: Final = (
    "a kitten",
    "an old tram",
    "two herons",
    "a paper boat",
    "a red kite",
    "a baker",
)
_PLACES: Final = ("in the sun", "by the sea", "in the first snow", "over the harbour", "at dusk")
_STYLES: Final = ("close up", "wide", "from above", "in soft focus")


def requests(tasks: int, seed: int) -> list[SubmitRequest]:
    """Make *tasks* requests with varied prompts and readable IDs."""
    chance = _chance(seed)
    digits = len(str(tasks))
    made: list[SubmitRequest] = []
    for number in range(1, tasks + 1):
        words = map(chance.choice, (_SUBJECTS, _PLACES, _STYLES))
        params = {"prompt": "{} {}, {}".format(*words)}
        if number % _SOUND_EVERY:
            name = chance.choice(_PICTURES)
            params["aspect_ratio"] = chance.choice(("1:1", "16:9", "9:16"))
        else:
            name = _SOUND
        made.append(SubmitRequest(name, models.build(name, params), f"demo-{number:0{digits}}"))
    return made


class FaultScript:
    """The faults of one demo.

    Args:
        tasks: The number of tasks.
        seed: The random seed.
    """

    def __init__(self, tasks: int, seed: int) -> None:
        chance = _chance(seed)
        self._scripts: dict[_Endpoint, list[tuple[str, Fault]]] = {
            name: _script(name, tasks, chance) for name in _FAULTS
        }
        for share in _TOO_MANY_AT:
            self._scripts["submit"].insert(math.ceil(share * tasks), (_LIMITED, _TOO_MANY))
        self._seed = seed

    def service(self) -> FakeService:
        """Create the service: its prices are invented, and tasks become visible late.

        A used ID is charged again, which is the worst case.
        """
        service = FakeService(
            durations=1.25,
            spread=0.2,
            price=_PRICES,
            used_id="charge",
            visible_after=0.3,
            seed=self._seed,
            record=False,
        )
        for name, script in self._scripts.items():
            service.script(name, *(fault for _, fault in script))
        return service

    def injected(self, service: FakeService) -> dict[str, int]:
        """Count the faults so far, by their names."""
        counts: Counter[str] = Counter()
        for name, script in self._scripts.items():
            counts.update(
                what for what, _ in script[: len(script) - service.scripted(name)] if what
            )
        return dict(counts)


def _script(endpoint: _Endpoint, tasks: int, chance: random.Random) -> list[tuple[str, Fault]]:
    """Spread faults over the requests that are certain to happen: one per task."""
    count = math.ceil(_SHARES[endpoint] * tasks)
    script = list(islice(cycle(_FAULTS[endpoint]), count))
    script += [("", Fault.ok())] * (tasks - count)
    chance.shuffle(script)
    return script


def _chance(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - repeatable, not for security
