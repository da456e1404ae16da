"""What a model's parts cost, and their sums: a step, an inference."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ...qmodel import DIRECTION_SUFFIXES, Affine, Layer, QuantizedModel
from .boards import Board


@dataclass(frozen=True)
class Part:
    """A part of the model: layer_0, layer_0_reverse, .., head, or other (what comes before the first layer).

    macs, instructions, cycles (at zero wait states) and bytes streamed from flash are those of one run: a step's, or
    where `once`, that of an inference.
    """

    name: str
    macs: int
    streamed: int
    instructions: float
    cycles: float
    once: bool


@dataclass(frozen=True)
class Cost:
    """Of a step, or of an inference. core_cycles at zero wait states, flash_cycles waiting for weights; seconds and
    joules are None without a clock, or without a known current."""

    macs: int
    instructions: float
    core_cycles: float
    flash_cycles: float
    seconds: float | None
    joules: float | None

    @property
    def cycles(self) -> float:
        return self.core_cycles + self.flash_cycles


@dataclass(frozen=True)
class Memory:
    """Bytes. RAM: the state that the caller keeps, the deepest stack, and what a bidirectional model works in, for all
    steps of an inference. Flash: code, and constants with weights."""

    state: int
    stack: int
    code: int
    tables: int
    work: int = 0

    @property
    def ram(self) -> int:
        return self.state + self.stack + self.work

    @property
    def flash(self) -> int:
        return self.code + self.tables


def layers(model: QuantizedModel) -> Iterator[tuple[str, Layer]]:
    """Every direction of every layer, with the name of its part."""
    for index, layer in enumerate(model.layers):
        for suffix, direction in zip(DIRECTION_SUFFIXES, layer.directions, strict=False):
            yield f"layer_{index}{suffix}", direction


def part_names(model: QuantizedModel) -> list[str]:
    """The names of all parts that a model may have, in the order in which they run."""
    return ["other", *(name for name, _ in layers(model)), "head"]


def part(model: QuantizedModel, name: str, instructions: float, cycles: float) -> Part:
    """A part with these costs of one run. Streamed are weights, and of every row its bias and multiplier (in the
    profile tflite-lstm a gate's rows have one)."""
    maps = _maps(model, name)
    once = name == "other" or (name == "head" and not model.every_step)
    macs = sum(affine.weight.size for affine in maps)
    row = 8 if name == "head" or model.profile == "portable" else 4
    return Part(name, macs, macs + row * sum(affine.rows for affine in maps), instructions, cycles, once)


def _maps(model: QuantizedModel, name: str) -> list[Affine]:
    found = {layer: [one.input, one.recurrent] for layer, one in layers(model)}
    if model.head is not None:
        found["head"] = [model.head.dense]
    return found.get(name, [])


def cost(parts: Sequence[Part], steps: int, answers: int, board: Board | None, clock: float | None) -> Cost:
    """The sum of `steps` runs of what runs at every step and `answers` of what runs once."""

    def total(of: Callable[[Part], float]) -> float:
        return sum((answers if part.once else steps) * of(part) for part in parts)

    core, flash = total(lambda part: part.cycles), 0.0
    if board is not None and clock is not None:
        for once, runs in ((False, steps), (True, answers)):
            flash += runs * board.flash_cycles(clock, sum(part.streamed for part in parts if part.once == once))
    seconds = None if clock is None else (core + flash) / clock
    joules = None if board is None else board.energy(core + flash)
    return Cost(int(total(lambda part: part.macs)), total(lambda part: part.instructions), core, flash, seconds, joules)
