"""Play of networks that learn in a simulator outside JAX: one compiled call a step.

Axes: N agents, M trajectories, B lanes, H steps, K agents that learn, F inputs, A actions.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from crowdnash.games.legal import legal_logits
from crowdnash.policies.agent_networks import evaluate, evaluate_steps
from crowdnash.policies.drawing import draw_legal
from crowdnash.simulation.neural import Learners, Play, with_identity
from crowdnash.simulation.outside import (
    Episode,
    Situation,
    play_outside,
    policy_rows,
)
from crowdnash.simulation.samplers import draw_index
from crowdnash.simulators.game import OutsideGame


def play_learners_outside(
    game: OutsideGame,
    learners: Learners,
    key: PRNGKeyArray,
    num_trajectories: int,
    dtype: str = "float32",
) -> Play:
    """`simulation.neural.play` for a simulator.

    Raises:
        SimulatorError: the simulator breaks its contract.
    """
    notes = _Notes(game, learners, num_trajectories, dtype)
    play_outside(game, notes.choose, key, num_trajectories, notes.on_step, notes.on_end)
    # Without the other agents' policy: it has no part in values.
    learners = learners._replace(others=None)
    inputs = jnp.asarray(notes.inputs)
    value, last_value = _values(learners, inputs, jnp.asarray(notes.last_inputs), dtype)
    legal = None if notes.legal is None else jnp.asarray(notes.legal)
    return Play(
        inputs,
        jnp.asarray(notes.action),
        jnp.asarray(notes.log_prob),
        value,
        jnp.asarray(notes.reward),
        last_value,
        {},
        jnp.asarray(notes.alive),
        legal,
    )


class _Notes:
    """Draws the learners' actions and keeps what an update needs, arrays [H,M,K,...]."""

    def __init__(
        self, game: OutsideGame, learners: Learners, num_trajectories: int, dtype: str
    ) -> None:
        self._learners, self._dtype = learners._replace(others=None), dtype
        agents = learners.agents
        self._agents: Any = slice(None) if agents is None else np.asarray(agents)
        self._others = None if learners.others is None else policy_rows(learners.others)
        count = game.num_agents if agents is None else len(agents)
        shape = (game.horizon, num_trajectories, count)
        width = learners.features.num_features + learners.identity.num_features
        self.inputs = np.zeros((*shape, width), np.float32)
        self.last_inputs = np.zeros((*shape[1:], width), np.float32)
        self.action, self.alive = np.zeros(shape, np.int32), np.zeros(shape, bool)
        self.log_prob, self.reward = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        self.legal = None
        if game.form.limited:
            self.legal = np.ones((*shape, game.num_actions), bool)
        self._horizon = game.horizon
        self._now: tuple[np.ndarray, np.ndarray] | None = None

    def choose(self, situation: Situation) -> Int[np.ndarray, "B N"]:
        """Actions of the learners, and of the others if they have a policy of their own."""
        mine = self._agents
        legal = None if situation.legal is None else situation.legal[:, mine]
        seen = jax.tree.map(lambda x: x[:, mine], situation.observations)
        inputs, action, log_prob = jax.device_get(
            _act(
                self._learners,
                seen,
                jnp.asarray(situation.step, jnp.int32),
                jnp.asarray(situation.numbers[:, mine]),
                None if legal is None else jnp.asarray(legal),
                self._dtype,
            )
        )
        self._now = (inputs, log_prob)
        if self._others is None:
            return action
        joint = draw_legal(self._others(situation), situation.numbers, situation.legal)
        joint[:, mine] = action
        return joint

    def on_step(self, episode: Episode) -> None:
        """Keep one step of a block of trajectories."""
        rows, step, mine = episode.rows, episode.step, self._agents
        self.alive[step, rows] = episode.alive[:, mine]
        if not episode.alive.any():
            return
        assert self._now is not None
        count = rows.stop - rows.start
        self.inputs[step, rows], self.log_prob[step, rows] = (x[:count] for x in self._now)
        self.action[step, rows] = episode.actions[:, mine]
        self.reward[step, rows] = episode.rewards[:, mine]
        if self.legal is not None and episode.legal is not None:
            self.legal[step, rows] = episode.legal[:, mine]

    def on_end(self, rows: slice, observations: PyTree) -> None:
        """Keep what is seen after the last step."""
        mine = self._agents
        seen = jax.tree.map(lambda x: np.nan_to_num(x[:, mine]), observations)
        self.last_inputs[rows] = _inputs(self._learners, seen, jnp.asarray(self._horizon))


@eqx.filter_jit
def _act(
    learners: Learners,
    seen: PyTree,
    step: Int[Array, ""],
    numbers: Float[Array, "B K"],
    legal: Bool[Array, "B K A"] | None,
    dtype: str,
) -> tuple[Array, Array, Array]:
    """Inputs [B,K,F], actions [B,K] and their log-probabilities."""
    inputs = with_identity(learners.features.of_all(seen, step), learners.identity)
    logits = evaluate(learners.networks.actor, learners.identity, inputs, dtype)
    by_action = jnp.moveaxis(jax.nn.log_softmax(legal_logits(logits, legal)), -1, 0)
    action = draw_index(jnp.exp(by_action), numbers)
    return inputs, action, jnp.take_along_axis(by_action, action[None], axis=0)[0]


@eqx.filter_jit
def _inputs(learners: Learners, seen: PyTree, step: Int[Array, ""]) -> Float[Array, "B K F"]:
    return with_identity(learners.features.of_all(seen, step), learners.identity)


@eqx.filter_jit
def _values(
    learners: Learners,
    inputs: Float[Array, "H M K F"],
    last_inputs: Float[Array, "M K F"],
    dtype: str,
) -> tuple[Float[Array, "H M K"], Float[Array, "M K"]]:
    critic, identity = learners.networks.critic, learners.identity
    value = evaluate_steps(critic, identity, inputs, dtype)[..., 0]
    return value, evaluate(critic, identity, last_inputs, dtype)[..., 0]
