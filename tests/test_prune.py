"""Pruning: shares reached for every block shape, whole blocks only, the weakest ones, masks that survive everything."""

import copy
import math

import numpy as np
import pytest
import torch

from edgernn.nn import GRU, LSTM, RNN, Recurrent, SequenceModel
from edgernn.prune import PruneSchedule, prune_, sparsity
from edgernn.quantize import calibrate, convert, prepare

SEED = 20240611
CELLS: dict[str, type[Recurrent]] = {"lstm": LSTM, "gru": GRU, "rnn": RNN}


def make(
    cell: str, input_size: int = 12, hidden_size: int = 16, layers: int = 1, bidirectional: bool = False
) -> Recurrent:
    torch.manual_seed(SEED)
    return CELLS[cell](input_size, hidden_size, num_layers=layers, batch_first=True, bidirectional=bidirectional)


def make_model(cell: str = "gru", bidirectional: bool = False) -> SequenceModel:
    return SequenceModel(make(cell, bidirectional=bidirectional), 3)


def unit_blocks(mask: np.ndarray, hidden_size: int) -> list[np.ndarray]:
    """The mask's entries in every "unit" block, gathered one by one."""
    gates, columns = len(mask) // hidden_size, mask.shape[1]
    return [
        np.array([mask[g * hidden_size + u, c] for g in range(gates) for c in range(start, min(start + 4, columns))])
        for u in range(hidden_size)
        for start in range(0, columns, 4)
    ]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("columns", [1, 4, 6, 12])
def test_unit_blocks_fall_whole_and_reach_the_share(cell: str, columns: int) -> None:
    rnn = prune_(make(cell, input_size=columns), 0.75)
    for name, mask in rnn.masks().items():
        blocks = unit_blocks(mask.numpy(), rnn.hidden_size)
        assert all(block.all() or not block.any() for block in blocks), name
        largest = max(block.size for block in blocks)
        assert abs(int((~mask).sum()) - 0.75 * mask.numel()) <= largest / 2, name
        assert sparsity(rnn)[name] == int((~mask).sum()) / mask.numel()


def test_unit_blocks_belong_to_one_direction() -> None:
    """Each direction has its own units and its own share; a layer reads the hidden states of both as one row."""
    rnn = make("gru", hidden_size=6, layers=2, bidirectional=True)
    with torch.no_grad():
        for name in ("weight_ih_l1_reverse", "weight_hh_l1_reverse"):
            rnn.get_parameter(name).mul_(0.01)  # the weakest of all, and still none of the other direction's business
    masks = prune_(rnn, 0.5).masks()
    assert len(masks) == 8
    assert masks["weight_ih_l1_reverse"].shape == (18, 12)
    for name, mask in masks.items():
        assert all(block.all() or not block.any() for block in unit_blocks(mask.numpy(), 6)), name
        assert abs(float(mask.float().mean()) - 0.5) <= 1 / 12, name
    assert not torch.equal(masks["weight_hh_l0"], masks["weight_hh_l0_reverse"])


@pytest.mark.parametrize(
    ("block", "height", "width"), [("element", 1, 1), ("4x1", 4, 1), ("3x5", 3, 5), ("16x4", 16, 4)]
)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_tiles_fall_whole_and_reach_the_share(block: str, height: int, width: int, share: float) -> None:
    rnn = prune_(make("gru"), share, block)
    for mask in rnn.masks().values():
        kept = mask.numpy()
        tiles = [
            kept[row : row + height, column : column + width]
            for row in range(0, kept.shape[0], height)
            for column in range(0, kept.shape[1], width)
        ]
        assert all(tile.all() or not tile.any() for tile in tiles)
        assert abs((~kept).sum() - share * kept.size) <= height * width / 2


def test_the_weakest_blocks_fall_by_mean_square() -> None:
    rnn = RNN(5, 2, batch_first=True)  # per unit: one block of four columns, one of a single column
    with torch.no_grad():
        rnn.get_parameter("weight_ih_l0").copy_(torch.tensor([[2.0, 0, 0, 0, 1.5], [0.9, 0.9, 0.9, 0.9, 0.5]]))
    prune_(
        rnn, 0.5
    )  # mean squares 1, 2.25, 0.81, 0.25: the single 0.5 and then the block of 0.9 go, five of ten weights
    assert rnn.masks()["weight_ih_l0"].numpy().tolist() == [[True] * 5, [False] * 5]


def test_something_always_stays() -> None:
    rnn = prune_(RNN(2, 2, batch_first=True), 0.99)
    assert all(bool(mask.any()) for mask in rnn.masks().values())


@pytest.mark.parametrize("block", ["element", "4x1"])
def test_gates_have_shares_of_their_own(block: str) -> None:
    rnn = prune_(make("gru"), 0.5, block, gates={"r": 0.75, "n": 0.25})
    for mask in rnn.masks().values():
        shares = [1.0 - float(part.float().mean()) for part in mask.chunk(3)]
        assert shares == [0.75, 0.5, 0.25]


def test_pruning_further_keeps_what_is_pruned() -> None:
    rnn = make("lstm")
    first = {name: mask.clone() for name, mask in prune_(rnn, 0.4).masks().items()}
    with torch.no_grad():
        for name in rnn.weight_names():  # an optimiser's momentum may move masked weights
            getattr(rnn, name).add_(1.0)
    prune_(rnn, 0.8)
    assert all(not bool((mask & ~first[name]).any()) for name, mask in rnn.masks().items())


def test_sparsity_counts_zeros_of_all_layers() -> None:
    rnn = make("gru", layers=2)
    assert sparsity(rnn)["overall"] == 0.0
    with torch.no_grad():
        rnn.get_parameter("weight_ih_l0")[0, :6] = 0.0
    found = sparsity(SequenceModel(rnn, 2))
    assert found["weight_ih_l0"] == 6 / (48 * 12)
    assert found["overall"] == 6 / (48 * 12 + 3 * 48 * 16)
    assert set(found) == {"weight_ih_l0", "weight_hh_l0", "weight_ih_l1", "weight_hh_l1", "overall"}


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_masks_survive_copies_files_and_quantisation(cell: str, bidirectional: bool) -> None:
    model = make_model(cell, bidirectional)
    prune_(model, 0.75)
    masks = {name: mask.clone() for name, mask in model.rnn.masks().items()}
    other = make_model(cell, bidirectional)
    other.load_state_dict(model.state_dict())
    x = torch.from_numpy(np.random.default_rng(SEED).normal(size=(4, 7, 12)).astype(np.float32))
    prepare(model, "w8a8")
    calibrate(model, x)
    for found in (model, other, copy.deepcopy(model), copy.deepcopy(other)):
        assert all(torch.equal(found.rnn.masks()[name], mask) for name, mask in masks.items())
        assert sparsity(found)["overall"] == 0.75
    optimizer = torch.optim.Adam(model.parameters(), 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        torch.autograd.backward(model(x).square().sum())
        optimizer.step()
    directions = convert(model).layers[0].directions
    for suffix, direction in zip(("", "_reverse")[: 1 + bidirectional], directions, strict=True):
        assert not direction.input.weight[~masks[f"weight_ih_l0{suffix}"].numpy()].any()
        assert not direction.recurrent.weight[~masks[f"weight_hh_l0{suffix}"].numpy()].any()


def test_the_ramp_is_the_published_cubic() -> None:
    schedule = PruneSchedule(0.8, start=0.25, end=0.75)
    assert [schedule.factor(p) for p in (0.0, 0.25, 0.75, 1.0)] == [0.0, 0.0, 1.0, 1.0]
    assert schedule.factor(0.5) == 1 - 0.5**3
    assert math.isclose(schedule.factor(0.375), 1 - 0.75**3)
    rnn = make("gru")
    schedule.apply_(rnn, 0.25)
    assert not rnn.masks()
    schedule.apply_(rnn, 0.5)
    assert abs(sparsity(rnn)["overall"] - 0.8 * 0.875) < 0.02
    gates = PruneSchedule(0.0, "element", {"z": 0.5}, start=0.0, end=1.0)
    gates.apply_(rnn := make("gru"), 1.0)
    assert [float(part.float().mean()) for part in rnn.masks()["weight_hh_l0"].chunk(3)] == [1.0, 0.5, 1.0]


def test_a_jump_is_a_ramp_without_length() -> None:
    schedule = PruneSchedule(0.5, start=0.5, end=0.5)
    assert [schedule.factor(p) for p in (0.49, 0.5)] == [0.0, 1.0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sparsity": 1.0}, r"share in \[0, 1\)"),
        ({"sparsity": -0.1}, r"share in \[0, 1\)"),
        ({"sparsity": float("nan")}, r"share in \[0, 1\)"),
        ({"sparsity": "0.5"}, r"share in \[0, 1\)"),
        ({"sparsity": 0.5, "block": "row"}, "unknown block 'row'"),
        ({"sparsity": 0.5, "block": "0x4"}, "unknown block"),
        ({"sparsity": 0.5, "block": None}, "unknown block"),
        ({"sparsity": 0.5, "gates": {"r": 0.5}}, '"unit" block holds the rows of all gates'),
        ({"sparsity": 0.5, "block": "element", "gates": {"q": 0.5}}, "has no gate 'q'; it has r, z, n"),
        ({"sparsity": 0.5, "block": "element", "gates": {"r": 1.5}}, r"gates\['r'\] must be a share"),
        ({"sparsity": 0.5, "block": "5x1", "gates": {"r": 0.5}}, "straddle two gates"),
    ],
)
def test_bad_requests_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prune_(make("gru"), **arguments)  # type: ignore[arg-type]


def test_foreign_and_diverged_models_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot prune a Linear"):
        prune_(torch.nn.Linear(2, 2), 0.5)
    with pytest.raises(ValueError, match="cannot prune a GRU"):
        sparsity(torch.nn.GRU(2, 2))
    rnn = make("gru")
    with torch.no_grad():
        rnn.get_parameter("weight_hh_l0")[0, 0] = float("nan")
    with pytest.raises(ValueError, match="weight_hh_l0 contains NaN"):
        prune_(rnn, 0.5)


@pytest.mark.parametrize(("start", "end"), [(0.6, 0.2), (-0.1, 0.5), (0.5, 1.1), (float("nan"), 0.5)])
def test_ramps_outside_training_are_refused(start: float, end: float) -> None:
    with pytest.raises(ValueError, match="0 <= start <= end <= 1"):
        PruneSchedule(0.5, start=start, end=end)
