"""Road networks: links whose time grows with their flow, and the shortest routes through them.

Axes: L links, P origin-destination pairs, A routes of a pair.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from scipy.sparse import csr_array
from scipy.sparse.csgraph import yen

from crowdnash.checks import as_array, check_count

Numbers = Array | np.ndarray


class Network(NamedTuple):
    """Links between nodes 0..V-1, with times of the Bureau of Public Roads (1964).

        time_l(v) = free_flow_time_l (1 + b_l (v / capacity_l)^power_l)

    Attributes:
        from_node: [L].
        to_node: [L].
        free_flow_time: [L], > 0, in any unit of time.
        capacity: [L], > 0, in vehicles.
        b: [L], >= 0.
        power: [L], >= 0.
    """

    from_node: Int[Numbers, " L"]
    to_node: Int[Numbers, " L"]
    free_flow_time: Float[Numbers, " L"]
    capacity: Float[Numbers, " L"]
    b: Float[Numbers, " L"]
    power: Float[Numbers, " L"]

    @property
    def num_nodes(self) -> int:
        """V."""
        return int(max(self.from_node.max(), self.to_node.max())) + 1

    def times(self, flows: Any) -> Any:
        """Time on every link at these flows, [..., L]; NumPy or JAX."""
        return self.free_flow_time * (1 + self.b * (flows / self.capacity) ** self.power)

    def beckmann(self, flows: Any) -> float:
        """Beckmann's objective (1956): the sum of the integrals of time; least at equilibrium."""
        share = np.asarray(flows, np.float64) / self.capacity
        integral = share + self.b * share ** (self.power + 1) / (self.power + 1)
        return float((self.free_flow_time * self.capacity * integral).sum())

    def with_marginal_times(self) -> "Network":
        """Links that take d(v time(v))/dv: their user equilibrium is our system optimum.

        What a driver adds to everybody's time, its own included (Beckmann 1956).
        """
        return self._replace(b=self.b * (1 + self.power))

    def without_road(self, one: int, other: int) -> "Network":
        """The links less those between two nodes, both directions.

        Raises:
            ValueError: there is no such link.
        """
        start, end = np.asarray(self.from_node), np.asarray(self.to_node)
        closed = ((start == one) & (end == other)) | ((start == other) & (end == one))
        if not closed.any():
            raise ValueError(f"a road to close must exist: there is none between {one} and {other}")
        return Network(*(np.asarray(column)[~closed] for column in self))

    def with_road(
        self, one: int, other: int, *, free_flow_time: float, capacity: float
    ) -> "Network":
        """The links and a road more, both directions, with the commonest b and power (the medians).

        Raises:
            ValueError: there is such a link, or as `checked_network`.
        """
        values = (free_flow_time, capacity, np.median(self.b), np.median(self.power))
        more = ((one, other), (other, one), *((x, x) for x in values))
        links = Network(*(np.append(column, x) for column, x in zip(self, more, strict=True)))
        ends = set(zip(self.from_node.tolist(), self.to_node.tolist(), strict=True))
        if {(one, other), (other, one)} & ends:
            raise ValueError(f"a road to add must be new: there is one between {one} and {other}")
        return checked_network(links)

    def marginal_tolls(self, flows: Any) -> Float[np.ndarray, " L"]:
        """v dtime/dv: what a driver's presence costs the others, in time (Pigou 1920)."""
        share = np.asarray(flows, np.float64) / self.capacity
        return np.asarray(self.free_flow_time * self.b * self.power * share**self.power)


def checked_network(links: Any) -> Network:
    """A `Network` from any record or mapping with its arrays.

    Raises:
        ValueError: an array has another length, or a value breaks its rule; names link and value.
    """
    columns = {name: np.asarray(as_array(name, _read(links, name))) for name in Network._fields}
    size = columns["from_node"].shape
    for name, array in columns.items():
        if array.ndim != 1 or array.shape != size or not len(array):
            raise ValueError(f"{name} must have shape [L], as from_node, not {list(array.shape)}")
    for name in ("from_node", "to_node"):
        if not np.issubdtype(columns[name].dtype, np.integer) or columns[name].min() < 0:
            raise ValueError(f"{name} must be integers >= 0")
    for name in Network._fields[2:]:
        strict = name in ("free_flow_time", "capacity")
        values = np.asarray(columns[name], np.float64)
        wrong = ~(np.isfinite(values) & ((values > 0) if strict else (values >= 0)))
        if wrong.any():
            link = int(np.argmax(wrong))
            rule = "> 0" if strict else ">= 0"
            raise ValueError(
                f"{name} must be {rule} and finite: of link {link} it is {values[link]:g}"
            )
        columns[name] = values
    return Network(**columns)


def grid_town(side: int, rng: np.random.Generator) -> Network:
    """A town of side x side nodes, neighbours joined in both directions (the Manhattan lattice).

    Free-flow times are uniform on [1, 3], capacities on [0.5, 1.5], both directions alike; b and
    power are those of the Bureau of Public Roads (1964).

    Args:
        side: >= 2.
        rng: decides the draws.
    """
    node = np.arange(side * side).reshape(side, side)
    one = np.concatenate([node[:, :-1].ravel(), node[:-1].ravel()])
    other = np.concatenate([node[:, 1:].ravel(), node[1:].ravel()])
    times, capacity = rng.uniform(1, 3, len(one)), rng.uniform(0.5, 1.5, len(one))
    start, end = np.append(one, other), np.append(other, one)
    constants = (np.full(len(start), value) for value in (0.15, 4.0))
    return Network(start, end, np.tile(times, 2), np.tile(capacity, 2), *constants)


def shortest_routes(
    network: Network,
    origins: Any,
    destinations: Any,
    num_routes: int,
    lengths: Any = None,
) -> Bool[np.ndarray, "P A L"]:
    """The links of the shortest loopless routes of every pair (Yen 1971).

    A pair with fewer than A routes has its last one several times.

    Args:
        network: where.
        origins: [P] nodes.
        destinations: [P] nodes, others than the origins.
        num_routes: A >= 1.
        lengths: of the links [L], > 0; by default free-flow times.

    Raises:
        ValueError: a length is wrong, a node is unknown, an origin is its own destination, or a
            destination cannot be reached; names the pair.
    """
    check_count("num_routes", num_routes, 1)
    link = {
        (int(a), int(b)): k
        for k, (a, b) in enumerate(zip(network.from_node, network.to_node, strict=True))
    }
    if len(link) < len(network.from_node):
        raise ValueError("from_node and to_node must not name the same link twice")
    size = network.num_nodes
    ends = (np.asarray(x, np.int32) for x in (network.from_node, network.to_node))
    lengths = _checked_lengths(network, lengths)
    graph = csr_array((lengths, tuple(ends)), (size, size))
    graph.indices, graph.indptr = (x.astype(np.int32) for x in (graph.indices, graph.indptr))
    table = np.zeros((len(origins), num_routes, len(network.from_node)), bool)
    for p, (start, end) in enumerate(zip(origins, destinations, strict=True)):
        if start == end or not (0 <= start < size and 0 <= end < size):
            raise ValueError(
                f"origins and destinations must be two nodes of 0..{size - 1}: pair {p} is "
                f"({start}, {end})"
            )
        costs, before = yen(graph, int(start), int(end), num_routes, return_predecessors=True)
        if not len(costs):
            raise ValueError(f"destinations must be reachable: there is no route {start} -> {end}")
        for a in range(num_routes):
            ahead, node = before[min(a, len(costs) - 1)], int(end)
            while node != start:
                table[p, a, link[int(ahead[node]), node]] = True
                node = int(ahead[node])
    return table


def route_times(routes: Any, link_times: Any) -> Any:
    """Sums of link times over routes, [..., A, L] and [L] -> [..., A]."""
    return (jnp if isinstance(routes, Array) else np).einsum("...al,l->...a", routes, link_times)


def _checked_lengths(network: Network, lengths: Any) -> Float[np.ndarray, " L"]:
    free = np.asarray(network.free_flow_time, np.float64)
    if lengths is None:
        return free
    lengths = np.asarray(as_array("route_lengths", lengths), np.float64)
    if lengths.shape != free.shape or not (np.isfinite(lengths) & (lengths > 0)).all():
        raise ValueError("route_lengths must be [L] numbers > 0, one a link")
    return lengths


def _read(links: Any, name: str) -> Any:
    try:
        return links[name] if hasattr(links, "keys") else getattr(links, name)
    except (KeyError, AttributeError):
        raise ValueError(f"links must have {name}") from None
