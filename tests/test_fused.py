"""The fused forward and backward passes equal the explicit module, which torch differentiates.

Outputs and states are equal to the bit. Gradients are float32 sums of as many terms as there are steps and sequences,
the explicit ones float64: they differ by a few units in 10^7 of a tensor's norm, and must by less than 1e-5. Learned
scales' are small differences of large sums, which leaves 1e-3.
"""

import gc
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from edgernn import fixedpoint
from edgernn.firmware_sim.simd._host import host_form
from edgernn.firmware_sim.simd._pack import pack_map
from edgernn.firmware_sim.simd.tiles import MASKS, SAVED, required_form
from edgernn.nn import SequenceModel
from edgernn.quantize import QuantConfig, calibrate, explicit, prepare
from edgernn.quantize.fused import _direction, _memory, _network
from edgernn.quantize.fused._gradients import FORWARD
from edgernn.quantize.fused._maps import Map, Scales

from .models import VARIANTS, Variant
from .networks import build

pytestmark = pytest.mark.skipif(host_form() is None, reason="no SIMD form for this processor")

BOUND, SCALE_BOUND = 1e-5, 1e-3

Case = dict[str, Any]


def ready(variant: Variant, batch: int = 5, steps: int = 9, **options: Any) -> tuple[Any, Tensor, Tensor]:
    """A calibrated model, an input that leaves the calibrated range here and there, and lengths."""
    config = QuantConfig.parse(*(options.pop(name, default) for name, default in _CONFIG.items()))
    stretch = options.pop("stretch", 1.2)
    model = build(variant, **options)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, steps, model.rnn.input_size, generator=generator)
    lengths = torch.randint(1, steps + 1, (batch,), generator=generator)
    lengths[0] = steps
    return calibrate(prepare(model, config), x, lengths).train(), x * stretch, lengths


_CONFIG = {"scheme": "w8a8", "per_channel": True, "learn_scales": False}


def weighted(values: Tensor, seed: int) -> Tensor:
    return (values * torch.randn(values.shape, generator=torch.Generator().manual_seed(seed))).sum()


def states_of(state: Any) -> tuple[Tensor, ...]:
    return state if isinstance(state, tuple) else (state,)


def outcome(
    model: SequenceModel, x: Tensor, lengths: Tensor | None, state: Any = None
) -> tuple[Any, dict[str, Tensor]]:
    """Outputs and final states, and every gradient of a weighted sum of them."""
    x = x.clone().requires_grad_(True)
    first = [] if state is None else [s.clone().requires_grad_(True) for s in states_of(state)]
    model.zero_grad()
    y, last = model.run(x, lengths, None if state is None else tuple(first) if isinstance(state, tuple) else first[0])
    total = sum((weighted(s, n) for n, s in enumerate(states_of(last), 1)), weighted(y, 0))
    torch.autograd.backward(total)
    found = {name: p.grad for name, p in model.named_parameters()} | {"x": x.grad}
    found |= {f"state {n}": s.grad for n, s in enumerate(first)}
    return [y.detach(), *(s.detach() for s in states_of(last))], {n: g for n, g in found.items() if g is not None}


def assert_same(model: SequenceModel, x: Tensor, lengths: Tensor | None, state: Any = None) -> dict[str, Tensor]:
    assert model.quantizer is not None
    assert _network.available(model.quantizer, model)
    values, gradients = outcome(model, x, lengths, state)
    with explicit():
        expected_values, expected = outcome(model, x, lengths, state)
    for value, wanted in zip(values, expected_values, strict=True):
        assert torch.equal(value, wanted)
    assert gradients.keys() == expected.keys()
    for name, wanted in expected.items():
        bound = SCALE_BOUND if name.startswith("quantizer") else BOUND
        difference = float((gradients[name].double() - wanted.double()).norm())
        assert difference <= bound * float(wanted.double().norm()) + 1e-12, (name, difference, float(wanted.norm()))
    return gradients


# ---- random networks -------------------------------------------------------------------------------------------------


def cases() -> Iterator[Any]:
    """Every cell in both schemes, and of each the other properties in turn."""
    rng = np.random.default_rng(5)
    shapes = itertools.cycle([(7, 5), (16, 16), (33, 3), (40, 17), (1, 1), (48, 20)])
    for number, (variant, scheme) in enumerate(itertools.product(VARIANTS, ("w8a8", "w8a16"))):
        for again in range(4):
            (size, inputs), kind = next(shapes), (number + again) % 4
            case: Case = {
                "scheme": scheme,
                "head": ("last", "steps")[kind % 2],
                "layers": 1 + int(kind > 1),
                "bidirectional": kind == 3,
                "gain": (1.5, 20.0)[again % 2],
                "stretch": (1.2, 5.0)[again % 2],
                "batch": int(rng.integers(1, 20)),
                "steps": int(rng.integers(1, 40)),
                "size": size,
                "inputs": inputs,
                "per_channel": again != 1,
                "learn_scales": again == 2,
                "bias": again != 3,
            }
            yield pytest.param(variant, case, again == 0, id=f"{variant}-{scheme}-{again}")


@pytest.mark.parametrize(("variant", "case", "with_lengths"), list(cases()))
def test_outputs_and_gradients_are_the_explicit_ones(variant: Variant, case: Case, with_lengths: bool) -> None:
    model, x, lengths = ready(variant, **case)
    assert_same(model, x, lengths if with_lengths or case["bidirectional"] else None)


@pytest.mark.parametrize("variant", VARIANTS)
def test_initial_and_final_states(variant: Variant) -> None:
    model, x, lengths = ready(variant, head="steps", layers=2, size=21, batch=10)
    generator = torch.Generator().manual_seed(3)
    state = torch.randn(2, 10, 21, generator=generator) * 0.6  # some of them beyond what a state can hold
    assert_same(model, x, lengths, (state, state * 3.0) if variant == "lstm" else state)
    assert_same(model, x[:1, :1], None, (state[:, :1], state[:, :1]) if variant == "lstm" else state[:, :1])


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_clamp_is_tried(variant: Variant, monkeypatch: pytest.MonkeyPatch) -> None:
    records: list[Any] = []

    def keep(*arguments: Any) -> None:
        run(*arguments)
        records.append(arguments)

    run: Any = vars(_direction)["run_rows"]
    monkeypatch.setattr(_direction, "run_rows", keep)
    model, x, _ = ready(variant, size=16, gain=25.0, stretch=6.0, layers=1, batch=8, steps=30)
    assert model.quantizer is not None
    model.quantizer.cell_exponents.fill_(9)  # a cell state that its pre-activation cannot hold
    with torch.no_grad():
        model.rnn.bias_hh_l0.add_(torch.linspace(-8, 8, len(model.rnn.bias_hh_l0)))
    assert_same(model, x, None)
    packed, saved = records[0][0], records[0][-1]
    masks = saved[..., len(SAVED[type(packed)]) * 128 :].reshape(-1, saved.shape[-1] - len(SAVED[type(packed)]) * 128)
    hit = np.bitwise_or.reduce(masks, axis=0).view(np.uint64)[: MASKS[type(packed)]] != 0
    assert hit[: len(hit) // 3 * 3].reshape(3, -1).any(axis=1).all(), hit


def test_products_within_a_cell_never_saturate() -> None:
    """Of these clamps of the arithmetic the backward pass knows nothing."""
    rng = np.random.default_rng(0)
    edges = np.array([-32768, -32767, -1, 0, 1, 32766, 32767])
    signed = np.concatenate([edges, rng.integers(-32768, 32768, 60)])
    gates = np.concatenate([edges[3:], rng.integers(0, 32768, 60)])
    gate, v, w = (a.ravel() for a in np.meshgrid(gates, signed, signed))

    def fits(values: Any) -> bool:
        return bool((values == fixedpoint.sat16(values)).all())

    assert fits(fixedpoint.round_shift(gate * v, 15))
    assert fits(v - fixedpoint.round_shift(gate * v, 15))
    assert fits(v - fixedpoint.round_shift(gate * v, 15) + fixedpoint.round_shift(gate * w, 15))
    for exponent in range(9, 16):
        assert fits(fixedpoint.round_shift(gate * v, 30 - exponent))


# ---- as autograd uses it ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("connected", [True, False])
def test_chunks_of_a_sequence(connected: bool) -> None:
    model, x, _ = ready("lstm", head="steps", steps=12)

    def gradients() -> list[Tensor]:
        state, total = None, torch.zeros(())
        for chunk in torch.split(x, 4, dim=1):
            y, state = model.run(chunk, None, state)
            total = total + weighted(y, 0)
            state = state if connected else tuple(s.detach() for s in state)
        return list(torch.autograd.grad(total, list(model.rnn.parameters())))

    found = gradients()
    with explicit():
        expected = gradients()
    for one, other in zip(found, expected, strict=True):
        assert float((one - other).norm()) <= BOUND * float(other.norm())


def test_without_gradients_nothing_is_kept() -> None:
    model, x, lengths = ready("gru", layers=2)
    y = model(x, lengths)
    before = list(_memory._free)
    with torch.no_grad():
        assert torch.equal(model(x, lengths), y)
    assert [id(b) for b in _memory._free] == [id(b) for b in before]


def test_only_the_gradients_that_are_needed() -> None:
    model, x, lengths = ready("gru", layers=2, head="steps")
    everything = outcome(model, x, lengths)[1]
    for kept in ("rnn.weight_hh_l0", "rnn.bias_ih_l1", "head.weight"):
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name == kept)
        found = outcome(model, x, lengths)[1]
        assert set(found) - {"x"} == {kept}
        assert torch.equal(found[kept], everything[kept])


def test_masks_of_pruned_weights() -> None:
    model, x, lengths = ready("lstm")
    mask = torch.rand(model.rnn.weight_hh_l1.shape, generator=torch.Generator().manual_seed(0)) < 0.3
    model.rnn.set_mask("weight_hh_l1", mask)
    gradients = assert_same(model, x, lengths)
    assert not gradients["rnn.weight_hh_l1"][~mask].any()


def check_backward_twice(model: SequenceModel, x: Tensor, lengths: Tensor) -> None:
    """With a graph that is kept, not with one that is not, and no second derivatives."""
    parameters = list(model.parameters())
    loss = weighted(model(x, lengths), 0)
    first = torch.autograd.grad(loss, parameters, retain_graph=True)
    second = torch.autograd.grad(loss, parameters)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        torch.autograd.grad(loss, parameters)
    with pytest.raises(RuntimeError, match="second derivatives"):
        torch.autograd.grad(model(x, lengths).square().sum(), parameters, create_graph=True)


def test_backward_twice() -> None:
    check_backward_twice(*ready("gru"))


def test_two_models_in_turn_and_graphs_that_are_dropped() -> None:
    one, x, lengths = ready("lstm", size=24)
    other, *_ = ready("lstm", size=24, gain=0.7)
    expected = [outcome(model, x, lengths)[1]["rnn.weight_hh_l0"] for model in (one, other)]
    for model in (one, other):
        model.zero_grad()
    totals = []
    for model in (one, other):
        y, state = model.run(x, lengths)
        totals.append(sum((weighted(s, n) for n, s in enumerate(state, 1)), weighted(y, 0)))
        model(x * 0.5)  # and forgotten
    for model, total, wanted in zip((one, other), totals, expected, strict=True):
        assert torch.equal(torch.autograd.grad(total, [model.rnn.weight_hh_l0])[0], wanted)
    del total, totals, y, state
    gc.collect()
    assert len(_memory._free) > 0


# ---- which way -------------------------------------------------------------------------------------------------------


def test_the_explicit_module_is_there_for_what_is_not_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, lengths = ready("gru", layers=2)
    assert model.quantizer is not None
    expected = model(x, lengths)
    monkeypatch.setattr(_network, "host_form", lambda: None)
    assert torch.equal(model(x, lengths), expected)
    monkeypatch.undo()
    model.rnn.dropout = 0.5
    assert not _network.available(model.quantizer, model)
    assert _network.available(model.quantizer, model.eval())
    assert not _network.available(model.quantizer, model.double())


def test_weights_beyond_the_kernels_are_left_to_the_explicit_module() -> None:
    model, x, _ = ready("gru", scheme="w8a16", layers=1, size=40)
    with torch.no_grad():
        model.rnn.weight_hh_l0.mul_(1e5)
    assert model.quantizer is not None
    with pytest.raises(OverflowError):
        _network.run(model.quantizer, model, x, None, None, wants_state=False)
    y = model(x)
    with explicit():
        assert torch.equal(model(x), y)


def test_weights_that_are_not_finite_are_refused() -> None:
    for value in (float("nan"), float("inf"), 1e30):
        for name in ("rnn.weight_hh_l0", "head.weight"):
            for per_channel in (True, False):
                model, x, _ = ready("gru", layers=1, per_channel=per_channel)
                with torch.no_grad():
                    model.get_parameter(name)[1, 2] = value
                with pytest.raises(ValueError, match="lower learning rate"):
                    model(x)
    model, x, _ = ready("gru", layers=1)
    x[1, 2, 3] = float("inf")
    with pytest.raises(ValueError, match="NaN or infinite"):
        model(x)


# ---- integers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("zero_point", [0, -77])
def test_maps_are_those_of_the_quantizer(per_channel: bool, zero_point: int) -> None:
    rng = np.random.default_rng(1)
    model, *_ = ready("gru", per_channel=per_channel)
    quantizer = model.quantizer
    assert quantizer is not None
    for columns in (1, 5, 16, 37):
        weight = (rng.standard_normal((48, columns)) * 10.0 ** rng.uniform(-3, 1, (48, 1))).astype(np.float32)
        weight[::7] = 0.0
        bias = (rng.standard_normal(48) * 10.0 ** rng.uniform(-3, 3, 48)).astype(np.float32)
        scales = Scales(float(np.float32(10.0 ** rng.uniform(-3, -1))), fixedpoint.PRE_ACTIVATION_SCALE, zero_point)
        operand, result = (torch.tensor(value, dtype=torch.float64) for value in scales[:2])
        tensors = torch.from_numpy(weight), torch.from_numpy(bias)
        expected, scale = quantizer.integers("x", *tensors, operand, result, zero_point)
        made = Map.of("x", weight, bias, None, scales, per_channel)
        assert np.array_equal(made.w, expected.weight.numpy())
        for row, wanted in zip(made.real, (expected.bias, expected.multiplier, scale), strict=True):
            assert np.array_equal(row, wanted.numpy())
        multiplier, shift = fixedpoint.quantize_multiplier(scales.operand * made.real[2] / scales.result)
        assert np.array_equal(made.shifts, np.stack([multiplier, shift]))
        for itemsize in (1, 2):
            try:
                packed = pack_map(required_form(), itemsize, 3, made.w, made.real[0], multiplier, shift)
            except OverflowError:
                with pytest.raises(OverflowError):
                    made.pack(3, itemsize)
            else:
                assert all(np.array_equal(*pair) for pair in zip(made.pack(3, itemsize), packed, strict=True))


def test_forward_kinds_are_complete() -> None:
    assert set(FORWARD.values()) == set(SAVED)
