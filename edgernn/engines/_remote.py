"""The other end of `_worker.py`: graphs in another process, used as if they were here."""

import atexit
import contextlib
import os
import signal
import subprocess
import tempfile
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any, Final

import numpy as np

from ._worker import Specs, Tensors, pack, read

SCRIPT: Final = Path(__file__).with_name("_worker.py")

_PATIENCE: Final = 5.0  # seconds in which a process that has closed its pipe must end by itself
_numbers: Final = count()  # of graphs; none is used twice


class Worker:
    """A process that runs graphs: started when it is first needed, and again when it has died.

    `command` starts it: a Python with `_worker.py` and the package of the runtime.
    """

    def __init__(self, title: str, command: Sequence[str]) -> None:
        self._title, self._command = title, tuple(command)
        self._process: _Process | None = None

    @property
    def version(self) -> str:
        """The runtime's version. Raises RuntimeError when it cannot be started."""
        return self._running().version

    def load(self, content: bytes, resolver: str) -> "RemoteGraph":
        """The file as a graph. Raises ValueError when the runtime refuses it, RuntimeError when the process fails."""
        return RemoteGraph(self._running(), content, resolver)

    def _running(self) -> "_Process":
        if self._process is None or not self._process.alive():
            self._process = _Process(self._title, self._command)
        return self._process


class RemoteGraph:
    """A graph in a worker. Raises RuntimeError when its process has ended: it must be loaded again then."""

    def __init__(self, process: "_Process", content: bytes, resolver: str) -> None:
        self._process, self._number = process, next(_numbers)
        fields = {"op": "load", "resolver": resolver, "graph": self._number}
        answer, _ = process.ask(fields, {"content": np.frombuffer(content, np.uint8)})
        if "error" in answer:
            raise ValueError(f"{process.title} refuses the file: {answer['error']}")
        self.inputs: Specs = {name: (tuple(shape), dtype) for name, (shape, dtype) in answer["inputs"].items()}
        self.outputs: list[str] = answer["outputs"]
        weakref.finalize(self, process.forgotten.append, self._number).atexit = False

    def __call__(self, feeds: Tensors) -> Tensors:
        return self._ask("run", feeds)

    def reset(self) -> None:
        self._ask("reset", {})

    def _ask(self, op: str, feeds: Tensors) -> Tensors:
        answer, results = self._process.ask({"op": op, "graph": self._number}, feeds)
        if "error" in answer:
            raise RuntimeError(f"{self._process.title} stopped: {answer['error']}")
        return results


class _Process:
    """A running worker. Whatever goes wrong with its messages ends it, and raises RuntimeError."""

    def __init__(self, title: str, command: Sequence[str]) -> None:
        self.title = title
        self.forgotten: deque[int] = deque()  # graphs that nobody holds any more; told with the next request
        self._lock = threading.Lock()
        self._owner = os.getpid()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed by _end)
        try:
            self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors)
        except OSError as error:
            self._errors.close()
            raise RuntimeError(f"{title}: cannot run {command[0]}: {error.strerror}") from None
        atexit.register(self._end)
        hello, _ = self._exchange([])
        self.version = str(hello.get("version"))

    def alive(self) -> bool:
        """Whether it can be asked; not so in a fork of the process that started it."""
        return self._owner == os.getpid() and self._child.poll() is None

    def ask(self, fields: dict[str, Any], arrays: Tensors) -> tuple[dict[str, Any], Tensors]:
        """What it answers. Raises ValueError for arrays that do not fit a message."""
        if not self.alive():
            raise RuntimeError(f"{self.title}: the process that held this model has ended; open the model again")
        with self._lock:
            forget = [self.forgotten.popleft() for _ in range(len(self.forgotten))]
            return self._exchange(pack({**fields, "forget": forget}, arrays))

    def _exchange(self, message: list[bytes]) -> tuple[dict[str, Any], Tensors]:
        stdin, stdout = self._child.stdin, self._child.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.writelines(message)
            stdin.flush()
            return read(stdout)  # type: ignore[arg-type]
        except (OSError, EOFError):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(_PATIENCE)
            why = f"its process {self._fate()}"
        except (ValueError, TypeError) as error:
            why = f"its process answered what is no message ({error})"
        except BaseException:  # interrupted in the middle of a message
            self._end()
            raise
        self._end()
        raise RuntimeError(f"{self.title}: {why}")

    def _fate(self) -> str:
        """How the process ended, with the last line that it wrote to its stderr."""
        code = self._child.poll()
        how = "closed its pipe" if code is None else f"ended with exit code {code}"
        if code is not None and code < 0:
            how = f"was ended by {next((one.name for one in signal.Signals if one == -code), f'signal {-code}')}"
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - 4096))
        lines = self._errors.read().decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f"{how}: {last}" if last else how

    def _end(self) -> None:
        atexit.unregister(self._end)
        if self._owner == os.getpid():
            self._child.kill()
            self._child.wait()
        else:
            self._child.returncode = 0  # it is not this process's to wait for
        for pipe in (self._child.stdin, self._child.stdout, self._errors):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]
