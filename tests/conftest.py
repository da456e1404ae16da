"""One thread per process (small tensors only lose time to thread pools), and a trained model for the command line."""

import os
import shutil
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny trained model and all its exports."""
    from edgernn.cli import main

    from .command_line import TRAINING

    folder = tmp_path_factory.mktemp("runs") / "tiny"
    train = ["train", *TRAINING, "-q", "-o"]
    assert main([*train, str(folder)]) == 0
    assert main(["export", str(folder / "model.ernn"), "--form", "sequence,step,stream", "-q"]) == 0
    return folder


@pytest.fixture
def run_folder(trained: Path, tmp_path: Path) -> Path:
    """A copy of `trained` that a test may spoil."""
    return Path(shutil.copytree(trained, tmp_path / "run"))
