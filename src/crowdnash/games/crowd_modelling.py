"""Crowd modelling: agents with favourite places on a torus, who shun crowds."""

from typing import Any, ClassVar, Literal, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from crowdnash.checks import check_count
from crowdnash.games.base import PopulationGame
from crowdnash.games.parameters import (
    Heterogeneity,
    agent_array,
    distribution,
    draw_around,
    leading_axis,
)
from crowdnash.games.positions import check_least_share, landing, log_crowding, shifted
from crowdnash.games.tables import component, uniform_if_none

LEFT, STAY, RIGHT, UP, DOWN = 0, 1, 2, 3, 4
_PUSHES = ((0, -1), (0, 1), (-1, 0), (1, 0))


class CrowdAgent(NamedTuple):
    """What tells agents apart: `preference` [N,S]; the others [N]."""

    preference: Array
    movement_cost: Array
    crowd_aversion: Array
    noise: Array


class CrowdModelling(PopulationGame):
    """Crowd modelling (OpenSpiel's `mfg_crowd_modelling`; Perolat et al. 2021), asymmetric.

    A ring of `size` positions, or in 2 dimensions a torus of size x size, position = row * size +
    column; actions (left, stay, right) = (0,1,2), in 2 dimensions also (up, down) = (3,4). With
    u the share of the others at the agent's position,

    R^i = preference_i(s) - movement_cost_i 1[a != stay] + crowd_aversion_i phi(u),

    phi(u) = -log(u) for u >= `least_share`, below it the tangent there (`log_crowding`), so that
    a place without anybody else pays a finite reward. The agent moves by its action and, with
    probability noise_i, is then pushed to one of the neighbours, each as likely. Transitions are
    free of the others and the reward falls with u, so the induced game is monotone.

    OpenSpiel's agents are identical, with preference 1 - |s - size//2| / (size//2), movement cost
    1/size, aversion 1 and noise 2/3 (the defaults of `sample` without heterogeneity). It pays at
    the next decision, so that the crowd and the action in a reward are those of the step before;
    here, as in Def. 1, they are those of the step itself.

    Args:
        preference: [N,S], finite, in reward per step.
        movement_cost: [N], finite, in reward per step.
        crowd_aversion: [N] >= 0, in reward per step.
        noise: [N] in [0,1].
        size: >= 3, with S = size^dimensions.
        dimensions: 1 or 2.
        horizon: H >= 1.
        least_share: in (0,1].
        initial_distribution: [S], default uniform.

    Raises:
        ValueError: naming the argument, the rule and the value.
    """

    name: ClassVar[str] = "crowd-modelling"
    summary: ClassVar[str] = "Crowd modelling: favourite places on a torus, and crowds to shun"
    transition_in_aggregate = "free"
    reward_in_aggregate = "nonlinear"

    preference: Float[Array, "N S"]
    movement_cost: Float[Array, " N"]
    crowd_aversion: Float[Array, " N"]
    noise: Float[Array, " N"]
    initial_distribution: Float[Array, " S"]
    horizon: int = eqx.field(static=True)
    size: int = eqx.field(static=True)
    dimensions: int = eqx.field(static=True)
    least_share: float = eqx.field(static=True)

    def __init__(
        self,
        preference: Any,
        movement_cost: Any,
        crowd_aversion: Any,
        noise: Any,
        size: int = 10,
        dimensions: int = 1,
        horizon: int = 10,
        least_share: float = 0.01,
        initial_distribution: Any = None,
    ):
        _check_torus(size, dimensions)
        check_least_share(least_share)
        num_states = size**dimensions
        n = leading_axis("movement_cost", movement_cost)
        self.preference = agent_array("preference", preference, shape=(*n, num_states))
        self.movement_cost = agent_array("movement_cost", movement_cost, shape=n)
        self.crowd_aversion = agent_array("crowd_aversion", crowd_aversion, shape=n, low=0.0)
        self.noise = agent_array("noise", noise, shape=n, low=0.0, high=1.0)
        initial = uniform_if_none(initial_distribution, num_states)
        self.initial_distribution = distribution("initial_distribution", initial, num_states)
        self.horizon, self.size, self.dimensions = horizon, size, dimensions
        self.least_share = least_share

    @classmethod
    def sample(
        cls,
        key: PRNGKeyArray,
        *,
        num_agents: int = 1000,
        horizon: int = 10,
        heterogeneity: Heterogeneity = 0.1,
        size: int = 10,
        dimensions: Literal[1, 2] = 1,
        movement_cost: float = 0.1,
        crowd_aversion: float = 1.0,
        noise: float = 2 / 3,
        least_share: float = 0.01,
    ) -> "CrowdModelling":
        """Draw every agent's preferences uniformly from centre +- half-width.

        Preferences are centred at 1 in the middle of the torus, falling linearly to 0 at the
        positions furthest from it; every agent has noise of its own on every position.

        Args:
            key: decides the draw.
            num_agents: number of agents N >= 2.
            horizon: number of steps H >= 1.
            heterogeneity: half-width of all parameters, or one for each of preference,
                movement_cost, crowd_aversion, noise (default 0.1 for a name left out).
            size: number of positions along one dimension, >= 3.
            dimensions: 1 for a ring, 2 for a torus of size x size positions.
            movement_cost: centre of the cost of a step.
            crowd_aversion: centre of the weight of -log(share of the others at one's position).
            noise: centre of the probability of being pushed to a neighbouring position.
            least_share: share of the others below which -log continues along its tangent.

        Raises:
            ValueError: a number is out of its range, or a draw would leave its parameter's
                range; the message names the argument, the rule and the value.
        """
        _check_torus(size, dimensions)
        check_least_share(least_share)
        centres = {
            "preference": _middle_first(size, dimensions),
            "movement_cost": movement_cost,
            "crowd_aversion": crowd_aversion,
            "noise": noise,
        }
        drawn = draw_around(key, centres, heterogeneity, num_agents)
        return cls(
            **drawn, size=size, dimensions=dimensions, horizon=horizon, least_share=least_share
        )

    @property
    def num_states(self) -> int:
        """S, the number of positions."""
        return self.size**self.dimensions

    @property
    def num_actions(self) -> int:
        """A: 3 on a ring, 5 on a torus."""
        return 1 + 2 * self.dimensions

    @property
    def agents(self) -> CrowdAgent:
        """The per-agent parameters."""
        return CrowdAgent(self.preference, self.movement_cost, self.crowd_aversion, self.noise)

    @property
    def state_names(self) -> tuple[str, ...]:
        """See `TabularGame.state_names`."""
        if self.dimensions == 1:
            return tuple(str(s) for s in range(self.size))
        return tuple(f"({s // self.size},{s % self.size})" for s in range(self.num_states))

    @property
    def action_names(self) -> tuple[str, ...]:
        """See `TabularGame.action_names`."""
        return ("left", "stay", "right", "up", "down")[: self.num_actions]

    @property
    def reward_range(self) -> tuple[float, float]:
        """Everyone or nobody else at the position, at the worst and best of the rest; both met."""
        liking, cost = np.asarray(self.preference), np.asarray(self.movement_cost)
        low = liking.min(1) - np.maximum(cost, 0)
        high = liking.max(1) - np.minimum(cost, 0)
        alone = np.asarray(self.crowd_aversion) * float(
            log_crowding(jnp.zeros(()), self.least_share)
        )
        return float(low.min()), float((high + alone).max())

    def contribution(self, agent: CrowdAgent, state: Array, action: Array) -> Array:
        """See `PopulationGame.contribution`: one-hot of the position, [S]."""
        return jnp.arange(self.num_states, dtype=jnp.int32) == state

    def transition(
        self, agent: CrowdAgent, state: Array, action: Array, aggregate: Array, step: Array
    ) -> Array:
        """See `PopulationGame.transition`."""
        across = jnp.where(action == RIGHT, 1, 0) - jnp.where(action == LEFT, 1, 0)
        down = jnp.where(action == DOWN, 1, 0) - jnp.where(action == UP, 1, 0)
        pushes = _PUSHES[: 2 * self.dimensions]
        targets = [self._shifted(state, down + y, across + x) for y, x in ((0, 0), *pushes)]
        pushed = agent.noise / len(pushes)
        return landing(targets, [1 - agent.noise, *[pushed] * len(pushes)], self.num_states)

    def reward(
        self, agent: CrowdAgent, state: Array, action: Array, aggregate: Array, step: Array
    ) -> Array:
        """See `PopulationGame.reward`; `aggregate` is the others' shares by position, [S]."""
        crowding = log_crowding(component(aggregate, state), self.least_share)
        moving = jnp.where(action == STAY, 0.0, agent.movement_cost)
        return component(agent.preference, state) - moving + agent.crowd_aversion * crowding

    def _shifted(self, state: Array, down: Array, across: Array) -> Array:
        if self.dimensions == 1:
            return shifted(state, across, self.size)
        row, column = state // self.size, state % self.size
        return shifted(row, down, self.size) * self.size + shifted(column, across, self.size)


def _check_torus(size: int, dimensions: int) -> None:
    check_count("size", size, 3)
    check_count("dimensions", dimensions, 1, 2)


def _middle_first(size: int, dimensions: int) -> tuple[float, ...]:
    """1 in the middle of the torus, 0 furthest from it, [S]."""
    distance = np.abs(np.arange(size) - size // 2) / (size // 2)
    if dimensions == 2:
        distance = (distance[:, None] + distance).reshape(-1) / 2
    return tuple(float(x) for x in 1 - distance)
