"""Numbers proved to lie between two ends: ball arithmetic and its rounding to float64.

Ball arithmetic (Johansson 2017, "Arb"; python-flint): every number is a midpoint and a radius, and
every operation rounds outward. python-flint is optional:
``pip install 'action-collapse[rigorous]'``.
"""

import decimal
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
# arb and arb_mat of python-flint, which is imported only when a function runs.
Ball = Any
BallMatrix = Any
Ends = tuple[Ball, Ball, int]
"""Exact lower and upper end of an enclosure, and the precision in bits that gave them."""

# Width to aim for, relative to the number: below float64's own spacing.
_TARGET = 2.0**-56
_DIGITS = 40
# Exponents beyond this are written as a power of ten: an exact conversion takes minutes.
_TEXT_BITS = 200_000


@dataclass(frozen=True)
class Enclosure:
    """A proven statement lower ≤ x ≤ upper about a real number x."""

    lower: float
    """Rounded down to float64 (−inf where nothing is proved)."""
    upper: float
    """Rounded up to float64."""
    width: float
    """Upper minus lower end *before* they were rounded to float64, rounded up: float64 ends
    next to a large number cannot be closer than its spacing."""
    precision_bits: int
    """Working precision of the ball arithmetic that gave the ends."""
    lower_text: str
    """The lower end, rounded down to 40 digits."""
    upper_text: str
    """The upper end, rounded up to 40 digits."""

    def contains(self, other: "Enclosure") -> bool:
        """Whether every number that ``other`` allows lies between the ends of this one."""
        return decimal.Decimal(self.lower_text) <= decimal.Decimal(
            other.lower_text
        ) and decimal.Decimal(other.upper_text) <= decimal.Decimal(self.upper_text)


def flint_module() -> Any:
    """python-flint.

    Raises
    ------
    ImportError
        It is not installed.
    """
    try:
        import flint
    except ImportError as error:
        raise ImportError(
            "rigorous enclosures need python-flint, which is not installed: "
            "pip install 'action-collapse[rigorous]' (lpm.certify bounds in float64 without it)"
        ) from error
    return flint


def lower_end(x: Ball) -> Ball:
    """Exact number ≤ every number in the ball; −inf for a ball that is not finite."""
    return x.lower().mid() if x.is_finite() else type(x)("-inf")


def upper_end(x: Ball) -> Ball:
    """Exact number ≥ every number in the ball; ∞ for a ball that is not finite."""
    return x.upper().mid() if x.is_finite() else type(x)("inf")


def all_finite(balls: list[Ball]) -> bool:
    """Whether no ball holds an infinity or NaN."""
    return all(x.is_finite() for x in balls)


def ball_softplus(x: Ball) -> Ball:
    """log(1 + eˣ); for x = ±inf its limits."""
    if not x.is_finite():
        return x if x > 0 else type(x)(0)
    return x.exp().log1p() if x < 0 else x + (-x).exp().log1p()


def exact_sum(values: Float) -> Ball:
    """A ball that contains the exact sum of float64 numbers."""
    flint = flint_module()
    total = sum((Fraction(float(x)) for x in values), Fraction(0))
    return flint.arb(flint.fmpq(total.numerator, total.denominator))


def intersect(one: Ends | None, other: Ends) -> Ends:
    """Both hold, so the larger lower and the smaller upper end do."""
    if one is None:
        return other
    lower = other[0] if other[0] > one[0] else one[0]
    upper = other[1] if other[1] < one[1] else one[1]
    changed = lower is other[0] or upper is other[1]
    return lower, upper, max(one[2], other[2]) if changed else one[2]


def narrow(ends: Ends, *, absolute: bool = True) -> bool:
    """Whether the width has reached the target, relative to the number (or to 1 at least)."""
    lower, upper, _ = ends
    size = abs(upper)
    if absolute and size < 1:
        size = type(upper)(1)
    return bool(upper - lower <= size * _TARGET)


def floats(matrix: BallMatrix) -> Float:
    """Midpoints, rounded to float64: proposals, no bounds."""
    return np.array([[float(x.mid()) for x in row] for row in matrix.tolist()])


def as_enclosure(lower: Ball, upper: Ball, bits: int, *, at_least_zero: bool = False) -> Enclosure:
    """The dataclass from two exact ends; ``at_least_zero`` for a number known to be positive."""
    flint = flint_module()
    # Even a minus sign rounds to the working precision.
    with flint.ctx.workprec(bits):
        if at_least_zero and not lower > 0:
            lower = flint.arb(0)
        return Enclosure(
            lower=_float_down(lower),
            upper=-_float_down(-upper),
            width=0.0 - _float_down(-upper_end(upper - lower)),
            precision_bits=bits,
            lower_text=_text(lower, decimal.ROUND_FLOOR),
            upper_text=_text(upper, decimal.ROUND_CEILING),
        )


def _float_down(exact: Ball) -> float:
    """The largest float64 ≤ an exact (radius 0) number."""
    if not exact.is_finite():
        return math.inf if exact > 0 else -math.inf
    mantissa, exponent = (int(x) for x in exact.man_exp())
    magnitude = mantissa.bit_length() + exponent  # 2^(magnitude−1) ≤ |x| < 2^magnitude
    if mantissa == 0:
        return 0.0
    if magnitude > 1024:
        return math.nextafter(math.inf, 0) if mantissa > 0 else -math.inf
    if magnitude < -1073:
        return 0.0 if mantissa > 0 else -math.ulp(0.0)
    value = Fraction(mantissa) * Fraction(2) ** exponent
    try:
        nearest = float(value)
    except OverflowError:  # rounds up to 2^1024
        return math.nextafter(math.inf, 0) if mantissa > 0 else -math.inf
    return math.nextafter(nearest, -math.inf) if Fraction(nearest) > value else nearest


def _text(exact: Ball, rounding: str) -> str:
    """An exact number in decimal, rounded in the given direction."""
    if not exact.is_finite():
        return "Infinity" if exact > 0 else "-Infinity"
    mantissa, exponent = (int(x) for x in exact.man_exp())
    context = decimal.Context(
        prec=_DIGITS, rounding=rounding, Emin=decimal.MIN_EMIN, Emax=decimal.MAX_EMAX
    )
    if abs(exponent) <= _TEXT_BITS:
        power = decimal.Decimal(1 << abs(exponent))
        combine = context.divide if exponent < 0 else context.multiply
        return str(combine(decimal.Decimal(mantissa), power))
    # A power of ten beyond the number: 2^m lies between 10^⌊m·log10 2⌋ and 10^⌈m·log10 2⌉.
    magnitude = mantissa.bit_length() + exponent
    away = (mantissa > 0) == (rounding == decimal.ROUND_CEILING)
    power_of_ten = (
        math.ceil(magnitude * math.log10(2)) + 1
        if away
        else math.floor((magnitude - 1) * math.log10(2)) - 1
    )
    return f"{'-' if mantissa < 0 else ''}1e{power_of_ten}"
