"""The cycle model's error against published figures of boards, and that the stored profiles are the runs' own."""

import random

import pytest

from edgernn.firmware_sim.cycles import Instruction, cycles, find_board, find_core

from .benchmarks.validation import load, names, row, rows, table
from .profiles import modelled, reduce

# Percent, modelled against published, as `python -m tests.benchmarks.validation` prints them: a change of the model
# that moves one must be stated here.
STATED = {
    "ad_microtvm_cmsis_nn": -6,
    "ad_microtvm_native": -2,
    "nnom_gru_1": -4,
    "nnom_gru_2": -5,
    "nnom_gru_3": -16,  # 149 us: what NNoM does around a layer weighs most on the smallest
    "nnom_gru_4": -2,
    "nnom_gru_5": -1,
}
INDICATIVE = ["ad_microtvm_cmsis_nn_m33"]  # only held to the error that its core states


def test_every_published_figure_is_stated() -> None:
    assert names() == sorted([*STATED, *INDICATIVE])


@pytest.mark.parametrize("name", sorted(STATED))
def test_the_error_against_the_board_is_the_stated_one(name: str) -> None:
    assert round(100 * row(name).error) == STATED[name]


def test_whole_networks_lie_within_the_error_that_the_core_states() -> None:
    for one in rows():
        core = find_core(find_board(one.board).core)
        if not one.title.startswith("GRU"):
            assert abs(one.error) <= core.error, f"{one.title}, {one.software}: {one.error:+.1%}, stated {core.error}"


@pytest.mark.parametrize("name", names())
def test_provenance(name: str) -> None:
    data = load(name)
    assert data["executed"] == sum(pair.executed for pair in data["profile"])
    assert data["published"]["address"].startswith("https://")
    assert all(len(source["commit"]) == 40 and source["files"] for source in data["sources"])
    assert all(data[said] for said in ("compiler", "flags", "emulator", "work", "data", "streamed_what", "differs"))


def test_the_table_names_every_row() -> None:
    assert len(table().splitlines()) == len(names()) + 3  # two lines of head, and the sum of NNoM's layers


# ---- the reduction to a profile loses nothing that costs -------------------------------------------------------------

_REGISTERS = [*(f"r{n}" for n in range(9)), "ip", "lr"]
_FORMS = [
    ("ldr.w", "{0}, [{1}, #12]"),
    ("ldrsb", "{0}, [{1}, {2}]"),
    ("ldr", "{0}, [pc, #40]"),
    ("str", "{0}, [{1}]"),
    ("strh.w", "{0}, [{1}, {2}, lsl #1]"),
    ("ldrd", "{0}, {1}, [{2}], #8"),
    ("ldmia", "{0}!, {{r4-r7}}"),
    ("pop", "{{r4, r5, {0}, pc}}"),
    ("add.w", "{0}, {1}, {2}"),
    ("smlal", "{0}, {1}, {2}, {0}"),
    ("cmp", "{0}, {1}"),
    ("mla", "{0}, {1}, {2}, {0}"),
    ("udiv", "{0}, {1}, {2}"),
    ("it", "ne"),
    ("bne.n", "8012 <loop+0x4>"),
    ("bl", "9000 <call>"),
    ("bx", "lr"),
]


def _program(seed: int) -> list[Instruction]:
    """Random counted instructions; one in eight did not run."""
    rng = random.Random(seed)
    program = []
    for _ in range(300):
        mnemonic, form = rng.choice(_FORMS)
        executed = rng.choice([0, 1, 7, 100, 1000, 1000, 1000, 99])
        leaves = mnemonic.startswith(("b", "pop"))
        taken = rng.randint(0, executed) if leaves else 0
        program.append(Instruction(mnemonic, form.format(*rng.sample(_REGISTERS, 3)), executed, taken))
    return program


@pytest.mark.parametrize("core", ["cortex-m0", "cortex-m0plus", "cortex-m3", "cortex-m4"])
@pytest.mark.parametrize("seed", range(5))
def test_a_profile_costs_what_its_run_costs(core: str, seed: int) -> None:
    program = _program(seed)
    assert modelled(core, reduce(program)) == cycles(core, program)


def test_a_profile_is_no_listing() -> None:
    profile = reduce(_program(0))
    assert len(profile) < 300
    assert not any("0x" in pair.operands or "12" in pair.operands for pair in profile)
    assert reduce(reversed(_program(0))) != profile  # neighbours count, in their order
