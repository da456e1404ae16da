"""Fit the simulator's formulas to counted runs, and write them: firmware_sim/cycles/fitted.json.

    python -m tests.benchmarks.firmware_fit

For every core, cell and scheme one stack of layers is compiled and emulated. Some of its layers are fitted, the error
is measured on the others, and on a model of one layer, which compilers treat differently. Prints the errors.
"""

import json
import subprocess
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edgernn._files import write_atomic
from edgernn.firmware_sim.cycles import CORES
from edgernn.firmware_sim.cycles.fitted import Formula
from edgernn.fixedpoint import PRE_ACTIVATION_SCALE, STATE_SCALE
from edgernn.qmodel import GATES, Affine, Cell, Head, Layer, QuantizedModel, Scheme, view_scale
from edgernn.simulate import Part, Simulation, simulate
from tests.models import SCHEMES, VARIANTS, Variant, random_affine, random_input
from tests.test_layout import ROOT

PATH: Final = ROOT / "firmware_sim" / "cycles" / "fitted.json"
SIZES: Final = (12, 32, 8, 64, 16, 24, 128, 12, 48, 30)  # of the input and of every layer
CHECKED: Final = (4, 6, 7, 8)  # the layers that are not fitted
SINGLE: Final = (12, 32)  # the model of one layer
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


def formula(shapes: list[tuple[int, int, int]], parts: list[Part], fitted: list[int]) -> tuple[Formula, float]:
    """(constants fitted to some of the parts, the largest relative error on the others). shapes: units, columns, rows
    of a unit."""
    terms = np.array([Formula.terms(*shape) for shape in shapes])
    costs = np.array([(part.instructions, part.cycles) for part in parts])
    instructions, cycles = (fit(terms[fitted], costs[fitted, column]) for column in (0, 1))
    found = Formula(instructions, cycles, 0.0)
    others = [index for index in range(len(parts)) if index not in fitted]
    modelled = np.array([found.costs(*shapes[index]) for index in others])
    return found, float(np.abs(modelled / costs[others] - 1).max())


def filled(count: int) -> int:
    return -(-count // 4) * 4


def heads(core: str, scheme: Scheme) -> tuple[dict[str, Any], int]:
    """(a head's formula with its error, bytes of the lookup tables)."""
    models = [stack("rnn", scheme, (4, hidden), outputs) for hidden, outputs in HEADS]
    found = [counted(core, model) for model in models]
    parts = [next(part for part in one.parts if part.name == "head") for one in found]
    shapes = [(outputs, filled(hidden), 1) for hidden, outputs in HEADS]
    affines = [models[0].layers[0].input, models[0].layers[0].recurrent, *_dense(models[0])]
    streamed = sum(affine.weight.size + 8 * affine.rows for affine in affines)
    return _plain(*formula(shapes, parts, FITTED_HEADS)), found[0].memory.tables - streamed


def _dense(model: QuantizedModel) -> list[Affine]:
    return [] if model.head is None else [model.head.dense]


def entry(core: str, cell: Variant, scheme: Scheme, head: dict[str, Any]) -> dict[str, Any]:
    """What fitted.json holds of a core, a cell and a scheme."""
    model = stack(cell, scheme, SIZES, 5)
    found, single = counted(core, model), counted(core, stack(cell, scheme, SINGLE, 5))
    parts = [part for one in (found, single) for part in one.parts if part.name.startswith("layer")]
    gates = len(model.layers[0].gates)
    sizes = [*pairwise(SIZES), SINGLE]
    shapes = [(hidden, filled(columns) + filled(hidden), gates) for columns, hidden in sizes]
    layer = _plain(*formula(shapes, parts, [index for index in range(len(model.layers)) if index not in CHECKED]))
    more = (found.memory.code - single.memory.code) // (len(model.layers) - 1)
    print(f"{core} {cell} {scheme}: layers within {layer['error']:.1%}, heads within {head['error']:.1%}", flush=True)
    code = [single.memory.code - more, more]
    return {"layer": layer, "head": head, "code": code, "stack": max(found.memory.stack, single.memory.stack)}


def _plain(one: Formula, error: float) -> dict[str, Any]:
    return {"instructions": one.instructions, "cycles": one.cycles, "error": float(f"{error:.2g}")}


def version(compiler: str) -> str:
    return subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]


def main() -> None:
    cores: dict[str, Any] = {}
    for core in CORES:
        entries: dict[str, Any] = {}
        lookups = []
        for scheme in SCHEMES:
            head, lookup = heads(core, scheme)
            lookups.append(lookup)
            for cell in VARIANTS:
                entries[f"{cell} {scheme}"] = entry(core, cell, scheme, head)
        cores[core] = {"lookup_bytes": max(lookups), **entries}
    compilers = [version("arm-none-eabi-gcc"), version("riscv64-unknown-elf-gcc")]
    content = json.dumps({"compilers": compilers, "cores": cores}, indent=1)
    write_atomic(PATH, content.encode() + b"\n")


if __name__ == "__main__":
    main()
