"""Theorem 1: hand-computed values, the paper's counterexample, and games that try to break it."""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import crowdnash as cn
from crowdnash.approximate_symmetry.bounds import nash_bound
from crowdnash.approximate_symmetry.measurement import Symmetry, symmetry
from crowdnash.approximate_symmetry.moduli import LipschitzModuli
from crowdnash.interval import Interval
from random_games import RandomAffineGame, random_population_game


class Nobody(NamedTuple):
    index: Any


class Counterexample(cn.PopulationGame):
    """Reward in state 1 only; playing 1 moves there with 1/2 + |mu(s=0) - 1/2|, 0 with 1/2."""

    transition_in_aggregate: ClassVar = "nonlinear"
    reward_in_aggregate: ClassVar = "free"
    agents: Nobody
    initial_distribution: Any
    horizon: int = eqx.field(static=True)
    num_states: ClassVar[int] = 2
    num_actions: ClassVar[int] = 2

    def __init__(self, num_agents: int):
        self.agents = Nobody(jnp.zeros(num_agents))
        self.initial_distribution = jnp.asarray([0.5, 0.5])
        self.horizon = 2

    def transition(self, agent, state, action, aggregate, step):
        away = jnp.abs(aggregate[0] + aggregate[1] - 0.5)
        there = 0.5 + jnp.where(action == 1, away, 0.0)
        return jnp.stack([1 - there, there])

    def reward(self, agent, state, action, aggregate, step):
        return jnp.where(state == 1, 1.0, 0.0)


@pytest.mark.slow
def test_the_papers_counterexample():
    game = Counterexample(10_000)
    sym = symmetry(game, num_populations=32)
    assert sym.alpha == sym.beta == (0.0, 0.0)  # identical agents
    assert sym.lipschitz.K_mu == pytest.approx(1.0)
    assert (sym.lipschitz.L_s, sym.lipschitz.L_a, sym.lipschitz.L_mu) == (1.0, 0.0, 0.0)
    bound = nash_bound(game, sym)
    # E(0) = 4/100 + 5/10^4, D(1) = 3/10^4 + E(0), and 2 (L_s/2) D(1)
    assert bound.value == pytest.approx(0.0408, abs=1e-9)
    assert 0.00399 < bound.sharper < bound.value  # 0.00399 is the exploitability of "always 0"
    assert not bound.certified  # K_mu of a law that bends was searched
    assert bound.trivial == 2.0
    assert not bound.vacuous


@pytest.mark.slow
def test_values_of_the_papers_games():
    rps = cn.games.RockPaperScissors.sample(jax.random.key(0), num_agents=2000, horizon=10)
    bound = nash_bound(rps, symmetry(rps))
    assert bound.value == pytest.approx(138, abs=1)
    assert bound.sharper == pytest.approx(46.5, abs=0.5)
    assert bound.trivial == pytest.approx(120, abs=4)
    assert bound.regime == bound.regime_sharper == "=1"
    assert bound.vacuous
    assert not bound.sharper_vacuous
    assert bound.best == bound.sharper
    assert bound.certified
    sis = cn.games.SIS.sample(jax.random.key(0), num_agents=1000, susceptibility=0.9)
    bound = nash_bound(sis, symmetry(sis))
    assert bound.value == pytest.approx(3e7, rel=0.05)
    assert bound.sharper == pytest.approx(58, abs=1)
    assert bound.regime == ">1"
    assert bound.vacuous
    assert bound.sharper_vacuous
    assert bound.best == bound.trivial


def made_up(K_s, K_a, K_mu, L_s, L_a, L_mu, alpha, beta, n) -> Symmetry:
    """A `Symmetry` with the given constants and nothing else in it."""
    return Symmetry(
        alpha=Interval(0.0, alpha),
        beta=Interval(0.0, beta),
        relative_beta=Interval(0.0, beta),
        exact=False,
        reward_range=Interval(0.0, 1.0),
        alpha_attained=None,
        beta_attained=None,
        group_alpha=np.array([[0.0, alpha]]),
        group_beta=np.array([[0.0, beta]]),
        groups=np.zeros(n, int),
        lipschitz=LipschitzModuli(K_s, K_a, K_mu, L_s, L_a, L_mu, 0.2, 0.1, True),
        sparsity=None,
        monotone=None,
        method="population",
    )


def test_terms_by_hand():
    """N=100, S=A=2, H=3, K_s+K_a = 1, K_mu = 1/2 (L_pop = 1), L = (0.2, 0.4, 0.5)."""
    game = cn.games.SIS.sample(jax.random.key(0), num_agents=100, horizon=3)
    sym = made_up(0.4, 0.6, 0.5, 0.2, 0.4, 0.5, alpha=0.1, beta=0.05, n=100)
    bound = nash_bound(game, sym, 0.25)
    once = 4 / 10 + 3.5 / 100 + 0.1
    gap = np.array([once, 2 * once, 3 * once])
    own = np.array([0, 0.115 + once / 2, 0.23 + 3 * once / 2])
    np.testing.assert_allclose(bound.terms.population_gap, gap)
    np.testing.assert_allclose(bound.terms.own_law_gap, own)
    total = 2 * (0.5 * gap + 0.3 * own + 3 * 0.5 / 100 + 0.05)
    np.testing.assert_allclose(bound.terms.total, total)
    assert bound.value == pytest.approx(0.25 + total.sum())
    assert bound.trivial == 3.0
    assert bound.regime == "=1"

    once = 3**0.5 / 10 + 3 / 100 + 0.1
    gap = once * np.array([1, 1.7, 2.19])  # L_pop = 0.7
    own = np.array([0, 0.11 + gap[0] / 2, 0.22 + (gap[0] + gap[1]) / 2])
    total = 2 * (0.5 * gap + 0.1 * own + 2 * 0.5 / 100 + 0.05)
    assert bound.sharper == pytest.approx(0.25 + total.sum())
    assert bound.regime_sharper == "<1"
    assert bound.certified

    lower = nash_bound(game, sym, end="lower")
    assert lower.value < bound.value
    assert not lower.certified
    large = nash_bound(game, made_up(0.4, 0.6, 3.0, 0.2, 0.4, 0.5, 0.1, 0.05, 100))
    assert large.regime == ">1"
    assert large.sharper_terms.population_gap.max() == large.sharper_terms.own_law_gap.max() == 2.0


def induced_tables(game, sizes):
    """P [H,S,A,S] and R at the vertices [H,X,S,A] of an induced game free in P, affine in R."""
    num_states, num_actions = sizes
    agents = jax.tree_util.tree_map(lambda x: np.asarray(x, np.float64), game.agents)
    move = np.exp(agents.move - agents.move.max(-1, keepdims=True))
    move = (move / move.sum(-1, keepdims=True)).mean(0)
    pay, slope = agents.pay.mean(0), agents.pay_slope.mean(0)
    return move, pay, slope.reshape(*slope.shape[:3], num_states, num_actions)


def solve(move, pay, slope, initial, rounds=60):
    """Fictitious play; the policy of the average flow, and its mean-field exploitability."""
    horizon, num_states, num_actions = pay.shape

    def flow_of(policy):
        here, flow = initial, []
        for h in range(horizon):
            flow.append(here[:, None] * policy[h])
            here = np.einsum("sa,sat->t", flow[-1], move[h])
        return np.array(flow)

    def respond(flow):
        rewards = pay + np.einsum("hsaxy,hxy->hsa", slope, flow)
        ahead, policy = np.zeros(num_states), np.zeros_like(pay)
        for h in reversed(range(horizon)):
            q = rewards[h] + move[h] @ ahead
            policy[h] = np.eye(num_actions)[q.argmax(-1)]
            ahead = q.max(-1)
        return policy, initial @ ahead - (flow * rewards).sum()

    flow = flow_of(np.full_like(pay, 1 / num_actions))
    for k in range(1, rounds):
        flow = flow + (flow_of(respond(flow)[0]) - flow) / (k + 1)
    policy = flow / flow.sum(-1, keepdims=True)
    return policy, respond(flow_of(policy))[1]


@pytest.mark.slow
@pytest.mark.parametrize("num_agents", [3, 300])
def test_never_violated_where_agents_move_independently(num_agents):
    """50 random games each: exact exploitability of an approximate MFG-NE against the bound."""
    meaningful = 0
    for seed in range(50):
        game = random_population_game(seed, num_agents, 2, 2, 2, kind=RandomAffineGame)
        # More and less alike agents: shrink their differences.
        spread = (1.0, 0.3, 0.05, 0.0)[seed % 4]
        agents = jax.tree_util.tree_map(
            lambda x, spread=spread: 0.3 * (x.mean(0) + spread * (x - x.mean(0))), game.agents
        )
        game = eqx.tree_at(lambda g: g.agents, game, agents)
        initial = np.asarray(game.initial_distribution, np.float64)
        policy, delta = solve(*induced_tables(game, (2, 2)), initial / initial.sum())
        sym = symmetry(game)
        bound = nash_bound(game, sym, max(delta, 0.0))
        played = cn.TabularPolicy.symmetric(policy, num_agents=num_agents)
        result = cn.exploitability(game, played, key=jax.random.key(0), method="exact")
        assert bound.certified
        assert result.maximum.lower <= bound.sharper + 1e-5
        assert bound.sharper <= bound.value + 1e-12
        assert result.maximum.lower <= bound.trivial + 1e-5
        meaningful += not bound.sharper_vacuous
    assert num_agents < 300 or meaningful >= 10


class Crowding(RandomAffineGame):
    """Agents drift where the others are; all is affine, P too."""

    transition_in_aggregate: ClassVar[Any] = "affine"

    def transition(self, agent: Any, state, action, aggregate, step):
        here = jax.nn.softmax(agent.move[step, state, action])
        other = jax.nn.softmax(agent.move_slope[step, state, action][:, 0])
        return here + 0.5 * aggregate[0] * (other - here)


@pytest.mark.slow
def test_never_violated_where_the_crowd_moves_agents():
    """10 random games of three agents, by enumeration of the joint chain."""
    for seed in range(10):
        game = random_population_game(seed, 3, 2, 2, 2, kind=Crowding)
        scale = (1.0, 0.1, 0.0)[seed % 3]
        agents = jax.tree_util.tree_map(
            lambda x, scale=scale: x.mean(0) + scale * (x - x.mean(0)), game.agents
        )
        game = eqx.tree_at(lambda g: g.agents, game, agents)
        policy = np.random.default_rng(seed).dirichlet(np.ones(2), (2, 2))
        delta = mean_field_gain(game, policy)
        bound = nash_bound(game, symmetry(game), delta)
        played = cn.TabularPolicy.symmetric(policy, num_agents=3)
        result = cn.exploitability(game, played, key=jax.random.key(0), method="enumerate")
        assert result.maximum.lower <= min(bound.sharper, bound.value) + 1e-5
        assert bound.certified


def mean_field_gain(game, policy) -> float:
    """Exploitability (Def. 5) in the induced game, from the agents' own laws."""
    mu = np.asarray(game.initial_distribution, np.float64)[:, None] * policy[0]
    laws = []
    over = jax.vmap(jax.vmap(_mean_law, (None, None, 0, None, None)), (None, 0, None, None, None))
    over = jax.jit(over)
    for h in range(2):
        at = (jnp.asarray(mu.reshape(-1), jnp.float32), jnp.int32(h))
        move, pay = over(game, jnp.arange(2), jnp.arange(2), *at)
        laws.append((np.asarray(move, np.float64), np.asarray(pay, np.float64)))
        if h == 0:
            mu = np.einsum("sa,sat->t", mu, laws[0][0])[:, None] * policy[1]
    own = best = np.zeros(2)
    for h in (1, 0):
        move, pay = laws[h]
        own = (policy[h] * (pay + move @ own)).sum(-1)
        best = (pay + move @ best).max(-1)
    return float(np.asarray(game.initial_distribution, np.float64) @ (best - own))


def _mean_law(game, state, action, aggregate, step):
    move = jax.vmap(game.transition, (0, None, None, None, None))
    pay = jax.vmap(game.reward, (0, None, None, None, None))
    place = (game.agents, state, action, aggregate, step)
    return move(*place).mean(0), pay(*place).mean(0)


def test_errors_say_what_is_wrong():
    game = cn.games.SIS.sample(jax.random.key(0), num_agents=10)
    sym = symmetry(game)
    with pytest.raises(ValueError, match=r"mean_field_exploitability must be >= 0.*-1"):
        nash_bound(game, sym, -1.0)
    with pytest.raises(ValueError, match="mean_field_exploitability"):
        nash_bound(game, sym, float("nan"))
    with pytest.raises(ValueError, match="end must be one of upper, lower, not 'both'"):
        nash_bound(game, sym, end="both")
    with pytest.raises(ValueError, match="it has 10 agents, not 11"):
        nash_bound(cn.games.SIS.sample(jax.random.key(0), num_agents=11), sym)
    with pytest.raises(ValueError, match="sym must have Lipschitz moduli"):
        nash_bound(game, symmetry(game, method="sample", num_populations=1))


def test_the_symmetry_of_another_game():
    def sample(horizon: int = 3, heterogeneity: float = 0.1) -> cn.games.SIS:
        sizes = {"num_agents": 20, "horizon": horizon}
        return cn.games.SIS.sample(jax.random.key(0), heterogeneity=heterogeneity, **sizes)

    game = sample()
    assert nash_bound(sample(), symmetry(game)).value == nash_bound(game, symmetry(game)).value
    for other in (sample(heterogeneity=0.0), sample(horizon=4)):
        with pytest.raises(ValueError, match="sym must be symmetry"):
            nash_bound(game, symmetry(other))
