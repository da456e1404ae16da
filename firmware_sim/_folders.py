"""Folders for what was compiled and can be compiled again: this user's, emptied of what nobody uses."""

import os
import shutil
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

KEPT_DAYS: Final = 30


def user_cache() -> Path:
    """This user's folder for edgernn; it may not exist yet."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", tempfile.gettempdir())) / "edgernn"
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "edgernn"


def is_writable(folder: Path) -> bool:
    """Make the folder; False when it cannot be made, or cannot be written into."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


def remove_unused(folder: Path, pattern: str) -> None:
    """Remove the files and folders of these names that nobody touched for long."""
    for path in folder.glob(pattern):
        with suppress(OSError):
            if path.stat().st_mtime < time.time() - KEPT_DAYS * 86400:
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
