"""How fast the int8 kernel is: against float and int8 in other runtimes, and against what the CPU can do at all.

    python -m tests.benchmarks.inference [--quick] [--only PART ..] [--hidden H ..]

Parts: sequence, step, batch, growth, forms (of the kernels, beside the best for this host), instructions. 12 inputs,
100 steps, one layer without a head, one thread, CPU time. Three to four minutes; no other load should run beside it.
"""

import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Final

import numpy as np
import torch

from edgernn.engines import ENGINES
from edgernn.firmware_sim import Stream, run, run_batch
from edgernn.qmodel import IntArray, QuantizedModel, Scheme
from tests import vectorised
from tests.models import SCHEMES, Variant, random_input, random_model

from . import instructions
from .infer_peers import ORT, TORCH, Array, float_input, module, onnx_call, onnx_model, onnx_session, peers, torch_call
from .machine import describe, int8_peak, restart_with_threads
from .report import QUICK_ROUNDS, Options, Target, options, show, show_targets
from .timing import ROUNDS, Call, Timing, measure

INPUTS: Final = 12
STEPS: Final = 100
CELLS: Final[tuple[Variant, ...]] = ("lstm", "gru", "rnn")
PARTS: Final = ("sequence", "step", "batch", "growth", "forms", "instructions")
BATCH: Final = 1000
PIECE: Final = 64  # sequences that the float runtimes take at once
TARGET_SIZES: Final = (32, 128)
VARIABLE: Final = "EDGERNN_SIMD"
FORMS: Final = ("avx2", "off") if platform.machine() in ("x86_64", "AMD64") else ("off",)  # beside the best one


def ours(cell: Variant, scheme: Scheme, hidden_size: int) -> QuantizedModel:
    return random_model(0, cell, scheme, input_size=INPUTS, hidden_size=hidden_size, head=None)


# ---- one sequence ----------------------------------------------------------------------------------------------------


def our_calls(cell: Variant, hidden_size: int, quick: bool) -> dict[str, Call]:
    """The kernel, its exports in other runtimes, and the same integers in NumPy; all have been found equal."""
    calls: dict[str, Call] = {}
    for scheme in SCHEMES:
        model = ours(cell, scheme, hidden_size)
        x = random_input(model, STEPS, 0)
        check(f"{cell}-{hidden_size} {scheme}", run(model, x)[0], vectorised.run(model, x))
        calls[f"edgernn {scheme}"] = partial(run, model, x)
        if scheme == "w8a8" and not quick:
            for name, title in (("litert", "LiteRT"), ("tflm", "TFLM"), ("onnxruntime", "ORT")):
                calls[f"{title}, export of edgernn"] = exported(name, model, x)
            calls["NumPy, step by step"] = partial(vectorised.run, model, x)
    return calls


def check(what: str, found: IntArray, expected: IntArray) -> None:
    if not np.array_equal(found, expected):
        raise AssertionError(f"{what}: {np.count_nonzero(found != expected)} of {expected.size} integers differ")


def exported(name: str, model: QuantizedModel, x: IntArray) -> Call:
    """The exact graph in a runtime, with its number of steps fixed, which is the fastest."""
    engine = ENGINES[name]
    session = engine.open(model, "sequence", engine.export(model, "sequence", STEPS))
    check(name, session(x), run(model, x)[0])
    return partial(session, x)


def sequence_part(chosen: Options) -> Iterator[Target]:
    for cell in CELLS:
        found = {size: sequence_times(cell, size, chosen.quick) for size in chosen.hidden_sizes}
        show_sequences(f"{cell.upper()}, one sequence of {STEPS} steps", found)
        for size, (times, _) in found.items():
            label = f"{cell.upper()}-{size}"
            if size in TARGET_SIZES and cell != "rnn":
                yield Target(f"int8 {label} / ORT float", times["edgernn w8a8"].over(times[ORT]), 0.35)
                yield Target(f"w8a16 {label} / w8a8", times["edgernn w8a16"].over(times["edgernn w8a8"]), 1.6)


def sequence_times(cell: Variant, hidden_size: int, quick: bool) -> tuple[dict[str, Timing], dict[str, str]]:
    """Times and errors against torch's float by name."""
    torch.manual_seed(0)
    others = list(peers(cell, hidden_size, STEPS, INPUTS, quick))
    own = our_calls(cell, hidden_size, quick)
    calls = {peer.name: peer.run for peer in others} | own
    errors = {peer.name: f"{peer.error:.0e}" for peer in others} | dict.fromkeys(own, "exact")
    return measure(calls, rounds=QUICK_ROUNDS if quick else ROUNDS), errors


def show_sequences(title: str, found: dict[int, tuple[dict[str, Timing], dict[str, str]]]) -> None:
    headers, lines = [""], []
    for size in found:
        headers += [f"H={size}, us", "/ torch", "/ ORT"]
    times, errors = next(iter(found.values()))
    for name in times:
        line = [name]
        for own, _ in found.values():
            ratios = (own[name].over(own[reference]) for reference in (TORCH, ORT))
            line += [f"{1e6 * own[name].seconds:.1f}", *(f"{ratio:.2f}" for ratio in ratios)]
        lines.append((*line, errors[name]))
    show(title, (*headers, "error"), lines)


# ---- a single step ---------------------------------------------------------------------------------------------------


def step_part(chosen: Options) -> None:
    lines = []
    for size in chosen.hidden_sizes:
        for cell in ("lstm", "gru"):
            calls = step_calls(cell, size)
            times = measure(calls, rounds=QUICK_ROUNDS if chosen.quick else ROUNDS)
            shown = [f"{1e6 * times[name].seconds:.1f}" for name in calls]
            lines.append((f"{cell.upper()}-{size}", *shown, f"{times['edgernn'].over(times[ORT]):.2f}"))
    show("One step of a stream, w8a8, microseconds", ("", *calls, "edgernn / ORT"), lines)


def step_calls(cell: Variant, hidden_size: int) -> dict[str, Call]:
    model, rnn = ours(cell, "w8a8", hidden_size), module(cell, INPUTS, hidden_size)
    row, x = random_input(model, 1, 0)[0], float_input(1, 1, INPUTS)
    calls: dict[str, Call] = {"edgernn": partial(Stream(model).step, row), TORCH: torch_step(rnn, x)}
    calls[ORT] = onnx_step(onnx_model(cell, rnn, states=True).SerializeToString(), x.numpy(), hidden_size)
    for name, title in (("litert", "LiteRT"), ("tflm", "TFLM")):
        stepper = ENGINES[name].stream(model, "stream")
        calls[f"{title}, export"] = partial(stepper.step, row)
    return calls


def torch_step(rnn: torch.nn.Module, x: torch.Tensor) -> Call:
    state: Any = None

    @torch.inference_mode()
    def call() -> None:
        nonlocal state
        _, state = rnn(x, state)

    return call


def onnx_step(content: bytes, x: Array, hidden_size: int) -> Call:
    session = onnx_session(content)
    names = [entry.name for entry in session.get_inputs()]
    states = [np.zeros((1, 1, hidden_size), np.float32) for _ in names[1:]]

    def call() -> None:
        _, *states[:] = session.run(None, dict(zip(names, (x, *states), strict=True)))

    return call


# ---- a thousand sequences --------------------------------------------------------------------------------------------


def batch_part(chosen: Options) -> Iterator[Target]:
    """The throughput of a test set, as a share of what the CPU can multiply and add."""
    try:
        peak = int8_peak()
    except RuntimeError as error:
        print(f"\nno batches: {error}")
        return
    lines, rates = [], []
    for size in chosen.hidden_sizes:
        for cell in ("lstm", "gru"):
            calls, products = batch_calls(cell, size)
            times = measure(calls | {"peak": peak.run}, rounds=QUICK_ROUNDS if chosen.quick else ROUNDS)
            rates.append(peak.macs / times["peak"].seconds / 1e9)
            for name in calls:
                share = times["peak"].over(times[name]) * products / peak.macs
                ratio = times[name].over(times[TORCH])
                rate = products / times[name].seconds / 1e9
                numbers = f"{1e3 * times[name].seconds:.1f}", f"{rate:.1f}", f"{100 * share:.0f} %", f"{ratio:.2f}"
                lines.append((f"{cell.upper()}-{size}", name, *numbers))
                if size == 128 and name == "edgernn w8a8":
                    what = f"int8 {cell.upper()}-{size}, {BATCH} sequences"
                    yield Target(what, 100 * share, 40, "% of the peak", at_least=True)
    title = f"{BATCH} sequences of {STEPS} steps; peak of {peak.form}: {max(rates):.0f} GMAC/s"
    show(title, ("", "", "ms", "GMAC/s", "of the peak", "/ torch"), lines)


def batch_calls(cell: Variant, hidden_size: int) -> tuple[dict[str, Call], int]:
    """(calls, products that each of them takes)."""
    rnn, x = module(cell, INPUTS, hidden_size), float_input(BATCH, STEPS, INPUTS)
    content = onnx_model(cell, rnn).SerializeToString()
    parts = torch.split(x, PIECE)
    calls: dict[str, Call] = {
        TORCH: partial(call_all, [torch_call(rnn, part) for part in parts]),
        ORT: partial(call_all, [onnx_call(content, part, hidden_size) for part in parts]),
    }
    for scheme in SCHEMES:
        model = ours(cell, scheme, hidden_size)
        integers = random_input(model, STEPS, 0, (BATCH,))
        check("a batch", run_batch(model, integers)[-1], vectorised.run(model, integers[-1]))
        calls[f"edgernn {scheme}"] = partial(run_batch, model, integers)
    layer = model.layers[0]
    return calls, BATCH * STEPS * (layer.input.weight.size + layer.recurrent.weight.size)


def call_all(calls: Sequence[Call]) -> None:
    for call in calls:
        call()


# ---- growth ----------------------------------------------------------------------------------------------------------

GROWTH: Final[dict[str, tuple[int, ...]]] = {
    "steps": (1, 10, 100, 1000),
    "hidden size": (8, 16, 32, 64, 128, 256, 512),
    "batch": (1, 4, 16, 64, 256),
}


def growth_part(quick: bool) -> None:
    """How the cost grows with steps, hidden size and batch, each with the others at 100, 64 and 1."""
    for what, values in GROWTH.items():
        lines = []
        for value in values:
            sizes = {"steps": STEPS, "hidden size": 64, "batch": 1} | {what: value}
            found = grown(sizes["steps"], sizes["hidden size"], sizes["batch"], 2 if quick else 5)
            unit = 1e9 / (sizes["steps"] * sizes["batch"])
            line: list[object] = [value]
            for own, reference in found:
                line += [f"{1e6 * own.seconds:.1f}", f"{unit * own.seconds:.0f}", f"{own.over(reference):.2f}"]
            lines.append(line)
        headers = (
            what,
            *(f"{cell}{unit}" for cell in ("LSTM", "GRU") for unit in (", us", ", ns/step", " / ORT float")),
        )
        show(f"Growth with {what}, w8a8", headers, lines)


def grown(steps: int, hidden_size: int, batch: int, rounds: int) -> list[tuple[Timing, Timing]]:
    """For LSTM and GRU: the kernel's time, and ONNX Runtime's."""
    found = []
    for cell in ("lstm", "gru"):
        model, x = ours(cell, "w8a8", hidden_size), float_input(batch, steps, INPUTS)
        integers = random_input(model, steps, 0, (batch,))
        content = onnx_model(cell, module(cell, INPUTS, hidden_size)).SerializeToString()
        own = partial(run, model, integers[0]) if batch == 1 else partial(run_batch, model, integers)
        times = measure({"ours": own, ORT: onnx_call(content, x, hidden_size)}, rounds=rounds)
        found.append((times["ours"], times[ORT]))
    return found


# ---- other forms of the kernels --------------------------------------------------------------------------------------


def forms_part(chosen: Options) -> None:
    """The same sequences in processes that are told which form of the kernels to use."""
    command = [sys.executable, "-m", "tests.benchmarks.inference", "--quick", "--only", "sequence", "--hidden"]
    sizes = [size for size in chosen.hidden_sizes if size in TARGET_SIZES] or chosen.hidden_sizes
    for form in FORMS:
        print(flush=True)
        subprocess.run([*command, *map(str, sizes)], env=os.environ | {VARIABLE: form}, check=False)


def main() -> None:
    chosen = options("tests.benchmarks.inference", "The speed of the int8 kernel.", PARTS, (32, 64, 128, 256))
    restart_with_threads(1)
    print(describe(), flush=True)
    targets: list[Target] = []
    if "sequence" in chosen.parts:
        targets += sequence_part(chosen)
    if "step" in chosen.parts:
        step_part(chosen)
    if "batch" in chosen.parts:
        targets += batch_part(chosen)
    if "growth" in chosen.parts:
        growth_part(chosen.quick)
    if "forms" in chosen.parts:
        forms_part(chosen)
    if "instructions" in chosen.parts:
        instructions.main()
    if VARIABLE not in os.environ:  # the targets are those of the best form
        show_targets(targets)


if __name__ == "__main__":
    main()
