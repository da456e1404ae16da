"""The primitives: near the real functions, and exactly the oracle's integers in Python, in NumPy and in Numba."""

import re
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from math import inf, nan
from typing import Any

import numba
import numpy as np
import pytest

from edgernn import fixedpoint
from edgernn.firmware_sim import _jit as _jit  # lets kernels call the primitives
from edgernn.qmodel import CELL_EXPONENTS
from tests import oracle
from tests.boundaries import boundary_values

Primitive = Callable[..., Any]
MULTIPLIERS = [2.0**-32, 3e-9, 1.7e-6, 0.001, 0.3, 0.5, 0.99999, float(np.nextafter(1, 0)), 1.0, 1.5, 77.7, 127.9]
ALL_INT16 = np.arange(-32768, 32768)


def primitive_cases() -> list[tuple[str, Primitive, tuple[int, ...], Callable[[int], int], int]]:
    """(name, primitive, its further arguments, the oracle's function of the value, bits of the value)."""
    cases: list[tuple[str, Primitive, tuple[int, ...], Callable[[int], int], int]] = [
        ("sat16", fixedpoint.sat16, (), partial(oracle.clamp, bits=16), 63),
        ("sat8", fixedpoint.sat8, (), partial(oracle.clamp, bits=8), 63),
        ("sigmoid", fixedpoint.sigmoid, (), oracle.sigmoid, 16),
        ("tanh", fixedpoint.tanh, (), oracle.tanh, 16),
    ]
    for k in (0, 1, 2, 7, 15, 31, 62):
        cases.append((f"round_half_away_shift by {k}", fixedpoint.round_half_away_shift, (k,), half_away(k), 62))
    for e in (1, 2, 8, 15, 21, 30):
        cases.append((f"round_shift by {e}", fixedpoint.round_shift, (e,), partial(oracle.round_shift, e=e), 62))
    for m in MULTIPLIERS:
        parts = fixedpoint.quantize_multiplier(m)
        cases.append(
            (f"requantize by {m}", fixedpoint.requantize, parts, partial(oracle.requantize, m=Fraction(m)), 32)
        )
        parts = fixedpoint.decompose_multiplier(m)
        bits = 32 - max(int(parts[1]), 0)
        cases.append((f"rescale by {m}", fixedpoint.rescale, parts, partial(oracle.rescale, m=Fraction(m)), bits))
    for k in CELL_EXPONENTS:
        expected = partial(oracle.rescale, m=Fraction(1, 2**k) / oracle.f32(1 / 3072))
        cases.append((f"rescale of a cell state 2^-{k}", fixedpoint.rescale, fixedpoint.cell_rescale(k), expected, 16))
    return cases


def half_away(k: int) -> Callable[[int], int]:
    return lambda v: oracle.half_away(Fraction(v, 2**k))


CASES = primitive_cases()


def compiled(primitive: Primitive, arguments: int) -> Any:
    """A kernel that applies the primitive to an array, element by element."""
    if arguments == 0:

        @numba.njit
        def kernel(v: Any, out: Any) -> None:
            for i in range(v.shape[0]):
                out[i] = primitive(v[i])
    elif arguments == 1:

        @numba.njit
        def kernel(v: Any, out: Any, a: int) -> None:
            for i in range(v.shape[0]):
                out[i] = primitive(v[i], a)
    else:

        @numba.njit
        def kernel(v: Any, out: Any, a: int, b: int) -> None:
            for i in range(v.shape[0]):
                out[i] = primitive(v[i], a, b)

    return kernel


KERNELS = {primitive: compiled(primitive, len(arguments)) for _, primitive, arguments, *_ in CASES}


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_primitive_equals_the_oracle(case: Any) -> None:
    _, primitive, arguments, expected, bits = case
    values = boundary_values(bits)
    wanted = [expected(v) for v in values]
    assert [int(primitive(v, *arguments)) for v in values] == wanted
    array = np.array(values, np.int64)
    assert np.array_equal(primitive(array, *arguments), wanted)
    out = np.empty_like(array)
    KERNELS[primitive](array, out, *arguments)
    assert np.array_equal(out, wanted)


@pytest.mark.parametrize("name", ["sigmoid", "tanh"])
def test_function_equals_the_oracle_everywhere(name: str) -> None:
    primitive = getattr(fixedpoint, name)
    wanted = [getattr(oracle, name)(p) for p in ALL_INT16.tolist()]
    assert np.array_equal(primitive(ALL_INT16), wanted)
    out = np.empty_like(ALL_INT16)
    KERNELS[primitive](ALL_INT16, out)
    assert np.array_equal(out, wanted)


@pytest.mark.parametrize("primitive", KERNELS, ids=lambda primitive: primitive.__name__)
def test_primitive_inlines(primitive: Primitive) -> None:
    kernel = KERNELS[primitive]
    arguments = next(case[2] for case in CASES if case[1] is primitive)
    kernel(np.zeros(1, np.int64), np.zeros(1, np.int64), *arguments)
    (signature,) = kernel.signatures
    name = kernel.overloads[signature].fndesc.mangled_name
    body = re.search(rf"^{re.escape(name)}:.*?^\.Lfunc_end", kernel.inspect_asm(signature), re.DOTALL | re.MULTILINE)
    assert body
    assert not re.search(r"^\s+(call\w*|blr?)\s", body[0], re.MULTILINE), body[0]


# ---- against real arithmetic -----------------------------------------------------------------------------------------


def test_sigmoid_is_near_the_real_one_and_monotone() -> None:
    got = fixedpoint.sigmoid(ALL_INT16)
    real = 2.0**15 / (1 + np.exp(-ALL_INT16 / 3072))
    assert np.abs(got - real).max() <= 1.1
    assert (np.diff(got) >= 0).all()
    assert got.min() >= 0
    assert got.max() <= 32767


def test_tanh_is_near_the_real_one_and_monotone() -> None:
    got = fixedpoint.tanh(ALL_INT16)
    assert np.abs(got - 2.0**15 * np.tanh(ALL_INT16 / 3072)).max() <= 1.6
    assert (np.diff(got) >= 0).all()
    assert got.min() >= -32768
    assert got.max() <= 32767


@pytest.mark.parametrize("e", [1, 2, 8, 15, 21])
def test_round_shift_is_within_its_two_roundings(e: int) -> None:
    values = np.array(boundary_values(32))
    assert np.abs(fixedpoint.round_shift(values, e) - values / 2.0**e).max() <= 0.5 + 2.0**-e


@pytest.mark.parametrize("m", MULTIPLIERS)
def test_requantize_is_within_half_a_step_and_fifteen_bits(m: float) -> None:
    values = np.array(boundary_values(32))
    real = values * m
    error = np.abs(fixedpoint.requantize(values, *fixedpoint.quantize_multiplier(m)) - np.clip(real, -32768, 32767))
    assert (error <= 0.5 + np.minimum(np.abs(real), 40000) * 2.0**-15 * 1.001).all()


@pytest.mark.parametrize("m", MULTIPLIERS)
def test_rescale_is_within_its_two_roundings(m: float) -> None:
    q31, exponent = fixedpoint.decompose_multiplier(m)
    values = np.array(boundary_values(32 - max(exponent, 0)))
    real = values * m
    assert (np.abs(fixedpoint.rescale(values, q31, exponent) - real) <= 1.0 + np.abs(real) * 2.0**-30).all()


# ---- multipliers -----------------------------------------------------------------------------------------------------


def test_multipliers_are_normalised_and_near() -> None:
    for m in MULTIPLIERS:
        q31, exponent = (int(v) for v in fixedpoint.decompose_multiplier(m))
        assert 2**30 <= q31 < 2**31
        assert abs(Fraction(q31, 2**31) * Fraction(2) ** exponent - Fraction(m)) <= Fraction(m) / 2**31
        multiplier, shift = (int(v) for v in fixedpoint.quantize_multiplier(m))
        assert 2**14 <= multiplier < 2**15
        assert 8 <= shift <= 46
        assert abs(Fraction(multiplier, 2**shift) - Fraction(m)) <= Fraction(m) / 2**15 * Fraction(1001, 1000)


def test_a_fraction_that_rounds_to_one_carries_into_the_exponent() -> None:
    assert fixedpoint.decompose_multiplier(float(np.nextafter(1, 0))) == (2**30, 1)
    assert fixedpoint.quantize_multiplier(1 - 2.0**-17) == (0x7FFF, 15)


@pytest.mark.parametrize("m", [0.0, -1.0, inf, nan])
def test_decompose_refuses(m: float) -> None:
    with pytest.raises(ValueError, match="positive and finite"):
        fixedpoint.decompose_multiplier(m)


@pytest.mark.parametrize("m", [128.0, 1e9, 2.0**-33, 1e-12])
def test_quantize_refuses_what_no_runtime_covers(m: float) -> None:
    with pytest.raises(ValueError, match="outside"):
        fixedpoint.quantize_multiplier(m)


def test_the_scales_are_float32_values() -> None:
    assert Fraction(fixedpoint.PRE_ACTIVATION_SCALE) == oracle.f32(1 / 3072)
    assert abs(Fraction(fixedpoint.PRE_ACTIVATION_SCALE) * 3072 - 1) < Fraction(1, 2**24)
