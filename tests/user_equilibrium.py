"""Traffic assignment in NumPy and SciPy, by paths: an independent judge of road networks.

Nothing here is of the package: links and trips are read from the data files, shortest paths come
from `scipy.sparse.csgraph.dijkstra` over the whole network, and flow moves between the paths of a
pair by projected Newton steps (Jayakrishnan et al. 1994, gradient projection).
"""

from importlib import resources

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra


class Roads:
    """Links [L] with BPR times, and demands by pair."""

    def __init__(self, start, end, free, capacity, b, power, demands):
        self.start, self.end = np.asarray(start, int), np.asarray(end, int)
        self.free, self.capacity, self.b, self.power = (
            np.asarray(x, float) for x in (free, capacity, b, power)
        )
        self.demands = demands  # {(origin, destination): vehicles}
        self.size = int(max(self.start.max(), self.end.max())) + 1
        self.number = {
            (int(a), int(b)): k for k, (a, b) in enumerate(zip(self.start, self.end, strict=True))
        }

    def times(self, flows):
        return self.free * (1 + self.b * (flows / self.capacity) ** self.power)

    def slopes(self, flows):
        share = flows / self.capacity
        return self.free * self.b * self.power * share ** (self.power - 1) / self.capacity

    def objective(self, flows):
        """Beckmann's, by the antiderivative of each link's time."""
        bent = self.b * flows ** (self.power + 1) / (self.power + 1) / self.capacity**self.power
        return float((self.free * (flows + bent)).sum())

    def with_marginal_times(self):
        """The network whose user equilibrium is this one's system optimum: d(v t(v))/dv."""
        bent = self.b * (1 + self.power)
        parts = (self.start, self.end, self.free, self.capacity, bent, self.power, self.demands)
        return Roads(*parts)

    def shortest(self, times, origin):
        """Distances from an origin, and a function that gives a path's links [L]."""
        graph = csr_array((times, (self.start, self.end)), (self.size, self.size))
        distance, before = dijkstra(graph, indices=origin, return_predecessors=True)

        def path(node):
            links = np.zeros(len(self.start))
            while node != origin:
                links[self.number[int(before[node]), node]] = 1
                node = int(before[node])
            return links

        return distance, path

    def gap(self, flows):
        """Relative gap against the shortest paths of the whole network."""
        times, least = self.times(flows), 0.0
        for origin in {pair[0] for pair in self.demands}:
            distance, _ = self.shortest(times, origin)
            least += sum(v * distance[d] for (o, d), v in self.demands.items() if o == origin)
        return 1 - least / float(flows @ times)

    def all_or_nothing(self):
        """Flows where everybody takes the path that is shortest on empty roads."""
        flows = np.zeros(len(self.start))
        for (origin, destination), vehicles in self.demands.items():
            flows += vehicles * self.shortest(self.free, origin)[1](destination)
        return flows

    def equilibrium(self, tolerance=1e-6, sweeps=400):
        """Flows of the user equilibrium to a relative gap of `tolerance`; paths used, and loads."""
        paths, loads = {}, {}
        flows = self.all_or_nothing()
        for pair, vehicles in self.demands.items():
            paths[pair] = self.shortest(self.free, pair[0])[1](pair[1])[None]
            loads[pair] = np.array([float(vehicles)])
        for _ in range(sweeps):
            if self.gap(flows) < tolerance:
                return flows, paths, loads
            for origin in sorted({pair[0] for pair in self.demands}):
                _, path = self.shortest(self.times(flows), origin)
                for pair in [p for p in self.demands if p[0] == origin]:
                    new = path(pair[1])
                    if not (paths[pair] == new).all(1).any():
                        paths[pair] = np.vstack([paths[pair], new])
                        loads[pair] = np.append(loads[pair], 0.0)
                    for _ in range(2):
                        flows = flows + self._shift(paths, loads, pair, flows)
                    used = loads[pair] > 0
                    paths[pair], loads[pair] = paths[pair][used], loads[pair][used]
        raise AssertionError(f"no equilibrium after {sweeps} sweeps: gap {self.gap(flows):.1e}")

    def _shift(self, paths, loads, pair, flows):
        """One Newton step of a pair's flow towards its shortest path; how links change."""
        table, load = paths[pair], loads[pair]
        costs = table @ self.times(flows)
        best = int(costs.argmin())
        curvature = np.abs(table - table[best]) @ self.slopes(flows)
        moved = np.minimum(load, (costs - costs[best]) / np.maximum(curvature, 1e-300))
        moved[best] = 0.0
        change = -moved
        change[best] = moved.sum()
        loads[pair] = load + change
        return change @ table


def sioux_falls():
    """From the files themselves."""
    folder = resources.files("crowdnash.cases") / "data"

    def table(name):
        text = (folder / f"sioux_falls_{name}.csv").read_text().splitlines()
        rows = [[float(x) for x in line.split(",")] for line in text[1:]]
        return dict(zip(text[0].split(","), np.array(rows).T, strict=True))

    links, trips = table("links"), table("trips")
    ends = zip(trips["origin"].astype(int), trips["destination"].astype(int), strict=True)
    demands = {(o - 1, d - 1): v for (o, d), v in zip(ends, trips["trips"], strict=True)}
    names = ("from_node", "to_node", "free_flow_time", "capacity", "b", "power")
    start, end, *rest = (links[name] for name in names)
    return Roads(start - 1, end - 1, *rest, demands)
