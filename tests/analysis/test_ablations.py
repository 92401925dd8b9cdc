"""The condition ablations at toy size: settings in numbers, rows, resumption, bars, figure."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from caption_cases import assert_cut_above_its_caption
from matplotlib.figure import Figure

from agents import TabularTrainer
from analysis import ablations
from analysis.ablation_settings import (
    ARMS,
    CONDITIONS,
    SAMPLED_ARMS,
    SAMPLED_CONDITIONS,
    Case,
    cases,
    class_weights,
    condition_rows,
)
from analysis.ablations import (
    BARS,
    AblationFigure,
    evaluate_bars,
    measure,
    run_ablations,
    run_case,
)
from analysis.figures.ablations import figure_ablations
from analysis.metrics import collapse_metrics
from analysis.storage import RunFolder

SEEDS = (0, 1, 2)
INF = float("inf")


def toy_cases() -> tuple[Case, ...]:
    return tuple(
        Case(
            case.condition,
            replace(
                case.arm,
                config=replace(case.arm.config, hidden=(8, 8), epochs=2, updates_per_epoch=2),
            ),
        )
        for case in cases()
    )


@pytest.fixture(scope="module")
def toy_run(tmp_path_factory) -> tuple[AblationFigure, dict[str, int]]:
    gained: dict[str, int] = {}

    def advance(name: str, epochs: int) -> None:
        gained[name] = gained.get(name, 0) + epochs

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ablations, "cases", toy_cases)
        run = run_ablations(tmp_path_factory.mktemp("runs"), len(SEEDS), 1, on_advance=advance)
    return run, gained


@pytest.fixture(scope="module")
def toy_rows(toy_run) -> pd.DataFrame:
    return toy_run[0].rows


def test_class_weights_by_hand() -> None:
    # The picture, row by row: right, up, up, left; right, down, down, left.
    assert class_weights("right", 0.1) == (0.1, 1, 1, 1, 0.1, 1, 1, 1)
    assert class_weights("left", 0.0) == (1, 1, 1, 0, 1, 1, 1, 0)
    assert class_weights("up", 3.0) == (1, 3, 3, 1, 1, 1, 1, 1)
    assert class_weights("down", 0.5) == (1, 1, 1, 1, 1, 0.5, 0.5, 1)
    assert class_weights("right", 0.0, 1) == (0, 1, 1, 1, 1, 1, 1, 1)


# Sizes of right, left, up, down among sampled cells; max/min of d; cells with d = 0.
BY_HAND = {
    ("base", "optimal"): ((2, 2, 2, 2), 1.0, 0),
    ("sizes-2", "optimal"): ((4, 4, 2, 2), 1.0, 0),
    ("sizes-5", "optimal"): ((10, 10, 2, 2), 1.0, 0),
    ("rare-10", "optimal"): ((2, 2, 2, 2), 10.0, 0),
    ("rare-100", "optimal"): ((2, 2, 2, 2), 100.0, 0),
    ("state-unseen", "optimal"): ((1, 2, 2, 2), INF, 1),
    ("class-unseen", "optimal"): ((0, 2, 2, 2), INF, 2),
    ("sampled-sweep", "uniform-random"): ((2, 2, 2, 2), 1.0, 0),
    ("sampled-outer", "optimal"): ((2, 2, 2, 2), 1.0, 0),
    # From all cells: the outer ones are met once, the inner ones also on the way out.
    ("sampled-uniform", "optimal"): ((2, 2, 2, 2), 2.0, 0),
    ("sampled-inner", "optimal"): ((0, 0, 2, 2), INF, 4),
    ("sampled-inner", "uniform-random"): ((2, 2, 2, 2), 1.0, 0),
}


@pytest.mark.parametrize(("condition", "policy"), BY_HAND)
def test_each_setting_breaks_what_it_says(condition, policy) -> None:
    table = condition_rows().set_index(["condition", "policy"])
    row = table.loc[(condition, policy)]
    sizes, ratio, unsampled = BY_HAND[condition, policy]
    assert tuple(row[f"size_{action}"] for action in ("right", "left", "up", "down")) == sizes
    assert row["d_ratio"] == pytest.approx(ratio, rel=1e-9)
    assert len([name for name in row["unsampled"].split(", ") if name]) == unsampled
    assert row["ties"] == 0


def test_every_setting_is_measured_under_two_policies() -> None:
    table = condition_rows()
    assert len(table) == 2 * (len(CONDITIONS) + len(SAMPLED_CONDITIONS))
    assert not table[["condition", "policy"]].duplicated().any()


def test_cases_are_settings_times_arms() -> None:
    names = [case.name for case in cases()]
    assert len(names) == len(set(names))
    assert len(names) == len(CONDITIONS) * len(ARMS) + len(SAMPLED_CONDITIONS) * len(SAMPLED_ARMS)
    base = [case for case in cases() if case.condition.name == "base"]
    assert all(case.config == case.arm.config for case in base)
    # Within a study the arms differ in head, feature and regulariser only.
    for study in (ARMS, SAMPLED_ARMS):
        alike = {
            replace(
                arm.config,
                head="linear",
                feature="linear",
                feature_energy=None,
                feature_norm="ball",
                weight_decay=0.0,
            )
            for arm in study
        }
        assert len(alike) == 1


@pytest.mark.parametrize("condition", ["base", "state-unseen", "class-unseen"])
def test_measured_rows_against_a_loop(condition) -> None:
    case = next(c for c in toy_cases() if c.name == f"{condition}.learned-linear-l2")
    trainer = TabularTrainer(case.config, SEEDS)
    trainer.train_epoch()
    rows = pd.DataFrame(measure(trainer)).set_index(["seed", "cells"])
    assert len(rows) == 2 * len(SEEDS)
    weights = case.config.state_weights or (1.0,) * 8
    output = trainer.output()
    for member, seed in enumerate(SEEDS):
        head = trainer.policy.head.weight[member].detach().numpy()
        h, labels = output.features[member].numpy(), trainer.optimal_actions
        cosines = [
            float(h[s] @ head[a] / np.linalg.norm(h[s]) / np.linalg.norm(head[a]))
            for s, a in enumerate(labels)
        ]
        seen = [s for s in range(8) if weights[s] > 0]
        unseen = [s for s in range(8) if weights[s] == 0]
        for cells, kept in (("visited", seen), ("all", list(range(8)))):
            row = rows.loc[(seed, cells)]
            expected = collapse_metrics(h[kept], labels[kept], head)
            for name in ("feature_max_angle", "head_max_angle", "within_class_variation"):
                assert row[name] == pytest.approx(getattr(expected, name), rel=1e-12, nan_ok=True)
            assert row["num_samples"] == len(kept)
            assert row["min_feature_head_cosine"] == pytest.approx(min(cosines[s] for s in kept))
            greedy = [int((head @ h[s]).argmax() == labels[s]) for s in kept]
            assert row["greedy_accuracy"] == pytest.approx(np.mean(greedy))
            assert row["optimal"] == float(all(greedy))
            if unseen:
                value = np.mean([cosines[s] for s in unseen])
                assert row["unseen_feature_head_cosine"] == pytest.approx(value)
                assert row["d_ratio"] == INF
            else:
                assert np.isnan(row["unseen_feature_head_cosine"])
                assert np.isnan(row["unseen_accuracy"])
                assert row["d_ratio"] == 1.0
    if condition == "class-unseen":
        assert (rows.xs("visited", level="cells")["absent_classes"] == 1).all()


def test_on_policy_ratio_is_the_members_own() -> None:
    """From the inner cells, against visits counted by powers of the transition matrix."""
    case = next(c for c in toy_cases() if c.name == "sampled-inner.learned-l2")
    trainer = TabularTrainer(case.config, (0,))
    trainer.train_epoch()
    (row, _) = measure(trainer)
    mdp, policy = trainer.mdp, trainer.policies()[0]
    moves = np.einsum("sa,sat->st", policy, mdp.transitions)
    moves[mdp.terminal] = 0.0
    where, visits = mdp.start.copy(), np.zeros(mdp.num_states)
    for _ in range(3000):
        visits += where
        where = where @ moves
    cells = visits[mdp.decision_states]
    assert row["d_ratio"] == pytest.approx(cells.max() / cells.min(), rel=1e-6)


def test_rows_are_tidy(toy_rows) -> None:
    assert not toy_rows[["condition", "arm", "cells", "seed"]].duplicated().any()
    assert (toy_rows.groupby(["condition", "arm"]).size() == 2 * len(SEEDS)).all()
    assert (toy_rows["epoch"] == 2).all()
    sphere = toy_rows["arm"].str.endswith("sphere")
    np.testing.assert_allclose(toy_rows.loc[sphere, "feature_norm"], 5.0)
    etf = toy_rows["arm"].str.startswith("etf")
    assert (toy_rows.loc[etf, "head_max_angle"] < 1e-12).all()
    partly = toy_rows["condition"].isin(["state-unseen", "class-unseen"])
    assert (toy_rows["unseen_feature_head_cosine"].notna() == partly).all()


def test_a_finished_case_is_not_trained_again(tmp_path, monkeypatch) -> None:
    folder = RunFolder(tmp_path, "toy", {})
    case = toy_cases()[0]
    gains: list[int] = []
    run_case(case, SEEDS, folder, gains.append)
    assert gains == [1, 1]
    monkeypatch.setattr(ablations, "TabularTrainer", None)
    run_case(case, SEEDS, folder, gains.append)
    assert gains == [1, 1, 2]


# --- expectations --------------------------------------------------------------------------------


def test_bars_name_cases_and_columns_that_exist(toy_rows) -> None:
    names = {case.name for case in cases()}
    for bar in BARS:
        assert f"{bar.condition}.{bar.arm}" in names
        assert bar.column in toy_rows.columns
        assert bar.cells in set(toy_rows["cells"])
        assert bar.sense in ("<=", ">=")
    keys = [(bar.condition, bar.arm, bar.cells, bar.column) for bar in BARS]
    assert len(keys) == len(set(keys))
    assert len(evaluate_bars(toy_rows)) == len(BARS)


@pytest.mark.parametrize("sense", ["<=", ">="])
def test_bars_hold_medians_against_limits(toy_rows, sense) -> None:
    rows = toy_rows.copy()
    for bar in BARS:
        own = (rows["condition"] == bar.condition) & (rows["arm"] == bar.arm)
        rows.loc[own & (rows["cells"] == bar.cells), bar.column] = bar.limit
    assert evaluate_bars(rows)["met"].all()
    bar = next(b for b in BARS if b.sense == sense)
    own = (rows["condition"] == bar.condition) & (rows["arm"] == bar.arm)
    own &= rows["cells"] == bar.cells
    beyond = 10.0 if sense == "<=" else -10.0
    rows.loc[own & (rows["seed"] == 0), bar.column] = beyond
    assert evaluate_bars(rows)["met"].all()  # one seed of three does not move the median past it
    for value in (beyond, float("nan")):
        rows.loc[own & (rows["seed"] == 1), bar.column] = value
        failed = evaluate_bars(rows).query("not met")
        assert failed[["condition", "arm", "cells", "column"]].to_numpy().tolist() == [
            [bar.condition, bar.arm, bar.cells, bar.column]
        ]


# --- figure and run ------------------------------------------------------------------------------


def draw(rows: pd.DataFrame, caption: str = "what was run") -> Figure:
    return figure_ablations(
        rows,
        conditions={c.name: c.label for c in CONDITIONS},
        arms={arm.name: arm.label for arm in ARMS},
        sampled={c.name: c.label for c in SAMPLED_CONDITIONS},
        caption=caption,
    )


def test_the_caption_can_be_left_off_the_picture(toy_rows) -> None:
    words = "What was run, in a caption of several lines. " * 12
    assert_cut_above_its_caption(draw(toy_rows, words), words)


def test_dots_are_medians_of_their_cells(toy_rows) -> None:
    figure = draw(toy_rows)
    assert [axes.get_title()[:3] for axes in figure.axes] == [f"({c})" for c in "abcdef"]
    assert "what was run" in [text.get_text() for text in figure.texts]
    angle_h = figure.axes[1]
    filled, hollow = set(), set()
    for line in angle_h.get_lines():
        if line.get_marker() in ("o", "D"):
            kind = hollow if line.get_markerfacecolor() == "white" else filled
            kind.add(round(float(line.get_xdata()[0]), 12))
    names = [condition.name for condition in CONDITIONS]
    exact = toy_rows[toy_rows["condition"].isin(names)]
    medians = exact.groupby(["cells", "condition", "arm"])["feature_max_angle"].median().round(12)
    assert filled == set(medians["visited"])
    assert hollow == set(medians["all"].loc[["state-unseen", "class-unseen"]])
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == [condition.label for condition in CONDITIONS]
    assert "max/min d: 1" in figure.axes[3].get_yticklabels()[0].get_text()


def test_equal_arms_have_equal_bands(toy_rows) -> None:
    rows = pd.concat([toy_rows.assign(seed=toy_rows["seed"] + 3 * i) for i in range(3)])
    rows["feature_max_angle"] = np.random.default_rng(0).uniform(0.1, 1, 9)[rows["seed"]]
    lines = [line for line in draw(rows).axes[1].get_lines() if line.get_marker() == "None"]
    bands = {tuple(line.get_xdata()) for line in lines if line.get_color() != "#bbbbbb"}
    assert len(bands) == 1


def test_run_is_stored_and_read_back(toy_run, monkeypatch) -> None:
    first, gained = toy_run
    assert gained == {case.name: 2 for case in toy_cases()}
    assert all(path.exists() for path in first.paths)
    folder = first.paths[0].parent.parent
    assert len(list((folder / "rows").glob("*.parquet"))) == len(toy_cases()) + 1
    pd.testing.assert_frame_equal(
        pd.read_parquet(folder / "rows" / "conditions.parquet"), first.conditions
    )
    assert first.expectations_met == bool(first.bars["met"].all())
    monkeypatch.setattr(ablations, "cases", toy_cases)
    monkeypatch.setattr(ablations, "TabularTrainer", None)
    again = run_ablations(folder.parent, len(SEEDS), workers=1)
    assert again.png == first.png
    pd.testing.assert_frame_equal(again.rows, first.rows)
