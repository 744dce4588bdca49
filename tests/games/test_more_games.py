# ruff: noqa: E501
"""Congestion, beach bar, crowd modelling, Garnet: laws by hand, closed forms by brute force."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import crowdnash as cn
from crowdnash.games.beach_bar import BeachBar
from crowdnash.games.conformance.check import check_game
from crowdnash.games.congestion import Congestion
from crowdnash.games.crowd_modelling import CrowdModelling
from crowdnash.games.garnet import Garnet
from crowdnash.games.positions import landing, log_crowding, shifted

KEY = jax.random.key(5)
GAMES = (Congestion, BeachBar, CrowdModelling, Garnet)


def step(h=0):
    return jnp.asarray(h, jnp.int32)


def laws(game, aggregate):
    """P [N,S,A,S] and R [N,S,A] of every agent at one aggregate."""
    met = jnp.asarray(aggregate, jnp.float32)

    def one(agent, s, a):
        return game.transition(agent, s, a, met, step()), game.reward(agent, s, a, met, step())

    over = jax.vmap(one, in_axes=(None, None, 0))
    over = jax.vmap(jax.vmap(over, in_axes=(None, 0, None)), in_axes=(0, None, None))
    states, actions = (jnp.arange(k, dtype=jnp.int32) for k in (game.num_states, game.num_actions))
    return jax.tree_util.tree_map(np.asarray, jax.jit(over)(game.agents, states, actions))


# --- the contract, at several sizes ---


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("game", "sizes"),
    [
        pytest.param(Congestion, {"num_agents": 2, "num_states": 1, "num_actions": 2}, marks=SLOW),
        pytest.param(
            Congestion,
            {"num_agents": 40, "power": 2.0, "num_counts": 5, "heterogeneity": 0.3},
            marks=SLOW,
        ),
        (BeachBar, {"num_agents": 2, "num_positions": 3, "bar": 0, "beach": "line"}),
        pytest.param(BeachBar, {"num_agents": 60, "horizon": 4}, marks=SLOW),
        pytest.param(CrowdModelling, {"num_agents": 30, "size": 4, "horizon": 3}, marks=SLOW),
        (CrowdModelling, {"num_agents": 3, "size": 3, "dimensions": 2, "horizon": 2}),
        pytest.param(Garnet, {"num_agents": 2, "num_states": 1, "num_actions": 1, "branching": 1,
                              "sparsity": 1}, marks=SLOW),
        pytest.param(Garnet, {"num_agents": 30, "horizon": 3}, marks=SLOW),
        pytest.param(Garnet, {"num_agents": 20, "monotone": True, "num_states": 4}, marks=SLOW),
    ],
)  # fmt: skip
def test_conformance(game, sizes):
    check_game(game.sample(KEY, **sizes))


@pytest.mark.slow
@pytest.mark.parametrize("game", GAMES)
def test_samples_are_decided_by_the_key_and_alike_without_heterogeneity(game):
    one, same, other = (game.sample(jax.random.key(k), num_agents=6) for k in (1, 1, 2))
    for a, b, c in zip(one.agents, same.agents, other.agents, strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c) or np.ptp(np.asarray(a)) == 0
    alike = game.sample(KEY, num_agents=6, heterogeneity=0.0)
    for x in alike.agents:
        np.testing.assert_array_equal(x, np.broadcast_to(np.asarray(x)[:1], x.shape))


@pytest.mark.parametrize("game", GAMES)
def test_seeds_can_be_swept(game):
    keys = jax.random.split(KEY, 3)
    swept = jax.eval_shape(jax.vmap(lambda key: game.sample(key, num_agents=4).agents), keys)
    single = jax.eval_shape(lambda key: game.sample(key, num_agents=4).agents, KEY)
    for a, b in zip(swept, single, strict=True):
        assert (a.shape, a.dtype) == ((3, *b.shape), b.dtype)


# --- congestion ---


def small_congestion():
    """N=3, S=2, A=1, any h (C = N): values at 1, 2 and 3 agents in the pair."""
    move = [[[0.5, 0.5]], [[0.2, 0.8]]], [[[1.0, 0.0]], [[0.2, 0.8]]], [[[0.0, 1.0]], [[0.2, 0.8]]]
    h = (
        [[[0.9, 0.5, 0.5]], [[0.8, 0.4, 0.0]]],
        [[[0.6, 0.5, 0.2]], [[0.8, 0.4, 0.0]]],
        [[[0.9, 0.8, 0.2]], [[0.8, 0.4, 0.0]]],
    )
    base = [[[0.1], [0.0]], [[0.2], [0.5]], [[0.3], [1.0]]]
    return Congestion(move, h, base, horizon=4)


def test_congestion_by_hand():
    game = small_congestion()
    zero = jnp.zeros(3, jnp.int32)
    probs, paid = game.joint_law(jnp.asarray([0, 0, 1]), zero, step())
    # Two agents in state 0, agent 2 alone in state 1: h at 2, 2 and 1.
    np.testing.assert_allclose(paid, [0.5 + 0.1, 0.5 + 0.2, 0.8 + 1.0], atol=1e-6)
    np.testing.assert_allclose(probs, [[0.5, 0.5], [1.0, 0.0], [0.2, 0.8]], atol=1e-6)
    _, paid = game.joint_law(zero, zero, step())
    np.testing.assert_allclose(paid, [0.5 + 0.1, 0.2 + 0.2, 0.2 + 0.3], atol=1e-6)
    # D.1 mended: u = 0.3 is k = 1.6, so 0.4 h(1) + 0.6 h(2); u = 0.75 is k = 2.5.
    paid = laws(game, [0.3, 0.7])[1]
    np.testing.assert_allclose(paid[2, 0, 0], 0.4 * 0.9 + 0.6 * 0.8 + 0.3, atol=1e-6)
    paid = laws(game, [0.75, 0.25])[1]
    np.testing.assert_allclose(paid[0, :, 0], [0.5 + 0.1, 0.5 * 0.8 + 0.5 * 0.4], atol=1e-6)
    assert game.reward_range == pytest.approx((0.0, 1.8))
    assert (game.transition_in_aggregate, game.reward_in_aggregate) == ("free", "nonlinear")


def test_congestion_is_affine_where_h_is():
    affine = Congestion.sample(KEY, num_agents=5)
    assert affine.reward_in_aggregate == "affine"
    curved = Congestion.sample(KEY, num_agents=5, power=2.0, num_counts=5)
    assert curved.reward_in_aggregate == "nonlinear"
    # power 2 at u = 1/2, one of the 5 counts: level * (1 - 1/4), level = h(1).
    met = np.zeros(9)
    met[[4, 8]] = 0.5
    expected = curved.base[:, 1, 1] + 0.75 * curved.congestion[:, 1, 1, 0]
    np.testing.assert_allclose(laws(curved, met)[1][:, 1, 1], expected, rtol=1e-5)


@pytest.mark.parametrize(
    "num_counts", [4, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 6))]
)
def test_congestion_constants_by_brute_force(num_counts):
    """alpha, beta over all profiles; moduli over a fine grid of populations, S=A=2, N=4."""
    rng = np.random.default_rng(num_counts)
    shape = (4, 2, 2)
    game = Congestion(
        transitions=rng.dirichlet(np.ones(2), shape),
        congestion=-np.sort(-rng.uniform(size=(*shape, num_counts)), axis=-1),
        base=rng.uniform(size=shape),
    )
    found = game.constants()
    beta = 0.0
    for others in itertools.combinations_with_replacement(range(4), 3):
        probs, paid = laws(game, np.bincount(others, minlength=4) / 3)
        beta = max(beta, np.abs(paid - paid.mean(0)).max())
    assert found.alpha == pytest.approx(np.abs(probs - probs.mean(0)).sum(-1).max(), abs=1e-5)
    assert found.beta == pytest.approx(beta, abs=1e-5)
    law = probs.mean(0)
    assert found.K_s == pytest.approx(np.abs(law[0] - law[1]).sum(-1).max(), abs=1e-5)
    assert found.K_a == pytest.approx(np.abs(law[:, 0] - law[:, 1]).sum(-1).max(), abs=1e-5)
    assert found.L_pop == (found.K_s + found.K_a) / 2
    assert found.K_mu == 0

    parts = 60
    grid = np.asarray(
        [(i, j, k, parts - i - j - k) for i, j, k in itertools.product(range(parts + 1), repeat=3)
         if i + j + k <= parts]
    ) / parts  # fmt: skip
    pay = jax.jit(jax.vmap(lambda mu: _mean_reward(game, mu)))(jnp.asarray(grid, jnp.float32))
    pay = np.asarray(pay).reshape(-1, 2, 2)
    assert found.L_s == pytest.approx(np.abs(pay[:, 0] - pay[:, 1]).max(), abs=1e-5)
    assert found.L_a == pytest.approx(np.abs(pay[:, :, 0] - pay[:, :, 1]).max(), abs=1e-5)
    # Moduli in mu: between neighbours on the grid, 60 being a multiple of every C - 1.
    line = np.linspace(0, 1, parts + 1)
    steepest = 0.0
    for pair in range(4):
        mu = np.zeros((parts + 1, 4), np.float32)
        mu[:, pair], mu[:, (pair + 1) % 4] = line, 1 - line
        values = np.asarray(jax.vmap(lambda m: _mean_reward(game, m))(jnp.asarray(mu)))[:, pair]
        steepest = max(steepest, np.abs(np.diff(values)).max() * parts)
    assert found.slope == pytest.approx(steepest, abs=1e-3)
    assert found.L_mu == found.slope / 2


def _mean_reward(game, mu):
    def one(agent, pair):
        return game.reward(agent, pair // 2, pair % 2, mu, step())

    over = jax.vmap(jax.vmap(one, in_axes=(None, 0)), in_axes=(0, None))
    return over(game.agents, jnp.arange(4, dtype=jnp.int32)).mean(0)


def test_constants_vanish_for_identical_agents():
    found = Congestion.sample(KEY, num_agents=7, heterogeneity=0.0, power=2.0).constants()
    assert found.alpha == pytest.approx(0, abs=1e-6)
    assert found.beta == pytest.approx(0, abs=1e-6)


def test_alpha_is_at_most_twice_the_weight():
    game = Congestion.sample(KEY, num_agents=50, heterogeneity={"transitions": 0.2})
    assert 0 < game.constants().alpha <= 0.4


# --- monotonicity (Def. 10, for all mu, mu') ---


@pytest.mark.parametrize(
    "game",
    [
        Congestion.sample(KEY, num_agents=6, power=0.5),
        Congestion.sample(KEY, num_agents=6),
        small_congestion(),
        BeachBar.sample(KEY, num_agents=6, num_positions=4, bar=1),
        CrowdModelling.sample(KEY, num_agents=6, size=4, least_share=0.2),
        Garnet.sample(KEY, num_agents=6, monotone=True),
        Garnet.sample(KEY, num_agents=6, monotone=True, num_states=2, num_actions=2, sparsity=2,
                      branching=2),
    ],
    ids=lambda game: game.name,
)  # fmt: skip
def test_monotone(game):
    assert monotonicity_gaps(game).max() <= 1e-5
    assert game.transition_in_aggregate == "free"


def test_the_general_garnet_is_not_monotone():
    assert monotonicity_gaps(Garnet.sample(KEY, num_agents=6)).max() > 1e-3


def monotonicity_gaps(game):
    """sum (R(mu) - R(mu'))(mu - mu') of the induced game at 300 random pairs, some extreme."""
    rng = np.random.default_rng(0)
    pairs = game.num_states * game.num_actions
    mu = rng.dirichlet(np.full(pairs, 0.2), size=(300, 2)).astype(np.float32)
    states, actions = np.divmod(np.arange(pairs), game.num_actions)
    states, actions = jnp.asarray(states, jnp.int32), jnp.asarray(actions, jnp.int32)
    one = jax.tree_util.tree_map(lambda x: x[0], game.agents)
    given = np.asarray(jax.vmap(lambda s, a: game.contribution(one, s, a))(states, actions))

    @jax.jit
    @jax.vmap
    def rewards(met):
        pay = jax.vmap(game.reward, in_axes=(None, 0, 0, None, None))
        over = jax.vmap(pay, in_axes=(0, None, None, None, None))
        return over(game.agents, states, actions, met, step()).mean(0)

    pay = [np.asarray(rewards(jnp.asarray(mu[:, k] @ given))) for k in range(2)]
    return ((pay[0] - pay[1]) * (mu[:, 0] - mu[:, 1])).sum(-1)


# --- positions ---


def test_moving_about():
    at = [int(shifted(jnp.asarray(s), jnp.asarray(by), 4)) for s, by in ((0, -2), (3, 2), (1, 1))]
    assert at == [2, 1, 2]
    ends = [int(shifted(jnp.asarray(s), jnp.asarray(by), 4, ring=False)) for s, by in ((0, -2), (3, 2), (2, 1))]  # fmt: skip
    assert ends == [0, 3, 3]
    probs = landing([jnp.asarray(0), jnp.asarray(2), jnp.asarray(0)], [jnp.asarray(x) for x in (0.2, 0.3, 0.5)], 3)  # fmt: skip
    np.testing.assert_allclose(probs, [0.7, 0.0, 0.3], atol=1e-6)


def test_log_crowding():
    values = log_crowding(jnp.asarray([1.0, 0.5, 0.1, 0.05, 0.0]), 0.1)
    tangent = [-np.log(0.1) + 0.5, -np.log(0.1) + 1.0]
    np.testing.assert_allclose(values, [0, np.log(2), -np.log(0.1), *tangent], rtol=1e-6)
    slopes = jax.vmap(jax.grad(lambda u: log_crowding(u, 0.1)))(jnp.asarray([0.0999, 0.1001]))
    np.testing.assert_allclose(slopes, [-10, -10], rtol=2e-3)


def test_beach_bar_by_hand():
    game = BeachBar([2.0, 1.0, 1.0], [0.3, 0.2, 0.1], [1.0, 0.5, 2.0], [0.4, 0.0, 1.0],
                    num_positions=5, bar=1, beach="line", least_share=0.1)  # fmt: skip
    probs, paid = game.joint_law(jnp.asarray([0, 0, 4]), jnp.asarray([0, 1, 2]), step())
    # On a line the furthest position from 1 is 4, at distance 3; position 0 is at distance 1.
    alone = -np.log(0.1) + 1
    expected = [2 * 2 / 3 - 0.3 + np.log(2), 2 / 3 + 0.5 * np.log(2), 0 - 0.1 + 2 * alone]
    np.testing.assert_allclose(paid, expected, rtol=1e-5)
    # 0: left of the end, pushed back to -2 or 0: always 0. 1: stays, no noise. 2: 4+1-1 or 4+1+1.
    np.testing.assert_allclose(
        probs, [[1, 0, 0, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 1]], atol=1e-6
    )
    ring = BeachBar([1.0, 1.0], [0.0, 0.0], [0.0, 0.0], [0.4, 0.4], num_positions=5, bar=4)
    probs, paid = ring.joint_law(jnp.asarray([0, 3]), jnp.asarray([0, 2]), step())
    np.testing.assert_allclose(probs, [[0.2, 0, 0, 0.2, 0.6], [0.2, 0, 0, 0.2, 0.6]], atol=1e-6)
    np.testing.assert_allclose(paid, [0.5, 0.5], atol=1e-6)


def test_crowd_modelling_is_the_beach_bar_on_a_ring():
    crowd = CrowdModelling.sample(KEY, num_agents=2, heterogeneity=0.0, noise=0.5)
    bar = BeachBar.sample(KEY, num_agents=2, heterogeneity=0.0)
    met = np.random.default_rng(1).dirichlet(np.ones(10))
    for a, b in zip(laws(crowd, met), laws(bar, met), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_torus_by_hand():
    n, liking = 2, np.arange(18.0).reshape(2, 9)
    game = CrowdModelling(liking, [0.1] * n, [1.0] * n, [0.8] * n, size=3, dimensions=2)
    probs, paid = game.joint_law(jnp.asarray([0, 0]), jnp.asarray([3, 0]), step())
    # Agent 0 goes up from (0,0) to (2,0) = 6; its neighbours are 8, 7, (1,0) = 3 and (0,0) = 0.
    expected = np.zeros((2, 9))
    expected[0, 6], expected[0, [8, 7, 3, 0]] = 0.2, 0.2
    # Agent 1 goes left from (0,0) to (0,2) = 2; neighbours (0,1), (0,0), (2,2) = 8, (1,2) = 5.
    expected[1, 2], expected[1, [1, 0, 8, 5]] = 0.2, 0.2
    np.testing.assert_allclose(probs, expected, atol=1e-6)
    np.testing.assert_allclose(paid, [0 - 0.1, 9 - 0.1], atol=1e-6)
    assert game.num_actions == 5
    assert game.state_names[5] == "(1,2)"
    assert game.initial_distribution.shape == (9,)


# --- Garnet ---


def test_garnet_by_hand():
    """N=2, S=2, A=1, so X=2: the other agent's state decides."""
    game = Garnet(
        transitions=[[[[0.5, 0.5]], [[1.0, 0.0]]], [[[0.2, 0.8]], [[0.0, 1.0]]]],
        rewards=[[[1.0], [2.0]], [[3.0], [4.0]]],
        payoff=[[[0.5, -1.0]], [[0.0, 2.0]]],
        sensitivity=[1.0, 3.0],
        pull=[[[[0.0, 0.0], [0.1, 0.9]]], [[[1.0, 0.0], [0.0, 1.0]]]],
        coupling=[0.5, 1.0],
    )
    zero = jnp.zeros(2, jnp.int32)
    probs, paid = game.joint_law(jnp.asarray([0, 1]), zero, step())
    # 0 in state 0 meets state 1: halfway from (.5,.5) to (.1,.9); 1 meets state 0: all the way.
    np.testing.assert_allclose(probs, [[0.3, 0.7], [1.0, 0.0]], atol=1e-6)
    np.testing.assert_allclose(paid, [1 - 1, 4 + 0], atol=1e-6)
    probs, paid = game.joint_law(zero, zero, step())  # "none" pulls nobody
    np.testing.assert_allclose(probs, [[0.5, 0.5], [0.2, 0.8]], atol=1e-6)
    np.testing.assert_allclose(paid, [1 + 0.5, 3 + 1.5], atol=1e-6)
    assert game.reward_range == pytest.approx((0.0, 10.0))


def test_full_coupling_keeps_probabilities_valid():
    """Everyone pulls with full weight: what is left of an agent's own law is 0, not less."""
    rng = np.random.default_rng(0)
    game = Garnet(
        transitions=rng.dirichlet(np.ones(3), (2, 3, 2)),
        rewards=np.zeros((2, 3, 2)),
        payoff=np.zeros((3, 2, 6)),
        sensitivity=[0.0, 0.0],
        pull=rng.dirichlet(np.ones(3), (3, 2, 6)),
        coupling=[1.0, 0.9],
    )
    counts = rng.multinomial(7, rng.dirichlet(np.ones(6), 6)).astype(np.float32)
    probs = np.stack([laws(game, x / np.float32(7))[0] for x in counts])
    assert probs.min() >= 0
    np.testing.assert_allclose(probs.sum(-1), 1, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("monotone", [False, True])
def test_garnet_structure(monotone):
    game = Garnet.sample(KEY, num_agents=9, num_states=6, num_actions=2, branching=2, sparsity=3,
                         monotone=monotone, heterogeneity=0.2)  # fmt: skip
    tables = np.asarray(game.transitions)
    assert (((tables > 0).sum(-1)) == 2).all()
    assert ((tables > 0) == (tables[:1] > 0)).all()
    assert (tables != tables[:1]).any()
    felt = np.asarray(game.payoff) != 0
    assert felt.sum(-1).max() == 3
    if monotone:
        assert game.pull is None
        matrix = np.asarray(game.payoff).reshape(12, 12)
        assert np.linalg.eigvalsh(matrix + matrix.T).max() <= 1e-5
    else:
        pulls = np.asarray(game.pull).sum(-1) > 0
        np.testing.assert_array_equal(pulls, felt)
        assert (np.asarray(game.pull).any(2) <= (tables[0] > 0)).all()


# --- bad input ---

ROWS = [[[0.5, 0.5]], [[0.5, 0.5]]]
GOOD = {
    Congestion: {"transitions": [ROWS] * 2, "congestion": [[[[0.5, 0.1]]] * 2] * 2,
                 "base": [[[0.0]] * 2] * 2},
    BeachBar: {k: [0.5, 0.5] for k in ("attraction", "movement_cost", "crowd_aversion", "noise")},
    CrowdModelling: {"preference": np.zeros((2, 10)), "movement_cost": [0, 0],
                     "crowd_aversion": [1, 1], "noise": [0, 0]},
    Garnet: {"transitions": [ROWS] * 2, "rewards": [[[0.0]] * 2] * 2,
             "payoff": [[[0.0, 0.0]]] * 2, "sensitivity": [1.0, 1.0]},
}  # fmt: skip


@pytest.mark.parametrize(
    ("game", "changes", "text"),
    [
        (Congestion, {"transitions": [[[[0.5, 0.6]], [[0.5, 0.5]]]] * 2}, "transitions must sum to 1"),
        (Congestion, {"transitions": [[[[0.5, 0.6]], [[0.5, 0.5]]]] * 2}, "the sum of transitions[0, 0, 0] is 1.1"),
        (Congestion, {"transitions": ROWS}, "transitions must have shape [2,2,1,2], not [2, 1, 2]"),
        (Congestion, {"congestion": [[[[0.1, 0.5]]] * 2] * 2}, "congestion[0, 0, 0] goes from 0.1 to 0.5 at 1"),
        (Congestion, {"congestion": [[[[0.1]]] * 2] * 2}, "congestion must have at least 2 counts along its last axis, not 1"),
        (Congestion, {"congestion": [0.1, 0.2]}, "congestion must have shape [2,2,1,2], not [2]"),
        (Congestion, {"base": [0.1, 0.2]}, "base must have shape [N,S,A] with no empty axis, not [2]"),
        (Congestion, {"base": [[[np.nan]] * 2] * 2}, "base must be finite"),
        (Congestion, {"horizon": 0}, "horizon must be at least 1, not 0"),
        (BeachBar, {"noise": [0.5, 1.5]}, "noise must be in [0, 1]: noise[1] = 1.5"),
        (BeachBar, {"crowd_aversion": [-1, 0]}, "crowd_aversion[0] = -1"),
        (BeachBar, {"num_positions": 2}, "num_positions must be at least 3, not 2"),
        (BeachBar, {"bar": 10}, "bar must be in 0..9, not 10"),
        (BeachBar, {"least_share": 0.0}, "least_share must be in (0, 1], not 0.0"),
        (CrowdModelling, {"preference": np.zeros((2, 9))}, "preference must have shape [2,10], not [2, 9]"),
        (CrowdModelling, {"size": 2}, "size must be at least 3, not 2"),
        (CrowdModelling, {"dimensions": 3}, "dimensions must be in 1..2, not 3"),
        (CrowdModelling, {"initial_distribution": [0.5, 0.5]}, "initial_distribution must have shape [10]"),
        (Garnet, {"pull": np.zeros((2, 1, 2, 2))}, "coupling and pull must be given together"),
        (Garnet, {"pull": np.full((2, 1, 2, 2), 0.4), "coupling": [0, 0]}, "pull must sum to 1 within 1e-05 or be 0"),
        (Garnet, {"pull": np.zeros((2, 1, 2, 2)), "coupling": [0, 2]}, "coupling[1] = 2"),
        (Garnet, {"sensitivity": [-1.0, 1.0]}, "sensitivity[0] = -1"),
        (Garnet, {"payoff": [[0.0]]}, "payoff must have shape [2,1,2], not [1, 1]"),
        (Garnet, {k: v[:1] for k, v in GOOD[Garnet].items() if k != "payoff"}, "num_agents must be at least 2, not 1"),
    ],
)  # fmt: skip
def test_bad_arrays(game, changes, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        game(**(GOOD[game] | changes))


@pytest.mark.parametrize(
    ("game", "arguments", "text"),
    [
        (Congestion, {"num_states": 0}, "num_states must be at least 1, not 0"),
        (Congestion, {"power": 0.0}, "power must be > 0 and finite, not 0.0"),
        (Congestion, {"num_counts": 1}, "num_counts must be at least 2, not 1"),
        (Congestion, {"congestion": 0.0}, "congestion must be in [0, inf]"),
        (Congestion, {"heterogeneity": {"noise": 1.0}}, "['base', 'congestion', 'transitions']: ['noise']"),
        (Congestion, {"heterogeneity": {"transitions": 1.5}}, "transitions weight must be in [0, 1]"),
        (BeachBar, {"noise": 0.05}, "noise must be in [0, 1]"),
        (CrowdModelling, {"heterogeneity": -1.0}, "heterogeneity must be >= 0"),
        (CrowdModelling, {"size": 1}, "size must be at least 3, not 1"),
        (Garnet, {"branching": 6}, "branching must be in 1..5, not 6"),
        (Garnet, {"sparsity": 0}, "sparsity must be in 1..15, not 0"),
        (Garnet, {"coupling": 0.95}, "coupling must be in [0, 1]"),
        (Garnet, {"num_agents": 1}, "num_agents must be at least 2, not 1"),
    ],
)  # fmt: skip
def test_bad_samples(game, arguments, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        game.sample(KEY, **({"num_agents": 200} | arguments))


# --- learning ---


@pytest.mark.slow
def test_learning_lowers_exploitability():
    """Congestion that is affine in the count has an exact certificate."""
    game = Congestion.sample(KEY, num_agents=60, horizon=5, heterogeneity=0.02)
    learner = cn.PolicyMirrorDescent.practical(num_epochs=25, td_epochs=20, step_size=2.0)
    learned = cn.solve(game, learner, key=KEY).last_policy
    before, after = (
        cn.exploitability(game, policy, key=KEY, method="exact").mean.upper
        for policy in (cn.TabularPolicy.uniform(game), learned)
    )
    assert after < 0.5 * before


@pytest.mark.slow
@pytest.mark.parametrize("game", [pytest.param(BeachBar, marks=SLOW), CrowdModelling, Garnet])
def test_simulation_stays_in_the_reward_range(game):
    game = game.sample(KEY, num_agents=20, horizon=4)
    low, high = game.reward_range
    played = cn.simulate(game, cn.TabularPolicy.uniform(game), key=KEY, num_trajectories=8)
    assert low - 1e-4 <= played.rewards.min() <= played.rewards.max() <= high + 1e-4
    assert played.states.max() < game.num_states
