"""Random cases for the property tests and the soak: from one seed a model, a padded batch of sequences and lengths."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgernn._adversarial import adversarial_models
from edgernn.qmodel import Affine, IntArray, Profile, QuantizedModel, Scheme

from .models import SCHEMES, VARIANTS, changed, random_input, random_model, with_directions
from .trained import draw_trained

_HIDDEN = (1, 2, 3, 5, 8, 17, 33, 64, 200, 512)
_HIDDEN_ODDS = (0.1, 0.12, 0.14, 0.16, 0.16, 0.12, 0.1, 0.07, 0.02, 0.01)
_INPUT = (1, 2, 3, 5, 12, 40, 200, 512)
_INPUT_ODDS = (0.18, 0.16, 0.16, 0.16, 0.16, 0.1, 0.05, 0.03)
_STEPS = (1, 2, 3, 7, 20, 64, 65, 130, 300, 2000)
_STEPS_ODDS = (0.14, 0.12, 0.14, 0.2, 0.2, 0.06, 0.05, 0.05, 0.03, 0.01)
_WORK_MAX = 1_500_000  # multiplications of one sequence: what is drawn longer is cut to fewer steps


@dataclass(frozen=True, eq=False)
class Case:
    """x [N, T, input_size] and lengths int64 [N] for `model`; what lies beyond a length is random too.

    A model that PyTorch made comes with what the forward pass of QAT computes for them: `trained`, as a batch.
    """

    seed: int
    model: QuantizedModel
    x: IntArray
    lengths: npt.NDArray[np.int64]
    trained: IntArray | None = None

    def __str__(self) -> str:
        first = self.model.layers[0]
        profile = "" if self.model.profile == "portable" else f" {self.model.profile}"
        cell = first.cell if first.reset_after else "gru, reset before"
        sizes = "-".join(f"{'2x' if layer.backward else ''}{layer.hidden_size}" for layer in self.model.layers)
        head = "no head" if self.model.head is None else f"head {self.model.head.kind}"
        steps = ", ".join(map(str, self.lengths))
        return (
            f"seed {self.seed}: {self.model.scheme}{profile} {cell} {first.input_size}-{sizes}, {head}, steps {steps}"
        )


def multiplications(model: QuantizedModel) -> int:
    """Of one step."""
    directions = [direction for layer in model.layers for direction in layer.directions]
    return sum(one.input.weight.size + one.recurrent.weight.size for one in directions)


def draw(seed: int) -> Case:
    """The case of this seed: every cell, scheme, head, direction and kind of integers turns up among a few dozen."""
    rng, profile = np.random.default_rng([seed, 20]), _profile(seed)
    if rng.random() < 0.1:
        return Case(seed, *draw_trained(seed, profile))
    model = _model(seed, rng, profile)
    steps = int(rng.choice(_STEPS, p=_STEPS_ODDS))
    steps = max(1, min(steps, _WORK_MAX // multiplications(model)))
    batch = int(rng.integers(1, 4))
    lengths = rng.integers(1, steps + 1, batch)
    lengths[0] = steps
    return Case(seed, model, random_input(model, steps, seed, (batch,)), lengths)


def _scheme(seed: int) -> Scheme:
    return SCHEMES[seed // len(VARIANTS) % len(SCHEMES)]


def _profile(seed: int) -> Profile:
    """tflite-lstm for some of the LSTMs in w8a8."""
    able = VARIANTS[seed % len(VARIANTS)] == "lstm" and _scheme(seed) == "w8a8"
    return "tflite-lstm" if able and np.random.default_rng([seed, 22]).random() < 0.5 else "portable"


def _model(seed: int, rng: np.random.Generator, profile: Profile) -> QuantizedModel:
    layers = int(rng.choice([1, 2, 3], p=[0.55, 0.3, 0.15]))
    hidden = int(rng.choice(_HIDDEN, p=_HIDDEN_ODDS))
    model = random_model(
        seed,
        VARIANTS[seed % len(VARIANTS)],
        _scheme(seed),
        input_size=int(rng.choice(_INPUT, p=_INPUT_ODDS)),
        hidden_size=hidden if layers == 1 else min(hidden, 200),
        layers=layers,
        head=("last", "steps", None)[int(rng.choice(3, p=[0.4, 0.4, 0.2]))],
        output_size=int(rng.integers(1, 12)),
        saturating=bool(rng.random() < 0.3),
        bidirectional=bool(rng.random() < 0.4),
        per_tensor=bool(rng.random() < 0.2),
        input_zero_point=int(rng.choice([-128, -77, 0, 5, 127])) if rng.random() < 0.5 else None,
        profile=profile,
    )
    kind = rng.random()
    if kind < 0.3:
        model = adversarial_models(model, seed)[int(rng.integers(4))][1]
    elif kind < 0.5 and profile == "portable":
        model = changed(model, lambda affine, limit: _extreme_rows(affine, limit, rng))
    if model.bidirectional and rng.random() < 0.4:
        return with_directions(model, (rng.random(layers) < 0.5).tolist())
    return model


def _extreme_rows(affine: Affine, limit: int, rng: np.random.Generator) -> Affine:
    """Some rows all 127, all -127, or all zero; the map as it was, where that could overflow its accumulator."""
    weight, pick = affine.weight.copy(), rng.random(affine.rows)
    for value, low, high in ((127, 0.0, 0.3), (-127, 0.3, 0.5), (0, 0.9, 1.0)):
        weight[(pick >= low) & (pick < high)] = value
    changed = dataclasses.replace(affine, weight=weight)
    try:
        changed.check_range(limit)
    except ValueError:
        return affine
    return changed
