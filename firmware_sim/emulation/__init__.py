"""Emulation: the C sources of a model compiled for a microcontroller's core, run by QEMU, and counted exactly."""

from .build import Firmware as Firmware
from .build import Sizes as Sizes
from .build import TooLarge as TooLarge
from .build import build as build
from .cores import CORES as CORES
from .cores import PROGRAMS as PROGRAMS
from .cores import Core as Core
from .cores import install_command as install_command
from .cores import missing as missing
from .cores import version as version
from .counts import Counts as Counts
from .counts import count as count
from .session import Session as Session

__all__ = [
    "CORES",
    "PROGRAMS",
    "Core",
    "Counts",
    "Firmware",
    "Session",
    "Sizes",
    "TooLarge",
    "build",
    "count",
    "install_command",
    "missing",
    "version",
]
