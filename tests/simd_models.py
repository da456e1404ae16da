"""The kernels of whichever form the environment chose, on some models, against the arithmetic in NumPy.

    python -m tests.simd_models VARIANT:SCHEME ..

Prints the form and how many integers were compared; exits with an AssertionError where one differs.
"""

import sys
from collections.abc import Iterable
from typing import Any, cast

import numpy as np

from edgernn.firmware_sim import Stream, run, run_batch
from edgernn.firmware_sim.simd._host import host_form
from edgernn.qmodel import IntArray, Scheme

from . import vectorised
from .models import Variant, random_input, random_model


def compare(found: IntArray, expected: IntArray, what: Any) -> int:
    wrong = np.argwhere(found != expected)
    assert len(wrong) == 0, f"{what}: {len(wrong)} of {expected.size} differ, first at {wrong[0]}"
    return int(expected.size)


def check(variant: Variant, scheme: Scheme, seed: int) -> int:
    """A random model of two layers: a stream, one sequence, and a batch of sequences of any lengths."""
    rng = np.random.default_rng(seed)
    hidden, batch, steps = (int(rng.integers(1, limit)) for limit in (71, 21, 40))
    model = random_model(seed, variant, scheme, hidden_size=hidden, layers=2, head="steps", saturating=seed % 3 == 0)
    x, lengths = random_input(model, steps, seed, (batch,)), rng.integers(1, steps + 1, batch)
    lengths[0] = steps
    expected = [vectorised.run(model, one[:length]) for one, length in zip(x, lengths, strict=True)]
    what = f"seed {seed}, {variant} {scheme}, {hidden} units, {batch} sequences of {steps} steps"
    compared = compare(run(model, x[0])[0], expected[0], what)
    stream = Stream(model)
    compared += compare(np.array([stream.step(row) for row in x[0]]), expected[0], what)
    for y, one in zip(run_batch(model, x, lengths), expected, strict=True):
        compared += compare(y, np.pad(one, ((0, steps - len(one)), (0, 0))), what)
    return compared


def main(models: Iterable[str]) -> None:
    form, compared = host_form(), 0
    for model in models:
        variant, scheme = model.split(":")
        for seed in range(16):
            compared += check(cast(Variant, variant), cast(Scheme, scheme), seed)
    print(form.name if form else "off", compared)


if __name__ == "__main__":
    main(sys.argv[1:])
