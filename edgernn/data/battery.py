"""A simulated lithium cell: estimate the state of charge at every step from voltage, current and temperature.

The cell is the second-order Thevenin model of M. Chen and G. A. Rincon-Mora, "Accurate electrical battery model capable
of predicting runtime and I-V performance", IEEE Transactions on Energy Conversion 21 (2), 2006, with that paper's
curves for an 850 mAh polymer cell; every simulated cell differs from it in capacity and resistance.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from .dataset import Dataset, Split

Array = npt.NDArray[np.float64]

CHANNELS: Final = ("voltage [V]", "current [A]", "temperature [degC]")
STEP_S: Final = 10.0
CAPACITY_AH: Final = 0.85
TIME_CONSTANTS_S: Final = (33.0, 223.0)  # R * C of the paper's two branches at full charge
SOC_RANGE: Final = (0.05, 0.97)  # below, the paper's curves no longer hold; the profile stays within
HEAT_CAPACITY_J_K: Final = 20.0
THERMAL_RESISTANCE_K_W: Final = 20.0
ACTIVATION_K: Final = 2000.0  # resistances grow as exp(2000 K / T) towards the cold (+26 % from 25 to 15 degC)
NOISE: Final = (0.004, 0.005, 0.2)  # of the three channels, standard deviation
OFFSET_A: Final = 0.005  # of the current sensor, constant over a sequence, standard deviation


@dataclass(frozen=True)
class Cells:
    """N cells before the first step: capacity [Ah], resistance relative to the paper's, charge 0..1, ambient [degC]."""

    capacity: Array
    resistance: Array
    charge: Array
    ambient: Array


def make_battery(n_train: int = 256, n_test: int = 64, steps: int = 360, seed: int = 0) -> Dataset:
    """Voltage, current (positive discharges) and temperature of random cells under random loads, with sensor noise.

    A step is 10 s. The target is the state of charge (0 .. 1) at the same step: y [N, steps, 1]. The test part holds
    other cells than the training part.
    Raises ValueError unless all sizes are at least 1.
    """
    if min(n_train, n_test, steps) < 1:
        raise ValueError(f"n_train, n_test and steps must be at least 1, not {n_train}, {n_test} and {steps}")
    rng = np.random.default_rng(seed)
    return Dataset(
        name="battery",
        task="regression",
        head="steps",
        train=_part(rng, n_train, steps),
        test=_part(rng, n_test, steps),
        labels=(),
        channels=CHANNELS,
        source=f"simulated: 2-RC Thevenin cell (Chen and Rincon-Mora 2006), seed {seed}",
    )


def open_circuit_voltage(charge: Array) -> Array:
    """Volts at rest for a state of charge in 0 .. 1, the paper's fit."""
    return -1.031 * np.exp(-35 * charge) + 3.685 + 0.2156 * charge - 0.1178 * charge**2 + 0.3201 * charge**3


def resistances(charge: Array) -> tuple[Array, Array, Array]:
    """Ohms at 25 degC of the series resistor and of the short and the long RC branch, the paper's fits."""
    series = 0.1562 * np.exp(-24.37 * charge) + 0.07446
    short = 0.3208 * np.exp(-29.14 * charge) + 0.04669
    long = 6.603 * np.exp(-155.2 * charge) + 0.04984
    return series, short, long


def simulate_cells(current: Array, cells: Cells) -> tuple[Array, Array, Array]:
    """(terminal voltage [V], state of charge, temperature [degC]), each [N, T], for the currents [N, T] in A.

    Every current is held for one step; the values are those at the step's beginning, with its current flowing.
    """
    spent = np.cumsum(current, axis=1) * STEP_S / (3600 * cells.capacity[:, None])
    charge = cells.charge[:, None] - np.concatenate([np.zeros((len(current), 1)), spent[:, :-1]], axis=1)
    rest = open_circuit_voltage(charge)
    series, short, long = resistances(charge)
    decay_short, decay_long = (np.exp(-STEP_S / tau) for tau in TIME_CONSTANTS_S)
    voltage, temperature = np.empty_like(current), np.empty_like(current)
    over_short, over_long = np.zeros(len(current)), np.zeros(len(current))
    warmth = cells.ambient.copy()
    for t in range(current.shape[1]):
        now = current[:, t]
        factor = cells.resistance * np.exp(ACTIVATION_K * (1 / (warmth + 273.15) - 1 / 298.15))
        loss = factor * series[:, t] * now + over_short + over_long
        voltage[:, t], temperature[:, t] = rest[:, t] - loss, warmth
        over_short = decay_short * over_short + (1 - decay_short) * factor * short[:, t] * now
        over_long = decay_long * over_long + (1 - decay_long) * factor * long[:, t] * now
        cooling = (warmth - cells.ambient) / THERMAL_RESISTANCE_K_W
        warmth = warmth + STEP_S / HEAT_CAPACITY_J_K * (loss * now - cooling)
    return voltage, charge, temperature


def _part(rng: np.random.Generator, count: int, steps: int) -> Split:
    cells = Cells(
        capacity=CAPACITY_AH * rng.uniform(0.85, 1.05, count),
        resistance=rng.uniform(0.85, 1.25, count),
        charge=rng.uniform(*SOC_RANGE, count),
        ambient=rng.uniform(10.0, 35.0, count),
    )
    current = _load_profile(rng, cells, steps)
    voltage, charge, temperature = simulate_cells(current, cells)
    sensed = np.stack([voltage, current + rng.normal(0, OFFSET_A, (count, 1)), temperature], axis=2)
    x = (sensed + rng.normal(0, NOISE, sensed.shape)).astype(np.float32)
    return Split(x, np.full(count, steps, np.int64), charge[..., None].astype(np.float32))


def _load_profile(rng: np.random.Generator, cells: Cells, steps: int) -> Array:
    """[N, T] A: rests, charging up to 0.5 C and discharging up to 1.5 C for 5 minutes on average, within SOC_RANGE."""
    count = len(cells.charge)
    change = rng.random((count, steps)) < STEP_S / 300
    rate = rng.choice([-0.5, 0.0, 1.5], (count, steps), p=[0.35, 0.15, 0.5]) * rng.uniform(0.2, 1.0, (count, steps))
    lowest, highest = SOC_RANGE
    now, charge = rate[:, 0], cells.charge.copy()
    current = np.empty((count, steps))
    for t in range(steps):
        now = np.where(change[:, t], rate[:, t], now)
        after = charge - now * CAPACITY_AH * STEP_S / (3600 * cells.capacity)
        now = np.where((after < lowest) | (after > highest), 0.0, now)
        charge = charge - now * CAPACITY_AH * STEP_S / (3600 * cells.capacity)
        current[:, t] = now * CAPACITY_AH
    return current
