"""The recursions behind mean-field values (Defs. 5 and 9): the flow forward, values backward.

Plain JAX in the precision of their arguments, with the step axis first, as the scans need it:
flows, policies and Q are [H,G,S,A], transitions [H,G,S,A,S], values [H,G,S].
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from crowdnash.mean_field.game import MeanFieldGame, grouped_laws, legal_by_step
from crowdnash.tuning import tuning


class Population(NamedTuple):
    """A flow mu [H,G,S,A] and the laws along it: P [H,G,S,A,S], R [H,G,S,A]."""

    flow: Float[Array, "H G S A"]
    transition: Float[Array, "H G S A S"]
    reward: Float[Array, "H G S A"]


def moved(mu: Float[Array, "G S A"], moves: Float[Array, "G S A S"]) -> Float[Array, "G S"]:
    """Shares of the next states: sum_{s,a} mu(s,a) P(.|s,a)."""
    if moves.size > tuning().fused_entries:
        return jnp.einsum("gsa,gsat->gt", mu, moves)
    return (mu[..., None] * moves).sum((1, 2))


def looking_ahead(
    moves: Float[Array, "G S A S"], values: Float[Array, "G S"]
) -> Float[Array, "G S A"]:
    """sum_{s'} P(s'|s,a) V(s')."""
    if moves.size > tuning().fused_entries:
        return jnp.einsum("gsat,gt->gsa", moves, values)
    return (moves * values[:, None, None]).sum(-1)


def population_under(mfg: MeanFieldGame, probs: Float[Array, "H G S A"]) -> Population:
    """Lambda(pi): mu_0 = rho0 pi_0, mu_{h+1} = Gamma(mu_h, pi_{h+1}), with the laws on the way."""

    def forward(states: Array, now: tuple) -> tuple[Array, Population]:
        policy, step = now
        mu = states[..., None] * policy
        moves, pays = grouped_laws(mfg, mu, step)
        return moved(mu, moves), Population(mu, moves, pays)

    initial = jnp.asarray(mfg.initial_distribution, probs.dtype)
    start = jnp.broadcast_to(initial, probs.shape[1:3])
    steps = jnp.arange(mfg.horizon, dtype=jnp.int32)
    _, population = jax.lax.scan(forward, start, (probs, steps))
    return population


def laws_along(mfg: MeanFieldGame, flow: Float[Array, "H G S A"]) -> Population:
    """The laws along a flow, which need not be any policy's."""
    steps = jnp.arange(mfg.horizon, dtype=jnp.int32)
    moves, pays = jax.lax.map(lambda now: grouped_laws(mfg, *now), (flow, steps))
    return Population(flow, moves, pays)


def occupancy(
    mfg: MeanFieldGame, population: Population, probs: Float[Array, "H G S A"]
) -> Float[Array, "H G S A"]:
    """Where one agent that plays `probs` is, [H,G,S,A], while the population is frozen."""

    def forward(states: Array, now: tuple) -> tuple[Array, Array]:
        policy, moves = now
        own = states[..., None] * policy
        return moved(own, moves), own

    initial = jnp.asarray(mfg.initial_distribution, probs.dtype)
    start = jnp.broadcast_to(initial, probs.shape[1:3])
    return jax.lax.scan(forward, start, (probs, population.transition))[1]


def entropy(probs: Float[Array, "*rest A"]) -> Float[Array, "*rest"]:
    """H(u) = -sum u log u over actions, with finite gradients where u = 0."""
    positive = probs > 0
    logs = jnp.log(jnp.where(positive, probs, 1.0))
    return -jnp.where(positive, probs * logs, 0.0).sum(-1)


def q_values_of(
    population: Population, probs: Float[Array, "H G S A"], temperature: float | Array
) -> Float[Array, "H G S A"]:
    """Q^tau of Def. 9: rewards to come, and tau times the entropies of pi_h, .., pi_{H-1}."""

    def backward(ahead: Array, now: tuple) -> tuple[Array, Array]:
        policy, moves, pays, bonus = now
        return _backed_up(ahead, policy, moves, pays + bonus[..., None])

    zero = jnp.zeros(probs.shape[1:3], probs.dtype)
    over = (probs, population.transition, population.reward, temperature * entropy(probs))
    return jax.lax.scan(backward, zero, over, reverse=True)[1]


def own_q_values(
    mfg: MeanFieldGame,
    probs: Float[Array, "H G S A"],
    bonus: Float[Array, "H G S"] | None,
) -> Float[Array, "H G S A"]:
    """Q under Lambda(pi) itself, what a solver asks for again and again; `bonus` adds tau H(pi).

    Laws that are cheap are evaluated a second time on the way back: storing P takes longer.
    """
    steps = jnp.arange(mfg.horizon, dtype=jnp.int32)
    initial = jnp.asarray(mfg.initial_distribution, probs.dtype)
    start = jnp.broadcast_to(initial, probs.shape[1:3])

    def forward(states: Array, now: tuple) -> tuple[Array, Array]:
        policy, step = now
        mu = states[..., None] * policy
        return moved(mu, grouped_laws(mfg, mu, step)[0]), mu

    def backward(ahead: Array, now: tuple) -> tuple[Array, Array]:
        policy, laws, step, more = now
        moves, pays = grouped_laws(mfg, laws, step) if mfg.laws_are_cheap else laws
        return _backed_up(ahead, policy, moves, pays if more is None else pays + more[..., None])

    if mfg.laws_are_cheap:
        _, laws = jax.lax.scan(forward, start, (probs, steps))
    else:
        laws = population_under(mfg, probs)[1:]
    over = (probs, laws, steps, bonus)
    return jax.lax.scan(backward, jnp.zeros_like(start), over, reverse=True)[1]


def _backed_up(ahead: Array, policy: Array, moves: Array, pays: Array) -> tuple[Array, Array]:
    action_values = pays + looking_ahead(moves, ahead)
    return (policy * action_values).sum(-1), action_values


def optimal_q_values(mfg: MeanFieldGame, population: Population) -> Float[Array, "H G S A"]:
    """Q of the best response to a frozen population; -inf for illegal actions."""

    def backward(ahead: Array, now: tuple) -> tuple[Array, Array]:
        moves, pays = now
        action_values = pays + looking_ahead(moves, ahead)
        return action_values.max(-1), action_values

    zero = jnp.zeros(population.reward.shape[1:3], population.reward.dtype)
    reward, legal = population.reward, legal_by_step(mfg)
    if legal is not None:
        reward = jnp.where(jnp.asarray(legal), reward, -jnp.inf)
    over = (population.transition, reward)
    return jax.lax.scan(backward, zero, over, reverse=True)[1]


def greedy(action_values: Float[Array, "H G S A"]) -> Float[Array, "H G S A"]:
    """The deterministic policy that takes the best action, the first one among equals."""
    best = action_values.argmax(-1)
    return jax.nn.one_hot(best, action_values.shape[-1], dtype=action_values.dtype)


def gains(mfg: MeanFieldGame, population: Population) -> Float[Array, "2 G"]:
    """V(Lambda(pi), pi) and max over pi' of V(Lambda(pi), pi') for each population, stacked.

    `population` must be that under pi: its flow is then also where one agent that plays pi is.
    """
    own = (population.flow * population.reward).sum((0, 2, 3))
    initial = jnp.asarray(mfg.initial_distribution, population.flow.dtype)
    first = optimal_q_values(mfg, population)[0].max(-1)
    best = first @ initial if initial.ndim == 1 else (first * initial).sum(-1)
    return jnp.stack([own, best])


def largest_gain(mfg: MeanFieldGame, probs: Float[Array, "H G S A"]) -> Float[Array, ""]:
    """Mean-field exploitability (Def. 5), the largest over populations."""
    own, best = gains(mfg, population_under(mfg, probs))
    return (best - own).max()
