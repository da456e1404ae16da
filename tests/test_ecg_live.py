"""The example that marks heart beats live: it takes a model's file and needs no torch."""

import shutil
import subprocess
import sys
from pathlib import Path

from edgernn.export import to_tflite

from .command_line import ROOT
from .models import random_model


def test_the_live_example(tmp_path: Path) -> None:
    """In a process that has no torch, with each kind of file that steps."""
    model = random_model(33, "gru", input_size=2, hidden_size=4, head="steps", output_size=2)
    model.save(tmp_path / "model.ernn")
    (tmp_path / "model_step.tflite").write_bytes(to_tflite(model, "step"))
    shutil.copy(ROOT / "examples" / "ecg_live.py", tmp_path)
    printed = []
    for name in ("model.ernn", "model_step.tflite"):
        code = f"""
import runpy, sys
sys.modules["torch"] = None
sys.path.insert(0, {str(ROOT)!r})
sys.argv = ["ecg_live.py", {name!r}, "--fast", "--seconds", "8"]
runpy.run_path("ecg_live.py", run_name="__main__")
"""
        result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (result.returncode, result.stderr) == (0, "")
        assert " beats that were there" in result.stdout
        printed.append(result.stdout)
    assert printed[0] == printed[1]
