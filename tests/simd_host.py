"""Functions that the SIMD room emits, compiled for this processor or an older one of its family and run right here."""

import ctypes
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import llvmlite.binding as llvm
import llvmlite.ir as ir
import numpy as np

from edgernn.firmware_sim.simd import _host
from edgernn.firmware_sim.simd._form import Form

from .arm.program import Call, Emit, Memory, emit_function

_PROCESSORS: Final = {  # the oldest that have a form's instructions; others get the host's
    "generic": "x86-64",
    "avx2": "haswell",
    "avx512": "cascadelake",
    "avx512vbmi": "icelake-client",
}
_ARGUMENTS: Final = 64


def host_forms() -> dict[str, Form]:
    """All that this processor can run, by name: those of its instructions, and LLVM's operations alone."""
    forms: dict[str, Form] = {"generic": Form()}
    for form, (machine, features) in _host._NEEDS.items():
        if machine == _host._machine() and features <= _host.target_features():
            forms[form.name] = form()
    return forms


class HostProgram:
    """What `arm.program.Program` is, without an emulator."""

    def __init__(self, folder: Path, core: str, form: Form, functions: Mapping[str, Emit]) -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        target = llvm.Target.from_default_triple()
        x86 = _host._machine() == "x86"
        features = "" if x86 else llvm.get_host_cpu_features().flatten()
        processor = _PROCESSORS[core] if x86 else llvm.get_host_cpu_name()
        machine = target.create_target_machine(cpu=processor, features=features, opt=3, jit=True)
        module: Any = ir.Module()
        module.triple, module.data_layout = target.triple, str(machine.target_data)
        for name, emit in functions.items():
            emit_function(module, name, form, emit)
        parsed = llvm.parse_assembly(str(module))
        parsed.verify()
        passes = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=3))
        passes.getModulePassManager().run(parsed, passes)
        self._engine = llvm.create_mcjit_compiler(parsed, machine)
        self._engine.finalize_object()
        kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
        self._functions = {name: kind(self._engine.get_function_address(name)) for name in functions}
        self._bytes = np.zeros(1 << 24, np.uint8)
        self._start = -self._bytes.ctypes.data % 64

    def memory(self) -> Memory:
        return Memory(self._bytes.ctypes.data + self._start)

    def run(self, calls: Sequence[Call], memory: Memory) -> None:
        """Make the calls, one after the other, on the memory."""
        content = np.frombuffer(memory.content(), np.uint8)
        place = self._bytes[self._start : self._start + len(content)]
        assert len(place) == len(content)
        place[:] = content
        for call in calls:
            arguments = np.zeros(_ARGUMENTS, np.int64)
            arguments[: len(call.arguments)] = call.arguments
            self._functions[call.function](arguments.ctypes.data)
        memory.replace(place.tobytes())
