"""The profile tflite-lstm's fused forward and backward passes equal the explicit module, which torch differentiates.

Outputs and states are equal to the bit. Gradients are sums of the same float64 terms in another order.
"""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from edgernn.firmware_sim._operator import INPUT, RECURRENT
from edgernn.nn import SequenceModel
from edgernn.nn._base import scan, valid_steps
from edgernn.quantize import QuantConfig, calibrate, explicit, prepare
from edgernn.quantize._cells import Cells, IntegerAffine, IntegerLayer
from edgernn.quantize.fused import _memory, _network, _operator
from edgernn.quantize.fused._operator import OperatorDirection, run_operator
from edgernn.quantize.fused._operator_steps import Records

from .networks import build
from .test_fused import check_backward_twice, outcome, weighted

BOUND = 1e-6  # of a gradient's norm


def ready(batch: int = 5, steps: int = 9, **options: Any) -> tuple[Any, Tensor, Tensor]:
    """A calibrated model, an input that leaves the calibrated range here and there, and lengths."""
    own = {name: options.pop(name) for name in ("learn_scales", "per_channel") if name in options}
    stretch, model = options.pop("stretch", 1.2), build("lstm", **options)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, steps, model.rnn.input_size, generator=generator)
    lengths = torch.randint(1, steps + 1, (batch,), generator=generator)
    config = QuantConfig(profile="tflite-lstm", **own)
    return calibrate(prepare(model, config), x, lengths).train(), x * stretch, lengths


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, wanted in expected.items():
        difference = float((found[name].double() - wanted.double()).norm())
        assert difference <= BOUND * float(wanted.double().norm()) + 1e-12, (name, difference, float(wanted.norm()))


def assert_same(model: SequenceModel, x: Tensor, lengths: Tensor | None, state: Any = None) -> dict[str, Tensor]:
    assert model.quantizer is not None
    assert _network.available(model.quantizer, model)
    values, gradients = outcome(model, x, lengths, state)
    with explicit():
        assert not _network.available(model.quantizer, model)
        expected_values, expected = outcome(model, x, lengths, state)
    for value, wanted in zip(values, expected_values, strict=True):
        assert torch.equal(value, wanted)
    assert_close(gradients, expected)
    return gradients


# ---- the operation ---------------------------------------------------------------------------------------------------


def some_map(rng: np.random.Generator, rows: int, columns: int, size: float) -> IntegerAffine:
    """Pre-activations of it are about `size`."""
    weight = rng.integers(-127, 128, (rows, columns)).astype(np.float64)
    bias = rng.integers(-20000, 20000, rows).astype(np.float64)
    multiplier = size / (75.0 * 75.0 * np.sqrt(columns)) * rng.uniform(0.5, 2.0, rows)
    q31 = np.ldexp(np.round(np.ldexp(multiplier, 40)), -40)
    return IntegerAffine(*(torch.from_numpy(a) for a in (weight, bias, q31)))


@pytest.mark.parametrize("exponent", range(9, 16))
def test_every_limit_and_its_gradients(exponent: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of integers as no calibrated model has them. The recurrent map's bias is 0, and has no gradient."""
    seen: list[Records] = []
    run: Any = vars(_operator)["run_backward"]

    def watched(*arguments: Any) -> None:
        seen.append(arguments[3])
        run(*arguments)

    monkeypatch.setattr(_operator, "run_backward", watched)
    rng, (batch, steps, columns, units), backward = np.random.default_rng(exponent), (9, 12, 5, 11), exponent % 2 == 0
    maps = [some_map(rng, 4 * units, size, 30000.0) for size in (columns, units)]
    maps[1] = maps[1]._replace(bias=torch.zeros(4 * units, dtype=torch.float64))
    x, h = (torch.from_numpy(rng.integers(-128, 128, s) * 1.0) for s in ((batch, steps, columns), (batch, units)))
    c, lengths = torch.from_numpy(rng.integers(-32768, 32768, (batch, units)) * 1.0), rng.integers(1, steps + 1, batch)
    tensors = [x, h, c, *maps[0], maps[1].weight, maps[1].multiplier]
    for tensor in tensors:
        tensor.requires_grad_(True)
    valid = valid_steps(torch.from_numpy(lengths), steps)[..., None]

    def gradients(hidden: Tensor, *last: Tensor) -> list[Tensor]:
        total = sum((weighted(v, n) for n, v in enumerate(last, 1)), weighted(hidden * valid, 0))
        return list(torch.autograd.grad(total, tensors))

    direction = OperatorDirection(lengths, backward, exponent, sequence=True, saving=True)
    found = run_operator(direction, x, h, c, *maps)
    cells, layer = Cells(), IntegerLayer("lstm", "tflite-lstm", "w8a8", True, exponent, *maps)
    hidden, states = scan(lambda *a: cells.step(layer, *a), cells.project(layer, x), (h, c), valid, backward)
    assert torch.equal(found[0], hidden * valid)
    assert all(torch.equal(a, b) for a, b in zip(found[1:], states[-1], strict=True))
    for one, other in zip(gradients(*found), gradients(hidden, *states[-1]), strict=True):
        assert float((one - other).norm()) <= 1e-12 * float(other.norm())
    passes = seen[0].passes[valid[..., 0].numpy()]
    assert set(np.unique(passes)) == {0, INPUT, RECURRENT, INPUT | RECURRENT}


# ---- random networks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_outputs_and_gradients_are_the_explicit_ones(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model, x, lengths = ready(
        batch=int(rng.integers(1, 20)),
        steps=int(rng.integers(1, 30)),
        head=("last", "steps")[seed % 2],
        layers=int(rng.integers(1, 4)),
        inputs=int(rng.integers(1, 20)),
        size=int(rng.integers(1, 40)),
        bidirectional=seed % 4 > 1,
        bias=seed % 5 > 0,
        gain=(0.3, 1.5, 20.0)[seed % 3],
        stretch=(1.2, 5.0)[seed % 2],
        learn_scales=seed % 4 == 1,
        per_channel=seed % 3 > 0,
    )
    assert_same(model, x, lengths if seed % 3 else None)


@pytest.mark.parametrize("learn_scales", [False, True])
def test_initial_and_final_states(learn_scales: bool) -> None:
    model, x, lengths = ready(head="steps", layers=2, size=21, batch=10, learn_scales=learn_scales)
    state = torch.randn(2, 10, 21, generator=torch.Generator().manual_seed(3)) * 0.6  # some beyond what h can hold
    assert_same(model, x, lengths, (state, state * 3.0))
    assert_same(model, x[:1, :1], None, (state[:, :1], state[:, :1]))


@pytest.mark.parametrize("learn_scales", [False, True])
def test_rows_that_are_shrunk_into_reach(learn_scales: bool) -> None:
    model, x, lengths = ready(size=60, gain=3.0, layers=1, learn_scales=learn_scales)
    assert model.quantizer is not None
    layer, _, scale = model.quantizer.layer(model, "l0")
    as_they_are = torch.round(model.rnn.weight_hh_l0 / scale[:, None]).clamp(-127, 127)
    assert not torch.equal(layer.recurrent.weight, as_they_are)
    assert_same(model, x, lengths)


def test_masks_of_pruned_weights() -> None:
    model, x, lengths = ready()
    mask = torch.rand(model.rnn.weight_hh_l1.shape, generator=torch.Generator().manual_seed(0)) < 0.3
    model.rnn.set_mask("weight_hh_l1", mask)
    gradients = assert_same(model, x, lengths)
    assert not gradients["rnn.weight_hh_l1"][~mask].any()


# ---- as autograd uses it ---------------------------------------------------------------------------------------------


def test_chunks_of_a_sequence() -> None:
    model, x, _ = ready(head="steps", steps=12)

    def gradients() -> dict[str, Tensor]:
        state, total = None, torch.zeros(())
        for chunk in torch.split(x, 4, dim=1):
            y, state = model.run(chunk, None, state)
            total = total + weighted(y, 0)
        parameters = dict(model.rnn.named_parameters())
        return dict(zip(parameters, torch.autograd.grad(total, list(parameters.values())), strict=True))

    found = gradients()
    with explicit():
        assert_close(found, gradients())


def test_without_gradients_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, lengths = ready()
    y = model(x, lengths)
    borrowed = list[Any]()

    def borrow(*arguments: Any) -> Any:
        borrowed.append(_memory.borrow(*arguments))
        return borrowed[-1]

    monkeypatch.setattr(_operator, "borrow", borrow)
    with torch.no_grad():
        assert torch.equal(model(x, lengths), y)
    assert [array.size for array in borrowed] == [0] * 4  # two kinds in two layers


def test_only_the_gradients_that_are_needed() -> None:
    model, x, lengths = ready(head="steps", learn_scales=True)
    everything = outcome(model, x, lengths)[1]
    for kept in ("rnn.weight_hh_l0", "rnn.bias_ih_l1", "head.weight", "quantizer.log_input_scale"):
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name == kept)
        found = outcome(model, x, lengths)[1]
        assert set(found) - {"x"} == {kept}
        assert torch.equal(found[kept], everything[kept])


def test_backward_twice() -> None:
    check_backward_twice(*ready())


def test_threads_share_a_batch() -> None:
    model, x, lengths = ready(batch=37, head="steps")
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 2, 3):
            torch.set_num_threads(threads)
            found.append(outcome(model, x, lengths))
    finally:
        torch.set_num_threads(before)
    for values, gradients in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0][0], values, strict=True))
        assert_close(gradients, found[0][1])
    assert all(torch.equal(found[1][1][name], gradient) for name, gradient in found[2][1].items())


# ---- which way -------------------------------------------------------------------------------------------------------


def test_no_simd_form_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_network, "host_form", lambda: None)
    assert_same(*ready())


def test_the_explicit_module_is_there_for_what_is_not_fused() -> None:
    model, *_ = ready()
    assert model.quantizer is not None
    model.rnn.dropout = 0.5
    assert not _network.available(model.quantizer, model)
    assert _network.available(model.quantizer, model.eval())
    assert not _network.available(model.quantizer, model.double())


def test_sums_beyond_32_bits_are_left_to_the_explicit_module() -> None:
    model, x, _ = ready(layers=1)
    with torch.no_grad():
        model.rnn.bias_ih_l0[3] = 5e6
    assert model.quantizer is not None
    with pytest.raises(OverflowError, match="32 bits"):
        _network.run(model.quantizer, model, x, None, None, wants_state=False)
    y = model(x)
    with explicit():
        assert torch.equal(model(x), y)


def test_what_is_not_finite_is_refused() -> None:
    for value in (float("nan"), float("inf")):
        for name in ("rnn.weight_hh_l0", "rnn.weight_ih_l0", "head.weight"):
            model, x, _ = ready(layers=1)
            with torch.no_grad():
                model.get_parameter(name)[1, 2] = value
            with pytest.raises(ValueError, match="lower learning rate"):
                model(x)
    model, x, lengths = ready(layers=1)
    x[0, 2, 3] = float("inf")
    with pytest.raises(ValueError, match="NaN or infinite"):
        model(x, lengths)
