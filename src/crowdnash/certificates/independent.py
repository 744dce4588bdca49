"""Exact exploitability where agents move independently and rewards are affine in the crowd.

If no transition depends on the aggregate, the agents' states are independent of each other, so
the expectation of a reward that is affine in the aggregate is that reward at the expected
aggregate, whatever N is: no path has to be sampled (A-RPS is such a game). In float64.

Axes: N agents, H steps, S states, A actions, K components of the aggregate.
"""

from typing import NamedTuple, TypeGuard

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from crowdnash.certificates.enumeration import ExactValues
from crowdnash.games.base import PopulationGame, TabularGame, is_distribution
from crowdnash.games.checks import law_error
from crowdnash.games.double_precision import as_double
from crowdnash.games.legal import LegalActions
from crowdnash.games.vectorised import contribution_table, laws_of_agents
from crowdnash.policies.base import Policy


def is_exact(game: TabularGame) -> TypeGuard[PopulationGame]:
    """Whether the game declares what this module needs."""
    return (
        isinstance(game, PopulationGame)
        and game.transition_in_aggregate == "free"
        and game.reward_in_aggregate in ("free", "affine")
    )


def independent_values(game: PopulationGame, policy: Policy) -> ExactValues:
    """J^i and best-response values of all agents under `policy`, exactly, in float64.

    Raises:
        GameError: The game pays a NaN or a transition is not a distribution.
    """
    with jax.enable_x64(True):
        own_game, own_policy = as_double((game, policy))
        legal = LegalActions.of(game)
        may = None if legal is None else legal.tables[legal.kinds]
        value, best, faults = jax.device_get(_values(own_game, own_policy, may))
    wrong = faults.place >= 0
    if wrong.any():
        step = int(np.argmax(wrong))
        place = np.unravel_index(
            faults.place[step], (game.num_agents, game.num_states, game.num_actions)
        )
        agent, state, action = (int(k) for k in place)
        probs, reward = faults.transition[step], float(faults.reward[step])
        raise law_error(game, agent, step, state, action, probs, reward)
    return ExactValues(np.asarray(value), np.asarray(best))


class _Faults(NamedTuple):
    """The first place in [N,S,A] of each step where a law is wrong (else -1), and the law there."""

    place: Int[Array, " H"]
    transition: Float[Array, "H S"]
    reward: Float[Array, " H"]


@eqx.filter_jit
def _values(
    game: PopulationGame, policy: Policy, legal: Bool[Array, "N H S A"] | None
) -> tuple[Array, Array, _Faults]:
    n, num_states = game.num_agents, game.num_states
    index = jnp.arange(n, dtype=jnp.int32)
    states = jnp.arange(num_states, dtype=jnp.int32)
    table = contribution_table(game, game.agents).astype(jnp.float64)
    table = table.reshape(n, num_states, game.num_actions, -1)
    nowhere = jnp.zeros((n, table.shape[-1]), jnp.float64)

    def acts(step: Int[Array, ""]) -> Array:  # [N,S,A]
        over_states = jax.vmap(policy.probabilities, in_axes=(0, None, None))
        probs = jax.vmap(over_states, in_axes=(None, 0, None))(states, index, step)
        return probs / probs.sum(-1, keepdims=True)  # float32 rounding, at most 1e-5

    def moves(step: Int[Array, ""]) -> Array:  # [N,S,A,S]
        values = laws_of_agents(game, "transition", game.agents, nowhere, step)
        return values.astype(jnp.float64)

    def forward(marginal: Array, step: Array) -> tuple[Array, Array]:
        together = marginal[..., None] * acts(step)  # [N,S,A]
        own = jnp.einsum("nsa,nsak->nk", together, table)
        after = jnp.einsum("nsa,nsat->nt", together, moves(step))
        return after, (own.sum(0) - own) / (n - 1)

    def backward(values: tuple, now: tuple) -> tuple[tuple, _Faults]:
        aggregates, step = now
        paid = laws_of_agents(game, "reward", game.agents, aggregates, step).astype(jnp.float64)
        ahead = moves(step)
        wrong = ~(is_distribution(ahead) & jnp.isfinite(paid))
        place = jnp.argmax(wrong)
        fault = _Faults(
            jnp.where(wrong.any(), place, -1),
            ahead.reshape(-1, num_states)[place],
            paid.reshape(-1)[place],
        )
        own, best = (paid + jnp.einsum("nsat,nt->nsa", ahead, v) for v in values)
        if legal is not None:
            best = jnp.where(legal[:, step], best, -jnp.inf)
        return ((acts(step) * own).sum(-1), best.max(-1)), fault

    steps = jnp.arange(game.horizon, dtype=jnp.int32)
    initial = game.initial_distribution / game.initial_distribution.sum(-1, keepdims=True)
    start = jnp.broadcast_to(initial, (n, num_states))
    _, aggregates = jax.lax.scan(forward, start, steps)
    zero = jnp.zeros((n, num_states), jnp.float64)
    (own, best), faults = jax.lax.scan(backward, (zero, zero), (aggregates, steps), reverse=True)
    if initial.ndim == 2:
        return (own * initial).sum(1), (best * initial).sum(1), faults
    return own @ initial, best @ initial, faults
