"""C exports compiled for every core: no warning, nothing needed from outside; and on a core of the other byte order."""

import subprocess
from pathlib import Path

import pytest

from edgernn.export.c import TARGETS
from edgernn.firmware_sim import run
from edgernn.firmware_sim.emulation.cores import CORES

from .firmware_host import NAME, STRICT, write_c
from .models import SCHEMES, VARIANTS, random_input, random_model

_START = """
.syntax unified
.arm
.global _start
_start:
  ldr sp, =stack_end
  bl main
  mov r7, #1
  svc 0
.bss
  .space 65536
stack_end:
"""


@pytest.mark.parametrize("level", ["-O2", "-Os"])
@pytest.mark.parametrize("core", CORES)
def test_the_object_needs_nothing(core: str, level: str, tmp_path: Path) -> None:
    """Sizes at which compilers make memcpy of a copy and memset of a reset."""
    one = CORES[core]
    for number, (cell, scheme) in enumerate(zip(VARIANTS, SCHEMES * 2, strict=True)):
        model = random_model(
            7, cell, scheme, input_size=40, hidden_size=36, layers=2, head=None, bidirectional=number == 2
        )
        write_c(model, tmp_path, core)
        source, made = tmp_path / f"{NAME}.c", tmp_path / f"{NAME}.o"
        command = [one.compiler, *one.flags, level, *STRICT, "-ffreestanding", "-c", str(source), "-o", str(made)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        nm = one.compiler.replace("-gcc", "-nm")
        undefined = subprocess.run([nm, "-u", made], capture_output=True, text=True, check=True).stdout.split()
        assert undefined == [], cell


@pytest.mark.parametrize("target", {layout: target for target, layout in TARGETS.items()}.values())
def test_big_endian(target: str, tmp_path: Path) -> None:
    """Assembly reads two operands as a word: there it must not be taken."""
    flags = ["-march=armv7-a", "-mthumb", "-mbig-endian", "-mfloat-abi=soft", "-O2", "-ffreestanding", "-nostdlib"]
    (tmp_path / "start.S").write_text(_START)
    for scheme in SCHEMES:
        model = random_model(5, "lstm", scheme, head="steps")
        x = random_input(model, 9, 5)
        write_c(model, tmp_path, target, x, run(model, x)[0])
        sources = [str(tmp_path / name) for name in ("start.S", f"{NAME}.c", f"{NAME}_test.c")]
        command = ["arm-none-eabi-gcc", *flags, "-static", "-Wl,--be8", *sources, "-o", str(tmp_path / "test")]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert subprocess.run(["qemu-armeb", str(tmp_path / "test")]).returncode == 0, scheme
