"""The machine that the benchmarks run on: its threads, its name, and how fast it multiplies int8 at all."""

import ctypes
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, NamedTuple

from edgernn.firmware_sim.simd._host import host_form

_THREADS: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
_PACKAGES: Final = ("numpy", "numba", "torch", "onnxruntime", "ai-edge-litert", "tflite-micro", "brevitas", "gru-qat")
_FORMS: Final = {  # the form of peak.c, by the CPU's feature: the first that it has
    "avx512vnni": "AVX512_VNNI",
    "avxvnni": "AVX_VNNI",
    "avx2": "AVX2",
    "dotprod": "NEON_DOTPROD",
    "neon": "NEON",
}
_PRODUCTS: Final = 2e9  # of one call


def restart_with_threads(threads: int) -> None:
    """Go on with as many threads in every library; most read their number only while they are loaded."""
    wanted = thread_variables(threads)
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        sys.stdout.flush()
        os.execve(sys.executable, sys.orig_argv, os.environ | wanted)


def thread_variables(threads: int) -> dict[str, str]:
    """The environment that says how many threads the libraries take."""
    return dict.fromkeys(_THREADS, str(threads))


def describe() -> str:
    """The CPU, its features for integers, and the versions of what is measured."""
    features = [name for name in _FORMS if _features().get(name)]
    form = host_form()
    packages = ", ".join(f"{name} {found}" for name in _PACKAGES if (found := _version(name)) is not None)
    return (
        f"{_cpu()}, {os.cpu_count()} cores, {', '.join(features) or 'no int8 instructions'}; "
        f"kernels: {'without SIMD' if form is None else form.name}\n"
        f"Python {platform.python_version()}, {packages}; threads: {os.environ.get(_THREADS[0])}"
    )


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    details = [f"{key} {facts[key]}" for key in ("cpu family", "model") if key in facts]
    return " ".join([facts.get("model name", platform.processor() or platform.machine()), *details])


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _features() -> dict[str, bool]:
    import llvmlite.binding

    return dict(llvmlite.binding.get_host_cpu_features())


class Int8Peak(NamedTuple):
    """form: the instructions. run computes `macs` products of int8 and adds them."""

    form: str
    macs: int
    run: Callable[[], object]


def int8_peak() -> Int8Peak:
    """peak.c in the best form of this CPU. Raises RuntimeError without a compiler or a form."""
    form = next((form for feature, form in _FORMS.items() if _features().get(feature)), None)
    if form is None:
        raise RuntimeError("no form of peak.c for this CPU")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "peak.so"
        command = [os.environ.get("CC", "gcc"), "-O2", "-shared", "-fPIC", f"-D{form}", "-o", str(library)]
        try:
            subprocess.run([*command, str(Path(__file__).with_name("peak.c"))], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise RuntimeError(f"peak.c does not compile: {error}") from None
        code: Any = ctypes.CDLL(str(library))
    code.run.argtypes = [ctypes.c_long]
    iterations = round(_PRODUCTS / code.macs())
    return Int8Peak(form.replace("_", "-"), iterations * code.macs(), lambda: code.run(iterations))
