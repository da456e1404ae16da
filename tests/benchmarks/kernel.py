"""How fast the kernel is, against plain NumPy on the same integers and against PyTorch's float modules.

    python -m tests.benchmarks.kernel

One sequence of 100 steps and 12 inputs, one thread, CPU time. All contenders take turns in one process, so that a slow
moment hits them alike; ratios are of the medians.
"""

import re
import statistics
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import torch

from edgernn.firmware_sim import Stream, run
from edgernn.firmware_sim._affine import accumulate, pack_affine, padded_columns
from edgernn.fixedpoint import cell_rescale, requantize, rescale, round_shift, sat8, sat16, sigmoid, tanh
from edgernn.qmodel import Affine, IntArray, Layer, QuantizedModel
from tests.models import SCHEMES, Variant, random_input, random_model

STEPS, INPUTS = 100, 12
MODULES = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}


# ---- plain NumPy: whole vectors a step, int64 ------------------------------------------------------------------------


def numpy_affine(affine: Affine, x: IntArray) -> IntArray:
    acc = affine.weight.astype(np.int64) @ x.astype(np.int64) + affine.bias
    out: IntArray = requantize(acc, affine.multiplier, affine.shift)
    return out


def numpy_step(layer: Layer, view: IntArray, x: IntArray, h: IntArray, c: IntArray) -> tuple[IntArray, IntArray]:
    px, ph = numpy_affine(layer.input, x), numpy_affine(layer.recurrent, view)
    gates = sat16(px + ph).reshape(len(layer.gates), -1)
    if layer.cell == "rnn":
        return tanh(gates[0]), c
    if layer.cell == "lstm":
        i, f, o, g = sigmoid(gates[0]), sigmoid(gates[1]), sigmoid(gates[3]), tanh(gates[2])
        k = layer.cell_exponent
        c = sat16(sat16(round_shift(f * c, 15)) + sat16(rescale(i * g, 1 << 30, k - 29)))
        return sat16(round_shift(o * tanh(sat16(rescale(c, *cell_rescale(k)))), 15)), c
    size = layer.hidden_size
    r, z = sigmoid(gates[0]), sigmoid(gates[1])
    n = tanh(sat16(px[2 * size :] + sat16(round_shift(r * ph[2 * size :], 15))))
    return sat16(sat16(n - round_shift(z * n, 15)) + round_shift(z * h, 15)), c


def numpy_run(model: QuantizedModel, x: IntArray) -> IntArray:
    """The hidden states [time, hidden_size] of a model of one layer."""
    (layer,) = model.layers
    h: IntArray = np.zeros(layer.hidden_size, np.int64)
    c, hidden = h, []
    for row in x:
        h, c = numpy_step(layer, sat8(round_shift(h, 8)) if model.scheme == "w8a8" else h, row, h, c)
        hidden.append(h)
    return np.array(hidden)


# ---- timing ----------------------------------------------------------------------------------------------------------


def medians(contenders: dict[str, tuple[Callable[[], object], int]], rounds: int = 41) -> dict[str, float]:
    """Median CPU seconds of a call. contenders: what to call, and how often in a row for one reading."""
    readings: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds):
        for name in contenders if turn % 2 else reversed(contenders):
            function, repeats = contenders[name]
            start = time.process_time()
            for _ in range(repeats):
                function()
            readings[name].append((time.process_time() - start) / repeats)
    return {name: statistics.median(values) for name, values in readings.items()}


def torch_call(cell: str, hidden_size: int) -> Callable[[], object]:
    module = MODULES[cell](INPUTS, hidden_size, batch_first=True).eval()
    x = torch.randn(1, STEPS, INPUTS)

    def call() -> object:
        with torch.no_grad():
            return module(x)

    return call


def compare(cell: Variant, scheme: Any, hidden_size: int) -> None:
    model = random_model(0, cell, scheme, input_size=INPUTS, hidden_size=hidden_size, head=None)
    x = random_input(model, STEPS, 0)
    assert np.array_equal(run(model, x)[0], numpy_run(model, x))
    stream = Stream(model)
    seconds = medians(
        {
            "ours": (lambda: run(model, x), 10),
            "step": (lambda: stream.step(x[0]), 100),
            "numpy": (lambda: numpy_run(model, x), 1),
            "torch": (torch_call(cell, hidden_size), 3),
        }
    )
    ours = seconds["ours"]
    print(
        f"{cell:5}{scheme:>6}{hidden_size:5}{ours * 1e6:11.1f}{seconds['step'] * 1e6:11.2f}"
        f"{seconds['torch'] * 1e6:11.1f}{seconds['torch'] / ours:9.1f}x{seconds['numpy'] / ours:9.0f}x",
        flush=True,
    )


# ---- what LLVM made of the dot product -------------------------------------------------------------------------------


def dot_product_instructions(dtype: type[np.generic]) -> Counter[str]:
    """Vector instructions of the dot products alone, with operands of this type."""

    @numba.njit(error_model="numpy")
    def dot_products(affine: Any, x: Any, acc: Any) -> None:
        accumulate(affine, x, acc)

    affine = pack_affine(random_model(0, hidden_size=32).layers[0].recurrent)
    kernel: Any = dot_products
    kernel(affine, np.zeros(padded_columns(32), dtype), np.zeros(affine.rows.shape[1], np.int32))
    (signature,) = kernel.signatures
    name = kernel.overloads[signature].fndesc.mangled_name
    text = kernel.inspect_asm(signature)
    body = text[text.index(f"\n{name}:") :].split(".Lfunc_end")[0]
    return Counter(
        f"{instruction} {register}" for instruction, register in re.findall(r"^\t(vp\w+).*%([xyz])mm\d+$", body, re.M)
    )


def main() -> None:
    torch.set_num_threads(1)
    print(f"{numba.__version__=} {torch.__version__=}; microseconds of CPU time, medians")
    print("cell scheme    H  100 steps   one step      torch  torch/ours numpy/ours")
    for hidden_size in (32, 128):
        for cell in MODULES:
            for scheme in SCHEMES:
                compare(cell, scheme, hidden_size)  # type: ignore[arg-type]
    for dtype in (np.int8, np.int16):
        counts = dot_product_instructions(dtype)
        print(f"dot products of {dtype.__name__}:", ", ".join(f"{n} {name}" for name, n in counts.most_common(9)))


if __name__ == "__main__":
    main()
