"""A Raspberry Pi's system on an x86-64 machine: Debian's Python, pip's wheels and a C compiler, and QEMU to run them.

Made once, each in a folder of its own. What runs there starts programs as on the device: itself, and the compiler.
"""

import fcntl
import os
import platform
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pip

from .debian import Unavailable, install, succeed

ROOT: Final = Path(__file__).resolve().parents[2]
CACHE: Final = ROOT / ".venv" / "arm"  # ignored by git, removed by `make clean`

PI_2: Final = "cortex-a7"  # 32 bits
PI_4: Final = "cortex-a72"
PI_5: Final = "cortex-a76"  # has dot products, which runtimes then use; LiteRT's CompiledModel runs on no older one

# One core, whatever the host has: this is where LiteRT and ONNX Runtime look.
_CPU_FILES: Final = {"possible": "0", "present": "0", "online": "0", "kernel_max": "0"}
_TFLITE_RUNTIME: Final = ("tflite-runtime==2.14.0", "numpy<2")

# The processor comes from $QEMU_CPU, and Python finds its virtual environment by $0.
_LAUNCHER: Final = """#!/bin/sh
exec {qemu} -0 "$0" -L {root} {python} "$@"
"""
# The machine's own compiler, as edgernn finds it there: the host's for it, which alone has no word for "native".
_CC: Final = """#!/bin/sh
for word; do
  shift
  test "$word" = -mcpu=native && word="-mcpu=$QEMU_CPU"
  set -- "$@" "$word"
done
exec {compiler} "$@"
"""


def wheels_for(python: str, glibc: int, machine: str = "aarch64") -> list[str]:
    """pip's options for the wheels that such a Python takes, on a system with glibc 2.`glibc`."""
    tags = (*(f"manylinux_2_{minor}" for minor in range(glibc, 16, -1)), "manylinux2014")
    platforms = [f"--platform={tag}_{machine}" for tag in tags]
    return ["--only-binary=:all:", "--implementation=cp", f"--python-version={python}", *platforms]


def requirements(*extras: str) -> list[str]:
    """What edgernn needs, and its extras, as pyproject.toml has it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    return [*project["dependencies"], *(name for extra in extras for name in optional[extra])]


@dataclass(frozen=True)
class Userland:
    """A Debian system for an architecture, as Debian calls it and (`machine`) as wheels do.

    python: the version of its Python. packages: beside Python. emulator, compiler: of the host's programs.
    """

    architecture: str
    machine: str
    suite: str
    glibc: int
    python: str
    packages: tuple[str, ...]
    emulator: str
    compiler: str

    @property
    def folder(self) -> Path:
        return CACHE / self.architecture

    @property
    def venv(self) -> Path:
        """Its virtual environment, for edgernn; in it another one, tflite-runtime."""
        return self.folder / "venv"

    def environment(self, processor: str) -> dict[str, str]:
        """What a program finds in its environment. PATH has nothing of the host's."""
        return {
            "HOME": str(self.folder / "home"),
            "LANG": "C.UTF-8",
            "PATH": f"{self.venv / 'bin'}:{self.folder / 'bin'}",
            "QEMU_CPU": processor,
            "NUMBA_CACHE_DIR": str(self.folder / "numba"),
            "NUMBA_NUM_THREADS": "1",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }

    def pip_install(self, arguments: Sequence[str], venv: Path | None = None) -> None:
        """Let the emulated pip install into the virtual environment, from files alone."""
        variables = self.environment(PI_4 if self is BITS_64 else PI_2) | {"PIP_CONFIG_FILE": os.devnull}
        with tempfile.TemporaryDirectory(prefix="edgernn-pip-") as alone:
            Path(alone, "pip").symlink_to(Path(pip.__file__).parent)  # the host's: Debian's Python comes without
            python = str((venv or self.venv) / "bin" / "python")
            options = ["--quiet", "--no-index", "--only-binary=:all:", *arguments]
            cure = f"remove {self.folder}, then run again"
            succeed([python, "-m", "pip", "install", *options], cure, variables | {"PYTHONPATH": alone})

    def prepare(self) -> None:
        """Build it unless it is there; what an interrupted build left is thrown away. Raises Unavailable."""
        if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
            raise Unavailable(
                f"this emulates Arm on Linux x86_64, and here is {platform.system()} {platform.machine()}: "
                "on an aarch64 machine run `make test` instead"
            )
        with _lock():
            stamp, recipe = self.folder / "recipe", self._recipe()
            if stamp.is_file() and stamp.read_text() == recipe:
                return
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir()
            self._install()
            stamp.write_text(recipe)  # comes last: without it all is made anew
            print(f"{self.architecture} userland: made", flush=True)

    def _recipe(self) -> str:
        """All that decides what it is made of."""
        return "\n".join(map(repr, (self, self._wheels(), _CPU_FILES, _LAUNCHER, _CC)))

    def _wheels(self) -> dict[str, tuple[str, ...]]:
        """By virtual environment: what it needs of the package index, which has little for 32 bits."""
        if self is BITS_64:
            return {"venv": tuple(requirements("run", "export")), "venv/tflite-runtime": _TFLITE_RUNTIME}
        return {"venv": tuple(name for name in requirements() if name.startswith(("safetensors", "tqdm")))}

    def _install(self) -> None:
        compiler = shutil.which(self.compiler)
        if compiler is None:
            raise Unavailable(f"{self.compiler} is not installed: make tools")
        print(f"{self.architecture} userland: python{self.python}, {', '.join(self.packages)} from Debian", flush=True)
        packages = (f"python{self.python}", *self.packages)
        install(self.folder, self.architecture, self.suite, packages, self.emulator)
        root = self.folder / "root"
        for name, content in _CPU_FILES.items():
            path = root / "sys" / "devices" / "system" / "cpu" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{content}\n")
        qemu, python = self.folder / self.emulator, root / "usr" / "bin" / f"python{self.python}"
        _write_program(python.with_name("python"), _LAUNCHER.format(root=root, qemu=qemu, python=python))
        _write_program(self.folder / "bin" / "cc", _CC.format(compiler=compiler))
        for name, needed in self._wheels().items():
            self._install_wheels(self.folder / name, needed)

    def _install_wheels(self, venv: Path, needed: Sequence[str]) -> None:
        """A virtual environment with these packages: the host downloads them, the emulated pip chooses and installs."""
        print(f"{self.architecture} userland: {', '.join(needed)} as wheels", flush=True)
        cure = "check the network and pip's index, then run again"
        python = str(self.folder / "root" / "usr" / "bin" / "python")
        site = [] if self is BITS_64 else ["--system-site-packages"]
        succeed([python, "-m", "venv", "--without-pip", *site, str(venv)], cure)
        chosen = wheels_for(self.python, self.glibc, self.machine)
        host = [sys.executable, "-m", "pip"]
        if self is not BITS_64:  # pip looks for the hard-float ABI in the file of Python itself, and finds the launcher
            packages = str(venv / "lib" / f"python{self.python}" / "site-packages")
            succeed([*host, "install", "--quiet", "--target", packages, *chosen, *needed], cure)
            return
        wheels = str(self.folder / "wheels")
        succeed([*host, "download", "--quiet", "--dest", wheels, *chosen, *needed], cure)
        self.pip_install(["--find-links", wheels, *needed], venv)
        shutil.rmtree(wheels)


BITS_64: Final = Userland(
    "arm64",
    "aarch64",
    "bookworm",
    36,
    "3.11",  # the newest that tflite-runtime 2.14.0 has wheels for
    ("libstdc++6", "libgomp1"),
    "qemu-aarch64",
    "aarch64-linux-gnu-gcc",
)
BITS_32: Final = Userland(
    "armhf",
    "armv7l",
    "trixie",
    41,
    "3.13",
    ("python3-numpy", "libgomp1"),
    "qemu-arm",
    "arm-linux-gnueabihf-gcc",
)


def userland(processor: str) -> Userland:
    """The system that runs on this processor."""
    return BITS_32 if processor == PI_2 else BITS_64


def command(arguments: Sequence[str], processor: str, *, simd: bool = True, path: Path = ROOT) -> list[str]:
    """The command that runs `python arguments` on such a processor, with the modules of that folder first.

    simd: as the processor has it, or none.
    """
    system = userland(processor)
    variables = system.environment(processor)
    variables |= {"PYTHONPATH": str(path), "PYTHONPYCACHEPREFIX": str(system.folder / "pycache")}
    if not simd:
        variables["EDGERNN_SIMD"] = "off"
    settings = [f"{name}={value}" for name, value in variables.items()]
    return ["env", "-i", *settings, str(system.venv / "bin" / "python"), *arguments]


def _write_program(path: Path, script: str) -> None:
    """A shell script that the host runs, for itself and for what is emulated."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(script)
    path.chmod(0o755)


@contextmanager
def _lock() -> Iterator[None]:
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
