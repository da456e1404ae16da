"""The cores: where their cycles come from, and how far those may be off."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final

from .arm import v6m_cycles, v7m_cycles
from .instructions import Instruction
from .others import ibex_cycles, m55_cycles

_Cost = Callable[[Instruction, Instruction | None], float]

_AD: Final = "MLPerf Tiny v1.1, anomaly detection, closed results"
# Thousands of cycles of an inference, and those of the Cortex-M4 (NUCLEO-L4R5ZI, 120 MHz) with the same software:
# X-CUBE-AI 7.3 and 8.1 and HALE 1.0 (M7: STM32H7A3, STM32H7A3, STM32H7A3, STM32F746; M33: STM32U575), microTVM with
# CMSIS-NN (nRF5340).
_M7_AND_M4: Final = ((512, 909), (512, 823), (380, 679), (368, 679))
_M33_AND_M4: Final = ((805, 1033), (776, 909), (776, 823), (608, 679))
# Plumerai (M7: STM32H7A3, STM32F746; M33: STM32U575): nothing says whether its weights lie in flash or in RAM. Taken as
# in RAM; else its ratios reach 1.19 and 1.86.
_M7_AND_M4_IN_RAM: Final = ((377, 486), (369, 486))
_M33_AND_M4_IN_RAM: Final = ((588, 486),)
_M4_FLASH: Final = 169  # of the M4's: 270,880 bytes streamed at 5 wait states a line of 8


@dataclass(frozen=True)
class Core:
    """A microcontroller core: cycles of an instruction, their source, and the error they may have.

    `error` is relative: the cycles of a real core lie within +-error of the model's, as far as was measured (see
    `validation`) or, where `indicative`, as estimated. `factor` scales the cycles of another core's table.
    """

    name: str
    title: str
    cost: _Cost
    source: str
    error: float
    validation: str
    indicative: bool = False
    factor: float = 1.0


_Pairs = tuple[tuple[int, int], ...]


def _scaled(name: str, title: str, in_flash: _Pairs, in_ram: _Pairs) -> Core:
    """A core whose cycles are the M4's times a factor: the middle of what the pairs allow.

    The other board's share of flash wait states is not known: between none, and as large a part as the M4's.
    """
    alike = [cycles / m4 for cycles, m4 in (*in_flash, *in_ram)]
    none = [cycles / (m4 - _M4_FLASH) for cycles, m4 in in_flash]
    low, high = min(alike + none), max(alike + none)
    factor, error = (low + high) / 2, (high - low) / (high + low)
    source = f"no public table: {factor:.2f} x the Cortex-M4's table ({low:.2f} to {high:.2f}: {_AD})"
    measured = f"what {len(alike)} pairs of boards with the same software allow, their flash's share being unknown"
    return Core(name, title, partial(v7m_cycles, "m4"), source, error, measured, True, factor)


_UNMEASURED: Final = "estimated: not compared with a board"

CORES: Final = {
    core.name: core
    for core in (
        Core(
            "cortex-m0",
            "Arm Cortex-M0",
            partial(v6m_cycles, "m0"),
            "Arm DDI 0432C table 3-1, single-cycle multiplier",
            0.1,
            _UNMEASURED,
        ),
        Core(
            "cortex-m0plus",
            "Arm Cortex-M0+",
            partial(v6m_cycles, "m0plus"),
            "Arm DDI 0484C table 3-1, single-cycle multiplier",
            0.1,
            _UNMEASURED,
        ),
        Core(
            "cortex-m3",
            "Arm Cortex-M3",
            partial(v7m_cycles, "m3"),
            "Arm DDI 0337E table 18-1, pairing of loads after DDI 0337I section 3.3.3",
            0.2,
            _UNMEASURED,
        ),
        Core(
            "cortex-m4",
            "Arm Cortex-M4",
            partial(v7m_cycles, "m4"),
            "Arm 100166_0001 table 3-1, pairing of loads after TI SWCU185G",
            0.16,
            "published runs on STM32L4, flash included: networks -6 and -2 %, layers -1 to -5 %, the smallest -16 %",
        ),
        _scaled("cortex-m7", "Arm Cortex-M7", _M7_AND_M4, _M7_AND_M4_IN_RAM),
        _scaled("cortex-m33", "Arm Cortex-M33", _M33_AND_M4, _M33_AND_M4_IN_RAM),
        Core(
            "cortex-m55",
            "Arm Cortex-M55",
            m55_cycles,
            "no public table: two cycles a vector instruction, overlapping between units, after SLOTHY's model",
            0.5,
            _UNMEASURED,
            True,
        ),
        Core(
            "rv32imc",
            "RV32IMC (as lowRISC Ibex)",
            ibex_cycles,
            "Ibex documentation, pipeline details, 'small' configuration; other RV32IMC cores differ",
            0.3,
            _UNMEASURED,
            True,
        ),
    )
}


def find_core(name: str) -> Core:
    """The core of that name. Raises ValueError for an unknown one."""
    if name not in CORES:
        raise ValueError(f"unknown core {name!r}; known are {', '.join(CORES)}")
    return CORES[name]


def cycles(core: Core | str, instructions: Iterable[Instruction | tuple[str, str, int, int]]) -> float:
    """Cycles of a run at zero wait states. instructions: (mnemonic, operands, executed, taken) in address order.

    An instruction that did not run breaks the chain: nothing pairs across it. Raises ValueError for an unknown core.
    """
    model = core if isinstance(core, Core) else find_core(core)
    total, before = 0.0, None
    for one in instructions:
        now = Instruction(*one)
        if now.executed == 0:
            before = None
            continue
        total += model.cost(now, before)
        before = now
    return total * model.factor
