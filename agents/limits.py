"""What the fields of a configuration may hold: said in their annotations, checked in one place.

A configuration is a frozen dataclass that calls `check_fields` when it is made. Its annotations
are what is checked: types as they are written (a float may be given as an int, but never as a
bool, and must be finite; an int may not be given as a float), with an `Interval` for numbers that
have one::

    learning_rate: Positive = 1e-3
    hidden: tuple[Count, ...] = (64, 64)
"""

import math
import sys
from dataclasses import dataclass, fields
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(frozen=True)
class Interval:
    """Numbers from ``low`` to ``high``, with or without the ends."""

    low: float
    high: float = math.inf
    ends: bool = True

    def __contains__(self, value: float) -> bool:
        if self.ends:
            return self.low <= value <= self.high
        return self.low < value < self.high

    def __str__(self) -> str:
        if self.high == math.inf:
            return f"{'>=' if self.ends else '>'} {self.low:g}"
        ends = "[]" if self.ends else "()"
        return f"in {ends[0]}{self.low:g}, {self.high:g}{ends[1]}"


Count = Annotated[int, Interval(1)]
Natural = Annotated[int, Interval(0)]
Positive = Annotated[float, Interval(0, ends=False)]
NonNegative = Annotated[float, Interval(0)]
Fraction = Annotated[float, Interval(0, 1)]
ProperFraction = Annotated[float, Interval(0, 1, ends=False)]


def check_fields(config: "DataclassInstance") -> None:
    """Refuse a configuration whose fields do not hold what their annotations say.

    An int where a float belongs becomes one: 15 and 15.0 are one configuration, with one digest.

    Raises
    ------
    ValueError
        With the class, the field, what it may hold and what it was given.
    """
    for field in fields(config):
        value = getattr(config, field.name)
        if not _allows(field.type, value):
            raise ValueError(
                f"{type(config).__name__}.{field.name} must be {_words(field.type)}, got {value!r}"
            )
        if type(value) is int and float in _leaves(field.type):
            object.__setattr__(config, field.name, float(value))


def _allows(kind: Any, value: Any) -> bool:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _allows(inner[0], value) and all(value in interval for interval in inner[1:])
    if origin is Literal:
        return isinstance(value, str) and value in inner
    if origin in (Union, UnionType):
        return any(_allows(one, value) for one in inner)
    if origin is tuple:
        return isinstance(value, tuple) and all(_allows(inner[0], item) for item in value)
    if kind in (int, float) and isinstance(value, bool):
        return False
    if kind is float:
        # Neither NaN nor infinite, nor an int that no float holds.
        return isinstance(value, int | float) and abs(value) <= sys.float_info.max
    return isinstance(value, kind)


def _leaves(kind: Any) -> set[Any]:
    """Types that a value itself may have, without their intervals."""
    if get_origin(kind) is Annotated:
        return _leaves(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        return set[Any]().union(*map(_leaves, get_args(kind)))
    return {kind}


def _words(kind: Any) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return " ".join([_words(inner[0]), *map(str, inner[1:])])
    if origin is Literal:
        return f"one of {', '.join(inner)}"
    if origin in (Union, UnionType):
        return " or ".join(map(_words, inner))
    if origin is tuple:
        return f"a tuple, written (x,) or (x, y), each item {_words(inner[0])}"
    return _NAMES.get(kind) or str(kind.__name__)


_NAMES: dict[Any, str] = {
    int: "an integer",
    float: "a finite number",
    bool: "True or False",
    str: "a text",
    NoneType: "None",
}
