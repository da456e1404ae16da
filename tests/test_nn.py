"""edgernn.nn against torch's own modules: same weights, same outputs, and what we add to them."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from edgernn.floatmodel import FloatModel
from edgernn.nn import GRU, LSTM, RNN, Recurrent, SequenceModel
from edgernn.quantize import calibrate, prepare

PAIRS: list[tuple[type[Recurrent], type[nn.RNNBase]]] = [(LSTM, nn.LSTM), (GRU, nn.GRU), (RNN, nn.RNN)]
both = pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=["lstm", "gru", "rnn"])
INPUT, HIDDEN, STEPS, BATCH = 5, 6, 9, 4


def hidden_of(state: Any) -> Tensor:
    tensor: Tensor = state[0] if isinstance(state, tuple) else state
    return tensor


def build(kind: type[Recurrent], **options: Any) -> Recurrent:
    torch.manual_seed(0)
    return kind(INPUT, HIDDEN, batch_first=True, **options)


def sample(seed: int = 1) -> tuple[Tensor, Tensor]:
    torch.manual_seed(seed)
    return torch.randn(BATCH, STEPS, INPUT), torch.tensor([STEPS, 1, 4, 7])


@both
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_layers": 3},
        {"bias": False},
        {"batch_first": True, "num_layers": 2},
        {"bidirectional": True},
        {"bidirectional": True, "num_layers": 2, "bias": False},
    ],
)
def test_checkpoints_load_strictly_both_ways_and_outputs_agree(ours: Any, theirs: Any, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    reference, module = theirs(INPUT, HIDDEN, **options), ours(INPUT, HIDDEN, **options)
    module.load_state_dict(reference.state_dict(), strict=True)
    x = torch.randn(STEPS, BATCH, INPUT)
    for given in (x, x[0]):  # batched and unbatched
        y, state = module(given)
        y_reference, state_reference = reference(given)
        assert torch.equal(y, y_reference)
        assert torch.equal(hidden_of(state), hidden_of(state_reference))
    back = theirs(INPUT, HIDDEN, **options)
    back.load_state_dict(module.state_dict(), strict=True)
    assert all(torch.equal(a, b) for a, b in zip(back.parameters(), reference.parameters(), strict=True))


@both
@pytest.mark.parametrize("options", [{}, {"bidirectional": True}])
def test_packed_sequences_pass_through(ours: Any, theirs: Any, options: dict[str, Any]) -> None:
    module, reference = build(ours, **options), theirs(INPUT, HIDDEN, batch_first=True, **options)
    reference.load_state_dict(module.state_dict())
    x, lengths = sample()
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    output, _ = module(packed)
    assert isinstance(output, PackedSequence)
    assert torch.equal(output.data, reference(packed)[0].data)


@pytest.mark.parametrize(("kind", "options"), [(LSTM, {}), (GRU, {}), (GRU, {"reset_after": False}), (RNN, {})])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_padding_never_influences_a_result(kind: Any, options: dict[str, Any], bidirectional: bool) -> None:
    module = build(kind, num_layers=2, bidirectional=bidirectional, **options)
    x, lengths = sample()
    garbage = x.clone()
    for row, length in enumerate(lengths):
        x[row, length:] = 0.0
        garbage[row, length:] = torch.nan
    y, state = module(x, lengths=lengths)
    y_garbage, state_garbage = module(garbage, lengths=lengths)
    assert torch.equal(y, y_garbage)
    assert torch.equal(hidden_of(state), hidden_of(state_garbage))
    for row, length in enumerate(lengths):
        alone, state_alone = module(x[row : row + 1, :length])
        torch.testing.assert_close(y[row, :length], alone[0])
        torch.testing.assert_close(hidden_of(state)[:, row], hidden_of(state_alone)[:, 0])
        assert bool((y[row, length:] == 0).all())


@pytest.mark.parametrize(("kind", "options"), [(LSTM, {}), (GRU, {}), (GRU, {"reset_after": False}), (RNN, {})])
def test_state_carries_over_chunks(kind: Any, options: dict[str, Any]) -> None:
    module = build(kind, num_layers=2, **options)
    x, _ = sample()
    whole, last = module(x)
    first, state = module(x[:, :4])
    second, state = module(x[:, 4:], state)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole)
    torch.testing.assert_close(hidden_of(state), hidden_of(last))


def test_reset_before_is_the_textbook_equation() -> None:
    module = build(GRU, reset_after=False)
    x, _ = sample()
    w, u, b, c = (p.detach().double().numpy() for p in module.parameters())
    h, sequence = np.zeros((BATCH, HIDDEN)), x.double().numpy()
    for t in range(STEPS):
        r, z = (
            1 / (1 + np.exp(-(sequence[:, t] @ w[rows].T + b[rows] + h @ u[rows].T + c[rows])))
            for rows in (slice(0, HIDDEN), slice(HIDDEN, 2 * HIDDEN))
        )
        rows = slice(2 * HIDDEN, None)
        n = np.tanh(sequence[:, t] @ w[rows].T + b[rows] + (r * h) @ u[rows].T + c[rows])
        h = (1 - z) * n + z * h
    y, state = module(x)
    np.testing.assert_allclose(state[0].detach().numpy(), h, atol=1e-6)
    assert torch.equal(y[:, -1], state[0])


@pytest.mark.parametrize("options", [{}, {"bidirectional": True, "num_layers": 2}])
def test_reset_before_takes_every_layout_that_torch_takes(options: dict[str, Any]) -> None:
    batch_first, steps_first = (
        GRU(INPUT, HIDDEN, reset_after=False, batch_first=first, **options) for first in (True, False)
    )
    steps_first.load_state_dict(batch_first.state_dict())
    x, lengths = sample()
    y, state = batch_first(x)
    assert torch.equal(steps_first(x.transpose(0, 1))[0].transpose(0, 1), y)
    alone, state_alone = batch_first(x[0])
    torch.testing.assert_close(alone, y[0])
    torch.testing.assert_close(state_alone, state[:, 0])
    with pytest.raises(ValueError, match="hx must have the shape"):
        batch_first(x, state[:, :1])
    packed, _ = batch_first(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))
    expected = pack_padded_sequence(batch_first(x, lengths=lengths)[0], lengths, batch_first=True, enforce_sorted=False)
    assert torch.equal(packed.data, expected.data)


def test_dropout_acts_between_layers_and_only_in_training() -> None:
    for kind, options in ((LSTM, {}), (GRU, {"reset_after": False})):
        one, two = build(kind, dropout=0.0, **options), build(kind, num_layers=2, dropout=0.9, **options)
        x, _ = sample()
        assert torch.equal(two.eval()(x)[0], two(x)[0])
        assert not torch.equal(two.train()(x)[0], two(x)[0])
        assert torch.equal(one.train()(x)[0], one(x)[0])


@both
def test_orthogonal_recurrent_initialisation(ours: Any, theirs: Any) -> None:
    module = build(ours, num_layers=2, bidirectional=True, recurrent_init="orthogonal")
    for name in ("l0", "l0_reverse", "l1", "l1_reverse"):
        for gate in getattr(module, f"weight_hh_{name}").detach().chunk(len(module.gates)):
            torch.testing.assert_close(gate @ gate.T, torch.eye(HIDDEN), atol=1e-5, rtol=0)


def test_forget_bias_is_the_sum_of_both_biases() -> None:
    module = build(LSTM, num_layers=2, bidirectional=True, forget_bias=1.0)
    for name in ("l0", "l0_reverse", "l1", "l1_reverse"):
        total = getattr(module, f"bias_ih_{name}") + getattr(module, f"bias_hh_{name}")
        assert bool((total[HIDDEN : 2 * HIDDEN] == 1.0).all())
        assert not bool((total[:HIDDEN] == 1.0).any())


# ---- pruning masks ---------------------------------------------------------------------------------------------------


@both
def test_masked_weights_are_zero_in_forward_gradient_copy_and_file(ours: Any, theirs: Any) -> None:
    module, reference = build(ours), theirs(INPUT, HIDDEN, batch_first=True)
    mask = torch.rand_like(module.weight_hh_l0) < 0.5
    module.set_mask("weight_hh_l0", mask)
    reference.load_state_dict(copy.deepcopy(module).state_dict(), strict=False)
    assert bool((reference.weight_hh_l0[~mask] == 0).all())
    x, _ = sample()
    optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
    for _ in range(3):
        y, _ = module(x)
        assert torch.equal(y, reference(x)[0])
        optimizer.zero_grad()
        y.square().sum().backward()
        gradient = module.weight_hh_l0.grad
        assert gradient is not None
        assert bool((gradient[~mask] == 0).all())
        optimizer.step()
        reference.load_state_dict(module.state_dict(), strict=False)
    fresh = build(ours)
    fresh.load_state_dict(module.state_dict(), strict=True)
    assert torch.equal(fresh.masks()["weight_hh_l0"], mask)


def test_masks_beat_the_momentum_of_the_optimiser() -> None:
    module = build(GRU)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
    x, _ = sample()
    for step in range(4):
        optimizer.zero_grad()
        module(x)[0].square().sum().backward()
        optimizer.step()
        if step == 1:
            module.set_mask("weight_ih_l0", torch.zeros_like(module.weight_ih_l0))
    assert bool((module.state_dict()["weight_ih_l0"] == 0).all())


def test_cleared_masks_leave_zeros_that_can_change() -> None:
    module = build(GRU, num_layers=2)
    for name in module.weight_names():
        module.set_mask(name, torch.zeros_like(getattr(module, name)))
    module.clear_masks()
    assert module.masks() == {}
    assert module.state_dict().keys() == build(GRU, num_layers=2).state_dict().keys()
    assert not bool(module.weight_hh_l0.any())
    with torch.no_grad():
        module.weight_hh_l0.fill_(0.5)
    module(torch.zeros(1, 2, module.input_size))
    assert bool((module.state_dict()["weight_hh_l0"] == 0.5).all())
    module.clear_masks()  # nothing left to clear


def test_an_unpruned_checkpoint_keeps_the_masks() -> None:
    module, plain = build(GRU), build(GRU)
    module.set_mask("weight_ih_l0", torch.zeros_like(module.weight_ih_l0))
    module.load_state_dict(plain.state_dict(), strict=True)
    assert bool((module.weight_ih_l0 == 0).all())


# ---- SequenceModel ---------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("head", ["last", "steps"])
def test_from_float_computes_what_torch_computes(ours: Any, theirs: Any, head: Any) -> None:
    torch.manual_seed(3)
    rnn, linear = theirs(INPUT, HIDDEN, num_layers=2, batch_first=True), nn.Linear(HIDDEN, 3)
    mean, std = torch.randn(INPUT), torch.rand(INPUT) + 0.5
    model = SequenceModel.from_float(rnn, linear, head, input_mean=mean, input_std=std)
    x, lengths = sample()
    hidden, _ = rnn((x - mean) / std)
    assert torch.equal(model(x), linear(hidden[:, -1] if head == "last" else hidden))
    y = model(x, lengths)
    for row, length in enumerate(lengths):
        alone = model(x[row : row + 1, :length])[0]
        torch.testing.assert_close(y[row] if head == "last" else y[row, :length], alone)
        assert head == "last" or bool((y[row, length:] == 0).all())


@pytest.mark.parametrize("cell", ["lstm", "gru", "gru_before", "rnn"])
@pytest.mark.parametrize("prepared", [False, True])
def test_a_saved_model_comes_back_the_same(tmp_path: Path, cell: str, prepared: bool) -> None:
    kinds: dict[str, type[Recurrent]] = {"lstm": LSTM, "gru": GRU, "rnn": RNN, "gru_before": GRU}
    rnn = build(kinds[cell], num_layers=2, **({"reset_after": False} if cell == "gru_before" else {}))
    model = SequenceModel(rnn, 3, labels=("a", "b", "c"), input_mean=torch.randn(INPUT)).eval()
    rnn.set_mask("weight_hh_l1", torch.rand(len(rnn.gates) * HIDDEN, HIDDEN) < 0.5)
    x, lengths = sample()
    if prepared:
        calibrate(prepare(model, "w8a8"), x, lengths)
    model.save(tmp_path / "model.safetensors")
    loaded = SequenceModel.load(tmp_path / "model.safetensors").eval()
    assert torch.equal(loaded(x, lengths), model(x, lengths))
    assert (loaded.labels, loaded.cell, loaded.task) == (model.labels, model.cell, model.task)
    arrays = FloatModel.load(tmp_path / "model.safetensors")
    assert np.array_equal(arrays.layers[1].weight_hh, model.state_dict()["rnn.weight_hh_l1"].numpy())
    assert arrays.layers[0].reset_after == (cell != "gru_before")


def test_a_model_without_biases_is_saved_with_zeros(tmp_path: Path) -> None:
    model = SequenceModel(build(GRU, bias=False), 3)
    model.save(tmp_path / "model.safetensors")
    assert not FloatModel.load(tmp_path / "model.safetensors").layers[0].bias_ih.any()
    x, _ = sample()
    assert torch.equal(SequenceModel.load(tmp_path / "model.safetensors")(x), model(x))


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LSTM(INPUT, HIDDEN, proj_size=2), "proj_size"),
        (lambda: GRU(INPUT, 0), "hidden_size"),
        (lambda: GRU(0, HIDDEN), "input_size"),
        (lambda: RNN(INPUT, HIDDEN, nonlinearity="relu"), "nonlinearity"),
        (lambda: GRU(INPUT, HIDDEN, recurrent_init="identity"), "recurrent_init"),  # type: ignore[arg-type]
        (lambda: SequenceModel(nn.GRU(INPUT, HIDDEN, batch_first=True), 3), "from_float"),  # type: ignore[arg-type]
        (lambda: SequenceModel(GRU(INPUT, HIDDEN), 3), "batch_first"),
        (lambda: SequenceModel(build(GRU), 0), "output_size"),
        (lambda: SequenceModel(build(GRU), 3, "mean"), "unknown head"),  # type: ignore[arg-type]
        (lambda: SequenceModel(build(GRU), 3, labels=("a",)), "1 labels for 3 outputs"),
        (lambda: SequenceModel(build(GRU), 3, input_mean=[0.0]), "input_mean must have 5"),
        (lambda: SequenceModel(build(GRU), 3, input_std=[0.0] * 5), "input_std must be positive"),
        (lambda: SequenceModel(build(GRU), 3, input_mean=[float("nan")] * 5), "finite"),
        (lambda: SequenceModel.from_float(nn.Linear(2, 2), nn.Linear(2, 2)), "from_float needs"),
        (lambda: SequenceModel.from_float(nn.GRU(2, 3), nn.Linear(2, 2)), "reads 2 features"),
        (
            lambda: SequenceModel.from_float(nn.GRU(2, 3, bidirectional=True), nn.Linear(3, 2)),
            "reads 3 features, but 6 arrive",
        ),
        (lambda: SequenceModel.from_float(nn.GRU(2, 3), nn.Sequential()), "torch.nn.Linear"),  # type: ignore[arg-type]
        (lambda: build(GRU).set_mask("weight_xx", torch.zeros(1)), "no weight"),
        (lambda: build(GRU).set_mask("weight_hh_l0", torch.zeros(1)), "shape"),
    ],
)
def test_wrong_arguments_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        (torch.tensor([0, 1, 1, 1]), "1 .. 9"),
        (torch.tensor([10, 1, 1, 1]), "1 .. 9"),
        (torch.tensor([1, 1]), "4 integers"),
        (torch.tensor([1.0, 1, 1, 1]), "integers"),
    ],
)
def test_wrong_lengths_are_refused(lengths: Tensor, message: str) -> None:
    x, _ = sample()
    with pytest.raises(ValueError, match=message):
        build(GRU)(x, lengths=lengths)
    with pytest.raises(ValueError, match=message):
        SequenceModel(build(GRU), 3)(x, lengths)


@pytest.mark.parametrize("shape", [(4, 9), (4, 9, 3), (4, 0, 5), (0, 9, 5)])
def test_wrong_input_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"x must be \[batch, steps, 5\]"):
        SequenceModel(build(GRU), 3)(torch.zeros(shape))


def test_a_file_with_nan_weights_is_refused(tmp_path: Path) -> None:
    model = SequenceModel(build(GRU), 3)
    model.rnn.weight_hh_l0.data[0, 0] = torch.nan
    model.save(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"rnn\.weight_hh_l0 contains NaN"):
        SequenceModel.load(tmp_path / "model.safetensors")
