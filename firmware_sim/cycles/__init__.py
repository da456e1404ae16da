"""What firmware costs on a microcontroller: cycles of counted instructions, flash wait states, time and energy.

Three levels. Counted: exact counts of an emulation times a table of cycles per instruction (`cycles`). Board: the wait
states of a flash that weights are read from (`Board`). Analytic: constants fitted to counted runs, without any tool
(`fitted`). Every table names its source and its error.
"""

from .boards import BOARDS as BOARDS
from .boards import Board as Board
from .boards import TooLargeForBoard as TooLargeForBoard
from .boards import find_board as find_board
from .cores import CORES as CORES
from .cores import Core as Core
from .cores import cycles as cycles
from .cores import find_core as find_core
from .costs import Cost as Cost
from .costs import Memory as Memory
from .costs import Part as Part
from .costs import cost as cost
from .costs import part as part
from .costs import part_names as part_names
from .instructions import Instruction as Instruction
from .instructions import disassemble as disassemble
from .instructions import instructions as instructions
from .instructions import parse_listing as parse_listing

__all__ = [
    "BOARDS",
    "CORES",
    "Board",
    "Core",
    "Cost",
    "Instruction",
    "Memory",
    "Part",
    "TooLargeForBoard",
    "cost",
    "cycles",
    "disassemble",
    "find_board",
    "find_core",
    "instructions",
    "parse_listing",
    "part",
    "part_names",
]
