"""Broken builds of `agents`."""

from mutant import Mutant

_HEADS = "tests/agents/test_heads.py::"
_LOSSES = "tests/agents/test_losses.py::"
_PPO = "tests/agents/test_ppo.py::"
_TRPO = "tests/agents/test_trpo.py::"
_REINFORCE = "tests/agents/test_reinforce.py::"
_A3C = "tests/agents/test_a3c.py::"
_POPULATION = "tests/agents/test_population.py::"

AGENTS = (
    Mutant(
        "agents/limits.py",
        "return self.low < value < self.high",
        "return self.low <= value < self.high",
        "tests/agents/test_limits.py::test_intervals_by_hand",
        "an open interval takes its lower end",
    ),
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
    Mutant(
        "agents/losses.py",
        "discount * np.where(terminated, 0.0, v_next)",
        "discount * np.where(terminated | truncated, 0.0, v_next)",
        "tests/agents/test_deep_losses.py::test_a_time_limit_is_bootstrapped_and_an_end_is_not",
        "a time limit is an end",
    ),
    Mutant(
        "agents/collect.py",
        "            following[:, t][cut] = value[cut]\n",
        "",
        "tests/agents/test_collect.py::test_what_follows_a_time_limit_is_the_final_observation",
        "V of the next episode's first observation where a time limit cut",
    ),
    Mutant(
        "agents/collect.py",
        "        if self.clip_rewards:\n            rewards = np.sign(rewards)\n        # Actions",
        "        # Actions",
        "tests/agents/test_collect.py::test_rewards_are_clipped_for_the_learner_and_returns_are_not",
        "rewards are never clipped",
    ),
    Mutant(
        "agents/collect.py",
        "            playing = playing & np.isnan(step.returns)\n",
        "            playing = playing & ~(step.terminated | step.truncated)\n",
        "tests/agents/test_collect.py::test_a_lost_life_ends_the_return_and_not_the_game",
        "REINFORCE plays until the first lost life",
    ),
    Mutant(
        "agents/ppo.py",
        "            + config.value_coefficient * value_loss\n",
        "            + 2 * config.value_coefficient * value_loss\n",
        f"{_PPO}test_one_step_of_gradient_descent_is_that_of_the_loss_written_out",
        "the value coefficient is that of the plain MSE",
    ),
    Mutant(
        "agents/ppo.py",
        "losses.standardise(batch.advantages) if config.standardise else batch.advantages",
        "batch.advantages",
        f"{_PPO}test_advantages_are_standardised_within_each_minibatch",
        "advantages as they are",
    ),
    Mutant(
        "agents/a2c.py",
        "- entropy_coefficient * entropy",
        "+ entropy_coefficient * entropy",
        "tests/agents/test_a2c.py::test_one_iteration_is_one_step_on_n_step_returns",
        "the entropy bonus is a penalty",
    ),
    Mutant(
        "agents/trpo.py",
        "~accepted & (kl <= config.max_kl) & (value > surrogate)",
        "~accepted & (kl <= config.max_kl)",
        f"{_TRPO}test_members_that_fail_the_line_search_keep_their_parameters_bit_for_bit",
        "the line search looks at the divergence only",
    ),
    Mutant(
        "agents/reinforce.py",
        "(alive & ~self._cut(rollout))",
        "alive",
        f"{_REINFORCE}test_a_pass_over_one_batch_is_an_adam_step_on_the_mean",
        "samples that the time limit cuts short are learned from",
    ),
    Mutant(
        "agents/member_adam.py",
        "parameter.copy_(torch.where(chosen, moved, parameter))",
        "parameter.copy_(moved)",
        "tests/agents/test_optimisation.py::"
        "test_a_member_that_sits_out_is_untouched_and_ends_where_it_would_alone",
        "who sits a step out moves",
    ),
    Mutant(
        "agents/population.py",
        "gain = 0.01 if orthogonal",
        "gain = 1.0 if orthogonal",
        f"{_POPULATION}test_orthogonal_initialisation_has_its_gain_in_every_layer",
        "the learned head begins a hundred times as large",
    ),
    Mutant(
        "agents/population.py",
        "gain = 2**0.5 if orthogonal",
        "gain = 1.0 if orthogonal",
        f"{_POPULATION}test_orthogonal_initialisation_has_its_gain_in_every_layer",
        "hidden layers begin without √2",
    ),
    Mutant(
        "agents/reinforce.py",
        "range(self.config.passes)",
        "range(1)",
        f"{_REINFORCE}test_a_pass_over_one_batch_is_an_adam_step_on_the_mean",
        "one pass, whatever is asked for",
    ),
    Mutant(
        "agents/reinforce.py",
        'baseline: Baseline = "running"',
        'baseline: Baseline = "none"',
        f"{_REINFORCE}test_the_defaults_are_the_papers",
        "returns as they are by default",
    ),
    Mutant(
        "agents/trpo.py",
        "gain + self.config.entropy_coefficient * entropy",
        "gain",
        f"{_TRPO}test_the_entropy_bonus_is_part_of_the_surrogate",
        "no entropy bonus",
    ),
    Mutant(
        "agents/a3c.py",
        "clip_rewards=train.env.clips_rewards",
        "clip_rewards=False",
        f"{_A3C}test_a_worker_learns_from_clipped_rewards",
        "workers learn from unclipped rewards",
    ),
    Mutant(
        "agents/a3c.py",
        "epsilon=self.config.epsilon",
        "epsilon=0.0",
        f"{_A3C}test_a_worker_acts_with_the_admixture",
        "workers act without the ε-greedy admixture",
    ),
    Mutant(
        "agents/a3c.py",
        "config.value_coefficient, config.entropy_coefficient",
        "0.5, 0.01",
        f"{_A3C}test_one_update_is_a2cs_step_on_the_shared_parameters",
        "coefficients are the defaults, whatever is asked for",
    ),
    Mutant(
        "agents/collect.py",
        "            larger[:, :length] = self._buffer\n",
        "",
        "tests/agents/test_collect.py::test_games_longer_than_the_first_buffer_lose_nothing",
        "observations are lost when the buffer grows",
    ),
)
