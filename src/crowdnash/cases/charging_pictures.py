"""Pictures of a fleet's night: price and load, and who could still save."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from crowdnash.cases.charging import Night
from crowdnash.games.fleet_charging import FleetCharging
from crowdnash.reports.chart import Axis, Chart, Dash, Panels, Picture, Series

_LINES: dict[str, tuple[str, Dash]] = {
    "on arrival": ("red", "dashed"),
    "exact": ("blue", "solid"),
    "learned": ("green", "dotted"),
    "central": ("purple", "dash-dotted"),
}
_NOON = 12
_LEAST = 1e-4
"""EUR: what is less is drawn there."""


def draw_night(
    game: FleetCharging,
    nights: Mapping[str, Night],
    gains: Mapping[str, Float[np.ndarray, " N"]],
) -> tuple[Picture, Picture]:
    """Load and price over the night, and what cars could save, sorted.

    Args:
        game: the game.
        nights: by plan: "on arrival", "exact", "learned" and "central".
        gains: certified, of every car, by plan.
    """
    hour = Axis("hours after midnight")
    clock = _NOON - 24 + np.arange(game.horizon) * float(game.hours)
    loads, prices = [], [Series("day-ahead", clock, np.asarray(game.prices), "grey")]
    for name, night in nights.items():
        colour, dash = _LINES[name]
        loads.append(Series(name, clock, night.load, colour, dash))
        prices.append(Series(name, clock, night.price, colour, dash))
    charts = (
        Chart("Load", hour, Axis("mean power of a car, kW", from_zero=True), loads),
        Chart("Price", hour, Axis("price, EUR/kWh"), prices),
    )
    lines = []
    for name, gain in gains.items():
        ranked = np.maximum(np.sort(gain), _LEAST)
        share = (np.arange(len(ranked)) + 0.5) / len(ranked)
        lines.append(Series(name, share, ranked, *_LINES[name]).thinned())
    saving = Chart(
        "What one car could save",
        Axis("share of the cars", unit="share"),
        Axis("certified gain, EUR", scale="log"),
        lines,
    )
    return (
        Picture(
            "night",
            "Load and price over the night: on arrival, at the equilibrium (exact, and learned "
            "from play), and at the least cost of all cars together.",
            Panels(charts, "A night of the fleet", 1, (7.6, 3.3), legend="below"),
        ),
        Picture("gains", "What one car could save, sorted.", Panels((saving,))),
    )
