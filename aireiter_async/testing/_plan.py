"""When things go wrong."""

import random
from collections import deque
from collections.abc import Mapping

from aireiter_async.testing._faults import ENDPOINTS, Endpoint, Fault, check_endpoint


class FaultPlan:
    """Decide which fault strikes next: scripts first, in order, then chance."""

    def __init__(self, chances: Mapping[Fault, float], seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - repeatable, guards nothing
        self._scripts: dict[Endpoint, deque[Fault]] = {name: deque() for name in ENDPOINTS}
        self._chances: dict[Endpoint, list[tuple[Fault, float]]] = {}
        for endpoint in ENDPOINTS:
            rows = [(fault, p) for fault, p in chances.items() if fault.by_chance_on(endpoint)]
            if any(p < 0 for _, p in rows) or sum(p for _, p in rows) > 1:
                raise ValueError(f"the probabilities of {endpoint!r} are not within 0 and 1")
            self._chances[endpoint] = rows

    def script(self, endpoint: Endpoint, faults: tuple[object, ...]) -> None:
        """Append *faults* to the script of *endpoint*, or none of them."""
        check_endpoint(endpoint)
        checked: list[Fault] = []
        for fault in faults:
            if not isinstance(fault, Fault):
                raise TypeError(f"a fault is made by a call such as Fault.reset(), not {fault!r}")
            fault.check(endpoint)
            checked.append(fault)
        self._scripts[endpoint].extend(checked)

    def next(self, endpoint: Endpoint) -> Fault | None:
        """Return the fault of the request that has just come, or None."""
        if script := self._scripts[endpoint]:
            return script.popleft()
        if rows := self._chances[endpoint]:
            point = self._random.random()
            for fault, probability in rows:
                if point < probability:
                    return fault
                point -= probability
        return None

    def left(self, endpoint: Endpoint) -> int:
        """Return how many scripted faults are still to come on *endpoint*."""
        check_endpoint(endpoint)
        return len(self._scripts[endpoint])
