"""Defs. 7, 8 and 10, Lemmas 2 and 9: against closed forms, brute force and random trials."""

import itertools
import time
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import crowdnash as cn
from crowdnash.approximate_symmetry.measurement import symmetry
from crowdnash.games.base import GameError
from random_games import (
    RandomFreeGame,
    RandomPopulationGame,
    permuted,
    random_population_game,
    random_tabular_game,
)
from small_games import Drift, DriftByLaw, DriftSimulator


class RandomAffineBothGame(RandomPopulationGame):
    """Transitions and rewards affine in the aggregate (weights up to 2 stay in the simplex)."""

    transition_in_aggregate: ClassVar[Any] = "affine"
    reward_in_aggregate: ClassVar[Any] = "affine"

    def transition(self, agent, state, action, aggregate, step):
        here = jax.nn.softmax(agent.move[step, state, action])
        pull = jax.nn.softmax(agent.move_slope[step, state, action][:, 0])
        share = 0.45 * aggregate[0]
        return (1 - share) * here + share * pull

    def reward(self, agent, state, action, aggregate, step):
        return agent.pay[step, state, action] + agent.pay_slope[step, state, action] @ aggregate


def all_laws(game) -> tuple[np.ndarray, np.ndarray]:
    """P and R of all agents at all own pairs and all joint pairs of the others: [H,N,X,O,...]."""
    x, n = game.num_states * game.num_actions, game.num_agents
    others = jnp.asarray(list(itertools.product(range(x), repeat=n - 1)), jnp.int32)
    grid = [jnp.arange(k) for k in (game.horizon, n, x)]

    @jax.jit
    def ask():
        def one(h, i, pair, rest):
            s, a = jnp.divmod(pair, game.num_actions)
            return game.law(i, s, a, *jnp.divmod(rest, game.num_actions), h)

        f = jax.vmap(one, (None, None, None, 0))
        for place in (2, 1, 0):
            f = jax.vmap(f, tuple(0 if k == place else None for k in range(4)))
        return f(*grid, others)

    return tuple(np.asarray(v, np.float64) for v in ask())


def brute_force(game, groups=None) -> tuple[np.ndarray, np.ndarray]:
    """alpha and beta of each group by Defs. 3, 6 and 7, all joint pairs of the others in loops."""
    n, x = game.num_agents, game.num_states * game.num_actions
    groups = np.zeros(n, int) if groups is None else np.asarray(groups)
    deviations = []
    others = list(itertools.product(range(x), repeat=n - 1))
    for law in all_laws(game):
        law = law.reshape(*law.shape[:4], -1)
        deviation = np.zeros(groups.max() + 1)
        for g in range(groups.max() + 1):
            members = np.flatnonzero(groups == g)
            sums: dict = {}
            keys = {}
            for i in members:
                labels = np.delete(groups, i)
                for o, pairs in enumerate(others):
                    key = tuple(sorted(zip(labels.tolist(), pairs, strict=True)))
                    keys[i, o] = key
                    total, count = sums.get(key, (0.0, 0))
                    sums[key] = (total + law[:, i, :, o], count + 1)
            for (i, o), key in keys.items():
                mean = sums[key][0] / sums[key][1]
                apart = np.abs(law[:, i, :, o] - mean).sum(-1).max()
                deviation[g] = max(deviation[g], apart)
        deviations.append(deviation)
    return deviations[0], deviations[1]


def value_at(game, place, law) -> np.ndarray:
    """The law of agent, state, action and step of a `Deviation`, from `game.law` itself."""
    others = place.others
    if others is None:
        counts = np.rint(place.mu.reshape(-1) * (game.num_agents - 1)).astype(int)
        others = np.repeat(np.arange(counts.size), counts)
    s, a = np.divmod(others, game.num_actions)
    index = [jnp.asarray(k, jnp.int32) for k in (place.agent, place.state, place.action)]
    laws = game.law(*index, jnp.asarray(s), jnp.asarray(a), jnp.asarray(place.step, jnp.int32))
    return np.asarray(laws[law])


# --- the paper's games


@pytest.mark.parametrize("num_agents", [7, 1000])
def test_sis_closed_form(num_agents):
    game = cn.games.SIS.sample(jax.random.key(1), num_agents=num_agents)
    apart = [
        np.abs(x - x.mean()).max()
        for x in (
            np.asarray(v, np.float64)
            for v in (game.susceptibility, game.recovery, game.isolation_aversion)
        )
    ]
    sym = symmetry(game)
    assert sym.exact
    assert sym.alpha.lower == sym.alpha.upper == pytest.approx(2 * max(apart[:2]), abs=1e-12)
    assert sym.beta.lower == sym.beta.upper == pytest.approx(apart[2], abs=1e-12)
    width = 1 + float(game.isolation_aversion.max())
    assert sym.relative_beta.lower == pytest.approx(apart[2] / width, rel=1e-6)
    assert sym.kappa == 1
    assert sym.sparsity.entries[1, 1].tolist() == [False, True, False, False]  # (I,U), for (H,U)
    assert sym.lipschitz.exact
    assert sym.lipschitz.K_mu == pytest.approx(float(game.susceptibility.mean()), rel=1e-5)
    assert sym.lipschitz.L_mu == 0.0


def rps_beta(game) -> float:
    """All others in (s',a'): R^i = -c 1[a'=a] - u_s 1[s' beats s] + v_s 1[s beats s']."""
    c, u, v = (np.asarray(x, np.float64) for x in (game.crowding, game.loss, game.win))
    c, u, v = (x - x.mean(0) for x in (c[:, None], u, v))
    paid = (-u, v, np.zeros_like(u), -u - c, v - c, np.zeros_like(u) - c)
    return float(max(np.abs(x).max() for x in paid))


def test_rock_paper_scissors_closed_form():
    game = cn.games.RockPaperScissors.sample(jax.random.key(2), num_agents=1000)
    sym = symmetry(game)
    assert sym.alpha == (0.0, 0.0)
    assert sym.beta.lower == sym.beta.upper == pytest.approx(rps_beta(game), abs=1e-12)
    assert sym.lipschitz.K_s == 0.0
    assert sym.lipschitz.K_a == 2.0
    assert sym.lipschitz.L_pop == sym.lipschitz.L_pop_sharper == 1.0
    assert sym.kappa == 7  # of the nine entries two pay the same
    assert sym.lipschitz.L_mu == pytest.approx(6.0, abs=0.02)  # (c + u + v)/2 in scissors


@pytest.mark.parametrize("game", ["sis", "rps"])
def test_a_second_is_plenty(game):
    make = cn.games.lookup(game).sample
    symmetry(make(jax.random.key(0), num_agents=1000))
    other = make(jax.random.key(1), num_agents=1000)
    started = time.perf_counter()
    symmetry(other)
    assert time.perf_counter() - started < 1.0


def test_identical_agents_are_symmetric():
    for game in (
        cn.games.SIS.sample(jax.random.key(0), num_agents=50, heterogeneity=0.0),
        Drift(np.full(8, 0.6)),
    ):
        sym = symmetry(game)
        assert sym.exact
        assert sym.alpha == sym.beta == (0.0, 0.0)
    game = cn.games.SIS.sample(jax.random.key(0), num_agents=50)
    assert symmetry(game, "independent").beta == (0.0, 0.0)


@pytest.mark.slow
def test_order_of_agents_does_not_matter():
    game = random_population_game(3, 5, 2, 2, 2, kind=RandomAffineBothGame, weighted=True)
    order = np.array([3, 0, 4, 1, 2])
    groups = np.array([0, 1, 1, 0, 1])
    ours, other = symmetry(game, groups), symmetry(permuted(game, order), groups[order])
    np.testing.assert_allclose(ours.group_alpha, other.group_alpha, atol=1e-12)
    np.testing.assert_allclose(ours.group_beta, other.group_beta, atol=1e-12)
    assert order[other.beta_attained.agent] == ours.beta_attained.agent


@pytest.mark.slow
def test_more_groups_are_more_alike():
    game = cn.games.SIS.sample(jax.random.key(0), num_agents=200)
    one, some, all_ = (symmetry(game, g) for g in ("symmetric", 16, "independent"))
    assert one.alpha.upper > some.alpha.upper > all_.alpha.upper == 0.0
    assert some.group_alpha.shape == (16, 2)
    assert some.alpha.upper == some.group_alpha.max()
    parameters = np.stack([game.susceptibility, game.recovery], 1).astype(np.float64)
    members = [parameters[some.groups == g] for g in range(16)]
    by_hand = [2 * np.abs(x - x.mean(0)).max() for x in members]
    np.testing.assert_allclose(some.group_alpha[:, 0], by_hand, atol=1e-12)
    assert not some.monotone.everywhere


# --- brute force


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("kind", "groups"),
    [
        (RandomPopulationGame, None),
        (RandomAffineBothGame, (0, 1, 2, 0)),
        pytest.param(RandomPopulationGame, (0, 1, 0, 1), marks=SLOW),
        pytest.param(RandomFreeGame, None, marks=SLOW),
        pytest.param(RandomAffineBothGame, None, marks=SLOW),
    ],
)
def test_population_games_by_brute_force(kind, groups):
    game = random_population_game(7, 4, 2, 2, 2, kind=kind)
    alpha, beta = brute_force(game, groups)
    sym = symmetry(game, None if groups is None else np.array(groups))
    assert sym.exact
    for ends, true in ((sym.group_alpha, alpha), (sym.group_beta, beta)):
        np.testing.assert_allclose(ends, np.stack([true, true], 1), atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("states", "groups"),
    [
        (2, (0, 1, 2, 0)),
        pytest.param(3, None, marks=SLOW),
        pytest.param(2, None, marks=SLOW),
        pytest.param(3, (0, 1, 0, 1), marks=SLOW),
    ],
)
def test_agent_specific_weights_by_brute_force(states, groups):
    game = random_population_game(
        states, 4, states, 4 - states, 2, kind=RandomAffineBothGame, weighted=True
    )
    alpha, beta = brute_force(game, groups)
    sym = symmetry(game, None if groups is None else np.array(groups))
    assert sym.exact
    for ends, true in ((sym.group_alpha, alpha), (sym.group_beta, beta)):
        np.testing.assert_allclose(ends, np.stack([true, true], 1), atol=2e-6)
    place = sym.beta_attained
    here = value_at(game, place, 1)
    assert place.others.shape == (3,)
    assert abs(here) <= 5


def test_any_tabular_game_by_brute_force():
    for groups in (None, (0, 1, 0)):
        game = random_tabular_game(5, 3, 2, 2, 2)
        alpha, beta = brute_force(game, groups)
        sym = symmetry(game, None if groups is None else np.array(groups))
        assert sym.method == "enumerate"
        assert sym.exact
        np.testing.assert_allclose(sym.group_alpha[:, 1], alpha, atol=1e-6)
        np.testing.assert_allclose(sym.group_beta[:, 0], beta, atol=1e-6)
        assert sym.kappa == 3  # every entry matters: all but one
        assert value_at(game, sym.alpha_attained, 0).sum() == pytest.approx(1, abs=1e-5)


def test_enumeration_agrees_with_the_closed_form():
    by_law, closed = DriftByLaw(), Drift()
    by_queries, closed = symmetry(by_law), symmetry(closed)
    assert by_queries.method == "enumerate"
    assert closed.method == "population"
    for name in ("alpha", "beta"):
        np.testing.assert_allclose(getattr(by_queries, name), getattr(closed, name), atol=1e-6)
    assert by_queries.kappa == closed.kappa == 3
    assert symmetry(Drift(), method="enumerate").alpha == pytest.approx(closed.alpha, abs=1e-6)


class WeighedAgent(NamedTuple):
    weight: Any


class Weighed(cn.PopulationGame):
    """Reward: the weight of the others in state 1, per other."""

    transition_in_aggregate: ClassVar = "free"
    reward_in_aggregate: ClassVar = "affine"
    agents: WeighedAgent
    initial_distribution: Any
    horizon: int = eqx.field(static=True, default=1)
    num_states: ClassVar[int] = 2
    num_actions: ClassVar[int] = 1

    def contribution(self, agent, state, action):
        return jnp.stack([agent.weight * state])

    def transition(self, agent, state, action, aggregate, step):
        return jnp.stack([0.5, 0.5])

    def reward(self, agent, state, action, aggregate, step):
        return aggregate[0]


def weighed(*weights) -> Weighed:
    return Weighed(WeighedAgent(jnp.asarray(weights, jnp.float32)), jnp.asarray([0.5, 0.5]))


def test_weights_two_and_nothing():
    """Agent 0 meets weights (2,0): alone in state 1, the heavy one counts 1 instead of 1/2.

    Sym of the three agents' rewards at mu(1) = 1/2: weights (2,0), (1,0), (1,2) of the others give
    1/2, 1/4, 3/4, mean 1/2. The largest deviation is 1/2, by agents 0 and 2.
    """
    game = weighed(1.0, 2.0, 0.0)
    sym = symmetry(game)
    assert sym.exact
    assert sym.beta == pytest.approx((0.5, 0.5))
    assert brute_force(game)[1] == pytest.approx([0.5])
    assert sym.alpha == (0.0, 0.0)
    assert sym.beta_attained.mu[1, 0] == 0.5
    assert symmetry(weighed(1.0, 1.0, 1.0)).beta == (0.0, 0.0)


@SLOW
def test_many_weighted_agents_get_an_interval(monkeypatch):
    game = random_population_game(0, 12, 2, 2, 1, kind=RandomAffineBothGame, weighted=True)
    full = symmetry(game)
    monkeypatch.setattr("crowdnash.approximate_symmetry.weighted_deviation._MAX_WORK", 3_000)
    part = symmetry(game)
    assert full.exact
    assert not part.exact
    for name in ("alpha", "beta"):
        lower, upper = getattr(part, name)
        assert 0 < lower <= getattr(full, name).lower + 1e-12
        assert getattr(full, name).upper <= upper + 1e-12


@SLOW
def test_bending_laws_with_weights_get_an_interval():
    game = random_population_game(0, 9, 2, 2, 2, weighted=True)
    sym = symmetry(game, num_populations=40)
    assert not sym.exact
    assert 0 < sym.alpha.lower <= sym.alpha.upper == 2.0
    assert sym.beta.upper == np.inf  # no reward range is declared
    place = sym.alpha_attained
    assert value_at(game, place, 0).sum() == pytest.approx(1, abs=1e-5)


@SLOW
def test_search_finds_what_the_whole_grid_shows(monkeypatch):
    game = random_population_game(11, 7, 2, 2, 1)
    whole = symmetry(game)
    assert whole.exact
    monkeypatch.setattr("crowdnash.approximate_symmetry.deviation._MAX_GRID", 5)
    part = symmetry(game)
    assert not part.exact
    for name in ("alpha", "beta"):
        true, interval = getattr(whole, name).lower, getattr(part, name)
        assert 0.9 * true <= interval.lower <= true + 1e-12
        assert interval.upper >= true
    place = part.alpha_attained
    others = np.rint(place.mu * 6)
    np.testing.assert_allclose(place.mu * 6, others, atol=1e-9)


@pytest.mark.slow
def test_declared_moduli_narrow_the_interval():
    game = Drift(np.linspace(0.2, 0.9, 200), horizon=1)
    wide = symmetry(game, num_populations=50)
    narrow = symmetry(game, num_populations=50, reward_modulus=0.9)  # pull * 2y * (1/2), y <= 1
    assert wide.beta.upper == np.inf
    assert wide.beta.lower == pytest.approx(0.35, abs=0.01)  # y = 1: |pull - mean|
    assert wide.beta.lower <= narrow.beta.upper < 1.5


@pytest.mark.slow
def test_random_queries_give_an_honest_lower_end():
    exact = symmetry(DriftByLaw())
    sampled = symmetry(DriftByLaw(), method="sample", num_populations=60, num_permutations=16)
    assert sampled.method == "sample"
    assert not sampled.exact
    for name in ("alpha", "beta"):
        error = getattr(sampled, f"{name}_standard_error")
        true, estimate = getattr(exact, name).lower, getattr(sampled, name).lower
        assert 0 < error < 0.5
        assert 0.5 * true - 4 * error <= estimate <= true + 4 * error
    large = DriftByLaw(np.linspace(0.2, 0.9, 100))
    sym = symmetry(large, "symmetric", num_populations=10)
    assert sym.method == "sample"
    assert sym.alpha.upper == 2.0
    assert sym.lipschitz is None


# --- moduli


def mean_tables(game):
    """P [H,S,A,X,S] and R [H,S,A,X] of the affine induced game at the vertices, by `game.law`."""
    n, x = game.num_agents, game.num_states * game.num_actions
    shape = (game.horizon, game.num_states, game.num_actions, x)
    moves, pays = np.zeros((*shape, game.num_states)), np.zeros(shape)
    everyone = jax.jit(jax.vmap(game.law, (0, None, None, None, None, None)))
    for h, s, a, pair in np.ndindex(*shape):
        rest = [jnp.full(n - 1, k, jnp.int32) for k in divmod(pair, game.num_actions)]
        probs, reward = everyone(jnp.arange(n), jnp.int32(s), jnp.int32(a), *rest, jnp.int32(h))
        moves[h, s, a, pair] = np.asarray(probs, np.float64).mean(0)
        pays[h, s, a, pair] = np.asarray(reward, np.float64).mean()
    return moves, pays


@pytest.mark.parametrize("seed", range(2))
def test_moduli_bound_everything_and_are_attained(seed):
    game = random_population_game(seed, 4, 3, 2, 2, kind=RandomAffineBothGame)
    sym, rng = symmetry(game), np.random.default_rng(seed)
    moduli = sym.lipschitz
    assert moduli.exact
    moves, pays = mean_tables(game)
    mu, other = rng.dirichlet(np.full(6, 0.3), (2, 3000))
    pairs = np.concatenate([np.stack([mu, other], 1), _vertex_pairs(6)])
    apart = np.abs(pairs[:, 0] - pairs[:, 1]).sum(1)
    move = np.einsum("hsaxt,bkx->bkhsat", moves, pairs)
    pay = np.einsum("hsax,bkx->bkhsa", pays, pairs)

    def attained(values, modulus):
        assert values.max() <= modulus + 1e-6
        assert values.max() >= modulus - 1e-6

    change = np.abs(move[:, 0] - move[:, 1]).sum(-1).max((1, 2, 3))
    attained(change / apart, moduli.K_mu)
    attained(np.abs(pay[:, 0] - pay[:, 1]).max((1, 2, 3)) / apart, moduli.L_mu)
    attained(np.abs(move[:, :, :, :, None] - move[:, :, :, None]).sum(-1), moduli.K_s)
    attained(np.abs(move[:, :, :, :, :, None] - move[:, :, :, :, None]).sum(-1), moduli.K_a)
    attained(np.abs(pay[:, :, :, :, None] - pay[:, :, :, None]), moduli.L_s)
    attained(np.abs(pay[:, :, :, :, :, None] - pay[:, :, :, :, None]), moduli.L_a)
    flat = move.reshape(*move.shape[:3], 6, 3)
    attained(
        np.abs(flat[:, :, :, None] - flat[:, :, :, :, None]).sum(-1) / 2, moduli.transition_spread
    )
    attained(np.ptp(pay.reshape(*pay.shape[:3], 6), axis=-1) / 2, moduli.reward_spread)

    # Lemma 9: the population update moves two populations apart by at most L_pop.
    policy = rng.dirichlet(np.ones(2), (len(pairs), 3))
    for h in range(2):
        after = np.einsum("bkx,bkxt->bkt", pairs, move[:, :, h].reshape(len(pairs), 2, 6, 3))
        after = after[..., None] * policy[:, None]
        ratio = np.abs(after[:, 0] - after[:, 1]).sum((1, 2)) / apart
        assert ratio.max() <= moduli.L_pop_sharper + 1e-6 <= moduli.L_pop + 2e-6


def _vertex_pairs(size):
    return np.array(
        [[np.eye(size)[i], np.eye(size)[j]] for i, j in itertools.combinations(range(size), 2)]
    )


@pytest.mark.parametrize("seed", range(3))
def test_lemma_2(seed):
    """If changing one other agent moves P by C1 (L2), its L2 modulus is C1 N sqrt(kappa)."""
    game = random_population_game(seed, 4, 2, 2, 1, kind=RandomAffineBothGame)
    sym, rng = symmetry(game), np.random.default_rng(seed)
    moves, pays = mean_tables(game)
    by_law = all_laws(game)
    pairs = rng.dirichlet(np.full(4, 0.5), (2, 2000))
    apart = np.linalg.norm(pairs[0] - pairs[1], axis=1)
    for law, table, kappa in (
        (by_law[0], moves[0], sym.sparsity.transition),
        (by_law[1][..., None], pays[0][..., None], sym.sparsity.reward),
    ):
        law = law[0].reshape(4, 4, 4, 4, 4, -1)  # i, own pair, the three others' pairs
        steps = [np.moveaxis(law, k, 0) for k in (2, 3, 4)]
        once = max(
            np.linalg.norm(x[i] - x[j], axis=-1).max()
            for x in steps
            for i in range(4)
            for j in range(4)
        )
        values = np.einsum("saxt,kbx->kbsat", table, pairs)
        change = np.linalg.norm(values[0] - values[1], axis=-1).max((1, 2))
        assert (change <= once * 4 * kappa**0.5 * apart + 1e-9).all()


def test_moduli_of_bending_laws_are_searched():
    sym = symmetry(Drift(np.full(40, 0.6)))
    assert sym.exact  # identical agents
    assert not sym.lipschitz.exact
    assert sym.lipschitz.K_mu == pytest.approx(0.3)  # (0.5 pull 2)/2, affine all the same
    assert sym.lipschitz.L_mu == pytest.approx(0.6, rel=0.05)  # pull 2y/2 at y = 1
    assert sym.lipschitz.L_s == pytest.approx(0.2, abs=1e-6)
    assert sym.kappa == 3
    assert sym.beta_attained.step in range(4)


class Tariff(Weighed):
    """A reward whose spread between agents is largest in the middle step."""

    reward_in_aggregate: ClassVar = "free"
    horizon: int = eqx.field(static=True, default=3)

    def reward(self, agent, state, action, aggregate, step):
        return agent.weight * jnp.where(step == 1, 2.0, 1.0)


def test_maxima_over_steps():
    game = Tariff(WeighedAgent(jnp.asarray([0.0, 1.0])), jnp.asarray([0.5, 0.5]))
    sym = symmetry(game)
    assert sym.beta == (1.0, 1.0)
    assert sym.beta_attained.step == 1
    assert sym.reward_range == (0.0, 2.0)
    assert sym.relative_beta == (0.5, 0.5)
    assert sym.monotone.everywhere
    assert sym.monotone.along_flows


# --- monotonicity


def rps(crowding, payoffs="printed", horizon=4):
    return cn.games.RockPaperScissors.sample(
        jax.random.key(0),
        num_agents=10,
        horizon=horizon,
        heterogeneity=0.0,
        crowding=crowding,
        payoffs=payoffs,
    )


@pytest.mark.parametrize(("payoffs", "least"), [("printed", 2.52752523), ("cited", 0.52752523)])
def test_rock_paper_scissors_is_monotone_along_flows_from_a_threshold(payoffs, least):
    for crowding, holds in ((least - 1e-4, False), (least + 1e-4, True), (3.5, True), (0.1, False)):
        verdict = symmetry(rps(crowding, payoffs)).monotone
        assert bool(verdict.along_flows) == holds, crowding
        assert verdict.everywhere.status == "not monotone"
    assert symmetry(rps(0.0, payoffs, horizon=1)).monotone.along_flows  # nothing to choose yet


def reward_difference(game, flow, other):
    """sum (R(mu) - R(mu')) (mu - mu') with the rewards of agent 0 (all are alike)."""
    agent = jax.tree_util.tree_map(lambda x: x[0], game.agents)
    total = 0.0
    for h, (mu, nu) in enumerate(zip(flow, other, strict=True)):
        for s, a in np.ndindex(mu.shape):
            pay = [
                float(
                    game.reward(
                        agent,
                        jnp.int32(s),
                        jnp.int32(a),
                        jnp.asarray(x.reshape(-1), jnp.float32),
                        jnp.int32(h),
                    )
                )
                for x in (mu, nu)
            ]
            total += (pay[0] - pay[1]) * (mu[s, a] - nu[s, a])
    return total


def test_counterexamples_are_counterexamples():
    game = rps(1.0)
    verdict = symmetry(game).monotone
    pair = verdict.everywhere.counterexample
    for mu in pair[:2]:
        assert mu.min() >= 0
        assert mu.sum() == pytest.approx(1)
    assert reward_difference(game, [pair.mu], [pair.other]) == pytest.approx(
        pair.violation, abs=1e-4
    )
    assert pair.violation > 0.1
    two = verdict.along_flows.counterexample
    flows = []
    for policy in two[:2]:
        np.testing.assert_allclose(policy.sum(-1), 1)
        here, flow = np.full(3, 1 / 3), []
        for probs in policy:
            flow.append(here[:, None] * probs)
            here = flow[-1].sum(0)  # the next state is the action
        flows.append(flow)
    assert reward_difference(game, *flows) == pytest.approx(two.violation, abs=1e-4)
    assert two.violation > 1e-3


def test_moving_transitions_are_not_monotone():
    verdict = symmetry(cn.games.SIS.sample(jax.random.key(0), num_agents=20)).monotone
    assert verdict.everywhere.status == verdict.along_flows.status == "not monotone"
    assert "P depends on the population" in verdict.along_flows.reason
    assert verdict.along_flows.counterexample.mu.sum() == 1


class Beach(Weighed):
    """Transitions free of the crowd, and a reward that bends: -sign * log(1 + sigma(s=1))."""

    reward_in_aggregate: ClassVar = "nonlinear"
    num_actions: ClassVar[int] = 2
    sign: float = 1.0

    def contribution(self, agent, state, action):
        return jnp.stack([state == 1])

    def transition(self, agent, state, action, aggregate, step):
        return jnp.stack([jnp.where(action == 0, 1.0, 0.0), jnp.where(action == 1, 1.0, 0.0)])

    def reward(self, agent, state, action, aggregate, step):
        return -self.sign * agent.weight * state * jnp.log(1 + aggregate[0])


@pytest.mark.slow
def test_bending_rewards_are_unknown_or_refuted():
    agents, start = WeighedAgent(jnp.ones(30)), jnp.asarray([0.5, 0.5])
    crowded = symmetry(Beach(agents, start, horizon=3)).monotone
    assert crowded.everywhere.status == crowded.along_flows.status == "unknown"
    social = symmetry(Beach(agents, start, horizon=3, sign=-1.0)).monotone
    assert social.everywhere.status == social.along_flows.status == "not monotone"
    assert social.everywhere.counterexample.violation > 0


# --- errors


def test_errors_say_what_is_wrong():
    sis = cn.games.SIS.sample(jax.random.key(0), num_agents=20)
    for change, text in (
        ({"method": "guess"}, "method must be one of"),
        ({"method": "enumerate"}, "use 'sample' or 'population'"),
        ({"num_populations": 0}, "num_populations must be at least 1, not 0"),
        ({"num_permutations": 1}, "num_permutations must be at least 2, not 1"),
        ({"seed": -1}, "seed must be at least 0, not -1"),
        ({"transition_modulus": -1.0}, "transition_modulus must be >= 0 and finite, not -1.0"),
        ({"reward_modulus": float("nan")}, "reward_modulus must be >= 0 and finite"),
        ({"groups": "some"}, "groups must be"),
        ({"groups": np.zeros(3, int)}, "one entry an agent"),
    ):
        with pytest.raises(ValueError, match=text):
            symmetry(sis, **change)
    with pytest.raises(ValueError, match="method='population' needs a PopulationGame"):
        symmetry(DriftByLaw(), method="population")
    with pytest.raises(ValueError, match="a simulator shows no law"):
        symmetry(DriftSimulator(), method="sample")


class Broken(Weighed):
    def reward(self, agent, state, action, aggregate, step):
        return jnp.where(agent.weight > 1.5, jnp.nan, aggregate[0])


def test_a_law_that_is_not_a_number_is_named():
    game = Broken(WeighedAgent(jnp.asarray([1.0, 1.0, 2.0])), jnp.asarray([0.5, 0.5]))
    with pytest.raises(GameError, match="agent 2 at step 0: reward must be finite"):
        symmetry(game)
