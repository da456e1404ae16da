"""Debian's packages, of any architecture and suite, unpacked into a folder.

The machine's own apt is asked for its mirror and its proxy, and is left as it is: apt works in a folder of its own
here, so it takes neither root nor a foreign architecture.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

_KEYRING: Final = "/usr/share/keyrings/debian-archive-keyring.gpg"
_QEMU: Final = "qemu-user"
_QEMU_SUITE: Final = "trixie"  # its qemu-user is one static program; the one before it crashes in ONNX Runtime's wheels


class Unavailable(Exception):
    """What this machine lacks, and what to do."""


def succeed(arguments: Sequence[str], cure: str, environment: Mapping[str, str] | None = None) -> str:
    """What the command prints. Raises Unavailable with its last line and the cure."""
    try:
        result = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise Unavailable(f"{arguments[0]} is not installed: {cure}") from None
    if result.returncode != 0:
        last = (result.stderr.strip() or result.stdout.strip() or f"exit code {result.returncode}").splitlines()[-1]
        raise Unavailable(f"{arguments[0]} failed ({last}): {cure}")
    return result.stdout


def install(folder: Path, architecture: str, suite: str, packages: Sequence[str], emulator: str) -> None:
    """folder/root: these packages and all that they need; and the program `emulator`. Raises Unavailable."""
    apt, root = folder / "apt", folder / "root"
    environment = os.environ | {"APT_CONFIG": str(_private_apt(apt, architecture, suite, _mirror()))}
    cure = f"check the network and that the mirror has {suite} and {_QEMU_SUITE}, or name another by DEBIAN_MIRROR=URL"
    succeed(["apt-get", "update", "--error-on=any"], cure, environment)
    download = ["apt-get", "install", "--yes", "--download-only", "--no-install-recommends"]
    succeed([*download, *packages, f"{_QEMU}:amd64"], cure, environment)
    for package in sorted((apt / "archives").glob("*.deb")):
        target = apt / "qemu" if package.name.startswith(f"{_QEMU}_") else root
        succeed(
            ["dpkg-deb", "--extract", str(package), str(target)], "check the space left on the disk, then run again"
        )
    (apt / "qemu" / "usr" / "bin" / emulator).rename(folder / emulator)
    shutil.rmtree(apt)
    _link(root)


def _link(root: Path) -> None:
    """What configuring the packages would link: /lib, where all is in /usr, and the chosen libraries of algebra."""
    if not (root / "lib").exists():
        (root / "lib").symlink_to("usr/lib")
    for library in root.glob("usr/lib/*/*/lib[bl]*.so.3"):
        if library.parent.name in ("blas", "lapack"):
            (library.parents[1] / library.name).symlink_to(f"{library.parent.name}/{library.name}")


def _mirror() -> str:
    """The mirror that this machine's apt uses for Debian itself, or the one that DEBIAN_MIRROR names."""
    named = os.environ.get("DEBIAN_MIRROR")
    if named:
        return named
    cure = "the userland is made of Debian's packages; use a machine with apt (Debian or Ubuntu)"
    listed = succeed(["apt-get", "indextargets", "--no-release-info", "--format", "$(REPO_URI)"], cure)
    mirrors = [uri for uri in listed.split() if uri.rstrip("/").endswith("/debian")]
    if not mirrors:
        raise Unavailable("no Debian mirror among apt's sources: name one by `make test-arm DEBIAN_MIRROR=URL`")
    return mirrors[0]


def _private_apt(folder: Path, architecture: str, suite: str, mirror: str) -> Path:
    """A configuration of apt that works in `folder` alone, on an empty system."""
    if not Path(_KEYRING).is_file():
        raise Unavailable(f"{_KEYRING} is missing: apt-get install debian-archive-keyring")
    for name in ("lists/partial", "archives/partial"):
        (folder / name).mkdir(parents=True)
    (folder / "status").touch()
    (folder / "sources.list").write_text(
        f"deb [arch={architecture} signed-by={_KEYRING}] {mirror} {suite} main\n"
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
APT::Architecture "{architecture}";
#clear APT::Architectures;
APT::Architectures {{ "{architecture}"; "amd64"; }};
APT::Default-Release "{suite}";
APT::Sandbox::User "root";
#clear APT::Update;
#clear DPkg;
Acquire::Languages "none";
Acquire::Retries "3";
Acquire::http::Timeout "30";
""")
    return path
