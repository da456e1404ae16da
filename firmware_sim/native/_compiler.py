"""The C compiler: which one, for which machine, and the instructions that it may use there."""

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

VARIABLE: Final = "CC"  # environment variable: the compiler, with options of its own if need be
_USUAL: Final = ("cc", "gcc", "clang")
_SECONDS: Final = 300.0

_MACHINES: Final = {  # of the first macro that is there: the name, and the target of the C export
    "__aarch64__": ("aarch64", "raspberry-pi"),
    "__x86_64__": ("x86_64", "x86-64"),
    "__arm__": ("arm", "raspberry-pi"),
    "__i386__": ("i386", "generic"),
    "__riscv": ("riscv", "generic"),
}
_SAME: Final = {"arm64": "aarch64", "amd64": "x86_64", "i486": "i386", "i586": "i386", "i686": "i386"}
_HALVES: Final = {"aarch64": "arm", "x86_64": "i386"}  # what 32 bits are called there
_SYSTEMS: Final = {"__linux__": "linux", "__APPLE__": "darwin", "_WIN32": "win32"}
_SUFFIXES: Final = {"darwin": ".dylib", "win32": ".dll"}

# What a processor must have, as Linux calls it, for code that was compiled with these macros
_FEATURES: Final = {
    **{
        f"__{name}__": name.lower()
        for name in ("AVX", "AVX2", "BMI2", "FMA", "F16C", "MOVBE", "AVX512F", "AVX512BW", "AVX512CD", "AVX512DQ")
    },
    **{f"__{name}__": name.lower() for name in ("AVX512VL", "AVX512IFMA", "AVX512VBMI")},
    "__AVX512VNNI__": "avx512_vnni",
    "__AVX512VBMI2__": "avx512_vbmi2",
    "__AVX512BITALG__": "avx512_bitalg",
    "__AVX512VPOPCNTDQ__": "avx512_vpopcntdq",
    "__AVX512BF16__": "avx512_bf16",
    "__AVX512FP16__": "avx512_fp16",
    "__AVXVNNI__": "avx_vnni",
    "__ARM_FEATURE_DOTPROD": "asimddp",
    "__ARM_FEATURE_ATOMICS": "atomics",
    "__ARM_FEATURE_FP16_VECTOR_ARITHMETIC": "asimdhp",
    "__ARM_FEATURE_MATMUL_INT8": "i8mm",
    "__ARM_FEATURE_SVE": "sve",
    "__ARM_FEATURE_SVE2": "sve2",
}
_INSTRUCTIONS: Final = (  # of the kernels, the first that applies: its macros, and its name
    ({"__AVX512VNNI__", "__AVX512BW__", "__AVX512VL__"}, "AVX-512 VNNI"),
    ({"__AVX2__"}, "AVX2"),
    ({"__ARM_NEON", "__ARM_FEATURE_DOTPROD"}, "NEON with dot products"),
    ({"__ARM_NEON"}, "NEON"),
)
PLAIN: Final = "plain C"


@dataclass(frozen=True)
class Compiler:
    """A compiler and what it compiles for.

    command: its program and the options that choose the processor. name: what it calls itself. machine, system: as
    x86_64, linux. target: of the C export. suffix: of a shared library. instructions: what the kernels use. features:
    what the processor must have, as Linux calls it.
    """

    command: tuple[str, ...]
    name: str
    machine: str
    system: str
    target: str
    suffix: str
    instructions: str
    features: tuple[str, ...]

    @property
    def is_native(self) -> bool:
        """Whether it compiles for this computer."""
        return (self.machine, self.system) == (this_machine(), sys.platform)

    def plain(self) -> "Compiler":
        """The same for the C export of any processor."""
        return replace(self, target="generic", instructions=PLAIN)

    def run(self, arguments: list[str], folder: str) -> None:
        """Compile in that folder. Raises ValueError with the first error of the compiler."""
        done = _call((*self.command, *arguments), folder)
        if done.returncode != 0:
            text = f"{done.stderr}\n{done.stdout}".strip().splitlines()
            errors = [line for line in text if "error" in line.lower() or "undefined reference" in line]
            reason = (errors or text or [f"exit code {done.returncode}"])[0].strip()
            raise ValueError(f"{self.command[0]} cannot compile the model: {reason}")


def this_machine() -> str:
    """The machine of this Python: one of 32 bits runs on kernels of 64 too, as on a Raspberry Pi."""
    name = platform.machine().lower()
    if name.startswith("armv"):
        return "arm"
    name = _SAME.get(name, name)
    return _HALVES.get(name, name) if sys.maxsize < 2**32 else name


def host_suffix() -> str:
    """Of a shared library here, as .so."""
    return _SUFFIXES.get(sys.platform, ".so")


def missing(cc: str | None = None) -> str | None:
    """What to do to have a C compiler here, or None when there is one."""
    try:
        find_compiler(cc)
    except ValueError as error:
        return str(error)
    return None


def find_compiler(cc: str | None = None) -> Compiler:
    """The compiler `cc`, which may have options after its name; or that of the environment variable CC; or cc, gcc,
    clang.

    Raises ValueError when there is none, or when it is no C compiler that edgernn knows how to call.
    """
    return _probed(_program(cc))


def _program(cc: str | None) -> tuple[str, ...]:
    named = cc or os.environ.get(VARIABLE, "")
    try:
        words = shlex.split(named)
    except ValueError as error:
        raise ValueError(f"the compiler {named!r} cannot be read: {error}") from None
    if words:
        if shutil.which(words[0]) is None:
            origin = "" if cc else f", which {VARIABLE} names,"
            raise ValueError(f"the compiler {words[0]}{origin} is not installed here: apt install gcc, or name another")
        return tuple(words)
    for name in _USUAL:
        if shutil.which(name) is not None:
            return (name,)
    raise ValueError("no C compiler is here: apt install gcc, or name another by CC")


@lru_cache
def _probed(words: tuple[str, ...]) -> Compiler:
    macros = _macros(words)
    if macros is None:
        raise ValueError(f"{words[0]} is no C compiler that can be called like gcc: name another by --cc or CC")
    found = ((value, names) for macro, (value, *names) in _MACHINES.items() if macro in macros)
    machine, (target, *_) = next(found, ("unknown", ["generic"]))
    system = next((value for macro, value in _SYSTEMS.items() if macro in macros), "unknown")
    chosen = any(re.match(r"-m(arch|cpu)=", word) for word in words)
    if (machine, system) == (this_machine(), sys.platform) and not chosen:
        option = "-march=native" if machine in ("x86_64", "i386") else "-mcpu=native"
        native = _macros((*words, option))  # a cross compiler has no word for the computer that it runs on
        if native is not None:
            words, macros = (*words, option), native
    if target == "raspberry-pi" and "__ARM_NEON" not in macros:
        target = "generic"
    kind = "clang" if "__clang__" in macros else "gcc"
    version = macros.get("__VERSION__", "").strip('"')
    return Compiler(
        words,
        version if kind in version.lower() else f"{kind} {version}",
        machine,
        system,
        target,
        _SUFFIXES.get(system, ".so"),
        next((name for needed, name in _INSTRUCTIONS if target != "generic" and needed <= set(macros)), PLAIN),
        tuple(feature for macro, feature in _FEATURES.items() if macro in macros),
    )


def _macros(words: tuple[str, ...]) -> dict[str, str] | None:
    """What the compiler predefines; None when it cannot be called so."""
    try:
        done = _call((*words, "-dM", "-E", "-x", "c", os.devnull), None)
    except ValueError:
        return None
    lines = (line.split(maxsplit=2) for line in done.stdout.splitlines() if line.startswith("#define "))
    found = {line[1]: line[2] if len(line) > 2 else "" for line in lines}
    return found if done.returncode == 0 and found else None


def _call(command: tuple[str, ...], folder: str | None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LC_ALL": "C"}  # messages that are known again
    try:
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, errors="replace", timeout=_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"{command[0]} did not end within {_SECONDS:.0f} s") from None
    except OSError as error:
        raise ValueError(f"{command[0]} cannot be run: {error.strerror}") from None
