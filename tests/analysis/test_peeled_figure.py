"""The peeled model's studies and their figures at small size."""

import numpy as np
import pandas as pd
import pytest
from caption_cases import assert_cut_above_its_caption

import lpm
from analysis import figures, peeled


def ignore(gained: int) -> None:
    assert gained == 1


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    return {
        "minority": peeled.minority_study(ignore, points=9),
        "reference": peeled.reference_study(ignore),
        "transitions": peeled.transition_study(ignore, points=6),
        "true_objective": peeled.true_objective_study(ignore, np.random.default_rng(0), points=5),
        "rectified": peeled.rectified_study(ignore, np.random.default_rng(0), frames=2),
    }


def test_minority_study_agrees_with_the_reference_and_the_transitions(tables) -> None:
    minority = tables["minority"]
    assert (minority["gap"] <= 1e-10).all()
    own = minority[minority["feature_energy"] == 5.0]
    for row in tables["reference"].itertuples():
        ours = lpm.solve_free_head(peeled._problem(row.ratio, 5.0))
        assert row.minority_norm == pytest.approx(ours.head_norms[-1], abs=2e-3)
        assert row.minority_cosine == pytest.approx(ours.head_cosines[-1, -2], abs=5e-3)
        assert 0 <= row.gap <= 1e-4
    ratio = lpm.minority_collapse_ratio(5, 5, 5.0, 1.0)
    collapsed = own["ratio"] > ratio
    np.testing.assert_allclose(own.loc[collapsed, "minority_cosine"], 1.0, atol=1e-9)
    assert (own.loc[~collapsed, "minority_cosine"] < 1 - 1e-3).all()
    vanished = minority[minority["minority_norm"] == 0]
    assert len(vanished) > 0
    assert vanished["minority_cosine"].isna().all()


def test_transitions_are_ordered(tables) -> None:
    rows = tables["transitions"]
    assert (rows["collapse_ratio"] > 1).all()
    assert (rows["vanishing_ratio"] >= rows["collapse_ratio"]).all()
    assert set(peeled.FEATURE_ENERGIES) <= set(rows["feature_energy"])


def test_true_objective_study_has_its_limits(tables) -> None:
    for name, own in tables["true_objective"].groupby("action_values"):
        first, last = own.iloc[0], own.iloc[-1]
        assert first["angle_degrees"] == pytest.approx(first["small_rho_degrees"], abs=0.5), name
        assert last["angle_degrees"] == pytest.approx(last["large_rho_degrees"], abs=0.05), name


def test_rectified_optimum_is_below_the_largest_cosine(tables) -> None:
    rows = tables["rectified"].dropna()
    assert (rows["cosine"] <= rows["largest_cosine"] + 1e-9).all()
    assert (rows["gap"] <= 1e-9).all()
    wide = rows[rows["dim"] >= 256]
    assert wide["cosine"].mean() == pytest.approx(np.sqrt(0.5), abs=0.03)


def test_the_caption_can_be_left_off_the_picture(tables) -> None:
    words = "What was run, in a caption of several lines. " * 12
    assert_cut_above_its_caption(figures.figure_lpm(tables, words), words)


def test_figure_has_six_panels(tables) -> None:
    figure = figures.figure_lpm(tables, "what was run")
    assert [axes.get_title()[:3] for axes in figure.axes] == [f"({c})" for c in "abcdef"]
    for axes in figure.axes:
        assert axes.get_xlabel()
        assert axes.get_ylabel()
    again = figures.figure_lpm(tables, "what was run")
    assert figures.encode(figure, "png") == figures.encode(again, "png")


def test_benchmark_figure_draws_every_family() -> None:
    row = {"cpu_s": 0.1, "gap": 1e-12}
    result = {
        "environment": {"machine": {"processor": "test"}},
        "against": [{"num_classes": 10, "ours": row, "CLARABEL": row, "SCS": row}],
        "scaling": [{"family": f, "num_classes": 10, **row} for f in ("balanced", "zipf")],
    }
    figure = figures.figure_free_head_benchmark(result)
    assert len(figure.axes[0].get_lines()) == 4
    assert "(a) time" in figure.axes[0].get_title()
