"""Route choice: drivers on a road network whose links slow down as they fill."""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from crowdnash.checks import as_array, check_count, check_key, check_number
from crowdnash.games.base import PopulationGame
from crowdnash.games.checks import check_fits_memory
from crowdnash.games.network import (
    Network,
    checked_network,
    grid_town,
    route_times,
    shortest_routes,
)
from crowdnash.games.parameters import Heterogeneity, agent_array, draw_around


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
        num_routes: A, the shortest ones.
        route_lengths: [L], by which routes are the shortest; by default free-flow times.
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
        route_lengths: Any = None,
        value_of_time: Any = 1.0,
        tolls: Any = 0.0,
        vehicles: float | int = 1.0,
        horizon: int = 1,
    ):
        links = checked_network(network)
        ends = (origins, destinations)
        self.routes = jnp.asarray(shortest_routes(links, *ends, num_routes, route_lengths))
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

    @classmethod
    def from_trips(
        cls,
        network: Any,
        trips: Any,
        *,
        zones: Any = None,
        vehicles: float | int = 1.0,
        **options: Any,
    ) -> "RouteChoice":
        """The drivers of a trip table, an agent for every `vehicles` trips (rounded) of a pair.

        Args:
            network: as for `RouteChoice`.
            trips: [Z,Z], >= 0, from each zone (row) to each other; trips within a zone stay there
                and are left out.
            zones: [Z], the nodes that are zones; by default the first Z nodes.
            vehicles: trips that one agent stands for, > 0.
            **options: as for `RouteChoice`.

        Raises:
            ValueError: the table is not square or has a wrong number, a zone is no node of the
                network, or as `RouteChoice`.
        """
        check_number("vehicles", vehicles, above=0)
        table = np.asarray(as_array("trips", trips), np.float64)
        if table.ndim != 2 or table.shape[0] != table.shape[1]:
            raise ValueError(f"trips must be a square table [Z,Z], not {list(table.shape)}")
        if (wrong := ~(np.isfinite(table) & (table >= 0))).any():
            row, column = (int(k) for k in np.argwhere(wrong)[0])
            raise ValueError(
                f"trips must be >= 0 and finite: trips[{row}, {column}] = {table[row, column]:g}"
            )
        links = checked_network(network)
        nodes = np.arange(len(table)) if zones is None else np.asarray(as_array("zones", zones))
        if nodes.shape != table.shape[:1]:
            raise ValueError(f"zones must be [Z] nodes, Z = {len(table)} as trips, not {nodes}")
        unknown = nodes[~np.isin(nodes, np.append(links.from_node, links.to_node))]
        if len(unknown):
            raise ValueError(f"zones must be nodes of the network: {unknown[0]} has no links")
        agents = np.rint(table / vehicles).astype(int)
        np.fill_diagonal(agents, 0)
        rows, columns = np.nonzero(agents)
        pair = np.repeat(np.arange(len(rows)), agents[rows, columns])
        return cls(links, nodes[rows], nodes[columns], pair, vehicles=vehicles, **options)

    @classmethod
    def sample(
        cls,
        key: PRNGKeyArray,
        *,
        num_agents: int = 1000,
        horizon: int = 1,
        heterogeneity: Heterogeneity = 0.1,
        side: int = 4,
        num_pairs: int = 8,
        num_routes: int = 4,
        congestion: float = 1.0,
    ) -> "RouteChoice":
        """Draw a town on a grid and the drivers in it.

        Args:
            key: decides the draw.
            num_agents: number of drivers N >= 2.
            horizon: number of days H >= 1.
            heterogeneity: half-width of the values of time around 1.
            side: nodes along each side of the grid, >= 2.
            num_pairs: pairs of origin and destination, of which every driver has one.
            num_routes: routes a driver chooses from.
            congestion: flow / capacity on the mean link in use, if all took the shortest, > 0.

        Raises:
            ValueError: a number is out of its range, or a draw would leave its parameter's
                range; the message names the argument, the rule and the value.
        """
        check_key("key", key)
        check_count("num_agents", num_agents, 2)
        check_count("horizon", horizon, 1)
        check_count("side", side, 2)
        check_count("num_pairs", num_pairs, 1)
        check_count("num_routes", num_routes, 1)
        check_number("congestion", congestion, above=0)
        check_fits_memory(num_agents, 4 * (4 + num_routes))
        town_key, agents_key, pair_key = jax.random.split(key, 3)
        drawn = draw_around(agents_key, {"value_of_time": 1.0}, heterogeneity, num_agents)
        rng = np.random.default_rng(np.asarray(jax.random.key_data(town_key)).ravel())
        town = grid_town(side, rng)
        ends = np.array([rng.choice(side * side, 2, replace=False) for _ in range(num_pairs)]).T
        flows = num_agents * shortest_routes(town, ends[0], ends[1], 1)[:, 0].mean(0)
        scale = flows[flows > 0].mean() / congestion
        town = town._replace(capacity=town.capacity * scale)
        pair = np.asarray(jax.random.randint(pair_key, (num_agents,), 0, num_pairs))
        return cls(
            town,
            ends[0],
            ends[1],
            pair,
            num_routes=num_routes,
            value_of_time=drawn["value_of_time"],
            horizon=horizon,
        )

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
