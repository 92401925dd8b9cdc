"""Statistics over seeds; randomness only from the generator passed in."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]


class Band(NamedTuple):
    """A statistic with a pointwise confidence band, each (T,)."""

    centre: Float
    lower: Float
    upper: Float


def median_band(
    values: Float, rng: np.random.Generator, level: float = 0.95, resamples: int = 4000
) -> Band:
    """Median over seeds with a percentile-bootstrap confidence band (Efron 1979).

    Parameters
    ----------
    values
        (n, T): n seeds, T positions. Seeds are resampled whole, so positions stay paired.
    rng
        Draws the resamples.
    level
        Coverage of the band at each position.
    resamples
        Number of bootstrap samples.

    Returns
    -------
    Band
        NaN at positions where any seed is NaN.

    Raises
    ------
    ValueError
        ``values`` is not (n ≥ 2, T), or the level is not in (0, 1).
    """
    if values.ndim != 2 or len(values) < 2:
        raise ValueError(
            f"a band over seeds needs values of shape (n >= 2, T), got {values.shape}: run more "
            "seeds"
        )
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), got {level}")
    picks = rng.integers(0, len(values), (resamples, len(values)))
    medians = np.median(values[picks], axis=1)
    # np.quantile passes NaN on, as np.median does.
    lower, upper = np.quantile(medians, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return Band(np.median(values, axis=0), lower, upper)
