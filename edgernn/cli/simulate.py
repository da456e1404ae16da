"""simulate: what a model costs on a microcontroller."""

import argparse
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from ._options import add_data, add_model, add_seed, positive_int
from ._output import emit, table

if TYPE_CHECKING:
    from ..firmware_sim.cycles import Board, Cost, Part
    from ..qmodel import IntArray, QuantizedModel
    from ..simulate import Simulation

HELP = "what a model costs on a microcontroller: instructions, cycles, time, RAM, flash and energy"
LEVELS: Final = ("counted", "analytic")
_BAR: Final = 30
_WIDTH: Final = 120


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("--core", metavar="CORE", help="cortex-m4, .., or all (default: the board's, else all)")
    parser.add_argument(
        "--board", metavar="BOARD", help="nucleo-l4r5zi, .., or none (default: a usual one of the core): flash, energy"
    )
    parser.add_argument("--clock", type=float, metavar="HZ", help="in Hz, as 80e6 (default: the board's highest)")
    parser.add_argument(
        "--steps", type=positive_int, metavar="T", help="steps of an inference (default: the data's median, else 100)"
    )
    parser.add_argument(
        "--level", choices=LEVELS, help="counted under emulation (default where compiler and emulator are), or analytic"
    )
    add_data(parser, "count with its test part's integers (default: the data the model was trained on, else random)")
    add_seed(parser)


def run(args: argparse.Namespace) -> int:
    from ..firmware_sim.cycles import CORES, find_board, find_core
    from ..qmodel import QuantizedModel
    from ..simulate import STEPS, named_board

    model = QuantizedModel.load(args.model)
    named = None if args.board in (None, "none") else find_board(args.board)
    core = args.core or (named.core if named is not None else "all")
    if core != "all":
        find_core(core)
    elif named is not None:
        raise ValueError(f"--core all and --board {named.name}: a board has one core, {named.core}")
    x = _input(args, model)
    steps = args.steps or (STEPS if x is None else len(x))
    x = None if x is None else x[:steps]
    if core == "all":
        return _all(args, model, list(CORES), steps, x)
    found = _simulate(args, model, core, named_board(args.board, core), steps, x)
    emit(args, _text(found), _data(found))
    return 1 if found.equals_kernel is False else 0


def _simulate(
    args: argparse.Namespace,
    model: "QuantizedModel",
    core: str,
    board: "Board | None",
    steps: int,
    x: "IntArray | None",
) -> "Simulation":
    from ..simulate import simulate

    return simulate(model, core, board=board, clock=args.clock, steps=steps, level=args.level, x=x, seed=args.seed)


def _input(args: argparse.Namespace, model: "QuantizedModel") -> "IntArray | None":
    """A sequence of the data's median length, as integers; None where no data are at hand."""
    import numpy as np

    from ._models import find_dataset

    dataset = find_dataset(args, model)
    if dataset is None:
        return None
    median = int(np.argsort(dataset.test.lengths, kind="stable")[len(dataset.test) // 2])
    return model.quantize_input(dataset.test.x[median, : dataset.test.lengths[median]])


# ---- one core --------------------------------------------------------------------------------------------------------


def _text(found: "Simulation") -> str:
    place = found.core.title if found.board is None else f"{found.board.title}, {found.core.title}"
    clock = "" if found.clock is None else f" at {found.clock / 1e6:g} MHz"
    lines = [f"{place}{clock}, {found.level}; cycles within {_error(found)}", ""]
    whole = f"inference ({found.steps} steps)"
    lines += [table(("", "step", whole), _cost_rows(found.step, found.inference)), ""]
    headers = ("part", "MACs", "instructions", "per MAC", "cycles", "share of the cycles of an inference")
    lines += [table(headers, _part_rows(found)), ""]
    memory = found.memory
    work = f", work of {found.steps} steps {memory.work:,}" if memory.work else ""
    lines.append(f"RAM    {memory.ram:,} bytes: state {memory.state:,}, stack {memory.stack:,}{work}")
    lines.append(f"flash  {memory.flash:,} bytes: code {memory.code:,}, weights and tables {memory.tables:,}")
    if found.equals_kernel is not None:
        equal = "equal the kernel's" if found.equals_kernel else "DIFFER from the kernel's: the firmware is wrong"
        lines.append(f"the emulated outputs {equal}")
    return "\n".join([*lines, "", *_wrapped(found.notes)])


def _wrapped(notes: "Sequence[str]") -> list[str]:
    return [
        line
        for note in notes
        for line in textwrap.wrap(note, _WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    ]


def _error(found: "Simulation") -> str:
    """With one word where a core has no table of its own, or the error is large."""
    mark = " (indicative)" if found.core.indicative else " (doubtful)" if found.doubtful else ""
    return f"{found.cycle_error:.0%}{mark}"


def _cost_rows(step: "Cost", inference: "Cost") -> list[tuple[Any, ...]]:
    both = (step, inference)
    return [
        ("MACs", *(cost.macs for cost in both)),
        ("instructions", *(round(cost.instructions) for cost in both)),
        ("cycles, core", *(round(cost.core_cycles) for cost in both)),
        ("cycles, flash", *(round(cost.flash_cycles) for cost in both)),
        ("time", *(_seconds(cost.seconds) for cost in both)),
        ("energy", *(_joules(cost.joules) for cost in both)),
    ]


def _part_rows(found: "Simulation") -> list[tuple[Any, ...]]:
    total = sum(_inference_cycles(part, found) for part in found.parts)
    rows = []
    for part in found.parts:
        share = _inference_cycles(part, found) / total
        bar = "#" * round(_BAR * share)
        name = part.name.replace("_", " ") + (" (once)" if part.once else "")
        per_mac = f"{part.instructions / part.macs:.2f}" if part.macs else None
        rows.append((name, part.macs, round(part.instructions), per_mac, round(part.cycles), f"{share:4.0%} {bar}"))
    return rows


def _inference_cycles(part: "Part", found: "Simulation") -> float:
    return part.cycles * (1 if part.once else found.steps)


def _seconds(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    scale, unit = next(((s, u) for s, u in ((1.0, "s"), (1e-3, "ms")) if seconds >= s), (1e-6, "us"))
    return f"{seconds / scale:.4g} {unit}"


def _joules(joules: float | None) -> str | None:
    if joules is None:
        return None
    scale, unit = next(((s, u) for s, u in ((1.0, "J"), (1e-3, "mJ")) if joules >= s), (1e-6, "uJ"))
    return f"{joules / scale:.3g} {unit}"


def _data(found: "Simulation") -> dict[str, Any]:
    board = found.board
    costs = [asdict(cost) | {"cycles": cost.cycles} for cost in (found.step, found.inference)]
    return {
        "core": found.core.name,
        "source": found.core.source,
        "indicative": found.core.indicative,
        "validation": found.core.validation,
        "error": {"instructions": found.instruction_error, "cycles": found.cycle_error},
        "board": None if board is None else board.name,
        "board_source": None if board is None else board.source,
        "unverified": [] if board is None else list(board.unverified),
        "clock": found.clock,
        "level": found.level,
        "steps": found.steps,
        "step": costs[0],
        "inference": costs[1],
        "parts": [asdict(part) for part in found.parts],
        "memory": asdict(found.memory) | {"ram": found.memory.ram, "flash": found.memory.flash},
        "equals_kernel": found.equals_kernel,
        "notes": list(found.notes),
    }


# ---- all cores -------------------------------------------------------------------------------------------------------


_LEGEND: Final = (
    "instructions and cycles of a step, flash wait states included; time and energy of {} steps",
    "-: not known, for want of a board, a clock or a figure of the current",
    "error: how far the cycles may be off; indicative: the core has no public table; doubtful: above 15 %",
)


def _all(args: argparse.Namespace, model: "QuantizedModel", cores: list[str], steps: int, x: "IntArray | None") -> int:
    rows, notes = [], []
    data: list[dict[str, Any]] = []
    if args.level == "counted":
        _check_tools(cores)
    for core in cores:
        board, note = _board(args, core)
        notes += [] if note is None else [f"{core}: {note}"]
        found = _attempt(args, model, core, board, steps, x)
        if isinstance(found, str):
            data.append({"core": core, "problem": found})
            notes.append(f"{core}: {found}")
            continue
        data.append(_data(found))
        rows.append(_row(found))
        notes += [f"{core}: {one}" for one in found.notes if one.startswith(("not counted", "unverified"))]
        if found.equals_kernel is False:
            notes.append(f"{core}: the emulated outputs DIFFER from the kernel's: the firmware is wrong")
    if not rows:
        raise ValueError(f"no core can be simulated; {'; '.join(notes)}")
    headers = ("core", "board", "MHz", "level", "instructions", "cycles", "error", "time/step", "time", "energy")
    legend = [_LEGEND[0].format(steps), *_LEGEND[1:]]
    text = [table((*headers, "RAM", "flash"), rows), "", *_wrapped([*legend, *notes])]
    emit(args, "\n".join(text), {"steps": steps, "cores": data})
    return 1 if any(entry.get("equals_kernel") is False for entry in data) else 0


def _check_tools(cores: list[str]) -> None:
    """Raise ValueError, with all that is missing, where nothing can be counted on any core."""
    from ..simulate import missing

    if all(missing(core) for core in cores):
        raise ValueError(f"nothing can be counted on any core: {missing(*cores)}")


def _board(args: argparse.Namespace, core: str) -> "tuple[Board | None, str | None]":
    """The usual board of a core; none, and why, where the clock is not one of it."""
    from ..simulate import named_board

    board = named_board(args.board, core)
    if board is None or args.clock is None or args.clock <= board.max_clock:
        return board, None
    return None, f"{board.name} runs at up to {board.max_clock / 1e6:g} MHz: no board"


def _attempt(
    args: argparse.Namespace,
    model: "QuantizedModel",
    core: str,
    board: "Board | None",
    steps: int,
    x: "IntArray | None",
) -> "Simulation | str":
    """The costs on a core, or why there are none: missing tools, or too little memory."""
    from ..firmware_sim.cycles import TooLargeForBoard
    from ..firmware_sim.emulation import TooLarge
    from ..simulate import missing

    problem = missing(core) if args.level == "counted" else None
    if problem is not None:
        return problem
    try:
        return _simulate(args, model, core, board, steps, x)
    except (TooLarge, TooLargeForBoard) as error:
        return str(error)


def _row(found: "Simulation") -> tuple[Any, ...]:
    return (
        found.core.name,
        None if found.board is None else found.board.name,
        None if found.clock is None else f"{found.clock / 1e6:g}",
        found.level,
        round(found.step.instructions),
        round(found.step.cycles),
        _error(found),
        _seconds(found.step.seconds),
        _seconds(found.inference.seconds),
        _joules(found.inference.joules),
        found.memory.ram,
        found.memory.flash,
    )
