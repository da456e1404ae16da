"""The benchmark: its table, memory, another machine's figures, and what about a computer would spoil them."""

import dataclasses
import json
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgernn._device import Condition, condition, machine, warnings
from edgernn._memory import bare_memory, memory
from edgernn.benchmark import Contender, benchmark, contenders, kernel_of, reference_of
from edgernn.cli.benchmark import _compared
from edgernn.data import Split
from edgernn.qmodel import Profile, QuantizedModel

from .command_line import fail, subprocess_of, succeed, succeed_json
from .models import random_model
from .test_without_torch import HIDE

EXACT = ["numba", "native", "litert", "tflm", "onnxruntime exact"]


def kernel_alone(path: Path) -> Contender:
    return next(one for one in contenders(QuantizedModel.load(path), path, None) if one.name == "numba")


@pytest.mark.parametrize("head", ["last", "steps"])
def test_a_bidirectional_model_has_no_time_of_a_step(head: Any, tmp_path: Path) -> None:
    model = random_model(30, "gru", input_size=3, hidden_size=4, head=head, bidirectional=True)
    model.save(tmp_path / "model.ernn")
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (5, 6, 3)).astype(np.float32)
    lengths = np.array([6, 1, 4, 6, 2])
    y = rng.integers(0, 3, (5, 6) if head == "steps" else 5)
    after = np.arange(6) >= lengths[:, None]
    x[after] = 0
    if head == "steps":
        y[after] = -1
    found = list(contenders(model, tmp_path / "model.ernn", None))
    rows = benchmark(found, Split(x, lengths, y), timed=3)
    assert [row.name for row in rows] == ["onnxruntime int8 weights", *EXACT]
    assert [row.equals_kernel for row in rows] == [None] + [True] * 5
    assert all(row.step is None for row in rows)
    assert all(row.sequence.median > 0 and row.bytes > 0 for row in rows)
    assert len({row.quality for row in rows[1:]}) == 1
    assert reference_of(found).name == kernel_of(found).name == "numba"  # there is no float network
    assert [row.sequence.ratio for row in rows if row.name == "numba"] == [1]
    assert all(row.memory for row in rows), [row.memory_note for row in rows]


def test_other_integers_are_seen(tmp_path: Path) -> None:
    model = random_model(31, "rnn", input_size=2, hidden_size=3)
    model.save(tmp_path / "model.ernn")
    kernel = kernel_alone(tmp_path / "model.ernn")

    def off_by_one(x: Any) -> Any:
        y = kernel.session(x)
        return y if len(x) == 3 else np.where(np.arange(len(y)) == 1, y ^ 1, y)

    rng = np.random.default_rng(31)
    x = rng.normal(0, 1, (3, 4, 2)).astype(np.float32)
    x[[0, 2], 3] = 0
    split = Split(x, np.array([3, 4, 3]), rng.integers(0, 3, 3))
    other = dataclasses.replace(kernel, name="other", runtime="none", session=off_by_one)
    rows = benchmark([other, kernel], split, timed=1)
    assert [row.equals_kernel for row in rows] == [False, True]


def test_several_models_are_listed_together(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Of both profiles: each against the kernel over itself, all against the first one's float network."""
    paths = [tmp_path / "portable.ernn", tmp_path / "operator.ernn"]
    data: dict[str, Any] = {"input_size": 12, "output_size": 9, "hidden_size": 6}
    profiles: tuple[Profile, ...] = ("portable", "tflite-lstm")
    for path, profile in zip(paths, profiles, strict=True):
        model = random_model(32, "lstm", profile=profile, **data)
        labels = tuple(f"speaker {number}" for number in range(1, 10))
        dataclasses.replace(
            model, labels=labels, provenance={"data": "vowels", "seed": int(profile == "portable")}
        ).save(path)
    found = succeed_json(capsys, "benchmark", *paths, "--sequences", "1")
    assert found["fingerprints"] == [QuantizedModel.load(path).fingerprint for path in paths]
    named = [(row["model"], row["name"]) for row in found["rows"] if row["equals_kernel"]]
    able = [EXACT, ["numba", "native", "litert", "tflm"]]
    assert named == [(str(path), name) for path, names in zip(paths, able, strict=True) for name in names]
    assert [row["equals_kernel"] for row in found["rows"]].count(False) == 0
    assert [row["sequence"]["ratio"] for row in found["rows"] if row["name"] == "numba"][0] == 1
    assert "operator.ernn was trained on other data than" in found["notes"][0]
    (tmp_path / "pi.json").write_text(json.dumps(found))
    said = succeed(capsys, "benchmark", *paths, "--sequences", "1", "--against", tmp_path / "pi.json")
    assert said.count(f"\n{paths[1]}  ") == 2 * 5
    fail(capsys, "its fingerprints is", "benchmark", paths[0], "--sequences", "1", "--against", tmp_path / "pi.json")
    fail(capsys, "operator.ernn is the same model as", "benchmark", paths[1], paths[1])
    other = tmp_path / "other.ernn"
    random_model(33, "gru", input_size=3).save(other)
    fail(capsys, "(12 channels, 9 outputs, classification, last) do not fit the model (3", "benchmark", *paths, other)


# ---- what is not here ------------------------------------------------------------------------------------------------


def hidden(*packages: str) -> str:
    return HIDE.format(hidden=packages)


def test_without_torch_and_numba_native_is_the_kernel(trained: Path) -> None:
    code = hidden("torch", "numba", "llvmlite", "onnx", "tflite_micro")
    done = subprocess_of("benchmark", trained / "model.ernn", "--sequences", "1", "--json", code=code)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert [row["name"] for row in found["rows"]] == ["litert float", "native", "litert"]
    assert [row["equals_kernel"] for row in found["rows"]] == [None, True, True]
    assert (found["reference"], found["kernel"]) == ("litert float", "native")
    assert set(found["missing"]) == {"numba", "tflm", "onnxruntime", "torch float"}
    assert all(row["memory"] > found["bare_memory"] for row in found["rows"])


def test_without_any_engine_it_says_so(trained: Path) -> None:
    code = hidden("torch", "numba", "onnx", "flatbuffers") + "import os; os.environ['CC'] = '/nowhere/cc'\n"
    done = subprocess_of("benchmark", trained / "model.ernn", code=code)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no engine of integers is installed here" in done.stderr


# ---- memory ----------------------------------------------------------------------------------------------------------


def test_memory_is_of_the_process_that_runs_it() -> None:
    """Not of this one, which starts it: its own largest size counts in getrusage's figure."""
    own = np.ones(1 << 26, np.float32)  # 256 MiB here
    bare, why = bare_memory()
    assert why == ""
    assert bare is not None
    assert 10_000_000 < bare < 100_000_000 < own.nbytes


def test_memory_that_cannot_be_measured_is_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    x = np.zeros((3, 2), np.float32)
    found, why = memory("onnxruntime", b"no model", ".onnx", x)
    assert found is None
    assert "INVALID_PROTOBUF" in why or "Protobuf" in why
    program = tmp_path / "python"
    program.write_bytes(b"\x7fELF of another processor")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr("sys.executable", str(program))
    found, why = memory("none", b"", "", x)
    assert found is None
    assert "OSError: [Errno 8] Exec format error" in why


# ---- another machine -------------------------------------------------------------------------------------------------


def test_an_lstm_here_and_on_another_machine(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "lstm"
    succeed(capsys, "train", "--data", "vowels", "--cell", "lstm", "--hidden", "6", "--epochs", "2", "-q", "-o", folder)
    found = succeed_json(capsys, "benchmark", folder / "model.ernn", "--sequences", "1")
    quality = {row["name"]: row["quality"] for row in found["rows"]}
    # LiteRT's own operator keeps its states from run to run: they must be cleared
    assert quality["litert float"] == quality["torch float"] == quality["onnxruntime float"]

    alone = folder / "alone.ernn"
    (folder / "model.ernn").rename(alone)
    found["machine"]["board"] = "Raspberry Pi 9"
    check_refusals(capsys, alone, found, tmp_path)
    (tmp_path / "pi.json").write_text(json.dumps(found))
    root = computer(tmp_path / "root", scaling_governor="powersave")
    monkeypatch.setattr("edgernn._device.condition", lambda: condition(root))
    monkeypatch.setattr("edgernn.benchmark.contenders", lambda *_: [kernel_alone(alone)])
    lines = succeed(capsys, "benchmark", alone, "--sequences", "1", "--against", tmp_path / "pi.json").splitlines()
    second = lines.index("runtime  sequence  step")
    assert lines[second + 1].startswith("numba ")  # what both have
    assert lines[second + 2] == ""
    assert any(line.startswith("median times here, as ratios to those of Raspberry Pi 9, ") for line in lines)
    assert lines[-1].startswith("warning: the frequency follows the load (governor powersave)")


def test_ratios_to_another_machine() -> None:
    def row(name: str, sequence: float, step: float | None) -> dict[str, Any]:
        return {
            "model": "m.ernn",
            "fingerprint": "f",
            "name": name,
            "sequence": {"median": sequence},
            "step": None if step is None else {"median": step},
        }

    here = [row("numba", 3.0, 1.0), row("native", 2.0, 1.0), row("tflm", 5.0, None)]
    there = [row("tflm", 2.0, None), row("litert", 1.0, 1.0), row("numba", 2.0, 4.0)]
    assert list(_compared(here, there)) == [
        {"model": "m.ernn", "name": "numba", "sequence": 1.5, "step": 0.25},
        {"model": "m.ernn", "name": "tflm", "sequence": 2.5, "step": None},
    ]


def check_refusals(capsys: pytest.CaptureFixture[str], model: Path, other: dict[str, Any], folder: Path) -> None:
    place = folder / "other.json"
    argv = ("benchmark", model, "--sequences", "1", "--against", place)
    fail(capsys, "other.json: No such file", *argv)
    for text in ("", "[]", "{}", "5", '{"rows": [{"name": 5}]}', "\xff"):
        place.write_text(text, encoding="latin-1")
        fail(capsys, "not what edgernn benchmark --json prints", *argv)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"fingerprints": ["0" * 16]}, r"its fingerprints is ['0000000000000000'], here ['"),
        ({"data": "ecg"}, "its data is ecg, here vowels"),
        ({"sequences": 7}, "its sequences is 7, here 1"),
        ({"machine": {}}, "not what"),
        (
            {"rows": [{"fingerprint": "f", "name": "numba", "sequence": {"median": 0.0}, "step": None}]},
            "no number above 0",
        ),
        (
            {"rows": [{"fingerprint": "f", "name": "numba", "sequence": {"median": "1"}, "step": None}]},
            "no number above 0",
        ),
    ]
    for change, message in wrong:
        place.write_text(json.dumps(other | change))
        fail(capsys, message, *argv)


# ---- the computer ----------------------------------------------------------------------------------------------------

FREQUENCY = "sys/devices/system/cpu/cpu{}/cpufreq/{}"
PI_5: dict[str, str] = {
    "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
    "proc/cpuinfo": "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\n\n" * 4,
    "proc/meminfo": "MemTotal:        8245472 kB\nMemFree:         7000000 kB\n",
    "proc/loadavg": "0.25 0.10 0.05 1/234 5678\n",
    "etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian"\n',
    **{FREQUENCY.format(core, "scaling_governor"): "performance\n" for core in range(4)},
    **{FREQUENCY.format(core, "scaling_cur_freq"): "2400000\n" for core in range(4)},
    **{FREQUENCY.format(core, "cpuinfo_max_freq"): "2400000\n" for core in range(4)},
    "sys/class/thermal/thermal_zone0/temp": "51200\n",
    "sys/devices/platform/soc/soc:firmware/get_throttled": "0\n",
}


def computer(folder: Path, **changes: str) -> Path:
    """A root with the files of a Raspberry Pi 5, some of them changed; keywords are ends of their names."""
    for name, text in PI_5.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(next((new for end, new in changes.items() if name.endswith(end)), text))
    return folder


def test_a_raspberry_pi(tmp_path: Path) -> None:
    root = computer(tmp_path)
    found = machine(root)
    del found["architecture"], found["python"]
    assert found == {
        "board": "Raspberry Pi 5 Model B Rev 1.0",
        "cpu": "Cortex-A76",
        "cores": 4,
        "ram_bytes": 8245472 * 1024,
        "os": "Debian GNU/Linux 12 (bookworm)",
    }
    now = condition(root)
    assert now == Condition(("performance",), 51.2, 2400.0, 2400.0, (), (), None, 0.25)
    assert warnings(now, now, 4) == []


def test_a_computer_that_tells_nothing(tmp_path: Path) -> None:
    nothing = condition(tmp_path)
    assert nothing == Condition((), None, None, None, (), (), None, None)
    assert warnings(nothing, nothing, 1) == []
    assert machine(tmp_path)["board"] is machine(tmp_path)["ram_bytes"] is None
    assert machine(tmp_path)["cpu"]


CHANGES: list[tuple[dict[str, str], dict[str, str], str]] = [
    (
        {"scaling_governor": "ondemand"},
        {},
        "follows the load (governor ondemand); for steady figures: echo performance",
    ),
    ({}, {"temp": "80000"}, "it was 80 degrees Celsius hot"),
    ({"temp": "80400"}, {}, "it was 80 degrees Celsius hot"),
    ({"loadavg": "2.04 1 1 1/1 1"}, {}, "other programs were running: load 2.0 on 4 cores before the start"),
    ({}, {"scaling_cur_freq": "1500000"}, "the frequency changed, from 2400 to 1500 MHz"),
    ({}, {"get_throttled": "0x80008"}, "it was slowed down during the run (soft temperature limit); cool it"),
    ({}, {"get_throttled": "50000"}, "(under-voltage, throttled); use a stronger power supply"),
    ({"get_throttled": "2"}, {"get_throttled": "20000"}, "(frequency capped)"),
]


@pytest.mark.parametrize(("before", "after", "message"), CHANGES)
def test_what_spoils_figures_is_warned_of(
    tmp_path: Path, before: dict[str, str], after: dict[str, str], message: str
) -> None:
    earlier, later = condition(computer(tmp_path / "a", **before)), condition(computer(tmp_path / "b", **after))
    (found,) = warnings(earlier, later, 4)
    assert message in found


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"get_throttled": "50000"}, {"get_throttled": "50000"}),  # some time since it started, and not again
        ({"temp": "79900"}, {"loadavg": "4.0 1 1 1/1 1"}),  # the benchmark itself
        ({"scaling_cur_freq": "2399000"}, {}),
        ({"temp": "asleep", "loadavg": "", "get_throttled": "?"}, {}),
    ],
)
def test_what_does_not_spoil_them_is_not(tmp_path: Path, before: dict[str, str], after: dict[str, str]) -> None:
    earlier, later = condition(computer(tmp_path / "a", **before)), condition(computer(tmp_path / "b", **after))
    assert warnings(earlier, later, 4) == []


def test_the_flags_come_from_vcgencmd_where_there_is_no_file(tmp_path: Path) -> None:
    root = computer(tmp_path)
    (root / "sys/devices/platform/soc/soc:firmware/get_throttled").unlink()
    program = root / "usr/bin/vcgencmd"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho throttled=0x50005\n")
    program.chmod(0o755)
    found = condition(root)
    assert found.throttled == found.was_throttled == ("under-voltage", "throttled")


def test_an_x86_counts_how_often_it_was_too_hot(tmp_path: Path) -> None:
    path = tmp_path / "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count"
    path.parent.mkdir(parents=True)
    path.write_text("7\n")
    before = condition(tmp_path)
    assert before.throttle_count == 7
    assert warnings(before, before, 1) == []
    assert "(too hot)" in warnings(before, dataclasses.replace(before, throttle_count=8), 1)[0]
