"""kill -9 at any moment leaves whole files of one model, and training goes on to the same end (see soak_kills)."""

import os
import time
from pathlib import Path

import numpy as np
import pytest

from edgernn._files import write_atomic

from .soak_kills import SCENARIOS, Kills

SEED = 11


@pytest.fixture(scope="module")
def kills(tmp_path_factory: pytest.TempPathFactory) -> Kills:
    return Kills(tmp_path_factory.mktemp("kills"))


@pytest.mark.parametrize(("scenario", "writes"), [(SCENARIOS[0], 8), (SCENARIOS[1], 8), (SCENARIOS[2], 7)])
def test_killed_in_the_midst_of_writing(kills: Kills, scenario: str, writes: int) -> None:
    """Four checkpoints and the first one, metrics, the model in float and in integers; an export writes seven files.

    Over another model, that one's files are removed first: such a moment is among those drawn.
    """
    points = kills.points(scenario)
    assert points >= 6 * writes
    first = 1 if scenario == "train" else points * 3 // 4
    point = int(np.random.default_rng(SEED).integers(first, points)) + 1
    print(f"{scenario}, point {point} of {points}, seed {SEED}")
    kills.kill_at_point(scenario, point)


def test_killed_at_random_moments(kills: Kills) -> None:
    kills.kill_at_random(np.random.default_rng(SEED))


def test_what_a_killed_writer_left_is_removed_in_time(tmp_path: Path) -> None:
    """But not what a writer may still be at, and nothing that only looks similar."""
    old = (".model.ernn.abc_1234.tmp", ".model.ernn.zzzzzzzz.tmp")
    kept = (".model.ernn.tmp", ".model.ernn.backup", ".model.ernn.abc_1234.tmp.gz", ".other.ernn.abc_1234.tmp", "model")
    young = ".model.ernn.young_12.tmp"
    for name in (*old, *kept, young):
        (tmp_path / name).write_bytes(b"part")
        os.utime(tmp_path / name, (time.time() - 7200, time.time() - (60 if name == young else 7200)))
    write_atomic(tmp_path / "model.ernn", b"whole")
    assert {path.name for path in tmp_path.iterdir()} == {*kept, young, "model.ernn"}
    assert (tmp_path / "model.ernn").read_bytes() == b"whole"
