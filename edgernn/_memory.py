"""Resident memory of networks in their runtimes, each in a process of its own (`_probe`)."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

_PATIENCE: Final = 120.0  # seconds for a process: torch on a slow card takes a while to be read
_BARE: Final = "none"


def bare_memory() -> tuple[int | None, str]:
    """(bytes of a Python with NumPy, "") or (None, why it could not be measured)."""
    return memory(_BARE, b"", "", np.zeros((1, 1), np.float32))


def memory(runtime: str, content: bytes, suffix: str, x: npt.NDArray[Any]) -> tuple[int | None, str]:
    """(peak resident bytes of a process that runs x [T, ..] in the file of that content, ""), or (None, why not)."""
    if not sys.executable:
        return None, "this Python does not know how it was started"
    with tempfile.TemporaryDirectory(prefix="edgernn-") as folder:
        path, inputs = Path(folder, f"model{suffix}"), Path(folder, "x.npy")
        path.write_bytes(content)
        np.save(inputs, x)
        command = [sys.executable, "-m", f"{__package__}._probe", runtime, str(path), str(inputs)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_PATIENCE, env=_environment(), check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return None, f"{type(error).__name__}: {error}"
    if done.returncode:
        return None, (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    last = done.stdout.split()[-1:]
    return (int(last[0]), "") if last else (None, "this system does not tell")


def _environment() -> dict[str, str]:
    """Ours, with the folder of this very package first in the path."""
    paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
