"""Compiling: a model's C sources and the harness that drives them, for one core, into an image with its sizes."""

import re
import struct
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Final

import numpy as np

from .cores import Core, check, find
from .elf import Elf

_FOLDER: Final = Path(__file__).parent
_FLAGS: Final = ("-std=c99", "-ffreestanding", "-ffunction-sections", "-fdata-sections", "-DEDGERNN_NO_MAIN")
_LINK: Final = ("-nostdlib", "-nostartfiles", "-static", "-Wl,--gc-sections")
_DRIVER: Final = "driver"  # the folder of what drives the model; firmware.ld knows it
_SECONDS: Final = 300.0
# The first fields of NAME_state_t.
_STATE: Final = re.compile(r"^\s*int(8|16)_t ([hc]_\d+(?:_reverse)?)\[(\d+)\];", re.M)
_REGION: Final = re.compile(r"region [`'](ROM|RAM)' overflowed by (\d+) bytes")


class TooLarge(ValueError, MemoryError):
    """The core has not the memory for this model, or for a sequence as long as this."""


@dataclass(frozen=True)
class Sizes:
    """Bytes of the model in the image, without what drives it: code and tables (with the weights) in flash, data in
    both, zeros in RAM; and of the state that its caller keeps."""

    code: int
    tables: int
    data: int
    zeros: int
    state: int

    @property
    def flash(self) -> int:
        return self.code + self.tables + self.data


@dataclass(frozen=True, eq=False)
class Firmware:
    """An image for a core: `content` is its ELF file.

    states: the state as the image holds it, a field for each name; of a field's values the model's own come first.
    """

    core: Core
    name: str
    content: bytes = field(repr=False)
    states: np.dtype[np.void]

    @cached_property
    def elf(self) -> Elf:
        return Elf(self.content)

    @cached_property
    def _description(self) -> tuple[int, ...]:
        return struct.unpack("<8I", self.elf.read("edgernn_description"))

    @property
    def input_size(self) -> int:
        return self._description[0]

    @property
    def input_dtype(self) -> str:
        return f"int{8 * self._description[1]}"

    @property
    def output_size(self) -> int:
        return self._description[2]

    @property
    def output_dtype(self) -> str:
        return f"int{8 * self._description[3]}"

    @property
    def every_step(self) -> bool:
        return bool(self._description[4])

    @property
    def bidirectional(self) -> bool:
        return bool(self._description[5])

    @property
    def macs_per_step(self) -> int:
        """Multiplications of a step, the head's too."""
        return self._description[6]

    @cached_property
    def sizes(self) -> Sizes:
        sections = self.elf.sections
        code, tables, data, zeros = (sections[name].size if name in sections else 0 for name in _SECTIONS)
        return Sizes(code, tables, data, zeros, self._description[7])

    @cached_property
    def parts(self) -> dict[str, int]:
        """The entry addresses of the model's parts: layer_0, layer_0_reverse, .., head."""
        pattern = re.compile(rf"{self.name}_(layer_\d+(?:_reverse)?|head)(?:\.(?:constprop|isra|lto_priv)[.\d]*)*")
        found = {
            match[1]: symbol.address
            for name, symbol in self.elf.symbols.items()
            if symbol.function and (match := pattern.fullmatch(name))
        }
        return dict(sorted(found.items(), key=lambda part: _order(part[0])))


def _order(part: str) -> tuple[bool, int, str]:
    """The head last, layers by number, the backward direction after the forward one."""
    number = re.search(r"\d+", part)
    return part == "head", int(number[0]) if number else 0, part


_SECTIONS: Final = (".text", ".rodata", ".data", ".bss")


def build(core: str, sources: Mapping[str, str], name: str = "model") -> Firmware:
    """Compile every .c file of `sources` (file name: text) for a core, with a harness that calls the model `name`.

    Raises ValueError for an unknown core, a missing compiler (with the command that installs it) and sources that do
    not compile; TooLarge, which is one, for a model that does not fit the core's memory.
    """
    target = find(core)
    check(f"compiling for {core}", (target.compiler,))
    if f"{name}.h" not in sources or f"{name}.c" not in sources:
        raise ValueError(f"the sources must hold {name}.h and {name}.c, not {', '.join(sources)}")
    with tempfile.TemporaryDirectory(prefix="edgernn-") as folder:
        path = Path(folder)
        for file, text in sources.items():
            if Path(file).name != file:
                raise ValueError(f"{file!r} must be the name of a file, without a folder")
            (path / file).write_text(text, encoding="utf-8")
        driver = path / _DRIVER
        driver.mkdir()
        harness = str(_FOLDER / "harness.c")
        _gcc(target, driver, ["-c", *_FLAGS, *_defines(sources, name), "-I..", harness])
        _gcc(target, path, ["-c", *_FLAGS, "-I.", *(file for file in sources if file.endswith(".c"))])
        for file, content in _support(target).items():
            (driver / file).write_bytes(content)
        objects = sorted(str(file.relative_to(path)) for file in path.rglob("*.o"))
        _gcc(target, path, [*_LINK, *_places(target), *objects, "-lgcc", "-o", "firmware.elf"])
        fields = _STATE.findall(sources[f"{name}.h"])
        states = np.dtype([(state, f"<i{int(bits) // 8}", (int(size),)) for bits, state, size in fields])
        return Firmware(target, name, (path / "firmware.elf").read_bytes(), states)


@cache
def _support(core: Core) -> dict[str, bytes]:
    """The object files that are the same for every model."""
    files = ["memory.c", "startup_arm.c" if core.arm else "startup_riscv.S"]
    defines = [f"-DROM_ORIGIN={core.rom.origin}", f"-DROM_SIZE={core.rom.size}"]
    with tempfile.TemporaryDirectory(prefix="edgernn-") as folder:
        _gcc(core, Path(folder), ["-c", *_FLAGS, *defines, *(str(_FOLDER / file) for file in files)])
        return {path.name: path.read_bytes() for path in Path(folder).glob("*.o")}


def _defines(sources: Mapping[str, str], name: str) -> list[str]:
    """What the harness has to know."""
    values = {
        "MODEL_HEADER": f"<{name}.h>",
        "MODEL_NAME": name,
        "MODEL_PREFIX": name.upper(),
        "HAS_TEST": int(f"{name}_test.c" in sources),
    }
    return [f"-D{key}={value}" for key, value in values.items()]


def _places(core: Core) -> list[str]:
    """The linker's script, and what it needs to know."""
    values = {
        "rom_origin": core.rom.origin,
        "rom_size": core.rom.size,
        "ram_origin": core.ram.origin,
        "ram_size": core.ram.size,
        "stack_size": core.stack,
    }
    return [*(f"-Wl,--defsym={key}={value:#x}" for key, value in values.items()), "-T", str(_FOLDER / "firmware.ld")]


def _gcc(core: Core, folder: Path, arguments: list[str]) -> None:
    command = [core.compiler, *core.flags, *arguments]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_SECONDS, errors="replace")
    except subprocess.TimeoutExpired:
        raise ValueError(f"{core.compiler} did not end within {_SECONDS:.0f} s") from None
    if done.returncode == 0:
        return
    overflows = {region: int(size) for region, size in _REGION.findall(done.stderr)}
    if overflows:
        sizes = {"ROM": core.rom.size, "RAM": core.ram.size}
        text = " and ".join(f"{sizes[region]:,} bytes of {region} by {by:,}" for region, by in overflows.items())
        raise TooLarge(f"the model is too large for {core.name}: it exceeds {text} bytes")
    lines = [line for line in done.stderr.splitlines() if " error: " in line.lower() or "undefined reference" in line]
    reason = (lines or done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[0]
    raise ValueError(f"{core.compiler} refuses the sources: {reason.strip()}")
