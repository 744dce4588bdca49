"""Charging a fleet: electric cars that share a price which rises with what they all draw."""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from crowdnash.checks import as_array, check_count, check_number
from crowdnash.games.base import PopulationGame
from crowdnash.games.parameters import Heterogeneity, agent_array, draw_around, leading_axis
from crowdnash.games.tables import component

WAIT, CHARGE = 0, 1

Numbers = Array | np.ndarray

_ROUNDING = 1e-4
"""Of a step: energy that fits a whole number of steps but for float32 needs no further one."""


class Car(NamedTuple):
    """What tells agents apart; each [N] for all agents, a scalar for one."""

    arrival: Numbers
    departure: Numbers
    need: Numbers
    rate: Numbers


class FleetCharging(PopulationGame):
    """Cars plugged in over a night charge or wait, step by step, at a price that feels the fleet.

    The state is how many steps of charging a car still needs: 0 if it is away or full, `need` from
    `arrival` on, one less after each step in which it charged, and 0 from `departure` on. With x_i
    the power that car i draws, rate_i if it charges and needs to, else 0,

        R^i = -hours (price_h + slope mean_j x_j) x_i  - [h + 1 = departure_i] penalty missing_i,

    the mean over all N cars, i among them, and missing_i in kWh. Charging is by whole steps: need_i
    is the least number of them that holds the energy, and rate_i spreads the energy evenly over
    these, so it is at most `power`. Transitions are free of the others. The game is an atomic
    congestion game (Rosenthal 1973); "valley filling" by decentralised charging is due to Ma,
    Callaway and Hiskens (2013).

    Args:
        arrival: [N] the first step at which a car is plugged in, in 1..H-1.
        departure: [N] the first step at which it is no more, in arrival+1..H.
        energy: [N] >= 0, in kWh, which must fit.
        power: [N] or a number > 0, the most that a car draws, in kW.
        prices: [H] day-ahead prices, in currency per kWh; H is their number.
        slope: >= 0, what one kW of the fleet's mean power adds to the price, in currency per kWh.
        penalty: >= 0, for energy missing at departure, in currency per kWh.
        hours: that a step lasts, > 0.

    Raises:
        ValueError: naming the argument, the rule and the first car that breaks it.
    """

    name: ClassVar[str] = "fleet-charging"
    summary: ClassVar[str] = "Electric cars choose when to charge at prices that rise with the load"
    transition_in_aggregate = "free"
    reward_in_aggregate = "affine"
    num_actions: ClassVar[int] = 2

    arrival: Int[Array, " N"]
    departure: Int[Array, " N"]
    need: Int[Array, " N"]
    rate: Float[Array, " N"]
    prices: Float[Array, " H"]
    slope: Float[Array, ""]
    penalty: Float[Array, ""]
    hours: Float[Array, ""]
    initial_distribution: Float[Array, " S"]
    horizon: int = eqx.field(static=True)
    num_states: int = eqx.field(static=True)

    def __init__(
        self,
        arrival: Any,
        departure: Any,
        energy: Any,
        power: Any,
        *,
        prices: Any,
        slope: float | int = 0.02,
        penalty: float | int = 0.5,
        hours: float | int = 1.0,
    ):
        size = leading_axis("prices", prices)
        self.prices = agent_array("prices", prices, shape=size)
        self.horizon = self.prices.shape[0]
        for name, value in (("slope", slope), ("penalty", penalty)):
            check_number(name, value, least=0)
        check_number("hours", hours, above=0)
        self.slope, self.penalty = jnp.float32(slope), jnp.float32(penalty)
        self.hours = jnp.float32(hours)
        start, end = _steps("arrival", arrival), _steps("departure", departure)
        if start.shape != end.shape:
            raise ValueError(f"departure must have shape [{start.size}], not {list(end.shape)}")
        wanted = np.asarray(agent_array("energy", energy, shape=start.shape), np.float64)
        most = np.asarray(as_array("power", power), np.float64)
        if most.shape not in ((), start.shape):
            expected = f"a number or have shape [{start.size}]"
            raise ValueError(f"power must be {expected}, not {list(most.shape)}")
        most = np.broadcast_to(most, start.shape)
        _check_cars(start, end, wanted, most, self.horizon, float(hours))
        need = np.ceil(wanted / (most * hours) - _ROUNDING).astype(np.int32)
        need = np.where(wanted > 0, np.maximum(need, 1), 0)
        rate = np.where(need > 0, wanted / np.maximum(need, 1) / hours, most)
        self.arrival, self.departure = jnp.asarray(start), jnp.asarray(end)
        self.need = jnp.asarray(need, jnp.int32)
        self.rate = jnp.asarray(rate, jnp.float32)
        self.num_states = int(need.max(initial=0)) + 1
        self.initial_distribution = (jnp.arange(self.num_states) == 0).astype(jnp.float32)

    @classmethod
    def sample(
        cls,
        key: PRNGKeyArray,
        *,
        num_agents: int = 1000,
        horizon: int = 24,
        heterogeneity: Heterogeneity = 0.3,
        arrival: float = 7.0,
        stay: float = 11.0,
        energy: float = 22.0,
        power: float = 11.0,
        mean_price: float = 0.13,
        price_swing: float = 0.05,
        slope: float = 0.02,
        penalty: float = 0.5,
    ) -> "FleetCharging":
        """Draw a fleet over the 24 hours from noon; every quantity is its centre times 1 +- h.

        The price is highest at 18:00 and lowest at 6:00. Times are rounded to steps, a departure
        beyond the horizon is the horizon, and energy that does not fit a car's stay is what fits.

        Args:
            key: decides the draw.
            num_agents: number of cars N >= 2.
            horizon: number of steps H >= 2 that the 24 hours are cut into.
            heterogeneity: half-width in [0, 1) of all quantities in shares of the centre, or one
                for each of arrival, stay, energy, power (default 0.1 for a name left out).
            arrival: hours after noon at which the mean car is plugged in.
            stay: hours that it is plugged in.
            energy: kWh that it needs.
            power: kW that it draws at most.
            mean_price: of a kWh.
            price_swing: of the day-ahead price about its mean.
            slope: what one kW of the fleet's mean power adds to the price of a kWh.
            penalty: for a kWh that is missing at departure.

        Raises:
            ValueError: a number is out of its range; the message names the argument, the rule and
                the value.
        """
        check_count("horizon", horizon, 2)
        for name, centre in (("arrival", arrival), ("stay", stay), ("energy", energy)):
            check_number(name, centre, least=0)
        check_number("power", power, above=0)
        names = ("arrival", "stay", "energy", "power")
        drawn = draw_around(key, dict.fromkeys(names, 1.0), heterogeneity, num_agents)
        factor = {name: np.asarray(x, np.float64) for name, x in drawn.items()}
        hours = 24 / horizon
        start = np.clip(np.rint(arrival * factor["arrival"] / hours), 1, horizon - 1)
        steps = np.maximum(np.rint(stay * factor["stay"] / hours), 1)
        end = np.minimum(start + steps, horizon)
        most = power * factor["power"]
        clock = (np.arange(horizon) + 0.5) * hours
        return cls(
            start.astype(np.int32),
            end.astype(np.int32),
            np.minimum(energy * factor["energy"], (end - start) * most * hours),
            most,
            prices=mean_price + price_swing * np.cos(2 * np.pi * (clock - 6) / 24),
            slope=slope,
            penalty=penalty,
            hours=hours,
        )

    @property
    def agents(self) -> Car:
        """The cars, each array [N]."""
        return Car(self.arrival, self.departure, self.need, self.rate)

    @property
    def state_names(self) -> tuple[str, ...]:
        """See `TabularGame.state_names`."""
        return ("away or full", *(f"needs {s}" for s in range(1, self.num_states)))

    @property
    def action_names(self) -> tuple[str, ...]:
        """See `TabularGame.action_names`."""
        return ("wait", "charge")

    @property
    def reward_range(self) -> tuple[float, float]:
        """All charge at the dearest step or leave with nothing; or charge where that pays most."""
        prices, most = np.asarray(self.prices), float(self.rate.max())
        fleet = float(self.slope * self.rate.mean())
        energy = float(self.hours) * most
        missing = energy * float(self.penalty) * (self.num_states - 1)
        low = -energy * max(float(prices.max()) + fleet, 0.0) - missing
        return low, energy * max(-float(prices.min()), 0.0)

    def contribution(self, agent: Car, state: Array, action: Array) -> Array:
        """The power that the car draws, [1]."""
        return jnp.where((state > 0) & (action == CHARGE), agent.rate, 0.0)[None]

    def transition(
        self, agent: Car, state: Array, action: Array, aggregate: Array, step: Array
    ) -> Array:
        """See `PopulationGame.transition`: known for sure."""
        left = jnp.where((state > 0) & (action == CHARGE), state - 1, state)
        left = jnp.where(step + 1 >= agent.departure, 0, left)
        after = jnp.where(step + 1 == agent.arrival, agent.need, left)
        states = jnp.arange(self.num_states, dtype=jnp.int32)
        return jnp.where(states == after, 1.0, 0.0)

    def reward(
        self, agent: Car, state: Array, action: Array, aggregate: Array, step: Array
    ) -> Array:
        """See `PopulationGame.reward`; `aggregate` [1] is the mean power of the others."""
        charges = (state > 0) & (action == CHARGE)
        drawn = jnp.where(charges, agent.rate, 0.0)
        fleet = ((self.num_agents - 1) * aggregate[0] + drawn) / self.num_agents
        price = component(self.prices, step) + self.slope * fleet
        left = jnp.where(charges, state - 1, state)
        missing = jnp.where(step + 1 == agent.departure, left * agent.rate, 0.0)
        return -self.hours * (price * drawn + self.penalty * missing)


def _steps(name: str, value: Any) -> Int[np.ndarray, " N"]:
    array = np.asarray(as_array(name, value, integers=True))
    if array.ndim != 1:
        raise ValueError(f"{name} must have shape [N], not {list(array.shape)}")
    return array.astype(np.int32)


def _check_cars(
    arrival: np.ndarray,
    departure: np.ndarray,
    energy: np.ndarray,
    power: np.ndarray,
    horizon: int,
    hours: float,
) -> None:
    """Raise `ValueError` about the first car whose stay or energy breaks a rule."""
    room = (departure - arrival) * power * hours
    for wrong, rule, value in (
        ((arrival < 1) | (arrival >= horizon), f"arrival must be in 1..{horizon - 1}", arrival),
        (departure <= arrival, "departure must be after arrival", departure),
        (departure > horizon, f"departure must be at most {horizon}, the number of prices", None),
        (~((power > 0) & (power < np.inf)), "power must be > 0", power),
        (~(energy >= 0), "energy must be >= 0", energy),
        (energy > room * (1 + _ROUNDING), "energy must fit power and stay", energy),
    ):
        if wrong.any():
            car = int(np.argmax(wrong))
            figures = departure if value is None else value
            more = f", which hold {room[car]:g} kWh" if "fit" in rule else ""
            more = f", and arrival {arrival[car]}" if "after" in rule else more
            raise ValueError(f"{rule}: of car {car} it is {figures[car]:g}{more}")
