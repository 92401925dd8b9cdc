"""Tables 1 and 2 of the paper as printed, and where their numbers contradict themselves.

Zhou et al., "Imitate Optimal Policy: Prevail and Induce Action Collapse in Policy Gradient", Sec.
5.1. "Org." is the learned (linear) head, "ACPG" the fixed ETF head. The paper's dashes are NaN, and
so is what it does not have. Percentages are kept as printed; :func:`inconsistencies` recomputes
them and holds the other numbers against what returns can be.
"""

import math
from collections.abc import Iterator
from decimal import Decimal
from typing import NamedTuple

NAN = float("nan")

ATARI = ("Enduro", "Qbert", "Pong")
CONVENTION = "NoFrameskip-v4"
"""Of the paper's Atari environments."""

SEEDS = 20
"""Runs behind every number (Table 1's caption, Appendix C)."""


class Scores(NamedTuple):
    """One head's four numbers: returns, epoch, and standard deviation of the final returns."""

    best: float
    final: float
    stop: float
    std: float


class Gains(NamedTuple):
    """Percentages beside the ETF head's best, final and stop, as printed; "" where there is none.

    A trailing + is an improvement: a higher return or an earlier stop.
    """

    best: str = ""
    final: str = ""
    stop: str = ""


class Cell(NamedTuple):
    """Table 1's numbers for one algorithm, environment and network."""

    algorithm: str
    env: str
    network: str
    linear: Scores
    etf: Scores
    gains: Gains


NOTHING = Scores(NAN, NAN, NAN, NAN)

# In each pair the learned head comes first. What cannot be:
#   reinforce CartPole-v1 mlp   33 to 20 is 39 % earlier
#   reinforce, a3c CartPole-v1  a mean of 500, the highest return there is, leaves a std of 0, and
#                               of 2.24 at most if it is rounded: 2.47, 4.41 and 14.35 cannot be
#   ppo Enduro cnn              both heads end above their best
#   ppo Pong mlp                10.9 to 14.7 is 35 %; 26 % is relative to the ETF head
#   ppo Pong cnn                Pong ends at 21; a mean of 20.9 leaves a std of .67 at most
#   trpo Qbert mlp              13170 to 13007 is -1.24 %
#   a3c CarRacing-v3            the learned head ends above its best with both networks
_TABLE_1 = """
                           best                | final              | stop        | std
reinforce CartPole-v1  mlp 500 500             | 500 500            | 33 20 43%+  | 2.47 1.54
reinforce CartPole-v1  cnn 500 500             | 500 500            | 65 15 76%+  | 4.41 1.77
reinforce CarRacing-v3 mlp 202.25 233.16 15%+  | 158.72 196.15 23%+ | 100 100     | 59.04 32.71
reinforce CarRacing-v3 cnn 287.45 376.63 31%+  | 188.94 284.73 50%+ | 100 100     | 104.43 117.72
ppo       Enduro       mlp 941 1109 17%+       | 884 1002 13%+      | 500 500     | 143.23 96.41
ppo       Enduro       cnn 1481 1509 2%+       | 1483 1563 5%+      | 100 100     | 15.43 20.28
ppo       Qbert        mlp 8685 10431 20%+     | 6747 9450 40%+     | 500 500     | 3584.31 1497.3
ppo       Qbert        cnn 14852 15983 7%+     | 14801 15779 6%+    | 100 93 7%+  | 103.37 91.40
ppo       Pong         mlp 10.9 14.7 26%+      | 7.8 8.7 12%+       | 500 500     | 4.95 4.21
ppo       Pong         cnn 20.1 21.1 5%+       | 19.8 20.9 5%+      | 100 89 11%+ | 3.41 2.28
trpo      Enduro       mlp 787 1290 64%+       | 421 1257 199%+     | 500 500     | nan nan
trpo      Enduro       cnn 1243 1473 19%+      | 1109 1309 18%+     | 100 100     | nan nan
trpo      Qbert        mlp 13170 13007 -0.01%  | 12954 8971 31%-    | 500 500     | nan nan
trpo      Qbert        cnn 13787 14205 3%+     | 13184 12589 4%-    | 100 98 2%+  | nan nan
trpo      Pong         mlp 10.4 13.5 30%+      | 6.9 7.7 12%+       | 500 500     | nan nan
trpo      Pong         cnn 20.1 20.9 4%+       | 20.1 20.9 4%+      | 99 89 10%+  | nan nan
a3c       Enduro       mlp nan nan             | nan nan            | nan nan     | nan nan
a3c       Enduro       cnn nan nan             | nan nan            | nan nan     | nan nan
a3c       CartPole-v1  mlp 500 500             | 500 500            | 100 92 8%+  | 0.23 0
a3c       CartPole-v1  cnn 500 500             | 500 500            | 100 43 57%+ | 14.35 0
a3c       CarRacing-v3 mlp 104.38 273.22 161%+ | 113.54 190.28 67%+ | 100 100     | 11.24 113.55
a3c       CarRacing-v3 cnn 174.28 285.48 64%+  | 191.52 241.65 26%+ | 100 100     | 58.90 44.62
"""


def _cell(line: str) -> Cell:
    algorithm, env, network, rest = line.split(maxsplit=3)
    best, final, stop, std = (pair.split() for pair in rest.split("|"))
    linear, etf = (
        Scores(float(best[head]), float(final[head]), float(stop[head]), float(std[head]))
        for head in (0, 1)
    )
    gains = Gains(*(pair[2] if len(pair) > 2 else "" for pair in (best, final, stop)))
    return Cell(algorithm, env, network, linear, etf, gains)


TABLE_1 = tuple(map(_cell, _TABLE_1.strip().splitlines()[1:]))

TABLE_2: dict[float, tuple[float, float]] = {
    0.0: (3.1, 2.1),
    0.001: (7.1, 7.2),
    0.01: (19.8, 20.9),
    0.1: (18.5, 21.6),  # Pong ends at 21
    1.0: (1.7, 3.2),
}
"""ε to the best return with the linear and with the ETF head: PPO, Pong, CNN, 100 epochs."""

_BOUNDS = {"CartPole-v1": (0.0, 500.0), "Pong": (-21.0, 21.0)}
"""Lowest and highest return where the rules give both."""


def table1_scores(algorithm: str, env: str, convention: str, network: str, head: str) -> Scores:
    """What Table 1 prints for one head, NaN where it prints nothing.

    Parameters
    ----------
    convention
        Atari only: the paper has no numbers for ``"v5"``.
    head
        The paper has ``"linear"`` and ``"etf"``.
    """
    if env not in ATARI or convention == CONVENTION:
        for cell in TABLE_1:
            if cell[:3] == (algorithm, env, network):
                return {"linear": cell.linear, "etf": cell.etf}.get(head, NOTHING)
    return NOTHING


def table2_best(
    algorithm: str, env: str, convention: str, network: str, head: str, epsilon: float
) -> float:
    """What Table 2 prints for one head at one ε, NaN where it prints nothing."""
    if (algorithm, env, convention, network) != ("ppo", "Pong", CONVENTION, "cnn"):
        return NAN
    linear, etf = TABLE_2.get(epsilon, (NAN, NAN))
    return {"linear": linear, "etf": etf}.get(head, NAN)


class Inconsistency(NamedTuple):
    """A printed number that cannot be, with the number that it would have to be."""

    where: str
    printed: str
    recomputed: float
    reason: str


def inconsistencies() -> tuple[Inconsistency, ...]:
    """Every printed number that contradicts another one or the rules of its environment.

    Percentages are recomputed from the two numbers beside them and may be rounded or truncated, as
    the paper does both: a deviation of one unit in the last printed place or more is listed. The
    highest return of a training run is at least its last, and so are their means over runs. A std
    is held against the largest that :data:`SEEDS` returns within the environment's bounds can have
    when their mean rounds to the printed one.
    """
    return (*_wrong_percentages(), *_final_above_best(), *_out_of_bounds(), *_tables_disagree())


def _wrong_percentages() -> Iterator[Inconsistency]:
    for cell in TABLE_1:
        for column, printed in zip(Gains._fields, cell.gains, strict=True):
            if not printed:
                continue
            linear, etf = getattr(cell.linear, column), getattr(cell.etf, column)
            gain = 100 * (linear - etf if column == "stop" else etf - linear) / linear
            value = Decimal(printed.rstrip("+-").rstrip("%"))
            value = -value if printed.endswith("-") else value
            if abs(gain - float(value)) >= _last_place(value):
                yield Inconsistency(
                    f"Table 1, {_name(cell)}, {column}",
                    printed,
                    gain,
                    f"{etf:g} against {linear:g} is another percentage",
                )


def _final_above_best() -> Iterator[Inconsistency]:
    for cell, head, scores in _heads():
        if scores.final > scores.best:
            yield Inconsistency(
                f"Table 1, {_name(cell)}, {head}, final",
                f"{scores.final:g}",
                scores.best,
                "the last return of a run is at most its best",
            )


def _out_of_bounds() -> Iterator[Inconsistency]:
    for cell, head, scores in _heads():
        if cell.env not in _BOUNDS:
            continue
        low, high = _BOUNDS[cell.env]
        for column in ("best", "final"):
            if getattr(scores, column) > high:
                yield Inconsistency(
                    f"Table 1, {_name(cell)}, {head}, {column}",
                    f"{getattr(scores, column):g}",
                    high,
                    "above the highest return there is",
                )
        largest = largest_std(scores.final - _rounding(scores.final), low, high)
        if scores.std - _rounding(scores.std) > largest:
            yield Inconsistency(
                f"Table 1, {_name(cell)}, {head}, std",
                f"{scores.std:g}",
                largest,
                f"the largest std of {SEEDS} returns whose mean rounds to {scores.final:g}",
            )
    for epsilon, both in TABLE_2.items():
        for head, best in zip(("linear", "etf"), both, strict=True):
            if best > _BOUNDS["Pong"][1]:
                yield Inconsistency(
                    f"Table 2, ε = {epsilon}, {head}, best",
                    f"{best:g}",
                    _BOUNDS["Pong"][1],
                    "above the highest return there is",
                )


def _tables_disagree() -> Iterator[Inconsistency]:
    cell = next(cell for cell in TABLE_1 if cell[:3] == ("ppo", "Pong", "cnn"))
    for head, here, there in zip(
        ("linear", "etf"), TABLE_2[0.0], (cell.linear.best, cell.etf.best), strict=True
    ):
        if here != there:
            yield Inconsistency(
                f"Table 2, ε = 0, {head}, best",
                f"{here:g}",
                there,
                "Table 1 prints another best for PPO, which has no ε there",
            )


def largest_std(mean: float, low: float, high: float, count: int = SEEDS) -> float:
    """Largest sample standard deviation of returns in [low, high] with a mean of at least `mean`.

    With the sum fixed, the sum of squares is convex and largest where all runs but one lie at the
    ends of the interval. As that one moves between them the variance is convex too, so its largest
    value is at this mean or at the next one above that leaves no run inside.

    Returns
    -------
    float
        NaN for a NaN mean.

    Raises
    ------
    ValueError
        `mean` is not in [(low + high)/2, high]; below, the bound would depend on nothing but the
        interval.
    """
    if math.isnan(mean):
        return NAN
    if not (low + high) / 2 <= mean <= high:
        raise ValueError(f"the mean must be in [{(low + high) / 2}, {high}], got {mean}")
    runs_below = count * (high - mean) / (high - low)
    return max(
        math.sqrt((_squares(below) - below**2 / count) / (count - 1)) * (high - low)
        for below in (runs_below, math.floor(runs_below))
    )


def _squares(below: float) -> float:
    """Sum of squares of ⌊below⌋ ones and a fraction."""
    whole = math.floor(below)
    return whole + (below - whole) ** 2


def _heads() -> Iterator[tuple[Cell, str, Scores]]:
    for cell in TABLE_1:
        yield cell, "linear", cell.linear
        yield cell, "etf", cell.etf


def _name(cell: Cell) -> str:
    return f"{cell.algorithm} {cell.env} {cell.network}"


def _last_place(value: Decimal) -> float:
    exponent = value.as_tuple().exponent
    return 10.0**exponent if isinstance(exponent, int) else NAN


def _rounding(value: float) -> float:
    """Half a unit in the last printed place; 0 for a dash."""
    return 0.0 if math.isnan(value) else 0.5 * _last_place(Decimal(f"{value:g}"))
