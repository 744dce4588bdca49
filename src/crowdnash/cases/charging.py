"""A fleet's charging solved exactly, learned from play, and judged by the prices that it makes.

Axes: N cars of T types, H steps, S states. Cars of a type form a group.
"""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, PRNGKeyArray

from crowdnash.games.fleet_charging import CHARGE, Car, FleetCharging
from crowdnash.learners.driver import solve as learn
from crowdnash.learners.mirror_descent import PolicyMirrorDescent
from crowdnash.learners.mirror_state import MirrorDescentState
from crowdnash.mean_field.induced import induced_game
from crowdnash.mean_field.solvers import solve
from crowdnash.policies.tabular import TabularPolicy


class Phase(NamedTuple):
    """Settings of the learner for a while.

    Attributes:
        step_size: xi, 1 / EUR.
        temperature: tau, EUR; who has learned that an hour is bad still tries it now and then.
        num_epochs: nights.
    """

    step_size: float
    temperature: float
    num_epochs: int


PHASES = (Phase(5.0, 0.002, 40), Phase(10.0, 0.0003, 60), Phase(10.0, 0.0003, 100))
"""The second reaches the equilibrium, the third goes round it and is averaged."""

_LEAST_TRIED = 0.02


class Night(NamedTuple):
    """What a night costs if all cars of a type play alike and the fleet is large.

    Attributes:
        load: mean power of a car at each step, kW.
        price: of each step, EUR/kWh.
        cost: of a car of each type, EUR.
        least: what the cheapest plan at these prices would cost it.
        share: of the cars that are of each type.
    """

    load: Float[np.ndarray, " H"]
    price: Float[np.ndarray, " H"]
    cost: Float[np.ndarray, " T"]
    least: Float[np.ndarray, " T"]
    share: Float[np.ndarray, " T"]

    @property
    def mean_cost(self) -> float:
        """Of a car, EUR."""
        return float(self.share @ self.cost)

    @property
    def gain(self) -> Float[np.ndarray, " T"]:
        """What a car of each type could save at these prices."""
        return self.cost - self.least


def judge(
    game: FleetCharging, types: Int[np.ndarray, " N"], probs: Float[np.ndarray, "T H S A"]
) -> Night:
    """The night under a policy for each type, in expectation, and each type's cheapest plan.

    A car that takes prices as they are charges at the cheapest `need` steps of its stay.

    Args:
        game: the game.
        types: of the cars, 0..T-1; cars of a type must be alike.
        probs: of waiting and charging.
    """
    cars = _one_of_each(game, types)
    charging, missing = _follow(cars, game.num_states, np.asarray(probs, np.float64))
    share = np.bincount(types) / len(types)
    rate, hours = np.asarray(cars.rate, np.float64), float(game.hours)
    load = share * rate @ charging
    price = np.asarray(game.prices, np.float64) + float(game.slope) * load
    penalty = float(game.penalty)
    cost = hours * rate * (charging @ price + penalty * missing)
    steps = np.arange(game.horizon)
    away = (steps < cars.arrival[:, None]) | (steps >= cars.departure[:, None])
    ranked = np.sort(np.where(away, np.inf, price), axis=1)
    needed = steps < cars.need[:, None]
    least = hours * rate * np.where(needed, np.minimum(ranked, penalty), 0).sum(1)
    return Night(load, price, cost, least, share)


def solve_charging(
    game: FleetCharging,
    types: Int[np.ndarray, " N"],
    *,
    num_iterations: int = 2000,
    tolerance: float = 1e-3,
) -> Float[np.ndarray, "T H S A"]:
    """The equilibrium of the game's mean field, a population a type: the white-box route (Def. 6).

    Args:
        game: the game.
        types: of the cars.
        num_iterations: of fictitious play, at most.
        tolerance: on the largest gain of a car, in EUR.
    """
    mfg = induced_game(game, groups=types)
    solution = solve(
        mfg,
        "fictitious_play",
        step_size="classic",
        num_iterations=num_iterations,
        tolerance=tolerance,
        check_every=50,
    )
    shape = (-1, game.horizon, game.num_states, game.num_actions)
    return np.reshape(np.asarray(solution.policy), shape)


def central_game(game: FleetCharging) -> FleetCharging:
    """The game whose equilibrium costs all cars together least: everybody pays what it adds.

    The fleet pays sum_h L_h (price_h + slope L_h), of which another kW costs price_h + 2 slope L_h.
    """
    return eqx.tree_at(lambda g: g.slope, game, 2 * game.slope)


def learn_charging(
    game: FleetCharging,
    types: Int[np.ndarray, " N"],
    key: PRNGKeyArray,
    phases: tuple[Phase, ...] = PHASES,
) -> Float[np.ndarray, "T H S A"]:
    """Learn from play alone: one night of all cars an epoch, a group a type (Algorithm 2).

    The first policy spreads a car's charging evenly over the rest of its stay. Under the uniform
    one all cars are full after a few steps, and nobody ever sees what waiting is worth.

    Args:
        game: only simulated.
        types: of the cars.
        key: decides the play.
        phases: of the learner, at least two.

    Returns:
        The mean of the policies of the last phase (Algorithm 2 takes that of all).
    """
    state, done, average, total = None, 0, np.zeros(0), np.zeros(0)
    for phase in phases:
        learner = PolicyMirrorDescent(
            evaluation="fitted",
            groups=types,
            td_epochs=1,
            num_epochs=done + phase.num_epochs,
            temperature=phase.temperature,
            step_size=phase.step_size,
            mixing=False,
        )
        if state is None:
            state = first_state(game, types, learner, key)
        result = learn(game, learner, key=key, state=state)
        state, before = result.state, average
        policy = result.policies["average"]
        assert isinstance(policy, TabularPolicy)
        average = np.asarray(policy.probs, np.float64)
        if done:
            # The averages of 1 + done policies, and of as many more as the phase has epochs.
            total = (done + phase.num_epochs + 1) * average - (done + 1) * before
        done += phase.num_epochs
    total = np.maximum(total, 0)
    return total / total.sum(-1, keepdims=True)


def first_state(
    game: FleetCharging,
    types: Int[np.ndarray, " N"],
    learner: PolicyMirrorDescent,
    key: PRNGKeyArray,
) -> MirrorDescentState:
    """Where learning begins: charging that is spread evenly over the rest of a car's stay.

    Args:
        game: the game.
        types: of the cars, which are the groups of the learner; cars of a type must be alike.
        learner: of tables.
        key: decides the play.
    """
    first = jnp.log(jnp.asarray(_spread(game, _one_of_each(game, types)), jnp.float32))
    return eqx.tree_at(lambda s: s.log_probs, learner.init(game, key=key), first)


def _spread(game: FleetCharging, cars: Car) -> Float[np.ndarray, "T H S A"]:
    """Charge with probability (steps needed) / (steps left), within what is tried of both."""
    left = np.maximum(cars.departure[:, None] - np.arange(game.horizon), 1)
    share = np.arange(game.num_states) / left[:, :, None]
    charge = np.clip(share, _LEAST_TRIED, 1 - _LEAST_TRIED)
    return np.stack([1 - charge, charge], -1)


def on_arrival(game: FleetCharging, types: Int[np.ndarray, " N"]) -> Float[np.ndarray, "T H S A"]:
    """The policy that charges at once, until the car is full."""
    num_types = int(types.max()) + 1
    always = np.arange(game.num_actions) == CHARGE
    shape = (num_types, game.horizon, game.num_states, game.num_actions)
    return np.broadcast_to(always.astype(np.float64), shape)


def policy_of(probs: Float[np.ndarray, "T H S A"], types: Int[np.ndarray, " N"]) -> TabularPolicy:
    """Every car plays its type's probabilities."""
    return TabularPolicy.grouped(jnp.asarray(probs, jnp.float32), types)


def _one_of_each(game: FleetCharging, types: Int[np.ndarray, " N"]) -> Car:
    """The records of one car of each type."""
    _, first = np.unique(types, return_index=True)
    return Car(*(np.asarray(column)[first] for column in game.agents))


def _follow(
    cars: Car, num_states: int, probs: Float[np.ndarray, "T H S A"]
) -> tuple[Float[np.ndarray, "T H"], Float[np.ndarray, " T"]]:
    """How often a car of each type charges at each step, and the steps that it misses."""
    num_types, horizon = probs.shape[:2]
    mass = np.zeros((num_types, num_states))
    mass[:, 0] = 1
    charging, missing = np.zeros((num_types, horizon)), np.zeros(num_types)
    for h in range(horizon):
        charges = mass * probs[:, h, :, CHARGE]
        charges[:, 0] = 0
        charging[:, h] = charges.sum(1)
        mass = mass - charges
        mass[:, :-1] += charges[:, 1:]
        leaves, comes = h + 1 == cars.departure, h + 1 == cars.arrival
        missing[leaves] = mass[leaves] @ np.arange(num_states)
        mass[leaves | comes] = 0
        mass[leaves, 0] = 1
        mass[comes, np.asarray(cars.need)[comes]] = 1
    return charging, missing
