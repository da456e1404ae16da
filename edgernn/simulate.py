"""What a model costs on a microcontroller: instructions, cycles, time, memory and energy of a step and an inference.

Counted, where compiler and emulator are here: the exported firmware runs under emulation, its outputs are compared with
the kernel's, and every executed instruction is counted and priced. Else analytic: formulas fitted to counted runs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import numpy as np

from .firmware_sim.cycles import BOARDS, Board, Core, Cost, Memory, Part, cost, cycles, find_board, find_core, part
from .qmodel import IntArray, QuantizedModel

if TYPE_CHECKING:
    from .export.c.network import Network

Level = Literal["counted", "analytic"]

EMULATED_STEPS: Final = 32  # enough for a mean: only saturation and clamping depend on the values
STEPS: Final = 100  # of an inference, where nobody says
MOST_STEPS: Final = 2**32 - 1  # what the C counts in a uint32_t
CLOCKS: Final = (1e3, 1e10)  # Hz
DOUBTFUL: Final = 0.15  # an error of the cycles that must be said beside every figure

_ALIGNMENT: Final = 16  # of an array in flash
_DESCRIPTION: Final = {"generic": 32}  # bytes of a direction's ern_layer, where gcc keeps it: pointers and sizes
_FACTORS: Final = {"dsp": 24, "v6m": 4}  # bytes of a gate's factor that are left as a constant


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

    @property
    def doubtful(self) -> bool:
        """Whether the cycles may be off by more than 15 %."""
        return self.cycle_error > DOUBTFUL


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


def missing(*cores: str) -> str | None:
    """The command that installs what counting on these cores needs, None when all is here. Raises ValueError."""
    from .firmware_sim.emulation.cores import find, install_command

    tools = dict.fromkeys(tool for core in cores for tool in find(core).tools)
    return install_command((*tools, "gcc"))  # gcc compiles the emulator's plugin


def simulate(
    model: QuantizedModel,
    core: str,
    *,
    board: Board | None = None,
    clock: float | None = None,
    steps: int = STEPS,
    level: Level | None = None,
    x: IntArray | None = None,
    seed: int = 0,
) -> Simulation:
    """The costs of `steps` steps of a model on a core.

    board adds flash wait states, energy and its memory's limits; clock (Hz) is the board's highest by default, and
    without either there are no times. level: counted where that is possible, by default. x: integers [time, input_size]
    to count with, random ones of `seed` over the whole range by default. Raises ValueError for an unknown core, a board
    of another core, a clock out of range, too many steps, a missing compiler or emulator where counted is asked for,
    and a model too large for the memory.
    """
    target = find_core(core)
    clock = _check_clock(target, board, clock)
    if not 1 <= steps <= MOST_STEPS:
        raise ValueError(f"steps must be 1 to 2^32 - 1, not {steps}")
    x = _random_input(model, steps, seed) if x is None else x
    measured, why = _measured(model, target, board, steps, level, x)
    if board is not None:
        board.check_memory(measured.memory.flash, measured.memory.ram)
    step, inference = (cost(measured.parts, *runs, board, clock) for runs in ((1, 0), (steps, 1)))
    notes = [*_notes(target, board, measured), *_memory_notes(model, board, steps, measured.memory)]
    notes += [] if why is None else [f"not counted: {why}"]
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
    model: QuantizedModel, core: Core, board: Board | None, steps: int, level: Level | None, x: IntArray
) -> tuple[_Measured, str | None]:
    """What is known of the model, and why it is not counted where nobody chose a level: a missing tool, or a model that
    fits the board and not the emulated one."""
    from .firmware_sim.emulation import TooLarge

    why = None if level == "analytic" else missing(core.name)
    if level == "counted" and why is not None:
        raise ValueError(f"nothing can be counted on {core.name}: {why}")
    if level == "analytic" or why is not None:
        return _estimate(model, core, steps), why
    try:
        return _count(model, core, steps, x), None
    except TooLarge as error:
        if level is not None or board is None:
            raise
        return _estimate(model, core, steps), str(error)


def _check_clock(core: Core, board: Board | None, clock: float | None) -> float | None:
    if clock is not None and not CLOCKS[0] <= clock <= CLOCKS[1]:
        raise ValueError(f"the clock must be 1e3 to 1e10 Hz, not {clock:g}: in Hz, as 80e6")
    if board is None:
        return clock
    if board.core != core.name:
        fitting = ", ".join(_boards_of(core)) or "none"
        raise ValueError(f"{board.title} has the core {board.core}, not {core.name}; boards with that: {fitting}")
    clock = board.max_clock if clock is None else clock
    board.check_clock(clock)
    return clock


def _boards_of(core: Core) -> list[str]:
    return [name for name, board in BOARDS.items() if board.core == core.name]


def _random_input(model: QuantizedModel, steps: int, seed: int) -> IntArray:
    shape = (min(steps, EMULATED_STEPS), model.input_size)
    drawn = np.random.default_rng(seed).integers(-model.input_limit, model.input_limit, shape)
    return drawn.astype(model.input_dtype)


def _count(model: QuantizedModel, core: Core, steps: int, x: IntArray) -> _Measured:
    from .export import to_c
    from .firmware_sim import run
    from .firmware_sim.cycles import disassemble, instructions, part_names
    from .firmware_sim.emulation import build, count

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
    ram, tables = sizes.state + sizes.data + sizes.zeros, sizes.tables + sizes.data
    memory = Memory(ram, counts.stack, sizes.code, tables, _work(_network(model, core), steps))
    how = f"instructions counted in {len(x)} emulated steps, exact"
    equal = np.array_equal(counts.outputs, run(model, x, flavour="cmsis")[0])
    return _Measured(tuple(parts), memory, 0.0, equal, how)


def _estimate(model: QuantizedModel, core: Core, steps: int) -> _Measured:
    from .firmware_sim.cycles.fitted import estimate

    found, network = estimate(model, core.name), _network(model, core)
    work = _work(network, steps)
    memory = Memory(network.state_bytes, found.stack, found.code, _table_bytes(network), work)
    stack = f"stack an upper estimate, up to {found.stack_error} bytes more than needed"
    fit = f"within {found.error:.1%} (the most measured at such sizes, saturating models included)"
    how = f"instructions from formulas fitted to counted runs, {fit}; code within {found.code_error:.0%}; {stack}"
    return _Measured(found.parts, memory, found.error, None, how)


def _network(model: QuantizedModel, core: Core) -> "Network":
    from .export.c import TARGETS
    from .export.c.layouts import LAYOUTS
    from .export.c.network import Network

    return Network(model, "model", LAYOUTS[TARGETS[core.name]])


def _work(network: "Network", steps: int) -> int:
    """Bytes of memory that a bidirectional model works in, for a sequence."""
    values = sum(network.work) * steps if network.model.bidirectional else 0
    return values * (2 if network.operand_type == "int16_t" else 1)


def _table_bytes(network: "Network") -> int:
    """Bytes of constants as gcc places them: from the last to the first.

    The small head of a generic layout (few outputs, or few columns) may become part of the code instead: up to 128
    bytes less were seen.
    """
    from .export.c.tables import tables

    unused = {"ern_sigmoid_table"} if all(layer.cell == "rnn" for layer in network.model.layers) else set()
    lookups = tables(network.layout.table)
    sizes = [(values.nbytes, _ALIGNMENT) for name, values in lookups.items() if name not in unused]
    for one in network.parts:
        sizes += [(values.nbytes, _ALIGNMENT) for values in one.arrays.values()]
        if one.layer is not None and network.layout.name in _DESCRIPTION:
            sizes.append((_DESCRIPTION[network.layout.name], 4))
        if one.factors is not None and network.layout.name in _FACTORS:
            sizes.append((len(one.factors) * _FACTORS[network.layout.name], 4))
    end = 0
    for size, alignment in reversed(sizes):
        end = -(-end // alignment) * alignment + size
    return end


def _notes(core: Core, board: Board | None, measured: _Measured) -> Iterator[str]:
    yield measured.how
    kind = "indicative cycles" if core.indicative else "cycles"
    yield f"{kind} within {core.error:.0%} ({core.validation}): {core.source}"
    if board is None:
        yield "no board: zero wait states, no energy"
        return
    yield f"{_flash(board)}; {board.source}"
    if board.microamps_per_mhz is None:
        yield f"no energy: no figure for {board.title}'s current is at hand"
    else:
        volts = f"{board.microamps_per_mhz:g} uA/MHz at {board.volts:g} V"
        yield f"energy is an estimate from {volts}: {board.current_source}"
    if board.unverified:
        yield f"unverified figures of {board.title}: {', '.join(name.replace('_', ' ') for name in board.unverified)}"


def _flash(board: Board) -> str:
    if board.runs_from_ram:
        return "no flash cycles: code and weights are copied to RAM at the start and run there"
    return f"flash cycles: weights read once a step through lines of {board.flash_line_bytes} bytes"


def _memory_notes(model: QuantizedModel, board: Board | None, steps: int, memory: Memory) -> Iterator[str]:
    if board is not None and board.runs_from_ram:
        needed = memory.ram + memory.flash
        yield f"{board.title} runs from RAM: {needed:,} of its {board.ram_bytes:,} bytes, the flash's content included"
    if model.bidirectional:
        size = steps * model.input_size * np.dtype(model.input_dtype).itemsize
        yield f"a bidirectional model needs the whole input in memory: {size:,} bytes more for {steps:,} steps"
