"""Broken builds of `agents`."""

from mutant import Mutant

_HEADS = "tests/agents/test_heads.py::"
_LOSSES = "tests/agents/test_losses.py::"

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
)
