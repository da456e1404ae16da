"""kill -9 while training and exporting: whatever moment it comes at, every file is whole and `--resume` ends the same.

    python -m tests.soak_kills --kills 300 --seed 0

First every point of every write (the temporary file made, half written, written, on the disk, in its place; an old file
removed) is killed at, in a folder that is empty or holds the files of a former model, and in an export; then moments
are drawn at random, several in one training. The processes are forked from one that has imported everything.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgernn._files import read_tensors
from edgernn.train.checkpoint import FILE_FORMAT

from .forgery import Container

SCENARIOS: Final = ("train", "train over another model", "export")
FORMER: Final = ("--cell", "lstm", "--hidden", "3", "--epochs", "2", "--qat", "w8a16")
TRAINING: Final = ("--hidden", "4", "--epochs", "4", "--sparsity", "0.5", "--block", "element", "--noise", "0.1")

Snapshot = dict[str, bytes]


# ---- in the process that is killed -----------------------------------------------------------------------------------


class Points:
    """The points of every write below a folder, counted; at number `kill_at` (from 1) the process kills itself."""

    def __init__(self, folder: Path, kill_at: int) -> None:
        self.folder, self.kill_at, self.passed = str(folder), kill_at, 0
        self.descriptors: set[int] = set()
        self.make, self.open, self.sync = tempfile.mkstemp, os.fdopen, os.fsync

    def reach(self) -> None:
        self.passed += 1
        if self.passed == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def install(self) -> None:
        tempfile.mkstemp, os.fdopen, os.fsync = self._mkstemp, self._fdopen, self._fsync  # type: ignore[assignment]
        for name in ("replace", "unlink"):
            setattr(os, name, self._around(getattr(os, name)))

    def _mkstemp(self, *args: Any, **options: Any) -> tuple[int, str]:
        descriptor, path = self.make(*args, **options)
        if path.startswith(self.folder):
            self.descriptors.add(descriptor)
            self.reach()
        return descriptor, path

    def _fdopen(self, descriptor: int, *args: Any, **options: Any) -> Any:
        file = self.open(descriptor, *args, **options)
        return HalfWriter(file, self) if descriptor in self.descriptors else file

    def _fsync(self, descriptor: int) -> None:
        self.reach()
        self.sync(descriptor)
        self.reach()

    def _around(self, function: Any) -> Any:
        def call(*paths: Any, **options: Any) -> None:
            counted = str(paths[-1]).startswith(self.folder)
            if counted:
                self.reach()
            function(*paths, **options)
            if counted:
                self.reach()

        return call


class HalfWriter:
    """A file whose writes stop half-way for a moment."""

    def __init__(self, file: Any, points: Points) -> None:
        self.file, self.points = file, points

    def write(self, content: bytes) -> None:
        self.file.write(content[: len(content) // 2])
        self.file.flush()
        self.points.reach()
        self.file.write(content[len(content) // 2 :])

    def __enter__(self) -> "HalfWriter":
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def _work(argv: Sequence[str], folder: Path, kill_at: int, count: Path) -> None:
    """Run a command line; leave in `count` how many points it passed."""
    from tqdm import tqdm

    from edgernn.cli import main

    tqdm.set_lock(threading.RLock())  # its own is a semaphore, of which a killed process would leave complaints
    points = Points(folder, kill_at)
    points.install()
    code = main(argv)
    count.write_text(str(points.passed))
    sys.exit(code)


# ---- beside it -------------------------------------------------------------------------------------------------------


class Kills:
    """Trainings and exports of a small data set below `place`: unbroken ones, killed ones, and what these leave.

    Attributes: former: the files of a finished training of another model and its exports. trained, exported: those of
    the training that is killed. seconds: how long that takes unbroken. tally: counts of what happened.
    """

    def __init__(self, place: Path) -> None:
        self.place, self.folder = place, place / "run"
        self.context = get_context("forkserver")
        self.context.set_forkserver_preload(["torch._dynamo", "edgernn.train", "edgernn.export", "onnx"])
        self.tally = Counter[str]()
        _write_data(place / "data")
        self.former = self._finish({}, self.train(FORMER), self.export())
        started = time.monotonic()
        self.trained = self._finish({}, self.train(TRAINING))
        self.seconds = time.monotonic() - started
        self.exported = self._finish(self.trained, self.export())

    def train(self, options: Sequence[str] = TRAINING) -> list[str]:
        given = ["train", "--data", str(self.place / "data"), "--batch-size", "4", "--seed", "3", "-q"]
        return [*given, *options, "-o", str(self.folder)]

    def export(self) -> list[str]:
        return ["export", str(self.folder / "model.ernn"), "--form", "sequence,step,stream", "-q"]

    def start(self, argv: Sequence[str], kill_at: int = 0) -> BaseProcess:
        process = self.context.Process(target=_work, args=(argv, self.folder, kill_at, self.place / "count"))
        process.start()
        return process

    def run(self, argv: Sequence[str], kill_at: int = 0) -> int | None:
        """The exit code."""
        process = self.start(argv, kill_at)
        process.join()
        return process.exitcode

    def put(self, files: Snapshot) -> None:
        """Let the folder hold exactly these files."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        for name, content in files.items():
            (self.folder / name).write_bytes(content)

    def found(self) -> Snapshot:
        return {path.name: path.read_bytes() for path in self.folder.iterdir() if not path.name.startswith(".")}

    def leftovers(self) -> list[Path]:
        return [path for path in self.folder.iterdir() if path.name.startswith(".")]

    def _finish(self, before: Snapshot, *commands: Sequence[str]) -> Snapshot:
        self.put(before)
        for argv in commands:
            assert self.run(argv) == 0, argv
        return self.found()

    # ---- where to kill -----------------------------------------------------------------------------------------------

    def scenario(self, name: str) -> tuple[list[str], Snapshot]:
        """The command, and what the folder holds before. An export finds the exports of another model."""
        if name == "export":
            return self.export(), self.former | self.trained
        return self.train(), self.former if name == "train over another model" else {}

    def points(self, name: str) -> int:
        """How many points the unbroken command passes."""
        argv, before = self.scenario(name)
        self._finish(before, argv)
        return int((self.place / "count").read_text())

    def kill_at_point(self, name: str, point: int) -> None:
        """Kill at one point, look at what there is, and go on to the end."""
        argv, before = self.scenario(name)
        self.put(before)
        code = self.run(argv, point)
        assert code == -signal.SIGKILL, f"point {point} was not reached, the exit code is {code}"
        self.look(name, before)
        self.go_on(name, before)

    def kill_at_random(self, rng: np.random.Generator) -> None:
        """Kill a training, and its resumptions, at one to three moments; look after each, and go on to the end."""
        name = SCENARIOS[int(rng.integers(2))]
        argv, before = self.scenario(name)
        self.put(before)
        for _ in range(int(rng.integers(1, 4))):
            process = self.start(argv)
            process.join(float(rng.uniform(0, self.seconds)))
            process.kill()
            process.join()
            self.look(name, before)
            if self.found().get("checkpoint.safetensors") != before.get("checkpoint.safetensors"):
                argv = [*self.train(), "--resume"]
        self.go_on(name, before)

    # ---- what must hold then -----------------------------------------------------------------------------------------

    def look(self, name: str, before: Snapshot) -> None:
        """Every file is whole and the old or the new one; a training leaves files of one model, old or new."""
        found = self.found()
        self.tally["kills"] += 1
        self.tally["leftovers"] += len(self.leftovers())
        for file, content in models(found).items():
            assert content in (before.get(file), self.exported[file]), f"{file} is neither the old nor the new one"
        if name != "export":
            one = any(models(found).items() <= known.items() for known in (before, self.trained))
            assert one, f"the old and the new model are mixed: {', '.join(sorted(found))}"
        if "checkpoint.safetensors" in found:
            read_tensors(self.folder / "checkpoint.safetensors", FILE_FORMAT)
        if "metrics.json" in found:
            assert timeless("metrics.json", found) in [timeless("metrics.json", old) for old in (before, self.trained)]

    def go_on(self, name: str, before: Snapshot) -> None:
        """Export again, or resume (before the first checkpoint: train anew): it ends as if unbroken, and tidily."""
        for left in self.leftovers():
            os.utime(left, (0, 0))  # as if the kill were long ago
        if name == "export":
            assert self.run(self.export()) == 0
            assert models(self.found()) == models(self.exported)
        else:
            begun = self.found().get("checkpoint.safetensors") != before.get("checkpoint.safetensors")
            self.tally["resumed" if begun else "trained anew"] += 1
            assert self.run([*self.train(), "--resume"] if begun else self.train()) == 0
            found = self.found()
            assert sorted(found) == sorted(self.trained)
            for file in found:
                assert timeless(file, found) == timeless(file, self.trained), f"{file} is not that of an unbroken run"
        assert self.leftovers() == []


def models(files: Snapshot) -> Snapshot:
    """The model's files among those of a folder: all but the checkpoint and the metrics."""
    return {name: content for name, content in files.items() if name.startswith("model")}


def timeless(name: str, files: Snapshot) -> Any:
    """A file's content without the seconds that training took."""
    content = files.get(name)
    if name == "metrics.json" and content is not None:
        return _without_seconds(json.loads(content))
    if name != "checkpoint.safetensors" or content is None:
        return content
    file = Container.parse(content)
    return _without_seconds(file.header), {tensor: array.tobytes() for tensor, array in file.tensors.items()}


def _without_seconds(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _without_seconds(value) for key, value in tree.items() if key != "seconds"}
    return [_without_seconds(value) for value in tree] if isinstance(tree, list) else tree


def _write_data(folder: Path) -> None:
    """Two classes of short sequences, one CSV file each."""
    rng = np.random.default_rng(1)
    for label, level in (("low", -0.5), ("high", 0.5)):
        (folder / label).mkdir(parents=True)
        for index in range(10):
            x = rng.normal(level, 1.0, (int(rng.integers(3, 9)), 2))
            np.savetxt(folder / label / f"{index}.csv", x, delimiter=",", fmt="%.4f")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300, metavar="N", help="at least; every point is one")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the random moments")
    args = parser.parse_args()
    started, failures = time.monotonic(), 0
    with tempfile.TemporaryDirectory() as place:
        kills = Kills(Path(place))
        cases = [(name, point) for name in SCENARIOS for point in range(1, kills.points(name) + 1)]
        print(f"{len(cases)} points", flush=True)
        while cases or kills.tally["kills"] < args.kills:
            case = cases.pop(0) if cases else ("random", args.seed + kills.tally["random"])
            try:
                if case[0] == "random":
                    kills.tally["random"] += 1
                    kills.kill_at_random(np.random.default_rng(case[1]))
                else:
                    kills.kill_at_point(*case)
            except (AssertionError, ValueError) as error:  # wrong content, or a file that cannot be read
                failures += 1
                print(f"{case[0]}, {case[1]}: {error}", flush=True)
        print(", ".join(f"{count} {name}" for name, count in sorted(kills.tally.items())))
    print(f"{failures} failures, {time.monotonic() - started:.0f} s")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
