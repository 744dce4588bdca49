"""Sioux Falls against `user_equilibrium`, a solver that shares no code with the package."""

import jax
import numpy as np
import pytest

import crowdnash as cn
import user_equilibrium
from crowdnash import cases
from crowdnash.cases import sioux_falls
from user_equilibrium import Roads

VEHICLES = 10  # that an agent stands for, at the small scale


@pytest.fixture(scope="module")
def roads():
    return user_equilibrium.sioux_falls()


@pytest.fixture(scope="module")
def equilibrium(roads):
    return roads.equilibrium()


def drivers_of_pairs(game):
    """The first driver of every pair: those of a pair are alike."""
    return np.searchsorted(np.asarray(game.pair), np.arange(game.routes.shape[0]))


def certificate_of(game, probs, num_trajectories):
    return cn.exploitability(
        game,
        cases.routes.policy_of(game, probs),
        key=jax.random.key(0),
        num_trajectories=num_trajectories,
        agents=drivers_of_pairs(game),
        own_influence_agents=0,
    )


def test_the_judge_on_braess_network():
    """Four on the outer roads, two on the others (Braess 1968), 92 each; optimum 83, 3 and 3."""
    braess = Roads(
        [0, 0, 1, 2, 1],
        [1, 2, 3, 3, 2],
        [1e-6, 50, 50, 1e-6, 10],
        np.ones(5),
        [1e7, 1 / 50, 1 / 50, 1e7, 0.1],
        np.ones(5),
        {(0, 3): 6.0},
    )
    flows, _, _ = braess.equilibrium(1e-9)
    np.testing.assert_allclose(flows, [4, 2, 2, 4, 2], atol=1e-4)
    best, _, _ = braess.with_marginal_times().equilibrium(1e-9)
    np.testing.assert_allclose(best, [3, 3, 3, 3, 0], atol=1e-4)


@pytest.mark.slow
def test_the_judge_finds_the_published_equilibrium(roads, equilibrium):
    """To twelve digits with a smaller tolerance; 655 paths are in use, as published."""
    flows, _, loads = equilibrium
    published = sioux_falls.USER_EQUILIBRIUM_OBJECTIVE
    assert roads.objective(flows) == pytest.approx(published, rel=1e-8)
    assert flows @ roads.times(flows) == pytest.approx(sioux_falls.USER_EQUILIBRIUM_TIME, rel=1e-5)
    assert abs(sum(len(x) for x in loads.values()) - 655) <= 20


@pytest.mark.slow
def test_the_judge_finds_the_system_optimum(roads):
    flows, _, _ = roads.with_marginal_times().equilibrium()
    total = flows @ roads.times(flows)
    assert total == pytest.approx(sioux_falls.SYSTEM_OPTIMUM_TIME, rel=1e-8)


@pytest.mark.slow
def test_exact_solution_is_the_judges(roads, equilibrium):
    game = sioux_falls.game("small", num_routes=20)
    assert game.num_agents == 36_060
    judged = cases.judge(game, cases.solve_routes(game, num_iterations=600))
    excess = judged.objective / sioux_falls.USER_EQUILIBRIUM_OBJECTIVE - 1
    assert abs(excess) < 1e-6
    assert judged.relative_gap < 2e-4
    np.testing.assert_allclose(judged.flows, equilibrium[0], rtol=2e-3)
    assert judged.objective == pytest.approx(roads.objective(judged.flows), rel=1e-7)
    assert judged.total_time == pytest.approx(judged.flows @ roads.times(judged.flows), rel=1e-6)


@pytest.mark.slow
def test_all_or_nothing_against_shortest_paths(roads):
    """Everybody on the route that is shortest on empty roads; then the roads are not empty.

    Nothing is random, so gains are known: from shortest paths over the whole network where the
    game offers them, else they are bounded by them.
    """
    game = sioux_falls.game("small", num_routes=20)
    probs = np.zeros((528, 20))
    probs[:, 0] = 1
    flows = roads.all_or_nothing()
    np.testing.assert_allclose(cases.link_flows(game, probs), flows)
    certificate = certificate_of(game, probs, 2)
    routes, offered = np.asarray(game.routes, float), 0
    for p, (origin, destination) in enumerate(roads.demands):
        mine = roads.shortest(roads.free, origin)[1](destination)
        others = flows - VEHICLES * mine
        ahead = roads.times(others + VEHICLES)
        distance, path = roads.shortest(ahead, origin)
        gain = mine @ ahead - distance[destination]
        if (routes[p] == path(destination)).all(1).any():
            offered += 1
            for end in (certificate.frozen.lower[p], certificate.frozen.upper[p]):
                assert end == pytest.approx(gain, rel=1e-4, abs=1e-3)
        else:
            assert certificate.frozen.lower[p] < gain
    assert offered > 400


@pytest.mark.slow
def test_certificate_at_the_published_equilibrium(roads, equilibrium):
    """What is left there: crowds that fluctuate, and drivers who are a vehicle each.

    By expansion to second order in the flow of others, whose routes are drawn independently.
    """
    _, paths, loads = equilibrium
    # The paths of an equilibrium are not unique, and the judge's need not be among 20.
    game = sioux_falls.game("small", num_routes=60)
    routes = np.asarray(game.routes, float)
    probs = np.zeros((528, 60))
    for p, pair in enumerate(roads.demands):
        # A path that is not offered is one that the judge was about to give up.
        same = (routes[p][:, None] == paths[pair]).all(2)
        assert loads[pair][~same.any(0)].sum() < 1
        probs[p] = same @ loads[pair]
    probs /= probs.sum(1, keepdims=True)
    flows = cases.link_flows(game, probs)
    np.testing.assert_allclose(flows, equilibrium[0], rtol=1e-3)

    through = np.einsum("pa,pal->pl", probs, routes)  # chance that a driver takes a link
    drivers = np.array(list(roads.demands.values())) / VEHICLES
    variances = VEHICLES**2 * drivers @ (through * (1 - through))
    gains = np.zeros(528)
    for p in range(528):
        mean = flows - VEHICLES * through[p] + VEHICLES
        variance = variances - VEHICLES**2 * through[p] * (1 - through[p])
        share = mean / roads.capacity
        bend = roads.free * roads.b * 12 * share**2 / roads.capacity**2
        times = routes[p] @ (roads.times(mean) + bend * variance / 2)
        gains[p] = probs[p] @ times - times.min()

    certificate = certificate_of(game, probs, 32)
    frozen = certificate.frozen
    assert frozen.maximum.lower <= gains.max() <= frozen.maximum.upper
    assert frozen.mean.lower <= gains.mean() <= frozen.mean.upper
    # "little": against 5 to 50 minutes of driving.
    assert gains.max() < 0.1
    assert frozen.maximum.upper < 1.5
    assert frozen.mean.upper < 0.1
