"""The SIMD room makes no difference: `==` in every form that this processor can run.

Its primitives and tiles are compiled and run without Numba, each for the oldest processor that has the form's
instructions; the kernels as they are, and in other forms in processes of their own.
"""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numba as numba_module
import numpy as np
import pytest

from edgernn.firmware_sim import Stream, _kernels, run, run_batch
from edgernn.firmware_sim._kernels import Readable, Simd
from edgernn.firmware_sim._network import Network
from edgernn.firmware_sim.simd import _host, tiles
from edgernn.firmware_sim.simd._affine import Tile
from edgernn.firmware_sim.simd._form import LANES, Form
from edgernn.firmware_sim.simd._vector import Builder
from edgernn.firmware_sim.simd.cells import pack_cell
from edgernn.qmodel import Affine, IntArray, QuantizedModel, Scheme

from . import oracle, test_simd_arm_layers, vectorised
from .arm.program import Argument, Call
from .models import HEADS, SCHEMES, VARIANTS, Variant, changed, random_input, random_model, with_directions
from .simd_host import HostProgram, host_forms
from .test_simd_arm import INT16, MAPS, PRIMITIVES, mapped, operand
from .test_simd_arm import test_a_cell_state as test_a_cell_state
from .test_simd_arm import test_affine as test_affine
from .test_simd_arm import test_products as test_products
from .test_simd_arm import test_requantize as test_requantize
from .test_simd_arm import test_sums_saturate as test_sums_saturate
from .test_simd_arm import test_tables_of_every_value as test_tables_of_every_value
from .test_simd_arm_layers import STEPS, built, packed
from .test_simd_arm_layers import check as check_layer

numba: Any = numba_module

ROOT = Path(__file__).resolve().parents[1]
FORMS = host_forms()
OTHERS = [name for name in FORMS if name != getattr(_host.host_form(), "name", "")]


# ---- primitives and affine maps: the tests that the Arm forms pass too -----------------------------------------------


@pytest.fixture(scope="module", params=FORMS)
def primitives(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> HostProgram:
    return HostProgram(tmp_path_factory.mktemp("primitives"), request.param, FORMS[request.param], PRIMITIVES)


@pytest.fixture(scope="module", params=FORMS)
def maps(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Form, HostProgram]:
    form, functions = FORMS[request.param], {name: mapped(*kind) for kind, name in MAPS.items()}
    return form, HostProgram(tmp_path_factory.mktemp("maps"), request.param, form, functions)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", FORMS)
def test_views_of_every_state(name: str, scheme: Scheme, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    form, model = FORMS[name], random_model(0, "rnn", scheme, hidden_size=LANES)
    cell = pack_cell(form, model.layers[0], model.input_dtype)
    monkeypatch.setattr(tiles, "required_form", lambda: form)

    def viewed(form: Form, builder: Builder, argument: Argument) -> None:
        source, place = packed(builder, argument, 4), packed(builder, argument, len(tiles.Place._fields))
        emitter = tiles._Emitter(builder, numba.typeof(cell), Tile(tiles.ROWS, 1), source, place, False)
        emitter.write_view(emitter.load(emitter.place.h))

    program = HostProgram(tmp_path, name, form, {"viewed": viewed})
    states = INT16.reshape(-1, tiles.ROWS, LANES)
    expected = [operand(form, vectorised.view(h, scheme).astype(model.input_dtype)) for h in states]
    memory, calls = program.memory(), []
    for h, view in zip(states, expected, strict=True):
        to = memory.put(np.zeros_like(view))
        place = tiles.Place(*[0] * len(tiles.Place._fields))._replace(h=memory.put(h.astype(np.int16)), view=to)
        calls.append(Call("viewed", [0, view.shape[2], view[0].size, 0, *place]))
    program.run(calls, memory)
    found = [memory.get(call.arguments[4 + tiles.Place._fields.index("view")]) for call in calls]
    assert np.array_equal(found, expected)


# ---- tiles -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def on_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_simd_arm_layers, "Program", HostProgram)


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_tiles_of_sequences(variant: Variant, name: str, tmp_path: Path, on_host: None) -> None:
    scheme = SCHEMES[(VARIANTS.index(variant) + OTHERS.index(name)) % 2]
    model = random_model(8, variant, scheme, input_size=5, hidden_size=21, head=None, saturating=scheme == "w8a8")
    cell = pack_cell(FORMS[name], model.layers[0], model.input_dtype)
    layer = built(tmp_path, name, FORMS[name], cell, tiles.ROWS, (1,), saving=False)
    check_layer(layer, model, random_input(model, STEPS, 8, (tiles.ROWS,)), np.array([STEPS, 2, 1, 4]))


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize(("variant", "scheme"), [("gru", "w8a16"), ("gru_before", "w8a8")])
def test_tiles_of_units(variant: Variant, scheme: Scheme, name: str, tmp_path: Path, on_host: None) -> None:
    model = random_model(9, variant, scheme, input_size=5, hidden_size=101, head=None, saturating=scheme == "w8a8")
    cell = pack_cell(FORMS[name], model.layers[0], model.input_dtype)
    layer = built(tmp_path, name, FORMS[name], cell, 1, (4, 2, 1), saving=False)
    check_layer(layer, model, random_input(model, STEPS, 9, (1,)), np.array([STEPS]))


# ---- kernels ---------------------------------------------------------------------------------------------------------

FASTEST = Readable if _host.host_form() is None else Simd


def outputs(model: QuantizedModel, x: IntArray, lengths: IntArray, few: int | None) -> IntArray:
    """Of the readable kernels (None), or of the SIMD ones with up to `few` sequences one by one."""
    with pytest.MonkeyPatch.context() as patch:
        if few is not None:
            patch.setattr(_kernels, "FEW", few)
        network = Network(model, len(x), readable=few is None)
        assert isinstance(network._plan.kernels, Readable if few is None else FASTEST)
        return network.run(x, lengths)


def drawn(seed: int) -> tuple[QuantizedModel, IntArray, IntArray, str]:
    """A model, x [batch, time, input_size] random beyond the lengths too, the lengths, and a name."""
    rng = np.random.default_rng(seed)
    variant, scheme = VARIANTS[seed % 4], SCHEMES[seed // 4 % 2]
    hidden, inputs, batch, steps = (int(rng.integers(1, limit)) for limit in (71, 71, 21, 40))
    layers, head = int(rng.integers(1, 4)), HEADS[int(rng.integers(3))]
    model = random_model(
        seed,
        variant,
        scheme,
        input_size=inputs,
        hidden_size=hidden,
        layers=layers,
        head=head,
        output_size=int(rng.integers(1, 40)),
        saturating=seed % 3 == 0,
        bidirectional=seed % 5 < 2,
    )
    if seed % 5 == 0:
        model = with_directions(model, (rng.random(layers) < 0.5).tolist())
    lengths = rng.integers(1, steps + 1, batch)
    name = f"seed {seed}: {scheme} {variant} {inputs}-{hidden} x {layers}, head {head}, {batch} x {steps} steps"
    return model, random_input(model, steps, seed, (batch,)), lengths, name


@pytest.mark.parametrize("few", [0, 1000], ids=["rows", "single"])
def test_random_models(few: int) -> None:
    for seed in range(120):
        model, x, lengths, name = drawn(seed)
        expected = outputs(model, x, lengths, None)
        found = outputs(model, x, lengths, few)
        assert np.array_equal(found, expected), f"{name}: {np.argwhere(found != expected)[:5]}"
        if seed % 8 == seed // 8 % 8:
            numpy = vectorised.run(model, x[0, : lengths[0]])
            assert np.array_equal(found[0, : lengths[0]] if model.every_step else found[0, 0], numpy), name


@pytest.mark.parametrize("hidden_size", [15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 127, 128, 129])
def test_sizes_around_those_of_registers(hidden_size: int) -> None:
    for number, (variant, scheme) in enumerate((variant, scheme) for variant in VARIANTS for scheme in SCHEMES):
        model = random_model(number, variant, scheme, input_size=hidden_size, hidden_size=hidden_size, head=None)
        x, lengths = random_input(model, 5, number, (9,)), np.array([5, 1, 5, 2, 3, 4, 5, 5, 1])
        expected = outputs(model, x, lengths, None)
        for few in (0, 1000):
            assert np.array_equal(outputs(model, x, lengths, few), expected), f"{variant} {scheme}, {few=}"


def test_states_and_streams() -> None:
    """From any state, in pieces of any length and step by step: as the oracle, which has no steps to put together."""
    for seed in range(24):
        rng = np.random.default_rng(seed)
        model = random_model(seed, VARIANTS[seed % 4], SCHEMES[seed // 4 % 2], layers=2, head="steps")
        x = random_input(model, 24, seed)
        state = {name: rng.integers(-32768, 32768, spec.size).astype(np.int16) for name, spec in model.states.items()}
        pairs = [(state[f"h_{n}"].tolist(), state.get(f"c_{n}", np.zeros(0, np.int16)).tolist()) for n in range(2)]
        expected = oracle.run(model, x, pairs)
        y, after = run(model, x, state)
        assert np.array_equal(y, expected), f"seed {seed}"
        stream, cut = Stream(model), int(rng.integers(1, 24))
        stream.state = run(model, x[:cut], state)[1]
        assert np.array_equal([stream.step(row) for row in x[cut:]], expected[cut:]), f"seed {seed}"
        assert all(np.array_equal(stream.state[name], value) for name, value in after.items()), f"seed {seed}"


def test_inputs_that_lie_badly_in_memory() -> None:
    """Not contiguous, not aligned, read-only: the same integers."""
    model = random_model(3, "gru", "w8a16", input_size=6, hidden_size=19)
    x = random_input(model, 12, 3, (10,))
    odd = np.frombuffer(b"\0" + x.tobytes(), np.int16, offset=1).reshape(x.shape)
    assert not odd.flags.aligned
    assert not odd.flags.writeable
    expected = run_batch(model, x)
    for other in (odd, np.asfortranarray(x), np.repeat(x, 2, axis=2)[:, :, ::2], x[::-1].copy()[::-1]):
        assert np.array_equal(run_batch(model, other), expected)
        assert np.array_equal(run(model, other[0])[0], expected[0])


# ---- which kernels ---------------------------------------------------------------------------------------------------


def loud(affine: Affine, limit: int) -> Affine:
    """Multipliers of 100 and sums above 2^23: their products fit int32, and the sums shifted as they are do not."""
    scale = np.full_like(affine.weight_scale, 100 * affine.output_scale / affine.input_scale)
    return replace(affine, weight_scale=scale, bias=np.full_like(affine.bias, 2**23))


@pytest.mark.parametrize("where", ["layers", "head"])
def test_sums_too_large_for_int32_go_to_the_readable_kernels(where: str) -> None:
    model = random_model(5, "lstm", "w8a8", hidden_size=12, head="steps")
    assert isinstance(Network(model, 1)._plan.kernels, FASTEST)
    assert model.head is not None
    dense = replace(model.head.dense, bias=np.full_like(model.head.dense.bias, 2**23))
    dense = replace(dense, weight_scale=np.full_like(dense.weight_scale, 100 * dense.output_scale / dense.input_scale))
    model = changed(model, loud) if where == "layers" else replace(model, head=replace(model.head, dense=dense))
    assert isinstance(Network(model, 1)._plan.kernels, Readable)
    x = random_input(model, 20, 5, (9,))
    for one, y in zip(x, run_batch(model, x), strict=True):
        assert np.array_equal(y, vectorised.run(model, one))
        assert np.array_equal(run(model, one)[0], y)


def test_without_a_form_the_readable_kernels_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_kernels, "host_form", lambda: None)
    model = random_model(6, "gru")
    assert isinstance(Network(model, 1)._plan.kernels, Readable)
    x = random_input(model, 20, 6)
    assert np.array_equal(run(model, x)[0], vectorised.run(model, x))


HASWELL = {
    "NUMBA_CPU_NAME": "haswell",
    "NUMBA_CPU_FEATURES": "+avx,+avx2,+bmi,+bmi2,+f16c,+fma,+lzcnt,+movbe,+popcnt,+sse4.2",
}


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name != _host.VARIABLE}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, env=kept | environment, capture_output=True, text=True, timeout=600)


PROCESSES: dict[str, tuple[dict[str, str], list[str]]] = {  # avx2 is chosen there, since nothing better is left
    "avx2": (HASWELL, ["lstm:w8a8", "gru_before:w8a16"]),
    "avx512": ({_host.VARIABLE: "avx512"}, ["gru:w8a16"]),
}


@pytest.mark.parametrize("name", [name for name in PROCESSES if name in FORMS])
def test_kernels_in_other_forms(name: str) -> None:
    environment, models = PROCESSES[name]
    result = python("-m", "tests.simd_models", *models, **environment)
    assert result.returncode == 0, result.stderr
    form, compared = result.stdout.split()
    assert form == name
    assert int(compared) > 10_000


@pytest.mark.parametrize("wanted", ["off", "avx3"])
def test_the_environment_names_a_form(wanted: str) -> None:
    code = "from edgernn.firmware_sim.simd._host import host_form; print(host_form()); import edgernn.firmware_sim"
    result = python("-c", code, **{_host.VARIABLE: wanted})
    if wanted == "off":
        assert (result.returncode, result.stdout.strip()) == (0, "None"), result.stderr
    else:
        assert f"unknown {_host.VARIABLE}=avx3; known are off, avx512vbmi" in result.stderr
