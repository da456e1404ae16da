"""Integers where arithmetic goes wrong: around powers of two, at the limits of the types, and seeded random ones."""

import numpy as np


def boundary_values(bits: int, seed: int = 1) -> list[int]:
    """Signed integers of up to `bits` bits: +-2^i + {-2 .. 2}, limits of the usual types, 1,000 random magnitudes."""
    near_powers = {sign * 2**i + d for sign in (-1, 1) for i in range(bits) for d in range(-2, 3)}
    limits = {v for n in (8, 16, 32, 64) for v in (-(2 ** (n - 1)), -(2 ** (n - 1)) + 1, 2 ** (n - 1) - 1)}
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, bits, 1000)
    random = {int(rng.integers(-(2**size), 2**size)) for size in sizes}
    lowest, highest = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return sorted(v for v in near_powers | limits | random | {0} if lowest <= v <= highest)
