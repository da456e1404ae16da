"""The benchmark's table for models that the command line's tests do not train."""

from pathlib import Path

import numpy as np
import pytest

from edgernn.benchmark import benchmark, contenders
from edgernn.data import Split

from .models import random_model


@pytest.mark.parametrize("head", ["last", "steps"])
def test_a_bidirectional_model_has_no_time_of_a_step(head: str, tmp_path: Path) -> None:
    model = random_model(30, "gru", input_size=3, hidden_size=4, head=head, bidirectional=True)  # type: ignore[arg-type]
    model.save(tmp_path / "model.ernn")
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (5, 6, 3)).astype(np.float32)
    lengths = np.array([6, 1, 4, 6, 2])
    y = rng.integers(0, 3, (5, 6) if head == "steps" else 5)
    after = np.arange(6) >= lengths[:, None]
    x[after] = 0
    if head == "steps":
        y[after] = -1
    rows = benchmark(model, list(contenders(model, tmp_path / "model.ernn", None)), Split(x, lengths, y), timed=3)
    names = ["numba", "litert", "tflm", "onnxruntime exact", "onnxruntime int8 weights"]
    assert [row.name for row in rows] == names
    assert [row.equals_kernel for row in rows] == [True] * 4 + [None]
    assert all(row.step_seconds is row.step_ratio is None for row in rows)
    assert all(row.sequence_seconds > 0 and row.bytes > 0 for row in rows)
    assert len({row.quality for row in rows[:4]}) == 1
