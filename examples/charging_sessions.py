"""A third game is a copy of a file: the charging fleet with the whole session in the state.

`cn.games.FleetCharging` keeps a car's arrival, departure and need outside the state, as parameters:
cars then obey very different laws (alpha near its most, 2), and each type needs its own policy.
Here a session is drawn anew every night and is part of the state, so that all cars move alike;
only their power is left to tell them apart, and one policy serves them all.

    python examples/charging_sessions.py

also writes charging_symmetry.png: alpha and beta against what is put into the state.
"""

from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

import crowdnash as cn
from crowdnash.cases import ev_charging

CHARGE = 1


class Plug(NamedTuple):
    """What is left to tell cars apart: the power that each draws, [N] kW."""

    power: Array


class ChargingSessions(cn.PopulationGame):
    """U sessions; a state is a session and where in it a car is.

    Of session u: gone or full, 1..need_u steps still needed, and not yet here.

    Args:
        power: [N] kW.
        sessions: arrival, departure and steps of charging needed, each [U].
        prices: [H] per kWh.
        slope: what one kW of the fleet's mean power adds to the price.
        penalty: for a kWh that is missing at departure.
    """

    name: ClassVar[str] = "charging-sessions"
    transition_in_aggregate = "free"
    reward_in_aggregate = "affine"
    num_actions: ClassVar[int] = 2

    power: Float[Array, " N"]
    prices: Float[Array, " H"]
    slope: float
    penalty: float
    arrival: Int[Array, " S"]
    departure: Int[Array, " S"]
    here: Int[Array, " S"]  # steps still needed by a car that is plugged in, else 0
    arrives_at: Int[Array, " S"]  # the state on arrival, from "not yet here"; else 0
    gone: Int[Array, " S"]
    initial_distribution: Float[Array, " S"]
    horizon: int = eqx.field(static=True)
    num_states: int = eqx.field(static=True)

    def __init__(self, power, sessions, prices, slope=0.02, penalty=0.5):
        self.power = jnp.asarray(power, jnp.float32)
        self.prices = jnp.asarray(prices, jnp.float32)
        self.slope, self.penalty, self.horizon = slope, penalty, len(prices)
        arrival, departure, need = (np.asarray(x) for x in sessions)
        first = np.concatenate([[0], np.cumsum(need + 2)])  # "gone or full" of each session
        owner = np.repeat(np.arange(len(need)), need + 2)
        place = np.arange(first[-1]) - first[owner]
        waits = place == need[owner] + 1
        self.num_states = int(first[-1])
        self.arrival, self.departure = jnp.asarray(arrival[owner]), jnp.asarray(departure[owner])
        self.here = jnp.asarray(np.where(waits, 0, place))
        self.arrives_at = jnp.asarray(np.where(waits, first[owner] + need[owner], -1))
        self.gone = jnp.asarray(first[owner])
        self.initial_distribution = jnp.asarray(waits / waits.sum(), jnp.float32)

    @property
    def agents(self):
        return Plug(self.power)

    def contribution(self, agent, state, action):
        return jnp.where((action == CHARGE) & (self.here[state] > 0), agent.power, 0.0)[None]

    def transition(self, agent, state, action, aggregate, step):
        here, waits = self.here[state], self.arrives_at[state] >= 0
        stays = jnp.where((action == CHARGE) & (here > 0), state - 1, state)
        stays = jnp.where((step + 1 >= self.departure[state]) & (here > 0), self.gone[state], stays)
        comes = waits & (step + 1 == self.arrival[state])
        after = jnp.where(comes, self.arrives_at[state], stays)
        return jnp.where(jnp.arange(self.num_states) == after, 1.0, 0.0)

    def reward(self, agent, state, action, aggregate, step):
        charges = (action == CHARGE) & (self.here[state] > 0)
        drawn = jnp.where(charges, agent.power, 0.0)
        fleet = ((self.num_agents - 1) * aggregate[0] + drawn) / self.num_agents
        left = jnp.where(step + 1 == self.departure[state], self.here[state] - charges, 0)
        price = self.prices[step] + self.slope * fleet
        return -(price * drawn + self.penalty * left * agent.power)


def both_ways(num_types: int = 12, num_agents: int = 120) -> dict[str, cn.Symmetry]:
    """Alpha and beta (Def. 7) against what is in the state."""
    drawn, prices = ev_charging.draw_sessions(num_types, 0), ev_charging.night_prices()
    types = np.arange(num_agents) % num_types
    outside = cn.games.FleetCharging(*(x[types] for x in drawn[:4]), prices=prices)
    sessions = drawn.arrival, drawn.departure, np.asarray(outside.need)[:num_types]
    inside = ChargingSessions(drawn.power[types], sessions, prices)
    alike = ChargingSessions(np.full(num_agents, drawn.power.mean()), sessions, prices)
    return {
        "steps still needed": cn.symmetry(outside),
        "that, and a policy for each type": cn.symmetry(outside, types),
        "the whole session": cn.symmetry(inside),
        "the whole session, one power for all": cn.symmetry(alike),
    }


def draw(ways: dict[str, cn.Symmetry], path: str) -> None:
    """Both numbers of every way as bars, in a picture."""
    from matplotlib.figure import Figure

    panels = {
        "alpha (at most 2)": [sym.alpha.upper for sym in ways.values()],
        "beta, EUR": [sym.beta.upper for sym in ways.values()],
    }
    figure = Figure((8.5, 2.6), layout="constrained")
    for axes, (title, values) in zip(
        figure.subplots(1, 2, sharey=True), panels.items(), strict=True
    ):
        bars = axes.barh(list(ways), values, color="#2a6f97")
        axes.bar_label(bars, [f"{value:.2f}" for value in values], padding=3)
        axes.set(title=title, xlim=(0, 1.2 * max(values)))
        axes.spines[["top", "right"]].set_visible(False)
    axes.invert_yaxis()
    figure.savefig(path, dpi=150)


def main(picture: str = "charging_symmetry.png") -> None:
    """Measure both ways, and let 1200 cars learn one policy."""
    ways = both_ways()
    for name, sym in ways.items():
        print(f"{name:40} alpha {sym.alpha.upper:.3f}  beta {sym.beta.upper:.3f} EUR")
    draw(ways, picture)
    drawn, prices = ev_charging.draw_sessions(12, 0), ev_charging.night_prices()
    need = np.maximum(np.ceil(drawn.energy / drawn.power - 1e-4), 1).astype(int)
    sessions = drawn.arrival, drawn.departure, need
    game = ChargingSessions(drawn.power[np.arange(1200) % 12], sessions, prices)
    cn.check_game(game)
    learner = cn.PolicyMirrorDescent.practical(groups="symmetric", num_epochs=200)
    result = cn.solve(game, learner, key=jax.random.key(0))
    certificate = cn.exploitability(game, result.policy, key=jax.random.key(1))
    uniform = cn.exploitability(game, cn.TabularPolicy.uniform(game), key=jax.random.key(1))
    for name, one in (("one policy for all", certificate), ("uniform play", uniform)):
        print(f"{name}: the mean car could save {one.mean.upper:.3f} EUR, the best-placed one")
        print(f"  {one.maximum.upper:.3f} EUR")


if __name__ == "__main__":
    main()
