"""What the firmware costs: instructions of a step, counted exactly under emulation, on all cores.

    python -m tests.benchmarks.firmware [CORE ..]

One layer of 12 inputs without a head, random weights and inputs, the mean of 20 steps after the first call's prologue.
Cycles are modelled at zero wait states, with the core's stated error. Peers do the same work: CMSIS-NN's LSTM
(arm_lstm_unidirectional_s8, its best build; the profile tflite-lstm has its integers too) and NNoM's local backend.
"""

import sys
from collections.abc import Iterator
from typing import Final, Literal, NamedTuple

from edgernn.cli._output import table
from edgernn.firmware_sim.cycles import CORES, find_board
from edgernn.qmodel import Profile, Scheme
from edgernn.simulate import Simulation, missing, simulate
from tests.models import Variant, random_input, random_model

INPUTS: Final = 12
STEPS: Final = 20
Kind = Scheme | Literal["tflite-lstm"]
Shape = tuple[Variant, int, Kind]

SHAPES: Final[tuple[Shape, ...]] = (
    ("lstm", 32, "w8a8"),
    ("lstm", 128, "w8a8"),
    ("gru", 32, "w8a8"),
    ("gru", 128, "w8a8"),
    ("gru_before", 32, "w8a8"),
    ("rnn", 32, "w8a8"),
    ("rnn", 128, "w8a8"),
    ("lstm", 32, "w8a16"),
    ("lstm", 128, "w8a16"),
    ("gru", 32, "w8a16"),
    ("gru", 128, "w8a16"),
    ("rnn", 32, "w8a16"),
    ("lstm", 32, "tflite-lstm"),
    ("lstm", 128, "tflite-lstm"),
)

TARGETS: Final[dict[tuple[str, Shape], int]] = {
    ("cortex-m0", ("lstm", 32, "w8a8")): 42_500,
    ("cortex-m4", ("lstm", 32, "w8a8")): 12_500,
    ("cortex-m33", ("lstm", 32, "w8a8")): 12_500,
    ("cortex-m55", ("lstm", 32, "w8a8")): 4_500,
    ("cortex-m4", ("lstm", 128, "w8a8")): 95_500,
    ("cortex-m4", ("gru", 32, "w8a8")): 10_000,
    ("cortex-m4", ("gru", 128, "w8a8")): 75_000,
}


class Peer(NamedTuple):
    name: str
    instructions: int


_MEASURED: Final[dict[tuple[str, Shape], Peer]] = {
    ("cortex-m0", ("lstm", 32, "w8a8")): Peer("CMSIS-NN", 77_586),
    ("cortex-m3", ("lstm", 32, "w8a8")): Peer("CMSIS-NN", 36_195),
    ("cortex-m4", ("lstm", 32, "w8a8")): Peer("CMSIS-NN", 27_313),
    ("cortex-m7", ("lstm", 32, "w8a8")): Peer("CMSIS-NN", 30_416),
    ("cortex-m33", ("lstm", 32, "w8a8")): Peer("CMSIS-NN", 30_172),
    ("cortex-m55", ("lstm", 32, "w8a8")): Peer("CMSIS-NN", 12_465),
    ("cortex-m4", ("lstm", 128, "w8a8")): Peer("CMSIS-NN", 197_295),
    ("cortex-m7", ("lstm", 128, "w8a8")): Peer("CMSIS-NN", 209_233),
    ("cortex-m33", ("lstm", 128, "w8a8")): Peer("CMSIS-NN", 208_344),
    ("cortex-m55", ("lstm", 128, "w8a8")): Peer("CMSIS-NN", 67_945),
    ("cortex-m4", ("gru", 32, "w8a8")): Peer("NNoM", 32_744),
    ("cortex-m4", ("gru", 128, "w8a8")): Peer("NNoM", 313_615),
}
_LSTMS: Final[dict[tuple[str, Shape], Peer]] = {
    (core, (cell, size, "tflite-lstm")): peer for (core, (cell, size, _)), peer in _MEASURED.items() if cell == "lstm"
}
PEERS: Final = {**_MEASURED, **_LSTMS}


def measured(core: str, cell: Variant, hidden_size: int, kind: Kind) -> Simulation:
    """Raises ValueError for what does not fit the core, and for outputs that are not the kernel's."""
    scheme: Scheme = "w8a8" if kind == "tflite-lstm" else kind
    profile: Profile = "tflite-lstm" if kind == "tflite-lstm" else "portable"
    model = random_model(0, cell, scheme, input_size=INPUTS, hidden_size=hidden_size, head=None, profile=profile)
    found = simulate(model, core, steps=STEPS, level="counted", x=random_input(model, STEPS, 0))
    if not found.equals_kernel:
        raise ValueError("the outputs DIFFER from the kernel's")
    return found


def rows(core: str) -> Iterator[tuple[object, ...]]:
    for shape in SHAPES:
        cell, hidden_size, kind = shape
        try:
            found = measured(core, cell, hidden_size, kind)
        except ValueError as error:
            yield core, f"{cell} {INPUTS}->{hidden_size} {kind}", str(error), *(None,) * 9
            continue
        count = round(found.step.instructions)
        target, peer = TARGETS.get((core, shape)), PEERS.get((core, shape))
        yield (
            core,
            f"{cell} {INPUTS}->{hidden_size} {kind}",
            count,
            target,
            None if target is None else "yes" if count <= target else f"NO, {count - target:,} over",
            None
            if peer is None
            else f"{peer.instructions / count:.2f}x fewer than {peer.name} ({peer.instructions:,})",
            f"{count / found.step.macs:.2f}",
            round(found.step.core_cycles),
            f"{found.cycle_error:.0%}",
            found.memory.code,
            found.memory.state,
            found.memory.stack,
        )


HEADERS: Final = (
    "core",
    "layer",
    "instructions",
    "target",
    "met",
    "against peers",
    "/MAC",
    "cycles",
    "+-",
    "code",
    "state",
    "stack",
)


def on_the_l4r5(name: str) -> str:
    """A whole GRU against TensorFlow Lite Micro's published 810 KB of flash, 295 KB of RAM and 374 ms on this board."""
    model = random_model(0, "gru", input_size=32, hidden_size=64, head="last", output_size=10)
    board = find_board(name)
    found = simulate(model, "cortex-m4", board=board, steps=100, level="counted")
    seconds = found.inference.seconds
    assert seconds is not None
    rows = [
        ("flash, bytes", found.memory.flash, "30,000", "yes" if found.memory.flash < 30_000 else "NO"),
        ("RAM, bytes", found.memory.ram, "1,000", "yes" if found.memory.ram < 1_000 else "NO"),
        ("time, ms", f"{1e3 * seconds:.2f}", "36", "yes" if seconds < 36e-3 else "NO"),
    ]
    shares = f"{found.inference.core_cycles:,.0f} cycles of the core, {found.inference.flash_cycles:,.0f} of the flash"
    title = f"GRU 32->64, 100 steps, head 10, {board.title} at 120 MHz: {shares}, +-{found.cycle_error:.0%}"
    return f"{title}\n{table(('', 'found', 'below', 'met'), rows)}\n"


def main() -> None:
    for core in sys.argv[1:] or CORES:
        cure = missing(core)
        print(f"{core}: {cure}" if cure else table(HEADERS, rows(core)), end="\n\n", flush=True)
    for name in ("nucleo-l4r5zi", "nucleo-l4r5zi-single-bank"):
        print(on_the_l4r5(name))


if __name__ == "__main__":
    main()
