"""The harness of ``python -m benchmarks reliability``, on small numbers."""

import pytest

from aireiter_async.testing._options import UsedId
from benchmarks import mutants
from benchmarks.kills import History
from benchmarks.reliability import USED_IDS, submit_through_faults


@pytest.mark.parametrize("used_id", USED_IDS)
def test_faults_lose_and_double_no_task(used_id: UsedId) -> None:
    figures = submit_through_faults(used_id, 150, timeout=2)
    assert (figures.lost, figures.doubled) == (0, 0)
    assert min(figures.settled, figures.retries) > 0


@pytest.mark.parametrize("seed", range(len(USED_IDS)))
def test_kills_and_edits_lose_and_double_no_task(seed: int) -> None:
    figures = History(seed, kills=1).play()
    assert (figures.lost, figures.doubled) == (0, 0)
    assert (figures.killed, figures.charges > 0) == (1, True)


def test_every_wait_ends_whatever_is_damaged() -> None:
    ends = mutants.run(100)
    assert len(ends) == 100
    assert [each for each in ends if each[2]] == []
