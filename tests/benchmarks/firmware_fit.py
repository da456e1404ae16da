"""Fit the simulator's formulas to counted runs, and write them: firmware_sim/cycles/fitted.json.

    python -m tests.benchmarks.firmware_fit [CORE ..]

For every core, cell and scheme (and the profile tflite-lstm) two stacks of layers are compiled and emulated, models of
one layer, which compilers treat differently, saturating ones among them, and both directions. Every second layer is
fitted, the error is the largest of all. Shapes with few inputs or units have an error of their own. Prints the errors.
Ten minutes; after every change of the kernels.
"""

import json
import math
import subprocess
import sys
from functools import partial
from itertools import pairwise
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from edgernn._files import write_atomic
from edgernn.firmware_sim.cycles import CORES, Part
from edgernn.firmware_sim.cycles.costs import layers
from edgernn.firmware_sim.cycles.fitted import SMALL, Formula, head_terms, layer_terms
from edgernn.fixedpoint import STATE_SCALE
from edgernn.qmodel import GATES, PROFILE_SCALES, Cell, Head, Layer, Profile, QuantizedModel, Scheme, view_scale
from edgernn.simulate import Simulation, simulate
from tests.models import SCHEMES, VARIANTS, Variant, as_operator, random_affine, random_input, random_model
from tests.test_layout import ROOT

Kind = Scheme | Literal["tflite-lstm"]
OPERATOR: Final = "tflite-lstm"
PATH: Final = ROOT / "firmware_sim" / "cycles" / "fitted.json"
SIZES: Final = (12, 32, 8, 64, 16, 24, 128, 12, 48, 30, 36, 20)  # of the input and of every layer
FEW: Final = (1, 4, 1, 3, 5, 2, 9, 6)  # of a second stack, of small layers
SINGLES: Final = ((28, 20), (16, 36), (12, 32), (9, 9), (40, 160))  # models of one layer
FEW_SINGLES: Final = ((1, 1), (1, 9), (2, 5), (12, 1), (33, 2), (3, 32))
SATURATING: Final = ((12, 32), (8, 10), (33, 1))
HEADS: Final = ((16, 2), (32, 24), (64, 8), (128, 3), (8, 12), (4, 4), (24, 5), (48, 10), (1, 1), (3, 9), (5, 2))
STEPS: Final = 8
ERRORS: Final = ("error", "small_error", "code_error")
STACK_STEP: Final = 64  # bytes to which the deepest stack is rounded up,
STACK_MARGIN: Final = 1.25  # and a quarter more: what a compiler inlines changes with every model


def parts_of(kind: Kind) -> tuple[Scheme, Profile]:
    return ("w8a8", kind) if kind == OPERATOR else (kind, "portable")


def stack(cell: Variant, kind: Kind, sizes: tuple[int, ...], outputs: int) -> QuantizedModel:
    """A model of layers of these sizes, with a head at every step."""
    rng = np.random.default_rng(0)
    scheme, profile = parts_of(kind)
    like: Cell = "gru" if cell == "gru_before" else cell
    view, scale = view_scale(scheme), 0.02 if scheme == "w8a8" else 1e-4
    made: list[Layer] = []
    for columns, hidden in pairwise(sizes):
        rows = len(GATES[like]) * hidden
        first = random_affine(rng, rows, columns, view if made else scale, PROFILE_SCALES[profile], 1.0)
        maps = first, random_affine(rng, rows, hidden, view, PROFILE_SCALES[profile], 1.0)
        maps = maps if profile == "portable" else as_operator(*maps)
        made.append(Layer(like, *maps, cell != "gru_before", 12 if like == "lstm" else 0))
    dense = random_affine(rng, outputs, sizes[-1], view, STATE_SCALE * 4, 2.0)
    return QuantizedModel(tuple(made), Head("steps", dense), scale, scheme=scheme)


def counted(core: str, model: QuantizedModel) -> Simulation:
    found = simulate(model, core, steps=STEPS, level="counted", x=random_input(model, STEPS, 0))
    assert found.equals_kernel, f"{core}: the outputs differ from the kernel's"
    return found


def fit(terms: npt.NDArray[np.float64], costs: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """Constants of the smallest relative errors: terms [n, 3], costs [n]."""
    constants = np.linalg.lstsq(terms / costs[:, None], np.ones(len(costs)), rcond=None)[0]
    a, b, c = (float(f"{value:.6g}") for value in constants)
    return a, b, c


class Sample(NamedTuple):
    """A counted part: what its constants multiply, and whether its shape is a small one."""

    terms: tuple[float, float, float]
    part: Part
    small: bool


def formula(samples: list[Sample]) -> dict[str, Any]:
    """Constants fitted to every second part, and the largest relative errors of all: ordinary and small."""
    terms = np.array([sample.terms for sample in samples])
    costs = np.array([(sample.part.instructions, sample.part.cycles) for sample in samples])
    instructions, cycles = (fit(terms[::2], costs[::2, column]) for column in (0, 1))
    found = Formula(instructions, cycles, 0.0, 0.0)
    errors: dict[bool, list[float]] = {False: [], True: []}
    for index, sample in enumerate(samples):
        errors[sample.small].append(float(np.abs(found.costs(sample.terms) / costs[index] - 1).max()))
    ordinary = max(errors[False])
    small = max(ordinary, *errors[True])
    return {"instructions": instructions, "cycles": cycles, "error": rounded(ordinary), "small_error": rounded(small)}


def rounded(error: float) -> float:
    """Up to two digits, never down."""
    digits = 1 - math.floor(math.log10(error))
    scale: float = 10.0**digits
    return math.ceil(error * scale) / scale


def head_entry(core: str, scheme: Scheme) -> dict[str, Any]:
    """What fitted.json holds of a head."""
    samples = []
    for hidden, outputs in HEADS:
        found = counted(core, stack("rnn", scheme, (4, hidden), outputs))
        part = next(part for part in found.parts if part.name == "head")
        samples.append(Sample(head_terms(core, hidden, outputs), part, hidden < SMALL))
    return formula(samples)


def layer_models(cell: Variant, kind: Kind) -> list[QuantizedModel]:
    """Two stacks, models of one layer, and of two with one direction and with both."""
    scheme, profile = parts_of(kind)
    draw = partial(random_model, cell=cell, scheme=scheme, profile=profile)
    made = [stack(cell, kind, SIZES, 5), stack(cell, kind, FEW, 5)]
    plain = [(shape, False) for shape in (*SINGLES, *FEW_SINGLES)]
    for seed, ((inputs, hidden), saturating) in enumerate([*plain, *((shape, True) for shape in SATURATING)]):
        made.append(draw(seed, input_size=inputs, hidden_size=hidden, head=None, saturating=saturating))
    headed = [draw(seed, input_size=12, hidden_size=24, output_size=1 + 4 * seed) for seed in (0, 1)]
    deep = draw(0, input_size=10, hidden_size=12, layers=2)
    both = draw(0, input_size=10, hidden_size=12, layers=2, bidirectional=True)
    return [*made, *headed, deep, both]


def layer_entry(core: str, cell: Variant, kind: Kind) -> dict[str, Any]:
    """What fitted.json holds of a cell."""
    models = layer_models(cell, kind)
    found = [counted(core, model) for model in models]
    samples = []
    for model, one in zip(models, found, strict=True):
        parts = {part.name: part for part in one.parts}
        for name, layer in layers(model):
            small = min(layer.input_size, layer.hidden_size) < SMALL
            samples.append(Sample(layer_terms(core, layer), parts[name], small))
    return formula(samples) | memory(models, found)


def memory(models: list[QuantizedModel], found: list[Simulation]) -> dict[str, Any]:
    """Bytes of code (once, of every direction, of a head), and of the stack, more than the deepest."""
    counts = np.array([(1.0, len(list(layers(model))), model.head is not None) for model in models])
    code = np.array([one.memory.code for one in found], float)
    constants = np.linalg.lstsq(counts / code[:, None], np.ones(len(code)), rcond=None)[0].round()
    error = float(np.abs(counts @ constants / code - 1).max())
    stacks = [one.memory.stack for one in found]
    most = math.ceil(STACK_MARGIN * (max(stacks) // STACK_STEP + 1)) * STACK_STEP
    sizes = {"code": [int(value) for value in constants], "code_error": rounded(error)}
    return sizes | {"stack": most, "stack_error": most - min(stacks)}


def version(compiler: str) -> str:
    return subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]


def core_entries(core: str) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for scheme in SCHEMES:
        entries[f"head {scheme}"] = head_entry(core, scheme)
        for cell in VARIANTS:
            entries[f"{cell} {scheme}"] = layer_entry(core, cell, scheme)
    entries[f"lstm {OPERATOR}"] = layer_entry(core, "lstm", OPERATOR)
    for name, entry in entries.items():
        errors = ", ".join(f"{what} {value:.1%}" for what, value in entry.items() if what in ERRORS)
        print(f"{core} {name}: {errors}, stack up to {entry.get('stack')}", flush=True)
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
