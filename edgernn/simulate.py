"""What a model costs on a microcontroller: instructions, cycles, time, memory and energy of a step and an inference.

Counted, where compiler and emulator are here: the exported firmware runs under emulation, its outputs are compared with
the kernel's, and every executed instruction is counted and priced. Else analytic: formulas fitted to counted runs.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import numpy as np

from .firmware_sim.cycles import BOARDS, Board, Core, cycles, find_board, find_core
from .qmodel import DIRECTION_SUFFIXES, IntArray, Layer, QuantizedModel

Level = Literal["counted", "analytic"]

EMULATED_STEPS: Final = 32  # enough for a mean: only saturation and clamping depend on the values
STEPS: Final = 100  # of an inference, where nobody says


@dataclass(frozen=True)
class Part:
    """A part of the model: layer_0, layer_0_reverse, .., head, or other (what comes before the first layer). Each with
    what one run costs: a step's, or where `once`, that of an inference."""

    name: str
    macs: int
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
    """Bytes. RAM: the state that the caller keeps, and the deepest stack. Flash: code, and constants with weights."""

    state: int
    stack: int
    code: int
    tables: int

    @property
    def ram(self) -> int:
        return self.state + self.stack

    @property
    def flash(self) -> int:
        return self.code + self.tables


@dataclass(frozen=True)
class Simulation:
    """The costs of a model on a core, at one level of knowledge.

    instruction_error is 0 where they are counted; cycle_error is relative too. equals_kernel: whether the emulated
    outputs are the kernel's, None where nothing was emulated. notes: sources and doubts, in words.
    """

    core: Core
    board: Board | None
    clock: float | None
    level: Level
    steps: int
    parts: tuple[Part, ...]
    step: Cost
    inference: Cost
    memory: Memory
    instruction_error: float
    cycle_error: float
    equals_kernel: bool | None
    notes: tuple[str, ...]


class _Measured(NamedTuple):
    parts: tuple[Part, ...]
    memory: Memory
    error: float
    equal: bool | None
    how: str


def usual_board(core: str) -> Board | None:
    """The board that stands for a core where none is named: the first in the table."""
    return next((board for board in BOARDS.values() if board.core == core), None)


def missing(core: str) -> str | None:
    """The command that installs what counting on a core needs, None when it is here. Raises ValueError."""
    from .firmware_sim.emulation.cores import find, install_command

    return install_command((*find(core).tools, "gcc"))  # gcc compiles the emulator's plugin


def simulate(
    model: QuantizedModel,
    core: str,
    *,
    board: Board | None = None,
    clock: float | None = None,
    steps: int = STEPS,
    level: Level | None = None,
    x: IntArray | None = None,
) -> Simulation:
    """The costs of `steps` steps of a model on a core.

    board adds flash wait states, energy and its memory's limits; clock (Hz) is the board's highest by default, and
    without either there are no times. level: counted where that is possible, by default. x: integers [time, input_size]
    to count with, random ones over the whole range by default. Raises ValueError for an unknown core, a board of
    another core, a clock out of range, a missing compiler or emulator, and a model too large for the memory.
    """
    target = find_core(core)
    clock = _check_clock(target, board, clock)
    if steps < 1:
        raise ValueError(f"steps must be at least 1, not {steps}")
    measured, why = _measured(model, target, board, steps, level, x)
    if board is not None:
        board.check_memory(measured.memory.flash, measured.memory.ram)
    step, inference = _costs(model, measured, board, clock, steps)
    notes = [*_notes(target, board, measured), *([] if why is None else [f"not counted: {why}"])]
    return Simulation(
        target,
        board,
        clock,
        "analytic" if measured.equal is None else "counted",
        steps,
        measured.parts,
        step,
        inference,
        measured.memory,
        measured.error,
        (1 + measured.error) * (1 + target.error) - 1,
        measured.equal,
        tuple(notes),
    )


def _measured(
    model: QuantizedModel, core: Core, board: Board | None, steps: int, level: Level | None, x: IntArray | None
) -> tuple[_Measured, str | None]:
    """What is known of the model, and why it is not counted where nobody chose a level: a missing tool, or a model that
    fits the board and not the emulated one."""
    from .firmware_sim.emulation import TooLarge

    why = missing(core.name) if level is None else None
    if level == "analytic" or why is not None:
        return _estimate(model, core), why
    try:
        return _count(model, core, steps, x), None
    except TooLarge as error:
        if level is not None or board is None:
            raise
        return _estimate(model, core), str(error)


def _check_clock(core: Core, board: Board | None, clock: float | None) -> float | None:
    if board is None:
        if clock is not None and not clock > 0:
            raise ValueError(f"the clock must be positive, not {clock:g} Hz")
        return clock
    if board.core != core.name:
        fitting = ", ".join(_boards_of(core)) or "none"
        raise ValueError(f"{board.title} has the core {board.core}, not {core.name}; boards with that: {fitting}")
    clock = board.max_clock if clock is None else clock
    board.check_clock(clock)
    return clock


def _boards_of(core: Core) -> list[str]:
    return [name for name, board in BOARDS.items() if board.core == core.name]


# ---- counted ---------------------------------------------------------------------------------------------------------


def _count(model: QuantizedModel, core: Core, steps: int, x: IntArray | None) -> _Measured:
    from .export import to_c
    from .firmware_sim import run
    from .firmware_sim.cycles import disassemble, instructions
    from .firmware_sim.emulation import build, count

    if x is None:
        rng = np.random.default_rng(0)
        shape = (min(steps, EMULATED_STEPS), model.input_size)
        x = rng.integers(-model.input_limit, model.input_limit, shape).astype(model.input_dtype)
    firmware = build(core.name, to_c(model, target=core.name))
    counts = count(firmware, x)
    listing = disassemble(firmware.content, firmware.core.compiler.replace("gcc", "objdump"))
    macs = _macs(model)
    parts = []
    for number, name in enumerate(counts.parts):
        once = name == "other" or (name == "head" and not model.every_step)
        runs = 1 if once else len(x)
        of = counts.part == number
        addresses = counts.address[of].tolist()
        executed, taken = (
            dict(zip(addresses, one[of].tolist(), strict=True)) for one in (counts.executed, counts.taken)
        )
        program = instructions(listing, executed, taken)
        total = sum(executed.values())
        parts.append(Part(name, macs.get(name, 0), total / runs, cycles(core, program) / runs, once))
    sizes = firmware.sizes
    memory = Memory(sizes.state + sizes.data + sizes.zeros, counts.stack, sizes.code, sizes.tables + sizes.data)
    how = f"instructions counted in {len(x)} emulated steps, exact"
    return _Measured(tuple(parts), memory, 0.0, np.array_equal(counts.outputs, run(model, x)[0]), how)


def _macs(model: QuantizedModel) -> dict[str, int]:
    """Multiplications of a run of every part."""
    found = {name: one.input.weight.size + one.recurrent.weight.size for name, one in _layers(model)}
    return found | ({} if model.head is None else {"head": model.head.dense.weight.size})


def _layers(model: QuantizedModel) -> Iterator[tuple[str, Layer]]:
    for index, layer in enumerate(model.layers):
        for suffix, direction in zip(DIRECTION_SUFFIXES, layer.directions, strict=False):
            yield f"layer_{index}{suffix}", direction


# ---- analytic --------------------------------------------------------------------------------------------------------


def _estimate(model: QuantizedModel, core: Core) -> _Measured:
    from .firmware_sim.cycles.fitted import fitted

    macs, parts, errors = _macs(model), [], []
    entries = []
    for name, layer in _layers(model):
        entries.append(entry := fitted(core.name, variant(layer), model.scheme))
        columns = _filled(layer.input_size) + _filled(layer.hidden_size)
        costs = entry.layer.costs(layer.hidden_size, columns, len(layer.gates))
        parts.append(Part(name, macs[name], *costs, False))
        errors.append(entry.layer.error)
    if model.head is not None:
        dense, formula = model.head.dense, entries[0].head
        costs = formula.costs(dense.rows, _filled(dense.columns), 1)
        parts.append(Part("head", macs["head"], *costs, not model.every_step))
        errors.append(formula.error)
    state, tables = _exported_sizes(model, core)
    stack = max(entry.stack for entry in entries)
    code = max(entry.code[0] for entry in entries) + sum(entry.code[1] for entry in entries)
    instructions = sum(part.instructions for part in parts)
    error = sum(error * part.instructions for error, part in zip(errors, parts, strict=True)) / instructions
    fit = f"within {error:.1%} as measured on shapes not fitted"
    how = f"instructions from formulas fitted to counted runs, {fit}; code and stack are those of the fitted models"
    return _Measured(tuple(parts), Memory(state, stack, code, tables), error, None, how)


def variant(layer: Layer) -> str:
    """The cell's name in the fitted table."""
    return layer.cell if layer.reset_after else f"{layer.cell}_before"


def _filled(count: int) -> int:
    return -(-count // 4) * 4


def _exported_sizes(model: QuantizedModel, core: Core) -> tuple[int, int]:
    """(bytes of the state, of the constants), as the exported header states them; the sigmoid's tables added."""
    from .export import to_c
    from .firmware_sim.cycles.fitted import table

    header = to_c(model, target=core.name)["model.h"]
    state, weights = (_macro(header, name) for name in ("STATE_BYTES", "WEIGHT_BYTES"))
    return state, weights + int(table()["cores"][core.name]["lookup_bytes"])


def _macro(header: str, name: str) -> int:
    found = re.search(rf"^#define MODEL_{name} (\d+)$", header, re.MULTILINE)
    assert found is not None, name
    return int(found[1])


# ---- sums ------------------------------------------------------------------------------------------------------------


def _costs(
    model: QuantizedModel, measured: _Measured, board: Board | None, clock: float | None, steps: int
) -> tuple[Cost, Cost]:
    """(a step, an inference of `steps` steps)."""
    streamed = {part.name: _streamed(model, part.name) for part in measured.parts}
    every = [part for part in measured.parts if not part.once]
    single = [part for part in measured.parts if part.once]
    flash = _flash_cycles(board, clock, sum(streamed[part.name] for part in every))
    last = _flash_cycles(board, clock, sum(streamed[part.name] for part in single))
    step = _cost(every, 1, flash, board, clock)
    answer = _cost(single, 1, last, board, clock)
    inference = _cost(every, steps, flash * steps, board, clock)
    return step, _sum(inference, answer)


def _streamed(model: QuantizedModel, part: str) -> int:
    """Bytes that a run of a part reads from flash in order: weights, and of every row its bias and multiplier."""
    layers = dict(_layers(model))
    if part in layers:
        affines = [layers[part].input, layers[part].recurrent]
    else:
        affines = [model.head.dense] if part == "head" and model.head is not None else []
    return sum(affine.weight.size + 8 * affine.rows for affine in affines)


def _flash_cycles(board: Board | None, clock: float | None, streamed: int) -> float:
    return 0.0 if board is None or clock is None else board.flash_cycles(clock, streamed)


def _cost(parts: list[Part], times: int, flash: float, board: Board | None, clock: float | None) -> Cost:
    core = times * sum(part.cycles for part in parts)
    seconds = None if clock is None else (core + flash) / clock
    joules = None if board is None else board.energy(core + flash)
    instructions = times * sum(part.instructions for part in parts)
    return Cost(times * sum(part.macs for part in parts), instructions, core, flash, seconds, joules)


def _sum(first: Cost, second: Cost) -> Cost:
    seconds = None if first.seconds is None or second.seconds is None else first.seconds + second.seconds
    joules = None if first.joules is None or second.joules is None else first.joules + second.joules
    return Cost(
        first.macs + second.macs,
        first.instructions + second.instructions,
        first.core_cycles + second.core_cycles,
        first.flash_cycles + second.flash_cycles,
        seconds,
        joules,
    )


def _notes(core: Core, board: Board | None, measured: _Measured) -> Iterator[str]:
    yield measured.how
    kind = "indicative cycles" if core.indicative else "cycles"
    yield f"{kind} within {core.error:.0%} ({core.validation}): {core.source}"
    if core.doubtful:
        yield f"doubtful: the cycles of {core.title} may be off by more than 15 %"
    if board is None:
        yield "no board: zero wait states, no energy"
        return
    yield f"flash cycles: weights read once a step through lines of {board.flash_line_bytes} bytes; {board.source}"
    if board.microamps_per_mhz is None:
        yield f"no energy: no figure for {board.title}'s current is at hand"
    else:
        volts = f"{board.microamps_per_mhz:g} uA/MHz at {board.volts:g} V"
        yield f"energy is an estimate from {volts}: {board.current_source}"
    if board.unverified:
        yield f"unverified figures of {board.title}: {', '.join(name.replace('_', ' ') for name in board.unverified)}"


def named_board(name: str | None, core: str) -> Board | None:
    """The board of that name; None for "none"; the core's usual one where no name is given. Raises ValueError."""
    if name == "none":
        return None
    return usual_board(core) if name is None else find_board(name)
