"""Timing in turns: all contenders once a round, so that a slow moment hits them alike; ratios are of the same round."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Final

Call = Callable[[], object]
Clock = Callable[[], float]

READING: Final = 0.02  # seconds at least of one reading: what takes less is called repeatedly
SLOW: Final = 0.25  # seconds of a call: what takes more has a turn in every fourth round
ROUNDS: Final = 12


@dataclass(frozen=True)
class Timing:
    """Seconds of a call, in every round in which it had a turn."""

    readings: Mapping[int, float]

    @property
    def seconds(self) -> float:
        return median(self.readings.values())

    @property
    def fastest(self) -> float:
        return min(self.readings.values())

    def over(self, reference: "Timing") -> float:
        """How many times the reference's: the median over the rounds that both took part in."""
        return median(self.readings[turn] / reference.readings[turn] for turn in self.readings.keys() & reference.turns)

    @property
    def turns(self) -> set[int]:
        return set(self.readings)


def measure(
    contenders: Mapping[str, Call], clock: Clock = time.process_time, rounds: int = ROUNDS
) -> dict[str, Timing]:
    """The contenders' times, CPU seconds of all threads by default. Each is called twice before anything counts."""
    names = list(contenders)
    repeats, every = {}, {}
    for name, call in contenders.items():
        call()
        seconds = _reading(call, 1, clock)
        repeats[name] = math.ceil(READING / max(seconds, 1e-6))
        every[name] = 4 if seconds > SLOW else 1
    readings: dict[str, dict[int, float]] = {name: {} for name in contenders}
    for turn in range(rounds):
        for name in names if turn % 2 == 0 else reversed(names):
            if turn % every[name] == 0:
                if every[name] == 1:
                    contenders[name]()  # brings its own data into the caches, which the contender before has filled
                readings[name][turn] = _reading(contenders[name], repeats[name], clock)
    return {name: Timing(found) for name, found in readings.items()}


def _reading(call: Call, repeats: int, clock: Clock) -> float:
    start = clock()
    for _ in range(repeats):
        call()
    return (clock() - start) / repeats
