"""Whether an exported C source and its header are what the model's export gives: where they differ, in words."""

import re
from pathlib import Path
from typing import Final

from ._files import read_bytes
from .engines import EmulatedEngine
from .qmodel import QuantizedModel

_PLACE: Final = re.compile(r"^[A-Za-z].*?\b(\w+)(?:\[\d*\]| *\()")  # of an array or a function that starts in a line


def source_problem(engine: EmulatedEngine, model: QuantizedModel, path: Path) -> str | None:
    """What is wrong with the source at this path or the header beside it; None when both are this model's export.

    Raises ValueError or OSError for one that cannot be read.
    """
    files = {one.name: read_bytes(one).decode(errors="replace") for one in (path.with_suffix(".h"), path)}
    header = files[f"{path.stem}.h"]
    target = _macro(header, "TARGET")
    if target not in engine.targets:
        return f"{path.stem}.h is no header of an export for {' or '.join(engine.targets)}; export it anew"
    fresh = engine.sources(model, path.stem, target)
    ours = fresh[f"{path.stem}.h"]
    if _macro(header, "MODEL_HASH") != _macro(ours, "MODEL_HASH"):
        return f"{path.name} is of another model; export it anew"
    if _macro(header, "EDGERNN_VERSION") != _macro(ours, "EDGERNN_VERSION"):
        return f"{path.name} was written by edgernn {_macro(header, 'EDGERNN_VERSION')}; export it anew"
    for name, text in files.items():
        if text != fresh[name]:
            return f"{name} was altered: {_first_change(text, fresh[name])}"
    return None


def _macro(header: str, name: str) -> str | None:
    """The text that a macro of an exported header stands for."""
    found = re.search(rf'_{name} "([^"]*)"', header)
    return found and found[1]


def _first_change(found: str, expected: str) -> str:
    """The first line that differs, and the array or function that it stands in."""
    lines, wanted = found.splitlines(), expected.splitlines()
    pairs = zip(lines, wanted, strict=False)
    number = next((index for index, (one, other) in enumerate(pairs) if one != other), min(len(lines), len(wanted)))
    names = (match[1] for line in reversed(wanted[: number + 1]) if (match := _PLACE.match(line)))
    place = next(names, None)
    return f"line {number + 1}" + (f", in {place}" if place else "")
