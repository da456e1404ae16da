"""Sums at the very edges of what the kernels' packings are proven for: one below, at and one above every bound.

A layout's fast forms hold as long as no sum reaches a power of two: 2^23 where two rows share a word, 2^(31 - left)
where sums are shifted left by `left` before their high word is taken. Layers of one model try every such power, with
the shifts at either end of what goes with it; operands at -limit make sums of exactly the bound.
"""

from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from edgernn.export import to_c
from edgernn.export.c import TARGETS
from edgernn.export.c.layouts import GENERAL, LAYOUTS, PACKED
from edgernn.export.c.network import Network
from edgernn.firmware_sim import run
from edgernn.firmware_sim.emulation import Session, build
from edgernn.fixedpoint import PRE_ACTIVATION_SCALE
from edgernn.qmodel import Affine, IntArray, Layer, QuantizedModel, Scheme, State

from . import oracle
from .firmware_host import HostFirmware
from .models import SCHEMES

# Of 16 units: the signs of both sums, the weights that make them, and whether a row has the lower shift. Sums of unlike
# signs nearly cancel, so that tanh shows their last bits; both negative, the unit is -1 (nearly) whatever comes. Four
# signs by four sizes, shifted on by one from block to block: every place in a block has all of either.
SIGNS, SIZES = list(product((-1, 1), repeat=2)), list(product((1, 127), (False, True)))
UNITS = [(*SIGNS[block], *SIZES[(block + place) % 4]) for block in range(4) for place in range(4)]
ALWAYS_NEGATIVE = UNITS.index((-1, -1, 1, False))

Case = tuple[int, int, int]  # a bound, the least and the largest shift of its rows


def cases(layout: str) -> list[Case]:
    """Around the powers of two from 2^22 to 2^31, with the least and the largest shifts that a left shift of 31 - power
    does for (in v6m the least is one more); then with one beyond the largest."""
    first = 14 if layout == "v6m" else 15
    within = [
        (2**power + past, max(8, power - first), 1 + power)
        for power, past in product(range(22, 32), (-1, 0, 1))
        if 2**power + past < 2**31
    ]
    return within + [(2**power - 1, power - first, 2 + power) for power in (23, 27, 31)]


def edge(sign: int, multiplier: int, case: Case, columns: int, limit: int, scale: float) -> Affine:
    """Every row's |bias| + limit * |weight| is the bound; operands at -limit reach it. sign: which of UNITS' signs."""
    bound, least, most = case
    signs = np.array([unit[sign] for unit in UNITS])
    size = np.array([unit[2] for unit in UNITS])
    shift = np.array([least if unit[3] else most for unit in UNITS])
    weight = np.zeros((len(UNITS), columns), np.int8)
    weight[:, min(ALWAYS_NEGATIVE, columns - 1)] = -signs * size
    bias = (signs * (bound - size * limit)).astype(np.int32)
    real = multiplier * 2.0**-shift * float(np.float32(PRE_ACTIVATION_SCALE)) / float(np.float32(scale))
    affine = Affine(weight, bias, real.astype(np.float32), scale, PRE_ACTIVATION_SCALE)
    assert np.array_equal(affine.shift, shift)
    assert (affine.accumulator_bound(limit) == bound).all()
    return affine


def edges(scheme: Scheme, layout: str) -> QuantizedModel:
    """A model with a layer for each of a layout's cases."""
    view_scale, limit = (2.0**-7, 128) if scheme == "w8a8" else (2.0**-15, 32768)
    layers = [
        Layer(
            "rnn",
            edge(0, 20000, case, len(UNITS) if index else 1, limit, view_scale),
            edge(1, 17000, case, len(UNITS), limit, view_scale),
        )
        for index, case in enumerate(cases(layout))
    ]
    return QuantizedModel(tuple(layers), None, view_scale, 0, scheme)


@cache
def expected(scheme: Scheme, v6m: bool) -> tuple[QuantizedModel, IntArray, list[IntArray]]:
    """The model; inputs; every layer's state before the first step and after each: firmware_sim's and the oracle's."""
    model = edges(scheme, "v6m" if v6m else "generic")
    limit = model.input_limit
    x: IntArray = np.array([[-limit], [limit - 1], [0], [-limit]]).astype(model.input_dtype)
    state: State = {name: np.full(spec.size, -32768, np.int16) for name, spec in model.states.items()}
    rows = [as_rows(state)]
    for step in range(len(x)):
        _, state = run(model, x[step : step + 1], state)
        rows.append(as_rows(state))
    sequence = x.tolist()
    for index, layer in enumerate(model.layers):
        hidden = oracle.scan(layer, scheme, sequence, rows[0][index].tolist(), [])
        assert np.array_equal(hidden, [after[index] for after in rows[1:]]), index
        sequence = [oracle.view(h, scheme) for h in hidden]
    return model, x, rows


def as_rows(state: State) -> IntArray:
    return np.stack(list(state.values()))


def check(found: IntArray, wanted: IntArray, layout: str) -> None:
    wrong = (found != wanted).any(axis=1)
    assert not wrong.any(), [cases(layout)[index] for index in np.flatnonzero(wrong)]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_form_is_tried(scheme: Scheme, layout: str) -> None:
    """By the cases of a layout: else the tests below would pass for nothing."""
    network = Network(edges(scheme, layout), "net", LAYOUTS[layout])
    lefts = {left for part in network.directions for left in part.lefts}
    smallest = 1 if layout == "neon" else 0
    wanted = {GENERAL, *range(smallest, 9)}
    if layout == "v6m":  # 8 is packed; of sums below 2^22, 9
        wanted |= {9}
    if layout in ("dsp", "v6m"):
        wanted |= {PACKED}
    assert lefts == wanted


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_on_this_computer(scheme: Scheme, layout: str, tmp_path: Path) -> None:
    model, x, rows = expected(scheme, layout == "v6m")
    target = next(target for target in TARGETS if TARGETS[target] == layout)
    firmware = HostFirmware(model, tmp_path, target, ("-O0",))
    states = firmware.state.view(np.int16)[: rows[0].size].reshape(rows[0].shape)
    states[:] = rows[0]
    for step, after in enumerate(rows[1:]):
        assert np.array_equal(firmware.run(x[step : step + 1])[0], states[-1])
        check(states, after, layout)


@pytest.mark.parametrize(
    ("core", "scheme"),
    [*product(("cortex-m0", "cortex-m55"), SCHEMES), ("cortex-m4", "w8a8"), ("rv32imc", "w8a16")],
)
def test_on_a_core(core: str, scheme: Scheme) -> None:
    layout = TARGETS[core]
    model, x, rows = expected(scheme, layout == "v6m")
    with Session(build(core, to_c(model, "model", core))) as session:
        session.state = dict(zip(model.states, rows[0], strict=True))
        for step, after in enumerate(rows[1:]):
            y = session.step(x[step : step + 1])
            check(as_rows(session.state), after, layout)
            assert np.array_equal(y[0], after[-1])
