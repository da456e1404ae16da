"""Workers for the tests: tflite-runtime in a process of its own, and Pythons that are to be watched from outside."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgernn.engines import ENGINES
from edgernn.engines._remote import SCRIPT, Worker

from .models import random_model

ENGINE = ENGINES["tflite-runtime"]
MODEL = random_model(3, "gru", hidden_size=4, input_size=3)
PYTHON = Path(sys.prefix) / "tflite-runtime" / "bin" / "python"


def new_worker() -> Worker:
    return Worker("the runtime", [str(PYTHON), "-I", str(SCRIPT), "tflite_runtime"])


def pid_of(worker: Worker) -> int:
    assert worker._process is not None
    return worker._process._child.pid


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except OSError:
            return
        time.sleep(0.02)
    pytest.fail(f"process {pid} is still there")


def run_python(code: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


START = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from edgernn.engines._remote import SCRIPT, Worker
worker = Worker("w", [{str(PYTHON)!r}, "-I", str(SCRIPT), "tflite_runtime"])
worker.version
pid = worker._process._child.pid
print(pid, flush=True)
"""


def executable(path: Path, *lines: str) -> str:
    path.write_text("\n".join(("#!/bin/sh", *lines)) + "\n")
    path.chmod(0o755)
    return str(path)
