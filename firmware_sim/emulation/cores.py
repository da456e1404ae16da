"""The cores: what compiles for each, what emulates it, and how much memory the emulated board has."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import Final

_PATIENCE: Final = 5.0  # seconds in which a program must tell its version

KIB: Final = 1024
MIB: Final = 1024 * KIB

PROGRAMS: Final = {  # what each gives, and the package of Debian and Ubuntu that it comes with
    "arm-none-eabi-gcc": ("C compiled for the cortex cores", "gcc-arm-none-eabi"),
    "riscv64-unknown-elf-gcc": ("C compiled for rv32imc", "gcc-riscv64-unknown-elf"),
    "qemu-system-arm": ("the cortex cores emulated", "qemu-system-arm"),
    "qemu-system-riscv32": ("rv32imc emulated", "qemu-system-misc"),
    "gcc": ("instructions counted", "gcc"),
}


@dataclass(frozen=True)
class Memory:
    """A region of the board: where it starts, and its bytes."""

    origin: int
    size: int


@dataclass(frozen=True)
class Core:
    """A microcontroller's core: the compiler with its flags, and the board of QEMU's that has it."""

    name: str
    compiler: str
    flags: tuple[str, ...]
    emulator: str
    machine: tuple[str, ...]
    rom: Memory
    ram: Memory
    stack: int  # bytes at the end of the RAM

    @property
    def arm(self) -> bool:
        return self.compiler.startswith("arm-")

    @property
    def tools(self) -> tuple[str, ...]:
        """The programs that compile and emulate it."""
        return self.compiler, self.emulator


def _arm(name: str, machine: str, rom: Memory, ram: Memory, *flags: str, stack: int = 16 * KIB) -> Core:
    cpu = (f"-mcpu={name}", "-mthumb", *flags, _FASTEST)
    return Core(name, "arm-none-eabi-gcc", cpu, "qemu-system-arm", ("-M", machine), rom, ram, stack)


# By count: -O2 and -Os execute up to a fifth more, at best two in a thousand less, for less code.
_FASTEST: Final = "-O3"
_MICROBIT: Final = ("microbit", Memory(0, 256 * KIB), Memory(0x2000_0000, 16 * KIB))
_MPS2: Final = (Memory(0, 4 * MIB), Memory(0x2000_0000, 4 * MIB))

CORES: Final[dict[str, Core]] = {
    core.name: core
    for core in (
        _arm("cortex-m0", *_MICROBIT, stack=2 * KIB),
        _arm("cortex-m0plus", *_MICROBIT, stack=2 * KIB),
        _arm("cortex-m3", "mps2-an385", *_MPS2),
        _arm("cortex-m4", "mps2-an386", *_MPS2, "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"),
        _arm("cortex-m7", "mps2-an500", *_MPS2, "-mfloat-abi=hard", "-mfpu=fpv5-d16"),
        _arm(
            "cortex-m33",
            "mps2-an505",
            Memory(0x1000_0000, 4 * MIB),
            Memory(0x3800_0000, 4 * MIB),
            "-mfloat-abi=hard",
            "-mfpu=fpv5-sp-d16",
        ),
        _arm(
            "cortex-m55",
            "mps3-an547",
            Memory(0, 512 * KIB),
            Memory(0x2000_0000, 512 * KIB),
            "-mfloat-abi=hard",
        ),
        Core(
            "rv32imc",
            "riscv64-unknown-elf-gcc",
            ("-march=rv32imc_zicsr", "-mabi=ilp32", "-mcmodel=medany", _FASTEST),
            "qemu-system-riscv32",
            ("-M", "virt", "-bios", "none"),
            Memory(0x8000_0000, 4 * MIB),
            Memory(0x8040_0000, 4 * MIB),
            16 * KIB,
        ),
    )
}


def find(name: str) -> Core:
    """The core of this name. Raises ValueError for an unknown one."""
    if name not in CORES:
        raise ValueError(f"unknown core {name!r}; known are {', '.join(CORES)}")
    return CORES[name]


def install_command(tools: tuple[str, ...]) -> str | None:
    """The command that installs those of these programs that are not here; None when all are."""
    absent = [PROGRAMS[tool][1] for tool in tools if shutil.which(tool) is None]
    return f"apt install {' '.join(absent)}" if absent else None


def version(tool: str) -> str | None:
    """The version that a program says it has; None where it is missing, "unknown" where it says none."""
    if shutil.which(tool) is None:
        return None
    try:
        done = subprocess.run(
            [tool, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            errors="replace",
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    found = re.search(r"\d+\.\d[\d.]*", re.sub(r"\(.*\)", "", done.stdout.partition("\n")[0]))
    return found[0] if found else "unknown"


def missing(core: str) -> str | None:
    """The command that installs what is missing here to compile for a core and to emulate it; None when all is here.

    Raises ValueError for an unknown core.
    """
    return install_command(find(core).tools)


def check(what: str, tools: tuple[str, ...]) -> None:
    """Raise ValueError with the command that installs them, where one of these programs is missing."""
    command = install_command(tools)
    if command is not None:
        raise ValueError(f"{what} needs {' and '.join(tools)}: {command}")
