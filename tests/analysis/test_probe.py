"""Probing: every kind of policy, against naive NumPy on all features at once."""

import copy
import math
import weakref

import gymnasium
import numpy as np
import pytest
import torch
from torch import nn

from agents.heads import ETFHead, HeadGroup, LinearHead
from agents.networks import PopulationMLP
from agents.policy import Policy
from analysis.capture import as_source
from analysis.metrics import METRIC_FIELDS, collapse_metrics
from analysis.probe import Activations, HookedPolicy, ProbeResult, effective_rank, probe
from analysis.visits import visited
from gridworld import ideal_cliff_walking

N, INPUT, DIM, K = 203, 5, 7, 3


class Linear:
    """A policy in NumPy: rectified features with one dead unit."""

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.inner = rng.standard_normal((INPUT, DIM))
        self.inner[:, 2] = 0.0
        self.head = rng.standard_normal((K, DIM))
        self.bias = rng.standard_normal(K)

    def features(self, x: np.ndarray) -> np.ndarray:
        return np.maximum(x @ self.inner, 0.0)

    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        h = self.features(x)
        return h, h @ self.head.T + self.bias


def observations(n: int = N, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, INPUT))


def naive_effective_rank(matrix: np.ndarray) -> float:
    singular = np.linalg.svd(matrix, compute_uv=False)
    shares = singular[singular > 1e-7 * singular[0]] / singular.sum()
    return math.exp(-sum(p * math.log(p) for p in shares))


def numbers(found: ProbeResult) -> dict[str, float]:
    return {name: value for name, value in found.as_row().items() if name != "labels"}


def probe_linear(x, policy=None, **options):
    policy = policy or Linear()
    return probe(policy, x, head=policy.head, bias=policy.bias, **options)


def test_every_number_equals_the_naive_reference() -> None:
    policy, x = Linear(), observations()
    found = probe_linear(x, policy, batch_size=50, agreement=True)
    h, logits = policy(x)
    pi = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    norms, rows = np.linalg.norm(h, axis=1), np.linalg.norm(policy.head, axis=1)
    expected = {
        "entropy": -(pi * np.log(pi)).sum(axis=1).mean(),
        "greedy_share": 1.0,
        "effective_rank": naive_effective_rank(h),
        "effective_rank_centred": naive_effective_rank(h - h.mean(axis=0)),
        "dead_features": 1 / DIM,
        "nonpositive_features": 1 / DIM,
        "feature_norm": norms.mean(),
        "feature_norm_std": norms.std(),
        "feature_energy": (norms**2).mean(),
        "head_norm": rows.mean(),
        "head_norm_std": rows.std(),
        "head_energy": (rows**2).mean(),
    }
    for name, value in expected.items():
        assert getattr(found, name) == pytest.approx(value, rel=1e-9), name
    assert (found.labels, found.num_states, dict(found.reasons)) == ("greedy", N, {})
    np.testing.assert_allclose(found.head_norms, rows, rtol=1e-12)
    collapse = collapse_metrics(h, logits.argmax(axis=1), policy.head, bias=policy.bias)
    for name in METRIC_FIELDS:
        value = getattr(collapse, name)
        same = pytest.approx(value, rel=1e-9, abs=1e-12, nan_ok=True)
        assert getattr(found.collapse, name) == same, name
    row = found.as_row()
    assert row["counts_0"] == (logits.argmax(axis=1) == 0).sum()
    assert row["effective_rank"] == found.effective_rank
    assert row["head_norm_2"] == pytest.approx(rows[2])


def test_negative_features_are_not_dead() -> None:
    h = np.array([[1.0, -1.0, 0.0, 0.0], [2.0, -3.0, 0.0, -1e-30]])
    found = probe(lambda x: (h[x], h[x, :3]), np.array([0, 1]))
    assert (found.dead_features, found.nonpositive_features) == (0.25, 0.75)


@pytest.mark.parametrize("k", [2, 3, 6])
def test_effective_rank_of_a_collapsed_simplex(k) -> None:
    frame = np.eye(k) - 1 / k
    labels = np.tile(np.arange(k), 4)
    found = probe(lambda x: (10.0 + frame[x], frame[x]), labels)
    assert found.effective_rank_centred == pytest.approx(k - 1, rel=1e-9)
    assert effective_rank([4.0, 4.0, 0.0]) == pytest.approx(2.0)
    assert effective_rank([9.0, 1.0]) == pytest.approx(
        math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    )


def test_batches_do_not_matter() -> None:
    x = observations()
    once = probe_linear(x, batch_size=N)
    for given, size in (
        (x, 17),
        (torch.from_numpy(x).split(40), 1000),
        ((part for part in np.array_split(x, 9)), 11),
    ):
        policy = Linear()
        numpy_policy = lambda b, policy=policy: policy(np.asarray(b))  # noqa: E731
        found = probe(numpy_policy, given, head=policy.head, bias=policy.bias, batch_size=size)
        assert found.num_states == N
        assert numbers(found) == pytest.approx(numbers(once), rel=1e-9, nan_ok=True)


def test_only_one_batch_is_alive() -> None:
    alive: list[weakref.ref] = []

    def stream():
        for seed in range(20):
            batch = observations(30, seed)
            alive.append(weakref.ref(batch))
            yield batch
            del batch
            assert sum(ref() is not None for ref in alive) <= 1

    assert probe_linear(stream(), snapshot_size=5).num_states == 600


# ------------------------------------------------------------------ policies


def torch_network() -> nn.Sequential:
    generator = torch.Generator().manual_seed(0)
    layers = (nn.Linear(INPUT, DIM), nn.Dropout(0.5), nn.ReLU(), nn.Linear(DIM, K), nn.Softmax(-1))
    network = nn.Sequential(*layers)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return network


def test_hooked_network_is_seen_and_left_alone() -> None:
    network, x = torch_network(), observations()
    network[1].eval()
    before = [part.training for part in network.modules()]
    found = probe(HookedPolicy(network, head="3"), x, snapshot_size=N)
    assert [part.training for part in network.modules()] == before
    assert all(not part._forward_hooks for part in network.modules())
    reference = copy.deepcopy(network).eval()
    with torch.no_grad():
        h = reference[:3](torch.from_numpy(x).float())
        logits = reference[3](h)
    assert found.snapshot is not None
    np.testing.assert_array_equal(found.snapshot.features, h)
    np.testing.assert_array_equal(found.snapshot.head, network[3].weight.detach().double())
    np.testing.assert_array_equal(found.snapshot.labels, logits.argmax(-1))
    assert found.entropy == pytest.approx(
        float(torch.distributions.Categorical(logits=logits.double()).entropy().mean())
    )


def test_hooks_go_when_the_network_fails() -> None:
    network = torch_network()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        probe(HookedPolicy(network, head="3"), np.zeros((4, INPUT + 1)))
    assert all(not part._forward_hooks for part in network.modules())
    assert network.training


def test_hooked_layer_must_exist_and_run_once() -> None:
    network = torch_network()
    with pytest.raises(ValueError, match=r"'nine' names no layer.*\['0', '3'\]"):
        HookedPolicy(network, head="nine")
    with pytest.raises(ValueError, match="'2' names ReLU"):
        HookedPolicy(network, head="2")
    square = nn.Linear(INPUT, INPUT)
    with pytest.raises(RuntimeError, match="'0' ran 2 times"):
        probe(HookedPolicy(nn.Sequential(square, square), head="0"), observations())


def population(kind: str) -> Policy:
    rngs = [np.random.default_rng(seed) for seed in range(4)]
    backbone = PopulationMLP((INPUT, 6, DIM), rngs)
    if kind == "linear":
        return Policy(backbone, LinearHead(DIM, K, rngs))
    heads = [LinearHead(DIM, K, rngs[:2]), ETFHead(DIM, K, rngs[2:])]
    return Policy(backbone, HeadGroup(heads))


@pytest.mark.parametrize("vector", [False, True])
def test_environments_are_probed_by_acting(vector) -> None:
    torch.manual_seed(0)
    policy = HookedPolicy(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)), "2")

    def env():
        name = "CartPole-v1"
        return gymnasium.make_vec(name, num_envs=3) if vector else gymnasium.make(name)

    found = probe(policy, env(), states=500, act_rng=np.random.default_rng(3), snapshot_size=9)
    assert (found.num_states, found.labels) == (500, "greedy")
    seen = list(visited(policy, env(), 500, np.random.default_rng(3)))
    again = probe(policy, seen, batch_size=7, rng=np.random.default_rng(0), snapshot_size=60)
    assert numbers(found) == pytest.approx(numbers(again), rel=1e-12, nan_ok=True)
    episodes = np.concatenate([visits.episodes for visits in seen])
    for kept in (found, again):
        np.testing.assert_array_equal(kept.snapshot.episodes, episodes[kept.snapshot_rows])
    plain = [visits.observations for visits in seen]
    assert probe(policy, plain, snapshot_size=9).snapshot.episodes is None
    alone = probe(policy, seen[0], snapshot_size=9)
    assert alone.num_states == len(seen[0].episodes)
    np.testing.assert_array_equal(alone.snapshot.episodes, seen[0].episodes[:9])
    mixed = [*seen[:1], *plain[1:]]
    assert probe(policy, mixed, snapshot_size=400).snapshot.episodes is None


def test_states_of_an_environment_have_optimal_labels() -> None:
    """Observations that are integers: the cells of Ideal Cliff Walking."""
    rng = np.random.default_rng(0)
    mdp = ideal_cliff_walking(start="outer")
    features = rng.standard_normal((mdp.num_states, DIM))
    head = rng.standard_normal((mdp.num_actions, DIM))

    def policy(cells):
        return features[cells], features[cells] @ head.T

    env = gymnasium.make("IdealCliffWalking-v0")
    found = probe(policy, env, states=60, act_rng=rng, labels="optimal", mdp=mdp, head=head)
    assert (found.num_states, found.labels) == (60, "optimal")
    assert 0 < found.greedy_share < 1


def test_environments_need_states_and_a_generator() -> None:
    policy, rng = HookedPolicy(nn.Sequential(nn.Linear(4, 2)), "0"), np.random.default_rng(0)
    env = gymnasium.make("CartPole-v1")
    for options in ({}, {"states": 5}, {"act_rng": rng}):
        with pytest.raises(ValueError, match="pass states=, how many to visit, and act_rng="):
            probe(policy, env, **options)
    with pytest.raises(ValueError, match="nobody knows beforehand"):
        probe(policy, env, states=2, act_rng=rng, labels=[0, 1])
    with pytest.raises(ValueError, match="an environment allows it once"):
        probe(policy, env, states=2, act_rng=rng, agreement=True)
    with pytest.raises(ValueError, match="are for an environment"):
        probe_linear(observations(), states=5)
    with pytest.raises(TypeError, match="an environment of Gymnasium, got a int"):
        probe_linear(5)


@pytest.mark.parametrize("kind", ["linear", "group"])
@pytest.mark.parametrize("member", [0, 3])
def test_member_of_a_population(kind, member) -> None:
    policy, x = population(kind), observations(40)
    with torch.no_grad():
        whole = policy(torch.from_numpy(x).float().expand(4, -1, -1))
    seen = as_source(policy, member)(x)
    torch.testing.assert_close(seen.features, whole.features[member])
    torch.testing.assert_close(seen.logits, whole.logits[member])
    torch.testing.assert_close(seen.head, policy.head.weight[member])
    assert probe(policy, x, member=member).head_norms[0] == pytest.approx(
        float(policy.head.weight[member, 0].detach().norm())
    )


def test_member_must_be_chosen() -> None:
    with pytest.raises(ValueError, match="population of 4"):
        probe(population("linear"), observations())
    with pytest.raises(ValueError, match=r"population of 4: .* got 4"):
        probe(population("linear"), observations(), member=4)
    with pytest.raises(ValueError, match="the policy is a Linear"):
        probe(Linear(), observations(), member=0)


def test_stable_baselines3_model() -> None:
    from stable_baselines3 import PPO

    model = PPO("MlpPolicy", gymnasium.make("CartPole-v1"), seed=0, device="cpu")
    x = np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32)
    found = probe(model, x, batch_size=20, snapshot_size=50)
    with torch.no_grad():
        distribution = model.policy.get_distribution(torch.from_numpy(x)).distribution
    assert found.entropy == pytest.approx(float(distribution.entropy().mean()), rel=1e-5)
    assert found.head_norms.shape == (2,)
    assert found.snapshot is not None
    np.testing.assert_array_equal(found.snapshot.labels, distribution.logits.argmax(-1))
    hooked = HookedPolicy(_Actor(model.policy), head="policy.action_net")
    assert numbers(probe(hooked, x)) == pytest.approx(numbers(found), rel=1e-4, nan_ok=True)


def test_stable_baselines3_models_without_an_actor_are_refused_with_the_remedy() -> None:
    from sb3_contrib import QRDQN
    from stable_baselines3 import DQN, SAC
    from stable_baselines3.common.vec_env import DummyVecEnv

    cartpole = gymnasium.make("CartPole-v1")
    x = np.random.default_rng(0).standard_normal((9, 4)).astype(np.float32)
    model = DQN("MlpPolicy", cartpole, buffer_size=1, seed=0, device="cpu")
    for unsupported in (
        model,
        model.policy,
        QRDQN("MlpPolicy", cartpole, buffer_size=1, device="cpu"),
        SAC("MlpPolicy", "Pendulum-v1", buffer_size=1, device="cpu"),
        DummyVecEnv([lambda: cartpole]),
    ):
        name = type(unsupported).__name__
        with pytest.raises(TypeError, match=rf"a {name} is no actor.*HookedPolicy.*model\.q_net"):
            probe(unsupported, x)
    found = probe(HookedPolicy(model.q_net, head="q_net.4"), x)
    with torch.no_grad():
        values = model.q_net(torch.from_numpy(x))
    entropy = torch.distributions.Categorical(logits=values).entropy().mean()
    assert found.entropy == pytest.approx(float(entropy), rel=1e-5)


def test_recurrent_policies_are_refused_for_their_memory() -> None:
    from sb3_contrib import RecurrentPPO

    x = np.random.default_rng(0).standard_normal((9, 4)).astype(np.float32)
    model = RecurrentPPO("MlpLstmPolicy", gymnasium.make("CartPole-v1"), seed=0, device="cpu")
    for recurrent in (model, model.policy):
        with pytest.raises(TypeError, match=rf"a {type(recurrent).__name__} depend on its memory"):
            probe(recurrent, x)


class _Actor(nn.Module):
    def __init__(self, policy: nn.Module) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.policy.get_distribution(x).distribution.logits


def test_tianshou_policy() -> None:
    from tianshou.algorithm.modelfree.reinforce import DiscreteActorPolicy
    from tianshou.utils.net.common import Net
    from tianshou.utils.net.discrete import DiscreteActor

    net = Net(state_shape=(4,), hidden_sizes=[8, 8])
    actor = DiscreteActor(preprocess_net=net, action_shape=3, softmax_output=False)
    policy = DiscreteActorPolicy(actor=actor, action_space=gymnasium.spaces.Discrete(3))
    x = np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32)
    found = probe(policy, x)
    with torch.no_grad():
        logits = actor(x)[0]
    expected = torch.distributions.Categorical(logits=logits).entropy().mean()
    assert found.entropy == pytest.approx(float(expected), rel=1e-5)
    assert found.head_norms.shape == (3,)


def test_what_is_no_policy_is_refused() -> None:
    with pytest.raises(TypeError, match="HookedPolicy"):
        probe(torch_network(), observations())
    with pytest.raises(TypeError, match="got int"):
        probe(3, observations())
    with pytest.raises(TypeError, match="expected \\(features, logits\\)"):
        probe(lambda x: x, observations())
    with pytest.raises(ValueError, match="not the layer the logits come from"):
        probe(Linear(), observations(), head=Linear(1).head)
    shown = lambda x: Activations(*Linear()(x), Linear().head)  # noqa: E731
    with pytest.raises(ValueError, match="shows its own head"):
        probe(shown, observations(), head=Linear().head)


# ------------------------------------------------------------------ labels


def test_optimal_labels_are_exact() -> None:
    mdp = ideal_cliff_walking()
    rng = np.random.default_rng(0)
    states = rng.choice(mdp.decision_states, 60)
    head = rng.standard_normal((4, 12))
    one_hot = np.eye(12)[states]

    def policy(b):
        h = np.eye(12)[b] if b.ndim == 1 else b
        return h, h @ head.T

    for x in (states, one_hot):
        found = probe(policy, x, labels="optimal", mdp=mdp, head=head, snapshot_size=60)
        best = mdp.optimal_actions().argmax(axis=1)[states]
        assert found.snapshot is not None
        np.testing.assert_array_equal(found.snapshot.labels, best)
        greedy = (one_hot @ head.T).argmax(axis=1)
        assert found.greedy_share == pytest.approx((greedy == best).mean())
        assert found.labels == "optimal"


def test_states_without_a_unique_optimum_are_refused() -> None:
    mdp = ideal_cliff_walking()
    exits = np.setdiff1d(np.arange(12), mdp.decision_states)
    policy = lambda b: (np.eye(12)[b], np.eye(12)[b][:, :4])  # noqa: E731
    with pytest.raises(ValueError, match=rf"states \[{exits[0]}\] have no unique optimal action"):
        probe(policy, np.array([*mdp.decision_states, exits[0]]), labels="optimal", mdp=mdp)
    with pytest.raises(ValueError, match="needs the tables of an MDP"):
        probe(policy, mdp.decision_states, labels="optimal")
    with pytest.raises(ValueError, match=r"one-hot \(n, 12\), got shape \(203, 5\)"):
        probe(Linear(), observations(), labels="optimal", mdp=mdp)


def test_given_and_computed_labels_agree() -> None:
    x = observations()
    rule = lambda b: (b[:, 0] > 0).astype(int) + (b[:, 1] > 0)  # noqa: E731
    computed = probe_linear(x, labels=rule, batch_size=31)
    given = probe_linear(x, labels=rule(x), batch_size=31)
    assert (computed.labels, given.labels) == ("function", "given")
    np.testing.assert_array_equal(given.collapse.counts, np.bincount(rule(x), minlength=K))
    assert numbers(computed) == pytest.approx(numbers(given), nan_ok=True)
    assert given.greedy_share == (Linear()(x)[1].argmax(axis=1) == rule(x)).mean()
    for wrong in (N - 1, N + 1):
        with pytest.raises(ValueError, match="labels"):
            probe_linear(x, labels=np.zeros(wrong, dtype=int), batch_size=31)
    with pytest.raises(ValueError, match="labels='best'"):
        probe_linear(x, labels="best")


# ------------------------------------------------------------------ snapshots and reasons


def test_snapshot_does_not_depend_on_batches() -> None:
    x = observations()
    taken = [
        probe_linear(x, snapshot_size=20, rng=np.random.default_rng(3), batch_size=size, step=7)
        for size in (1, 13, N)
    ]
    for found in taken:
        assert found.snapshot is not None
        np.testing.assert_array_equal(found.snapshot_rows, taken[0].snapshot_rows)
        own = Linear().features(x[found.snapshot_rows])
        np.testing.assert_allclose(found.snapshot.features, own, rtol=1e-12, atol=1e-15)
        assert found.snapshot.step == 7
    assert len(taken[0].snapshot_rows) == 20
    assert len(set(taken[0].snapshot_rows.tolist())) == 20
    first = probe_linear(x, snapshot_size=20, batch_size=13)
    np.testing.assert_array_equal(first.snapshot_rows, np.arange(20))
    everything = probe_linear(x, snapshot_size=10**6, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(everything.snapshot_rows, np.arange(N))
    assert probe_linear(x).snapshot is None


def test_snapshot_is_drawn_evenly() -> None:
    x, rng, repetitions = observations(400), np.random.default_rng(0), 30
    drawn = np.zeros(400)
    for _ in range(repetitions):
        found = probe_linear(x, snapshot_size=100, rng=rng, batch_size=150)
        drawn[found.snapshot_rows] += 1
    # Each state in a quarter of the draws: counts of mean 7.5 and variance 30/4·3/4.
    chi_square = ((drawn - 7.5) ** 2).sum() / (repetitions * 0.1875)
    assert abs(chi_square - 400) < 4 * np.sqrt(2 * 400)
    assert abs(drawn[:150].mean() - 7.5) < 0.6
    assert abs(drawn[300:].mean() - 7.5) < 0.6


def test_undefined_values_have_reasons() -> None:
    found = probe(lambda x: (np.zeros((len(x), 2)), np.zeros((len(x), K))), np.zeros((6, 1)))
    assert math.isnan(found.effective_rank)
    assert found.reasons["effective_rank"] == "all features are 0"
    assert found.reasons["head_norm"] == "no head was given"
    assert found.entropy == pytest.approx(math.log(K))
    constant = probe(lambda x: (np.ones((len(x), 2)), np.zeros((len(x), K))), np.zeros((6, 1)))
    assert constant.effective_rank == pytest.approx(1.0)
    assert set(constant.reasons) == {
        "effective_rank_centred",
        "head_norm",
        "head_norm_std",
        "head_energy",
    }


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="no observations"):
        probe_linear(np.zeros((0, INPUT)))
    with pytest.raises(TypeError, match="a list among the batches"):
        probe_linear([[1.0, 2.0]])
    with pytest.raises(ValueError, match="an iterator or an environment allows it once"):
        probe_linear(iter([observations()]), agreement=True)
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        probe_linear(observations(), batch_size=0)
    with pytest.raises(ValueError, match="diverged"):
        probe(lambda x: (x, x * math.nan), observations())
