"""The exported C with what a build system needs around it: CMake, Arduino, PlatformIO or Zephyr.

The files around the C are `templates/`, with @words@ in them. Formats:
Arduino: arduino.github.io/arduino-cli/latest/library-specification and sketch-specification;
PlatformIO: docs.platformio.org/en/latest/manifests/library-json and advanced/unit-testing/structure;
Zephyr: docs.zephyrproject.org/latest/develop/modules.html and develop/test/twister.html.
"""

import re
from collections.abc import Mapping
from importlib.resources import files as resources
from typing import Final

from ... import __version__
from ...qmodel import QuantizedModel

LICENCE: Final = "Apache-2.0"  # of the kernels, which are part of what is exported

_CODE: Final = {"src/@name@.c": "@name@.c"}
_SEPARATE: Final = {**_CODE, "include/@name@.h": "@name@.h"}
_TOGETHER: Final = {**_CODE, "src/@name@.h": "@name@.h"}

# path in the package -> exported file or template
_FILES: Final[dict[str, dict[str, str]]] = {
    "cmake": {**_SEPARATE, "test/@name@_test.c": "@name@_test.c", "CMakeLists.txt": "CMakeLists.cmake"},
    "arduino": {
        **_TOGETHER,
        "library.properties": "library.properties",
        "examples/@Name@Demo/@Name@Demo.ino": "demo.ino",
        "examples/@Name@Demo/@name@_test.c": "test.c",
    },
    "platformio": {
        **_TOGETHER,
        "library.json": "library.json",
        "platformio.ini": "platformio.ini",
        "test/test_vectors/test_main.cpp": "unity.cpp",
        "test/test_vectors/@name@_test.c": "test.c",
        "examples/@Name@Demo/platformio.ini": "demo.ini",
        "examples/@Name@Demo/src/main.cpp": "demo.ino",
        "examples/@Name@Demo/src/@name@_test.c": "test.c",
    },
    "zephyr": {
        **_SEPARATE,
        "zephyr/module.yml": "module.yml",
        "CMakeLists.txt": "zephyr.cmake",
        "Kconfig": "Kconfig",
        "tests/vectors/CMakeLists.txt": "zephyr_test.cmake",
        "tests/vectors/prj.conf": "prj.conf",
        "tests/vectors/testcase.yaml": "testcase.yaml",
        "tests/vectors/src/main.c": "zephyr_main.c",
        "tests/vectors/src/@name@_test.c": "test.c",
    },
}
PACKAGES: Final = tuple(_FILES)
_OWN_HEADERS: Final = ("arduino", "unity", "zephyr")

# Cores whose int has 32 bits, as the kernels need it; of the others AVR is the one that is common.
_ARDUINO: Final = (
    "apollo3,esp32,esp8266,mbed,mbed_edge,mbed_giga,mbed_nano,mbed_nicla,mbed_opta,mbed_portenta,mbed_rp2040,nrf52,"
    "renesas,renesas_portenta,renesas_uno,rp2040,sam,samd,silabs,stm32"
)
_PLATFORMIO: Final = (
    "atmelsam,espressif32,espressif8266,freescalekinetis,gd32v,infineonxmc,linux_arm,maxim32,native,nordicnrf51,"
    "nordicnrf52,nxpimxrt,nxplpc,raspberrypi,renesas-ra,sifive,siliconlabsefm32,ststm32,teensy,titiva"
)


def package(kind: str, files: Mapping[str, str], name: str, model: QuantizedModel) -> dict[str, str]:
    """The texts of a package by their paths in it ("/" between folders).

    kind: one of PACKAGES. files: what `to_c` gave for this name and model, with vectors, since every package tests
    itself. Raises ValueError for an unknown kind, files without the self-test, or the name of a platform.
    """
    if kind not in _FILES:
        raise ValueError(f"unknown package {kind!r}; known are {', '.join(PACKAGES)}")
    if name.lower() in _OWN_HEADERS:
        raise ValueError(f"{name}.h is a header of {name}'s own: choose another name for the package")
    missing = [file for file in (f"{name}.h", f"{name}.c", f"{name}_test.c") if file not in files]
    if missing:
        raise ValueError(f"a package of {name} needs {', '.join(missing)} too: export it with vectors")
    words = {**_words(name, model), "test": files[f"{name}_test.c"]}
    made = {}
    for path, source in _FILES[kind].items():
        exported = source.startswith("@name@")
        text = files[_filled(source, words)] if exported else _filled(_template(source), words)
        made[_filled(path, words)] = text
    return made


def _words(name: str, model: QuantizedModel) -> dict[str, str]:
    return {
        "name": name,
        "NAME": name.upper(),
        "Name": name[:1].upper() + name[1:],
        "slug": re.sub("_+", "-", name.lower()).strip("-"),
        "version": __version__,
        "licence": LICENCE,
        "sentence": _sentence(model),
        "arduino_architectures": _ARDUINO,
        "platformio_platforms": ", ".join(f'"{platform}"' for platform in _PLATFORMIO.split(",")),
    }


def _sentence(model: QuantizedModel) -> str:
    """At most 255 characters, as PlatformIO has it."""
    kinds = sorted({layer.cell.upper() for layer in model.layers})
    facts = [
        *kinds,
        *(["bidirectional"] if model.bidirectional else []),
        f"{len(model.layers)} layer{'s' if len(model.layers) > 1 else ''}",
        f"{model.input_size} inputs",
        f"{model.output_size} outputs",
        model.scheme,
    ]
    return f"A recurrent network ({', '.join(facts)}) in integers, the same bit for bit as where it was trained."


def _template(file: str) -> str:
    return (resources(__package__) / "templates" / file).read_text(encoding="utf-8")


def _filled(text: str, words: Mapping[str, str]) -> str:
    return re.sub(r"@(\w+)@", lambda word: words[word[1]], text)
