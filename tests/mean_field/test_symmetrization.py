"""The induced game against brute force: averages over agents and over who holds which pair."""

import itertools
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import crowdnash as cn
from crowdnash import mean_field
from crowdnash.games.base import GameError
from crowdnash.mean_field import induced as symmetrization
from crowdnash.mean_field.induced import AveragedLaw, induced_game
from random_games import (
    RandomAffineGame,
    RandomFreeGame,
    RandomPopulationGame,
    permuted,
    random_policy,
    random_population_game,
    random_tabular_game,
)
from small_games import Drift


def symmetrized(game, agent, state, action, held, step, groups=None):
    """Sym(P^i), Sym(R^i): the mean over all ways to deal the pairs `held` to the others.

    `held` is a list of pairs for the others of each group; dealt within groups only.
    """
    others = [j for j in range(game.num_agents) if j != agent]
    groups = np.zeros(game.num_agents, int) if groups is None else groups
    seats = [[k for k, j in enumerate(others) if groups[j] == g] for g in range(len(held))]
    moves, pays, count = 0.0, 0.0, 0
    for deal in itertools.product(*(itertools.permutations(h) for h in held)):
        pairs = np.zeros(len(others), int)
        for places, given in zip(seats, deal, strict=True):
            pairs[places] = given
        states, actions = np.divmod(pairs, game.num_actions)
        move, pay = _law(game, *map(np.asarray, (agent, state, action, states, actions, step)))
        moves, pays, count = moves + np.asarray(move), pays + float(pay), count + 1
    return moves / count, pays / count


@eqx.filter_jit
def _law(game, *where):
    return game.law(*where)


def on_grid(game, held):
    counts = np.bincount(held, minlength=game.num_states * game.num_actions)
    return (counts / len(held)).reshape(game.num_states, game.num_actions)


@pytest.mark.parametrize(
    ("kind", "weighted"),
    [
        (RandomPopulationGame, False),
        (RandomFreeGame, False),
        (RandomAffineGame, False),
        (RandomAffineGame, True),
    ],
)
def test_laws_equal_brute_force_on_the_grid(kind, weighted):
    game = random_population_game(1, 4, 2, 2, 2, kind=kind, weighted=weighted)
    mfg = induced_game(game)
    for held, step in [((0, 0, 3), 0), ((0, 1, 2), 1), ((2, 2, 2), 1)]:
        laws = mean_field.laws_at(mfg, on_grid(game, held), step)
        for s, a in np.ndindex(2, 2):
            every = [symmetrized(game, i, s, a, [held], step) for i in range(4)]
            move = np.mean([m for m, _ in every], axis=0)
            np.testing.assert_allclose(laws.transition[s, a], move, atol=2e-6)
            assert laws.reward[s, a] == pytest.approx(np.mean([r for _, r in every]), abs=2e-6)


@pytest.mark.parametrize("weighted", [False, True])
def test_groups_are_symmetrized_within_themselves(weighted):
    game = random_population_game(2, 5, 2, 2, 2, kind=RandomAffineGame, weighted=weighted)
    groups = np.array([1, 0, 1, 0, 1])
    mfg = induced_game(game, groups)
    np.testing.assert_allclose(mfg.group_weights, [0.4, 0.6])
    # Group 0 has one other agent of its own (pair 3) and meets three of group 1.
    held = [(3,), (0, 0, 1)]
    mu = np.stack([on_grid(game, h) for h in held])
    laws = mean_field.laws_at(mfg, mu, 1)
    for s, a in np.ndindex(2, 2):
        every = [symmetrized(game, i, s, a, held, 1, groups) for i in (1, 3)]
        np.testing.assert_allclose(
            laws.transition[0, s, a], np.mean([m for m, _ in every], axis=0), atol=2e-6
        )
        assert laws.reward[0, s, a] == pytest.approx(np.mean([r for _, r in every]), abs=2e-6)


@pytest.mark.parametrize("kind", [RandomPopulationGame, RandomAffineGame])
@pytest.mark.parametrize("weighted", [False, True])
def test_one_agent_a_group_is_the_agents_own_law(kind, weighted):
    """In any order of groups; the matrix of who meets whom is never made."""
    game = random_population_game(2, 4, 2, 2, 2, kind=kind, weighted=weighted)
    groups = np.array([2, 0, 3, 1])
    mfg = induced_game(game, groups)
    pairs = np.array([3, 0, 1, 3])  # of the agents
    mu = np.zeros((4, 4))
    mu[groups, pairs] = 1
    laws = mean_field.laws_at(mfg, mu.reshape(4, 2, 2), 1)
    for agent, group in enumerate(groups):
        others = np.divmod(np.delete(pairs, agent), 2)
        for s, a in np.ndindex(2, 2):
            move, pay = _law(game, *map(np.asarray, (agent, s, a, *others, 1)))
            np.testing.assert_allclose(laws.transition[group, s, a], move, atol=2e-6)
            assert laws.reward[group, s, a] == pytest.approx(float(pay), abs=2e-6)


class Undeclared(RandomAffineGame):
    """The same laws without a word about what they are."""

    transition_in_aggregate: ClassVar[Any] = "nonlinear"
    reward_in_aggregate: ClassVar[Any] = "nonlinear"


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("groups", [None, np.array([0, 1, 1, 0, 1, 2])])
def test_tables_equal_averages(groups, weighted):
    """Declared laws become tables; undeclared ones are averaged at every call."""
    sizes = (3, 6, 3, 2, 4)
    tables = induced_game(
        random_population_game(*sizes, kind=RandomAffineGame, weighted=weighted), groups
    )
    averages = induced_game(
        random_population_game(*sizes, kind=Undeclared, weighted=weighted), groups
    )
    assert isinstance(averages.reward_law, AveragedLaw)
    assert isinstance(averages.transition_law, AveragedLaw)
    assert not isinstance(tables.transition_law, AveragedLaw)
    # Weighted agents of several groups meet means that differ by agent: no table.
    assert isinstance(tables.reward_law, AveragedLaw) == (weighted and groups is not None)
    count = averages.num_groups
    shape = (4, 3) if count == 1 else (count, 4, 3)
    probs = np.random.default_rng(0).dirichlet(np.ones(2), size=shape)
    one, other = (mean_field.evaluate(mfg, probs) for mfg in (tables, averages))
    np.testing.assert_allclose(one.value, other.value, atol=1e-9)
    np.testing.assert_allclose(one.exploitability, other.exploitability, atol=1e-9)


def test_tables_have_a_step_only_if_the_laws_read_it():
    rps = induced_game(cn.games.RockPaperScissors.sample(jax.random.key(0), num_agents=5))
    assert rps.transition_law.vertices.shape == (1, 1, 1, 3, 3, 3)
    assert rps.reward_law.vertices.shape == (1, 9, 1, 3, 3)
    timed = induced_game(random_population_game(4, 3, 2, 2, 3, kind=RandomAffineGame))
    assert timed.transition_law.vertices.shape == (3, 1, 1, 2, 2, 2)
    assert timed.reward_law.vertices.shape == (3, 4, 1, 2, 2)


def test_a_reduced_aggregate_and_bending_rewards():
    """Drift declares one law and not the other; K = 2 components."""
    game = Drift()
    mfg = induced_game(game)
    mu = np.random.default_rng(1).dirichlet(np.ones(6)).reshape(3, 2)
    x, y = mu[2].sum(), mu[:, 1].sum()
    pull = np.array([0.2, 0.9, 0.5, 0.7])
    for step in (0, 3):
        laws = mean_field.laws_at(mfg, mu, step)
        for s, a in np.ndindex(3, 2):
            drawn = 0.1 + 0.5 * pull.mean() * x
            moved = 0.3 * (a == 1)
            reference = [1 - drawn - moved, moved, drawn]
            np.testing.assert_allclose(laws.transition[s, a], reference, atol=1e-7)
            pay = pull.mean() * y**2 - 0.1 * s + 0.05 * step
            assert laws.reward[s, a] == pytest.approx(pay, abs=1e-7)


def test_renumbering_agents_changes_nothing():
    game = random_population_game(5, 6, 2, 3, 3)
    shuffled = permuted(game, np.array([4, 0, 5, 2, 1, 3]))
    probs = np.asarray(random_policy(6, game, np.zeros(6, int)).probs[0], np.float64)
    probs /= probs.sum(-1, keepdims=True)
    one, other = (mean_field.exploitability(induced_game(g), probs) for g in (game, shuffled))
    assert one == pytest.approx(other, abs=1e-12)


def test_many_pairs_are_averaged_in_parts(monkeypatch):
    """Memory is bounded by mapping over pairs; the result does not depend on the parts."""
    game = random_population_game(7, 5, 3, 3, 2)
    mu = np.full((3, 3), 1 / 9)
    mfg = induced_game(game)
    whole = jax.jit(lambda now: mfg.laws(now, 1))(mu)
    monkeypatch.setattr(symmetrization, "_MAX_AT_ONCE", 5 * 3 * 2)
    parts = jax.jit(lambda now: mfg.laws(now, 1))(mu)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


class Leaking(RandomFreeGame):
    """Probability gets lost in one place."""

    def transition(self, agent, state, action, aggregate, step):
        move = super().transition(agent, state, action, aggregate, step)
        return jnp.where((state == 1) & (action == 0), 0.9, 1.0) * move


def test_bad_input():
    with pytest.raises(ValueError, match=r"game must be a PopulationGame.*RandomTabularGame"):
        induced_game(random_tabular_game(0, 3, 2, 2, 2))
    game = random_population_game(8, 4, 2, 2, 2)
    with pytest.raises(ValueError, match=r"groups must have one entry an agent"):
        induced_game(game, np.zeros(3, int))
    mfg = induced_game(game)
    with pytest.raises(ValueError, match=r"mu must be .* its sum is 2"):
        mfg.laws(np.full((2, 2), 0.5), 0)
    with pytest.raises(ValueError, match=r"mu must have shape \[2, 2\]"):
        mfg.laws(np.full(4, 0.25), 0)
    leaking = random_population_game(9, 4, 2, 2, 2, kind=Leaking)
    with pytest.raises(GameError, match=r"Leaking: transition must be a distribution.*state 1"):
        induced_game(leaking)


def test_the_game_can_be_differentiated():
    """d exploitability / d (one agent's payoff), against differences."""
    game = random_population_game(10, 4, 2, 2, 2, kind=RandomAffineGame)
    probs = np.full((2, 2, 2), 0.5)

    def at(pay):
        now = eqx.tree_at(lambda g: g.agents.pay, game, pay)
        return mean_field.evaluate(induced_game(now), probs).value[0]

    slope = jax.jit(jax.grad(at))(game.agents.pay)
    flow = mean_field.population_flow(induced_game(game), probs)
    np.testing.assert_allclose(slope, np.broadcast_to(flow / 4, slope.shape), atol=1e-6)
