"""Functions that the SIMD room emits, as LLVM compiles them for aarch64, in a program without a libc that QEMU runs."""

import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import llvmlite.binding as llvm
import llvmlite.ir as ir
import numpy as np

from edgernn.firmware_sim.simd._form import Form
from edgernn.firmware_sim.simd._vector import I64, Builder, Value
from edgernn.qmodel import IntArray

INSTALL: Final = "apt install gcc-aarch64-linux-gnu qemu-user"
TRIPLE: Final = "aarch64-unknown-linux-gnu"
_ARGUMENTS: Final = 24
_CALLS: Final = 4096
_MEMORY: Final = 1 << 26  # bytes

_DRIVER: Final = """
typedef void function(const long *);
{declarations}
static function *const functions[] = {{ {names} }};
static long header[2], calls[{calls}][1 + {arguments}];
__attribute__((aligned(64))) unsigned char memory[{memory}];
__asm__(".globl _start\\n_start:\\nbl main\\nmov x8, #93\\nsvc #0\\n"); /* exit */
static void transfer(long which, long file, char *data, long bytes) {{ /* 63 is read, 64 is write */
  while (bytes > 0) {{
    register long number __asm__("x8") = which, count __asm__("x0") = file, size __asm__("x2") = bytes;
    register char *at __asm__("x1") = data;
    __asm__ volatile("svc #0" : "+r"(count) : "r"(number), "r"(at), "r"(size) : "memory");
    if (count <= 0) __builtin_trap();
    data += count;
    bytes -= count;
  }}
}}
int main(void) {{
  transfer(63, 0, (char *)header, sizeof header);
  transfer(63, 0, (char *)calls, header[0] * (long)sizeof *calls);
  transfer(63, 0, (char *)memory, header[1]);
  for (long n = 0; n < header[0]; n++) functions[calls[n][0]](calls[n] + 1);
  transfer(64, 1, (char *)memory, header[1]);
  return 0;
}}
"""

Argument = Callable[[], Value]  # gives the next one of a call, an i64
Emit = Callable[[Form, Builder, Argument], None]


class Call(NamedTuple):
    function: str
    arguments: Sequence[int]


class Memory:
    """Arrays in the program's memory, each from a cache line on."""

    def __init__(self, start: int) -> None:
        self._start, self._bytes = start, bytearray()
        self._arrays: dict[int, np.ndarray] = {}

    def put(self, array: np.ndarray) -> int:
        """Returns its address."""
        address = self._start + len(self._bytes)
        content = np.ascontiguousarray(array).tobytes()
        self._bytes += content + bytes(-len(content) % 64 + 64)  # a gap, which out-of-bounds writes would change
        self._arrays[address] = np.array(array)
        return address

    def get(self, address: int) -> IntArray:
        """The array that was put there, as it is now."""
        like, at = self._arrays[address], address - self._start
        return np.frombuffer(bytes(self._bytes[at : at + like.nbytes]), like.dtype).reshape(like.shape)

    def content(self) -> bytes:
        assert len(self._bytes) <= _MEMORY
        return bytes(self._bytes)

    def replace(self, content: bytes) -> None:
        assert len(content) == len(self._bytes)
        self._bytes = bytearray(content)


class Program:
    """One function for each name, emitted in `form` for the core."""

    def __init__(self, folder: Path, core: str, form: Form, functions: Mapping[str, Emit]) -> None:
        self._core, self._names = core, list(functions)
        machine, module = _compiled(core, form, functions)
        self.assembly = machine.emit_assembly(module)
        (folder / "room.o").write_bytes(machine.emit_object(module))
        (folder / "driver.c").write_text(
            _DRIVER.format(
                declarations="\n".join(f"extern function {name};" for name in functions),
                names=", ".join(functions),
                calls=_CALLS,
                arguments=_ARGUMENTS,
                memory=_MEMORY,
            )
        )
        self._path = folder / "program"
        flags = ["-O1", "-Wall", "-Werror", "-ffreestanding", "-nostdlib", "-static", "-fno-builtin"]
        _run(["aarch64-linux-gnu-gcc", *flags, "driver.c", "room.o", "-o", "program"], folder)
        symbols = _run(["aarch64-linux-gnu-nm", "program"], folder).decode()
        (self._start,) = (int(line.split()[0], 16) for line in symbols.splitlines() if line.endswith(" memory"))

    def memory(self) -> Memory:
        return Memory(self._start)

    def run(self, calls: Sequence[Call], memory: Memory) -> None:
        """Make the calls, one after the other, on the memory."""
        table = np.zeros((len(calls), 1 + _ARGUMENTS), np.int64)
        for row, call in zip(table, calls, strict=True):
            row[0] = self._names.index(call.function)
            row[1 : 1 + len(call.arguments)] = call.arguments
        content = memory.content()
        header = np.array([len(calls), len(content)], np.int64)
        given = header.tobytes() + table.tobytes() + content
        memory.replace(_run(["qemu-aarch64", "-cpu", self._core, str(self._path)], self._path.parent, given))

    def loops(self, function: str) -> list[list[str]]:
        """The instructions of every innermost loop of a function: from a label to the branch back to it."""
        body = self.assembly.split(f"\n{function}:", 1)[1].split("\n.Lfunc_end", 1)[0]
        found = []
        for label, block in re.findall(r"^(\.LBB\w+):(.*?)(?=^\.LBB|\Z)", body, re.MULTILINE | re.DOTALL):
            lines = [line.strip() for line in block.splitlines() if re.match(r"\t[a-z]", line)]
            back = [n for n, line in enumerate(lines) if line.startswith("b.") and line.endswith(label)]
            if back:
                found.append([line.replace("\t", " ") for line in lines[: back[0] + 1]])
        return found


def _run(command: list[str], folder: Path, given: bytes = b"") -> bytes:
    try:
        result = subprocess.run(command, cwd=folder, input=given, capture_output=True, timeout=120)
    except FileNotFoundError as error:
        raise AssertionError(f"{error.filename} is missing: {INSTALL}") from None
    assert result.returncode == 0, f"{command}: {result.returncode}, {result.stderr.decode()}"
    return result.stdout


def _compiled(core: str, form: Form, functions: Mapping[str, Emit]) -> tuple[Any, Any]:
    """LLVM's machine for the core, and the module of the functions, optimised as Numba has it done."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    target = llvm.Target.from_triple(TRIPLE)
    machine = target.create_target_machine(cpu=core, opt=3, reloc="static", codemodel="default")
    module = ir.Module()
    module.triple, module.data_layout = TRIPLE, str(machine.target_data)
    for name, emit in functions.items():
        emit_function(module, name, form, emit)
    parsed = llvm.parse_assembly(str(module))
    parsed.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    passes = llvm.create_pass_builder(machine, options)
    passes.getModulePassManager().run(parsed, passes)
    return machine, parsed


def emit_function(module: Any, name: str, form: Form, emit: Emit) -> None:
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [ir.PointerType(I64)]), name)
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    number = 0

    def argument() -> Value:
        nonlocal number
        number += 1
        return builder.load(builder.gep(function.args[0], [ir.Constant(I64, number - 1)]))

    emit(form, builder, argument)
    builder.ret_void()
