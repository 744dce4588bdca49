"""Garnet: random games of any size, with heterogeneous agents, for tests and statistics."""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from crowdnash.checks import as_array, check_count, check_flag, check_key
from crowdnash.games.base import InAggregate, PopulationGame
from crowdnash.games.parameters import Heterogeneity, agent_array, distribution, draw_around
from crowdnash.games.tables import (
    perturbed_distributions,
    probability_tables,
    random_distributions,
    uniform_if_none,
)


class GarnetAgent(NamedTuple):
    """What tells agents apart: `transitions` [N,S,A,S], `rewards` [N,S,A]; the others [N]."""

    transitions: Array
    rewards: Array
    coupling: Array
    sensitivity: Array


class Garnet(PopulationGame):
    """Random game (Garnet: generic, randomly generated), affine in the others' sigma(rho^-i).

    With mu = sigma(rho^-i) [X], X = S*A, and m(s,a) = sum_x mu(x) [pull(s,a,x) is not "none"],

    P^i(.|s,a) = (1 - coupling_i m(s,a)) transitions_i[s,a]
                 + coupling_i sum_x mu(x) pull[s,a,x],
    R^i(s,a) = rewards_i[s,a] + sensitivity_i sum_x payoff[s,a,x] mu(x).

    Each of the others in pair x pulls the agent's next state towards the distribution
    pull[s,a,x], unless that row is 0 ("none"): a mixture of distributions, so valid for every mu.
    The game is kappa-sparse (Def. 8) if at most kappa rows x of pull and payoff are not 0, the
    same for both, for every (s,a). It is monotone (Def. 10, for all mu) if `pull` is None and
    the symmetric part of `payoff`, as a matrix [X,X], is negative semidefinite.

    Args:
        transitions: [N,S,A,S], distributions.
        rewards: [N,S,A], in reward per step.
        payoff: [S,A,X], in reward per step.
        sensitivity: [N] >= 0.
        pull: [S,A,X,S], or None for transitions free of the others.
        coupling: [N] in [0,1], needed with `pull` only.
        horizon: H >= 1.
        initial_distribution: [S], default uniform.

    Raises:
        ValueError: naming the argument, the rule and the value.
    """

    name: ClassVar[str] = "garnet"
    summary: ClassVar[str] = "Garnet: a random game of any size, monotone or not"
    reward_in_aggregate: ClassVar[InAggregate] = "affine"

    transitions: Float[Array, "N S A S"]
    rewards: Float[Array, "N S A"]
    coupling: Float[Array, " N"]
    sensitivity: Float[Array, " N"]
    payoff: Float[Array, "S A X"]
    pull: Float[Array, "S A X S"] | None
    initial_distribution: Float[Array, " S"]
    horizon: int = eqx.field(static=True)

    def __init__(
        self,
        transitions: Any,
        rewards: Any,
        payoff: Any,
        sensitivity: Any,
        pull: Any = None,
        coupling: Any = None,
        horizon: int = 10,
        initial_distribution: Any = None,
    ):
        shape = as_array("rewards", rewards).shape
        if len(shape) != 3 or 0 in shape:
            raise ValueError(
                f"rewards must have shape [N,S,A] with no empty axis, not {list(shape)}"
            )
        n, num_states, num_actions = shape
        pairs = (num_states, num_actions, num_states * num_actions)
        if (pull is None) != (coupling is None):
            raise ValueError("coupling and pull must be given together or not at all")
        self.transitions = probability_tables(
            "transitions", transitions, shape=(*shape, num_states)
        )
        self.rewards = agent_array("rewards", rewards, shape=shape)
        self.payoff = agent_array("payoff", payoff, shape=pairs)
        self.sensitivity = agent_array("sensitivity", sensitivity, shape=(n,), low=0.0)
        coupling = jnp.zeros(n) if coupling is None else coupling
        self.coupling = agent_array("coupling", coupling, shape=(n,), low=0.0, high=1.0)
        self.pull = None
        if pull is not None:
            rows = (*pairs, num_states)
            self.pull = probability_tables("pull", pull, shape=rows, or_zero=True)
        initial = uniform_if_none(initial_distribution, num_states)
        self.initial_distribution = distribution("initial_distribution", initial, num_states)
        self.horizon = horizon

    @classmethod
    def sample(
        cls,
        key: PRNGKeyArray,
        *,
        num_agents: int = 100,
        horizon: int = 10,
        heterogeneity: Heterogeneity = 0.1,
        num_states: int = 5,
        num_actions: int = 3,
        branching: int = 3,
        sparsity: int = 4,
        monotone: bool = False,
        coupling: float = 0.5,
        sensitivity: float = 1.0,
    ) -> "Garnet":
        """Draw a game: shared tables, and every agent's own around them.

        The shared rewards are uniform on [0,1]; transitions, and what pulls at them, are uniform
        on the simplex over the successors. Monotone: transitions are free of the others, and the
        pairs are split at random into blocks of `sparsity` whose payoff is minus a Gram matrix of
        unit vectors plus an antisymmetric matrix. Otherwise every (s,a) depends on `sparsity`
        random pairs, with payoffs uniform on [-1,1].

        Args:
            key: decides the draw.
            num_agents: number of agents N >= 2.
            horizon: number of steps H >= 1.
            heterogeneity: one number for all of transitions, rewards, coupling, sensitivity, or
                one for each (default 0.1 for a name left out). It is the half-width of the last
                three; an agent's transitions are the shared ones mixed with its own random ones
                on the same successors, its own at a weight that is uniform between 0 and this
                number.
            num_states: number of states S >= 1.
            num_actions: number of actions A >= 1.
            branching: number of successors of every state and action, 1..S.
            sparsity: kappa of Def. 8, the number of pairs (s,a) of the others that the laws of
                one state and action depend on, 1..S*A.
            monotone: whether the game is monotone (Def. 10).
            coupling: centre of how strongly the others move an agent's transitions, unless the
                game is monotone.
            sensitivity: centre of the weight of the others in an agent's reward.

        Raises:
            ValueError: a number is out of its range, or a draw would leave its parameter's
                range; the message names the argument, the rule and the value.
        """
        check_key("key", key)
        check_count("num_agents", num_agents, 2)
        check_count("horizon", horizon, 1)
        check_count("num_states", num_states, 1)
        check_count("num_actions", num_actions, 1)
        check_count("branching", branching, 1, num_states)
        check_count("sparsity", sparsity, 1, num_states * num_actions)
        check_flag("monotone", monotone)
        agents_key, own_key, shared_key, crowd_key = jax.random.split(key, 4)
        pairs = (num_states, num_actions)
        centres = {
            "transitions": 0.0,
            "rewards": (0.0,) * (num_states * num_actions),
            "coupling": coupling,
            "sensitivity": sensitivity,
        }
        drawn = draw_around(agents_key, centres, heterogeneity, num_agents)
        weight = agent_array(
            "transitions weight", abs(drawn["transitions"]), shape=(num_agents,), low=0.0, high=1.0
        )
        support_key, law_key, reward_key = jax.random.split(shared_key, 3)
        support = _random_subsets(support_key, (*pairs, num_states), branching)
        shared = random_distributions(law_key, (*pairs, num_states), support)
        rewards = jax.random.uniform(reward_key, pairs)
        if monotone:
            payoff, pull = _monotone_payoff(crowd_key, *pairs, sparsity), None
        else:
            payoff, pull = _sparse_influence(crowd_key, support, num_actions, sparsity)
        return cls(
            transitions=perturbed_distributions(own_key, shared, weight, support),
            rewards=rewards + drawn["rewards"].reshape(num_agents, *pairs),
            payoff=payoff,
            sensitivity=drawn["sensitivity"],
            pull=pull,
            coupling=None if monotone else drawn["coupling"],
            horizon=horizon,
        )

    @property
    def num_states(self) -> int:
        """S, from the tables."""
        return self.rewards.shape[1]

    @property
    def num_actions(self) -> int:
        """A, from the tables."""
        return self.rewards.shape[2]

    @property
    def transition_in_aggregate(self) -> InAggregate:
        """See `PopulationGame`; "free" if there is no `pull`, otherwise "affine"."""
        return "free" if self.pull is None else "affine"

    @property
    def agents(self) -> GarnetAgent:
        """The per-agent tables and weights."""
        return GarnetAgent(self.transitions, self.rewards, self.coupling, self.sensitivity)

    @property
    def reward_range(self) -> tuple[float, float]:
        """All others in the best or the worst pair x for it; both are met."""
        weight = self.sensitivity[:, None, None]
        low = self.rewards + weight * self.payoff.min(-1)
        return float(low.min()), float((self.rewards + weight * self.payoff.max(-1)).max())

    def transition(
        self, agent: GarnetAgent, state: Array, action: Array, aggregate: Array, step: Array
    ) -> Array:
        """See `PopulationGame.transition`; `aggregate` is sigma(rho^-i), [X]."""
        own = agent.transitions[state, action]
        if self.pull is None:
            return own
        pull = self.pull[state, action]
        # Sums of terms >= 0 alone: 1 - coupling m would round to below 0 where both are 1.
        unmoved = (aggregate * jnp.where(pull.any(-1), 1 - agent.coupling, 1.0)).sum()
        return unmoved * own + agent.coupling * (aggregate[:, None] * pull).sum(0)

    def reward(
        self, agent: GarnetAgent, state: Array, action: Array, aggregate: Array, step: Array
    ) -> Array:
        """See `PopulationGame.reward`; `aggregate` is sigma(rho^-i), [X]."""
        crowd = (self.payoff[state, action] * aggregate).sum()
        return agent.rewards[state, action] + agent.sensitivity * crowd


def _random_subsets(key: PRNGKeyArray, shape: tuple[int, ...], size: int) -> Bool[Array, "..."]:
    """Random subsets of that size of the last axis, as masks."""
    ranks = jnp.argsort(jax.random.uniform(key, shape), axis=-1)
    return ranks < size


def _sparse_influence(
    key: PRNGKeyArray, support: Bool[Array, "S A S"], num_actions: int, sparsity: int
) -> tuple[Float[Array, "S A X"], Float[Array, "S A X S"]]:
    """Payoffs and pulls of `sparsity` random pairs x at every (s,a), pulls within `support`."""
    subset_key, payoff_key, pull_key = jax.random.split(key, 3)
    num_states = support.shape[0]
    shape = (num_states, num_actions, num_states * num_actions)
    felt = _random_subsets(subset_key, shape, sparsity)
    payoff = jnp.where(felt, jax.random.uniform(payoff_key, shape, minval=-1.0), 0.0)
    rows = (*shape, num_states)
    pull = random_distributions(pull_key, rows, jnp.broadcast_to(support[:, :, None], rows))
    return payoff, jnp.where(felt[..., None], pull, 0.0)


def _monotone_payoff(
    key: PRNGKeyArray, num_states: int, num_actions: int, sparsity: int
) -> Float[Array, "S A X"]:
    """Minus a Gram matrix plus an antisymmetric one, within random blocks of `sparsity` pairs.

    The entrywise product with the blocks' mask, itself positive semidefinite, keeps it so.
    """
    block_key, vector_key, skew_key = jax.random.split(key, 3)
    num_pairs = num_states * num_actions
    block = jax.random.permutation(block_key, num_pairs) // sparsity
    vectors = jax.random.normal(vector_key, (num_pairs, sparsity))
    vectors = vectors / jnp.linalg.norm(vectors, axis=1, keepdims=True)
    skew = jax.random.uniform(skew_key, (num_pairs, num_pairs), minval=-0.5, maxval=0.5)
    payoff = jnp.where(block[:, None] == block, skew - skew.T - vectors @ vectors.T, 0.0)
    return payoff.reshape(num_states, num_actions, num_pairs)
