"""The shape of the package: who imports whom, what `import edgernn` costs, and that a built wheel holds the tree."""

import ast
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[1]
LINKS = ("export", "firmware_sim")  # folders at the top that are edgernn.export and edgernn.firmware_sim
PACKAGE_FOLDERS = ("edgernn", *LINKS)

FOUNDATION = {"fixedpoint", "qmodel", "floatmodel", "_files", "_ernn", "_sigmoid_table", "_tflite_lstm"}
RUNTIMES = {"ai_edge_litert", "onnx", "onnxruntime", "tflite_micro", "tflite_runtime", "torch"}
TORCH_ROOMS = {"nn", "quantize", "prune", "train"}


@dataclass(frozen=True)
class Rule:
    """What a room may import: other rooms of edgernn, and packages from outside (beside the standard library)."""

    rooms: set[str]
    outside: set[str]


RULES = {
    "_sigmoid_table": Rule(set(), set()),
    "fixedpoint": Rule({"_sigmoid_table"}, {"numpy"}),
    "_tflite_lstm": Rule({"fixedpoint"}, {"numpy"}),
    "_files": Rule(set(), {"numpy", "safetensors"}),
    "_layers": Rule({"fixedpoint", "_tflite_lstm"}, {"numpy"}),
    "_interface": Rule({"_layers", "qmodel"}, {"numpy"}),
    "qmodel": Rule({"fixedpoint", "_interface", "_layers", "_ernn"}, {"numpy"}),
    "_ernn": Rule({"fixedpoint", "qmodel", "_files"}, {"numpy"}),
    "floatmodel": Rule({"qmodel", "_files"}, {"numpy"}),
    "data": Rule(set(), {"numpy"}),
    "metrics": Rule(FOUNDATION | {"data", "firmware_sim"}, {"numpy"}),
    "export": Rule(FOUNDATION, {"numpy", "flatbuffers", "onnx"}),
    "firmware_sim": Rule(FOUNDATION | {"_interface", "_layers"}, {"numpy", "numba", "llvmlite"}),
    "nn": Rule(FOUNDATION | {"quantize"}, {"numpy", "torch"}),
    "quantize": Rule(FOUNDATION | {"nn", "firmware_sim"}, {"numpy", "torch", "numba", "llvmlite"}),
    "prune": Rule({"nn"}, {"numpy", "torch"}),
    "train": Rule(FOUNDATION | {"nn", "quantize", "prune", "data", "metrics"}, {"numpy", "torch", "tqdm"}),
    "_artifacts": Rule({"_files", "export"}, {"numpy", "onnx"}),
    "_adversarial": Rule({"fixedpoint", "_tflite_lstm", "qmodel"}, {"numpy"}),
    "engines": Rule(FOUNDATION | {"export", "firmware_sim", "_artifacts"}, {"numpy"} | RUNTIMES - {"torch"}),
    "_changes": Rule({"_artifacts", "qmodel"}, {"numpy"}),
    "_places": Rule({"engines", "qmodel"}, {"numpy"}),
    "_targets": Rule({"_adversarial", "_places", "_sources", "engines", "qmodel"}, {"numpy"}),
    "verify": Rule(
        {"_adversarial", "_artifacts", "_changes", "_files", "_places", "_sources", "_targets", "engines", "qmodel"}
        | {"_tflite_lstm"},
        {"numpy"},
    ),
    "_sources": Rule({"_artifacts", "_files", "engines", "qmodel"}, {"numpy"}),
    "_exported": Rule({"_artifacts", "_files", "_interface", "fixedpoint"}, {"numpy"}),
    "_opening": Rule({"_exported", "_files", "_interface", "engines", "firmware_sim", "qmodel"}, {"numpy"}),
    "_predictor": Rule({"_interface", "_opening", "fixedpoint"}, {"numpy"}),
    "simulate": Rule({"export", "firmware_sim", "qmodel"}, {"numpy"}),
}


@dataclass(frozen=True)
class Import:
    """One import of one module; `lazy` when it is not executed by importing the file."""

    file: str
    line: int
    target: str
    absolute: bool
    lazy: bool

    @property
    def room(self) -> str | None:
        """The room of edgernn that is imported: None for the outside, "" for edgernn itself."""
        top, *rest = self.target.split(".")
        return (rest[0] if rest else "") if top == "edgernn" else None

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"


def package_files() -> Iterator[tuple[Path, tuple[str, ...]]]:
    """(file, module path): every Python file of the package, each once, e.g. ("edgernn", "export", "onnx", "cells")."""
    for folder in PACKAGE_FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            if not any((ROOT / Path(*parts[:depth])).is_symlink() for depth in range(1, len(parts))):
                yield path, parts if folder == "edgernn" else ("edgernn", *parts)


FILES = dict(package_files())
MODULES = {module[:-1] if module[-1] == "__init__" else module for module in FILES.values()}


def imports_of(path: Path, module: tuple[str, ...]) -> Iterator[Import]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    immediate = set(executed_at_import(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = (*module[: -node.level], *(node.module or "").split(".")) if node.level else (node.module or "",)
            base = tuple(part for part in base if part)
            targets = [".".join((*base, a.name) if (*base, a.name) in MODULES else base) for a in node.names]
        else:
            continue
        absolute = not getattr(node, "level", 0)
        name = str(path.relative_to(ROOT))
        yield from (Import(name, node.lineno, target, absolute, node not in immediate) for target in targets)


def executed_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when the file is imported: not those in functions, nor under TYPE_CHECKING."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            continue
        yield child
        yield from executed_at_import(child)


def room_of(module: tuple[str, ...]) -> str:
    return "" if module[1] == "__init__" else module[1]


IMPORTS = [(room_of(module), found) for path, module in FILES.items() for found in imports_of(path, module)]


# ---- who imports whom ------------------------------------------------------------------------------------------------


def test_the_imports_are_found() -> None:
    """The parser itself, on lines that are there: relative, of a module by `from ..`, lazy."""
    found = {(room, one.target, one.lazy) for room, one in IMPORTS}
    assert ("qmodel", "edgernn.fixedpoint", False) in found
    assert ("qmodel", "edgernn._ernn", True) in found
    assert ("firmware_sim", "numba.extending", False) in found
    assert ("", "edgernn.nn", True) in found
    assert ("data", "edgernn.data.dataset", False) in found


@pytest.mark.parametrize("room", sorted({room_of(module) for module in FILES.values()} & set(RULES)))
def test_rooms_import_what_they_may(room: str) -> None:
    rule = RULES[room]
    for importer, one in IMPORTS:
        if importer != room:
            continue
        if one.room is None:
            top = one.target.split(".")[0]
            assert top in rule.outside | sys.stdlib_module_names, f"{one.place}: {room} must not import {top}"
        else:
            assert one.room in rule.rooms | {room, ""}, f"{one.place}: {room} must not import edgernn.{one.room}"


def test_every_sub_package_has_a_rule() -> None:
    rooms = {module[1] for module in FILES.values() if len(module) > 2}
    assert rooms - set(RULES) == {"cli"} & rooms, "write down what the new room may import"


def test_nothing_imports_the_command_line() -> None:
    assert [one.place for room, one in IMPORTS if one.room == "cli" and room != "cli"] == []


def test_heavy_packages_are_imported_lazily() -> None:
    """torch at the top of a file only in the rooms about it, the runtimes nowhere but onnx in its exporter."""
    for room, one in IMPORTS:
        top = one.target.split(".")[0]
        if one.lazy or top not in RUNTIMES:
            continue
        at_home = room in TORCH_ROOMS if top == "torch" else (one.file.startswith("export/onnx/") and top == "onnx")
        assert at_home, f"{one.place}: import {top} inside the function that needs it"
    for room, one in IMPORTS:
        if room not in TORCH_ROOMS and one.room in TORCH_ROOMS:
            assert one.lazy, (
                f"{one.place}: edgernn.{one.room} imports torch; import it inside the function that needs it"
            )


def test_the_worker_needs_numpy_alone() -> None:
    """It is run by its path, in a Python that has a runtime and no edgernn."""
    path = ROOT / "edgernn" / "engines" / "_worker.py"
    found = {one.target.split(".")[0] for one in imports_of(path, FILES[path]) if not one.lazy}
    assert found - sys.stdlib_module_names == {"numpy"}
    assert all(one.absolute for one in imports_of(path, FILES[path]))


def test_linked_folders_import_relatively() -> None:
    """`import export` from the repository's root must fail at once, not make a second copy of every module."""
    for _, one in IMPORTS:
        if one.absolute and one.file.startswith(tuple(f"{link}/" for link in LINKS)):
            assert one.room is None, f"{one.place}: write `from ..` instead of `from edgernn`"
    for path in [*FILES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "examples").rglob("*.py")]:
        for one in imports_of(path, FILES.get(path, (path.parent.name, path.stem))):
            assert not (one.absolute and one.target.split(".")[0] in LINKS), f"{one.place}: import it from edgernn"


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("edgernn", {"torch", "numba", "numpy", *RUNTIMES}),
        ("edgernn.data", {"torch", "numba", *RUNTIMES}),
        ("edgernn.cli", {"torch", "numba", "numpy", *RUNTIMES}),
        ("edgernn.qmodel", RUNTIMES | {"numba"}),
        ("edgernn.engines", RUNTIMES | {"numba"}),
        ("edgernn.metrics", RUNTIMES | {"numba"}),
        ("edgernn.verify", RUNTIMES | {"numba"}),
        ("edgernn.benchmark", RUNTIMES),
        ("edgernn.export", RUNTIMES | {"edgernn.firmware_sim"}),
        ("edgernn.firmware_sim._inference", RUNTIMES | {"edgernn.export"}),
        ("edgernn.firmware_sim.native", RUNTIMES | {"edgernn.export", "numba"}),
    ],
)
def test_importing_loads_nothing_heavy(module: str, absent: set[str]) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert absent & set(result.stdout.split()) == set()


# ---- what is shipped -------------------------------------------------------------------------------------------------


def test_the_linked_folders_are_symbolic_links() -> None:
    for link in LINKS:
        path = ROOT / "edgernn" / link
        assert path.is_symlink(), f"{path} must be a symbolic link (on Windows: git config core.symlinks true)"
        assert os.readlink(path) == f"../{link}"


def test_every_sub_package_is_listed() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted({".".join(module[:-1]) for module in FILES.values()})


def working_tree() -> list[str]:
    """The repository's files as they would be committed, relative to ROOT: tracked or new, not ignored, existing."""
    command = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    return [name for name in sorted(set(listed)) if name and ((ROOT / name).is_symlink() or (ROOT / name).is_file())]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], list[str]]:
    """(names in the sdist, below its top folder; names in the wheel that was built from that sdist)."""
    copy = tmp_path_factory.mktemp("build") / "tree"
    for name in working_tree():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy / name, follow_symlinks=False)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", "dist"]
    result = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    (sdist,), (wheel,) = (copy / "dist").glob("*.tar.gz"), (copy / "dist").glob("*.whl")
    with tarfile.open(sdist) as archive:
        source = ["/".join(PurePosixPath(entry.name).parts[1:]) for entry in archive if not entry.isdir()]
    with zipfile.ZipFile(wheel) as archive_of_wheel:
        return source, archive_of_wheel.namelist()


def in_package(name: str) -> bool:
    return name.split("/")[0] in PACKAGE_FOLDERS and not (ROOT / name).is_symlink() and not name.endswith(".md")


def test_the_wheel_holds_the_tree_and_nothing_else(built: tuple[list[str], list[str]]) -> None:
    wheel = [name for name in built[1] if ".dist-info/" not in name]
    expected = {
        name if name.startswith("edgernn/") else f"edgernn/{name}" for name in working_tree() if in_package(name)
    }
    assert len(wheel) == len(set(wheel))
    assert set(wheel) == expected
    assert {"edgernn/py.typed", "edgernn/data/vowels.npz", "edgernn/export/__init__.py"} <= expected


def test_the_sdist_holds_the_linked_code_once(built: tuple[list[str], list[str]]) -> None:
    source = built[0]
    assert len(source) == len(set(source))
    assert [name for name in source if name.startswith(tuple(f"edgernn/{link}" for link in LINKS))] == []
    assert {name for name in working_tree() if in_package(name)} <= set(source)
    assert {"pyproject.toml", "LICENSE"} <= set(source)


def test_the_wheel_carries_its_licence(built: tuple[list[str], list[str]]) -> None:
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in built[1])
