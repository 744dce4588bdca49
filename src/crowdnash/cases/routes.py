"""Route choice solved exactly, learned from play, and judged by what transport planners ask.

Axes: N drivers, P origin-destination pairs, A routes, L links, G groups of drivers who choose
alike: those of a pair, or of a pair and a value of time.
"""

import dataclasses
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int, PRNGKeyArray

from crowdnash.games.network import Network, checked_network, route_times
from crowdnash.games.route_choice import RouteChoice
from crowdnash.learners.driver import solve as learn
from crowdnash.learners.mirror_descent import PolicyMirrorDescent
from crowdnash.mean_field.evaluation import exploitability as mean_field_gain
from crowdnash.mean_field.induced import induced_game
from crowdnash.mean_field.solvers import solve
from crowdnash.policies.tabular import TabularPolicy

Phases = tuple[tuple[float | Literal["auto"], int], ...]
"""Steps of a learner, and how many epochs of each."""

PHASES: Phases = (("auto", 100), (0.01, 60))
"""Steps of the learner, in 1 / minute, and epochs of each. Under the first policy, uniform, times
are a hundred times what they will be: a step for the end would settle everybody on one route. The
measured step grows as times fall; a short one at the end averages the noise of single plays."""

_FICTITIOUS_PLAY = 400
_MIRROR_STEP = 0.05
_ROUND = 100
_LEAST_PROBABILITY = 1e-30
_SWING = 2.0
"""Flows swing to and fro if the gain grows so much in a round: steps are halved."""
_EXPLORATION = 0.01


class Judgement(NamedTuple):
    """Flows on links, judged as assignments of traffic are (Beckmann 1956).

    Attributes:
        flows: vehicles on each link.
        objective: Beckmann's; least at the user equilibrium.
        total_time: of all vehicles.
        relative_gap: (total time - time if all took today's shortest route) / total time, over the
            routes of the game.
    """

    flows: Float[np.ndarray, " L"]
    objective: float
    total_time: float
    relative_gap: float


def network_of(game: RouteChoice) -> Network:
    """The game's network, in NumPy."""
    return checked_network(game.links)


def link_flows(
    game: RouteChoice, probs: Float[np.ndarray, "G A"], groups: Int[np.ndarray, " N"] | None = None
) -> Float[np.ndarray, " L"]:
    """Expected vehicles on each link.

    Args:
        game: the game.
        probs: of the routes, for each group.
        groups: of the drivers, 0..G-1, each within a pair; by default the pairs.
    """
    vehicles, routes = _route_flows(game, probs, groups)
    return np.einsum("ga,gal->l", vehicles, routes)


def judge(
    game: RouteChoice,
    probs: Float[np.ndarray, "G A"],
    *,
    network: Network | None = None,
    groups: Int[np.ndarray, " N"] | None = None,
) -> Judgement:
    """Judge what each group's drivers do (Wardrop 1952).

    Args:
        game: the game; tolls do not enter, and values of time are all 1.
        probs: of the routes of each group.
        network: by whose times to judge; by default the game's, which are float32.
        groups: as for `link_flows`.
    """
    network = network_of(game) if network is None else network
    taken, routes = _route_flows(game, probs, groups)
    flows = np.einsum("ga,gal->l", taken, routes)
    times = route_times(routes, network.times(flows))
    total = float((taken * times).sum())
    shortest = float(taken.sum(1) @ times.min(1))
    return Judgement(flows, network.beckmann(flows), total, (total - shortest) / total)


def solve_routes(
    game: RouteChoice,
    *,
    num_iterations: int = 2000,
    tolerance: float = 1e-4,
    groups: Int[np.ndarray, " N"] | None = None,
) -> Float[np.ndarray, "G A"]:
    """The equilibrium of the game's mean field, a population a group: the white-box route (Def. 6).

    Fictitious play finds which routes are used; mirror descent from there how much.

    Args:
        game: the game.
        num_iterations: of mirror descent, at most.
        tolerance: on the largest gain of a driver, in reward.
        groups: as for `link_flows`; drivers of a group must have one value of time.
    """
    mfg = induced_game(game, groups=np.asarray(game.pair) if groups is None else groups)
    rough = solve(
        mfg, "fictitious_play", num_iterations=_FICTITIOUS_PLAY, tolerance=tolerance
    ).policy
    best = (1 - _EXPLORATION) * rough + _EXPLORATION / game.num_actions
    step_size, least = _MIRROR_STEP, float(mean_field_gain(mfg, best))
    for _ in range(0, num_iterations, _ROUND):
        result = solve(
            mfg,
            "mirror_descent",
            num_iterations=_ROUND,
            tolerance=tolerance,
            step_size=step_size,
            initial=np.maximum(best, _LEAST_PROBABILITY),
            check_every=_ROUND,
        )
        if result.exploitability > _SWING * least:
            step_size /= 2
            continue
        best, least = result.policy, min(least, float(result.exploitability))
        if result.converged:
            break
    # One group is one population, and its policy then has no axis for it.
    return np.reshape(best, (-1, game.horizon, game.num_actions))[:, 0]


def learn_routes(
    game: RouteChoice,
    key: PRNGKeyArray,
    phases: Phases = PHASES,
) -> Float[np.ndarray, "P A"]:
    """Learn from play alone: one play of all drivers an epoch, a group a pair (Algorithm 2).

    Args:
        game: only simulated.
        key: decides the play.
        phases: step size and number of epochs of each; only the first may be "auto".
    """
    state, done = None, 0
    probs = np.zeros(0)
    for step_size, num_epochs in phases:
        done += num_epochs
        learner = PolicyMirrorDescent(
            evaluation="fitted",
            groups=np.asarray(game.pair),
            td_epochs=1,
            num_epochs=done,
            temperature=0.0,
            step_size=step_size,
            mixing=False,
            iterate="last",
        )
        result = learn(game, learner, key=key, state=state)
        state = dataclasses.replace(result.state, automatic=None, before=None)  # of "auto" alone
        assert isinstance(result.policy, TabularPolicy)
        probs = np.asarray(result.policy.probs)[:, 0, 0].astype(np.float64)
    return probs / probs.sum(1, keepdims=True)


def policy_of(game: RouteChoice, probs: Float[np.ndarray, "P A"]) -> TabularPolicy:
    """Every driver plays its pair's probabilities."""
    table = np.broadcast_to(probs[:, None, None, :], (len(probs), game.horizon, 1, probs.shape[1]))
    return TabularPolicy.grouped(table.astype(np.float32), np.asarray(game.pair))


def _route_flows(
    game: RouteChoice, probs: Float[np.ndarray, "G A"], groups: Int[np.ndarray, " N"] | None
) -> tuple[Float[np.ndarray, "G A"], Float[np.ndarray, "G A L"]]:
    """Vehicles on every route of every group, and the routes."""
    routes = np.asarray(game.routes, np.float64)
    pair = np.asarray(game.pair)
    if groups is None:
        groups = pair
    else:
        _, first = np.unique(groups, return_index=True)
        routes = routes[pair[first]]
    drivers = np.bincount(groups, minlength=len(probs)) * float(game.vehicles)
    return drivers[:, None] * probs, routes
