"""Deliberately broken builds, one edit each, and the test that must notice.

Every bug here is one that somebody could write: a sign, a factor, a transposed axis, weights
forgotten, a difference that cancels, float32 where float64 was meant. `test_mutants` checks that
each ``old`` still occurs exactly once in its file, that every property has a mutant, and (marked
slow) that each named test fails on its broken build.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """One edit of one file, and the test that must fail on it."""

    file: str
    """Path from the root of the project."""
    old: str
    """Text that occurs exactly once in the file."""
    new: str
    """What takes its place."""
    test: str
    """Identifier ``path::name`` of the test."""
    why: str
    """The bug, in a few words."""


_FRAMES = "tests/lpm/test_frames.py::"
_PROBLEM = "tests/lpm/test_problem.py::"
_SOLVERS = "tests/lpm/test_solvers.py::"

LPM = (
    Mutant(
        "lpm/frames.py",
        "np.sqrt(energy * num_classes / rank) / np.sqrt",
        "np.sqrt(energy) / np.sqrt",
        f"{_FRAMES}test_gram_matrix_is_eq_10",
        "the factor K/(K-1) of Eq. (10) is missing",
    ),
    Mutant(
        "lpm/frames.py",
        "(q * np.sign(np.diag(r))).T",
        "(q * np.diag(r)).T",
        f"{_FRAMES}test_gram_matrix_is_eq_10",
        "the orientation is scaled by R instead of by its signs: no isometry",
    ),
    Mutant(
        "lpm/frames.py",
        "= -i * normaliser",
        "= -(i + 1) * normaliser",
        f"{_FRAMES}test_lemma_1_rows_sum_to_zero",
        "off by one in the Helmert matrix",
    ),
    Mutant(
        "lpm/frames.py",
        "scale * (k / (k - 1) * np.eye(k) - 1 / (k - 1))",
        "scale * (np.eye(k) - 1 / (k - 1))",
        f"{_FRAMES}test_eq_3_with_an_orthogonal_u",
        "the defect's target lacks K/(K-1) on the diagonal",
    ),
    Mutant(
        "lpm/frames.py",
        "(q * np.sign(np.diag(r))).T",
        "q.T",
        f"{_FRAMES}test_orientation_is_uniform",
        "QR without the sign correction is not Haar distributed",
    ),
    Mutant(
        "lpm/problem.py",
        "np.where(x < -40.0, x, ",
        "np.where(x < -4.0, x, ",
        f"{_PROBLEM}test_log_softplus_against_mpmath",
        "the asymptote is used where it is not accurate yet",
    ),
    Mutant(
        "lpm/problem.py",
        "np.log(softplus(np.maximum(x, -40.0)))",
        "np.log(softplus(-np.maximum(x, -40.0)))",
        f"{_PROBLEM}test_log_softplus_against_mpmath",
        "sign: the log-loss of the other actions",
    ),
    Mutant(
        "lpm/problem.py",
        "-float(self.weights @ softplus(self.log_odds(features)))",
        "-float(softplus(self.log_odds(features)).sum())",
        f"{_PROBLEM}test_objective_against_a_naive_loop",
        "the weights are forgotten",
    ),
    Mutant(
        "lpm/problem.py",
        "        z[own] = -np.inf\n",
        "",
        f"{_PROBLEM}test_objective_against_a_naive_loop",
        "the optimal action competes with itself",
    ),
    Mutant(
        "lpm/problem.py",
        "gradient=p @ self.head - self.head[labels]",
        "gradient=self.head[labels] - p @ self.head",
        f"{_PROBLEM}test_gradient_against_finite_differences",
        "sign of the gradient",
    ),
    Mutant(
        "lpm/problem.py",
        "(self.weights[rows] * sigmoid(block.value))[:, None]",
        "self.weights[rows][:, None]",
        f"{_PROBLEM}test_gradient_against_finite_differences",
        "chain rule: the factor 1 - π of the cross-entropy is missing",
    ),
    Mutant(
        "lpm/problem.py",
        "top[:, 0] + np.log(np.exp(z).sum(axis=1))",
        "top[:, 0] - np.log(np.exp(z).sum(axis=1))",
        f"{_PROBLEM}test_log_odds_is_convex",
        "sign in log-sum-exp",
    ),
    Mutant(
        "lpm/problem.py",
        "top[:, 0] + np.log(np.exp(z).sum(axis=1))",
        "(np.exp(z) * np.where(np.isinf(z), 0.0, z)).sum(axis=1) + top[:, 0]",
        f"{_PROBLEM}test_log_odds_is_convex",
        "the mean logit without the entropy",
    ),
    Mutant(
        "lpm/closed_form.py",
        "features=np.sqrt(e_h / e_w)[:, None]",
        "features=np.sqrt(e_h * e_w)[:, None]",
        f"{_SOLVERS}test_theorem_1",
        "Eq. (27) with ρ in place of √(E_H/E_W)",
    ),
    Mutant(
        "lpm/ball.py",
        "features=np.take(points @ basis, inverse, axis=0)",
        "features=np.take(points @ basis, problem.labels % len(points), axis=0)",
        f"{_SOLVERS}test_theorem_1",
        "gathers by label where empty classes have no row",
    ),
    Mutant(
        "lpm/ball.py",
        "tolerance if final else 1e-3",
        "max(tolerance, 1e-3)",
        f"{_SOLVERS}test_kkt_residual_at_most_1e_12",
        "the last ball is solved as coarsely as those on the way",
    ),
    Mutant(
        "lpm/certificate.py",
        "residual = at.gradient + 2 * multiplier[:, None] * h",
        "residual = at.gradient + multiplier[:, None] * h",
        f"{_SOLVERS}test_kkt_residual_at_most_1e_12",
        "the factor 2 of the derivative of ‖h‖²",
    ),
    Mutant(
        "lpm/solution.py",
        "log_multiplier - softplus(-log_odds)",
        "log_multiplier - softplus(log_odds)",
        f"{_SOLVERS}test_both_multipliers",
        "log π in place of log(1 - π)",
    ),
    Mutant(
        "lpm/closed_form.py",
        "np.log(0.5 * k * np.sqrt",
        "np.log(0.5 * (k - 1) * np.sqrt",
        f"{_SOLVERS}test_both_multipliers",
        "K - 1 in place of K in Eq. (32)",
    ),
    Mutant(
        "lpm/ball.py",
        '"br,br->b", g, y) / (2 * square)',
        '"br,br->b", g, y) / square',
        f"{_SOLVERS}test_multiplier_is_the_sensitivity_to_the_energy",
        "the multiplier of ‖h‖ ≤ √E_H's square, twice too large",
    ),
    Mutant(
        "lpm/ball.py",
        "coordinates = centred @ basis.T",
        "coordinates = centred[:, :rank]",
        f"{_SOLVERS}test_rotation_equivariance",
        "the first coordinates instead of those in the head's span",
    ),
    Mutant(
        "lpm/ball.py",
        "return present, np.full(",
        "return np.arange(len(present)), np.full(",
        f"{_SOLVERS}test_action_permutation_equivariance",
        "labels become their rank among those present: empty classes shift the others",
    ),
    Mutant(
        "lpm/ball.py",
        "np.linalg.svd(centred, full_matrices=False)\n"
        "    rank = int((singular > singular[0] * max(centred.shape) * np.finfo(float).eps).sum())",
        "np.linalg.svd(problem.head, full_matrices=False)\n"
        "    rank = min(problem.num_classes - 1, problem.dim)",
        f"{_SOLVERS}test_translating_the_head_changes_nothing",
        "K - 1 dimensions of the head's span before centring",
    ),
    Mutant(
        "lpm/ball.py",
        "-float(problem.weights @ softplus(log_odds)[inverse])",
        "-float(softplus(log_odds)[inverse].sum())",
        f"{_SOLVERS}test_weights_drop_out_and_scale_the_objective",
        "the weights are forgotten",
    ),
    Mutant(
        "lpm/ball.py",
        "float(problem.feature_energy)), inverse",
        "float(problem.feature_energy * problem.weights.mean())), inverse",
        f"{_SOLVERS}test_weights_drop_out_and_scale_the_objective",
        "the weights scale the norm bound",
    ),
    Mutant(
        "lpm/ball.py",
        "singular > singular[0] * max(centred.shape) * np.finfo(float).eps",
        "singular > 1e-2",
        f"{_SOLVERS}test_only_rho_matters",
        "an absolute threshold for the rank",
    ),
    Mutant(
        "lpm/ball.py",
        "Batch(coordinates, labels[rows], np.sqrt(energies[rows]))",
        "Batch(coordinates, labels[rows], energies[rows])",
        f"{_SOLVERS}test_only_rho_matters",
        "the radius is E_H, not √E_H",
    ),
    Mutant(
        "lpm/ball.py",
        "energies[pairs // problem.num_classes], inverse",
        "np.full(len(pairs), energies.mean()), inverse",
        f"{_SOLVERS}test_batch_equals_singles",
        "one mean energy for states that each have their own",
    ),
    Mutant(
        "lpm/problem.py",
        "w = np.array(head, dtype=np.float64)",
        "w = np.array(head)",
        f"{_SOLVERS}test_dtype",
        "a float32 head is computed with in float32",
    ),
    Mutant(
        "lpm/certificate.py",
        "h = np.asarray(h_all[rows], dtype=np.float64)",
        "h = np.asarray(h_all[rows])",
        f"{_SOLVERS}test_dtype",
        "float32 features are certified in float32",
    ),
    Mutant(
        "lpm/ball.py",
        "radius = np.minimum(batch.radius, 1.0 / size)",
        "radius = np.maximum(batch.radius, 1.0 / size)",
        f"{_SOLVERS}test_small_rho_limit",
        "the first ball of the homotopy is larger than the last",
    ),
    Mutant(
        "lpm/ball.py",
        "return (top + np.log(total))[:, 0], p / total",
        "return np.log(total)[:, 0], p / total",
        f"{_SOLVERS}test_large_rho_limit_is_the_maximal_margin",
        "the maximum that was taken out of log-sum-exp is not added back",
    ),
    Mutant(
        "lpm/certificate.py",
        "softplus(block.log_odds - block.log_odds_gap)",
        "softplus(block.log_odds + block.log_odds_gap)",
        f"{_SOLVERS}test_gap_is_never_negative_and_bounds_enclose",
        "sign: the gap is added to the lower bound",
    ),
    Mutant(
        "lpm/certificate.py",
        "mismatch) + slack)",
        "mismatch))",
        f"{_SOLVERS}test_gap_is_never_negative_and_bounds_enclose",
        "the slack of points inside the ball is forgotten: the bound is no bound",
    ),
    Mutant(
        "lpm/certificate.py",
        "lower += float(w @ softplus(block.log_odds - block.log_odds_gap))",
        "lower += float(softplus(block.log_odds - block.log_odds_gap).sum())",
        f"{_SOLVERS}test_no_feasible_point_beats_the_lower_bound",
        "the weights are forgotten in the bound",
    ),
    Mutant(
        "lpm/certificate.py",
        "mismatch = inside + radius[:, None] * direction",
        "mismatch = inside - radius[:, None] * direction",
        f"{_SOLVERS}test_gap_closes_at_the_optimum",
        "sign: the candidate is held against the worst direction",
    ),
    Mutant(
        "lpm/certificate.py",
        'gap = length / (2 * radius) * (np.einsum("nd,nd->n", mismatch, mismatch) + slack)',
        'gap = radius * length + np.einsum("nd,nd->n", inside, v)',
        f"{_SOLVERS}test_gap_is_never_negative_and_bounds_enclose",
        "the difference that cancels instead of the sum that does not: negative gaps",
    ),
    Mutant(
        "lpm/certificate.py",
        "residual = at.gradient + 2 * multiplier[:, None] * h",
        'residual = (np.einsum("nd,nd->n", at.gradient, h) / square + 2 * multiplier)[:, None] * h',
        f"{_SOLVERS}test_perturbation_is_noticed",
        "only the radial part of the residual, which the fitted multiplier makes zero",
    ),
    Mutant(
        "lpm/conic.py",
        "np.asarray(ball.dual_value)) / (2 * problem.energies)",
        "np.asarray(ball.dual_value)) / problem.energies",
        f"{_SOLVERS}test_ball_against_conic",
        "the dual of ‖h‖ taken for the one of ‖h‖²",
    ),
    Mutant(
        "lpm/conic.py",
        "cp.multiply(radius[states][:, None], x[states] @ differences.T)",
        "x[states] @ differences.T",
        f"{_SOLVERS}test_ball_against_conic",
        "the unit ball is not scaled to the energies",
    ),
)

_MDP = "tests/gridworld/test_mdp.py::"
_FAILURES = "tests/gridworld/test_mdp_failures.py::"
_CLIFF = "tests/gridworld/test_cliff.py::"
_CONDITIONS = "tests/gridworld/test_conditions.py::"
_ENV = "tests/gridworld/test_cliff_env.py::"
_RENDER = "tests/gridworld/test_cliff_render.py::"

GRIDWORLD = (
    Mutant(
        "gridworld/chain.py",
        "np.eye(len(columns)) - discount * self.transitions[np.ix_(live, live)]",
        "np.eye(len(columns)) - discount * self.transitions[np.ix_(live, live)].T",
        f"{_MDP}test_policy_values_match_backward_induction",
        "transposed transitions in the Bellman equation",
    ),
    Mutant(
        "gridworld/mdp.py",
        "rows[self.terminal] = 1.0 / self.num_actions",
        "rows[self.terminal] += 0.0",
        f"{_MDP}test_policy_values_match_backward_induction",
        "rows of terminal states are read, NaN included",
    ),
    Mutant(
        "gridworld/chain.py",
        "value[live] = solution[:, 0]",
        "value[live] = solution[:, 1]",
        f"{_MDP}test_undiscounted_policy_values_match_backward_induction",
        "the episode length instead of the return",
    ),
    Mutant(
        "gridworld/mdp.py",
        "return self.backup(self.policy_value(policy))",
        "return self.backup(self.chain(policy).rewards)",
        f"{_MDP}test_bellman_equations_hold_and_terminal_rows_vanish",
        "looks ahead to the next reward instead of the next value",
    ),
    Mutant(
        "gridworld/mdp.py",
        "return self.rewards + self.discount * self.transitions @ value",
        "return self.rewards + self.transitions @ value",
        f"{_MDP}test_optimal_values_match_value_iteration",
        "the discount is missing",
    ),
    Mutant(
        "gridworld/policy_iteration.py",
        "actions = np.where(better, action_value.argmax(axis=1), actions)",
        "actions = np.where(better, action_value.argmin(axis=1), actions)",
        f"{_MDP}test_optimal_values_match_value_iteration",
        "the worst action in place of the best",
    ),
    Mutant(
        "gridworld/policy_iteration.py",
        "if not improved.sum() > value.sum():",
        "if improved.sum() > value.sum():",
        f"{_MDP}test_optimal_values_match_value_iteration",
        "stops at the first improvement",
    ),
    Mutant(
        "gridworld/policy_iteration.py",
        "if not improved.sum() > value.sum():",
        "if improved.sum() > value.sum():",
        f"{_MDP}test_undiscounted_optimum_is_the_best_deterministic_policy",
        "stops at the first improvement",
    ),
    Mutant(
        "gridworld/mdp.py",
        "(action_value >= best - tolerance) & ~self.terminal[:, None]",
        "(action_value <= best - tolerance) & ~self.terminal[:, None]",
        f"{_MDP}test_no_policy_beats_the_optimum_and_the_optimal_policy_attains_it",
        "the comparison is turned round: the actions that are not optimal",
    ),
    Mutant(
        "gridworld/chain.py",
        "solution = _solve(matrix.T, (1.0 - discount) * start[reached])",
        "solution = _solve(matrix, (1.0 - discount) * start[reached])",
        f"{_MDP}test_discounted_occupancy_matches_its_defining_sum",
        "not transposed: values of the start instead of occupancies",
    ),
    Mutant(
        "gridworld/chain.py",
        "visits[self.terminal] += visits[live] @ step[:, self.terminal]",
        "visits[self.terminal] += 1.0 / self.terminal.sum()",
        f"{_MDP}test_episodic_occupancy_matches_counted_visits",
        "all exits are held equally likely",
    ),
    Mutant(
        "gridworld/chain.py",
        "(1.0 - discount) * start[reached]",
        "start[reached]",
        f"{_MDP}test_discounted_occupancy_is_a_balanced_flow",
        "the normalisation 1 - γ is missing",
    ),
    Mutant(
        "gridworld/chain.py",
        "- step[:, live].T, start[live])",
        "- step[:, live], start[live])",
        f"{_MDP}test_every_episode_ends_once",
        "transposed transitions in the visit equation",
    ),
    Mutant(
        "gridworld/mdp.py",
        "rewards=(probabilities * self.rewards).sum(axis=1)",
        "rewards=self.rewards.mean(axis=1)",
        f"{_MDP}test_policy_values_match_backward_induction",
        "rewards of the uniform policy",
    ),
    Mutant(
        "gridworld/chain.py",
        "- discount * self.transitions[np.ix_(reached, reached)]",
        "- self.transitions[np.ix_(reached, reached)] / (2.0 - discount)",
        f"{_MDP}test_performance_identity",
        "1/(2 - γ), the expansion of γ at 1, in place of γ",
    ),
    Mutant(
        "gridworld/chain.py",
        "visits[live] = np.maximum(solution, 0.0)",
        "visits[live] = np.minimum(solution, 1.0)",
        f"{_MDP}test_undiscounted_performance_identity",
        "the probability of a visit instead of the number of visits",
    ),
    Mutant(
        "gridworld/chain.py",
        "occupancy[reached] = np.maximum(solution, 0.0)",
        "occupancy[: len(solution)] = np.maximum(solution, 0.0)",
        f"{_MDP}test_renaming_states_only_renames_the_answers",
        "the states that are reached are taken to be the first ones",
    ),
    Mutant(
        "gridworld/mdp.py",
        "chosen: BoolArray = (action_value >= best - tolerance) & ~self.terminal[:, None]",
        "chosen: BoolArray = action_value >= best - tolerance",
        f"{_MDP}test_ties_are_kept_as_sets",
        "exits take decisions",
    ),
    Mutant(
        "gridworld/mdp.py",
        "normalised: FloatArray = table / table.sum(axis=1, keepdims=True)",
        "normalised: FloatArray = table",
        f"{_MDP}test_float32_policies_are_normalised",
        "float32 rows are not divided by their sum",
    ),
    Mutant(
        "gridworld/policy_iteration.py",
        "_terminating_actions(mdp) if mdp.discount == 1.0 else np.zeros_like(states)",
        "np.zeros_like(states)",
        f"{_MDP}test_undiscounted_optimum_is_taken_over_policies_that_end",
        "starts from a policy that never ends",
    ),
    Mutant(
        "gridworld/checks.py",
        "    table = np.array(values, dtype=np.float64)",
        "    table = np.asarray(values, dtype=np.float64)",
        f"{_MDP}test_tables_are_private_copies",
        "the caller's array is kept",
    ),
    Mutant(
        "gridworld/chain.py",
        "return ~_closure((self.transitions > 0).T, self.terminal)",
        "return ~_closure(self.transitions > 0, self.terminal)",
        f"{_FAILURES}test_episodes_that_never_end_are_named_only_where_they_are_met",
        "follows the edges forwards instead of backwards",
    ),
    Mutant(
        "gridworld/chain.py",
        "stuck = self.trapped() & self.reachable(origin)",
        "stuck = self.trapped()",
        f"{_FAILURES}test_episodes_that_never_end_are_named_only_where_they_are_met",
        "refuses because of states that no episode meets",
    ),
    Mutant(
        "gridworld/chain.py",
        "largest = float(np.abs(counts).max(initial=0.0))",
        "largest = float(counts.max(initial=0.0))",
        f"{_FAILURES}test_episodes_too_long_for_float64",
        "a singular system can also show as large negative counts",
    ),
    Mutant(
        "gridworld/policy_iteration.py",
        "    if trapped.any():",
        "    if trapped.all():",
        f"{_FAILURES}test_undiscounted_optimum_refuses_a_money_machine",
        "all for any",
    ),
    Mutant(
        "gridworld/checks.py",
        "    if (excess > tolerance).any():",
        "    if (sums - 1.0 > tolerance).any():",
        f"{_FAILURES}test_bad_tables",
        "sums below one pass",
    ),
    Mutant(
        "gridworld/cliff.py",
        "ACTION_MOVES = ((0, 1), (0, -1), (-1, 0), (1, 0))",
        "ACTION_MOVES = ((0, 1), (0, -1), (1, 0), (-1, 0))",
        f"{_CLIFF}test_the_papers_grid",
        "up and down exchanged",
    ),
    Mutant(
        "gridworld/cliff.py",
        "rewards = np.where(layout.exits[successors], exit_reward, step_reward)",
        "rewards = np.where(layout.exits[successors], step_reward, exit_reward)",
        f"{_CLIFF}test_the_exit_reward_is_paid_on_entry_only",
        "exit and step rewards exchanged",
    ),
    Mutant(
        "gridworld/cliff.py",
        "np.isin(layout.coordinates[:, 1], (0, layout.width - 1))",
        "~np.isin(layout.coordinates[:, 1], layout.centre)",
        f"{_CONDITIONS}test_outer_starts_visit_all_states_alike_under_the_optimal_policy",
        "both wings instead of the outermost columns",
    ),
    Mutant(
        "gridworld/sampling.py",
        "if self.discount < 1.0:",
        "if False:",
        f"{_CONDITIONS}test_on_policy_samples_match_counted_visits",
        "exits are counted for as long as they absorb",
    ),
    Mutant(
        "gridworld/sampling.py",
        "return mdp.chain(policy).reachable(self.distribution(mdp, policy) > 0)",
        "return self.distribution(mdp, policy) > 0",
        f"{_CONDITIONS}test_a_sweep_may_pass_through_states_it_never_trains_on",
        "visited taken for sampled",
    ),
    Mutant(
        "gridworld/sampling.py",
        "given = ~mdp.terminal if self.weights is None else self.weights",
        "given = mdp.start if self.weights is None else self.weights",
        f"{_CONDITIONS}test_the_sweep_is_uniform_under_any_policy",
        "the sweep starts where episodes start",
    ),
    Mutant(
        "gridworld/conditions.py",
        "ratio=_ratio(samples[mdp.decision_states]),",
        "ratio=_ratio(distribution),",
        f"{_CONDITIONS}test_the_sweep_is_uniform_under_any_policy",
        "exits enter the ratio over decision states",
    ),
    Mutant(
        "gridworld/sampling.py",
        "given = ~mdp.terminal if self.weights is None else self.weights",
        "given = ~mdp.terminal",
        f"{_CONDITIONS}test_weights_alone_set_the_samples_of_a_sweep",
        "the weights are forgotten",
    ),
    Mutant(
        "gridworld/conditions.py",
        "optimal = mdp.optimal_actions(tie_tolerance)[samples > 0]",
        "optimal = mdp.optimal_actions(tie_tolerance)[mdp.decision_states]",
        f"{_CONDITIONS}test_unvisited_states_are_counted_and_named",
        "class sizes count states that are never sampled",
    ),
    Mutant(
        "gridworld/conditions.py",
        "return self.ties == 0 and self.ratio <= 1.0 + tolerance",
        "return self.ratio <= 1.0 + tolerance",
        f"{_CONDITIONS}test_a_balanced_grid_with_one_tie_does_not_hold",
        "ties are overlooked",
    ),
    Mutant(
        "gridworld/env.py",
        "        reward = float(self.mdp.rewards[self._state, action])\n"
        "        self._state = int(self.mdp.successors[self._state, action])\n",
        "        self._state = int(self.mdp.successors[self._state, action])\n"
        "        reward = float(self.mdp.rewards[self._state, action])\n",
        f"{_ENV}test_every_move_and_reward_is_the_tables",
        "the reward of the next state",
    ),
    Mutant(
        "gridworld/env.py",
        "super().reset(seed=seed)",
        "super().reset()",
        f"{_ENV}test_the_same_seed_gives_the_same_episodes",
        "the seed is dropped",
    ),
    Mutant(
        "gridworld/env.py",
        "p=self.mdp.start",
        "p=None",
        f"{_ENV}test_episodes_start_where_they_should",
        "starts anywhere, exits included",
    ),
    Mutant(
        "gridworld/render.py",
        "picture = self._board.copy()",
        "picture = self._board",
        f"{_RENDER}test_pixels_are_the_callers_to_keep",
        "the cached board is painted on",
    ),
    Mutant(
        "gridworld/render.py",
        "along = rows * move[0] + columns * move[1]",
        "along = -rows * move[0] + columns * move[1]",
        f"{_RENDER}test_arrows_point_the_optimal_way",
        "rows count downwards: arrows upside down",
    ),
)

_HEADS = "tests/agents/test_heads.py::"
_LOSSES = "tests/agents/test_losses.py::"

AGENTS = (
    Mutant(
        "agents/networks.py",
        "(norm / energy**0.5).clamp(min=1.0)",
        "(norm / energy).clamp(min=1.0)",
        f"{_HEADS}test_projection_onto_the_ball",
        "the radius is E_H, not √E_H",
    ),
    Mutant(
        "agents/networks.py",
        "(norm / energy**0.5).clamp(min=1.0)",
        "(norm / energy**0.5)",
        f"{_HEADS}test_projection_onto_the_ball",
        "onto the sphere: features inside the ball are stretched",
    ),
    Mutant(
        "agents/networks.py",
        "(norm / energy**0.5).clamp(min=1.0)",
        "(norm.detach() / energy**0.5).clamp(min=1.0)",
        f"{_HEADS}test_projection_onto_the_ball",
        "the norm is held constant: the gradient is not tangential",
    ),
    Mutant(
        "agents/losses.py",
        " * (m / (m - 1))",
        "",
        f"{_LOSSES}test_leave_one_out_against_a_loop",
        "the mean of all returns as baseline, own return included",
    ),
    Mutant(
        "agents/losses.py",
        "np.where(present, returns, 0).sum(axis=1)",
        "returns.sum(axis=1)",
        f"{_LOSSES}test_running_moments_are_those_of_all_earlier_batches",
        "padding is counted",
    ),
    Mutant(
        "agents/losses.py",
        "            + shift**2 * self.count * size / total\n",
        "",
        f"{_LOSSES}test_running_moments_are_those_of_all_earlier_batches",
        "the distance of the means is missing from the merged variance",
    ),
    Mutant(
        "agents/losses.py",
        "(log_policy.exp() * action_values.detach())",
        "(log_policy * action_values.detach())",
        f"{_LOSSES}test_all_action_gradient_is_the_policy_gradient",
        "log π in place of π",
    ),
    Mutant(
        "agents/losses.py",
        "-(occupancy.detach() * expected).sum(-1)",
        "-expected.mean(-1)",
        f"{_LOSSES}test_all_action_gradient_is_the_policy_gradient",
        "states alike instead of by occupancy",
    ),
    Mutant(
        "agents/losses.py",
        "-(advantages.detach() * log_probs).mean(-1)",
        "(advantages.detach() * log_probs).mean(-1)",
        f"{_LOSSES}test_reinforce_is_unbiased_for_the_all_action_gradient",
        "sign: descends the return",
    ),
    Mutant(
        "agents/losses.py",
        "-(advantages.detach() * log_probs).mean(-1)",
        "-(advantages.detach() * log_probs.exp()).mean(-1)",
        f"{_LOSSES}test_reinforce_is_unbiased_for_the_all_action_gradient",
        "π in place of log π: actions are weighed by their probability twice",
    ),
)

_METRICS = "tests/analysis/test_metrics.py::"

ANALYSIS = (
    Mutant(
        "analysis/metrics.py",
        "values.std(correction=0) / values.mean()",
        "values.std() / values.mean()",
        f"{_METRICS}test_equals_the_naive_reference",
        "the sample's standard deviation instead of the population's",
    ),
    Mutant(
        "analysis/metrics.py",
        "(cosines + 1.0 / (len(rows) - 1)).abs()",
        "(cosines + 1.0 / len(rows)).abs()",
        f"{_METRICS}test_equals_the_naive_reference",
        "target -1/K instead of -1/(K-1)",
    ),
    Mutant(
        "analysis/metrics.py",
        'f.type in (float, "float")',
        'f.type in (float, "float", int, "int")',
        f"{_METRICS}test_reference_covers_every_field",
        "counts pass for metrics",
    ),
    Mutant(
        "analysis/metrics.py",
        "torch.linalg.vector_norm(rows, dim=1)",
        "torch.linalg.vector_norm(rows, ord=1, dim=1)",
        f"{_METRICS}test_rotation_changes_nothing",
        "sums of absolute values for lengths",
    ),
    Mutant(
        "analysis/metrics.py",
        "zero = self.rcond * max(float(squared.max()), trace_within)",
        "zero = self.rcond",
        f"{_METRICS}test_scaling_changes_nothing",
        "an absolute threshold for zero",
    ),
    Mutant(
        "analysis/metrics.py",
        "centre = geometry.origin + geometry.centre",
        "centre = geometry.centre",
        f"{_METRICS}test_translation_changes_only_what_reads_the_raw_feature",
        "the network decides about features from which the first one is subtracted",
    ),
    Mutant(
        "analysis/metrics.py",
        "        centred = means - centre\n",
        "        centred = means\n",
        f"{_METRICS}test_order_of_samples_changes_nothing",
        "centred at the first sample",
    ),
    Mutant(
        "analysis/metrics.py",
        "return cosines[~torch.eye(len(rows), dtype=torch.bool)]",
        "return cosines.diagonal(1)",
        f"{_METRICS}test_numbering_of_actions_changes_nothing",
        "pairs of neighbouring numbers instead of all pairs",
    ),
    Mutant(
        "analysis/metrics.py",
        "rows = head[geometry.present]\n    # A row",
        "rows = head[: len(geometry.present)]\n    # A row",
        f"{_METRICS}test_actions_that_do_not_occur_are_left_out",
        "the first K' rows of the head instead of those of the actions present",
    ),
    Mutant(
        "analysis/metrics.py",
        "return scores >= scores.amax(dim=1, keepdim=True) - _TIE * magnitude[:, None]",
        "return torch.nn.functional.one_hot(scores.argmax(dim=1), scores.shape[1])",
        f"{_METRICS}test_numbering_changes_nothing_when_decisions_tie",
        "ties go to the action with the smallest number",
    ),
    Mutant(
        "analysis/metrics.py",
        "variances=variation / n,",
        "variances=variation / (n - 1).clamp(min=1),",
        f"{_METRICS}test_repeating_all_data_changes_nothing",
        "the samples' variance instead of the population's",
    ),
    Mutant(
        "analysis/snapshot.py",
        'np.array(part, dtype=np.float64, order="C")',
        'np.array(part, order="C")',
        f"{_METRICS}test_float32_gives_what_its_float64_copy_gives",
        "float32 features are summed in float32",
    ),
    Mutant(
        "analysis/metrics.py",
        "share = counts.to(torch.float64) / (before + counts)",
        "share = counts / (before + counts)",
        f"{_METRICS}test_chunks_change_nothing",
        "the quotient of two integer tensors is float32",
    ),
    Mutant(
        "analysis/metrics.py",
        "stacked = between if root is None else torch.cat([root, between])",
        "stacked = between if root is None else root",
        f"{_METRICS}test_stream_equals_memory",
        "the scatter between the means of two batches is missing",
    ),
    Mutant(
        "analysis/metrics.py",
        "[seen] + (origin - self._origin)",
        "[seen]",
        f"{_METRICS}test_merge_equals_one_pass_in_any_order",
        "two workers' origins are taken to be the same",
    ),
    Mutant(
        "analysis/metrics.py",
        "self._variation[seen] += variation + weight * (step**2).sum(dim=1)",
        "self._variation[seen] += variation",
        f"{_METRICS}test_merge_equals_one_pass_in_any_order",
        "the distance of the means is missing from the merged variance",
    ),
    Mutant(
        "analysis/metrics.py",
        "    if len(head) == 2:\n",
        "    if len(head) == 1:\n",
        f"{_METRICS}test_two_actions_carry_no_angles",
        "the spread of one cosine passes for a measurement",
    ),
)

MUTANTS = LPM + GRIDWORLD + AGENTS + ANALYSIS
