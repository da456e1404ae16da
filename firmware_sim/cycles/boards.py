"""Boards: clock, memory, flash wait states and current, each with its source.

Weights are read from flash once a step and pass through its line buffer in order, so that every line costs the wait
states once: wait states / bytes of a line = cycles a byte. Instructions and lookup tables are taken to come from the
flash's cache at no cost, writes and RAM have no wait states. What fits the data cache costs nothing after the first
step. Where a program runs from RAM, it has no wait states and must fit there.
"""

import dataclasses
from dataclasses import dataclass
from typing import Final

KB: Final = 1024


class TooLargeForBoard(ValueError):
    """A program does not fit a board's memory."""


@dataclass(frozen=True)
class Board:
    """A board, or the microcontroller on it.

    wait_states: (highest clock in Hz, flash wait states), ascending; flash_clock_divider: core cycles a flash cycle.
    microamps_per_mhz at `volts`: typical, running from flash, None where no figure is at hand. `unverified` names what
    rests on memory alone, not on a document that was read. runs_from_ram: code and weights are copied to RAM first.
    """

    name: str
    title: str
    core: str
    flash_bytes: int
    ram_bytes: int
    wait_states: tuple[tuple[float, int], ...]
    flash_line_bytes: int
    source: str
    cache_bytes: int = 0
    flash_clock_divider: int = 1
    microamps_per_mhz: float | None = None
    volts: float = 3.0
    current_source: str = ""
    unverified: tuple[str, ...] = ()
    runs_from_ram: bool = False

    @property
    def max_clock(self) -> float:
        return self.wait_states[-1][0]

    def cycles_per_byte(self, clock: float) -> float:
        """Core cycles that a byte read from flash in order costs. Raises ValueError for a clock out of range."""
        self.check_clock(clock)
        states = next(states for limit, states in self.wait_states if clock <= limit)
        return states * self.flash_clock_divider / self.flash_line_bytes

    def flash_cycles(self, clock: float, streamed: int) -> float:
        """Core cycles of a step that reads `streamed` bytes of weights from flash. Raises ValueError."""
        per_byte = self.cycles_per_byte(clock)
        return 0.0 if streamed <= self.cache_bytes else per_byte * streamed

    def energy(self, cycles: float) -> float | None:
        """Joules of so many cycles, from the typical current; None where it is not known."""
        if self.microamps_per_mhz is None:
            return None
        return self.microamps_per_mhz * 1e-12 * cycles * self.volts

    def check_clock(self, clock: float) -> None:
        """Raise ValueError unless the board can run at this clock (Hz)."""
        if not 0 < clock <= self.max_clock:
            top = f"{self.max_clock / 1e6:g} MHz"
            raise ValueError(
                f"{self.title} runs at up to {top}, not {clock / 1e6:g} MHz; without a board any clock will do"
            )

    def check_memory(self, flash: int, ram: int) -> None:
        """Raise TooLargeForBoard when a program does not fit, saying by how much."""
        memory = ("RAM (it runs from there)", ram + flash) if self.runs_from_ram else ("RAM", ram)
        for what, needed, there in (("flash", flash, self.flash_bytes), (*memory, self.ram_bytes)):
            if needed > there:
                over = f"{needed - there:,} bytes too many"
                needs = f"the model needs {needed:,} bytes of {what}"
                raise TooLargeForBoard(f"{needs}, {self.title} has {there:,}: {over}")


def _mhz(*pairs: tuple[float, int]) -> tuple[tuple[float, int], ...]:
    return tuple((limit * 1e6, states) for limit, states in pairs)


_LL: Final = "wait states: ST's {} (UTILS_SCALE1_LATENCY)"
_ZEPHYR: Final = "memory and clock: Zephyr's page of the board"

_L4R5: Final = Board(
    "nucleo-l4r5zi",
    "NUCLEO-L4R5ZI",
    "cortex-m4",
    2048 * KB,
    640 * KB,
    _mhz((20, 0), (40, 1), (60, 2), (80, 3), (100, 4), (120, 5)),
    8,  # dual bank, as delivered
    f"{_ZEPHYR}; {_LL.format('stm32l4xx_ll_utils.c')}; line: DBANK in FLASH_OPTR (SVD of the STM32L4+)",
    microamps_per_mhz=100,
    current_source="Zephyr's page of the board (ST's headline: 100 uA/MHz in run mode)",
    unverified=("volts",),
)

BOARDS: Final = {
    board.name: board
    for board in (
        _L4R5,
        dataclasses.replace(
            _L4R5,
            name="nucleo-l4r5zi-single-bank",
            title="NUCLEO-L4R5ZI (option bit DBANK = 0)",
            flash_line_bytes=16,
        ),
        Board(
            "stm32l476",
            "STM32L476",
            "cortex-m4",
            1024 * KB,
            128 * KB,
            _mhz((16, 0), (32, 1), (48, 2), (64, 3), (80, 4)),
            8,  # "Embedded Flash Memory, 64-bit wide": tha.de, skript/stm32l4
            f"{_ZEPHYR} (NUCLEO-L476RG); {_LL.format('stm32l4xx_ll_utils.c')}",
            microamps_per_mhz=100,
            current_source="Zephyr's page of NUCLEO-L476RG (ST's headline: 100 uA/MHz in run mode)",
            unverified=("volts",),
        ),
        Board(
            "nrf52840",
            "nRF52840",
            "cortex-m4",
            1024 * KB,
            256 * KB,
            _mhz((64, 2)),
            4,
            "memory and clock: PlatformIO's page of the nRF52840 DK",
            microamps_per_mhz=52,
            current_source="CoreMark from flash, 3 V, DC/DC (a summary of the product specification)",
            unverified=("wait_states", "flash_line_bytes"),
        ),
        Board(
            "stm32f411",
            "STM32F411",
            "cortex-m4",
            512 * KB,
            128 * KB,
            _mhz((30, 0), (64, 1), (90, 2), (100, 3)),
            16,
            f"{_ZEPHYR} (NUCLEO-F411RE); wait states: ST's stm32f4xx_flash.c; line and caches: RM0383 section 3.2",
            cache_bytes=128,
            microamps_per_mhz=100,
            current_source="ST's headline of the datasheet, from memory",
            unverified=("microamps_per_mhz", "volts"),
        ),
        Board(
            "stm32f446",
            "STM32F446",
            "cortex-m4",
            512 * KB,
            128 * KB,
            _mhz((30, 0), (60, 1), (90, 2), (120, 3), (150, 4), (180, 5)),
            16,
            f"{_ZEPHYR} (NUCLEO-F446RE); {_LL.format('stm32f4xx_ll_utils.c')}; line, caches: as RM0090 section 3.2",
            cache_bytes=128,
            unverified=("flash_line_bytes", "cache_bytes"),
        ),
        Board(
            "stm32g0b1",
            "STM32G0B1",
            "cortex-m0plus",
            512 * KB,
            144 * KB,
            _mhz((24, 0), (48, 1), (64, 2)),
            8,
            f"{_ZEPHYR} (NUCLEO-G0B1RE); wait states: ST's stm32g0xx_ll_utils.c",
            microamps_per_mhz=100,
            current_source="the low end of 6.4 to 10.2 mA at 64 MHz (a summary of a STM32G0 datasheet)",
            unverified=("flash_line_bytes", "microamps_per_mhz"),
        ),
        Board(
            "rp2040",
            "RP2040",
            "cortex-m0plus",
            2048 * KB,
            264 * KB,
            _mhz((133, 0)),
            4,
            "clock and RAM: a review of the datasheet (bigmessowires.com)",
            microamps_per_mhz=103,
            volts=3.3,
            current_source="13.7 mA at 133 MHz, both cores, from SRAM (a summary of the datasheet)",
            unverified=("flash_bytes", "microamps_per_mhz"),
            runs_from_ram=True,
        ),
        Board(
            "microbit",
            "BBC micro:bit (nRF51822)",
            "cortex-m0",
            256 * KB,
            16 * KB,
            _mhz((16, 0)),
            4,
            "memory: QEMU's machine microbit",
            unverified=("wait_states",),
        ),
        Board(
            "nrf5340",
            "nRF5340 (application core)",
            "cortex-m33",
            1024 * KB,
            512 * KB,
            _mhz((64, 1), (128, 2)),
            16,
            "clock, memory and that there is a data cache: Zephyr's nRF5340 DK page and nrf5340_cpuapp_qkaa.dtsi",
            cache_bytes=8 * KB,
            unverified=("wait_states", "flash_line_bytes", "cache_bytes"),
        ),
        Board(
            "stm32h743",
            "STM32H743",
            "cortex-m7",
            2048 * KB,
            1024 * KB,
            _mhz((140, 0), (280, 1), (400, 2), (480, 4)),
            32,
            f"{_ZEPHYR} (NUCLEO-H743ZI); 2 wait states at 400 MHz and 4 at 480 MHz: RM0433 table 12 and AN5312, "
            "as quoted by INAV's system_stm32h7xx.c",
            cache_bytes=16 * KB,
            flash_clock_divider=2,
            unverified=("wait_states below 400 MHz", "flash_line_bytes", "cache_bytes"),
        ),
        Board(
            "mps3-an547",
            "MPS3 AN547",
            "cortex-m55",
            512 * KB,
            512 * KB,
            _mhz((32, 0)),
            8,
            "memory: QEMU's machine mps3-an547 (tightly coupled, no wait states)",
            unverified=("max_clock",),
        ),
    )
}


def find_board(name: str) -> Board:
    """The board of that name. Raises ValueError for an unknown one."""
    if name not in BOARDS:
        raise ValueError(f"unknown board {name!r}; known are {', '.join(BOARDS)}")
    return BOARDS[name]
