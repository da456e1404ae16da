"""The fused passes on several threads, which are those of torch's OpenMP."""

import ctypes

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset

from edgernn.firmware_sim.simd._host import host_form
from edgernn.nn import SequenceModel
from edgernn.quantize.fused import _threads

from .test_fused import outcome, ready

pytestmark = pytest.mark.skipif(host_form() is None, reason="no SIMD form for this processor")


def test_threads_share_a_batch() -> None:
    model, x, lengths = ready("gru", batch=37, layers=2, head="steps")
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 2, 3):
            torch.set_num_threads(threads)
            found.append(outcome(model, x, lengths))
    finally:
        torch.set_num_threads(before)
    (y, gradients), again, same, _ = found
    for other, others in found:
        assert all(torch.equal(a, b) for a, b in zip(y, other, strict=True))
        for name, gradient in others.items():
            assert float((gradient - gradients[name]).norm()) <= 1e-6 * float(gradient.norm())
    assert all(torch.equal(again[1][name], gradient) for name, gradient in same[1].items())


class Steps(Dataset[Tensor]):
    """What a worker process makes of a training step."""

    def __init__(self, model: SequenceModel, x: Tensor, lengths: Tensor) -> None:
        self.model, self.x, self.lengths = model, x, lengths

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Tensor:
        loss = cross_entropy(self.model(self.x, self.lengths), torch.zeros(len(self.x), dtype=torch.int64))
        return torch.autograd.grad(loss, [self.model.rnn.weight_hh_l0])[0]


def test_forked_workers_train_too(monkeypatch: pytest.MonkeyPatch) -> None:
    steps, before = Steps(*ready("gru", batch=20)), torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        here = steps[0]  # with threads, which a forked process has not
        for there in DataLoader(steps, num_workers=1, multiprocessing_context="fork", timeout=60):
            assert float((there[0] - here).norm()) <= 1e-6 * float(here.norm())
        assert _threads.threads_for(20) == 2
        monkeypatch.setattr(_threads, "_process", -1)
        assert _threads.threads_for(20) == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("levels", [1, 0])
def test_every_range_runs_once_however_many_threads_there_are(levels: int) -> None:
    openmp = ctypes.CDLL(torch._C.__file__)
    before = openmp.omp_get_max_active_levels()
    seen = list[tuple[int, slice]]()
    try:
        openmp.omp_set_max_active_levels(levels)  # 0: OpenMP gives one thread
        _threads.over_ranges(37, 3, lambda thread, rows: seen.append((thread, rows)))
    finally:
        openmp.omp_set_max_active_levels(before)
    rows = [row for _, part in sorted(seen, key=lambda s: s[0]) for row in range(37)[part]]
    assert sorted(thread for thread, _ in seen) == [0, 1, 2]
    assert rows == list(range(37))


def test_what_a_thread_raises_reaches_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(thread: int, rows: slice) -> None:
        if thread == 1:
            raise ValueError(f"rows from {rows.start}")

    with pytest.raises(ValueError, match="rows from 16"):
        _threads.over_ranges(37, 2, fails)
    openmp = _threads._openmp()
    assert openmp is not None
    interrupted = openmp._replace(parallel=lambda *_: None)  # as if Ctrl-C came before the first line of Python
    monkeypatch.setattr(_threads, "_openmp", lambda: interrupted)
    with pytest.raises(KeyboardInterrupt):
        _threads.over_ranges(37, 2, fails)
