"""The computer that figures are taken on: what it is, and what about its state would spoil them.

Everything is read from files of Linux (and from vcgencmd, where Raspberry Pi OS has it) under a root, of which each may
be missing.
"""

import platform
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

ROOT: Final = Path("/")

_T = TypeVar("_T")

_CPUFREQ: Final = "sys/devices/system/cpu/cpu[0-9]*/cpufreq"
_THROTTLE_COUNTS: Final = "sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/core_throttle_count"
_VCGENCMD: Final = "usr/bin/vcgencmd"
# The firmware's flags: what is the case now; sixteen bits higher, what was since the computer started
_THROTTLING: Final = ("under-voltage", "frequency capped", "throttled", "soft temperature limit")
# Of Arm's cores, which have no name in /proc/cpuinfo: MIDR_EL1's part numbers, in the technical reference manuals
_ARM_CORES: Final = {"0xd03": "Cortex-A53", "0xd04": "Cortex-A35", "0xd08": "Cortex-A72", "0xd0b": "Cortex-A76"}

_HOT: Final = 80.0  # degrees Celsius: a Raspberry Pi slows down from here on
_BUSY: Final = 0.5  # programs a core
_STEADY: Final = 0.1  # of a frequency


@dataclass(frozen=True)
class Condition:
    """The state of the computer at one moment; None (or nothing) where it does not tell.

    governors: of the cores, each once. celsius: of the hottest sensor. megahertz: of the fastest core, now and at most.
    throttled: what slows it down now; was_throttled: since it started. throttle_count: of x86's own counter.
    load: programs that wanted to run in the last minute.
    """

    governors: tuple[str, ...]
    celsius: float | None
    megahertz: float | None
    most_megahertz: float | None
    throttled: tuple[str, ...]
    was_throttled: tuple[str, ...]
    throttle_count: int | None
    load: float | None


def condition(root: Path = ROOT) -> Condition:
    """What the computer tells about itself now."""
    now, before = _throttling(root)
    counts = _all(root, _THROTTLE_COUNTS, int)
    return Condition(
        governors=tuple(sorted(set(_all(root, f"{_CPUFREQ}/scaling_governor", str)))),
        celsius=max((value / 1e3 for value in _all(root, "sys/class/thermal/thermal_zone*/temp", float)), default=None),
        megahertz=max((value / 1e3 for value in _all(root, f"{_CPUFREQ}/scaling_cur_freq", float)), default=None),
        most_megahertz=max((value / 1e3 for value in _all(root, f"{_CPUFREQ}/cpuinfo_max_freq", float)), default=None),
        throttled=now,
        was_throttled=before,
        throttle_count=sum(counts) if counts else None,
        load=next(iter(_all(root, "proc/loadavg", lambda text: float(text.split()[0]))), None),
    )


def machine(root: Path = ROOT) -> dict[str, Any]:
    """What computer this is: board (None for most), cpu, cores, ram_bytes, architecture, os, python."""
    info = "".join(_all(root, "proc/cpuinfo", str))
    memory = re.search(r"MemTotal:\s*(\d+) kB", "".join(_all(root, "proc/meminfo", str)))
    release = re.search(r'^PRETTY_NAME="?([^"\n]*)', "".join(_all(root, "etc/os-release", str)), re.M)
    return {
        "board": next(iter(_all(root, "proc/device-tree/model", lambda text: text.rstrip("\0"))), None),
        "cpu": _cpu(info) or platform.machine(),
        "cores": len(re.findall(r"^processor\s*:", info, re.M)) or None,
        "ram_bytes": 1024 * int(memory[1]) if memory else None,
        "architecture": platform.machine(),
        "os": release[1] if release else platform.platform(),
        "python": platform.python_version(),
    }


def warnings(before: Condition, after: Condition, cores: int) -> list[str]:
    """What would spoil figures that were taken between the two, a sentence each."""
    found = [_governors(before), _temperature(before, after), _slowed(before, after), _frequency(before, after)]
    if before.load is not None and before.load > _BUSY * cores:
        found.append(
            f"other programs were running: load {before.load:.1f} on {cores} cores before the start; stop them"
        )
    return [sentence for sentence in found if sentence]


def _governors(before: Condition) -> str:
    others = [name for name in before.governors if name != "performance"]
    if not others:
        return ""
    cure = "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
    return f"the frequency follows the load (governor {', '.join(others)}); for steady figures: {cure}"


def _temperature(before: Condition, after: Condition) -> str:
    hottest = max((one.celsius for one in (before, after) if one.celsius is not None), default=0.0)
    return (
        f"it was {hottest:.0f} degrees Celsius hot, and slows down from {_HOT:.0f}; cool it" if hottest >= _HOT else ""
    )


def _slowed(before: Condition, after: Condition) -> str:
    new = set(after.was_throttled) - set(before.was_throttled)
    flags: list[str] = [flag for flag in _THROTTLING if flag in {*before.throttled, *after.throttled, *new}]
    if (after.throttle_count or 0) > (before.throttle_count or 0):
        flags.append("too hot")
    if not flags:
        return ""
    cure = "; use a stronger power supply" if _THROTTLING[0] in flags else "; cool it"
    return f"it was slowed down during the run ({', '.join(flags)}){cure}"


def _frequency(before: Condition, after: Condition) -> str:
    if before.megahertz is None or after.megahertz is None:
        return ""
    low, high = sorted((before.megahertz, after.megahertz))
    if high - low <= _STEADY * high:
        return ""
    return f"the frequency changed, from {before.megahertz:.0f} to {after.megahertz:.0f} MHz"


# ---- reading ---------------------------------------------------------------------------------------------------------


def _all(root: Path, pattern: str, parse: Callable[[str], _T]) -> list[_T]:
    """What the files of this pattern hold, without those that cannot be read."""
    found = []
    for path in sorted(root.glob(pattern)):
        try:
            found.append(parse(path.read_text(errors="replace").strip()))
        except (OSError, ValueError, IndexError):  # a sensor that is asleep answers with an error
            continue
    return found


def _throttling(root: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(what slows a Raspberry Pi down now, what did so since it started)."""
    found = _all(root, "sys/devices/platform/*/*firmware/get_throttled", lambda text: int(text, 16))
    flags = found[0] if found else _vcgencmd(root / _VCGENCMD)
    now, before = ((flags >> shift) & 0xF for shift in (0, 16))
    names = [tuple(name for bit, name in enumerate(_THROTTLING) if bits >> bit & 1) for bits in (now, before)]
    return names[0], names[1]


def _vcgencmd(program: Path) -> int:
    """The flags as it prints them, throttled=0x50000, or 0 where it is not to be had."""
    try:
        said = subprocess.run([program, "get_throttled"], capture_output=True, text=True, timeout=5, check=False).stdout
        return int(said.partition("=")[2], 16)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return 0


def _cpu(info: str) -> str | None:
    """The CPU's name in /proc/cpuinfo; of an Arm one that of its core."""
    named = re.search(r"^model name\s*:\s*(.+)$", info, re.M)
    parts = dict.fromkeys(re.findall(r"^CPU part\s*:\s*(\w+)$", info, re.M))
    if parts:
        return ", ".join(_ARM_CORES.get(part, f"Arm part {part}") for part in parts)
    return named[1].strip() if named else None
