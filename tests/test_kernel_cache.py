"""The kernels' machine code, kept between processes: found again, never stale, where it can be written."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from tests import oracle
from tests.models import random_input, random_model

PROBE = """
import sys
import numpy as np
from edgernn.firmware_sim import _layer, run
from edgernn.qmodel import QuantizedModel
assert not _layer.run_layer.signatures, "compiled at import"
assert "torch" not in sys.modules
y, _ = run(QuantizedModel.load("model.ernn"), np.load("x.npy"))
print(sum(_layer.run_layer.stats.cache_hits.values()), *y.ravel())
"""


def copy_package(folder: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__", "nn", "train", "data", "cli", "prune", "quantize", "export")
    shutil.copytree(Path(__file__).parent.parent / "edgernn", folder / "edgernn", ignore=ignored)


def run_python(code: str, folder: Path, **environment: str) -> str:
    """What `code` prints in a new process that imports the package from this folder."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA")}
    process = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_cached_code_is_found_again_but_never_stale(tmp_path: Path) -> None:
    copy_package(tmp_path)
    model = random_model(0, "rnn", hidden_size=4, head=None)
    model.save(tmp_path / "model.ernn")
    x = random_input(model, 3, 0)
    np.save(tmp_path / "x.npy", x)

    def probe() -> tuple[int, list[int]]:
        hits, *y = (int(v) for v in run_python(PROBE, tmp_path, NUMBA_OPT="0").split())
        return hits, y

    wanted = oracle.run(model, x).ravel().tolist()
    assert probe() == (0, wanted)
    assert probe() == (1, wanted)
    source = tmp_path / "edgernn" / "fixedpoint.py"
    original = source.read_text()
    source.write_text(original.replace("(1 << (shift - 1))) >> shift)", "(1 << (shift - 1))) >> shift << 1)"))
    assert source.read_text() != original
    hits, changed = probe()
    assert hits == 0
    assert changed != wanted


def test_cache_goes_where_it_can_be_written(tmp_path: Path) -> None:
    copy_package(tmp_path)
    code = (
        "from edgernn.firmware_sim import _jit, _layer; print(_jit._cache_folder(), _layer.run_layer._cache.cache_path)"
    )
    package = tmp_path / "edgernn" / "firmware_sim"
    (package / "__pycache__").touch()  # a file, so that no folder can be made there, not even by root
    user = str(tmp_path / "user")
    folder, used = run_python(code, tmp_path, XDG_CACHE_HOME=user, LOCALAPPDATA=user).split()
    assert Path(folder).parent == Path(user) / "edgernn"
    assert Path(used).parent == Path(folder)
    nowhere = str(package / "__pycache__")
    assert run_python(code, tmp_path, XDG_CACHE_HOME=nowhere, LOCALAPPDATA=nowhere).split() == ["None", "None"]
    configured = tmp_path / "configured"
    folder, used = run_python(code, tmp_path, NUMBA_CACHE_DIR=str(configured)).split()
    assert Path(folder).parent == configured
    assert Path(used).parent == Path(folder)
