"""What the compiler made of the kernels: how many multiplying instructions stand in their machine code.

    python -m tests.benchmarks.instructions

Compiles them anew, in a cache of its own. A dot product that is no vector instruction shows here first.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from typing import Any, Final

from edgernn.firmware_sim import run, run_batch
from edgernn.qmodel import QuantizedModel
from tests.models import SCHEMES, Variant, random_input, random_model

from .report import show

CELLS: Final[tuple[Variant, ...]] = ("lstm", "gru", "rnn")
_MULTIPLYING: Final = re.compile(  # x86 and Arm, without the floating-point ones
    r"^\t(vpdp\w+|vpmadd\w+|vpmul\w+|[su]dot|[su]ml[as]l2?|[su]mull2?|mul)\s.*?(%[xyz]mm|\bv\d+\.\w+)", re.MULTILINE
)
_SHOWN: Final = 6


def compiled() -> dict[tuple[str, str], Any]:
    """By name and signature, the kernels that have machine code."""
    from numba.core.dispatcher import Dispatcher

    modules = [module for name, module in sys.modules.items() if name.startswith("edgernn.")]
    kernels = [one for module in modules for one in vars(module).values() if isinstance(one, Dispatcher)]
    pairs = ((kernel, signature) for kernel in kernels for signature in kernel.signatures)
    return {(kernel.py_func.__name__, str(signature)): (kernel, signature) for kernel, signature in pairs}


def count(assembly: str) -> str:
    counts = Counter(f"{name} {register.strip('%')}" for name, register in _MULTIPLYING.findall(assembly))
    return ", ".join(f"{name} x{number}" for name, number in counts.most_common(_SHOWN))


def call(model: QuantizedModel) -> None:
    run(model, random_input(model, 8, 0))
    run_batch(model, random_input(model, 8, 0, (64,)))


def show_counts() -> None:
    lines, known = [], set(compiled())
    for cell in CELLS:
        for scheme in SCHEMES:
            call(random_model(0, cell, scheme, input_size=12, hidden_size=32, head=None))
            for key, (kernel, signature) in compiled().items():
                if key not in known:
                    known.add(key)
                    lines.append((f"{cell} {scheme}", key[0], count(kernel.inspect_asm(signature))))
    show("Multiplying instructions of the kernels, at the first model that needs them", ("model", "kernel", ""), lines)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", f"from {__spec__.name} import show_counts; show_counts()"]
        subprocess.run(command, env=os.environ | {"NUMBA_CACHE_DIR": folder}, check=True)


if __name__ == "__main__":
    main()
