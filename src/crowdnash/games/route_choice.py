"""Route choice: drivers on a road network whose links slow down as they fill."""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from crowdnash.checks import as_array, check_number
from crowdnash.games.base import PopulationGame
from crowdnash.games.network import Network, checked_network, route_times, shortest_routes
from crowdnash.games.parameters import agent_array


class Driver(NamedTuple):
    """What tells agents apart; each [N] for all agents, a scalar for one."""

    pair: Array
    value_of_time: Array


class RouteChoice(PopulationGame):
    """Every day every driver takes one of A routes from its origin to its destination.

        R^i(a) = -sum over the links l of route a of (value_of_time_i time_l(v_l) + toll_l)

    with the times of `Network` at the flows v_l = vehicles * #{j : route of j has l}, agent i
    itself included. One state; H steps are days. The game is a congestion game (Rosenthal 1973) and
    its limit for many drivers is Wardrop's user equilibrium (1952), which minimises Beckmann's
    objective (1956) where all value time alike.

    Args:
        network: links between nodes 0..V-1, a mapping or record with arrays [L] `from_node`,
            `to_node`, `free_flow_time` and `capacity` (> 0), `b` and `power` (>= 0):
            time_l(v) = free_flow_time_l (1 + b_l (v / capacity_l)^power_l).
        origins: [P] nodes.
        destinations: [P] nodes.
        pair: [N], which of the P pairs an agent drives.
        num_routes: A, the shortest ones by free-flow time.
        value_of_time: [N] or a number, > 0, in reward a unit of time.
        tolls: [L] or a number, in reward a passage.
        vehicles: that one agent stands for, > 0.
        horizon: H >= 1 days.

    Raises:
        ValueError: a shape differs, a value is out of its range, or a destination cannot be
            reached.
    """

    name: ClassVar[str] = "route-choice"
    summary: ClassVar[str] = "Drivers choose routes on a network that slows down as it fills"
    transition_in_aggregate = "free"
    num_states: ClassVar[int] = 1

    pair: Int[Array, " N"]
    value_of_time: Float[Array, " N"]
    routes: Bool[Array, "P A L"]
    links: Network
    tolls: Float[Array, " L"]
    vehicles: Float[Array, ""]
    initial_distribution: Float[Array, " 1"]
    horizon: int = eqx.field(static=True)

    def __init__(
        self,
        network: Any,
        origins: Any,
        destinations: Any,
        pair: Any,
        *,
        num_routes: int = 10,
        value_of_time: Any = 1.0,
        tolls: Any = 0.0,
        vehicles: float | int = 1.0,
        horizon: int = 1,
    ):
        links = checked_network(network)
        self.routes = jnp.asarray(shortest_routes(links, origins, destinations, num_routes))
        pair = np.asarray(as_array("pair", pair, integers=True))
        count = self.routes.shape[0]
        if pair.ndim != 1 or pair.min(initial=0) < 0 or pair.max(initial=0) >= count:
            raise ValueError(f"pair must be [N] numbers of 0..{count - 1}, one an agent")
        self.pair = jnp.asarray(pair, jnp.int32)
        values = np.broadcast_to(as_array("value_of_time", value_of_time), pair.shape)
        self.value_of_time = agent_array("value_of_time", values, shape=pair.shape)
        if not (np.asarray(self.value_of_time) > 0).all():
            agent = int(np.argmin(np.asarray(self.value_of_time)))
            raise ValueError(f"value_of_time must be > 0: of agent {agent} it is {values[agent]:g}")
        shape = links.from_node.shape
        tolls = np.broadcast_to(as_array("tolls", tolls), shape)
        self.tolls = agent_array("tolls", tolls, shape=shape)
        check_number("vehicles", vehicles, above=0)
        self.vehicles = jnp.float32(vehicles)
        ends = (jnp.asarray(x, jnp.int32) for x in links[:2])
        self.links = Network(*ends, *(jnp.asarray(x, jnp.float32) for x in links[2:]))
        self.initial_distribution = jnp.ones(1, jnp.float32)
        self.horizon = horizon

    @property
    def num_actions(self) -> int:
        """A."""
        return self.routes.shape[1]

    @property
    def agents(self) -> Driver:
        """The drivers, each array [N]."""
        return Driver(self.pair, self.value_of_time)

    @property
    def agent_features(self) -> Float[Array, "N d"]:
        """Value of time, and the free-flow times of the routes: [N, 1 + A]."""
        free = route_times(self.routes, self.links.free_flow_time)
        return jnp.concatenate([self.value_of_time[:, None], free[self.pair]], axis=1)

    @property
    def state_names(self) -> tuple[str, ...]:
        """See `TabularGame.state_names`."""
        return ("at the origin",)

    @property
    def action_names(self) -> tuple[str, ...]:
        """See `TabularGame.action_names`."""
        return tuple(f"route {a + 1}" for a in range(self.num_actions))

    def contribution(self, agent: Driver, state: Array, action: Array) -> Array:
        """The links of the route, [L]."""
        return self.routes[agent.pair, action]

    def transition(
        self, agent: Driver, state: Array, action: Array, aggregate: Array, step: Array
    ) -> Array:
        """See `PopulationGame.transition`: there is one state."""
        return jnp.ones(1, aggregate.dtype)

    def reward(
        self, agent: Driver, state: Array, action: Array, aggregate: Array, step: Array
    ) -> Array:
        """See `PopulationGame.reward`; `aggregate` [L] is the share of the others on each link."""
        route = self.routes[agent.pair, action]
        flows = self.vehicles * ((self.num_agents - 1) * aggregate + 1)
        cost = agent.value_of_time * self.links.times(flows) + self.tolls
        return -jnp.where(route, cost, 0).sum()
