"""C exports compiled for every core: no warning, and nothing needed from outside: no library, no compiler's helper."""

import subprocess
from pathlib import Path

import pytest

from edgernn.firmware_sim.emulation.cores import CORES

from .firmware_host import NAME, STRICT, write_c
from .models import SCHEMES, VARIANTS, random_model


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
