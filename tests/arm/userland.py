"""An aarch64 userland on an x86-64 machine: Debian's Python for arm64, pip's aarch64 wheels, and QEMU to run them.

Made once, in one folder. The machine's own apt is asked for its mirror and its proxy, and is left as it is: apt works
in a folder of its own here, so it takes neither root nor a foreign architecture.
"""

import fcntl
import os
import platform
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
CACHE: Final = ROOT / ".venv" / "arm"  # ignored by git, removed by `make clean`
USERLAND: Final = CACHE / "userland"

_KEYRING: Final = "/usr/share/keyrings/debian-archive-keyring.gpg"
_PYTHON: Final = "python3.11"  # the newest that tflite-runtime 2.14.0 has wheels for
_PYTHON_SUITE: Final = "bookworm"  # its glibc is 2.36
_QEMU_SUITE: Final = "trixie"  # its qemu-user is one static program; the one before it crashes in ONNX Runtime's wheels
_DEBIAN_PACKAGES: Final = (_PYTHON, "libstdc++6", "libgomp1", "qemu-user:amd64")
_PLATFORMS: Final = (*(f"manylinux_2_{minor}_aarch64" for minor in range(36, 16, -1)), "manylinux2014_aarch64")
_TFLITE_RUNTIME: Final = ("tflite-runtime==2.14.0", "numpy<2")

# One core, whatever the host has: this is where LiteRT and ONNX Runtime look.
_CPU_FILES: Final = {"possible": "0", "present": "0", "online": "0", "kernel_max": "0"}


class Unavailable(Exception):
    """What this machine lacks, and what to do."""


def command(arguments: Sequence[str], processor: str, *, tflite_runtime: bool, simd: bool = True) -> list[str]:
    """The command that runs `python arguments` on such a processor, with edgernn from this repository.

    tflite_runtime: with that package, and the old NumPy it was built for. simd: as the processor has it, or none.
    """
    sites = [USERLAND / "tflite-runtime"] if tflite_runtime else []  # found before the newer NumPy
    environment = {
        "PYTHONPATH": ":".join(map(str, (*sites, USERLAND / "site", ROOT))),
        "PYTHONPYCACHEPREFIX": str(USERLAND / "pycache"),
        "NUMBA_CACHE_DIR": str(USERLAND / "numba"),
        "NUMBA_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    if not simd:
        environment["EDGERNN_SIMD"] = "off"
    settings = [f"{name}={value}" for name, value in environment.items()]
    root = USERLAND / "root"
    python = [str(root / "usr" / "bin" / _PYTHON), "-S"]  # no packages of the host's Python
    qemu = [str(USERLAND / "qemu-aarch64"), "-cpu", processor, "-L", str(root)]
    return ["env", "-i", *settings, *qemu, *python, *arguments]


def prepare() -> None:
    """Build the userland unless it is there; what an interrupted build left is thrown away. Raises Unavailable."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise Unavailable(
            f"this emulates aarch64 on Linux x86_64, and here is {platform.system()} {platform.machine()}: "
            "on an aarch64 machine run `make test` instead"
        )
    with _lock():
        stamp, recipe = USERLAND / "recipe", _recipe()
        if stamp.is_file() and stamp.read_text() == recipe:
            return
        part = CACHE / "userland.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        _install_debian(part)
        _install_wheels(part)
        (part / stamp.name).write_text(recipe)
        shutil.rmtree(USERLAND, ignore_errors=True)
        part.rename(USERLAND)
        print("aarch64 userland: made; the first run compiles the kernel there, some minutes a processor", flush=True)


@contextmanager
def _lock() -> Iterator[None]:
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _recipe() -> str:
    """All that decides what the userland is made of."""
    parts = (_PYTHON_SUITE, _QEMU_SUITE, _DEBIAN_PACKAGES, _PLATFORMS, _requirements(), _TFLITE_RUNTIME, _CPU_FILES)
    return "\n".join(map(repr, parts))


def _requirements() -> list[str]:
    """What edgernn and its runtimes need, as pyproject.toml has it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [*project["dependencies"], *project["optional-dependencies"]["run"]]


def _run(arguments: Sequence[str], cure: str, environment: Mapping[str, str] | None = None) -> str:
    """What the command prints. Raises Unavailable with its last line and the cure."""
    try:
        result = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise Unavailable(f"{arguments[0]} is not installed: {cure}") from None
    if result.returncode != 0:
        last = (result.stderr.strip() or result.stdout.strip() or f"exit code {result.returncode}").splitlines()[-1]
        raise Unavailable(f"{arguments[0]} failed ({last}): {cure}")
    return result.stdout


# ---- Debian's packages -----------------------------------------------------------------------------------------------


def _install_debian(part: Path) -> None:
    """root/: Python for arm64 and the libraries it needs; and the program qemu-aarch64."""
    print(f"aarch64 userland: {', '.join(_DEBIAN_PACKAGES)} from Debian", flush=True)
    apt = part / "apt"
    environment = os.environ | {"APT_CONFIG": str(_private_apt(apt, _debian_mirror()))}
    cure = "check the network and that the mirror has bookworm and trixie, or name another by DEBIAN_MIRROR=URL"
    _run(["apt-get", "update", "--error-on=any"], cure, environment)
    download = ["apt-get", "install", "--yes", "--download-only", "--no-install-recommends"]
    _run([*download, *_DEBIAN_PACKAGES], cure, environment)
    for package in sorted((apt / "archives").glob("*.deb")):
        _unpack(package, apt / "qemu" if package.name.startswith("qemu-user_") else part / "root")
    (apt / "qemu" / "usr" / "bin" / "qemu-aarch64").rename(part / "qemu-aarch64")
    shutil.rmtree(apt)
    for name, content in _CPU_FILES.items():
        path = part / "root" / "sys" / "devices" / "system" / "cpu" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")


def _unpack(package: Path, folder: Path) -> None:
    _run(["dpkg-deb", "--extract", str(package), str(folder)], "check the space left on the disk, then run again")


def _debian_mirror() -> str:
    """The mirror that this machine's apt uses for Debian itself, or the one that DEBIAN_MIRROR names."""
    named = os.environ.get("DEBIAN_MIRROR")
    if named:
        return named
    cure = "the userland is made of Debian's packages; use a machine with apt (Debian or Ubuntu)"
    listed = _run(["apt-get", "indextargets", "--no-release-info", "--format", "$(REPO_URI)"], cure)
    mirrors = [uri for uri in listed.split() if uri.rstrip("/").endswith("/debian")]
    if not mirrors:
        raise Unavailable("no Debian mirror among apt's sources: name one by `make test-arm DEBIAN_MIRROR=URL`")
    return mirrors[0]


def _private_apt(folder: Path, mirror: str) -> Path:
    """A configuration of apt that works in `folder` alone, on an empty arm64 system."""
    if not Path(_KEYRING).is_file():
        raise Unavailable(f"{_KEYRING} is missing: apt-get install debian-archive-keyring")
    for name in ("lists/partial", "archives/partial"):
        (folder / name).mkdir(parents=True)
    (folder / "status").touch()
    (folder / "sources.list").write_text(
        f"deb [arch=arm64 signed-by={_KEYRING}] {mirror} {_PYTHON_SUITE} main\n"
        f"deb [arch=amd64 signed-by={_KEYRING}] {mirror} {_QEMU_SUITE} main\n"
    )
    path, machine = folder / "apt.conf", Path("/etc/apt/apt.conf")
    include = f'#include "{machine}";\n' if machine.is_file() else ""
    # APT_CONFIG is read before the machine's files; named as the main one, it is read once more after them.
    path.write_text(f"""{include}Dir::Etc::main "{path}";
Dir::Etc::sourcelist "{folder / "sources.list"}";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State "{folder}";
Dir::State::status "{folder / "status"}";
Dir::Cache "{folder}";
APT::Architecture "arm64";
#clear APT::Architectures;
APT::Architectures {{ "arm64"; "amd64"; }};
APT::Default-Release "{_PYTHON_SUITE}";
APT::Sandbox::User "root";
#clear APT::Update;
#clear DPkg;
Acquire::Languages "none";
Acquire::Retries "3";
Acquire::http::Timeout "30";
""")
    return path


# ---- pip's wheels ----------------------------------------------------------------------------------------------------


def _install_wheels(part: Path) -> None:
    """site/: what edgernn needs, and runtimes; tflite-runtime/: that one and its NumPy."""
    for name, requirements in (("site", _requirements()), ("tflite-runtime", _TFLITE_RUNTIME)):
        print(f"aarch64 userland: {', '.join(requirements)} as wheels", flush=True)
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--target", str(part / name)]
        target = ["--only-binary=:all:", "--implementation", "cp", "--python-version", _PYTHON.removeprefix("python")]
        platforms = [f"--platform={tag}" for tag in _PLATFORMS]
        _run([*install, *target, *platforms, *requirements], "check the network and pip's index, then run again")
