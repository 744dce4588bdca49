"""A small float64 mean-field evaluator in NumPy (Defs. 4 and 5) for identical agents.

The laws are the library game's own `transition` and `reward`, read at the aggregate mu; all else
is written out here. Axes: H steps, S states, A actions.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np


@dataclass(frozen=True)
class MeanFieldReference:
    """Flow mu [H,S,A] of a policy pi [H,S,A], and the laws P [H,S,A,S], R [H,S,A] along it."""

    flow: np.ndarray
    policy: np.ndarray
    transition: np.ndarray
    reward: np.ndarray

    @property
    def value(self) -> float:
        """V(Lambda(pi), pi)."""
        return float(sum((m * r).sum() for m, r in zip(self.flow, self.reward, strict=True)))

    @property
    def best_response_value(self) -> float:
        """max over pi' of V(Lambda(pi), pi')."""
        ahead = np.zeros(self.flow.shape[1])
        for move, pay in zip(self.transition[::-1], self.reward[::-1], strict=True):
            ahead = (pay + move @ ahead).max(-1)
        return float(self.flow[0].sum(-1) @ ahead)

    @property
    def exploitability(self) -> float:
        """E(pi) (Def. 5)."""
        return self.best_response_value - self.value


def mean_field_reference(game, centre: dict[str, float], policy: np.ndarray) -> MeanFieldReference:
    """Evaluate `policy` [H,S,A] where everyone has the parameters `centre`, in float64.

    `game` supplies the laws and the record type of an agent; its own float32 parameters are not
    used, so that 0.81 means 0.81.
    """
    policy = np.asarray(policy, np.float64)
    horizon, num_states = policy.shape[:2]
    mu = np.full(num_states, 1 / num_states)[:, None] * policy[0]  # rho0 is uniform
    flow, moves, pays = [], [], []
    for h in range(horizon):
        move, pay = laws(game, centre, mu, h)
        flow.append(mu)
        moves.append(move)
        pays.append(pay)
        if h + 1 < horizon:
            mu = np.einsum("sa,sat->t", mu, move)[:, None] * policy[h + 1]
    return MeanFieldReference(np.asarray(flow), policy, np.asarray(moves), np.asarray(pays))


def laws(game, centre: dict[str, float], mu: np.ndarray, step: int) -> tuple[np.ndarray, ...]:
    """P [S,A,S] and R [S,A] of the agent with parameters `centre` at the population mu [S,A]."""
    num_states, num_actions = mu.shape
    with jax.enable_x64(True):
        agent = type(game.agents)(**{k: jnp.asarray(v, jnp.float64) for k, v in centre.items()})
        aggregate = jnp.asarray(mu.reshape(-1), jnp.float64)
        move = np.zeros((num_states, num_actions, num_states))
        pay = np.zeros((num_states, num_actions))
        for s, a in np.ndindex(pay.shape):
            where = (jnp.asarray(s), jnp.asarray(a), aggregate, jnp.asarray(step))
            move[s, a] = np.asarray(game.transition(agent, *where))
            pay[s, a] = float(game.reward(agent, *where))
    return move, pay
