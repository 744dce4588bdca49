"""Games of N heterogeneous agents (Def. 1), from a bare simulator to a full model.

Three levels, each a special case of the one before:

- `DynamicGame`: a simulator. Enough to learn a policy and to sample its returns.
- `TabularGame`: finite states, and the law of every agent can be queried (Def. 1 in full).
- `PopulationGame`: the agents meet only through an aggregate of what the others do.

Axes: N agents, H steps, S states, A actions, K components of the aggregate.
"""

import abc
from typing import TYPE_CHECKING, Any, ClassVar, Literal, final, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from crowdnash.checks import check_choice, check_count

InAggregate = Literal["free", "affine", "nonlinear"]
"""How a law depends on the aggregate: not at all, affinely, or in any other way."""

PROBABILITY_TOLERANCE = 1e-5
"""How far the sum of a probability vector may be from 1 (float32 arithmetic)."""


def summed_exactly_as(dtype: np.dtype) -> np.dtype:
    """The type in which contributions are summed: int32 if they are bool or int."""
    return dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.dtype(jnp.int32)


class GameError(ValueError):
    """A game broke its own contract (a NaN, a transition that does not sum to 1, ...)."""


class DynamicGame(eqx.Module):
    """An N-player finite-horizon game that can be simulated (Def. 1, simulator access only).

    A concrete game supplies `num_agents`, `num_actions`, `horizon` (integers) and three methods
    that treat all agents at once. The state is any pytree; it holds the step h itself.
    """

    name: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    _in_jax: ClassVar[bool] = True
    """Whether `reset` and `step` can be compiled; False for a simulator outside JAX."""
    num_agents: eqx.AbstractVar[int]
    num_actions: eqx.AbstractVar[int]
    horizon: eqx.AbstractVar[int]
    if TYPE_CHECKING:
        num_states: int | None
        """S, for a game whose agents each observe one of 0..S-1; None unless it declares one."""
    else:

        def __getattr__(self, name: str) -> Any:
            # Not a class attribute: a field `num_states: int` would take that for its default.
            if name == "num_states":
                return None
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @abc.abstractmethod
    def reset(self, key: PRNGKeyArray) -> PyTree:
        """Draw the joint state at step 0."""

    @abc.abstractmethod
    def step(
        self, state: PyTree, actions: Int[Array, " N"], key: PRNGKeyArray
    ) -> tuple[PyTree, Float[Array, " N"]]:
        """Let all agents act; return the next joint state and the rewards of this step, [N]."""

    @abc.abstractmethod
    def observe(self, state: PyTree) -> PyTree:
        """What each agent sees of the joint state: a pytree of arrays with leading axis N."""

    @property
    def agent_features(self) -> Float[Array, "N d"] | None:
        """What tells one agent from another, [N,d], for grouping; None if there is nothing."""
        return None

    def statistics(self, state: PyTree) -> dict[str, Float[Array, ""]]:
        """Figures of a joint state worth watching while learning, by name; none by default.

        Names must not be those of `PPOMetrics`.
        """
        return {}

    def snapshot(self, state: PyTree) -> dict[str, Array]:
        """Arrays of a joint state that pictures of an episode need, by name; none by default."""
        return {}


class TabularState(eqx.Module):
    """Joint state of a `TabularGame`: `states` [N] in 0..S-1 and the step h, a scalar."""

    states: Int[Array, " N"]
    step: Int[Array, ""]


class TabularGame(DynamicGame):
    """A game with states 0..S-1 and actions 0..A-1 whose laws can be queried (Def. 1).

    A concrete game supplies `num_agents`, `num_states`, `num_actions`, `horizon`,
    `initial_distribution`, [S] or one for each agent, [N,S], and `law`.

    It may also define `legal(agent, state, step) -> [A]`, bool: the actions that an agent has in a
    state, at least one; `agent` as in its laws. No other action is ever played, by a policy or by
    an agent that deviates, and what the laws say of it means nothing (but must be a law).
    """

    legal: ClassVar[Any] = None
    num_states: eqx.AbstractVar[int]
    initial_distribution: eqx.AbstractVar[Float[Array, "*N S"]]

    @abc.abstractmethod
    def law(
        self,
        agent: Int[Array, ""],
        state: Int[Array, ""],
        action: Int[Array, ""],
        other_states: Int[Array, " others"],
        other_actions: Int[Array, " others"],
        step: Int[Array, ""],
    ) -> tuple[Float[Array, " S"], Float[Array, ""]]:
        """P^i(.|s,a,rho^-i) and R^i(s,a,rho^-i) of one agent at one step (Def. 1).

        Args:
            agent: the index i in 0..N-1.
            state: its own.
            action: its own.
            other_states: those of the agents j != i in ascending order of j.
            other_actions: likewise.
            step: h in 0..H-1.

        Returns:
            Next-state probabilities [S], which sum to 1, and the reward.
        """

    def __check_init__(self):
        check_initial(self)

    @property
    def reward_range(self) -> tuple[float, float] | None:
        """(lowest, highest) reward that the game may pay, or None if it declares none."""
        return None

    @property
    def state_names(self) -> tuple[str, ...]:
        """One short name a state, for tables and pictures."""
        return tuple(str(s) for s in range(self.num_states))

    @property
    def action_names(self) -> tuple[str, ...]:
        """One short name an action, for tables and pictures."""
        return tuple(str(a) for a in range(self.num_actions))

    @final
    def reset(self, key: PRNGKeyArray) -> TabularState:
        """Draw every agent's state from `initial_distribution`, independently."""
        logits = jnp.log(self.initial_distribution)
        states = jax.random.categorical(key, logits, shape=(self.num_agents,))
        return TabularState(states.astype(jnp.int32), jnp.asarray(0, jnp.int32))

    @final
    def step(
        self, state: TabularState, actions: Int[Array, " N"], key: PRNGKeyArray
    ) -> tuple[TabularState, Float[Array, " N"]]:
        """Pay all rewards and move all agents, independently given the joint state-action.

        An agent is paid NaN if its action is none of 0..A-1 or its transition no distribution.
        """
        probabilities, rewards = self.joint_law(state.states, actions, state.step)
        states = jax.random.categorical(key, jnp.log(probabilities), axis=-1)
        right = is_distribution(probabilities) & (actions >= 0) & (actions < self.num_actions)
        rewards = jnp.where(right, rewards, jnp.nan)
        return TabularState(states.astype(jnp.int32), state.step + 1), rewards

    @final
    def observe(self, state: TabularState) -> Int[Array, " N"]:
        """Each agent sees its own state and nothing else (Def. 1)."""
        return state.states

    def joint_law(
        self, states: Int[Array, " N"], actions: Int[Array, " N"], step: Int[Array, ""]
    ) -> tuple[Float[Array, "N S"], Float[Array, " N"]]:
        """All agents' next-state probabilities [N,S] and rewards [N] at one joint state-action."""
        n = self.num_agents
        index = np.arange(n - 1)[None, :] + (np.arange(n - 1)[None, :] >= np.arange(n)[:, None])
        others = jnp.asarray(index, jnp.int32)

        def one(agent: Array) -> tuple[Array, Array]:
            rest = others[agent]
            return self.law(agent, states[agent], actions[agent], states[rest], actions[rest], step)

        return jax.vmap(one)(jnp.arange(n, dtype=jnp.int32))


class PopulationGame(TabularGame):
    """A game in which agents meet only through the mean contribution of the others.

    Def. 1 with laws that depend on rho^-i through sigma(rho^-i), or another mean, alone.

    A concrete game supplies `agents` (a record whose arrays have leading axis N), `num_states`,
    `num_actions`, `horizon`, `initial_distribution` [S] or [N,S], and writes for *one* agent

    - `transition(agent, state, action, aggregate, step) -> [S]`,
    - `reward(agent, state, action, aggregate, step) -> scalar`,
    - optionally `contribution(agent, state, action) -> [K]` (default: one-hot of (s,a), so that
      the aggregate is sigma(rho^-i), the others' empirical distribution over S x A),
    - optionally `legal(agent, state, step) -> [A]`, see `TabularGame`.

    `aggregate` [K] is the mean of the contributions of the *other* N-1 agents; `agent` is
    `agents` with its leading axis removed; `state`, `action`, `step` are int32 scalars.

    Declare `transition_in_aggregate` and `reward_in_aggregate` if they are "free" of the
    aggregate or "affine" in it: that decides which results are exact. The conformance check
    `crowdnash.check_game` tests the declarations.
    """

    transition_in_aggregate: ClassVar[InAggregate] = "nonlinear"
    reward_in_aggregate: ClassVar[InAggregate] = "nonlinear"
    agents: eqx.AbstractVar[PyTree]

    @abc.abstractmethod
    def transition(
        self, agent: Any, state: Array, action: Array, aggregate: Float[Array, " K"], step: Array
    ) -> Float[Array, " S"]:
        """Next-state probabilities [S] of one agent; they must sum to 1 within 1e-5."""

    @abc.abstractmethod
    def reward(
        self, agent: Any, state: Array, action: Array, aggregate: Float[Array, " K"], step: Array
    ) -> Float[Array, ""]:
        """Reward of one agent for one step, in the game's own units."""

    def contribution(self, agent: Any, state: Array, action: Array) -> Array:
        """What one agent adds to the aggregate, [K]; bool and int are summed exactly."""
        pairs = jnp.arange(self.num_states * self.num_actions, dtype=jnp.int32)
        return pairs == state * self.num_actions + action

    def __check_init__(self):
        shapes = [np.shape(leaf) for leaf in jax.tree_util.tree_leaves(self.agents)]
        if not shapes or any(shape[:1] != (*shapes[0], None)[:1] for shape in shapes):
            raise ValueError(
                "agents must hold arrays with one leading axis N, not of shapes "
                f"{[list(shape) for shape in shapes]}"
            )
        check_count("num_agents", self.num_agents, 2)
        check_count("horizon", self.horizon, 1)
        check_count("num_states", self.num_states, 1)
        check_count("num_actions", self.num_actions, 1)
        for law in ("transition_in_aggregate", "reward_in_aggregate"):
            check_choice(f"{type(self).__name__}.{law}", getattr(self, law), get_args(InAggregate))

    @property
    def num_agents(self) -> int:
        """N, the leading axis of `agents`."""
        return int(jax.tree_util.tree_leaves(self.agents)[0].shape[0])

    @property
    def agent_features(self) -> Float[Array, "N d"] | None:
        """All arrays of `agents`, flattened and laid side by side."""
        n = self.num_agents
        leaves = [jnp.reshape(x, (n, -1)) for x in jax.tree_util.tree_leaves(self.agents)]
        return jnp.concatenate([x.astype(jnp.float32) for x in leaves], axis=1)

    def joint_law(
        self, states: Int[Array, " N"], actions: Int[Array, " N"], step: Int[Array, ""]
    ) -> tuple[Float[Array, "N S"], Float[Array, " N"]]:
        """As `TabularGame.joint_law`, in time and memory linear in N."""
        own = jax.vmap(self.contribution)(self.agents, states, actions)
        own = own.astype(summed_exactly_as(own.dtype))
        aggregates = (own.sum(0) - own).astype(jnp.float32) / (self.num_agents - 1)

        def one(agent: Any, state: Array, action: Array, aggregate: Array) -> tuple[Array, Array]:
            return (
                self.transition(agent, state, action, aggregate, step),
                self.reward(agent, state, action, aggregate, step),
            )

        return jax.vmap(one)(self.agents, states, actions, aggregates)

    @final
    def law(
        self,
        agent: Int[Array, ""],
        state: Int[Array, ""],
        action: Int[Array, ""],
        other_states: Int[Array, " others"],
        other_actions: Int[Array, " others"],
        step: Int[Array, ""],
    ) -> tuple[Float[Array, " S"], Float[Array, ""]]:
        """Def. 1 read off the aggregate: see `TabularGame.law`."""
        position = jnp.arange(self.num_agents - 1, dtype=jnp.int32)
        others = position + (position >= agent)
        records = jax.tree_util.tree_map(lambda x: x[others], self.agents)
        contributions = jax.vmap(self.contribution)(records, other_states, other_actions)
        total = contributions.sum(0, dtype=summed_exactly_as(contributions.dtype))
        aggregate = total.astype(jnp.float32) / (self.num_agents - 1)
        own = jax.tree_util.tree_map(lambda x: x[agent], self.agents)
        return (
            self.transition(own, state, action, aggregate, step),
            self.reward(own, state, action, aggregate, step),
        )


def check_initial(game: TabularGame) -> None:
    """Raise `ValueError` unless `initial_distribution` is over S states; not while tracing."""
    initial = game.initial_distribution
    if jnp.shape(initial) not in ((game.num_states,), (game.num_agents, game.num_states)):
        raise ValueError(
            f"initial_distribution must have shape [{game.num_states}] or "
            f"[{game.num_agents},{game.num_states}], not {list(jnp.shape(initial))}"
        )
    if not isinstance(initial, Tracer) and (wrong := wrong_start(initial)) is not None:
        rule, where = wrong
        raise ValueError(rule + (f" ({where})" if where else ""))


def wrong_start(initial: Any) -> tuple[str, str] | None:
    """The rule that an initial distribution, [S] or [N,S], breaks, and whose it is; or None."""
    rows = np.atleast_2d(np.asarray(initial))
    right = is_distribution(rows.astype(np.float64))
    if right.all():
        return None
    agent = int(np.argmin(right))
    rule = (
        "initial_distribution must be probabilities that sum to 1 within "
        f"{PROBABILITY_TOLERANCE}, not {rows[agent].tolist()}"
    )
    return rule, f"agent {agent}" if np.ndim(initial) > 1 else ""


def is_distribution(probs: Any) -> Any:
    """Whether the last axis holds probabilities that sum to 1, for all others; NumPy or JAX."""
    return (abs(probs.sum(-1) - 1) <= PROBABILITY_TOLERANCE) & (probs >= 0).all(-1)
