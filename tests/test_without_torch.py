"""Everything right of `convert` runs where torch is not installed: what goes on a Raspberry Pi."""

import json
import shutil
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest

from edgernn.data import load
from edgernn.engines import ENGINES

from .command_line import FILES, subprocess_of

HIDE = """
from importlib.machinery import PathFinder

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {hidden!r} else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Without
"""
INSTALL = "pip install 'edgernn[train]'"


def without(hidden: tuple[str, ...], *argv: str | Path, code: str = "") -> CompletedProcess[str]:
    """A command line in a process that finds none of these packages."""
    return subprocess_of(*argv, code=HIDE.format(hidden=hidden) + code)


def succeed(*argv: str | Path, hidden: tuple[str, ...] = ("torch",)) -> str:
    result = without(hidden, *argv)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def succeed_json(*argv: str | Path, hidden: tuple[str, ...] = ("torch",)) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(succeed(*argv, "--json", hidden=hidden))
    return found


@pytest.mark.parametrize("statement", ["import torch", "import torch.nn", "from edgernn import GRU"])
def test_torch_is_not_to_be_had(statement: str) -> None:
    result = without(("torch",), "checks", code=statement)
    assert "ModuleNotFoundError: No module named 'torch'" in result.stderr
    pieces = {piece["name"]: piece for piece in succeed_json("checks")["packages"]}
    assert (pieces["torch"]["version"], pieces["torch"]["install"]) == (None, INSTALL)


def test_eval_gives_the_integers_of_training(trained: Path) -> None:
    expected = json.loads((trained / "metrics.json").read_text())["test"]["integer"]
    found = succeed_json("eval", trained / "model.ernn")
    assert found["models"] == {"integers": expected}
    assert found["missing"] == {"torch": INSTALL}
    lines = succeed("eval", trained / "model.ernn").splitlines()
    assert [line.split()[0] for line in lines] == ["test", "integers", "not"]
    assert lines[-1] == f"not installed: torch, which would add the float rows ({INSTALL})"


def test_eval_does_not_ask_for_torch_without_a_float_model(trained: Path, tmp_path: Path) -> None:
    shutil.copy(trained / "model.ernn", tmp_path)
    out = succeed("eval", tmp_path / "model.ernn")
    assert "model.safetensors is missing" in out
    assert "torch" not in out


def test_benchmark_compares_with_the_kernel(trained: Path) -> None:
    found = succeed_json("benchmark", trained / "model.ernn", "--sequences", "2")
    exact = ["numba", "native", "litert", "tflm", "onnxruntime exact"]
    names = ["onnxruntime float", "litert float", "onnxruntime int8 weights", *exact]
    assert [row["name"] for row in found["rows"]] == names
    assert (found["reference"], found["kernel"]) == ("onnxruntime float", "numba")
    assert found["missing"] == {"torch float": INSTALL}
    assert found["rows"][0]["sequence"]["ratio"] == found["rows"][0]["step"]["ratio"] == 1
    accuracy = json.loads((trained / "metrics.json").read_text())["test"]["integer"]["accuracy"]
    assert [row["quality"] for row in found["rows"][3:]] == [accuracy] * 5
    out = succeed("benchmark", trained / "model.ernn", "--sequences", "1")
    assert "CPU time as a ratio to onnxruntime float" in out
    assert f"not installed: torch float ({INSTALL})" in out


def test_benchmark_and_verify_leave_out_what_cannot_be_exported(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runtimes of edgernn[run] alone: ONNX Runtime is there, onnx, which writes its files, is not."""
    hidden = ("torch", "onnx", "tflite_micro")
    found = succeed_json("benchmark", trained / "model.ernn", "--sequences", "1", hidden=hidden)
    assert [row["name"] for row in found["rows"]] == ["litert float", "numba", "native", "litert"]
    assert found["missing"]["onnxruntime"] == "pip install 'edgernn[export]'"
    monkeypatch.setenv("EDGERNN_TFLITE_RUNTIME", "/nowhere/python")
    monkeypatch.setenv("PATH", "/nowhere")  # no compiler, no emulator
    checked = succeed_json("verify", trained / "model.ernn", "--sequences", "1", hidden=hidden)
    assert {row["engine"] for row in checked["results"]} == {name for name in ENGINES if name.startswith("litert")}


def test_verify_compares_the_engines(trained: Path) -> None:
    engines = ("litert", "litert-compiled", "tflite-runtime", "tflm", "onnxruntime")
    found = succeed_json("verify", trained / "model.ernn", "--sequences", "2", "--engines", ",".join(engines))
    assert found["ok"]
    assert {row["engine"] for row in found["results"]} == set(engines)
    assert sum(row["integers"] for row in found["results"]) > 0


@pytest.mark.parametrize("engine", ["numba", "litert", "tflm", "onnxruntime"])
def test_run_predicts(trained: Path, tmp_path: Path, engine: str) -> None:
    np.save(tmp_path / "rows.npy", load("vowels").test.x[0, :3])
    out = succeed("run", trained / "model.ernn", tmp_path / "rows.npy", "--engine", engine, "-q")
    assert [line.startswith("speaker ") for line in out.splitlines()] == [True] * 3


@pytest.mark.parametrize("name", ["model.ernn", "model.safetensors", "model_step.tflite", "model.onnx"])
def test_inspect_shows(trained: Path, name: str) -> None:
    assert succeed_json("inspect", trained / name)["bytes"] == (trained / name).stat().st_size


def test_export_writes_the_same_files(trained: Path, tmp_path: Path) -> None:
    succeed("export", trained / "model.ernn", "--form", "sequence,step,stream", "-o", tmp_path, "-q")
    assert {path.name for path in tmp_path.iterdir()} >= set(FILES[:6])
    assert all((tmp_path / name).read_bytes() == (trained / name).read_bytes() for name in FILES[:6])


def test_the_kernel_needs_numpy_numba_and_safetensors_alone(trained: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", load("vowels").test.x[0, :3])
    hidden = ("torch", "onnx", "onnxruntime", "flatbuffers", "ai_edge_litert", "tflite_micro", "tqdm")
    assert succeed("run", trained / "model.ernn", tmp_path / "rows.npy", "-q", hidden=hidden).count("\n") == 3
    assert "layer 0 recurrent" in succeed("inspect", trained / "model.ernn", hidden=hidden)
    assert list(succeed_json("eval", trained / "model.ernn", hidden=hidden)["models"]) == ["integers"]
    rows = succeed_json("benchmark", trained / "model.ernn", hidden=hidden)["rows"]
    assert [row["name"] for row in rows] == ["numba", "native"]
