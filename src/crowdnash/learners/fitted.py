"""Fitted evaluation: one backward sweep over an epoch's visit statistics, instead of Algorithm 1.

For h = H-1 .. 0, with the targets of group or agent g summed over its visits of x = (s,a),

    y_g(x) = R_g(x) + sum_s' moves_g(x, s') V_g(s'),     V_g(s) = sum_a pi_g Q_g(s,a) + tau H(pi_g),

Q_h is what fits y / visits best, weighted by the visits. Next states are worth what the policy
itself expects there, not what the sampled action brought. This is where Algorithm 1 would end if
its data were replayed for ever, without a step-size rule; adding a constant to all rewards adds a
constant to Q at every step, because nothing is pulled towards 0:

- `fit_tables`: Q = y / visits; a pair that nobody of the group visited takes the group's value of
  the state plus what the action was last worth to it beyond that.
- `fit_features`: Q_i = phi_i . W, a weighted regression on functions phi of the agents' parameters.
- `fit_mixed`: the regression plus each agent's own residual, shrunk by empirical Bayes.

Mirror descent averages noise over epochs by itself; it needs Q unbiased, not of low variance. So
what depends on the crowd is always of this epoch's data. Only differences between agents are
remembered.

Axes: G groups or agents, H steps, S states, A actions, X = S*A pairs, d features.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from crowdnash.simulation.devices import ALONE, Devices
from crowdnash.simulation.statistics import VisitStatistics

RIDGE = 4.0
"""Visits that pull the slopes of a regression to 0; `_LEVEL_RIDGE` pull its intercept.

Measured on A-SIS: 1 leaves a third more to gain where five of eight parameters mean nothing, 20
leaves more where all mean something."""

_LEVEL_RIDGE = 0.3
_STATE_RIDGE = 1e-3
_TINY = 1e-9
_ENOUGH_INNOVATIONS = 10.0


class ResidualMemory(eqx.Module):
    """How agents were seen to differ from the regression, forgotten at `DECAY` an epoch.

    Attributes:
        sums: residuals of targets, summed over visits.
        visits: those visits.
        noise: squared innovations, as estimates of the variance of one visit's target.
        noise_count: how many.
    """

    sums: Float[Array, "*H X N"]
    visits: Float[Array, "*H X N"]
    noise: Float[Array, "*H X"]
    noise_count: Float[Array, "*H X"]

    @classmethod
    def empty(cls, horizon: int, num_pairs: int, num_agents: int) -> "ResidualMemory":
        """Nothing seen."""
        by_agent = jnp.zeros((horizon, num_pairs, num_agents), jnp.float32)
        by_pair = jnp.zeros((horizon, num_pairs), jnp.float32)
        return cls(by_agent, by_agent, by_pair, by_pair)


ADVANTAGE_DECAY = 0.98
"""Of the remembered advantage of a pair that is not visited, an epoch."""

DECAY = 0.95
"""Of remembered residuals, an epoch: about twenty epochs count."""


class Visited(NamedTuple):
    """One step's data: visits and summed targets, [X,G]."""

    visits: Float[Array, "X G"]
    targets: Float[Array, "X G"]

    def by_state(self, num_actions: int) -> "Visited":
        """Summed over actions, [S,G]."""
        return Visited(*(x.reshape(-1, num_actions, x.shape[-1]).sum(1) for x in self))


Fit = Callable[[Visited, Any], tuple[Float[Array, "X G"], Any]]
"""From one step's data, and what the caller keeps for that step, to Q and what comes out."""


def sweep(
    statistics: VisitStatistics,
    probs: Float[Array, "G H S A"],
    temperature: Float[Array, ""],
    fit: Fit,
    kept: Any,
) -> tuple[Float[Array, "G H S A"], Any]:
    """Fit Q step by step, from the last to the first; inside `jit`.

    Args:
        statistics: of all trajectories, summed; `moves` to states, [X,S,H,G].
        probs: the policy that was played.
        temperature: tau, in reward units.
        fit: what fits one step.
        kept: what `fit` keeps from epoch to epoch, leading axis H.

    Returns:
        Q, and what `fit` returned beside it, leading axis H.
    """
    num_groups, _, num_states, num_actions = probs.shape
    by_step = jnp.moveaxis(probs, (1, 0), (0, 3))  # [H,S,A,G]
    entropy = -jax.scipy.special.xlogy(by_step, by_step).sum(2)

    def step(ahead: Array, now: tuple) -> tuple[Array, tuple[Array, Any]]:
        visits, rewards, moves, pi, bonus, own = now
        targets = rewards + jnp.einsum("xsg,sg->xg", moves, ahead)
        values, after = fit(Visited(visits, targets), own)
        values = values.reshape(num_states, num_actions, num_groups)
        return (pi * values).sum(1) + temperature * bonus, (values, after)

    by_time = (
        jnp.moveaxis(statistics.visits, 1, 0),
        jnp.moveaxis(statistics.rewards, 1, 0),
        jnp.moveaxis(statistics.moves, 2, 0),
    )
    start = jnp.zeros((num_states, num_groups), jnp.float32)
    _, (values, after) = jax.lax.scan(step, start, (*by_time, by_step, entropy, kept), reverse=True)
    return jnp.moveaxis(values, 3, 0), after


def fit_tables(num_actions: int, devices: Devices = ALONE) -> Fit:
    """Every group's own mean, with one remembered visit.

    What is remembered is the advantage Q(s,a) - V(s) that the group last saw, [X,G], forgotten
    slowly. It stands in where the pair was not visited; there, 0 would say that the action is as
    good as the others, and an action that was learned to be bad would stay at the small
    probability at which it is no longer tried in every epoch.
    """

    def fit(seen: Visited, kept: Array) -> tuple[Array, Array]:
        states = seen.by_state(num_actions)
        crowd = _crowd(states, devices)
        value = jnp.repeat(_mean(states, crowd), num_actions, 0)
        values = (seen.targets + value + kept) / (seen.visits + 1)
        return values, jnp.where(seen.visits > 0, values - value, ADVANTAGE_DECAY * kept)

    return fit


def fit_features(features: Float[Array, "N d"], num_actions: int, devices: Devices = ALONE) -> Fit:
    """A regression of targets on the agents' features; its weights come out beside Q."""

    def fit(seen: Visited, kept: None) -> tuple[Array, Array]:
        weights = regression(seen, features, num_actions, devices)
        return weights @ features.T, weights

    return fit


def regression(
    seen: Visited, features: Float[Array, "N d"], num_actions: int, devices: Devices = ALONE
) -> Float[Array, "X d"]:
    """Weights W of Q_i(x) = phi_i . W(x), least squares weighted by visits; phi_i begins with 1.

    First the states' values are fitted, from the visits of all their actions, then what each
    action differs from that. Both are ridge regressions, so that an action that few took is
    worth about as much as its state, whatever constant the rewards hold. Where agents' tables lie
    on several `devices`, their normal equations are summed.
    """
    return moments(seen, features, devices).weights(num_actions)


def fit_mixed(features: Float[Array, "N d"], num_actions: int, devices: Devices = ALONE) -> Fit:
    """The regression, plus each agent's remembered residual m_i, shrunk.

    Q_i = phi_i . W + B_i m_i with B_i = c_i s_b / (c_i s_b + s_w): c_i the remembered visits, s_b
    the variance between agents, s_w that of one visit's target. s_w is read off innovations, the
    squared distance of this epoch's residuals from the remembered ones: they hold what residuals
    vary by for whatever reason, sampling or an agent's own changing future. (The variance within
    one epoch misses the second part, and pairs visited once: agents then keep residuals of long
    ago, and learning breaks down.)
    """

    def fit(seen: Visited, kept: ResidualMemory) -> tuple[Array, ResidualMemory]:
        crowd = regression(seen, features, num_actions, devices) @ features.T
        residual = seen.targets - seen.visits * crowd
        memory = _remember(kept, seen.visits, residual, devices)
        own = memory.sums / jnp.maximum(memory.visits, _TINY)
        return crowd + _shrinkage(memory, own, devices) * own, memory

    return fit


def _remember(
    memory: ResidualMemory, visits: Array, residual: Array, devices: Devices
) -> ResidualMemory:
    """One step's memory, [X,N], with this epoch's residuals."""
    before = memory.sums / jnp.maximum(memory.visits, _TINY)
    known = (visits > 0) & (memory.visits > 0.5)
    # Var(ybar - m) = s_w (1 / visits + 1 / remembered visits).
    scale = jnp.maximum(visits, 1) * (1 + visits / jnp.maximum(memory.visits, _TINY))
    innovation = jnp.where(known, (residual - visits * before) ** 2 / scale, 0.0)
    noise, count = devices.sum_over_tables((innovation.sum(-1), known.sum(-1)))
    return ResidualMemory(
        DECAY * memory.sums + residual,
        DECAY * memory.visits + visits,
        DECAY * memory.noise + noise,
        DECAY * memory.noise_count + count,
    )


def _shrinkage(memory: ResidualMemory, own: Array, devices: Devices) -> Float[Array, "X N"]:
    """B [X,N]; 0 until there is enough to tell noise from difference."""
    count = memory.visits
    within = (memory.noise / jnp.maximum(memory.noise_count, _TINY))[:, None]
    terms = (count, jnp.minimum(count, 1), count * own**2, count**2)
    total, agents, square, squared_count = devices.sum_over_tables(
        tuple(x.sum(-1, keepdims=True) for x in terms)
    )
    spread = square - agents * within
    freedom = total - squared_count / jnp.maximum(total, _TINY)
    between = jnp.maximum(spread, 0) / jnp.maximum(freedom, _TINY)
    shrunk = count * between / jnp.maximum(count * between + within, _TINY)
    return jnp.where((memory.noise_count >= _ENOUGH_INNOVATIONS)[:, None], shrunk, 0.0)


class Moments(NamedTuple):
    """What a regression needs of one step's data: of K pairs or states, over all agents.

    Attributes:
        gram: sums of visits_i phi_i phi_i^T.
        right: sums of targets_i phi_i.
    """

    gram: Float[Array, "K d d"]
    right: Float[Array, "K d"]

    def crowd(self) -> Float[Array, " K"]:
        """`_crowd`: the sums over agents are here already, for phi begins with 1."""
        visits, targets = self.gram[:, 0, 0], self.right[:, 0]
        overall = targets.sum() / jnp.maximum(visits.sum(), 1)
        return jnp.where(visits > 0, targets / jnp.maximum(visits, 1), overall)

    def weights(self, num_actions: int) -> Float[Array, "K d"]:
        """W of `regression`."""
        states = self.by_state(num_actions)
        values = jnp.zeros(states.right.shape).at[:, 0].set(states.crowd())
        values = values + _ridge(states, values, _STATE_RIDGE)
        values = jnp.repeat(values, num_actions, 0)
        return values + _ridge(self, values, _LEVEL_RIDGE)

    def by_state(self, num_actions: int) -> "Moments":
        """Of states: sums over actions, without a second pass over the agents."""
        return Moments(*(x.reshape(-1, num_actions, *x.shape[1:]).sum(1) for x in self))


def moments(seen: Visited, features: Float[Array, "N d"], devices: Devices = ALONE) -> Moments:
    """What a regression on the features of these agents needs."""
    weighted = seen.visits[:, :, None] * features  # [X,N,d]
    high = jax.lax.Precision.HIGHEST
    gram = jnp.matmul(weighted.swapaxes(1, 2), features, precision=high)
    right = jnp.matmul(seen.targets, features, precision=high)
    return Moments(*devices.sum_over_tables((gram, right)))


def _ridge(seen: Moments, prior: Float[Array, "K d"], level: float) -> Float[Array, "K d"]:
    """argmin_D sum_i visits_i (mean_i - phi_i . (prior + D))^2 + |D|^2, the ridge by coordinate."""
    high = jax.lax.Precision.HIGHEST
    right = seen.right - jnp.einsum("kde,ke->kd", seen.gram, prior, precision=high)
    ridge = jnp.full(prior.shape[1], RIDGE).at[0].set(level)
    return jnp.linalg.solve(seen.gram + jnp.diag(ridge), right[..., None])[..., 0]


def _mean(seen: Visited, otherwise: Array) -> Array:
    """Targets / visits; `otherwise` where there are no visits."""
    return jnp.where(seen.visits > 0, seen.targets / jnp.maximum(seen.visits, 1), otherwise)


def _crowd(states: Visited, devices: Devices) -> Float[Array, "S 1"]:
    """The mean target of every state over all groups.

    An unvisited state is taken to be worth the mean over all states and groups.
    """
    by_state = Visited(*(x.sum(1, keepdims=True) for x in states))
    overall = (states.visits.sum(), states.targets.sum())
    by_state, (visits, targets) = devices.sum_over_tables((by_state, overall))
    return _mean(by_state, targets / jnp.maximum(visits, 1))
