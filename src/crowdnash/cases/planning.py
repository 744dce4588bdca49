"""What a planner asks of a road network: best flows, who pays for tolls, roads closed or added.

Axes: N drivers, L links, K classes of value of time, G = P K groups of drivers.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import norm

from crowdnash.cases.routes import Judgement, judge, solve_routes
from crowdnash.checks import check_count, check_number
from crowdnash.games.network import Network, route_times
from crowdnash.games.route_choice import RouteChoice

_ROUGH, _ROUGH_ITERATIONS = 0.002, 300
"""For comparisons of whole scenarios: largest gain, as a share of the mean free-flow time of a
route; the mean gain is far smaller."""

GameOn = Callable[..., RouteChoice]
"""Makes the same drivers' game on any `Network`; options as for `RouteChoice`."""


class TollStudy(NamedTuple):
    """Who pays for marginal-cost tolls, by class of value of time; money and minutes a driver.

    Money is counted in minutes of the mean driver.

    Attributes:
        value_of_time: mean of each class.
        minutes_before: at the user equilibrium, where values of time do not matter.
        minutes: with tolls.
        tolls: paid.
        total_time: of all vehicles, with tolls.
    """

    value_of_time: Float[np.ndarray, " K"]
    minutes_before: Float[np.ndarray, " K"]
    minutes: Float[np.ndarray, " K"]
    tolls: Float[np.ndarray, " K"]
    total_time: float

    @property
    def loss(self) -> Float[np.ndarray, " K"]:
        """Money that a driver loses by the tolls, if the revenue is kept."""
        return self.value_of_time * (self.minutes - self.minutes_before) + self.tolls

    @property
    def loss_after_refund(self) -> Float[np.ndarray, " K"]:
        """The same if all get an equal share of the revenue."""
        return self.loss - self.tolls.mean()


class RoadStudy(NamedTuple):
    """A road closed or added.

    Attributes:
        road: its two nodes.
        total_time: of all vehicles at the user equilibrium then.
    """

    road: tuple[int, int]
    total_time: float


def system_optimum(game_on: GameOn, roads: Network, before: Judgement) -> Judgement:
    """The flows of least total time, as the equilibrium of marginal times (Beckmann 1956).

    Args:
        game_on: makes the game.
        roads: its links.
        before: the user equilibrium; routes are offered by marginal times there.
    """
    marginal = roads.with_marginal_times()
    game = game_on(marginal, route_lengths=marginal.times(before.flows))
    return judge(game, _settled(game), network=roads)


def class_means(spread: float, num_classes: int) -> Float[np.ndarray, " K"]:
    """Means of a lognormal variable of mean 1 between its quantiles k/K and (k+1)/K.

    Args:
        spread: standard deviation of its logarithm, >= 0.
        num_classes: K >= 1.

    Raises:
        ValueError: an argument is out of its range.
    """
    check_number("spread", spread, least=0)
    check_count("num_classes", num_classes, 1)
    ends = norm.ppf(np.linspace(0, 1, num_classes + 1))
    return num_classes * np.diff(norm.cdf(ends - spread))


def who_pays_tolls(
    game_on: GameOn,
    roads: Network,
    before: Judgement,
    optimum: Float[np.ndarray, " L"],
    *,
    spread: float = 0.7,
    num_classes: int = 5,
) -> TollStudy:
    """Tolls of marginal cost where values of time are lognormal in every pair (Pigou 1920).

    The toll on a link is what a vehicle more costs the others there at the system optimum, by the
    mean value of time, 1. One toll cannot suit all, so the optimum is not quite reached.

    Args:
        game_on: makes the game.
        roads: its links.
        before: the user equilibrium.
        optimum: flows of the system optimum.
        spread: standard deviation of the logarithm of the value of time.
        num_classes: K, of equal size in every pair.

    Raises:
        ValueError: an argument is out of its range.
    """
    values = class_means(spread, num_classes)
    pair = np.asarray(game_on(roads).pair)
    rank = np.arange(len(pair)) - np.searchsorted(pair, pair)
    number = rank * num_classes // np.bincount(pair)[pair]
    tolls = roads.marginal_tolls(optimum)
    lengths = roads.times(optimum) + tolls
    game = game_on(roads, value_of_time=values[number], tolls=tolls, route_lengths=lengths)
    _, groups = np.unique(pair * num_classes + number, return_inverse=True)
    probs = _settled(game, groups)
    after = judge(game, probs, network=roads, groups=groups)
    routes = np.asarray(game.routes, np.float64)
    shortest = (routes @ roads.times(before.flows)).min(1)
    per_route = np.stack([routes @ roads.times(after.flows), routes @ tolls])

    def by_class(each: Float[np.ndarray, " N"]) -> Float[np.ndarray, " K"]:
        return np.bincount(number, each, num_classes) / np.bincount(number, minlength=num_classes)

    minutes, paid = (probs[groups] * per_route[:, pair]).sum(2)
    return TollStudy(
        values, by_class(shortest[pair]), by_class(minutes), by_class(paid), after.total_time
    )


def close_roads(
    game_on: GameOn,
    roads: Network,
    tell: Callable[[str], Any] = lambda line: None,
    executor: Executor | None = None,
) -> list[RoadStudy]:
    """Every road closed, both directions, one at a time; drivers settle anew each time.

    Args:
        game_on: makes the game; with an executor of other processes, a function of a module.
        roads: its links.
        tell: is called with a line about every road.
        executor: computes the cases, which are independent; None: one after the other, here.
    """
    ends = zip(roads.from_node.tolist(), roads.to_node.tolist(), strict=True)
    closed = sorted({(min(x), max(x)) for x in ends})
    return _studies(game_on, [roads.without_road(*road) for road in closed], closed, tell, executor)


def add_roads(
    game_on: GameOn,
    roads: Network,
    candidates: Sequence[tuple[int, int, float]],
    tell: Callable[[str], Any] = lambda line: None,
    executor: Executor | None = None,
) -> list[RoadStudy]:
    """Each candidate road added alone, of median capacity; it need not help (Braess 1968).

    Args:
        game_on: as for `close_roads`.
        roads: its links.
        candidates: two nodes and the free-flow time between them.
        tell: is called with a line about every road.
        executor: as for `close_roads`.
    """
    capacity = float(np.median(roads.capacity))
    longer = [
        roads.with_road(one, other, free_flow_time=minutes, capacity=capacity)
        for one, other, minutes in candidates
    ]
    ends = [(one, other) for one, other, _ in candidates]
    return _studies(game_on, longer, ends, tell, executor)


def new_roads(
    places: Float[np.ndarray, "V 2"], roads: Network, longest: float
) -> list[tuple[int, int, float]]:
    """Pairs of nodes without a road, at most `longest` apart, and a free-flow time for each.

    It is the distance on the map times the median of time / distance of the roads that exist.
    """
    start, end = np.asarray(roads.from_node), np.asarray(roads.to_node)
    lengths = np.linalg.norm(places[start] - places[end], axis=1)
    pace = float(np.median(roads.free_flow_time / lengths))
    ends = set(zip(start.tolist(), end.tolist(), strict=True))
    candidates = []
    for one in range(len(places)):
        for other in range(one + 1, len(places)):
            distance = float(np.linalg.norm(places[one] - places[other]))
            if distance <= longest and not {(one, other), (other, one)} & ends:
                candidates.append((one, other, pace * distance))
    return candidates


def _studies(
    game_on: GameOn,
    networks: Sequence[Network],
    ends: Sequence[tuple[int, int]],
    tell: Callable[[str], Any],
    executor: Executor | None,
) -> list[RoadStudy]:
    each = map if executor is None else executor.map
    studies = []
    for road, total in zip(ends, each(partial(_total_time, game_on), networks), strict=True):
        tell(f"road {road[0] + 1}-{road[1] + 1}: {total:,.0f} vehicle-minutes")
        studies.append(RoadStudy(road, total))
    return studies


def _total_time(game_on: GameOn, roads: Network) -> float:
    game = game_on(roads)
    return judge(game, _settled(game), network=roads).total_time


def _settled(
    game: RouteChoice, groups: Int[np.ndarray, " N"] | None = None
) -> Float[np.ndarray, "G A"]:
    free = route_times(np.asarray(game.routes, np.float64), np.asarray(game.links.free_flow_time))
    return solve_routes(
        game,
        num_iterations=_ROUGH_ITERATIONS,
        tolerance=_ROUGH * float(free.min(1).mean()),
        groups=groups,
    )
