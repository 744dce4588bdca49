"""The beach bar process: near the bar, but not in a crowd."""

from typing import Any, ClassVar, Literal, NamedTuple, get_args

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from crowdnash.checks import check_choice, check_count
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

LEFT, STAY, RIGHT = 0, 1, 2

Beach = Literal["ring", "line"]


class BeachBarAgent(NamedTuple):
    """What tells agents apart; each [N] for all agents, a scalar for one."""

    attraction: Array
    movement_cost: Array
    crowd_aversion: Array
    noise: Array


class BeachBar(PopulationGame):
    """Beach bar process (Perrin et al. 2020, "Fictitious play for mean field games"), asymmetric.

    Positions 0..S-1 on a ring or a line; actions (left, stay, right) = (0,1,2). With u the share
    of the others at the agent's position, d the distance to the bar and D the largest one,

    R^i = attraction_i (1 - d/D) - movement_cost_i 1[a != stay] + crowd_aversion_i phi(u),

    phi(u) = -log(u) for u >= `least_share`, below it the tangent there (`log_crowding`), so that
    a place without anybody else pays a finite reward. The agent moves by its action and, with
    probability noise_i, by one more step left or right, each as likely; on a line it stays at
    the end that it would walk beyond. Transitions are free of the others and the reward falls
    with u, so the induced game is monotone.

    Args:
        attraction: [N], finite, in reward per step.
        movement_cost: [N], finite, in reward per step.
        crowd_aversion: [N] >= 0, in reward per step.
        noise: [N] in [0,1].
        num_positions: S >= 3.
        bar: in 0..S-1.
        horizon: H >= 1.
        beach: "ring" or "line".
        least_share: in (0,1].
        initial_distribution: [S], default uniform.

    Raises:
        ValueError: naming the argument, the rule and the value.
    """

    name: ClassVar[str] = "beach-bar"
    summary: ClassVar[str] = "Beach bar: walk close to the bar while shunning crowds"
    transition_in_aggregate = "free"
    reward_in_aggregate = "nonlinear"

    attraction: Float[Array, " N"]
    movement_cost: Float[Array, " N"]
    crowd_aversion: Float[Array, " N"]
    noise: Float[Array, " N"]
    initial_distribution: Float[Array, " S"]
    horizon: int = eqx.field(static=True)
    num_states: int = eqx.field(static=True)
    bar: int = eqx.field(static=True)
    beach: Beach = eqx.field(static=True)
    least_share: float = eqx.field(static=True)
    num_actions: ClassVar[int] = 3

    def __init__(
        self,
        attraction: Any,
        movement_cost: Any,
        crowd_aversion: Any,
        noise: Any,
        num_positions: int = 10,
        bar: int = 5,
        horizon: int = 15,
        beach: Beach = "ring",
        least_share: float = 0.01,
        initial_distribution: Any = None,
    ):
        size = leading_axis("attraction", attraction)
        self.attraction = agent_array("attraction", attraction, shape=size)
        self.movement_cost = agent_array("movement_cost", movement_cost, shape=size)
        self.crowd_aversion = agent_array("crowd_aversion", crowd_aversion, shape=size, low=0.0)
        self.noise = agent_array("noise", noise, shape=size, low=0.0, high=1.0)
        check_count("num_positions", num_positions, 3)
        check_count("bar", bar, 0, num_positions - 1)
        check_choice("beach", beach, get_args(Beach))
        check_least_share(least_share)
        initial = uniform_if_none(initial_distribution, num_positions)
        self.initial_distribution = distribution("initial_distribution", initial, num_positions)
        self.horizon, self.num_states, self.bar = horizon, num_positions, bar
        self.beach, self.least_share = beach, least_share

    @classmethod
    def sample(
        cls,
        key: PRNGKeyArray,
        *,
        num_agents: int = 1000,
        horizon: int = 15,
        heterogeneity: Heterogeneity = 0.1,
        num_positions: int = 10,
        bar: int = 5,
        beach: Beach = "ring",
        attraction: float = 1.0,
        movement_cost: float = 0.1,
        crowd_aversion: float = 1.0,
        noise: float = 0.5,
        least_share: float = 0.01,
    ) -> "BeachBar":
        """Draw every agent's preferences uniformly from centre +- half-width.

        Args:
            key: decides the draw.
            num_agents: number of agents N >= 2.
            horizon: number of steps H >= 1.
            heterogeneity: half-width of all parameters, or one for each of attraction,
                movement_cost, crowd_aversion, noise (default 0.1 for a name left out).
            num_positions: number of positions S >= 3 along the beach.
            bar: position of the bar.
            beach: "ring", as in the paper that introduced the game, or "line", whose ends stop
                whoever would walk beyond them.
            attraction: centre of the reward at the bar; it falls linearly to 0 at the position
                furthest from it.
            movement_cost: centre of the cost of a step to the left or the right.
            crowd_aversion: centre of the weight of -log(share of the others at one's position).
            noise: centre of the probability of being pushed one position aside.
            least_share: share of the others below which -log continues along its tangent.

        Raises:
            ValueError: a number is out of its range, or a draw would leave its parameter's
                range; the message names the argument, the rule and the value.
        """
        centres = {
            "attraction": attraction,
            "movement_cost": movement_cost,
            "crowd_aversion": crowd_aversion,
            "noise": noise,
        }
        drawn = draw_around(key, centres, heterogeneity, num_agents)
        return cls(
            **drawn,
            num_positions=num_positions,
            bar=bar,
            horizon=horizon,
            beach=beach,
            least_share=least_share,
        )

    @property
    def agents(self) -> BeachBarAgent:
        """The per-agent parameters, each [N]."""
        return BeachBarAgent(self.attraction, self.movement_cost, self.crowd_aversion, self.noise)

    @property
    def closeness(self) -> Float[np.ndarray, " S"]:
        """1 at the bar, falling linearly to 0 at the position furthest from it."""
        distance = np.abs(np.arange(self.num_states) - self.bar)
        if self.beach == "ring":
            distance = np.minimum(distance, self.num_states - distance)
        return (1 - distance / distance.max()).astype(np.float32)

    @property
    def state_names(self) -> tuple[str, ...]:
        """See `TabularGame.state_names`."""
        return tuple("bar" if s == self.bar else str(s) for s in range(self.num_states))

    @property
    def action_names(self) -> tuple[str, ...]:
        """See `TabularGame.action_names`."""
        return ("left", "stay", "right")

    @property
    def reward_range(self) -> tuple[float, float]:
        """Everyone or nobody else at the position, at the best and worst of the rest."""
        pull, cost = np.asarray(self.attraction), np.asarray(self.movement_cost)
        low = np.minimum(pull, 0) - np.maximum(cost, 0)
        high = np.maximum(pull, 0) - np.minimum(cost, 0)
        alone = np.asarray(self.crowd_aversion) * float(
            log_crowding(jnp.zeros(()), self.least_share)
        )
        return float(low.min()), float((high + alone).max())

    def contribution(self, agent: BeachBarAgent, state: Array, action: Array) -> Array:
        """See `PopulationGame.contribution`: one-hot of the position, [S]."""
        return jnp.arange(self.num_states, dtype=jnp.int32) == state

    def transition(
        self, agent: BeachBarAgent, state: Array, action: Array, aggregate: Array, step: Array
    ) -> Array:
        """See `PopulationGame.transition`."""
        by = action - STAY
        ring = self.beach == "ring"
        targets = [shifted(state, by + push, self.num_states, ring=ring) for push in (-1, 0, 1)]
        weights = [agent.noise / 2, 1 - agent.noise, agent.noise / 2]
        return landing(targets, weights, self.num_states)

    def reward(
        self, agent: BeachBarAgent, state: Array, action: Array, aggregate: Array, step: Array
    ) -> Array:
        """See `PopulationGame.reward`; `aggregate` is the others' shares by position, [S]."""
        crowding = log_crowding(component(aggregate, state), self.least_share)
        near = component(jnp.asarray(self.closeness), state)
        moving = jnp.where(action == STAY, 0.0, agent.movement_cost)
        return agent.attraction * near - moving + agent.crowd_aversion * crowding
