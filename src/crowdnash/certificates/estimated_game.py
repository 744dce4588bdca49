"""A game whose laws are those that play shows: what `game_from_play` estimates, with N agents.

The simulator is played by the policy itself and by the policy with more and more exploration, so
that every action is seen, near the populations that the policy meets and somewhat away from them.

Axes: M trajectories, H steps, N agents, S states, A actions, X = S*A pairs, p functions psi of the
population (see `mean_field.played`), q = p - 1 directions in which it varied, T fitted steps.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from crowdnash.games.base import DynamicGame, PopulationGame
from crowdnash.games.checks import named, states_for_tables
from crowdnash.games.legal import limits_actions
from crowdnash.mean_field.played import game_from_play, nearest_distribution
from crowdnash.policies.base import Policy
from crowdnash.policies.features import as_tables
from crowdnash.policies.tabular import TabularPolicy
from crowdnash.simulation.kept_play import simulate
from crowdnash.simulation.trajectories import Trajectories
from crowdnash.simulators.game import OutsideGame

_EXPLORATION = (0.0, 0.2, 0.5)
"""Shares of actions drawn uniformly, of a third of the plays each; the first must be 0."""

_MARGIN = 0.01
"""By which share a form may predict worse than the best one; its square is as good as nothing."""

_MOST_NUMBERS = 2**26
"""Of all agents' estimated laws, [N,T,p,S,A,S]."""

LEAST_PLAYS = 4 * len(_EXPLORATION)


class EstimatedLaws(NamedTuple):
    """One agent's laws (all agents': leading axis N), linear in psi."""

    moves: Float[Array, "*N T p S A S"]
    pays: Float[Array, "*N T p S A"]


class EstimatedGame(PopulationGame):
    """P^i and R^i affine in the others' empirical distribution over pairs, as far as play shows.

    psi = (1, (sigma - centre) . directions). Where the estimate leaves the simplex, the nearest
    distribution is taken; it hardly does near the populations that were met, so that the laws are
    declared affine all the same, and foresight of the path can be priced.
    """

    transition_in_aggregate = "affine"
    reward_in_aggregate = "affine"

    agents: EstimatedLaws
    centre: Float[Array, " X"]
    directions: Float[Array, "X q"]
    initial_distribution: Float[Array, "N S"]
    horizon: int = eqx.field(static=True)
    num_states: int = eqx.field(static=True)
    num_actions: int = eqx.field(static=True)

    def __init__(
        self,
        sizes: DynamicGame,
        moves: Any,
        pays: Any,
        centre: Any,
        directions: Any,
        starts: Any,
    ):
        arrays = (jnp.asarray(x, jnp.float32) for x in (moves, pays, centre, directions, starts))
        moves, pays, self.centre, self.directions, self.initial_distribution = arrays
        self.agents = EstimatedLaws(moves, pays)
        self.horizon, self.num_actions = sizes.horizon, sizes.num_actions
        self.num_states = states_for_tables(sizes)

    def _law(self, table: Array, state: Array, action: Array, met: Array, step: Array) -> Array:
        at = table[step if table.shape[0] > 1 else 0][:, state, action]  # [p,..]
        psi = jnp.concatenate([jnp.ones(1, jnp.float32), (met - self.centre) @ self.directions])
        return psi @ at

    def transition(
        self, agent: Any, state: Array, action: Array, aggregate: Float[Array, " X"], step: Array
    ) -> Float[Array, " S"]:
        """See `PopulationGame.transition`."""
        return nearest_distribution(self._law(agent.moves, state, action, aggregate, step))

    def reward(
        self, agent: Any, state: Array, action: Array, aggregate: Float[Array, " X"], step: Array
    ) -> Float[Array, ""]:
        """See `PopulationGame.reward`."""
        return self._law(agent.pays, state, action, aggregate, step)


class LawForm(NamedTuple):
    """How laws depend on the agents' parameters, and whether on the step."""

    features: Any
    time_dependent: bool


class ExploringPolicy(Policy):
    """`policy`, but a share of actions is drawn uniformly."""

    policy: Policy
    share: Float[Array, ""]

    def probabilities(
        self, observation: Any, agent_index: Int[Array, ""], step: Int[Array, ""]
    ) -> Float[Array, " A"]:
        """See `Policy.probabilities`."""
        probs = self.policy.probabilities(observation, agent_index, step)
        return (1 - self.share) * probs + self.share / probs.shape[-1]


def check_can_be_estimated(game: DynamicGame) -> None:
    """Raise `ValueError` unless the laws of the game's agents can be read off its play."""
    states_for_tables(game)
    if limits_actions(game) or (isinstance(game, OutsideGame) and game.form.limited):
        raise ValueError(
            f"method='estimated' needs agents that have all actions at all times; {named(game)} "
            "limits them: use 'learned'"
        )


def play_exploring(
    game: DynamicGame, policy: Policy, key: PRNGKeyArray, num_trajectories: int
) -> list[Trajectories]:
    """Play by the policy, and by it with more and more exploration; a third of the plays each."""
    keys, parts = jax.random.split(key, len(_EXPLORATION)), []
    for k, (share, own) in enumerate(zip(_EXPLORATION, keys, strict=True)):
        count = (num_trajectories + k) // len(_EXPLORATION)
        who = policy if share == 0 else _exploring(policy, share)
        played = simulate(game, who, key=own, num_trajectories=count)
        alive = getattr(played, "alive", None)
        if alive is not None and not np.asarray(alive).all():
            raise ValueError(
                f"method='estimated' needs agents that stay to the end; some of {named(game)} "
                "leave: use 'learned'"
            )
        (states,) = jax.tree.leaves(played.states)
        parts.append(Trajectories(np.asarray(states), played.actions, played.rewards))
    return parts


def _exploring(policy: Policy, share: float) -> Policy:
    tables = as_tables(policy)
    if isinstance(tables, TabularPolicy):  # looked up without JAX in a simulator outside it
        probs = (1 - share) * np.asarray(tables.probs) + share / tables.probs.shape[-1]
        return TabularPolicy.grouped(probs.astype(np.float32), tables.groups)
    return ExploringPolicy(policy, jnp.asarray(share, jnp.float32))


def choose_form(game: DynamicGame, parts: list[Trajectories]) -> LawForm:
    """The simplest form of laws that predicts every other play well, from those between.

    By squared errors of where agents go and of what they earn, the latter in units of its variance:
    little more than the best form's.
    """
    told_apart = game.agent_features is not None
    features = ("linear", "quadratic") if told_apart else (_all_alike,)
    forms = [LawForm(f, t) for t in (False, True) for f in features]
    fitted, held = ([Trajectories(*(x[k::2] for x in p)) for p in parts] for k in range(2))
    errors = [_error(estimate_game(game, fitted, form), _joined(held)) for form in forms]
    good = np.array(errors) <= (1 + _MARGIN) * min(errors) + _MARGIN**2
    return forms[int(np.argmax(good))]


def _error(game: EstimatedGame, play: Trajectories) -> float:
    moves, pays = np.asarray(_squared_errors(game, *(jnp.asarray(x) for x in play)))
    return float(moves + pays / max(float(np.var(play.rewards)), 1e-12))


@eqx.filter_jit
def _squared_errors(
    game: EstimatedGame, states: Array, actions: Array, rewards: Array
) -> Float[Array, " 2"]:
    """Mean squared errors of predicted next states and rewards."""
    steps = jnp.arange(game.horizon, dtype=jnp.int32)

    def of_one_play(play: tuple[Array, Array, Array]) -> Array:
        states, actions, rewards = play
        moves, pays = jax.vmap(game.joint_law)(states, actions, steps)
        went = jax.nn.one_hot(states[1:], game.num_states)
        off = ((moves[:-1] - went) ** 2).sum(-1)
        return jnp.stack([off.mean(), ((pays - rewards) ** 2).mean()])

    play = (states.astype(jnp.int32), actions.astype(jnp.int32), rewards.astype(jnp.float32))
    return jax.lax.map(of_one_play, play).mean(0)


def _joined(parts: list[Trajectories]) -> Trajectories:
    return Trajectories(*(np.concatenate(x) for x in zip(*parts, strict=True)))


def estimate_game(game: DynamicGame, parts: list[Trajectories], form: LawForm) -> EstimatedGame:
    """The game that these plays show.

    Raises:
        ValueError: there are too many numbers in its laws, or a cell that was never visited.
    """
    num_states = states_for_tables(game)
    pairs = num_states * game.num_actions
    size = game.num_agents * pairs * pairs * num_states * (game.horizon**form.time_dependent)
    if size > _MOST_NUMBERS:
        raise ValueError(
            f"method='estimated' is for smaller games: N S^3 A^2 (times H) must be at most "
            f"{_MOST_NUMBERS}, not {size}: use 'learned'"
        )
    played = _joined(parts)
    mfg = game_from_play(game, played, features=form.features, time_dependent=form.time_dependent)
    moves, pays = (
        np.moveaxis(np.asarray(law.coefficients), 2, 0)
        for law in (mfg.transition_law, mfg.reward_law)
    )
    law = mfg.transition_law
    starts = _starts(np.asarray(played.states[:, 0]), num_states)
    return EstimatedGame(game, moves, pays, law.centre, law.directions, starts)


def _all_alike(agents: Any) -> np.ndarray:
    """One law for all, where nothing tells agents apart."""
    count = getattr(agents, "num_agents", None)
    return np.ones((count or len(jax.tree.leaves(agents)[0]), 1))


def _starts(states: Int[np.ndarray, "M N"], num_states: int) -> Float[np.ndarray, "N S"]:
    """Where each agent begins: its own frequencies, drawn to everybody's as far as chance goes.

    The weight of its own (James and Stein) is 1 where agents differ by more than M plays explain.
    """
    count = len(states)
    own = np.stack([(states == s).mean(0) for s in range(num_states)], 1)
    everybody = own.mean(0)
    chance = (own * (1 - own)).sum(1).mean() / max(count - 1, 1)
    apart = ((own - everybody) ** 2).sum(1).mean()
    weight = max(0.0, 1 - chance / apart) if apart > 0 else 0.0
    return everybody + weight * (own - everybody)


def resampled(
    parts: list[Trajectories], key: PRNGKeyArray, count: int
) -> Iterator[list[Trajectories]]:
    """Bootstrap: as many trajectories of each part, drawn with replacement."""
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
    for _ in range(count):
        drawn = [rng.integers(len(part.states), size=len(part.states)) for part in parts]
        yield [
            Trajectories(*(np.asarray(x)[index] for x in part))
            for part, index in zip(parts, drawn, strict=True)
        ]
