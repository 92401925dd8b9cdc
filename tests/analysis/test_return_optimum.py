"""The optimum of Eq. (1) on a decision process, against searches that know nothing of it."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import softmax

import lpm
from agents.tabular_config import TabularConfig
from analysis import return_optimum
from analysis.return_optimum import fixed_head_optimum, learned_head_equilibrium
from gridworld import TabularMDP

CLIFF = TabularConfig().mdp()
ETF = lpm.simplex_etf(4, 3)


def random_mdp(seed: int, states: int = 3, actions: int = 3, discount: float = 0.8) -> TabularMDP:
    """Any transitions, one terminal state at the end."""
    rng = np.random.default_rng(seed)
    total = states + 1
    transitions = rng.dirichlet(np.ones(total), (total, actions))
    rewards = rng.standard_normal((total, actions))
    transitions[-1], rewards[-1] = np.eye(total)[-1], 0.0
    start = np.append(np.full(states, 1 / states), 0.0)
    return TabularMDP(transitions, rewards, np.arange(total) == states, start, discount)


def value_of(mdp: TabularMDP, logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """V of softmax policies on the decision states, by iterating the Bellman operator."""
    policy = np.full((mdp.num_states, mdp.num_actions), 1 / mdp.num_actions)
    policy[mdp.decision_states] = softmax(logits, axis=1)
    value = np.zeros(mdp.num_states)
    for _ in range(int(np.log(1e-16) / np.log(mdp.discount))):
        backup = mdp.rewards + mdp.discount * mdp.transitions @ value
        value = np.where(mdp.terminal, 0.0, (policy * backup).sum(axis=1))
    return value[mdp.decision_states]


# ------------------------------------------------------------------ fixed head


@pytest.mark.parametrize("seed", range(4))
def test_no_search_over_all_states_at_once_finds_a_higher_return(seed: int) -> None:
    mdp, rng = random_mdp(seed), np.random.default_rng(seed)
    head, energy = rng.standard_normal((3, 2)), 2.0
    found = fixed_head_optimum(mdp, head, energy, rng)
    assert found.gap >= 0
    assert ((found.features**2).sum(axis=1) <= energy * (1 + 1e-12)).all()
    own = value_of(mdp, found.features @ head.T)

    def loss(point: NDArray[np.float64]) -> float:
        h = point.reshape(3, 2)
        inside = np.sqrt(energy) * h / np.sqrt(1 + (h**2).sum(axis=1, keepdims=True))
        return float(-value_of(mdp, inside @ head.T).mean())

    searched = [minimize(loss, rng.standard_normal(6), method="BFGS").fun for _ in range(3)]
    assert own.mean() >= -min(searched) - 1e-9
    # Features that the search could take, so that it is no bound of an empty promise.
    assert (own >= value_of(mdp, np.zeros((3, 3)))).all()
    values = mdp.rewards + mdp.discount * mdp.transitions @ np.append(own, 0.0)
    np.testing.assert_allclose(found.action_values, values[:-1], atol=1e-9)


@given(st.integers(0, 10_000), st.floats(0.1, 20.0))
def test_every_state_is_at_its_own_optimum_for_the_values_of_the_whole(
    seed: int, energy: float
) -> None:
    mdp, rng = random_mdp(seed, states=2), np.random.default_rng(seed)
    head = lpm.simplex_etf(3, 2, rng=rng)
    found = fixed_head_optimum(mdp, head, energy, rng)
    logits = found.features @ head.T
    own = value_of(mdp, logits)
    expected = (softmax(logits, axis=1) * found.action_values).sum(axis=1)
    np.testing.assert_allclose(expected, own, atol=1e-9)
    directions = rng.standard_normal((2, 500, 2))
    directions *= np.sqrt(energy) / np.linalg.norm(directions, axis=2, keepdims=True)
    radii = np.sqrt(rng.uniform(0, 1, (2, 500, 1)))
    others = softmax(radii * directions @ head.T, axis=2)
    tried = np.einsum("nak,nk->na", others, found.action_values)
    assert (tried <= own[:, None] + found.gap + 1e-9).all()


def test_the_gap_is_no_less_than_what_a_poor_search_loses(monkeypatch: pytest.MonkeyPatch) -> None:
    mdp, head = random_mdp(5), lpm.simplex_etf(3, 2)
    best = value_of(
        mdp, fixed_head_optimum(mdp, head, 9.0, np.random.default_rng(0)).features @ head.T
    )
    search = lpm.maximise_expected_return

    def poor(*arguments: Any) -> lpm.ExpectedReturnOptimum:
        optimum = search(*arguments)
        return replace(optimum, features=0.7 * optimum.features)

    monkeypatch.setattr(lpm, "maximise_expected_return", poor)
    found = fixed_head_optimum(mdp, head, 9.0, np.random.default_rng(0))
    lost = best - value_of(mdp, found.features @ head.T)
    assert lost.max() > 1e-3
    assert found.gap >= lost.max()


def test_no_policy_in_a_large_ball_beats_the_optimal_one_and_it_is_approached() -> None:
    rng = np.random.default_rng(0)
    cells = CLIFF.decision_states
    best = CLIFF.optimal_value()[cells]
    before = np.full(len(cells), np.inf)
    for energy in (1.0, 25.0, 225.0):
        found = fixed_head_optimum(CLIFF, ETF, energy, rng)
        assert found.gap < (1e-9 if energy > 1 else 1.0)
        missing = best - value_of(CLIFF, found.features @ ETF.T)
        assert (missing > 0).all()
        assert (missing < before).all()
        before = missing
    assert before.max() < 1e-7


def test_half_of_the_cells_are_off_the_frame_by_the_expansion_and_the_rest_on_it() -> None:
    found = fixed_head_optimum(CLIFF, ETF, 25.0, np.random.default_rng(0))
    labels = CLIFF.optimal_actions()[CLIFF.decision_states].argmax(axis=1)
    own = ETF[labels]
    cosine = (found.features * own).sum(axis=1) / np.linalg.norm(found.features, axis=1)
    angle = np.arccos(np.clip(cosine, -1, 1))
    # Two of three other actions tie in four cells and all three in the others.
    equal = np.array(
        [np.ptp(np.delete(q, k)) < 1e-9 for q, k in zip(found.action_values, labels, strict=True)]
    )
    assert equal.sum() == 4
    assert angle[equal].max() < 1e-7
    expected = [lpm.large_rho_angle(q, 5.0) for q in found.action_values[~equal]]
    np.testing.assert_allclose(angle[~equal], expected, rtol=0.1)
    assert angle[~equal].min() > 0.05
    # The head's orientation and scale change nothing but ρ.
    rng = np.random.default_rng(1)
    turned = lpm.simplex_etf(4, 9, energy=4.0, rng=rng)
    again = fixed_head_optimum(CLIFF, turned, 6.25, rng)
    np.testing.assert_allclose(
        again.features @ turned.T, found.features @ ETF.T, atol=1e-6, rtol=1e-6
    )


def test_training_on_the_exact_gradient_ends_there() -> None:
    """A table of features, ascended by autograd with projection onto the ball: no network."""
    mdp, energy = random_mdp(7, states=2), 4.0
    head = lpm.simplex_etf(3, 2)
    found = fixed_head_optimum(mdp, head, energy, np.random.default_rng(0))
    w, h = torch.from_numpy(head), torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)
    p, r = torch.tensor(mdp.transitions[:2]), torch.tensor(mdp.rewards[:2])
    for _ in range(3000):
        pi = (h @ w.T).softmax(-1)
        chain = torch.einsum("sk,skt->st", pi, p[:, :, :2])
        value = torch.linalg.solve(torch.eye(2) - mdp.discount * chain, (pi * r).sum(-1))
        (gradient,) = torch.autograd.grad(value.sum(), h)
        with torch.no_grad():
            h += 0.5 * gradient
            h *= (energy**0.5 / h.norm(dim=1, keepdim=True)).clamp(max=1)
    np.testing.assert_allclose(h.detach().numpy(), found.features, atol=1e-6)


# ------------------------------------------------------------------ learned head


def test_states_that_differ_by_a_permutation_give_the_balanced_frame() -> None:
    """Each of three states pays for another action: by symmetry the optimum is Theorem 1's."""
    transitions = np.zeros((4, 3, 4))
    transitions[:, :, 3] = 1.0
    rewards = np.vstack([np.eye(3) - 1.0, np.zeros(3)])
    mdp = TabularMDP(
        transitions, rewards, np.arange(4) == 3, np.append(np.full(3, 1 / 3), 0.0), 0.5
    )
    found = learned_head_equilibrium(mdp, 4.0, 1.0, np.random.default_rng(0))
    rho = 2.0
    best = lpm.maximise_expected_return(
        lpm.simplex_etf(3, 2), rewards[0], rho**2, np.random.default_rng(0)
    )
    own = (softmax(found.features @ found.head.T, axis=1) * found.action_values).sum(axis=1)
    np.testing.assert_allclose(own, best.value, atol=1e-9)
    frame = 1.5 * (np.eye(3) - 1 / 3)
    np.testing.assert_allclose(found.head @ found.head.T, frame, atol=1e-5)
    np.testing.assert_allclose(found.features @ found.features.T, 4 * frame, atol=1e-4)
    assert np.isnan(found.gap)
    assert found.stationarity < 1e-5


@pytest.mark.parametrize(("nonnegative", "exponent"), [(False, 2.0), (True, 2.0), (True, 1.0)])
def test_learned_head_against_autograd_and_its_bounds(nonnegative: bool, exponent: float) -> None:
    rng = np.random.default_rng(3)
    energy, head_energy = 9.0, 2.0
    found = learned_head_equilibrium(
        CLIFF, energy, head_energy, rng, nonnegative=nonnegative, exponent=exponent
    )
    norms = np.linalg.norm(found.features, axis=1)
    assert (norms**exponent).mean() == pytest.approx(energy ** (exponent / 2))
    assert (found.head**2).sum(axis=1).mean() == pytest.approx(head_energy)
    assert found.features.min() >= (0.0 if nonnegative else -np.inf)
    shortfall = found.action_values.max(axis=1, keepdims=True) - found.action_values
    own = (softmax(found.features @ found.head.T, axis=1) * shortfall).sum(axis=1).mean()
    # Adam on squared parameters knows neither the gradient nor the search.
    torch.manual_seed(0)
    lost = torch.from_numpy(shortfall)
    a = torch.randn(8, 12, dtype=torch.float64, requires_grad=True)
    b = torch.randn(4, 12, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([a, b], lr=0.02)
    for step in range(3000):
        optimizer.param_groups[0]["lr"] = 0.02 * (1 - step / 3000)
        h = a**2 if nonnegative else a
        h = h * energy**0.5 / (h.norm(dim=1) ** exponent).mean() ** (1 / exponent)
        w = b * (head_energy / (b**2).sum(1).mean()).sqrt()
        loss = ((h @ w.T).softmax(-1) * lost).sum(-1).mean().log()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert np.log(own) <= loss.item() + 1e-6
    assert np.log(own) >= loss.item() - 0.02


def test_it_rests_on_the_all_action_gradient_but_not_at_the_largest_return() -> None:
    found = learned_head_equilibrium(CLIFF, 4.0, 1.0, np.random.default_rng(0))
    h = torch.tensor(found.features, requires_grad=True)
    w = torch.tensor(found.head, requires_grad=True)

    def tangential(loss: torch.Tensor) -> float:
        """Largest gradient along the bounds, which only allow moves that keep mean squares."""
        parts = zip(torch.autograd.grad(loss, (h, w), retain_graph=True), (h, w), strict=True)
        off = ((g - (g * x).sum() / (x * x).sum() * x).norm().item() for g, x in parts)
        return max(off)

    pi = (h @ w.T).softmax(-1)
    semi = (pi * torch.tensor(found.action_values)).sum(-1).mean()
    cells = CLIFF.decision_states
    p = torch.tensor(CLIFF.transitions[cells][:, :, cells])
    chain = CLIFF.discount * torch.einsum("sk,skt->st", pi, p)
    paid = (pi * torch.tensor(CLIFF.rewards[cells])).sum(-1)
    value = torch.linalg.solve(torch.eye(8, dtype=torch.float64) - chain, paid)
    assert tangential(semi) < 1e-6
    assert tangential(value.mean()) > 1e-2


def test_a_search_that_has_not_ended_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def idle(loss: object, start: object, *_: object, **__: object) -> SimpleNamespace:
        return SimpleNamespace(x=start)

    monkeypatch.setattr(return_optimum, "minimize", idle)
    with pytest.raises(RuntimeError, match=r"ends with a residual of .*, above 1e-05"):
        learned_head_equilibrium(CLIFF, 4.0, 1.0, np.random.default_rng(0))


def test_weights_of_states_matter_to_a_learned_head() -> None:
    rng = np.random.default_rng(0)
    plain = learned_head_equilibrium(CLIFF, 9.0, 1.0, rng)
    heavy = np.where(np.arange(8) == 0, 50.0, 1.0)
    found = learned_head_equilibrium(CLIFF, 9.0, 1.0, rng, weights=heavy)
    length = np.linalg.norm(found.features, axis=1) / np.linalg.norm(plain.features, axis=1)
    assert length.argmax() == 0


# ------------------------------------------------------------------ refusals


def test_bad_input_is_refused_with_its_numbers() -> None:
    rng = np.random.default_rng(0)
    undiscounted = replace(CLIFF, discount=1.0)
    with pytest.raises(ValueError, match="discount must be below 1, got 1"):
        fixed_head_optimum(undiscounted, ETF, 1.0, rng)
    with pytest.raises(ValueError, match="discount must be below 1, got 1"):
        learned_head_equilibrium(undiscounted, 1.0, 1.0, rng)
    with pytest.raises(ValueError, match=r"K = 4 actions, got shape \(3, 2\)"):
        fixed_head_optimum(CLIFF, lpm.simplex_etf(3, 2), 1.0, rng)
    with pytest.raises(ValueError, match="head_energy must be a finite number above 0, got 0"):
        learned_head_equilibrium(CLIFF, 1.0, 0.0, rng)
    with pytest.raises(ValueError, match="8 positive numbers"):
        learned_head_equilibrium(CLIFF, 1.0, 1.0, rng, weights=np.zeros(8))
    with pytest.raises(ValueError, match="starts must be >= 1, got 0"):
        learned_head_equilibrium(CLIFF, 1.0, 1.0, rng, starts=0)
    for exponent in (0.5, 400.0):
        with pytest.raises(ValueError, match="exponent must lie between 1 and 20, got"):
            learned_head_equilibrium(CLIFF, 1.0, 1.0, rng, exponent=exponent)
    flat = random_mdp(0)
    rewards = np.zeros_like(flat.rewards)
    for rounding in (0.0, 1e-16):
        rewards[:3, 1] = rounding
        mdp = replace(flat, rewards=rewards + np.where(flat.terminal, 0.0, 0.3)[:, None])
        mdp = replace(mdp, transitions=np.repeat(flat.transitions[:, :1], 3, axis=1))
        with pytest.raises(ValueError, match="all actions of s0, s1, s2 are worth the same"):
            fixed_head_optimum(mdp, lpm.simplex_etf(3, 2), 1.0, rng)
        with pytest.raises(ValueError, match="all actions of s0, s1, s2 are worth the same"):
            learned_head_equilibrium(mdp, 1.0, 1.0, rng)


def test_ties_of_a_policy_on_the_way_are_no_ties_of_the_optimum() -> None:
    """s0 leads to s1 (±1) or s2 (±3), worth the same under the uniform policy."""
    transitions = np.zeros((4, 2, 4))
    transitions[0, 0, 1] = transitions[0, 1, 2] = 1.0
    transitions[1:, :, 3] = 1.0
    rewards = np.array([[0.0, 0.0], [1.0, -1.0], [3.0, -3.0], [0.0, 0.0]])
    terminal, start = np.arange(4) == 3, np.array([1.0, 0.0, 0.0, 0.0])
    mdp = TabularMDP(transitions, rewards, terminal, start, 0.9)
    head = lpm.simplex_etf(2, 1)
    found = fixed_head_optimum(mdp, head, 4.0, np.random.default_rng(0))
    # Each state prefers an action and goes all the way: h = ±2, the dearer second for s0.
    np.testing.assert_allclose(found.features @ head.T, [[-2, 2], [2, -2], [2, -2]], atol=1e-9)


def test_values_that_do_not_settle_are_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(return_optimum, "_ROUNDS", 1)
    with pytest.raises(RuntimeError, match="after 1 rounds"):
        fixed_head_optimum(CLIFF, ETF, 1.0, np.random.default_rng(0))
