"""A simulated electrocardiogram: find every R peak, 80 ms after it happened.

The signal is that of P. E. McSharry, G. D. Clifford, L. Tarassenko, L. A. Smith, "A dynamical model for generating
synthetic electrocardiogram signals", IEEE Transactions on Biomedical Engineering 50 (3), 2003 (ECGSYN), with table I's
angles, heights and widths, drawn anew around them for every sequence.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from .dataset import Dataset, Split

Array = npt.NDArray[np.float64]

CHANNELS: Final = ("ecg [mV]", "slope [mV/sample]")
LABELS: Final = ("no peak", "R peak")
RATE_HZ: Final = 125
DELAY: Final = 10  # samples (80 ms) between the R peak and the middle of its label
HALF_WIDTH: Final = 2  # a label spans the samples DELAY - 2 .. DELAY + 2 after the peak: 40 ms

_ANGLES: Final = np.array([-np.pi / 3, -np.pi / 12, 0.0, np.pi / 12, np.pi / 2])  # of P, Q, R, S, T
_HEIGHTS: Final = np.array([1.2, -5.0, 30.0, -7.5, 0.75])
_WIDTHS: Final = np.array([0.25, 0.1, 0.1, 0.1, 0.4])
_OVERSAMPLING: Final = 4
_WARM_UP: Final = 4 * RATE_HZ


def make_ecg(n_train: int = 256, n_test: int = 64, steps: int = 250, seed: int = 0) -> Dataset:
    """Single-lead ECG at 125 Hz of resting hearts at 45 .. 110 beats a minute, with wander, hum and noise.

    Inputs are the signal in mV and its difference to the sample before. The target is one class a step, y [N, steps]:
    1 in the 40 ms around 80 ms after an R peak, else 0. Raises ValueError unless all sizes are at least 1.
    """
    if min(n_train, n_test, steps) < 1:
        raise ValueError(f"n_train, n_test and steps must be at least 1, not {n_train}, {n_test} and {steps}")
    rng = np.random.default_rng(seed)
    return Dataset(
        name="ecg",
        task="classification",
        head="steps",
        train=_part(rng, n_train, steps),
        test=_part(rng, n_test, steps),
        labels=LABELS,
        channels=CHANNELS,
        source=f"simulated: ECGSYN (McSharry et al. 2003), seed {seed}",
    )


def rr_intervals(rng: np.random.Generator, mean_s: Array, deviation_s: Array, samples: int, rate: float) -> Array:
    """[N, samples] seconds: the beat-to-beat interval over time, with the paper's two-humped power spectrum.

    Waves of 0.1 Hz (blood pressure) and 0.25 Hz (breathing), with half the power at the former, and random phases.
    """
    size = 2 ** int(np.ceil(np.log2(max(samples, 20 * rate))))  # at least 20 s, to hold two of the slower waves
    frequency = np.fft.rfftfreq(size, 1 / rate)
    power = 0.5 * np.exp(-(((frequency - 0.1) / 0.01) ** 2) / 2) + np.exp(-(((frequency - 0.25) / 0.01) ** 2) / 2)
    power[0] = 0
    phase = rng.uniform(0, 2 * np.pi, (len(mean_s), len(frequency)))
    waves = np.fft.irfft(np.sqrt(power) * np.exp(1j * phase), size, axis=1)
    waves *= deviation_s[:, None] / waves.std(axis=1, keepdims=True)
    intervals: Array = mean_s[:, None] + waves[:, :samples]
    return intervals


def simulate_ecg(rng: np.random.Generator, phase: Array, heart_rate: Array) -> Array:
    """[N, M] mV, the R peak about 1 mV, for the angles `phase` [N, M] (radians, R at 0) at 4 * 125 samples a second."""
    count = len(phase)
    stretch = np.sqrt(heart_rate / 60)[:, None]  # of ECGSYN's program: waves widen in angle as the heart speeds up
    angles = _ANGLES * np.concatenate([stretch**0.5, stretch, stretch, stretch, stretch**0.5], axis=1)
    heights = _HEIGHTS * rng.uniform(0.8, 1.2, (count, 5))
    widths = _WIDTHS * stretch * rng.uniform(0.9, 1.1, (count, 5))
    slope = np.zeros(phase.shape)
    for wave in range(5):
        distance = np.mod(phase - angles[:, wave, None] + np.pi, 2 * np.pi) - np.pi
        slope -= heights[:, wave, None] * distance * np.exp(-((distance / widths[:, wave, None]) ** 2) / 2)
    # dz/dt = slope - z: the decay of 1 / s draws the signal back to its baseline.
    step = 1 / (RATE_HZ * _OVERSAMPLING)
    z, level = np.empty(phase.shape), np.zeros(count)
    for t in range(phase.shape[1]):
        level = level + step * (slope[:, t] - level)
        z[:, t] = level
    # At `heart_rate` turns a minute the R wave rises to height * width^2 / (2 pi): the stretch cancels the rate.
    millivolts: Array = z * (2 * np.pi / (_HEIGHTS[2] * _WIDTHS[2] ** 2))
    return millivolts


def _part(rng: np.random.Generator, count: int, steps: int) -> Split:
    samples = _WARM_UP + steps
    rate = RATE_HZ * _OVERSAMPLING
    heart_rate = rng.uniform(45, 110, count)
    mean_s = 60 / heart_rate
    intervals = rr_intervals(rng, mean_s, mean_s * rng.uniform(0.01, 0.06, count), samples * _OVERSAMPLING, rate)
    turns = np.cumsum(1 / (rate * intervals), axis=1) + rng.random((count, 1))
    fine = simulate_ecg(rng, 2 * np.pi * turns, heart_rate)
    ecg = fine[:, ::_OVERSAMPLING] * rng.uniform(0.5, 2.0, (count, 1)) + _disturbance(rng, count, samples)
    beats = np.floor(turns[:, ::_OVERSAMPLING]).astype(np.int64)
    x = np.stack([ecg, np.diff(ecg, axis=1, prepend=ecg[:, :1])], axis=2)[:, _WARM_UP:]
    return Split(x.astype(np.float32), np.full(count, steps, np.int64), _labels(beats)[:, _WARM_UP:])


def _labels(beats: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """[N, M]: 1 where the R peak (the count of beats rises) lies DELAY samples back, give or take HALF_WIDTH."""
    peaks = np.diff(beats, axis=1, prepend=beats[:, :1])
    labels = np.zeros_like(beats)
    for delay in range(DELAY - HALF_WIDTH, DELAY + HALF_WIDTH + 1):
        labels[:, delay:] |= peaks[:, :-delay]
    return labels


def _disturbance(rng: np.random.Generator, count: int, samples: int) -> Array:
    """[N, samples] mV: breathing moves the baseline, the mains hum at 50 Hz, amplifier and muscles make noise."""
    time = np.arange(samples) / RATE_HZ
    phase = rng.uniform(0, 2 * np.pi, (2, count, 1))
    breath = rng.uniform(0, 0.15, (count, 1)) * np.sin(2 * np.pi * rng.uniform(0.15, 0.4, (count, 1)) * time + phase[0])
    hum = rng.uniform(0, 0.02, (count, 1)) * np.sin(2 * np.pi * 50 * time + phase[1])
    noise: Array = breath + hum + rng.uniform(0.005, 0.04, (count, 1)) * rng.normal(0, 1, (count, samples))
    return noise
