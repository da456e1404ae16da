"""The cycle model: listings, the tables' own examples, boards."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edgernn.firmware_sim.cycles import (
    BOARDS,
    CORES,
    Instruction,
    cycles,
    disassemble,
    find_board,
    find_core,
    instructions,
    parse_listing,
)

Line = tuple[str, str] | tuple[str, str, int]


def once(*lines: Line, executed: int = 1) -> list[Instruction]:
    """Instructions that ran so often each; a third entry counts how often they were taken in a run."""
    return [Instruction(line[0], line[1], executed, executed * (line[2] if len(line) > 2 else 0)) for line in lines]


# ---- what the manuals print ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        # "Some optimized examples" of the load/store timings: Arm DDI 0337I section 3.3.3, TI SWCU185G
        ([("ldr", "r0, [r1]"), ("ldr", "r1, [r2]")], 3),
        ([("ldr", "r0, [r1, r2]"), ("str", "r0, [r3, #20]")], 3),
        ([("ldr", "r0, [r1, r2]"), ("str", "r1, [r3, r2]")], 3),
        ([("ldr", "r0, [r1, r5]"), ("ldr", "r1, [r2]"), ("ldr", "r2, [r3, #4]")], 4),
        # "the destination of the first LDR is not used to compute the address for the next instruction"
        ([("ldr", "r0, [r1]"), ("ldr", "r2, [r0, #4]")], 4),
        # "STR Rx,[Ry,#imm] is always one cycle"; "nothing can be pipelined after the store"
        ([("str", "r0, [r1, #4]"), ("str.w", "r2, [r1, #8]")], 2),
        ([("str", "r0, [r1, #4]"), ("ldr", "r2, [r1, #8]")], 3),
        # "an address dependent on the result of a preceding data processing operation stalls .. an additional cycle"
        ([("add.w", "r1, r2, r3"), ("ldr", "r0, [r1]")], 4),
        ([("add.w", "r4, r2, r3"), ("ldr", "r0, [r1]")], 3),
        ([("cmp", "r1, #3"), ("ldr", "r0, [r1]")], 3),
        # "LDRD and STRD .. requires three cycles when not stalled", and does not pair
        ([("ldrd", "r4, r5, [r0]"), ("ldr", "r1, [r2]")], 5),
        # Arm 100166_0001 table 3-1: LDM 1 + N, MLA 1, SMULL 1, SMLAD 1
        ([("ldmia.w", "r0!, {r4, r5, r6, r7}")], 5),
        ([("push", "{r4, r5, r6, r7, lr}")], 6),
        ([("mla", "r0, r1, r2, r3"), ("smull", "r0, r1, r2, r3"), ("smlad", "r0, r1, r2, r3")], 3),
        # branches 1 + P when taken, P = 2 of 1..3
        ([("bne.n", "8010")], 1),
        ([("bne.n", "8010", 1)], 3),
        ([("pop", "{r4, pc}", 1)], 5),
        ([("ldr.w", "pc, [r0]", 1)], 4),
    ],
)
def test_the_m4s_manual(lines: list[Line], expected: float) -> None:
    assert cycles("cortex-m4", once(*lines)) == expected


@pytest.mark.parametrize(
    ("core", "lines", "expected"),
    [
        # Arm DDI 0337E table 18-1
        ("cortex-m3", [("mla", "r0, r1, r2, r3"), ("mul", "r0, r1, r2")], 3),
        ("cortex-m3", [("smull", "r0, r1, r2, r3")], 4),  # 3 to 5
        ("cortex-m3", [("smlal", "r0, r1, r2, r3")], 5.5),  # 4 to 7
        # Arm DDI 0432C table 3-1 (M0) and DDI 0484C table 3-1 (M0+)
        ("cortex-m0", [("muls", "r0, r1"), ("adds", "r0, #1")], 2),
        ("cortex-m0", [("ldr", "r0, [r1]"), ("ldr", "r2, [r1]"), ("strb", "r2, [r3, #1]")], 6),
        ("cortex-m0", [("b.n", "80", 1), ("bl", "90", 1), ("bx", "lr", 1)], 3 + 4 + 3),
        ("cortex-m0", [("ldmia", "r0!, {r1, r2, r3}"), ("pop", "{r4, r5, pc}", 1)], 4 + 7),
        ("cortex-m0plus", [("b.n", "80", 1), ("bl", "90", 1), ("bx", "lr", 1)], 2 + 3 + 2),
        ("cortex-m0plus", [("ldmia", "r0!, {r1, r2, r3}"), ("pop", "{r4, r5, pc}", 1)], 4 + 6),
        ("cortex-m0plus", [("beq.n", "80")], 1),
        # Ibex, pipeline details: a stall for memory, 2 for mul, 3 for mulh, 1 for a jump, 2 for a taken branch
        (
            "rv32imc",
            [("lw", "a5,0(a0)"), ("mul", "a0,a1,a2"), ("mulh", "a0,a1,a2"), ("add", "a0,a1,a2")],
            2 + 3 + 4 + 1,
        ),
        ("rv32imc", [("bnez", "a0,80", 1), ("bnez", "a0,80"), ("ret", "", 1)], 3 + 1 + 2),
        # two cycles a vector instruction, in parallel to one of another unit
        ("cortex-m55", [("vldrb.u8", "q0, [r0]"), ("vmladava.s8", "r2, q0, q1")], 2),
        ("cortex-m55", [("vmladava.s8", "r2, q0, q1"), ("vmladava.s8", "r4, q0, q2")], 3),
        ("cortex-m55", [("vldrw.u32", "q0, [r0, q1, uxtw #2]")], 1 + 2),
        ("cortex-m55", [("le", "lr, 80", 1), ("add", "r0, r1, r2")], 1),
    ],
)
def test_other_cores(core: str, lines: list[Line], expected: float) -> None:
    assert cycles(core, once(*lines)) == expected


def test_scaled_cores_follow_the_m4() -> None:
    program = once(("ldr", "r0, [r1]"), ("smlad", "r0, r1, r2, r3"), ("bne.n", "80", 1))
    for name in ("cortex-m7", "cortex-m33"):
        core = CORES[name]
        assert core.indicative
        assert cycles(core, program) == pytest.approx(core.factor * cycles("cortex-m4", program))


def test_scaled_cores_allow_what_boards_show() -> None:
    """The cores' own cycles, of one network: the M4's 1,033 thousand hold 169 of flash wait states."""
    for name, ratios in {
        "cortex-m7": (512 / 909, 512 / (823 - 169)),
        "cortex-m33": (805 / (1033 - 169), 588 / 486),
    }.items():
        core = CORES[name]
        for ratio in ratios:
            assert abs(ratio / core.factor - 1) < core.error + 1e-9, f"{name}: {ratio:.2f}"


@pytest.mark.parametrize("name", CORES)
def test_cycles_count_every_run(name: str) -> None:
    lines: list[Line] = [("ldr", "r0, [r1]"), ("ldr", "r2, [r3]"), ("mul", "r0, r2, r0"), ("bne", "80", 1)]
    single, many = cycles(name, once(*lines)), cycles(name, once(*lines, executed=1000))
    assert many == pytest.approx(1000 * single)
    assert cycles(name, []) == 0
    assert cycles(name, [Instruction("ldr", "r0, [r1]", 0, 0)]) == 0


def test_what_did_not_run_breaks_the_chain() -> None:
    first, last = once(("ldr", "r0, [r1]"), ("ldr", "r2, [r3]"))
    between = Instruction("nop", "", 0, 0)
    assert cycles("cortex-m4", [first, between, last]) == cycles("cortex-m4", [first, last]) + 1


def test_only_what_came_from_the_instruction_before_pairs() -> None:
    """A loop's first load runs ten times, the load before the loop once."""
    program = [Instruction("ldr", "r0, [r1]", 1, 0), Instruction("ldr", "r2, [r3]", 10, 0)]
    assert cycles("cortex-m4", program) == 2 + 10 * 2 - 1


@pytest.mark.parametrize("name", CORES)
def test_only_what_can_branch_refills_the_pipeline(name: str) -> None:
    """A count of the next instruction lying elsewhere may come from an interrupt, or from the emulator."""
    for line in [("add", "r0, r1, r2"), ("ldr", "r0, [r1]"), ("lw", "a0,0(a1)"), ("push", "{r4, lr}")]:
        assert cycles(name, [Instruction(*line, 8, 8)]) == cycles(name, [Instruction(*line, 8, 0)])


def test_every_core_states_source_and_error() -> None:
    for name, core in CORES.items():
        assert name == core.name
        assert core.source
        assert core.validation
        assert 0 < core.error < 1
    with pytest.raises(ValueError, match="unknown core 'cortex-m99'; known are cortex-m0"):
        find_core("cortex-m99")


# ---- listings --------------------------------------------------------------------------------------------------------

SOURCE = """
    .syntax unified
    .thumb
    .global f
    .type f, %function
f:  push {r4, lr}
    ldr r3, [pc, #8]
1:  ldrb.w r1, [r0, r3]
    subs r3, #1
    bne 1b
    pop {r4, pc}
    .align 2
    .word 0x12345678
"""
VECTORS = """
    .syntax unified
    .thumb
    .global f
    .type f, %function
f:  dls lr, r0
1:  vldrb.u8 q0, [r0], #16
    vmladava.s8 r2, q0, q1
    le lr, 1b
"""


def assembled(folder: Path, source: str, core: str) -> bytes:
    """An object file without attributes, as an image of firmware has none."""
    assert shutil.which("arm-none-eabi-gcc"), "apt install gcc-arm-none-eabi"
    (folder / "f.s").write_text(source)
    compiled = ["arm-none-eabi-gcc", f"-mcpu={core}", "-mthumb", "-c", "f.s", "-o", "f.o"]
    for command in (compiled, ["arm-none-eabi-objcopy", "-R", ".ARM.attributes", "f.o"]):
        subprocess.run(command, cwd=folder, check=True)
    return (folder / "f.o").read_bytes()


def test_what_objdump_prints_is_read(tmp_path: Path) -> None:
    listing = disassemble(assembled(tmp_path, SOURCE, "cortex-m4"), "cortex-m4")
    assert list(listing.items())[:6] == [
        (0, ("push", "{r4, lr}")),
        (2, ("ldr", "r3, [pc, #8]")),
        (4, ("ldrb.w", "r1, [r0, r3]")),
        (8, ("subs", "r3, #1")),
        (10, ("bne.n", "4")),
        (12, ("pop", "{r4, pc}")),
    ]
    assert all(mnemonic == "nop" for address, (mnemonic, _) in listing.items() if address > 12)
    bare = "   0:\tb510      \tpush\t{r4, lr}", "   0:\tpush\t{r4, lr}"
    assert [parse_listing(line) for line in bare] == [{0: ("push", "{r4, lr}")}] * 2
    counted = instructions(listing, {0: 1, 10: 5}, {10: 4})
    assert [(one.executed, one.taken) for one in counted[:6]] == [(1, 0), (0, 0), (0, 0), (0, 0), (5, 4), (0, 0)]


def test_vector_instructions_are_read(tmp_path: Path) -> None:
    """objdump takes them for a coprocessor's where the file does not say which core it is for."""
    listing = disassemble(assembled(tmp_path, VECTORS, "cortex-m55"), "cortex-m55")
    assert [mnemonic for mnemonic, _ in listing.values()] == ["dls", "vldrb.u8", "vmlava.s8", "le"]
    program = [Instruction(*line, 1, 0) for line in listing.values()]
    assert cycles("cortex-m55", program[1:3]) == 2


def test_what_is_no_program_is_refused() -> None:
    with pytest.raises(ValueError, match="objdump fails: .*not recognized"):
        disassemble(b"no ELF file", "cortex-m4")


def test_riscv_listings_are_read() -> None:
    text = "8010 <f>:\n    8010:\t00052783          \tlw\ta5,0(a0) # 9000 <x>\n    8014:\t8082                \tret\n"
    assert parse_listing(text) == {0x8010: ("lw", "a5,0(a0)"), 0x8014: ("ret", "")}


def test_counts_outside_of_the_listing_are_refused() -> None:
    with pytest.raises(ValueError, match="2 counted addresses are not in the listing, the first is 0x20"):
        instructions({0x10: ("nop", "")}, {0x10: 1, 0x20: 5, 0x30: 1, 0x40: 0}, {})


# ---- boards ----------------------------------------------------------------------------------------------------------


def test_wait_states_rise_with_the_clock() -> None:
    for name, board in BOARDS.items():
        assert name == board.name
        assert board.core in CORES
        limits, states = np.array(board.wait_states).T
        assert (np.diff(limits) > 0).all()
        assert (np.diff(states) > 0).all()
        assert board.source
        assert board.current_source or board.microamps_per_mhz is None


def test_weights_wait_for_the_flash() -> None:
    board = find_board("nucleo-l4r5zi")
    assert board.cycles_per_byte(120e6) == 5 / 8
    assert board.cycles_per_byte(20e6) == 0
    assert board.flash_cycles(120e6, 4096) == 2560
    cached = find_board("stm32h743")
    assert cached.flash_cycles(400e6, cached.cache_bytes) == 0
    assert cached.flash_cycles(400e6, cached.cache_bytes + 32) > 0
    for clock in (0.0, -1.0, 121e6):
        with pytest.raises(ValueError, match="NUCLEO-L4R5ZI runs at up to 120 MHz"):
            board.cycles_per_byte(clock)


def test_energy_is_current_times_voltage_times_time() -> None:
    board = find_board("nrf52840")
    seconds, amperes = 2.0, 52e-6 * 64
    assert board.energy(seconds * 64e6) == pytest.approx(amperes * seconds * 3.0)
    assert find_board("nrf5340").energy(1e6) is None


def test_what_does_not_fit_says_by_how_much() -> None:
    board = find_board("microbit")
    board.check_memory(256 * 1024, 16 * 1024)
    with pytest.raises(ValueError, match="needs 262,151 bytes of flash, .* has 262,144: 7 bytes too many"):
        board.check_memory(256 * 1024 + 7, 0)
    with pytest.raises(ValueError, match="bytes of RAM, .*: 1 bytes too many"):
        board.check_memory(0, 16 * 1024 + 1)
    copied = find_board("rp2040")
    copied.check_memory(200 * 1024, 64 * 1024)
    with pytest.raises(ValueError, match=r"270,337 bytes of RAM \(it runs from there\), .*: 1 bytes too many"):
        copied.check_memory(200 * 1024 + 1, 64 * 1024)
    assert copied.flash_cycles(133e6, 200 * 1024) == 0
    with pytest.raises(ValueError, match="unknown board 'pico'; known are nucleo-l4r5zi"):
        find_board("pico")
