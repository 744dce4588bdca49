"""Sioux Falls: the game, its exact solution and what is learned, against published values."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import crowdnash as cn
from crowdnash import cases
from crowdnash.cli import main
from crowdnash.games.network import checked_network, shortest_routes

BRAESS = {  # nodes s, 1, 2, t; times 10 v, 50 + v, 50 + v, 10 v, and 10 + v on the short cut
    "from_node": np.array([0, 0, 1, 2, 1]),
    "to_node": np.array([1, 2, 3, 3, 2]),
    "free_flow_time": np.array([1e-6, 50.0, 50.0, 1e-6, 10.0]),
    "capacity": np.ones(5),
    "b": np.array([1e7, 1 / 50, 1 / 50, 1e7, 1 / 10]),
    "power": np.ones(5),
}


def braess(num_agents=6, **options):
    pair = np.zeros(num_agents, int)
    return cn.games.RouteChoice(BRAESS, [0], [3], pair, num_routes=3, **options)


def test_braess():
    """Six drivers (Braess 1968): two on each of three routes, 92 each; 83 without the short cut."""
    game = braess()
    routes = {tuple(np.flatnonzero(r)) for r in np.asarray(game.routes)[0]}
    assert routes == {(0, 2), (1, 3), (0, 3, 4)}
    state = game.reset(jax.random.key(0))
    _, rewards = game.step(state, jnp.array([0, 0, 1, 1, 2, 2]), jax.random.key(1))
    np.testing.assert_allclose(rewards, -92.0, rtol=1e-6)
    closed = cn.games.RouteChoice(
        {k: v[:4] for k, v in BRAESS.items()}, [0], [3], np.zeros(6, int), num_routes=2
    )
    _, rewards = closed.step(state, jnp.array([0, 0, 0, 1, 1, 1]), jax.random.key(1))
    np.testing.assert_allclose(rewards, -83.0, rtol=1e-6)


def test_braess_equilibrium():
    """Of the nonatomic game of 6 vehicles, by 6000 drivers of a thousandth each."""
    game = braess(6000, vehicles=1e-3)
    judged = cases.judge(game, cases.solve_routes(game))
    np.testing.assert_allclose(judged.flows, [4, 2, 2, 4, 2], atol=0.01)
    assert judged.total_time == pytest.approx(6 * 92, rel=1e-3)
    assert judged.relative_gap < 1e-4


def test_tolls_and_values_of_time():
    """By hand: 92 minutes at 0.5 a minute, and a toll of 3 on link 0, which two routes have."""
    game = braess(value_of_time=0.5, tolls=[3.0, 0, 0, 0, 0])
    state = game.reset(jax.random.key(0))
    _, rewards = game.step(state, jnp.array([0, 0, 1, 1, 2, 2]), jax.random.key(1))
    has = np.asarray(game.routes)[0, :, 0]
    np.testing.assert_allclose(rewards, -46.0 - 3.0 * np.repeat(has, 2), rtol=1e-6)
    tolls = checked_network(BRAESS).marginal_tolls(np.array([4.0, 2, 2, 4, 2]))
    np.testing.assert_allclose(tolls, [40, 2, 2, 40, 2], rtol=1e-6)


def test_the_game_keeps_its_contract():
    cn.check_game(braess(4, horizon=2), key=jax.random.key(0))


def test_published_flows_are_the_sum_of_integrals():
    """Beckmann's objective of one link by hand: 6 (v + 0.15 v^5 / (5 c^4)) at v = c = 2: 12.36."""
    one = {"from_node": [0], "to_node": [1], "free_flow_time": [6.0], "capacity": [2.0]}
    network = checked_network(one | {"b": [0.15], "power": [4.0]})
    assert network.beckmann(np.array([2.0])) == pytest.approx(6 * (2 + 0.15 * 2 / 5))
    assert network.times(np.array([2.0])) == pytest.approx(6.9)


def test_shortest_routes_against_all_paths():
    """Of a random network, by enumeration."""
    rng = np.random.default_rng(0)
    ends = np.array([(a, b) for a in range(6) for b in range(6) if a != b and rng.random() < 0.8])
    times = rng.uniform(1, 5, len(ends))
    network = checked_network(
        {
            "from_node": ends[:, 0],
            "to_node": ends[:, 1],
            "free_flow_time": times,
            "capacity": np.ones(len(ends)),
            "b": np.zeros(len(ends)),
            "power": np.ones(len(ends)),
        }
    )

    def paths(node, seen):
        if node == 5:
            return [0.0]
        ahead = [(k, b) for k, (a, b) in enumerate(ends) if a == node and b not in seen]
        return [times[k] + rest for k, b in ahead for rest in paths(b, {*seen, b})]

    routes = shortest_routes(network, [0], [5], 8)
    np.testing.assert_allclose(routes[0] @ times, sorted(paths(0, {0}))[:8])


def test_bad_networks():
    zeros = np.zeros(3, int)
    for change, message in (
        ({"free_flow_time": np.array([1.0, -50, 50, 1, 10])}, "free_flow_time must be > 0.*link 1"),
        ({"capacity": np.zeros(5)}, "capacity must be > 0 .*link 0 it is 0"),
        ({"b": np.ones(4)}, r"b must have shape \[L\]"),
        ({"to_node": np.array([1, 1, 3, 3, 2])}, "from_node and to_node must not name the same"),
    ):
        with pytest.raises(ValueError, match=message):
            cn.games.RouteChoice(BRAESS | change, [0], [3], zeros)
    for ends, message in (
        (([3], [0]), "destinations must be reachable: there is no route 3 -> 0"),
        (([0], [9]), r"two nodes of 0..3: pair 0 is \(0, 9\)"),
        (([0], [0]), r"pair 0 is \(0, 0\)"),
    ):
        with pytest.raises(ValueError, match=message):
            cn.games.RouteChoice(BRAESS, *ends, zeros)
    with pytest.raises(ValueError, match=r"pair must be \[N\] numbers of 0..0"):
        cn.games.RouteChoice(BRAESS, [0], [3], np.ones(3, int))
    with pytest.raises(ValueError, match="value_of_time must be > 0: of agent 0"):
        braess(value_of_time=0.0)


@pytest.mark.slow
def test_the_case_from_play_alone(tmp_path, capsys):
    assert main(["case", "sioux-falls", "--scale", "small", "--out", str(tmp_path), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert abs(summary["exact"]["excess"]) < 1e-6
    assert 0 < summary["learned"]["excess"] < 1e-3
    assert summary["learned"]["relative_gap"] < 5e-3
    lines = (tmp_path / "links.csv").read_text().splitlines()
    assert lines[0] == "from_node,to_node,flow,time"
    assert len(lines) == 77
    certificate = cn.Exploitability.load(tmp_path / "certificate.json")
    assert certificate.lower.shape == (36_060,)
    # Goes on where it stopped; another seed does not.
    assert main(["case", "sioux-falls", "--scale", "small", "--out", str(tmp_path)]) == 0
    assert "done before" in capsys.readouterr().err
    assert main(["case", "sioux-falls", "--out", str(tmp_path)]) == 2
