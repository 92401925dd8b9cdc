"""The overlay: known optima recovered, the decomposition against naive sums, bad input refused."""

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import logsumexp

import lpm
from agents import TabularTrainer
from analysis.cliff import arms
from analysis.figures.overlay import figure_overlay
from analysis.overlay import GRAMS, TERMS, Interval, Overlay, across, overlay
from analysis.overlay_measure import Measured
from analysis.overlay_resamples import Resamples, draw, equal_units
from analysis.snapshot import Snapshot
from lpm.free_head_rectified import solve_free_head_rectified

ENERGY, HEAD_ENERGY = 9.0, 1.5


def rotated(rows: np.ndarray, dim: int, rng: np.random.Generator) -> np.ndarray:
    """Rows in a random subspace of R^dim."""
    basis, _ = np.linalg.qr(rng.standard_normal((dim, rows.shape[1])))
    return rows @ basis.T


def spread(rows: np.ndarray, block: int, rng: np.random.Generator) -> np.ndarray:
    """Every coordinate written on `block` own ones with positive weights: an isometry of h >= 0."""
    weights = rng.uniform(0.2, 1.0, (rows.shape[1], block))
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    return np.einsum("ki,ib->kib", rows, weights).reshape(len(rows), -1)


def noisy(features, head, counts, rng, *, noise: float, rectified: bool = False) -> Snapshot:
    """States scattered about the feature of their class."""
    labels = np.repeat(np.arange(len(counts)), counts)
    own = features[labels]
    if rectified:
        shape = 1.0 / noise**2
        own = own * rng.gamma(shape, 1.0 / shape, own.shape)
    else:
        own = own + noise * rng.standard_normal(own.shape)
    return Snapshot(own, labels, head, num_classes=len(head), step=0)


def fixed_etf(rng) -> tuple[Snapshot, dict]:
    head = lpm.simplex_etf(4, 8, HEAD_ENERGY, rng)
    features = head * np.sqrt(ENERGY / HEAD_ENERGY)
    return noisy(features, head, (60, 120, 60, 180), rng, noise=0.3), {"head": "fixed"}


def fixed_any_head_rectified(rng) -> tuple[Snapshot, dict]:
    while True:
        head = rng.standard_normal((3, 6))
        problem = lpm.PeeledProblem(head, range(3), np.ones(3), ENERGY, "nonnegative")
        features = lpm.solve(problem, "orthant").features
        # Where an optimum lies inside the ball, E_H cannot be measured.
        if (features**2).sum(axis=1).min() > ENERGY * (1 - 1e-9):
            break
    options = {"head": "fixed", "cone": "nonnegative"}
    return noisy(features, head, (120, 150, 180), rng, noise=0.2, rectified=True), options


def learned_imbalanced(rng) -> tuple[Snapshot, dict]:
    counts = (160, 160, 40, 40)
    found = lpm.solve_free_head(lpm.FreeHeadProblem(counts, ENERGY / 4, HEAD_ENERGY))
    both = rotated(np.vstack([found.features, found.head]), 8, rng)
    return noisy(both[:4], both[4:], counts, rng, noise=0.2), {"head": "learned"}


def learned_rectified(rng) -> tuple[Snapshot, dict]:
    counts = (240, 160, 80)
    found = solve_free_head_rectified(counts, ENERGY, HEAD_ENERGY)
    both = spread(np.vstack([found.features, found.head]), 3, rng)
    options = {"head": "learned", "cone": "nonnegative"}
    return noisy(both[:3], both[3:], counts, rng, noise=0.3, rectified=True), options


MODELS = (fixed_etf, fixed_any_head_rectified, learned_imbalanced, learned_rectified)


def coverage(model, repetitions: int) -> float:
    hits = 0
    for seed in range(repetitions):
        rng = np.random.default_rng([7, seed])
        snapshot, options = model(rng)
        hits += overlay(snapshot, rng=rng, bootstrap=400, **options).covered
    return hits / repetitions


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_recovers_a_known_optimum(model) -> None:
    # 95 % bands: fewer than 2 of 4 has a probability below 0.1 %.
    assert coverage(model, 4) >= 2 / 4


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_recovers_a_known_optimum_at_the_stated_rate(model) -> None:
    assert coverage(model, 200) >= 0.9


# ------------------------------------------------------------------ intervals of few states


def displaced_etf(
    states: int, rng, *, turn: float, stretch: float
) -> tuple[Snapshot, Mapping[str, float]]:
    """`states` a class about the fixed ETF's optimum, class 0 turned and class 1 stretched.

    The mean turns out of the span of the frame, so that its angle to its own row is `turn` degrees
    and all other errors follow from the class means; they come with the snapshot.
    """
    head = lpm.simplex_etf(4, 8, HEAD_ENERGY, rng)
    means = head * np.sqrt(ENERGY / HEAD_ENERGY)
    out = rng.standard_normal(8)
    out -= head.T @ np.linalg.lstsq(head.T, out, rcond=None)[0]
    angle = np.radians(turn)
    means[0] = np.cos(angle) * means[0] + np.sin(angle) * 3.0 * out / np.linalg.norm(out)
    means[1] *= 1.0 + stretch
    lengths = np.linalg.norm(means, axis=1) / np.sqrt((means**2).sum(axis=1).mean())

    def angles(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        scale = np.linalg.norm(first, axis=1)[:, None] * np.linalg.norm(second, axis=1)
        return np.degrees(np.arccos(np.clip(first @ second.T / scale, -1.0, 1.0)))

    pairs = ~np.eye(4, dtype=bool)
    true = {
        "features angle": np.abs(angles(means, means) - angles(head, head))[pairs].mean(),
        "cross angle": np.abs(angles(means, head) - angles(head, head)).mean(),
        "cross worst": np.abs(angles(means, head) - angles(head, head)).max(),
        "features norm": np.abs(lengths - 1.0).mean(),
    }
    return noisy(means, head, (states,) * 4, rng, noise=0.3), true


def intervals(found: Overlay) -> dict[str, Interval]:
    features, cross = found.comparisons["features"], found.comparisons["cross"]
    return {
        "features angle": features.angle_error,
        "cross angle": cross.angle_error,
        "cross worst": cross.worst_angle,
        "features norm": features.norm_error,
    }


def hits(states: int, repetitions: int, *, turn: float, stretch: float) -> Counter[str]:
    """How often the band holds the true difference, and each interval of an error the true one."""
    count: Counter[str] = Counter()
    for seed in range(repetitions):
        rng = np.random.default_rng([11, states, seed])
        snapshot, true = displaced_etf(states, rng, turn=turn, stretch=stretch)
        found = overlay(snapshot, rng=rng, bootstrap=200)
        if turn == stretch == 0.0:
            count["band"] += found.covered
        for name, interval in intervals(found).items():
            # An angle of 0 from a cosine is off by 1e-6°.
            count[name] += interval.lower <= true[name] + 1e-5 and true[name] <= interval.upper
            assert interval.lower <= interval.value <= interval.upper
    return count


# If the rate is 91 %, chance alone fails one of these with a probability below 0.5 %.
@pytest.mark.parametrize(("states", "repetitions", "least"), [(8, 30, 22), (20, 20, 14)])
def test_intervals_of_few_states_hold_the_optimum(states, repetitions, least) -> None:
    found = hits(states, repetitions, turn=0.0, stretch=0.0)
    assert len(found) == 5
    assert min(found.values()) >= least, found


def test_intervals_of_errors_hold_known_ones() -> None:
    found = hits(20, 20, turn=20.0, stretch=0.1)
    assert len(found) == 4
    assert min(found.values()) >= 13, found


@pytest.mark.slow
@pytest.mark.parametrize("states", [8, 20])
@pytest.mark.parametrize(("turn", "stretch"), [(0.0, 0.0), (5.0, 0.03), (20.0, 0.1)])
def test_intervals_of_few_states_hold_at_the_stated_rate(states, turn, stretch) -> None:
    # If the rate is 91 %, chance alone fails this with a probability below 0.1 %.
    found = hits(states, 300, turn=turn, stretch=stretch)
    assert min(found.values()) >= 0.85 * 300, found


# ------------------------------------------------------------------ episodes


def games_about_the_optimum(games: int, rng, *, shared_by: str, equal: bool) -> Snapshot:
    """About 200 states a game about a fixed ETF's optimum, half of the noise shared in a game."""
    lengths = np.full(games, 200)
    if not equal:
        lengths = np.maximum(20, rng.exponential(200, games).astype(int))
    episodes = np.repeat(np.arange(games), lengths)
    labels = rng.integers(4, size=len(episodes))
    head = lpm.simplex_etf(4, 8, HEAD_ENERGY, rng)
    by_action = rng.standard_normal((games, 4, 8))
    by_game = np.broadcast_to(rng.standard_normal((games, 1, 8)), by_action.shape)
    shared = {"action": by_action, "game": by_game}[shared_by][episodes, labels]
    noise = 0.3 * np.sqrt(0.5) * (shared + rng.standard_normal(shared.shape))
    features = head[labels] * np.sqrt(ENERGY / HEAD_ENERGY) + noise
    kept = np.sort(rng.permutation(len(labels))[:2000])
    return Snapshot(
        features[kept], labels[kept], head, num_classes=4, step=0, episodes=episodes[kept]
    )


def episode_hits(games: int, repetitions: int, **options) -> tuple[Counter[str], int]:
    """How often what is measured of the optimum holds it, and how often there were intervals."""
    count: Counter[str] = Counter()
    told = 0
    for seed in range(repetitions):
        rng = np.random.default_rng([17, games, seed])
        snapshot = games_about_the_optimum(games, rng, **options)
        without = dataclasses.replace(snapshot, episodes=None)
        count["taken as independent"] += overlay(without, rng=rng, bootstrap=200).covered
        found = overlay(snapshot, rng=rng, bootstrap=200)
        if "intervals" in found.reasons:
            continue
        told += 1
        count["band"] += found.covered
        for name, interval in intervals(found).items():
            count[name] += interval.lower <= 1e-5
    return count, told


def test_games_are_what_varies() -> None:
    found, told = episode_hits(10, 20, shared_by="action", equal=True)
    assert told == 20
    assert found.pop("taken as independent") <= 2
    assert len(found) == 5
    assert min(found.values()) >= 14, found


@pytest.mark.slow
@pytest.mark.parametrize("equal", [True, False])
@pytest.mark.parametrize("shared_by", ["action", "game"])
@pytest.mark.parametrize("games", [8, 10, 20, 50])
def test_intervals_of_games_hold_at_the_stated_rate(games, shared_by, equal) -> None:
    # If the rate is 91 %, chance alone fails this with a probability below 0.5 %.
    found, told = episode_hits(games, 100, shared_by=shared_by, equal=equal)
    assert told == 100 if equal else told >= 20
    assert found.pop("taken as independent") <= 35
    assert min(found.values()) >= 0.82 * told, found


def of_two_actions(features: np.ndarray, episodes: np.ndarray, **options) -> Measured:
    """A snapshot in which both actions have these states, in these episodes."""
    snapshot = Snapshot(
        np.concatenate([features, features + 5.0]),
        np.repeat([0, 1], len(episodes)),
        np.eye(features.shape[1])[:2],
        num_classes=2,
        step=0,
        episodes=np.concatenate([episodes, episodes]),
    )
    return Measured.of(snapshot, "fixed", options.get("weights"), "means")


@pytest.mark.parametrize("length", [1, 3])
def test_resampled_means_vary_as_means_of_episodes_do(length) -> None:
    """Of m episodes of equal length, s²/m with s² the variance of their means (m − 1 below)."""
    rng = np.random.default_rng(0)
    episodes = np.repeat(np.arange(9) * 7 - 3, length)
    features = rng.standard_normal((len(episodes), 3))
    measured = of_two_actions(features, episodes)
    first, second = draw(measured, 40_000, rng)
    means = first[:40_000] @ features
    of_episodes = np.stack([features[episodes == e].mean(axis=0) for e in np.unique(episodes)])
    np.testing.assert_allclose(means.var(axis=0), of_episodes.var(axis=0, ddof=1) / 9, rtol=0.03)
    np.testing.assert_array_equal(first[:40_000], second[:40_000])
    np.testing.assert_allclose(first.sum(axis=1), 1.0)
    # After those come the resamples in which the first action alone varies, then the second.
    np.testing.assert_allclose(first[-40:], measured.weights[0] + np.zeros((40, 1)))
    assert (second[-40:].std(axis=0) > 0).all()


@pytest.mark.parametrize("by", ["length", "weight"])
def test_resampled_means_of_unequal_episodes_vary_as_means_do(by) -> None:
    """On average over noise that games share: a third of 12 games has 4 times the weight."""
    shares = np.repeat([4.0, 1.0], [4, 8])
    lengths = shares.astype(int) * 2 if by == "length" else np.full(12, 3)
    episodes = np.repeat(np.arange(12), lengths)
    weights = None if by == "length" else np.tile(np.repeat(shares, 3), 2)
    rng = np.random.default_rng(0)
    # Each column is a noise of its own, of variance 1 a game.
    features = rng.standard_normal((12, 2000))[episodes]
    measured = of_two_actions(features, episodes, weights=weights)
    shares /= shares.sum()
    (first, _), true = draw(measured, 4000, rng), (shares**2).sum()
    assert (first[:4000] @ features).var(axis=0).mean() == pytest.approx(true, rel=0.05)
    # The variance that a resampling finds itself varies: its degrees of freedom.
    own = (shares**2).sum() ** 2 / (shares**4).sum()
    np.testing.assert_allclose(equal_units(measured), own, rtol=1e-12)
    values = (np.concatenate([first, first])[: 4000 + 80] @ features)[:, :5]
    freedom = Resamples(measured, 4000, 0.95).freedom(values)
    np.testing.assert_allclose(freedom, own - 1.0, rtol=1e-12)


def test_an_action_mostly_of_one_game_leaves_no_interval() -> None:
    rng = np.random.default_rng(0)
    episodes = np.repeat(np.arange(20), [400, *[3] * 19])
    head = lpm.simplex_etf(3, 4, 1.0, rng)
    labels = rng.integers(3, size=len(episodes))
    features = head[labels] + 0.1 * rng.standard_normal((len(labels), 4))
    shot = Snapshot(features, labels, head, num_classes=3, step=0, episodes=episodes)
    said = overlay(shot, rng=rng, bootstrap=20).reasons["intervals"]
    assert "episodes each, worth 1.0 or more of equal length: resampling needs 8 or more" in said


def test_a_resample_whose_states_have_no_energy_left_is_no_error() -> None:
    """Two games, one with ten times the norm of the other, whose enlarged share may be negative."""
    rng = np.random.default_rng(0)
    for games, few in ((2, True), (9, False)):
        episodes = np.repeat(np.arange(games), 30)
        head = lpm.simplex_etf(2, 3, 1.0, rng)
        labels = rng.integers(2, size=len(episodes))
        features = head[labels] * np.where(episodes == 0, 100.0, 0.01)[:, None]
        shot = Snapshot(features, labels, head, num_classes=2, step=0, episodes=episodes)
        found = overlay(shot, rng=rng, bootstrap=200, feature_energy="states")
        assert ("intervals" in found.reasons) == few
        assert math.isfinite(found.gap.value)
        assert math.isfinite(found.gap.upper) != few


@pytest.mark.slow
@pytest.mark.parametrize("games", [10, 20])
def test_the_gap_of_games_is_held_for_the_shares_that_were_seen(games) -> None:
    """Shares of actions are each game's own; action 0 is noisier, so that they matter to the gap.

    The truth is the gap of games that go on forever with the shares of the sample: noise of
    variance v about a class mean of an ETF costs what a large sample says it does.
    """
    held = 0
    for seed in range(60):
        rng = np.random.default_rng([23, games, seed])
        head = lpm.simplex_etf(4, 8, HEAD_ENERGY, rng)
        shares = rng.dirichlet(np.ones(4), games)
        episodes = np.repeat(np.arange(games), 200)
        labels = np.concatenate([rng.choice(4, size=200, p=own) for own in shares])
        scale = np.array([2.0, 0.5, 0.5, 0.5])

        def noisy_features(of, scale=scale, head=head, rng=rng) -> np.ndarray:
            noise = scale[of][:, None] * rng.standard_normal((len(of), 8))
            return head[of] * np.sqrt(ENERGY / HEAD_ENERGY) + noise

        shot = Snapshot(
            noisy_features(labels), labels, head, num_classes=4, step=0, episodes=episodes
        )
        found = overlay(shot, rng=rng, bootstrap=200, feature_energy=ENERGY)
        if math.isnan(found.gap.lower):
            held += 1
            continue
        many = np.repeat(np.arange(4), 20_000)
        logits = noisy_features(many) @ head.T
        losses = -(logits - logsumexp(logits, axis=1, keepdims=True))[range(len(many)), many]
        truth = losses.reshape(4, -1).mean(axis=1) @ found.shares - found.losses["free"]
        held += found.gap.lower <= truth <= found.gap.upper
    # If the rate is 95 %, chance alone fails this with a probability below 1 %.
    assert held >= 52


def test_names_of_episodes_do_not_matter() -> None:
    snapshot = games_about_the_optimum(9, np.random.default_rng(0), shared_by="game", equal=False)
    renamed = dataclasses.replace(snapshot, episodes=torch.from_numpy(snapshot.episodes * 10 - 7))
    first, second = (
        overlay(one, rng=np.random.default_rng(1), bootstrap=20) for one in (snapshot, renamed)
    )
    assert first.episodes.tolist() == second.episodes.tolist() == [9] * 4
    np.testing.assert_array_equal(
        first.comparisons["cross"].lower, second.comparisons["cross"].lower
    )
    without = overlay(dataclasses.replace(snapshot, episodes=None), rng=np.random.default_rng(1))
    assert without.episodes is None
    assert without.gap.value == first.gap.value


def test_an_action_of_few_episodes_leaves_no_interval() -> None:
    snapshot = games_about_the_optimum(10, np.random.default_rng(0), shared_by="game", equal=True)
    kept = (snapshot.labels != 2) | (snapshot.episodes < 7)
    few = dataclasses.replace(
        snapshot,
        **{name: getattr(snapshot, name)[kept] for name in ("features", "labels", "episodes")},
    )
    found = overlay(few, rng=np.random.default_rng(1), bootstrap=20)
    assert found.reasons["intervals"].startswith("actions [2] have 7 episodes each, worth 6.")
    assert math.isnan(found.gap.lower)
    assert found.counts[2] > 100


@pytest.mark.parametrize("fewest", [1, 2, 7])
def test_too_few_states_leave_no_interval(fewest) -> None:
    rng = np.random.default_rng(0)
    head = lpm.simplex_etf(3, 4, 1.0, rng)
    labels = np.repeat(np.arange(3), (9, fewest, 9))
    features = head[labels] + 0.1 * rng.standard_normal((len(labels), 4))
    snapshot = Snapshot(features, labels, head, num_classes=3, step=0)
    found = overlay(snapshot, rng=rng, bootstrap=20)
    assert found.reasons["intervals"].startswith(f"actions [1] have {fewest} state")
    assert np.isnan(found.comparisons["features"].lower).all()
    assert math.isnan(found.comparisons["features"].norm_error.upper)
    assert all(math.isnan(interval.lower) for interval in (found.gap, *found.terms.values()))
    assert not found.covered
    assert found.comparisons["features"].angle_error.value < 20.0
    assert found.counts.tolist() == [9, fewest, 9]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_exact_optimum_has_no_gap(model) -> None:
    rng = np.random.default_rng(0)
    _, options = model(rng)
    found = overlay(without_noise(model), rng=rng, bootstrap=2, **options)
    for name in GRAMS:
        comparison = found.comparisons[name]
        np.testing.assert_allclose(comparison.predicted, comparison.observed, atol=2e-6)
    for term in ("within_class", "directions", "norms", "head"):
        assert found.terms[term].value == pytest.approx(0.0, abs=1e-8)


def without_noise(model) -> Snapshot:
    """The model's snapshot with every feature at its class's."""
    rng = np.random.default_rng(0)
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        patch.setitem(globals(), "noisy", _exact)
        return model(rng)[0]


def _exact(features, head, counts, rng, *, noise: float, rectified: bool = False) -> Snapshot:
    labels = np.repeat(np.arange(len(counts)), counts)
    return Snapshot(features[labels], labels, head, num_classes=len(head), step=0)


# ------------------------------------------------------------------ the decomposition


def cross_entropy(h: np.ndarray, head: np.ndarray, label: int) -> float:
    logits = head @ h
    return float(np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[label])


def best_loss(head: np.ndarray, label: int, energy: float, rectified: bool) -> float:
    """Smallest cross-entropy of a feature of this energy, by a general-purpose optimiser."""
    ball = {"type": "ineq", "fun": lambda h: energy - h @ h}
    bounds = [(0, None) if rectified else (None, None)] * head.shape[1]
    start = np.maximum(head[label], 0.01) if rectified else head[label]
    start = start * np.sqrt(energy) / np.linalg.norm(start) * 0.9
    found = minimize(
        lambda h: cross_entropy(h, head, label),
        start,
        constraints=[ball],
        bounds=bounds,
        method="SLSQP",
        options={"ftol": 1e-13, "maxiter": 500},
    )
    return float(found.fun)


@pytest.mark.parametrize("rectified", [False, True])
def test_decomposition_equals_naive_sums(rectified) -> None:
    rng = np.random.default_rng(3)
    head = rng.standard_normal((4, 5))
    labels = np.array([0, 0, 0, 1, 1, 3, 3])  # action 2 is never the label
    features = head[labels] + rng.standard_normal((7, 5))
    features = np.maximum(features, 0.0) if rectified else features
    weights = rng.uniform(0.5, 2.0, 7)
    found = overlay(
        Snapshot(features, labels, head, num_classes=4, step=0),
        rng=rng,
        weights=weights,
        bootstrap=2,
    )
    omega = weights / weights.sum()
    means, shares = {}, {}
    for k in (0, 1, 3):
        own = labels == k
        shares[k] = omega[own].sum()
        means[k] = omega[own] @ features[own] / shares[k]
    energy = np.mean([mean @ mean for mean in means.values()])
    expected = {
        "observed": sum(
            w * cross_entropy(h, head, k) for w, h, k in zip(omega, features, labels, strict=True)
        ),
        "class_means": sum(shares[k] * cross_entropy(means[k], head, k) for k in means),
        "directions": sum(
            shares[k] * best_loss(head, k, means[k] @ means[k], rectified) for k in means
        ),
        "norms": sum(shares[k] * best_loss(head, k, energy, rectified) for k in means),
        "free": sum(shares[k] * best_loss(head, k, energy, False) for k in means),
    }
    for name, value in expected.items():
        assert found.losses[name] == pytest.approx(value, abs=2e-6), name
    assert found.rectified == rectified
    assert (found.terms["cone"].value > 1e-3) == rectified
    assert sum(term.value for term in found.terms.values()) == pytest.approx(found.gap.value)
    assert found.gap.value == pytest.approx(expected["observed"] - expected["free"], abs=4e-6)
    assert found.feature_energy == pytest.approx(energy)
    assert found.notes == ("actions [2] are no state's label: without a predicted feature",)
    means_stack = np.stack(list(means.values()))
    np.testing.assert_allclose(
        found.comparisons["features"].observed, means_stack @ means_stack.T / energy
    )
    head_energy = (head**2).sum(axis=1).mean()
    np.testing.assert_allclose(
        found.comparisons["cross"].observed, means_stack @ head.T / np.sqrt(energy * head_energy)
    )


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("rectified", [False, True])
def test_terms_of_a_learned_head_are_never_negative(seed, rectified) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, 40)
    features = rng.standard_normal((40, 6)) + 2 * np.eye(6)[labels]
    features = np.maximum(features, 0.0) if rectified else features
    snapshot = Snapshot(features, labels, rng.standard_normal((3, 6)), num_classes=3, step=0)
    found = overlay(snapshot, rng=rng, head="learned", bootstrap=2)
    assert all(found.terms[name].value >= -1e-9 for name in TERMS), found.terms
    assert found.terms["within_class"].value > 1e-3
    order = list(found.losses.values())
    assert order == sorted(order, reverse=True)


def test_only_the_right_term_reacts() -> None:
    """Start from the optimum and spoil one thing at a time."""
    rng = np.random.default_rng(0)
    head = lpm.simplex_etf(4, 8, HEAD_ENERGY, rng)
    labels = np.repeat(np.arange(4), 5)
    best = head * np.sqrt(ENERGY / HEAD_ENERGY)
    swing, _ = np.linalg.qr(rng.standard_normal((8, 8)))
    turned = best @ (0.8 * np.eye(8) + 0.2 * swing)
    turned *= 3.0 / np.linalg.norm(turned, axis=1, keepdims=True)
    stretched = best * np.array([0.5, 0.8, 1.2, 1.4])[:, None]
    scattered = best[labels] + np.tile([[0.5], [-0.5], [0.3], [-0.3], [0.0]], (4, 1)) * swing[0]
    for features, guilty in (
        (turned[labels], "directions"),
        (stretched[labels], "norms"),
        (scattered, "within_class"),
    ):
        found = overlay(
            Snapshot(features, labels, head, num_classes=4, step=0), rng=rng, bootstrap=2
        )
        for name in TERMS:
            value = found.terms[name].value
            assert (abs(value) > 1e-6) == (name == guilty), (guilty, name, value)


# ------------------------------------------------------------------ errors, bands, edges


def test_angles_are_plain_angles() -> None:
    head = np.array([[1.0, 0.0], [0.0, 1.0]])
    degrees = np.radians([10.0, 60.0])
    features = 2.0 * np.stack([np.cos(degrees), np.sin(degrees)], axis=1)
    labels = np.array([0, 1, 0, 1])
    snapshot = Snapshot(features[labels], labels, head, num_classes=2, step=0)
    found = overlay(snapshot, rng=np.random.default_rng(0), bootstrap=2)
    # Predicted along ±(1, −1)/√2: 180° apart against 50°; the norms are right.
    assert found.comparisons["features"].angle_error.value == pytest.approx(130.0, abs=1e-4)
    assert found.comparisons["features"].norm_error.value == pytest.approx(0.0, abs=1e-9)
    assert found.comparisons["cross"].worst_angle.value == pytest.approx(75.0, abs=1e-4)
    assert "etf_angle" in found.reasons
    assert math.isnan(found.etf_angle)


@pytest.mark.parametrize(
    ("noise", "radius", "unknown"),
    [(0.05, 200.0, []), (0.3, 1000.0, TERMS[1:]), (0.05, 1000.0, [*TERMS, "gap"])],
)
def test_losses_below_the_range_of_float64_are_no_distances(noise, radius, unknown) -> None:
    head, labels = lpm.simplex_etf(4, 6), np.arange(80) % 4
    directions = head[labels] + noise * np.random.default_rng(1).standard_normal((80, 6))
    snapshot = Snapshot(radius * directions, labels, head, num_classes=4, step=0)
    found = overlay(snapshot, rng=np.random.default_rng(0), bootstrap=20)
    distances = {**found.terms, "gap": found.gap}
    assert [name for name, distance in distances.items() if math.isnan(distance.value)] == [
        *unknown
    ]
    assert all(np.isnan(distances[name]).all() for name in unknown)
    assert ("below float64's range" in found.reasons.get("gap", "")) == bool(unknown)
    assert math.isfinite(found.comparisons["centred"].angle_error.value)
    figure_overlay(found, "")  # draws what there is


@pytest.mark.parametrize("present", [1, 2])
def test_fewer_than_three_actions_have_no_centred_shape(present) -> None:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((40, 6))  # nothing like an optimum
    labels = np.arange(40) % present
    snapshot = Snapshot(features, labels, lpm.simplex_etf(4, 6), num_classes=4, step=0)
    found = overlay(snapshot, rng=rng, bootstrap=50)
    centred = found.comparisons["centred"]
    errors = (centred.angle_error, centred.worst_angle, centred.norm_error)
    assert np.isnan(np.array(errors)).all()
    assert np.isnan(centred.lower).all()
    assert np.isnan(centred.upper).all()
    assert "fewer than three actions" in found.reasons["centred comparison"]
    assert "centred angles" not in found.reasons
    assert math.isfinite(found.comparisons["cross"].angle_error.value)


def test_two_actions_at_their_optimum_are_covered_without_a_centred_band() -> None:
    rng = np.random.default_rng(0)
    head = lpm.simplex_etf(2, 6, HEAD_ENERGY, rng)
    features = head * np.sqrt(ENERGY / HEAD_ENERGY)
    found = overlay(noisy(features, head, (100, 100), rng, noise=0.3), rng=rng, bootstrap=200)
    assert np.isnan(found.comparisons["centred"].lower).all()
    assert found.covered


def test_imbalance_alone_explains_the_distance_to_the_etf() -> None:
    snapshot = without_noise(learned_imbalanced)
    found = overlay(snapshot, rng=np.random.default_rng(0), head="learned", bootstrap=2)
    assert found.etf_angle > 4.0
    assert found.comparisons["centred"].angle_error.value < 0.01
    balanced = overlay(without_noise(fixed_etf), rng=np.random.default_rng(0), bootstrap=2)
    assert balanced.etf_angle < 1e-4


def test_weights_take_the_place_of_counts() -> None:
    rng = np.random.default_rng(1)
    snapshot, _ = learned_imbalanced(rng)
    counted = overlay(snapshot, rng=np.random.default_rng(0), head="learned", bootstrap=2)
    keep = np.concatenate([np.flatnonzero(snapshot.labels == k)[:40] for k in range(4)])
    fewer = Snapshot(
        snapshot.features[keep], snapshot.labels[keep], snapshot.head, num_classes=4, step=0
    )
    weights = np.where(fewer.labels < 2, 4.0, 1.0)
    weighted = overlay(
        fewer,
        rng=np.random.default_rng(0),
        head="learned",
        weights=weights,
        bootstrap=2,
        feature_energy=counted.feature_energy,
    )
    np.testing.assert_allclose(weighted.shares, counted.shares)
    np.testing.assert_allclose(
        weighted.comparisons["head"].predicted, counted.comparisons["head"].predicted, atol=1e-6
    )


def test_optimum_inside_the_ball_is_noted() -> None:
    # Every row but that of action 0 is its negative: h ≥ 0 has to stay at 0 for action 1.
    head = np.array([[1.0, 1.0], [-1.0, -1.0]])
    features = np.repeat([[2.0, 2.0], [0.1, 0.1]], 4, axis=0)
    snapshot = Snapshot(features, np.repeat([0, 1], 4), head, num_classes=2, step=0)
    found = overlay(snapshot, rng=np.random.default_rng(0), cone="nonnegative", bootstrap=2)
    assert "actions [1] lies inside the ball" in found.notes[0]
    fixed, _ = fixed_etf(np.random.default_rng(0))
    assert overlay(fixed, rng=np.random.default_rng(0), bootstrap=2).notes == ()


def test_directions_lost_in_noise_have_no_interval() -> None:
    rng = np.random.default_rng(0)
    head = lpm.simplex_etf(3, 4, 1.0, rng)
    labels = np.repeat(np.arange(3), 10)
    scale = np.array([1.0, 1.0, 0.2])[labels, None]
    features = scale * head[labels] + 0.2 * rng.standard_normal((30, 4))
    found = overlay(Snapshot(features, labels, head, num_classes=3, step=0), rng=rng, bootstrap=50)
    assert found.reasons["angle intervals"].startswith("the class means of actions [2] are hardly")
    assert math.isnan(found.comparisons["cross"].angle_error.lower)
    assert found.comparisons["features"].norm_error.upper > 0
    assert np.isfinite(found.comparisons["features"].lower).all()


def test_bad_input_is_refused() -> None:
    rng = np.random.default_rng(0)
    snapshot, _ = fixed_etf(rng)
    with pytest.raises(ValueError, match="no head"):
        overlay(dataclasses.replace(snapshot, head=None), rng=rng)
    with pytest.raises(ValueError, match="420 are not, the first of them 0 "):
        overlay(snapshot, rng=rng, weights=np.zeros(420))
    with pytest.raises(ValueError, match="features are negative"):
        overlay(snapshot, rng=rng, cone="nonnegative")
    with pytest.raises(ValueError, match="only action 0 occurs"):
        overlay(
            dataclasses.replace(snapshot, labels=np.zeros(420, dtype=int)), rng=rng, head="learned"
        )
    with pytest.raises(ValueError, match="from 3 dimensions on"):
        overlay(
            dataclasses.replace(
                snapshot, features=snapshot.features[:, :2], head=snapshot.head[:, :2]
            ),
            rng=rng,
            head="learned",
        )
    with pytest.raises(ValueError, match="E_H is 0"):
        overlay(dataclasses.replace(snapshot, features=np.zeros((420, 8))), rng=rng)
    with pytest.raises(ValueError, match=r"got shape \(419,\)"):
        overlay(snapshot, rng=rng, weights=np.ones(419))
    with pytest.raises(ValueError, match=r"1 are not, the first of them inf \(state 7\)"):
        overlay(snapshot, rng=rng, weights=np.where(np.arange(420) == 7, np.inf, 1.0))
    one = overlay(snapshot, rng=rng, bootstrap=2)
    with pytest.raises(ValueError, match="at least two overlays"):
        across([one], rng)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cone": "rectified"}, "cone must be 'free' or 'nonnegative', got 'rectified'"),
        ({"cone": "rectified", "head": "learned"}, "cone must be"),
        ({"head": "etf"}, "head must be 'fixed' or 'learned', got 'etf'"),
        ({"bootstrap": 2.5}, "bootstrap must be a whole number >= 2, got 2.5"),
        ({"bootstrap": True}, "bootstrap must be a whole number >= 2, got True"),
        ({"bootstrap": 1}, "got 1"),
        ({"level": 1.0}, "level must lie between 0 and 1, got 1.0"),
        ({"level": math.nan}, "level must lie between 0 and 1, got nan"),
        *(
            ({"feature_energy": energy}, f"finite number above 0, got {energy!r}")
            for energy in (-1.0, 0, math.nan, math.inf, True, "mean")
        ),
    ],
)
def test_options_that_make_no_sense_are_named(options, said) -> None:
    snapshot, _ = fixed_etf(np.random.default_rng(0))
    with pytest.raises(ValueError, match=said):
        overlay(snapshot, rng=np.random.default_rng(0), **options)


def test_a_seed_is_no_generator() -> None:
    snapshot, _ = fixed_etf(np.random.default_rng(0))
    with pytest.raises(TypeError, match=r"rng must be a numpy.random.Generator, got 0"):
        overlay(snapshot, rng=0)


def test_a_given_energy_is_said_to_be_given() -> None:
    snapshot, _ = fixed_etf(np.random.default_rng(0))
    found = overlay(snapshot, rng=np.random.default_rng(0), feature_energy=4, bootstrap=2)
    assert (found.feature_energy, found.energy_source) == (4.0, "given")


# ------------------------------------------------------------------ Ideal Cliff Walking


def cliff_overlays(name: str, **options) -> list[Overlay]:
    arm = next(arm for arm in arms(100) if arm.name == name)
    trainer = TabularTrainer(arm.config, range(100, 120))
    for _ in range(arm.config.epochs):
        trainer.train_epoch()
    features, heads = trainer.output().features, trainer.policy.head.weight
    return [
        overlay(
            Snapshot(features[p], trainer.optimal_actions, heads[p], num_classes=4, step=100),
            rng=np.random.default_rng(p),
            bootstrap=50,
            **options,
        )
        for p in range(20)
    ]


@pytest.mark.slow
def test_cliff_with_a_fixed_etf_matches_in_every_entry() -> None:
    overlays = cliff_overlays("etf-eq2", head="fixed")
    assert across(overlays, np.random.default_rng(0)).covered()
    assert max(o.comparisons["features"].worst_angle.value for o in overlays) < 0.01
    assert max(o.gap.value / o.losses["free"] for o in overlays) < 1e-6


@pytest.mark.slow
def test_cliff_with_a_learned_head_matches_up_to_a_shared_component() -> None:
    overlays = cliff_overlays("learned-eq2", head="learned", cone="nonnegative")
    pooled = across(overlays, np.random.default_rng(0))
    # What softmax sees of the features, and the head, lie within the band over seeds. The raw
    # features share a component (cosines of .016 for 0) that L2 has not removed in 100 epochs.
    assert pooled.covered(["centred", "head"])
    assert not pooled.covered(["features"])
    assert pooled.covered(GRAMS, margin=0.02)
    assert all(o.terms["cone"].value > 0.8 * o.gap.value for o in overlays)
