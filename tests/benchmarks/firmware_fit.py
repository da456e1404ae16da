"""Fit the simulator's formulas to counted runs, and write them: firmware_sim/cycles/fitted.json.

    python -m tests.benchmarks.firmware_fit [CORE ..]

For every core, cell and scheme one stack of layers is compiled and emulated. Some of its layers are fitted, the error
is measured on the others, and on models of one layer, which compilers treat differently. Prints the errors. Five
minutes; after every change of the kernels.
"""

import json
import subprocess
import sys
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edgernn._files import write_atomic
from edgernn.firmware_sim.cycles import CORES, Part
from edgernn.firmware_sim.cycles.fitted import Formula, head_terms, layer_terms
from edgernn.fixedpoint import PRE_ACTIVATION_SCALE, STATE_SCALE
from edgernn.qmodel import GATES, Cell, Head, Layer, QuantizedModel, Scheme, view_scale
from edgernn.simulate import Simulation, simulate
from tests.models import SCHEMES, VARIANTS, Variant, random_affine, random_input, random_model
from tests.test_layout import ROOT

PATH: Final = ROOT / "firmware_sim" / "cycles" / "fitted.json"
SIZES: Final = (12, 32, 8, 64, 16, 24, 128, 12, 48, 30, 36, 20)  # of the input and of every layer
CHECKED: Final = (4, 6, 7, 8, 9, 10)  # the layers that are not fitted
SINGLES: Final = ((28, 20), (16, 36), (12, 32))  # models of one layer, which are not fitted either
HEADS: Final = ((16, 2), (32, 24), (64, 8), (128, 3), (8, 12), (24, 5), (48, 10))  # hidden sizes and outputs
FITTED_HEADS: Final = [0, 1, 2, 3, 4]
STEPS: Final = 8


def stack(cell: Variant, scheme: Scheme, sizes: tuple[int, ...], outputs: int) -> QuantizedModel:
    """A model of layers of these sizes, with a head at every step."""
    rng = np.random.default_rng(0)
    kind: Cell = "gru" if cell == "gru_before" else cell
    view, scale = view_scale(scheme), 0.02 if scheme == "w8a8" else 1e-4
    layers: list[Layer] = []
    for columns, hidden in pairwise(sizes):
        rows = len(GATES[kind]) * hidden
        first = random_affine(rng, rows, columns, view if layers else scale, PRE_ACTIVATION_SCALE, 1.0)
        recurrent = random_affine(rng, rows, hidden, view, PRE_ACTIVATION_SCALE, 1.0)
        layers.append(Layer(kind, first, recurrent, cell != "gru_before", 12 if kind == "lstm" else 0))
    dense = random_affine(rng, outputs, sizes[-1], view, STATE_SCALE * 4, 2.0)
    return QuantizedModel(tuple(layers), Head("steps", dense), scale, scheme=scheme)


def counted(core: str, model: QuantizedModel) -> Simulation:
    found = simulate(model, core, steps=STEPS, level="counted", x=random_input(model, STEPS, 0))
    assert found.equals_kernel, f"{core}: the outputs differ from the kernel's"
    return found


def fit(terms: npt.NDArray[np.float64], costs: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """Constants of the smallest relative errors: terms [n, 3], costs [n]."""
    constants = np.linalg.lstsq(terms / costs[:, None], np.ones(len(costs)), rcond=None)[0]
    a, b, c = (float(f"{value:.6g}") for value in constants)
    return a, b, c


def formula(terms: list[tuple[float, float, float]], parts: list[Part], fitted: list[int]) -> dict[str, Any]:
    """Constants fitted to some of the parts, and the largest relative error on the others."""
    of = np.array(terms)
    costs = np.array([(part.instructions, part.cycles) for part in parts])
    instructions, cycles = (fit(of[fitted], costs[fitted, column]) for column in (0, 1))
    found = Formula(instructions, cycles, 0.0)
    others = [index for index in range(len(parts)) if index not in fitted]
    modelled = np.array([found.costs(terms[index]) for index in others])
    error = float(np.abs(modelled / costs[others] - 1).max())
    return {"instructions": instructions, "cycles": cycles, "error": float(f"{error:.2g}")}


def head_entry(core: str, scheme: Scheme) -> tuple[dict[str, Any], int]:
    """(what fitted.json holds of a head, bytes of the lookup tables)."""
    models = [stack("rnn", scheme, (4, hidden), outputs) for hidden, outputs in HEADS]
    found = [counted(core, model) for model in models]
    parts = [next(part for part in one.parts if part.name == "head") for one in found]
    streamed = sum(part.streamed for part in found[0].parts)
    lookups = found[0].memory.tables - streamed
    return formula([head_terms(core, *sizes) for sizes in HEADS], parts, FITTED_HEADS), lookups


def layer_entry(core: str, cell: Variant, scheme: Scheme) -> dict[str, Any]:
    """What fitted.json holds of a cell."""
    model = stack(cell, scheme, SIZES, 5)
    others = [
        random_model(seed, cell, scheme, input_size=inputs, hidden_size=hidden, head=None)
        for seed, (inputs, hidden) in enumerate(SINGLES)
    ]
    found, *singles = (counted(core, one) for one in (model, *others))
    layers = [layer for one in (model, *others) for layer in one.layers]
    parts = [part for one in (found, *singles) for part in one.parts if part.name.startswith("layer")]
    chosen = [index for index in range(len(model.layers)) if index not in CHECKED]
    single = max(one.memory.code for one in singles)
    more = (found.memory.code - single) // (len(model.layers) - 1)
    memory = {"code": [single - more, more], "stack": max(one.memory.stack for one in (found, *singles))}
    return formula([layer_terms(core, layer) for layer in layers], parts, chosen) | memory


def version(compiler: str) -> str:
    return subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]


def core_entries(core: str) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for scheme in SCHEMES:
        entries[f"head {scheme}"], entries["lookup_bytes"] = head_entry(core, scheme)
        for cell in VARIANTS:
            entries[f"{cell} {scheme}"] = layer_entry(core, cell, scheme)
        errors = ", ".join(f"{name} {entry['error']:.1%}" for name, entry in entries.items() if scheme in name)
        print(f"{core}: {errors}", flush=True)
    return entries


def text(compilers: list[str], cores: dict[str, dict[str, Any]]) -> str:
    """JSON with a line for every entry."""
    blocks = []
    for core, entries in cores.items():
        lines = ",\n".join(f"   {json.dumps(name)}: {json.dumps(entry)}" for name, entry in entries.items())
        blocks.append(f"  {json.dumps(core)}: {{\n{lines}\n  }}")
    inner = ",\n".join(blocks)
    return f'{{\n "compilers": {json.dumps(compilers)},\n "cores": {{\n{inner}\n }}\n}}\n'


def main() -> None:
    compilers = [version("arm-none-eabi-gcc"), version("riscv64-unknown-elf-gcc")]
    known = json.loads(PATH.read_text())["cores"] if PATH.is_file() else {}
    chosen = sys.argv[1:] or list(CORES)
    content = text(compilers, {core: core_entries(core) if core in chosen else known[core] for core in CORES})
    json.loads(content)
    write_atomic(PATH, content.encode())


if __name__ == "__main__":
    main()
