"""The kernels in the emulated cores, with the instructions that the host's plain C does not have.

The primitives on all of their inputs, by a firmware whose step is the primitive; whole cells by their hidden and cell
states: the int8 output of a head would hide a wrong last bit.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from edgernn._tflite_lstm import table_sigmoid, table_tanh
from edgernn.export import to_c
from edgernn.export.c import TARGETS
from edgernn.export.c.layouts import LAYOUTS
from edgernn.export.c.source import array_text, kernel
from edgernn.export.c.tables import tables
from edgernn.firmware_sim import run
from edgernn.firmware_sim.emulation import CORES, Session, build
from edgernn.fixedpoint import cell_rescale, rescale, round_shift, sat8, sat16, sigmoid, tanh
from edgernn.qmodel import CELL_EXPONENTS, IntArray, QuantizedModel, Scheme

from .models import SCHEMES, VARIANTS, Variant, random_input, random_model
from .test_export_c import emptied, narrow

# ---- primitives ------------------------------------------------------------------------------------------------------

INT16 = np.arange(-32768, 32768)
SUMS = np.concatenate([np.arange(-65536, -32768, 8), INT16, np.arange(32768, 65536, 8)])  # of two pre-activations
GROUP = 8  # inputs a step: a vector's lanes, or so many turns

FAST = pytest.mark.parametrize("core", ["cortex-m0", "cortex-m4", "cortex-m55"])

_HEADER = """
#ifndef MODEL_H
#define MODEL_H
#include <stdint.h>
#define MODEL_INPUT_SIZE {inputs}
#define MODEL_OUTPUT_SIZE {outputs}
#define MODEL_EVERY_STEP 1
#define MODEL_BIDIRECTIONAL 0
#define MODEL_MACS_PER_STEP 1000
#define MODEL_HEAD_MACS 0
typedef int16_t model_input_t;
typedef int16_t model_output_t;
typedef struct {{
  int16_t h_0[2];
}} model_state_t;
void model_reset(model_state_t *state);
void model_step(model_state_t *state, const model_input_t *x, model_output_t *y);
void model_run(model_state_t *state, const model_input_t *x, uint32_t steps, model_output_t *y);
#endif
"""

_STEP = """
void model_reset(model_state_t *state) {{ state->h_0[0] = 0; }}
void model_step(model_state_t *state, const model_input_t *x, model_output_t *y) {{
  int n;
  (void)state;
  for (n = 0; n < {group}; n += ERN_LANES) {{
    ern_value a = ern_load(x + n), b = ern_load(x + {group} + n);
    {body}
  }}
}}
void model_run(model_state_t *state, const model_input_t *x, uint32_t steps, model_output_t *y) {{
  for (; steps > 0; steps--, x += MODEL_INPUT_SIZE, y += MODEL_OUTPUT_SIZE) model_step(state, x, y);
}}
"""


def computed(core: str, statements: Sequence[str], a: IntArray, b: IntArray) -> IntArray:
    """What each C statement stores at `to`, of int16 values a and b as ern_value: [statements, len(a)]."""
    layout = LAYOUTS[TARGETS[core]]
    body = [f"{{ int16_t *to = y + {GROUP * k} + n; {statement} }}" for k, statement in enumerate(statements)]
    source = [
        '#include "model.h"',
        "#define ERN_W8A16 0",
        "#define ERN_INPUT 16",
        f"#define ERN_BLOCK {layout.block}",
        kernel("common.h"),
        *(array_text(name, f"{values.dtype}_t", values) for name, values in tables(layout.table).items()),
        *(kernel(file) for file in (*layout.kernels, "cells.h", *layout.operator)),
        _STEP.format(group=GROUP, body="\n    ".join(body)),
    ]
    header = _HEADER.format(inputs=2 * GROUP, outputs=len(statements) * GROUP)
    x = np.concatenate([a.reshape(-1, GROUP), np.broadcast_to(b, a.shape).reshape(-1, GROUP)], axis=1)
    with Session(build(core, {"model.h": header, "model.c": "\n".join(source)})) as session:
        y = session.step(x.astype(np.int16))
    return y.reshape(-1, len(statements), GROUP).swapaxes(0, 1).reshape(len(statements), -1)


def stored(expression: str) -> str:
    return f"ern_store(to, {expression});"


@FAST
def test_sigmoid_and_tanh_of_sums(core: str) -> None:
    """Saturated where they leave 16 bits; a gate by what it makes of a value."""
    shifts = (15, 15, 16, 17, 18, 19, 20, 21)
    values = (32767, -32768, -3, 32767, -32768, -1, 12345, -16384)
    constant = "static const int16_t v[8] = {{" + ", ".join(["{0}"] * GROUP) + "}};"
    gates = [
        constant.format(value) + stored(f"ern_scale(ern_sigmoid(ern_add(a, b)), ern_load(v), {e})")
        for value, e in zip(values, shifts, strict=True)
    ]
    found = computed(core, [stored("ern_tanh(ern_add(a, b))"), *gates], SUMS // 2, SUMS - SUMS // 2)
    p = sat16(SUMS)
    assert np.array_equal(found[0], tanh(p))
    for row, value, e in zip(found[1:], values, shifts, strict=True):
        assert np.array_equal(row, round_shift(sigmoid(p) * value, e)), (value, e)


@FAST
def test_gates_times_every_value(core: str) -> None:
    for p in (-32768, -5000, 700, 32767):
        found = computed(
            core, [stored(f"ern_scale(ern_sigmoid(b), a, {e})") for e in range(15, 22)], INT16, np.array(p)
        )
        for row, e in zip(found, range(15, 22), strict=True):
            assert np.array_equal(row, round_shift(sigmoid(np.int64(p)) * INT16, e)), (p, e)


@FAST
def test_cell_states_and_views(core: str) -> None:
    """tanh of a cell state, which is 1 where its pre-activation saturates; both ways of making views."""
    cells = [stored(f"ern_tanh(ern_preactivation(a, {exponent}))") for exponent in CELL_EXPONENTS]
    view = "ern_operand view[8]; int k; {} for (k = 0; k < ERN_LANES; k++) to[k] = view[k];"
    views = [view.format("ern_store_view(view, a);"), view.format("ern_view_of(x + n, ERN_LANES, view);")]
    found = computed(core, [*views, *cells], INT16, np.array(0))
    for row in found[:2]:
        assert np.array_equal(row, sat8(round_shift(INT16, 8)))
    for row, exponent in zip(found[2:], CELL_EXPONENTS, strict=True):
        assert np.array_equal(row, tanh(sat16(rescale(INT16, *cell_rescale(exponent))))), exponent


@FAST
def test_functions_of_the_profile_tflite_lstm(core: str) -> None:
    """The same of values in Q3.12, tanh of a cell state of every scale, and the hidden state's bytes."""
    constant = "static const int16_t v[8] = {32767, 32767, 32767, 32767, 32767, 32767, 32767, 32767};"
    byte = "int8_t bytes[8]; int k; ern_store_byte(bytes, a); for (k = 0; k < ERN_LANES; k++) to[k] = bytes[k];"
    gate = constant + stored("ern_scale(ern_operator_sigmoid(a), ern_load(v), 15)")
    cells = [stored(f"ern_tanh_of_cell(a, {exponent})") for exponent in CELL_EXPONENTS]
    found = computed(core, [gate, stored("ern_operator_tanh(a)"), byte, *cells], INT16, np.array(0))
    wanted = [round_shift(table_sigmoid(INT16) * 32767, 15), table_tanh(INT16), sat8(INT16)]
    wanted += [table_tanh(INT16, exponent) for exponent in CELL_EXPONENTS]
    for number, (row, values) in enumerate(zip(found, wanted, strict=True)):
        assert np.array_equal(row, values), number


# ---- cells -----------------------------------------------------------------------------------------------------------


# A layer as drawn; one whose sums leave 16 bits most of the time; multipliers of any size; rows that are constants.
KINDS = ("drawn", "saturating", "narrow", "emptied")


def stack(number: int, scheme: Scheme) -> QuantizedModel:
    """A layer of each cell, one upon the other, of odd sizes, one of each of KINDS."""
    sizes = np.random.default_rng(number).integers(3, 22, len(VARIANTS) + 1).tolist()
    models = [
        one_layer(number + n, cell, scheme, sizes[n], sizes[n + 1], KINDS[(number // 2 + n) % len(KINDS)])
        for n, cell in enumerate(VARIANTS)
    ]
    return replace(models[0], layers=tuple(model.layers[0] for model in models))


def one_layer(seed: int, cell: Variant, scheme: Scheme, columns: int, hidden: int, kind: str) -> QuantizedModel:
    """A model whose input has the scale of a view, so that its layer can lie upon another one."""
    model = random_model(
        seed, cell, scheme, input_size=columns, hidden_size=hidden, head=None, saturating=kind == "saturating"
    )
    (layer,), scale = model.layers, model.view_scale
    weight_scale = layer.input.weight_scale * np.float32(layer.input.input_scale / scale)
    layer = replace(layer, input=replace(layer.input, input_scale=scale, weight_scale=weight_scale))
    model = replace(model, layers=(layer,), input_scale=scale)
    return narrow(model) if kind == "narrow" else emptied(model) if kind == "emptied" else model


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("core", CORES)
def test_every_cell(core: str, scheme: Scheme) -> None:
    """From a state of any integers: outputs of every step, which are int16, and all states after them."""
    number = 2 * list(CORES).index(core) + SCHEMES.index(scheme)
    model = stack(number, scheme)
    rng = np.random.default_rng(number)
    x = random_input(model, 12, number)
    before = {name: rng.integers(-32768, 32768, spec.size).astype(np.int16) for name, spec in model.states.items()}
    y, after = run(model, x, before)
    with Session(build(core, to_c(model, "model", core))) as session:
        session.state = before
        assert np.array_equal(session.run(x, from_zero=False), y), f"seed {number}"
        found = session.state
    for name, values in after.items():
        assert np.array_equal(found[name][: len(values)], values), f"seed {number}, {name}"
