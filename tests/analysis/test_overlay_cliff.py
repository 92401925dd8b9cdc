"""`overlay-cliff`: Gram matrices of many seeds as rows, pooled, drawn and told."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from agents import TabularTrainer
from analysis import __main__ as cli
from analysis import across, overlay_cliff
from analysis.cliff import Arm
from analysis.commands import overlay_cliff as command
from analysis.exhibits import read_figures, read_tables
from analysis.figures.overlay import figure_across
from analysis.figures.style import encode
from analysis.overlay import GRAMS, Across, across_runs, overlay
from analysis.overlay_cliff import (
    ACCURACY,
    gram_rows,
    model_of,
    objectives_of,
    overlay_arms,
    pool_rows,
    pooled_table,
    return_optimum,
)
from analysis.report import build_report
from analysis.runs import read_training_rows
from analysis.snapshot import Snapshot
from analysis.storage import RunFolderError
from gridworld.cliff import ACTION_NAMES

FRAME = np.eye(4) - (1 - np.eye(4)) / 3


def pooled(seed: int = 0, shift: float = 0.0, noise: float = 0.01) -> Across:
    """Thirty runs about the frame; entry (0, 1) of ``centred`` is off by `shift` in all."""
    rng = np.random.default_rng(seed)
    predicted = {name: np.tile(FRAME, (30, 1, 1)) for name in GRAMS}
    observed = {
        name: values + noise * rng.standard_normal(values.shape)
        for name, values in predicted.items()
    }
    observed["head"] = predicted["head"]
    observed["centred"][:, 0, 1] += shift
    return across_runs(predicted, observed, rng)


# ------------------------------------------------------------------ pooling


def test_noise_matches_and_a_shared_shift_does_not() -> None:
    # In 19 of 20 draws; a band of any level that pooled nothing would be five times as wide.
    assert np.mean([pooled(seed).covered() for seed in range(20)]) >= 0.85
    found = pooled(shift=0.02)
    assert not found.covered()
    assert np.argwhere(found.outside("centred")).tolist() == [[0, 1]]
    assert found.covered(["features", "head", "cross"])
    assert found.covered(margin=0.02)
    assert (found.runs, found.level) == (30, 0.95)
    half_width = (found.upper["centred"] - found.lower["centred"]) / 2
    assert (half_width < 5 * 0.01 / np.sqrt(30)).all()
    for name in GRAMS:
        difference = found.observed[name] - found.predicted[name]
        np.testing.assert_allclose(found.difference[name], difference, atol=1e-15)
        assert (found.lower[name] <= found.difference[name] + 1e-3).all()


def test_one_run_cannot_be_pooled() -> None:
    one = dict.fromkeys(GRAMS, FRAME[None])
    with pytest.raises(ValueError, match="at least two runs, got 1"):
        across_runs(one, one, np.random.default_rng(0))


def test_the_table_says_how_far_off_and_whether_it_matches() -> None:
    found = pooled(shift=0.02)
    table = pooled_table({("one", "eq-2"): pooled(), ("shifted", "eq-1"): found})
    assert table.groupby("arm")["objective"].unique().str[0].to_dict() == {
        "one": "eq-2",
        "shifted": "eq-1",
    }
    table = table.set_index(["arm", "gram"])
    assert list(table.loc["shifted"].index) == list(GRAMS)
    row = table.loc[("shifted", "centred")]
    assert row["difference"] == abs(found.difference["centred"]).max() > 0.015
    assert row["half_width"] == pytest.approx(
        (found.upper["centred"] - found.lower["centred"]).max() / 2
    )
    assert row["beyond"] == found.lower["centred"][0, 1] > 0
    assert (row["seeds"], row["outside"], row["entries"], row["covered"]) == (30, 1, 16, False)
    head = table.loc[("shifted", "head")]
    assert (head["difference"], head["half_width"], head["beyond"]) == (0, 0, 0)
    assert table.loc["one", "covered"].all()
    # Below the band as well as above it.
    below = pooled_table({("below", "eq-2"): pooled(shift=-0.02)}).set_index("gram").loc["centred"]
    assert below["beyond"] > 0.005
    assert below["outside"] == 1


@pytest.mark.parametrize(("shift", "covered"), [(0.5 * ACCURACY, True), (3 * ACCURACY, False)])
def test_differences_below_the_accuracy_of_training_are_agreement(shift, covered) -> None:
    found = pooled(shift=shift, noise=1e-12)
    row = pooled_table({("one", "eq-2"): found}).set_index("gram").loc["centred"]
    assert row["beyond"] == pytest.approx(shift, rel=1e-3)
    assert row["covered"] == covered
    assert row["outside"] == (0 if covered else 1)


# ------------------------------------------------------------------ the cliff


def test_arms_are_those_with_a_bound_and_each_has_its_models() -> None:
    names = ("eq2", "eq1", "controlled", "large", "large-long")
    found = {arm.name: arm for arm in overlay_arms(5)}
    assert list(found) == [f"{head}-{name}" for head in ("etf", "learned") for name in names]
    for name, arm in found.items():
        expected = ("fixed", "free") if name.startswith("etf") else ("learned", "nonnegative")
        assert model_of(arm) == expected
        assert objectives_of(arm) == (("eq-2",) if name.endswith("eq2") else ("eq-1", "eq-2"))
        assert arm.config.epochs == (20 if name.endswith("long") else 5)
        assert arm.config.episodes == (64 if "large" in name else 8)
        assert arm.config.weight_decay > 0 or arm.config.feature_energy is not None
    assert found["etf-eq1"].config.objective == "all-action"
    assert len({(arm.label, arm.config.epochs) for arm in found.values()}) == len(found)


def test_the_optimum_of_eq_1_is_where_its_exact_gradient_leads() -> None:
    """An ETF head's features, trained on the exact gradient: an oracle without any search."""
    (arm,) = (arm for arm in overlay_arms(60) if arm.name == "etf-eq1")
    trainer = TabularTrainer(arm.config, (0, 1))
    for _ in range(arm.config.epochs):
        trainer.train_epoch()
    rows = gram_rows(arm, trainer)
    off = (rows["observed"] - rows["predicted"]).abs().groupby(rows["objective"]).max()
    assert off["eq-1"] < 3e-4  # 60 of 500 epochs
    assert off["eq-2"] > 0.05
    # Observed Gram matrices do not depend on who predicts, head and all.
    one, two = (own.reset_index(drop=True) for _, own in rows.groupby("objective"))
    pd.testing.assert_series_equal(one["observed"], two["observed"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"feature": "rectified"}, "feature='rectified'.*linear features in a ball"),
        ({"feature_energy": None}, "feature_energy=None"),
    ],
)
def test_no_prediction_is_given_where_none_is_known(changes, message) -> None:
    (arm,) = (arm for arm in overlay_arms(1) if arm.name == "etf-eq1")
    arm = replace(arm, config=replace(arm.config, **changes))
    with pytest.raises(ValueError, match=message):
        gram_rows(arm, TabularTrainer(arm.config, (0,)))


def test_an_optimum_that_is_not_certified_predicts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    (arm,) = (arm for arm in overlay_arms(1) if arm.name == "etf-eq1")
    monkeypatch.setattr(overlay_cliff, "_CERTIFIED", -1.0)
    with pytest.raises(RuntimeError, match="above the optimum that was found"):
        gram_rows(arm, TabularTrainer(arm.config, (0,)))


def test_a_learned_heads_optimum_of_eq_1_has_the_members_energies() -> None:
    (arm,) = (arm for arm in overlay_arms(1) if arm.name == "learned-eq1")
    trainer = TabularTrainer(arm.config, (4,))
    trainer.train_epoch()
    features = trainer.output().features[0].numpy()
    head = trainer.policy.head.weight.detach()[0].numpy()
    snapshot = Snapshot(features, trainer.optimal_actions, head, num_classes=4, step=1)
    found = return_optimum(arm, trainer, snapshot, 4)
    for own, other in ((found.features, features), (found.head, head)):
        assert (own**2).sum(axis=1).mean() == pytest.approx((other**2).sum(axis=1).mean())
    assert found.features.min() >= 0
    rows = gram_rows(arm, trainer)
    assert rows["feature_energy"].unique() == pytest.approx((features**2).sum(axis=1).mean())
    assert rows["head_energy"].unique() == pytest.approx((head**2).sum(axis=1).mean())
    own = rows[(rows["objective"] == "eq-1") & (rows["gram"] == "features")]
    means = np.stack([found.features[trainer.optimal_actions == k].mean(0) for k in range(4)])
    gram = means @ means.T
    np.testing.assert_allclose(own["predicted"], (4 * gram / np.trace(gram)).ravel(), atol=1e-9)


def test_pooled_rows_are_the_overlays_of_the_seeds_pooled() -> None:
    arm = overlay_arms(1)[0]
    assert arm.name == "etf-eq2"
    trainer = TabularTrainer(arm.config, (3, 5, 4))
    trainer.train_epoch()
    rows = gram_rows(arm, trainer)
    assert len(rows) == 3 * len(GRAMS) * 16
    assert set(rows["epoch"]) == {1}
    features, heads = trainer.output().features, trainer.policy.head.weight
    overlays = [
        overlay(
            Snapshot(features[p], trainer.optimal_actions, heads[p], num_classes=4, step=1),
            rng=np.random.default_rng(9),
            bootstrap=4,
        )
        for p in (0, 2, 1)  # by seed
    ]
    whole = across(overlays, np.random.default_rng(1))
    found = pool_rows(rows.sample(frac=1, random_state=0), np.random.default_rng(1))
    for name in GRAMS:
        for what in ("predicted", "observed", "difference", "lower", "upper"):
            np.testing.assert_array_equal(getattr(found, what)[name], getattr(whole, what)[name])
    # One entry by hand: row and column are not exchanged.
    own = rows[(rows["gram"] == "cross") & (rows["row"] == 2) & (rows["column"] == 0)]
    mean = features[:, trainer.optimal_actions == 2].mean(1)
    scale = np.sqrt([o.feature_energy * o.head_energy for o in overlays])[[0, 2, 1]]
    expected = (mean * heads[:, 0]).sum(1).detach().numpy() / scale
    np.testing.assert_allclose(own["observed"], expected, atol=1e-12)


def run(out: Path, *arguments: str) -> int:
    options = ("--epochs", "1", "--seeds", "2", "--workers", "1", "--out", str(out))
    with pytest.raises(SystemExit) as ended:
        cli.main(["overlay-cliff", *options, *arguments])
    return int(ended.value.code or 0)


def two_arms(epochs: int) -> tuple[Arm, ...]:
    """One of each head, to save time."""
    return tuple(arm for arm in overlay_arms(epochs) if arm.name in ("etf-eq1", "learned-eq2"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "overlay_arms", two_arms)
        assert run(out, "--results", "none") == 0
    (folder,) = out.iterdir()
    return folder


def test_command_stores_rows_a_table_and_a_figure_an_arm(made: Path) -> None:
    names = ["etf-eq1", "learned-eq2"]
    assert sorted(path.stem for path in (made / "rows").iterdir()) == sorted(names)
    (table,) = read_tables(made)
    assert table.name == "pooled-overlay-cliff-1"
    assert list(table.rows["arm"].unique()) == names
    own = {"etf-eq1": ["eq-1", "eq-2"], "learned-eq2": ["eq-2"]}
    for name in names:
        rows = pd.read_parquet(made / "rows" / f"{name}.parquet")
        assert list(rows["objective"].unique()) == own[name]
        found = pooled_table(
            {
                (name, objective): pool_rows(
                    rows[rows["objective"] == objective], np.random.default_rng(0)
                )
                for objective in own[name]
            }
        )
        stored = table.rows[table.rows["arm"] == name].reset_index(drop=True)
        pd.testing.assert_frame_equal(stored, found)
        assert set(rows["seed"]) == {0, 1}
    figures = {figure.name: figure.words for figure in read_figures(made)}
    assert sorted(figures) == sorted(f"pooled-overlay-cliff-1-{name}" for name in names)
    words = figures["pooled-overlay-cliff-1-etf-eq1"]
    assert words is not None
    assert "ETF head, Eq. (1), exact gradient, norm control (ball), 1 epochs" in words.caption
    assert "the return's optimum in the ball, fixed head" in words.caption
    features = table.rows[table.rows["arm"] == "etf-eq1"].iloc[0]
    verdict = "matches" if features["covered"] else "does not match"
    assert f"features: {features['difference']:.2g}, band of ± " in words.alternative
    assert f", {verdict}; centred: " in words.alternative


def test_rows_elsewhere_are_not_trained_again(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "overlay_arms", two_arms)
    monkeypatch.setattr(overlay_cliff, "TabularTrainer", None)
    monkeypatch.setattr(command, "encode", lambda figure, kind: b"drawn by another test")
    assert run(tmp_path, "--results", str(made.parent)) == 0
    for path in made.rglob("*.parquet"):
        again = tmp_path / made.name / path.relative_to(made)
        assert again.read_bytes() == path.read_bytes(), path


def test_other_readers_of_run_folders_are_not_disturbed(made: Path, tmp_path: Path) -> None:
    page = build_report(made.parent, tmp_path / "page.html").read_text()
    missing = page.split('<section id="missing"')[1].split("</section>", maxsplit=1)[0]
    assert "action-collapse overlay-cliff" not in missing
    assert "action-collapse overlay RUN" in missing
    assert "Predictions over 2 seeds, Ideal Cliff Walking" in page
    with pytest.raises(RunFolderError, match="no finished training run"):
        read_training_rows(made.parent)


# ------------------------------------------------------------------ the figure


def test_means_are_drawn_and_what_the_band_excludes_is_framed() -> None:
    found = pooled(shift=-0.02)
    figure = figure_across(found, "which arm", "what was run", ACTION_NAMES)
    maps = [axes for axes in figure.axes if axes.images]
    assert len(maps) == 12
    for k, what in enumerate(("predicted", "observed", "difference")):
        for axes, name in zip(maps[4 * k : 4 * k + 4], GRAMS, strict=True):
            np.testing.assert_array_equal(axes.images[0].get_array(), getattr(found, what)[name])
    framed = {
        (name, patch.get_xy())
        for name, axes in zip(GRAMS, maps[8:], strict=True)
        for patch in axes.patches
    }
    assert framed == {("centred", (1 - 0.47, 0 - 0.47))}
    assert not any(axes.patches for axes in maps[:8])
    texts = [text.get_text() for text in figure.texts]
    assert {"which arm", "what was run"} <= set(texts)


def test_half_width_and_verdict_stand_below() -> None:
    found = pooled(shift=0.02)
    figure = figure_across(found, "which arm", "what was run", ACTION_NAMES)
    below = [text.get_text() for text in figure.texts if "matches: " in text.get_text()]
    assert ["yes" in text for text in below] == [True, False, True, True]
    half_width = (found.upper["centred"] - found.lower["centred"]).max() / 2
    assert f"half-width of the band {half_width:.2g}\n" in below[1]
    assert "0 outside the band in 1 of 16 entries" in below[1]
    assert "mean difference 0\nlargest half-width of the band 0\n" in below[2]


def test_what_is_rounding_is_not_drawn_as_a_difference() -> None:
    figure = figure_across(pooled(noise=1e-11), "which arm", "what was run", ACTION_NAMES)
    below = [text.get_text() for text in figure.texts if "matches: " in text.get_text()]
    assert all("matches: yes" in text for text in below)
    assert "mean difference < 1e-09\nlargest half-width of the band < 1e-09\n" in below[0]


def test_differences_within_the_margin_are_not_framed() -> None:
    found = pooled(shift=0.02)
    figure = figure_across(found, "which arm", "what was run", ACTION_NAMES, margin=0.02)
    assert not any(axes.patches for axes in figure.axes if axes.images)
    below = [text.get_text() for text in figure.texts if "matches: " in text.get_text()]
    assert all("yes" in text for text in below)


def test_bytes_are_stable() -> None:
    once, again = (encode(figure_across(pooled(), "t", "c", ACTION_NAMES), "png") for _ in range(2))
    assert once == again
