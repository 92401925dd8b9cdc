"""The settings of the condition ablations, their arms, and the conditions in numbers."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from agents import TabularConfig
from analysis.cliff import Arm
from gridworld import ACTION_NAMES, check_conditions, ideal_cliff_walking

EXACT = TabularConfig(objective="surrogate", epochs=100, updates_per_epoch=125, cosine=True)
SAMPLED = TabularConfig(objective="reinforce", epochs=500, cosine=True, weight_decay=5e-4)

_L2: dict[str, Any] = {"weight_decay": 5e-4}
_LINEAR: dict[str, Any] = {"feature": "linear"}
_SPHERE: dict[str, Any] = {**_LINEAR, "feature_energy": 25.0, "feature_norm": "sphere"}
_ETF: dict[str, Any] = {"head": "etf"}

ARMS: tuple[Arm, ...] = (
    Arm("learned-free", "learned, rectified feature, no norm control", EXACT),
    Arm("learned-l2", "learned, rectified feature, L2", replace(EXACT, **_L2)),
    Arm("learned-linear-l2", "learned, linear feature, L2", replace(EXACT, **_LINEAR, **_L2)),
    Arm("learned-sphere", "learned, sphere, L2", replace(EXACT, **_SPHERE, **_L2)),
    Arm("etf-l2", "ETF, linear feature, L2", replace(EXACT, **_ETF, **_LINEAR, **_L2)),
    Arm("etf-sphere", "ETF, sphere", replace(EXACT, **_ETF, **_SPHERE)),
)
"""Under Eq. (2). A learned head on the sphere needs L2 to bound its own norm, which an ETF head
has fixed: that pair is the fair comparison."""

SAMPLED_ARMS: tuple[Arm, ...] = (
    Arm("learned-l2", "learned, rectified feature, L2", SAMPLED),
    Arm("learned-sphere", "learned, sphere, L2", replace(SAMPLED, **_SPHERE)),
    Arm("etf-sphere", "ETF, sphere", replace(SAMPLED, **_ETF, **_SPHERE, weight_decay=0.0)),
)


@dataclass(frozen=True)
class Condition:
    """One setting: what is changed about the grid or about where samples come from."""

    name: str
    label: str
    broken: int | None
    """Number of the condition of the paper that does not hold; None where all do."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `TabularConfig`."""


def class_weights(action: str, weight: float, cells: int | None = None) -> tuple[float, ...]:
    """Relative d(s) of the paper's 8 cells: ``weight`` where ``action`` is optimal, 1 elsewhere.

    Parameters
    ----------
    action
        One of `gridworld.ACTION_NAMES`.
    weight
        Of each of the class's cells; 0 for cells that are never sampled.
    cells
        Only the class's first so many; None for all of them.
    """
    mdp = ideal_cliff_walking()
    optimal = mdp.optimal_actions()[mdp.decision_states, ACTION_NAMES.index(action)]
    weights = np.ones(len(optimal))
    weights[np.flatnonzero(optimal)[:cells]] = weight
    return tuple(weights.tolist())


CONDITIONS: tuple[Condition, ...] = (
    Condition("base", "all conditions hold", None),
    Condition("sizes-2", "class sizes 2:1 (6 wide)", 2, {"width": 6}),
    Condition("sizes-5", "class sizes 5:1 (12 wide)", 2, {"width": 12}),
    Condition("rare-10", "one class 10× rarer", 3, {"state_weights": class_weights("right", 0.1)}),
    Condition(
        "rare-100", "one class 100× rarer", 3, {"state_weights": class_weights("right", 0.01)}
    ),
    Condition(
        "state-unseen", "one state unseen", 1, {"state_weights": class_weights("right", 0.0, 1)}
    ),
    Condition("class-unseen", "a class unseen", 1, {"state_weights": class_weights("right", 0.0)}),
)
"""Under Eq. (2). Cells are one-hot and the surrogate knows no neighbours, so it does not matter
which class is the rare one. Condition 1 cannot fail alone: cells that are never sampled also
leave the sampled classes unequal and d(s) = 0 somewhere, as `condition_rows` shows."""

SAMPLED_CONDITIONS: tuple[Condition, ...] = (
    Condition("sampled-sweep", "sweep of all cells", None),
    Condition("sampled-outer", "starts in outer cells", 3, {"scheme": "outer", "episodes": 32}),
    Condition("sampled-uniform", "starts in all cells", 3, {"scheme": "uniform", "episodes": 32}),
    Condition("sampled-inner", "starts in inner cells", 3, {"scheme": "inner", "episodes": 32}),
)
"""Under REINFORCE. 32 episodes that start outside and end in two steps are the sweep's 64 samples
a collect."""


@dataclass(frozen=True)
class Case:
    """One arm in one setting: a part of the run."""

    condition: Condition
    arm: Arm

    @property
    def name(self) -> str:
        """Of the part in the run folder."""
        return f"{self.condition.name}.{self.arm.name}"

    @property
    def config(self) -> TabularConfig:
        """What is trained."""
        return replace(self.arm.config, **self.condition.changes)


def cases() -> tuple[Case, ...]:
    """Every setting with every arm."""
    studies = ((CONDITIONS, ARMS), (SAMPLED_CONDITIONS, SAMPLED_ARMS))
    return tuple(
        Case(condition, arm)
        for conditions, chosen in studies
        for condition in conditions
        for arm in chosen
    )


# --- the conditions in numbers -------------------------------------------------------------------


def condition_rows(conditions: tuple[Condition, ...] | None = None) -> pd.DataFrame:
    """Conditions 1 to 3 of every setting as `gridworld.check_conditions` measures them.

    Returns
    -------
    One row for each setting and policy, ``optimal`` and ``uniform-random``: on-policy sampling
    meets other states under one than under the other. ``unsampled`` names cells with d(s) = 0.
    """
    rows = []
    for condition in conditions or (*CONDITIONS, *SAMPLED_CONDITIONS):
        config = replace(
            SAMPLED if condition.name.startswith("sampled-") else EXACT, **condition.changes
        )
        mdp = config.mdp()
        random = np.full((mdp.num_states, mdp.num_actions), 1 / mdp.num_actions)
        for policy, table in (("uniform-random", random), ("optimal", mdp.optimal_policy())):
            report = check_conditions(mdp, table, config.sampling())
            rows.append(
                {
                    "condition": condition.name,
                    "broken": condition.broken,
                    "policy": policy,
                    "visited": report.condition_1.visited,
                    "states": report.condition_1.total,
                    "unsampled": ", ".join(report.condition_1.unsampled),
                    **{
                        f"size_{action}": size
                        for action, size in zip(
                            report.condition_2.action_names, report.condition_2.sizes, strict=True
                        )
                    },
                    "size_ratio": report.condition_2.ratio,
                    "ties": report.condition_2.ties,
                    "d_ratio": report.condition_3.ratio,
                    "d_ratio_all_states": report.condition_3.ratio_all_states,
                }
            )
    return pd.DataFrame(rows).astype({"broken": "Int64"})
