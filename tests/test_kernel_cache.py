"""The kernels' machine code, kept between processes: found again, never stale, where it can be written."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from . import oracle
from .models import Variant, random_input, random_model

ROOT = Path(__file__).resolve().parents[1]

# How many functions were compiled for what follows, and its results.
PROBE = """
import sys
import numpy as np
from numba.core.event import install_recorder
with install_recorder("numba:compile") as compiled:
    import edgernn.firmware_sim._inference
    assert not compiled.buffer, "compiled at import"
    assert "torch" not in sys.modules
    {work}
print(len(compiled.buffer), *y)
"""
RUN = """from edgernn.qmodel import QuantizedModel
    y = edgernn.firmware_sim.run(QuantizedModel.load("model.ernn"), np.load("x.npy"))[0].ravel()"""
# Of every form of inference, in the instructions that this processor has.
ALL = """from edgernn.qmodel import QuantizedModel
    model, x = QuantizedModel.load(sys.argv[1]), np.load(sys.argv[2])
    edgernn.firmware_sim.run_batch(model, np.stack([x, x]))
    edgernn.firmware_sim.Stream(model).step(x[0])
    y = edgernn.firmware_sim.run(model, x)[0].ravel()"""
SMALL = """
from edgernn.firmware_sim._jit import kernel

@kernel
def double(x):
    return x * 2
"""
SMALL_RUN = "from small import double; y = [double({})]"

# The folder for machine code, and where kernels keep theirs.
FOLDER = """
import gc
from numba.core.dispatcher import Dispatcher
import edgernn.firmware_sim._inference
from edgernn.firmware_sim._cache import cache_folder
kernels = [one for one in gc.get_objects() if isinstance(one, Dispatcher) and one._cache.cache_path]
print(cache_folder(), *{one._cache.cache_path for one in kernels})
"""
# The names of that folder as these files come and change.
NAMES = """
import sys
from pathlib import Path
from edgernn.firmware_sim._cache import cache_folder
for source in map(Path, sys.argv[1:]):
    source.parent.mkdir(parents=True, exist_ok=True)
    for content in ("", "# changed"):
        source.write_text(content)
        print(cache_folder.__wrapped__().name)
"""


def copy_package(folder: Path) -> Path:
    """The folder of the kernels in a copy of the package."""
    ignored = shutil.ignore_patterns("__pycache__", "nn", "train", "data", "cli", "prune", "quantize", "export")
    shutil.copytree(ROOT / "edgernn", folder / "edgernn", ignore=ignored)
    (folder / "small.py").write_text(SMALL)
    return folder / "edgernn" / "firmware_sim"


def start(code: str, folder: Path, *argv: str | Path, **environment: str) -> subprocess.Popen[str]:
    """A new process that imports the package from this folder."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA", "EDGERNN"))}
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, argv)],
        cwd=folder,
        env=inherited | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> list[str]:
    out, err = process.communicate()
    assert process.returncode == 0, err
    return out.split()


def probe_at_once(folder: Path, *works: str) -> list[tuple[bool, list[str]]]:
    """(whether anything was compiled, the results) of processes that run at the same time, in the readable kernels."""
    processes = [start(PROBE.format(work=work), folder, NUMBA_OPT="0", EDGERNN_SIMD="off") for work in works]
    found = [finish(process) for process in processes]
    return [(events != "0", y) for events, *y in found]


def probe(folder: Path, work: str) -> tuple[bool, list[str]]:
    (found,) = probe_at_once(folder, work)
    return found


def cache_folder(folder: Path, **environment: str) -> Path:
    """The folder that all kernels use, which is made."""
    path, *used = finish(start(FOLDER, folder, **environment))
    assert used == [path]
    return Path(path)


def test_cached_code_is_found_again_but_never_stale(tmp_path: Path) -> None:
    copy_package(tmp_path)
    model = random_model(0, "rnn", hidden_size=4, head=None)
    model.save(tmp_path / "model.ernn")
    x = random_input(model, 3, 0)
    np.save(tmp_path / "x.npy", x)
    wanted = [str(v) for v in oracle.run(model, x).ravel()]
    assert probe(tmp_path, RUN) == (True, wanted)
    assert probe(tmp_path, RUN) == (False, wanted)
    source = tmp_path / "edgernn" / "fixedpoint.py"
    original = source.read_text()
    source.write_text(original.replace("(1 << (shift - 1))) >> shift)", "(1 << (shift - 1))) >> shift << 1)"))
    assert source.read_text() != original
    compiled, changed = probe(tmp_path, RUN)
    assert compiled
    assert changed != wanted


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_second_process_compiles_nothing(tmp_path: Path, cell: Variant) -> None:
    model = random_model(0, cell, hidden_size=4)
    x = random_input(model, 3, 0)
    model.save(tmp_path / "model.ernn")
    np.save(tmp_path / "x.npy", x)
    code = PROBE.format(work=ALL)
    wanted = [str(v) for v in oracle.run(model, x).ravel()]
    for known in (False, True):
        events, *y = finish(start(code, ROOT, tmp_path / "model.ernn", tmp_path / "x.npy"))
        assert y == wanted
        assert events == "0" or not known


def test_code_that_is_damaged_or_of_another_source_is_compiled_again(tmp_path: Path) -> None:
    kernels, work = copy_package(tmp_path), SMALL_RUN.format(7)
    assert probe(tmp_path, work) == (True, ["14"])
    (kept,) = (kernels / "__pycache__").glob("kernels-*/*")
    kept.write_bytes(kept.read_bytes()[:1000])  # as after a loss of power
    assert probe(tmp_path, work) == (True, ["14"])
    assert probe(tmp_path, work) == (False, ["14"])
    (tmp_path / "small.py").write_text(SMALL.replace("2", "3"))
    assert probe(tmp_path, work) == (True, ["21"])


def test_processes_that_compile_at_once_do_not_mix_their_code_up(tmp_path: Path) -> None:
    """Of two signatures: Numba's own files, numbered as they come, could be taken for each other."""
    copy_package(tmp_path)
    works = [SMALL_RUN.format(x) for x in (7, 1.5)]
    assert [y for _, y in probe_at_once(tmp_path, *works, *works)] == [["14"], ["3.0"]] * 2
    assert probe_at_once(tmp_path, *works) == [(False, ["14"]), (False, ["3.0"])]


def test_cache_goes_where_it_can_be_written(tmp_path: Path) -> None:
    kernels = copy_package(tmp_path)
    (kernels / "__pycache__").touch()  # a file, so that no folder can be made there, not even by root
    user, nowhere = str(tmp_path / "user"), str(kernels / "__pycache__")
    assert cache_folder(tmp_path, XDG_CACHE_HOME=user, LOCALAPPDATA=user).parent == Path(user) / "edgernn"
    assert finish(start(FOLDER, tmp_path, XDG_CACHE_HOME=nowhere, LOCALAPPDATA=nowhere)) == ["None"]
    assert cache_folder(tmp_path, NUMBA_CACHE_DIR="configured").parent == tmp_path / "configured"


def test_the_folder_is_named_by_all_that_goes_into_the_code(tmp_path: Path) -> None:
    kernels = copy_package(tmp_path)
    first = cache_folder(tmp_path).name
    environments = (
        {"NUMBA_CPU_NAME": "generic"},
        {"NUMBA_CPU_FEATURES": ""},
        {"NUMBA_OPT": "1"},
        {"EDGERNN_SIMD": "off"},
    )
    names = [cache_folder(tmp_path, **environment).name for environment in environments]
    fused = kernels.parent / "quantize" / "fused"
    sources = [kernels / "new.py", kernels / "simd" / "deep" / "new.py", fused / "new.py"]
    names += finish(start(NAMES, tmp_path, *sources))
    assert len({first, *names}) == 1 + 4 + 6
    for source in sources:
        source.unlink()
    assert cache_folder(tmp_path).name == first


@pytest.mark.parametrize("leave", ["", "; cache_folder().touch()"], ids=["nothing", "a file"])
def test_kernels_run_where_their_folder_is_gone(tmp_path: Path, leave: str) -> None:
    copy_package(tmp_path)
    remove = "import shutil; from edgernn.firmware_sim._cache import cache_folder; shutil.rmtree(cache_folder())"
    work = f"{remove}{leave}; {SMALL_RUN.format(7)}"
    assert probe(tmp_path, work) == (True, ["14"])


def test_folders_that_nobody_uses_are_removed(tmp_path: Path) -> None:
    base = copy_package(tmp_path) / "__pycache__"
    old, recent, foreign = (base / f"kernels-{name}" for name in ("0" * 16, "1" * 16, "of somebody else"))
    for path, days in ((old, 31), (recent, 29), (foreign, 31)):
        path.mkdir(parents=True)
        (path / "code.bin").touch()
        os.utime(path, 2 * (time.time() - days * 86400,))
    used = cache_folder(tmp_path)
    assert set(base.glob("kernels-*")) == {recent, foreign, used}
    os.utime(used, (0, 0))
    assert cache_folder(tmp_path) == used
    assert time.time() - used.stat().st_mtime < 86400  # in use again
