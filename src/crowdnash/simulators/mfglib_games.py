"""MFGLib's environments as games of N agents (0.3; Guo et al. 2023).

Axes: N agents, H steps, S states, A actions, X = S*A pairs, U different aggregates.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from crowdnash.checks import as_array, check_count
from crowdnash.games.base import InAggregate, PopulationGame
from crowdnash.simulators.contract import library

_LOOKS = 4
_SAME = 1e-6


def mfglib(environment: Any, *, num_agents: int, kinds: Any = None) -> "MFGLibGame":
    """The game of N agents whose limit is a mean-field environment of MFGLib (Guo et al. 2023).

    The others' empirical distribution over state-action pairs stands where the environment's
    population L_t does; states and actions of several dimensions are numbered row by row. What
    does not depend on L becomes a table (looked at four populations, step by step); the rest calls
    the environment, once for all different populations at a step.

    Args:
        environment: an `mfglib.env.Environment`, or several of equal T, S, A and mu0, one for each
            kind of agent.
        num_agents: N >= 2.
        kinds: [N], which environment's laws each agent has; by default the first's.

    Returns:
        A `PopulationGame` with H = T + 1, whose `agents.kind` tells agents apart.

    Raises:
        ImportError: PyTorch, which MFGLib needs, is not installed.
        ValueError: the environments differ in more than their laws, or `kinds` are none of them.
    """
    several = isinstance(environment, Sequence)
    environments = tuple(environment) if several else (environment,)
    check_count("num_agents", num_agents, 2)
    kinds = np.zeros(num_agents, int) if kinds is None else as_array("kinds", kinds, integers=True)
    if np.shape(kinds) != (num_agents,) or np.min(kinds) < 0 or np.max(kinds) >= len(environments):
        raise ValueError(
            f"kinds must be {num_agents} numbers in 0..{len(environments) - 1}, not {kinds!r}"
        )
    first = environments[0]
    for one in environments[1:]:
        same_sizes = (one.T, one.S, one.A) == (first.T, first.S, first.A)
        if not same_sizes or not np.array_equal(one.mu0, first.mu0):
            raise ValueError("environments must have equal T, S, A and mu0")
    return MFGLibGame(environments, np.asarray(kinds))


class Kind(NamedTuple):
    """Which environment's laws an agent has."""

    kind: Int[Array, " N"]


class MFGLibGame(PopulationGame):
    """See `mfglib`; `tables` of what does not depend on the population, by kind and step."""

    name = "mfglib"
    agents: Kind
    initial_distribution: Float[Array, " S"]
    transitions: Float[Array, "kinds H S A S"] | None
    rewards: Float[Array, "kinds H S A"] | None
    horizon: int = eqx.field(static=True)
    num_states: int = eqx.field(static=True)
    num_actions: int = eqx.field(static=True)
    _asked: "_Environments" = eqx.field(static=True)

    def __init__(self, environments: tuple[Any, ...], kinds: np.ndarray):
        asked = _Environments(environments)
        self._asked, self.agents = asked, Kind(jnp.asarray(kinds, jnp.int32))
        self.horizon, self.num_states, self.num_actions = asked.sizes
        mu0 = np.asarray(environments[0].mu0, np.float64).reshape(-1)
        self.initial_distribution = jnp.asarray(mu0 / mu0.sum(), jnp.float32)
        self.transitions = asked.table_if_free("transition")
        self.rewards = asked.table_if_free("reward")

    @property
    def environments(self) -> tuple[Any, ...]:
        """Whose limit this is, one for each kind of agent."""
        return self._asked.environments

    @property
    def layout(self) -> tuple[int, ...]:
        """(*S, *A), how MFGLib lays states and actions out."""
        return self._asked.layout

    @property
    def transition_in_aggregate(self) -> InAggregate:
        """See `PopulationGame`; "free" if it was so wherever it was looked at."""
        return "nonlinear" if self.transitions is None else "free"

    @property
    def reward_in_aggregate(self) -> InAggregate:
        """See `PopulationGame`; "free" if it was so wherever it was looked at."""
        return "nonlinear" if self.rewards is None else "free"

    def transition(
        self, agent: Kind, state: Array, action: Array, aggregate: Array, step: Array
    ) -> Array:
        """See `PopulationGame.transition`."""
        if self.transitions is not None:
            return self.transitions[agent.kind, step, state, action]
        shape = jax.ShapeDtypeStruct((self.num_states,), jnp.float32)
        return self._ask("transition", shape, agent, state, action, aggregate, step)

    def reward(
        self, agent: Kind, state: Array, action: Array, aggregate: Array, step: Array
    ) -> Array:
        """See `PopulationGame.reward`."""
        if self.rewards is not None:
            return self.rewards[agent.kind, step, state, action]
        shape = jax.ShapeDtypeStruct((), jnp.float32)
        return self._ask("reward", shape, agent, state, action, aggregate, step)

    def _ask(self, law: str, shape: Any, agent: Kind, *place: Array) -> Array:
        state, action, aggregate, step = place
        call: Callable[..., np.ndarray] = self._asked.laws[law]
        return jax.pure_callback(
            call, shape, agent.kind, state, action, aggregate, step, vmap_method="broadcast_all"
        )


class _Environments:
    """Asks MFGLib for laws, many places at once."""

    def __init__(self, environments: tuple[Any, ...]) -> None:
        self.environments, first = environments, environments[0]
        self.layout = (*first.S, *first.A)
        states, actions = int(np.prod(first.S)), int(np.prod(first.A))
        self.sizes = (int(first.T) + 1, states, actions)
        self.laws = {law: self._answerer(law) for law in ("transition", "reward")}

    def tables(
        self, law: str, kind: int, step: int, populations: Float[np.ndarray, "U X"]
    ) -> Float[np.ndarray, "U S A ..."]:
        """A law of one kind of agent at a step, at U populations."""
        torch = library("torch", "mfglib")

        environment = self.environments[kind]
        ask = environment.reward if law == "reward" else environment.prob
        some = np.array(populations, np.float32).reshape(-1, *self.layout)
        several = torch.as_tensor(some)
        try:
            values = torch.vmap(lambda one: ask(step, one))(several)
        except (RuntimeError, ValueError):  # not every function can be vectorised
            values = torch.stack([ask(step, one) for one in several])
        _, states, actions = self.sizes
        table = values.detach().numpy()
        if law == "reward":
            return table.reshape(-1, states, actions)
        return np.moveaxis(table.reshape(-1, states, states, actions), 1, 3)

    def table_if_free(self, law: str) -> Float[Array, "kinds H S A ..."] | None:
        """The law by kind and step, if it is the same at all populations that are looked at."""
        horizon, states, actions = self.sizes
        looks = np.random.default_rng(0).dirichlet(np.ones(states * actions), _LOOKS)
        kinds = []
        for kind in range(len(self.environments)):
            steps = [self.tables(law, kind, step, looks) for step in range(horizon)]
            if any(np.abs(table - table[:1]).max() > _SAME for table in steps):
                return None
            kinds.append(np.stack([table[0] for table in steps]))
        return jnp.asarray(np.stack(kinds), jnp.float32)

    def _answerer(self, law: str) -> Callable[..., np.ndarray]:
        def answer(kind: Any, state: Any, action: Any, aggregate: Any, step: Any) -> np.ndarray:
            lead = np.shape(aggregate)[:-1]
            places = [np.asarray(x).reshape(-1) for x in (kind, state, action, step)]
            kinds, states, actions, steps = places
            populations = np.asarray(aggregate, np.float64).reshape(len(kinds), -1)
            rows = np.column_stack([kinds, steps, populations])
            # By their bytes: sorting rows of numbers is far slower.
            keys = np.ascontiguousarray(rows).view(
                np.dtype((np.void, rows.itemsize * rows.shape[1]))
            )
            _, first, number = np.unique(keys.reshape(-1), return_index=True, return_inverse=True)
            different, number = rows[first], number.reshape(-1)
            table: Any = None
            for kind_, step_ in np.unique(different[:, :2], axis=0).astype(int):
                mine = (different[:, 0] == kind_) & (different[:, 1] == step_)
                values = self.tables(law, int(kind_), int(step_), different[mine, 2:])
                if table is None:
                    table = np.zeros((len(different), *values.shape[1:]), np.float32)
                table[mine] = values
            values = table[number, states, actions]
            return values.reshape(*lead, *values.shape[1:])

        return answer
