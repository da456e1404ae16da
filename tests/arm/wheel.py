"""The wheel of this tree, and what pip makes of it on a device."""

import shutil
import sys
from pathlib import Path
from typing import Final

from .debian import succeed
from .userland import ROOT

_SOURCES: Final = ("edgernn", "export", "firmware_sim")
_FILES: Final = ("pyproject.toml", "README.md", "LICENSE")


def build_wheel(folder: Path) -> Path:
    """The wheel, built in `folder` from a copy of the sources. Raises Unavailable."""
    tree = folder / "tree"
    for name in _SOURCES:
        shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in _FILES:
        shutil.copy2(ROOT / name, tree / name)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    succeed([*build, "--wheel-dir", str(folder), str(tree)], "pip install setuptools wheel")
    (wheel,) = folder.glob("*.whl")
    return wheel
