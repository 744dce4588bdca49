"""A-SIS: an epidemic in which every agent decides at each step whether to keep its distance."""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from crowdnash.games.base import PopulationGame
from crowdnash.games.parameters import (
    Heterogeneity,
    agent_array,
    distribution,
    draw_around,
    leading_axis,
)

INFECTED, HEALTHY = 0, 1
DISTANCE, GO_OUT = 0, 1


class SISAgent(NamedTuple):
    """What tells agents apart; each [N] for all agents, a scalar for one."""

    susceptibility: Array
    recovery: Array
    isolation_aversion: Array


class SIS(PopulationGame):
    """A-SIS (Yardim & He, section 3 and E.2): states (I,H) = (0,1), actions (D,U) = (0,1).

    P^i(I|H,D) = 0, P^i(I|H,U) = susceptibility_i * sigma(rho^-i)(I,U), P^i(I|I,.) = 1 - recovery_i
    and R^i = -1[s=I] - isolation_aversion_i * 1[a=D], in cost per step.

    Args:
        susceptibility: [N] in [0,1].
        recovery: [N] in [0,1].
        isolation_aversion: [N] in [0,1].
        horizon: H >= 1.
        initial_distribution: [2] (default uniform, as in the paper).

    Raises:
        ValueError: a shape differs, a value leaves [0,1] or is NaN, N < 2 or H < 1.
    """

    name: ClassVar[str] = "sis"
    summary: ClassVar[str] = "A-SIS: epidemic with heterogeneous agents who may keep distance"
    transition_in_aggregate = "affine"
    reward_in_aggregate = "free"

    susceptibility: Float[Array, " N"]
    recovery: Float[Array, " N"]
    isolation_aversion: Float[Array, " N"]
    initial_distribution: Float[Array, " 2"]
    horizon: int = eqx.field(static=True)
    num_states: ClassVar[int] = 2
    num_actions: ClassVar[int] = 2

    def __init__(
        self,
        susceptibility: Any,
        recovery: Any,
        isolation_aversion: Any,
        horizon: int = 20,
        initial_distribution: Any = (0.5, 0.5),
    ):
        size = leading_axis("susceptibility", susceptibility)
        unit = {"shape": size, "low": 0.0, "high": 1.0}
        self.susceptibility = agent_array("susceptibility", susceptibility, **unit)
        self.recovery = agent_array("recovery", recovery, **unit)
        self.isolation_aversion = agent_array("isolation_aversion", isolation_aversion, **unit)
        self.initial_distribution = distribution("initial_distribution", initial_distribution, 2)
        self.horizon = horizon

    @classmethod
    def sample(
        cls,
        key: PRNGKeyArray,
        *,
        num_agents: int = 1000,
        horizon: int = 20,
        heterogeneity: Heterogeneity = 0.1,
        susceptibility: float = 0.81,
        recovery: float = 0.3,
        isolation_aversion: float = 0.5,
    ) -> "SIS":
        """Draw every agent's parameters uniformly from centre +- half-width.

        The paper gives no centres: 0.81 (= 0.9^2), 0.3 and 0.5 are those of the SIS game it
        cites. With half-width 0.1 everywhere alpha and beta are about 0.2; for the paper's
        alpha = beta = 0.1 use {"susceptibility": 0.05, "recovery": 0.05}.

        Args:
            key: decides the draw.
            num_agents: number of agents N >= 2.
            horizon: number of steps H >= 1.
            heterogeneity: half-width of all parameters, or one for each name (default 0.1 for
                a name left out).
            susceptibility: centre of the probability of infection when everyone else is
                infected and out.
            recovery: centre of the probability of recovery in one step.
            isolation_aversion: centre of the cost of one step of distance.

        Raises:
            ValueError: a number is out of its range, or a draw would leave its parameter's
                range; the message names the argument, the rule and the value.
        """
        centres = {
            "susceptibility": susceptibility,
            "recovery": recovery,
            "isolation_aversion": isolation_aversion,
        }
        return cls(**draw_around(key, centres, heterogeneity, num_agents), horizon=horizon)

    @property
    def agents(self) -> SISAgent:
        """The per-agent parameters, each [N]."""
        return SISAgent(self.susceptibility, self.recovery, self.isolation_aversion)

    @property
    def state_names(self) -> tuple[str, ...]:
        """See `TabularGame.state_names`."""
        return ("infected", "healthy")

    @property
    def action_names(self) -> tuple[str, ...]:
        """See `TabularGame.action_names`."""
        return ("distance", "go out")

    @property
    def reward_range(self) -> tuple[float, float]:
        """From infected and at a distance to healthy and out."""
        return -1.0 - float(jnp.max(self.isolation_aversion)), 0.0

    def transition(
        self, agent: SISAgent, state: Array, action: Array, aggregate: Array, step: Array
    ) -> Array:
        """See `PopulationGame.transition`; `aggregate` is sigma(rho^-i), [4]."""
        infectious = aggregate[INFECTED * 2 + GO_OUT]
        exposed = jnp.where(action == GO_OUT, agent.susceptibility * infectious, 0.0)
        infected = jnp.where(state == INFECTED, 1.0 - agent.recovery, exposed)
        return jnp.stack([infected, 1.0 - infected])

    def reward(
        self, agent: SISAgent, state: Array, action: Array, aggregate: Array, step: Array
    ) -> Array:
        """See `PopulationGame.reward`."""
        return -jnp.where(state == INFECTED, 1.0, 0.0) - jnp.where(
            action == DISTANCE, agent.isolation_aversion, 0.0
        )
