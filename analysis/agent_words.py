"""Labels and captions of figures and tables of agents, worked out from the rows they show."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd

from agents.config import ATARI
from analysis.paper_tables import table1_scores
from analysis.statistics import few_runs_words

PAPER_EPOCH_STEPS = 100_000
"""Appendix C, for :data:`PAPER_BUDGETED`. It does not say whether steps are an agent's decisions or
the emulator's frames; here they are decisions."""
PAPER_BUDGETED = ("CarRacing-v3", *ATARI)
"""Environments whose number of steps the paper prints; CartPole's it does not."""

SETTING = (
    *("env", "algorithm", "convention", "observations", "network", "matched_entropy", "feature"),
)
"""What tells curves of one head apart."""
HEADS: Mapping[str, str] = {
    "linear": "learned",
    "etf": "ETF",
    "orthogonal": "frozen orthogonal",
    "gaussian": "frozen Gaussian",
}
"""Names of heads in the order in which they are shown."""
_OBSERVATIONS = {"state": "states", "image": "images", "ram": "RAM"}


def setting_label(setting: Mapping[str, Any], *, with_env: bool) -> str:
    """For example ``PPO, CNN on images, NoFrameskip-v4``.

    Parameters
    ----------
    setting
        Values of :data:`SETTING`.
    with_env
        Whether to start with the environment.
    """
    algorithm, network = setting["algorithm"].upper(), setting["network"].upper()
    parts = [algorithm, f"{network} on {_OBSERVATIONS[setting['observations']]}"]
    if setting["env"] in ATARI:
        parts.append(setting["convention"])
    if setting["matched_entropy"]:
        parts.append(f"initial entropy {setting['matched_entropy']} log K")
    if setting["feature"] != "rectified":
        parts.append(f"{setting['feature']} feature")
    label = ", ".join(parts)
    return f"{setting['env']}: {label}" if with_env else label


def runs_label(rows: pd.DataFrame) -> str:
    """Seeds and learning rate of one arm, for example ``3 seeds, lr 0.001``."""
    return f"{_count(rows['seed'].nunique(), 'seed')}, lr {_range(rows['learning_rate'])}"


def describe_runs(rows: pd.DataFrame) -> str:
    """What was run, a sentence for each setting: heads, seeds, learning rates and budget.

    Where an arm has few seeds it is said that its band is too narrow.
    """
    sentences = []
    for key, own in rows.groupby(list(SETTING)):
        arms = [
            f"{label} head, {runs_label(own[own['head'] == head])}"
            for head, label in HEADS.items()
            if (own["head"] == head).any()
        ]
        setting = dict(zip(SETTING, key, strict=True))
        label = setting_label(setting, with_env=True)
        sentences.append(f"{label}: {'; '.join(arms)}; {_budget(setting, own)}{_paper(setting)}.")
    seeds = rows.groupby([*SETTING, "head"])["seed"].nunique()
    return f"{' '.join([*sentences, 'lr: learning rate.'])}{few_runs_words(*seeds)}"


def paper_epochs(env: str, network: str) -> int:
    """Epochs of a run of the paper: Appendix C has "100/500", column Stop of Table 1 which."""
    return 500 if env in ATARI and network == "mlp" else 100


def _paper(setting: Mapping[str, Any]) -> str:
    """The final returns that the paper's Table 1 prints for a setting, if any."""
    algorithm, env, convention, network = (
        setting[name] for name in ("algorithm", "env", "convention", "network")
    )
    finals = {
        head: table1_scores(algorithm, env, convention, network, head).final
        for head in ("linear", "etf")
    }
    printed = [f"{final:g} ({HEADS[head]})" for head, final in finals.items() if final == final]
    return f"; the paper's Table 1 ends at {' and '.join(printed)}" if printed else ""


def _budget(setting: Mapping[str, Any], rows: pd.DataFrame) -> str:
    runs = rows.groupby(["head", "seed"])
    epochs, steps = runs["epoch"].max(), runs["steps"].max()
    text = (
        f"{_range(steps)} agent steps in {_range(epochs)} epochs, "
        f"{_range(rows['eval_episodes'])} evaluation episodes a point"
    )
    if setting["env"] not in PAPER_BUDGETED:
        return f"{text} (the paper prints no number of steps)"
    number = paper_epochs(setting["env"], setting["network"])
    shares = 100 * steps / (number * PAPER_EPOCH_STEPS)
    paper = f"{number} epochs × {PAPER_EPOCH_STEPS:,} steps"
    return f"{text}, {_range(shares.round(1))} % of the paper's {paper}"


def geometry_words(rows: pd.DataFrame, columns: Iterable[str]) -> str:
    """How collapse was measured, and what is missing from the `columns` that are shown."""
    last = rows[rows["epoch"] == rows.groupby([*SETTING, "head", "seed"])["epoch"].transform("max")]
    text = (
        "Classes are the policy's greedy actions on evaluation states, as optimal actions are "
        "unknown; an action that is never greedy has no class mean "
        f"({_range(last['absent_classes'])} of them after the last epoch). Class-mean centre; "
        "population std. Lines: median over seeds; bands: 95 % bootstrap of the median, from two "
        "seeds on."
    )
    if rows[list(columns)].isna().any(axis=None):
        text += (
            " Gaps: undefined in at least one seed, as the angles of H are with fewer than three "
            "greedy actions."
        )
    return text + unequal_words(rows)


def unequal_words(rows: pd.DataFrame) -> str:
    """That curves stop where an arm's shortest run does, if runs of an arm differ in length."""
    lengths = rows.groupby([*SETTING, "head", "seed"])["epoch"].max()
    arms = lengths.groupby([*SETTING, "head"]).nunique()
    return " A curve ends with the shortest of its runs." if (arms > 1).any() else ""


def last_values(
    rows: pd.DataFrame,
    columns: Mapping[str, str],
    centre: Literal["median", "mean"] = "median",
) -> str:
    """Where the curves end, over seeds, in words, an arm after the other.

    Parameters
    ----------
    columns
        Names in words by column.
    centre
        What the curves show.
    """
    found = []
    for (*key, head), own in rows.groupby([*SETTING, "head"]):
        # A curve ends with the shortest of its runs.
        last = own[own["epoch"] == own.groupby("seed")["epoch"].max().min()]
        values = ", ".join(
            f"{name} {last[column].agg(centre, skipna=False):.3g}"
            for column, name in columns.items()
        )
        label = setting_label(dict(zip(SETTING, key, strict=True)), with_env=True)
        found.append(f"{label}, {HEADS[head]} head ({_count(len(last), 'seed')}): {values}")
    return f"Where the curves end, {centre}s over seeds. {'; '.join(found)}."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _range(values: pd.Series) -> str:
    """``low to high``, or the one value there is."""
    low, high = float(np.min(values)), float(np.max(values))
    return _number(low) if low == high else f"{_number(low)} to {_number(high)}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value.is_integer() else f"{value:g}"
