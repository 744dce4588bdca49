"""A fleet of 100,000 electric cars on a winter night's prices in the Netherlands."""

import functools
from collections.abc import Mapping
from concurrent.futures import Executor
from importlib import resources
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import jax
import numpy as np
from jaxtyping import Float, Int

from crowdnash.cases.charging import (
    Night,
    central_game,
    judge,
    learn_charging,
    on_arrival,
    policy_of,
    solve_charging,
)
from crowdnash.cases.charging_pictures import draw_night
from crowdnash.cases.charging_studies import compare_learners
from crowdnash.cases.stages import Tell, certified, open_case, stage, write_table
from crowdnash.certificates.certificate import exploitability
from crowdnash.checks import check_choice, check_count
from crowdnash.files import write_json
from crowdnash.games.fleet_charging import FleetCharging
from crowdnash.reports.still import draw_picture
from crowdnash.reports.style import save_figure

Scale = Literal["small", "full"]
Study = Literal["none", "learners", "all"]
_TYPES = {"small": 100, "full": 400}
_CARS = {"small": 10_000, "full": 100_000}

STEPS, HOURS = 24, 1.0
EVENING = "2023-01-16"
"""The night's prices are those from noon of this day to noon of the next."""


class Sessions(NamedTuple):
    """Charging sessions of T types; steps are counted from noon.

    Attributes:
        arrival: the first step at which a car is plugged in.
        departure: the first at which it is no more.
        energy: kWh.
        power: kW.
        model: of the car, by its name.
    """

    arrival: Int[np.ndarray, " T"]
    departure: Int[np.ndarray, " T"]
    energy: Float[np.ndarray, " T"]
    power: Float[np.ndarray, " T"]
    model: tuple[str, ...]


def night_prices(evening: str = EVENING) -> Float[np.ndarray, " H"]:
    """Day-ahead prices of each step from noon to noon, EUR/kWh.

    Args:
        evening: the day on which the night begins, 2023-01-16 to 2023-01-28.

    Raises:
        ValueError: there are no prices for it.
    """
    times, prices = _table("prices")
    if f"{evening} 12:00" not in times[:-23]:
        raise ValueError(f"evening must be in 2023-01-16..2023-01-28, not {evening!r}")
    noon = list(times).index(f"{evening} 12:00")
    return prices[noon : noon + 24].astype(float) / 1000


def draw_sessions(num_types: int, seed: int) -> Sessions:
    """Draw sessions at home: when a car comes, how long it stays, its energy and its model.

    The four are drawn independently of each other from the data. What does not fit a night is cut:
    a stay beyond noon, energy beyond the battery or beyond what the stay holds.

    Args:
        num_types: T >= 1.
        seed: decides the draw.
    """
    check_count("num_types", num_types, 1)
    check_count("seed", seed, 0)
    rng = np.random.default_rng(seed)
    models, registrations, battery, charger = _table("cars")
    _, shares, *_ = _table("arrivals")
    steps = (np.arange(96) / 4 - 12) // HOURS  # from noon, those before it negative
    weights = shares.astype(float)
    longest = _quantiles("hours")
    # Sessions too short for a step, or that begin in the night's last step, are none.
    chosen = rng.choice(96, 4 * num_types, p=weights / weights.sum())
    arrival = steps[chosen].astype(int) % STEPS + 1
    stay = np.floor(longest(rng.random(chosen.size)) / HOURS).astype(int)
    keep = np.flatnonzero((arrival < STEPS) & (stay >= 1))[:num_types]
    arrival, stay = arrival[keep], stay[keep]
    departure = np.minimum(arrival + stay, STEPS)
    counts = registrations.astype(float)
    car = rng.choice(len(models), num_types, p=counts / counts.sum())
    power = charger.astype(float)[car]
    energy = np.minimum(_quantiles("energy")(rng.random(num_types)), battery.astype(float)[car])
    energy = np.minimum(energy, (departure - arrival) * power * HOURS)
    return Sessions(arrival, departure, energy, power, tuple(models[car]))


def game(
    scale: Scale = "full", *, seed: int = 0, prices: Any = None, **options: Any
) -> tuple[FleetCharging, Int[np.ndarray, " N"]]:
    """The game, and the type of each car.

    Args:
        scale: "full" is 100,000 cars of 400 types, "small" 10,000 of 100.
        seed: decides the types.
        prices: of `FleetCharging`; default: `night_prices()`.
        **options: as for `FleetCharging` (slope, penalty).

    Raises:
        ValueError: `scale` is none of these, or an option is wrong.
    """
    check_choice("scale", scale, tuple(_CARS))
    sessions = draw_sessions(_TYPES[scale], seed)
    types = np.arange(_CARS[scale]) % _TYPES[scale]
    columns = (column[types] for column in sessions[:4])
    prices = night_prices() if prices is None else prices
    return FleetCharging(*columns, prices=prices, hours=HOURS, **options), types


def run(
    out: Path,
    *,
    scale: Scale = "full",
    seed: int = 0,
    study: Study = "none",
    tell: Tell = lambda line: None,
    executor: Executor | None = None,
) -> dict[str, Any]:
    """Solve exactly, learn from play, certify that and charging on arrival; pictures and tables.

    Writes `exact.npz`, `central.npz`, `learned.npz`, `load.csv` (the learned fleet's),
    `certificate.json`, `certificate-on-arrival.json`, `nights.csv`, `models.csv`, `night.png`,
    `gains.png` and `summary.json`; with a study `learners.csv` and `learners.png` too. What is
    there is not learned again.

    Args:
        out: a directory, new or of the same case, scale and seed.
        scale: see `game`.
        seed: decides the fleet and all draws.
        study: "learners" compares learners by what a car could save after so much play; "all" is
            the same.
        tell: is called with a line about every stage.
        executor: computes the learners of the study; None: one after the other.

    Returns:
        The summary.

    Raises:
        ValueError: `scale`, `seed` or `study` is wrong, or `out` holds something else.
        OSError: `out` cannot be written.
    """
    check_choice("scale", scale, tuple(_CARS))
    check_count("seed", seed, 0)
    check_choice("study", study, get_args(Study))
    settings = {"case": "ev-charging", "scale": scale, "seed": seed}
    open_case(out, settings)
    fleet, types = game(scale, seed=seed)
    keys = jax.random.split(jax.random.key(seed), 2)
    central = central_game(fleet)
    probs = {
        "on arrival": on_arrival(fleet, types),
        "exact": stage(out, "exact", tell, lambda: solve_charging(fleet, types)),
        "learned": stage(out, "learned", tell, lambda: learn_charging(fleet, types, keys[0])),
        "central": stage(out, "central", tell, lambda: solve_charging(central, types)),
    }
    nights = {name: judge(fleet, types, policy) for name, policy in probs.items()}
    gains = {}
    for name, file in (("learned", ""), ("on arrival", "-on-arrival")):
        policy = policy_of(probs[name], types)
        certificate = certified(
            out / f"certificate{file}.json",
            tell,
            f"{name}, {fleet.num_agents} cars",
            functools.partial(exploitability, fleet, policy, key=keys[1]),
        )
        gains[name] = np.asarray(certificate.lower)  # exact: the upper ends are the same
    _write_tables(
        out, seed, fleet, nights, {name: g[: types.max() + 1] for name, g in gains.items()}
    )
    for picture in draw_night(fleet, nights, gains):
        save_figure(draw_picture(picture), out / f"{picture.name}.png")
    summary = {
        **settings,
        "num_agents": fleet.num_agents,
        "nights": {name: _figures(night, fleet.num_agents) for name, night in nights.items()},
        "load_off": _load_off(nights["learned"], nights["exact"]),
        "gains": {
            name: {"largest": float(gain.max()), "mean": float(gain.mean())}
            for name, gain in gains.items()
        },
        "price_of_anarchy": nights["exact"].mean_cost / nights["central"].mean_cost,
    }
    if study != "none":
        summary["learners"] = compare_learners(out, fleet, types, keys[0], tell, executor)
    write_json(out / "summary.json", summary)
    return summary


def _figures(night: Night, num_agents: int) -> dict[str, float]:
    return {"mean_cost": night.mean_cost, "peak_kw": float(night.load.max()) * num_agents}


def _load_off(night: Night, exact: Night) -> float:
    """The largest difference between two loads, as a share of the peak."""
    return float(np.abs(night.load - exact.load).max() / exact.load.max())


def _write_tables(
    out: Path,
    seed: int,
    fleet: FleetCharging,
    nights: Mapping[str, Night],
    gains: Mapping[str, Float[np.ndarray, " T"]],
) -> None:
    learned, steps = nights["learned"], range(fleet.horizon)
    rows = zip(steps, learned.price, learned.load * fleet.num_agents, strict=True)
    write_table(out / "load.csv", "step,price,load_kw", rows)
    columns = [x for night in nights.values() for x in (night.price, night.load)]
    names = ",".join(f"price {name},load_per_car {name}".replace(" ", "_") for name in nights)
    rows = zip(steps, np.asarray(fleet.prices), *columns, strict=True)
    write_table(out / "nights.csv", f"step,day_ahead,{names}".replace("__", "_"), rows)
    models = np.array(draw_sessions(len(learned.share), seed).model)
    kwh = np.asarray(fleet.need * fleet.rate)[: len(models)] * float(fleet.hours)
    rows = [
        (
            model,
            round(fleet.num_agents * learned.share[own].sum()),
            kwh[own].mean(),
            nights["on arrival"].cost[own].mean(),
            learned.cost[own].mean(),
            gains["on arrival"][own].mean(),
            gains["learned"][own].mean(),
            gains["learned"][own].max(),
        )
        for model in sorted(set(models))
        if (own := models == model).any()
    ]
    write_table(
        out / "models.csv",
        "model,cars,kwh,cost_on_arrival,cost,gain_on_arrival,mean_gain,largest_gain",
        rows,
    )


def _quantiles(name: str) -> Any:
    """The inverse distribution function of hours or energy of sessions at home."""
    above, values, *_ = _table(name)
    share = 1 - above.astype(float)[::-1] / 100
    return lambda uniform: np.interp(uniform, share, values.astype(float)[::-1])


def _table(name: str) -> tuple[np.ndarray, ...]:
    """Columns, as text."""
    path = resources.files("crowdnash.cases") / "data" / f"ev_charging_{name}.csv"
    _, *lines = path.read_text().splitlines()
    return tuple(np.array(column) for column in zip(*(x.split(",") for x in lines), strict=True))
