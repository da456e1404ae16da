"""Calling the command line in the tests: in this process, or in one of its own."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgernn.cli import main

ROOT = Path(__file__).resolve().parents[1]
TRAINING = ("--data", "vowels", "--hidden", "8", "--epochs", "3", "--sparsity", "0.5", "--seed", "3")
FILES = (
    "model.tflite",
    "model_step.tflite",
    "model_stream.tflite",
    "model.onnx",
    "model_step.onnx",
    "model_weights.onnx",
    "model_float.onnx",
    "model_float.tflite",
)


def succeed(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> str:
    code = main([str(part) for part in argv])
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    return out


def succeed_json(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(succeed(capsys, *argv, "--json"))
    return found


def subprocess_of(*argv: str | Path, code: str = "") -> subprocess.CompletedProcess[str]:
    """A command line in a process of its own, which runs `code` first."""
    program = f"import sys\n{code}\nfrom edgernn.cli import main\nsys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, *map(str, argv)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def fail(capsys: pytest.CaptureFixture[str], message: str, *argv: str | Path) -> None:
    code = main([str(part) for part in argv])
    out, err = capsys.readouterr()
    assert code == 2, err
    assert out == ""
    assert err.count("\n") == 1, err
    assert err.startswith("edgernn")
    assert message in err


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path
