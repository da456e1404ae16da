"""The suite: models of fixed seeds, their exported files, inputs, and the integers that the oracle expects of them."""

import dataclasses
from itertools import product
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from edgernn._files import write_tensors
from edgernn.engines import ENGINES
from edgernn.qmodel import HeadKind, IntArray, QuantizedModel, Scheme

from .. import oracle
from ..cases import Case
from ..models import SCHEMES, VARIANTS, Variant, random_input, random_model
from .device import DATA, DATA_FORMAT, is_own_exporter, ways
from .userland import PI_2, PI_4, PI_5

_HIDDEN_SIZES: Final = (1, 2, 5, 17, 33, 64, 128)
_STEPS: Final = (1, 2, 5, 12, 20)


class Part(NamedTuple):
    """An engine on a processor. simd: the vector instructions that it is to choose there by itself, or "off" for the
    readable kernels of Numba; these and its others do half of the cells each, since each takes minutes to compile.
    """

    engine: str
    processor: str
    simd: str = ""

    def cases(self, suite: list[Case]) -> list[Case]:
        """What of the suite it runs."""
        if self.engine != "numba":
            return suite
        return [
            case for case in suite if (_kind(case.model) in _NEON) == ((self.simd == "off") != (self.processor == PI_4))
        ]


# The cells that do without dot products by vector instructions, and with them by the readable kernels; others reversed.
_NEON: Final = {("lstm", "w8a8"), ("gru", "w8a16"), ("gru_before", "w8a8"), ("rnn", "w8a16")}


def _kind(model: QuantizedModel) -> tuple[str, Scheme]:
    first = model.layers[0]
    return (first.cell if first.reset_after else "gru_before"), model.scheme


PARTS: Final = (
    Part("numba", PI_4, "neon"),
    Part("numba", PI_4, "off"),
    Part("native", PI_4, "NEON"),
    Part("litert", PI_4),
    Part("litert-no-delegate", PI_4),
    Part("litert-reference", PI_4),
    Part("tflite-runtime", PI_4),
    Part("tflite-runtime-no-delegate", PI_4),
    Part("tflite-runtime-reference", PI_4),
    Part("onnxruntime", PI_4),
    Part("numba", PI_5, "neondot"),
    Part("numba", PI_5, "off"),
    Part("native", PI_5, "NEON with dot products"),
    Part("litert", PI_5),
    Part("litert-compiled", PI_5),
    Part("tflite-runtime", PI_5),
    Part("onnxruntime", PI_5),
    Part("native", PI_2, "NEON"),
)


def cases() -> list[Case]:
    """Every cell, scheme, head and direction, with usual and with saturating weights; the sizes take turns."""
    heads: tuple[HeadKind | None, ...] = ("last", "steps", None)
    kinds = product(VARIANTS, SCHEMES, heads, (False, True), (False, True))
    return [_case(seed, *kind) for seed, kind in enumerate(kinds)]


def _case(
    seed: int, variant: Variant, scheme: Scheme, head: HeadKind | None, bidirectional: bool, saturating: bool
) -> Case:
    model = random_model(
        seed,
        variant,
        scheme,
        hidden_size=_HIDDEN_SIZES[seed % 7],
        layers=1 + seed // 7 % 2,
        head=head,
        bidirectional=bidirectional,
        saturating=saturating,
        per_tensor=seed % 11 < 3,
    )
    steps, batch = _STEPS[seed % 5], 1 + seed % 3
    lengths = np.random.default_rng(seed).integers(1, steps + 1, batch)
    lengths[0] = steps
    return Case(seed, model, random_input(model, steps, seed, (batch,)), lengths)


def write(case: Case, folder: Path) -> None:
    """model.ernn; sequence.tflite, step.onnx, .. for every way an engine runs it; data: x, lengths, outputs by way."""
    folder.mkdir()
    case.model.save(folder / "model.ernn")
    for engine in {part.engine: ENGINES[part.engine] for part in PARTS}.values():
        for way in () if is_own_exporter(engine) else ways(engine, case.model):
            path = folder / f"{way}{engine.suffix}"
            if path.exists():
                continue
            if way == "batch":
                path.write_bytes(engine.export(case.model, "sequence", batch=len(case.x)))
            else:
                path.write_bytes(engine.export(case.model, way))
    data = {"x": case.x, "lengths": case.lengths, **_expected(case)}
    write_tensors(folder / DATA, data, {"format": DATA_FORMAT})


def _expected(case: Case) -> dict[str, IntArray]:
    """The outputs of all sequences, the same padded with zeros, and those of every step of the first sequence; flat."""
    outputs = [oracle.run(case.model, x[:length]) for x, length in zip(case.x, case.lengths, strict=True)]
    padded = np.zeros((len(outputs), *outputs[0].shape), outputs[0].dtype)  # the first sequence is a longest one
    for place, y in zip(padded, outputs, strict=True):
        place[: len(y)] = y
    every: IntArray = np.zeros(0, np.int8)
    if not case.model.bidirectional:
        every = oracle.run(_with_every_step(case.model), case.x[0]).ravel()
    return {
        "sequence": np.concatenate([y.ravel() for y in outputs]),
        "batch": padded.ravel(),
        "step": every,
        "stream": every,
    }


def _with_every_step(model: QuantizedModel) -> QuantizedModel:
    """The same network with an output for every step: what a stream gives, whatever the head is."""
    return dataclasses.replace(model, head=model.head and dataclasses.replace(model.head, kind="steps"))
