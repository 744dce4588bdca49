"""N-player exploitability (Def. 2) against brute force, closed forms, and its own promises."""

import re
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import crowdnash as cn
from brute_force import brute_force
from random_games import (
    RandomAffineGame,
    RandomFreeGame,
    RandomPopulationGame,
    groupings,
    permuted,
    random_policy,
    random_population_game,
    random_tabular_game,
)

KEY = jax.random.key(0)
GROUPINGS = ["symmetric", "grouped", "independent"]


def assert_equals_reference(certificate, reference, *, atol=1e-5):
    np.testing.assert_allclose(certificate.value, reference.value, rtol=0, atol=atol)
    np.testing.assert_allclose(
        certificate.best_response_value, reference.best_response_values, rtol=0, atol=atol
    )
    np.testing.assert_allclose(certificate.lower, reference.exploitability, rtol=0, atol=atol)
    np.testing.assert_array_equal(certificate.upper, certificate.lower)
    np.testing.assert_array_equal(certificate.standard_error, np.zeros(len(certificate.lower)))
    largest, mean = reference.exploitability.max(), reference.exploitability.mean()
    np.testing.assert_allclose(certificate.maximum, (largest, largest), rtol=0, atol=atol)
    np.testing.assert_allclose(certificate.mean, (mean, mean), rtol=0, atol=atol)


# --- enumerate ----------------------------------------------------------------------------------

TINY_GAMES = {
    "nonlinear": lambda seed: random_population_game(seed, 3, 2, 2, 3),
    "nonlinear, three of all": lambda seed: random_population_game(seed, 2, 3, 3, 2),
    "weighted": lambda seed: random_population_game(seed, 3, 3, 2, 2, weighted=True),
    "table": lambda seed: random_tabular_game(seed, 3, 2, 2, 3),
    "table, three of all": lambda seed: random_tabular_game(seed, 2, 3, 3, 3),
}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", TINY_GAMES)
def test_enumeration_equals_brute_force(name, seed):
    game = TINY_GAMES[name](seed)
    for grouping in GROUPINGS:
        policy = random_policy(seed, game, groupings(game.num_agents)[grouping])
        certificate = cn.exploitability(game, policy, key=KEY, method="enumerate")
        assert certificate.method == "enumerate"
        np.testing.assert_array_equal(certificate.agents, np.arange(game.num_agents))
        assert_equals_reference(certificate, brute_force(game, policy))


def test_enumeration_of_the_largest_tiny_game_equals_brute_force():
    """N = S = A = H = 3: 19,683 deterministic policies of each agent."""
    game = random_tabular_game(2, 3, 3, 3, 3)
    policy = random_policy(2, game, groupings(3)["independent"])
    certificate = cn.exploitability(game, policy, key=KEY, method="enumerate")
    assert_equals_reference(certificate, brute_force(game, policy))


def test_enumeration_of_the_librarys_games_equals_brute_force():
    sis = cn.games.SIS.sample(jax.random.key(1), num_agents=3, horizon=3)
    rps = cn.games.RockPaperScissors.sample(jax.random.key(2), num_agents=2, horizon=3)
    for game in (sis, rps):
        policy = random_policy(3, game, groupings(game.num_agents)["independent"])
        certificate = cn.exploitability(game, policy, key=KEY, method="enumerate")
        assert_equals_reference(certificate, brute_force(game, policy))


def test_a_deterministic_policy_is_enumerated_too():
    game = random_tabular_game(3, 2, 2, 2, 3)
    probs = np.random.default_rng(0).integers(2, size=(2, 3, 2))[..., None] == np.arange(2)
    policy = cn.TabularPolicy.independent(probs.astype(np.float32))
    certificate = cn.exploitability(game, policy, key=KEY, method="enumerate")
    assert_equals_reference(certificate, brute_force(game, policy))


# --- exact --------------------------------------------------------------------------------------


def random_rps(num_agents: int, horizon: int = 10) -> cn.games.RockPaperScissors:
    return cn.games.RockPaperScissors.sample(
        jax.random.key(num_agents), num_agents=num_agents, horizon=horizon, heterogeneity=0.3
    )


def rps_closed_form(game, policy) -> tuple[np.ndarray, np.ndarray]:
    """J^i and best-response value of every agent of A-RPS, [N] each, in float64.

    s' = a, so agent j's state at h + 1 is its action at h and its marginals are products of its
    own policy; agents are independent, rewards linear, so the others enter by their mean
    marginals. Rewards by the formulas of the paper: R(s,a) = -c sigma_a(a) - u_s sigma_s(what
    beats s) + v_s sigma_s(what s beats), (R,P,S) = (0,1,2).
    """
    probs = np.asarray(policy.probs, np.float64)[np.asarray(policy.groups)]
    probs /= probs.sum(-1, keepdims=True)
    crowding, loss, win = (np.asarray(x, np.float64) for x in (game.crowding, game.loss, game.win))
    beats = {0: 2, 1: 0, 2: 1}
    beaten_by = {0: 1, 1: 2, 2: 0}
    num_agents, horizon = probs.shape[:2]
    state = np.full((num_agents, 3), 1 / 3)
    rewards = np.zeros((horizon, num_agents, 3, 3))
    for h in range(horizon):
        action = (state[:, :, None] * probs[:, h]).sum(1)
        others_state = (state.sum(0) - state) / (num_agents - 1)
        others_action = (action.sum(0) - action) / (num_agents - 1)
        for s in range(3):
            won = win[:, s] * others_state[:, beats[s]]
            lost = loss[:, s] * others_state[:, beaten_by[s]]
            rewards[h, :, s] = (won - lost)[:, None] - crowding[:, None] * others_action
        state = action
    value, best = np.zeros((num_agents, 3)), np.zeros((num_agents, 3))
    for h in reversed(range(horizon)):
        value = (probs[:, h] * (rewards[h] + value[:, None, :])).sum(-1)
        best = (rewards[h] + best[:, None, :]).max(-1)
    return value.mean(1), best.mean(1)


@pytest.mark.parametrize("num_agents", [2, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("grouping", GROUPINGS)
def test_exact_equals_brute_force(num_agents, grouping):
    rps = random_rps(num_agents, horizon=2)
    affine = random_population_game(1, num_agents, 2, 2, 3, kind=RandomAffineGame, weighted=True)
    for game in (rps, affine):
        policy = random_policy(4, game, groupings(num_agents)[grouping])
        certificate = cn.exploitability(game, policy, key=KEY, method="exact")
        assert certificate.method == "exact"
        assert_equals_reference(certificate, brute_force(game, policy), atol=3e-6)


@pytest.mark.parametrize("num_agents", [2, 50, 2000])
@pytest.mark.parametrize("grouping", ["symmetric", "independent"])
def test_exact_rps_equals_the_closed_form(num_agents, grouping):
    game = random_rps(num_agents)
    maps = {"symmetric": np.zeros(num_agents, int), "independent": np.arange(num_agents)}
    policy = random_policy(5, game, maps[grouping])
    certificate = cn.exploitability(game, policy, key=KEY, method="exact")
    value, best = rps_closed_form(game, policy)
    np.testing.assert_allclose(certificate.value, value, rtol=1e-6)
    np.testing.assert_allclose(certificate.best_response_value, best, rtol=1e-6)
    np.testing.assert_allclose(certificate.lower, best - value, rtol=1e-6)
    assert certificate.maximum.lower == pytest.approx((best - value).max(), rel=1e-6)
    assert certificate.mean.upper == pytest.approx((best - value).mean(), rel=1e-6)


def test_uniform_play_of_identical_rps_agents_by_hand():
    """All marginals are 1/3: a step in state s pays -c/3 - u_s/3 + v_s/3 = -4/3, -5/3, -2 for
    R, P, S; uniform play earns -5/3 a step, and staying in R from step 1 on 1/3 a step more."""
    game = cn.games.RockPaperScissors.sample(KEY, num_agents=7, horizon=10, heterogeneity=0.0)
    certificate = cn.exploitability(game, cn.TabularPolicy.uniform(game), key=KEY)
    np.testing.assert_allclose(certificate.value, -50 / 3, rtol=1e-6)
    np.testing.assert_allclose(certificate.lower, 3.0, rtol=1e-6)


# --- auto ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("game", "method"),
    [
        (random_rps(3, horizon=2), "exact"),
        (random_rps(100), "exact"),
        (cn.games.SIS.sample(KEY, num_agents=3, horizon=3), "enumerate"),
        (cn.games.SIS.sample(KEY, num_agents=40, horizon=6), "paths"),
        (random_population_game(0, 2, 2, 2, 2), "enumerate"),
        (random_tabular_game(0, 2, 2, 2, 2), "enumerate"),
        (random_population_game(0, 30, 2, 2, 2, kind=RandomAffineGame), "exact"),
    ],
)
def test_auto_picks_the_method(game, method):
    policy = cn.TabularPolicy.uniform(game)
    certificate = cn.exploitability(
        game, policy, key=KEY, num_trajectories=64, own_influence_agents=0
    )
    assert certificate.method == method


@pytest.mark.parametrize(
    ("game", "arguments", "message"),
    [
        (random_tabular_game(0, 2, 2, 2, 2), {"method": "paths"}, "PopulationGame"),
        (cn.games.SIS.sample(KEY, num_agents=3), {"method": "exact"}, "method='exact'"),
        (cn.games.SIS.sample(KEY, num_agents=100), {"method": "enumerate"}, "method='enumerate'"),
        (cn.games.SIS.sample(KEY, num_agents=3), {"num_trajectories": 1}, "num_trajectories"),
        (cn.games.SIS.sample(KEY, num_agents=3), {"confidence": 1.0}, "confidence"),
        (cn.games.SIS.sample(KEY, num_agents=3), {"agents": [3]}, r"agents must lie in 0\.\.2"),
        (cn.games.SIS.sample(KEY, num_agents=3), {"agents": [1, 1]}, "agents must be different"),
    ],
)
def test_what_does_not_apply_is_refused(game, arguments, message):
    with pytest.raises(ValueError, match=message):
        cn.exploitability(game, cn.TabularPolicy.uniform(game), key=KEY, **arguments)


# --- paths: transitions free of the population, where frozen paths leave nothing out ------------

REPEATS, PATHS = 40, 64


class Repeated:
    """Certificates of one small game under many keys, and the truth."""

    def __init__(self, num_agents: int, seed: int, grouping: str, weighted: bool = False):
        game = random_population_game(
            seed, num_agents, 2, 2, 3, kind=RandomFreeGame, weighted=weighted
        )
        policy = random_policy(seed, game, groupings(num_agents)[grouping])
        self.reference = brute_force(game, policy)
        self.certificates = [
            cn.exploitability(
                game,
                policy,
                key=jax.random.key(1000 + k),
                num_trajectories=PATHS,
                method="paths",
                own_influence_agents=0,
            )
            for k in range(REPEATS)
        ]

    def mean_and_error(self, field: str) -> tuple[np.ndarray, np.ndarray]:
        """Over the keys: mean of a per-agent field and its standard error, by their spread."""
        values = np.stack([getattr(e, field) for e in self.certificates])
        return values.mean(0), values.std(0, ddof=1) / np.sqrt(REPEATS)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((2, 0, "symmetric", False), marks=pytest.mark.slow),
        (3, 1, "grouped", True),
        pytest.param((3, 2, "independent", False), marks=pytest.mark.slow),
    ],
    ids=["two", "three weighted", "three"],
)
def repeated(request) -> Repeated:
    return Repeated(*request.param)


@pytest.mark.slow
def test_frozen_path_value_is_the_return(repeated):
    """With transitions free of the population the path does not depend on the agent."""
    mean, error = repeated.mean_and_error("value")
    assert (np.abs(mean - repeated.reference.value) < 4 * error + 1e-5).all()
    assert (error < 0.02).all()


@pytest.mark.slow
def test_sampled_bounds_hold_within_four_standard_errors(repeated):
    truth = repeated.reference.exploitability
    for e in repeated.certificates:
        assert (e.lower <= truth + 4 * e.standard_error + 1e-5).all()
        assert (e.upper >= truth - 4 * e.upper_standard_error - 1e-5).all()
        assert (e.lower <= e.upper + 1e-6).all()
    mean, error = repeated.mean_and_error("lower")
    assert (mean <= truth + 4 * error + 1e-5).all()
    # Planning on 64 paths finds a policy that is nearly best: `lower` is not merely safe.
    assert (mean >= truth - 0.05).all()
    mean, error = repeated.mean_and_error("upper")
    assert (mean >= truth - 4 * error - 1e-5).all()


def test_reported_standard_errors_are_the_spread_over_keys(repeated):
    """A standard deviation from 40 samples has relative error 1/sqrt(78): 4 of them are 0.46.

    The planned policy may differ from key to key, which can add to the spread but, here, little.
    """
    for field, error in (("lower", "standard_error"), ("upper", "upper_standard_error")):
        seen = np.stack([getattr(e, field) for e in repeated.certificates]).std(0, ddof=1)
        told = np.stack([getattr(e, error) for e in repeated.certificates]).mean(0)
        assert (np.abs(seen / told - 1) < 0.46).all()


def test_intervals_cover(repeated):
    """At 95% at most 5% of keys should miss; 7 or more of 40 has probability below 0.4%."""
    allowed = int(scipy.stats.binom.ppf(0.996, REPEATS, 0.05))
    assert allowed <= 6
    truth = repeated.reference.exploitability
    for field, value in (("maximum", truth.max()), ("mean", truth.mean())):
        intervals = [getattr(e, field) for e in repeated.certificates]
        assert sum(not i.lower <= value <= i.upper for i in intervals) <= allowed
        assert all(i.lower <= i.upper for i in intervals)
        # Not by being vacuous: no wider than the clairvoyant's advantage and the noise explain.
        slack = max((e.upper - e.lower).max() for e in repeated.certificates)
        noise = max(e.upper_standard_error.max() for e in repeated.certificates)
        assert all(i.upper - i.lower < slack + 8 * noise for i in intervals)


@pytest.mark.slow
def test_lower_end_of_the_maximum_is_not_biased_by_picking_the_worst_agent():
    """500 agents whose gains are pure noise: every E^i is 0, max over agents of `lower` is not.

    One state, two actions, uniform play: the aggregate is (f, 1-f) with mean (1/2, 1/2), and an
    action pays slope . (aggregate - 1/2) with slopes of its own for each agent and step. An
    agent picked on the very paths that judge it would seem to gain in almost every run; picked
    on other paths its interval starts above 0 in 2.5% of runs, and 4 of 20 has chance 0.2%.
    """
    game = random_population_game(3, 500, 1, 2, 20, kind=RandomAffineGame)
    centred = game.agents._replace(pay=-game.agents.pay_slope.sum(-1) / 2)
    game = type(game)(centred, game.initial_distribution, 20, 1, 2, False)
    certificates = [
        cn.exploitability(
            game,
            cn.TabularPolicy.uniform(game),
            key=jax.random.key(k),
            num_trajectories=16,
            method="paths",
            own_influence_agents=0,
        )
        for k in range(20)
    ]
    above = [e.maximum.lower > 0 for e in certificates]
    assert sum(above) <= 3
    tail = scipy.stats.t.ppf(0.975, 15)
    naive = [(e.lower - tail * e.standard_error).max() > 0 for e in certificates]
    assert sum(naive) >= 12  # so the game does tell the two apart
    assert all(e.maximum.upper >= 0 for e in certificates)


@pytest.mark.slow
def test_sampled_certificate_of_rps_agrees_with_the_exact_one():
    game = random_rps(50)
    policy = random_policy(6, game, np.arange(50) % 7)
    exact = cn.exploitability(game, policy, key=KEY, method="exact")
    certificate = on_paths(game, policy, num_trajectories=256)
    assert (certificate.lower <= exact.lower + 4 * certificate.standard_error).all()
    assert (certificate.upper >= exact.lower - 4 * certificate.upper_standard_error).all()
    assert certificate.maximum.lower <= exact.maximum.lower <= certificate.maximum.upper
    assert certificate.mean.lower <= exact.mean.lower <= certificate.mean.upper


@pytest.mark.slow
def test_nobody_influences_rps():
    """The others move the same whatever an agent does."""
    game = random_rps(50)
    policy = random_policy(6, game, np.arange(50) % 7)
    influence = on_paths(game, policy, num_trajectories=256, own_influence_agents=8).own_influence
    assert (np.abs(influence.difference) <= 4 * influence.standard_error + 1e-4).all()


# --- paths: promises ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sis() -> cn.games.SIS:
    return cn.games.SIS.sample(jax.random.key(5), num_agents=40, horizon=6, heterogeneity=0.15)


def on_paths(game, policy, **arguments):
    defaults = {"key": jax.random.key(6), "num_trajectories": 64, "own_influence_agents": 0}
    return cn.exploitability(game, policy, method="paths", **(defaults | arguments))


def test_intervals_widen_with_confidence(sis):
    policy = random_policy(8, sis, np.arange(40))
    certificates = [on_paths(sis, policy, confidence=c) for c in (0.5, 0.9, 0.99)]
    for field in ("maximum", "mean"):
        lower, upper = zip(*(getattr(e, field) for e in certificates), strict=True)
        assert lower[0] > lower[1] > lower[2]
        assert upper[0] < upper[1] < upper[2]
    assert [e.confidence for e in certificates] == [0.5, 0.9, 0.99]
    for e in certificates:
        assert (e.lower <= e.upper + 1e-6).all()
        assert (e.standard_error > 0).all()
        np.testing.assert_array_equal(e.lower, certificates[0].lower)


@pytest.mark.slow
def test_a_subset_of_agents_is_the_rows_of_all(sis):
    policy = random_policy(9, sis, np.arange(40))
    chosen = np.array([31, 4, 17])
    all_, some = on_paths(sis, policy), on_paths(sis, policy, agents=chosen)
    np.testing.assert_array_equal(some.agents, chosen)
    for field in ("value", "lower", "upper", "standard_error", "upper_standard_error"):
        np.testing.assert_allclose(
            getattr(some, field), getattr(all_, field)[chosen], rtol=1e-4, atol=1e-5
        )
    rps = random_rps(12)
    policy = random_policy(9, rps, np.arange(12))
    exact = cn.exploitability(rps, policy, key=KEY, agents=[7, 2])
    np.testing.assert_array_equal(
        exact.lower, cn.exploitability(rps, policy, key=KEY).lower[[7, 2]]
    )
    assert exact.maximum.lower == exact.lower.max()


def test_rows_shared_or_repeated_make_no_difference(sis):
    """G = N with equal rows is the policy with G = 1; draws do not depend on grouping."""
    table = random_policy(10, sis, np.zeros(40, int)).probs[0]
    shared = on_paths(sis, cn.TabularPolicy.symmetric(table, 40))
    repeated_rows = cn.TabularPolicy.independent(jnp.broadcast_to(table, (40, *table.shape)))
    own = on_paths(sis, repeated_rows)
    for field in ("value", "lower", "upper", "standard_error"):
        np.testing.assert_allclose(
            getattr(shared, field), getattr(own, field), rtol=1e-4, atol=1e-5
        )


@pytest.mark.slow
def test_renumbering_the_agents_renumbers_the_result():
    order = np.array([2, 0, 1])
    game = random_population_game(11, 3, 2, 2, 3, weighted=True)
    policy = random_policy(11, game, groupings(3)["grouped"])
    moved = cn.TabularPolicy.grouped(policy.probs, np.asarray(policy.groups)[order])
    before = cn.exploitability(game, policy, key=KEY, method="enumerate")
    after = cn.exploitability(permuted(game, order), moved, key=KEY, method="enumerate")
    np.testing.assert_allclose(after.lower, before.lower[order], atol=1e-5)
    np.testing.assert_allclose(after.value, before.value[order], atol=1e-5)
    # Sampled: other draws, so equal within errors.
    many = {"num_trajectories": 4000}
    one, other = on_paths(game, policy, **many), on_paths(permuted(game, order), moved, **many)
    error = 4 * (one.standard_error[order] + other.standard_error) + 1e-5
    assert (np.abs(other.lower - one.lower[order]) < error).all()


# --- paths: own influence -----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_agents", "seed", "grouping"),
    [
        (3, 1, "grouped"),
        pytest.param(2, 0, "symmetric", marks=pytest.mark.slow),
        pytest.param(2, 3, "independent", marks=pytest.mark.slow),
        pytest.param(3, 4, "independent", marks=pytest.mark.slow),
    ],
)
def test_own_influence_closes_the_gap_to_the_true_gain(num_agents, seed, grouping):
    """Where the population feels the deviator, frozen gain + difference is the deviation's gain.

    The deviation is the best response to the mean of the frozen paths; with 4000 of them that is
    the one to the enumerated mean model, whose gain brute force knows exactly.
    """
    game = random_population_game(seed, num_agents, 2, 2, 3, weighted=True)
    policy = random_policy(seed, game, groupings(num_agents)[grouping])
    reference = brute_force(game, policy)
    certificate = on_paths(game, policy, num_trajectories=4000, own_influence_agents=num_agents)
    influence = certificate.own_influence
    assert sorted(influence.agents) == list(range(num_agents))
    for agent, difference, error in zip(
        influence.agents, influence.difference, influence.standard_error, strict=True
    ):
        plan = reference.mean_model_best_response(agent)
        true_gain = reference.deviation_values(agent, plan[None])[0] - reference.value[agent]
        tolerance = 4 * (error + certificate.frozen.standard_error[agent])
        assert abs(certificate.frozen.lower[agent] + difference - true_gain) < tolerance
        assert tolerance < 0.06
        # What it gains in truth, no one can exceed.
        assert true_gain <= reference.exploitability[agent] + 1e-6


@pytest.mark.slow
def test_own_influence_is_measured_for_the_agents_with_the_largest_gain():
    game = random_population_game(1, 3, 2, 2, 3, weighted=True)
    policy = random_policy(1, game, groupings(3)["grouped"])
    all_, two, none = (
        on_paths(game, policy, num_trajectories=4000, own_influence_agents=k) for k in (3, 2, 0)
    )
    influence = two.own_influence
    np.testing.assert_array_equal(influence.agents, np.argsort(-two.lower)[:2])
    np.testing.assert_array_equal(influence.agents, two.influence.agents)
    np.testing.assert_allclose(influence.difference, all_.own_influence.difference[:2], atol=1e-5)
    assert influence.difference.shape == (2,)
    assert (influence.standard_error > 0).all()
    assert none.own_influence is None


# --- games that break the rules -----------------------------------------------------------------


class Broken(cn.PopulationGame):
    """Two states, two actions, laws that no crowd changes; at h = 1 agent 2 breaks a rule.

    Only where it is in state 1 and takes action 1, which `NEVER` does not play.
    """

    name: ClassVar[str] = "broken"
    transition_in_aggregate: ClassVar = "free"
    reward_in_aggregate: ClassVar = "free"
    agents: Any
    initial_distribution: Any
    fault: str = eqx.field(static=True)
    horizon: int = eqx.field(static=True, default=2)
    num_states: ClassVar[int] = 2
    num_actions: ClassVar[int] = 2

    def __init__(self, fault: str, initial: Any = (0.5, 0.5)):
        self.agents = jnp.arange(3)
        self.initial_distribution = jnp.asarray(initial, jnp.float32)
        self.fault = fault
        self.horizon = 2

    def transition(self, agent, state, action, aggregate, step):
        wrong = {"sum": [0.5, 0.48], "sign": [1.2, -0.2]}.get(self.fault, [0.5, 0.5])
        here = (agent == 2) & (state == 1) & (action == 1) & (step == 1)
        right = jnp.array([0.25, 0.75] if self.fault != "shape" else [0.25, 0.5, 0.25])
        return right if self.fault == "shape" else jnp.where(here, jnp.array(wrong), right)

    def reward(self, agent, state, action, aggregate, step):
        here = (agent == 2) & (state == 1) & (action == 1) & (step == 1)
        return jnp.where(here & (self.fault == "reward"), jnp.nan, 1.0 * action)


NEVER = cn.TabularPolicy.symmetric(np.tile(np.float32([1, 0]), (2, 2, 1)), 3)
WHERE = "game 'broken': agent 2 at step 1 in state 1 with action 1: "


@pytest.mark.parametrize("method", ["exact", "enumerate"])
@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("sum", "transition must be probabilities that sum to 1 within 1e-05, not [0.5, 0."),
        ("sign", "transition must be probabilities that sum to 1 within 1e-05, not [1.2"),
        ("reward", "reward must be a finite number, not nan"),
    ],
)
def test_laws_that_break_the_rules(method, fault, text):
    """Also where the policy judged never goes: a best response may."""
    with pytest.raises(cn.GameError, match=re.escape(WHERE + text)):
        cn.exploitability(Broken(fault), NEVER, key=KEY, method=method)
    assert cn.exploitability(Broken("none"), NEVER, key=KEY, method=method).maximum.lower > 1.9


@pytest.mark.parametrize("fault", ["sum", "sign", "reward"])
def test_symmetry_of_laws_that_break_the_rules(fault):
    with pytest.raises(cn.GameError, match=r"agent 2 at step 1: (transition|reward) must"):
        cn.symmetry(Broken(fault))


class FalselyFree(RandomPopulationGame):
    """Its transitions bend with the aggregate."""

    transition_in_aggregate: ClassVar = "free"
    reward_in_aggregate: ClassVar = "free"

    def reward(self, agent, state, action, aggregate, step):
        return agent.pay[step, state, action]


class FalselyAffine(RandomFreeGame):
    """Its rewards bend with the aggregate."""

    reward_in_aggregate: ClassVar = "affine"


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (FalselyFree, "transition_in_aggregate is declared 'free'"),
        (FalselyAffine, "reward_in_aggregate is declared 'affine'"),
    ],
)
def test_declarations_that_are_not_true(kind, text):
    game = random_population_game(0, 6, 2, 2, 2, kind=kind)
    policy = random_policy(0, game, groupings(6)["symmetric"])
    for call in (
        lambda: cn.exploitability(game, policy, key=KEY),
        lambda: cn.symmetry(game),
        lambda: cn.induced_game(game),
    ):
        with pytest.raises(cn.GameError, match=text):
            call()


def test_laws_of_another_shape():
    game = Broken("shape")
    text = r"game 'broken': a transition must have shape \[2\], not \[3\]"
    for call in (
        lambda: cn.simulate(game, NEVER, key=KEY, num_trajectories=1),
        lambda: cn.td_learning(game, NEVER, key=KEY, num_epochs=1),
        lambda: cn.exploitability(game, NEVER, key=KEY, num_trajectories=2, method="paths"),
    ):
        with pytest.raises(cn.GameError, match=text):
            call()


@pytest.mark.parametrize(
    ("initial", "text"),
    [
        ([0.5, 0.6], "initial_distribution must be probabilities that sum to 1 within 1e-05"),
        ([1.5, -0.5], "initial_distribution must be probabilities that sum to 1 within 1e-05"),
        ([np.nan, 1.0], "initial_distribution must be probabilities that sum to 1 within 1e-05"),
        ([0.5, 0.25, 0.25], "initial_distribution must have shape [2] or ["),
    ],
)
def test_a_start_that_is_none(initial, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        Broken("none", initial)


def test_an_action_that_is_none():
    game = Broken("none")
    state = game.reset(KEY)
    _, reward = game.step(state, jnp.array([0, 2, -1]), KEY)
    np.testing.assert_array_equal(np.isnan(reward), [False, True, True])
