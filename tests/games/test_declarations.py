"""What a game declares of its laws is checked before a result relies on it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from crowdnash import games
from crowdnash.games import declarations
from crowdnash.games.base import GameError, PopulationGame
from crowdnash.games.declarations import check_declarations, reads_step


class Declared(PopulationGame):
    """Two states, two actions; the laws are functions of the aggregate, handed in."""

    transition_in_aggregate: str = eqx.field(static=True)
    reward_in_aggregate: str = eqx.field(static=True)
    chance: object = eqx.field(static=True)
    pay: object = eqx.field(static=True)
    weight: jax.Array
    num_states = 2
    num_actions = 2
    horizon = 3

    def __init__(self, chance, pay, transition="free", reward="affine"):
        self.chance, self.pay = chance, pay
        self.transition_in_aggregate, self.reward_in_aggregate = transition, reward
        self.weight = jnp.linspace(0.5, 1.0, 5)

    @property
    def initial_distribution(self):
        return jnp.full(2, 0.5)

    @property
    def agents(self):
        return self.weight

    def transition(self, agent, state, action, aggregate, step):
        first = self.chance(agent, aggregate, step)
        return jnp.stack([first, 1 - first])

    def reward(self, agent, state, action, aggregate, step):
        return self.pay(agent, aggregate, step)


def half(agent, aggregate, step):
    return 0.5 * agent


def first(agent, aggregate, step):
    return aggregate[0]


@pytest.fixture
def no_evaluation(monkeypatch):
    """The programs alone have to settle it."""

    def refuse(*_):
        raise AssertionError("a law was evaluated")

    monkeypatch.setattr(declarations, "evaluate_laws", refuse)


@pytest.mark.parametrize("name", games.tabular_names())
def test_traces_alone_prove_the_declarations_of_the_games_that_come_along(name, no_evaluation):
    game = games.lookup(name).sample(jax.random.key(0), num_agents=4, horizon=3)
    check_declarations(game)


def test_traces_follow_sums_multiples_selections_and_calls(no_evaluation):
    def affine(agent, aggregate, step):
        table = jnp.where(step > 1, aggregate @ jnp.arange(4.0), -aggregate.sum() / 3)
        return agent * jax.jit(lambda x: x.reshape(1)[0] + 1)(table)

    check_declarations(Declared(half, affine))
    check_declarations(Declared(lambda w, z, h: 0.25 * z[1] * w, half, "affine", "free"))


@pytest.mark.parametrize(
    "pay",
    [
        lambda w, z, h: z[0] ** 2,
        lambda w, z, h: jnp.maximum(z[0], z[1]),
        lambda w, z, h: z[0] * z[1],
        lambda w, z, h: w / (1 + z[0]),
        lambda w, z, h: jnp.where(z[0] > 0.3, 1.0, 0.0),
        lambda w, z, h: jnp.where(h == 2, z[0] * z[0], 0.0),
        lambda w, z, h: jnp.floor(4 * z[0]),
    ],
)
def test_a_reward_that_bends_is_not_affine(pay):
    with pytest.raises(GameError, match=r"reward_in_aggregate is declared 'affine', so .* off"):
        check_declarations(Declared(half, pay))


def test_a_transition_that_reads_the_aggregate_is_not_free():
    rule = (
        r"game 'Declared': agent \d at step \d in state \d with action \d: "
        "transition_in_aggregate is declared 'free', so transition must be the same"
    )
    with pytest.raises(GameError, match=rule):
        check_declarations(Declared(first, half))


def test_true_declarations_that_a_trace_cannot_prove_are_evaluated():
    def sum_by_scan(agent, aggregate, step):
        return jax.lax.scan(lambda total, x: (total + x, None), 0.0, aggregate)[0]

    def half_by_comparison(agent, aggregate, step):
        return jnp.where(aggregate[0] >= 0, 0.5, 1.0)

    check_declarations(Declared(half_by_comparison, sum_by_scan))


def test_nothing_is_asked_of_laws_declared_nonlinear(no_evaluation):
    check_declarations(Declared(first, first, "nonlinear", "nonlinear"))


def test_whether_a_law_reads_the_step():
    game = Declared(lambda w, z, h: jnp.where(h == 0, 0.5, 0.25), half)
    assert reads_step(game, "transition")
    assert not reads_step(game, "reward")
