"""What a model costs on a microcontroller: instructions, cycles, time, memory and energy of a step and an inference.

Counted, where compiler and emulator are here: the exported firmware runs under emulation, its outputs are compared with
the kernel's, and every executed instruction is counted and priced. Else analytic: formulas fitted to counted runs.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import numpy as np

from .firmware_sim.cycles import BOARDS, Board, Core, Cost, Memory, Part, cost, cycles, find_board, find_core, part
from .qmodel import IntArray, QuantizedModel

Level = Literal["counted", "analytic"]

EMULATED_STEPS: Final = 32  # enough for a mean: only saturation and clamping depend on the values
STEPS: Final = 100  # of an inference, where nobody says


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


def named_board(name: str | None, core: str) -> Board | None:
    """The board of that name; None for "none"; the core's usual one where no name is given. Raises ValueError."""
    if name == "none":
        return None
    return usual_board(core) if name is None else find_board(name)


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
    step, inference = (cost(measured.parts, *runs, board, clock) for runs in ((1, 0), (steps, 1)))
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


def _count(model: QuantizedModel, core: Core, steps: int, x: IntArray | None) -> _Measured:
    from .export import to_c
    from .firmware_sim import run
    from .firmware_sim.cycles import disassemble, instructions, part_names
    from .firmware_sim.emulation import build, count

    if x is None:
        rng = np.random.default_rng(0)
        shape = (min(steps, EMULATED_STEPS), model.input_size)
        x = rng.integers(-model.input_limit, model.input_limit, shape).astype(model.input_dtype)
    firmware = build(core.name, to_c(model, target=core.name))
    counts = count(firmware, x)
    listing = disassemble(firmware.content, core.name)
    parts = []
    for name in sorted(counts.parts, key=part_names(model).index):
        of = counts.part == counts.parts.index(name)
        addresses = counts.address[of].tolist()
        found = (dict(zip(addresses, one[of].tolist(), strict=True)) for one in (counts.executed, counts.taken))
        program = instructions(listing, *found)
        runs = 1 if part(model, name, 0, 0).once else len(x)
        parts.append(part(model, name, counts.by_part()[name] / runs, cycles(core, program) / runs))
    sizes = firmware.sizes
    memory = Memory(sizes.state + sizes.data + sizes.zeros, counts.stack, sizes.code, sizes.tables + sizes.data)
    how = f"instructions counted in {len(x)} emulated steps, exact"
    return _Measured(tuple(parts), memory, 0.0, np.array_equal(counts.outputs, run(model, x)[0]), how)


def _estimate(model: QuantizedModel, core: Core) -> _Measured:
    from .export import to_c
    from .firmware_sim.cycles.fitted import estimate

    found = estimate(model, core.name)
    header = to_c(model, target=core.name)["model.h"]
    state, weights = (_macro(header, name) for name in ("STATE_BYTES", "WEIGHT_BYTES"))
    memory = Memory(state, found.stack, found.code, weights + found.lookups)
    fit = f"within {found.error:.1%} on others of 12 to 48 units"
    how = f"instructions from formulas fitted to counted runs, {fit}; code and stack are those of the fitted models"
    return _Measured(found.parts, memory, found.error, None, how)


def _macro(header: str, name: str) -> int:
    found = re.search(rf"^#define MODEL_{name} (\d+)$", header, re.MULTILINE)
    assert found is not None, name
    return int(found[1])


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
