"""The exported C beside a model, and whether it is what the model's export gives: where it differs, in words."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from ._files import read_bytes
from .engines import EmulatedEngine, Engine
from .qmodel import QuantizedModel

_PLACE: Final = re.compile(r"^[A-Za-z].*?\b(\w+)(?:\[\d*\]| *\()")  # of an array or a function that starts in a line
_MARK: Final = re.compile(r"made by edgernn|_EDGERNN_VERSION ")  # in an exported source, and in its header
_PACKED: Final = "src"  # the folder of the sources in every package


def exported_sources(engine: EmulatedEngine, model_file: Path) -> Iterator[Path]:
    """The C sources of the model that this core runs, each in the folder or the package of its target."""
    return (path for path in _sources(engine, model_file) if _is_export(path))


def other_sources(engines: Sequence[Engine], model_file: Path) -> list[str]:
    """The C sources there that edgernn has not written, with their folders."""
    every = (path for one in engines if isinstance(one, EmulatedEngine) for path in _sources(one, model_file))
    others = (path for path in dict.fromkeys(every) if not path.stem.endswith("_test") and not _is_export(path))
    return [place(path) for path in others]


def place(path: Path) -> str:
    """A source's name with its folder's; in a package with both."""
    return "/".join(path.parts[-3 if path.parent.name == _PACKED else -2 :])


def source_text(path: Path) -> str:
    """The lines of a source or a header, whatever ends them. Raises ValueError for one that cannot be read."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path}: not a regular file")
    return read_bytes(path).decode(errors="replace").replace("\r\n", "\n")


def source_problem(engine: EmulatedEngine, model: QuantizedModel, path: Path) -> str | None:
    """What is wrong with the source at this path or a header of it; None when all are this model's export.

    Raises ValueError or OSError for one that cannot be read.
    """
    headers = _headers(path) or [path.with_suffix(".h")]
    files = {one: source_text(one) for one in (path, *headers)}
    header = files[headers[0]]
    target = _macro(header, "TARGET")
    if target not in engine.targets:
        return f"{path.stem}.h is no header of an export for {' or '.join(engine.targets)}; export it anew"
    fresh = engine.sources(model, path.stem, target)
    ours = fresh[f"{path.stem}.h"]
    if _macro(header, "MODEL_HASH") != _macro(ours, "MODEL_HASH"):
        return f"{path.name} is of another model; export it anew"
    if _macro(header, "EDGERNN_VERSION") != _macro(ours, "EDGERNN_VERSION"):
        return f"{path.name} was written by edgernn {_macro(header, 'EDGERNN_VERSION')}; export it anew"
    for one, text in files.items():
        if text != fresh[one.name]:
            return f"{one.name} was altered: {_first_change(text, fresh[one.name])}"
    return None


def _sources(engine: EmulatedEngine, model_file: Path) -> Iterator[Path]:
    for folder in engine.folders(model_file):
        yield from sorted(folder.glob("*.c"))
        for package in engine.packages:
            yield from sorted(folder.with_name(f"{folder.name}_{package}").glob(f"{_PACKED}/*.c"))


def _headers(path: Path) -> list[Path]:
    """The headers that a source can have: beside it, or in a package's folder for them. A compiler takes the first."""
    name = f"{path.stem}.h"
    found = [path.with_name(name), *([path.parents[1] / "include" / name] if path.parent.name == _PACKED else [])]
    return [one for one in found if one.exists()]


def _is_export(path: Path) -> bool:
    """Whether the source or a header of it says so; or cannot be read, which is to be told."""
    try:
        return any(_MARK.search(source_text(one)) for one in (*_headers(path), path) if one.exists())
    except (ValueError, OSError):
        return True


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
    name = next(names, None)
    return f"line {number + 1}" + (f", in {name}" if name else "")
