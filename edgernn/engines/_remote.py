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
from typing import IO, Any, Final

import numpy as np

from ._graphs import fork_lock
from ._worker import Specs, Tensors, pack, read

SCRIPT: Final = Path(__file__).with_name("_worker.py")

_PATIENCE: Final = 5.0  # seconds in which a process that has closed its pipe must end by itself
_START: Final = 60.0  # seconds in which it must have loaded its runtime
_numbers: Final = count()  # of graphs; none is used twice
_starting: Final = fork_lock()


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
        with _starting:
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
        self._errors, self._child = _start(title, command)
        atexit.register(self._end)
        limit = threading.Timer(_START, self._child.kill)
        limit.start()
        try:
            hello, _ = self._exchange([])
        finally:
            limit.cancel()
        self.version = str(hello.get("version"))

    def alive(self) -> bool:
        """Whether it can be asked; not so in a fork of the process that started it."""
        return self._owner == os.getpid() and self._child.poll() is None

    def ask(self, fields: dict[str, Any], arrays: Tensors) -> tuple[dict[str, Any], Tensors]:
        """What it answers. Raises ValueError for arrays that do not fit a message."""
        self._check_alive()  # before the lock as well: in a fork it may be held for ever
        with self._lock:
            self._check_alive()
            forget = [self.forgotten[index] for index in range(len(self.forgotten))]
            message = pack({**fields, "forget": forget}, arrays)
            for _ in forget:
                self.forgotten.popleft()
            return self._exchange(message)

    def _check_alive(self) -> None:
        if self.alive():
            return
        ours = self._owner == os.getpid() and not self._errors.closed
        why = self._fate() if ours else "has ended"
        raise RuntimeError(f"{self.title}: the process that held this model {why}; open the model again")

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
        last = next((line.strip() for line in reversed(lines) if line.strip() and not line.startswith("INFO:")), "")
        return f"{how}: {last}" if last else how

    def _end(self) -> None:
        atexit.unregister(self._end)
        pipes: list[Any] = [self._child.stdin, self._child.stdout, self._errors]
        if self._owner == os.getpid():
            self._child.kill()
            self._child.wait()
        else:
            self._child.returncode = 0  # it is not this process's to wait for
            pipes = [pipe.raw for pipe in pipes]  # what is in their buffers, and their locks, are the other process's
        for pipe in pipes:
            with contextlib.suppress(OSError):
                pipe.close()


def _start(title: str, command: Sequence[str]) -> tuple[IO[bytes], subprocess.Popen[bytes]]:
    """(the file that takes its stderr, the process). Raises RuntimeError."""
    try:
        with contextlib.ExitStack() as stack:
            errors = stack.enter_context(tempfile.TemporaryFile())
            child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
            stack.pop_all()  # both go on, until _end
            return errors, child
    except OSError as error:
        raise RuntimeError(f"{title}: cannot run {command[0]}: {error.strerror or error}") from None
