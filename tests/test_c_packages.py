"""Packages around the exported C: that they build, run their own test, and declare what their formats ask for.

tests/stubs stands for what a board's or a system's own software provides: Arduino's core, Unity, Zephyr's build system.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from edgernn import __version__
from edgernn.export.c import to_c
from edgernn.export.c.packages import PACKAGES, package
from edgernn.firmware_sim import run

from .models import random_input, random_model

ROOT = Path(__file__).resolve().parents[1]
STUBS = ROOT / "tests" / "stubs"
STRICT = ("-Wall", "-Wextra", "-Wshadow", "-Werror", "-O1")
SEED, STEPS = 11, 9


def exported(name: str, bidirectional: bool = False, layers: int = 1) -> tuple[dict[str, str], Any]:
    """(the files of to_c with vectors, the model)"""
    model = random_model(SEED, "lstm", head="steps", bidirectional=bidirectional, layers=layers)
    x = random_input(model, STEPS, SEED)
    return to_c(model, name, vectors=(x, run(model, x)[0])), model


def spoiled(files: Mapping[str, str], name: str) -> dict[str, str]:
    """The same files with one wrong number among the expected outputs."""
    text = files[f"{name}_test.c"]
    found = re.search(r"expected\[\d+\] = \{\s*(-?\d+)", text)
    assert found is not None
    value = int(found[1])
    wrong = text[: found.start(1)] + str(value + (1 if value < 0 else -1)) + text[found.end(1) :]
    return {**files, f"{name}_test.c": wrong}


def written(folder: Path, kind: str, name: str, *, bad: bool = False, bidirectional: bool = False) -> Path:
    files, model = exported(name, bidirectional)
    for path, text in package(kind, spoiled(files, name) if bad else files, name, model).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    return folder


def command(*arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(a) for a in arguments],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def succeeds(*arguments: object, cwd: Path, **environment: str) -> str:
    result = command(*arguments, cwd=cwd, **environment)
    assert result.returncode == 0, f"{arguments}\n{result.stdout[-2000:]}{result.stderr[-3000:]}"
    return result.stdout


def tool(name: str) -> str:
    """cmake or ctest: of the environment that runs the tests, or else of the system."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert found is not None, f"{name} is missing: pip install cmake"
    return found


def compiled(folder: Path, sources: list[Path], includes: list[Path]) -> Path:
    """A program of C, C++ and .ino files, each compiled as its language."""
    folder.mkdir()
    flags = [f"-I{path}" for path in includes]
    objects = []
    for number, source in enumerate(sources):
        language = ("cc", "-std=gnu99") if source.suffix == ".c" else ("c++", "-std=gnu++11", "-x", "c++")
        objects.append(folder / f"{number}.o")
        succeeds(language[0], *STRICT, *flags, *language[1:], "-c", source, "-o", objects[-1], cwd=folder)
    succeeds("c++", *objects, "-o", folder / "program", cwd=folder)
    return folder / "program"


# ---- what is in them -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", PACKAGES)
@pytest.mark.parametrize("name", ["vowels", "Two_Words", "test", "x" * 40])
def test_a_package_holds_the_exported_c_and_no_open_word(kind: str, name: str) -> None:
    files, model = exported(name)
    made = package(kind, files, name, model)
    assert made[f"src/{name}.c"] == files[f"{name}.c"]
    assert files[f"{name}.h"] in made.values()
    assert any(files[f"{name}_test.c"] in text for text in made.values())
    assert [path for path, text in made.items() if re.search(r"@\w+@", path + text)] == []
    assert [path for path, text in made.items() if Path(path).is_absolute() or not text.endswith("\n")] == []


def test_what_cannot_be_packed_is_refused() -> None:
    files, model = exported("vowels")
    with pytest.raises(ValueError, match=r"unknown package 'make'; known are cmake, arduino, platformio, zephyr"):
        package("make", files, "vowels", model)
    del files["vowels_test.c"]
    with pytest.raises(ValueError, match=r"needs vowels_test\.c too: export it with vectors"):
        package("cmake", files, "vowels", model)


# ---- CMake -----------------------------------------------------------------------------------------------------------


def test_cmake_builds_and_ctest_tells_right_from_wrong(tmp_path: Path) -> None:
    written(tmp_path, "cmake", "vowels")
    succeeds(tool("cmake"), "-B", "build", "-Werror=dev", cwd=tmp_path)
    succeeds(tool("cmake"), "--build", "build", cwd=tmp_path)
    assert re.search("^100% tests passed.* out of 1$", succeeds(tool("ctest"), cwd=tmp_path / "build"), re.MULTILINE)
    written(tmp_path, "cmake", "vowels", bad=True)
    succeeds(tool("cmake"), "--build", "build", cwd=tmp_path)
    assert command(tool("ctest"), cwd=tmp_path / "build").returncode != 0


def test_two_models_in_one_cmake_project(tmp_path: Path) -> None:
    """A name that CMake reserves for a target too; names in C may not collide either."""
    for name in ("vowels", "test"):
        written(tmp_path / name, "cmake", name)
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.16)\nproject(firmware C)\nadd_subdirectory(vowels)\nadd_subdirectory(test)\n"
        "add_executable(firmware main.c)\ntarget_link_libraries(firmware PRIVATE edgernn_vowels edgernn_test)\n"
    )
    (tmp_path / "main.c").write_text(
        '#include "test.h"\n#include "vowels.h"\nstatic vowels_state_t a;\nstatic test_state_t b;\n'
        "int main(void) { vowels_reset(&a); test_reset(&b); return VOWELS_INPUT_SIZE != TEST_INPUT_SIZE; }\n"
    )
    succeeds(tool("cmake"), "-B", "build", "-Werror=dev", cwd=tmp_path)
    succeeds(tool("cmake"), "--build", "build", cwd=tmp_path)
    succeeds(tmp_path / "build" / "firmware", cwd=tmp_path)


# ---- Arduino ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bidirectional", "bad"), [(False, False), (True, False), (False, True)])
def test_the_arduino_example_runs(bidirectional: bool, bad: bool, tmp_path: Path) -> None:
    """Built as Arduino does: all of src, and every code file beside the sketch."""
    written(tmp_path, "arduino", "vowels", bad=bad, bidirectional=bidirectional)
    sketch = tmp_path / "examples" / "VowelsDemo"
    assert (sketch / "VowelsDemo.ino").exists()  # named as its folder
    sources = [*(tmp_path / "src").rglob("*.c"), *sketch.iterdir(), STUBS / "arduino" / "core.cpp"]
    program = compiled(tmp_path / "build", sources, [tmp_path / "src", STUBS / "arduino"])
    verdict, timing = succeeds(program, cwd=tmp_path).splitlines()
    assert verdict == ("vowels: FAIL, integers that are wrong: 1" if bad else "vowels: pass")
    assert re.fullmatch(r"microseconds a step: \d+\.\d\d", timing)


@pytest.mark.parametrize("name", ["vowels", "Two_Words"])
def test_library_properties_hold_what_arduino_requires(name: str) -> None:
    """arduino.github.io/arduino-cli/latest/library-specification: all fields but the optional ones."""
    files, model = exported(name)
    made = package("arduino", files, name, model)
    lines = [line for line in made["library.properties"].splitlines() if not line.startswith("#")]
    fields = dict(line.split("=", 1) for line in lines)
    required = {"name", "version", "author", "maintainer", "sentence", "paragraph", "category", "url", "architectures"}
    assert required <= set(fields) <= required | {"depends", "dot_a_linkage", "includes", "precompiled", "ldflags"}
    assert all(fields.values())
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 _.-]*", fields["name"])
    assert re.fullmatch(r"\d+\.\d+\.\d+", fields["version"])
    assert fields["version"] == __version__
    assert fields["category"] == "Data Processing"  # of the specification's list
    assert "avr" not in fields["architectures"].split(",")  # its int has 16 bits
    assert f"src/{fields['includes']}" in made


# ---- PlatformIO ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [False, True])
def test_the_platformio_test_and_example_run(bad: bool, tmp_path: Path) -> None:
    written(tmp_path, "platformio", "vowels", bad=bad)
    sources, includes = list((tmp_path / "src").iterdir()), [tmp_path / "src", STUBS / "unity", STUBS / "arduino"]
    code = [path for path in sources if path.suffix == ".c"]
    test = compiled(tmp_path / "test_build", [*code, *(tmp_path / "test" / "test_vectors").iterdir()], includes)
    assert command(test, cwd=tmp_path).returncode == int(bad)
    example = tmp_path / "examples" / "VowelsDemo"
    sources = [*code, *(example / "src").iterdir(), STUBS / "arduino" / "core.cpp"]
    demo = compiled(tmp_path / "demo_build", sources, includes)
    assert succeeds(demo, cwd=tmp_path).startswith("vowels: FAIL" if bad else "vowels: pass")


@pytest.mark.parametrize("name", ["vowels", "Two_Words", "a__b_", "x" * 40])
def test_library_json_holds_what_platformio_requires(name: str) -> None:
    """docs.platformio.org/en/latest/manifests/library-json: fields, types and lengths."""
    files, _ = exported(name)
    model = random_model(SEED, "gru", layers=12, bidirectional=True)
    made = package("platformio", files, name, model)
    manifest = json.loads(made["library.json"])
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", manifest["name"])
    assert len(manifest["name"]) <= 50
    assert manifest["version"] == __version__
    assert len(manifest["version"]) <= 20
    assert 0 < len(manifest["description"]) <= 255
    assert all(re.fullmatch(r"[a-z0-9-]+", word) for word in manifest["keywords"])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert manifest["license"] == project["license"]
    assert manifest["frameworks"] == "*"
    assert "atmelavr" not in manifest["platforms"]
    assert f"src/{manifest['headers']}" in made
    (example,) = manifest["examples"]
    listed = {f"{example['base']}/{file}" for file in example["files"]}
    assert listed == {path for path in made if path.startswith("examples/")}


# ---- Zephyr ----------------------------------------------------------------------------------------------------------


def test_the_zephyr_test_tells_right_from_wrong(tmp_path: Path) -> None:
    test = tmp_path / "tests" / "vectors"
    for bad, expected in ((False, "vowels: pass"), (True, "vowels: FAIL, integers that are wrong: 1")):
        written(tmp_path, "zephyr", "vowels", bad=bad)
        succeeds(tool("cmake"), "-B", "build", "-Werror=dev", cwd=test, Zephyr_DIR=str(STUBS / "zephyr"))
        succeeds(tool("cmake"), "--build", "build", cwd=test)
        verdict = succeeds(test / "build" / "app", cwd=test).splitlines()[0]
        assert verdict == expected
        pattern = (test / "testcase.yaml").read_text().split("regex:\n")[1].strip().removeprefix("- ").strip('"')
        assert (re.search(pattern, verdict) is None) == bad


def test_a_zephyr_module_is_built_only_where_its_option_is_set(tmp_path: Path) -> None:
    written(tmp_path, "zephyr", "vowels")
    test = tmp_path / "tests" / "vectors"
    (option,) = re.findall(r"^config (\w+)$", (tmp_path / "Kconfig").read_text(), re.MULTILINE)
    assert (test / "prj.conf").read_text() == f"CONFIG_{option}=y\n"
    (test / "prj.conf").write_text("")
    succeeds(tool("cmake"), "-B", "build", cwd=test, Zephyr_DIR=str(STUBS / "zephyr"))
    assert "edgernn_vowels" not in succeeds(tool("cmake"), "--build", "build", "--target", "help", cwd=test)


def test_the_zephyr_description_names_files_that_are_there() -> None:
    files, model = exported("vowels")
    made = package("zephyr", files, "vowels", model)
    entries = dict(re.findall(r"^ *([\w-]+): (\S+)$", made["zephyr/module.yml"], re.MULTILINE))
    assert entries == {"name": "edgernn_vowels", "cmake": ".", "kconfig": "Kconfig"}
    assert {"CMakeLists.txt", "Kconfig"} <= set(made)
    assert any(path.startswith("tests/") for path in made)
