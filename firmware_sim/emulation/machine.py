"""A running QEMU: it is asked over pipes and answers within a time, and ends with the object that holds it."""

import contextlib
import json
import os
import select
import socket
import struct
import subprocess
import tempfile
import time
import weakref
from typing import IO, Final, NamedTuple

from .build import Firmware
from .cores import check
from .faults import registers

_HEADER: Final = struct.Struct("<3I")
_PATIENCE: Final = 10.0  # seconds in which QEMU must end by itself, or answer its monitor
_QUIET: Final = ("-display", "none", "-serial", "none", "-parallel", "none", "-net", "none")
_SEMIHOSTING: Final = ("-semihosting-config", "enable=on,target=native")


class Answer(NamedTuple):
    status: int
    value: int
    payload: bytes


class Machine:
    """QEMU with a firmware in it, in a process of its own.

    plugin: what follows -plugin. Raises ValueError when QEMU is missing, RuntimeError when it cannot be started.
    """

    def __init__(self, firmware: Firmware, plugin: str | None = None) -> None:
        self.firmware, self.core = firmware, firmware.core
        check(f"emulating {self.core.name}", (self.core.emulator,))
        with contextlib.ExitStack() as stack:
            errors = stack.enter_context(tempfile.TemporaryFile())
            monitor, theirs = (stack.enter_context(one) for one in socket.socketpair())
            image = stack.enter_context(tempfile.TemporaryFile())  # without a name: nothing is left, however this ends
            image.write(firmware.content)
            image.flush()
            command = self._command(image.fileno(), theirs.fileno(), plugin)
            child = _start(command, errors, [image.fileno(), theirs.fileno()])
            for one in (image, theirs):
                one.close()
            stack.callback(_end, child, os.getpid())
            self._errors, self._monitor, self._child, self._owner = errors, monitor, child, os.getpid()
            self._end = weakref.finalize(self, stack.pop_all().close)

    def _command(self, image: int, monitor: int, plugin: str | None) -> list[str]:
        chardev = ("-chardev", f"socket,id=monitor,fd={monitor}", "-mon", "chardev=monitor,mode=control")
        loaded = () if plugin is None else ("-plugin", plugin)
        core = self.core
        return [core.emulator, *core.machine, *_QUIET, *_SEMIHOSTING, *chardev, *loaded, "-kernel", f"/dev/fd/{image}"]

    def ask(self, message: bytes, seconds: float) -> Answer:
        """The answer to a message. Raises RuntimeError, with QEMU's registers, when it ends or takes longer: it is
        ended then."""
        if not self._end.alive or self._owner != os.getpid():  # a fork has no emulator of its own
            raise RuntimeError(f"{self.core.name}: the emulator has ended; open the model again")
        deadline = time.monotonic() + seconds
        try:
            self._write(message, deadline)
            status, value, size = _HEADER.unpack(self._read(_HEADER.size, deadline))
            return Answer(status, value, self._read(size, deadline))
        except TimeoutError:
            problem = f"no answer within {seconds:g} s{registers(self.firmware, self._registers())}"
        except EOFError:
            problem = self._fate()
        except BaseException:  # interrupted in the middle of a message
            self._end()
            raise
        self._end()
        raise RuntimeError(f"{self.core.name}: {problem}")

    def finish(self) -> None:
        """Close its input and let it end by itself, so that a plugin can write what it has found."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(_PATIENCE)
        self.close()

    def close(self) -> None:
        """End it."""
        self._end()

    def _write(self, message: bytes, deadline: float) -> None:
        assert self._child.stdin is not None
        view, stdin = memoryview(message), self._child.stdin.fileno()
        while view:
            _wait(stdin, select.POLLOUT, deadline)
            try:
                view = view[os.write(stdin, view) :]
            except BlockingIOError:
                continue
            except OSError:  # it has ended; its answer, or how it ended, says more
                return

    def _read(self, size: int, deadline: float) -> bytes:
        assert self._child.stdout is not None
        stdout = self._child.stdout.fileno()
        data = bytearray()
        while len(data) < size:
            _wait(stdout, select.POLLIN, deadline)
            found = os.read(stdout, size - len(data))
            if not found:
                raise EOFError
            data += found
        return bytes(data)

    def _registers(self) -> str:
        """The registers of the core, as QEMU shows them; what it cannot tell is missing."""
        self._monitor.settimeout(_PATIENCE)
        try:
            with self._monitor.makefile("rwb") as stream:
                for command in ({"execute": "qmp_capabilities"}, _INFO_REGISTERS):
                    stream.write(json.dumps(command).encode() + b"\n")
                    stream.flush()
                for line in stream:
                    answer = json.loads(line).get("return")
                    if isinstance(answer, str):
                        return answer
        except (OSError, ValueError):
            pass
        return ""

    def _fate(self) -> str:
        """How QEMU ended, with what it wrote about that."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(_PATIENCE)
        self._errors.seek(0)
        said = registers(self.firmware, self._errors.read().decode(errors="replace"))
        return f"{self.core.emulator} ended with {self._child.poll()} and no answer{said}"


_INFO_REGISTERS: Final = {"execute": "human-monitor-command", "arguments": {"command-line": "info registers"}}


def _start(command: list[str], errors: IO[bytes], inherited: list[int]) -> "subprocess.Popen[bytes]":
    pipe = subprocess.PIPE
    try:
        child = subprocess.Popen(command, bufsize=0, stdin=pipe, stdout=pipe, stderr=errors, pass_fds=inherited)
    except OSError as error:
        raise RuntimeError(f"cannot run {command[0]}: {error.strerror or error}") from None
    assert child.stdin is not None
    os.set_blocking(child.stdin.fileno(), False)
    return child


def _end(child: "subprocess.Popen[bytes]", owner: int) -> None:
    if owner == os.getpid():
        child.kill()
        child.wait()
    else:
        child.returncode = 0  # it is not this process's to wait for
    for pipe in (child.stdin, child.stdout):
        assert pipe is not None
        with contextlib.suppress(OSError):
            pipe.close()


def _wait(file: int, event: int, deadline: float) -> None:
    poll = select.poll()
    poll.register(file, event)
    if not poll.poll(1000 * max(0.0, deadline - time.monotonic())):
        raise TimeoutError
