"""Exact counts: how often each instruction of a model's firmware is executed, by the plugin that comes with this."""

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from ...qmodel import IntArray
from .build import Firmware
from .cores import check, version
from .session import Session

OTHER: Final = "other"

_SOURCE: Final = Path(__file__).with_name("plugin.c")
_COMPILER: Final = "gcc"
_COMMAND: Final = (_COMPILER, "-std=gnu99", "-O2", "-Wall", "-Wextra", "-shared", "-fPIC", "-fvisibility=hidden")
_RECORD: Final = np.dtype([("part", "u4"), ("address", "u4"), ("executed", "u8"), ("taken", "u8")])


@dataclass(frozen=True, eq=False)
class Counts:
    """Of one run of `steps` steps: int64 arrays with an entry for every part and address that was executed.

    part is a number in `parts`: the part of the network that was entered last, or OTHER before any was. taken: how
    often the next instruction was not the one that follows. outputs are those of the run, stack the bytes of it that
    the model used.
    """

    parts: tuple[str, ...]
    part: npt.NDArray[np.int64]
    address: npt.NDArray[np.int64]
    executed: npt.NDArray[np.int64]
    taken: npt.NDArray[np.int64]
    steps: int
    stack: int
    outputs: IntArray

    @cached_property
    def total(self) -> int:
        """Instructions of the run."""
        return int(self.executed.sum())

    @property
    def per_step(self) -> float:
        return self.total / self.steps

    def by_part(self) -> dict[str, int]:
        """Instructions of each part."""
        sums = np.zeros(len(self.parts), np.int64)
        np.add.at(sums, self.part, self.executed)
        return dict(zip(self.parts, sums.tolist(), strict=True))


def count(firmware: Firmware, x: IntArray, *, stepwise: bool = False) -> Counts:
    """The counts of x [T, input_size] from the state zero, in one call of the model's run; stepwise: in T of its step.

    The same in every run. Raises ValueError for what `Session` refuses, for a missing compiler of the plugin, and
    RuntimeError when the firmware stops.
    """
    names, entries = tuple(firmware.parts), tuple(firmware.parts.values())
    with tempfile.TemporaryDirectory(prefix="edgernn-") as folder:
        out = Path(folder) / "counts"
        with Session(firmware, plugin=_arguments(firmware, entries, out)) as session:
            outputs = session.step(x) if stepwise else session.run(x)
            stack = session.stack
            session.finish()
        try:
            records = np.fromfile(out, _RECORD)
        except OSError:
            raise RuntimeError(f"{firmware.core.emulator} has written no counts") from None
    part, address, executed, taken = (records[name].astype(np.int64) for name in _RECORD.fields or ())
    return Counts((OTHER, *names), part, address, executed, taken, len(x), stack, outputs)


def _arguments(firmware: Firmware, entries: Sequence[int], out: Path) -> str:
    symbols, code = firmware.elf.symbols, firmware.elf.sections[".text"]
    harness = symbols["harness_start"].address, symbols["harness_end"].address
    fields = {
        "out": str(out).replace(",", ",,"),
        "code": f"{harness[0]:x}-{code.address + code.size:x}",
        "skip": f"{harness[0]:x}-{harness[1]:x}",
        "begin": f"{symbols['edgernn_count_begin'].address:x}",
        "end": f"{symbols['edgernn_count_end'].address:x}",
    }
    pairs = [*fields.items(), *(("part", f"{entry:x}") for entry in entries)]
    plugin = str(_plugin(_interface(firmware.core.emulator))).replace(",", ",,")
    return ",".join([f"file={plugin}", *(f"{key}={value}" for key, value in pairs)])


@cache
def _interface(emulator: str) -> int:
    """The number of the plugin interface that this QEMU takes."""
    number = (version(emulator) or "").partition(".")[0]
    return 2 if number.isdigit() and int(number) >= 9 else 1


@cache
def _plugin(interface: int) -> Path:
    """The compiled plugin: made once, kept for later runs under a name that changes with what it is made of."""
    command = [*_COMMAND, f"-DINTERFACE={interface}"]
    digest = hashlib.sha256(repr(command).encode() + _SOURCE.read_bytes()).hexdigest()[:16]
    folder = _cache()
    path = folder / f"count-{digest}.so"
    if path.is_file():
        return path
    check("counting instructions", (_COMPILER,))
    handle, fresh = tempfile.mkstemp(suffix=".so", dir=folder)
    os.close(handle)
    try:
        done = subprocess.run([*command, str(_SOURCE), "-o", fresh], capture_output=True, text=True, errors="replace")
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or ["no message"])[0]
            raise ValueError(f"{_COMPILER} cannot compile the plugin that counts: {reason}")
        os.replace(fresh, path)
    finally:
        Path(fresh).unlink(missing_ok=True)
    return path


def _cache() -> Path:
    """A folder of the user's own, or of this process where there is none to write to."""
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgernn"
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except (OSError, RuntimeError):  # no home
        pass
    return Path(_temporary().name)


@cache
def _temporary() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="edgernn-")  # gone with this process
