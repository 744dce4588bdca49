"""Mean-field games with illegal actions, and populations that start from different states."""

import dataclasses
from itertools import product
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import crowdnash as cn
from limited_games import Drivers, DriversByLaw, may

LICENCES = np.arange(12) % 2
METHODS = ("mirror_descent", "online_mirror_descent", "fictitious_play")


def crowd(starts=None):
    starts = np.full((12, 2), 0.5) if starts is None else starts
    return Drivers(np.linspace(0.1, 0.9, 12), LICENCES, starts)


@pytest.fixture(scope="module")
def induced():
    """One population without a licence, which starts in state 0, and one with, in state 1."""
    starts = np.eye(2)[LICENCES]
    return cn.induced_game(crowd(starts), groups=LICENCES)


def legal_rules(group):
    """All deterministic legal policies [H,S] of a population, by the rule in plain Python."""
    places = [(h, s) for h in range(2) for s in range(2)]
    options = [[a for a in range(3) if may(group, s, h)[a]] for h, s in places]
    return [np.array(rule).reshape(2, 2) for rule in product(*options)]


def test_populations_start_where_their_agents_do(induced):
    uniform = cn.mean_field.solve(induced, num_iterations=0).policy
    for g, h, s in np.ndindex(2, 2, 2):
        allowed = np.array(may(g, s, h))
        np.testing.assert_allclose(uniform[g, h, s], allowed / allowed.sum())
    flow = cn.mean_field.population_flow(induced, uniform)
    np.testing.assert_allclose(flow[:, 0].sum(-1), np.eye(2))
    together = cn.induced_game(Drivers(np.full(12, 0.5), np.ones(12), np.eye(2)[[0] * 9 + [1] * 3]))
    np.testing.assert_allclose(together.initial_distribution, [0.75, 0.25])


def test_exploitability_is_of_legal_policies(induced):
    """Against every deterministic legal policy along the frozen flow, one after the other."""
    uniform = cn.mean_field.solve(induced, num_iterations=0).policy
    flow = cn.mean_field.population_flow(induced, uniform)
    laws = [cn.mean_field.laws_at(induced, flow[:, h], h) for h in range(2)]
    best = cn.mean_field.evaluate(induced, uniform).best_response_value
    for g in range(2):
        values = []
        for rule in legal_rules(g):
            now, value = np.eye(2)[g], 0.0
            for h in range(2):
                value += now @ laws[h].reward[g][[0, 1], rule[h]]
                now = now @ laws[h].transition[g][[0, 1], rule[h]]
            values.append(value)
        np.testing.assert_allclose(best[g], max(values), atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_solvers_stay_among_legal_actions(induced, method):
    mixing: Any = {"mixing": True} if method == "mirror_descent" else {}
    solution = cn.mean_field.solve(induced, method, num_iterations=100, **mixing)
    assert solution.exploitability < solution.history.exploitability[0]
    for g, h, s in np.ndindex(2, 2, 2):
        assert (solution.policy[g, h, s][~np.array(may(g, s, h))] == 0).all()


def test_what_has_no_place_is_refused(induced):
    with pytest.raises(ValueError, match=r"have action 0 in state 0 at step 0 \(group 0\)"):
        cn.mean_field.exploitability(induced, np.full((2, 2, 2, 3), 1 / 3))
    with pytest.raises(ValueError, match="agents 0 and 1 of group 0 have not"):
        cn.induced_game(crowd())
    with pytest.raises(ValueError, match="has illegal actions"):
        cn.induced_game_from_queries(DriversByLaw())
    game = crowd()
    with pytest.raises(ValueError, match="same legal actions, which alpha and beta do not measure"):
        cn.symmetry(game)
    sym = cn.symmetry(game, groups=LICENCES)
    assert cn.nash_bound(game, sym).value > 0
    apart = crowd(np.eye(2)[np.arange(12) % 3 // 2])
    with pytest.raises(ValueError, match=r"same initial distributions, .*: agents 0 and 2"):
        cn.symmetry(apart, groups=LICENCES)
    with pytest.raises(ValueError, match="same initial distributions"):
        cn.nash_bound(apart, dataclasses.replace(sym, fingerprint=""))


def test_games_without_limits_have_none():
    free: Any = type("Free", (Drivers,), {"legal": None})
    assert cn.induced_game(free(starts=jnp.asarray([0.5, 0.5]))).legal_actions is None
