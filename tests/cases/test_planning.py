"""What a planner asks, on networks small enough for closed forms."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import lognorm

import crowdnash as cn
from crowdnash.cases import judge, planning, routes, sioux_falls
from crowdnash.games.network import checked_network

N = 1000
# OpenSpiel's Braess network (dynamic_routing_data.py) without its first and last links, which take
# no time; nodes A, B, C, D are 0..3, and 1 is all its traffic.
BRAESS = {
    "from_node": np.array([0, 0, 1, 1, 2]),
    "to_node": np.array([1, 2, 2, 3, 3]),
    "free_flow_time": np.array([1.0, 2.0, 0.25, 2.0, 1.0]),
    "capacity": np.ones(5),
    "b": np.array([1.0, 0, 0, 0, 1.0]),
    "power": np.ones(5),
}


def braess_on(roads, **options):
    num_routes = min(3, len(roads.from_node) - 2)
    options = {"num_routes": num_routes, "vehicles": 1 / N, **options}
    return cn.games.RouteChoice(roads, [0], [3], np.zeros(N, int), **options)


@pytest.fixture(scope="module")
def braess():
    """OpenSpiel's network, the judged equilibrium and the optimum."""
    roads = checked_network(BRAESS)
    game = braess_on(roads)
    before = judge(game, cn.cases.solve_routes(game), network=roads)
    return roads, before, planning.system_optimum(braess_on, roads, before)


def test_openspiels_braess(braess):
    """Its test has 3.75 for the equilibrium, 3/4 on A-B, and 3.5 for the optimum, half and half."""
    roads, before, best = braess
    assert before.total_time == pytest.approx(3.75, rel=2e-3)
    np.testing.assert_allclose(before.flows, [0.75, 0.25, 0.5, 0.25, 0.75], atol=5e-3)
    assert best.total_time == pytest.approx(3.5, rel=2e-3)
    np.testing.assert_allclose(best.flows, [0.5, 0.5, 0, 0.5, 0.5], atol=0.03)
    np.testing.assert_allclose(roads.marginal_tolls(best.flows), [0.5, 0, 0, 0, 0.5], atol=0.03)


@pytest.mark.slow
def test_closing_the_short_cut_helps(braess):
    """And adding it hurts (Braess 1968): 3.5 without.

    A new road has the median b, 0.5 here, so x on it take 1/4 (1 + x / 2). Those on A-B-C-D and on
    A-B-D, x and y with x + 2 y = 1, are as fast if x + y + 1/4 + x / 8 = 1: x = 0.4, y = 0.3, 3.7.
    """
    roads, _, _ = braess
    closed = {x.road: x.total_time for x in planning.close_roads(braess_on, roads)[2:3]}
    assert closed == {(1, 2): pytest.approx(3.5, rel=2e-3)}
    without = roads.without_road(1, 2)
    (added,) = planning.add_roads(braess_on, without, [(1, 2, 0.25)])
    assert added.total_time == pytest.approx(3.7, rel=3e-3)
    with pytest.raises(
        ValueError, match="a road to close must exist: there is none between 0 and 3"
    ):
        roads.without_road(0, 3)
    with pytest.raises(ValueError, match="a road to add must be new: there is one between 1 and 2"):
        roads.with_road(1, 2, free_flow_time=1.0, capacity=1.0)


def test_tolls_reach_the_optimum_where_all_value_time_alike(braess):
    """Half pay 0.5 at the first road, half at the last; all drive 3.5 minutes, not 3.75."""
    roads, before, best = braess
    study = planning.who_pays_tolls(braess_on, roads, before, best.flows, spread=0.0, num_classes=2)
    np.testing.assert_allclose(study.value_of_time, 1)
    np.testing.assert_allclose(study.minutes_before, 3.75, rtol=2e-3)
    assert study.total_time == pytest.approx(3.5, rel=5e-3)
    np.testing.assert_allclose(study.tolls, 0.5, atol=0.05)
    np.testing.assert_allclose(study.loss, 0.25, atol=0.05)
    np.testing.assert_allclose(study.loss_after_refund.mean(), -0.25, atol=0.05)


def test_class_means_by_integration():
    for spread, count in ((0.7, 5), (0.3, 2), (1.5, 4)):
        law = lognorm(spread, scale=np.exp(-(spread**2) / 2))
        assert law.mean() == pytest.approx(1)
        ends = law.ppf(np.linspace(0, 1, count + 1))
        below = [quad(lambda x, pdf: x * pdf(x), 0, end, (law.pdf,))[0] for end in ends[:-1]]
        means = count * np.diff([*below, 1.0])
        np.testing.assert_allclose(planning.class_means(spread, count), means, rtol=1e-5)
    with pytest.raises(ValueError, match="spread must be"):
        planning.class_means(-1.0, 2)


def test_new_roads_by_hand():
    """A square of side 1 with three roads of 2, 2 and 4 minutes: the fourth side takes 2."""
    places = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    roads = checked_network(
        {
            "from_node": [0, 1, 2],
            "to_node": [1, 2, 3],
            "free_flow_time": [2.0, 2, 4],
            "capacity": [1.0] * 3,
            "b": [0.15] * 3,
            "power": [4.0] * 3,
        }
    )
    assert planning.new_roads(places, roads, 1.0) == [(0, 3, 2.0)]
    diagonals = {(a, b): t for a, b, t in planning.new_roads(places, roads, 1.5)}
    assert diagonals == {(0, 2): pytest.approx(8**0.5), (0, 3): 2.0, (1, 3): pytest.approx(8**0.5)}


def test_groups_within_a_pair_are_judged_as_their_pair():
    """The same choices, told pair by pair and in two groups a pair."""
    game = cn.games.RouteChoice(
        BRAESS, [0, 1], [3, 3], np.repeat([0, 1], [4, 6]), num_routes=2, vehicles=0.1
    )
    probs = np.array([[0.25, 0.75], [0.5, 0.5]])
    groups = np.array([0, 0, 1, 1, 2, 2, 2, 3, 3, 3])
    one, other = judge(game, probs), judge(game, probs[[0, 0, 1, 1]], groups=groups)
    np.testing.assert_allclose(one.flows, other.flows)
    assert one.relative_gap == pytest.approx(other.relative_gap)


def test_where_the_nodes_are():
    """Node 1 is in the corner at the upper left, 20 at the lower right of the grid of streets."""
    places = sioux_falls.places()
    assert places.shape == (24, 2)
    assert len({tuple(x) for x in places}) == 24
    np.testing.assert_array_equal(places[[0, 12, 19]], [[0, 9], [0, 0], [5, 0]])
    assert routes.network_of(sioux_falls.game("small", num_routes=1)).num_nodes == 24
