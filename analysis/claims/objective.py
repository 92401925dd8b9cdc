"""Definition 1, Eq. (1)-(2), the gradient split of Section 4.2, the note that closes Appendix B."""

import numpy as np
from numpy.typing import NDArray

import gridworld
import lpm
from analysis.claims.instances import policy
from analysis.claims.record import Catalogue, Evidence, Verdict

Float = NDArray[np.float64]

claims = Catalogue()


def _softmax(logits: Float) -> Float:
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


@claims.add(
    "definition-1",
    "Definition 1",
    "d^π(s) = lim_{t→∞} P(S_t = s | S_0, π) weighs the states of Eq. (1)",
    hypotheses="an episodic task: the Ideal Cliff Walking under policies that reach an exit",
    tolerance=1e-9,
    expected=Verdict.UNDER,
    correction="d^π the discounted occupancy (or the normalised visits of an episode)",
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    mdp = gridworld.ideal_cliff_walking()
    cells = mdp.decision_states
    pi = policy(rng, mdp)
    step = np.einsum("sa,sat->st", pi, mdp.transitions)
    limit = mdp.start @ np.linalg.matrix_power(step, 2**14)
    worst = 0.0
    for _ in range(n):
        # Performance identity: start·V^π = Σ_s d(s) Σ_a π(a|s) r(s, a) / (1 − γ).
        pi = policy(rng, mdp)
        d = mdp.occupancy(pi, discount=mdp.discount)
        by_occupancy = float(d @ (pi * mdp.rewards).sum(axis=1)) / (1 - mdp.discount)
        exact = float(mdp.start @ mdp.policy_value(pi))
        worst = max(worst, abs(by_occupancy / exact - 1))
    mass = float(limit[cells].sum())
    return Evidence(
        1 - mass,
        "1 − limiting mass on cells with a decision; corrected: performance identity "
        f"start·V = Σ d·r/(1−γ), {n} policies",
        corrected=worst,
        counterexample=f"random policy, t = 2¹⁴: the cells hold {mass:.1e} of the mass",
    )


@claims.add(
    "eq-1",
    "Eq. (1)",
    "Σ_s d^π(s) Σ_a π(a|s)Ψ^π has the gradient of the return when d^π and Ψ are held fixed",
    hypotheses="d^π the discounted occupancy, Ψ = Q^π (policy gradient theorem)",
    tolerance=1e-6,
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    mdp = gridworld.ideal_cliff_walking()
    worst, count, step = 0.0, max(1, n // 5), 1e-5
    for _ in range(count):
        logits = rng.standard_normal((mdp.num_states, mdp.num_actions))
        direction = rng.standard_normal(logits.shape)
        pi = _softmax(logits)
        q = mdp.policy_action_value(pi)
        advantage = q - (pi * q).sum(axis=1, keepdims=True)
        d = mdp.occupancy(pi, discount=mdp.discount)
        analytic = float((d[:, None] * pi * advantage * direction).sum()) / (1 - mdp.discount)
        up, down = (
            float(mdp.start @ mdp.policy_value(_softmax(logits + sign * step * direction)))
            for sign in (1, -1)
        )
        slope = (up - down) / (2 * step)
        worst = max(worst, abs(analytic - slope) / (1 + abs(slope)))
    return Evidence(worst, f"against central differences of start·V^π, {count} policies")


def _angle(a: Float, b: Float) -> float:
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


@claims.add(
    "eq-2",
    "Eq. (2)",
    "J of Eq. (1) can be expressed as Σ_s d(s)·log π(a*|s)·Ψ",
    hypotheses="environment fully explored",
    tolerance=1e-9,
    expected=Verdict.FAILS,
    correction="Eq. (2) is another objective; both reach their supremum as π(a*) → 1",
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    q = np.array([1.0, 0.5, 0.0])
    expected, surrogate = float(q.mean()), float(q.max() * np.log(1 / 3))
    return Evidence(
        abs(expected - surrogate),
        "|Eq. (1) − Eq. (2)| at the uniform policy",
        counterexample=(
            f"K = 3, Q = (1, .5, 0), π uniform: Eq. (1) is {expected:.4f}, Eq. (2) {surrogate:.4f}"
        ),
    )


@claims.add(
    "eq-2-gradient",
    "Note after Eq. (35)",
    "Eq. (2)'s gradient estimates Eq. (1)'s without bias (“unbiased estimator”)",
    hypotheses="Q = (1, .9, 0), h = 0",
    tolerance=1e-6,
    expected=Verdict.UNDER,
    correction="all suboptimal actions have the same Q: then the directions agree",
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    angle = float(np.degrees(lpm.gradient_angle(lpm.simplex_etf(3, 2), [1.0, 0.9, 0.0])))
    worst = 0.0
    for _ in range(n):
        k = int(rng.integers(3, 10))
        q = np.full(k, rng.uniform(0, 0.9))
        q[rng.integers(k)] = 1.0
        worst = max(worst, lpm.gradient_angle(lpm.simplex_etf(k, k - 1), q))
    return Evidence(
        np.radians(angle),
        f"angle between the gradients (radians); corrected: the same, {n} Q with equal rest",
        corrected=worst,
        counterexample=f"K = 3, Q = (1, .9, 0), h = 0: the gradients are {angle:.1f}° apart",
    )


@claims.add(
    "eq-2-argmax",
    "Eq. (2), a*",
    "Theorem 1 with a* “the optimal action predicted by the model”",
    hypotheses="a*(s) = argmax_a π(a|s)",
    tolerance=1e-9,
    expected=Verdict.UNDER,
    correction="a*(s) the environment's optimal action, fixed",
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    head = lpm.simplex_etf(4, 3)
    # A state whose label is 0: aligned with the wrong w_1 the model predicts 1, and Eq. (2) with
    # that prediction as a* cannot tell.
    values = [
        lpm.PeeledProblem(head, [k], [1.0], 4.0).objective(2 * head[k : k + 1]) for k in range(4)
    ]
    spread = max(values) - min(values)
    fixed = lpm.PeeledProblem(head, [0], [1.0], 4.0)
    certificate = lpm.certify(fixed, lpm.solve(fixed).features)
    wrong = fixed.objective(2 * head[1:2])
    # The theorem says the optimum is at w_0: its residual is the angle to another maximiser.
    angle = _angle(head[0], head[1]) if spread < 1e-12 else 0.0
    return Evidence(
        np.radians(angle),
        "angle between two maximisers of Eq. (2); corrected: KKT residual with a* fixed",
        corrected=certificate.kkt_residual,
        counterexample=(
            f"K = 4, ρ = 2: J = {values[0]:.4f} at each of the 4 directions (angles {angle:.1f}°); "
            f"with a* fixed the wrong ones have J = {wrong:.4f}"
        ),
    )


@claims.add(
    "gradient-split",
    "Section 4.2, gradient of J",
    "Σ_a π_a Q_a ∇log π_a pulls h towards w_{a*} and pushes it away from every other w_a",
    hypotheses="any Q with a unique optimal action",
    tolerance=0.0,
    expected=Verdict.UNDER,
    correction="the coefficient of w_a is π_a(Q_a − V): actions better than V attract too; all "
    "others repel when their Q is below V, e.g. when suboptimal values are equal",
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    q = np.array([1.0, 0.9, 0.0])
    pi = np.full(3, 1 / 3)
    coefficients = lpm.split_coefficients(pi, q)
    worst = 0.0
    for _ in range(n):
        k = int(rng.integers(2, 10))
        equal = np.full(k, rng.uniform(-1, 0.9))
        best = int(rng.integers(k))
        equal[best] = 1.0
        split = lpm.split_coefficients(rng.dirichlet(np.ones(k)), equal)
        worst = max(worst, float(np.delete(split, best).max()), float(-split[best]))
    return Evidence(
        max(0.0, float(coefficients[1:].max())),
        f"largest coefficient of a suboptimal action; corrected: for {n} Q with equal rest",
        corrected=max(0.0, worst),
        counterexample="Q = (1, .9, 0), π uniform: coefficients "
        + ", ".join(f"{c:+.4f}" for c in coefficients),
    )


@claims.add(
    "gradient-split-formula",
    "Section 4.2, middle equality",
    "E_π[Ψ∇log π(a|s)] = (w_{a*} − Σ_j π_j w_j)Ψ ∇h",
    hypotheses="any Q, any policy",
    tolerance=1e-12,
    expected=Verdict.UNDER,
    correction="the expectation over actions kept: Σ_a π_a(Q_a − V)·w_a",
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    literal, corrected = 0.0, 0.0
    for _ in range(n):
        k = int(rng.integers(3, 8))
        w, pi = rng.standard_normal((k, 5)), rng.dirichlet(np.ones(k))
        q = rng.standard_normal(k)
        # E_a[Q_a ∇_h log π_a] with ∇_h log π_a = w_a − Σ_j π_j w_j, summed naively.
        exact = sum(pi[a] * q[a] * (w[a] - pi @ w) for a in range(k))
        best = int(q.argmax())
        scale = float(np.linalg.norm(exact))
        literal = max(literal, float(np.linalg.norm(exact - q[best] * (w[best] - pi @ w))) / scale)
        short = lpm.split_coefficients(pi, q) @ w
        corrected = max(corrected, float(np.linalg.norm(exact - short)) / (1 + scale))
    return Evidence(
        literal,
        f"relative difference from the expectation; corrected: π_a(Q_a − V), {n} random Q",
        corrected=corrected,
        counterexample=f"relative error up to {literal:.3g} over {n} random Q, π, heads",
    )
